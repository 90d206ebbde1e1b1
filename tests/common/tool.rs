//! Other programs, and what they say.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Output};

use ocifs::oci::{Digest, Hasher};

/// Runs `tool` and returns its output, whatever its exit status.
pub fn run<S: AsRef<OsStr>>(tool: &str, arguments: &[S]) -> Output {
    let mut command = Command::new(tool);
    command.args(arguments);
    command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

/// Runs `tool`, which must succeed, and returns its stdout.
pub fn run_ok<S: AsRef<OsStr>>(tool: &str, arguments: &[S]) -> Vec<u8> {
    let output = run(tool, arguments);
    let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    assert!(
        output.status.success(),
        "{tool} {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output.stdout
}

/// The sha256 digest of a file, read from beginning to end.
///
/// # Errors
/// What `open` or `read` answered.
pub fn sha256_of_file(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let (mut hasher, mut buffer) = (Hasher::sha256(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            len => hasher.update(&buffer[..len]),
        }
    }
}
