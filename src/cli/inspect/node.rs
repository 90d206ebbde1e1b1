//! One node of an image: attributes, extended attributes, and where it comes from.

use std::process::ExitCode;

use ocifs::vfs::node::Node;
use ocifs::vfs::{FileKind, Patience};
use serde_json::{Map, Value, json};

use super::super::{output, progress, tree};
use super::{Arguments, Problem, Source, clean, print, row};

/// Describes one node; a file is opened for the verdict on it, a directory listed.
///
/// # Errors
/// What the node answers when it is asked for its attributes.
pub(super) fn inspect(
    arguments: &Arguments,
    source: &Source,
    path: &[u8],
    node: &dyn Node,
) -> anyhow::Result<ExitCode> {
    let verdict = progress::of_passes(&source.views, || match node.kind() {
        FileKind::Regular => node.open().map(drop),
        FileKind::Directory => node.listing().map(drop),
        _ => Ok(()),
    });
    let problem = |error| Problem::new(String::from_utf8_lossy(path), &error);
    let problems: Vec<Problem> = verdict.err().map(problem).into_iter().collect();
    let mut json = tree::describe(path, node, Patience::Wait)?;
    if let Some((number, digest)) = layer(node) {
        json["layer"] = json!({"number": number, "digest": digest});
        json["created_by"] = json!(tree::oci_xattr(node, "created-by"));
    }
    let mut xattrs = Map::new();
    for name in node.xattr_names() {
        let value = node.xattr(&name).unwrap_or_default();
        let name = String::from_utf8_lossy(&name).into_owned();
        xattrs.insert(name, text_of(&value).into());
    }
    let text = text(path, &json, &xattrs);
    json["xattrs"] = Value::Object(xattrs);
    print(arguments, &json, &text, &problems)
}

/// Number and digest of the layer that a node of a root file system comes from.
fn layer(node: &dyn Node) -> Option<(u64, String)> {
    let layer = tree::oci_xattr(node, "layer")?;
    let (number, digest) = layer.split_once(' ')?;
    Some((number.parse().ok()?, digest.to_owned()))
}

/// The value of an attribute: as it is, if it is text; else in hexadecimal digits, as
/// `getfattr` shows it.
fn text_of(value: &[u8]) -> String {
    let is_text = |text: &&str| !text.contains('\0');
    match std::str::from_utf8(value).ok().filter(is_text) {
        Some(text) => text.to_owned(),
        None => value
            .iter()
            .fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}")),
    }
}

fn text(path: &[u8], json: &Value, xattrs: &Map<String, Value>) -> String {
    let mut text = output::printable(path);
    let mut say = |name: &str, value: &Value| match value {
        Value::Null => {}
        Value::String(value) => row(&mut text, name, &clean(value)),
        value => row(&mut text, name, &value.to_string()),
    };
    for key in [
        "kind", "mode", "links", "uid", "gid", "size", "mtime", "target",
    ] {
        say(key, &json[key]);
    }
    let device = &json["device"];
    if device.is_object() {
        let numbers = format!("{}, {}", device["major"], device["minor"]);
        say("device", &numbers.into());
    }
    let layer = &json["layer"];
    if layer.is_object() {
        let digest = layer["digest"].as_str().unwrap_or_default();
        say("layer", &format!("{} {digest}", layer["number"]).into());
        say("created by", &json["created_by"]);
    }
    for (name, value) in xattrs {
        let value = value.as_str().unwrap_or_default();
        say("xattr", &format!("{name}={value}").into());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_attributes() {
        let rows: [(&str, &[u8], &str); 4] = [
            ("text", b"blue", "blue"),
            ("empty", b"", ""),
            ("with a NUL", b"a\0", "0x6100"),
            ("no UTF-8", b"\xff\x01", "0xff01"),
        ];
        for (name, value, expected) in rows {
            assert_eq!(text_of(value), expected, "{name}");
        }
    }
}
