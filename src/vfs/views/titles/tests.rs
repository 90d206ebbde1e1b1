use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::oci::MediaType;

const PLAIN: &str = "application/octet-stream";

/// A layer of the blob that holds `blob`.
fn layer(title: Option<&str>, media_type: &str, blob: &str) -> Descriptor {
    let digest = Digest::of(blob.as_bytes());
    let mut descriptor = json!({"mediaType": media_type, "digest": digest.as_str(), "size": 1});
    if let Some(title) = title {
        descriptor["annotations"] = json!({ annotations::TITLE: title });
    }
    Descriptor::from_json(&descriptor).expect("it is a descriptor")
}

/// Layers with these titles, each of another blob.
fn titled(titles: &[&str]) -> Vec<Descriptor> {
    let layers = titles.iter().enumerate();
    layers
        .map(|(number, title)| layer(Some(title), PLAIN, &number.to_string()))
        .collect()
}

/// All files by path, with the numbers of their layers.
fn paths(level: &Level) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (name, shown) in level.iter() {
        let name = String::from_utf8_lossy(name).into_owned();
        match shown {
            Shown::File(number) => found.push((name, *number)),
            Shown::Directory(below) => {
                let below = paths(below).into_iter();
                found.extend(below.map(|(path, number)| (format!("{name}/{path}"), number)));
            }
        }
    }
    found.sort_by_key(|(_, number)| *number);
    found
}

/// The first digits of the digest of layer `number` of [`titled`].
fn mark(number: usize) -> String {
    Digest::of(number.to_string().as_bytes()).encoded()[..HASH_LEN].to_owned()
}

#[test]
fn titles_are_paths() {
    let long = "x".repeat(300);
    let shortened = format!(
        "{}~{}",
        &long[..238],
        &Digest::of(long.as_bytes()).encoded()[..16]
    );
    let digest = format!("sha256:{}", "a".repeat(64));
    let rows: &[(&str, &[&str], &[&str])] = &[
        ("plain", &["sbom.json"], &["sbom.json"]),
        ("nested", &["a/b/c"], &["a/b/c"]),
        ("two in one directory", &["a/b", "a/c"], &["a/b", "a/c"]),
        (
            "own names of images",
            &["config.json", "layers"],
            &["config.json", "layers"],
        ),
        ("climbing", &["../x"], &["%2E./x"]),
        ("climbing inside", &["a/../../x"], &["a/%2E./%2E./x"]),
        ("absolute", &["/etc/passwd"], &["%/etc/passwd"]),
        ("empty component", &["a//b"], &["a/%/b"]),
        ("slash at the end", &["a/"], &["a/%"]),
        ("dot", &["."], &["%2E"]),
        ("dot inside", &["a/./b"], &["a/%2E/b"]),
        ("hidden", &[".helmignore"], &["%2Ehelmignore"]),
        ("control", &["a\u{1b}[2J\nb\0"], &["a%1B[2J%0Ab%00"]),
        ("percent", &["100%"], &["100%25"]),
        ("digest", &[&digest], &[&format!("%73{}", &digest[1..])]),
        ("300 bytes", &[&long], &[&shortened]),
        ("equal", &["a", "a"], &["a", &format!("a~{}", mark(1))]),
        (
            "three equal",
            &["d/a", "d/a", "d/a"],
            &[
                "d/a",
                &format!("d/a~{}", mark(1)),
                &format!("d/a~{}", mark(2)),
            ],
        ),
        (
            "prefix first",
            &["a", "a/b"],
            &[&format!("a~{}", mark(0)), "a/b"],
        ),
        (
            "prefix last",
            &["a/b", "a"],
            &["a/b", &format!("a~{}", mark(1))],
        ),
        (
            "the mark of another as a title",
            &["a", "a", &format!("a~{}", mark(1))],
            &[
                "a",
                &format!("a~{}", long_mark(1)),
                &format!("a~{}", mark(1)),
            ],
        ),
        (
            "the mark of another as a directory",
            &["a", "a", &format!("a~{}/b", mark(1))],
            &[
                "a",
                &format!("a~{}", long_mark(1)),
                &format!("a~{}/b", mark(1)),
            ],
        ),
        (
            "all marks of another as titles",
            &[
                "a",
                "a",
                &format!("a~{}", mark(1)),
                &format!("a~{}", long_mark(1)),
                &format!("a~{}~1", long_mark(1)),
            ],
            &[
                "a",
                &format!("a~{}~2", long_mark(1)),
                &format!("a~{}", mark(1)),
                &format!("a~{}", long_mark(1)),
                &format!("a~{}~1", long_mark(1)),
            ],
        ),
    ];
    for (name, titles, expected) in rows {
        let found = paths(&Level::of(&titled(titles)));
        let found: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(found, *expected, "{name}");
    }
}

fn long_mark(number: usize) -> String {
    let digest = Digest::of(number.to_string().as_bytes());
    let all = format!("{digest}, 1 bytes");
    Digest::of(all.as_bytes()).encoded()[..LONG_HASH_LEN].to_owned()
}

