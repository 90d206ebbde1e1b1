//! One small image, through its ref.

use std::fs;

use ocifs::oci::Digest;

use crate::common::{
    Compression, Need, TestLayout, TestMount, digest_of, has, run_ok, tar_of, verify_layout,
};

const FILES: &[(&str, &[u8])] = &[("etc/", b""), ("etc/motd", b"hello\n")];

#[test]
fn an_image_directory_has_the_exact_bytes() {
    if !has("an_image_directory_has_the_exact_bytes", &[Need::Fuse]) {
        return;
    }
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let layout = TestLayout::new();
        let image = layout.image(&[layout.layer(compression, FILES)]);
        layout.add_ref("app:1", &image);
        let mount = TestMount::start(layout.path());
        let read = |path: &str| {
            let path = mount.join(path);
            fs::read(&path).unwrap_or_else(|error| {
                panic!(
                    "{compression:?}: {}: {error}\n{}",
                    path.display(),
                    mount.stderr()
                )
            })
        };
        let manifest = read("app:1/manifest.json");
        assert_eq!(Digest::of(&manifest), digest_of(&image), "{compression:?}");
        assert_eq!(
            read("app:1/layers/00.tar"),
            tar_of(FILES),
            "{compression:?}"
        );
        assert!(mount.unmount().success(), "{compression:?}");
        verify_layout(layout.path());
    }
}

#[test]
fn a_ref_that_is_added_is_seen() {
    if !has("a_ref_that_is_added_is_seen", &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let image = layout.image(&[layout.layer(Compression::Gzip, FILES)]);
    layout.add_ref("first", &image);
    let mount = TestMount::start(layout.path());
    let listing = || String::from_utf8_lossy(&run_ok("ls", &[mount.path()])).into_owned();
    assert!(listing().contains("first\n"), "{}", listing());
    layout.add_ref("second", &image);
    // What the contract allows for a change by another tool.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(run_ok("ls", &[mount.path()]), b"first\nincoming\nsecond\n");
}
