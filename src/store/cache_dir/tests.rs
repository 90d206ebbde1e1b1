use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// A cache with the shelf `toc`, and the directory that goes with it.
fn shelf() -> Result<(tempfile::TempDir, CacheDir), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let shelf = CacheDir::open(&dir.path().join("a/b"))?.shelf("toc")?;
    Ok((dir, shelf))
}

fn read(shelf: &CacheDir, name: &str) -> Result<Option<String>, Box<dyn std::error::Error>> {
    let mut text = String::new();
    match shelf.find(name)? {
        None => Ok(None),
        Some(mut file) => {
            file.read_to_string(&mut text)?;
            Ok(Some(text))
        }
    }
}

fn store(shelf: &CacheDir, name: &str, text: &str) -> Result<u64, Error> {
    shelf.store(name, |file| file.write_all(text.as_bytes()))
}

/// The names in the directory, whatever they stand for.
fn names(shelf: &CacheDir) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(shelf.path())?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect::<io::Result<_>>()?;
    names.sort();
    Ok(names)
}

fn set_written(path: &Path, time: SystemTime) -> io::Result<()> {
    let times = FileTimes::new().set_modified(time).set_accessed(time);
    File::options().write(true).open(path)?.set_times(times)
}

#[test]
fn what_is_stored_is_found() -> TestResult {
    let (_dir, cache) = shelf()?;
    assert!(read(&cache, "x")?.is_none());
    assert_eq!(store(&cache, "x", "one")?, 3);
    assert_eq!(store(&cache, "x", "three")?, 5);
    assert_eq!(read(&cache, "x")?.as_deref(), Some("three"));
    cache.remove("x")?;
    cache.remove("x")?;
    assert!(names(&cache)?.is_empty());
    Ok(())
}

#[test]
fn unsafe_directories_are_refused() -> TestResult {
    let dir = tempfile::tempdir()?;
    let open = dir.path().join("open");
    std::fs::create_dir(&open)?;
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777))?;
    assert!(matches!(CacheDir::open(&open), Err(Error::Unsafe { .. })));

    let link = dir.path().join("link");
    symlink(dir.path(), &link)?;
    for path in [&link, &dir.path().join("file")] {
        std::fs::write(dir.path().join("file"), "x")?;
        assert!(CacheDir::open(path).is_err(), "{}", path.display());
        assert!(CacheDir::find_dir(path).is_err(), "{}", path.display());
    }
    assert!(CacheDir::find_dir(&dir.path().join("missing"))?.is_none());
    Ok(())
}

#[test]
fn what_is_not_a_file_of_ours_is_not_there_and_is_replaced() -> TestResult {
    type Make = fn(&Path) -> io::Result<()>;
    let rows: [(&str, Make); 5] = [
        ("a file that others can write", |path| {
            std::fs::write(path, "bad")?;
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o666))
        }),
        ("a symbolic link", |path| {
            let target = path.with_extension("target");
            std::fs::write(&target, "bad")?;
            symlink(target, path)
        }),
        ("a dangling link", |path| symlink("nowhere", path)),
        ("a directory", |path| std::fs::create_dir(path)),
        ("a pipe", |path| {
            let mode = Mode::RUSR | Mode::WUSR;
            Ok(rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0)?)
        }),
    ];
    for (name, make) in rows {
        let (_dir, cache) = shelf()?;
        make(&cache.path().join("x"))?;
        assert!(read(&cache, "x")?.is_none(), "{name}");
        let listed: Vec<bool> = cache.list()?.iter().map(|entry| entry.is_sound).collect();
        assert!(listed.contains(&false), "{name}: {listed:?}");
        store(&cache, "x", "good")?;
        assert_eq!(read(&cache, "x")?.as_deref(), Some("good"), "{name}");
        make(&cache.path().join("y"))?;
        cache.remove("y")?;
        assert!(!names(&cache)?.contains(&"y".to_owned()), "{name}");
    }
    let (_dir, cache) = shelf()?;
    std::fs::create_dir_all(cache.path().join("x/full"))?;
    assert!(store(&cache, "x", "good").is_err());
    assert!(cache.remove("x").is_err(), "what is in it is not ours");
    assert_eq!(names(&cache)?, ["x"], "no temporary file is left");
    Ok(())
}

