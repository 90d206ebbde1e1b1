//! Images and indexes of one layout, appended to another.

use ocifs::ingest::ErrorClass;
use ocifs::ingest::Kind;

use super::super::common::{Damage, Fingerprint, Need, has, run_ok};
use super::*;

/// A layout that is made of the index of another says the same, and has the same blobs.
#[test]
fn write_a_layout_from_an_index() -> TestResult {
    let source = TestLayout::new();
    source.add_ref("app:1", &image(&source, "one"));
    source.add_containerd_ref("docker.io/library/app:2", "2", &image(&source, "two"));
    let mut unnamed = image(&source, "three");
    unnamed["x-more"] = json!({"any": [1.5, "thing"]});
    source.add_entry(&unnamed);
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("new/layout");
    layout::init(&path)?;
    let (from, to) = (Layout::open(source.path(), &[])?, Layout::open(&path, &[])?);
    let writer = LayoutWriter::open(&to, Arc::new(Verdicts::new(None)))?;
    let ingest = Ingest::new(writer, IngestOptions::default());
    let prepared = ingest.prepare_layout(&from, &from.resolve_all()?, None)?;
    assert_eq!(prepared.kind(), Kind::Layout);
    assert!(to.list_blobs("sha256")?.is_empty(), "nothing is there yet");
    ingest.commit(prepared, Collision::Refuse)?;
    verify_layout(&path);
    let texts = |layout: &Layout| -> Result<Vec<String>, Box<dyn std::error::Error>> {
        let entries = layout.resolve_all()?.into_iter();
        let mut texts: Vec<String> = entries.map(|entry| entry.text).collect();
        texts.sort();
        Ok(texts)
    };
    assert_eq!(texts(&to)?, texts(&from)?);
    Ok(())
}

#[test]
fn append_image() -> TestResult {
    let (source, target) = (TestLayout::new(), TestLayout::new());
    let wanted = image(&source, "wanted");
    source.add_ref("app:1", &wanted);
    source.add_ref("other", &image(&source, "not wanted"));
    let report = append(source.path(), Some("app:1"), &target)?;
    assert_eq!(refs(&target)["app:1"], wanted["digest"]);
    assert_eq!(refs(&target).len(), 1);
    assert_eq!(report.blobs.len(), 3, "manifest, config, layer");
    assert!(report.blobs.iter().all(|blob| blob.is_new));
    let again = append(source.path(), Some("app:1"), &target)?;
    assert!(again.blobs.iter().all(|blob| !blob.is_new), "{again:?}");
    assert_eq!(target.entries().len(), 1, "an entry is there once");

    // Another image of that name is not replaced unasked.
    let newer = image(&source, "newer");
    source.write_entries(&[]);
    source.add_ref("app:1", &newer);
    let before = Fingerprint::of(target.path());
    let refused = append(source.path(), Some("app:1"), &target);
    assert!(refused.is_err_and(|error| error.class() == ErrorClass::Exists));
    assert_eq!(before, Fingerprint::of(target.path()));
    append_over(source.path(), Some("app:1"), &target, Collision::Replace)?;
    assert_eq!(refs(&target)["app:1"], newer["digest"]);
    Ok(())
}

const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Indexes are followed to the last blob, whatever they are called, and what is of no known
/// type comes along as it is.
#[test]
fn append_index() -> TestResult {
    type Make = fn(&TestLayout) -> Value;
    let rows: [(&str, Make, usize); 5] = [
        (
            "two platforms",
            |layout| {
                let layer = layout.layer(Compression::Zstd, &[("a", b"1")]);
                let platforms = ["linux/amd64", "linux/arm64/v8"];
                let images = platforms.map(|p| layout.image_for(p, std::slice::from_ref(&layer)));
                layout.image_index(&images)
            },
            6,
        ),
        (
            "nested, with an attestation",
            |layout| {
                let image = image(layout, "x");
                let attestation = layout.attestation(&image);
                let inner = layout.image_index(&[image, attestation]);
                layout.image_index(&[inner])
            },
            8,
        ),
        (
            "a manifest list of Docker",
            |layout| {
                let image = image(layout, "x");
                layout.json(
                    DOCKER_LIST,
                    &json!({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [image]}),
                )
            },
            4,
        ),
        (
            "entries of other types",
            |layout| {
                let chart = layout.blob("application/vnd.example.chart+json", b"{\"x\": 1}");
                let bytes = layout.blob("application/octet-stream", b"\0\x01\x02");
                layout.image_index(&[chart, bytes, image(layout, "x")])
            },
            6,
        ),
        (
            "one of two platforms is there",
            |layout| {
                let there = layout.image_for("linux/amd64", &[]);
                let missing = layout.image_for("linux/arm64", &[]);
                let index = layout.image_index(&[there, missing.clone()]);
                layout.damage(&missing, Damage::Missing);
                index
            },
            3,
        ),
    ];
    for (row, make, blobs_needed) in rows {
        let (source, target) = (TestLayout::new(), TestLayout::new());
        let index = make(&source);
        source.add_ref("app:1", &index);
        let layout = Layout::open(source.path(), &[])?;
        let ingest = ingest(&target);
        let prepared = ingest.prepare_layout(&layout, &layout.resolve("app:1")?, None)?;
        ingest.commit(prepared, Collision::Refuse)?;
        assert_eq!(refs(&target)["app:1"], index["digest"], "{row}");
        assert_eq!(blobs(&target).len(), blobs_needed, "{row}");
        for blob in blobs(&target) {
            let path = |layout: &TestLayout| layout.blob_path(&json!({"digest": blob.as_str()}));
            let bytes = std::fs::read(path(&target))?;
            assert_eq!(bytes, std::fs::read(path(&source))?, "{row}");
        }
    }
    Ok(())
}

