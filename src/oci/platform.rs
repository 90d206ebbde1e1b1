//! Platforms: what an image is made for, which one is chosen, how its directory is named.
//!
//! Names are those of Go (`amd64`, not `x86_64`); others are kept as they are.
//!
//! Spec: image-spec image-index.md, "platform" and "Platform Variants".

use std::cmp::{Ordering, Reverse};
use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use serde_json::{Value, json};

use super::digest::Digest;
use super::error::Error;
use super::fields::Fields;

/// The longest name of a directory entry in bytes, on every file system of Linux.
const NAME_MAX: usize = 255;

/// What an image is made for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Platform {
    /// Operating system, as Go's `GOOS`; empty where the document does not say.
    pub os: String,
    /// Processor architecture, as Go's `GOARCH`; empty where the document does not say.
    pub architecture: String,
    /// Variant of the architecture.
    pub variant: Option<String>,
    /// Version of the operating system.
    pub os_version: Option<String>,
    /// Features that the operating system must have.
    pub os_features: Vec<String>,
}

/// How well a platform fits the wanted one; the greater fits better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fit(Closeness);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Closeness {
    /// A variant that runs on the wanted one.
    Below(Level),
    /// The wanted variant.
    Exact,
}

/// A variant's number, `(8, 1)` for `v8.1`; `(0, 0)` where none is given.
type Level = (u32, u32);

impl Platform {
    /// A platform without variant.
    #[must_use]
    pub fn new(os: &str, architecture: &str) -> Self {
        Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            ..Self::default()
        }
    }

    /// The platform that this program runs on. Its variant is what this processor can do:
    /// it is for choosing among images, not for saying what one that is made here needs.
    #[must_use]
    pub fn host() -> Self {
        Self {
            variant: host_variant().map(str::to_owned),
            ..Self::new("linux", go_architecture(std::env::consts::ARCH))
        }
    }

    /// Reads the `platform` of a descriptor. Absent members are empty: a platform only
    /// says where to show an image.
    ///
    /// # Errors
    /// [`Error::NotAnObject`] and [`Error::FieldType`].
    pub fn from_json(value: &Value) -> Result<Self, Error> {
        let fields = Fields::of(value, "platform")?;
        let text =
            |field| -> Result<_, Error> { Ok(fields.find_string(field)?.map(str::to_owned)) };
        Ok(Self {
            os: text("os")?.unwrap_or_default(),
            architecture: text("architecture")?.unwrap_or_default(),
            variant: text("variant")?,
            os_version: text("os.version")?,
            os_features: fields.find_strings("os.features")?,
        })
    }

    /// The platform as the object in a descriptor; what is not said is left out.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = json!({});
        let texts = [
            ("architecture", Some(&self.architecture)),
            ("os", Some(&self.os)),
            ("os.version", self.os_version.as_ref()),
            ("variant", self.variant.as_ref()),
        ];
        for (key, text) in texts {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                object[key] = Value::from(text.as_str());
            }
        }
        if !self.os_features.is_empty() {
            object["os.features"] = json!(self.os_features);
        }
        object
    }

    /// The platform that a config names, where members of the wrong type count as absent.
    pub(super) fn of_config(config: &Value) -> Self {
        let find = |field| Some(config.get(field)?.as_str()?.to_owned());
        let features = config.get("os.features").and_then(Value::as_array);
        let texts = features.into_iter().flatten().filter_map(Value::as_str);
        Self {
            os: find("os").unwrap_or_default(),
            architecture: find("architecture").unwrap_or_default(),
            variant: find("variant"),
            os_version: find("os.version"),
            os_features: texts.map(str::to_owned).collect(),
        }
    }

    /// Whether it does not say for what the image is: BuildKit's `unknown/unknown`, or
    /// nothing at all.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        let unknown = |part: &str| part.is_empty() || part == "unknown";
        unknown(&self.os) || unknown(&self.architecture)
    }

    /// How well an image for this platform fits `wanted`, or `None` if it does not.
    ///
    /// Operating system and architecture must be equal. The same variant fits best, then
    /// the highest below; a variant that is not given is the architecture's first.
    #[must_use]
    pub fn fit(&self, wanted: &Self) -> Option<Fit> {
        if self.is_unknown() || self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        let (own, bound) = (self.effective_variant(), wanted.effective_variant());
        if own == bound {
            return Some(Fit(Closeness::Exact));
        }
        if own.is_empty() {
            return Some(Fit(Closeness::Below((0, 0))));
        }
        let ((own_family, own), (family, bound)) = (level(own)?, level(bound)?);
        match own.cmp(&bound) {
            Ordering::Equal if own_family == family => Some(Fit(Closeness::Exact)),
            Ordering::Less if own_family == family => Some(Fit(Closeness::Below(own))),
            _ => None,
        }
    }

    /// The variant, or the one that the architecture's name alone stands for.
    fn effective_variant(&self) -> &str {
        match (self.variant.as_deref(), self.architecture.as_str()) {
            (None | Some(""), "amd64") => "v1",
            (None | Some(""), "arm64") => "v8",
            // What images for "arm" are made for in practice, and what containerd assumes.
            (None | Some(""), "arm") => "v7",
            (variant, _) => variant.unwrap_or_default(),
        }
    }

    /// The name of the platform's directory: `os-architecture[-variant][-os.version]`.
    ///
    /// It is safe as one component of a path. Two platforms can have one name (the parts
    /// may hold `-`, and features of the operating system are not in it).
    #[must_use]
    pub fn directory_name(&self) -> String {
        let mut raw = format!("{}-{}", self.os, self.architecture);
        for part in [&self.variant, &self.os_version].into_iter().flatten() {
            if !part.is_empty() {
                raw.push('-');
                raw.push_str(part);
            }
        }
        let name = escape(&raw);
        if name.len() <= NAME_MAX {
            return name;
        }
        // As long ref names are shortened: a beginning, and a hash of all.
        let hash = Digest::of(raw.as_bytes());
        let mut end = NAME_MAX - 17;
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        format!("{}~{}", &name[..end], &hash.encoded()[..16])
    }
}

