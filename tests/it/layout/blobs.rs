//! Blobs: looked at, listed, removed; and other files beside them.

use std::fs;
use std::io::Write;

use ocifs::store::layout::remove;
use ocifs::store::layout::writer;

use super::super::common::{Damage, Fingerprint};
use super::*;

/// Size and time of a blob, whatever it holds; each blob is met once.
#[test]
fn info_and_walk() -> TestResult {
    let layout = TestLayout::new();
    let image = image(&layout, "x");
    let opened = Layout::open(layout.path(), &[])?;
    fs::write(layout.path().join("blobs/sha256/stray"), "no blob")?;
    let mut met = Vec::new();
    for algorithm in opened.list_algorithms()? {
        for digest in opened.list_blobs(&algorithm)? {
            let size = opened.stat_blob(&digest)?.len();
            assert!(opened.stat_blob(&digest)?.modified().is_ok());
            met.push((digest.to_string(), size));
        }
    }
    met.sort();
    assert_eq!(met.len(), 3);
    let wanted = descriptor(&image);
    assert!(met.contains(&(wanted.digest.to_string(), wanted.size)));
    let missing = opened.stat_blob(&Digest::of(b"missing"));
    assert!(matches!(missing, Err(layout::Error::BlobMissing { .. })));
    Ok(())
}

/// That something has the name is one question, that it is right another.
#[test]
fn has_blob() -> TestResult {
    let layout = TestLayout::new();
    let image = image(&layout, "x");
    let Descriptor { digest, size, .. } = descriptor(&image);
    let writer = writer(&layout);
    assert!(writer.is_present(&digest) && writer.is_in_reach(&digest));
    assert_eq!(writer.hold(&digest, size)?.size(), size);
    assert!(!writer.is_present(&Digest::of(b"missing")));
    layout.damage(&image, Damage::FlippedBit);
    assert!(writer.is_present(&digest));
    let damaged = writer.hold(&digest, size);
    assert!(matches!(damaged, Err(writer::Error::DigestMismatch { .. })));
    Ok(())
}

/// A blob that is being written is seen by its writer alone, and goes with it.
#[test]
fn status_and_abort() -> TestResult {
    let layout = TestLayout::new();
    let before = Fingerprint::of(layout.path());
    let mut blob = writer(&layout).blob()?;
    blob.write_all(&[7; 300_000])?;
    blob.sync()?;
    assert_eq!(blob.size(), 300_000);
    assert_eq!(blobs(&layout).len(), 0);
    drop(blob);
    assert_eq!(before, Fingerprint::of(layout.path()));
    Ok(())
}

/// What something reachable names stays, however far away; all else can go.
#[test]
fn remove_blob() -> TestResult {
    let layout = TestLayout::new();
    let layer = layout.layer(Compression::Gzip, &[("a", b"1")]);
    let image = layout.image(std::slice::from_ref(&layer));
    let subject = layout.blob("application/vnd.example", b"a subject");
    let referrer = layout.artifact("application/vnd.example", "a", b"about it", Some(&subject));
    let index = layout.image_index(&[image.clone(), referrer.clone()]);
    let outer = layout.image_index(std::slice::from_ref(&index));
    layout.add_ref("app:1", &outer);
    layout.add_entry(&json!({"digest": Digest::of(b"odd").as_str(), "size": "wrong"}));
    let odd = layout.blob("text/plain", b"odd");
    let free = layout.blob("text/plain", b"free");
    let config =
        serde_json::from_slice::<Value>(&fs::read(layout.blob_path(&image))?)?["config"].clone();
    let rows = [
        ("a layer", &layer.descriptor),
        ("a config", &config),
        ("a manifest", &image),
        ("an index", &index),
        ("an entry", &outer),
        ("a subject", &subject),
        ("an entry that is wrong", &odd),
    ];
    let writer = writer(&layout);
    let before = Fingerprint::of(layout.path());
    let digest = |value: &Value| {
        value["digest"]
            .as_str()
            .unwrap_or_default()
            .parse::<Digest>()
    };
    for (row, needed) in rows {
        let error = writer.remove_blob(&digest(needed)?);
        assert!(matches!(error, Err(remove::Error::InUse { .. })), "{row}");
    }
    assert_eq!(before, Fingerprint::of(layout.path()));
    writer.remove_blob(&digest(&free)?)?;
    assert!(!layout.blob_path(&free).exists());
    let again = writer.remove_blob(&digest(&free)?);
    let is_missing = |error: &remove::Error| {
        let remove::Error::Writer(writer::Error::Layout(error)) = error else {
            return false;
        };
        matches!(error, layout::Error::BlobMissing { .. })
    };
    assert!(again.is_err_and(|error| is_missing(&error)));
    verify_layout_of(&layout, &["app:1"]);
    Ok(())
}

/// Only what a ref leads to, once the entry that is wrong has gone.
fn verify_layout_of(layout: &TestLayout, names: &[&str]) {
    let mut entries = layout.entries();
    entries.retain(|entry| {
        names
            .iter()
            .any(|name| entry["annotations"][REF_NAME] == *name)
    });
    layout.write_entries(&entries);
    verify_layout(layout.path());
}

/// Where it cannot be read what is needed, nothing is removed; where it is missing, it needs
/// nothing.
#[test]
fn what_cannot_be_read_may_need_anything() -> TestResult {
    let layout = TestLayout::new();
    let layer = layout.layer(Compression::Gzip, &[("a", b"1")]);
    let image = layout.image(std::slice::from_ref(&layer));
    layout.add_ref("app:1", &image);
    let layer = descriptor(&layer.descriptor).digest;
    layout.damage(&image, Damage::FlippedBit);
    let damaged = writer(&layout).remove_blob(&layer);
    assert!(matches!(damaged, Err(remove::Error::Unclear { .. })));
    layout.damage(&image, Damage::Missing);
    writer(&layout).remove_blob(&layer)?;
    Ok(())
}

/// What is removed while somebody is about to name it is put back.
#[test]
fn a_blob_that_is_held_outlives_its_removal() -> TestResult {
    let layout = TestLayout::new();
    let image = image(&layout, "x");
    let described = descriptor(&image);
    let ingest = ingest(&layout);
    let prepared = ingest.prepare_described(None, &described, Some(&name("app:1")))?;
    writer(&layout).remove_blob(&described.digest)?;
    assert!(!layout.blob_path(&image).exists());
    ingest.commit(prepared, Collision::Refuse)?;
    verify_layout(layout.path());
    Ok(())
}

/// Any small file beside the layout's own, in one step.
#[test]
fn write_file() -> TestResult {
    let layout = TestLayout::new();
    let writer = writer(&layout);
    for bytes in [&b"one"[..], b"another", b""] {
        writer.write_file("NOTES", bytes)?;
        assert_eq!(fs::read(layout.path().join("NOTES"))?, bytes);
    }
    let before = Fingerprint::of(layout.path());
    for name in [
        "",
        ".",
        "..",
        ".ocifs",
        "a/b",
        "/a",
        "index.json",
        "oci-layout",
        "blobs",
    ] {
        let refused = writer.write_file(name, b"x");
        let Err(writer::Error::Io { source, .. }) = refused else {
            return Err(format!("{name:?}: {refused:?}").into());
        };
        assert_eq!(source.kind(), std::io::ErrorKind::InvalidInput, "{name:?}");
    }
    assert_eq!(before, Fingerprint::of(layout.path()));
    Ok(())
}
