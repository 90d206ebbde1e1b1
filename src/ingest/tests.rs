//! The power is cut after every step of every kind of import, and every step fails once.

use std::io::Write;
use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::oci::json;
use crate::store::Verdicts;
use crate::store::disk::simulated::{SimulatedDisk, Trouble, Unsynced};

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// How many ways to lose data are tried after one step.
const STATES_PER_STEP: u64 = 48;

const EMPTY: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = ::tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        let appended = builder.append_data(&mut header, path, *bytes);
        appended.expect("memory can be written");
    }
    builder.into_inner().expect("memory can be written")
}

/// Two images that share a layer, the second with a layer that is too large for memory.
fn docker_archive() -> Vec<u8> {
    let small = tar_of(&[("a", b"1")]);
    let large = tar_of(&[("b", &[7; 100_000])]);
    let config = |layers: &[&[u8]]| {
        let diff_ids: Vec<String> = layers.iter().map(|l| Digest::of(l).to_string()).collect();
        serde_json::json!({"rootfs": {"type": "layers", "diff_ids": diff_ids}}).to_string()
    };
    let manifest = r#"[{"Config":"1.json","RepoTags":["one"],"Layers":["s"]},
        {"Config":"2.json","RepoTags":["two"],"Layers":["s","l"]}]"#;
    tar_of(&[
        ("s", &small),
        ("l", &large),
        ("1.json", config(&[&small]).as_bytes()),
        ("2.json", config(&[&small, &large]).as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ])
}

/// What is brought in: a name, the bytes, and how many entries and files come of it.
fn cases() -> Vec<(&'static str, Vec<u8>, usize)> {
    vec![
        ("archive.tar", docker_archive(), 2),
        ("layer.tar", tar_of(&[("a", b"1")]), 1),
        ("notes.txt", b"hello\n".to_vec(), 1),
    ]
}

fn fresh(disk: SimulatedDisk) -> std::io::Result<SimulatedDisk> {
    disk.put("index.json", EMPTY)?;
    disk.settle();
    Ok(disk)
}

fn import(disk: &SimulatedDisk, name: &str, bytes: &[u8]) -> Result<Report, Error> {
    let verdicts = Arc::new(Verdicts::new(None));
    let writer = LayoutWriter::on(Arc::new(disk.clone()), "layout".as_ref(), verdicts);
    let mut blob = writer.blob()?;
    blob.write_all(bytes)
        .map_err(|source| held::write_error(&writer, source))?;
    let ingest = Ingest::new(writer, IngestOptions::default());
    let name = Name::of_file(name.as_bytes())?;
    let prepared = ingest.prepare(blob.seal()?, &name)?;
    ingest.commit(prepared, Collision::Refuse)
}

/// How many entries the index has; all that they lead to is there, and right.
fn entries(disk: &SimulatedDisk) -> Result<usize, String> {
    let index = disk.read("index.json").map_err(|e| format!("index: {e}"))?;
    let index = json::parse(&index).map_err(|e| format!("index: {e}"))?;
    let entries = index["manifests"].as_array().ok_or("no list of entries")?;
    for entry in entries {
        let manifest = blob(disk, entry)?;
        let manifest = json::parse(&manifest).map_err(|e| format!("manifest: {e}"))?;
        blob(disk, &manifest["config"])?;
        for layer in manifest["layers"].as_array().ok_or("no layers")? {
            blob(disk, layer)?;
        }
    }
    Ok(entries.len())
}

fn blob(disk: &SimulatedDisk, descriptor: &Value) -> Result<Vec<u8>, String> {
    let digest = descriptor["digest"].as_str().ok_or("no digest")?;
    let path = format!("blobs/{}", digest.replace(':', "/"));
    let bytes = disk.read(&path).map_err(|e| format!("{digest}: {e}"))?;
    if Digest::of(&bytes).as_str() != digest {
        return Err(format!("{digest} is damaged"));
    }
    Ok(bytes)
}

