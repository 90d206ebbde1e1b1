//! What can be wrong with a document or a value of it.
//!
//! Each variant states one fact and has a stable code ([`Error::code`]), which users meet
//! in messages and reports, and a class ([`Error::class`]), from which the room above
//! chooses how a file system says it.

use std::fmt;
use std::sync::Arc;

use super::digest::{self, Digest};
use super::limits::Limit;
use super::media_type::MediaType;

/// What is wrong with a document or a value of it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The bytes are not one JSON value.
    #[error("invalid JSON at line {line} column {column}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1; 0 at a line's end.
        column: usize,
        /// What the parser said.
        source: Arc<serde_json::Error>,
    },
    /// The document is not UTF-8.
    #[error("JSON is not UTF-8 from byte {offset} on")]
    NotUtf8 {
        /// How many bytes are sound.
        offset: usize,
    },
    /// The document begins with a byte order mark, which JSON does not allow.
    #[error("JSON begins with a byte order mark")]
    ByteOrderMark,
    /// An object has one key twice, so readers could disagree about its value.
    #[error("duplicate key {key:?} at line {line} column {column}")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Line of the second one, from 1.
        line: usize,
        /// Column in bytes behind the second one.
        column: usize,
    },
    /// Arrays and objects are nested too deeply.
    #[error("JSON is nested more than {limit} deep at line {line} column {column}")]
    JsonDepth {
        /// The limit.
        limit: usize,
        /// Line, from 1.
        line: usize,
        /// Column in bytes.
        column: usize,
    },
    /// A value that should be an object is none.
    #[error("{object} is {found}, not an object")]
    NotAnObject {
        /// What the value stands for.
        object: &'static str,
        /// What the value is.
        found: JsonType,
    },
    /// A required member is absent.
    #[error("{object} has no {field:?}")]
    MissingField {
        /// What the object stands for.
        object: &'static str,
        /// The member's name.
        field: &'static str,
    },
    /// A member has a value of the wrong type.
    #[error("{field:?} of {object} is {found}, not {expected}")]
    FieldType {
        /// What the object stands for.
        object: &'static str,
        /// The member's name.
        field: &'static str,
        /// What it should be.
        expected: JsonType,
        /// What it is.
        found: JsonType,
    },
    /// A part of a document is wrong in itself.
    #[error("{part}: {cause}")]
    Part {
        /// Which part.
        part: Part,
        /// What is wrong with it.
        cause: Box<Error>,
    },
    /// The document could be read as an index and as a manifest.
    #[error("document has both {index_field:?} and {manifest_field:?}")]
    AmbiguousType {
        /// The member that only an index has.
        index_field: &'static str,
        /// The member that only a manifest has.
        manifest_field: &'static str,
    },
    /// The document's own `mediaType` is not what its descriptor says.
    #[error("document says it is {found}, its descriptor {expected}")]
    MediaTypeMismatch {
        /// The descriptor's media type.
        expected: MediaType,
        /// The document's.
        found: MediaType,
    },
    /// The document has the members of another kind of document.
    #[error("document has {field:?}, which {media_type} does not have")]
    ForeignField {
        /// What the document should be.
        media_type: MediaType,
        /// The member that does not belong.
        field: &'static str,
    },
    /// The layout's `index.json` says it is something else than an index.
    #[error("index.json says it is {found}, not an image index")]
    NotAnIndex {
        /// What it says.
        found: MediaType,
    },
    /// `schemaVersion` is not 2.
    #[error("schemaVersion is {found}, not 2")]
    SchemaVersion {
        /// The value, as JSON.
        found: String,
    },
    /// The manifest has Docker's first schema, which keeps no layer sizes and no config.
    #[error("Docker manifests of schema 1 are not supported")]
    Schema1,
    /// The size of a descriptor is not a whole number from 0 to 2^63 - 1.
    #[error("size {found} of descriptor is not a whole number from 0 to 2^63 - 1")]
    DescriptorSize {
        /// The value, as JSON.
        found: String,
    },
    /// A digest is malformed.
    #[error(transparent)]
    Digest(#[from] digest::Error),
    /// The embedded `data` of a descriptor is not base64.
    #[error("embedded data of {digest} is not base64")]
    DataEncoding {
        /// The descriptor's digest.
        digest: Digest,
    },
    /// The embedded `data` of a descriptor has another size.
    #[error("embedded data of {digest} has {actual} bytes, not {expected}")]
    DataSize {
        /// The descriptor's digest.
        digest: Digest,
        /// The descriptor's size in bytes.
        expected: u64,
        /// Size of the decoded data in bytes.
        actual: u64,
    },
    /// The embedded `data` of a descriptor has another digest.
    #[error("embedded data of {expected} has the digest {actual}")]
    DataDigest {
        /// The descriptor's digest.
        expected: Digest,
        /// Digest of the decoded data.
        actual: Digest,
    },
    /// The embedded `data` of a descriptor cannot be compared with its digest.
    #[error("digest algorithm of {digest} is not supported")]
    DataAlgorithm {
        /// The descriptor's digest.
        digest: Digest,
    },
    /// The `rootfs.type` of a config is not `layers`.
    #[error("rootfs type {found:?} is not \"layers\"")]
    RootfsType {
        /// The value.
        found: String,
    },
    /// A ref name does not fit the grammar.
    #[error("{name:?} is not a ref name: letters and digits, joined by one of - . _ : @ + / or --")]
    RefName {
        /// The text, cut to a readable length.
        name: String,
    },
    /// A platform is not written as `os/architecture` or `os/architecture/variant`.
    #[error("{text:?} is not a platform: write os/architecture or os/architecture/variant")]
    PlatformText {
        /// The text, cut to a readable length.
        text: String,
    },
    /// A text is no time stamp of RFC 3339.
    #[error("{text:?} is not a time stamp of RFC 3339")]
    Timestamp {
        /// The text, cut to a readable length.
        text: String,
    },
    /// A limit on a size or a number was exceeded.
    #[error("{limit} {actual} is over the limit of {}", .limit.value())]
    Limit {
        /// Which limit.
        limit: Limit,
        /// The value that exceeds it; where counting stopped early, the limit plus one.
        actual: u64,
    },
}

