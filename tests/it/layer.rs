//! Opening layers: verdicts, Tocs kept and damaged, one pass for many, failures.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ocifs::layer::toc::cache::NotKept;
use ocifs::layer::tree::{self, Kind, NodeId};
use ocifs::layer::{Error, ErrorClass, Layer, LayerFile, Layers, LayersOptions, Limits};
use ocifs::oci::Digest;
use ocifs::store::{Blob, CacheDir, ReadAt, Verdicts, verify};
use ocifs::stream::{self, Compression, TarOffset};
use ocifs::tar::{Content, Region};

use crate::sample::{Random, TestResult, gzip, layer_like, zstd, zstd_stream};

/// A place for blobs and for a cache.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> TestResult<Self> {
        let dir = tempfile::tempdir()?;
        Ok(Self { dir })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.path().join(digest.encoded())
    }

    fn put(&self, bytes: &[u8]) -> TestResult<Digest> {
        let digest = Digest::of(bytes);
        std::fs::write(self.path(&digest), bytes)?;
        Ok(digest)
    }

    fn blob(&self, digest: &Digest) -> TestResult<Arc<Blob>> {
        let file = File::open(self.path(digest))?;
        Ok(Arc::new(Blob::new(digest.clone(), file)?))
    }

    fn cache(&self) -> TestResult<CacheDir> {
        Ok(CacheDir::open(&self.dir.path().join("cache"))?)
    }

    /// Where the Toc of a blob is kept.
    fn toc_path(&self, digest: &Digest) -> TestResult<PathBuf> {
        let shelf = self.cache()?.shelf("toc")?;
        Ok(shelf.path().join(verify::file_name(digest)))
    }

    fn layers(&self) -> TestResult<Layers> {
        let cache = self.cache()?;
        let verdicts = Arc::new(Verdicts::new(Some(&cache)));
        let options = LayersOptions {
            cache: Some(cache),
            ..LayersOptions::default()
        };
        Ok(Layers::new(options, verdicts))
    }

    fn open(&self, layers: &Layers, digest: &Digest) -> TestResult<Result<Arc<Layer>, Error>> {
        Ok(layers.open(self.blob(digest)?))
    }
}

fn all(layer: &Layer) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; usize::try_from(layer.size()).unwrap()];
    let len = layer.read_at(&mut bytes, TarOffset(0))?;
    assert_eq!(len, bytes.len());
    Ok(bytes)
}

#[test]
fn what_a_pass_finds_out() -> TestResult {
    let place = Place::new()?;
    let layers = place.layers()?;
    let bytes = layer_like(1 << 20, 1);
    let rows = [
        ("gzip", gzip(&bytes, 6), Compression::Gzip),
        ("zstd", zstd(&bytes, 3), Compression::Zstd),
        ("plain", bytes.clone(), Compression::Plain),
    ];
    for (name, blob, compression) in rows {
        let digest = place.put(&blob)?;
        assert!(layers.find(&digest).is_none(), "{name}");
        let layer = place.open(&layers, &digest)??;
        let toc = layers.find(&digest).ok_or("no Toc")?;
        assert_eq!(toc.digest(), &digest, "{name}");
        assert_eq!(toc.blob_size(), blob.len() as u64, "{name}");
        assert_eq!(toc.compression(), compression, "{name}");
        assert_eq!(toc.diff_id().0, Digest::of(&bytes), "{name}");
        assert_eq!(toc.size(), bytes.len() as u64, "{name}");
        assert!(all(&layer)? == bytes, "{name}");
    }
    assert!(layers.passes().is_empty());
    Ok(())
}

#[test]
fn a_sha512_blob_has_a_sha256_diff_id() -> TestResult {
    let place = Place::new()?;
    let bytes = layer_like(10_000, 2);
    let mut hasher = ocifs::oci::Hasher::new(ocifs::oci::Algorithm::Sha512).ok_or("sha512")?;
    hasher.update(&bytes);
    let digest = hasher.finish();
    std::fs::write(place.path(&digest), &bytes)?;
    let layer = place.open(&place.layers()?, &digest)??;
    assert_eq!(layer.diff_id().0, Digest::of(&bytes));
    Ok(())
}

