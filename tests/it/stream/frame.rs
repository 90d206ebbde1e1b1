//! A writer of zstd frames that says everything by hand: for streams that no compressor
//! makes. What it knows is in RFC 8878; what it writes libzstd must accept.

/// A match and the literals before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sequence {
    pub(super) literals: usize,
    /// 1 to 3: a repeat offset; above: the distance and 3.
    pub(super) offset: usize,
    pub(super) len: usize,
}

/// How a block comes by one of its FSE tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Predefined,
    /// One symbol: all sequences must have the same.
    Rle,
    /// That of the block before.
    Repeat,
}

/// The literals of a block.
#[derive(Debug, Clone)]
pub(super) enum Literals {
    Raw(Vec<u8>),
    Rle(u8, usize),
    /// With a tree of two symbols, of which this is the first: at most 1023 of them.
    Huffman(u8, Vec<u8>),
    /// Likewise, with the tree in force.
    Treeless(u8, Vec<u8>),
}

/// A frame being written.
#[derive(Debug)]
pub(super) struct Frame {
    bytes: Vec<u8>,
    last_block: usize,
    tables: [Option<Table>; 3],
}

impl Frame {
    fn new(header: &[u8]) -> Self {
        let magic = [0x28, 0xb5, 0x2f, 0xfd];
        Self {
            bytes: [&magic, header].concat(),
            last_block: 0,
            tables: [None, None, None],
        }
    }

    /// With a window of 2^`log` bytes.
    pub(super) fn of_window(log: u8) -> Self {
        Self::new(&[0, (log - 10) << 3])
    }

    /// Of one segment: the window is all of the content.
    pub(super) fn of_size(size: usize) -> Self {
        let size = u32::try_from(size).unwrap().to_le_bytes();
        Self::new(&[&[0xa0], &size[..]].concat())
    }

    fn block(&mut self, kind: usize, size: usize, body: &[u8]) {
        self.last_block = self.bytes.len();
        let header = (size << 3 | kind << 1).to_le_bytes();
        self.bytes.extend_from_slice(&header[..3]);
        self.bytes.extend_from_slice(body);
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.block(0, bytes.len(), bytes);
    }

    pub(super) fn rle(&mut self, byte: u8, len: usize) {
        self.block(1, len, &[byte]);
    }

    /// A compressed block; `modes` are those of literal lengths, offsets, match lengths.
    pub(super) fn compressed(
        &mut self,
        literals: &Literals,
        modes: [Mode; 3],
        sequences: &[Sequence],
    ) {
        let mut body = literals_section(literals);
        match sequences.len() {
            0 => body.push(0),
            few @ 1..128 => body.push(u8::try_from(few).unwrap()),
            many => body.extend([
                128 | u8::try_from(many >> 8).unwrap(),
                many.to_le_bytes()[0],
            ]),
        }
        if !sequences.is_empty() {
            self.sequences(modes, sequences, &mut body);
        }
        self.block(2, body.len(), &body);
    }

    fn sequences(&mut self, modes: [Mode; 3], sequences: &[Sequence], body: &mut Vec<u8>) {
        let codes: Vec<[Code; 3]> = sequences.iter().map(codes).collect();
        let number = |mode| match mode {
            Mode::Predefined => 0,
            Mode::Rle => 1,
            Mode::Repeat => 3,
        };
        let [literal, offset, length] = modes.map(number);
        body.push(literal << 6 | offset << 4 | length << 2);
        for (kind, mode) in modes.into_iter().enumerate() {
            match mode {
                Mode::Predefined => self.tables[kind] = Some(Table::predefined(kind)),
                Mode::Rle => {
                    body.push(codes[0][kind].symbol);
                    self.tables[kind] = Some(Table::of_one(codes[0][kind].symbol));
                }
                Mode::Repeat => assert!(self.tables[kind].is_some(), "nothing to repeat"),
            }
        }
        let tables = self.tables.each_ref().map(|table| table.as_ref().unwrap());
        body.extend(sequence_bits(tables, &codes));
    }

    /// Marks the last block as such.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes[self.last_block] |= 1;
        self.bytes
    }
}

fn literals_section(literals: &Literals) -> Vec<u8> {
    let long = |kind: usize, len: usize| (kind | 3 << 2 | len << 4).to_le_bytes()[..3].to_vec();
    let stored = |kind: usize, count: usize, stored: &[u8]| {
        let header = (kind | count << 4 | stored.len() << 14).to_le_bytes();
        [&header[..3], stored].concat()
    };
    match literals {
        Literals::Raw(bytes) => [&long(0, bytes.len())[..], bytes].concat(),
        Literals::Rle(byte, len) => [&long(1, *len)[..], &[*byte]].concat(),
        Literals::Huffman(first, bytes) => {
            let content = [tree(*first), huffman_bits(*first, bytes)].concat();
            stored(2, bytes.len(), &content)
        }
        Literals::Treeless(first, bytes) => stored(3, bytes.len(), &huffman_bits(*first, bytes)),
    }
}

/// The description of a tree of `first` and the symbol after it, of one bit each: weights
/// of half a byte for all symbols but the last.
fn tree(first: u8) -> Vec<u8> {
    let mut weights = vec![0; usize::from(first / 2) + 1];
    weights[usize::from(first / 2)] = if first.is_multiple_of(2) { 0x10 } else { 1 };
    [&[128 + first], &weights[..]].concat()
}

fn huffman_bits(first: u8, bytes: &[u8]) -> Vec<u8> {
    let bit = |byte: &u8| (usize::from(byte - first), 1);
    backward(bytes.iter().map(bit).collect())
}

