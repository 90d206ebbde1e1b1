//! Images as archives: what is in them, what is left out, and what is refused.

mod readers;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use ocifs::export::{Error, Format, Names, Plan, Root, copy};
use ocifs::ingest::{Ingest, IngestOptions, Name};
use ocifs::oci::{Descriptor, index};
use ocifs::store::layout::refs::Collision;
use ocifs::store::{Layout, LayoutWriter, Verdicts};
use ocifs::vfs;
use serde_json::{Value, json};

use super::common::{
    Compression, Damage, TestLayout, digest_of, host_architecture, tar_of, verify_layout,
};

type TestResult = Result<(), Box<dyn std::error::Error>>;

const FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";

/// What an entry of the layout stands for, its own manifest being the image.
fn root(entry: &index::Entry) -> Root {
    let descriptor: Descriptor = entry.descriptor.clone().expect("the entry is right");
    Root {
        names: Names {
            ref_name: entry.ref_name.clone(),
            containerd_name: entry.containerd_name.clone(),
        },
        image: Some(descriptor.clone()),
        descriptors: vec![descriptor],
    }
}

fn open(layout: &TestLayout) -> (Layout, Vec<Root>) {
    let opened = Layout::open(layout.path(), &[]).expect("it is a layout");
    let view = opened.read_index().expect("its index is right");
    let roots = view.entries().iter().map(|entry| root(entry)).collect();
    (opened, roots)
}

/// An archive of all entries of a layout.
fn archive(layout: &TestLayout, format: Format) -> Result<Vec<u8>, Error> {
    let (opened, roots) = open(layout);
    let plan = Plan::new(&opened, format, &roots)?;
    let mut bytes = Vec::new();
    copy(&plan, &opened, &mut bytes)?;
    assert_eq!(plan.size(), bytes.len() as u64, "the size is known before");
    Ok(bytes)
}

fn code(error: Error) -> &'static str {
    let fault = vfs::Error::from(error).fault();
    fault.map_or("", |fault| fault.code)
}

/// The members of an archive in their order, directories without content.
fn members(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut members = Vec::new();
    let mut reader = tar::Archive::new(archive);
    for entry in reader.entries().expect("it is a tar") {
        let mut entry = entry.expect("it is an entry");
        let header = entry.header();
        let is_directory = header.entry_type().is_dir();
        assert_eq!(header.mtime().ok(), Some(0));
        assert_eq!((header.uid().ok(), header.gid().ok()), (Some(0), Some(0)));
        let mode = if is_directory { 0o755 } else { 0o644 };
        assert_eq!(header.mode().ok(), Some(mode));
        let path = entry.path_bytes().into_owned();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).expect("its bytes are there");
        members.push((String::from_utf8(path).expect("it is text"), bytes));
    }
    members
}

fn member(archive: &[u8], path: &str) -> Value {
    let members = members(archive);
    let found = members.iter().find(|(name, _)| name == path);
    let (_, bytes) = found.unwrap_or_else(|| panic!("there is no {path}"));
    serde_json::from_slice(bytes).expect("it is JSON")
}

/// Brings an archive into an empty layout.
fn import(archive: &[u8]) -> Result<TestLayout, Box<dyn std::error::Error>> {
    let target = TestLayout::new();
    let layout = Layout::open(target.path(), &[])?;
    let writer = LayoutWriter::open(&layout, Arc::new(Verdicts::new(None)))?;
    let ingest = Ingest::new(writer.clone(), IngestOptions::default());
    let mut blob = writer.blob()?;
    blob.write_all(archive)?;
    let prepared = ingest.prepare(blob.seal()?, &Name::of_file(b"archive.tar")?)?;
    ingest.commit(prepared, Collision::Refuse)?;
    Ok(target)
}

fn layers(layout: &TestLayout) -> Vec<super::common::Layer> {
    [Compression::Gzip, Compression::None, Compression::Zstd]
        .map(|compression| layout.layer(compression, &[("etc/motd", b"hello\n")]))
        .to_vec()
}

fn host() -> String {
    format!("linux/{}", host_architecture())
}

/// An image for two platforms, one of them in an index of its own, with an attestation.
fn multi_platform(layout: &TestLayout) -> Value {
    let own = layout.image_for(&host(), &layers(layout));
    let other = layout.layer(Compression::Gzip, &[("other", b"platform\n")]);
    let other = layout.image_for("linux/s390x", &[other]);
    let nested = layout.image_index(&[other]);
    let attestation = layout.attestation(&own);
    layout.image_index(&[own, attestation, nested])
}