#[test]
fn well_known_empty_layers() -> TestResult {
    let place = Place::new()?;
    let layers = place.layers()?;
    let rows: &[(&str, Vec<u8>, usize)] = &[
        ("no bytes", vec![], 0),
        ("two zero blocks", vec![0; 1024], 1024),
        ("gzip of two zero blocks", gzip(&[0; 1024], 9), 1024),
    ];
    for (name, blob, size) in rows {
        let digest = place.put(blob)?;
        let layer = place.open(&layers, &digest)??;
        assert_eq!(all(&layer)?, vec![0; *size], "{name}");
    }
    Ok(())
}

#[test]
fn damage_counts_before_what_the_damaged_stream_is_like() -> TestResult {
    let good = gzip(&layer_like(300_000, 3), 6);
    let xz = b"\xfd7zXZ\0 and more".to_vec();
    let mut bad = good.clone();
    bad[1000] ^= 1;
    let cut = good[..good.len() - 1].to_vec();
    let cases: &[(&str, &Digest, &Vec<u8>, &str, ErrorClass)] = &[
        (
            "one bit",
            &Digest::of(&good),
            &bad,
            "BLOB_DIGEST",
            ErrorClass::Mismatch,
        ),
        (
            "cut short",
            &Digest::of(&good),
            &cut,
            "BLOB_DIGEST",
            ErrorClass::Mismatch,
        ),
        (
            "became xz",
            &Digest::of(&good),
            &xz,
            "BLOB_DIGEST",
            ErrorClass::Mismatch,
        ),
        (
            "empty",
            &Digest::of(&good),
            &vec![],
            "BLOB_DIGEST",
            ErrorClass::Mismatch,
        ),
        (
            "xz",
            &Digest::of(&xz),
            &xz,
            "COMPRESSION",
            ErrorClass::Unsupported,
        ),
        (
            "cut gzip",
            &Digest::of(&cut),
            &cut,
            "STREAM_TRUNCATED",
            ErrorClass::Malformed,
        ),
    ];
    for (name, digest, bytes, code, class) in cases {
        let place = Place::new()?;
        std::fs::write(place.path(digest), bytes)?;
        let layers = place.layers()?;
        let blob = place.blob(digest)?;
        assert!(layers.failure(&blob).is_none(), "{name}");
        let error = layers.open(Arc::clone(&blob)).err().ok_or(*name)?;
        assert_eq!((error.code(), error.class()), (*code, *class), "{name}");
        let known = layers.failure(&blob).ok_or(*name)?;
        assert_eq!(known.code(), *code, "{name}: the failure is remembered");
        assert!(layers.find(digest).is_none(), "{name}: no Toc");
        // Another state of the file gets another chance.
        std::fs::write(place.path(digest), &good)?;
        let again = place.open(&layers, digest)?;
        assert_eq!(again.is_ok(), **digest == Digest::of(&good), "{name}");
    }
    Ok(())
}

/// Bytes on a disk that cannot be read for a while.
#[derive(Debug)]
struct Disk {
    bytes: Vec<u8>,
    is_well: AtomicBool,
}

