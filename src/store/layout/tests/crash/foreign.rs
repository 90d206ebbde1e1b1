//! Another program writes the index while we do.

use super::*;
use crate::store::disk::simulated::Trouble;
use crate::store::layout::tests::TestResult;

/// An index that another program writes before any step of ours is never lost, also where
/// a later step fails.
#[test]
fn what_somebody_else_writes_in_between_is_never_lost() -> TestResult {
    let foreign = |entries: &[String]| {
        let entries = entries.join(",");
        format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#)
    };
    let with_old_too = foreign(&[refs_entry("old", OLD), refs_entry("foreign", OLD)]);
    for is_missing in [false, true] {
        let fresh = SimulatedDisk::default();
        with_old(&fresh)?;
        let view = writer(&fresh).read_index()?;
        if is_missing {
            fresh.unlink("index.json")?;
        }
        let attempt = |disk: &SimulatedDisk| {
            let writer = writer(disk);
            let blob = writer.store(NEW)?;
            publish_from(&writer, "new", &blob, Some(&view))
        };
        // What fails is tried again after a pause, so most of the time is waiting.
        let rows = |at: usize| -> Result<bool, String> {
            let start = || {
                let disk = fresh.duplicate();
                disk.meddle(at, "index.json", with_old_too.as_bytes());
                disk
            };
            let disk = start();
            disk.expect(Trouble::None);
            attempt(&disk).map_err(|error| error.to_string())?;
            let steps = disk.steps();
            if steps <= at {
                return Ok(false);
            }
            let row = format!("missing: {is_missing}, written before step {at} of {steps}");
            let names = |disk: &SimulatedDisk| names_of(disk).map_err(|error| error.to_string());
            let foreign = "foreign".to_owned();
            assert!(names(&disk)?.contains(&foreign), "{row}");
            for failing in at..steps {
                let disk = start();
                disk.expect(Trouble::Failure(failing, libc::EIO));
                let result = attempt(&disk);
                disk.expect(Trouble::None);
                let found = names(&disk)?;
                assert!(
                    found.contains(&foreign),
                    "{row}, {failing} fails: {result:?}, {found:?}"
                );
            }
            Ok(true)
        };
        let plain = fresh.duplicate();
        attempt(&plain)?;
        let most = plain.steps() * 2;
        let meddled = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..most).map(|at| scope.spawn(move || rows(at))).collect();
            let rows = threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"));
            rows.collect::<Result<Vec<bool>, String>>()
        })?;
        assert_eq!(meddled.last(), Some(&false), "all steps are tried");
        let meddled = meddled.into_iter().filter(|is| *is).count();
        assert!(meddled > 10, "only {meddled} steps");
    }
    Ok(())
}
