//! An operation is put to the trial: the power is cut after each of its steps, and each of
//! its calls fails once.
//!
//! Whatever the power cut leaves, the layout is as before or as after the operation, to the
//! last blob; opening it again leaves nothing over, and the operation can be done again.
//! Whatever call fails, who asked is told with what the system said, the layout is as
//! before, and trying again works.

use std::io::{self, Write};
use std::sync::Arc;

use super::below::SHARED;
use super::sight::{self, Sight};
use super::states;
use super::{SimulatedDisk, Trouble};
use crate::store::layout::writer::LayoutWriter;
use crate::store::{Verdicts, layout};

/// What must not have happened, or could not be tried.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// One try of an operation, which can be repeated on the disk that it was begun on.
pub(crate) type Attempt<'a> = Box<dyn FnMut() -> Result<(), Fault> + 'a>;

/// What is done with a disk.
type Step<'a, T> = Box<dyn Fn(&SimulatedDisk) -> Result<T, Fault> + 'a>;

/// How many states are looked at where nothing says how many.
const STATES: usize = 2_000;

/// How many states each step gets at first.
const STATES_PER_STEP: usize = 4;

/// An operation on a layout.
pub(crate) struct Case<'a> {
    pub(crate) name: String,
    /// Makes what it begins with.
    pub(crate) prepare: Step<'a, ()>,
    /// Begins it as a new process would.
    pub(crate) begin: Step<'a, Attempt<'a>>,
    pub(crate) again: Again,
}

/// What is expected of an operation that is done again after a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// It ends as the first time.
    Works,
    /// It is refused if the first time has lasted.
    Once,
    /// It may be refused: it needs what another program has not synced.
    Foreign,
    /// It would be another operation in a process that has not seen what was before.
    Never,
}

impl<'a> Case<'a> {
    /// An operation that needs nothing but the disk.
    pub(crate) fn new(
        name: impl Into<String>,
        prepare: impl Fn(&SimulatedDisk) -> Result<(), Fault> + 'a,
        operation: impl Fn(&SimulatedDisk) -> Result<(), Fault> + Clone + 'a,
    ) -> Self {
        let begin = move |disk: &SimulatedDisk| {
            let (disk, operation) = (disk.clone(), operation.clone());
            let attempt: Attempt<'a> = Box::new(move || operation(&disk));
            Ok(attempt)
        };
        Self::begun(name, prepare, begin)
    }

    /// An operation that begins with something that has its own memory.
    pub(crate) fn begun(
        name: impl Into<String>,
        prepare: impl Fn(&SimulatedDisk) -> Result<(), Fault> + 'a,
        begin: impl Fn(&SimulatedDisk) -> Result<Attempt<'a>, Fault> + 'a,
    ) -> Self {
        Self {
            name: name.into(),
            prepare: Box::new(prepare),
            begin: Box::new(begin),
            again: Again::Works,
        }
    }

    pub(crate) fn again(mut self, again: Again) -> Self {
        self.again = again;
        self
    }

    fn ends(&self, fresh: &SimulatedDisk) -> Result<Ends, Fault> {
        let disk = fresh.duplicate();
        let mut attempt = (self.begin)(&disk)?;
        let old = Sight::of(&disk)?;
        disk.expect(Trouble::None);
        attempt()?;
        let new = Sight::of(&disk)?;
        let mut blobs = disk.paths();
        blobs.retain(|path| path.starts_with("blobs/"));
        Ok(Ends { old, new, blobs })
    }
}

/// The layout before and after an operation.
struct Ends {
    old: Sight,
    new: Sight,
    /// The blobs that there are then, also those that nothing names.
    blobs: Vec<String>,
}

fn writer(disk: &SimulatedDisk) -> LayoutWriter {
    let verdicts = Arc::new(Verdicts::new(None));
    LayoutWriter::on(Arc::new(disk.clone()), "layout".as_ref(), verdicts)
}

/// Clears up as the next start does, and sees that nothing is left but the layout.
fn clear_up(disk: &SimulatedDisk, again: Again) -> Result<(), String> {
    let collected = writer(disk).collect();
    collected.map_err(|error| format!("clearing up: {error:?}"))?;
    for path in disk.paths() {
        match path.strip_prefix("blobs/") {
            // What another program has left there may be anything.
            Some(_) if again == Again::Foreign => {}
            Some(blob) => drop(sight::check_blob(disk, blob)?),
            None if ["index.json", "oci-layout"].contains(&path.as_str()) => {}
            None if path.starts_with(SHARED) => {}
            None => return Err(format!("{path} is left over")),
        }
    }
    Ok(())
}

