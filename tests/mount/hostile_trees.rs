//! Rows T and W of the table of hostile inputs, as far as the mount has a say: what
//! `rootfs/` and `layers/NN/` answer, and that nothing else is disturbed.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use libc::{EBADMSG, EFBIG, ENODATA, EOPNOTSUPP, EUCLEAN};
use serde_json::{Value, json};

use crate::common::{Compression, Damage, Layer, Tarball};
use crate::ward::{CONFIG, FILES, Mounted, Ward, can_mount, errno_name};

impl Mounted {
    /// Going into the directory `path` fails so, however it is tried.
    fn assert_closed(&self, row: &str, path: &str, errno: i32, code: &str) {
        self.assert_refused(row, path, errno, code);
        let whole = self.mount.join(path);
        assert!(whole.is_dir(), "{row}: {path} can be looked at");
        let tries = [
            ("list", fs::read_dir(&whole).err()),
            ("look", fs::symlink_metadata(whole.join("x")).err()),
            ("open", File::open(whole.join("etc/motd")).err()),
        ];
        for (what, error) in tries {
            let found = error.and_then(|error| error.raw_os_error()).unwrap_or(0);
            assert_eq!(errno_name(found), errno_name(errno), "{row}: {what} {path}");
        }
    }
}

/// A tar with one pax record before a file.
fn with_pax(key: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    Tarball::new().pax(key, value).file("x", "x").finish()
}

#[test]
fn tars_that_are_refused() {
    if !can_mount("tars_that_are_refused") {
        return;
    }
    let noise: Vec<u8> = (0..4096u32).map(|at| (at * 7 % 251) as u8).collect();
    let cut = Tarball::new().file("x", [1; 2000]).finish_part();
    let long = "x".repeat(256);
    let deep = "d/".repeat(5_000) + "x";
    let rows: Vec<(&str, Vec<u8>, i32)> = vec![
        ("no tar at all", noise, EUCLEAN),
        ("T16' cut in data", cut[..1024].to_vec(), EUCLEAN),
        (
            "T4' a malformed record",
            Tarball::new().pax("mtime", "x").file("x", "").finish(),
            EUCLEAN,
        ),
        (
            "T7' a pax header over the limit",
            with_pax("comment", vec![b'x'; 2 << 20]),
            EFBIG,
        ),
        (
            "T12' a size that no file has",
            with_pax("size", "-1"),
            EUCLEAN,
        ),
        (
            "T18' a component of 256 bytes",
            Tarball::new().file(&long, "").finish(),
            EUCLEAN,
        ),
        (
            "T18' too deep",
            Tarball::new().file(&deep, "").finish(),
            EFBIG,
        ),
        (
            "T20' the root as a symlink",
            Tarball::new().symlink("./", "/etc").finish(),
            EUCLEAN,
        ),
        (
            "T23' a link to itself",
            Tarball::new().link("a", "a").finish(),
            EUCLEAN,
        ),
        (
            "T29' an owner that is none",
            with_pax("uid", "4294967295"),
            EUCLEAN,
        ),
        (
            "T32' 8 EiB in 1 KiB",
            with_pax("size", "9223372036854775807"),
            EUCLEAN,
        ),
    ];
    let ward = Ward::new();
    for (at, (_, tar, _)) in rows.iter().enumerate() {
        let bad = ward.layout.layer_of_tar(Compression::Gzip, tar);
        let image = ward.layout.image(&[ward.layer.clone(), bad]);
        ward.layout.add_ref(&format!("bad-{at}"), &image);
    }
    let mounted = ward.mount();
    for (at, (row, tar, errno)) in rows.iter().enumerate() {
        let (tree, rootfs) = (format!("bad-{at}/layers/01"), format!("bad-{at}/rootfs"));
        let found = mounted.errno(&tree);
        assert_eq!(
            errno_name(found),
            errno_name(*errno),
            "{row}\n{}",
            mounted.mount.stderr()
        );
        let error = mounted.xattr(&tree, "error").unwrap_or_default();
        let (code, _) = error.split_once(':').unwrap_or_default();
        assert!(!code.is_empty(), "{row}: {error:?}");
        mounted.assert_closed(row, &tree, *errno, code);
        mounted.assert_closed(row, &rootfs, *errno, code);
        // The bytes are right, whatever they mean; and the layer below is sound.
        mounted.assert_holds(row, &format!("{tree}.tar"), tar);
        mounted.assert_holds(row, &format!("bad-{at}/layers/00/etc/motd"), b"hello\n");
    }
}

