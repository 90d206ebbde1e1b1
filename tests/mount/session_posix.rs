//! What a session does as any directory would: one row for each operation.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Gid, Mode, RenameFlags, Timespec,
    Timestamps, Uid, XattrFlags,
};
use rustix::mm::{MapFlags, ProtFlags};

use crate::common::{Ext4, Need, has};
use crate::sessions::Bench;

type Check = fn(&Path) -> io::Result<()>;

/// Each is run in a new directory, on the mount and beside it, and on an ext4 where there can
/// be one: what a plain directory does not do needs no row.
const ROWS: [(&str, Check); 29] = [
    ("write and read", write_and_read),
    ("append", append),
    ("truncate and grow", truncate),
    ("write at an offset leaves a hole", hole),
    ("open exclusively", exclusive),
    ("rename", rename),
    ("rename over a file that is open", rename_over_open),
    ("rename without replacing", rename_no_replace),
    ("exchange", exchange),
    ("rename and leave a whiteout", rename_whiteout),
    ("rename a directory into another", rename_directory),
    ("rename a directory into itself", rename_into_itself),
    ("hard link", hard_link),
    ("unlink a file that is open", unlink_open),
    ("symlink", symbolic_link),
    ("special files", special_files),
    ("modes", modes),
    ("owners", owners),
    ("times", times),
    ("extended attributes", xattrs),
    ("capabilities", capabilities),
    ("set-group-ID directories", set_group_id),
    ("locks", locks),
    ("sync", sync),
    ("allocate and punch", allocate),
    ("map", map),
    ("list many names", list_many),
    ("remove a directory that is not empty", remove_full),
    ("long and odd names", odd_names),
];

#[test]
fn a_session_is_a_directory_as_any_other() {
    let needs = [Need::Fuse, Need::Root];
    if !has("a_session_is_a_directory_as_any_other", &needs) {
        return;
    }
    let bench = Bench::new(&[]);
    let session = bench.mount.join("incoming/job");
    fs::create_dir(&session).expect("directories can be made");
    let needs = [Need::LoopDevice, Need::Tool("mkfs.ext4")];
    let name = "a_session_is_a_directory_as_any_other, on ext4";
    let ext4 = has(name, &needs).then(|| Ext4::mount(64 << 20));
    let mut places = vec![("the disk", bench.dir.path()), ("a session", &session)];
    places.extend(ext4.as_ref().map(|ext4| ("ext4", ext4.path())));
    for (at, (row, check)) in ROWS.into_iter().enumerate() {
        for (place, parent) in &places {
            let directory = parent.join(format!("row {at}"));
            fs::create_dir(&directory).expect("directories can be made");
            let result = check(&directory);
            assert!(result.is_ok(), "{row}, in {place}: {result:?}");
        }
    }
    fs::remove_dir_all(&session).expect("a session can be discarded");
    assert!(!session.exists());
}

/// An error unless `holds`.
#[track_caller]
fn expect(holds: bool) -> io::Result<()> {
    let line = std::panic::Location::caller().line();
    match holds {
        true => Ok(()),
        false => Err(io::Error::other(format!("not so: line {line}"))),
    }
}

/// An error unless `result` is `errno`.
#[track_caller]
fn refused<T>(result: io::Result<T>, errno: i32) -> io::Result<()> {
    let found = result.err().and_then(|error| error.raw_os_error());
    let line = std::panic::Location::caller().line();
    match found == Some(errno) {
        true => Ok(()),
        false => Err(io::Error::other(format!("{found:?}: line {line}"))),
    }
}

fn write_and_read(dir: &Path) -> io::Result<()> {
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(dir.join("f"), &bytes)?;
    expect(fs::read(dir.join("f"))? == bytes)?;
    let file = File::options().read(true).write(true).open(dir.join("f"))?;
    file.write_all_at(b"middle", 100_000)?;
    let mut found = [0; 8];
    file.read_exact_at(&mut found, 99_999)?;
    expect(&found[1..7] == b"middle" && fs::metadata(dir.join("f"))?.len() == 1_200_000)
}

fn append(dir: &Path) -> io::Result<()> {
    let open = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(dir.join("f"))
    };
    let (mut one, mut two) = (open()?, open()?);
    one.write_all(b"one ")?;
    two.write_all(b"two ")?;
    one.seek(SeekFrom::Start(0))?;
    one.write_all(b"three")?;
    expect(fs::read(dir.join("f"))? == b"one two three")
}

