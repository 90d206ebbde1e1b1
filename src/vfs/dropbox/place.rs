//! Places in the drop box, and what their names ask for.

use crate::ingest;
use crate::vfs::error::Error;
use crate::vfs::node::Name;

/// What the names end in that downloads and editors give to what is not finished.
const UNFINISHED: [&[u8]; 4] = [b"~", b".part", b".tmp", b".crdownload"];

/// A directory of the drop box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Shelf {
    /// `incoming/`: what is dropped becomes what it is.
    Refs,
    /// `incoming/blobs/`: what is dropped becomes a blob.
    Blobs,
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
    pub(super) fn new(shelf: Shelf, name: &[u8]) -> Self {
        let name = name.to_vec();
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
        match self.shelf {
            Shelf::Blobs => Ok(Some(ingest::Name::of_blob(&self.name))),
            Shelf::Refs => Ok(Some(ingest::Name::of_file(&self.name)?)),
        }
    }

    fn is_held_back(&self) -> bool {
        let name = &self.name;
        name.starts_with(b".") || UNFINISHED.iter().any(|end| name.ends_with(end))
    }

    /// The path from the mount root, for messages.
    pub(super) fn shown(&self) -> String {
        let name = String::from_utf8_lossy(&self.name);
        match self.shelf {
            Shelf::Refs => format!("incoming/{name}"),
            Shelf::Blobs => format!("incoming/blobs/{name}"),
        }
    }
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
            let wanted = Place::new(Shelf::Refs, file).wanted();
            let found = match wanted.map(|wanted| wanted.map(|name| name.target)) {
                Ok(None) => "held",
                Ok(Some(ingest::Target::Ref(_))) => "ref",
                Ok(Some(ingest::Target::Blob(_))) => "blob",
                Err(Error::Invalid) => "invalid",
                Err(_) => "another error",
            };
            assert_eq!(found, *expected, "{name}");
        }
        let blob = Place::new(Shelf::Blobs, b"a%2").wanted();
        assert!(matches!(blob, Ok(Some(name)) if name.target == ingest::Target::Blob(None)));
    }
}
