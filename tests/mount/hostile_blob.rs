//! Damaged, missing and moving blobs: rows B1 to B12.
//!
//! What waits for later work:
//! - B3: that bringing in the same blob repairs it (nothing is written yet); a blob that
//!   is put right by another tool is;
//! - B4: devices, which a test must not leave behind, are refused by the same check.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libc::{EACCES, EBADMSG, EFBIG, ENODATA, EUCLEAN};
use serde_json::{Value, json};

use crate::common::{
    Compression, Damage, Layer, MountOptions, Need, Random, digest_of, has, run, run_ok, tar_of,
};
use crate::ward::{
    INDEX, Mounted, SEEN, TAR, TAR_GZIP, Ward, assert_within, can_mount, errno_name,
};

/// One file of a mount, and the blob behind it.
struct Part {
    path: String,
    blob: Value,
    expected: Vec<u8>,
}

/// Adds an image and an artifact that share no blob with any other; their files.
fn add_patient(ward: &Ward, name: &str) -> Vec<Part> {
    let layout = &ward.layout;
    let compressions = [Compression::None, Compression::Gzip, Compression::Zstd];
    let tars: Vec<Vec<u8>> = (0..compressions.len())
        .map(|number| tar_of(&[("file", format!("{name} {number}").repeat(50).as_bytes())]))
        .collect();
    let layers = compressions.iter().zip(&tars);
    let layers: Vec<Layer> = layers
        .map(|(compression, tar)| layout.layer_of_tar(*compression, tar))
        .collect();
    let image = layout.image_with(&layers, &json!({"author": name}));
    layout.add_ref(&format!("{name}/image"), &image);
    let raw = layout.blob("application/x-raw", format!("raw {name}").as_bytes());
    let artifact = ward.add_image_of(&format!("{name}/artifact"), std::slice::from_ref(&raw));
    let stored = |blob: &Value| fs::read(layout.blob_path(blob)).expect("it was just stored");
    let manifest: Value = serde_json::from_slice(&stored(&image)).expect("it is JSON");
    let part = |path: &str, blob: &Value, expected: Vec<u8>| Part {
        path: format!("{name}/{path}"),
        blob: blob.clone(),
        expected,
    };
    let config = &manifest["config"];
    let mut parts = vec![
        part("image/manifest.json", &image, stored(&image)),
        part("image/config.json", config, stored(config)),
        part("artifact/manifest.json", &artifact, stored(&artifact)),
        part("artifact/layers/00.bin", &raw, stored(&raw)),
    ];
    for (number, (layer, tar)) in layers.iter().zip(tars).enumerate() {
        let path = format!("image/layers/{number:02}.tar");
        parts.push(part(&path, &layer.descriptor, tar));
    }
    parts
}

/// Where the blob itself is shown.
fn stored_path(blob: &Value) -> String {
    format!(".ocifs/layout/blobs/sha256/{}", digest_of(blob).encoded())
}

/// Spoils each part of an image in turn: that part alone is refused, and so is the blob
/// itself (with the second code, which cannot know of a descriptor's size).
fn assert_damage(damage: Damage, errno: i32, code: &str, stored_code: &str) {
    let ward = Ward::new();
    let patients: Vec<Vec<Part>> = (0..7)
        .map(|number| add_patient(&ward, &format!("p{number}")))
        .collect();
    for (number, parts) in patients.iter().enumerate() {
        ward.layout.damage(&parts[number].blob, damage);
    }
    let mounted = ward.mount();
    for (number, parts) in patients.iter().enumerate() {
        let bad = &parts[number].path;
        let row = format!("{damage:?} {bad}");
        mounted.assert_refused(&row, bad, errno, code);
        if damage != Damage::Missing {
            let stored = stored_path(&parts[number].blob);
            mounted.assert_refused(&row, &stored, errno, stored_code);
        }
        let is_document = bad.ends_with("/manifest.json");
        let (dir, _) = bad.rsplit_once('/').expect("it is in a directory");
        for part in parts.iter().filter(|part| part.path != *bad) {
            if is_document && part.path.starts_with(&format!("{dir}/")) {
                assert_eq!(errno_name(mounted.errno(&part.path)), "ENOENT", "{row}");
            } else {
                mounted.assert_holds(&row, &part.path, &part.expected);
            }
        }
        if is_document {
            assert_eq!(mounted.names(dir), ["manifest.json"], "{row}");
        }
    }
}

