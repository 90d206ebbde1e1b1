//! `ocifs` presents an OCI image layout as files.
//!
//! An image layout is a directory of blobs named by their digests, and an `index.json`
//! that names some of them. Here it becomes a tree that can be looked at: each ref a
//! directory, each layer a tar that is read lazily out of the compressed blob. Nothing is
//! unpacked, converted or copied.
//!
//! # The staircase
//!
//! Each room stands on those below it and imports nothing else; `tests/architecture.rs`
//! checks that. Read from the top, it is the way a byte takes.
//!
//! ```text
//!   9  cli      the command (part of the binary)
//!   8  fuse     speaks FUSE for a Vfs, and decides nothing
//!   7  vfs      the tree that users see, without FUSE
//!   6  ingest   from any bytes to blobs and entries of a layout
//!   5  rootfs   the trees of an image's layers, merged
//!      archive  archives of images: what is in such a tar, read in place as a layout
//!      export   images as such archives, out of stored blobs
//!      pack     a file tree as the layer of an image
//!   4  layer    one layer blob: its stream and its table of contents
//!   3  stream   random access into compressed bytes
//!   2  store    blobs and refs of a layout: verified once, written durably, watched
//!   1  oci      values of the image specification, without input or output
//!      tar      the tar format: bytes in, entries out
//! ```
//!
//! # What holds everywhere
//!
//! - Content hangs on digests. What was verified once is believed for the file in that
//!   state, and what the kernel was told about bytes is never taken back; only names are.
//! - A layer that fails its digest, its DiffID or a checksum is never served; what is
//!   decoded later is checked again against what the verified pass saw.
//! - Bytes from a layout are hostile: [`oci::limits`], [`stream::Limits`] and
//!   [`tar::Limits`] bound what they may cost, every malformed one is an error with a
//!   stable code, and one bad image never disturbs another.
//! - An error says what is wrong in words; [`vfs::Error::errno`] alone makes a number of it.
//!
//! # A layout, made and read
//!
//! ```
//! use std::sync::Arc;
//!
//! use ocifs::ingest::{Ingest, IngestOptions, Name};
//! use ocifs::store::layout::{self, refs::Collision};
//! use ocifs::store::{Layout, LayoutWriter, ReadAt, Verdicts};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("layout");
//! // An empty layout.
//! layout::init(&path)?;
//! let layout = Layout::open(&path, &[])?;
//! let verdicts = Arc::new(Verdicts::new(None));
//! let writer = LayoutWriter::open(&layout, verdicts.clone())?;
//!
//! // A tar becomes an image of one layer: looked at first, then in one update of the index.
//! # let tar: Vec<u8> = vec![0; 1024];
//! let ingest = Ingest::new(writer.clone(), IngestOptions::default());
//! let prepared = ingest.prepare_file(&tar, &Name::of_file(b"app.tar")?)?;
//! let report = ingest.commit(prepared, Collision::Refuse)?;
//! assert_eq!(report.images[0].name.as_deref(), Some("app"));
//!
//! // One more name for it.
//! writer.tag("app", &"app:1.0".parse()?, Collision::Refuse)?;
//!
//! // What the name means, and its bytes, verified.
//! let image = &layout.resolve("app:1.0")?[0];
//! let manifest = layout.fetch(&image.descriptor, &verdicts)?;
//! assert_eq!(manifest.size(), report.images[0].size);
//!
//! // All of it, in another layout.
//! # let elsewhere = dir.path().join("other");
//! layout::init(&elsewhere)?;
//! let other = LayoutWriter::open(&Layout::open(&elsewhere, &[])?, verdicts)?;
//! let ingest = Ingest::new(other, IngestOptions::default());
//! let prepared = ingest.prepare_layout(&layout, &layout.resolve_all()?, None)?;
//! ingest.commit(prepared, Collision::Refuse)?;
//! # Ok(())
//! # }
//! ```
#![doc = include_str!("operations.md")]

pub mod archive;
pub mod export;
pub mod fuse;
pub mod ingest;
pub mod layer;
pub mod oci;
pub mod pack;
pub mod rootfs;
pub mod store;
pub mod stream;
pub mod tar;
pub mod vfs;

pub use layer::{Layer, Layers};
pub use oci::{Descriptor, DiffId, Digest};
pub use store::{Blob, Layout, Verdicts};
pub use vfs::Vfs;
