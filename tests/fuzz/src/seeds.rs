//! Where fuzzing starts: what is in tests/golden, and what is made of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocifs::ingest::tar_split::Piece;
use ocifs::layer::{Layers, LayersOptions};
use ocifs::oci::Digest;
use ocifs::store::{Blob, CacheDir, Verdicts, verify};

use super::random::Random;
use super::{
    archive, deflate, documents, gzip, ingest, json, names, tar, tar_split, toc_file, zstd,
    zstd_checkpoints,
};

/// A parser, what must hold of it, and what it is tried on first.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What `scripts/fuzz` calls it.
    pub name: &'static str,
    /// Panics where an invariant does not hold.
    pub check: fn(&[u8]),
    seeds: fn(&Golden) -> io::Result<Vec<Vec<u8>>>,
}

/// All targets.
pub const TARGETS: [Target; 12] = [
    Target {
        name: "deflate",
        check: deflate::check,
        seeds: |_| deflated(),
    },
    Target {
        name: "gzip",
        check: gzip::check,
        seeds: |golden| golden.with_extension("gz"),
    },
    Target {
        name: "zstd",
        check: zstd::check,
        seeds: |golden| golden.with_extension("zst"),
    },
    Target {
        name: "zstd_checkpoints",
        check: zstd_checkpoints::check,
        seeds: |_| Ok(recipes()),
    },
    Target {
        name: "tar",
        check: tar::check,
        seeds: |golden| golden.with_extension("tar"),
    },
    Target {
        name: "toc_file",
        check: toc_file::check,
        seeds: Golden::tocs,
    },
    Target {
        name: "json",
        check: json::check,
        seeds: Golden::documents,
    },
    Target {
        name: "names",
        check: names::check,
        seeds: Golden::texts,
    },
    Target {
        name: "documents",
        check: documents::check,
        seeds: Golden::documents,
    },
    Target {
        name: "ingest",
        check: ingest::check,
        seeds: Golden::drops,
    },
    Target {
        name: "archive",
        check: archive::check,
        seeds: Golden::archives,
    },
    Target {
        name: "tar_split",
        check: tar_split::check,
        seeds: Golden::tar_splits,
    },
];

impl Target {
    /// What it starts with: golden files of its format, and inputs that were found, which
    /// are golden files named `fuzz-TARGET-...`.
    ///
    /// # Errors
    /// Those of reading `golden`.
    pub fn seeds(&self, golden: &Path) -> io::Result<Vec<Vec<u8>>> {
        let golden = Golden::read(golden)?;
        let mut seeds = (self.seeds)(&golden)?;
        let found = format!("fuzz-{}-", self.name);
        seeds.extend(golden.bytes(|name| name.starts_with(&found))?);
        Ok(seeds)
    }
}

/// The files of tests/golden, in order.
struct Golden {
    files: Vec<PathBuf>,
}

