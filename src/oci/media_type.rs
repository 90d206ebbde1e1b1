//! Media types: the exact text, and what it stands for.
//!
//! A [`MediaType`] keeps the text of the document, and two are equal if their texts are.
//! What it stands for ([`MediaType::kind`]) is decided without its parameters and without
//! regard to case, since RFC 2045 section 5.1 gives case no meaning. Anything may be in
//! the text: an unknown media type is never an error.
//!
//! Spec: image-spec media-types.md; Docker's "Image Manifest V 2, Schema 2".

use std::borrow::Cow;
use std::fmt;

use self::Kind::{Config, Empty, ImageIndex, ImageManifest, Schema1Manifest};
use self::LayerCompression::{Gzip, None as Plain, Zstd};

/// A media type, as it was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaType(Cow<'static, str>);

/// How a layer's tar is compressed, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerCompression {
    /// A plain tar.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// What a media type stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An image index, or Docker's manifest list.
    ImageIndex,
    /// An image manifest, or Docker's of schema 2.
    ImageManifest,
    /// Docker's manifest of schema 1, which is not supported.
    Schema1Manifest,
    /// An image config, OCI's or Docker's.
    Config,
    /// A layer that is a tar.
    Layer {
        /// How it is compressed.
        compression: LayerCompression,
        /// Whether it was marked as not to be distributed (Docker: foreign).
        nondistributable: bool,
    },
    /// Anything that is encrypted.
    Encrypted,
    /// The placeholder with the content `{}`.
    Empty,
    /// Anything else.
    Unknown,
}

/// The media types that are known by name.
const KNOWN: &[(&str, Kind)] = &[
    ("application/vnd.oci.image.index.v1+json", ImageIndex),
    ("application/vnd.oci.image.manifest.v1+json", ImageManifest),
    ("application/vnd.oci.image.config.v1+json", Config),
    ("application/vnd.oci.empty.v1+json", Empty),
    ("application/vnd.oci.image.layer.v1.tar", layer(Plain)),
    ("application/vnd.oci.image.layer.v1.tar+gzip", layer(Gzip)),
    ("application/vnd.oci.image.layer.v1.tar+zstd", layer(Zstd)),
    (
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        nondistributable(Plain),
    ),
    (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        nondistributable(Gzip),
    ),
    (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        nondistributable(Zstd),
    ),
    (
        "application/vnd.docker.distribution.manifest.list.v2+json",
        ImageIndex,
    ),
    (
        "application/vnd.docker.distribution.manifest.v2+json",
        ImageManifest,
    ),
    (
        "application/vnd.docker.distribution.manifest.v1+json",
        Schema1Manifest,
    ),
    (
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        Schema1Manifest,
    ),
    ("application/vnd.docker.container.image.v1+json", Config),
    ("application/vnd.docker.image.rootfs.diff.tar", layer(Plain)),
    (
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        layer(Gzip),
    ),
    (
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        layer(Zstd),
    ),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        nondistributable(Plain),
    ),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        nondistributable(Gzip),
    ),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd",
        nondistributable(Zstd),
    ),
];

const fn layer(compression: LayerCompression) -> Kind {
    Kind::Layer {
        compression,
        nondistributable: false,
    }
}

const fn nondistributable(compression: LayerCompression) -> Kind {
    Kind::Layer {
        compression,
        nondistributable: true,
    }
}

/// File extensions of whole media types that are met as layers of artifacts.
const EXTENSIONS: &[(&str, &str)] = &[
    ("application/gzip", ".gz"),
    ("application/java-archive", ".jar"),
    ("application/javascript", ".js"),
    ("application/json", ".json"),
    ("application/pdf", ".pdf"),
    ("application/sql", ".sql"),
    ("application/toml", ".toml"),
    ("application/wasm", ".wasm"),
    ("application/x-gzip", ".gz"),
    ("application/x-tar", ".tar"),
    ("application/x-yaml", ".yaml"),
    ("application/xml", ".xml"),
    ("application/yaml", ".yaml"),
    ("application/zip", ".zip"),
    ("application/zstd", ".zst"),
    ("image/gif", ".gif"),
    ("image/jpeg", ".jpg"),
    ("image/png", ".png"),
    ("image/svg+xml", ".svg"),
    ("text/css", ".css"),
    ("text/csv", ".csv"),
    ("text/html", ".html"),
    ("text/javascript", ".js"),
    ("text/markdown", ".md"),
    ("text/x-yaml", ".yaml"),
    ("text/xml", ".xml"),
    ("text/yaml", ".yaml"),
];

