//! A mounted archive: read-only, and a layout for other tools.

use std::fs;
use std::process::Command;

use super::common::{
    Compression, MountOptions, Need, TestLayout, TestMount, compress, has, run_ok,
};

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Archives of one image as skopeo writes them.
fn by_skopeo(layout: &TestLayout, transport: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = dir.path().join("image.tar");
    let from = format!("oci:{}:app:1", layout.path().display());
    let to = format!("{transport}:{}:app:1", file.display());
    run_ok("skopeo", &["copy", "-q", &from, &to]);
    fs::read(file).expect("skopeo has written it")
}

fn image() -> TestLayout {
    let layout = TestLayout::new();
    let text = "some text that is not short\n".repeat(20_000);
    let layers = [
        layout.layer(Compression::Gzip, &[("etc/motd", b"hello\n")]),
        layout.layer(Compression::Gzip, &[("text", text.as_bytes())]),
    ];
    layout.add_ref("app:1", &layout.image(&layers));
    layout
}

#[test]
fn other_tools_read_a_mounted_archive() -> TestResult {
    let name = "other_tools_read_a_mounted_archive";
    if !has(name, &[Need::Fuse, Need::Tool("skopeo")]) {
        return Ok(());
    }
    let layout = image();
    let dir = tempfile::tempdir()?;
    let docker = "docker.io/library/app:1";
    for (transport, compression, image) in [
        ("oci-archive", Compression::Zstd, "app:1"),
        ("docker-archive", Compression::None, docker),
        ("docker-archive", Compression::Gzip, docker),
    ] {
        let name = format!("{transport}, {compression:?}");
        let archive = dir.path().join("archive");
        fs::write(
            &archive,
            compress(compression, &by_skopeo(&layout, transport)),
        )?;
        let mount = TestMount::start(&archive);
        let motd = mount.join(image).join("rootfs/etc/motd");
        assert_eq!(fs::read(motd)?, b"hello\n", "{name}");
        let source = format!("oci:{}:{image}", mount.join(".ocifs/layout").display());
        let digest = run_ok("skopeo", &["inspect", "--format", "{{.Digest}}", &source]);
        let copy = dir.path().join("copy");
        let to = format!("oci:{}:copied", copy.display());
        run_ok(
            "skopeo",
            &["copy", "-q", "--preserve-digests", &source, &to],
        );
        let copied = run_ok("skopeo", &["inspect", "--format", "{{.Digest}}", &to]);
        assert_eq!(digest, copied, "{name}");
        fs::remove_dir_all(copy)?;
        assert!(mount.unmount().success(), "{name}");
    }
    Ok(())
}

#[test]
fn nothing_can_be_written() -> TestResult {
    if !has("nothing_can_be_written", &[Need::Fuse]) {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let archive = dir.path().join("image.tar");
    let layout = image();
    let packed = Command::new("tar")
        .arg("-C")
        .arg(layout.path())
        .args(["-cf"])
        .arg(&archive)
        .arg(".")
        .status()?;
    assert!(packed.success());
    let before = fs::read(&archive)?;
    let mount = MountOptions::new(&archive).start();
    let errno = |result: std::io::Result<()>| result.expect_err("it is read-only").raw_os_error();
    let refused = Some(libc::EROFS);
    let drop = fs::write(mount.join("incoming/x"), b"1");
    assert_eq!(errno(drop), refused);
    assert_eq!(errno(fs::create_dir(mount.join("incoming/job"))), refused);
    assert_eq!(
        errno(fs::rename(mount.join("app:1"), mount.join("app:2"))),
        refused
    );
    assert_eq!(errno(fs::remove_dir(mount.join("app:1"))), refused);
    let link = std::os::unix::fs::symlink("app:1", mount.join("new"));
    assert_eq!(errno(link), refused);
    let status = fs::read_to_string(mount.join(".ocifs/status.json"))?;
    assert!(status.contains("image.tar"), "{status}");
    assert!(mount.unmount().success());
    assert_eq!(fs::read(&archive)?, before);
    Ok(())
}
