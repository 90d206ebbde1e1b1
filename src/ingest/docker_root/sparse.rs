//! Where the members of sparse files are in a tar that is put together.
//!
//! The tar is read while it is made: before each gap the parser has seen its header, and
//! knows which regions of the file are stored. What our parser refuses is taken as it
//! comes, since Docker has taken it; the DiffID decides.

use crate::tar::{self, Content, Kind, Parser, Region};

/// What form 1.0 has in its headers.
const IN_DATA: &[u8] = b"GNU.sparse.major=1\n";

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    parser: Option<Parser>,
    /// The last file whose header was complete.
    last: Option<Content>,
    /// The last bytes that are no file's, until a file's come.
    segment: Vec<u8>,
    /// How many bytes there were.
    at: u64,
}

/// What is stored of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stored {
    Whole,
    Regions(Vec<Region>),
    /// These would have been in the data.
    Unknown,
}

impl Watch {
    pub(super) fn new(limits: tar::Limits) -> Self {
        Self {
            parser: Some(Parser::new(limits)),
            last: None,
            segment: Vec::new(),
            at: 0,
        }
    }

    /// Takes bytes that are no file's: headers and padding.
    pub(super) fn segment(&mut self, bytes: Vec<u8>) {
        self.feed(&bytes);
        self.segment = bytes;
    }

    /// Takes any bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.at += bytes.len() as u64;
        let Some(parser) = &mut self.parser else {
            return;
        };
        let last = &mut self.last;
        let fed = parser.feed(bytes, |entry| {
            *last = match entry.kind {
                Kind::File(content) => Some(content),
                _ => None,
            };
            Ok::<(), tar::Error>(())
        });
        if let Err(error) = fed {
            log::debug!("no longer looking for sparse files: {error}");
            self.parser = None;
        }
    }

    /// What is stored of the file of `size` bytes that comes next. Only the headers right
    /// before it can say that its map is in the data: they are looked at once.
    pub(super) fn stored(&mut self, size: u64) -> Stored {
        let headers = std::mem::take(&mut self.segment);
        if self.parser.is_none() {
            return Stored::Whole;
        }
        match &self.last {
            Some(content) if content.data_offset == self.at => match &content.regions {
                Some(regions) if content.size == size => Stored::Regions(regions.clone()),
                _ => Stored::Whole,
            },
            _ if has_map_in_data(&headers) => Stored::Unknown,
            _ => Stored::Whole,
        }
    }
}

/// Whether the headers of a file say that its map comes with the data.
fn has_map_in_data(headers: &[u8]) -> bool {
    headers.windows(IN_DATA.len()).any(|part| part == IN_DATA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_looked_at_once() {
        let mut watch = Watch::new(tar::Limits::default());
        watch.segment(IN_DATA.to_vec());
        assert_eq!(watch.stored(1), Stored::Unknown);
        watch.feed(b"x");
        assert_eq!(watch.stored(1), Stored::Whole, "nothing was announced");
    }
}
