//! Odd layouts that are right: names, duplicates, platforms, artifacts, Docker's types.
//!
//! Where a ref is to be found is written out here as the contract has it, and not
//! computed by the code that is tested.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::{
    Compression, MountOptions, REF_NAME, Random, TestLayout, TestMount, digest_of,
    host_architecture, run_ok,
};
use crate::ward::{
    CONFIG, FILES, INDEX, MANIFEST, Mounted, TAR, Ward, assert_no_mount, can_mount, errno_name,
    xattr,
};

/// An image that no other is equal to; its descriptor and the bytes of its manifest.
fn image(layout: &TestLayout, what: &str) -> (Value, Vec<u8>) {
    let image = layout.image_with(&[], &json!({"author": what}));
    let manifest = fs::read(layout.blob_path(&image)).expect("it was just stored");
    (image, manifest)
}

/// As [`image`], for a platform.
fn image_for(layout: &TestLayout, platform: &str) -> (Value, Vec<u8>) {
    let layer = layout.layer(Compression::None, &[(platform, b"")]);
    let image = layout.image_for(platform, &[layer]);
    let manifest = fs::read(layout.blob_path(&image)).expect("it was just stored");
    (image, manifest)
}

/// The directory `path` is the ref `name` with this manifest.
fn assert_ref(mounted: &Mounted, path: &str, name: Option<&str>, manifest: &[u8]) {
    let row = format!("{name:?} at {path:?}");
    mounted.assert_holds(&row, &format!("{path}/manifest.json"), manifest);
    assert_eq!(mounted.xattr(path, "ref").as_deref(), name, "{row}");
    assert_eq!(mounted.xattr(path, "error"), None, "{row}");
}

fn encoded(descriptor: &Value) -> String {
    digest_of(descriptor).encoded().to_owned()
}

#[test]
fn no_refs_at_all() {
    if !can_mount("no_refs_at_all") {
        return;
    }
    let texts = [
        r#"{"schemaVersion":2,"manifests":[]}"#,
        r#"{"schemaVersion":2,"manifests":null}"#,
    ];
    for text in texts {
        let layout = TestLayout::new();
        layout.write_index(text.as_bytes());
        let mount = TestMount::start(layout.path());
        assert_eq!(
            run_ok("ls", &["-A".as_ref(), mount.path().as_os_str()]),
            b"incoming\n"
        );
        let index = fs::read(mount.join(".ocifs/layout/index.json"));
        assert_eq!(index.expect("it is readable"), text.as_bytes());
        let digests = fs::read_dir(mount.join(".ocifs/digests")).expect("it is there");
        assert_eq!(digests.count(), 0, "{text}");
        let missing = fs::metadata(mount.join("x")).map(|_| ());
        let errno = missing.expect_err("it is not there").raw_os_error();
        assert_eq!(errno, Some(libc::ENOENT));
        assert!(mount.unmount().success(), "{text}");
    }
}

#[test]
fn ten_thousand_refs() {
    const REFS: u64 = 10_000;
    const IMAGES: u64 = 50;
    const TEAMS: u64 = 7;
    if !can_mount("ten_thousand_refs") {
        return;
    }
    let ward = Ward::new();
    let images: Vec<_> = (0..IMAGES)
        .map(|number| image(&ward.layout, &number.to_string()))
        .collect();
    let chosen = |number: u64| &images[usize::try_from(number % IMAGES).expect("it is small")];
    let flat = |number: u64| format!("app:{number}");
    let deep = |number: u64| format!("registry.example/team-{}/app:{number}", number % TEAMS);
    let mut entries = ward.layout.entries();
    for number in 0..REFS {
        let name = if number.is_multiple_of(2) {
            flat(number)
        } else {
            deep(number)
        };
        let mut entry = chosen(number).0.clone();
        entry["annotations"][REF_NAME] = json!(name);
        entries.push(entry);
    }
    ward.layout.write_entries(&entries);
    let mounted = ward.mount();
    // The good one, the drop box, the registry, and every other ref.
    let count = usize::try_from(REFS / 2).expect("it is small");
    assert_eq!(mounted.names("").len(), count + 3);
    let teams = mounted.names("registry.example");
    let below: usize = teams
        .iter()
        .map(|team| mounted.names(&format!("registry.example/{team}")).len())
        .sum();
    assert_eq!((teams.len() as u64, below), (TEAMS, count));
    let mut random = Random::new();
    for _ in 0..300 {
        let number = random.within(0..REFS);
        let name = if number.is_multiple_of(2) {
            flat(number)
        } else {
            deep(number)
        };
        assert_ref(&mounted, &name, Some(&name), &chosen(number).1);
        let other = if number.is_multiple_of(2) {
            deep(number)
        } else {
            flat(number)
        };
        assert_eq!(errno_name(mounted.errno(&other)), "ENOENT", "{other}");
    }
}