/// File extensions of the last part of a media type, behind `+` or `.`. Part of them are
/// the structured syntax suffixes of RFC 6838 section 4.2.8.
const SUFFIXES: &[(&str, &str)] = &[
    ("cbor", ".cbor"),
    ("json", ".json"),
    ("tar", ".tar"),
    ("tgz", ".tar.gz"),
    ("wasm", ".wasm"),
    ("xml", ".xml"),
    ("yaml", ".yaml"),
    ("zip", ".zip"),
];

/// File extensions of compressions, put behind that of what is compressed.
const COMPRESSIONS: &[(&str, &str)] = &[
    ("bzip2", ".bz2"),
    ("encrypted", ".encrypted"),
    ("gzip", ".gz"),
    ("xz", ".xz"),
    ("zstd", ".zst"),
];

impl MediaType {
    /// An OCI image index.
    pub const IMAGE_INDEX: Self = Self(Cow::Borrowed("application/vnd.oci.image.index.v1+json"));
    /// An OCI image manifest.
    pub const IMAGE_MANIFEST: Self =
        Self(Cow::Borrowed("application/vnd.oci.image.manifest.v1+json"));
    /// An OCI image config.
    pub const IMAGE_CONFIG: Self = Self(Cow::Borrowed("application/vnd.oci.image.config.v1+json"));
    /// The placeholder with the content `{}`.
    pub const EMPTY: Self = Self(Cow::Borrowed("application/vnd.oci.empty.v1+json"));

    /// Takes any text as a media type.
    #[must_use]
    pub fn new(text: &str) -> Self {
        // Most are one of the known ones, and an index may have 100,000 of them.
        match KNOWN.iter().find(|(known, _)| *known == text) {
            Some((known, _)) => Self(Cow::Borrowed(known)),
            None => Self(Cow::Owned(text.to_owned())),
        }
    }

    /// The media type of layers that are written here.
    #[must_use]
    pub const fn layer(compression: LayerCompression) -> Self {
        Self(Cow::Borrowed(match compression {
            Plain => "application/vnd.oci.image.layer.v1.tar",
            Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }))
    }

    /// The exact text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text without parameters: what is before the first `;`, without space around.
    #[must_use]
    pub fn essence(&self) -> &str {
        let end = self.0.find(';').unwrap_or(self.0.len());
        self.0[..end].trim_ascii()
    }

    /// Whether both name the same type: parameters and case aside.
    #[must_use]
    pub fn is_same_type(&self, other: &Self) -> bool {
        self.essence().eq_ignore_ascii_case(other.essence())
    }

