//! An oci-archive: the entries of its index, under their own names.

use super::collect::Collected;
use super::held::{self, Held};
use super::walk::{Stock, Walk, Wholeness};
use super::{Error, Ingest, Kind, Prepared};
use crate::archive::{self, oci};
use crate::oci::limits::Limit;
use crate::oci::{Descriptor, Digest, RefName};
use crate::store::ReadAt;
use crate::store::layout::index::draft::named;
use crate::store::layout::index::merge;

impl Ingest {
    /// Takes the images of a layout in a tar. The only one takes `name` if it has none.
    pub(super) fn oci_archive(
        &self,
        collected: &Collected,
        name: &RefName,
    ) -> Result<Prepared, Error> {
        let marker = get(collected, "oci-layout")?;
        oci::check_marker(&held::document(marker, || "oci-layout".to_owned())?)?;
        let entries = oci::entries(&index(collected)?)?;
        let stock = Blobs(collected);
        let max_blobs = self.options.limits.blobs;
        let mut walk = Walk::new(&self.writer, &stock, Wholeness::PerIndex, max_blobs);
        let is_single = entries.len() == 1;
        let mut texts = Vec::new();
        for (text, entry) in entries {
            let wrong = |source| Error::Document {
                what: archive::OCI_INDEX.to_owned(),
                source,
            };
            walk.enter(entry.descriptor.as_ref().map_err(|e| wrong(e.clone()))?)?;
            let is_unnamed = merge::name(&entry).is_none();
            texts.push(match is_unnamed && is_single {
                true => named(&text, name.as_str()).map_err(wrong)?,
                false => text,
            });
        }
        let found = walk.finish();
        Prepared::new(
            &self.writer,
            Kind::OciArchive,
            texts,
            found.new,
            found.stored,
        )
    }
}

/// The file at `path`, which must be there.
pub(super) fn get<'a>(collected: &'a Collected, path: &str) -> Result<&'a Held, Error> {
    Ok(get_with_digest(collected, path)?.1)
}

/// The same, and its digest.
pub(super) fn get_with_digest<'a>(
    collected: &'a Collected,
    path: &str,
) -> Result<(&'a Digest, &'a Held), Error> {
    let missing = || archive::Error::Missing {
        path: path.to_owned(),
    };
    Ok(collected.find_with_digest(path)?.ok_or_else(missing)?)
}

/// The bytes of `index.json`, which may be larger than other documents.
fn index(collected: &Collected) -> Result<Vec<u8>, Error> {
    let held = get(collected, archive::OCI_INDEX)?;
    let checked = Limit::IndexJsonSize.check(ReadAt::size(held));
    checked.map_err(|source| archive::Error::Document {
        path: archive::OCI_INDEX.to_owned(),
        source,
    })?;
    super::sniff::read_all(held)
}

/// The blobs of a layout in a tar.
struct Blobs<'a>(&'a Collected);

impl Stock for Blobs<'_> {
    fn find(&self, descriptor: &Descriptor) -> Result<Option<(String, Held)>, Error> {
        let path = oci::blob_path(&descriptor.digest);
        let held = self.0.find(&path)?.cloned();
        Ok(held.map(|held| (path, held)))
    }
}
