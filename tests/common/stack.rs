//! Stacks of layers whose entries are lines, and the tars of them.

use std::collections::{BTreeMap, BTreeSet};

use super::header::{TarHeader, pax};

/// What an entry has beside its path and its type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    pub nanoseconds: u32,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attributes {
    /// Those of directories that no entry names.
    pub fn implied() -> Self {
        Self {
            mode: 0o755,
            ..Self::default()
        }
    }
}

/// An entry of a layer. In a line: the type's letter as `ls` has it (`h` for a hard link),
/// a space, the path, and behind `>` a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub letter: char,
    pub path: String,
    pub target: String,
    pub attributes: Attributes,
    pub content: Vec<u8>,
}

impl Item {
    /// The entry of a line, with attributes and content that tell where it stands.
    ///
    /// # Panics
    /// If the line is none.
    pub fn of_line(line: &str, layer: u32, number: u32) -> Self {
        let (head, target) = line.split_once('>').unwrap_or((line, ""));
        let (letter, path) = head.split_once(' ').expect("a letter and a path");
        let letter = letter.chars().next().expect("a letter");
        let content = match letter {
            'f' if number % 5 != 4 => format!("{layer}.{number} {line}").into_bytes(),
            _ => Vec::new(),
        };
        let has_xattr = matches!(letter, 'f' | 'd') && number.is_multiple_of(3);
        let xattr = (b"user.from".to_vec(), format!("{layer}.{number}").into());
        let modes = [0o644, 0o755, 0o700, 0o4711, 0o1777, 0o2640];
        Self {
            letter,
            path: path.to_owned(),
            target: target.to_owned(),
            attributes: Attributes {
                mode: modes[(layer + number) as usize % modes.len()],
                uid: layer,
                gid: number,
                mtime: i64::from(1_000_000 * layer + number),
                nanoseconds: number * 100,
                xattrs: has_xattr.then_some(xattr).into_iter().collect(),
            },
            content,
        }
    }

    /// The name in its directory, and the path of that.
    pub fn split(&self) -> (&str, &str) {
        self.path.rsplit_once('/').unwrap_or(("", &self.path))
    }

    fn tar(&self) -> Vec<u8> {
        let flag = match self.letter {
            'f' => b'0',
            'h' => b'1',
            'l' => b'2',
            'c' => b'3',
            'b' => b'4',
            'd' => b'5',
            'p' => b'6',
            other => panic!("no type {other}"),
        };
        let attributes = &self.attributes;
        let mtime = format!("{}.{:09}", attributes.mtime, attributes.nanoseconds);
        let keys = attributes.xattrs.iter().map(|(name, value)| {
            let name = String::from_utf8_lossy(name);
            (format!("SCHILY.xattr.{name}"), value.as_slice())
        });
        let keys: Vec<_> = keys.collect();
        let mut records = vec![("mtime", mtime.as_bytes())];
        records.extend(keys.iter().map(|(key, value)| (key.as_str(), *value)));
        let slash = if self.letter == 'd' { "/" } else { "" };
        let header = TarHeader::new(flag, format!("./{}{slash}", self.path).as_bytes())
            .octal(100, 8, attributes.mode.into())
            .octal(108, 8, attributes.uid.into())
            .octal(116, 8, attributes.gid.into())
            .octal(329, 8, 1)
            .octal(337, 8, 3)
            .with(157, self.target.as_bytes())
            .size(self.content.len());
        [pax(&records), header.data(&self.content)].concat()
    }
}

/// The entries of some layers, the base first.
pub fn items_of<S: AsRef<str>>(layers: &[Vec<S>]) -> Vec<Vec<Item>> {
    let layer = |(layer, lines): (usize, &Vec<S>)| {
        let at = |number: usize| u32::try_from(number).expect("a small stack");
        let item =
            |(number, line): (usize, &S)| Item::of_line(line.as_ref(), at(layer), at(number));
        lines.iter().enumerate().map(item).collect()
    };
    layers.iter().enumerate().map(layer).collect()
}

/// The tar of a layer.
pub fn tar_of_items(items: &[Item]) -> Vec<u8> {
    let mut bytes: Vec<u8> = items.iter().flat_map(Item::tar).collect();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// What a file system shows at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: SeenKind,
    pub attributes: Attributes,
    /// How many names it has; of a directory, two and the number of those in it.
    pub links: u32,
    /// The first path of the same file.
    pub first: String,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeenKind {
    Directory,
    File(Vec<u8>),
    Symlink(String),
    /// A device of type `c` or `b`, or a pipe.
    Special(char),
    /// A hard link to nothing.
    Dangling(String),
}

/// All paths of a file system, the root as an empty one.
pub type Sight = BTreeMap<String, Seen>;

/// The first difference between two sights of the same stack, in words.
pub fn difference(ours: &Sight, theirs: &Sight) -> Option<String> {
    let paths: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differs = |path: &&&String| ours.get(**path) != theirs.get(**path);
    let path = paths.iter().find(differs)?;
    let (ours, theirs) = (ours.get(*path), theirs.get(*path));
    Some(format!("at {path:?}: ours {ours:?}, theirs {theirs:?}"))
}
