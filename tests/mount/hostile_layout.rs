//! Hostile and odd layouts and JSON: rows L1 to L29.
//!
//! What waits for later work:
//! - L18, L25: that a commit keeps both entries, unknown members and foreign files
//!   (nothing is written yet);
//! - L20: that embedded data is never used (nothing reads it at all);
//! - L26: EUCLEAN of `rootfs/` where the number of DiffIDs is wrong (no `rootfs/` yet);
//! - L27: that an artifact has no `rootfs/` is checked, its `files/` is not there yet.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use libc::{EBADMSG, EFBIG, ENODATA, EOPNOTSUPP, EUCLEAN};
use ocifs::oci::{Algorithm, Digest, Hasher};
use serde_json::{Value, json};

use crate::common::{Compression, MountOptions, REF_NAME, TestLayout, compress, size_of, tar_of};
use crate::ward::{
    CONFIG, FILES, INDEX, MANIFEST, SEEN, TAR, TAR_GZIP, Ward, assert_no_mount, assert_within,
    can_mount, errno_name, in_time,
};

/// Exit status for corrupt data.
const CORRUPT: i32 = 3;
/// Exit status for what is not there.
const NOT_FOUND: i32 = 1;

fn fifo(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a FIFO can be made");
}

/// A layout whose `index.json` has these bytes is not mounted.
fn assert_index_refused(row: &str, bytes: &[u8], text: &str) {
    let layout = TestLayout::new();
    layout.write_index(bytes);
    assert_no_mount(row, layout.path(), CORRUPT, text);
}

#[test]
fn l1_empty_index() {
    if !can_mount("l1_empty_index") {
        return;
    }
    let ward = Ward::new();
    let (good, entries) = (ward.good.clone(), ward.layout.entries());
    let mounted = ward.mount();
    let before = mounted.names("");
    fs::write(mounted.ward.index_path(), b"").expect("the layout is writable");
    // Longer than it takes to look again a few times.
    thread::sleep(Duration::from_millis(900));
    assert_eq!(mounted.names(""), before);
    mounted.assert_good("while index.json is empty");
    let stderr = mounted.mount.stderr();
    let warnings = stderr.matches("the last good index is kept").count();
    assert_eq!(warnings, 1, "{stderr}");
    mounted.ward.layout.write_entries(&entries);
    mounted.ward.layout.add_ref("second", &good);
    assert_within(SEEN, "the whole index is seen", || mounted.shows("second"));
}

#[test]
fn l1_empty_index_at_the_mount() {
    if !can_mount("l1_empty_index_at_the_mount") {
        return;
    }
    let begun = Instant::now();
    assert_index_refused(
        "empty",
        b"",
        "index.json is empty: another tool may be writing it",
    );
    assert!(begun.elapsed() >= Duration::from_millis(500), "no patience");

    let ward = Ward::new();
    let (path, bytes) = (
        ward.index_path(),
        fs::read(ward.index_path()).expect("index.json is readable"),
    );
    fs::write(&path, b"").expect("the layout is writable");
    let writer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        fs::write(path, bytes).expect("the layout is writable");
    });
    ward.mount().assert_good("an index that comes in time");
    writer.join().expect("the writer ends");
}

#[test]
fn l2_index_cut_at_every_byte() {
    if !can_mount("l2_index_cut_at_every_byte") {
        return;
    }
    let ward = Ward::new();
    ward.layout.add_ref("other", &ward.good);
    let whole = fs::read(ward.index_path()).expect("index.json is readable");
    let mounted = ward.mount();
    let before = mounted.names("");
    for len in 0..whole.len() {
        fs::write(mounted.ward.index_path(), &whole[..len]).expect("the layout is writable");
        // The file is read when it was left alone for five milliseconds.
        thread::sleep(Duration::from_millis(8));
        assert_eq!(mounted.names(""), before, "cut after {len} bytes");
    }
    mounted.assert_good("after all cuts");
    fs::write(mounted.ward.index_path(), &whole).expect("the layout is writable");
    mounted.ward.layout.remove_ref("other");
    assert_within(SEEN, "the whole index is seen", || !mounted.shows("other"));
}

#[test]
fn l3_index_of_the_same_size_and_time() {
    if !can_mount("l3_index_of_the_same_size_and_time") {
        return;
    }
    let ward = Ward::new();
    ward.layout.add_ref("before", &ward.good);
    let path = ward.index_path();
    let mounted = ward.mount();
    assert!(mounted.shows("before"));
    let text = fs::read_to_string(&path).expect("index.json is readable");
    let stat = fs::metadata(&path).expect("index.json is there");
    let file = File::options().write(true).open(&path).expect("writable");
    {
        use std::os::unix::fs::FileExt;
        let text = text.replace("before", "behind");
        file.write_all_at(text.as_bytes(), 0).expect("writable");
    }
    file.set_modified(stat.modified().expect("it has a time"))
        .expect("the time can be set");
    let now = fs::metadata(&path).expect("index.json is there");
    assert_eq!(now.len(), stat.len());
    assert_eq!(now.modified().ok(), stat.modified().ok());
    assert_within(SEEN, "the new names", || {
        mounted.shows("behind") && !mounted.shows("before")
    });
}

#[test]
fn l4_duplicate_keys() {
    if !can_mount("l4_duplicate_keys") {
        return;
    }
    let ward = Ward::new();
    let text = ward.manifest_text();
    ward.add_manifest(
        "top",
        text.replacen("\"config\"", "\"config\":{},\"config\"", 1),
    );
    ward.add_manifest(
        "digest",
        text.replacen("\"digest\"", "\"digest\":\"\",\"digest\"", 1),
    );
    let index = r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#;
    ward.layout
        .add_ref("index", &ward.layout.blob(INDEX, index.as_bytes()));
    let mounted = ward.mount();
    for (name, file) in [
        ("top", "manifest.json"),
        ("digest", "manifest.json"),
        ("index", "index.json"),
    ] {
        mounted.assert_bad_ref(name, file, EUCLEAN, "JSON_DUPLICATE_KEY");
    }
    assert_index_refused(
        "index.json",
        index.as_bytes(),
        "duplicate key \"manifests\"",
    );
}

