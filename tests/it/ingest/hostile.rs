//! What is refused, and why; the layout is byte for byte as it was.

use ocifs::ingest::{ErrorClass, IngestOptions, Kind};
use ocifs::oci::Digest;
use serde_json::{Value, json};

use super::super::common::{
    Compression, Fingerprint, TarHeader, Tarball, TestLayout, compress, digest_of, size_of, tar_of,
};
use super::{
    TestResult, WAYS, Way, docker_config, docker_manifest, document, import, members_of,
    oci_archive, prepare, refused, tar,
};

type Rows = Vec<(&'static str, Vec<u8>, &'static str, ErrorClass)>;

use ErrorClass::{Limit, Malformed, Mismatch, Missing, Unsupported};

/// A layout with an image `app:1` of one layer, and a layer for another one.
struct Sample {
    layout: TestLayout,
    manifest: Value,
}

impl Sample {
    fn new() -> Self {
        let layout = TestLayout::new();
        let image = layout.image(&[layout.layer(Compression::Gzip, &[("a", b"1")])]);
        layout.add_ref("app:1", &image);
        let manifest = document(&layout, &image);
        Self { layout, manifest }
    }

    /// The archive, with its members changed.
    fn archive(&self, change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
        let mut members = members_of(&self.layout);
        change(&mut members);
        tar(&members)
    }

    fn layer_path(&self) -> String {
        path(&self.manifest["layers"][0])
    }
}

fn path(descriptor: &Value) -> String {
    format!("blobs/sha256/{}", digest_of(descriptor).encoded())
}

fn member<'a>(members: &'a mut [(String, Vec<u8>)], path: &str) -> &'a mut Vec<u8> {
    let found = members.iter_mut().find(|(name, _)| name == path);
    &mut found.expect("the archive has it").1
}

fn refuse_all(rows: Rows) {
    let layout = TestLayout::new();
    layout.add_ref(
        "kept",
        &layout.image(&[layout.layer(Compression::None, &[("k", b"")])]),
    );
    for (name, bytes, code, class) in rows {
        refused(&layout, name, "x.tar", &bytes, (code, class));
    }
}

#[test]
fn layouts_in_tars_that_are_not_right() {
    let sample = Sample::new();
    let layer = sample.layer_path();
    let image = sample.layout.entries().remove(0);
    let index = |value: Value| {
        sample.archive(|members| *member(members, "index.json") = value.to_string().into_bytes())
    };
    let entry = |change: &dyn Fn(&mut Value)| {
        let mut entry = image.clone();
        change(&mut entry);
        index(json!({"schemaVersion": 2, "manifests": [entry]}))
    };
    let without = |path: &str| sample.archive(|members| members.retain(|(name, _)| name != path));
    let rows: Rows = vec![
        (
            "N2 a member's bytes differ from its name",
            sample.archive(|members| member(members, &layer)[3] ^= 1),
            "BLOB_DIGEST",
            Mismatch,
        ),
        (
            "B1 a member is longer than its descriptor says",
            sample.archive(|members| member(members, &layer).push(0)),
            "BLOB_SIZE",
            Mismatch,
        ),
        (
            "N2 the size in the index lies",
            entry(&|entry| entry["size"] = json!(size_of(&image) + 1)),
            "BLOB_SIZE",
            Mismatch,
        ),
        (
            "N3 a layer is missing",
            without(&layer),
            "COMMIT_INCOMPLETE",
            Missing,
        ),
        (
            "N3 the manifest is missing",
            without(&path(&image)),
            "COMMIT_INCOMPLETE",
            Missing,
        ),
        (
            "no index",
            without("index.json"),
            "COMMIT_INCOMPLETE",
            Missing,
        ),
        (
            "no entry",
            index(json!({"schemaVersion": 2, "manifests": []})),
            "ARCHIVE_EMPTY",
            Malformed,
        ),
        (
            "no list",
            index(json!({"schemaVersion": 2})),
            "JSON_MISSING_FIELD",
            Malformed,
        ),
        (
            "L13 a digest that climbs",
            entry(&|entry| entry["digest"] = json!("sha256:../../../../etc/passwd")),
            "DIGEST_GRAMMAR",
            Malformed,
        ),
        (
            "L7 a negative size",
            entry(&|entry| entry["size"] = json!(-1)),
            "DESCRIPTOR_SIZE",
            Malformed,
        ),
        (
            "L9 the entry says index, the blob is a manifest",
            entry(&|entry| entry["mediaType"] = json!("application/vnd.oci.image.index.v1+json")),
            "JSON_MEDIA_TYPE",
            Malformed,
        ),
        (
            "L20 embedded data that differs",
            entry(&|entry| entry["data"] = json!("e30=")),
            "BLOB_SIZE",
            Mismatch,
        ),
        (
            "L11 a manifest of a gigabyte, it says",
            entry(&|entry| entry["size"] = json!(1 << 30)),
            "BLOB_SIZE",
            Mismatch,
        ),
        (
            "a ref name of 5,000 bytes",
            entry(&|entry| {
                entry["annotations"]["org.opencontainers.image.ref.name"] =
                    json!("x".repeat(5_000));
            }),
            "LIMIT_REF_NAME",
            Limit,
        ),
        (
            "L4 a key twice",
            sample.archive(|members| {
                let index = member(members, "index.json");
                *index = br#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#.to_vec();
            }),
            "JSON_DUPLICATE_KEY",
            Malformed,
        ),
        (
            "half an index",
            sample.archive(|members| member(members, "index.json").truncate(60)),
            "JSON_SYNTAX",
            Malformed,
        ),
        (
            "L21 another version",
            sample.archive(|members| {
                let marker = member(members, "oci-layout");
                *marker = br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec();
            }),
            "LAYOUT_VERSION",
            Unsupported,
        ),
        (
            "a marker that is no JSON",
            sample.archive(|members| *member(members, "oci-layout") = b"1.0.0".to_vec()),
            "JSON_SYNTAX",
            Malformed,
        ),
        (
            "two different indexes",
            sample.archive(|members| members.push(("index.json".into(), b"{}".to_vec()))),
            "ARCHIVE_DUPLICATE",
            Malformed,
        ),
        (
            "one blob twice, and different",
            sample.archive(|members| members.push((layer.clone(), b"other".to_vec()))),
            "ARCHIVE_DUPLICATE",
            Malformed,
        ),
    ];
    refuse_all(rows);
}

