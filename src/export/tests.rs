use std::convert::Infallible;

use proptest::prelude::*;
use serde_json::Value;

use super::graph::Found;
use super::oci::{Entries, layout_members};
use super::plan::{Draft, Member};
use super::*;
use crate::oci::{Digest, MediaType};

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// The byte of a made-up blob at an offset.
#[expect(clippy::cast_possible_truncation, reason = "any byte will do")]
fn byte(number: usize, offset: u64) -> u8 {
    (offset ^ (offset >> 8)) as u8 ^ (number as u8).wrapping_mul(31)
}

fn fill(number: usize, buf: &mut [u8], offset: u64) -> Result<(), Infallible> {
    for (at, out) in (offset..).zip(buf) {
        *out = byte(number, at);
    }
    Ok(())
}

fn found(sizes: &[u64]) -> Found {
    let descriptor = |(number, size): (usize, &u64)| {
        let digest = Digest::of(&number.to_le_bytes());
        let descriptor = Descriptor::new(MediaType::new("x"), digest.clone(), *size);
        (digest, descriptor)
    };
    Found {
        blobs: sizes.iter().enumerate().map(descriptor).collect(),
        disputed: Vec::new(),
        left_out: std::collections::BTreeMap::new(),
    }
}

/// A plan of blobs with these sizes, which are nowhere.
fn plan(sizes: &[u64]) -> Result<Plan, Error> {
    let found = found(sizes);
    let mut entries = Entries::default();
    for descriptor in found.blobs.values() {
        entries.add(descriptor, &Names::default());
    }
    Draft::default().finish(layout_members(found, &entries))
}

/// The archive from its beginning to its end.
fn streamed(plan: &Plan) -> Vec<u8> {
    let (mut bytes, mut number) = (Vec::new(), 0);
    for piece in plan.pieces() {
        match piece {
            Piece::Bytes(more) => bytes.extend_from_slice(more),
            Piece::Blob(descriptor) => {
                // Those without bytes are no piece.
                while plan.blobs()[number].digest != descriptor.digest {
                    number += 1;
                }
                bytes.extend((0..descriptor.size).map(|at| byte(number, at)));
            }
        }
    }
    bytes
}

fn sizes() -> impl Strategy<Value = Vec<u64>> {
    let edges = prop::sample::select(vec![0, 1, 511, 512, 513, 1023, 1024, 1025]);
    prop::collection::vec(prop_oneof![edges, 0..3_000_u64], 0..6)
}

proptest! {
    #[test]
    fn any_part_is_that_of_the_whole(
        sizes in sizes(),
        parts in prop::collection::vec((0..30_000_u64, 0..6_000_usize), 1..20),
    ) {
        let plan = plan(&sizes).expect("it is small");
        let whole = streamed(&plan);
        prop_assert_eq!(plan.size(), whole.len() as u64);
        for (offset, len) in parts {
            let mut buf = vec![0xEE; len];
            let Ok(read) = plan.read_at(&mut buf, offset, fill);
            let start = whole.len().min(usize::try_from(offset).expect("it is small"));
            let expected = &whole[start..whole.len().min(start + len)];
            prop_assert_eq!(&buf[..read], expected, "{} at {}", len, offset);
        }
    }
}

#[test]
fn what_fixes_the_archive_is_in_the_fingerprint() -> TestResult {
    let one = plan(&[1, 2])?;
    assert_eq!(one.fingerprint(), plan(&[1, 2])?.fingerprint());
    for other in [&[1, 3][..], &[2, 1], &[1], &[]] {
        assert_ne!(one.fingerprint(), plan(other)?.fingerprint(), "{other:?}");
    }
    Ok(())
}

/// From 8 GiB on a pax header says the size, and costs two blocks.
#[test]
fn large_blobs() -> TestResult {
    const LIMIT: u64 = 8 << 30;
    let size = |blob: u64| plan(&[blob]).map(|plan| plan.size());
    let below = size(LIMIT - 512)?;
    assert_eq!(size(LIMIT)?, below + 512 + 1024);
    let plan = plan(&[LIMIT, 3])?;
    // The last block before the end: offsets do not wrap.
    let mut buf = [1; 4096];
    let Ok(len) = plan.read_at(&mut buf, plan.size() - 1024, fill);
    assert_eq!((len, buf[..1024].iter().max()), (1024, Some(&0)));
    let Ok(len) = plan.read_at(&mut buf, u64::MAX, fill);
    assert_eq!(len, 0);
    Ok(())
}

#[test]
fn sizes_that_no_file_can_have() {
    let most = i64::MAX.unsigned_abs();
    for sizes in [&[most][..], &[most, most, most], &[u64::MAX]] {
        let refused = plan(sizes);
        assert!(matches!(refused, Err(Error::TooLarge)), "{sizes:?}");
    }
}

#[test]
fn members_are_sorted() {
    let found = found(&[1, 2, 3, 4, 5]);
    let mut digests: Vec<String> = found.blobs.keys().map(oci::blob_path).collect();
    let contents = layout_members(found, &Entries::default());
    let paths: Vec<String> = contents.members.keys().cloned().collect();
    let mut expected = vec!["blobs/".to_owned(), "blobs/sha256/".to_owned()];
    expected.append(&mut digests);
    expected.extend(["index.json".to_owned(), "oci-layout".to_owned()]);
    assert_eq!(paths, expected);
}

#[test]
fn an_entry_says_what_it_is_and_how_it_is_called() {
    let found = found(&[7]);
    let mut descriptor = found.blobs.values().next().cloned().expect("there is one");
    let mut entries = Entries::default();
    let names = Names {
        ref_name: Some("1".into()),
        containerd_name: Some("docker.io/library/app:1".into()),
    };
    let platform = serde_json::json!({
        "architecture": "arm", "os": "linux", "os.version": "1", "os.features": ["f"],
        "variant": "v7",
    });
    descriptor.platform = crate::oci::Platform::from_json(&platform).ok();
    descriptor.artifact_type = Some(MediaType::new("a/b"));
    entries.add(&descriptor, &names);
    entries.add(&descriptor, &names);
    let contents = layout_members(found, &entries);
    let Some(Member::Document(index)) = contents.members.get("index.json") else {
        panic!("there is an index");
    };
    let index: Value = serde_json::from_slice(index).expect("it is JSON");
    let expected = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "x",
            "digest": descriptor.digest.as_str(),
            "size": 7,
            "annotations": {
                "io.containerd.image.name": "docker.io/library/app:1",
                "org.opencontainers.image.ref.name": "1",
            },
            "platform": platform,
            "artifactType": "a/b",
        }],
    });
    assert_eq!(index, expected, "and it is there once");
}
