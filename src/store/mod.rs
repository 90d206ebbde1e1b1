//! Where blobs and refs live.

pub mod blob;
pub mod cache_dir;
pub mod progress;
pub mod source;
pub mod verify;

pub use blob::{Blob, Identity};
pub use cache_dir::CacheDir;
pub use progress::Progress;
pub use source::ReadAt;
pub use verify::Verdicts;
