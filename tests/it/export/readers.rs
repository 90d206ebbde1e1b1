//! What readers of tars make of an archive.

use std::fs;

use ocifs::export::Format;

use super::{archive, filled, members, schema2};
use crate::common::{Need, TestLayout, has, run_ok};

type TestResult = super::TestResult;

/// Names and sizes, as Python reads them.
const PYTHON: &str = "import sys, tarfile
for member in tarfile.open(sys.argv[1], 'r:'):
    print(member.name, member.size, oct(member.mode), member.mtime, member.uid, member.gid)";

#[test]
fn tars_are_listed_and_extracted_alike() -> TestResult {
    let needs = [
        Need::Tool("tar"),
        Need::Tool("bsdtar"),
        Need::Tool("python3"),
    ];
    if !has("tars_are_listed_and_extracted_alike", &needs) {
        return Ok(());
    }
    let docker = TestLayout::new();
    docker.add_ref("app:1", &schema2(&docker));
    for (layout, format) in [(filled(), Format::Oci), (docker, Format::Docker)] {
        let bytes = archive(&layout, format)?;
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("archive");
        fs::write(&path, &bytes)?;
        let path = path.to_string_lossy().into_owned();
        let members = members(&bytes);
        let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        for tool in ["tar", "bsdtar"] {
            let listed = String::from_utf8(run_ok(tool, &["-tf", &path]))?;
            assert_eq!(listed.lines().collect::<Vec<_>>(), names, "{tool}");
            let out = dir.path().join(format!("{tool}-{}", format.name()));
            fs::create_dir(&out)?;
            run_ok(tool, &["-xf", &path, "-C", &out.to_string_lossy()]);
            for (name, bytes) in members.iter().filter(|(name, _)| !name.ends_with('/')) {
                assert!(fs::read(out.join(name))? == *bytes, "{tool}: {name}");
            }
        }
        let listed = String::from_utf8(run_ok("python3", &["-c", PYTHON, &path]))?;
        let line = |(name, bytes): &(String, Vec<u8>)| {
            let mode = if name.ends_with('/') {
                "0o755"
            } else {
                "0o644"
            };
            format!(
                "{} {} {mode} 0 0 0",
                name.trim_end_matches('/'),
                bytes.len()
            )
        };
        let expected: Vec<String> = members.iter().map(line).collect();
        assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
    }
    Ok(())
}
