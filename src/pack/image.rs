//! The documents that make an image of one layer.

use serde_json::{Value, json};

use crate::oci::{Descriptor, DiffId, Digest, MediaType, Platform};

/// The config and the manifest of an image, as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The bytes of the config.
    pub config: Vec<u8>,
    /// The bytes of the manifest, which names the config and the layer.
    pub manifest: Vec<u8>,
}

/// An image with one layer, made for `platform`. The same arguments give the same bytes:
/// there is no time in it unless `created` (RFC 3339) is given.
///
/// Spec: image-spec config.md and manifest.md.
#[must_use]
pub fn image(
    layer: &Descriptor,
    diff_id: &DiffId,
    platform: &Platform,
    created: Option<&str>,
) -> Image {
    let config = config(diff_id, platform, created).to_string().into_bytes();
    let of_config = Descriptor::new(
        MediaType::IMAGE_CONFIG,
        Digest::of(&config),
        config.len() as u64,
    );
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::IMAGE_MANIFEST.as_str(),
        "config": in_manifest(&of_config),
        "layers": [in_manifest(layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    Image { config, manifest }
}

fn config(diff_id: &DiffId, platform: &Platform, created: Option<&str>) -> Value {
    let mut config = json!({});
    if let Some(created) = created {
        config["created"] = json!(created);
    }
    config["architecture"] = json!(platform.architecture);
    if let Some(variant) = &platform.variant {
        config["variant"] = json!(variant);
    }
    config["os"] = json!(platform.os);
    if let Some(version) = &platform.os_version {
        config["os.version"] = json!(version);
    }
    if !platform.os_features.is_empty() {
        config["os.features"] = json!(platform.os_features);
    }
    config["config"] = json!({});
    config["rootfs"] = json!({"type": "layers", "diff_ids": [diff_id.to_string()]});
    config
}

fn in_manifest(descriptor: &Descriptor) -> Value {
    json!({
        "mediaType": descriptor.media_type.as_str(),
        "digest": descriptor.digest.as_str(),
        "size": descriptor.size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type::LayerCompression;

    #[test]
    fn the_documents_hold_what_they_must() {
        let layer = Descriptor::new(
            MediaType::layer(LayerCompression::Gzip),
            Digest::of(b"layer"),
            5,
        );
        let diff_id = DiffId(Digest::of(b"tar"));
        let platform = Platform {
            variant: Some("v8".to_owned()),
            ..Platform::new("linux", "arm64")
        };
        let made = image(&layer, &diff_id, &platform, None);
        let config = String::from_utf8(made.config.clone()).expect("JSON");
        assert_eq!(
            config,
            format!(
                "{{\"architecture\":\"arm64\",\"variant\":\"v8\",\"os\":\"linux\",\"config\":{{}},\
                 \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"{diff_id}\"]}}}}"
            )
        );
        let manifest = String::from_utf8(made.manifest.clone()).expect("JSON");
        assert_eq!(
            manifest,
            format!(
                "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\
                 \"config\":{{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\
                 \"digest\":\"{}\",\"size\":{}}},\"layers\":[{{\"mediaType\":\
                 \"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"{}\",\"size\":5}}]}}",
                Digest::of(&made.config),
                config.len(),
                layer.digest,
            )
        );
        assert_eq!(image(&layer, &diff_id, &platform, None), made, "again");
        let dated = image(&layer, &diff_id, &platform, Some("2020-01-01T00:00:00Z"));
        let dated = String::from_utf8(dated.config).expect("JSON");
        assert!(dated.starts_with("{\"created\":\"2020-01-01T00:00:00Z\",\"architecture\""));
    }
}
