//! What people call images of Docker.
//!
//! Docker writes names in their short form: without `docker.io/`, without `library/`
//! before a name of one part, and with a tag or a digest (`alpine:3.19`,
//! `ghcr.io/org/app:1`, `alpine@sha256:…`). So they are looked up.

/// What is taken for a name when there is no tag.
const LATEST: &str = "latest";

/// How many hexadecimal digits an id has.
const ID_LEN: usize = 64;

/// A name in Docker's short form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// As `repositories.json` has it.
    pub(super) text: String,
    /// Whether it ends in a digest; else it ends in a tag.
    pub(super) has_digest: bool,
}

/// The short form of a name, with the tag `latest` if it has none. A tag before a digest
/// says nothing.
pub(super) fn reference(name: &str) -> Reference {
    let (name, digest) = match name.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (name, None),
    };
    let (repository, tag) = split_tag(name);
    let repository = familiar(repository);
    match digest {
        Some(digest) => Reference {
            text: format!("{repository}@{digest}"),
            has_digest: true,
        },
        None => Reference {
            text: format!("{repository}:{}", tag.unwrap_or(LATEST)),
            has_digest: false,
        },
    }
}

/// A colon before a slash is the one of a port.
fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    }
}

fn familiar(repository: &str) -> String {
    let path = match repository.split_once('/') {
        Some(("docker.io" | "index.docker.io", path)) => path,
        Some((host, _)) if is_host(host) => return repository.to_owned(),
        _ => repository,
    };
    match path.split_once('/') {
        Some(("library", name)) if !name.contains('/') => name.to_owned(),
        _ => path.to_owned(),
    }
}

/// Whether the first part of a name is a registry.
fn is_host(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':'])
}

/// The hexadecimal digits of an id, or the first of them.
pub(super) fn id_digits(name: &str) -> Option<&str> {
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    ((1..=ID_LEN).contains(&digits.len()) && digits.bytes().all(is_digit)).then_some(digits)
}

/// Whether these are all digits of an id.
pub(super) fn is_whole_id(digits: &str) -> bool {
    digits.len() == ID_LEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_docker_writes_them() {
        let rows = [
            ("short", "alpine", "alpine:latest"),
            ("tag", "alpine:3.19", "alpine:3.19"),
            ("official", "library/alpine:3", "alpine:3"),
            ("long", "docker.io/library/alpine:3", "alpine:3"),
            (
                "older long",
                "index.docker.io/library/alpine",
                "alpine:latest",
            ),
            ("long without library", "docker.io/alpine", "alpine:latest"),
            ("user", "docker.io/org/app:1", "org/app:1"),
            ("user, short", "org/app:1", "org/app:1"),
            ("library has parts", "library/a/b:1", "library/a/b:1"),
            ("registry", "ghcr.io/org/app:1", "ghcr.io/org/app:1"),
            (
                "library of another",
                "ghcr.io/library/app:1",
                "ghcr.io/library/app:1",
            ),
            ("port", "localhost:5000/x/y", "localhost:5000/x/y:latest"),
            ("port and tag", "r:5000/x:2", "r:5000/x:2"),
            (
                "localhost",
                "localhost/library/x:1",
                "localhost/library/x:1",
            ),
            ("digest", "alpine@sha256:ab", "alpine@sha256:ab"),
            (
                "long, digest",
                "docker.io/library/alpine@sha256:ab",
                "alpine@sha256:ab",
            ),
            ("tag and digest", "alpine:3@sha256:ab", "alpine@sha256:ab"),
            ("nothing", "", ":latest"),
            ("slashes", "//", "//:latest"),
        ];
        for (name, given, expected) in rows {
            let found = reference(given);
            assert_eq!(found.text, expected, "{name}");
            assert_eq!(found.has_digest, expected.contains('@'), "{name}");
        }
    }

    #[test]
    fn ids_and_their_beginnings() {
        let whole = "a".repeat(64);
        let rows = [
            ("0af", Some("0af"), false),
            ("sha256:0af", Some("0af"), false),
            (&*whole, Some(&*whole), true),
            ("", None, false),
            ("sha256:", None, false),
            ("0AF", None, false),
            ("app", None, false),
            ("../0af", None, false),
            (&*"a".repeat(65), None, false),
        ];
        for (given, expected, is_whole) in rows {
            assert_eq!(id_digits(given), expected, "{given}");
            assert_eq!(expected.is_some_and(is_whole_id), is_whole, "{given}");
        }
    }
}