#[test]
fn b1_another_size() {
    if !can_mount("b1_another_size") {
        return;
    }
    for damage in [Damage::Truncated, Damage::Longer] {
        assert_damage(damage, EBADMSG, "BLOB_SIZE", "BLOB_DIGEST");
    }
}

#[test]
fn b1_size_before_hashing() {
    if !can_mount("b1_size_before_hashing") {
        return;
    }
    // So large that hashing it would be refused for another reason.
    let ward = Ward::new();
    let blob = ward.layout.blob(TAR, b"short");
    let file = File::options()
        .write(true)
        .open(ward.layout.blob_path(&blob));
    file.and_then(|file| file.set_len(1 << 40))
        .expect("sparse files can be made");
    ward.add_image_of("long", &[blob]);
    let mounted = ward.mount();
    mounted.assert_refused("long", "long/layers/00.tar", EBADMSG, "BLOB_SIZE");
}

#[test]
fn b2_flipped_bit() {
    if !can_mount("b2_flipped_bit") {
        return;
    }
    assert_damage(Damage::FlippedBit, EBADMSG, "BLOB_DIGEST", "BLOB_DIGEST");
}

#[test]
fn b3_no_bytes() {
    if !can_mount("b3_no_bytes") {
        return;
    }
    assert_damage(Damage::Empty, EBADMSG, "BLOB_SIZE", "BLOB_DIGEST");
}

#[test]
fn b3_put_right_by_others() {
    if !can_mount("b3_put_right_by_others") {
        return;
    }
    let ward = Ward::new();
    let parts = add_patient(&ward, "p");
    let paths: Vec<_> = parts
        .iter()
        .map(|part| ward.layout.blob_path(&part.blob))
        .collect();
    let right: Vec<_> = paths
        .iter()
        .map(|path| fs::read(path).expect("readable"))
        .collect();
    for part in &parts {
        ward.layout.damage(&part.blob, Damage::Empty);
    }
    let mounted = ward.mount();
    for path in ["p/image/manifest.json", "p/artifact/manifest.json"] {
        mounted.assert_refused("before", path, EBADMSG, "BLOB_SIZE");
    }
    for (path, bytes) in paths.iter().zip(&right) {
        fs::write(path, bytes).expect("the layout is writable");
    }
    for part in &parts {
        assert_within(SEEN, &part.path, || mounted.errno(&part.path) == 0);
        mounted.assert_holds("after", &part.path, &part.expected);
    }
}

#[test]
fn b4_other_kinds_of_file() {
    if !can_mount("b4_other_kinds_of_file") {
        return;
    }
    for damage in [Damage::Symlink, Damage::Fifo, Damage::Directory] {
        assert_damage(damage, EUCLEAN, "LAYOUT_FILE_TYPE", "LAYOUT_FILE_TYPE");
    }
}

#[test]
fn b4_socket_and_hard_link() {
    if !can_mount("b4_socket_and_hard_link") {
        return;
    }
    let ward = Ward::new();
    let socket = ward.layout.blob("application/x", b"socket");
    ward.add_image_of("socket", std::slice::from_ref(&socket));
    let path = ward.layout.blob_path(&socket);
    fs::remove_file(&path).expect("it is there");
    // Bound elsewhere: the path of a socket must be short.
    let outside = tempfile::tempdir().expect("a temporary directory can be made");
    let bound = outside.path().join("s");
    drop(UnixListener::bind(&bound).expect("it can be bound"));
    run_ok("mv", &[&bound, &path]);
    let linked = ward.layout.blob("application/x", b"linked");
    ward.add_image_of("linked", std::slice::from_ref(&linked));
    let (path, other) = (
        ward.layout.blob_path(&linked),
        ward.layout.path().join("other"),
    );
    fs::rename(&path, &other)
        .and_then(|()| fs::hard_link(&other, &path))
        .expect("writable");
    let mounted = ward.mount();
    let code = "LAYOUT_FILE_TYPE";
    mounted.assert_refused("socket", "socket/layers/00.bin", EUCLEAN, code);
    mounted.assert_holds("linked", "linked/layers/00.bin", b"linked");
}

/// A tar of `size` bytes of noise, which does not compress.
fn noise(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    Random::of_seed(7).fill(&mut bytes);
    tar_of(&[("noise", &bytes)])
}

const LARGE: usize = 8 << 20;

