//! Zstd frames that no compressor writes: what a checkpoint must carry over, and what none
//! can.

use std::io::Read;
use std::sync::Arc;

use ocifs::stream::checkpoint::Restart;
use ocifs::stream::{Density, Limits, SpanTable, find_checkpoints_with};

use super::frame::{Frame, Literals, Mode, Sequence};
use super::{check, compare, open, pass};
use crate::sample::{Random, TestResult};
use crate::targets::access;
use crate::targets::blocks;

const PREDEFINED: [Mode; 3] = [Mode::Predefined; 3];
const RLE: [Mode; 3] = [Mode::Rle; 3];
const REPEAT: [Mode; 3] = [Mode::Repeat; 3];

/// What most blocks decode to, in bytes: so each can have a checkpoint.
const BLOCK: usize = 1000;

/// Matches of most blocks: few bytes each, since those must not make a checkpoint dear.
const MATCH: usize = 8;

/// A frame, the noise for its literals, and a few kinds of blocks.
struct Stream {
    frame: Frame,
    random: Random,
}

impl Stream {
    fn new(frame: Frame) -> Self {
        Self {
            frame,
            random: Random(55),
        }
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        let byte = |_| (self.random.below(256) & 0xff) as u8;
        (0..len).map(byte).collect()
    }

    fn raw(mut self, count: usize) -> Self {
        for _ in 0..count {
            let noise = self.noise(BLOCK);
            self.frame.raw(&noise);
        }
        self
    }

    fn rle(mut self, count: usize) -> Self {
        for byte in 0..count {
            self.frame.rle(byte.to_le_bytes()[0], BLOCK);
        }
        self
    }

    fn empty(mut self) -> Self {
        self.frame.raw(b"");
        self.frame.rle(b'x', 0);
        self
    }

    /// A block with a match for each pair of literals before it and offset.
    fn matches(mut self, modes: [Mode; 3], matches: &[(usize, usize)]) -> Self {
        let sequences = sequences(matches);
        let literals = Literals::Raw(self.noise(BLOCK - MATCH * matches.len()));
        self.frame.compressed(&literals, modes, &sequences);
        self
    }

    /// Literals that are all the same, and matches between them.
    fn same(mut self, modes: [Mode; 3]) -> Self {
        let sequences = sequences(VARIED);
        let literals = Literals::Rle(b'=', BLOCK - MATCH * sequences.len());
        self.frame.compressed(&literals, modes, &sequences);
        self
    }

    /// A block of two symbols, with or without their tree.
    fn coded(mut self, make: fn(u8, Vec<u8>) -> Literals, first: u8) -> Self {
        let symbols = self
            .noise(BLOCK)
            .iter()
            .map(|noise| first + noise % 2)
            .collect();
        self.frame
            .compressed(&make(first, symbols), PREDEFINED, &[]);
        self
    }

    fn finish(self) -> Vec<u8> {
        self.frame.finish()
    }
}

fn sequences(matches: &[(usize, usize)]) -> Vec<Sequence> {
    let sequence = |&(literals, offset)| Sequence {
        literals,
        offset,
        len: MATCH,
    };
    matches.iter().map(sequence).collect()
}

fn window() -> Stream {
    Stream::new(Frame::of_window(17))
}

/// Distances whose codes are all the same.
const ALIKE: &[(usize, usize)] = &[(60, 310), (61, 333), (62, 450), (63, 500)];
const VARIED: &[(usize, usize)] = &[(0, 999), (100, 55), (3, 703), (200, 21)];

/// By libzstd.
fn decoded(blob: &[u8]) -> TestResult<Vec<u8>> {
    let mut decoded = Vec::new();
    zstd::stream::read::Decoder::new(blob)?.read_to_end(&mut decoded)?;
    Ok(decoded)
}

/// The spans with a checkpoint within a frame.
fn found(table: &SpanTable) -> Vec<u32> {
    let is_within = |restart| matches!(restart, Restart::Dictionary { .. });
    let list = table.checkpoints().list.iter();
    list.filter(|checkpoint| is_within(checkpoint.restart))
        .map(|checkpoint| checkpoint.span.0)
        .collect()
}

