use serde_json::json;

use super::*;

const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn entry(ref_name: &str) -> Value {
    json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": DIGEST,
        "size": 2,
        "annotations": {"org.opencontainers.image.ref.name": ref_name},
    })
}

fn parse(document: &Value) -> Result<LayoutIndex, Error> {
    LayoutIndex::parse(document.to_string().as_bytes())
}

#[test]
fn a_bad_entry_is_bad_alone() {
    let mut digest = entry("digest");
    digest["digest"] = json!("sha256:../../../../etc/passwd");
    let mut size = entry("size");
    size["size"] = json!(-1);
    let mut annotation = entry("annotation");
    annotation["annotations"]["x"] = json!(1);
    let long = entry(&"a".repeat(4_097));
    let longest = entry(&"a".repeat(4_096));
    let rows = [
        ("sound", entry("sound"), None),
        ("digest", digest, Some("DIGEST_GRAMMAR")),
        ("size", size, Some("DESCRIPTOR_SIZE")),
        ("annotation", annotation, Some("JSON_TYPE")),
        ("no object", json!(7), Some("JSON_TYPE")),
        ("longest name", longest, None),
        ("too long a name", long, Some("LIMIT_REF_NAME")),
        ("sound again", entry("again"), None),
    ];
    let manifests: Vec<_> = rows.iter().map(|(_, entry, _)| entry).collect();
    let document = json!({"schemaVersion": 2, "manifests": manifests});
    let index = parse(&document).expect("the whole is sound");
    for ((name, value, code), entry) in rows.iter().zip(index.entries()) {
        let found = entry.descriptor.as_ref().err().map(Error::code);
        assert_eq!(found, *code, "{name}");
        let ref_name = value.pointer("/annotations/org.opencontainers.image.ref.name");
        let ref_name = ref_name.and_then(Value::as_str);
        assert_eq!(entry.ref_name.as_deref(), ref_name, "{name}");
    }
    assert_eq!(index.entries().len(), rows.len());
    let error = index.entries()[2]
        .descriptor
        .as_ref()
        .expect_err("it is wrong");
    assert!(error.to_string().starts_with("manifests[2]: size -1"));
}

#[test]
fn wholly_refused() {
    let rows = [
        ("empty", "", "JSON_SYNTAX"),
        ("cut", r#"{"schemaVersion":2,"manifests":["#, "JSON_SYNTAX"),
        (
            "duplicate key",
            r#"{"manifests":[],"manifests":[]}"#,
            "JSON_DUPLICATE_KEY",
        ),
        (
            "duplicate key in an entry",
            r#"{"manifests":[{"digest":"","digest":""}]}"#,
            "JSON_DUPLICATE_KEY",
        ),
        ("no object", "[]", "JSON_TYPE"),
        (
            "no manifests",
            r#"{"schemaVersion":2}"#,
            "JSON_MISSING_FIELD",
        ),
        ("manifests", r#"{"manifests":{}}"#, "JSON_TYPE"),
        (
            "ambiguous",
            r#"{"manifests":[],"layers":[]}"#,
            "JSON_AMBIGUOUS_TYPE",
        ),
        (
            "schemaVersion",
            r#"{"schemaVersion":3,"manifests":[]}"#,
            "JSON_SCHEMA_VERSION",
        ),
        (
            "mediaType",
            r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}"#,
            "JSON_MEDIA_TYPE",
        ),
    ];
    for (name, text, code) in rows {
        match LayoutIndex::parse(text.as_bytes()) {
            Ok(_) => panic!("{name}: accepted"),
            Err(error) => assert_eq!(error.code(), code, "{name}: {error}"),
        }
    }
}

#[test]
fn empty_layouts() {
    // Tools written in Go write an empty list as null.
    for manifests in [json!([]), Value::Null] {
        let index = parse(&json!({"schemaVersion": 2, "manifests": manifests}));
        assert!(index.expect("it is sound").entries().is_empty());
    }
}

#[test]
fn names() {
    let mut named = entry("3.19");
    named["annotations"]["io.containerd.image.name"] = json!("docker.io/library/alpine:3.19");
    let unnamed = json!({"mediaType": "a/b", "digest": DIGEST, "size": 2});
    let document = json!({"manifests": [named, unnamed, entry("")]});
    let index = parse(&document).expect("it is sound");
    let names: Vec<_> = index
        .entries()
        .iter()
        .map(|entry| (entry.ref_name.as_deref(), entry.containerd_name.as_deref()))
        .collect();
    assert_eq!(
        names,
        [
            (Some("3.19"), Some("docker.io/library/alpine:3.19")),
            (None, None),
            (Some(""), None),
        ]
    );
}

#[test]
fn the_document_survives() {
    let text = r#"{"z":[1,{"y":null}],"schemaVersion":2,"manifests":[{"size":2,"x":1.5}],"a":{}}"#;
    let index = LayoutIndex::parse(text.as_bytes()).expect("it is sound");
    assert_eq!(index.document().to_string(), text);
    assert_eq!(index.into_document().to_string(), text);
}

#[test]
fn a_hundred_thousand_refs() {
    let manifests: Vec<_> = (0..100_000).map(|n| entry(&format!("app:{n}"))).collect();
    let index = parse(&json!({"schemaVersion": 2, "manifests": manifests}));
    let index = index.expect("it is sound");
    let entries = index.into_entries();
    let last = entries.last().expect("there are many");
    assert_eq!(last.ref_name.as_deref(), Some("app:99999"));
    assert!(last.descriptor.is_ok());
}
