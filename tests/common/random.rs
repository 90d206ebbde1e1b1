//! Pseudo-random numbers that can be had again.

use std::env;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

/// A seeded generator (SplitMix64). Not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator with the seed in `OCIFS_TEST_SEED`, or else one of its own.
    ///
    /// Prints the seed; the test harness shows it when the test fails.
    pub fn new() -> Self {
        let seed = match env::var("OCIFS_TEST_SEED") {
            Ok(text) => text.parse().expect("OCIFS_TEST_SEED is a number"),
            Err(_) => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |elapsed| {
                    u64::from(elapsed.subsec_nanos()) ^ elapsed.as_secs()
                }),
        };
        #[expect(clippy::print_stdout, reason = "shown with the failure of the test")]
        {
            println!("to see this again: OCIFS_TEST_SEED={seed}");
        }
        Self(seed)
    }

    /// A generator with this seed.
    pub fn of_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, all values alike.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number in `range`, which must not be empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        assert!(range.start < range.end, "empty range {range:?}");
        range.start + self.next() % (range.end - range.start)
    }

    /// Fills a buffer with noise.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}