fn truncate(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("f"), b"0123456789")?;
    let file = File::options().write(true).open(dir.join("f"))?;
    file.set_len(4)?;
    file.set_len(6)?;
    expect(fs::read(dir.join("f"))? == b"0123\0\0")?;
    drop(File::create(dir.join("f"))?);
    expect(fs::read(dir.join("f"))?.is_empty())
}

fn hole(dir: &Path) -> io::Result<()> {
    let file = File::create(dir.join("f"))?;
    file.write_all_at(b"end", 10 << 20)?;
    file.sync_all()?;
    let stat = fs::metadata(dir.join("f"))?;
    expect(stat.len() == (10 << 20) + 3 && stat.blocks() * 512 < 1 << 20)?;
    let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0))?;
    expect(data > 9 << 20 && data <= 10 << 20)
}

fn exclusive(dir: &Path) -> io::Result<()> {
    drop(File::create_new(dir.join("f"))?);
    refused(File::create_new(dir.join("f")), libc::EEXIST)?;
    refused(fs::create_dir(dir.join("f")), libc::EEXIST)?;
    refused(File::open(dir.join("g")), libc::ENOENT)?;
    refused(File::open(dir.join("f/g")), libc::ENOTDIR)
}

fn rename(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("a"), "a")?;
    fs::write(dir.join("b"), "b")?;
    let ino = fs::metadata(dir.join("a"))?.ino();
    fs::rename(dir.join("a"), dir.join("b"))?;
    expect(fs::read(dir.join("b"))? == b"a" && !dir.join("a").exists())?;
    expect(fs::metadata(dir.join("b"))?.ino() == ino)?;
    refused(fs::rename(dir.join("a"), dir.join("c")), libc::ENOENT)?;
    fs::create_dir(dir.join("d"))?;
    refused(fs::rename(dir.join("b"), dir.join("d")), libc::EISDIR)?;
    refused(fs::rename(dir.join("d"), dir.join("b")), libc::ENOTDIR)
}

fn rename_over_open(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("old"), "old")?;
    fs::write(dir.join("new"), "new")?;
    let mut open = File::open(dir.join("old"))?;
    fs::rename(dir.join("new"), dir.join("old"))?;
    let mut text = String::new();
    open.read_to_string(&mut text)?;
    expect(text == "old" && open.metadata()?.nlink() == 0)?;
    expect(fs::read(dir.join("old"))? == b"new")
}

fn rename_flags(dir: &Path, from: &str, to: &str, flags: RenameFlags) -> io::Result<()> {
    let (from, to) = (dir.join(from), dir.join(to));
    Ok(rustix::fs::renameat_with(CWD, &from, CWD, &to, flags)?)
}

fn rename_no_replace(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("a"), "a")?;
    fs::write(dir.join("b"), "b")?;
    let flags = RenameFlags::NOREPLACE;
    refused(rename_flags(dir, "a", "b", flags), libc::EEXIST)?;
    rename_flags(dir, "a", "c", flags)?;
    expect(fs::read(dir.join("c"))? == b"a")
}

fn exchange(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("a"), "a")?;
    fs::create_dir(dir.join("b"))?;
    fs::write(dir.join("b/in"), "b")?;
    rename_flags(dir, "a", "b", RenameFlags::EXCHANGE)?;
    expect(fs::read(dir.join("b"))? == b"a" && fs::read(dir.join("a/in"))? == b"b")?;
    refused(
        rename_flags(dir, "a", "c", RenameFlags::EXCHANGE),
        libc::ENOENT,
    )
}

fn rename_whiteout(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("a"), "a")?;
    fs::write(dir.join("b"), "b")?;
    rename_flags(dir, "a", "b", RenameFlags::WHITEOUT)?;
    expect(fs::read(dir.join("b"))? == b"a")?;
    // A device of no number stands for what has gone.
    let left = fs::symlink_metadata(dir.join("a"))?;
    let kind = FileType::from_raw_mode(left.mode());
    expect(kind == FileType::CharacterDevice && left.rdev() == 0)?;
    let both = RenameFlags::WHITEOUT | RenameFlags::EXCHANGE;
    refused(rename_flags(dir, "b", "a", both), libc::EINVAL)?;
    rename_flags(
        dir,
        "b",
        "c",
        RenameFlags::WHITEOUT | RenameFlags::NOREPLACE,
    )?;
    expect(fs::read(dir.join("c"))? == b"a")
}

