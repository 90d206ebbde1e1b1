//! Whatever a tar may be: what its parser says of the tar goes for the archive.

use std::fs;

use ocifs::ingest::{Ingest, IngestOptions, Name};
use ocifs::store::{Layout, LayoutWriter};
use ocifs::tar::{Kind, Limits, Parser};
use serde_json::json;

use super::super::common::{Fingerprint, Random, Tarball, TestLayout, tar_of};
use super::super::ingest::{docker_config, docker_manifest, tar};
use super::super::tar::archives::{mutate, seeds};
use super::{Reader, Stored, TestResult};

/// How many damaged ones are tried beside the sound ones.
const DAMAGED: usize = 400;

/// What `docker save` writes of an image with one layer.
fn good() -> Vec<u8> {
    let layer = tar_of(&[("a", b"1")]);
    tar(&[
        (
            "manifest.json".into(),
            docker_manifest(&[("c.json", json!(["app:1"]), &["l.tar"])]),
        ),
        ("c.json".into(), docker_config(&[&layer])),
        ("l.tar".into(), layer),
    ])
}

/// An archive that begins with the members of a tar, after one that shows that it is a tar.
fn after(tar: &[u8]) -> Vec<u8> {
    let zeros = tar
        .rchunks(512)
        .take_while(|block| block.iter().all(|byte| *byte == 0));
    let end: usize = zeros.map(<[u8]>::len).sum();
    let mut bytes = Tarball::new().file("first", "").finish_part();
    bytes.extend_from_slice(&tar[..tar.len() - end]);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend(good());
    bytes
}

/// The members that a parser finds by their paths, or why it finds none.
fn parse(bytes: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut paths = Vec::new();
    let mut parser = Parser::new(Limits::default());
    let fed = parser.feed(bytes, |entry| {
        if !matches!(entry.kind, Kind::Directory) {
            paths.push(entry.path);
        }
        Ok(())
    });
    fed.and_then(|()| parser.finish().map(drop))
        .map_err(|error: ocifs::tar::Error| error.code())?;
    Ok(paths)
}

/// Whether these are the members of [`good`] after others that mean nothing to an archive.
/// Some tars have an end in the middle, and some are archives themselves.
fn is_the_good_one(paths: &[Vec<u8>]) -> bool {
    let names = ["manifest.json", "c.json", "l.tar"].map(|name| name.as_bytes().to_vec());
    let Some(before) = paths.strip_suffix(&names) else {
        return false;
    };
    let means = |path: &Vec<u8>| path == b"oci-layout" || names.contains(path);
    !before.iter().any(means)
}

#[test]
fn what_is_wrong_with_a_tar_is_wrong_with_an_archive() -> TestResult {
    let (layout, reader) = (TestLayout::new(), Reader::new());
    let opened = Layout::open(layout.path(), &[])?;
    let writer = LayoutWriter::open(&opened, reader.verdicts.clone())?;
    let ingest = Ingest::new(writer, IngestOptions::default());
    let before = Fingerprint::of(layout.path());
    let (mut random, sound) = (Random::of_seed(7), seeds());
    let damaged: Vec<Vec<u8>> = (0..DAMAGED)
        .map(|number| mutate(&mut random, &sound[number % sound.len()]))
        .collect();
    let (mut refused, mut taken) = (0, 0);
    for (number, tar) in sound.iter().chain(&damaged).enumerate() {
        let bytes = after(tar);
        let stored = Stored::new(&bytes)?;
        let in_place = reader.archive(&stored.path());
        let brought_in = ingest.prepare_file(&bytes, &Name::of_file(b"name")?);
        match parse(&bytes) {
            Err(code) => {
                let in_place = in_place.err().map(|error| error.code());
                let brought_in = brought_in.err().map(|error| error.code());
                assert_eq!((in_place, brought_in), (Some(code), Some(code)), "{number}");
                refused += 1;
            }
            Ok(paths) if is_the_good_one(&paths) => {
                let archive = in_place.map_err(|error| format!("{number}: {error}"))?;
                let prepared = brought_in.map_err(|error| format!("{number}: {error}"))?;
                let entry = archive.view().entries()[0].descriptor.clone()?;
                assert_eq!(entry.digest, prepared.images()[0].digest, "{number}");
                taken += 1;
            }
            Ok(_) => {}
        }
        assert_eq!(
            fs::read_dir(stored.path().parent().ok_or("a directory")?)?.count(),
            1
        );
    }
    assert!(
        refused > DAMAGED / 4 && taken > sound.len() / 2,
        "{refused} {taken}"
    );
    assert_eq!(Fingerprint::of(layout.path()), before, "the layout changed");
    Ok(())
}
