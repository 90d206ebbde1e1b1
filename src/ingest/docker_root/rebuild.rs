//! A layer's tar, put together from tar-split data and the files that Docker unpacked.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::directory::{Directory, Found};
use super::error::{Change, Error, shown};
use super::sink::{Made, Purpose, Sink};
use super::sparse::{Stored, Watch};
use super::{DockerRoot, StoredLayer, layer_path};
use crate::ingest::tar_split::{Crc64, MAX_LINE, Piece, Pieces};
use crate::ingest::{self, CHUNK, Ingest};
use crate::oci::DiffId;
use crate::store::Progress;
use crate::stream::{Compression, Encoder};
use crate::tar::Region;

/// How many bytes of tar-split data are decoded at a time.
const DECODED: usize = 64 << 10;

/// A layer that is being put together.
struct Rebuild<'a> {
    diff_id: &'a DiffId,
    files: Directory,
    encoder: Encoder<Sink>,
    ingest: &'a Ingest,
    progress: &'a dyn Progress,
    /// Set when another layer has failed.
    stop: &'a AtomicBool,
    watch: Watch,
    /// How many bytes of files were read.
    read: u64,
}

/// Why a layer was not put together.
#[derive(Debug)]
pub(super) enum Failure {
    Error(Box<ingest::Error>),
    /// Another layer has failed.
    Stopped,
}

impl<E: Into<ingest::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Error(Box::new(error.into()))
    }
}

/// Puts `layer` together, compresses it by `threads` threads, and compares its DiffID.
pub(super) fn rebuild(
    ingest: &Ingest,
    root: &DockerRoot,
    layer: &StoredLayer,
    (compression, threads, purpose): (Compression, usize, Purpose),
    stop: &AtomicBool,
) -> Result<Made, Failure> {
    let diff_id = &layer.diff_id;
    let path = format!("{}/tar-split.json.gz", layer_path(&layer.chain_id));
    let (tar_split, _) = root.directory.find_file(&path)?.ok_or_else(|| {
        let diff_id = diff_id.clone();
        Error::TarSplitMissing { diff_id }
    })?;
    let limits = &ingest.options.limits;
    // A line that is cut off here is none.
    let decoded = MultiGzDecoder::new(BufReader::new(tar_split)).take(limits.stream.decoded_size);
    let mut pieces = Pieces::new(BufReader::with_capacity(DECODED, decoded), MAX_LINE);
    let sink = Sink::new(ingest, purpose)?;
    let encoder = Encoder::new(sink, compression, threads);
    let mut rebuild = Rebuild {
        diff_id,
        files: root.files_of(layer)?,
        encoder: encoder.map_err(|source| Sink::error(ingest, source))?,
        ingest,
        progress: &*ingest.options.progress,
        stop,
        watch: Watch::new(limits.tar.clone()),
        read: 0,
    };
    loop {
        let piece = pieces.next_piece().map_err(|source| Error::TarSplit {
            diff_id: diff_id.clone(),
            source,
        })?;
        match piece {
            Some(piece) => rebuild.add(piece)?,
            None => return rebuild.finish(),
        }
    }
}

impl Rebuild<'_> {
    fn add(&mut self, piece: Piece) -> Result<(), Failure> {
        match piece {
            Piece::Segment(bytes) => {
                self.check_size(bytes.len() as u64)?;
                self.write(&bytes)?;
                self.watch.segment(bytes);
                self.check_stop()
            }
            Piece::File { name, size, crc } => self.file(&name, size, crc),
        }
    }

    fn finish(self) -> Result<Made, Failure> {
        let encoded = self.encoder.finish();
        let encoded = encoded.map_err(|source| Sink::error(self.ingest, source))?;
        let actual = DiffId(encoded.decoded_digest);
        if actual != *self.diff_id {
            let diff_id = self.diff_id.clone();
            return Err(Error::LayerChanged { diff_id, actual }.into());
        }
        Ok(encoded.sink.finish()?)
    }

    /// The bytes of a file, or those of its regions.
    fn file(&mut self, name: &[u8], size: u64, crc: u64) -> Result<(), Failure> {
        self.check_size(size)?;
        let regions = match self.watch.stored(size) {
            Stored::Whole => None,
            Stored::Regions(regions) => Some(regions),
            Stored::Unknown => {
                let (diff_id, path) = (self.diff_id.clone(), shown(name));
                return Err(Error::SparseMap { diff_id, path }.into());
            }
        };
        let file = self.open(name, size)?;
        let mut sum = Crc64::default();
        let whole = match regions {
            None => self.copy(&file, size, &mut sum),
            Some(regions) => self.copy_regions(&file, size, &regions, &mut sum),
        };
        match whole {
            Ok(()) if sum.finish() == crc => Ok(()),
            Ok(()) => Err(self.changed(name, Change::Content).into()),
            Err(Copying::Short) => Err(self.changed(name, Change::Size).into()),
            Err(Copying::Failure(failure)) => Err(failure),
            Err(Copying::Read(source)) => Err(Error::Io {
                action: "read",
                path: self.files.path_of(&shown(name)),
                source,
            }
            .into()),
        }
    }

    fn open(&self, name: &[u8], size: u64) -> Result<File, Error> {
        let path = beneath(name).ok_or_else(|| Error::PathEscapes {
            diff_id: self.diff_id.clone(),
            path: shown(name),
        })?;
        match self.files.find_in_layer(&path)? {
            Found::File(file, len) if len == size => Ok(file),
            Found::File(..) => Err(self.changed(name, Change::Size)),
            Found::Nothing => Err(self.changed(name, Change::Gone)),
            Found::SomethingElse => Err(self.changed(name, Change::Replaced)),
        }
    }

    fn copy(&mut self, file: &File, size: u64, sum: &mut Crc64) -> Result<(), Copying> {
        let mut at = 0;
        while at < size {
            self.check_stop()?;
            let room = self.encoder.room().map_err(Copying::write(self.ingest))?;
            let len = read(file, room, at, size)?;
            sum.update(&room[..len]);
            self.watch.feed(&room[..len]);
            self.encoder.advance(len);
            self.progress.advance(len as u64);
            at += len as u64;
        }
        Ok(())
    }

    /// The sum is that of the whole file, of which only the regions are in the tar.
    fn copy_regions(
        &mut self,
        file: &File,
        size: u64,
        regions: &[Region],
        sum: &mut Crc64,
    ) -> Result<(), Copying> {
        let mut buf = vec![0; CHUNK];
        let mut at = 0;
        while at < size {
            self.check_stop()?;
            let len = read(file, &mut buf, at, size)?;
            let bytes = &buf[..len];
            sum.update(bytes);
            for part in parts(bytes, at, regions) {
                self.watch.feed(part);
                self.write(part)?;
            }
            self.progress.advance(len as u64);
            at += len as u64;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.encoder.write_all(bytes);
        Ok(written.map_err(|source| Sink::error(self.ingest, source))?)
    }

    /// Sees that neither the tar nor what is read for it comes to more than is read back.
    fn check_size(&mut self, more: u64) -> Result<(), Error> {
        let limit = self.ingest.options.limits.stream.decoded_size;
        self.read = self.read.saturating_add(more);
        if self.read > limit {
            let diff_id = self.diff_id.clone();
            return Err(Error::LayerSize { diff_id, limit });
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<(), Failure> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Failure::Stopped),
            false => Ok(()),
        }
    }

    fn changed(&self, name: &[u8], change: Change) -> Error {
        Error::FileChanged {
            diff_id: self.diff_id.clone(),
            path: shown(name),
            change,
        }
    }
}

