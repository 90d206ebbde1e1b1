//! The power is cut after every step of every kind of commit, and every step fails once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::TestResult;
use crate::oci::{Digest, RefName, json};
use crate::store::Verdicts;
use crate::store::View;
use crate::store::disk::simulated::{SimulatedDisk, Trouble, Unsynced};
use crate::store::disk::{self, Disk};
use crate::store::layout;
use crate::store::layout::index::update::Basis;
use crate::store::layout::refs::{self, Collision};
use crate::store::layout::writer::{Error, LayoutWriter, StoredBlob};

/// How many ways to lose data are tried after one step; beyond it a sample is drawn.
const STATES_PER_STEP: u64 = 2048;

const EMPTY: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;
const OLD: &[u8] = br#"{"old":true}"#;
const NEW: &[u8] = br#"{"new":true}"#;

type Operation = fn(&LayoutWriter) -> Result<(), Error>;

/// What an operation begins with, and how the index names things when it is done.
struct Case {
    name: &'static str,
    prepare: fn(&SimulatedDisk) -> std::io::Result<()>,
    operation: Operation,
    after: &'static [(&'static str, &'static [u8])],
}

const CASES: &[Case] = &[
    Case {
        name: "a blob",
        prepare: with_old,
        operation: |writer| writer.store(NEW).map(drop),
        after: &[("old", OLD)],
    },
    Case {
        name: "a ref to a new blob",
        prepare: with_old,
        operation: |writer| set(writer, "new", NEW),
        after: &[("old", OLD), ("new", NEW)],
    },
    Case {
        name: "the first ref of an empty layout",
        prepare: |disk| disk.put("index.json", EMPTY),
        operation: |writer| set(writer, "new", NEW),
        after: &[("new", NEW)],
    },
    Case {
        name: "a ref to a blob that is there, but not yet on the disk",
        prepare: with_unsynced,
        operation: |writer| set(writer, "new", NEW),
        after: &[("old", OLD), ("new", NEW)],
    },
    Case {
        name: "a ref to a held blob that is not yet on the disk",
        prepare: with_unsynced,
        operation: |writer| {
            let blob = writer.hold(&Digest::of(NEW), NEW.len() as u64)?;
            publish(writer, "new", &blob)
        },
        after: &[("old", OLD), ("new", NEW)],
    },
    Case {
        name: "a ref to a new blob, in directories that are not yet on the disk",
        prepare: with_unsynced_directories,
        operation: |writer| set(writer, "new", NEW),
        after: &[("new", NEW)],
    },
    Case {
        name: "a ref to a held blob, in directories that are not yet on the disk",
        prepare: |disk| {
            with_unsynced_directories(disk)?;
            disk.put(&blob_path(NEW), NEW)
        },
        operation: |writer| {
            let blob = writer.hold(&Digest::of(NEW), NEW.len() as u64)?;
            publish(writer, "new", &blob)
        },
        after: &[("new", NEW)],
    },
    Case {
        name: "a ref to a blob that was damaged",
        prepare: |disk| {
            with_old(disk)?;
            disk.put(&blob_path(NEW), b"damaged")
        },
        operation: |writer| set(writer, "new", NEW),
        after: &[("old", OLD), ("new", NEW)],
    },
    Case {
        name: "a ref moved",
        prepare: with_old,
        operation: |writer| set(writer, "old", NEW),
        after: &[("old", NEW)],
    },
    Case {
        name: "a ref removed",
        prepare: with_old,
        operation: |writer| {
            let removed = writer.update(&Basis::default(), |draft| refs::remove(draft, "old"));
            removed.map(drop)
        },
        after: &[],
    },
];

fn blob_path(bytes: &[u8]) -> String {
    layout::blobs::path(&Digest::of(bytes))
}

fn descriptor(bytes: &[u8]) -> String {
    let (digest, size) = (Digest::of(bytes), bytes.len());
    format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size}}}"#
    )
}

