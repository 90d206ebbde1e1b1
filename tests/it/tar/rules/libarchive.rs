//! libarchive, which bsdtar is made of.

use super::Rule;
use super::scene::{Scene, pax_is_sound};
use crate::tar::differential::Row;

/// Its rules.
pub(in crate::tar) const RULES: &[Rule] = &[
    Rule {
        name: "a header with a wrong sum is an error here; libarchive looks for the next one",
        is_met: |scene| scene.is_wrong_sum(),
    },
    Rule {
        name: "one block of zeros is an error here if more follows, and the end for libarchive",
        is_met: |scene| scene.is_lone_zero_block(),
    },
    Rule {
        name: "a block that is cut: libarchive leaves out what there is of it",
        is_met: |scene| scene.is_cut_block(),
    },
    Rule {
        name: "data that is cut off: here the entry was handed out before",
        is_met: |scene| scene.is_cut_data(),
    },
    Rule {
        name: "libarchive refuses extension headers alone before the end",
        is_met: |scene| scene.is_bare_extension(),
    },
    Rule {
        name: "an unknown type is an error here, a file for libarchive",
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
        name: "a sparse file of an unknown version is an ordinary file here, not for libarchive",
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
        name: "an empty name in an extension header stands for none, but not for libarchive",
        is_met: |scene| scene.names_differ() && scene.is_empty_name(),
    },
    Rule {
        name: "a file whose name ends in a slash is a directory for libarchive",
        is_met: |scene| scene.is_trailing_slash(),
    },
    Rule {
        name: "links, devices and pipes have no data, but for libarchive as much as their size says",
        is_met: |scene| scene.special_with_size(),
    },
    Rule {
        name: "by the first header libarchive tells tars from other formats, and is stricter there",
        is_met: |scene| scene.theirs.rows.is_empty() && scene.they_say("Unrecognized archive"),
    },
    Rule {
        name: "a sum with something behind its NUL is sound here, and damage for libarchive",
        is_met: |scene| scene.they_say("Damaged") && has_text_behind_sum(scene),
    },
    Rule {
        name: "a sparse file's own name counts before a long name, but not for libarchive",
        is_met: |scene| scene.paths_differ() && scene.is_sparse() && !scene.long_names().is_empty(),
    },
    Rule {
        name: "libarchive takes every GNU header with a map for that of a sparse file",
        is_met: is_map_of_another_type,
    },
    Rule {
        name: "a number before which a NUL stands: libarchive reads 0",
        is_met: |scene| scene.has_leading_nul(),
    },
    Rule {
        name: "libarchive takes what stands behind a volume label for a header",
        is_met: |scene| scene.label_before(),
    },
    Rule {
        name: "digits behind the point of a time lead forwards for libarchive, also before 1970",
        is_met: is_time_before_1970,
    },
];

fn is_map_of_another_type(scene: &Scene<'_>) -> bool {
    let block = scene.block();
    let differ = |(ours, theirs): (&Row, &Row)| ours.size != theirs.size;
    let has_map = block[257..].starts_with(b"ustar  \0") && block[386..482] != [0; 96];
    scene.rows().is_some_and(differ) && has_map && block[156] != b'S'
}

fn has_text_behind_sum(scene: &Scene<'_>) -> bool {
    let is_known = |byte: &u8| matches!(byte, b'0'..=b'7' | b' ' | 0);
    let has_text = |block: &&[u8]| !block[148..156].iter().all(is_known);
    scene.ours_row.is_some() && scene.blocks().iter().any(has_text)
}

fn is_time_before_1970(scene: &Scene<'_>) -> bool {
    let is_it = |(ours, theirs): (&Row, &Row)| {
        let moved = Row {
            mtime: ours.mtime + 1,
            ..ours.clone()
        };
        ours.mtime < 0 && moved == *theirs
    };
    scene.rows().is_some_and(is_it) && scene.region_has(b"mtime=-")
}
