//! `ocifs status`: what is mounted, and how it fares.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::error::{Refusal, Status};
use super::mounts::{self, Mounted};
use super::{daemon, format, output};

/// How long a mount may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Arguments of `ocifs status`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where it is mounted [default: all mounts].
    mountpoint: Option<PathBuf>,
    /// Print an array of objects.
    #[arg(long)]
    json: bool,
}

/// Says how the mounts fare; that one does not answer is a finding.
///
/// # Errors
/// If there is none, or not that one.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut mounts = mounts::list()?;
    if let Some(wanted) = &arguments.mountpoint {
        let wanted = mounts::absolute(wanted)?;
        mounts.retain(|mount| mount.mountpoint == wanted);
        // Of several on one place only the last can be seen.
        mounts.drain(..mounts.len().saturating_sub(1));
        if mounts.is_empty() {
            let message = format!("no layout is mounted on {}", wanted.display());
            return Err(Refusal::not_found(message));
        }
    }
    let answers: Vec<Value> = mounts.iter().map(ask).collect();
    let fine = !answers.is_empty() && answers.iter().all(|answer| answer["answers"] == true);
    if arguments.json {
        output::json(&Value::Array(answers))?;
    } else if answers.is_empty() {
        output::note("no layout is mounted");
    } else {
        let texts: Vec<String> = answers.iter().map(text).collect();
        output::line(&texts.join("\n\n"))?;
    }
    Ok(if fine {
        ExitCode::SUCCESS
    } else {
        Status::Finding.into()
    })
}

/// What a mount answers, beside what the kernel says of it.
fn ask(mount: &Mounted) -> Value {
    let answer = daemon::status(&mount.mountpoint, PATIENCE);
    json!({
        "mountpoint": mount.mountpoint.to_string_lossy(),
        "source": mount.source,
        "answers": answer.is_ok(),
        "problem": answer.as_ref().err().map(ToString::to_string),
        "status": answer.ok(),
    })
}

/// An answer for people.
fn text(answer: &Value) -> String {
    let shown = |value: &Value| match value {
        Value::String(text) => output::printable(text.as_bytes()),
        Value::Null => "unknown".to_owned(),
        other => other.to_string(),
    };
    let mut lines = vec![shown(&answer["mountpoint"])];
    let mut row = |name: &str, value: &str| lines.push(format!("  {name:<9} {value}"));
    let status = &answer["status"];
    row("layout", &shown(&answer["source"]));
    if status.is_null() {
        row("problem", &shown(&answer["problem"]));
        return lines.join("\n");
    }
    row("pid", &shown(&status["pid"]));
    if let Some(since) = status["since"].as_i64() {
        row("since", &format::rfc3339(since));
    }
    row("images", &shown(&status["images"]));
    for pass in status["indexing"].as_array().into_iter().flatten() {
        let size = |key: &str| format::size(pass[key].as_u64().unwrap_or(0));
        let (done, total) = (size("done"), size("total"));
        row(
            "indexing",
            &format!("{}, {done} of {total}", shown(&pass["layer"])),
        );
    }
    for session in status["drop_box"]["sessions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let path = shown(&session["path"]);
        row("session", &format!("{path}, not published"));
    }
    for fault in status["errors"].as_array().into_iter().flatten() {
        row(
            "error",
            &format!("{}: {}", shown(&fault["code"]), shown(&fault["text"])),
        );
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_for_people() {
        let silent = json!({"mountpoint": "/m", "source": "/l", "problem": "gone", "status": null});
        assert_eq!(text(&silent), "/m\n  layout    /l\n  problem   gone");
        let status = json!({"pid": 7, "since": 0, "images": 2,
            "indexing": [{"layer": "sha256:x", "done": 1024, "total": 2048}],
            "drop_box": {"sessions": [{"path": "incoming/job"}]},
            "errors": [{"code": "BLOB_DIGEST", "text": "a\u{1b}"}]});
        let answer = json!({"mountpoint": "/m", "source": "/l", "status": status});
        let expected = "/m\n  layout    /l\n  pid       7\n  since     1970-01-01T00:00:00Z\n  \
            images    2\n  indexing  sha256:x, 1.0 KiB of 2.0 KiB\n  \
            session   incoming/job, not published\n  \
            error     BLOB_DIGEST: a\\u{1b}";
        assert_eq!(text(&answer), expected);
    }
}
