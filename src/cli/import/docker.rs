//! `ocifs import --docker`: images of Docker's own store, without its daemon.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use clap::Args;
use ocifs::ingest::docker_root::{DockerRoot, Listed, StoredImage};
use ocifs::ingest::{self, Ingest, IngestOptions, Report};
use ocifs::store::LayoutWriter;
use serde_json::{Value, json};

use super::super::compress::Compress;
use super::super::error::Refusal;
use super::super::format;
use super::super::output::{self, Flow, printable};
use super::super::problem::{self, Problem};
use super::{Arguments, collision, json_of, print, watched};

/// Where Docker keeps everything unless it is told otherwise.
const DATA_ROOT: &str = "/var/lib/docker";

/// How many digits of an id tell images apart.
const SHORT_ID: usize = "sha256:".len() + 12;

/// Options of `ocifs import` for Docker's own store.
#[derive(Debug, Args)]
#[group(id = "docker_store", multiple = true)]
pub(super) struct Options {
    /// Take images out of Docker's own store, which need not run: each SOURCE is the name or
    /// id of an image.
    #[arg(long)]
    docker: bool,
    /// The same, from the store in this directory instead of /var/lib/docker.
    #[arg(long, value_name = "DIR")]
    docker_root: Option<PathBuf>,
}

/// What is done with these images.
#[derive(Debug, Args)]
pub(super) struct Choices {
    /// List the images of Docker's store, and import nothing.
    #[arg(long, requires = "docker_store", conflicts_with_all = [
        "name", "allow_delete", "dry_run", "compress", "layout", "create", "shared_blobs",
        "copy_shared",
    ])]
    pub(super) list: bool,
    /// Say which digests and sizes would come of it, and write nothing.
    #[arg(long, requires = "docker_store", conflicts_with = "create")]
    pub(super) dry_run: bool,
    /// How the layers out of Docker's store are stored.
    #[arg(
        long,
        value_name = "HOW",
        default_value = "gzip",
        requires = "docker_store"
    )]
    pub(super) compress: Compress,
}

impl Options {
    /// Where the images are to be taken from, if it is Docker's store.
    pub(super) fn root(&self) -> Option<&Path> {
        match &self.docker_root {
            Some(root) => Some(root),
            None => self.docker.then_some(Path::new(DATA_ROOT)),
        }
    }
}

/// Brings in images of the store at `root`, all or none; or lists them.
pub(super) fn run(arguments: &Arguments, root: &Path) -> anyhow::Result<ExitCode> {
    let store = DockerRoot::open(root).map_err(ingest::Error::from)?;
    if arguments.choices.list {
        return list(&store, arguments.json);
    }
    if arguments.name.is_some() && arguments.files.len() > 1 {
        return Err(Refusal::usage(
            "--name is for one image; bring them in one by one",
        ));
    }
    let writer = arguments.open_layout()?;
    let is_dry = arguments.choices.dry_run;
    let report = match bring_in(&store, writer, arguments) {
        Ok(report) => report,
        Err(error) => {
            let problem = Problem::of_error(root, &error);
            problem.complain();
            if arguments.json {
                let file = root.to_string_lossy();
                output::json(&json!([{"file": file, "error": problem.json()}]))?;
            }
            return Ok(problem::exit_code(&[problem]));
        }
    };
    if arguments.json {
        let mut object = json_of(root, &report);
        object["dryRun"] = json!(is_dry);
        output::json(&json!([object]))?;
    } else {
        print(&report)?;
        if is_dry {
            print_blobs(&report)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Brings in the images that are named, or says what would come of it.
fn bring_in(
    store: &DockerRoot,
    writer: LayoutWriter,
    arguments: &Arguments,
) -> anyhow::Result<Report> {
    let images = images(store, arguments)?;
    let read = Arc::new(AtomicU64::new(0));
    let options = IngestOptions {
        progress: read.clone(),
        ..IngestOptions::default()
    };
    let ingest = Ingest::new(writer, options);
    let compression = arguments.choices.compress.into();
    let total = images.iter().map(StoredImage::size).sum();
    watched(store.path(), &read, total, || {
        if arguments.choices.dry_run {
            return Ok(ingest.measure_docker_images(store, &images, compression)?);
        }
        let prepared = ingest.prepare_docker_images(store, &images, compression)?;
        Ok(ingest.commit(prepared, collision(arguments))?)
    })
}

/// The images that are named.
fn images(store: &DockerRoot, arguments: &Arguments) -> anyhow::Result<Vec<StoredImage>> {
    let image = |name: &PathBuf| {
        let text = name.to_str().ok_or_else(|| {
            let shown = printable(name.as_os_str().as_bytes());
            Refusal::not_found(format!("{shown} is no name of an image"))
        })?;
        let mut image = store.image(text).map_err(ingest::Error::from)?;
        if let Some(name) = &arguments.name {
            image.name = Some(name.to_string());
        }
        Ok(image)
    };
    arguments.files.iter().map(image).collect()
}

/// A line for each blob.
fn print_blobs(report: &Report) -> io::Result<()> {
    for blob in &report.blobs {
        let is_new = if blob.is_new { ", new" } else { "" };
        output::line(&format!(
            "  {}  {}{is_new}",
            blob.digest,
            format::size(blob.size)
        ))?;
    }
    Ok(())
}

/// A line for each name, and for each image without one.
fn list(store: &DockerRoot, is_json: bool) -> anyhow::Result<ExitCode> {
    let lines = store.list().map_err(ingest::Error::from)?;
    let mut problems = Vec::new();
    let mut objects = Vec::new();
    for mut line in lines {
        let size = std::mem::replace(&mut line.size, Ok(0));
        let (size, error) = match size {
            Ok(size) => (Some(size), None),
            Err(error) => {
                let error = ingest::Error::from(error).into();
                let problem = Problem::of_error(line.id.as_str(), &error);
                problem.complain();
                let json = problem.json();
                problems.push(problem);
                (None, Some(json))
            }
        };
        if is_json {
            objects.push(object(&line, size, error));
        } else if print_image(&line, size)? == Flow::Stop {
            break;
        }
    }
    if is_json {
        output::json(&Value::Array(objects))?;
    }
    Ok(problem::exit_code(&problems))
}

fn object(image: &Listed, size: Option<u64>, error: Option<Value>) -> Value {
    let mut object = json!({
        "id": image.id.as_str(),
        "names": image.names,
        "digests": image.digests,
        "size": size,
    });
    if let Some(error) = error {
        object["error"] = error;
    }
    object
}

fn print_image(image: &Listed, size: Option<u64>) -> io::Result<Flow> {
    let id = &image.id.as_str()[..SHORT_ID.min(image.id.as_str().len())];
    let size = size.map_or_else(|| "damaged".to_owned(), format::size);
    let names = match (&image.names[..], &image.digests[..]) {
        ([], []) => vec!["-".to_owned()],
        ([], digests) => digests.to_vec(),
        (names, _) => names.to_vec(),
    };
    for name in names {
        let name = printable(name.as_bytes());
        if output::line(&format!("{name}  {id}  {size}"))? == Flow::Stop {
            return Ok(Flow::Stop);
        }
    }
    Ok(Flow::Continue)
}