/// A layout with the ref `old`, all of it durable.
fn with_old(disk: &SimulatedDisk) -> std::io::Result<()> {
    let entry = refs_entry("old", OLD);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{entry}],"more":1e2}}"#);
    disk.put("index.json", index.as_bytes())?;
    disk.put(&blob_path(OLD), OLD)?;
    disk.settle();
    Ok(())
}

/// The same, and another program has just written a blob without any sync.
fn with_unsynced(disk: &SimulatedDisk) -> std::io::Result<()> {
    with_old(disk)?;
    disk.put(&blob_path(NEW), NEW)
}

/// An empty layout, and another program was killed when it had just made its directories.
fn with_unsynced_directories(disk: &SimulatedDisk) -> std::io::Result<()> {
    disk.put("index.json", EMPTY)?;
    disk.settle();
    disk.make_directory("blobs")?;
    disk.make_directory("blobs/sha256")
}

fn refs_entry(name: &str, bytes: &[u8]) -> String {
    let named = layout::index::draft::named(&descriptor(bytes), name);
    named.expect("a descriptor can be named")
}

fn set(writer: &LayoutWriter, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let blob = writer.store(bytes)?;
    publish(writer, name, &blob)
}

fn publish(writer: &LayoutWriter, name: &str, blob: &StoredBlob) -> Result<(), Error> {
    publish_from(writer, name, blob, None)
}

fn publish_from(
    writer: &LayoutWriter,
    name: &str,
    blob: &StoredBlob,
    last_good: Option<&View>,
) -> Result<(), Error> {
    let basis = Basis {
        blobs: std::slice::from_ref(blob),
        last_good,
    };
    let name: RefName = name.parse().expect("it is a ref name");
    let bytes = if *blob.digest() == Digest::of(NEW) {
        NEW
    } else {
        OLD
    };
    let descriptors = [descriptor(bytes)];
    let updated = writer.update(&basis, |draft| {
        refs::set(draft, &name, &descriptors, Collision::Replace)
    });
    updated.map(drop)
}

fn writer(disk: &SimulatedDisk) -> LayoutWriter {
    let verdicts = Arc::new(Verdicts::new(None));
    LayoutWriter::on(Arc::new(disk.clone()), "layout".as_ref(), verdicts)
}

/// The refs of the layout and what they name, all of it verified.
fn refs_of(disk: &SimulatedDisk) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let index = disk
        .read("index.json")
        .map_err(|error| format!("index: {error}"))?;
    let index = json::parse(&index).map_err(|error| format!("index: {error}"))?;
    let entries = index["manifests"].as_array().ok_or("no list of entries")?;
    let mut refs = BTreeMap::new();
    for entry in entries {
        let name = entry["annotations"]["org.opencontainers.image.ref.name"].as_str();
        let name = name.ok_or("no name")?.to_owned();
        let digest: Digest = entry["digest"]
            .as_str()
            .and_then(|digest| digest.parse().ok())
            .ok_or("no digest")?;
        let bytes = disk
            .read(&layout::blobs::path(&digest))
            .map_err(|error| format!("{name}: blob: {error}"))?;
        if Digest::of(&bytes) != digest {
            return Err(format!("{name}: its blob is damaged"));
        }
        refs.insert(name, bytes);
    }
    Ok(refs)
}

fn expected(refs: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
    let owned = refs
        .iter()
        .map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()));
    owned.collect()
}

