use super::*;

type TestResult = Result<(), Box<dyn std::error::Error>>;

#[test]
fn what_is_likely_in_an_archive() {
    let hex = "a".repeat(64);
    let rows: &[(&str, String, bool)] = &[
        ("marker", "oci-layout".into(), true),
        ("index", "index.json".into(), true),
        ("blob", format!("blobs/sha256/{hex}"), true),
        ("config", format!("{hex}.json"), true),
        ("layer", format!("{hex}.tar"), true),
        ("compressed layer", format!("{hex}.tar.gz"), true),
        ("named by digest", format!("sha256:{hex}"), true),
        ("old layer", format!("{hex}/layer.tar"), true),
        ("old version", format!("{hex}/VERSION"), true),
        ("tags", "repositories".into(), true),
        ("numbered layer", "000.tar".into(), true),
        ("a root file system", "etc/passwd".into(), false),
        ("a program", "bin".into(), false),
        ("a text", "README.md".into(), false),
        ("deeper", "blobs/sha256/x/y".into(), false),
        ("no text", String::from("\u{fffd}"), false),
    ];
    for (name, path, expected) in rows {
        assert_eq!(is_likely_member(path.as_bytes()), *expected, "{name}");
    }
    assert!(!is_likely_member(b"\xff.json"));
}

/// Name, whether there is a marker, `manifest.json`, and what it is.
type DialectRow<'a> = (&'a str, bool, Option<&'a [u8]>, Option<Dialect>);

