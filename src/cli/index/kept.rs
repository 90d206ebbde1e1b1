//! What is kept about layers: shown, or removed.

use std::collections::HashSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use ocifs::layer::toc::cache::{KeptToc, TocCache};
use ocifs::oci::Digest;
use ocifs::store::CacheDir;
use serde_json::{Value, json};

use super::super::format;
use super::super::output;
use super::super::problem::{self, Problem};
use super::super::source::{self, IndexMode, SourceOptions};
use super::Arguments;
use super::find::{self, Platforms};

/// Shows or removes what is kept, of all layers or of those of a layout.
///
/// # Errors
/// If the layout or the cache directory cannot be read.
pub(super) fn run(arguments: &Arguments, layout: Option<&Path>) -> anyhow::Result<ExitCode> {
    let path = source::cache_path(&arguments.cache)?;
    // Not made if it is missing: that would be a strange effect of looking.
    let limit = arguments.cache.cache_size;
    let cache = match CacheDir::find_dir(&path)? {
        Some(dir) => Some(TocCache::open(&dir, limit)?),
        None => None,
    };
    let all = cache.as_ref().map_or(Ok(Vec::new()), TocCache::list)?;
    let mut selection = match layout {
        Some(layout) => select(arguments, layout, all)?,
        None => Selection {
            kept: all,
            missing: Vec::new(),
            problems: Vec::new(),
        },
    };
    if let Some(cache) = cache.filter(|_| arguments.drop) {
        selection.remove(&cache);
    }
    for problem in &selection.problems {
        problem.complain();
    }
    if arguments.json {
        output::json(&selection.json(arguments, &path))?;
    } else {
        output::line(&selection.text(arguments))?;
    }
    Ok(problem::exit_code(&selection.problems))
}

/// What of the cache is meant.
struct Selection {
    kept: Vec<KeptToc>,
    /// Layers of which nothing is kept.
    missing: Vec<Digest>,
    problems: Vec<Problem>,
}

/// What is kept of the layers of a layout.
fn select(
    arguments: &Arguments,
    layout: &Path,
    mut kept: Vec<KeptToc>,
) -> anyhow::Result<Selection> {
    let options = SourceOptions::without_files(&arguments.layout, &arguments.cache, IndexMode::Off);
    let source = source::open(layout, &options, None)?;
    let platforms = match arguments.layout.platform {
        Some(_) => Platforms::Chosen,
        None => Platforms::All,
    };
    let found = find::layers(&source, &arguments.names, platforms);
    let mut missing: HashSet<Digest> = found
        .layers
        .into_iter()
        .map(|wanted| wanted.digest)
        .collect();
    kept.retain(|kept| missing.remove(&kept.digest));
    let mut missing: Vec<Digest> = missing.into_iter().collect();
    missing.sort();
    Ok(Selection {
        kept,
        missing,
        problems: found.problems,
    })
}

impl Selection {
    /// Removes what is meant; what stays is a problem.
    fn remove(&mut self, cache: &TocCache) {
        let problems = &mut self.problems;
        self.kept.retain(|kept| match cache.remove(&kept.digest) {
            Ok(()) => true,
            Err(error) => {
                let error = anyhow::Error::new(error);
                problems.push(Problem::of_error(kept.digest.as_str(), &error));
                false
            }
        });
    }

    fn size(&self) -> u64 {
        self.kept.iter().map(|kept| kept.file_size).sum()
    }

    fn text(&self, arguments: &Arguments) -> String {
        let now = SystemTime::now();
        let mut lines: Vec<String> = self.kept.iter().map(|kept| line(kept, now)).collect();
        let size = format::size(self.size());
        if arguments.drop {
            lines.push(format!("{} removed, {size}", self.kept.len()));
            return lines.join("\n");
        }
        let nothing = |digest: &Digest| format!("{digest}  nothing is kept");
        lines.extend(self.missing.iter().map(nothing));
        let limit = format::size(arguments.cache.cache_size);
        lines.push(format!("{} kept, {size} of {limit}", self.kept.len()));
        lines.join("\n")
    }

    fn json(&self, arguments: &Arguments, cache: &Path) -> Value {
        let kept: Vec<Value> = self.kept.iter().map(object).collect();
        let missing: Vec<&str> = self.missing.iter().map(Digest::as_str).collect();
        let mut json = json!({
            "cache": cache.to_string_lossy(),
            "size": self.size(),
            "limit": arguments.cache.cache_size,
            "problems": self.problems.iter().map(Problem::json).collect::<Vec<_>>(),
        });
        if arguments.drop {
            json["dropped"] = kept.into();
        } else {
            json["kept"] = kept.into();
            json["missing"] = missing.into();
        }
        json
    }
}

/// One file for people.
fn line(kept: &KeptToc, now: SystemTime) -> String {
    let (digest, size) = (&kept.digest, format::size(kept.file_size));
    let ago = |time| format::duration(now.duration_since(time).unwrap_or_default());
    match &kept.summary {
        Ok(summary) => format!(
            "{digest}  {size:>10}  {:>10} decoded  {:<4}  built {} ago, used {} ago",
            format::size(summary.size),
            super::compression(summary.compression),
            ago(kept.built),
            ago(kept.used),
        ),
        Err(reason) => {
            let reason = output::printable(reason.to_string().as_bytes());
            format!("{digest}  {size:>10}  unusable: {reason}")
        }
    }
}

/// One file as JSON.
fn object(kept: &KeptToc) -> Value {
    let time = |time| format::rfc3339(format::seconds(time));
    let summary = kept.summary.as_ref();
    json!({
        "digest": kept.digest.as_str(),
        "toc_size": kept.file_size,
        "built": time(kept.built),
        "used": time(kept.used),
        "size": summary.ok().map(|summary| summary.blob_size),
        "decoded_size": summary.ok().map(|summary| summary.size),
        "compression": summary.ok().map(|summary| super::compression(summary.compression)),
        "unusable": summary.err().map(ToString::to_string),
    })
}
