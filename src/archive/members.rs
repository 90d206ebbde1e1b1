//! The files of an archive by their paths.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::convert::Infallible;

use super::Error;

/// How many links in a row are followed. Writers make one.
const MAX_LINKS: usize = 16;

/// What has a path in an archive. Directories need not be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member<F> {
    /// A regular file, by what stands for its content.
    File(F),
    /// A symbolic link, by its target as it is written.
    Symlink(Vec<u8>),
    /// Another name of the file with this path.
    HardLink(Vec<u8>),
    /// A file with holes.
    Sparse,
    /// A device or a pipe.
    Special,
}

/// The members of an archive. `F` stands for the content of a file: equal values are
/// equal bytes.
///
/// A path that comes twice is fine as long as nobody needs it, or both are the same.
#[derive(Debug, Clone)]
pub struct Members<F> {
    /// `None` for a path that stands for different things.
    by_path: BTreeMap<Vec<u8>, Option<Member<F>>>,
}

impl<F> FromIterator<(Vec<u8>, Option<Member<F>>)> for Members<F> {
    /// What [`Members::iter`] gave.
    fn from_iter<I: IntoIterator<Item = (Vec<u8>, Option<Member<F>>)>>(members: I) -> Self {
        Self {
            by_path: members.into_iter().collect(),
        }
    }
}

impl<F> Default for Members<F> {
    fn default() -> Self {
        Self {
            by_path: BTreeMap::new(),
        }
    }
}

impl<F: PartialEq> Members<F> {
    /// Adds what the tar has next, under its path below the root.
    pub fn insert(&mut self, path: &[u8], member: Member<F>) {
        let inserted = self.insert_with(path, member, |known, member| {
            Ok::<bool, Infallible>(known == member)
        });
        let Ok(()) = inserted;
    }
}

impl<F> Members<F> {
    /// The same, where `is_same` says whether what has the path already is the same.
    ///
    /// # Errors
    /// What `is_same` answers.
    pub fn insert_with<E>(
        &mut self,
        path: &[u8],
        member: Member<F>,
        is_same: impl FnOnce(&Member<F>, &Member<F>) -> Result<bool, E>,
    ) -> Result<(), E> {
        match self.by_path.entry(path.to_vec()) {
            Entry::Vacant(entry) => {
                entry.insert(Some(member));
            }
            Entry::Occupied(mut entry) => {
                let is_known = match entry.get() {
                    Some(known) => is_same(known, &member)?,
                    None => true,
                };
                if !is_known {
                    entry.insert(None);
                }
            }
        }
        Ok(())
    }

    /// Each path, and what it stands for: nothing where that is several things.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&Member<F>>)> {
        let by_path = self.by_path.iter();
        by_path.map(|(path, member)| (path.as_slice(), member.as_ref()))
    }

    /// How many paths there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_path.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    /// The content of the file that `path` leads to, by links too; `None` if there is no
    /// such file.
    ///
    /// # Errors
    /// [`Error::Duplicate`], [`Error::PathEscapes`], [`Error::LinkLoop`],
    /// [`Error::NotAFile`], [`Error::Sparse`].
    pub fn find(&self, path: &str) -> Result<Option<&F>, Error> {
        let shown = || path.to_owned();
        let escapes = || Error::PathEscapes { path: shown() };
        let mut at = normal(&[], path.as_bytes()).ok_or_else(escapes)?;
        for _ in 0..MAX_LINKS {
            let Some(member) = self.by_path.get(&at) else {
                return Ok(None);
            };
            at = match member {
                None => return Err(Error::Duplicate { path: shown() }),
                Some(Member::File(file)) => return Ok(Some(file)),
                Some(Member::Sparse) => return Err(Error::Sparse { path: shown() }),
                Some(Member::Special) => return Err(Error::NotAFile { path: shown() }),
                Some(Member::HardLink(target)) => target.clone(),
                Some(Member::Symlink(target)) => {
                    let directory = at.iter().rposition(|byte| *byte == b'/');
                    let directory = &at[..directory.unwrap_or(0)];
                    normal(directory, target).ok_or_else(escapes)?
                }
            };
        }
        Err(Error::LinkLoop { path: shown() })
    }

    /// The content of the file that `path` leads to.
    ///
    /// # Errors
    /// [`Error::Missing`], and as [`Self::find`].
    pub fn get(&self, path: &str) -> Result<&F, Error> {
        self.find(path)?.ok_or_else(|| Error::Missing {
            path: path.to_owned(),
        })
    }
}

/// `path`, seen from `directory`, in the form that members have; `None` if it leads out of
/// the archive.
fn normal(directory: &[u8], path: &[u8]) -> Option<Vec<u8>> {
    if path.starts_with(b"/") {
        return None;
    }
    let mut components: Vec<&[u8]> = Vec::new();
    let both = [directory, path].into_iter();
    for component in both.flat_map(|part| part.split(|byte| *byte == b'/')) {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop()?;
            }
            name => components.push(name),
        }
    }
    Some(components.join(&b'/'))
}
