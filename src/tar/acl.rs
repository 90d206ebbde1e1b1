//! Access control lists: the text that tars have, and the bytes that the kernel takes.
//!
//! ```text
//! user::rwx,user:1000:r--,group::r-x,mask::r-x,other::---      star and libarchive
//! user::rwx\nuser:daemon:r--\n…                                GNU tar
//!
//! version, 4 bytes │ tag, 2 │ permissions, 2 │ id, 4 │ tag …   all little-endian
//! ```
//!
//! A list is taken whole or not at all, since half a list says something else than its
//! writer meant. An id may follow the permissions, which libarchive writes; GNU tar writes
//! names without one where the packing machine knew them, and whom those mean is not known
//! here, but for `root`.
//!
//! Spec: POSIX.1e draft 17 section 23.3.1 for the text; Linux `posix_acl_xattr.h` for the
//! bytes.

/// The version of the kernel's form.
const VERSION: u32 = 2;

/// The id of entries that stand for nobody in particular.
const NOBODY: u32 = u32::MAX;

/// Whom an entry is for; the order is that which the kernel insists on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
enum Tag {
    Owner = 0x01,
    User = 0x02,
    OwningGroup = 0x04,
    Group = 0x08,
    Mask = 0x10,
    Other = 0x20,
}

impl Tag {
    fn is_named(self) -> bool {
        matches!(self, Self::User | Self::Group)
    }
}

/// Sorted as the kernel wants it: by tag, then by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    tag: Tag,
    id: u32,
    permissions: u16,
}

/// The attribute that a list of this name is kept in.
pub(super) fn attribute(name: &[u8]) -> Option<&'static [u8]> {
    match name {
        b"access" => Some(b"system.posix_acl_access"),
        b"default" => Some(b"system.posix_acl_default"),
        // Of other systems: NFSv4's, say.
        _ => None,
    }
}

/// The list in the kernel's form; `None` if the kernel would not take it, or if it names
/// somebody of whom no number is given.
pub(super) fn from_text(text: &[u8]) -> Option<Vec<u8>> {
    let lines = text.split(|byte| matches!(byte, b',' | b'\n'));
    let lines = lines.map(|line| without_comment(line).trim_ascii());
    let entries = lines.filter(|line| !line.is_empty()).map(entry);
    let mut entries: Vec<Entry> = entries.collect::<Option<_>>()?;
    entries.sort_unstable();
    are_whole(&entries).then(|| encode(&entries))
}

/// GNU tar may say what is left of an entry under the mask: `#effective:r--`.
fn without_comment(line: &[u8]) -> &[u8] {
    let end = line.iter().position(|byte| *byte == b'#');
    &line[..end.unwrap_or(line.len())]
}

/// Reads `TAG:WHO:PERMISSIONS[:ID]`, or `TAG:PERMISSIONS` of the tags that are for nobody
/// in particular.
fn entry(line: &[u8]) -> Option<Entry> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
    let (word, who, permissions, id) = match *fields {
        [word @ (b"mask" | b"other"), permissions] => (word, &b""[..], permissions, None),
        [word, who, permissions] => (word, who, permissions, None),
        [word, who, permissions, id] => (word, who, permissions, Some(id)),
        _ => return None,
    };
    let is_named = !who.is_empty() || id.is_some();
    let tag = match (word, is_named) {
        (b"user", false) => Tag::Owner,
        (b"user", true) => Tag::User,
        (b"group", false) => Tag::OwningGroup,
        (b"group", true) => Tag::Group,
        (b"mask", false) => Tag::Mask,
        (b"other", false) => Tag::Other,
        _ => return None,
    };
    let id = match (tag.is_named(), id) {
        (false, _) => NOBODY,
        (true, Some(id)) => number(id)?,
        (true, None) if who == b"root" => 0,
        (true, None) => number(who)?,
    };
    let permissions = bits(permissions)?;
    Some(Entry {
        tag,
        id,
        permissions,
    })
}

fn number(text: &[u8]) -> Option<u32> {
    let is_decimal = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| is_decimal)?;
    text.parse().ok().filter(|id| *id != NOBODY)
}

fn bits(text: &[u8]) -> Option<u16> {
    let bit = |letter: &u8| match letter {
        b'r' => Some(4),
        b'w' => Some(2),
        b'x' => Some(1),
        b'-' => Some(0),
        _ => None,
    };
    let bits = text.iter().map(bit).collect::<Option<Vec<u16>>>()?;
    (1..=3)
        .contains(&bits.len())
        .then(|| bits.iter().fold(0, |all, bit| all | bit))
}

