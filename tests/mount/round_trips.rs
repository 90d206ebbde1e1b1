//! Images of every kind go out to every other tool, and come back.
//!
//! What the mount shows of an image is taken by a tool, which writes it anew, and that is
//! brought in again. What must be as it was is in the table ([`ROUTES`], [`OF_ENGINES`]), and
//! why it is not more:
//!
//! - a docker-archive holds one image, with its config as it is, and no OCI manifest. So an
//!   index gives its image for this machine, and an artifact has none: here that is refused;
//!   containerd alone finds the layout in it, and with that the manifest;
//! - skopeo and buildah write full names into a docker-archive;
//! - buildah takes apart what it pulls, and writes manifests of its own. It takes no artifact,
//!   and writes a config of docker's anew;
//! - skopeo finds no manifest of docker by its name, only as the one of an archive;
//! - umoci takes images, and of an index it cannot say which.
//!
//! A cell that is refused must be refused: where a newer tool does it, the table is to say
//! what it keeps.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{
    Compression, Need, TestLayout, TestMount, digest_of, has, host_architecture, run, run_ok,
    verify_layout,
};

const OCIFS: &str = env!("CARGO_BIN_EXE_ocifs");

const MANIFEST_OF_DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG_OF_DOCKER: &str = "application/vnd.docker.container.image.v1+json";
const LAYER_OF_DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Runs a program: what it printed, or why it failed.
pub(crate) type Run<'a> = &'a dyn Fn(&str, &[&str]) -> Result<String, String>;

/// What is the same after a round trip.
#[derive(Debug, Clone, Copy)]
enum Kept {
    /// The bytes of the manifest or index, and so of everything.
    All,
    /// The bytes of the manifest for this machine.
    Manifest,
    /// The bytes of its config.
    Config,
    /// The DiffIDs that its config lists.
    DiffIds,
    /// There is no such archive: our refusal says this.
    NoArchive(&'static str),
    /// The tool does not take it, and says this.
    NotTaken(&'static str),
}

use Kept::{All, Config, DiffIds, Manifest, NoArchive, NotTaken};

/// How the image is called when it is back.
#[derive(Debug, Clone, Copy)]
enum Name {
    Same,
    /// With the registry and the repository that docker leaves out.
    Full,
}

/// What the tool is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    OciArchive,
    DockerArchive,
    Directory,
}

/// A way out and back.
pub(crate) struct Route {
    what: &'static str,
    tool: &'static str,
    form: Form,
    /// Takes what is there, and writes it anew.
    carry: fn(Run<'_>, &Trip<'_>) -> Result<(), String>,
    name: Name,
    /// Of an image of five layers, an index of two platforms, an artifact, and an image of
    /// docker's schema 2.
    kept: [Kept; 4],
}

/// From where to where something is carried.
struct Trip<'a> {
    from: &'a str,
    to: &'a str,
    name: &'a str,
    /// A directory for what else the tool writes.
    dir: &'a str,
}

/// What skopeo says of a manifest of docker in a layout that it shall find by its name.
const NOT_BY_NAME: &str = "no descriptor found";

const NO_ARTIFACT: Kept = NoArchive("EXPORT_NOT_AN_IMAGE");

/// Those that need no daemon.
pub(crate) const ROUTES: [Route; 6] = [
    Route {
        what: "skopeo, oci-archive",
        tool: "skopeo",
        form: Form::OciArchive,
        carry: skopeo_oci_archive,
        name: Name::Same,
        kept: [All, All, All, All],
    },
    Route {
        what: "skopeo, docker-archive",
        tool: "skopeo",
        form: Form::DockerArchive,
        carry: |run, trip| skopeo(run, "docker-archive:", &[], trip),
        name: Name::Full,
        kept: [Config, Config, NO_ARTIFACT, Config],
    },
    Route {
        what: "skopeo, directory",
        tool: "skopeo",
        form: Form::Directory,
        carry: |run, trip| skopeo(run, "oci:", &["--all", "--preserve-digests"], trip),
        name: Name::Same,
        kept: [All, All, All, NotTaken(NOT_BY_NAME)],
    },
    Route {
        what: "umoci, directory",
        tool: "umoci",
        form: Form::Directory,
        carry: umoci,
        name: Name::Same,
        kept: [All, NotTaken("tag is ambiguous"), All, All],
    },
    Route {
        what: "buildah, oci-archive",
        tool: "buildah",
        form: Form::OciArchive,
        carry: |run, trip| buildah(run, "oci-archive:", trip),
        name: Name::Same,
        kept: [Config, Config, NotTaken("unsupported"), DiffIds],
    },
    Route {
        what: "buildah, docker-archive",
        tool: "buildah",
        form: Form::DockerArchive,
        carry: |run, trip| buildah(run, "docker-archive:", trip),
        name: Name::Full,
        kept: [Config, Config, NO_ARTIFACT, Config],
    },
];

