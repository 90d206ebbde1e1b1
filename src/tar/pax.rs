//! The records of pax extended headers.
//!
//! ```text
//!   "30 mtime=1350244992.023960108\n"      length of the whole record in decimal, a space,
//!                                          key, '=', value, a newline
//! ```
//!
//! Of a key that comes twice the last counts; a known key with an empty value leaves the
//! header's own. Values are looked at only when an entry uses them, since a header that
//! is replaced by another one may hold anything.
//!
//! Spec: POSIX pax, "pax Extended Header".

use std::ops::Range;

use super::acl;
use super::number::decimal;

/// The shortest record there can be: `5 k=\n` has five bytes.
const MIN_RECORD: i64 = 5;

/// A key that has a meaning here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Path,
    LinkPath,
    Size,
    Uid,
    Gid,
    Mtime,
    Atime,
    Ctime,
    SparseMajor,
    SparseMinor,
    SparseMap,
    SparseName,
    SparseSize,
    SparseRealSize,
    SparseNumBlocks,
}

/// How many keys there are.
const KEYS: usize = 15;

impl Key {
    fn of_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"path" => Self::Path,
            b"linkpath" => Self::LinkPath,
            b"size" => Self::Size,
            b"uid" => Self::Uid,
            b"gid" => Self::Gid,
            b"mtime" => Self::Mtime,
            b"atime" => Self::Atime,
            b"ctime" => Self::Ctime,
            b"GNU.sparse.major" => Self::SparseMajor,
            b"GNU.sparse.minor" => Self::SparseMinor,
            b"GNU.sparse.map" => Self::SparseMap,
            b"GNU.sparse.name" => Self::SparseName,
            b"GNU.sparse.size" => Self::SparseSize,
            b"GNU.sparse.realsize" => Self::SparseRealSize,
            b"GNU.sparse.numblocks" => Self::SparseNumBlocks,
            _ => return None,
        })
    }
}

/// What is wrong with a pax header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It breaks the grammar.
    Grammar(&'static str),
    /// It has more records than allowed.
    TooManyRecords,
}

/// Who wrote an extended attribute, and so how; the later ones count more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum XattrForm {
    /// star, GNU tar and libarchive: an access control list as text.
    AccessList,
    /// libarchive: the name percent-encoded, the value in base64.
    Libarchive,
    /// star and most others: both as they are.
    Schily,
}

impl XattrForm {
    /// How a key of an extended attribute begins in each form.
    const PREFIXES: [(Self, &[u8]); 3] = [
        (Self::AccessList, b"SCHILY.acl."),
        (Self::Libarchive, b"LIBARCHIVE.xattr."),
        (Self::Schily, b"SCHILY.xattr."),
    ];

    /// The form of a key, and what follows its prefix.
    fn of_key(key: &[u8]) -> Option<(Self, &[u8])> {
        let mut forms = Self::PREFIXES.into_iter();
        let found = forms.find_map(|(form, prefix)| Some((form, key.strip_prefix(prefix)?)));
        found.filter(|(form, name)| *form != Self::AccessList || acl::attribute(name).is_some())
    }
}

/// A record that holds an extended attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct XattrRecord<'a> {
    pub(super) form: XattrForm,
    /// The whole key.
    pub(super) key: &'a [u8],
    /// What follows the prefix of the form.
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
}

/// The records of one pax header.
#[derive(Debug, Default)]
pub(super) struct Pax {
    body: Vec<u8>,
    /// Where the last value of each key is in the body.
    known: [Option<Range<usize>>; KEYS],
    /// Keys and values, in order.
    xattrs: Vec<(Range<usize>, Range<usize>)>,
    /// The map of a sparse file in form 0.0, brought into form 0.1.
    sparse_pairs: Option<Vec<u8>>,
}

impl Pax {
    /// Cuts the body of a pax header into records.
    pub(super) fn parse(body: Vec<u8>, max_records: u64) -> Result<Self, Fault> {
        let mut pax = Self::default();
        let mut pairs = SparsePairs::default();
        let mut records = 0;
        let mut at = 0;
        while at < body.len() {
            let record = Record::cut(&body, at)?;
            at = record.end();
            let (key, value) = (&body[record.key.clone()], &body[record.value.clone()]);
            check_nul(key, value)?;
            if pairs.take(key, value)? {
                continue;
            }
            records += 1;
            if records > max_records {
                return Err(Fault::TooManyRecords);
            }
            if let Some(known) = Key::of_name(key) {
                pax.known[known as usize] = Some(record.value);
            } else if XattrForm::of_key(key).is_some() {
                pax.xattrs.push((record.key, record.value));
            }
        }
        pax.sparse_pairs = pairs.into_map();
        pax.body = body;
        Ok(pax)
    }

