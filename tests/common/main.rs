//! The helpers judged by themselves and by other tools: what the other test binaries
//! stand on must be right, and its checks must be able to fail.

#[path = "mod.rs"]
mod common;

use std::io::Read;

use common::{Compression, Damage, Need, Random, TestLayout, compress, has, tar_of, verify_layout};
use serde_json::json;

const FILES: &[(&str, &[u8])] = &[("etc/", b""), ("etc/motd", b"hello\n"), (".wh.gone", b"")];

const COMPRESSIONS: &[Compression] = &[
    Compression::None,
    Compression::Gzip,
    Compression::GzipMembers(700),
    Compression::Zstd,
    Compression::ZstdFrames(700),
];

fn decode(compression: Compression, stored: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let result = match compression {
        Compression::None => return stored.to_vec(),
        Compression::Gzip | Compression::GzipMembers(_) => {
            flate2::read::MultiGzDecoder::new(stored).read_to_end(&mut decoded)
        }
        Compression::Zstd | Compression::ZstdFrames(_) => {
            zstd::Decoder::new(stored).and_then(|mut decoder| decoder.read_to_end(&mut decoded))
        }
    };
    result.unwrap_or_else(|error| panic!("{compression:?}: {error}"));
    decoded
}

/// A layout with one of everything.
fn rich_layout() -> TestLayout {
    let layout = TestLayout::new();
    let layers: Vec<_> = COMPRESSIONS
        .iter()
        .map(|compression| layout.layer(*compression, FILES))
        .collect();
    let image = layout.image(&layers);
    layout.add_ref("app:1", &image);
    layout.add_ref("ghcr.io/org/app:1", &image);
    layout.add_ref("app:1", &layout.image(&layers[..1]));
    layout.add_containerd_ref("docker.io/library/app:2", "2", &image);
    layout.add_entry(&layout.image(&layers[1..]));
    let arm = layout.image_for("linux/arm64/v8", &layers[..2]);
    let nested = layout.image_index(std::slice::from_ref(&arm));
    let attestation = layout.attestation(&arm);
    layout.add_ref("multi", &layout.image_index(&[arm, nested, attestation]));
    let sbom = layout.artifact("application/spdx+json", "sbom.json", b"{}", Some(&image));
    layout.add_entry(&sbom);
    layout
}

#[test]
fn compressions_decode_to_what_went_in() {
    let tar = tar_of(FILES);
    for compression in COMPRESSIONS {
        let stored = compress(*compression, &tar);
        assert_eq!(decode(*compression, &stored), tar, "{compression:?}");
    }
    let members = compress(Compression::GzipMembers(700), &tar);
    let starts = members.windows(3).filter(|three| three == b"\x1f\x8b\x08");
    assert_eq!(starts.count(), tar.len().div_ceil(700), "gzip members");
}

#[test]
fn a_streamed_layer_equals_one_made_in_memory() {
    let layout = TestLayout::new();
    let tar = tar_of(FILES);
    for compression in COMPRESSIONS {
        let whole = layout.layer_of_tar(*compression, &tar);
        let streamed = layout.layer_of_stream(*compression, |out| {
            tar.chunks(333).try_for_each(|chunk| out.write_all(chunk))
        });
        assert_eq!(whole.diff_id, streamed.diff_id, "{compression:?}");
        assert_eq!(whole.tar_size, streamed.tar_size, "{compression:?}");
        let stored = std::fs::read(layout.blob_path(&streamed.descriptor)).expect("stored");
        assert_eq!(decode(*compression, &stored), tar, "{compression:?}");
        layout.add_entry(&layout.image(&[streamed]));
    }
    verify_layout(layout.path());
}

#[test]
fn a_rich_layout_is_right() {
    verify_layout(rich_layout().path());
}

