//! What can go wrong at the border of the file system, and the only place where that
//! becomes an errno.
//!
//! Each variant of [`Error`] is a meaning that a user of the mount can tell apart.
//! Errors of the rooms below become one of them by `From`; what they said is kept as
//! text, with the stable code under which documentation and `status.json` list it.

use std::io;
use std::sync::Arc;

use crate::store::layout::{refs, writer};
use crate::store::{layout, lock, verify};
use crate::{export, ingest, layer, oci, pack, rootfs, stream};

/// Why a request at the mount was refused.
///
/// Cheap to clone: many waiters can get the same answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// There is no such name.
    #[error("no such file or directory")]
    NotFound,
    /// The name is longer than any can be.
    #[error("name too long")]
    NameTooLong,
    /// The inode or handle is not known, or its place has gone.
    #[error("no longer there")]
    Stale,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// Something else than a directory was needed.
    #[error("is a directory")]
    IsDirectory,
    /// The request makes no sense for this kind of file.
    #[error("invalid request")]
    Invalid,
    /// The file is not one that can be run.
    #[error("permission denied")]
    Denied,
    /// This place is not writable.
    #[error("read-only file system")]
    ReadOnly,
    /// It needs leave that the mount was not given, or is not done here.
    #[error("operation not permitted")]
    NotPermitted,
    /// Something has the name already.
    #[error("file exists")]
    Exists,
    /// Somebody else is at work on it.
    #[error("busy")]
    Busy,
    /// A file of the session is open for writing, or mapped so.
    #[error("{0} is open for writing")]
    InUse(Arc<str>),
    /// A session is being looked at and packed for a rename that cannot wait for it.
    #[error(
        "it is still being prepared: move it again in a moment, or from outside of incoming/, or \
         use `ocifs commit`"
    )]
    Preparing,
    /// The directory is not empty.
    #[error("directory not empty")]
    NotEmpty,
    /// It cannot be moved there, only copied.
    #[error("cannot be moved between these places")]
    CrossDevice,
    /// There is no data at or after this offset.
    #[error("no data there")]
    NoData,
    /// There is no such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// The blob is referenced but not in this layout.
    #[error("{}", .0.text)]
    BlobMissing(Arc<Fault>),
    /// Bytes differ from their digest or size.
    #[error("{}", .0.text)]
    Damaged(Arc<Fault>),
    /// JSON, a compressed stream or the layout is malformed or ambiguous.
    #[error("{}", .0.text)]
    Malformed(Arc<Fault>),
    /// Compression, digest algorithm or encryption is not supported.
    #[error("{}", .0.text)]
    Unsupported(Arc<Fault>),
    /// A limit was hit; the text names it and its value.
    #[error("{}", .0.text)]
    Limit(Arc<Fault>),
    /// The wait was ended because the mount is being taken down.
    #[error("the mount is being taken down")]
    ShutDown,
    /// What the file system below a session answered to what a program asked of it.
    #[error("{}", std::io::Error::from_raw_os_error(*.0))]
    System(i32),
    /// The system refused or the disk failed.
    #[error("{text}")]
    Io {
        /// The system's error number, where it gave one.
        errno: Option<i32>,
        /// What was tried, and what the system said.
        text: Arc<str>,
    },
}

/// What is wrong with some content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Stable name of the kind of fault, such as `BLOB_DIGEST`.
    pub code: &'static str,
    /// One sentence for people.
    pub text: String,
}

/// How loudly a failed request is logged.
///
/// What a program may well ask for is trace; what means broken data or a broken disk is
/// an error.
pub type Level = log::Level;

