//! Commits of a process that commits often are put to the trial: the power is cut after
//! every step, and every call fails once.

use super::*;
use crate::store::disk::simulated::trial::{self, Again, Attempt, Case, Fault};

/// How many changes are written together.
const MEMBERS: usize = 3;

fn content(name: &str) -> Vec<u8> {
    format!(r#"{{"content":"of the image that is called {name}"}}"#).into_bytes()
}

/// The descriptor of the content that belongs to `name`.
fn descriptor(name: &str) -> String {
    let content = content(name);
    let (digest, size) = (Digest::of(&content), content.len());
    format!(r#"{{"mediaType":"application/json","digest":"{digest}","size":{size}}}"#)
}

fn index(names: &[&str]) -> String {
    let named = |name: &&str| layout::index::draft::named(&descriptor(name), name);
    let entries: Vec<String> = names
        .iter()
        .map(named)
        .map(|text| text.expect("JSON"))
        .collect();
    format!(
        r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
        entries.join(",")
    )
}

/// A layout that another program has written and synced.
fn write(disk: &SimulatedDisk, names: &[&str]) -> Result<(), Fault> {
    disk.put("index.json", index(names).as_bytes())?;
    for name in names {
        let content = content(name);
        disk.put(&layout::blobs::path(&Digest::of(&content)), &content)?;
    }
    disk.settle();
    Ok(())
}

fn begin(disk: &SimulatedDisk) -> Result<Committer, Fault> {
    let verdicts = Arc::new(Verdicts::new(None));
    let writer = LayoutWriter::on(Arc::new(disk.clone()), "layout".as_ref(), verdicts);
    let first = writer.read_index()?;
    Ok(Committer::new(writer, first, Box::new(|_| {})))
}

/// Stores a blob, and commits a ref to it.
fn publish(committer: &Committer, name: &str) -> Result<(), Error> {
    let blob = committer.writer().store(&content(name))?;
    commit(committer, name, blob).map(drop)
}

fn commit(committer: &Committer, name: &str, blob: StoredBlob) -> Result<Committed<()>, Error> {
    let ref_name: RefName = name.parse().expect("it is a ref name");
    committer.commit(&[blob], |draft| {
        refs::set(draft, &ref_name, &[descriptor(name)], Collision::Refuse)
    })
}

/// Several threads commit a ref and its blob each, in one update of the index.
fn publish_together(committer: &Committer) -> Result<(), Error> {
    let names: Vec<String> = (0..MEMBERS).map(|number| format!("r{number}")).collect();
    let blobs = names
        .iter()
        .map(|name| committer.writer().store(&content(name)));
    let blobs: Vec<StoredBlob> = blobs.collect::<Result<_, _>>()?;
    let (first, answers) = together(committer, MEMBERS, |number| {
        commit(committer, &names[number], blobs[number].clone())
    });
    first?;
    answers.into_iter().try_for_each(|answer| answer.map(drop))
}

/// A change that begins with the refs `one` and `two`.
fn change<'a>(
    name: &'a str,
    change: impl Fn(&Committer) -> Result<(), Error> + Clone + 'a,
) -> Case<'a> {
    let begin = move |disk: &SimulatedDisk| {
        let (committer, change) = (begin(disk)?, change.clone());
        let attempt: Attempt<'a> = Box::new(move || Ok(change(&committer)?));
        Ok(attempt)
    };
    Case::begun(name, |disk| write(disk, &["one", "two"]), begin)
}

fn draft_change<'a>(
    name: &'a str,
    make: impl Fn(&mut Draft) -> Result<(), Refusal> + Clone + 'a,
) -> Case<'a> {
    change(name, move |committer| {
        committer.commit(&[], &make).map(drop)
    })
}

/// Another program has written an index without our commit: what is done then.
fn healing<'a>(
    name: &'a str,
    then: impl Fn(&Committer) -> Result<(), Error> + Clone + 'a,
) -> Case<'a> {
    let begin = move |disk: &SimulatedDisk| {
        let (committer, then) = (begin(disk)?, then.clone());
        publish(&committer, "ours")?;
        write(disk, &["theirs", "more-of-theirs"])?;
        let attempt: Attempt<'a> = Box::new(move || Ok(then(&committer)?));
        Ok(attempt)
    };
    Case::begun(name, |disk| write(disk, &["theirs"]), begin).again(Again::Never)
}

fn cases() -> Vec<Case<'static>> {
    let new = || "new".parse::<RefName>().expect("it is a ref name");
    let two = || "two".parse::<RefName>().expect("it is a ref name");
    vec![
        change("a ref and its blob", |committer| publish(committer, "new")),
        change("several in one update", publish_together),
        change("ln -s", move |committer| {
            committer.tag("one", &new(), Collision::Refuse).map(drop)
        }),
        draft_change("mv", move |draft| {
            refs::rename(draft, "one", &new(), Collision::Refuse)
        })
        .again(Again::Once),
        draft_change("mv -T", move |draft| {
            refs::rename(draft, "one", &two(), Collision::Replace)
        })
        .again(Again::Once),
        draft_change("rmdir", |draft| refs::remove(draft, "one").map(drop)).again(Again::Once),
        draft_change("setfattr", |draft| {
            refs::annotate(draft, "one", "key", Some("value"))
        }),
        healing("a stale write is healed when it is seen", |committer| {
            committer.observe().map(drop)
        }),
        healing("a stale write is healed by the next commit", |committer| {
            publish(committer, "new")
        }),
    ]
}

#[test]
fn after_a_power_cut_there_is_all_or_nothing() -> Result<(), Fault> {
    trial::assert_all_or_nothing("commits", &cases(), 4)
}

#[test]
fn a_call_that_fails_changes_nothing() -> Result<(), Fault> {
    trial::assert_failures_are_told(&cases())
}

/// A stale write does not stay: the trial would go through without any healing, too.
#[test]
fn what_was_dropped_is_there_again() -> Result<(), Fault> {
    for case in cases().iter().filter(|case| case.again == Again::Never) {
        let disk = SimulatedDisk::default();
        (case.prepare)(&disk)?;
        (case.begin)(&disk)?()?;
        let index = String::from_utf8(disk.read("index.json")?)?;
        let digest = Digest::of(&content("ours"));
        assert!(index.contains(digest.as_str()), "{}", case.name);
    }
    Ok(())
}