/// Some of the states that a power cut can leave now: all lost, all kept, and others.
fn power_cuts(disk: &SimulatedDisk) -> Vec<SimulatedDisk> {
    let (changes, files) = disk.choices();
    let mut random = 7u64;
    let states = (0..STATES_PER_STEP).map(|number| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(number | 1);
        let kept = match number {
            0 => 0,
            1 => u64::MAX,
            _ => random >> 5,
        };
        let contents: Vec<Unsynced> = (0..files)
            .map(|file| Unsynced::of(random.rotate_left(u32::try_from(2 * file % 64).unwrap_or(0))))
            .collect();
        assert!(changes < 64, "{changes} changes");
        disk.after_power_cut(kept & ((1 << changes) - 1), &contents)
    });
    states.collect()
}

#[test]
fn after_a_power_cut_there_is_all_or_nothing() -> TestResult {
    let mut states = 0;
    for (name, bytes, count) in cases() {
        for disk in [SimulatedDisk::default(), SimulatedDisk::plain()] {
            let before = fresh(disk)?;
            for step in 0.. {
                let disk = before.duplicate();
                disk.expect(Trouble::PowerCut(step));
                let is_done = import(&disk, name, &bytes).is_ok() && disk.steps() <= step;
                for after in power_cuts(&disk) {
                    states += 1;
                    let found = entries(&after).map_err(|e| format!("{name}, step {step}: {e}"))?;
                    assert!([0, count].contains(&found), "{name}, step {step}: {found}");
                    assert!(!is_done || found == count, "{name}: it was answered");
                    import(&after, name, &bytes).map_err(|e| format!("{name}, again: {e}"))?;
                    assert_eq!(entries(&after), Ok(count), "{name}, step {step}, again");
                }
                if is_done {
                    break;
                }
            }
        }
    }
    assert!(states > 1_000, "only {states} states");
    Ok(())
}

/// The check above can fail: without syncs it finds what is wrong.
#[test]
fn a_disk_that_lies_is_found_out() -> TestResult {
    let (name, bytes, _) = cases().remove(0);
    let disk = fresh(SimulatedDisk::default())?;
    disk.lie();
    disk.expect(Trouble::None);
    import(&disk, name, &bytes)?;
    let is_wrong = |after: &SimulatedDisk| entries(after).is_err();
    assert!(power_cuts(&disk).iter().any(is_wrong));
    Ok(())
}

#[test]
fn a_step_that_fails_is_told_and_can_be_tried_again() -> TestResult {
    for (name, bytes, count) in cases() {
        for disk in [SimulatedDisk::default(), SimulatedDisk::plain()] {
            let before = fresh(disk)?;
            let mut told = 0;
            for step in 0.. {
                let disk = before.duplicate();
                disk.expect(Trouble::Failure(step, libc::ENOSPC));
                if let Err(error) = import(&disk, name, &bytes) {
                    told += 1;
                    assert_eq!(
                        error.class(),
                        ErrorClass::Io,
                        "{name}, step {step}: {error}"
                    );
                }
                if disk.steps() <= step {
                    break;
                }
                disk.expect(Trouble::None);
                let found = entries(&disk)?;
                assert!([0, count].contains(&found), "{name}, step {step}: {found}");
                import(&disk, name, &bytes)?;
                assert_eq!(entries(&disk)?, count, "{name}, step {step}");
            }
            assert!(told > 3, "{name}: only {told} were told");
        }
    }
    Ok(())
}

/// What is prepared and not committed leaves the disk as it was.
#[test]
fn nothing_is_there_before_the_commit() -> TestResult {
    let disk = fresh(SimulatedDisk::default())?;
    let verdicts = Arc::new(Verdicts::new(None));
    let writer = LayoutWriter::on(Arc::new(disk.clone()), "layout".as_ref(), verdicts);
    let mut blob = writer.blob()?;
    blob.write_all(&docker_archive())?;
    let ingest = Ingest::new(writer, IngestOptions::default());
    let name = Name::of_file(b"x")?;
    let prepared = ingest.prepare(blob.seal()?, &name)?;
    let listed = || crate::store::disk::Disk::list(&disk, ".");
    assert_eq!(listed()?, ["index.json"]);
    drop(prepared);
    assert_eq!(listed()?, ["index.json"]);
    assert_eq!(disk.read("index.json")?, EMPTY);
    Ok(())
}
