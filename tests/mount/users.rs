//! Plain users, and machines where something is missing.
//!
//! What needs another machine than the present one is run in a mount namespace of its own,
//! where devices can be taken away or given away without anybody else noticing.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ocifs::oci::Digest;
use tempfile::TempDir;

use crate::common::{Compression, Need, Random, TestLayout, has, skip, tar_of};

const OCIFS: &str = env!("CARGO_BIN_EXE_ocifs");

/// The plain user of these tests: no entry in the table of users is needed.
const USER: u32 = 1000;

pub(crate) const NAMESPACE: &[Need] = &[
    Need::Fuse,
    Need::Root,
    Need::Tool("unshare"),
    Need::Tool("setpriv"),
    Need::Tool("fusermount3"),
];

/// Makes the namespace: `/dev` with a device for everybody.
pub(crate) const OPEN_DEVICE: &str = "mknod -m 666 $DEV/fuse c 10 229";
/// The device for root alone.
const CLOSED_DEVICE: &str = "mknod -m 600 $DEV/fuse c 10 229";
/// No device.
const NO_DEVICE: &str = ":";

/// A directory that the plain user owns, with a layout, a program that he may run, and
/// places to mount on and to keep things in.
pub(crate) struct Home {
    dir: TempDir,
    layout: TestLayout,
    tars: Vec<Vec<u8>>,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ocifs-home-")
            .tempdir()
            .expect("a temporary directory can be made");
        fs::copy(OCIFS, dir.path().join("ocifs")).expect("the program can be copied");
        fs::create_dir(dir.path().join("mnt")).expect("it is ours");
        let layout = TestLayout::new();
        let mut noise = vec![0; 6 << 20];
        Random::of_seed(11).fill(&mut noise);
        let compressions = [Compression::None, Compression::Gzip, Compression::Zstd];
        let tars: Vec<_> = compressions
            .iter()
            .map(|compression| tar_of(&[(&*format!("{compression:?}"), noise.as_slice())]))
            .collect();
        let layers: Vec<_> = compressions
            .iter()
            .zip(&tars)
            .map(|(compression, tar)| layout.layer_of_tar(*compression, tar))
            .collect();
        layout.add_ref("app", &layout.image(&layers));
        let home = Self { dir, layout, tars };
        for root in [home.dir.path(), home.layout.path()] {
            give_away(root);
        }
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a script as the plain user, in a namespace whose `/dev` has what `device`
    /// makes. It knows `OCIFS`, `LAYOUT`, `MNT` and `HOME`.
    pub(crate) fn as_user(&self, device: &str, script: &str) -> Output {
        self.in_namespace(
            device,
            &format!("exec {} bash -c \"$SCRIPT\"", setpriv()),
            script,
        )
    }

    pub(crate) fn as_root(&self, device: &str, script: &str) -> Output {
        self.in_namespace(device, "exec bash -c \"$SCRIPT\"", script)
    }

    /// Runs `start`, which runs the script in `SCRIPT`, where `/dev` is another one.
    fn in_namespace(&self, device: &str, start: &str, script: &str) -> Output {
        let setup = format!(
            "set -e
            mount --make-rprivate /
            DEV=$HOME/dev; mkdir -p $DEV; mount -t tmpfs none $DEV
            mknod -m 666 $DEV/null c 1 3; mkdir $DEV/shm
            {device}
            mount --bind $DEV /dev
            {start}"
        );
        Command::new("unshare")
            .args(["--mount", "bash", "-c", &setup])
            .env("SCRIPT", script)
            .env("OCIFS", self.path("ocifs"))
            .env("LAYOUT", self.layout.path())
            .env("MNT", self.path("mnt"))
            .env("HOME", self.dir.path())
            .env_remove("XDG_CACHE_HOME")
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .expect("unshare can be started")
    }
}

/// The command that makes a command the plain user's.
fn setpriv() -> String {
    format!("setpriv --reuid {USER} --regid {USER} --clear-groups")
}

/// Makes the plain user the owner of everything below.
fn give_away(path: &Path) {
    let given = chown(path, Some(USER), Some(USER));
    given.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("it is ours") {
            give_away(&entry.expect("it is ours").path());
        }
    }
}

pub(crate) fn assert_succeeds(what: &str, output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{what}: {}\n{stdout}{stderr}",
        output.status
    );
    stdout
}

