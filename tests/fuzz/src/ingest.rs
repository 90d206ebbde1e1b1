//! Dropped files: `ingest::Ingest`, up to what an import would publish.
//!
//! Invariants, for any bytes, also once the sums of all headers are put right:
//! - no panic, and memory that does not grow with what the bytes claim;
//! - a file that was received is taken for the same as one that is read in place: the same
//!   entries, or the same error;
//! - what is right can be added to the index, and its entries are descriptors;
//! - the layout is as it was.

use std::cell::OnceCell;
use std::fs;
use std::io::Write;
use std::sync::Arc;

use ocifs::ingest::{Error, Ingest, IngestOptions, Kind, Name, Prepared};
use ocifs::oci::{Descriptor, Digest, json};
use ocifs::store::layout::init;
use ocifs::store::layout::refs::Collision;
use ocifs::store::{Layout, LayoutWriter, Verdicts};
use tempfile::TempDir;

use super::tar::with_right_sums;

/// An empty layout, into which nothing ever comes.
struct Target {
    dir: TempDir,
    writer: LayoutWriter,
    index: Vec<u8>,
}

thread_local! {
    static TARGET: OnceCell<Target> = const { OnceCell::new() };
}

impl Target {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        init(dir.path()).expect("a layout can be made");
        let layout = Layout::open(dir.path(), &[]).expect("it is a layout");
        let writer = LayoutWriter::open(&layout, Arc::new(Verdicts::new(None)));
        let index = fs::read(dir.path().join("index.json")).expect("it is there");
        Self {
            writer: writer.expect("it can be written"),
            dir,
            index,
        }
    }

    fn check(&self, bytes: &[u8]) {
        let ingest = Ingest::new(self.writer.clone(), IngestOptions::default());
        let name = Name::of_file(b"dropped").expect("it is a name");
        let received = self.receive(&ingest, &name, bytes);
        let in_place = ingest.prepare_file(&bytes.to_vec(), &name);
        assert_eq!(outcome(&received), outcome(&in_place));
        if let Ok(prepared) = received {
            self.check_prepared(&prepared);
        }
        let index = fs::read(self.dir.path().join("index.json"));
        assert_eq!(index.ok().as_ref(), Some(&self.index), "the index");
        let blobs = fs::read_dir(self.dir.path().join("blobs/sha256"));
        assert_eq!(blobs.map(Iterator::count).ok(), Some(0), "blobs");
    }

    fn receive(&self, ingest: &Ingest, name: &Name, bytes: &[u8]) -> Result<Prepared, Error> {
        let mut blob = self.writer.blob()?;
        blob.write_all(bytes).expect("it can be written");
        ingest.prepare(blob.seal()?, name)
    }

    fn check_prepared(&self, prepared: &Prepared) {
        assert_eq!(prepared.images().len(), prepared.entries().len());
        assert!(!prepared.entries().is_empty(), "nothing comes of it");
        for (image, entry) in prepared.images().iter().zip(prepared.entries()) {
            let value = json::parse(entry.as_bytes()).expect("it is JSON");
            let descriptor = Descriptor::from_json(&value).expect("it is a descriptor");
            assert_eq!(
                (&descriptor.digest, descriptor.size),
                (&image.digest, image.size)
            );
        }
        let mut draft = self.writer.present().expect("the index is there");
        let applied = prepared.apply(&mut draft, Collision::Replace);
        assert!(applied.is_ok(), "{applied:?}");
    }
}

/// Digests and sizes of the images that would be brought in, if these bytes are an archive.
pub fn images_of_archive(bytes: &[u8]) -> Option<Vec<(Digest, u64)>> {
    TARGET.with(|target| {
        let target = target.get_or_init(Target::new);
        let ingest = Ingest::new(target.writer.clone(), IngestOptions::default());
        let name = Name::of_file(b"dropped").expect("it is a name");
        let prepared = ingest.prepare_file(&bytes.to_vec(), &name).ok()?;
        let is_archive = matches!(prepared.kind(), Kind::OciArchive | Kind::DockerArchive);
        let images = prepared.images().iter();
        let images = images.map(|image| (image.digest.clone(), image.size));
        is_archive.then(|| images.collect())
    })
}

/// What came of an import, as text.
fn outcome(result: &Result<Prepared, Error>) -> String {
    match result {
        Ok(prepared) => format!("{:?} {:?}", prepared.kind(), prepared.entries()),
        Err(error) => format!("{}: {error}", error.code()),
    }
}

/// Checks the invariants.
pub fn check(bytes: &[u8]) {
    TARGET.with(|target| {
        let target = target.get_or_init(Target::new);
        target.check(bytes);
        if let Some(summed) = with_right_sums(bytes) {
            target.check(&summed);
        }
    });
}
