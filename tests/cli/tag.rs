//! `tag` and `untag`: names in index.json, as other tools read them.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use super::common::{
    Compression, Damage, Need, TestLayout, digest_of, has, run, run_ok, verify_layout,
};
use super::{OCIFS, assert_told, ocifs, stderr};

/// A layout with an image `app:1`, and one for two platforms that is `multi`.
struct Sample {
    layout: TestLayout,
    image: Value,
    arm: Value,
}

impl Sample {
    fn new() -> Self {
        let layout = TestLayout::new();
        let layers = [layout.layer(Compression::Gzip, &[("etc/motd", b"hello\n")])];
        let image = layout.image(&layers);
        layout.add_ref("app:1", &image);
        let arm = layout.image_for("linux/arm64/v8", &layers);
        let s390 = layout.image_for("linux/s390x", &layers);
        layout.add_ref("multi", &layout.image_index(&[arm.clone(), s390]));
        Self { layout, image, arm }
    }

    fn path(&self) -> &str {
        self.layout.path().to_str().unwrap()
    }

    fn ocifs(&self, command: &str, arguments: &[&str]) -> Output {
        ocifs(&[&[command, self.path()], arguments].concat())
    }

    fn ok(&self, command: &str, arguments: &[&str]) {
        let output = self.ocifs(command, arguments);
        assert!(output.status.success(), "{command}: {}", stderr(&output));
        assert!(output.stderr.is_empty(), "{}", stderr(&output));
    }

    /// Names and digests, in the order of index.json.
    fn refs(&self) -> Vec<(String, String)> {
        self.layout.refs()
    }

    fn digest_of_ref(&self, name: &str) -> Option<String> {
        let refs = self.refs();
        refs.into_iter()
            .find_map(|(ref_name, digest)| (ref_name == name).then_some(digest))
    }
}

#[test]
fn a_name_is_added_and_taken_away() {
    let sample = Sample::new();
    let before = fs::read(sample.layout.path().join("index.json")).unwrap();
    sample.ok("tag", &["app:1", "example.org/app:2"]);
    verify_layout(sample.layout.path());
    assert_eq!(sample.refs()[0].0, "app:1");
    let image = digest_of(&sample.image).to_string();
    assert_eq!(sample.digest_of_ref("example.org/app:2"), Some(image));
    sample.ok("untag", &["example.org/app:2"]);
    let after = fs::read(sample.layout.path().join("index.json")).unwrap();
    assert_eq!(before, after, "every byte is as it was");
    verify_layout(sample.layout.path());
}

#[test]
fn digests_are_names_too() {
    let sample = Sample::new();
    let arm = digest_of(&sample.arm).to_string();
    sample.ok("tag", &[&arm, "arm"]);
    assert_eq!(sample.digest_of_ref("arm"), Some(arm.clone()));
    let entry = sample.layout.entries().pop().unwrap();
    assert_eq!(entry["platform"], sample.arm["platform"]);
    sample.ok("tag", &[digest_of(&sample.image).as_str(), "app:2"]);
    sample.ok("untag", &[&format!("arm@{arm}")]);
    assert_eq!(sample.digest_of_ref("arm"), None);
}

