//! What was dropped, as other tools read it back.

use std::fs;
use std::path::Path;

use crate::common::{Fingerprint, MountOptions, Need, has, verify_layout};
use crate::sessions::Bench;

const TOOLS: [Need; 7] = [
    Need::Fuse,
    Need::Root,
    Need::Tool("skopeo"),
    Need::Tool("umoci"),
    Need::Tool("jq"),
    Need::Tool("gzip"),
    Need::Tool("zstd"),
];

/// Defines what the scripts below use: `only LAYOUT` is where the first image's manifest is,
/// `blob DIGEST` where the mounted layout has a blob, and
///
/// - `onward NAME`: skopeo looks at the image NAME of the mount and copies it on, unchanged;
/// - `unpacked NAME DIR`: umoci knows it, and unpacks what is in DIR;
/// - `diff_ids NAME`: the DiffIDs of its layers;
/// - `docker_save LAYOUT DIR TAG`: what `docker save` wrote before it knew layouts.
const TOOLBOX: &str = r#"
blob() { echo "$MNT/.ocifs/layout/blobs/sha256/${1#sha256:}"; }
only() { echo "$1/blobs/sha256/$(jq -r '.manifests[0].digest' "$1/index.json" | cut -d: -f2)"; }
digest() { echo "sha256:$(sha256sum < "$1" | cut -c1-64)"; }
onward() {
    rm -rf onward; skopeo inspect --raw "oci:$MNT/.ocifs/layout:$1" > raw
    cmp raw "$MNT/$1/manifest.json" || cmp raw "$MNT/$1/index.json"
    skopeo copy -q --all --preserve-digests "oci:$MNT/.ocifs/layout:$1" oci:onward:x
    cmp raw "onward/blobs/sha256/$(sha256sum < raw | cut -c1-64)"
}
unpacked() {
    skopeo inspect "oci:$MNT/.ocifs/layout:$1" > /dev/null
    umoci stat --image "$MNT/.ocifs/layout:$1" > /dev/null
    rm -rf bundle; umoci unpack --image "$MNT/.ocifs/layout:$1" bundle 2> /dev/null
    # It does not compare pipes and devices.
    diff -r --no-dereference --exclude=fifo --exclude=null bundle/rootfs "$2"
}
diff_ids() { jq -c .rootfs.diff_ids "$MNT/$1/config.json"; }
docker_save() {
    mkdir "$2"; manifest=$(only "$1"); config=$(jq -r .config.digest "$manifest"); config=${config#sha256:}
    cp "$1/blobs/sha256/$config" "$2/$config.json"; layers=
    for layer in $(jq -r '.layers[].digest' "$manifest"); do
        id=${layer#sha256:}; mkdir "$2/$id"; echo -n 1.0 > "$2/$id/VERSION"; echo -n '{}' > "$2/$id/json"
        gzip -dc < "$1/blobs/sha256/$id" > "$2/$id/layer.tar"; layers="$layers \"$id/layer.tar\""
    done
    echo "[{\"Config\":\"$config.json\",\"RepoTags\":[\"saved:$3\"],\"Layers\":[$(echo $layers | tr ' ' ,)]}]" \
        > "$2/manifest.json"
    echo "{\"saved\":{\"$3\":\"$id\"}}" > "$2/repositories"
}
# What the images are to be, by umoci alone.
umoci unpack --image "$GOLDEN/buildah-gzip:app:1" by-buildah 2> /dev/null
umoci unpack --image "$GOLDEN/umoci-insert:app" by-umoci 2> /dev/null
"#;

/// Brings in an archive as it is, by gzip and by zstd, into a mount of its own each; `make`
/// writes `a.tar`, `check` looks at what became of it.
fn in_three_compressions(make: &str, check: &str) {
    for (name, compress) in [
        ("a.tar", "true"),
        ("a.tar.gz", "gzip a.tar"),
        ("a.tar.zst", "zstd -q --rm a.tar"),
    ] {
        let bench = Bench::new(&[]);
        bench.ok(&format!(
            r#"{TOOLBOX}
            {make}
            {compress}
            cp {name} "$IN/"
            {check}"#
        ));
        bench.verify();
    }
}

#[test]
fn an_oci_archive_with_several_images() {
    if !has("an_oci_archive_with_several_images", &TOOLS) {
        return;
    }
    in_three_compressions(
        r#"skopeo copy -q "oci:$GOLDEN/buildah-gzip:app:1" oci:l:first:1
        skopeo copy -q "oci:$GOLDEN/umoci-insert:app" oci:l:team/second
        tar -C l -cf a.tar ."#,
        r#"test "$(ls "$MNT" | tr '\n' ' ')" = "first:1 incoming team "
        onward first:1; unpacked first:1 by-buildah/rootfs
        onward team/second; unpacked team/second by-umoci/rootfs
        test "$(digest "$MNT/first:1/manifest.json")" = "$(jq -r '.manifests[0].digest' l/index.json)""#,
    );
}

#[test]
fn docker_archives() {
    if !has("docker_archives", &TOOLS) {
        return;
    }
    // By skopeo, with two tags for one image.
    in_three_compressions(
        r#"skopeo copy -q --additional-tag docker.io/library/other:2 \
            "oci:$GOLDEN/buildah-gzip:app:1" docker-archive:a.tar:docker.io/library/app:1"#,
        r#"for name in docker.io/library/app:1 docker.io/library/other:2; do
            onward $name; unpacked $name by-buildah/rootfs
        done
        manifest=$(only "$GOLDEN/buildah-gzip"); config=$(jq -r .config.digest "$manifest")
        test "$(diff_ids docker.io/library/app:1)" = \
            "$(jq -c .rootfs.diff_ids "$GOLDEN/buildah-gzip/blobs/sha256/${config#sha256:}")""#,
    );
    // As `docker save` wrote it for long: two images.
    in_three_compressions(
        r#"docker_save "$GOLDEN/buildah-gzip" d 1; docker_save "$GOLDEN/umoci-insert" e 2
        jq -s add d/manifest.json e/manifest.json > m; cp -r e/. d/; mv m d/manifest.json
        echo '{"saved":{}}' > d/repositories; tar -C d -cf a.tar $(ls -A d)"#,
        r#"onward saved:1; unpacked saved:1 by-buildah/rootfs; unpacked saved:2 by-umoci/rootfs"#,
    );
    // As it writes it now: a layout, and beside it what older readers look for.
    in_three_compressions(
        r#"skopeo copy -q "oci:$GOLDEN/umoci-insert:app" oci:h:1
        manifest=$(only h)
        jq -c '.manifests[0].annotations += {"io.containerd.image.name": "docker.io/library/hybrid:1"}' \
            h/index.json > i; mv i h/index.json
        jq -c '[{Config: (.config.digest | sub("sha256:"; "blobs/sha256/")), RepoTags: ["hybrid:1"],
            Layers: [.layers[].digest | sub("sha256:"; "blobs/sha256/")]}]' $manifest > h/manifest.json
        echo '{"hybrid":{}}' > h/repositories; tar -C h -cf a.tar $(ls -A h)"#,
        r#"unpacked 1 by-umoci/rootfs; test "$(ls "$MNT/docker.io/library")" = hybrid:1
        onward 1"#,
    );
}

#[test]
fn a_bare_layer() {
    if !has("a_bare_layer", &TOOLS) {
        return;
    }
    in_three_compressions(
        r#"tar -C by-umoci/rootfs --numeric-owner -cf a.tar .; diff_id=$(digest a.tar)"#,
        r#"onward a; skopeo inspect "oci:$MNT/.ocifs/layout:a" > /dev/null
        umoci stat --image "$MNT/.ocifs/layout:a" > /dev/null
        # This umoci knows no zstd.
        case $(echo a.tar*) in
            *.zst) mkdir by-tar; zstd -dc a.tar.zst | tar -x -C by-tar
                diff -r --no-dereference --exclude=fifo --exclude=null by-umoci/rootfs by-tar;;
            *) unpacked a by-umoci/rootfs;;
        esac
        test "$(diff_ids a)" = "[\"$diff_id\"]"
        # It is stored as it was given.
        test "$(jq -r '.layers[0].digest' "$MNT/a/manifest.json")" = "$(digest a.tar*)""#,
    );
}