/// How an [`Error`] is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The bytes are not what the specification asks for.
    Malformed,
    /// It may be right, but is not handled here.
    Unsupported,
    /// It exceeds a limit.
    Limit,
    /// Bytes differ from their digest or size.
    Mismatch,
}

impl Error {
    /// The stable name of the fact, for messages and reports.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "JSON_SYNTAX",
            Self::NotUtf8 { .. } | Self::ByteOrderMark => "JSON_ENCODING",
            Self::DuplicateKey { .. } => "JSON_DUPLICATE_KEY",
            Self::JsonDepth { .. } => "JSON_DEPTH",
            Self::NotAnObject { .. } | Self::FieldType { .. } => "JSON_TYPE",
            Self::MissingField { .. } => "JSON_MISSING_FIELD",
            Self::Part { cause, .. } => cause.code(),
            Self::AmbiguousType { .. } => "JSON_AMBIGUOUS_TYPE",
            Self::MediaTypeMismatch { .. }
            | Self::ForeignField { .. }
            | Self::NotAnIndex { .. } => "JSON_MEDIA_TYPE",
            Self::SchemaVersion { .. } => "JSON_SCHEMA_VERSION",
            Self::Schema1 => "MANIFEST_SCHEMA1",
            Self::DescriptorSize { .. } => "DESCRIPTOR_SIZE",
            Self::Digest(_) => "DIGEST_GRAMMAR",
            Self::DataEncoding { .. } | Self::DataDigest { .. } => "BLOB_DIGEST",
            Self::DataSize { .. } => "BLOB_SIZE",
            Self::DataAlgorithm { .. } => "DIGEST_ALGORITHM",
            Self::RootfsType { .. } => "CONFIG_ROOTFS_TYPE",
            Self::RefName { .. } => "REF_NAME_GRAMMAR",
            Self::PlatformText { .. } => "PLATFORM_GRAMMAR",
            Self::Timestamp { .. } => "TIMESTAMP",
            Self::Limit { limit, .. } => limit.code(),
        }
    }

    /// How the fact is to be taken.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Syntax { .. }
            | Self::NotUtf8 { .. }
            | Self::ByteOrderMark
            | Self::DuplicateKey { .. }
            | Self::JsonDepth { .. }
            | Self::NotAnObject { .. }
            | Self::MissingField { .. }
            | Self::FieldType { .. }
            | Self::AmbiguousType { .. }
            | Self::MediaTypeMismatch { .. }
            | Self::ForeignField { .. }
            | Self::NotAnIndex { .. }
            | Self::SchemaVersion { .. }
            | Self::DescriptorSize { .. }
            | Self::Digest(_)
            | Self::RootfsType { .. }
            | Self::RefName { .. }
            | Self::PlatformText { .. }
            | Self::Timestamp { .. } => ErrorClass::Malformed,
            Self::Schema1 | Self::DataAlgorithm { .. } => ErrorClass::Unsupported,
            Self::DataEncoding { .. } | Self::DataSize { .. } | Self::DataDigest { .. } => {
                ErrorClass::Mismatch
            }
            Self::Limit { .. } => ErrorClass::Limit,
            Self::Part { cause, .. } => cause.class(),
        }
    }

    /// The same error, said of a part of a document.
    pub(super) fn of(self, part: Part) -> Self {
        Self::Part {
            part,
            cause: Box::new(self),
        }
    }
}

/// A part of a document that is judged by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The descriptor of the config.
    Config,
    /// The descriptor of the subject.
    Subject,
    /// The descriptor of a layer, numbered from 0.
    Layer(usize),
    /// An entry of an index, numbered from 0.
    Manifest(usize),
    /// The uncompressed digest of a layer, numbered from 0.
    DiffId(usize),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config => f.write_str("config"),
            Self::Subject => f.write_str("subject"),
            Self::Layer(number) => write!(f, "layers[{number}]"),
            Self::Manifest(number) => write!(f, "manifests[{number}]"),
            Self::DiffId(number) => write!(f, "diff_ids[{number}]"),
        }
    }
}

/// The type of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonType {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
    /// An object whose values are strings.
    StringMap,
}

impl From<&serde_json::Value> for JsonType {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Bool,
            Value::Number(_) => Self::Number,
            Value::String(_) => Self::String,
            Value::Array(_) => Self::Array,
            Value::Object(_) => Self::Object,
        }
    }
}

impl fmt::Display for JsonType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
            Self::StringMap => "an object of strings",
        })
    }
}
