//! `rootfs/` as the root of programs: under chroot, below overlayfs, in a container.
//!
//! Everything that mounts does so in a mount namespace of its own, which takes it along.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::common::{
    Compression, MountOptions, Need, Tarball, TestLayout, TestMount, has, real_image,
};

const NEEDS: &[Need] = &[
    Need::Fuse,
    Need::Root,
    Need::RealImage,
    Need::Tool("unshare"),
    Need::Tool("chroot"),
];

/// The real image, mounted.
struct Container {
    mount: TestMount,
    dir: TempDir,
}

impl Container {
    fn new(arguments: &[&str]) -> Self {
        let image = real_image();
        let mut options = MountOptions::new(&image.flavours[0].layout);
        for argument in arguments {
            options = options.arg(argument);
        }
        Self {
            mount: options.start(),
            dir: tempfile::tempdir().expect("a temporary directory can be made"),
        }
    }

    /// The root file system by a path without a colon.
    fn rootfs(&self) -> PathBuf {
        let digests = self.mount.join(".ocifs/digests/sha256");
        let mut found = fs::read_dir(&digests).expect("it can be listed");
        let image = found.next().expect("there is an image").expect("an entry");
        image.path().join("rootfs")
    }

    /// Runs a script in a mount namespace; it knows `ROOTFS` and `DIR`, an empty directory.
    fn run(&self, script: &str) -> Output {
        Command::new("unshare")
            .args(["--mount", "bash", "-c"])
            .arg(format!("set -e; mount --make-rprivate /\n{script}"))
            .env("ROOTFS", self.rootfs())
            .env("DIR", self.dir.path())
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .stdin(Stdio::null())
            .output()
            .expect("unshare can be started")
    }
}

fn stdout(what: &str, output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{what}: {stdout}{stderr}");
    stdout
}

#[test]
fn programs_run_under_chroot() {
    if !has("programs_run_under_chroot", NEEDS) {
        return;
    }
    let perl = "chroot $ROOTFS perl -e 'print 6 * 7'";
    let python = "chroot $ROOTFS python3 -c 'print(6 * 7)'";
    let apt = "chroot $ROOTFS apt-get --version | grep -o '^apt'";
    let git = "chroot $ROOTFS git --version | grep -o '^git'";
    let user = "chroot --userspec=1000:1000 $ROOTFS python3 -c 'print(6 * 7)'";
    // perl -e and git open /dev/null, which is a device: `-o dev` for them.
    let rows: [(&str, &[&str], &str, Option<&str>); 11] = [
        ("apt-get", &[], apt, Some("apt")),
        ("python3", &[], python, Some("42")),
        ("git without devices", &[], git, None),
        ("perl without devices", &[], perl, None),
        ("another user", &[], user, None),
        ("apt-get for others", &["--allow-other"], apt, Some("apt")),
        ("python3 for others", &["--allow-other"], python, Some("42")),
        (
            "another user for others",
            &["--allow-other"],
            user,
            Some("42"),
        ),
        ("perl with devices", &["-odev"], perl, Some("42")),
        ("git with devices", &["-odev"], git, Some("git")),
        (
            "perl for others",
            &["--allow-other", "-osuid,dev"],
            perl,
            Some("42"),
        ),
    ];
    for (what, arguments, script, expected) in rows {
        let output = Container::new(arguments).run(script);
        match expected {
            Some(expected) => assert_eq!(stdout(what, &output).trim(), expected, "{what}"),
            None => assert!(!output.status.success(), "{what}: {output:?}"),
        }
    }
}

#[test]
fn it_is_a_lower_layer_of_overlayfs() {
    if !has("it_is_a_lower_layer_of_overlayfs", NEEDS) {
        return;
    }
    // Changes of all kinds: each is in the upper layer, and none below.
    let script = r#"
        mkdir $DIR/{upper,work,merged}
        mount -t overlay overlay -o lowerdir=$ROOTFS,upperdir=$DIR/upper,workdir=$DIR/work $DIR/merged
        cd $DIR/merged
        echo changed >> etc/debian_version
        mv etc/passwd etc/moved
        mkdir etc/new && echo x > etc/new/x
        rm -r var/lib && mkdir var/lib
        chmod 700 usr/lib
        ln odd/link-a odd/link-d
        chroot . git --version | grep -o ^git
        chroot . apt-get --version | grep -o ^apt
        chroot . perl -e 'print "perl\n"'
        rm usr/bin/perl
        chroot . python3 -c 'import os; print(sorted(os.listdir("/var/lib")), os.path.exists("/etc/moved"))'
        stat -c %F $DIR/upper/usr/bin/perl $ROOTFS/usr/bin/perl
        test -e $ROOTFS/etc/passwd -a ! -e etc/passwd -a -d $ROOTFS/var/lib/dpkg
        tail -1 etc/debian_version
        cmp odd/text $ROOTFS/odd/text
        find . -xdev > /dev/null
        cd / && umount $DIR/merged"#;
    for arguments in [
        &[][..],
        &["--allow-other"],
        &["--allow-other", "-osuid,dev"],
    ] {
        let output = Container::new(arguments).run(script);
        let said = stdout("overlay", &output);
        let expected = "git\napt\nperl\n[] True\ncharacter special file\nregular file\nchanged\n";
        assert_eq!(said, expected, "{arguments:?}");
    }
}

