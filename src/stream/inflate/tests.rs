//! Against another decoder, and at every place where input or output can end.

use std::io::Write;
use std::ops::Range;

use super::code::Alphabet;
use super::*;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Decompress, FlushDecompress, Status};
use proptest::collection::vec;
use proptest::prelude::*;

/// One stored block that is not the last, then one that is.
const TWO_BLOCKS: &[u8] = &[0, 1, 0, 0xfe, 0xff, b'a', 1, 1, 0, 0xfe, 0xff, b'b'];

/// Bits, the first of each text lowest, as RFC 1951 writes them down.
fn bits(texts: &[&str]) -> Vec<u8> {
    let all = texts.concat().replace(' ', "");
    let byte = |bits: &[u8]| {
        let bits = bits.iter().rev();
        bits.fold(0, |byte, &bit| byte << 1 | (bit - b'0'))
    };
    all.as_bytes().chunks(8).map(byte).collect()
}

/// The number in so many bits, the lowest first.
fn number(value: usize, count: usize) -> String {
    (0..count)
        .map(|bit| if value >> bit & 1 == 1 { '1' } else { '0' })
        .collect()
}

/// The bytes of a stream, and how many of it that took.
type Decoded = Result<(Vec<u8>, usize), Corrupt>;

/// Decodes all of a stream, of which `input` bytes are there at a time, and room for `output`.
fn decode(stream: &[u8], input: usize, output: usize, stop: Stop) -> Decoded {
    let (mut inflate, mut taken, mut out) = (Inflate::new(), 0, Vec::new());
    loop {
        let end = stream.len().min(taken + input);
        let mut buffer = vec![0xaa; output];
        let step = inflate.run(&stream[taken..end], &mut buffer, stop)?;
        taken += step.consumed;
        out.extend_from_slice(&buffer[..step.produced]);
        match step.place {
            Place::End => return Ok((out, taken)),
            // The stream is cut off.
            Place::Inside if step.consumed + step.produced == 0 => return Err(Corrupt),
            Place::Inside | Place::Boundary { .. } => {}
        }
    }
}

/// The same by another decoder.
fn reference(stream: &[u8]) -> Decoded {
    let mut decoder = Decompress::new(false);
    let mut out = Vec::with_capacity(1 << 16);
    loop {
        let (taken, before) = (total_in(&decoder), out.len());
        let status = decoder.decompress_vec(&stream[taken..], &mut out, FlushDecompress::None);
        let now = total_in(&decoder);
        match status.map_err(|_| Corrupt)? {
            Status::StreamEnd => return Ok((out, now)),
            _ if out.len() == out.capacity() => out.reserve(1 << 16),
            _ if (now, out.len()) == (taken, before) => return Err(Corrupt),
            Status::Ok | Status::BufError => {}
        }
    }
}

fn total_in(decoder: &Decompress) -> usize {
    usize::try_from(decoder.total_in()).expect("it is in memory")
}

fn deflated(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

/// Numbers below what is asked for, always the same ones of a seed.
fn random(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed | 1;
    move |below| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 40).expect("24 bits") % below
    }
}

/// Bytes with repetitions near and far, runs, and noise.
fn sample(len: usize, seed: u64) -> Vec<u8> {
    let mut random = random(seed);
    let byte = |number: usize| u8::try_from(number).expect("it is below 256");
    let mut bytes = Vec::with_capacity(len + 512);
    while bytes.len() < len {
        match random(4) {
            0 => {
                let noise = random(40);
                bytes.extend((0..noise).map(|_| byte(random(256))));
            }
            1 => bytes.extend(std::iter::repeat_n(byte(random(256)), random(400))),
            _ if bytes.is_empty() => {}
            _ => {
                let start = bytes.len() - 1 - random(bytes.len().min(40_000));
                let period = bytes.len() - start;
                for at in 0..random(300) {
                    bytes.push(bytes[start + at % period]);
                }
            }
        }
    }
    bytes.truncate(len);
    bytes
}

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
fn every_boundary_is_a_place_to_start() {
    let bytes = sample(600_000, 7);
    for level in [1, 6, 9] {
        let stream = deflated(&bytes, level);
        let (mut inflate, mut taken, mut produced, mut count) = (Inflate::new(), 0, 0, 0);
        let mut out = vec![0; bytes.len()];
        loop {
            let step = inflate.run(&stream[taken..], &mut out[produced..], Stop::AtBlocks);
            let step = step.expect("it is sound");
            (taken, produced) = (taken + step.consumed, produced + step.produced);
            let Place::Boundary { unused_bits } = step.place else {
                break;
            };
            let left = stream[taken - 1].checked_shr(8 - u32::from(unused_bits));
            let left = left.unwrap_or(0);
            let mut other = Inflate::resume((unused_bits, left), &inflate.window());
            let mut rest = vec![0; bytes.len() - produced];
            let step = other.run(&stream[taken..], &mut rest, Stop::Anywhere);
            assert_eq!(step.map(|step| step.place), Ok(Place::End), "{level}");
            assert!(rest == bytes[produced..], "level {level}, from {produced}");
            count += 1;
        }
        assert!(out == bytes, "level {level}");
        assert!(count > 0, "level {level}: {count} boundaries");
    }
}

