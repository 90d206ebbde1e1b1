//! What a mount is to the system: room, attributes, options, and that it is read-only.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use ocifs::oci::Digest;
use rustix::fs::{AtFlags, CWD, Mode};
use serde_json::json;

use crate::common::{
    Compression, Damage, MountOptions, Need, TestLayout, TestMount, digest_of, has, run, run_ok,
    size_of,
};
use crate::sample::{Sample, mount_line, names};

#[test]
fn the_room_is_that_of_the_layout() {
    if !has("the_room_is_that_of_the_layout", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    let mount = sample.start();
    let room = |path: &Path| {
        let stat = rustix::fs::statvfs(path).expect("it can be asked");
        (stat.f_blocks * stat.f_frsize, stat.f_files, stat.f_namemax)
    };
    assert_eq!(room(mount.path()), room(sample.layout.path()));
    assert_eq!(room(&mount.join("app/layers")), room(sample.layout.path()));
    let free = |path: &Path| {
        let stat = rustix::fs::statvfs(path).expect("it can be asked");
        stat.f_bavail * stat.f_frsize
    };
    // Others write to the same file system meanwhile.
    let difference = free(mount.path()).abs_diff(free(sample.layout.path()));
    assert!(difference < 1 << 30, "{difference} bytes more or less");
    let df = run_ok("df", &["-T".as_ref(), mount.path().as_os_str()]);
    let df = String::from_utf8_lossy(&df);
    let line = df.lines().last().unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    let layout = sample.layout.path().to_string_lossy();
    assert_eq!(words.first(), Some(&&*layout), "{df}");
    assert_eq!(words.get(1), Some(&"fuse.oci-layout"), "{df}");
    assert_eq!(words.last().map(Path::new), Some(mount.path()), "{df}");
}

/// One extended attribute as text, or the error.
fn xattr(path: &Path, name: &str) -> rustix::io::Result<String> {
    let mut value = vec![0; 4096];
    let len = rustix::fs::lgetxattr(path, name, value.as_mut_slice())?;
    Ok(String::from_utf8_lossy(&value[..len]).into_owned())
}

fn xattr_names(path: &Path) -> Vec<String> {
    let mut list = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, list.as_mut_slice())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let names = list[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let mut names: Vec<String> = names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn virtual_attributes() {
    if !has("virtual_attributes", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    let mut annotated = sample.image.clone();
    annotated["annotations"] = json!({"org.example.key": "some value"});
    sample.layout.add_ref("ghcr.io/org/app:1", &annotated);
    let mount = sample.start();
    let image = mount.join("ghcr.io/org/app:1");
    let digest = digest_of(&sample.image).to_string();
    let size = size_of(&sample.image).to_string();
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let layer = mount.join("app/layers/00.tar");
    let layer_digest = digest_of(&sample.layer.descriptor).to_string();
    let rows: [(&Path, &str, &str); 11] = [
        (&image, "user.oci.digest", &digest),
        (&image, "user.oci.media-type", manifest),
        (&image, "user.oci.size", &size),
        (&image, "user.oci.ref", "ghcr.io/org/app:1"),
        (&image, "user.oci.annotation.org.example.key", "some value"),
        (&mount.join("app"), "user.oci.ref", "app"),
        (&mount.join("app/manifest.json"), "user.oci.digest", &digest),
        (&layer, "user.oci.digest", &layer_digest),
        (&layer, "user.oci.diff-id", sample.layer.diff_id.as_str()),
        (
            &layer,
            "user.oci.media-type",
            Compression::Gzip.media_type(),
        ),
        (
            &mount.join("app/config.json"),
            "user.oci.media-type",
            "application/vnd.oci.image.config.v1+json",
        ),
    ];
    for (path, name, expected) in rows {
        let what = format!("{} {name}", path.display());
        assert_eq!(xattr(path, name).as_deref(), Ok(expected), "{what}");
        assert!(
            xattr_names(path).iter().any(|listed| listed == name),
            "{what} is not listed"
        );
    }
    for (path, name) in [
        (image.as_path(), "user.oci.diff-id"),
        (&image, "user.oci.error"),
        (&image, "user.other"),
        (&image, "security.capability"),
        (&layer, "user.oci.error"),
        (mount.path(), "user.oci.digest"),
    ] {
        let value = xattr(path, name);
        assert_eq!(
            value,
            Err(rustix::io::Errno::NODATA),
            "{} {name}",
            path.display()
        );
    }
    assert_eq!(xattr_names(mount.path()), [""; 0]);
    // A buffer that is too small.
    let short = rustix::fs::lgetxattr(&image, "user.oci.digest", &mut [0; 8]);
    assert_eq!(short, Err(rustix::io::Errno::RANGE));
}

#[test]
fn what_is_wrong_is_an_attribute() {
    if !has("what_is_wrong_is_an_attribute", &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let damaged = layout.layer(Compression::Gzip, &[("x", b"y")]);
    layout.add_ref("bad", &layout.image(std::slice::from_ref(&damaged)));
    layout.damage(&damaged.descriptor, Damage::FlippedBit);
    let mount = TestMount::start(layout.path());
    let bad = mount.join("bad/layers/00.tar");
    fs::read(&bad).expect_err("it is damaged");
    let error = xattr(&bad, "user.oci.error").expect("it says why");
    assert!(error.starts_with("BLOB_DIGEST: "), "{error}");
    assert!(
        error.contains(digest_of(&damaged.descriptor).as_str()),
        "{error}"
    );
}

/// Something that is tried, and how it went.
type Attempt = (&'static str, io::Result<()>);

fn of_opening(mount: &TestMount) -> Vec<Attempt> {
    let (file, new) = (mount.join("app/manifest.json"), mount.join("x"));
    let open = |options: &mut fs::OpenOptions, path: &Path| options.open(path).map(drop);
    let nameless = libc::O_TMPFILE;
    let mut write = File::options();
    write.write(true);
    let mut create = write.clone();
    create.create(true);
    vec![
        ("write", open(&mut write, &file)),
        ("append", open(File::options().append(true), &file)),
        ("read and write", open(write.clone().read(true), &file)),
        ("truncate", open(write.clone().truncate(true), &file)),
        ("create", open(&mut create, &new)),
        (
            "create in an image",
            open(&mut create, &mount.join("app/x")),
        ),
        (
            "create in the drop box",
            open(&mut create, &mount.join("incoming/x")),
        ),
        (
            "nameless",
            open(write.clone().custom_flags(nameless), mount.path()),
        ),
    ]
}

fn of_naming(mount: &TestMount) -> Vec<Attempt> {
    let (file, dir) = (mount.join("app/manifest.json"), mount.join("app"));
    let new = mount.join("x");
    let (fifo, mode) = (rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600));
    let fifo = rustix::fs::mknodat(CWD, &new, fifo, mode, 0);
    vec![
        ("mkdir", fs::create_dir(&new)),
        ("rmdir", fs::remove_dir(&dir)),
        ("unlink", fs::remove_file(&file)),
        ("rename", fs::rename(&dir, &new)),
        ("symlink", std::os::unix::fs::symlink("app", &new)),
        ("link", fs::hard_link(&file, &new)),
        ("mknod", fifo.map_err(io::Error::from)),
    ]
}

fn of_changing(mount: &TestMount) -> Vec<Attempt> {
    use rustix::fs::{Access, Timespec, Timestamps, XattrFlags};
    let (file, dir) = (mount.join("app/manifest.json"), mount.join("app"));
    let none = AtFlags::empty();
    let epoch = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: epoch,
        last_modification: epoch,
    };
    let mode = Mode::from_raw_mode(0o777);
    let annotation = "user.oci.annotation.x";
    let results = [
        ("chmod", rustix::fs::chmodat(CWD, &file, mode, none)),
        ("set times", rustix::fs::utimensat(CWD, &file, &times, none)),
        (
            "setxattr",
            rustix::fs::setxattr(&dir, annotation, b"y", XattrFlags::empty()),
        ),
        (
            "removexattr",
            rustix::fs::removexattr(&dir, "user.oci.digest"),
        ),
        ("access", rustix::fs::access(&file, Access::WRITE_OK)),
    ];
    let results = results.map(|(what, result)| (what, result.map_err(io::Error::from)));
    let chown = std::os::unix::fs::chown(&file, Some(0), Some(0));
    results.into_iter().chain([("chown", chown)]).collect()
}

#[test]
fn nothing_can_be_written() {
    if !has("nothing_can_be_written", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    let mount = MountOptions::new(sample.layout.path())
        .arg("--read-only")
        .start();
    let file = mount.join("app/manifest.json");
    let attempts = of_opening(&mount)
        .into_iter()
        .chain(of_naming(&mount))
        .chain(of_changing(&mount));
    for (what, result) in attempts {
        let errno = result.err().and_then(|error| error.raw_os_error());
        assert_eq!(errno, Some(libc::EROFS), "{what}");
    }
    assert_eq!(names(mount.path()), ["app", "incoming"]);
    let bytes = fs::read(&file).expect("it is sound");
    assert_eq!(Digest::of(&bytes), digest_of(&sample.image));
}

#[test]
fn attributes() {
    if !has("attributes", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    let owner = fs::metadata(sample.layout.path()).expect("it is ours");
    let owner = (owner.uid(), owner.gid());
    // 2024-01-02T03:04:05Z, from the config.
    let created = 1_704_164_645;
    let rows: [(&str, u32, Option<i64>); 11] = [
        ("", 0o040_555, None),
        ("incoming", 0o040_555, None),
        (".ocifs", 0o040_555, None),
        (".ocifs/status.json", 0o100_444, None),
        (".ocifs/layout/index.json", 0o100_444, None),
        ("app", 0o040_555, Some(created)),
        ("app/manifest.json", 0o100_444, Some(created)),
        ("app/config.json", 0o100_444, Some(created)),
        ("app/layers", 0o040_555, Some(created)),
        ("app/layers/00.tar", 0o100_444, None),
        ("app/layers/00.tar.gz", 0o120_777, None),
    ];
    for given in [None, Some((4321, 8765))] {
        let options = MountOptions::new(sample.layout.path()).arg("--read-only");
        let mount = match given {
            None => options.start(),
            Some(_) => options
                .arg("--uid")
                .arg("4321")
                .arg("--gid")
                .arg("8765")
                .start(),
        };
        for (path, mode, mtime) in rows {
            let stat = fs::symlink_metadata(mount.join(path)).expect(path);
            assert_eq!(stat.mode(), mode, "{path}: mode {:o}", stat.mode());
            assert_eq!(
                (stat.uid(), stat.gid()),
                given.unwrap_or(owner),
                "{path}: owner"
            );
            if let Some(mtime) = mtime {
                assert_eq!(
                    (stat.mtime(), stat.mtime_nsec()),
                    (mtime, 0),
                    "{path}: time"
                );
            }
        }
    }
}

#[test]
fn mount_options() {
    if !has("mount_options", &[Need::Fuse, Need::Root]) {
        return;
    }
    let sample = Sample::new();
    let rows: [(&str, &[&str], &[&str]); 4] = [
        ("", &["rw", "nosuid", "nodev"], &["noexec", "noatime"]),
        ("noexec", &["rw", "nosuid", "nodev", "noexec"], &[]),
        ("suid,dev", &["rw"], &["nosuid", "nodev"]),
        ("noatime,nosuid", &["rw", "nosuid", "nodev", "noatime"], &[]),
    ];
    for (given, has, lacks) in rows {
        let mut options = MountOptions::new(sample.layout.path());
        if !given.is_empty() {
            options = options.arg("-o").arg(given);
        }
        let mount = options.start();
        let line = mount_line(mount.path()).expect("it is mounted");
        let fields: Vec<&str> = line.split(' ').collect();
        let flags: Vec<&str> = fields[5].split(',').collect();
        for flag in has {
            assert!(flags.contains(flag), "-o {given}: no {flag} in {line}");
        }
        for flag in lacks {
            assert!(!flags.contains(flag), "-o {given}: {flag} in {line}");
        }
        let kind = fields
            .iter()
            .position(|field| *field == "-")
            .expect("a dash");
        assert_eq!(fields[kind + 1], "fuse.oci-layout", "{line}");
        assert_eq!(Path::new(fields[kind + 2]), sample.layout.path(), "{line}");
    }
    let options = MountOptions::new(sample.layout.path()).arg("--read-only");
    let mount = options.start();
    let line = mount_line(mount.path()).expect("it is mounted");
    let flags = line.split(' ').nth(5).unwrap_or_default();
    assert!(flags.split(',').any(|flag| flag == "ro"), "{line}");
}

#[test]
fn other_users() {
    if !has(
        "other_users",
        &[Need::Fuse, Need::Root, Need::Tool("setpriv")],
    ) {
        return;
    }
    let sample = Sample::new();
    for allowed in [false, true] {
        let mut options = MountOptions::new(sample.layout.path());
        if allowed {
            options = options.arg("--allow-other");
        }
        let mount = options.start();
        // The directory around the mount point lets nobody else in.
        let parent = mount.path().parent().expect("it is in a directory");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(parent, mode).expect("it is ours");
        let script = format!("cat {}", mount.join("app/manifest.json").display());
        let user = ["--reuid", "1000", "--regid", "1000", "--clear-groups"];
        let mut arguments = user.to_vec();
        arguments.extend(["sh", "-c", &script]);
        let output = run("setpriv", &arguments);
        assert_eq!(output.status.success(), allowed, "{output:?}");
        if allowed {
            assert_eq!(Digest::of(&output.stdout), digest_of(&sample.image));
        }
    }
}
