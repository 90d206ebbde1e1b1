//! Bringing images in: from some bytes to blobs and entries of a layout.
//!
//! ```text
//!   bytes ──sniff──┬── tar ──scan──┬── oci-archive ────┐
//!                  │               ├── docker-archive ─┤            blobs        entries
//!                  │               └── layer ──────────┼─> Prepared ──> Published ──> index
//!                  ├── manifest or index ──────────────┤        publish      update
//!                  └── anything else: artifact ────────┤
//!   Docker's own store ────────────────────────────────┤
//!   images of another layout ──────────────────────────┤
//!   descriptor ────────────────────────────────────────┘
//! ```
//!
//! What something becomes hangs on its content, never on its name: the table is in the
//! contract, "Drop a file". Everything that takes time happens before the layout's locks
//! are taken, and nothing gets a name in the layout before all of it was looked at: until
//! then blobs are files without names ([`Held`](held), [`SealedBlob`]), so that what is
//! refused leaves every byte of the layout as it was.
//!
//! - [`Ingest::prepare`] takes a file that was received whole, and publishes that very
//!   file where it becomes a blob; [`Ingest::prepare_file`] reads one of somebody else,
//!   and copies it unless it is an archive.
//! - [`Ingest::prepare_docker_images`] takes images from where Docker itself keeps them
//!   ([`docker_root`]).
//! - [`Ingest::prepare_layout`] copies images of another layout, with all that they lead to;
//!   [`Ingest::prepare_described`] makes an entry of a descriptor as it is.
//! - [`Prepared`] is what is right, and nothing of it is in the layout; [`Published`] has
//!   its blobs there.
//! - [`Ingest::commit`] does the rest in one update of the index. Who commits many things
//!   at once does that with [`Prepared`] and [`Published`].
//!
//! What is made here holds no time: the same bytes give the same digests, everywhere.

mod archive;
mod artifact;
mod collect;
mod described;
mod docker;
pub mod docker_root;
mod document;
mod error;
mod held;
mod layer;
mod layout;
mod name;
mod prepared;
mod scan;
mod sniff;
pub mod tar_split;
mod walk;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use artifact::UNKNOWN_ARTIFACT;
pub use error::{Error, ErrorClass};
pub use name::{Attachment, Name, Target};
pub use prepared::{BlobReport, Image, Kind, Prepared, Published, Report};

use crate::archive::Dialect;
use crate::oci::{Digest, Platform, RefName};
use crate::store::layout::index::update::Basis;
use crate::store::layout::refs::Collision;
use crate::store::layout::writer::{CopyError, SealedBlob};
use crate::store::progress::Unwatched;
use crate::store::{LayoutWriter, Progress, ReadAt};
use crate::stream::Compression;
use crate::{stream, tar};
use artifact::ArtifactOptions;
use collect::Extent;
use error::check_blob_size;
use held::Held;
use scan::{Hashing, Scanned};
use sniff::Content;

/// The most blobs of one import. All are held open until the index names them; images have
/// some 130 blobs at most, and an archive of a hundred of them stays within.
const MAX_BLOBS: usize = 16_384;

/// How many bytes are copied at a time.
const CHUNK: usize = 1 << 20;

/// What is accepted.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of compressed streams.
    pub stream: stream::Limits,
    /// Of tars.
    pub tar: tar::Limits,
    /// The most blobs of one import, each of which takes an open file.
    pub blobs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stream: stream::Limits::default(),
            tar: tar::Limits::default(),
            blobs: MAX_BLOBS,
        }
    }
}

/// How things are brought in.
#[derive(Debug, Clone)]
pub struct IngestOptions {
    /// What is accepted.
    pub limits: Limits,
    /// What an image of a bare layer is made for.
    pub platform: Platform,
    /// Told of the bytes of the source as they are read.
    pub progress: Arc<dyn Progress>,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            // What this processor can do is not what the layer needs.
            platform: Platform {
                variant: None,
                ..Platform::host()
            },
            progress: Arc::new(Unwatched),
        }
    }
}

/// Brings things into one layout. Any number may do so at once.
#[derive(Debug, Clone)]
pub struct Ingest {
    writer: LayoutWriter,
    options: IngestOptions,
    /// How many blobs of a layout are copied side by side.
    side_by_side: usize,
}

impl Ingest {
    /// Brings things into the layout of `writer`.
    #[must_use]
    pub fn new(writer: LayoutWriter, options: IngestOptions) -> Self {
        Self {
            writer,
            options,
            side_by_side: layout::SIDE_BY_SIDE,
        }
    }

    /// The same, copying one blob after the other.
    #[cfg(test)]
    fn one_by_one(self) -> Self {
        Self {
            side_by_side: 1,
            ..self
        }
    }

