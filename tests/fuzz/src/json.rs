//! JSON: `oci::json`.
//!
//! Invariants, for any bytes:
//! - no panic, and memory in proportion to the bytes;
//! - what is accepted reads as serde_json reads it, nests no deeper than the limit, and
//!   written out it reads as the same value;
//! - what serde_json accepts is refused only for a key that is there twice, the depth, or
//!   the number of values.

use ocifs::oci::Error;
use ocifs::oci::json::parse;
use ocifs::oci::limits::MAX_JSON_DEPTH;
use serde::Deserialize;
use serde_json::Value;

/// Checks the invariants.
pub fn check(bytes: &[u8]) {
    let ours = match parse(bytes) {
        Ok(ours) => ours,
        Err(error) => return check_refused(bytes, &error),
    };
    assert!(depth(&ours) <= MAX_JSON_DEPTH, "too deep");
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    // Its limit is one less than ours.
    deserializer.disable_recursion_limit();
    let theirs = Value::deserialize(&mut deserializer);
    assert_eq!(Some(&ours), theirs.ok().as_ref(), "another value");
    let written = serde_json::to_vec(&ours).expect("a value can be written");
    let again = parse(&written).expect("what was written is read");
    assert_eq!(again, ours, "another value when read again");
}

fn check_refused(bytes: &[u8], error: &Error) {
    if let Ok(theirs) = serde_json::from_slice::<Value>(bytes) {
        let reasons = ["JSON_DUPLICATE_KEY", "JSON_DEPTH", "LIMIT_JSON_VALUES"];
        assert!(reasons.contains(&error.code()), "refused {theirs}: {error}");
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}
