//! `ocifs import`: files become images of a layout, as in the drop box of a mount, and images
//! of other layouts are copied.

mod docker;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};

use anyhow::Context;
use clap::Args;
use ocifs::ingest::{
    Attachment, BlobReport, Image, Ingest, IngestOptions, Name, Report, UNKNOWN_ARTIFACT,
};
use ocifs::oci::{MediaType, RefName};
use ocifs::store::LayoutWriter;
use ocifs::store::layout::refs::Collision;
use ocifs::store::layout::writer::SealedBlob;
use ocifs::store::source::FileSource;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use super::error::Refusal;
use super::images::Images;
use super::output::{self, printable};
use super::problem::{self, Problem};
use super::progress::{Progress, TICK};
use super::{format, source, subject};

/// How many bytes of standard input are read at a time.
const CHUNK: usize = 1 << 20;

/// Arguments of `ocifs import`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The layout: a directory.
    #[arg(value_name = "LAYOUT", required_unless_present = "list")]
    layout: Option<PathBuf>,
    /// What to bring in: archives of `docker save` or of a layout, tars of single layers,
    /// manifests, or any other file, which becomes an artifact; `-` for standard input. Of a
    /// directory that is a layout, all images; of DIR:REF one, REF being a ref or the digest
    /// of anything that its index.json leads to. With --docker, images by name or id.
    #[arg(value_name = "SOURCE", required_unless_present = "list")]
    files: Vec<PathBuf>,
    /// The name of what brings none, instead of the file's; with --docker, of the image.
    #[arg(long, value_name = "REF")]
    name: Option<RefName>,
    /// Bring each file in as an artifact about this image: a ref, or a digest that a ref
    /// leads to.
    #[arg(long, value_name = "REF", conflicts_with_all = ["name", "docker_store"])]
    subject: Option<OsString>,
    /// The type of these artifacts, such as application/spdx+json [default:
    /// application/vnd.unknown.artifact.v1].
    #[arg(long, value_name = "TYPE", requires = "subject", value_parser = artifact_type)]
    artifact_type: Option<MediaType>,
    /// Move refs that exist.
    #[arg(long)]
    allow_delete: bool,
    /// Make an empty layout where the directory is missing.
    #[arg(long)]
    create: bool,
    /// Print an array with an object for each file.
    #[arg(long)]
    json: bool,
    /// More directories to read blobs from, as ALGORITHM/HEX (repeatable). What they have is
    /// not written into the layout.
    #[arg(long, value_name = "DIR")]
    shared_blobs: Vec<PathBuf>,
    /// Copy what shared directories have all the same, so that the layout needs them no more.
    #[arg(long, requires = "shared_blobs")]
    copy_shared: bool,
    #[command(flatten)]
    docker: docker::Options,
    #[command(flatten)]
    choices: docker::Choices,
}

impl Arguments {
    fn layout(&self) -> anyhow::Result<&Path> {
        let layout = self.layout.as_deref();
        layout.ok_or_else(|| Refusal::usage("LAYOUT is missing"))
    }

    /// Opens the layout to write to it, and makes it before where that is wanted.
    fn open_layout(&self) -> anyhow::Result<LayoutWriter> {
        let layout = self.layout()?;
        if self.create {
            ocifs::store::layout::init(layout)?;
        }
        let writer = source::open_writer(layout, &self.shared_blobs)?;
        Ok(writer.sharing(source::sharing(self.copy_shared)))
    }
}

fn artifact_type(text: &str) -> Result<MediaType, String> {
    let artifact_type = MediaType::new(text);
    match artifact_type.is_well_formed() {
        true => Ok(artifact_type),
        false => Err("it must be a media type, such as application/spdx+json".to_owned()),
    }
}

