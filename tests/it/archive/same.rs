//! The same tree from an archive as from the layout that it holds, or that it becomes when
//! it is brought into one.

use std::path::Path;

use ocifs::archive::Archive;
use ocifs::oci::Digest;
use ocifs::store::BlobSource;
use serde_json::{Value, json};

use super::super::common::{Compression, Need, Tarball, TestLayout, compress, has, run_ok, tar_of};
use super::super::ingest::{
    COMPRESSIONS, Way, docker_config, docker_manifest, import, members_of, oci_archive, tar,
};
use super::{Dump, Reader, Stored, TestResult, differences, dump_of, dump_of_path};

/// A layout with all kinds of images.
fn sample() -> TestLayout {
    let layout = TestLayout::new();
    let text = "some text that is not short\n".repeat(30_000);
    let layers = [
        layout.layer(
            Compression::Gzip,
            &[("etc/motd", b"hello\n"), ("old", b"1")],
        ),
        layout.layer(
            Compression::Zstd,
            &[(".wh.old", b""), ("text", text.as_bytes())],
        ),
        layout.layer(Compression::None, &[("usr/", b""), ("usr/file", b"plain")]),
    ];
    let image = layout.image_for("linux/amd64", &layers);
    layout.add_refs(["app:1", "ghcr.io/org/app:2"], &image);
    let other = layout.image_for("linux/s390x", &layers[..1]);
    let index = layout.image_index(&[image, other]);
    layout.add_ref("multi", &index);
    layout.add_ref(
        "notes",
        &layout.artifact("text/plain", "notes", b"hi\n", None),
    );
    layout
}

fn assert_same(name: &str, one: &Dump, other: &Dump) {
    assert!(one.len() > 10, "{name}: {one:?}");
    let differences = differences(one, other);
    assert!(differences.is_empty(), "{name}: {differences:#?}");
}

#[test]
fn a_layout_in_a_tar() -> TestResult {
    let layout = sample();
    let expected = dump_of_path(layout.path())?;
    let members = members_of(&layout);
    let reversed: Vec<_> = members.iter().rev().cloned().collect();
    let dotted = members
        .iter()
        .map(|(path, bytes)| (format!("./{path}"), bytes.clone()));
    let dotted: Vec<_> = dotted.collect();
    let mut more = members.clone();
    more.insert(0, ("README".into(), b"not an archive, it seems".to_vec()));
    more.push(("blobs/sha256/rubbish".into(), b"rubbish".to_vec()));
    more.push(("blobs/sha256/below/more".into(), b"rubbish".to_vec()));
    // What docker has written since version 25 is both; the layout says more.
    more.push((
        "manifest.json".into(),
        docker_manifest(&[("gone", json!(null), &[])]),
    ));
    let twice = [members.clone(), members.clone()].concat();
    let no_end = tar(&members);
    let no_end = no_end[..no_end.len() - 1024].to_vec();
    let directories = Tarball::new().dir("./").dir("blobs/").dir("blobs/sha256/");
    let rows = [
        ("sorted", tar(&members)),
        ("reversed", tar(&reversed)),
        ("dotted", tar(&dotted)),
        ("more in it", tar(&more)),
        ("all of it twice", tar(&twice)),
        ("no end", no_end),
        (
            "with directories",
            [directories.finish_part(), tar(&members)].concat(),
        ),
    ];
    for (name, bytes) in rows {
        assert_same(name, &dump_of(&bytes)?, &expected);
    }
    for compression in COMPRESSIONS {
        let bytes = compress(*compression, &tar(&reversed));
        assert_same(&format!("{compression:?}"), &dump_of(&bytes)?, &expected);
    }
    Ok(())
}

