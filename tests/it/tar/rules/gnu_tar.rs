//! GNU tar, which says what is wrong and goes on where it can.

use super::Rule;
use super::scene::{Scene, pax_is_sound};

/// Its rules.
pub(in crate::tar) const RULES: &[Rule] = &[
    Rule {
        name: "an archive without a single byte has no entries here, and is none for GNU tar",
        is_met: |scene| scene.bytes.is_empty(),
    },
    Rule {
        name: "a header with a wrong sum is an error here; GNU tar looks for the next one",
        is_met: |scene| scene.is_wrong_sum(),
    },
    Rule {
        name: "one block of zeros is an error here if more follows, and the end for GNU tar",
        is_met: |scene| scene.is_lone_zero_block(),
    },
    Rule {
        name: "a block that is cut: GNU tar leaves out what there is of it",
        is_met: |scene| scene.is_cut_block(),
    },
    Rule {
        name: "data that is cut off: here the entry was handed out before",
        is_met: |scene| scene.is_cut_data(),
    },
    Rule {
        name: "an unknown type is an error here, a file for GNU tar",
        is_met: |scene| scene.refused("TAR_TYPE") && scene.theirs_row.is_some(),
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
        name: "GNU tar begins each region of a sparse file at a block, Go where the last ended",
        is_met: is_region_within_block,
    },
    Rule {
        name: "a sparse file of an unknown version is an ordinary file here, not for GNU tar",
        is_met: |scene| scene.is_unknown_version(),
    },
    Rule {
        name: "a sparse file whose map or header makes no sense",
        is_met: |scene| scene.is_wrong_map(),
    },
    Rule {
        name: "a GNU header with a prefix where times should be: some versions of Go wrote it",
        is_met: |scene| scene.is_stray_prefix(),
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
        name: "a plus sign before a number of a pax header, as Go reads it",
        is_met: |scene| scene.is_plus(),
    },
    Rule {
        name: "an empty name in an extension header stands for none, but not for GNU tar",
        is_met: |scene| scene.names_differ() && scene.is_empty_name(),
    },
    Rule {
        name: "a long name ends where its size says; GNU tar reads on up to a NUL",
        is_met: |scene| scene.names_differ() && scene.is_long_name_size(),
    },
    Rule {
        name: "a file whose name ends in a slash is a directory for GNU tar",
        is_met: |scene| scene.is_trailing_slash(),
    },
    Rule {
        name: "the oldest type with a slash as its name is the root here, and a file for GNU tar",
        is_met: |scene| scene.is_slash(),
    },
    Rule {
        name: "links, devices and pipes have no data, but for GNU tar as much as their size says",
        is_met: |scene| scene.special_with_size(),
    },
    Rule {
        name: "GNU tar judges a number that a pax header replaces",
        is_met: |scene| {
            scene.both_end() && scene.ours.error.is_none() && scene.they_say("is out of")
        },
    },
    Rule {
        name: "GNU tar applies global pax headers",
        is_met: |scene| scene.global_before(),
    },
];

/// All regions that GNU tar itself makes have the length of whole blocks, but for the last:
/// both readings of them are the same.
fn is_region_within_block(scene: &Scene<'_>) -> bool {
    scene.is_sparse() && scene.only_contents_differ()
}
