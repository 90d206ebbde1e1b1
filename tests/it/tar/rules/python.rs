//! Python's tarfile.

use super::Rule;
use super::scene::{Scene, number_is_plain, pax_is_sound};
use crate::tar::differential::Row;

/// Its rules.
pub(in crate::tar) const RULES: &[Rule] = &[
    Rule {
        name: "a header that is none, or a cut, is an error here; Python takes it for the end",
        is_met: is_silent_end,
    },
    Rule {
        name: "a sum with anything but octal digits is wrong here, but not for Python",
        is_met: |scene| scene.is_wrong_sum() && !number_is_plain(&scene.block()[148..156]),
    },
    Rule {
        name: "data that is cut off: here the entry was handed out before",
        is_met: is_cut_data,
    },
    Rule {
        name: "Python refuses extension headers alone before the end, and cut padding",
        is_met: is_bare_extension,
    },
    Rule {
        name: "an unknown type is an error here (a volume label is skipped), a file for Python",
        is_met: |scene| scene.theirs_row.is_some_and(|row| row.letter == '?'),
    },
    Rule {
        name: "a link that cannot be: without target, to itself, to the root, to above it",
        is_met: |scene| scene.is_impossible_link(),
    },
    Rule {
        name: "a root that is no directory",
        is_met: |scene| scene.is_impossible_root(),
    },
    Rule {
        name: "a sparse file whose map Python does not check, or a version that it knows",
        is_met: |scene| scene.is_sparse(),
    },
    Rule {
        name: "a pax header that breaks its grammar",
        is_met: |scene| scene.refused("TAR_PAX") && !pax_is_sound(scene.body()),
    },
    Rule {
        name: "a number that Go does not read, or that no file system can have",
        is_met: |scene| scene.is_number(),
    },
    Rule {
        name: "a number before which a NUL stands: Python reads 0",
        is_met: |scene| scene.has_leading_nul(),
    },
    Rule {
        name: "Python adds the prefix in all formats, and never to GNU types",
        is_met: |scene| scene.paths_differ() && scene.header(345) != 0,
    },
    Rule {
        name: "a V7 header has no device numbers, but Python reads them all the same",
        is_met: is_device_of_v7,
    },
    Rule {
        name: "of several extension headers of one type the last counts; Python merges them",
        is_met: |scene| scene.extensions().len() > 1,
    },
    Rule {
        name: "an empty name in an extension header stands for none, but not for Python",
        is_met: |scene| scene.is_empty_name(),
    },
    Rule {
        name: "a long name ends where its size says; Python reads on up to a NUL",
        is_met: |scene| scene.is_long_name_size(),
    },
    Rule {
        name: "the oldest type is a directory if its whole name ends in a slash; for Python, \
               that in the header",
        is_met: is_old_directory,
    },
    Rule {
        name: "Python applies global pax headers",
        is_met: |scene| scene.global_before(),
    },
];

fn is_silent_end(scene: &Scene<'_>) -> bool {
    let codes = [
        "TAR_CHECKSUM",
        "TAR_NUMBER",
        "TAR_TRUNCATED",
        "TAR_ZERO_BLOCK",
    ];
    let is_refused = codes.into_iter().any(|code| scene.refused(code));
    scene.both_end() && scene.theirs.error.is_none() && is_refused
}

fn is_cut_data(scene: &Scene<'_>) -> bool {
    scene.theirs_row.is_none()
        && scene.theirs.error.is_some()
        && scene.ours.reading.error.as_deref() == Some("TAR_TRUNCATED")
        && scene.at + 1 == scene.ours.reading.rows.len()
}

fn is_bare_extension(scene: &Scene<'_>) -> bool {
    let is_padding_cut = !scene.bytes.len().is_multiple_of(512);
    scene.both_end() && scene.ours.error.is_none() && (is_padding_cut || scene.ends_in_extension())
}

fn is_device_of_v7(scene: &Scene<'_>) -> bool {
    scene.blocks().iter().any(|block| {
        let are_plain = [329..337, 337..345].map(|field| number_is_plain(&block[field]));
        !block[257..].starts_with(b"ustar") && are_plain.contains(&false)
    })
}

fn is_old_directory(scene: &Scene<'_>) -> bool {
    let differ = |(ours, theirs): (&Row, &Row)| ours.letter != theirs.letter;
    scene.header(156) == 0 && scene.rows().is_some_and(differ)
}