/// What one row of a table of readable tars looks at.
type Look = fn(&Mounted, &Path);

#[test]
fn tars_that_are_read() {
    if !can_mount("tars_that_are_read") {
        return;
    }
    let rows: Vec<(&str, Vec<u8>, Look)> = vec![
        (
            "T17' names that climb, and that go round",
            Tarball::new()
                .file("../../etc/climbed", "1")
                .file("/absolute", "2")
                .file("a/./b//c", "3")
                .finish(),
            |_, root| {
                assert_eq!(fs::read(root.join("etc/climbed")).ok(), Some(b"1".to_vec()));
                assert_eq!(fs::read(root.join("absolute")).ok(), Some(b"2".to_vec()));
                assert_eq!(fs::read(root.join("a/b/c")).ok(), Some(b"3".to_vec()));
            },
        ),
        (
            "T11' a file of 8 EiB that is one hole",
            Tarball::new()
                .pax("GNU.sparse.major", "1")
                .pax("GNU.sparse.minor", "0")
                .pax("GNU.sparse.name", "huge")
                .pax("GNU.sparse.realsize", "9223372036854775807")
                .file(
                    "x",
                    [b"1\n0\n1\n".to_vec(), vec![0; 506], b"x".to_vec()].concat(),
                )
                .finish(),
            |_, root| {
                let stat = fs::metadata(root.join("huge")).expect("it is there");
                assert_eq!((stat.len(), stat.blocks()), (i64::MAX as u64, 1));
                let file = File::open(root.join("huge")).expect("it is there");
                let mut buf = [1; 8];
                let read = std::os::unix::fs::FileExt::read_at(&file, &mut buf, 1 << 60);
                assert_eq!((read.ok(), buf), (Some(8), [0; 8]));
            },
        ),
        (
            "T25' the last of one path counts",
            Tarball::new()
                .file("a", "1")
                .file("a", "2")
                .file("b", "")
                .dir("b")
                .dir("c")
                .file("c", "3")
                .finish(),
            |_, root| {
                assert_eq!(fs::read(root.join("a")).ok(), Some(b"2".to_vec()));
                assert!(root.join("b").is_dir());
                assert_eq!(fs::read(root.join("c")).ok(), Some(b"3".to_vec()));
            },
        ),
        (
            "T27' a device 0:0 is no whiteout",
            Tarball::new()
                .device("etc/motd", 0, 0)
                .fifo("fifo")
                .finish(),
            |_, root| {
                let stat = fs::symlink_metadata(root.join("etc/motd")).expect("it is there");
                assert!(stat.file_type().is_char_device() && stat.rdev() == 0);
                let stat = fs::symlink_metadata(root.join("fifo")).expect("it is there");
                assert!(stat.file_type().is_fifo());
            },
        ),
        (
            "T28' what would be acted upon is not shown",
            Tarball::new()
                .mode(0o7755)
                .pax("SCHILY.xattr.trusted.overlay.opaque", "y")
                .pax("SCHILY.xattr.user.overlay.redirect", "/x")
                .pax("SCHILY.xattr.user.oci.layer", "forged")
                .pax("SCHILY.xattr.user.kept", "yes")
                .file("x", "")
                .finish(),
            |mounted, root| {
                let stat = fs::metadata(root.join("x")).expect("it is there");
                assert_eq!(stat.mode() & 0o7777, 0o7755);
                let xattrs = crate::walk::xattrs(&root.join("x"));
                assert_eq!(xattrs.keys().collect::<Vec<_>>(), ["user.kept"]);
                let layer = crate::ward::xattr(&root.join("x"), "layer");
                assert_ne!(
                    layer.as_deref(),
                    Some("forged"),
                    "{}",
                    mounted.mount.stderr()
                );
            },
        ),
        (
            "T29' the greatest owner",
            Tarball::new()
                .pax("uid", "4294967294")
                .pax("gid", "2147483648")
                .file("x", "")
                .finish(),
            |_, root| {
                let stat = fs::metadata(root.join("x")).expect("it is there");
                assert_eq!((stat.uid(), stat.gid()), (u32::MAX - 1, 1 << 31));
            },
        ),
        (
            "W3 W4 a whiteout and the same name, and of nothing",
            Tarball::new()
                .file("etc/.wh.motd", "")
                .file("etc/motd", "new")
                .file(".wh.nothing", "")
                .finish(),
            |_, root| {
                assert_eq!(fs::read(root.join("etc/motd")).ok(), Some(b"new".to_vec()));
                assert!(!root.join(".wh.nothing").exists());
            },
        ),
        (
            "W2 an opaque whiteout that is listed last",
            Tarball::new()
                .file("etc/new", "new")
                .file("etc/.wh..wh..opq", "")
                .finish(),
            |_, root| {
                assert!(root.join("etc/new").exists() && !root.join("etc/motd").exists());
            },
        ),
        (
            "W9 a link to a file below that goes",
            Tarball::new()
                .link("linked", "etc/motd")
                .file("etc/.wh.motd", "")
                .finish(),
            |_, root| {
                assert_eq!(
                    fs::read(root.join("linked")).ok(),
                    Some(b"hello\n".to_vec())
                );
                let stat = fs::metadata(root.join("linked")).expect("it is there");
                assert_eq!(stat.nlink(), 1);
                assert!(!root.join("etc/motd").exists());
            },
        ),
        (
            "W12 names that only look alike",
            Tarball::new()
                .file("A", "")
                .file("a", "")
                .file("\u{e9}", "")
                .file("e\u{301}", "")
                .finish(),
            |mounted, _| {
                let count = |path: &str| mounted.names(path).len();
                assert_eq!(count("read-9/layers/01"), 4);
            },
        ),
    ];
    let ward = Ward::new();
    for (at, (_, tar, _)) in rows.iter().enumerate() {
        let layer = ward.layout.layer_of_tar(Compression::Zstd, tar);
        let image = ward.layout.image(&[ward.layer.clone(), layer]);
        ward.layout.add_ref(&format!("read-{at}"), &image);
    }
    let mounted = ward.mount();
    for (at, (row, _, look)) in rows.iter().enumerate() {
        let rootfs = format!("read-{at}/rootfs");
        assert_eq!(
            mounted.errno(&rootfs),
            0,
            "{row}: {:?}",
            mounted.xattr(&rootfs, "error")
        );
        look(&mounted, &mounted.mount.join(&rootfs));
        mounted.assert_good(row);
    }
}

