//! `status` and `unmount`: mounts from outside.

use serde_json::Value;

use super::common::{Compression, Need, TestLayout, TestMount, has};
use super::{ocifs, stderr, stdout};

#[test]
fn a_mount_is_found_described_and_taken_down() {
    if !has("a_mount_is_found_described_and_taken_down", &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let image = layout.image(&[layout.layer(Compression::Gzip, &[("a", b"a")])]);
    layout.add_refs(["one", "two"], &image);
    let mount = TestMount::start(layout.path());
    let at = mount.path().to_str().unwrap();

    let output = ocifs(&["status", "--json", at]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = found.as_array().map_or(&found, |all| &all[0]);
    assert_eq!(found["status"]["pid"], u64::from(mount.pid()));
    assert_eq!(found["status"]["images"], 2);
    let all = ocifs(&["status"]);
    assert!(stdout(&all).contains(at), "{}", stderr(&all));

    let output = ocifs(&["unmount", at]);
    assert!(output.status.success(), "{}", stderr(&output));
    let output = ocifs(&["status", at]);
    assert_eq!(
        output.status.code(),
        Some(1),
        "nothing is mounted there any more"
    );
}
