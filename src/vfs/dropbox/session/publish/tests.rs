//! Sessions are put to the trial: the power is cut after every step of publishing one, and
//! every call fails once. Their own files are real; the layout is on the simulated disk.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

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
        let simulated = Arc::new(disk.clone());
        let verdicts = Arc::new(Verdicts::new(None));
        let writer = LayoutWriter::on(simulated, "layout".as_ref(), verdicts.clone());
        Self::of(dir, writer, verdicts, fill)
    }

    /// The same with all of it on a real disk.
    fn real(fill: fn(&Path) -> io::Result<()>) -> Result<Self, Fault> {
        let dir = tempfile::tempdir()?;
        layout::init(dir.path())?;
        let verdicts = Arc::new(Verdicts::new(None));
        let writer = LayoutWriter::open(&Layout::open(dir.path(), &[])?, verdicts.clone())?;
        Self::of(dir, writer, verdicts, fill)
    }

    fn of(
        dir: TempDir,
        writer: LayoutWriter,
        verdicts: Arc<Verdicts>,
        fill: fn(&Path) -> io::Result<()>,
    ) -> Result<Self, Fault> {
        let sessions = open(dir.path(), writer, verdicts)?;
        let of_thread = dir.path().metadata()?;
        let caller = Caller {
            uid: of_thread.uid(),
            gid: of_thread.gid(),
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

    /// The session's directory for blobs.
    fn blobs(&self) -> PathBuf {
        let session = self.dir.path().join(".ocifs/sessions/job");
        session.join("tree/blobs/sha256")
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

/// The sessions of a layout.
fn open(
    path: &Path,
    writer: LayoutWriter,
    verdicts: Arc<Verdicts>,
) -> Result<Arc<Sessions>, Fault> {
    let layout = Arc::new(Layout::open(path, &[])?);
    let first = writer.read_index()?;
    let committer = Arc::new(Committer::new(writer, first, Box::new(|_| {})));
    let options = SessionsOptions {
        collision: Collision::Refuse,
        compression: COMPRESSION,
        limits: SessionLimits::default(),
    };
    Ok(Sessions::open(layout, committer, verdicts, options)?)
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

/// As somebody can who had it open when the daemon that showed the session ended: the kernel
/// passes the writes through.
#[test]
fn a_file_that_somebody_else_has_open_is_in_use() -> Result<(), Fault> {
    let mut bench = Bench::real(fill_with_layout)?;
    let any = fs::read_dir(bench.blobs())?
        .next()
        .ok_or("it has blobs")??;
    let held = File::options().read(true).write(true).open(any.path())?;
    let refused = bench.publish().expect_err("it is in use");
    let path = format!("blobs/sha256/{}", any.file_name().display());
    assert_eq!(refused.to_string(), Error::in_use(&path).to_string());
    assert_eq!(refused.errno(), libc::EBUSY);
    assert!(
        !bench
            .dir
            .path()
            .join("blobs/sha256")
            .join(any.file_name())
            .exists()
    );
    drop(held);
    // Who only reads is in nobody's way.
    let _reader = File::open(any.path())?;
    Ok(bench.publish()?)
}

/// Lets this thread alone, and what it starts, be another user who may do no more than any.
#[expect(unsafe_code, reason = "the safe way is that of the whole process")]
fn become_plain_user() -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    // SAFETY: it takes a number and touches no memory.
    unsafe { libc::setfsuid(1000) };
    let dir = tempfile::tempdir()?;
    assert_eq!(dir.path().metadata()?.uid(), 1000);
    Ok(())
}

fn as_plain_user(test: fn() -> Result<(), Fault>) -> Result<(), Fault> {
    let work = move || -> Result<(), String> {
        become_plain_user().map_err(|error| error.to_string())?;
        test().map_err(|error| error.to_string())
    };
    Ok(std::thread::spawn(work).join().expect("no panic")?)
}

/// Where the name of a file cannot be taken away, the layout gets another file.
#[test]
fn files_in_a_directory_that_cannot_be_written_to_are_copied() -> Result<(), Fault> {
    as_plain_user(publish_from_read_only)
}

fn publish_from_read_only() -> Result<(), Fault> {
    let mut bench = Bench::real(fill_with_layout)?;
    let ours = bench.blobs();
    fs::set_permissions(&ours, Permissions::from_mode(0o555))?;
    let before: Vec<u64> = numbers(&ours)?;
    bench.publish()?;
    assert_eq!(numbers(&ours)?, before);
    let theirs = numbers(&bench.dir.path().join("blobs/sha256"))?;
    assert!(theirs.len() >= before.len() && theirs.iter().all(|number| !before.contains(number)));
    fs::set_permissions(&ours, Permissions::from_mode(0o755))?;
    Ok(())
}

/// Nobody goes on with a session of which a file is in the layout too; the next start takes
/// the name away.
#[test]
fn a_session_stays_sealed_where_a_name_stays() -> Result<(), Fault> {
    as_plain_user(leave_names)
}

fn leave_names() -> Result<(), Fault> {
    let bench = Bench::real(fill_with_layout)?;
    let (ours, theirs) = (bench.blobs(), bench.dir.path().join("blobs/sha256"));
    make_private(&ours)?;
    let ready = bench
        .sessions
        .prepare(&bench.tree, &bench.name, COMPRESSION)?;
    let Content::Layout(merge) = &ready.content else {
        return Err("it is a layout".into());
    };
    let own = merge.own.iter().filter(|own| own.copy.is_none());
    let own: Vec<Digest> = own.map(|own| own.digest.clone()).collect();
    fs::set_permissions(&ours, Permissions::from_mode(0o555))?;
    let refused = bench.sessions.bring_in(ready).expect_err("names stay");
    assert_eq!(refused.errno(), libc::EACCES);
    assert!(matches!(bench.tree.change(), Err(Error::Busy)));
    assert!(matches!(bench.tree.seal(), Err(Error::Busy)));
    let facts = |digest: &Digest| -> io::Result<(u32, u64, u64)> {
        let blob = fs::metadata(theirs.join(digest.encoded()))?;
        Ok((blob.mode() & 0o777, blob.nlink(), blob.ino()))
    };
    for digest in &own {
        let file = fs::metadata(ours.join(digest.encoded()))?;
        assert_eq!(facts(digest)?, (0o644, 2, file.ino()), "{digest}");
    }
    let Bench {
        sessions,
        tree,
        dir,
        ..
    } = bench;
    drop((sessions, tree));
    let verdicts = Arc::new(Verdicts::new(None));
    let writer = LayoutWriter::open(&Layout::open(dir.path(), &[])?, verdicts.clone())?;
    let sessions = open(dir.path(), writer, verdicts)?;
    let tree = sessions.tree(JOB).ok_or("it is shown")?;
    assert!(tree.change().is_ok());
    assert_eq!(fs::metadata(&ours)?.mode() & 0o777, 0o555);
    for digest in &own {
        assert!(!ours.join(digest.encoded()).exists(), "{digest}");
        let (mode, names, _) = facts(digest)?;
        assert_eq!((mode, names), (0o644, 1), "{digest}");
    }
    fs::set_permissions(&ours, Permissions::from_mode(0o755))?;
    Ok(())
}

/// What a file was is known until it is that again.
#[test]
fn files_that_cannot_be_given_back_are_given_back_later() -> Result<(), Fault> {
    as_plain_user(give_back_later)
}

fn give_back_later() -> Result<(), Fault> {
    let bench = Bench::real(fill_with_layout)?;
    let (ours, theirs) = (bench.blobs(), bench.dir.path().join("blobs/sha256"));
    let note = bench.dir.path().join(".ocifs/sessions/job/handed");
    make_private(&ours)?;
    for (mode, is_back) in [(0o000, false), (0o755, true)] {
        let ready = bench
            .sessions
            .prepare(&bench.tree, &bench.name, COMPRESSION)?;
        let Content::Layout(merge) = &ready.content else {
            return Err("it is a layout".into());
        };
        let first = merge.own.iter().find(|own| own.copy.is_none());
        let first = first.ok_or("some are taken as they are")?;
        // That cannot have its name.
        fs::create_dir_all(theirs.join(first.digest.encoded()))?;
        fs::set_permissions(&ours, Permissions::from_mode(mode))?;
        assert!(bench.sessions.bring_in(ready).is_err(), "{mode:o}");
        fs::set_permissions(&ours, Permissions::from_mode(0o755))?;
        let modes = modes(&ours)?;
        assert_eq!(
            modes.iter().all(|mode| *mode == 0o600),
            is_back,
            "{modes:?}"
        );
        assert_eq!(note.exists(), !is_back, "{mode:o}");
    }
    Ok(())
}

fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let files = fs::read_dir(directory)?;
    files.map(|file| Ok(file?.metadata()?.ino())).collect()
}

/// Modes of which those of a blob are others.
fn make_private(blobs: &Path) -> io::Result<()> {
    for file in fs::read_dir(blobs)? {
        fs::set_permissions(file?.path(), Permissions::from_mode(0o600))?;
    }
    Ok(())
}

fn modes(blobs: &Path) -> io::Result<Vec<u32>> {
    let files = fs::read_dir(blobs)?;
    files
        .map(|file| Ok(file?.metadata()?.mode() & 0o777))
        .collect()
}

/// Also where some of them are in the layout by then.
#[test]
fn files_that_are_not_taken_stay_as_they_were() -> Result<(), Fault> {
    let (mut failing, mut given_back) = (0, 0);
    loop {
        let disk = SimulatedDisk::default();
        disk.put("index.json", samples::EMPTY)?;
        let mut bench = Bench::new(&disk, fill_with_layout)?;
        let blobs = bench.blobs();
        make_private(&blobs)?;
        disk.expect(Trouble::Failure(failing, libc::EIO));
        if bench.publish().is_ok() {
            break;
        }
        let left = modes(&blobs)?;
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

/// What is refused when it was all looked at is not read again at the next try: neither what
/// the session still has, nor what the layout has taken.
#[test]
fn what_was_read_once_is_known_when_it_is_tried_again() -> Result<(), Fault> {
    type Hinder = fn(&Bench, &Merge) -> Result<(), Fault>;
    let rows: [(&str, Hinder, bool); 2] = [
        (
            "a name is taken meanwhile",
            |bench, _| {
                let entry = named(&descriptor(b"other"), "one")?;
                let blob = bench.sessions.writer().store(b"other")?;
                let taken = bench.sessions.committer.commit(&[blob], |draft| {
                    refs::merge(draft, &[entry], Collision::Refuse)
                });
                Ok(taken.map(drop)?)
            },
            true,
        ),
        (
            "the last blob cannot have its name",
            |bench, merge| {
                let last = merge.own.iter().rfind(|own| own.copy.is_none());
                let last = last.ok_or("some are taken as they are")?;
                let blobs = bench.dir.path().join("blobs/sha256");
                Ok(fs::create_dir(blobs.join(last.digest.encoded()))?)
            },
            false,
        ),
    ];
    for (row, hinder, is_taken) in rows {
        let bench = Bench::real(fill_with_layout)?;
        make_private(&bench.blobs())?;
        fs::create_dir_all(bench.dir.path().join("blobs/sha256"))?;
        let ready = bench
            .sessions
            .prepare(&bench.tree, &bench.name, COMPRESSION)?;
        let Content::Layout(merge) = &ready.content else {
            return Err(format!("{row}: it is a layout").into());
        };
        hinder(&bench, merge)?;
        let digests: Vec<Digest> = merge.own.iter().map(|own| own.digest.clone()).collect();
        assert!(bench.sessions.bring_in(ready).is_err(), "{row}");
        let places = [bench.blobs(), bench.dir.path().join("blobs/sha256")];
        let mut found = [0, 0];
        for (place, found) in places.iter().zip(&mut found) {
            for digest in &digests {
                let path = place.join(digest.encoded());
                if !path.is_file() {
                    continue;
                }
                *found += 1;
                let blob = Blob::new(digest.clone(), File::open(&path)?)?;
                let verdict = bench.sessions.verdicts.find(&blob);
                assert_eq!(verdict, Some(Verdict::Sound), "{row}: {}", path.display());
            }
        }
        assert!(
            found[1] > 2 && (is_taken || found[0] > 0),
            "{row}: {found:?}"
        );
        assert_eq!(modes(&places[0])?, vec![0o600; found[0]], "{row}");
        assert!(!bench.dir.path().join(".ocifs/sessions/job/handed").exists());
    }
    Ok(())
}

/// The verdict on a file that the layout takes is recorded when its name in the session has
/// gone, and not before: that would be one more, on a state that does not last.
#[test]
fn a_file_that_is_added_is_not_remembered_yet() -> Result<(), Fault> {
    let bench = Bench::real(|_| Ok(()))?;
    let path = bench.dir.path().join("file");
    fs::write(&path, "bytes")?;
    let (file, digest) = (File::open(&path)?, Digest::of(b"bytes"));
    let mut adoption = bench.sessions.writer().adoption();
    adoption.add(&file, &digest, 5)?;
    adoption.finish()?;
    assert_eq!(
        bench.sessions.verdicts.find(&Blob::new(digest, file)?),
        None
    );
    Ok(())
}

/// What the layout has of an image is read when that is packed: bringing it in reads nothing.
#[test]
fn an_image_that_is_there_is_looked_at_before_it_is_brought_in() -> Result<(), Fault> {
    let mut bench = Bench::real(fill_with_tree)?;
    bench.publish()?;
    let Bench {
        sessions,
        tree,
        dir,
        name,
        ..
    } = bench;
    drop((sessions, tree));
    // As another daemon, which knows nothing, and finds the session still there.
    let verdicts = Arc::new(Verdicts::new(None));
    let layout = Layout::open(dir.path(), &[])?;
    let writer = LayoutWriter::open(&layout, verdicts.clone())?;
    let sessions = open(dir.path(), writer, verdicts.clone())?;
    let tree = sessions.tree(JOB).ok_or("it was not taken away")?;
    let ready = sessions.prepare(&tree, &name, COMPRESSION)?;
    let Content::Packed(packed) = &ready.content else {
        return Err("it is a tree".into());
    };
    for (digest, _) in &packed.blobs {
        let verdict = verdicts.find(&layout.open_blob(digest)?);
        assert_eq!(verdict, Some(Verdict::Sound), "{digest}");
    }
    Ok(sessions.bring_in(ready)?)
}

fn descriptor(bytes: &[u8]) -> String {
    let (digest, size) = (Digest::of(bytes), bytes.len());
    format!(r#"{{"mediaType":"text/plain","digest":"{digest}","size":{size}}}"#)
}

/// What a daemon that was killed has left half done, the next one puts right.
#[test]
fn files_on_their_way_when_the_daemon_was_killed() -> Result<(), Fault> {
    let bench = Bench::real(|tree| fs::create_dir_all(tree.join("blobs/sha256")))?;
    let (place, ours) = (bench.dir.path().join(".ocifs/sessions/job"), bench.blobs());
    let theirs = bench.dir.path().join("blobs/sha256");
    fs::create_dir_all(&theirs)?;
    fs::create_dir_all(place.join("hidden"))?;
    let digest = |name: &str| Digest::of(name.as_bytes());
    let mut note = String::new();
    for name in ["handed over", "named", "lent", "not reached", "of its own"] {
        let (digest, file) = (digest(name), digest(name).encoded().to_owned());
        fs::write(ours.join(&file), name)?;
        let (uid, gid) = bench.tree.owner()?;
        let number = fs::metadata(ours.join(&file))?.ino();
        note += &format!("{digest} {number} {uid} {gid} 600\n");
        let mode = if name == "not reached" { 0o640 } else { 0o644 };
        fs::set_permissions(ours.join(&file), Permissions::from_mode(mode))?;
        match name {
            "named" => {
                fs::hard_link(ours.join(&file), theirs.join(&file))?;
                // It had been removed in the session, and made anew.
                fs::write(place.join("hidden").join(digest.as_str()), "")?;
            }
            "lent" => fs::rename(ours.join(&file), theirs.join(&file))?,
            // Made anew, and the layout has the same in another file.
            "of its own" => {
                fs::write(theirs.join(&file), name)?;
                fs::write(ours.join("new"), name)?;
                fs::rename(ours.join("new"), ours.join(&file))?;
            }
            _ => {}
        }
    }
    let note = [note.as_bytes(), b"sha256:cut\xff"].concat();
    fs::write(place.join("handed"), note)?;
    let Bench {
        sessions,
        tree,
        dir,
        ..
    } = bench;
    drop((sessions, tree));
    let verdicts = Arc::new(Verdicts::new(None));
    let writer = LayoutWriter::open(&Layout::open(dir.path(), &[])?, verdicts.clone())?;
    let sessions = open(dir.path(), writer, verdicts)?;
    assert!(sessions.tree(JOB).is_some(), "it is shown");
    let mode = |path: PathBuf| -> io::Result<(u32, u64)> {
        let metadata = fs::metadata(path)?;
        Ok((metadata.mode() & 0o777, metadata.nlink()))
    };
    for (name, here, there) in [
        ("handed over", Some((0o600, 1)), None),
        ("named", None, Some((0o644, 1))),
        ("lent", None, Some((0o644, 1))),
        ("not reached", Some((0o640, 1)), None),
        ("of its own", Some((0o644, 1)), Some((0o644, 1))),
    ] {
        let file = digest(name).encoded().to_owned();
        assert_eq!(mode(ours.join(&file)).ok(), here, "{name}");
        assert_eq!(mode(theirs.join(&file)).ok(), there, "{name}");
    }
    assert!(!place.join("handed").exists() && is_empty(&place.join("hidden"))?);
    Ok(())
}

/// As long as it cannot be seen what the layout has, nobody can go on with a session.
#[test]
fn a_session_is_not_shown_where_the_layout_cannot_be_looked_at() -> Result<(), Fault> {
    as_plain_user(hide_layout)
}

fn hide_layout() -> Result<(), Fault> {
    let bench = Bench::real(|tree| fs::create_dir_all(tree.join("blobs/sha256")))?;
    let digest = Digest::of(b"named");
    let ours = bench.blobs().join(digest.encoded());
    let theirs = bench.dir.path().join("blobs/sha256");
    fs::create_dir_all(&theirs)?;
    fs::write(&ours, "named")?;
    fs::hard_link(&ours, theirs.join(digest.encoded()))?;
    let Bench {
        sessions,
        tree,
        dir,
        ..
    } = bench;
    drop((sessions, tree));
    for (mode, is_shown) in [(0o000, false), (0o755, true)] {
        fs::set_permissions(&theirs, Permissions::from_mode(mode))?;
        let verdicts = Arc::new(Verdicts::new(None));
        let writer = LayoutWriter::open(&Layout::open(dir.path(), &[])?, verdicts.clone())?;
        let sessions = open(dir.path(), writer, verdicts)?;
        assert_eq!(sessions.tree(JOB).is_some(), is_shown, "{mode:o}");
        assert_eq!(ours.exists(), !is_shown, "{mode:o}");
    }
    Ok(())
}

fn is_empty(path: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(path)?.next().is_none())
}
