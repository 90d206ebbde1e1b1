//! Sessions: directories in the drop box that are published whole, or not at all.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;

use crate::common::{MountOptions, Need, TestLayout, TestMount, has, verify_layout};
use crate::patience::until;

const AT_ALL: Duration = Duration::from_secs(10);

/// A mount of an empty layout, and a directory beside it.
pub(crate) struct Bench {
    pub(crate) layout: TestLayout,
    pub(crate) mount: TestMount,
    pub(crate) dir: TempDir,
}

impl Bench {
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let layout = TestLayout::new();
        let mount = mount(layout.path(), arguments);
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        fs::write(dir.path().join("one"), "file one").expect("it is ours");
        Self { layout, mount, dir }
    }

    /// A script, to be run in the directory beside the mount: `$MNT` is that, `$IN` its drop
    /// box, `$GOLDEN` where layouts by other tools are.
    pub(crate) fn command(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        command
            .args(["-ec", script])
            .env("MNT", self.mount.path())
            .env("IN", self.mount.join("incoming"))
            .env(
                "GOLDEN",
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"),
            )
            .env("OCIFS", env!("CARGO_BIN_EXE_ocifs"))
            .env("HOME", self.dir.path())
            .env("LC_ALL", "C")
            .current_dir(self.dir.path());
        command
    }

    pub(crate) fn run(&self, script: &str) -> Output {
        let output = self.command(script).output();
        output.expect("there is a shell")
    }

    /// Runs a script that must succeed; what it printed.
    #[track_caller]
    pub(crate) fn ok(&self, script: &str) -> String {
        let output = self.run(script);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{script}: {said}\n{}",
            self.mount.stderr()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn start(&self, script: &str) -> Child {
        let mut command = self.command(script);
        command.stderr(Stdio::piped());
        command.spawn().expect("there is a shell")
    }

    /// The path of a name in the drop box.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.mount.join("incoming").join(name)
    }

    pub(crate) fn refs(&self) -> Vec<String> {
        let names = crate::sample::names(self.mount.path());
        names.into_iter().filter(|n| n != "incoming").collect()
    }

    pub(crate) fn verify(&self) {
        verify_layout(self.layout.path());
    }
}

fn mount(layout: &Path, arguments: &[&str]) -> TestMount {
    let mut options = MountOptions::new(layout);
    for argument in arguments {
        options = options.arg(argument);
    }
    options.start()
}

pub(crate) fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