#[test]
fn documents_whose_blobs_are_there() {
    if !has("documents_whose_blobs_are_there", &TOOLS) {
        return;
    }
    let bench = Bench::new(&[]);
    bench.ok(&format!(
        r#"{TOOLBOX}
        cp -r "$GOLDEN/buildah-index/blobs/sha256" blobs; index=$(only "$GOLDEN/buildah-index")
        # Before its blobs are there it is refused.
        ! cp "$index" "$IN/multi.json" 2> /dev/null
        grep -q COMMIT_INCOMPLETE "$IN/multi.json.error"
        (cd blobs; for blob in *; do cp $blob "$IN/blobs/sha256:$blob"; done)
        test -z "$(ls "$MNT" | grep -v incoming)"
        manifest=blobs/$(jq -r '.manifests[0].digest' "$index" | cut -d: -f2)
        cp "$manifest" "$IN/single.json"; onward single
        skopeo inspect "oci:$MNT/.ocifs/layout:single" > /dev/null
        umoci stat --image "$MNT/.ocifs/layout:single" > /dev/null
        cp "$index" "$IN/multi.json"; onward multi
        cmp "$index" "$MNT/multi/index.json"
        for arch in amd64 arm64; do
            skopeo --override-arch $arch inspect "oci:$MNT/.ocifs/layout:multi" | grep -q "\"$arch\""
        done
        ls "$MNT/multi/platforms/linux-arm64-v8/manifest.json""#
    ));
    bench.verify();
}

