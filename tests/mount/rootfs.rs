//! `rootfs/` and `layers/NN/` against what others make of the same layers: umoci and
//! buildah of an image, GNU tar of a layer.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;

use ocifs::oci::Digest;
use tempfile::TempDir;

use crate::common::{
    Compression, Flavour, Layer, MountOptions, Need, TestLayout, TestMount, has, real_image,
    run_ok, umoci_images,
};
use crate::walk::{Seen, Walk};

const TOOLS: &[Need] = &[
    Need::Fuse,
    Need::Root,
    Need::Tool("umoci"),
    Need::Tool("buildah"),
    Need::Tool("tar"),
    Need::Tool("bsdtar"),
    Need::Tool("python3"),
    Need::Tool("setfacl"),
    Need::Tool("setfattr"),
];

/// A directory in which other tools put down what they make.
struct Others {
    dir: TempDir,
}

impl Others {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("ocifs-others-").tempdir();
        let dir = dir.expect("a temporary directory can be made");
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What umoci unpacks.
    fn umoci(&self, layout: &Path, name: &str) -> Walk {
        let bundle = self.path("umoci");
        let image = format!("{}:{name}", layout.display());
        let arguments = ["unpack".as_ref(), "--image".as_ref(), image.as_ref()];
        run_ok("umoci", &[&arguments[..], &[bundle.as_os_str()]].concat());
        Walk::of(&bundle.join("rootfs"))
    }

    /// What buildah mounts.
    fn buildah(&self, layout: &Path, name: &str) -> Walk {
        // It takes the path for a name, which must be lower-case.
        symlink(layout, self.path("layout")).expect("the directory is writable");
        let image = format!("oci:layout:{name}");
        self.run_buildah(&["from", "-q", "--name", "x", &image]);
        let mounted = self.run_buildah(&["mount", "x"]);
        let mounted = String::from_utf8(mounted).expect("its path is text");
        let walk = Walk::of(Path::new(mounted.trim()));
        self.run_buildah(&["umount", "x"]);
        walk
    }

    /// Runs buildah with a store of its own.
    fn run_buildah(&self, arguments: &[&str]) -> Vec<u8> {
        let script = format!(
            "cd {} && buildah --root $PWD/storage --runroot $PWD/run --storage-driver vfs {}",
            self.dir.path().display(),
            arguments.join(" ")
        );
        run_ok("bash", &["-c", &script])
    }

    /// What GNU tar extracts, but for whiteouts below files, which it cannot. Without the
    /// last option it has its own times for directories whose entries are not together.
    fn tar(&self, tar: &Path) -> Walk {
        let (to, except) = (self.path("tar"), self.path("except"));
        fs::create_dir(&to).expect("the directory is writable");
        let below_files = whiteouts_below_files(&listed_in(tar)).join(&b'\n');
        fs::write(&except, below_files).expect("the directory is writable");
        let options = "--xattrs --xattrs-include='*' --acls --numeric-owner --same-owner \
            --delay-directory-restore";
        let script = format!(
            "tar -xpf {} -C {} --no-wildcards -X {} {options}",
            tar.display(),
            to.display(),
            except.display()
        );
        run_ok("bash", &["-c", &script]);
        let walk = Walk::of(&to);
        fs::remove_dir_all(&to).expect("the directory is writable");
        walk
    }
}

/// What umoci unpacks and buildah mounts of an image: they agree, but for the times that
/// buildah does not know, and those that it gives to these directories.
fn unpacked(layout: &Path, name: &str, timed: &BTreeSet<Vec<u8>>) -> Walk {
    let others = Others::new();
    let (umoci, buildah) = thread::scope(|scope| {
        let umoci = scope.spawn(|| others.umoci(layout, name));
        let buildah = others.buildah(layout, name);
        (umoci.join().expect("umoci unpacks it"), buildah)
    });
    assert!(umoci.0.len() > 10_000, "{} paths", umoci.0.len());
    let mut buildah = with_times(buildah, &umoci, 0..LAST);
    adopt_times(&mut buildah, &umoci, timed.iter().map(Vec::as_slice));
    buildah.assert_is(&umoci, "buildah and umoci");
    umoci
}

