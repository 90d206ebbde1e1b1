//! Sessions are put to the trial: the power is cut after every step of publishing one, and
//! every call fails once. Their own files are real; the layout is on the simulated disk.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, Timespec, Timestamps};
use tempfile::TempDir;

use super::*;
use crate::ingest::tests::samples;
use crate::store::disk::simulated::trial::{self, Attempt, Case, Fault};
use crate::store::disk::simulated::{SimulatedDisk, Trouble};
use crate::store::layout::refs::Collision;
use crate::store::layout::{self, Committer};
use crate::store::{Layout, LayoutWriter, Verdicts};
use crate::vfs::dropbox::session::{SessionLimits, SessionsOptions};
use crate::vfs::writable::Caller;

const JOB: &[u8] = b"job";

const COMPRESSION: LayerCompression = LayerCompression::Gzip;

/// A session, and the layout that has its files.
struct Bench {
    sessions: Arc<Sessions>,
    tree: Arc<Tree>,
    name: RefName,
    is_published: bool,
    dir: TempDir,
}

impl Bench {
    /// A session with what `fill` makes in it, of a layout whose blobs and index are on
    /// `disk`.
    fn new(disk: &SimulatedDisk, fill: fn(&Path) -> io::Result<()>) -> Result<Self, Fault> {
        let dir = quick_directory()?;
        layout::init(dir.path())?;
        let layout = Arc::new(Layout::open(dir.path(), &[])?);
        let verdicts = Arc::new(Verdicts::new(None));
        let simulated = Arc::new(disk.clone());
        let writer = LayoutWriter::on(simulated, "layout".as_ref(), verdicts.clone());
        let first = writer.read_index()?;
        let committer = Arc::new(Committer::new(writer, first, Box::new(|_| {})));
        let options = SessionsOptions {
            collision: Collision::Refuse,
            compression: COMPRESSION,
            limits: SessionLimits::default(),
        };
        let sessions = Sessions::open(layout, committer, verdicts, options)?;
        let caller = Caller {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            pid: 0,
        };
        sessions.make(&caller, JOB, 0o755)?;
        fill(&dir.path().join(".ocifs/sessions/job/tree"))?;
        Ok(Self {
            tree: sessions.tree(JOB).ok_or("it was made")?,
            sessions,
            name: "app".parse()?,
            is_published: false,
            dir,
        })
    }

    fn publish(&mut self) -> Result<(), Error> {
        if !self.is_published {
            let ready = self.sessions.prepare(&self.tree, &self.name, COMPRESSION)?;
            self.sessions.bring_in(ready)?;
            self.is_published = true;
        }
        Ok(())
    }
}

/// A temporary directory in memory, where there is one: it is made thousands of times.
fn quick_directory() -> io::Result<TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}

/// A layout, one blob of which has a second name and must be copied.
fn fill_with_layout(tree: &Path) -> io::Result<()> {
    let mut linked = false;
    for (path, bytes) in samples::layout_files() {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        fs::write(&path, bytes)?;
        if path.parent().is_some_and(|above| above.ends_with("sha256")) && !linked {
            fs::hard_link(&path, tree.join("second-name"))?;
            linked = true;
        }
    }
    Ok(())
}

/// A tree that is packed the same each time.
fn fill_with_tree(tree: &Path) -> io::Result<()> {
    fs::create_dir(tree.join("etc"))?;
    fs::write(tree.join("etc/passwd"), "root")?;
    symlink("passwd", tree.join("etc/link"))?;
    let past = Timespec {
        tv_sec: 1_000_000_000,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: past,
        last_modification: past,
    };
    for path in ["etc/passwd", "etc/link", "etc", "."] {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(CWD, tree.join(path), &times, flags)?;
    }
    Ok(())
}

fn case(name: &str, fill: fn(&Path) -> io::Result<()>) -> Case<'static> {
    let begin = move |disk: &SimulatedDisk| {
        let mut bench = Bench::new(disk, fill)?;
        let attempt: Attempt<'static> = Box::new(move || {
            // The error as the program sees it that renames the session.
            let seen = |error: Error| io::Error::from_raw_os_error(error.errno());
            Ok(bench.publish().map_err(seen)?)
        });
        Ok(attempt)
    };
    let prepare = |disk: &SimulatedDisk| {
        disk.put("index.json", samples::EMPTY)?;
        disk.settle();
        Ok(())
    };
    Case::begun(name, prepare, begin)
}

fn cases() -> [Case<'static>; 2] {
    [
        case("a layout", fill_with_layout),
        case("a tree", fill_with_tree),
    ]
}

#[test]
fn after_a_power_cut_there_is_all_or_nothing() -> Result<(), Fault> {
    trial::assert_all_or_nothing("sessions", &cases(), 40)
}

#[test]
fn who_renames_is_told_what_the_disk_says() -> Result<(), Fault> {
    trial::assert_failures_are_told(&cases())
}

/// Also where some of them are in the layout by then.
#[test]
fn files_that_are_not_taken_stay_as_they_were() -> Result<(), Fault> {
    let private = |path: &Path| -> io::Result<Vec<u32>> {
        let files = fs::read_dir(path.join("blobs/sha256"))?;
        files
            .map(|file| Ok(file?.metadata()?.mode() & 0o777))
            .collect()
    };
    let (mut failing, mut given_back) = (0, 0);
    loop {
        let disk = SimulatedDisk::default();
        disk.put("index.json", samples::EMPTY)?;
        let mut bench = Bench::new(&disk, fill_with_layout)?;
        let tree = bench.dir.path().join(".ocifs/sessions/job/tree");
        for file in fs::read_dir(tree.join("blobs/sha256"))? {
            fs::set_permissions(file?.path(), Permissions::from_mode(0o600))?;
        }
        disk.expect(Trouble::Failure(failing, libc::EIO));
        if bench.publish().is_ok() {
            break;
        }
        let left = private(&tree)?;
        assert!(
            left.iter().all(|mode| *mode == 0o600),
            "step {failing}: {left:?}"
        );
        given_back += left.len();
        failing += 1;
    }
    assert!(
        failing > 10 && given_back > failing,
        "{failing} steps, {given_back} files"
    );
    Ok(())
}
