//! File trees with all that a tar can say, shown through the kernel.
//!
//! The tree is one of nodes made for the test, and the mount is made by the library in
//! this very process: what is seen here is what `vfs` and `fuse` make of any tree.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ocifs::fuse::{Mount, MountOptions, Unmount, unmount};
use ocifs::store::Layout;
use ocifs::vfs::{Device, FileKind, Time, Vfs};
use rustix::fs::{Access, SeekFrom};
use tempfile::TempDir;

use crate::common::{Need, Record, TestLayout, TestTree, has, run};
use crate::forgetting::caches_are_kept;
use crate::patience::until;

/// A tree that is mounted as `tree/` of nothing: it is the root.
struct TreeMount {
    vfs: Arc<Vfs>,
    mount: Mount,
    path: PathBuf,
    _layout: TestLayout,
    _dir: TempDir,
}

impl TreeMount {
    fn new(tree: &Arc<TestTree>, options: &MountOptions) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir.path(), mode).expect("it is ours");
        let path = dir.path().join("mnt");
        fs::create_dir(&path).expect("it is writable");
        let layout = TestLayout::new();
        let opened = Layout::open(layout.path(), &[]).expect("it is a layout");
        let vfs = Arc::new(Vfs::new(tree.node(TestTree::ROOT), Arc::new(opened)));
        let mount = Mount::new(vfs.clone(), &path, options).expect("it can be mounted");
        Self {
            vfs,
            mount,
            path,
            _layout: layout,
            _dir: dir,
        }
    }

    fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path.join(path)
    }
}

impl Drop for TreeMount {
    fn drop(&mut self) {
        let unmounted = unmount(&self.path, Unmount::Detach);
        let ended = self.mount.wait(Duration::from_secs(10));
        assert!(
            thread::panicking() || (unmounted.is_ok() && ended.is_some()),
            "{unmounted:?}"
        );
    }
}

fn plain() -> MountOptions {
    MountOptions {
        source: "tree".into(),
        ..MountOptions::default()
    }
}

fn for_others() -> MountOptions {
    MountOptions {
        allow_other: true,
        ..plain()
    }
}

fn file(mode: u16) -> Record {
    Record::new(FileKind::Regular, mode)
}

