//! Every kind of change to a layout is put to the trial: the power is cut after every step
//! of it, and every call fails once.

mod foreign;

use std::sync::Arc;

use crate::oci::{Digest, RefName};
use crate::store::Verdicts;
use crate::store::View;
use crate::store::disk::Disk;
use crate::store::disk::simulated::SimulatedDisk;
use crate::store::disk::simulated::below::SHARED;
use crate::store::disk::simulated::sight::Sight;
use crate::store::disk::simulated::trial::{self, Again, Case, Fault};
use crate::store::layout;
use crate::store::layout::index::draft::Draft;
use crate::store::layout::index::update::Basis;
use crate::store::layout::refs::{self, Collision, Refusal};
use crate::store::layout::writer::{Error, LayoutWriter, Sharing, StoredBlob};
use crate::store::verify;

const EMPTY: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;
const OLD: &[u8] = br#"{"old":true,"padding":"so that it is torn in pieces"}"#;
const NEW: &[u8] = br#"{"new":true,"padding":"so that it is torn in pieces"}"#;

/// A change, the layout that it begins with, and the names that there are then.
struct Row {
    name: &'static str,
    prepare: fn(&SimulatedDisk) -> std::io::Result<()>,
    operation: fn(&LayoutWriter) -> Result<(), Error>,
    after: &'static [&'static str],
    again: Again,
}

