//! What happens to a mount while blobs appear, are swapped, or are overwritten.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use ocifs::oci::Digest;
use rustix::fs::{Advice, fadvise};
use serde_json::json;

use crate::common::{
    Compression, Damage, Layer, MountOptions, Need, Random, TestLayout, TestMount, digest_of, has,
    tar_of,
};
use crate::patience::until;

/// What the contract allows where no notice comes.
const SECOND: Duration = Duration::from_secs(1);
/// For what must come true at all, whatever else the machine has to do.
const AT_ALL: Duration = Duration::from_secs(5);

#[test]
fn b11_a_missing_blob_that_appears() {
    if !has("b11_a_missing_blob_that_appears", &[Need::Fuse]) {
        return;
    }
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let layout = TestLayout::new();
        let tar = tar_of(&[("etc/motd", b"hello\n")]);
        let layer = layout.layer_of_tar(compression, &tar);
        let image = layout.image(std::slice::from_ref(&layer));
        layout.add_ref("app", &image);
        let away = layout.path().join("away");
        let path = layout.blob_path(&layer.descriptor);
        fs::rename(&path, &away).expect("a blob can be moved");
        let mount = TestMount::start(layout.path());
        let shown = mount.join("app/layers/00.tar");
        let stat = fs::metadata(&shown).expect("it is listed");
        assert_eq!(
            Some(stat.len()),
            layer.descriptor["size"].as_u64(),
            "the descriptor's size"
        );
        let errno = fs::read(&shown).expect_err("it is missing").raw_os_error();
        assert_eq!(errno, Some(libc::ENODATA), "{compression:?}");
        fs::rename(&away, &path).expect("a blob can be moved");
        until(SECOND, "the layer is there", || {
            fs::read(&shown).is_ok_and(|bytes| bytes == tar)
        });
        let stat = fs::metadata(&shown).expect("it is there");
        assert_eq!(stat.len(), layer.tar_size, "{compression:?}");

        // The manifest, which decides what the directory holds.
        let other = layout.image_with(&[layer], &json!({"author": "x"}));
        let path = layout.blob_path(&other);
        fs::rename(&path, &away).expect("a blob can be moved");
        layout.add_ref("other", &other);
        until(AT_ALL, "the ref is there", || mount.join("other").exists());
        let listed = fs::read_dir(mount.join("other")).expect("listing never fails");
        let listed: Vec<_> = listed
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(listed, ["manifest.json"]);
        let errno = fs::read(mount.join("other/manifest.json")).expect_err("it is missing");
        assert_eq!(errno.raw_os_error(), Some(libc::ENODATA));
        fs::rename(&away, &path).expect("a blob can be moved");
        until(SECOND, "the image is there", || {
            fs::read(mount.join("other/layers/00.tar")).is_ok_and(|bytes| bytes == tar)
        });
        let digest = Digest::of(&fs::read(mount.join("other/manifest.json")).expect("it is there"));
        assert_eq!(digest, digest_of(&other), "{compression:?}");
    }
}

/// A mounted image whose layer is larger than what the daemon may keep of it.
struct Large {
    layout: TestLayout,
    layer: Layer,
    tar: Vec<u8>,
    mount: TestMount,
}

impl Large {
    const SIZE: usize = 8 << 20;
    const READ: usize = 8 << 10;

    fn start(compression: Compression) -> Self {
        let layout = TestLayout::new();
        let mut noise = vec![0; Self::SIZE];
        Random::of_seed(5).fill(&mut noise);
        let tar = tar_of(&[("noise", &noise)]);
        let layer = layout.layer_of_tar(compression, &tar);
        layout.add_ref("app", &layout.image(std::slice::from_ref(&layer)));
        let mount = MountOptions::new(layout.path()).memory("1MiB").start();
        Self {
            layout,
            layer,
            tar,
            mount,
        }
    }

    fn blob(&self) -> PathBuf {
        self.layout.blob_path(&self.layer.descriptor)
    }

    fn open(&self) -> io::Result<File> {
        File::open(self.mount.join("app/layers/00.tar"))
    }

