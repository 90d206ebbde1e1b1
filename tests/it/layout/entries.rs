//! Entries of the index: added as a descriptor says, found, replaced, annotated, removed.

use std::io::Write;

use ocifs::ingest::{ErrorClass, Kind};
use ocifs::oci::index::Entry;
use ocifs::oci::{MediaType, Platform};
use ocifs::store::ReadAt;
use ocifs::store::layout::index::merge;
use ocifs::store::layout::index::update::Basis;
use ocifs::store::layout::refs::{self, Refusal};
use ocifs::store::layout::select;
use ocifs::store::layout::writer::{self, SealedBlob};

use super::super::common::Fingerprint;
use super::*;

fn received(layout: &TestLayout, bytes: &[u8]) -> Result<SealedBlob, Box<dyn std::error::Error>> {
    let mut blob = writer(layout).blob()?;
    blob.write_all(bytes)?;
    Ok(blob.seal()?)
}

/// The entry says what the descriptor does, whatever it is of.
#[test]
fn append_descriptor() -> TestResult {
    let layout = TestLayout::new();
    let bytes = b"anything at all";
    let mut descriptor = Descriptor::new(
        MediaType::new("application/vnd.example"),
        Digest::of(bytes),
        bytes.len() as u64,
    );
    descriptor.platform = Some(Platform {
        variant: Some("v7".to_owned()),
        ..Platform::new("linux", "arm")
    });
    descriptor.urls = vec!["https://example.com/x".to_owned()];
    descriptor.annotations = [("org.example.a".to_owned(), "b\"c".to_owned())]
        .into_iter()
        .collect();
    descriptor.artifact_type = Some(MediaType::new("application/vnd.example.type"));
    let ingest = ingest(&layout);
    let prepare = |received| ingest.prepare_described(received, &descriptor, Some(&name("x:1")));
    let missing = prepare(None).expect_err("its blob is nowhere");
    assert_eq!(missing.class(), ErrorClass::Missing);
    let other = prepare(Some(received(&layout, b"anything at alL")?));
    assert!(other.is_err_and(|error| error.class() == ErrorClass::Mismatch));
    let longer = prepare(Some(received(&layout, b"anything at all!")?));
    assert!(longer.is_err_and(|error| error.class() == ErrorClass::Mismatch));

    let prepared = prepare(Some(received(&layout, bytes)?))?;
    ingest.commit(prepared, Collision::Refuse)?;
    let expected = json!({
        "mediaType": "application/vnd.example",
        "digest": Digest::of(bytes).as_str(),
        "size": 15,
        "urls": ["https://example.com/x"],
        "annotations": {"org.example.a": "b\"c", REF_NAME: "x:1"},
        "artifactType": "application/vnd.example.type",
        "platform": {"architecture": "arm", "os": "linux", "variant": "v7"},
    });
    assert_eq!(layout.entries(), [expected]);
    // Now it is in the layout: nothing need be given.
    ingest.commit(prepare(None)?, Collision::Refuse)?;
    assert_eq!(layout.entries().len(), 1);
    verify_layout(layout.path());
    Ok(())
}

/// Named, and with the platform of its own config, not of the machine; the entry of that
/// name makes room. Without all its blobs a manifest is none.
#[test]
fn put_manifest() -> TestResult {
    let layout = TestLayout::new();
    layout.add_ref("app:1", &image(&layout, "old"));
    let image = layout.image_for("linux/s390x", &[]);
    let manifest = std::fs::read(layout.blob_path(&image))?;
    let mut bare = image.clone();
    bare.as_object_mut()
        .ok_or("it is an object")?
        .remove("platform");
    let ingest = ingest(&layout);
    let put = |collision| -> Result<(), Box<dyn std::error::Error>> {
        let received = received(&layout, &manifest)?;
        let name = name("app:1");
        let prepared = ingest.prepare_described(Some(received), &descriptor(&bare), Some(&name))?;
        assert_eq!(prepared.kind(), Kind::Manifest);
        Ok(ingest.commit(prepared, collision).map(drop)?)
    };
    assert!(put(Collision::Refuse).is_err(), "it is another image");
    put(Collision::Replace)?;
    let entries = layout.entries();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["digest"], image["digest"]);
    let platform = json!({"architecture": "s390x", "os": "linux"});
    assert_eq!(entries[0]["platform"], platform);
    verify_layout(layout.path());

    let config = &serde_json::from_slice::<Value>(&manifest)?["config"];
    std::fs::remove_file(layout.blob_path(config))?;
    let before = Fingerprint::of(layout.path());
    assert!(put(Collision::Replace).is_err(), "its config is missing");
    assert_eq!(before, Fingerprint::of(layout.path()));
    assert!("".parse::<RefName>().is_err(), "no name is none");
    Ok(())
}