const ROWS: &[Row] = &[
    Row {
        name: "a blob",
        prepare: with_old,
        operation: |writer| writer.store(NEW).map(drop),
        after: &["old"],
        again: Again::Works,
    },
    Row {
        name: "a ref to a new blob",
        prepare: with_old,
        operation: |writer| set(writer, "new", NEW),
        after: &["new", "old"],
        again: Again::Works,
    },
    Row {
        name: "the first ref of an empty layout",
        prepare: |disk| {
            disk.put("index.json", EMPTY)?;
            disk.settle();
            Ok(())
        },
        operation: |writer| set(writer, "new", NEW),
        after: &["new"],
        again: Again::Works,
    },
    Row {
        name: "a ref to a blob that is there, but not yet on the disk",
        prepare: with_unsynced,
        operation: |writer| set(writer, "new", NEW),
        after: &["new", "old"],
        again: Again::Foreign,
    },
    Row {
        name: "a ref to a held blob that is not yet on the disk",
        prepare: with_unsynced,
        operation: |writer| {
            let blob = writer.hold(&Digest::of(NEW), NEW.len() as u64)?;
            publish(writer, "new", &blob)
        },
        after: &["new", "old"],
        again: Again::Foreign,
    },
    Row {
        name: "a ref to a new blob, in directories that are not yet on the disk",
        prepare: with_unsynced_directories,
        operation: |writer| set(writer, "new", NEW),
        after: &["new"],
        again: Again::Works,
    },
    Row {
        name: "a ref to a held blob, in directories that are not yet on the disk",
        prepare: |disk| {
            with_unsynced_directories(disk)?;
            disk.put(&blob_path(NEW), NEW)
        },
        operation: |writer| {
            let blob = writer.hold(&Digest::of(NEW), NEW.len() as u64)?;
            publish(writer, "new", &blob)
        },
        after: &["new"],
        again: Again::Foreign,
    },
    Row {
        name: "a ref to a blob that was damaged",
        prepare: |disk| {
            with_old(disk)?;
            disk.put(&blob_path(NEW), b"damaged")
        },
        operation: |writer| set(writer, "new", NEW),
        after: &["new", "old"],
        again: Again::Foreign,
    },
    Row {
        name: "a file of somebody else, adopted",
        prepare: with_old,
        operation: |writer| {
            let blob = adopt(writer, NEW)?;
            publish(writer, "new", &blob)
        },
        after: &["new", "old"],
        again: Again::Works,
    },
    Row {
        name: "a file adopted in the place of a damaged blob",
        prepare: |disk| {
            with_old(disk)?;
            disk.put(&blob_path(NEW), b"damaged")
        },
        operation: |writer| {
            let blob = adopt(writer, NEW)?;
            publish(writer, "new", &blob)
        },
        after: &["new", "old"],
        again: Again::Foreign,
    },
    Row {
        name: "a ref to a blob that somebody has removed meanwhile",
        prepare: with_old,
        operation: |writer| {
            let blob = writer.store(NEW)?;
            let removed = writer.disk.unlink(&blob_path(NEW));
            removed.map_err(|source| writer.write_error(source))?;
            publish(writer, "new", &blob)
        },
        after: &["new", "old"],
        again: Again::Works,
    },
    Row {
        name: "a ref to a held blob of a shared directory",
        prepare: with_shared,
        operation: |writer| {
            let blob = writer.hold(&Digest::of(NEW), NEW.len() as u64)?;
            publish(writer, "new", &blob)
        },
        after: &["new", "old"],
        again: Again::Works,
    },
    Row {
        name: "a ref to a new blob that a shared directory has, but not yet on the disk",
        prepare: |disk| {
            with_shared_directory(disk)?;
            disk.put(&shared_path(NEW), NEW)
        },
        operation: |writer| set(writer, "new", NEW),
        after: &["new", "old"],
        again: Again::Foreign,
    },
    Row {
        name: "a ref to a new blob that is damaged in a shared directory",
        prepare: |disk| {
            with_shared_directory(disk)?;
            disk.put(&shared_path(NEW), b"damaged")
        },
        operation: |writer| set(writer, "new", NEW),
        after: &["new", "old"],
        again: Again::Works,
    },
    Row {
        name: "a ref to a copy of a shared blob",
        prepare: with_shared,
        operation: |writer| {
            let writer = writer.clone().sharing(Sharing::Copy);
            let blob = writer.hold(&Digest::of(NEW), NEW.len() as u64)?;
            publish(&writer, "new", &blob)
        },
        after: &["new", "old"],
        again: Again::Works,
    },
    Row {
        name: "a ref moved",
        prepare: with_old,
        operation: |writer| set(writer, "old", NEW),
        after: &["old"],
        again: Again::Works,
    },
    Row {
        name: "one more name",
        prepare: with_old,
        operation: |writer| writer.tag("old", &name("new"), Collision::Refuse).map(drop),
        after: &["new", "old"],
        again: Again::Works,
    },
    Row {
        name: "a ref renamed",
        prepare: with_old,
        operation: |writer| {
            change(writer, |draft| {
                refs::rename(draft, "old", &name("new"), Collision::Refuse)
            })
        },
        after: &["new"],
        again: Again::Once,
    },
    Row {
        name: "a ref renamed in the place of another",
        prepare: with_two,
        operation: |writer| {
            change(writer, |draft| {
                refs::rename(draft, "old", &name("other"), Collision::Replace)
            })
        },
        after: &["other"],
        again: Again::Once,
    },
    Row {
        name: "two refs exchanged",
        prepare: with_two,
        operation: |writer| {
            change(writer, |draft| match shows(draft, "old", OLD) {
                true => refs::exchange(draft, &name("old"), &name("other")),
                false => Ok(()),
            })
        },
        after: &["old", "other"],
        again: Again::Works,
    },
    Row {
        name: "an annotation",
        prepare: with_old,
        operation: |writer| {
            change(writer, |draft| {
                refs::annotate(draft, "old", "key", Some("value"))
            })
        },
        after: &["old"],
        again: Again::Works,
    },
    Row {
        name: "a ref removed",
        prepare: with_old,
        operation: |writer| writer.untag("old").map(drop),
        after: &[],
        again: Again::Once,
    },
];

impl Row {
    fn case(&self) -> Case<'static> {
        let (prepare, operation) = (self.prepare, self.operation);
        let operate = move |disk: &SimulatedDisk| Ok(operation(&writer(disk))?);
        Case::new(self.name, move |disk| Ok(prepare(disk)?), operate).again(self.again)
    }
}

fn cases() -> Vec<Case<'static>> {
    ROWS.iter().map(Row::case).collect()
}

fn name(text: &str) -> RefName {
    text.parse().expect("it is a ref name")
}

fn blob_path(bytes: &[u8]) -> String {
    layout::blobs::path(&Digest::of(bytes))
}