#[test]
fn w9_a_link_to_a_lower_layer_is_no_fault_of_its_own() {
    if !can_mount("w9_a_link_to_a_lower_layer_is_no_fault_of_its_own") {
        return;
    }
    let ward = Ward::new();
    let tar = Tarball::new().link("linked", "etc/motd").finish();
    let dangling = Tarball::new().link("linked", "etc/nothing").finish();
    for (name, tar) in [("app", &tar), ("bad", &dangling)] {
        let upper = ward.layout.layer_of_tar(Compression::Gzip, tar);
        let image = ward.layout.image(&[ward.layer.clone(), upper]);
        ward.layout.add_ref(name, &image);
    }
    let mounted = ward.mount();
    let row = "a sound link";
    let (alone, merged) = ("app/layers/01/linked", "app/rootfs/linked");
    assert_eq!(errno_name(mounted.errno(alone)), errno_name(EUCLEAN));
    let text = "TAR_LINK: a hard link to \"etc/motd\" of a lower layer; see rootfs/";
    assert_eq!(mounted.xattr(alone, "error").as_deref(), Some(text));
    mounted.assert_holds(row, merged, b"hello\n");
    assert_eq!(mounted.xattr(merged, "error"), None);
    mounted.assert_holds(row, "app/layers/01.tar", &tar);
    assert_eq!(mounted.xattr("app/layers/01.tar", "error"), None);
    assert_eq!(mounted.status_codes(), [""; 0]);
    mounted.assert_refused(
        "a link to nothing",
        "bad/rootfs/linked",
        EUCLEAN,
        "TAR_LINK",
    );
}

