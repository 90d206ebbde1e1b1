//! `--compress`: how trees are packed.

use ocifs::oci::media_type::LayerCompression;

/// How the layer of a packed tree is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Compress {
    /// By gzip: every tool can read it.
    Gzip,
    /// By zstd: smaller and faster, but unknown to older tools.
    Zstd,
    /// Not at all: the blob is the tar.
    None,
}

impl Compress {
    /// The word for it, in options and attributes.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::None => "none",
        }
    }
}

impl From<Compress> for LayerCompression {
    fn from(compress: Compress) -> Self {
        match compress {
            Compress::Gzip => Self::Gzip,
            Compress::Zstd => Self::Zstd,
            Compress::None => Self::None,
        }
    }
}
