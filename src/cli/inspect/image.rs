//! One image: what its index entry, index, manifest and config say.

use ocifs::oci::media_type::Kind;
use ocifs::oci::{
    Annotations, Descriptor, Document, DocumentType, ImageConfig, ImageManifest, LayerCompression,
    MediaType,
};
use ocifs::vfs;
use ocifs::vfs::node::Node;
use serde_json::{Map, Value, json};

use super::super::{format, tree};
use super::referrers::Referrer;
use super::summary::blob_problem;
use super::{Problem, Source};

/// The annotation of an attestation: what it is about.
const ABOUT: &str = "annotation.vnd.docker.reference.digest";

/// What is said of an image.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) path: Vec<u8>,
    pub(super) ref_name: Option<String>,
    /// Of the index entry; none of entries that are shown together.
    pub(super) digest: Option<String>,
    pub(super) media_type: Option<String>,
    pub(super) size: Option<String>,
    /// Annotations of the index entry.
    pub(super) annotations: Map<String, Value>,
    /// What its index says, if it has one of its own.
    pub(super) index: Option<About>,
    pub(super) platforms: Option<Vec<Platform>>,
    pub(super) manifest: Option<Manifest>,
    /// What is about it.
    pub(super) referrers: Vec<Referrer>,
    pub(super) problems: Vec<Problem>,
}

/// What an index and a manifest say alike.
#[derive(Debug)]
pub(super) struct About {
    pub(super) artifact_type: Option<String>,
    pub(super) subject: Option<String>,
    pub(super) annotations: Map<String, Value>,
}

/// One row of an index.
#[derive(Debug)]
pub(super) struct Platform {
    /// The name of its directory.
    pub(super) name: String,
    /// As os/architecture/variant, where the index says it.
    pub(super) platform: Option<String>,
    pub(super) digest: String,
    pub(super) size: Option<u64>,
    pub(super) media_type: String,
    /// Whether the top of the image directory shows this one.
    pub(super) is_default: bool,
    /// The digest that this is an attestation about.
    pub(super) about: Option<String>,
}

/// The manifest that the top of the image directory shows.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) digest: String,
    pub(super) about: About,
    pub(super) config: Descriptor,
    pub(super) platform: Option<String>,
    pub(super) created: Option<String>,
    pub(super) layers: Vec<Layer>,
}

/// One layer.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Option<String>,
    pub(super) created_by: Option<String>,
}

impl Image {
    /// Reads the documents of the image directory `node` at `path`.
    ///
    /// # Errors
    /// If the directory cannot be listed; what is wrong in it is a problem instead.
    pub(super) fn of(source: &Source, path: &[u8], node: &dyn Node) -> anyhow::Result<Self> {
        let mut image = Self {
            path: path.to_vec(),
            ref_name: tree::oci_xattr(node, "ref"),
            digest: tree::oci_xattr(node, "digest"),
            media_type: tree::oci_xattr(node, "media-type"),
            size: tree::oci_xattr(node, "size"),
            annotations: entry_annotations(node),
            index: None,
            platforms: None,
            manifest: None,
            referrers: Referrer::list(node)?,
            problems: Vec::new(),
        };
        let descriptors = match node.find(b"index.json")? {
            Some(file) => image.index(&*file),
            None => entry_descriptors(source),
        };
        let manifest = node.find(b"manifest.json")?;
        if let Some(platforms) = node.find(b"platforms")? {
            let default = manifest
                .as_ref()
                .and_then(|file| tree::oci_xattr(&**file, "digest"));
            image.platforms = Some(list_platforms(&*platforms, &descriptors, default)?);
        }
        if let Some(file) = manifest
            && let Some(Document::Manifest(manifest)) = image.document("manifest.json", &*file)
        {
            let digest = tree::oci_xattr(&*file, "digest").unwrap_or_default();
            let config = node.find(b"config.json")?;
            image.manifest(source, digest, manifest, config.as_deref());
        }
        Ok(image)
    }

    /// Reads the image's own index, and gives its entries.
    fn index(&mut self, file: &dyn Node) -> Vec<Descriptor> {
        let Some(Document::Index(index)) = self.document("index.json", file) else {
            return Vec::new();
        };
        self.index = Some(About {
            artifact_type: index.artifact_type.as_ref().map(MediaType::to_string),
            subject: subject(index.subject.as_ref()),
            annotations: annotations(&index.annotations),
        });
        index.manifests
    }

