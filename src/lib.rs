//! `ocifs` presents an OCI image layout as files.

pub mod oci;
pub mod store;
