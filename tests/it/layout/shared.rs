//! Blobs in a directory that several layouts share.

use std::fs;

use ocifs::ingest::{ErrorClass, Name};
use ocifs::store::layout::writer::Sharing;
use tempfile::TempDir;

use super::super::common::{Damage, Need, has, run_ok, tar_of};
use super::*;

/// A layout, and a directory that it shares with others.
struct Bench {
    layout: TestLayout,
    shared: TempDir,
}

impl Bench {
    /// With all blobs of `filled` in the shared directory.
    fn of(filled: &TestLayout) -> Self {
        let shared = tempfile::tempdir().expect("a temporary directory can be made");
        let blobs = filled.path().join("blobs/sha256");
        fs::rename(&blobs, shared.path().join("sha256")).expect("both are on one file system");
        fs::create_dir(blobs).expect("the layout is writable");
        Self {
            layout: TestLayout::new(),
            shared,
        }
    }

    fn opened(&self) -> Layout {
        let shared = [self.shared.path().to_owned()];
        Layout::open(self.layout.path(), &shared).expect("it is a layout")
    }

    fn ingest(&self, sharing: Sharing) -> Ingest {
        let writer = LayoutWriter::open(&self.opened(), Arc::new(Verdicts::new(None)));
        let writer = writer.expect("it can be written").sharing(sharing);
        Ingest::new(writer, IngestOptions::default())
    }

    /// Drops bytes under a name.
    fn import(&self, sharing: Sharing, file: &str, bytes: &[u8]) -> Result<Report, Error> {
        let ingest = self.ingest(sharing);
        let prepared = ingest.prepare_file(&bytes.to_vec(), &Name::of_file(file.as_bytes())?)?;
        ingest.commit(prepared, Collision::Refuse)
    }
}

/// An image, and its manifest.
fn filled() -> (TestLayout, Value, Vec<u8>) {
    let layout = TestLayout::new();
    let image = image(&layout, "shared");
    let manifest = fs::read(layout.blob_path(&image)).expect("it is there");
    (layout, image, manifest)
}

/// What the shared directory has is not written once more, unless that is asked for.
#[test]
fn only_the_index_names_what_is_shared() -> TestResult {
    let rows = [(Sharing::Refer, 0), (Sharing::Copy, 3)];
    for (sharing, written) in rows {
        let (filled, image, manifest) = filled();
        let bench = Bench::of(&filled);
        let report = bench.import(sharing, "app.json", &manifest)?;
        assert_eq!(refs(&bench.layout)["app"], image["digest"], "{sharing:?}");
        assert_eq!(blobs(&bench.layout).len(), written, "{sharing:?}");
        let new = report.blobs.iter().filter(|blob| blob.is_new).count();
        assert_eq!(new, written, "{sharing:?}");
        let manifest = &bench.opened().resolve("app")?[0].descriptor;
        bench.opened().fetch(manifest, &Verdicts::new(None))?;
        if sharing == Sharing::Copy {
            verify_layout(bench.layout.path());
        }
    }
    Ok(())
}

/// A layer that is dropped alone, of which the shared directory has the very blob.
#[test]
fn a_drop_that_is_shared_already() -> TestResult {
    let tar = tar_of(&[("etc/motd", b"hello\n")]);
    let other = TestLayout::new();
    other.blob("application/vnd.oci.image.layer.v1.tar", &tar);
    let bench = Bench::of(&other);
    bench.import(Sharing::Refer, "layer.tar", &tar)?;
    assert_eq!(blobs(&bench.layout).len(), 2, "manifest and config");
    Ok(())
}

/// A damaged blob proves nothing: what was given is written, what was not is refused.
#[test]
fn a_damaged_shared_blob_is_no_proof() -> TestResult {
    for damage in [Damage::FlippedBit, Damage::Truncated, Damage::Missing] {
        let (filled, image, manifest) = filled();
        filled.damage(&image, damage);
        let bench = Bench::of(&filled);
        bench.import(Sharing::Refer, "app.json", &manifest)?;
        assert_eq!(
            blobs(&bench.layout),
            [image["digest"].as_str().unwrap_or_default()]
        );

        let (filled, _, manifest) = self::filled();
        let document: Value = serde_json::from_slice(&manifest)?;
        filled.damage(&document["config"], damage);
        let bench = Bench::of(&filled);
        let error = bench.import(Sharing::Refer, "app.json", &manifest);
        let expected = match damage {
            Damage::Missing => ErrorClass::Missing,
            _ => ErrorClass::Mismatch,
        };
        assert!(
            error.is_err_and(|error| error.class() == expected),
            "{damage:?}"
        );
        assert!(bench.layout.entries().is_empty(), "{damage:?}");
    }
    Ok(())
}

