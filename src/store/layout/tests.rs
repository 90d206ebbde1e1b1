use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use tempfile::TempDir;

use super::*;

mod crash;
mod update;

type TestResult = Result<(), Box<dyn std::error::Error>>;

const CONTENT: &[u8] = b"content";

/// An empty layout with one blob, and that blob's digest.
fn layout() -> io::Result<(TempDir, Digest)> {
    let dir = tempfile::tempdir()?;
    init(dir.path()).map_err(io::Error::other)?;
    let digest = Digest::of(CONTENT);
    fs::write(blob_path(dir.path(), &digest), CONTENT)?;
    Ok((dir, digest))
}

fn blob_path(layout: &Path, digest: &Digest) -> PathBuf {
    layout.join("blobs/sha256").join(digest.encoded())
}

fn open(dir: &TempDir) -> Result<Layout, Error> {
    Layout::open(dir.path(), &[])
}

#[test]
fn what_init_makes_can_be_opened_and_is_left_alone() -> TestResult {
    let parent = tempfile::tempdir()?;
    let path = parent.path().join("a/b");
    init(&path)?;
    let layout = Layout::open(&path, &[])?;
    assert!(layout.read_index()?.entries().is_empty());
    fs::write(path.join("index.json"), "mine")?;
    init(&path)?;
    assert_eq!(fs::read(path.join("index.json"))?, b"mine");
    Ok(())
}

/// Name, text of the file, and what the error must be.
type VersionRow = (&'static str, &'static str, fn(&Error) -> bool);

#[test]
fn the_version_file_decides() -> TestResult {
    let rows: [VersionRow; 5] = [
        (
            "other version",
            r#"{"imageLayoutVersion":"2.0.0"}"#,
            |e| matches!(e, Error::Version { version, .. } if version == "2.0.0"),
        ),
        ("no version", "{}", |e| matches!(e, Error::Content { .. })),
        ("no object", "[]", |e| matches!(e, Error::Content { .. })),
        ("number", r#"{"imageLayoutVersion":1}"#, |e| {
            matches!(e, Error::Content { .. })
        }),
        ("empty", "", |e| matches!(e, Error::Content { .. })),
    ];
    let (dir, _) = layout()?;
    let path = dir.path().join("oci-layout");
    for (name, text, expected) in rows {
        fs::write(&path, text)?;
        assert!(open(&dir).is_err_and(|error| expected(&error)), "{name}");
    }
    fs::write(&path, r#"{"imageLayoutVersion":"1.0.0","more":[1]}"#)?;
    open(&dir)?;
    File::options().write(true).open(&path)?.set_len(1 << 30)?;
    assert!(matches!(
        open(&dir),
        Err(Error::Content {
            source: oci::Error::Limit { .. },
            ..
        })
    ));
    fs::remove_file(&path)?;
    assert!(matches!(open(&dir), Err(Error::Missing { .. })));
    fs::create_dir(&path)?;
    assert!(matches!(open(&dir), Err(Error::FileType { .. })));
    Ok(())
}

#[test]
fn blobs_may_be_missing_but_not_elsewhere() -> TestResult {
    let (dir, digest) = layout()?;
    let elsewhere = tempfile::tempdir()?;
    fs::rename(dir.path().join("blobs"), elsewhere.path().join("blobs"))?;
    let missing = open(&dir)?.open_blob(&digest);
    assert!(matches!(missing, Err(Error::BlobMissing { .. })));
    symlink(elsewhere.path().join("blobs"), dir.path().join("blobs"))?;
    assert!(matches!(
        open(&dir),
        Err(Error::FileType {
            found: "a symbolic link",
            ..
        })
    ));

    fs::remove_file(dir.path().join("blobs"))?;
    let shared = Layout::open(dir.path(), &[elsewhere.path().join("blobs")])?;
    assert_eq!(
        shared.open_blob(&digest)?.identity().size,
        CONTENT.len() as u64
    );
    assert!(
        shared.list_blobs("sha256")?.is_empty(),
        "only the layout's own are listed"
    );
    Ok(())
}

#[test]
fn only_regular_files_are_blobs() -> TestResult {
    let (dir, digest) = layout()?;
    let path = blob_path(dir.path(), &digest);
    let target = dir.path().join("target");
    fs::rename(&path, &target)?;
    let fifo = || Command::new("mkfifo").arg(&path).status().map(drop);
    let socket = || std::os::unix::net::UnixListener::bind(&path).map(drop);
    let rows: [(&str, &dyn Fn() -> io::Result<()>); 4] = [
        ("symbolic link", &|| symlink(&target, &path)),
        ("directory", &|| fs::create_dir(&path)),
        ("FIFO", &fifo),
        ("socket", &socket),
    ];
    let layout = open(&dir)?;
    for (name, make) in rows {
        make()?;
        let result = layout.open_blob(&digest);
        assert!(
            matches!(result, Err(Error::FileType { .. })),
            "{name}: {result:?}"
        );
        assert!(layout.stat_blob(&digest).is_ok(), "{name} can be looked at");
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path))?;
    }
    fs::hard_link(&target, &path)?;
    layout.open_blob(&digest)?;
    Ok(())
}

#[test]
fn the_directory_is_pinned() -> TestResult {
    let (dir, digest) = layout()?;
    let parent = tempfile::tempdir()?;
    let path = parent.path().join("layout");
    fs::rename(dir.path(), &path)?;
    let layout = Layout::open(&path, &[])?;
    fs::rename(&path, parent.path().join("moved"))?;
    symlink("/", &path)?;
    layout.open_blob(&digest)?;
    layout.read_index()?;
    Ok(())
}

#[test]
fn stray_files_are_not_listed() -> TestResult {
    let (dir, digest) = layout()?;
    fs::write(dir.path().join("blobs/sha256/.tmp-1"), "")?;
    fs::write(dir.path().join("blobs/sha256").join("A".repeat(64)), "")?;
    fs::create_dir(dir.path().join("blobs/UPPER"))?;
    let layout = open(&dir)?;
    assert_eq!(layout.list_blobs("sha256")?, [digest]);
    assert!(layout.list_blobs("sha512")?.is_empty());
    assert_eq!(layout.list_algorithms()?, ["sha256"]);
    Ok(())
}

#[test]
fn a_torn_index_is_an_error() -> TestResult {
    let (dir, _) = layout()?;
    let layout = open(&dir)?;
    let path = dir.path().join("index.json");
    let whole = fs::read(&path)?;
    fs::write(&path, " \n")?;
    assert!(matches!(layout.read_index(), Err(Error::Empty { .. })));
    for len in 1..whole.len() {
        fs::write(&path, &whole[..len])?;
        assert!(
            matches!(layout.read_index(), Err(Error::Content { .. })),
            "cut at {len}"
        );
    }
    fs::write(&path, &whole)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    assert_eq!(**layout.read_index()?.bytes(), whole);
    fs::remove_file(&path)?;
    Command::new("mkfifo").arg(&path).status()?;
    assert!(matches!(layout.read_index(), Err(Error::FileType { .. })));
    Ok(())
}
