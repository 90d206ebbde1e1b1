//! The loop in which nearly all symbols are decoded: as long as there is input for a few of
//! them and room for what they can mean, nothing is checked but codes and distances.
//!
//! What makes it quick: input is taken in by eight bytes without a branch; what the next
//! symbol means is looked up before the last one's bytes are copied; and bytes are copied in
//! pieces that may reach beyond the end.

#![expect(
    unsafe_code,
    reason = "bounds are checked once for several symbols, which is what makes it quick"
)]

use std::marker::PhantomData;
use std::ptr;

use super::Corrupt;
use super::bits::Bits;
use super::block::{Output, Tables};
use super::code::Entry;
use super::window::Window;

/// The longest copy, RFC 1951 section 3.2.5.
const MAX_COPY: usize = 258;

/// Bytes are copied in pieces of up to so many, the last of which may reach beyond the end.
const PIECE: usize = 32;

/// The most literals before a copy in one round.
const LITERALS: usize = 3;

/// How much room there must be for one round.
const ROOM: usize = LITERALS + MAX_COPY + PIECE;

/// How often bits are taken in before the first round and in it, up to eight bytes each: once
/// before it; after a length, if there are too few for any distance; and after its last
/// literal or its distance.
const REFILLS: usize = 3;

/// The most bits of a distance: its code, and its extra bits.
const DISTANCE_BITS: u32 = 15 + 13;

/// How much input there must be for one round.
const INPUT: usize = REFILLS * size_of::<u64>();

/// Why the loop was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// There is not enough input or room for another round.
    Margin,
    /// The block has ended.
    EndOfBlock,
}

/// What the loop did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    /// Bytes of input taken.
    pub(super) taken: usize,
    pub(super) left: Left,
}

/// Decodes symbols of a block as long as there is enough input and room.
pub(super) fn decode(
    stream: (&mut Bits, &[u8]),
    tables: &Tables,
    window: &Window,
    output: Output<'_>,
) -> Result<Done, Corrupt> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("bmi1") && std::arch::is_x86_feature_detected!("bmi2") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { decode_with_bmi(stream, tables, window, output) };
    }
    decode_on_any(stream, tables, window, output)
}

/// The same, compiled for processors that shift and mask by any register.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "bmi1,bmi2")]
fn decode_with_bmi(
    stream: (&mut Bits, &[u8]),
    tables: &Tables,
    window: &Window,
    output: Output<'_>,
) -> Result<Done, Corrupt> {
    decode_on_any(stream, tables, window, output)
}

#[inline(always)]
fn decode_on_any(
    (bits, input): (&mut Bits, &[u8]),
    tables: &Tables,
    window: &Window,
    (output, produced): Output<'_>,
) -> Result<Done, Corrupt> {
    let Some(mut round) = Round::begin(*bits, input, output, *produced) else {
        let left = Left::Margin;
        return Ok(Done { taken: 0, left });
    };
    let left = round.run(tables, window)?;
    let back = round.bits.give_back();
    *bits = round.bits;
    *produced = round.to.addr() - round.output.addr();
    Ok(Done {
        taken: round.from.addr() - input.as_ptr().addr() - back,
        left,
    })
}

/// Input and output where the loop is.
///
/// Invariant: when a round begins, `from` is at `last_from` at most and `to` at `last_to`, so
/// that there are [`INPUT`] bytes to read and [`ROOM`] bytes to write. All methods but `begin`
/// and `run` are parts of a round, and lean on it.
///
/// No byte is given back that was not taken in by this call: at least one symbol is decoded,
/// and whole bytes that were held before are part of that one.
struct Round<'a> {
    bits: Bits,
    from: *const u8,
    last_from: *const u8,
    to: *mut u8,
    last_to: *mut u8,
    output: *mut u8,
    output_len: usize,
    _borrowed: PhantomData<(&'a [u8], &'a mut [u8])>,
}

impl<'a> Round<'a> {
    #[inline(always)]
    fn begin(bits: Bits, input: &'a [u8], output: &'a mut [u8], produced: usize) -> Option<Self> {
        let last_from = input.len().checked_sub(INPUT)?;
        let last_to = output.len().checked_sub(ROOM)?;
        if produced > last_to {
            return None;
        }
        let (from, to) = (input.as_ptr(), output.as_mut_ptr());
        // SAFETY: all three are within the slices, as was just seen.
        let (last_from, at, last_to) =
            unsafe { (from.add(last_from), to.add(produced), to.add(last_to)) };
        Some(Self {
            bits,
            from,
            last_from,
            to: at,
            last_to,
            output: to,
            output_len: output.len(),
            _borrowed: PhantomData,
        })
    }

    #[inline(always)]
    fn run(&mut self, tables: &Tables, window: &Window) -> Result<Left, Corrupt> {
        // SAFETY: this is the first time, and each round has two more at most.
        unsafe { self.refill() };
        let mut entry = tables.literals.first(&self.bits);
        loop {
            let mut literals = 1;
            while entry.is_literal() && literals < LITERALS {
                entry = self.literal(entry, tables);
                literals += 1;
            }
            if entry.is_literal() {
                entry = self.last_literal(entry, tables);
                if self.is_at_margin() {
                    return Ok(Left::Margin);
                }
                continue;
            }
            if entry.is_special() {
                if entry.is_second_table() {
                    self.bits.drop_low_byte(entry.raw());
                    entry = tables.literals.second(entry, &self.bits);
                    if entry.is_literal() {
                        entry = self.last_literal(entry, tables);
                        if self.is_at_margin() {
                            return Ok(Left::Margin);
                        }
                        continue;
                    }
                }
                if entry.is_end() {
                    self.bits.drop_low_byte(entry.raw());
                    return Ok(Left::EndOfBlock);
                }
                if entry.is_special() {
                    return Err(Corrupt);
                }
            }
            let len = entry.decode(&self.bits);
            self.bits.drop_low_byte(entry.raw());
            if self.bits.fast_count() < DISTANCE_BITS {
                // SAFETY: the second time.
                unsafe { self.refill() };
            }
            let distance = self.distance(tables)?;
            // SAFETY: the third time.
            unsafe { self.refill() };
            entry = tables.literals.first(&self.bits);
            self.copy(distance, len, window)?;
            if self.is_at_margin() {
                return Ok(Left::Margin);
            }
        }
    }

