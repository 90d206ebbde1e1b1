//! Where blobs and refs live: a layout directory, blobs that are verified once, durable
//! writing of both, and the notice of outside changes.

pub mod blob;
pub mod cache_dir;
pub mod disk;
pub mod layout;
pub mod lock;
pub mod progress;
pub mod source;
pub mod verify;
pub mod watch;

pub use blob::{Blob, Identity};
pub use cache_dir::CacheDir;
pub use layout::{Layout, LayoutWriter, View};
pub use progress::Progress;
pub use source::{BlobSource, ReadAt};
pub use verify::Verdicts;
pub use watch::Watch;
