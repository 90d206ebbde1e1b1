//! What a file is called in a layout: by its own name, unless it brings one.
//!
//! The rules, in order: a name that is a digest asks for a blob alone; one known extension
//! goes; `%XX` is decoded, once; no component of what is then between slashes may be
//! empty, `.` or `..`; what the grammar of ref names does not have becomes `-`.

use super::Error;
use crate::oci::{Descriptor, Digest, MediaType, RefName};

/// The extensions that are no part of a name, the longer before the shorter.
const EXTENSIONS: [&[u8]; 6] = [b".tar.gz", b".tar.zst", b".tar", b".tgz", b".oci", b".json"];

/// What becomes of a file, and under which name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// What it is to become.
    pub target: Target,
    /// The file's own name, with which an artifact is titled.
    pub title: String,
}

/// What a file is to become, as far as its name decides that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// What its content is, under this name if it brings none.
    Ref(RefName),
    /// A blob without an entry; the one with this digest, if the name is one.
    Blob(Option<Digest>),
    /// An artifact about something that the layout has, whatever its content is.
    Attached(Box<Attachment>),
}

/// What an artifact is about, and what kind of artifact it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The manifest or index that it is about.
    pub subject: Descriptor,
    /// Its type, and that of its only layer.
    pub artifact_type: MediaType,
}

impl Name {
    /// The name that a file of this name gets, the last component of its path.
    ///
    /// # Errors
    /// [`Error::Name`].
    pub fn of_file(name: &[u8]) -> Result<Self, Error> {
        let target = match digest(name) {
            Some(digest) => Target::Blob(Some(digest)),
            None => Target::Ref(ref_name(name)?),
        };
        Ok(Self {
            target,
            title: title(name),
        })
    }

    /// The name of a file that is to be a blob and no more, whatever it holds.
    #[must_use]
    pub fn of_blob(name: &[u8]) -> Self {
        Self {
            target: Target::Blob(digest(name)),
            title: title(name),
        }
    }

    /// The name of a file that is to be an artifact about something.
    #[must_use]
    pub fn attached(name: &[u8], attachment: Attachment) -> Self {
        Self {
            target: Target::Attached(Box::new(attachment)),
            title: title(name),
        }
    }

    /// A name that was chosen, for a file that is called `title`.
    #[must_use]
    pub fn chosen(name: RefName, title: &[u8]) -> Self {
        Self {
            target: Target::Ref(name),
            title: self::title(title),
        }
    }
}

fn title(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn digest(name: &[u8]) -> Option<Digest> {
    let digest: Digest = std::str::from_utf8(name).ok()?.parse().ok()?;
    // A tag such as `app:1` has the grammar of a digest, too.
    let is_hash = digest.algorithm() != crate::oci::Algorithm::Unknown
        || (digest.algorithm_name() == "blake3" && digest.encoded().len() == 64);
    is_hash.then_some(digest)
}

fn ref_name(name: &[u8]) -> Result<RefName, Error> {
    let invalid = |fault| Error::Name {
        name: title(name),
        fault,
    };
    let stem = EXTENSIONS.iter().find_map(|end| name.strip_suffix(*end));
    let decoded = decode(stem.unwrap_or(name)).ok_or_else(|| invalid("% needs two hex digits"))?;
    let mut components = Vec::new();
    for component in decoded.split(|byte| *byte == b'/') {
        if matches!(component, b"" | b"." | b"..") {
            return Err(invalid("a component is empty, . or .."));
        }
        let fitted = fit(component);
        if fitted.is_empty() {
            return Err(invalid("a component has no ASCII letter or digit"));
        }
        components.push(fitted);
    }
    let fitted = components.join("/").parse();
    fitted.map_err(|_| invalid("it is too long"))
}

/// Decodes each `%XX`; `None` if a `%` stands for itself.
fn decode(name: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let byte = digit(digits[0])? << 4 | digit(digits[1])?;
        decoded.push(u8::try_from(byte).ok()?);
        rest = behind;
    }
    Some(decoded)
}

/// What is nearest to `component` in the grammar of ref names. A sign joins letters and
/// digits there, so one at either end goes, and of several only one stays: the one of them
/// that the grammar has, else `-`.
fn fit(component: &[u8]) -> String {
    let mut fitted = String::with_capacity(component.len());
    let mut signs: Vec<u8> = Vec::new();
    for byte in component {
        if !byte.is_ascii_alphanumeric() {
            signs.push(*byte);
            continue;
        }
        if !fitted.is_empty() {
            fitted.push_str(join(&signs));
        }
        signs.clear();
        fitted.push(char::from(*byte));
    }
    fitted
}

