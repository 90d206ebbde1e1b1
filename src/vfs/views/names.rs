//! The injective map from ref names to paths below the mount root.
//!
//! A ref name is cut at `/`, and each component becomes one directory level. Most names
//! stay as they are; the exceptions keep two things true: no name ever leads out of its
//! place or hides what the mount itself shows there, and two different names never come
//! to the same path. The rules are in the contract, section "Names"; here they are
//! applied in its order:
//!
//! 1. control characters and `%` are written as `%XX`, an empty component as `%`;
//! 2. a component that is reserved gets its first byte written so;
//! 3. what is then too long for a file name, or looks like a shortened one, is
//!    shortened and closed with a piece of the raw component's digest.

use crate::oci::{Algorithm, Digest};
use crate::vfs::node::Name;

/// The longest name that the kernel takes for one level, in bytes.
const MAX_LEN: usize = 255;

/// How much of a long component is kept before `~` and [`HASH_LEN`] digits.
const KEPT_LEN: usize = MAX_LEN - 1 - HASH_LEN;

/// Hexadecimal digits of the raw component's digest in a shortened name.
const HASH_LEN: usize = 16;

/// The most levels of one name: as many as the longest ref name can have. A longer one is
/// refused, and the directory that says so must not be deeper than the stack of a thread.
const MAX_LEVELS: usize = 4_097;

/// The names that an image directory uses itself.
const IMAGE_NAMES: [&str; 9] = [
    "config.json",
    "export",
    "files",
    "index.json",
    "layers",
    "manifest.json",
    "platforms",
    "referrers",
    "rootfs",
];

/// The directory levels under which the ref `name` is shown. What is left of a name with
/// more than [`MAX_LEVELS`] is the last one, each `/` in it written as `%2F`.
#[must_use]
pub fn levels(name: &str) -> Vec<Name> {
    name.splitn(MAX_LEVELS, '/')
        .enumerate()
        .map(|(depth, raw)| component(raw, depth))
        .collect()
}

/// The ref name that somebody means who gives a name to the path `levels`: `%XX` is decoded
/// once, so that `%2F` is a `/`. None where that is malformed, or where the name would be
/// shown elsewhere although nothing in it is encoded, because the mount uses it itself.
#[must_use]
pub fn raw(levels: &[Name]) -> Option<String> {
    let mut parts = Vec::new();
    for (depth, level) in levels.iter().enumerate() {
        let part = String::from_utf8(decode(level)?).ok()?;
        if !level.contains(&b'%') && component(&part, depth) != *level {
            return None;
        }
        parts.push(part);
    }
    Some(parts.join("/"))
}

fn decode(written: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = written.iter();
    let mut decoded = Vec::with_capacity(written.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => digit(bytes.next()?)? * 16 + digit(bytes.next()?)?,
            byte => *byte,
        });
    }
    Some(decoded)
}

fn digit(byte: &u8) -> Option<u8> {
    let digit = char::from(*byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

/// One component of a ref name as a file name; `depth` 0 is the mount root.
fn component(raw: &str, depth: usize) -> Name {
    let is_own = (depth == 0 && raw == "incoming") || (depth > 0 && IMAGE_NAMES.contains(&raw));
    written(raw, is_own || is_reserved(raw))
}

/// Any text as one name inside an image directory, by the same rules. What the mount shows
/// beside refs is not there, so that names of that stay as they are.
#[must_use]
pub fn part(raw: &str) -> Name {
    written(raw, is_reserved(raw))
}

/// The text that [`part`] writes as `name`; none where it writes no text so, or only a
/// longer one.
#[must_use]
pub fn raw_part(name: &[u8]) -> Option<String> {
    let raw = match name {
        b"%" => String::new(),
        name => String::from_utf8(decode(name)?).ok()?,
    };
    (part(&raw) == name).then_some(raw)
}

fn written(raw: &str, reserved: bool) -> Name {
    let mut written = Vec::with_capacity(raw.len());
    for (at, byte) in raw.bytes().enumerate() {
        if needs_escape(byte) || (reserved && at == 0) {
            escape(byte, &mut written);
        } else {
            written.push(byte);
        }
    }
    if written.is_empty() {
        written.push(b'%');
    }
    if written.len() > MAX_LEN || looks_shortened(&written) {
        shorten(&mut written, raw);
    }
    written
}

/// Whether a program that walks the mount takes this name for something else, wherever it
/// stands.
fn is_reserved(raw: &str) -> bool {
    raw.starts_with('.') || is_digest(raw)
}

/// Whether a component is a whole digest of a registered algorithm. A tag that is a git
/// hash is none.
fn is_digest(raw: &str) -> bool {
    raw.parse::<Digest>().is_ok_and(|digest| {
        digest.algorithm() != Algorithm::Unknown
            || (digest.algorithm_name() == "blake3" && digest.encoded().len() == 64)
    })
}

/// Whether a byte is written as `%XX` wherever it stands in a component.
#[must_use]
pub fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, 0x7F | b'%' | b'/')
}

/// Writes one byte as `%XX`.
pub fn escape(byte: u8, written: &mut Name) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    written.extend([
        b'%',
        HEX[usize::from(byte >> 4)],
        HEX[usize::from(byte & 15)],
    ]);
}

/// Whether a written component has the form that [`shorten`] gives.
fn looks_shortened(written: &[u8]) -> bool {
    let hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    written.len() == MAX_LEN && written[KEPT_LEN] == b'~' && written[KEPT_LEN + 1..].iter().all(hex)
}