    /// The value of a key, unless it is absent or empty.
    pub(super) fn get(&self, key: Key) -> Option<&[u8]> {
        let value = match (&self.sparse_pairs, key) {
            (Some(pairs), Key::SparseMap) => pairs,
            _ => &self.body[self.known[key as usize].clone()?],
        };
        (!value.is_empty()).then_some(value)
    }

    /// The records that hold extended attributes, in order.
    pub(super) fn xattrs(&self) -> impl Iterator<Item = XattrRecord<'_>> {
        self.xattrs.iter().filter_map(|(key, value)| {
            let key = &self.body[key.clone()];
            let (form, name) = XattrForm::of_key(key)?;
            Some(XattrRecord {
                form,
                key,
                name,
                value: &self.body[value.clone()],
            })
        })
    }

    /// A key that would change an entry, if there is one.
    pub(super) fn first_meaningful_key(&self) -> Option<&[u8]> {
        let known = self.known.iter().flatten();
        // A value is preceded by its key and '='.
        let key_before = |value: &Range<usize>| {
            let before = &self.body[..value.start - 1];
            let start = before.iter().rposition(|byte| *byte == b' ');
            &before[start.map_or(0, |space| space + 1)..]
        };
        known
            .map(key_before)
            .chain(self.xattrs().map(|xattr| xattr.key))
            .chain(
                self.sparse_pairs
                    .as_ref()
                    .map(|_| &b"GNU.sparse.offset"[..]),
            )
            .next()
    }
}

/// Where the parts of one record are in the body.
struct Record {
    key: Range<usize>,
    value: Range<usize>,
}

impl Record {
    /// Cuts the record that starts at `start`.
    fn cut(body: &[u8], start: usize) -> Result<Self, Fault> {
        let rest = &body[start..];
        let space = rest.iter().position(|byte| *byte == b' ');
        let space = space.ok_or(Fault::Grammar("a record without a space"))?;
        let len = decimal(&rest[..space])
            .filter(|len| *len >= MIN_RECORD)
            .and_then(|len| usize::try_from(len).ok())
            .filter(|len| *len <= rest.len() && *len > space + 1)
            .ok_or(Fault::Grammar("a record's length is wrong"))?;
        let newline = len - 1;
        if rest[newline] != b'\n' {
            return Err(Fault::Grammar("a record does not end in a newline"));
        }
        let equals = rest[space + 1..newline].iter().position(|b| *b == b'=');
        let equals = match equals {
            None => return Err(Fault::Grammar("a record without an equals sign")),
            Some(0) => return Err(Fault::Grammar("a record without a key")),
            Some(equals) => space + 1 + equals,
        };
        Ok(Self {
            key: start + space + 1..start + equals,
            value: start + equals + 1..start + newline,
        })
    }

    fn end(&self) -> usize {
        self.value.end + 1
    }
}

/// Keys hold no NUL, nor do the values that become names.
fn check_nul(key: &[u8], value: &[u8]) -> Result<(), Fault> {
    let checked = match key {
        b"path" | b"linkpath" | b"uname" | b"gname" => value,
        _ => key,
    };
    if checked.contains(&0) {
        return Err(Fault::Grammar("a name with a NUL in it"));
    }
    Ok(())
}

/// The map of a sparse file in form 0.0: a record for each number, in pairs.
///
/// Spec: GNU tar manual, "PAX Format, Version 0.0".
#[derive(Default)]
struct SparsePairs {
    joined: Vec<u8>,
    numbers: u64,
}

impl SparsePairs {
    /// Takes a record if it is one of these; true if so.
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<bool, Fault> {
        let is_offset = match key {
            b"GNU.sparse.offset" => true,
            b"GNU.sparse.numbytes" => false,
            _ => return Ok(false),
        };
        if self.numbers.is_multiple_of(2) != is_offset || value.contains(&b',') {
            return Err(Fault::Grammar(
                "offsets and lengths of a sparse map do not alternate",
            ));
        }
        if self.numbers > 0 {
            self.joined.push(b',');
        }
        self.joined.extend_from_slice(value);
        self.numbers += 1;
        Ok(true)
    }

