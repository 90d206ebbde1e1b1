//! Tars made block by block, as other writers would not make them.

/// A tar header that can be bent.
#[derive(Debug, Clone)]
pub struct TarHeader([u8; 512]);

impl TarHeader {
    /// A ustar header of this type.
    pub fn new(flag: u8, path: &[u8]) -> Self {
        let mut header = Self([0; 512]);
        header.put(0, &path[..path.len().min(100)]);
        header.put(100, b"0000644\0");
        header.put(108, b"0000000\0");
        header.put(116, b"0000000\0");
        header.put(124, b"00000000000\0");
        header.put(136, b"00000000000\0");
        header.0[156] = flag;
        header.put(257, b"ustar\x0000");
        header.put(329, b"0000000\0");
        header.put(337, b"0000000\0");
        sum_block(&mut header.0);
        header
    }

    /// With this number of bytes of data.
    pub fn size(self, size: usize) -> Self {
        self.octal(124, 12, size as u64)
    }

    /// With a number in the field of `len` bytes at `at`.
    pub fn octal(self, at: usize, len: usize, number: u64) -> Self {
        self.with(
            at,
            format!("{number:0width$o}\0", width = len - 1).as_bytes(),
        )
    }

    /// Other bytes from `at` on, with the checksum put right.
    pub fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.put(at, bytes);
        sum_block(&mut self.0);
        self
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The header with its data, padded.
    pub fn data(self, data: &[u8]) -> Vec<u8> {
        let mut bytes = self.0.to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

/// Puts the checksum of a header right.
pub fn sum_block(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// One pax record.
pub fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    [format!("{len} {key}=").as_bytes(), value, b"\n"].concat()
}

/// An extension header: `x`, `g`, `L` or `K`.
pub fn extension(flag: u8, body: &[u8]) -> Vec<u8> {
    TarHeader::new(flag, b"extension")
        .size(body.len())
        .data(body)
}

/// A pax header with these records.
pub fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let records = records.iter();
    let body: Vec<u8> = records
        .flat_map(|(key, value)| pax_record(key, value))
        .collect();
    extension(b'x', &body)
}
