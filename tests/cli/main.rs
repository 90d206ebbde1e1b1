//! The binary as a user calls it: output and exit status, one file per subcommand.

#[path = "../common/mod.rs"]
mod common;

use common::{TestLayout, run};

const OCIFS: &str = env!("CARGO_BIN_EXE_ocifs");

#[test]
fn exit_status() {
    let layout = TestLayout::new();
    let layout = layout.path().to_str().expect("a temporary path is text");
    let rows: &[(&str, &[&str], i32)] = &[
        ("help", &["--help"], 0),
        ("version", &["--version"], 0),
        ("no command", &[], 2),
        ("unknown command", &["no-such-command"], 2),
        ("unknown option", &["ls", "--no-such-option", layout], 2),
        ("empty layout", &["ls", layout], 0),
        (
            "no such ref",
            &["cat", layout, "no-such-ref/manifest.json"],
            1,
        ),
    ];
    for (name, arguments, status) in rows {
        let output = run(OCIFS, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(*status), "{name}: {stderr}");
    }
}

#[test]
fn a_failed_mount_says_why() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let missing = dir.path().join("missing");
    let cache = dir.path().join("cache");
    let output = run(
        OCIFS,
        &[
            "mount".as_ref(),
            "--cache-dir".as_ref(),
            cache.as_os_str(),
            missing.as_os_str(),
            dir.path().as_os_str(),
        ],
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{stderr}");
    assert!(
        stderr.contains("missing"),
        "the path is not named: {stderr}"
    );
    assert!(!stderr.contains("panicked"), "{stderr}");
}
