//! Raw inflate that stops at block boundaries, starts in the middle, and is the quickest
//! that we could make: nearly all the time that a read of a gzip layer takes passes here.
//!
//! It is our own because none has all three. The zlib family stops and starts anywhere but
//! takes 1.3 times as long; what is quicker wants the whole stream at once. RFC 1951 is the
//! format.
//!
//! ```text
//!           run
//!            │
//!   block: one symbol at a time, wherever input or output may end
//!            │                          │
//!   fast: many symbols            window: what was put out before
//!            │                          │
//!   code: the tables      bits: those that are taken in
//! ```
//!
//! Between calls, and wherever the state is one of [`block::State`], no whole byte is held
//! that is not part of the symbol which comes next. So the place reached is known to the bit.

mod bits;
mod block;
mod code;
mod fast;
#[cfg(test)]
mod tests;
mod window;

use std::fmt;

use bits::Bits;
use block::{Block, Feed, State};
pub(super) use window::WINDOW_SIZE;
use window::Window;

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
    /// Bytes of output written. Those behind them may have been written to as well.
    pub(super) produced: usize,
    /// Where it stopped.
    pub(super) place: Place,
}

/// One raw deflate stream being decoded.
pub(super) struct Inflate {
    block: Box<Block>,
    window: Box<Window>,
}

impl fmt::Debug for Inflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inflate")
    }
}

impl Inflate {
    /// At the start of a deflate stream.
    pub(super) fn new() -> Self {
        Self {
            block: Box::default(),
            window: Box::default(),
        }
    }

    /// Back to the start of a deflate stream.
    pub(super) fn reset(&mut self) {
        self.block.bits = Bits::default();
        self.block.state = State::Header;
        self.window.clear();
    }

    /// A decoder between two blocks: `bits` holds the number and the value of the bits of
    /// the last byte that are still to come, `window` the bytes before.
    pub(super) fn resume(bits: (u8, u8), window: &[u8]) -> Self {
        debug_assert!(bits.0 < 8 && window.len() <= WINDOW_SIZE);
        let mut this = Self::new();
        this.block.bits = Bits::of(bits.0, bits.1);
        this.window.push(window);
        this
    }

    /// Decodes some of `input` into `output`. What is refused once is refused from then on.
    pub(super) fn run(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        stop: Stop,
    ) -> Result<Step, Corrupt> {
        let mut feed = Feed::new(input);
        let mut produced = 0;
        let place = loop {
            let to = (&mut *output, &mut produced);
            let next = self.block.step(&mut feed, &self.window, to);
            let next = next.inspect_err(|_| self.block.state = State::Corrupt);
            match next? {
                block::Next::Step => {}
                block::Next::Wait => break Place::Inside,
                block::Next::Boundary if stop == Stop::Anywhere => {}
                block::Next::Boundary => {
                    let unused_bits = self.block.bits.left_of_byte();
                    break Place::Boundary { unused_bits };
                }
                block::Next::End => break Place::End,
            }
        };
        self.window.push(&output[..produced]);
        Ok(Step {
            consumed: feed.taken(),
            produced,
            place,
        })
    }

    /// The bytes before the place reached, up to 32 KiB.
    pub(super) fn window(&self) -> Vec<u8> {
        self.window.to_vec()
    }
}
