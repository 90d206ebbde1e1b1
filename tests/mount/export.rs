//! Images as archives through a mount: their bytes, what other tools make of them, and what
//! happens where blobs are missing, damaged, or come and go.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{
    Compression, Damage, Flavour, Layer, MountOptions, Need, Random, TestLayout, TestMount,
    digest_of, has, host_architecture, real_image, run_ok, size_of, verify_layout,
};
use crate::patience::until;

const OCI: &str = "export/oci-archive.tar";
const DOCKER: &str = "export/docker-archive.tar";

const SCHEMA2: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What the contract allows where no notice comes.
const SECOND: Duration = Duration::from_secs(1);

fn path_text(path: &Path) -> String {
    path.to_str().expect("a temporary path is text").to_owned()
}

fn layers(layout: &TestLayout) -> Vec<Layer> {
    let mut noise = vec![0; 300_000];
    Random::of_seed(3).fill(&mut noise);
    let files: [(&str, &[u8]); 3] = [("etc/", b""), ("etc/motd", b"hello\n"), ("noise", &noise)];
    [Compression::Gzip, Compression::None, Compression::Zstd]
        .map(|compression| layout.layer(compression, &files))
        .to_vec()
}

fn host() -> String {
    format!("linux/{}", host_architecture())
}

/// The image directory of `descriptor` whose path has no colon.
fn by_digest(mount: &TestMount, descriptor: &Value) -> PathBuf {
    let digest = digest_of(descriptor);
    let digests = mount.join(".ocifs/digests");
    digests.join(digest.algorithm_name()).join(digest.encoded())
}

fn errno(path: &Path) -> Option<i32> {
    fs::read(path).err().and_then(|error| error.raw_os_error())
}

/// The archive that the command line makes of it.
fn exported(layout: &TestLayout, reference: &str, format: &str) -> Vec<u8> {
    let layout = path_text(layout.path());
    let arguments = ["export", &layout, reference, "--format", format, "-o", "-"];
    run_ok(env!("CARGO_BIN_EXE_ocifs"), &arguments)
}

