//! What can go wrong with the cache directory: killed writers, full disks, files that
//! are not what they should be. Reads stay right, and nothing half is left.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use ocifs::oci::Digest;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

use super::common::{
    Compression, Layer, Need, Random, TestLayout, Tmpfs, digest_of, has, run, tar_of,
};
use super::index::{Place, names};
use super::{OCIFS, stderr};

/// How long a single command may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A layout with two layers that take a while, one with checkpoints to search, and many
/// small ones.
fn busy() -> (Place, Vec<Layer>) {
    let place = Place::new();
    let mut noise = vec![0; 12 << 20];
    Random::of_seed(3).fill(&mut noise);
    // What can be compressed takes longer to decode.
    noise.iter_mut().for_each(|byte| *byte &= 0x37);
    let tar = tar_of(&[("noise", &noise)]);
    let mut layers = vec![
        place.layout.layer_of_tar(Compression::Zstd, &tar),
        place.layout.layer_of_tar(Compression::Gzip, &tar),
    ];
    layers.extend((0..60).map(|number| small(&place.layout, number)));
    place.layout.add_ref("app", &place.layout.image(&layers));
    (place, layers)
}

fn small(layout: &TestLayout, number: u32) -> Layer {
    let text = format!("layer {number}");
    layout.layer(Compression::Gzip, &[("file", text.as_bytes())])
}

fn spawn(place: &Place) -> Child {
    Command::new(OCIFS)
        .args(["index", "--cache-dir"])
        .arg(place.cache())
        .arg(place.layout.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
}

/// Reads a layer of the ref `app` with the real binary, in time.
fn cat(place: &Place, cache: &Path, number: usize, count: usize) -> Result<Vec<u8>, String> {
    let width = if count > 99 { 3 } else { 2 };
    let words = [
        "--kill-after=5".into(),
        PATIENCE.as_secs().to_string(),
        OCIFS.into(),
        "cat".into(),
        "--cache-dir".into(),
        cache.to_str().unwrap().to_owned(),
        place.layout.path().to_str().unwrap().to_owned(),
        format!("app/layers/{number:0width$}.tar"),
    ];
    let output = run("timeout", &words);
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("{}: {}", output.status, stderr(&output)))
}

/// Some layers are read, and right.
fn assert_right(what: &str, place: &Place, cache: &Path, layers: &[Layer]) {
    let step = (layers.len() / 6).max(1);
    for number in (0..layers.len()).step_by(step) {
        let tar = cat(place, cache, number, layers.len());
        let tar = tar.unwrap_or_else(|error| panic!("{what}: layer {number}: {error}"));
        assert_eq!(
            Digest::of(&tar),
            layers[number].diff_id,
            "{what}: layer {number}"
        );
    }
}

/// The paths in a cache directory of files that are being written.
fn temporary(cache: &Path) -> Vec<String> {
    let of_shelf = |shelf: &str| -> Vec<String> {
        let dir = cache.join(shelf);
        let names = if dir.is_dir() { names(&dir) } else { vec![] };
        let written = names.into_iter().filter(|name| name.starts_with(".new-"));
        written.map(|name| format!("{shelf}/{name}")).collect()
    };
    [of_shelf("toc"), of_shelf("verdicts")].concat()
}