#[test]
fn an_sbom_about_an_image() {
    if !has("an_sbom_about_an_image", &TOOLS) {
        return;
    }
    let bench = Bench::new(&[]);
    bench.ok(&format!(
        r#"{TOOLBOX}
        skopeo copy -q "oci:$GOLDEN/umoci-insert:app" oci-archive:app.tar:app; cp app.tar "$IN/"
        echo '{{"spdxVersion":"SPDX-2.3"}}' > sbom.json.txt; printf '{{}}' > empty
        cp sbom.json.txt "$IN/blobs/$(digest sbom.json.txt)"; cp empty "$IN/blobs/$(digest empty)"
        jq -nc --arg sbom $(digest sbom.json.txt) --argjson size $(stat -c %s sbom.json.txt) \
            --arg empty $(digest empty) --arg subject $(digest "$MNT/app/manifest.json") \
            --argjson subject_size $(stat -c %s "$MNT/app/manifest.json") \
            '{{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
            artifactType: "application/spdx+json",
            config: {{mediaType: "application/vnd.oci.empty.v1+json", digest: $empty, size: 2}},
            layers: [{{mediaType: "application/spdx+json", digest: $sbom, size: $size}}],
            subject: {{mediaType: "application/vnd.oci.image.manifest.v1+json", digest: $subject,
                size: $subject_size}}}}' > sbom.json
        cp sbom.json "$IN/sbom.json"
        cmp sbom.json "$MNT/sbom/manifest.json"; onward sbom
        jq -e '.manifests[] | select(.annotations["org.opencontainers.image.ref.name"] == "sbom")' \
            "$MNT/.ocifs/layout/index.json" > /dev/null
        # About an image that is not here: a subject may be anywhere.
        sed 's/"subject":{{\([^}}]*\)sha256:..../"subject":{{\1sha256:0000/' sbom.json > other.json
        cp other.json "$IN/other.json"; onward other; ! cmp -s sbom.json raw"#
    ));
    bench.verify();
}

