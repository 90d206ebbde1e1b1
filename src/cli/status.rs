//! `ocifs status`: what is mounted, and how it fares.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::error::{Refusal, Status};
use super::{daemon, format, output};

/// The file system type of our mounts, where the kernel was told one.
const TYPE: &str = "fuse.oci-layout";

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
    let table = fs::read("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let mut mounts = mounts(&table);
    if let Some(wanted) = &arguments.mountpoint {
        let wanted = absolute(wanted)?;
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

/// One line of the table of mounts.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    mountpoint: PathBuf,
    source: String,
}

/// Our mounts in the kernel's table.
///
/// Spec: proc_pid_mountinfo(5).
fn mounts(table: &[u8]) -> Vec<Mounted> {
    let lines = table.split(|byte| *byte == b'\n');
    lines.filter_map(mount).collect()
}

/// One line of the table, if it is one of ours: `36 35 98:0 /root MOUNTPOINT options
/// [fields…] - TYPE SOURCE super-options`.
fn mount(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mountpoint = fields.nth(4)?;
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    if fields.next()? != TYPE.as_bytes() {
        return None;
    }
    Some(Mounted {
        mountpoint: OsString::from_vec(unescape(mountpoint)).into(),
        source: String::from_utf8_lossy(&unescape(fields.next()?)).into_owned(),
    })
}

/// Undoes the `\040` of the kernel's tables.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = match rest {
            [b'\\', digits @ ..] if digits.len() >= 3 => std::str::from_utf8(&digits[..3])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 8).ok()),
            _ => None,
        };
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &rest[4..] } else { after };
    }
    bytes
}

/// The absolute path of a mount point, found without asking the mount itself.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = parent
                .canonicalize()
                .with_context(|| parent.display().to_string());
            Ok(parent?.join(name))
        }
        _ => Ok(path),
    }
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
    fn our_mounts_are_found_in_the_table() {
        let table = b"22 1 0:20 / / rw shared:1 - ext4 /dev/vda rw\n\
            40 22 0:50 / /mnt/a\\040b ro,nosuid - fuse.oci-layout /srv/l\\134x ro,user_id=0\n\
            41 22 0:51 / /mnt/c rw shared:2 master:1 - fuse.oci-layout /srv/m rw\n\
            42 22 0:52 / /mnt/d rw - fuse.sshfs host: rw\n\
            broken line\n";
        let expected = [("/mnt/a b", "/srv/l\\x"), ("/mnt/c", "/srv/m")];
        let expected = expected.map(|(mountpoint, source)| Mounted {
            mountpoint: mountpoint.into(),
            source: source.into(),
        });
        assert_eq!(mounts(table), expected);
    }

    #[test]
    fn escapes_of_the_table() {
        let rows = [
            ("plain", "plain"),
            ("a\\040b", "a b"),
            ("\\134", "\\"),
            ("end\\04", "end\\04"),
            ("\\999", "\\999"),
        ];
        for (field, expected) in rows {
            assert_eq!(unescape(field.as_bytes()), expected.as_bytes(), "{field}");
        }
    }

    #[test]
    fn answers_for_people() {
        let silent = json!({"mountpoint": "/m", "source": "/l", "problem": "gone", "status": null});
        assert_eq!(text(&silent), "/m\n  layout    /l\n  problem   gone");
        let status = json!({"pid": 7, "since": 0, "images": 2,
            "indexing": [{"layer": "sha256:x", "done": 1024, "total": 2048}],
            "errors": [{"code": "BLOB_DIGEST", "text": "a\u{1b}"}]});
        let answer = json!({"mountpoint": "/m", "source": "/l", "status": status});
        let expected = "/m\n  layout    /l\n  pid       7\n  since     1970-01-01T00:00:00Z\n  \
            images    2\n  indexing  sha256:x, 1.0 KiB of 2.0 KiB\n  \
            error     BLOB_DIGEST: a\\u{1b}";
        assert_eq!(text(&answer), expected);
    }
}
