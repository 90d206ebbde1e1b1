use super::*;

/// An index in short: `name=digit` is an entry with a ref name, `full/name=digit` one
/// with both names, `=digit` one without, and `digit:arch` has a platform.
fn draft(entries: &str) -> Draft {
    let entries: Vec<String> = entries.split_whitespace().map(entry).collect();
    let text = format!(
        r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
        entries.join(",")
    );
    Draft::parse(text.as_bytes()).expect("it is an index")
}

fn entry(word: &str) -> String {
    let (names, content) = word.split_once('=').expect("name=content");
    let (digit, platform) = content.split_once(':').unwrap_or((content, ""));
    let mut value = serde_json::json!({
        "mediaType": "text/plain",
        "digest": digest(digit),
        "size": 1,
    });
    if !platform.is_empty() {
        value["platform"] = serde_json::json!({"os": "linux", "architecture": platform});
    }
    let (full, name) = names.rsplit_once('/').unwrap_or(("", names));
    if !full.is_empty() {
        value["annotations"][annotations::CONTAINERD_NAME] = full.into();
    }
    if !name.is_empty() {
        value["annotations"][annotations::REF_NAME] = name.into();
    }
    value.to_string()
}

fn digest(digit: &str) -> String {
    format!("sha256:{}", digit.repeat(64))
}

/// The index in the short form of [`draft`].
fn short_form(draft: &Draft) -> String {
    let word = |entry: &std::sync::Arc<Entry>| {
        let full = entry.containerd_name.as_deref();
        let full = full.map_or(String::new(), |full| format!("{full}/"));
        let name = entry.ref_name.as_deref().unwrap_or_default();
        let descriptor = entry.descriptor.as_ref().expect("it is right");
        let platform = descriptor.platform.as_ref();
        let platform = platform.map_or(String::new(), |p| format!(":{}", p.architecture));
        format!(
            "{full}{name}={}{platform}",
            &descriptor.digest.encoded()[..1]
        )
    };
    draft.entries().map(word).collect::<Vec<_>>().join(" ")
}

/// What became of the index, or which refusal it was.
fn outcome(draft: &Draft, result: Result<(), Refusal>) -> String {
    match result {
        Ok(()) => short_form(draft),
        Err(Refusal::NotFound { .. }) => "not found".to_owned(),
        Err(Refusal::Exists { .. }) => "exists".to_owned(),
        Err(Refusal::Several { digests, .. }) => format!("{} images", digests.len()),
        Err(Refusal::ShortName { full_name, .. }) => format!("short for {full_name}"),
        Err(Refusal::Malformed { .. }) => "malformed".to_owned(),
        Err(Refusal::Moved { .. }) => "moved".to_owned(),
    }
}

fn name(text: &str) -> RefName {
    text.parse().expect("it is a ref name")
}

#[test]
fn giving_a_name() {
    use Collision::{Refuse, Replace};
    let rows = [
        ("new", "a=1", "b", "=2", Refuse, "a=1 b=2"),
        ("the same", "a=1 b=2", "b", "=2", Refuse, "a=1 b=2"),
        ("taken", "a=1 b=2", "a", "=2", Refuse, "exists"),
        (
            "replaced in place",
            "a=1 b=2",
            "a",
            "=3",
            Replace,
            "a=3 b=2",
        ),
        (
            "all that had it go",
            "a=1 b=2 a=3",
            "a",
            "=4",
            Replace,
            "a=4 b=2",
        ),
        ("other names are lost", "", "a", "full/x=1", Refuse, "a=1"),
        (
            "one of two",
            "a=1:arm64 a=2:amd64",
            "a",
            "=2",
            Refuse,
            "exists",
        ),
        (
            "a short name is taken",
            "full/1=1",
            "1",
            "=2",
            Refuse,
            "exists",
        ),
        (
            "a short name is taken away",
            "full/1=1",
            "1",
            "=2",
            Replace,
            "full/=1 1=2",
        ),
        (
            "the same, beside a short name",
            "a=2 full/a=1",
            "a",
            "=2",
            Refuse,
            "a=2 full/a=1",
        ),
    ];
    for (row, index, new, content, collision, expected) in rows {
        let mut draft = draft(index);
        let result = set(&mut draft, &name(new), &[entry(content)], collision);
        assert_eq!(outcome(&draft, result), expected, "{row}");
    }
}

