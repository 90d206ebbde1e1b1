//! What it takes to drop files, against copying them and having them written.
//!
//! ```text
//! cargo bench --bench drop -- [DIRECTORY…]
//! ```
//!
//! Each DIRECTORY is a file system to measure on: `/dev/shm` and `target/bench` if none is
//! given. A row and its peer take turns, so that a slow moment of the machine falls on both.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How often each is measured.
const ROUNDS: usize = 5;

/// A row: what is measured, what is made ready, ours, and the peer. `$files` holds what is
/// dropped, `$out` is where the peer copies it, `$mnt` is the mount. Large files that were
/// made before are removed for both: whoever overwrote one would be given its memory again,
/// which is quicker than any other.
const ROWS: [Row; 5] = [
    Row {
        name: "1 GiB, its digest known, on disk",
        before: r#"[ -e "$files/big" ] || head -c 1G /dev/urandom >"$files/big"
            find "$layout/blobs" -size +100M -delete; rm -f "$out/big"; head -c 16 /dev/urandom | dd of="$files/big" conv=notrunc status=none; cat "$files/big" >/dev/null"#,
        ours: r#"cp "$files/big" "$mnt/incoming/big""#,
        peer: r#"cp "$files/big" "$out/big"; openssl dgst -sha256 "$out/big" >/dev/null; sync "$out/big""#,
    },
    Row {
        name: "1 GiB, as a file that is synced",
        before: r#"find "$layout/blobs" -size +100M -delete; rm -f "$out/big"; head -c 16 /dev/urandom | dd of="$files/big" conv=notrunc status=none; cat "$files/big" >/dev/null"#,
        ours: r#"cp "$files/big" "$mnt/incoming/big""#,
        peer: r#"cp "$files/big" "$out/big"; sync "$out/big""#,
    },
    Row {
        name: "1,000 of 10 KB, one writer",
        before: SMALL,
        ours: r#"for f in "$files"/small/*; do cp "$f" "$mnt/incoming/"; done"#,
        peer: r#"for f in "$files"/small/*; do cp "$f" "$out/"; sync "$out/${f##*/}"; done"#,
    },
    Row {
        name: "1,000 of 10 KB, 16 writers",
        before: SMALL,
        ours: r#"ls "$files/small" | xargs -P16 -I{} cp "$files/small/{}" "$mnt/incoming/""#,
        peer: r#"ls "$files/small" | xargs -P16 -I{} sh -c 'cp "$files/small/{}" "$out/" && sync "$out/{}"'"#,
    },
    Row {
        name: "100 of 10 KB, 10,000 refs in the index",
        before: MANY,
        ours: r#"for f in "$files"/small/??; do cp "$f" "$mnt/incoming/"; done"#,
        peer: r#"for f in "$files"/small/??; do cp "$layout/index.json" "$out/"; sync "$out/index.json"; done"#,
    },
];

const SMALL: &str = r#"rm -rf "$files/small"; mkdir "$files/small"
    head -c 10240000 /dev/urandom | split -b 10240 -a 3 -d - "$files/small/f""#;

const MANY: &str = r#"rm -rf "$files/small"; mkdir "$files/small"
    head -c 1024000 /dev/urandom | split -b 10240 -a 2 -d - "$files/small/"
    if [ "$(wc -c <"$layout/index.json")" -lt 2000000 ]; then
        python3 - "$layout/index.json" <<'PYTHON'
import json, sys
with open(sys.argv[1]) as file:
    index = json.load(file)
entry = index["manifests"][-1]
for number in range(10000):
    annotations = {"org.opencontainers.image.ref.name": f"name-{number}"}
    index["manifests"].append({**entry, "annotations": annotations})
with open(sys.argv[1], "w") as file:
    json.dump(index, file)
PYTHON
        sleep 3
    fi"#;

struct Row {
    name: &'static str,
    before: &'static str,
    ours: &'static str,
    peer: &'static str,
}

fn main() -> Result<(), Box<dyn Error>> {
    let given = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'));
    let mut places: Vec<PathBuf> = given.map(PathBuf::from).collect();
    if places.is_empty() {
        places = vec!["/dev/shm".into(), "target/bench".into()];
    }
    for place in places {
        fs::create_dir_all(&place)?;
        let bench = Bench::new(&place.canonicalize()?)?;
        for row in &ROWS {
            bench.measure(&place, row)?;
        }
    }
    Ok(())
}

/// A mounted layout, and room beside it on the same file system.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(place: &Path) -> Result<Self, Box<dyn Error>> {
        let bench = Self {
            dir: tempfile::tempdir_in(place)?,
        };
        bench.sh(r#"mkdir -p "$files" "$out" "$mnt" "$layout/blobs/sha256"
            echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
            echo '{"schemaVersion":2,"manifests":[]}' >"$layout/index.json"
            "$ocifs" mount --allow-delete "$layout" "$mnt""#)?;
        Ok(bench)
    }

    fn sh(&self, script: &str) -> Result<Duration, Box<dyn Error>> {
        let mut command = Command::new("sh");
        command
            .args(["-ec", script])
            .env("ocifs", env!("CARGO_BIN_EXE_ocifs"));
        for name in ["files", "out", "mnt", "layout"] {
            command.env(name, self.dir.path().join(name));
        }
        let start = Instant::now();
        let status = command.status()?;
        if !status.success() {
            return Err(format!("{script}: {status}").into());
        }
        Ok(start.elapsed())
    }

    #[expect(clippy::print_stdout, reason = "it prints its results")]
    fn measure(&self, place: &Path, row: &Row) -> Result<(), Box<dyn Error>> {
        let (mut ours, mut peer) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            self.sh(row.before)?;
            ours.push(self.sh(row.ours)?);
            self.sh(row.before)?;
            peer.push(self.sh(row.peer)?);
        }
        let (ours, peer) = (median(ours), median(peer));
        println!(
            "{:12} {:40} {ours:7.3} s, peer {peer:7.3} s: {:.2} times as fast",
            place.display(),
            row.name,
            peer / ours
        );
        Ok(())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Err(error) = self.sh(r#""$ocifs" unmount "$mnt""#) {
            log::error!("{error}");
        }
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}
