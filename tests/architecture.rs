//! Checks the arrows of the architecture over the sources.
//!
//! The rooms under `src/` form a staircase: a room imports only lower ones. When two
//! rooms want each other, the shared type belongs in a room below both. Some crates and
//! macros belong to one room, so that the kernel and the terminal have one door each.
//!
//! The check reads text, not meaning: comments and literals are blanked, the rest is cut
//! into words. That is enough for code that nobody wrote to deceive it.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room and the step that it stands on.
const ROOMS: &[(&str, u8)] = &[
    ("oci", 1),
    ("tar", 1),
    ("store", 2),
    ("stream", 3),
    ("layer", 4),
    ("rootfs", 5),
    ("archive", 5),
    ("check", 5),
    ("export", 5),
    ("pack", 5),
    ("ingest", 6),
    ("vfs", 7),
    ("fuse", 8),
    ("cli", 9),
];

/// Crates that one room alone may name.
const CRATES: &[(&str, &str)] = &[("fuser", "fuse"), ("anyhow", "cli"), ("clap", "cli")];

/// Macros that belong to the `cli` room.
const PRINTING: &[&str] = &["print", "println", "eprint", "eprintln"];

/// Lines a file may have, its unit tests not counted.
const MAX_LINES: usize = 700;

#[test]
fn the_sources_keep_to_the_architecture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    assert!(!files.is_empty(), "no sources found");
    let findings: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let text = fs::read_to_string(file).expect("a source file is readable text");
            let name = file
                .strip_prefix(root)
                .expect("it was found below the root");
            findings(&name.to_string_lossy(), &text)
        })
        .collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a source directory is readable") {
        let path = entry.expect("a directory entry is readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// What is wrong with the file `name` (such as `src/oci/digest.rs`) that holds `text`.
fn findings(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let lines = lines_without_tests(name, text);
    if lines > MAX_LINES {
        findings.push(format!(
            "{name}: {lines} lines without its tests, {MAX_LINES} are allowed: cut it at its nouns"
        ));
    }
    let room = room_of(name);
    if room == "lib" {
        return findings;
    }
    if step(room).is_none() && room != "main" {
        findings.push(format!(
            "{name}: unknown room `{room}`: give it a step in ROOMS of tests/architecture.rs and a line in src/lib.rs"
        ));
        return findings;
    }
    let code = blank_comments_and_literals(text);
    let words = words(&code);
    let depth = depth(name);
    for at in 0..words.len() {
        let line = words[at].line;
        let found = imported_rooms(&words, at, depth)
            .into_iter()
            .filter_map(|import| forbidden_import(room, import))
            .chain(forbidden_crate(room, &words, at))
            .chain(forbidden_macro(room, &words, at));
        findings.extend(found.map(|finding| format!("{name}:{line}: {finding}")));
    }
    findings
}

/// The first component below `src/`, less its extension.
fn room_of(name: &str) -> &str {
    let inside = name.strip_prefix("src/").unwrap_or(name);
    let first = inside.split('/').next().unwrap_or(inside);
    first.strip_suffix(".rs").unwrap_or(first)
}

fn step(room: &str) -> Option<u8> {
    let row = ROOMS.iter().find(|(name, _)| *name == room);
    row.map(|(_, step)| *step)
}

/// How many `super` lead from the file's module to the crate's root.
fn depth(name: &str) -> usize {
    let inside = name.strip_prefix("src/").unwrap_or(name);
    inside.split('/').count() - usize::from(inside.ends_with("/mod.rs"))
}

fn forbidden_import(room: &str, import: &str) -> Option<String> {
    if room == "main" || import == room {
        return None;
    }
    let Some(to) = step(import) else {
        return Some(format!(
            "`crate::{import}` is no room: import from the room that owns it"
        ));
    };
    let from = step(room).expect("the caller knows the room");
    (to >= from).then(|| {
        format!(
            "`{room}` (step {from}) imports `{import}` (step {to}): arrows go down, \
             a type that both need belongs in a room below both"
        )
    })
}

fn forbidden_crate(room: &str, words: &[Word<'_>], at: usize) -> Option<String> {
    let word = words[at].text;
    let (name, owner) = CRATES.iter().find(|(name, _)| *name == word)?;
    let is_path = text_at(words, at + 1) == "::" || is_used(words, at);
    let allowed = room == *owner || (room == "main" && *owner == "cli");
    (is_path && !allowed).then(|| format!("`{name}` belongs to `{owner}` alone"))
}

fn is_used(words: &[Word<'_>], at: usize) -> bool {
    at > 0 && words[at - 1].text == "use"
}

fn forbidden_macro(room: &str, words: &[Word<'_>], at: usize) -> Option<String> {
    let word = words[at].text;
    let prints = PRINTING.contains(&word) && text_at(words, at + 1) == "!";
    (prints && room != "cli" && room != "main")
        .then(|| format!("`{word}!` belongs to `cli`: the library logs or returns"))
}

/// The rooms that the path starting at word `at` names, if it starts at the crate's root:
/// `crate::room`, `crate::{room, room::x}`, or enough `super::` to get there.
fn imported_rooms<'a>(words: &[Word<'a>], at: usize, depth: usize) -> Vec<&'a str> {
    let root = match words[at].text {
        "crate" => at,
        "super" if at < 2 || words[at - 2].text != "super" => {
            let supers = (0..)
                .take_while(|n| text_at(words, at + 2 * n) == "super")
                .count();
            if supers < depth {
                return Vec::new();
            }
            at + 2 * (supers - 1)
        }
        _ => return Vec::new(),
    };
    if text_at(words, root + 1) != "::" {
        return Vec::new();
    }
    if text_at(words, root + 2) != "{" {
        return vec![text_at(words, root + 2)];
    }
    heads_of_group(&words[root + 3..])
}

/// The first words of the paths in a group, `words` beginning after its brace.
fn heads_of_group<'a>(words: &[Word<'a>]) -> Vec<&'a str> {
    let (mut heads, mut nesting, mut is_head) = (Vec::new(), 0, true);
    for word in words {
        match word.text {
            "}" if nesting == 0 => break,
            "}" => nesting -= 1,
            "{" => nesting += 1,
            "," if nesting == 0 => {
                is_head = true;
                continue;
            }
            head if is_head => heads.push(head),
            _ => {}
        }
        is_head = false;
    }
    heads
}