/// Compares trees of one layer with what GNU tar extracts of it, but for the attributes of
/// directories that no entry names.
fn are_what_tar_extracts(trees: &[PathBuf], tar: &Path) {
    let extracted = Others::new().tar(tar);
    let named = named_in(tar);
    for path in trees {
        let (tree, mut extracted) = (Walk::of(path), extracted.clone());
        let paths = extracted.0.keys().filter(|path| !named.contains(*path));
        let implied: Vec<_> = paths.cloned().collect();
        adopt_implied(&mut extracted, &tree, implied.iter().map(Vec::as_slice));
        tree.assert_is(&extracted, &path.display().to_string());
    }
}

/// The paths of a tar's entries, as GNU tar lists them: one in each line, so that those with
/// a newline are wrong. Directories have a slash at the end.
fn listed_in(tar: &Path) -> BTreeSet<Vec<u8>> {
    let script = format!("tar -tf {} --quoting-style=literal", tar.display());
    let listing = run_ok("bash", &["-c", &script]);
    let lines = listing.split(|byte| *byte == b'\n');
    lines.map(<[u8]>::to_vec).collect()
}

/// The same, as they are in a [`Walk`].
fn named_in(tar: &Path) -> BTreeSet<Vec<u8>> {
    let bare = |listed: Vec<u8>| {
        let path = listed.strip_prefix(b"./").unwrap_or(&listed);
        path.strip_suffix(b"/").unwrap_or(path).to_vec()
    };
    listed_in(tar).into_iter().map(bare).collect()
}

fn whiteouts_below_files(listed: &BTreeSet<Vec<u8>>) -> Vec<Vec<u8>> {
    let is_below_file = |path: &&Vec<u8>| {
        split(path).is_some_and(|(dir, name)| name.starts_with(b".wh.") && listed.contains(dir))
    };
    listed.iter().filter(is_below_file).cloned().collect()
}

/// The directory that a path is in, and its name there.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    Some((&path[..slash], &path[slash + 1..]))
}

#[test]
fn the_real_image_is_what_others_unpack() {
    let name = "the_real_image_is_what_others_unpack";
    if !has(name, TOOLS) || !has(name, &[Need::RealImage]) {
        return;
    }
    let image = real_image();
    let none = &image.flavours[image.flavours.len() - 1];
    let expected = unpacked(&none.layout, image.ref_name(), &BTreeSet::new());
    for flavour in &image.flavours {
        let mount = TestMount::start(&flavour.layout);
        let rootfs = mount.join(image.ref_name()).join("rootfs");
        Walk::of(&rootfs).assert_is(&expected, &flavour.name);
    }
}

#[test]
fn the_layers_of_the_real_image_are_what_tar_extracts() {
    let name = "the_layers_of_the_real_image_are_what_tar_extracts";
    if !has(name, TOOLS) || !has(name, &[Need::RealImage]) {
        return;
    }
    let image = real_image();
    let flavour = |name: &str| image.flavours.iter().find(|flavour| flavour.name == name);
    let layouts = ["gzip", "zstd-chunked"].map(|name| &flavour(name).expect("it is made").layout);
    let mounts = layouts.map(|layout| TestMount::start(layout));
    for number in 0..image.layers.len() {
        let tree = format!("{}/layers/{number:02}", image.ref_name());
        let trees = mounts.each_ref().map(|mount| mount.join(&tree));
        are_what_tar_extracts(&trees, &image.decoded_layer(number));
    }
}

