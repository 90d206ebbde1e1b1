//! A file tree as the one layer of an image: sorted, reproducible, as it is.
//!
//! ```text
//!   Tree         Walk            tar::write      Encoder              sink
//!   ┌──────┐ ──> path, stat ──>  headers   ──>   blocks, hashed  ──>  a BlobWriter
//!   │ etc/ │     handle          bytes           and compressed       that nobody
//!   │ usr/ │     xattrs, holes                   on all cores         has published
//!   └──────┘
//! ```
//!
//! The walk reads on the caller's thread; hashing, compressing and writing go on beside
//! it. What comes out hangs on the tree alone: the same tree gives the same bytes,
//! wherever it lies, however many cores there are.
//!
//! - Entries are sorted by the bytes of their names, directories before what is in them,
//!   the root first, as `./`.
//! - Types, modes, owners, times in nanoseconds, device numbers, targets and extended
//!   attributes are kept, those that would be acted upon left out
//!   ([`tar::is_hidden_xattr`]), holes too where that saves anything.
//! - Names of one file are hard links to the first in this order.
//! - Sockets, which no tar can hold, are left out and told in the [`Report`].
//! - Mounts inside are a part of the tree, as for tar.
//!
//! Invariants:
//! - Everything is opened beneath the handle of the directory that it is in, and never
//!   through a symbolic link: whoever renames things meanwhile leads nowhere else.
//! - A tree that changes while it is packed is an error, not a mix ([`Error::Changed`]),
//!   as far as times and sizes tell it.
//! - What is packed can be read back here: [`Limits`] are those of the readers, and names
//!   that would be whiteouts are refused ([`Error::Whiteout`]).
//! - Neither memory nor open files grow with the depth or the size of the tree beyond the
//!   names of the directories on the way, and the files that have several names.

mod content;
mod error;
mod image;
mod packer;
mod walk;
mod xattr;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use error::Error;
pub use image::{Image, image};

use crate::oci::media_type::LayerCompression;
use crate::oci::{DiffId, MediaType};
use crate::store::progress::Progress;
use crate::stream::{self, Compression, Encoder};
use crate::tar;

/// How many things that were left out are told one by one; the others are counted.
const MAX_TOLD: usize = 64;

/// A directory to be packed, pinned by its handle.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
}

impl Tree {
    /// The tree in an open directory, which must be readable.
    ///
    /// # Errors
    /// [`Error::Io`] if it is not a directory.
    pub fn open(dir: OwnedFd) -> Result<Self, Error> {
        // A handle that was opened for its path only cannot be listed.
        let root = walk::open_directory(&dir, c".");
        let root = root.map_err(|source| Error::io("open", b"", source))?;
        Ok(Self { root })
    }
}

/// What a packed tree may come to: what reading it back allows.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Of its entries.
    pub tar: tar::Limits,
    /// Of its bytes.
    pub stream: stream::Limits,
}

/// How a tree is packed.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// How the layer is stored.
    pub compression: LayerCompression,
    /// How many threads compress. It makes no difference to the result.
    pub threads: usize,
    /// What is refused.
    pub limits: Limits,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self {
            compression: LayerCompression::Gzip,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            limits: Limits::default(),
        }
    }
}

/// A tree that was packed. Nothing is published: the sink is given back.
#[derive(Debug)]
pub struct PackedLayer<W> {
    /// What the blob was written to.
    pub blob: W,
    /// The size of the blob in bytes.
    pub size: u64,
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// How it is stored.
    pub media_type: MediaType,
    /// What was packed.
    pub report: Report,
}

/// What was packed, and what could not be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many entries the tar has.
    pub entries: u64,
    /// The size of the tar in bytes.
    pub tar_size: u64,
    /// What was left out, the first of it in the order of the walk.
    pub left_out: Vec<LeftOut>,
    /// How many more there were.
    pub more_left_out: u64,
}

impl Report {
    fn leave_out(&mut self, what: LeftOut) {
        if self.left_out.len() < MAX_TOLD {
            self.left_out.push(what);
        } else {
            self.more_left_out += 1;
        }
    }
}

/// Something of the tree that the layer has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftOut {
    /// A socket: tar has no type for it.
    Socket {
        /// Its path in the tree.
        path: PathBuf,
    },
    /// An extended attribute that is listed, and that this process may not read.
    Xattr {
        /// Whose it is.
        path: PathBuf,
        /// Its name.
        name: Vec<u8>,
    },
}

/// Packs `tree` into `sink`; `progress` counts the bytes of the tar.
///
/// # Errors
/// Every [`Error`]; the sink is dropped then.
pub fn pack<W: Write + Send + 'static>(
    tree: &Tree,
    options: &PackOptions,
    sink: W,
    progress: &dyn Progress,
) -> Result<PackedLayer<W>, Error> {
    let compression = match options.compression {
        LayerCompression::None => Compression::Plain,
        LayerCompression::Gzip => Compression::Gzip,
        LayerCompression::Zstd => Compression::Zstd,
    };
    let encoder = Encoder::new(sink, compression, options.threads).map_err(Error::Sink)?;
    let (encoded, report) = packer::run(tree, encoder, &options.limits, progress)?;
    Ok(PackedLayer {
        blob: encoded.sink,
        size: encoded.encoded_size,
        diff_id: DiffId(encoded.decoded_digest),
        media_type: MediaType::layer(options.compression),
        report,
    })
}