#[test]
fn what_a_name_means() {
    let at_2 = format!("a@{}", digest("2"));
    let bare = digest("1");
    let rows = [
        ("a ref", "a=1 b=2", "b", "1"),
        ("none", "a=1", "b", "not found"),
        ("one twice", "a=1 a=1", "a", "0 1"),
        ("two", "a=1 a=2", "a", "2 images"),
        ("two platforms", "a=1:arm64 a=2:amd64", "a", "0 1"),
        ("one platform twice", "a=1:arm64 a=2:arm64", "a", "2 images"),
        ("one of two", "a=1 a=2", &at_2, "1"),
        ("none of two", "a=1 a=3", &at_2, "not found"),
        ("by full name", "x=1 full/1=2", "full", "1"),
        ("by short name", "x=1 full/1=2", "1", "1"),
        ("a ref before a short name", "full/1=2 1=3", "1", "1"),
        ("without a name", "a=1 =1", &bare, "1"),
        ("no entry of its own", "a=1", &bare, "not found"),
    ];
    for (row, index, name, expected) in rows {
        let draft = draft(index);
        let found = match resolve(&draft, name) {
            Ok(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                numbers.join(" ")
            }
            Err(refusal) => outcome(&draft, Err(refusal)),
        };
        assert_eq!(found, expected, "{row}");
    }
}

#[test]
fn taking_a_name_away() {
    let at_2 = format!("a@{}", digest("2"));
    let bare = digest("1");
    let rows = [
        ("a ref", "a=1 b=2", "a", "b=2"),
        ("none", "a=1", "b", "not found"),
        ("two", "a=1 a=2", "a", "2 images"),
        ("one of two", "a=1 a=2", &at_2, "a=1"),
        ("both platforms", "a=1:arm64 a=2:amd64 b=1", "a", "b=1"),
        ("a full name", "full/1=1 b=2", "full", "b=2"),
        ("a short name", "full/1=1", "1", "short for full"),
        ("no name", "=1 a=1", &bare, "a=1"),
    ];
    for (row, index, name, expected) in rows {
        let mut draft = draft(index);
        let result = remove(&mut draft, name).map(drop);
        assert_eq!(outcome(&draft, result), expected, "{row}");
    }
}

#[test]
fn renaming() {
    use Collision::{Refuse, Replace};
    let rows = [
        ("free", "a=1 b=2", "a", "c", Refuse, "c=1 b=2"),
        ("taken", "a=1 b=2", "a", "b", Refuse, "exists"),
        ("replaced", "a=1 b=2", "a", "b", Replace, "b=1"),
        ("itself", "a=1", "a", "a", Refuse, "a=1"),
        ("both names", "full/1=1", "full", "c", Refuse, "c/c=1"),
        (
            "a short name",
            "full/1=1",
            "1",
            "c",
            Refuse,
            "short for full",
        ),
        ("none", "", "a", "b", Refuse, "not found"),
        (
            "to a short name",
            "a=1 full/1=2",
            "a",
            "1",
            Refuse,
            "exists",
        ),
        (
            "a short name is taken away",
            "a=1 full/1=2 1=3",
            "a",
            "1",
            Replace,
            "1=1 full/=2",
        ),
        (
            "to its own short name",
            "full/1=1",
            "full",
            "1",
            Refuse,
            "1/1=1",
        ),
    ];
    for (row, index, old, new, collision, expected) in rows {
        let mut draft = draft(index);
        let result = rename(&mut draft, old, &name(new), collision);
        assert_eq!(outcome(&draft, result), expected, "{row}");
    }
}

