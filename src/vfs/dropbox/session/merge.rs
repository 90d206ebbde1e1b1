//! A session that is a layout: everything that its index leads to is looked at, before
//! anything of it is in the real one.
//!
//! Every file that stands for a blob must have its digest, named by the index or not. What
//! the index leads to must be there, in the session or in the layout, with the right size,
//! and each document must be one that can be read.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{Access, AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::hashing::{CLOSE_PATIENCE, keeps_writers};
use super::inode::system;
use super::tree::Tree;
use crate::oci::limits::Limit;
use crate::oci::{Algorithm, Descriptor, Digest, Document, DocumentType, RefName};
use crate::store::blob::Identity;
use crate::store::disk::parent;
use crate::store::layout;
use crate::store::layout::index::draft::{Draft, named};
use crate::store::layout::writer::{self, BlobWriter, StoredBlob};
use crate::store::progress::Unwatched;
use crate::store::{Blob, LayoutWriter, ReadAt, Verdicts};
use crate::vfs::error::Error;

/// A blob of the session's own, known to be sound.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Which file it was, in which state, when its digest was found to be right.
    pub(super) identity: Identity,
    pub(super) file: File,
    /// Its bytes once more, if the file cannot be shared: it has other names too, or has one
    /// that cannot be taken away.
    pub(super) copy: Option<BlobWriter>,
}

/// What a session brings.
#[derive(Debug)]
pub(super) struct Merge {
    /// The JSON texts of the entries, with their names.
    pub(super) entries: Vec<String>,
    /// The blobs that the layout may not have.
    pub(super) own: Vec<Own>,
    /// Those that it has.
    pub(super) stored: Vec<StoredBlob>,
}

/// The index of a session that is a layout; `None` for any other tree.
///
/// # Errors
/// `EUCLEAN` for an index that is not right in what says that it is a layout.
pub(super) fn find_index(tree: &Arc<Tree>) -> Result<Option<Draft>, Error> {
    let Some(file) = open_file(tree.root_fd(), "index.json")? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    let size = file.metadata()?.len();
    Limit::IndexJsonSize.check(size)?;
    file.take(Limit::IndexJsonSize.value())
        .read_to_end(&mut bytes)?;
    match Draft::parse(&bytes) {
        Ok(draft) => Ok(Some(draft)),
        Err(error) if open_file(tree.root_fd(), "oci-layout")?.is_some() => Err(error.into()),
        // A tree may well have a file of this name.
        Err(_) => Ok(None),
    }
}

/// Looks at a session whose index is `index`; an entry that is alone and has no name gets
/// `name`.
///
/// # Errors
/// What is not right, first of all that something is missing.
pub(super) fn prepare(
    tree: &Arc<Tree>,
    index: &Draft,
    name: &RefName,
    writer: &LayoutWriter,
    verdicts: &Verdicts,
) -> Result<Merge, Error> {
    let mut walk = Walk {
        tree,
        writer,
        verdicts,
        visited: HashSet::new(),
        own: BTreeMap::new(),
        stored: BTreeMap::new(),
        deadline: Instant::now() + CLOSE_PATIENCE,
        fault: None,
    };
    let mut entries: Vec<String> = index.texts().map(str::to_owned).collect();
    for entry in index.entries() {
        match &entry.descriptor {
            Ok(descriptor) => walk.visit(descriptor, 1),
            Err(error) => walk.blame(error.clone().into()),
        }
    }
    walk.check_rest()?;
    if let Some(fault) = walk.fault {
        return Err(fault);
    }
    let is_unnamed = |number| {
        let entry = index.entry(number);
        entry.is_some_and(|entry| entry.ref_name.is_none() && entry.containerd_name.is_none())
    };
    if entries.len() == 1 && is_unnamed(0) {
        entries[0] = named(&entries[0], name.as_str())?;
    }
    Ok(Merge {
        entries,
        own: walk.own.into_values().collect(),
        stored: walk.stored.into_values().collect(),
    })
}