#[test]
fn what_image_after_image_may_cost() {
    if !can_mount("what_image_after_image_may_cost") {
        return;
    }
    let ward = Ward::new();
    let layout = &ward.layout;
    let down = |to: &str| format!("{to}{}", "/x".repeat(2040));
    let mut chain = Tarball::new();
    for at in 0..254 {
        chain = chain.symlink(format!("s{at}"), down(&format!("s{}", at + 1)));
    }
    // As many as one path may lead through.
    let chain = chain.symlink("s254", down("z")).finish();
    let mut names = Tarball::new().file("f", "");
    for at in 0..100_000 {
        names = names.link(format!("{at}"), "f");
    }
    let layer = |tar: &[u8]| layout.layer_of_tar(Compression::Gzip, tar);
    let through = layer(&Tarball::new().file("s0/f", "").finish());
    let linked = layer(&Tarball::new().link("f", "s0/f").finish());
    let chain = layer(&chain);
    let names = layer(&names.finish());
    let rows = [
        ("T18' through symlinks", vec![chain.clone(), through]),
        ("T18' links through symlinks", vec![chain, linked]),
        ("W11 a file of many names, many times", vec![names; 200]),
    ];
    for (at, (_, layers)) in rows.iter().enumerate() {
        layout.add_ref(&format!("bad-{at}"), &layout.image(layers));
    }
    let mounted = ward.mount();
    for (at, (row, _)) in rows.iter().enumerate() {
        let rootfs = format!("bad-{at}/rootfs");
        assert_eq!(
            errno_name(mounted.errno(&rootfs)),
            errno_name(EFBIG),
            "{row}"
        );
        mounted.assert_closed(row, &rootfs, EFBIG, "LIMIT_ROOTFS");
        mounted.assert_good(row);
    }
    let peak = mounted.mount.peak_memory();
    assert!(peak < 512 << 20, "{peak} bytes");
}

#[test]
fn w1_whiteouts_are_names_in_their_layer() {
    if !can_mount("w1_whiteouts_are_names_in_their_layer") {
        return;
    }
    let ward = Ward::new();
    let upper = ward.layout.layer(
        Compression::Gzip,
        &[("etc/.wh.motd", b""), ("etc/.wh..wh..opq", b"")],
    );
    ward.layout
        .add_ref("app", &ward.layout.image(&[ward.layer.clone(), upper]));
    let mounted = ward.mount();
    assert_eq!(
        mounted.names("app/layers/01/etc"),
        [".wh..wh..opq", ".wh.motd"]
    );
    assert_eq!(mounted.names("app/rootfs/etc"), [""; 0]);
}

/// An image whose config has these members beside the usual ones.
fn image_with_config(ward: &Ward, layers: &[Layer], diff_ids: &Value) -> Value {
    let rootfs = json!({"rootfs": {"type": "layers", "diff_ids": diff_ids}});
    ward.layout.image_with(layers, &rootfs)
}

#[test]
fn layers_that_are_not_as_they_should_be() {
    if !can_mount("layers_that_are_not_as_they_should_be") {
        return;
    }
    let ward = Ward::new();
    let layout = &ward.layout;
    let layer = |text: &str| layout.layer(Compression::Gzip, &[("etc/motd", text.as_bytes())]);
    let add = |name: &str, spoil: &dyn Fn(&mut Layer)| {
        let mut bad = layer(name);
        spoil(&mut bad);
        let layers = [ward.layer.clone(), bad];
        layout.add_ref(name, &layout.image(&layers));
    };
    add("missing", &|bad| {
        layout.damage(&bad.descriptor, Damage::Missing);
    });
    add("flipped", &|bad| {
        layout.damage(&bad.descriptor, Damage::FlippedBit);
    });
    add("short", &|bad| {
        layout.damage(&bad.descriptor, Damage::Truncated);
    });
    add("encrypted", &|bad| {
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
        bad.descriptor["mediaType"] = media_type.into();
    });
    add("other-diff-id", &|bad| {
        bad.diff_id = ward.layer.diff_id.clone();
    });
    let rows = [
        ("missing", ENODATA, "BLOB_MISSING"),
        ("flipped", EBADMSG, "BLOB_DIGEST"),
        ("short", EBADMSG, "BLOB_SIZE"),
        ("encrypted", EOPNOTSUPP, "LAYER_ENCRYPTED"),
        ("other-diff-id", EBADMSG, "LAYER_DIFF_ID"),
    ];
    let mounted = ward.mount();
    for (name, errno, code) in rows {
        mounted.assert_closed(name, &format!("{name}/rootfs"), errno, code);
        mounted.assert_closed(name, &format!("{name}/layers/01"), errno, code);
        mounted.assert_holds(name, &format!("{name}/layers/00/etc/motd"), b"hello\n");
    }
}

