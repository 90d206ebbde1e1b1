//! `ocifs commit`: publishes a session.
//!
//! The daemon is asked by an extended attribute of the session's directory: for that the
//! kernel locks nothing else, so nobody waits while the session is looked at and packed.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use ocifs::oci::RefName;
use ocifs::vfs::views::DROP_BOX;
use rustix::fs::XattrFlags;

use super::compress::Compress;
use super::error::{Refusal, Status};
use super::mounts;

/// What asks for it, with one more word that says how to pack; and what says why not.
const COMMIT: &str = "user.oci.commit";
const ERROR: &str = "user.oci.error";

/// Arguments of `ocifs commit`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where the layout is mounted.
    mountpoint: PathBuf,
    /// The session: a directory in incoming/.
    session: OsString,
    /// The ref name of what has none of its own [default: the name of the session].
    name: Option<RefName>,
    /// How a tree is packed [default: as `ocifs mount` was told].
    #[arg(long, value_name = "HOW")]
    compress: Option<Compress>,
}

/// Publishes a session.
///
/// # Errors
/// Why it is refused.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    // On another file system the attribute would be set, and nothing published.
    if mounts::find(&arguments.mountpoint)?.is_none() {
        let shown = arguments.mountpoint.display();
        let message = format!("no layout is mounted on {shown}");
        return Err(Refusal::not_found(message));
    }
    let drop_box = arguments.mountpoint.join(OsStr::from_bytes(DROP_BOX));
    let path = drop_box.join(&arguments.session);
    let shown = path.display();
    if path.parent() != Some(&drop_box) || !path.is_dir() {
        return Err(Refusal::not_found(format!("{shown} is not a session")));
    }
    let name = arguments.name.as_ref().map_or("", RefName::as_str);
    let order = match arguments.compress {
        Some(compress) => format!("{COMMIT}.{}", compress.word()),
        None => COMMIT.to_owned(),
    };
    let Err(errno) = rustix::fs::setxattr(&path, order, name.as_bytes(), XattrFlags::empty())
    else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut reason = vec![0; 1 << 16];
    match rustix::fs::getxattr(&path, ERROR, &mut *reason) {
        Ok(len) => {
            let reason = String::from_utf8_lossy(&reason[..len]).into_owned();
            let message = format!("{shown} is not published: {reason}");
            let status = status(errno.raw_os_error());
            Err(Refusal { status, message }.into())
        }
        Err(_) => {
            Err(std::io::Error::from(errno)).with_context(|| format!("cannot publish {shown}"))
        }
    }
}

/// The exit status for what the mount answered.
fn status(errno: i32) -> Status {
    match errno {
        libc::EBADMSG | libc::EUCLEAN | libc::ENODATA => Status::Corrupt,
        libc::EEXIST | libc::EBUSY | libc::EINVAL => Status::Finding,
        _ => Status::Failure,
    }
}
