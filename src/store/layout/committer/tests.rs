mod crash;

use std::collections::BTreeSet;
use std::time::SystemTime;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::oci::{Digest, RefName};
use crate::store::Verdicts;
use crate::store::disk::simulated::{SimulatedDisk, Trouble};
use crate::store::layout::index::update::Basis;
use crate::store::layout::refs::{self, Collision};
use crate::store::layout::{self, Layout};

type TestResult = Result<(), Box<dyn std::error::Error>>;

const EMPTY: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

/// The views that an observer was told.
type Seen = Arc<Mutex<Vec<View>>>;

fn committer(writer: LayoutWriter) -> Result<(Committer, Seen), Error> {
    let first = writer.read_index()?;
    let seen = Seen::default();
    let told = seen.clone();
    let observer = Box::new(move |view| told.lock().push(view));
    Ok((Committer::new(writer, first, observer), seen))
}

fn on_disk() -> Result<(TempDir, Committer, Seen), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    layout::init(dir.path())?;
    // It was not made by a copy just now.
    let marker = std::fs::File::options()
        .write(true)
        .open(dir.path().join("oci-layout"))?;
    marker.set_modified(SystemTime::now() - TOGETHER * 100)?;
    let layout = Layout::open(dir.path(), &[])?;
    let writer = LayoutWriter::open(&layout, Arc::new(Verdicts::new(None)))?;
    let (committer, seen) = committer(writer)?;
    Ok((dir, committer, seen))
}

fn simulated() -> Result<(SimulatedDisk, Committer, Seen), Box<dyn std::error::Error>> {
    let disk = SimulatedDisk::default();
    disk.put("index.json", EMPTY)?;
    disk.settle();
    let verdicts = Arc::new(Verdicts::new(None));
    let writer = LayoutWriter::on(Arc::new(disk.clone()), "layout".as_ref(), verdicts);
    let (committer, seen) = committer(writer)?;
    Ok((disk, committer, seen))
}

/// An entry that is told from others by `content`.
fn entry(content: &str) -> String {
    let digest = Digest::of(content.as_bytes());
    format!(r#"{{"mediaType":"text/plain","digest":"{digest}","size":1}}"#)
}

fn set(draft: &mut Draft, name: &str, content: &str) -> Result<(), Refusal> {
    let name: RefName = name.parse().expect("it is a ref name");
    refs::set(draft, &name, &[entry(content)], Collision::Refuse)
}

fn add(committer: &Committer, name: &str) -> Result<Committed<()>, Error> {
    committer.commit(&[], |draft| set(draft, name, name))
}

fn names(view: &View) -> Vec<String> {
    let entries = view.entries().iter();
    let names = entries.filter_map(|entry| entry.ref_name.clone());
    names.collect()
}

fn present(committer: &Committer) -> Result<BTreeSet<String>, Error> {
    Ok(names(&committer.writer().read_index()?)
        .into_iter()
        .collect())
}

/// Lets threads commit in one update: the first holds the others up until all are in line.
/// What the first one gets, and the others, unless it fails before.
fn together<T: Send>(
    committer: &Committer,
    count: usize,
    commit: impl Fn(usize) -> T + Sync,
) -> (Result<Committed<()>, Error>, Vec<T>) {
    let (begin, begun) = mpsc::channel();
    let hold_up = move |_: &mut Draft| {
        begin.send(()).expect("it is waited for");
        while committer.line.lock().waiting.len() < count {
            std::thread::yield_now();
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| committer.commit(&[], hold_up));
        let mut threads = Vec::new();
        if begun.recv().is_ok() {
            let commit = &commit;
            threads.extend((0..count).map(|number| scope.spawn(move || commit(number))));
        }
        let answers = threads
            .into_iter()
            .map(|thread| thread.join().expect("it ends"));
        let answers = answers.collect();
        (first.join().expect("it ends"), answers)
    })
}

#[test]
fn many_changes_are_one_update() -> TestResult {
    let (disk, one_by_one, _) = simulated()?;
    disk.expect(Trouble::None);
    add(&one_by_one, "first")?;
    let steps_of_one = disk.steps();
    let (disk, committer, seen) = simulated()?;
    disk.expect(Trouble::None);
    let (first, answers) = together(&committer, 16, |number| {
        let committed = add(&committer, &format!("r{number}"))?;
        let seen = seen.lock().last().map(names).unwrap_or_default();
        Ok::<_, Error>((committed, seen.contains(&format!("r{number}"))))
    });
    assert!(!first?.is_changed);
    for answer in answers {
        let (committed, is_seen) = answer?;
        assert!(committed.is_changed && is_seen);
    }
    assert_eq!(present(&committer)?.len(), 16);
    assert_eq!(
        disk.steps(),
        steps_of_one,
        "as many steps for 16 as for one"
    );
    assert_eq!(seen.lock().len(), 1);
    Ok(())
}

