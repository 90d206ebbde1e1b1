//! What merging the layers of an image may cost.

/// The most that merging the layers of an image may cost. What exceeds one of these is
/// [`Error::Limit`](super::Error::Limit).
///
/// They bound what layers cost together, each of which keeps to the
/// [limits of its tar](crate::tar::Limits): a manifest of a few kilobytes lists one layer
/// thousands of times, and symlinks of lower layers make long paths of short ones.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most names, and files and directories, of all layers together. The largest real
    /// images have some two million of both; each costs some fifty bytes of memory. A file
    /// may have millions of names.
    pub entries: u64,
    /// The most bytes of memory that the trees of all layers take, each once. The largest
    /// real images have some 300 MiB; a megabyte of gzip may bring a thousandfold.
    pub weight: u64,
    /// The most directories on a path, as in one layer
    /// ([`tar::Limits::depth`](crate::tar::Limits::depth)): entries that symlinks send
    /// elsewhere may get deeper than their own paths.
    pub depth: u64,
    /// The most bytes of the paths that symlinks of lower layers send elsewhere, and of
    /// those where they lead, in one round. Real images have a few hundred bytes.
    pub path_bytes: u64,
    /// The most steps of looking paths up in lower layers, for hard links and where symlinks
    /// send entries: one for each name on a path, and for each layer in which that is looked
    /// up, up to six in large directories; one for each 256 bytes that are compared or
    /// copied; and, from the second round on, one for each entry of all layers. This many
    /// take up to ten seconds; real images need some thousand.
    pub steps: u64,
    /// How often symlinks in lower layers may send entries elsewhere, and those again. Each
    /// round moves all that it finds; images need one or two.
    pub rounds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 16_000_000,
            weight: 1 << 30,
            depth: 4_096,
            path_bytes: 8 << 20,
            steps: 1 << 25,
            rounds: 64,
        }
    }
}
