//! What unmodified tools do to the drop box.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{
    Compression, MountOptions, Need, TestLayout, TestMount, compress, digest_of, has, tar_of,
    verify_layout,
};

/// A mount, and a directory beside it with files to bring in.
struct Bench {
    layout: TestLayout,
    mount: TestMount,
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let layout = TestLayout::new();
        let mount = MountOptions::new(layout.path())
            .arg("--allow-delete")
            .start();
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        for name in ["one", "two"] {
            fs::write(dir.path().join(name), format!("file {name}")).expect("it is ours");
        }
        let large: Vec<u8> = (0..3_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
        fs::write(dir.path().join("large"), large).expect("it is ours");
        Self { layout, mount, dir }
    }

    /// Runs a script beside the files, with the drop box as `$IN`; what it said if it failed.
    fn run(&self, script: &str) -> Result<(), String> {
        let output = Command::new("bash")
            .args(["-ec", script])
            .env("IN", self.mount.join("incoming"))
            .env("HOME", self.dir.path())
            .env("TERM", "dumb")
            .current_dir(self.dir.path())
            .output()
            .expect("there is a shell");
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// The bytes of the artifact that has this ref name.
    fn artifact(&self, name: &str) -> Vec<u8> {
        let path = self.mount.join(name).join("manifest.json");
        let manifest = fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let manifest: Value = serde_json::from_slice(&manifest).expect("it is JSON");
        let digest = digest_of(&manifest["layers"][0]);
        let blobs = self.mount.join(".ocifs/layout/blobs/sha256");
        fs::read(blobs.join(digest.encoded())).expect("the blob is there")
    }

    fn refs(&self) -> Vec<String> {
        let names = crate::sample::names(self.mount.path());
        names.into_iter().filter(|n| n != "incoming").collect()
    }
}

#[test]
fn tools_drop_files() {
    let tools: [(&str, &str); 15] = [
        ("cp", r#"cp one two large "$IN""#),
        ("cp", r#"cp -a one two large "$IN""#),
        ("cp", r#"cp --sparse=always -p one two large "$IN""#),
        ("cp", r#"cp -a . "$IN/""#),
        ("cp", r#"cp -r . "$IN""#),
        ("mv", r#"mv one two large "$IN""#),
        ("install", r#"install -m 755 one two large "$IN""#),
        (
            "dd",
            r#"for f in one two large; do dd if=$f of="$IN/$f" bs=7k status=none; done"#,
        ),
        (
            "dd",
            r#"for f in one two large; do dd if=$f of="$IN/$f" bs=4M conv=fsync status=none; done"#,
        ),
        (
            "cat",
            r#"for f in one two large; do cat $f > "$IN/$f"; done"#,
        ),
        ("rsync", r#"rsync one two large "$IN/""#),
        ("rsync", r#"rsync -a --inplace ./ "$IN/""#),
        ("tar", r#"tar c one two large | tar x -C "$IN""#),
        ("bsdtar", r#"tar c . | bsdtar -x -f - -C "$IN""#),
        (
            "curl",
            r#"for f in one two large; do curl -s -o "$IN/$f" "file://$PWD/$f"; done"#,
        ),
    ];
    for (tool, script) in tools {
        if !has(
            &format!("tools_drop_files {tool}"),
            &[Need::Fuse, Need::Tool(tool)],
        ) {
            continue;
        }
        let bench = Bench::new();
        let files = ["large", "one", "two"];
        let expected = files.map(|name| fs::read(bench.dir.path().join(name)).expect("it is ours"));
        if let Err(stderr) = bench.run(script) {
            panic!("{script}: {stderr}\n{}", bench.mount.stderr());
        }
        assert_eq!(bench.refs(), files, "{script}");
        for (name, bytes) in files.iter().zip(expected) {
            assert!(bench.artifact(name) == bytes, "{script}: {name}");
        }
        drop(bench.mount);
        verify_layout(bench.layout.path());
    }
}

#[test]
fn rsync_brings_in_only_what_is_new() {
    let name = "rsync_brings_in_only_what_is_new";
    if !has(name, &[Need::Fuse, Need::Tool("rsync")]) {
        return;
    }
    let bench = Bench::new();
    bench.run(r#"rsync -a ./ "$IN/""#).expect("the first time");
    assert_eq!(bench.refs(), ["large", "one", "two"]);
    bench
        .run(r#"echo more >> one; rsync -a ./ "$IN/""#)
        .expect("the second time");
    assert_eq!(bench.artifact("one"), b"file onemore\n");
    assert_eq!(
        bench.refs(),
        ["large", "one", "two"],
        "its temporary names are no refs"
    );
}

/// Editors make a file, and then change it: by writing over it, by taking another in its
/// place, with copies and notes of their own beside it.
#[test]
fn editors_write_files_and_change_them() {
    let rows = [
        (
            "vi",
            r#"printf 'new\n' > file; vi -es -i NONE -c "w $IN/note" -c 'q!' file"#,
            r#"vi -es -i NONE -c 's/new/newer/' -c wq "$IN/note""#,
        ),
        (
            "vi",
            r#"printf 'new\n' > "$IN/note""#,
            r#"vi -es -i NONE -c 'set backup backupcopy=no' -c 's/new/newer/' -c wq "$IN/note""#,
        ),
        (
            "ed",
            r#"printf '%s\n' a new . w q | ed -s "$IN/note""#,
            r#"printf '%s\n' s/new/newer/ w q | ed -s "$IN/note""#,
        ),
    ];
    for (tool, make, change) in rows {
        let name = format!("editors_write_files_and_change_them {tool}");
        if !has(&name, &[Need::Fuse, Need::Tool(tool)]) {
            continue;
        }
        let bench = Bench::new();
        for (script, expected) in [(make, "new\n"), (change, "newer\n")] {
            if let Err(stderr) = bench.run(script) {
                panic!("{script}: {stderr}\n{}", bench.mount.stderr());
            }
            assert_eq!(bench.artifact("note"), expected.as_bytes(), "{script}");
            assert_eq!(bench.refs(), ["note"], "{script}");
        }
        drop(bench.mount);
        verify_layout(bench.layout.path());
    }
}

#[test]
fn what_is_refused_makes_the_tool_fail() {
    let name = "what_is_refused_makes_the_tool_fail";
    if !has(name, &[Need::Fuse, Need::Tool("rsync")]) {
        return;
    }
    let bench = Bench::new();
    let name = format!("sha256:{}", "a".repeat(64));
    let scripts = [
        format!(r#"cp one "$IN/{name}""#),
        format!(r#"dd if=one of="$IN/{name}""#),
        format!(r#"mkdir d; cp one 'd/{name}'; tar c -C d . | tar x -C "$IN""#),
        format!(r#"cp one '{name}'; rsync './{name}' "$IN/""#),
        format!(r#"cp one '{name}'; mv '{name}' "$IN/""#),
    ];
    for script in scripts {
        assert!(bench.run(&script).is_err(), "{script}");
        let error = bench.mount.join(format!("incoming/{name}.error"));
        assert!(
            fs::read_to_string(&error).is_ok_and(|text| text.contains("BLOB_DIGEST")),
            "{script}"
        );
        fs::remove_file(&error).expect("it can be dismissed");
    }
    assert!(bench.refs().is_empty());
}

#[test]
fn what_a_drop_becomes_hangs_on_its_content() {
    let name = "what_a_drop_becomes_hangs_on_its_content";
    if !has(name, &[Need::Fuse, Need::Tool("skopeo")]) {
        return;
    }
    let bench = Bench::new();
    let tar = tar_of(&[("etc/", b""), ("etc/motd", b"hello")]);
    let write = |file: &str, bytes: &[u8]| {
        fs::write(bench.dir.path().join(file), bytes).expect("it is ours");
    };
    write("plain.tar", &tar);
    write("packed.tgz", &compress(Compression::Gzip, &tar));
    let other = TestLayout::new();
    let layer = other.layer_of_tar(Compression::Gzip, &tar);
    other.add_ref("theirs", &other.image(&[layer]));
    let from = format!("oci:{}:theirs", other.path().display());
    bench
        .run(&format!("skopeo copy -q {from} oci-archive:a.tar:theirs"))
        .expect("skopeo writes an archive");
    bench
        .run(&format!(
            "skopeo copy -q {from} docker-archive:d.tar:docker.io/library/d:1"
        ))
        .expect("skopeo writes an archive");
    bench
        .run(r#"cp plain.tar packed.tgz a.tar d.tar "$IN""#)
        .expect("all are right");
    for name in ["plain", "packed", "theirs"] {
        let motd = bench.mount.join(name).join("rootfs/etc/motd");
        assert_eq!(
            fs::read(&motd).ok().as_deref(),
            Some(&b"hello"[..]),
            "{name}"
        );
    }
    let refs = bench.refs();
    assert!(
        !refs.iter().any(|name| name == "a"),
        "an archive's images have their own names"
    );
    // The receipt of an archive is the archive.
    let receipt = fs::read(bench.mount.join("incoming/a.tar")).ok();
    assert!(
        receipt == fs::read(bench.dir.path().join("a.tar")).ok(),
        "a.tar is kept"
    );
    // A manifest whose blobs are there is named; one whose blobs are not is refused.
    let manifest = fs::read(bench.mount.join("plain/manifest.json")).expect("it is there");
    write("again.json", &manifest);
    bench
        .run(r#"cp again.json "$IN""#)
        .expect("its blobs are there");
    assert!(bench.refs().contains(&"again".to_owned()));
    let missing = String::from_utf8_lossy(&manifest).replace("sha256:", "sha256:0");
    let cut: String = cut_digests(&missing);
    write("missing.json", cut.as_bytes());
    assert!(bench.run(r#"cp missing.json "$IN""#).is_err());
    let error = bench.mount.join("incoming/missing.json.error");
    assert!(
        is_told(&error, "COMMIT_INCOMPLETE"),
        "{:?}",
        fs::read_to_string(&error)
    );
    drop(bench.mount);
    verify_layout(bench.layout.path());
}

/// Gives digests that have one digit too many their length back.
fn cut_digests(text: &str) -> String {
    let mut parts = text.split("sha256:");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        whole.push_str("sha256:");
        whole.push_str(&part[..64]);
        whole.push_str(&part[65..]);
    }
    whole
}

fn is_told(error: &Path, code: &str) -> bool {
    fs::read_to_string(error).is_ok_and(|text| text.contains(code))
}
