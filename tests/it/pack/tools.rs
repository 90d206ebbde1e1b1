//! Packed trees, extracted by other tools.

use std::ffi::OsStr;

use ocifs::oci::{Descriptor, DiffId, Platform};
use ocifs::pack::image;
use serde_json::json;

use crate::common::{TestLayout, run, run_ok, verify_layout};

use super::*;

#[test]
fn gnu_tar_extracts_the_same() -> TestResult {
    let needs = [Need::Root, Need::Tool("tar")];
    if !has("gnu_tar_extracts_the_same", &needs) {
        return Ok(());
    }
    let mut random = Random::new();
    for compression in COMPRESSIONS {
        let dir = tempfile::tempdir()?;
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from)?;
        fs::create_dir(&to)?;
        random_tree::make(&from, &mut random)?;
        let layer = packed(&from, &options(compression, 2))?;
        let archive = dir.path().join("layer");
        fs::write(&archive, &layer.blob)?;
        extract(&archive, &to);
        let (shown, extracted) = (expected(&from)?, of_disk(&to)?);
        assert_eq!(difference(&extracted, &shown), None, "{compression:?}");
    }
    Ok(())
}

fn extract(archive: &Path, to: &Path) {
    let words = [
        "--xattrs",
        "--xattrs-include=*",
        "--acls",
        "--numeric-owner",
        "--warning=no-timestamp",
        "-xpf",
    ];
    let mut words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
    words.extend([archive.as_os_str(), "-C".as_ref(), to.as_os_str()]);
    let output = run("tar", &words);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && message.is_empty(), "{message}");
}

#[test]
fn umoci_unpacks_a_packed_tree() -> TestResult {
    let needs = [Need::Root, Need::Tool("umoci")];
    if !has("umoci_unpacks_a_packed_tree", &needs) {
        return Ok(());
    }
    let mut random = Random::new();
    // This umoci knows no zstd.
    for compression in [LayerCompression::None, LayerCompression::Gzip] {
        let dir = tempfile::tempdir()?;
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from)?;
        random_tree::make(&from, &mut random)?;
        let layout = TestLayout::new();
        store(&layout, &from, compression)?;
        verify_layout(layout.path());
        let image = format!("{}:packed", layout.path().display());
        run_ok(
            "umoci",
            &["raw", "unpack", "--image", &image, &to.to_string_lossy()],
        );
        let (mut shown, mut unpacked) = (expected(&from)?, of_disk(&to)?);
        fill_holes(&mut shown);
        fill_holes(&mut unpacked);
        for (path, fact) in &mut shown {
            // umoci leaves labels to the machine, and knows no time after 2262.
            fact.xattrs.remove(&b"security.selinux"[..]);
            if let Some(theirs) = unpacked.get_mut(path)
                && fact.mtime.0 > i64::MAX / 1_000_000_000
            {
                theirs.mtime = fact.mtime;
            }
        }
        assert_eq!(difference(&unpacked, &shown), None, "{compression:?}");
    }
    Ok(())
}

/// Packs a tree into a layout as the image `packed`.
fn store(layout: &TestLayout, from: &Path, compression: LayerCompression) -> TestResult {
    let writer = refusals::writer(layout.path())?;
    let options = options(compression, 2);
    let layer = pack(&tree(from)?, &options, writer.blob()?, &Unwatched)?;
    let (media_type, diff_id): (_, DiffId) = (layer.media_type, layer.diff_id);
    let blob = layer.blob.commit()?;
    let descriptor = Descriptor::new(media_type, blob.digest().clone(), blob.size());
    let made = image(&descriptor, &diff_id, &Platform::host(), None);
    writer.store(&made.config)?;
    let manifest = writer.store(&made.manifest)?;
    layout.add_ref(
        "packed",
        &json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest.digest().as_str(),
            "size": manifest.size(),
        }),
    );
    Ok(())
}

#[test]
fn tools_accept_the_compression() -> TestResult {
    let dir = tempfile::tempdir()?;
    let mut noise = vec![0; 3 << 20];
    Random::of_seed(3).fill(&mut noise);
    fs::write(dir.path().join("noise"), &noise)?;
    fs::write(dir.path().join("zeros"), vec![0; 5 << 20])?;
    let rows = [
        ("gzip", LayerCompression::Gzip),
        ("pigz", LayerCompression::Gzip),
        ("zstd", LayerCompression::Zstd),
    ];
    for (tool, compression) in rows {
        if !has("tools_accept_the_compression", &[Need::Tool(tool)]) {
            continue;
        }
        let layer = packed(dir.path(), &options(compression, 2))?;
        let extension = if tool == "zstd" { "zst" } else { "gz" };
        let blob = tempfile::Builder::new()
            .suffix(&format!(".{extension}"))
            .tempfile()?;
        fs::write(blob.path(), &layer.blob)?;
        let path = blob.path().as_os_str();
        run_ok(tool, &["-t".as_ref(), path]);
        let decoded = run_ok(tool, &["-dc".as_ref(), path]);
        assert_eq!(Digest::of(&decoded), layer.diff_id.0, "{tool}");
    }
    Ok(())
}
