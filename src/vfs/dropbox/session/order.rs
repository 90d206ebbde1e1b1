//! The order to publish a session, given by setting an attribute of its directory.

use crate::oci::media_type::LayerCompression;

/// Setting this attribute of a session publishes it, under the ref name that is its value
/// or, if that is empty, under its own. The kernel holds no lock for it but that of the
/// session's directory.
const COMMIT: &[u8] = b"user.oci.commit";

/// To publish a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vfs::dropbox) struct Order {
    /// How a tree is packed, if it is said: by one more word at the end of the name.
    pub(super) compression: Option<LayerCompression>,
}

impl Order {
    /// The order that setting the attribute `name` is; `None` for any other attribute.
    pub(in crate::vfs::dropbox) fn of(name: &[u8]) -> Option<Self> {
        let compression = match name.strip_prefix(COMMIT)? {
            b"" => None,
            b".gzip" => Some(LayerCompression::Gzip),
            b".zstd" => Some(LayerCompression::Zstd),
            b".none" => Some(LayerCompression::None),
            _ => return None,
        };
        Some(Self { compression })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_attribute() {
        let rows: [(&str, Option<Option<LayerCompression>>); 7] = [
            ("user.oci.commit", Some(None)),
            ("user.oci.commit.gzip", Some(Some(LayerCompression::Gzip))),
            ("user.oci.commit.zstd", Some(Some(LayerCompression::Zstd))),
            ("user.oci.commit.none", Some(Some(LayerCompression::None))),
            ("user.oci.commit.xz", None),
            ("user.oci.commits", None),
            ("user.oci", None),
        ];
        for (name, expected) in rows {
            let order = Order::of(name.as_bytes());
            assert_eq!(order.map(|order| order.compression), expected, "{name}");
        }
    }
}
