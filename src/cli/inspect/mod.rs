//! `ocifs inspect`: a layout, an image or a node in words.
//!
//! What is said comes from the nodes of the tree, so it holds for a mount too.

mod image;
mod image_text;
mod node;
mod referrers;
mod summary;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ocifs::vfs::FileKind;
use serde_json::Value;

use self::image::Image;
use self::summary::Summary;
use super::error::Refusal;
use super::problem::{self, Problem};
use super::source::{self, Source, SourceOptions};
use super::tree::{self, LastLink};
use super::{output, progress};

/// Arguments of `ocifs inspect`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The layout: a directory or an archive.
    #[arg(value_name = "LAYOUT")]
    source: PathBuf,
    /// An image: a ref, or a digest that a ref leads to [default: the layout as a whole].
    #[arg(value_name = "REF")]
    name: Option<OsString>,
    /// A file or directory of the image, as in a mount.
    path: Option<OsString>,
    /// Print one object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source_options: SourceOptions,
}

/// Describes a layout, an image, or a node of an image.
///
/// # Errors
/// If it cannot be read, or is not there.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let source = source::open(&arguments.source, &arguments.source_options, None)?;
    let Some(name) = &arguments.name else {
        let summary = Summary::of(&source)?;
        let (json, text) = (summary.json(), summary.text());
        return print(arguments, &json, &text, &summary.problems);
    };
    let (base, node) = tree::find_image(&source.vfs, name.as_bytes())?;
    if let Some(path) = &arguments.path {
        let path = tree::join(&base, path.as_bytes());
        let find = || tree::find(&source.vfs, &path, LastLink::Keep);
        let found = progress::of_passes(&source.views, find)?;
        return node::inspect(arguments, &source, &path, &*found);
    }
    if node.kind() != FileKind::Directory {
        return node::inspect(arguments, &source, &base, &*node);
    }
    if node.xattr_names().is_empty() {
        let shown = output::printable(&base);
        let message = format!("{shown} is no image; see `ocifs ls LAYOUT {shown}`");
        return Err(Refusal::not_found(message));
    }
    let image = Image::of(&source, &base, &*node)?;
    print(arguments, &image.json(), &image.text(), &image.problems)
}

/// Prints the one or the other form, with what is wrong; that decides the exit status.
fn print(
    arguments: &Arguments,
    json: &Value,
    text: &str,
    problems: &[Problem],
) -> anyhow::Result<ExitCode> {
    if arguments.json {
        let mut json = json.clone();
        json["problems"] = problems.iter().map(Problem::json).collect();
        output::json(&json)?;
    } else {
        output::line(&(text.to_owned() + &problem_lines(problems)))?;
    }
    Ok(problem::exit_code(problems))
}

fn problem_lines(problems: &[Problem]) -> String {
    let line = |problem: &Problem| {
        let (of, text) = (clean(&problem.of), clean(&problem.text));
        format!("\nproblem       {of}: {text} [{}]", problem.code)
    };
    problems.iter().map(line).collect()
}

/// A text of the layout for a terminal.
fn clean(text: &str) -> String {
    output::printable(text.as_bytes())
}

/// One line of a description.
fn row(text: &mut String, name: &str, value: &str) {
    text.push_str(&format!("\n{name:<13} {value}"));
}
