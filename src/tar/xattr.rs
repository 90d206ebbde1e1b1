//! Extended attributes out of pax records.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::acl;
use super::entry::Xattr;
use super::pax::{Pax, XattrForm, XattrRecord};

/// The longest name of an extended attribute, in bytes: `XATTR_NAME_MAX` of Linux.
const MAX_NAME: usize = 255;

/// The largest value of an extended attribute, in bytes: `XATTR_SIZE_MAX` of Linux.
const MAX_VALUE: usize = 64 << 10;

/// Attributes that would be acted upon: by overlayfs when it finds them, or by readers of
/// our own virtual ones, which must not be forged.
const HIDDEN: [&[u8]; 3] = [b"trusted.overlay.", b"user.overlay.", b"user.oci."];

/// libarchive leaves the padding out, others that follow it may not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The extended attributes of an entry, sorted by name; `ignored` gets the keys of those
/// that cannot be had.
///
/// Of an attribute that comes twice the last counts, and before all of other forms that in
/// star's form, which Go's runtimes use.
pub(super) fn of_pax(pax: &Pax, mut ignored: impl FnMut(&[u8])) -> Vec<Xattr> {
    let mut found = Vec::new();
    for record in pax.xattrs() {
        match read(&record) {
            Some(xattr) if is_hidden(&xattr.name) => {}
            Some(xattr) => found.push((record.form, xattr)),
            None => ignored(record.key),
        }
    }
    // Both steps keep the order of equal ones, so the last stands behind the others.
    found.sort_by(|(a_form, a), (b_form, b)| a.name.cmp(&b.name).then(a_form.cmp(b_form)));
    found.reverse();
    found.dedup_by(|(_, a), (_, b)| a.name == b.name);
    found.reverse();
    found.into_iter().map(|(_, xattr)| xattr).collect()
}

fn read(record: &XattrRecord<'_>) -> Option<Xattr> {
    let (name, value) = match record.form {
        XattrForm::AccessList => (
            acl::attribute(record.name)?.to_vec(),
            acl::from_text(record.value)?,
        ),
        XattrForm::Schily => (record.name.to_vec(), record.value.to_vec()),
        XattrForm::Libarchive => (
            percent_decoded(record.name),
            BASE64.decode(record.value).ok()?,
        ),
    };
    let sound = !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.contains(&0)
        && value.len() <= MAX_VALUE;
    sound.then_some(Xattr { name, value })
}

/// Whether an extended attribute is left out wherever it comes from, because it would be
/// acted upon: overlayfs' own ones, and those that the mount makes up.
#[must_use]
pub fn is_hidden(name: &[u8]) -> bool {
    HIDDEN.iter().any(|prefix| name.starts_with(prefix))
}

