//! `ls`, `cat` and `inspect` inside `rootfs/` and `layers/NN/`, without a mount.

use serde_json::{Value, json};

use super::common::{Compression, Tarball, TestLayout};
use super::{assert_told, ocifs, stderr, stdout};

/// An image of two layers: odd files, and a change upon them.
struct Sample {
    layout: TestLayout,
    digests: Vec<Value>,
    cache: tempfile::TempDir,
}

impl Sample {
    fn new() -> Self {
        let layout = TestLayout::new();
        let base = Tarball::new()
            .dir("etc/")
            .owner(7, 8)
            .mode(0o640)
            .pax("SCHILY.xattr.user.colour", "blue")
            .pax("mtime", "1.5")
            .file("etc/motd", "hello\n")
            .link("etc/same", "etc/motd")
            .symlink("link", "/etc/motd")
            .symlink("climbing", "../../../etc/motd")
            .symlink("etc/loop", "loop")
            .device("null", 1, 3)
            .fifo("pipe")
            .finish();
        let upper = Tarball::new()
            .file("etc/upper", "2")
            .file(".wh.gone", "")
            .finish();
        let layers = [
            layout.layer_of_tar(Compression::Gzip, &base),
            layout.layer_of_tar(Compression::Zstd, &upper),
            layout.layer_of_tar(Compression::Gzip, b"no tar"),
        ];
        let digest = |number: usize| layers[number].descriptor["digest"].clone();
        let digests = vec![digest(0), digest(1)];
        layout.add_ref("app:1", &layout.image(&layers[..2]));
        layout.add_ref("bad:1", &layout.image(&layers));
        Self {
            layout,
            digests,
            cache: tempfile::tempdir().unwrap(),
        }
    }

    fn ocifs(&self, command: &str, arguments: &[&str]) -> std::process::Output {
        let (cache, layout) = (self.cache.path(), self.layout.path());
        let mut all = vec![command, "--cache-dir", cache.to_str().unwrap()];
        all.push(layout.to_str().unwrap());
        all.extend(arguments);
        ocifs(&all)
    }

    fn json(&self, command: &str, arguments: &[&str]) -> Value {
        let output = self.ocifs(command, &[arguments, &["--json"]].concat());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{command}: {error}: {}", stderr(&output)))
    }
}

#[test]
fn ls_shows_what_is_in_them() {
    let sample = Sample::new();
    let rows = [
        ("app:1/rootfs", "climbing\netc\nlink\nnull\npipe\n"),
        ("app:1/rootfs/etc", "loop\nmotd\nsame\nupper\n"),
        ("app:1/layers/01", ".wh.gone\netc\n"),
        ("app:1/layers/01/etc/", "upper\n"),
        ("app:1/rootfs/null", "app:1/rootfs/null\n"),
    ];
    for (path, expected) in rows {
        let output = sample.ocifs("ls", &[path]);
        assert_eq!(stdout(&output), expected, "{path}: {}", stderr(&output));
    }
}