#[test]
fn killed_at_any_moment() {
    let (place, layers) = busy();
    let whole = {
        let begun = Instant::now();
        assert!(spawn(&place).wait().unwrap().success());
        begun.elapsed()
    };
    fs::remove_dir_all(place.cache()).unwrap();
    let mut random = Random::new();
    let mut killed = 0;
    // Where what is kept is used again, it may be done before it is killed.
    for turn in 0.. {
        if killed == 20 {
            break;
        }
        assert!(turn < 1000, "only {killed} were killed");
        if turn % 4 == 0 {
            fs::remove_dir_all(place.cache()).ok();
        }
        let mut child = spawn(&place);
        let nanos = u64::try_from(whole.as_nanos()).unwrap();
        thread::sleep(Duration::from_nanos(random.within(0..nanos)));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        let list = place.index(&["--list", "--json"], &[]);
        let text = String::from_utf8_lossy(&list.stdout).into_owned();
        assert!(list.status.success(), "{}", stderr(&list));
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        let kept = list["kept"].as_array().unwrap();
        assert!(
            kept.iter().all(|row| row["unusable"].is_null()),
            "half a file: {text}"
        );
    }
    // As a killed writer leaves it, whether or not one was caught in the act above.
    let litter = place.cache().join("toc/.new-1-1");
    fs::write(&litter, "half").unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    for path in temporary(&place.cache()) {
        let path = place.cache().join(path);
        let file = File::options().write(true).open(path).unwrap();
        file.set_times(FileTimes::new().set_modified(long_ago))
            .unwrap();
    }
    let output = place.index(&[], &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(temporary(&place.cache()), [""; 0]);
    assert_right("after all", &place, &place.cache(), &layers);
}

#[test]
fn interrupted() {
    let (place, layers) = busy();
    let mut random = Random::new();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        // Sometimes it does not listen yet, or is done already.
        let interrupted = (0..30).any(|_| {
            fs::remove_dir_all(place.cache()).ok();
            let child = spawn(&place);
            thread::sleep(Duration::from_millis(random.within(10..150)));
            let told = Instant::now();
            kill_process(pid(&child), signal).unwrap();
            let output = child.wait_with_output().unwrap();
            let took = told.elapsed();
            assert!(took < Duration::from_secs(5), "{signal:?}: took {took:?}");
            let (code, said) = (output.status.code(), stderr(&output));
            assert!(
                matches!(code, None | Some(0 | 4)),
                "{signal:?}: {code:?}: {said}"
            );
            if code == Some(4) {
                assert!(said.contains("interrupted"), "{signal:?}: {said}");
                assert_eq!(said.lines().count(), 1, "{signal:?}: {said}");
                assert_eq!(temporary(&place.cache()), [""; 0], "{signal:?}");
            }
            code == Some(4)
        });
        assert!(interrupted, "{signal:?}");
    }
    assert!(place.index(&[], &[]).status.success());
    assert_right("after all", &place, &place.cache(), &layers);
}

#[test]
fn two_processes_with_one_cache() {
    let (place, layers) = busy();
    for _ in 0..3 {
        fs::remove_dir_all(place.cache()).ok();
        let both = [spawn(&place), spawn(&place)];
        for child in both {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", stderr(&output));
            assert!(output.stderr.is_empty(), "{}", stderr(&output));
        }
        assert_eq!(names(&place.cache().join("toc")).len(), layers.len());
        assert_right("both", &place, &place.cache(), &layers);
    }
}

/// Runs a command of the binary by a shell that sets something up before.
fn by_shell(before: &str, words: &[&Path]) -> std::process::Output {
    let script = format!("{before}; exec \"$@\"");
    let mut all: Vec<&Path> = vec![Path::new("-c"), Path::new(&script), Path::new("sh")];
    all.push(Path::new(OCIFS));
    all.extend(words);
    run("bash", &all)
}

#[test]
fn files_may_not_grow() {
    let (place, layers) = busy();
    let (cache, layout) = (place.cache(), place.layout.path());
    for limit in ["0", "1"] {
        fs::remove_dir_all(&cache).ok();
        let limit = format!("ulimit -f {limit}");
        let words = [Path::new("index"), Path::new("--cache-dir"), &cache, layout];
        let output = by_shell(&limit, &words);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{limit}: {said}");
        assert!(said.contains("File too large"), "{limit}: {said}");
        assert!(said.contains("--cache-dir"), "{limit}: no hint: {said}");
        assert_eq!(temporary(&cache), [""; 0], "{limit}");
        let words = [
            Path::new("cat"),
            Path::new("--cache-dir"),
            &cache,
            layout,
            Path::new("app/layers/00.tar"),
        ];
        let output = by_shell(&limit, &words);
        assert!(output.status.success(), "{limit}: {}", stderr(&output));
        assert_eq!(Digest::of(&output.stdout), layers[0].diff_id, "{limit}");
        assert_eq!(temporary(&cache), [""; 0], "{limit}");
    }
}

