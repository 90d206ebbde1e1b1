//! Images of another layout: what their entries lead to is copied, as far as it is not there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::error::check_blob_size;
use super::held::{self, Held};
use super::walk::{Stock, Walk, Wholeness};
use super::{Error, Ingest, Kind, Prepared};
use crate::oci::{Descriptor, Digest, RefName};
use crate::store::layout::index::draft::named;
use crate::store::layout::writer::{self, CopyError};
use crate::store::layout::{self, Layout, Resolved};
use crate::store::{ReadAt, verify};

/// How many blobs are copied side by side: hashing keeps that many processors busy, and a
/// disk that has to seek is not asked for more.
pub(super) const SIDE_BY_SIDE: usize = 4;

impl Ingest {
    /// Gets ready images of the layout `source`: entries that [`Layout::resolve`] has found
    /// there, with everything that they say, and all that they lead to, of whatever type.
    /// With `name` all of them get that name, else they keep their own.
    ///
    /// The blobs are copied, those of an image side by side, and verified on the way; what
    /// this layout has already is not. As with archives, images of an index may be missing
    /// as long as one is whole.
    ///
    /// # Errors
    /// See [`Error`]; nothing in the layout has changed then.
    pub fn prepare_layout(
        &self,
        source: &Layout,
        entries: &[Resolved],
        name: Option<&RefName>,
    ) -> Result<Prepared, Error> {
        let stock = Blobs {
            ingest: self,
            source,
            copied: Mutex::default(),
        };
        let max_blobs = self.options.limits.blobs;
        let mut walk = Walk::new(&self.writer, &stock, Wholeness::PerIndex, max_blobs);
        let mut texts = Vec::new();
        for entry in entries {
            walk.enter(&entry.descriptor)?;
            texts.push(match name {
                Some(name) => named(&entry.text, name.as_str()).map_err(|source| {
                    let what = entry.descriptor.digest.to_string();
                    Error::Document { what, source }
                })?,
                None => entry.text.clone(),
            });
        }
        let found = walk.finish();
        Prepared::new(&self.writer, Kind::Layout, texts, found.new, found.stored)
    }
}

/// What a blob has come to: its copy, or that there is none, or why not.
type Copied = Result<Option<Held>, Error>;

/// The blobs of a layout, as far as the other one has not got them.
struct Blobs<'a> {
    ingest: &'a Ingest,
    source: &'a Layout,
    /// What was copied ahead and is not asked for yet.
    copied: Mutex<BTreeMap<Digest, Copied>>,
}

impl Stock for Blobs<'_> {
    fn find(&self, descriptor: &Descriptor) -> Result<Option<(String, Held)>, Error> {
        let ahead = self.copied.lock().remove(&descriptor.digest);
        let copied = ahead.unwrap_or_else(|| self.copy(descriptor))?;
        Ok(copied.map(|held| (descriptor.digest.to_string(), held)))
    }

    fn expect(&self, descriptors: &[&Descriptor]) {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(descriptor) = descriptors.get(next.fetch_add(1, Ordering::Relaxed)) {
                let copied = self.copy(descriptor);
                self.copied.lock().insert(descriptor.digest.clone(), copied);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..descriptors.len().min(self.ingest.side_by_side) {
                let helper = std::thread::Builder::new().name("copy".into());
                if let Err(error) = helper.spawn_scoped(scope, work) {
                    log::debug!("no thread to copy on: {error}");
                }
            }
            work();
        });
    }
}

impl Blobs<'_> {
    /// The copy of a blob; `None` if the layout has it already, or the source has not.
    fn copy(&self, descriptor: &Descriptor) -> Copied {
        let writer = &self.ingest.writer;
        // What is damaged there is replaced.
        if writer.try_hold(&descriptor.digest, descriptor.size).is_ok() {
            return Ok(None);
        }
        let blob = match self.source.open_blob(&descriptor.digest) {
            Err(layout::Error::BlobMissing { .. }) => return Ok(None),
            other => other.map_err(writer::Error::from)?,
        };
        if blob.size() != descriptor.size {
            return Err(Error::SizeMismatch {
                digest: descriptor.digest.clone(),
                expected: descriptor.size,
                actual: blob.size(),
            });
        }
        check_blob_size(blob.size(), || descriptor.digest.to_string())?;
        let mut copy = writer.blob()?;
        let copied = copy.copy(&blob, &*self.ingest.options.progress);
        copied.map_err(|error| match error {
            CopyError::Read(source) => {
                let error = verify::Error::of_reading(&descriptor.digest, source);
                writer::Error::from(error).into()
            }
            CopyError::Write(source) => held::write_error(writer, source),
        })?;
        Ok(Some(Held::File(copy.seal()?)))
    }
}
