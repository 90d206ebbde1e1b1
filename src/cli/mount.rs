//! `ocifs mount`: the daemon.
//!
//! Without `--foreground` a copy of the command goes on in a session of its own, and the
//! command returns when that one says on its standard output that the mount answers.
//! Until then the daemon's messages go to the same standard error.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use ocifs::fuse::{Access, Mount, MountOptions};
use ocifs::store::layout::Committer;
use ocifs::store::layout::refs::Collision;
use ocifs::store::{View, Watch};
use ocifs::vfs::dropbox::DropBox;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::background::{self, Child, Side};
use super::compress::Compress;
use super::drop_box;
use super::error::Refusal;
use super::inherited::Inherited;
use super::shown::Shown;
use super::signals::EndSignals;
use super::source::{self, IndexMode, Mounted, Source, SourceOptions};
use super::{Global, logging, mountpoint, output, refs};

/// What the daemon prints for the command that started it.
const READY: &str = "ready";

/// Where the daemon is, seen from whoever gave the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ground {
    /// It is the command.
    Front,
    /// Behind the command, which waits for its word; then it lets go of the terminal.
    Back,
}

/// How long a mount that was told to end may go on answering.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked for drops with which nobody goes on.
const LOOK_AFTER: Duration = Duration::from_secs(60);

/// Arguments of `ocifs mount`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The layout: a directory, or an archive (oci-archive or docker-archive, plain, gzip or
    /// zstd), which is shown read-only.
    source: PathBuf,
    /// Where to show it: an empty directory.
    mountpoint: PathBuf,
    /// Stay in front until the mount ends.
    #[arg(short, long)]
    foreground: bool,
    /// Accept no writing at all; then what was walked through once is walked through again
    /// at the speed of a disk.
    #[arg(long)]
    read_only: bool,
    /// Let refs be replaced and removed.
    #[arg(long, conflicts_with = "read_only")]
    pub(super) allow_delete: bool,
    /// Make an empty layout where the directory is missing.
    #[arg(long)]
    create: bool,
    /// Let other users look at the mount; the kernel then checks permissions by mode.
    #[arg(long)]
    pub(super) allow_other: bool,
    /// How trees are packed that are published from incoming/.
    #[arg(
        long,
        value_name = "HOW",
        default_value = "gzip",
        conflicts_with = "read_only"
    )]
    pub(super) compress: Compress,
    /// Copy what is published and shared directories have into the layout, so that it needs
    /// them no more.
    #[arg(long, conflicts_with = "read_only", requires = "shared_blobs")]
    copy_shared: bool,
    /// Usual mount options, separated by commas (repeatable).
    #[arg(short = 'o', value_name = "OPTION", value_delimiter = ',')]
    options: Vec<String>,
    /// Append the daemon's messages to this file, from when the mount answers.
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// How many threads answer requests [default: twice the processors, 8 at least].
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    #[command(flatten)]
    source_options: SourceOptions,
}

/// Mounts a layout.
///
/// # Errors
/// What hinders it.
pub(crate) fn run(mut arguments: Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    // Before anything is opened here.
    let inherited = Inherited::now();
    if arguments.create {
        ocifs::store::layout::init(&arguments.source)?;
    }
    arguments.allow_other |= arguments
        .options
        .iter()
        .any(|option| option == "allow_other");
    arguments.options.retain(|option| option != "allow_other");
    arguments.read_only |= arguments.options.iter().any(|option| option == "ro");
    if source::is_file(&arguments.source) {
        if arguments.allow_delete {
            let message = "an archive is shown read-only: leave out --allow-delete";
            return Err(Refusal::usage(message));
        }
        if arguments.copy_shared {
            let message = "an archive is shown read-only: leave out --copy-shared";
            return Err(Refusal::usage(message));
        }
        arguments.read_only = true;
    }
    let ground = match arguments.foreground {
        true => Ground::Front,
        false => match background::fork().context("cannot start the daemon")? {
            Side::Parent(daemon) => return wait_for(&daemon, &arguments, global),
            Side::Child => Ground::Back,
        },
    };
    arguments.source = source::locate(&arguments.source)?;
    let mountpoint =
        mountpoint::check(&arguments.mountpoint, &arguments.source, &arguments.options)?;
    arguments.options.retain(|option| option != "nonempty");
    serve(&arguments, mountpoint, (ground, &inherited))
}