impl ReadAt for Disk {
    fn size(&self) -> u64 {
        self.bytes.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.is_well.load(Ordering::Relaxed) {
            self.bytes.read_at(buf, offset)
        } else {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
    }
}

#[test]
fn a_failing_disk_is_asked_again() -> TestResult {
    let place = Place::new()?;
    let bytes = layer_like(100_000, 44);
    let stored = gzip(&bytes, 6);
    let digest = place.put(&stored)?;
    let identity = *place.blob(&digest)?.identity();
    let disk = Arc::new(Disk {
        bytes: stored,
        is_well: AtomicBool::new(false),
    });
    let layers = place.layers()?;
    let blob = Arc::new(Blob::fixed(digest, identity, 0, disk.clone()));
    let error = layers.open(Arc::clone(&blob)).err().ok_or("opened")?;
    assert!(matches!(error, Error::Read { .. }), "{error}");
    assert!(layers.failure(&blob).is_none(), "not remembered");
    disk.is_well.store(true, Ordering::Relaxed);
    assert!(all(&*layers.open(blob)?)? == bytes);
    Ok(())
}

#[test]
fn sparse_files_are_read_and_sought_at_every_place() -> TestResult {
    const START: usize = 5;
    let place = Place::new()?;
    let stored: Vec<u8> = (1..=100).collect();
    let digest = place.put(&stored)?;
    let layer = place.open(&place.layers()?, &digest)??;
    // Size, and where which bytes are stored.
    let rows: [(&str, usize, &[Range<usize>]); 3] = [
        ("holes all over", 30, &[3..7, 10..11, 20..25]),
        ("none at the ends", 12, &[0..4, 8..12]),
        ("one hole", 9, &[]),
    ];
    for (name, size, ranges) in rows {
        let mut expected = vec![0; size];
        let places = ranges.iter().cloned().flatten();
        places
            .zip(&stored[START..])
            .for_each(|(at, byte)| expected[at] = *byte);
        let region = |range: &Range<usize>| Region {
            file_offset: range.start as u64,
            len: range.len() as u64,
        };
        let content = Content {
            size: size as u64,
            data_offset: START as u64,
            stored_len: ranges.iter().map(|range| range.len() as u64).sum(),
            regions: Some(ranges.iter().map(region).collect()),
        };
        let file = LayerFile::new(Arc::clone(&layer), content);
        for offset in 0..size + 2 {
            let (at, rest) = (offset as u64, offset.min(size)..size);
            for len in 0..=size {
                let mut buf = vec![0xa5; len];
                let read = file.read_at(&mut buf, at)?;
                let end = size.min(offset + len);
                assert!(
                    buf[..read] == expected[rest.start.min(end)..end],
                    "{name}: {len} bytes at {offset}"
                );
            }
            let is_stored = |at: &usize| expected[*at] != 0;
            let data = rest.clone().find(is_stored).map(|at| at as u64);
            let hole = rest.clone().find(|at| !is_stored(at)).unwrap_or(size) as u64;
            assert_eq!(file.next_data(at), data, "{name}: data from {offset}");
            let hole = (offset < size).then_some(hole);
            assert_eq!(file.next_hole(at), hole, "{name}: hole from {offset}");
        }
    }
    Ok(())
}

#[test]
fn unknown_algorithms_are_unsupported() -> TestResult {
    let place = Place::new()?;
    let digest: Digest = "blake9:aaaa".parse()?;
    std::fs::write(place.path(&digest), b"x")?;
    let error = place
        .open(&place.layers()?, &digest)?
        .err()
        .ok_or("opened")?;
    assert_eq!(error.class(), ErrorClass::Unsupported);
    Ok(())
}

#[test]
fn limits_name_themselves() -> TestResult {
    let place = Place::new()?;
    let limits = stream::Limits {
        decoded_size: 1 << 20,
        ..stream::Limits::default()
    };
    let options = LayersOptions {
        limits: Limits {
            stream: limits,
            ..Limits::default()
        },
        ..LayersOptions::default()
    };
    let layers = Layers::new(options, Arc::new(Verdicts::new(None)));
    let digest = place.put(&gzip(&vec![0; 5 << 20], 6))?;
    let error = place.open(&layers, &digest)?.err().ok_or("opened")?;
    assert_eq!(error.class(), ErrorClass::Limit);
    let text = error.to_string();
    assert!(
        text.contains("1048576") && text.contains("decoded size"),
        "{text}"
    );
    Ok(())
}

#[test]
fn tocs_and_verdicts_outlive_the_process() -> TestResult {
    let place = Place::new()?;
    // Noise, so that the blob is large enough for its verdict to be kept.
    let bytes = layer_like(9 << 20, 4);
    let digest = place.put(&gzip(&bytes, 1))?;
    let first = place.open(&place.layers()?, &digest)??;

    let layers = place.layers()?;
    let toc = layers.find(&digest).ok_or("no Toc was kept")?;
    assert!(!Arc::ptr_eq(&toc, first.toc()));
    let layer = place.open(&layers, &digest)??;
    assert!(Arc::ptr_eq(layer.toc(), &toc), "no second pass");
    assert!(toc.tree().is_none(), "the tree is loaded when asked for");
    layers.tree(&layer)?;
    assert!(toc == *first.toc());
    assert!(all(&layer)? == bytes);

    // The same bytes in another file: hashed, not decoded; damaged bytes: refused.
    let path = place.path(&digest);
    let stored = std::fs::read(&path)?;
    std::fs::remove_file(&path)?;
    std::fs::write(&path, &stored)?;
    let layer = place.open(&layers, &digest)??;
    assert!(Arc::ptr_eq(layer.toc(), &toc), "no second pass");
    let mut damaged = stored;
    damaged[100] ^= 1;
    std::fs::write(&path, &damaged)?;
    let error = place.open(&layers, &digest)?.err().ok_or("opened")?;
    assert_eq!(error.code(), "BLOB_DIGEST");
    Ok(())
}

#[test]
fn long_zstd_frames_are_improved_when_nobody_waits() -> TestResult {
    let place = Place::new()?;
    let bytes = layer_like(20 << 20, 40);
    let digest = place.put(&zstd_stream(&bytes, 1, 20))?;
    let layers = place.layers()?;
    let layer = place.open(&layers, &digest)??;
    // Read while the search goes on, and after it.
    assert!(all(&layer)? == bytes);
    layers.wait_idle();
    assert!(layers.passes().is_empty());
    let count = |layer: &Layer| layer.toc().spans().checkpoints().list.len();
    assert!(count(&layer) > 2, "{} checkpoints", count(&layer));
    assert!(all(&layer)? == bytes);

    let again = place.layers()?;
    let kept = place.open(&again, &digest)??;
    assert_eq!(count(&kept), count(&layer), "kept with its checkpoints");
    assert!(again.passes().is_empty());
    assert!(all(&kept)? == bytes);
    Ok(())
}

#[test]
fn indexing_ahead_waits_until_all_is_kept() -> TestResult {
    let place = Place::new()?;
    let bytes = layer_like(12 << 20, 41);
    let digest = place.put(&zstd_stream(&bytes, 1, 20))?;
    let layers = place.layers()?;
    let indexed = layers.index(&place.blob(&digest)?)?;
    assert!(!indexed.was_kept && indexed.took > Duration::ZERO);
    let count = indexed.toc.spans().checkpoints().list.len();
    assert!(
        count > 2,
        "{count} checkpoints: the search was not waited for"
    );
    assert!(layers.passes().is_empty());
    let kept = indexed.kept?;
    let path = place.toc_path(&digest)?;
    assert_eq!(kept.file_size, std::fs::metadata(&path)?.len());
    let summary = kept.summary?;
    assert_eq!(
        (summary.size, summary.compression),
        (bytes.len() as u64, Compression::Zstd)
    );

    // Evicted while it is in use: what is open goes on, and it is kept again.
    let layer = place.open(&layers, &digest)??;
    std::fs::remove_file(&path)?;
    assert!(all(&layer)? == bytes);
    let again = layers.index(&place.blob(&digest)?)?;
    assert!(!again.was_kept && again.took == Duration::ZERO, "{again:?}");
    assert_eq!(again.kept?.file_size, kept.file_size);

    // Another process finds all of it.
    let other = place.layers()?.index(&place.blob(&digest)?)?;
    assert!(other.was_kept);
    assert_eq!(other.toc.spans().checkpoints().list.len(), count);
    Ok(())
}

#[test]
fn why_a_toc_is_not_kept() -> TestResult {
    let place = Place::new()?;
    let digest = place.put(&gzip(&layer_like(100_000, 42), 6))?;
    let verdicts = || Arc::new(Verdicts::new(None));
    let index = |options: LayersOptions| -> TestResult<_> {
        let layers = Layers::new(options, verdicts());
        Ok(layers.index(&place.blob(&digest)?)?.kept.err())
    };
    let none = index(LayersOptions::default())?;
    assert!(matches!(none, Some(NotKept::NoCache)), "{none:?}");
    let small = index(LayersOptions {
        cache: Some(place.cache()?),
        cache_size: 100,
        ..LayersOptions::default()
    })?;
    assert!(
        matches!(small, Some(NotKept::TooLarge { limit: 100, .. })),
        "{small:?}"
    );
    // A directory with something in it in the file's place.
    std::fs::create_dir_all(place.toc_path(&digest)?.join("full"))?;
    let layers = place.layers()?;
    for _ in 0..2 {
        let indexed = layers.index(&place.blob(&digest)?)?;
        assert!(matches!(indexed.kept, Err(NotKept::Dir(_))), "{indexed:?}");
    }
    Ok(())
}

#[test]
fn indexing_a_damaged_layer_says_so() -> TestResult {
    let place = Place::new()?;
    let mut blob = gzip(&layer_like(100_000, 43), 6);
    let digest = Digest::of(&blob);
    blob[5000] ^= 1;
    std::fs::write(place.path(&digest), &blob)?;
    let layers = place.layers()?;
    for turn in ["first", "remembered"] {
        let error = layers.index(&place.blob(&digest)?).err().ok_or("indexed")?;
        assert_eq!(error.code(), "BLOB_DIGEST", "{turn}");
    }
    layers.shut_down();
    let error = layers.index(&place.blob(&digest)?).err().ok_or("indexed")?;
    assert_eq!(error.code(), "BLOB_DIGEST", "known without a pass");
    let good = place.put(&gzip(b"x", 6))?;
    let error = layers.index(&place.blob(&good)?).err().ok_or("indexed")?;
    assert!(matches!(error, Error::ShutDown), "{error}");
    Ok(())
}

/// A layer whose checkpoints need more than is read at once; and its bytes.
fn with_a_long_heap() -> Result<(Vec<u8>, Vec<u8>), Box<dyn std::error::Error>> {
    // All of it refers to all of the 32,000 bytes before.
    let mut random = Random(7);
    let noise: Vec<u8> = (0..32_000)
        .map(|_| (random.below(256) & 0xff) as u8)
        .collect();
    let mut bytes = tar_of(1, 3)?;
    bytes.extend_from_slice(&noise.repeat(3500));
    Ok((gzip(&bytes, 6), bytes))
}

#[test]
fn damage_to_a_checkpoint_costs_time_and_no_byte() -> TestResult {
    let place = Place::new()?;
    let (blob, bytes) = with_a_long_heap()?;
    let digest = place.put(&blob)?;
    drop(place.open(&place.layers()?, &digest)??);
    let path = place.toc_path(&digest)?;
    let good = std::fs::read(&path)?;
    assert!(good.len() > 600_000, "the heap is long: {}", good.len());
    type Damage = fn(&mut Vec<u8>);
    let rows: [(&str, Damage); 2] = [
        ("a byte", |file| {
            let middle = file.len() / 2;
            file[middle] ^= 1;
        }),
        ("zeros", |file| {
            let middle = file.len() / 2;
            file[middle / 2..middle].fill(0);
        }),
    ];
    for (name, damage) in rows {
        let mut bad = good.clone();
        damage(&mut bad);
        std::fs::write(&path, &bad)?;
        let layers = place.layers()?;
        let layer = place.open(&layers, &digest)??;
        assert!(std::fs::read(&path)? == bad, "{name}: not seen at once");
        assert!(all(&layer)? == bytes, "{name}");
        assert!(layer.toc().spans().is_damaged(), "{name}");
        let layer = place.open(&layers, &digest)??;
        assert!(!layer.toc().spans().is_damaged(), "{name}: made again");
        assert!(all(&layer)? == bytes, "{name}, later");
        assert!(std::fs::read(&path)? == good, "{name}");
        // Whoever makes the pass ahead of time looks at all of it.
        std::fs::write(&path, &bad)?;
        let layers = place.layers()?;
        let blob = place.blob(&digest)?;
        place.open(&layers, &digest)??;
        assert!(!layers.index(&blob)?.was_kept, "{name}");
        assert!(std::fs::read(&path)? == good, "{name}, by index");
    }
    Ok(())
}

#[test]
fn a_toc_that_is_cut_while_it_is_used_serves_on() -> TestResult {
    let place = Place::new()?;
    let (blob, bytes) = with_a_long_heap()?;
    let digest = place.put(&blob)?;
    drop(place.open(&place.layers()?, &digest)??);
    let layer = place.open(&place.layers()?, &digest)??;
    let file = File::options().write(true).open(place.toc_path(&digest)?)?;
    file.set_len(100_000)?;
    assert!(all(&layer)? == bytes);
    assert!(layer.toc().spans().is_damaged());
    Ok(())
}

#[test]
fn damaged_tocs_are_made_again() -> TestResult {
    let place = Place::new()?;
    let mut bytes = tar_of(1, 3)?;
    bytes.extend(layer_like(600_000, 5));
    let digest = place.put(&gzip(&bytes, 6))?;
    let first = place.open(&place.layers()?, &digest)??;
    let path = place.toc_path(&digest)?;
    let good = std::fs::read(&path)?;
    let Some(Ok(tree)) = first.toc().tree() else {
        return Err("no tree".into());
    };
    let tree_len = usize::try_from(tree.weight())?;
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        std::fs::write(&path, &bad)?;
        let layers = place.layers()?;
        let is_in_tree = at >= good.len() - tree_len;
        assert_eq!(layers.find(&digest).is_some(), is_in_tree, "damage at {at}");
        if is_in_tree || at % 5 == 0 {
            let layer = place.open(&layers, &digest)??;
            layers.tree(&layer)?;
            assert!(layer.toc() == first.toc(), "damage at {at}");
            assert!(all(&layer)? == bytes, "damage at {at}");
            assert!(std::fs::read(&path)? == good, "damage at {at}");
        }
    }
    Ok(())
}