/// The real image in layers that umoci made; `OCIFS_UMOCI_TREE` names a directory that gets a
/// layer of its own.
#[test]
fn the_real_image_of_umoci_is_what_others_unpack() {
    let name = "the_real_image_of_umoci_is_what_others_unpack";
    if !has(name, TOOLS) || !has(name, &[Need::RealImage]) {
        return;
    }
    let given = std::env::var_os("OCIFS_UMOCI_TREE");
    let [real, retyped] = umoci_images(given.as_deref().as_slice());
    let scratch = Others::new();
    let tars = decoded(&real, &scratch);
    let mut expected = unpacked(&real.layout, &real.name, &entered_only(&tars));
    let mount = MountOptions::new(&real.layout).arg("--read-only").start();
    let dir = mount.join(&real.name);
    Walk::of(&dir.join("rootfs")).assert_is(&expected, "umoci");
    for (number, tar) in tars.iter().enumerate() {
        are_what_tar_extracts(&[dir.join(format!("layers/{number:02}"))], tar);
    }
    expected.0.retain(|path, _| !path.starts_with(b"added"));
    let original = real_image();
    let none = &original.flavours[original.flavours.len() - 1];
    let none = TestMount::start(&none.layout);
    let original = Walk::of(&none.join(original.ref_name()).join("rootfs"));
    in_seconds(expected.clone()).assert_is(&in_seconds(original), "umoci, the real image");

    // The last layer of the other puts something into this one directory.
    expected.0.retain(|path, _| !path.starts_with(b"odd"));
    let dir = mount.join(&retyped.name);
    Walk::of(&dir.join("rootfs")).assert_is(&expected, "a directory became a file");
    let last = retyped.blobs.len() - 1;
    let tar = &decoded(&retyped, &scratch)[last];
    are_what_tar_extracts(&[dir.join(format!("layers/{last:02}"))], tar);
}

/// The layers of an image as files, each made once. `umoci insert` does not fill the last
/// block, without which GNU tar drops it: here it is filled.
fn decoded(image: &Flavour, scratch: &Others) -> Vec<PathBuf> {
    let decode = |(digest, _): &(Digest, u64)| {
        let (blob, tar) = (image.blob_path(digest), scratch.path(digest.encoded()));
        if !tar.exists() {
            let (from, to) = (blob.display(), tar.display());
            let script = format!("gzip -dc {from} > {to} && truncate -s %512 {to}");
            run_ok("bash", &["-c", &script]);
        }
        tar
    };
    image.blobs.iter().map(decode).collect()
}

/// The directories of which the last layer that has something in them names others alone.
fn entered_only(tars: &[PathBuf]) -> BTreeSet<Vec<u8>> {
    let mut entered = BTreeSet::new();
    for named in tars.iter().map(|tar| named_in(tar)) {
        let dirs = named.iter().filter_map(|path| split(path));
        entered.extend(dirs.map(|(dir, _)| dir.to_vec()));
        entered.retain(|path| !named.contains(path));
    }
    entered
}

