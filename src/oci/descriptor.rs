//! Descriptors: typed pointers to blobs.
//!
//! Spec: image-spec descriptor.md.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::annotations::{Annotations, DOCKER_REFERENCE_TYPE};
use super::digest::{Digest, Hasher};
use super::error::{Error, Part};
use super::fields::Fields;
use super::media_type::MediaType;
use super::platform::Platform;

/// What a blob is, which one, and how large.
///
/// Spec: image-spec descriptor.md, "Properties".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: MediaType,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes; never above 2^63 - 1, which offsets of files are.
    pub size: u64,
    /// Texts about the blob.
    pub annotations: Annotations,
    /// What the image is made for.
    pub platform: Option<Platform>,
    /// Type of the artifact whose manifest this is.
    pub artifact_type: Option<MediaType>,
    /// Where else the blob may be had. Nothing here ever goes there.
    pub urls: Vec<String>,
    /// The embedded `data`, in base64. There is no way to read it: the blob counts.
    data: Option<Box<str>>,
}

impl Descriptor {
    /// A descriptor with the three members that each has.
    #[must_use]
    pub fn new(media_type: MediaType, digest: Digest, size: u64) -> Self {
        Self {
            media_type,
            digest,
            size,
            annotations: Annotations::default(),
            platform: None,
            artifact_type: None,
            urls: Vec::new(),
            data: None,
        }
    }

    /// Reads a descriptor out of a document.
    ///
    /// # Errors
    /// [`Error::NotAnObject`], [`Error::MissingField`], [`Error::FieldType`],
    /// [`Error::Digest`] and [`Error::DescriptorSize`].
    pub fn from_json(value: &Value) -> Result<Self, Error> {
        let fields = Fields::of(value, "descriptor")?;
        let platform = fields.find("platform").map(Platform::from_json);
        Ok(Self {
            media_type: MediaType::new(fields.string("mediaType")?),
            digest: fields.string("digest")?.parse()?,
            size: size(fields.get("size")?)?,
            annotations: fields.annotations()?,
            platform: platform.transpose()?,
            artifact_type: fields.find_media_type("artifactType")?,
            urls: fields.find_strings("urls")?,
            data: fields.find_string("data")?.map(Box::from),
        })
    }

    /// The descriptor as an object, its members in the order of the specification.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = json!({
            "mediaType": self.media_type.as_str(),
            "digest": self.digest.as_str(),
            "size": self.size,
        });
        if !self.urls.is_empty() {
            object["urls"] = json!(self.urls);
        }
        if !self.annotations.is_empty() {
            let pairs = self.annotations.iter();
            let pairs = pairs.map(|(key, value)| (key.to_owned(), Value::from(value)));
            object["annotations"] = Value::Object(pairs.collect());
        }
        if let Some(data) = &self.data {
            object["data"] = Value::from(&**data);
        }
        if let Some(artifact_type) = &self.artifact_type {
            object["artifactType"] = Value::from(artifact_type.as_str());
        }
        if let Some(platform) = &self.platform {
            object["platform"] = platform.to_json();
        }
        object
    }

    /// Whether this is about another entry of the index, and no image: BuildKit's
    /// provenance and SBOM manifests.
    #[must_use]
    pub fn is_attestation(&self) -> bool {
        self.annotations.get(DOCKER_REFERENCE_TYPE).is_some()
    }

    /// Compares the embedded data with size and digest, if there is any.
    ///
    /// # Errors
    /// [`Error::DataEncoding`], [`Error::DataSize`], [`Error::DataDigest`] where they
    /// differ; [`Error::DataAlgorithm`] where the digest cannot be computed.
    ///
    /// Spec: image-spec descriptor.md, "Embedded Content".
    pub fn check_data(&self) -> Result<(), Error> {
        let Some(data) = &self.data else {
            return Ok(());
        };
        let digest = || self.digest.clone();
        let bytes = STANDARD
            .decode(data.as_bytes())
            .map_err(|_| Error::DataEncoding { digest: digest() })?;
        let actual = bytes.len() as u64;
        if actual != self.size {
            return Err(Error::DataSize {
                digest: digest(),
                expected: self.size,
                actual,
            });
        }
        let mut hasher = Hasher::new(self.digest.algorithm())
            .ok_or_else(|| Error::DataAlgorithm { digest: digest() })?;
        hasher.update(&bytes);
        let actual = hasher.finish();
        if actual != self.digest {
            return Err(Error::DataDigest {
                expected: digest(),
                actual,
            });
        }
        Ok(())
    }
}

/// Reads a list of descriptors; `part` names the one that is wrong.
pub(super) fn list(values: &[Value], part: fn(usize) -> Part) -> Result<Vec<Descriptor>, Error> {
    let descriptor = |(number, value): (usize, &Value)| {
        Descriptor::from_json(value).map_err(|error| error.of(part(number)))
    };
    values.iter().enumerate().map(descriptor).collect()
}

/// Reads the `subject` of a document, which may be absent.
pub(super) fn find_subject(fields: Fields<'_>) -> Result<Option<Descriptor>, Error> {
    let subject = fields.find("subject").map(Descriptor::from_json);
    subject.transpose().map_err(|error| error.of(Part::Subject))
}

/// A whole number from 0 to 2^63 - 1, written without fraction and exponent.
fn size(value: &Value) -> Result<u64, Error> {
    value
        .as_u64()
        .filter(|size| i64::try_from(*size).is_ok())
        .ok_or_else(|| Error::DescriptorSize {
            found: value.to_string().chars().take(40).collect(),
        })
}

#[cfg(test)]
mod tests;
