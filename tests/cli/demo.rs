//! `demo`: the main job on a built-in layout.

use super::common::{Need, has};
use super::{ocifs, stderr, stdout};

#[test]
fn the_demo_shows_a_tour_and_leaves_nothing_behind() {
    if !has(
        "the_demo_shows_a_tour_and_leaves_nothing_behind",
        &[Need::Fuse],
    ) {
        return;
    }
    let output = ocifs(&["demo", "--exit"]);
    let tour = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    for step in [
        "$ ocifs mount",
        "manifest.json",
        "00.tar",
        "platforms",
        "usr/bin/hello",
    ] {
        assert!(tour.contains(step), "{step:?} is not in the tour:\n{tour}");
    }
    assert!(tour.lines().count() < 80, "a short tour");
    assert!(!tour.contains("\\u{"), "it is all printable:\n{tour}");
    let first = tour.lines().next().unwrap();
    let mountpoint = first.rsplit(' ').next().unwrap();
    assert!(
        !std::path::Path::new(mountpoint).exists(),
        "{mountpoint} is still there"
    );
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains(mountpoint),
        "{mountpoint} is still mounted"
    );
}
