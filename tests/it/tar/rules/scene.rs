//! The first difference between two readings, and what stands there in the archive.

use crate::tar::differential::{Ours, Reading, Row, normal};

/// The first difference.
pub(super) struct Scene<'a> {
    pub(super) ours: &'a Ours,
    pub(super) theirs: &'a Reading,
    pub(super) bytes: &'a [u8],
    /// Which row it is.
    pub(super) at: usize,
    pub(super) ours_row: Option<&'a Row>,
    pub(super) theirs_row: Option<&'a Row>,
}

impl Scene<'_> {
    /// Whether neither has more rows.
    pub(super) fn both_end(&self) -> bool {
        self.ours_row.is_none() && self.theirs_row.is_none()
    }

    /// Whether ours stops here, for this reason.
    pub(super) fn refused(&self, code: &str) -> bool {
        self.ours_row.is_none() && self.ours.reading.error.as_deref() == Some(code)
    }

    /// Whether ours refuses a link that they read, and that cannot be.
    pub(super) fn is_impossible_link(&self) -> bool {
        let is_impossible = |row: &Row| {
            let link = normal(&row.link);
            link.is_empty() || link == row.path || self.region_has(b"..")
        };
        self.refused("TAR_LINK") && self.theirs_row.is_some_and(is_impossible)
    }

    /// Whether ours refuses a root that is no directory.
    pub(super) fn is_impossible_root(&self) -> bool {
        self.refused("TAR_PATH") && self.theirs_row.is_some_and(|row| row.path.is_empty())
    }

    /// Whether a file that is nothing but a slash is a directory for ours alone.
    pub(super) fn is_slash(&self) -> bool {
        let is_it = |(ours, theirs): (&Row, &Row)| {
            ours.letter == 'd' && theirs.letter == 'f' && theirs.path.is_empty()
        };
        self.rows().is_some_and(is_it)
    }

    /// Whether ours refuses what a sparse file says of itself.
    pub(super) fn is_wrong_map(&self) -> bool {
        let codes = ["TAR_SPARSE", "TAR_PAX", "TAR_NUMBER"];
        self.is_sparse() && codes.into_iter().any(|code| self.refused(code))
    }

    /// Whether a time in a pax header has a plus sign, which they refuse.
    pub(super) fn is_plus(&self) -> bool {
        let differ = |(ours, theirs): (&Row, &Row)| ours.mtime != theirs.mtime;
        let is_read = self.rows().is_some_and(differ) && self.region_has(b"mtime=+");
        is_read || (self.both_end() && self.they_say("time=+"))
    }

    /// Whether the entry says that it is a sparse file.
    pub(super) fn is_sparse(&self) -> bool {
        self.header(156) == b'S' || self.region_has(b"GNU.sparse")
    }

    /// Whether a GNU header has a prefix where it should have times, which ours takes.
    pub(super) fn is_stray_prefix(&self) -> bool {
        let is_gnu = self.block()[257..].starts_with(b"ustar  \0");
        self.paths_differ() && is_gnu && self.header(345) != 0
    }

    /// Whether a number has NULs before it.
    pub(super) fn has_leading_nul(&self) -> bool {
        let has_one = |block: &&[u8]| {
            NUMBERS.iter().any(|(at, len)| {
                let field = &block[*at..at + len];
                field[0] == 0 && field.iter().any(|byte| *byte != 0)
            })
        };
        self.ours_row.is_some() && self.blocks().iter().any(has_one)
    }

    /// Whether ours refuses a number that is none, or one of a pax header.
    pub(super) fn is_number(&self) -> bool {
        let keys = ["uid", "gid", "size", "mtime", "atime", "ctime"];
        let has_pax_number = keys
            .iter()
            .any(|key| self.region_has(format!(" {key}=").as_bytes()));
        self.refused("TAR_NUMBER") && (!numbers_are_plain(self.block()) || has_pax_number)
    }

    /// Whether their error is this one.
    pub(super) fn they_say(&self, text: &str) -> bool {
        self.theirs
            .error
            .as_ref()
            .is_some_and(|error| error.contains(text))
    }

    /// Whether an entry without data, not after this one, has a size all the same.
    pub(super) fn special_with_size(&self) -> bool {
        let has_size = |(at, flag): (usize, u8)| {
            let is_size = |byte: &u8| matches!(byte, b'1'..=b'9' | 0x80..);
            let in_header = self.bytes[at + 124..at + 136].iter().any(is_size);
            let in_pax = flag == b'x' && has(self.body_of(at), b" size=");
            let name = self.bytes[at..at + 100].split(|byte| *byte == 0).next();
            let is_directory = flag == 0 && name.is_some_and(|name| name.ends_with(b"/"));
            let is_special = matches!(flag, b'1'..=b'6') || is_directory;
            at <= self.offset() && (is_special && in_header || in_pax)
        };
        headers(self.bytes).any(has_size)
    }

    /// Whether a volume label stands before.
    pub(super) fn label_before(&self) -> bool {
        headers(self.bytes).any(|(at, flag)| flag == b'V' && at < self.offset())
    }

    /// Both entries.
    pub(super) fn rows(&self) -> Option<(&Row, &Row)> {
        self.ours_row.zip(self.theirs_row)
    }

    /// Whether ours refuses a header whose sum is indeed wrong.
    pub(super) fn is_wrong_sum(&self) -> bool {
        let block = self.block();
        let sum: usize = block.iter().map(|byte| usize::from(*byte)).sum();
        let of_sum: usize = block[148..156].iter().map(|byte| usize::from(*byte)).sum();
        let stated = &block[148..156];
        let expected = sum - of_sum + 8 * usize::from(b' ');
        let is_right = number_is_plain(stated) && octal(stated) == expected;
        self.refused("TAR_CHECKSUM") && !is_right
    }

    /// Whether ours refuses one block of zeros, at which they end.
    pub(super) fn is_lone_zero_block(&self) -> bool {
        self.both_end() && self.refused("TAR_ZERO_BLOCK") && self.theirs.error.is_none()
    }

    /// Whether the archive ends within a block, and ours had nothing more to say before.
    pub(super) fn is_cut_block(&self) -> bool {
        let is_last = self.at + 1 >= self.ours.reading.rows.len();
        let is_sound = matches!(
            self.ours.reading.error.as_deref(),
            None | Some("TAR_TRUNCATED")
        );
        is_last && is_sound && !self.bytes.len().is_multiple_of(512)
    }

    /// Whether ours ends in the data of its last entry, which they say less about.
    pub(super) fn is_cut_data(&self) -> bool {
        self.ours.reading.error.as_deref() == Some("TAR_TRUNCATED")
            && self.theirs.error.is_some()
            && self.at + 1 >= self.ours.reading.rows.len()
    }

    /// Whether they are left with extension headers and no entry, which ours allows.
    pub(super) fn is_bare_extension(&self) -> bool {
        self.both_end() && self.ours.error.is_none() && self.ends_in_extension()
    }

    /// Whether a file for ours is a directory for them, because of a slash at the end.
    pub(super) fn is_trailing_slash(&self) -> bool {
        let is_directory = |(ours, theirs): (&Row, &Row)| {
            ours.letter == 'f' && (theirs.letter == 'd' || self.header(156) == b'7')
        };
        let ends = |end: &[u8; 2]| self.region_has(end);
        // Full to its end, or with nothing behind the prefix.
        let in_header = self.header(99) == b'/' || self.header(0) == 0;
        let in_pax = [b"/\0", b"/\n"].into_iter().any(ends);
        let long_names = self.long_names();
        let in_long_name = long_names.iter().any(|(name, _)| name.ends_with(b"/"));
        let has_slash = in_header || in_pax || in_long_name;
        self.rows().is_some_and(is_directory) && has_slash
    }

    /// Whether a long name is empty, or a path in a pax header.
    pub(super) fn is_empty_name(&self) -> bool {
        let has_none = |(name, _): &(&[u8], &[u8])| name.is_empty();
        self.long_names().iter().any(has_none) || self.region_has(b"path=\n")
    }

    /// Whether a long name does not end where its size says.
    pub(super) fn is_long_name_size(&self) -> bool {
        let mut names = self.long_names().into_iter();
        names.any(|(_, behind)| behind.first().is_some_and(|byte| *byte != 0))
    }

    /// Whether both have an entry, with another path or link.
    pub(super) fn names_differ(&self) -> bool {
        let differ =
            |(ours, theirs): (&Row, &Row)| ours.path != theirs.path || ours.link != theirs.link;
        self.rows().is_some_and(differ)
    }

    /// Whether both have an entry, with another path.
    pub(super) fn paths_differ(&self) -> bool {
        let rows = self.ours_row.zip(self.theirs_row);
        rows.is_some_and(|(ours, theirs)| ours.path != theirs.path)
    }

    /// Where the header in question is, in bytes from the start of the tar.
    fn offset(&self) -> usize {
        let stated = self.ours.error.as_ref().and_then(header_offset);
        let of_row = self.ours.offsets.get(self.at).copied();
        of_row.or(stated).unwrap_or(self.bytes.len())
    }

    pub(super) fn block(&self) -> &[u8] {
        const NONE: &[u8] = &[0; 512];
        let start = self.offset();
        self.bytes.get(start..start + 512).unwrap_or(NONE)
    }

    pub(super) fn header(&self, at: usize) -> u8 {
        self.block()[at]
    }

    /// What stands behind the header.
    pub(super) fn body(&self) -> &[u8] {
        self.body_of(self.offset())
    }

    fn body_of(&self, offset: usize) -> &[u8] {
        let start = (offset + 512).min(self.bytes.len());
        let size = self.bytes.get(offset + 124..offset + 136).map_or(0, octal);
        let end = start.saturating_add(size).min(self.bytes.len());
        &self.bytes[start..end]
    }

    /// Whether the header, or those of its extensions, have this text.
    pub(super) fn region_has(&self, text: &[u8]) -> bool {
        let end = (self.offset() + 1024).min(self.bytes.len());
        let previous = self.at.checked_sub(1);
        let start = previous.and_then(|at| self.ours.offsets.get(at)).copied();
        has(&self.bytes[start.unwrap_or(0)..end], text)
    }

    /// The extension headers right before the header, and their types.
    pub(super) fn extensions(&self) -> Vec<(usize, u8)> {
        let before = headers(self.bytes).take_while(|(at, _)| *at < self.offset());
        let before: Vec<_> = before.collect();
        let is_extension = |(_, flag): &&(usize, u8)| matches!(flag, b'x' | b'g' | b'L' | b'K');
        before
            .iter()
            .rev()
            .take_while(is_extension)
            .copied()
            .collect()
    }

    /// Whether both have an entry, and only its content is another.
    pub(super) fn only_contents_differ(&self) -> bool {
        let differ = |(ours, theirs): (&Row, &Row)| {
            let content = theirs.content.clone();
            ours != theirs
                && Row {
                    content,
                    ..ours.clone()
                } == *theirs
        };
        self.rows().is_some_and(differ)
    }

    /// Whether ours takes a sparse file for an ordinary one.
    pub(super) fn is_unknown_version(&self) -> bool {
        let differs = |ours: &Row| {
            self.theirs_row
                .is_none_or(|theirs| theirs.size != ours.size)
        };
        self.ours_row.is_some_and(differs) && self.region_has(b"GNU.sparse")
    }

    /// The header and its extension headers.
    pub(super) fn blocks(&self) -> Vec<&[u8]> {
        let extensions = self.extensions().into_iter();
        let extensions = extensions.map(|(at, _)| &self.bytes[at..at + 512]);
        extensions.chain([self.block()]).collect()
    }

    /// The long names before the header, and what stands behind each in its last block.
    pub(super) fn long_names(&self) -> Vec<(&[u8], &[u8])> {
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

    pub(super) fn ends_in_extension(&self) -> bool {
        let last = headers(self.bytes).last().map(|(_, flag)| flag);
        last.is_none_or(|flag| matches!(flag, b'x' | b'g' | b'L' | b'K'))
    }

    /// Whether a global pax header before the entry sets what entries have.
    pub(super) fn global_before(&self) -> bool {
        let keys = ["path", "linkpath", "size", "uid", "gid", "mtime"];
        let sets = |(at, _): (usize, u8)| {
            let body = self.body_of(at);
            keys.iter()
                .any(|key| has(body, format!(" {key}=").as_bytes()))
        };
        let is_global = |(at, flag): &(usize, u8)| *flag == b'g' && *at < self.offset();
        headers(self.bytes).filter(is_global).any(sets)
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

fn has(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|part| part == text)
}

/// The first octal number of a field, whatever is around it.
fn octal(field: &[u8]) -> usize {
    let is_digit = |byte: &&u8| matches!(byte, b'0'..=b'7');
    let digits = field.iter().skip_while(|byte| !is_digit(byte));
    digits.take_while(is_digit).fold(0_usize, |sum, digit| {
        sum.saturating_mul(8)
            .saturating_add(usize::from(digit - b'0'))
    })
}

/// The numbers of a header: where they are, and how long.
pub(super) const NUMBERS: &[(usize, usize)] = &[
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
pub(super) fn number_is_plain(field: &[u8]) -> bool {
    let is_padding = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !is_padding(byte)).unwrap_or(0);
    let end = field.iter().rposition(|byte| !is_padding(byte));
    let mut digits = field[start..end.map_or(start, |last| last + 1)].iter();
    digits.all(|byte| matches!(byte, b'0'..=b'7'))
}

/// Whether a body is records: a length, a space, a key, an equals sign, a value, a newline.
pub(super) fn pax_is_sound(mut body: &[u8]) -> bool {
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
