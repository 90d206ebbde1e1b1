//! What is no archive: layers, documents, artifacts, blobs.

use std::io::Write;

use ocifs::ingest::{Attachment, Ingest, IngestOptions, Kind, Name};
use ocifs::oci::{Descriptor, Digest, MediaType};
use ocifs::store::layout::refs::Collision;
use serde_json::{Value, json};

use super::super::common::{
    Compression, TestLayout, compress, digest_of, host_architecture, tar_of, verify_layout,
};
use super::{TestResult, WAYS, Way, document, import, names, writer};

const COMPRESSIONS: [(Compression, &str); 5] = [
    (Compression::None, "application/vnd.oci.image.layer.v1.tar"),
    (
        Compression::Gzip,
        "application/vnd.oci.image.layer.v1.tar+gzip",
    ),
    (
        Compression::GzipMembers(700),
        "application/vnd.oci.image.layer.v1.tar+gzip",
    ),
    (
        Compression::Zstd,
        "application/vnd.oci.image.layer.v1.tar+zstd",
    ),
    (
        Compression::ZstdFrames(700),
        "application/vnd.oci.image.layer.v1.tar+zstd",
    ),
];

#[test]
fn a_tar_becomes_an_image_of_one_layer() -> TestResult {
    let tar = tar_of(&[
        ("etc/", b""),
        ("etc/motd", b"hello\n"),
        ("manifest.json", b"{}"),
    ]);
    for (compression, media_type) in COMPRESSIONS {
        for way in WAYS {
            let layout = TestLayout::new();
            let bytes = compress(compression, &tar);
            let report = import(&layout, way, "my app.tar.gz", &bytes)?;
            assert_eq!(report.kind, Kind::Layer, "{compression:?}");
            assert_eq!(names(&layout), ["my-app"]);
            let manifest = document(&layout, &layout.entries()[0]);
            let layer = &manifest["layers"][0];
            assert_eq!(layer["mediaType"], media_type);
            assert_eq!(digest_of(layer), Digest::of(&bytes));
            let config = document(&layout, &manifest["config"]);
            assert_eq!(config["architecture"], host_architecture());
            assert_eq!(config["os"], "linux");
            assert!(config.get("created").is_none() && config.get("variant").is_none());
            let diff_ids = json!([Digest::of(&tar).as_str()]);
            assert_eq!(
                config["rootfs"],
                json!({"type": "layers", "diff_ids": diff_ids})
            );
        }
    }
    Ok(())
}

#[test]
fn the_same_layer_gives_the_same_image_everywhere() -> TestResult {
    let tar = tar_of(&[("a", b"1")]);
    let (one, two) = (TestLayout::new(), TestLayout::new());
    let first = import(&one, Way::Received, "a", &tar)?;
    let second = import(&two, Way::File, "b", &tar)?;
    assert_eq!(first.images[0].digest, second.images[0].digest);
    Ok(())
}

#[test]
fn empty_tars_are_layers() -> TestResult {
    for (name, bytes) in [
        ("two blocks", vec![0; 1024]),
        ("a record", vec![0; 10_240]),
        ("compressed", compress(Compression::Gzip, &[0; 1024])),
    ] {
        let layout = TestLayout::new();
        let report = import(&layout, Way::Received, "empty.tar", &bytes)?;
        assert_eq!(report.kind, Kind::Layer, "{name}");
    }
    Ok(())
}