/// Opens the layout again after a power cut: it is as before or as after the operation,
/// nothing is left over, and the operation can be done again.
fn check_reopened(
    disk: &SimulatedDisk,
    case: &Case,
    old: &BTreeMap<String, Vec<u8>>,
) -> Result<(), String> {
    let new = expected(case.after);
    let found = refs_of(disk)?;
    if found != *old && found != new {
        return Err(format!("neither old nor new: {found:?}"));
    }
    let writer = writer(disk);
    writer
        .collect()
        .map_err(|error| format!("collect: {error:?}"))?;
    let left = disk.list(".ocifs/tmp").unwrap_or_default();
    if !left.is_empty() || disk.status("index.json.lock").is_ok() {
        return Err(format!("left over: {left:?} {:?}", disk.list(".")));
    }
    match (case.operation)(&writer) {
        Ok(()) => {}
        // What is removed cannot be removed once more.
        Err(Error::Refused(refs::Refusal::NotFound { .. })) if found == new => {}
        // What another program did not sync is lost or damaged, and refused.
        Err(
            Error::Layout(layout::Error::BlobMissing { .. })
            | Error::SizeMismatch { .. }
            | Error::DigestMismatch { .. },
        ) if found == *old => return Ok(()),
        Err(error) => return Err(format!("once more: {error:?}")),
    }
    let found = refs_of(disk)?;
    (found == new)
        .then_some(())
        .ok_or_else(|| format!("once more: {found:?}"))
}

/// All states that a power cut can leave now, or a sample of them.
fn power_cuts(disk: &SimulatedDisk, seed: u64, mut each: impl FnMut(SimulatedDisk, String)) {
    let (changes, files) = disk.choices();
    assert!(
        changes < 32 && files < 16,
        "{changes} changes, {files} files"
    );
    let all = (1u64 << changes) << (2 * files);
    let mut random = seed;
    for number in 0..all.min(STATES_PER_STEP) {
        let mut choice = number;
        // The first of a sample are the extremes: all lost, and all kept.
        if all > STATES_PER_STEP && number > 0 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(number);
            choice = if number == 1 {
                (1 << changes) - 1
            } else {
                (random >> 7) % all
            };
        }
        let kept = choice & ((1 << changes) - 1);
        let contents: Vec<Unsynced> = (0..files)
            .map(|file| Unsynced::of(choice >> (changes + 2 * file)))
            .collect();
        let state = format!("names {kept:b} of {changes}, contents {contents:?}");
        each(disk.after_power_cut(kept, &contents), state);
    }
}

/// Runs a case with a power cut after each of its steps; how many states that gave, and
/// what was wrong with them.
fn run(case: &Case, fresh: &SimulatedDisk) -> std::io::Result<(usize, Vec<String>)> {
    let (mut states, mut faults) = (0, Vec::new());
    (case.prepare)(fresh)?;
    if case.name.contains("empty") {
        fresh.settle();
    }
    let old = refs_of(fresh).map_err(std::io::Error::other)?;
    for step in 0.. {
        let disk = fresh.duplicate();
        disk.expect(Trouble::PowerCut(step));
        let is_done = (case.operation)(&writer(&disk)).is_ok() && disk.steps() <= step;
        power_cuts(&disk, step as u64, |after, state| {
            states += 1;
            if let Err(fault) = check_reopened(&after, case, &old) {
                faults.push(format!("{}, step {step}, {state}: {fault}", case.name));
            }
        });
        if is_done {
            break;
        }
    }
    Ok((states, faults))
}

#[test]
fn after_every_step_there_is_the_old_or_the_new() -> TestResult {
    let mut states = 0;
    for case in CASES {
        for disk in [SimulatedDisk::default(), SimulatedDisk::plain()] {
            let (tried, faults) = run(case, &disk)?;
            assert!(
                faults.is_empty(),
                "{} faults, as {}",
                faults.len(),
                faults[0]
            );
            assert!(tried > 10, "{}: only {tried} states", case.name);
            states += tried;
        }
    }
    assert!(states > 2_000, "only {states} states");
    Ok(())
}

#[test]
fn what_was_answered_is_never_lost() -> TestResult {
    for case in CASES {
        for disk in [SimulatedDisk::default(), SimulatedDisk::plain()] {
            (case.prepare)(&disk)?;
            (case.operation)(&writer(&disk))?;
            power_cuts(&disk, 1, |after, state| {
                let found = refs_of(&after);
                assert_eq!(found, Ok(expected(case.after)), "{}: {state}", case.name);
            });
        }
    }
    Ok(())
}