impl Error {
    /// The error number that the kernel is given.
    ///
    /// The order of the content variants is that of precedence where several apply.
    #[must_use]
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn errno(&self) -> i32 {
        match self {
            Self::NotFound => libc::ENOENT,
            Self::NameTooLong => libc::ENAMETOOLONG,
            Self::Stale => libc::ESTALE,
            Self::NotDirectory => libc::ENOTDIR,
            Self::IsDirectory => libc::EISDIR,
            Self::Invalid => libc::EINVAL,
            Self::Denied => libc::EACCES,
            Self::ReadOnly => libc::EROFS,
            Self::NotPermitted => libc::EPERM,
            Self::Exists => libc::EEXIST,
            Self::Busy | Self::InUse(_) | Self::Preparing => libc::EBUSY,
            Self::NotEmpty => libc::ENOTEMPTY,
            Self::CrossDevice => libc::EXDEV,
            Self::NoData => libc::ENXIO,
            Self::NoAttribute | Self::BlobMissing(_) => libc::ENODATA,
            Self::Damaged(_) => libc::EBADMSG,
            Self::Malformed(_) => libc::EUCLEAN,
            Self::Unsupported(_) => libc::EOPNOTSUPP,
            Self::Limit(_) => libc::EFBIG,
            Self::ShutDown => libc::EIO,
            // The kernel would take ENOSYS for never to be asked again.
            Self::System(libc::ENOSYS) => libc::EIO,
            Self::System(errno) => *errno,
            Self::Io { errno, .. } => errno
                .filter(|errno| *errno != libc::ENOSYS)
                .unwrap_or(libc::EIO),
        }
    }

    /// How loudly to log a request that failed so.
    #[must_use]
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn level(&self) -> Level {
        match self {
            Self::NotFound | Self::NoAttribute | Self::NoData | Self::System(_) => Level::Trace,
            Self::NameTooLong
            | Self::Stale
            | Self::NotDirectory
            | Self::IsDirectory
            | Self::Invalid
            | Self::Denied
            | Self::ReadOnly
            | Self::NotPermitted
            | Self::Exists
            | Self::Busy
            | Self::InUse(_)
            | Self::Preparing
            | Self::NotEmpty
            | Self::CrossDevice
            | Self::ShutDown => Level::Debug,
            Self::BlobMissing(_) | Self::Unsupported(_) => Level::Warn,
            Self::Damaged(_) | Self::Malformed(_) | Self::Limit(_) | Self::Io { .. } => {
                Level::Error
            }
        }
    }

    /// The fault of the content, if it is the content that is wrong.
    #[must_use]
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::BlobMissing(fault)
            | Self::Damaged(fault)
            | Self::Malformed(fault)
            | Self::Unsupported(fault)
            | Self::Limit(fault) => Some(Fault::clone(fault)),
            Self::Io { text, .. } => Some(Fault {
                code: "IO",
                text: text.to_string(),
            }),
            Self::NotFound
            | Self::NameTooLong
            | Self::Stale
            | Self::NotDirectory
            | Self::IsDirectory
            | Self::Invalid
            | Self::Denied
            | Self::ReadOnly
            | Self::NotPermitted
            | Self::Exists
            | Self::Busy
            | Self::InUse(_)
            | Self::Preparing
            | Self::NotEmpty
            | Self::CrossDevice
            | Self::NoData
            | Self::NoAttribute
            | Self::System(_)
            | Self::ShutDown => None,
        }
    }

    /// Which of two that apply to one thing is told: `ENODATA`, `EBADMSG`, `EUCLEAN`,
    /// `EOPNOTSUPP`, `EFBIG`, then all others; the first of two that are alike.
    #[must_use]
    pub(super) fn or(self, other: Self) -> Self {
        if other.rank() < self.rank() {
            other
        } else {
            self
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::BlobMissing(_) => 0,
            Self::Damaged(_) => 1,
            Self::Malformed(_) => 2,
            Self::Unsupported(_) => 3,
            Self::Limit(_) => 4,
            _ => 5,
        }
    }

    /// The right bytes are there again, but the kernel still reads an older file for those
    /// who opened it before, and that one was damaged meanwhile.
    #[must_use]
    pub fn held_elsewhere() -> Self {
        let text = "damaged while it was open, and still open elsewhere".to_owned();
        Self::damaged("BLOB_CHANGED", text)
    }

    /// A file of a session is open for writing, or mapped so.
    pub(super) fn in_use(path: &str) -> Self {
        Self::InUse(path.into())
    }

    pub(super) fn damaged(code: &'static str, text: String) -> Self {
        Self::Damaged(Arc::new(Fault { code, text }))
    }

    pub(super) fn malformed(code: &'static str, text: String) -> Self {
        Self::Malformed(Arc::new(Fault { code, text }))
    }

    pub(super) fn unsupported(code: &'static str, text: String) -> Self {
        Self::Unsupported(Arc::new(Fault { code, text }))
    }

    pub(super) fn limit(code: &'static str, text: String) -> Self {
        Self::Limit(Arc::new(Fault { code, text }))
    }

    pub(super) fn missing(code: &'static str, text: String) -> Self {
        Self::BlobMissing(Arc::new(Fault { code, text }))
    }
}