/// Waits for the daemon's word.
fn wait_for(daemon: &Child, arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    if daemon.word()? == READY {
        if global.verbose > 0 {
            let (source, mountpoint) = (&arguments.source, &arguments.mountpoint);
            output::note(&format!(
                "{} is mounted on {}",
                source.display(),
                mountpoint.display()
            ));
        }
        return Ok(ExitCode::SUCCESS);
    }
    // It has said on standard error what is wrong.
    match daemon.wait()? {
        Some(0) => Err(Refusal::failure("the daemon ended early")),
        Some(code) => Ok(ExitCode::from(code)),
        None => Err(Refusal::failure("a signal ended the daemon")),
    }
}

fn serve(
    arguments: &Arguments,
    mountpoint: PathBuf,
    (ground, inherited): (Ground, &Inherited),
) -> anyhow::Result<ExitCode> {
    // First of all: a signal that comes early must not leave a mount behind.
    let signals = EndSignals::take()?;
    let outlet = Outlet {
        messages: messages(arguments.log_file.as_deref())?,
        is_log_file: arguments.log_file.is_some(),
        ground,
        inherited,
    };
    raise_open_files();
    let source = source::open(
        &arguments.source,
        &arguments.source_options,
        Some(Mounted {
            mountpoint: mountpoint.clone(),
            is_writable: !arguments.read_only,
        }),
    )?;
    let shown = Shown::new(&source);
    let collision = match arguments.allow_delete {
        true => Collision::Replace,
        false => Collision::Refuse,
    };
    let committer = match arguments.read_only {
        true => None,
        false => Some(refs::accept(
            &source,
            &shown,
            collision,
            source::sharing(arguments.copy_shared),
            &mountpoint,
        )?),
    };
    let drop_box = committer
        .as_ref()
        .map(|committer| drop_box::place(&source, committer, collision, arguments));
    let options = MountOptions {
        source: arguments.source.to_string_lossy().into_owned(),
        allow_other: arguments.allow_other,
        flags: arguments.options.clone(),
        access: match arguments.read_only {
            true => Access::ReadOnly,
            false => Access::ReadWrite,
        },
        threads: arguments.threads,
    };
    signals.hold();
    let mount = Mount::new(source.vfs.clone(), &mountpoint, &options)?;
    // From here on there is a mount, which whatever goes wrong must not leave behind.
    let daemon = Daemon {
        source: &source,
        mount: &mount,
        shown: &shown,
        committer: committer.as_ref(),
        drop_box: drop_box.as_deref(),
    };
    shown.tell(mount.notifier());
    let result = match daemon.attend(arguments, &signals, &outlet) {
        Ok(Ended::FromOutside(Ok(()))) => Ok(()),
        Ok(Ended::FromOutside(Err(error))) => daemon.end().and(Err(error)),
        Ok(Ended::BySignal) => daemon.end(),
        Err(error) => daemon.end().and(Err(error)),
    };
    log::info!("{} is unmounted", mountpoint.display());
    result.map(|()| ExitCode::SUCCESS)
}

/// Lets the daemon have as many open files as it may: it has one for each file that is open
/// in the mount and for each layer that is being read, and many programs leave the soft
/// limit at 1,024 for the sake of select(2).
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::debug!("the limit of open files stays: {error}");
    }
}

/// How a mount ended, or why it is to be ended.
enum Ended {
    FromOutside(anyhow::Result<()>),
    BySignal,
}

/// A mount that answers, and what stands behind it.
struct Daemon<'a> {
    source: &'a Source,
    mount: &'a Mount,
    shown: &'a Arc<Shown>,
    committer: Option<&'a Arc<Committer>>,
    drop_box: Option<&'a DropBox>,
}