pub(crate) fn wait(child: Child) -> String {
    let output = child.wait_with_output().expect("it is our child");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn what_skopeo_copies_in_is_published_by_mv() {
    let name = "what_skopeo_copies_in_is_published_by_mv";
    if !has(name, &[Need::Fuse, Need::Tool("skopeo")]) {
        return;
    }
    let bench = Bench::new(&[]);
    bench.ok(r#"mkdir "$IN/job"
        skopeo copy -q "oci:$GOLDEN/umoci-insert:app" "oci:$IN/job:team/app:1""#);
    assert!(bench.refs().is_empty(), "nothing is published before");
    bench.ok(r#"mv "$IN/job" "$MNT/""#);
    assert_eq!(bench.refs(), ["team"]);
    assert!(!bench.place("job").exists());
    bench.ok(r#"skopeo inspect "oci:$MNT/.ocifs/layout:team/app:1" > /dev/null
        diff "$MNT/team/app:1/manifest.json" \
            "$GOLDEN/umoci-insert/blobs/sha256/$(sha256sum < "$MNT/team/app:1/manifest.json" | cut -c1-64)""#);
    bench.verify();
}

#[test]
fn blobs_of_the_layout_need_not_be_copied() {
    let name = "blobs_of_the_layout_need_not_be_copied";
    if !has(name, &[Need::Fuse, Need::Tool("skopeo")]) {
        return;
    }
    let bench = Bench::new(&[]);
    bench.ok(r#"mkdir "$IN/one" "$IN/two"
        skopeo copy -q "oci:$GOLDEN/umoci-insert:app" "oci:$IN/one:one"
        mv "$IN/one" "$MNT/"
        test ! -e "$IN/two/blobs"
        mkdir -p "$IN/two/blobs/sha256"
        skopeo copy -q "oci:$GOLDEN/umoci-insert:app" "oci:$IN/two:two""#);
    let listed = bench.ok(r#"ls "$IN/two/blobs/sha256""#);
    // skopeo writes config and manifest in place, whether they are there or not.
    assert!(listed.lines().count() <= 2, "{listed}");
    bench.ok(
        r#"layer=$(jq -r '.layers[0].digest' "$MNT/one/manifest.json" | cut -d: -f2)
        cd "$IN/two/blobs/sha256"
        test "$(sha256sum < $layer | cut -c1-64)" = "$layer"
        rm $layer; test ! -e $layer; test -e "$MNT/.ocifs/layout/blobs/sha256/$layer"
        cd ..; mv "$IN/two" "$MNT/two""#,
    );
    assert_eq!(bench.refs(), ["one", "two"]);
    bench.verify();
}

#[test]
fn a_blob_with_two_names_is_copied() {
    let name = "a_blob_with_two_names_is_copied";
    if !has(name, &[Need::Fuse, Need::Tool("skopeo")]) {
        return;
    }
    let bench = Bench::new(&[]);
    bench.ok(
        r#"mkdir "$IN/job"; skopeo copy -q "oci:$GOLDEN/umoci-insert:app" "oci:$IN/job:app"
        cd "$IN/job"; mkdir kept; ln blobs/sha256/* kept/
        mv ../job "$MNT/""#,
    );
    assert_eq!(bench.refs(), ["app"]);
    for entry in fs::read_dir(bench.layout.path().join("blobs/sha256")).expect("it is there") {
        let stat = entry.and_then(|entry| entry.metadata());
        assert_eq!(stat.map(|stat| stat.nlink()).ok(), Some(1));
    }
    bench.verify();
}

#[test]
fn a_lent_blob_that_is_written_to_is_a_copy() {
    if !has("a_lent_blob_that_is_written_to_is_a_copy", &[Need::Fuse]) {
        return;
    }
    let bench = Bench::new(&[]);
    let digest = bench.layout.blob("text/plain", b"shared")["digest"].clone();
    let hex = &digest.as_str().expect("it is text")["sha256:".len()..];
    let shared = bench.layout.path().join("blobs/sha256").join(hex);
    fs::create_dir_all(bench.mount.join("incoming/j/blobs/sha256"))
        .expect("directories can be made");
    let lent = bench.place("j/blobs/sha256").join(hex);
    assert_eq!(fs::read(&lent).ok().as_deref(), Some(&b"shared"[..]));
    let file = fs::OpenOptions::new().append(true).open(&lent);
    io::Write::write_all(&mut file.expect("it can be opened"), b" no more").expect("written");
    assert_eq!(fs::read(&lent).expect("it is there"), b"shared no more");
    assert_eq!(fs::read(&shared).expect("it is there"), b"shared");
    fs::remove_dir_all(bench.place("j")).expect("a session can be discarded");
    assert_eq!(fs::read(&shared).expect("it is there"), b"shared");
    assert!(bench.refs().is_empty());
}

#[test]
fn umoci_makes_a_layout_in_the_drop_box() {
    let name = "umoci_makes_a_layout_in_the_drop_box";
    if !has(name, &[Need::Fuse, Need::Root, Need::Tool("umoci")]) {
        return;
    }
    let bench = Bench::new(&[]);
    bench.ok(r#"umoci init --layout "$IN/u"
        umoci new --image "$IN/u:app"
        umoci insert --image "$IN/u:app" one /etc/one
        umoci tag --image "$IN/u:app" other
        umoci gc --layout "$IN/u"
        mv "$IN/u" "$MNT/""#);
    assert_eq!(bench.refs(), ["app", "other"]);
    let path = bench.mount.join("other/rootfs/etc/one");
    assert_eq!(fs::read(path).ok().as_deref(), Some(&b"file one"[..]));
    bench.verify();
}

#[test]
fn many_sessions_at_once_lose_no_ref() {
    let name = "many_sessions_at_once_lose_no_ref";
    if !has(name, &[Need::Fuse, Need::Tool("skopeo")]) {
        return;
    }
    let bench = Bench::new(&[]);
    let scripts = (0..16).map(|at| {
        bench.start(&format!(
            r#"mkdir "$IN/s{at}"
            skopeo copy -q "oci:$GOLDEN/umoci-insert:app" "oci:$IN/s{at}:app:{at:02}"
            mv "$IN/s{at}" "$MNT/""#
        ))
    });
    let running: Vec<Child> = scripts.collect();
    for child in running {
        wait(child);
    }
    let expected: Vec<String> = (0..16).map(|at| format!("app:{at:02}")).collect();
    assert_eq!(bench.refs(), expected);
    bench.verify();
}

#[test]
fn what_is_not_right_is_refused_whole() {
    let name = "what_is_not_right_is_refused_whole";
    if !has(name, &[Need::Fuse, Need::Tool("skopeo")]) {
        return;
    }
    // What is done to the session, what `mv` answers, and what is told.
    let rows = [
        (
            "a damaged blob",
            r#"f=$(ls -S blobs/sha256/* | head -1); printf x | dd of=$f conv=notrunc status=none"#,
            "Bad message",
            "BLOB_DIGEST",
        ),
        (
            "a cut blob",
            r#"truncate -s -1 $(ls -S blobs/sha256/* | head -1)"#,
            "Bad message",
            "BLOB_SIZE",
        ),
        (
            "a missing blob",
            r#"rm $(ls -S blobs/sha256/* | head -1)"#,
            "No data available",
            "COMMIT_INCOMPLETE",
        ),
        (
            "a damaged blob that nothing names",
            r#"echo x > blobs/sha256/0000000000000000000000000000000000000000000000000000000000000000"#,
            "Bad message",
            "BLOB_DIGEST",
        ),
        (
            "half an index",
            r#"truncate -s -3 index.json"#,
            "Structure needs cleaning",
            "JSON",
        ),
        (
            "a ref that is there",
            r#"sed -i s/name\":\"new/name\":\"old/ index.json"#,
            // What mv makes of EEXIST.
            "cannot overwrite",
            "file exists",
        ),
    ];
    let bench = Bench::new(&[]);
    bench.ok(r#"echo x > "$IN/old""#);
    for (row, harm, errno, told) in rows {
        let before = fs::read(bench.layout.path().join("index.json")).expect("it is there");
        bench.ok(&format!(
            r#"mkdir "$IN/job"; skopeo copy -q "oci:$GOLDEN/umoci-insert:app" "oci:$IN/job:new"
            cd "$IN/job"; {harm}"#
        ));
        let output = bench.run(r#"mv "$IN/job" "$MNT/""#);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(errno),
            "{row}: {said}"
        );
        let error = fs::read_to_string(bench.place("job.error")).unwrap_or_default();
        assert!(error.contains(told), "{row}: {error}");
        let after = fs::read(bench.layout.path().join("index.json")).expect("it is there");
        assert_eq!(after, before, "{row}");
        assert!(bench.place("job").is_dir(), "{row}: it is still there");
        bench.ok(r#"rm -r "$IN/job""#);
        assert!(!bench.place("job.error").exists(), "{row}");
    }
    assert_eq!(bench.refs(), ["old"]);
    bench.verify();
}

#[test]
fn a_file_that_is_open_for_writing_hinders() {
    if !has("a_file_that_is_open_for_writing_hinders", &[Need::Fuse]) {
        return;
    }
    let bench = Bench::new(&[]);
    let publish = || fs::rename(bench.place("job"), bench.mount.join("app"));
    fs::create_dir_all(bench.place("job/etc")).expect("directories can be made");
    let file = File::create(bench.place("job/etc/open")).expect("files can be made");
    let began = Instant::now();
    assert_eq!(errno(publish()), Some(libc::EBUSY));
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    let error = fs::read_to_string(bench.place("job.error")).unwrap_or_default();
    assert!(error.contains("etc/open is open for writing"), "{error}");
    fs::write(bench.place("job/more"), "x").expect("the session goes on");
    drop(file);
    let reader = File::open(bench.place("job/more")).expect("it is there");
    publish().expect("readers hinder nobody");
    assert_eq!(bench.refs(), ["app"]);
    let mut text = String::new();
    (&reader).read_to_string(&mut text).expect("its bytes stay");
    assert_eq!(text, "x");
    assert!(!bench.place("job.error").exists());
    bench.verify();
}

/// Maps a file, closes it, writes through the mapping, and tries to publish before and after
/// it is gone.
const MAPPER: &str = r#"
import errno, mmap, os, sys
job, target = sys.argv[1:]
os.mkdir(job)
fd = os.open(job + "/f", os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 8192)
m = mmap.mmap(fd, 8192)
os.close(fd)
m[0:5] = b"first"
try:
    os.rename(job, target)
    sys.exit("it was published under a mapping")
except OSError as error:
    assert error.errno == errno.EBUSY, error
assert b"f is open" in open(job + ".error", "rb").read()
m[0:5] = b"final"
m.close()
os.rename(job, target)
assert open(target + "/rootfs/f", "rb").read(5) == b"final"
"#;

#[test]
fn a_mapping_that_can_be_written_to_hinders() {
    let name = "a_mapping_that_can_be_written_to_hinders";
    if !has(name, &[Need::Fuse, Need::Tool("python3")]) {
        return;
    }
    let bench = Bench::new(&[]);
    fs::write(bench.dir.path().join("mapper.py"), MAPPER).expect("it is ours");
    bench.ok(r#"python3 mapper.py "$IN/job" "$MNT/app""#);
    assert_eq!(bench.refs(), ["app"]);
    bench.verify();
}

#[test]
fn after_publishing_nothing_is_found_in_it() {
    if !has("after_publishing_nothing_is_found_in_it", &[Need::Fuse]) {
        return;
    }
    let bench = Bench::new(&[]);
    let job = bench.place("job");
    fs::create_dir_all(job.join("d")).expect("directories can be made");
    fs::write(job.join("d/f"), "x").expect("files can be made");
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        rustix::fs::open(path, flags, Mode::empty()).expect("it is a directory")
    };
    let (root, inner) = (open(&job), open(&job.join("d")));
    fs::rename(&job, bench.mount.join("app")).expect("it is right");
    let stale = |result: rustix::io::Result<_>| result.err() == Some(rustix::io::Errno::STALE);
    let look = |fd, name: &str| rustix::fs::openat(fd, name, OFlags::RDONLY, Mode::empty());
    assert!(stale(look(&root, "e")));
    assert!(stale(look(&inner, "g")));
    let flags = OFlags::CREATE | OFlags::WRONLY;
    assert!(stale(rustix::fs::openat(&inner, "new", flags, Mode::RWXU)));
    let path = bench.mount.join("app/rootfs/d/f");
    assert_eq!(fs::read(path).ok().as_deref(), Some(&b"x"[..]));
    assert_eq!(errno(fs::metadata(&job)), Some(libc::ENOENT));
}

#[test]
fn sessions_outlive_the_daemon_and_remains_do_not() {
    let name = "sessions_outlive_the_daemon_and_remains_do_not";
    if !has(name, &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let private = layout.path().join(".ocifs");
    let first = mount(layout.path(), &[]);
    fs::create_dir(first.join("incoming/job")).expect("directories can be made");
    fs::write(first.join("incoming/job/f"), "kept").expect("files can be made");
    first.unmount();
    fs::create_dir_all(private.join("published/7-1/tree")).expect("the layout is ours");
    fs::create_dir_all(private.join("sessions/begun")).expect("the layout is ours");
    let second = mount(layout.path(), &[]);
    assert_eq!(
        crate::sample::names(&second.join("incoming")),
        ["blobs", "job"]
    );
    let status = fs::read_to_string(second.join(".ocifs/status.json")).expect("it is there");
    assert!(status.contains("incoming/job"), "{status}");
    until(AT_ALL, "remains are removed", || {
        fs::read_dir(private.join("published")).is_ok_and(|mut names| names.next().is_none())
            && !private.join("sessions/begun").exists()
    });
    let other = mount(layout.path(), &[]);
    assert_eq!(
        crate::sample::names(&other.join("incoming")),
        ["blobs"],
        "one mount shows it"
    );
    let made = fs::create_dir(other.join("incoming/job"));
    assert_eq!(errno(made), Some(libc::EEXIST));
    fs::rename(second.join("incoming/job"), second.join("app")).expect("it is right");
    let text = fs::read(second.join("app/rootfs/f")).expect("it is there");
    assert_eq!(text, b"kept");
    verify_layout(layout.path());
}

#[test]
fn where_sessions_can_be_moved() {
    if !has("where_sessions_can_be_moved", &[Need::Fuse]) {
        return;
    }
    let bench = Bench::new(&["--allow-delete"]);
    bench.ok(
        r#"mkdir "$IN/a" "$IN/b"; echo 1 > "$IN/a/f"; echo 2 > "$IN/b/f"
        mv "$IN/a" "$IN/c"; mkdir "$MNT/team"; mv "$IN/c" "$MNT/team/"
        test "$(cat "$MNT/team/c/rootfs/f")" = 1
        mv -T "$IN/b" "$MNT/team/c"
        test "$(cat "$MNT/team/c/rootfs/f")" = 2
        mkdir "$IN/d"; cd "$IN/d"; echo 3 > f; mv ../d "../../x%2Fy"
        test "$(cat "$MNT/x/y/rootfs/f")" = 3"#,
    );
    let rows: [(&str, &str, &str); 5] = [
        (
            "into a ref",
            r#"mv "$IN/e" "$MNT/team/c""#,
            "cannot overwrite",
        ),
        (
            "into an image",
            r#"mv "$IN/e" "$MNT/team/c/rootfs/""#,
            "Read-only",
        ),
        ("over a session", r#"mv -T "$IN/e" "$IN/g""#, ""),
        ("a file out of it", r#"ln "$IN/e/f" "$MNT/f""#, ""),
        (
            "a name that is none",
            r#"mv -T "$IN/e" "$MNT/a b""#,
            // What mv makes of EINVAL.
            "subdirectory of itself",
        ),
    ];
    bench.ok(r#"mkdir "$IN/e" "$IN/g"; echo 4 > "$IN/e/f"; echo 5 > "$IN/g/f""#);
    for (row, script, expected) in rows {
        let output = bench.run(script);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(expected),
            "{row}: {said}"
        );
        assert!(bench.place("e/f").is_file(), "{row}");
    }
    bench.verify();
}
