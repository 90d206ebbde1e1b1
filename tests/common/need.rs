//! What a test needs of the machine, and what happens where it is missing.
//!
//! A skipped test is reported by name, never passed over in silence: one line in the
//! file that `OCIFS_SKIPPED_FILE` names (`scripts/test` counts them), or on stderr. With
//! `CI` set, what could be there must be there, and the test fails.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// What makes loop devices.
const LOOP_CONTROL: &str = "/dev/loop-control";

/// Something that not every machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// `/dev/fuse`, and the right to open it.
    Fuse,
    /// To be root.
    Root,
    /// Loop devices, and so file systems in files.
    LoopDevice,
    /// A command.
    Tool(&'static str),
    /// The image of `scripts/real-image`, built or possible to build.
    RealImage,
}

impl Need {
    fn is_there(self) -> bool {
        match self {
            Self::Fuse => OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/fuse")
                .is_ok(),
            Self::LoopDevice => OpenOptions::new()
                .read(true)
                .write(true)
                .open(LOOP_CONTROL)
                .is_ok(),
            Self::Root => rustix::process::geteuid().is_root(),
            Self::Tool(name) => is_command(name),
            Self::RealImage => is_real_image_built() || can_build_real_image(),
        }
    }

    /// Whether the machine could have it: tools can be installed and CI runs as root,
    /// but a kernel without FUSE or loop devices stays without.
    fn could_be_there(self) -> bool {
        match self {
            Self::Fuse => Path::new("/dev/fuse").exists(),
            Self::LoopDevice => Path::new(LOOP_CONTROL).exists(),
            Self::Root | Self::Tool(_) | Self::RealImage => true,
        }
    }

    fn missing(self) -> String {
        match self {
            Self::Fuse => "/dev/fuse cannot be opened".to_owned(),
            Self::LoopDevice => format!("{LOOP_CONTROL} cannot be opened"),
            Self::Root => "not root".to_owned(),
            Self::Tool(name) => format!("no command {name}"),
            Self::RealImage => "scripts/real-image was not run, and cannot be run".to_owned(),
        }
    }
}

fn is_command(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(name).is_file())
}

fn is_real_image_built() -> bool {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let entries = fs::read_dir(target).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(b"real-image-")
        })
        .any(|entry| entry.path().join("image.json").exists())
}

fn can_build_real_image() -> bool {
    let tools = [
        "buildah",
        "debootstrap",
        "jq",
        "npm",
        "pzstd",
        "setfattr",
        "skopeo",
    ];
    Need::Root.is_there() && tools.iter().all(|tool| is_command(tool))
}

/// Whether all `needs` are there; otherwise reports the test `name` as skipped.
///
/// # Panics
/// In CI, if one is missing that could be there.
pub fn has(name: &str, needs: &[Need]) -> bool {
    let Some(missing) = needs.iter().find(|need| !need.is_there()) else {
        return true;
    };
    assert!(
        !(in_ci() && missing.could_be_there()),
        "{name} would be skipped in CI: {}",
        missing.missing()
    );
    skip(name, &missing.missing());
    false
}

fn in_ci() -> bool {
    env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false")
}

/// Reports that the test `name`, or a part of it, is skipped.
pub fn skip(name: &str, reason: &str) {
    let line = format!("SKIPPED: {name}: {reason}\n");
    let written = match env::var_os("OCIFS_SKIPPED_FILE") {
        // One write in append mode: lines of several processes do not mix.
        Some(path) => OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes())),
        // Not `eprint!`, which the test harness captures.
        None => io::stderr().write_all(line.as_bytes()),
    };
    written.unwrap_or_else(|error| panic!("cannot report that {name} is skipped: {error}"));
}
