//! The virtual extended attributes `user.oci.*`.

use crate::oci::{Descriptor, DiffId};
use crate::vfs::error::Fault;

/// What all names begin with.
pub(super) const PREFIX: &str = "user.oci.";

/// The attribute `name` of a node whose attributes are `xattrs`. Those that are never
/// there cost next to nothing: `ls -l` asks for two of them of each file.
#[must_use]
pub(super) fn find(name: &[u8], xattrs: impl FnOnce() -> Xattrs) -> Option<Vec<u8>> {
    let ours = name.starts_with(PREFIX.as_bytes());
    ours.then(xattrs)?.get(name)
}

/// The extended attributes of one node, in the order in which they are listed.
#[derive(Debug, Clone, Default)]
pub(super) struct Xattrs {
    values: Vec<(String, String)>,
}

impl Xattrs {
    /// Those that follow from a descriptor: digest, media type, size, annotations.
    #[must_use]
    pub(super) fn of(descriptor: &Descriptor) -> Self {
        let mut xattrs = Self::default()
            .with("digest", descriptor.digest.as_str())
            .with("media-type", descriptor.media_type.as_str())
            .with("size", descriptor.size.to_string());
        for (key, value) in descriptor.annotations.iter() {
            xattrs = xattrs.with(&format!("annotation.{key}"), value);
        }
        xattrs
    }

    /// With the attribute `user.oci.NAME`. A name that the kernel cannot take (over 255
    /// bytes, or with a NUL) is left out.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        let name = format!("{PREFIX}{name}");
        if name.len() <= 255 && !name.contains('\0') {
            self.values.push((name, value.into()));
        }
        self
    }

    /// With the raw ref name, if there is one.
    #[must_use]
    pub(super) fn with_ref(self, name: Option<&str>) -> Self {
        match name {
            Some(name) => self.with("ref", name),
            None => self,
        }
    }

    /// With the DiffID of a layer, if it is known.
    #[must_use]
    pub(super) fn with_diff_id(self, diff_id: Option<&DiffId>) -> Self {
        match diff_id {
            Some(diff_id) => self.with("diff-id", diff_id.to_string()),
            None => self,
        }
    }

    /// With what is wrong, if something is.
    #[must_use]
    pub(super) fn with_fault(self, fault: Option<&Fault>) -> Self {
        match fault {
            Some(fault) => self.with("error", format!("{}: {}", fault.code, fault.text)),
            None => self,
        }
    }

    /// All names.
    #[must_use]
    pub(super) fn names(&self) -> Vec<Vec<u8>> {
        let names = self.values.iter().map(|(name, _)| name.as_bytes().to_vec());
        names.collect()
    }

    /// The value of the attribute `name`.
    #[must_use]
    pub(super) fn get(&self, name: &[u8]) -> Option<Vec<u8>> {
        let is_it = |(known, _): &&(String, String)| known.as_bytes() == name;
        let value = self.values.iter().find(is_it);
        value.map(|(_, value)| value.as_bytes().to_vec())
    }
}