#[test]
fn kinds_modes_owners_and_devices() {
    if !has("kinds_modes_owners_and_devices", &[Need::Fuse]) {
        return;
    }
    let device = |kind, major, minor| {
        Record::new(kind, 0o600).with(|attr| attr.device = Device { major, minor })
    };
    // Name, node, and what `stat` says: mode, links, blocks, device.
    let rows = [
        ("file", file(0o644).bytes("x"), (0o100_644, 1, 1, (0, 0))),
        (
            "all bits",
            file(0o7777).with(|attr| attr.links = 3),
            (0o107_777, 3, 0, (0, 0)),
        ),
        (
            "sparse",
            file(0o600).with(|attr| (attr.size, attr.stored) = (1 << 40, 4096)),
            (0o100_600, 1, 8, (0, 0)),
        ),
        (
            "dir",
            Record::new(FileKind::Directory, 0o1755).with(|attr| attr.links = 2),
            (0o041_755, 2, 0, (0, 0)),
        ),
        (
            "link",
            Record::new(FileKind::Symlink, 0o777).bytes(*b"not \xFF there"),
            (0o120_777, 1, 1, (0, 0)),
        ),
        (
            "null",
            device(FileKind::CharDevice, 1, 3),
            (0o020_600, 1, 0, (1, 3)),
        ),
        (
            "disk",
            device(FileKind::BlockDevice, 4095, 1_048_575),
            (0o060_600, 1, 0, (4095, 1_048_575)),
        ),
        (
            "zero",
            device(FileKind::CharDevice, 0, 0),
            (0o020_600, 1, 0, (0, 0)),
        ),
        (
            "pipe",
            Record::new(FileKind::Fifo, 0o622),
            (0o010_622, 1, 0, (0, 0)),
        ),
        (
            "socket",
            Record::new(FileKind::Socket, 0o755),
            (0o140_755, 1, 0, (0, 0)),
        ),
    ];
    let mut tree = TestTree::new();
    for (at, (name, record, _)) in (1..).zip(&rows) {
        let owned = record
            .clone()
            .with(|attr| (attr.uid, attr.gid) = (u32::MAX - 1, at));
        tree.add(TestTree::ROOT, *name, owned);
    }
    let mount = TreeMount::new(&tree.finish(true), &plain());
    for (at, (name, record, expected)) in (1..).zip(&rows) {
        let stat = fs::symlink_metadata(mount.join(name)).expect(name);
        let number = (
            rustix::fs::major(stat.rdev()),
            rustix::fs::minor(stat.rdev()),
        );
        let found = (stat.mode(), stat.nlink(), stat.blocks(), number);
        assert_eq!(found, *expected, "{name}: mode {:o}", stat.mode());
        assert_eq!(stat.size(), record.attr.size, "{name}");
        assert_eq!((stat.uid(), stat.gid()), (u32::MAX - 1, at), "{name}");
    }
    let target = fs::read_link(mount.join("link")).expect("it is a link");
    assert_eq!(target.as_os_str().as_bytes(), b"not \xFF there");
    // A listing tells the same kinds.
    let kind = |name: &str| {
        let mut entries = fs::read_dir(&mount.path).expect("it is a directory");
        let entry = entries.find(|entry| entry.as_ref().is_ok_and(|e| e.file_name() == name));
        entry
            .and_then(Result::ok)
            .and_then(|entry| entry.file_type().ok())
    };
    assert!(kind("pipe").is_some_and(|kind| kind.is_fifo()));
    assert!(kind("socket").is_some_and(|kind| kind.is_socket()));
    assert!(kind("null").is_some_and(|kind| kind.is_char_device()));
    assert!(kind("disk").is_some_and(|kind| kind.is_block_device()));
    // Devices are not to be used.
    assert!(File::open(mount.join("null")).is_err());
}

#[test]
fn times_of_all_ages() {
    if !has("times_of_all_ages", &[Need::Fuse]) {
        return;
    }
    let rows = [
        ("epoch", 0, 0),
        ("just before", -1, 999_999_999),
        ("before", -1, 0),
        ("1901", -2_147_483_649, 1),
        ("2038", 2_147_483_648, 123_456_789),
        ("2106", 4_294_967_296, 5),
        ("far", 1 << 40, 999_999_999),
        ("long ago", -(1 << 40), 999_999_999),
        ("the last", i64::MAX, 999_999_999),
        ("the first", i64::MIN, 0),
        ("after the first", i64::MIN, 1),
    ];
    let mut tree = TestTree::new();
    for (name, seconds, nanoseconds) in rows {
        let time = Time {
            seconds,
            nanoseconds,
        };
        tree.add(
            TestTree::ROOT,
            name,
            file(0o644).with(|attr| attr.mtime = time),
        );
    }
    let mount = TreeMount::new(&tree.finish(true), &plain());
    for (name, seconds, nanoseconds) in rows {
        let stat = fs::metadata(mount.join(name)).expect(name);
        let found = (stat.mtime(), stat.mtime_nsec());
        assert_eq!(found, (seconds, i64::from(nanoseconds)), "{name}");
        assert_eq!((stat.ctime(), stat.ctime_nsec()), found, "{name}");
    }
}