/// Makes tars of odd layers, given a directory: the first by GNU tar in pax form,
/// with everything that it can say; the second by GNU tar in its own form, with whiteouts
/// and changes of type; the third by bsdtar, with entries below a symlink, and without the
/// directories on the way.
const ODD_LAYERS: &str = r#"set -eu
    cd "$1"
    mkdir 0 1 2 3
    export TZ=UTC
    long=$(printf 'long%.0s' {1..63})
    ( cd 0
      mkdir -p gone/deep opaque/deep stays real "$long/$long"
      echo gone > gone/deep/file; echo below > opaque/deep/file; echo stays > stays/file
      echo deep > "$long/$long/file"
      ln -s real link-to-dir; ln -s "$(printf '../x%.0s' {1..200})" long-link
      ln -s loop-b loop-a; ln -s loop-a loop-b; ln -s . self; ln -s /etc/passwd outside
      echo one > hard-a; ln hard-a hard-b; ln hard-a stays/hard-c
      echo file > file-to-dir; mkdir dir-to-file; echo x > dir-to-file/x
      echo old > replaced; echo linked > kept; touch -d 2003-04-05 kept; echo first > hidden
      echo 1 > $'new\nline'; echo 2 > $'latin\xe9'; echo 3 > 'наука 科学'; echo 4 > '-rf *'; echo 5 > '%41'
      echo A > Case; echo a > case
      echo suid > suid; chown 4000000:4294967294 suid; chmod 7755 suid
      setfattr -n security.capability -v 0sAQAAAgAgAAAAAAAAAAAAAAAAAAA= suid
      setfattr -n user.colour -v blue replaced; setfattr -n user.empty suid
      setfattr -n trusted.x -v 0x00ff suid; setfattr -n user.dir -v yes stays
      echo listed > listed; setfacl -m u:123456:rw-,g:7654321:--x,m:rwx listed
      setfacl -m u:123456:r-x -d -m u:123456:rwx real
      mkfifo fifo; mknod null c 1 3; mknod zero c 0 0; mknod block b 4095 1048575
      truncate -s 20M sparse; printf x | dd of=sparse bs=1 seek=12345678 conv=notrunc status=none
      truncate -s 5M hollow
      touch -d '1960-01-02 03:04:05.25' before-1970; touch -d @-0.000000001 just-before
      touch -d '2400-01-02 03:04:05.000000001' far; mkdir sticky; chmod 1777 sticky
      touch -h -d '2001-02-03 04:05:06.789' self
      mkdir 0000; echo x > 0000/x; chmod 0 0000/x; chmod 0 0000
    )
    ( cd 1
      mkdir opaque stays; touch .wh.gone opaque/.wh..wh..opq stays/.wh.hard-c; echo new > opaque/new
      touch .wh.hidden .wh.not-there
      mkdir file-to-dir; echo inside > file-to-dir/inside; echo file > dir-to-file
      echo new > replaced; chmod 600 replaced; chmod 700 stays; touch -d '2005-06-07' stays
    )
    ( cd 2
      mkdir -p link-to-dir implied/by/what; echo inside > link-to-dir/inside
      echo x > implied/by/what/is-in-it; echo acl > acl; setfacl -m u:77:r--,m:r-- acl
      setfattr -n user.from -v bsdtar acl; ln acl acl-too; truncate -s 3M sparse-too
      printf w | dd of=sparse-too bs=1 seek=2000000 conv=notrunc status=none
    )
    ( cd 3; truncate -s 9G huge; printf y | dd of=huge bs=1 seek=9000000000 conv=notrunc status=none
      truncate -s 1M many; for at in 1 3 5 7 9 11 13 15 17 19; do
          printf z | dd of=many bs=1 seek=$((at * 50000)) conv=notrunc status=none; done
    )
    tar --format=gnu --sparse -cf 3.tar -C 3 huge many
    tar --format=pax --xattrs --xattrs-include='*' --acls --sparse --numeric-owner --sort=name -cf 0.tar -C 0 .
    tar --format=gnu --numeric-owner --sort=name -cf 1.tar -C 1 .
    bsdtar --format=pax --acls --xattrs --numeric-owner -cf 2.tar -C 2 \
        link-to-dir/inside implied/by/what/is-in-it acl acl-too sparse-too
    # A hard link to a file that only the lower layer has: no tool that reads files makes one.
    python3 - <<'PYTHON'
import tarfile
with tarfile.open('1.tar', 'a') as tar:
    link = tarfile.TarInfo('linked-from-above')
    link.type, link.linkname = tarfile.LNKTYPE, 'kept'
    link.mtime = 1049500800 # buildah sets the file's to that of its link
    tar.addfile(link)
PYTHON
"#;

struct Odd {
    others: Others,
    layout: TestLayout,
    layers: Vec<Layer>,
}

