use serde_json::json;

use super::*;

const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn parse(document: &Value) -> ImageConfig {
    ImageConfig::parse(document.to_string().as_bytes()).expect("it is readable")
}

#[test]
fn members() {
    let config = parse(&json!({
        "created": "2024-01-27T00:30:48.5Z",
        "os": "linux",
        "architecture": "arm64",
        "variant": "v8",
        "config": {"Env": ["A=B"]},
        "rootfs": {"type": "layers", "diff_ids": [DIGEST, DIGEST]},
        "history": [
            {"created_by": "ADD file", "created": "2024-01-27T00:30:48Z"},
            {"created_by": "CMD", "empty_layer": true, "comment": "buildkit"},
            {"created_by": "RUN x", "author": "somebody"},
        ],
        "moby.buildkit.buildinfo.v1": "x",
    }));
    let created = config.created.expect("it is there");
    assert_eq!(
        (created.seconds, created.nanoseconds),
        (1_706_315_448, 500_000_000)
    );
    assert_eq!(config.platform.to_string(), "linux/arm64/v8");
    assert_eq!(config.diff_ids().map(<[_]>::len).ok(), Some(2));
    let step = |layer| {
        Some(
            config
                .step_of_layer(layer, 2)?
                .created_by
                .as_deref()?
                .to_owned(),
        )
    };
    assert_eq!(step(0).as_deref(), Some("ADD file"));
    assert_eq!(step(1).as_deref(), Some("RUN x"));
    assert_eq!(step(2), None);
    assert!(config.step_of_layer(0, 3).is_none(), "counts differ");
    assert_eq!(config.history[1].comment.as_deref(), Some("buildkit"));
}

#[test]
fn what_is_absent_null_or_of_another_type_is_not_there() {
    let rows = [
        ("absent", json!({})),
        (
            "null",
            json!({"created": null, "os": null, "history": null, "rootfs": null}),
        ),
        (
            "other types",
            json!({"created": 1, "os": [], "history": {}, "rootfs": 1}),
        ),
        ("Go's zero time", json!({"created": "0001-01-01T00:00:00Z"})),
        ("no time", json!({"created": "yesterday"})),
    ];
    for (name, document) in rows {
        let config = parse(&document);
        assert_eq!(config.created, None, "{name}");
        assert!(config.platform.is_unknown(), "{name}");
        assert!(config.history.is_empty(), "{name}");
        assert!(config.diff_ids().is_err(), "{name}");
    }
}

#[test]
fn diff_ids() {
    let rows = [
        ("empty", json!({"type": "layers", "diff_ids": []}), None),
        (
            "null list",
            json!({"type": "layers", "diff_ids": null}),
            None,
        ),
        (
            "no list",
            json!({"type": "layers"}),
            Some("JSON_MISSING_FIELD"),
        ),
        (
            "no type",
            json!({"diff_ids": []}),
            Some("JSON_MISSING_FIELD"),
        ),
        (
            "other type",
            json!({"type": "squashfs", "diff_ids": []}),
            Some("CONFIG_ROOTFS_TYPE"),
        ),
        (
            "malformed digest",
            json!({"type": "layers", "diff_ids": [DIGEST, "sha256:x"]}),
            Some("DIGEST_GRAMMAR"),
        ),
        (
            "no text",
            json!({"type": "layers", "diff_ids": [1]}),
            Some("JSON_TYPE"),
        ),
        (
            "too many",
            json!({"type": "layers", "diff_ids": vec![DIGEST; 4_097]}),
            Some("LIMIT_LAYERS"),
        ),
    ];
    for (name, rootfs, code) in rows {
        let config = parse(&json!({"os": "linux", "rootfs": rootfs}));
        assert_eq!(config.diff_ids().err().map(Error::code), code, "{name}");
        assert_eq!(config.platform.os, "linux", "{name}: the rest is readable");
    }
}

#[test]
fn only_json_objects_are_configs() {
    let rows = [
        ("array", "[]", "JSON_TYPE"),
        ("text", "FROM x", "JSON_SYNTAX"),
    ];
    for (name, text, code) in rows {
        let error = ImageConfig::parse(text.as_bytes()).expect_err(name);
        assert_eq!(error.code(), code, "{name}");
    }
}