/// `%` and two hexadecimal digits are a byte; any other `%` stands for itself.
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let byte = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        if let Some((high, low)) = byte {
            decoded.push(high << 4 | low);
            rest = &tail[2..];
        } else {
            decoded.push(*first);
            rest = tail;
        }
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::tests::pax_record;

    /// The attributes of such records as `name=value`, and how many were ignored.
    fn read_all(records: &[(&str, &str)]) -> (Vec<String>, usize) {
        let mut body = Vec::new();
        for (key, value) in records {
            body.extend(pax_record(key, value.as_bytes()));
        }
        let pax = Pax::parse(body, 100).expect("sound records");
        let mut ignored = 0;
        let xattrs = of_pax(&pax, |_| ignored += 1);
        let text = |xattr: Xattr| {
            [xattr.name, xattr.value]
                .join(&b'=')
                .escape_ascii()
                .to_string()
        };
        (xattrs.into_iter().map(text).collect(), ignored)
    }

    type Row = (
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static [&'static str],
        usize,
    );

    #[test]
    fn both_forms_are_read() {
        let rows: &[Row] = &[
            ("star's", &[("SCHILY.xattr.user.a", "b")], &["user.a=b"], 0),
            (
                "empty value",
                &[("SCHILY.xattr.user.a", "")],
                &["user.a="],
                0,
            ),
            (
                "libarchive's",
                &[("LIBARCHIVE.xattr.user.a", "Yg")],
                &["user.a=b"],
                0,
            ),
            (
                "padded",
                &[("LIBARCHIVE.xattr.user.a", "Yg==")],
                &["user.a=b"],
                0,
            ),
            (
                "encoded name",
                &[("LIBARCHIVE.xattr.user.%C3%a4%2", "Yg")],
                &["user.\\xc3\\xa4%2=b"],
                0,
            ),
            (
                "star's counts",
                &[
                    ("SCHILY.xattr.user.a", "star"),
                    ("LIBARCHIVE.xattr.user.a", "Yg"),
                ],
                &["user.a=star"],
                0,
            ),
            (
                "the last counts",
                &[
                    ("SCHILY.xattr.user.b", "1"),
                    ("SCHILY.xattr.user.a", "1"),
                    ("SCHILY.xattr.user.b", "2"),
                ],
                &["user.a=1", "user.b=2"],
                0,
            ),
            (
                "T28' kept",
                &[
                    ("SCHILY.xattr.security.selinux", "s"),
                    ("SCHILY.xattr.security.capability", "c"),
                ],
                &["security.capability=c", "security.selinux=s"],
                0,
            ),
            (
                "T28' hidden",
                &[
                    ("SCHILY.xattr.trusted.overlay.opaque", "y"),
                    ("SCHILY.xattr.user.overlay.opaque", "y"),
                    ("SCHILY.xattr.user.oci.digest", "x"),
                    ("LIBARCHIVE.xattr.user.%6fci.digest", "Yg"),
                    ("SCHILY.xattr.trusted.overlays", "y"),
                ],
                &["trusted.overlays=y"],
                0,
            ),
            (
                "an access control list as text",
                &[("SCHILY.acl.access", "user::rw-,group::r--,other::---")],
                &[
                    "system.posix_acl_access=\\x02\\x00\\x00\\x00\\x01\\x00\\x06\\x00\\xff\\xff\\xff\\xff\
                   \\x04\\x00\\x04\\x00\\xff\\xff\\xff\\xff \\x00\\x00\\x00\\xff\\xff\\xff\\xff",
                ],
                0,
            ),
            (
                "an access control list in both forms",
                &[
                    ("SCHILY.acl.default", "user::rw-,group::r--,other::---"),
                    ("SCHILY.xattr.system.posix_acl_default", "bytes"),
                    ("SCHILY.acl.default", "user::rw-,group::r--,other::---"),
                ],
                &["system.posix_acl_default=bytes"],
                0,
            ),
            (
                "a malformed access control list",
                &[("SCHILY.acl.access", "user::rw-")],
                &[],
                1,
            ),
            ("another system's list", &[("SCHILY.acl.ace", "x")], &[], 0),
            ("not base64", &[("LIBARCHIVE.xattr.user.a", "!")], &[], 1),
            ("no name", &[("SCHILY.xattr.", "a")], &[], 1),
            (
                "NUL in the name",
                &[("LIBARCHIVE.xattr.a%00b", "Yg")],
                &[],
                1,
            ),
        ];
        for (name, records, expected, ignored) in rows {
            assert_eq!(
                read_all(records),
                (
                    expected.iter().map(|text| (*text).to_owned()).collect(),
                    *ignored
                ),
                "{name}"
            );
        }
    }

    #[test]
    fn what_the_kernel_would_not_take_is_ignored() {
        let long = format!("SCHILY.xattr.user.{}", "x".repeat(251));
        assert_eq!(read_all(&[(&long, "")]).1, 1, "a name of 256 bytes");
        let large = "x".repeat(MAX_VALUE + 1);
        assert_eq!(
            read_all(&[("SCHILY.xattr.user.a", &large)]).1,
            1,
            "a large value"
        );
    }
}
