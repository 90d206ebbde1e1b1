//! An index that is being changed, as text: what is not changed keeps its bytes.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use serde_json::Value;

use super::View;
use crate::oci::index::Entry;
use crate::oci::{self, annotations, json, raw};

/// What the room for the text of an index is a multiple of, in bytes: pages that are not
/// written to cost nothing.
const ROOM: usize = 1 << 18;

/// The text of an `index.json`, cut at its entries. Copies share what they have in common.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Everything before the first entry, with the opening bracket.
    head: Arc<str>,
    slots: Arc<Vec<Arc<Slot>>>,
    /// Everything behind the last entry, from its white space on.
    tail: Arc<str>,
    is_changed: bool,
}

/// One entry, with what stands between it and the one before: white space and a comma.
#[derive(Debug, Clone)]
struct Slot {
    gap: Arc<str>,
    text: Arc<str>,
    entry: Arc<Entry>,
}

/// An entry of a draft: its JSON text, and what that says.
pub type Written<'a> = (&'a str, &'a Arc<Entry>);

impl Draft {
    /// A draft that begins as `view`.
    ///
    /// # Errors
    /// [`oci::Error::MissingField`] if it has no list of entries; a view always has one.
    pub fn of(view: &View) -> Result<Self, oci::Error> {
        view.draft().cloned().ok_or(oci::Error::MissingField {
            object: "index.json",
            field: "manifests",
        })
    }

    /// A draft of these bytes, which say `entries`; `None` if they have no list of them.
    pub(super) fn new(bytes: &[u8], entries: Vec<Arc<Entry>>) -> Option<Self> {
        Self::cut(&String::from_utf8_lossy(bytes), entries)
    }

    /// A draft of an index that is not that of the layout.
    ///
    /// # Errors
    /// As [`oci::LayoutIndex::parse`].
    pub fn parse(bytes: &[u8]) -> Result<Self, oci::Error> {
        let entries = oci::LayoutIndex::parse(bytes)?.into_entries();
        let draft = Self::new(bytes, entries.into_iter().map(Arc::new).collect());
        draft.ok_or(oci::Error::MissingField {
            object: "index.json",
            field: "manifests",
        })
    }

    fn cut(text: &str, entries: Vec<Arc<Entry>>) -> Option<Self> {
        let members = raw::members(text)?;
        let list = members
            .into_iter()
            .find(|member| member.key == "manifests")?
            .value;
        let (before, after) = (&text[..list.start], &text[list.end..]);
        let list = &text[list];
        // Go writes an absent list as null.
        let Some(ranges) = raw::elements(list) else {
            return Some(Self {
                head: format!("{before}[").into(),
                slots: Arc::default(),
                tail: format!("]{after}").into(),
                is_changed: false,
            });
        };
        let mut slots = Vec::with_capacity(ranges.len());
        let mut end = 1;
        for (range, entry) in ranges.into_iter().zip(entries) {
            slots.push(Arc::new(Slot {
                gap: list[end..range.start].into(),
                text: list[range.clone()].into(),
                entry,
            }));
            end = range.end;
        }
        Some(Self {
            head: format!("{before}[").into(),
            slots: slots.into(),
            tail: format!("{}{after}", &list[end..]).into(),
            is_changed: false,
        })
    }