#[test]
fn dialects() {
    let docker = br#"[{"Config":"c.json","RepoTags":null,"Layers":[]}]"#;
    let twice = br#"[{"Config":"c","Config":"d","Layers":[]}]"#;
    let rows: &[DialectRow<'_>] = &[
        ("a layer", false, None, None),
        ("a layout", true, None, Some(Dialect::Oci)),
        ("docker", false, Some(docker), Some(Dialect::Docker)),
        ("both", true, Some(docker), Some(Dialect::Oci)),
        (
            "docker, and wrong",
            false,
            Some(twice),
            Some(Dialect::Docker),
        ),
        ("a web application", false, Some(br#"{"name":"app"}"#), None),
        ("an empty list", false, Some(b"[]"), None),
        ("other objects", false, Some(br#"[{"Config":"c"}]"#), None),
        ("no JSON", false, Some(b"[{\"Config"), None),
        ("no text", false, Some(b"\xff"), None),
    ];
    for (name, marker, manifest, expected) in rows {
        assert_eq!(Dialect::of(*marker, *manifest), *expected, "{name}");
    }
}

fn members() -> Members<u8> {
    let mut members = Members::default();
    members.insert(b"one", Member::File(1));
    members.insert(b"a/two", Member::File(2));
    members.insert(b"a/link", Member::Symlink(b"../one".to_vec()));
    members.insert(b"a/here", Member::Symlink(b"./two".to_vec()));
    members.insert(b"hard", Member::HardLink(b"a/link".to_vec()));
    members.insert(b"out", Member::Symlink(b"../one".to_vec()));
    members.insert(b"absolute", Member::Symlink(b"/one".to_vec()));
    members.insert(b"nowhere", Member::Symlink(b"gone".to_vec()));
    members.insert(b"self", Member::Symlink(b"self".to_vec()));
    members.insert(b"loop", Member::Symlink(b"a/pool".to_vec()));
    members.insert(b"a/pool", Member::Symlink(b"../loop".to_vec()));
    members.insert(b"same", Member::File(3));
    members.insert(b"same", Member::File(3));
    members.insert(b"twice", Member::File(3));
    members.insert(b"twice", Member::File(4));
    members.insert(b"twice", Member::File(4));
    members.insert(b"pipe", Member::Special);
    members.insert(b"holes", Member::Sparse);
    members
}

#[test]
fn paths_lead_to_files() {
    let rows: &[(&str, Result<Option<u8>, &str>)] = &[
        ("one", Ok(Some(1))),
        ("./a//two", Ok(Some(2))),
        ("a/../one", Ok(Some(1))),
        ("a/link", Ok(Some(1))),
        ("a/here", Ok(Some(2))),
        ("hard", Ok(Some(1))),
        ("nowhere", Ok(None)),
        ("absent", Ok(None)),
        ("", Ok(None)),
        ("out", Err("ARCHIVE_PATH")),
        ("absolute", Err("ARCHIVE_PATH")),
        ("/one", Err("ARCHIVE_PATH")),
        ("../one", Err("ARCHIVE_PATH")),
        ("self", Err("ARCHIVE_LINK")),
        ("loop", Err("ARCHIVE_LINK")),
        ("same", Ok(Some(3))),
        ("twice", Err("ARCHIVE_DUPLICATE")),
        ("pipe", Err("ARCHIVE_FILE_TYPE")),
        ("holes", Err("ARCHIVE_SPARSE")),
    ];
    let members = members();
    for (path, expected) in rows {
        let found = members.find(path);
        let found = found.map(Option::<&u8>::copied);
        assert_eq!(found.map_err(|error| error.code()), *expected, "{path}");
    }
    let missing = members.get("absent").map_err(|error| error.class());
    assert_eq!(missing, Err(ErrorClass::Missing));
}

#[test]
fn the_manifest_of_docker() -> TestResult {
    let images = docker::images(
        br#"[{"Config":"c.json","RepoTags":["app:1","app:2"],"Layers":["0.tar"],"Parent":""},
            {"Config":"d.json","RepoTags":null,"Layers":null}]"#,
    )?;
    assert_eq!(images.len(), 2);
    assert_eq!(images[0].tags, ["app:1", "app:2"]);
    assert_eq!(images[0].layers, ["0.tar"]);
    assert!(images[1].tags.is_empty() && images[1].layers.is_empty());
    let many = vec!["\"l\""; 4_097].join(",");
    let rows = [
        ("no JSON", "[".to_owned(), "JSON_SYNTAX"),
        ("no list", "{}".to_owned(), "ARCHIVE_EMPTY"),
        ("an empty list", "[]".to_owned(), "ARCHIVE_EMPTY"),
        (
            "no config",
            r#"[{"Layers":[]}]"#.to_owned(),
            "DOCKER_MANIFEST",
        ),
        (
            "a number",
            r#"[{"Config":1}]"#.to_owned(),
            "DOCKER_MANIFEST",
        ),
        (
            "numbers for layers",
            r#"[{"Config":"c","Layers":[1]}]"#.to_owned(),
            "DOCKER_MANIFEST",
        ),
        (
            "a text for tags",
            r#"[{"Config":"c","RepoTags":"x"}]"#.to_owned(),
            "DOCKER_MANIFEST",
        ),
        (
            "a key twice",
            r#"[{"Config":"c","Config":"d"}]"#.to_owned(),
            "JSON_DUPLICATE_KEY",
        ),
        (
            "N16 4,097 layers",
            format!(r#"[{{"Config":"c","Layers":[{many}]}}]"#),
            "LIMIT_LAYERS",
        ),
    ];
    for (name, text, code) in rows {
        let error = docker::images(text.as_bytes()).expect_err(name);
        assert_eq!(error.code(), code, "{name}");
    }
    Ok(())
}

#[test]
fn the_marker_and_the_entries_of_a_layout() -> TestResult {
    let markers: [(&str, Option<&str>); 5] = [
        (r#"{"imageLayoutVersion":"1.0.0","more":1}"#, None),
        (r#"{"imageLayoutVersion":"2.0.0"}"#, Some("LAYOUT_VERSION")),
        ("{}", Some("JSON_MISSING_FIELD")),
        ("", Some("JSON_SYNTAX")),
        ("[]", Some("JSON_MISSING_FIELD")),
    ];
    for (text, code) in markers {
        let found = oci::check_marker(text.as_bytes()).err();
        assert_eq!(found.map(|error| error.code()), code, "{text}");
    }
    let entry = format!(
        r#"{{ "mediaType":"application/x", "digest":"sha256:{}", "size":1, "x":1e2 }}"#,
        "0".repeat(64)
    );
    let index = format!(r#"{{"schemaVersion":2,"manifests":[ {entry} ]}}"#);
    let entries = oci::entries(index.as_bytes())?;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].0, entry, "the text is as it was");
    let rows: [(&str, &str); 4] = [
        (r#"{"schemaVersion":2,"manifests":[]}"#, "ARCHIVE_EMPTY"),
        (r#"{"schemaVersion":2}"#, "JSON_MISSING_FIELD"),
        (
            r#"{"schemaVersion":2,"manifests":[{"digest":"x"}]}"#,
            "JSON_MISSING_FIELD",
        ),
        (
            r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            "JSON_AMBIGUOUS_TYPE",
        ),
    ];
    for (text, code) in rows {
        let error = oci::entries(text.as_bytes()).expect_err(text);
        assert_eq!(error.code(), code, "{text}");
    }
    Ok(())
}