    /// Whether the text is one that may be written: a type and a subtype, each of up to 127
    /// letters, digits and some signs, beginning with a letter or digit; no parameters.
    ///
    /// Spec: image-spec media-types.md; RFC 6838 section 4.2.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let is_sign = |byte: u8| b"!#$&-^_.+".contains(&byte);
        let is_name = |name: &str| {
            name.len() <= 127
                && name.starts_with(|first: char| first.is_ascii_alphanumeric())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || is_sign(b))
        };
        let parts = self.0.split_once('/');
        parts.is_some_and(|(top, sub)| is_name(top) && is_name(sub))
    }

    /// What the media type stands for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let essence = self.essence();
        let known =
            |(text, kind): &(&str, Kind)| essence.eq_ignore_ascii_case(text).then_some(*kind);
        if let Some(kind) = KNOWN.iter().find_map(known) {
            return kind;
        }
        let last = essence.rsplit('+').next().unwrap_or_default();
        if last.eq_ignore_ascii_case("encrypted") && last.len() < essence.len() {
            return Kind::Encrypted;
        }
        Kind::Unknown
    }

    /// Whether it is an encrypted layer, which can only be shown as it is stored.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.kind() == Kind::Encrypted
    }

    /// The extension that a file with the stored bytes gets, with its dot; `.bin` where
    /// the media type does not say.
    #[must_use]
    pub fn extension(&self) -> String {
        let essence = self.essence().to_ascii_lowercase();
        let find = |table: &[(&str, &'static str)], text: &str| {
            let entry = table.iter().find(|(known, _)| *known == text);
            entry.map(|(_, extension)| *extension)
        };
        if let Some(extension) = find(EXTENSIONS, &essence) {
            return extension.to_owned();
        }
        let (top, mut rest) = essence.split_once('/').unwrap_or_default();
        // Compressions are peeled off from the end until the compressed type is reached.
        let mut behind = String::new();
        while let Some((before, last)) = rest.rsplit_once(['+', '.']) {
            let Some(extension) = find(COMPRESSIONS, last) else {
                break;
            };
            behind.insert_str(0, extension);
            rest = before;
        }
        let last = rest.rsplit(['+', '.']).next().unwrap_or_default();
        match find(SUFFIXES, last) {
            Some(extension) => extension.to_owned() + &behind,
            None if !behind.is_empty() => behind,
            None if top == "text" => ".txt".to_owned(),
            None => ".bin".to_owned(),
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It is foreign text: what a terminal would act upon is escaped.
        self.0.escape_debug().fmt(f)
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let rows = [
            ("application/vnd.oci.image.index.v1+json", ImageIndex),
            ("application/vnd.oci.image.index.v1+json; a=b", ImageIndex),
            ("Application/vnd.OCI.image.Index.v1+json", ImageIndex),
            (
                "application/vnd.docker.distribution.manifest.list.v2+json",
                ImageIndex,
            ),
            (
                "application/vnd.docker.distribution.manifest.v2+json",
                ImageManifest,
            ),
            (
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
                Schema1Manifest,
            ),
            ("application/vnd.docker.container.image.v1+json", Config),
            (
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                layer(Gzip),
            ),
            (
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                nondistributable(Gzip),
            ),
            ("application/vnd.oci.image.layer.v1.tar+zstd", layer(Zstd)),
            (
                "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
                Kind::Encrypted,
            ),
            ("encrypted", Kind::Unknown),
            ("application/vnd.oci.empty.v1+json", Empty),
            ("application/vnd.oci.image.index.v1+jsonx", Kind::Unknown),
            ("", Kind::Unknown),
            (";", Kind::Unknown),
        ];
        for (text, kind) in rows {
            assert_eq!(MediaType::new(text).kind(), kind, "{text}");
            assert_eq!(MediaType::new(text).as_str(), text);
        }
    }

    #[test]
    fn the_layers_that_are_written_are_known() {
        for compression in [Plain, Gzip, Zstd] {
            assert_eq!(MediaType::layer(compression).kind(), layer(compression));
        }
    }

    #[test]
    fn extensions() {
        let rows = [
            (
                "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
                ".tar.gz",
            ),
            ("application/vnd.oci.image.layer.v1.tar", ".tar"),
            ("application/vnd.oci.image.layer.v1.tar+zstd", ".tar.zst"),
            (
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                ".tar.gz",
            ),
            (
                "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
                ".tar.gz.encrypted",
            ),
            ("application/wasm", ".wasm"),
            ("application/vnd.wasm.content.layer.v1+wasm", ".wasm"),
            ("Application/WASM", ".wasm"),
            ("application/spdx+json", ".json"),
            ("application/vnd.in-toto+json; charset=utf-8", ".json"),
            ("application/json", ".json"),
            ("application/vnd.acme.rocket.tgz", ".tar.gz"),
            ("application/vnd.acme.thing+gzip", ".gz"),
            ("application/vnd.cyclonedx+xml", ".xml"),
            ("text/plain", ".txt"),
            ("text/plain;charset=utf-8", ".txt"),
            ("text/html", ".html"),
            ("text/x-rst", ".txt"),
            ("image/svg+xml", ".svg"),
            ("application/octet-stream", ".bin"),
            ("application/../../etc/passwd", ".bin"),
            ("application/", ".bin"),
            ("+gzip", ".bin"),
            ("", ".bin"),
        ];
        for (text, extension) in rows {
            assert_eq!(MediaType::new(text).extension(), extension, "{text}");
        }
    }

    #[test]
    fn grammar() {
        let long = |len| format!("a/{}", "b".repeat(len));
        let rows = [
            ("application/spdx+json", true),
            ("application/vnd.cncf.helm.config.v1+json", true),
            ("text/plain", true),
            ("x/0!#$&-^_.+", true),
            (&long(127), true),
            (&long(128), false),
            ("application/spdx+json; charset=utf-8", false),
            ("application/a/b", false),
            ("application", false),
            ("application/", false),
            ("/json", false),
            ("application/.json", false),
            ("application/a b", false),
            ("application/\u{e9}", false),
            ("..", false),
            ("", false),
        ];
        for (text, expected) in rows {
            assert_eq!(MediaType::new(text).is_well_formed(), expected, "{text:?}");
        }
    }

    #[test]
    fn terminals_are_safe_from_messages() {
        let text = MediaType::new("a/\u{1b}[2J").to_string();
        assert_eq!(text, "a/\\u{1b}[2J");
    }
}