/// Whether a sorted list has each entry that must be there, and none twice.
fn are_whole(entries: &[Entry]) -> bool {
    let count = |tag| entries.iter().filter(|entry| entry.tag == tag).count();
    let named = count(Tag::User) + count(Tag::Group);
    let twice = entries
        .windows(2)
        .any(|pair| (pair[0].tag, pair[0].id) == (pair[1].tag, pair[1].id));
    let once = [Tag::Owner, Tag::OwningGroup, Tag::Other];
    once.map(count) == [1; 3] && (named == 0 || count(Tag::Mask) == 1) && !twice
}

/// The name and the text of a list, given the attribute that it is kept in; `None` if the
/// attribute is no list, or not one that can be told in words. Whom it is for is told by
/// number, and root as well: GNU tar knows no other name for sure.
pub(super) fn to_text(attribute_name: &[u8], bytes: &[u8]) -> Option<(&'static [u8], String)> {
    let names: [&'static [u8]; 2] = [b"access", b"default"];
    let name = names
        .into_iter()
        .find(|name| attribute(name) == Some(attribute_name))?;
    let entries = bytes.strip_prefix(&VERSION.to_le_bytes())?;
    let lines = entries.chunks(8).map(|entry| line(entry.try_into().ok()?));
    let lines: Vec<String> = lines.collect::<Option<_>>()?;
    Some((name, lines.join(",")))
}

/// One entry of the kernel's form, as text.
fn line([tag_low, tag_high, low, high, id @ ..]: [u8; 8]) -> Option<String> {
    let tag = u16::from_le_bytes([tag_low, tag_high]);
    let (word, is_named) = match tag {
        0x01 => ("user", false),
        0x02 => ("user", true),
        0x04 => ("group", false),
        0x08 => ("group", true),
        0x10 => ("mask", false),
        0x20 => ("other", false),
        _ => return None,
    };
    let permissions = u16::from_le_bytes([low, high]);
    let letter = |bit: u16, letter: char| if permissions & bit == 0 { '-' } else { letter };
    let letters = [letter(4, 'r'), letter(2, 'w'), letter(1, 'x')];
    let letters = String::from_iter(letters);
    let who = u32::from_le_bytes(id);
    Some(match is_named {
        true => format!("{word}:{who}:{letters}"),
        false => format!("{word}::{letters}"),
    })
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for entry in entries {
        bytes.extend((entry.tag as u16).to_le_bytes());
        bytes.extend(entry.permissions.to_le_bytes());
        bytes.extend(entry.id.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes as `tag:permissions:id`, to be read in a table.
    fn decoded(bytes: &[u8]) -> String {
        let (version, entries) = bytes.split_at(4);
        assert_eq!(version, [2, 0, 0, 0]);
        let number = |bytes: &[u8]| {
            let digits = bytes.iter().rev();
            digits.fold(0u64, |all, byte| all << 8 | u64::from(*byte))
        };
        let entry = |entry: &[u8]| {
            let (tag, permissions) = (number(&entry[..2]), number(&entry[2..4]));
            match number(&entry[4..]) {
                0xFFFF_FFFF => format!("{tag:x}:{permissions}"),
                id => format!("{tag:x}:{permissions}:{id}"),
            }
        };
        let entries: Vec<String> = entries.chunks(8).map(entry).collect();
        entries.join(" ")
    }

    #[test]
    fn text_becomes_what_the_kernel_takes() {
        let rows: &[(&str, &str, Option<&str>)] = &[
            (
                "no more than a mode",
                "user::rw-,group::r--,other::---",
                Some("1:6 4:4 20:0"),
            ),
            (
                "in any order, sorted by id",
                "other::---,mask::r-x,user:20:rwx,group::r-x,user:3:-w-,user::rwx,group:7:--x",
                Some("1:7 2:2:3 2:7:20 4:5 8:1:7 10:5 20:0"),
            ),
            (
                "GNU tar's lines",
                "user::rwx\nuser:1000:rw-\t#effective:r--\ngroup::r-x\nmask::r-x\nother::r-x\n",
                Some("1:7 2:6:1000 4:5 10:5 20:5"),
            ),
            (
                "libarchive's numbers behind",
                "user::rw-,group::r--,other::r--,user:daemon:rw-:1,group:sys:--x:3,mask::rwx",
                Some("1:6 2:6:1 4:4 8:1:3 10:7 20:4"),
            ),
            (
                "a number counts more than a name that looks like one",
                "user::rwx,user:7:r--:8,group::r-x,mask::r-x,other::---",
                Some("1:7 2:4:8 4:5 10:5 20:0"),
            ),
            (
                "one field less",
                "user::rwx,group::r-x,mask:r--,other:r--",
                Some("1:7 4:5 10:4 20:4"),
            ),
            (
                "root is known everywhere",
                "user::rwx,user:root:r--,group::r-x,mask::r-x,other::---",
                Some("1:7 2:4:0 4:5 10:5 20:0"),
            ),
            (
                "a name that only the packing machine knows",
                "user::rwx,user:alice:r--,group::r-x,mask::r-x,other::---",
                None,
            ),
            ("nothing", "", None),
            ("no owner", "group::r-x,other::---", None),
            (
                "two owners",
                "user::rwx,user::r--,group::r-x,other::---",
                None,
            ),
            (
                "no mask, though somebody is named",
                "user::rwx,user:1:r--,group::r-x,other::---",
                None,
            ),
            (
                "the same twice",
                "user::rwx,user:1:r--,user:1:r-x,group::r-x,mask::r-x,other::---",
                None,
            ),
            (
                "a mask for somebody",
                "user::rwx,group::r-x,mask:1:r-x,other::---",
                None,
            ),
            (
                "unknown word",
                "user::rwx,group::r-x,other::---,all::r--",
                None,
            ),
            ("unknown letter", "user::rwz,group::r-x,other::---", None),
            ("too many letters", "user::rwxr,group::r-x,other::---", None),
            ("no letters", "user::,group::r-x,other::---", None),
            (
                "nobody's number",
                "user::rwx,user:4294967295:r--,group::r-x,mask::r-x,other::---",
                None,
            ),
            (
                "a sign before the number",
                "user::rwx,user:+1:r--,group::r-x,mask::r-x,other::---",
                None,
            ),
            (
                "too many fields",
                "user::rwx:1:2,group::r-x,other::---",
                None,
            ),
            (
                "no UTF-8",
                "user::rwx,user:\u{e9}:r--,group::r-x,mask::---,other::---",
                None,
            ),
        ];
        for (name, text, expected) in rows {
            let found = from_text(text.as_bytes());
            let found = found.map(|bytes| decoded(&bytes));
            assert_eq!(found.as_deref(), *expected, "{name}");
        }
    }

    #[test]
    fn what_the_kernel_takes_becomes_text() {
        let rows: &[(&str, &str, &str, Option<&str>)] = &[
            (
                "no more than a mode",
                "access",
                "user::rw-,group::r--,other::---",
                Some("user::rw-,group::r--,other::---"),
            ),
            (
                "named ones by number",
                "default",
                "user::rwx,user:root:r--,user:20:-w-,group::r-x,group:7:--x,mask::r-x,other::---",
                Some(
                    "user::rwx,user:0:r--,user:20:-w-,group::r-x,group:7:--x,mask::r-x,other::---",
                ),
            ),
        ];
        for (name, list, text, expected) in rows {
            let bytes = from_text(text.as_bytes()).expect(name);
            let key = attribute(list.as_bytes()).expect(name);
            let found = to_text(key, &bytes);
            let found = found.as_ref().map(|(name, text)| (*name, text.as_str()));
            assert_eq!(
                found,
                expected.map(|text| (list.as_bytes(), text)),
                "{name}"
            );
        }
        let sound = from_text(b"user::rwx,group::r-x,other::---").expect("sound");
        let access = b"system.posix_acl_access";
        let rows: &[(&str, &[u8], &[u8])] = &[
            ("another attribute", b"user.a", &sound),
            ("nothing", access, b""),
            ("another version", access, &[1, 0, 0, 0]),
            ("half an entry", access, &sound[..16]),
            ("unknown tag", access, &[2, 0, 0, 0, 3, 0, 7, 0, 0, 0, 0, 0]),
        ];
        for (name, key, bytes) in rows {
            assert_eq!(to_text(key, bytes), None, "{name}");
        }
    }

    #[test]
    fn lists_of_other_systems_are_left_alone() {
        let rows: &[(&str, Option<&str>)] = &[
            ("access", Some("system.posix_acl_access")),
            ("default", Some("system.posix_acl_default")),
            ("ace", None),
            ("", None),
        ];
        for (name, expected) in rows {
            let found = attribute(name.as_bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{name}");
        }
    }
}
