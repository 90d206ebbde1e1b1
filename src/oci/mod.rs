//! Values of the OCI image specification: pure, no input or output.

pub mod digest;

pub use digest::{Algorithm, DiffId, Digest, Hasher};
