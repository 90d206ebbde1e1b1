//! `ocifs index`: what a mount would find out about layers, found out ahead of time; and
//! what is kept of that.

mod build;
mod find;
mod kept;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ocifs::stream::Compression;

use super::error::Refusal;
use super::source::{CacheOptions, LayoutOptions};

/// Arguments of `ocifs index`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The layout: a directory or an archive.
    #[arg(value_name = "LAYOUT", required_unless_present_any = ["list", "drop"])]
    source: Option<PathBuf>,
    /// Whose layers: refs, or digests that a ref leads to; of an image index those of all
    /// platforms, unless one is named [default: all layers of the layout].
    #[arg(value_name = "REF")]
    names: Vec<OsString>,
    /// Show what is kept instead; with LAYOUT only of its layers, and which have nothing.
    #[arg(short, long, conflicts_with = "drop")]
    list: bool,
    /// Remove what is kept instead; with LAYOUT only of its layers.
    #[arg(long)]
    drop: bool,
    /// Print one object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    layout: LayoutOptions,
    #[command(flatten)]
    cache: CacheOptions,
}

/// Reads layers for the first time, or shows or removes what was kept of that.
///
/// # Errors
/// If the layout cannot be read, or nothing be kept.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Some(layout) = &arguments.source else {
        let options = &arguments.layout;
        if options.platform.is_some() || !options.shared_blobs.is_empty() {
            let message = "--platform and --shared-blobs say something about a LAYOUT; name it";
            return Err(Refusal::usage(message));
        }
        return kept::run(arguments, None);
    };
    if arguments.list || arguments.drop {
        kept::run(arguments, Some(layout))
    } else {
        build::run(arguments, layout)
    }
}

/// The word for a compression.
fn compression(compression: Compression) -> &'static str {
    match compression {
        Compression::Plain => "none",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    }
}
