//! The image that an artifact is about.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use ocifs::oci::{Descriptor, MediaType};

use super::error::Refusal;
use super::source::{self, CacheOptions, IndexMode, LayoutOptions, SourceOptions};
use super::{output, tree};

/// What is stored of the image `name` in the layout at `path`, or in one of the directories
/// `shared_blobs`: its index, else its manifest.
///
/// # Errors
/// That it is not there, or cannot be read.
pub(crate) fn find(
    path: &Path,
    shared_blobs: &[PathBuf],
    name: &OsStr,
) -> anyhow::Result<Descriptor> {
    let layout = LayoutOptions {
        platform: None,
        shared_blobs: shared_blobs.to_vec(),
    };
    let cache = CacheOptions {
        cache_dir: None,
        cache_size: 0,
    };
    let options = SourceOptions::without_files(&layout, &cache, IndexMode::Off);
    let source = source::open(path, &options, None)?;
    let shown = || output::printable(name.as_bytes());
    let (_, node) = tree::find_image(&source.vfs, name.as_bytes())?;
    let mut documents = ["index.json", "manifest.json"].into_iter();
    let document = documents.find_map(|name| node.find(name.as_bytes()).transpose());
    let no_image = || Refusal::not_found(format!("{} is no image", shown()));
    let document = document.ok_or_else(no_image)?.with_context(shown)?;
    document.open().with_context(shown)?;
    let said = |name| tree::oci_xattr(&*document, name);
    let descriptor = || {
        let digest = said("digest")?.parse().ok()?;
        let size = said("size")?.parse().ok()?;
        let media_type = MediaType::new(&said("media-type")?);
        Some(Descriptor::new(media_type, digest, size))
    };
    descriptor().ok_or_else(no_image)
}