    /// The entries of which `before` and this, one made of the other, have only one: those
    /// of `before`, and those of this. What both have at the same place from either end,
    /// which is nearly all, is only passed by.
    #[must_use]
    pub fn changes_since<'a>(&'a self, before: &'a Self) -> (Vec<Written<'a>>, Vec<Written<'a>>) {
        let written = |slot: &'a Arc<Slot>| (&*slot.text, &slot.entry);
        let identity = |slot: &Arc<Slot>| Arc::as_ptr(&slot.entry);
        if Arc::ptr_eq(&self.slots, &before.slots) {
            return (Vec::new(), Vec::new());
        }
        let (old, new) = differing(&before.slots, &self.slots, identity);
        (
            old.into_iter().map(written).collect(),
            new.into_iter().map(written).collect(),
        )
    }

    /// The entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.slots.iter().map(|slot| &slot.entry)
    }

    /// Entry `number`, if there is one.
    #[must_use]
    pub fn entry(&self, number: usize) -> Option<&Entry> {
        self.slots.get(number).map(|slot| &*slot.entry)
    }

    /// The JSON text of entry `number`, if there is one.
    #[must_use]
    pub fn text(&self, number: usize) -> Option<&str> {
        self.slots.get(number).map(|slot| &*slot.text)
    }

    /// The JSON texts of all entries, in order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().map(|slot| &*slot.text)
    }

    /// Adds an entry at the end.
    ///
    /// # Errors
    /// If `text` is not JSON.
    pub fn push(&mut self, text: &str) -> Result<(), oci::Error> {
        let entry = parse_entry(self.slots.len(), text)?;
        self.is_changed = true;
        let gap = self.slots.last().map(|slot| slot.gap.clone());
        Arc::make_mut(&mut self.slots).push(Arc::new(Slot {
            gap: gap.unwrap_or_default(),
            text: text.into(),
            entry,
        }));
        Ok(())
    }

    /// Puts `text` in the place of entry `number`, which must be there.
    ///
    /// # Errors
    /// If `text` is not JSON.
    pub fn replace(&mut self, number: usize, text: &str) -> Result<(), oci::Error> {
        let entry = parse_entry(number, text)?;
        if self.text(number).is_some_and(|present| present != text) {
            self.is_changed = true;
            let slot = Arc::make_mut(&mut Arc::make_mut(&mut self.slots)[number]);
            slot.entry = entry;
            slot.text = text.into();
        }
        Ok(())
    }

    /// Removes the entries with these numbers.
    pub fn remove(&mut self, numbers: &[usize]) {
        if numbers.is_empty() {
            return;
        }
        let first = self.slots.first().map(|slot| slot.gap.clone());
        let numbers: HashSet<usize> = numbers.iter().copied().collect();
        let slots = Arc::make_mut(&mut self.slots);
        let mut number = 0;
        slots.retain(|_| {
            number += 1;
            !numbers.contains(&(number - 1))
        });
        self.is_changed |= slots.len() < number;
        // Whatever comes first now stands where the first one stood.
        if let (Some(gap), Some(slot)) = (first, slots.first_mut())
            && !Arc::ptr_eq(&gap, &slot.gap)
        {
            Arc::make_mut(slot).gap = gap;
        }
    }

    /// Sets an annotation of entry `number`, or removes it.
    ///
    /// # Errors
    /// If the entry or its annotations are no objects.
    pub fn annotate(
        &mut self,
        number: usize,
        key: &str,
        value: Option<&str>,
    ) -> Result<(), oci::Error> {
        match self.text(number) {
            Some(text) => {
                let text = annotated(text, key, value)?;
                self.replace(number, &text)
            }
            None => Ok(()),
        }
    }

    /// A copy that counts as not changed yet.
    #[must_use]
    pub fn fresh_copy(&self) -> Self {
        Self {
            is_changed: false,
            ..self.clone()
        }
    }

    /// Goes on as `copy`, which was changed if it says so.
    pub fn adopt(&mut self, copy: Self) {
        let is_changed = self.is_changed || copy.is_changed;
        *self = Self { is_changed, ..copy };
    }

    /// Whether the entries are these very ones.
    #[must_use]
    pub fn has_the_entries_of(&self, other: &Self) -> bool {
        let mut pairs = self.entries().zip(other.entries());
        Arc::ptr_eq(&self.slots, &other.slots)
            || (self.slots.len() == other.slots.len() && pairs.all(|(a, b)| Arc::ptr_eq(a, b)))
    }

    /// Whether anything was changed since it was parsed.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// The text as it is now.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_bytes_in(Vec::new())
    }

    /// The same, in the place of what is in `room`.
    #[must_use]
    pub fn to_bytes_in(&self, mut room: Vec<u8>) -> Vec<u8> {
        let slots = self.slots.iter();
        let len: usize = slots.map(|slot| slot.gap.len() + 1 + slot.text.len()).sum();
        let len = self.head.len() + len + self.tail.len();
        room.clear();
        if room.capacity() < len {
            // With some that the next one, which is longer as a rule, finds there.
            room = Vec::with_capacity(len.next_multiple_of(ROOM));
        }
        room.extend_from_slice(self.head.as_bytes());
        for (number, slot) in self.slots.iter().enumerate() {
            if number > 0 && !slot.gap.contains(',') {
                room.push(b',');
            }
            room.extend_from_slice(slot.gap.as_bytes());
            room.extend_from_slice(slot.text.as_bytes());
        }
        room.extend_from_slice(self.tail.as_bytes());
        room
    }
}