/// The number of the entry that an index stands for on `wanted`: of those that fit best,
/// the first. Entries are given as their platform and whether they are attestations
/// ([`Descriptor::is_attestation`](super::Descriptor::is_attestation)), those of nested
/// indexes in their index's place.
///
/// Spec: image-spec image-index.md, "platform" (the first that matches).
pub fn choose<'p, I>(wanted: &Platform, entries: I) -> Option<usize>
where
    I: IntoIterator<Item = (Option<&'p Platform>, bool)>,
{
    let fit = |(number, (platform, is_attestation)): (usize, (Option<&Platform>, bool))| {
        let fit = platform.filter(|_| !is_attestation)?.fit(wanted)?;
        Some((fit, Reverse(number)))
    };
    let best = entries.into_iter().enumerate().filter_map(fit).max()?;
    Some(best.1.0)
}

/// Reads `os/architecture` or `os/architecture/variant`, as people write it: `x86_64` and
/// `aarch64` are understood.
impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match *parts.as_slice() {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => ("", "", None),
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let is_word = |part: &&str| !part.is_empty() && part.bytes().all(allowed);
        if os.is_empty() || !parts.iter().all(is_word) {
            return Err(Error::PlatformText {
                text: text.chars().take(80).collect(),
            });
        }
        Ok(Self {
            variant: variant.map(str::to_owned),
            ..Self::new(os, go_architecture(architecture))
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// Writes what may not stand in a file name, or would disturb a terminal, as `%XX`: bytes
/// below 0x20, 0x7F, `/`, and `%` itself; a dot at the beginning too.
fn escape(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for (position, character) in text.char_indices() {
        match character {
            '\0'..='\x1F' | '\x7F' | '/' | '%' => {
                write!(name, "%{:02X}", u32::from(character))
                    .expect("writing to a string cannot fail");
            }
            '.' if position == 0 => name.push_str("%2E"),
            _ => name.push(character),
        }
    }
    name
}

/// Splits a variant into its family and its number: `v8.1` into `v` and `(8, 1)`, a bare
/// `8` into `v` and `(8, 0)`, `rva23u64` into `rva` and `(23, 0)`.
fn level(variant: &str) -> Option<(&str, Level)> {
    let start = variant.find(|c: char| c.is_ascii_digit())?;
    let (family, numbers) = variant.split_at(start);
    let digits = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit());
        text[..end.unwrap_or(text.len())].parse().ok()
    };
    let minor = numbers.split_once('.').and_then(|(_, minor)| digits(minor));
    let family = if family.is_empty() { "v" } else { family };
    Some((family, (digits(numbers)?, minor.unwrap_or(0))))
}

/// Go's name of an architecture that others name differently.
fn go_architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "loongarch64" => "loong64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        other => other,
    }
}

/// The host's x86-64 level, after the processor supplement of the System V ABI.
#[cfg(target_arch = "x86_64")]
fn host_variant() -> Option<&'static str> {
    use std::arch::is_x86_feature_detected as has;
    let v2 = has!("sse3")
        && has!("ssse3")
        && has!("sse4.1")
        && has!("sse4.2")
        && has!("popcnt")
        && has!("cmpxchg16b");
    let v3 = v2
        && has!("avx")
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("f16c")
        && has!("fma")
        && has!("lzcnt")
        && has!("movbe");
    let v4 = v3
        && has!("avx512f")
        && has!("avx512bw")
        && has!("avx512cd")
        && has!("avx512dq")
        && has!("avx512vl");
    Some(match (v2, v3, v4) {
        (_, _, true) => "v4",
        (_, true, _) => "v3",
        (true, _, _) => "v2",
        _ => "v1",
    })
}

/// The host's variant where the architecture's name or the compiler's target fixes it.
#[cfg(not(target_arch = "x86_64"))]
fn host_variant() -> Option<&'static str> {
    match std::env::consts::ARCH {
        "aarch64" => Some("v8"),
        "arm" if cfg!(target_feature = "v7") => Some("v7"),
        "arm" => Some("v6"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
