//! How many threads wait for requests at a time: mostly one.
//!
//! Who looks at files one by one has one request under way, or two, since closing does not
//! wait. The kernel gives each to the thread that has slept longest, so that eight of them
//! would take turns at what one can do. Waking a thread is most of what a request costs;
//! one that comes back to a request that waits need not be woken.
//!
//! ```text
//!            take                    leave
//!  kernel ─────────> handler ─────────────────> kernel, if fewer than `wanted` are there
//!    ^                                    └───> rest ──┐
//!    └─────────────── called, deputy, idle ────────────┘
//! ```
//!
//! All threads are needed where requests take long. So somebody takes the place of the one
//! who works on a request:
//!
//! - at once, where that is known to take long ([`Turn::takes_long`]);
//! - else after [`TICK`]: one of those who rest, the deputy, looks that often;
//! - for good, while requests wait already when somebody comes for the next ([`HURRY`]).
//!
//! Who rests goes back by itself when there are no requests any more, so that all threads
//! are with the kernel when the mount ends.
//!
//! Somebody who looks at files one by one sends the next request some microseconds after an
//! answer. So the one thread that then waits for it alone looks for it a little while
//! before it sleeps ([`LINGER`]), if the last request came as soon: a thread that is awake
//! need not be woken. It does so only while there is a processor for that: none is taken
//! from those who decode, nor from the one who asks.
//!
//! Invariant: while a thread rests, one is with the kernel or will be within two ticks.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::load;

/// How often the deputy looks. Less would wake it for nothing more often than it is needed;
/// more would let those wait whose request comes while another one takes long.
const TICK: Duration = Duration::from_millis(2);

/// How long there are no requests before all threads go back: long beside what a program
/// does between two, short beside what ends a mount.
const IDLE: Duration = Duration::from_millis(20);

/// A request that is taken so soon after another one was answered has waited: nobody who
/// was woken by the answer can have sent it.
const HURRY: Duration = Duration::from_micros(5);

/// After so many requests in a row that waited one more thread is with the kernel, after so
/// many that did not one less.
const PATIENCE: u32 = 16;

/// How long a thread looks for the next request before it sleeps: about as long as falling
/// asleep and being woken take.
const LINGER: Duration = Duration::from_micros(50);

/// How often is looked at whether a processor is free; that takes some microseconds.
const LOOK: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Crew {
    state: Mutex<State>,
    called: Condvar,
    /// Where the requests come from.
    device: OnceLock<OwnedFd>,
}

#[derive(Debug)]
struct State {
    /// How many wait for a request, or are about to.
    with_kernel: usize,
    /// How many are to do so, of all of them.
    wanted: usize,
    threads: usize,
    resting: usize,
    /// How many of those who rest have been called, and did not hear it yet.
    called: usize,
    has_deputy: bool,
    /// How many requests there were.
    requests: u64,
    /// When the last one was answered.
    answered: Instant,
    hurried: u32,
    calm: u32,
    /// Whether the last request came soon after an answer.
    is_prompt: bool,
    /// Whether a processor was free, and when that was looked at.
    has_room: bool,
    looked: Option<Instant>,
    processors: usize,
}

impl Crew {
    /// One of `threads`, all of which are with the kernel.
    pub(super) fn new(threads: usize) -> Self {
        let state = State {
            with_kernel: threads,
            wanted: 1,
            threads,
            resting: 0,
            called: 0,
            has_deputy: false,
            requests: 0,
            answered: Instant::now(),
            hurried: 0,
            calm: 0,
            is_prompt: false,
            has_room: false,
            looked: None,
            processors: thread::available_parallelism().map_or(1, usize::from),
        };
        Self {
            state: Mutex::new(state),
            called: Condvar::new(),
            device: OnceLock::new(),
        }
    }

    /// Lets threads look at `device` for requests before they sleep. Only the first one
    /// counts.
    pub(super) fn look_at(&self, device: OwnedFd) {
        drop(self.device.set(device));
    }