/// A docker image of schema 2.
fn schema2(layout: &TestLayout) -> Value {
    layout.docker_image(&layout.layer(Compression::Gzip, &[("etc/motd", b"hello\n")]))
}

/// Everything, in the order that an import gives it.
fn filled() -> TestLayout {
    let layout = TestLayout::new();
    let image = layout.image(&layers(&layout));
    layout.add_ref("app:1", &image);
    layout.add_containerd_ref("docker.io/library/app:2", "2", &image);
    layout.add_ref("ghcr.io/org/app:1.2", &image);
    layout.add_ref("multi", &multi_platform(&layout));
    let artifact = layout.artifact("text/plain", "notes", b"hello\n", Some(&image));
    layout.add_ref("notes", &artifact);
    layout.add_ref("schema2:1", &schema2(&layout));
    layout.add_entry(&image);
    layout
}

#[test]
fn an_archive_imports_as_the_layout_that_it_was() -> TestResult {
    let layout = filled();
    let target = import(&archive(&layout, Format::Oci)?)?;
    verify_layout(target.path());
    assert_eq!(target.entries(), layout.entries());
    for blob in std::fs::read_dir(layout.path().join("blobs/sha256"))? {
        let blob = blob?;
        let copied = target.path().join("blobs/sha256").join(blob.file_name());
        assert!(std::fs::read(blob.path())? == std::fs::read(copied)?);
    }
    Ok(())
}

#[test]
fn the_same_images_make_the_same_archive() -> TestResult {
    let once = archive(&filled(), Format::Oci)?;
    assert!(
        once == archive(&filled(), Format::Oci)?,
        "of another layout"
    );
    let imported = import(&once)?;
    assert!(
        once == archive(&imported, Format::Oci)?,
        "of what was imported"
    );
    Ok(())
}

#[test]
fn a_docker_archive_leads_to_its_blobs() -> TestResult {
    let layout = TestLayout::new();
    let image = layout.image(&layers(&layout));
    layout.add_ref("app:1", &image);
    layout.add_ref("1.0", &image);
    layout.add_containerd_ref("docker.io/library/app:2", "2", &image);
    layout.add_ref("app:1", &image);
    layout.add_entry(&schema2(&layout));
    let archive = archive(&layout, Format::Docker)?;
    let path = |descriptor: &Value| {
        let digest = digest_of(descriptor);
        format!("blobs/{}/{}", digest.algorithm_name(), digest.encoded())
    };
    let of = |image: &Value, tags: &[&str]| -> Result<Value, Box<dyn std::error::Error>> {
        let manifest: Value = serde_json::from_slice(&std::fs::read(layout.blob_path(image))?)?;
        let layers = manifest["layers"].as_array().into_iter().flatten();
        Ok(json!({
            "Config": path(&manifest["config"]),
            "RepoTags": tags,
            "Layers": layers.map(path).collect::<Vec<_>>(),
        }))
    };
    let entries = layout.entries();
    let expected = json!([
        of(&image, &["app:1", "docker.io/library/app:2"])?,
        of(&entries[4], &[])?,
    ]);
    assert_eq!(member(&archive, "manifest.json"), expected);
    // The entry that is there twice is there once.
    let shown = member(&archive, "index.json");
    let distinct = [&entries[..3], &entries[4..]].concat();
    assert_eq!(shown["manifests"], json!(distinct));
    for (path, bytes) in members(&archive) {
        if let Some(digest) = path.strip_prefix("blobs/sha256/").filter(|d| !d.is_empty()) {
            assert_eq!(ocifs::Digest::of(&bytes).encoded(), digest);
        }
    }
    verify_layout(import(&archive)?.path());
    Ok(())
}

