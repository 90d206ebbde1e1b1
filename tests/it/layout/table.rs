//! The table of operations in the crate's documentation cannot rot: each row names tests,
//! and each test that is named is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::TestResult;

const TABLE: &str = include_str!("../../../src/operations.md");

/// The names of all test functions in the sources below `directory`.
fn collect(directory: &Path, names: &mut BTreeSet<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, names)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            names.extend(tests_of(&text).map(str::to_owned));
        }
    }
    Ok(())
}

/// The functions that follow `#[test]`, perhaps after other attributes.
fn tests_of(text: &str) -> impl Iterator<Item = &str> {
    text.split("#[test]").skip(1).filter_map(|rest| {
        let (_, name) = rest.split_once("fn ")?;
        Some(name.split_once('(')?.0.trim())
    })
}

/// The cells of each row that is about an operation.
fn rows() -> impl Iterator<Item = Vec<&'static str>> {
    let lines = TABLE.lines().filter(|line| line.starts_with('|'));
    let cells = lines.map(|line| {
        let cells = line.trim_matches('|').split(" | ");
        cells.map(str::trim).collect::<Vec<_>>()
    });
    cells.filter(|cells| !cells[0].starts_with("---") && cells[0] != "operation")
}

fn names_in(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_table_names_tests_that_are_there() -> TestResult {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    for directory in ["src", "tests"] {
        collect(&root.join(directory), &mut tests)?;
    }
    let mut count = 0;
    for cells in rows() {
        let [operation, how, named] = cells[..] else {
            return Err(format!("not three cells: {cells:?}").into());
        };
        assert!(!how.is_empty(), "{operation}: how?");
        let named = names_in(named);
        assert!(!named.is_empty(), "{operation}: no test");
        for name in named {
            assert!(tests.contains(name), "{operation}: there is no test {name}");
        }
        count += 1;
    }
    assert!(count >= 39, "only {count} operations");
    Ok(())
}

#[test]
fn the_check_can_fail() {
    let text = "#[test]\nfn one() {}\n#[test]\n#[ignore]\nfn two()\nfn three() {}";
    assert_eq!(tests_of(text).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(names_in("`one`, `two`"), ["one", "two"]);
    assert_eq!(names_in("none"), Vec::<&str>::new());
}
