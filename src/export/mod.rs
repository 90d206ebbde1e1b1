//! Images as archives: what `docker load`, skopeo and others take, out of the blobs of a
//! layout.
//!
//! ```text
//!   Root ───> Graph ──────────> members ─────> Plan ──────────> bytes at any offset
//!   names,    which blobs it    oci, docker:   headers and small documents in memory,
//!   digests   leads to          paths, JSON    ranges of stored blobs
//!
//!   oci-archive                     docker-archive: both at once
//!   ├── blobs/<algorithm>/<hex>     ├── blobs/<algorithm>/<hex>    of one platform
//!   ├── index.json                  ├── index.json
//!   └── oci-layout                  ├── manifest.json              names, config, layers
//!                                   └── oci-layout
//! ```
//!
//! Invariants:
//! - Stored bytes are in the archive as they are: nothing is decoded, packed or renamed. So
//!   the size follows from descriptors, before any layer is read.
//! - The same names and the same blobs give the same bytes: members are sorted by path, all
//!   times are 0, owners 0:0, modes 0644 and 0755, and pax headers are there only where
//!   ustar has no room.
//! - Whoever gives the bytes out verifies the blobs: [`copy()`] while it reads them, the tree
//!   of a mount when the archive is opened.
//!
//! # What is not there
//!
//! A blob that the archive needs and the layout has not is an error of whoever opens the
//! archive, not of the plan: sizes are those of descriptors. These are left out:
//!
//! - layers that may not be distributed and say where else they are to be had;
//! - images of an index, as long as another image of the same index is whole. Their
//!   manifests stay, where they are there, as containerd has it; all readers of such an
//!   archive take the image for their own platform. So is a multi-platform image exported
//!   of which only some platforms were pulled.
//!
//! A docker-archive lacks nothing: `docker load` needs every layer.
//!
//! Spec: image-spec image-layout.md; moby's image/spec/v1.2.md, "Combined Image JSON +
//! Filesystem Changeset Format", as written by Docker since version 25.

mod copy;
mod docker;
mod error;
mod graph;
mod oci;
mod plan;

pub use copy::copy;
pub use error::Error;
pub use graph::open_sized;
pub use plan::{Piece, Plan};

use crate::oci::Descriptor;

/// Which kind of archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A layout in a tar.
    Oci,
    /// What `docker load` takes, a layout as well.
    Docker,
}

impl Format {
    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oci => "oci-archive",
            Self::Docker => "docker-archive",
        }
    }
}

/// The names of an image, as its entry of an index has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The ref name.
    pub ref_name: Option<String>,
    /// The full name that containerd, BuildKit or nerdctl gave it.
    pub containerd_name: Option<String>,
}

/// One image that is to be exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// How it is called in the archive.
    pub names: Names,
    /// What it is: a manifest or an index, or several manifests that stand under one name.
    pub descriptors: Vec<Descriptor>,
    /// The one manifest among all those that a machine of the chosen platform would run:
    /// what a docker-archive holds.
    pub image: Option<Descriptor>,
}

#[cfg(test)]
mod tests;