/// A part of an index by its digest: it has no name then.
#[test]
fn append_a_part_of_an_index() -> TestResult {
    let (source, target) = (TestLayout::new(), TestLayout::new());
    let part = source.image_for("linux/arm64", &[]);
    let inner = source.image_index(std::slice::from_ref(&part));
    source.add_ref("app:1", &source.image_index(&[inner]));
    let digest = part["digest"].as_str();
    append(source.path(), digest, &target)?;
    assert_eq!(target.entries(), [part]);
    Ok(())
}

/// What is damaged or missing in the source is refused, and nothing comes of it.
#[test]
fn damaged_sources_are_refused() {
    let rows = [
        (Damage::Missing, ErrorClass::Missing),
        (Damage::Truncated, ErrorClass::Mismatch),
        (Damage::Longer, ErrorClass::Mismatch),
        (Damage::FlippedBit, ErrorClass::Mismatch),
        (Damage::Symlink, ErrorClass::Malformed),
        (Damage::Fifo, ErrorClass::Malformed),
    ];
    for (damage, class) in rows {
        let (source, target) = (TestLayout::new(), TestLayout::new());
        let layer = source.layer(Compression::Gzip, &[("a", b"1")]);
        source.add_ref("app:1", &source.image(std::slice::from_ref(&layer)));
        source.damage(&layer.descriptor, damage);
        let before = Fingerprint::of(target.path());
        let error = append(source.path(), Some("app:1"), &target).expect_err("it is damaged");
        assert_eq!(error.class(), class, "{damage:?}: {error}");
        assert_eq!(before, Fingerprint::of(target.path()), "{damage:?}");
    }
}

/// What is damaged in the target is replaced.
#[test]
fn a_damaged_target_is_repaired() -> TestResult {
    let (source, target) = (TestLayout::new(), TestLayout::new());
    let layer = source.layer(Compression::Gzip, &[("a", b"1")]);
    source.add_ref("app:1", &source.image(std::slice::from_ref(&layer)));
    append(source.path(), None, &target)?;
    target.damage(&layer.descriptor, Damage::FlippedBit);
    append(source.path(), None, &target)?;
    Ok(())
}

/// The layers of an image are copied by several threads, each blob once, however often it is
/// named.
#[test]
fn layers_side_by_side() -> TestResult {
    let (source, target) = (TestLayout::new(), TestLayout::new());
    let layers: Vec<_> = (0..20_u8)
        .map(|number| {
            let name = format!("file {number}");
            let bytes = vec![number; 10_000 * usize::from(number)];
            source.layer(Compression::None, &[(name.as_str(), bytes.as_slice())])
        })
        .collect();
    let twice = [&layers[..], &layers[..]].concat();
    source.add_ref("one", &source.image(&twice));
    source.add_ref("two", &source.image(&layers[..10]));
    let report = append(source.path(), None, &target)?;
    assert_eq!(report.blobs.len(), 20 + 4);
    assert_eq!(blobs(&target).len(), 20 + 4);
    Ok(())
}

/// Real tools read what was appended, and what they write is appended.
#[test]
fn appended_images_by_tools_and_for_tools() -> TestResult {
    let needs = [Need::Tool("skopeo"), Need::Tool("umoci")];
    if !has("appended_images_by_tools_and_for_tools", &needs) {
        return Ok(());
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let target = TestLayout::new();
    for (layout, ref_name) in [("buildah-gzip", "app:1"), ("buildah-index", "multi")] {
        let by_skopeo = TestLayout::new();
        let from = format!("oci:{}:{ref_name}", golden.join(layout).display());
        let to = format!("oci:{}:{layout}", by_skopeo.path().display());
        run_ok("skopeo", &["copy", "-q", "--all", &from, &to]);
        append(by_skopeo.path(), Some(layout), &target)?;
        let image = format!("oci:{}:{layout}", target.path().display());
        let onward = TestLayout::new();
        let copy = format!("oci:{}:{layout}", onward.path().display());
        run_ok("skopeo", &["copy", "-q", "--all", &image, &copy]);
        verify_layout(onward.path());
        assert_eq!(refs(&onward)[layout], refs(&target)[layout], "{layout}");
        let raw = |image: &str| run_ok("skopeo", &["inspect", "--raw", image]);
        assert_eq!(raw(&image), raw(&to), "{layout}");
    }
    let image = format!("{}:buildah-gzip", target.path().display());
    run_ok("umoci", &["stat", "--image", &image]);
    Ok(())
}
