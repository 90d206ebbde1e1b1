//! Archives whose file changes while they are shown: the bytes that were promised, or an
//! error, and never others.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use ocifs::vfs::Vfs;

use super::super::common::{Compression, Random, TestLayout, compress};
use super::super::ingest::{members_of, oci_archive, tar};
use super::{Reader, Stored, TestResult, code, dump, read};

/// A layout whose layers are long enough that not all of them stays in a buffer.
fn image() -> TestLayout {
    let layout = TestLayout::new();
    let mut noise = vec![0; 900_000];
    Random::of_seed(7).fill(&mut noise);
    let layers = [
        layout.layer(Compression::Gzip, &[("a", &noise)]),
        layout.layer(Compression::None, &[("b", &noise), ("c", b"2")]),
    ];
    layout.add_ref("app:1", &layout.image_for("linux/amd64", &layers));
    layout
}

/// Changes every hundredth byte of the file from its middle on, in place.
fn overwrite(path: &Path) -> TestResult {
    let bytes = fs::read(path)?;
    let file = File::options().write(true).open(path)?;
    for at in (bytes.len() / 10..bytes.len()).step_by(100) {
        file.write_all_at(&[!bytes[at]], at as u64)?;
    }
    Ok(())
}

/// Without its manifest an image has no layers. Documents that were read are believed.
fn read_documents(tree: &Vfs) -> TestResult {
    tree.resolve(b"app:1/layers/00.tar")?;
    Ok(())
}

const FILES: [&[u8]; 3] = [
    b"app:1/layers/00.tar",
    b"app:1/layers/01.tar",
    b"app:1/rootfs/b",
];

#[test]
fn overwritten_in_place() -> TestResult {
    let archive = oci_archive(&image());
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let name = format!("{compression:?}");
        let bytes = compress(compression, &archive);
        let stored = Stored::new(&bytes)?;
        // Nothing that was decoded before is at hand.
        let reader = Reader::forgetful();
        let tree = reader.tree(&stored.path())?;
        let mut expected = Vec::new();
        let mut open = Vec::new();
        for path in FILES {
            let node = tree.resolve(path)?;
            expected.push(read(&*node)?);
            open.push(node.open()?);
        }
        let fresh = Reader::forgetful();
        let fresh_tree = fresh.tree(&stored.path())?;
        read_documents(&fresh_tree)?;
        overwrite(&stored.path())?;
        for (file, expected) in open.iter().zip(&expected) {
            for offset in (0..expected.len()).step_by(100_000) {
                let mut buf = vec![0; 5_000];
                match file.read(&mut buf, offset as u64) {
                    Ok(len) => {
                        let is_right = buf[..len] == expected[offset..offset + len];
                        assert!(is_right, "{name}: wrong bytes at {offset}");
                    }
                    Err(error) => assert_eq!(error.errno(), libc::EBADMSG, "{name}: {error}"),
                }
            }
        }
        for path in FILES {
            let node = fresh_tree.resolve(path);
            let error = node
                .and_then(|node| read(&*node))
                .expect_err("it is damaged");
            assert_eq!(error.errno(), libc::EBADMSG, "{name}: {error}");
        }
        // The right bytes are back: they were only away.
        fs::write(stored.path(), &bytes)?;
        let again = Reader::new();
        for tree in [again.tree(&stored.path())?, fresh_tree] {
            for (path, expected) in FILES.iter().zip(&expected) {
                let is_right = read(&*tree.resolve(path)?)? == *expected;
                assert!(is_right, "{name}: the right bytes are back");
            }
        }
    }
    Ok(())
}

#[test]
fn cut_short() -> TestResult {
    let archive = oci_archive(&image());
    for compression in [Compression::None, Compression::Gzip] {
        let bytes = compress(compression, &archive);
        let stored = Stored::new(&bytes)?;
        let reader = Reader::forgetful();
        let tree = reader.tree(&stored.path())?;
        read_documents(&tree)?;
        let file = File::options().write(true).open(stored.path())?;
        file.set_len(bytes.len() as u64 / 10)?;
        for path in FILES {
            let node = tree.resolve(path);
            let error = node
                .and_then(|node| read(&*node))
                .expect_err("it is cut short");
            let said = format!("{compression:?}, {}: {error}", code(&error));
            assert_eq!(error.errno(), libc::EBADMSG, "{said}");
        }
    }
    Ok(())
}

/// Another archive is written over a compressed one, with other bytes in a blob's place.
/// The right ones are still in memory, but they say nothing about the file as it is now.
#[test]
fn no_verdict_on_a_later_file_from_what_was_decoded_before() -> TestResult {
    let layout = TestLayout::new();
    let mut noise = vec![0; 1_200_000];
    Random::of_seed(9).fill(&mut noise);
    let layer = layout.layer(Compression::None, &[("a", &noise)]);
    layout.add_ref("app:1", &layout.image_for("linux/amd64", &[layer]));
    let mut members = members_of(&layout);
    let blob = members.iter_mut().max_by_key(|(_, bytes)| bytes.len());
    let (name, bytes) = blob.ok_or("no blob")?;
    let (path, right) = (format!(".ocifs/layout/{name}"), bytes.clone());
    bytes[700_000] ^= 1;
    let changed = tar(&members);
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let stored = Stored::new(&compress(compression, &oci_archive(&layout)))?;
        let cache = stored.dir.path().join("cache");
        let reader = Reader::keeping(&cache)?;
        let tree = reader.tree(&stored.path())?;
        let open = tree.resolve(path.as_bytes())?.open()?;
        let mut buf = vec![0; right.len()];
        assert_eq!(open.read(&mut buf, 0)?, right.len(), "{compression:?}");
        fs::write(stored.path(), compress(compression, &changed))?;
        // Whatever was in memory, or an error.
        match open.read(&mut buf, 0) {
            Ok(len) => assert!(buf[..len] == right[..len], "{compression:?}"),
            Err(error) => assert_eq!(error.errno(), libc::EBADMSG, "{compression:?}: {error}"),
        }
        let later = Reader::keeping(&cache)?;
        let node = later.tree(&stored.path())?;
        let node = node.resolve(path.as_bytes())?;
        let error = read(&*node).expect_err("these are other bytes");
        assert_eq!(code(&error), "BLOB_DIGEST", "{compression:?}: {error}");
    }
    Ok(())
}

/// What is no change of the bytes changes nothing, and neither does another file in the
/// archive's place.
#[test]
fn touched_and_replaced() -> TestResult {
    let archive = oci_archive(&image());
    for compression in [Compression::None, Compression::Gzip] {
        let stored = Stored::new(&compress(compression, &archive))?;
        let reader = Reader::new();
        let tree = reader.tree(&stored.path())?;
        let expected = dump(&tree);
        let open = tree.resolve(FILES[1])?.open()?;
        fs::set_permissions(stored.path(), fs::Permissions::from_mode(0o600))?;
        assert_eq!(open.read(&mut [0; 10], 0)?, 10, "{compression:?}: open");
        assert_eq!(dump(&tree), expected, "{compression:?}: touched");
        let other = stored.dir.path().join("other");
        fs::write(&other, b"another")?;
        fs::rename(&other, stored.path())?;
        assert_eq!(dump(&tree), expected, "{compression:?}: replaced");
    }
    Ok(())
}
