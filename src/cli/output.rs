//! The only place that prints.
//!
//! That the reader of standard output has gone away is no error anywhere: it has seen
//! what it wanted. Nor is it one that nobody reads standard error any more.

use std::fmt;
use std::io::{self, Write};

/// Whether somebody still reads what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Go on.
    Continue,
    /// The reader has gone.
    Stop,
}

/// Prints one line of the result, or several.
///
/// # Errors
/// As [`bytes`].
pub(crate) fn line(text: &str) -> io::Result<Flow> {
    bytes(format!("{text}\n").as_bytes())
}

/// Prints a JSON document as the result.
///
/// # Errors
/// As [`bytes`].
pub(crate) fn json(value: &serde_json::Value) -> io::Result<Flow> {
    line(&format!("{value:#}"))
}

/// Writes raw bytes of the result, and sees that they get out.
///
/// # Errors
/// Failures of standard output, but that nobody reads it.
pub(crate) fn bytes(bytes: &[u8]) -> io::Result<Flow> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(Flow::Continue),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Flow::Stop),
        Err(error) => {
            let text = format!("cannot write to standard output: {error}");
            Err(io::Error::new(error.kind(), text))
        }
    }
}

/// Says something on standard error that is not part of the result.
pub(crate) fn note(text: &str) {
    say(format_args!("ocifs: {text}"));
}

/// Says what went wrong.
pub(crate) fn complain(text: &str) {
    say(format_args!("ocifs: error: {text}"));
}

fn say(text: fmt::Arguments<'_>) {
    let (Ok(()) | Err(_)) = writeln!(io::stderr(), "{text}");
}

/// A name or text from a layout, made harmless for a terminal: control characters and
/// those that turn the direction of writing are shown as `\u{…}`.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for c in String::from_utf8_lossy(bytes).chars() {
        if c.is_control() || turns(c) {
            text.extend(c.escape_unicode());
        } else {
            text.push(c);
        }
    }
    text
}

/// Whether a terminal may write what follows in another direction, or on another line.
fn turns(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_upon_is_escaped() {
        let rows: [(&str, &[u8], &str); 6] = [
            ("plain", b"alpine:3.19", "alpine:3.19"),
            (
                "other scripts",
                "\u{e9}\u{4e2d}".as_bytes(),
                "\u{e9}\u{4e2d}",
            ),
            ("escape", b"\x1b[2J", "\\u{1b}[2J"),
            ("newline", b"a\nb", "a\\u{a}b"),
            ("direction", "a\u{202e}b".as_bytes(), "a\\u{202e}b"),
            ("no UTF-8", b"a\xffb", "a\u{fffd}b"),
        ];
        for (name, bytes, expected) in rows {
            assert_eq!(printable(bytes), expected, "{name}");
        }
    }
}
