//! Where the parts of a JSON text lie, so that one of them can be changed and every other
//! byte stays: white space, the order of members, the spelling of numbers and escapes.
//!
//! The texts must have been parsed before ([`super::json`]): what is not JSON is met with
//! `None` or an arbitrary answer, never with a panic.

use std::ops::Range;

/// One member of an object, by the positions of its parts in the object's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The decoded name.
    pub key: String,
    /// The name as it is written, with its quotes.
    pub written_key: Range<usize>,
    /// The value.
    pub value: Range<usize>,
}

/// The members of the object that `text` is, in order; `None` if it is no object.
#[must_use]
pub fn members(text: &str) -> Option<Vec<Member>> {
    let mut scan = Scan::inside(text, b'{')?;
    let mut members = Vec::new();
    while scan.peek()? != b'}' {
        let written_key = scan.value()?;
        let key = serde_json::from_str(&text[written_key.clone()]).ok()?;
        scan.expect(b':')?;
        let value = scan.value()?;
        members.push(Member {
            key,
            written_key,
            value,
        });
        scan.skip_comma();
    }
    Some(members)
}

/// Where the elements of the array that `text` is lie, in order; `None` if it is no array.
#[must_use]
pub fn elements(text: &str) -> Option<Vec<Range<usize>>> {
    let mut scan = Scan::inside(text, b'[')?;
    let mut elements = Vec::new();
    while scan.peek()? != b']' {
        elements.push(scan.value()?);
        scan.skip_comma();
    }
    Some(elements)
}

/// The object `text` with the member `key` set to the JSON text `value`; a member that is
/// there keeps its place, a new one comes last, spaced as the last one is. `None` if
/// `text` is no object.
#[must_use]
pub fn with_member(text: &str, key: &str, value: &str) -> Option<String> {
    let members = members(text)?;
    if let Some(member) = members.iter().find(|member| member.key == key) {
        return Some(replaced(text, member.value.clone(), value));
    }
    let key = serde_json::Value::from(key);
    let Some(last) = members.last() else {
        let end = text.rfind('}')?;
        return Some(replaced(text, end..end, &format!("{key}:{value}")));
    };
    let before = match members.len() {
        1 => &text[text.find('{')? + 1..last.written_key.start],
        len => after_comma(&text[members[len - 2].value.end..last.written_key.start]),
    };
    let colon = &text[last.written_key.end..last.value.start];
    let addition = format!(",{before}{key}{colon}{value}");
    Some(replaced(text, last.value.end..last.value.end, &addition))
}

/// The object `text` without the member `key`. `None` if `text` is no object.
#[must_use]
pub fn without_member(text: &str, key: &str) -> Option<String> {
    let members = members(text)?;
    let Some(at) = members.iter().position(|member| member.key == key) else {
        return Some(text.to_owned());
    };
    let range = match (members.get(at + 1), at.checked_sub(1)) {
        (Some(next), _) => members[at].written_key.start..next.written_key.start,
        (None, Some(before)) => members[before].value.end..members[at].value.end,
        (None, None) => text.find('{')? + 1..text.rfind('}')?,
    };
    Some(replaced(text, range, ""))
}

/// `text` with the bytes of `range` replaced.
#[must_use]
pub fn replaced(text: &str, range: Range<usize>, by: &str) -> String {
    [&text[..range.start], by, &text[range.end..]].concat()
}

fn after_comma(text: &str) -> &str {
    text.split_once(',').map_or("", |(_, after)| after)
}