fn descriptor(bytes: &[u8]) -> String {
    let (digest, size) = (Digest::of(bytes), bytes.len());
    format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size}}}"#
    )
}

/// Publishes a file of somebody else.
fn adopt(writer: &LayoutWriter, bytes: &[u8]) -> Result<StoredBlob, Error> {
    let mut adoption = writer.adoption();
    let blob = adoption.add(&file_with(bytes), &Digest::of(bytes), bytes.len() as u64)?;
    adoption.finish()?;
    Ok(blob)
}

/// A real file, as a session has it.
fn file_with(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().expect("a temporary file can be made");
    std::io::Write::write_all(&mut file, bytes).expect("it is ours");
    file
}

fn with_refs(disk: &SimulatedDisk, refs: &[(&str, &[u8])]) -> std::io::Result<()> {
    let entries: Vec<String> = refs
        .iter()
        .map(|(name, bytes)| refs_entry(name, bytes))
        .collect();
    let entries = entries.join(",");
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{entries}],"more":1e2}}"#);
    disk.put("index.json", index.as_bytes())?;
    for (_, bytes) in refs {
        disk.put(&blob_path(bytes), bytes)?;
    }
    disk.settle();
    Ok(())
}

/// A layout with the ref `old`, all of it durable.
fn with_old(disk: &SimulatedDisk) -> std::io::Result<()> {
    with_refs(disk, &[("old", OLD)])
}

/// The same, and a directory that is shared and empty.
fn with_shared_directory(disk: &SimulatedDisk) -> std::io::Result<()> {
    with_old(disk)?;
    for directory in [SHARED.to_owned(), format!("{SHARED}/sha256")] {
        disk.make_directory(&directory)?;
    }
    disk.settle();
    Ok(())
}

/// The same with a blob in it, all of it durable.
fn with_shared(disk: &SimulatedDisk) -> std::io::Result<()> {
    with_shared_directory(disk)?;
    disk.put(&shared_path(NEW), NEW)?;
    disk.settle();
    Ok(())
}

fn shared_path(bytes: &[u8]) -> String {
    format!("{SHARED}/{}", layout::blobs::below(&Digest::of(bytes)))
}

fn with_two(disk: &SimulatedDisk) -> std::io::Result<()> {
    with_refs(disk, &[("old", OLD), ("other", NEW)])
}

/// A layout with a ref, and another program has just written a blob without any sync.
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

/// Whether a ref is this.
fn shows(draft: &Draft, name: &str, bytes: &[u8]) -> bool {
    let digest = Digest::of(bytes);
    let is_it = |text: &&str| text.contains(name) && text.contains(digest.as_str());
    draft.texts().any(|text| is_it(&text))
}

fn change(
    writer: &LayoutWriter,
    change: impl FnOnce(&mut Draft) -> Result<(), Refusal>,
) -> Result<(), Error> {
    writer.update(&Basis::default(), change).map(drop)
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
    text: &str,
    blob: &StoredBlob,
    last_good: Option<&View>,
) -> Result<(), Error> {
    let basis = Basis {
        blobs: std::slice::from_ref(blob),
        last_good,
    };
    let bytes = if *blob.digest() == Digest::of(NEW) {
        NEW
    } else {
        OLD
    };
    let descriptors = [descriptor(bytes)];
    let updated = writer.update(&basis, |draft| {
        refs::set(draft, &name(text), &descriptors, Collision::Replace)
    });
    updated.map(drop)
}

fn writer(disk: &SimulatedDisk) -> LayoutWriter {
    let verdicts = Arc::new(Verdicts::new(None));
    let writer = LayoutWriter::on(Arc::new(disk.clone()), "layout".as_ref(), verdicts);
    writer.with_shared(Arc::new(disk.shared()), SHARED.as_ref())
}

/// The names of the refs of a layout, everything verified.
fn names_of(disk: &SimulatedDisk) -> Result<Vec<String>, Fault> {
    let sight = Sight::of(disk)?;
    let name = |text: &String| -> Option<String> {
        let entry = crate::oci::json::parse(text.as_bytes()).ok()?;
        let name = &entry["annotations"]["org.opencontainers.image.ref.name"];
        name.as_str().map(str::to_owned)
    };
    let mut names: Vec<String> = sight.entries().iter().filter_map(name).collect();
    names.sort();
    Ok(names)
}

