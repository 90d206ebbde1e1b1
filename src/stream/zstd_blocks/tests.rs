use super::*;
use crate::stream::error::Error;
use crate::stream::input::Direct;
use crate::stream::offset::BlobOffset;
use crate::stream::zstd::{Decoder, Event, FrameHeader};

/// Text with repetitions from near and far, noise between.
fn sample(len: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let mut bytes: Vec<u8> = Vec::new();
    while bytes.len() < len {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let run = 1 + (state >> 20) as usize % 300;
        if state >> 30 == 0 || bytes.len() < run {
            bytes.extend(state.to_le_bytes().repeat(run / 4 + 1));
            bytes.extend(format!("{:x} ", state / 1000).bytes());
        } else {
            let start = (state >> 8) as usize % (bytes.len() - run + 1);
            bytes.extend_from_within(start..start + run);
        }
    }
    bytes.truncate(len);
    bytes
}

/// Sizes of the decoded blocks, by a decoder.
fn decoded_blocks(frame: &Vec<u8>) -> Result<Vec<usize>, Error> {
    let mut decoder = Decoder::at(BlobOffset(0), u64::MAX);
    let mut chunks = Direct(frame);
    let mut out = vec![0; MAX_BLOCK_SIZE + 1];
    let mut sizes = vec![0];
    loop {
        let (len, event) = decoder.advance(&mut chunks, &mut out)?;
        if let Some(last) = sizes.last_mut() {
            *last += len;
        }
        match event {
            Event::Boundary(_) => sizes.push(0),
            Event::End => return Ok(sizes),
            Event::Pause | Event::FrameStart(_) | Event::FrameEnd => {}
        }
    }
}

/// Sizes of the decoded blocks, by the walker. Every match must be of bytes that are equal.
fn walked_blocks(frame: &[u8], expected: &[u8]) -> Result<Vec<usize>, Unparsed> {
    let header = FrameHeader::parse(frame).ok_or(Unparsed("header"))?;
    let padded = [frame, &[0; PADDING]].concat();
    let mut at = header.len;
    let mut position = 0;
    let mut walker = Walker::new();
    let mut sizes = Vec::new();
    loop {
        let bytes = &padded[at..];
        let mut matches = Vec::new();
        let block = walker.block(bytes, position as u64, |source, len| {
            matches.push((source, len));
        })?;
        for (source, len) in matches {
            let end = usize::try_from(source + len).map_err(|_| Unparsed("overflow"))?;
            if end > expected.len() {
                return Err(Unparsed("match beyond the end"));
            }
        }
        sizes.push(block.decoded_len);
        position += block.decoded_len;
        let head = BlockHeader::parse(*bytes.first_chunk().ok_or(Unparsed("cut"))?);
        at += HEADER_LEN + head.body_len();
        if block.is_last {
            return Ok(sizes);
        }
    }
}

#[test]
fn blocks_have_the_sizes_that_a_decoder_finds() {
    let bytes = sample(900_000);
    for level in [-7, -1, 1, 2, 3, 5, 7, 9, 13, 16, 19, 22] {
        let frame = zstd::bulk::compress(&bytes, level).expect("memory is there");
        let decoded = decoded_blocks(&frame).expect("the frame is good");
        let walked = walked_blocks(&frame, &bytes);
        assert_eq!(walked, Ok(decoded), "level {level}");
    }
}

#[test]
fn changed_frames_are_walked_or_refused() {
    let bytes = sample(60_000);
    let frame = zstd::bulk::compress(&bytes, 5).expect("memory is there");
    let mut state = 99_u32;
    for _ in 0..3000 {
        let mut bad = frame.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = 8 + (state >> 8) as usize % (bad.len() - 8);
            bad[at] ^= 1 << (state & 7);
        }
        // Blocks of changed length may run beyond the end.
        bad.extend_from_slice(&[0; MAX_BLOCK_SIZE * 4]);
        let _ = walked_blocks(&bad, &bytes);
    }
}
