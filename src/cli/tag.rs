//! `ocifs tag`: one more name for an image.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ocifs::oci::RefName;
use ocifs::store::layout::Tagged;
use ocifs::store::layout::refs::Collision;
use serde_json::json;

use super::{output, source};

/// Arguments of `ocifs tag`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The layout: a directory.
    #[arg(value_name = "LAYOUT")]
    layout: PathBuf,
    /// The image: a ref, NAME@DIGEST where several have one name, or the digest of anything
    /// that index.json leads to.
    #[arg(value_name = "EXISTING")]
    existing: String,
    /// The name that it gets.
    #[arg(value_name = "NEW")]
    new: RefName,
    /// Take the name from the image that has it.
    #[arg(long)]
    replace: bool,
    /// Print an object.
    #[arg(long)]
    json: bool,
    /// More directories to read blobs from, as ALGORITHM/HEX (repeatable).
    #[arg(long, value_name = "DIR")]
    shared_blobs: Vec<PathBuf>,
}

/// Adds an entry to the index.
///
/// # Errors
/// If there is no such image, or another one has the name.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let collision = if arguments.replace {
        Collision::Replace
    } else {
        Collision::Refuse
    };
    let writer = source::open_writer(&arguments.layout, &arguments.shared_blobs)?;
    let tagged = writer.tag(&arguments.existing, &arguments.new, collision)?;
    if arguments.json {
        print_json(arguments.new.as_str(), &tagged)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what was done with a ref.
///
/// # Errors
/// If standard output cannot be written.
pub(crate) fn print_json(name: &str, tagged: &Tagged) -> std::io::Result<()> {
    let object = json!({
        "ref": name,
        "digests": tagged.digests,
        "changed": tagged.is_changed,
    });
    output::json(&object).map(drop)
}
