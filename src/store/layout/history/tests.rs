use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::store::layout::Layout;
use crate::store::{Verdicts, layout};

/// An index in short: `a1` is the name `a` for something called `1`.
fn draft(entries: &str) -> Draft {
    let entry = |word: &str| {
        let (name, digest) = word.split_at(1);
        format!(
            r#"{{"digest":"{digest}","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}}}"#
        )
    };
    let entries: Vec<String> = entries.split_whitespace().map(entry).collect();
    let text = format!(
        r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
        entries.join(",")
    );
    Draft::parse(text.as_bytes()).expect("it is an index")
}

fn set(entries: &str) -> EntrySet {
    EntrySet::of(&draft(entries))
}

/// What the index becomes when `foreign` is written: itself, or healed.
fn write(history: &mut History, foreign: &str) -> BTreeSet<String> {
    let mut index = draft(foreign);
    let before = EntrySet::of(&index);
    let mut healed = None;
    if let Judgement::Stale { ours, base } = history.judge(&before) {
        restore(&mut index, &ours, &base).expect("entries are JSON");
        healed = Some(EntrySet::of(&index));
    }
    history.heal(before, healed, Instant::now());
    short_form(&index)
}

fn short_form(index: &Draft) -> BTreeSet<String> {
    let word = |text: &str| {
        let value: serde_json::Value = serde_json::from_str(text).expect("it is JSON");
        let name = &value["annotations"]["org.opencontainers.image.ref.name"];
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        text(name) + &text(&value["digest"])
    };
    index.texts().map(word).collect()
}

/// A history of views, from `|`-separated ones; those with a `!` are our commits.
fn history(views: &str) -> History {
    let mut views = views.split('|');
    let mut history = History::new(set(views.next().unwrap_or_default()));
    for view in views {
        let (view, author) = match view.strip_prefix('!') {
            Some(view) => (view, Author::Ours),
            None => (view, Author::Foreign),
        };
        history.record(set(view), author, Instant::now());
    }
    history
}

#[test]
fn stale_writes_and_deletions() {
    let rows = [
        ("nothing of ours", "a1|a1 b1", "a1 c1", "a1 c1"),
        ("stale, its own added", "a1|!a1 b1", "a1 c1", "a1 b1 c1"),
        ("stale, nothing changed", "a1|!a1 b1", "a1", "a1 b1"),
        ("stale, its own moved", "a1|!a1 b1", "a2", "a2 b1"),
        ("stale, its own removed", "a1 d1|!a1 d1 b1", "a1", "a1 b1"),
        (
            "stale by two commits",
            "a1|!a1 b1|!a1 b1 c1",
            "a1 d1",
            "a1 b1 c1 d1",
        ),
        (
            "stale by the second",
            "a1|!a1 b1|!a1 b1 c1",
            "a1 b1 d1",
            "a1 b1 c1 d1",
        ),
        ("the first deleted", "a1|!a1 b1|!a1 b1 c1", "a1 c1", "a1 c1"),
        (
            "the first moved",
            "a1|!a1 b1|!a1 b1 c1",
            "a1 b2 c1",
            "a1 b2 c1",
        ),
        (
            "one of one commit deleted",
            "a1|!a1 b1 c1",
            "a1 b1",
            "a1 b1",
        ),
        ("seen and added to", "a1|!a1 b1", "a1 b1 c1", "a1 b1 c1"),
        ("ours moved, stale", "a1|!a2", "a1 c1", "a2 c1"),
        ("ours moved, and by the writer", "a1|!a2", "a3", "a3"),
        (
            "ours, then removed by us",
            "a1|!a1 b1|!a1",
            "a1 c1",
            "a1 c1",
        ),
        (
            "removed by us, and there again",
            "a1 b1|!a1",
            "a1 b1",
            "a1 b1",
        ),
        (
            "foreign ones are not ours",
            "a1|a1 b1|!a1 b1 c1",
            "a1 d1",
            "a1 c1 d1",
        ),
        (
            "another layout altogether",
            "a1 b1 c1|!a1 b1 c1 d1",
            "x1",
            "x1",
        ),
        ("emptied", "a1 b1|!a1 b1 c1", "", ""),
    ];
    for (row, views, foreign, expected) in rows {
        let found = write(&mut history(views), foreign);
        assert_eq!(found, short_form(&draft(expected)), "{row}");
    }
}

