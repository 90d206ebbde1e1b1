//! From what went wrong to a message, a hint and the exit status.

use std::process::ExitCode;

use ocifs::fuse::MountError;
use ocifs::ingest::docker_root;
use ocifs::store::layout::refs;
use ocifs::store::layout::writer;
use ocifs::store::{cache_dir, layout, lock, verify};
use ocifs::vfs;
use ocifs::{archive, ingest};

/// How the command ended; of several findings the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    /// Something was found, or was not found.
    Finding = 1,
    /// The command makes no sense.
    Usage = 2,
    /// Stored data is corrupt.
    Corrupt = 3,
    /// The disk, the system or the mount failed.
    Failure = 4,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// A message of the command line's own, with its exit status.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    pub(crate) status: Status,
    pub(crate) message: String,
}

impl Refusal {
    /// A refusal because of how the command was called.
    pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
        Self {
            status: Status::Usage,
            message: message.into(),
        }
        .into()
    }

    /// A refusal because something is not there.
    pub(crate) fn not_found(message: impl Into<String>) -> anyhow::Error {
        Self {
            status: Status::Finding,
            message: message.into(),
        }
        .into()
    }

    /// A refusal because of the state of the system.
    pub(crate) fn failure(message: impl Into<String>) -> anyhow::Error {
        Self {
            status: Status::Failure,
            message: message.into(),
        }
        .into()
    }
}

/// Prints the error with all its causes and the code of its fault on one line, and gives
/// the exit status.
pub(crate) fn report(error: &anyhow::Error) -> Status {
    let fault = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<vfs::Error>())
        .find_map(vfs::Error::fault);
    let of_archive = || error.downcast_ref().map(archive::read::Error::code);
    let code = fault.map(|fault| fault.code).or_else(of_archive);
    let code = code.map_or_else(String::new, |code| format!(" [{code}]"));
    let hint = hint(error).map_or_else(String::new, |hint| format!("; {hint}"));
    super::output::complain(&format!("{error:#}{code}{hint}"));
    status(error)
}

/// What the user can do about it.
pub(crate) fn hint(error: &anyhow::Error) -> Option<&'static str> {
    for cause in error.chain() {
        if let Some(ingest::Error::Writer(writer::Error::Refused(refs::Refusal::Exists {
            ..
        }))) = cause.downcast_ref()
        {
            return Some("--allow-delete moves it");
        }
        if let Some(ingest::Error::Docker(docker_root::Error::Io { source, .. })) =
            cause.downcast_ref()
            && source.kind() == std::io::ErrorKind::PermissionDenied
        {
            return Some("Docker's store is for root alone");
        }
        if let Some(writer::Error::Refused(refusal)) = cause.downcast_ref() {
            return of_refusal(refusal).1;
        }
        if let Some(lock::Error::Busy { .. }) = cause.downcast_ref() {
            return Some("try again when it has ended (fuser or lslocks tell who it is)");
        }
    }
    None
}

/// The exit status of an error.
pub(crate) fn status(error: &anyhow::Error) -> Status {
    for cause in error.chain() {
        if let Some(refusal) = cause.downcast_ref::<Refusal>() {
            return refusal.status;
        }
        if let Some(error) = cause.downcast_ref::<vfs::Error>() {
            return of_vfs(error);
        }
        if let Some(error) = cause.downcast_ref::<ingest::Error>() {
            return of_ingest(error);
        }
        if let Some(error) = cause.downcast_ref::<layout::Error>() {
            return of_layout(error);
        }
        if let Some(error) = cause.downcast_ref::<archive::read::Error>() {
            return of_archive(error);
        }
        if let Some(error) = cause.downcast_ref::<writer::Error>() {
            return of_writer(error);
        }
        if cause.is::<MountError>() || cause.is::<cache_dir::Error>() {
            return Status::Failure;
        }
    }
    Status::Failure
}

/// The exit status of what a node answered.
pub(crate) fn of_vfs(error: &vfs::Error) -> Status {
    match error {
        vfs::Error::NotFound
        | vfs::Error::BlobMissing(_)
        | vfs::Error::Unsupported(_)
        | vfs::Error::NoAttribute => Status::Finding,
        vfs::Error::Damaged(_) | vfs::Error::Malformed(_) | vfs::Error::Limit(_) => Status::Corrupt,
        vfs::Error::NotDirectory | vfs::Error::IsDirectory | vfs::Error::Invalid => Status::Usage,
        _ => Status::Failure,
    }
}

/// The exit status of a refused import.
fn of_ingest(error: &ingest::Error) -> Status {
    use ingest::ErrorClass as C;
    match error.class() {
        C::Io => Status::Failure,
        C::Invalid => Status::Usage,
        C::Exists | C::Missing | C::Unsupported => Status::Finding,
        C::Mismatch | C::Malformed | C::Limit => Status::Corrupt,
    }
}

/// The exit status of an archive that cannot be opened.
fn of_archive(error: &archive::read::Error) -> Status {
    use archive::ErrorClass as C;
    match error.class() {
        None => Status::Failure,
        Some(C::Missing | C::Unsupported) => Status::Finding,
        Some(C::Mismatch | C::Malformed | C::Limit) => Status::Corrupt,
    }
}

fn of_layout(error: &layout::Error) -> Status {
    match error {
        layout::Error::Missing { .. } | layout::Error::BlobMissing { .. } => Status::Finding,
        layout::Error::Io { .. } => Status::Failure,
        _ => Status::Corrupt,
    }
}

/// The exit status of a failed write.
fn of_writer(error: &writer::Error) -> Status {
    match error.kind() {
        writer::Error::Layout(error) => of_layout(error),
        writer::Error::Refused(refusal) => of_refusal(refusal).0,
        writer::Error::DigestMismatch { .. } | writer::Error::SizeMismatch { .. } => {
            Status::Corrupt
        }
        writer::Error::Algorithm { .. } => Status::Finding,
        writer::Error::Blob(error) => match error {
            verify::Error::Read { .. } => Status::Failure,
            verify::Error::Algorithm { .. } => Status::Finding,
            _ => Status::Corrupt,
        },
        writer::Error::Lock { .. }
        | writer::Error::Contended { .. }
        | writer::Error::Shared(_)
        | writer::Error::Abandoned
        | writer::Error::Io { .. } => Status::Failure,
    }
}

/// The exit status of a refused change of names, and what the user can do about it.
fn of_refusal(refusal: &refs::Refusal) -> (Status, Option<&'static str>) {
    use refs::Refusal as R;
    match refusal {
        R::NotFound { .. } => (Status::Finding, Some("`ocifs ls LAYOUT` shows all refs")),
        R::Exists { .. } => (Status::Finding, Some("--replace moves it")),
        R::Several { .. } => (Status::Finding, Some("say which as NAME@DIGEST")),
        R::ShortName { .. } => (Status::Finding, Some("use that name")),
        R::Malformed { .. } => (Status::Corrupt, None),
        R::Moved { .. } => (Status::Failure, Some("try again")),
    }
}