/// Each block a span, and a checkpoint at each of those expected and no other one; then
/// reads from each block, which all are decoded anew.
fn check_blocks(name: &str, blob: &[u8], expected: &[u32]) -> TestResult {
    let blob = blob.to_vec();
    let bytes = decoded(&blob).map_err(|error| format!("{name}: {error}"))?;
    check(name, &blob, &bytes)?;
    let table = Arc::new(blocks::table(&blob, &bytes, 1));
    blocks::improve(&table, &blob, u32::try_from(BLOCK)?);
    assert_eq!(found(&table), expected, "{name}");
    let stream = access::open(&table, blob, 0);
    for span in table.spans() {
        let offset = usize::try_from(span.tar_offset.0)?;
        let mut buf = [0; BLOCK + 9];
        let len = stream.read_at(&mut buf, span.tar_offset)?;
        let wanted = access::slice(&bytes, offset, buf.len());
        assert!(buf[..len] == *wanted, "{name}: {len} bytes at {offset}");
    }
    Ok(())
}

#[test]
fn state_is_carried_over() -> TestResult {
    let repeats: &[(usize, usize)] = &[(0, 1), (0, 2), (0, 3), (9, 3), (9, 2), (9, 1)];
    let rows: [(&str, Vec<u8>, &[u32]); 12] = [
        (
            "predefined tables, repeated",
            window()
                .raw(2)
                .matches(PREDEFINED, VARIED)
                .matches(REPEAT, ALIKE)
                .matches(REPEAT, VARIED)
                .finish(),
            &[1, 2, 3, 4],
        ),
        (
            "tables of one symbol, replaced",
            window()
                .raw(2)
                .matches(RLE, ALIKE)
                .matches(PREDEFINED, VARIED)
                .matches(RLE, ALIKE)
                .matches(RLE, &[(0, 70), (0, 80)])
                .finish(),
            &[1, 2, 3, 4, 5],
        ),
        (
            "tables of one symbol, repeated: none between",
            window()
                .raw(2)
                .matches(RLE, ALIKE)
                .matches(REPEAT, ALIKE)
                .matches(PREDEFINED, VARIED)
                .matches(REPEAT, VARIED)
                .finish(),
            &[1, 2, 4, 5],
        ),
        (
            "one table of three repeated",
            window()
                .raw(2)
                .matches(RLE, ALIKE)
                .matches([Mode::Predefined, Mode::Repeat, Mode::Predefined], ALIKE)
                .matches([Mode::Repeat, Mode::Predefined, Mode::Repeat], VARIED)
                .finish(),
            &[1, 2, 4],
        ),
        (
            "a table of one symbol, and no match after it",
            window().raw(2).matches(RLE, ALIKE).raw(3).rle(2).finish(),
            &[1, 2, 3, 4, 5, 6, 7],
        ),
        (
            "repeat offsets at the start of blocks",
            window()
                .raw(2)
                .matches(PREDEFINED, &[(5, 503), (5, 203), (5, 103)])
                .matches(PREDEFINED, repeats)
                .matches(PREDEFINED, &[(0, 3), (0, 3), (0, 3)])
                .matches(PREDEFINED, &[(0, 2), (1, 1)])
                .raw(1)
                .matches(PREDEFINED, &[(1, 3), (0, 1)])
                .finish(),
            &[1, 2, 3, 4, 5, 6, 7],
        ),
        (
            "repeat offsets that were never set",
            window().raw(1).rle(1).matches(PREDEFINED, repeats).finish(),
            &[1, 2],
        ),
        (
            "a tree from many blocks before",
            window()
                .raw(1)
                .coded(Literals::Huffman, 97)
                .coded(Literals::Treeless, 97)
                .raw(20)
                .rle(3)
                .coded(Literals::Treeless, 97)
                .coded(Literals::Huffman, 0)
                .coded(Literals::Treeless, 0)
                .finish(),
            &(1..29).collect::<Vec<u32>>(),
        ),
        (
            "raw and RLE blocks on all sides",
            window()
                .rle(2)
                .raw(1)
                .matches(PREDEFINED, VARIED)
                .rle(1)
                .matches(REPEAT, VARIED)
                .raw(1)
                .same(PREDEFINED)
                .same(REPEAT)
                .rle(1)
                .finish(),
            &[1, 2, 3, 4, 5, 6, 7, 8, 9],
        ),
        (
            "empty blocks",
            window()
                .empty()
                .raw(2)
                .empty()
                .matches(PREDEFINED, VARIED)
                .empty()
                .matches(REPEAT, VARIED)
                .empty()
                .finish(),
            &[1, 2, 3],
        ),
        (
            "a window smaller than a block may be elsewhere",
            Stream::new(Frame::of_window(10))
                .raw(2)
                .matches(PREDEFINED, VARIED)
                .matches(REPEAT, VARIED)
                .coded(Literals::Huffman, 5)
                .coded(Literals::Treeless, 5)
                .finish(),
            &[1, 2, 3, 4, 5],
        ),
        (
            "a single segment",
            Stream::new(Frame::of_size(6 * BLOCK))
                .raw(2)
                .matches(PREDEFINED, VARIED)
                .matches(REPEAT, &[(0, 2003), (9, 1), (9, 2700)])
                .coded(Literals::Huffman, 5)
                .coded(Literals::Treeless, 5)
                .finish(),
            &[1, 2, 3, 4, 5],
        ),
    ];
    for (name, blob, expected) in &rows {
        check_blocks(name, blob, expected)?;
    }
    Ok(())
}