#[test]
fn each_commit_is_brought_back_once() {
    let mut history = history("a1|!a1 b1");
    assert_eq!(write(&mut history, "a1 c1"), short_form(&draft("a1 b1 c1")));
    assert_eq!(write(&mut history, "a1 c1"), short_form(&draft("a1 c1")));
    history.record(set("a1 c1 d1"), Author::Ours, Instant::now());
    assert_eq!(write(&mut history, "a1 c1"), short_form(&draft("a1 c1 d1")));
}

#[test]
fn what_is_long_past_is_forgotten() {
    let now = Instant::now();
    let mut history = History::new(set("a1"));
    history.record(set("a1 b1"), Author::Ours, now);
    let later = now + REMEMBERED + Duration::from_secs(1);
    history.record(set("a1 b1 c1"), Author::Foreign, later);
    assert!(matches!(history.judge(&set("a1 d1")), Judgement::Wanted));
}

#[test]
fn a_layout_is_healed() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    layout::init(dir.path())?;
    let path = dir.path().join("index.json");
    let writer = LayoutWriter::open(
        &Layout::open(dir.path(), &[])?,
        Arc::new(Verdicts::new(None)),
    )?;
    let mut history = history("a1|!a1 b1");
    std::fs::write(&path, draft("a1 c1").to_bytes())?;
    writer.heal(&mut history, Instant::now())?;
    let healed = Draft::parse(&std::fs::read(&path)?)?;
    assert_eq!(short_form(&healed), short_form(&draft("a1 b1 c1")));
    std::fs::write(&path, draft("a1 c1").to_bytes())?;
    let view = writer.heal(&mut history, Instant::now())?;
    assert_eq!(view.entries().len(), 2, "the second time it is respected");
    Ok(())
}

/// A step of a random story: we commit a name, or a tool that has read the index that many
/// commits ago writes it with one name more.
#[derive(Debug, Clone)]
enum Event {
    Commit(char),
    StaleWrite(char, usize),
}

proptest! {
    /// Each commit of ours is dropped once at most: then all are there in the end.
    #[test]
    fn what_is_dropped_once_is_not_lost(
        events in proptest::collection::vec(
            prop_oneof![
                proptest::char::range('a', 'z').prop_map(Event::Commit),
                (proptest::char::range('A', 'Z'), 0..3usize)
                    .prop_map(|(name, age)| Event::StaleWrite(name, age)),
            ],
            0..20,
        ),
    ) {
        let mut history = History::new(set("0x"));
        let mut views = vec![BTreeSet::from(["0x".to_owned()])];
        let (mut ours, mut safe) = (BTreeSet::new(), 0);
        for event in events {
            let newest = views[views.len() - 1].clone();
            match event {
                Event::Commit(name) => {
                    let mut view = newest;
                    view.insert(format!("{name}1"));
                    ours.insert(format!("{name}1"));
                    let text: Vec<String> = view.iter().cloned().collect();
                    history.record(set(&text.join(" ")), Author::Ours, Instant::now());
                    views.push(view);
                }
                Event::StaleWrite(name, age) => {
                    // Not older than the last one: that would drop commits twice.
                    let base = (views.len() - 1).saturating_sub(age).max(safe);
                    let mut view = views[base].clone();
                    view.insert(format!("{name}1"));
                    let text: Vec<String> = view.into_iter().collect();
                    views.push(write(&mut history, &text.join(" ")));
                    safe = views.len() - 1;
                }
            }
        }
        let last = &views[views.len() - 1];
        prop_assert!(ours.is_subset(last), "{ours:?} in {last:?}");
    }
}
