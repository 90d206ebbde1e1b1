//! Archives of images: both dialects, in every compression and in odd shapes.

use ocifs::ingest::Kind;
use ocifs::oci::Digest;
use ocifs::store::layout::refs::Collision;
use serde_json::{Value, json};

use super::super::common::{Compression, Tarball, TestLayout, compress, digest_of, tar_of};
use super::{
    COMPRESSIONS, TestResult, WAYS, Way, docker_config, docker_manifest, document, import,
    import_over, members_of, names, oci_archive, tar,
};

/// A layout with an image `app:1`.
fn one_image() -> TestLayout {
    let layout = TestLayout::new();
    let layers = [
        layout.layer(Compression::Gzip, &[("etc/motd", b"hello\n")]),
        layout.layer(Compression::Zstd, &[("etc/.wh.motd", b"")]),
    ];
    layout.add_ref("app:1", &layout.image(&layers));
    layout
}

/// What `docker save` writes of one image with two layers.
fn docker_members(tags: Value) -> Vec<(String, Vec<u8>)> {
    let layers = [tar_of(&[("a", b"1")]), tar_of(&[("b", b"2")])];
    let config = docker_config(&[&layers[0], &layers[1]]);
    let config_path = format!("{}.json", Digest::of(&config).encoded());
    let paths = ["first.tar", "second.tar"];
    let manifest = docker_manifest(&[(&config_path, tags, &paths)]);
    let [first, second] = layers;
    vec![
        (config_path, config),
        ("first.tar".into(), first),
        ("second.tar".into(), second),
        ("manifest.json".into(), manifest),
        ("repositories".into(), b"{}".to_vec()),
    ]
}

#[test]
fn both_dialects_in_every_compression() -> TestResult {
    let source = one_image();
    let oci = oci_archive(&source);
    let docker = tar(&docker_members(json!(["docker.io/library/app:2"])));
    let rows = [
        ("layout", &oci, Kind::OciArchive, "app:1"),
        (
            "docker",
            &docker,
            Kind::DockerArchive,
            "docker.io/library/app:2",
        ),
    ];
    for (name, archive, kind, expected) in rows {
        let mut digests = Vec::new();
        for compression in COMPRESSIONS {
            for way in WAYS {
                let layout = TestLayout::new();
                let bytes = compress(*compression, archive);
                let report = import(&layout, way, "x.bin", &bytes)?;
                assert_eq!(report.kind, kind, "{name} {compression:?} {way:?}");
                assert_eq!(names(&layout), [expected], "{name} {compression:?} {way:?}");
                assert!(report.blobs.iter().all(|blob| blob.is_new), "{name}");
                digests.push(report.images[0].digest.clone());
                let again = import(&layout, way, "y", &bytes)?;
                assert!(again.blobs.iter().all(|blob| !blob.is_new), "{name}");
                assert_eq!(names(&layout), [expected], "{name}: once more");
            }
        }
        digests.dedup();
        assert_eq!(digests.len(), 1, "{name}: {digests:?}");
    }
    Ok(())
}

/// The order of members means nothing; neither does `./` before them, nor what else is in
/// the archive and not named by it.
#[test]
fn odd_shapes_of_a_layout() -> TestResult {
    let source = one_image();
    let members = members_of(&source);
    let reversed: Vec<_> = members.iter().rev().cloned().collect();
    let dotted: Vec<_> = members
        .iter()
        .map(|(path, bytes)| (format!("./{path}"), bytes.clone()))
        .collect();
    let mut more = members.clone();
    more.insert(0, ("README".into(), b"not an archive, it seems".to_vec()));
    more.push(("blobs/sha256/rubbish".into(), b"rubbish".to_vec()));
    more.push(("index.json.lock".into(), Vec::new()));
    let mut twice = members.clone();
    twice.extend(members.clone());
    let rows = [
        ("reversed", tar(&reversed)),
        ("dotted", tar(&dotted)),
        ("more in it", tar(&more)),
        ("all of it twice", tar(&twice)),
        (
            "no end",
            tar(&members)[..tar(&members).len() - 1024].to_vec(),
        ),
        (
            "with directories",
            [
                Tarball::new()
                    .dir("./")
                    .dir("blobs/")
                    .dir("blobs/sha256/")
                    .finish_part(),
                tar(&members),
            ]
            .concat(),
        ),
    ];
    for (name, bytes) in rows {
        for way in WAYS {
            let layout = TestLayout::new();
            let report = import(&layout, way, "x", &bytes).map_err(|e| format!("{name}: {e}"))?;
            assert_eq!(report.kind, Kind::OciArchive, "{name}");
            assert_eq!(layout.refs(), source.refs(), "{name}");
            assert_eq!(report.blobs.len(), 4, "{name}: no more than is named");
        }
    }
    Ok(())
}