/// Why a file was not copied.
enum Copying {
    /// It ends before it should.
    Short,
    Read(io::Error),
    Failure(Failure),
}

impl Copying {
    fn write(ingest: &Ingest) -> impl Fn(io::Error) -> Self {
        |source| Self::Failure(Sink::error(ingest, source).into())
    }
}

impl From<Failure> for Copying {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Reads into `buf` what comes at `at` before `end`: at least a byte.
fn read(file: &File, buf: &mut [u8], at: u64, end: u64) -> Result<usize, Copying> {
    let len = crate::store::source::available(end, at, buf.len());
    loop {
        match file.read_at(&mut buf[..len], at) {
            Ok(0) => return Err(Copying::Short),
            Ok(len) => return Ok(len),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Copying::Read(error)),
        }
    }
}

/// Those parts of `bytes`, which are at `at` in a file, that are in its regions.
fn parts<'a>(bytes: &'a [u8], at: u64, regions: &[Region]) -> impl Iterator<Item = &'a [u8]> {
    let within = move |offset: u64| {
        let offset = offset.saturating_sub(at);
        usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()))
    };
    let part = move |region: &Region| {
        let end = region.file_offset.saturating_add(region.len);
        &bytes[within(region.file_offset)..within(end)]
    };
    // Regions are sorted: those before and behind give nothing.
    let end = at.saturating_add(bytes.len() as u64);
    let first =
        regions.partition_point(|region| region.file_offset.saturating_add(region.len) <= at);
    let last = regions.partition_point(|region| region.file_offset < end);
    let parts: Vec<&[u8]> = regions[first..last.max(first)].iter().map(part).collect();
    parts.into_iter()
}

/// A path of a tar as one below the root of its layer; `None` if it leads above. Docker
/// cleans names by their text alone.
fn beneath(name: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty() && !name.contains(&0)).then(|| parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_beneath_the_layer() {
        let rows: [(&str, Option<&str>); 12] = [
            ("etc/x", Some("etc/x")),
            ("./etc/x", Some("etc/x")),
            ("/etc/x", Some("etc/x")),
            ("etc//x/.", Some("etc/x")),
            ("a/../b", Some("b")),
            ("a/b/../../c", Some("c")),
            ("../etc/x", None),
            ("a/../../etc/x", None),
            ("..", None),
            (".", None),
            ("", None),
            ("a\0b", None),
        ];
        for (name, expected) in rows {
            let found = beneath(name.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{name:?}");
        }
    }

    #[test]
    fn parts_are_those_of_the_regions() {
        let region = |file_offset, len| Region { file_offset, len };
        let regions = [region(2, 3), region(7, 1), region(12, 4)];
        let rows: [(&str, u64, &str, &[&str]); 6] = [
            ("none before", 0, "ab", &[]),
            ("begin of one", 0, "abc", &["c"]),
            ("two", 0, "abcdefghij", &["cde", "h"]),
            ("end of one", 4, "ef", &["e"]),
            ("inside of one", 13, "no", &["no"]),
            ("none behind", 16, "qr", &[]),
        ];
        for (name, at, bytes, expected) in rows {
            let found: Vec<&[u8]> = parts(bytes.as_bytes(), at, &regions).collect();
            let expected: Vec<&[u8]> = expected.iter().map(|part| part.as_bytes()).collect();
            assert_eq!(found, expected, "{name}");
        }
    }
}
