//! `ocifs unmount`, without a mount: what needs one is in `tests/mount/life.rs`.

use std::path::Path;

use crate::common::run;

use super::OCIFS;

#[test]
fn what_is_not_mounted() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = dir.path().join("file");
    std::fs::write(&file, "x").expect("it is ours");
    let missing = dir.path().join("missing");
    let rows: [(&str, &Path, &str); 3] = [
        ("a directory", dir.path(), "is not a mount point"),
        ("a file", &file, "file"),
        ("nothing", &missing, "missing"),
    ];
    for command in ["unmount", "umount"] {
        for force in [false, true] {
            for (name, path, expected) in rows {
                let mut arguments = vec![command.as_ref(), path.as_os_str()];
                if force {
                    arguments.push("--force".as_ref());
                }
                let output = run(OCIFS, &arguments);
                let stderr = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(4), "{command} {name}: {stderr}");
                assert!(
                    stderr.starts_with("ocifs: error: "),
                    "{command} {name}: {stderr}"
                );
                assert!(stderr.contains(expected), "{command} {name}: {stderr}");
                assert_eq!(stderr.lines().count(), 1, "{command} {name}: {stderr}");
            }
        }
    }
}

#[test]
fn without_a_mount_point() {
    let output = run(OCIFS, &["unmount"]);
    assert_eq!(output.status.code(), Some(2));
}
