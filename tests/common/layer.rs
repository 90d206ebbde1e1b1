//! Layer bytes: small tars, and the compressions they are stored in.

use std::io::{self, Write};

use flate2::write::GzEncoder;

/// How a layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// The tar itself.
    None,
    /// One gzip member.
    Gzip,
    /// A gzip member for each so many bytes of the tar.
    GzipMembers(usize),
    /// One zstd frame without a content size, as a stream is written.
    Zstd,
    /// A zstd frame for each so many bytes of the tar.
    ZstdFrames(usize),
}

impl Compression {
    /// The media type of a layer that is stored so.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip | Self::GzipMembers(_) => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd | Self::ZstdFrames(_) => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// Compresses what `fill` writes into `out`.
    ///
    /// The kinds of many members or frames begin a new one with each so many bytes,
    /// wherever the writes begin and end.
    pub fn stream<W: Write>(
        self,
        out: W,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<W> {
        match self {
            Self::None => {
                let mut out = out;
                fill(&mut out)?;
                Ok(out)
            }
            Self::Gzip => {
                let mut encoder = GzEncoder::new(out, flate2::Compression::fast());
                fill(&mut encoder)?;
                encoder.finish()
            }
            Self::Zstd => {
                let mut encoder = zstd::Encoder::new(out, 0)?;
                fill(&mut encoder)?;
                encoder.finish()
            }
            Self::GzipMembers(len) | Self::ZstdFrames(len) => {
                let mut parts = Parts {
                    out,
                    kind: self,
                    len,
                    part: Vec::new(),
                };
                fill(&mut parts)?;
                parts.flush_part()?;
                Ok(parts.out)
            }
        }
    }
}

/// `bytes`, stored as `compression` says.
pub fn compress(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    compression
        .stream(Vec::new(), |out| out.write_all(bytes))
        .expect("compressing in memory cannot fail")
}

/// Cuts a stream into parts of `len` bytes, each compressed by itself.
struct Parts<W> {
    out: W,
    kind: Compression,
    len: usize,
    part: Vec<u8>,
}

impl<W: Write> Parts<W> {
    fn flush_part(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let whole = match self.kind {
            Compression::GzipMembers(_) => Compression::Gzip,
            _ => Compression::Zstd,
        };
        self.out.write_all(&compress(whole, &self.part))?;
        self.part.clear();
        Ok(())
    }
}

impl<W: Write> Write for Parts<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.len.max(1) - self.part.len();
        let taken = bytes.len().min(room);
        self.part.extend_from_slice(&bytes[..taken]);
        if taken == room {
            self.flush_part()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A tar of `files`, in the order given: path and content.
///
/// A path that ends in `/` is a directory. Files are 0644, directories 0755, owned by
/// 0:0, of one fixed time: the same files give the same bytes. Whiteouts are files with
/// their `.wh.` names. What needs more is written with the `tar` crate itself.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let is_dir = path.ends_with('/');
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(if is_dir {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(if is_dir { 0o755 } else { 0o644 });
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        builder
            .append_data(&mut header, path, *content)
            .unwrap_or_else(|error| panic!("cannot put {path:?} into a tar: {error}"));
    }
    builder.into_inner().expect("memory can be written")
}