/// Raw names and the paths under which they are shown.
fn names_and_paths() -> Vec<(String, String)> {
    let hex = "0123456789abcdef".repeat(8);
    let digests = [("sha256", 64), ("sha512", 128), ("blake3", 64)];
    let mut rows: Vec<(String, String)> = [
        ("alpine:3.19", "alpine:3.19"),
        ("ghcr.io/org/app:1.2", "ghcr.io/org/app:1.2"),
        ("..", "%2E."),
        (".", "%2E"),
        ("", "%"),
        ("/", "%/%"),
        ("/etc/passwd", "%/etc/passwd"),
        ("../../x", "%2E./%2E./x"),
        ("x/../../y", "x/%2E./%2E./y"),
        ("a", "a"),
        ("a/b", "a/b"),
        ("a/b/c", "a/b/c"),
        ("a/manifest.json", "a/%6Danifest.json"),
        ("a/layers", "a/%6Cayers"),
        ("a/layers/00.tar", "a/%6Cayers/00.tar"),
        ("a/platforms", "a/%70latforms"),
        ("a/rootfs", "a/%72ootfs"),
        ("manifest.json", "manifest.json"),
        ("layers", "layers"),
        ("rootfs", "rootfs"),
        ("incoming", "%69ncoming"),
        ("incoming/x", "%69ncoming/x"),
        ("x/incoming", "x/incoming"),
        ("Incoming", "Incoming"),
        (".ocifs", "%2Eocifs"),
        (".ocifs/layout", "%2Eocifs/layout"),
        ("x/.ocifs", "x/%2Eocifs"),
        (".hidden", "%2Ehidden"),
        ("...", "%2E.."),
        ("new\nline", "new%0Aline"),
        ("tab\tbell\u{7}", "tab%09bell%07"),
        ("\u{1b}[31mred", "%1B[31mred"),
        ("del\u{7f}", "del%7F"),
        ("nul\0nul", "nul%00nul"),
        ("100%", "100%25"),
        ("%2F", "%252F"),
        ("%69ncoming", "%2569ncoming"),
        ("bidi\u{202e}gpj.exe", "bidi\u{202e}gpj.exe"),
        ("é", "é"),
        ("e\u{301}", "e\u{301}"),
        (" space ", " space "),
        ("back\\slash", "back\\slash"),
        ("-rf", "-rf"),
        ("*", "*"),
        ("$(id)", "$(id)"),
        ("a//b", "a/%/b"),
        ("a/", "a/%"),
        (
            "0123456789abcdef0123456789abcdef01234567",
            "0123456789abcdef0123456789abcdef01234567",
        ),
        ("sha256:abc", "sha256:abc"),
    ]
    .map(|(name, path)| (name.to_owned(), path.to_owned()))
    .into();
    for (algorithm, len) in digests {
        let rest = format!("{}:{}", &algorithm[1..], &hex[..len]);
        let first = algorithm.as_bytes()[0];
        rows.push((
            format!("{algorithm}:{}", &hex[..len]),
            format!("%{first:02X}{rest}"),
        ));
        rows.push((
            format!("d/{algorithm}:{}", &hex[..len]),
            format!("d/%{first:02X}{rest}"),
        ));
    }
    let upper = format!("sha256:{}", "A".repeat(64));
    rows.push((upper.clone(), upper));
    rows.push(("y".repeat(255), "y".repeat(255)));
    let sha256 = |text: &str| ocifs::oci::Digest::of(text.as_bytes()).encoded()[..16].to_owned();
    let long = "z".repeat(300);
    rows.push((long.clone(), format!("{}~{}", &long[..238], sha256(&long))));
    // Long only when it is written.
    let written = "\n".repeat(100);
    let path = format!("{}~{}", &"%0A".repeat(100)[..238], sha256(&written));
    rows.push((written, path));
    let as_if = format!("{}~{}", "w".repeat(238), "0".repeat(16));
    rows.push((
        as_if.clone(),
        format!("{}~{}", &as_if[..238], sha256(&as_if)),
    ));
    rows
}