#[test]
fn configs_that_are_not_as_they_should_be() {
    if !can_mount("configs_that_are_not_as_they_should_be") {
        return;
    }
    let ward = Ward::new();
    let layout = &ward.layout;
    let layers = std::slice::from_ref(&ward.layer);
    let diff_id = ward.layer.diff_id.as_str();
    let configs = [
        ("too-many", json!([diff_id, diff_id])),
        ("too-few", json!([])),
        ("no-digest", json!(["sha256:x"])),
    ];
    for (name, diff_ids) in &configs {
        layout.add_ref(name, &image_with_config(&ward, layers, diff_ids));
    }
    for (name, damage) in [
        ("config-missing", Damage::Missing),
        ("config-flipped", Damage::FlippedBit),
    ] {
        let config = layout.json(CONFIG, &json!({"os": "linux", "author": name}));
        layout.damage(&config, damage);
        let members = json!({"config": config, "layers": [ward.layer.descriptor]});
        layout.add_ref(name, &layout.manifest(&members));
    }
    let rows = [
        ("too-many", EUCLEAN, "CONFIG_DIFF_IDS"),
        ("too-few", EUCLEAN, "CONFIG_DIFF_IDS"),
        ("no-digest", EUCLEAN, ""),
        ("config-missing", ENODATA, "BLOB_MISSING"),
        ("config-flipped", EBADMSG, "BLOB_DIGEST"),
    ];
    let mounted = ward.mount();
    for (name, errno, code) in rows {
        let rootfs = format!("{name}/rootfs");
        let found = mounted.errno(&rootfs);
        assert_eq!(errno_name(found), errno_name(errno), "{name}");
        let error = mounted.xattr(&rootfs, "error").unwrap_or_default();
        let said = error.split(':').next().unwrap_or_default();
        assert!(code.is_empty() || said == code, "{name}: {error}");
        mounted.assert_closed(name, &rootfs, errno, said);
        // The layer is what its digest says, whatever the config says.
        mounted.assert_holds(name, &format!("{name}/layers/00/etc/motd"), FILES[1].1);
    }
}

#[test]
fn a_layer_of_another_kind_among_file_trees() {
    if !can_mount("a_layer_of_another_kind_among_file_trees") {
        return;
    }
    let ward = Ward::new();
    let layout = &ward.layout;
    let mut other = layout.layer_of_tar(Compression::None, b"what is this?");
    other.descriptor["mediaType"] = "application/x-unknown".into();
    let layers = [ward.layer.clone(), other.clone()];
    layout.add_ref("mixed", &layout.image(&layers));
    layout.add_ref("other", &layout.image(&[other]));
    layout.add_ref("empty", &layout.image(&[]));
    let mounted = ward.mount();
    mounted.assert_closed("mixed", "mixed/rootfs", EOPNOTSUPP, "LAYER_MEDIA_TYPE");
    mounted.assert_holds("mixed", "mixed/layers/01.bin", b"what is this?");
    assert_eq!(
        mounted.names("other"),
        [
            "config.json",
            "export",
            "files",
            "layers",
            "manifest.json",
            "referrers"
        ]
    );
    assert_eq!(mounted.names("empty/rootfs"), [""; 0]);
    mounted.assert_good("empty");
}
