use serde_json::json;

use super::*;

const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

/// A sound descriptor of the bytes `{}`, with one member replaced.
fn with(field: &str, value: Value) -> Value {
    let mut descriptor = json!({"mediaType": "a/b", "digest": DIGEST, "size": 2});
    descriptor[field] = value;
    descriptor
}

/// A sound descriptor without one member.
fn without(field: &str) -> Value {
    let mut descriptor = with("size", json!(2));
    let members = descriptor.as_object_mut().expect("it is an object");
    members.shift_remove(field).expect("it was there");
    descriptor
}

#[test]
fn sizes() {
    let rows = [
        ("0", Some(0)),
        ("9223372036854775807", Some(i64::MAX as u64)),
        ("-1", None),
        ("-0", None),
        ("1e3", None),
        ("1.0", None),
        ("9223372036854775808", None),
        ("18446744073709551616", None),
        (r#""12""#, None),
        ("true", None),
        ("[2]", None),
    ];
    for (text, expected) in rows {
        let size = crate::oci::json::parse(text.as_bytes()).expect("the row is JSON");
        match (Descriptor::from_json(&with("size", size)), expected) {
            (Ok(descriptor), Some(size)) => assert_eq!(descriptor.size, size, "{text}"),
            (Err(error), None) => assert_eq!(error.code(), "DESCRIPTOR_SIZE", "{text}"),
            (result, _) => panic!("{text}: {result:?}"),
        }
    }
}

#[test]
fn malformed() {
    let rows = [
        ("no size", without("size"), "JSON_MISSING_FIELD"),
        ("null size", with("size", Value::Null), "JSON_MISSING_FIELD"),
        ("no digest", without("digest"), "JSON_MISSING_FIELD"),
        ("no mediaType", without("mediaType"), "JSON_MISSING_FIELD"),
        ("no object", json!([]), "JSON_TYPE"),
        ("mediaType", with("mediaType", json!(1)), "JSON_TYPE"),
        ("digest", with("digest", json!({})), "JSON_TYPE"),
        (
            "climbing digest",
            with("digest", json!("sha256:../../../../etc/passwd")),
            "DIGEST_GRAMMAR",
        ),
        (
            "short digest",
            with("digest", json!(&DIGEST[..70])),
            "DIGEST_GRAMMAR",
        ),
        ("annotations", with("annotations", json!([])), "JSON_TYPE"),
        (
            "annotation",
            with("annotations", json!({"a": "", "b": 1})),
            "JSON_TYPE",
        ),
        ("urls", with("urls", json!("http://a")), "JSON_TYPE"),
        ("url", with("urls", json!([1])), "JSON_TYPE"),
        ("platform", with("platform", json!("linux")), "JSON_TYPE"),
        ("os", with("platform", json!({"os": 1})), "JSON_TYPE"),
        ("data", with("data", json!(1)), "JSON_TYPE"),
        ("artifactType", with("artifactType", json!(1)), "JSON_TYPE"),
    ];
    for (name, value, code) in rows {
        match Descriptor::from_json(&value) {
            Ok(descriptor) => panic!("{name}: accepted as {descriptor:?}"),
            Err(error) => assert_eq!(error.code(), code, "{name}: {error}"),
        }
    }
}

#[test]
fn errors_name_the_member() {
    let error = Descriptor::from_json(&without("digest")).expect_err("it is wrong");
    assert_eq!(error.to_string(), r#"descriptor has no "digest""#);
    let error = Descriptor::from_json(&with("mediaType", json!([]))).expect_err("it is wrong");
    assert_eq!(
        error.to_string(),
        r#""mediaType" of descriptor is an array, not a string"#
    );
}

#[test]
fn members() {
    let value = json!({
        "mediaType": "Application/X; a=b",
        "digest": "sha256+b64:LCa0a2j_xo=",
        "size": 7,
        "annotations": {"z": "1", "a": ""},
        "platform": {"os": "windows", "architecture": "amd64", "os.version": "10.0"},
        "urls": ["https://example.org/x"],
        "artifactType": "a/b",
        "unknown": [1],
    });
    let descriptor = Descriptor::from_json(&value).expect("it is sound");
    assert_eq!(descriptor.media_type.as_str(), "Application/X; a=b");
    assert_eq!(descriptor.digest.as_str(), "sha256+b64:LCa0a2j_xo=");
    let annotations: Vec<_> = descriptor.annotations.iter().collect();
    assert_eq!(annotations, [("z", "1"), ("a", "")], "in their order");
    assert_eq!(descriptor.annotations.get("z"), Some("1"));
    let platform = descriptor.platform.expect("it is there");
    assert_eq!(platform.os_version.as_deref(), Some("10.0"));
    assert_eq!(descriptor.urls, ["https://example.org/x"]);
    assert_eq!(descriptor.artifact_type, Some(MediaType::new("a/b")));
}

#[test]
fn optional_members_may_be_null() {
    let mut value = with("size", json!(2));
    for field in ["annotations", "platform", "urls", "data", "artifactType"] {
        value[field] = Value::Null;
    }
    let descriptor = Descriptor::from_json(&value).expect("it is sound");
    let digest = DIGEST.parse().expect("it is sound");
    assert_eq!(
        descriptor,
        Descriptor::new(MediaType::new("a/b"), digest, 2)
    );
}

#[test]
fn embedded_data() {
    let rows = [
        ("right", "e30=", DIGEST, None),
        ("other bytes", "e31=", DIGEST, Some("BLOB_DIGEST")),
        ("other size", "e30K", DIGEST, Some("BLOB_SIZE")),
        ("empty", "", DIGEST, Some("BLOB_SIZE")),
        ("not base64", "{}", DIGEST, Some("BLOB_DIGEST")),
        ("no padding", "e30", DIGEST, Some("BLOB_DIGEST")),
        ("URL alphabet", "-_==", DIGEST, Some("BLOB_DIGEST")),
        ("unknown algorithm", "e30=", "x:y", Some("DIGEST_ALGORITHM")),
    ];
    for (name, data, digest, code) in rows {
        let mut value = with("data", json!(data));
        value["digest"] = json!(digest);
        let descriptor = Descriptor::from_json(&value).expect(name);
        let found = descriptor.check_data().err().map(|error| error.code());
        assert_eq!(found, code, "{name}");
    }
}

#[test]
fn attestations() {
    let annotations = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let descriptor = Descriptor::from_json(&with("annotations", annotations)).expect("sound");
    assert!(descriptor.is_attestation());
    let plain = Descriptor::from_json(&with("size", json!(2))).expect("sound");
    assert!(!plain.is_attestation());
}