    /// Reads a document of the directory; what is wrong with it is noted.
    fn document(&mut self, name: &str, file: &dyn Node) -> Option<Document> {
        let parse = |bytes: Vec<u8>| -> Result<Option<Document>, vfs::Error> {
            let media_type = tree::oci_xattr(file, "media-type").unwrap_or_default();
            let media_type = MediaType::new(&media_type);
            let document_type = DocumentType::of(&media_type);
            let document = document_type.map(|found| Document::parse(&bytes, found));
            Ok(document.transpose()?)
        };
        let document = tree::read(file).and_then(parse);
        document.unwrap_or_else(|error| {
            self.problems.push(Problem::new(name, &error));
            None
        })
    }

    fn manifest(
        &mut self,
        source: &Source,
        digest: String,
        manifest: ImageManifest,
        config_file: Option<&dyn Node>,
    ) {
        let config = config_file
            .filter(|_| manifest.is_image())
            .and_then(|file| self.config(file));
        self.check_layers(source, &manifest);
        let config = config.as_ref();
        let count = manifest.layers.len();
        let diff_ids = config
            .and_then(|config| config.diff_ids().ok())
            .filter(|diff_ids| diff_ids.len() == count);
        let layer = |(number, descriptor): (usize, Descriptor)| Layer {
            descriptor,
            diff_id: diff_ids.map(|diff_ids| diff_ids[number].to_string()),
            created_by: config
                .and_then(|config| config.step_of_layer(number, count)?.created_by.clone()),
        };
        self.manifest = Some(Manifest {
            digest,
            about: About {
                artifact_type: manifest.artifact_type.as_ref().map(MediaType::to_string),
                subject: subject(manifest.subject.as_ref()),
                annotations: annotations(&manifest.annotations),
            },
            config: manifest.config,
            platform: config
                .map(|config| &config.platform)
                .filter(|platform| !platform.os.is_empty() || !platform.architecture.is_empty())
                .map(ToString::to_string),
            created: config
                .and_then(|config| config.created)
                .map(|created| format::rfc3339(created.seconds)),
            layers: manifest.layers.into_iter().enumerate().map(layer).collect(),
        });
    }

    fn config(&mut self, file: &dyn Node) -> Option<ImageConfig> {
        let parse = |bytes: Vec<u8>| Ok(ImageConfig::parse(&bytes)?);
        let mut note = |error: &vfs::Error| {
            self.problems.push(Problem::new("config.json", error));
        };
        let config = tree::read(file)
            .and_then(parse)
            .inspect_err(&mut note)
            .ok()?;
        if let Err(error) = config.diff_ids() {
            note(&error.clone().into());
        }
        Some(config)
    }

    /// Looks for the blobs of the layers, without reading them.
    fn check_layers(&mut self, source: &Source, manifest: &ImageManifest) {
        for (number, layer) in manifest.layers.iter().enumerate() {
            // Some layers may not be distributed, and are absent by right.
            let absent = matches!(
                layer.media_type.kind(),
                Kind::Layer {
                    nondistributable: true,
                    ..
                }
            );
            if !absent {
                let of = format!("layer {number}");
                self.problems.extend(blob_problem(source, layer, &of));
            }
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "path": String::from_utf8_lossy(&self.path),
            "ref": self.ref_name,
            "digest": self.digest,
            "media_type": self.media_type,
            "size": self.size.as_ref().and_then(|size| size.parse::<u64>().ok()),
            "annotations": self.annotations,
            "index": self.index.as_ref().map(About::json),
            "platforms": self.platforms.as_ref().map(|platforms| {
                platforms.iter().map(Platform::json).collect::<Vec<_>>()
            }),
            "manifest": self.manifest.as_ref().map(Manifest::json),
            "referrers": self.referrers.iter().map(Referrer::json).collect::<Vec<_>>(),
        })
    }
}

impl About {
    fn json(&self) -> Value {
        json!({
            "artifact_type": self.artifact_type,
            "subject": self.subject,
            "annotations": self.annotations,
        })
    }
}