#[test]
fn names() {
    if !can_mount("names") {
        return;
    }
    let rows = names_and_paths();
    let ward = Ward::new();
    let mut entries = ward.layout.entries();
    let mut manifests = Vec::new();
    for (name, _) in &rows {
        let (mut entry, manifest) = image(&ward.layout, name);
        entry["annotations"] = json!({REF_NAME: name});
        entries.push(entry);
        manifests.push(manifest);
    }
    ward.layout.write_entries(&entries);
    let mounted = ward.mount();
    for ((name, path), manifest) in rows.iter().zip(&manifests) {
        assert_ref(&mounted, path, Some(name), manifest);
    }
    // The root shows the first level of each, and nothing else but two.
    let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let mut expected: Vec<String> = rows.iter().map(|(_, path)| first(path)).collect();
    expected.extend(["good".to_owned(), "incoming".to_owned()]);
    expected.sort();
    expected.dedup();
    assert_eq!(mounted.names(""), expected);
    assert_eq!(
        mounted.names("a"),
        [
            "%",
            "%6Cayers",
            "%6Danifest.json",
            "%70latforms",
            "%72ootfs",
            "b",
            "config.json",
            "export",
            "layers",
            "manifest.json",
            "referrers",
            "rootfs",
        ]
    );
    // A level that is no ref of its own has nothing of an image.
    assert_eq!(mounted.names("x"), ["%2E.", "%2Eocifs", "incoming"]);
    assert_eq!(mounted.xattr("x", "ref"), None);
    assert_eq!(mounted.names("incoming"), ["blobs"]);
}

#[test]
fn name_cut_within_a_character() {
    if !can_mount("name_cut_within_a_character") {
        return;
    }
    let name = format!("x{}", "é".repeat(200));
    let ward = Ward::new();
    let (descriptor, manifest) = image(&ward.layout, "é");
    ward.layout.add_ref(&name, &descriptor);
    let mounted = ward.mount();
    let hash = ocifs::oci::Digest::of(name.as_bytes());
    let mut file_name = name.as_bytes()[..238].to_vec();
    file_name.extend(format!("~{}", &hash.encoded()[..16]).into_bytes());
    let dir = mounted.mount.join(OsStr::from_bytes(&file_name));
    let bytes = fs::read(dir.join("manifest.json"));
    assert_eq!(bytes.expect("it is there"), manifest);
    assert_eq!(xattr(&dir, "ref"), Some(name));
}

#[test]
fn one_name_for_several_digests() {
    if !can_mount("one_name_for_several_digests") {
        return;
    }
    let ward = Ward::new();
    let layout = &ward.layout;
    let images: Vec<_> = ["one", "two", "three"]
        .map(|what| image(layout, what))
        .into();
    for (descriptor, _) in &images {
        layout.add_ref("app:1", descriptor);
    }
    // The same once more is no other, and comes last.
    layout.add_ref("app:1", &images[0].0);
    // This name is taken by a ref that is called so.
    let taken = format!("app:1@{}", digest_of(&images[1].0));
    layout.add_ref(&taken, &images[2].0);
    // With platforms, but one of them twice.
    let (arm, _) = image_for(layout, "linux/arm64");
    let mut arm_too = image(layout, "arm").0;
    arm_too["platform"] = arm["platform"].clone();
    layout.add_ref("twice", &arm);
    layout.add_ref("twice", &arm_too);
    let mounted = ward.mount();
    assert_ref(&mounted, "app:1", Some("app:1"), &images[0].1);
    for number in [0, 2] {
        let dir = format!("app:1@{}", digest_of(&images[number].0));
        assert_ref(&mounted, &dir, Some("app:1"), &images[number].1);
    }
    assert_ref(&mounted, &taken, Some(&taken), &images[2].1);
    let names = mounted.names("");
    let count = |name: &str| names.iter().filter(|shown| shown.starts_with(name)).count();
    assert_eq!((count("app:1"), count("twice")), (4, 3), "{names:?}");
    assert!(mounted.mount.stderr().contains("REF_DUPLICATE"));
}

