//! Frames of a zstd stream, skippable ones among them.
//!
//! Spec: RFC 8878 sections 3.1.1 (frames) and 3.1.2 (skippable frames).

use std::fmt;

use zstd::zstd_safe::{DCtx, InBuffer, OutBuffer, get_error_name};

use crate::stream::error::Error;
use crate::stream::input::{Chunks, Input};
use crate::stream::offset::BlobOffset;
use crate::stream::zstd_blocks::BlockHeader;

pub(super) const FRAME: u32 = 0xfd2f_b528;
const SKIPPABLE: u32 = 0x184d_2a50;

/// What a frame says of itself before its first block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// How far back its blocks may refer, in bytes.
    pub(super) window: u64,
    /// The byte that says so; a frame of a single segment has none.
    pub(super) window_descriptor: Option<u8>,
    /// Size of its decoded bytes, where it is given.
    pub(super) content_size: Option<u64>,
    /// Number of the dictionary that it needs, 0 for none.
    pub(super) dictionary: u32,
    /// Whether four bytes of checksum follow the last block.
    pub(super) has_checksum: bool,
    /// Length of the header with its magic number.
    pub(super) len: usize,
}

impl FrameHeader {
    /// The longest header: magic, descriptor, window, dictionary, content size.
    pub(super) const MAX_LEN: usize = 4 + 1 + 1 + 4 + 8;

    /// How long a header is whose fifth byte is `descriptor`.
    fn len_of(descriptor: u8) -> usize {
        let is_single = descriptor & 0x20 != 0;
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let content = [usize::from(is_single), 2, 4, 8][usize::from(descriptor >> 6)];
        4 + 1 + usize::from(!is_single) + dictionary + content
    }

    /// Reads a whole header.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let descriptor = *bytes.get(4)?;
        let len = Self::len_of(descriptor);
        let mut rest = bytes.get(5..len)?;
        let mut take = |len: usize| {
            let (field, after) = rest.split_at(len);
            rest = after;
            let mut value = [0; 8];
            value[..len].copy_from_slice(field);
            u64::from_le_bytes(value)
        };
        let is_single = descriptor & 0x20 != 0;
        let exponent_mantissa = take(usize::from(!is_single));
        let dictionary = take([0, 1, 2, 4][usize::from(descriptor & 3)]);
        let content_size = match descriptor >> 6 {
            0 if is_single => Some(take(1)),
            0 => None,
            1 => Some(take(2) + 256),
            2 => Some(take(4)),
            _ => Some(take(8)),
        };
        let base = 1 << (10 + (exponent_mantissa >> 3));
        let window = match content_size {
            Some(size) if is_single => size,
            _ => base + base / 8 * (exponent_mantissa & 7),
        };
        Some(Self {
            window,
            window_descriptor: (!is_single).then_some(bytes[5]),
            content_size,
            dictionary: u32::try_from(dictionary).ok()?,
            has_checksum: descriptor & 4 != 0,
            len,
        })
    }
}

/// Why [`Decoder::advance`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Input or output ran out.
    Pause,
    /// A frame header was read; it lies at this byte.
    FrameStart(BlobOffset),
    /// Between two blocks; all of the first one is decoded, the second lies at this byte.
    Boundary(BlobOffset),
    /// A frame is at its end.
    FrameEnd,
    /// The stream is at its end.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    /// In the frame's header, or its checksum.
    Frame,
    /// In a block.
    Block {
        is_last: bool,
    },
    End,
}

/// A zstd stream being decoded, frame after frame, block after block.
pub(super) struct Decoder {
    input: Input,
    context: DCtx<'static>,
    /// What the context is given before the next bytes of the input: a header.
    pending: Vec<u8>,
    /// How many bytes of the input it is given then.
    left: u64,
    frame_at: BlobOffset,
    header: Option<FrameHeader>,
    window_limit: u64,
    state: State,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("zstd::Decoder")
            .field("frame_at", &self.frame_at)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// Before the frame at `offset`.
    pub(super) fn at(offset: BlobOffset, window_limit: u64) -> Self {
        Self {
            input: Input::at(offset),
            context: DCtx::create(),
            pending: Vec::new(),
            left: 0,
            frame_at: offset,
            header: None,
            window_limit,
            state: State::Between,
        }
    }