impl Odd {
    fn new() -> Self {
        let others = Others::new();
        let dir = others.dir.path().as_os_str();
        run_ok(
            "bash",
            &["-c".as_ref(), ODD_LAYERS.as_ref(), "odd".as_ref(), dir],
        );
        let layout = TestLayout::new();
        // This umoci knows no zstd.
        let kinds = [
            Compression::Gzip,
            Compression::GzipMembers(4096),
            Compression::None,
            Compression::Zstd,
        ];
        let layer = |(number, kind)| {
            let tar = fs::read(others.path(&format!("{number}.tar")));
            layout.layer_of_tar(kind, &tar.expect("the script made it"))
        };
        let mut layers: Vec<Layer> = kinds.into_iter().enumerate().map(layer).collect();
        layout.add_ref("all", &layout.image(&layers));
        layers.pop();
        layout.add_ref("odd", &layout.image(&layers));
        Self {
            others,
            layout,
            layers,
        }
    }
}

#[test]
fn odd_layers_are_what_others_unpack() {
    if !has("odd_layers_are_what_others_unpack", TOOLS) {
        return;
    }
    let odd = Odd::new();
    let mount = TestMount::start(odd.layout.path());
    let rootfs = Walk::of(&mount.join("odd/rootfs"));
    for (number, layer) in odd.layers.iter().enumerate() {
        let tar = odd.others.path(&format!("{number}.tar"));
        assert_eq!(
            fs::metadata(&tar).expect("it is there").len(),
            layer.tar_size
        );
        if number == 1 {
            // The link leads to the layer below, which tar cannot know.
            continue;
        }
        are_what_tar_extracts(&[mount.join(format!("odd/layers/{number:02}"))], &tar);
    }
    let umoci = odd.others.umoci(odd.layout.path(), "odd");
    let mut umoci = with_times(umoci, &rootfs, i64::MIN..LAST);
    adopt_implied(&mut umoci, &rootfs, implied());
    let found = as_go_reads(rootfs.clone());
    found.assert_is(&as_go_reads(umoci), "umoci");
    let buildah = odd.others.buildah(odd.layout.path(), "odd");
    let mut buildah = with_times(buildah, &rootfs, 0..LAST);
    adopt_implied(&mut buildah, &rootfs, implied());
    let (found, buildah) = as_buildah_does(found, as_go_reads(buildah));
    found.assert_is(&buildah, "buildah");
    assert_eq!(rootfs.at("hard-a").links, Some((2, "hard-a".to_owned())));
    assert_eq!(
        rootfs.at("kept").links,
        rootfs.at("linked-from-above").links
    );
    assert!(
        rootfs
            .at("listed")
            .xattrs
            .contains_key("system.posix_acl_access")
    );
    assert!(
        rootfs
            .at("real")
            .xattrs
            .contains_key("system.posix_acl_default")
    );
    assert!(
        rootfs.0.contains_key(&b"real/inside"[..]),
        "through the link"
    );
}

/// Makes images as umoci does, given a directory: `app` of two layers, the second with
/// whiteouts and changes of type; `retyped` of three, the last with a directory that became a
/// file, for which umoci writes whiteouts below that file. buildah refuses to unpack those.
const UMOCI_IMAGES: &str = r#"set -eu
    cd "$1"
    umoci init --layout made
    umoci new --image made:app
    umoci unpack --image made:app bundle
    ( cd bundle/rootfs
      mkdir -p gone/deep stays emptied/deep dir-to-file/deep
      for dir in gone/deep emptied/deep stays dir-to-file dir-to-file/deep; do echo x > $dir/file; done
      echo one > hard-a; ln hard-a hard-b; ln hard-a stays/hard-c; touch -d @1000000000.25 stays
      echo file > file-to-dir; echo old > changed; setfattr -n user.colour -v blue changed
      ln -s stays link-to-dir; ln -s /etc/passwd outside; mkfifo fifo; mknod null c 1 3; mknod block b 7 300
      echo suid > suid; chown 1000:4294967294 suid; chmod 6755 suid; mkdir sticky; chmod 1777 sticky
      setfattr -n security.capability -v 0sAQAAAgAgAAAAAAAAAAAAAAAAAAA= suid
      echo 1 > $'new\nline'; echo 2 > $'latin\xe9'; echo 3 > "$(printf 'long%.0s' {1..60})" )
    umoci repack --refresh-bundle --image made:app bundle
    ( cd bundle/rootfs
      rm -r gone emptied/deep stays/hard-c file-to-dir changed link-to-dir
      mkdir file-to-dir link-to-dir; echo inside > file-to-dir/inside; echo inside > link-to-dir/inside
      ln -s suid changed; chmod 700 sticky; chown 77:88 outside -h )
    umoci repack --refresh-bundle --image made:app bundle
    ( cd bundle/rootfs; rm -r dir-to-file; echo file > dir-to-file )
    umoci repack --image made:retyped bundle