/// Adds an image with one tar of noise, stored plain and compressed twice; the layers.
fn add_large(ward: &Ward) -> (Vec<u8>, Vec<Layer>) {
    let tar = noise(LARGE);
    let layers: Vec<Layer> = [Compression::None, Compression::Gzip, Compression::Zstd]
        .into_iter()
        .map(|compression| ward.layout.layer_of_tar(compression, &tar))
        .collect();
    ward.layout.add_ref("large", &ward.layout.image(&layers));
    (tar, layers)
}

fn large_path(number: usize) -> String {
    format!("large/layers/{number:02}.tar")
}

/// Replaces a file in one step by one of the same size, its last half wrong.
fn swap(path: &Path) -> Vec<u8> {
    let right = fs::read(path).expect("the blob is readable");
    let mut wrong = right.clone();
    let half = wrong.len() / 2;
    wrong[half..].fill(b'#');
    replace(path, &wrong);
    right
}

fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).expect("the layout is writable");
    fs::rename(&new, path).expect("the layout is writable");
}

/// Reads all of an open file in pieces, the last ones first.
fn read_backwards(file: &File, size: usize) -> std::io::Result<Vec<u8>> {
    const PIECE: usize = 128 << 10;
    let mut bytes = vec![0; size];
    for (number, piece) in bytes.chunks_mut(PIECE).enumerate().rev() {
        file.read_exact_at(piece, (number * PIECE) as u64)?;
    }
    Ok(bytes)
}

/// Blobs that are replaced while their layers are open: those stay as they were.
fn assert_swapped(mounted: &Mounted, tar: &[u8], layers: &[Layer]) {
    let open = |number| File::open(mounted.mount.join(large_path(number)));
    for (number, layer) in layers.iter().enumerate() {
        let row = large_path(number);
        let before = open(number).unwrap_or_else(|error| panic!("{row}: {error}"));
        let path = mounted.ward.layout.blob_path(&layer.descriptor);
        let right = swap(&path);
        mounted.assert_refused(&row, &row, EBADMSG, "BLOB_DIGEST");
        let read = read_backwards(&before, tar.len());
        let read = read.unwrap_or_else(|error| {
            panic!("{row}: open before: {error}\n{}", mounted.mount.stderr())
        });
        assert!(read == tar, "{row}: open before: other bytes");
        drop(before);
        replace(&path, &right);
        mounted.assert_holds(&row, &row, tar);
    }
}

#[test]
fn b5_swapped_after_verification() {
    if !can_mount("b5_swapped_after_verification") {
        return;
    }
    let ward = Ward::new();
    let (tar, layers) = add_large(&ward);
    assert_swapped(&ward.mount(), &tar, &layers);
}

/// An overlay over a directory, which goes with the value.
struct Overlay(PathBuf);

impl Drop for Overlay {
    fn drop(&mut self) {
        run("umount", &[&self.0]);
    }
}

#[test]
fn b5_swapped_without_passthrough() {
    const NAME: &str = "b5_swapped_without_passthrough";
    if !has(NAME, &[Need::Fuse, Need::Root]) {
        return;
    }
    // The kernel reads nothing itself from a layout that lies on a stacked file system.
    let ward = Ward::new();
    let (tar, layers) = add_large(&ward);
    let below = tempfile::tempdir().expect("a temporary directory can be made");
    let dir = |name: &str| {
        let path = below.path().join(name);
        fs::create_dir(&path).expect("writable");
        path.display().to_string()
    };
    let (upper, work) = (dir("upper"), dir("work"));
    let lower = ward.layout.path().to_owned();
    let options = format!(
        "lowerdir={},upperdir={upper},workdir={work}",
        lower.display()
    );
    let mounted = run(
        "mount",
        &[
            "-t".as_ref(),
            "overlay".as_ref(),
            "-o".as_ref(),
            options.as_ref(),
            "overlay".as_ref(),
            lower.as_os_str(),
        ],
    );
    if !mounted.status.success() {
        crate::common::skip(NAME, "overlayfs cannot be mounted");
        return;
    }
    let overlay = Overlay(lower);
    // Written there, so that what happens to the names is seen at the files.
    for layer in &layers {
        let path = ward.layout.blob_path(&layer.descriptor);
        replace(&path, &fs::read(&path).expect("the blob is readable"));
    }
    let mounted = ward.mount();
    assert_swapped(&mounted, &tar, &layers);
    drop(mounted.mount);
    drop(overlay);
}

