//! The others: command-line tools, mounts of archives, and Python libraries.
//!
//! What is not installed has no runs, and shows as missing.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::Random;
use crate::input::{Input, Stored};
use crate::table::Table;

/// For how long a peer reads at random: some need a second for each read.
const PATIENCE: Duration = Duration::from_secs(4);

/// Files of at least so many bytes are read of a tree: the cost of looking files up
/// shall not count.
const LARGE: u64 = 1 << 20;

/// What is looked for, beside what each row says.
const PROGRAMS: [&str; 9] = [
    "gzip",
    "pigz",
    "zstd",
    "tar",
    "ratarmount",
    "python3",
    "archivemount",
    "bsdcat",
    "fuse-archive",
];

/// Where `scripts/bench` installs those from PyPI.
fn venv() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/venv/bin")
}

/// A program of the virtual environment, or else of the system.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = [venv()].into_iter().chain(std::env::split_paths(&path));
    let mut files = dirs.map(|dir| dir.join(program));
    files.find(|file| file.is_file())
}

/// Says which peers this machine does not have.
pub fn name_missing(table: &mut Table) {
    for program in PROGRAMS {
        if find(program).is_none() {
            table.note(format!(
                "{program} is missing: no package of it could be installed"
            ));
        }
    }
}

/// How long a command takes; nothing if there is no such program.
pub fn time(program: &str, arguments: &[&str], file: &Path) -> Option<Duration> {
    let mut command = Command::new(find(program)?);
    command.args(arguments).arg(file).stdout(Stdio::null());
    let start = Instant::now();
    let status = command
        .status()
        .expect("a program that was found can be started");
    assert!(status.success(), "{command:?}: {status}");
    Some(start.elapsed())
}

/// How long `tar` takes to unpack a layer into memory.
pub fn unpack(stored: &Stored) -> Option<Duration> {
    let dir = TempDir::new_in("/dev/shm").ok()?;
    let place = format!("--directory={}", dir.path().display());
    time("tar", &[&place, "-xzf"], &stored.blob)
}

/// A file system that shows the files in the layer's tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFs {
    Ratarmount,
    Archivemount,
    FuseArchive,
}

impl ArchiveFs {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ratarmount => "ratarmount",
            Self::Archivemount => "archivemount",
            Self::FuseArchive => "fuse-archive",
        }
    }

    /// Mounts a layer; nothing if the program is missing. What it keeps between mounts
    /// is kept beside the layout.
    pub fn mount(self, stored: &Stored) -> Option<ArchiveMount> {
        let mut command = Command::new(find(self.name())?);
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let mountpoint = dir.path().join("mnt");
        fs::create_dir(&mountpoint).expect("it is writable");
        match self {
            Self::Ratarmount => {
                let index = stored.layout.with_extension("ratarmount");
                command.arg("--index-file").arg(index);
            }
            Self::Archivemount => {
                command.args(["-o", "readonly"]);
            }
            Self::FuseArchive => {}
        }
        command.arg(&stored.blob).arg(&mountpoint);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let status = command
            .status()
            .expect("a program that was found can be started");
        assert!(status.success(), "{command:?}: {status}");
        Some(ArchiveMount {
            mountpoint,
            _dir: dir,
        })
    }
}

/// Such a mount; it goes with the value.
pub struct ArchiveMount {
    mountpoint: PathBuf,
    /// Holds the mount point; goes last.
    _dir: TempDir,
}

