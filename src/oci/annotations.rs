//! Annotations: texts under keys, and the keys that have a meaning here.
//!
//! Spec: image-spec annotations.md.

/// The name of an entry in a layout's `index.json`.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The full name of an image, as BuildKit, containerd and nerdctl write it.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// The name of the file that a layer of an artifact holds.
pub const TITLE: &str = "org.opencontainers.image.title";

/// When the thing was made, in RFC 3339.
pub const CREATED: &str = "org.opencontainers.image.created";

/// Marks an index entry that is about another entry (`attestation-manifest`).
pub const DOCKER_REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// The digest of the entry that an attestation is about.
pub const DOCKER_REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// Annotations in the order of the document; each key is there once.
///
/// A list and not a map: most have one or two keys, and there may be 100,000 of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations(Vec<(String, String)>);

impl Annotations {
    /// The value of `key`; takes time proportional to the number of keys.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter()
            .find_map(|(known, value)| (known == key).then_some(value))
    }

    /// All pairs of key and value, in the order of the document.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Takes pairs whose keys differ, as those of a parsed object do.
impl FromIterator<(String, String)> for Annotations {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}