/// What it means that bytes are not there any more which were.
const SHRUNK: stream::Error = stream::Error::Shrunk;

/// The longest text of an error, in bytes. It may quote a document of megabytes, while an
/// extended attribute takes 64 KiB, and a thousand faults are kept.
const MAX_TEXT: usize = 2_000;

/// The whole chain of an error as one line, cut to a readable length.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    if text.len() > MAX_TEXT {
        let mut end = MAX_TEXT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// What the system said, whatever was done. Where the content of a blob was read, use
/// [`Error::of_content`]: there an early end means damage.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::of_io(&error, chain(&error))
    }
}

impl From<oci::Error> for Error {
    fn from(error: oci::Error) -> Self {
        Self::of_document(&error, chain(&error))
    }
}

impl From<layout::Error> for Error {
    fn from(error: layout::Error) -> Self {
        Self::of_layout(&error)
    }
}

impl From<verify::Error> for Error {
    fn from(error: verify::Error) -> Self {
        Self::of_verify(&error)
    }
}

impl From<writer::Error> for Error {
    fn from(error: writer::Error) -> Self {
        let text = chain(&error);
        let io = |errno: Option<i32>, text: String| Self::Io {
            errno,
            text: text.into(),
        };
        match error.kind() {
            writer::Error::Layout(error) => Self::of_layout(error),
            writer::Error::Refused(refusal) => Self::of_refusal(refusal),
            writer::Error::Blob(error) => Self::of_verify(error),
            writer::Error::DigestMismatch { .. } => Self::damaged("BLOB_DIGEST", text),
            writer::Error::SizeMismatch { .. } => Self::damaged("BLOB_SIZE", text),
            writer::Error::Algorithm { .. } => Self::unsupported("DIGEST_ALGORITHM", text),
            writer::Error::Lock { source, .. } => match source {
                lock::Error::Busy { .. } => Self::Busy,
                lock::Error::FileType => Self::malformed("LAYOUT_FILE_TYPE", text),
                lock::Error::Io { source, .. } => io(source.raw_os_error(), text),
            },
            writer::Error::Contended { .. } => Self::Busy,
            writer::Error::Io { source, .. } => io(source.raw_os_error(), text),
            writer::Error::Shared(_) | writer::Error::Abandoned => io(None, text),
        }
    }
}

impl Error {
    /// What reading the content of a blob said: one that ends before its size has shrunk
    /// since it was opened.
    pub(super) fn of_content(error: &io::Error) -> Self {
        Self::of_read(error, chain(error))
    }

    /// The same, told as `text`.
    fn of_read(error: &io::Error, text: String) -> Self {
        let is_shrunk = error.kind() == io::ErrorKind::UnexpectedEof && inner(error).is_none();
        if is_shrunk {
            return of_class(SHRUNK.class(), SHRUNK.code(), text);
        }
        Self::of_io(error, text)
    }

    /// What the system said, told as `text`. Bytes may come out of a compressed stream,
    /// whose errors keep their own meaning.
    fn of_io(error: &io::Error, text: String) -> Self {
        match inner(error) {
            Some(error) => of_class(error.class(), error.code(), text),
            None => Self::Io {
                errno: error.raw_os_error(),
                text: text.into(),
            },
        }
    }

    /// What is wrong with a document, said as `text`.
    fn of_document(error: &oci::Error, text: String) -> Self {
        let code = error.code();
        match error.class() {
            oci::ErrorClass::Malformed => Self::malformed(code, text),
            oci::ErrorClass::Unsupported => Self::unsupported(code, text),
            oci::ErrorClass::Limit => Self::limit(code, text),
            oci::ErrorClass::Mismatch => Self::damaged(code, text),
        }
    }