#[test]
fn one_name_for_several_platforms() {
    if !can_mount("one_name_for_several_platforms") {
        return;
    }
    let ward = Ward::new();
    let (arm, arm_manifest) = image_for(&ward.layout, "linux/arm64/v8");
    let (amd, amd_manifest) = image_for(&ward.layout, "linux/amd64");
    ward.layout.add_ref("app:1", &arm);
    ward.layout.add_ref("app:1", &amd);
    let options = MountOptions::new(ward.layout.path()).arg("--platform=linux/arm64");
    let mounted = ward.mount_with(options);
    assert_eq!(mounted.names(""), ["app:1", "good", "incoming"]);
    assert_eq!(
        mounted.names("app:1"),
        [
            "config.json",
            "export",
            "layers",
            "manifest.json",
            "platforms",
            "referrers",
            "rootfs"
        ]
    );
    assert_ref(&mounted, "app:1", Some("app:1"), &arm_manifest);
    let platforms = mounted.names("app:1/platforms");
    assert_eq!(platforms, ["linux-amd64", "linux-arm64-v8"]);
    let path = "app:1/platforms/linux-amd64/manifest.json";
    mounted.assert_holds("the other", path, &amd_manifest);
    assert!(!mounted.mount.stderr().contains("REF_DUPLICATE"));
}

#[test]
fn full_names_of_containerd() {
    if !can_mount("full_names_of_containerd") {
        return;
    }
    let ward = Ward::new();
    let layout = &ward.layout;
    let (app, app_manifest) = image(layout, "app");
    let (other, other_manifest) = image(layout, "other");
    layout.add_containerd_ref("docker.io/library/app:2", "2", &app);
    // Its short name is a level of another ref's name.
    layout.add_containerd_ref("docker.io/library/level:1", "deep", &app);
    layout.add_ref("deep/down", &other);
    // Short names that lead to nobody: two have it, or somebody is called so.
    layout.add_containerd_ref("docker.io/library/x:latest", "latest", &app);
    layout.add_containerd_ref("docker.io/library/y:latest", "latest", &other);
    layout.add_containerd_ref("docker.io/library/z:3", "3", &app);
    layout.add_ref("3", &other);
    // A short name of two levels; one that is the full name; one that would climb.
    layout.add_containerd_ref("docker.io/library/v:1", "v/1", &app);
    layout.add_containerd_ref("same", "same", &app);
    layout.add_containerd_ref("../../etc", "..", &other);
    let mounted = ward.mount();
    let link = |path: &str| fs::read_link(mounted.mount.join(path)).ok();
    for (short, target, full) in [
        ("2", "docker.io/library/app:2", "docker.io/library/app:2"),
        ("v/1", "../docker.io/library/v:1", "docker.io/library/v:1"),
    ] {
        assert_eq!(link(short), Some(PathBuf::from(target)), "{short}");
        assert_ref(&mounted, full, Some(full), &app_manifest);
        assert_ref(&mounted, short, Some(full), &app_manifest);
    }
    assert_ref(
        &mounted,
        "%2E./%2E./etc",
        Some("../../etc"),
        &other_manifest,
    );
    for (path, name, manifest) in [
        (
            "docker.io/library/x:latest",
            "docker.io/library/x:latest",
            &app_manifest,
        ),
        (
            "docker.io/library/y:latest",
            "docker.io/library/y:latest",
            &other_manifest,
        ),
        (
            "docker.io/library/z:3",
            "docker.io/library/z:3",
            &app_manifest,
        ),
        ("3", "3", &other_manifest),
        ("same", "same", &app_manifest),
        ("deep", "docker.io/library/level:1", &app_manifest),
        ("deep/down", "deep/down", &other_manifest),
        ("%2E.", "../../etc", &other_manifest),
    ] {
        assert_eq!(link(path), None, "{path}");
        assert_ref(&mounted, path, Some(name), manifest);
    }
    assert!(!mounted.shows("latest"));
}

#[test]
fn entries_without_a_name() {
    if !can_mount("entries_without_a_name") {
        return;
    }
    let ward = Ward::new();
    let (first, first_manifest) = image(&ward.layout, "first");
    let (second, second_manifest) = image(&ward.layout, "second");
    ward.layout.add_entry(&first);
    ward.layout.add_entry(&first);
    // A ref that is called as the unnamed one is shown.
    let digest = digest_of(&first);
    ward.layout.add_ref(digest.as_str(), &second);
    ward.layout.add_entry(&json!({"mediaType": MANIFEST}));
    ward.layout.add_entry(&json!(null));
    let mounted = ward.mount();
    assert_ref(&mounted, digest.as_str(), None, &first_manifest);
    let named = format!("%73{}", &digest.as_str()[1..]);
    assert_ref(&mounted, &named, Some(digest.as_str()), &second_manifest);
    assert_eq!(mounted.names("").len(), 4);
    for (descriptor, manifest) in [(&first, &first_manifest), (&second, &second_manifest)] {
        let path = format!(".ocifs/digests/sha256/{}", encoded(descriptor));
        assert_ref(&mounted, &path, None, manifest);
    }
}