#[test]
fn l5_keys_that_differ_in_case() {
    if !can_mount("l5_keys_that_differ_in_case") {
        return;
    }
    let ward = Ward::new();
    let wrong = format!("\"Digest\":\"sha256:{}\",\"digest\"", "0".repeat(64));
    let text = ward.manifest_text().replace("\"digest\"", &wrong);
    ward.add_manifest("both", &text);
    ward.add_manifest(
        "only",
        ward.manifest_text().replace("\"layers\"", "\"Layers\""),
    );
    let mounted = ward.mount();
    mounted.assert_holds("both", "both/manifest.json", text.as_bytes());
    mounted.assert_holds("both", "both/layers/00.tar", &tar_of(FILES));
    let stderr = mounted.mount.stderr();
    assert!(stderr.contains("\"Digest\" is ignored"), "{stderr}");
    mounted.assert_bad_ref("only", "manifest.json", EUCLEAN, "JSON_MISSING_FIELD");
}

#[test]
fn l6_nesting() {
    if !can_mount("l6_nesting") {
        return;
    }
    const DEPTH: usize = 100_000;
    let nested = "[".repeat(DEPTH) + &"]".repeat(DEPTH);
    let ward = Ward::new();
    let text = ward.manifest_text();
    let unknown = text.replacen('{', &format!("{{\"x\":{nested},"), 1);
    ward.add_manifest("unknown", unknown);
    let annotation = format!("{{\"annotations\":{{\"x\":{nested}}},");
    ward.add_manifest("annotation", text.replacen('{', &annotation, 1));
    let open = text.replacen('{', &format!("{{\"x\":{}", "[".repeat(DEPTH)), 1);
    ward.add_manifest("never-closed", open);
    let mounted = ward.mount();
    for name in ["unknown", "annotation", "never-closed"] {
        mounted.assert_bad_ref(name, "manifest.json", EUCLEAN, "JSON_DEPTH");
    }
    let index = format!(r#"{{"x":{nested},"schemaVersion":2,"manifests":[]}}"#);
    assert_index_refused("index.json", index.as_bytes(), "nested more than 128 deep");
}

#[test]
fn l7_sizes() {
    if !can_mount("l7_sizes") {
        return;
    }
    let rows = [
        ("negative", "-1"),
        ("exponent", "1e3"),
        ("fraction", "1.0"),
        ("two-to-the-63", "9223372036854775808"),
        ("text", "\"12\""),
    ];
    let ward = Ward::new();
    let config_size =
        size_of(&serde_json::from_str::<Value>(&ward.manifest_text()).expect("JSON")["config"]);
    for (row, size) in rows {
        let text = ward.manifest_text().replacen(
            &format!("\"size\":{config_size}"),
            &format!("\"size\":{size}"),
            1,
        );
        assert!(text.contains(size), "{row}: the size is replaced");
        ward.add_manifest(&format!("config/{row}"), text);
        ward.layout.add_ref(&format!("entry/{row}"), &ward.good);
        let index = fs::read_to_string(ward.index_path()).expect("readable");
        let (before, after) = index.rsplit_once("\"size\":").expect("entries have sizes");
        let (_, after) = after.split_once(',').expect("annotations follow");
        ward.layout
            .write_index(format!("{before}\"size\":{size},{after}").as_bytes());
    }
    let nothing = ward.layout.blob(TAR, b"");
    ward.add_image_of("zero", &[nothing]);
    let mounted = ward.mount();
    for (row, _) in rows {
        for place in ["config", "entry"] {
            let name = format!("{place}/{row}");
            mounted.assert_bad_ref(&name, "manifest.json", EUCLEAN, "DESCRIPTOR_SIZE");
        }
    }
    mounted.assert_holds("zero", "zero/layers/00.tar", b"");
}

#[test]
fn l8_index_and_manifest_at_once() {
    if !can_mount("l8_index_and_manifest_at_once") {
        return;
    }
    let ward = Ward::new();
    let text = ward.manifest_text();
    let no_type = text.replacen(&format!("\"mediaType\":\"{MANIFEST}\","), "", 1);
    let both = no_type.replacen('{', "{\"manifests\":[],", 1);
    ward.add_manifest("as-manifest", &both);
    ward.layout
        .add_ref("as-index", &ward.layout.blob(INDEX, both.as_bytes()));
    let null = text.replacen('{', "{\"manifests\":null,", 1);
    ward.add_manifest("null", &null);
    let mounted = ward.mount();
    for (name, file) in [
        ("as-manifest", "manifest.json"),
        ("as-index", "index.json"),
        ("null", "manifest.json"),
    ] {
        mounted.assert_bad_ref(name, file, EUCLEAN, "JSON_AMBIGUOUS_TYPE");
    }
    assert_index_refused(
        "index.json",
        both.as_bytes(),
        "both \"manifests\" and \"layers\"",
    );
}

#[test]
fn l9_media_types_that_disagree() {
    if !can_mount("l9_media_types_that_disagree") {
        return;
    }
    let ward = Ward::new();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string();
    ward.add_manifest("index-says-so", &index);
    ward.add_manifest("index-by-shape", r#"{"schemaVersion":2,"manifests":[]}"#);
    let manifest = ward.manifest_text();
    let no_type = manifest.replacen(&format!("\"mediaType\":\"{MANIFEST}\","), "", 1);
    let as_index = |text: &str| ward.layout.blob(INDEX, text.as_bytes());
    ward.layout
        .add_ref("manifest-says-so", &as_index(&manifest));
    ward.layout
        .add_ref("manifest-by-shape", &as_index(&no_type));
    let long = manifest.replacen(MANIFEST, &format!("{MANIFEST}{}", "x".repeat(1 << 20)), 1);
    ward.add_manifest("long", &long);
    let mounted = ward.mount();
    for (name, file) in [
        ("long", "manifest.json"),
        ("index-says-so", "manifest.json"),
        ("index-by-shape", "manifest.json"),
        ("manifest-says-so", "index.json"),
        ("manifest-by-shape", "index.json"),
    ] {
        mounted.assert_bad_ref(name, file, EUCLEAN, "JSON_MEDIA_TYPE");
    }
}

#[test]
fn l10_index_in_itself() {
    if !can_mount("l10_index_in_itself") {
        return;
    }
    let ward = Ward::new();
    let own = format!("sha256:{}", "a".repeat(64));
    let document = |size: usize| {
        let entry = json!({"mediaType": INDEX, "digest": own, "size": size});
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string()
    };
    let size = document(100).len();
    let descriptor = json!({"mediaType": INDEX, "digest": own, "size": size});
    fs::write(ward.layout.blob_path(&descriptor), document(size)).expect("writable");
    ward.layout.add_ref("itself", &descriptor);
    let mounted = ward.mount();
    mounted.assert_bad_ref("itself", "index.json", EBADMSG, "BLOB_DIGEST");
}

#[test]
fn l10_indexes_nested_deep() {
    if !can_mount("l10_indexes_nested_deep") {
        return;
    }
    // What the program accepts, the outermost counted as 1.
    const LIMIT: usize = 16;
    let ward = Ward::new();
    let mut index = ward.good.clone();
    for _ in 0..1000 {
        index = ward.layout.image_index(&[index]);
    }
    ward.layout.add_ref("deep", &index);
    let mounted = ward.mount();
    let mut path = "deep".to_owned();
    for level in 1..=LIMIT {
        let row = format!("index {level}");
        assert_eq!(mounted.errno(&format!("{path}/index.json")), 0, "{row}");
        let inner = mounted.names(&format!("{path}/platforms"));
        assert_eq!(inner.len(), 1, "{row}: {inner:?}");
        path = format!("{path}/platforms/{}", inner[0]);
    }
    assert_eq!(mounted.names(&path), ["index.json"]);
    let file = format!("{path}/index.json");
    mounted.assert_refused("index 17", &file, EFBIG, "LIMIT_INDEX_DEPTH");
}

#[test]
fn l10_indexes_that_multiply() {
    if !can_mount("l10_indexes_that_multiply") {
        return;
    }
    // Fifteen levels with twenty entries each, all the same: few blobs, 20^15 ways.
    let ward = Ward::new();
    let mut index = ward.good.clone();
    index["platform"] = json!({"os": "plan9", "architecture": "mips"});
    for _ in 0..15 {
        index = ward.layout.image_index(&vec![index; 20]);
    }
    ward.layout.add_ref("many", &index);
    let mounted = ward.mount();
    assert_eq!(mounted.names("many"), ["index.json", "platforms"]);
    assert_eq!(mounted.names("many/platforms").len(), 1);
    assert!(!mounted.names(".ocifs/digests/sha256").is_empty());
    mounted.assert_good("beside it");
}

#[test]
fn l11_huge_manifest() {
    if !can_mount("l11_huge_manifest") {
        return;
    }
    let ward = Ward::new();
    let huge = |media_type: &str, digit: &str| {
        let digest = format!("sha256:{}", digit.repeat(64));
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": 1 << 30});
        let file = File::create(ward.layout.blob_path(&descriptor)).expect("writable");
        file.set_len(1 << 30).expect("sparse files can be made");
        descriptor
    };
    ward.layout.add_ref("manifest", &huge(MANIFEST, "a"));
    ward.layout.add_ref("index", &huge(INDEX, "b"));
    let mut absent = huge(MANIFEST, "c");
    fs::remove_file(ward.layout.blob_path(&absent)).expect("it was just made");
    ward.layout.add_ref("absent", &absent);
    // The blob is short, the descriptor is not.
    absent = ward.layout.blob(MANIFEST, b"{}");
    absent["size"] = json!(1 << 30);
    ward.layout.add_ref("short", &absent);
    let mounted = ward.mount();
    let begun = Instant::now();
    let code = "LIMIT_DOCUMENT_SIZE";
    mounted.assert_bad_ref("manifest", "manifest.json", EFBIG, code);
    mounted.assert_bad_ref("index", "index.json", EFBIG, code);
    mounted.assert_bad_ref("absent", "manifest.json", ENODATA, "BLOB_MISSING");
    mounted.assert_bad_ref("short", "manifest.json", EBADMSG, "BLOB_SIZE");
    assert!(begun.elapsed() < Duration::from_secs(2), "it was read");
    assert!(mounted.mount.peak_memory() < 200 << 20);
}

#[test]
fn l12_ten_thousand_layers() {
    if !can_mount("l12_ten_thousand_layers") {
        return;
    }
    let ward = Ward::new();
    let layer = ward.layer.descriptor.clone();
    ward.add_image_of("too-many", &vec![layer.clone(); 10_001]);
    ward.add_image_of("just-right", &vec![layer; 4_096]);
    let mounted = ward.mount();
    assert_eq!(
        mounted.names(""),
        ["good", "incoming", "just-right", "too-many"]
    );
    mounted.assert_bad_ref("too-many", "manifest.json", EFBIG, "LIMIT_LAYERS");
    // Each with its tree and the link to its blob.
    assert_eq!(mounted.names("just-right/layers").len(), 3 * 4_096);
    let last = "just-right/layers/4095.tar";
    mounted.assert_holds("just-right", last, &tar_of(FILES));
}

/// Puts `digest` at each place where a descriptor stands, and returns the files that
/// must say so.
fn add_digest_everywhere(ward: &Ward, row: &str, digest: &str) -> [(String, &'static str); 5] {
    let descriptor =
        |media_type: &str| json!({"mediaType": media_type, "digest": digest, "size": 2});
    let layout = &ward.layout;
    let name = |place: &str| format!("{place}/{row}");
    layout.add_ref(&name("entry"), &descriptor(MANIFEST));
    layout.add_ref(&name("index-entry"), &descriptor(INDEX));
    ward.add_image_of(&name("layer"), &[descriptor(TAR)]);
    let members = json!({"config": descriptor(CONFIG), "layers": []});
    layout.add_ref(&name("config"), &layout.manifest(&members));
    layout.add_ref(&name("index"), &layout.image_index(&[descriptor(MANIFEST)]));
    [
        (name("entry"), "manifest.json"),
        (name("index-entry"), "index.json"),
        (name("layer"), "manifest.json"),
        (name("config"), "manifest.json"),
        (name("index"), "index.json"),
    ]
}

#[test]
fn l13_digest_that_climbs() {
    if !can_mount("l13_digest_that_climbs") {
        return;
    }
    let ward = Ward::new();
    let rows = [
        ("passwd", "sha256:../../../../etc/passwd"),
        ("absolute", "sha256:/etc/passwd"),
        ("algorithm", "../sha256:00"),
        ("dots", "..:.."),
        ("slash", "sha256/x:00"),
    ];
    let places: Vec<_> = rows
        .iter()
        .flat_map(|(row, digest)| add_digest_everywhere(&ward, row, digest))
        .collect();
    let mounted = ward.mount();
    for (name, file) in &places {
        mounted.assert_bad_ref(name, file, EUCLEAN, "DIGEST_GRAMMAR");
    }
}

#[test]
fn l14_digests_that_are_none() {
    if !can_mount("l14_digests_that_are_none") {
        return;
    }
    let ward = Ward::new();
    let hex = |len: usize| "a".repeat(len);
    let rows = [
        ("upper", format!("sha256:{}", "A".repeat(64))),
        ("63", format!("sha256:{}", hex(63))),
        ("65", format!("sha256:{}", hex(65))),
        ("nul", format!("sha256:{}\0", hex(63))),
        ("algorithm", format!("SHA256:{}", hex(64))),
        ("empty", String::new()),
        ("no-colon", hex(64)),
        ("nothing-after", "sha256:".to_owned()),
        ("sha512-short", format!("sha512:{}", hex(64))),
        ("long", format!("x:{}", hex(100_000))),
    ];
    let places: Vec<_> = rows
        .iter()
        .flat_map(|(row, digest)| add_digest_everywhere(&ward, row, digest))
        .collect();
    let mounted = ward.mount();
    for (name, file) in &places {
        mounted.assert_bad_ref(name, file, EUCLEAN, "DIGEST_GRAMMAR");
    }
}

/// Stores bytes under their sha512 digest.
fn sha512_blob(layout: &TestLayout, media_type: &str, bytes: &[u8]) -> Value {
    let mut hasher = Hasher::new(Algorithm::Sha512).expect("it is known");
    hasher.update(bytes);
    store_as(layout, media_type, hasher.finish().as_str(), bytes)
}

/// Stores bytes under any digest.
fn store_as(layout: &TestLayout, media_type: &str, digest: &str, bytes: &[u8]) -> Value {
    let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
    let path = layout.blob_path(&descriptor);
    fs::create_dir_all(path.parent().expect("it has one")).expect("the layout is writable");
    fs::write(path, bytes).expect("the layout is writable");
    descriptor
}

#[test]
fn l15_other_algorithms() {
    if !can_mount("l15_other_algorithms") {
        return;
    }
    let ward = Ward::new();
    let layout = &ward.layout;
    let tar = compress(Compression::Gzip, &tar_of(FILES));
    let layer = sha512_blob(layout, TAR_GZIP, &tar);
    let config = sha512_blob(layout, CONFIG, b"{}");
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
    let sha512 = sha512_blob(layout, MANIFEST, manifest.as_bytes());
    layout.add_ref("sha512", &sha512);
    layout.add_entry(&sha512);
    let mut damaged = sha512_blob(layout, MANIFEST, b"{\"a\":1}");
    fs::write(layout.blob_path(&damaged), b"{\"a\":2}").expect("the layout is writable");
    layout.add_ref("sha512-damaged", &damaged);

    let b64 = store_as(
        layout,
        MANIFEST,
        "sha256+b64:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564",
        b"{}",
    );
    layout.add_ref("b64", &b64);
    layout.add_entry(&b64);
    let unknown = format!("blake3:{}", "0".repeat(64));
    damaged = store_as(layout, TAR_GZIP, &unknown, &tar);
    ward.add_image_of("blake3", &[damaged]);
    let missing = json!({"mediaType": MANIFEST, "digest": "other:x", "size": 2});
    layout.add_ref("other-missing", &missing);

    let mounted = ward.mount();
    mounted.assert_holds("sha512", "sha512/manifest.json", manifest.as_bytes());
    mounted.assert_holds("sha512", "sha512/config.json", b"{}");
    mounted.assert_holds("sha512", "sha512/layers/00.tar", &tar_of(FILES));
    mounted.assert_holds("sha512", "sha512/layers/00.tar.gz", &tar);
    let digest = sha512["digest"].as_str().expect("it is text");
    let unnamed = format!("{digest}/manifest.json");
    mounted.assert_holds("unnamed", &unnamed, manifest.as_bytes());
    mounted.assert_bad_ref("sha512-damaged", "manifest.json", EBADMSG, "BLOB_DIGEST");
    mounted.assert_bad_ref("b64", "manifest.json", EOPNOTSUPP, "DIGEST_ALGORITHM");
    let layer = "blake3/layers/00.tar";
    mounted.assert_refused("blake3", layer, EOPNOTSUPP, "DIGEST_ALGORITHM");
    mounted.assert_bad_ref("other-missing", "manifest.json", ENODATA, "BLOB_MISSING");
    // Without a name it is nowhere but by its digest.
    let of_b64 = |name: &String| name.contains("LCa0a2j");
    assert!(!mounted.names("").iter().any(of_b64));
    assert!(
        mounted
            .names(".ocifs/digests/sha256+b64")
            .iter()
            .any(of_b64)
    );
}

#[test]
fn l16_names_that_could_collide() {
    if !can_mount("l16_names_that_could_collide") {
        return;
    }
    let long = "x".repeat(300);
    let hash = Digest::of(long.as_bytes());
    let shortened = format!("{}~{}", &long[..238], &hash.encoded()[..16]);
    let names = [
        "incoming",
        "%69ncoming",
        "",
        "%",
        "%25",
        ".",
        "%2E",
        "..",
        "%2E.",
        "a\nb",
        "a%0Ab",
        "a%0ab",
        "x/layers",
        "x/%6Cayers",
        &long,
        &shortened,
    ];
    let ward = Ward::new();
    let mut manifests = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let members = json!({"annotations": {"number": number.to_string()}});
        let mut text: Value = serde_json::from_str(&ward.manifest_text()).expect("JSON");
        text["annotations"] = members["annotations"].clone();
        manifests.push(text.to_string());
        ward.add_manifest(name, text.to_string());
    }
    let mounted = ward.mount();
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    let dirs = mounted.names("").into_iter();
    let below = mounted
        .names("x")
        .into_iter()
        .map(|name| format!("x/{name}"));
    for dir in dirs.chain(below) {
        if let Some(name) = mounted.xattr(&dir, "ref") {
            let manifest = mounted.read(&format!("{dir}/manifest.json"));
            found.push((
                name,
                manifest.unwrap_or_else(|error| panic!("{dir:?}: {error}")),
            ));
        }
    }
    assert_eq!(found.len(), names.len() + 1, "each name has its directory");
    for (name, manifest) in names.iter().zip(&manifests) {
        let shown = found.iter().find(|(shown, _)| shown == name);
        let (_, bytes) = shown.unwrap_or_else(|| panic!("{name:?} is not shown"));
        assert_eq!(bytes, manifest.as_bytes(), "{name:?}");
    }
}

#[test]
fn l17_names() {
    if !can_mount("l17_names") {
        return;
    }
    let longest = "n".repeat(4_096);
    let too_long = "t".repeat(4_097);
    let short = |name: &str| {
        let hash = Digest::of(name.as_bytes());
        format!("{}~{}", &name[..238], &hash.encoded()[..16])
    };
    let rows = [
        ("..", "%2E.".to_owned()),
        (".", "%2E".to_owned()),
        ("", "%".to_owned()),
        ("a/b", "a/b".to_owned()),
        (&longest, short(&longest)),
        ("new\nline", "new%0Aline".to_owned()),
        ("\u{1b}[2J", "%1B[2J".to_owned()),
        ("bidi\u{202e}txt", "bidi\u{202e}txt".to_owned()),
    ];
    let ward = Ward::new();
    for (name, _) in &rows {
        ward.layout.add_ref(name, &ward.good);
    }
    ward.layout.add_ref(&too_long, &ward.good);
    let manifest = ward.manifest_text();
    let mounted = ward.mount();
    for (name, path) in &rows {
        let file = format!("{path}/manifest.json");
        mounted.assert_holds(&format!("{name:?}"), &file, manifest.as_bytes());
        assert_eq!(
            mounted.xattr(path, "ref").as_deref(),
            Some(*name),
            "{name:?}"
        );
    }
    mounted.assert_bad_ref(&short(&too_long), "manifest.json", EFBIG, "LIMIT_REF_NAME");
    let surrogate = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{MANIFEST}","digest":"{}","size":2,"annotations":{{"{REF_NAME}":"\ud800"}}}}]}}"#,
        Digest::of(b"{}"),
    );
    assert_index_refused("lone surrogate", surrogate.as_bytes(), "invalid JSON");
}

#[test]
fn l17_names_of_many_levels() {
    if !can_mount("l17_names_of_many_levels") {
        return;
    }
    let rows = [
        ("longest", "/".repeat(4_096)),
        ("a million levels", "a/".repeat(1_000_000)),
    ];
    for (row, name) in rows {
        for key in [REF_NAME, "io.containerd.image.name"] {
            let ward = Ward::new();
            let mut entry = ward.good.clone();
            entry["annotations"][key] = json!(name);
            let mounted = ward.mount();
            // While it is mounted: another thread reads the index then, with less stack.
            mounted.ward.layout.add_entry(&entry);
            assert_within(SEEN, row, || mounted.names("").len() == 3);
            mounted
                .ward
                .layout
                .write_entries(&mounted.ward.layout.entries()[..1]);
            assert_within(SEEN, row, || mounted.names("").len() == 2);
            mounted.assert_good(row);
            assert!(mounted.mount.peak_memory() < 200 << 20, "{row}");
        }
    }
}

#[test]
fn l18_one_name_twice() {
    if !can_mount("l18_one_name_twice") {
        return;
    }
    let ward = Ward::new();
    let images: Vec<Value> = (0..3)
        .map(|number| {
            ward.layout
                .image_with(&[], &json!({"author": number.to_string()}))
        })
        .collect();
    for image in &images {
        ward.layout.add_ref("app:1", image);
    }
    let manifests: Vec<Vec<u8>> = images
        .iter()
        .map(|image| fs::read(ward.layout.blob_path(image)).expect("readable"))
        .collect();
    let mounted = ward.mount();
    mounted.assert_holds("the last", "app:1/manifest.json", &manifests[2]);
    for (image, manifest) in images.iter().zip(&manifests) {
        let dir = format!("app:1@{}", image["digest"].as_str().expect("text"));
        mounted.assert_holds(&dir, &format!("{dir}/manifest.json"), manifest);
        assert_eq!(mounted.xattr(&dir, "ref").as_deref(), Some("app:1"));
    }
    assert_eq!(mounted.names("").len(), 6);
    let stderr = mounted.mount.stderr();
    assert!(stderr.contains("REF_DUPLICATE"), "{stderr}");
}

#[test]
fn l19_many_refs_to_one_digest() {
    if !can_mount("l19_many_refs_to_one_digest") {
        return;
    }
    const REFS: usize = 100_000;
    let ward = Ward::new();
    let names = (0..REFS).map(|number| format!("app:{number}"));
    ward.layout.add_refs(names, &ward.good);
    let manifest = ward.manifest_text();
    let mounted = ward.mount();
    assert_eq!(mounted.names("").len(), REFS + 2);
    for number in [0, 1, 54_321, REFS - 1] {
        let path = format!("app:{number}/manifest.json");
        mounted.assert_holds("one of many", &path, manifest.as_bytes());
    }
    mounted.assert_good("beside many");
}

#[test]
fn l20_embedded_data() {
    if !can_mount("l20_embedded_data") {
        return;
    }
    let ward = Ward::new();
    let with_data = |descriptor: &Value, data: &str| {
        let mut descriptor = descriptor.clone();
        descriptor["data"] = json!(data);
        descriptor
    };
    // base64 of `{}`, of `{ }`, of `[]`.
    let empty = ward.layout.blob(CONFIG, b"{}");
    let config = |data: &str| json!({"config": with_data(&empty, data), "layers": []});
    let rows = [
        ("right", "e30=", None),
        ("size", "eyB9", Some("BLOB_SIZE")),
        ("content", "W10=", Some("BLOB_DIGEST")),
        ("no-base64", "{}", Some("BLOB_DIGEST")),
    ];
    for (row, data, _) in rows {
        ward.layout
            .add_ref(row, &ward.layout.manifest(&config(data)));
    }
    // The manifest itself, known and right under other names.
    ward.layout
        .add_ref("manifest", &with_data(&ward.good, "e30="));
    let layer = with_data(&ward.layer.descriptor, "e30=");
    ward.add_image_of("layer", &[layer]);
    let mounted = ward.mount();
    mounted.assert_good("first");
    for (row, _, code) in rows {
        let path = format!("{row}/config.json");
        match code {
            None => mounted.assert_holds(row, &path, b"{}"),
            Some(code) => mounted.assert_refused(row, &path, EBADMSG, code),
        }
    }
    mounted.assert_bad_ref("manifest", "manifest.json", EBADMSG, "BLOB_SIZE");
    mounted.assert_refused("layer", "layer/layers/00.tar", EBADMSG, "BLOB_SIZE");
}

#[test]
fn l21_layout_files() {
    let marker = |text: &str| {
        let layout = TestLayout::new();
        fs::write(layout.path().join("oci-layout"), text).expect("writable");
        layout
    };
    let layout = TestLayout::new();
    let path = layout.path().join("oci-layout");
    fs::remove_file(&path).expect("it is there");
    assert_no_mount("missing", layout.path(), NOT_FOUND, "oci-layout is missing");
    fs::create_dir(&path).expect("writable");
    let text = "oci-layout is a directory, not a regular file";
    assert_no_mount("directory", layout.path(), CORRUPT, text);
    fs::remove_dir(&path).expect("it is empty");
    symlink("elsewhere", &path).expect("writable");
    assert_no_mount(
        "symlink",
        layout.path(),
        CORRUPT,
        "oci-layout is a symbolic link",
    );
    fs::remove_file(&path).expect("it is there");
    fifo(&path);
    assert_no_mount("FIFO", layout.path(), CORRUPT, "oci-layout is a FIFO");

    let layout = marker(r#"{"imageLayoutVersion":"2.0.0"}"#);
    let text = "oci-layout says version \"2.0.0\"; only 1.0.0 is supported";
    assert_no_mount("version 2.0.0", layout.path(), CORRUPT, text);
    let layout = marker("{}");
    assert_no_mount(
        "no version",
        layout.path(),
        CORRUPT,
        "has no \"imageLayoutVersion\"",
    );
    let layout = marker("");
    assert_no_mount("empty", layout.path(), CORRUPT, "oci-layout");
    let layout = marker("x");
    let file = File::options()
        .write(true)
        .open(layout.path().join("oci-layout"));
    file.and_then(|file| file.set_len(1 << 30))
        .expect("sparse files can be made");
    let text = "1073741824 is over the limit of 65536";
    assert_no_mount("1 GiB", layout.path(), CORRUPT, text);
}

#[test]
fn l21_layout_directory() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let missing = dir.path().join("missing");
    // The mount point is looked at first, and compared with the layout's real path.
    match MountOptions::new(&missing).try_start() {
        Ok(_) => panic!("it is mounted"),
        Err(failure) => {
            let code = failure.status.and_then(|status| status.code());
            assert!(code.is_some_and(|code| code != 0), "{}", failure.stderr);
        }
    }
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).expect("writable");
    assert_no_mount(
        "empty directory",
        &empty,
        NOT_FOUND,
        "oci-layout is missing",
    );
    let layout = TestLayout::new();
    fs::remove_file(layout.path().join("index.json")).expect("it is there");
    assert_no_mount(
        "no index.json",
        layout.path(),
        NOT_FOUND,
        "index.json is missing",
    );
}

