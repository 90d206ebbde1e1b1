//! Publishing a session: it is sealed, looked at, and brought into the layout, whole or
//! not at all.
//!
//! Nothing that is published can change afterwards: the session is sealed when nobody has
//! a file of it open for writing, or mapped so, and stays sealed until it has gone. What
//! it is, is decided then: a layout, if it has an index, else a tree, which is packed. The
//! layout takes the files themselves where each has one name alone. Should bringing them
//! in fail half way, the session finds those that were taken in the layout, as any blob
//! there, and can be tried again.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::AtFlags;

use super::Sessions;
use super::handover::Handover;
use super::hashing::{CLOSE_PATIENCE, LOOK_AGAIN, settled};
use super::inode::{Inode, Place, system};
use super::limits;
use super::merge::{self, Merge, Own};
use super::tree::Tree;
use crate::oci::media_type::LayerCompression;
use crate::oci::{Descriptor, Digest, MediaType, Platform, RefName};
use crate::pack::{self, PackOptions};
use crate::store::blob::Identity;
use crate::store::layout::index::draft::named;
use crate::store::layout::refs;
use crate::store::layout::writer::{self, SealedBlob, StoredBlob};
use crate::store::progress::Unwatched;
use crate::store::verify::Verdict;
use crate::store::{Blob, ReadAt};
use crate::vfs::error::Error;

/// A session that was looked at and is right. It is sealed; dropping this opens it again.
#[derive(Debug)]
pub(super) struct Ready {
    tree: Arc<Tree>,
    content: Content,
}

/// What a session brings.
#[derive(Debug)]
enum Content {
    /// Nothing is known yet.
    Unknown,
    /// The entries of its own index.
    Layout(Merge),
    /// All of it, as the layer of an image.
    Packed(Box<Packed>),
}

/// An image that was made of a tree, nothing of which is published.
#[derive(Debug)]
struct Packed {
    /// The layer, and the documents that make an image of it.
    blobs: Vec<(Digest, SealedBlob)>,
    /// The JSON text of the entry, with its name.
    entry: String,
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.tree.unseal();
    }
}

impl Sessions {
    /// Seals a session and looks at all of it. Reads what was not read before; a tree is
    /// packed by `compression`.
    ///
    /// # Errors
    /// Why it cannot be published; it is open again then.
    pub(super) fn prepare(
        &self,
        tree: &Arc<Tree>,
        name: &RefName,
        compression: LayerCompression,
    ) -> Result<Ready, Error> {
        seal(tree)?;
        // From here on it is opened again on every way out.
        let mut ready = Ready {
            tree: tree.clone(),
            content: Content::Unknown,
        };
        tree.meter().check(0, 0)?;
        ready.content = match merge::find_index(tree)? {
            Some(index) => {
                let merge = merge::prepare(tree, &index, name, self.writer(), &self.verdicts)?;
                self.rehearse(&merge.entries)?;
                Content::Layout(merge)
            }
            None => {
                let packed = self.pack(tree, name, compression)?;
                // What the layout has of it is read now, not while directories are locked;
                // whether it is right counts when it is brought in.
                for (digest, blob) in &packed.blobs {
                    let (Ok(_) | Err(_)) = self.writer().try_hold(digest, blob.size());
                }
                // It may have been published before, by a daemon that was killed over it.
                self.rehearse(std::slice::from_ref(&packed.entry))?;
                Content::Packed(Box::new(packed))
            }
        };
        Ok(ready)
    }

    /// Whether the index of the layout would take the entries.
    fn rehearse(&self, entries: &[String]) -> Result<(), Error> {
        let mut draft = self.committer.present()?;
        Ok(refs::merge(&mut draft, entries, self.options.collision)?)
    }

    /// Packs a tree, and makes the documents of its image.
    fn pack(
        &self,
        tree: &Arc<Tree>,
        name: &RefName,
        compression: LayerCompression,
    ) -> Result<Packed, Error> {
        let options = PackOptions {
            compression,
            ..PackOptions::default()
        };
        let files = pack::Tree::open(tree.root_fd().try_clone()?)?;
        let mut packed = pack::pack(&files, &options, self.writer().blob()?, &Unwatched)?;
        // What takes long is done now, not while directories are locked.
        packed.blob.sync()?;
        for left_out in &packed.report.left_out {
            log::warn!("{name} is packed without {left_out:?}");
        }
        let layer = packed.blob.seal()?;
        let descriptor = Descriptor::new(packed.media_type, layer.digest().clone(), layer.size());
        let image = pack::image(&descriptor, &packed.diff_id, &Platform::host(), None);
        let manifest = self.seal(&image.manifest)?;
        let entry = serde_json::json!({
            "mediaType": MediaType::IMAGE_MANIFEST.as_str(),
            "digest": manifest.digest().as_str(),
            "size": manifest.size(),
        });
        let entry = named(&entry.to_string(), name.as_str())?;
        let blobs = [layer, self.seal(&image.config)?, manifest];
        let blobs = blobs.map(|blob| (blob.digest().clone(), blob));
        Ok(Packed {
            blobs: blobs.into(),
            entry,
        })
    }

    /// Writes a small blob that is only to be published later.
    fn seal(&self, bytes: &[u8]) -> Result<SealedBlob, Error> {
        let mut blob = self.writer().blob()?;
        blob.write_all(bytes)?;
        blob.sync()?;
        Ok(blob.seal()?)
    }

