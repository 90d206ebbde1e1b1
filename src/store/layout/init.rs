//! Making an empty layout.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::path::Path;

use super::{Error, VERSION};

/// What an index without entries says.
const EMPTY_INDEX: &str = concat!(
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","#,
    r#""manifests":[]}"#,
);

/// Makes an empty layout in the directory `path`, which and whose parents are made where
/// they are missing. A directory that exists and is not empty is left as it is.
///
/// The `oci-layout` file comes last, when all else is durable, so that a layout which was
/// cut short is none.
///
/// # Errors
/// [`Error::Io`].
///
/// Spec: image-spec image-layout.md.
pub fn init(path: &Path) -> Result<(), Error> {
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    };
    match fs::read_dir(path).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("list", path)(error)),
    }
    let above = missing_above(path);
    let blobs = path.join("blobs/sha256");
    DirBuilder::new()
        .recursive(true)
        .create(&blobs)
        .map_err(io("create", &blobs))?;
    let create = |name: &str, text: &str| {
        let file = path.join(name);
        write_new(&file, text).map_err(io("create", &file))
    };
    create("index.json", EMPTY_INDEX)?;
    for directory in [&path.join("blobs"), path].into_iter().chain(above) {
        sync(directory).map_err(io("sync", directory))?;
    }
    let version = format!("{{\"imageLayoutVersion\":\"{VERSION}\"}}");
    create("oci-layout", &version)?;
    sync(path).map_err(io("sync", path))
}

/// The directories above `path` in which a name is new when it is made: its parent at any
/// rate, since whoever made `path` may not have seen to it.
fn missing_above(path: &Path) -> Vec<&Path> {
    let mut above = Vec::new();
    for directory in path.ancestors().skip(1) {
        let is_here = directory.as_os_str().is_empty();
        let directory = if is_here { Path::new(".") } else { directory };
        above.push(directory);
        if directory.exists() {
            break;
        }
    }
    above
}

/// Makes the names in a directory durable, where its file system has to be told, and whoever
/// may write there may read it.
fn sync(directory: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied};
    match fs::File::open(directory).and_then(|directory| directory.sync_all()) {
        Err(error) if matches!(error.kind(), InvalidInput | PermissionDenied) => Ok(()),
        other => other,
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
