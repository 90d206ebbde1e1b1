//! Why another reader reads an archive differently. Each rule stands for one of ours (see
//! the table in `src/tar/mod.rs`; Go's reading counts) and is decided by the bytes.

mod gnu_tar;
mod libarchive;
mod python;
mod scene;

use super::differential::{Ours, Reading};
use scene::Scene;

pub(super) use gnu_tar::RULES as GNU_TAR;
pub(super) use libarchive::RULES as LIBARCHIVE;
pub(super) use python::RULES as PYTHON;

/// A kind of difference.
pub(super) struct Rule {
    /// What it is called.
    pub(super) name: &'static str,
    /// Whether a difference is of this kind.
    is_met: fn(&Scene<'_>) -> bool,
}

/// What a comparison says.
pub(super) enum Verdict {
    Same,
    /// The rule that explains the difference.
    Rule(&'static str),
    /// What differs.
    Unknown(String),
}

/// Judges the first difference of two readings.
pub(super) fn judge(rules: &[Rule], ours: &Ours, theirs: &Reading, bytes: &[u8]) -> Verdict {
    let rows = ours.reading.rows.iter().zip(&theirs.rows);
    let at = rows.take_while(|(ours, theirs)| ours == theirs).count();
    let scene = Scene {
        ours,
        theirs,
        bytes,
        at,
        ours_row: ours.reading.rows.get(at),
        theirs_row: theirs.rows.get(at),
    };
    let is_same_end = ours.error.is_some() == theirs.error.is_some();
    if scene.both_end() && is_same_end {
        return Verdict::Same;
    }
    match rules.iter().find(|rule| (rule.is_met)(&scene)) {
        Some(rule) => Verdict::Rule(rule.name),
        None => Verdict::Unknown(format!(
            "row {at}: ours {:?} {:?}, theirs {:?} {:?}, header {}",
            scene.ours_row,
            ours.error,
            scene.theirs_row,
            theirs.error,
            scene.block().escape_ascii()
        )),
    }
}