impl ArchiveMount {
    fn open(&self, path: &Path) -> File {
        let path = self.mountpoint.join(path);
        File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Lists the root.
    pub fn list(&self) {
        let names = fs::read_dir(&self.mountpoint).expect("the mount answers");
        assert!(names.count() > 0);
    }

    /// Reads 4 KiB of a file in the middle of the tar.
    pub fn read_in_the_middle(&self, input: &Input) {
        let files: Vec<_> = large(input).collect();
        let (path, size) = files[files.len() / 2];
        let read = self.open(path).read_exact_at(&mut [0; 4096], size / 2);
        read.expect("a file in the mount is readable");
    }

    /// The times of reads of 4 KiB at random places, opening not counted.
    pub fn random_reads(&self, input: &Input, count: usize, seed: u64) -> Vec<Duration> {
        let files: Vec<_> = large(input).collect();
        let total = files.iter().map(|(_, size)| size / 4096).sum();
        let (mut random, begin) = (Random::of_seed(seed), Instant::now());
        let mut times = Vec::new();
        while times.len() < count && begin.elapsed() < PATIENCE {
            let mut page = random.within(0..total);
            let mut rest = files.iter();
            let (path, _) = rest
                .find(|(_, size)| {
                    let is_here = page < size / 4096;
                    page -= if is_here { 0 } else { size / 4096 };
                    is_here
                })
                .expect("the pages are those of all files");
            let file = self.open(path);
            let start = Instant::now();
            let read = file.read_exact_at(&mut [0; 4096], page * 4096);
            read.expect("a file in the mount is readable");
            times.push(start.elapsed());
        }
        times
    }

    /// Reads large files in the order of the tar, as far as patience goes; returns bytes
    /// and time.
    pub fn read_in_order(&self, input: &Input) -> (u64, Duration) {
        let (mut bytes, begin) = (0, Instant::now());
        for (path, _) in large(input) {
            bytes += super::serve::read_all(self.open(path));
            if begin.elapsed() > PATIENCE {
                break;
            }
        }
        (bytes, begin.elapsed())
    }
}

impl Drop for ArchiveMount {
    fn drop(&mut self) {
        let mut command = Command::new("fusermount3");
        let status = command.arg("-uz").arg(&self.mountpoint).status();
        if !status.is_ok_and(|status| status.success()) {
            super::say(&format!("{} stays mounted", self.mountpoint.display()));
        }
    }
}

fn large(input: &Input) -> impl Iterator<Item = (&PathBuf, u64)> {
    let files = input.files.iter().map(|(path, size)| (path, *size));
    files.filter(|(_, size)| *size >= LARGE)
}

/// A Python library that reads gzip at random, with a saved index.
#[derive(Debug, Clone, Copy)]
pub struct Library(pub &'static str);

impl Library {
    fn command(self, stored: &Stored, what: &str) -> Option<Command> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/library.py");
        let python = venv().join("python3");
        let mut command = Command::new(python.is_file().then_some(python)?);
        command.arg(script).arg(self.0).arg(&stored.blob);
        command.arg(stored.layout.with_extension(self.0)).arg(what);
        Some(command)
    }

    /// The times of reads of 4 KiB at random places.
    pub fn random_reads(self, stored: &Stored, count: usize, seed: u64) -> Vec<Duration> {
        let Some(mut command) = self.command(stored, "random") else {
            return Vec::new();
        };
        let mut random = Random::of_seed(seed);
        let pages = stored.decoded / 4096;
        let places: String = (0..count)
            .map(|_| format!("{}\n", random.within(0..pages) * 4096))
            .collect();
        command.arg(PATIENCE.as_secs().to_string());
        lines(command, &places)
            .into_iter()
            .map(Duration::from_secs_f64)
            .collect()
    }

    /// How long it takes to read all.
    pub fn read_all(self, stored: &Stored) -> Option<Duration> {
        let times = lines(self.command(stored, "sequential")?, "");
        times.first().copied().map(Duration::from_secs_f64)
    }
}

/// The numbers that a program prints; none if it fails, for which it says why itself.
fn lines(mut command: Command, input: &str) -> Vec<f64> {
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.expect("a program that was found can be started");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin
        .write_all(input.as_bytes())
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    drop(stdin);
    let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
    let numbers = stdout.lines().map_while(Result::ok);
    let numbers = numbers.filter_map(|line| line.parse().ok()).collect();
    let status = child.wait().expect("a child can be waited for");
    if status.success() {
        numbers
    } else {
        Vec::new()
    }
}
