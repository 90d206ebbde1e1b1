use std::fs::File;
use std::sync::Barrier;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::oci::DiffId;
use crate::stream::{Checkpoints, Compression, SpanTable};

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Work that tells when it begins and ends when it is told to.
struct Steered {
    begun: Mutex<Sender<(&'static str, Digest)>>,
    go: Mutex<Receiver<()>>,
}

impl Work for Steered {
    fn pass(&self, blob: &Blob, _: &Control<'_>) -> Result<Passed, Error> {
        let digest = blob.digest().clone();
        self.begun.lock().send(("pass", digest.clone())).ok();
        self.go.lock().recv().ok();
        assert_ne!(digest, Digest::of(b"fault"), "a fault of ours");
        let table = SpanTable::new(Compression::Plain, 0, vec![], Checkpoints::default());
        let table = table.expect("an empty table is good");
        let diff_id = DiffId(digest.clone());
        Ok(Passed {
            toc: Arc::new(Toc::new(digest, 0, diff_id, table)),
            may_improve: true,
        })
    }

    fn hash(&self, blob: &Blob, _: &Control<'_>) -> Result<(), Error> {
        self.begun.lock().send(("hash", blob.digest().clone())).ok();
        self.go.lock().recv().ok();
        Ok(())
    }

    fn improve(&self, blob: &Blob, _: &Arc<Toc>, _: &Control<'_>) {
        self.begun
            .lock()
            .send(("improve", blob.digest().clone()))
            .ok();
    }
}

struct Setting {
    queue: Arc<Queue>,
    begun: Receiver<(&'static str, Digest)>,
    go: Sender<()>,
    blobs: Vec<Arc<Blob>>,
}

fn setting(names: &[&str]) -> Result<Setting, Box<dyn std::error::Error>> {
    let (tell, begun) = channel();
    let (go, wait) = channel();
    let work = Steered {
        begun: Mutex::new(tell),
        go: Mutex::new(wait),
    };
    let mut blobs = Vec::new();
    for name in names {
        let file: File = tempfile::tempfile()?;
        blobs.push(Arc::new(Blob::new(Digest::of(name.as_bytes()), file)?));
    }
    Ok(Setting {
        queue: Arc::new(Queue::new(Box::new(work))),
        begun,
        go,
        blobs,
    })
}

impl Setting {
    /// Waits until so many jobs are known.
    fn wait_for(&self, count: usize) {
        while self.queue.status().len() < count {
            thread::yield_now();
        }
    }
}

#[test]
fn two_at_once_first_come_first_served_improvements_last() -> TestResult {
    let setting = setting(&["a", "b", "c", "d"])?;
    thread::scope(|scope| -> TestResult {
        for (index, blob) in setting.blobs.iter().enumerate() {
            let queue = &setting.queue;
            scope.spawn(move || queue.run(blob).map(drop));
            setting.wait_for(index + 1);
        }
        let first = [setting.begun.recv()?.1, setting.begun.recv()?.1];
        assert!(first.contains(&Digest::of(b"a")) && first.contains(&Digest::of(b"b")));
        let states = setting
            .queue
            .status()
            .into_iter()
            .map(|status| status.state);
        use PassState::{Queued, Running};
        assert_eq!(
            states.collect::<Vec<_>>(),
            [Running, Running, Queued, Queued]
        );
        setting.go.send(())?;
        assert_eq!(setting.begun.recv()?, ("pass", Digest::of(b"c")));
        setting.go.send(())?;
        assert_eq!(setting.begun.recv()?, ("pass", Digest::of(b"d")));
        setting.go.send(())?;
        setting.go.send(())?;
        for _ in 0..4 {
            assert_eq!(setting.begun.recv()?.0, "improve");
        }
        Ok(())
    })?;
    setting.queue.wait_idle();
    assert!(setting.queue.status().is_empty());
    Ok(())
}

#[test]
fn what_somebody_waits_for_passes_what_nobody_does() -> TestResult {
    let setting = setting(&["a", "b", "c", "d", "e", "f", "g"])?;
    let (queue, blobs) = (&setting.queue, &setting.blobs);
    queue.enqueue(&blobs[0], Task::Pass, Asker::Waits)?;
    queue.enqueue(&blobs[1], Task::Pass, Asker::Waits)?;
    for _ in 0..AT_ONCE {
        setting.begun.recv()?;
    }
    for ahead in &blobs[2..5] {
        queue.request(ahead, Task::Pass);
    }
    // One that is in the queue, a new one, one of the others once more, and those again.
    for at in [4, 5, 3, 5, 4] {
        queue.enqueue(&blobs[at], Task::Pass, Asker::Waits)?;
    }
    queue.request(&blobs[6], Task::Pass);
    let mut order = Vec::new();
    for _ in 2..blobs.len() {
        setting.go.send(())?;
        let (_, digest) = setting.begun.recv()?;
        order.push(blobs.iter().position(|blob| *blob.digest() == digest));
    }
    assert_eq!(order, [4, 5, 3, 2, 6].map(Some));
    for _ in 0..AT_ONCE {
        setting.go.send(())?;
    }
    queue.wait_idle();
    Ok(())
}

/// As all layers are made ready before somebody asks for one.
#[test]
fn what_keeps_nobody_waiting_passes_nothing() -> TestResult {
    let setting = setting(&["a", "b", "ahead", "eager", "ahead too", "awaited"])?;
    let (queue, blobs) = (&setting.queue, &setting.blobs);
    for running in &blobs[..AT_ONCE] {
        queue.enqueue(running, Task::Pass, Asker::Waits)?;
        setting.begun.recv()?;
    }
    queue.request(&blobs[2], Task::Pass);
    let (is_waiting, order) = thread::scope(|scope| -> Result<_, Box<dyn std::error::Error>> {
        let eager = scope.spawn(|| queue.run_behind(&blobs[3], Task::Pass));
        setting.wait_for(4);
        queue.request(&blobs[4], Task::Pass);
        queue.enqueue(&blobs[5], Task::Pass, Asker::Waits)?;
        let (mut order, is_waiting) = (Vec::new(), !eager.is_finished());
        for _ in AT_ONCE..blobs.len() {
            setting.go.send(())?;
            let (_, digest) = setting.begun.recv()?;
            order.push(blobs.iter().position(|blob| *blob.digest() == digest));
        }
        for _ in 0..AT_ONCE {
            setting.go.send(())?;
        }
        Ok((is_waiting, order))
    })?;
    assert!(is_waiting, "it is not done yet");
    assert_eq!(order, [5, 2, 3, 4].map(Some));
    queue.wait_idle();
    Ok(())
}

#[test]
fn all_who_ask_for_the_same_share_one_pass() -> TestResult {
    const ASKERS: usize = 8;
    let setting = setting(&["a"])?;
    let all_ask = Barrier::new(ASKERS + 1);
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let (queue, blob) = (&setting.queue, &setting.blobs[0]);
        let ask = || {
            let job = queue.enqueue(blob, Task::Pass, Asker::Waits);
            all_ask.wait();
            queue.outcome(&*job?)
        };
        let threads: Vec<_> = (0..ASKERS).map(|_| scope.spawn(ask)).collect();
        all_ask.wait();
        // Were there more passes than one, none of them would wait for ever.
        for _ in 0..ASKERS {
            setting.go.send(()).expect("the work is there");
        }
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join();
        threads
            .into_iter()
            .map(|thread| join(thread).expect("no panic"))
            .collect()
    });
    setting.queue.wait_idle();
    let begun = setting.begun.try_iter().filter(|(what, _)| *what == "pass");
    assert_eq!(begun.count(), 1);
    let first = outcomes[0].clone()?;
    for outcome in outcomes {
        assert!(Arc::ptr_eq(&outcome?, &first));
    }
    Ok(())
}