/// A committer whose index takes several calls to be read.
fn with_long_index() -> Result<(SimulatedDisk, Committer), Box<dyn std::error::Error>> {
    let (disk, committer, _) = simulated()?;
    let fill = |draft: &mut Draft| {
        let mut names = (0..1500).map(|number| format!("r{number}"));
        names.try_for_each(|name| set(draft, &name, &name))
    };
    committer.commit(&[], fill)?;
    assert!(committer.writer().read_index()?.bytes().len() > (3 * 64) << 10);
    Ok((disk, committer))
}

/// The most calls that looking at files takes without reading a long one.
const FEW_CALLS: usize = 6;

#[test]
fn what_we_have_written_is_not_read_again() -> TestResult {
    let (disk, committer) = with_long_index()?;
    disk.expect(Trouble::None);
    let seen = committer.observe()?;
    assert!(disk.calls() <= FEW_CALLS, "{} calls", disk.calls());
    assert_eq!(names(&seen).len(), 1500);
    disk.expect(Trouble::None);
    let refused = committer.commit(&[], |draft| set(draft, "r7", "another"));
    assert!(matches!(refused, Err(Error::Refused(_))));
    let calls = disk.calls();
    disk.put("index.json", &disk.read("index.json")?)?;
    disk.expect(Trouble::None);
    let refused = committer.commit(&[], |draft| set(draft, "r7", "another"));
    assert!(matches!(refused, Err(Error::Refused(_))));
    assert!(calls + 3 < disk.calls(), "what others have written is read");
    Ok(())
}

/// However soon after the last look, and though the size stays the same.
#[test]
fn what_others_write_at_once_is_seen() -> TestResult {
    let (dir, committer, _) = on_disk()?;
    for number in 100..400 {
        let text =
            format!(r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"n":"{number}"}}}}"#);
        std::fs::write(dir.path().join("index.json"), &text)?;
        let seen = committer.observe()?;
        assert_eq!(**seen.bytes(), text.as_bytes());
    }
    Ok(())
}

#[test]
fn what_we_are_about_to_tell_is_not_read_again() -> TestResult {
    let (disk, committer) = with_long_index()?;
    let mut story = committer.story.lock();
    committer.line.lock().is_led = true;
    let updated = committer
        .writer
        .update(&Basis::default(), |draft| set(draft, "x", "x"))?;
    disk.expect(Trouble::None);
    let seen = std::thread::scope(|scope| {
        let observer = scope.spawn(|| committer.observe());
        std::thread::sleep(Duration::from_millis(20));
        story.newest = updated.after.clone();
        *committer.told.lock() = updated.after.clone();
        drop(story);
        observer.join().expect("it ends")
    })?;
    assert!(disk.calls() <= FEW_CALLS, "{} calls", disk.calls());
    assert_eq!(names(&seen).len(), 1501);
    Ok(())
}

#[test]
fn each_gets_its_own_answer() -> TestResult {
    let (_, committer, _) = simulated()?;
    add(&committer, "taken")?;
    let (first, answers) = together(&committer, 4, |number| match number {
        0 => committer.commit(&[], |draft| set(draft, "taken", "other").map(|()| 0)),
        1 => committer.commit(&[], |draft| {
            set(draft, "half", "half")?;
            refs::remove(draft, "missing").map(|removed| removed.len())
        }),
        2 => committer.commit(&[], |draft| set(draft, "taken", "taken").map(|()| 2)),
        _ => committer.commit(&[], |draft| set(draft, "new", "new").map(|()| 3)),
    });
    first?;
    let refused = |answer: &Result<_, Error>| match answer {
        Err(Error::Refused(refusal)) => refusal.to_string(),
        other => format!("{other:?}"),
    };
    assert!(refused(&answers[0]).contains("exists"), "{answers:?}");
    assert!(refused(&answers[1]).contains("no ref"), "{answers:?}");
    let committed = |at: usize| answers[at].as_ref().ok().copied();
    let (answer, is_changed) = (2, false);
    assert_eq!(committed(2), Some(Committed { answer, is_changed }));
    let (answer, is_changed) = (3, true);
    assert_eq!(committed(3), Some(Committed { answer, is_changed }));
    let expected = ["new", "taken"].map(str::to_owned);
    assert_eq!(present(&committer)?, BTreeSet::from(expected));
    Ok(())
}