#[test]
fn a_full_disk() {
    if !has("a_full_disk", &[Need::Root]) {
        return;
    }
    let (place, layers) = busy();
    let disk = Tmpfs::mount("size=64k");
    let cache = disk.path().join("cache");
    let index = || {
        run(
            OCIFS,
            &[
                "index".as_ref(),
                "--cache-dir".as_ref(),
                cache.as_os_str(),
                place.layout.path().as_os_str(),
            ],
        )
    };
    let output = index();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(
        said.contains("No space left on device") && said.contains("TOC_NOT_KEPT"),
        "{said}"
    );
    assert_eq!(temporary(&cache), [""; 0], "half a file is left");
    assert!(
        !names(&cache.join("toc")).is_empty(),
        "what there was room for is kept"
    );
    let list = run(
        OCIFS,
        &[
            "index".as_ref(),
            "--list".as_ref(),
            "--cache-dir".as_ref(),
            cache.as_os_str(),
        ],
    );
    assert!(
        !super::stdout(&list).contains("unusable"),
        "{}",
        super::stdout(&list)
    );
    assert_right("full", &place, &cache, &layers);
    // Not a byte more: said before anything is read.
    let rest = File::create(disk.path().join("rest")).unwrap();
    let mut rest = &rest;
    while std::io::Write::write_all(&mut rest, &[1; 512]).is_ok() {}
    let output = index();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("nothing would be kept"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn directories_in_which_nothing_can_be_kept() {
    if !has("directories_in_which_nothing_can_be_kept", &[Need::Root]) {
        return;
    }
    let (place, layers) = busy();
    let disk = Tmpfs::mount("size=4m");
    let path = |name: &str| disk.path().join(name);
    for name in ["known", "foreign", "open", "base"] {
        fs::create_dir(path(name)).unwrap();
        fs::set_permissions(path(name), Permissions::from_mode(0o700)).unwrap();
    }
    for shelf in ["toc", "verdicts"] {
        fs::create_dir(path("known").join(shelf)).unwrap();
    }
    chown(path("foreign"), Some(1000), Some(1000)).unwrap();
    fs::set_permissions(path("open"), Permissions::from_mode(0o777)).unwrap();
    symlink(path("base"), path("link")).unwrap();
    fs::write(path("file"), "x").unwrap();
    disk.remount("ro");
    let rows = [
        ("known", "Read-only file system"),
        ("base", "Read-only file system"),
        ("missing", "Read-only file system"),
        ("foreign", "belongs to another user"),
        ("open", "is writable by other users"),
        ("link", "is a symbolic link"),
        ("file", "file"),
    ];
    for (name, text) in rows {
        let cache = path(name);
        let output = run(
            OCIFS,
            &[
                "index".as_ref(),
                "--cache-dir".as_ref(),
                cache.as_os_str(),
                place.layout.path().as_os_str(),
            ],
        );
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{name}: {said}");
        assert!(said.contains(text), "{name}: {said}");
        assert!(output.stdout.is_empty(), "{name}: something was read");
    }
    // A command that can do without says so at most, and reads.
    assert_right("read-only", &place, &path("known"), &layers);
}

/// Puts something in a file's place.
type Poison = fn(&Path, &Place, &[Layer]);

#[test]
fn poisoned_files_are_ignored_and_made_again() {
    let place = Place::new();
    let layers = [1, 2].map(|number| small(&place.layout, number));
    place.layout.add_ref("app", &place.layout.image(&layers));
    let poisons: [(&str, Poison); 10] = [
        ("garbage", |path, _, _| {
            fs::write(path, [0x55; 700]).unwrap();
        }),
        ("nothing", |path, _, _| {
            fs::write(path, "").unwrap();
        }),
        ("another blob's", |path, place, layers| {
            fs::copy(place.toc(&layers[1]), path).unwrap();
        }),
        ("another version", |path, _, _| {
            let mut bytes = fs::read(path).unwrap();
            bytes[8] = bytes[8].wrapping_add(1);
            fs::write(path, bytes).unwrap();
        }),
        ("world-writable", |path, _, _| {
            fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap();
        }),
        ("a directory", |path, _, _| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("a pipe", |path, _, _| {
            fs::remove_file(path).unwrap();
            mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }),
        ("a symbolic link", |path, _, _| {
            let target = path.with_extension("moved");
            fs::rename(path, &target).unwrap();
            symlink(target, path).unwrap();
        }),
        ("a link to itself", |path, _, _| {
            fs::remove_file(path).unwrap();
            symlink(path, path).unwrap();
        }),
        ("longer", |path, _, _| {
            let mut bytes = fs::read(path).unwrap();
            bytes.push(0);
            fs::write(path, bytes).unwrap();
        }),
    ];
    for (name, poison) in poisons {
        assert_poisoned(name, &place, &layers, poison);
    }
    assert!(place.index(&[], &[]).status.success());
    let whole = fs::read(place.toc(&layers[0])).unwrap();
    for len in (0..whole.len()).step_by(31) {
        fs::write(place.toc(&layers[0]), &whole[..len]).unwrap();
        let list = place.index(&["--list"], &[]);
        assert!(super::stdout(&list).contains("unusable"), "cut after {len}");
    }
    for len in [1, 24, whole.len() / 2, whole.len() - 1] {
        fs::write(place.toc(&layers[0]), &whole[..len]).unwrap();
        assert_right(&format!("cut after {len}"), &place, &place.cache(), &layers);
        let again = fs::read(place.toc(&layers[0])).unwrap();
        assert!(again == whole, "cut after {len}: not made again");
    }
    if has("poisoned_files_are_ignored_and_made_again", &[Need::Root]) {
        assert_poisoned("a device", &place, &layers, |path, _, _| {
            fs::remove_file(path).unwrap();
            let device = rustix::fs::makedev(1, 5); // endless zeros
            mknodat(CWD, path, FileType::CharacterDevice, Mode::RUSR, device).unwrap();
        });
        assert_poisoned("of another user", &place, &layers, |path, _, _| {
            chown(path, Some(1000), Some(1000)).unwrap();
        });
    }
}

fn assert_poisoned(name: &str, place: &Place, layers: &[Layer], poison: Poison) {
    fs::remove_dir_all(place.cache()).ok();
    assert!(place.index(&[], &[]).status.success(), "{name}");
    let path = place.toc(&layers[0]);
    poison(&path, place, layers);
    let list = place.index(&["--list"], &[]);
    let text = super::stdout(&list);
    let line = text
        .lines()
        .find(|line| line.starts_with(digest_of(&layers[0].descriptor).as_str()));
    assert!(
        line.is_some_and(|line| line.contains("unusable")),
        "{name}: {text}"
    );
    assert_right(name, place, &place.cache(), layers);
    // The one read above has made it again.
    let output = place.index(&["--json"], &[]);
    assert!(output.status.success(), "{name}: {}", stderr(&output));
    let kept = fs::symlink_metadata(&path).unwrap();
    assert!(
        kept.is_file() && kept.permissions().mode() & 0o022 == 0,
        "{name}"
    );
    let list = super::stdout(&place.index(&["--list"], &[]));
    assert!(!list.contains("unusable"), "{name}: {list}");
    // And it can be dropped as it is.
    poison(&path, place, layers);
    let output = place.index(&["--drop"], &[]);
    assert!(output.status.success(), "{name}: {}", stderr(&output));
    assert!(
        fs::symlink_metadata(&path).is_err(),
        "{name}: it is still there"
    );
}