impl Daemon<'_> {
    /// Does what is to be done while the mount answers, until it ends or shall end.
    fn attend(
        &self,
        arguments: &Arguments,
        signals: &EndSignals,
        outlet: &Outlet<'_>,
    ) -> anyhow::Result<Ended> {
        logging::become_daemon();
        let _watch = self.watch()?;
        let (shown, mountpoint) = (&arguments.source, &arguments.mountpoint);
        log::info!("{} is mounted on {}", shown.display(), mountpoint.display());
        outlet.announce()?;
        if arguments.source_options.index == IndexMode::Eager {
            let views = self.source.views.clone();
            let index = move || views.index_all();
            std::thread::Builder::new()
                .name("eager".into())
                .spawn(index)?;
        }
        Ok(self
            .wait(signals)
            .map_or(Ended::BySignal, Ended::FromOutside))
    }

    /// Waits until the mount is ended from outside, or a signal comes (`None`).
    fn wait(&self, signals: &EndSignals) -> Option<anyhow::Result<()>> {
        let mut looked = Instant::now();
        loop {
            if signals.wait(Duration::from_millis(100)) {
                return None;
            }
            if let Some(result) = self.mount.wait(Duration::ZERO) {
                return Some(result.context("the mount ended"));
            }
            if looked.elapsed() >= LOOK_AFTER {
                looked = Instant::now();
                self.drop_box.inspect(|drop_box| drop_box.expire(looked));
            }
        }
    }

    /// Lets those who commit finish, takes the mount out of the tree, and lets those who
    /// have files open finish.
    fn end(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let under_way = self
            .drop_box
            .map_or(0, |drop_box| drop_box.close(END_PATIENCE));
        if under_way > 0 {
            log::warn!("{under_way} commits do not come to an end, and are left to themselves");
        }
        self.source.views.layers().shut_down();
        self.mount.detach()?;
        let patience = END_PATIENCE.saturating_sub(began.elapsed());
        if self.mount.wait(patience).is_none() {
            log::warn!("files are still open in the mount; their readers get errors from now on");
        }
        Ok(())
    }

    /// Follows changes of the index for as long as the result is kept. An archive that is
    /// open has none.
    fn watch(&self) -> anyhow::Result<Option<Watch>> {
        let Some(layout) = self.source.directory.clone() else {
            return Ok(None);
        };
        let seen = self.source.views.snapshot().view().as_ref().clone();
        let look: Look = match self.committer.cloned() {
            Some(committer) => Box::new(move || Ok(committer.observe()?)),
            None => {
                let (layout, shown) = (Arc::clone(&layout), Arc::clone(self.shown));
                let mut last = seen.clone();
                Box::new(move || {
                    last = layout.read_index_after(Some(&last))?;
                    shown.show(last.clone());
                    Ok(last.clone())
                })
            }
        };
        let watch = Watch::spawn(layout, &seen, look);
        watch.context("cannot watch the layout").map(Some)
    }
}

/// Looks at the index, and shows it.
type Look = Box<dyn FnMut() -> anyhow::Result<View> + Send>;

/// Where the messages of a daemon in the background go. Opened before there is a mount,
/// and before the working directory is left by which the user named the file.
fn messages(log_file: Option<&Path>) -> anyhow::Result<File> {
    let mut options = File::options();
    let (path, opened) = match log_file {
        Some(path) => (path, options.create(true).append(true).open(path)),
        None => {
            let null = Path::new("/dev/null");
            (null, options.write(true).open(null))
        }
    };
    opened.with_context(|| format!("cannot write messages to {}", path.display()))
}

/// What a daemon says its word with, and what it keeps of those who started it.
struct Outlet<'a> {
    messages: File,
    is_log_file: bool,
    ground: Ground,
    inherited: &'a Inherited,
}

impl Outlet<'_> {
    /// Tells whoever started this that the mount answers, and lets go of the terminal and
    /// of everything else that came from there.
    fn announce(&self) -> anyhow::Result<()> {
        let is_behind = self.ground == Ground::Back;
        if is_behind {
            if let Err(error) = rustix::process::setsid() {
                log::debug!("no session of its own: {error}");
            }
            std::env::set_current_dir("/")?;
            if output::line(READY)? == output::Flow::Stop {
                anyhow::bail!("the command that wanted the mount has ended");
            }
            rustix::stdio::dup2_stdout(&self.messages)?;
            // Only now: the log file may have been named by one of them.
            self.inherited.close();
        }
        if is_behind || self.is_log_file {
            rustix::stdio::dup2_stderr(&self.messages)?;
        }
        Ok(())
    }
}