    /// About how many bytes of memory it holds.
    pub(super) fn weight(&self) -> u64 {
        self.header.map_or(0, |header| header.window) + (512 << 10)
    }

    /// Decodes into `out` until something happens; says how many bytes that brought.
    pub(super) fn advance(
        &mut self,
        chunks: &mut dyn Chunks,
        out: &mut [u8],
    ) -> Result<(usize, Event), Error> {
        match self.state {
            State::Frame | State::Block { .. } => self.decode(chunks, out),
            State::Between if self.input.fill(chunks)?.is_empty() => {
                self.state = State::End;
                Ok((0, Event::End))
            }
            State::Between => Ok((0, self.start_frame(chunks)?)),
            State::End => Ok((0, Event::End)),
        }
    }

    fn start_frame(&mut self, chunks: &mut dyn Chunks) -> Result<Event, Error> {
        self.frame_at = self.input.offset();
        let magic: [u8; 4] = self.input.bytes(chunks)?;
        match u32::from_le_bytes(magic) {
            FRAME => self.read_header(magic, chunks)?,
            skippable if skippable & 0xffff_fff0 == SKIPPABLE => {
                let len = u32::from_le_bytes(self.input.bytes(chunks)?);
                self.input.skip(u64::from(len), chunks)?;
                return Ok(Event::Pause);
            }
            _ => return Err(self.fault("unknown magic number")),
        }
        self.state = State::Frame;
        Ok(Event::FrameStart(self.frame_at))
    }

    fn read_header(&mut self, magic: [u8; 4], chunks: &mut dyn Chunks) -> Result<(), Error> {
        self.pending.clear();
        self.pending.extend_from_slice(&magic);
        let descriptor = self.input.byte(chunks)?;
        self.pending.push(descriptor);
        for _ in self.pending.len()..FrameHeader::len_of(descriptor) {
            self.pending.push(self.input.byte(chunks)?);
        }
        let Some(header) = FrameHeader::parse(&self.pending) else {
            return Err(self.fault("incomplete header"));
        };
        if header.dictionary != 0 {
            return Err(Error::ZstdDictionary {
                at: self.frame_at,
                id: header.dictionary,
            });
        }
        if header.window > self.window_limit {
            return Err(Error::ZstdWindow {
                at: self.frame_at,
                window: header.window,
                limit: self.window_limit,
            });
        }
        self.header = Some(header);
        Ok(())
    }

    fn decode(&mut self, chunks: &mut dyn Chunks, out: &mut [u8]) -> Result<(usize, Event), Error> {
        let from_pending = !self.pending.is_empty();
        let input = if from_pending {
            &self.pending[..]
        } else if self.left > 0 {
            let input = self.input.fill(chunks)?;
            if input.is_empty() {
                return Err(Error::Truncated);
            }
            &input[..usize::try_from(self.left).map_or(input.len(), |left| left.min(input.len()))]
        } else {
            &[]
        };
        let mut taken = InBuffer::around(input);
        let mut written = OutBuffer::around(out);
        let result = self.context.decompress_stream(&mut written, &mut taken);
        let (consumed, produced) = (taken.pos(), written.pos());
        let is_full = produced == written.capacity();
        let hint = result.map_err(|code| self.error(get_error_name(code)))?;
        if from_pending {
            self.pending.drain(..consumed);
        } else {
            self.input.consume(consumed);
            self.left -= consumed as u64;
        }
        if hint == 0 {
            self.state = State::Between;
            return Ok((produced, Event::FrameEnd));
        }
        // With room left in `out`, nothing is held back in the context.
        if is_full || !self.pending.is_empty() || self.left > 0 {
            return Ok((produced, Event::Pause));
        }
        Ok((produced, self.next_part(chunks)?))
    }

    /// Gets ready for what follows in the frame: a block, or the checksum.
    fn next_part(&mut self, chunks: &mut dyn Chunks) -> Result<Event, Error> {
        let at = self.input.offset();
        if self.state == (State::Block { is_last: true }) {
            if !self.header.is_some_and(|header| header.has_checksum) {
                return Err(self.fault("frame does not end with its last block"));
            }
            self.pending
                .extend_from_slice(&self.input.bytes::<4>(chunks)?);
            self.state = State::Frame;
            self.header = None;
            return Ok(Event::Pause);
        }
        if self.header.is_none() {
            return Err(self.fault("frame does not end with its checksum"));
        }
        let event = match self.state {
            State::Block { .. } => Event::Boundary(at),
            _ => Event::Pause,
        };
        let header = self.input.bytes(chunks)?;
        self.pending.extend_from_slice(&header);
        let header = BlockHeader::parse(header);
        self.left = header.body_len() as u64;
        self.state = State::Block {
            is_last: header.is_last,
        };
        Ok(event)
    }

