//! Archives of a mount go into a real containerd and a real Docker engine, and come back.
//!
//! Both run in a temporary directory, without a network, for as long as the test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{
    Compression, Need, TestLayout, TestMount, digest_of, has, host_architecture, run_ok, skip,
    verify_layout,
};

const NEEDS: &[Need] = &[
    Need::Fuse,
    Need::Root,
    Need::Tool("containerd"),
    Need::Tool("dockerd"),
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
        // Both end their own children when they are asked.
        let pid = self.0.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end && matches!(self.0.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// containerd and a Docker engine that uses it; fields end in their order.
struct Engines {
    _docker: Daemon,
    _containerd: Daemon,
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
        let mut arguments = vec![format!("--host=unix://{}", path("docker.sock"))];
        arguments.push(format!("--containerd={socket}"));
        arguments.push(format!("--data-root={}", path("docker")));
        arguments.push(format!("--exec-root={}", path("docker-state")));
        arguments.push(format!("--pidfile={}", path("docker.pid")));
        let fixed = ["--bridge=none", "--iptables=false", "--storage-driver=vfs"];
        arguments.extend(fixed.map(str::to_owned));
        let docker = Daemon::start("dockerd", &arguments, &dir.path().join("d.log"));
        let engines = Self {
            _docker: docker,
            _containerd: containerd,
            dir,
        };
        if engines.answer() {
            return Some(engines);
        }
        let log = fs::read_to_string(engines.dir.path().join("d.log")).unwrap_or_default();
        let last = log.lines().last().unwrap_or_default();
        skip(name, &format!("no Docker engine can run here: {last}"));
        None
    }

    fn answer(&self) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
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
        let output = self.command(program).args(arguments).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        let [out, err] = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {out}{err}"
        );
        out
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
    let layout = TestLayout::new();
    let layers = [Compression::Gzip, Compression::None].map(|kind| {
        layout.layer(
            kind,
            &[("etc/", b""), (&format!("etc/{kind:?}"), b"hello\n")],
        )
    });
    let image = layout.image(&layers);
    layout.add_containerd_ref("docker.io/library/app:1", "1", &image);
    let own = layout.image_for(&format!("linux/{}", host_architecture()), &layers[1..]);
    let other = layout.image_for("linux/s390x", &layers[..1]);
    layout.add_ref("multi:1", &layout.image_index(&[other, own.clone()]));
    let mount = TestMount::start(layout.path());
    let archive = |name: &str, kind: &str| -> String {
        let path: PathBuf = mount.join(name).join(format!("export/{kind}-archive.tar"));
        path.display().to_string()
    };
    for (name, tag, manifest) in [
        ("docker.io/library/app:1", "app:1", &image),
        ("multi:1", "multi:1", &own),
    ] {
        engines.run("docker", &["load", "-q", "-i", &archive(name, "docker")]);
        let inspected = engines.run("docker", &["image", "inspect", tag]);
        let inspected: Value = serde_json::from_str(&inspected).expect("it is JSON");
        let config = document(&layout, manifest)["config"].clone();
        assert_eq!(inspected[0]["Id"], config["digest"], "{name}");
        let diff_ids = document(&layout, &config)["rootfs"]["diff_ids"].clone();
        assert_eq!(inspected[0]["RootFS"]["Layers"], diff_ids, "{name}");
        let saved = layout.path().join("saved.tar");
        engines.run("docker", &["save", "-o", &saved.display().to_string(), tag]);
        let back = import(&saved);
        let manifest = document(&back, &back.entries()[0]);
        assert_eq!(
            manifest["config"]["digest"], config["digest"],
            "{name} came back"
        );
    }
    let from = archive("docker.io/library/app:1", "oci");
    let imported = ["images", "import", "--no-unpack", &from];
    engines.run("ctr", &imported);
    let listed = engines.run("ctr", &["images", "ls"]);
    let digest = digest_of(&image);
    let is_it =
        |line: &str| line.contains("docker.io/library/app:1") && line.contains(digest.as_str());
    assert!(listed.lines().any(is_it), "{listed}");
    let exported = layout.path().join("exported.tar");
    let to = exported.display().to_string();
    engines.run("ctr", &["images", "export", &to, "docker.io/library/app:1"]);
    let back = import(&exported);
    assert_eq!(back.entries()[0]["digest"], json!(digest.as_str()));
}
