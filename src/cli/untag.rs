//! `ocifs untag`: one name fewer.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{source, tag};

/// Arguments of `ocifs untag`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The layout: a directory.
    #[arg(value_name = "LAYOUT")]
    layout: PathBuf,
    /// The ref; NAME@DIGEST where several images have one name, the digest alone where one
    /// has no name.
    #[arg(value_name = "REF")]
    name: String,
    /// Print an object.
    #[arg(long)]
    json: bool,
}

/// Removes an entry from the index.
///
/// # Errors
/// If there is no such ref, or several images have the name.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let writer = source::open_writer(&arguments.layout, &[])?;
    let untagged = writer.untag(&arguments.name)?;
    if arguments.json {
        tag::print_json(&arguments.name, &untagged)?;
    }
    Ok(ExitCode::SUCCESS)
}