#[test]
fn entries_of_unknown_type() {
    if !can_mount("entries_of_unknown_type") {
        return;
    }
    let types = [
        "application/vnd.cncf.notary.signature",
        "application/vnd.oci.image.manifest.v2+json",
        "text/plain; charset=utf-8",
        "",
        TAR,
        CONFIG,
        "\u{1b}[2J\n",
    ];
    let ward = Ward::new();
    for (number, media_type) in types.iter().enumerate() {
        let bytes = format!("{{\"layers\": {number}");
        let blob = ward.layout.blob(media_type, bytes.as_bytes());
        ward.layout.add_ref(&number.to_string(), &blob);
    }
    let mounted = ward.mount();
    for (number, media_type) in types.iter().enumerate() {
        let dir = number.to_string();
        assert_eq!(mounted.names(&dir), ["manifest.json"], "{media_type:?}");
        let bytes = format!("{{\"layers\": {number}");
        assert_ref(&mounted, &dir, Some(&dir), bytes.as_bytes());
        let said = mounted.xattr(&dir, "media-type");
        assert_eq!(said.as_deref(), Some(*media_type));
    }
    assert!(
        !mounted.mount.stderr().contains('\u{1b}'),
        "it would reach a terminal"
    );
}

#[test]
fn index_with_attestations() {
    if !can_mount("index_with_attestations") {
        return;
    }
    let ward = Ward::new();
    let layout = &ward.layout;
    let host = format!("linux/{}", host_architecture());
    let (own, own_manifest) = image_for(layout, &host);
    let (other, other_manifest) = image_for(layout, "linux/s390x");
    let (about_own, about_other) = (layout.attestation(&own), layout.attestation(&other));
    // They say the same, so they are one blob.
    assert_eq!(about_own["digest"], about_other["digest"]);
    // An attestation that looks like an image for this machine is none.
    let mut disguised = image(layout, "disguised").0;
    disguised["platform"] = own["platform"].clone();
    disguised["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let entries = [
        disguised.clone(),
        about_own.clone(),
        own,
        other,
        about_other.clone(),
    ];
    let index = layout.image_index(&entries);
    layout.add_ref("app", &index);
    layout.add_ref("nested", &layout.image_index(std::slice::from_ref(&index)));
    let index_bytes = fs::read(layout.blob_path(&index)).expect("it was just stored");
    let mounted = ward.mount();
    assert_ref(&mounted, "app", Some("app"), &own_manifest);
    assert_ref(&mounted, "nested", Some("nested"), &own_manifest);
    mounted.assert_holds("app", "app/index.json", &index_bytes);
    let at = |descriptor: &Value| format!("@{}", &encoded(descriptor)[..12]);
    let plain = format!("linux-{}", host_architecture());
    let mut expected = vec![
        plain.clone(),
        // The name was taken by the one before it.
        format!("{plain}{}", at(&entries[2])),
        "linux-s390x".to_owned(),
        format!("unknown-unknown{}", at(&about_own)),
    ];
    expected.sort();
    assert_eq!(mounted.names("app/platforms"), expected);
    let nested = format!("nested/platforms/{}", at(&index));
    assert_eq!(mounted.names("nested/platforms"), [at(&index)]);
    mounted.assert_holds("nested", &format!("{nested}/index.json"), &index_bytes);
    assert_ref(&mounted, &nested, None, &own_manifest);
    assert_eq!(mounted.names(&format!("{nested}/platforms")), expected);
    for dir in ["app".to_owned(), nested] {
        let path = format!("{dir}/platforms/linux-s390x/manifest.json");
        mounted.assert_holds(&dir, &path, &other_manifest);
        let path = format!(
            "{dir}/platforms/unknown-unknown{}/layers/00.json",
            at(&about_own)
        );
        mounted.assert_holds(&dir, &path, br#"{"_type":"statement"}"#);
    }
}

#[test]
fn names_of_platforms() {
    if !can_mount("names_of_platforms") {
        return;
    }
    let rows = [
        (
            "full",
            json!({"os": "linux", "architecture": "arm", "variant": "v7"}),
            "linux-arm-v7",
        ),
        (
            "version",
            json!({"os": "windows", "architecture": "amd64", "os.version": "10.0.17763.1"}),
            "windows-amd64-10.0.17763.1",
        ),
        (
            "both",
            json!({"os": "o", "architecture": "a", "variant": "v", "os.version": "1"}),
            "o-a-v-1",
        ),
        (
            "slash",
            json!({"os": "li/nux", "architecture": "../.."}),
            "li%2Fnux-..%2F..",
        ),
        ("dots", json!({"os": "..", "architecture": "x"}), "%2E.-x"),
        (
            "control",
            json!({"os": "a\nb", "architecture": "\u{1b}c"}),
            "a%0Ab-%1Bc",
        ),
        (
            "percent",
            json!({"os": "%2E", "architecture": "x"}),
            "%252E-x",
        ),
    ];
    let ward = Ward::new();
    let mut entries = Vec::new();
    let mut expected = Vec::new();
    for (row, platform, name) in rows {
        let mut entry = image(&ward.layout, row).0;
        entry["platform"] = platform;
        expected.push(name.to_owned());
        entries.push(entry);
    }
    for (row, platform) in [
        ("none", None),
        ("null", Some(Value::Null)),
        ("nothing in it", Some(json!({}))),
        ("no architecture", Some(json!({"os": "linux"}))),
        ("taken", Some(entries[0]["platform"].clone())),
    ] {
        let mut entry = image(&ward.layout, row).0;
        let base = match row {
            "nothing in it" => "-",
            "no architecture" => "linux-",
            "taken" => "linux-arm-v7",
            _ => "",
        };
        expected.push(format!("{base}@{}", &encoded(&entry)[..12]));
        if let Some(platform) = platform {
            entry["platform"] = platform;
        }
        entries.push(entry);
    }
    // The very same twice more: its name is taken, and then the other one too.
    expected.push(format!(
        "windows-amd64-10.0.17763.1@{}",
        &encoded(&entries[1])[..12]
    ));
    entries.extend([entries[1].clone(), entries[1].clone()]);
    ward.layout
        .add_ref("app", &ward.layout.image_index(&entries));
    let long = json!({"os": "o".repeat(300), "architecture": "a"});
    let mut entry = image(&ward.layout, "long").0;
    entry["platform"] = long;
    ward.layout
        .add_ref("long", &ward.layout.image_index(&[entry]));
    let mounted = ward.mount();
    let shown = mounted.names("app/platforms");
    expected.sort();
    assert_eq!(shown, expected);
    for name in &shown {
        assert_eq!(
            mounted.errno(&format!("app/platforms/{name}/manifest.json")),
            0,
            "{name}"
        );
    }
    let long = mounted.names("long/platforms").remove(0);
    assert!(long.len() <= 255, "{long}");
    assert_eq!(
        mounted.errno(&format!("long/platforms/{long}/manifest.json")),
        0
    );
}

#[test]
fn default_platform() {
    if !can_mount("default_platform") {
        return;
    }
    // The wanted platform, the entries in their order, and which one is shown.
    let rows: [(&str, &[&str], Option<&str>); 13] = [
        (
            "linux/arm64",
            &["linux/amd64", "linux/arm64/v8", "linux/arm64"],
            Some("linux/arm64/v8"),
        ),
        (
            "linux/arm64/v8",
            &["linux/arm64", "linux/arm64/v8"],
            Some("linux/arm64"),
        ),
        (
            "linux/arm64/v9",
            &["linux/arm64", "linux/arm64/v9"],
            Some("linux/arm64/v9"),
        ),
        (
            "linux/arm64/v9",
            &["linux/arm64", "linux/arm64/v10"],
            Some("linux/arm64"),
        ),
        (
            "linux/arm/v7",
            &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"],
            Some("linux/arm/v6"),
        ),
        ("linux/arm/v7", &["linux/arm/v8"], None),
        (
            "linux/amd64/v3",
            &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"],
            Some("linux/amd64/v2"),
        ),
        (
            "linux/amd64",
            &["linux/amd64/v2", "linux/amd64"],
            Some("linux/amd64"),
        ),
        ("linux/amd64", &["linux/amd64/v2"], None),
        ("linux/x86_64", &["linux/amd64"], Some("linux/amd64")),
        (
            "windows/amd64",
            &["linux/amd64", "windows/amd64"],
            Some("windows/amd64"),
        ),
        ("linux/riscv64", &["linux/amd64", "linux/arm64"], None),
        ("unknown/unknown", &["unknown/unknown", "linux/amd64"], None),
    ];
    for (number, (wanted, platforms, expected)) in rows.iter().enumerate() {
        let row = format!("row {number}: {wanted}");
        let ward = Ward::new();
        let images: Vec<_> = platforms
            .iter()
            .map(|platform| image_for(&ward.layout, platform))
            .collect();
        let entries: Vec<Value> = images.iter().map(|(entry, _)| entry.clone()).collect();
        ward.layout
            .add_ref("app", &ward.layout.image_index(&entries));
        let options = MountOptions::new(ward.layout.path());
        let mounted = ward.mount_with(options.arg("--platform").arg(wanted));
        match expected {
            None => assert_eq!(mounted.names("app"), ["index.json", "platforms"], "{row}"),
            Some(expected) => {
                let position = platforms.iter().position(|platform| platform == expected);
                let (entry, manifest) = &images[position.expect("it is one of them")];
                mounted.assert_holds(&row, "app/manifest.json", manifest);
                let digest = mounted.xattr("app/manifest.json", "digest");
                assert_eq!(digest.as_deref(), entry["digest"].as_str(), "{row}");
                assert_eq!(
                    mounted.names("app"),
                    [
                        "config.json",
                        "export",
                        "index.json",
                        "layers",
                        "manifest.json",
                        "platforms",
                        "referrers",
                        "rootfs"
                    ],
                    "{row}"
                );
            }
        }
    }
}

#[test]
fn default_platform_in_nested_indexes() {
    if !can_mount("default_platform_in_nested_indexes") {
        return;
    }
    let ward = Ward::new();
    let layout = &ward.layout;
    let (first, first_manifest) = image_for(layout, "linux/arm64");
    let mut second = image(layout, "second").0;
    second["platform"] = first["platform"].clone();
    let (amd, _) = image_for(layout, "linux/amd64");
    let nested = layout.image_index(&[amd, first]);
    // Depth first: what is nested in the first entry comes before the second entry.
    layout.add_ref("app", &layout.image_index(&[nested, second.clone()]));
    // A nested index that is not there does not hide what follows.
    let missing =
        json!({"mediaType": INDEX, "digest": format!("sha256:{}", "d".repeat(64)), "size": 9});
    layout.add_ref("part", &layout.image_index(&[missing, second.clone()]));
    let options = MountOptions::new(layout.path()).arg("--platform=linux/arm64");
    let second_manifest = fs::read(layout.blob_path(&second)).expect("it is there");
    let mounted = ward.mount_with(options);
    assert_ref(&mounted, "app", Some("app"), &first_manifest);
    assert_ref(&mounted, "part", Some("part"), &second_manifest);
    let path = format!("part/platforms/@{}/index.json", "d".repeat(12));
    assert_eq!(errno_name(mounted.errno(&path)), "ENODATA");
}

#[test]
fn platforms_that_are_none() {
    for text in ["linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64"] {
        let layout = TestLayout::new();
        let mount = MountOptions::new(layout.path()).arg(format!("--platform={text}"));
        let failure = mount
            .try_start()
            .err()
            .unwrap_or_else(|| panic!("{text}: mounted"));
        let code = failure.status.and_then(|status| status.code());
        assert_eq!(code, Some(2), "{text}: {}", failure.stderr);
        assert!(
            failure.stderr.contains("not a platform"),
            "{text}: {}",
            failure.stderr
        );
    }
}

#[test]
fn numbers_of_layers() {
    if !can_mount("numbers_of_layers") {
        return;
    }
    let ward = Ward::new();
    let stored = ward.layout.layer(Compression::None, FILES);
    for count in [1, 10, 99, 100, 101] {
        let layers = vec![stored.descriptor.clone(); count];
        ward.add_image_of(&count.to_string(), &layers);
    }
    let mounted = ward.mount();
    for (count, first, last) in [
        (1, "00.tar", "00.tar"),
        (10, "00.tar", "09.tar"),
        (99, "00.tar", "98.tar"),
        (100, "000.tar", "099.tar"),
        (101, "000.tar", "100.tar"),
    ] {
        let mut names = mounted.names(&format!("{count}/layers"));
        assert_eq!(names.len(), 2 * count, "each with its tree");
        names.retain(|name| name.ends_with(".tar"));
        let ends = (names[0].as_str(), names[count - 1].as_str());
        assert_eq!(ends, (first, last), "{count} layers");
    }
}

#[test]
fn artifacts_are_shown_raw() {
    if !can_mount("artifacts_are_shown_raw") {
        return;
    }
    let rows = [
        (
            "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
            "00.tar.gz",
        ),
        ("application/vnd.in-toto+json", "01.json"),
        ("application/wasm", "02.wasm"),
        ("text/markdown", "03.md"),
        ("text/plain", "04.txt"),
        ("application/vnd.dev.sigstore.bundle.v0.3+json", "05.json"),
        ("application/octet-stream", "06.bin"),
        ("", "07.bin"),
        ("../../../etc/passwd", "08.bin"),
        ("a/b.x/y", "09.bin"),
        ("application/vnd.docker.raw+zstd", "10.zst"),
    ];
    let ward = Ward::new();
    let layers: Vec<Value> = rows
        .iter()
        .map(|(media_type, file)| ward.layout.blob(media_type, file.as_bytes()))
        .collect();
    ward.add_image_of("app", &layers);
    let mounted = ward.mount();
    let mut expected: Vec<&str> = rows.iter().map(|(_, file)| *file).collect();
    expected.sort_unstable();
    assert_eq!(mounted.names("app/layers"), expected);
    for (media_type, file) in rows {
        let path = format!("app/layers/{file}");
        mounted.assert_holds(media_type, &path, file.as_bytes());
        let said = mounted.xattr(&path, "media-type");
        assert_eq!(said.as_deref(), Some(media_type));
        let is_link = fs::symlink_metadata(mounted.mount.join(&path)).expect("it is there");
        assert!(is_link.is_file(), "{path}");
    }
}

#[test]
fn docker_manifest_lists() {
    if !can_mount("docker_manifest_lists") {
        return;
    }
    const SCHEMA2: &str = "application/vnd.docker.distribution.manifest.v2+json";
    const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    let ward = Ward::new();
    let layout = &ward.layout;
    let docker = |architecture: &str, compression: Compression, layer_type: &str| {
        let mut layer = layout
            .layer(compression, &[(architecture, b"x")])
            .descriptor;
        layer["mediaType"] = json!(layer_type);
        let config = json!({"architecture": architecture, "os": "linux"});
        let config = layout.json("application/vnd.docker.container.image.v1+json", &config);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": SCHEMA2, "config": config, "layers": [layer],
        });
        let mut entry = layout.json(SCHEMA2, &manifest);
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        (entry, manifest.to_string())
    };
    let gzip = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    let (arm, arm_manifest) = docker("arm64", Compression::Gzip, gzip);
    let (amd, amd_manifest) = docker(
        "amd64",
        Compression::None,
        "application/vnd.docker.image.rootfs.diff.tar",
    );
    let list = json!({"schemaVersion": 2, "mediaType": LIST, "manifests": [arm, amd]});
    layout.add_ref("list", &layout.json(LIST, &list));
    layout.add_ref("one", &arm);
    let options = MountOptions::new(layout.path()).arg("--platform=linux/arm64");
    let mounted = ward.mount_with(options);
    mounted.assert_holds("list", "list/index.json", list.to_string().as_bytes());
    assert_ref(&mounted, "list", Some("list"), arm_manifest.as_bytes());
    assert_ref(&mounted, "one", Some("one"), arm_manifest.as_bytes());
    assert_eq!(
        mounted.names("list/platforms"),
        ["linux-amd64", "linux-arm64"]
    );
    let amd = "list/platforms/linux-amd64";
    mounted.assert_holds(
        "amd64",
        &format!("{amd}/manifest.json"),
        amd_manifest.as_bytes(),
    );
    assert_eq!(mounted.names(&format!("{amd}/layers")), ["00", "00.tar"]);
    assert_eq!(mounted.names("one/layers"), ["00", "00.tar", "00.tar.gz"]);
    let tar = crate::common::tar_of(&[("arm64", b"x")]);
    mounted.assert_holds("arm64", "one/layers/00.tar", &tar);
}

#[test]
fn a_directory_that_is_no_layout() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    fs::write(dir.path().join("index.json"), "{}").expect("writable");
    assert_no_mount("no layout", dir.path(), 1, "not an OCI image layout");
    let file = dir.path().join("index.json");
    let failure = MountOptions::new(&file).try_start().err();
    let failure = failure.expect("a file is no directory");
    assert!(failure.stderr.contains("index.json"), "{}", failure.stderr);
    assert!(Path::new(&file).exists());
}