#[test]
fn ls_long_shows_owners_links_and_devices() {
    let sample = Sample::new();
    let output = sample.ocifs("ls", &["-l", "app:1/rootfs/etc/motd"]);
    let line = "-rw-r-----  2  7  8  6  1970-01-01 00:00  app:1/rootfs/etc/motd\n";
    assert_eq!(stdout(&output), line, "{}", stderr(&output));
    let output = stdout(&sample.ocifs("ls", &["-l", "app:1/rootfs"]));
    let rows = [
        "climbing -> ../../../etc/motd",
        "drwxr-xr-x  2  0  0",
        "link -> /etc/motd",
        "crw-r--r--  1  0  0  1, 3",
        "prw-r--r--  1",
    ];
    for row in rows {
        let found = output.lines().any(|line| {
            let words = |text: &str| {
                text.split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            words(line)
                .windows(words(row).len())
                .any(|part| part == words(row))
        });
        assert!(found, "no {row:?} in\n{output}");
    }
}

#[test]
fn ls_as_json_has_it_too() {
    let sample = Sample::new();
    let listing = sample.json("ls", &["app:1/rootfs"]);
    let of = |name: &str| {
        let mut all = listing.as_array().unwrap().iter();
        all.find(|item| item["name"] == name).unwrap().clone()
    };
    assert_eq!(of("null")["device"], json!({"major": 1, "minor": 3}));
    assert_eq!(of("null")["kind"], "character device");
    assert_eq!(of("link")["target"], "/etc/motd");
    assert_eq!(of("etc")["links"], 2);
    let motd = &sample.json("ls", &["app:1/rootfs/etc/motd"])[0];
    let expected = (json!("0640"), json!(2), json!(7), json!(6));
    let found = (&motd["mode"], &motd["links"], &motd["uid"], &motd["size"]);
    assert_eq!(found, (&expected.0, &expected.1, &expected.2, &expected.3));
    assert_eq!(motd["mtime"], "1970-01-01T00:00:01.500000000Z");
}

#[test]
fn cat_follows_links_as_a_container_would() {
    let sample = Sample::new();
    let rows = [
        ("app:1/rootfs/etc/motd", "hello\n"),
        ("app:1/rootfs/etc/same", "hello\n"),
        ("app:1/rootfs/link", "hello\n"),
        ("app:1/rootfs/climbing", "hello\n"),
        ("app:1/layers/00/link", "hello\n"),
        ("app:1/rootfs/../rootfs/etc/upper", "2"),
    ];
    for (path, expected) in rows {
        let output = sample.ocifs("cat", &[path]);
        assert_eq!(stdout(&output), expected, "{path}: {}", stderr(&output));
    }
    let refused = [
        ("app:1/rootfs/none", 1),
        ("app:1/layers/01/link", 1),
        ("app:1/rootfs/etc", 2),
        ("app:1/rootfs/null", 2),
        ("app:1/rootfs/pipe", 2),
        ("app:1/rootfs/etc/loop", 2),
        ("bad:1/rootfs/etc/motd", 3),
    ];
    for (path, status) in refused {
        let output = sample.ocifs("cat", &[path]);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{path}: {}",
            stderr(&output)
        );
        assert!(output.stdout.is_empty(), "{path}");
    }
}

#[test]
fn inspect_says_where_anything_comes_from() {
    let sample = Sample::new();
    let rows = [
        ("rootfs/etc", 0),
        ("rootfs/etc/motd", 0),
        ("rootfs/link", 0),
        ("rootfs/null", 0),
        ("rootfs/pipe", 0),
        ("rootfs/etc/upper", 1),
    ];
    for (path, number) in rows {
        let node = sample.json("inspect", &["app:1", path]);
        let layer = json!({"number": number, "digest": sample.digests[number]});
        assert_eq!(node["layer"], layer, "{path}");
        assert_eq!(node["created_by"], format!("step {number}"), "{path}");
        let text = stdout(&sample.ocifs("inspect", &["app:1", path]));
        let digest = sample.digests[number].as_str().unwrap();
        assert!(
            text.contains(&format!("{number} {digest}")),
            "{path}: {text}"
        );
        assert!(text.contains(&format!("step {number}")), "{path}: {text}");
    }
    let motd = sample.json("inspect", &["app:1", "rootfs/etc/motd"]);
    assert_eq!(motd["xattrs"], json!({"user.colour": "blue"}));
    let null = stdout(&sample.ocifs("inspect", &["app:1", "rootfs/null"]));
    assert!(null.contains("1, 3"), "{null}");
    let of_layer = sample.json("inspect", &["app:1", "layers/00/etc/motd"]);
    assert_eq!(of_layer["layer"], Value::Null);
}

#[test]
fn what_is_wrong_with_a_tree_is_said() {
    let sample = Sample::new();
    for path in ["rootfs", "layers/02"] {
        let output = sample.ocifs("ls", &[&format!("bad:1/{path}")]);
        assert_told(path, &output, 3, "[TAR_");
        let output = sample.ocifs("inspect", &["bad:1", path]);
        assert_eq!(output.status.code(), Some(3), "{path}");
        assert!(
            stdout(&output).contains("problem"),
            "{path}: {}",
            stdout(&output)
        );
    }
    let output = sample.ocifs("ls", &["bad:1/layers/00"]);
    assert!(output.status.success(), "the others are sound");
}