/// Those of the daemons.
pub(crate) const OF_ENGINES: [Route; 4] = [
    Route {
        what: "containerd, oci-archive",
        tool: "ctr",
        form: Form::OciArchive,
        carry: ctr,
        name: Name::Same,
        kept: [All, All, All, All],
    },
    Route {
        what: "containerd, docker-archive",
        tool: "ctr",
        form: Form::DockerArchive,
        carry: ctr,
        name: Name::Same,
        kept: [All, Manifest, NO_ARTIFACT, All],
    },
    Route {
        what: "docker, docker-archive",
        tool: "docker",
        form: Form::DockerArchive,
        carry: docker,
        name: Name::Same,
        kept: [Config, Config, NO_ARTIFACT, Config],
    },
    Route {
        what: "docker, oci-archive",
        tool: "docker",
        form: Form::OciArchive,
        carry: docker,
        name: Name::Same,
        // Docker reads a layout from version 25 on.
        kept: [NotTaken("no such file"); 4],
    },
];

/// Copies what has the name.
fn skopeo(run: Run<'_>, transport: &str, options: &[&str], trip: &Trip<'_>) -> Result<(), String> {
    let from = format!("{transport}{}:{}", trip.from, trip.name);
    skopeo_from(run, transport, options, &from, trip)
}

fn skopeo_from(
    run: Run<'_>,
    transport: &str,
    options: &[&str],
    from: &str,
    trip: &Trip<'_>,
) -> Result<(), String> {
    let to = format!("{transport}{}:{}", trip.to, trip.name);
    let words = [&["copy", "-q"], options, &[from, &*to]].concat();
    run("skopeo", &words).map(drop)
}

/// By its name, or else as the only one.
fn skopeo_oci_archive(run: Run<'_>, trip: &Trip<'_>) -> Result<(), String> {
    const TRANSPORT: &str = "oci-archive:";
    const OPTIONS: [&str; 2] = ["--all", "--preserve-digests"];
    let copied = skopeo(run, TRANSPORT, &OPTIONS, trip);
    match copied {
        Err(error) if error.contains(NOT_BY_NAME) => {
            let from = format!("{TRANSPORT}{}", trip.from);
            skopeo_from(run, TRANSPORT, &OPTIONS, &from, trip)
        }
        copied => copied,
    }
}

/// Has umoci write the index: the image gets another name, and its own one back.
fn umoci(run: Run<'_>, trip: &Trip<'_>) -> Result<(), String> {
    run("cp", &["-r", trip.from, trip.to])?;
    let image = |name: &str| format!("{}:{name}", trip.to);
    let umoci = |words: &[&str]| run("umoci", words);
    umoci(&["tag", "--image", &image(trip.name), "kept"])?;
    umoci(&["rm", "--image", &image(trip.name)])?;
    umoci(&["tag", "--image", &image("kept"), trip.name]).map(drop)
}

fn buildah(run: Run<'_>, transport: &str, trip: &Trip<'_>) -> Result<(), String> {
    let (root, runroot) = (format!("{}/root", trip.dir), format!("{}/run", trip.dir));
    let store = [
        "--root",
        &root,
        "--runroot",
        &runroot,
        "--storage-driver",
        "vfs",
    ];
    let from = format!("{transport}{}", trip.from);
    let id = run("buildah", &[&store[..], &["pull", "-q", &from]].concat())?;
    let id = id.lines().last().unwrap_or_default();
    let to = format!("{transport}{}:{}", trip.to, trip.name);
    let pushed = run("buildah", &[&store[..], &["push", "-q", id, &to]].concat());
    pushed.map(drop)
}