/// A name, a `::`, or one other character.
struct Word<'a> {
    text: &'a str,
    line: usize,
}

fn text_at<'a>(words: &[Word<'a>], at: usize) -> &'a str {
    words.get(at).map_or("", |word| word.text)
}

fn words(code: &str) -> Vec<Word<'_>> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let (mut words, mut line, mut rest) = (Vec::new(), 1, code);
    while let Some(first) = rest.chars().next() {
        let len = if is_name(first) {
            rest.find(|c| !is_name(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (text, after) = rest.split_at(len);
        line += usize::from(first == '\n');
        if !first.is_whitespace() {
            words.push(Word { text, line });
        }
        rest = after;
    }
    words
}

/// `text` with spaces where comments and the insides of literals were.
fn blank_comments_and_literals(text: &str) -> String {
    let (mut code, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(first) = rest.chars().next() {
        let len = skipped_len(rest, code.chars().next_back());
        if len == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let skipped = rest[..len].chars();
            code.extend(skipped.map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[len..];
        }
    }
    code
}

/// The length of the comment or literal that `rest` begins with, 0 if none.
fn skipped_len(rest: &str, before: Option<char>) -> usize {
    let in_name = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        rest.find('\n').unwrap_or(rest.len())
    } else if rest.starts_with("/*") {
        block_comment_len(rest)
    } else if rest.starts_with('"') {
        quoted_len(rest, '"')
    } else if rest.starts_with('r') && (!in_name || before == Some('b')) {
        raw_string_len(rest)
    } else if rest.starts_with('\'') && is_char_literal(rest) {
        quoted_len(rest, '\'')
    } else {
        0
    }
}

fn block_comment_len(rest: &str) -> usize {
    let (mut nesting, mut at) = (0, 0);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            nesting += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            nesting -= 1;
            at += 2;
            if nesting == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn quoted_len(rest: &str, quote: char) -> usize {
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == quote {
            return at + 1;
        }
    }
    rest.len()
}

/// `r"..."`, `r#"..."#` and so on; 0 for a name or a raw identifier.
fn raw_string_len(rest: &str) -> usize {
    let hashes = rest[1..].bytes().take_while(|b| *b == b'#').count();
    let start = 1 + hashes;
    if !rest[start..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let inside = &rest[start + 1..];
    inside
        .find(&end)
        .map_or(rest.len(), |at| start + 1 + at + end.len())
}

/// Whether the quote begins a character and not a lifetime.
fn is_char_literal(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    matches!(
        (chars.next(), chars.next()),
        (Some('\\'), _) | (Some(_), Some('\''))
    )
}

/// Lines of the file up to its `mod tests { ... }`; none for a file of tests.
fn lines_without_tests(name: &str, text: &str) -> usize {
    if name.ends_with("/tests.rs") || name.contains("/tests/") {
        return 0;
    }
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {"));
    tests.unwrap_or(lines.len())
}

mod checker {
    //! The checker must be able to fail: each rule, on a few lines of text.

    use super::findings;

    /// Name of the row, file, its text, and a part of the one finding expected ("": none).
    type Row = (&'static str, &'static str, &'static str, &'static str);

    fn check(rows: &[Row]) {
        for (name, file, text, expected) in rows {
            let found = findings(file, text);
            if expected.is_empty() {
                assert!(found.is_empty(), "{name}: {found:?}");
            } else {
                assert_eq!(found.len(), 1, "{name}: {found:?}");
                assert!(found[0].contains(expected), "{name}: {found:?}");
            }
        }
    }

    #[test]
    fn arrows() {
        check(&[
            ("down", "src/vfs/mod.rs", "use crate::store::Blob;", ""),
            ("own room", "src/vfs/ino.rs", "use crate::vfs::Ino;", ""),
            (
                "up",
                "src/store/mod.rs",
                "use crate::vfs::Ino;",
                "arrows go down",
            ),
            (
                "sideways",
                "src/oci/mod.rs",
                "use crate::tar::Entry;",
                "arrows go down",
            ),
            (
                "a room that is one file",
                "src/oci.rs",
                "use crate::vfs::Ino;",
                "arrows go down",
            ),
            (
                "in an expression",
                "src/oci/a.rs",
                "fn f() { crate::fuse::run() }",
                "step 8",
            ),
            (
                "in a group",
                "src/layer/a.rs",
                "use crate::{oci::{A, cli}, rootfs::B};",
                "`rootfs`",
            ),
            (
                "group, all down",
                "src/layer/a.rs",
                "use crate::{oci::{A, vfs}, stream};",
                "",
            ),
            (
                "with the line",
                "src/oci/a.rs",
                "\n\nuse crate::vfs::Ino;",
                "src/oci/a.rs:3: ",
            ),
            (
                "no room",
                "src/vfs/a.rs",
                "use crate::Digest;",
                "is no room",
            ),
            ("everything", "src/vfs/a.rs", "use crate::*;", "is no room"),
            (
                "super to the root",
                "src/oci/a.rs",
                "use super::super::vfs::A;",
                "`vfs`",
            ),
            (
                "super from mod.rs",
                "src/oci/mod.rs",
                "use super::vfs::A;",
                "`vfs`",
            ),
            ("super inside", "src/oci/a.rs", "use super::b::A;", ""),
            (
                "super inside, deep",
                "src/oci/a/b.rs",
                "use super::super::vfs::A;",
                "",
            ),
            ("visibility", "src/oci/a.rs", "pub(crate) fn f() {}", ""),
            (
                "main sees all",
                "src/main.rs",
                "mod cli; use crate::cli::run;",
                "",
            ),
            (
                "cli sees all",
                "src/cli/mod.rs",
                "use crate::cli::x; use ocifs::vfs::y;",
                "",
            ),
            ("unknown room", "src/util/mod.rs", "", "unknown room `util`"),
            ("unknown file", "src/helper.rs", "", "unknown room `helper`"),
            ("lib.rs", "src/lib.rs", "pub use crate::vfs::Vfs;", ""),
        ]);
    }

    #[test]
    fn owners() {
        check(&[
            ("fuser in fuse", "src/fuse/mod.rs", "use fuser::Errno;", ""),
            (
                "fuser in vfs",
                "src/vfs/mod.rs",
                "use fuser::Errno;",
                "`fuser` belongs to `fuse`",
            ),
            (
                "fuser in main",
                "src/main.rs",
                "fuser::mount();",
                "`fuser` belongs to `fuse`",
            ),
            (
                "fuser renamed",
                "src/vfs/a.rs",
                "use fuser as f;",
                "`fuser` belongs to `fuse`",
            ),
            (
                "anyhow in oci",
                "src/oci/a.rs",
                "fn f() -> anyhow::Result<()> {}",
                "`anyhow`",
            ),
            (
                "anyhow in main",
                "src/main.rs",
                "fn f() -> anyhow::Result<()> {}",
                "",
            ),
            (
                "clap in store",
                "src/store/a.rs",
                "#[derive(clap::Args)]",
                "`clap`",
            ),
            ("a name like it", "src/store/a.rs", "let clap = 1;", ""),
            ("println", "src/vfs/a.rs", "println!(\"x\");", "`println!`"),
            ("eprintln", "src/oci/a.rs", "eprintln!();", "`eprintln!`"),
            ("print in cli", "src/cli/output.rs", "print!(\"x\");", ""),
            ("print, no macro", "src/vfs/a.rs", "fn print() {}", ""),
        ]);
    }

    #[test]
    fn comments_and_literals_do_not_count() {
        check(&[
            ("line comment", "src/oci/a.rs", "// crate::vfs::A", ""),
            (
                "doc comment",
                "src/oci/a.rs",
                "//! See [`crate::vfs::A`].",
                "",
            ),
            (
                "block, nested",
                "src/oci/a.rs",
                "/* a /* b */ crate::vfs::A */",
                "",
            ),
            (
                "after a block",
                "src/oci/a.rs",
                "/* a */ crate::vfs::A",
                "`vfs`",
            ),
            (
                "string",
                "src/oci/a.rs",
                r#"let a = "\" crate::vfs::A";"#,
                "",
            ),
            (
                "after a string",
                "src/oci/a.rs",
                r#"f("\\", crate::vfs::A)"#,
                "`vfs`",
            ),
            (
                "raw string",
                "src/oci/a.rs",
                "let a = r#\"\" crate::vfs::A\"#;",
                "",
            ),
            (
                "after a raw string",
                "src/oci/a.rs",
                "f(br\"\\\", crate::vfs::A)",
                "`vfs`",
            ),
            (
                "name that ends in r",
                "src/oci/a.rs",
                "for\"crate::vfs\"",
                "",
            ),
            (
                "quote character",
                "src/oci/a.rs",
                "f('\"', crate::vfs::A, '\"')",
                "`vfs`",
            ),
            (
                "escaped quote",
                "src/oci/a.rs",
                r"f('\'', crate::vfs::A, '\'')",
                "`vfs`",
            ),
            (
                "lifetime",
                "src/oci/a.rs",
                "fn f<'a>(a: &'a crate::vfs::A)",
                "`vfs`",
            ),
        ]);
    }

    #[test]
    fn length() {
        let rows: &[(&str, &str, String, bool)] = &[
            ("700 lines", "src/oci/a.rs", "\n".repeat(700), true),
            ("701 lines", "src/oci/a.rs", "\n".repeat(701), false),
            (
                "tests at the end",
                "src/oci/a.rs",
                format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(900)),
                true,
            ),
            (
                "tests elsewhere",
                "src/oci/a.rs",
                format!("{}#[cfg(test)]\nmod tests;\n", "\n".repeat(700)),
                false,
            ),
            (
                "a file of tests",
                "src/oci/a/tests.rs",
                "\n".repeat(900),
                true,
            ),
        ];
        for (name, file, text, fits) in rows {
            assert_eq!(findings(file, text).is_empty(), *fits, "{name}");
        }
    }
}