/// The JSON text of a descriptor with an annotation set, or removed.
///
/// # Errors
/// If the descriptor or its annotations are no objects.
pub fn annotated(text: &str, key: &str, value: Option<&str>) -> Result<String, oci::Error> {
    const FIELD: &str = "annotations";
    let not_object = |object: &'static str, text: &str| match json::parse(text.as_bytes()) {
        Ok(found) => oci::Error::NotAnObject {
            object,
            found: (&found).into(),
        },
        Err(error) => error,
    };
    let members = raw::members(text).ok_or_else(|| not_object("descriptor", text))?;
    let present = members.into_iter().find(|member| member.key == FIELD);
    let present = present.map(|member| &text[member.value]);
    let old = present.filter(|text| *text != "null").unwrap_or("{}");
    let new = match value {
        Some(value) => raw::with_member(old, key, &Value::from(value).to_string()),
        None => raw::without_member(old, key),
    };
    let new = new.ok_or_else(|| not_object("annotations", old))?;
    let is_empty = raw::members(&new).is_some_and(|members| members.is_empty());
    let text = match (is_empty, value) {
        (true, None) => raw::without_member(text, FIELD),
        _ => raw::with_member(text, FIELD, &new),
    };
    text.ok_or_else(|| not_object("descriptor", old))
}

/// The JSON text of a descriptor under a ref name, whatever it was called before.
///
/// # Errors
/// If the descriptor or its annotations are no objects.
pub fn named(text: &str, name: &str) -> Result<String, oci::Error> {
    let text = annotated(text, annotations::CONTAINERD_NAME, None)?;
    annotated(&text, annotations::REF_NAME, Some(name))
}

