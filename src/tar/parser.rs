//! The parser: a state machine over blocks.
//!
//! ```text
//!            ┌──────────────────────────────────────────────┐
//!            ▼                                              │
//!   ──> Header ──x, g, L, K──> Extension ──────────> Skip (padding)
//!        │ │ └──S, extended──> OldGnuMap ───┐               ▲
//!        │ └────sparse 1.0───> Lines ───────┤               │
//!        │                                  └──> entry ──> Skip (data and padding)
//!        └──zeros──> Zeros ──zeros──> End
//! ```

use super::entry::{Content, Entry, Kind};
use super::error::Error;
use super::header::{BLOCK_SIZE, Block, Header, flag, text};
use super::limits::{Limit, Limits};
use super::pax::{self, Pax};
use super::resolve::{Follows, Pending, bad_sparse, resolve};
use super::sparse::{self, Lines, Map};
use super::warning::{Warning, Warnings};

/// Turns the bytes of a tar, in pieces of any size, into entries.
///
/// Memory is bounded by [`Limits`]: one extension header, one sparse map and one block.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    state: State,
    /// How many bytes were read, those in `block` included.
    offset: u64,
    /// The start of a block, up to `filled`.
    block: Block,
    filled: usize,
    /// Start of the last header.
    header_offset: u64,
    pending: Pending,
    entries: u64,
    global_headers: u64,
    metadata: u64,
    warnings: Warnings,
    /// Why it stopped.
    failure: Option<Error>,
}

/// What the next bytes are.
#[derive(Debug)]
enum State {
    /// A header, or a block of zeros.
    Header,
    /// The second block of zeros.
    Zeros,
    /// The body of an extension header.
    Extension {
        flag: u8,
        body: Vec<u8>,
        left: u64,
        padding: u64,
    },
    /// An extension block of an old GNU map.
    OldGnuMap {
        entry: Option<Entry>,
        map: Map,
        stored_len: u64,
    },
    /// A block of a map in form 1.0.
    Lines {
        entry: Option<Entry>,
        lines: Lines,
        left: u64,
    },
    /// Stored bytes that nobody looks at, and zeros up to the next block.
    Skip { data: u64, padding: u64 },
    /// What follows the archive.
    End { at: u64, trailing: bool },
}

/// What a whole tar amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How many entries there were, volume labels included.
    pub entries: u64,
    /// What is odd about it.
    pub warnings: Warnings,
}