/// Opens the layout again after a power cut.
fn check_reopened(
    case: &Case<'_>,
    disk: &SimulatedDisk,
    Ends { old, new, blobs }: &Ends,
    is_answered: bool,
) -> Result<(), String> {
    let found = Sight::of(disk)?;
    let missing = blobs.iter().find(|path| disk.read(path).is_err());
    if let (Some(path), true) = (missing, is_answered) {
        return Err(format!("{path} is lost"));
    }
    if found != *new && (is_answered || found != *old) {
        return Err(format!("neither old nor new: {found:?}"));
    }
    clear_up(disk, case.again)?;
    if case.again == Again::Never {
        return check_usable(disk);
    }
    let attempt = (case.begin)(disk).map_err(|error| format!("begun again: {error}"));
    match attempt?() {
        Err(_) if case.again == Again::Once && found == *new => {}
        Err(_) if case.again == Again::Foreign && found == *old => return Ok(()),
        result => result.map_err(|error| format!("once more: {error:?}"))?,
    }
    match Sight::of(disk)? {
        again if again == *new => Ok(()),
        again => Err(format!("once more: {again:?}")),
    }
}

/// Sees that the layout takes a ref.
fn check_usable(disk: &SimulatedDisk) -> Result<(), String> {
    let wrong = |error: &dyn std::fmt::Debug| format!("it takes no ref: {error:?}");
    let writer = writer(disk);
    let blob = writer.store(b"{}").map_err(|error| wrong(&error))?;
    let entry = format!(
        r#"{{"mediaType":"application/json","digest":"{}","size":2}}"#,
        blob.digest()
    );
    let name = "proof".parse().map_err(|error| wrong(&error))?;
    let basis = layout::index::update::Basis {
        blobs: &[blob],
        last_good: None,
    };
    let refuse = layout::refs::Collision::Refuse;
    let updated = writer.update(&basis, |draft| {
        layout::refs::set(draft, &name, &[entry], refuse)
    });
    updated.map_err(|error| wrong(&error))?;
    Sight::of(disk).map(drop)
}

/// What was found, of how many states.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) states: usize,
    pub(crate) faults: Vec<String>,
}

/// Cuts the power after each step of an operation, and looks at up to `count` of the states
/// that leaves.
pub(crate) fn cut_power(
    case: &Case<'_>,
    fresh: &SimulatedDisk,
    count: usize,
) -> Result<Findings, Fault> {
    let ends = case.ends(fresh)?;
    let mut findings = Findings::default();
    for step in 0.. {
        let disk = fresh.duplicate();
        let mut attempt = (case.begin)(&disk)?;
        disk.expect(Trouble::PowerCut(step));
        let is_answered = attempt().is_ok();
        let is_done = is_answered && disk.steps() <= step;
        drop(attempt);
        for (after, kept) in states::after_power_cut(&disk, count, step as u64) {
            findings.states += 1;
            if let Err(fault) = check_reopened(case, &after, &ends, is_answered) {
                let fault = format!("{}, step {step}, {kept}: {fault}", case.name);
                findings.faults.push(fault);
            }
        }
        if is_done {
            break;
        }
    }
    Ok(findings)
}

/// A disk that can everything, and one that has neither unnamed files nor exchanges.
fn disks(case: &Case<'_>) -> Result<[SimulatedDisk; 2], Fault> {
    let disks = [SimulatedDisk::default(), SimulatedDisk::plain()];
    for disk in &disks {
        (case.prepare)(disk)?;
    }
    Ok(disks)
}

/// How many states are wanted.
fn wanted() -> usize {
    let wanted = std::env::var("OCIFS_CRASH_STATES");
    wanted.map_or(STATES, |text| {
        text.parse().expect("OCIFS_CRASH_STATES is a number")
    })
}

