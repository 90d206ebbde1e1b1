//! `ocifs demo`: a sample layout, mounted, and what ordinary commands show of it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context;
use clap::Args;
use ocifs::fuse::Unmount;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::error::Refusal;
use super::output::{self, Flow};
use super::{sample, unmount};

/// How many lines of a command's output are shown.
const MAX_LINES: usize = 8;

/// How many characters of a line are shown.
const MAX_WIDTH: usize = 100;

/// What is shown: why, and a command for the shell. `$app` is the image.
const TOUR: [(&str, &str); 8] = [
    ("each ref is a directory", "ls -CF . example.org/tools"),
    (
        "the top of a multi-platform image shows this machine's",
        "ls -CF $app $app/platforms",
    ),
    (
        "manifest and config are the very bytes",
        "cut -c 1-90 $app/config.json",
    ),
    (
        "a layer is there uncompressed, and as it is stored",
        "ls -gG $app/layers",
    ),
    (
        "nothing is unpacked: the tar is decoded where it is read",
        "tar -tvf $app/layers/01.tar",
    ),
    (
        "the digest of a tar is what the image's config says",
        "sha256sum < $app/layers/00.tar",
    ),
    (
        "attributes say what a file is",
        "getfattr --only-values -n user.oci.diff-id $app/layers/00.tar; echo",
    ),
    (
        "other tools read the layout through the mount",
        "skopeo inspect --format '{{.Digest}} {{.Architecture}}' oci:.ocifs/layout:base:latest",
    ),
];

/// Arguments of `ocifs demo`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// End after the tour, instead of waiting for Ctrl-C.
    #[arg(long)]
    exit: bool,
    /// Write the layout to this directory, which must not exist or be empty, and keep it.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Shows the tour. Mount and temporary directory go in any case.
///
/// # Errors
/// If the sample cannot be written, mounted or unmounted.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    // Before anything is made that would stay behind.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let directory = tempfile::Builder::new().prefix("ocifs-demo-").tempdir()?;
    let layout = match &arguments.keep {
        Some(path) => path.clone(),
        None => directory.path().join("layout"),
    };
    check_empty(&layout)?;
    sample::write(&layout)?;
    let mountpoint = directory.path().join("mnt");
    std::fs::create_dir(&mountpoint)?;
    let mount = match DemoMount::new(&layout, &mountpoint, &directory.path().join("cache"))? {
        Ok(mount) => mount,
        Err(code) => return Ok(code),
    };
    let flow = tour(&layout, &mountpoint, &mut signals)?;
    if flow == Flow::Continue && !arguments.exit {
        output::line("\nLook around in another terminal; Ctrl-C ends the mount.")?;
        signals.forever().next();
    }
    mount.end()?;
    if arguments.keep.is_some() {
        let shown = layout.display();
        output::line(&format!(
            "\nThe layout stays: ocifs mount {shown} MOUNTPOINT"
        ))?;
    }
    directory.close()?;
    Ok(ExitCode::SUCCESS)
}

/// Nothing that is there already is written over.
fn check_empty(path: &Path) -> anyhow::Result<()> {
    let mut entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    if entries.next().is_none() {
        return Ok(());
    }
    let message = format!("{} is not empty; name a new directory", path.display());
    Err(Refusal::usage(message))
}

/// A mount that is taken down when it is dropped, whatever happens before.
struct DemoMount<'a> {
    mountpoint: Option<&'a Path>,
}

impl<'a> DemoMount<'a> {
    /// Mounts by this program's own `mount`; gives its exit status if it cannot, after
    /// it has said why.
    fn new(
        layout: &Path,
        mountpoint: &'a Path,
        cache: &Path,
    ) -> anyhow::Result<Result<Self, ExitCode>> {
        let program = std::env::current_exe().context("cannot find the program itself")?;
        let status = Command::new(program)
            .arg("mount")
            .arg("--cache-dir")
            .args([cache, layout, mountpoint])
            .stdin(Stdio::null())
            .status()
            .context("cannot start the daemon")?;
        let mount = Self {
            mountpoint: Some(mountpoint),
        };
        if status.success() {
            return Ok(Ok(mount));
        }
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        Ok(Err(ExitCode::from(code.unwrap_or(4))))
    }

    fn end(mut self) -> anyhow::Result<()> {
        match self.mountpoint.take() {
            Some(mountpoint) => unmount::unmount(mountpoint, Unmount::Detach),
            None => Ok(()),
        }
    }
}

impl Drop for DemoMount<'_> {
    fn drop(&mut self) {
        if let Some(mountpoint) = self.mountpoint.take()
            && let Err(error) = unmount::unmount(mountpoint, Unmount::Detach)
        {
            log::debug!("{error:#}");
        }
    }
}

/// Runs the commands of the tour and shows what they print; stops when a signal comes, or
/// nobody reads on.
fn tour(layout: &Path, mountpoint: &Path, signals: &mut Signals) -> anyhow::Result<Flow> {
    let (layout, shown) = (layout.display(), mountpoint.display());
    let image = sample::IMAGE;
    output::line(&format!(
        "$ ocifs mount {layout} {shown}\n$ cd {shown}; app={image}"
    ))?;
    for (why, command) in TOUR {
        if signals.pending().next().is_some() {
            return Ok(Flow::Stop);
        }
        let program = command.split(' ').next().unwrap_or_default();
        if !is_installed(program) {
            continue;
        }
        let said = shell(command, mountpoint)?;
        if output::line(&format!("\n# {why}\n$ {command}\n{said}"))? == Flow::Stop {
            return Ok(Flow::Stop);
        }
    }
    Ok(Flow::Continue)
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// What a command prints, cut to what is pleasant to read.
fn shell(command: &str, directory: &Path) -> anyhow::Result<String> {
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(directory)
        .envs([("app", sample::IMAGE), ("LC_ALL", "C"), ("TZ", "UTC")])
        // ls fills with blanks: a tab is no printable character.
        .env("TABSIZE", "0")
        .stdin(Stdio::null())
        .output()
        .context("cannot start sh")?;
    let said = [output.stdout, output.stderr].concat();
    Ok(cut(&String::from_utf8_lossy(&said)))
}

/// The first lines of a text, and of each as much as fits.
fn cut(text: &str) -> String {
    let text = text.trim_end();
    let mut kept = String::new();
    for line in text.lines().take(MAX_LINES) {
        let line = output::printable(line.as_bytes());
        let end = line.char_indices().nth(MAX_WIDTH).map(|(at, _)| at);
        let (line, more) = end.map_or((&*line, ""), |end| (&line[..end], "…"));
        kept.extend([line, more, "\n"]);
    }
    if text.lines().count() > MAX_LINES {
        kept.push_str("…\n");
    }
    kept.pop();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_output_is_cut() {
        let wide = "x".repeat(MAX_WIDTH + 1);
        let cut_wide = format!("{}…", "x".repeat(MAX_WIDTH));
        let many = "y\n".repeat(MAX_LINES + 1);
        let cut_many = format!("{}…", "y\n".repeat(MAX_LINES));
        let rows = [
            ("nothing", "", ""),
            ("short", "a\nb\n\n", "a\nb"),
            ("wide", &wide, &cut_wide),
            ("many", &many, &cut_many),
            ("control", "a\x1bb", "a\\u{1b}b"),
        ];
        for (name, text, expected) in rows {
            assert_eq!(cut(text), expected, "{name}");
        }
    }
}