#[test]
fn any_other_bytes() {
    if !has("any_other_bytes", &TOOLS) {
        return;
    }
    // 2,048 is what a large file is promised to be tried with.
    let large = std::env::var("OCIFS_TEST_LARGE").ok();
    let large: u64 = large.and_then(|mib| mib.parse().ok()).unwrap_or(20);
    let bench = Bench::new(&[]);
    bench.ok(&format!(
        r#"{TOOLBOX}
        : > empty; head -c {large}M /dev/urandom > random
        for name in empty random; do
            cp $name "$IN/"
            # What was never written is committed a moment after it was closed.
            until [ -e "$MNT/$name" ]; do sleep 0.01; done
            onward $name
            layer=$(jq -r '.layers[0].digest' raw)
            test $layer = $(digest $name); cmp $name "$(blob $layer)"
            cmp $name onward/blobs/sha256/${{layer#sha256:}}
            test "$(jq -r '.layers[0].size' raw)" = "$(stat -c %s $name)"
            test "$(jq -r '.layers[0].annotations["org.opencontainers.image.title"]' raw)" = $name
            test "$(umoci ls --layout "$MNT/.ocifs/layout" | grep -cx $name)" = 1
        done"#
    ));
    bench.verify();
}

/// What a layout is, but for what the mount notes for itself.
fn fingerprint(layout: &Path) -> [Fingerprint; 3] {
    ["blobs", "index.json", "oci-layout"].map(|name| Fingerprint::of(&layout.join(name)))
}

#[test]
fn what_is_refused_leaves_the_layout_as_it_was() {
    if !has("what_is_refused_leaves_the_layout_as_it_was", &TOOLS) {
        return;
    }
    // What makes the file `x`, and what is told.
    let rows = [
        (
            "half an archive",
            "head -c 3000 archive > x",
            "TAR_TRUNCATED",
        ),
        (
            "a cut gzip",
            "gzip -c archive | head -c -10 > x",
            "STREAM_TRUNCATED",
        ),
        (
            "a cut zstd",
            "cp archive large; head -c 300000 /dev/urandom > noise; tar -rf large noise
            zstd -qc large | head -c -10 > x",
            "STREAM_TRUNCATED",
        ),
        (
            "a blob that is not what it is called",
            r#"mkdir d; tar -C d -xf archive; f=$(ls -S d/blobs/sha256/* | head -1)
            printf x | dd of=$f conv=notrunc status=none; tar -C d -cf x ."#,
            "BLOB_DIGEST",
        ),
        (
            "a size that is not the blob's",
            r#"mkdir d; tar -C d -xf archive; sed -i 's/"size":\([0-9]\)/"size":1\1/' d/index.json
            tar -C d -cf x ."#,
            "BLOB_SIZE",
        ),
        (
            "an archive without one of its blobs",
            r#"mkdir d; tar -C d -xf archive; rm $(ls -S d/blobs/sha256/* | head -1); tar -C d -cf x ."#,
            "COMMIT_INCOMPLETE",
        ),
        (
            "a docker-archive without its config",
            r#"mkdir d; tar -C d -xf docker; rm d/*.json; cp m d/manifest.json; tar -C d -cf x manifest.json"#,
            "COMMIT_INCOMPLETE",
        ),
        (
            "a manifest whose blobs are nowhere",
            r#"cp "$GOLDEN/umoci-insert/blobs/sha256/$(jq -r '.manifests[0].digest' \
                "$GOLDEN/umoci-insert/index.json" | cut -d: -f2)" x"#,
            "COMMIT_INCOMPLETE",
        ),
        (
            "a manifest with a key twice",
            r#"sed 's/{/{"schemaVersion":2,/' "$GOLDEN/umoci-insert/blobs/sha256/$(jq -r \
                '.manifests[0].digest' "$GOLDEN/umoci-insert/index.json" | cut -d: -f2)" > x"#,
            "JSON_DUPLICATE_KEY",
        ),
        ("a ref that is there", "cp note x; as=taken", "REF_EXISTS"),
    ];
    let bench = Bench::new(&[]);
    bench.ok(
        r#"skopeo copy -q "oci:$GOLDEN/umoci-insert:app" oci-archive:archive:app
        skopeo copy -q "oci:$GOLDEN/umoci-insert:app" docker-archive:docker:d:1
        tar -xOf docker manifest.json > m
        echo a note > note; echo another > before; cp before "$IN/taken"; rm "$IN/taken""#,
    );
    let before = fingerprint(bench.layout.path());
    for (row, make, told) in rows {
        let name = bench.ok(&format!("rm -rf d x; {make}; echo -n ${{as-x}}"));
        assert!(
            !bench.run(&format!(r#"cp x "$IN/{name}""#)).status.success(),
            "{row}"
        );
        let error = fs::read_to_string(bench.place(&format!("{name}.error")));
        assert!(
            error.as_ref().is_ok_and(|error| error.contains(told)),
            "{row}: {error:?}"
        );
        assert!(fingerprint(bench.layout.path()) == before, "{row}");
        bench.ok(&format!(r#"rm "$IN/{name}.error""#));
    }
    assert_eq!(bench.refs(), ["taken"]);
    // Nothing of it is left for another mount either.
    drop(bench.mount);
    let mount = MountOptions::new(bench.layout.path()).start();
    assert!(fingerprint(bench.layout.path()) == before);
    drop(mount);
    verify_layout(bench.layout.path());
}