/// A layer may hold what archives of images hold, and more of it than those may.
#[test]
fn tars_that_look_like_archives_at_first() -> TestResult {
    let hex = "a".repeat(64);
    let many: Vec<(String, Vec<u8>)> = (0..40)
        .map(|number| (format!("{number}.json"), b"{}".to_vec()))
        .collect();
    let mut wanted = many.clone();
    wanted.push(("manifest.json".into(), b"[{\"Config\":1}]".to_vec()));
    let rows = [
        (
            "an application",
            tar_of(&[("manifest.json", br#"{"name":"app"}"#), ("app.js", b"")]),
        ),
        ("blobs", tar_of(&[(&format!("blobs/sha256/{hex}"), b"x")])),
        ("many documents", super::tar(&wanted)),
        (
            "files, then something else",
            super::tar(&[many, vec![("x".into(), vec![1])]].concat()),
        ),
    ];
    for (name, bytes) in rows {
        for way in WAYS {
            let layout = TestLayout::new();
            let mut options = IngestOptions::default();
            options.limits.blobs = 30;
            let prepared = super::prepare(&layout, options, way, "x", &bytes)?;
            assert_eq!(prepared.kind(), Kind::Layer, "{name}, {way:?}");
        }
    }
    Ok(())
}

#[test]
fn anything_else_becomes_an_artifact() -> TestResult {
    let large = vec![b'x'; 3 << 20];
    let rows: [(&str, &[u8]); 7] = [
        ("text", b"hello\n"),
        ("nothing", b""),
        ("the empty config", b"{}"),
        ("JSON", br#"{"name":"app"}"#),
        ("xz", b"\xfd7zXZ\0\0\0"),
        ("half a gzip header", b"\x1f\x8b"),
        ("large", &large),
    ];
    for (name, bytes) in rows {
        for way in WAYS {
            let layout = TestLayout::new();
            let report = import(&layout, way, "my notes.txt", bytes)?;
            assert_eq!(report.kind, Kind::Artifact, "{name}");
            assert_eq!(names(&layout), ["my-notes.txt"], "{name}");
            let entry = layout.entries().remove(0);
            let manifest = document(&layout, &entry);
            assert_eq!(entry["artifactType"], manifest["artifactType"]);
            assert_eq!(
                manifest["config"]["mediaType"],
                "application/vnd.oci.empty.v1+json"
            );
            assert_eq!(document(&layout, &manifest["config"]), json!({}));
            let layer = &manifest["layers"][0];
            assert_eq!(digest_of(layer), Digest::of(bytes), "{name}");
            let title = &layer["annotations"]["org.opencontainers.image.title"];
            assert_eq!(title, "my notes.txt", "{name}");
        }
    }
    Ok(())
}

#[test]
fn an_artifact_about_another_manifest() -> TestResult {
    let layout = TestLayout::new();
    let image = layout.image(&[layout.layer(Compression::None, &[("a", b"1")])]);
    layout.add_ref("app", &image);
    let subject = Descriptor::from_json(&image)?;
    let writer = writer(layout.path());
    let ingest = Ingest::new(writer.clone(), IngestOptions::default());
    let mut blob = writer.blob()?;
    blob.write_all(b"{}")?;
    let artifact_type = MediaType::new("application/spdx+json");
    let attachment = Attachment {
        subject,
        artifact_type,
    };
    let prepared = ingest.prepare(blob.seal()?, &Name::attached(b"sbom.json", attachment))?;
    ingest.commit(prepared, Collision::Refuse)?;
    verify_layout(layout.path());
    let entry = layout.entries().pop().ok_or("an entry")?;
    assert_eq!(entry["artifactType"], "application/spdx+json");
    assert!(entry.get("annotations").is_none(), "it has no name");
    let manifest = document(&layout, &entry);
    assert_eq!(manifest["subject"], image);
    assert_eq!(manifest["layers"][0]["mediaType"], "application/spdx+json");
    Ok(())
}

#[test]
fn documents_become_entries() -> TestResult {
    let layout = TestLayout::new();
    let layers = [layout.layer(Compression::Gzip, &[("a", b"1")])];
    let image = layout.image(&layers);
    let manifest = document(&layout, &image);
    let index = layout.image_index(&[layout.image_for("linux/arm64", &layers)]);
    let mut untyped = manifest.clone();
    untyped
        .as_object_mut()
        .ok_or("an object")?
        .remove("mediaType");
    let mut docker = manifest.clone();
    let docker_type = "application/vnd.docker.distribution.manifest.v2+json";
    docker["mediaType"] = json!(docker_type);
    let mut pretty = serde_json::to_vec_pretty(&manifest)?;
    pretty.insert(0, b'\n');
    let oci_type = "application/vnd.oci.image.manifest.v1+json";
    let index_type = "application/vnd.oci.image.index.v1+json";
    let bytes = |value: &Value| value.to_string().into_bytes();
    let rows: [(&str, Vec<u8>, Kind, &str); 5] = [
        ("manifest", bytes(&manifest), Kind::Manifest, oci_type),
        ("without type", bytes(&untyped), Kind::Manifest, oci_type),
        ("docker", bytes(&docker), Kind::Manifest, docker_type),
        ("pretty", pretty, Kind::Manifest, oci_type),
        (
            "index",
            bytes(&document(&layout, &index)),
            Kind::Index,
            index_type,
        ),
    ];
    for (name, bytes, kind, media_type) in rows {
        let file = format!("{}.json", name.replace(' ', "-"));
        let report = import(&layout, Way::Received, &file, &bytes)?;
        assert_eq!(report.kind, kind, "{name}");
        let entry = layout.entries().pop().ok_or("an entry")?;
        assert_eq!(entry["mediaType"], media_type, "{name}");
        assert_eq!(digest_of(&entry), Digest::of(&bytes), "{name}");
        let ref_name = &entry["annotations"]["org.opencontainers.image.ref.name"];
        assert_eq!(ref_name, &name.replace(' ', "-"), "{name}");
    }
    Ok(())
}

#[test]
fn a_name_that_is_a_digest_makes_a_blob() -> TestResult {
    let content = tar_of(&[("a", b"1")]);
    let digest = Digest::of(&content);
    for way in WAYS {
        let layout = TestLayout::new();
        let report = import(&layout, way, digest.as_str(), &content)?;
        assert_eq!(report.kind, Kind::Blob);
        assert!(report.images.is_empty() && layout.entries().is_empty());
        assert_eq!(report.blobs[0].digest, digest);
        let path = layout.path().join("blobs/sha256").join(digest.encoded());
        assert_eq!(std::fs::read(path)?, content);
    }
    let sha512 = "sha512:3c9909afec25354d551dae21590bb26e38d53f2173b8d3dc3eee4c047e7ab1c1eb8b85103e3be7ba613b31bb5c9c36214dc9f14a42fd7a2fdb84856bca5c44c2";
    let layout = TestLayout::new();
    let report = import(&layout, Way::Received, sha512, b"123")?;
    assert_eq!(report.blobs[0].digest.as_str(), sha512);
    assert!(
        layout
            .path()
            .join("blobs")
            .join(sha512.replace(':', "/"))
            .exists()
    );
    Ok(())
}

/// B3: a damaged blob is replaced when the right bytes are brought in.
#[test]
fn damaged_blobs_are_repaired() -> TestResult {
    let layout = TestLayout::new();
    let layer = layout.layer(Compression::None, &[("a", b"1")]);
    layout.add_ref("app", &layout.image(std::slice::from_ref(&layer)));
    let path = layout.blob_path(&layer.descriptor);
    let bytes = std::fs::read(&path)?;
    for damaged in [&b""[..], b"other bytes"] {
        std::fs::write(&path, damaged)?;
        let file = digest_of(&layer.descriptor).to_string();
        import(&layout, Way::Received, &file, &bytes)?;
        assert_eq!(std::fs::read(&path)?, bytes);
    }
    Ok(())
}
