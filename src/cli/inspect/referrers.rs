//! What is about an image.

use ocifs::vfs::node::Node;
use ocifs::vfs::{self, Child};
use serde_json::{Value, json};

use super::super::format::{self, Align};
use super::super::tree;
use super::{clean, row};

/// One manifest or index that is about the image.
#[derive(Debug)]
pub(super) struct Referrer {
    artifact_type: String,
    digest: String,
    size: Option<u64>,
    media_type: String,
}

impl Referrer {
    /// All of the image directory `image`, by artifact type and digest.
    ///
    /// # Errors
    /// What its directories answer.
    pub(super) fn list(image: &dyn Node) -> Result<Vec<Self>, vfs::Error> {
        let mut all = Vec::new();
        let types = image.find(b"referrers")?.map(|types| types.list());
        for directory in types.transpose()?.into_iter().flatten() {
            let artifact_type = tree::oci_xattr(&*directory.node, "artifact-type");
            let artifact_type = artifact_type.unwrap_or_default();
            let referrers = directory.node.list()?.into_iter();
            all.extend(referrers.map(|referrer| Self::of(&artifact_type, &referrer)));
        }
        Ok(all)
    }

    fn of(artifact_type: &str, referrer: &Child) -> Self {
        let said = |name| tree::oci_xattr(&*referrer.node, name);
        Self {
            artifact_type: artifact_type.to_owned(),
            digest: said("digest").unwrap_or_default(),
            size: said("size").and_then(|size| size.parse().ok()),
            media_type: said("media-type").unwrap_or_default(),
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "artifact_type": self.artifact_type,
            "digest": self.digest,
            "size": self.size,
            "media_type": self.media_type,
        })
    }
}

/// Puts their number and a table of them behind `text`; nothing if there are none.
pub(super) fn put(text: &mut String, referrers: &[Referrer]) {
    if referrers.is_empty() {
        return;
    }
    text.push('\n');
    row(text, "referrers", &referrers.len().to_string());
    let cells = |referrer: &Referrer| {
        [
            format!("  {}", clean(&referrer.artifact_type)),
            referrer.size.map_or_else(String::new, format::size),
            referrer.digest.clone(),
        ]
    };
    let rows: Vec<_> = referrers.iter().map(cells).collect();
    let table = format::table(&rows, [Align::Left, Align::Right, Align::Left]);
    text.push('\n');
    text.push_str(table.trim_end());
}
