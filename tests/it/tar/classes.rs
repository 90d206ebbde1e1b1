//! Why Python's tarfile reads an archive differently. Each class names a rule of ours (see
//! the table in `src/tar/mod.rs`; Go's reading counts) and is decided by the bytes.

use super::differential::{Ours, Reading, Row, normal};

/// A class of differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// A header that is none, or a cut, is an error here; Python takes it for the end.
    SilentEnd,
    /// Data that is cut off: here the entry was handed out before.
    CutData,
    /// Nothing but extension headers before the end, or cut padding: Python refuses it.
    BareExtension,
    /// An unknown type is an error here (a volume label is skipped), a file for Python.
    UnknownType,
    /// A link that cannot be (without target, to itself, to the root, to above it).
    ImpossibleLink,
    /// A root that is no directory.
    ImpossibleRoot,
    /// A sparse file whose map Python does not check, or a version that it knows.
    Sparse,
    /// A pax header that breaks its grammar.
    PaxGrammar,
    /// A number that Go does not read, or that no file system can have.
    Number,
    /// A number before which a NUL stands: Python reads 0.
    LeadingNul,
    /// Python adds the prefix in all formats, and never to GNU types.
    Prefix,
    /// A device number in a V7 header, which has none: Python reads it all the same.
    DeviceOfV7,
    /// Of several extension headers of one type the last counts; Python merges them.
    StackedExtensions,
    /// A name in an extension header that is empty stands for none, but not for Python.
    EmptyName,
    /// A long name ends where its size says; Python reads on up to a NUL.
    LongNameSize,
    /// The oldest type is a directory if its name ends in a slash: the whole name, for
    /// Python that in the header.
    OldDirectory,
    /// Python applies global pax headers.
    GlobalPax,
}

/// All of them.
pub(super) const CLASSES: &[Class] = &[
    Class::SilentEnd,
    Class::CutData,
    Class::BareExtension,
    Class::UnknownType,
    Class::ImpossibleLink,
    Class::ImpossibleRoot,
    Class::Sparse,
    Class::PaxGrammar,
    Class::Number,
    Class::LeadingNul,
    Class::Prefix,
    Class::DeviceOfV7,
    Class::StackedExtensions,
    Class::EmptyName,
    Class::LongNameSize,
    Class::OldDirectory,
    Class::GlobalPax,
];

/// What a comparison says.
pub(super) enum Verdict {
    Same,
    Class(Class),
    /// What differs.
    Unknown(String),
}

/// Judges the first difference of two readings.
pub(super) fn class_of(ours: &Ours, theirs: &Reading, bytes: &[u8]) -> Verdict {
    let rows = ours.reading.rows.iter().zip(&theirs.rows);
    let at = rows.take_while(|(ours, theirs)| ours == theirs).count();
    let (ours_row, theirs_row) = (ours.reading.rows.get(at), theirs.rows.get(at));
    let is_same_end = ours.error.is_some() == theirs.error.is_some();
    if ours_row.is_none() && theirs_row.is_none() && is_same_end {
        return Verdict::Same;
    }
    let scene = Scene {
        ours,
        theirs,
        bytes,
        at,
        ours_row,
        theirs_row,
    };
    match CLASSES.iter().find(|class| scene.is_of(**class)) {
        Some(class) => Verdict::Class(*class),
        None => Verdict::Unknown(format!(
            "row {at}: ours {ours_row:?} {:?}, theirs {theirs_row:?} {:?}, header {}",
            ours.error,
            theirs.error,
            scene.block().escape_ascii()
        )),
    }
}

/// The first difference.
struct Scene<'a> {
    ours: &'a Ours,
    theirs: &'a Reading,
    bytes: &'a [u8],
    at: usize,
    ours_row: Option<&'a Row>,
    theirs_row: Option<&'a Row>,
}