/// Members that are no plain files.
#[test]
fn links_and_special_files_in_archives() {
    let sample = Sample::new();
    let layer = sample.layer_path();
    let rest = || {
        let members = members_of(&sample.layout);
        let others = members.into_iter().filter(|(path, _)| *path != layer);
        others.fold(Tarball::new(), |tarball, (path, bytes)| {
            tarball.file(path, bytes)
        })
    };
    let sparse = TarHeader::new(b'S', layer.as_bytes())
        .with(257, b"ustar  \0")
        .with(345, &[0; 12])
        .octal(483, 12, 4096)
        .data(b"");
    let rows: Rows = vec![
        (
            "a loop",
            rest()
                .symlink(&layer, layer.rsplit('/').next().expect("a name"))
                .finish(),
            "ARCHIVE_LINK",
            Malformed,
        ),
        (
            "to outside",
            rest().symlink(&layer, "../../../etc/passwd").finish(),
            "ARCHIVE_PATH",
            Malformed,
        ),
        (
            "absolute",
            rest().symlink(&layer, "/etc/passwd").finish(),
            "ARCHIVE_PATH",
            Malformed,
        ),
        (
            "to nothing",
            rest().symlink(&layer, "gone").finish(),
            "COMMIT_INCOMPLETE",
            Missing,
        ),
        (
            "a pipe",
            rest().fifo(&layer).finish(),
            "ARCHIVE_FILE_TYPE",
            Malformed,
        ),
        (
            "a device",
            rest().device(&layer, 1, 3).finish(),
            "ARCHIVE_FILE_TYPE",
            Malformed,
        ),
        (
            "with holes",
            rest().raw(&sparse).finish(),
            "ARCHIVE_SPARSE",
            Unsupported,
        ),
        (
            "a directory",
            rest().dir(&layer).finish(),
            "COMMIT_INCOMPLETE",
            Missing,
        ),
    ];
    refuse_all(rows);
}

