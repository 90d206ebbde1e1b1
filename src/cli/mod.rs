//! The command line: one file for each subcommand, with its arguments and one function.
//!
//! Parsing validates into values of the library; work begins after all of it succeeded.
//! Results go to standard output, everything else to standard error. What `ls`, `cat` and
//! `inspect` show comes from the very tree that a mount shows.

mod background;
mod cat;
mod commit;
mod compress;
mod daemon;
mod demo;
mod drop_box;
pub(crate) mod error;
mod export;
mod format;
mod images;
mod import;
mod index;
mod inherited;
mod inspect;
pub(crate) mod logging;
mod ls;
pub(crate) mod memory;
mod mount;
mod mountpoint;
mod mounts;
mod output;
mod problem;
mod progress;
mod refs;
mod sample;
mod shown;
mod signals;
mod source;
mod status;
mod subject;
mod tag;
mod tree;
mod unmount;
mod untag;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Parser, Subcommand};

/// Presents an OCI image layout as files.
#[derive(Debug, Parser)]
#[command(name = "ocifs", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options that every subcommand takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Say more on standard error; twice for every request (OCIFS_LOG goes before this).
    #[arg(short, long, action = clap::ArgAction::Count, global = true, display_order = 900)]
    pub(crate) verbose: u8,
    /// Say nothing but errors.
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        display_order = 901
    )]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mount a layout and return when it can be looked at.
    Mount(Box<mount::Arguments>),
    /// Take a mount down.
    #[command(visible_alias = "umount")]
    Unmount(unmount::Arguments),
    /// List what a mount would show, without mounting.
    Ls(ls::Arguments),
    /// Print a file that a mount would show, without mounting.
    Cat(cat::Arguments),
    /// Describe a layout or one of its images.
    Inspect(inspect::Arguments),
    /// Read layers ahead of time, so that no mount need wait for it; or show and drop what
    /// is kept of them.
    Index(index::Arguments),
    /// Bring things into a layout: images of another layout, archives, layers, manifests, or
    /// anything as an artifact.
    Import(import::Arguments),
    /// Write images as one archive, for docker, skopeo and others.
    Export(export::Arguments),
    /// Give an image of a layout one more name.
    Tag(tag::Arguments),
    /// Take a name away; blobs stay.
    Untag(untag::Arguments),
    /// Publish a session of a mount: what `mkdir` made in incoming/.
    Commit(commit::Arguments),
    /// Say what is mounted and how it fares.
    Status(status::Arguments),
    /// Build a sample layout, mount it and show a short tour.
    Demo(demo::Arguments),
}

/// Runs the command that was given.
///
/// # Errors
/// Whatever hindered it; [`error::report`] makes the message and the exit status.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let global = &arguments.global;
    ignore_file_size_signal()?;
    match arguments.command {
        Command::Mount(arguments) => mount::run(*arguments, global),
        Command::Unmount(arguments) => unmount::run(&arguments),
        Command::Ls(arguments) => ls::run(&arguments),
        Command::Cat(arguments) => cat::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Index(arguments) => index::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Tag(arguments) => tag::run(&arguments),
        Command::Untag(arguments) => untag::run(&arguments),
        Command::Commit(arguments) => commit::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
    }
}

/// A file of the cache that grows over the user's limit is not kept; without this the
/// process would be ended.
fn ignore_file_size_signal() -> std::io::Result<()> {
    let unheard = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, unheard).map(drop)
}
