//! Trees on a disk with everything that a file system has.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, chmodat, lsetxattr, makedev,
    mknodat, utimensat,
};

use crate::common::Random;
use crate::sample::TestResult;

/// How many things are in a tree.
const COUNT: usize = 250;

/// A file capability: to bind low ports, permitted and effective.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An access control list that lets user 7 read: owner, user 7, group, mask, others.
const LIST: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 7, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255,
    255, 0x10, 0, 4, 0, 255, 255, 255, 255, 0x20, 0, 0, 0, 255, 255, 255, 255,
];

const NAMES: [&[u8]; 14] = [
    b"a",
    b"a-",
    b"b.so",
    b"-rf",
    b" space ",
    b"new\nline",
    b"back\\slash",
    b"\xff\xfe no utf-8",
    "gr\u{fc}\u{df}e".as_bytes(),
    b"equals=percent%41",
    b".hidden",
    b".wh",
    b"...",
    b"*?[",
];

/// A random tree below `root`, which exists. As root it has owners, devices and attributes
/// of all kinds.
pub(super) fn make(root: &Path, random: &mut Random) -> TestResult {
    let mut directories = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut all = vec![root.to_owned()];
    for number in 0..COUNT {
        let parent = pick(&directories, random).clone();
        let path = parent.join(std::ffi::OsStr::from_bytes(&name(number, random)));
        if path.as_os_str().len() > 3000 {
            continue;
        }
        let kind = random.within(0..14);
        match kind {
            0..4 => {
                fs::create_dir(&path)?;
                directories.push(path.clone());
            }
            4..8 => write(&path, random)?,
            8 => sparse(&path, random)?,
            9 => symlink(std::ffi::OsStr::from_bytes(&target(random)), &path)?,
            10 if !files.is_empty() => {
                // Linux links symlinks and devices as well.
                let first = pick(&files, random).clone();
                rustix::fs::linkat(CWD, &first, CWD, &path, AtFlags::empty())?;
            }
            11 => node(&path, FileType::Fifo, 0)?,
            12 => node(&path, FileType::CharacterDevice, random.next())?,
            13 => node(&path, FileType::BlockDevice, random.next())?,
            _ => continue,
        }
        if !path.is_dir() || path.is_symlink() {
            files.push(path.clone());
        }
        all.push(path);
    }
    for path in &all {
        decorate(path, random)?;
    }
    // Last, and what is inside before the directory.
    for path in all.iter().rev() {
        date(path, random)?;
    }
    Ok(())
}

fn pick<'a, T>(items: &'a [T], random: &mut Random) -> &'a T {
    let at = random.within(0..items.len() as u64);
    &items[usize::try_from(at).expect("an index")]
}

/// A name that nothing else has, by its number.
fn name(number: usize, random: &mut Random) -> Vec<u8> {
    let mut name = pick(&NAMES, random).to_vec();
    name.extend_from_slice(number.to_string().as_bytes());
    if random.within(0..8) == 0 {
        name.resize(255, b'x');
    }
    name
}

fn target(random: &mut Random) -> Vec<u8> {
    let long = [b"t".repeat(100), b"t/".repeat(500), b"t".repeat(101)];
    match random.within(0..4) {
        0 => pick(&long, random).clone(),
        1 => b"../../../../etc/passwd".to_vec(),
        2 => b"/absolute".to_vec(),
        _ => pick(&NAMES, random).to_vec(),
    }
}

fn write(path: &Path, random: &mut Random) -> io::Result<()> {
    let lens = [0, 1, 511, 512, 513, 5000, 300_000];
    let len = *pick(&lens, random);
    let mut bytes = vec![b'x'; len];
    if random.within(0..2) == 0 {
        random.fill(&mut bytes);
    }
    fs::write(path, bytes)
}

/// Holes before, between and behind, or nothing else.
fn sparse(path: &Path, random: &mut Random) -> io::Result<()> {
    let file = File::create(path)?;
    let blocks = random.within(1..200);
    file.set_len(blocks * 4096 + random.within(0..4096))?;
    for _ in 0..random.within(0..6) {
        let mut block = [0; 4096];
        random.fill(&mut block);
        file.write_all_at(&block, random.within(0..blocks) * 4096)?;
    }
    file.sync_all()
}

fn node(path: &Path, kind: FileType, number: u64) -> TestResult {
    let bits = |shift: u64, mask: u64| u32::try_from(number >> shift & mask).expect("masked");
    let device = match kind {
        FileType::Fifo => 0,
        _ => makedev(bits(0, 0xfff), bits(20, 0xfffff)),
    };
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device)?;
    Ok(())
}

/// Owner, mode and extended attributes; the owner first, since that takes capabilities.
fn decorate(path: &Path, random: &mut Random) -> TestResult {
    let owners = [0, 1, 1000, 65534, 2_097_151, 2_097_152, u32::MAX - 1];
    let (uid, gid) = (*pick(&owners, random), *pick(&owners, random));
    lchown(path, Some(uid), Some(gid))?;
    let kind = fs::symlink_metadata(path)?.file_type();
    if !kind.is_symlink() {
        let mode = [0o644, 0o755, 0o4755, 0o2711, 0o1777, 0o7777, 0o600, 0];
        let mode = Mode::from_raw_mode(*pick(&mode, random));
        chmodat(CWD, path, mode, AtFlags::empty())?;
    }
    let set = |name: &[u8], value: &[u8]| -> TestResult {
        let name = CString::new(name)?;
        Ok(lsetxattr(path, &*name, value, XattrFlags::empty())?)
    };
    if random.within(0..5) == 0 {
        set(b"trusted.any", b"\0\n=\xff")?;
    }
    if random.within(0..9) == 0 {
        set(b"trusted.overlay.opaque", b"y")?;
    }
    if !kind.is_file() && !kind.is_dir() {
        return Ok(());
    }
    let mut large = vec![0; 2000];
    random.fill(&mut large);
    let rows: [(&[u8], &[u8]); 8] = [
        (b"user.a", b"value"),
        (b"user.large", &large),
        (b"user.per%cent \xff", b"\0"),
        (b"user.oci.digest", b"forged"),
        (b"user.overlay.opaque", b"y"),
        (b"security.selinux", b"system_u:object_r:bin_t:s0\0"),
        (b"security.capability", &CAPABILITY),
        (b"system.posix_acl_access", &LIST),
    ];
    for (name, value) in rows {
        let fits = kind.is_file() || name != b"security.capability";
        if fits && random.within(0..6) == 0 {
            set(name, value)?;
        }
    }
    if kind.is_dir() && random.within(0..6) == 0 {
        set(b"system.posix_acl_default", &LIST)?;
    }
    Ok(())
}

/// Times before 1970 and after 2038, with and without nanoseconds.
fn date(path: &Path, random: &mut Random) -> TestResult {
    let seconds = [
        -1_000_000_000,
        -1,
        0,
        1,
        1_700_000_000,
        1 << 31,
        10_000_000_000,
    ];
    let nanoseconds = [0, 1, 500_000_000, 123_456_789, 999_999_999];
    let time = Timespec {
        tv_sec: *pick(&seconds, random),
        tv_nsec: *pick(&nanoseconds, random),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}
