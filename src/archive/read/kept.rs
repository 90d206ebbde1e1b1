//! What was learned of archives, kept in the cache directory: their members, and digests
//! that were worked out.
//!
//! ```text
//! CACHE/archives/<sha256 of the identity>
//!   {"version": 2, "identity": "…", "digest": "sha256:…",
//!    "members": [["a/path", "file", 512, 14], ["b/path", "symlink", "../a/path"], …],
//!    "layers": [[512, "sha256:…"], …]}
//! ```
//!
//! Of an archive with very many members these are null: they are read out of it anew, and
//! what took longer to find out is known.
//!
//! It hangs on the identity of the archive's file, so that no byte of it need be read. Paths
//! are bytes; each stands there as the character of that number. As with all in the cache
//! directory, what is in any doubt is not there.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::{Value, json};

use super::table::Extent;
use crate::archive::{Member, Members};
use crate::oci::Digest;
use crate::store::{CacheDir, Identity, cache_dir};

/// Another number makes all older files unread.
const VERSION: u64 = 2;

/// How many archives are remembered; those used longest ago go.
const KEPT: u64 = 1_000;

/// How many members are kept of an archive, or none.
const MAX_MEMBERS: usize = 50_000;

/// The largest file, in bytes: that of an archive with so many members.
const MAX_SIZE: u64 = 8 << 20;

/// The files, one for each archive.
#[derive(Debug)]
pub(super) struct Kept(CacheDir);

/// What is known of an archive.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// The digest of its file, if that was worked out.
    pub(super) digest: Option<Digest>,
    /// Its members, unless they are too many to be kept.
    pub(super) members: Option<Members<Extent>>,
    /// The digests of layers that were worked out, by where their bytes begin.
    pub(super) layers: BTreeMap<u64, Digest>,
}

impl Kept {
    /// Files in `cache`; `None` if it cannot be used.
    pub(super) fn open(cache: &CacheDir) -> Option<Self> {
        let shelf = cache.shelf("archives");
        shelf
            .inspect_err(|error| log::warn!("nothing about archives is kept: {error}"))
            .ok()
            .map(Self)
    }

    /// What is known of the archive with this identity.
    pub(super) fn load(&self, identity: &Identity) -> Option<Known> {
        let file = self.0.find(&name(identity)).ok()??;
        let mut bytes = Vec::new();
        (&file).take(MAX_SIZE).read_to_end(&mut bytes).ok()?;
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        let known = decode(&value, identity)?;
        cache_dir::mark_used(&file);
        Some(known)
    }

    /// Keeps what is known of the archive with this identity.
    pub(super) fn store(&self, identity: &Identity, known: &Known) {
        let members = known.members.as_ref().filter(|members| are_few(members));
        let mut text = encode(identity, known, members).to_string();
        if text.len() as u64 > MAX_SIZE {
            text = encode(identity, known, None).to_string();
        }
        if text.len() as u64 > MAX_SIZE {
            return log::debug!("the layers of an archive are too many to be kept");
        }
        let name = name(identity);
        let stored = self.0.store(&name, |file| file.write_all(text.as_bytes()));
        if let Err(error) = stored {
            return log::debug!("what was learned of an archive is not kept: {error}");
        }
        match self.0.list() {
            Ok(mut entries) => {
                entries.retain(|entry| is_name(&entry.name));
                self.0.evict(entries, KEPT, |_| 1);
            }
            Err(error) => log::debug!("archives are not counted: {error}"),
        }
    }
}

fn name(identity: &Identity) -> String {
    let digest = Digest::of(identity.to_string().as_bytes());
    digest.encoded().to_owned()
}