    /// Notes that the calling thread has got a request. What that gives is to be dropped
    /// after the request was answered or handed on; that may take its time.
    pub(super) fn take(&self) -> Turn<'_> {
        let mut state = self.state.lock();
        state.with_kernel = state.with_kernel.saturating_sub(1);
        state.requests += 1;
        if state.adapt() {
            self.call(&mut state);
        }
        Turn(self)
    }

    /// Lets one of those who rest go to the kernel.
    fn call(&self, state: &mut State) {
        if state.resting > state.called {
            state.called += 1;
            state.with_kernel += 1;
            self.called.notify_one();
        }
    }

    fn leave(&self) {
        let mut state = self.state.lock();
        state.answered = Instant::now();
        if state.with_kernel < state.wanted {
            state.with_kernel += 1;
            let lingers = state.lingers();
            drop(state);
            if lingers {
                self.linger();
            }
            return;
        }
        state.resting += 1;
        self.rest(&mut state);
        state.resting -= 1;
    }

    /// Looks for the next request for a while; whether there is one.
    fn linger(&self) -> bool {
        let Some(device) = self.device.get() else {
            return false;
        };
        let start = Instant::now();
        while start.elapsed() < LINGER {
            let mut look = [PollFd::new(device, PollFlags::IN)];
            // Where the mount has ended, who reads sees that.
            if poll(&mut look, Some(&Timespec::default())) != Ok(0) {
                return true;
            }
        }
        false
    }

    /// Waits until this thread is with the kernel again.
    fn rest(&self, state: &mut MutexGuard<'_, State>) {
        let (mut requests, mut since) = (state.requests, Instant::now());
        let mut is_deputy = false;
        loop {
            is_deputy |= !std::mem::replace(&mut state.has_deputy, true);
            let pause = if is_deputy { TICK } else { IDLE };
            let timed_out = self.called.wait_for(state, pause).timed_out();
            if state.called > 0 {
                state.called -= 1;
                break;
            }
            if !timed_out {
                continue;
            }
            let is_slow = is_deputy && state.with_kernel == 0;
            if state.requests != requests {
                (requests, since) = (state.requests, Instant::now());
            } else if is_slow || since.elapsed() >= IDLE {
                state.with_kernel += 1;
                break;
            }
        }
        if is_deputy {
            state.has_deputy = false;
            // Somebody else is the deputy from now on.
            self.called.notify_one();
        }
    }
}

impl State {
    /// Whether a thread that is about to be with the kernel looks for requests before.
    fn lingers(&mut self) -> bool {
        self.is_prompt && self.with_kernel == 1 && self.has_room()
    }

    /// Whether a processor is free for who lingers.
    fn has_room(&mut self) -> bool {
        let is_old = |looked: Instant| self.answered.duration_since(looked) >= LOOK;
        if self.looked.is_none_or(is_old) {
            self.looked = Some(self.answered);
            self.has_room = load::is_light(self.processors);
        }
        self.has_room
    }

    /// Looks at whether the request that was just taken has waited; whether one more thread
    /// is wanted because of it.
    fn adapt(&mut self) -> bool {
        let since = self.answered.elapsed();
        self.is_prompt = since < LINGER;
        if since < HURRY {
            self.calm = 0;
            self.hurried += 1;
            if self.hurried == PATIENCE {
                self.hurried = 0;
                self.wanted = (self.wanted + 1).min(self.threads);
                return true;
            }
        } else {
            self.hurried = 0;
            self.calm += 1;
            if self.calm == PATIENCE {
                self.calm = 0;
                self.wanted = (self.wanted - 1).max(1);
            }
        }
        false
    }
}

/// A thread's work on one request.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Crew);

