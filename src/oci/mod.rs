//! Values of the OCI image specification: pure, no input or output.
//!
//! Everything here is made from bytes of strangers. A document is parsed strictly as JSON
//! (one reading only: [`json`]), within [`limits`], and each [`Error`] states the fact and
//! has a stable code. Nothing is rewritten from these values: stored documents are shown
//! as the bytes that they are, and `index.json` is edited as JSON, so unknown members and
//! their order survive.
//!
//! Why not the types of the `oci-spec` crate: its structs are derived for serde, so unknown
//! members and the order of annotations (a hash map) are gone after reading; one
//! malformed descriptor fails the whole index, where here it costs one ref; a member that
//! is repeated among the annotations or the unknown ones is not noticed; a size may exceed
//! 2^63 - 1; and what went wrong is the text of a serde error, without a code.
//!
//! - [`digest`] holds `Digest`, `DiffId` and `Hasher`.
//! - [`error`] says what can be wrong with a document, with codes and classes.
//! - [`limits`] holds the accepted sizes and depths, each with its reason.
//! - [`json`] is strict JSON.
//! - [`raw`] finds the parts of a JSON text, to change one and leave the others.
//! - `fields` is typed access to the members of a JSON object.
//! - [`media_type`] holds `MediaType`, and what it stands for.
//! - [`annotations`] holds `Annotations`, and the keys that have a meaning here.
//! - [`platform`] holds `Platform`, the choice among platforms, and directory names.
//! - [`descriptor`] holds `Descriptor`.
//! - [`document`] holds `Document`: a manifest or an index, as the descriptor says.
//! - [`manifest`] holds `ImageManifest`.
//! - [`index`] holds `ImageIndex`, and `LayoutIndex` for a layout's own `index.json`.
//! - [`config`] holds `ImageConfig`.
//! - [`timestamp`] holds `Timestamp`, read from RFC 3339.
//! - [`ref_name`] holds `RefName`.

pub mod annotations;
pub mod config;
pub mod descriptor;
pub mod digest;
pub mod document;
pub mod error;
mod fields;
pub mod index;
pub mod json;
pub mod limits;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod raw;
pub mod ref_name;
pub mod timestamp;

pub use annotations::Annotations;
pub use config::ImageConfig;
pub use descriptor::Descriptor;
pub use digest::{Algorithm, DiffId, Digest, Hasher};
pub use document::{Document, DocumentType};
pub use error::{Error, ErrorClass};
pub use index::{ImageIndex, LayoutIndex};
pub use manifest::ImageManifest;
pub use media_type::{LayerCompression, MediaType};
pub use platform::Platform;
pub use ref_name::RefName;
pub use timestamp::Timestamp;