/// The way from the entries to all blobs that they lead to.
struct Walk<'a> {
    tree: &'a Arc<Tree>,
    writer: &'a LayoutWriter,
    verdicts: &'a Verdicts,
    visited: HashSet<(Digest, String)>,
    own: BTreeMap<Digest, Own>,
    stored: BTreeMap<Digest, StoredBlob>,
    /// How long those are waited for who can write to a file.
    deadline: Instant,
    /// The fault that is told, if there are several.
    fault: Option<Error>,
}

impl Walk<'_> {
    fn blame(&mut self, fault: Error) {
        self.fault = Some(match self.fault.take() {
            Some(known) => known.or(fault),
            None => fault,
        });
    }

    fn visit(&mut self, descriptor: &Descriptor, depth: u64) {
        if let Err(fault) = self.try_visit(descriptor, depth) {
            self.blame(fault);
        }
    }

    fn try_visit(&mut self, descriptor: &Descriptor, depth: u64) -> Result<(), Error> {
        let media_type = descriptor.media_type.essence().to_ascii_lowercase();
        if !self.visited.insert((descriptor.digest.clone(), media_type)) {
            return self.check_size(descriptor);
        }
        descriptor.check_data()?;
        Limit::IndexDepth.check(depth)?;
        self.obtain(descriptor)?;
        let Some(document_type) = DocumentType::of(&descriptor.media_type) else {
            return Ok(());
        };
        Limit::DocumentSize.check(descriptor.size)?;
        let document = Document::parse(&self.read(&descriptor.digest)?, document_type)?;
        // A subject may be anywhere. Spec: image-spec manifest.md, "subject".
        match &document {
            Document::Manifest(manifest) => {
                self.visit(&manifest.config, depth);
                for layer in &manifest.layers {
                    self.visit(layer, depth);
                }
            }
            Document::Index(index) => {
                for entry in &index.manifests {
                    self.visit(entry, depth + 1);
                }
            }
        }
        Ok(())
    }

    fn size(&self, digest: &Digest) -> Option<u64> {
        let own = self.own.get(digest).map(|own| own.size);
        own.or_else(|| Some(self.stored.get(digest)?.size()))
    }

    /// Compares the size of a blob that was met before.
    fn check_size(&self, descriptor: &Descriptor) -> Result<(), Error> {
        match self.size(&descriptor.digest) {
            Some(actual) if actual != descriptor.size => Err(size_error(descriptor, actual)),
            _ => Ok(()),
        }
    }

    /// Gets hold of a blob, in the session or in the layout.
    fn obtain(&mut self, descriptor: &Descriptor) -> Result<(), Error> {
        let digest = &descriptor.digest;
        if self.size(digest).is_some() {
            return self.check_size(descriptor);
        }
        if digest.algorithm() == Algorithm::Unknown {
            let text = format!("digest algorithm of {digest} is not supported");
            return Err(Error::unsupported("DIGEST_ALGORITHM", text));
        }
        let path = format!("blobs/{}/{}", digest.algorithm_name(), digest.encoded());
        if let Some(file) = open_file(self.tree.root_fd(), &path)? {
            let size = file.metadata()?.len();
            if size != descriptor.size {
                return Err(size_error(descriptor, size));
            }
            return self.verify(digest, file, &path);
        }
        match self.writer.hold(digest, descriptor.size) {
            Ok(stored) => {
                self.stored.insert(digest.clone(), stored);
                Ok(())
            }
            Err(writer::Error::Layout(layout::Error::BlobMissing { .. })) => {
                let text =
                    format!("blob {digest} is named, and neither in the session nor in the layout");
                Err(Error::missing("COMMIT_INCOMPLETE", text))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sees that a file of the session has the bytes that its name says, and that nobody
    /// can change them any more: descriptors and mappings for which the kernel passes writes
    /// through to the file itself outlive the daemon that they are of, and the next knows
    /// nothing of them.
    fn verify(&mut self, digest: &Digest, file: File, path: &str) -> Result<(), Error> {
        if keeps_writers(file.as_fd(), self.deadline) {
            return Err(Error::in_use(path));
        }
        let blob = Blob::new(digest.clone(), file.try_clone()?)?;
        self.verdicts.verify(&blob, &Unwatched)?;
        let (digest, size, identity) = (digest.clone(), ReadAt::size(&blob), *blob.identity());
        // The layout may have it all the same, from a tool that does not look before.
        if let Ok(stored) = self.writer.hold(&digest, size) {
            self.stored.insert(digest, stored);
            return Ok(());
        }
        // What takes long is done now, not while directories are locked.
        let copy = match has_one_name(&file) && self.can_take(path) {
            true => {
                file.sync_all()?;
                None
            }
            false => Some(self.copy(&file)?),
        };
        let own = Own {
            digest: digest.clone(),
            size,
            identity,
            file,
            copy,
        };
        self.own.insert(digest, own);
        Ok(())
    }

    /// Whether the name of a file can be taken away, as that of one that is shared must be.
    fn can_take(&self, path: &str) -> bool {
        let access = Access::WRITE_OK | Access::EXEC_OK;
        let directory = parent(path);
        rustix::fs::accessat(self.tree.root_fd(), directory, access, AtFlags::EACCESS).is_ok()
    }

    fn copy(&self, mut file: &File) -> Result<BlobWriter, Error> {
        let mut copy = self.writer.blob()?;
        file.seek(SeekFrom::Start(0))?;
        std::io::copy(&mut file, &mut copy)?;
        copy.sync()?;
        Ok(copy)
    }

    /// The bytes of a blob that was obtained.
    fn read(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let size = self.size(digest).ok_or(Error::Stale)?;
        let mut bytes = vec![0; usize::try_from(size).map_err(std::io::Error::other)?];
        let read = match (self.own.get(digest), self.stored.get(digest)) {
            (Some(own), _) => own.file.read_exact_at(&mut bytes, 0),
            (None, Some(stored)) => stored.read_at(&mut bytes, 0).map(drop),
            (None, None) => return Err(Error::Stale),
        };
        read.map_err(|error| Error::of_content(&error))?;
        Ok(bytes)
    }

    /// Looks at the blobs that nothing leads to: a tool that wrote a wrong one has failed.
    fn check_rest(&mut self) -> Result<(), Error> {
        let used: HashSet<Digest> = self.own.keys().chain(self.stored.keys()).cloned().collect();
        for algorithm in list(self.tree.root_fd(), "blobs")? {
            let directory = format!("blobs/{algorithm}");
            for name in list(self.tree.root_fd(), &directory)? {
                let Ok(digest) = format!("{algorithm}:{name}").parse::<Digest>() else {
                    continue;
                };
                if used.contains(&digest) || digest.algorithm() == Algorithm::Unknown {
                    continue;
                }
                let path = format!("{directory}/{name}");
                if let Some(file) = open_file(self.tree.root_fd(), &path)? {
                    let blob = Blob::new(digest, file)?;
                    if let Err(error) = self.verdicts.verify(&blob, &Unwatched) {
                        self.blame(error.into());
                    }
                }
            }
        }
        Ok(())
    }
}

fn size_error(descriptor: &Descriptor, actual: u64) -> Error {
    let Descriptor { digest, size, .. } = descriptor;
    let text = format!("blob {digest} has {actual} bytes, its descriptor says {size}");
    Error::damaged("BLOB_SIZE", text)
}

/// Opens something of a session, never through a link; `None` for what cannot be had so.
pub(super) fn open_beneath(
    root: &OwnedFd,
    path: &str,
    flags: OFlags,
) -> Result<Option<OwnedFd>, Error> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO | Errno::NODEV) => Ok(None),
        Err(errno) => Err(system(errno)),
    }
}

/// Opens a regular file of a session; `None` for what is none.
pub(super) fn open_file(root: &OwnedFd, path: &str) -> Result<Option<File>, Error> {
    let Some(fd) = open_beneath(root, path, OFlags::empty())? else {
        return Ok(None);
    };
    let file = File::from(fd);
    Ok(file.metadata()?.is_file().then_some(file))
}

/// The names in a directory of a session; none if there is none.
pub(super) fn list(root: &OwnedFd, path: &str) -> Result<Vec<String>, Error> {
    let Some(fd) = open_beneath(root, path, OFlags::DIRECTORY)? else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in Dir::new(fd).map_err(system)? {
        let entry = entry.map_err(system)?;
        match entry.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    Ok(names)
}

/// Whether a file has one name and no more, so that it may be shared with the layout.
pub(super) fn has_one_name(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.nlink() == 1)
}