#[test]
fn entries_keep_their_names() -> TestResult {
    let source = one_image();
    let image = source.entries()[0].clone();
    let mut bare = image.clone();
    bare.as_object_mut()
        .ok_or("an object")?
        .remove("annotations");
    let named = |name: &str| {
        let mut entry = bare.clone();
        entry["annotations"]["org.opencontainers.image.ref.name"] = json!(name);
        entry
    };
    let mut full = named("1");
    full["annotations"]["io.containerd.image.name"] = json!("docker.io/library/app:1");
    let rows: Vec<(&str, Vec<Value>, Vec<&str>)> = vec![
        ("one without a name", vec![bare.clone()], vec!["my-app"]),
        ("one with a name", vec![named("app:1")], vec!["app:1"]),
        (
            "one with an odd name",
            vec![named("a b%/..")],
            vec!["a b%/.."],
        ),
        (
            "a full name",
            vec![full.clone()],
            vec!["docker.io/library/app:1"],
        ),
        ("two names", vec![named("a"), named("b")], vec!["a", "b"]),
        (
            "one of two without a name",
            vec![named("a"), bare.clone()],
            vec!["a", ""],
        ),
    ];
    for (name, entries, expected) in rows {
        source.write_entries(&entries);
        let layout = TestLayout::new();
        let report = import(&layout, Way::File, "my app.tar", &oci_archive(&source))?;
        let shown = report.images.iter().map(|image| image.name.as_deref());
        let shown: Vec<&str> = shown.map(Option::unwrap_or_default).collect();
        assert_eq!(shown, expected, "{name}");
        assert_eq!(layout.entries().len(), expected.len(), "{name}");
    }
    Ok(())
}

#[test]
fn indexes_and_what_they_lead_to() -> TestResult {
    let source = TestLayout::new();
    let layers = [source.layer(Compression::Gzip, &[("a", b"1")])];
    let arm = source.image_for("linux/arm64/v8", &layers);
    let amd = source.image_for("linux/amd64", &layers);
    let nested = source.image_index(std::slice::from_ref(&arm));
    let attestation = source.attestation(&amd);
    source.add_ref("multi", &source.image_index(&[amd, nested, attestation]));
    let layout = TestLayout::new();
    let report = import(&layout, Way::Received, "x", &oci_archive(&source))?;
    assert_eq!(names(&layout), ["multi"]);
    assert_eq!(report.blobs.len(), members_of(&source).len() - 2);
    Ok(())
}

/// Docker saves an image of several platforms that was pulled for one so.
#[test]
fn an_index_may_lack_images_while_one_is_whole() -> TestResult {
    let source = TestLayout::new();
    let layers = [source.layer(Compression::Gzip, &[("a", b"1")])];
    let amd = source.image_for("linux/amd64", &layers);
    let other = [source.layer(Compression::Gzip, &[("b", b"2")])];
    let arm = source.image_for("linux/arm64/v8", &other);
    source.add_ref("multi", &source.image_index(&[amd.clone(), arm.clone()]));
    let without = |missing: &[&Value]| {
        let paths = missing
            .iter()
            .map(|d| format!("blobs/sha256/{}", digest_of(d).encoded()));
        let paths: Vec<String> = paths.collect();
        let mut members = members_of(&source);
        members.retain(|(path, _)| !paths.contains(path));
        tar(&members)
    };
    let options = || ocifs::ingest::IngestOptions::default();
    let layer = &other[0].descriptor;
    let rows: [(&str, Vec<u8>, bool); 4] = [
        ("an image is missing", without(&[&arm, layer]), true),
        ("its layer is missing", without(&[layer]), true),
        ("both images are missing", without(&[&arm, &amd]), false),
        (
            "the other's layer is missing too",
            without(&[layer, &layers[0].descriptor]),
            false,
        ),
    ];
    for (name, bytes, is_taken) in rows {
        for way in WAYS {
            let layout = TestLayout::new();
            let prepared = super::prepare(&layout, options(), way, "x", &bytes);
            let code = prepared.as_ref().err().map(ocifs::ingest::Error::code);
            let expected = (!is_taken).then_some("COMMIT_INCOMPLETE");
            assert_eq!(code, expected, "{name}, {way:?}");
        }
    }
    Ok(())
}