"#;

#[test]
fn images_of_other_tools_are_what_others_unpack() {
    if !has("images_of_other_tools_are_what_others_unpack", TOOLS) {
        return;
    }
    let made = Others::new();
    let dir = made.dir.path().as_os_str();
    run_ok(
        "bash",
        &["-c".as_ref(), UMOCI_IMAGES.as_ref(), "made".as_ref(), dir],
    );
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    // If buildah takes it, the directories that an upper layer hides something in without
    // naming them: they have the time of that there.
    let rows: [(PathBuf, &str, Option<&[&str]>); 4] = [
        (made.path("made"), "app", Some(&[])),
        (made.path("made"), "retyped", None),
        (golden.join("umoci-insert"), "app", Some(&["etc"])),
        (golden.join("buildah-gzip"), "app:1", Some(&[])),
    ];
    for (layout, name, for_buildah) in rows {
        let what = format!("{} {name}", layout.display());
        let mount = MountOptions::new(&layout).arg("--read-only").start();
        let rootfs = Walk::of(&mount.join(name).join("rootfs"));
        let others = Others::new();
        rootfs.assert_is(&others.umoci(&layout, name), &format!("{what}, umoci"));
        if let Some(directories) = for_buildah {
            let mut buildah = others.buildah(&layout, name);
            let directories = directories.iter().map(|path| path.as_bytes());
            adopt_times(&mut buildah, &rootfs, directories);
            rootfs.assert_is(&buildah, &format!("{what}, buildah"));
        }
    }
}

/// The last second that Go can count in nanoseconds, in the year 2262: umoci and buildah
/// write others for what is after that. buildah and docker set what is before 1970 to 0.
/// tar does neither.
const LAST: i64 = i64::MAX / 1_000_000_000;

/// With the right times where they are not in the years that the tool knows.
fn with_times(mut other: Walk, right: &Walk, known: Range<i64>) -> Walk {
    for (path, seen) in &mut other.0 {
        let right = right.0.get(path).map(|right| right.mtime);
        if let Some(right) = right.filter(|(seconds, _)| !known.contains(seconds)) {
            seen.mtime = right;
        }
    }
    other
}

/// Without attributes that Go's tools do not make: empty ones, and access control lists
/// that the tar has as text. GNU tar makes them.
fn as_go_reads(mut walk: Walk) -> Walk {
    for seen in walk.0.values_mut() {
        seen.xattrs
            .retain(|name, value| !value.is_empty() && !name.starts_with("system.posix_acl_"));
    }
    walk
}

/// What buildah does its own way, against umoci and us: it makes no `trusted.*`; a directory
/// that an upper layer names again keeps attributes that this one does not have; and one
/// that an upper layer puts something into without naming it has the time of that.
fn as_buildah_does(mut found: Walk, mut buildah: Walk) -> (Walk, Walk) {
    for seen in found.0.values_mut() {
        seen.xattrs.retain(|name, _| !name.starts_with("trusted."));
    }
    let at = |walk: &mut Walk, path: &str, change: &dyn Fn(&mut Seen)| {
        change(walk.0.get_mut(path.as_bytes()).expect("it is there"));
    };
    at(&mut buildah, "stays", &|seen| {
        assert_eq!(seen.xattrs.remove("user.dir"), Some(b"yes".to_vec()));
    });
    let mtime = found.at("real").mtime;
    at(&mut buildah, "real", &|seen| seen.mtime = mtime);
    (found, buildah)
}

