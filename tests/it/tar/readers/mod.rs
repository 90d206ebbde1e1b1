//! Other readers of tars, each as something that answers one archive after the other.

mod gnu_tar;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::differential::{Reading, Row, normal};

pub(super) use gnu_tar::GnuTar;

/// A reader of tars.
pub(super) trait Reader {
    /// What it reads, up to what stops it.
    fn read(&mut self, bytes: &[u8]) -> Reading;
}

/// A script of this directory in a process of its own: starting Python for each archive
/// would take minutes.
pub(super) struct Script {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Script {
    pub(super) fn start(name: &str) -> Self {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tar/readers");
        let mut command = Command::new("python3");
        let command = command.args(["-B", &format!("{dir}/{name}")]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, to, from }
    }
}

impl Reader for Script {
    fn read(&mut self, bytes: &[u8]) -> Reading {
        let to = self.to.as_mut().expect("it is piped");
        writeln!(to, "{}", bytes.len())
            .and_then(|()| to.write_all(bytes))
            .and_then(|()| to.flush())
            .expect("it listens");
        let mut line = String::new();
        self.from.read_line(&mut line).expect("it answers");
        let value: Value = serde_json::from_str(&line).expect("it answers in JSON");
        let rows = value["rows"].as_array().expect("rows");
        Reading {
            rows: rows.iter().map(row).collect(),
            error: value["error"].as_str().map(str::to_owned),
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.to.take());
        drop(self.child.wait());
    }
}

fn row(row: &Value) -> Row {
    let bytes = |key: &str| -> Vec<u8> {
        let text = row[key].as_str().unwrap_or_default();
        text.chars()
            .map(|c| u8::try_from(u32::from(c)).expect("Latin-1"))
            .collect()
    };
    let number = |key: &str| row[key].as_i64().unwrap_or(i64::MAX);
    let letter = row["letter"]
        .as_str()
        .and_then(|text| text.chars().next())
        .unwrap_or('?');
    let link = bytes("link");
    Row {
        path: normal(&bytes("path")),
        letter,
        mode: number("mode").unsigned_abs(),
        uid: number("uid"),
        gid: number("gid"),
        size: number("size").unsigned_abs(),
        mtime: number("mtime"),
        link: if letter == 'h' { normal(&link) } else { link },
        content: row["content"].as_str().map(str::to_owned),
    }
}
