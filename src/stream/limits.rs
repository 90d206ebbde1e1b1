//! What is accepted of a compressed stream.

/// Bounds on what decoding may cost; all can be lowered by tests and options.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most decoded bytes of one stream. Real layers stay below 20 GB; beyond this, a
    /// pass would keep a processor busy for minutes.
    pub decoded_size: u64,
    /// The most decoded bytes for each stored byte of the whole blob. Deflate cannot
    /// exceed 1,032, and real layers stay below 50; it is compared with the whole blob,
    /// so that a layer which begins with a large empty file is not taken for a bomb.
    pub ratio: u64,
    /// Decoded bytes up to which the ratio does not matter: so much costs nobody anything.
    pub ratio_floor: u64,
    /// The largest window of a zstd frame, in bytes: what `zstd -d` accepts unasked.
    pub zstd_window: u64,
    /// How many deflate blocks in a row may decode to nothing. Writers that flush often
    /// leave a few; a stream of nothing else costs time and brings no byte.
    pub idle_blocks: u64,
    /// How many gzip members in a row may decode to nothing.
    pub idle_members: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            decoded_size: 64 << 30,
            ratio: 1000,
            ratio_floor: 64 << 20,
            zstd_window: 128 << 20,
            idle_blocks: 1 << 16,
            idle_members: 1 << 20,
        }
    }
}