#[test]
fn what_no_docker_archive_can_be_made_of() {
    let layout = TestLayout::new();
    let image = layout.image(&layers(&layout));
    layout.add_ref(
        "notes",
        &layout.artifact("text/plain", "notes", b"hello\n", None),
    );
    layout.add_ref("signature", &layout.attestation(&image));
    layout.add_ref("multi", &multi_platform(&layout));
    let (opened, roots) = open(&layout);
    for root in roots {
        let name = root.names.ref_name.clone().expect("it has a name");
        let refused = Plan::new(&opened, Format::Docker, std::slice::from_ref(&root));
        let refused = refused.map(|_| ()).expect_err(&name);
        assert_eq!(code(refused), "EXPORT_NOT_AN_IMAGE", "{name}");
        let nothing = Root {
            image: None,
            ..root
        };
        let refused = Plan::new(&opened, Format::Docker, &[nothing]);
        let refused = refused.map(|_| ()).expect_err(&name);
        assert_eq!(code(refused), "EXPORT_NO_IMAGE", "{name}");
    }
}

/// What an archive leaves out: what a layout lacks of an index, or may lack.
#[test]
fn what_is_left_out() -> TestResult {
    let layout = TestLayout::new();
    let own_layer = layout.layer(Compression::Gzip, &[("own", b"1")]);
    let own = layout.image_for(&host(), std::slice::from_ref(&own_layer));
    let other_layer = layout.layer(Compression::Gzip, &[("other", b"2")]);
    let other = layout.image_for("linux/s390x", std::slice::from_ref(&other_layer));
    let attestation = layout.attestation(&own);
    layout.add_ref(
        "app",
        &layout.image_index(&[own, other.clone(), attestation.clone()]),
    );
    let kept =
        |archive: &[u8]| -> BTreeMap<String, Vec<u8>> { members(archive).into_iter().collect() };
    let path = |descriptor: &Value| format!("blobs/sha256/{}", digest_of(descriptor).encoded());

    let whole = kept(&archive(&layout, Format::Oci)?);
    layout.damage(&other_layer.descriptor, Damage::Missing);
    layout.damage(&attestation, Damage::Missing);
    let bytes = archive(&layout, Format::Oci)?;
    let sparse = kept(&bytes);
    let gone: Vec<&String> = whole
        .keys()
        .filter(|path| !sparse.contains_key(*path))
        .collect();
    let config: Value = serde_json::from_slice(&whole[&path(&other)])?;
    for expected in [&other_layer.descriptor, &attestation, &config["config"]] {
        assert!(gone.contains(&&path(expected)), "{expected} is in {gone:?}");
    }
    assert!(sparse.contains_key(&path(&other)), "its manifest stays");
    assert_eq!(import(&bytes)?.entries(), layout.entries());
    let (opened, roots) = open(&layout);
    let plan = Plan::new(&opened, Format::Oci, &roots)?;
    let left_out: Vec<String> = plan
        .left_out()
        .iter()
        .map(|d| d.digest.to_string())
        .collect();
    let mut expected = [&other, &attestation].map(|d| digest_of(d).to_string());
    expected.sort();
    assert_eq!(left_out, expected);

    // The last whole image is needed, and then all are.
    layout.damage(&own_layer.descriptor, Damage::Missing);
    let refused = archive(&layout, Format::Oci).expect_err("nothing is whole");
    assert_eq!(code(refused), "BLOB_MISSING");
    Ok(())
}

#[test]
fn foreign_layers() -> TestResult {
    let layout = TestLayout::new();
    let layer = layout.layer(Compression::Gzip, &[("own", b"1")]);
    let mut foreign = layout.layer(Compression::Gzip, &[("foreign", b"2")]);
    foreign.descriptor["mediaType"] = json!(FOREIGN);
    let nowhere = layout.image(&[layer.clone(), foreign.clone()]);
    foreign.descriptor["urls"] = json!(["https://example.org/layer"]);
    let elsewhere = layout.image(&[layer, foreign.clone()]);
    layout.add_ref("elsewhere", &elsewhere);
    let count = |archive: &[u8]| members(archive).len();
    let there = count(&archive(&layout, Format::Oci)?);
    assert_eq!(
        there,
        count(&archive(&layout, Format::Docker)?) - 1,
        "and manifest.json"
    );
    layout.damage(&foreign.descriptor, Damage::Missing);
    let bytes = archive(&layout, Format::Oci)?;
    assert_eq!(count(&bytes), there - 1, "the layer is left out");
    assert_eq!(import(&bytes)?.entries(), layout.entries());
    let refused = archive(&layout, Format::Docker).expect_err("docker needs it");
    assert_eq!(code(refused), "BLOB_MISSING");
    layout.add_ref("nowhere", &nowhere);
    let refused = archive(&layout, Format::Oci).expect_err("nobody says where it is");
    assert_eq!(code(refused), "BLOB_MISSING");
    Ok(())
}