    fn of_layout(error: &layout::Error) -> Self {
        let text = chain(error);
        match error {
            layout::Error::BlobMissing { .. } => Self::missing("BLOB_MISSING", text),
            layout::Error::Missing { .. } => Self::missing("LAYOUT_FILE_MISSING", text),
            layout::Error::FileType { .. } => Self::malformed("LAYOUT_FILE_TYPE", text),
            layout::Error::Empty { .. } => Self::malformed("LAYOUT_FILE_EMPTY", text),
            layout::Error::Unsettled { .. } => Self::malformed("LAYOUT_FILE_UNSETTLED", text),
            layout::Error::Version { .. } => Self::unsupported("LAYOUT_VERSION", text),
            layout::Error::Content { source, .. } => source.clone().into(),
            layout::Error::Io { source, .. } => Self::of_io(source, text),
        }
    }

    fn of_verify(error: &verify::Error) -> Self {
        let text = chain(error);
        match error {
            verify::Error::DigestMismatch { .. } => Self::damaged("BLOB_DIGEST", text),
            verify::Error::Changed { .. } => Self::damaged("BLOB_CHANGED", text),
            verify::Error::Algorithm { .. } => Self::unsupported("DIGEST_ALGORITHM", text),
            verify::Error::TooLarge { .. } => Self::limit("LIMIT_BLOB_SIZE", text),
            verify::Error::Read { source, .. } => Self::of_read(source, text),
        }
    }

    fn of_refusal(refusal: &refs::Refusal) -> Self {
        match refusal {
            refs::Refusal::NotFound { .. } => Self::NotFound,
            refs::Refusal::Exists { .. } => Self::Exists,
            refs::Refusal::Several { .. } => Self::Invalid,
            refs::Refusal::ShortName { .. } => Self::NotPermitted,
            refs::Refusal::Malformed { source, .. } => source.clone().into(),
            refs::Refusal::Moved { .. } => Self::Busy,
        }
    }
}

impl From<stream::Error> for Error {
    fn from(error: stream::Error) -> Self {
        of_class(error.class(), error.code(), chain(&error))
    }
}

impl From<layer::Error> for Error {
    fn from(error: layer::Error) -> Self {
        of_class(error.class(), error.code(), chain(&error))
    }
}

impl From<rootfs::Error> for Error {
    fn from(error: rootfs::Error) -> Self {
        let (code, text) = (error.code(), chain(&error));
        match error {
            rootfs::Error::Whiteout { .. } | rootfs::Error::SymlinkLoop { .. } => {
                Self::malformed(code, text)
            }
            rootfs::Error::Limit { .. } => Self::limit(code, text),
        }
    }
}

impl From<pack::Error> for Error {
    fn from(error: pack::Error) -> Self {
        let (code, text) = (error.code(), chain(&error));
        match error {
            pack::Error::Changed { .. } => Self::damaged(code, text),
            pack::Error::Whiteout { .. } => Self::malformed(code, text),
            pack::Error::Limit { .. } | pack::Error::TooLarge { .. } => Self::limit(code, text),
            pack::Error::Io { source, .. } | pack::Error::Sink(source) => Self::Io {
                errno: source.raw_os_error(),
                text: text.into(),
            },
        }
    }
}

impl From<export::Error> for Error {
    fn from(error: export::Error) -> Self {
        use export::Error as E;
        let text = chain(&error);
        match &error {
            E::Layout(error) => Self::of_layout(error),
            E::Blob(error) => Self::of_verify(error),
            E::BlobSize { .. } => Self::damaged("BLOB_SIZE", text),
            E::Document { source, .. } => Self::of_document(source, text),
            E::TooMany { .. } | E::TooLarge => Self::limit("LIMIT_EXPORT", text),
            E::NoImage => Self::unsupported("EXPORT_NO_IMAGE", text),
            E::NotAnImage { .. } => Self::unsupported("EXPORT_NOT_AN_IMAGE", text),
            E::Write(source) => Self::Io {
                errno: source.raw_os_error(),
                text: text.into(),
            },
        }
    }
}

