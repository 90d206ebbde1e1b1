//! What the tree of a layer with many entries costs: in the pass, on disk, when its Toc is
//! opened, and when it is walked.
//!
//! ```text
//! cargo bench --bench tree -- [ENTRIES]
//! ```

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::write::GzEncoder;
use ocifs::layer::tree::{NodeId, Tree};
use ocifs::layer::{Layers, LayersOptions};
use ocifs::oci::{Digest, Hasher};
use ocifs::store::{Blob, CacheDir, Verdicts};

/// How often what takes milliseconds is repeated.
const ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn Error>> {
    let entries = std::env::args().find_map(|argument| argument.parse().ok());
    let entries: u64 = entries.unwrap_or(1_000_000);
    let dir = tempfile::tempdir()?;
    let digest = write_layer(&dir.path().join("blob"), entries)?;
    let open_blob = || -> Result<_, Box<dyn Error>> {
        let file = File::open(dir.path().join("blob"))?;
        Ok(Arc::new(Blob::new(digest.clone(), file)?))
    };
    let layers = layers(dir.path())?;
    let start = Instant::now();
    layers.open(open_blob()?)?;
    report("pass", start.elapsed());
    layers.wait_idle();
    let mut size = 0;
    for kept in std::fs::read_dir(dir.path().join("cache/toc"))? {
        size += kept?.metadata()?.len();
    }
    print(&format!("Toc on disk: {} bytes an entry", size / entries));

    let mut opens = Vec::new();
    let mut loads = Vec::new();
    let mut walks = Vec::new();
    for _ in 0..ROUNDS {
        let layers = self::layers(dir.path())?;
        let before = resident()?;
        let start = Instant::now();
        let layer = layers.open(open_blob()?)?;
        opens.push(start.elapsed());
        let opened = resident()?.saturating_sub(before);
        let start = Instant::now();
        let tree = layers.tree(&layer)?;
        loads.push(start.elapsed());
        let loaded = resident()?.saturating_sub(before);
        let start = Instant::now();
        let count = walk(&tree);
        walks.push(start.elapsed());
        if opens.len() == ROUNDS {
            let each = |bytes: u64| bytes / entries;
            print(&format!(
                "{count} nodes; resident bytes an entry: {} opened, {} loaded",
                each(opened),
                each(loaded)
            ));
        }
    }
    report("open of the cached Toc", median(opens));
    report("load of the tree", median(loads));
    report("walk of the tree", median(walks));
    Ok(())
}

fn layers(dir: &Path) -> Result<Layers, Box<dyn Error>> {
    let cache = CacheDir::open(&dir.join("cache"))?;
    let verdicts = Arc::new(Verdicts::new(Some(&cache)));
    let options = LayersOptions {
        cache: Some(cache),
        ..LayersOptions::default()
    };
    Ok(Layers::new(options, verdicts))
}

/// A gzip layer of empty files, a hundred in each directory.
fn write_layer(path: &Path, entries: u64) -> Result<Digest, Box<dyn Error>> {
    let gzip = GzEncoder::new(
        BufWriter::new(File::create(path)?),
        flate2::Compression::fast(),
    );
    let mut tar = tar::Builder::new(gzip);
    for at in 0..entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        let path = format!("usr/lib/node_modules/{:05}/file-{at:07}.js", at / 100);
        tar.append_data(&mut header, path, std::io::empty())?;
    }
    tar.into_inner()?.finish()?.flush()?;
    // A verdict is believed only for a file that was left alone for a while.
    std::thread::sleep(Duration::from_secs(3));
    let mut hasher = Hasher::sha256();
    hasher.update(&std::fs::read(path)?);
    Ok(hasher.finish())
}

fn walk(tree: &Tree) -> usize {
    let mut count = 0;
    let mut todo = vec![NodeId::ROOT];
    while let Some(directory) = todo.pop() {
        count += 1;
        for (_, node) in tree.list(directory) {
            match tree.node(node).kind {
                ocifs::layer::tree::Kind::Directory => todo.push(node),
                _ => count += 1,
            }
        }
    }
    count
}

/// The process's resident memory in bytes.
fn resident() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no VmRSS")?.parse::<u64>()? << 10)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn report(what: &str, time: Duration) {
    print(&format!("{what}: {:.1} ms", time.as_secs_f64() * 1e3));
}

#[expect(clippy::print_stdout, reason = "it prints its results")]
fn print(line: &str) {
    println!("{line}");
}
