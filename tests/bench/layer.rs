//! Measures layers: `cargo bench --bench layer -- BLOB...`, each a layer as it is stored.
//!
//! For each blob: the first pass (and `gzip -dc` or `zstd -dc` beside it), the size of the
//! Toc, random reads of 4 KiB with nothing in the span cache, reading from end to end, and
//! the peak memory of the process so far.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a report for people"
)]

use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ocifs::layer::{Layer, Layers, LayersOptions};
use ocifs::oci::{Digest, Hasher};
use ocifs::store::{Blob, CacheDir, Verdicts, verify};
use ocifs::stream::{Compression, TarOffset};

const ROUNDS: usize = 3;
const READS: usize = 1000;

fn main() {
    let paths = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    for path in paths {
        measure(&path);
    }
}

fn measure(path: &str) {
    let blob = open(path);
    let dir = tempfile::tempdir().unwrap();
    let cache = CacheDir::open(&dir.path().join("cache")).unwrap();
    let mut passes: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let _ = std::fs::remove_dir_all(cache.path().join("toc"));
            first_pass(&blob, &cache)
        })
        .collect();
    passes.sort();
    let (pass, later) = passes[ROUNDS / 2];
    let layer = opened(&blob, &cache, 0);
    let toc = cache
        .path()
        .join("toc")
        .join(verify::file_name(blob.digest()));
    let toc_size = std::fs::metadata(toc).unwrap().len();
    println!(
        "{path}: {} stored, {} decoded",
        blob_size(&blob),
        layer.size()
    );
    println!(
        "  first pass   {:.2} s, {:.0} MB/s",
        pass.as_secs_f64(),
        rate(&layer, pass)
    );
    println!("  improvement  {:.2} s", later.as_secs_f64());
    if let Some(peer) = peer(path, layer.toc().compression()) {
        println!(
            "  peer         {:.2} s, ratio {:.2}",
            peer.as_secs_f64(),
            ratio(pass, peer)
        );
    }
    let spans = layer.toc().spans();
    println!(
        "  Toc          {toc_size} bytes, {:.3} %, {} spans, {} checkpoints, heap {}",
        percent(toc_size, blob_size(&blob)),
        spans.spans().len(),
        spans.checkpoints().list.len(),
        spans.checkpoints().heap.len(),
    );
    println!("  peak memory  {} MB", peak_memory() / 1_000_000);
    random(&layer);
    println!("  peak memory  {} MB", peak_memory() / 1_000_000);
    let layer = opened(&blob, &cache, 64 << 20);
    let sequential = median(|| sequential(&layer));
    println!("  sequential   {:.0} MB/s", rate(&layer, sequential));
    println!("  peak memory  {} MB", peak_memory() / 1_000_000);
}

fn open(path: &str) -> Arc<Blob> {
    let mut hasher = Hasher::sha256();
    let mut file = File::open(path).unwrap();
    let mut buf = vec![0; 1 << 20];
    loop {
        let len = std::io::Read::read(&mut file, &mut buf).unwrap();
        if len == 0 {
            break;
        }
        hasher.update(&buf[..len]);
    }
    let digest: Digest = hasher.finish();
    Arc::new(Blob::new(digest, File::open(path).unwrap()).unwrap())
}

fn opened(blob: &Arc<Blob>, cache: &CacheDir, memory: u64) -> Arc<Layer> {
    let verdicts = Arc::new(Verdicts::new(Some(cache)));
    let options = LayersOptions {
        cache: Some(cache.clone()),
        memory,
        ..LayersOptions::default()
    };
    let layers = Layers::new(options, verdicts);
    let layer = layers.open(Arc::clone(blob)).unwrap();
    layers.wait_idle();
    layer
}

/// How long the pass takes, and then the work that nobody waits for.
fn first_pass(blob: &Arc<Blob>, cache: &CacheDir) -> (Duration, Duration) {
    let options = LayersOptions {
        cache: Some(cache.clone()),
        ..LayersOptions::default()
    };
    let layers = Layers::new(options, Arc::new(Verdicts::new(None)));
    let start = Instant::now();
    layers.open(Arc::clone(blob)).unwrap();
    let pass = start.elapsed();
    layers.wait_idle();
    (pass, start.elapsed() - pass)
}

fn peer(path: &str, compression: Compression) -> Option<Duration> {
    let program = match compression {
        Compression::Plain => return None,
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    };
    let start = Instant::now();
    let mut command = Command::new(program);
    let status = command.args(["-dc", path]).stdout(Stdio::null()).status();
    status.ok()?.success().then(|| start.elapsed())
}

fn random(layer: &Layer) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut buf = [0; 4096];
    let mut times: Vec<Duration> = (0..READS)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let offset = (state >> 11) % layer.size();
            let start = Instant::now();
            layer.read_at(&mut buf, TarOffset(offset)).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    let at = |percent: usize| times[(READS - 1) * percent / 100].as_secs_f64() * 1e3;
    println!(
        "  random 4 KiB p50 {:.2} ms, p99 {:.2}, max {:.2}",
        at(50),
        at(99),
        at(100)
    );
}

fn sequential(layer: &Layer) -> Duration {
    let start = Instant::now();
    let mut buf = vec![0; 128 << 10];
    let mut offset = 0;
    loop {
        let len = layer.read_at(&mut buf, TarOffset(offset)).unwrap();
        if len == 0 {
            return start.elapsed();
        }
        offset += len as u64;
    }
}

fn median(mut run: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS).map(|_| run()).collect();
    times.sort();
    times[ROUNDS / 2]
}

fn blob_size(blob: &Blob) -> u64 {
    ocifs::store::ReadAt::size(blob)
}

#[allow(clippy::cast_precision_loss, reason = "a report for people")]
fn rate(layer: &Layer, time: Duration) -> f64 {
    layer.size() as f64 / time.as_secs_f64() / 1e6
}

#[allow(clippy::cast_precision_loss, reason = "a report for people")]
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

fn ratio(ours: Duration, theirs: Duration) -> f64 {
    ours.as_secs_f64() / theirs.as_secs_f64()
}

/// The most memory that this process has held, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    kilobytes.unwrap().parse::<u64>().unwrap() * 1024
}