#[test]
fn merging_descriptors() {
    use Collision::{Refuse, Replace};
    let rows = [
        ("new names", "a=1", "b=2 c=3", Refuse, "a=1 b=2 c=3"),
        ("the same", "a=1", "a=1", Refuse, "a=1"),
        ("taken", "a=1", "a=2", Refuse, "exists"),
        ("replaced", "a=1 b=1", "a=2", Replace, "a=2 b=1"),
        ("full names stay", "", "full/1=2", Refuse, "full/1=2"),
        ("without names", "=1", "=1 =2 =2", Refuse, "=1 =2"),
        ("a short name is taken", "full/1=1", "1=2", Refuse, "exists"),
        (
            "a short name is taken away",
            "full/1=1 b=1",
            "1=2 b=1",
            Replace,
            "full/=1 b=1 1=2",
        ),
        (
            "what a short name means",
            "full/1=1",
            "1=1",
            Refuse,
            "full/1=1",
        ),
        (
            "one short name of two",
            "f/1=1",
            "g/1=2",
            Refuse,
            "f/1=1 g/1=2",
        ),
        (
            "some of those that had it go",
            "a=1 b=2 a=3 c=4 c=5",
            "a=6 c=6",
            Replace,
            "a=6 b=2 c=6",
        ),
        (
            "two platforms",
            "",
            "a=1:arm64 a=2:amd64",
            Refuse,
            "a=1:arm64 a=2:amd64",
        ),
    ];
    for (row, index, new, collision, expected) in rows {
        let mut draft = draft(index);
        let new: Vec<String> = new.split_whitespace().map(entry).collect();
        let result = merge(&mut draft, &new, collision);
        assert_eq!(outcome(&draft, result), expected, "{row}");
    }
}

#[test]
fn annotating() {
    let mut draft = draft("a=1 b=2");
    annotate(&mut draft, "b", "k", Some("v")).expect("it is there");
    assert_eq!(short_form(&draft), "a=1 b=2");
    let text = draft.text(1).expect("it is there");
    assert!(text.contains(r#""k":"v""#), "{text}");
    annotate(&mut draft, "b", "k", None).expect("it is there");
    assert_eq!(draft.text(1), Some(entry("b=2").as_str()));
    assert!(annotate(&mut draft, "c", "k", None).is_err());
}

/// With work that grows as the square of the entries this takes minutes.
#[test]
fn many_entries_take_linear_time() -> Result<(), Refusal> {
    const COUNT: usize = 40_000;
    let start = std::time::Instant::now();
    let entries = |digit: &str| -> Vec<String> {
        let names = (0..COUNT).map(|at| format!("name{at}={digit}:platform{at}"));
        names.map(|word| entry(&word)).collect()
    };
    let mut many = draft("");
    merge(&mut many, &entries("1"), Collision::Refuse)?;
    merge(&mut many, &entries("2"), Collision::Replace)?;
    let unnamed: Vec<String> = (0..COUNT)
        .map(|at| format!(r#"{{"digest":"{at}"}}"#))
        .collect();
    merge(&mut many, &unnamed, Collision::Refuse)?;
    assert_eq!(many.entries().count(), 2 * COUNT);

    let mut platforms = draft("b=1");
    let of_one = entries("1")
        .iter()
        .map(|text| named(text, "a"))
        .collect::<Result<Vec<_>, _>>();
    merge(
        &mut platforms,
        &of_one.expect("they are entries"),
        Collision::Refuse,
    )?;
    assert_eq!(resolve(&platforms, "a")?.len(), COUNT);
    rename(&mut platforms, "a", &name("b"), Collision::Replace)?;
    assert_eq!(remove(&mut platforms, "b")?.len(), COUNT);
    assert!(start.elapsed() < std::time::Duration::from_secs(60));
    Ok(())
}