/// An archive that holds only what the layout lacks.
#[test]
fn blobs_of_the_layout_count() -> TestResult {
    let source = one_image();
    let manifest = document(&source, &source.entries()[0]);
    let layer = &manifest["layers"][0];
    let layout = TestLayout::new();
    let bytes = std::fs::read(source.blob_path(layer))?;
    layout.blob("application/octet-stream", &bytes);
    let mut members = members_of(&source);
    members.retain(|(path, _)| !path.ends_with(digest_of(layer).encoded()));
    let report = import(&layout, Way::Received, "x", &tar(&members))?;
    assert_eq!(layout.refs(), source.refs());
    let old: Vec<_> = report.blobs.iter().filter(|blob| !blob.is_new).collect();
    assert_eq!(old.len(), 1);
    assert_eq!(old[0].digest, digest_of(layer));
    Ok(())
}

#[test]
fn docker_images_get_oci_manifests() -> TestResult {
    let members = docker_members(json!(["app:1", "app:latest", "app:1"]));
    let layout = TestLayout::new();
    import(&layout, Way::Received, "x.tar", &tar(&members))?;
    assert_eq!(names(&layout), ["app:1", "app:latest"]);
    let entry = &layout.entries()[0];
    assert_eq!(
        entry["mediaType"],
        "application/vnd.oci.image.manifest.v1+json"
    );
    let manifest = document(&layout, entry);
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.oci.image.config.v1+json"
    );
    assert_eq!(digest_of(&manifest["config"]), Digest::of(&members[0].1));
    for (at, layer) in [1, 2]
        .into_iter()
        .zip(manifest["layers"].as_array().ok_or("layers")?)
    {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar");
        assert_eq!(digest_of(layer), Digest::of(&members[at].1));
    }
    Ok(())
}

#[test]
fn docker_images_without_tags() -> TestResult {
    let one = tar(&docker_members(Value::Null));
    let layout = TestLayout::new();
    import(&layout, Way::File, "my app.tar.gz", &one)?;
    assert_eq!(names(&layout), ["my-app"]);
    let mut members = docker_members(Value::Null);
    let config = members[0].0.clone();
    let first: (&str, Value, &[&str]) = (&config, json!([]), &["first.tar", "second.tar"]);
    let second: (&str, Value, &[&str]) = (
        &config,
        json!(["<none>:<none>", ""]),
        &["first.tar", "second.tar"],
    );
    members[3].1 = docker_manifest(&[first, second]);
    let layout = TestLayout::new();
    import(&layout, Way::File, "x", &tar(&members))?;
    assert_eq!(names(&layout), [""], "no name, and the same image twice");
    Ok(())
}

/// As docker wrote them until version 25: a directory for each layer, and links instead of
/// a layer that another image has.
#[test]
fn old_docker_archives() -> TestResult {
    let layer = tar_of(&[("a", b"1")]);
    let config = docker_config(&[&layer, &layer]);
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    let config_path = format!("{}.json", Digest::of(&config).encoded());
    let paths = [format!("{one}/layer.tar"), format!("{two}/layer.tar")];
    let paths = [paths[0].as_str(), paths[1].as_str()];
    let manifest = docker_manifest(&[(&config_path, json!(["app:1"]), &paths)]);
    let start = || {
        Tarball::new()
            .dir(format!("{one}/"))
            .file(format!("{one}/VERSION"), "1.0")
            .file(format!("{one}/json"), "{}")
            .file(format!("{one}/layer.tar"), &layer)
            .dir(format!("{two}/"))
            .file(format!("{two}/VERSION"), "1.0")
    };
    let end = |tarball: Tarball| {
        tarball
            .file(&config_path, &config)
            .file("manifest.json", &manifest)
            .file("repositories", "{}")
            .finish()
    };
    let target = format!("{one}/layer.tar");
    let rows = [
        (
            "symlink",
            end(start().symlink(format!("{two}/layer.tar"), format!("../{target}"))),
        ),
        (
            "hard link",
            end(start().link(format!("{two}/layer.tar"), &target)),
        ),
        (
            "a copy",
            end(start().file(format!("{two}/layer.tar"), &layer)),
        ),
    ];
    for (name, bytes) in rows {
        for way in WAYS {
            let layout = TestLayout::new();
            let report = import(&layout, way, "x", &bytes).map_err(|e| format!("{name}: {e}"))?;
            assert_eq!(report.kind, Kind::DockerArchive, "{name}");
            let manifest = document(&layout, &layout.entries()[0]);
            assert_eq!(manifest["layers"][0], manifest["layers"][1], "{name}");
            assert_eq!(report.blobs.len(), 3, "{name}");
        }
    }
    Ok(())
}

