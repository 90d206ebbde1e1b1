//! The only place that prints.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is this file's purpose"
)]

/// Prints one line of the result.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// Says something on standard error that is not part of the result.
pub(crate) fn note(text: &str) {
    eprintln!("ocifs: {text}");
}

/// Says what went wrong.
pub(crate) fn complain(text: &str) {
    eprintln!("ocifs: error: {text}");
}
