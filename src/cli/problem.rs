//! Something that a command found wrong, and went on.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use ocifs::{ingest, vfs};
use serde_json::{Value, json};

use super::error::{self, Status};
use super::output;

/// The code of what is no fault of stored data.
const REQUEST: &str = "REQUEST";

/// Something that was found wrong.
#[derive(Debug)]
pub(crate) struct Problem {
    /// What it was found in.
    pub(crate) of: String,
    pub(crate) code: &'static str,
    pub(crate) text: String,
    pub(crate) status: Status,
}

impl Problem {
    /// What a node of the tree answered.
    pub(crate) fn new(of: impl Into<String>, error: &vfs::Error) -> Self {
        let of = of.into();
        let status = error::of_vfs(error);
        match error.fault() {
            Some(fault) => Self {
                of,
                code: fault.code,
                text: fault.text,
                status,
            },
            None => Self {
                of,
                code: REQUEST,
                text: error.to_string(),
                status,
            },
        }
    }

    /// Something about what was asked for, not about stored data.
    pub(crate) fn request(of: impl Into<String>, text: String, status: Status) -> Self {
        Self {
            of: of.into(),
            code: REQUEST,
            text,
            status,
        }
    }

    /// Why something cannot be done at all.
    pub(crate) fn of_error(of: impl AsRef<OsStr>, error: &anyhow::Error) -> Self {
        let of = output::printable(of.as_ref().as_bytes());
        let fault = error.chain().find_map(|cause| cause.downcast_ref());
        if let Some(error) = fault {
            return Self::new(of, error);
        }
        let ingest = |cause: &(dyn std::error::Error + 'static)| {
            let error = cause.downcast_ref::<ingest::Error>()?;
            Some(error.code())
        };
        let hint = error::hint(error).map_or_else(String::new, |hint| format!("; {hint}"));
        Self {
            of,
            code: error.chain().find_map(ingest).unwrap_or(REQUEST),
            text: format!("{error:#}{hint}"),
            status: error::status(error),
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({"of": self.of, "code": self.code, "text": self.text})
    }

    /// Says it on standard error.
    pub(crate) fn complain(&self) {
        let code = match self.code {
            REQUEST => String::new(),
            code => format!(" [{code}]"),
        };
        let text = format!("{}: {}", self.of, self.text);
        output::complain(&(output::printable(text.as_bytes()) + &code));
    }
}

/// The exit status of a command that found these: the greatest counts.
pub(crate) fn exit_code(problems: &[Problem]) -> ExitCode {
    let worst = problems.iter().map(|problem| problem.status).max();
    worst.map_or(ExitCode::SUCCESS, ExitCode::from)
}