impl Turn<'_> {
    /// Has somebody else be with the kernel meanwhile.
    pub(super) fn takes_long(&self) {
        let mut state = self.0.state.lock();
        if state.with_kernel == 0 {
            self.0.call(&mut state);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io::Write;
    use std::sync::{Arc, Barrier, mpsc};
    use std::thread::JoinHandle;

    use super::*;

    const AT_ALL: Duration = Duration::from_secs(10);

    fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < AT_ALL, "{what}");
            thread::yield_now();
        }
    }

    /// A crew of two, one of which rests; the other one is this thread.
    fn with_one_at_rest() -> (Arc<Crew>, JoinHandle<()>) {
        let crew = Arc::new(Crew::new(2));
        let resting = crew.clone();
        let other = thread::spawn(move || drop(resting.take()));
        until("it rests", || crew.state.lock().resting == 1);
        (crew, other)
    }

    fn joined(what: &str, thread: JoinHandle<()>) {
        until(what, || thread.is_finished());
        thread.join().expect("no panic");
    }

    #[test]
    fn who_rests_comes_back() {
        // Whether this thread takes a request, and whether it says that it takes long.
        let rows = [
            ("there are no requests", false, false),
            ("a request takes long", true, false),
            ("a request is said to take long", true, true),
        ];
        for (name, takes, says) in rows {
            let (crew, other) = with_one_at_rest();
            let turn = takes.then(|| crew.take());
            if let (Some(turn), true) = (&turn, says) {
                turn.takes_long();
                assert_eq!(crew.state.lock().with_kernel, 1, "{name}");
            }
            joined(name, other);
            let there = crew.state.lock().with_kernel;
            assert_eq!(there, if takes { 1 } else { 2 }, "{name}");
        }
    }

    #[test]
    fn the_deputy_steps_in_long_before_those_who_find_nothing_to_do() {
        let step_in = || {
            let (crew, other) = with_one_at_rest();
            let turn = crew.take();
            let begun = Instant::now();
            joined("the deputy steps in", other);
            let took = begun.elapsed();
            drop(turn);
            took
        };
        // The shortest of some: each can be longer where the machine has much to do, and
        // none of those who wait for calm is shorter than that.
        let shortest = (0..10).map(|_| step_in()).min();
        assert!(shortest < Some(IDLE / 2), "{shortest:?}");
    }

    #[test]
    fn requests_that_wait_call_more_threads() {
        let hurry = || {
            let (crew, other) = with_one_at_rest();
            // Where this thread stops for a while, the other one comes back by itself.
            while !other.is_finished() && crew.state.lock().wanted == 1 {
                drop(crew.take());
            }
            let is_wanted = crew.state.lock().wanted > 1;
            joined("it was called", other);
            is_wanted.then_some(crew)
        };
        let crew = (0..50).find_map(|_| hurry()).expect("more are wanted");
        until("fewer are wanted", || {
            // Nobody is to rest here.
            crew.state.lock().with_kernel = 0;
            thread::sleep(2 * HURRY);
            drop(crew.take());
            crew.state.lock().wanted == 1
        });
    }

    #[test]
    fn who_lingers_sees_a_request() -> std::io::Result<()> {
        let (requests, mut client) = std::io::pipe()?;
        let crew = Crew::new(1);
        assert!(!crew.linger(), "there is no device");
        crew.look_at(requests.into());
        assert!(!crew.linger(), "there is no request");
        client.write_all(b"request")?;
        assert!(crew.linger(), "there is one");
        drop(client);
        assert!(crew.linger(), "there will be none any more");
        Ok(())
    }

    #[test]
    fn only_the_one_who_waits_alone_lingers_for_prompt_requests() {
        // Whether the last request was prompt, how many are with the kernel, whether there
        // is a processor for it.
        let rows = [
            (true, 1, true, true),
            (false, 1, true, false),
            (true, 2, true, false),
            (true, 1, false, false),
        ];
        for (is_prompt, with_kernel, has_room, expected) in rows {
            let crew = Crew::new(2);
            let mut state = crew.state.lock();
            (state.is_prompt, state.with_kernel) = (is_prompt, with_kernel);
            // Just now, so that it is not looked at again.
            (state.has_room, state.looked) = (has_room, Some(state.answered));
            let name = format!("{is_prompt}, {with_kernel}, {has_room}");
            assert_eq!(state.lingers(), expected, "{name}");
        }
    }

    #[test]
    fn a_request_soon_after_an_answer_is_prompt() {
        let crew = Crew::new(1);
        until("one is prompt", || {
            drop(crew.take());
            crew.take();
            crew.state.lock().is_prompt
        });
        thread::sleep(2 * LINGER);
        drop(crew.take());
        assert!(!crew.state.lock().is_prompt, "it came late");
    }

    #[test]
    fn one_thread_alone_never_rests() {
        let crew = Crew::new(1);
        for _ in 0..3 * PATIENCE {
            crew.take().takes_long();
        }
        assert_eq!(crew.state.lock().with_kernel, 1);
    }

    #[test]
    fn all_threads_work_at_once_where_requests_take_long() {
        const THREADS: usize = 8;
        let crew = Arc::new(Crew::new(THREADS));
        let (sender, requests) = mpsc::channel::<bool>();
        let requests = Arc::new(Mutex::new(requests));
        let together = Arc::new(Barrier::new(THREADS));
        let (answer, answers) = mpsc::channel();
        let work = || {
            let (crew, requests) = (crew.clone(), requests.clone());
            let (together, answer) = (together.clone(), answer.clone());
            thread::spawn(move || {
                while let Ok(is_long) = { requests.lock().recv() } {
                    let _turn = crew.take();
                    if is_long {
                        together.wait();
                    }
                    answer.send(thread::current().id()).expect("it is heard");
                }
            })
        };
        let threads: Vec<_> = (0..THREADS).map(|_| work()).collect();
        for round in 0..3 {
            // Quick ones, one after the other: most threads rest after these.
            for _ in 0..100 {
                sender.send(false).expect("they listen");
                answers.recv_timeout(AT_ALL).expect("it is answered");
            }
            (0..THREADS).for_each(|_| sender.send(true).expect("they listen"));
            let answered = (0..THREADS).map(|_| answers.recv_timeout(AT_ALL));
            let answered: HashSet<_> = answered.map(|by| by.expect("it is answered")).collect();
            assert_eq!(answered.len(), THREADS, "round {round}");
        }
        drop(sender);
        for thread in threads {
            joined("all come back", thread);
        }
    }
}