#[test]
fn layers_without_titles_have_numbers() {
    let spdx = "application/spdx+json";
    let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
    let twice = |blob: &str| format!("00.json~{}", &Digest::of(blob.as_bytes()).encoded()[..12]);
    let rows: &[(&str, Vec<Descriptor>, Value)] = &[
        (
            "by their media types",
            vec![
                layer(None, spdx, "a"),
                layer(None, tar, "b"),
                layer(None, "", "c"),
            ],
            json!([["00.json", 0], ["01.tar.gz", 1], ["02.bin", 2]]),
        ),
        (
            "an empty title is none",
            vec![layer(Some(""), spdx, "a")],
            json!([["00.json", 0]]),
        ),
        (
            "the number is a title already",
            vec![layer(None, spdx, "a"), layer(Some("00.json"), spdx, "b")],
            json!([[twice("a"), 0], ["00.json", 1]]),
        ),
        (
            "the layer that says that there is none",
            vec![layer(None, MediaType::EMPTY.as_str(), "{}")],
            json!([]),
        ),
        (
            "the same with a title",
            vec![layer(Some("empty.json"), MediaType::EMPTY.as_str(), "{}")],
            json!([["empty.json", 0]]),
        ),
        (
            "one blob under one title",
            vec![
                layer(Some("00.json"), spdx, "a"),
                layer(Some("00.json"), spdx, "a"),
                layer(Some("00.json"), spdx, "a"),
            ],
            json!([["00.json", 0], [twice("a"), 1]]),
        ),
    ];
    for (name, layers, expected) in rows {
        assert_eq!(json!(paths(&Level::of(layers))), *expected, "{name}");
    }
}

#[test]
fn digits_of_digests_that_are_no_hashes() {
    let mut layers = titled(&["a", "a"]);
    layers[1].digest = "x:=".parse().expect("it has the grammar");
    let found = paths(&Level::of(&layers));
    assert_eq!(found[1].0, "a~=");
}

#[test]
fn many_levels_and_many_equal_titles() {
    let deep = "d/".repeat(5_000);
    let level = Level::of(&titled(&[&deep]));
    let found = paths(&level);
    assert_eq!(found[0].0.matches('/').count(), MAX_LEVELS - 1);
    // Digests are mere text in a manifest: all of these begin alike.
    let mut layers = titled(&["a"; 4_096]);
    for (number, layer) in layers.iter_mut().enumerate() {
        let text = format!("sha256:{}{number:052x}", "0".repeat(12));
        layer.digest = text.parse().expect("it has the grammar");
    }
    let begun = std::time::Instant::now();
    assert_eq!(paths(&Level::of(&layers)).len(), 4_096);
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(2), "took {took:?}");
}

/// How many directories are below `level`.
fn directories(level: &Level) -> usize {
    let below = level.iter().map(|(_, shown)| match shown {
        Shown::File(_) => 0,
        Shown::Directory(below) => 1 + directories(below),
    });
    below.sum()
}

#[test]
fn many_directories() {
    let deep = |number: usize| format!("{number}{}/x", "/d".repeat(126));
    let mut titles: Vec<String> = (0..600).map(deep).collect();
    // What needs no more of them is a path all the same.
    titles.push("0/d/y".to_owned());
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let level = Level::of(&titled(&titles));
    let fit = MAX_DIRECTORIES / 127;
    assert_eq!(directories(&level), fit * 127);
    let found = paths(&level);
    assert_eq!(found.len(), titles.len());
    assert_eq!(found[fit - 1].0, deep(fit - 1));
    assert!(
        found[fit].0.starts_with(&format!("{fit}%2Fd%2Fd")),
        "{}",
        found[fit].0
    );
    assert_eq!(found[600].0, "0/d/y");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Every layer is shown, once, under safe names; but for those of the same blob.
    #[test]
    fn nothing_is_lost(
        titles in prop::collection::vec(
            prop::option::of("(a|b|/|\\.|~|%|00\\.bin|[\u{0}-\u{7f}]|é){0,4}"), 1..12
        ),
        blobs in prop::collection::vec(0_u8..6, 12),
    ) {
        let layers = titles.iter().zip(&blobs);
        let layers: Vec<Descriptor> = layers
            .map(|(title, blob)| layer(title.as_deref(), PLAIN, &blob.to_string()))
            .collect();
        let found = paths(&Level::of(&layers));
        for (number, layer) in layers.iter().enumerate() {
            let is_shown = |other: &usize| layers[*other].digest == layer.digest;
            let shown: Vec<&(String, usize)> =
                found.iter().filter(|(_, other)| *other == number).collect();
            prop_assert!(shown.len() <= 1);
            if shown.is_empty() {
                prop_assert!(found.iter().any(|(_, other)| is_shown(other)));
            }
        }
        for (path, _) in &found {
            for name in path.split('/') {
                prop_assert!(!name.is_empty() && name.len() <= NAME_MAX);
                prop_assert!(!name.starts_with('.'));
                prop_assert!(!name.bytes().any(|b| b < 0x20 || b == 0x7F));
            }
        }
    }
}