impl Scene<'_> {
    fn is_of(&self, class: Class) -> bool {
        let both_end = self.ours_row.is_none() && self.theirs_row.is_none();
        let refused = |code: &str| {
            self.ours_row.is_none() && self.ours.reading.error.as_deref() == Some(code)
        };
        match class {
            Class::SilentEnd => {
                let codes = [
                    "TAR_CHECKSUM",
                    "TAR_NUMBER",
                    "TAR_TRUNCATED",
                    "TAR_ZERO_BLOCK",
                ];
                both_end && self.theirs.error.is_none() && codes.into_iter().any(refused)
            }
            Class::CutData => {
                self.theirs_row.is_none()
                    && self.theirs.error.is_some()
                    && self.ours.reading.error.as_deref() == Some("TAR_TRUNCATED")
                    && self.at + 1 == self.ours.reading.rows.len()
            }
            Class::BareExtension => {
                both_end
                    && self.ours.error.is_none()
                    && (!self.bytes.len().is_multiple_of(512) || self.ends_in_extension())
            }
            Class::UnknownType => self.theirs_row.is_some_and(|row| row.letter == '?'),
            Class::ImpossibleLink => {
                let row = self
                    .theirs_row
                    .filter(|row| matches!(row.letter, 'l' | 'h'));
                refused("TAR_LINK")
                    && row.is_some_and(|row| {
                        let link = normal(&row.link);
                        link.is_empty() || link == row.path || self.region_has(b"..")
                    })
            }
            Class::ImpossibleRoot => {
                let is_root = |row: &Row| row.path.is_empty() && row.letter != 'd';
                refused("TAR_PATH") && self.theirs_row.is_some_and(is_root)
            }
            Class::Sparse => self.header(156) == b'S' || self.region_has(b"GNU.sparse"),
            Class::PaxGrammar => refused("TAR_PAX") && !pax_is_sound(self.body()),
            Class::Number => {
                let keys = ["uid", "gid", "size", "mtime", "atime", "ctime"];
                let has_pax_number = keys.map(|key| format!(" {key}="));
                refused("TAR_NUMBER")
                    && (!numbers_are_plain(self.block())
                        || has_pax_number
                            .iter()
                            .any(|key| self.region_has(key.as_bytes())))
            }
            Class::LeadingNul => {
                let has_one = |block: &&[u8]| {
                    NUMBERS.iter().any(|(at, len)| {
                        let field = &block[*at..at + len];
                        field[0] == 0 && field.iter().any(|byte| *byte != 0)
                    })
                };
                self.ours_row.is_some() && self.blocks().iter().any(has_one)
            }
            Class::Prefix => {
                let differs = |(ours, theirs): (&Row, &Row)| ours.path != theirs.path;
                let rows = self.ours_row.zip(self.theirs_row);
                rows.is_some_and(differs) && self.header(345) != 0
            }
            Class::DeviceOfV7 => self.blocks().iter().any(|block| {
                let are_plain = [329..337, 337..345].map(|field| number_is_plain(&block[field]));
                !block[257..].starts_with(b"ustar") && are_plain.contains(&false)
            }),
            Class::StackedExtensions => self.extensions().len() > 1,
            Class::EmptyName => {
                self.long_names().iter().any(|(name, _)| name.is_empty())
                    || self.region_has(b"path=\n")
            }
            Class::LongNameSize => {
                let mut names = self.long_names().into_iter();
                names.any(|(_, behind)| behind.first().is_some_and(|byte| *byte != 0))
            }
            Class::OldDirectory => {
                let name = self.block()[..100].split(|byte| *byte == 0).next();
                self.header(156) == 0 && name.is_some_and(|name| name.ends_with(b"/"))
            }
            Class::GlobalPax => self.global_before(),
        }
    }

    /// Where the header in question is, in bytes from the start of the tar.
    fn offset(&self) -> usize {
        let stated = self.ours.error.as_ref().and_then(header_offset);
        let of_row = self.ours.offsets.get(self.at).copied();
        of_row.or(stated).unwrap_or(0)
    }

    fn block(&self) -> &[u8] {
        const NONE: &[u8] = &[0; 512];
        let start = self.offset();
        self.bytes.get(start..start + 512).unwrap_or(NONE)
    }

    fn header(&self, at: usize) -> u8 {
        self.block()[at]
    }

    /// What stands behind the header.
    fn body(&self) -> &[u8] {
        let start = (self.offset() + 512).min(self.bytes.len());
        let size = octal(&self.block()[124..136]);
        let end = (start + size).min(self.bytes.len());
        &self.bytes[start..end]
    }

    /// Whether the header, or those of its extensions, have this text.
    fn region_has(&self, text: &[u8]) -> bool {
        let end = (self.offset() + 1024).min(self.bytes.len());
        let previous = self.at.checked_sub(1);
        let start = previous.and_then(|at| self.ours.offsets.get(at)).copied();
        let region = &self.bytes[start.unwrap_or(0)..end];
        region.windows(text.len()).any(|part| part == text)
    }

    /// The extension headers right before the header, and their types.
    fn extensions(&self) -> Vec<(usize, u8)> {
        let before = headers(self.bytes).take_while(|(at, _)| *at < self.offset());
        let before: Vec<_> = before.collect();
        let is_extension = |(_, flag): &&(usize, u8)| matches!(flag, b'x' | b'L' | b'K');
        before
            .iter()
            .rev()
            .take_while(is_extension)
            .copied()
            .collect()
    }

    /// The header and its extension headers.
    fn blocks(&self) -> Vec<&[u8]> {
        let extensions = self.extensions().into_iter();
        let extensions = extensions.map(|(at, _)| &self.bytes[at..at + 512]);
        extensions.chain([self.block()]).collect()
    }

    /// The long names before the header, and what stands behind each in its last block.
    fn long_names(&self) -> Vec<(&[u8], &[u8])> {
        let is_long = |(_, flag): &(usize, u8)| matches!(flag, b'L' | b'K');
        let body = |(at, _): (usize, u8)| {
            let size = octal(&self.bytes[at + 124..at + 136]);
            let blocks = &self.bytes[at + 512..];
            let blocks = &blocks[..size.next_multiple_of(512).min(blocks.len())];
            let (name, behind) = blocks.split_at(size.min(blocks.len()));
            let name = name.split(|byte| *byte == 0).next();
            (name.unwrap_or_default(), behind)
        };
        self.extensions()
            .into_iter()
            .filter(is_long)
            .map(body)
            .collect()
    }

    fn ends_in_extension(&self) -> bool {
        let last = headers(self.bytes).last().map(|(_, flag)| flag);
        last.is_none_or(|flag| matches!(flag, b'x' | b'g' | b'L' | b'K'))
    }

    fn global_before(&self) -> bool {
        let end = self.offset();
        headers(self.bytes).any(|(offset, flag)| flag == b'g' && offset < end)
    }
}

