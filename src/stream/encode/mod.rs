//! Compression on all cores, the same bytes whatever their number.
//!
//! ```text
//!   decoded bytes, cut into blocks of a fixed size
//!   ┌───────┬───────┬───────┬──            a worker for each core
//!   │ block │ block │ block │     ──────>  ┌───────┬─────┬────────┬──
//!   └───────┴───────┴───────┴──            │ part  │part │ part   │      the sink, by a
//!       │ a thread hashes them: DiffID     └───────┴─────┴────────┴──    thread of its own
//! ```
//!
//! Where blocks begin depends on nothing but the decoded bytes, and a block is compressed
//! by itself, so the result does not depend on threads or on how the bytes were written:
//!
//! | compression | a part is |
//! |---|---|
//! | gzip | deflate blocks up to a byte boundary, with the 32 KiB before the block as dictionary; all are one member, as pigz makes it |
//! | zstd | a frame with its size and checksum: a place where reading can begin |
//! | none | the block itself |
//!
//! Gzip's header has no time and no name in it.
//!
//! Invariants:
//! - Memory is bounded: at most two blocks for each worker and a few more are under way.
//! - No blob decodes to so many times its size that [`Limits`](super::Limits) would take
//!   it for a bomb.
//! - Workers take the processor from nobody who needs it: they come last, and pause between
//!   blocks.
//! - After an error of the sink nothing more is written to it; it is told by the next call.

mod codec;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{getpriority_process, setpriority_process};

use super::sniff::Compression;
use crate::oci::{Digest, Hasher};
use codec::{Codec, Job, Part, block_size};

/// How many blocks the hashing thread may be behind.
const BLOCKS_BEHIND: usize = 4;

/// How nice those who compress are to others: they get a tenth of what these get. It takes
/// nothing from who is alone.
const LAST: i32 = 10;

/// How long a worker lets go of its processor between two blocks, each of which takes it some
/// milliseconds. That it is nice helps those of its own session alone, where the kernel shares
/// processors among sessions first: others were seen to wait for half a second and longer
/// behind workers that never sleep (Linux 6.18). Whoever waits gets the processor as soon as
/// one does.
const PAUSE: Duration = Duration::from_micros(100);

/// A gzip header: deflate, no flags, no time, no hint, unknown system.
///
/// Spec: RFC 1952 section 2.3.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// A stream that was encoded as a whole.
#[derive(Debug)]
pub struct Encoded<W> {
    /// What was written to.
    pub sink: W,
    /// The digest of the decoded bytes.
    pub decoded_digest: Digest,
    /// How many decoded bytes there are.
    pub decoded_size: u64,
    /// How many bytes were written.
    pub encoded_size: u64,
}

/// Compresses what is written to it into a sink. Dropping it before it has finished leaves
/// a part of the stream in the sink, which goes with it.
#[derive(Debug)]
pub struct Encoder<W> {
    /// The block being filled, of full length.
    block: Vec<u8>,
    /// How many bytes of it there are.
    filled: usize,
    /// The block before, of which the next part may repeat something.
    before: Option<Arc<Vec<u8>>>,
    decoded_size: u64,
    /// `None` where blocks are taken as they are.
    workers: Option<Workers>,
    /// `None` after a failure.
    running: Option<Running<W>>,
}

/// The threads that compress.
#[derive(Debug)]
struct Workers {
    jobs: Sender<Job>,
    threads: Vec<JoinHandle<()>>,
}

/// The threads that hash and write.
#[derive(Debug)]
struct Running<W> {
    hashed: SyncSender<Arc<Vec<u8>>>,
    hasher: JoinHandle<Digest>,
    /// The parts to come, in order.
    parts: SyncSender<Receiver<Part>>,
    writer: JoinHandle<io::Result<(W, u64)>>,
}

