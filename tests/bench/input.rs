//! What is measured: layers of real files, made once and kept under `target/bench`.
//!
//! The files are those of this machine's `/usr`, directory by directory, as an image has
//! them: files picked one by one would leave a directory for every few files, which no
//! image has. Which directories are taken depends on the hash of their paths, so that a
//! small layer is like a large one, and the next run takes the same ones.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ocifs::oci::Digest;

use crate::common::{Compression, TestLayout, run_ok};

/// Changes when other layers are to be made than before.
const VERSION: u32 = 2;

/// Where the files come from.
const ROOT: &str = "/usr";

/// The ref in every layout.
pub const REF: &str = "bench";

/// A tar of real files, stored in several ways.
#[derive(Debug)]
pub struct Input {
    dir: PathBuf,
    /// How many bytes the tar has.
    pub decoded: u64,
    /// Path, without a leading slash, and size of each regular file.
    pub files: Vec<(PathBuf, u64)>,
    /// How many entries it has.
    pub entries: u64,
}

/// The layer, stored in one way.
#[derive(Debug, Clone)]
pub struct Stored {
    /// How.
    pub name: &'static str,
    /// The directory of its layout.
    pub layout: PathBuf,
    /// The stored layer.
    pub blob: PathBuf,
    /// How many bytes that has.
    pub size: u64,
    /// How many bytes it decodes to.
    pub decoded: u64,
}

impl Stored {
    pub fn is_gzip(&self) -> bool {
        self.name != ZSTD
    }

    /// Its digest.
    pub fn digest(&self) -> Digest {
        let name = self.blob.file_name().and_then(|name| name.to_str());
        format!("sha256:{}", name.unwrap_or_default())
            .parse()
            .expect("a blob is named by its digest")
    }
}

/// The image as an archive of `docker save`, whose layers are plain tars.
#[derive(Debug)]
pub struct DockerArchive {
    /// As it is saved.
    pub plain: PathBuf,
    /// As people pack it then.
    pub gzip: PathBuf,
    /// How many bytes it has as it is saved.
    pub size: u64,
}

/// As buildah, podman and skopeo write it: a marker after each MiB.
pub const GZIP: &str = "gzip";
/// As docker writes it: one plain stream.
pub const PLAIN_GZIP: &str = "plain gzip";
/// As buildah and docker write it: one frame, a window of 8 MiB.
pub const ZSTD: &str = "zstd";