/// A position in a text.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    /// Begins behind the bracket that `text` begins with.
    fn inside(text: &'a str, bracket: u8) -> Option<Self> {
        let bytes = text.as_bytes();
        let mut scan = Self { bytes, at: 0 };
        scan.expect(bracket)?;
        Some(scan)
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn skip_comma(&mut self) {
        if self.peek() == Some(b',') {
            self.at += 1;
        }
    }

    /// Passes over one value; where it lies.
    fn value(&mut self) -> Option<Range<usize>> {
        self.peek()?;
        let start = self.at;
        let mut depth = 0usize;
        loop {
            match self.bytes.get(self.at)? {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if depth > 0 => self.at += 1,
                _ => self.scalar(),
            }
            if depth == 0 {
                return (self.at > start).then_some(start..self.at);
            }
        }
    }

    /// Passes over a number, `true`, `false` or `null`.
    fn scalar(&mut self) {
        let ends = |byte: &u8| b",:]} \t\r\n".contains(byte);
        while self.bytes.get(self.at).is_some_and(|byte| !ends(byte)) {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.bytes.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn parts() {
        let text = " { \"a\" : [1, {\"x\":\"}\\\"\"}] ,\"\\u0062\":-1.50e3 , \"c\":null}";
        let members = members(text).expect("it is an object");
        let parts: Vec<(&str, &str)> = members
            .iter()
            .map(|member| (member.key.as_str(), &text[member.value.clone()]))
            .collect();
        let expected = [
            ("a", "[1, {\"x\":\"}\\\"\"}]"),
            ("b", "-1.50e3"),
            ("c", "null"),
        ];
        assert_eq!(parts, expected);
        let array = "[ \"a]\" ,{},[[]], true ]";
        let elements = elements(array).expect("it is an array");
        let parts: Vec<&str> = elements.into_iter().map(|range| &array[range]).collect();
        assert_eq!(parts, ["\"a]\"", "{}", "[[]]", "true"]);
    }

    #[test]
    fn one_member_changes() {
        type Change = fn(&str) -> Option<String>;
        let set: Change = |text| with_member(text, "b", "7");
        let unset: Change = |text| without_member(text, "b");
        let rows: [(&str, Change, &str, &str); 11] = [
            ("set, empty", set, "{ }", r#"{ "b":7}"#),
            (
                "set, there",
                set,
                r#"{"b" : 1e3,"c":2}"#,
                r#"{"b" : 7,"c":2}"#,
            ),
            ("set, escaped", set, r#"{"\u0062":1}"#, r#"{"\u0062":7}"#),
            ("set, new", set, r#"{"a":1.0}"#, r#"{"a":1.0,"b":7}"#),
            (
                "set, spaced",
                set,
                "{\n  \"a\": 1,\n  \"c\": 2\n}",
                "{\n  \"a\": 1,\n  \"c\": 2,\n  \"b\": 7\n}",
            ),
            (
                "set, one spaced",
                set,
                "{\n \"a\": 1\n}",
                "{\n \"a\": 1,\n \"b\": 7\n}",
            ),
            ("unset, absent", unset, "{ \"a\" : 1 }", "{ \"a\" : 1 }"),
            ("unset, only", unset, "{ \"b\" : 1 }", "{}"),
            ("unset, first", unset, r#"{"b":1, "c":2}"#, r#"{"c":2}"#),
            ("unset, last", unset, r#"{"a":1, "b":2 }"#, r#"{"a":1 }"#),
            ("no object", set, "[]", ""),
        ];
        for (name, change, text, expected) in rows {
            assert_eq!(change(text).unwrap_or_default(), expected, "{name}");
        }
    }

    /// Any JSON, also with what a scanner could stumble over in its strings.
    fn any_json() -> impl proptest::strategy::Strategy<Value = Value> {
        use proptest::prelude::*;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-c\"\\\\{}\\[\\],:\n é]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-c\"\\\\]{0,2}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest::proptest! {
        #[test]
        fn changes_in_the_text_are_changes_of_the_value(
            members in proptest::collection::vec(("[a-c]{0,1}", any_json()), 0..4),
            key in "[a-c]{0,1}",
            value in any_json(),
            pretty: bool,
        ) {
            let mut object: serde_json::Map<_, _> = members.into_iter().collect();
            let text = match pretty {
                true => serde_json::to_string_pretty(&object)?,
                false => serde_json::to_string(&object)?,
            };
            let set = with_member(&text, &key, &value.to_string()).unwrap_or_default();
            let unset = without_member(&text, &key).unwrap_or_default();
            object.insert(key.clone(), value);
            proptest::prop_assert_eq!(&serde_json::from_str::<Value>(&set)?, &Value::from(object.clone()));
            object.shift_remove(&key);
            proptest::prop_assert_eq!(&serde_json::from_str::<Value>(&unset)?, &Value::from(object));
        }
    }
}
