//! The layout that a command looks at, opened with the options that all of them share.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use ocifs::archive::{Archive, ArchiveOptions};
use ocifs::layer::{Layers, LayersOptions};
use ocifs::oci::Platform;
use ocifs::store::layout::SharedBlobs;
use ocifs::store::layout::writer::Sharing;
use ocifs::store::{BlobSource, CacheDir, Layout, LayoutWriter, Verdicts, View, watch};
use ocifs::vfs::Vfs;
use ocifs::vfs::views::{Views, ViewsOptions};

use super::error::{Refusal, Status};
use super::progress;

/// Which layout is meant, and which part of it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "How the layout is read")]
pub(crate) struct LayoutOptions {
    /// The platform that the top of an image index shows: os/arch[/variant].
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<Platform>,
    /// More directories to read blobs from, as ALGORITHM/HEX (repeatable).
    #[arg(long, value_name = "DIR")]
    pub(crate) shared_blobs: Vec<PathBuf>,
}

/// What is kept between runs, and where.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "How the layout is read")]
pub(crate) struct CacheOptions {
    /// Where to keep what is learned about layers [default: ocifs in the user's cache
    /// directory, for root in /var/cache].
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// How much of the disk that may take.
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = size)]
    pub(crate) cache_size: u64,
}

/// Options of every command that shows a layout.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "How the layout is read")]
pub(crate) struct SourceOptions {
    #[command(flatten)]
    pub(crate) layout: LayoutOptions,
    #[command(flatten)]
    pub(crate) cache: CacheOptions,
    /// How much memory decoded data may take.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    pub(crate) memory: u64,
    /// When layers are indexed: lazy (at first need), eager, or off (nothing is kept).
    #[arg(long, value_name = "WHEN", default_value = "lazy")]
    pub(crate) index: IndexMode,
    /// Show this user as the owner of everything.
    #[arg(long, value_name = "UID")]
    pub(crate) uid: Option<u32>,
    /// Show this group as the owner of everything.
    #[arg(long, value_name = "GID")]
    pub(crate) gid: Option<u32>,
}

impl SourceOptions {
    /// Options for a command that shows no file, and so takes only these.
    pub(crate) fn without_files(
        layout: &LayoutOptions,
        cache: &CacheOptions,
        index: IndexMode,
    ) -> Self {
        Self {
            layout: layout.clone(),
            cache: cache.clone(),
            memory: 0,
            index,
            uid: None,
            gid: None,
        }
    }
}

/// When layers are indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum IndexMode {
    /// At first need.
    Lazy,
    /// All of them, beginning at once.
    Eager,
    /// Nothing is kept between runs.
    Off,
}

/// Reads a size such as `64MiB`, `2G` or `100000`; the letters count in powers of 1,024.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        unit => return Err(format!("unknown unit {unit:?}: use KiB, MiB, GiB or TiB")),
    };
    let number: u64 = digits
        .trim()
        .parse()
        .map_err(|_| "not a number".to_owned())?;
    number
        .checked_shl(shift)
        .filter(|bytes| bytes >> shift == number)
        .ok_or("too large".into())
}

/// How much memory reading a compressed archive needs at least, in bytes: some spans for
/// each of those who read at once.
const ARCHIVE_MEMORY: u64 = 32 << 20;

/// An opened layout and the tree that shows it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) blobs: Arc<dyn BlobSource>,
    /// The layout, if it is a directory and not an archive.
    pub(crate) directory: Option<Arc<Layout>>,
    pub(crate) views: Arc<Views>,
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) verdicts: Arc<Verdicts>,
}

/// The absolute path of what the user named.
///
/// # Errors
/// If it is not there.
pub(crate) fn locate(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize()
        .map_err(|error| not_found(path, &error).into())
}

/// Why what the user named cannot be used.
pub(crate) fn not_found(path: &Path, error: &io::Error) -> Refusal {
    let shown = path.display();
    if error.kind() == io::ErrorKind::NotFound {
        Refusal {
            status: Status::Finding,
            message: format!("{shown} does not exist"),
        }
    } else {
        Refusal {
            status: Status::Failure,
            message: format!("cannot look at {shown}: {error}"),
        }
    }
}

/// Where a layout is going to be mounted, and how.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) mountpoint: PathBuf,
    pub(crate) is_writable: bool,
}

/// Whether what the user named is a file, and so can only be an archive.
pub(crate) fn is_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir())
}

/// Opens the layout directory at `path`, and looks at its index.
fn open_directory(path: &Path, shared: &[PathBuf]) -> anyhow::Result<(Arc<Layout>, View)> {
    let directory = Arc::new(open_layout(path, shared)?);
    let view = watch::first_view(&directory)?;
    Ok((directory, view))
}

/// Opens the archive at `path`, and shows how far it is read if that takes long.
fn open_archive(path: &Path, options: &ArchiveOptions<'_>) -> anyhow::Result<Archive> {
    let open = || Archive::open(path, options);
    Ok(progress::of_layers(options.layers, open)?)
}

