use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::oci::Digest;
use crate::store::Layout;
use crate::store::blob::Identity;
use crate::store::layout::index::draft::Draft;

type TestResult = Result<(), Box<dyn std::error::Error>>;

const REF: &str = "org.opencontainers.image.ref.name";
const FULL: &str = "io.containerd.image.name";

fn entry(content: &str, annotations: &[(&str, &str)]) -> Value {
    let annotations: serde_json::Map<_, _> = annotations
        .iter()
        .map(|(key, value)| ((*key).into(), json!(value)))
        .collect();
    json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": Digest::of(content.as_bytes()).as_str(),
        "size": content.len(),
        "annotations": annotations,
    })
}

fn on(platform: &str, mut entry: Value) -> Value {
    entry["platform"] = json!({"os": "linux", "architecture": platform});
    entry
}

/// A snapshot of these entries, after `before`.
fn snapshot(
    entries: &[Value],
    before: Option<&Snapshot>,
) -> Result<Snapshot, Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    crate::store::layout::init(dir.path())?;
    let index = json!({"schemaVersion": 2, "manifests": entries});
    std::fs::write(dir.path().join("index.json"), index.to_string())?;
    let view = Layout::open(dir.path(), &[])?.read_index()?;
    Ok(Snapshot::new(Arc::new(view), before))
}

/// Every path that shows something, with what it shows shortened to be readable.
fn shown(snapshot: &Snapshot) -> Vec<String> {
    fn walk(level: &Level, path: &str, found: &mut Vec<String>) {
        match level.here.as_deref() {
            Some(Here::Link(target)) => {
                found.push(format!("{path} -> {}", String::from_utf8_lossy(target)));
            }
            Some(Here::Image {
                target: Target::Platforms(of),
                ..
            }) => {
                found.push(format!("{path} ({} platforms)", of.len()));
            }
            Some(Here::Image {
                target: Target::One(_),
                ..
            }) => found.push(path.to_owned()),
            None => {}
        }
        for (name, level) in &level.below {
            let name = String::from_utf8_lossy(name);
            let below = if path.is_empty() {
                name.into()
            } else {
                format!("{path}/{name}")
            };
            walk(level, &below, found);
        }
    }
    let mut found = Vec::new();
    walk(&snapshot.root, "", &mut found);
    found
}

#[test]
fn names() -> TestResult {
    let digest = |content: &str| Digest::of(content.as_bytes()).to_string();
    let exact = |name: &str, content: &str| format!("{name}@{}", digest(content));
    let rows: &[(&str, Vec<Value>, Vec<String>)] = &[
        ("nothing", vec![], vec![]),
        ("one", vec![entry("1", &[(REF, "a:1")])], vec!["a:1".into()]),
        ("unnamed", vec![entry("1", &[])], vec![digest("1")]),
        (
            "a name that is also a prefix",
            vec![entry("1", &[(REF, "a")]), entry("2", &[(REF, "a/b")])],
            vec!["a".into(), "a/b".into()],
        ),
        (
            "one name twice",
            vec![entry("1", &[(REF, "a")]), entry("2", &[(REF, "a")])],
            vec!["a".into(), exact("a", "2"), exact("a", "1")],
        ),
        (
            "one name twice for the same",
            vec![entry("1", &[(REF, "a")]), entry("1", &[(REF, "a")])],
            vec!["a".into()],
        ),
        (
            "one name for two platforms",
            vec![
                on("amd64", entry("1", &[(REF, "a")])),
                on("arm64", entry("2", &[(REF, "a")])),
            ],
            vec!["a (2 platforms)".into()],
        ),
        (
            "one name twice for one platform",
            vec![
                on("amd64", entry("1", &[(REF, "a")])),
                on("amd64", entry("2", &[(REF, "a")])),
            ],
            vec!["a".into(), exact("a", "2"), exact("a", "1")],
        ),
        (
            "full name",
            vec![entry(
                "1",
                &[(REF, "3.19"), (FULL, "docker.io/library/alpine:3.19")],
            )],
            vec![
                "3.19 -> docker.io/library/alpine:3.19".into(),
                "docker.io/library/alpine:3.19".into(),
            ],
        ),
        (
            "full name below the short one",
            vec![entry("1", &[(REF, "a"), (FULL, "a/b")])],
            vec!["a".into(), "a/b".into()],
        ),
        (
            "short name of two",
            vec![
                entry("1", &[(REF, "latest"), (FULL, "x:latest")]),
                entry("2", &[(REF, "latest"), (FULL, "y:latest")]),
            ],
            vec!["x:latest".into(), "y:latest".into()],
        ),
        (
            "nested short name",
            vec![entry("1", &[(REF, "p/q"), (FULL, "x")])],
            vec!["p/q -> ../x".into(), "x".into()],
        ),
    ];
    for (name, entries, expected) in rows {
        let mut expected = expected.clone();
        expected.sort();
        let mut found = shown(&snapshot(entries, None)?);
        found.sort();
        assert_eq!(found, expected, "{name}");
    }
    Ok(())
}

#[test]
fn a_ref_with_literally_the_exact_name_goes_before() -> TestResult {
    let literal = format!("a@{}", Digest::of(b"1"));
    let entries = [
        entry("1", &[(REF, "a")]),
        entry("2", &[(REF, "a")]),
        entry("3", &[(REF, &literal)]),
    ];
    let snapshot = snapshot(&entries, None)?;
    let level = snapshot.find(&[literal.into_bytes()]).ok_or("not there")?;
    let shows = level.here.as_ref().map(|here| here.shows());
    assert_eq!(shows, Some(Digest::of(b"3").to_string()));
    Ok(())
}

