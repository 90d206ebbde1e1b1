//! Commits by real processes that are killed.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ocifs::oci::RefName;
use ocifs::store::layout::index::update::Basis;
use ocifs::store::layout::refs::{self, Collision};
use ocifs::store::{Layout, LayoutWriter, Verdicts};

use super::common::{Random, TestLayout, verify_layout};

const NAME: &str = "commit::a_killed_writer_loses_nothing_that_it_acknowledged";

/// The layout that this process is to commit to until it is killed.
const CHILD: &str = "OCIFS_TEST_COMMIT_TO";

/// How often a writer is killed.
const KILLS: u64 = 50;

type TestResult = Result<(), Box<dyn std::error::Error>>;

fn writer(layout: &Path) -> Result<LayoutWriter, Box<dyn std::error::Error>> {
    let layout = Layout::open(layout, &[])?;
    Ok(LayoutWriter::open(&layout, Arc::new(Verdicts::new(None)))?)
}

/// Stores a document and names it; what a child does over and over.
fn commit(writer: &LayoutWriter, name: &str) -> TestResult {
    let bytes = format!(r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"is":"{name}"}}}}"#);
    let blob = writer.store(bytes.as_bytes())?;
    let descriptor = format!(
        r#"{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{}","size":{}}}"#,
        blob.digest(),
        blob.size()
    );
    let name: RefName = name.parse()?;
    let basis = Basis {
        blobs: &[blob],
        last_good: None,
    };
    writer.update(&basis, |draft| {
        refs::set(draft, &name, &[descriptor], Collision::Refuse)
    })?;
    Ok(())
}

fn commit_until_killed(layout: &Path) -> TestResult {
    let writer = writer(layout)?;
    let mut out = std::io::stdout();
    for number in 0.. {
        let name = format!("p{}.{number}", std::process::id());
        commit(&writer, &name)?;
        writeln!(out, "committed {name}")?;
    }
    Ok(())
}

#[test]
fn a_killed_writer_loses_nothing_that_it_acknowledged() -> TestResult {
    if let Some(layout) = std::env::var_os(CHILD) {
        return commit_until_killed(layout.as_ref());
    }
    let layout = TestLayout::new();
    let mut random = Random::of_seed(5);
    let mut acknowledged = Vec::new();
    for _ in 0..KILLS {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", NAME, "--nocapture"])
            .env(CHILD, layout.path())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("it has an output")?;
        let mut lines = BufReader::new(out).lines();
        // Once it is at work, at any moment of its next few commits.
        let is_first =
            |line: &Result<String, _>| line.as_ref().is_ok_and(|l| l.contains("committed "));
        let first = lines.find(is_first).ok_or("it commits")??;
        std::thread::sleep(Duration::from_micros(random.within(0..15_000)));
        child.kill()?;
        child.wait()?;
        let rest = lines.map_while(Result::ok);
        let names = std::iter::once(first).chain(rest).filter_map(|line| {
            let (_, name) = line.split_once("committed ")?;
            Some(name.to_owned())
        });
        acknowledged.extend(names);
        verify_layout(layout.path());
    }
    writer(layout.path())?.collect()?;
    let entries = layout.entries();
    let named: Vec<&str> = entries
        .iter()
        .filter_map(|entry| entry["annotations"]["org.opencontainers.image.ref.name"].as_str())
        .collect();
    for name in &acknowledged {
        assert!(named.contains(&name.as_str()), "{name} is lost");
    }
    assert!(
        acknowledged.len() as u64 > KILLS,
        "only {}",
        acknowledged.len()
    );
    let left = std::fs::read_dir(layout.path().join(".ocifs/tmp"))?.count();
    assert_eq!(left, 0, "rubbish is left");
    assert!(!layout.path().join("index.json.lock").exists());
    Ok(())
}

/// Threads of one process exclude each other as processes do.
#[test]
fn many_threads_lose_nothing() -> TestResult {
    let layout = TestLayout::new();
    let writer = writer(layout.path())?;
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let writer = &writer;
            scope.spawn(move || {
                for number in 0..50 {
                    commit(writer, &format!("t{thread}.{number}")).expect("it is committed");
                }
            });
        }
    });
    assert_eq!(layout.entries().len(), 16 * 50);
    verify_layout(layout.path());
    Ok(())
}