/// Fields, the first of which is read first: from the end.
fn backward(mut fields: Vec<(usize, u32)>) -> Vec<u8> {
    fields.insert(0, (1, 1));
    let (mut bytes, mut held, mut count) = (Vec::new(), 0_u64, 0);
    for (value, bits) in fields.into_iter().rev() {
        held |= (value as u64) << count;
        count += bits;
        while count >= 8 {
            bytes.push(held.to_le_bytes()[0]);
            held >>= 8;
            count -= 8;
        }
    }
    if count > 0 {
        bytes.push(held.to_le_bytes()[0]);
    }
    bytes
}

/// A value as a symbol and bits added to it.
#[derive(Debug, Clone, Copy)]
struct Code {
    symbol: u8,
    extra: (usize, u32),
}

/// Bits added to the symbols above the first ones, which stand for themselves.
const LITERAL_BITS: [u32; 20] = [
    1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
];
const MATCH_BITS: [u32; 21] = [
    1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
];

/// Of literal length, offset, match length.
fn codes(sequence: &Sequence) -> [Code; 3] {
    let log = sequence.offset.ilog2();
    let offset = Code {
        symbol: u8::try_from(log).unwrap(),
        extra: (sequence.offset - (1 << log), log),
    };
    let literals = code(sequence.literals, 16, &LITERAL_BITS);
    [literals, offset, code(sequence.len - 3, 32, &MATCH_BITS)]
}

fn code(value: usize, small: u8, bits: &[u32]) -> Code {
    let mut base = usize::from(small);
    if value < base {
        let symbol = u8::try_from(value).unwrap();
        return Code {
            symbol,
            extra: (0, 0),
        };
    }
    for (symbol, &bits) in (small..).zip(bits) {
        if value < base + (1 << bits) {
            return Code {
                symbol,
                extra: (value - base, bits),
            };
        }
        base += 1 << bits;
    }
    panic!("{value} is too long");
}

/// The bits of sequences: first states, then for each what is added to offset, match
/// length and literal length, and the steps to the next states.
fn sequence_bits(tables: [&Table; 3], codes: &[[Code; 3]]) -> Vec<u8> {
    const UPDATE_ORDER: [usize; 3] = [0, 2, 1];
    const EXTRA_ORDER: [usize; 3] = [1, 2, 0];
    let ways: Vec<Vec<usize>> = (0..3)
        .map(|kind| tables[kind].way(codes.iter().map(|codes| codes[kind].symbol).collect()))
        .collect();
    let mut fields: Vec<_> = (0..3)
        .map(|kind| (ways[kind][0], tables[kind].log))
        .collect();
    for (number, codes) in codes.iter().enumerate() {
        fields.extend(EXTRA_ORDER.map(|kind| codes[kind].extra));
        for kind in UPDATE_ORDER {
            if let Some(next) = ways[kind].get(number + 1) {
                let state = tables[kind].states[ways[kind][number]];
                fields.push((next - state.base, state.bits));
            }
        }
    }
    backward(fields)
}

/// A decoding table. RFC 8878 section 4.1.1.
#[derive(Debug, Clone)]
struct Table {
    log: u32,
    states: Vec<State>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    symbol: u8,
    /// The next state is this and so many bits.
    base: usize,
    bits: u32,
}

impl Table {
    fn of_one(symbol: u8) -> Self {
        let state = State {
            symbol,
            ..State::default()
        };
        Self {
            log: 0,
            states: vec![state],
        }
    }

    /// RFC 8878 section 3.1.1.3.2.2, as runs of equal counts.
    fn predefined(kind: usize) -> Self {
        let (log, runs): (u32, &[(i32, usize)]) = match kind {
            0 => (
                6,
                &[
                    (4, 1),
                    (3, 1),
                    (2, 11),
                    (1, 3),
                    (2, 9),
                    (3, 1),
                    (2, 1),
                    (1, 5),
                    (-1, 4),
                ],
            ),
            1 => (5, &[(1, 6), (2, 3), (1, 15), (-1, 5)]),
            _ => (6, &[(1, 1), (4, 1), (3, 1), (2, 6), (1, 37), (-1, 7)]),
        };
        let counts = runs.iter().flat_map(|(count, len)| vec![*count; *len]);
        Self::new(log, &counts.collect::<Vec<i32>>())
    }

    fn new(log: u32, counts: &[i32]) -> Self {
        let size = 1 << log;
        let mut states = vec![State::default(); size];
        let mut high = size;
        let rare = (0..).zip(counts).filter(|(_, count)| **count < 0);
        for (symbol, _) in rare {
            high -= 1;
            states[high].symbol = symbol;
        }
        let step = size / 2 + size / 8 + 3;
        let mut places = (0..size)
            .map(|turn| turn * step % size)
            .filter(|at| *at < high);
        for (symbol, &count) in (0..).zip(counts) {
            for place in places.by_ref().take(usize::try_from(count).unwrap_or(0)) {
                states[place].symbol = symbol;
            }
        }
        let mut next: Vec<usize> = counts
            .iter()
            .map(|count| count.unsigned_abs() as usize)
            .collect();
        for state in &mut states {
            let count = &mut next[usize::from(state.symbol)];
            state.bits = log - count.ilog2();
            state.base = (*count << state.bits) - size;
            *count += 1;
        }
        Self { log, states }
    }

    /// States that give these symbols, one after the other.
    fn way(&self, symbols: Vec<u8>) -> Vec<usize> {
        let mut way: Vec<usize> = Vec::new();
        for symbol in symbols.into_iter().rev() {
            let leads_on = |state: &State| {
                let next = way.last();
                next.is_none_or(|next| (state.base..state.base + (1 << state.bits)).contains(next))
            };
            let is_right = |state: &State| state.symbol == symbol && leads_on(state);
            let state = self.states.iter().position(is_right);
            way.push(state.expect("the table has the symbol"));
        }
        way.reverse();
        way
    }
}
