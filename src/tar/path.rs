//! Paths of a tar, made relative to the root of the layer.

/// The longest component of a path, in bytes: `NAME_MAX` of Linux. Longer ones must never
/// reach the kernel.
pub(super) const MAX_NAME: usize = 255;

/// A path below the root: components joined by one `/`, none of them empty, `.` or `..`.
/// The root itself is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Normal {
    pub(super) path: Vec<u8>,
    /// Whether a `..` would have led above the root.
    pub(super) climbs: bool,
}

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It holds a NUL, which no file name can.
    Nul,
    /// A component has so many bytes.
    ComponentTooLong(usize),
    /// It has more components than allowed.
    TooDeep,
}

/// A path as a header holds it: a prefix, which may be empty, and a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Raw<'a> {
    pub(super) prefix: &'a [u8],
    pub(super) name: &'a [u8],
}

impl<'a> Raw<'a> {
    /// A path in one piece.
    pub(super) const fn whole(name: &'a [u8]) -> Self {
        Self { prefix: b"", name }
    }

    /// Whether it ends in a slash, the one between prefix and name included.
    pub(super) fn has_trailing_slash(self) -> bool {
        match self.name.last() {
            Some(last) => *last == b'/',
            None => !self.prefix.is_empty(),
        }
    }

    /// The path in one piece.
    pub(super) fn joined(self) -> Vec<u8> {
        if self.prefix.is_empty() {
            return self.name.to_vec();
        }
        [self.prefix, self.name].join(&b'/')
    }

    /// Removes what does not change where a path leads, by its text alone, and stops it
    /// at the root: absolute paths begin there, and `..` there leads nowhere.
    ///
    /// Spec: containerd, umoci and docker clean the name before they join it to the root.
    pub(super) fn normalise(self, max_depth: u64) -> Result<Normal, Fault> {
        let mut normal = Normal::default();
        normal.path.reserve(self.prefix.len() + self.name.len() + 1);
        let mut depth = 0;
        for part in [self.prefix, self.name] {
            // At this point a NUL can only come from GNU.sparse.name.
            if part.contains(&0) {
                return Err(Fault::Nul);
            }
            for component in part.split(|byte| *byte == b'/') {
                match component {
                    b"" | b"." => {}
                    b".." => normal.climb(&mut depth),
                    name => normal.descend(name, &mut depth),
                }
            }
        }
        // `..` may have taken back what was too long or too deep, so this comes last.
        if depth > max_depth {
            return Err(Fault::TooDeep);
        }
        let longest = normal
            .path
            .split(|byte| *byte == b'/')
            .map(<[u8]>::len)
            .max();
        match longest {
            Some(len) if len > MAX_NAME => Err(Fault::ComponentTooLong(len)),
            _ => Ok(normal),
        }
    }
}

impl Normal {
    fn descend(&mut self, name: &[u8], depth: &mut u64) {
        if *depth > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        *depth += 1;
    }

    fn climb(&mut self, depth: &mut u64) {
        if *depth == 0 {
            self.climbs = true;
            return;
        }
        let parent = self.path.iter().rposition(|byte| *byte == b'/');
        self.path.truncate(parent.unwrap_or(0));
        *depth -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_and_stopped_at_the_root() {
        let rows: &[(&str, &str, &str, bool)] = &[
            ("T17' climbs", "../../etc/x", "etc/x", true),
            ("T17' absolute", "/etc/x", "etc/x", false),
            ("T17' climbs later", "a/../../x", "x", true),
            ("T17' dot before", "./x", "x", false),
            ("T17' double slash", "a//b", "a/b", false),
            ("T17' dot inside", "a/./b", "a/b", false),
            ("T17' dot dot alone", "..", "", true),
            ("T17' dot alone", ".", "", false),
            ("T17' empty", "", "", false),
            ("T17' slash alone", "/", "", false),
            ("absolute and climbing", "/..", "", true),
            ("dot dot inside", "a/../b", "b", false),
            ("dot dot at the end", "a/b/..", "a", false),
            ("trailing slash", "a/b/", "a/b", false),
            ("three dots are a name", ".../x", ".../x", false),
            ("T19' backslash and space", "a\\b /c. ", "a\\b /c. ", false),
            ("T19' control characters", "a\n\x1b[2J", "a\n\x1b[2J", false),
        ];
        for (name, raw, path, climbs) in rows {
            let normal = Raw::whole(raw.as_bytes()).normalise(8).expect(name);
            assert_eq!(normal.path, path.as_bytes(), "{name}");
            assert_eq!(normal.climbs, *climbs, "{name}");
        }
    }

    #[test]
    fn a_prefix_is_joined_with_a_slash() {
        let rows: &[(&str, &str, &str, &str, bool)] = &[
            ("both", "a/b", "c", "a/b/c", false),
            ("prefix ends in a slash", "a/", "c", "a/c", false),
            ("no name", "a/b", "", "a/b", true),
            ("climbing out of the prefix", "a", "../c/", "c", true),
        ];
        for (name, prefix, rest, path, slash) in rows {
            let raw = Raw {
                prefix: prefix.as_bytes(),
                name: rest.as_bytes(),
            };
            assert_eq!(
                raw.normalise(8).expect(name).path,
                path.as_bytes(),
                "{name}"
            );
            assert_eq!(raw.has_trailing_slash(), *slash, "{name}");
        }
    }

    #[test]
    fn what_no_file_system_holds_is_refused() {
        let long = "x".repeat(256);
        let rows: &[(&str, String, Result<usize, Fault>)] = &[
            ("T18' 255 bytes", "x".repeat(255), Ok(255)),
            (
                "T18' 256 bytes",
                long.clone(),
                Err(Fault::ComponentTooLong(256)),
            ),
            ("T18' taken back", format!("{long}/../y"), Ok(1)),
            ("T18' depth at the limit", "a/".repeat(8), Ok(15)),
            ("T18' depth over it", "a/".repeat(9), Err(Fault::TooDeep)),
            ("NUL", "a\0b".to_owned(), Err(Fault::Nul)),
        ];
        for (name, raw, expected) in rows {
            let len = Raw::whole(raw.as_bytes())
                .normalise(8)
                .map(|normal| normal.path.len());
            assert_eq!(len, *expected, "{name}");
        }
    }
}
