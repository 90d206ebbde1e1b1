//! Why a drop was refused, and the file that says so.

use std::sync::Arc;
use std::time::SystemTime;

use crate::ingest;
use crate::vfs::attr::{Attr, FileKind, Lifetime};
use crate::vfs::error::{Error, Fault};
use crate::vfs::node::{Caching, InMemory, Node, NodeKey, OpenFile, Patience};

use super::shown;

/// What the name of the file ends in.
const ENDING: &[u8] = b".error";

/// Why a drop was refused: the error that its writer gets, and more words than that has.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    error: Error,
    code: &'static str,
    text: String,
}

impl Refusal {
    /// A refusal with a stable code and words for people.
    pub(super) fn new(error: Error, code: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { error, code, text }
    }

    /// The writer was ended by a signal; 0 if it is not known by which.
    pub(super) fn killed(signal: i32) -> Self {
        let how = match signal {
            0 => "ended".to_owned(),
            signal => format!("ended by signal {signal}"),
        };
        let text = format!("the program that wrote it was {how} before it had closed the file");
        Self::new(Error::System(libc::EINTR), "DROP_INTERRUPTED", text)
    }

    /// What the writer gets.
    pub(super) fn error(&self) -> &Error {
        &self.error
    }

    /// What `status.json` and `user.oci.error` say.
    pub(super) fn fault(&self) -> Fault {
        Fault {
            code: self.code,
            text: self.text.clone(),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (code, text) = match error.fault() {
            Some(fault) => (fault.code, fault.text),
            None => ("DROP_REFUSED", error.to_string()),
        };
        Self::new(error, code, text)
    }
}

impl From<ingest::Error> for Refusal {
    fn from(error: ingest::Error) -> Self {
        let (code, text) = (error.code(), crate::vfs::error::chain(&error));
        Self::new(error.into(), code, text)
    }
}

/// The name whose refusal the file `name` tells, if it is such a file.
pub(super) fn subject(name: &[u8]) -> Option<&[u8]> {
    name.strip_suffix(ENDING)
        .filter(|subject| !subject.is_empty())
}

/// The name of the file that tells why `name` was refused. A name that is too long for it
/// is cut.
pub(super) fn file_name(name: &[u8]) -> Vec<u8> {
    let kept = name.len().min(crate::vfs::NAME_MAX - ENDING.len());
    [&name[..kept], ENDING].concat()
}

/// `NAME.error`.
#[derive(Debug)]
pub(super) struct ErrorFile {
    /// Tells apart the refusals of one name.
    number: u64,
    owner: (u32, u32),
    when: SystemTime,
    fault: Fault,
    text: Arc<[u8]>,
}

impl ErrorFile {
    pub(super) fn new(number: u64, name: &[u8], owner: (u32, u32), refusal: &Refusal) -> Self {
        let (fault, errno) = (refusal.fault(), refusal.error.errno());
        let name = String::from_utf8_lossy(name);
        let text = format!(
            "{name:?} was not taken in: {} ({}: {}). The layout is as it was before.\n",
            fault.text,
            fault.code,
            std::io::Error::from_raw_os_error(errno),
        );
        Self {
            number,
            owner,
            when: SystemTime::now(),
            fault,
            text: text.into_bytes().into(),
        }
    }

    /// What was wrong.
    pub(super) fn fault(&self) -> &Fault {
        &self.fault
    }

    /// When that was found.
    pub(super) fn when(&self) -> SystemTime {
        self.when
    }
}

impl Node for ErrorFile {
    fn key(&self) -> NodeKey {
        NodeKey::content("refusal", self.number.to_string())
    }

    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        let attr = shown::file(self.owner, self.text.len() as u64, self.when);
        Ok(Attr {
            mode: 0o444,
            ..attr
        })
    }

    fn name_lifetime(&self) -> Lifetime {
        Lifetime::None
    }

    fn open(&self) -> Result<Arc<dyn OpenFile>, Error> {
        let file = InMemory::new(self.text.clone(), Caching::Direct);
        Ok(Arc::new(file))
    }

    fn xattr_names(&self) -> Vec<Vec<u8>> {
        vec![shown::ERROR.to_vec()]
    }

    fn xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        (name == shown::ERROR).then(|| shown::fault(&self.fault))
    }
}
