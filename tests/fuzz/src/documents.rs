//! Documents of an image: index, manifest, config, and a layout's `index.json`.
//!
//! Invariants, for any bytes:
//! - no panic, and memory in proportion to the bytes;
//! - what is accepted reads as equal when its JSON is written out anew;
//! - no bytes are an index and a manifest: whoever reads them sees one image;
//! - sizes fit a file offset, and lists keep to their limits.

use ocifs::oci::limits::MAX_LAYERS;
use ocifs::oci::{Descriptor, Document, DocumentType, ImageConfig, LayoutIndex, MediaType, json};

/// What a descriptor may say that a document is.
const TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Checks the invariants.
pub fn check(bytes: &[u8]) {
    let rewritten = json::parse(bytes).map(|value| value.to_string().into_bytes());
    let parsed: Vec<Document> = TYPES
        .iter()
        .filter_map(|text| check_document(bytes, text, rewritten.as_deref().ok()))
        .collect();
    let is_index = |document: &Document| document.index().is_some();
    assert!(
        parsed.iter().all(is_index) || !parsed.iter().any(is_index),
        "an index and a manifest"
    );
    check_config(bytes, rewritten.as_deref().ok());
    check_layout_index(bytes);
    if let Ok(value) = json::parse(bytes)
        && let Ok(descriptor) = Descriptor::from_json(&value)
    {
        check_descriptor(&descriptor);
    }
}

fn check_document(bytes: &[u8], text: &str, rewritten: Option<&[u8]>) -> Option<Document> {
    let media_type = MediaType::new(text);
    let document_type = DocumentType::of(&media_type).expect("it stands for a document");
    let document = Document::parse(bytes, document_type).ok()?;
    assert_eq!(document.index().is_some(), document_type.is_index());
    let rewritten = rewritten.expect("it is JSON");
    let again = Document::parse(rewritten, document_type);
    assert_eq!(again.ok().as_ref(), Some(&document), "{text}");
    if let Some(manifest) = document.manifest() {
        assert!(manifest.layers.len() as u64 <= MAX_LAYERS);
        check_descriptor(&manifest.config);
        manifest.layers.iter().for_each(check_descriptor);
        let _ = (manifest.is_image(), manifest.effective_artifact_type());
    }
    Some(document)
}

fn check_descriptor(descriptor: &Descriptor) {
    assert!(i64::try_from(descriptor.size).is_ok());
    let _ = (descriptor.check_data(), descriptor.is_attestation());
}

fn check_config(bytes: &[u8], rewritten: Option<&[u8]>) {
    let Ok(config) = ImageConfig::parse(bytes) else {
        return;
    };
    let again = ImageConfig::parse(rewritten.expect("it is JSON")).expect("it was read before");
    assert_eq!(again.created, config.created);
    assert_eq!(again.platform, config.platform);
    assert_eq!(again.history, config.history);
    assert_eq!(again.diff_ids().ok(), config.diff_ids().ok());
    let layers = config.diff_ids().map_or(0, <[_]>::len);
    assert!(layers as u64 <= MAX_LAYERS);
    for layer in 0..layers.min(10) {
        let _ = config.step_of_layer(layer, layers);
    }
}

fn check_layout_index(bytes: &[u8]) {
    let Ok(index) = LayoutIndex::parse(bytes) else {
        return;
    };
    let again = LayoutIndex::from_json(index.document().clone()).expect("it was read before");
    assert_eq!(again.document(), index.document());
    assert_eq!(again.entries().len(), index.entries().len());
    for (one, other) in again.entries().iter().zip(index.entries()) {
        assert_eq!(one.ref_name, other.ref_name);
        assert_eq!(one.containerd_name, other.containerd_name);
        assert_eq!(one.media_type, other.media_type);
        assert_eq!(one.descriptor.as_ref().ok(), other.descriptor.as_ref().ok());
        if let Ok(descriptor) = &one.descriptor {
            check_descriptor(descriptor);
        }
    }
}
