//! What a power cut can leave of a disk: all of it where that is little, else a sample.

use std::collections::HashSet;

use super::{SimulatedDisk, Unsynced};

/// How often something is drawn in vain before it is taken that all was seen.
const PATIENCE: usize = 32;

/// A seeded generator of numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn fate(&mut self) -> Unsynced {
        match self.next() % 6 {
            0 => Unsynced::Lost,
            1 => Unsynced::Kept,
            2 => Unsynced::Half,
            3 => Unsynced::Zeros,
            _ => Unsynced::Torn(self.next()),
        }
    }
}

/// One choice of what is kept.
struct Choice {
    names: u64,
    contents: Vec<Unsynced>,
}

/// At most `count` states that a power cut can leave now, no two alike, and what each has
/// kept. All lost and all kept are the first of them. The same seed draws the same.
pub(crate) fn after_power_cut(
    disk: &SimulatedDisk,
    count: usize,
    seed: u64,
) -> Vec<(SimulatedDisk, String)> {
    let (changes, files) = disk.choices();
    assert!(changes < 64, "{changes} changes of names are unsynced");
    let all_names = (1 << changes) - 1;
    let mut random = Random(seed);
    let extremes = [(0, Unsynced::Lost), (all_names, Unsynced::Kept)];
    let extremes = extremes.map(|(names, fate)| Choice {
        names,
        contents: vec![fate; files],
    });
    let drawn = std::iter::repeat_with(move || Choice {
        names: random.next() & all_names,
        contents: (0..files).map(|_| random.fate()).collect(),
    });
    let (mut seen, mut states, mut vain) = (HashSet::new(), Vec::new(), 0);
    for Choice { names, contents } in extremes.into_iter().chain(drawn) {
        if states.len() >= count || vain >= PATIENCE {
            break;
        }
        let state = disk.after_power_cut(names, &contents);
        if seen.insert(state.fingerprint()) {
            let kept = format!("names {names:b} of {changes}, contents {contents:?}");
            states.push((state, kept));
            vain = 0;
        } else {
            vain += 1;
        }
    }
    states
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::store::disk::{self, Disk};

    /// The simulation itself: what was not synced is lost, or not, each by itself.
    #[test]
    fn a_file_is_lost_kept_cut_blank_or_torn() -> std::io::Result<()> {
        let disk = SimulatedDisk::default();
        let file = disk.create("a")?;
        file.write_at(b"content", 0)?;
        let states = after_power_cut(&disk, 100, 1);
        let seen: BTreeSet<_> = states
            .iter()
            .map(|(after, _)| after.read("a").ok())
            .collect();
        let expected = [
            None,
            Some(vec![]),
            Some(b"content".to_vec()),
            Some(b"con".to_vec()),
            Some(vec![0; 7]),
        ];
        assert_eq!(seen, BTreeSet::from(expected));
        assert_eq!(states.len(), 5, "no two are alike");
        disk::publish(&disk, &*file, disk::Publication::Rename("a"), "b")?;
        assert_eq!(disk.after_power_cut(0, &[]).read("b")?, b"content");
        assert_eq!(after_power_cut(&disk, 100, 1).len(), 1, "all is synced");
        Ok(())
    }

    #[test]
    fn a_large_file_is_torn_in_pieces() -> std::io::Result<()> {
        let disk = SimulatedDisk::default();
        let file = disk.create("a")?;
        file.write_at(&[1; 32], 0)?;
        disk.settle();
        file.write_at(&[2; 32], 0)?;
        let torn = disk
            .after_power_cut(0, &[Unsynced::Torn(0b0110)])
            .read("a")?;
        assert_eq!(torn, [[1; 8], [2; 8], [2; 8], [1; 8]].concat());
        Ok(())
    }

    #[test]
    fn what_could_not_be_synced_is_lost() -> std::io::Result<()> {
        let disk = SimulatedDisk::default();
        let file = disk.create("a")?;
        file.write_at(b"content", 0)?;
        disk.sync_directory(".")?;
        disk.expect(super::super::Trouble::Failure(0, libc::EIO));
        assert!(file.sync().is_err());
        file.sync()?;
        assert_eq!(disk.after_power_cut(0, &[Unsynced::Lost]).read("a")?, b"");
        Ok(())
    }
}
