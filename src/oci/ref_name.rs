//! Ref names: what an entry of a layout's `index.json` may be called.
//!
//! A [`RefName`] is a name that we give. Names that others gave are kept as plain strings,
//! since the grammar is only a recommendation to writers.
//!
//! Spec: image-spec annotations.md, `org.opencontainers.image.ref.name`.

use std::fmt;
use std::str::FromStr;

use super::Error;
use super::limits::Limit;

/// A ref name that fits the grammar of the specification.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName(Box<str>);

impl RefName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RefName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Limit::RefName.check(text.len() as u64)?;
        if !text.split('/').all(is_component) {
            return Err(Error::RefName {
                name: text.chars().take(160).collect(),
            });
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Letters and digits, joined by one of `- . _ : @ +` or by `--`.
fn is_component(text: &str) -> bool {
    // Since three dashes are refused, a pair of them joins just as a single one does.
    let single = text.replace("--", "-");
    !text.contains("---")
        && single
            .split(['-', '.', '_', ':', '@', '+'])
            .all(|run| !run.is_empty() && run.bytes().all(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        let rows = [
            ("1.0", true),
            ("stable", true),
            ("alpine:3.19", true),
            ("ghcr.io/org/app:1.2@sha256:abc", true),
            ("a--b", true),
            ("a--b--c", true),
            ("A+b_C", true),
            ("", false),
            ("/", false),
            ("a/", false),
            ("/a", false),
            ("a//b", false),
            (".", false),
            ("..", false),
            ("a..b", false),
            (".a", false),
            ("a.", false),
            ("-a", false),
            ("a---b", false),
            ("a----b", false),
            ("a--", false),
            ("a-.b", false),
            ("a--.b", false),
            ("a b", false),
            ("a\nb", false),
            ("é", false),
            ("a%2Fb", false),
        ];
        for (text, ok) in rows {
            assert_eq!(text.parse::<RefName>().is_ok(), ok, "{text:?}");
        }
    }

    #[test]
    fn length() {
        assert!("a".repeat(4_096).parse::<RefName>().is_ok());
        let error = "a"
            .repeat(4_097)
            .parse::<RefName>()
            .expect_err("it is wrong");
        assert_eq!(error.code(), "LIMIT_REF_NAME");
    }
}