#[test]
fn a_pass_hashes_as_well_and_hashing_makes_no_pass() -> TestResult {
    let setting = setting(&["a", "b", "c"])?;
    let (queue, blobs) = (&setting.queue, &setting.blobs);
    let pass = queue.enqueue(&blobs[0], Task::Pass, Asker::Waits)?;
    let hash = queue.enqueue(&blobs[0], Task::Hash, Asker::Waits)?;
    assert!(Arc::ptr_eq(&pass, &hash), "one job for both");
    let hash = queue.enqueue(&blobs[1], Task::Hash, Asker::Waits)?;
    let pass = queue.enqueue(&blobs[1], Task::Pass, Asker::Waits)?;
    assert!(!Arc::ptr_eq(&pass, &hash), "two jobs");
    queue.request(&blobs[2], Task::Hash);
    let states = queue.status().into_iter().map(|status| status.digest);
    let waiting: Vec<Digest> = states.skip(2).collect();
    assert_eq!(waiting, [1, 2].map(|at: usize| blobs[at].digest().clone()));
    for _ in 0..4 {
        setting.go.send(())?;
    }
    queue.hash(&blobs[2])?;
    queue.wait(&hash)?;
    assert_eq!(queue.outcome(&pass)?.digest(), blobs[1].digest());
    queue.wait_idle();
    let begun = setting.begun.try_iter();
    let hashed: Vec<_> = begun.filter(|(what, _)| *what == "hash").collect();
    assert_eq!(hashed.len(), 2, "{hashed:?}");
    queue.shut_down();
    assert!(matches!(queue.hash(&blobs[2]), Err(Error::ShutDown)));
    Ok(())
}

