//! The CRC-64 with which tar-split checks files.
//!
//! Spec: ISO 3309, as Go's `hash/crc64` computes it: bits reflected, all ones before and
//! after.

/// The polynomial x^64 + x^4 + x^3 + x + 1, its bits reflected.
const POLYNOMIAL: u64 = 0xd800_0000_0000_0000;

/// How many bytes are taken at a time.
const STRIDE: usize = 8;

/// What a byte does to the sum, by how many bytes come after it within a stride.
static TABLES: [[u64; 256]; STRIDE] = tables();

/// The sum of the bytes so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crc64(u64);

impl Default for Crc64 {
    fn default() -> Self {
        Self(u64::MAX)
    }
}

impl Crc64 {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut sum = self.0;
        let (strides, rest) = bytes.as_chunks::<STRIDE>();
        for stride in strides {
            let mixed = (sum ^ u64::from_le_bytes(*stride)).to_le_bytes();
            sum = 0;
            for (at, byte) in mixed.into_iter().enumerate() {
                sum ^= TABLES[STRIDE - 1 - at][usize::from(byte)];
            }
        }
        for byte in rest {
            let [low, ..] = sum.to_le_bytes();
            sum = TABLES[0][usize::from(low ^ byte)] ^ (sum >> 8);
        }
        self.0 = sum;
    }

    /// The sum.
    #[must_use]
    pub const fn finish(&self) -> u64 {
        !self.0
    }
}

const fn tables() -> [[u64; 256]; STRIDE] {
    let mut tables = [[0; 256]; STRIDE];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 {
                (sum >> 1) ^ POLYNOMIAL
            } else {
                sum >> 1
            };
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut after = 1;
    while after < STRIDE {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[after - 1][byte];
            tables[after][byte] = tables[0][before.to_le_bytes()[0] as usize] ^ (before >> 8);
            byte += 1;
        }
        after += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u64 {
        let mut crc = Crc64::default();
        crc.update(bytes);
        crc.finish()
    }

    /// One bit after the other, as the standard says it.
    fn naive(bytes: &[u8]) -> u64 {
        let mut sum = u64::MAX;
        for byte in bytes {
            sum ^= u64::from(*byte);
            for _ in 0..8 {
                sum = (sum >> 1) ^ if sum & 1 == 1 { POLYNOMIAL } else { 0 };
            }
        }
        !sum
    }

    #[test]
    fn known_sums() {
        // The second and the third were written by Docker, of files with these bytes.
        let rows: [(&[u8], u64); 4] = [
            (b"", 0),
            (b"123456789", 0xb909_56c7_75a4_1001),
            (b"hi\n", 0x6149_9810_0000_0000),
            (b"nonutf", 0x3018_79dd_8c3d_b000),
        ];
        for (bytes, expected) in rows {
            assert_eq!(sum(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn strides_make_no_difference() {
        let bytes: Vec<u8> = (0..100_u8).map(|at| at.wrapping_mul(37)).collect();
        for len in 0..bytes.len() {
            assert_eq!(sum(&bytes[..len]), naive(&bytes[..len]), "{len} bytes");
            let mut crc = Crc64::default();
            let (before, after) = bytes[..len].split_at(len / 3);
            crc.update(before);
            crc.update(after);
            assert_eq!(
                crc.finish(),
                naive(&bytes[..len]),
                "{len} bytes in two pieces"
            );
        }
    }
}