#[test]
fn data_and_holes() {
    if !has("data_and_holes", &[Need::Fuse]) {
        return;
    }
    let mut sparse = file(0o644).bytes(vec![0; 30_000]);
    sparse.data = vec![4096..8192, 20_000..20_001];
    let mut hollow = file(0o644).bytes(vec![0; 100]);
    hollow.data.push(u64::MAX - 1..u64::MAX);
    let mut tree = TestTree::new();
    tree.add(TestTree::ROOT, "sparse", sparse);
    tree.add(TestTree::ROOT, "hollow", hollow);
    tree.add(TestTree::ROOT, "full", file(0o644).bytes("text"));
    tree.add(TestTree::ROOT, "empty", file(0o644));
    let mount = TreeMount::new(&tree.finish(true), &plain());
    let none = Err(rustix::io::Errno::NXIO);
    let rows = [
        ("sparse", SeekFrom::Data(0), Ok(4096)),
        ("sparse", SeekFrom::Data(5000), Ok(5000)),
        ("sparse", SeekFrom::Data(8192), Ok(20_000)),
        ("sparse", SeekFrom::Data(20_001), none),
        ("sparse", SeekFrom::Hole(0), Ok(0)),
        ("sparse", SeekFrom::Hole(4096), Ok(8192)),
        ("sparse", SeekFrom::Hole(29_999), Ok(29_999)),
        ("sparse", SeekFrom::Hole(30_000), none),
        ("sparse", SeekFrom::End(-1), Ok(29_999)),
        ("hollow", SeekFrom::Data(0), none),
        ("hollow", SeekFrom::Hole(7), Ok(7)),
        ("full", SeekFrom::Data(0), Ok(0)),
        ("full", SeekFrom::Hole(1), Ok(4)),
        ("full", SeekFrom::Data(4), none),
        ("empty", SeekFrom::Data(0), none),
        ("empty", SeekFrom::Hole(0), none),
    ];
    for (name, seek, expected) in rows {
        let file = File::open(mount.join(name)).expect(name);
        assert_eq!(rustix::fs::seek(&file, seek), expected, "{name}: {seek:?}");
    }
}

