use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// An index in short: `a1` is the name `a` for something called `1`, `a1+` the same with
/// something that no tool knows.
fn draft(entries: &str) -> Draft {
    let entry = |word: &str| {
        let (name, digest) = word.split_at(1);
        let (digest, more) = match digest.strip_suffix('+') {
            Some(digest) => (digest, r#","more":1"#),
            None => (digest, ""),
        };
        format!(
            r#"{{"digest":"{digest}","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}{more}}}"#
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
fn write(history: &mut History, foreign: &str, manner: Manner) -> BTreeSet<String> {
    let mut index = draft(foreign);
    let foreign = EntrySet::of(&index);
    let judgement = history.judge(&foreign, manner);
    history.record(&foreign, Author::Foreign, Instant::now());
    if let Judgement::Stale(stale) = judgement {
        stale.restore(&mut index).expect("entries are JSON");
        history.record(&EntrySet::of(&index), Author::Healing, Instant::now());
    }
    short_form(&index)
}

fn short_form(index: &Draft) -> BTreeSet<String> {
    let word = |text: &str| {
        let value: serde_json::Value = serde_json::from_str(text).expect("it is JSON");
        let name = &value["annotations"]["org.opencontainers.image.ref.name"];
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let more = if value["more"].is_null() { "" } else { "+" };
        text(name) + &text(&value["digest"]) + more
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
        history.record(&set(view), author, Instant::now());
    }
    history
}

#[test]
fn stale_writes_and_deletions() {
    let rows = [
        ("nothing of ours", "a1|a1 b1", "a1 c1", "a1 c1"),
        ("stale, its own added", "a1|!a1 b1", "a1 c1", "a1 b1 c1"),
        ("stale, its own moved", "a1|!a1 b1", "a2", "a2 b1"),
        ("stale, its own removed", "a1 d1|!a1 d1 b1", "a1", "a1 b1"),
        (
            "stale by two commits",
            "a1|!a1 b1|!a1 b1 c1",
            "a1 d1",
            "a1 b1 c1 d1",
        ),
        (
            "stale by two, nothing changed",
            "a1|!a1 b1|!a1 b1 c1",
            "a1",
            "a1 b1 c1",
        ),
        (
            "stale by the second",
            "a1|!a1 b1|!a1 b1 c1",
            "a1 b1 d1",
            "a1 b1 c1 d1",
        ),
        ("the only one deleted", "a1|!a1 b1", "a1", "a1"),
        (
            "the newest deleted",
            "a1|!a1 b1|!a1 b1 c1",
            "a1 b1",
            "a1 b1",
        ),
        ("the first deleted", "a1|!a1 b1|!a1 b1 c1", "a1 c1", "a1 c1"),
        ("the last of all deleted", "|!b1", "", ""),
        ("a foreign one deleted", "a1|!a1 b1", "b1", "b1"),
        (
            "deleted, and others written in another way",
            "a1+ d1|!a1+ d1 b1",
            "a1 d1",
            "a1 d1",
        ),
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
        ("ours moved, nothing changed", "a1|!a2", "a1", "a2"),
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
        let found = write(&mut history(views), foreign, Manner::Other);
        assert_eq!(found, short_form(&draft(expected)), "{row}");
    }
}

/// A copy deletes nothing: what it lacks it has not seen.
#[test]
fn copies_of_what_is_there_already() {
    let rows = [
        ("the only one dropped", "a1|!a1 b1", "a1", "a1 b1"),
        (
            "the newest dropped",
            "a1|!a1 b1|!a1 b1 c1",
            "a1 b1",
            "a1 b1 c1",
        ),
        ("ours moved back", "a1|!a2", "a1", "a2"),
        ("nothing dropped", "a1|!a1 b1", "a1 b1", "a1 b1"),
        ("ours, deleted by others", "a1|!a1 b1|a1", "a1", "a1"),
        (
            "ours, deleted by others, its own added",
            "a1|!a1 b1|a1",
            "a1 c1",
            "a1 c1",
        ),
    ];
    for (row, views, foreign, expected) in rows {
        let mut history = history(views);
        // As often as it likes: each may be another one that began long ago.
        for time in 1..4 {
            let found = write(&mut history, foreign, Manner::Copy);
            assert_eq!(found, short_form(&draft(expected)), "{row}, time {time}");
        }
    }
}

#[test]
fn who_drops_a_commit_again_means_it() {
    let rows = [
        ("the same index", &["a1 c1", "a1 c1"][..], "a1 c1"),
        ("with more of its own", &["a1 c1", "a1 c1 d1"], "a1 c1 d1"),
        ("by a deletion", &["a1 c1", "a1 c1"], "a1 c1"),
        // These have not seen the first writer's entry either.
        ("another stale one", &["a1 c1", "a1 d1"], "a1 b1 d1"),
        ("a third one", &["a1 c1", "a1 d1", "a1 e1"], "a1 b1 e1"),
    ];
    for (row, writes, expected) in rows {
        let mut history = history("a1|!a1 b1");
        let found = writes
            .iter()
            .map(|foreign| write(&mut history, foreign, Manner::Other));
        let last = found.last().expect("something is written");
        assert_eq!(last, short_form(&draft(expected)), "{row}");
    }
}

#[test]
fn what_is_long_past_is_forgotten() {
    let now = Instant::now();
    let mut history = History::new(set("a1"));
    history.record(&set("a1 b1"), Author::Ours, now);
    let later = now + REMEMBERED + Duration::from_secs(1);
    history.record(&set("a1 b1 c1"), Author::Foreign, later);
    let judgement = history.judge(&set("a1 d1"), Manner::Other);
    assert!(matches!(judgement, Judgement::Wanted));
}

/// A step of a random story: we commit a name, or a tool that has read the index that many
/// commits ago writes it with one name more.
#[derive(Debug, Clone)]
enum Event {
    Commit(char),
    StaleWrite(char, usize),
}

proptest! {
    /// However old the index is that a tool writes with an entry of its own, none of our
    /// commits is lost.
    #[test]
    fn what_is_dropped_is_not_lost(
        events in proptest::collection::vec(
            prop_oneof![
                proptest::char::range('a', 'z').prop_map(Event::Commit),
                (proptest::char::range('A', 'Z'), 0..8usize)
                    .prop_map(|(name, age)| Event::StaleWrite(name, age)),
            ],
            0..30,
        ),
    ) {
        let mut history = History::new(set("0x"));
        let mut views = vec![BTreeSet::from(["0x".to_owned()])];
        let mut ours = BTreeSet::new();
        for (number, event) in events.into_iter().enumerate() {
            let text = |view: BTreeSet<String>| view.into_iter().collect::<Vec<_>>().join(" ");
            match event {
                Event::Commit(name) => {
                    let mut view = views[views.len() - 1].clone();
                    view.insert(format!("{name}1"));
                    ours.insert(format!("{name}1"));
                    history.record(&set(&text(view.clone())), Author::Ours, Instant::now());
                    views.push(view);
                }
                Event::StaleWrite(name, age) => {
                    let mut view = views[(views.len() - 1).saturating_sub(age)].clone();
                    // Each has something that no other has.
                    view.insert(format!("{name}{number}"));
                    views.push(write(&mut history, &text(view), Manner::Other));
                }
            }
        }
        let last = &views[views.len() - 1];
        prop_assert!(ours.is_subset(last), "{ours:?} in {last:?}");
    }
}

/// Steps that each add a name, and may be as heavy as that; the first name that is still
/// remembered.
fn remembered(steps: usize, padding: usize) -> Result<usize, Box<dyn std::error::Error>> {
    let mut history = History::new(set(""));
    let now = Instant::now();
    for number in 0..steps {
        let before = draft("");
        let mut after = before.clone();
        let padding = "x".repeat(padding);
        after.push(&format!(
            r#"{{"annotations":{{"org.opencontainers.image.ref.name":"{number}"}},"x":"{padding}"}}"#
        ))?;
        history.advance(Delta::of_drafts(&before, &after), Author::Ours, now);
    }
    let weight: u64 = history.steps.iter().map(|step| step.delta.weight()).sum();
    assert_eq!(weight, history.weight, "what is forgotten is not counted");
    assert_eq!(history.newest().len(), steps, "the newest view is whole");
    Ok(steps - history.steps.len())
}

#[test]
fn what_is_remembered_is_bounded() -> Result<(), Box<dyn std::error::Error>> {
    assert_eq!(remembered(100, 10)?, 0, "few");
    assert_eq!(remembered(MAX_STEPS + 5, 10)?, 5, "too many");
    let half = usize::try_from(MAX_WEIGHT / 2)?;
    // As written, and in the form that is compared.
    assert_eq!(remembered(5, half / 2 - 1000)?, 3, "too heavy");
    assert_eq!(remembered(2, half)?, 1, "the last one alone");
    Ok(())
}
