//! The kernel's table of mounts, which is known without asking any of them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Where the table is.
const TABLE: &str = "/proc/self/mountinfo";

/// The file system type of our mounts, where the kernel was told one.
const TYPE: &str = "fuse.oci-layout";

/// Our mounts, in the order in which they were made.
///
/// # Errors
/// If there is no table.
pub(crate) fn list() -> anyhow::Result<Vec<Mounted>> {
    let table = fs::read(TABLE).with_context(|| format!("cannot read {TABLE}"))?;
    Ok(mounts(&table))
}

/// Our mount that is seen at `mountpoint`, if the topmost one there is ours.
///
/// # Errors
/// If there is no table, or no such place.
pub(crate) fn find(mountpoint: &Path) -> anyhow::Result<Option<Mounted>> {
    let table = fs::read(TABLE).with_context(|| format!("cannot read {TABLE}"))?;
    Ok(topmost(&table, &absolute(mountpoint)?))
}

fn topmost(table: &[u8], mountpoint: &Path) -> Option<Mounted> {
    let is_there = |line: &&[u8]| {
        let field = line.split(|byte| *byte == b' ').nth(4);
        field.is_some_and(|field| OsString::from_vec(unescape(field)) == mountpoint)
    };
    let mut lines = table.split(|byte| *byte == b'\n');
    lines.rfind(is_there).and_then(mount)
}

/// One line of the table of mounts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) mountpoint: PathBuf,
    pub(crate) source: String,
    /// Who mounted it.
    pub(crate) user: u32,
}

/// Our mounts in the kernel's table.
///
/// Spec: proc_pid_mountinfo(5).
fn mounts(table: &[u8]) -> Vec<Mounted> {
    let lines = table.split(|byte| *byte == b'\n');
    lines.filter_map(mount).collect()
}

/// One line of the table, if it is one of ours: `36 35 98:0 /root MOUNTPOINT options
/// [fields…] - TYPE SOURCE super-options`.
fn mount(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mountpoint = fields.nth(4)?;
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    if fields.next()? != TYPE.as_bytes() {
        return None;
    }
    let source = fields.next()?;
    let mut options = fields.next()?.split(|byte| *byte == b',');
    let user = options.find_map(|option| option.strip_prefix(b"user_id="))?;
    Some(Mounted {
        mountpoint: OsString::from_vec(unescape(mountpoint)).into(),
        source: String::from_utf8_lossy(&unescape(source)).into_owned(),
        user: std::str::from_utf8(user).ok()?.parse().ok()?,
    })
}

/// Undoes the `\040` of the kernel's tables.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = match rest {
            [b'\\', digits @ ..] if digits.len() >= 3 => std::str::from_utf8(&digits[..3])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 8).ok()),
            _ => None,
        };
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &rest[4..] } else { after };
    }
    bytes
}

/// The absolute path of a mount point, found without asking the mount itself.
///
/// # Errors
/// If its parent is not there.
pub(crate) fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = parent
                .canonicalize()
                .with_context(|| parent.display().to_string());
            Ok(parent?.join(name))
        }
        _ => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_mount_counts() {
        let ours = "40 22 0:50 / /mnt/a\\040b ro - fuse.oci-layout /srv/l ro,user_id=7\n";
        let other = "41 40 0:51 / /mnt/a\\040b rw - tmpfs tmpfs rw\n";
        let rows = [
            ("ours alone", ours.to_owned(), Some(7)),
            ("ours above", format!("{other}{ours}"), Some(7)),
            ("ours below", format!("{ours}{other}"), None),
            (
                "none",
                "42 22 0:52 / /mnt rw - ext4 /dev/vda rw\n".to_owned(),
                None,
            ),
        ];
        for (name, table, user) in rows {
            let found = topmost(table.as_bytes(), Path::new("/mnt/a b"));
            assert_eq!(found.map(|mount| mount.user), user, "{name}");
        }
    }

    #[test]
    fn our_mounts_are_found_in_the_table() {
        let table = b"22 1 0:20 / / rw shared:1 - ext4 /dev/vda rw\n\
            40 22 0:50 / /mnt/a\\040b ro,nosuid - fuse.oci-layout /srv/l\\134x ro,user_id=0\n\
            41 22 0:51 / /mnt/c rw shared:2 master:1 - fuse.oci-layout /srv/m rw,user_id=1000,group_id=1000\n\
            42 22 0:52 / /mnt/d rw - fuse.sshfs host: rw\n\
            broken line\n";
        let expected = [("/mnt/a b", "/srv/l\\x", 0), ("/mnt/c", "/srv/m", 1000)];
        let expected = expected.map(|(mountpoint, source, user)| Mounted {
            mountpoint: mountpoint.into(),
            source: source.into(),
            user,
        });
        assert_eq!(mounts(table), expected);
    }

    #[test]
    fn escapes_of_the_table() {
        let rows = [
            ("plain", "plain"),
            ("a\\040b", "a b"),
            ("\\134", "\\"),
            ("end\\04", "end\\04"),
            ("\\999", "\\999"),
        ];
        for (field, expected) in rows {
            assert_eq!(unescape(field.as_bytes()), expected.as_bytes(), "{field}");
        }
    }
}