/// Brings in one file after the other.
///
/// # Errors
/// If the layout cannot be written, or a file has no name.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    allow_many_files();
    if let Some(root) = arguments.docker.root() {
        return docker::run(arguments, root);
    }
    let wanted = match &arguments.subject {
        Some(subject) => attached(arguments, subject)?,
        None => wanted(arguments)?,
    };
    let writer = arguments.open_layout()?;
    let mut problems = Vec::new();
    let mut reports = Vec::new();
    for (file, wanted) in arguments.files.iter().zip(&wanted) {
        match import(&writer, file, wanted, arguments) {
            Ok(report) if arguments.json => reports.push(json_of(file, &report)),
            Ok(report) => print(&report)?,
            Err(error) => {
                let problem = Problem::of_error(file, &error);
                problem.complain();
                reports.push(json!({"file": file.to_string_lossy(), "error": problem.json()}));
                problems.push(problem);
            }
        }
    }
    if arguments.json {
        output::json(&Value::Array(reports))?;
    }
    Ok(problem::exit_code(&problems))
}

fn collision(arguments: &Arguments) -> Collision {
    if arguments.allow_delete {
        Collision::Replace
    } else {
        Collision::Refuse
    }
}

/// What is to be brought in.
enum Wanted {
    /// What a file holds, under this name.
    File(Name),
    /// Images of a layout.
    Images(Images),
}

/// What is to be brought in. All names must be right before work begins.
fn wanted(arguments: &Arguments) -> anyhow::Result<Vec<Wanted>> {
    if arguments.name.is_some() && arguments.files.len() > 1 {
        return Err(Refusal::usage(
            "--name is for one file; bring them in one by one",
        ));
    }
    let wanted = |file: &PathBuf| {
        if let Some(images) = Images::of_argument(file).filter(|_| !is_stdin(file)) {
            return Ok(Wanted::Images(images));
        }
        let own = file.file_name().unwrap_or_default();
        let name = match &arguments.name {
            Some(name) if is_stdin(file) => {
                let last = name.as_str().rsplit('/').next().unwrap_or_default();
                Ok(Name::chosen(name.clone(), last.as_bytes()))
            }
            Some(name) => Ok(Name::chosen(name.clone(), own.as_bytes())),
            None if is_stdin(file) => Err(Refusal::usage(
                "standard input has no name: give one with --name",
            )),
            None => Name::of_file(own.as_bytes()).map_err(|error| {
                let error = anyhow::Error::from(error);
                Refusal::usage(format!("{error:#}; give one with --name"))
            }),
        };
        name.map(Wanted::File)
    };
    arguments.files.iter().map(wanted).collect()
}

/// The names of files that become artifacts about `subject`.
fn attached(arguments: &Arguments, subject: &OsStr) -> anyhow::Result<Vec<Wanted>> {
    if arguments.files.iter().any(|file| is_stdin(file)) {
        return Err(Refusal::usage(
            "standard input has no name that an artifact could have as its title: give a file",
        ));
    }
    if let Some(directory) = arguments.files.iter().find(|file| file.is_dir()) {
        return Err(Refusal::usage(format!(
            "{} is a directory, which cannot become an artifact: give a file",
            printable(directory.as_os_str().as_bytes())
        )));
    }
    let unknown = || MediaType::new(UNKNOWN_ARTIFACT);
    let attachment = Attachment {
        subject: subject::find(arguments.layout()?, &arguments.shared_blobs, subject)?,
        artifact_type: arguments.artifact_type.clone().unwrap_or_else(unknown),
    };
    let name = |file: &PathBuf| {
        let own = file.file_name().unwrap_or_default();
        Wanted::File(Name::attached(own.as_bytes(), attachment.clone()))
    };
    Ok(arguments.files.iter().map(name).collect())
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == OsStr::new("-")
}

fn import(
    writer: &LayoutWriter,
    file: &Path,
    wanted: &Wanted,
    arguments: &Arguments,
) -> anyhow::Result<Report> {
    let read = Arc::new(AtomicU64::new(0));
    let options = IngestOptions {
        progress: read.clone(),
        ..IngestOptions::default()
    };
    let ingest = Ingest::new(writer.clone(), options);
    let name = match wanted {
        Wanted::File(name) => name,
        Wanted::Images(images) => {
            let found = images.find(&arguments.shared_blobs, arguments.name.as_ref())?;
            let prepared = watched(file, &read, found.size(), || Ok(found.prepare(&ingest)?))?;
            return Ok(ingest.commit(prepared, collision(arguments))?);
        }
    };
    let prepared = match open(file)? {
        Input::File(source, size) => {
            watched(
                file,
                &read,
                size,
                || Ok(ingest.prepare_file(&source, name)?),
            )
        }
        Input::Stream(stream) => {
            let received = receive(writer, stream)?;
            watched(file, &read, ocifs::store::ReadAt::size(&received), || {
                Ok(ingest.prepare(received, name)?)
            })
        }
    };
    Ok(ingest.commit(prepared?, collision(arguments))?)
}

