//! Blobs and updates of the index on a real disk.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use super::*;
use crate::oci::{Descriptor, MediaType, RefName};
use crate::store::Verdicts;
use crate::store::disk::simulated::{SimulatedDisk, Trouble};
use crate::store::disk::{Disk, DiskFile};
use crate::store::layout::index::draft::Draft;
use crate::store::layout::index::update::{Basis, Updated};
use crate::store::layout::refs::{self, Collision, Refusal};
use crate::store::layout::writer::{Error as WriteError, StoredBlob};

fn writer(dir: &TempDir) -> Result<LayoutWriter, WriteError> {
    LayoutWriter::open(&open(dir)?, Arc::new(Verdicts::new(None)))
}

fn descriptor(digest: &Digest, size: u64) -> Descriptor {
    Descriptor::new(MediaType::new("text/plain"), digest.clone(), size)
}

fn entry() -> String {
    let digest = Digest::of(CONTENT);
    format!(r#"{{"mediaType":"text/plain","digest":"{digest}","size":7}}"#)
}

fn name(text: &str) -> RefName {
    text.parse().expect("it is a ref name")
}

fn set(draft: &mut Draft, text: &str) -> Result<(), Refusal> {
    refs::set(draft, &name(text), &[entry()], Collision::Refuse)
}

fn add(writer: &LayoutWriter, name: &str) -> Result<Updated<()>, WriteError> {
    writer.update(&Basis::default(), |draft| set(draft, name))
}

fn names(view: &View) -> Vec<&str> {
    let names = view.entries().iter().map(|entry| entry.ref_name.as_deref());
    names.map(Option::unwrap_or_default).collect()
}

#[test]
fn a_blob_is_there_when_it_is_committed() -> TestResult {
    let (dir, _) = layout()?;
    let writer = writer(&dir)?;
    // Around the sizes at which it is flushed, and at which another thread hashes.
    for size in [0, 1, 262_143, 262_144, 262_145, 1 << 20, (3 << 20) + 17] {
        let bytes: Vec<u8> = (0..size).map(|at: u32| (at % 251) as u8).collect();
        let digest = Digest::of(&bytes);
        let mut blob = writer.blob()?;
        for chunk in bytes.chunks(100_003) {
            blob.write_all(chunk)?;
        }
        assert!(!blob_path(dir.path(), &digest).exists(), "{size} before");
        let stored = blob.commit()?;
        assert_eq!((stored.digest(), stored.size()), (&digest, size.into()));
        let path = blob_path(dir.path(), &digest);
        assert_eq!(fs::read(&path)?, bytes, "{size}");
        assert_eq!(fs::metadata(&path)?.mode() & 0o777 & !0o022, 0o644);
    }
    assert!(!dir.path().join(".ocifs").exists(), "no name was needed");
    Ok(())
}

#[test]
fn what_was_promised_is_checked() -> TestResult {
    let (dir, _) = layout()?;
    let writer = writer(&dir)?;
    let sha512 = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                  2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
    let blake3 = format!("blake3:{}", "0".repeat(64));
    type Row<'a> = (&'a str, &'a str, u64, fn(&WriteError) -> bool);
    let (same, other) = (Digest::of(b"abc"), Digest::of(b"abd"));
    let rows: [Row<'_>; 3] = [
        ("longer", same.as_str(), 4, |error| {
            matches!(error, WriteError::SizeMismatch { actual: 3, .. })
        }),
        ("other", other.as_str(), 3, |error| {
            matches!(error, WriteError::DigestMismatch { .. })
        }),
        ("unknown algorithm", &blake3, 3, |error| {
            matches!(error, WriteError::Algorithm { .. })
        }),
    ];
    let before = open(&dir)?.list_blobs("sha256")?;
    for (row, digest, size, expected) in rows {
        let mut blob = writer.blob()?;
        blob.write_all(b"abc")?;
        let result = blob.commit_as(&descriptor(&digest.parse()?, size));
        assert!(result.is_err_and(|error| expected(&error)), "{row}");
    }
    assert_eq!(open(&dir)?.list_blobs("sha256")?, before);
    let mut blob = writer.blob()?;
    blob.write_all(b"abc")?;
    let stored = blob.commit_as(&descriptor(&sha512.parse()?, 3))?;
    assert_eq!(stored.digest().as_str(), sha512);
    assert!(
        dir.path()
            .join("blobs")
            .join(sha512.replace(':', "/"))
            .exists()
    );
    Ok(())
}

#[test]
fn what_exists_is_not_taken_for_proof() -> TestResult {
    let (dir, digest) = layout()?;
    let path = blob_path(dir.path(), &digest);
    let writer = writer(&dir)?;
    let inode = fs::metadata(&path)?.ino();
    writer.store(CONTENT)?;
    assert_eq!(fs::metadata(&path)?.ino(), inode, "a sound one stays");
    let elsewhere = dir.path().join("elsewhere");
    fs::write(&elsewhere, CONTENT)?;
    let rows: [(&str, &dyn Fn() -> io::Result<()>); 4] = [
        ("empty", &|| fs::write(&path, b"")),
        ("longer", &|| fs::write(&path, b"content and more")),
        ("one bit", &|| fs::write(&path, b"conteNt")),
        ("a link", &|| {
            fs::remove_file(&path)?;
            symlink(&elsewhere, &path)
        }),
    ];
    for (row, damage) in rows {
        damage()?;
        writer.store(CONTENT)?;
        assert_eq!(fs::read(&path)?, CONTENT, "{row}");
        assert!(fs::symlink_metadata(&path)?.is_file(), "{row}");
    }
    assert_eq!(fs::read(&elsewhere)?, CONTENT);
    assert_eq!(fs::read_dir(dir.path().join(".ocifs/tmp"))?.count(), 0);
    Ok(())
}

/// What changes again and again while it is hashed is not waited for.
#[test]
fn what_somebody_else_writes_all_the_time_is_replaced() -> TestResult {
    let (dir, _) = layout()?;
    let bytes = vec![7; 16 << 20];
    let path = blob_path(dir.path(), &Digest::of(&bytes));
    fs::write(&path, &bytes)?;
    let (changes, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let file = File::options().write(true).open(&path)?;
    let change = || {
        while !is_over.load(Ordering::Relaxed) {
            let second = Duration::from_secs(changes.fetch_add(1, Ordering::Relaxed));
            if file.set_modified(SystemTime::UNIX_EPOCH + second).is_err() {
                break;
            }
        }
    };
    let is_replaced =
        || -> io::Result<bool> { Ok(file.metadata()?.ino() != fs::metadata(&path)?.ino()) };
    std::thread::scope(|scope| -> TestResult {
        scope.spawn(change);
        let writer = writer(&dir)?;
        // On a busy machine no change may fall into the hashing.
        let mut outcome = Ok(());
        for _ in 0..100 {
            outcome = writer.store(&bytes).map(drop);
            if outcome.is_err() || is_replaced()? {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
        Ok(outcome?)
    })?;
    assert!(is_replaced()?);
    assert_eq!(fs::read(&path)?, bytes);
    Ok(())
}

#[test]
fn an_update_keeps_what_it_does_not_change() -> TestResult {
    let (dir, _) = layout()?;
    let writer = writer(&dir)?;
    let path = dir.path().join("index.json");
    let text = "{ \"schemaVersion\": 2, \"x\": 1e2,\n \"manifests\": [\n  {\"y\":0.10}\n ] }\n";
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
    assert!(add(&writer, "a:1")?.is_written);
    let added = index::draft::named(&entry(), "a:1")?;
    let expected = text.replace("0.10}", &format!("0.10}},\n  {added}"));
    assert_eq!(fs::read_to_string(&path)?, expected);
    assert_eq!(fs::metadata(&path)?.mode() & 0o7777, 0o640);

    let before = fs::metadata(&path)?;
    assert!(!add(&writer, "a:1")?.is_written);
    let after = fs::metadata(&path)?;
    assert_eq!(
        (before.ino(), before.ctime_nsec()),
        (after.ino(), after.ctime_nsec())
    );
    let left: Vec<_> = fs::read_dir(dir.path())?
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(left.len(), 4, "{left:?}");
    Ok(())
}

#[test]
fn a_refused_change_writes_nothing() -> TestResult {
    let (dir, _) = layout()?;
    let writer = writer(&dir)?;
    let before = fs::metadata(dir.path().join("index.json"))?.ino();
    let result = writer.update(&Basis::default(), |draft| {
        set(draft, "a")?;
        refs::remove(draft, "missing")
    });
    assert!(matches!(
        result,
        Err(WriteError::Refused(Refusal::NotFound { .. }))
    ));
    assert_eq!(fs::metadata(dir.path().join("index.json"))?.ino(), before);
    Ok(())
}

/// A program without locks writes after we have read and before we write.
#[test]
fn a_foreign_write_in_between_is_merged() -> TestResult {
    for in_place in [true, false] {
        let (dir, _) = layout()?;
        let writer = writer(&dir)?;
        add(&writer, "old")?;
        let path = dir.path().join("index.json");
        let mut foreign = Draft::of(&writer.read_index()?)?;
        set(&mut foreign, "theirs")?;
        let updated = writer.update(&Basis::default(), |draft| {
            let target = if in_place {
                path.clone()
            } else {
                path.with_extension("new")
            };
            fs::write(&target, foreign.to_bytes()).expect("it is writable");
            fs::rename(&target, &path).expect("it is writable");
            set(draft, "ours")
        })?;
        assert_eq!(
            names(&updated.after),
            ["old", "theirs", "ours"],
            "in place: {in_place}"
        );
        assert_eq!(fs::read(&path)?, **updated.after.bytes());
    }
    Ok(())
}

#[test]
fn a_torn_index_is_not_believed() -> TestResult {
    for torn in [Some(""), Some("{\"schemaVersion\":2,\"manif"), None] {
        let (dir, _) = layout()?;
        let writer = writer(&dir)?;
        let good = add(&writer, "good")?.after;
        let path = dir.path().join("index.json");
        match torn {
            Some(text) => fs::write(&path, text)?,
            None => fs::remove_file(&path)?,
        }
        assert!(
            matches!(add(&writer, "a"), Err(WriteError::Layout(_))),
            "{torn:?}"
        );
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), torn);
        let basis = Basis {
            last_good: Some(&good),
            ..Basis::default()
        };
        let updated = writer.update(&basis, |draft| set(draft, "a"))?;
        assert_eq!(names(&updated.after), ["good", "a"], "{torn:?}");
        assert_eq!(names(&writer.read_index()?), ["good", "a"], "{torn:?}");
    }
    Ok(())
}

#[test]
fn a_blob_that_is_collected_in_between_is_put_back() -> TestResult {
    let (dir, digest) = layout()?;
    let writer = writer(&dir)?;
    let fresh = writer.store(b"fresh")?;
    let held = writer.hold(&digest, CONTENT.len() as u64)?;
    let blobs = [fresh, held];
    let paths = blobs
        .each_ref()
        .map(|blob| blob_path(dir.path(), blob.digest()));
    let basis = Basis {
        blobs: &blobs,
        last_good: None,
    };
    writer.update(&basis, |draft| {
        for path in &paths {
            fs::remove_file(path).expect("it is there");
        }
        set(draft, "a")
    })?;
    assert_eq!(fs::read(&paths[0])?, b"fresh");
    assert_eq!(fs::read(&paths[1])?, CONTENT);
    Ok(())
}

#[test]
fn rubbish_is_collected_and_what_is_in_use_is_not() -> TestResult {
    let (dir, _) = layout()?;
    let writer = writer(&dir)?;
    let tmp = dir.path().join(".ocifs/tmp");
    fs::create_dir_all(&tmp)?;
    fs::write(tmp.join("rubbish"), "x")?;
    fs::write(tmp.join("in-use"), "x")?;
    fs::write(dir.path().join("index.json.lock"), "")?;
    let used = writer.disk.open(".ocifs/tmp/in-use")?;
    assert!(DiskFile::try_lock(&*used)?);
    assert_eq!(writer.collect()?, 1);
    assert!(tmp.join("in-use").exists());
    assert!(!dir.path().join("index.json.lock").exists());
    drop(used);
    assert_eq!(writer.collect()?, 1);
    Ok(())
}

/// What a removal looks at on its way is not made durable: as many steps, however much that is.
#[test]
fn what_a_removal_looks_at_costs_no_step() -> TestResult {
    let steps_with = |manifests: usize| -> Result<usize, Box<dyn std::error::Error>> {
        let disk = SimulatedDisk::default();
        let path = |bytes: &[u8]| blobs::path(&Digest::of(bytes));
        let mut entries = Vec::new();
        for number in 0..manifests {
            let manifest = format!(
                r#"{{"schemaVersion":2,"config":{},"layers":[],"annotations":{{"n":"{number}"}}}}"#,
                entry()
            );
            disk.put(&path(manifest.as_bytes()), manifest.as_bytes())?;
            entries.push(format!(
                r#"{{"mediaType":"{}","digest":"{}","size":{}}}"#,
                MediaType::IMAGE_MANIFEST.as_str(),
                Digest::of(manifest.as_bytes()),
                manifest.len()
            ));
        }
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            entries.join(",")
        );
        disk.put("index.json", index.as_bytes())?;
        disk.put(&path(b"unused"), b"unused")?;
        let verdicts = Arc::new(Verdicts::new(None));
        let writer = LayoutWriter::on(Arc::new(disk.clone()), Path::new("layout"), verdicts);
        let needed = writer.remove_blob(&Digest::of(CONTENT));
        assert!(needed.is_err(), "it is named, or missing");
        disk.expect(Trouble::None);
        writer.remove_blob(&Digest::of(b"unused"))?;
        assert!(disk.status(&path(b"unused")).is_err());
        Ok(disk.steps())
    };
    assert_eq!(steps_with(3)?, steps_with(0)?);
    Ok(())
}

#[test]
fn a_writer_that_failed_once_stays_dead() -> TestResult {
    for step in [1, 2] {
        let disk = SimulatedDisk::default();
        disk.put("blobs/sha256/other", b"")?;
        let verdicts = Arc::new(Verdicts::new(None));
        let writer = LayoutWriter::on(Arc::new(disk.clone()), Path::new("layout"), verdicts);
        disk.expect(Trouble::Failure(step, libc::EIO));
        let mut blob = writer.blob()?;
        blob.write_all(b"x")?;
        let is_eio = |result: io::Result<()>| {
            result.is_err_and(|error| error.raw_os_error() == Some(libc::EIO))
        };
        assert!(is_eio(blob.sync()), "the failure itself, step {step}");
        assert!(is_eio(blob.sync()), "sync");
        assert!(is_eio(blob.write_all(b"y")), "write");
        let is_dead = |result: &Result<StoredBlob, WriteError>| {
            matches!(result, Err(WriteError::Io { source, .. })
                if source.raw_os_error() == Some(libc::EIO))
        };
        let result = blob.commit();
        assert!(is_dead(&result), "{result:?}");
        disk.expect(Trouble::Failure(step, libc::EIO));
        let mut blob = writer.blob()?;
        blob.write_all(b"x")?;
        assert!(is_eio(blob.sync()), "once more, step {step}");
        // What is lost says nothing of the size.
        let result = blob.commit_as(&descriptor(&Digest::of(b"xy"), 2));
        assert!(is_dead(&result), "{result:?}");
        assert_eq!(
            disk.list("blobs/sha256")?,
            ["other"],
            "nothing was published"
        );
    }
    Ok(())
}

#[test]
fn a_directory_that_moves_is_followed() -> TestResult {
    let (dir, _) = layout()?;
    let parent = tempfile::tempdir()?;
    let path = parent.path().join("layout");
    fs::rename(dir.path(), &path)?;
    let layout = Layout::open(&path, &[])?;
    let writer = LayoutWriter::open(&layout, Arc::new(Verdicts::new(None)))?;
    fs::rename(&path, parent.path().join("moved"))?;
    let other = tempfile::tempdir()?;
    symlink(other.path(), &path)?;
    writer.store(b"fresh")?;
    add(&writer, "a")?;
    assert_eq!(fs::read_dir(other.path())?.count(), 0);
    assert_eq!(names(&layout.read_index()?), ["a"]);
    Ok(())
}

/// Looking for a digest waits for no index that is damaged, nor for one after the other.
#[test]
fn a_digest_is_looked_for_in_indexes_that_can_be_read() -> TestResult {
    const COUNT: u8 = 20;
    let (dir, digest) = layout()?;
    let entry = |digest: &Digest, size: usize| {
        let index = "application/vnd.oci.image.index.v1+json";
        format!(r#"{{"mediaType":"{index}","digest":"{digest}","size":{size}}}"#)
    };
    let nested = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, self::entry());
    let writer = writer(&dir)?;
    let stored = writer.store(nested.as_bytes())?;
    let mut entries: Vec<String> = (0..COUNT).map(|at| entry(&Digest::of(&[at]), 1)).collect();
    for at in 0..COUNT {
        fs::write(blob_path(dir.path(), &Digest::of(&[at])), "x")?;
    }
    entries.push(entry(stored.digest(), nested.len()));
    writer.update(&Basis::default(), |draft| {
        refs::merge(draft, &entries, Collision::Refuse)
    })?;
    let start = Instant::now();
    let tagged = writer.tag(digest.as_str(), &name("new"), Collision::Refuse)?;
    assert_eq!(tagged.digests, [digest.as_str()]);
    assert!(start.elapsed() < TORN_PATIENCE * u32::from(COUNT) / 2);
    Ok(())
}