    /// Brings a session into the layout.
    ///
    /// # Errors
    /// What hinders it; the session is open again then.
    pub(super) fn bring_in(&self, mut ready: Ready) -> Result<(), Error> {
        let (blobs, entries) = match std::mem::replace(&mut ready.content, Content::Unknown) {
            Content::Unknown => return Err(Error::Invalid),
            Content::Layout(merge) => {
                let mut blobs = merge.stored;
                blobs.append(&mut self.take_all(&ready.tree, merge.own)?);
                (blobs, merge.entries)
            }
            Content::Packed(packed) => (
                self.writer().publish_all(&packed.blobs)?,
                vec![packed.entry],
            ),
        };
        let collision = self.options.collision;
        self.committer
            .commit(&blobs, |draft| refs::merge(draft, &entries, collision))?;
        ready.tree.end();
        Ok(())
    }

    /// Takes the blobs of a session for the layout. The session has each as one that is lent
    /// from then on; those that are left when one fails stay what they were.
    fn take_all(&self, tree: &Arc<Tree>, own: Vec<Own>) -> Result<Vec<StoredBlob>, Error> {
        let (copied, own): (Vec<_>, Vec<_>) = own.into_iter().partition(|own| own.copy.is_some());
        let mut stored = Vec::new();
        for Own {
            digest, size, copy, ..
        } in copied
        {
            let any = MediaType::new("application/octet-stream");
            let copy = copy.map(|copy| copy.commit_as(&Descriptor::new(any, digest, size)));
            stored.extend(copy.transpose()?);
        }
        let handover = Handover::begin(tree, &own, self.layout.owner()?)?;
        let mut adopted = Vec::with_capacity(own.len());
        let added = self.adopt(&own, &handover, &mut adopted);
        // Also where others were not: each can be written to by the name that it has here.
        let taken = lend_all(tree, &own[..adopted.len()]).and(added);
        if taken.is_ok() || handover.give_back(tree) {
            handover.end(tree);
        }
        // Whether they are there or here now.
        own.iter().for_each(|own| self.know_again(own));
        taken?;
        stored.append(&mut adopted);
        Ok(stored)
    }

    /// Takes files of a session for the layout, as far as that goes well: all of their names
    /// there are durable before the first one here is taken away.
    fn adopt(
        &self,
        own: &[Own],
        handover: &Handover,
        adopted: &mut Vec<StoredBlob>,
    ) -> Result<(), Error> {
        // All of them first: what the file system has to note of that, it notes once.
        for own in own {
            handover.hand_over(&own.file)?;
        }
        let mut adoption = self.writer().adoption();
        let added = own.iter().try_for_each(|own| -> Result<(), writer::Error> {
            adopted.push(adoption.add(&own.file, &own.digest, own.size)?);
            Ok(())
        });
        let finished = adoption.finish();
        Ok(added.and(finished)?)
    }

    /// Takes the verdict on a file for that on the same file with another owner, another
    /// mode or other names: all of these move its change time, and nothing else may have
    /// moved. So a session that is tried again is not read again, while directories are
    /// locked, nor is what the layout has of it.
    fn know_again(&self, own: &Own) {
        let file = own.file.try_clone();
        let Ok(blob) = file.and_then(|file| Blob::new(own.digest.clone(), file)) else {
            return;
        };
        let now = *blob.identity();
        let expected = Identity {
            ctime: now.ctime,
            ..own.identity
        };
        if now == expected {
            self.verdicts.record(&blob, &Verdict::Sound);
        }
    }
}

/// Makes the files of a session that the layout has taken such that are lent. One that
/// cannot be is in both, so the session stays sealed.
fn lend_all(tree: &Arc<Tree>, own: &[Own]) -> Result<(), Error> {
    let mut all_lent = Ok(());
    for own in own {
        // What hinders it once need not do so twice.
        let lent = lend(tree, own).or_else(|_| lend(tree, own));
        // The layout may have another file, or a copy.
        if lent.is_err() && !merge::has_one_name(&own.file) {
            log::error!("{} stays in a session, which stays sealed", own.digest);
            tree.seal_for_good();
        }
        all_lent = all_lent.and(lent);
    }
    all_lent
}

/// Makes a file of a session that the layout has taken one that is lent.
fn lend(tree: &Arc<Tree>, own: &Own) -> Result<(), Error> {
    let metadata = own.file.metadata()?;
    let digest = &own.digest;
    let path = format!("blobs/{}/{}", digest.algorithm_name(), digest.encoded());
    // It must have no name here any more by which somebody could write to it.
    tree.lender().show(tree.place(), digest)?;
    rustix::fs::unlinkat(tree.root_fd(), path, AtFlags::empty()).map_err(system)?;
    let room = limits::room(&metadata);
    tree.meter().change(limits::difference(room, 0), -1);
    if let Some(inode) = tree.known(metadata.ino())
        && let Place::Named(parent, name) = inode.place()
    {
        tree.drop_known(&inode);
        inode.become_lent(&parent, &name, digest.clone());
    }
    Ok(())
}

/// Seals a session as soon as nobody can write to its files any more.
fn seal(tree: &Arc<Tree>) -> Result<(), Error> {
    let deadline = Instant::now() + CLOSE_PATIENCE;
    tree.seal()?;
    loop {
        let Some(path) = an_open_file(tree) else {
            return Ok(());
        };
        if Instant::now() >= deadline {
            tree.unseal();
            return Err(Error::in_use(&path));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The path of a file that somebody can write to.
fn an_open_file(tree: &Arc<Tree>) -> Option<String> {
    if tree.has_writers() {
        let writer = tree.a_writer();
        return Some(writer.map_or_else(|| "a removed file".to_owned(), |inode| inode.path()));
    }
    // What has gone meanwhile cannot be published.
    let is_open = |inode: &&Arc<Inode>| settled(inode).is_ok() && tree.is_suspect(inode);
    let suspects = tree.suspects();
    suspects.iter().find(is_open).map(|inode| inode.path())
}

#[cfg(test)]
mod tests;
