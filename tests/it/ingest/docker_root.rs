//! Docker's own store: layers come back byte for byte, or are refused by name.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use ocifs::ingest::docker_root::{self, DockerRoot};
use ocifs::ingest::{Error, ErrorClass, Ingest, IngestOptions, Kind, Limits, Report};
use ocifs::oci::Digest;
use ocifs::oci::media_type::LayerCompression;
use ocifs::store::layout::refs::Collision;
use ocifs::store::layout::writer::Sharing;
use ocifs::store::{Layout, LayoutWriter, Verdicts};
use ocifs::stream;
use serde_json::{Value, json};

use super::super::common::{
    DockerStore, Fingerprint, Line, Random, StoredImage, Tarball, TestLayout, split, text_of,
    verify_layout,
};
use super::{TestResult, document, names, writer};

const ALL: [LayerCompression; 3] = [
    LayerCompression::None,
    LayerCompression::Gzip,
    LayerCompression::Zstd,
];

fn ingest(layout: &TestLayout) -> Ingest {
    Ingest::new(writer(layout.path()), IngestOptions::default())
}

/// Brings in images by their names.
fn import(
    ingest: &Ingest,
    store: &DockerStore,
    names: &[&str],
    compression: LayerCompression,
) -> Result<Report, Error> {
    let root = DockerRoot::open(store.path())?;
    let images: Result<Vec<_>, _> = names.iter().map(|name| root.image(name)).collect();
    let prepared = ingest.prepare_docker_images(&root, &images?, compression)?;
    ingest.commit(prepared, Collision::Refuse)
}

/// Sees that the only image of `layout` has the config and the layers of `stored`.
fn check_image(what: &str, layout: &TestLayout, stored: &StoredImage, tars: &[&[u8]]) {
    let entries = layout.entries();
    let manifest = document(layout, &entries[0]);
    let config = fs::read(layout.blob_path(&manifest["config"])).expect(what);
    assert_eq!(config, stored.config, "{what}: config");
    assert_eq!(manifest["config"]["digest"], json!(stored.id.as_str()));
    let layers = manifest["layers"].as_array().expect(what);
    assert_eq!(layers.len(), tars.len(), "{what}");
    for (number, (layer, tar)) in layers.iter().zip(tars).enumerate() {
        let blob = fs::read(layout.blob_path(layer)).expect(what);
        assert!(decoded(layer, &blob) == *tar, "{what}: layer {number}");
    }
}

fn decoded(layer: &Value, blob: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let media_type = layer["mediaType"].as_str().expect("it has one");
    let read = match media_type.rsplit_once('+') {
        Some((_, "gzip")) => flate2::read::MultiGzDecoder::new(blob).read_to_end(&mut bytes),
        Some((_, "zstd")) => zstd::Decoder::new(blob)
            .expect("a decoder can be made")
            .read_to_end(&mut bytes),
        _ => return blob.to_vec(),
    };
    read.expect("it can be decoded");
    bytes
}

fn golden_tars() -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut tars = Vec::new();
    for entry in fs::read_dir(dir).expect("it is there") {
        let path = entry.expect("an entry is readable").path();
        let name = path.file_name().expect("it has one").to_string_lossy();
        // Sparse files have a test of their own.
        let is_other = name.contains("sparse") || name.starts_with("fuzz-");
        if name.ends_with(".tar") && !is_other {
            tars.push((name.into_owned(), fs::read(&path).expect("it is readable")));
        }
    }
    assert!(tars.len() > 8, "few tars");
    tars.sort();
    tars
}