    fn error(&self, name: &'static str) -> Error {
        if name.contains("checksum") {
            Error::ZstdChecksum { at: self.frame_at }
        } else {
            self.fault(name)
        }
    }

    fn fault(&self, fault: &'static str) -> Error {
        Error::ZstdFrame {
            at: self.frame_at,
            fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::input::Direct;

    /// Name, stream, and its decoded bytes or the code of its error.
    type Row<'a> = (&'a str, Vec<u8>, Result<&'a [u8], &'a str>);

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let bytes = bytes.to_vec();
        let mut chunks = Direct(&bytes);
        let mut decoder = Decoder::at(BlobOffset(0), 128 << 20);
        let mut out = Vec::new();
        loop {
            let mut buf = [0; 5];
            let (len, event) = decoder.advance(&mut chunks, &mut buf)?;
            out.extend_from_slice(&buf[..len]);
            if event == Event::End {
                return Ok(out);
            }
        }
    }

    /// A frame with one raw block `hello`, with these descriptor and fields.
    fn frame(descriptor: u8, fields: &[u8], after: &[u8]) -> Vec<u8> {
        let magic = FRAME.to_le_bytes();
        [
            &magic[..],
            &[descriptor],
            fields,
            &[0x29, 0, 0],
            b"hello",
            after,
        ]
        .concat()
    }

    #[test]
    fn frames() {
        let plain = frame(0, &[0], b"");
        let skippable = |len: u32| [&[0x5a, 0x2a, 0x4d, 0x18][..], &len.to_le_bytes()].concat();
        let three = [&skippable(3)[..], b"xyz"].concat();
        let rows: &[Row<'_>] = &[
            ("plain", plain.clone(), Ok(b"hello")),
            ("single segment", frame(0x20, &[5], b""), Ok(b"hello")),
            (
                "content size wrong",
                frame(0x20, &[6], b""),
                Err("ZSTD_FRAME"),
            ),
            (
                "two frames",
                [&plain[..], &plain].concat(),
                Ok(b"hellohello"),
            ),
            (
                "skippable before",
                [&three[..], &plain].concat(),
                Ok(b"hello"),
            ),
            (
                "skippable between",
                [&plain[..], &three, &plain].concat(),
                Ok(b"hellohello"),
            ),
            (
                "skippable after",
                [&plain[..], &three].concat(),
                Ok(b"hello"),
            ),
            ("only skippable", three.clone(), Ok(b"")),
            (
                "skippable longer than the blob",
                [&plain[..], &skippable(u32::MAX), b"xyz"].concat(),
                Err("STREAM_TRUNCATED"),
            ),
            ("dictionary", frame(1, &[0, 7], b""), Err("ZSTD_DICTIONARY")),
            (
                "window of 2 GiB",
                frame(0, &[0xa8], b""),
                Err("ZSTD_WINDOW"),
            ),
            ("window of 128 MiB", frame(0, &[0x88], b""), Ok(b"hello")),
            (
                "window just above",
                frame(0, &[0x89], b""),
                Err("ZSTD_WINDOW"),
            ),
            (
                "wrong checksum",
                frame(4, &[0], &[1, 2, 3, 4]),
                Err("ZSTD_CHECKSUM"),
            ),
            ("reserved bit", frame(8, &[0], b""), Err("ZSTD_FRAME")),
            (
                "garbage after",
                [&plain[..], b"garbage"].concat(),
                Err("ZSTD_FRAME"),
            ),
        ];
        for (name, bytes, expected) in rows {
            let result = decode(bytes);
            let result = result.as_deref().map_err(Error::code);
            assert_eq!(result, *expected, "{name}");
        }
    }

    #[test]
    fn cut_at_every_byte() {
        let whole = frame(0, &[0], b"");
        for len in 1..whole.len() {
            let code = decode(&whole[..len]).map_err(|error| error.code());
            assert_eq!(code, Err("STREAM_TRUNCATED"), "{len} bytes");
        }
    }
}
