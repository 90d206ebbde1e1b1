//! Members of a gzip stream: headers, bodies, trailers.
//!
//! Concatenated members are one stream, as RFC 1952 section 2.2 has it; zeros after the
//! last one are padding, as `gzip -d` reads them; anything else there is refused.

use crate::stream::error::Error;
use crate::stream::inflate::{Inflate, Place, Stop};
use crate::stream::input::{Chunks, Input};
use crate::stream::offset::BlobOffset;

/// Flags of a member header, RFC 1952 section 2.3.1.
const HAS_CRC: u8 = 1 << 1;
const HAS_EXTRA: u8 = 1 << 2;
const HAS_NAME: u8 = 1 << 3;
const HAS_COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// What a member's trailer says of its decoded bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trailer {
    /// CRC-32.
    pub(super) crc: u32,
    /// Length modulo 2^32.
    pub(super) len: u32,
    /// Where the trailer ends.
    pub(super) end: BlobOffset,
}

/// Why [`Decoder::advance`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Input or output ran out.
    Pause,
    /// A member header was read; its deflate stream begins at this byte.
    MemberStart(BlobOffset),
    /// Between two deflate blocks; the next one begins at this bit of the blob.
    Boundary { bit_offset: u64 },
    /// A trailer was read, and not compared.
    MemberEnd(Trailer),
    /// The stream is at its end.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first member.
    Start,
    /// In a deflate stream.
    Body,
    /// Before a trailer.
    Trailer,
    /// After a member.
    Between,
    End,
}

/// A gzip stream being decoded.
#[derive(Debug)]
pub(super) struct Decoder {
    input: Input,
    inflate: Inflate,
    state: State,
}

impl Decoder {
    /// At the first member.
    pub(super) fn new() -> Self {
        Self {
            input: Input::default(),
            inflate: Inflate::new(),
            state: State::Start,
        }
    }

    /// At the bit `bit_offset` of the blob, between two deflate blocks, after the bytes
    /// `window`.
    pub(super) fn resume(
        bit_offset: u64,
        window: &[u8],
        chunks: &mut dyn Chunks,
    ) -> Result<Self, Error> {
        let mut input = Input::at(BlobOffset(bit_offset / 8));
        let shift = u8::try_from(bit_offset % 8).expect("below eight");
        let bits = match shift {
            0 => (0, 0),
            _ => (8 - shift, input.byte(chunks)? >> shift),
        };
        Ok(Self {
            input,
            inflate: Inflate::resume(bits, window),
            state: State::Body,
        })
    }

    /// Decodes into `out` until something happens; says how many bytes that brought.
    pub(super) fn advance(
        &mut self,
        chunks: &mut dyn Chunks,
        out: &mut [u8],
        stop: Stop,
    ) -> Result<(usize, Event), Error> {
        let event = match self.state {
            State::Body => return self.inflate(chunks, out, stop),
            State::Start => self.start_member(chunks)?,
            State::Trailer => self.end_member(chunks)?,
            State::Between => {
                if self.is_at_end(chunks)? {
                    self.state = State::End;
                    Event::End
                } else {
                    self.start_member(chunks)?
                }
            }
            State::End => Event::End,
        };
        Ok((0, event))
    }

    /// The decoded bytes before the place reached, as far back as deflate may refer.
    pub(super) fn window(&self) -> Vec<u8> {
        self.inflate.window()
    }

    fn inflate(
        &mut self,
        chunks: &mut dyn Chunks,
        out: &mut [u8],
        stop: Stop,
    ) -> Result<(usize, Event), Error> {
        let input = self.input.fill(chunks)?;
        let at_end = input.is_empty();
        let step = self.inflate.run(input, out, stop);
        let at = self.input.offset();
        let step = step.map_err(|_| Error::Deflate { at })?;
        self.input.consume(step.consumed);
        let event = match step.place {
            Place::End => {
                self.state = State::Trailer;
                Event::Pause
            }
            Place::Boundary { unused_bits } => Event::Boundary {
                bit_offset: self.input.offset().0 * 8 - u64::from(unused_bits),
            },
            Place::Inside if step.consumed > 0 || step.produced > 0 || out.is_empty() => {
                Event::Pause
            }
            Place::Inside if at_end => return Err(Error::Truncated),
            Place::Inside => return Err(Error::Deflate { at }),
        };
        Ok((step.produced, event))
    }

    fn end_member(&mut self, chunks: &mut dyn Chunks) -> Result<Event, Error> {
        let crc = u32::from_le_bytes(self.input.bytes(chunks)?);
        let len = u32::from_le_bytes(self.input.bytes(chunks)?);
        self.state = State::Between;
        let end = self.input.offset();
        Ok(Event::MemberEnd(Trailer { crc, len, end }))
    }

    /// Whether nothing but padding follows a member.
    fn is_at_end(&mut self, chunks: &mut dyn Chunks) -> Result<bool, Error> {
        let at = self.input.offset();
        if self.input.fill(chunks)?.first() == Some(&0x1f) {
            return Ok(false);
        }
        loop {
            let bytes = self.input.fill(chunks)?;
            if bytes.is_empty() {
                return Ok(true);
            }
            if bytes.iter().any(|&byte| byte != 0) {
                return Err(Error::GzipTrailing { at });
            }
            let len = bytes.len();
            self.input.consume(len);
        }
    }

