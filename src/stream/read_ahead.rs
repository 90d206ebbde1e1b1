//! Decodes ahead of those who read from end to end, on other threads.
//!
//! Nothing is remembered about readers: whoever comes to a checkpoint, and has the spans
//! before it in the cache, is taken to read on. What follows the next checkpoints is then
//! decoded into the cache, each stretch by one thread. An error there is not reported:
//! who reads that far meets it again.
//!
//! The further somebody has read, the further is decoded ahead: so no more than some three
//! times of what was read can be in vain, and those who decode do not wait in the end for who
//! reads. Where stretches begin hangs on the stream alone, so that no two threads decode parts
//! of the same.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use crate::stream::reader::Stream;
use crate::stream::sniff::Compression;
use crate::stream::span::{SPAN_SIZE, SpanId};
use crate::stream::span_cache::SpanKey;

/// How many spans ahead stretches are begun.
const AHEAD: u32 = 16;

/// How many instead, where the span so far back was read to its end.
const FURTHER: [(u32, u32); 2] = [(12, 32), (24, 64)];

/// How many stretches are decoded ahead at least, where checkpoints are far from each other.
const LEAST: usize = 3;

/// How many threads do that: more would compete with those who read.
const WORKERS: usize = 2;

/// A stretch begins at the first checkpoint of so many spans.
const STRETCH: u32 = 4;

/// Which spans before the one that is read must be in the cache. Reading at random leaves
/// fewer behind.
const EVIDENCE: [u32; 3] = [1, 3, 6];

/// How many times as much as is decoded ahead the cache must be able to hold: else that would
/// be gone before it is read.
const ROOM: usize = 8;

/// How many stretches may wait; the oldest is forgotten then.
const MAX_WAITING: usize = 64;

/// A stretch of some stream.
#[derive(Debug)]
struct Task {
    stream: Stream,
    spans: Range<u32>,
}

impl Task {
    fn key(&self) -> SpanKey {
        self.stream.key(SpanId(self.spans.start))
    }

    fn run(&self) {
        for span in self.spans.clone() {
            if self.stream.span(SpanId(span)).is_err() {
                return;
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Task>,
    running: Vec<SpanKey>,
    workers: usize,
}

/// What is decoded ahead at present.
#[derive(Debug, Default)]
pub(super) struct ReadAhead(Arc<Mutex<State>>);

/// Has the stretches after `id` decoded, if somebody reads from end to end.
pub(super) fn consider(stream: &Stream, id: SpanId) {
    if !is_start(stream, id) {
        return;
    }
    let cache = &stream.cache;
    let has_room = |ahead: u32| cache.has_room_for(ROOM * ahead as usize * SPAN_SIZE);
    let before = |back: u32| Some(stream.key(SpanId(id.0.checked_sub(back)?)));
    let is_there = |back| before(back).is_some_and(|key| cache.contains(&key));
    if !has_room(AHEAD) || !EVIDENCE.into_iter().all(is_there) {
        return;
    }
    let was_read = |back| before(back).is_some_and(|key| cache.was_read(&key));
    let further = FURTHER.into_iter();
    let ahead = further.filter(|&(back, ahead)| has_room(ahead) && was_read(back));
    let ahead = ahead.map(|(_, ahead)| ahead).max().unwrap_or(AHEAD);
    let mut after = id.0 + 1;
    for count in 0.. {
        let Some(spans) = stretch(stream, after) else {
            return;
        };
        if count >= LEAST && spans.start - id.0 > ahead {
            return;
        }
        after = spans.end;
        // The last one goes last: if it is there, so were the others.
        if !cache.contains(&stream.key(SpanId(spans.end - 1))) {
            let stream = stream.clone();
            cache.ahead.schedule(Task { stream, spans });
        }
    }
}

/// Whether a stretch begins here.
fn is_start(stream: &Stream, id: SpanId) -> bool {
    stretch(stream, id.0).is_some_and(|spans| spans.start == id.0)
}

/// The first stretch from `after` on.
fn stretch(stream: &Stream, after: u32) -> Option<Range<u32>> {
    if stream.table.compression() == Compression::Plain {
        return None;
    }
    let list = &stream.table.checkpoints().list;
    let at = |index: usize| list.get(index).map(|checkpoint| checkpoint.span.0);
    let is_first = |index: usize| {
        let group = |index: usize| at(index).map(|span| span / STRETCH);
        index == 0 || group(index - 1) != group(index)
    };
    let first_from = |index: usize| (index..list.len()).find(|index| is_first(*index));
    let start = first_from(list.partition_point(|checkpoint| checkpoint.span.0 < after))?;
    let end = first_from(start + 1).and_then(at);
    let all = u32::try_from(stream.table.spans().len()).ok()?;
    Some(at(start)?..end.unwrap_or(all))
}

impl ReadAhead {
    fn schedule(&self, task: Task) {
        let key = task.key();
        let mut state = self.0.lock();
        let is_known = state.running.contains(&key)
            || state.waiting.iter().any(|waiting| waiting.key() == key);
        if is_known {
            return;
        }
        if state.waiting.len() == MAX_WAITING {
            state.waiting.pop_front();
        }
        state.waiting.push_back(task);
        if state.workers < WORKERS {
            let shared = Arc::clone(&self.0);
            let thread = thread::Builder::new().name("read-ahead".to_owned());
            match thread.spawn(move || work(&shared)) {
                Ok(_) => state.workers += 1,
                Err(error) => log::debug!("nothing is decoded ahead: no thread: {error}"),
            }
        }
    }
}

/// Does tasks until there are none.
fn work(shared: &Mutex<State>) {
    loop {
        let task = {
            let mut state = shared.lock();
            let Some(task) = state.waiting.pop_front() else {
                state.workers -= 1;
                return;
            };
            state.running.push(task.key());
            task
        };
        task.run();
        shared.lock().running.retain(|key| *key != task.key());
    }
}
