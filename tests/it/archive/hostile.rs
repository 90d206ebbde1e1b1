//! Archives that are damaged, or made to deceive: refused with a clear error, or shown as
//! far as they are right, and never otherwise.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use ocifs::archive::ErrorClass;
use ocifs::store::{BlobSource, layout};
use ocifs::vfs::Patience;
use serde_json::{Value, json};

use super::super::common::{
    Compression, Tarball, TestLayout, compress, digest_of, extension, sum_block, tar_of,
};
use super::super::ingest::{
    Way, docker_config, docker_manifest, import, members_of, oci_archive, tar,
};
use super::{Dump, Reader, Stored, TestResult, code, dump_of, read};

/// Name, the archive, its stable code, its meaning.
type Row = (&'static str, Vec<u8>, &'static str, Option<ErrorClass>);

const MALFORMED: Option<ErrorClass> = Some(ErrorClass::Malformed);
const UNSUPPORTED: Option<ErrorClass> = Some(ErrorClass::Unsupported);
const MISSING: Option<ErrorClass> = Some(ErrorClass::Missing);
const LIMIT: Option<ErrorClass> = Some(ErrorClass::Limit);

fn image() -> TestLayout {
    let layout = TestLayout::new();
    let layers = [
        layout.layer(Compression::Gzip, &[("a", b"1")]),
        layout.layer(Compression::None, &[("b", b"2")]),
    ];
    layout.add_ref("app:1", &layout.image_for("linux/amd64", &layers));
    layout
}

/// An archive of docker with one layer, whose members `change` may change.
fn docker(change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
    let layer = tar_of(&[("a", b"1")]);
    let manifest = docker_manifest(&[("c.json", json!(["app:1"]), &["l.tar"])]);
    let mut members = vec![
        ("manifest.json".into(), manifest),
        ("c.json".into(), docker_config(&[&layer])),
        ("l.tar".into(), layer),
    ];
    change(&mut members);
    tar(&members)
}

/// The same with another manifest.
fn listed(config: &str, layers: &[&str]) -> Vec<u8> {
    let manifest = docker_manifest(&[(config, json!(["app:1"]), layers)]);
    docker(|members| members[0].1 = manifest)
}

fn layout_with(path: &str, bytes: &[u8]) -> Vec<u8> {
    let mut members = members_of(&image());
    members.retain(|(known, _)| known != path);
    members.push((path.to_owned(), bytes.to_vec()));
    tar(&members)
}

fn layout_and(path: &str, bytes: &[u8]) -> Vec<u8> {
    let mut members = members_of(&image());
    members.push((path.to_owned(), bytes.to_vec()));
    tar(&members)
}

fn of_no_archive() -> Vec<Row> {
    let zeros = vec![0; 10_240];
    let gzip = |bytes: &[u8]| compress(Compression::Gzip, bytes);
    let mut cut = gzip(&oci_archive(&image()));
    cut.truncate(cut.len() - 20);
    let mut bad_crc = gzip(&oci_archive(&image()));
    let end = bad_crc.len();
    bad_crc[end - 7] ^= 1;
    vec![
        ("empty", Vec::new(), "ARCHIVE_UNKNOWN", UNSUPPORTED),
        ("no entries", zeros, "ARCHIVE_UNKNOWN", UNSUPPORTED),
        ("a text", b"hello\n".repeat(200), "TAR_CHECKSUM", MALFORMED),
        (
            "a short text",
            b"hello\n".to_vec(),
            "TAR_TRUNCATED",
            MALFORMED,
        ),
        (
            "a layer",
            tar_of(&[("etc/motd", b"1")]),
            "ARCHIVE_UNKNOWN",
            UNSUPPORTED,
        ),
        (
            "a layer in gzip",
            gzip(&tar_of(&[("a", b"1")])),
            "ARCHIVE_UNKNOWN",
            UNSUPPORTED,
        ),
        (
            "a web application",
            tar_of(&[("manifest.json", b"{\"name\":\"app\"}")]),
            "ARCHIVE_UNKNOWN",
            UNSUPPORTED,
        ),
        (
            "xz",
            b"\xfd7zXZ\0and more of it".to_vec(),
            "COMPRESSION",
            UNSUPPORTED,
        ),
        ("C12 gzip cut short", cut, "STREAM_TRUNCATED", MALFORMED),
        ("C4 gzip with a wrong sum", bad_crc, "GZ_CRC", MALFORMED),
        (
            "C13 gzip in gzip",
            gzip(&gzip(&oci_archive(&image()))),
            "TAR_CHECKSUM",
            MALFORMED,
        ),
        (
            "C6 a bomb",
            compress(Compression::Zstd, &vec![0; 80 << 20]),
            "LIMIT_RATIO",
            LIMIT,
        ),
    ]
}