    /// Gets ready what was received: reads all of it, and changes nothing in the layout.
    /// Where it becomes a blob, `received` itself is what will be published.
    ///
    /// # Errors
    /// See [`Error`]; the least [`ErrorClass`] where several things are wrong.
    pub fn prepare(&self, received: SealedBlob, name: &Name) -> Result<Prepared, Error> {
        let ref_name = match &name.target {
            Target::Blob(expected) => return self.blob(received, name, expected.as_ref()),
            Target::Attached(attachment) => {
                let Attachment {
                    subject,
                    artifact_type,
                } = &**attachment;
                let options =
                    ArtifactOptions::referrer(artifact_type.clone(), &name.title, subject.clone());
                return self.artifact(received, &options);
            }
            Target::Ref(ref_name) => ref_name,
        };
        match sniff::sniff(&received, &self.options.limits)? {
            Content::Document(media_type) => self.document(received, &media_type, ref_name),
            Content::Other => self.artifact(received, &ArtifactOptions::of_file(name)),
            Content::Tar { is_likely_archive } => {
                let extent = extent(is_likely_archive);
                let hashing = match Compression::of(&received)? {
                    Compression::Gzip | Compression::Zstd if !is_likely_archive => Hashing::Decoded,
                    _ => Hashing::Nothing,
                };
                let scanned = self.scan(&received, extent, hashing)?;
                match scanned.dialect {
                    Some(dialect) => self.archive(&received, dialect, scanned, ref_name),
                    None => self.layer(received, scanned, ref_name),
                }
            }
        }
    }

    /// Gets ready what a file of somebody else holds: an archive of images is read in
    /// place, anything else is copied first.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_file(&self, source: &dyn ReadAt, name: &Name) -> Result<Prepared, Error> {
        let Target::Ref(ref_name) = &name.target else {
            return self.prepare(self.copy(source, &*self.options.progress)?, name);
        };
        let content = sniff::sniff(source, &self.options.limits)?;
        let Content::Tar { is_likely_archive } = content else {
            return self.prepare(self.copy(source, &*self.options.progress)?, name);
        };
        if is_likely_archive {
            let scanned = self.scan(source, Extent::WhileLikely, Hashing::Nothing)?;
            if let Some(dialect) = scanned.dialect {
                return self.archive(source, dialect, scanned, ref_name);
            }
        }
        // Its bytes are told of when it is scanned.
        self.prepare(self.copy(source, &Unwatched)?, name)
    }

    /// Brings in what was prepared: sees whether the index takes it, publishes the blobs,
    /// and names them in one update.
    ///
    /// # Errors
    /// [`Error::Writer`]: with [`Collision::Refuse`] that a name belongs to another image,
    /// and then the layout is as it was; what writing says.
    pub fn commit(&self, prepared: Prepared, collision: Collision) -> Result<Report, Error> {
        if prepared.entries().is_empty() {
            return Ok(prepared.publish()?.report().clone());
        }
        prepared.apply(&mut self.writer.present()?, collision)?;
        let published = prepared.publish()?;
        let basis = Basis {
            blobs: published.blobs(),
            last_good: None,
        };
        self.writer
            .update(&basis, |draft| published.apply(draft, collision))?;
        Ok(published.report().clone())
    }

    /// Copies all of `source` into a file without a name.
    ///
    /// # Errors
    /// [`Error::BlobTooLarge`]; what reading or writing says.
    fn copy(&self, source: &dyn ReadAt, progress: &dyn Progress) -> Result<SealedBlob, Error> {
        check_blob_size(source.size(), || "what was given".to_owned())?;
        let mut blob = self.writer.blob()?;
        blob.copy(source, progress).map_err(|error| match error {
            CopyError::Read(source) => Error::read(source),
            CopyError::Write(source) => held::write_error(&self.writer, source),
        })?;
        Ok(blob.seal()?)
    }

    fn scan(
        &self,
        source: &dyn ReadAt,
        extent: Extent,
        hashing: Hashing,
    ) -> Result<Scanned, Error> {
        scan::scan(self, source, &*self.options.progress, extent, hashing)
    }

    /// Takes an archive of which `scanned` is known, and reads it once more if its files
    /// were not kept: it did not look like one.
    fn archive(
        &self,
        source: &dyn ReadAt,
        dialect: Dialect,
        scanned: Scanned,
        name: &RefName,
    ) -> Result<Prepared, Error> {
        let collected = match scanned.collected {
            Some(collected) => collected,
            None => {
                let again = scan::scan(self, source, &Unwatched, Extent::All, Hashing::Nothing)?;
                again.collected.unwrap_or_default()
            }
        };
        match dialect {
            Dialect::Oci => self.oci_archive(&collected, name),
            Dialect::Docker => self.docker_archive(&collected, name),
        }
    }

    fn blob(
        &self,
        received: SealedBlob,
        name: &Name,
        expected: Option<&Digest>,
    ) -> Result<Prepared, Error> {
        let held = Held::File(received);
        let actual = match expected {
            Some(expected) => held.digest_like(expected)?,
            None => held.digest(),
        };
        if let Some(expected) = expected
            && *expected != actual
        {
            return Err(Error::DigestMismatch {
                what: name.title.clone(),
                expected: expected.clone(),
                actual,
            });
        }
        let new = BTreeMap::from([(actual, held)]);
        Prepared::new(&self.writer, Kind::Blob, Vec::new(), new, Vec::new())
    }
}

fn extent(is_likely_archive: bool) -> Extent {
    if is_likely_archive {
        Extent::WhileLikely
    } else {
        Extent::Markers
    }
}

#[cfg(test)]
pub(crate) mod tests;