/// Blobs that nobody names are pushed first, and `name@digest` names the last one.
#[test]
fn push_by_name_and_digest() -> TestResult {
    let (source, target) = (TestLayout::new(), TestLayout::new());
    let image = image(&source, "pushed");
    let manifest = std::fs::read(source.blob_path(&image))?;
    let document: Value = serde_json::from_slice(&manifest)?;
    let writer = writer(&target);
    for pushed in [&document["config"], &document["layers"][0]] {
        let mut blob = writer.blob()?;
        blob.write_all(&std::fs::read(source.blob_path(pushed))?)?;
        blob.commit_as(&descriptor(pushed))?;
    }
    assert!(target.entries().is_empty());
    let digest: Digest = image["digest"].as_str().ok_or("it has one")?.parse()?;
    let mut blob = writer.blob()?;
    blob.write_all(&manifest)?;
    let ingest = ingest(&target);
    let described = descriptor(&image);
    let prepared = ingest.prepare_described(Some(blob.seal()?), &described, Some(&name("a:1")))?;
    ingest.commit(prepared, Collision::Replace)?;
    verify_layout(target.path());
    // The same name and digest find it.
    let opened = Layout::open(target.path(), &[])?;
    for text in [
        "a:1".to_owned(),
        format!("a:1@{digest}"),
        digest.to_string(),
    ] {
        assert_eq!(
            opened.resolve(&text)?[0].descriptor.digest,
            digest,
            "{text}"
        );
    }
    Ok(())
}

/// What a name means, its bytes verified, and read at any position.
#[test]
fn resolve_and_fetch() -> TestResult {
    let layout = TestLayout::new();
    let (one, two) = (image(&layout, "one"), image(&layout, "two"));
    layout.add_ref("app:1", &one);
    layout.add_ref("twice", &one);
    layout.add_ref("twice", &two);
    let platforms = ["linux/amd64", "linux/arm64"].map(|p| layout.image_for(p, &[]));
    for platform in &platforms {
        layout.add_ref("multi", platform);
    }
    let nested = layout.image_for("linux/riscv64", &[]);
    layout.add_entry(&layout.image_index(std::slice::from_ref(&nested)));
    let opened = Layout::open(layout.path(), &[])?;
    let second = format!("twice@{}", two["digest"].as_str().unwrap_or_default());
    let rows: [(&str, &str, &[&Value]); 5] = [
        ("a ref", "app:1", &[&one]),
        ("one of several", &second, &[&two]),
        (
            "platforms of one name",
            "multi",
            &[&platforms[0], &platforms[1]],
        ),
        (
            "a digest",
            two["digest"].as_str().unwrap_or_default(),
            &[&two],
        ),
        (
            "a digest in an index",
            nested["digest"].as_str().unwrap_or_default(),
            &[&nested],
        ),
    ];
    for (row, text, expected) in rows {
        let resolved = opened.resolve(text)?;
        let digests: Vec<&str> = resolved
            .iter()
            .map(|r| r.descriptor.digest.as_str())
            .collect();
        let expected: Vec<&str> = expected
            .iter()
            .filter_map(|d| d["digest"].as_str())
            .collect();
        assert_eq!(digests, expected, "{row}");
    }
    for text in ["", "nothing", "app:1@sha256:00"] {
        let error = opened.resolve(text).expect_err("there is none");
        let is_not_found = matches!(error, writer::Error::Refused(Refusal::NotFound { .. }));
        assert!(is_not_found, "{text:?}: {error}");
    }
    let several = opened.resolve("twice");
    assert!(matches!(
        several,
        Err(writer::Error::Refused(Refusal::Several { .. }))
    ));

    let verdicts = Verdicts::new(None);
    let manifest = &opened.resolve("app:1")?[0].descriptor;
    let blob = opened.fetch(manifest, &verdicts)?;
    let bytes = std::fs::read(layout.blob_path(&one))?;
    let mut buf = [0; 7];
    assert_eq!(blob.read_at(&mut buf, 10)?, 7);
    assert_eq!(buf, bytes[10..17]);
    let mut longer = manifest.clone();
    longer.size += 1;
    let error = opened.fetch(&longer, &verdicts);
    assert!(matches!(error, Err(writer::Error::SizeMismatch { .. })));
    std::fs::write(layout.blob_path(&one), vec![b' '; bytes.len()])?;
    let error = opened.fetch(manifest, &verdicts);
    assert!(matches!(error, Err(writer::Error::Blob(_))));
    Ok(())
}

/// All names, and what they are.
#[test]
fn list_references() -> TestResult {
    let layout = TestLayout::new();
    let image = image(&layout, "x");
    layout.add_refs(["b", "a:1", "c/d"], &image);
    layout.add_containerd_ref("docker.io/library/x:1", "1", &image);
    layout.add_entry(&image);
    let view = Layout::open(layout.path(), &[])?.read_index()?;
    let names: Vec<Option<&str>> = view.entries().iter().map(|e| merge::name(e)).collect();
    let expected = ["b", "a:1", "c/d", "docker.io/library/x:1"];
    let mut expected: Vec<Option<&str>> = expected.into_iter().map(Some).collect();
    expected.push(None);
    assert_eq!(names, expected);
    Ok(())
}

