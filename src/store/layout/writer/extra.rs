//! Files of others that stand in the layout's directory.

use std::io;

use super::{Error, LayoutWriter, Temporary};

/// What the layout has itself.
const OWN: [&str; 4] = ["blobs", "index.json", "index.json.lock", "oci-layout"];

impl LayoutWriter {
    /// Writes a small file into the layout's directory, whole and durable, in place of one
    /// that has the name.
    ///
    /// # Errors
    /// [`Error::Io`]: what the system says, and that a name is the layout's own, begins with
    /// `.` or is none ([`io::ErrorKind::InvalidInput`]).
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let is_free = !name.is_empty()
            && !name.starts_with('.')
            && !name.contains(['/', '\0'])
            && !OWN.contains(&name);
        let write = || {
            if !is_free {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let mut temporary = Temporary::create(&self.disk, ".")?;
            temporary.file().write_at(bytes, 0)?;
            temporary.publish(name)
        };
        write().map_err(|source| self.io("write", name, source))
    }
}