impl Input {
    /// The layer of about `megabytes` decoded; makes it if it was not made yet.
    pub fn of(megabytes: u64) -> Self {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        let dir = target.join(format!("input-{VERSION}-{megabytes}"));
        if !dir.join("list").exists() {
            super::say(&format!("making a layer of {megabytes} MB"));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).expect("target is writable");
            make(&dir, megabytes << 20).unwrap_or_else(|error| panic!("no input: {error}"));
        }
        Self::read(dir).unwrap_or_else(|error| panic!("target/bench is damaged: {error}"))
    }

    /// A layer of a single file of about `megabytes`; makes it if it was not made yet. No
    /// file of most machines is so large, so its bytes are those of many.
    pub fn of_one_file(megabytes: u64) -> Self {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        let dir = target.join(format!("file-{VERSION}-{megabytes}"));
        if !dir.join("list").exists() {
            super::say(&format!("making a file of {megabytes} MB"));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).expect("target is writable");
            make_file(&dir, megabytes << 20).unwrap_or_else(|error| panic!("no input: {error}"));
        }
        Self::read(dir).unwrap_or_else(|error| panic!("target/bench is damaged: {error}"))
    }

    /// The image as `docker save` writes it; makes it if it was not made yet.
    pub fn docker_archive(&self) -> DockerArchive {
        let place = |name: &str| self.dir.join(name);
        let (plain, gzip) = (place("docker.tar"), place("docker.tar.gz"));
        if !gzip.exists() {
            super::say("making an archive of docker");
            let half = place("half");
            for old in [&plain, &half] {
                let _ = fs::remove_file(old);
            }
            let from = format!("oci:{}:{REF}", place(GZIP).display());
            let to = format!("docker-archive:{}:{REF}:1", half.display());
            run_ok("skopeo", &["copy", "-q", &from, &to]);
            fs::rename(&half, &plain).expect("target is writable");
            let out = File::create(&half).expect("target is writable");
            let mut command = Command::new("gzip");
            let status = command.args(["-6nc"]).arg(&plain).stdout(out).status();
            assert!(status.is_ok_and(|status| status.success()), "{command:?}");
            fs::rename(&half, &gzip).expect("target is writable");
        }
        let size = fs::metadata(&plain).expect("it was made").len();
        DockerArchive { plain, gzip, size }
    }

    fn read(dir: PathBuf) -> io::Result<Self> {
        let list = fs::read_to_string(dir.join("list"))?;
        let mut lines = list.lines();
        let decoded = lines.next().and_then(|line| line.parse().ok());
        let sized = lines.filter_map(|line| line.split_once(' '));
        let sized: Vec<_> = sized.collect();
        let file = |(size, path): &(&str, &str)| Some((path.into(), size.parse().ok()?));
        Ok(Self {
            decoded: decoded.ok_or(io::ErrorKind::InvalidData)?,
            files: sized.iter().filter_map(file).collect(),
            entries: sized.len() as u64,
            dir,
        })
    }

    /// The layer as it is stored in one of the ways.
    pub fn stored(&self, name: &'static str) -> Stored {
        let layout = self.dir.join(name);
        let blobs = fs::read_dir(layout.join("blobs/sha256")).expect("the layout was made");
        let sized = blobs.flatten().map(|entry| {
            let size = entry.metadata().map_or(0, |metadata| metadata.len());
            (size, entry.path())
        });
        let (size, blob) = sized.max().expect("the layout has blobs");
        Stored {
            name,
            layout,
            blob,
            size,
            decoded: self.decoded,
        }
    }
}

/// Something to put into the tar.
struct Pick {
    path: PathBuf,
    /// Nothing but for regular files, each link but the first left aside.
    size: Option<u64>,
}

fn make_file(dir: &Path, size: u64) -> io::Result<()> {
    const NAME: &str = "file";
    let path = dir.join(NAME);
    let mut out = File::create(&path)?;
    let mut written = 0;
    for pick in pick(size)?.iter().filter(|pick| pick.size.is_some()) {
        written += io::copy(&mut File::open(&pick.path)?, &mut out)?;
    }
    let layout = TestLayout::new();
    let tar = layout.layer_of_stream(Compression::None, |out| {
        let place = format!("--directory={}", dir.display());
        stream(Command::new("tar").args(["--create", &place, NAME]), out)
    });
    layout.add_ref(REF, &layout.image(std::slice::from_ref(&tar)));
    copy(&layout, &dir.join(GZIP), "gzip");
    fs::remove_file(path)?;
    fs::write(
        dir.join("list"),
        format!("{}\n{written} {NAME}\n", tar.tar_size),
    )
}

fn make(dir: &Path, size: u64) -> io::Result<()> {
    let picks = pick(size)?;
    let names = dir.join("names");
    let mut out = io::BufWriter::new(File::create(&names)?);
    for pick in &picks {
        out.write_all(pick.path.as_os_str().as_bytes())?;
        out.write_all(b"\n")?;
    }
    out.into_inner()?;

    let layout = TestLayout::new();
    let tar = layout.layer_of_stream(Compression::None, |out| write_tar(&names, out));
    layout.add_ref(REF, &layout.image(std::slice::from_ref(&tar)));
    copy(&layout, &dir.join(GZIP), "gzip");
    copy(&layout, &dir.join(ZSTD), "zstd");

    let plain = TestLayout::new();
    let bytes = run_ok(
        "gzip",
        &[
            "-6nc".as_ref(),
            layout.blob_path(&tar.descriptor).as_os_str(),
        ],
    );
    let mut gzip = tar.clone();
    gzip.descriptor = plain.blob(Compression::Gzip.media_type(), &bytes);
    plain.add_ref(REF, &plain.image(&[gzip]));
    copy(&plain, &dir.join(PLAIN_GZIP), "gzip");

    let mut list = format!("{}\n", tar.tar_size);
    for pick in &picks {
        let size = pick.size.map_or("-".to_owned(), |size| size.to_string());
        let path = pick.path.strip_prefix("/").unwrap_or(&pick.path);
        list.push_str(&format!("{size} {}\n", path.display()));
    }
    fs::write(dir.join("list"), list)
}

