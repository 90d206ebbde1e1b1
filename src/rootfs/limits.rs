//! What merging the layers of an image may cost.

/// The most that merging the layers of an image may cost. What exceeds one of these is
/// [`Error::Limit`](super::Error::Limit).
///
/// They bound what layers cost together, each of which keeps to the
/// [limits of its tar](crate::tar::Limits): a manifest of a few kilobytes lists one layer
/// thousands of times, and symlinks of lower layers make long paths of short ones.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most files and directories of all layers. The largest real images have some two
    /// million; each costs about a hundred bytes of memory.
    pub entries: u64,
    /// The most directories on a path, as in one layer
    /// ([`tar::Limits::depth`](crate::tar::Limits::depth)): entries that symlinks send
    /// elsewhere may get deeper than their own paths.
    pub depth: u64,
    /// The most bytes of the paths that symlinks of lower layers send elsewhere, and of
    /// those where they lead, in one round. Real images have a few hundred bytes.
    pub path_bytes: u64,
    /// How often symlinks in lower layers may send entries elsewhere, and those again. Each
    /// round moves all that it finds; images need one or two.
    pub rounds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 16_000_000,
            depth: 4_096,
            path_bytes: 8 << 20,
            rounds: 64,
        }
    }
}