/// Runs `$1` in a container whose root is `$2`, read-only or not as `$3` says, by
/// `$RUNTIME`.
///
/// The namespace has the one kind of control groups that crun knows with none of its own.
const IN_CONTAINER: &str = r#"
    in_container() {
        mkdir -p $DIR/bundle && cd $DIR/bundle && rm -f config.json && $RUNTIME spec
        python3 - "$@" <<'PYTHON'
import json, sys
script, root, readonly = sys.argv[1:]
with open('config.json') as file:
    config = json.load(file)
config['root'] = {'path': root, 'readonly': readonly == 'true'}
config['process'].update(terminal=False, args=['sh', '-ec', script])
config['linux'].pop('resources', None)
config['linux']['namespaces'] = [n for n in config['linux']['namespaces'] if n['type'] != 'cgroup']
config['mounts'] = [m for m in config['mounts'] if m['destination'] != '/sys/fs/cgroup']
with open('config.json', 'w') as file:
    json.dump(config, file)
PYTHON
        case $RUNTIME in
            crun) crun --root $DIR/state --cgroup-manager=disabled run "ocifs-$$" ;;
            runc) runc --root $DIR/state run "ocifs-$$" ;;
        esac
    }
    if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
        umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup
    fi
    programs='apt-get --version | grep -o "^apt"; python3 -c "print(6 * 7)"
        git --version | grep -o "^git"; perl -e "print 43"'
"#;

#[test]
fn crun_runs_it() {
    runs_in_containers("crun_runs_it", "crun");
}

#[test]
fn runc_runs_it() {
    runs_in_containers("runc_runs_it", "runc");
}

fn runs_in_containers(test: &str, runtime: &'static str) {
    let tools = [Need::Tool(runtime), Need::Tool("python3")];
    if !has(test, NEEDS) || !has(test, &tools) {
        return;
    }
    let rows = [
        (
            "as it is",
            r#"in_container "$programs; touch /x 2>/dev/null || echo ' fixed'" $ROOTFS true"#,
            "apt\n42\ngit\n43 fixed\n",
        ),
        (
            "below overlayfs",
            r#"mkdir $DIR/{upper,work,merged}
            mount -t overlay overlay -o lowerdir=$ROOTFS,upperdir=$DIR/upper,workdir=$DIR/work $DIR/merged
            in_container "$programs; rm -r /usr/share/perl5; echo ' changed' | tee /x" $DIR/merged false
            cmp $DIR/upper/x <(echo ' changed')"#,
            "apt\n42\ngit\n43 changed\n",
        ),
    ];
    for arguments in [&[][..], &["--allow-other", "-osuid,dev"]] {
        for (what, script, expected) in rows {
            let container = Container::new(arguments);
            let script = format!("RUNTIME={runtime}\n{IN_CONTAINER}\n{script}");
            let output = container.run(&script);
            assert_eq!(stdout(what, &output), expected, "{what}: {arguments:?}");
        }
    }
}

#[test]
fn setuid_programs_and_devices_only_if_asked_for() {
    let name = "setuid_programs_and_devices_only_if_asked_for";
    if !has(name, &[Need::Fuse, Need::Root, Need::Tool("setpriv")]) {
        return;
    }
    let program = fs::read("/usr/bin/id").expect("every machine has id");
    let layout = TestLayout::new();
    let tar = Tarball::new()
        .mode(0o4755)
        .file("id", program)
        .mode(0o666)
        .device("null", 1, 3)
        .finish();
    layout.add_ref(
        "app",
        &layout.image(&[layout.layer_of_tar(Compression::Gzip, &tar)]),
    );
    let rows = [
        ("", "1000", false),
        ("suid", "0", false),
        ("dev", "1000", true),
        ("suid,dev", "0", true),
    ];
    for (options, user, device) in rows {
        let mount = MountOptions::new(layout.path()).arg("--allow-other");
        let mount = mount.arg("-o").arg(options).start();
        let root = mount.join("app/rootfs");
        let id = Command::new("setpriv")
            .args(["--reuid=1000", "--regid=1000", "--clear-groups"])
            .args([root.join("id").as_os_str(), "-u".as_ref()])
            .output()
            .expect("setpriv can be started");
        assert_eq!(stdout("id", &id).trim(), user, "-o {options}");
        let null = fs::write(root.join("null"), "x");
        assert_eq!(null.is_ok(), device, "-o {options}: {null:?}");
    }
}