/// All that layers have, and long enough for several blocks.
fn rich() -> Vec<u8> {
    let mut noise = vec![0; 300 << 10];
    Random::of_seed(1).fill(&mut noise);
    let long = format!("deep/{}/x", "n".repeat(200));
    Tarball::new()
        .dir("./")
        .dir("etc/")
        .pax("SCHILY.xattr.user.k", "v")
        .file("./etc/motd", "hello\n")
        .link("etc/hard", "etc/motd")
        .file(&long, "far\n")
        .file(b"bad\xffname", "raw\n")
        .file("zeros", vec![0; 600 << 10])
        .file("noise", &noise)
        .file("empty", "")
        .symlink("link", "etc")
        .fifo("pipe")
        .device("etc/dev", 1, 3)
        .file("etc/.wh.gone", "")
        .file("etc/.wh..wh..opq", "")
        .finish()
}

#[test]
fn layers_come_back_byte_for_byte() -> TestResult {
    let (rich, empty) = (rich(), Tarball::new().finish());
    let cut = Tarball::new().file("a", "abc").finish_part();
    let trailing = [Tarball::new().file("b", "abc").finish(), vec![7; 20_000]].concat();
    let golden = golden_tars();
    let mut tars: Vec<&[u8]> = golden.iter().map(|(_, tar)| &tar[..]).collect();
    // The last layer is the first once more.
    tars.extend([&rich[..], &empty, &cut, &trailing, tars[0]]);
    let mut store = DockerStore::new();
    let stored = store.image(&tars);
    store.name("all:1", &stored.id);
    let mut manifests = Vec::new();
    for compression in ALL {
        let layout = TestLayout::new();
        let report = import(&ingest(&layout), &store, &["all:1"], compression)?;
        assert_eq!(report.kind, Kind::DockerStore);
        assert_eq!(report.images[0].name.as_deref(), Some("all:1"));
        verify_layout(layout.path());
        check_image(&format!("{compression:?}"), &layout, &stored, &tars);
        let again = import(&ingest(&layout), &store, &["all:1"], compression)?;
        assert!(
            again.blobs.iter().all(|blob| !blob.is_new),
            "the same bytes"
        );
        manifests.push(report.images[0].digest.clone());

        let other = TestLayout::new();
        let before = Fingerprint::of(other.path());
        let root = DockerRoot::open(store.path())?;
        let images = [root.image("all:1")?];
        let measured = ingest(&other).measure_docker_images(&root, &images, compression)?;
        assert_eq!(measured.images, report.images, "{compression:?}");
        let facts = |report: &Report| {
            let blobs = report.blobs.iter();
            let mut facts: Vec<_> = blobs.map(|b| (b.digest.to_string(), b.size)).collect();
            facts.sort();
            facts
        };
        assert_eq!(facts(&measured), facts(&report), "{compression:?}");
        assert_eq!(
            Fingerprint::of(other.path()),
            before,
            "it was to be measured"
        );
    }
    manifests.dedup();
    assert_eq!(manifests.len(), 3, "{manifests:?}");
    Ok(())
}

/// Docker unpacks through links within the layer, and its names are no better than those
/// of the tar.
#[test]
fn files_are_found_where_docker_unpacked_them() -> TestResult {
    let tar = Tarball::new()
        .file("usr/lib/a", "one")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr/lib")
        .file("lib/b", "two")
        .file("abs/c", "three")
        .file("/usr//x/../lib/./d", "four")
        .finish();
    let mut store = DockerStore::new();
    let mut lines = split(&tar);
    // What is written through the links is put there by hand.
    let mut moved = Vec::new();
    for line in &mut lines {
        let Line::Entry(name, bytes) = line else {
            continue;
        };
        let place = match &name[..] {
            b"lib/b" => &b"usr/lib/b"[..],
            b"abs/c" => b"usr/lib/c",
            b"/usr//x/../lib/./d" => b"usr/lib/d",
            _ => continue,
        };
        moved.push((place, bytes.clone()));
    }
    assert_eq!(moved.len(), 3);
    let stored = store.image_of(&[(lines, Digest::of(&tar))], &Value::Null);
    store.name("app:1", &stored.id);
    let layer = &stored.layers[0];
    for name in ["lib", "abs"] {
        fs::remove_dir_all(layer.files.join(name))?;
    }
    symlink("usr/lib", layer.files.join("lib"))?;
    symlink("/usr/lib", layer.files.join("abs"))?;
    for (place, bytes) in moved {
        fs::write(layer.file(place), bytes)?;
    }
    let layout = TestLayout::new();
    import(&ingest(&layout), &store, &["app:1"], LayerCompression::None)?;
    check_image("links", &layout, &stored, &[&tar]);
    Ok(())
}

