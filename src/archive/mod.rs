//! Archives of images: tars that hold a layout, or what `docker save` writes.
//!
//! ```text
//!   oci-archive                          docker-archive
//!   ├── oci-layout                       ├── manifest.json      configs, layers, tags
//!   ├── index.json                       ├── <hex>.json         configs
//!   └── blobs/<algorithm>/<encoded>      ├── <hex>/layer.tar    layers, or links to them
//!                                        └── repositories, <hex>/VERSION, <hex>/json
//! ```
//!
//! Here is what the members of such a tar mean, as pure functions of names and bytes, and
//! an archive read in place as the layout that it is; how one is brought into a layout is
//! for others. What docker has written since version 25 is both at once: then the layout
//! counts, since it says more.
//!
//! - [`Members`] says which file a name stands for, through the links that old versions of
//!   docker and skopeo write, and refuses what two readers could read in two ways.
//! - [`oci`] reads a layout's marker and the entries of its index.
//! - [`docker`] reads `manifest.json`.
//! - [`read`] opens an archive for those who read layouts.
//! - [`Dialect`] tells the two, and both from the tar of a layer.
//!
//! Spec: image-spec image-layout.md; moby's image/spec/v1.2.md, "Combined Image JSON +
//! Filesystem Changeset Format".

pub mod docker;
mod error;
mod members;
pub mod oci;
pub mod read;

pub use error::{Error, ErrorClass};
pub use members::{Member, Members};
pub use read::{Archive, ArchiveOptions};

/// The file that makes a tar an archive of a layout.
pub const OCI_MARKER: &str = "oci-layout";

/// The index of such an archive.
pub const OCI_INDEX: &str = "index.json";

/// The file that makes a tar an archive of `docker save`, if it is what that writes.
pub const DOCKER_MANIFEST: &str = "manifest.json";

/// Which kind of archive a tar is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// A layout in a tar.
    Oci,
    /// What `docker save` writes.
    Docker,
}

impl Dialect {
    /// Decides by whether the tar has an `oci-layout`, and by its `manifest.json`; `None`
    /// if it is the tar of something else. Web applications have a `manifest.json` too.
    #[must_use]
    pub fn of(has_marker: bool, docker_manifest: Option<&[u8]>) -> Option<Self> {
        if has_marker {
            return Some(Self::Oci);
        }
        docker::is_manifest(docker_manifest?).then_some(Self::Docker)
    }
}

/// Whether a file of an archive may have this path, by what writers are known to do. It
/// only helps to guess what a tar is before its end: docker allows any path.
#[must_use]
pub fn is_likely_member(path: &[u8]) -> bool {
    let Ok(path) = std::str::from_utf8(path) else {
        return false;
    };
    let is_hash = |text: &str| {
        let hex = text.rsplit(':').next().unwrap_or_default();
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    match path.split('/').collect::<Vec<_>>()[..] {
        ["blobs", _, _] => true,
        [name] => {
            let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
            let is_known = matches!(name, "oci-layout" | "repositories");
            is_known || is_hash(stem) || matches!(extension, "json" | "tar" | "tar.gz" | "tgz")
        }
        [directory, name] => is_hash(directory) && matches!(name, "VERSION" | "json" | "layer.tar"),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
