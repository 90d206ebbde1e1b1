//! Content digests: the grammar, the algorithms, and hashing.
//!
//! A [`Digest`] is text of the form `algorithm:encoded`. Any algorithm that fits the
//! grammar is accepted as a value, so that foreign entries can be listed; only the
//! registered ones ([`Algorithm::Sha256`], [`Algorithm::Sha512`]) can be computed, and
//! their encoded part must have the exact length in lower-case hexadecimal.
//!
//! A digest that parsed is safe to use as one path component for each half: neither
//! half can hold a `/`, a NUL, or be `.` or `..`.
//!
//! Spec: image-spec descriptor.md, "Digests" and "Registered Algorithms".

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

/// The longest digest text that is accepted, in bytes. SHA-512 needs 135; the room above
/// is for algorithms to come, and both halves must stay below a file name's 255.
const MAX_LEN: usize = 255;

/// What is wrong with a text that should be a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text does not fit the grammar `algorithm ":" encoded`.
    #[error("digest {text:?} does not have the form algorithm:encoded")]
    Grammar {
        /// The text, cut to a readable length.
        text: String,
    },
    /// A registered algorithm with an encoded part of the wrong length or alphabet.
    #[error("digest {text:?} needs {expected} lower-case hexadecimal digits")]
    Encoded {
        /// The text, cut to a readable length.
        text: String,
        /// How many hexadecimal digits the algorithm has.
        expected: usize,
    },
}

/// A digest algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// SHA-256, 64 hexadecimal digits.
    Sha256,
    /// SHA-512, 128 hexadecimal digits.
    Sha512,
    /// One that fits the grammar and cannot be computed here.
    Unknown,
}

impl Algorithm {
    fn of_name(name: &str) -> Self {
        match name {
            "sha256" => Self::Sha256,
            "sha512" => Self::Sha512,
            _ => Self::Unknown,
        }
    }

    /// Length of the encoded part in bytes, where the algorithm fixes it.
    const fn encoded_len(self) -> Option<usize> {
        match self {
            Self::Sha256 => Some(64),
            Self::Sha512 => Some(128),
            Self::Unknown => None,
        }
    }
}

/// The digest of stored bytes, as `algorithm:encoded`.
///
/// Spec: image-spec descriptor.md, "Digests".
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    text: Box<str>,
    colon: u8,
}

impl Digest {
    /// Computes the SHA-256 digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::sha256();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm; [`Algorithm::Unknown`] where the content cannot be verified.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        Algorithm::of_name(self.algorithm_name())
    }

    /// The text before the colon.
    #[must_use]
    pub fn algorithm_name(&self) -> &str {
        &self.text[..usize::from(self.colon)]
    }

    /// The text after the colon.
    #[must_use]
    pub fn encoded(&self) -> &str {
        &self.text[usize::from(self.colon) + 1..]
    }

    /// The whole text, `algorithm:encoded`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let grammar = || Error::Grammar {
            text: shorten(text),
        };
        let (algorithm, encoded) = text.split_once(':').ok_or_else(grammar)?;
        if text.len() > MAX_LEN || !is_algorithm(algorithm) || !is_encoded(encoded) {
            return Err(grammar());
        }
        if let Some(expected) = Algorithm::of_name(algorithm).encoded_len() {
            let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            if encoded.len() != expected || !encoded.bytes().all(hex) {
                return Err(Error::Encoded {
                    text: shorten(text),
                    expected,
                });
            }
        }
        let colon = u8::try_from(algorithm.len()).map_err(|_| grammar())?;
        Ok(Self {
            text: text.into(),
            colon,
        })
    }
}

/// `[a-z0-9]+` parts joined by one of `+ . _ -`.
fn is_algorithm(text: &str) -> bool {
    text.split(['+', '.', '_', '-']).all(|part| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    })
}

/// `[a-zA-Z0-9=_-]+`.
fn is_encoded(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-');
    !text.is_empty() && text.bytes().all(allowed)
}

/// Cuts foreign text to a length that fits a log line.
fn shorten(text: &str) -> String {
    text.chars().take(160).collect()
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The digest of an uncompressed layer tar.
///
/// Spec: image-spec config.md, "Layer DiffID".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiffId(pub Digest);

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A running computation of a [`Digest`].
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hasher for `algorithm`, or `None` where it cannot be computed.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Option<Self> {
        match algorithm {
            Algorithm::Sha256 => Some(Self::sha256()),
            Algorithm::Sha512 => Some(Self(State::Sha512(sha2::Sha512::new()))),
            Algorithm::Unknown => None,
        }
    }

    /// A hasher for SHA-256, the algorithm of everything that is written here.
    #[must_use]
    pub fn sha256() -> Self {
        Self(State::Sha256(sha2::Sha256::new()))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of all bytes added.
    #[must_use]
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => from_hash("sha256", &state.finalize()),
            State::Sha512(state) => from_hash("sha512", &state.finalize()),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

fn from_hash(algorithm: &'static str, hash: &[u8]) -> Digest {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(algorithm.len() + 1 + hash.len() * 2);
    text.push_str(algorithm);
    text.push(':');
    for byte in hash {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    let colon = u8::try_from(algorithm.len()).expect("algorithm names are short");
    Digest {
        text: text.into(),
        colon,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        let hex = "a".repeat(64);
        let rows: &[(&str, String, bool)] = &[
            ("sha256", format!("sha256:{hex}"), true),
            ("sha512", format!("sha512:{hex}{hex}"), true),
            ("blake3", format!("blake3:{hex}"), true),
            ("unknown algorithm", "sha256+b64:LCa0a2j_xo=".into(), true),
            ("63 digits", format!("sha256:{}", &hex[1..]), false),
            ("65 digits", format!("sha256:{hex}a"), false),
            (
                "upper-case digits",
                format!("sha256:{}", hex.to_uppercase()),
                false,
            ),
            ("upper-case algorithm", format!("SHA256:{hex}"), false),
            ("no colon", hex.clone(), false),
            ("empty", String::new(), false),
            ("empty encoded", "sha256:".into(), false),
            ("empty algorithm", format!(":{hex}"), false),
            ("NUL", format!("sha256:{}\0", &hex[1..]), false),
            ("climbing", "sha256:../../../../etc/passwd".into(), false),
            (
                "climbing, unknown algorithm",
                "x:../../../../etc/passwd".into(),
                false,
            ),
            ("dots", "..:..".into(), false),
            ("two colons", format!("sha256:{hex}:x"), false),
            ("joined by two", "a++b:c".into(), false),
            ("too long", format!("x:{}", "a".repeat(255)), false),
        ];
        for (name, text, ok) in rows {
            assert_eq!(text.parse::<Digest>().is_ok(), *ok, "{name}");
        }
    }

    #[test]
    fn well_known_digests() {
        assert_eq!(
            Digest::of(b"{}").as_str(),
            "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
        let mut hasher = Hasher::new(Algorithm::Sha512).expect("sha512 is known");
        hasher.update(b"abc");
        assert!(
            hasher
                .finish()
                .encoded()
                .starts_with("ddaf35a193617abacc417349ae204131")
        );
    }
}