fn rename_directory(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir.join("a/b/c"))?;
    fs::write(dir.join("a/b/c/f"), "f")?;
    fs::create_dir(dir.join("z"))?;
    fs::rename(dir.join("a/b"), dir.join("z/y"))?;
    expect(fs::read(dir.join("z/y/c/f"))? == b"f" && !dir.join("a/b").exists())?;
    fs::create_dir(dir.join("empty"))?;
    fs::rename(dir.join("z/y"), dir.join("empty"))?;
    expect(fs::read(dir.join("empty/c/f"))? == b"f")?;
    fs::write(dir.join("a/full"), "")?;
    refused(
        fs::rename(dir.join("empty"), dir.join("a")),
        libc::ENOTEMPTY,
    )
}

fn rename_into_itself(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir.join("a/b"))?;
    refused(fs::rename(dir.join("a"), dir.join("a/b/c")), libc::EINVAL)
}

fn hard_link(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("a"), "a")?;
    fs::hard_link(dir.join("a"), dir.join("b"))?;
    let (one, two) = (fs::metadata(dir.join("a"))?, fs::metadata(dir.join("b"))?);
    expect(one.ino() == two.ino() && one.nlink() == 2 && two.nlink() == 2)?;
    fs::write(dir.join("b"), "both")?;
    expect(fs::read(dir.join("a"))? == b"both")?;
    fs::remove_file(dir.join("a"))?;
    expect(fs::read(dir.join("b"))? == b"both" && fs::metadata(dir.join("b"))?.nlink() == 1)?;
    refused(fs::hard_link(dir, dir.join("c")), libc::EPERM)
}

fn unlink_open(dir: &Path) -> io::Result<()> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(dir.join("f"))?;
    fs::remove_file(dir.join("f"))?;
    file.write_all(b"still here")?;
    file.seek(SeekFrom::Start(0))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    expect(text == "still here" && file.metadata()?.nlink() == 0)?;
    fs::write(dir.join("f"), "another")?;
    expect(file.metadata()?.len() == 10)
}

fn symbolic_link(dir: &Path) -> io::Result<()> {
    symlink("target/of it", dir.join("l"))?;
    expect(fs::read_link(dir.join("l"))?.as_os_str() == "target/of it")?;
    expect(fs::symlink_metadata(dir.join("l"))?.len() == 12)?;
    refused(fs::read(dir.join("l")), libc::ENOENT)?;
    symlink("loop", dir.join("loop"))?;
    refused(File::open(dir.join("loop")), libc::ELOOP)
}

fn special_files(dir: &Path) -> io::Result<()> {
    let rows = [
        ("fifo", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        ("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        ("loop", FileType::BlockDevice, rustix::fs::makedev(7, 0)),
    ];
    for (name, kind, device) in rows {
        let path = dir.join(name);
        rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(0o640), device)?;
        let stat = fs::symlink_metadata(&path)?;
        expect(FileType::from_raw_mode(stat.mode()) == kind && stat.rdev() == device)?;
        expect(stat.mode() & 0o7777 == 0o640 & !umask())?;
    }
    Ok(())
}

fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok())
        .unwrap_or(0o022)
}

fn modes(dir: &Path) -> io::Result<()> {
    let path = dir.join("f");
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o750)
        .open(&path)?;
    expect(file.metadata()?.mode() & 0o7777 == 0o750 & !umask())?;
    for mode in [0o000, 0o4755, 0o2710, 0o1777, 0o644] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        expect(fs::metadata(&path)?.mode() & 0o7777 == mode)?;
    }
    Ok(())
}

fn owners(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("f"), "")?;
    symlink("f", dir.join("l"))?;
    let chown = |name: &str, uid, gid| {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(CWD, dir.join(name), Some(uid), Some(gid), flags)
    };
    chown("f", 1_000, 100)?;
    chown("l", 4_000_000_000, 7)?;
    let owner =
        |name: &str| fs::symlink_metadata(dir.join(name)).map(|stat| (stat.uid(), stat.gid()));
    expect(owner("f")? == (1_000, 100) && owner("l")? == (4_000_000_000, 7))
}

