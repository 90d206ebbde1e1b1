//! Reading layers for the first time.

use std::iter::Enumerate;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;
use std::vec;

use anyhow::Context;
use ocifs::layer::toc::cache::{KeptToc, NotKept, TocCache};
use ocifs::layer::{self, Indexed, Layers};
use ocifs::oci::Digest;
use ocifs::store::{CacheDir, layout};
use ocifs::vfs;
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::super::error::{Refusal, Status};
use super::super::output::{self, Flow};
use super::super::problem::{self, Problem};
use super::super::progress::{self, Bars};
use super::super::source::{self, IndexMode, Source, SourceOptions};
use super::super::{format, tree};
use super::Arguments;
use super::find::{self, Platforms, Wanted};

/// How many layers are handed to the queue at once. It works on two of them; the others
/// keep it busy, and each has a file open.
const HANDED: usize = 16;

/// Makes the first pass over layers, and keeps what it finds out.
///
/// # Errors
/// If the layout cannot be read, or nothing be kept.
pub(super) fn run(arguments: &Arguments, layout: &Path) -> anyhow::Result<ExitCode> {
    let path = source::cache_path(&arguments.cache)?;
    let cache = TocCache::open(&CacheDir::open(&path)?, arguments.cache.cache_size)?;
    cache
        .try_write()
        .context("nothing would be kept; name another directory with --cache-dir")?;
    let options =
        SourceOptions::without_files(&arguments.layout, &arguments.cache, IndexMode::Lazy);
    let source = source::open(layout, &options, None)?;
    let platforms = match arguments.layout.platform {
        Some(_) => Platforms::Chosen,
        None => Platforms::All,
    };
    let stop = stop_flag()?;
    let found = find::layers(&source, &arguments.names, platforms);
    let mut report = Report::new(arguments.json, &cache);
    for problem in found.problems {
        report.problem(problem);
    }
    let ended = make(&source, found.layers, &stop, &mut report);
    report.end()?;
    ended?;
    if stop.load(Ordering::Relaxed) {
        let message = "interrupted; what was finished is kept";
        return Err(Refusal::failure(message));
    }
    Ok(problem::exit_code(&report.problems))
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

/// The layers that were not handed to the queue yet, with their places.
type Waiting = parking_lot::Mutex<Enumerate<vec::IntoIter<Wanted>>>;

/// What became of a layer.
struct Done {
    number: usize,
    digest: Digest,
    indexed: Option<Indexed>,
    problems: Vec<Problem>,
}

/// Hands the layers to the queue, and reports each when it is done.
fn make(
    source: &Source,
    wanted: Vec<Wanted>,
    stop: &AtomicBool,
    report: &mut Report<'_>,
) -> anyhow::Result<()> {
    let layers = source.views.layers();
    let size = |wanted: &Wanted| {
        let found = source.blobs.identify(&wanted.digest);
        found.map_or(0, |file| file.size)
    };
    let mut bars = Bars::new(wanted.iter().map(size).sum());
    let askers = wanted.len().min(HANDED);
    let waiting = Waiting::new(wanted.into_iter().enumerate());
    let (sender, done) = mpsc::channel();
    thread::scope(|scope| {
        for number in 0..askers {
            let (waiting, sender) = (&waiting, sender.clone());
            let spawned =
                thread::Builder::new().spawn_scoped(scope, move || ask(source, waiting, &sender));
            // One is enough to get on.
            if number == 0 {
                spawned.context("cannot start a thread")?;
            }
        }
        drop(sender);
        let mut read = 0;
        loop {
            match done.recv_timeout(progress::TICK) {
                Ok(done) => {
                    read += done.indexed.as_ref().map_or(0, |i| i.toc.blob_size());
                    let told = bars.aside(|| report.layer(done));
                    // Who cannot be told anything needs no more work done.
                    told.inspect_err(|_| layers.shut_down())?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if stop.load(Ordering::Relaxed) {
                layers.shut_down();
            }
            bars.show(&layers.passes(), read);
        }
    })
}

/// Sees layers through, one after the other, until there are none or everything ends.
fn ask(source: &Source, waiting: &Waiting, done: &mpsc::Sender<Done>) {
    let next = || waiting.lock().next();
    while let Some((number, wanted)) = next() {
        let Some(one) = index(source, number, &wanted) else {
            return;
        };
        if done.send(one).is_err() {
            return;
        }
    }
}

/// Sees one layer through; nothing if everything is to end.
fn index(source: &Source, number: usize, wanted: &Wanted) -> Option<Done> {
    let mut done = Done {
        number,
        digest: wanted.digest.clone(),
        indexed: None,
        problems: Vec::new(),
    };
    match pass(source, wanted, source.views.layers()) {
        Ok(indexed) => done.indexed = indexed,
        Err(vfs::Error::ShutDown) => return None,
        Err(error) => {
            done.problems.push(Problem::new(&wanted.of, &error));
            return Some(done);
        }
    }
    if done.indexed.is_some() {
        // What images say of it, now that nothing need be read for that any more.
        for claim in &wanted.claims {
            match claim.open() {
                Ok(_) => {}
                Err(vfs::Error::ShutDown) => return None,
                Err(error) => done.problems.push(Problem::new(&wanted.of, &error)),
            }
        }
    }
    if let Some(Indexed {
        kept: Err(reason), ..
    }) = &done.indexed
    {
        done.problems.push(not_kept(wanted, reason));
    }
    Some(done)
}

/// The pass itself; nothing if the layer is missing by right.
fn pass(source: &Source, wanted: &Wanted, layers: &Layers) -> Result<Option<Indexed>, vfs::Error> {
    let blob = match source.blobs.open_blob(&wanted.digest) {
        Err(layout::Error::BlobMissing { .. }) if wanted.may_be_absent => return Ok(None),
        other => Arc::new(other?),
    };
    let said = |claim: &Arc<_>| tree::oci_xattr(&**claim, "size")?.parse().ok();
    let fits = |claim: &Arc<_>| said(claim) == Some(ocifs::store::ReadAt::size(&*blob));
    if let Some(claim) = wanted.claims.first()
        && !wanted.claims.iter().any(fits)
    {
        // Of another size than everybody says: that is told without reading it.
        claim.open()?;
    }
    Ok(Some(
        layers
            .index(&blob)
            .map_err(|error: layer::Error| vfs::Error::from(error))?,
    ))
}

fn not_kept(wanted: &Wanted, reason: &NotKept) -> Problem {
    let error = anyhow::Error::new(reason.clone());
    let hint = match reason {
        NotKept::TooLarge { .. } => "; allow more with --cache-size",
        NotKept::Dir(_) => "; name another directory with --cache-dir",
        NotKept::NoCache | NotKept::Unfinished { .. } => "",
    };
    Problem {
        of: wanted.of.clone(),
        code: "TOC_NOT_KEPT",
        text: format!("its table of contents is not kept: {error:#}{hint}"),
        status: Status::Failure,
    }
}

/// What is said about it all.
struct Report<'a> {
    as_json: bool,
    cache: &'a TocCache,
    /// Whether somebody reads the lines.
    flow: Flow,
    problems: Vec<Problem>,
    /// What was kept, to see at the end whether it still is.
    kept: Vec<Digest>,
    /// Layers as JSON, by their place.
    objects: Vec<(usize, Value)>,
    built: usize,
    there: usize,
    failed: usize,
}

impl<'a> Report<'a> {
    fn new(as_json: bool, cache: &'a TocCache) -> Self {
        Self {
            as_json,
            cache,
            flow: Flow::Continue,
            problems: Vec::new(),
            kept: Vec::new(),
            objects: Vec::new(),
            built: 0,
            there: 0,
            failed: 0,
        }
    }

    fn problem(&mut self, problem: Problem) {
        problem.complain();
        self.problems.push(problem);
    }

    fn layer(&mut self, done: Done) -> anyhow::Result<()> {
        self.failed += usize::from(!done.problems.is_empty());
        for problem in done.problems {
            self.problem(problem);
        }
        let Some(indexed) = done.indexed else {
            return Ok(());
        };
        if let Ok(kept) = &indexed.kept {
            self.kept.push(kept.digest.clone());
            let count = if indexed.was_kept {
                &mut self.there
            } else {
                &mut self.built
            };
            *count += 1;
        }
        if self.as_json {
            self.objects
                .push((done.number, object(&done.digest, &indexed)));
        } else if self.flow == Flow::Continue {
            self.flow = output::line(&line(&done.digest, &indexed))?;
        }
        Ok(())
    }

    /// Sums it up.
    fn end(&mut self) -> anyhow::Result<()> {
        let gone = self
            .kept
            .iter()
            .filter(|digest| !is_there(self.cache, digest));
        let gone = gone.count();
        let (size, limit) = (self.cache.size()?, self.cache.size_limit());
        if gone > 0 {
            let text = format!(
                "{gone} of the tables of contents were pushed out again by others: {} are too \
                 few; allow more with --cache-size",
                format::size(limit)
            );
            self.problem(Problem {
                of: "cache".to_owned(),
                code: "TOC_NOT_KEPT",
                text,
                status: Status::Finding,
            });
        }
        if self.as_json {
            self.objects.sort_by_key(|(number, _)| *number);
            let objects = self.objects.drain(..).map(|(_, object)| object);
            output::json(&json!({
                "layers": objects.collect::<Vec<_>>(),
                "built": self.built,
                "there": self.there,
                "failed": self.failed,
                "cache_size": size,
                "cache_limit": limit,
                "problems": self.problems.iter().map(Problem::json).collect::<Vec<_>>(),
            }))?;
        } else if self.flow == Flow::Continue {
            let (built, there, failed) = (self.built, self.there, self.failed);
            let (size, limit) = (format::size(size), format::size(limit));
            output::line(&format!(
                "{built} read, {there} there already, {failed} failed; {size} of {limit} kept"
            ))?;
        }
        Ok(())
    }
}

fn is_there(cache: &TocCache, digest: &Digest) -> bool {
    matches!(cache.find(digest), Ok(Some(KeptToc { summary: Ok(_), .. })))
}

/// One layer for people.
fn line(digest: &Digest, indexed: &Indexed) -> String {
    let (toc, kept) = (&indexed.toc, indexed.kept.as_ref().ok());
    let kept = kept.map_or("nothing".to_owned(), |kept| format::size(kept.file_size));
    let took = match indexed.was_kept {
        true => "was there already".to_owned(),
        false => format!("in {}", format::duration(indexed.took)),
    };
    format!(
        "{digest}  {:>10} {:<4}  {:>10} decoded  {kept:>10} kept  {took}",
        format::size(toc.blob_size()),
        super::compression(toc.compression()),
        format::size(toc.size()),
    )
}

/// One layer as JSON.
fn object(digest: &Digest, indexed: &Indexed) -> Value {
    let (toc, kept) = (&indexed.toc, indexed.kept.as_ref().ok());
    json!({
        "digest": digest.as_str(),
        "diff_id": toc.diff_id().to_string(),
        "size": toc.blob_size(),
        "decoded_size": toc.size(),
        "compression": super::compression(toc.compression()),
        "toc_size": kept.map(|kept| kept.file_size),
        "was_there": indexed.was_kept,
        "seconds": seconds(indexed.took),
    })
}

/// To the millisecond.
fn seconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 1000.0).round() / 1000.0
}
