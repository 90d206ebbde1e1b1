//! Archives by real tools, and real tools on what became of them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ocifs::ingest::Kind;
use serde_json::Value;

use super::super::common::{
    Compression, Need, TestLayout, compress, digest_of, has, run_ok, tar_of,
};
use super::{TestResult, WAYS, Way, document, import, names};

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An image as skopeo writes it into one of its transports.
fn by_skopeo(transport: &str, name: &str) -> Vec<u8> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/buildah-gzip");
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = dir.path().join("archive");
    let from = format!("oci:{}:app:1", golden.display());
    let to = format!("{transport}:{}{name}", file.display());
    run_ok("skopeo", &["copy", "-q", &from, &to]);
    fs::read(file).expect("skopeo has written it")
}

/// What skopeo and umoci do with an image that was brought in.
fn use_it(layout: &TestLayout, name: &str) {
    let image = format!("oci:{}:{name}", layout.path().display());
    run_ok("skopeo", &["inspect", &image]);
    let target = TestLayout::new();
    let to = format!("oci:{}:copy", target.path().display());
    run_ok("skopeo", &["copy", "-q", &image, &to]);
    let image = format!("{}:{name}", layout.path().display());
    run_ok("umoci", &["stat", "--image", &image]);
}

#[test]
fn golden_archives() -> TestResult {
    let rows = [
        ("skopeo-oci-archive.tar", Kind::OciArchive, "app:1"),
        (
            "skopeo-docker-archive.tar.gz",
            Kind::DockerArchive,
            "docker.io/library/app:1",
        ),
    ];
    for (file, kind, name) in rows {
        for way in WAYS {
            let layout = TestLayout::new();
            let report = import(&layout, way, file, &golden(file))?;
            assert_eq!(report.kind, kind, "{file}");
            assert_eq!(names(&layout), [name], "{file}");
        }
    }
    Ok(())
}

#[test]
fn golden_tars_are_layers() -> TestResult {
    let tars = [
        "bsdtar-pax.tar",
        "gnu-sparse.tar",
        "gzip-two-members.tar.gz",
        "pax-global.tar",
        "pax-sparse-1.0.tar",
        "pigz.tar.gz",
        "pzstd.tar.zst",
        "ustar-types.tar",
        "v7.tar",
        "zstd-two-frames.tar.zst",
    ];
    for file in tars {
        for way in WAYS {
            let layout = TestLayout::new();
            let report = import(&layout, way, file, &golden(file))?;
            assert_eq!(report.kind, Kind::Layer, "{file}");
        }
    }
    Ok(())
}

#[test]
fn archives_by_skopeo_and_back() -> TestResult {
    let needs = [Need::Tool("skopeo"), Need::Tool("umoci")];
    if !has("archives_by_skopeo_and_back", &needs) {
        return Ok(());
    }
    let rows = [
        ("oci-archive", ":app:1", "app:1"),
        ("oci-archive", "", "a-file"),
        (
            "docker-archive",
            ":docker.io/library/app:2",
            "docker.io/library/app:2",
        ),
        ("docker-archive", "", "a-file"),
    ];
    for (transport, suffix, name) in rows {
        let archive = by_skopeo(transport, suffix);
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let layout = TestLayout::new();
            let bytes = compress(compression, &archive);
            import(&layout, Way::Received, "a file.tar", &bytes)?;
            assert_eq!(names(&layout), [name], "{transport}{suffix}");
            use_it(&layout, name);
        }
    }
    Ok(())
}

/// The rootfs of a docker-archive is that of the image it was made of.
#[test]
fn umoci_unpacks_what_was_brought_in() -> TestResult {
    let needs = [Need::Tool("skopeo"), Need::Tool("umoci"), Need::Root];
    if !has("umoci_unpacks_what_was_brought_in", &needs) {
        return Ok(());
    }
    let layout = TestLayout::new();
    import(
        &layout,
        Way::File,
        "app",
        &by_skopeo("docker-archive", ":app:2"),
    )?;
    import(
        &layout,
        Way::File,
        "layer",
        &tar_of(&[("etc/motd", b"hello\n")]),
    )?;
    let dir = tempfile::tempdir()?;
    let unpack = |image: &str, to: &str| {
        let to = dir.path().join(to);
        let to_text = to.to_string_lossy().into_owned();
        run_ok("umoci", &["unpack", "--image", image, &to_text]);
        to.join("rootfs")
    };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/buildah-gzip");
    let name = layout.refs().remove(0).0;
    let brought_in = unpack(&format!("{}:{name}", layout.path().display()), "one");
    let original = unpack(&format!("{}:app:1", golden.display()), "two");
    let [one, two] = [&brought_in, &original].map(|path| path.to_string_lossy().into_owned());
    // It does not compare pipes, and devices only if they were made in the same second.
    let excluded = ["--exclude=fifo", "--exclude=null"];
    run_ok(
        "diff",
        &[
            "-r",
            "--no-dereference",
            excluded[0],
            excluded[1],
            &one,
            &two,
        ],
    );
    let special = |root: &Path, name: &str| -> std::io::Result<(u32, u64)> {
        let metadata = fs::symlink_metadata(root.join("etc").join(name))?;
        Ok((metadata.mode(), metadata.rdev()))
    };
    for name in ["fifo", "null"] {
        let both = [special(&brought_in, name)?, special(&original, name)?];
        assert_eq!(both[0], both[1], "{name}");
    }
    let layer = unpack(&format!("{}:layer", layout.path().display()), "three");
    assert_eq!(fs::read(layer.join("etc/motd"))?, b"hello\n");
    Ok(())
}

#[test]
fn skopeo_copies_artifacts_and_layers_onward() -> TestResult {
    let name = "skopeo_copies_artifacts_and_layers_onward";
    if !has(name, &[Need::Tool("skopeo"), Need::Tool("umoci")]) {
        return Ok(());
    }
    let layout = TestLayout::new();
    import(&layout, Way::File, "layer.tar", &tar_of(&[("a", b"1")]))?;
    use_it(&layout, "layer");
    import(&layout, Way::File, "notes.txt", b"hello\n")?;
    let image = format!("oci:{}:notes.txt", layout.path().display());
    let raw: Value = serde_json::from_slice(&run_ok("skopeo", &["inspect", "--raw", &image]))?;
    assert_eq!(raw, document(&layout, &layout.entries()[1]));
    let target = TestLayout::new();
    let to = format!("oci:{}:copy", target.path().display());
    run_ok("skopeo", &["copy", "-q", &image, &to]);
    let copied = document(&target, &target.entries()[0]);
    assert_eq!(
        digest_of(&copied["layers"][0]),
        digest_of(&raw["layers"][0])
    );
    Ok(())
}
