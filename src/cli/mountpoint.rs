//! Whether a directory can be mounted on, said before anything is tried.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ocifs::fuse::{self, Unmount};

use super::error::Refusal;

/// The absolute path of a mount point for the layout at the absolute path `source`. A mount whose daemon
/// has gone is taken down first.
///
/// # Errors
/// Why it cannot be mounted on, with what to do.
pub(crate) fn check(mountpoint: &Path, source: &Path, flags: &[String]) -> anyhow::Result<PathBuf> {
    let shown = mountpoint.display();
    if fuse::is_stale(mountpoint) {
        log::warn!("{shown}: taking down a mount whose daemon has gone");
        fuse::unmount(mountpoint, Unmount::Detach)?;
    }
    let metadata = fs::symlink_metadata(mountpoint).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Refusal::failure(format!(
            "mount point {shown} does not exist; make it with `mkdir {shown}`"
        )),
        _ => Refusal::failure(format!("mount point {shown}: {error}")),
    })?;
    if metadata.is_symlink() {
        let message = format!("mount point {shown} is a symbolic link; name the directory itself");
        return Err(Refusal::failure(message));
    }
    if !metadata.is_dir() {
        return Err(Refusal::failure(format!(
            "mount point {shown} is not a directory"
        )));
    }
    let path = mountpoint.canonicalize()?;
    check_apart(&path, source)?;
    let empty = fs::read_dir(&path)?.next().is_none();
    if !empty && !flags.iter().any(|flag| flag == "nonempty") {
        let message = format!(
            "mount point {shown} is not empty; choose another, or hide its files with -o nonempty"
        );
        return Err(Refusal::failure(message));
    }
    Ok(path)
}

/// Refuses a mount that would hide its own source, or stand in it.
fn check_apart(mountpoint: &Path, source: &Path) -> anyhow::Result<()> {
    let shown = mountpoint.display();
    if mountpoint == source {
        return Err(Refusal::failure(format!(
            "mount point {shown} is the layout itself"
        )));
    }
    if mountpoint.starts_with(source) {
        return Err(Refusal::failure(format!(
            "mount point {shown} is inside the layout"
        )));
    }
    if source.starts_with(mountpoint) {
        let message = format!("the layout is inside the mount point {shown}, which would hide it");
        return Err(Refusal::failure(message));
    }
    Ok(())
}
