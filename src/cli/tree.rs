//! Nodes of the tree: found by the paths that a user gives, and described.

use std::sync::Arc;

use anyhow::Context;
use ocifs::oci::Digest;
use ocifs::vfs::node::{Node, OpenFile};
use ocifs::vfs::views::Views;
use ocifs::vfs::views::names;
use ocifs::vfs::views::refs::Level;
use ocifs::vfs::{self, Attr, Device, FileKind, Lifetime, Patience, Vfs};
use serde_json::{Map, Value, json};

use super::{format, output};

/// The attributes that are shown under a name of their own, without `user.oci.`.
const SHOWN: [&str; 6] = ["digest", "media-type", "size", "diff-id", "ref", "error"];

/// What to do with a symbolic link at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastLink {
    /// Take what it leads to.
    Follow,
    /// Take the link itself.
    Keep,
}

/// The node at `path`, as in a mount.
///
/// # Errors
/// That it is not there, with the path.
pub(crate) fn find(vfs: &Vfs, path: &[u8], last: LastLink) -> anyhow::Result<Arc<dyn Node>> {
    find_plain(vfs, path, last).with_context(|| output::printable(path))
}

fn find_plain(vfs: &Vfs, path: &[u8], last: LastLink) -> Result<Arc<dyn Node>, vfs::Error> {
    let cut = path.iter().rposition(|byte| *byte == b'/');
    let (parent, name) = match cut {
        Some(cut) => (&path[..cut], &path[cut + 1..]),
        None => (&b""[..], path),
    };
    if last == LastLink::Follow || matches!(name, b"" | b"." | b"..") {
        return vfs.resolve(path);
    }
    vfs.resolve(parent)?.find(name)?.ok_or(vfs::Error::NotFound)
}

/// Finds an image by its path in a mount, its raw ref name, or a digest.
///
/// # Errors
/// That it is not there, with the name.
pub(crate) fn find_image(vfs: &Vfs, name: &[u8]) -> anyhow::Result<(Vec<u8>, Arc<dyn Node>)> {
    let text = std::str::from_utf8(name).ok();
    let raw = text.map(|text| names::levels(text).join(&b'/'));
    let digest: Option<Digest> = text.and_then(|text| text.parse().ok());
    let by_digest = digest.map(|digest| {
        let (algorithm, encoded) = (digest.algorithm_name(), digest.encoded());
        format!(".ocifs/digests/{algorithm}/{encoded}").into_bytes()
    });
    for path in [raw, by_digest].into_iter().flatten() {
        if path != name
            && let Err(vfs::Error::NotFound) = vfs.resolve(name).map(drop)
            && let Ok(node) = vfs.resolve(&path)
        {
            return Ok((path, node));
        }
    }
    let node = find(vfs, name, LastLink::Follow)?;
    Ok((name.to_vec(), node))
}

/// The paths at which the tree shows images, in order.
pub(crate) fn refs(views: &Views) -> Vec<Vec<u8>> {
    fn collect(level: &Level, path: &[u8], found: &mut Vec<Vec<u8>>) {
        if level.here.is_some() {
            found.push(path.to_vec());
        }
        for (name, below) in &level.below {
            collect(below, &join(path, name), found);
        }
    }
    let mut found = Vec::new();
    if let Some(root) = views.snapshot().find(&[]) {
        collect(root, b"", &mut found);
    }
    found
}

/// The path of `name` in the directory `path`.
pub(crate) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = path.to_vec();
    if !matches!(joined.last(), None | Some(b'/')) {
        joined.push(b'/');
    }
    joined.extend(name);
    joined
}

/// The virtual attribute `user.oci.NAME`, as text.
pub(crate) fn oci_xattr(node: &dyn Node, name: &str) -> Option<String> {
    let value = node.xattr(format!("user.oci.{name}").as_bytes())?;
    Some(String::from_utf8_lossy(&value).into_owned())
}

/// The whole content of a small file.
///
/// # Errors
/// The verdict on its content.
pub(crate) fn read(node: &dyn Node) -> Result<Vec<u8>, vfs::Error> {
    let file = node.open()?;
    let mut bytes = Vec::new();
    while read_next(&*file, &mut bytes)? > 0 {}
    Ok(bytes)
}

fn read_next(file: &dyn OpenFile, bytes: &mut Vec<u8>) -> Result<usize, vfs::Error> {
    let start = bytes.len();
    bytes.resize(start + (64 << 10), 0);
    let len = file.read(&mut bytes[start..], start as u64)?;
    bytes.truncate(start + len);
    Ok(len)
}

/// The size as far as it is known: layers that nobody has read yet have none.
pub(crate) fn known_size(attr: &Attr) -> Option<u64> {
    let unknown = attr.kind == FileKind::Regular && attr.size == 0;
    (!unknown || attr.lifetime != Lifetime::None).then_some(attr.size)
}

/// A node as JSON: names, attributes, and what it has of the well-known `user.oci.*`.
///
/// # Errors
/// What the node answers when it is asked for its attributes.
pub(crate) fn describe(path: &[u8], node: &dyn Node, patience: Patience) -> anyhow::Result<Value> {
    let attr = node
        .attr(patience)
        .with_context(|| output::printable(path))?;
    let mut object = Map::new();
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    put_bytes(&mut object, "path", path);
    put_bytes(&mut object, "name", name);
    object.insert("kind".into(), format::kind(attr.kind).into());
    object.insert("mode".into(), format!("{:04o}", attr.mode).into());
    object.insert("links".into(), attr.links.into());
    object.insert("uid".into(), attr.uid.into());
    object.insert("gid".into(), attr.gid.into());
    if attr.kind == FileKind::Regular {
        object.insert("size".into(), json!(known_size(&attr)));
    }
    if matches!(attr.kind, FileKind::CharDevice | FileKind::BlockDevice) {
        let Device { major, minor } = attr.device;
        object.insert("device".into(), json!({"major": major, "minor": minor}));
    }
    object.insert("mtime".into(), format::exact(attr.mtime).into());
    if let Ok(target) = node.read_link() {
        put_bytes(&mut object, "target", &target);
    }
    for name in SHOWN {
        if let Some(value) = oci_xattr(node, name) {
            // The size of the blob is not that of the file.
            let (key, value) = match name {
                "size" => ("blob_size".to_owned(), json!(value.parse::<u64>().ok())),
                _ => (name.replace('-', "_"), value.into()),
            };
            object.insert(key, value);
        }
    }
    Ok(Value::Object(object))
}

/// Puts bytes as text; what that loses is kept beside it in hexadecimal digits.
fn put_bytes(object: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    object.insert(key.to_owned(), String::from_utf8_lossy(bytes).into());
    if std::str::from_utf8(bytes).is_err() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        object.insert(format!("{key}_hex"), hex.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_paths() {
        let rows = [
            ("", "a", "a"),
            ("/", "a", "/a"),
            ("a", "b", "a/b"),
            ("a/", "b", "a/b"),
        ];
        for (path, name, expected) in rows {
            let joined = join(path.as_bytes(), name.as_bytes());
            assert_eq!(joined, expected.as_bytes(), "{path} {name}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        let mut object = Map::new();
        put_bytes(&mut object, "name", b"a\xff");
        put_bytes(&mut object, "path", b"b");
        let expected = json!({"name": "a\u{fffd}", "name_hex": "61ff", "path": "b"});
        assert_eq!(Value::Object(object), expected);
    }
}