#[test]
fn a_plain_user_mounts_reads_and_unmounts() {
    if !has("a_plain_user_mounts_reads_and_unmounts", NAMESPACE) {
        return;
    }
    let home = Home::new();
    let script = "set -e
        id -u
        $OCIFS mount -vv --log-file log $LAYOUT $MNT
        ls $MNT
        sha256sum < $MNT/app/layers/00.tar
        sha256sum < $MNT/app/layers/01.tar
        sha256sum < $MNT/app/layers/02.tar
        stat -c '%u:%g %A' $MNT/app/manifest.json
        $OCIFS unmount $MNT
        ls $MNT
        $OCIFS mount $LAYOUT $MNT
        sha256sum < $MNT/app/layers/00.tar
        fusermount3 -u $MNT
        ls $MNT";
    let stdout = assert_succeeds("a plain user", &home.as_user(OPEN_DEVICE, script));
    let sums: Vec<String> = home
        .tars
        .iter()
        .map(|tar| format!("{}  -", Digest::of(tar).encoded()))
        .collect();
    let expected = [
        "1000",
        "app",
        "incoming",
        &sums[0],
        &sums[1],
        &sums[2],
        "1000:1000 -r--r--r--",
        &sums[0],
    ];
    assert_eq!(stdout.lines().collect::<Vec<_>>(), expected);
    let log = fs::read_to_string(home.path("log")).expect("the daemon has a log");
    assert!(log.contains("no passthrough"), "{log}");
    let cache = home.path(".cache/ocifs");
    let mode = fs::metadata(&cache)
        .expect("there is a cache")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700, "{}", cache.display());
}

#[test]
fn a_plain_user_without_a_place_for_the_cache() {
    const NAME: &str = "a_plain_user_without_a_place_for_the_cache";
    if !has(NAME, NAMESPACE) {
        return;
    }
    let home = Home::new();
    // Nothing says where it is; it cannot be made; it is there and cannot be written to.
    let script = "set -e
        mkdir -p fixed/.cache/ocifs; chmod 500 fixed/.cache/ocifs
        for place in '-u HOME' HOME=/proc/nowhere HOME=$PWD/fixed; do
            env $place $OCIFS mount $LAYOUT $MNT 2>said
            sha256sum < $MNT/app/layers/01.tar
            sha256sum < $MNT/app/layers/02.tar
            fusermount3 -u $MNT
            grep -q kept said && echo told
        done";
    let stdout = assert_succeeds(NAME, &home.as_user(OPEN_DEVICE, script));
    let sum = |number: usize| format!("{}  -", Digest::of(&home.tars[number]).encoded());
    let each = format!("{}\n{}\ntold\n", sum(1), sum(2));
    assert_eq!(stdout, each.repeat(3));
}

