use proptest::prelude::*;

use super::*;

fn platform(text: &str) -> Platform {
    text.parse().expect("the row is a platform")
}

#[test]
fn written_by_people() {
    let rows = [
        ("linux/amd64", Some("linux/amd64")),
        ("linux/arm/v7", Some("linux/arm/v7")),
        ("linux/x86_64", Some("linux/amd64")),
        ("linux/aarch64", Some("linux/arm64")),
        ("linux", None),
        ("linux/", None),
        ("/amd64", None),
        ("linux/arm/v7/x", None),
        ("linux/arm/", None),
        ("", None),
        ("linux/a b", None),
    ];
    for (text, expected) in rows {
        let found = text.parse::<Platform>().ok().map(|it| it.to_string());
        assert_eq!(found.as_deref(), expected, "{text}");
    }
}

#[test]
fn the_host_fits_itself() {
    let host = Platform::host();
    assert_eq!(host.os, "linux");
    assert_eq!(host.fit(&host), Some(Fit(Closeness::Exact)));
    let plain = Platform::new("linux", &host.architecture);
    assert!(plain.fit(&host).is_some(), "{host}");
}

#[test]
fn choice() {
    let rows: &[(&str, &str, &[&str], Option<usize>)] = &[
        ("none", "linux/amd64", &[], None),
        (
            "equal",
            "linux/amd64",
            &["linux/arm64", "linux/amd64"],
            Some(1),
        ),
        ("other os", "linux/amd64", &["windows/amd64"], None),
        (
            "first of equals",
            "linux/amd64",
            &["linux/amd64", "linux/amd64"],
            Some(0),
        ),
        (
            "v1 is understood",
            "linux/amd64/v1",
            &["linux/amd64"],
            Some(0),
        ),
        (
            "v1 is what no variant means",
            "linux/amd64",
            &["linux/amd64/v1"],
            Some(0),
        ),
        ("above", "linux/amd64", &["linux/amd64/v2"], None),
        (
            "highest below",
            "linux/amd64/v3",
            &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"],
            Some(1),
        ),
        (
            "exact before below, whatever the order",
            "linux/arm/v7",
            &["linux/arm/v6", "linux/arm/v7", "linux/arm/v5"],
            Some(1),
        ),
        (
            "arm64 is v8",
            "linux/arm64/v8",
            &["linux/arm64/v9", "linux/arm64"],
            Some(1),
        ),
        (
            "minor numbers",
            "linux/arm64/v8.2",
            &["linux/arm64/v8", "linux/arm64/v8.1"],
            Some(1),
        ),
        (
            "ten is above nine",
            "linux/x/v10",
            &["linux/x/v9", "linux/x/v1"],
            Some(0),
        ),
        (
            "number alone",
            "linux/arm64/v8",
            &["linux/arm64/8"],
            Some(0),
        ),
        ("other family", "linux/x/v9", &["linux/x/power8"], None),
        (
            "families",
            "linux/ppc64le/power9",
            &["linux/ppc64le/power8"],
            Some(0),
        ),
        (
            "no variant is lowest",
            "linux/x/v2",
            &["linux/x", "linux/x/v1"],
            Some(1),
        ),
        ("no number", "linux/x/soft", &["linux/x/hard"], None),
        (
            "unknown is never chosen",
            "unknown/unknown",
            &["unknown/unknown"],
            None,
        ),
        ("arm is not arm64", "linux/arm64", &["linux/arm/v7"], None),
    ];
    for (name, wanted, entries, expected) in rows {
        let entries: Vec<_> = entries.iter().map(|text| platform(text)).collect();
        let entries = entries.iter().map(|platform| (Some(platform), false));
        assert_eq!(choose(&platform(wanted), entries), *expected, "{name}");
    }
}

#[test]
fn attestations_and_entries_without_platform_are_never_chosen() {
    let wanted = platform("linux/amd64");
    let entries = [(None, false), (Some(&wanted), true), (Some(&wanted), false)];
    assert_eq!(choose(&wanted, entries), Some(2));
    assert_eq!(choose(&wanted, entries[..2].iter().copied()), None);
}

#[test]
fn directory_names() {
    let full = |os: &str, architecture: &str, variant: &str, os_version: &str| Platform {
        variant: Some(variant.to_owned()).filter(|it| !it.is_empty()),
        os_version: Some(os_version.to_owned()).filter(|it| !it.is_empty()),
        ..Platform::new(os, architecture)
    };
    let long = "x".repeat(300);
    let rows = [
        ("plain", full("linux", "amd64", "", ""), "linux-amd64"),
        (
            "variant",
            full("linux", "arm64", "v8", ""),
            "linux-arm64-v8",
        ),
        (
            "version",
            full("windows", "amd64", "", "10.0.14393.1066"),
            "windows-amd64-10.0.14393.1066",
        ),
        ("both", full("a", "b", "c", "d"), "a-b-c-d"),
        (
            "climbing",
            full("../..", "etc/passwd", "", ""),
            "%2E.%2F..-etc%2Fpasswd",
        ),
        (
            "control",
            full("a\n", "\x1b[2J", "\x7f%", "\0"),
            "a%0A-%1B[2J-%7F%25-%00",
        ),
        ("dots", full(".", ".", "", ""), "%2E-."),
        ("empty", full("", "", "", ""), "-"),
        ("beyond ASCII", full("é", "日本", "", ""), "é-日本"),
    ];
    for (name, platform, expected) in rows {
        assert_eq!(platform.directory_name(), expected, "{name}");
    }
    let name = full(&long, "amd64", "", "").directory_name();
    assert_eq!(name.len(), 255);
    assert_ne!(name, full(&long, "arm64", "", "").directory_name());
}

proptest! {
    #[test]
    fn directory_names_are_one_safe_component(
        os in "\\PC{0,90}|[./%\\x00-\\x20\\x7f-]{0,90}",
        architecture in any::<String>(),
        variant in prop::option::of("[./a]{0,3}|.{0,90}"),
        os_version in prop::option::of(any::<String>()),
    ) {
        let platform = Platform { os, architecture, variant, os_version, os_features: vec![] };
        let name = platform.directory_name();
        prop_assert!(!name.is_empty() && name.len() <= 255);
        prop_assert!(!name.starts_with('.'));
        prop_assert!(!name.bytes().any(|b| b < 0x20 || b == 0x7F || b == b'/'));
    }

    #[test]
    fn escaping_loses_nothing(one in "[.%/2EF\\n]{0,5}", other in "[.%/2EF\\n]{0,5}") {
        prop_assert_eq!(escape(&one) == escape(&other), one == other);
    }
}