    /// Reads at many places, from the daemon; how many reads gave right bytes, and how
    /// many EBADMSG. Anything else fails the test.
    fn read(&self, file: &File, what: &str) -> (usize, usize) {
        let mut random = Random::of_seed(6);
        let (mut right, mut refused) = (0, 0);
        for _ in 0..200 {
            fadvise(file, 0, None, Advice::DontNeed).expect("a cache can be dropped");
            let offset = random.within(0..(self.tar.len() - Self::READ) as u64);
            let start = usize::try_from(offset).expect("it is in memory");
            let mut bytes = vec![0; Self::READ];
            match file.read_exact_at(&mut bytes, offset) {
                Ok(()) => {
                    let expected = &self.tar[start..start + Self::READ];
                    assert!(bytes == expected, "{what}: wrong bytes at {offset}");
                    right += 1;
                }
                Err(error) if error.raw_os_error() == Some(libc::EBADMSG) => refused += 1,
                Err(error) => panic!("{what}: at {offset}: {error}"),
            }
        }
        (right, refused)
    }
}

const COMPRESSIONS: [Compression; 4] = [
    Compression::Gzip,
    Compression::GzipMembers(1 << 20),
    Compression::Zstd,
    Compression::ZstdFrames(1 << 20),
];

#[test]
fn b5_a_blob_swapped_by_rename() {
    if !has("b5_a_blob_swapped_by_rename", &[Need::Fuse]) {
        return;
    }
    for compression in [Compression::None].into_iter().chain(COMPRESSIONS) {
        let what = format!("{compression:?}");
        let large = Large::start(compression);
        let file = large.open().expect("the layer is sound");
        let (right, refused) = large.read(&file, &what);
        assert_eq!((right, refused), (200, 0), "{what}: before");
        let (blob, right_one) = (large.blob(), large.layout.path().join("right"));
        let swapped = large.layout.path().join("swapped");
        fs::copy(&blob, &swapped).expect("a blob can be copied");
        fs::rename(&blob, &right_one).expect("a blob can be moved");
        fs::rename(&swapped, &blob).expect("a blob can be moved");
        large
            .layout
            .damage(&large.layer.descriptor, Damage::FlippedBit);
        let (right, refused) = large.read(&file, &what);
        assert_eq!((right, refused), (200, 0), "{what}: an open handle");
        let error = large.open().expect_err("the new file is damaged");
        assert_eq!(error.raw_os_error(), Some(libc::EBADMSG), "{what}: {error}");
        let (right, refused) = large.read(&file, &what);
        assert_eq!((right, refused), (200, 0), "{what}: the handle after that");
        fs::rename(&right_one, &blob).expect("a blob can be moved");
        let mended = large
            .open()
            .unwrap_or_else(|error| panic!("{what}: mended: {error}"));
        assert_eq!(large.read(&mended, &what), (200, 0), "{what}: mended");
    }
}

#[test]
fn an_older_damaged_file_is_handed_to_nobody_else() {
    const NAME: &str = "an_older_damaged_file_is_handed_to_nobody_else";
    if !has(NAME, &[Need::Fuse]) {
        return;
    }
    let large = Large::start(Compression::None);
    let (blob, mended) = (large.blob(), large.layout.path().join("mended"));
    fs::copy(&blob, &mended).expect("a blob can be copied");
    // The kernel may read this very file itself as long as somebody has it open.
    let held = large.open().expect("the layer is sound");
    assert_eq!(large.read(&held, "before"), (200, 0));
    large
        .layout
        .damage(&large.layer.descriptor, Damage::FlippedBit);
    fs::rename(&mended, &blob).expect("a blob can be moved");
    let read_all = |mut file: File| {
        fadvise(&file, 0, None, Advice::DontNeed).expect("a cache can be dropped");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map(|_| bytes)
    };
    for turn in 0..3 {
        match large.open().and_then(read_all) {
            Ok(bytes) => assert!(bytes == large.tar, "turn {turn}: wrong bytes"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EBADMSG), "{error}"),
        }
    }
    drop(held);
    // The kernel tells of the last close when it finds the time.
    until(AT_ALL, "the new file is served", || large.open().is_ok());
    let bytes = large.open().and_then(read_all).expect("it is mended");
    assert!(bytes == large.tar, "wrong bytes after it was mended");
}

