//! Strict JSON: one reading of a document, or none.
//!
//! On top of what `serde_json` refuses (trailing bytes, two documents, lone surrogates,
//! numbers beyond double precision), an object may not have one key twice at any depth,
//! the text must be UTF-8 without a byte order mark, and nesting and the number of values
//! are limited. Members keep their order. Integers of 64 bits and doubles keep their value;
//! longer integers become the nearest double, as RFC 7493 section 2.2 lets expect.
//!
//! Spec: image-spec considerations.md; RFC 7493 (I-JSON), sections 2.1 to 2.3.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

use super::Error;
use super::limits::{Limit, MAX_JSON_DEPTH};

/// Parses one JSON document of at most [`Limit::JsonValues`] values.
///
/// The caller bounds the length of `bytes`; memory is at most about 300 bytes for each
/// value on average, and the strings.
///
/// # Errors
/// [`Error::NotUtf8`], [`Error::ByteOrderMark`], [`Error::Syntax`],
/// [`Error::DuplicateKey`], [`Error::JsonDepth`], and [`Error::Limit`] for the number of
/// values.
pub fn parse(bytes: &[u8]) -> Result<Value, Error> {
    parse_within(bytes, Limit::JsonValues)
}

/// Parses one JSON document of at most as many values as `limit` says.
///
/// # Errors
/// As [`parse`].
pub fn parse_within(bytes: &[u8], limit: Limit) -> Result<Value, Error> {
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(Error::ByteOrderMark);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| Error::NotUtf8 {
        offset: error.valid_up_to(),
    })?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    // The seed counts the depth itself, because it can say what was exceeded.
    deserializer.disable_recursion_limit();
    let watch = Watch {
        limit,
        values: Cell::new(0),
        refusal: RefCell::new(None),
    };
    let seed = Seed {
        watch: &watch,
        depth: 0,
    };
    seed.deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|source| watch.explain(source))
}

/// What the visitors of one document have seen. A serde error can carry text alone, so
/// the fact behind it is left here.
struct Watch {
    /// Bounds `values`.
    limit: Limit,
    values: Cell<u64>,
    refusal: RefCell<Option<Refusal>>,
}

enum Refusal {
    DuplicateKey(String),
    Depth,
    Values(Error),
}

impl Watch {
    fn refuse<E: serde::de::Error>(&self, refusal: Refusal) -> E {
        *self.refusal.borrow_mut() = Some(refusal);
        E::custom("refused")
    }

    /// Turns the parser's error into the fact behind it.
    fn explain(self, source: serde_json::Error) -> Error {
        let (line, column) = (source.line(), source.column());
        match self.refusal.into_inner() {
            Some(Refusal::DuplicateKey(key)) => Error::DuplicateKey { key, line, column },
            Some(Refusal::Depth) => Error::JsonDepth {
                limit: MAX_JSON_DEPTH,
                line,
                column,
            },
            Some(Refusal::Values(error)) => error,
            None => Error::Syntax {
                line,
                column,
                source: Arc::new(source),
            },
        }
    }
}

/// Builds a value that lies inside `depth` arrays and objects.
#[derive(Clone, Copy)]
struct Seed<'w> {
    watch: &'w Watch,
    depth: usize,
}

impl Seed<'_> {
    /// The seed for what is inside the array or object that begins here.
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_JSON_DEPTH {
            return Err(self.watch.refuse(Refusal::Depth));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let values = self.watch.values.get() + 1;
        if let Err(error) = self.watch.limit.check(values) {
            return Err(self.watch.refuse(Refusal::Values(error)));
        }
        self.watch.values.set(values);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let seed = self.inner()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(seed)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let seed = self.inner()?;
        let mut members = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            match members.entry(key) {
                Entry::Vacant(entry) => entry.insert(access.next_value_seed(seed)?),
                Entry::Occupied(entry) => {
                    let key = entry.key().clone();
                    return Err(self.watch.refuse(Refusal::DuplicateKey(key)));
                }
            };
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests;
