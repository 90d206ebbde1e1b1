use std::io::Read;

use super::*;
use crate::stream::Limits;

const COMPRESSIONS: [Compression; 3] = [Compression::Plain, Compression::Gzip, Compression::Zstd];

fn encoded(bytes: &[u8], compression: Compression, threads: usize) -> Encoded<Vec<u8>> {
    let mut encoder = Encoder::new(Vec::new(), compression, threads).expect("there are threads");
    encoder.write_all(bytes).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

fn decoded(bytes: &[u8], compression: Compression) -> Vec<u8> {
    let mut out = Vec::new();
    match compression {
        Compression::Plain => out.extend_from_slice(bytes),
        Compression::Gzip => {
            // One member: another one would be left over.
            let mut rest = bytes;
            let mut decoder = flate2::bufread::GzDecoder::new(&mut rest);
            decoder.read_to_end(&mut out).expect("a sound member");
            assert_eq!(rest, b"", "one member");
        }
        Compression::Zstd => out = zstd::decode_all(bytes).expect("sound frames"),
    }
    out
}

/// Bytes that do not compress (SplitMix64).
fn noise(len: usize) -> Vec<u8> {
    let words = (1..=len as u64 / 8 + 1).flat_map(|at| {
        let mixed = at.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    });
    words.take(len).collect()
}

/// Bytes that do: numbers, one a line.
fn lines(len: usize) -> Vec<u8> {
    let lines = (0..).flat_map(|number: u32| format!("{number}\n").into_bytes());
    lines.take(len).collect()
}

type Kind = (&'static str, fn(usize) -> Vec<u8>);

const KINDS: [Kind; 3] = [
    ("zeros", |len| vec![0; len]),
    ("noise", noise),
    ("lines", lines),
];

#[test]
fn what_goes_in_comes_out() {
    for compression in COMPRESSIONS {
        let block = block_size(compression);
        let lens = [0, 1, block - 1, block, block + 1, 2 * block, 3 * block + 7];
        for (kind, bytes) in KINDS {
            for len in lens {
                let bytes = bytes(len);
                let one = encoded(&bytes, compression, 1);
                let name = format!("{len} bytes of {kind}, {compression:?}");
                assert!(decoded(&one.sink, compression) == bytes, "{name}");
                assert_eq!(one.decoded_digest, Digest::of(&bytes), "{name}");
                assert_eq!(one.decoded_size, len as u64, "{name}");
                assert_eq!(one.encoded_size, one.sink.len() as u64, "{name}");
                let eight = encoded(&bytes, compression, 8);
                assert!(eight.sink == one.sink, "{name}: with eight threads");
                let most = Limits::default().ratio * one.encoded_size;
                assert!(len as u64 <= most, "{name}: taken for a bomb");
            }
        }
    }
}

#[test]
fn how_it_is_written_makes_no_difference() {
    for compression in COMPRESSIONS {
        let bytes = lines(5 * block_size(compression) / 2);
        let whole = encoded(&bytes, compression, 2);
        let mut encoder = Encoder::new(Vec::new(), compression, 2).expect("there are threads");
        for (at, piece) in bytes.chunks(10_007).enumerate() {
            if at % 2 == 0 {
                encoder.write_all(piece).expect("memory can be written");
                encoder.flush().expect("memory can be written");
                continue;
            }
            let mut rest = piece;
            while !rest.is_empty() {
                let room = encoder.room().expect("memory can be written");
                let len = room.len().min(rest.len());
                room[..len].copy_from_slice(&rest[..len]);
                encoder.advance(len);
                rest = &rest[len..];
            }
        }
        let pieces = encoder.finish().expect("memory can be written");
        assert!(pieces.sink == whole.sink, "{compression:?}");
    }
}

/// A disk with room for so many bytes.
#[derive(Debug)]
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let len = bytes.len().min(self.0);
        self.0 -= len;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_sink_s_error_is_told() {
    for compression in COMPRESSIONS {
        let bytes = noise(4 * block_size(compression));
        for room in [0, 5, 100_000, 3 * block_size(compression)] {
            let mut encoder = Encoder::new(Full(room), compression, 2).expect("there are threads");
            let written = encoder.write_all(&bytes);
            let told = match written {
                Ok(()) => encoder.finish().map(|_| ()),
                Err(error) => {
                    let again = encoder.finish().expect_err("it is dead");
                    assert_eq!(again.kind(), io::ErrorKind::BrokenPipe);
                    Err(error)
                }
            };
            let errno = told.expect_err("there is no room").raw_os_error();
            assert_eq!(errno, Some(libc::ENOSPC), "{compression:?}, {room}");
        }
    }
}

#[test]
fn a_dropped_encoder_ends() {
    for compression in COMPRESSIONS {
        let mut encoder = Encoder::new(Vec::new(), compression, 2).expect("there are threads");
        encoder
            .write_all(&lines(1 << 20))
            .expect("memory can be written");
        drop(encoder);
    }
}

#[test]
fn gzip_has_no_time_in_it() {
    let header = encoded(b"x", Compression::Gzip, 1).sink;
    assert_eq!(header[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
}

/// Words of a small alphabet, which match each other nearly everywhere.
fn words(len: usize, seed: u64) -> Vec<u8> {
    let noise = noise(len + 8 * 1000);
    let start = usize::try_from(seed * 8).expect("small");
    noise[start..start + len]
        .iter()
        .map(|byte| b'a' + byte % 3)
        .collect()
}

#[test]
fn what_was_compressed_before_makes_no_difference() {
    let job = |before: &[u8], block: &[u8]| Job {
        block: Arc::new(block.to_vec()),
        before: Some(Arc::new(before.to_vec())),
        is_last: false,
        done: mpsc::sync_channel(1).0,
    };
    for make in [Codec::deflate, Codec::zstd] {
        let mut used = make();
        for seed in 0..300 {
            let (before, block) = (words(100, seed), words(5000, seed + 300));
            let job = job(&before, &block);
            assert!(
                used.encode(&job).bytes == make().encode(&job).bytes,
                "{seed}"
            );
        }
    }
}

#[test]
fn who_compresses_comes_last_and_nobody_else() {
    let own = getpriority_process(None).expect("it has one");
    let lowered = spawn("encode", || {
        come_last();
        getpriority_process(None)
    });
    let lowered = joined(lowered.expect("there are threads"));
    assert_eq!(lowered, Ok(own.max(LAST)));
    assert_eq!(getpriority_process(None), Ok(own), "of the caller");
}

/// How often the calling thread has let go of its processor by itself.
fn pauses() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("it is there");
    let mut lines = status.lines();
    let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    let count = count.and_then(|count| count.trim().parse().ok());
    count.expect("it is told")
}

#[test]
fn who_compresses_pauses_between_blocks() {
    const BLOCKS: u64 = 50;
    for compression in [Compression::Gzip, Compression::Zstd] {
        let (jobs, queue) = mpsc::channel();
        let block = Arc::new(words(1000, 0));
        let queue_one = |_| {
            let (done, part) = mpsc::sync_channel(1);
            let job = Job {
                block: block.clone(),
                before: None,
                is_last: false,
                done,
            };
            jobs.send(job).expect("there is a queue");
            part
        };
        let parts: Vec<_> = (0..BLOCKS).map(queue_one).collect();
        drop(jobs);
        // Nothing else makes it wait: all is there, and there is room for what it makes.
        let worker = spawn("encode", move || {
            let before = pauses();
            work(compression, &Mutex::new(queue));
            pauses() - before
        });
        let pauses = joined(worker.expect("there are threads"));
        // A pause is none where its end comes before the thread is asleep.
        assert!(pauses >= BLOCKS / 2, "{compression:?}: {pauses}");
        let made = parts.iter().filter(|part| part.recv().is_ok());
        assert_eq!(made.count() as u64, BLOCKS, "{compression:?}");
    }
}
