//! What packing a tree takes, against `tar | pigz` on the same tree.
//!
//! ```text
//! cargo bench --bench pack -- [TREE]
//! ```
//!
//! TREE is `/usr/share` if none is given. The rows take turns, so that a slow moment of
//! the machine falls on all of them; the first round warms the caches and does not count.

use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ocifs::oci::LayerCompression;
use ocifs::pack::{PackOptions, Tree, pack};
use ocifs::store::progress::Unwatched;

/// How often each is measured.
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let tree = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let tree = PathBuf::from(tree.unwrap_or_else(|| "/usr/share".to_owned()));
    let dir = tempfile::tempdir()?;
    let rows = [
        "tar | pigz -6",
        "gzip",
        "tar | zstd -T0",
        "zstd",
        "tar",
        "none",
    ];
    let mut times = [const { Vec::new() }; 6];
    let mut sizes = [0; 6];
    for round in 0..=ROUNDS {
        for (at, row) in rows.iter().enumerate() {
            let out = dir.path().join("out");
            let start = Instant::now();
            match *row {
                "gzip" => ours(&tree, &out, LayerCompression::Gzip)?,
                "zstd" => ours(&tree, &out, LayerCompression::Zstd)?,
                "none" => ours(&tree, &out, LayerCompression::None)?,
                pipe => theirs(&tree, &out, pipe)?,
            }
            if round > 0 {
                times[at].push(start.elapsed());
            }
            sizes[at] = fs::metadata(&out)?.len();
            fs::remove_file(&out)?;
        }
    }
    for ((row, times), size) in rows.iter().zip(times).zip(sizes) {
        report(row, times, size);
    }
    Ok(())
}

/// As a tree is published: hashed twice, and written to a file.
fn ours(tree: &Path, out: &Path, compression: LayerCompression) -> Result<(), Box<dyn Error>> {
    let tree = Tree::open(OwnedFd::from(File::open(tree)?))?;
    let options = PackOptions {
        compression,
        ..PackOptions::default()
    };
    let sink = Hashed {
        file: File::create(out)?,
        hasher: ocifs::oci::Hasher::sha256(),
    };
    let layer = pack(&tree, &options, sink, &Unwatched)?;
    std::hint::black_box(layer.blob.hasher.finish());
    Ok(())
}

/// A file whose bytes are hashed on the way, as those of a blob are.
struct Hashed {
    file: File,
    hasher: ocifs::oci::Hasher,
}

impl std::io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let len = self.file.write(bytes)?;
        self.hasher.update(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

fn theirs(tree: &Path, out: &Path, row: &str) -> Result<(), Box<dyn Error>> {
    let pipe = row.strip_prefix("tar").unwrap_or_default();
    let script = format!("tar -C \"$1\" -cf - . {pipe} > \"$2\"");
    let words: [&OsStr; 3] = ["-c".as_ref(), script.as_ref(), "sh".as_ref()];
    let status = Command::new("sh").args(words).arg(tree).arg(out).status()?;
    if !status.success() {
        return Err(format!("{row}: {status}").into());
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "it prints its results")]
fn report(row: &str, mut times: Vec<Duration>, size: u64) {
    times.sort();
    let [min, median, max] =
        [0, times.len() / 2, times.len() - 1].map(|at| times[at].as_secs_f64());
    println!("{row:15} {median:6.2} s ({min:.2} to {max:.2}), {size:>12} bytes");
}