impl From<refs::Refusal> for Error {
    fn from(refusal: refs::Refusal) -> Self {
        Self::of_refusal(&refusal)
    }
}

impl From<ingest::Error> for Error {
    fn from(error: ingest::Error) -> Self {
        use ingest::ErrorClass as Class;
        let (code, text) = (error.code(), chain(&error));
        match error.class() {
            Class::Io => Self::Io {
                errno: system_errno(&error),
                text: text.into(),
            },
            Class::Invalid => Self::Invalid,
            Class::Exists => Self::Exists,
            Class::Missing => Self::missing(code, text),
            Class::Mismatch => Self::damaged(code, text),
            Class::Malformed => Self::malformed(code, text),
            Class::Unsupported => Self::unsupported(code, text),
            Class::Limit => Self::limit(code, text),
        }
    }
}

/// What a compressed stream said, if it is that which could not be read.
fn inner(error: &io::Error) -> Option<&stream::Error> {
    error.get_ref()?.downcast_ref()
}

/// The system's error number at the root of an error, if there is one.
fn system_errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        let shared = error.downcast_ref::<Arc<io::Error>>().map(|error| &**error);
        let system = error.downcast_ref::<io::Error>().or(shared);
        let errno = system.and_then(io::Error::raw_os_error);
        if errno.is_some() {
            return errno;
        }
        next = error.source();
    }
    None
}