#[test]
fn nothing_is_carried_over_to_another_frame() -> TestResult {
    let first = || {
        window()
            .raw(1)
            .matches(PREDEFINED, VARIED)
            .coded(Literals::Huffman, 64)
            .matches(REPEAT, &[(0, 2), (5, 1)])
    };
    let blob = [first().finish(), first().raw(2).finish()].concat();
    check_blocks("two frames", &blob, &[1, 2, 3, 5, 6, 7, 8, 9])?;

    let headless = [
        first().finish(),
        window().coded(Literals::Treeless, 64).finish(),
    ]
    .concat();
    let code = pass(&headless, 100, &Limits::default())
        .err()
        .map(|error| error.code());
    assert_eq!(code, Some("ZSTD_FRAME"), "a tree of another frame");
    Ok(())
}

#[test]
fn what_libzstd_refuses_is_refused() {
    let beyond = window().raw(1).matches(PREDEFINED, &[(0, 1004)]);
    let rows = [
        ("a match before the start", beyond.finish()),
        (
            "a block longer than the window",
            Stream::new(Frame::of_window(10)).raw(1).long(2000).finish(),
        ),
        (
            "a tree that was never given",
            window().raw(1).coded(Literals::Treeless, 0).finish(),
        ),
    ];
    for (name, blob) in rows {
        assert!(decoded(&blob).is_err(), "{name}, libzstd");
        let code = pass(&blob, 100, &Limits::default())
            .err()
            .map(|error| error.code());
        assert_eq!(code, Some("ZSTD_FRAME"), "{name}");
    }
}

impl Stream {
    /// A raw block of another length.
    fn long(mut self, len: usize) -> Self {
        let noise = self.noise(len);
        self.frame.raw(&noise);
        self
    }

    /// RLE blocks of the largest size, up to `len` decoded bytes together.
    fn filled(mut self, len: usize) -> Self {
        for start in (0..len).step_by(128 << 10) {
            self.frame.rle(b'.', (len - start).min(128 << 10));
        }
        self
    }
}

#[test]
fn the_largest_window_and_the_largest_offset() -> TestResult {
    let window = 128 << 20;
    // The noise at the start is just within reach of the first block after it.
    let stream = |frame| {
        let stream = Stream::new(frame).raw(1).filled(window - BLOCK);
        let far = stream.matches(PREDEFINED, &[(0, window + 3), (1, 1), (500, 1)]);
        far.matches(PREDEFINED, &[(0, 1000 + 3), (5, window + 3)])
            .filled(2 << 20)
    };
    let blob = stream(Frame::of_window(27)).finish();
    let bytes = decoded(&blob)?;
    // Most of it is RLE blocks.
    let limits = Limits {
        ratio: u64::MAX,
        ..Limits::default()
    };
    let (table, ours) = pass(&blob, 1 << 18, &limits)?;
    assert!(ours == bytes, "decoded bytes differ");
    let density = Density {
        max_share: u32::MAX,
        ..Density::default()
    };
    let better = find_checkpoints_with(&density, &blob, &table, &|| false)?;
    table.improve(better.ok_or("no checkpoints")?)?;
    let count = found(&table).len();
    assert!(count > 20, "{count} checkpoints");
    let stream = open(table, blob, 0);
    for offset in [0, window - 100, window + 900] {
        let mut buf = vec![0; 3000];
        let len = stream.read_at(&mut buf, ocifs::stream::TarOffset(offset as u64))?;
        assert!(buf[..len] == bytes[offset..offset + len], "at {offset}");
    }
    compare(&stream, &bytes, 10, 56)
}

#[test]
fn a_window_beyond_the_largest() {
    let blob = Stream::new(Frame::of_window(28)).raw(1).finish();
    let code = pass(&blob, 100, &Limits::default())
        .err()
        .map(|error| error.code());
    assert_eq!(code, Some("ZSTD_WINDOW"));
}