/// Layouts of real tools, right ones and damaged ones, packed by GNU tar.
#[test]
fn golden_layouts_by_gnu_tar() -> TestResult {
    if !has("golden_layouts_by_gnu_tar", &[Need::Tool("tar")]) {
        return Ok(());
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut seen = 0;
    for entry in std::fs::read_dir(golden)? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        let name = path.display().to_string();
        let bytes = run_ok("tar", &["-C", &name, "-cf", "-", "."]);
        match (dump_of_path(&path), dump_of(&bytes)) {
            (Ok(expected), Ok(found)) => assert_same(&name, &found, &expected),
            (Err(_), Err(_)) => {}
            (expected, found) => panic!("{name}: {expected:?} / {found:?}"),
        }
        seen += 1;
    }
    assert!(seen >= 10, "{seen}");
    Ok(())
}

/// The tree of `bytes` once they are brought into a layout, and a manifest digest of it.
fn dropped(name: &str, bytes: &[u8]) -> TestResult<(Dump, Vec<Value>)> {
    let layout = TestLayout::new();
    import(&layout, Way::File, name, bytes)?;
    Ok((dump_of_path(layout.path())?, layout.entries()))
}

/// Without the files that only a layout as a whole has: an index and a marker with the same
/// meaning may be written in other bytes.
fn images(mut dump: Dump) -> Dump {
    let of_the_whole = [".ocifs/layout/index.json", ".ocifs/layout/oci-layout"];
    dump.retain(|path, _| !of_the_whole.contains(&path.as_str()));
    dump
}

fn assert_as_dropped(name: &str, bytes: &[u8]) -> TestResult {
    let (expected, entries) = dropped("x.tar", bytes)?;
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let stored = Stored::new(&compress(compression, bytes))?;
        let reader = Reader::new();
        let archive: Archive = reader.archive(&stored.path())?;
        let index: Value = serde_json::from_slice(archive.view().bytes())?;
        assert_eq!(index["manifests"], Value::Array(entries.clone()), "{name}");
        let found = super::dump(&*reader.tree(&stored.path())?);
        let name = format!("{name}, {compression:?}");
        assert_same(&name, &images(found), &images(expected.clone()));
    }
    Ok(())
}

#[test]
fn archives_of_docker() -> TestResult {
    let layers = [
        tar_of(&[("a", b"1")]),
        tar_of(&[(".wh.a", b""), ("b", b"2")]),
    ];
    let config = docker_config(&[&layers[0], &layers[1]]);
    let other = docker_config(&[&layers[0]]);
    let hex = "0123456789abcdef".repeat(4);
    let old = format!("{hex}/layer.tar");
    let linked = format!("{}/layer.tar", "f".repeat(64));
    let two = json!(["app:1", "docker.io/library/app:2", "app:1"]);
    let plain = Tarball::new()
        .file(
            "manifest.json",
            docker_manifest(&[("c.json", two, &["0.tar", "1.tar"])]),
        )
        .file("0.tar", &layers[0])
        .file("1.tar", &layers[1])
        .file("c.json", &config)
        .finish();
    let gzip = compress(Compression::Gzip, &layers[0]);
    let zstd = compress(Compression::Zstd, &layers[1]);
    let compressed = Tarball::new()
        .file("0.tar.gz", gzip)
        .file("blobs/1", zstd)
        .file("sha256:x", &config)
        .file(
            "manifest.json",
            docker_manifest(&[("sha256:x", json!(["app:1"]), &["0.tar.gz", "blobs/1"])]),
        )
        .finish();
    let images = docker_manifest(&[
        ("c.json", json!(["app:1"]), &[&old, &linked]),
        ("d.json", json!(null), &["hard/layer.tar"]),
    ]);
    let links = Tarball::new()
        .file(&old, &layers[0])
        .file("second/layer.tar", &layers[1])
        .symlink(&linked, "../second/layer.tar")
        .link("hard/layer.tar", &old)
        .file("./c.json", &config)
        .file("d.json", &other)
        .file("manifest.json", images)
        .file("repositories", b"{}")
        .finish();
    for (name, bytes) in [
        ("plain", plain),
        ("compressed", compressed),
        ("links", links),
    ] {
        assert_as_dropped(name, &bytes)?;
    }
    Ok(())
}

