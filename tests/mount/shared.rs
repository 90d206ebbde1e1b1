//! A mount of a layout that has blobs in a shared directory: what is published, and is there
//! already, is only named.

use std::fs;
use std::path::Path;

use crate::common::{Compression, MountOptions, Need, TestLayout, TestMount, has, verify_layout};

/// Mounts `layout` with the blobs of `filled` beside it.
fn mount(layout: &TestLayout, filled: &TestLayout, arguments: &[&str]) -> TestMount {
    let options = MountOptions::new(layout.path()).arg("--shared-blobs");
    let options = options.arg(filled.path().join("blobs"));
    let options = arguments
        .iter()
        .fold(options, |o, argument| o.arg(argument));
    options.start()
}

fn count(layout: &TestLayout) -> usize {
    let blobs = fs::read_dir(layout.path().join("blobs/sha256"));
    blobs.expect("the layout has blobs").count()
}

#[test]
fn drops_and_sessions_only_name_what_is_shared() {
    if !has("drops_and_sessions_only_name_what_is_shared", &[Need::Fuse]) {
        return;
    }
    let filled = TestLayout::new();
    let layer = filled.layer(Compression::Gzip, &[("etc/motd", b"hello\n")]);
    let image = filled.image(&[layer]);
    filled.add_ref("app:1", &image);
    let manifest = fs::read(filled.blob_path(&image)).expect("it is there");
    let marker = fs::read(filled.path().join("oci-layout")).expect("it is there");
    let index = fs::read(filled.path().join("index.json")).expect("it is there");
    let rows: [(&[&str], usize); 2] = [(&[], 0), (&["--copy-shared"], 3)];
    for (arguments, written) in rows {
        let layout = TestLayout::new();
        let mount = mount(&layout, &filled, arguments);
        // A drop.
        fs::write(mount.join("incoming/dropped.json"), &manifest).expect("it is accepted");
        let motd = fs::read(mount.join("dropped/rootfs/etc/motd"));
        assert_eq!(motd.expect("it is there"), b"hello\n");
        assert_eq!(count(&layout), written, "{arguments:?}");
        let receipt = fs::read(mount.join("incoming/dropped.json"));
        assert_eq!(receipt.expect("it stays"), manifest);
        // A session without any blob of its own.
        let job = mount.join("incoming/job");
        fs::create_dir(&job).expect("sessions are made");
        fs::write(job.join("oci-layout"), &marker).expect("it is writable");
        fs::write(job.join("index.json"), &index).expect("it is writable");
        fs::rename(&job, mount.join("job")).expect("it is published");
        let read = fs::read(mount.join("app:1/manifest.json"));
        assert_eq!(read.expect("it is there"), manifest);
        // One that brings a blob of the shared directory once more.
        session_with(&mount, &filled, "again");
        // And one more name.
        std::os::unix::fs::symlink("app:1", mount.join("third")).expect("it is there");
        assert_eq!(count(&layout), written, "{arguments:?}");
        drop(mount);
        if written > 0 {
            verify_layout(layout.path());
        }
    }
}

/// Publishes all of a layout as a tool writes it, blobs and all.
fn session_with(mount: &TestMount, filled: &TestLayout, name: &str) {
    let job = mount.join("incoming").join(name);
    fs::create_dir_all(job.join("blobs/sha256")).expect("sessions are made");
    let copy = |from: &Path, to: &Path| {
        let bytes = fs::read(from).expect("it is there");
        fs::write(to, bytes).expect("it is writable");
    };
    let blobs = fs::read_dir(filled.path().join("blobs/sha256")).expect("it has blobs");
    for blob in blobs {
        let path = blob.expect("an entry is readable").path();
        let name = path.file_name().expect("it has a name");
        copy(&path, &job.join("blobs/sha256").join(name));
    }
    for file in ["oci-layout", "index.json"] {
        copy(&filled.path().join(file), &job.join(file));
    }
    fs::rename(&job, mount.join(name)).expect("it is published");
}