impl Golden {
    fn read(dir: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        let mut left = vec![dir.to_owned()];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(dir)? {
                let path = entry?.path();
                match path.is_dir() {
                    true => left.push(path),
                    false => files.push(path),
                }
            }
        }
        files.sort();
        Ok(Self { files })
    }

    fn bytes(&self, is_wanted: impl Fn(&str) -> bool) -> io::Result<Vec<Vec<u8>>> {
        let name = |path: &&PathBuf| {
            path.file_name()
                .is_some_and(|name| is_wanted(&name.to_string_lossy()))
        };
        self.files.iter().filter(name).map(fs::read).collect()
    }

    fn with_extension(&self, extension: &str) -> io::Result<Vec<Vec<u8>>> {
        let end = format!(".{extension}");
        self.bytes(|name| name.ends_with(&end) && !name.starts_with("fuzz-"))
    }

    /// Each JSON document once.
    fn documents(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut documents = self.bytes(|name| !name.starts_with("fuzz-"))?;
        documents.retain(|bytes| bytes.starts_with(b"{"));
        documents.sort();
        documents.dedup();
        Ok(documents)
    }

    /// Each text in a JSON document once, and what has no place in one.
    fn texts(&self) -> io::Result<Vec<Vec<u8>>> {
        let documents = self.documents()?;
        let quoted = documents
            .iter()
            .flat_map(|document| document.split(|byte| *byte == b'"'));
        let mut texts: Vec<_> = quoted.skip(1).step_by(2).map(<[u8]>::to_vec).collect();
        for text in [
            "linux/arm64/v8",
            "windows/amd64:10.0.1",
            "ghcr.io/org/app:1--2@x",
        ] {
            texts.push(text.into());
        }
        texts.push(format!("sha512:{}", "0a".repeat(64)).into_bytes());
        texts.sort();
        texts.dedup();
        Ok(texts)
    }

    /// Tars as Docker might keep them: a gap in the middle, under an odd name.
    fn tar_splits(&self) -> io::Result<Vec<Vec<u8>>> {
        let tars = self.with_extension("tar")?;
        let split = |tar: &Vec<u8>| {
            let (head, rest) = tar.split_at(tar.len().min(512));
            let pieces = [
                Piece::Segment(head.to_vec()),
                Piece::File {
                    name: head.iter().copied().take_while(|byte| *byte != 0).collect(),
                    size: rest.len() as u64 + 1,
                    crc: u64::MAX / 3,
                },
                Piece::Segment(rest[..rest.len().min(1024)].to_vec()),
            ];
            pieces.iter().flat_map(tar_split::written).collect()
        };
        let mut seeds: Vec<Vec<u8>> = tars.iter().map(split).collect();
        seeds.push(b"{\"type\":1,\"name\":\"./\",\"payload\":null,\"position\":1}\n".to_vec());
        Ok(seeds)
    }

    /// What may be dropped: archives and layers, also decoded, and documents.
    fn drops(&self) -> io::Result<Vec<Vec<u8>>> {
        let is_tar = |name: &str| !name.starts_with("fuzz-") && name.contains(".tar");
        let mut drops = self.bytes(is_tar)?;
        let archives = self.bytes(|name| name.ends_with("-archive.tar.gz"))?;
        for archive in archives {
            let mut decoded = Vec::new();
            flate2::read::MultiGzDecoder::new(&archive[..]).read_to_end(&mut decoded)?;
            drops.push(decoded);
        }
        drops.extend(self.documents()?);
        drops.push(b"notes\n".to_vec());
        Ok(drops)
    }

    /// Archives of both dialects: by tools, as they are and decoded, and one with everything
    /// that a member may be.
    fn archives(&self) -> io::Result<Vec<Vec<u8>>> {
        let found = self.bytes(|name| name.contains("-archive.tar") && !name.starts_with("fuzz-"));
        let mut archives = found?;
        for archive in archives.clone() {
            if archive.starts_with(b"\x1f\x8b") {
                let mut decoded = Vec::new();
                flate2::read::MultiGzDecoder::new(&archive[..]).read_to_end(&mut decoded)?;
                archives.push(::zstd::stream::encode_all(&decoded[..], 1)?);
                archives.push(decoded);
            }
        }
        archives.push(small_layout(b"plain"));
        archives.push(gzip_of(&small_layout(b"packed"))?);
        archives.push(small_docker(b"plain"));
        archives.push(gzip_of(&small_docker(b"packed"))?);
        Ok(archives)
    }

    /// The files of Tocs that are kept for compressed tars.
    fn tocs(&self) -> io::Result<Vec<Vec<u8>>> {
        let is_layer = |name: &str| {
            !name.starts_with("fuzz-")
                && (name.ends_with(".gz") || name.ends_with(".zst") || name == "v7.tar")
        };
        let mut blobs = self.bytes(is_layer)?;
        blobs.push(Vec::new());
        // Large enough for checkpoints, with a window or a dictionary.
        let lines = lines(9 << 20);
        blobs.push(gzip_of(&lines[..4 << 20])?);
        blobs.push(::zstd::stream::encode_all(&lines[..], 1)?);
        let tocs = blobs.iter().map(|blob| toc(blob));
        tocs.filter_map(Result::transpose).collect()
    }
}