#[test]
fn l22_blobs_missing() {
    if !can_mount("l22_blobs_missing") {
        return;
    }
    let ward = Ward::new();
    let (blobs, aside) = (
        ward.layout.path().join("blobs"),
        ward.layout.path().join("aside"),
    );
    fs::rename(&blobs, &aside).expect("writable");
    let mounted = ward.mount();
    assert_eq!(mounted.names("good"), ["manifest.json"]);
    assert_eq!(errno_name(mounted.errno("good/manifest.json")), "ENODATA");
    let error = mounted
        .xattr("good/manifest.json", "error")
        .unwrap_or_default();
    assert!(error.starts_with("BLOB_MISSING: "), "{error}");
    assert!(mounted.names(".ocifs/layout/blobs").is_empty());
    fs::rename(&aside, &blobs).expect("writable");
    mounted.assert_good("when the blobs are back");
}

#[test]
fn l22_blobs_elsewhere() {
    if !can_mount("l22_blobs_elsewhere") {
        return;
    }
    let ward = Ward::new();
    let outside = tempfile::tempdir().expect("a temporary directory can be made");
    let (blobs, moved) = (
        ward.layout.path().join("blobs"),
        outside.path().join("blobs"),
    );
    crate::common::run_ok("mv", &[&blobs, &moved]);
    symlink(&moved, &blobs).expect("writable");
    let text = "blobs is a symbolic link";
    assert_no_mount("symlink", ward.layout.path(), CORRUPT, text);
    fs::remove_file(&blobs).expect("it is a link");
    fs::write(&blobs, b"").expect("writable");
    assert_no_mount("file", ward.layout.path(), CORRUPT, "not a directory");
    fs::remove_file(&blobs).expect("it is a file");
    // A link one level further down: each blob is refused.
    fs::create_dir(&blobs).expect("writable");
    symlink(moved.join("sha256"), blobs.join("sha256")).expect("writable");
    let mounted = ward.mount();
    let path = "good/manifest.json";
    assert_eq!(errno_name(mounted.errno(path)), "EUCLEAN");
    let error = mounted.xattr(path, "error").unwrap_or_default();
    assert!(error.starts_with("LAYOUT_FILE_TYPE: "), "{error}");
    // What the user names is another matter.
    fs::remove_file(blobs.join("sha256")).expect("it is a link");
    let options = MountOptions::new(mounted.ward.layout.path());
    let manifest = fs::read(
        moved
            .join("sha256")
            .join(crate::common::digest_of(&mounted.ward.good).encoded()),
    );
    let shared = options.arg("--shared-blobs").arg(&moved).start();
    let read = fs::read(shared.join(path)).expect("it is in the shared directory");
    assert_eq!(read, manifest.expect("it was moved there"));
}