#[test]
fn docker_archives_that_are_not_right() {
    let layer = tar_of(&[("a", b"1")]);
    let config = docker_config(&[&layer]);
    let archive = |config: &[u8], layer: &[u8], manifest: &[u8]| {
        Tarball::new()
            .file("config", config)
            .file("layer", layer)
            .file("manifest.json", manifest)
            .finish()
    };
    let manifest = |config, layers: &[&str]| docker_manifest(&[(config, json!(["app"]), layers)]);
    let right = manifest("config", &["layer"]);
    let xz = [b"\xfd7zXZ\0", &layer[..]].concat();
    let gzip = compress(Compression::Gzip, &layer);
    let many: Vec<String> = (0..4_097).map(|_| "\"layer\"".to_owned()).collect();
    let many = format!(r#"[{{"Config":"config","Layers":[{}]}}]"#, many.join(","));
    let long = docker_manifest(&[("config", json!(["x".repeat(5_000)]), &["layer"])]);
    let rows: Rows = vec![
        (
            "N2 the layer is another one",
            archive(&config, &tar_of(&[("a", b"2")]), &right),
            "LAYER_DIFF_ID",
            Mismatch,
        ),
        (
            "N3 no layer",
            archive(&config, &layer, &manifest("config", &["gone"])),
            "COMMIT_INCOMPLETE",
            Missing,
        ),
        (
            "N3 no config",
            archive(&config, &layer, &manifest("gone", &["layer"])),
            "COMMIT_INCOMPLETE",
            Missing,
        ),
        (
            "L26 fewer layers than the config lists",
            archive(&config, &layer, &manifest("config", &[])),
            "CONFIG_LAYER_COUNT",
            Malformed,
        ),
        (
            "a path that climbs",
            archive(&config, &layer, &manifest("../../etc/passwd", &["layer"])),
            "ARCHIVE_PATH",
            Malformed,
        ),
        (
            "an absolute path",
            archive(&config, &layer, &manifest("config", &["/etc/passwd"])),
            "ARCHIVE_PATH",
            Malformed,
        ),
        (
            "a config that is none",
            archive(b"[]", &layer, &right),
            "JSON_TYPE",
            Malformed,
        ),
        (
            "a config without layers",
            archive(b"{}", &layer, &right),
            "JSON_MISSING_FIELD",
            Malformed,
        ),
        (
            "xz",
            archive(&config, &xz, &right),
            "COMPRESSION",
            Unsupported,
        ),
        (
            "half a layer",
            archive(&config, &gzip[..gzip.len() - 4], &right),
            "STREAM_TRUNCATED",
            Malformed,
        ),
        (
            "N16 4,097 layers",
            archive(&config, &layer, many.as_bytes()),
            "LIMIT_LAYERS",
            Limit,
        ),
        (
            "a tag of 5,000 bytes",
            archive(&config, &layer, &long),
            "LIMIT_REF_NAME",
            Limit,
        ),
    ];
    refuse_all(rows);
}

#[test]
fn documents_that_are_not_right() -> TestResult {
    let layout = TestLayout::new();
    let layer = layout.layer(Compression::Gzip, &[("a", b"1")]);
    let image = layout.image(std::slice::from_ref(&layer));
    let right = document(&layout, &image);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut manifest = right.clone();
        change(&mut manifest);
        manifest.to_string().into_bytes()
    };
    let absent = format!("sha256:{}", "0".repeat(64));
    let nested = |depth: usize| {
        let mut descriptor = layout.image(&[]);
        for _ in 0..depth {
            descriptor = layout.image_index(&[descriptor]);
        }
        document(&layout, &descriptor).to_string().into_bytes()
    };
    let deep = nested(17);
    let index = document(&layout, &layout.image_index(std::slice::from_ref(&image)));
    let mut ambiguous = index.clone();
    ambiguous["layers"] = json!([]);
    let mut lacking = index.clone();
    let mut other = image.clone();
    other["digest"] = json!(absent);
    lacking["manifests"] = json!([image, other]);
    let rows: Rows = vec![
        (
            "N3 no layer",
            with(&|m| m["layers"][0]["digest"] = json!(absent)),
            "COMMIT_INCOMPLETE",
            Missing,
        ),
        (
            "N3 no config",
            with(&|m| m["config"]["digest"] = json!(absent)),
            "COMMIT_INCOMPLETE",
            Missing,
        ),
        (
            "N3 one image of an index",
            lacking.to_string().into_bytes(),
            "COMMIT_INCOMPLETE",
            Missing,
        ),
        (
            "N2 another size",
            with(&|m| m["layers"][0]["size"] = json!(7)),
            "BLOB_SIZE",
            Mismatch,
        ),
        (
            "missing before another size",
            with(&|m| {
                m["layers"][0]["size"] = json!(7);
                m["layers"] =
                    json!([m["layers"][0], {"mediaType": "x", "digest": absent, "size": 1}]);
            }),
            "COMMIT_INCOMPLETE",
            Missing,
        ),
        (
            "N16 4,097 layers",
            with(&|m| m["layers"] = Value::Array(vec![m["layers"][0].clone(); 4_097])),
            "LIMIT_LAYERS",
            Limit,
        ),
        ("L10 nested too deep", deep, "LIMIT_INDEX_DEPTH", Limit),
        (
            "L8 two types",
            ambiguous.to_string().into_bytes(),
            "JSON_AMBIGUOUS_TYPE",
            Malformed,
        ),
        (
            "no layers",
            with(&|m| {
                m.as_object_mut().expect("an object").remove("layers");
            }),
            "JSON_MISSING_FIELD",
            Malformed,
        ),
        (
            "a digest that is none",
            with(&|m| m["config"]["digest"] = json!("x")),
            "DIGEST_GRAMMAR",
            Malformed,
        ),
        (
            "an algorithm that nobody knows",
            with(&|m| m["layers"][0]["digest"] = json!("blake3:abc")),
            "COMMIT_INCOMPLETE",
            Missing,
        ),
        (
            "L24 more behind it",
            [with(&|_| ()), b"{}".to_vec()].concat(),
            "JSON_SYNTAX",
            Malformed,
        ),
        (
            "L28 schema 1",
            br#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#.to_vec(),
            "MANIFEST_SCHEMA1",
            Unsupported,
        ),
    ];
    for (name, bytes, code, class) in rows {
        refused(&layout, name, "x.json", &bytes, (code, class));
    }
    // The manifest's own layer is damaged: size first, then digest.
    let manifest = with(&|_| ());
    std::fs::write(layout.blob_path(&layer.descriptor), vec![0; 7])?;
    refused(&layout, "B1", "x", &manifest, ("BLOB_SIZE", Mismatch));
    let size = usize::try_from(size_of(&layer.descriptor))?;
    std::fs::write(layout.blob_path(&layer.descriptor), vec![0; size])?;
    refused(&layout, "B2", "x", &manifest, ("BLOB_DIGEST", Mismatch));
    Ok(())
}

