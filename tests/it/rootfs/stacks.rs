//! Random stacks of layers over a tiny alphabet, so that names collide all the time.
//!
//! `OCIFS_TEST_STACKS` says how many, `OCIFS_TEST_SEED` which.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;

/// How many stacks are tried, where nothing else is asked for.
const STACKS: u32 = 7_000;

fn runner(cases: u32) -> TestRunner {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse().expect("a number"))
    };
    let seed: u64 = number("OCIFS_TEST_SEED").unwrap_or(1);
    let cases =
        number("OCIFS_TEST_STACKS").map_or(cases, |cases| u32::try_from(cases).expect("u32"));
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 100_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just("a"), 3 => Just("b"), 2 => Just("c")].prop_map(str::to_owned)
}

/// A path of one to three names.
fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => name(),
        4 => (name(), name()).prop_map(|(a, b)| format!("{a}/{b}")),
        1 => (name(), name(), name()).prop_map(|(a, b, c)| format!("{a}/{b}/{c}")),
    ]
}

fn symlink_target() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => path(),
        2 => path().prop_map(|path| format!("/{path}")),
        2 => path().prop_map(|path| format!("../{path}")),
        1 => (path(), name()).prop_map(|(path, name)| format!("{path}/../{name}")),
        1 => prop_oneof![Just("."), Just(".."), Just("/"), Just("nowhere"), Just("./b/.")].prop_map(str::to_owned),
    ]
}

/// An entry, see [`Item::of_line`].
fn line() -> impl Strategy<Value = String> {
    let marker = |path: &str, marker: &str| match path.rsplit_once('/') {
        Some((directory, name)) => format!("f {directory}/{}", marker.replace('*', name)),
        None => format!("f {}", marker.replace('*', path)),
    };
    prop_oneof![
        6 => path().prop_map(|path| format!("f {path}")),
        5 => path().prop_map(|path| format!("d {path}")),
        4 => (path(), symlink_target()).prop_map(|(path, target)| format!("l {path}>{target}")),
        4 => (path(), path()).prop_map(|(path, target)| format!("h {path}>{target}"))
            .prop_filter("to itself", |line| {
                let (path, target) = line[2..].split_once('>').expect("a link");
                path != target
            }),
        3 => path().prop_map(move |path| marker(&path, ".wh.*")),
        1 => path().prop_map(move |path| marker(&path, ".wh..wh..opq")),
        1 => (path(), prop_oneof![Just('p'), Just('c'), Just('b')]).prop_map(|(path, letter)| format!("{letter} {path}")),
        1 => Just("d ".to_owned()),
    ]
}

fn layer() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(line(), 0..7)
}

fn stack() -> impl Strategy<Value = Vec<Vec<String>>> {
    prop::collection::vec(layer(), 1..5)
}

/// The same stacks each time, one after the other.
pub(super) fn stacks() -> impl Iterator<Item = Vec<Vec<String>>> {
    let mut runner = runner(0);
    let strategy = stack();
    std::iter::repeat_with(move || {
        let tree = strategy.new_tree(&mut runner);
        tree.expect("nothing is filtered out for long").current()
    })
}

/// Hard links to nothing, all alike: which of several that lead to each other is the first
/// one does not matter.
fn blank(mut sight: Sight) -> Sight {
    for seen in sight.values_mut() {
        if matches!(seen.kind, SeenKind::Dangling(_)) {
            seen.kind = SeenKind::Dangling(String::new());
            (seen.attributes, seen.links, seen.first) = (Attributes::default(), 0, String::new());
        }
    }
    sight
}

/// How ours and theirs differ, if they do.
fn judge(ours: Result<Sight, Failure>, theirs: Result<Sight, Refusal>) -> Option<String> {
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => difference(&blank(ours), &blank(theirs)),
        // Ours says so if the layer itself has these; else it shows a link to nothing.
        (_, Err(Refusal::LinkLoop | Refusal::DirectoryLink)) => None,
        (Err(_), Err(Refusal::Loop)) => None,
        (Ok(_), Err(Refusal::Loop)) => Some("accepted in spite of a loop".to_owned()),
        (Err(error), Ok(_)) => Some(format!("refused: {error}")),
    }
}

/// Compares random stacks, but for those that depend on a rule, which must be few.
fn compare(
    strategy: impl Strategy<Value = Vec<Vec<String>>>,
    whiteouts: Whiteouts,
    ours: impl Fn(&[Vec<Item>]) -> Result<Sight, Failure>,
) -> Result<(), TestCaseError> {
    let (mut compared, mut excepted) = (0, BTreeMap::<Rule, u32>::new());
    let counts = RefCell::new((&mut compared, &mut excepted));
    let result = runner(STACKS).run(&strategy, |lines| {
        let layers = items_of(&lines);
        let (theirs, rules) = naive(&layers, whiteouts);
        // Whatever the rules, nothing panics.
        let ours = ours(&layers);
        let (compared, excepted) = &mut *counts.borrow_mut();
        for rule in &rules {
            *excepted.entry(*rule).or_default() += 1;
        }
        if rules.is_empty() {
            **compared += 1;
            prop_assert_eq!(judge(ours, theirs), None);
        }
        Ok(())
    });
    result.map_err(|error| TestCaseError::fail(error.to_string()))?;
    let is_most = compared > 8 * excepted.values().max().copied().unwrap_or(0);
    prop_assert!(is_most, "{compared} compared, but for {excepted:?}");
    Ok(())
}

#[test]
fn a_layer_by_itself_is_its_extraction() -> Result<(), TestCaseError> {
    let alone = layer().prop_map(|layer| vec![layer]);
    compare(alone, Whiteouts::Show, |layers| ours_alone(&layers[0]))
}

#[test]
fn stacks_are_their_extraction() -> Result<(), TestCaseError> {
    compare(stack(), Whiteouts::Act, ours)
}

/// Stacks that were read differently once, as they were shrunk.
#[test]
fn regression_stacks_that_differed_once() {
    let rows: &[(&str, &[&[&str]])] = &[
        ("the root of a lower layer", &[&["d "], &[]]),
        ("a way back from nothing", &[&["l a>b/a/../b", "f a/a/a"]]),
        (
            "a symlink is replaced later",
            &[&["l b>a"], &["d b/a"], &["f b"]],
        ),
        (
            "a symlink is hidden later",
            &[&["l b>a"], &["f b/a"], &["f .wh.b"]],
        ),
        (
            "a link to its own layer, by a detour",
            &[&["l a>b"], &["f b/a", "h c>a/a"]],
        ),
        (
            "hidden on the way",
            &[&["l b>a", "l c>b/a"], &["f .wh.b", "f c/a/a"]],
        ),
        (
            "replaced on the way",
            &[&["l b>a"], &["l a>b/b"], &["d b", "f a/a"]],
        ),
        (
            "a loop that is taken apart",
            &[&["l c>/a", "l a>a"], &["d a", "l c/a>a"]],
        ),
    ];
    for (name, lines) in rows {
        let lines: Vec<_> = lines.iter().map(|layer| layer.to_vec()).collect();
        let layers = items_of(&lines);
        let (theirs, rules) = naive(&layers, Whiteouts::Act);
        assert_eq!(rules, BTreeSet::new(), "{name}: rules");
        assert_eq!(judge(ours(&layers), theirs), None, "{name}");
    }
}
