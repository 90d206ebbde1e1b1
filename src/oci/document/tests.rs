use serde_json::{Value, json};

use super::*;
use crate::oci::ErrorClass;

const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

fn descriptor(media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": DIGEST, "size": 2})
}

fn manifest() -> Value {
    json!({
        "schemaVersion": 2,
        "config": descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
    })
}

fn index() -> Value {
    json!({"schemaVersion": 2, "manifests": [descriptor(MANIFEST)]})
}

/// A document with one member replaced.
fn with(mut document: Value, field: &str, value: Value) -> Value {
    document[field] = value;
    document
}

fn parse(document: &Value, media_type: &str) -> Result<Document, Error> {
    let media_type = MediaType::new(media_type);
    let document_type = DocumentType::of(&media_type).expect("it is a document");
    Document::parse(document.to_string().as_bytes(), document_type)
}

#[test]
fn accepted() {
    let rows = [
        ("manifest", manifest(), MANIFEST),
        ("index", index(), INDEX),
        ("Docker manifest", manifest(), DOCKER),
        ("Docker list", index(), DOCKER_LIST),
        (
            "own media type",
            with(manifest(), "mediaType", json!(MANIFEST)),
            MANIFEST,
        ),
        (
            "own media type, other case",
            with(index(), "mediaType", json!(INDEX.to_uppercase())),
            INDEX,
        ),
        (
            "null media type",
            with(index(), "mediaType", Value::Null),
            INDEX,
        ),
        ("no layers", with(manifest(), "layers", json!([])), MANIFEST),
        (
            "null layers",
            with(manifest(), "layers", Value::Null),
            MANIFEST,
        ),
        (
            "null manifests",
            with(index(), "manifests", Value::Null),
            INDEX,
        ),
        (
            "unknown members",
            with(manifest(), "Layers", json!([])),
            MANIFEST,
        ),
        (
            "4,096 layers",
            with(manifest(), "layers", json!(vec![descriptor("a/b"); 4_096])),
            MANIFEST,
        ),
    ];
    for (name, document, media_type) in rows {
        let result = parse(&document, media_type);
        let document = result.unwrap_or_else(|error| panic!("{name}: {error}"));
        let is_index = matches!(document, Document::Index(_));
        let expected = [INDEX, DOCKER_LIST].contains(&media_type);
        assert_eq!(is_index, expected, "{name}");
    }
}

#[test]
fn refused() {
    let rows = [
        (
            "manifests and layers",
            with(manifest(), "manifests", json!([])),
            MANIFEST,
            "JSON_AMBIGUOUS_TYPE",
        ),
        (
            "manifests and config",
            with(index(), "config", json!({})),
            INDEX,
            "JSON_AMBIGUOUS_TYPE",
        ),
        (
            "manifests and null layers",
            with(index(), "layers", Value::Null),
            INDEX,
            "JSON_AMBIGUOUS_TYPE",
        ),
        ("index as manifest", index(), MANIFEST, "JSON_MEDIA_TYPE"),
        ("manifest as index", manifest(), INDEX, "JSON_MEDIA_TYPE"),
        (
            "another media type inside",
            with(manifest(), "mediaType", json!(INDEX)),
            MANIFEST,
            "JSON_MEDIA_TYPE",
        ),
        (
            "Docker inside OCI",
            with(manifest(), "mediaType", json!(DOCKER)),
            MANIFEST,
            "JSON_MEDIA_TYPE",
        ),
        (
            "no schemaVersion",
            json!({"manifests": []}),
            INDEX,
            "JSON_MISSING_FIELD",
        ),
        (
            "schemaVersion 3",
            with(index(), "schemaVersion", json!(3)),
            INDEX,
            "JSON_SCHEMA_VERSION",
        ),
        (
            "schemaVersion as text",
            with(index(), "schemaVersion", json!("2")),
            INDEX,
            "JSON_SCHEMA_VERSION",
        ),
        (
            "schema 1",
            with(manifest(), "schemaVersion", json!(1)),
            DOCKER,
            "MANIFEST_SCHEMA1",
        ),
        ("schema 1 by type", json!({}), SCHEMA1, "MANIFEST_SCHEMA1"),
        (
            "4,097 layers",
            with(manifest(), "layers", json!(vec![descriptor("a/b"); 4_097])),
            MANIFEST,
            "LIMIT_LAYERS",
        ),
        (
            "case variant of a required member",
            json!({"schemaVersion": 2, "Manifests": []}),
            INDEX,
            "JSON_MISSING_FIELD",
        ),
        (
            "layers of another type",
            with(manifest(), "layers", json!({})),
            MANIFEST,
            "JSON_TYPE",
        ),
        (
            "a bad layer",
            with(
                manifest(),
                "layers",
                json!([{"mediaType": "a/b", "digest": "x"}]),
            ),
            MANIFEST,
            "DIGEST_GRAMMAR",
        ),
        ("no object", json!([]), INDEX, "JSON_TYPE"),
        (
            "too large",
            json!({"a": "x".repeat(8 << 20)}),
            INDEX,
            "LIMIT_DOCUMENT_SIZE",
        ),
    ];
    for (name, document, media_type, code) in rows {
        match parse(&document, media_type) {
            Ok(_) => panic!("{name}: accepted"),
            Err(error) => assert_eq!(error.code(), code, "{name}: {error}"),
        }
    }
}

#[test]
fn classes() {
    let class = |document: Value, media_type| {
        parse(&document, media_type)
            .expect_err("it is wrong")
            .class()
    };
    assert_eq!(class(index(), MANIFEST), ErrorClass::Malformed);
    assert_eq!(class(json!({}), SCHEMA1), ErrorClass::Unsupported);
    let mut bad_layer = manifest();
    bad_layer["layers"][0]["size"] = json!(-1);
    assert_eq!(class(bad_layer, MANIFEST), ErrorClass::Malformed);
}

#[test]
fn errors_name_the_part() {
    let mut document = manifest();
    document["layers"][0]["size"] = json!(-1);
    assert_eq!(
        parse(&document, MANIFEST)
            .expect_err("it is wrong")
            .to_string(),
        "layers[0]: size -1 of descriptor is not a whole number from 0 to 2^63 - 1"
    );
}

#[test]
fn only_documents_have_a_document_type() {
    let rows = [
        (INDEX, true),
        (SCHEMA1, true),
        ("application/vnd.oci.image.config.v1+json", false),
        ("application/vnd.oci.image.layer.v1.tar", false),
        ("application/json", false),
        ("", false),
    ];
    for (text, expected) in rows {
        let media_type = MediaType::new(text);
        assert_eq!(DocumentType::of(&media_type).is_some(), expected, "{text}");
    }
}

#[test]
fn images_and_artifacts() {
    let mut document = manifest();
    document["annotations"] = json!({"a": "b"});
    document["subject"] = descriptor(MANIFEST);
    let Ok(Document::Manifest(image)) = parse(&document, MANIFEST) else {
        panic!("it is a manifest");
    };
    assert!(image.is_image());
    assert_eq!(image.annotations.get("a"), Some("b"));
    assert!(image.subject.is_some());

    document["config"]["mediaType"] = json!("application/vnd.oci.empty.v1+json");
    document["artifactType"] = json!("application/spdx+json");
    let Ok(Document::Manifest(artifact)) = parse(&document, MANIFEST) else {
        panic!("it is a manifest");
    };
    assert!(!artifact.is_image());
    assert_eq!(
        artifact.effective_artifact_type().as_str(),
        "application/spdx+json"
    );
}
