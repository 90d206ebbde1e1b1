//! Trees that are copied into a session and published: as they were, for other tools too.

use tempfile::TempDir;

use crate::common::{Need, has};
use crate::sessions::Bench;

/// Makes a tree `from` with everything that a root file system may have.
const MAKE: &str = r#"
mkdir -p from/{bin,dev,etc/cron.d,home/user,lib,tmp,var/empty}; cd from
head -c 300000 /dev/urandom > bin/tool; chmod 4755 bin/tool; ln bin/tool bin/same; ln bin/tool lib/again
ln -s tool bin/link; ln -s /nowhere/at/all etc/dangling
mknod dev/null c 1 3; mknod -m 640 dev/sda b 8 0; mkfifo -m 600 dev/pipe
printf 'text\n' > etc/passwd; : > etc/empty; chmod 000 etc/empty
chown 1000:1000 home/user; echo x > home/user/.profile; chown -h 1000:100 home/user/.profile
chmod 1777 tmp; chmod 2755 var/empty; chown 4000000:4000001 var/empty
setfattr -n user.comment -v 'a value' etc/passwd
setfattr -n trusted.binary -v 0x00ff0a etc/passwd
setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 bin/same
truncate -s 5M lib/sparse; printf data | dd of=lib/sparse bs=1 seek=2000000 conv=notrunc status=none
printf odd > $'etc/line\nbreak'; printf odd > $'etc/\xff\xfe'; printf odd > 'etc/ space '
n=$(printf 'x%.0s' {1..250}); mkdir "etc/$n"; echo deep > "etc/$n/$n"
touch -h -d '1999-12-31 23:59:59.123456789' bin/link etc/passwd dev/null
touch -d '1960-01-01 00:00:00' etc/cron.d; touch -d '2001-02-03 04:05:06.7' .
cd ..
"#;

/// Defines `facts DIR`, which prints all there is to know of a tree but how sparse it is.
const FACTS: &str = r#"
facts() (
    cd "$1"
    find . -printf '%P|%y|%m|%U:%G|%T@|%l|%n\0' | sort -z | tr '\0\n' '\n?'
    find . -type f -printf '%P|%s\0' | sort -z | tr '\0\n' '\n?'
    find . \( -type b -o -type c \) -exec stat -c '%n %t:%T' {} + | sort
    find . -type f -print0 | sort -z | xargs -0 sha256sum -z | tr '\0\n' '\n?'
    # Which names are one file.
    find . -type f -links +1 -printf '%i %P\n' | sort | awk '{if ($1 == i) print p, $2; else p = $2; i = $1}' | sort
    find . -print0 | sort -z | xargs -0 getfattr -h -d -m '^(user\.[^o]|trusted\.b|security\.cap)' -e hex 2>/dev/null
)
"#;

const NEEDS: [Need; 5] = [
    Need::Fuse,
    Need::Root,
    Need::Tool("umoci"),
    Need::Tool("tar"),
    Need::Tool("setfattr"),
];

/// Copies the tree `$FROM` into a session and publishes it; it is the same in the session, in
/// the image, and for other tools that unpack that.
const PUBLISH: &str = r#"
mkdir "$IN/app"; cp -a --sparse=always "$FROM/." "$IN/app/"
facts "$FROM" > expected; test "$(wc -l < expected)" -gt 60
facts "$IN/app" > in-session; diff expected in-session
mv -T "$IN/app" "$MNT/app:1"
facts "$MNT/app:1/rootfs" > shown; diff <(grep -v '^|d' expected) <(grep -v '^|d' shown)
mkdir tar; tar --xattrs --xattrs-include='*' --numeric-owner -xpf "$MNT/app:1/layers/00.tar" -C tar
facts tar > by-tar; diff expected by-tar
umoci raw unpack --image "$MNT/.ocifs/layout:app:1" umoci 2> /dev/null
facts umoci > by-umoci; diff expected by-umoci
"#;

#[test]
fn a_tree_is_published_as_it_is() {
    if !has("a_tree_is_published_as_it_is", &NEEDS) {
        return;
    }
    let bench = Bench::new(&[]);
    bench.ok(MAKE);
    bench.ok(&format!("{FACTS} FROM=from; {PUBLISH}"));
    assert_eq!(bench.refs(), ["app:1"]);
    bench.verify();
}

/// The same for the tree that the environment names, the root file system of a machine say,
/// to which everything is added that such a one may have; and once more by `ocifs commit`.
#[test]
fn a_given_tree_is_published_as_it_is() {
    const VARIABLE: &str = "OCIFS_TEST_TREE";
    let Some(given) = std::env::var_os(VARIABLE) else {
        return;
    };
    if !has("a_given_tree_is_published_as_it_is", &NEEDS) {
        return;
    }
    let bench = Bench::new(&[]);
    bench.ok(MAKE);
    let script = format!(
        r#"{FACTS}
        cp -a --sparse=always "$GIVEN/." tree/; mv from tree/more; FROM=tree
        {PUBLISH}
        wc -l < expected
        cp -a --sparse=always tree "$IN/again"; "$OCIFS" commit "$MNT" again
        cmp "$MNT/app:1/manifest.json" "$MNT/again/manifest.json""#
    );
    let output = bench.command(&script).env("GIVEN", given).output();
    let output = output.expect("there is a shell");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}\n{}", bench.mount.stderr());
    bench.verify();
}

