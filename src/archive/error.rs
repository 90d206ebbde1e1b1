//! Why an archive of images is refused.

use crate::oci;

/// What an error means to those who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Something is named and not there.
    Missing,
    /// Bytes are not those that are promised elsewhere.
    Mismatch,
    /// It makes no sense, or two readers would read two things.
    Malformed,
    /// It may make sense to others.
    Unsupported,
    /// It would cost more than is allowed.
    Limit,
}

impl From<oci::ErrorClass> for ErrorClass {
    fn from(class: oci::ErrorClass) -> Self {
        match class {
            oci::ErrorClass::Malformed => Self::Malformed,
            oci::ErrorClass::Unsupported => Self::Unsupported,
            oci::ErrorClass::Limit => Self::Limit,
            oci::ErrorClass::Mismatch => Self::Mismatch,
        }
    }
}

/// Why an archive of images cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A file that must be there is not.
    #[error("the archive has no file {path:?}; it may be cut short or not whole")]
    Missing {
        /// The path in the archive.
        path: String,
    },
    /// Two files of different content have one path.
    #[error("the archive has several different files {path:?}, and readers would disagree")]
    Duplicate {
        /// The path in the archive.
        path: String,
    },
    /// A path leads out of the archive.
    #[error("{path:?} leads out of the archive")]
    PathEscapes {
        /// The path as it is written.
        path: String,
    },
    /// A link leads in circles, or through too many others.
    #[error("the links from {path:?} in the archive lead nowhere")]
    LinkLoop {
        /// The path in the archive.
        path: String,
    },
    /// Something else than a file is where one must be.
    #[error("{path:?} in the archive is not a regular file")]
    NotAFile {
        /// The path in the archive.
        path: String,
    },
    /// A file is stored with holes.
    #[error("{path:?} is stored as a sparse file: pack the archive without --sparse")]
    Sparse {
        /// The path in the archive.
        path: String,
    },
    /// A document of the archive is not right.
    #[error("{path:?} in the archive is not right")]
    Document {
        /// The path in the archive.
        path: String,
        /// What is wrong with it.
        #[source]
        source: oci::Error,
    },
    /// `oci-layout` has a version that is not understood.
    #[error("the archive says layout version {version:?}; only 1.0.0 is supported")]
    Version {
        /// The version it says.
        version: String,
    },
    /// `manifest.json` is not what `docker save` writes.
    #[error("manifest.json in the archive: {part} of image {image} is not {expected}")]
    DockerManifest {
        /// Which image, from 0.
        image: usize,
        /// Which member of it.
        part: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A config lists another number of layers than the archive has for the image.
    #[error("image {image} of the archive has {layers} layers, its config lists {diff_ids}")]
    LayerCount {
        /// Which image, from 0.
        image: usize,
        /// How many it has.
        layers: usize,
        /// How many its config lists.
        diff_ids: usize,
    },
    /// There is no image in it.
    #[error("the archive holds no image")]
    NoImage,
}

impl Error {
    /// The stable name of this failure.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "COMMIT_INCOMPLETE",
            Self::Duplicate { .. } => "ARCHIVE_DUPLICATE",
            Self::PathEscapes { .. } => "ARCHIVE_PATH",
            Self::LinkLoop { .. } => "ARCHIVE_LINK",
            Self::NotAFile { .. } => "ARCHIVE_FILE_TYPE",
            Self::Sparse { .. } => "ARCHIVE_SPARSE",
            Self::Document { source, .. } => source.code(),
            Self::Version { .. } => "LAYOUT_VERSION",
            Self::DockerManifest { .. } => "DOCKER_MANIFEST",
            Self::LayerCount { .. } => "CONFIG_LAYER_COUNT",
            Self::NoImage => "ARCHIVE_EMPTY",
        }
    }

    /// What was found in the place of a file, in a few words.
    #[must_use]
    pub fn found(&self) -> &'static str {
        match self {
            Self::Duplicate { .. } => "several different files",
            Self::PathEscapes { .. } => "a link out of the archive",
            Self::LinkLoop { .. } => "a link that leads nowhere",
            Self::Sparse { .. } => "stored with holes",
            _ => "something else",
        }
    }

    /// What it means to those who asked.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Missing { .. } => ErrorClass::Missing,
            Self::Duplicate { .. }
            | Self::PathEscapes { .. }
            | Self::LinkLoop { .. }
            | Self::NotAFile { .. }
            | Self::DockerManifest { .. }
            | Self::LayerCount { .. }
            | Self::NoImage => ErrorClass::Malformed,
            Self::Sparse { .. } | Self::Version { .. } => ErrorClass::Unsupported,
            Self::Document { source, .. } => source.class().into(),
        }
    }
}
