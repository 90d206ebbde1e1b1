use proptest::prelude::*;
use serde_json::json;

use super::*;

fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

#[test]
fn refused() {
    let deep = nested(MAX_JSON_DEPTH + 1);
    let very_deep = "[".repeat(100_000);
    let objects = r#"{"a":"#.repeat(100_000);
    let rows: &[(&str, &[u8], &str)] = &[
        ("duplicate key", br#"{"a":1,"a":1}"#, "JSON_DUPLICATE_KEY"),
        (
            "duplicate key, deep",
            br#"[{"x":{"a":[],"b":1,"a":null}}]"#,
            "JSON_DUPLICATE_KEY",
        ),
        (
            "duplicate key, written differently",
            br#"{"a":1,"\u0061":2}"#,
            "JSON_DUPLICATE_KEY",
        ),
        (
            "duplicate key before an error",
            br#"{"a":1,"a":}"#,
            "JSON_DUPLICATE_KEY",
        ),
        ("one too deep", deep.as_bytes(), "JSON_DEPTH"),
        ("very deep", very_deep.as_bytes(), "JSON_DEPTH"),
        ("very deep objects", objects.as_bytes(), "JSON_DEPTH"),
        ("byte order mark", b"\xEF\xBB\xBF{}", "JSON_ENCODING"),
        ("UTF-16, little endian", b"\xFF\xFE{\0}\0", "JSON_ENCODING"),
        ("UTF-16, no mark", b"{\0}\0", "JSON_SYNTAX"),
        ("invalid UTF-8", b"{\"a\":\"\xFF\"}", "JSON_ENCODING"),
        ("surrogate as UTF-8", b"\"\xED\xA0\x80\"", "JSON_ENCODING"),
        ("lone surrogate", br#""\ud800""#, "JSON_SYNTAX"),
        ("lone trailing surrogate", br#""\udc00""#, "JSON_SYNTAX"),
        ("lone surrogate in a key", br#"{"\ud800":1}"#, "JSON_SYNTAX"),
        ("trailing text", b"{} x", "JSON_SYNTAX"),
        ("trailing brace", b"{}}", "JSON_SYNTAX"),
        ("trailing NUL", b"{}\0", "JSON_SYNTAX"),
        ("two documents", b"{}{}", "JSON_SYNTAX"),
        ("empty", b"", "JSON_SYNTAX"),
        ("space", b" \n", "JSON_SYNTAX"),
        ("cut", br#"{"a":[1,2"#, "JSON_SYNTAX"),
        ("trailing comma", b"[1,]", "JSON_SYNTAX"),
        ("comment", b"{} // x", "JSON_SYNTAX"),
        ("NaN", b"NaN", "JSON_SYNTAX"),
        ("leading zero", b"01", "JSON_SYNTAX"),
        ("beyond double precision", b"1e400", "JSON_SYNTAX"),
        ("raw newline in a string", b"\"\n\"", "JSON_SYNTAX"),
    ];
    for (name, bytes, code) in rows {
        match parse(bytes) {
            Ok(value) => panic!("{name}: accepted as {value}"),
            Err(error) => assert_eq!(error.code(), *code, "{name}: {error}"),
        }
    }
}

#[test]
fn accepted() {
    let deepest = nested(MAX_JSON_DEPTH);
    let rows: &[(&str, &str, &str)] = &[
        ("space around", " \t\r\n{} \n", "{}"),
        ("order of members", r#"{"b":1,"a":2}"#, r#"{"b":1,"a":2}"#),
        (
            "one key in several objects",
            r#"[{"a":1},{"a":1}]"#,
            r#"[{"a":1},{"a":1}]"#,
        ),
        (
            "integers",
            "[18446744073709551615,-9223372036854775808]",
            "[18446744073709551615,-9223372036854775808]",
        ),
        ("doubles", "[1.0,0.1,5e-324]", "[1.0,0.1,5e-324]"),
        ("escapes", r#""\ud83d\ude00\u0000""#, "\"\u{1F600}\\u0000\""),
        (
            "a name that serde_json keeps for itself",
            r#"{"$serde_json::private::Number":"1"}"#,
            r#"{"$serde_json::private::Number":"1"}"#,
        ),
        ("as deep as allowed", &deepest, &deepest),
    ];
    for (name, text, expected) in rows {
        let value = parse(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(value.to_string(), *expected, "{name}");
    }
}

#[test]
fn errors_say_what_and_where() {
    let error = parse(b"{\n  \"a\": 1,\n  \"a\": 2\n}").expect_err("it is wrong");
    assert_eq!(error.to_string(), r#"duplicate key "a" at line 3 column 5"#);
    let error = parse(b"{\n  x").expect_err("it is wrong");
    assert_eq!(error.to_string(), "invalid JSON at line 2 column 3");
    let error = parse(b"[\xFF]").expect_err("it is wrong");
    assert_eq!(error.to_string(), "JSON is not UTF-8 from byte 1 on");
}

#[test]
fn values_are_counted() {
    for limit in [Limit::JsonValues, Limit::DocumentValues, Limit::LineValues] {
        let items = usize::try_from(limit.value()).expect("it fits");
        let list = |items: usize| format!("[{}0]", "0,".repeat(items - 1));
        assert!(parse_within(list(items - 1).as_bytes(), limit).is_ok());
        let error = parse_within(list(items).as_bytes(), limit).expect_err("one too many");
        assert_eq!(error.code(), "LIMIT_JSON_VALUES");
        let value = limit.value();
        let text = format!(
            "number of JSON values {} is over the limit of {value}",
            value + 1
        );
        assert_eq!(error.to_string(), text);
    }
}

/// Any JSON value of a few levels; keys come from few letters, so that they would collide.
fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        any::<String>().prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec(("[ab\"é]{0,2}", inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn agrees_with_serde_json(value in value()) {
        let bytes = serde_json::to_vec(&value).expect("values can be written");
        let expected: Value = serde_json::from_slice(&bytes).expect("it was just written");
        prop_assert_eq!(parse(&bytes).expect("no key is there twice"), expected);
    }

    #[test]
    fn a_repeated_member_is_always_refused(value in value(), at in any::<prop::sample::Index>()) {
        if let Value::Object(members) = &value && !members.is_empty() {
            let (key, _) = members.iter().nth(at.index(members.len())).expect("it is inside");
            let text = value.to_string();
            let repeated = format!("{},{}:0}}", &text[..text.len() - 1], json!(key));
            let error = parse(repeated.as_bytes()).expect_err("a key is there twice");
            prop_assert_eq!(error.code(), "JSON_DUPLICATE_KEY");
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read_as_serde_json_does(bytes in "[\\[\\]{}:,\" a1\\\\]{0,24}") {
        if let Ok(value) = parse(bytes.as_bytes()) {
            prop_assert_eq!(serde_json::from_str::<Value>(&bytes).ok(), Some(value));
        }
    }
}
