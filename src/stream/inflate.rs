//! Raw inflate that stops at block boundaries and starts in the middle: the one file that
//! calls zlib-rs through its C interface, because the safe one offers neither.

#![expect(
    unsafe_code,
    reason = "inflatePrime, Z_BLOCK and the window exist only behind the C interface"
)]

use std::ffi::c_int;
use std::fmt;
use std::mem::size_of;

use libz_rs_sys as zlib;

/// How far back deflate data may refer.
pub(super) const WINDOW_SIZE: usize = 32 << 10;

/// Raw deflate: no zlib or gzip header, and the largest window.
const RAW: c_int = -15;

/// Bits of `data_type` after a call with `Z_BLOCK`, from zlib's manual.
const AT_BOUNDARY: c_int = 128;
const IN_LAST_BLOCK: c_int = 64;
const UNUSED_BITS: c_int = 63;

/// The data cannot be deflate data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Corrupt;

/// Where a call stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// When input or output runs out.
    Anywhere,
    /// At the next block boundary too.
    AtBlocks,
}

/// Where a call stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Within a block.
    Inside,
    /// Between two blocks; so many bits of the last byte taken belong to the next one.
    Boundary {
        /// 0 to 7.
        unused_bits: u8,
    },
    /// After the last block.
    End,
}

/// What a call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// Bytes of input taken.
    pub(super) consumed: usize,
    /// Bytes of output written.
    pub(super) produced: usize,
    /// Where it stopped.
    pub(super) place: Place,
}

/// One raw deflate stream being decoded.
pub(super) struct Inflate {
    // Boxed, because zlib may point back at it.
    stream: Box<zlib::z_stream>,
}

// SAFETY: the stream and all that it points to belong to this value alone; zlib-rs uses
// no thread-local state, and the input and output pointers are set anew by every call.
unsafe impl Send for Inflate {}

impl fmt::Debug for Inflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inflate")
    }
}

impl Inflate {
    /// At the start of a deflate stream.
    pub(super) fn new() -> Self {
        let mut stream = Box::new(zlib::z_stream::default());
        let size = c_int::try_from(size_of::<zlib::z_stream>()).expect("a small struct");
        // SAFETY: the stream is a valid value with its allocator set, and stays where it is;
        // version and size are those of this very library.
        let code = unsafe { zlib::inflateInit2_(&raw mut *stream, RAW, zlib::zlibVersion(), size) };
        // With a fixed window size and version the only failure is one of allocation.
        assert_eq!(code, zlib::Z_OK, "out of memory for a decoder");
        Self { stream }
    }

    /// Back to the start of a deflate stream.
    pub(super) fn reset(&mut self) {
        // SAFETY: the stream was initialised in `new`.
        let code = unsafe { zlib::inflateReset(&raw mut *self.stream) };
        assert_eq!(code, zlib::Z_OK, "an initialised stream can be reset");
    }

    /// A decoder between two blocks: `bits` holds the number and the value of the bits of
    /// the last byte that are still to come, `window` the bytes before.
    pub(super) fn resume(bits: (u8, u8), window: &[u8]) -> Self {
        debug_assert!(bits.0 < 8 && window.len() <= WINDOW_SIZE);
        let mut this = Self::new();
        let stream = &raw mut *this.stream;
        if bits.0 > 0 {
            // SAFETY: the stream was initialised in `new`.
            let code = unsafe { zlib::inflatePrime(stream, c_int::from(bits.0), bits.1.into()) };
            assert_eq!(code, zlib::Z_OK, "less than a byte fits a fresh decoder");
        }
        if !window.is_empty() {
            let len = u32::try_from(window.len()).expect("a window is 32 KiB at most");
            // SAFETY: the stream was initialised in `new`; pointer and length are a slice's.
            let code = unsafe { zlib::inflateSetDictionary(stream, window.as_ptr(), len) };
            assert_eq!(code, zlib::Z_OK, "a raw stream takes any window");
        }
        this
    }