/// tar-split has the whole file where the tar has its regions.
#[test]
fn sparse_members_are_made_again_where_their_map_is_known() -> TestResult {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (name, is_known) in [
        ("pax-sparse-0.0.tar", true),
        ("pax-sparse-0.1.tar", true),
        ("pax-sparse-1.0.tar", false),
    ] {
        let tar = fs::read(golden.join(name))?;
        let mut store = DockerStore::new();
        let lines = split_sparse(&tar);
        let stored = store.image_of(&[(lines, Digest::of(&tar))], &Value::Null);
        store.name("app:1", &stored.id);
        let layout = TestLayout::new();
        let imported = import(&ingest(&layout), &store, &["app:1"], LayerCompression::Gzip);
        match imported {
            Ok(_) => check_image(name, &layout, &stored, &[&tar]),
            Err(error) => assert_eq!(error.code(), "DOCKER_SPARSE_MAP", "{name}: {error}"),
        }
        assert_eq!(layout.entries().len(), usize::from(is_known), "{name}");
    }
    Ok(())
}

/// As Docker splits a tar with sparse files: it reads them with their holes, and what it
/// reads of a map in the data is lost.
fn split_sparse(tar: &[u8]) -> Vec<Line> {
    let mut parser = ocifs::tar::Parser::new(ocifs::tar::Limits::default());
    let mut files = Vec::new();
    let fed = parser.feed(tar, |entry| {
        if let ocifs::tar::Kind::File(content) = entry.kind {
            files.push((entry.path, content));
        }
        Ok::<(), ocifs::tar::Error>(())
    });
    fed.expect("it is a tar");
    let place = |offset: u64| usize::try_from(offset).expect("it is in memory");
    let mut lines = Vec::new();
    let mut at = 0;
    for (name, content) in files {
        let mut start = place(content.data_offset);
        let mut bytes = vec![0; place(content.size)];
        for (file_offset, tar_offset, len) in content.extents() {
            let (file, tar_offset) = (place(file_offset), place(tar_offset));
            bytes[file..][..place(len)].copy_from_slice(&tar[tar_offset..][..place(len)]);
        }
        let headers = &tar[at..start];
        if content.regions.is_some() && contains(headers, b"GNU.sparse.major=1") {
            let map = headers
                .chunks(512)
                .rposition(|block| block[0].is_ascii_digit());
            start = at + 512 * map.expect("the map is before the data");
        }
        lines.push(Line::Segment(tar[at..start].to_vec()));
        lines.push(Line::Entry(name, bytes));
        at = place(content.data_offset + content.stored_len);
    }
    lines.push(Line::Segment(tar[at..].to_vec()));
    lines
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn images_are_found_by_what_people_call_them() -> TestResult {
    let mut store = DockerStore::new();
    let layer = Tarball::new().file("a", "abc").finish();
    let image = |text: &str| {
        let lines = vec![(split(&layer), Digest::of(&layer))];
        store.image_of(&lines, &json!(text)).id
    };
    let (one, two) = (image("one"), image("two"));
    // One whose id begins as the first does.
    let close = (0..)
        .map(|number| image(&number.to_string()))
        .find(|id| id.encoded()[..1] == one.encoded()[..1] && *id != one);
    let close = close.ok_or("some id begins so")?;
    store.name("app:1", &one);
    store.name("app:latest", &two);
    store.name(&format!("app@{two}"), &two);
    store.name("localhost:5000/x/y:2", &two);
    let root = DockerRoot::open(store.path())?;
    let unique = |id: &Digest, other: &Digest| {
        let same = id.encoded().bytes().zip(other.encoded().bytes());
        let len = same.take_while(|(a, b)| a == b).count() + 6;
        id.encoded()[..len].to_owned()
    };
    let prefix = unique(&one, &close);
    type Found<'a> = Result<(&'a Digest, Option<&'a str>), &'a str>;
    let rows: [(&str, &str, Found<'_>); 14] = [
        ("tag", "app:1", Ok((&one, Some("app:1")))),
        ("latest", "app", Ok((&two, Some("app:latest")))),
        ("long", "docker.io/library/app:1", Ok((&one, Some("app:1")))),
        ("official", "library/app:1", Ok((&one, Some("app:1")))),
        ("digest", &format!("app@{two}"), Ok((&two, None))),
        (
            "registry",
            "localhost:5000/x/y:2",
            Ok((&two, Some("localhost:5000/x/y:2"))),
        ),
        ("id", one.as_str(), Ok((&one, None))),
        ("digits", one.encoded(), Ok((&one, None))),
        ("some digits", &prefix, Ok((&one, None))),
        (
            "some of an id",
            &format!("sha256:{prefix}"),
            Ok((&one, None)),
        ),
        ("too few digits", &one.encoded()[..1], Err("DOCKER_IMAGE")),
        ("no such tag", "app:2", Err("DOCKER_IMAGE")),
        ("no such id", &"f".repeat(64), Err("DOCKER_IMAGE")),
        ("a path", "../../repositories.json", Err("DOCKER_IMAGE")),
    ];
    for (name, called, expected) in rows {
        let found = root.image(called);
        let found = match &found {
            Ok(image) => Ok((&image.id, image.name.as_deref())),
            Err(error) => Err(error.code()),
        };
        assert_eq!(found, expected, "{name}: {called}");
    }
    let ambiguous = root.image(&one.encoded()[..1]);
    assert_eq!(
        ambiguous.map(drop).map_err(|e| e.class()),
        Err(ErrorClass::Invalid)
    );

    let listed = root.list()?;
    let named = listed.iter().filter(|image| !image.names.is_empty());
    let named: Vec<_> = named.map(|image| (&image.id, &image.names[..])).collect();
    let app = ["app:1".to_owned()];
    let both = ["app:latest".to_owned(), "localhost:5000/x/y:2".to_owned()];
    assert_eq!(named, [(&one, &app[..]), (&two, &both[..])]);
    assert_eq!(listed[1].digests, [format!("app@{two}")]);
    assert!(listed.iter().all(|image| matches!(image.size, Ok(3))));
    Ok(())
}

#[test]
fn several_images_share_their_layers() -> TestResult {
    let (base, top) = (rich(), Tarball::new().file("top", "abc").finish());
    let mut store = DockerStore::new();
    let (one, two) = (store.image(&[&base]), store.image(&[&base, &top]));
    store.name("one:1", &one.id);
    store.name("two:1", &two.id);
    let layout = TestLayout::new();
    let long = "docker.io/library/one:1";
    let called = ["one:1", "two:1", long, two.id.as_str()];
    let report = import(&ingest(&layout), &store, &called, LayerCompression::Zstd)?;
    // Two layers, two configs, two manifests.
    assert_eq!(report.images.len(), 3);
    assert_eq!(report.blobs.len(), 6);
    assert_eq!(names(&layout), ["one:1", "two:1", ""]);
    verify_layout(layout.path());

    // A name that is taken hinders all of them.
    let other = TestLayout::new();
    let image = other.image(&[]);
    other.add_ref("two:1", &image);
    let before = Fingerprint::of(other.path());
    let refused = import(&ingest(&other), &store, &called, LayerCompression::Zstd);
    assert_eq!(refused.map(drop).map_err(|e| e.code()), Err("REF_EXISTS"));
    assert_eq!(Fingerprint::of(other.path()), before);
    Ok(())
}

/// Also of what a directory has that the layout shares.
#[test]
fn a_measure_says_what_an_import_writes() -> TestResult {
    let mut store = DockerStore::new();
    let image = store.image(&[&rich()]);
    store.name("app:1", &image.id);
    let other = TestLayout::new();
    import(&ingest(&other), &store, &["app:1"], LayerCompression::Gzip)?;
    let shared = [other.path().join("blobs")];
    let new = |report: &Report| report.blobs.iter().filter(|blob| blob.is_new).count();
    for (sharing, expected) in [(Sharing::Refer, 0), (Sharing::Copy, 3)] {
        let layout = TestLayout::new();
        let opened = Layout::open(layout.path(), &shared)?;
        let writer = LayoutWriter::open(&opened, Arc::new(Verdicts::new(None)))?;
        let ingest = Ingest::new(writer.sharing(sharing), IngestOptions::default());
        let root = DockerRoot::open(store.path())?;
        let images = [root.image("app:1")?];
        let measured = ingest.measure_docker_images(&root, &images, LayerCompression::Gzip)?;
        assert_eq!(new(&measured), expected, "{sharing:?}");
        let report = import(&ingest, &store, &["app:1"], LayerCompression::Gzip)?;
        assert_eq!(new(&report), expected, "{sharing:?}");
    }
    Ok(())
}

#[test]
fn other_stores_are_told_apart() -> TestResult {
    let rows: [(&str, &[&str], &str); 5] = [
        ("empty", &[], "DOCKER_ROOT"),
        (
            "containerd",
            &["containerd/daemon", "volumes"],
            "DOCKER_CONTAINERD",
        ),
        (
            "containerd, started by another",
            &["rootfs/overlayfs"],
            "DOCKER_CONTAINERD",
        ),
        (
            "another driver",
            &["image/vfs/layerdb", "containerd"],
            "DOCKER_DRIVER",
        ),
        ("nothing but layers", &["overlay2/l"], "DOCKER_ROOT"),
    ];
    for (name, directories, expected) in rows {
        let dir = tempfile::tempdir()?;
        for directory in directories {
            fs::create_dir_all(dir.path().join(directory))?;
        }
        let opened = DockerRoot::open(dir.path());
        let code = opened.as_ref().map_err(docker_root::Error::code).err();
        assert_eq!(code, Some(expected), "{name}");
    }
    let missing = DockerRoot::open("/no/such/directory".as_ref());
    assert_eq!(
        missing.map_err(|e| e.class()).err(),
        Some(ErrorClass::Missing)
    );
    Ok(())
}

/// What somebody did to a store, and what must be said of it.
struct Row {
    name: &'static str,
    code: &'static str,
    class: ErrorClass,
    /// What the error names, besides the layer.
    names: &'static str,
    spoil: fn(&DockerStore, &StoredImage) -> TestResult,
}

const fn row(
    name: &'static str,
    code: &'static str,
    class: ErrorClass,
    names: &'static str,
    spoil: fn(&DockerStore, &StoredImage) -> TestResult,
) -> Row {
    Row {
        name,
        code,
        class,
        names,
        spoil,
    }
}

fn fifo(path: &Path) -> TestResult {
    fs::remove_file(path)?;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    Ok(rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        mode,
        0,
    )?)
}

/// A file outside of the layer with the right bytes, and a link to it in their place.
fn lead_out(store: &DockerStore, from: &Path, name: &str) -> TestResult {
    let outside = store.path().join("outside");
    fs::rename(from, &outside)?;
    Ok(symlink(outside, from.with_file_name(name))?)
}

fn repositories(store: &DockerStore) -> std::path::PathBuf {
    store.path().join("image/overlay2/repositories.json")
}

fn rows() -> Vec<Row> {
    use ErrorClass as C;
    vec![
        row(
            "other bytes",
            "DOCKER_FILE_CHANGED",
            C::Mismatch,
            "\"etc/motd\" has other bytes",
            |_, image| {
                Ok(fs::write(
                    image.layers[1].files.join("etc/motd"),
                    "hollo\n",
                )?)
            },
        ),
        row(
            "fewer bytes",
            "DOCKER_FILE_CHANGED",
            C::Mismatch,
            "\"etc/motd\" has another size",
            |_, image| Ok(fs::write(image.layers[1].files.join("etc/motd"), "hell")?),
        ),
        row(
            "more bytes",
            "DOCKER_FILE_CHANGED",
            C::Mismatch,
            "\"etc/motd\" has another size",
            |_, image| {
                Ok(fs::write(
                    image.layers[1].files.join("etc/motd"),
                    "hello\nyou\n",
                )?)
            },
        ),
        row(
            "gone",
            "DOCKER_FILE_CHANGED",
            C::Mismatch,
            "\"etc/motd\" is gone",
            |_, image| Ok(fs::remove_file(image.layers[1].files.join("etc/motd"))?),
        ),
        row(
            "a directory",
            "DOCKER_FILE_CHANGED",
            C::Mismatch,
            "\"etc/motd\" is no longer",
            |_, image| {
                let path = image.layers[1].files.join("etc/motd");
                fs::remove_file(&path)?;
                Ok(fs::create_dir(path)?)
            },
        ),
        row(
            "a pipe",
            "DOCKER_FILE_CHANGED",
            C::Mismatch,
            "\"etc/motd\" is no longer",
            |_, image| fifo(&image.layers[1].files.join("etc/motd")),
        ),
        row(
            "a link to the same bytes",
            "DOCKER_FILE_CHANGED",
            C::Mismatch,
            "\"etc/motd\" is no longer",
            |store, image| lead_out(store, &image.layers[1].files.join("etc/motd"), "motd"),
        ),
        row(
            "a directory that leads out",
            "DOCKER_FILE_CHANGED",
            C::Mismatch,
            "\"etc/motd\" is gone",
            |store, image| lead_out(store, &image.layers[1].files.join("etc"), "etc"),
        ),
        row(
            "a directory that climbs out",
            "DOCKER_FILE_CHANGED",
            C::Mismatch,
            "\"etc/motd\" is gone",
            |store, image| {
                let etc = image.layers[1].files.join("etc");
                fs::rename(&etc, store.path().join("outside"))?;
                Ok(symlink("../../../outside", etc)?)
            },
        ),
        row(
            "a loop of links",
            "DOCKER_FILE_CHANGED",
            C::Mismatch,
            "\"etc/motd\" is no longer",
            |_, image| {
                let etc = image.layers[1].files.join("etc");
                fs::remove_dir_all(&etc)?;
                Ok(symlink("etc", etc)?)
            },
        ),
        row(
            "the files of a layer that lead out",
            "DOCKER_STORE",
            C::Malformed,
            "is no directory",
            |store, image| lead_out(store, &image.layers[1].files, "diff"),
        ),
        row(
            "no files",
            "DOCKER_INCOMPLETE",
            C::Missing,
            "is not in Docker's store",
            |_, image| Ok(fs::remove_dir_all(&image.layers[1].files)?),
        ),
        row(
            "a name that climbs",
            "DOCKER_PATH",
            C::Malformed,
            "\"../../../outside\"",
            |store, image| {
                fs::write(store.path().join("outside"), "secret")?;
                let lines = [Line::Entry(
                    b"../../../outside".to_vec(),
                    b"secret".to_vec(),
                )];
                image.layers[1].write_lines(&text_of(&lines));
                Ok(())
            },
        ),
        row(
            "no tar-split data",
            "DOCKER_TAR_SPLIT_MISSING",
            C::Missing,
            "no tar-split data",
            |_, image| {
                Ok(fs::remove_file(
                    image.layers[1].data.join("tar-split.json.gz"),
                )?)
            },
        ),
        row(
            "tar-split data that is a pipe",
            "DOCKER_STORE",
            C::Malformed,
            "is no regular file",
            |_, image| fifo(&image.layers[1].data.join("tar-split.json.gz")),
        ),
        row(
            "tar-split data cut off",
            "DOCKER_TAR_SPLIT",
            C::Malformed,
            "is not right",
            |_, image| {
                let path = image.layers[1].data.join("tar-split.json.gz");
                let bytes = fs::read(&path)?;
                Ok(fs::write(path, &bytes[..bytes.len() / 2])?)
            },
        ),
        row(
            "tar-split data that is no gzip",
            "DOCKER_TAR_SPLIT",
            C::Malformed,
            "is not right",
            |_, image| {
                Ok(fs::write(
                    image.layers[1].data.join("tar-split.json.gz"),
                    "{}",
                )?)
            },
        ),
        row(
            "a line that makes no sense",
            "DOCKER_TAR_SPLIT",
            C::Malformed,
            "is not right",
            |_, image| {
                image.layers[1].write_lines(b"{\"type\":3}\n");
                Ok(())
            },
        ),
        row(
            "a line without end",
            "LIMIT_TAR_SPLIT",
            C::Limit,
            "is not right",
            |_, image| {
                image.layers[1].write_lines(&vec![b' '; (16 << 20) + 2]);
                Ok(())
            },
        ),
        row(
            "a file as large as may be",
            "LIMIT_DECODED_SIZE",
            C::Limit,
            "the limit of",
            |_, image| {
                let line = r#"{"type":1,"name":"etc/motd","size":9223372036854775807,"payload":"AAAAAAAAAAA="}"#;
                image.layers[1].write_lines(line.as_bytes());
                Ok(())
            },
        ),
        row(
            "an entry left out",
            "LAYER_DIFF_ID",
            C::Mismatch,
            "its tar has the digest",
            |_, image| {
                image.layers[1].write_lines(&text_of(&[Line::Segment(b"abc".to_vec())]));
                Ok(())
            },
        ),
        row(
            "no lines",
            "LAYER_DIFF_ID",
            C::Mismatch,
            "its tar has the digest",
            |_, image| {
                image.layers[1].write_lines(b"");
                Ok(())
            },
        ),
        row(
            "another DiffID",
            "DOCKER_STORE",
            C::Malformed,
            "diff has another DiffID",
            |_, image| {
                Ok(fs::write(
                    image.layers[1].data.join("diff"),
                    image.id.as_str(),
                )?)
            },
        ),
        row(
            "a cache id that is a path",
            "DOCKER_STORE",
            C::Malformed,
            "cache-id has no id",
            |_, image| {
                Ok(fs::write(
                    image.layers[1].data.join("cache-id"),
                    "../../outside",
                )?)
            },
        ),
        row(
            "no cache id",
            "DOCKER_READ",
            C::Missing,
            "cache-id",
            |_, image| Ok(fs::remove_file(image.layers[1].data.join("cache-id"))?),
        ),
        row(
            "a size that is none",
            "DOCKER_STORE",
            C::Malformed,
            "size has no number",
            |_, image| Ok(fs::write(image.layers[1].data.join("size"), "-1")?),
        ),
        row(
            "a large small file",
            "LIMIT_DOCKER_FILE",
            C::Limit,
            "diff has 5000 bytes",
            |_, image| {
                Ok(fs::write(
                    image.layers[1].data.join("diff"),
                    vec![b'a'; 5000],
                )?)
            },
        ),
        row(
            "no layer",
            "DOCKER_INCOMPLETE",
            C::Missing,
            "is not in Docker's store",
            |_, image| Ok(fs::remove_dir_all(&image.layers[1].data)?),
        ),
        row(
            "another config",
            "BLOB_DIGEST",
            C::Mismatch,
            "was changed in Docker's store",
            |store, image| {
                let path = format!(
                    "image/overlay2/imagedb/content/sha256/{}",
                    image.id.encoded()
                );
                Ok(fs::write(store.path().join(path), "{}")?)
            },
        ),
        row(
            "no config",
            "DOCKER_INCOMPLETE",
            C::Missing,
            "is named in Docker's store",
            |store, image| {
                let path = format!(
                    "image/overlay2/imagedb/content/sha256/{}",
                    image.id.encoded()
                );
                Ok(fs::remove_file(store.path().join(path))?)
            },
        ),
        row(
            "names that are none",
            "DOCKER_STORE",
            C::Malformed,
            "repositories.json has",
            |store, _| {
                Ok(fs::write(
                    repositories(store),
                    r#"{"Repositories":{"app":{"app:1":"../x"}}}"#,
                )?)
            },
        ),
        row(
            "a name twice",
            "JSON_DUPLICATE_KEY",
            C::Malformed,
            "repositories.json is not right",
            |store, _| {
                Ok(fs::write(
                    repositories(store),
                    r#"{"Repositories":{},"Repositories":{}}"#,
                )?)
            },
        ),
        row(
            "no names",
            "DOCKER_IMAGE",
            C::Missing,
            "Docker has no image",
            |store, _| Ok(fs::remove_file(repositories(store))?),
        ),
        row(
            "names elsewhere",
            "DOCKER_STORE",
            C::Malformed,
            "is no regular file",
            |store, _| lead_out(store, &repositories(store), "repositories.json"),
        ),
    ]
}

#[test]
fn what_was_changed_is_refused_and_changes_nothing() -> TestResult {
    let base = Tarball::new().file("base", "abc").finish();
    let tar = Tarball::new()
        .dir("etc")
        .file("etc/motd", "hello\n")
        .finish();
    let mut findings = Vec::new();
    for row in rows() {
        let layout = TestLayout::new();
        let before = Fingerprint::of(layout.path());
        let mut store = DockerStore::new();
        let image = store.image(&[&base, &tar]);
        store.name("app:1", &image.id);
        (row.spoil)(&store, &image)?;
        match import(&ingest(&layout), &store, &["app:1"], LayerCompression::Gzip) {
            Ok(_) => findings.push(format!("{}: it was taken", row.name)),
            Err(error) => {
                let text = error.to_string();
                let found = (error.code(), error.class());
                if found != (row.code, row.class) || !text.contains(row.names) {
                    findings.push(format!("{}: {found:?} {text}", row.name));
                }
            }
        }
        if Fingerprint::of(layout.path()) != before {
            findings.push(format!("{}: the layout changed", row.name));
        }
    }
    assert!(findings.is_empty(), "{findings:#?}");
    Ok(())
}

#[test]
fn limits_are_kept_to() -> TestResult {
    let (one, two) = (
        Tarball::new().file("a", vec![1; 3000]).finish(),
        Tarball::new().file("b", "abc").finish(),
    );
    let mut store = DockerStore::new();
    let image = store.image(&[&one, &two]);
    store.name("app:1", &image.id);
    let layout = TestLayout::new();
    let limited = |limits: Limits| {
        let options = IngestOptions {
            limits,
            ..IngestOptions::default()
        };
        let ingest = Ingest::new(writer(layout.path()), options);
        let imported = import(&ingest, &store, &["app:1"], LayerCompression::None);
        imported.map(drop).map_err(|error| error.code())
    };
    let blobs = |blobs| Limits {
        blobs,
        ..Limits::default()
    };
    assert_eq!(limited(blobs(3)), Err("LIMIT_IMPORT_BLOBS"));
    let decoded = |decoded_size| Limits {
        stream: stream::Limits {
            decoded_size,
            ..stream::Limits::default()
        },
        ..Limits::default()
    };
    assert_eq!(
        limited(decoded(one.len() as u64 - 1)),
        Err("LIMIT_DECODED_SIZE")
    );
    assert_eq!(limited(decoded(16 << 10)), Ok(()));
    assert_eq!(limited(blobs(4)), Ok(()));
    Ok(())
}