#[test]
fn what_nobody_waits_for_is_not_queued_without_end() -> TestResult {
    let names: Vec<String> = (0..100).map(|at| at.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let setting = setting(&names)?;
    let (last, others) = setting.blobs.split_last().ok_or("no blobs")?;
    for blob in others {
        setting.queue.request(blob, Task::Pass);
    }
    for _ in 0..AT_ONCE {
        setting.begun.recv()?;
    }
    let most = AT_ONCE + REQUESTED;
    assert!(setting.queue.status().len() <= most);
    // Who waits is taken all the same.
    let job = setting.queue.enqueue(last, Task::Pass, Asker::Waits)?;
    assert!(
        setting
            .queue
            .status()
            .iter()
            .any(|one| one.digest == *last.digest())
    );
    for _ in 0..names.len() {
        setting.go.send(())?;
    }
    setting.queue.outcome(&job)?;
    setting.queue.wait_idle();
    Ok(())
}

#[test]
fn a_pass_that_breaks_off_ends_no_other() -> TestResult {
    let setting = setting(&["fault", "b"])?;
    thread::scope(|scope| -> TestResult {
        let (queue, blobs) = (&setting.queue, &setting.blobs);
        let fault = scope.spawn(move || queue.run(&blobs[0]).map(drop));
        setting.wait_for(1);
        let other = scope.spawn(move || queue.run(&blobs[1]).map(drop));
        setting.go.send(())?;
        setting.go.send(())?;
        let fault = fault.join().map_err(|_| "the asker panicked")?;
        assert!(matches!(fault, Err(Error::BrokenOff { .. })), "{fault:?}");
        assert!(other.join().map_err(|_| "the asker panicked")?.is_ok());
        Ok(())
    })?;
    setting.queue.wait_idle();
    Ok(())
}

#[test]
fn running_through_waits_for_the_improvement() -> TestResult {
    let setting = setting(&["a"])?;
    let (queue, blob) = (&setting.queue, &setting.blobs[0]);
    setting.go.send(())?;
    let (toc, spent) = queue.run_through(blob)?;
    assert_eq!(toc.digest(), blob.digest());
    assert!(spent > Duration::ZERO);
    let begun: Vec<_> = setting.begun.try_iter().map(|(what, _)| what).collect();
    assert_eq!(begun, ["pass", "improve"], "both are over");
    queue.wait_for(blob)?;
    queue.shut_down();
    assert!(matches!(queue.wait_for(blob), Err(Error::ShutDown)));
    Ok(())
}

#[test]
fn shutting_down_ends_every_wait() -> TestResult {
    let setting = setting(&["a", "b", "c"])?;
    thread::scope(|scope| -> TestResult {
        let queue = &setting.queue;
        let ask = |blob| scope.spawn(move || queue.run(blob).map(drop));
        let threads: Vec<_> = setting.blobs.iter().map(ask).collect();
        setting.wait_for(3);
        setting.queue.shut_down();
        for thread in threads {
            let outcome = thread.join().map_err(|_| "the asker panicked")?;
            assert!(matches!(outcome, Err(Error::ShutDown)), "{outcome:?}");
        }
        setting.go.send(())?;
        setting.go.send(())?;
        Ok(())
    })?;
    setting.queue.wait_idle();
    assert!(matches!(
        setting.queue.run(&setting.blobs[0]),
        Err(Error::ShutDown)
    ));
    Ok(())
}
