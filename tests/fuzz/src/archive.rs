//! Archives that are read in place: `archive::Archive`, up to the bytes of each blob.
//!
//! Invariants, for any bytes, also once the sums of all headers are put right:
//! - no panic, and memory that does not grow with what the bytes claim;
//! - what opens has entries that are descriptors, and says the same when it is opened again;
//! - each blob that it lists is where it says: as long as its size, in any part what it is in
//!   the whole, and no byte from outside of the file; or it is refused by its kind;
//! - nothing is found under a digest that is not listed;
//! - an archive whose images can be brought into a layout opens, and has the same entries.

use std::cell::OnceCell;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use ocifs::archive::{Archive, ArchiveOptions};
use ocifs::layer::{Layers, LayersOptions};
use ocifs::oci::Digest;
use ocifs::store::layout::Error;
use ocifs::store::{Blob, BlobSource, ReadAt, Verdicts};
use tempfile::TempDir;

use super::ingest;
use super::random::Random;
use super::tar::with_right_sums;

/// How much is read of a blob, in bytes: a sparse stream decodes to more than there is time
/// for.
const MAX_READ: u64 = 1 << 20;

/// Where archives are written to be opened, and what they are opened with.
struct Place {
    _dir: TempDir,
    path: PathBuf,
    verdicts: Arc<Verdicts>,
    layers: Layers,
}

thread_local! {
    static PLACE: OnceCell<Place> = const { OnceCell::new() };
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let path = dir.path().join("archive");
        let verdicts = Arc::new(Verdicts::new(None));
        let layers = Layers::new(LayersOptions::default(), verdicts.clone());
        Self {
            _dir: dir,
            path,
            verdicts,
            layers,
        }
    }

    fn check(&self, bytes: &[u8]) {
        fs::write(&self.path, bytes).expect("it can be written");
        let opened = self.open();
        if let Ok(archive) = &opened {
            let again = self.open().map(|again| shape(&again));
            assert_eq!(again.ok(), Some(shape(archive)), "opened again");
            check_blobs(archive, bytes);
        }
        if let Some(images) = ingest::images_of_archive(bytes) {
            let archive = opened.expect("its images can be brought in");
            let entries = archive.view().entries();
            for (digest, size) in images {
                let is_it = |entry: &Arc<ocifs::oci::index::Entry>| {
                    let descriptor = entry.descriptor.as_ref();
                    descriptor.is_ok_and(|found| found.digest == digest && found.size == size)
                };
                assert!(entries.iter().any(is_it), "{digest} was brought in");
            }
        }
    }

    fn open(&self) -> Result<Archive, ocifs::archive::read::Error> {
        let options = ArchiveOptions {
            layers: &self.layers,
            verdicts: &self.verdicts,
            cache: None,
        };
        Archive::open(&self.path, &options)
    }
}

/// What an archive says of itself: the marker, the entries, and where each blob is.
type Shape = (Vec<u8>, String, Vec<(Digest, String)>);

fn shape(archive: &Archive) -> Shape {
    let place = |digest: Digest| {
        let identity = archive.identify(&digest).expect("it is listed");
        (digest, format!("{} {}", identity.offset, identity.size))
    };
    let mut places: Vec<_> = digests(archive).into_iter().map(place).collect();
    places.sort();
    let marker = archive.marker().expect("it was read before");
    (marker, format!("{:?}", archive.view().entries()), places)
}

fn digests(archive: &Archive) -> Vec<Digest> {
    let algorithms = archive.list_algorithms().expect("they are known");
    let list = |name: &String| archive.list_blobs(name).expect("they are known");
    algorithms.iter().flat_map(list).collect()
}

fn check_blobs(archive: &Archive, bytes: &[u8]) {
    let digests = digests(archive);
    for digest in &digests {
        match archive.open_blob(digest) {
            Ok(blob) => check_blob(&blob, bytes),
            Err(error) => assert!(matches!(error, Error::FileType { .. }), "{digest}: {error}"),
        }
    }
    let other = Digest::of(b"in no archive");
    if !digests.contains(&other) {
        let found = archive.open_blob(&other);
        assert!(matches!(found, Err(Error::BlobMissing { .. })));
    }
}

/// Reads it whole, and some of it again.
fn check_blob(blob: &Blob, bytes: &[u8]) {
    let len = usize::try_from(blob.size().min(MAX_READ)).expect("it is a MiB");
    let mut whole = vec![0; len];
    let read = blob.read_at(&mut whole, 0).expect("it was looked through");
    assert_eq!(read, len, "{}", blob.digest());
    let end = blob.read_at(&mut [0], blob.size());
    assert_eq!(end.ok(), Some(0), "{}", blob.digest());
    let is_compressed = bytes.starts_with(b"\x1f\x8b") || bytes.starts_with(b"\x28\xb5\x2f\xfd");
    let is_plain = !is_compressed && bytes.get(257..262) == Some(b"ustar");
    let identity = blob.identity();
    if is_plain && identity.offset > 0 {
        let start = usize::try_from(identity.offset).expect("it is in the file");
        assert!(bytes[start..].starts_with(&whole), "{}", blob.digest());
    }
    let mut random = Random::of_seed(blob.size());
    for _ in 0..3 {
        let at = random.within(0..blob.size().clamp(1, MAX_READ));
        let mut part = vec![0; 700];
        let read = blob.read_at(&mut part, at).expect("it was read before");
        let at = usize::try_from(at).expect("below a MiB");
        let expected = &whole[at.min(len)..len.min(at + 700)];
        assert_eq!(&part[..read.min(expected.len())], expected, "at {at}");
    }
}

/// Checks the invariants.
pub fn check(bytes: &[u8]) {
    PLACE.with(|place| {
        let place = place.get_or_init(Place::new);
        place.check(bytes);
        if let Some(summed) = with_right_sums(bytes) {
            place.check(&summed);
        }
    });
}
