//! Sessions without a mount: what they may take, and what is told where that is over.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ocifs::ingest::{Ingest, IngestOptions};
use ocifs::oci::media_type::LayerCompression;
use ocifs::store::layout::Committer;
use ocifs::store::layout::refs::Collision;
use ocifs::store::{Layout, LayoutWriter, Verdicts};
use ocifs::vfs::dropbox::session::{SessionLimits, Sessions, SessionsOptions};
use ocifs::vfs::dropbox::{Commits, DropBox, DropBoxOptions, Limits};
use ocifs::vfs::node::OpenFile;
use ocifs::vfs::writable::{AttrChange, Holder, NewNode, OpenMode, Removal, XattrMode};
use ocifs::vfs::{Caller, Error, Handle, Ino, Vfs};

use crate::common::{Fingerprint, Need, TestLayout, has, verify_layout};
use crate::sample::TestResult;

const KIB: usize = 1024;

const LIMITS: SessionLimits = SessionLimits {
    session_size: 256 * KIB as u64,
    session_files: 4,
    session_time: Duration::from_secs(3600),
    user_sessions: 2,
    user_size: 384 * KIB as u64,
    user_files: 6,
};

const WRITE: OpenMode = OpenMode {
    read: true,
    write: true,
    append: false,
    truncate: false,
    exclusive: false,
};

/// The drop box of a layout, as the root of a tree.
struct Incoming {
    dropbox: Arc<DropBox>,
    vfs: Vfs,
    caller: Caller,
}

impl Incoming {
    fn of(layout: &TestLayout) -> TestResult<Self> {
        let opened = Arc::new(Layout::open(layout.path(), &[])?);
        let verdicts = Arc::new(Verdicts::new(None));
        let writer = LayoutWriter::open(&opened, verdicts.clone())?;
        let observer = Box::new(|_| ());
        let view = opened.read_index()?;
        let committer = Arc::new(Committer::new(writer.clone(), view, observer));
        let options = SessionsOptions {
            collision: Collision::Refuse,
            compression: LayerCompression::Gzip,
            limits: LIMITS,
        };
        let sessions = Sessions::open(opened.clone(), committer.clone(), verdicts, options)?;
        let ingest = Ingest::new(writer, IngestOptions::default());
        let commits = Commits::new(committer, ingest, Collision::Refuse);
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let caller = Caller {
            uid: uid.as_raw(),
            gid: gid.as_raw(),
            pid: 0,
        };
        let options = DropBoxOptions {
            owner: (caller.uid, caller.gid),
            mode: 0o755,
            limits: Limits::default(),
        };
        let dropbox = DropBox::new(commits, Some(sessions), options);
        let vfs = Vfs::new(dropbox.node(), opened);
        Ok(Self {
            dropbox,
            vfs,
            caller,
        })
    }

    fn mkdir(&self, parent: Ino, name: &str) -> Result<Ino, Error> {
        let at = (parent, name.as_bytes());
        let made = self.vfs.make(&self.caller, at, NewNode::Directory(0o755))?;
        Ok(made.ino)
    }

    fn create(&self, parent: Ino, name: &str) -> Result<(Ino, Open<'_>), Error> {
        let at = (parent, name.as_bytes());
        let created = self.vfs.create(&self.caller, at, 0o644, WRITE)?;
        let open = Open {
            incoming: self,
            handle: created.handle,
            file: created.file,
        };
        Ok((created.entry.ino, open))
    }

    fn open(&self, ino: Ino) -> Result<Open<'_>, Error> {
        let (handle, file) = self.vfs.open_as(&self.caller, ino, WRITE)?;
        Ok(Open {
            incoming: self,
            handle,
            file,
        })
    }

    fn remove(&self, parent: Ino, name: &str) -> Result<(), Error> {
        let at = (parent, name.as_bytes());
        self.vfs.remove(&self.caller, at, Removal::File)
    }

    fn commit(&self, session: Ino, name: &str) -> Result<(), Error> {
        let (order, name) = (b"user.oci.commit", name.as_bytes());
        self.vfs
            .set_xattr(&self.caller, session, order, name, XattrMode::Set)
    }

    /// What is told beside a session.
    fn told(&self, session: &str) -> Option<String> {
        let name = format!("{session}.error");
        let entry = self.vfs.lookup(Ino::ROOT, name.as_bytes()).ok()?;
        let (handle, _) = self.vfs.open(entry.ino).ok()?;
        let mut text = vec![0; 4 * KIB];
        let len = self.vfs.read(handle, &mut text, 0).ok()?;
        self.vfs.release(handle);
        Some(String::from_utf8_lossy(&text[..len]).into_owned())
    }
}

/// An open file, closed when it is dropped.
struct Open<'a> {
    incoming: &'a Incoming,
    handle: Handle,
    file: Arc<dyn OpenFile>,
}

