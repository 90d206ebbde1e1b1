//! Bytes to compress, the compressors, and random numbers that are always the same.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;

pub(crate) type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// A small generator of numbers (xorshift), so that a failure can be repeated.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    pub(crate) fn size(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap()
    }
}

/// Bytes like those of a layer: text from a small vocabulary, noise, zeros, repetitions
/// from near and far.
pub(crate) fn layer_like(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed | 1);
    let mut bytes: Vec<u8> = Vec::with_capacity(len + 4096);
    while bytes.len() < len {
        let run = 1 + random.size(3000);
        match random.below(8) {
            0 => bytes.resize(bytes.len() + run, 0),
            1 => bytes.extend((0..run).map(|_| (random.below(256) & 0xff) as u8)),
            2 | 3 if bytes.len() > run => {
                // Most copies come from near, as in files that lie beside each other.
                let reach = 1 << (8 + random.below(18));
                let last = bytes.len() - run;
                let start = last - random.size(last.min(reach) + 1);
                bytes.extend_from_within(start..start + run);
            }
            _ => {
                for _ in 0..run / 6 {
                    let word = random.below(500);
                    write!(bytes, "{:x} ", word * word * 77).unwrap();
                }
            }
        }
    }
    bytes.truncate(len);
    bytes
}

pub(crate) fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// One member for each piece.
pub(crate) fn gzip_members(bytes: &[u8], piece: usize) -> Vec<u8> {
    bytes
        .chunks(piece)
        .flat_map(|piece| gzip(piece, 6))
        .collect()
}

pub(crate) fn zstd(bytes: &[u8], level: i32) -> Vec<u8> {
    zstd::bulk::compress(bytes, level).unwrap()
}

/// As a program does that does not know the size: one frame, with a checksum.
pub(crate) fn zstd_stream(bytes: &[u8], level: i32, window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), level).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.window_log(window_log).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// One frame for each piece.
pub(crate) fn zstd_frames(bytes: &[u8], piece: usize) -> Vec<u8> {
    bytes
        .chunks(piece)
        .flat_map(|piece| zstd(piece, 3))
        .collect()
}

/// A skippable frame of `len` bytes.
pub(crate) fn skippable(len: u32) -> Vec<u8> {
    let mut frame = vec![0x5e, 0x2a, 0x4d, 0x18];
    frame.extend_from_slice(&len.to_le_bytes());
    frame.resize(8 + len as usize, b'#');
    frame
}

/// The output of a command that is fed `bytes`.
pub(crate) fn piped(command: &[&str], bytes: &[u8]) -> TestResult<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let input = dir.path().join("input");
    std::fs::write(&input, bytes)?;
    piped_file(command, &input)
}

fn piped_file(command: &[&str], input: &Path) -> TestResult<Vec<u8>> {
    let output = Command::new(command[0])
        .args(&command[1..])
        .stdin(std::fs::File::open(input)?)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("{command:?}: {}", output.status).into())
    }
}
