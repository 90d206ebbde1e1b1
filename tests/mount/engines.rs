//! Archives of a mount go into a real containerd and a real Docker engine, and come back;
//! what Docker keeps of images is read without it.
//!
//! Both run in a temporary directory, without a network, for as long as the test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ocifs::oci::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{
    Compression, Ext4, Need, Tarball, TestLayout, TestMount, digest_of, has, host_architecture,
    run_ok, skip, verify_layout,
};
use crate::round_trips::{OF_ENGINES, Scene};

const NEEDS: &[Need] = &[
    Need::Fuse,
    Need::Root,
    Need::Tool("containerd"),
    Need::Tool("dockerd"),
    Need::Tool("skopeo"),
    Need::Tool("umoci"),
];

/// How long an engine may take to answer for the first time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon that is ended with the value.
struct Daemon(Child);

impl Daemon {
    fn start(program: &str, arguments: &[String], log: &Path) -> Self {
        let log = File::create(log).expect("the temporary directory is writable");
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be opened twice"))
            .stderr(log)
            .spawn();
        Self(child.unwrap_or_else(|error| panic!("{program}: {error}")))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both end their own children when they are asked; one that has ended has no id.
        if matches!(self.0.try_wait(), Ok(None)) {
            let pid = self.0.id().to_string();
            let _ = Command::new("kill").args(["-TERM", &pid]).status();
        }
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end && matches!(self.0.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The driver whose store is read here, and the one that works everywhere.
const DRIVERS: [&str; 2] = ["overlay2", "vfs"];

/// The magic number of overlayfs, which cannot be below another.
const OVERLAYFS: u64 = 0x794c_7630;

/// containerd and a Docker engine that uses it; fields end in their order.
struct Engines {
    docker: Daemon,
    _containerd: Daemon,
    driver: &'static str,
    /// The data root of Docker.
    root: PathBuf,
    _disk: Option<Ext4>,
    dir: TempDir,
}

impl Engines {
    /// Starts both; `None`, with a reason on record, where this machine lets them not run.
    fn start(name: &str) -> Option<Self> {
        let dir = tempfile::Builder::new()
            .prefix("ocifs-engines-")
            .tempdir()
            .expect("a temporary directory can be made");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let socket = path("containerd.sock");
        let mut arguments = vec!["--address".to_owned(), socket.clone()];
        arguments.extend(["--root".to_owned(), path("containerd")]);
        arguments.extend(["--state".to_owned(), path("containerd-state")]);
        let containerd = Daemon::start("containerd", &arguments, &dir.path().join("c.log"));
        wait_for(&dir.path().join("containerd.sock"));
        let disk = Self::disk(dir.path(), name);
        let place = disk.as_ref().map_or(dir.path(), Ext4::path);
        let mut engines = Self {
            docker: Self::docker(dir.path(), &place.join("docker"), DRIVERS[0]),
            _containerd: containerd,
            driver: DRIVERS[0],
            root: place.join("docker"),
            _disk: disk,
            dir,
        };
        if engines.answer() {
            return Some(engines);
        }
        engines.root = engines.dir.path().join("docker");
        engines.driver = DRIVERS[1];
        engines.docker = Self::docker(engines.dir.path(), &engines.root, DRIVERS[1]);
        if engines.answer() {
            return Some(engines);
        }
        let log = fs::read_to_string(engines.dir.path().join("d.log")).unwrap_or_default();
        let last = log.lines().last().unwrap_or_default();
        skip(name, &format!("no Docker engine can run here: {last}"));
        None
    }

    /// A disk for Docker's layers where temporary files lie on an overlayfs.
    fn disk(dir: &Path, name: &str) -> Option<Ext4> {
        let stat = rustix::fs::statfs(dir).expect("it is there");
        let is_overlay = u64::try_from(stat.f_type).is_ok_and(|kind| kind == OVERLAYFS);
        let name = format!("{name}, Docker's own store");
        (is_overlay && has(&name, &[Need::LoopDevice])).then(|| Ext4::mount(256 << 20))
    }

    fn docker(dir: &Path, root: &Path, driver: &str) -> Daemon {
        let path = |name: &str| dir.join(name).display().to_string();
        let mut arguments = vec![format!("--host=unix://{}", path("docker.sock"))];
        arguments.push(format!("--containerd={}", path("containerd.sock")));
        arguments.push(format!("--data-root={}", root.display()));
        arguments.push(format!("--exec-root={}", path("docker-state")));
        arguments.push(format!("--pidfile={}", path("docker.pid")));
        arguments.push(format!("--storage-driver={driver}"));
        let fixed = ["--bridge=none", "--iptables=false"];
        arguments.extend(fixed.map(str::to_owned));
        Daemon::start("dockerd", &arguments, &dir.join("d.log"))
    }

    /// Whether Docker answers, before it ends or patience does.
    fn answer(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && matches!(self.docker.0.try_wait(), Ok(None)) {
            let mut command = self.command("docker");
            let output = command
                .args(["version", "--format", "{{.Server.Version}}"])
                .output();
            if output.is_ok_and(|output| output.status.success()) {
                return true;
            }
            thread::sleep(Duration::from_millis(100));
        }
        false
    }

    fn command(&self, program: &str) -> Command {
        let socket = |name: &str| self.dir.path().join(name).display().to_string();
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", format!("unix://{}", socket("docker.sock")));
        command.env("CONTAINERD_ADDRESS", socket("containerd.sock"));
        command
    }

    /// What a client prints.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let printed = self.try_run(program, arguments);
        printed.unwrap_or_else(|said| panic!("{program} {arguments:?}: {said}"))
    }

    /// The same, or why it failed.
    fn try_run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(program).args(arguments).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        let [out, err] = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        match output.status.success() {
            true => Ok(out),
            false => Err(out + &err),
        }
    }
}

fn wait_for(path: &Path) {
    let end = Instant::now() + PATIENCE;
    while !path.exists() && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
}

fn import(archive: &Path) -> TestLayout {
    let layout = TestLayout::new();
    let arguments = [
        "import".as_ref(),
        layout.path().as_os_str(),
        archive.as_os_str(),
    ];
    run_ok(env!("CARGO_BIN_EXE_ocifs"), &arguments);
    verify_layout(layout.path());
    layout
}

fn document(layout: &TestLayout, descriptor: &Value) -> Value {
    let bytes = fs::read(layout.blob_path(descriptor)).expect("it is there");
    serde_json::from_slice(&bytes).expect("it is JSON")
}

#[test]
fn images_go_into_engines_and_come_back() {
    const NAME: &str = "images_go_into_engines_and_come_back";
    if !has(NAME, NEEDS) {
        return;
    }
    let Some(engines) = Engines::start(NAME) else {
        return;
    };
    let scene = Scene::new();
    scene.send(NAME, &OF_ENGINES, &|program, words| {
        engines.try_run(program, words)
    });
    full_names_stay(&engines);
    if engines.driver == DRIVERS[0] {
        images_come_out_of_the_store(&engines);
    } else {
        let reason = "Docker cannot use overlay2 here";
        skip("images_come_out_of_the_store", reason);
    }
}

/// An image with the names that containerd gives is known to both under the full one.
fn full_names_stay(engines: &Engines) {
    const FULL: &str = "docker.io/library/full:1";
    let layout = TestLayout::new();
    let layer = layout.layer(Compression::Gzip, &[("etc/motd", b"hello\n")]);
    let image = layout.image(&[layer]);
    layout.add_containerd_ref(FULL, "1", &image);
    let mount = TestMount::start(layout.path());
    let archive = |kind: &str| {
        let path = mount.join(FULL).join(format!("export/{kind}-archive.tar"));
        path.display().to_string()
    };
    engines.run("docker", &["load", "-q", "-i", &archive("docker")]);
    let inspected = engines.run("docker", &["image", "inspect", "full:1"]);
    let inspected: Value = serde_json::from_str(&inspected).expect("it is JSON");
    let config = document(&layout, &image)["config"].clone();
    assert_eq!(inspected[0]["Id"], config["digest"]);
    let diff_ids = document(&layout, &config)["rootfs"]["diff_ids"].clone();
    assert_eq!(inspected[0]["RootFS"]["Layers"], diff_ids);
    engines.run("ctr", &["images", "import", "--no-unpack", &archive("oci")]);
    let listed = engines.run("ctr", &["images", "ls"]);
    let digest = digest_of(&image);
    let is_it = |line: &str| line.contains(FULL) && line.contains(digest.as_str());
    assert!(listed.lines().any(is_it), "{listed}");
    let exported = layout.path().join("exported.tar");
    let to = exported.display().to_string();
    engines.run("ctr", &["images", "export", &to, FULL]);
    assert_eq!(digest_of(&import(&exported).entries()[0]), digest);
}

/// All that a layer may have, and a second one that takes some of it away.
fn layers() -> [Vec<u8>; 2] {
    let long = format!("deep/{}/x", "n".repeat(200));
    let base = Tarball::new()
        .dir("etc/")
        .pax("SCHILY.xattr.user.k", "v")
        .file("etc/motd", "hello\n")
        .link("etc/hard", "etc/motd")
        .file(&long, "far\n")
        .file(b"bad\xffname", "raw\n")
        .owner(1000, 1000)
        .mode(0o4755)
        .file("setuid", "x")
        .file("zeros", vec![0; 1 << 20])
        .file("empty", "")
        .dir("usr/")
        .dir("usr/lib/")
        .symlink("lib", "usr/lib")
        .file("lib/through", "a link\n")
        .fifo("pipe")
        .device("null", 1, 3)
        .finish();
    let top = Tarball::new()
        .dir("etc/")
        .file("etc/.wh.motd", "")
        .file("etc/new", "new\n")
        .dir("deep/")
        .file("deep/.wh..wh..opq", "")
        .finish();
    [base, top]
}

/// What `docker save` would write of an image with these layers.
fn archive_of(tag: &str, layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|tar| Digest::of(tar).to_string())
        .collect();
    let config = json!({
        "architecture": host_architecture(),
        "os": "linux",
        "config": {"Cmd": ["/setuid"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let names: Vec<String> = (0..layers.len()).map(|at| format!("{at}.tar")).collect();
    let manifest = json!([{"Config": "c.json", "RepoTags": [tag], "Layers": names}]);
    let mut archive = Tarball::new()
        .file("c.json", config.to_string())
        .file("manifest.json", manifest.to_string());
    for (name, tar) in names.iter().zip(layers) {
        archive = archive.file(name, tar);
    }
    archive.finish()
}

/// Images of a store that a real Docker has filled, while it runs.
fn images_come_out_of_the_store(engines: &Engines) {
    let [base, top] = layers();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let sparse = fs::read(golden.join("pax-sparse-0.1.tar")).expect("it is there");
    let file = |name: &str, bytes: &[u8]| {
        let path = engines.dir.path().join(name);
        fs::write(&path, bytes).expect("the directory is ours");
        path.display().to_string()
    };
    for (tag, layers) in [
        ("store:1", &[&base[..], &top][..]),
        // Docker itself cannot save this one.
        ("sparse:1", &[&sparse[..], &top]),
    ] {
        let archive = file("loaded.tar", &archive_of(tag, layers));
        engines.run("docker", &["load", "-q", "-i", &archive]);
    }
    let tar = file("imported.tar", &base);
    engines.run("docker", &["import", &tar, "imported:1"]);

    let layout = TestLayout::new();
    let tags = ["store:1", "sparse:1", "imported:1"];
    let mut words = vec!["import", "--compress=none", "--docker-root"];
    let (root, path) = (
        engines.root.display().to_string(),
        layout.path().display().to_string(),
    );
    words.extend([&*root, &*path]);
    words.extend(tags);
    run_ok(env!("CARGO_BIN_EXE_ocifs"), &words);
    verify_layout(layout.path());
    let entries = layout.entries();
    let is_named = |entry: &&Value, tag: &str| {
        entry["annotations"]["org.opencontainers.image.ref.name"] == tag
    };
    for tag in tags {
        let entry = entries.iter().find(|entry| is_named(entry, tag));
        let entry = entry.expect("it was imported");
        let manifest = document(&layout, entry);
        let stored = fs::read(layout.blob_path(&manifest["config"])).expect("it is there");
        let id = engines.run("docker", &["image", "inspect", "--format={{.Id}}", tag]);
        let id: Digest = id.trim().parse().expect("it is a digest");
        let place = format!("image/overlay2/imagedb/content/sha256/{}", id.encoded());
        let kept = fs::read(engines.root.join(place)).expect("Docker has it");
        assert!(stored == kept, "{tag}: the config");
        // Plain layers: their digests, which were verified, are their DiffIDs.
        let layers = manifest["layers"].as_array().expect("it has layers");
        let digests: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
        let config: Value = serde_json::from_slice(&stored).expect("it is JSON");
        assert_eq!(json!(digests), config["rootfs"]["diff_ids"], "{tag}");
        if tag != "sparse:1" {
            let saved = file("saved.tar", b"");
            engines.run("docker", &["save", "-o", &saved, tag]);
            let back = import(Path::new(&saved));
            assert_eq!(
                back.entries()[0]["digest"],
                entry["digest"],
                "{tag} as saved"
            );
        }
    }
    let source = format!("oci:{path}:store:1");
    let seen = run_ok("skopeo", &["inspect", &source]);
    let seen: Value = serde_json::from_slice(&seen).expect("it is JSON");
    assert_eq!(seen["Layers"].as_array().map(Vec::len), Some(2));
}