fn shorten(written: &mut Name, raw: &str) {
    written.truncate(KEPT_LEN);
    written.push(b'~');
    written.extend(&Digest::of(raw.as_bytes()).encoded().as_bytes()[..HASH_LEN]);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn path(name: &str) -> String {
        String::from_utf8_lossy(&levels(name).join(&b'/')).into_owned()
    }

    #[test]
    fn table() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let rows = [
            ("plain", "alpine:3.19", "alpine:3.19"),
            ("nested", "ghcr.io/org/app:1.2", "ghcr.io/org/app:1.2"),
            ("two dots", "..", "%2E."),
            ("one dot", ".", "%2E"),
            ("hidden", ".ocifs", "%2Eocifs"),
            ("empty", "", "%"),
            ("absolute", "/etc/passwd", "%/etc/passwd"),
            ("climbing", "../../x", "%2E./%2E./x"),
            ("trailing slash", "a/", "a/%"),
            ("newline", "a\nb", "a%0Ab"),
            ("escape sequence", "\u{1b}[2J", "%1B[2J"),
            ("delete", "a\u{7f}", "a%7F"),
            ("percent", "100%", "100%25"),
            ("bidi override stays", "a\u{202e}b", "a\u{202e}b"),
            ("drop box at the top", "incoming", "%69ncoming"),
            ("drop box below", "a/incoming", "a/incoming"),
            ("own name at the top", "layers", "layers"),
            ("own name below", "a/layers", "a/%6Cayers"),
            ("own file below", "a/b/config.json", "a/b/%63onfig.json"),
            ("digest", &digest, &format!("%73{}", &digest[1..])),
            (
                "git hash",
                "0123456789abcdef0123456789abcdef01234567",
                "0123456789abcdef0123456789abcdef01234567",
            ),
        ];
        for (row, name, expected) in rows {
            assert_eq!(path(name), expected, "{row}");
        }
    }

    #[test]
    fn names_that_are_given() {
        let rows = [
            ("plain", "app:1", Some("app:1")),
            ("nested", "ghcr.io/org/app", Some("ghcr.io/org/app")),
            ("one level", "a%2Fb", Some("a/b")),
            ("lower case", "a%2fb", Some("a/b")),
            ("decoded once", "a%252F", Some("a%2F")),
            ("reserved, encoded", "a/%6Cayers", Some("a/layers")),
            ("reserved", "a/layers", None),
            ("own name at the top", "layers", Some("layers")),
            ("hidden", ".x", None),
            ("half a digit", "a%2", None),
            ("no digit", "a%zz", None),
            ("signed digit", "a%+1", None),
            ("no text", "a%FF", None),
        ];
        for (row, path, expected) in rows {
            let levels: Vec<Name> = path.split('/').map(|level| level.into()).collect();
            assert_eq!(raw(&levels).as_deref(), expected, "{row}");
        }
    }

    #[test]
    fn parts() {
        let long = format!("application/{}", "x".repeat(300));
        let digest = format!("sha256:{}", "a".repeat(64));
        let rows = [
            (
                "artifact type",
                "application/spdx+json",
                "application%2Fspdx+json",
            ),
            ("with a parameter", "text/a; b=c", "text%2Fa; b=c"),
            ("own name of images", "config.json", "config.json"),
            ("drop box", "incoming", "incoming"),
            ("hidden", ".gitignore", "%2Egitignore"),
            ("two dots", "..", "%2E."),
            ("empty", "", "%"),
            ("percent", "%2F", "%252F"),
            ("control", "a\u{1b}[2J\0", "a%1B[2J%00"),
            ("digest", &digest, &format!("%73{}", &digest[1..])),
        ];
        for (row, raw, expected) in rows {
            assert_eq!(part(raw), expected.as_bytes(), "{row}");
            assert_eq!(raw_part(expected.as_bytes()).as_deref(), Some(raw), "{row}");
        }
        assert_eq!(part(&long).len(), MAX_LEN);
        for (row, name) in [
            ("shortened", &part(&long)[..]),
            ("lower case", b"a%2fb"),
            ("needlessly encoded", b"%61"),
            ("half a digit", b"a%2"),
            ("not encoded", b".x"),
            ("no text", b"\xff"),
        ] {
            assert_eq!(raw_part(name), None, "{row}");
        }
    }

    #[test]
    fn long_components_are_shortened() {
        let longest = "x".repeat(255);
        assert_eq!(path(&longest), longest);
        let long = "x".repeat(300);
        let written = path(&long);
        assert_eq!(written.len(), 255);
        let hash = Digest::of(long.as_bytes());
        assert_eq!(
            written,
            format!("{}~{}", &long[..238], &hash.encoded()[..16])
        );
        // A raw name that looks like a shortened one does not meet it.
        assert_ne!(path(&written), written);
        assert_eq!(
            path(&"é".repeat(200)).len().max(255),
            path(&"é".repeat(200)).len()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn different_names_have_different_safe_paths(
            names in prop::collection::vec("(\\.|/|%|~|a|incoming|layers|[\u{0}-\u{7f}]|é){0,6}", 1..20)
        ) {
            let mut seen: HashMap<Vec<Name>, String> = HashMap::new();
            for name in names {
                let levels = levels(&name);
                for level in &levels {
                    prop_assert!(!level.is_empty() && level.len() <= MAX_LEN);
                    prop_assert!(level[0] != b'.');
                    prop_assert!(!level.iter().any(|b| *b == b'/' || *b < 0x20));
                }
                prop_assert!(levels[0] != b"incoming");
                if let Some(other) = seen.insert(levels, name.clone()) {
                    prop_assert_eq!(other, name);
                }
            }
        }
    }
}
