//! Small files, whose bytes the kernel is given when they are opened: many who open, read
//! and map the same ones at once, while the kernel forgets them again and again.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ocifs::oci::Digest;

use crate::common::{Compression, MountOptions, Need, Random, TestLayout, has, tar_of};
use crate::forgetting::caches_are_emptied;
use crate::ward::in_time;

/// How many processes read.
const READERS: u64 = 8;

/// How many small layers there are, each of which is a file of unknown size at first.
const LAYERS: u64 = 24;

/// How long all of them may take together.
const PATIENCE: Duration = Duration::from_secs(120);

/// Reads what is listed on stdin, a digest and a path a line: once in that order, and then
/// as chance will have it. Prints what is not as it should be.
const READER: &str = r#"
import hashlib, mmap, os, random, sys
rounds, seed = int(sys.argv[1]), int(sys.argv[2])
files = [line.split(' ', 1) for line in sys.stdin.read().splitlines()]
chance = random.Random(seed)

def in_pieces(fd, size):
    return b''.join(os.pread(fd, 5000, at) for at in range(0, size, 5000))

def mapped(fd, size):
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as map:
        return bytes(map)

def whole(fd, size):
    return os.read(fd, size + 1)

for round in range(rounds):
    digest, path = files[round] if round < len(files) else chance.choice(files)
    fd = os.open(path, os.O_RDONLY)
    read = chance.choice([in_pieces, mapped, whole])
    found = hashlib.sha256(read(fd, os.fstat(fd).st_size)).hexdigest()
    os.close(fd)
    if found != digest:
        print(path, read.__name__, found)
"#;

/// Starts a reader of `list`.
fn reader(list: &str, seed: u64) -> Child {
    let stdin = tempfile::tempfile().and_then(|mut file| {
        use std::io::{Seek, Write};
        file.write_all(list.as_bytes())?;
        file.rewind()?;
        Ok(file)
    });
    Command::new("python3")
        .args(["-c", READER, "500", &seed.to_string()])
        .stdin(stdin.expect("a file can be made"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 can be started")
}

/// Lets the kernel forget pages, names and files that nobody has open, until `readers` end.
fn forget_until_end(readers: &mut [Child]) {
    let is_running = |child: &mut Child| child.try_wait().expect("it can be asked").is_none();
    while readers.iter_mut().any(is_running) {
        fs::write("/proc/sys/vm/drop_caches", "3").expect("root may do that");
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// A layout of small layers, and the last with files of all sizes around a page, and around
/// what is given at once. Beside it the list of what to read, below the mount's root.
fn layout() -> (TestLayout, Vec<(Digest, PathBuf)>) {
    let layout = TestLayout::new();
    let mut random = Random::of_seed(7);
    let mut noise = |len: usize| {
        let mut bytes = vec![0; len];
        random.fill(&mut bytes);
        bytes
    };
    let mut list = Vec::new();
    let mut layers = Vec::new();
    for number in 0..LAYERS {
        let content = noise(3000 * usize::try_from(number).expect("a few") + 1);
        let tar = tar_of(&[(&format!("small-{number}"), &content)]);
        let path = format!("app/layers/{number:02}.tar");
        list.push((Digest::of(&tar), PathBuf::from(path)));
        layers.push(layout.layer_of_tar(Compression::Gzip, &tar));
    }
    let sizes = [1, 4095, 4096, 4097, 65_536, 131_071, 131_072, 131_073];
    let files: Vec<(String, Vec<u8>)> = sizes
        .iter()
        .map(|size| (format!("size-{size}"), noise(*size)))
        .collect();
    let named: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, content)| (name.as_str(), content.as_slice()))
        .collect();
    layers.push(layout.layer_of_tar(Compression::Zstd, &tar_of(&named)));
    for (name, content) in &files {
        list.push((Digest::of(content), format!("app/rootfs/{name}").into()));
    }
    layout.add_ref("app", &layout.image(&layers));
    (layout, list)
}

#[test]
fn many_read_the_same_small_files_while_they_are_forgotten() {
    let name = "many_read_the_same_small_files_while_they_are_forgotten";
    if !has(name, &[Need::Fuse, Need::Root, Need::Tool("python3")]) {
        return;
    }
    let (layout, files) = layout();
    let _caches = caches_are_emptied();
    for threads in ["1", "2", "8"] {
        // Nobody knows anything of the layers yet, each time.
        let cache = tempfile::tempdir().expect("a temporary directory can be made");
        let options = MountOptions::new(layout.path()).cache_dir(cache.path());
        let mount = options.arg("--threads").arg(threads).start();
        let lines = files.iter().map(|(digest, path)| {
            let path = mount.join(path);
            format!("{} {}\n", digest.encoded(), path.display())
        });
        let list: String = lines.collect();
        let said = in_time(name, PATIENCE, move || {
            let mut readers: Vec<Child> = (0..READERS).map(|seed| reader(&list, seed)).collect();
            forget_until_end(&mut readers);
            let outputs = readers.into_iter().map(Child::wait_with_output);
            outputs.collect::<Result<Vec<_>, _>>()
        });
        for output in said.expect("they can be waited for") {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
            assert!(output.status.success(), "{threads} threads: {stderr}");
            assert_eq!(stdout, "", "{threads} threads");
        }
        assert!(mount.unmount().success(), "{threads} threads");
    }
}