/// The offsets and types of all headers, found by their sizes alone.
fn headers(bytes: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let block = bytes.get(next..next + 512)?;
        if block.iter().all(|byte| *byte == 0) {
            return None;
        }
        let found = (next, block[156]);
        let size = match block[156] {
            b'1'..=b'6' => 0,
            _ => octal(&block[124..136]),
        };
        next = next
            .checked_add(512)?
            .checked_add(size.checked_next_multiple_of(512)?)?;
        Some(found)
    })
}

/// The octal digits of a field, whatever is around them.
fn octal(field: &[u8]) -> usize {
    let digits = field.iter().filter(|byte| matches!(byte, b'0'..=b'7'));
    digits.fold(0_usize, |sum, digit| {
        sum.saturating_mul(8)
            .saturating_add(usize::from(digit - b'0'))
    })
}

/// The numbers of a header: where they are, and how long.
const NUMBERS: &[(usize, usize)] = &[
    (100, 8),
    (108, 8),
    (116, 8),
    (124, 12),
    (136, 12),
    (329, 8),
    (337, 8),
];

fn numbers_are_plain(block: &[u8]) -> bool {
    let mut fields = NUMBERS.iter();
    fields.all(|(at, len)| number_is_plain(&block[*at..at + len]))
}

/// Whether a field has octal digits between spaces and NULs, and nothing else.
fn number_is_plain(field: &[u8]) -> bool {
    let is_padding = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !is_padding(byte)).unwrap_or(0);
    let end = field.iter().rposition(|byte| !is_padding(byte));
    let mut digits = field[start..end.map_or(start, |last| last + 1)].iter();
    digits.all(|byte| matches!(byte, b'0'..=b'7'))
}

/// Whether a body is records: a length, a space, a key, an equals sign, a value, a newline.
fn pax_is_sound(mut body: &[u8]) -> bool {
    while !body.is_empty() {
        let Some(space) = body.iter().position(|byte| *byte == b' ') else {
            return false;
        };
        let len = std::str::from_utf8(&body[..space])
            .ok()
            .and_then(|len| len.parse::<usize>().ok());
        let Some(record) = len.and_then(|len| body.get(space + 1..len)) else {
            return false;
        };
        let Some((b'\n', record)) = record.split_last() else {
            return false;
        };
        let equals = record.iter().position(|byte| *byte == b'=');
        if equals.is_none_or(|equals| equals == 0) || record.contains(&0) {
            return false;
        }
        body = &body[space + 1 + record.len() + 1..];
    }
    true
}

/// The header that an error is about.
fn header_offset(error: &ocifs::tar::Error) -> Option<usize> {
    use ocifs::tar::Error;
    let offset = match error {
        Error::Checksum { header_offset }
        | Error::Number { header_offset, .. }
        | Error::Pax { header_offset, .. }
        | Error::Sparse { header_offset, .. }
        | Error::Type { header_offset, .. }
        | Error::UnsupportedType { header_offset, .. }
        | Error::Path { header_offset, .. }
        | Error::NameTooLong { header_offset, .. }
        | Error::Link { header_offset, .. }
        | Error::Truncated { header_offset, .. }
        | Error::Limit { header_offset, .. } => *header_offset,
        Error::LoneZeroBlock { zero_offset } => *zero_offset,
    };
    usize::try_from(offset).ok()
}