impl<W: Write + Send + 'static> Encoder<W> {
    /// Begins a stream that is compressed by `threads` workers.
    ///
    /// # Errors
    /// If there are no threads to be had.
    pub fn new(sink: W, compression: Compression, threads: usize) -> io::Result<Self> {
        let threads = threads.max(1);
        let (hashed, blocks) = mpsc::sync_channel(BLOCKS_BEHIND);
        let (parts, in_order) = mpsc::sync_channel(2 * threads);
        let workers = match compression {
            Compression::Plain => None,
            Compression::Gzip | Compression::Zstd => Some(Workers::start(compression, threads)?),
        };
        Ok(Self {
            block: vec![0; block_size(compression)],
            filled: 0,
            before: None,
            decoded_size: 0,
            workers,
            running: Some(Running {
                hashed,
                hasher: spawn("hash", move || hash(&blocks))?,
                parts,
                writer: spawn("write", move || write(sink, compression, &in_order))?,
            }),
        })
    }

    /// Where the next bytes can be put, at least one; [`Encoder::advance`] takes them.
    ///
    /// # Errors
    /// What the sink said.
    pub fn room(&mut self) -> io::Result<&mut [u8]> {
        if self.filled == self.block.len() {
            let len = self.block.len();
            let full = std::mem::replace(&mut self.block, vec![0; len]);
            self.filled = 0;
            self.dispatch(full, false)?;
        }
        Ok(&mut self.block[self.filled..])
    }

    /// Takes the first `len` bytes of [`Encoder::room`].
    ///
    /// # Panics
    /// If there is no room for so many.
    pub fn advance(&mut self, len: usize) {
        assert!(len <= self.block.len() - self.filled, "beyond the room");
        self.filled += len;
        self.decoded_size += len as u64;
    }

    /// How many bytes there are by now, not yet compressed.
    #[must_use]
    pub const fn decoded_size(&self) -> u64 {
        self.decoded_size
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// What the sink said.
    pub fn finish(mut self) -> io::Result<Encoded<W>> {
        let mut last = std::mem::take(&mut self.block);
        last.truncate(self.filled);
        self.dispatch(last, true)?;
        if let Some(workers) = self.workers.take() {
            workers.finish();
        }
        let Some(running) = self.running.take() else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        drop((running.hashed, running.parts));
        let (sink, encoded_size) = joined(running.writer)?;
        Ok(Encoded {
            sink,
            decoded_digest: joined(running.hasher),
            decoded_size: self.decoded_size,
            encoded_size,
        })
    }

    /// Sends a block to all who want it.
    fn dispatch(&mut self, block: Vec<u8>, is_last: bool) -> io::Result<()> {
        let Some(running) = &self.running else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let block = Arc::new(block);
        let before = self.before.replace(block.clone());
        let (done, part) = mpsc::sync_channel(1);
        // First, since this one waits; it fails only when the writer has.
        if running.parts.send(part).is_err() {
            return Err(self.failure());
        }
        // The others end early only by a panic, which `finish` passes on.
        drop(running.hashed.send(block.clone()));
        match &self.workers {
            Some(workers) => drop(workers.jobs.send(Job {
                block,
                before,
                is_last,
                done,
            })),
            None => drop(done.send(Part {
                decoded_len: block.len(),
                bytes: block,
                crc: crc32fast::Hasher::new(),
            })),
        }
        Ok(())
    }

    /// Why the writer has ended.
    fn failure(&mut self) -> io::Error {
        if let Some(workers) = self.workers.take() {
            workers.finish();
        }
        let ended = self.running.take().map(|running| joined(running.writer));
        match ended {
            Some(Err(error)) => error,
            _ => io::ErrorKind::BrokenPipe.into(),
        }
    }
}

impl<W: Write + Send + 'static> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let room = self.room()?;
        let len = room.len().min(bytes.len());
        room[..len].copy_from_slice(&bytes[..len]);
        self.advance(len);
        Ok(len)
    }

    /// Does nothing: where blocks end must not depend on it.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Workers {
    fn start(compression: Compression, threads: usize) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let threads = (0..threads).map(|_| {
            let queue = queue.clone();
            spawn("encode", move || {
                come_last();
                work(compression, &queue);
            })
        });
        let threads = threads.collect::<io::Result<_>>()?;
        Ok(Self { jobs, threads })
    }

    /// Waits until all is compressed.
    fn finish(self) {
        drop(self.jobs);
        self.threads.into_iter().for_each(joined);
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// Lets others have the processor first, if they need it, for as long as this thread lives:
/// who waits for an answer of the same process is in a hurry, and compressing is not.
fn come_last() {
    let set = getpriority_process(None).and_then(|priority| match priority < LAST {
        true => setpriority_process(None, LAST),
        false => Ok(()),
    });
    if let Err(error) = set {
        log::debug!("compressing is as urgent as anything else: {error}");
    }
}

fn joined<T>(thread: JoinHandle<T>) -> T {
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn hash(blocks: &Receiver<Arc<Vec<u8>>>) -> Digest {
    let mut hasher = Hasher::sha256();
    for block in blocks {
        hasher.update(&block);
    }
    hasher.finish()
}

/// Compresses blocks until there are no more.
fn work(compression: Compression, queue: &Mutex<Receiver<Job>>) {
    let mut codec = match compression {
        Compression::Zstd => Codec::zstd(),
        Compression::Gzip | Compression::Plain => Codec::deflate(),
    };
    let mut is_first = true;
    loop {
        // The lock is held while waiting: one waits for the queue, the others for it.
        let Ok(job) = queue.lock().recv() else { return };
        if !std::mem::take(&mut is_first) {
            thread::sleep(PAUSE);
        }
        let part = codec.encode(&job);
        // With no writer there is nobody to tell.
        drop(job.done.send(part));
    }
}

/// Writes parts in order; the sink and how many bytes it got.
fn write<W: Write>(
    mut sink: W,
    compression: Compression,
    parts: &Receiver<Receiver<Part>>,
) -> io::Result<(W, u64)> {
    let (mut size, mut decoded_size) = (0, 0);
    let mut put = |bytes: &[u8]| {
        size += bytes.len() as u64;
        sink.write_all(bytes)
    };
    let mut crc = crc32fast::Hasher::new();
    let is_gzip = compression == Compression::Gzip;
    if is_gzip {
        put(&GZIP_HEADER)?;
    }
    for part in parts {
        // Without a part its worker has panicked, which `finish` passes on.
        let Ok(part) = part.recv() else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        crc.combine(&part.crc);
        decoded_size += part.decoded_len as u64;
        put(&part.bytes)?;
    }
    if is_gzip {
        put(&crc.finalize().to_le_bytes())?;
        // The size modulo 2^32.
        put(&decoded_size.to_le_bytes()[..4])?;
    }
    Ok((sink, size))
}