#[test]
fn damage_is_never_exported() {
    let rows = [
        (Damage::Missing, "BLOB_MISSING"),
        (Damage::Truncated, "BLOB_SIZE"),
        (Damage::Longer, "BLOB_SIZE"),
        (Damage::Empty, "BLOB_SIZE"),
        (Damage::FlippedBit, "BLOB_DIGEST"),
        (Damage::Symlink, "LAYOUT_FILE_TYPE"),
        (Damage::Fifo, "LAYOUT_FILE_TYPE"),
        (Damage::Directory, "LAYOUT_FILE_TYPE"),
    ];
    for (damage, expected) in rows {
        for part in ["manifest", "config", "layer"] {
            for format in [Format::Oci, Format::Docker] {
                let layout = TestLayout::new();
                let layer = layout.layer(Compression::Gzip, &[("own", b"1")]);
                let image = layout.image(std::slice::from_ref(&layer));
                layout.add_ref("app:1", &image);
                let manifest = std::fs::read(layout.blob_path(&image)).expect("it is there");
                let manifest: Value = serde_json::from_slice(&manifest).expect("it is JSON");
                let damaged = match part {
                    "manifest" => &image,
                    "config" => &manifest["config"],
                    _ => &layer.descriptor,
                };
                layout.damage(damaged, damage);
                let refused = archive(&layout, format).expect_err(part);
                assert_eq!(code(refused), expected, "{damage:?} {part} {format:?}");
            }
        }
    }
}

#[test]
fn of_several_faults_the_one_that_counts_most_is_told() {
    let layout = TestLayout::new();
    let layer = layout.layer(Compression::Gzip, &[("own", b"1")]);
    let missing = layout.layer(Compression::Gzip, &[("missing", b"1")]);
    let image = layout.image(std::slice::from_ref(&layer));
    layout.add_ref("damaged", &image);
    layout.add_ref("missing", &layout.image(std::slice::from_ref(&missing)));
    layout.damage(&layer.descriptor, Damage::Truncated);
    layout.damage(&missing.descriptor, Damage::Missing);
    let refused = archive(&layout, Format::Oci).expect_err("one is missing");
    assert_eq!(code(refused), "BLOB_MISSING");
}