/// What stands for a run of signs between letters or digits.
fn join(signs: &[u8]) -> &'static str {
    let known = |byte: &u8| match byte {
        b'-' => Some("-"),
        b'.' => Some("."),
        b'_' => Some("_"),
        b':' => Some(":"),
        b'@' => Some("@"),
        b'+' => Some("+"),
        _ => None,
    };
    let mut of_grammar = signs.iter().filter_map(known);
    match (signs, of_grammar.next(), of_grammar.next()) {
        ([], ..) => "",
        (b"--", ..) => "--",
        (_, Some(sign), None) => sign,
        _ => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        let long = "x".repeat(300);
        let rows: &[(&str, &[u8], Option<&str>)] = &[
            ("plain", b"app", Some("app")),
            ("tag", b"alpine:3.19", Some("alpine:3.19")),
            ("tar", b"app.tar", Some("app")),
            ("tar.gz", b"app-1.0.tar.gz", Some("app-1.0")),
            ("tgz", b"app.tgz", Some("app")),
            ("tar.zst", b"app.tar.zst", Some("app")),
            ("oci", b"app.oci", Some("app")),
            ("json", b"app.json", Some("app")),
            ("one extension only", b"app.oci.tar", Some("app.oci")),
            ("other extension", b"motd.txt", Some("motd.txt")),
            ("gz alone", b"motd.gz", Some("motd.gz")),
            (
                "level",
                b"ghcr.io%2Forg%2Fapp:1.tar",
                Some("ghcr.io/org/app:1"),
            ),
            ("lower-case hex", b"a%2fb", Some("a/b")),
            ("space", b"my file.txt", Some("my-file.txt")),
            (
                "signs at the end",
                b"my file (1).txt",
                Some("my-file-1.txt"),
            ),
            ("two dashes", b"a--b", Some("a--b")),
            ("three dashes", b"a---b", Some("a-b")),
            ("two dots", b"a..b", Some("a-b")),
            ("control", b"a\nb", Some("a-b")),
            ("no text", b"a\xff\xfeb", Some("a-b")),
            ("accents", "caf\u{e9}s".as_bytes(), Some("caf-s")),
            ("N7 decoded once", b"a%252fb", Some("a-2fb")),
            ("N7 NUL", b"a%00b", Some("a-b")),
            ("N7 whiteout", b".wh.x", Some("wh.x")),
            ("N7 300 bytes", long.as_bytes(), Some(&long)),
            ("N7 dot dot", b"..", None),
            ("N7 dot dot encoded", b"%2e%2e", None),
            ("N7 dot dot inside", b"a%2F..%2Fb", None),
            ("dot", b".", None),
            ("nothing", b"", None),
            ("extension alone", b".tar", None),
            ("dot before the extension", b"..tar", None),
            ("empty component", b"a%2F%2Fb", None),
            ("absolute", b"%2Fa", None),
            ("lone %", b"100%", None),
            ("% and one digit", b"a%2", None),
            ("% and letters", b"a%zzb", None),
            ("% and a sign", b"a%+1b", None),
            ("no letter", b"---", None),
            ("other script alone", "\u{65e5}\u{672c}".as_bytes(), None),
        ];
        for (name, file, expected) in rows {
            let found = Name::of_file(file).ok().map(|name| name.target);
            let expected = expected.map(|text| Target::Ref(text.parse().expect(name)));
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn names_that_are_digests_ask_for_blobs() {
        let (hex, long) = ("a".repeat(64), "b".repeat(128));
        let rows = [
            (format!("sha256:{hex}"), true),
            (format!("sha512:{long}"), true),
            (format!("blake3:{hex}"), true),
            (format!("sha256:{hex}.tar"), false),
            (format!("sha256:{}", hex.to_uppercase()), false),
            (format!("sha256:{}", &hex[1..]), false),
            (format!("app:{hex}"), false),
            (hex.clone(), false),
        ];
        for (file, expected) in rows {
            let name = Name::of_file(file.as_bytes()).expect("it is a name");
            let is_blob = matches!(name.target, Target::Blob(Some(_)));
            assert_eq!(is_blob, expected, "{file}");
        }
        assert_eq!(Name::of_blob(b"..").target, Target::Blob(None));
    }

    #[test]
    fn titles_are_the_names_of_the_files() {
        for (file, title) in [
            (&b"my file.txt"[..], "my file.txt"),
            (b"a%2Fb.tar", "a%2Fb.tar"),
            (b"a\xff", "a\u{fffd}"),
        ] {
            assert_eq!(Name::of_file(file).expect(title).title, title);
        }
    }
}
