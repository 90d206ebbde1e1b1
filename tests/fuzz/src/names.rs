//! Texts with a grammar: digests, ref names, media types, platforms, time stamps.
//!
//! Invariants, for any text:
//! - no panic;
//! - what is accepted prints as it was given (a platform: reads as equal what it prints);
//! - neither half of a digest, nor a component of a ref name, nor a platform's directory
//!   name can climb or hide: no `/`, no NUL, not `.`, not `..`, not empty, at most 255
//!   bytes;
//! - a time stamp has nanoseconds below a second.

use ocifs::oci::{Digest, MediaType, Platform, RefName, Timestamp};

/// Checks the invariants.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert!(is_file_name(digest.algorithm_name()), "{text:?}");
        assert!(is_file_name(digest.encoded()), "{text:?}");
    }
    if let Ok(name) = text.parse::<RefName>() {
        assert_eq!(name.to_string(), text);
        let is_component = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        assert!(text.split('/').all(is_component), "{text:?}");
    }
    let media_type = MediaType::new(text);
    assert_eq!(media_type.as_str(), text);
    assert!(media_type.is_same_type(&media_type.clone()), "{text:?}");
    let (_, extension) = (media_type.kind(), media_type.extension());
    assert!(
        !extension.contains('/') && !extension.contains('\0'),
        "{text:?}: {extension:?}"
    );
    if let Ok(platform) = text.parse::<Platform>() {
        let again = platform.to_string().parse::<Platform>();
        assert_eq!(again.ok().as_ref(), Some(&platform), "{text:?}");
        let directory = platform.directory_name();
        assert!(is_file_name(&directory), "{text:?}: {directory:?}");
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        assert!(time.nanoseconds < 1_000_000_000, "{text:?}");
    }
}

fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.contains(['/', '\0'])
}
