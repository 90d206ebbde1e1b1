//! What happens to a mount while others change the layout beneath it.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ocifs::oci::Digest;
use rustix::fs::{Advice, fadvise};
use serde_json::{Value, json};

use crate::common::{Compression, Need, TestLayout, TestMount, digest_of, has, run_ok, tar_of};
use crate::patience::{median, until};

/// What the contract allows between a change and its being seen.
const SOON: Duration = Duration::from_millis(100);
/// What it allows where no notice comes.
const SECOND: Duration = Duration::from_secs(1);
/// For what must come true at all, whatever else the machine has to do.
const AT_ALL: Duration = Duration::from_secs(5);

/// Two images that differ in everything, each with one layer.
struct Pair {
    layout: TestLayout,
    images: [Value; 2],
    tars: [Vec<u8>; 2],
}

impl Pair {
    fn new() -> Self {
        let layout = TestLayout::new();
        let tars = [b"one", b"two"].map(|text| tar_of(&[("etc/", b""), ("etc/motd", text)]));
        let images = [0, 1].map(|at| {
            let layer = layout.layer_of_tar(Compression::Gzip, &tars[at]);
            layout.image_with(&[layer], &json!({"author": format!("author {at}")}))
        });
        Self {
            layout,
            images,
            tars,
        }
    }

    /// Makes `name` lead to one of the two, with one write of index.json.
    fn move_ref(&self, name: &str, to: usize) {
        self.layout.write_index(&index(&[(name, &self.images[to])]));
    }

    fn digest(&self, of: usize) -> Digest {
        digest_of(&self.images[of])
    }
}

/// An index.json of these entries.
fn index(refs: &[(&str, &Value)]) -> Vec<u8> {
    let entry = |(name, image): &(&str, &Value)| {
        let mut entry = Value::clone(image);
        entry["annotations"]["org.opencontainers.image.ref.name"] = json!(name);
        entry
    };
    let entries: Vec<Value> = refs.iter().map(entry).collect();
    let index = json!({"schemaVersion": 2, "manifests": entries});
    index.to_string().into_bytes()
}