    /// Decodes some of `input` into `output`.
    pub(super) fn run(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        stop: Stop,
    ) -> Result<Step, Corrupt> {
        let stream = &mut *self.stream;
        let room = u32::try_from(output.len()).unwrap_or(u32::MAX);
        let given = u32::try_from(input.len()).unwrap_or(u32::MAX);
        stream.next_in = input.as_ptr();
        stream.avail_in = given;
        stream.next_out = output.as_mut_ptr();
        stream.avail_out = room;
        let flush = match stop {
            Stop::Anywhere => zlib::Z_NO_FLUSH,
            Stop::AtBlocks => zlib::Z_BLOCK,
        };
        // SAFETY: the stream was initialised in `new`; both pointers are valid for their
        // lengths during the call, and zlib does not use them after it.
        let code = unsafe { zlib::inflate(&raw mut *stream, flush) };
        let kind = stream.data_type;
        let place = match code {
            zlib::Z_STREAM_END => Place::End,
            zlib::Z_OK | zlib::Z_BUF_ERROR if kind & AT_BOUNDARY == 0 => Place::Inside,
            zlib::Z_OK | zlib::Z_BUF_ERROR if kind & IN_LAST_BLOCK != 0 => Place::Inside,
            zlib::Z_OK | zlib::Z_BUF_ERROR => Place::Boundary {
                unused_bits: u8::try_from(kind & UNUSED_BITS).map_err(|_| Corrupt)?,
            },
            _ => return Err(Corrupt),
        };
        Ok(Step {
            consumed: (given - stream.avail_in) as usize,
            produced: (room - stream.avail_out) as usize,
            place,
        })
    }

    /// The bytes before the place reached, up to 32 KiB.
    pub(super) fn window(&self) -> Vec<u8> {
        let mut window = vec![0; WINDOW_SIZE];
        let mut len = 0;
        let stream = &raw const *self.stream;
        // SAFETY: the stream was initialised in `new`; 32 KiB is always enough room, as the
        // function's contract says.
        let code = unsafe { zlib::inflateGetDictionary(stream, window.as_mut_ptr(), &raw mut len) };
        assert_eq!(code, zlib::Z_OK, "an initialised stream has a window");
        window.truncate(len as usize);
        window
    }
}

impl Drop for Inflate {
    fn drop(&mut self) {
        // SAFETY: the stream was initialised in `new` and is ended once.
        unsafe { zlib::inflateEnd(&raw mut *self.stream) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One stored block that is not the last, then one that is.
    const TWO_BLOCKS: &[u8] = &[0, 1, 0, 0xfe, 0xff, b'a', 1, 1, 0, 0xfe, 0xff, b'b'];

    #[test]
    fn stops_between_blocks_and_goes_on_from_there() {
        let mut out = [0; 8];
        let mut first = Inflate::new();
        let step = first.run(TWO_BLOCKS, &mut out, Stop::AtBlocks);
        let expected = Step {
            consumed: 6,
            produced: 1,
            place: Place::Boundary { unused_bits: 0 },
        };
        assert_eq!(step, Ok(expected));
        assert_eq!(first.window(), b"a");

        let mut second = Inflate::resume((0, 0), b"a");
        let step = second.run(&TWO_BLOCKS[6..], &mut out, Stop::Anywhere);
        assert_eq!(step.map(|step| step.place), Ok(Place::End));
        assert_eq!(out[0], b'b');
    }

    #[test]
    fn refuses_what_is_not_deflate() {
        let mut inflate = Inflate::new();
        let step = inflate.run(&[0xff; 16], &mut [0; 8], Stop::Anywhere);
        assert_eq!(step, Err(Corrupt));
    }

    #[test]
    fn reset_forgets_the_window() {
        let mut inflate = Inflate::new();
        let step = inflate.run(TWO_BLOCKS, &mut [0; 8], Stop::Anywhere);
        assert_eq!(step.map(|step| step.place), Ok(Place::End));
        inflate.reset();
        assert_eq!(inflate.window(), b"");
    }
}