/// With the right times of directories that an upper layer puts something into without
/// naming them: for buildah they have the time of that.
fn adopt_times<'a>(buildah: &mut Walk, right: &Walk, paths: impl Iterator<Item = &'a [u8]>) {
    for path in paths {
        let (Some(seen), Some(right)) = (buildah.0.get_mut(path), right.0.get(path)) else {
            continue;
        };
        seen.mtime = right.mtime;
    }
}

/// As a tar without extension headers has the times.
fn in_seconds(mut walk: Walk) -> Walk {
    for seen in walk.0.values_mut() {
        seen.mtime.1 = 0;
    }
    walk
}

/// The directories that no entry of the odd layers names.
fn implied() -> impl Iterator<Item = &'static [u8]> {
    let paths = ["implied", "implied/by", "implied/by/what", "link-to-dir"];
    paths.into_iter().map(str::as_bytes)
}

/// Directories that no entry names have attributes of the tool's choice.
fn adopt_implied<'a>(other: &mut Walk, ours: &Walk, paths: impl Iterator<Item = &'a [u8]>) {
    for path in paths {
        let (Some(other), Some(ours)) = (other.0.get_mut(path), ours.0.get(path)) else {
            continue;
        };
        if ours.links.is_none() && other.links.is_none() {
            let path = path.escape_ascii();
            assert_eq!((ours.mode, ours.owner), (0o040_755, (0, 0)), "{path}");
            *other = ours.clone();
        }
    }
}

#[test]
fn holes_are_where_the_tar_has_them() {
    if !has("holes_are_where_the_tar_has_them", TOOLS) {
        return;
    }
    let odd = Odd::new();
    let mount = TestMount::start(odd.layout.path());
    // Where tar puts the bounds depends on the disk that it read from: each byte that was
    // written is in data, and there is little data.
    let rows: [(&str, u64, &[u64]); 5] = [
        ("sparse", 20 << 20, &[12_345_678]),
        ("hollow", 5 << 20, &[]),
        ("huge", 9 << 30, &[9_000_000_000]),
        ("many", 1 << 20, &[50_000, 350_000, 950_000]),
        ("sparse-too", 3 << 20, &[2_000_000]),
    ];
    for (name, size, written) in rows {
        let file = File::open(mount.join("all/rootfs").join(name)).expect(name);
        let stat = file.metadata().expect(name);
        assert_eq!(stat.len(), size, "{name}");
        let stored = stat.blocks() * 512;
        assert!(stored < 100 << 10, "{name} takes {stored} bytes");
        let data = data(&file);
        let len: u64 = data.iter().map(|(start, end)| end - start).sum();
        assert!(
            len <= stored,
            "{name}: {len} bytes of data, {stored} stored"
        );
        for at in written {
            let is_in = data.iter().any(|(start, end)| (start..end).contains(&at));
            assert!(is_in, "{name}: {at} is in none of {data:?}");
        }
        assert_eq!(data.is_empty(), written.is_empty(), "{name}: {data:?}");
        for at in written {
            let mut byte = [0; 3];
            file.read_exact_at(&mut byte, at - 1).expect(name);
            assert!(
                byte[0] == 0 && byte[1] != 0 && byte[2] == 0,
                "{name} at {at}"
            );
        }
    }
}

/// The stretches of a file that are no holes.
fn data(mut file: &File) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start)).expect("an end");
        found.push((start, end));
        at = end;
    }
    file.seek(SeekFrom::Start(0))
        .expect("files can be read again");
    found
}