#[test]
fn a_plain_user_looks_into_file_trees() {
    if !has("a_plain_user_looks_into_file_trees", NAMESPACE) {
        return;
    }
    let home = Home::new();
    let secret = crate::common::Tarball::new()
        .mode(0o600)
        .file("secret", "told")
        .mode(0o4755)
        .file("program", "#!/bin/sh\nid -u\n")
        .finish();
    let layer = home.layout.layer_of_tar(Compression::Gzip, &secret);
    home.layout.add_ref("secret", &home.layout.image(&[layer]));
    give_away(home.layout.path());
    // Whoever mounts may read all of it, owners as the tar has them or as he says.
    let script = "set -e
        $OCIFS mount $LAYOUT $MNT
        ls $MNT/app/rootfs
        sha256sum < $MNT/app/layers/02.tar
        tail -c +513 $MNT/app/layers/02.tar | head -c 6291456 | cmp - $MNT/app/rootfs/Zstd
        cat $MNT/secret/rootfs/secret; echo
        $MNT/secret/rootfs/program
        stat -c '%u:%g %A' $MNT/secret/rootfs/secret
        $OCIFS unmount $MNT
        $OCIFS mount --uid $(id -u) --gid $(id -g) $LAYOUT $MNT
        stat -c '%u:%g %A' $MNT/secret/rootfs/program $MNT/secret/rootfs
        fusermount3 -u $MNT";
    let stdout = assert_succeeds("a plain user", &home.as_user(OPEN_DEVICE, script));
    let sum = format!("{}  -", Digest::of(&home.tars[2]).encoded());
    let expected = [
        "Gzip",
        "None",
        "Zstd",
        &sum,
        "told",
        "1000",
        "0:0 -rw-------",
        "1000:1000 -rwsr-xr-x",
        "1000:1000 drwxr-xr-x",
    ];
    assert_eq!(stdout.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn in_a_user_namespace() {
    if !has("in_a_user_namespace", NAMESPACE) {
        return;
    }
    let home = Home::new();
    // Who is root there mounts without a helper; what is root's in the tar is his. The
    // owners that the namespace does not have are shown as nobody's.
    let script = "exec unshare --user --map-root-user --mount bash -ec '
        PATH=/usr/sbin:/usr/bin:/sbin:/bin
        $OCIFS mount $LAYOUT $MNT
        stat -c \"%u:%g %A\" $MNT/app/rootfs/Gzip
        tail -c +513 $MNT/app/layers/01.tar | head -c 6291456 | cmp - $MNT/app/rootfs/Gzip
        umount $MNT'";
    let output = home.as_user(OPEN_DEVICE, script);
    if String::from_utf8_lossy(&output.stderr).contains("unshare failed") {
        skip(
            "in_a_user_namespace",
            "the system allows no user namespaces",
        );
        return;
    }
    let stdout = assert_succeeds("a user namespace", &output);
    assert_eq!(stdout, "0:0 -rw-r--r--\n");
}

#[test]
fn without_passthrough_a_changed_blob_is_noticed() {
    if !has("without_passthrough_a_changed_blob_is_noticed", NAMESPACE) {
        return;
    }
    let home = Home::new();
    // The layer that is stored as it is, open while its last MiB is overwritten.
    let script = "$OCIFS mount $LAYOUT $MNT || exit
        blob=$LAYOUT/blobs/sha256/$(sha256sum < $MNT/app/layers/00.tar | cut -c -64)
        exec 3< $MNT/app/layers/00.tar
        dd if=/proc/self/fd/3 iflag=nocache count=0 status=none
        head -c 1048576 $HOME/ocifs > noise
        dd if=noise of=$blob bs=1M seek=5 conv=notrunc status=none
        dd bs=1M skip=5 <&3 2>&1 > read
        echo dd $?
        cat $MNT/app/layers/00.tar 2>&1 > /dev/null
        exec 3<&-
        fusermount3 -u $MNT
        tail -c +5242881 $blob | cmp -n 1048576 - read > /dev/null && echo wrong bytes
        true";
    let stdout = assert_succeeds("changed", &home.as_user(OPEN_DEVICE, script));
    assert!(!stdout.contains("wrong bytes"), "{stdout}");
    let refused = stdout.matches("Bad message").count();
    assert!(refused > 0, "nobody noticed: {stdout}");
}

#[test]
fn a_plain_user_recovers_a_stale_mount() {
    if !has("a_plain_user_recovers_a_stale_mount", NAMESPACE) {
        return;
    }
    let home = Home::new();
    let script = "set -e
        $OCIFS mount $LAYOUT $MNT
        kill -9 $(sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p' $MNT/.ocifs/status.json)
        while ls $MNT > /dev/null 2>&1; do sleep 0.01; done
        $OCIFS mount $LAYOUT $MNT
        ls $MNT
        $OCIFS unmount --force $MNT
        ls $MNT";
    let stdout = assert_succeeds("stale", &home.as_user(OPEN_DEVICE, script));
    assert_eq!(stdout, "app\nincoming\n");
}

/// A refusal: one sentence on stderr, that names what is wrong, and the exit status.
fn assert_refused(what: &str, output: &Output, status: i32, expected: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{what}: {stderr}");
    assert!(lines[0].starts_with("ocifs: error: "), "{what}: {stderr}");
    for part in expected {
        assert!(lines[0].contains(part), "{what}: no {part:?} in {stderr}");
    }
    assert_eq!(output.status.code(), Some(status), "{what}: {stderr}");
    assert!(output.stdout.is_empty(), "{what}: something on stdout");
}

#[test]
fn what_is_missing_for_a_mount_is_named() {
    if !has("what_is_missing_for_a_mount_is_named", NAMESPACE) {
        return;
    }
    let home = Home::new();
    let mount = "$OCIFS mount $LAYOUT $MNT";
    let output = home.as_root(NO_DEVICE, mount);
    assert_refused(
        "no device",
        &output,
        4,
        &["/dev/fuse is missing", "modprobe fuse"],
    );
    let output = home.as_user(NO_DEVICE, mount);
    assert_refused(
        "no device, plain user",
        &output,
        4,
        &["/dev/fuse is missing"],
    );
    let output = home.as_user(CLOSED_DEVICE, mount);
    assert_refused(
        "no permission",
        &output,
        4,
        &["no permission to open /dev/fuse"],
    );
    // Without any of the usual programs.
    let start = format!(
        "cp $(command -v bash) $(command -v setpriv) $HOME/
        [ -L /bin ] || mount -t tmpfs none /bin
        mount -t tmpfs none /usr/bin
        PATH=$HOME
        exec {} bash -c \"$SCRIPT\"",
        setpriv()
    );
    let output = home.in_namespace(OPEN_DEVICE, &start, mount);
    let expected = ["fusermount3 is missing", "install the package fuse3"];
    assert_refused("no helper", &output, 4, &expected);
    let output = home.as_user(OPEN_DEVICE, "$OCIFS mount --allow-other $LAYOUT $MNT");
    if output.status.success() {
        assert_succeeds("cleanup", &output);
    } else {
        assert_refused(
            "allow_other",
            &output,
            4,
            &["user_allow_other", "/etc/fuse.conf"],
        );
    }
    // It is found where it always is.
    let script = "PATH=/nowhere; $OCIFS mount $LAYOUT $MNT && $OCIFS unmount $MNT";
    assert_succeeds("without PATH", &home.as_user(OPEN_DEVICE, script));
    // Root needs no helper.
    let script =
        "PATH=/nowhere; $OCIFS mount $LAYOUT $MNT && echo $MNT/app/* && $OCIFS unmount $MNT";
    let output = home.as_root(OPEN_DEVICE, script);
    let stdout = assert_succeeds("root without a helper", &output);
    assert!(stdout.contains("app/manifest.json"), "{stdout}");
}

/// A command line, with a layout, a mount point and a cache of its own.
struct Attempt {
    dir: TempDir,
    layout: TestLayout,
}

impl Attempt {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        fs::create_dir(dir.path().join("mnt")).expect("it is ours");
        let layout = TestLayout::new();
        let layer = layout.layer(Compression::Gzip, &[("etc/motd", b"hello\n")]);
        layout.add_ref("app", &layout.image(&[layer]));
        Self { dir, layout }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn mount(&self, layout: &Path, mountpoint: &Path) -> Output {
        self.mount_with(&self.path("cache"), layout, mountpoint)
    }

    fn mount_with(&self, cache: &Path, layout: &Path, mountpoint: &Path) -> Output {
        let mut command = Command::new(OCIFS);
        command.args(["mount", "--cache-dir"]).arg(cache);
        let output = command.args([layout, mountpoint]).output();
        let output = output.expect("the binary can be started");
        if output.status.success() {
            let mut command = Command::new("umount");
            let unmounted = command.arg(mountpoint).status();
            assert!(unmounted.expect("there is umount").success());
        }
        output
    }
}

/// A directory of mount points that are wrong in some way: by their names, and one in
/// the layout of the attempt and one around a layout called `inner`.
fn wrong_mount_points(attempt: &Attempt) {
    let path = |name: &str| attempt.path(name);
    fs::write(path("file"), "x").expect("it is ours");
    symlink(path("mnt"), path("link")).expect("it is ours");
    fs::create_dir_all(path("full/sub")).expect("it is ours");
    fs::create_dir(path("around")).expect("it is ours");
    ocifs::store::layout::init(&path("around/inner")).expect("it is ours");
    fs::create_dir(attempt.layout.path().join("mnt")).expect("it is ours");
    symlink(attempt.layout.path(), path("by-link")).expect("it is ours");
}

#[test]
fn e1_mount_points_that_are_refused() {
    if !has("e1_mount_points_that_are_refused", &[Need::Fuse]) {
        return;
    }
    let attempt = Attempt::new();
    wrong_mount_points(&attempt);
    let layout = attempt.layout.path();
    let path = |name: &str| attempt.path(name);
    let (inner, around, by_link) = (path("around/inner"), path("around"), path("by-link"));
    let rows: [(&str, &Path, PathBuf, &[&str]); 9] = [
        (
            "missing",
            layout,
            path("none"),
            &["none does not exist", "mkdir"],
        ),
        ("a file", layout, path("file"), &["file is not a directory"]),
        (
            "a symlink",
            layout,
            path("link"),
            &["link is a symbolic link"],
        ),
        (
            "not empty",
            layout,
            path("full"),
            &["full is not empty", "nonempty"],
        ),
        (
            "below a file",
            layout,
            path("file/x"),
            &["file/x", "ot a directory"],
        ),
        (
            "the layout",
            layout,
            layout.into(),
            &["is the layout itself"],
        ),
        (
            "in the layout",
            layout,
            layout.join("mnt"),
            &["is inside the layout"],
        ),
        (
            "in the layout by a link",
            layout,
            by_link.join("mnt"),
            &["is inside the layout"],
        ),
        (
            "around",
            &inner,
            around,
            &["the layout is inside the mount point", "around"],
        ),
    ];
    for (what, layout, mountpoint, expected) in rows {
        let output = attempt.mount(layout, &mountpoint);
        assert_refused(what, &output, 4, expected);
    }
}

#[test]
fn sources_that_are_refused() {
    if !has("sources_that_are_refused", &[Need::Fuse]) {
        return;
    }
    let attempt = Attempt::new();
    let damaged = |name: &str, text: &str| {
        let path = attempt.path(name);
        ocifs::store::layout::init(&path).expect("it is ours");
        fs::write(path.join("oci-layout"), text).expect("it is ours");
        path
    };
    let empty = attempt.path("empty");
    fs::create_dir(&empty).expect("it is ours");
    let torn = attempt.path("torn");
    ocifs::store::layout::init(&torn).expect("it is ours");
    fs::write(torn.join("index.json"), "").expect("it is ours");
    let linked = attempt.path("linked");
    ocifs::store::layout::init(&linked).expect("it is ours");
    fs::rename(linked.join("blobs"), attempt.path("blobs")).expect("it is ours");
    symlink(attempt.path("blobs"), linked.join("blobs")).expect("it is ours");
    let version = r#"{"imageLayoutVersion":"2.0.0"}"#;
    let rows: [(&str, PathBuf, i32, &[&str]); 7] = [
        ("missing", attempt.path("none"), 1, &["none does not exist"]),
        (
            "no layout",
            empty,
            1,
            &["empty is not an OCI image layout", "oci-layout is missing"],
        ),
        (
            "version",
            damaged("v2", version),
            3,
            &["v2", "2.0.0", "only 1.0.0"],
        ),
        (
            "no version",
            damaged("v0", "{}"),
            3,
            &["v0", "imageLayoutVersion"],
        ),
        ("no JSON", damaged("text", "text"), 3, &["text/oci-layout"]),
        (
            "empty index",
            torn,
            3,
            &["index.json is empty: another tool may be writing it"],
        ),
        (
            "linked blobs",
            linked,
            3,
            &["linked/blobs", "symbolic link"],
        ),
    ];
    for (what, layout, status, expected) in rows {
        let output = attempt.mount(&layout, &attempt.path("mnt"));
        assert_refused(what, &output, status, expected);
    }
}

#[test]
fn e7_cache_directories_that_are_refused() {
    const NAME: &str = "e7_cache_directories_that_are_refused";
    if !has(NAME, &[Need::Fuse, Need::Root]) {
        return;
    }
    let attempt = Attempt::new();
    let make = |name: &str, mode: u32| {
        let path = attempt.path(name);
        fs::create_dir(&path).expect("it is ours");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
        path
    };
    let foreign = make("foreign", 0o700);
    chown(&foreign, Some(USER), Some(USER)).expect("root may do so");
    let link = attempt.path("link");
    symlink(make("behind", 0o700), &link).expect("it is ours");
    fs::write(attempt.path("file"), "x").expect("it is ours");
    let rows: [(&str, PathBuf, &[&str]); 6] = [
        (
            "one that cannot be made",
            attempt.path("file").join("below"),
            &["file/below"],
        ),
        (
            "of another user",
            foreign,
            &["foreign belongs to another user", "--cache-dir"],
        ),
        (
            "for everybody",
            make("open", 0o777),
            &["open is writable by other users"],
        ),
        (
            "for the group",
            make("group", 0o770),
            &["group is writable by other users"],
        ),
        ("a link", link, &["link is a symbolic link"]),
        ("a file", attempt.path("file"), &["file"]),
    ];
    for (what, cache, expected) in rows {
        let output = attempt.mount_with(&cache, attempt.layout.path(), &attempt.path("mnt"));
        assert_refused(what, &output, 4, expected);
    }
}
