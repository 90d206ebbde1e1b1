//! Another program writes the index while we do, or has just written it.

use super::*;
use crate::store::disk::simulated::{Trouble, states};
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

/// How another program rewrites the index: over what was there, or by a new file.
type Rewrite = fn(&SimulatedDisk, &[u8]) -> std::io::Result<()>;

/// A blob that an index has just ceased to name is removed: after no power cut is there an
/// index that names it without it, also where the other program has synced nothing.
#[test]
fn a_blob_goes_when_no_index_that_names_it_can_come_back() -> TestResult {
    let rows: [(&str, Rewrite); 2] = [
        ("in place", |disk, bytes| {
            disk.open("index.json")?.write_at(bytes, 0)
        }),
        ("by a rename", |disk, bytes| {
            disk.put("new-index", bytes)?;
            disk.rename("new-index", "index.json")
        }),
    ];
    for (row, rewrite) in rows {
        let fresh = SimulatedDisk::default();
        with_refs(&fresh, &[("new", NEW)])?;
        // As long as before: what is written over leaves nothing of it.
        let mut without = EMPTY.to_vec();
        without.resize(fresh.read("index.json")?.len(), b' ');
        rewrite(&fresh, &without)?;
        let (mut states, mut is_over) = (0, false);
        for step in 0..20 {
            let disk = fresh.duplicate();
            disk.expect(Trouble::PowerCut(step));
            let removed = writer(&disk).remove_blob(&Digest::of(NEW));
            for (after, kept) in states::after_power_cut(&disk, 32, step as u64) {
                states += 1;
                let index = after.read("index.json").unwrap_or_default();
                let is_named = String::from_utf8_lossy(&index).contains(Digest::of(NEW).as_str());
                let is_there = after.read(&blob_path(NEW)).is_ok();
                assert!(
                    is_there || !is_named,
                    "{row}, step {step}, {kept}: it is missing"
                );
                assert!(removed.is_err() || !is_there, "{row}, {kept}: it is back");
            }
            is_over = removed.is_ok() && disk.steps() <= step;
            if is_over {
                break;
            }
        }
        assert!(is_over && states > 10, "{row}: {states} states");
    }
    Ok(())
}