/// What only one of two lists has, each as it says; `identity` is what makes two of their
/// elements the same.
pub(super) fn differing<'a, T, I: Eq + Hash>(
    old: &'a [T],
    new: &'a [T],
    identity: impl Fn(&T) -> I,
) -> (Vec<&'a T>, Vec<&'a T>) {
    let is_same = |(a, b): &(&T, &T)| identity(a) == identity(b);
    let start = old.iter().zip(new).take_while(is_same).count();
    let (old, new) = (&old[start..], &new[start..]);
    let end = old.iter().rev().zip(new.iter().rev());
    let end = end.take_while(is_same).count();
    let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
    // What was put in the place of something else has moved nothing.
    let (old, new): (Vec<&T>, Vec<&T>) = if old.len() == new.len() {
        let pairs = old.iter().zip(new);
        pairs.filter(|pair| !is_same(pair)).unzip()
    } else {
        (old.iter().collect(), new.iter().collect())
    };
    let lacking = |list: &[&'a T], others: &[&T]| -> Vec<&'a T> {
        let known: HashSet<I> = others.iter().map(|other| identity(other)).collect();
        let lacking = list.iter().filter(|one| !known.contains(&identity(one)));
        lacking.copied().collect()
    };
    (lacking(&old, &new), lacking(&new, &old))
}

fn parse_entry(number: usize, text: &str) -> Result<Arc<Entry>, oci::Error> {
    let value = json::parse(text.as_bytes())?;
    Ok(Arc::new(Entry::from_json((number, &value))))
}

#[cfg(test)]
mod tests {
    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    const PRETTY: &str = "{\n  \"x\": 1.50,\n  \"manifests\" : [\n    {\"a\": 1e2},\n    {\"b\": [2]}\n  ],\n  \"y\": {}\n}\n";

    fn changed(text: &str, change: fn(&mut Draft) -> Result<(), oci::Error>) -> String {
        let text = text.replacen('{', "{\"schemaVersion\":2,", 1);
        let mut draft = Draft::parse(text.as_bytes()).expect("it is an index");
        change(&mut draft).expect("it can be changed");
        let text = String::from_utf8(draft.to_bytes()).expect("it is text");
        text.replacen("\"schemaVersion\":2,", "", 1)
    }

    #[test]
    fn what_is_not_changed_keeps_its_bytes() {
        type Change = fn(&mut Draft) -> Result<(), oci::Error>;
        let none: Change = |_| Ok(());
        let push: Change = |draft| draft.push("7");
        let first: Change = |draft| {
            draft.remove(&[0]);
            Ok(())
        };
        let all: Change = |draft| {
            draft.remove(&[0, 1]);
            Ok(())
        };
        let annotate: Change = |draft| draft.annotate(0, "k", Some("v<\u{e9}"));
        let rows: [(&str, Change, &str, &str); 9] = [
            ("nothing", none, PRETTY, PRETTY),
            (
                "added",
                push,
                PRETTY,
                &PRETTY.replace("{\"b\": [2]}", "{\"b\": [2]},\n    7"),
            ),
            (
                "first removed",
                first,
                PRETTY,
                &PRETTY.replace("{\"a\": 1e2},\n    ", ""),
            ),
            (
                "all removed",
                all,
                PRETTY,
                &PRETTY.replace("\n    {\"a\": 1e2},\n    {\"b\": [2]}", ""),
            ),
            (
                "annotated",
                annotate,
                PRETTY,
                &PRETTY.replace("1e2}", "1e2,\"annotations\": {\"k\":\"v<\u{e9}\"}}"),
            ),
            (
                "to none",
                push,
                "{\"manifests\":[ ]}",
                "{\"manifests\":[7 ]}",
            ),
            (
                "odd spaces",
                push,
                "{\"manifests\":[ 1\n, 2 ]}",
                "{\"manifests\":[ 1\n, 2\n, 7 ]}",
            ),
            (
                "to null",
                push,
                "{\"manifests\":null}",
                "{\"manifests\":[7]}",
            ),
            (
                "compact",
                push,
                "{\"manifests\":[1],\"z\":0}",
                "{\"manifests\":[1,7],\"z\":0}",
            ),
        ];
        for (name, change, text, expected) in rows {
            assert_eq!(changed(text, change), expected, "{name}");
        }
    }

    #[test]
    fn annotations_of_a_descriptor() {
        let rows = [
            (
                "none",
                "{}",
                Some("1"),
                Some(r#"{"annotations":{"k":"1"}}"#),
            ),
            (
                "null",
                r#"{"annotations":null}"#,
                Some("1"),
                Some(r#"{"annotations":{"k":"1"}}"#),
            ),
            (
                "others stay",
                r#"{"annotations":{"a":"\u003c"},"size":1.0}"#,
                Some("1"),
                Some(r#"{"annotations":{"a":"\u003c","k":"1"},"size":1.0}"#),
            ),
            (
                "the last one",
                r#"{"size":1,"annotations":{"k":"1"}}"#,
                None,
                Some(r#"{"size":1}"#),
            ),
            ("no object", r#"{"annotations":[]}"#, Some("1"), None),
            ("no descriptor", "[]", None, None),
        ];
        for (name, text, value, expected) in rows {
            let found = annotated(text, "k", value).ok();
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn a_name_takes_the_place_of_all_names() -> TestResult {
        let entry = r#"{"annotations":{"io.containerd.image.name":"docker.io/a:1","org.opencontainers.image.ref.name":"1"}}"#;
        let expected = r#"{"annotations":{"org.opencontainers.image.ref.name":"b"}}"#;
        assert_eq!(named(entry, "b")?, expected);
        Ok(())
    }

    #[test]
    fn setting_what_is_set_is_no_change() -> TestResult {
        let text = br#"{"schemaVersion":2,"manifests":[{"annotations":{"k":"v"}}]}"#;
        let mut draft = Draft::parse(text)?;
        draft.annotate(0, "k", Some("v"))?;
        draft.remove(&[]);
        assert!(!draft.is_changed());
        draft.annotate(0, "k", Some("w"))?;
        assert!(draft.is_changed());
        Ok(())
    }
}