fn ctr(run: Run<'_>, trip: &Trip<'_>) -> Result<(), String> {
    let images = |words: &[&str]| run("ctr", &[&["images"], words].concat());
    images(&["import", "--all-platforms", "--no-unpack", trip.from])?;
    images(&["export", "--all-platforms", trip.to, trip.name])?;
    images(&["rm", trip.name]).map(drop)
}

fn docker(run: Run<'_>, trip: &Trip<'_>) -> Result<(), String> {
    run("docker", &["load", "-q", "-i", trip.from])?;
    run("docker", &["save", "-o", trip.to, trip.name])?;
    run("docker", &["rmi", trip.name]).map(drop)
}

/// An image of some kind.
struct Kind {
    name: &'static str,
    whole: Value,
    /// The manifest for this machine.
    own: Value,
}

/// A mount of images of all kinds.
pub(crate) struct Scene {
    layout: TestLayout,
    mount: TestMount,
    kinds: [Kind; 4],
}

/// Five layers of real files, as umoci packs them.
fn of_five_layers(layout: &TestLayout, name: &str) -> Value {
    let image = format!("{}:{name}", layout.path().display());
    let umoci = |words: &[&str]| run_ok("umoci", words);
    umoci(&["new", "--image", &image]);
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (number, dir) in ["scripts", "src/oci", "src/tar", "src/store", "tests/common"]
        .iter()
        .enumerate()
    {
        let (from, to) = (project.join(dir), format!("/srv/{number}"));
        umoci(&[
            "insert",
            "--image",
            &image,
            &from.display().to_string(),
            &to,
        ]);
    }
    let architecture = format!("--architecture={}", host_architecture());
    umoci(&["config", "--image", &image, "--os=linux", &architecture]);
    let mut entry = layout.entries().pop().expect("umoci has named it");
    entry["annotations"] = Value::Null;
    layout.remove_ref(name);
    entry
}

/// The same image as docker would describe it.
fn of_schema_2(layout: &TestLayout, image: &Value) -> Value {
    let mut manifest = document(layout, image);
    let mut config = document(layout, &manifest["config"]);
    config["docker_version"] = json!("20.10.0");
    manifest["mediaType"] = json!(MANIFEST_OF_DOCKER);
    manifest["config"] = layout.json(CONFIG_OF_DOCKER, &config);
    let layers = manifest["layers"].as_array_mut().expect("it has layers");
    for layer in layers {
        layer["mediaType"] = json!(LAYER_OF_DOCKER);
    }
    layout.json(MANIFEST_OF_DOCKER, &manifest)
}

impl Scene {
    pub(crate) fn new() -> Self {
        let layout = TestLayout::new();
        let image = of_five_layers(&layout, "app:1");
        let layers =
            ["one", "two"].map(|name| layout.layer(Compression::Gzip, &[(name, name.as_bytes())]));
        let own = layout.image_for(&format!("linux/{}", host_architecture()), &layers);
        let other = layout.image_for("linux/s390x", &layers[..1]);
        let index = layout.image_index(&[other, own.clone()]);
        let artifact = layout.artifact("text/plain", "notes", b"hello\n", None);
        let of_docker = of_schema_2(&layout, &image);
        let kinds = [
            ("app:1", image.clone(), image),
            ("multi:1", index, own),
            ("notes:1", artifact.clone(), artifact),
            ("old:1", of_docker.clone(), of_docker),
        ];
        for (name, whole, _) in &kinds {
            layout.add_ref(name, whole);
        }
        Self {
            mount: TestMount::start(layout.path()),
            kinds: kinds.map(|(name, whole, own)| Kind { name, whole, own }),
            layout,
        }
    }

    /// Sends images of all kinds on these ways, and looks at what comes back.
    pub(crate) fn send(&self, test: &str, routes: &[Route], run: Run<'_>) {
        for route in routes {
            if !has(
                &format!("{test}: {}", route.what),
                &[Need::Tool(route.tool)],
            ) {
                continue;
            }
            for (kind, kept) in self.kinds.iter().zip(route.kept) {
                let what = format!("{} of {}", route.what, kind.name);
                self.send_one(&what, route, kind, kept, run);
            }
        }
    }

