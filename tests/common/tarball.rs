//! Tars of any entries, also of those that no right tool writes.

use std::fmt::Write as _;

use tar::{EntryType, Header};

/// A tar in memory, an entry for each call.
///
/// Files are 0644, directories 0755, links 0777, of 0:0 and of one fixed time, unless
/// [`Tarball::mode`] or another says otherwise for the next entry. Names are put down as they are.
#[derive(Debug, Default)]
pub struct Tarball {
    bytes: Vec<u8>,
    next: Next,
}

#[derive(Debug, Default)]
struct Next {
    mode: Option<u32>,
    owner: Option<(u64, u64)>,
    device: (u32, u32),
    records: Vec<(String, Vec<u8>)>,
}

impl Tarball {
    /// A tar without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next entry has this mode.
    pub fn mode(mut self, mode: u32) -> Self {
        self.next.mode = Some(mode);
        self
    }

    /// The next entry has this owner and group.
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.next.owner = Some((uid, gid));
        self
    }

    /// The next entry has this pax record.
    pub fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        let record = (key.to_owned(), value.as_ref().to_vec());
        self.next.records.push(record);
        self
    }

    /// Adds a regular file.
    pub fn file(self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Regular, path.as_ref(), b"", content.as_ref())
    }

    /// Adds a directory.
    pub fn dir(self, path: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Directory, path.as_ref(), b"", b"")
    }

    /// Adds a symbolic link.
    pub fn symlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Symlink, path.as_ref(), target.as_ref(), b"")
    }

    /// Adds a hard link.
    pub fn link(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Link, path.as_ref(), target.as_ref(), b"")
    }

    /// Adds a named pipe.
    pub fn fifo(self, path: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Fifo, path.as_ref(), b"", b"")
    }

    /// Adds a character device.
    pub fn device(mut self, path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        self.next.device = (major, minor);
        self.entry(EntryType::Char, path.as_ref(), b"", b"")
    }

    /// Adds bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    /// The entries alone, to be followed by others.
    pub fn finish_part(self) -> Vec<u8> {
        self.bytes
    }

    /// The tar, with its two blocks of zeros at the end.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }

    fn entry(mut self, kind: EntryType, path: &[u8], target: &[u8], content: &[u8]) -> Self {
        let mut next = std::mem::take(&mut self.next);
        for (key, value) in [("path", path), ("linkpath", target)] {
            if value.len() > 100 {
                next.records.insert(0, (key.to_owned(), value.to_vec()));
            }
        }
        if !next.records.is_empty() {
            let body: Vec<u8> = next.records.iter().flat_map(record).collect();
            let mut header = Header::new_ustar();
            put(&mut header.as_old_mut().name, b"PaxHeader");
            self.header(header, EntryType::XHeader, &body);
        }
        let mut header = Header::new_ustar();
        put(&mut header.as_old_mut().name, path);
        put(&mut header.as_old_mut().linkname, target);
        let usual = match kind {
            EntryType::Directory => 0o755,
            EntryType::Symlink => 0o777,
            _ => 0o644,
        };
        header.set_mode(next.mode.unwrap_or(usual));
        let (uid, gid) = next.owner.unwrap_or((0, 0));
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(1_700_000_000);
        if kind == EntryType::Char {
            let (major, minor) = next.device;
            let numbers = header
                .set_device_major(major)
                .and_then(|()| header.set_device_minor(minor));
            numbers.expect("a ustar header has device numbers");
        }
        self.header(header, kind, content);
        self
    }

    fn header(&mut self, mut header: Header, kind: EntryType, content: &[u8]) {
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(content);
        let padded = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(padded, 0);
    }
}

/// What fits of a name; the rest is in a pax record.
fn put(field: &mut [u8], name: &[u8]) {
    let len = name.len().min(field.len());
    field[..len].copy_from_slice(&name[..len]);
}

/// `LEN KEY=VALUE\n`, where LEN counts itself.
fn record((key, value): &(String, Vec<u8>)) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest;
    loop {
        let mut text = String::new();
        write!(text, "{len}").expect("text can be written to memory");
        if text.len() + rest == len {
            return [text.as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        }
        len = text.len() + rest;
    }
}