/// An access control list as the kernel stores it: `user::rw-,user:1000:r--,group::---,
/// mask::rw-,other::---`.
///
/// `linux/posix_acl_xattr.h`: a version, then for each entry tag, permissions and id.
fn acl() -> Vec<u8> {
    let none = u32::MAX;
    let entries = [
        (1u16, 6u16, none),
        (2, 4, 1000),
        (4, 0, none),
        (16, 6, none),
        (32, 0, none),
    ];
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

/// `cap_net_raw+ep` as the kernel stores it: `linux/capability.h`, version 2.
fn capability() -> Vec<u8> {
    let words = [0x0200_0001u32, 1 << 13, 0, 0, 0];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn xattr(path: &Path, name: &[u8]) -> rustix::io::Result<Vec<u8>> {
    let mut value = vec![0; 4096];
    let name = OsStr::from_bytes(name);
    let len = rustix::fs::lgetxattr(path, name, value.as_mut_slice())?;
    value.truncate(len);
    Ok(value)
}

fn xattr_names(path: &Path) -> Vec<Vec<u8>> {
    let mut list = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, list.as_mut_slice())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let names = list[..len].split(|byte| *byte == 0);
    let names = names.filter(|name| !name.is_empty());
    names.map(<[u8]>::to_vec).collect()
}

#[test]
fn extended_attributes() {
    if !has("extended_attributes", &[Need::Fuse, Need::Root]) {
        return;
    }
    let (access, default) = (
        &b"system.posix_acl_access"[..],
        &b"system.posix_acl_default"[..],
    );
    let shown: [(&[u8], Vec<u8>); 6] = [
        (b"user.plain", b"value".to_vec()),
        (b"user.\xFF\xFE", b"\0\xFF".to_vec()),
        (b"security.capability", capability()),
        (
            b"security.selinux",
            b"system_u:object_r:bin_t:s0\0".to_vec(),
        ),
        (b"trusted.x", b"".to_vec()),
        (access, acl()),
    ];
    let long = [&b"user."[..], &[b'x'; 251]].concat();
    let mut record = file(0o660);
    for (name, value) in &shown {
        record = record.xattr(name, value);
    }
    // The kernel would refuse the whole list for each of these.
    for name in [&b""[..], b"user.a\0b", &long] {
        record = record.xattr(name, b"x");
    }
    let mut tree = TestTree::new();
    tree.add(TestTree::ROOT, "file", record);
    let dir = Record::new(FileKind::Directory, 0o770);
    tree.add(
        TestTree::ROOT,
        "dir",
        dir.xattr(access, &acl()).xattr(default, &acl()),
    );
    let tree = tree.finish(true);
    for options in [plain(), for_others()] {
        let mount = TreeMount::new(&tree, &options);
        let path = mount.join("file");
        let names: Vec<&[u8]> = shown.iter().map(|(name, _)| *name).collect();
        assert_eq!(xattr_names(&path), names, "{options:?}");
        for (name, value) in &shown {
            let what = String::from_utf8_lossy(name);
            assert_eq!(
                xattr(&path, name).as_ref(),
                Ok(value),
                "{what}: {options:?}"
            );
        }
        for name in [&b"user.other"[..], default, b"trusted.y"] {
            let found = xattr(&path, name);
            assert_eq!(found, Err(rustix::io::Errno::NODATA), "{options:?}");
        }
        let dir = mount.join("dir");
        assert_eq!(xattr_names(&dir), [access, default], "{options:?}");
        assert_eq!(xattr(&dir, access), Ok(acl()), "{options:?}");
        assert_eq!(xattr(&dir, default), Ok(acl()), "{options:?}");
    }
}

#[test]
fn access_control_lists_count_for_others() {
    let needs = [Need::Fuse, Need::Root, Need::Tool("setpriv")];
    if !has("access_control_lists_count_for_others", &needs) {
        return;
    }
    let listed = file(0o660).bytes("text").with(|attr| attr.gid = 2000);
    let mut tree = TestTree::new();
    tree.add(
        TestTree::ROOT,
        "listed",
        listed.clone().xattr(b"system.posix_acl_access", &acl()),
    );
    tree.add(TestTree::ROOT, "plain", listed);
    let mount = TreeMount::new(&tree.finish(true), &for_others());
    // Who is named in the list may read; the group's bits are those of the mask there.
    let rows = [
        ("listed", 1000, true),
        ("listed", 2000, false),
        ("plain", 1000, false),
        ("plain", 2000, true),
    ];
    for (name, id, allowed) in rows {
        let (path, id) = (mount.join(name), id.to_string());
        let ids = ["--reuid", &id, "--regid", &id, "--clear-groups", "cat"];
        let mut arguments: Vec<&OsStr> = ids.iter().map(OsStr::new).collect();
        arguments.push(path.as_os_str());
        let output = run("setpriv", &arguments);
        assert_eq!(
            output.status.success(),
            allowed,
            "{name} for {id}: {output:?}"
        );
    }
}

#[test]
fn what_cannot_be_run() {
    if !has("what_cannot_be_run", &[Need::Fuse]) {
        return;
    }
    let mut tree = TestTree::new();
    tree.add(TestTree::ROOT, "text", file(0o444));
    tree.add(TestTree::ROOT, "program", file(0o445));
    tree.add(
        TestTree::ROOT,
        "dir",
        Record::new(FileKind::Directory, 0o700),
    );
    let mount = TreeMount::new(&tree.finish(true), &plain());
    let denied = Err(rustix::io::Errno::ACCESS);
    let rows = [("text", denied), ("program", Ok(())), ("dir", Ok(()))];
    for (name, expected) in rows {
        let found = rustix::fs::access(mount.join(name), Access::EXEC_OK);
        assert_eq!(found, expected, "{name}");
        let found = rustix::fs::access(mount.join(name), Access::READ_OK);
        assert_eq!(found, Ok(()), "{name}");
    }
}

#[test]
fn a_directory_of_many_names() {
    const MANY: u32 = 100_000;
    if !has("a_directory_of_many_names", &[Need::Fuse]) {
        return;
    }
    let _caches = caches_are_kept();
    let mut tree = TestTree::new();
    let dir = tree.add(
        TestTree::ROOT,
        "dir",
        Record::new(FileKind::Directory, 0o755),
    );
    tree.add_many(dir, MANY);
    let tree = tree.finish(true);
    let mount = TreeMount::new(&tree, &plain());
    let list = || {
        let entries = fs::read_dir(mount.join("dir")).expect("it is a directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names.collect::<Vec<_>>()
    };
    let start = Instant::now();
    let names = list();
    let first = start.elapsed();
    assert!(
        names
            .iter()
            .map(|name| name.to_string_lossy())
            .eq((0..MANY).map(|at| format!("{at:06}")))
    );
    let start = Instant::now();
    assert_eq!(list().len(), names.len());
    let second = start.elapsed();
    // Each child once, and those that did not fit into a reply again; then never more.
    let asked = tree.asked();
    assert!(asked < 2 * MANY as usize, "{asked} children were asked for");
    let start = Instant::now();
    for name in &names {
        let stat = fs::symlink_metadata(mount.join("dir").join(name));
        assert_eq!(stat.expect("it is there").mode(), 0o100_644);
    }
    let stat = start.elapsed();
    assert!(
        mount.vfs.referenced() > MANY as usize,
        "{}",
        mount.vfs.referenced()
    );
    // Generous: listing them took 0.1 s, and 3 s to ask for each; a quadratic listing takes
    // minutes.
    let took = [first, second, stat];
    assert!(
        took.iter().all(|took| *took < Duration::from_secs(60)),
        "{took:?}"
    );
}

#[test]
fn hard_links_are_one_inode() {
    if !has("hard_links_are_one_inode", &[Need::Fuse]) {
        return;
    }
    let mut tree = TestTree::new();
    tree.add(TestTree::ROOT, "a", file(0o644));
    let hard = tree.add(
        TestTree::ROOT,
        "b",
        file(0o644).bytes("text").with(|attr| attr.links = 2),
    );
    tree.link(TestTree::ROOT, "c", hard);
    let tree = tree.finish(true);
    let mount = TreeMount::new(&tree, &plain());
    let ino = |name| fs::metadata(mount.join(name)).expect("it is there").ino();
    assert_eq!(ino("b"), ino("c"), "hard links are one inode");
    assert_ne!(ino("a"), ino("b"));
    let text = |name| fs::read_to_string(mount.join(name)).expect("it is readable");
    assert_eq!((text("b"), text("c")), ("text".into(), "text".into()));
}

#[test]
fn many_who_wait_for_a_tree_hold_up_nobody() {
    const MANY: usize = 400;
    if !has("many_who_wait_for_a_tree_hold_up_nobody", &[Need::Fuse]) {
        return;
    }
    let mut tree = TestTree::new();
    tree.add(TestTree::ROOT, "file", file(0o644).bytes("text"));
    let tree = tree.finish(false);
    let mount = TreeMount::new(&tree, &plain());
    let path = &mount.path;
    thread::scope(|scope| {
        let read = |at: usize| {
            let name = if at.is_multiple_of(2) { "file" } else { "none" };
            let file = File::open(path.join(name));
            let mut text = String::new();
            file.and_then(|mut file| file.read_to_string(&mut text))
                .map(|_| text)
        };
        let readers: Vec<_> = (0..MANY)
            .map(|at| scope.spawn(move || (at, read(at))))
            .collect();
        let lister = scope.spawn(|| fs::read_dir(path).map(Iterator::count));
        until(Duration::from_secs(10), "they wait", || {
            waiting_threads() > 0
        });
        thread::sleep(Duration::from_millis(200));
        assert_eq!(waiting_threads(), 1, "for one tree that {MANY} wait for");
        // Whoever asks for something else is answered.
        let start = Instant::now();
        assert_eq!(
            fs::metadata(path).expect("the root is known").mode(),
            0o040_755
        );
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
        tree.reveal();
        for reader in readers {
            let (at, read) = reader.join().expect("no panic");
            match read {
                Ok(text) => assert!(at.is_multiple_of(2) && text == "text", "{at}: {text}"),
                Err(error) => {
                    assert!(!at.is_multiple_of(2) && error.raw_os_error() == Some(libc::ENOENT));
                }
            }
        }
        assert_eq!(lister.join().expect("no panic").ok(), Some(1));
    });
}

/// How many threads of this process wait for other requests.
fn waiting_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("there is a list of threads");
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    let names = tasks.filter_map(|task| name(task.ok()?));
    names.filter(|name| name.trim() == "wait").count()
}