/// Cuts the power after each step of all operations, and looks at so many states as are
/// wanted: of those that `OCIFS_CRASH_STATES` says, or of some thousands, one `part`th. All
/// together look at that many; where there are not so many states, at nearly all.
pub(crate) fn assert_all_or_nothing(
    what: &str,
    cases: &[Case<'_>],
    part: usize,
) -> Result<(), Fault> {
    let wanted = wanted() / part;
    let (mut count, mut last) = (STATES_PER_STEP, 0);
    loop {
        let mut states = 0;
        for case in cases {
            for disk in disks(case)? {
                let found = cut_power(case, &disk, count)?;
                let faults = &found.faults;
                assert!(
                    faults.is_empty(),
                    "{} faults, as {}",
                    faults.len(),
                    faults[0]
                );
                assert!(found.states > 5, "{}: {} states", case.name, found.states);
                states += found.states;
            }
        }
        if states >= wanted {
            return tell(&format!("{what}: {states} states after a power cut\n"));
        }
        // Twice as many draws have shown hardly anything new.
        if states <= last + last / 20 {
            return tell(&format!(
                "{what}: {states} states, hardly one is left out\n"
            ));
        }
        last = states;
        count = (count * wanted / states + 1).max(2 * count);
    }
}

fn tell(line: &str) -> Result<(), Fault> {
    if std::env::var_os("OCIFS_CRASH_STATES").is_some() {
        io::stderr().write_all(line.as_bytes())?;
    }
    Ok(())
}

/// Sees that the checks can fail: on a disk that syncs nothing, something is found that says
/// one of `words`, each of them once at least.
pub(crate) fn assert_lies_are_found(case: &Case<'_>, words: &[&str]) -> Result<(), Fault> {
    let disk = SimulatedDisk::default();
    (case.prepare)(&disk)?;
    disk.lie();
    let found = cut_power(case, &disk, 64)?;
    for word in words {
        let is_said = found.faults.iter().any(|fault| fault.contains(word));
        assert!(is_said, "{}: {word}, of {}", case.name, found.faults.len());
    }
    Ok(())
}

/// What a disk can answer.
const ERRNOS: [i32; 4] = [libc::ENOSPC, libc::EIO, libc::EDQUOT, libc::EMFILE];

/// Lets each call of all operations fail once: with one errno after the other, or where
/// many states are wanted with each of them.
pub(crate) fn assert_failures_are_told(cases: &[Case<'_>]) -> Result<(), Fault> {
    let rounds = match wanted() > STATES {
        true => ERRNOS.len(),
        false => 1,
    };
    for round in 0..rounds {
        for (number, case) in cases.iter().enumerate() {
            for fresh in disks(case)? {
                fresh.settle();
                let told = fail(case, &fresh, |call| ERRNOS[(call + number + round) % 4])?;
                assert!(told > 3, "{}: only {told} were told", case.name);
            }
        }
    }
    Ok(())
}

/// Lets each call of an operation fail once; how many of these were told.
fn fail(
    case: &Case<'_>,
    fresh: &SimulatedDisk,
    errno_at: impl Fn(usize) -> i32,
) -> Result<usize, Fault> {
    let Ends { new, .. } = case.ends(fresh)?;
    let mut told = 0;
    for call in 0.. {
        let errno = errno_at(call);
        let disk = fresh.duplicate();
        let mut attempt = (case.begin)(&disk)?;
        let before = disk.read("index.json")?;
        disk.expect(Trouble::FailedCall(call, errno));
        let result = attempt();
        let row = format!("{}, call {call}, errno {errno}", case.name);
        let is_over = disk.calls() <= call;
        disk.expect(Trouble::None);
        let found = Sight::of(&disk).map_err(|fault| format!("{row}: {fault}"))?;
        match &result {
            Ok(()) => assert_eq!(found, new, "{row}: it was answered"),
            Err(error) => {
                told += 1;
                assert_eq!(errno_of(&**error), Some(errno), "{row}: {error:?}");
                let is_as_before = disk.read("index.json")? == before;
                assert!(is_as_before, "{row}: the index is another one");
            }
        }
        if is_over {
            break;
        }
        match attempt() {
            Err(_) if case.again == Again::Once && found == new => {}
            result => result.map_err(|error| format!("{row}, once more: {error:?}"))?,
        }
        drop(attempt);
        assert_eq!(Sight::of(&disk)?, new, "{row}, once more");
        clear_up(&disk, case.again).map_err(|fault| format!("{row}: {fault}"))?;
        // The kernel tells of lost bytes once: what is answered now must last.
        for (after, kept) in states::after_power_cut(&disk, STATES_PER_STEP, 1) {
            let last = Sight::of(&after).map_err(|fault| format!("{row}, {kept}: {fault}"))?;
            assert!(last == new || case.again == Again::Foreign, "{row}, {kept}");
        }
    }
    Ok(told)
}

/// What the system said, wherever it is in the chain.
fn errno_of(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let shared = error.downcast_ref::<Arc<io::Error>>().map(|error| &**error);
    let own = error.downcast_ref::<io::Error>().or(shared);
    own.and_then(io::Error::raw_os_error)
        .or_else(|| error.source().and_then(errno_of))
}
