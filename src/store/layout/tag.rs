//! One more name for an image, and one fewer.

use std::collections::HashSet;

use super::Committer;
use super::find::{descriptor, find_nested, texts_of};
use super::index::draft::Draft;
use super::index::update::Basis;
use super::refs::{self, Collision, Refusal};
use super::writer::{Error, LayoutWriter, StoredBlob};
use crate::oci::limits::Limit;
use crate::oci::{Descriptor, Digest, RefName, json};
use crate::store::disk;

/// How often it is begun anew because the name has been moved in between.
const ATTEMPTS: usize = 5;

/// What tagging or untagging has done.
#[derive(Debug)]
pub struct Tagged {
    /// The digests of the images.
    pub digests: Vec<String>,
    /// Whether the index had to be changed.
    pub is_changed: bool,
}

impl LayoutWriter {
    /// Gives the name `new` to what `existing` means: a ref name, or the digest of
    /// something that can be reached from the index. The blobs that the new entries name
    /// are verified and durable then.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`super::Error::BlobMissing`] if the image is not there, and
    /// what else [`LayoutWriter::hold`] and [`LayoutWriter::update`] answer.
    pub fn tag(
        &self,
        existing: &str,
        new: &RefName,
        collision: Collision,
    ) -> Result<Tagged, Error> {
        let mut attempt = 1;
        loop {
            match self.try_tag(existing, new, collision) {
                Err(Error::Refused(Refusal::Moved { .. })) if attempt < ATTEMPTS => attempt += 1,
                other => return other,
            }
        }
    }

    /// Removes the entries that `name` means. Their blobs stay.
    ///
    /// # Errors
    /// [`Error::Refused`], and what [`LayoutWriter::update`] answers.
    pub fn untag(&self, name: &str) -> Result<Tagged, Error> {
        let updated = self.update(&Basis::default(), |draft| refs::remove(draft, name))?;
        Ok(Tagged {
            digests: updated.answer,
            is_changed: updated.is_written,
        })
    }

    fn try_tag(
        &self,
        existing: &str,
        new: &RefName,
        collision: Collision,
    ) -> Result<Tagged, Error> {
        let wanted = self.find_wanted(&self.present()?, existing)?;
        let basis = Basis {
            blobs: &wanted.blobs,
            last_good: None,
        };
        let updated = self.update(&basis, |draft| wanted.tag(draft, new, collision))?;
        Ok(wanted.tagged(updated.is_written))
    }

    /// What `existing` means, verified and durable: what takes time is done before the locks
    /// are taken.
    fn find_wanted<'a>(&self, draft: &Draft, existing: &'a str) -> Result<Wanted<'a>, Error> {
        let found = match texts_of(draft, existing) {
            Err(Refusal::NotFound { name }) => {
                let read = |descriptor: &Descriptor| self.document(descriptor);
                let nested = find_nested(draft, existing, read);
                nested
                    .map(|text| vec![text])
                    .ok_or(Refusal::NotFound { name })
            }
            other => other,
        }?;
        let blobs = self.hold_all(existing, &found)?;
        Ok(Wanted {
            existing,
            found,
            blobs,
        })
    }

    fn hold_all(&self, name: &str, texts: &[String]) -> Result<Vec<StoredBlob>, Error> {
        let hold = |text: &String| {
            let descriptor = json::parse(text.as_bytes())
                .and_then(|value| Descriptor::from_json(&value))
                .map_err(|source| Refusal::Malformed {
                    name: name.to_owned(),
                    source,
                })?;
            self.hold(&descriptor.digest, descriptor.size)
        };
        texts.iter().map(hold).collect()
    }

    /// The bytes of an index. Looking for something waits for none that is just being
    /// written.
    fn document(&self, descriptor: &Descriptor) -> Option<Vec<u8>> {
        Limit::DocumentSize.check(descriptor.size).ok()?;
        let blob = self.try_hold(&descriptor.digest, descriptor.size).ok()?;
        disk::read_all(blob.file(), Limit::DocumentSize.value()).ok()
    }
}

impl Committer {
    /// As [`LayoutWriter::tag`], together with what else is committed at this moment.
    ///
    /// # Errors
    /// The same, and what [`Committer::commit`] answers.
    pub fn tag(
        &self,
        existing: &str,
        new: &RefName,
        collision: Collision,
    ) -> Result<Tagged, Error> {
        let mut attempt = 1;
        loop {
            let wanted = self.writer().find_wanted(&self.present()?, existing)?;
            match self.commit(&wanted.blobs, |draft| wanted.tag(draft, new, collision)) {
                Err(Error::Refused(Refusal::Moved { .. })) if attempt < ATTEMPTS => attempt += 1,
                other => return other.map(|committed| wanted.tagged(committed.is_changed)),
            }
        }
    }
}

/// What is to get a name.
struct Wanted<'a> {
    /// What it is called now.
    existing: &'a str,
    /// The JSON texts of its descriptors.
    found: Vec<String>,
    /// What these describe.
    blobs: Vec<StoredBlob>,
}

impl Wanted<'_> {
    /// Gives it the name `new`, if it still is what `existing` means.
    fn tag(&self, draft: &mut Draft, new: &RefName, collision: Collision) -> Result<(), Refusal> {
        let texts = match texts_of(draft, self.existing) {
            Err(Refusal::NotFound { .. }) if self.existing.parse::<Digest>().is_ok() => {
                self.found.clone()
            }
            other => other?,
        };
        let held: HashSet<&Digest> = self.blobs.iter().map(StoredBlob::digest).collect();
        let is_held = |text: &String| descriptor(text).is_some_and(|d| held.contains(&d.digest));
        if !texts.iter().all(is_held) {
            let name = self.existing.to_owned();
            return Err(Refusal::Moved { name });
        }
        refs::set(draft, new, &texts, collision)
    }

    fn tagged(&self, is_changed: bool) -> Tagged {
        let digests = self.blobs.iter().map(|blob| blob.digest().to_string());
        Tagged {
            digests: digests.collect(),
            is_changed,
        }
    }
}