/// The first directory that has something under the name counts, as it does for readers.
#[test]
fn the_first_directory_counts() -> TestResult {
    let (filled, image, manifest) = filled();
    let bench = Bench::of(&filled);
    let first = tempfile::tempdir()?;
    let digest = descriptor(&image).digest;
    fs::create_dir(first.path().join("sha256"))?;
    fs::write(
        first.path().join("sha256").join(digest.encoded()),
        "damaged",
    )?;
    let shared = [first.path().to_owned(), bench.shared.path().to_owned()];
    let layout = Layout::open(bench.layout.path(), &shared)?;
    let writer = LayoutWriter::open(&layout, Arc::new(Verdicts::new(None)))?;
    let stored = writer.store(&manifest)?;
    assert!(!stored.is_shared(), "readers would find the damaged one");
    layout.fetch(&descriptor(&image), &Verdicts::new(None))?;
    Ok(())
}

/// What goes from the shared directory before the index names it is kept in the layout.
#[test]
fn a_shared_blob_that_goes_is_kept() -> TestResult {
    let (filled, image, _) = filled();
    let bench = Bench::of(&filled);
    let ingest = bench.ingest(Sharing::Refer);
    let prepared = ingest.prepare_described(None, &descriptor(&image), Some(&name("app:1")))?;
    fs::remove_dir_all(bench.shared.path().join("sha256"))?;
    ingest.commit(prepared, Collision::Refuse)?;
    assert_eq!(blobs(&bench.layout).len(), 3);
    verify_layout(bench.layout.path());
    Ok(())
}

/// skopeo fills the directory, we name what is there, and skopeo reads that.
#[test]
fn shared_directories_of_skopeo() -> TestResult {
    if !has("shared_directories_of_skopeo", &[Need::Tool("skopeo")]) {
        return Ok(());
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/buildah-gzip");
    let from = format!("oci:{}:app:1", golden.display());
    let bench = Bench::of(&TestLayout::new());
    let shared = bench
        .shared
        .path()
        .to_str()
        .ok_or("a temporary path is text")?;
    let by_skopeo = tempfile::tempdir()?;
    let to = format!("oci:{}:app:1", by_skopeo.path().join("layout").display());
    run_ok(
        "skopeo",
        &["copy", "-q", "--dest-shared-blob-dir", shared, &from, &to],
    );

    // Its layout is read with the directory, and without it nothing is there.
    let directories = [bench.shared.path().to_owned()];
    let source = Layout::open(&by_skopeo.path().join("layout"), &directories)?;
    assert!(
        source.list_blobs("sha256")?.is_empty(),
        "skopeo has put all of it there"
    );
    let entries = source.resolve("app:1")?;
    let ingest = bench.ingest(Sharing::Refer);
    ingest.commit(
        ingest.prepare_layout(&source, &entries, None)?,
        Collision::Refuse,
    )?;
    assert_eq!(blobs(&bench.layout).len(), 0, "only the index names it");

    let image = format!("oci:{}:app:1", bench.layout.path().display());
    let onward = TestLayout::new();
    let copy = format!("oci:{}:app:1", onward.path().display());
    run_ok(
        "skopeo",
        &["copy", "-q", "--src-shared-blob-dir", shared, &image, &copy],
    );
    verify_layout(onward.path());
    assert_eq!(refs(&onward), refs(&bench.layout));

    // With copies the layout needs the directory no more.
    let alone = TestLayout::new();
    let layout = Layout::open(alone.path(), &directories)?;
    let writer = LayoutWriter::open(&layout, Arc::new(Verdicts::new(None)))?;
    let ingest = Ingest::new(writer.sharing(Sharing::Copy), IngestOptions::default());
    ingest.commit(
        ingest.prepare_layout(&source, &entries, None)?,
        Collision::Refuse,
    )?;
    verify_layout(alone.path());
    let image = format!("oci:{}:app:1", alone.path().display());
    run_ok("skopeo", &["inspect", &image]);
    Ok(())
}