/// Copies an image as other tools do; what is compressed already stays as it is.
fn copy(layout: &TestLayout, to: &Path, format: &str) {
    let place = |path: &Path| format!("oci:{}:{REF}", path.display());
    let (from, to) = (place(layout.path()), place(to));
    run_ok(
        "skopeo",
        &["copy", "-q", "--dest-compress-format", format, &from, &to],
    );
}

fn write_tar(names: &Path, out: &mut dyn Write) -> io::Result<()> {
    let mut tar = Command::new("tar");
    tar.args([
        "--create",
        "--no-recursion",
        "--absolute-names",
        "--transform=s,^/,,",
    ])
    .args(["--format=posix", "--numeric-owner", "--verbatim-files-from"])
    .arg("--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime")
    .arg("--files-from")
    .arg(names);
    stream(&mut tar, out)
}

/// Copies what a program says.
fn stream(program: &mut Command, out: &mut dyn Write) -> io::Result<()> {
    let mut child = program.stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().expect("it is piped");
    io::copy(&mut stdout, out)?;
    child
        .wait()?
        .success()
        .then_some(())
        .ok_or_else(|| io::Error::other("tar failed"))
}

/// Files of about `size` bytes together and the directories above them, in order.
fn pick(size: u64) -> io::Result<Vec<Pick>> {
    let mut found = Vec::new();
    find(Path::new(ROOT), fs::metadata(ROOT)?.dev(), &mut found)?;
    let hash = |path: &Path| Digest::of(path.as_os_str().as_bytes()).to_string();
    found.sort_by_cached_key(|(path, _)| (path.parent().map(hash), hash(path)));
    let (mut picks, mut total) = (Vec::new(), 0);
    let mut taken = HashMap::<PathBuf, u64>::new();
    let (mut dirs, mut inodes) = (HashSet::new(), HashSet::new());
    for (path, metadata) in found {
        let is_first = metadata.is_file() && inodes.insert(metadata.ino());
        let file_size = is_first.then_some(metadata.len());
        // Neither one file nor one directory must be most of a small layer.
        let len = 512 + file_size.unwrap_or(0).next_multiple_of(512);
        let of_dir = taken.entry(path.with_file_name("")).or_default();
        if len > size / 10 || *of_dir + len > size / 5 || total + len > size {
            continue;
        }
        *of_dir += len;
        total += len;
        dirs.extend(path.ancestors().skip(1).map(Path::to_owned));
        picks.push(Pick {
            path,
            size: file_size,
        });
    }
    if total < size / 10 * 9 {
        return Err(io::Error::other(format!("{ROOT} has only {total} bytes")));
    }
    dirs.remove(Path::new("/"));
    picks.extend(dirs.into_iter().map(|path| Pick { path, size: None }));
    picks.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(picks)
}

/// Files and links below `dir` on the same device whose names are plain text.
fn find(dir: &Path, device: u64, found: &mut Vec<(PathBuf, fs::Metadata)>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_plain = |text: &str| !text.chars().any(char::is_control);
        if !path.to_str().is_some_and(is_plain) {
            continue;
        }
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() && metadata.dev() == device {
            find(&path, device, found)?;
        } else if metadata.is_file() || metadata.is_symlink() {
            found.push((path, metadata));
        }
    }
    Ok(())
}