/// As docker writes them since version 25, and BuildKit: one archive for both readers.
#[test]
fn hybrids_are_read_as_layouts() -> TestResult {
    let source = one_image();
    let image = source.entries().remove(0);
    source.write_entries(&[]);
    source.add_containerd_ref("docker.io/library/app:1", "1", &image);
    let manifest = document(&source, &image);
    let path = |descriptor: &Value| format!("blobs/sha256/{}", digest_of(descriptor).encoded());
    let layers: Vec<String> = [0, 1].map(|n| path(&manifest["layers"][n])).to_vec();
    let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
    let mut members = members_of(&source);
    let docker = docker_manifest(&[(&path(&manifest["config"]), json!(["app:1"]), &layers)]);
    members.push(("manifest.json".into(), docker));
    members.push(("repositories".into(), b"{}".to_vec()));
    let layout = TestLayout::new();
    let report = import(&layout, Way::Received, "x", &tar(&members))?;
    assert_eq!(report.kind, Kind::OciArchive);
    assert_eq!(
        report.images[0].name.as_deref(),
        Some("docker.io/library/app:1")
    );
    assert_eq!(layout.entries()[0]["digest"], image["digest"]);
    Ok(())
}

#[test]
fn docker_layers_may_be_compressed() -> TestResult {
    for (compression, media_type) in [
        (
            Compression::Gzip,
            "application/vnd.oci.image.layer.v1.tar+gzip",
        ),
        (
            Compression::Zstd,
            "application/vnd.oci.image.layer.v1.tar+zstd",
        ),
    ] {
        let layer = tar_of(&[("a", b"1")]);
        let stored = compress(compression, &layer);
        let manifest = docker_manifest(&[("config", json!(["app"]), &["layer"])]);
        let bytes = Tarball::new()
            .file("config", docker_config(&[&layer]))
            .file("layer", &stored)
            .file("manifest.json", manifest)
            .finish();
        for way in WAYS {
            let layout = TestLayout::new();
            import(&layout, way, "x", &bytes)?;
            let manifest = document(&layout, &layout.entries()[0]);
            assert_eq!(manifest["layers"][0]["mediaType"], media_type);
            assert_eq!(digest_of(&manifest["layers"][0]), Digest::of(&stored));
        }
    }
    Ok(())
}

#[test]
fn several_images_share_their_layers() -> TestResult {
    let layers = [tar_of(&[("a", b"1")]), tar_of(&[("b", b"2")])];
    let small = docker_config(&[&layers[0]]);
    let large = docker_config(&[&layers[0], &layers[1]]);
    let manifest = docker_manifest(&[
        ("small.json", json!(["small"]), &["0.tar"]),
        ("large.json", json!(["large", "also"]), &["0.tar", "1.tar"]),
    ]);
    let bytes = Tarball::new()
        .file("0.tar", &layers[0])
        .file("1.tar", &layers[1])
        .file("small.json", small)
        .file("large.json", large)
        .file("manifest.json", manifest)
        .finish();
    let layout = TestLayout::new();
    let report = import(&layout, Way::Received, "x", &bytes)?;
    assert_eq!(names(&layout), ["also", "large", "small"]);
    assert_eq!(
        report.blobs.len(),
        6,
        "two layers, two configs, two manifests"
    );
    Ok(())
}

#[test]
fn names_that_are_taken() -> TestResult {
    let archive = oci_archive(&one_image());
    let layout = TestLayout::new();
    let other = layout.image(&[layout.layer(Compression::None, &[("x", b"y")])]);
    layout.add_ref("app:1", &other);
    layout.add_ref("kept", &other);
    let expected = ("REF_EXISTS", ocifs::ingest::ErrorClass::Exists);
    super::refused(&layout, "a name is taken", "x", &archive, expected);
    import_over(&layout, Way::Received, "x", &archive, Collision::Replace)?;
    assert_eq!(layout.refs()[0], one_image().refs()[0]);
    assert_eq!(names(&layout), ["app:1", "kept"]);
    Ok(())
}
