//! Names that remove what lower layers have.
//!
//! Spec: image-spec layer.md, "Whiteouts" and "Opaque Whiteout".

use crate::layer::tree::Kind;

/// What all of them begin with.
const PREFIX: &[u8] = b".wh.";

/// Removes all that lower layers have in the directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What AUFS, where whiteouts come from, left in old layers: no part of the image.
const LEFTOVERS: [&[u8]; 3] = [b".wh..wh.aufs", b".wh..wh.orph", b".wh..wh.plnk"];

/// What a name in a layer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// A file or directory of the image.
    Plain,
    /// Hides this name in lower layers.
    Hides(&'a [u8]),
    /// Hides all names in lower layers.
    HidesAll,
    /// Is to be passed over.
    Leftover,
}

/// What `name` of a node of this kind means, or what is wrong with it.
pub(super) fn meaning<'a>(name: &'a [u8], kind: Kind<'_>) -> Result<Meaning<'a>, &'static str> {
    let Some(hidden) = name.strip_prefix(PREFIX) else {
        return Ok(Meaning::Plain);
    };
    if LEFTOVERS.contains(&name) {
        return Ok(Meaning::Leftover);
    }
    if !matches!(kind, Kind::File { .. }) {
        return Err("it is not a regular file");
    }
    match hidden {
        _ if name == OPAQUE => Ok(Meaning::HidesAll),
        b"" => Err("it hides no name"),
        b"." | b".." => Err("it hides a directory that cannot be hidden"),
        _ if hidden.starts_with(PREFIX) => Err("its meaning is unknown"),
        _ => Ok(Meaning::Hides(hidden)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_meanings() {
        let file = Kind::File { size: 3 };
        let rows: &[(&str, Kind<'_>, Result<Meaning<'_>, ()>)] = &[
            ("a", file, Ok(Meaning::Plain)),
            (".wh", file, Ok(Meaning::Plain)),
            ("a.wh.b", file, Ok(Meaning::Plain)),
            (".wh.a", file, Ok(Meaning::Hides(b"a"))),
            (".wh..a", file, Ok(Meaning::Hides(b".a"))),
            (".wh..wh..opq", file, Ok(Meaning::HidesAll)),
            (".wh..wh.plnk", Kind::Directory, Ok(Meaning::Leftover)),
            (".wh..wh.aufs", file, Ok(Meaning::Leftover)),
            (".wh.", file, Err(())),
            (".wh..", file, Err(())),
            (".wh...", file, Err(())),
            (".wh..wh.x", file, Err(())),
            (".wh.a", Kind::Directory, Err(())),
            (".wh.a", Kind::Symlink { target: b"x" }, Err(())),
            (".wh.a", Kind::Outer { target: b"x" }, Err(())),
            (".wh..wh..opq", Kind::Directory, Err(())),
        ];
        for (name, kind, expected) in rows {
            let found = meaning(name.as_bytes(), *kind).map_err(drop);
            assert_eq!(found, *expected, "{name} {kind:?}");
        }
    }
}