#[test]
fn skopeo_reads_a_rich_layout() {
    if !has("skopeo_reads_a_rich_layout", &[Need::Tool("skopeo")]) {
        return;
    }
    let layout = rich_layout();
    let target = TestLayout::new();
    for name in ["ghcr.io/org/app:1", "2"] {
        let from = format!("oci:{}:{name}", layout.path().display());
        let to = format!("oci:{}:copy", target.path().display());
        common::run_ok("skopeo", &["inspect", &from]);
        common::run_ok("skopeo", &["copy", "-q", &from, &to]);
    }
    verify_layout(target.path());
}

#[test]
fn every_damage_is_found() {
    for damage in [
        Damage::Missing,
        Damage::Truncated,
        Damage::Longer,
        Damage::Empty,
        Damage::FlippedBit,
        Damage::Symlink,
        Damage::Fifo,
        Damage::Directory,
    ] {
        let layout = TestLayout::new();
        let layer = layout.layer(Compression::Gzip, FILES);
        let image = layout.image(std::slice::from_ref(&layer));
        layout.add_ref("app", &image);
        layout.damage(&layer.descriptor, damage);
        let found = std::panic::catch_unwind(|| verify_layout(layout.path()));
        assert!(found.is_err(), "{damage:?} was not found");
    }
}

#[test]
fn raw_indexes() {
    let layout = TestLayout::new();
    let image = layout.image(&[layout.layer(Compression::None, FILES)]);
    layout.add_refs((0..10_000).map(|number| format!("many/{number}")), &image);
    assert_eq!(layout.entries().len(), 10_000);
    layout.remove_ref("many/5");
    assert_eq!(layout.entries().len(), 9_999);
    verify_layout(layout.path());
    layout.write_index(b"{\"manifests\":");
    let found = std::panic::catch_unwind(|| verify_layout(layout.path()));
    assert!(found.is_err(), "half an index was believed");
    layout.write_entries(&[json!({"mediaType": "x", "digest": "../../etc", "size": 1})]);
    let found = std::panic::catch_unwind(|| verify_layout(layout.path()));
    assert!(found.is_err(), "a climbing digest was believed");
}

#[test]
fn the_same_seed_gives_the_same_numbers() {
    let (mut one, mut two) = (Random::of_seed(7), Random::of_seed(7));
    let mut buffer = [0; 20];
    one.fill(&mut buffer);
    assert_eq!(buffer[..8], two.next().to_le_bytes());
    assert!((5..8).contains(&two.within(5..8)));
}

#[test]
fn what_is_missing_is_reported() {
    const NAME: &str = "what_is_missing_is_reported";
    const CHILD: &str = "OCIFS_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        assert!(!has("greedy", &[Need::Tool("no-such-tool")]));
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = dir.path().join("skipped");
    // The same test once more, with an environment of its own.
    let runs_with_ci = |ci| {
        let binary = std::env::current_exe().expect("a test knows its binary");
        let output = std::process::Command::new(binary)
            .args(["--exact", NAME])
            .envs([(CHILD, "1"), ("CI", ci)])
            .env("OCIFS_SKIPPED_FILE", &file)
            .output();
        output.expect("the test binary runs").status.success()
    };
    assert!(runs_with_ci("false"), "outside CI a tool may be missing");
    let written = std::fs::read_to_string(&file).expect("the skip is on record");
    assert_eq!(written, "SKIPPED: greedy: no command no-such-tool\n");
    assert!(!runs_with_ci("true"), "in CI nothing may be missing");
}

/// Layouts by other tools: whole, or damaged where their name says so.
#[test]
fn golden_layouts_are_what_their_names_say() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut count = 0;
    for entry in std::fs::read_dir(&golden).expect("tests/golden is readable") {
        let path = entry.expect("an entry is readable").path();
        if !path.is_dir() {
            continue;
        }
        count += 1;
        let name = path.file_name().expect("it has a name").to_string_lossy();
        let found = common::findings(&path);
        let is_damaged = name.starts_with("damaged-");
        assert_eq!(is_damaged, !found.is_empty(), "{name}: {found:?}");
    }
    assert!(count > 10, "only {count} layouts in tests/golden");
}