#[test]
fn what_shows_something_else_gets_an_epoch_of_its_own() -> TestResult {
    let epoch = |snapshot: &Snapshot| snapshot.find(&[b"a".to_vec()]).map(|level| level.epoch);
    let stays = entry("s", &[(REF, "stays")]);
    let first = snapshot(&[entry("1", &[(REF, "a")]), stays.clone()], None)?;
    let same = snapshot(&[stays.clone(), entry("1", &[(REF, "a")])], Some(&first))?;
    assert_eq!(epoch(&first), epoch(&same), "another order");
    let other = snapshot(&[entry("2", &[(REF, "a")]), stays.clone()], Some(&same))?;
    assert_ne!(epoch(&same), epoch(&other));
    let back = snapshot(&[entry("1", &[(REF, "a")]), stays.clone()], Some(&other))?;
    assert_ne!(epoch(&other), epoch(&back));
    assert_ne!(epoch(&back), epoch(&first), "the first one is used up");
    let gone = snapshot(&[stays], Some(&back))?;
    assert_eq!(epoch(&gone), None);
    Ok(())
}

#[test]
fn many_entries_of_one_name_take_little_time() -> TestResult {
    // Each compared with each other they take minutes.
    const COUNT: usize = 20_000;
    let entries: Vec<Value> = (0..COUNT)
        .map(|number| entry(&number.to_string(), &[(REF, "app")]))
        .collect();
    let begun = std::time::Instant::now();
    let many = snapshot(&entries, None)?;
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(10), "took {took:?}");
    assert_eq!(
        many.images(),
        COUNT + 1,
        "the name, and each with its digest"
    );
    Ok(())
}

/// The view that is there when `draft` was written.
fn view(draft: &Draft) -> Arc<View> {
    let metadata = std::fs::metadata("/").expect("it is there");
    Arc::new(View::of_draft(
        draft,
        draft.to_bytes().into(),
        Identity::from(&metadata),
    ))
}

#[test]
fn what_is_made_of_the_snapshot_before() -> TestResult {
    type Annotations = &'static [(&'static str, &'static str)];
    let rows: [(&str, Annotations, bool); 6] = [
        ("a new name", &[(REF, "new")], true),
        ("below a name", &[(REF, "a/b/c")], true),
        ("no name", &[], true),
        ("a second entry of a name", &[(REF, "a")], false),
        ("a full name", &[(REF, "x"), (FULL, "y")], false),
        ("what may be an exact name", &[(REF, "a@x")], false),
    ];
    let index = json!({"schemaVersion": 2, "manifests": [entry("1", &[(REF, "a")])]});
    let draft = Draft::parse(index.to_string().as_bytes())?;
    let before = Snapshot::new(view(&draft), None);
    for (name, annotations, expected) in rows {
        let mut draft = draft.clone();
        draft.push(&entry("2", annotations).to_string())?;
        let found = next::after(&before, &view(&draft));
        assert_eq!(found.is_some(), expected, "{name}");
    }
    Ok(())
}

/// The paths, what they show, and since when.
fn dated(snapshot: &Snapshot) -> Vec<String> {
    let (mut found, mut rest) = (Vec::new(), vec![(String::new(), &snapshot.root)]);
    while let Some((path, level)) = rest.pop() {
        let here = level.here.as_ref().map(|here| here.shows());
        found.push(format!("{path} {here:?} {}", level.epoch));
        let below = level.below.iter();
        rest.extend(below.map(|(name, level)| {
            let name = String::from_utf8_lossy(name);
            (format!("{path}/{name}"), &**level)
        }));
    }
    found.sort();
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_made_of_the_one_before_is_what_is_made_anew(
        steps in prop::collection::vec(
            (0..8_usize, 0..3_usize, 0..6_usize, 0..12_usize, any::<bool>()),
            1..12,
        ),
    ) {
        const NAMES: [&str; 8] = ["a", "a/b", "a/b/c", "d", "d/e", "", "f/g", "a@x"];
        let text = br#"{"schemaVersion":2,"manifests":[]}"#;
        let mut draft = Draft::parse(text).expect("it is an index");
        let mut stepwise = Snapshot::new(view(&draft), None);
        let mut anew = Snapshot::new(view(&draft), None);
        for (name, content, place, kind, is_removed) in steps {
            let annotations: &[(&str, &str)] = match kind {
                0 => &[],
                1 => &[(REF, NAMES[name]), (FULL, "a/full")],
                _ => &[(REF, NAMES[name])],
            };
            let new = entry(&content.to_string(), annotations).to_string();
            let count = draft.entries().count();
            if is_removed && count > 0 {
                draft.remove(&[place % count]);
            } else if place < count && kind > 6 {
                draft.replace(place, &new).expect("it is JSON");
            } else {
                draft.push(&new).expect("it is JSON");
            }
            let next = Snapshot::new(view(&draft), Some(&stepwise));
            let again = Snapshot::made_anew(view(&draft), Some(&anew), &mut BTreeSet::new());
            prop_assert_eq!(dated(&next), dated(&again));
            (stepwise, anew) = (next, again);
        }
    }
}
