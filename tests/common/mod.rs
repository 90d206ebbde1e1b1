//! What the test binaries share: layouts to read, mounts to read them through, and
//! outside opinions on the result.
//!
//! A test that goes through a mount looks like this:
//!
//! ```ignore
//! if !has("reads_the_manifest", &[Need::Fuse]) {
//!     return;
//! }
//! let layout = TestLayout::new();
//! let layer = layout.layer(Compression::Gzip, &[("etc/motd", b"hello\n")]);
//! let image = layout.image(&[layer]);
//! layout.add_ref("app:1", &image);
//! let mount = TestMount::start(layout.path());
//! let manifest = std::fs::read(mount.path().join("app:1/manifest.json"));
//! ```
//!
//! Helpers panic with a sentence that names what failed: a test has nothing to do about
//! an error in its own preparation.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "a module that each test binary includes and uses a part of"
)]

mod docker_store;
mod ext4;
mod extract;
mod fingerprint;
mod header;
mod layer;
mod layout;
mod mount;
mod need;
mod random;
mod real_image;
mod stack;
mod tarball;
mod tmpfs;
mod tool;
mod tree;
mod verify;

pub use docker_store::{DockerStore, Line, StoredImage, StoredLayer, split, text_of};
pub use ext4::Ext4;
pub use extract::{Event, Extracted, Refusal, Whiteouts, hidden_by, join};
pub use fingerprint::Fingerprint;
pub use header::{TarHeader, extension, pax, pax_record, sum_block};
pub use layer::{Compression, compress, tar_of};
pub use layout::{Damage, Layer, REF_NAME, TestLayout, digest_of, host_architecture, size_of};
pub use mount::{MountFailure, MountOptions, TestMount};
pub use need::{Need, has, skip};
pub use random::Random;
pub use real_image::{Flavour, RealImage, real_image, umoci_images};
pub use stack::{Attributes, Item, Seen, SeenKind, Sight, difference, items_of, tar_of_items};
pub use tarball::Tarball;
pub use tmpfs::Tmpfs;
pub use tool::{run, run_ok, sha256_of_file};
pub use tree::{Record, TestTree};
pub use verify::{findings, verify_layout};
