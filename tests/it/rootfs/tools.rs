//! The same random stacks, unpacked by umoci onto a disk.
//!
//! Each difference has a name and a predicate; the names stand in `src/vfs/semantics.md`,
//! "Where tools differ".

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::{Compression, Need, TestLayout, has, hidden_by, run};

use super::stacks::stacks;
use super::*;

/// How many stacks are unpacked.
const UNPACKED: usize = 300;

/// What is on a disk: its path, and what `lstat` says.
type OnDisk = (PathBuf, fs::Metadata);

/// What a directory on a disk shows.
fn sight_of_disk(root: &Path) -> io::Result<Sight> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
        }
        let below = path.strip_prefix(root).expect("it is below");
        found.insert(
            below.to_string_lossy().into_owned(),
            (path.clone(), metadata),
        );
    }
    let mut firsts = HashMap::new();
    let seen = |(path, (full, metadata)): (String, OnDisk)| {
        let first = firsts
            .entry(metadata.ino())
            .or_insert_with(|| path.clone())
            .clone();
        let seen = seen_on_disk(&full, &metadata, first)?;
        Ok((path, seen))
    };
    found.into_iter().map(seen).collect()
}

fn seen_on_disk(path: &Path, metadata: &fs::Metadata, first: String) -> io::Result<Seen> {
    let file_type = metadata.file_type();
    let kind = if file_type.is_dir() {
        SeenKind::Directory
    } else if file_type.is_symlink() {
        SeenKind::Symlink(fs::read_link(path)?.to_string_lossy().into_owned())
    } else if file_type.is_file() {
        SeenKind::File(fs::read(path)?)
    } else if file_type.is_fifo() {
        SeenKind::Special('p')
    } else if file_type.is_char_device() {
        SeenKind::Special('c')
    } else {
        SeenKind::Special('b')
    };
    Ok(Seen {
        kind,
        attributes: Attributes {
            mode: u16::try_from(metadata.mode() & 0o7777).expect("twelve bits"),
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: metadata.mtime(),
            nanoseconds: u32::try_from(metadata.mtime_nsec()).expect("below a second"),
            xattrs: xattrs_on_disk(path, metadata)?,
        },
        links: u32::try_from(metadata.nlink()).expect("a small tree"),
        first,
    })
}

fn xattrs_on_disk(path: &Path, metadata: &fs::Metadata) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    if !metadata.is_dir() && !metadata.is_file() {
        return Ok(Vec::new());
    }
    let mut names = vec![0; 4096];
    let len = rustix::fs::listxattr(path, &mut names[..])?;
    let names = names[..len].split(|byte| *byte == 0);
    let read = |name: &[u8]| {
        let mut value = vec![0; 4096];
        let len = rustix::fs::getxattr(path, name, &mut value[..])?;
        Ok((name.to_vec(), value[..len].to_vec()))
    };
    names
        .filter(|name| name.starts_with(b"user."))
        .map(read)
        .collect()
}

/// A class of differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// It refuses a hard link to what comes later in its layer.
    LaterLink,
    /// It refuses what lies below a file of its own layer.
    FileOnTheWay,
    /// A directory has the time at which something was made in it.
    DirectoryTime,
    /// It does not make a directory for nothing but a whiteout in it, and leaves a file
    /// that is in its place.
    WhiteoutParent,
}

const CLASSES: [Class; 4] = [
    Class::LaterLink,
    Class::FileOnTheWay,
    Class::DirectoryTime,
    Class::WhiteoutParent,
];

/// Why it refuses a stack that we read.
fn class_of_refusal(layers: &[Vec<Item>], message: &str) -> Option<Class> {
    let has_link = layers.iter().flatten().any(|item| item.letter == 'h');
    if has_link && message.contains(": link: ") {
        return Some(Class::LaterLink);
    }
    // The last of these names is that of a file.
    let is_file_parent = message.contains("mkdir parent: ") && message.contains("not a directory");
    is_file_parent.then_some(Class::FileOnTheWay)
}

