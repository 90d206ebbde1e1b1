//! The entries of a layer, read as its bytes are decoded.

use crate::layer::tree::{self, Tree};
use crate::oci::Digest;
use crate::tar::{self, Parser};

/// Turns decoded bytes into the tree of the layer's entries.
///
/// A tar that makes no sense ends this, and not the pass: its bytes may be right.
#[derive(Debug)]
pub(super) struct Entries {
    parser: Parser,
    builder: tree::Builder,
    failure: Option<tree::Error>,
}

impl Entries {
    /// At the start of a layer.
    pub(super) fn new(limits: &tar::Limits) -> Self {
        Self {
            parser: Parser::new(limits.clone()),
            builder: tree::Builder::new(limits),
            failure: None,
        }
    }

    /// Reads the next bytes of the tar.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        if self.failure.is_none() {
            let Self {
                parser, builder, ..
            } = self;
            self.failure = parser.feed(bytes, |entry| builder.insert(&entry)).err();
        }
    }

    /// The tree of all entries of the layer `digest`; what is odd about them is logged.
    ///
    /// # Errors
    /// What is wrong with the tar.
    pub(super) fn finish(self, digest: &Digest) -> Result<Tree, tree::Error> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let summary = self.parser.finish()?;
        for warning in summary.warnings.first() {
            log::warn!("{}: layer {digest}: {warning}", warning.code());
        }
        if summary.warnings.more() > 0 {
            let more = summary.warnings.more();
            log::warn!("layer {digest}: {more} more such oddities");
        }
        let duplicates = self.builder.duplicates();
        if duplicates > 0 {
            log::warn!("TAR_DUPLICATE: layer {digest}: {duplicates} entries replace earlier ones");
        }
        Ok(self.builder.finish())
    }
}