    fn into_map(self) -> Option<Vec<u8>> {
        (self.numbers > 0).then_some(self.joined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &[u8]) -> Result<Pax, Fault> {
        Pax::parse(body.to_vec(), 4)
    }

    #[test]
    fn records_follow_the_grammar() {
        let rows: &[(&str, &[u8], bool)] = &[
            ("one record", b"6 k=1\n", true),
            ("empty value", b"5 k=\n", true),
            ("newline in the value", b"8 k=a\nb\n", true),
            ("equals in the value", b"8 k=a=b\n", true),
            ("NUL in another value", b"8 k=a\0b\n", true),
            ("T4' plus before the length, as Go", b"+7 k=1\n", true),
            ("T4' length too great", b"7 k=1\n", false),
            ("T4' length too small", b"5 k=1\n", false),
            ("T4' no newline", b"6 k=12", false),
            ("T4' no equals", b"6 k12\n", false),
            ("T4' length 0", b"0 k=1\n", false),
            ("T4' length 10^20", b"100000000000000000000 k=1\n", false),
            ("T4' minus", b"-6 k=1\n", false),
            ("T4' space before", b" 6 k=1\n", false),
            ("T4' no space", b"6k=1\n", false),
            ("T4' length ends in itself", b"000006 k=1\n", false),
            ("no key", b"5 =1\n", false),
            ("T5' NUL in path", b"12 path=a\0b\n", false),
            ("T5' NUL in linkpath", b"16 linkpath=a\0b\n", false),
            ("NUL in a key", b"7 k\0=1\n", false),
            ("zeros behind", b"6 k=1\n\0\0", false),
        ];
        for (name, body, sound) in rows {
            assert_eq!(parse(body).is_ok(), *sound, "{name}");
        }
    }

    #[test]
    fn the_last_value_of_a_key_counts() {
        let pax = parse(b"10 path=a\n10 path=b\n7 uid=\n").expect("sound");
        assert_eq!(pax.get(Key::Path), Some(&b"b"[..]));
        assert_eq!(pax.get(Key::Uid), None, "empty");
        assert_eq!(pax.get(Key::Gid), None, "absent");
        assert_eq!(pax.first_meaningful_key(), Some(&b"path"[..]));
        let comment = parse(b"13 comment=x\n").expect("sound");
        assert_eq!(comment.first_meaningful_key(), None);
    }

    #[test]
    fn records_are_counted_but_for_sparse_maps() {
        assert!(parse(&b"6 k=1\n".repeat(4)).is_ok());
        let many = parse(&b"6 k=1\n".repeat(5));
        assert_eq!(many.err(), Some(Fault::TooManyRecords), "T7'");
        let pair = b"23 GNU.sparse.offset=0\n25 GNU.sparse.numbytes=1\n";
        assert!(parse(&pair.repeat(5)).is_ok());
    }

    #[test]
    fn sparse_pairs_become_a_map() {
        let offset: &[u8] = b"23 GNU.sparse.offset=0\n";
        let len: &[u8] = b"25 GNU.sparse.numbytes=1\n";
        type Row<'a> = (&'static str, Vec<&'a [u8]>, Option<&'static str>);
        let rows: &[Row<'_>] = &[
            ("a pair", vec![offset, len], Some("0,1")),
            ("two pairs", vec![offset, len, offset, len], Some("0,1,0,1")),
            ("half a pair", vec![offset], Some("0")),
            (
                "beats a map",
                vec![offset, b"20 GNU.sparse.map=7\n"],
                Some("0"),
            ),
            ("T10' twice an offset", vec![offset, offset], None),
            ("T10' length first", vec![len], None),
            ("T10' comma", vec![b"25 GNU.sparse.offset=0,1\n"], None),
        ];
        for (name, records, expected) in rows {
            let pax = parse(&records.concat());
            let map = pax.as_ref().ok().and_then(|pax| pax.get(Key::SparseMap));
            assert_eq!(map, expected.map(str::as_bytes), "{name}");
            assert_eq!(pax.is_ok(), expected.is_some(), "{name}");
        }
    }
}