    fn start_member(&mut self, chunks: &mut dyn Chunks) -> Result<Event, Error> {
        Header::new(&mut self.input, chunks).read()?;
        if self.state == State::Between {
            self.inflate.reset();
        }
        self.state = State::Body;
        Ok(Event::MemberStart(self.input.offset()))
    }
}

/// A member header while it is read. None of its fields matter, only where it ends.
struct Header<'a> {
    at: BlobOffset,
    input: &'a mut Input,
    chunks: &'a mut dyn Chunks,
    crc: crc32fast::Hasher,
}

impl<'a> Header<'a> {
    fn new(input: &'a mut Input, chunks: &'a mut dyn Chunks) -> Self {
        Self {
            at: input.offset(),
            input,
            chunks,
            crc: crc32fast::Hasher::new(),
        }
    }

    fn read(mut self) -> Result<(), Error> {
        if self.bytes::<2>()? != [0x1f, 0x8b] {
            return Err(self.fault("wrong magic bytes"));
        }
        let [method, flags] = self.bytes()?;
        if method != 8 {
            return Err(self.fault("unknown compression method"));
        }
        if flags & RESERVED != 0 {
            return Err(self.fault("reserved flags are set"));
        }
        // Time, extra flags and operating system.
        self.bytes::<6>()?;
        if flags & HAS_EXTRA != 0 {
            for _ in 0..u16::from_le_bytes(self.bytes()?) {
                self.bytes::<1>()?;
            }
        }
        for text in [HAS_NAME, HAS_COMMENT] {
            if flags & text != 0 {
                while self.bytes::<1>()? != [0] {}
            }
        }
        if flags & HAS_CRC != 0 {
            let computed = self.crc.clone().finalize().to_le_bytes();
            if self.bytes::<2>()? != computed[..2] {
                return Err(self.fault("wrong header checksum"));
            }
        }
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let bytes = self.input.bytes::<N>(self.chunks)?;
        self.crc.update(&bytes);
        Ok(bytes)
    }

    fn fault(&self, fault: &'static str) -> Error {
        Error::GzipHeader { at: self.at, fault }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::input::Direct;

    /// Name, stream, and its decoded bytes or the code of its error.
    type Row<'a> = (&'a str, Vec<u8>, Result<&'a [u8], &'a str>);

    /// `printf a | gzip -n`, without header flags.
    const BODY: &[u8] = &[0x4b, 0x04, 0, 0x43, 0xbe, 0xb7, 0xe8, 1, 0, 0, 0];

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let bytes = bytes.to_vec();
        let mut chunks = Direct(&bytes);
        let mut decoder = Decoder::new();
        let mut out = Vec::new();
        loop {
            let mut buf = [0; 3];
            let (len, event) = decoder.advance(&mut chunks, &mut buf, Stop::AtBlocks)?;
            out.extend_from_slice(&buf[..len]);
            if event == Event::End {
                return Ok(out);
            }
        }
    }

    #[test]
    fn headers() {
        let head = |flags: u8, fields: &[u8]| {
            [&[0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3], fields, BODY].concat()
        };
        let plain = head(0, b"");
        let mut checked = head(2, b"")[..10].to_vec();
        let crc = crc32fast::hash(&checked).to_le_bytes();
        checked.extend_from_slice(&[&crc[..2], BODY].concat());
        let extra = [&[0xff, 0xff][..], &[7; 0xffff]].concat();
        let rows: &[Row<'_>] = &[
            ("plain", plain.clone(), Ok(b"a")),
            ("extra field of 65,535 bytes", head(4, &extra), Ok(b"a")),
            ("name and comment", head(0x18, b"n\0c\0"), Ok(b"a")),
            ("text flag", head(1, b""), Ok(b"a")),
            ("header checksum", checked, Ok(b"a")),
            ("wrong header checksum", head(2, b"xx"), Err("GZ_HEADER")),
            (
                "name without end",
                head(8, b"n")[..14].into(),
                Err("STREAM_TRUNCATED"),
            ),
            ("reserved flag", head(0x20, b""), Err("GZ_HEADER")),
            (
                "unknown method",
                [&[0x1f, 0x8b, 7], &plain[3..]].concat(),
                Err("GZ_HEADER"),
            ),
            ("two members", [&plain[..], &plain].concat(), Ok(b"aa")),
            ("zeros after", [&plain[..], &[0; 99]].concat(), Ok(b"a")),
            (
                "garbage after",
                [&plain[..], b"x"].concat(),
                Err("GZ_TRAILING"),
            ),
            (
                "garbage after zeros",
                [&plain[..], b"\0x"].concat(),
                Err("GZ_TRAILING"),
            ),
            (
                "member after zeros",
                [&plain[..], b"\0", &plain].concat(),
                Err("GZ_TRAILING"),
            ),
            (
                "half a magic after",
                [&plain[..], b"\x1f"].concat(),
                Err("STREAM_TRUNCATED"),
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
        let whole = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], BODY].concat();
        for len in 0..whole.len() {
            let code = decode(&whole[..len]).map_err(|error| error.code());
            assert_eq!(code, Err("STREAM_TRUNCATED"), "{len} bytes");
        }
    }
}
