//! Which layers are meant: those of some images, or of all, each once.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use ocifs::oci::media_type::Kind;
use ocifs::oci::{Digest, MediaType};
use ocifs::vfs::node::{Node, NodeKey};
use ocifs::vfs::{self, FileKind};

use super::super::error::Status;
use super::super::output;
use super::super::problem::Problem;
use super::super::source::Source;
use super::super::tree;

/// A layer, and what images say of it.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) digest: Digest,
    /// Where it was met first.
    pub(super) of: String,
    /// Its tar in the tree, one for each different claim about it.
    pub(super) claims: Vec<Arc<dyn Node>>,
    /// Whether it may be missing by right: some layers may not be distributed.
    pub(super) may_be_absent: bool,
}

/// What was found in a layout.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) layers: Vec<Wanted>,
    pub(super) problems: Vec<Problem>,
}

/// Which images of an index are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Platforms {
    /// Every one.
    All,
    /// The one that its top shows.
    Chosen,
}

/// The layers of the images `names`, or of all images of the layout if there are none.
/// What cannot be looked into is a problem, and the rest goes on.
pub(super) fn layers(source: &Source, names: &[OsString], platforms: Platforms) -> Found {
    let mut search = Search {
        platforms,
        by_digest: HashMap::new(),
        seen: HashSet::new(),
        found: Found {
            layers: Vec::new(),
            problems: Vec::new(),
        },
    };
    for name in names {
        match tree::find_image(&source.vfs, name.as_bytes()) {
            Ok((path, node)) => search.named(&path, &*node),
            Err(error) => search.found.problems.push(Problem::of_error(name, &error)),
        }
    }
    if names.is_empty() {
        for path in tree::refs(&source.views) {
            match source.vfs.resolve(&path) {
                Ok(node) => search.image(&path, &*node),
                Err(error) => search.problem(&path, &error),
            }
        }
    }
    search.found
}

struct Search {
    platforms: Platforms,
    /// Where each layer is in the list.
    by_digest: HashMap<Digest, usize>,
    /// Digest and media type of the images and indexes that were looked into.
    seen: HashSet<(String, Option<String>)>,
    found: Found,
}

impl Search {
    fn problem(&mut self, path: &[u8], error: &vfs::Error) {
        let of = output::printable(path);
        self.found.problems.push(Problem::new(of, error));
    }

    /// An image that the user named.
    fn named(&mut self, path: &[u8], node: &dyn Node) {
        if node.kind() != FileKind::Directory || node.xattr_names().is_empty() {
            let of = output::printable(path);
            let text = "is no image".to_owned();
            let problem = Problem::request(of, text, Status::Finding);
            return self.found.problems.push(problem);
        }
        self.image(path, node);
        let has = |name: &[u8]| matches!(node.find(name), Ok(Some(_)));
        if self.platforms == Platforms::Chosen && has(b"platforms") && !has(b"manifest.json") {
            let of = output::printable(path);
            let text = "has no image for that platform".to_owned();
            let problem = Problem::request(of, text, Status::Finding);
            self.found.problems.push(problem);
        }
    }

    /// An image or an index.
    fn image(&mut self, path: &[u8], node: &dyn Node) {
        if let Some(digest) = tree::oci_xattr(node, "digest")
            && !self
                .seen
                .insert((digest, tree::oci_xattr(node, "media-type")))
        {
            return;
        }
        if let Err(error) = self.look(path, node) {
            self.problem(path, &error);
        }
    }

    fn look(&mut self, path: &[u8], node: &dyn Node) -> Result<(), vfs::Error> {
        // Their verdicts first: what lists nothing says there why.
        for name in [&b"index.json"[..], b"manifest.json"] {
            if let Some(document) = node.find(name)? {
                document.open()?;
            }
        }
        if self.platforms == Platforms::All
            && let Some(platforms) = node.find(b"platforms")?
        {
            let path = tree::join(path, b"platforms");
            for child in platforms.list()? {
                self.image(&tree::join(&path, &child.name), &*child.node);
            }
            return Ok(());
        }
        let Some(layers) = node.find(b"layers")? else {
            return Ok(());
        };
        let path = tree::join(path, b"layers");
        for child in layers.list()? {
            self.layer(&tree::join(&path, &child.name), child.node);
        }
        Ok(())
    }

    /// A file of `layers/`: a layer, unless its media type says that it is no tar, or that
    /// nobody here can read it.
    fn layer(&mut self, path: &[u8], node: Arc<dyn Node>) {
        let media_type = tree::oci_xattr(&*node, "media-type").unwrap_or_default();
        let Kind::Layer {
            nondistributable, ..
        } = MediaType::new(&media_type).kind()
        else {
            return;
        };
        let digest = tree::oci_xattr(&*node, "digest");
        let Some(digest) = digest.and_then(|digest| digest.parse::<Digest>().ok()) else {
            return;
        };
        let layers = &mut self.found.layers;
        let at = *self.by_digest.entry(digest.clone()).or_insert_with(|| {
            layers.push(Wanted {
                digest,
                of: output::printable(path),
                claims: Vec::new(),
                may_be_absent: true,
            });
            layers.len() - 1
        });
        let wanted = &mut layers[at];
        wanted.may_be_absent &= nondistributable;
        let key: NodeKey = node.key();
        if wanted.claims.iter().all(|claim| claim.key() != key) {
            wanted.claims.push(node);
        }
    }
}
