//! `ocifs export`: images as one archive that others take.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::{Args, ValueEnum};
use ocifs::export::{self, Format, Plan, Root};
use ocifs::oci::Descriptor;
use ocifs::vfs;
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use tempfile::NamedTempFile;

use super::error::Refusal;
use super::output::{self, Flow, printable};
use super::progress::Progress;
use super::source::{self, CacheOptions, IndexMode, LayoutOptions, Source, SourceOptions};
use super::{format, tree};

/// What a file that is not whole yet is called: it is hidden, and so not taken for one.
const UNFINISHED: &str = ".ocifs-export-";

/// Arguments of `ocifs export`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The layout: a directory or an archive.
    #[arg(value_name = "LAYOUT")]
    source: PathBuf,
    /// Images: refs, or digests that refs lead to.
    #[arg(value_name = "REF", required = true)]
    names: Vec<OsString>,
    /// The archive that is written or replaced; `-` for standard output.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What is written: a layout in a tar, or what `docker load` takes (one platform of each
    /// image).
    #[arg(long, value_name = "FORMAT", default_value = "oci")]
    format: FormatName,
    /// Print one object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    layout: LayoutOptions,
}

/// A format of archives, as it is named here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatName {
    /// An oci-archive.
    #[value(alias = "oci-archive")]
    Oci,
    /// A docker-archive.
    #[value(alias = "docker-archive")]
    Docker,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Oci => Self::Oci,
            FormatName::Docker => Self::Docker,
        }
    }
}

/// Writes one archive of all images that are named.
///
/// # Errors
/// If an image is not there or not right, or the archive cannot be written; then no file is
/// left behind.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let to_stdout = arguments.output.as_os_str() == "-";
    if to_stdout {
        refuse_stdout(arguments)?;
    }
    // Nothing is learned of layers.
    let cache = CacheOptions {
        cache_dir: None,
        cache_size: 0,
    };
    let options = SourceOptions::without_files(&arguments.layout, &cache, IndexMode::Off);
    let source = source::open(&arguments.source, &options, None)?;
    let roots: Vec<Root> = arguments
        .names
        .iter()
        .map(|name| root(&source, arguments, name.as_bytes()))
        .collect::<Result<_, _>>()?;
    let plan = Plan::new(&*source.blobs, arguments.format.into(), &roots);
    let plan = plan.map_err(vfs::Error::from)?;
    for descriptor in plan.left_out() {
        log::warn!(
            "{} is not whole in the layout and left out",
            descriptor.digest
        );
    }
    let stop = stop_flag()?;
    if to_stdout {
        return write_stdout(&source, &plan, &stop);
    }
    write_file(&source, &plan, &arguments.output, &stop)?;
    if arguments.json {
        output::json(&json_of(arguments, &roots, &plan))?;
    } else {
        print(arguments, &roots, &plan)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn refuse_stdout(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.json {
        let text = "--json has no place beside an archive on standard output";
        return Err(Refusal::usage(text));
    }
    if io::stdout().is_terminal() {
        let text = "an archive is not written to a terminal; name a file with -o";
        return Err(Refusal::usage(text));
    }
    Ok(())
}

/// What is exported of the image that the user calls `name`.
fn root(source: &Source, arguments: &Arguments, name: &[u8]) -> anyhow::Result<Root> {
    let (path, node) = tree::find_image(&source.vfs, name)?;
    let root = node.exported().ok_or_else(|| {
        let shown = printable(&path);
        Refusal::not_found(format!(
            "{shown} is no image; see `ocifs ls LAYOUT {shown}`"
        ))
    })?;
    if arguments.layout.platform.is_none() && arguments.format == FormatName::Oci {
        return Ok(root);
    }
    let Some(image) = root.image.clone() else {
        // Its own verdict goes before.
        for document in [&b"index.json"[..], b"manifest.json"] {
            if let Some(document) = node.find(document)? {
                document.open().with_context(|| printable(&path))?;
            }
        }
        let text = format!("{} has no image for this platform", printable(&path));
        return Err(Refusal::not_found(text));
    };
    Ok(Root {
        descriptors: vec![image],
        ..root
    })
}

/// Becomes true when the command is told to end; told again, it ends at once.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_default(signal, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// The archive is all that is printed.
fn write_stdout(source: &Source, plan: &Plan, stop: &AtomicBool) -> anyhow::Result<ExitCode> {
    let written = write(source, plan, &mut Printed, stop);
    let has_gone = |error: &anyhow::Error| {
        let mut causes = error.chain().filter_map(|cause| cause.downcast_ref());
        causes.any(|cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe)
    };
    match written {
        Err(error) if !has_gone(&error) => Err(error),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Standard output; that nobody reads it any more is an error here, to end the copying.
struct Printed;

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match output::bytes(bytes)? {
            Flow::Continue => Ok(bytes.len()),
            Flow::Stop => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the archive beside its place, and puts it there when it is whole and on disk.
/// What is no regular file, a pipe say, is written to as it is.
fn write_file(source: &Source, plan: &Plan, path: &Path, stop: &AtomicBool) -> anyhow::Result<()> {
    let shown = || format!("cannot write {}", path.display());
    let is_special = |metadata: fs::Metadata| !metadata.is_file() && !metadata.is_dir();
    if fs::metadata(path).is_ok_and(is_special) {
        let mut file = File::options().write(true).open(path).with_context(shown)?;
        return write(source, plan, &mut file, stop);
    }
    // A link stays, and leads to the archive.
    let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let parent = place
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    let mut file = temporary(directory).with_context(shown)?;
    write(source, plan, file.as_file_mut(), stop)?;
    file.as_file().sync_all().with_context(shown)?;
    file.persist(&place)
        .map_err(|error| error.error)
        .with_context(shown)?;
    let directory = File::open(directory).and_then(|directory| directory.sync_all());
    directory.with_context(shown)
}

/// A file that goes if it is not kept, with the mode of any new file.
fn temporary(directory: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(UNFINISHED).suffix(".tmp");
    builder
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)
}

fn write(
    source: &Source,
    plan: &Plan,
    out: &mut dyn Write,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let mut watched = Watched {
        out,
        stop,
        progress: Progress::new(true),
        done: 0,
        total: plan.size(),
    };
    let copied = export::copy(plan, &*source.blobs, &mut watched);
    if stop.load(Ordering::Relaxed) {
        return Err(Refusal::failure("interrupted; nothing was exported"));
    }
    copied.map_err(|error| match error {
        // The system's own words are kept.
        export::Error::Write(source) => {
            anyhow::Error::from(source).context("cannot write the archive")
        }
        other => vfs::Error::from(other).into(),
    })
}

/// Passes bytes on, shows how many, and ends when it is told to.
struct Watched<'a> {
    out: &'a mut dyn Write,
    stop: &'a AtomicBool,
    progress: Progress,
    done: u64,
    total: u64,
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("interrupted"));
        }
        let len = self.out.write(bytes)?;
        self.done += len as u64;
        self.progress.show("exporting", self.done, self.total);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The name of an image in the archive.
fn name_of(root: &Root) -> Option<&str> {
    let names = &root.names;
    let name = names.containerd_name.as_ref().or(names.ref_name.as_ref());
    name.map(String::as_str)
}

/// What of an image is in the archive.
fn exported<'a>(arguments: &Arguments, root: &'a Root) -> &'a [Descriptor] {
    match arguments.format {
        FormatName::Oci => &root.descriptors,
        FormatName::Docker => root.image.as_slice(),
    }
}

