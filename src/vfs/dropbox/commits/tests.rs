//! Drops of every kind are put to the trial: the power is cut after every step, and every
//! call fails once, with an errno that whoever closes the drop is told.

use std::io::{self, Write};

use super::*;
use crate::ingest::IngestOptions;
use crate::ingest::tests::samples::{self, Sample};
use crate::store::Verdicts;
use crate::store::disk::simulated::SimulatedDisk;
use crate::store::disk::simulated::trial::{self, Again, Attempt, Case, Fault};
use crate::vfs::error::Error;

fn commits(disk: &SimulatedDisk) -> Result<Commits, Fault> {
    let verdicts = Arc::new(Verdicts::new(None));
    let writer = LayoutWriter::on(Arc::new(disk.clone()), "layout".as_ref(), verdicts);
    let first = writer.read_index()?;
    let committer = Committer::new(writer.clone(), first, Box::new(|_| {}));
    let ingest = Ingest::new(writer, IngestOptions::default());
    let committer = Arc::new(committer);
    Ok(Commits::new(committer, ingest, Collision::Refuse))
}

/// Writes a drop and closes it.
fn close(commits: &Commits, bytes: &[u8], name: &Name, made: &mut Vec<Made>) -> Result<(), Error> {
    let mut blob = commits.begin().map_err(ingest::Error::from)?;
    blob.write_all(bytes)?;
    let sealed = blob.seal().map_err(ingest::Error::from)?;
    commits.bring_in(sealed, name, made)?;
    Ok(())
}

/// The error as the program sees it that closes the drop.
fn seen(error: Error) -> Fault {
    io::Error::from_raw_os_error(error.errno()).into()
}

fn case(sample: &Sample) -> Case<'_> {
    let begin = move |disk: &SimulatedDisk| {
        let commits = commits(disk)?;
        let attempt: Attempt<'_> = Box::new(move || {
            close(&commits, &sample.bytes, &sample.name, &mut Vec::new()).map_err(seen)
        });
        Ok(attempt)
    };
    Case::begun(sample.kind.name(), |disk| Ok(sample.prepare(disk)?), begin)
}

/// A drop that was committed, and is written on.
fn written_on(sample: &Sample) -> Case<'_> {
    let begin = move |disk: &SimulatedDisk| {
        let (commits, mut made) = (commits(disk)?, Vec::new());
        close(&commits, b"the first bytes", &sample.name, &mut made)?;
        let attempt: Attempt<'_> =
            Box::new(move || close(&commits, &sample.bytes, &sample.name, &mut made).map_err(seen));
        Ok(attempt)
    };
    let name = format!("{}, written on", sample.kind.name());
    // Only this process knows that the drop may replace what it has made.
    Case::begun(name, |disk| Ok(sample.prepare(disk)?), begin).again(Again::Never)
}

fn cases(samples: &[Sample]) -> Vec<Case<'_>> {
    let written_on = samples.iter().filter(|s| s.entries > 0).map(written_on);
    samples.iter().map(case).chain(written_on).collect()
}

#[test]
fn after_a_power_cut_there_is_all_or_nothing() -> Result<(), Fault> {
    trial::assert_all_or_nothing("drops", &cases(&samples::all()), 4)
}

#[test]
fn who_closes_is_told_what_the_disk_says() -> Result<(), Fault> {
    trial::assert_failures_are_told(&cases(&samples::all()))
}
