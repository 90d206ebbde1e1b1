//! Who may write, see and publish what, where there is more than one user.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Output};

use crate::common::{MountOptions, Need, TestLayout, has, verify_layout};
use crate::users::{Home, NAMESPACE, OPEN_DEVICE, assert_succeeds};

/// Two plain users; no entry in the table of users is needed.
const ONE: u32 = 1000;
const OTHER: u32 = 1001;
const ROOT: u32 = 0;

/// What somebody tries, and what the answer has in it; nothing if it is done.
type Row = (u32, &'static str, &'static str);

const DENIED: &str = "Permission denied";
const NOT_PERMITTED: &str = "Operation not permitted";

/// In order: each goes on from what those before have left.
const ROWS: &[Row] = &[
    // A session is its maker's.
    (
        ONE,
        r#"mkdir "$IN/job"; echo one > "$IN/job/f"; mkfifo "$IN/job/p""#,
        "",
    ),
    (
        ONE,
        r#"test "$(stat -c %u:%g "$IN/job" "$IN/job/f" | uniq)" = 1000:1000"#,
        "",
    ),
    (ONE, r#"mknod "$IN/job/null" c 1 3"#, NOT_PERMITTED),
    (ONE, r#"chown 0:0 "$IN/job/f""#, NOT_PERMITTED),
    (
        ONE,
        r#"cp /bin/true "$IN/job/s"; chmod 4755 "$IN/job/s"; test -u "$IN/job/s""#,
        "",
    ),
    (
        OTHER,
        r#"ls "$IN" "$IN/job"; test "$(cat "$IN/job/f")" = one"#,
        "",
    ),
    (OTHER, r#"echo x > "$IN/job/g""#, DENIED),
    (OTHER, r#"echo x >> "$IN/job/f""#, DENIED),
    (OTHER, r#"rm "$IN/job/f""#, DENIED),
    (OTHER, r#"truncate -s 0 "$IN/job/f""#, DENIED),
    (OTHER, r#"chmod 777 "$IN/job""#, NOT_PERMITTED),
    (OTHER, r#"touch -d 2001-01-01 "$IN/job/f""#, DENIED),
    (OTHER, r#"setfattr -n user.x -v y "$IN/job/f""#, DENIED),
    (
        OTHER,
        r#"mkdir "$IN/mine"; ln "$IN/job/f" "$IN/mine/f""#,
        NOT_PERMITTED,
    ),
    (OTHER, r#"mv "$IN/job" "$IN/taken""#, NOT_PERMITTED),
    (OTHER, r#"rmdir "$IN/job""#, NOT_PERMITTED),
    (OTHER, r#"mkdir "$IN/job""#, "File exists"),
    (OTHER, r#"mv -T "$IN/job" "$MNT/app""#, NOT_PERMITTED),
    (OTHER, r#""$OCIFS" commit "$MNT" job"#, DENIED),
    (
        OTHER,
        r#"setfattr -n user.oci.commit -v app "$IN/job""#,
        DENIED,
    ),
    (ONE, r#"chmod 700 "$IN/job""#, ""),
    (OTHER, r#"ls "$IN/job""#, DENIED),
    (OTHER, r#"cat "$IN/job/f""#, DENIED),
    (OTHER, r#"cd "$IN/job""#, DENIED),
    (OTHER, r#"stat "$IN/job/nothing""#, DENIED),
    // So is a drop.
    (
        ONE,
        r#"echo note > "$IN/note"; test "$(stat -c %u "$IN/note")" = 1000"#,
        "",
    ),
    (OTHER, r#"test "$(cat "$IN/note")" = note"#, ""),
    (OTHER, r#"echo x > "$IN/note""#, DENIED),
    (OTHER, r#"rm -f "$IN/note""#, NOT_PERMITTED),
    (OTHER, r#"mv "$IN/note" "$IN/other""#, NOT_PERMITTED),
    (OTHER, r#"echo theirs > "$IN/theirs""#, ""),
    (
        ONE,
        r#"echo x > "$IN/sha256:0000000000000000000000000000000000000000000000000000000000000000"; true"#,
        "",
    ),
    (OTHER, r#"grep -q BLOB_DIGEST "$IN"/sha256:*.error"#, ""),
    (OTHER, r#"rm -f "$IN"/sha256:*.error"#, NOT_PERMITTED),
    (ONE, r#"rm "$IN"/sha256:*.error"#, ""),
    (OTHER, r#"cp "$IN/note" "$IN/blobs/x""#, ""),
    // Names of refs are the layout's owner's, but a new one comes with what is brought in.
    (ONE, r#"mv -T "$IN/job" "$MNT/app""#, DENIED),
    (ONE, r#"ln -s note "$MNT/again""#, DENIED),
    (ONE, r#"mkdir "$MNT/level""#, DENIED),
    (ONE, r#"mv "$MNT/note" "$MNT/again""#, DENIED),
    (ONE, r#"rmdir "$MNT/note""#, DENIED),
    (
        ONE,
        r#"setfattr -n user.oci.annotation.x -v y "$MNT/note""#,
        DENIED,
    ),
    (ONE, r#""$OCIFS" commit "$MNT" job note"#, "exists"),
    (
        ONE,
        r#"chmod 600 "$IN/job/f"; "$OCIFS" commit "$MNT" job team/app:1"#,
        "",
    ),
    (
        ONE,
        r#"test ! -e "$IN/job"; test "$(cat "$MNT/team/app:1/rootfs/f")" = one"#,
        "",
    ),
    // In the image modes are what they were; what is published is everybody's to read.
    (OTHER, r#"cat "$MNT/team/app:1/rootfs/f""#, DENIED),
    (
        OTHER,
        r#"tar --wildcards -xOf "$MNT/team/app:1/layers/00.tar" '*f' | grep -qx one"#,
        "",
    ),
    (
        ROOT,
        r#"mkdir "$IN/by-root"; chmod 755 "$IN/by-root"; mv -T "$IN/mine" "$MNT/mine""#,
        "",
    ),
    (OTHER, r#"test -d "$MNT/mine"; test ! -e "$IN/mine""#, ""),
    (OTHER, r#""$OCIFS" commit "$MNT" by-root"#, DENIED),
];

/// Runs a script as a user.
fn run_as(user: u32, script: &str, mount: &std::path::Path, program: &std::path::Path) -> Output {
    let user = user.to_string();
    Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .args(["bash", "-ec", script])
        .env("MNT", mount)
        .env("IN", mount.join("incoming"))
        .env("OCIFS", program)
        .env("LC_ALL", "C")
        .current_dir("/")
        .output()
        .expect("setpriv can be started")
}

#[test]
fn several_users_share_a_drop_box() {
    let needs = [Need::Fuse, Need::Root, Need::Tool("setpriv")];
    if !has("several_users_share_a_drop_box", &needs) {
        return;
    }
    let layout = TestLayout::new();
    let mount = MountOptions::new(layout.path())
        .arg("--allow-other")
        .start();
    let around = mount.path().parent().expect("it is in a directory");
    fs::set_permissions(around, Permissions::from_mode(0o755)).expect("it is ours");
    // Where everybody may run it.
    let program = around.join("ocifs");
    fs::copy(env!("CARGO_BIN_EXE_ocifs"), &program).expect("it can be copied");
    for (user, script, expected) in ROWS {
        let output = run_as(*user, script, mount.path(), &program);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.success(),
            expected.is_empty(),
            "{user}: {script}: {said}"
        );
        assert!(
            said.contains(expected),
            "{user}: {script}: {said}, not {expected}"
        );
    }
    for entry in fs::read_dir(layout.path().join("blobs/sha256")).expect("it is there") {
        let stat = entry
            .and_then(|entry| entry.metadata())
            .expect("it is there");
        assert_eq!(
            (stat.uid(), stat.mode() & 0o7777),
            (0, 0o644),
            "a blob is the layout's"
        );
    }
    verify_layout(layout.path());
}

#[test]
fn a_plain_user_writes_alone() {
    if !has("a_plain_user_writes_alone", NAMESPACE) {
        return;
    }
    let home = Home::new();
    fs::set_permissions(home.path("."), Permissions::from_mode(0o755)).expect("it is ours");
    // The kernel reads and writes no file itself for him, and checks no modes.
    let script = r#"set -e
        as() { setpriv --reuid $1 --regid $1 --clear-groups bash -ec "$2"; }
        export IN=$MNT/incoming
        as 1000 '$OCIFS mount $LAYOUT $MNT
            echo note > $IN/note; cat $MNT/note/manifest.json > /dev/null
            mkdir -p $IN/job/etc; echo one > $IN/job/etc/f; chmod 600 $IN/job/etc/f
            head -c 2100000 $HOME/ocifs | dd of=$IN/job/noise bs=7k status=none
            echo changed | dd of=$IN/job/noise bs=1 seek=100000 conv=notrunc status=none
            sha256sum < $IN/job/noise > before
            mv $IN/job $MNT/app:2
            sha256sum < $MNT/app:2/rootfs/noise | cmp - before
            stat -c %u:%g:%a $MNT/app:2/rootfs/etc/f
            mkdir $IN/large; head -c 80M $HOME/ocifs > $IN/large/f; stat -c %s $IN/large/f > size'
        for user in 0 1001; do
            ! as $user 'ls $MNT' 2>&1 | grep -o "Permission denied"
            ! as $user 'mkdir $IN/x' 2>&1 | grep -o "Permission denied"
        done
        # From inside, where nothing can wait before the locks: at once, or asked for anew.
        as 1000 'cd $IN/large
            for try in $(seq 30); do
                mv -T ../large ../../large 2> $HOME/said && break
                grep -q "resource busy" $HOME/said; grep -q "still being prepared" $IN/large.error; sleep 0.5
            done
            stat -c %s $MNT/large/rootfs/f | cmp - $HOME/size; test ! -e $IN/large; test ! -e $IN/large.error
            cd /; $OCIFS unmount $MNT'"#;
    let stdout = assert_succeeds("a plain user", &home.as_root(OPEN_DEVICE, script));
    let expected = ["1000:1000:600", DENIED, DENIED, DENIED, DENIED];
    assert_eq!(stdout.lines().collect::<Vec<_>>(), expected);
}