#[test]
fn a_failure_is_told_to_all_and_the_next_ones_go_on() -> TestResult {
    let (disk, committer, seen) = simulated()?;
    disk.expect(Trouble::None);
    together(&committer, 0, |_| ()).0?;
    let first_write = disk.steps();
    disk.expect(Trouble::Failure(first_write, libc::ENOSPC));
    let (first, answers) = together(&committer, 3, |number| {
        add(&committer, &format!("r{number}"))
    });
    let errors = answers.into_iter().chain([first]).map(Result::err);
    for error in errors {
        let source = match error.as_ref().map(Error::kind) {
            Some(Error::Io { source, .. }) => source.raw_os_error(),
            other => panic!("{other:?}"),
        };
        assert_eq!(source, Some(libc::ENOSPC));
    }
    assert!(present(&committer)?.is_empty() && seen.lock().is_empty());
    add(&committer, "after")?;
    assert_eq!(present(&committer)?.len(), 1);
    Ok(())
}

#[test]
fn a_change_that_panics_hinders_no_other() -> TestResult {
    let (_, committer, _) = simulated()?;
    let change = |number: usize| {
        move |draft: &mut Draft| match number {
            1 => panic!("a mistake"),
            number => set(draft, &format!("r{number}"), "content"),
        }
    };
    let commit = |number| {
        let commit = || committer.commit(&[], change(number)).is_ok();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(commit)).ok()
    };
    let (first, answers) = together(&committer, 3, commit);
    first?;
    assert_eq!(answers, [Some(true), None, Some(true)]);
    assert_eq!(commit(1), None, "also of one that leads");
    assert_eq!(commit(3), Some(true));
    assert_eq!(present(&committer)?.len(), 3);
    Ok(())
}

#[test]
fn who_waits_for_the_locks_waits_together() -> TestResult {
    let (disk, committer, _) = simulated()?;
    disk.expect(Trouble::Failure(0, libc::EIO));
    assert!(add(&committer, "a").is_err(), "the first step is a lock");
    assert!(!committer.line.lock().is_led);
    add(&committer, "b")?;
    Ok(())
}

#[test]
fn what_others_write_is_told_and_healed() -> TestResult {
    let (dir, committer, seen) = on_disk()?;
    let path = dir.path().join("index.json");
    let index = |names: &[&str]| {
        let mut draft = Draft::parse(EMPTY).expect("it is an index");
        for name in names {
            set(&mut draft, name, name).expect("it is free");
        }
        draft.to_bytes()
    };
    let last = || seen.lock().last().map(names).unwrap_or_default();
    let write = |names: &[&str]| std::fs::write(&path, index(names));
    add(&committer, "ours")?;
    write(&["ours", "theirs"])?;
    committer.observe()?;
    assert_eq!(last(), ["ours", "theirs"]);
    committer.observe()?;
    assert_eq!(seen.lock().len(), 2, "nothing is told twice");
    write(&["stale"])?;
    committer.observe()?;
    assert_eq!(last(), ["stale", "ours"]);
    assert_eq!(names(&committer.writer().read_index()?), last());
    write(&["stale"])?;
    committer.observe()?;
    assert_eq!(last(), ["stale"], "a deletion");
    add(&committer, "more")?;
    // Who commits need not have observed it.
    write(&["stale", "stale2"])?;
    add(&committer, "even-more")?;
    assert_eq!(last(), ["stale", "stale2", "more", "even-more"]);
    Ok(())
}

#[test]
fn a_copy_of_what_is_there_deletes_nothing() -> TestResult {
    let (dir, committer, seen) = on_disk()?;
    let (index, marker) = (dir.path().join("index.json"), dir.path().join("oci-layout"));
    add(&committer, "theirs")?;
    let before = std::fs::read(&index)?;
    for _ in 0..3 {
        add(&committer, "ours").or_else(|error| match error.kind() {
            Error::Refused(Refusal::Exists { .. }) => Ok(Committed {
                answer: (),
                is_changed: false,
            }),
            _ => Err(error),
        })?;
        std::fs::write(&marker, std::fs::read(&marker)?)?;
        std::fs::write(&index, &before)?;
        committer.observe()?;
        assert_eq!(present(&committer)?.len(), 2);
    }
    std::thread::sleep(TOGETHER * 2);
    std::fs::write(&index, &before)?;
    committer.observe()?;
    assert_eq!(present(&committer)?.len(), 1, "a deletion in place");
    add(&committer, "ours")?;
    // `umoci rm`, right after a copy.
    std::fs::write(&marker, std::fs::read(&marker)?)?;
    let new = dir.path().join("new");
    std::fs::write(&new, &before)?;
    std::fs::rename(&new, &index)?;
    committer.observe()?;
    assert_eq!(present(&committer)?.len(), 1, "a deletion by a rename");
    assert_eq!(
        seen.lock().last().map(names),
        Some(vec!["theirs".to_owned()])
    );
    Ok(())
}