#[test]
fn b6_a_blob_overwritten_while_it_is_open() {
    if !has("b6_a_blob_overwritten_while_it_is_open", &[Need::Fuse]) {
        return;
    }
    let mut noise = vec![0; 16 << 10];
    Random::of_seed(7).fill(&mut noise);
    for compression in COMPRESSIONS {
        let what = format!("{compression:?}");
        let large = Large::start(compression);
        let file = large.open().expect("the layer is sound");
        assert_eq!(large.read(&file, &what), (200, 0), "{what}: before");
        let blob = File::options().write(true).open(large.blob());
        let blob = blob.expect("a blob is writable");
        let size = blob.metadata().expect("it is open").len();
        // Its middle, while it is read.
        let overwritten = thread::scope(|scope| {
            let overwrite = scope.spawn(|| blob.write_all_at(&noise, size / 2));
            large.read(&file, &what);
            overwrite.join().expect("it does not panic")
        });
        overwritten.expect("a blob is writable");
        let (right, refused) = large.read(&file, &what);
        assert!(
            refused > 0,
            "{what}: the damage was not met in {right} reads"
        );
        let error = large.open().expect_err("the file is damaged");
        assert_eq!(error.raw_os_error(), Some(libc::EBADMSG), "{what}: {error}");
        // All of it, and then cut short.
        for offset in (0..size).step_by(noise.len()) {
            blob.write_all_at(&noise, offset)
                .expect("a blob is writable");
        }
        large.read(&file, &format!("{what}: nothing left"));
        blob.set_len(size / 3).expect("a blob is writable");
        large.read(&file, &format!("{what}: cut short"));
        assert!(
            large.mount.join("app/manifest.json").exists(),
            "{what}: it lives"
        );
    }
}

#[test]
fn a_config_that_comes_back_is_heeded() {
    if !has("a_config_that_comes_back_is_heeded", &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let layer = layout.layer(Compression::Gzip, &[("a", b"a")]);
    let wrong = format!("sha256:{}", "0".repeat(64));
    let image = layout.image_with(
        std::slice::from_ref(&layer),
        &json!({"rootfs": {"type": "layers", "diff_ids": [wrong]}}),
    );
    layout.add_ref("app", &image);
    let manifest = fs::read(layout.blob_path(&image)).expect("it is there");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("it is JSON");
    let config = layout.blob_path(&manifest["config"]);
    let away = layout.path().join("away");
    fs::rename(&config, &away).expect("a blob can be moved");
    let mount = TestMount::start(layout.path());
    let tar = mount.join("app/layers/00.tar");
    fs::read(&tar).expect("nobody can say what its DiffID should be");
    fs::rename(&away, &config).expect("a blob can be moved");
    let errno = fs::read(&tar)
        .expect_err("the config says another DiffID")
        .raw_os_error();
    assert_eq!(errno, Some(libc::EBADMSG));
}

#[test]
fn damage_found_while_reading_is_told() {
    if !has("damage_found_while_reading_is_told", &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let mut noise = vec![0; 4 << 20];
    Random::of_seed(4).fill(&mut noise);
    let layer = layout.layer(Compression::Gzip, &[("noise", &noise)]);
    layout.add_ref("app", &layout.image(std::slice::from_ref(&layer)));
    let mount = MountOptions::new(layout.path()).memory("0").start();
    let shown = mount.join("app/layers/00.tar");
    let file = File::open(&shown).expect("it is sound");
    let path = layout.blob_path(&layer.descriptor);
    let blob = File::options().write(true).open(path).expect("it is ours");
    blob.write_all_at(&[0; 1 << 16], 2 << 20)
        .expect("it is ours");
    let mut bytes = vec![0; 1 << 16];
    let errno = (0..60)
        .map(|at| file.read_exact_at(&mut bytes, at << 16))
        .find_map(Result::err)
        .and_then(|error| error.raw_os_error());
    assert_eq!(errno, Some(libc::EBADMSG));
    let status = fs::read_to_string(mount.join(".ocifs/status.json")).expect("it is made");
    let status: serde_json::Value = serde_json::from_str(&status).expect("it is JSON");
    let errors = status["errors"].as_array().expect("a list");
    assert_eq!(errors.len(), 1, "{status}");
}

#[test]
fn images_by_digest_go_with_the_index() {
    if !has("images_by_digest_go_with_the_index", &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let image = layout.image(&[layout.layer(Compression::None, &[("a", b"a")])]);
    layout.add_ref("app", &image);
    let mount = TestMount::start(layout.path());
    let encoded = digest_of(&image).encoded().to_owned();
    let shown = mount.join(format!(".ocifs/digests/sha256/{encoded}/manifest.json"));
    fs::read(&shown).expect("it is reachable");
    layout.write_entries(&[]);
    until(AT_ALL, "it is not reachable any more", || !shown.exists());
}
