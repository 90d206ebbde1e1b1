//! Artifacts without a mount: their files by title, what is about an image, and artifacts
//! that are made of files written beside it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ocifs::ingest::{Ingest, IngestOptions};
use ocifs::layer::{Layers, LayersOptions};
use ocifs::oci::{Digest, Platform};
use ocifs::store::layout::Committer;
use ocifs::store::layout::refs::Collision;
use ocifs::store::{Layout, LayoutWriter, Verdicts};
use ocifs::vfs::dropbox::{Commits, DropBox, DropBoxOptions, Limits};
use ocifs::vfs::node::Node;
use ocifs::vfs::views::{Views, ViewsOptions};
use ocifs::vfs::writable::{Holder, NewNode, OpenMode, Removal, RenameMode};
use ocifs::vfs::{Caller, Error, FileKind, Ino, Lifetime, Vfs};
use serde_json::{Value, json};

use crate::common::{Compression, Damage, TestLayout, digest_of, verify_layout};
use crate::sample::TestResult;

const SPDX: &str = "application/spdx+json";
const SPDX_DIR: &str = "application%2Fspdx+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

const CALLER: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 0,
};

const WRITE: OpenMode = OpenMode {
    read: false,
    write: true,
    append: false,
    truncate: true,
    exclusive: false,
};

/// The tree of a layout, with or without what takes in files.
struct Tree {
    opened: Arc<Layout>,
    views: Arc<Views>,
    vfs: Arc<Vfs>,
    dropbox: Option<Arc<DropBox>>,
}

impl Tree {
    fn new(layout: &TestLayout, is_writable: bool) -> TestResult<Self> {
        let opened = Arc::new(Layout::open(layout.path(), &[])?);
        let view = opened.read_index()?;
        let verdicts = Arc::new(Verdicts::new(None));
        let layers = Arc::new(Layers::new(LayersOptions::default(), verdicts.clone()));
        let options = ViewsOptions {
            platform: Platform::new("linux", "amd64"),
            is_writable,
            ..ViewsOptions::default()
        };
        let views = Views::new(
            opened.clone(),
            view.clone(),
            layers,
            verdicts.clone(),
            options,
        )?;
        let vfs = Arc::new(Vfs::new(views.root(), opened.clone()));
        let mut tree = Self {
            opened: opened.clone(),
            views,
            vfs,
            dropbox: None,
        };
        if is_writable {
            let writer = LayoutWriter::open(&opened, verdicts)?;
            let shown = tree.views.clone();
            let observer = Box::new(move |view| shown.refresh(view));
            let committer = Arc::new(Committer::new(writer.clone(), view, observer));
            let ingest = Ingest::new(writer, IngestOptions::default());
            let commits = Commits::new(committer, ingest, Collision::Refuse);
            let options = DropBoxOptions {
                owner: (0, 0),
                mode: 0o755,
                limits: Limits::default(),
            };
            let dropbox = DropBox::new(commits, None, options);
            let status = Box::new(|| Value::Null);
            tree.views.place_drop_box(dropbox.node(), status);
            let taker = dropbox.clone();
            let attach = Box::new(move |subject: &_, of: &_| taker.attachments(subject, of));
            tree.views.accept_referrers(attach);
            tree.dropbox = Some(dropbox);
        }
        Ok(tree)
    }

    /// Shows the index as it is now.
    fn refresh(&self) -> TestResult {
        self.views.refresh(self.opened.read_index()?);
        Ok(())
    }

    fn node(&self, path: &str) -> Result<Arc<dyn Node>, Error> {
        self.vfs.resolve(path.as_bytes())
    }

