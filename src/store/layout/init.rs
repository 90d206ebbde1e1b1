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
/// The `oci-layout` file comes last, so that a layout which was cut short is none.
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
    let blobs = path.join("blobs/sha256");
    DirBuilder::new()
        .recursive(true)
        .create(&blobs)
        .map_err(io("create", &blobs))?;
    let version = format!("{{\"imageLayoutVersion\":\"{VERSION}\"}}");
    for (name, text) in [("index.json", EMPTY_INDEX), ("oci-layout", &version)] {
        let file = path.join(name);
        write_new(&file, text).map_err(io("create", &file))?;
    }
    Ok(())
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
