//! Where the bytes of a regular file are.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{SeekFrom, Stat, seek};
use rustix::io::Errno;

use crate::tar::Region;

/// What a hole must save at least, in bytes: the headers of a sparse file, about.
const LEAST_SAVED: u64 = 1024;

/// What a region costs in the map, in bytes: two long numbers.
const REGION_COST: u64 = 40;

/// The parts of a file that hold data, if it is worth while to leave the others out;
/// `None` if it is stored whole. There are `max` at most: where there are more, the
/// smallest holes are filled.
pub(super) fn regions(file: impl AsFd, stat: &Stat, max: u64) -> io::Result<Option<Vec<Region>>> {
    let size = size(stat);
    // The blocks that a file takes are no hint: those of its attributes count as well.
    if size <= LEAST_SAVED {
        return Ok(None);
    }
    let mut found = Regions::new(max);
    let mut at = 0;
    // Nearly every file ends with its first region: two calls.
    while at < size {
        let data = match seek(&file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            // A file system that does not know.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if data >= size {
            break;
        }
        let hole = seek(&file, SeekFrom::Hole(data))?.min(size);
        if hole <= data {
            break;
        }
        found.push(data, hole);
        at = hole;
    }
    let regions = found.regions;
    let stored: u64 = regions.iter().map(|region| region.len).sum();
    let cost = LEAST_SAVED + REGION_COST * regions.len() as u64;
    Ok((stored + cost < size).then_some(regions))
}

/// The size of a file in bytes.
pub(super) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Regions of which there are never too many.
struct Regions {
    regions: Vec<Region>,
    max: usize,
    /// Holes below this size are filled, in bytes.
    least_hole: u64,
}

impl Regions {
    fn new(max: u64) -> Self {
        // One is left for the end of the file.
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        Self {
            regions: Vec::new(),
            max: max.saturating_sub(1).max(1),
            least_hole: 1,
        }
    }

    fn push(&mut self, start: u64, end: u64) {
        self.join(start, end);
        while self.regions.len() > self.max {
            self.least_hole *= 2;
            for region in std::mem::take(&mut self.regions) {
                self.join(region.file_offset, region.file_offset + region.len);
            }
        }
    }

    /// Adds a region, to the last one if the hole between is too small.
    fn join(&mut self, start: u64, end: u64) {
        if let Some(last) = self.regions.last_mut() {
            let last_end = last.file_offset + last.len;
            if start - last_end < self.least_hole {
                last.len = end - last.file_offset;
                return;
            }
        }
        self.regions.push(Region {
            file_offset: start,
            len: end - start,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_regions_lose_their_smallest_holes() {
        type Row = (
            &'static str,
            u64,
            &'static [(u64, u64)],
            &'static [(u64, u64)],
        );
        let rows: &[Row] = &[
            ("none", 4, &[], &[]),
            ("as many as fit", 3, &[(0, 1), (5, 6)], &[(0, 1), (5, 6)]),
            (
                "one too many",
                3,
                &[(0, 1), (5, 6), (100, 101)],
                &[(0, 6), (100, 101)],
            ),
            ("one alone", 1, &[(0, 1), (1000, 1001)], &[(0, 1001)]),
            (
                "neighbours",
                9,
                &[(0, 1), (1, 2), (3, 4)],
                &[(0, 2), (3, 4)],
            ),
        ];
        for (name, max, pushed, expected) in rows {
            let mut regions = Regions::new(*max);
            for (start, end) in *pushed {
                regions.push(*start, *end);
            }
            let found = regions.regions.iter();
            let found: Vec<_> = found
                .map(|region| (region.file_offset, region.file_offset + region.len))
                .collect();
            assert_eq!(found, *expected, "{name}");
        }
    }
}