impl Open<'_> {
    fn write(&self, len: usize, offset: usize) -> Result<(), Error> {
        let (vfs, holder) = (&self.incoming.vfs, Holder::default());
        vfs.write(holder, self.handle, &vec![b'x'; len], offset as u64)
    }

    /// Writes as the kernel does where it asks nobody.
    fn write_unseen(&self, len: usize) -> TestResult {
        let file = self.file.backing().ok_or("it has a file")?;
        Ok(file.write_all_at(&vec![b'x'; len], 0)?)
    }

    fn flush(&self) -> Result<(), Error> {
        let (vfs, caller) = (&self.incoming.vfs, &self.incoming.caller);
        vfs.flush(Holder::default(), caller, self.handle)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.incoming.vfs.release(self.handle);
    }
}

fn limit<T>(result: Result<T, Error>) -> Option<&'static str> {
    let error = result.err()?;
    assert_eq!(error.errno(), libc::EFBIG, "{error}");
    error.fault().map(|fault| fault.code)
}

#[test]
fn room_in_a_session() -> TestResult {
    let layout = TestLayout::new();
    let incoming = Incoming::of(&layout)?;
    let job = incoming.mkdir(Ino::ROOT, "job")?;
    let (ino, file) = incoming.create(job, "f")?;
    file.write(200 * KIB, 0)?;
    file.flush()?;
    // What is written over is no more.
    for _ in 0..10 {
        file.write(200 * KIB, 0)?;
    }
    assert_eq!(incoming.told("job"), None);
    assert_eq!(
        limit(file.write(100 * KIB, 200 * KIB)),
        Some("LIMIT_SESSION_SIZE")
    );
    let told = incoming.told("job").ok_or("it is told")?;
    assert!(
        told.contains("over the limit of 262144 (bytes in a session)"),
        "{told}"
    );
    file.flush()?;
    drop(file);
    // Where nobody is asked, the close says so; then nothing more is begun, or published.
    let file = incoming.open(ino)?;
    file.write_unseen(300 * KIB)?;
    assert_eq!(limit(file.flush()), Some("LIMIT_SESSION_SIZE"));
    drop(file);
    assert_eq!(limit(incoming.open(ino)), Some("LIMIT_SESSION_SIZE"));
    assert_eq!(limit(incoming.create(job, "g")), Some("LIMIT_SESSION_SIZE"));
    let before = Fingerprint::of(&layout.path().join("blobs"));
    assert_eq!(
        limit(incoming.commit(job, "app")),
        Some("LIMIT_SESSION_SIZE")
    );
    assert!(Fingerprint::of(&layout.path().join("blobs")) == before);
    let shorter = AttrChange {
        size: Some(1000),
        ..AttrChange::default()
    };
    incoming
        .vfs
        .set_attr(&incoming.caller, ino, &shorter, None)?;
    let (_, file) = incoming.create(job, "g")?;
    file.write(200 * KIB, 0)?;
    file.flush()?;
    drop(file);
    incoming.remove(job, "g")?;
    let (_, file) = incoming.create(job, "h")?;
    file.write(200 * KIB, 0)?;
    file.flush()?;
    drop(file);
    incoming.commit(job, "app")?;
    assert_eq!(incoming.told("job"), None);
    assert_eq!(layout.entries().len(), 1);
    verify_layout(layout.path());
    Ok(())
}

#[test]
fn files_in_a_session() -> TestResult {
    let layout = TestLayout::new();
    let incoming = Incoming::of(&layout)?;
    let job = incoming.mkdir(Ino::ROOT, "job")?;
    let inner = incoming.mkdir(job, "d")?;
    drop(incoming.create(job, "a")?);
    drop(incoming.create(inner, "b")?);
    let link = NewNode::Symlink(b"a");
    let new = |name: &'static [u8]| incoming.vfs.make(&incoming.caller, (job, name), link);
    new(b"c")?;
    assert_eq!(limit(new(b"e")), Some("LIMIT_SESSION_FILES"));
    assert_eq!(
        limit(incoming.create(inner, "e")),
        Some("LIMIT_SESSION_FILES")
    );
    assert_eq!(limit(incoming.mkdir(job, "e")), Some("LIMIT_SESSION_FILES"));
    let told = incoming.told("job").ok_or("it is told")?;
    assert!(told.contains("limit of 4 (files in a session)"), "{told}");
    // One more name is no more file; it goes with the last one.
    let a = incoming.vfs.lookup(job, b"a")?.ino;
    incoming
        .vfs
        .link(&incoming.caller, a, (inner, b"a".as_slice()))?;
    incoming.remove(job, "a")?;
    assert!(limit(incoming.create(job, "e")).is_some());
    incoming.remove(inner, "a")?;
    drop(incoming.create(job, "e")?);
    assert!(limit(incoming.create(job, "g")).is_some());
    incoming.commit(job, "app")?;
    verify_layout(layout.path());
    Ok(())
}

