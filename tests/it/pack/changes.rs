//! Trees that change while they are packed.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use ocifs::store::Progress;

use super::*;

/// Changes the tree when the first bytes of `large` were packed.
struct Meddler<'a> {
    change: &'a (dyn Fn() -> io::Result<()> + Send + Sync),
    is_done: AtomicBool,
}

impl std::fmt::Debug for Meddler<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meddler")
    }
}

impl Progress for Meddler<'_> {
    fn advance(&self, bytes: u64) {
        // Headers are smaller.
        if bytes > 10_000 && !self.is_done.swap(true, Ordering::Relaxed) {
            (self.change)().expect("the tree can be changed");
        }
    }
}

type Change = fn(&Path) -> io::Result<()>;

#[test]
fn a_tree_that_changes_is_named() -> TestResult {
    let rows: [(&str, Change, Option<&str>); 10] = [
        ("nothing", |_| Ok(()), None),
        (
            "truncated",
            |root| {
                File::options()
                    .write(true)
                    .open(root.join("d/large"))?
                    .set_len(5)
            },
            Some("d/large"),
        ),
        (
            "longer",
            |root| append(&root.join("d/large")),
            Some("d/large"),
        ),
        (
            "rewritten",
            |root| rewrite(&root.join("d/large")),
            Some("d/large"),
        ),
        (
            "its mode",
            |root| mode(&root.join("d/large")),
            Some("d/large"),
        ),
        (
            "a name removed",
            |root| fs::remove_file(root.join("d/small")),
            Some("d/small"),
        ),
        (
            "a name added",
            |root| fs::write(root.join("d/new"), ""),
            Some("d"),
        ),
        (
            "a file became a link",
            |root| {
                fs::remove_file(root.join("d/small"))?;
                std::os::unix::fs::symlink("/etc/passwd", root.join("d/small"))
            },
            Some("d/small"),
        ),
        (
            "a directory became a link",
            |root| {
                fs::remove_dir(root.join("d/z"))?;
                std::os::unix::fs::symlink("/etc", root.join("d/z"))
            },
            Some("d/z"),
        ),
        (
            "a link became a directory",
            |root| {
                fs::remove_file(root.join("d/link"))?;
                fs::create_dir(root.join("d/link"))
            },
            Some("d/link"),
        ),
    ];
    for (name, change, expected) in rows {
        let dir = tempfile::tempdir()?;
        fs::create_dir_all(dir.path().join("d/z"))?;
        fs::write(dir.path().join("d/large"), vec![1; 1 << 20])?;
        fs::write(dir.path().join("d/small"), "small")?;
        std::os::unix::fs::symlink("small", dir.path().join("d/link"))?;
        // Times are as coarse as the kernel's clock.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let meddler = Meddler {
            change: &|| change(dir.path()),
            is_done: AtomicBool::new(false),
        };
        let options = options(LayerCompression::None, 1);
        let result = pack(&tree(dir.path())?, &options, Vec::new(), &meddler);
        let changed = match &result {
            Ok(_) => None,
            Err(Error::Changed { path }) => path.to_str(),
            Err(error) => return Err(format!("{name}: {error}").into()),
        };
        assert_eq!(changed, expected, "{name}");
    }
    Ok(())
}

fn append(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .append(true)
        .open(path)?
        .write_all(b"more")
}

fn rewrite(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(b"other")
}

fn mode(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

/// A directory far above is moved away while the walk is below it, and the way back up
/// would lead out of the tree.
#[test]
fn the_way_up_stays_in_the_tree() -> TestResult {
    let (dir, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let names = std::iter::once("top".to_owned()).chain((0..100).map(|_| "d".to_owned()));
    let lowest = descend(dir.path(), names)?;
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let file = openat(&lowest, "large", flags, Mode::RWXU)?;
    rustix::io::write(file, &vec![1; 1 << 20])?;
    let meddler = Meddler {
        change: &|| fs::rename(dir.path().join("top/d"), other.path().join("d")),
        is_done: AtomicBool::new(false),
    };
    let options = options(LayerCompression::None, 1);
    let result = pack(&tree(dir.path())?, &options, Vec::new(), &meddler);
    assert!(matches!(result, Err(Error::Changed { .. })), "{result:?}");
    Ok(())
}