#[test]
fn the_changes_do_what_they_are_called() -> Result<(), Fault> {
    for row in ROWS {
        let disk = SimulatedDisk::default();
        (row.prepare)(&disk)?;
        disk.settle();
        (row.operation)(&writer(&disk)).map_err(|error| format!("{}: {error:?}", row.name))?;
        assert_eq!(names_of(&disk)?, row.after, "{}", row.name);
    }
    Ok(())
}

/// What has gone from a shared directory before the index named it is put into the layout.
#[test]
fn a_shared_blob_that_is_removed_meanwhile_is_kept() -> Result<(), Fault> {
    for disk in [SimulatedDisk::default(), SimulatedDisk::plain()] {
        with_shared(&disk)?;
        let writer = writer(&disk);
        let blob = writer.hold(&Digest::of(NEW), NEW.len() as u64)?;
        assert!(blob.is_shared());
        disk.unlink(&shared_path(NEW))?;
        publish(&writer, "new", &blob)?;
        assert_eq!(names_of(&disk)?, ["new", "old"]);
        assert_eq!(disk.read(&blob_path(NEW))?, NEW);
    }
    Ok(())
}

/// What somebody has written to before it went is not what was verified.
#[test]
fn a_shared_blob_that_is_written_to_and_removed_is_refused() -> Result<(), Fault> {
    for (name, bytes, offset) in [
        ("written over", &b"X"[..], 0),
        ("written on", &b"X"[..], NEW.len() as u64),
    ] {
        let disk = SimulatedDisk::default();
        with_shared(&disk)?;
        let writer = writer(&disk);
        let blob = writer.hold(&Digest::of(NEW), NEW.len() as u64)?;
        disk.open(&shared_path(NEW))?.write_at(bytes, offset)?;
        disk.unlink(&shared_path(NEW))?;
        let refused = publish(&writer, "new", &blob);
        assert!(
            matches!(refused, Err(Error::Blob(verify::Error::Changed { .. }))),
            "{name}: {refused:?}"
        );
        assert_eq!(names_of(&disk)?, ["old"], "{name}");
        assert!(disk.read(&blob_path(NEW)).is_err(), "{name}");
    }
    Ok(())
}

/// A blob of a shared directory stays there, unless a copy is wanted or it is damaged.
#[test]
fn where_a_shared_blob_is_afterwards() -> Result<(), Fault> {
    let rows: [(&str, &[u8], Sharing, bool); 4] = [
        ("it stays", NEW, Sharing::Refer, false),
        ("it is copied", NEW, Sharing::Copy, true),
        ("it has another size", b"damaged", Sharing::Refer, true),
        (
            "it has other bytes",
            &[b' '; NEW.len()],
            Sharing::Refer,
            true,
        ),
    ];
    for (name, shared, sharing, is_copied) in rows {
        let disk = SimulatedDisk::default();
        with_shared_directory(&disk)?;
        disk.put(&shared_path(NEW), shared)?;
        let writer = writer(&disk).sharing(sharing);
        set(&writer, "new", NEW)?;
        assert_eq!(disk.read(&blob_path(NEW)).is_ok(), is_copied, "{name}");
        assert_eq!(names_of(&disk)?, ["new", "old"], "{name}");
        assert_eq!(disk.read(&shared_path(NEW))?, shared, "{name}");
    }
    Ok(())
}

#[test]
fn after_every_step_there_is_the_old_or_the_new() -> Result<(), Fault> {
    trial::assert_all_or_nothing("changes of a layout", &cases(), 4)
}

#[test]
fn a_call_that_fails_changes_nothing() -> Result<(), Fault> {
    trial::assert_failures_are_told(&cases())
}

/// The checks above can fail: without syncs they find what is wrong.
#[test]
fn a_disk_that_lies_is_found_out() -> Result<(), Fault> {
    for case in cases() {
        if ["a ref to a new blob", "a ref moved"].contains(&case.name.as_str()) {
            trial::assert_lies_are_found(&case, &["damaged", "index:", "blob sha256"])?;
        }
    }
    Ok(())
}