/// What can be read at any position, and what cannot.
enum Input {
    File(FileSource, u64),
    Stream(Box<dyn Read>),
}

fn open(file: &Path) -> anyhow::Result<Input> {
    if is_stdin(file) {
        return Ok(Input::Stream(Box::new(io::stdin())));
    }
    // Not by its absolute path: what the shell calls /dev/fd/63 has none.
    let opened = File::open(file).map_err(|error| source::not_found(file, &error))?;
    let metadata = opened.metadata()?;
    if metadata.is_file() {
        let source = FileSource::of_size(opened, metadata.len());
        return Ok(Input::File(source, metadata.len()));
    }
    Ok(Input::Stream(Box::new(opened)))
}

/// All of a stream, in a file without a name.
fn receive(writer: &LayoutWriter, mut stream: impl Read) -> anyhow::Result<SealedBlob> {
    let mut blob = writer.blob()?;
    let mut buf = vec![0; CHUNK];
    loop {
        let len = match stream.read(&mut buf) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other.context("cannot read standard input")?,
        };
        if len == 0 {
            return Ok(blob.seal()?);
        }
        io::Write::write_all(&mut blob, &buf[..len]).map_err(|error| writer.write_error(error))?;
    }
}

/// Does `work`, and shows meanwhile how much of `file` was read.
fn watched<T>(
    file: &Path,
    read: &AtomicU64,
    total: u64,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let (working, worked) = mpsc::channel::<()>();
        let what = printable(file.as_os_str().as_bytes());
        scope.spawn(move || {
            let mut progress = Progress::new(true);
            while worked.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                progress.show(&what, read.load(Ordering::Relaxed).min(total), total);
            }
        });
        let done = work();
        drop(working);
        done
    })
}

/// Each blob of an archive is an open file until the index names it. If there may not be
/// more, that shows in time.
fn allow_many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        log::debug!("the number of open files stays limited: {error}");
    }
}

/// One line for each entry, or for the blob.
fn print(report: &Report) -> io::Result<()> {
    let kind = report.kind.name();
    for image in &report.images {
        let name = image.name.as_deref().unwrap_or(image.digest.as_str());
        let name = printable(name.as_bytes());
        output::line(&format!(
            "{name}  {}  {kind}{}",
            image.digest,
            amount(report)
        ))?;
    }
    if report.images.is_empty() {
        for blob in &report.blobs {
            output::line(&format!("{}  {kind}{}", blob.digest, amount(report)))?;
        }
    }
    Ok(())
}

/// How much of it is new.
fn amount(report: &Report) -> String {
    let new = || report.blobs.iter().filter(|blob| blob.is_new);
    match new().count() {
        0 => ", nothing new".to_owned(),
        count => {
            let bytes = new().map(|blob| blob.size).sum();
            let all = report.blobs.len();
            format!(", {count} of {all} blobs new ({})", format::size(bytes))
        }
    }
}

fn json_of(file: &Path, report: &Report) -> Value {
    let image = |image: &Image| {
        json!({
            "ref": image.name,
            "digest": image.digest.as_str(),
            "mediaType": image.media_type,
            "size": image.size,
        })
    };
    let blob = |blob: &BlobReport| {
        json!({
            "digest": blob.digest.as_str(),
            "size": blob.size,
            "new": blob.is_new,
        })
    };
    json!({
        "file": file.to_string_lossy(),
        "kind": report.kind.name(),
        "images": report.images.iter().map(image).collect::<Vec<_>>(),
        "blobs": report.blobs.iter().map(blob).collect::<Vec<_>>(),
    })
}
