//! A directory of a simulated disk, as a shared one is: it is read, and what somebody else
//! has put there is made durable, but nothing is ever written to it.

use std::fs::File;
use std::io;

use super::{Disk, DiskFile, SimulatedDisk, Status};

/// The directory that a layout shares with others, where there is one.
pub(crate) const SHARED: &str = "shared";

/// A part of a disk that cannot be written to.
#[derive(Debug, Clone)]
pub(crate) struct Below {
    disk: SimulatedDisk,
    directory: &'static str,
}

impl SimulatedDisk {
    /// What is beneath [`SHARED`].
    pub(crate) fn shared(&self) -> Below {
        Below {
            disk: self.clone(),
            directory: SHARED,
        }
    }
}

impl Below {
    fn path(&self, path: &str) -> String {
        match path {
            "." => self.directory.to_owned(),
            path => format!("{}/{path}", self.directory),
        }
    }
}

/// That somebody writes there is no fault of the disk.
fn never<T>() -> io::Result<T> {
    panic!("a shared directory was written to")
}

impl Disk for Below {
    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(&self.path(path))
    }

    fn status(&self, path: &str) -> io::Result<Status> {
        self.disk.status(&self.path(path))
    }

    fn stamp(&self) -> Option<(i64, i64)> {
        self.disk.stamp()
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.disk.list(&self.path(directory))
    }

    fn create_unnamed(&self, _: &str) -> io::Result<Box<dyn DiskFile>> {
        never()
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn DiskFile>> {
        never()
    }

    fn adopt(&self, _: File) -> io::Result<Box<dyn DiskFile>> {
        never()
    }

    fn open_lock(&self, _: &str) -> io::Result<Box<dyn DiskFile>> {
        never()
    }

    fn make_directory(&self, _: &str) -> io::Result<()> {
        never()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        never()
    }

    fn exchange(&self, _: &str, _: &str) -> io::Result<()> {
        never()
    }

    fn unlink(&self, _: &str) -> io::Result<()> {
        never()
    }

    fn sync_directory(&self, path: &str) -> io::Result<()> {
        self.disk.sync_directory(&self.path(path))
    }
}