#[test]
fn a_blob_overwritten_while_open_gives_an_error() -> TestResult {
    let place = Place::new()?;
    let bytes = layer_like(2 << 20, 6);
    let blob = gzip(&bytes, 6);
    let digest = place.put(&blob)?;
    let layer = place.open(&place.layers()?, &digest)??;
    overwrite(&place.path(&digest), &vec![0x55; blob.len()])?;
    let error = all(&layer).err().ok_or("read")?;
    assert_eq!(
        (error.code(), error.class()),
        ("SPAN_CHECK", ErrorClass::Mismatch)
    );
    std::fs::write(place.path(&digest), b"short")?;
    let error = all(&layer).err().ok_or("read")?;
    assert_eq!(error.class(), ErrorClass::Mismatch);
    Ok(())
}

fn overwrite(path: &Path, bytes: &[u8]) -> TestResult {
    use std::os::unix::fs::FileExt;
    let file = File::options().write(true).open(path)?;
    file.write_all_at(bytes, 0)?;
    Ok(())
}

#[test]
fn fifty_openers_make_one_pass() -> TestResult {
    let place = Place::new()?;
    let layers = place.layers()?;
    let digest = place.put(&gzip(&layer_like(4 << 20, 7), 6))?;
    let blobs: Vec<_> = (0..50)
        .map(|_| place.blob(&digest))
        .collect::<Result<_, _>>()?;
    let opened: Vec<_> = std::thread::scope(|scope| {
        let open = |blob| scope.spawn(|| layers.open(blob));
        let threads: Vec<_> = blobs.into_iter().map(open).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let toc = layers.find(&digest).ok_or("no Toc")?;
    for layer in opened {
        assert!(
            Arc::ptr_eq(layer?.toc(), &toc),
            "another pass made another Toc"
        );
    }
    Ok(())
}

#[test]
fn shutting_down_ends_waits() -> TestResult {
    let place = Place::new()?;
    let layers = place.layers()?;
    let digests: Vec<_> = (0..4)
        .map(|seed| place.put(&gzip(&layer_like(8 << 20, 8 + seed), 1)))
        .collect::<Result<_, _>>()?;
    let blobs: Vec<_> = digests
        .iter()
        .map(|digest| place.blob(digest))
        .collect::<Result<_, _>>()?;
    let results: Vec<_> = std::thread::scope(|scope| {
        let open = |blob| scope.spawn(|| layers.open(blob).map(drop));
        let threads: Vec<_> = blobs.into_iter().map(open).collect();
        while layers.passes().is_empty() {
            std::thread::yield_now();
        }
        layers.shut_down();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let ended = results
        .iter()
        .filter(|result| matches!(result, Err(Error::ShutDown)));
    assert!(ended.count() >= 2, "{results:?}");
    let after = place.open(&layers, &digests[3])?;
    assert!(matches!(after, Err(Error::ShutDown)), "{after:?}");
    Ok(())
}

#[test]
fn small_memory_is_enough() -> TestResult {
    let place = Place::new()?;
    let bytes = layer_like(1 << 20, 20);
    let digest = place.put(&gzip(&bytes, 6))?;
    for memory in [0, 1, 100_000, 300_000] {
        let options = LayersOptions {
            memory,
            ..LayersOptions::default()
        };
        let layers = Layers::new(options, Arc::new(Verdicts::new(None)));
        let layer = place.open(&layers, &digest)??;
        assert!(all(&layer)? == bytes, "memory {memory}");
    }
    Ok(())
}

/// A tar of files `0`, `1`, … in directories `0`, `1`, … that no entry names.
fn tar_of(directories: usize, files: usize) -> TestResult<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for at in 0..directories * files {
        let text = at.to_string();
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        let path = format!("{}/{}", at / files, at % files);
        tar.append_data(&mut header, path, text.as_bytes())?;
    }
    Ok(tar.into_inner()?)
}

#[test]
fn the_tree_comes_with_the_pass_and_back_from_the_cache() -> TestResult {
    let tar = tar_of(3, 5)?;
    let rows = [
        ("gzip", gzip(&tar, 6)),
        ("zstd", zstd(&tar, 3)),
        ("plain", tar.clone()),
    ];
    for (name, blob) in rows {
        let place = Place::new()?;
        let digest = place.put(&blob)?;
        let layers = place.layers()?;
        let layer = place.open(&layers, &digest)??;
        assert!(layer.toc().tree().is_some(), "{name}: made in the pass");
        layers.wait_idle();
        let other = place.layers()?;
        let again = place.open(&other, &digest)??;
        let tree = other.tree(&again)?;
        assert_eq!(tree, layers.tree(&layer)?, "{name}");
        let directory = tree.find(NodeId::ROOT, b"2").ok_or("no directory")?;
        let file = tree.find(directory, b"4").ok_or("no file")?;
        assert_eq!(tree.node(file).kind, Kind::File { size: 2 }, "{name}");
        let content = tree.content(file).ok_or("no content")?;
        let mut bytes = [0; 2];
        again.read_at(&mut bytes, TarOffset(content.data_offset))?;
        assert_eq!(&bytes, b"14", "{name}");
    }
    Ok(())
}

#[test]
fn a_tree_that_is_lost_is_made_again() -> TestResult {
    let place = Place::new()?;
    let digest = place.put(&gzip(&tar_of(3, 5)?, 6))?;
    let layers = place.layers()?;
    let tree = layers.tree(&*place.open(&layers, &digest)??)?;
    layers.wait_idle();

    let other = place.layers()?;
    let layer = place.open(&other, &digest)??;
    for kept in std::fs::read_dir(place.cache()?.shelf("toc")?.path())? {
        let path = kept?.path();
        let mut bytes = std::fs::read(&path)?;
        *bytes.last_mut().ok_or("empty")? ^= 1;
        std::fs::write(&path, bytes)?;
    }
    assert_eq!(other.tree(&layer)?, tree);
    Ok(())
}

#[test]
fn what_is_no_tar_is_readable_and_has_no_tree() -> TestResult {
    let place = Place::new()?;
    let bytes = layer_like(100_000, 3);
    let digest = place.put(&gzip(&gzip(&bytes, 6), 6))?;
    for is_known in [false, true] {
        let layers = place.layers()?;
        let layer = place.open(&layers, &digest)??;
        assert_eq!(all(&layer)?, gzip(&bytes, 6), "C13");
        let error = layers.tree(&layer).err().ok_or("a tree")?;
        assert_eq!(
            (error.code(), error.class()),
            ("TAR_CHECKSUM", ErrorClass::Malformed)
        );
        let found = layer.toc().tree();
        let from_cache = matches!(found, Some(Err(tree::Error::Known { .. })));
        assert_eq!(from_cache, is_known, "{found:?}");
        layers.wait_idle();
    }
    Ok(())
}