/// The entry that is chosen makes room for another; how it is chosen is up to the caller.
#[test]
fn replace_by_match() -> TestResult {
    type Fits = fn(&Entry) -> bool;
    let rows: [(&str, Fits, &[&str]); 4] = [
        (
            "by name",
            |entry| entry.ref_name.as_deref() == Some("a"),
            &["b", "new"],
        ),
        (
            "by platform",
            |entry| {
                let platform = entry
                    .descriptor
                    .as_ref()
                    .ok()
                    .and_then(|d| d.platform.as_ref());
                platform.is_some_and(|platform| platform.architecture == "arm64")
            },
            &["a", "new"],
        ),
        ("none", |_| false, &["a", "b", "new"]),
        ("all", |_| true, &["new"]),
    ];
    for (row, fits, expected) in rows {
        let layout = TestLayout::new();
        layout.add_ref("a", &layout.image_for("linux/amd64", &[]));
        layout.add_ref("b", &layout.image_for("linux/arm64", &[]));
        let mut new = layout.image_for("linux/s390x", &[]);
        new["annotations"][REF_NAME] = json!("new");
        let writer = writer(&layout);
        let digest = descriptor(&new).digest;
        let blob = writer.hold(&digest, descriptor(&new).size)?;
        let basis = Basis {
            blobs: &[blob],
            last_good: None,
        };
        let updated = writer.update(&basis, |draft| {
            select::replace(draft, fits, &[new.to_string()], Collision::Refuse)
        })?;
        assert_eq!(updated.answer.len(), 3 - expected.len(), "{row}");
        let names: Vec<String> = refs(&layout).into_keys().collect();
        assert_eq!(names, expected, "{row}");
        verify_layout(layout.path());
    }
    Ok(())
}

/// A name that an entry has which stays is not taken from it unasked.
#[test]
fn replacing_takes_no_other_name() -> TestResult {
    let layout = TestLayout::new();
    let (one, two) = (image(&layout, "one"), image(&layout, "two"));
    layout.add_ref("a", &one);
    layout.add_ref("b", &one);
    let mut new = two.clone();
    new["annotations"][REF_NAME] = json!("b");
    let is_a = |entry: &Entry| entry.ref_name.as_deref() == Some("a");
    let before = Fingerprint::of(layout.path());
    let replace = |collision| {
        writer(&layout).update(&Basis::default(), |draft| {
            select::replace(draft, is_a, &[new.to_string()], collision)
        })
    };
    let refused = replace(Collision::Refuse);
    assert!(matches!(
        refused,
        Err(writer::Error::Refused(Refusal::Exists { .. }))
    ));
    assert_eq!(before, Fingerprint::of(layout.path()));
    replace(Collision::Replace)?;
    assert_eq!(refs(&layout).len(), 1);
    assert_eq!(refs(&layout)["b"], two["digest"]);
    Ok(())
}

#[test]
fn remove_descriptors() -> TestResult {
    let layout = TestLayout::new();
    let image = image(&layout, "x");
    layout.add_refs(["a", "b"], &image);
    layout.add_entry(&image);
    let before = blobs(&layout);
    let updated = writer(&layout).update(&Basis::default(), |draft| {
        Ok(select::remove(draft, |entry| entry.ref_name.is_some()))
    })?;
    assert_eq!(updated.answer.len(), 2);
    assert_eq!(layout.entries(), [image]);
    assert_eq!(blobs(&layout), before, "blobs stay");
    let again = writer(&layout).update(&Basis::default(), |draft| {
        Ok(select::remove(draft, |entry| entry.ref_name.is_some()))
    })?;
    assert!(!again.is_written);
    Ok(())
}

/// A name is moved in one step, and taken away; labels are annotations of an entry.
#[test]
fn references_are_added_moved_labelled_and_deleted() -> TestResult {
    let layout = TestLayout::new();
    let (one, two) = (image(&layout, "one"), image(&layout, "two"));
    layout.add_ref("one", &one);
    layout.add_ref("two", &two);
    let writer = writer(&layout);
    let latest = name("latest");
    writer.tag("one", &latest, Collision::Refuse)?;
    assert!(writer.tag("two", &latest, Collision::Refuse).is_err());
    writer.tag("two", &latest, Collision::Replace)?;
    assert_eq!(refs(&layout)["latest"], two["digest"]);
    assert_eq!(layout.entries().len(), 3, "it is there once");

    let label = |value| {
        let key = "org.example.team";
        writer.update(&Basis::default(), |draft| {
            refs::annotate(draft, "latest", key, value)
        })
    };
    label(Some("core"))?;
    let opened = Layout::open(layout.path(), &[])?;
    let read = || -> Result<Option<String>, writer::Error> {
        let entry = opened.resolve("latest")?.remove(0).descriptor;
        Ok(entry.annotations.get("org.example.team").map(str::to_owned))
    };
    assert_eq!(read()?.as_deref(), Some("core"));
    label(None)?;
    assert_eq!(read()?, None);

    writer.untag("latest")?;
    assert!(writer.untag("latest").is_err(), "it is gone");
    assert_eq!(refs(&layout).len(), 2);
    Ok(())
}