fn times(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("f"), "")?;
    symlink("f", dir.join("l"))?;
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    for name in ["f", "l"] {
        let times = Timestamps {
            last_access: time(1_000_000_000, 1),
            last_modification: time(-5, 123_456_789),
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(CWD, dir.join(name), &times, flags)?;
        let stat = fs::symlink_metadata(dir.join(name))?;
        expect((stat.mtime(), stat.mtime_nsec()) == (-5, 123_456_789))?;
        expect((stat.atime(), stat.atime_nsec()) == (1_000_000_000, 1))?;
    }
    fs::write(dir.join("f"), "newer")?;
    expect(fs::metadata(dir.join("f"))?.mtime() > 1_700_000_000)
}

fn xattrs(dir: &Path) -> io::Result<()> {
    let path = dir.join("f");
    fs::write(&path, "")?;
    let set = |name: &str, value: &[u8], flags| -> io::Result<()> {
        Ok(rustix::fs::setxattr(&path, name, value, flags)?)
    };
    let get = |name: &str| -> io::Result<Vec<u8>> {
        let mut value = vec![0; 100];
        let len = rustix::fs::getxattr(&path, name, &mut *value)?;
        value.truncate(len);
        Ok(value)
    };
    set("user.a", b"one", XattrFlags::CREATE)?;
    refused(set("user.a", b"two", XattrFlags::CREATE), libc::EEXIST)?;
    set("user.a", b"three", XattrFlags::REPLACE)?;
    refused(set("user.b", b"four", XattrFlags::REPLACE), libc::ENODATA)?;
    set("trusted.t", b"\0\xff", XattrFlags::empty())?;
    expect(get("user.a")? == b"three" && get("trusted.t")? == b"\0\xff")?;
    let mut list = vec![0; 1_000];
    let len = rustix::fs::listxattr(&path, &mut *list)?;
    let names: Vec<&[u8]> = list[..len].split(|byte| *byte == 0).collect();
    expect(names.contains(&&b"user.a"[..]) && names.contains(&&b"trusted.t"[..]))?;
    rustix::fs::removexattr(&path, "user.a")?;
    refused(get("user.a"), libc::ENODATA)
}

fn capabilities(dir: &Path) -> io::Result<()> {
    let (path, name) = (dir.join("ping"), "security.capability");
    fs::write(&path, "")?;
    // cap_net_raw=ep, in its second version.
    let value = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::setxattr(&path, name, &value, XattrFlags::empty())?;
    let mut found = [0; 20];
    let len = rustix::fs::getxattr(&path, name, &mut found[..])?;
    expect(len == 20 && found == value)
}

fn set_group_id(dir: &Path) -> io::Result<()> {
    let above = dir.join("above");
    fs::create_dir(&above)?;
    std::os::unix::fs::chown(&above, None, Some(100))?;
    fs::set_permissions(&above, fs::Permissions::from_mode(0o2755))?;
    fs::write(above.join("f"), "")?;
    fs::create_dir(above.join("d"))?;
    let stat = fs::metadata(above.join("d"))?;
    expect(fs::metadata(above.join("f"))?.gid() == 100)?;
    expect(stat.gid() == 100 && stat.mode() & libc::S_ISGID != 0)
}

fn locks(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("f"), "")?;
    let open = || File::options().read(true).write(true).open(dir.join("f"));
    let (one, two) = (open()?, open()?);
    let exclusive = FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&one, exclusive)?;
    let other = rustix::fs::flock(&two, exclusive).map_err(io::Error::from);
    refused(other, libc::EWOULDBLOCK)?;
    drop(one);
    rustix::fs::flock(&two, exclusive)?;
    rustix::fs::fcntl_lock(&two, exclusive)?;
    Ok(())
}

fn sync(dir: &Path) -> io::Result<()> {
    let mut file = File::create(dir.join("f"))?;
    file.write_all(b"durable")?;
    file.sync_data()?;
    file.sync_all()?;
    File::open(dir)?.sync_all()
}

fn allocate(dir: &Path) -> io::Result<()> {
    let file = File::create_new(dir.join("f"))?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 20)?;
    expect(file.metadata()?.len() == 1 << 20)?;
    file.write_all_at(&[7; 8192], 0)?;
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 0, 4096)?;
    let bytes = fs::read(dir.join("f"))?;
    expect(bytes[..4096].iter().all(|byte| *byte == 0) && bytes[4096] == 7)
}

