//! A layout with one image, and looks at what is mounted.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{Compression, Layer, TestLayout, TestMount, tar_of};

/// A layout with one image.
pub(crate) struct Sample {
    pub(crate) layout: TestLayout,
    pub(crate) image: Value,
    pub(crate) layer: Layer,
    pub(crate) tar: Vec<u8>,
}

impl Sample {
    pub(crate) fn new() -> Self {
        // More than the kernel reads ahead, so that a part is asked for later.
        let tar = tar_of(&[
            ("etc/", b""),
            ("etc/large", &b"0123456789abcdef".repeat(1 << 18)),
        ]);
        let layout = TestLayout::new();
        let layer = layout.layer_of_tar(Compression::Gzip, &tar);
        let image = layout.image(std::slice::from_ref(&layer));
        layout.add_ref("app", &image);
        Self {
            layout,
            image,
            layer,
            tar,
        }
    }

    pub(crate) fn start(&self) -> TestMount {
        TestMount::start(self.layout.path())
    }
}

/// The line of the mount table for a mount point.
pub(crate) fn mount_line(mountpoint: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("there is a mount table");
    let mut lines = table.lines().map(str::to_owned);
    lines.find(|line| line.split(' ').nth(4).map(Path::new) == Some(mountpoint))
}

/// The names in a directory, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}
