//! The extended attributes of what is packed: as GNU tar takes them, all that the kernel
//! lists and lets be read, less those that would be acted upon.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{fgetxattr, flistxattr, lgetxattr, llistxattr};
use rustix::io::Errno;

use crate::tar::{self, Xattr};

/// The longest list of names and the largest value, in bytes: `XATTR_LIST_MAX` and
/// `XATTR_SIZE_MAX` of Linux.
const MAX_LEN: usize = 64 << 10;

/// Room for nearly every list and value; the kernel makes a buffer of the size asked for.
const USUAL_LEN: usize = 1 << 10;

/// Whose attributes are read.
#[derive(Debug)]
pub(super) enum Owner<'a> {
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// Something by its path below `/proc/self/fd`: no other call reaches a symbolic link
    /// or a device from the handle of its directory.
    Named(CString),
}

impl<'a> Owner<'a> {
    pub(super) fn open(handle: &'a impl AsFd) -> Self {
        Self::Open(handle.as_fd())
    }

    pub(super) fn named((parent, name): (BorrowedFd<'_>, &CStr)) -> Self {
        let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
        path.extend_from_slice(name.to_bytes());
        Self::Named(CString::new(path).expect("a name has no NUL"))
    }

    fn list(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(handle) => flistxattr(handle, buf),
            Self::Named(path) => llistxattr(&**path, buf),
        }
    }

    fn get(&self, name: &CStr, buf: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(handle) => fgetxattr(handle, name, buf),
            Self::Named(path) => lgetxattr(&**path, name, buf),
        }
    }
}

/// Reads extended attributes, again and again into the same buffer.
#[derive(Debug)]
pub(super) struct Reader {
    buf: Vec<u8>,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            buf: vec![0; USUAL_LEN],
        }
    }

    /// The attributes of `owner`, sorted by name; `left_out` gets the names of those that
    /// cannot be read.
    pub(super) fn read(
        &mut self,
        owner: &Owner<'_>,
        mut left_out: impl FnMut(&CStr),
    ) -> Result<Vec<Xattr>, Errno> {
        let len = match self.fill(|buf| owner.list(buf)) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            other => other?,
        };
        let mut xattrs = Vec::new();
        let names = self.buf[..len].to_vec();
        for name in names.split_inclusive(|byte| *byte == 0) {
            let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::INVAL)?;
            if tar::is_hidden_xattr(name.to_bytes()) {
                continue;
            }
            match self.fill(|buf| owner.get(name, buf)) {
                Ok(len) => xattrs.push(Xattr {
                    name: name.to_bytes().to_vec(),
                    value: self.buf[..len].to_vec(),
                }),
                Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {
                    left_out(name);
                }
                Err(error) => return Err(error),
            }
        }
        xattrs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(xattrs)
    }

    /// Reads with the buffer as it is, and again with the largest if that is too small.
    fn fill(&mut self, read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<usize, Errno> {
        match read(&mut self.buf) {
            Err(Errno::RANGE) if self.buf.len() < MAX_LEN => {
                self.buf.resize(MAX_LEN, 0);
                read(&mut self.buf)
            }
            other => other,
        }
    }
}