/// Takes what is of a class out of both sights.
fn classify(
    ours: &mut Sight,
    theirs: &mut Sight,
    layers: &[Vec<Item>],
    start: i64,
) -> BTreeSet<Class> {
    let mut classes = BTreeSet::new();
    for seen in ours.values_mut() {
        // Symlinks have no mode on a disk.
        if matches!(seen.kind, SeenKind::Symlink(_)) {
            seen.attributes.mode = 0o777;
        }
    }
    let mut items = layers.iter().flatten();
    if items.any(|item| hidden_by(item).is_some() && item.path.contains('/')) {
        while let Some(path) = empty_and_missing(ours, theirs) {
            ours.remove(&path);
            theirs.remove(&path);
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            ours.get_mut(parent).expect("it has a directory").links -= 1;
            classes.insert(Class::WhiteoutParent);
        }
    }
    for (path, theirs) in theirs {
        let Some(ours) = ours
            .get(path)
            .filter(|ours| ours.kind == SeenKind::Directory)
        else {
            continue;
        };
        let (shown, expected) = (&mut theirs.attributes, &ours.attributes);
        if shown.mtime >= start {
            // Where no entry names it, there is no time that it could have.
            if *expected != Attributes::implied() {
                classes.insert(Class::DirectoryTime);
            }
            (shown.mtime, shown.nanoseconds) = (expected.mtime, expected.nanoseconds);
        }
    }
    classes
}

/// A directory with nothing in it that no entry names, and where they have none.
fn empty_and_missing(ours: &Sight, theirs: &Sight) -> Option<String> {
    let is_empty = |path: &str| {
        let inside = format!("{path}/");
        !ours.keys().any(|other| other.starts_with(&inside))
    };
    let is_directory = |seen: Option<&Seen>| {
        let kind = seen.map(|seen| &seen.kind);
        kind == Some(&SeenKind::Directory)
    };
    let mut found = ours.iter().filter(|(path, seen)| {
        seen.kind == SeenKind::Directory
            && seen.attributes == Attributes::implied()
            && !is_directory(theirs.get(*path))
            && is_empty(path)
    });
    found.next().map(|(path, _)| path.clone())
}

/// A stack, and what we make of it.
type Plain = (Vec<Vec<Item>>, Sight);

/// Stacks that depend on no rule and have no links to nothing.
fn plain_stacks(count: usize) -> Result<Vec<Plain>, Failure> {
    let mut plain = Vec::new();
    for layers in stacks().map(|lines| items_of(&lines)) {
        let (theirs, rules) = naive(&layers, Whiteouts::Act);
        let is_whole = |sight: &Sight| {
            let mut seen = sight.values();
            !seen.any(|seen| matches!(seen.kind, SeenKind::Dangling(_)))
        };
        if rules.is_empty() && theirs.is_ok_and(|sight| is_whole(&sight)) {
            let sight = ours(&layers)?;
            plain.push((layers, sight));
        }
        if plain.len() == count {
            break;
        }
    }
    Ok(plain)
}

#[test]
fn umoci_unpacks_the_same() -> Result<(), Failure> {
    let needs = [Need::Root, Need::Tool("umoci")];
    if !has("umoci_unpacks_the_same", &needs) {
        return Ok(());
    }
    let start = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let (layout, target) = (TestLayout::new(), tempfile::tempdir()?);
    let mut classes = BTreeSet::new();
    let mut same = 0;
    for (number, (layers, mut ours)) in plain_stacks(UNPACKED)?.into_iter().enumerate() {
        let stored = layers.iter().map(|layer| tar_of_items(layer));
        let stored = stored.map(|tar| layout.layer_of_tar(Compression::None, &tar));
        let image = layout.image(&stored.collect::<Vec<_>>());
        layout.add_ref(&format!("s{number}"), &image);
        let root = target.path().join(number.to_string());
        let image = format!("{}:s{number}", layout.path().display());
        let shown = root.to_string_lossy();
        let output = run("umoci", &["raw", "unpack", "--image", &image, &shown]);
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            let class = class_of_refusal(&layers, &message);
            classes.insert(class.ok_or_else(|| format!("{layers:#?}: {message}"))?);
            continue;
        }
        let mut theirs = sight_of_disk(&root)?;
        let found = classify(&mut ours, &mut theirs, &layers, i64::try_from(start)?);
        assert_eq!(difference(&ours, &theirs), None, "{layers:#?}");
        same += usize::from(found.is_empty());
        classes.extend(found);
    }
    assert_eq!(classes, BTreeSet::from(CLASSES), "all classes are there");
    assert!(
        same > UNPACKED / 4,
        "only {same} of {UNPACKED} are the same"
    );
    Ok(())
}
