//! What is ready to be brought in, and what came of it.

use std::collections::BTreeMap;

use super::Error;
use super::held::Held;
use crate::oci::index::Entry;
use crate::oci::{Digest, json};
use crate::store::layout::index::draft::Draft;
use crate::store::layout::index::merge;
use crate::store::layout::refs::{self, Collision, Refusal};
use crate::store::layout::writer::StoredBlob;
use crate::store::{LayoutWriter, ReadAt};

/// What something was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Images of another layout.
    Layout,
    /// A layout in a tar.
    OciArchive,
    /// What `docker save` writes.
    DockerArchive,
    /// Images of Docker's own store.
    DockerStore,
    /// An image manifest.
    Manifest,
    /// An image index.
    Index,
    /// The tar of one layer.
    Layer,
    /// Anything else.
    Artifact,
    /// A blob and no more, because that was asked for.
    Blob,
}

impl Kind {
    /// The word for messages and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Layout => "layout",
            Self::OciArchive => "oci-archive",
            Self::DockerArchive => "docker-archive",
            Self::DockerStore => "docker-store",
            Self::Manifest => "manifest",
            Self::Index => "index",
            Self::Layer => "layer",
            Self::Artifact => "artifact",
            Self::Blob => "blob",
        }
    }
}

/// An entry that the layout gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The name under which it is shown, if it has one.
    pub name: Option<String>,
    /// Its digest.
    pub digest: Digest,
    /// What it is.
    pub media_type: String,
    /// Size of its manifest or index in bytes.
    pub size: u64,
}

/// A blob that an import needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobReport {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Whether the layout did not have it before, itself or from a shared directory; also of
    /// one that is copied from there.
    pub is_new: bool,
}

/// What an import amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What the source was taken for.
    pub kind: Kind,
    /// The entries, in the order of the source.
    pub images: Vec<Image>,
    /// The blobs that they need, or the one that was asked for.
    pub blobs: Vec<BlobReport>,
}

/// Something that was looked at from end to end and is right. Nothing of it is in the
/// layout; dropping it leaves nothing behind.
///
/// The order is: [`Self::apply`] to a draft that is thrown away, to see whether the index
/// would take it; [`Self::publish`]; [`Published::apply`] under the locks.
#[derive(Debug)]
pub struct Prepared {
    writer: LayoutWriter,
    kind: Kind,
    entries: Vec<String>,
    images: Vec<Image>,
    new: BTreeMap<Digest, Held>,
    stored: Vec<StoredBlob>,
}

/// The same with all its blobs in the layout, durable, which no index names yet.
#[derive(Debug)]
pub struct Published {
    entries: Vec<String>,
    blobs: Vec<StoredBlob>,
    report: Report,
}

impl Prepared {
    /// Takes the JSON texts of entries, the blobs that the layout may not have, and those
    /// that it has.
    ///
    /// # Errors
    /// [`Error::Document`] if an entry is not right.
    pub(super) fn new(
        writer: &LayoutWriter,
        kind: Kind,
        entries: Vec<String>,
        new: BTreeMap<Digest, Held>,
        stored: Vec<StoredBlob>,
    ) -> Result<Self, Error> {
        let images = entries.iter().map(|text| image(text));
        Ok(Self {
            writer: writer.clone(),
            kind,
            images: images.collect::<Result<_, _>>()?,
            entries,
            new,
            stored,
        })
    }

    /// What it was taken for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The entries that the index gets.
    #[must_use]
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// The JSON texts of these entries, with their names.
    #[must_use]
    pub fn entries(&self) -> &[String] {
        &self.entries
    }

    /// Adds the entries to an index, under their names.
    ///
    /// # Errors
    /// [`Refusal::Exists`] with [`Collision::Refuse`].
    pub fn apply(&self, draft: &mut Draft, collision: Collision) -> Result<(), Refusal> {
        refs::merge(draft, &self.entries, collision)
    }

    /// Gives the blobs their names in the layout. An index update must follow, with
    /// [`Published::blobs`] as its basis.
    ///
    /// # Errors
    /// What writing says. Some blobs may be in the layout then, and nothing names them.
    pub fn publish(self) -> Result<Published, Error> {
        let mut blobs = self.stored;
        let mut reports: Vec<BlobReport> = blobs.iter().map(|b| report(b, b.is_copied())).collect();
        let mut new = Vec::with_capacity(self.new.len());
        for (digest, held) in self.new {
            new.push((digest, held.seal(&self.writer)?));
        }
        let are_new: Vec<bool> = new
            .iter()
            .map(|(digest, _)| !self.writer.is_present(digest))
            .collect();
        let published = self.writer.publish_all(&new)?;
        let pairs = published.iter().zip(are_new);
        reports.extend(pairs.map(|(b, is_new)| report(b, is_new && !b.is_shared())));
        blobs.extend(published);
        Ok(Published {
            entries: self.entries,
            blobs,
            report: Report {
                kind: self.kind,
                images: self.images,
                blobs: reports,
            },
        })
    }
}

impl Published {
    /// The blobs that the entries lead to, for [`super::Ingest`]'s own or another update.
    #[must_use]
    pub fn blobs(&self) -> &[StoredBlob] {
        &self.blobs
    }

    /// The JSON texts of the entries, with their names.
    #[must_use]
    pub fn entries(&self) -> &[String] {
        &self.entries
    }

    /// Adds the entries to the index, under their names.
    ///
    /// # Errors
    /// [`Refusal::Exists`] with [`Collision::Refuse`].
    pub fn apply(&self, draft: &mut Draft, collision: Collision) -> Result<(), Refusal> {
        refs::merge(draft, &self.entries, collision)
    }

    /// What the import amounts to.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }
}

fn report(blob: &StoredBlob, is_new: bool) -> BlobReport {
    BlobReport {
        digest: blob.digest().clone(),
        size: ReadAt::size(blob),
        is_new,
    }
}

/// What an entry's JSON text says.
pub(super) fn image(text: &str) -> Result<Image, Error> {
    let wrong = |source| Error::Document {
        what: "an entry for index.json".to_owned(),
        source,
    };
    let value = json::parse(text.as_bytes()).map_err(wrong)?;
    let entry = Entry::from_json((0, &value));
    let name = merge::name(&entry).map(str::to_owned);
    let descriptor = entry.descriptor.map_err(wrong)?;
    Ok(Image {
        name,
        digest: descriptor.digest,
        media_type: descriptor.media_type.as_str().to_owned(),
        size: descriptor.size,
    })
}
