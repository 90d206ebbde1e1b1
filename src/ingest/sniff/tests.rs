use std::io::Write;

use super::*;

type TestResult = Result<(), Box<dyn std::error::Error>>;

fn tar_of(paths: &[&str]) -> Result<Vec<u8>, std::io::Error> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for path in paths {
        let mut header = ::tar::Header::new_ustar();
        let is_dir = path.ends_with('/');
        header.set_entry_type(match is_dir {
            true => ::tar::EntryType::Directory,
            false => ::tar::EntryType::Regular,
        });
        header.set_size(u64::from(!is_dir) * 3);
        let data: &[u8] = if is_dir { b"" } else { b"abc" };
        builder.append_data(&mut header, path, data)?;
    }
    builder.into_inner()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

#[test]
fn the_content_decides() -> TestResult {
    let likely = |is_likely_archive| Content::Tar { is_likely_archive };
    let hex = "a".repeat(64);
    let layer = tar_of(&["etc/", "etc/motd"])?;
    let oci = tar_of(&["blobs/", "blobs/sha256/", &format!("blobs/sha256/{hex}")])?;
    let docker = tar_of(&[
        &format!("{hex}/"),
        &format!("{hex}/VERSION"),
        "manifest.json",
    ])?;
    let mut wrong_sum = layer.clone();
    wrong_sum[0] ^= 1;
    let mut wrong_later = layer.clone();
    wrong_later[512] ^= 1;
    let truncated = gzip(&layer);
    let index = br#"{"schemaVersion":2,"manifests":[]}"#;
    let typed = br#" {"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}"#;
    let docker_type = MediaType::new("application/vnd.docker.distribution.manifest.v2+json");
    let schema1 = MediaType::new("application/vnd.docker.distribution.manifest.v1+json");
    let as_index = Content::Document(MediaType::IMAGE_INDEX);
    let as_manifest = Content::Document(MediaType::IMAGE_MANIFEST);
    let rows: Vec<(&str, Vec<u8>, Content)> = vec![
        ("empty", Vec::new(), Content::Other),
        ("text", b"hello\n".to_vec(), Content::Other),
        ("layer", layer.clone(), likely(false)),
        ("layer, gzip", gzip(&layer), likely(false)),
        (
            "layer, zstd",
            zstd::encode_all(&layer[..], 0)?,
            likely(false),
        ),
        ("cut after its header", layer[..700].to_vec(), likely(false)),
        ("cut in its header", layer[..511].to_vec(), Content::Other),
        (
            "gzip, cut",
            truncated[..truncated.len() - 9].to_vec(),
            likely(false),
        ),
        ("layout", oci.clone(), likely(true)),
        ("layout, gzip", gzip(&oci), likely(true)),
        ("docker", docker, likely(true)),
        ("C13 gzip twice", gzip(&gzip(&layer)), Content::Other),
        ("gzip of text", gzip(b"hello\n"), Content::Other),
        (
            "gzip header alone",
            b"\x1f\x8b\x08".to_vec(),
            Content::Other,
        ),
        ("xz", b"\xfd7zXZ\0 and more".to_vec(), Content::Other),
        ("wrong checksum", wrong_sum, Content::Other),
        ("wrong checksum later", wrong_later, likely(false)),
        ("C14 two blocks of zeros", vec![0; 1024], likely(true)),
        ("GNU tar's empty tar", vec![0; 10_240], likely(true)),
        ("its gzip", gzip(&[0; 10_240]), likely(true)),
        ("one block of zeros", vec![0; 512], Content::Other),
        ("more zeros", vec![0; 10_752], Content::Other),
        ("zeros, and an odd size", vec![0; 1025], Content::Other),
        ("index", index.to_vec(), as_index.clone()),
        ("index, gzip", gzip(index), Content::Other),
        (
            "manifest",
            br#"{"schemaVersion":2,"config":{},"layers":[]}"#.to_vec(),
            as_manifest,
        ),
        (
            "L8 index and manifest",
            br#"{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}"#.to_vec(),
            as_index.clone(),
        ),
        (
            "L4 a key twice",
            br#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#.to_vec(),
            as_index,
        ),
        (
            "by its type",
            typed.to_vec(),
            Content::Document(docker_type),
        ),
        (
            "L28 schema 1",
            br#"{"schemaVersion":1,"fsLayers":[]}"#.to_vec(),
            Content::Document(schema1),
        ),
        (
            "another type",
            br#"{"mediaType":"text/x","schemaVersion":2,"manifests":[]}"#.to_vec(),
            Content::Other,
        ),
        (
            "other JSON",
            br#"{"name":"x","layers":[]}"#.to_vec(),
            Content::Other,
        ),
        ("a list", b"[]".to_vec(), Content::Other),
        ("half a manifest", typed[..40].to_vec(), Content::Other),
        (
            "L24 byte order mark",
            [b"\xef\xbb\xbf", &index[..]].concat(),
            Content::Other,
        ),
    ];
    for (name, bytes, expected) in rows {
        let found = sniff(&bytes, &Limits::default()).expect(name);
        assert_eq!(found, expected, "{name}");
    }
    Ok(())
}
