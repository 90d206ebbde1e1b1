//! The members of a docker-archive: a layout, and the `manifest.json` of `docker save`, whose
//! paths lead to its blobs.

use serde_json::{Value, json};

use super::graph::{Foreign, Graph};
use super::oci::{self, Contents, Entries, blob_path};
use super::plan::Member;
use super::{Error, Names, Root};
use crate::oci::{Descriptor, ImageManifest};
use crate::store::BlobSource;

/// The longest tag, in characters.
///
/// Spec: distribution's reference grammar.
const MAX_TAG: usize = 128;

/// The longest name of a repository, in characters.
const MAX_REPOSITORY: usize = 255;

/// What an archive of `roots` holds: one image of each.
///
/// # Errors
/// [`Error::NoImage`], [`Error::NotAnImage`]; what is wrong with a document.
pub(super) fn contents(blobs: &dyn BlobSource, roots: &[Root]) -> Result<Contents, Error> {
    let mut graph = Graph::new(blobs, Foreign::Needed);
    let (mut entries, mut images) = (Entries::default(), Images::default());
    for root in roots {
        let descriptor = root.image.as_ref().ok_or(Error::NoImage)?;
        graph.enter(descriptor);
        entries.add(descriptor, &root.names);
        // What cannot be read is told when all was looked at.
        if let Some(document) = graph.read_document(descriptor) {
            images.add(descriptor, document.manifest(), &root.names)?;
        }
    }
    let mut contents = oci::layout_members(graph.finish()?, &entries);
    let manifest = Member::document(&images.manifest());
    contents
        .members
        .insert("manifest.json".to_owned(), manifest);
    Ok(contents)
}

/// The images of the archive, each once with all its tags.
#[derive(Debug, Default)]
struct Images(Vec<Image>);

#[derive(Debug)]
struct Image {
    config: String,
    layers: Vec<String>,
    tags: Vec<String>,
}

impl Images {
    fn add(
        &mut self,
        descriptor: &Descriptor,
        manifest: Option<&ImageManifest>,
        names: &Names,
    ) -> Result<(), Error> {
        let manifest = manifest.filter(|manifest| manifest.has_rootfs());
        let manifest = manifest.ok_or_else(|| Error::NotAnImage {
            digest: descriptor.digest.clone(),
        })?;
        let path = |descriptor: &Descriptor| blob_path(&descriptor.digest);
        let config = path(&manifest.config);
        let layers: Vec<String> = manifest.layers.iter().map(path).collect();
        let is_same = |image: &Image| image.config == config && image.layers == layers;
        let at = self.0.iter().position(is_same).unwrap_or(self.0.len());
        if at == self.0.len() {
            let tags = Vec::new();
            self.0.push(Image {
                config,
                layers,
                tags,
            });
        }
        let tags = &mut self.0[at].tags;
        tags.extend(tag(names).filter(|tag| !tags.contains(tag)));
        Ok(())
    }

    fn manifest(&self) -> Value {
        let image = |image: &Image| {
            json!({
                "Config": image.config,
                "RepoTags": image.tags,
                "Layers": image.layers,
            })
        };
        self.0.iter().map(image).collect()
    }
}

/// The name that docker gives the image: the first that it can read.
fn tag(names: &Names) -> Option<String> {
    let names = [&names.containerd_name, &names.ref_name];
    let mut names = names.into_iter().flatten();
    names.find(|name| is_tagged(name)).cloned()
}

/// Whether `name` has the form `[host[:port]/]repository:tag`.
///
/// Spec: distribution's reference grammar, and the rule that a first component with a dot, a
/// colon or an upper-case letter, or `localhost`, is a host.
fn is_tagged(name: &str) -> bool {
    let Some((repository, tag)) = name.rsplit_once(':') else {
        return false;
    };
    let host = repository.split_once('/').filter(|(first, _)| {
        let is_upper = |c: char| c.is_ascii_uppercase();
        first.contains(['.', ':']) || first.contains(is_upper) || *first == "localhost"
    });
    let path = host.map_or(repository, |(_, path)| path);
    repository.len() <= MAX_REPOSITORY
        && is_tag(tag)
        && host.is_none_or(|(host, _)| is_host(host))
        && path.split('/').all(is_component)
}

fn is_tag(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= MAX_TAG
        && text.starts_with(is_word)
        && text.chars().all(|c| is_word(c) || matches!(c, '.' | '-'))
}

/// A name of the domain name system, or an address, and perhaps a port.
fn is_host(text: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        let allowed = |b: u8| b.is_ascii_hexdigit() || b == b':';
        let is_address = !address.is_empty() && address.bytes().all(allowed);
        return is_address && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let is_label = |label: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !label.is_empty()
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.split('.').all(is_label) && port.is_none_or(is_port)
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_plain = |byte: Option<&u8>| byte.is_some_and(|byte| is_plain(*byte));
    let mut joints = bytes.split(|byte| is_plain(*byte));
    let is_joint = |joint: &[u8]| {
        matches!(joint, b"" | b"." | b"_" | b"__") || joint.iter().all(|byte| *byte == b'-')
    };
    ends_plain(bytes.first()) && ends_plain(bytes.last()) && joints.all(is_joint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_docker_can_read() {
        let long = "a".repeat(MAX_REPOSITORY);
        let rows: &[(&str, bool)] = &[
            ("app:1", true),
            ("docker.io/library/app:1.2", true),
            ("ghcr.io/org/app:v1_2-x", true),
            ("localhost/app:1", true),
            ("localhost:5000/app:1", true),
            ("Host/app:1", true),
            ("[::1]:5000/app:1", true),
            ("a__b/c--d/e.f:x", true),
            ("a-----b:x", true),
            (&format!("{long}:x"), true),
            (&format!("a:{}", "x".repeat(MAX_TAG)), true),
            ("app", false),
            ("1.0", false),
            ("localhost:5000/app", false),
            ("app:", false),
            (":1", false),
            ("App:1", false),
            ("a/App:1", false),
            ("a..b:1", false),
            ("a___b:1", false),
            ("a._b:1", false),
            ("-a:1", false),
            ("a-:1", false),
            ("a//b:1", false),
            ("/a:1", false),
            ("a b:1", false),
            ("app:.1", false),
            ("app:1@sha256:abc", false),
            ("ex_ample.com/a:1", false),
            ("host:port/a:1", false),
            ("[::1/a:1", false),
            ("[]/a:1", false),
            (&format!("a{long}:x"), false),
            (&format!("a:{}", "x".repeat(MAX_TAG + 1)), false),
        ];
        for (name, expected) in rows {
            assert_eq!(is_tagged(name), *expected, "{name}");
        }
    }

    #[test]
    fn the_first_name_that_can_be_read_counts() {
        let rows = [
            (
                Some("docker.io/library/app:1"),
                Some("1"),
                Some("docker.io/library/app:1"),
            ),
            (Some("docker.io/library/app"), Some("app:1"), Some("app:1")),
            (None, Some("app:1"), Some("app:1")),
            (None, Some("1.0"), None),
            (None, None, None),
        ];
        for (containerd_name, ref_name, expected) in rows {
            let names = Names {
                ref_name: ref_name.map(str::to_owned),
                containerd_name: containerd_name.map(str::to_owned),
            };
            assert_eq!(tag(&names).as_deref(), expected, "{names:?}");
        }
    }
}