#[test]
fn refusals_say_what_to_do_and_change_nothing() {
    let sample = Sample::new();
    let other = sample.layout.image(&[]);
    sample.layout.add_ref("twice", &sample.image);
    sample.layout.add_ref("twice", &other);
    sample
        .layout
        .add_containerd_ref("docker.io/full:1", "short", &sample.image);
    let lost = sample.layout.image_with(&[], &json!({"author": "nobody"}));
    sample.layout.add_ref("lost", &lost);
    sample.layout.damage(&lost, Damage::Missing);
    let unknown = format!("sha256:{}", "0".repeat(64));
    let rows: [(&str, &[&str], i32, &str); 11] = [
        ("tag", &["missing", "x"], 1, "ocifs ls"),
        ("tag", &[&unknown, "x"], 1, "there is no ref"),
        ("tag", &["app:1", "multi"], 1, "--replace"),
        ("tag", &["twice", "x"], 1, "NAME@DIGEST"),
        ("tag", &["lost", "x"], 1, "is not in this layout"),
        ("tag", &["app:1", "a b"], 2, "a b"),
        ("tag", &["app:1", "../x"], 2, "../x"),
        ("tag", &["app:1"], 2, "NEW"),
        ("untag", &["missing"], 1, "ocifs ls"),
        ("untag", &["twice"], 1, "NAME@DIGEST"),
        ("untag", &["short"], 1, "docker.io/full:1"),
    ];
    let index = sample.layout.path().join("index.json");
    let before = fs::read(&index).unwrap();
    for (command, arguments, status, hint) in rows {
        let output = sample.ocifs(command, arguments);
        let text = stderr(&output);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{command} {arguments:?}: {text}"
        );
        assert!(text.contains(hint), "{command} {arguments:?}: {text}");
        assert_eq!(fs::read(&index).unwrap(), before, "{command} {arguments:?}");
    }
    assert!(!sample.layout.path().join(".ocifs").exists());
    sample.layout.damage(&sample.image, Damage::FlippedBit);
    let output = sample.ocifs("tag", &["app:1", "x"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
}

#[test]
fn replacing_and_repeating() {
    let sample = Sample::new();
    sample.ok("tag", &["app:1", "multi", "--replace"]);
    let image = digest_of(&sample.image).to_string();
    let expected = [
        ("app:1".to_owned(), image.clone()),
        ("multi".to_owned(), image),
    ];
    assert_eq!(sample.refs(), expected, "in the same place");
    sample.ok("tag", &["app:1", "multi"]);
    assert_eq!(sample.refs(), expected, "it is so already");
}

#[test]
fn results_as_json() {
    let sample = Sample::new();
    let json = |command, arguments: &[&str]| -> Value {
        let output = sample.ocifs(command, arguments);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let digest = digest_of(&sample.image);
    let expected = json!({"ref": "x", "digests": [digest.as_str()], "changed": true});
    assert_eq!(json("tag", &["--json", "app:1", "x"]), expected);
    assert_eq!(json("tag", &["--json", "app:1", "x"])["changed"], false);
    assert_eq!(json("untag", &["--json", "x"]), expected);
}

#[test]
fn other_tools_read_what_is_written() {
    let name = "other_tools_read_what_is_written";
    if !has(name, &[Need::Tool("skopeo"), Need::Tool("umoci")]) {
        return;
    }
    let sample = Sample::new();
    sample.ok("tag", &["app:1", "app:2"]);
    let source = format!("oci:{}:app:2", sample.path());
    let inspected = run_ok("skopeo", &["inspect", "--format", "{{.Digest}}", &source]);
    let digest = String::from_utf8(inspected).unwrap();
    assert_eq!(digest.trim(), digest_of(&sample.image).as_str());
    let listed = run_ok("umoci", &["list", "--layout", sample.path()]);
    let listed = String::from_utf8(listed).unwrap();
    assert!(listed.lines().any(|line| line == "app:2"), "{listed}");
    sample.ok("untag", &["app:2"]);
    assert!(!run("skopeo", &["inspect", &source]).status.success());
}

/// Sixteen processes at once, each adding refs one by one: none is lost.
#[test]
fn many_processes_lose_nothing() {
    const PROCESSES: usize = 16;
    const REFS: usize = 50;
    let sample = Sample::new();
    std::thread::scope(|scope| {
        for process in 0..PROCESSES {
            let sample = &sample;
            scope.spawn(move || {
                for number in 0..REFS {
                    sample.ok("tag", &["app:1", &format!("r{process}/{number}")]);
                }
            });
        }
    });
    let mut names: Vec<String> = sample.refs().into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), PROCESSES * REFS + 2);
    verify_layout(sample.layout.path());
}

/// Tools that know no lock write beside us. Each of their commands may lose what we
/// committed between its reading and its writing: no lock and no second look can prevent
/// that, only a running mount that heals. What is promised here: we lose nothing of
/// theirs, and nothing of ours while none of them has its index open.
#[test]
fn foreign_writers_lose_nothing_by_us() {
    let name = "foreign_writers_lose_nothing_by_us";
    if !has(name, &[Need::Tool("skopeo"), Need::Tool("umoci")]) {
        return;
    }
    let sample = Sample::new();
    let from = format!("oci:{}:app:1", sample.path());
    let foreign = || {
        for number in 0..10 {
            let to = format!("oci:{}:skopeo-{number}", sample.path());
            run_ok("skopeo", &["copy", "-q", &from, &to]);
            let image = format!("{}:app:1", sample.path());
            run_ok(
                "umoci",
                &["tag", "--image", &image, &format!("umoci-{number}")],
            );
        }
    };
    std::thread::scope(|scope| {
        let foreign = scope.spawn(foreign);
        let mut number = 0;
        while !foreign.is_finished() {
            sample.ok("tag", &["app:1", &format!("ours-{number}")]);
            number += 1;
        }
        assert!(number > 1, "they ran at the same time");
    });
    for number in 0..10 {
        for tool in ["skopeo", "umoci"] {
            let theirs = format!("{tool}-{number}");
            assert!(sample.digest_of_ref(&theirs).is_some(), "{theirs} is lost");
        }
    }
    sample.ok("tag", &["app:1", "last"]);
    assert!(sample.digest_of_ref("last").is_some());
    verify_layout(sample.layout.path());
}

#[test]
fn a_file_size_limit_is_an_error_like_any_other() {
    let sample = Sample::new();
    let script = format!(
        "ulimit -f 0; exec '{OCIFS}' tag '{}' app:1 x",
        sample.path()
    );
    let output = run("bash", &["-c", &script]);
    assert_told("no file may grow", &output, 4, "index.json");
    assert_eq!(sample.refs().len(), 2);
    sample.ok("tag", &["app:1", "x"]);
    assert_eq!(
        fs::read_dir(sample.layout.path().join(".ocifs/tmp"))
            .unwrap()
            .count(),
        0
    );
}