impl Platform {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "platform": self.platform,
            "digest": self.digest,
            "size": self.size,
            "media_type": self.media_type,
            "default": self.is_default,
            "attestation_of": self.about,
        })
    }
}

impl Manifest {
    /// How many bytes the layers have as they are stored.
    pub(super) fn stored(&self) -> u64 {
        let sizes = self.layers.iter().map(|layer| layer.descriptor.size);
        sizes.fold(0, u64::saturating_add)
    }

    fn json(&self) -> Value {
        let mut json = self.about.json();
        json["digest"] = json!(self.digest);
        json["config"] = descriptor(&self.config);
        json["platform"] = json!(self.platform);
        json["created"] = json!(self.created);
        json["layers_size"] = json!(self.stored());
        json["layers"] = self.layers.iter().enumerate().map(Layer::json).collect();
        json
    }
}

impl Layer {
    /// How the layer's media type says that it is compressed; none if it is no tar.
    pub(super) fn compression(&self) -> Option<&'static str> {
        match self.descriptor.media_type.kind() {
            Kind::Layer { compression, .. } => Some(match compression {
                LayerCompression::None => "none",
                LayerCompression::Gzip => "gzip",
                LayerCompression::Zstd => "zstd",
            }),
            _ => None,
        }
    }

    fn json((number, layer): (usize, &Self)) -> Value {
        let mut json = descriptor(&layer.descriptor);
        json["number"] = json!(number);
        json["compression"] = json!(layer.compression());
        json["diff_id"] = json!(layer.diff_id);
        json["created_by"] = json!(layer.created_by);
        json["annotations"] = Value::Object(annotations(&layer.descriptor.annotations));
        json
    }
}

fn descriptor(descriptor: &Descriptor) -> Value {
    json!({
        "digest": descriptor.digest.as_str(),
        "size": descriptor.size,
        "media_type": descriptor.media_type.as_str(),
    })
}

fn annotations(annotations: &Annotations) -> Map<String, Value> {
    let pair = |(key, value): (&str, &str)| (key.to_owned(), Value::from(value));
    annotations.iter().map(pair).collect()
}

/// The annotations of an index entry, from the attributes of its directory.
fn entry_annotations(node: &dyn Node) -> Map<String, Value> {
    let pair = |name: Vec<u8>| {
        let key = name.strip_prefix(b"user.oci.annotation.")?;
        let key = String::from_utf8_lossy(key).into_owned();
        let value = node.xattr(&name)?;
        Some((key, String::from_utf8_lossy(&value).into()))
    };
    node.xattr_names().into_iter().filter_map(pair).collect()
}

/// What the entries of the layout's own index point to.
fn entry_descriptors(source: &Source) -> Vec<Descriptor> {
    let snapshot = source.views.snapshot();
    let entries = snapshot.view().entries().iter();
    entries
        .filter_map(|entry| entry.descriptor.clone().ok())
        .collect()
}

fn subject(subject: Option<&Descriptor>) -> Option<String> {
    subject.map(|subject| subject.digest.to_string())
}

/// The rows of `platforms/`; `descriptors` say which platform each is for.
fn list_platforms(
    directory: &dyn Node,
    descriptors: &[Descriptor],
    default: Option<String>,
) -> Result<Vec<Platform>, vfs::Error> {
    let platform = |digest: &str| {
        let same = |descriptor: &&Descriptor| descriptor.digest.as_str() == digest;
        let mut platforms = descriptors
            .iter()
            .filter(same)
            .filter_map(|descriptor| descriptor.platform.as_ref());
        platforms.next().map(ToString::to_string)
    };
    let row = |child: vfs::Child| {
        let node = &*child.node;
        let digest = tree::oci_xattr(node, "digest").unwrap_or_default();
        Platform {
            name: String::from_utf8_lossy(&child.name).into_owned(),
            platform: platform(&digest),
            size: tree::oci_xattr(node, "size").and_then(|size| size.parse().ok()),
            media_type: tree::oci_xattr(node, "media-type").unwrap_or_default(),
            is_default: default.as_ref() == Some(&digest),
            about: tree::oci_xattr(node, ABOUT),
            digest,
        }
    };
    Ok(directory.list()?.into_iter().map(row).collect())
}
