//! Decodes ahead of those who read from end to end, on other threads.
//!
//! Nothing is remembered about readers: whoever comes to a checkpoint, and has the spans
//! before it in the cache, is taken to read on. What follows the next checkpoints is then
//! decoded into the cache, each stretch by one thread. An error there is not reported:
//! who reads that far meets it again.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use crate::stream::reader::Stream;
use crate::stream::sniff::Compression;
use crate::stream::span::SpanId;
use crate::stream::span_cache::SpanKey;

/// How many stretches are decoded ahead.
const AHEAD: usize = 3;

/// How many threads do that: more would compete with those who read.
const WORKERS: usize = 2;

/// How many spans a stretch has at least; it ends at a checkpoint. Where gzip checkpoints are
/// close, they are about so far apart.
const STRETCH: u32 = 4;

/// Which spans before the one that is read must be in the cache. Reading at random leaves
/// fewer behind.
const EVIDENCE: [u32; 3] = [1, 3, 6];

/// How much memory the cache must have for this, in bytes: else what is decoded ahead
/// would be gone before it is read.
const MIN_MEMORY: usize = 32 << 20;

/// How many stretches may wait; the oldest is forgotten then.
const MAX_WAITING: usize = 8;

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
    let cache = &stream.cache;
    if !is_start(stream, id) || !cache.has_room_for(MIN_MEMORY) {
        return;
    }
    let was_read = |back: &u32| {
        let before = id.0.checked_sub(*back);
        before.is_some_and(|span| cache.contains(&stream.key(SpanId(span))))
    };
    if !EVIDENCE.iter().all(was_read) {
        return;
    }
    let mut after = id.0 + 1;
    for _ in 0..AHEAD {
        let Some(spans) = stretch(stream, after) else {
            return;
        };
        after = spans.end;
        // The last one goes last: if it is there, so were the others.
        if !cache.contains(&stream.key(SpanId(spans.end - 1))) {
            let stream = stream.clone();
            cache.ahead.schedule(Task { stream, spans });
        }
    }
}

/// Whether this is a place to look ahead from: a checkpoint, or now and then where there
/// are many.
fn is_start(stream: &Stream, id: SpanId) -> bool {
    let list = &stream.table.checkpoints().list;
    if stream.table.compression() == Compression::Plain {
        return false;
    }
    let Ok(at) = list.binary_search_by_key(&id, |checkpoint| checkpoint.span) else {
        return false;
    };
    let next = list.get(at + 1).map(|next| next.span.0);
    next.is_none_or(|next| next - id.0 >= STRETCH) || id.0.is_multiple_of(STRETCH)
}

/// The stretch between the first checkpoint from `after` on and a later one.
fn stretch(stream: &Stream, after: u32) -> Option<Range<u32>> {
    let list = &stream.table.checkpoints().list;
    let from = |span: u32| {
        let at = list.partition_point(|checkpoint| checkpoint.span.0 < span);
        list.get(at).map(|checkpoint| checkpoint.span.0)
    };
    let start = from(after)?;
    let all = u32::try_from(stream.table.spans().len()).ok()?;
    Some(start..from(start + STRETCH).unwrap_or(all))
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