#[test]
fn tars_that_are_no_layers() {
    let tar = tar_of(&[("a", b"1"), ("b", b"2")]);
    let mut wrong_sum = tar.clone();
    wrong_sum[1024] ^= 1;
    let gzip = compress(Compression::Gzip, &tar);
    let mut wrong_check = gzip.clone();
    let at = wrong_check.len() - 6;
    wrong_check[at] ^= 1;
    let zstd = compress(Compression::ZstdFrames(700), &tar);
    let to_directory = Tarball::new().dir("d/").link("l", "d").finish();
    let rows: Rows = vec![
        (
            "T14' a wrong checksum",
            wrong_sum,
            "TAR_CHECKSUM",
            Malformed,
        ),
        (
            "T16' cut in a header",
            tar[..1030].to_vec(),
            "TAR_TRUNCATED",
            Malformed,
        ),
        (
            "C12 gzip, cut",
            gzip[..gzip.len() - 9].to_vec(),
            "STREAM_TRUNCATED",
            Malformed,
        ),
        (
            "C12 zstd, cut",
            zstd[..zstd.len() - 5].to_vec(),
            "STREAM_TRUNCATED",
            Malformed,
        ),
        ("C4 a wrong CRC", wrong_check, "GZ_CRC", Malformed),
        (
            "C3 rubbish behind it",
            [&gzip[..], b"rubbish"].concat(),
            "GZ_TRAILING",
            Malformed,
        ),
        (
            "T23' a hard link to a directory",
            to_directory,
            "TAR_LINK",
            Malformed,
        ),
    ];
    refuse_all(rows);
}

#[test]
fn names_that_lie() {
    let layout = TestLayout::new();
    let digest = Digest::of(b"other").to_string();
    refused(&layout, "N2", &digest, b"bytes", ("BLOB_DIGEST", Mismatch));
    let blake3 = format!("blake3:{}", "a".repeat(64));
    refused(
        &layout,
        "L15",
        &blake3,
        b"bytes",
        ("DIGEST_ALGORITHM", Unsupported),
    );
    for (name, file) in [
        ("N7", "%2e%2e"),
        ("N7 once more", ".."),
        ("malformed", "50%"),
    ] {
        refused(
            &layout,
            name,
            file,
            b"bytes",
            ("REF_NAME_GRAMMAR", ErrorClass::Invalid),
        );
    }
}

