//! Imports of every kind are put to the trial: the power is cut after every step, and every
//! call fails once.

use std::cell::Cell;
use std::io::Write;
use std::sync::Arc;

use super::walk::{Stock, Walk, Wholeness};
use super::*;
use crate::oci::{Descriptor, MediaType};
use crate::store::Verdicts;
use crate::store::disk::simulated::SimulatedDisk;
use crate::store::disk::simulated::sight::Sight;
use crate::store::disk::simulated::trial::{self, Case, Fault};
use crate::store::layout::{self, Layout};
use samples::Sample;

pub(crate) mod samples;

type TestResult = Result<(), Fault>;

fn writer(disk: &SimulatedDisk) -> LayoutWriter {
    let verdicts = Arc::new(Verdicts::new(None));
    LayoutWriter::on(Arc::new(disk.clone()), "layout".as_ref(), verdicts)
}

fn import(disk: &SimulatedDisk, sample: &Sample) -> Result<Report, Error> {
    let writer = writer(disk);
    let mut blob = writer.blob()?;
    blob.write_all(&sample.bytes)
        .map_err(|source| held::write_error(&writer, source))?;
    let ingest = Ingest::new(writer, IngestOptions::default());
    let prepared = ingest.prepare(blob.seal()?, &sample.name)?;
    ingest.commit(prepared, Collision::Refuse)
}

/// A file of somebody else, which is only read.
fn import_file(disk: &SimulatedDisk, sample: &Sample) -> Result<Report, Error> {
    let ingest = Ingest::new(writer(disk), IngestOptions::default());
    let prepared = ingest.prepare_file(&sample.bytes, &sample.name)?;
    ingest.commit(prepared, Collision::Refuse)
}

/// Another layout, with two images that share a layer.
fn other_layout() -> Result<(tempfile::TempDir, Layout), Fault> {
    let dir = tempfile::tempdir()?;
    layout::init(dir.path())?;
    let layout = Layout::open(dir.path(), &[])?;
    let writer = LayoutWriter::open(&layout, Arc::new(Verdicts::new(None)))?;
    let ingest = Ingest::new(writer, IngestOptions::default());
    let archive = samples::docker_archive();
    let prepared = ingest.prepare_file(&archive, &Name::of_file(b"x")?)?;
    ingest.commit(prepared, Collision::Refuse)?;
    Ok((dir, layout))
}

/// Copies all images of another layout, one after the other so that its steps are the same
/// each time.
fn import_layout(disk: &SimulatedDisk, source: &Layout) -> Result<Report, Error> {
    let ingest = Ingest::new(writer(disk), IngestOptions::default()).one_by_one();
    let entries = source.resolve_all()?;
    let prepared = ingest.prepare_layout(source, &entries, None)?;
    ingest.commit(prepared, Collision::Refuse)
}

fn layout_cases(source: &Layout) -> Vec<Case<'_>> {
    let operation = move |disk: &SimulatedDisk| Ok(import_layout(disk, source).map(drop)?);
    let prepare = |disk: &SimulatedDisk| -> TestResult {
        disk.put("index.json", samples::EMPTY)?;
        disk.settle();
        Ok(())
    };
    vec![Case::new("images of a layout", prepare, operation)]
}

#[test]
fn images_of_a_layout_come_whole_or_not_at_all() -> TestResult {
    let (_dir, source) = other_layout()?;
    trial::assert_all_or_nothing("images of a layout", &layout_cases(&source), 16)?;
    trial::assert_failures_are_told(&layout_cases(&source))
}

fn cases(samples: &[Sample]) -> Vec<Case<'_>> {
    let received = samples.iter().map(|sample| {
        let name = format!("{} received", sample.kind.name());
        let operation = move |disk: &SimulatedDisk| Ok(import(disk, sample).map(drop)?);
        Case::new(name, |disk| Ok(sample.prepare(disk)?), operation)
    });
    let read = samples.iter().map(|sample| {
        let name = format!("{} read", sample.kind.name());
        let operation = move |disk: &SimulatedDisk| Ok(import_file(disk, sample).map(drop)?);
        Case::new(name, |disk| Ok(sample.prepare(disk)?), operation)
    });
    received.chain(read).collect()
}

#[test]
fn samples_are_what_they_are_called() -> TestResult {
    for sample in samples::all() {
        for import in [import, import_file] {
            let disk = SimulatedDisk::default();
            sample.prepare(&disk)?;
            let report = import(&disk, &sample)?;
            assert_eq!(report.kind, sample.kind);
            let sight = Sight::of(&disk)?;
            let kind = sample.kind.name();
            assert_eq!(sight.entries().len(), sample.entries, "{kind}");
        }
    }
    Ok(())
}

#[test]
fn after_a_power_cut_there_is_all_or_nothing() -> TestResult {
    trial::assert_all_or_nothing("imports", &cases(&samples::all()), 4)
}

#[test]
fn a_call_that_fails_is_told_and_can_be_tried_again() -> TestResult {
    trial::assert_failures_are_told(&cases(&samples::all()))
}

/// The checks above can fail: without syncs they find what is wrong.
#[test]
fn a_disk_that_lies_is_found_out() -> TestResult {
    for case in cases(&samples::all()) {
        if case.name.starts_with("docker-archive") {
            trial::assert_lies_are_found(&case, &["damaged", "index:", "blob sha256"])?;
        }
    }
    Ok(())
}

/// What is prepared and not committed leaves the disk as it was.
#[test]
fn nothing_is_there_before_the_commit() -> TestResult {
    for sample in samples::all() {
        let disk = SimulatedDisk::default();
        sample.prepare(&disk)?;
        let before = disk.fingerprint();
        let writer = writer(&disk);
        let mut blob = writer.blob()?;
        blob.write_all(&sample.bytes)?;
        let ingest = Ingest::new(writer, IngestOptions::default());
        let prepared = ingest.prepare(blob.seal()?, &sample.name)?;
        assert_eq!(disk.fingerprint(), before, "{}", sample.kind.name());
        drop(prepared);
        assert_eq!(disk.fingerprint(), before, "{}", sample.kind.name());
    }
    Ok(())
}

/// A stock that has a blob only when it is asked for it again, as one that saw it in the
/// layout before.
struct Late(Cell<usize>);

impl Stock for Late {
    fn find(&self, descriptor: &Descriptor) -> Result<Option<(String, Held)>, Error> {
        self.0.set(self.0.get() + 1);
        let found = (descriptor.digest.to_string(), Held::text("x"));
        Ok((self.0.get() > 1).then_some(found))
    }
}

#[test]
fn what_the_layout_loses_meanwhile_is_asked_for_again() -> TestResult {
    let disk = SimulatedDisk::default();
    disk.put("index.json", samples::EMPTY)?;
    let (writer, stock) = (writer(&disk), Late(Cell::new(0)));
    let media_type = MediaType::new("application/octet-stream");
    let descriptor = Descriptor::new(media_type, Digest::of(b"x"), 1);
    let mut walk = Walk::new(&writer, &stock, Wholeness::PerIndex, 1);
    walk.enter(&descriptor)?;
    assert!(walk.finish().new.contains_key(&descriptor.digest));
    assert_eq!(stock.0.get(), 2);
    Ok(())
}
