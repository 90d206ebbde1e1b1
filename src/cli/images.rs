//! Images of another layout, as they are named on a command line: DIR or DIR:REF.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ocifs::export::{Format, Names, Plan, Root};
use ocifs::ingest::{self, Ingest, Name, Prepared, Target};
use ocifs::oci::RefName;
use ocifs::store::Layout;
use ocifs::store::layout::Resolved;
use ocifs::store::layout::index::merge;

use super::error::Refusal;
use super::source;

/// The images that are meant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Images {
    layout: PathBuf,
    /// Which one; all if none is named.
    name: Option<String>,
}

impl Images {
    /// Takes a directory, or one with a name after the first colon that ends a directory's
    /// path: names may have colons, too.
    pub(crate) fn of_argument(argument: &Path) -> Option<Self> {
        if argument.is_dir() {
            return Some(Self {
                layout: argument.to_owned(),
                name: None,
            });
        }
        let bytes = argument.as_os_str().as_bytes();
        let colons = bytes.iter().enumerate().filter(|(_, byte)| **byte == b':');
        let cut = |(at, _)| {
            let layout = Path::new(OsStr::from_bytes(&bytes[..at]));
            let name = std::str::from_utf8(&bytes[at + 1..]).ok()?;
            layout.is_dir().then(|| Self {
                layout: layout.to_owned(),
                name: Some(name.to_owned()),
            })
        };
        // What is a file is no image.
        let mut images = colons.filter_map(cut).take_while(|_| !argument.exists());
        images.next()
    }

    /// Finds them; all get `name`, if it is given.
    ///
    /// # Errors
    /// If there is no such layout or image, or several are to get one name.
    pub(crate) fn find(&self, shared: &[PathBuf], name: Option<&RefName>) -> anyhow::Result<Found> {
        let shown = self.layout.display();
        if !self.layout.join("oci-layout").exists() {
            let text = format!("{shown} is a directory and no image layout; pack it with tar");
            return Err(Refusal::usage(text));
        }
        let layout = source::open_layout(&self.layout, shared)?;
        let entries = match &self.name {
            Some(name) => layout.resolve(name)?,
            None => layout.resolve_all()?,
        };
        if entries.is_empty() {
            return Err(Refusal::not_found(format!("{shown} has no images")));
        }
        if name.is_some() && self.name.is_none() && entries.len() > 1 {
            let text = format!("--name is for one image; say which as {shown}:REF");
            return Err(Refusal::usage(text));
        }
        let name = name.cloned().or_else(|| self.default_name(&entries));
        Ok(Found {
            layout,
            entries,
            name,
        })
    }

    /// A single image without a name is called as the directory.
    fn default_name(&self, entries: &[Resolved]) -> Option<RefName> {
        let [entry] = entries else { return None };
        let value = ocifs::oci::json::parse(entry.text.as_bytes()).ok()?;
        let entry = ocifs::oci::index::Entry::from_json((0, &value));
        if self.name.is_some() || merge::name(&entry).is_some() {
            return None;
        }
        match Name::of_file(self.layout.file_name()?.as_bytes())
            .ok()?
            .target
        {
            Target::Ref(name) => Some(name),
            Target::Blob(_) | Target::Attached(_) => None,
        }
    }
}

/// Images that were found.
#[derive(Debug)]
pub(crate) struct Found {
    layout: Layout,
    entries: Vec<Resolved>,
    name: Option<RefName>,
}

impl Found {
    /// How many bytes they have, about; 0 where that cannot be told.
    pub(crate) fn size(&self) -> u64 {
        let descriptors = self.entries.iter().map(|entry| entry.descriptor.clone());
        let root = Root {
            names: Names::default(),
            descriptors: descriptors.collect(),
            image: None,
        };
        let plan = Plan::new(&self.layout, Format::Oci, &[root]);
        plan.map_or(0, |plan| plan.size())
    }

    /// Gets them ready.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn prepare(&self, ingest: &Ingest) -> Result<Prepared, ingest::Error> {
        ingest.prepare_layout(&self.layout, &self.entries, self.name.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_names() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = |name: &str| dir.path().join(name);
        for name in ["a", "a:b", "c"] {
            std::fs::create_dir(path(name))?;
        }
        std::fs::write(path("c:1"), "a file")?;
        let rows = [
            ("a", Some(("a", None))),
            ("a:1", Some(("a", Some("1")))),
            ("a:b", Some(("a:b", None))),
            ("a:b:1", Some(("a", Some("b:1")))),
            ("a:app:1@sha256:00", Some(("a", Some("app:1@sha256:00")))),
            ("a:", Some(("a", Some("")))),
            ("c:1", None),
            ("c:2", Some(("c", Some("2")))),
            ("d:1", None),
            ("d", None),
        ];
        for (argument, expected) in rows {
            let expected = expected.map(|(layout, name)| Images {
                layout: path(layout),
                name: name.map(str::to_owned),
            });
            assert_eq!(Images::of_argument(&path(argument)), expected, "{argument}");
        }
        Ok(())
    }
}