#[test]
fn archives_by_skopeo() -> TestResult {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let oci = std::fs::read(golden.join("skopeo-oci-archive.tar"))?;
    assert_as_dropped("oci-archive", &oci)?;
    let mut docker = Vec::new();
    let packed = std::fs::File::open(golden.join("skopeo-docker-archive.tar.gz"))?;
    std::io::copy(&mut flate2::read::MultiGzDecoder::new(packed), &mut docker)?;
    assert_as_dropped("docker-archive", &docker)
}

/// A docker-archive whose only image has no name is shown by its digest.
#[test]
fn an_image_without_a_name() -> TestResult {
    let layer = tar_of(&[("a", b"1")]);
    let bytes = Tarball::new()
        .file(
            "manifest.json",
            docker_manifest(&[("c", json!([]), &["l"])]),
        )
        .file("c", docker_config(&[&layer]))
        .file("l", &layer)
        .finish();
    let stored = Stored::new(&bytes)?;
    let reader = Reader::new();
    let archive = reader.archive(&stored.path())?;
    let index: Value = serde_json::from_slice(archive.view().bytes())?;
    let digest = index["manifests"][0]["digest"]
        .as_str()
        .ok_or("no digest")?;
    let path = format!("{digest}/rootfs/a");
    assert!(
        reader
            .tree(&stored.path())?
            .resolve(path.as_bytes())
            .is_ok()
    );
    let blobs = archive.list_blobs("sha256")?;
    assert_eq!(blobs.len(), 3, "{blobs:?}");
    assert!(blobs.contains(&Digest::of(&layer)));
    assert_eq!(archive.list_algorithms()?, ["sha256"]);
    Ok(())
}

/// What a second process finds of a compressed archive: nothing is made again.
#[test]
fn what_was_learned_is_kept() -> TestResult {
    use std::os::unix::fs::MetadataExt;
    let layout = sample();
    let stored = Stored::new(&compress(Compression::Gzip, &oci_archive(&layout)))?;
    let cache = stored.dir.path().join("cache");
    let inodes = |shelf: &str| -> TestResult<Vec<u64>> {
        let entries = std::fs::read_dir(cache.join(shelf))?;
        let inodes = entries.map(|entry| Ok(entry?.metadata()?.ino()));
        let mut inodes = inodes.collect::<std::io::Result<Vec<u64>>>()?;
        inodes.sort_unstable();
        Ok(inodes)
    };
    Reader::keeping(&cache)?.archive(&stored.path())?;
    let (tables, archives) = (inodes("toc")?, inodes("archives")?);
    assert_eq!((tables.len(), archives.len()), (1, 1));
    let reader = Reader::keeping(&cache)?;
    let found = super::dump(&*reader.tree(&stored.path())?);
    assert_same("again", &found, &dump_of_path(layout.path())?);
    assert_eq!(inodes("archives")?, archives);
    assert!(inodes("toc")?.contains(&tables[0]), "made again");

    // Its members may be too many to be kept; all else is known.
    let file = cache.join("archives");
    let file = std::fs::read_dir(file)?.next().ok_or("no file")??.path();
    let kept: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let mut without = kept.clone();
    without["members"] = Value::Null;
    std::fs::write(&file, without.to_string())?;
    let reader = Reader::keeping(&cache)?;
    let found = super::dump(&*reader.tree(&stored.path())?);
    assert_same("without members", &found, &dump_of_path(layout.path())?);
    assert_eq!(std::fs::read(&file)?, without.to_string().into_bytes());

    // What is wrong with it is found out, and it is made again.
    let mut beyond = kept.clone();
    beyond["members"][0][3] = json!(1_u64 << 40);
    for wrong in [beyond.to_string(), "{}".to_owned(), String::new()] {
        std::fs::write(&file, &wrong)?;
        let reader = Reader::keeping(&cache)?;
        let found = super::dump(&*reader.tree(&stored.path())?);
        assert_same("made again", &found, &dump_of_path(layout.path())?);
        let again: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        assert_eq!(again, kept, "{wrong:.20}");
    }
    Ok(())
}
