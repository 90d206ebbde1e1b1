//! Small file systems on a disk, so that there is one to be filled. They go with the value.

use std::fs::File;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::tool::{run, run_ok};

/// An ext4 file system in a file. Only root can mount one.
#[derive(Debug)]
pub struct Ext4 {
    path: PathBuf,
    _dir: TempDir,
}

impl Ext4 {
    /// One of `size` bytes, all of which anybody may use.
    pub fn mount(size: u64) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ocifs-ext4-")
            .tempdir()
            .expect("a temporary directory can be made");
        let (image, path) = (dir.path().join("image"), dir.path().join("mounted"));
        let file = File::create(&image).expect("the directory is ours");
        file.set_len(size).expect("a hole takes no room");
        std::fs::create_dir(&path).expect("the directory is ours");
        let words = [
            "-q",
            "-F",
            "-m",
            "0",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
        ];
        let mut words: Vec<_> = words.iter().map(AsRef::as_ref).collect();
        words.push(image.as_os_str());
        run_ok("mkfs.ext4", &words);
        let words = [
            "-o".as_ref(),
            "loop".as_ref(),
            image.as_os_str(),
            path.as_os_str(),
        ];
        run_ok("mount", &words);
        Self { path, _dir: dir }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes are free.
    pub fn free(&self) -> u64 {
        // What was removed is counted when the journal has it.
        rustix::fs::syncfs(File::open(&self.path).expect("it is mounted"))
            .expect("it can be synced");
        let stat = rustix::fs::statvfs(&self.path).expect("it is mounted");
        stat.f_bavail * stat.f_frsize
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        // A daemon that a failed test leaves behind holds it for a moment longer.
        let unmounted = run("umount", &[self.path.as_os_str()]);
        if !unmounted.status.success() {
            run("umount", &["-l".as_ref(), self.path.as_os_str()]);
        }
    }
}