impl Parser {
    /// A parser at the start of a tar.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Header,
            offset: 0,
            block: [0; BLOCK_SIZE],
            filled: 0,
            header_offset: 0,
            pending: Pending::default(),
            entries: 0,
            global_headers: 0,
            metadata: 0,
            warnings: Warnings::default(),
            failure: None,
        }
    }

    /// Reads the next bytes, and hands each entry to `sink` as soon as its headers are
    /// complete: before its data, which may still turn out to be cut off.
    ///
    /// How the bytes are cut into calls makes no difference. After an error of the tar,
    /// every further call answers the same; after one of `sink`, parsing cannot go on.
    ///
    /// # Errors
    /// What is wrong with the tar, or what `sink` answered.
    pub fn feed<E: From<Error>>(
        &mut self,
        mut bytes: &[u8],
        mut sink: impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone().into());
        }
        while !bytes.is_empty() {
            match self.step(&mut bytes) {
                Ok(None) => {}
                Ok(Some(entry)) => sink(entry)?,
                Err(failure) => {
                    self.failure = Some(failure.clone());
                    return Err(failure.into());
                }
            }
        }
        Ok(())
    }

    /// Passes over the next bytes without looking at them, as far as nothing in them
    /// matters: the data of an entry, and what follows the end; `left` bytes at most. How
    /// many those are: the next ones to be fed lie behind them.
    ///
    /// Whether something follows the end is then not noticed.
    pub fn skip(&mut self, left: u64) -> u64 {
        let len = match &mut self.state {
            State::Skip { data, padding } => {
                let of_data = left.min(*data);
                let of_padding = (left - of_data).min(*padding);
                *data -= of_data;
                *padding -= of_padding;
                if *data == 0 && *padding == 0 {
                    self.state = State::Header;
                }
                of_data + of_padding
            }
            State::End { .. } => left,
            _ => 0,
        };
        self.offset += len;
        len
    }

    /// Whether the zeros were seen that end a tar. One without them may be cut short between
    /// two entries.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Zeros | State::End { .. })
    }

    /// Says that the bytes end here.
    ///
    /// # Errors
    /// What is wrong with the tar, [`Error::Truncated`] if it cannot end here.
    pub fn finish(mut self) -> Result<Summary, Error> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        match self.state {
            State::Header | State::Zeros if self.filled == 0 => self.drop_pending(self.offset),
            // Only padding may be cut off.
            State::Skip { data: 0, .. } => self.drop_pending(self.offset),
            State::End { at, trailing } => {
                if trailing {
                    self.warnings.push(Warning::Trailing { end_offset: at });
                }
            }
            State::Header | State::Zeros => return Err(self.truncated(self.block_offset())),
            State::Extension { .. }
            | State::OldGnuMap { .. }
            | State::Lines { .. }
            | State::Skip { .. } => return Err(self.truncated(self.header_offset)),
        }
        Ok(Summary {
            entries: self.entries,
            warnings: self.warnings,
        })
    }

    fn truncated(&self, header_offset: u64) -> Error {
        Error::Truncated {
            header_offset,
            end_offset: self.offset,
        }
    }

    /// Takes what belongs together from the front of `bytes`, at least one byte.
    fn step(&mut self, bytes: &mut &[u8]) -> Result<Option<Entry>, Error> {
        match &mut self.state {
            State::Skip { data, padding } => {
                let skipped = take(bytes, data).len() + take(bytes, padding).len();
                self.offset += skipped as u64;
                if *data == 0 && *padding == 0 {
                    self.state = State::Header;
                }
                Ok(None)
            }
            State::End { trailing, .. } => {
                *trailing = *trailing || bytes.iter().any(|byte| *byte != 0);
                self.offset += bytes.len() as u64;
                *bytes = &[];
                Ok(None)
            }
            State::Extension { body, left, .. } => {
                let part = take(bytes, left);
                body.extend_from_slice(part);
                self.offset += part.len() as u64;
                if *left == 0 {
                    self.end_extension()?;
                }
                Ok(None)
            }
            State::Header | State::Zeros | State::OldGnuMap { .. } | State::Lines { .. } => {
                match self.fill_block(bytes) {
                    Some(block) => self.read_block(&block),
                    None => Ok(None),
                }
            }
        }
    }

    /// Collects a block; `None` if the bytes do not suffice.
    fn fill_block(&mut self, bytes: &mut &[u8]) -> Option<Block> {
        if self.filled == 0
            && let Some((block, rest)) = bytes.split_first_chunk()
        {
            self.offset += BLOCK_SIZE as u64;
            *bytes = rest;
            return Some(*block);
        }
        let len = bytes.len().min(BLOCK_SIZE - self.filled);
        let (part, rest) = bytes.split_at(len);
        self.block[self.filled..self.filled + len].copy_from_slice(part);
        self.filled += len;
        self.offset += len as u64;
        *bytes = rest;
        if self.filled < BLOCK_SIZE {
            return None;
        }
        self.filled = 0;
        Some(self.block)
    }

    /// Start of the block that was just read or is being filled.
    fn block_offset(&self) -> u64 {
        let len = if self.filled == 0 {
            BLOCK_SIZE
        } else {
            self.filled
        };
        self.offset - len as u64
    }

    fn read_block(&mut self, block: &Block) -> Result<Option<Entry>, Error> {
        match std::mem::replace(&mut self.state, State::Header) {
            State::OldGnuMap {
                entry,
                mut map,
                stored_len,
            } => {
                let more = sparse::read_old_gnu_extension(&mut map, block);
                let more = more.map_err(|fault| self.bad_sparse(fault))?;
                self.go_on_with_old_gnu(entry, map, stored_len, more)
            }
            State::Lines {
                entry,
                mut lines,
                left,
            } => {
                let last = lines.read(block).map_err(|fault| self.bad_sparse(fault))?;
                let left = left - BLOCK_SIZE as u64;
                if last {
                    return self.end_sparse(entry, lines.map, left);
                }
                self.go_on_with_lines(entry, lines, left)
            }
            State::Zeros if is_zero(block) => {
                let at = self.offset;
                self.drop_pending(at);
                self.state = State::End {
                    at,
                    trailing: false,
                };
                Ok(None)
            }
            State::Zeros => Err(Error::LoneZeroBlock {
                zero_offset: self.block_offset() - BLOCK_SIZE as u64,
            }),
            _ if is_zero(block) => {
                self.state = State::Zeros;
                Ok(None)
            }
            _ => self.read_header(block),
        }
    }

    fn read_header(&mut self, block: &Block) -> Result<Option<Entry>, Error> {
        self.header_offset = self.block_offset();
        let header = Header::parse(block, self.header_offset)?;
        if let flag::PAX | flag::GLOBAL_PAX | flag::GNU_LONG_NAME | flag::GNU_LONG_LINK =
            header.flag
        {
            self.begin_extension(&header)?;
            return Ok(None);
        }
        let pending = std::mem::take(&mut self.pending);
        let resolved = resolve(&header, &pending, &self.limits, &mut self.warnings)?;
        self.count_entry()?;
        let (entry, stored_len) = (resolved.entry, resolved.stored_len);
        match resolved.follows {
            Follows::Data => {
                self.pass_over(stored_len, padding_of(stored_len));
                self.emit(entry)
            }
            Follows::OldGnuMap(map) => self.go_on_with_old_gnu(entry, map, stored_len, true),
            Follows::Lines(lines) => self.go_on_with_lines(entry, lines, stored_len),
        }
    }

    fn go_on_with_old_gnu(
        &mut self,
        entry: Option<Entry>,
        map: Map,
        stored_len: u64,
        more: bool,
    ) -> Result<Option<Entry>, Error> {
        if !more {
            return self.end_sparse(entry, map, stored_len);
        }
        self.state = State::OldGnuMap {
            entry,
            map,
            stored_len,
        };
        Ok(None)
    }

    fn go_on_with_lines(
        &mut self,
        entry: Option<Entry>,
        lines: Lines,
        left: u64,
    ) -> Result<Option<Entry>, Error> {
        if left < BLOCK_SIZE as u64 {
            let fault = "its map does not end within its stored bytes";
            return Err(self.bad_sparse(sparse::Fault::Malformed(fault)));
        }
        self.state = State::Lines { entry, lines, left };
        Ok(None)
    }

    /// Ends a map that stood before the data, which starts here.
    fn end_sparse(
        &mut self,
        mut entry: Option<Entry>,
        map: Map,
        stored_len: u64,
    ) -> Result<Option<Entry>, Error> {
        let size = map.size;
        let regions = map.finish(stored_len);
        let regions = regions.map_err(|fault| self.bad_sparse(fault))?;
        if let Some(entry) = &mut entry {
            entry.kind = Kind::File(Content {
                size,
                data_offset: self.offset,
                stored_len,
                regions: Some(regions),
            });
        }
        self.pass_over(stored_len, padding_of(stored_len));
        self.emit(entry)
    }

    fn bad_sparse(&self, fault: sparse::Fault) -> Error {
        bad_sparse(fault, self.header_offset, &self.limits)
    }

    fn pass_over(&mut self, data: u64, padding: u64) {
        self.state = if data == 0 && padding == 0 {
            State::Header
        } else {
            State::Skip { data, padding }
        };
    }

    fn count_entry(&mut self) -> Result<(), Error> {
        self.entries += 1;
        self.check(Limit::Entries, self.entries, self.limits.entries)
    }

    fn emit(&mut self, entry: Option<Entry>) -> Result<Option<Entry>, Error> {
        if let Some(entry) = &entry {
            self.metadata += entry.metadata_len();
            self.check(Limit::Metadata, self.metadata, self.limits.metadata)?;
        }
        Ok(entry)
    }

    fn check(&self, limit: Limit, value: u64, max: u64) -> Result<(), Error> {
        if value <= max {
            return Ok(());
        }
        Err(Error::Limit {
            header_offset: self.header_offset,
            limit,
            max,
        })
    }

    fn begin_extension(&mut self, header: &Header<'_>) -> Result<(), Error> {
        let size = u64::try_from(header.size).map_err(|_| header.bad_number("the size"))?;
        self.check(Limit::ExtensionSize, size, self.limits.extension_size)?;
        if header.flag == flag::GLOBAL_PAX {
            self.global_headers += 1;
            let max = self.limits.global_headers;
            self.check(Limit::GlobalHeaders, self.global_headers, max)?;
        }
        self.state = State::Extension {
            flag: header.flag,
            body: Vec::new(),
            left: size,
            padding: padding_of(size),
        };
        // No byte will come that could end an empty one.
        if size == 0 {
            self.end_extension()?;
        }
        Ok(())
    }

    fn end_extension(&mut self) -> Result<(), Error> {
        let state = std::mem::replace(&mut self.state, State::Header);
        let State::Extension {
            flag,
            body,
            padding,
            ..
        } = state
        else {
            self.state = state;
            return Ok(());
        };
        match flag {
            flag::GNU_LONG_NAME => self.pending.long_name = text(&body).to_vec(),
            flag::GNU_LONG_LINK => self.pending.long_link = text(&body).to_vec(),
            flag::GLOBAL_PAX => {
                let global = self.parse_pax(body)?;
                self.ignore_global(&global);
            }
            _ => {
                let pax = self.parse_pax(body)?;
                if self.pending.pax.replace(pax).is_some() {
                    self.warn_unused(self.header_offset);
                }
            }
        }
        self.pass_over(0, padding);
        Ok(())
    }

    fn parse_pax(&self, body: Vec<u8>) -> Result<Pax, Error> {
        let header_offset = self.header_offset;
        let max = self.limits.pax_records;
        Pax::parse(body, max).map_err(|fault| match fault {
            pax::Fault::Grammar(fault) => Error::Pax {
                header_offset,
                fault,
            },
            pax::Fault::TooManyRecords => Error::Limit {
                header_offset,
                limit: Limit::PaxRecords,
                max,
            },
        })
    }

    /// A global header changes nothing; it only parts an entry from the extension headers
    /// before it. The readers of layers built on Go do the same.
    fn ignore_global(&mut self, global: &Pax) {
        self.drop_pending(self.header_offset);
        if let Some(key) = global.first_meaningful_key() {
            self.warnings.push(Warning::GlobalPax {
                header_offset: self.header_offset,
                key: key.to_vec(),
            });
        }
    }

    fn drop_pending(&mut self, header_offset: u64) {
        if std::mem::take(&mut self.pending).pax.is_some() {
            self.warn_unused(header_offset);
        }
    }

    fn warn_unused(&mut self, header_offset: u64) {
        self.warnings.push(Warning::UnusedPax { header_offset });
    }
}

/// Takes up to `left` bytes from the front of `bytes`.
fn take<'a>(bytes: &mut &'a [u8], left: &mut u64) -> &'a [u8] {
    let len = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    let (part, rest) = bytes.split_at(len);
    *bytes = rest;
    *left -= len as u64;
    part
}

/// How many bytes follow `len` bytes up to the next block.
const fn padding_of(len: u64) -> u64 {
    let block = BLOCK_SIZE as u64;
    (block - len % block) % block
}

fn is_zero(block: &Block) -> bool {
    block[0] == 0 && block.iter().all(|byte| *byte == 0)
}