fn of_class(class: stream::ErrorClass, code: &'static str, text: String) -> Error {
    match class {
        stream::ErrorClass::Mismatch => Error::damaged(code, text),
        stream::ErrorClass::Malformed => Error::malformed(code, text),
        stream::ErrorClass::Unsupported => Error::unsupported(code, text),
        stream::ErrorClass::Limit => Error::limit(code, text),
        stream::ErrorClass::Io => Error::Io {
            errno: None,
            text: text.into(),
        },
        stream::ErrorClass::ShutDown => Error::ShutDown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The row that every variant must have: its errno and how loudly it is logged.
    fn expected(error: &Error) -> (i32, Level) {
        match error {
            Error::NotFound => (libc::ENOENT, Level::Trace),
            Error::NameTooLong => (libc::ENAMETOOLONG, Level::Debug),
            Error::Stale => (libc::ESTALE, Level::Debug),
            Error::NotDirectory => (libc::ENOTDIR, Level::Debug),
            Error::IsDirectory => (libc::EISDIR, Level::Debug),
            Error::Invalid => (libc::EINVAL, Level::Debug),
            Error::Denied => (libc::EACCES, Level::Debug),
            Error::ReadOnly => (libc::EROFS, Level::Debug),
            Error::NotPermitted => (libc::EPERM, Level::Debug),
            Error::Exists => (libc::EEXIST, Level::Debug),
            Error::Busy | Error::InUse(_) | Error::Preparing => (libc::EBUSY, Level::Debug),
            Error::NotEmpty => (libc::ENOTEMPTY, Level::Debug),
            Error::CrossDevice => (libc::EXDEV, Level::Debug),
            Error::System(libc::ENOSYS) => (libc::EIO, Level::Trace),
            Error::System(errno) => (*errno, Level::Trace),
            Error::NoData => (libc::ENXIO, Level::Trace),
            Error::NoAttribute => (libc::ENODATA, Level::Trace),
            Error::BlobMissing(_) => (libc::ENODATA, Level::Warn),
            Error::Damaged(_) => (libc::EBADMSG, Level::Error),
            Error::Malformed(_) => (libc::EUCLEAN, Level::Error),
            Error::Unsupported(_) => (libc::EOPNOTSUPP, Level::Warn),
            Error::Limit(_) => (libc::EFBIG, Level::Error),
            Error::ShutDown => (libc::EIO, Level::Debug),
            Error::Io {
                errno: Some(libc::ENOSYS) | None,
                ..
            } => (libc::EIO, Level::Error),
            Error::Io {
                errno: Some(errno), ..
            } => (*errno, Level::Error),
        }
    }

    #[test]
    fn errno_and_level_of_every_meaning() {
        let fault = || {
            Arc::new(Fault {
                code: "CODE",
                text: "text".into(),
            })
        };
        let io = |errno| Error::Io {
            errno,
            text: "text".into(),
        };
        let all = [
            Error::NotFound,
            Error::NameTooLong,
            Error::Stale,
            Error::NotDirectory,
            Error::IsDirectory,
            Error::Invalid,
            Error::Denied,
            Error::ReadOnly,
            Error::NotPermitted,
            Error::Exists,
            Error::Busy,
            Error::InUse("a file".into()),
            Error::Preparing,
            Error::NotEmpty,
            Error::CrossDevice,
            Error::System(libc::ELOOP),
            Error::System(libc::ENOSYS),
            Error::NoData,
            Error::NoAttribute,
            Error::BlobMissing(fault()),
            Error::Damaged(fault()),
            Error::Malformed(fault()),
            Error::Unsupported(fault()),
            Error::Limit(fault()),
            Error::ShutDown,
            io(None),
            io(Some(libc::ENOSPC)),
            io(Some(libc::ENOSYS)),
        ];
        for error in all {
            assert_eq!(
                (error.errno(), error.level()),
                expected(&error),
                "{error:?}"
            );
            assert_ne!(
                error.errno(),
                libc::ENOSYS,
                "the kernel would never ask again"
            );
        }
    }

    #[test]
    fn of_several_the_most_telling_is_told() {
        let missing = || Error::missing("A", String::new());
        let damaged = || Error::damaged("B", String::new());
        let rows = [
            (missing(), damaged(), "A"),
            (damaged(), missing(), "A"),
            (Error::limit("C", String::new()), damaged(), "B"),
            (damaged(), Error::damaged("D", String::new()), "B"),
            (Error::NotFound, damaged(), "B"),
        ];
        for (one, other, expected) in rows {
            let row = format!("{one:?} or {other:?}");
            let fault = one.or(other).fault();
            assert_eq!(fault.map(|fault| fault.code), Some(expected), "{row}");
        }
    }

    #[test]
    fn what_a_stream_beneath_says_keeps_its_meaning() {
        let changed = || stream::Error::SpanCheck {
            at: stream::TarOffset(7),
        };
        let read = |source| {
            let digest = oci::Digest::of(b"x");
            Error::from(verify::Error::Read { digest, source })
        };
        let system = || io::Error::from_raw_os_error(libc::EACCES);
        let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let layout = |source| {
            let (action, path) = ("read", "index.json".into());
            Error::from(layout::Error::Io {
                action,
                path,
                source,
            })
        };
        let rows = [
            (
                "changed",
                Error::from(io::Error::from(changed())),
                libc::EBADMSG,
            ),
            ("while hashing", read(changed().into()), libc::EBADMSG),
            ("shrunk while hashing", read(end()), libc::EBADMSG),
            ("shrunk", Error::of_content(&end()), libc::EBADMSG),
            ("an end of something else", Error::from(end()), libc::EIO),
            ("an end in the layout", layout(end()), libc::EIO),
            (
                "content of a stream",
                Error::of_content(&stream::Error::Truncated.into()),
                libc::EUCLEAN,
            ),
            (
                "content, the system",
                Error::of_content(&system()),
                libc::EACCES,
            ),
            (
                "malformed",
                read(stream::Error::Truncated.into()),
                libc::EUCLEAN,
            ),
            ("the system", read(system()), libc::EACCES),
            ("nobody knows", read(io::Error::other("x")), libc::EIO),
        ];
        for (name, error, errno) in rows {
            assert_eq!(error.errno(), errno, "{name}: {error}");
        }
    }

    #[test]
    fn causes_are_told_in_one_line() {
        let digest = oci::Digest::of(b"x");
        let source = io::Error::from_raw_os_error(libc::EACCES);
        let error = Error::from(verify::Error::Read { digest, source });
        assert_eq!(error.errno(), libc::EACCES);
        assert!(error.to_string().contains(": Permission denied"), "{error}");
    }
}