#[test]
fn the_files_are_what_the_command_writes() {
    if !has("the_files_are_what_the_command_writes", &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let layers = layers(&layout);
    let image = layout.image(&layers);
    layout.add_ref("app:1", &image);
    layout.add_ref("org/other:2", &image);
    let other = layout.image_for("linux/s390x", &layers[..1]);
    let own = layout.image_for(&host(), &layers[1..]);
    layout.add_ref("multi:1", &layout.image_index(&[own, other]));
    let mount = TestMount::start(layout.path());
    let rows = [
        ("app:1", ".ocifs/layout/../../app:1"),
        ("org/other:2", "org/other:2"),
        ("multi:1", "multi:1"),
        (
            "multi:1/platforms/linux-s390x",
            "multi:1/platforms/linux-s390x",
        ),
    ];
    let mut inodes = Vec::new();
    for (reference, path) in rows {
        for (file, format) in [(OCI, "oci"), (DOCKER, "docker")] {
            let path = mount.join(path).join(file);
            let expected = exported(&layout, reference, format);
            let stat = fs::metadata(&path).expect("it is listed");
            assert_eq!(stat.len(), expected.len() as u64, "{reference} {format}");
            assert_eq!(stat.mode() & 0o777, 0o444, "{reference} {format}");
            inodes.push(stat.ino());
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{reference}: {error}"));
            assert!(bytes == expected, "{reference} {format}");
            let file = File::open(&path).expect("it is sound");
            let mut random = Random::of_seed(9);
            for _ in 0..100 {
                let offset = random.within(0..expected.len() as u64);
                let len = usize::try_from(random.within(1..200_000)).expect("it is small");
                let start = usize::try_from(offset).expect("it is in memory");
                let end = expected.len().min(start + len);
                let mut part = vec![0; end - start];
                file.read_exact_at(&mut part, offset)
                    .expect("it is readable");
                assert!(
                    part == expected[start..end],
                    "{reference} {format}: {len} at {offset}"
                );
            }
        }
    }
    inodes.sort_unstable();
    inodes.dedup();
    assert_eq!(inodes.len(), 8, "they hang on digest and name");
}

#[test]
fn what_is_no_image_is_no_docker_archive() {
    if !has("what_is_no_image_is_no_docker_archive", &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let image = layout.image_for("linux/s390x", &layers(&layout));
    layout.add_ref(
        "notes",
        &layout.artifact("text/plain", "notes", b"hello\n", Some(&image)),
    );
    layout.add_ref("foreign", &layout.image_index(std::slice::from_ref(&image)));
    let mount = TestMount::start(layout.path());
    let names = |path: &str| {
        let entries = fs::read_dir(mount.join(path)).expect("listing never fails");
        let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name());
        let mut names: Vec<_> = entries
            .map(|entry| name(entry).expect("an entry"))
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("notes/export"), ["oci-archive.tar"]);
    assert!(fs::read(mount.join("notes").join(OCI)).is_ok());
    // No platform fits: the index has nothing at its top.
    assert_eq!(names("foreign"), ["index.json", "platforms"]);
    let both = ["docker-archive.tar", "oci-archive.tar"];
    assert_eq!(names("foreign/platforms/linux-s390x/export"), both);
}

/// A copy of an archive by skopeo into a layout.
fn copied(from: &str) -> TestLayout {
    let layout = TestLayout::new();
    let to = format!("oci:{}:copy", layout.path().display());
    let options = [
        "copy",
        "-q",
        "--preserve-digests",
        "--dest-oci-accept-uncompressed-layers",
    ];
    run_ok("skopeo", &[&options[..], &[from, &to]].concat());
    verify_layout(layout.path());
    layout
}

fn document(layout: &Path, descriptor: &Value) -> Value {
    let digest = digest_of(descriptor);
    let blobs = layout.join("blobs").join(digest.algorithm_name());
    let bytes = fs::read(blobs.join(digest.encoded())).expect("it is there");
    serde_json::from_slice(&bytes).expect("it is JSON")
}

#[test]
fn skopeo_copies_them_onward() {
    if !has(
        "skopeo_copies_them_onward",
        &[Need::Fuse, Need::Tool("skopeo")],
    ) {
        return;
    }
    let layout = TestLayout::new();
    let layers = layers(&layout);
    let image = layout.image(&layers);
    layout.add_ref("app:1", &image);
    let own = layout.image_for(&host(), &layers[1..]);
    let other = layout.image_for("linux/s390x", &layers[..1]);
    let index = layout.image_index(&[other, own.clone()]);
    layout.add_ref("multi:1", &index);
    let mount = TestMount::start(layout.path());
    for (descriptor, expected) in [(&image, &image), (&index, &own)] {
        let dir = by_digest(&mount, descriptor);
        let config = document(layout.path(), expected)["config"]["digest"].clone();
        let copy = copied(&format!("oci-archive:{}", path_text(&dir.join(OCI))));
        assert_eq!(copy.entries()[0]["digest"], expected["digest"]);
        // A docker-archive has no OCI manifest for skopeo: config and DiffIDs stay.
        let from = format!("docker-archive:{}", path_text(&dir.join(DOCKER)));
        let raw = run_ok("skopeo", &["inspect", "--config", "--raw", &from]);
        let diff_ids = |config: &[u8]| -> Value {
            let config: Value = serde_json::from_slice(config).expect("it is JSON");
            config["rootfs"]["diff_ids"].clone()
        };
        let own_config = fs::read(layout.blob_path(&json!({"digest": config}))).expect("a blob");
        assert_eq!(ocifs::Digest::of(&raw), ocifs::Digest::of(&own_config));
        assert_eq!(diff_ids(&raw), diff_ids(&own_config));
        let target = TestLayout::new();
        let to = format!("oci:{}:copy", target.path().display());
        run_ok("skopeo", &["copy", "-q", &from, &to]);
        let copied = document(target.path(), &target.entries()[0]);
        let config = document(target.path(), &copied["config"]);
        assert_eq!(config["rootfs"]["diff_ids"], diff_ids(&own_config));
    }
    // The names are in it, once its path has no colon.
    let archive = layout.path().join("named.tar");
    fs::copy(mount.join("app:1").join(DOCKER), &archive).expect("it is readable");
    let from = format!(
        "docker-archive:{}:docker.io/library/app:1",
        archive.display()
    );
    run_ok("skopeo", &["inspect", &from]);
    fs::copy(mount.join("app:1").join(OCI), &archive).expect("it is readable");
    let copy = copied(&format!("oci-archive:{}:app:1", archive.display()));
    assert_eq!(copy.entries()[0]["digest"], image["digest"]);
}

/// A docker image of schema 2 goes out and comes back as what it was.
#[test]
fn schema_2_stays_schema_2() {
    if !has(
        "schema_2_stays_schema_2",
        &[Need::Fuse, Need::Tool("skopeo")],
    ) {
        return;
    }
    let layout = TestLayout::new();
    let layer = layout.layer(Compression::Gzip, &[("etc/motd", b"hello\n")]);
    let image = layout.docker_image(&layer);
    layout.add_ref("app:1", &image);
    let read = |path: &Path| -> Value {
        let bytes = fs::read(path).expect("it was written");
        serde_json::from_slice(&bytes).expect("it is JSON")
    };
    let config = read(&layout.blob_path(&image))["config"].take();
    let mount = TestMount::start(layout.path());
    let dir = by_digest(&mount, &image);
    for (transport, file) in [("oci-archive", OCI), ("docker-archive", DOCKER)] {
        let out = layout.path().join(transport);
        let to = format!("dir:{}", out.display());
        let from = format!("{transport}:{}", path_text(&dir.join(file)));
        run_ok("skopeo", &["copy", "-q", &from, &to]);
        let copied = read(&out.join("manifest.json"));
        assert_eq!(copied["mediaType"], SCHEMA2, "{transport}");
        assert_eq!(copied["config"]["digest"], config["digest"], "{transport}");
    }
}

#[test]
fn a_real_image_goes_onward() {
    const NAME: &str = "a_real_image_goes_onward";
    let needs = [Need::Fuse, Need::RealImage, Need::Tool("skopeo")];
    if !has(NAME, &needs) || !has(NAME, &[Need::Tool("umoci"), Need::Tool("tar")]) {
        return;
    }
    let image = real_image();
    // That the blobs are stored in other ways makes no difference to anything here.
    let is_met = |flavour: &&Flavour| matches!(flavour.name.as_str(), "gzip" | "zstd");
    for flavour in image.flavours.iter().filter(is_met) {
        let index = fs::read(flavour.layout.join("index.json")).expect("it is there");
        let index: Value = serde_json::from_slice(&index).expect("it is JSON");
        let entry = &index["manifests"][0];
        let mount = MountOptions::new(&flavour.layout).start();
        let dir = by_digest(&mount, entry);
        let from = format!("oci-archive:{}", path_text(&dir.join(OCI)));
        let raw = run_ok("skopeo", &["inspect", "--raw", &from]);
        assert_eq!(
            ocifs::Digest::of(&raw),
            digest_of(entry),
            "{}",
            flavour.name
        );
        let out = tempfile::tempdir().expect("a temporary directory can be made");
        let named = mount.join(image.ref_name()).join(OCI);
        let shell = format!(
            "cat {} | tar -x -C {}",
            named.display(),
            out.path().display()
        );
        run_ok("bash", &["-c", &format!("set -o pipefail; {shell}")]);
        verify_layout(out.path());
        let unpacked = format!("{}:{}", out.path().display(), image.ref_name());
        run_ok("umoci", &["stat", "--image", &unpacked]);
        let from = format!("docker-archive:{}", path_text(&dir.join(DOCKER)));
        let config = run_ok("skopeo", &["inspect", "--config", "--raw", &from]);
        let config: Value = serde_json::from_slice(&config).expect("it is JSON");
        let diff_ids: Vec<Value> = image
            .layers
            .iter()
            .map(|(id, _)| json!(id.as_str()))
            .collect();
        assert_eq!(
            config["rootfs"]["diff_ids"],
            json!(diff_ids),
            "{}",
            flavour.name
        );
    }
}

/// A layout with one image, and one of its parts.
fn with_one_layer() -> (TestLayout, Layer, Value) {
    let layout = TestLayout::new();
    let layer = layout.layer(Compression::Gzip, &[("etc/motd", b"hello\n")]);
    let image = layout.image(std::slice::from_ref(&layer));
    layout.add_ref("app:1", &image);
    (layout, layer, image)
}

#[test]
fn missing_and_damaged_blobs() {
    if !has("missing_and_damaged_blobs", &[Need::Fuse]) {
        return;
    }
    let rows = [
        (Damage::Missing, libc::ENODATA, "BLOB_MISSING"),
        (Damage::Truncated, libc::EBADMSG, "BLOB_SIZE"),
        (Damage::FlippedBit, libc::EBADMSG, "BLOB_DIGEST"),
        (Damage::Fifo, libc::EUCLEAN, "LAYOUT_FILE_TYPE"),
    ];
    for (damage, expected, code) in rows {
        let (layout, layer, image) = with_one_layer();
        let whole = exported(&layout, "app:1", "oci");
        let path = layout.blob_path(&layer.descriptor);
        let right = layout.path().join("right");
        fs::copy(&path, &right).expect("a blob can be copied");
        layout.damage(&layer.descriptor, damage);
        let mount = TestMount::start(layout.path());
        for file in [OCI, DOCKER] {
            let path = mount.join("app:1").join(file);
            let stat = fs::metadata(&path).expect("it is listed");
            assert_eq!(errno(&path), Some(expected), "{damage:?} {file}");
            let name = "user.oci.error";
            let mut value = vec![0; 4096];
            let len = rustix::fs::getxattr(&path, name, value.as_mut_slice());
            let value = String::from_utf8_lossy(&value[..len.expect("it says why")]).into_owned();
            assert!(value.starts_with(code), "{damage:?} {file}: {value}");
            assert!(stat.len() > size_of(&layer.descriptor), "{damage:?} {file}");
        }
        // Another image is not disturbed, nor this one when it is mended.
        let _ = fs::remove_file(&path);
        fs::rename(&right, &path).expect("a blob can be moved");
        let archive = by_digest(&mount, &image).join(OCI);
        let named = mount.join("app:1").join(OCI);
        until(SECOND, "it is whole", || {
            fs::read(&named).is_ok_and(|bytes| bytes == whole)
        });
        assert!(fs::read(&archive).is_ok(), "{damage:?}");
    }
}

/// Of an index those images are left out that the layout lacks, as long as it lacks them.
#[test]
fn images_of_an_index_come_and_go() {
    if !has("images_of_an_index_come_and_go", &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let layers = layers(&layout);
    let own = layout.image_for(&host(), &layers[1..]);
    let other = layout.image_for("linux/s390x", &layers[..1]);
    layout.add_ref("multi:1", &layout.image_index(&[own, other]));
    let whole = exported(&layout, "multi:1", "oci");
    let mount = TestMount::start(layout.path());
    let path = mount.join("multi:1").join(OCI);
    let open = File::open(&path).expect("it is whole");
    let blob = layout.blob_path(&layers[0].descriptor);
    let away = layout.path().join("away");
    fs::rename(&blob, &away).expect("a blob can be moved");
    let sparse = exported(&layout, "multi:1", "oci");
    assert!(sparse.len() < whole.len());
    for turn in 0..3 {
        let stat = fs::metadata(&path).expect("it is listed");
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("turn {turn}: {error}"));
        assert!(bytes == sparse, "turn {turn}: {} bytes", bytes.len());
        // The size that was believed before is not taken back, the name is.
        let after = fs::metadata(&path).expect("it is listed");
        assert_eq!(
            after.len(),
            sparse.len() as u64,
            "turn {turn}, {} before",
            stat.len()
        );
    }
    let mut bytes = vec![0; whole.len()];
    open.read_exact_at(&mut bytes, 0)
        .expect("an open file keeps its bytes");
    assert!(bytes == whole);
    fs::rename(&away, &blob).expect("a blob can be moved");
    until(SECOND, "it is whole again", || {
        fs::read(&path).is_ok_and(|bytes| bytes == whole)
    });
}

#[test]
fn a_blob_overwritten_while_the_archive_is_open() {
    if !has(
        "a_blob_overwritten_while_the_archive_is_open",
        &[Need::Fuse],
    ) {
        return;
    }
    let layout = TestLayout::new();
    let mut noise = vec![0; 4 << 20];
    Random::of_seed(8).fill(&mut noise);
    let layer = layout.layer(Compression::None, &[("noise", &noise)]);
    layout.add_ref("app:1", &layout.image(std::slice::from_ref(&layer)));
    let mount = TestMount::start(layout.path());
    let path = mount.join("app:1").join(OCI);
    let file = File::open(&path).expect("it is sound");
    layout.damage(&layer.descriptor, Damage::FlippedBit);
    let refused = file.read_exact_at(&mut noise, 4096);
    let error = refused.expect_err("it is another blob");
    assert_eq!(error.raw_os_error(), Some(libc::EBADMSG), "{error}");
    assert_eq!(errno(&path), Some(libc::EBADMSG), "to open it is refused");
}

/// Whoever opens an archive waits until its blobs are hashed, and nobody else does.
#[test]
fn hashing_hinders_nobody_else() {
    // More of them than threads that answer the kernel.
    const SIZE: u64 = 64 << 20;
    const READERS: usize = 12;
    if !has("hashing_hinders_nobody_else", &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let sound = layout.image(&layers(&layout));
    layout.add_ref("sound", &sound);
    for number in 0..READERS {
        let digest = ocifs::Digest::of(&number.to_le_bytes());
        let layer = json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": digest.as_str(),
            "size": SIZE,
        });
        let path = layout.blob_path(&layer);
        let file = File::create(path).expect("the layout is writable");
        file.set_len(SIZE).expect("holes cost nothing");
        let config = json!({"rootfs": {"type": "layers", "diff_ids": [digest.as_str()]}});
        let config = layout.json("application/vnd.oci.image.config.v1+json", &config);
        let image = layout.manifest(&json!({"config": config, "layers": [layer]}));
        layout.add_ref(&format!("slow{number}"), &image);
    }
    let mount = TestMount::start(layout.path());
    let readers: Vec<_> = (0..READERS)
        .map(|number| {
            let path = mount.join(format!("slow{number}")).join(OCI);
            thread::spawn(move || errno(&path))
        })
        .collect();
    thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    let names = fs::read_dir(mount.path())
        .expect("listing never fails")
        .count();
    let size = fs::metadata(mount.join("slow0").join(OCI)).map(|stat| stat.len());
    let manifest = fs::read(mount.join("sound/manifest.json"));
    let took = begun.elapsed();
    assert_eq!(names, READERS + 2);
    assert!(size.is_ok_and(|size| size > SIZE) && manifest.is_ok());
    assert!(took < SECOND, "others waited for {took:?}");
    for reader in readers {
        let errno = reader.join().expect("it does not panic");
        assert_eq!(errno, Some(libc::EBADMSG), "they are no such blobs");
    }
}
