//! The tree without a mount.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ocifs::layer::{Layers, LayersOptions};
use ocifs::oci::Platform;
use ocifs::store::{Layout, Verdicts};
use ocifs::vfs::attr::Lifetime;
use ocifs::vfs::views::{Views, ViewsOptions};
use ocifs::vfs::{Ino, Patience, Vfs};
use serde_json::{Value, json};

use crate::common::{Compression, TestLayout};
use crate::sample::TestResult;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The tree of a layout, as a mount for `linux/amd64` would show it.
fn tree(layout: &TestLayout) -> TestResult<Arc<Vfs>> {
    let opened = Arc::new(Layout::open(layout.path(), &[])?);
    let view = opened.read_index()?;
    let verdicts = Arc::new(Verdicts::new(None));
    let layers = Arc::new(Layers::new(LayersOptions::default(), Arc::clone(&verdicts)));
    let options = ViewsOptions {
        platform: Platform::new("linux", "amd64"),
        ..ViewsOptions::default()
    };
    let views = Views::new(opened.clone(), view, layers, verdicts, options)?;
    Ok(Arc::new(Vfs::new(views.root(), opened)))
}

/// An index of `entries` that takes about `size` bytes.
fn padded(layout: &TestLayout, entries: &[Value], size: usize, number: usize) -> Value {
    let padding = format!("{number}{}", "x".repeat(size));
    layout.json(
        INDEX,
        &json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": entries,
            "annotations": {"padding": padding},
        }),
    )
}

#[test]
fn the_search_for_the_default_platform_is_bounded() -> TestResult {
    const MIB: usize = 1 << 20;
    let rows = [
        ("within the bound", 3, true),
        ("beyond the bound", 4, false),
        ("far beyond it", 12, false),
    ];
    for (name, before, found) in rows {
        let layout = TestLayout::new();
        let layer = layout.layer(Compression::Gzip, &[("a", b"a")]);
        let other = layout.image_for("linux/s390x", std::slice::from_ref(&layer));
        let wanted = layout.image_for("linux/amd64", &[layer]);
        // Each just over a part of 16 MiB, and only the last one leads to the image.
        let mut entries: Vec<Value> = (0..before)
            .map(|number| padded(&layout, std::slice::from_ref(&other), 4 * MIB, number))
            .collect();
        entries.push(padded(&layout, &[wanted], 10, before));
        layout.add_ref("app", &layout.image_index(&entries));
        let vfs = tree(&layout)?;
        let shown = vfs.resolve(b"app/manifest.json").is_ok();
        assert_eq!(shown, found, "{name}");
        assert!(
            vfs.resolve(b"app/platforms").is_ok(),
            "{name}: they are all there"
        );
        // What was found, or not, is remembered: no second search.
        let begun = Instant::now();
        for _ in 0..200 {
            assert_eq!(vfs.resolve(b"app/manifest.json").is_ok(), found, "{name}");
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(2), "{name}: took {took:?}");
    }
    Ok(())
}

#[test]
fn listing_refs_reads_no_document() -> TestResult {
    const CREATED: i64 = 1_704_164_645;
    let rows = [
        ("it says when", json!({}), Some(CREATED)),
        ("it does not say when", json!({"created": null}), None),
    ];
    for (name, config, created) in rows {
        let layout = TestLayout::new();
        layout.add_ref("app", &layout.image_with(&[], &config));
        let tree = tree(&layout)?;
        let root = tree.lookup(Ino::ROOT, b"app")?;
        let before = root.attr.mtime.seconds;
        assert_ne!(before, CREATED, "{name}: the document was read");
        assert_eq!(
            root.attr.lifetime,
            Lifetime::None,
            "{name}: it would be believed"
        );
        let asked = tree.attr(root.ino, Patience::Wait)?;
        assert_eq!(asked.mtime.seconds, created.unwrap_or(before), "{name}");
        let again = tree.lookup(Ino::ROOT, b"app")?;
        assert_eq!(
            again.attr.mtime, asked.mtime,
            "{name}: what is known is told"
        );
        assert_eq!(again.attr.lifetime, asked.lifetime, "{name}: and believed");
        assert_ne!(again.attr.lifetime, Lifetime::None, "{name}");
    }
    Ok(())
}

/// What is shown of an index while a part of it is missing is not believed for longer.
#[test]
fn the_time_of_an_index_is_that_of_what_it_shows() -> TestResult {
    const LATER: i64 = 1_735_787_045;
    let layout = TestLayout::new();
    // Of two that fit the first counts.
    let other = layout.image_for("linux/amd64", &[]);
    let wanted = json!({"os": "linux", "architecture": "amd64", "created": "2025-01-02T03:04:05Z"});
    let mut wanted = layout.image_with(&[], &wanted);
    wanted["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let nested = layout.image_index(&[wanted]);
    layout.add_ref("app", &layout.image_index(&[nested.clone(), other]));
    let (path, away) = (layout.blob_path(&nested), layout.path().join("away"));
    std::fs::rename(&path, &away)?;
    let tree = tree(&layout)?;
    let root = tree.lookup(Ino::ROOT, b"app")?;
    let before = tree.attr(root.ino, Patience::Wait)?;
    std::fs::rename(&away, &path)?;
    let after = tree.attr(root.ino, Patience::Wait)?;
    assert_ne!(before.mtime.seconds, LATER, "it cannot know yet");
    assert_ne!(before.lifetime, Lifetime::Forever, "nor is it believed");
    assert_eq!(after.mtime.seconds, LATER);
    assert_eq!(after.lifetime, Lifetime::Forever);
    Ok(())
}