fn of_layouts() -> Vec<Row> {
    let index = |text: &str| layout_with("index.json", text.as_bytes());
    let marker = |text: &str| layout_with("oci-layout", text.as_bytes());
    let mut no_index = members_of(&image());
    no_index.retain(|(path, _)| path != "index.json");
    let long = vec![b' '; 70_000];
    vec![
        (
            "L21 another version",
            marker(r#"{"imageLayoutVersion":"2.0.0"}"#),
            "LAYOUT_VERSION",
            UNSUPPORTED,
        ),
        (
            "L21 a marker of no JSON",
            marker("{"),
            "JSON_SYNTAX",
            MALFORMED,
        ),
        (
            "L21 a huge marker",
            layout_with("oci-layout", &long),
            "LIMIT_LAYOUT_FILE_SIZE",
            LIMIT,
        ),
        (
            "L2 an index cut short",
            index(r#"{"schemaVersion":2,"#),
            "JSON_SYNTAX",
            MALFORMED,
        ),
        (
            "L1 an empty index",
            index(" \n"),
            "LAYOUT_FILE_EMPTY",
            MALFORMED,
        ),
        (
            "L4 a key twice",
            index(r#"{"manifests":[],"manifests":[]}"#),
            "JSON_DUPLICATE_KEY",
            MALFORMED,
        ),
        ("no index", tar(&no_index), "ARCHIVE_INCOMPLETE", MISSING),
        (
            "two different indexes",
            layout_and("index.json", b"{}"),
            "ARCHIVE_DUPLICATE",
            MALFORMED,
        ),
        (
            "two different markers",
            layout_and("./oci-layout", b"{}"),
            "ARCHIVE_DUPLICATE",
            MALFORMED,
        ),
        (
            "an index that is a link out",
            [
                Tarball::new()
                    .symlink("index.json", "../../etc/passwd")
                    .finish_part(),
                tar(&no_index),
            ]
            .concat(),
            "ARCHIVE_PATH",
            MALFORMED,
        ),
    ]
}

fn of_docker() -> Vec<Row> {
    let sparse = Tarball::new()
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.name", "l.tar")
        .pax("GNU.sparse.realsize", "1024")
        .file("x", [&b"1\n0\n512\n"[..], &[0; 504], &[7; 512]].concat())
        .finish_part();
    let without_layer = docker(|members| {
        members.pop();
    });
    let link = |target: &str| Tarball::new().symlink("l.tar", target).finish_part();
    let and = |part: Vec<u8>| [part, without_layer.clone()].concat();
    vec![
        (
            "T a manifest that points outside",
            listed("../../../etc/passwd", &["l.tar"]),
            "ARCHIVE_PATH",
            MALFORMED,
        ),
        (
            "an absolute config",
            listed("/etc/passwd", &["l.tar"]),
            "ARCHIVE_PATH",
            MALFORMED,
        ),
        (
            "a layer outside",
            listed("c.json", &["a/../../l.tar"]),
            "ARCHIVE_PATH",
            MALFORMED,
        ),
        (
            "no config",
            listed("gone.json", &["l.tar"]),
            "ARCHIVE_INCOMPLETE",
            MISSING,
        ),
        (
            "no layer",
            without_layer.clone(),
            "ARCHIVE_INCOMPLETE",
            MISSING,
        ),
        (
            "a layer too many",
            listed("c.json", &["l.tar", "l.tar"]),
            "CONFIG_LAYER_COUNT",
            MALFORMED,
        ),
        (
            "a config of no JSON",
            listed("l.tar", &["l.tar"]),
            "JSON_SYNTAX",
            MALFORMED,
        ),
        (
            "a layer by a link out",
            and(link("../l.tar")),
            "ARCHIVE_PATH",
            MALFORMED,
        ),
        (
            "a layer by an absolute link",
            and(link("/l.tar")),
            "ARCHIVE_PATH",
            MALFORMED,
        ),
        (
            "a layer by a loop",
            and(link("l.tar")),
            "ARCHIVE_LINK",
            MALFORMED,
        ),
        (
            "a layer that is a pipe",
            and(Tarball::new().fifo("l.tar").finish_part()),
            "ARCHIVE_FILE_TYPE",
            MALFORMED,
        ),
        (
            "T10' a layer with holes",
            and(sparse),
            "ARCHIVE_SPARSE",
            UNSUPPORTED,
        ),
        (
            "a layer twice",
            docker(|members| members.push(("./l.tar".into(), vec![1; 700]))),
            "ARCHIVE_DUPLICATE",
            MALFORMED,
        ),
        (
            "a manifest twice",
            docker(|members| members.push(("manifest.json".into(), b"[]".to_vec()))),
            "ARCHIVE_DUPLICATE",
            MALFORMED,
        ),
        (
            "a layer in xz",
            docker(|members| members[2].1 = b"\xfd7zXZ\0more".to_vec()),
            "COMPRESSION",
            UNSUPPORTED,
        ),
        (
            "no images",
            docker(|members| members[0].1 = br#"[{"Config":1,"Layers":[]}]"#.to_vec()),
            "DOCKER_MANIFEST",
            MALFORMED,
        ),
    ]
}

/// Headers that no right tool writes: what they do to layers they do to archives.
fn of_tars() -> Vec<Row> {
    let good = docker(|_| {});
    let before = |part: Vec<u8>| [part, good.clone()].concat();
    let mut claims = good[..512].to_vec();
    claims[124..136].copy_from_slice(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    sum_block(&mut claims);
    let mut sum = good.clone();
    sum[0] ^= 1;
    let path = |path: &[u8]| before(Tarball::new().file(path, b"").finish_part());
    vec![
        (
            "T32' a size beyond the file",
            before(claims),
            "TAR_TRUNCATED",
            MALFORMED,
        ),
        ("T14' a wrong sum", sum, "TAR_CHECKSUM", MALFORMED),
        (
            "T15' a lone block of zeros",
            before(vec![0; 512]),
            "TAR_ZERO_BLOCK",
            MALFORMED,
        ),
        (
            "T18' a long component",
            path(&[b'x'; 256]),
            "TAR_NAME_TOO_LONG",
            MALFORMED,
        ),
        (
            "T18' too deep",
            path(&b"a/".repeat(5_000)[..9_999]),
            "LIMIT_TAR_DEPTH",
            LIMIT,
        ),
        (
            "T4' a pax record without a newline",
            before(
                Tarball::new()
                    .raw(&extension(b'x', b"9 path=ab"))
                    .finish_part(),
            ),
            "TAR_PAX",
            MALFORMED,
        ),
        (
            "T23' a hard link out",
            before(Tarball::new().link("x", "../../etc/passwd").finish_part()),
            "TAR_LINK",
            MALFORMED,
        ),
    ]
}

#[test]
fn what_is_refused() -> TestResult {
    let rows = [of_no_archive(), of_layouts(), of_docker(), of_tars()];
    for (name, bytes, code, class) in rows.concat() {
        let stored = Stored::new(&bytes)?;
        let error = Reader::new().archive(&stored.path()).expect_err(name);
        assert_eq!(
            (error.code(), error.class()),
            (code, class),
            "{name}: {error}"
        );
        assert!(
            error.to_string().contains("archive"),
            "{name} names no file: {error}"
        );
        let names = fs::read_dir(stored.dir.path())?.count();
        assert_eq!(names, 1, "{name}: something was written");
        assert_eq!(fs::read(stored.path())?, bytes, "{name}");
    }
    Ok(())
}

#[test]
fn what_is_no_file() -> TestResult {
    let dir = tempfile::tempdir()?;
    let pipe = dir.path().join("archive");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU)?;
    let error = Reader::new().archive(&pipe).expect_err("a pipe");
    assert_eq!(error.code(), "ARCHIVE_FILE_TYPE");
    let error = Reader::new()
        .archive(&dir.path().join("gone"))
        .expect_err("nothing");
    assert_eq!(error.class(), None);
    Ok(())
}

/// Whatever is in `found` is so in `whole`, or is refused, or is not there.
fn assert_a_part(name: &str, found: &Dump, whole: &Dump) {
    for (path, said) in found {
        let is_so = whole.get(path) == Some(said);
        let is_refused = said.contains("refused: ");
        let is_directory = said.contains("Directory");
        assert!(
            is_so || is_refused || is_directory,
            "{name}: {path}: {said}"
        );
    }
}

#[test]
fn cut_at_every_block() -> TestResult {
    let rows = [
        ("layout", oci_archive(&image()), 2),
        ("docker", docker(|_| {}), 1),
    ];
    for (name, bytes, ends) in rows {
        let whole = dump_of(&bytes)?;
        let mut opened = 0;
        // The two blocks of the end are not needed.
        for cut in (0..bytes.len() - 1024).step_by(512) {
            for cut in [cut, cut + 1] {
                if let Ok(found) = dump_of(&bytes[..cut]) {
                    assert_a_part(&format!("{name}, {cut}"), &found, &whole);
                    opened += 1;
                }
            }
        }
        // A layout that lacks its last blobs is one, as a directory is.
        assert!(opened <= 2 * ends, "{name}: {opened}");
        let packed = compress(Compression::Gzip, &bytes);
        for cut in (0..packed.len()).step_by(512) {
            let found = dump_of(&packed[..cut]);
            assert!(found.is_err(), "{name} in gzip, cut at {cut}");
        }
    }
    Ok(())
}

/// One member that is not what its name or somebody else says of it.
#[test]
fn members_that_lie() -> TestResult {
    let layout = image();
    let [gzip, plain] = [0, 1].map(|number| layer_of(&layout, number));
    let path = |descriptor: &Value| {
        let digest = digest_of(descriptor);
        format!("blobs/sha256/{}", digest.encoded())
    };
    let bytes_of = |descriptor: &Value| fs::read(layout.blob_path(descriptor));
    let flipped = |descriptor: &Value| -> TestResult<Vec<u8>> {
        let mut bytes = bytes_of(descriptor)?;
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        Ok(bytes)
    };
    let other = tar_of(&[("a", b"2")]);
    let diff_id = docker(|members| members[2].1.clone_from(&other));
    let zipped = docker(|members| members[2].1 = compress(Compression::Gzip, &other));
    let twice = layout_and(&path(&gzip), &flipped(&gzip)?);
    let mut link = members_of(&layout);
    link.retain(|(known, _)| *known != path(&plain));
    let link = [
        Tarball::new()
            .symlink(path(&plain), "../../../x")
            .finish_part(),
        tar(&link),
    ]
    .concat();
    let rows = [
        (
            "B2 a flipped bit",
            layout_with(&path(&gzip), &flipped(&gzip)?),
            "layers/00.tar",
            "BLOB_DIGEST",
        ),
        (
            "B2 in a plain layer",
            layout_with(&path(&plain), &flipped(&plain)?),
            "layers/01.tar",
            "BLOB_DIGEST",
        ),
        (
            "B1 too short",
            layout_with(&path(&plain), &[0; 512]),
            "layers/01.tar",
            "BLOB_SIZE",
        ),
        (
            "twice, and different",
            twice,
            "layers/00.tar",
            "LAYOUT_FILE_TYPE",
        ),
        (
            "a link out of it",
            link,
            "layers/01.tar",
            "LAYOUT_FILE_TYPE",
        ),
        (
            "a layer that is not its DiffID",
            diff_id,
            "layers/00.tar",
            "BLOB_DIGEST",
        ),
        (
            "one that does not decode to it",
            zipped,
            "layers/00.tar",
            "LAYER_DIFF_ID",
        ),
    ];
    for (name, bytes, file, expected) in rows {
        for compression in [Compression::None, Compression::Zstd] {
            let stored = Stored::new(&compress(compression, &bytes))?;
            let reader = Reader::new();
            let tree = reader
                .tree(&stored.path())
                .map_err(|error| format!("{name}: {error}"))?;
            let node = tree.resolve(format!("app:1/{file}").as_bytes())?;
            let error = read(&*node).expect_err(name);
            assert_eq!(code(&error), expected, "{name}, {compression:?}: {error}");
            assert!(
                tree.resolve(b"app:1/config.json")?.open().is_ok(),
                "{name}: the rest"
            );
        }
    }
    Ok(())
}

/// What cannot be read in a blob's place is listed all the same: it is opening it that fails.
#[test]
fn what_is_no_file_in_the_place_of_a_blob() -> TestResult {
    let layout = image();
    let digest = digest_of(&layer_of(&layout, 1));
    let path = format!("blobs/sha256/{}", digest.encoded());
    let mut members = members_of(&layout);
    members.retain(|(known, _)| *known != path);
    let link = Tarball::new().symlink(path, "../../../x").finish_part();
    let stored = Stored::new(&[link, tar(&members)].concat())?;
    let reader = Reader::new();
    let archive = reader.archive(&stored.path())?;
    assert_eq!(archive.identify(&digest)?.size, 0);
    let error = archive.open_blob(&digest).expect_err("it is a link");
    assert!(matches!(error, layout::Error::FileType { .. }), "{error}");
    let tree = reader.tree(&stored.path())?;
    let blobs = tree.resolve(b".ocifs/layout/blobs/sha256")?.list()?;
    assert!(blobs.len() > 3, "{}", blobs.len());
    for child in blobs {
        child.node.attr(Patience::Wait)?;
    }
    Ok(())
}

fn layer_of(layout: &TestLayout, number: usize) -> Value {
    let manifest = fs::read(layout.blob_path(&layout.entries()[0])).expect("it is there");
    let manifest: Value = serde_json::from_slice(&manifest).expect("it is JSON");
    manifest["layers"][number].clone()
}

/// Thousands of images with one config of megabytes: it is read and parsed once.
#[test]
fn one_large_config_of_many_images() -> TestResult {
    let layer = tar_of(&[("a", b"1")]);
    let mut config: Value = serde_json::from_slice(&docker_config(&[&layer]))?;
    config["comment"] = json!("x".repeat(7 << 20));
    let images = vec![("c.json", json!(["app:1"]), &["l.tar"] as &[&str]); 2_000];
    let bytes = tar(&[
        ("manifest.json".into(), docker_manifest(&images)),
        ("c.json".into(), config.to_string().into_bytes()),
        ("l.tar".into(), layer),
    ]);
    let stored = Stored::new(&bytes)?;
    let begun = Instant::now();
    Reader::new().archive(&stored.path())?;
    let layout = TestLayout::new();
    import(&layout, Way::File, "x.tar", &bytes)?;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    Ok(())
}

/// A terabyte that begins like gzip, as the archive or as a layer of it, is not hashed.
#[test]
fn a_sparse_archive_of_a_terabyte() -> TestResult {
    const SIZE: u64 = 1 << 40;
    let manifest = docker_manifest(&[("c.json", json!(["app:1"]), &["l.tar"])]);
    let config = docker_config(&[b"x"]);
    let members = [
        ("manifest.json".into(), manifest),
        ("c.json".into(), config),
        ("l.tar".into(), Vec::new()),
    ];
    let mut plain = tar(&members);
    // The blocks of zeros at the end, and the header of the layer before.
    plain.truncate(plain.len() - 1024);
    let header = plain.len() - 512;
    set_size(&mut plain[header..], SIZE);
    plain.extend_from_slice(b"\x1f\x8b\x08");
    for (name, bytes) in [("archive", b"\x1f\x8b\x08".to_vec()), ("layer", plain)] {
        let stored = Stored::new(&bytes)?;
        let file = File::options().write(true).open(stored.path())?;
        if file.set_len((bytes.len() as u64 & !511) + SIZE).is_err() {
            // Not all file systems have files of that size.
            return Ok(());
        }
        let begun = Instant::now();
        let error = Reader::new().archive(&stored.path()).expect_err(name);
        assert_eq!(error.code(), "LIMIT_BLOB_SIZE", "{name}: {error}");
        assert_eq!(error.class(), LIMIT, "{name}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{name}");
    }
    Ok(())
}

/// Gives a header another size, which may be too large for octal digits.
fn set_size(header: &mut [u8], size: u64) {
    let mut field = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    field[4..].copy_from_slice(&size.to_be_bytes());
    header[124..136].copy_from_slice(&field);
    sum_block(header);
}

/// A terabyte in a member: neither read at opening, nor hashed for ever.
#[test]
fn a_sparse_member_of_a_terabyte() -> TestResult {
    const SIZE: u64 = 1 << 40;
    let layout = image();
    let mut layer = layer_of(&layout, 1);
    layer["size"] = json!(SIZE);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2,
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},
        "layers": [layer],
    });
    let manifest = layout.json("application/vnd.oci.image.manifest.v1+json", &manifest);
    layout.add_ref("huge", &manifest);
    let path = format!("blobs/sha256/{}", digest_of(&layer).encoded());
    let mut members = members_of(&layout);
    members.retain(|(known, _)| *known != path);
    let mut header = tar(&[(path, Vec::new())])[..512].to_vec();
    set_size(&mut header, SIZE);
    let stored = Stored::new(&header)?;
    let file = File::options().write(true).open(stored.path())?;
    if file.set_len(512 + SIZE).is_err() {
        // Not all file systems have files of that size.
        return Ok(());
    }
    file.write_all_at(&tar(&members), 512 + SIZE)?;
    let begun = Instant::now();
    let reader = Reader::new();
    let tree = reader.tree(&stored.path())?;
    let error = read(&*tree.resolve(b"huge/layers/00.tar")?).expect_err("it is too large");
    assert_eq!(code(&error), "LIMIT_BLOB_SIZE", "{error}");
    assert!(
        read(&*tree.resolve(b"app:1/layers/00.tar")?).is_ok(),
        "the rest"
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
    Ok(())
}
