//! A real image in each of its compressions: what comes out of the mount is compared
//! with digests, with the decoded layers, and with what other tools make of it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ocifs::oci::Digest;
use serde_json::Value;

use crate::common::{
    Compression, Flavour, MountOptions, Need, Random, RealImage, TestLayout, TestMount, digest_of,
    has, real_image, run_ok, sha256_of_file, verify_layout,
};

const NEEDS: &[Need] = &[Need::Fuse, Need::RealImage];

/// Random reads for each flavour.
const READS: u64 = 1_000;
/// The longest of them, more than the kernel asks for at once.
const MAX_READ_LEN: u64 = 300_000;

/// One flavour, mounted, with its documents as the layout has them.
struct Mounted<'a> {
    image: &'a RealImage,
    flavour: &'a Flavour,
    mount: TestMount,
    /// Digest of the manifest, from index.json.
    digest: Digest,
    manifest: Value,
}

impl<'a> Mounted<'a> {
    fn start(image: &'a RealImage, flavour: &'a Flavour, memory: &str) -> Self {
        let index = json_of(&flavour.layout.join("index.json"));
        let digest = digest_of(&index["manifests"][0]);
        Self {
            image,
            flavour,
            mount: MountOptions::new(&flavour.layout).memory(memory).start(),
            manifest: json_of(&flavour.blob_path(&digest)),
            digest,
        }
    }

    /// The two ways to the image: by its ref, and by its digest.
    fn image_dirs(&self) -> [PathBuf; 2] {
        let digests = self.mount.join(".ocifs/digests");
        let by_digest = digests.join(self.digest.algorithm_name());
        [
            self.mount.join(self.image.ref_name()),
            by_digest.join(self.digest.encoded()),
        ]
    }

    fn tar_path(&self, number: usize) -> PathBuf {
        self.image_dirs()[0].join(format!("layers/{number:02}.tar"))
    }

    /// Compares the digest of what a path of the mount holds.
    fn assert_digest(&self, path: &Path, expected: &Digest) {
        let what = format!("{}: {}", self.flavour.name, path.display());
        match sha256_of_file(path) {
            Ok(actual) => assert_eq!(actual, *expected, "{what}"),
            Err(error) => panic!("{what}: {error}\n{}", self.mount.stderr()),
        }
    }
}

fn json_of(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_file_has_its_digest() {
    if !has("every_file_has_its_digest", NEEDS) {
        return;
    }
    let image = real_image();
    for flavour in &image.flavours {
        let mounted = Mounted::start(&image, flavour, "64MiB");
        for dir in mounted.image_dirs() {
            mounted.assert_digest(&dir.join("manifest.json"), &mounted.digest);
            let config = digest_of(&mounted.manifest["config"]);
            mounted.assert_digest(&dir.join("config.json"), &config);
            for (number, (diff_id, size)) in image.layers.iter().enumerate() {
                let tar = dir.join(format!("layers/{number:02}.tar"));
                mounted.assert_digest(&tar, diff_id);
                let stat = fs::metadata(&tar).expect("it was just read");
                assert_eq!(
                    stat.len(),
                    *size,
                    "{}: size of layer {number}",
                    flavour.name
                );
                assert_stored_blob(&mounted, &dir, number);
            }
        }
    }
}

/// The link beside a decoded layer leads to the stored blob.
fn assert_stored_blob(mounted: &Mounted<'_>, dir: &Path, number: usize) {
    let media_type = mounted.manifest["layers"][number]["mediaType"].as_str();
    let extension = match media_type.and_then(|media_type| media_type.split_once('+')) {
        Some((_, "gzip")) => "gz",
        Some((_, "zstd")) => "zst",
        _ => return, // Stored as it is: no link.
    };
    let link = dir.join(format!("layers/{number:02}.tar.{extension}"));
    let target = fs::read_link(&link)
        .unwrap_or_else(|error| panic!("{}: {}: {error}", mounted.flavour.name, link.display()));
    let digest = &mounted.flavour.blobs[number].0;
    assert!(target.ends_with(digest.encoded()), "{}", target.display());
    mounted.assert_digest(&link, digest);
}

#[test]
fn the_layout_inside_is_the_layout() {
    if !has("the_layout_inside_is_the_layout", NEEDS) {
        return;
    }
    let image = real_image();
    for flavour in &image.flavours {
        let mounted = Mounted::start(&image, flavour, "64MiB");
        verify_layout(&mounted.mount.join(".ocifs/layout"));
    }
}

#[test]
fn tar_lists_every_layer() {
    if !has("tar_lists_every_layer", NEEDS) {
        return;
    }
    let image = real_image();
    let list = |path: &Path| {
        run_ok(
            "tar",
            &["--list".as_ref(), "--file".as_ref(), path.as_os_str()],
        )
    };
    for flavour in &image.flavours {
        let mounted = Mounted::start(&image, flavour, "64MiB");
        for number in 0..image.layers.len() {
            // Not an `assert_eq` of the lists: its message would be megabytes.
            let is_same = list(&mounted.tar_path(number)) == list(&image.decoded_layer(number));
            assert!(is_same, "{}: entries of layer {number}", flavour.name);
        }
    }
}

#[test]
fn random_reads_equal_the_decoded_layer() {
    if !has("random_reads_equal_the_decoded_layer", NEEDS) {
        return;
    }
    let image = real_image();
    let mut random = Random::new();
    for flavour in &image.flavours {
        // Less memory than any of the large layers has.
        let mounted = Mounted::start(&image, flavour, "16MiB");
        let layers: Vec<_> = (0..image.layers.len())
            .filter(|number| image.layers[*number].1 > 32 << 20)
            .map(|number| {
                let open = |path: &Path| {
                    File::open(path).unwrap_or_else(|error| {
                        panic!("{}: {}: {error}", flavour.name, path.display())
                    })
                };
                let size = image.layers[number].1;
                let decoded = open(&image.decoded_layer(number));
                (number, size, open(&mounted.tar_path(number)), decoded)
            })
            .collect();
        assert!(!layers.is_empty(), "the image has large layers");
        for turn in 0..READS {
            let chosen = random.within(0..layers.len() as u64);
            let chosen = usize::try_from(chosen).expect("there are few layers");
            let (number, size, actual, expected) = &layers[chosen];
            // Every other read begins in the second half.
            let offset = random.within(turn % 2 * size / 2..*size);
            let len = random.within(1..MAX_READ_LEN);
            let what = format!("{}, layer {number}: {len} at {offset}", flavour.name);
            let actual =
                read_at(actual, offset, len).unwrap_or_else(|error| panic!("{what}: {error}"));
            let expected = read_at(expected, offset, len).expect("a plain file is readable");
            assert!(actual == expected, "{what}: wrong bytes");
        }
    }
}

/// Up to `len` bytes, fewer only at the end of the file.
fn read_at(file: &File, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).expect("a short read")];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
            0 => break,
            len => filled += len,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[test]