/// The checks above can fail: without syncs they find what is wrong.
#[test]
fn a_disk_that_lies_is_found_out() -> TestResult {
    for name in ["a ref to a new blob", "a ref moved"] {
        let case = CASES.iter().find(|case| case.name == name);
        let disk = SimulatedDisk::default();
        disk.lie();
        let (_, faults) = run(case.ok_or("there is such a case")?, &disk)?;
        let damaged = |fault: &&String| fault.contains("damaged") || fault.contains("index:");
        assert!(faults.iter().any(|fault| damaged(&fault)), "{name}: damage");
        let missing = |fault: &&String| fault.contains("blob: ");
        assert!(faults.iter().any(|fault| missing(&fault)), "{name}: a blob");
    }
    Ok(())
}

/// The error of any step reaches the caller as it is, the old or the new index stands,
/// and a retry works.
#[test]
fn a_step_that_fails_changes_nothing_else() -> TestResult {
    for errno in [libc::ENOSPC, libc::EIO, libc::EDQUOT, libc::EMFILE] {
        for case in CASES {
            for fresh in [SimulatedDisk::default(), SimulatedDisk::plain()] {
                (case.prepare)(&fresh)?;
                fresh.settle();
                let old = refs_of(&fresh)?;
                let mut told = BTreeSet::new();
                for step in 0.. {
                    let disk = fresh.duplicate();
                    disk.expect(Trouble::Failure(step, errno));
                    let result = (case.operation)(&writer(&disk));
                    let row = format!("{}, step {step}, errno {errno}", case.name);
                    if let Err(error) = &result {
                        assert_eq!(errno_of(error), Some(errno), "{row}: {error:?}");
                        told.insert(step);
                    }
                    if disk.steps() <= step {
                        break;
                    }
                    disk.expect(Trouble::None);
                    if let Err(fault) = check_reopened(&disk, case, &old) {
                        panic!("{row}: {fault}");
                    }
                }
                assert!(told.len() > 3, "{}: only {told:?} were told", case.name);
            }
        }
    }
    Ok(())
}

fn errno_of(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let own = error.downcast_ref::<std::io::Error>();
    own.and_then(std::io::Error::raw_os_error)
        .or_else(|| error.source().and_then(errno_of))
}

#[test]
fn two_files_of_one_name_are_told_apart() -> TestResult {
    // The simulation itself: what was not synced is lost, or not, each by itself.
    let disk = SimulatedDisk::default();
    let file = disk.create("a")?;
    file.write_at(b"content", 0)?;
    let mut seen = BTreeSet::new();
    power_cuts(&disk, 0, |after, _| {
        seen.insert(after.read("a").ok());
    });
    let states = [
        None,
        Some(vec![]),
        Some(b"content".to_vec()),
        Some(b"con".to_vec()),
        Some(vec![0; 7]),
    ];
    assert_eq!(seen, BTreeSet::from(states));
    disk::publish(&disk, &*file, disk::Publication::Rename("a"), "b")?;
    assert_eq!(disk.after_power_cut(0, &[]).read("b")?, b"content");
    Ok(())
}

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
            let refs = |disk: &SimulatedDisk| refs_of(disk).map_err(|error| error.to_string());
            assert!(refs(&disk)?.contains_key("foreign"), "{row}");
            for failing in at..steps {
                let disk = start();
                disk.expect(Trouble::Failure(failing, libc::EIO));
                let result = attempt(&disk);
                disk.expect(Trouble::None);
                let found = refs(&disk)?;
                assert!(
                    found.contains_key("foreign"),
                    "{row}, {failing} fails: {result:?}, {:?}",
                    found.keys()
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