    /// The names in a directory; each of them is found, as the same thing.
    fn names(&self, path: &str) -> Result<Vec<String>, Error> {
        let directory = self.node(path)?;
        let mut names = Vec::new();
        for child in directory.list()? {
            let found = directory.find(&child.name)?.ok_or(Error::NotFound)?;
            assert_eq!(found.key(), child.node.key(), "{path}");
            names.push(String::from_utf8_lossy(&child.name).into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn bytes(&self, path: &str) -> Result<Vec<u8>, Error> {
        let file = self.node(path)?.open()?;
        let mut bytes = vec![0; usize::try_from(file.size()).unwrap()];
        file.read(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// The number of a directory, as a kernel finds it.
    fn ino(&self, path: &str) -> Result<Ino, Error> {
        path.split('/').try_fold(Ino::ROOT, |at, name| {
            let entry = self.vfs.lookup(at, name.as_bytes())?;
            Ok(entry.ino)
        })
    }

    fn mkdir(&self, directory: &str, name: &str) -> Result<(), Error> {
        let at = (self.ino(directory)?, name.as_bytes());
        let made = self.vfs.make(&CALLER, at, NewNode::Directory(0o755));
        made.map(drop)
    }

    fn rmdir(&self, directory: &str, name: &str) -> Result<(), Error> {
        let at = (self.ino(directory)?, name.as_bytes());
        self.vfs.remove(&CALLER, at, Removal::Directory)
    }

    /// Writes a file as `cp` does; what closing it answers.
    fn write(&self, directory: &str, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let at = (self.ino(directory)?, name.as_bytes());
        let handle = match self.vfs.lookup(at.0, at.1) {
            Ok(entry) => self.vfs.open_as(&CALLER, entry.ino, WRITE)?.0,
            Err(_) => self.vfs.create(&CALLER, at, 0o644, WRITE)?.handle,
        };
        let holder = Holder::default();
        let written = self.vfs.write(holder, handle, bytes, 0);
        let closed = written.and_then(|()| self.vfs.flush(holder, &CALLER, handle));
        self.vfs.release(handle);
        closed
    }

    fn rename(&self, from: (&str, &str), to: (&str, &str)) -> Result<(), Error> {
        let (old, new) = (self.ino(from.0)?, self.ino(to.0)?);
        let (from, to) = ((old, from.1.as_bytes()), (new, to.1.as_bytes()));
        self.vfs.rename(&CALLER, from, to, RenameMode::Replace)
    }

    fn xattr(&self, path: &str, name: &str) -> Option<String> {
        let value = self.node(path).ok()?.xattr(name.as_bytes())?;
        Some(String::from_utf8_lossy(&value).into_owned())
    }
}

fn errno<T>(result: Result<T, Error>) -> i32 {
    result.err().map_or(0, |error| error.errno())
}

fn digest(descriptor: &Value) -> String {
    digest_of(descriptor).to_string()
}

/// The tag of what is about `descriptor`, as registries without a list of referrers have it.
fn tag(descriptor: &Value) -> String {
    digest(descriptor).replace(':', "-")
}

/// A layer of an artifact.
fn layer(layout: &TestLayout, media_type: &str, title: Option<&str>, bytes: &[u8]) -> Value {
    let mut layer = layout.blob(media_type, bytes);
    if let Some(title) = title {
        layer["annotations"] = json!({"org.opencontainers.image.title": title});
    }
    layer
}

fn image(layout: &TestLayout, name: &str) -> Value {
    let layer = layout.layer(Compression::Gzip, &[(name, name.as_bytes())]);
    let image = layout.image_for("linux/amd64", &[layer]);
    layout.add_ref(name, &image);
    image
}

/// Name, type of the config, layers, and the names in `files/`; none where there is no such
/// directory.
type Row<'a> = (&'a str, &'a str, Vec<Value>, Option<&'a [&'a str]>);

#[test]
fn files_of_artifacts() -> TestResult {
    let layout = TestLayout::new();
    let helm = "application/vnd.cncf.helm.config.v1+json";
    let chart = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
    let in_toto = "application/vnd.in-toto+json";
    let simple = "application/vnd.dev.cosign.simplesigning.v1+json";
    let wasm = "application/wasm";
    let of = |media_type, title, bytes: &str| layer(&layout, media_type, title, bytes.as_bytes());
    let rows: [Row<'_>; 9] = [
        (
            "several files, as ORAS pushes them",
            EMPTY,
            vec![
                of(TAR, Some("docs/a.md"), "a"),
                of("text/plain", Some("b.txt"), "b"),
            ],
            Some(&["b.txt", "docs"]),
        ),
        (
            "chart and provenance",
            helm,
            vec![
                of(chart, None, "c"),
                of(
                    "application/vnd.cncf.helm.chart.provenance.v1.prov",
                    None,
                    "p",
                ),
            ],
            Some(&["00.tar.gz", "01.bin"]),
        ),
        (
            "module",
            "application/vnd.wasm.config.v0+json",
            vec![of(wasm, None, "w")],
            Some(&["00.wasm"]),
        ),
        (
            "attestation with an image's config",
            CONFIG,
            vec![of(in_toto, None, "{}")],
            Some(&["00.json"]),
        ),
        (
            "signature",
            CONFIG,
            vec![of(simple, None, "{}")],
            Some(&["00.json"]),
        ),
        (
            "nothing but annotations",
            EMPTY,
            vec![of(EMPTY, None, "{}")],
            Some(&[]),
        ),
        ("no layers at all", EMPTY, vec![], Some(&[])),
        ("image", CONFIG, vec![of(GZIP, None, "")], None),
        (
            "image with a layer of another kind",
            CONFIG,
            vec![of(GZIP, None, ""), of(wasm, Some("m"), "w")],
            None,
        ),
    ];
    for (at, (_, config, layers, _)) in rows.iter().enumerate() {
        let config = layout.blob(config, b"{}");
        let members = json!({"config": config, "artifactType": "a/b", "layers": layers});
        layout.add_ref(&format!("row-{at}"), &layout.manifest(&members));
    }
    let tree = Tree::new(&layout, false)?;
    for (at, (name, _, layers, expected)) in rows.iter().enumerate() {
        let path = format!("row-{at}");
        let names = tree.names(&path)?;
        assert_eq!(
            names.contains(&"files".into()),
            expected.is_some(),
            "{name}"
        );
        assert_ne!(
            names.contains(&"files".into()),
            names.contains(&"rootfs".into()),
            "{name}"
        );
        assert_eq!(
            tree.names(&format!("{path}/layers"))?.is_empty(),
            layers.is_empty()
        );
        if let Some(expected) = expected {
            assert_eq!(tree.names(&format!("{path}/files"))?, *expected, "{name}");
        }
    }
    assert_eq!(tree.bytes("row-0/files/docs/a.md")?, b"a");
    assert_eq!(tree.bytes("row-0/files/b.txt")?, b"b");
    // The stored bytes, although `layers/` takes them for a tar.
    assert_eq!(tree.bytes("row-1/files/00.tar.gz")?, b"c");
    assert_eq!(
        tree.xattr("row-0/files/b.txt", "user.oci.media-type")
            .as_deref(),
        Some("text/plain")
    );
    let twice = [
        tree.node("row-2/files/00.wasm")?,
        tree.node("row-2/layers/00.wasm")?,
    ];
    assert_eq!(twice[0].key(), twice[1].key(), "one inode");
    Ok(())
}

#[test]
fn files_that_are_not_right() -> TestResult {
    let layout = TestLayout::new();
    let file = |title: &str| layer(&layout, "text/plain", Some(title), title.as_bytes());
    let mut unknown = file("unknown");
    unknown["digest"] = json!("x:abc");
    std::fs::create_dir(layout.path().join("blobs/x"))?;
    std::fs::write(layout.path().join("blobs/x/abc"), "unknown")?;
    let mut longer = file("longer");
    longer["size"] = json!(7);
    let layers = [
        file("right"),
        file("missing"),
        file("damaged"),
        longer,
        unknown,
    ];
    layout.damage(&layers[1], Damage::Missing);
    layout.damage(&layers[2], Damage::FlippedBit);
    let config = layout.blob(EMPTY, b"{}");
    let manifest = layout.manifest(&json!({"config": config, "layers": layers}));
    layout.add_ref("a", &manifest);
    let tree = Tree::new(&layout, false)?;
    let names = tree.names("a/files")?;
    assert_eq!(names, ["damaged", "longer", "missing", "right", "unknown"]);
    for (name, expected) in [
        ("right", 0),
        ("missing", libc::ENODATA),
        ("damaged", libc::EBADMSG),
        ("longer", libc::EBADMSG),
        ("unknown", libc::EOPNOTSUPP),
    ] {
        assert_eq!(
            errno(tree.bytes(&format!("a/files/{name}"))),
            expected,
            "{name}"
        );
    }
    std::fs::write(layout.blob_path(&layers[1]), "missing")?;
    assert_eq!(tree.bytes("a/files/missing")?, b"missing", "it appeared");
    Ok(())
}

#[test]
fn what_is_about_an_image_by_subject() -> TestResult {
    let layout = TestLayout::new();
    let app = image(&layout, "app");
    let other = image(&layout, "other");
    let sbom = layout.artifact(SPDX, "sbom.json", b"{}", Some(&app));
    layout.add_entry(&sbom);
    let named = layout.artifact(SPDX, "b.json", b"[]", Some(&app));
    layout.add_ref("named", &named);
    let signature = layout.artifact("application/vnd.sig", "s", b"s", Some(&sbom));
    layout.add_entry(&signature);
    // Older artifacts are of the type of their config; an empty type is none.
    let config = layout.blob("application/vnd.cncf.helm.config.v1+json", b"{}");
    let mut old = json!({"config": config, "layers": [], "subject": app, "artifactType": ""});
    let untyped = layout.manifest(&old);
    layout.add_entry(&untyped);
    // An index is of the type that it says, or of its own.
    let list = |artifact_type: Value| {
        let mut list = json!({"schemaVersion": 2, "manifests": [], "subject": app});
        list["artifactType"] = artifact_type;
        layout.json("application/vnd.oci.image.index.v1+json", &list)
    };
    for artifact_type in [json!("a/list"), Value::Null] {
        layout.add_entry(&list(artifact_type));
    }
    // One that is in an index is reached, too, and one that is nowhere is not.
    old["artifactType"] = json!("a/nested");
    let nested = layout.manifest(&old);
    layout.add_entry(&layout.image_index(std::slice::from_ref(&nested)));
    layout.artifact("a/nowhere", "x", b"x", Some(&app));
    layout.add_entry(&layout.artifact("a/other", "x", b"y", Some(&other)));

    let tree = Tree::new(&layout, false)?;
    assert_eq!(
        tree.names("app/referrers")?,
        [
            "a%2Flist",
            "a%2Fnested",
            SPDX_DIR,
            "application%2Fvnd.cncf.helm.config.v1+json",
            "application%2Fvnd.oci.image.index.v1+json",
        ]
    );
    let sboms = format!("app/referrers/{SPDX_DIR}");
    let mut expected = [digest(&sbom), digest(&named)];
    expected.sort();
    assert_eq!(tree.names(&sboms)?, expected);
    assert_eq!(
        tree.xattr(&sboms, "user.oci.artifact-type").as_deref(),
        Some(SPDX)
    );
    let of_sbom = format!("{sboms}/{}", digest(&sbom));
    assert_eq!(tree.bytes(&format!("{of_sbom}/files/sbom.json"))?, b"{}");
    let of_signature = format!(
        "{of_sbom}/referrers/application%2Fvnd.sig/{}/files/s",
        digest(&signature)
    );
    assert_eq!(tree.bytes(&of_signature)?, b"s");
    assert_eq!(tree.names("other/referrers")?, ["a%2Fother"]);
    let by_digest = format!(
        ".ocifs/digests/{}/referrers",
        digest(&app).replace(':', "/")
    );
    assert_eq!(tree.names(&by_digest)?.len(), 5);
    for (name, path) in [
        (
            "another type",
            format!("app/referrers/a%2Flist/{}", digest(&sbom)),
        ),
        ("another image", format!("other/referrers/{SPDX_DIR}")),
        ("no digest", format!("{sboms}/sbom.json")),
        (
            "encoded otherwise",
            "app/referrers/application%2fspdx+json".to_owned(),
        ),
    ] {
        assert_eq!(errno(tree.node(&path)), libc::ENOENT, "{name}");
    }
    // What comes and goes is seen in the next view, so the kernel asks for it each time.
    let sbom_path = digest(&sbom).replace(':', "/");
    for path in [
        sboms,
        of_sbom,
        format!(".ocifs/digests/{sbom_path}"),
        format!(".ocifs/layout/blobs/{sbom_path}"),
    ] {
        assert_eq!(tree.node(&path)?.name_lifetime(), Lifetime::None, "{path}");
    }
    layout.write_entries(&layout.entries()[..2]);
    tree.refresh()?;
    assert_eq!(tree.names("app/referrers")?, [""; 0]);
    Ok(())
}

#[test]
fn what_is_about_an_index() -> TestResult {
    let layout = TestLayout::new();
    let layers = [layout.layer(Compression::Gzip, &[("a", b"a")])];
    let amd = layout.image_for("linux/amd64", &layers);
    let arm = layout.image_for("linux/arm64", &layers);
    let index = layout.image_index(&[amd.clone(), arm.clone()]);
    layout.add_ref("app", &index);
    for (artifact_type, subject) in [("a/index", &index), ("a/amd", &amd), ("a/arm", &arm)] {
        layout.add_entry(&layout.artifact(artifact_type, "x", b"x", Some(subject)));
    }
    // Two that stand together without an index have those of the default.
    layout.add_ref("pair", &amd);
    layout.add_ref("pair", &arm);
    layout.add_ref("none", &layout.image_index(std::slice::from_ref(&arm)));
    let tree = Tree::new(&layout, true)?;
    assert_eq!(tree.names("app/referrers")?, ["a%2Famd", "a%2Findex"]);
    assert_eq!(
        tree.names("app/platforms/linux-arm64/referrers")?,
        ["a%2Farm"]
    );
    assert_eq!(tree.names("pair/referrers")?, ["a%2Famd"]);
    assert_eq!(tree.names("none")?, ["index.json", "platforms"]);
    // What is written beside the index is about the index.
    tree.mkdir("app/referrers", SPDX_DIR)?;
    tree.write(&format!("app/referrers/{SPDX_DIR}"), "sbom.json", b"{}")?;
    let entry = layout.entries().pop().ok_or("an entry")?;
    let manifest = std::fs::read(layout.blob_path(&entry))?;
    let manifest: Value = serde_json::from_slice(&manifest)?;
    assert_eq!(manifest["subject"], index);
    assert_eq!(tree.names("pair/referrers")?, ["a%2Famd"]);
    verify_layout(layout.path());
    Ok(())
}

#[test]
fn what_is_about_an_image_by_tags() -> TestResult {
    let layout = TestLayout::new();
    let app = image(&layout, "app");
    let other = image(&layout, "other");
    let listed = layout.artifact("a/listed", "x", b"1", None);
    let elsewhere = layout.artifact("a/elsewhere", "x", b"2", Some(&other));
    let mut lost = layout.artifact("a/unread", "x", b"3", Some(&app));
    layout.damage(&lost, Damage::Missing);
    lost["artifactType"] = json!("a/said");
    let mut unsaid = layout.artifact("a/unread", "x", b"4", Some(&app));
    layout.damage(&unsaid, Damage::FlippedBit);
    unsaid["annotations"] = json!({"unsaid": "type"});
    let mut foreign = layout.blob("application/vnd.oci.artifact.manifest.v1+json", b"{}");
    foreign["artifactType"] = json!("a/foreign");
    // Of two that say different things of one blob, the first is shown.
    let mut later = foreign.clone();
    later["artifactType"] = json!("a/another");
    let index = layout.image_index(&[listed, elsewhere, lost.clone(), unsaid, foreign, later]);
    layout.add_ref(&format!("ghcr.io/org/app:{}", tag(&app)), &index);
    let config = layout.blob(CONFIG, b"{}");
    for end in ["sig", "att", "sbom", "txt"] {
        let signature = layer(&layout, "a/b", None, end.as_bytes());
        let signature = json!({"config": config, "layers": [signature]});
        let signature = layout.manifest(&signature);
        layout.add_ref(&format!("{}.{end}", tag(&app)), &signature);
    }
    let tree = Tree::new(&layout, false)?;
    assert_eq!(
        tree.names("app/referrers")?,
        [
            "a%2Fforeign",
            "a%2Flisted",
            "a%2Fsaid",
            "application%2Fvnd.oci.image.config.v1+json",
            "application%2Fvnd.oci.image.manifest.v1+json",
        ]
    );
    let signatures = "app/referrers/application%2Fvnd.oci.image.config.v1+json";
    assert_eq!(tree.names(signatures)?.len(), 3);
    assert_eq!(tree.names("other/referrers")?, ["a%2Felsewhere"]);
    let lost = format!("app/referrers/a%2Fsaid/{}", digest(&lost));
    assert_eq!(tree.names(&lost)?, ["manifest.json"]);
    assert_eq!(
        errno(tree.bytes(&format!("{lost}/manifest.json"))),
        libc::ENODATA
    );
    Ok(())
}

/// All directories below `node` whose names are digests, with how deep they are.
fn referrers_below(node: &Arc<dyn Node>, depth: usize, found: &mut Vec<usize>) -> TestResult {
    assert!(depth < 100, "there is no end to it");
    let Some(referrers) = node.find(b"referrers")? else {
        return Ok(());
    };
    for directory in referrers.list()? {
        for referrer in directory.node.list()? {
            assert_eq!(referrer.node.kind(), FileKind::Directory);
            found.push(depth);
            referrers_below(&referrer.node, depth + 1, found)?;
        }
    }
    Ok(())
}

#[test]
fn there_is_an_end_to_what_is_about_each_other() -> TestResult {
    let layout = TestLayout::new();
    let all: Vec<Value> = (0..4)
        .map(|number| layout.artifact("a/b", "x", &[number], None))
        .collect();
    // By their tags, each is about all, itself among them.
    layout.add_ref("app", &all[0]);
    for one in &all {
        layout.add_ref(&tag(one), &layout.image_index(&all));
    }
    // By their subjects, each is about the one before.
    let mut last = image(&layout, "chain");
    for number in 0..20 {
        last = layout.artifact("a/b", "x", &[number], Some(&last));
        layout.add_entry(&last);
    }
    let tree = Tree::new(&layout, false)?;
    let mut found = Vec::new();
    referrers_below(&tree.node("app")?, 1, &mut found)?;
    // Three of them, six pairs.
    assert_eq!(found.len(), 3 + 6);
    assert_eq!(found.iter().max(), Some(&2));
    let mut found = Vec::new();
    referrers_below(&tree.node("chain")?, 1, &mut found)?;
    assert_eq!(found, (1..=4).collect::<Vec<_>>());
    let deep = format!(".ocifs/digests/{}", digest(&last).replace(':', "/"));
    assert_eq!(tree.bytes(&format!("{deep}/files/x"))?, [19]);
    Ok(())
}

/// How many directories are below `node`; no more are counted than `most`.
fn directories_below(node: &Arc<dyn Node>, most: usize) -> Result<usize, Error> {
    let (mut count, mut rest) = (0, vec![node.clone()]);
    while let Some(directory) = rest.pop() {
        for child in directory.list()? {
            if child.node.kind() == FileKind::Directory && count < most {
                count += 1;
                // Layers are no matter here, and those of the image would be read.
                if !matches!(&*child.name, b"layers" | b"rootfs") {
                    rest.push(child.node);
                }
            }
        }
    }
    Ok(count)
}

#[test]
fn few_documents_do_not_make_many_directories() -> TestResult {
    const MOST: usize = 10_000;
    let layout = TestLayout::new();
    // By their tags, each of these is about all others.
    let clique: Vec<Value> = (0..17)
        .map(|number| layout.artifact("a/b", "x", &[number], None))
        .collect();
    layout.add_ref("clique", &clique[0]);
    for one in &clique {
        let mut others = clique.clone();
        others.retain(|other| other != one);
        layout.add_ref(&tag(one), &layout.image_index(&others));
    }
    // Several indexes are about each of these, and each of them lists the next one.
    let row: Vec<Value> = (0..12)
        .map(|number| layout.artifact("a/b", "y", &[number], None))
        .collect();
    layout.add_ref("row", &row[0]);
    for pair in row.windows(2) {
        for number in 0..6 {
            let index = json!({
                "schemaVersion": 2,
                "manifests": [pair[1]],
                "subject": pair[0],
                "artifactType": format!("a/{number}"),
            });
            let media_type = "application/vnd.oci.image.index.v1+json";
            layout.add_entry(&layout.json(media_type, &index));
        }
    }
    let tree = Tree::new(&layout, false)?;
    for name in ["clique", "row"] {
        let count = directories_below(&tree.node(name)?, MOST)?;
        assert!(count > 16, "{name}: {count}");
        assert!(count < MOST, "{name}: there is no end to it");
    }
    Ok(())
}

#[test]
fn the_signature_of_a_bill_of_materials() -> TestResult {
    let layout = TestLayout::new();
    let app = image(&layout, "app");
    let index = layout.image_index(std::slice::from_ref(&app));
    layout.add_ref("index", &index);
    let config = layout.blob(CONFIG, b"{}");
    for (name, subject) in [("app", &app), ("index", &index)] {
        // Both by `subject`, and both by tags.
        let sbom = layout.artifact(SPDX, name, b"s", Some(subject));
        let signature = layout.artifact("a/sig", name, b"t", Some(&sbom));
        layout.add_entry(&sbom);
        layout.add_entry(&signature);
        let by_tag = |bytes: &[u8]| {
            let layers = [layer(&layout, "a/b", Some(name), bytes)];
            layout.manifest(&json!({"config": config, "layers": layers}))
        };
        let (sbom, signature) = (by_tag(b"u"), by_tag(b"v"));
        layout.add_ref(&format!("{}.sbom", tag(subject)), &sbom);
        layout.add_ref(&format!("{}.sig", tag(&sbom)), &signature);
    }
    let tree = Tree::new(&layout, false)?;
    for name in ["app", "index", "index/platforms/linux-amd64"] {
        let mut found = Vec::new();
        referrers_below(&tree.node(name)?, 1, &mut found)?;
        let signatures = found.iter().filter(|depth| **depth == 2).count();
        // The index has those of what its top shows as well.
        let expected = if name == "index" { 4 } else { 2 };
        assert_eq!(signatures, expected, "{name}");
    }
    Ok(())
}

#[test]
fn a_thousand_referrers() -> TestResult {
    let layout = TestLayout::new();
    let app = image(&layout, "app");
    let mut entries = layout.entries();
    for number in 0..1_000_u32 {
        entries.push(layout.artifact(SPDX, "x", &number.to_le_bytes(), Some(&app)));
    }
    layout.write_entries(&entries);
    let tree = Tree::new(&layout, true)?;
    let begun = Instant::now();
    let directory = format!("app/referrers/{SPDX_DIR}");
    assert_eq!(tree.names(&directory)?.len(), 1_000);
    // What is known is not read again: all of it could go by now.
    for entry in &entries[1..] {
        layout.damage(entry, Damage::Missing);
    }
    tree.write(&directory, "one more.json", b"{}")?;
    assert_eq!(tree.names(&directory)?.len(), 1_001);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "took {took:?}");
    Ok(())
}

#[test]
fn a_referrer_that_is_damaged_is_seen_when_it_is_mended() -> TestResult {
    let layout = TestLayout::new();
    let app = image(&layout, "app");
    let sbom = layout.artifact(SPDX, "x", b"{}", Some(&app));
    layout.add_entry(&sbom);
    let bytes = std::fs::read(layout.blob_path(&sbom))?;
    layout.damage(&sbom, Damage::FlippedBit);
    let tree = Tree::new(&layout, false)?;
    let directory = tree.node("app/referrers")?;
    assert!(directory.would_wait_inside(), "nobody has looked yet");
    assert_eq!(tree.names("app/referrers")?, [""; 0]);
    std::fs::write(layout.blob_path(&sbom), bytes)?;
    let end = Instant::now() + Duration::from_secs(10);
    while tree.names("app/referrers")?.is_empty() {
        assert!(Instant::now() < end, "it is not seen");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(tree.names("app/referrers")?, [SPDX_DIR]);
    let of_type = tree.node(&format!("app/referrers/{SPDX_DIR}"))?;
    assert!(!of_type.would_wait_inside(), "all is known");
    layout.add_ref("too", &app);
    tree.refresh()?;
    assert!(of_type.would_wait_inside() && directory.would_wait_inside());
    of_type.list()?;
    assert!(!of_type.would_wait_inside() && !directory.would_wait_inside());
    Ok(())
}

#[test]
fn directories_of_types() -> TestResult {
    let layout = TestLayout::new();
    let app = image(&layout, "app");
    layout.add_ref("too", &app);
    layout.add_entry(&layout.artifact("a/there", "x", b"x", Some(&app)));
    let tree = Tree::new(&layout, true)?;
    let long = format!("application%2F{}", "x".repeat(130));
    let rows = [
        ("type", SPDX_DIR, 0),
        ("again", SPDX_DIR, libc::EEXIST),
        ("one that has referrers", "a%2Fthere", libc::EEXIST),
        ("lower case", "application%2fjson", libc::EINVAL),
        ("needlessly encoded", "%61%2Fb", libc::EINVAL),
        ("half a type", "application", libc::EINVAL),
        ("empty subtype", "application%2F", libc::EINVAL),
        ("climbing", "..%2F..", libc::EINVAL),
        ("hidden", ".x", libc::EINVAL),
        ("parameter", "text%2Fplain; a=b", libc::EINVAL),
        ("half a digit", "a%2", libc::EINVAL),
        ("too long", &long, libc::EINVAL),
        ("control character", "a%2Fb%0A", libc::EINVAL),
    ];
    for (name, directory, expected) in rows {
        assert_eq!(
            errno(tree.mkdir("app/referrers", directory)),
            expected,
            "{name}"
        );
    }
    // It is of the image, whatever that is called.
    for name in ["app", "too"] {
        assert_eq!(
            tree.names(&format!("{name}/referrers"))?,
            ["a%2Fthere", SPDX_DIR]
        );
        assert_eq!(
            tree.names(&format!("{name}/referrers/{SPDX_DIR}"))?,
            [""; 0]
        );
    }
    assert_eq!(errno(tree.rmdir("app/referrers", "a%2Fthere")), libc::EROFS);
    assert_eq!(errno(tree.rmdir("app/referrers", "a%2Fb")), libc::ENOENT);
    tree.write(&format!("app/referrers/{SPDX_DIR}"), ".part", b"x")?;
    assert_eq!(
        errno(tree.rmdir("app/referrers", SPDX_DIR)),
        libc::ENOTEMPTY
    );
    let directory = tree.ino(&format!("app/referrers/{SPDX_DIR}"))?;
    tree.vfs
        .remove(&CALLER, (directory, b".part"), Removal::File)?;
    tree.rmdir("app/referrers", SPDX_DIR)?;
    assert_eq!(tree.names("app/referrers")?, ["a%2Fthere"]);
    Ok(())
}

/// Those of which there is something by now do not count.
#[test]
fn empty_directories_of_types_are_bounded() -> TestResult {
    const MOST: usize = 1_000;
    let layout = TestLayout::new();
    for name in ["app", "other"] {
        layout.add_ref(name, &image(&layout, name));
    }
    let tree = Tree::new(&layout, true)?;
    for number in 0..MOST {
        tree.mkdir("app/referrers", &format!("a%2F{number}"))?;
    }
    let refused = tree.mkdir("other/referrers", "a%2Fb");
    let refused = refused.expect_err("there are enough");
    assert_eq!(refused.errno(), libc::EFBIG);
    let fault = refused.fault().ok_or("it says why")?;
    assert_eq!(fault.code, "LIMIT_REFERRER_TYPES");
    tree.write("app/referrers/a%2F0", "x", b"x")?;
    tree.mkdir("other/referrers", "a%2Fb")?;
    assert_eq!(
        errno(tree.mkdir("other/referrers", "a%2Fc")),
        libc::EFBIG,
        "only one of them is empty no more"
    );
    tree.rmdir("app/referrers", "a%2F1")?;
    tree.mkdir("other/referrers", "a%2Fc")?;
    assert_eq!(tree.names("other/referrers")?, ["a%2Fb", "a%2Fc"]);
    Ok(())
}

/// Those of images that have gone make room, when it is needed.
#[test]
fn directories_of_types_go_with_their_image() -> TestResult {
    const MOST: usize = 1_000;
    let layout = TestLayout::new();
    for name in ["app", "gone", "other"] {
        image(&layout, name);
    }
    let tree = Tree::new(&layout, true)?;
    for number in 0..MOST {
        let of = ["app", "gone"][number % 2];
        tree.mkdir(&format!("{of}/referrers"), &format!("a%2F{number}"))?;
    }
    let more = |number: usize| tree.mkdir("other/referrers", &format!("b%2F{number}"));
    assert_eq!(errno(more(0)), libc::EFBIG, "all images are there");
    layout.remove_ref("gone");
    tree.refresh()?;
    for number in 0..MOST / 2 {
        more(number)?;
    }
    assert_eq!(errno(more(MOST / 2)), libc::EFBIG, "one for each that went");
    assert_eq!(tree.names("app/referrers")?.len(), MOST / 2);
    assert_eq!(tree.names("other/referrers")?.len(), MOST / 2);
    // Where it comes back it has none.
    image(&layout, "gone");
    tree.refresh()?;
    assert_eq!(tree.names("gone/referrers")?, [""; 0]);
    Ok(())
}

#[test]
fn what_is_written_beside_an_image_is_about_it() -> TestResult {
    let layout = TestLayout::new();
    let app = image(&layout, "app");
    layout.add_ref("too", &app);
    let tree = Tree::new(&layout, true)?;
    let directory = format!("app/referrers/{SPDX_DIR}");
    tree.mkdir("app/referrers", SPDX_DIR)?;
    let bytes = br#"{"spdxVersion":"SPDX-2.3"}"#;
    tree.write(&directory, "my sbom.json", bytes)?;
    let entry = layout.entries().pop().ok_or("an entry")?;
    let manifest: Value = serde_json::from_slice(&std::fs::read(layout.blob_path(&entry))?)?;
    let empty = Digest::of(b"{}");
    let subject = json!({
        "mediaType": app["mediaType"],
        "digest": app["digest"],
        "size": app["size"],
    });
    assert_eq!(
        manifest,
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": SPDX,
            "config": {
                "mediaType": EMPTY,
                "digest": empty.as_str(),
                "size": 2,
                "data": "e30=",
            },
            "layers": [{
                "mediaType": SPDX,
                "digest": Digest::of(bytes).as_str(),
                "size": bytes.len(),
                "annotations": {"org.opencontainers.image.title": "my sbom.json"},
            }],
            "subject": subject,
        })
    );
    let members: Vec<&String> = entry.as_object().ok_or("an object")?.keys().collect();
    assert_eq!(members, ["mediaType", "digest", "size", "artifactType"]);
    assert_eq!(entry["artifactType"], SPDX);
    let of_sbom = format!("{directory}/{}", digest(&entry));
    assert_eq!(
        tree.names(&directory)?,
        [digest(&entry)],
        "the file is not listed"
    );
    assert_eq!(tree.bytes(&format!("{of_sbom}/files/my sbom.json"))?, bytes);
    let receipt = format!("{directory}/my sbom.json");
    assert_eq!(tree.bytes(&receipt)?, bytes, "and found by its name");
    assert_eq!(
        tree.xattr(&receipt, "user.oci.digest"),
        Some(digest(&entry))
    );

    // The same file is the same artifact, wherever it is written.
    let count = layout.entries().len();
    tree.write(&directory, "my sbom.json", bytes)?;
    tree.write(&format!("too/referrers/{SPDX_DIR}"), "my sbom.json", bytes)?;
    assert_eq!(layout.entries().len(), count);
    // Other bytes, or another name, are one more.
    tree.write(&directory, "my sbom.json", b"")?;
    tree.write(&directory, "other.json", bytes)?;
    assert_eq!(tree.names(&directory)?.len(), 3);
    verify_layout(layout.path());
    // A while later the layout alone knows of it.
    let dropbox = tree.dropbox.as_ref().ok_or("a drop box")?;
    dropbox.expire(Instant::now() + Duration::from_secs(61));
    assert_eq!(errno(tree.node(&receipt)), libc::ENOENT);
    let again = Tree::new(&layout, false)?;
    assert_eq!(again.names(&directory)?, tree.names(&directory)?);
    assert_eq!(
        again.bytes(&format!("{of_sbom}/files/my sbom.json"))?,
        bytes
    );
    Ok(())
}

#[test]
fn what_is_refused_beside_an_image() -> TestResult {
    let layout = TestLayout::new();
    let app = image(&layout, "app");
    let sbom = layout.artifact(SPDX, "x", b"x", Some(&app));
    layout.add_entry(&sbom);
    layout.add_entry(&layout.artifact("no type", "x", b"x", Some(&app)));
    let tree = Tree::new(&layout, true)?;
    let directory = format!("app/referrers/{SPDX_DIR}");
    let (own, other) = (digest(&sbom), Digest::of(b"other").to_string());
    let rows = [
        ("no type", "app/referrers", "sbom.json", libc::EROFS),
        ("no referrers", "app", "sbom.json", libc::EROFS),
        (
            "in a referrer",
            &format!("{directory}/{own}"),
            "x",
            libc::EROFS,
        ),
        (
            "in its files",
            &format!("{directory}/{own}/files"),
            "y",
            libc::EROFS,
        ),
        ("a digest", &directory, &other, libc::EINVAL),
        (
            "a malformed type",
            "app/referrers/no type",
            "x",
            libc::EINVAL,
        ),
    ];
    for (name, directory, file, expected) in rows {
        assert_eq!(errno(tree.write(directory, file, b"x")), expected, "{name}");
    }
    assert_eq!(errno(tree.mkdir(&directory, "job")), libc::EROFS);
    assert_eq!(errno(tree.rmdir(&directory, &own)), libc::EROFS);
    assert_eq!(
        errno(tree.rename((&directory, &own), (&directory, "x"))),
        libc::EROFS
    );
    assert_eq!(
        errno(tree.rename((&directory, "none"), (&directory, "x"))),
        libc::ENOENT
    );

    // What is held back is committed under the name that it gets, and not moved elsewhere.
    tree.write(&directory, ".sbom.json.x4Fz", b"held")?;
    assert_eq!(tree.names(&directory)?.len(), 2, "it is listed meanwhile");
    tree.write("incoming", ".sbom.json.x4Fz", b"dropped")?;
    let held = (&*directory, ".sbom.json.x4Fz");
    let dropped = ("incoming", ".sbom.json.x4Fz");
    for (name, from, to, expected) in [
        ("in", dropped, (&*directory, "a"), libc::EXDEV),
        ("out", held, ("incoming", "a"), libc::EXDEV),
        ("to be a ref", held, ("app", "a"), libc::EROFS),
    ] {
        assert_eq!(errno(tree.rename(from, to)), expected, "{name}");
    }
    tree.rename((&directory, ".sbom.json.x4Fz"), (&directory, "sbom.json"))?;
    let entry = layout.entries().pop().ok_or("an entry")?;
    let path = format!("{directory}/{}/files/sbom.json", digest(&entry));
    assert_eq!(tree.bytes(&path)?, b"held");

    let read_only = Tree::new(&layout, false)?;
    for (name, refused) in [
        ("mkdir", read_only.mkdir("app/referrers", "a%2Fb")),
        ("write", read_only.write(&directory, "x", b"x")),
        ("rmdir", read_only.rmdir("app/referrers", SPDX_DIR)),
    ] {
        assert_eq!(errno(refused), libc::EROFS, "{name}");
    }
    verify_layout(layout.path());
    Ok(())
}