#[test]
fn a_directory_that_changes_while_it_is_used() -> TestResult {
    let (dir, cache) = shelf()?;
    store(&cache, "x", "good")?;
    for gone in [cache.path(), dir.path()] {
        std::fs::remove_dir_all(gone)?;
        assert!(read(&cache, "x")?.is_none());
        assert!(cache.list()?.is_empty());
        cache.remove("x")?;
        store(&cache, "x", "again")?;
        assert_eq!(read(&cache, "x")?.as_deref(), Some("again"));
    }
    // The shelf, then the base, become links to a directory that looks just as well.
    for path in [cache.path(), &dir.path().join("a/b")] {
        let moved = dir.path().join("moved");
        std::fs::rename(path, &moved)?;
        symlink(&moved, path)?;
        for result in [
            read(&cache, "x").map(drop),
            store(&cache, "x", "2").map(drop).map_err(Into::into),
        ] {
            let text = result.err().ok_or("used")?.to_string();
            assert!(text.contains("symbolic link"), "{text}");
        }
        std::fs::remove_file(path)?;
        std::fs::rename(&moved, path)?;
        assert_eq!(read(&cache, "x")?.as_deref(), Some("again"));
    }
    std::fs::set_permissions(cache.path(), PermissionsExt::from_mode(0o777))?;
    assert!(matches!(cache.find("x"), Err(Error::Unsafe { .. })));
    assert!(matches!(store(&cache, "x", "2"), Err(Error::Unsafe { .. })));
    Ok(())
}

#[test]
fn a_write_that_fails_leaves_nothing() -> TestResult {
    let (_dir, cache) = shelf()?;
    let result = cache.store("x", |file| {
        file.write_all(&[0; 100_000])?;
        Err(io::ErrorKind::StorageFull.into())
    });
    assert!(result.is_err());
    assert!(names(&cache)?.is_empty());
    Ok(())
}

#[test]
fn with_and_without_a_name_files_are_written_alike() -> TestResult {
    let (_dir, cache) = shelf()?;
    store(&cache, "x", "before")?;
    let handle = cache.handle()?;
    for (is_named, text) in [(false, "unnamed"), (true, "named")] {
        let (mut file, temporary) = match is_named {
            false => Temporary::create(&handle)?,
            true => Temporary::create_named(&handle)?,
        };
        file.write_all(text.as_bytes())?;
        let has_name = temporary.name.is_some();
        assert_eq!(names(&cache)?.len(), 1 + usize::from(has_name), "{text}");
        temporary.rename_to(&file, "x")?;
        assert_eq!(names(&cache)?, ["x"], "{text}");
        assert_eq!(read(&cache, "x")?.as_deref(), Some(text));
    }
    Ok(())
}

#[test]
fn what_killed_processes_left_goes_after_a_while() -> TestResult {
    let (dir, cache) = shelf()?;
    let now = SystemTime::now();
    let rows = [
        (".new-1-1", now - ABANDONED * 2, false),
        (".new-1-2", now - ABANDONED / 2, true),
        (".new-1-3", now + ABANDONED * 2, false),
        ("sha256-00", now - ABANDONED * 2, true),
        (".other", now - ABANDONED * 2, true),
    ];
    for (name, written, _) in rows {
        std::fs::write(cache.path().join(name), "x")?;
        set_written(&cache.path().join(name), written)?;
    }
    let again = CacheDir::open(&dir.path().join("a/b"))?.shelf("toc")?;
    let there = names(&again)?;
    for (name, _, stays) in rows {
        assert_eq!(there.iter().any(|other| other == name), stays, "{name}");
    }
    assert!(
        again
            .list()?
            .iter()
            .all(|entry| !entry.name.starts_with(TEMPORARY))
    );
    Ok(())
}

#[test]
fn those_used_longest_ago_are_evicted() -> TestResult {
    let (_dir, cache) = shelf()?;
    for (number, seconds) in [(0, 300), (1, 100), (2, 200), (3, 400)] {
        let name = format!("file{number}");
        store(&cache, &name, "0123456789")?;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        set_written(&cache.path().join(name), time)?;
    }
    cache.evict(cache.list()?, 40, |entry| entry.size);
    assert_eq!(names(&cache)?.len(), 4, "at the limit");
    cache.evict(cache.list()?, 3, |_| 1);
    assert_eq!(names(&cache)?, ["file0", "file2", "file3"]);
    Ok(())
}
