//! Publishing sessions: what it does to those who ask for something else meanwhile, and that
//! nothing published changes afterwards.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use crate::common::{Fingerprint, Need, has};
use crate::forgetting::caches_are_kept;
use crate::sessions::{Bench, errno, wait};

/// How much of what cannot be compressed takes a moment to pack.
const LARGE: &str = "64M";

/// How much longer than usual somebody else may wait. Twice what is promised: this machine may
/// have more to do than that.
const LONGEST: Duration = Duration::from_millis(200);

/// After so many waits that were longer it is not the machine: a directory that is locked
/// while a tree is packed is locked each time, for seconds.
const ATTEMPTS: usize = 5;

/// Where the shell is that moves a session, and what it says.
const MOVES: [(&str, &str); 6] = [
    ("outside", r#"mv -T "$IN/outside" "$MNT/outside""#),
    ("root", r#"cd "$MNT"; mv -T incoming/root root"#),
    ("box", r#"cd "$IN"; mv -T box ../box"#),
    ("inside", r#"cd "$IN/inside"; mv -T ../inside ../../inside"#),
    (
        "deeper",
        r#"cd "$IN/deeper/etc"; mv -T ../../deeper ../../../deeper"#,
    ),
    ("commit", r#""$OCIFS" commit "$MNT" commit"#),
];

/// Asks for names that are not there while `script` runs; how many, and the slowest answer.
fn ask_meanwhile(bench: &Bench, name: &str, script: &str) -> (usize, Duration) {
    let mut child = bench.start(script);
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    while child.try_wait().expect("it is our child").is_none() {
        let began = Instant::now();
        let answer = fs::metadata(bench.mount.join(format!("{name}-{asked}")));
        slowest = slowest.max(began.elapsed());
        assert_eq!(errno(answer), Some(libc::ENOENT));
        asked += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    wait(child);
    (asked, slowest)
}

#[test]
fn publishing_freezes_nothing() {
    let needs = [Need::Fuse, Need::Root];
    if !has("publishing_freezes_nothing", &needs) {
        return;
    }
    let _caches = caches_are_kept();
    for (name, script) in MOVES {
        let mut waits = Vec::new();
        let mut attempts = (0..ATTEMPTS).map(|_| publish_and_ask(name, script));
        let is_short = attempts.any(|slowest| {
            waits.push(slowest);
            slowest < LONGEST
        });
        assert!(is_short, "{name}: {waits:?}");
    }
}

/// Publishes a large tree by `script`; the slowest answer meanwhile.
fn publish_and_ask(name: &str, script: &str) -> Duration {
    let bench = Bench::new(&[]);
    bench.ok(&format!(
        r#"mkdir -p "$IN/{name}/etc"; head -c {LARGE} /dev/urandom > "$IN/{name}/etc/large""#
    ));
    let (asked, slowest) = ask_meanwhile(&bench, name, script);
    assert!(asked >= 5, "{name}: it was over before anybody could ask");
    let large = fs::metadata(bench.mount.join(name).join("rootfs/etc/large"));
    assert_eq!(large.map(|stat| stat.size()).ok(), Some(64 << 20), "{name}");
    slowest
}

/// How often a session is published and looked at.
fn rounds() -> usize {
    let rounds = std::env::var("OCIFS_PUBLISHES").ok();
    rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(50)
}

#[test]
fn what_is_published_is_there_at_once() {
    if !has("what_is_published_is_there_at_once", &[Need::Fuse]) {
        return;
    }
    let bench = Bench::new(&[]);
    let rounds = rounds();
    // The name is looked up before, so that the kernel knows that it is not there.
    let script = |enter: &str, publish: &str| {
        format!(
            r#"for n in $(seq {rounds}); do
                mkdir "$IN/job"; echo $n > "$IN/job/f"; test ! -e "$MNT/new:$n"
                {enter}
                {publish}
                ls "$MNT/new:$n/manifest.json" > /dev/null
                test "$(cat "$MNT/new:$n/rootfs/f")" = $n
                test ! -e "$IN/job"
                cd "$MNT"; ls "new:$n/manifest.json" > /dev/null
            done"#
        )
    };
    bench.ok(&script(":", r#"mv -T "$IN/job" "$MNT/new:$n""#));
    assert_eq!(bench.refs().len(), rounds);
    let bench = Bench::new(&[]);
    bench.ok(&script(r#"cd "$IN/job""#, r#"mv -T ../job "../../new:$n""#));
    assert_eq!(bench.refs().len(), rounds);
    let bench = Bench::new(&[]);
    bench.ok(&script(r#"cd "$IN""#, r#"mv job "../new:$n""#));
    assert_eq!(bench.refs().len(), rounds);
    bench.verify();
}

/// Opens a file of a session in every way by which it might be written to later, tries to
/// publish, and after publishing tries all of them.
const WRITER: &str = r#"
import errno, mmap, os, sys, time
job, target, name = sys.argv[1:]
path = job + "/" + name

def refused():
    began = time.monotonic()
    try:
        os.rename(job, target)
    except OSError as error:
        assert error.errno == errno.EBUSY, error
        assert time.monotonic() - began < 4
        assert name.encode() in open(job + ".error", "rb").read()
        return
    sys.exit("it was published while it could be written to")

# Before publishing: who has it open, whatever for, may write later.
for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND):
    fd = os.open(path, flags)
    refused()
    if not flags & os.O_APPEND:
        assert os.pwrite(fd, open(path, "rb").read(1), 0) == 1
    os.close(fd)
fd = os.open(path, os.O_RDWR)
shared = mmap.mmap(fd, 4096)
seen = mmap.mmap(fd, 4096, prot=mmap.PROT_READ)
os.close(fd)
refused()
# The same byte: the content is still what its name says.
shared[0:1] = bytes(shared[0:1])
refused()
shared.close()
# A mapping for reading of a file that was opened for writing could be made writable.
refused()
seen.close()
# A child has inherited it.
fd = os.open(path, os.O_WRONLY)
os.set_inheritable(fd, True)
reader, writer = os.pipe()
if os.fork() == 0:
    os.close(writer)
    os.read(reader, 1)
    os._exit(0)
os.close(fd)
refused()
os.close(writer)
os.wait()

# What may stay open.
reader = os.open(path, os.O_RDONLY)
handle = os.open(path, os.O_PATH)
directory = os.open(job, os.O_RDONLY)
private = mmap.mmap(reader, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
before = os.pread(reader, 1 << 20, 0)
os.rename(job, target)

def fails(what, call):
    try:
        call()
    except OSError as error:
        assert error.errno in (errno.ESTALE, errno.ENOENT, errno.EBADF, errno.EACCES, errno.EBUSY,
                               errno.EROFS, errno.EPERM, errno.EXDEV, errno.EINVAL), (what, error)
        return
    sys.exit(what + " changed what is published")

private[0:4] = b"MINE"
fails("write", lambda: os.write(reader, b"x"))
fails("ftruncate", lambda: os.ftruncate(reader, 0))
fails("reopen", lambda: os.open("/proc/self/fd/%d" % reader, os.O_WRONLY))
fails("reopen a path", lambda: os.open("/proc/self/fd/%d" % handle, os.O_RDWR))
fails("open below", lambda: os.open(name, os.O_WRONLY, dir_fd=directory))
fails("truncate", lambda: os.truncate("/proc/self/fd/%d" % handle, 0))
fails("fchmod", lambda: os.fchmod(reader, 0o777))
fails("fchown", lambda: os.fchown(reader, 1, 1))
fails("utime", lambda: os.utime(reader, (1, 1)))
fails("setxattr", lambda: os.setxattr(reader, "user.x", b"y"))
fails("link", lambda: os.link("/proc/self/fd/%d" % handle, target + "-link", follow_symlinks=True))
fails("shared mapping", lambda: mmap.mmap(reader, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE))
assert os.pread(reader, 1 << 20, 0) == before
"#;

#[test]
fn nothing_published_changes_afterwards() {
    let name = "nothing_published_changes_afterwards";
    if !has(name, &[Need::Fuse, Need::Tool("python3")]) {
        return;
    }
    let rows = [
        (
            "a tree",
            r#"mkdir "$IN/job"; head -c 9000 /dev/urandom > "$IN/job/file"; echo file"#,
            "app",
        ),
        (
            "a layout",
            r#"cp -r "$GOLDEN/skopeo-uncompressed" "$IN/job"
            cd "$IN/job"; ls -S blobs/sha256/* | head -1"#,
            "app:1",
        ),
    ];
    for (row, make, name) in rows {
        let bench = Bench::new(&[]);
        fs::write(bench.dir.path().join("writer.py"), WRITER).expect("it is ours");
        let file = bench.ok(make);
        bench.ok(&format!(r#"python3 writer.py "$IN/job" "$MNT/app" {file}"#));
        assert_eq!(bench.refs(), [name], "{row}");
        let published = Fingerprint::of(&bench.layout.path().join("blobs"));
        bench.verify();
        for entry in fs::read_dir(bench.layout.path().join("blobs/sha256")).expect("it is there") {
            let stat = entry
                .and_then(|entry| entry.metadata())
                .expect("it is there");
            assert_eq!((stat.nlink(), stat.mode() & 0o777), (1, 0o644), "{row}");
        }
        drop(bench.mount);
        let later = Fingerprint::of(&bench.layout.path().join("blobs"));
        assert_eq!(later, published, "{row}");
    }
}