/// One line for each image, and one for all.
fn print(arguments: &Arguments, roots: &[Root], plan: &Plan) -> io::Result<()> {
    for root in roots {
        for descriptor in exported(arguments, root) {
            let name = name_of(root).unwrap_or(descriptor.digest.as_str());
            output::line(&format!(
                "{}  {}",
                printable(name.as_bytes()),
                descriptor.digest
            ))?;
        }
    }
    let (name, size) = (
        Format::from(arguments.format).name(),
        format::size(plan.size()),
    );
    let path = printable(arguments.output.as_os_str().as_bytes());
    let blobs = plan.blobs().len();
    output::line(&format!("{path}: {name}, {blobs} blobs, {size}")).map(drop)
}

fn json_of(arguments: &Arguments, roots: &[Root], plan: &Plan) -> Value {
    let image = |root: &Root| {
        let name = name_of(root).map(str::to_owned);
        let of = move |descriptor: &Descriptor| {
            json!({
                "ref": name,
                "digest": descriptor.digest.as_str(),
                "mediaType": descriptor.media_type.as_str(),
                "size": descriptor.size,
            })
        };
        exported(arguments, root).iter().map(of).collect::<Vec<_>>()
    };
    let blob = |descriptor: &Descriptor| json!({"digest": descriptor.digest.as_str(), "size": descriptor.size});
    let left_out = plan
        .left_out()
        .iter()
        .map(|left_out| left_out.digest.as_str());
    json!({
        "file": arguments.output.to_string_lossy(),
        "format": Format::from(arguments.format).name(),
        "size": plan.size(),
        "images": roots.iter().flat_map(image).collect::<Vec<_>>(),
        "blobs": plan.blobs().iter().map(blob).collect::<Vec<_>>(),
        "leftOut": left_out.collect::<Vec<_>>(),
    })
}