/// A tar of these files and links, one of which is there twice.
fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, bytes) in files.iter().chain(files.first()) {
        let mut header = ::tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        let added = builder.append_data(&mut header, path, *bytes);
        added.expect("a vector takes all");
    }
    for (path, kind) in [
        ("link", ::tar::EntryType::Symlink),
        ("hard", ::tar::EntryType::Link),
        ("pipe", ::tar::EntryType::Fifo),
    ] {
        let mut header = ::tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(0);
        let added = match kind {
            ::tar::EntryType::Fifo => builder.append_data(&mut header, path, &[][..]),
            _ => builder.append_link(&mut header, path, "oci-layout"),
        };
        added.expect("a vector takes all");
    }
    builder.into_inner().expect("a vector takes all")
}

/// A layout with one blob, which is no manifest.
fn small_layout(blob: &[u8]) -> Vec<u8> {
    let digest = Digest::of(blob);
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"a/b","digest":"{digest}","size":{}}}]}}"#,
        blob.len()
    );
    tar_of(&[
        (&format!("blobs/sha256/{}", digest.encoded()), blob),
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", index.as_bytes()),
    ])
}

/// What `docker save` makes of an image with one layer.
fn small_docker(text: &[u8]) -> Vec<u8> {
    let layer = tar_of(&[("file", text)]);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        Digest::of(&layer)
    );
    let manifest = br#"[{"Config":"c.json","RepoTags":["app:1"],"Layers":["l.tar"]}]"#;
    tar_of(&[
        ("c.json", config.as_bytes()),
        ("l.tar", &layer),
        ("manifest.json", manifest),
    ])
}

/// Words that are repeated from near.
fn lines(len: usize) -> Vec<u8> {
    let mut random = Random::of_seed(1);
    let mut bytes = Vec::with_capacity(len + 200);
    while bytes.len() < len {
        let word = format!("{:x} ", random.next());
        bytes.extend(word.repeat(1 + word.len() % 8).into_bytes());
    }
    bytes
}

/// Streams of each kind of blocks, and of a few of them.
fn deflated() -> io::Result<Vec<Vec<u8>>> {
    use std::io::Write;
    let samples = [lines(60_000), lines(300), vec![0; 3000], Vec::new()];
    let kinds = [0, 1, 6, 9].map(flate2::Compression::new);
    let all = samples
        .iter()
        .flat_map(|sample| kinds.map(|kind| (sample, kind)));
    let stream = |(sample, kind): (&Vec<u8>, _)| {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), kind);
        for part in sample.chunks(20_000) {
            encoder.write_all(part)?;
            encoder.flush()?;
        }
        encoder.finish()
    };
    all.map(stream).collect()
}

fn gzip_of(bytes: &[u8]) -> io::Result<Vec<u8>> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// The file that is kept for a blob; none if it is damaged.
fn toc(blob: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let dir = tempfile::tempdir()?;
    let digest = Digest::of(blob);
    let path = dir.path().join("blob");
    fs::write(&path, blob)?;
    let cache = CacheDir::open(&dir.path().join("cache")).map_err(io::Error::other)?;
    let options = LayersOptions {
        cache: Some(cache.clone()),
        ..LayersOptions::default()
    };
    let layers = Layers::new(options, Arc::new(Verdicts::new(None)));
    let blob = Blob::new(digest.clone(), File::open(&path)?)?;
    if layers.open(Arc::new(blob)).is_err() {
        return Ok(None);
    }
    // Long frames get their checkpoints after the first opening.
    layers.wait_idle();
    let shelf = cache.shelf("toc").map_err(io::Error::other)?;
    fs::read(shelf.path().join(verify::file_name(&digest))).map(Some)
}

/// Recipes of which some make long frames of every level.
fn recipes() -> Vec<Vec<u8>> {
    let recipe = |seed: u64| {
        let mut random = Random::of_seed(seed);
        let len = random.within(100..1000);
        let mut recipe = vec![0; usize::try_from(len).expect("below 1000")];
        random.fill(&mut recipe);
        // Every second one without damage.
        if seed.is_multiple_of(2) {
            recipe[2] = 0;
        }
        recipe
    };
    (0..40).map(recipe).collect()
}
