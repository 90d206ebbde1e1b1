//! Trees that are copied into a session and published: as they were, for other tools too.

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
    find . -type f -links +1 -printf '%i %P\n' | sort | awk '{if ($1 == i) print p, $2; else p = $2; i = $1}'
    find . -print0 | sort -z | xargs -0 getfattr -h -d -m '^(user\.[^o]|trusted\.b|security\.cap)' -e hex 2>/dev/null
)
"#;

#[test]
fn a_tree_is_published_as_it_is() {
    let needs = [
        Need::Fuse,
        Need::Root,
        Need::Tool("umoci"),
        Need::Tool("tar"),
        Need::Tool("setfattr"),
    ];
    if !has("a_tree_is_published_as_it_is", &needs) {
        return;
    }
    let bench = Bench::new(&[]);
    bench.ok(MAKE);
    bench.ok(r#"mkdir "$IN/app"; cp -a --sparse=always from/. "$IN/app/""#);
    bench.ok(&format!(
        r#"{FACTS}
        facts from > expected; test "$(wc -l < expected)" -gt 60
        facts "$IN/app" > in-session; diff expected in-session
        mv -T "$IN/app" "$MNT/app:1"
        facts "$MNT/app:1/rootfs" > shown; diff <(grep -v '^|d' expected) <(grep -v '^|d' shown)
        mkdir tar; tar --xattrs --xattrs-include='*' --numeric-owner -xpf "$MNT/app:1/layers/00.tar" -C tar
        facts tar > by-tar; diff expected by-tar
        umoci raw unpack --image "$MNT/.ocifs/layout:app:1" umoci 2> /dev/null
        facts umoci > by-umoci; diff expected by-umoci"#
    ));
    assert_eq!(bench.refs(), ["app:1"]);
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