/// Opens the layout at `path`, a directory or an archive; `mounted` says how it is going to
/// be mounted, if it is.
///
/// # Errors
/// If it is not a layout, or the cache directory is not safe.
pub(crate) fn open(
    path: &Path,
    options: &SourceOptions,
    mounted: Option<Mounted>,
) -> anyhow::Result<Source> {
    let shared = &options.layout.shared_blobs;
    let (found, needed) = match is_file(path) {
        true => (None, ARCHIVE_MEMORY),
        false => (Some(open_directory(path, shared)?), 0),
    };
    let cache = cache(options)?;
    let verdicts = Arc::new(Verdicts::new(cache.as_ref()));
    let layers = Layers::new(
        LayersOptions {
            cache: cache.clone(),
            cache_size: options.cache.cache_size,
            memory: options.memory.max(needed),
            ..LayersOptions::default()
        },
        verdicts.clone(),
    );
    let (blobs, view, directory): (Arc<dyn BlobSource>, _, _) = match found {
        Some((directory, view)) => (directory.clone(), view, Some(directory)),
        None => {
            let archive_options = ArchiveOptions {
                layers: &layers,
                verdicts: &verdicts,
                cache: cache.as_ref(),
            };
            // What is wrong with them is told before a first pass is waited for.
            let shared = SharedBlobs::open(shared)?;
            let archive = open_archive(path, &archive_options)?.with_shared(shared);
            let view = archive.view().clone();
            (Arc::new(archive), view, None)
        }
    };
    let (layers, shown) = (Arc::new(layers), views_options(options, mounted));
    let views = Views::new(blobs.clone(), view, layers, verdicts.clone(), shown)?;
    let vfs = Arc::new(Vfs::new(views.root(), blobs.clone()));
    Ok(Source {
        blobs,
        directory,
        views,
        vfs,
        verdicts,
    })
}

/// How the tree is shown.
fn views_options(options: &SourceOptions, mounted: Option<Mounted>) -> ViewsOptions {
    let platform = options.layout.platform.clone();
    ViewsOptions {
        platform: platform.unwrap_or_else(Platform::host),
        uid: options.uid,
        gid: options.gid,
        is_writable: mounted.as_ref().is_some_and(|mounted| mounted.is_writable),
        mountpoint: mounted.map(|mounted| mounted.mountpoint),
    }
}

/// Opens the layout at `path` to write to it, and clears what killed writers have left. What
/// the directories `shared` have counts as there.
///
/// # Errors
/// If it is not a layout.
pub(crate) fn open_writer(path: &Path, shared: &[PathBuf]) -> anyhow::Result<LayoutWriter> {
    if is_file(path) {
        let message = format!(
            "{} is a file, and archives are only read: import it into a layout first",
            path.display()
        );
        return Err(Refusal::usage(message));
    }
    let layout = open_layout(path, shared)?;
    writer(&layout, Arc::new(Verdicts::new(None)))
}

/// What becomes of blobs that only a shared directory has.
pub(crate) fn sharing(copy_shared: bool) -> Sharing {
    if copy_shared {
        Sharing::Copy
    } else {
        Sharing::Refer
    }
}

/// A writer to an opened layout; clears what killed writers have left there.
///
/// # Errors
/// If the layout cannot be reached any more.
pub(crate) fn writer(layout: &Layout, verdicts: Arc<Verdicts>) -> anyhow::Result<LayoutWriter> {
    // A file that grows over a limit is then an error of `write`, not the end.
    signal_hook::flag::register(libc::SIGXFSZ, Arc::default())?;
    let writer = LayoutWriter::open(layout, verdicts)?;
    if let Err(error) = writer.collect() {
        log::warn!("{:#}", anyhow::Error::from(error));
    }
    Ok(writer)
}

/// Opens the layout at `path`, which has blobs in the directories `shared`, too.
///
/// # Errors
/// If it is not a layout.
pub(crate) fn open_layout(path: &Path, shared: &[PathBuf]) -> anyhow::Result<Layout> {
    Layout::open(path, shared).with_context(|| {
        format!(
            "{} is not an OCI image layout that can be read",
            path.display()
        )
    })
}

/// The cache directory: what the user named must be usable; the default one may be
/// missing.
fn cache(options: &SourceOptions) -> anyhow::Result<Option<CacheDir>> {
    if options.index == IndexMode::Off {
        return Ok(None);
    }
    if options.cache.cache_dir.is_some() {
        return Ok(Some(CacheDir::open(&cache_path(&options.cache)?)?));
    }
    let opened = cache_path(&options.cache).and_then(|path| Ok(CacheDir::open(&path)?));
    Ok(opened
        .inspect_err(|error| log::warn!("nothing is kept between runs: {error:#}"))
        .ok())
}

/// Where the cache directory is, or should be.
///
/// # Errors
/// That nothing says so.
pub(crate) fn cache_path(options: &CacheOptions) -> anyhow::Result<PathBuf> {
    let path = options.cache_dir.clone().or_else(default_cache);
    path.ok_or_else(|| {
        Refusal::failure("no home directory to keep anything in; name one with --cache-dir")
    })
}

fn default_cache() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some("/var/cache/ocifs".into());
    }
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("ocifs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let rows = [
            ("0", Ok(0)),
            ("100000", Ok(100_000)),
            ("64MiB", Ok(64 << 20)),
            ("2G", Ok(2 << 30)),
            ("1kb", Ok(1024)),
            ("16777216TiB", Err(())),
            ("12XB", Err(())),
            ("MiB", Err(())),
            ("-1", Err(())),
        ];
        for (text, expected) in rows {
            assert_eq!(size(text).map_err(|_| ()), expected, "{text}");
        }
    }
}