#[test]
fn what_one_user_may_have() -> TestResult {
    if !has("what_one_user_may_have", &[Need::Root]) {
        return Ok(());
    }
    let layout = TestLayout::new();
    let mut incoming = Incoming::of(&layout)?;
    let one = incoming.mkdir(Ino::ROOT, "one")?;
    let two = incoming.mkdir(Ino::ROOT, "two")?;
    assert_eq!(
        limit(incoming.mkdir(Ino::ROOT, "three")),
        Some("LIMIT_SESSIONS")
    );
    let told = incoming.told("three").ok_or("it is told")?;
    assert!(told.contains("has 2 sessions"), "{told}");
    for (session, len) in [(one, 256), (two, 100)] {
        let (_, file) = incoming.create(session, "f")?;
        file.write(len * KIB, 0)?;
        file.flush()?;
    }
    let f = incoming.vfs.lookup(two, b"f")?.ino;
    let file = incoming.open(f)?;
    assert_eq!(
        limit(file.write(100 * KIB, 100 * KIB)),
        Some("LIMIT_USER_SIZE")
    );
    drop(file);
    for name in ["a", "b", "c"] {
        drop(incoming.create(one, name)?);
    }
    drop(incoming.create(two, "a")?);
    assert_eq!(limit(incoming.create(two, "b")), Some("LIMIT_USER_FILES"));
    // Of another user nothing was counted yet.
    incoming.caller.uid = 1000;
    let other = incoming.mkdir(Ino::ROOT, "other")?;
    let (_, file) = incoming.create(other, "f")?;
    file.write(200 * KIB, 0)?;
    drop(file);
    incoming.caller.uid = 0;
    // What is published counts no more.
    incoming.commit(one, "")?;
    drop(incoming.create(two, "b")?);
    incoming.mkdir(Ino::ROOT, "three")?;
    Ok(())
}

#[test]
fn sessions_that_nobody_uses() -> TestResult {
    let layout = TestLayout::new();
    let incoming = Incoming::of(&layout)?;
    let later = |seconds| Instant::now() + Duration::from_secs(seconds);
    let job = incoming.mkdir(Ino::ROOT, "job")?;
    incoming.dropbox.expire(later(3000));
    let (_, file) = incoming.create(job, "f")?;
    // Somebody has a file of it open for writing.
    incoming.dropbox.expire(later(4000));
    assert!(incoming.vfs.lookup(Ino::ROOT, b"job").is_ok());
    drop(file);
    incoming.dropbox.expire(later(4000));
    let found = incoming.vfs.lookup(Ino::ROOT, b"job");
    assert!(matches!(found, Err(Error::NotFound)), "{found:?}");
    assert!(matches!(incoming.create(job, "g"), Err(Error::Stale)));
    let told = incoming.told("job").ok_or("it is told")?;
    assert!(told.contains("LIMIT_SESSION_TIME"), "{told}");
    let sessions = std::fs::read_dir(layout.path().join(".ocifs/sessions"))?;
    assert_eq!(sessions.count(), 0);
    incoming.mkdir(Ino::ROOT, "job")?;
    Ok(())
}

/// Who begins to show a layout removes what is left of sessions whose makers were killed; one
/// that is just being made looks the same for a moment.
#[test]
fn who_begins_takes_no_session_from_its_maker() -> TestResult {
    const SESSIONS: usize = 500;
    let layout = TestLayout::new();
    let incoming = Incoming::of(&layout)?;
    let is_done = AtomicBool::new(false);
    let made = thread::scope(|scope| {
        let begin = || {
            while !is_done.load(Ordering::Relaxed) {
                drop(Incoming::of(&layout).expect("it begins"));
            }
        };
        for _ in 0..2 {
            scope.spawn(begin);
        }
        let made = (0..SESSIONS).try_for_each(|_| {
            let job = incoming.mkdir(Ino::ROOT, "job")?;
            let (file, open) = incoming.create(job, "f")?;
            drop(open);
            incoming.remove(job, "f")?;
            let at = (Ino::ROOT, &b"job"[..]);
            let removed = incoming
                .vfs
                .remove(&incoming.caller, at, Removal::Directory);
            for ino in [file, job] {
                incoming.vfs.forget(ino, 1);
            }
            removed
        });
        is_done.store(true, Ordering::Relaxed);
        made
    });
    made?;
    Ok(())
}

#[test]
fn what_is_there_from_before_counts() -> TestResult {
    let layout = TestLayout::new();
    let incoming = Incoming::of(&layout)?;
    let job = incoming.mkdir(Ino::ROOT, "job")?;
    let (_, file) = incoming.create(job, "f")?;
    file.write(250 * KIB, 0)?;
    drop(file);
    incoming.mkdir(job, "d")?;
    drop(incoming);
    // Who looks at files after they were closed may hold it for a moment.
    let found = (0..1000).find_map(|_| {
        thread::sleep(Duration::from_millis(5));
        let incoming = Incoming::of(&layout).ok()?;
        let job = incoming.vfs.lookup(Ino::ROOT, b"job").ok()?.ino;
        Some((incoming, job))
    });
    let (incoming, job) = found.ok_or("it is found again")?;
    let (_, file) = incoming.create(job, "g")?;
    assert_eq!(limit(file.write(20 * KIB, 0)), Some("LIMIT_SESSION_SIZE"));
    drop(file);
    incoming.mkdir(job, "e")?;
    assert_eq!(limit(incoming.mkdir(job, "h")), Some("LIMIT_SESSION_FILES"));
    Ok(())
}