    #[inline(always)]
    fn is_at_margin(&self) -> bool {
        self.from > self.last_from || self.to > self.last_to
    }

    /// Takes in bits, so that there are 56 at least. That is enough for three literals of the
    /// first table (11 bits each), or for two and a length (15 and 5).
    ///
    /// # Safety
    /// No more than [`REFILLS`] times in one round, with the one before it.
    #[inline(always)]
    unsafe fn refill(&mut self) {
        // SAFETY: there are so many bytes, by the invariant.
        unsafe {
            let word = self.from.cast::<u64>().read_unaligned();
            self.from = self.from.add(self.bits.refill(u64::from_le(word)));
        }
    }

    /// Puts out a literal; says what comes next.
    #[inline(always)]
    fn literal(&mut self, entry: Entry, tables: &Tables) -> Entry {
        self.bits.drop_low_byte(entry.raw());
        let next = tables.literals.first(&self.bits);
        self.put(entry);
        next
    }

    /// Puts out the last literal of a round; says what comes next.
    #[inline(always)]
    fn last_literal(&mut self, entry: Entry, tables: &Tables) -> Entry {
        self.bits.drop_low_byte(entry.raw());
        // SAFETY: the second or third time.
        unsafe { self.refill() };
        let next = tables.literals.first(&self.bits);
        self.put(entry);
        next
    }

    #[inline(always)]
    fn put(&mut self, entry: Entry) {
        // SAFETY: there is room for the literals of a round, by the invariant.
        unsafe {
            self.to.write(entry.literal());
            self.to = self.to.add(1);
        }
    }

    #[inline(always)]
    fn distance(&mut self, tables: &Tables) -> Result<usize, Corrupt> {
        let mut entry = tables.distances.first(&self.bits);
        if entry.is_special() {
            if entry.is_second_table() {
                self.bits.drop_low_byte(entry.raw());
                entry = tables.distances.second(entry, &self.bits);
            }
            if entry.is_special() {
                return Err(Corrupt);
            }
        }
        let distance = entry.decode(&self.bits);
        self.bits.drop_low_byte(entry.raw());
        Ok(distance)
    }

    /// Puts out `len` bytes from `distance` before.
    #[inline(always)]
    fn copy(&mut self, distance: usize, len: usize, window: &Window) -> Result<(), Corrupt> {
        let at = self.to.addr() - self.output.addr();
        if distance > at {
            self.copy_from_window(distance, len, window)
                .ok_or(Corrupt)?;
        } else {
            // SAFETY: there are so many bytes before; there is room for a copy and one more
            // piece, by the invariant.
            unsafe { copy(self.to, distance, len) };
        }
        // SAFETY: there was room for them.
        self.to = unsafe { self.to.add(len) };
        Ok(())
    }

    /// The same, where it begins before the output.
    #[cold]
    fn copy_from_window(&mut self, distance: usize, len: usize, window: &Window) -> Option<()> {
        let at = self.to.addr() - self.output.addr();
        // SAFETY: this is the output, borrowed for as long as this value lives.
        let output = unsafe { std::slice::from_raw_parts_mut(self.output, self.output_len) };
        window.copy(output, at, distance, len)
    }
}

/// Copies `len` bytes to `to` from `distance` before it, among them bytes that this very copy
/// writes.
///
/// # Safety
/// There are `distance` bytes before `to`; there is room for `len` bytes and [`PIECE`] more.
#[inline(always)]
unsafe fn copy(mut to: *mut u8, distance: usize, len: usize) {
    // SAFETY: as the caller says: the first piece is always within the room, another one is
    // begun only before the end. No piece is longer than the distance, or a later one would
    // have to read what it has not written yet; but repetitions are.
    unsafe {
        let mut from = to.sub(distance).cast_const();
        let end = to.add(len);
        match distance {
            16.. => loop {
                ptr::copy(from, to, 16);
                ptr::copy(from.add(16), to.add(16), 16);
                (to, from) = (to.add(32), from.add(32));
                if to >= end {
                    return;
                }
            },
            8..16 => loop {
                ptr::copy(from, to, 8);
                (to, from) = (to.add(8), from.add(8));
                if to >= end {
                    return;
                }
            },
            1 => {
                let repeated = u64::from(from.read()) * 0x0101_0101_0101_0101;
                loop {
                    to.cast::<u64>().write_unaligned(repeated);
                    to = to.add(8);
                    if to >= end {
                        return;
                    }
                }
            }
            // A piece holds a whole number of repetitions and the start of another, which the
            // next piece writes over with the same bytes.
            _ => loop {
                ptr::copy(from, to, 8);
                (to, from) = (to.add(distance), from.add(distance));
                if to >= end {
                    return;
                }
            },
        }
    }
}