#[test]
fn hostile_documents() {
    let wrong_size = |layout: &TestLayout| {
        let image = layout.image(&layers(layout));
        let mut other = image.clone();
        other["size"] = json!(1);
        layout.image_index(&[image, other])
    };
    let wrong_data = |layout: &TestLayout| {
        let image = layout.image(&layers(layout));
        let mut other = image.clone();
        other["data"] = json!("e30=");
        layout.image_index(&[image, other])
    };
    let malformed = |layout: &TestLayout| {
        let image = layout.image(&layers(layout));
        let other = layout.json(
            "application/vnd.oci.image.manifest.v1+json",
            &json!({"schemaVersion": 2, "layers": [], "manifests": []}),
        );
        layout.image_index(&[image, other])
    };
    let deep = |layout: &TestLayout| {
        let image = layout.image(&layers(layout));
        (0..17).fold(image, |entry, _| layout.image_index(&[entry]))
    };
    let many = |layout: &TestLayout| {
        let layer = |number: usize| {
            let digest = ocifs::Digest::of(&number.to_le_bytes());
            json!({"mediaType": "x", "digest": digest.as_str(), "size": 1})
        };
        let image = |from: usize| {
            let layers: Vec<Value> = (from..from + 4_096).map(layer).collect();
            let config = layout.blob("x", b"{}");
            layout.manifest(&json!({"config": config, "layers": layers}))
        };
        let images: Vec<Value> = (0..5).map(|number| image(number * 4_096)).collect();
        layout.image_index(&images)
    };
    let huge = |layout: &TestLayout| {
        let digest = ocifs::Digest::of(b"huge");
        let layer = json!({"mediaType": "x", "digest": digest.as_str(), "size": i64::MAX});
        layout.manifest(&json!({"config": layout.blob("x", b"{}"), "layers": [layer]}))
    };
    let unknown = |layout: &TestLayout| {
        let layer = json!({"mediaType": "x", "digest": "blake3:abc", "size": 1});
        let blobs = layout.path().join("blobs/blake3");
        std::fs::create_dir(&blobs).expect("the layout is writable");
        std::fs::write(blobs.join("abc"), "x").expect("the layout is writable");
        layout.manifest(&json!({"config": layout.blob("x", b"{}"), "layers": [layer]}))
    };
    type Make<'a> = &'a dyn Fn(&TestLayout) -> Value;
    let rows: [(&str, Make<'_>, &str); 7] = [
        ("B10 two sizes", &wrong_size, "BLOB_SIZE"),
        ("L20 data that differs", &wrong_data, "BLOB_SIZE"),
        (
            "L8 an ambiguous document",
            &malformed,
            "JSON_AMBIGUOUS_TYPE",
        ),
        ("L10 deep nesting", &deep, "LIMIT_INDEX_DEPTH"),
        ("many blobs", &many, "LIMIT_EXPORT"),
        ("sizes beyond all files", &huge, "LIMIT_EXPORT"),
        ("L15 an unknown algorithm", &unknown, "DIGEST_ALGORITHM"),
    ];
    for (name, make, expected) in rows {
        let layout = TestLayout::new();
        layout.add_ref("app", &make(&layout));
        let refused = archive(&layout, Format::Oci).expect_err(name);
        assert_eq!(code(refused), expected, "{name}");
    }
}

/// Indexes that name each other many times have more ways through them than anybody can go.
#[test]
fn many_ways_through_few_documents() -> TestResult {
    let layout = TestLayout::new();
    let image = layout.image(&layers(&layout));
    let wide = |below: &[Value], number: usize| {
        let entries: Vec<Value> = below.iter().cycle().take(200).cloned().collect();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": entries,
            "annotations": {"number": number.to_string()},
        });
        layout.json("application/vnd.oci.image.index.v1+json", &index)
    };
    let level = |below: Vec<Value>, _| (0..5).map(|number| wide(&below, number)).collect();
    let levels: Vec<Value> = (0..14).fold(vec![image], level);
    layout.add_ref("app", &layout.image_index(&levels));
    let begun = std::time::Instant::now();
    let archive = archive(&layout, Format::Oci)?;
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    // Those, three layers, a config and a manifest, and two files with two directories.
    assert_eq!(members(&archive).len(), 14 * 5 + 1 + 5 + 4);
    Ok(())
}

#[test]
fn blobs_in_shared_directories_are_exported() -> TestResult {
    let layout = TestLayout::new();
    let image = layout.image(&layers(&layout));
    layout.add_ref("app:1", &image);
    let expected = archive(&layout, Format::Oci)?;
    let shared = tempfile::tempdir()?;
    let blobs = layout.path().join("blobs/sha256");
    std::fs::rename(&blobs, shared.path().join("sha256"))?;
    let opened = Layout::open(layout.path(), &[shared.path().to_owned()])?;
    let roots: Vec<Root> = opened
        .read_index()?
        .entries()
        .iter()
        .map(|e| root(e))
        .collect();
    let mut bytes = Vec::new();
    copy(
        &Plan::new(&opened, Format::Oci, &roots)?,
        &opened,
        &mut bytes,
    )?;
    assert!(bytes == expected);
    Ok(())
}

/// Names of members that a header has no room for.
#[test]
fn long_digests() -> TestResult {
    let layout = TestLayout::new();
    let tar = tar_of(&[("a", b"1")]);
    let mut hasher = ocifs::oci::Hasher::new(ocifs::oci::Algorithm::Sha512).expect("it is known");
    hasher.update(&tar);
    let digest = hasher.finish();
    let blobs = layout.path().join("blobs/sha512");
    std::fs::create_dir(&blobs)?;
    std::fs::write(blobs.join(digest.encoded()), &tar)?;
    let mut layer = layout.layer_of_tar(Compression::None, &tar);
    layer.descriptor["digest"] = json!(digest.as_str());
    layout.add_ref("app:1", &layout.image(&[layer]));
    let archive = archive(&layout, Format::Docker)?;
    let path = format!("blobs/sha512/{}", digest.encoded());
    assert_eq!(
        member(&archive, "manifest.json")[0]["Layers"],
        json!([path])
    );
    let copied = import(&archive)?;
    let stored = copied.path().join("blobs/sha512").join(digest.encoded());
    assert_eq!(std::fs::read(stored)?, tar);
    Ok(())
}