fn skopeo_reads_the_layout_inside() {
    const NAME: &str = "skopeo_reads_the_layout_inside";
    if !has(NAME, NEEDS) || !has(NAME, &[Need::Tool("skopeo")]) {
        return;
    }
    let image = real_image();
    for flavour in &image.flavours {
        let mounted = Mounted::start(&image, flavour, "64MiB");
        let layout = mounted.mount.join(".ocifs/layout");
        let from = format!("oci:{}:{}", layout.display(), image.ref_name());
        let raw = run_ok("skopeo", &["inspect", "--raw", &from]);
        assert_eq!(Digest::of(&raw), mounted.digest, "{}", flavour.name);
        let elsewhere = TestLayout::new();
        let to = format!("oci:{}:x", elsewhere.path().display());
        let options = [
            "-q",
            "--preserve-digests",
            "--dest-oci-accept-uncompressed-layers",
        ];
        run_ok(
            "skopeo",
            &["copy", options[0], options[1], options[2], &from, &to],
        );
        verify_layout(elsewhere.path());
        let copy = digest_of(&elsewhere.entries()[0]);
        assert_eq!(copy, mounted.digest, "{}", flavour.name);
    }
}

#[test]
fn a_large_layer_needs_little_memory() {
    const LIMIT: u64 = 200 << 20;
    if !has("a_large_layer_needs_little_memory", &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let layer = layout.layer_of_stream(Compression::Gzip, write_large_tar);
    assert!(layer.tar_size > 1 << 30, "the layer is large");
    layout.add_ref("large", &layout.image(std::slice::from_ref(&layer)));
    let mount = MountOptions::new(layout.path()).memory("64MiB").start();
    let digest = sha256_of_file(&mount.join("large/layers/00.tar"));
    assert_eq!(digest.expect("the layer is readable"), layer.diff_id);
    let peak = mount.peak_memory();
    assert!(peak < LIMIT, "the daemon had {} MiB", peak >> 20);
}

/// A tar with one file of 1 GiB: noise and its repetition, so that it compresses by half.
fn write_large_tar(out: &mut dyn Write) -> io::Result<()> {
    const HALF: usize = 16 << 10; // Within the reach of a deflate match.
    let blocks = (1_u64 << 30) / (2 * HALF as u64);
    let mut header = tar::Header::new_ustar();
    header.set_path("noise")?;
    header.set_size(1 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    out.write_all(header.as_bytes())?;
    let (mut random, mut block) = (Random::of_seed(1), [0; 2 * HALF]);
    for _ in 0..blocks {
        let (noise, repeated) = block.split_at_mut(HALF);
        random.fill(noise);
        repeated.copy_from_slice(noise);
        out.write_all(&block)?;
    }
    out.write_all(&[0; 1024])
}