/// A mapping of a file's first page.
struct Page(*mut libc::c_void);

impl Page {
    const LEN: usize = 4096;

    fn of(file: &File, flags: MapFlags) -> io::Result<Self> {
        let (any, both) = (std::ptr::null_mut(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: the kernel chooses where, and nobody else knows the place.
        #[expect(unsafe_code, reason = "the mapping itself is what is tried")]
        let mapped = unsafe { rustix::mm::mmap(any, Self::LEN, both, flags, file, 0) };
        Ok(Self(mapped?))
    }

    fn byte(&self, at: usize) -> u8 {
        assert!(at < Self::LEN);
        // SAFETY: it is within the page, which stays as long as this does.
        #[expect(unsafe_code, reason = "the mapping itself is what is tried")]
        unsafe {
            self.0.cast::<u8>().add(at).read_volatile()
        }
    }

    fn set(&self, at: usize, byte: u8) {
        assert!(at < Self::LEN);
        // SAFETY: as above, and it can be written to.
        #[expect(unsafe_code, reason = "the mapping itself is what is tried")]
        unsafe {
            self.0.cast::<u8>().add(at).write_volatile(byte);
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and nobody uses it any more.
        #[expect(unsafe_code, reason = "the mapping itself is what is tried")]
        let unmapped = unsafe { rustix::mm::munmap(self.0, Self::LEN) };
        assert!(unmapped.is_ok());
    }
}

fn map(dir: &Path) -> io::Result<()> {
    let options = || File::options().read(true).write(true).clone();
    let path = dir.join("f");
    fs::write(&path, [7; Page::LEN])?;
    let file = options().open(&path)?;
    let shared = Page::of(&file, MapFlags::SHARED)?;
    // What is written through one descriptor is seen through the others, and the mapping.
    shared.set(0, 1);
    options().open(&path)?.write_all_at(&[2], 1)?;
    let private = Page::of(&file, MapFlags::PRIVATE)?;
    expect([0, 1, 2].map(|at| private.byte(at)) == [1, 2, 7])?;
    private.set(2, 9);
    expect(shared.byte(1) == 2 && shared.byte(2) == 7)?;
    // It outlives the descriptor, and the name.
    drop((file, private));
    shared.set(3, 3);
    expect(fs::read(&path)?[..4] == [1, 2, 7, 3])?;
    fs::remove_file(&path)?;
    shared.set(4, 4);
    expect(shared.byte(4) == 4)?;
    // Who may only read may not write by a mapping.
    fs::write(&path, [7; Page::LEN])?;
    let reader = File::open(&path)?;
    let writable = Page::of(&reader, MapFlags::SHARED).map(|_| ());
    refused(writable, libc::EACCES)
}

fn list_many(dir: &Path) -> io::Result<()> {
    let names: Vec<String> = (0..3_000).map(|at| format!("name-{at:05}")).collect();
    for name in &names {
        fs::write(dir.join(name), "")?;
    }
    let list = || -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            found.push(entry?.file_name().to_string_lossy().into_owned());
        }
        found.sort();
        Ok(found)
    };
    expect(list()? == names)?;
    fs::remove_file(dir.join(&names[1_500]))?;
    expect(list()?.len() == 2_999)
}

fn remove_full(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir.join("d/e"))?;
    refused(fs::remove_dir(dir.join("d")), libc::ENOTEMPTY)?;
    refused(fs::remove_file(dir.join("d")), libc::EISDIR)?;
    fs::write(dir.join("f"), "")?;
    refused(fs::remove_dir(dir.join("f")), libc::ENOTDIR)?;
    fs::remove_dir_all(dir.join("d"))?;
    refused(fs::remove_dir(dir.join("d")), libc::ENOENT)
}

fn odd_names(dir: &Path) -> io::Result<()> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let long = "n".repeat(255);
    for name in [
        &b"\xff\xfe"[..],
        b"new\nline",
        b" ",
        b"%2F",
        b"...",
        long.as_bytes(),
    ] {
        let path = dir.join(OsStr::from_bytes(name));
        fs::write(&path, name)?;
        expect(fs::read(&path)? == name)?;
    }
    refused(fs::write(dir.join("n".repeat(256)), ""), libc::ENAMETOOLONG)?;
    expect(fs::read_dir(dir)?.count() == 6)
}