    fn send_one(&self, what: &str, route: &Route, kind: &Kind, kept: Kept, run: Run<'_>) {
        if let NoArchive(code) = kept {
            return self.assert_no_archive(what, kind, code);
        }
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let place = |name: &str| dir.path().join(name).display().to_string();
        let (from, to) = (place("from"), place("to"));
        // Most tools cut their arguments at colons.
        let shown = match route.form {
            Form::OciArchive => format!("{}/export/oci-archive.tar", kind.name),
            Form::DockerArchive => format!("{}/export/docker-archive.tar", kind.name),
            Form::Directory => ".ocifs/layout".to_owned(),
        };
        symlink(self.mount.join(shown), &from).expect("the directory is ours");
        let trip = Trip {
            from: &match route.form {
                Form::Directory => format!("{from}/"),
                _ => from,
            },
            to: &to,
            name: kind.name,
            dir: &place("dir"),
        };
        let carried = (route.carry)(run, &trip);
        if let NotTaken(said) = kept {
            let error = carried.expect_err(what);
            assert!(error.contains(said), "{what}: {error}");
            return;
        }
        carried.unwrap_or_else(|error| panic!("{what}: {error}"));
        let name = match route.name {
            Name::Same => kind.name.to_owned(),
            Name::Full => format!("docker.io/library/{}", kind.name),
        };
        let source = match route.form {
            Form::Directory => format!("{to}:{}", kind.name),
            _ => to,
        };
        self.assert_kept(what, kind, kept, &name, &source);
    }

    fn assert_no_archive(&self, what: &str, kind: &Kind, code: &str) {
        let layout = self.layout.path().display().to_string();
        let words = ["export", &layout, kind.name, "--format=docker", "-o", "-"];
        let output = run(OCIFS, &words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(code),
            "{what}: {said}"
        );
        let archive = format!("{}/export/docker-archive.tar", kind.name);
        assert!(!self.mount.join(archive).exists(), "{what}");
    }

    /// Brings in what the tool has written, and compares it.
    fn assert_kept(&self, what: &str, kind: &Kind, kept: Kept, name: &str, source: &str) {
        let back = TestLayout::new();
        run_ok(
            OCIFS,
            &["import", &back.path().display().to_string(), source],
        );
        verify_layout(back.path());
        let entries = back.entries();
        let [entry] = &entries[..] else {
            panic!("{what}: {entries:?}");
        };
        assert_eq!(name_of(entry), Some(name), "{what}");
        let config = |layout: &TestLayout, entry: &Value| document(layout, entry)["config"].clone();
        let diff_ids = |layout: &TestLayout, entry: &Value| {
            document(layout, &config(layout, entry))["rootfs"]["diff_ids"].clone()
        };
        match kept {
            All => assert_eq!(digest_of(entry), digest_of(&kind.whole), "{what}"),
            Manifest => assert_eq!(digest_of(entry), digest_of(&kind.own), "{what}"),
            Config => {
                let before = digest_of(&config(&self.layout, &kind.own));
                assert_eq!(digest_of(&config(&back, entry)), before, "{what}");
            }
            DiffIds => {
                let before = diff_ids(&self.layout, &kind.own);
                assert_eq!(diff_ids(&back, entry), before, "{what}");
            }
            NoArchive(_) | NotTaken(_) => unreachable!("nothing came back"),
        }
    }
}

/// How the mount would call it.
fn name_of(entry: &Value) -> Option<&str> {
    let name = |key: &str| entry["annotations"][key].as_str();
    let full = name("io.containerd.image.name");
    full.or_else(|| name("org.opencontainers.image.ref.name"))
}

fn document(layout: &TestLayout, descriptor: &Value) -> Value {
    let bytes = fs::read(layout.blob_path(descriptor)).expect("it is there");
    serde_json::from_slice(&bytes).expect("it is JSON")
}

#[test]
fn tools_take_and_give_images_of_all_kinds() {
    const NAME: &str = "tools_take_and_give_images_of_all_kinds";
    if !has(NAME, &[Need::Fuse, Need::Root, Need::Tool("umoci")]) {
        return;
    }
    let scene = Scene::new();
    scene.send(NAME, &ROUTES, &|program, words| {
        let output = run(program, words);
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    });
}
