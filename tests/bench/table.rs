//! The table: what was measured, beside whom, and whether it is good enough.

use std::fmt::Write;

/// What a number counts, and how it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Milliseconds,
    MegabytesPerSecond,
    Megabytes,
    Percent,
    Bytes,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Seconds => format!("{value:.2} s"),
            Self::Milliseconds => format!("{value:.2} ms"),
            Self::MegabytesPerSecond => format!("{value:.0} MB/s"),
            Self::Megabytes => format!("{value:.0} MB"),
            Self::Percent => format!("{value:.3} %"),
            Self::Bytes => format!("{value:.1} B"),
        }
    }
}

/// How good is good enough.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// No more than this, in the unit of the row.
    AtMost(f64),
    /// No more than this many times what the peer has.
    TimesAtMost(&'static str, f64),
    /// The same of the first peer.
    FirstTimesAtMost(f64),
    /// No less than this many times what the peer has.
    TimesAtLeast(&'static str, f64),
}

impl Target {
    fn show(self, unit: Unit) -> String {
        match self {
            Self::AtMost(limit) => format!("<= {}", unit.show(limit)),
            Self::TimesAtMost(peer, limit) => format!("<= {limit} x {peer}"),
            Self::FirstTimesAtMost(limit) => format!("ratio <= {limit}"),
            Self::TimesAtLeast(peer, limit) => format!(">= {limit} x {peer}"),
        }
    }

    /// `None` if the peer is not there to compare with.
    fn is_met(self, row: &Row) -> Option<bool> {
        let times = |name: &str| {
            let (_, runs) = row.peers.iter().find(|(peer, _)| peer == name)?;
            row.times(runs)
        };
        match self {
            Self::AtMost(limit) => Some(row.ocifs.median()? <= limit),
            Self::TimesAtMost(peer, limit) => Some(times(peer)? <= limit),
            Self::FirstTimesAtMost(limit) => Some(row.times(&row.peers.first()?.1)? <= limit),
            Self::TimesAtLeast(peer, limit) => Some(times(peer)? >= limit),
        }
    }
}

/// What one side had in each round.
#[derive(Debug, Clone, Default)]
pub struct Runs(Vec<f64>);

impl Runs {
    /// Takes the result of a round; a peer that is missing has none.
    pub fn push(&mut self, value: impl Into<Option<f64>>) {
        self.0.extend(value.into());
    }

    /// `None` if it never ran.
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }
}

impl From<f64> for Runs {
    fn from(value: f64) -> Self {
        Self(vec![value])
    }
}

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    what: String,
    unit: Unit,
    ocifs: Runs,
    peers: Vec<(String, Runs)>,
    targets: Vec<Target>,
}

impl Row {
    pub fn new(what: impl Into<String>, unit: Unit, ocifs: impl Into<Runs>) -> Self {
        Self {
            what: what.into(),
            unit,
            ocifs: ocifs.into(),
            peers: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// The same by somebody else; the first one gives the ratio.
    pub fn beside(mut self, peer: impl Into<String>, runs: impl Into<Runs>) -> Self {
        self.peers.push((peer.into(), runs.into()));
        self
    }

    pub fn target(mut self, target: Target) -> Self {
        self.targets.push(target);
        self
    }

    fn show(&self) -> String {
        let value = |runs: &Runs| runs.median().map(|value| self.unit.show(value));
        let ocifs = value(&self.ocifs).unwrap_or_else(|| "failed".to_owned());
        let peer = |(name, runs): &(String, Runs)| {
            format!("{name} {}", value(runs).unwrap_or_else(|| "missing".into()))
        };
        let peers: Vec<_> = self.peers.iter().map(peer).collect();
        let targets: Vec<_> = self.targets.iter().map(|t| t.show(self.unit)).collect();
        format!(
            "| {} | {ocifs} | {} | {} | {} | {} |",
            self.what,
            peers.join(", "),
            self.ratio().unwrap_or_default(),
            targets.join(", "),
            self.verdict()
        )
    }

    /// How many times what a peer has.
    fn times(&self, peer: &Runs) -> Option<f64> {
        Some(self.ocifs.median()? / peer.median()?)
    }

    fn ratio(&self) -> Option<String> {
        let first = self.peers.iter().find_map(|(_, runs)| self.times(runs))?;
        Some(format!("{first:.2}"))
    }

    fn verdict(&self) -> &'static str {
        let met: Vec<_> = self.targets.iter().map(|t| t.is_met(self)).collect();
        if met.contains(&Some(false)) || self.ocifs.median().is_none() {
            "missed"
        } else if met.contains(&Some(true)) {
            "ok"
        } else {
            ""
        }
    }
}

/// All rows so far.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    /// Takes a row, and shows it at once: the whole table comes after minutes.
    pub fn add(&mut self, row: Row) {
        super::say(&row.show());
        self.rows.push(row);
    }

    /// Something that the reader must know beside the rows.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub fn show(&self) -> String {
        let mut text = "| what | ocifs | peers | ratio | target | |\n".to_owned();
        text.push_str("|---|---:|---|---:|---|---|\n");
        let rows = self.rows.iter().map(Row::show);
        for line in rows
            .chain([String::new()])
            .chain(self.notes.iter().cloned())
        {
            writeln!(text, "{line}").expect("writing to a string cannot fail");
        }
        text
    }
}