fn is_name(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether all of them may fit, before anything is made of them.
fn are_few(members: &Members<Extent>) -> bool {
    let len = |(path, member): (&[u8], Option<&Member<Extent>>)| match member {
        Some(Member::Symlink(target) | Member::HardLink(target)) => path.len() + target.len(),
        _ => path.len(),
    };
    let is_short = || members.iter().map(len).sum::<usize>() as u64 <= MAX_SIZE;
    members.len() <= MAX_MEMBERS && is_short()
}

fn encode(identity: &Identity, known: &Known, members: Option<&Members<Extent>>) -> Value {
    let record = |(path, member)| member_record(path, member);
    let members = members.map(|members| members.iter().map(record).collect::<Value>());
    let layers = known.layers.iter();
    json!({
        "version": VERSION,
        "identity": identity.to_string(),
        "digest": known.digest.as_ref().map(Digest::as_str),
        "members": members,
        "layers": layers.map(|(at, digest)| json!([at, digest.as_str()])).collect::<Value>(),
    })
}

fn member_record(path: &[u8], member: Option<&Member<Extent>>) -> Value {
    let path = characters(path);
    match member {
        None => json!([path, "several"]),
        Some(Member::File(Extent { offset, len })) => json!([path, "file", offset, len]),
        Some(Member::Symlink(target)) => json!([path, "symlink", characters(target)]),
        Some(Member::HardLink(target)) => json!([path, "hardlink", characters(target)]),
        Some(Member::Sparse) => json!([path, "sparse"]),
        Some(Member::Special) => json!([path, "special"]),
    }
}

fn decode(value: &Value, identity: &Identity) -> Option<Known> {
    let is_it = value["version"] == VERSION && value["identity"] == identity.to_string();
    let value = is_it.then_some(value)?;
    let digest = match &value["digest"] {
        Value::Null => None,
        digest => Some(digest.as_str()?.parse().ok()?),
    };
    let members = match &value["members"] {
        Value::Null => None,
        members => Some(
            members
                .as_array()?
                .iter()
                .map(read_member)
                .collect::<Option<_>>()?,
        ),
    };
    let layers = value["layers"].as_array()?.iter();
    let layer = |layer: &Value| Some((layer[0].as_u64()?, layer[1].as_str()?.parse().ok()?));
    Some(Known {
        digest,
        members,
        layers: layers.map(layer).collect::<Option<_>>()?,
    })
}

fn read_member(record: &Value) -> Option<(Vec<u8>, Option<Member<Extent>>)> {
    let text = |at: usize| bytes(record[at].as_str()?);
    let member = match record[1].as_str()? {
        "several" => None,
        "file" => {
            let (offset, len) = (record[2].as_u64()?, record[3].as_u64()?);
            offset.checked_add(len)?;
            Some(Member::File(Extent { offset, len }))
        }
        "symlink" => Some(Member::Symlink(text(2)?)),
        "hardlink" => Some(Member::HardLink(text(2)?)),
        "sparse" => Some(Member::Sparse),
        "special" => Some(Member::Special),
        _ => return None,
    };
    Some((text(0)?, member))
}

/// Each byte as the character of that number.
fn characters(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn bytes(characters: &str) -> Option<Vec<u8>> {
    let byte = |character| u8::try_from(u32::from(character)).ok();
    characters.chars().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    fn identity() -> Identity {
        Identity {
            device: 1,
            inode: 2,
            offset: 0,
            size: 3,
            mtime: (4, 5),
            ctime: (6, 7),
        }
    }

    fn known() -> Known {
        let mut members = Members::default();
        let file = |offset, len| Member::File(Extent { offset, len });
        members.insert(b"a/file", file(512, 14));
        members.insert(b"odd \xff\x00\n", file(0, u64::MAX));
        members.insert(b"symlink", Member::Symlink(b"../\xfe".to_vec()));
        members.insert(b"hard", Member::HardLink(b"a/file".to_vec()));
        members.insert(b"holes", Member::Sparse);
        members.insert(b"pipe", Member::Special);
        members.insert(b"twice", file(1, 2));
        members.insert(b"twice", file(3, 2));
        Known {
            digest: Some(Digest::of(b"archive")),
            members: Some(members),
            layers: BTreeMap::from([(512, Digest::of(b"layer"))]),
        }
    }

    #[test]
    fn what_was_kept_comes_back() -> TestResult {
        let dir = tempfile::tempdir()?;
        let kept = Kept::open(&CacheDir::open(&dir.path().join("cache"))?).ok_or("no shelf")?;
        assert!(kept.load(&identity()).is_none());
        kept.store(&identity(), &known());
        let back = kept.load(&identity()).ok_or("it is not there")?;
        let all = |known: &Known| {
            let members = known.members.iter().flat_map(Members::iter);
            let members = members.map(|(path, member)| (path.to_vec(), member.cloned()));
            members.collect::<Vec<_>>()
        };
        assert_eq!(all(&back), all(&known()));
        assert_eq!(back.digest, known().digest);
        assert_eq!(back.layers, known().layers);
        let other = Identity {
            ctime: (6, 8),
            ..identity()
        };
        assert!(kept.load(&other).is_none(), "of another state of the file");
        Ok(())
    }

    /// What took long to find out is kept without them.
    #[test]
    fn members_that_are_too_many_are_not_kept() -> TestResult {
        let dir = tempfile::tempdir()?;
        let kept = Kept::open(&CacheDir::open(&dir.path().join("cache"))?).ok_or("no shelf")?;
        let of = |paths: Vec<Vec<u8>>| {
            let member = |path| (path, Some(Member::Special));
            Some(paths.into_iter().map(member).collect::<Members<Extent>>())
        };
        let numbered = |count: usize| of((0..count).map(|n| n.to_string().into()).collect());
        let long = |byte, len| of(vec![vec![byte; len]]);
        let size = usize::try_from(MAX_SIZE)?;
        let rows = [
            ("as many as may be", numbered(MAX_MEMBERS), true),
            ("one more", numbered(MAX_MEMBERS + 1), false),
            ("long", long(b'x', size - 1_000), true),
            ("too long", long(b'x', size + 1), false),
            ("too long as it is written", long(1, size / 3), false),
        ];
        for (name, members, is_kept) in rows {
            let known = Known { members, ..known() };
            kept.store(&identity(), &known);
            let back = kept.load(&identity()).ok_or(name)?;
            assert_eq!(back.members.is_some(), is_kept, "{name}");
            assert_eq!(back.digest, known.digest, "{name}");
            assert_eq!(back.layers, known.layers, "{name}");
        }
        Ok(())
    }

    #[test]
    fn what_is_in_any_doubt_is_not_there() {
        let known = known();
        let right = encode(&identity(), &known, known.members.as_ref());
        assert!(decode(&right, &identity()).is_some());
        let rows = [
            ("another version", "/version", json!(1)),
            ("another file", "/identity", json!("1 2 3")),
            ("no digest", "/digest", json!("sha256:1")),
            ("no members", "/members", json!({})),
            ("a member of another kind", "/members/0/1", json!("door")),
            ("a member without a place", "/members/0/2", json!(-1)),
            ("one beyond all bytes", "/members/0/3", json!(u64::MAX)),
            ("a path of no bytes", "/members/0/0", json!("\u{100}")),
            ("no layers", "/layers", json!(null)),
            ("a layer of no digest", "/layers/0/1", json!("")),
        ];
        for (name, place, value) in rows {
            let mut wrong = right.clone();
            *wrong.pointer_mut(place).expect(place) = value;
            assert!(decode(&wrong, &identity()).is_none(), "{name}");
        }
    }
}