/// C6: limits on what decoding may bring hold for archives and for the layers in them.
#[test]
fn bombs() {
    let mut options = IngestOptions::default();
    options.limits.stream.ratio_floor = 1 << 20;
    options.limits.stream.ratio = 100;
    options.limits.blobs = 3;
    let zeros = vec![0; 8 << 20];
    let bomb = tar_of(&[("zeros", &zeros)]);
    let archive = tar(&[
        ("blobs/sha256/x".into(), zeros.clone()),
        ("oci-layout".into(), b"{}".to_vec()),
    ]);
    let gzip = compress(Compression::Gzip, &bomb);
    let docker = Tarball::new()
        .file("config", docker_config(&[&bomb]))
        .file("layer", &gzip)
        .file(
            "manifest.json",
            docker_manifest(&[("config", json!([]), &["layer"])]),
        )
        .finish();
    let many: Vec<(String, Vec<u8>)> = (0..9)
        .map(|number| (format!("blobs/sha256/{number}"), vec![1]))
        .chain([("oci-layout".into(), b"{}".to_vec())])
        .collect();
    let rows = [
        ("C6 a layer", gzip, "LIMIT_RATIO"),
        (
            "C6 a layer, zstd",
            compress(Compression::Zstd, &bomb),
            "LIMIT_RATIO",
        ),
        (
            "C6 an archive",
            compress(Compression::Gzip, &archive),
            "LIMIT_RATIO",
        ),
        ("C6 a layer of an archive", docker, "LIMIT_RATIO"),
        (
            "more members than are held open",
            tar(&many),
            "LIMIT_IMPORT_BLOBS",
        ),
    ];
    let layout = TestLayout::new();
    for (name, bytes, code) in rows {
        for way in WAYS {
            let before = Fingerprint::of(layout.path());
            let prepared = prepare(&layout, options.clone(), way, "x", &bytes);
            let error = prepared.err().unwrap_or_else(|| panic!("{name}, {way:?}"));
            assert_eq!(
                (error.code(), error.class()),
                (code, Limit),
                "{name}: {error}"
            );
            assert_eq!(before, Fingerprint::of(layout.path()), "{name}");
        }
    }
}

/// An archive that ends early is refused wherever it ends, but in its last padding.
#[test]
fn archives_cut_anywhere() {
    let sample = Sample::new();
    let archive = oci_archive(&sample.layout);
    // Two blocks of zeros at the end may be missing, and so may the padding before.
    let last = members_of(&sample.layout).pop().expect("a member").1.len();
    let needed = archive.len() - 1024 - (last.next_multiple_of(512) - last);
    for len in (0..needed).step_by(97).chain([needed - 1]) {
        let layout = TestLayout::new();
        let before = Fingerprint::of(layout.path());
        match import(&layout, Way::Received, "x", &archive[..len]) {
            Err(_) => assert_eq!(before, Fingerprint::of(layout.path()), "cut at {len}"),
            // Too short to be known for a tar, or cut between two members.
            Ok(report) => {
                let is_other = matches!(report.kind, Kind::Artifact | Kind::Layer);
                assert!(is_other, "cut at {len}: {:?}", report.kind);
            }
        }
    }
    let layout = TestLayout::new();
    let whole = import(&layout, Way::Received, "x", &archive[..needed]);
    assert_eq!(whole.map(|report| report.kind).ok(), Some(Kind::OciArchive));
}

/// What is in an archive's member is no more than a file.
#[test]
fn archives_in_archives() -> TestResult {
    let sample = Sample::new();
    let inner = oci_archive(&sample.layout);
    let config = docker_config(&[&inner]);
    let bytes = Tarball::new()
        .file("config", config)
        .file("layer", &inner)
        .file(
            "manifest.json",
            docker_manifest(&[("config", json!(["outer"]), &["layer"])]),
        )
        .finish();
    let layout = TestLayout::new();
    let report = import(&layout, Way::Received, "x", &bytes)?;
    assert_eq!(report.kind, Kind::DockerArchive);
    assert_eq!(super::names(&layout), ["outer"]);
    Ok(())
}