#[test]
fn input_and_output_may_end_anywhere() {
    let bytes = sample(20_000, 3);
    let pieces = [1, 2, 7, 31, 32, 33, 292, 293, 294, 1000, 1 << 20];
    for level in [0, 1, 6, 9] {
        let stream = deflated(&bytes, level);
        for input in pieces {
            for output in pieces {
                for stop in [Stop::Anywhere, Stop::AtBlocks] {
                    let decoded = decode(&stream, input, output, stop);
                    let is_right = decoded.is_ok_and(|(decoded, _)| decoded == bytes);
                    assert!(
                        is_right,
                        "level {level}, {input} in, {output} out, {stop:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn nothing_is_taken_that_belongs_to_what_follows() {
    let bytes = sample(5_000, 5);
    for level in [0, 1, 9] {
        let stream = deflated(&bytes, level);
        let followed = [&stream[..], &[0xff; 64]].concat();
        let mut out = vec![0; bytes.len() + 1000];
        let step = Inflate::new().run(&followed, &mut out, Stop::Anywhere);
        let expected = Step {
            consumed: stream.len(),
            produced: bytes.len(),
            place: Place::End,
        };
        assert_eq!(step, Ok(expected), "level {level}");
    }
}

#[test]
fn copies_of_all_kinds() {
    let window = sample(WINDOW_SIZE, 11);
    for distance in (1..300).chain([1023, 1024, 4097, 16_385, 24_577, 32_767, 32_768]) {
        for len in [3, 4, 10, 11, 18, 30, 66, 130, 257, 258] {
            let start = window.len() - distance;
            let copied: Vec<_> = (0..len).map(|at| window[start + at % distance]).collect();
            // With so much before it in the output, or all of it in the window.
            for before in [0, distance / 2, distance] {
                let (earlier, later) = window.split_at(window.len() - before);
                let stream = [stored(later), copy_of(len, distance), vec![0; 40]].concat();
                let mut out = vec![0; before + len + 400];
                let mut inflate = Inflate::resume((0, 0), earlier);
                let step = inflate.run(&stream, &mut out, Stop::Anywhere);
                let what = format!("{len} bytes from {distance} before, {before} of them new");
                assert_eq!(step.map(|step| step.place), Ok(Place::End), "{what}");
                assert!(out[before..before + len] == copied, "{what}");
            }
        }
    }
}

/// Stored, in a block that is not the last.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("it is short");
    [&[0], &len.to_le_bytes()[..], &(!len).to_le_bytes(), bytes].concat()
}

/// A block of one copy, in the fixed codes of RFC 1951 section 3.2.6.
fn copy_of(len: usize, distance: usize) -> Vec<u8> {
    let (length, len_extra) = symbol_of(Alphabet::Literals, 257..286, len);
    let (far, distance_extra) = symbol_of(Alphabet::Distances, 0..30, distance);
    let length = match length {
        ..280 => code_of(length - 256, 7),
        _ => code_of(0b1100_0000 + length - 280, 8),
    };
    bits(&[
        "1 10",
        &length,
        &len_extra,
        &code_of(far, 5),
        &distance_extra,
        "0000000",
    ])
}

/// The symbol that stands for a length or distance, and its extra bits.
fn symbol_of(alphabet: Alphabet, symbols: Range<u16>, wanted: usize) -> (usize, String) {
    let base = |&symbol: &u16| alphabet.entry(symbol).value() <= wanted;
    let symbol = symbols.rev().find(base).expect("it is one of them");
    let entry = alphabet.entry(symbol);
    let extra = number(wanted - entry.value(), entry.extra_bits() as usize);
    (symbol.into(), extra)
}

/// A code, its first bit first.
fn code_of(value: usize, count: usize) -> String {
    number(value, count).chars().rev().collect()
}

#[test]
fn what_is_not_deflate_is_refused() {
    let dynamic = |literals: usize, distances: usize, lens: &str| {
        let counts = [
            number(literals - 257, 5),
            number(distances - 1, 5),
            number(15, 4),
        ]
        .concat();
        bits(&["1 01", &counts, lens])
    };
    // In the order of RFC 1951 section 3.2.7.
    let all_of_three = "110".repeat(19);
    let rows: &[(&str, Vec<u8>)] = &[
        ("block of type 3", vec![0b111]),
        (
            "wrong complement of a length",
            vec![1, 1, 0, 0xff, 0xff, b'a'],
        ),
        ("287 codes", dynamic(287, 1, "")),
        ("31 distances", dynamic(257, 31, "")),
        ("too many codes of lengths", dynamic(257, 1, &all_of_three)),
        ("no codes of lengths", dynamic(257, 1, &"000".repeat(19))),
        (
            "a repetition of nothing",
            dynamic(257, 1, &["100", &"000".repeat(17), "100", "1"].concat()),
        ),
        (
            "a distance before the start",
            bits(&["1 10", "0000001", "00000", "0000000"]),
        ),
        (
            "distance symbol 30",
            bits(&["1 10", "00110000", "0000001", "11110", "0000000"]),
        ),
        (
            "length symbol 286",
            bits(&["1 10", "11000110", "00000", "0000000"]),
        ),
    ];
    for (name, stream) in rows {
        let padded = [&stream[..], &[0; 64]].concat();
        for output in [1, 1000] {
            let decoded = decode(&padded, 1 << 20, output, Stop::Anywhere);
            assert_eq!(decoded, Err(Corrupt), "{name}");
        }
        assert_eq!(reference(&padded), Err(Corrupt), "{name}");
    }
}

#[test]
fn what_is_refused_stays_refused() {
    // As many lengths of codes as there can be, each of one bit.
    let counts = [number(0, 5), number(0, 5), number(15, 4)].concat();
    let stream = bits(&["1 01", &counts, &"100".repeat(19), &"0".repeat(400)]);
    let mut inflate = Inflate::new();
    for _ in 0..3 {
        let step = inflate.run(&stream, &mut [0; 8], Stop::Anywhere);
        assert_eq!(step, Err(Corrupt));
    }
    inflate.reset();
    let step = inflate.run(TWO_BLOCKS, &mut [0; 8], Stop::Anywhere);
    assert_eq!(step.map(|step| step.place), Ok(Place::End));
}

/// Lengths of a complete code of `used` of `all` symbols, one of them `must`: of one bit if
/// that is the only one, none at all if there is none.
fn complete_code(
    (used, all): (usize, usize),
    must: usize,
    random: &mut impl FnMut(usize) -> usize,
) -> Vec<u8> {
    let mut leaves = vec![0_u8; used.min(1)];
    // Each time one of them becomes two: a long one in some codes, any in others.
    let is_deep = random(2) == 0;
    while leaves.len() < used {
        let open: Vec<_> = (0..leaves.len()).filter(|&at| leaves[at] < 15).collect();
        let deepest = open.iter().copied().max_by_key(|&at| leaves[at]);
        let any = open[random(open.len())];
        let at = deepest.filter(|_| is_deep).unwrap_or(any);
        leaves[at] += 1;
        leaves.push(leaves[at]);
    }
    if let [single] = &mut leaves[..] {
        *single = 1;
    }
    let mut lens = vec![0; all];
    let mut next = must;
    for len in leaves {
        lens[next] = len;
        while lens[next] > 0 && lens.contains(&0) {
            next = random(all);
        }
    }
    lens
}

/// The codes of these lengths, the first bit first, RFC 1951 section 3.2.2.
fn codes(lens: &[u8]) -> Vec<String> {
    let mut codes = vec![String::new(); lens.len()];
    let mut next = 0;
    for len in 1..=15 {
        next <<= 1;
        for at in (0..lens.len()).filter(|&at| lens[at] == len) {
            codes[at] = code_of(next, len.into());
            next += 1;
        }
    }
    codes
}

/// How the last block begins that has codes of these lengths, for literals and for distances.
fn described(lens: &[Vec<u8>; 2]) -> String {
    let counts = [
        number(lens[0].len() - 257, 5),
        number(lens[1].len() - 1, 5),
        number(15, 4),
    ];
    // Sixteen lengths of codes, of four bits each, and no repetitions.
    let mut text = ["101", &counts.concat(), &"000".repeat(3), &"001".repeat(16)].concat();
    for &len in lens.iter().flatten() {
        text += &code_of(len.into(), 4);
    }
    text
}

/// The last block, which describes its codes: of any lengths, with any symbols.
fn described_block(random: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
    let (literals, distances) = (257 + random(30), 1 + random(30));
    let lens = [
        complete_code((1 + random(literals), literals), 256, random),
        complete_code((random(distances + 1), distances), 0, random),
    ];
    let mut text = described(&lens);
    let [literals, distances] = lens.map(|lens| codes(&lens));
    let used = |codes: &[String]| -> Vec<usize> {
        (0..codes.len())
            .filter(|&at| !codes[at].is_empty())
            .collect()
    };
    let (symbols, far) = (used(&literals), used(&distances));
    for _ in 0..random(600) {
        let symbol = symbols[random(symbols.len())];
        if symbol == 256 || (symbol > 256 && far.is_empty()) {
            continue;
        }
        text += &literals[symbol];
        if symbol > 256 {
            let extra = |alphabet: Alphabet, symbol: usize| {
                let symbol = u16::try_from(symbol).expect("symbols are few");
                alphabet.entry(symbol).extra_bits() as usize
            };
            let count = extra(Alphabet::Literals, symbol);
            text += &number(random(1 << count), count);
            let distance = far[random(far.len())];
            text += &distances[distance];
            let count = extra(Alphabet::Distances, distance);
            text += &number(random(1 << count), count);
        }
    }
    bits(&[&text, &literals[256]])
}

/// No symbols take more bits than these: the longest literals that one look finds, then the
/// longest length and distance, each with the most extra bits.
#[test]
fn the_longest_codes_in_a_row() {
    let mut lens = [vec![0_u8; 286], vec![0; 30]];
    let chain = (1..).zip(&mut lens[0][..14]);
    chain.for_each(|(len, to)| *to = len);
    (lens[0][256], lens[0][284]) = (15, 15);
    let chain = (1..).zip(&mut lens[1][..14]);
    chain.for_each(|(len, to)| *to = len);
    (lens[1][28], lens[1][29]) = (15, 15);
    let mut text = described(&lens);
    let [literals, distances] = lens.map(|lens| codes(&lens));
    let mut random = random(3);
    for round in 0..600 {
        text += &literals[10].repeat(round % 4);
        text += &[&*literals[284], &number(random(31), 5)].concat();
        text += &[&*distances[29], &number(random(1 << 13), 13)].concat();
    }
    let block = bits(&[&text, &literals[256]]);
    let stream = [stored(&sample(WINDOW_SIZE, 13)), block].concat();
    let expected = reference(&stream);
    assert!(expected.is_ok());
    assert!(decode(&stream, 1 << 20, 1 << 20, Stop::AtBlocks) == expected);
}

#[test]
fn codes_of_all_kinds() {
    let mut random = random(1);
    let before = sample(WINDOW_SIZE, 13);
    let (mut sound, mut bad) = (0, 0);
    for round in 0..1500 {
        let mut stream = [stored(&before), described_block(&mut random)].concat();
        if round % 3 == 0 {
            let at = stream.len() - 1 - random((stream.len() - WINDOW_SIZE - 5).min(400));
            stream[at] ^= 1 << random(8);
        }
        let expected = reference(&stream);
        match expected {
            Ok(_) => sound += 1,
            Err(_) => bad += 1,
        }
        for (input, output) in [(1 << 20, 1 << 20), (1 + random(60), 1 + random(700))] {
            let decoded = decode(&stream, input, output, Stop::AtBlocks);
            assert!(
                decoded == expected,
                "round {round}, {input} in, {output} out"
            );
        }
    }
    assert!(sound > 900 && bad > 100, "{sound} sound, {bad} bad");
}

#[test]
fn reset_forgets_all() {
    let mut inflate = Inflate::new();
    let step = inflate.run(&TWO_BLOCKS[..3], &mut [0; 8], Stop::Anywhere);
    assert_eq!(step.map(|step| step.place), Ok(Place::Inside));
    for _ in 0..2 {
        inflate.reset();
        assert_eq!(inflate.window(), b"");
        let step = inflate.run(TWO_BLOCKS, &mut [0; 8], Stop::Anywhere);
        assert_eq!(step.map(|step| step.place), Ok(Place::End));
    }
}

proptest! {
    #[test]
    fn as_the_other_decoder(
        len in 0_usize..60_000,
        seed: u64,
        level in 0_u32..=9,
        changes in vec((0_usize..4000, any::<u8>()), 0..3),
        input in 1_usize..2000,
        output in 1_usize..5000,
    ) {
        let mut stream = deflated(&sample(len, seed), level);
        for (at, byte) in changes {
            let at = at % stream.len();
            stream[at] ^= byte;
        }
        prop_assert_eq!(decode(&stream, input, output, Stop::Anywhere), reference(&stream));
    }

    #[test]
    fn as_the_other_decoder_on_noise(stream in vec(any::<u8>(), 1..400), output in 1_usize..600) {
        prop_assert_eq!(decode(&stream, 1 << 20, output, Stop::AtBlocks), reference(&stream));
    }
}
