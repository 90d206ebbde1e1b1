//! Places in the drop box, and what their names ask for.

use std::sync::Arc;

use crate::ingest;
use crate::oci::{Descriptor, Digest, MediaType};
use crate::vfs::error::Error;
use crate::vfs::node::Name;

/// What the names end in that downloads and editors give to what is not finished.
const UNFINISHED: [&[u8]; 4] = [b"~", b".part", b".tmp", b".crdownload"];

/// A directory that takes in drops.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Shelf {
    /// `incoming/`: what is dropped becomes what it is.
    Refs,
    /// `incoming/blobs/`: what is dropped becomes a blob.
    Blobs,
    /// `referrers/TYPE/` of an image: what is dropped becomes an artifact about it.
    Referrers(Arc<About>),
}

/// What artifacts are about that are dropped beside an image, and of which type they are.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct About {
    subject: Digest,
    size: u64,
    media_type: MediaType,
    artifact_type: MediaType,
}

impl About {
    pub(super) fn new(subject: &Descriptor, artifact_type: &MediaType) -> Self {
        Self {
            subject: subject.digest.clone(),
            size: subject.size,
            media_type: subject.media_type.clone(),
            artifact_type: artifact_type.clone(),
        }
    }

    fn attachment(&self) -> ingest::Attachment {
        let (media_type, digest) = (self.media_type.clone(), self.subject.clone());
        ingest::Attachment {
            subject: Descriptor::new(media_type, digest, self.size),
            artifact_type: self.artifact_type.clone(),
        }
    }
}

/// The name of [`Shelf::Blobs`] in the other.
pub(super) const BLOBS: &[u8] = b"blobs";

/// The name of a drop.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) shelf: Shelf,
    pub(super) name: Name,
}

impl Place {
    pub(super) fn new(shelf: &Shelf, name: &[u8]) -> Self {
        let (shelf, name) = (shelf.clone(), name.to_vec());
        Self { shelf, name }
    }

    /// What a file with this name asks to become; `None` as long as it is held back.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the name cannot become one of a ref.
    pub(super) fn wanted(&self) -> Result<Option<ingest::Name>, Error> {
        if self.is_held_back() {
            return Ok(None);
        }
        match &self.shelf {
            Shelf::Blobs => Ok(Some(ingest::Name::of_blob(&self.name))),
            Shelf::Refs => Ok(Some(ingest::Name::of_file(&self.name)?)),
            // What is called so there is an artifact.
            Shelf::Referrers(_) if is_digest(&self.name) => Err(Error::Invalid),
            Shelf::Referrers(about) => {
                let attachment = about.attachment();
                Ok(Some(ingest::Name::attached(&self.name, attachment)))
            }
        }
    }

    fn is_held_back(&self) -> bool {
        let name = &self.name;
        name.starts_with(b".") || UNFINISHED.iter().any(|end| name.ends_with(end))
    }

    /// The path from the mount root, or what else tells it, for messages.
    pub(super) fn shown(&self) -> String {
        let name = String::from_utf8_lossy(&self.name);
        match &self.shelf {
            Shelf::Refs => format!("incoming/{name}"),
            Shelf::Blobs => format!("incoming/blobs/{name}"),
            Shelf::Referrers(about) => {
                let (subject, artifact_type) = (&about.subject, &about.artifact_type);
                format!("{name}, {artifact_type} about {subject}")
            }
        }
    }
}

fn is_digest(name: &[u8]) -> bool {
    matches!(
        ingest::Name::of_blob(name).target,
        ingest::Target::Blob(Some(_))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_ask_for() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let rows: &[(&str, &[u8], &str)] = &[
            ("plain", b"app.tar", "ref"),
            ("rsync", b".app.tar.x4Fz1a", "held"),
            ("whiteout", b".wh.app", "held"),
            ("editor's backup", b"app~", "held"),
            ("browser", b"app.tar.part", "held"),
            ("another browser", b"app.tar.crdownload", "held"),
            ("temporary", b"app.tmp", "held"),
            ("no ending, only letters", b"apptmp", "ref"),
            ("digest", digest.as_bytes(), "blob"),
            ("malformed %", b"a%2", "invalid"),
            ("N7 decoded dots", b"%2e%2e", "invalid"),
        ];
        for (name, file, expected) in rows {
            let wanted = Place::new(&Shelf::Refs, file).wanted();
            let found = match wanted.map(|wanted| wanted.map(|name| name.target)) {
                Ok(None) => "held",
                Ok(Some(ingest::Target::Ref(_))) => "ref",
                Ok(Some(ingest::Target::Blob(_))) => "blob",
                Ok(Some(ingest::Target::Attached(_))) => "attached",
                Err(Error::Invalid) => "invalid",
                Err(_) => "another error",
            };
            assert_eq!(found, *expected, "{name}");
        }
        let blob = Place::new(&Shelf::Blobs, b"a%2").wanted();
        assert!(matches!(blob, Ok(Some(name)) if name.target == ingest::Target::Blob(None)));
    }

    #[test]
    fn what_names_beside_an_image_ask_for() {
        let digest = Digest::of(b"manifest");
        let subject = Descriptor::new(MediaType::IMAGE_MANIFEST, digest.clone(), 8);
        let about = About::new(&subject, &MediaType::new("application/spdx+json"));
        let shelf = Shelf::Referrers(Arc::new(about));
        let title = |name: &[u8]| match Place::new(&shelf, name).wanted() {
            Ok(wanted) => Ok(wanted.map(|name| name.title)),
            Err(error) => Err(error.errno()),
        };
        assert_eq!(
            title(b"a%2Fb (1).json"),
            Ok(Some("a%2Fb (1).json".to_owned()))
        );
        assert_eq!(title(b"a%2"), Ok(Some("a%2".to_owned())));
        assert_eq!(title(b".a.json.x4Fz1a"), Ok(None));
        assert_eq!(title(digest.as_str().as_bytes()), Err(libc::EINVAL));
    }
}