/// A stale write gets in between reading and renaming: it is merged, and what it had
/// dropped is there again before anybody is answered.
#[test]
fn a_stale_write_in_between_is_healed() -> TestResult {
    let (dir, committer, seen) = on_disk()?;
    add(&committer, "ours")?;
    let mut stale = Draft::parse(EMPTY)?;
    set(&mut stale, "theirs", "theirs")?;
    committer.commit(&[], |draft| {
        std::fs::write(dir.path().join("index.json"), stale.to_bytes()).expect("it is written");
        set(draft, "more", "more")
    })?;
    let expected = ["more", "ours", "theirs"].map(str::to_owned);
    assert_eq!(present(&committer)?, BTreeSet::from(expected));
    assert_eq!(seen.lock().last().map(|view| view.entries().len()), Some(3));
    Ok(())
}

#[test]
fn a_torn_index_is_replaced_by_the_last_good_one() -> TestResult {
    for torn in ["", "{\"schemaVersion\":2,\"manif"] {
        let (dir, committer, _) = on_disk()?;
        add(&committer, "good")?;
        std::fs::write(dir.path().join("index.json"), torn)?;
        assert!(committer.observe().is_err(), "{torn:?}");
        add(&committer, "more")?;
        assert_eq!(present(&committer)?.len(), 2, "{torn:?}");
    }
    Ok(())
}

/// What a thread does to one of few names.
#[derive(Debug, Clone)]
enum Wish {
    Set(u8, u8),
    Take(u8, u8),
    Remove(u8),
}

fn grant(draft: &mut Draft, wish: &Wish) -> Result<(), Refusal> {
    let name = |name: &u8| {
        format!("r{name}")
            .parse::<RefName>()
            .expect("it is a ref name")
    };
    let content = |content: &u8| [entry(&content.to_string())];
    match wish {
        Wish::Set(n, c) => refs::set(draft, &name(n), &content(c), Collision::Refuse),
        Wish::Take(n, c) => refs::set(draft, &name(n), &content(c), Collision::Replace),
        Wish::Remove(n) => refs::remove(draft, name(n).as_str()).map(drop),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever threads do at once has some order, and each gets the answer that is due in
    /// that order.
    #[test]
    fn there_is_a_serial_order(
        wishes in prop::collection::vec(prop::collection::vec(prop_oneof![
            (0..4u8, 0..3u8).prop_map(|(name, content)| Wish::Set(name, content)),
            (0..4u8, 0..3u8).prop_map(|(name, content)| Wish::Take(name, content)),
            (0..4u8).prop_map(Wish::Remove),
        ], 0..8), 1..6),
    ) {
        let (disk, committer, seen) = simulated().expect("it is made");
        let log = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for wishes in &wishes {
                let (log, committer) = (&log, &committer);
                scope.spawn(move || for wish in wishes {
                    let mut place = 0;
                    let answer = committer.commit(&[], |draft| {
                        let mut log = log.lock();
                        place = log.len();
                        log.push((wish, None));
                        drop(log);
                        grant(draft, wish)
                    });
                    let answer = answer.map(|c| c.is_changed).map_err(|error| error.to_string());
                    log.lock()[place].1 = Some(answer);
                });
            }
        });
        let mut draft = Draft::parse(EMPTY).expect("it is an index");
        for (wish, answer) in log.into_inner() {
            let mut copy = draft.fresh_copy();
            let due = grant(&mut copy, wish).map(|()| copy.is_changed());
            if due.is_ok() {
                draft.adopt(copy);
            }
            prop_assert_eq!(answer, Some(due.map_err(|refusal| refusal.to_string())), "{:?}", wish);
        }
        prop_assert_eq!(disk.read("index.json").expect("it is there"), draft.to_bytes());
        if let Some(last) = seen.lock().last() {
            prop_assert_eq!(&**last.bytes(), &draft.to_bytes());
        }
    }
}