/// The digest of the manifest that a ref leads to just now; none without that ref.
fn shown(mount: &TestMount, name: &str) -> Option<Digest> {
    match fs::read(mount.join(name).join("manifest.json")) {
        Ok(bytes) => Some(Digest::of(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => panic!("{name}: {error}\n{}", mount.stderr()),
    }
}

fn names(dir: &Path) -> io::Result<BTreeSet<String>> {
    fs::read_dir(dir)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn inode(path: impl AsRef<Path>) -> u64 {
    let path = path.as_ref();
    fs::metadata(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .ino()
}

#[test]
fn every_change_is_seen_soon() {
    type Write = fn(&TestLayout, &[u8]);
    let ways: [(&str, Write); 2] = [
        ("rename", |layout, bytes| layout.write_index(bytes)),
        ("in place", |layout, bytes| {
            fs::write(layout.path().join("index.json"), bytes).expect("index.json is writable");
        }),
    ];
    if !has("every_change_is_seen_soon", &[Need::Fuse]) {
        return;
    }
    let pair = Pair::new();
    let mount = TestMount::start(pair.layout.path());
    for (way, write) in ways {
        let mut delays = Vec::new();
        // Added, moved, moved back, removed.
        for to in [Some(0), Some(1), Some(0), None].repeat(5) {
            let refs: Vec<_> = to.iter().map(|at| ("app", &pair.images[*at])).collect();
            write(&pair.layout, &index(&refs));
            let expected = to.map(|at| pair.digest(at));
            delays.push(until(AT_ALL, &format!("{way}: app is {to:?}"), || {
                shown(&mount, "app") == expected
            }));
        }
        let median = median(delays);
        assert!(median <= SOON, "{way}: seen after {median:?}");
    }
}

#[test]
fn the_root_has_the_time_of_the_index_soon() {
    if !has("the_root_has_the_time_of_the_index_soon", &[Need::Fuse]) {
        return;
    }
    let pair = Pair::new();
    let mount = TestMount::start(pair.layout.path());
    let time = |path: &Path| {
        let stat = fs::metadata(path).expect("it is there");
        stat.modified().expect("files have times")
    };
    let mut delays = Vec::new();
    for round in 0..6 {
        // So that the kernel has something to forget.
        time(mount.path());
        pair.move_ref("app", round % 2);
        let expected = time(&pair.layout.path().join("index.json"));
        delays.push(until(AT_ALL, "the root has another time", || {
            time(mount.path()) == expected
        }));
    }
    let median = median(delays);
    assert!(median <= SOON, "seen after {median:?}");
}

#[test]
fn changes_by_other_tools_are_seen_soon() {
    const NAME: &str = "changes_by_other_tools_are_seen_soon";
    if !has(
        NAME,
        &[Need::Fuse, Need::Tool("skopeo"), Need::Tool("umoci")],
    ) {
        return;
    }
    let pair = Pair::new();
    let target = TestLayout::new();
    let mount = TestMount::start(target.path());
    pair.layout.write_index(&index(&[
        ("one", &pair.images[0]),
        ("two", &pair.images[1]),
    ]));
    let text = |path: &Path| path.to_str().expect("a temporary path is text").to_owned();
    let (from, to) = (text(pair.layout.path()), text(target.path()));
    let copy = |name: &str| {
        let (from, to) = (format!("oci:{from}:{name}"), format!("oci:{to}:app"));
        let arguments = ["copy", "-q", "--preserve-digests", &from, &to];
        run_ok("skopeo", &arguments);
    };
    let mut delays = Vec::new();
    let mut seen = |what: &str, name: &str, expected: Option<usize>| {
        let expected = expected.map(|at| pair.digest(at));
        delays.push(until(AT_ALL, what, || shown(&mount, name) == expected));
    };
    for _ in 0..2 {
        copy("one");
        seen("skopeo adds", "app", Some(0));
        copy("two");
        seen("skopeo moves", "app", Some(1));
        run_ok("umoci", &["tag", "--image", &format!("{to}:app"), "tagged"]);
        seen("umoci adds", "tagged", Some(1));
        copy("one");
        seen("skopeo moves back", "app", Some(0));
        run_ok("umoci", &["tag", "--image", &format!("{to}:app"), "tagged"]);
        seen("umoci moves", "tagged", Some(0));
        run_ok("umoci", &["rm", "--image", &format!("{to}:tagged")]);
        seen("umoci removes", "tagged", None);
        run_ok("umoci", &["rm", "--image", &format!("{to}:app")]);
        seen("umoci removes the last one", "app", None);
    }
    let median = median(delays);
    assert!(median <= SOON, "seen after {median:?}");
}

#[test]
fn an_open_file_keeps_its_bytes() {
    if !has("an_open_file_keeps_its_bytes", &[Need::Fuse]) {
        return;
    }
    let pair = Pair::new();
    pair.move_ref("app", 0);
    let mount = TestMount::start(pair.layout.path());
    let open = |path: &str| File::open(mount.join(path)).expect("the image is there");
    let mut manifest = open("app/manifest.json");
    let mut tar = open("app/layers/00.tar");
    pair.move_ref("app", 1);
    until(AT_ALL, "app moves", || {
        shown(&mount, "app") == Some(pair.digest(1))
    });
    for file in [&manifest, &tar] {
        // From the daemon, not from the page cache.
        fadvise(file, 0, None, Advice::DontNeed).expect("a cache can be dropped");
    }
    let mut bytes = Vec::new();
    manifest.read_to_end(&mut bytes).expect("it is open");
    assert_eq!(Digest::of(&bytes), pair.digest(0), "the open manifest");
    bytes.clear();
    tar.read_to_end(&mut bytes).expect("it is open");
    assert_eq!(bytes, pair.tars[0], "the open layer");
    let fresh = fs::read(mount.join("app/layers/00.tar")).expect("the new image is there");
    assert_eq!(fresh, pair.tars[1], "the layer looked up anew");
}

#[test]
fn a_moved_ref_gets_inode_numbers_that_were_never_used() {
    const NAME: &str = "a_moved_ref_gets_inode_numbers_that_were_never_used";
    if !has(NAME, &[Need::Fuse]) {
        return;
    }
    let pair = Pair::new();
    pair.move_ref("app", 0);
    let mount = TestMount::start(pair.layout.path());
    let mut used = BTreeSet::new();
    let mut files = [BTreeSet::new(), BTreeSet::new()];
    for to in [0, 1].repeat(4) {
        pair.move_ref("app", to);
        until(AT_ALL, "app moves", || {
            shown(&mount, "app") == Some(pair.digest(to))
        });
        for dir in ["app", "app/layers"] {
            let number = inode(mount.join(dir));
            assert!(used.insert(number), "{dir} has {number} again");
        }
        let link = mount.join("app/layers/00.tar.gz");
        let number = fs::symlink_metadata(link).expect("the link is there").ino();
        assert!(used.insert(number), "the link has {number} again");
        for file in ["app/manifest.json", "app/config.json", "app/layers/00.tar"] {
            files[to].insert(inode(mount.join(file)));
        }
        // A listing gives the number that a lookup gives.
        let listed = fs::read_dir(mount.path()).expect("the root can be listed");
        let app = listed.map(|entry| entry.expect("an entry"));
        let app = app.filter(|entry| entry.file_name() == "app");
        let listed: Vec<u64> = app
            .map(|entry| std::os::unix::fs::DirEntryExt::ino(&entry))
            .collect();
        assert_eq!(listed, [inode(mount.join("app"))], "listed and looked up");
    }
    for (image, numbers) in files.iter().enumerate() {
        assert_eq!(
            numbers.len(),
            3,
            "files of image {image} keep their numbers"
        );
    }
    assert!(files[0].is_disjoint(&files[1]), "{files:?}");
}

#[test]
fn a_working_directory_in_a_moved_ref_works_on() {
    if !has("a_working_directory_in_a_moved_ref_works_on", &[Need::Fuse]) {
        return;
    }
    // Each line that it is sent is a command; `.` ends each answer.
    let shell = |dir: PathBuf| {
        let mut shell = Command::new("sh")
            .args([
                "-c",
                "while read -r line; do eval \"$line\" 2>&1; echo; echo .; done",
            ])
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let mut stdin = shell.stdin.take().expect("it is piped");
        let mut lines = BufReader::new(shell.stdout.take().expect("it is piped")).lines();
        let ask = move |command: &str| {
            writeln!(stdin, "{command}").expect("the shell lives");
            let answer = lines
                .by_ref()
                .map(|line| line.expect("the shell writes text"));
            let answer: Vec<String> = answer.take_while(|line| line != ".").collect();
            answer.join("\n").trim_end().to_owned()
        };
        (shell, ask)
    };
    let pair = Pair::new();
    pair.move_ref("app", 0);
    let mount = TestMount::start(pair.layout.path());
    let (mut in_image, mut ask_image) = shell(mount.join("app"));
    let (mut in_layers, mut ask_layers) = shell(mount.join("app/layers"));
    let mut check = |when: &str| {
        let digest = pair.digest(0);
        assert_eq!(
            ask_image("ls"),
            "config.json\nexport\nlayers\nmanifest.json\nreferrers\nrootfs",
            "{when}"
        );
        let sum = ask_image("sha256sum < manifest.json");
        assert_eq!(sum, format!("{}  -", digest.encoded()), "{when}");
        let tar = Digest::of(&pair.tars[0]);
        let expected = format!("{}  -", tar.encoded());
        assert_eq!(ask_image("sha256sum < layers/00.tar"), expected, "{when}");
        assert_eq!(ask_layers("ls"), "00\n00.tar\n00.tar.gz", "{when}");
        assert_eq!(ask_layers("sha256sum < 00.tar"), expected, "{when}");
    };
    check("before");
    pair.move_ref("app", 1);
    until(AT_ALL, "app moves", || {
        shown(&mount, "app") == Some(pair.digest(1))
    });
    check("moved");
    pair.layout.write_index(&index(&[]));
    until(AT_ALL, "app goes", || shown(&mount, "app").is_none());
    check("removed");
    // The shells end with their input.
    drop(ask_image);
    drop(ask_layers);
    for shell in [&mut in_image, &mut in_layers] {
        assert!(shell.wait().expect("it is a child").success());
    }
}

#[test]
fn a_torn_index_changes_nothing() {
    if !has("a_torn_index_changes_nothing", &[Need::Fuse]) {
        return;
    }
    let pair = Pair::new();
    let before = index(&[("one", &pair.images[0]), ("two", &pair.images[1])]);
    pair.layout.write_index(&before);
    let mount = TestMount::start(pair.layout.path());
    let expected = BTreeSet::from(["incoming", "one", "two"].map(str::to_owned));
    let check = |what: &str| {
        let listed = names(mount.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(listed, expected, "{what}");
        for (name, at) in [("one", 0), ("two", 1)] {
            assert_eq!(shown(&mount, name), Some(pair.digest(at)), "{what}: {name}");
        }
    };
    let path = pair.layout.path().join("index.json");
    // What another tool was about to write.
    let after = index(&[("two", &pair.images[0]), ("three", &pair.images[1])]);
    for len in 0..after.len() {
        fs::write(&path, &after[..len]).expect("index.json is writable");
        check(&format!("cut at {len}"));
        // Longer than the daemon waits for a writer to finish.
        thread::sleep(Duration::from_millis(8));
        check(&format!("cut at {len} for a while"));
    }
    let garbage: [&[u8]; 8] = [
        b"\0\0\0\0",
        b"not json",
        b"null",
        b"[]",
        b"{}",
        b"{\"schemaVersion\":2,\"manifests\":{}}",
        b"\xff\xfe{}",
        b" \n\t ",
    ];
    for garbage in garbage {
        let shown = String::from_utf8_lossy(garbage);
        fs::write(&path, garbage).expect("index.json is writable");
        thread::sleep(Duration::from_millis(60));
        check(&format!("garbage {shown:?}"));
    }
    fs::remove_file(&path).expect("index.json can be removed");
    thread::sleep(Duration::from_millis(600));
    check("missing");
    fs::create_dir(&path).expect("a directory can be made");
    thread::sleep(Duration::from_millis(60));
    check("a directory");
    fs::remove_dir(&path).expect("it is empty");
    fs::write(&path, &after).expect("index.json is writable");
    let expected = BTreeSet::from(["incoming", "three", "two"].map(str::to_owned));
    until(SECOND, "the whole index is seen", || {
        names(mount.path()).is_ok_and(|listed| listed == expected)
    });
    assert_eq!(shown(&mount, "two"), Some(pair.digest(0)));
}

/// Two states of a layout between which a writer goes to and fro.
struct Flapping {
    pair: Pair,
    indexes: [Vec<u8>; 2],
    listings: [BTreeSet<String>; 2],
}

impl Flapping {
    /// Large enough for several pages, so that a mixture could be read.
    const REFS: usize = 150;

    fn new() -> Self {
        let pair = Pair::new();
        let refs = |at: usize| -> Vec<String> {
            let name = |number: usize| format!("{}-{number:04}", ["old", "new"][at]);
            (0..Self::REFS)
                .map(name)
                .chain(["app".to_owned()])
                .collect()
        };
        let indexes = [0, 1].map(|at| {
            let names = refs(at);
            let entries = names.iter().map(|name| (name.as_str(), &pair.images[at]));
            index(&entries.collect::<Vec<_>>())
        });
        let listings = [0, 1].map(|at| {
            let names = refs(at).into_iter();
            names.chain(["incoming".to_owned()]).collect()
        });
        Self {
            pair,
            indexes,
            listings,
        }
    }

    /// Rewrites index.json in place until told to stop; says how often.
    fn write(&self, stop: &AtomicBool) -> usize {
        let path = self.pair.layout.path().join("index.json");
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            let bytes = &self.indexes[count % 2];
            if count % 4 < 2 {
                fs::write(&path, bytes).expect("index.json is writable");
            } else {
                // In many steps, as a tool without a buffer does it.
                let mut file = File::create(&path).expect("index.json is writable");
                for chunk in bytes.chunks(1000) {
                    file.write_all(chunk).expect("index.json is writable");
                }
            }
            count += 1;
            // Now and then long enough for the daemon to look.
            thread::sleep(Duration::from_millis([0, 1, 3, 12][count % 4]));
        }
        count
    }

    /// Looks at everything once; all of it must be from the one state or from the other.
    fn look(&self, root: &Path) -> Result<(), String> {
        let fail = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| format!("{what}: {error}")
        };
        let listed = names(root).map_err(fail("listing"))?;
        if !self.listings.contains(&listed) {
            return Err(format!("a listing of {} names", listed.len()));
        }
        let bytes = fs::read(root.join(".ocifs/layout/index.json")).map_err(fail("index"))?;
        if !self.indexes.contains(&bytes) {
            return Err(format!("{} bytes of a mixed index.json", bytes.len()));
        }
        let app = fs::read_dir(root.join("app")).map_err(fail("app"))?;
        if app.count() != 6 {
            return Err("a partial image directory".into());
        }
        let bytes = fs::read(root.join("app/manifest.json")).map_err(fail("manifest"))?;
        if ![0, 1]
            .map(|at| self.pair.digest(at))
            .contains(&Digest::of(&bytes))
        {
            return Err("a wrong manifest".into());
        }
        let bytes = fs::read(root.join("app/layers/00.tar")).map_err(fail("layer"))?;
        if !self.pair.tars.contains(&bytes) {
            return Err("a wrong layer".into());
        }
        Ok(())
    }
}

#[test]
fn readers_notice_nothing_of_rewrites_in_place() {
    const NAME: &str = "readers_notice_nothing_of_rewrites_in_place";
    if !has(NAME, &[Need::Fuse]) {
        return;
    }
    let flapping = Flapping::new();
    flapping.pair.layout.write_index(&flapping.indexes[0]);
    let mount = TestMount::start(flapping.pair.layout.path());
    let stop = AtomicBool::new(false);
    let read = || {
        let end = Instant::now() + 2 * SECOND;
        let mut looks = 0;
        while Instant::now() < end {
            flapping.look(mount.path())?;
            looks += 1;
        }
        Ok::<usize, String>(looks)
    };
    let (writes, looks) = thread::scope(|scope| {
        let writer = scope.spawn(|| flapping.write(&stop));
        let readers = [scope.spawn(read), scope.spawn(read)];
        let looks = readers.map(|reader| reader.join().expect("a reader does not panic"));
        stop.store(true, Ordering::Relaxed);
        (writer.join().expect("the writer does not panic"), looks)
    });
    for looks in looks {
        let looks = looks.unwrap_or_else(|fault| panic!("{fault}\n{}", mount.stderr()));
        assert!(
            looks > 10 && writes > 10,
            "{looks} looks at {writes} writes"
        );
    }
    flapping.pair.layout.write_index(&flapping.indexes[1]);
    until(SECOND, "the last state is seen", || {
        names(mount.path()).is_ok_and(|listed| listed == flapping.listings[1])
    });
}

#[test]
fn l3_same_size_and_same_time() {
    if !has("l3_same_size_and_same_time", &[Need::Fuse]) {
        return;
    }
    let pair = Pair::new();
    let indexes = [0, 1].map(|at| index(&[("app", &pair.images[at])]));
    assert_eq!(indexes[0].len(), indexes[1].len(), "the same size");
    let path = pair.layout.path().join("index.json");
    fs::write(&path, &indexes[0]).expect("index.json is writable");
    let time = fs::metadata(&path).and_then(|metadata| metadata.modified());
    let time = time.expect("files have times");
    let mount = TestMount::start(pair.layout.path());
    for to in [1, 0, 1] {
        let mut file = File::create(&path).expect("index.json is writable");
        file.write_all(&indexes[to])
            .expect("index.json is writable");
        file.set_times(FileTimes::new().set_modified(time))
            .expect("times can be set");
        drop(file);
        until(SECOND, "the rewritten index is seen", || {
            shown(&mount, "app") == Some(pair.digest(to))
        });
        let now = fs::metadata(&path).and_then(|metadata| metadata.modified());
        assert_eq!(now.expect("files have times"), time, "the same time");
    }
}
