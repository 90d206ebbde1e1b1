//! `ocifs` presents an OCI image layout as files.

pub mod layer;
pub mod oci;
pub mod store;
pub mod stream;
