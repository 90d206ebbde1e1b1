//! Small file systems in memory, which go with the value.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::tool::{run, run_ok};

/// A file system in memory. Only root can have one.
#[derive(Debug)]
pub struct Tmpfs {
    path: PathBuf,
    _dir: TempDir,
}

impl Tmpfs {
    /// One with these mount options, such as `size=64k`.
    pub fn mount(options: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ocifs-tmpfs-")
            .tempdir()
            .expect("a temporary directory can be made");
        let tmpfs = Self {
            path: dir.path().to_owned(),
            _dir: dir,
        };
        let options = format!("mode=700,{options}");
        let words = ["-t", "tmpfs", "-o", &options, "tmpfs"];
        let mut words: Vec<_> = words.iter().map(AsRef::as_ref).collect();
        words.push(tmpfs.path.as_os_str());
        run_ok("mount", &words);
        tmpfs
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Mounts it again with these options, such as `ro`.
    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let words = ["-o".as_ref(), options.as_ref(), self.path.as_os_str()];
        run_ok("mount", &words);
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        run("umount", &["-l".as_ref(), self.path.as_os_str()]);
    }
}
