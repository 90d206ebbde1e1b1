//! Mounts of ocifs whose layer is known, and reads through them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{MountOptions, Random, TestMount, run_ok};
use crate::input::{REF, Stored};

const OCIFS: &str = env!("CARGO_BIN_EXE_ocifs");

/// The layer's tar in a mount.
const TAR: &str = "layers/00.tar";

/// Cache directories in which the Toc of a layer is, by layout.
#[derive(Debug, Default)]
pub struct Caches(HashMap<PathBuf, TempDir>);

impl Caches {
    /// The cache directory for a layout; its layer is read for the first time now if it
    /// never was.
    pub fn of(&mut self, stored: &Stored) -> PathBuf {
        let known = self.0.entry(stored.layout.clone());
        let dir = known.or_insert_with(|| {
            let dir = tempfile::tempdir().expect("a temporary directory can be made");
            let mount = MountOptions::new(&stored.layout)
                .cache_dir(dir.path())
                .start();
            open(&mount);
            wait_until_idle(&mount);
            dir
        });
        dir.path().to_owned()
    }

    /// Mounts a layout whose layer is known.
    pub fn mount(&mut self, stored: &Stored, memory: &str) -> TestMount {
        self.mount_with(stored, memory, &[])
    }

    /// The same, with more options.
    pub fn mount_with(&mut self, stored: &Stored, memory: &str, more: &[&str]) -> TestMount {
        let cache = self.of(stored);
        let options = MountOptions::new(&stored.layout).cache_dir(cache);
        let options = more.iter().fold(options, MountOptions::arg);
        options.memory(memory).start()
    }
}

/// The path of the layer's tar below a mount point.
pub fn tar_in(mountpoint: &Path) -> PathBuf {
    mountpoint.join(REF).join(TAR)
}

/// Opens the layer's tar, which waits until its digests were compared.
pub fn open(mount: &TestMount) -> File {
    let path = tar_in(mount.path());
    File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Waits until the daemon does nothing for itself.
pub fn wait_until_idle(mount: &TestMount) {
    let path = mount.join(".ocifs/status.json");
    loop {
        let bytes = fs::read(&path).expect("the mount answers");
        let status: Value = serde_json::from_slice(&bytes).expect("status.json is JSON");
        if status["indexing"].as_array().is_none_or(Vec::is_empty) {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A mount by a daemon in the background, as a user makes it.
pub struct Background {
    pub path: PathBuf,
    /// Holds mount point and cache directory; goes last.
    _dir: TempDir,
}

impl Background {
    /// Mounts, with a cache directory of its own unless one is given.
    pub fn start(layout: &Path, cache: Option<&Path>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let (path, own) = (dir.path().join("mnt"), dir.path().join("cache"));
        fs::create_dir(&path).expect("it is writable");
        let cache = cache.unwrap_or(&own);
        let options = ["mount".as_ref(), "--cache-dir".as_ref(), cache];
        run_ok(OCIFS, &[&options[..], &[layout, &path]].concat());
        Self { path, _dir: dir }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let ended = Command::new(OCIFS).arg("unmount").arg(&self.path).status();
        if !ended.is_ok_and(|status| status.success()) {
            super::say(&format!("{} stays mounted", self.path.display()));
        }
    }
}

/// The times of `count` reads of 4 KiB at places that `seed` chooses.
pub fn random_reads(file: &File, size: u64, count: usize, seed: u64) -> Vec<Duration> {
    let mut random = Random::of_seed(seed);
    let read = |_| read_page(file, random.within(0..size / 4096));
    (0..count).map(read).collect()
}

/// The time of a read of a page of 4 KiB.
pub fn read_page(file: &File, page: u64) -> Duration {
    let mut buffer = [0; 4096];
    let start = Instant::now();
    file.read_exact_at(&mut buffer, page * 4096)
        .expect("the tar is readable");
    start.elapsed()
}

/// Reads a file to its end; returns how many bytes it had.
pub fn read_all(mut file: File) -> u64 {
    let (mut buffer, mut total) = (vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return total,
            Ok(len) => total += len as u64,
            Err(error) => panic!("a file in a mount: {error}"),
        }
    }
}

/// Has the kernel forget file contents, names and attributes.
pub fn drop_caches() {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").expect("root may drop caches");
}