#[test]
fn the_same_tree_is_the_same_image() {
    if !has("the_same_tree_is_the_same_image", &[Need::Fuse, Need::Root]) {
        return;
    }
    let bench = Bench::new(&[]);
    bench.ok(MAKE);
    bench.ok(r#"cp -a from "$IN/a"; cp -a from "$IN/b"
        mv "$IN/a" "$MNT/"; "$OCIFS" commit "$MNT" b
        cmp "$MNT/a/manifest.json" "$MNT/b/manifest.json""#);
    assert_eq!(bench.refs(), ["a", "b"]);
    bench.verify();
}

/// How a layer is stored, and with what it is read back.
const STORED: [(&str, &str, &str); 3] = [
    (
        "gzip",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "gzip -dc",
    ),
    (
        "zstd",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "zstd -dc",
    ),
    ("none", "application/vnd.oci.image.layer.v1.tar", "cat"),
];

#[test]
fn trees_are_packed_as_the_mount_was_told() {
    let tools = ["skopeo", "umoci", "jq", "zstd"].map(Need::Tool);
    if !has("trees_are_packed_as_the_mount_was_told", &NEEDS)
        || !has("trees_are_packed_as_the_mount_was_told", &tools)
    {
        return;
    }
    let (mut tree, mut diff_ids) = (None::<TempDir>, Vec::new());
    for (how, media_type, decode) in STORED {
        let bench = Bench::new(&["--compress", how]);
        match &tree {
            None => drop(bench.ok(MAKE)),
            Some(tree) => drop(bench.ok(&format!("cp -a {}/from .", tree.path().display()))),
        }
        let diff_id = bench.ok(&format!(
            r#"{FACTS}
            cp -a from "$IN/a"; mv "$IN/a" "$MNT/"
            cp -a from "$IN/b"; mv "$IN/b" "$MNT/"
            cmp "$MNT/a/manifest.json" "$MNT/b/manifest.json"
            test "$(jq -r '.layers[0].mediaType' "$MNT/a/manifest.json")" = {media_type}
            layer=$(jq -r '.layers[0].digest' "$MNT/a/manifest.json" | cut -d: -f2)
            {decode} < "$MNT/.ocifs/layout/blobs/sha256/$layer" > layer.tar
            diff_id=sha256:$(sha256sum < layer.tar | cut -c1-64)
            test $diff_id = "$(jq -r '.rootfs.diff_ids[0]' "$MNT/a/config.json")"
            mkdir tar; tar --xattrs --xattrs-include='*' --numeric-owner -xpf layer.tar -C tar
            diff <(facts from) <(facts tar)
            skopeo inspect "oci:$MNT/.ocifs/layout:a" | grep -q "$layer"
            skopeo copy -q --preserve-digests "oci:$MNT/.ocifs/layout:a" oci:onward:a
            cmp "$MNT/a/manifest.json" "onward/blobs/sha256/$(sha256sum < "$MNT/a/manifest.json" | cut -c1-64)"
            umoci stat --image "$MNT/.ocifs/layout:a" > /dev/null
            # This umoci knows no zstd.
            if [ {how} != zstd ]; then
                umoci raw unpack --image "$MNT/.ocifs/layout:a" umoci 2> /dev/null
                diff <(facts from) <(facts umoci)
            fi
            echo $diff_id"#
        ));
        diff_ids.push(diff_id);
        // Whatever the mount was told, an order may say otherwise.
        let manifests = STORED.map(|(order, media_type, _)| {
            bench.ok(&format!(
                r#"cp -a from "$IN/by-{order}"; "$OCIFS" commit --compress {order} "$MNT" by-{order}
                test "$(jq -r '.layers[0].mediaType' "$MNT/by-{order}/manifest.json")" = {media_type}
                sha256sum < "$MNT/by-{order}/manifest.json""#
            ))
        });
        let at = STORED.iter().position(|(row, ..)| *row == how);
        let as_told = bench.ok(r#"sha256sum < "$MNT/a/manifest.json""#);
        assert_eq!(manifests.get(at.unwrap_or(3)), Some(&as_told), "{how}");
        bench.verify();
        // The next one packs the same tree.
        tree.get_or_insert(bench.dir);
    }
    diff_ids.dedup();
    assert_eq!(diff_ids.len(), 1, "the same tar, however it is stored");
}