#[test]
fn b6_overwritten_while_it_is_read() {
    if !can_mount("b6_overwritten_while_it_is_read") {
        return;
    }
    let ward = Ward::new();
    let (tar, layers) = add_large(&ward);
    let options = MountOptions::new(ward.layout.path()).memory("1MiB");
    let mounted = ward.mount_with(options);
    // The decoded ones; a stored one is what the layout's file holds.
    for (number, layer) in layers.iter().enumerate().skip(1) {
        let row = large_path(number);
        let file = File::open(mounted.mount.join(&row)).expect("it is right");
        let path = mounted.ward.layout.blob_path(&layer.descriptor);
        let blob = File::options().write(true).open(path).expect("writable");
        blob.write_all_at(&vec![b'#'; LARGE / 2], LARGE as u64 / 4)
            .expect("writable");
        let mut refused = 0;
        for offset in (0..tar.len()).step_by(100_000).rev() {
            let mut bytes = vec![0; 100_000.min(tar.len() - offset)];
            match file.read_exact_at(&mut bytes, offset as u64) {
                Ok(()) => assert!(
                    bytes == tar[offset..][..bytes.len()],
                    "{row}: {offset}: a wrong byte"
                ),
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or_default();
                    assert_eq!(errno_name(errno), "EBADMSG", "{row}: {offset}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0, "{row}: the damage was never met");
        mounted.assert_refused(&row, &row, EBADMSG, "BLOB_DIGEST");
    }
}

#[test]
fn b7_truncated_while_it_is_mapped() {
    const NAME: &str = "b7_truncated_while_it_is_mapped";
    const READER: &str = "
import mmap, sys
file = open(sys.argv[1], 'rb')
view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
first = view[0]
print('mapped', flush=True)
sys.stdin.readline()
sys.exit(view[len(view) - 1] + 1)
";
    if !has(NAME, &[Need::Fuse, Need::Tool("python3")]) {
        return;
    }
    let ward = Ward::new();
    let (tar, layers) = add_large(&ward);
    let options = MountOptions::new(ward.layout.path()).memory("1MiB");
    let mounted = ward.mount_with(options);
    for (number, layer) in layers.iter().enumerate() {
        let row = large_path(number);
        let mut reader = Command::new("python3")
            .args(["-c", READER])
            .arg(mounted.mount.join(&row))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 can be started");
        let mut said = String::new();
        let stdout = reader.stdout.take().expect("it is piped");
        BufReader::new(stdout)
            .read_line(&mut said)
            .expect("it is text");
        assert_eq!(said, "mapped\n", "{row}");
        let path = mounted.ward.layout.blob_path(&layer.descriptor);
        let blob = File::options().write(true).open(path).expect("writable");
        blob.set_len(4096).expect("writable");
        let stdin = reader.stdin.take();
        stdin
            .expect("it is piped")
            .write_all(b"\n")
            .expect("it listens");
        let status = reader.wait().expect("it ends");
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{row}: {status}");
        // A reader gets an error, or, where the kernel reads the file itself, its end.
        mounted.assert_refused(&row, &row, EBADMSG, "BLOB_SIZE");
    }
    assert!(tar.len() > LARGE);
    mounted.assert_good("after all");
}

#[test]
fn b8_unreadable() {
    const NAME: &str = "b8_unreadable";
    if !can_mount(NAME) {
        return;
    }
    let ward = Ward::new();
    let parts = add_patient(&ward, "p");
    for part in &parts[1..] {
        let path = ward.layout.blob_path(&part.blob);
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).expect("it is ours");
    }
    let mut options = MountOptions::new(ward.layout.path());
    if has(NAME, &[Need::Root]) {
        // Root reads everything, unless it may not.
        let caps = "-dac_override,-dac_read_search";
        options = options.run_by(&["setpriv", "--bounding-set", caps, "--"]);
    }
    let mounted = ward.mount_with(options);
    mounted.assert_holds("manifest", &parts[0].path, &parts[0].expected);
    for part in parts
        .iter()
        .skip(1)
        .filter(|part| !part.path.contains("artifact/layers"))
    {
        mounted.assert_refused(NAME, &part.path, EACCES, "IO");
        let path = mounted.ward.layout.blob_path(&part.blob);
        let path = path.display().to_string();
        let stderr = mounted.mount.stderr();
        assert!(stderr.contains(&path), "{path} is not in the log: {stderr}");
    }
}

const GIANT: u64 = 1 << 40;

/// A sparse file of a tebibyte that begins with `head`, as the blob of some digest.
fn giant(ward: &Ward, media_type: &str, digit: &str, head: &[u8]) -> Value {
    let digest = format!("sha256:{}", digit.repeat(64));
    let blob = json!({"mediaType": media_type, "digest": digest, "size": GIANT});
    let path = ward.layout.blob_path(&blob);
    fs::write(&path, head).expect("writable");
    let file = File::options().write(true).open(path);
    file.and_then(|file| file.set_len(GIANT))
        .expect("sparse files can be made");
    blob
}

#[test]
fn b9_sparse_giant() {
    if !can_mount("b9_sparse_giant") {
        return;
    }
    let ward = Ward::new();
    let rows = [
        ("plain", "00.tar", giant(&ward, TAR, "a", b"")),
        (
            "gzip",
            "00.tar",
            giant(&ward, TAR_GZIP, "b", b"\x1f\x8b\x08"),
        ),
        ("raw", "00.bin", giant(&ward, "application/x", "c", b"")),
    ];
    for (row, _, blob) in &rows {
        ward.add_image_of(row, std::slice::from_ref(blob));
    }
    let mounted = ward.mount();
    for (row, file, blob) in &rows {
        let path = format!("{row}/layers/{file}");
        let begun = Instant::now();
        mounted.assert_refused(row, &path, EFBIG, "LIMIT_BLOB_SIZE");
        let stored = stored_path(blob);
        mounted.assert_refused(row, &stored, EFBIG, "LIMIT_BLOB_SIZE");
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{row}: it was read"
        );
        for path in [&path, &stored] {
            let stat = fs::metadata(mounted.mount.join(path)).expect("it is listed");
            assert_eq!(stat.len(), GIANT, "{row}: {path}");
        }
    }
}

#[test]
fn b10_one_digest_with_many_descriptors() {
    if !can_mount("b10_one_digest_with_many_descriptors") {
        return;
    }
    let ward = Ward::new();
    let layout = &ward.layout;
    let resized = |descriptor: &Value| {
        let mut descriptor = descriptor.clone();
        descriptor["size"] = json!(crate::common::size_of(&descriptor) + 1);
        descriptor
    };
    let retyped = |descriptor: &Value, media_type: &str| {
        let mut descriptor = descriptor.clone();
        descriptor["mediaType"] = json!(media_type);
        descriptor
    };
    let manifest: Value = serde_json::from_str(&ward.manifest_text()).expect("it is JSON");
    let (config, layer) = (&manifest["config"], &ward.layer.descriptor.clone());
    layout.add_ref("manifest-size", &resized(&ward.good));
    layout.add_ref("manifest-type", &retyped(&ward.good, INDEX));
    let image = |config: &Value, layer: &Value| {
        layout.manifest(&json!({"config": config, "layers": [layer]}))
    };
    layout.add_ref("config-size", &image(&resized(config), layer));
    layout.add_ref("layer-size", &image(config, &resized(layer)));
    layout.add_ref(
        "layer-encrypted",
        &image(config, &retyped(layer, &format!("{TAR_GZIP}+encrypted"))),
    );
    layout.add_ref("layer-type", &image(config, &retyped(layer, TAR)));
    layout.add_ref(
        "layer-raw",
        &image(config, &retyped(layer, "application/x")),
    );
    let mounted = ward.mount();
    let stored = fs::read(mounted.ward.layout.blob_path(layer)).expect("readable");
    let good = digest_of(&mounted.ward.good);
    let by_digest = format!(".ocifs/digests/sha256/{}/manifest.json", good.encoded());
    // The good file is open or was looked at before, between and after the bad ones.
    for round in ["first", "second"] {
        mounted.assert_good(round);
        let (errno, code) = (EBADMSG, "BLOB_SIZE");
        mounted.assert_bad_ref("manifest-size", "manifest.json", errno, code);
        mounted.assert_bad_ref("manifest-type", "index.json", EUCLEAN, "JSON_MEDIA_TYPE");
        mounted.assert_refused(round, "config-size/config.json", errno, code);
        mounted.assert_refused(round, "layer-size/layers/00.tar", errno, code);
        let encrypted = "layer-encrypted/layers/00.tar";
        mounted.assert_refused(round, encrypted, libc::EOPNOTSUPP, "LAYER_ENCRYPTED");
        let tar = tar_of(crate::ward::FILES);
        mounted.assert_holds(round, "layer-type/layers/00.tar", &tar);
        mounted.assert_holds(round, "layer-raw/layers/00.bin", &stored);
        let manifest = mounted.ward.manifest_text();
        mounted.assert_holds(round, &by_digest, manifest.as_bytes());
    }
}

#[test]
fn b10_bad_names_beside_an_open_file() {
    if !can_mount("b10_bad_names_beside_an_open_file") {
        return;
    }
    // The kernel knows the good names; then it learns the bad ones, and asks for the
    // good ones by inode number.
    let ward = Ward::new();
    let mut layer = ward.layer.descriptor.clone();
    layer["size"] = json!(1);
    let manifest: Value = serde_json::from_str(&ward.manifest_text()).expect("it is JSON");
    let mut config = manifest["config"].clone();
    let members = json!({"config": config, "layers": [layer]});
    ward.layout
        .add_ref("bad-layer", &ward.layout.manifest(&members));
    config["size"] = json!(1);
    let members = json!({"config": config, "layers": [ward.layer.descriptor]});
    ward.layout
        .add_ref("bad-config", &ward.layout.manifest(&members));
    let mounted = ward.mount();
    for (good, bad) in [
        ("good/layers/00.tar", "bad-layer/layers/00.tar"),
        ("good/config.json", "bad-config/config.json"),
    ] {
        let ino = |path: &str| {
            use std::os::unix::fs::MetadataExt;
            fs::metadata(mounted.mount.join(path))
                .expect("it is there")
                .ino()
        };
        let bytes = mounted
            .read(good)
            .unwrap_or_else(|error| panic!("{good}: {error}"));
        let (first, second) = (ino(good), ino(bad));
        assert_ne!(first, second, "{good} and {bad} are one inode");
        mounted.assert_refused(bad, bad, EBADMSG, "BLOB_SIZE");
        mounted.assert_holds(good, good, &bytes);
    }
}

#[test]
fn b11_missing_and_there_later() {
    if !can_mount("b11_missing_and_there_later") {
        return;
    }
    assert_damage(Damage::Missing, ENODATA, "BLOB_MISSING", "");
    let ward = Ward::new();
    let parts = add_patient(&ward, "p");
    let index = ward
        .layout
        .image_index(std::slice::from_ref(&parts[0].blob));
    ward.layout.add_ref("index", &index);
    let paths: Vec<_> = parts
        .iter()
        .map(|part| ward.layout.blob_path(&part.blob))
        .collect();
    let away = |path: &PathBuf| path.with_extension("away");
    for path in &paths {
        fs::rename(path, away(path)).expect("the layout is writable");
    }
    let mounted = ward.mount();
    let platform = mounted.names("index/platforms").remove(0);
    let nested = format!("index/platforms/{platform}/manifest.json");
    for path in [
        nested.as_str(),
        "p/image/manifest.json",
        "p/artifact/manifest.json",
    ] {
        mounted.assert_refused("missing", path, ENODATA, "BLOB_MISSING");
    }
    for (path, part) in paths.iter().zip(&parts) {
        // Layers are listed with the size of their descriptors, and not readable yet.
        if part.path.contains("/layers/") {
            mounted.assert_refused("missing", &part.path, ENODATA, "BLOB_MISSING");
            let stat = fs::metadata(mounted.mount.join(&part.path)).expect("it is listed");
            assert_eq!(
                stat.len(),
                crate::common::size_of(&part.blob),
                "{}",
                part.path
            );
        }
        fs::rename(away(path), path).expect("the layout is writable");
        assert_within(SEEN, &part.path, || mounted.errno(&part.path) == 0);
        mounted.assert_holds("there", &part.path, &part.expected);
    }
    mounted.assert_holds("there", &nested, &parts[0].expected);
}

#[test]
fn b12_gone_between_listing_and_open() {
    if !can_mount("b12_gone_between_listing_and_open") {
        return;
    }
    let ward = Ward::new();
    let parts = add_patient(&ward, "p");
    let mounted = ward.mount();
    for (name, is_known) in [("not read before", false), ("read before", true)] {
        for part in &parts {
            let (dir, _) = part.path.rsplit_once('/').expect("it is in a directory");
            assert!(!mounted.names(dir).is_empty());
            if is_known {
                mounted.assert_holds(name, &part.path, &part.expected);
            }
            let path = mounted.ward.layout.blob_path(&part.blob);
            let aside = path.with_extension("aside");
            fs::rename(&path, &aside).expect("the layout is writable");
            let row = format!("{name}: {}", part.path);
            mounted.assert_refused(&row, &part.path, ENODATA, "BLOB_MISSING");
            fs::rename(&aside, &path).expect("the layout is writable");
            assert_within(SEEN, &row, || mounted.errno(&part.path) == 0);
        }
    }
}
