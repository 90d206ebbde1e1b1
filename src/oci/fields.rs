//! Typed access to the members of a JSON object.
//!
//! A member that is optional may be `null`: Go writes absent lists and maps so.
//!
//! Spec: image-spec config.md, "Properties" (optional fields may be null).

use serde_json::{Map, Value};

use super::Error;
use super::annotations::Annotations;
use super::error::JsonType;
use super::media_type::MediaType;

/// Member names with a meaning in descriptors, manifests and indexes.
const KNOWN: &[&str] = &[
    "annotations",
    "architecture",
    "artifactType",
    "config",
    "data",
    "digest",
    "layers",
    "manifests",
    "mediaType",
    "os",
    "os.features",
    "os.version",
    "platform",
    "schemaVersion",
    "size",
    "subject",
    "urls",
    "variant",
];

/// An object, with the name that errors give it.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    object: &'static str,
    members: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Takes `value` as the object that stands for `object`.
    pub(super) fn of(value: &'a Value, object: &'static str) -> Result<Self, Error> {
        match value {
            Value::Object(members) => Ok(Self { object, members }),
            other => Err(Error::NotAnObject {
                object,
                found: other.into(),
            }),
        }
    }

    /// Whether the member is there, be it `null`.
    pub(super) fn has(self, field: &str) -> bool {
        self.members.contains_key(field)
    }

    /// The member, unless it is absent or `null`.
    pub(super) fn find(self, field: &str) -> Option<&'a Value> {
        self.members.get(field).filter(|value| !value.is_null())
    }

    /// The member, which must be there and not be `null`.
    pub(super) fn get(self, field: &'static str) -> Result<&'a Value, Error> {
        self.find(field).ok_or(Error::MissingField {
            object: self.object,
            field,
        })
    }

    /// A string that must be there.
    pub(super) fn string(self, field: &'static str) -> Result<&'a str, Error> {
        let value = self.get(field)?;
        let mismatch = || self.mismatch(field, JsonType::String, value);
        value.as_str().ok_or_else(mismatch)
    }

    /// A string that may be absent.
    pub(super) fn find_string(self, field: &'static str) -> Result<Option<&'a str>, Error> {
        match self.find(field) {
            Some(_) => self.string(field).map(Some),
            None => Ok(None),
        }
    }

    /// A media type that may be absent.
    pub(super) fn find_media_type(self, field: &'static str) -> Result<Option<MediaType>, Error> {
        Ok(self.find_string(field)?.map(MediaType::new))
    }

    /// A list that may be absent.
    pub(super) fn find_array(self, field: &'static str) -> Result<&'a [Value], Error> {
        match self.find(field) {
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(self.mismatch(field, JsonType::Array, other)),
            None => Ok(&[]),
        }
    }

    /// A list that must be there; `null` is an empty one.
    pub(super) fn array(self, field: &'static str) -> Result<&'a [Value], Error> {
        if !self.has(field) {
            return Err(Error::MissingField {
                object: self.object,
                field,
            });
        }
        self.find_array(field)
    }

    /// A list of strings that may be absent.
    pub(super) fn find_strings(self, field: &'static str) -> Result<Vec<String>, Error> {
        let text = |item: &Value| match item {
            Value::String(text) => Ok(text.clone()),
            other => Err(self.mismatch(field, JsonType::String, other)),
        };
        self.find_array(field)?.iter().map(text).collect()
    }

    /// The object's annotations, which may be absent.
    pub(super) fn annotations(self) -> Result<Annotations, Error> {
        const FIELD: &str = "annotations";
        let Some(value) = self.find(FIELD) else {
            return Ok(Annotations::default());
        };
        let mismatch = |value: &Value| self.mismatch(FIELD, JsonType::StringMap, value);
        let members = value.as_object().ok_or_else(|| mismatch(value))?;
        let pair = |(key, value): (&String, &Value)| match value {
            Value::String(text) => Ok((key.clone(), text.clone())),
            other => Err(mismatch(other)),
        };
        members.iter().map(pair).collect()
    }

    /// The error for a member whose value has another type.
    fn mismatch(self, field: &'static str, expected: JsonType, found: &Value) -> Error {
        Error::FieldType {
            object: self.object,
            field,
            expected,
            found: found.into(),
        }
    }
}

/// Warns if a document has a member that differs from a known one in case only. It is
/// ignored here, while tools written in Go would take it for the known one.
pub(super) fn warn_of_case_variants(document: &Value) {
    if let Some(key) = find_case_variant(document) {
        log::warn!("member {key:?} is ignored: names of JSON members are exact");
    }
}

/// The first member of a document or of one of its descriptors that differs from a known
/// one in case only. One is enough: a document must not flood the log.
fn find_case_variant(document: &Value) -> Option<&str> {
    let members = document.as_object()?;
    let is_variant = |key: &str| {
        !KNOWN.contains(&key) && KNOWN.iter().any(|known| known.eq_ignore_ascii_case(key))
    };
    let own = members.keys().find(|key| is_variant(key));
    let inner = || {
        let parts = ["config", "layers", "manifests", "platform", "subject"];
        let mut values = parts.iter().filter_map(|part| members.get(*part));
        values.find_map(|value| match value {
            Value::Array(items) => items.iter().find_map(find_case_variant),
            other => find_case_variant(other),
        })
    };
    own.map(String::as_str).or_else(inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn case_variants_are_found_where_they_could_be_taken() {
        let rows = [
            ("none", json!({"digest": 1, "x": {"Digest": 1}}), None),
            ("top", json!({"Manifests": []}), Some("Manifests")),
            (
                "descriptor",
                json!({"layers": [{"digest": ""}, {"Digest": ""}]}),
                Some("Digest"),
            ),
            (
                "platform",
                json!({"manifests": [{"platform": {"OS": ""}}]}),
                Some("OS"),
            ),
            (
                "annotation keys are free",
                json!({"annotations": {"SIZE": ""}}),
                None,
            ),
        ];
        for (name, document, expected) in &rows {
            assert_eq!(find_case_variant(document), *expected, "{name}");
        }
    }
}