#[test]
fn l23_index_that_is_no_file() {
    if !can_mount("l23_index_that_is_no_file") {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let elsewhere = dir.path().join("index.json");
    fs::write(&elsewhere, r#"{"schemaVersion":2,"manifests":[]}"#).expect("writable");
    type Make<'a> = &'a dyn Fn(&Path);
    let socket = |path: &Path| drop(UnixListener::bind(path).expect("it can be bound"));
    let rows: &[(&str, Make<'_>, &str)] = &[
        ("FIFO", &fifo, "index.json is a FIFO"),
        ("socket", &socket, "index.json is a special file"),
        (
            "directory",
            &|path| fs::create_dir(path).expect("writable"),
            "index.json is a directory",
        ),
        (
            "symlink",
            &|path| symlink(&elsewhere, path).expect("writable"),
            "index.json is a symbolic link",
        ),
        (
            "device",
            &|path| symlink("/dev/null", path).expect("writable"),
            "index.json is a symbolic link",
        ),
    ];
    for (row, make, text) in rows {
        let layout = TestLayout::new();
        let path = layout.path().join("index.json");
        fs::remove_file(&path).expect("it is there");
        make(&path);
        assert_no_mount(row, layout.path(), CORRUPT, text);

        // While it is mounted.
        let mounted = Ward::new().mount();
        let path = mounted.ward.index_path();
        let bytes = fs::read(&path).expect("index.json is readable");
        fs::remove_file(&path).expect("it is there");
        make(&path);
        thread::sleep(Duration::from_millis(100));
        mounted.assert_good(row);
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir(&path).expect("it is empty");
        }
        mounted.ward.layout.write_index(&bytes);
        mounted.ward.layout.add_ref("second", &mounted.ward.good);
        assert_within(SEEN, row, || mounted.shows("second"));
    }
}

#[test]
fn l24_what_is_around_the_json() {
    if !can_mount("l24_what_is_around_the_json") {
        return;
    }
    let ward = Ward::new();
    let text = ward.manifest_text();
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let with_mark = [&[0xff, 0xfe][..], &utf16].concat();
    let rows: [(&str, Vec<u8>, &str); 7] = [
        (
            "bom",
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            "JSON_ENCODING",
        ),
        ("utf-16", utf16, "JSON_SYNTAX"),
        ("utf-16-bom", with_mark, "JSON_ENCODING"),
        ("garbage", format!("{text}x").into_bytes(), "JSON_SYNTAX"),
        ("two", format!("{text}{text}").into_bytes(), "JSON_SYNTAX"),
        ("nul", format!("{text}\0").into_bytes(), "JSON_SYNTAX"),
        (
            "latin-1",
            text.replace("layers", "l\u{0}yers")
                .replace('\u{0}', "\u{e4}")
                .chars()
                .map(|c| u8::try_from(u32::from(c)).expect("latin"))
                .collect(),
            "JSON_ENCODING",
        ),
    ];
    for (row, bytes, _) in &rows {
        ward.add_manifest(row, bytes);
    }
    let spaced = format!(" \n{text}\r\n\t ");
    ward.add_manifest("space", &spaced);
    let mounted = ward.mount();
    for (row, _, code) in &rows {
        mounted.assert_bad_ref(row, "manifest.json", EUCLEAN, code);
    }
    mounted.assert_holds("space", "space/manifest.json", spaced.as_bytes());
    let index = r#"{"schemaVersion":2,"manifests":[]}"#;
    assert_index_refused(
        "bom",
        &[b"\xef\xbb\xbf", index.as_bytes()].concat(),
        "byte order mark",
    );
    assert_index_refused("garbage", format!("{index}x").as_bytes(), "invalid JSON");
    assert_index_refused("two", format!("{index}{index}").as_bytes(), "invalid JSON");
}

#[test]
fn l25_unknown_members_and_files() {
    if !can_mount("l25_unknown_members_and_files") {
        return;
    }
    let ward = Ward::new();
    let entries = json!(ward.layout.entries());
    let index = format!(
        r#"{{"x-vendor":{{"b":1,"a":[2.50,null]}},"schemaVersion":2,"manifests":{entries},"annotations":{{"k":"v"}}}}"#
    );
    ward.layout.write_index(index.as_bytes());
    let dir = ward.layout.path();
    fs::write(dir.join("manifest.json"), b"[]").expect("writable");
    fs::write(dir.join(".umoci-123"), b"").expect("writable");
    fs::create_dir_all(dir.join("ingest/abc")).expect("writable");
    fs::write(dir.join("blobs/sha256/tmp-1"), b"half a blob").expect("writable");
    let text = ward.manifest_text();
    let odd = text.replacen('{', r#"{"x":{"digest":1,"size":"no"},"#, 1);
    ward.add_manifest("members", &odd);
    let index = fs::read(ward.index_path()).expect("readable");
    let mounted = ward.mount();
    assert_eq!(mounted.names(""), ["good", "incoming", "members"]);
    mounted.assert_holds("members", "members/manifest.json", odd.as_bytes());
    mounted.assert_holds("index.json", ".ocifs/layout/index.json", &index);
    let shown = mounted.names(".ocifs/layout");
    assert_eq!(shown, ["blobs", "index.json", "oci-layout"]);
    let blobs = mounted.names(".ocifs/layout/blobs/sha256");
    assert!(!blobs.iter().any(|name| name == "tmp-1"), "{blobs:?}");
    mounted.assert_good("beside foreign files");
    for kept in [
        "manifest.json",
        ".umoci-123",
        "ingest/abc",
        "blobs/sha256/tmp-1",
    ] {
        assert!(mounted.ward.layout.path().join(kept).exists(), "{kept}");
    }
}

#[test]
fn l26_configs() {
    if !can_mount("l26_configs") {
        return;
    }
    let ward = Ward::new();
    let layers = std::slice::from_ref(&ward.layer);
    let env: Vec<String> = (0..1_000_000).map(|number| format!("V{number}=")).collect();
    let large = ward
        .layout
        .image_with(layers, &json!({"config": {"Env": env}}));
    ward.layout.add_ref("env", &large);
    let text = fs::read(ward.layout.blob_path(&large)).expect("readable");
    let manifest: Value = serde_json::from_slice(&text).expect("JSON");
    let config = fs::read(ward.layout.blob_path(&manifest["config"])).expect("readable");
    let rootfs = |diff_ids: Value| json!({"rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let other = Digest::of(b"another tar");
    let rows = [
        ("too-few", rootfs(json!([]))),
        (
            "too-many",
            rootfs(json!([ward.layer.diff_id.as_str(), other.as_str()])),
        ),
        ("malformed", rootfs(json!(["sha256:xyz"]))),
        ("wrong", rootfs(json!([other.as_str()]))),
    ];
    for (row, extra) in &rows {
        ward.layout
            .add_ref(row, &ward.layout.image_with(layers, extra));
    }
    for (row, text) in [("no-json", "{"), ("no-object", "[]")] {
        let config = ward.layout.blob(CONFIG, text.as_bytes());
        let layers = [ward.layer.descriptor.clone()];
        let members = json!({"config": config, "layers": layers});
        ward.layout.add_ref(row, &ward.layout.manifest(&members));
    }
    let mounted = ward.mount();
    mounted.assert_holds("env", "env/config.json", &config);
    // Without DiffIDs nothing is claimed of the layer, so it is what its digest says.
    for row in [
        "env",
        "too-few",
        "too-many",
        "malformed",
        "no-json",
        "no-object",
    ] {
        let path = format!("{row}/layers/00.tar");
        mounted.assert_holds(row, &path, &tar_of(FILES));
        if row != "env" {
            assert_eq!(mounted.xattr(&path, "diff-id"), None, "{row}");
        }
    }
    mounted.assert_holds("no-json", "no-json/config.json", b"{");
    let wrong = "wrong/layers/00.tar";
    mounted.assert_refused("wrong", wrong, EBADMSG, "LAYER_DIFF_ID");
    assert!(mounted.mount.peak_memory() < 300 << 20);
}

#[test]
fn l27_artifacts() {
    if !can_mount("l27_artifacts") {
        return;
    }
    let rows = [
        (
            "helm",
            "application/vnd.cncf.helm.config.v1+json",
            "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
            "00.tar.gz",
        ),
        (
            "wasm",
            "application/vnd.wasm.config.v0+json",
            "application/wasm",
            "00.wasm",
        ),
        (
            "cosign",
            CONFIG,
            "application/vnd.dev.cosign.simplesigning.v1+json",
            "00.json",
        ),
        (
            "sbom",
            "application/vnd.oci.empty.v1+json",
            "application/spdx+json",
            "00.json",
        ),
        ("unknown", "application/x", "what is this?", "00.bin"),
        (
            "empty",
            "application/vnd.oci.empty.v1+json",
            "application/vnd.oci.empty.v1+json",
            "00.json",
        ),
    ];
    let ward = Ward::new();
    for (row, config, layer, _) in &rows {
        let config = ward.layout.blob(config, b"{}");
        let layer = ward.layout.blob(layer, row.as_bytes());
        let members = json!({"artifactType": "a/b", "config": config, "layers": [layer], "subject": ward.good});
        ward.layout.add_ref(row, &ward.layout.manifest(&members));
    }
    let mounted = ward.mount();
    for (row, _, media_type, file) in &rows {
        let names = mounted.names(row);
        assert_eq!(
            names,
            [
                "config.json",
                "export",
                "files",
                "layers",
                "manifest.json",
                "referrers"
            ],
            "{row}"
        );
        assert_eq!(
            errno_name(mounted.errno(&format!("{row}/rootfs"))),
            "ENOENT",
            "{row}"
        );
        assert_eq!(mounted.names(&format!("{row}/layers")), [*file], "{row}");
        let path = format!("{row}/layers/{file}");
        mounted.assert_holds(row, &path, row.as_bytes());
        assert_eq!(
            mounted.xattr(&path, "media-type").as_deref(),
            Some(*media_type),
            "{row}"
        );
        mounted.assert_holds(row, &format!("{row}/config.json"), b"{}");
    }
    mounted.assert_good("beside artifacts");
}

#[test]
fn l28_docker_manifests() {
    if !can_mount("l28_docker_manifests") {
        return;
    }
    const SCHEMA2: &str = "application/vnd.docker.distribution.manifest.v2+json";
    const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    let ward = Ward::new();
    let text = ward
        .manifest_text()
        .replace(MANIFEST, SCHEMA2)
        .replace(CONFIG, "application/vnd.docker.container.image.v1+json")
        .replace(
            TAR_GZIP,
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        );
    let mut image = ward.layout.blob(SCHEMA2, text.as_bytes());
    ward.layout.add_ref("schema2", &image);
    image["platform"] = json!({"os": "linux", "architecture": crate::common::host_architecture()});
    let list = json!({"schemaVersion": 2, "mediaType": LIST, "manifests": [image]});
    ward.layout.add_ref("list", &ward.layout.json(LIST, &list));
    let schema1 = br#"{"schemaVersion":1,"name":"x","fsLayers":[],"history":[]}"#;
    for (row, media_type) in [
        ("v1", "application/vnd.docker.distribution.manifest.v1+json"),
        (
            "v1-signed",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
        ),
        ("v1-as-v2", SCHEMA2),
    ] {
        ward.layout
            .add_ref(row, &ward.layout.blob(media_type, schema1));
    }
    let mounted = ward.mount();
    for dir in ["schema2", "list"] {
        mounted.assert_holds(dir, &format!("{dir}/manifest.json"), text.as_bytes());
        mounted.assert_holds(dir, &format!("{dir}/layers/00.tar"), &tar_of(FILES));
    }
    mounted.assert_holds("list", "list/index.json", list.to_string().as_bytes());
    for row in ["v1", "v1-signed", "v1-as-v2"] {
        mounted.assert_bad_ref(row, "manifest.json", EOPNOTSUPP, "MANIFEST_SCHEMA1");
    }
}

#[test]
fn l29_encrypted_and_foreign_layers() {
    if !can_mount("l29_encrypted_and_foreign_layers") {
        return;
    }
    let server = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    server.set_nonblocking(true).expect("it can be asked");
    let url = format!("http://{}/layer", server.local_addr().expect("it has one"));
    let ward = Ward::new();
    let encrypted = format!("{TAR_GZIP}+encrypted");
    let encrypted = ward.layout.blob(&encrypted, b"ciphertext");
    ward.add_image_of("encrypted", &[encrypted]);
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let mut absent = json!({"mediaType": foreign, "digest": Digest::of(b"x").as_str(), "size": 1});
    absent["urls"] = json!([url]);
    ward.add_image_of("absent", &[absent]);
    let mut present = ward.layer.descriptor.clone();
    present["mediaType"] = json!(foreign);
    present["urls"] = json!([url]);
    ward.add_image_of("present", &[present]);
    let mounted = ward.mount();
    let path = "encrypted/layers/00.tar";
    mounted.assert_refused("encrypted", path, EOPNOTSUPP, "LAYER_ENCRYPTED");
    let path = "absent/layers/00.tar";
    mounted.assert_refused("absent", path, ENODATA, "BLOB_MISSING");
    mounted.assert_holds("present", "present/layers/00.tar", &tar_of(FILES));
    let asked = in_time("accept", Duration::from_secs(1), move || server.accept());
    assert!(asked.is_err(), "somebody went to the network");
}
