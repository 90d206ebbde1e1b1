//! Where our reading of a layer is not that of its entries one after the other.
//!
//! Layers that are made from a file system have none of this: there each path has one
//! entry, none leads through a symlink, and hard links come after what they lead to.

use std::collections::BTreeSet;

use crate::common::{Event, hidden_by};

/// Something that is read differently, or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    /// What is no directory at first and then one, in the same layer, does not hide what
    /// lower layers have in it.
    Retyped,
    /// An entry replaces a symlink of a lower layer, or what is around it, after an
    /// earlier entry of the same layer went through it; or a hard link replaces what is on
    /// the way to its target.
    FollowedThenReplaced,
    /// A hard link leads to what a lower layer has, or through a symlink, and its own layer
    /// puts something there later, to which it leads here.
    LinkToLater,
    /// An entry goes through a symlink of a lower layer to the place of another entry of
    /// its own layer; those that are moved so come last.
    MovedComesLast,
    /// A hard link leads to a symlink of a lower layer through which an entry of its own
    /// layer goes: here there is a directory.
    LinkToFollowed,
    /// An entry goes through a symlink that is there as a hard link to one of a lower
    /// layer: here it is replaced by a directory.
    LinkedSymlink,
    /// A whiteout goes through a symlink that its own layer hides.
    HiddenOnTheWay,
    /// A whiteout goes through a symlink of its own layer, which is followed.
    WhiteoutThroughOwn,
    /// Hard links lead to each other in a circle: they stay links to nothing, and of which
    /// of them the attributes are does not matter.
    Circle,
    /// A whiteout goes through a symlink of a lower layer, and hides what is on the way to
    /// another entry of its layer.
    MovedWhiteout,
    /// An entry goes through a symlink of a lower layer, and then through one of its own,
    /// which it replaces.
    LowerThenOwn,
    /// A symlink went through several symlinks of lower layers, and a higher layer goes
    /// through it.
    MovedTwice,
    /// An entry goes through a symlink of its own that leads through one of a lower layer
    /// and back with `..`, which is taken by its text.
    WayBack,
}

/// Finds the rules that an extraction depends on, layer by layer.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) found: BTreeSet<Rule>,
    /// Where hard links to lower layers are.
    linked: BTreeSet<String>,
    /// What was put there went through several symlinks of lower layers.
    moved_twice: BTreeSet<String>,
}

impl Rules {
    /// Looks at the extraction of the next layer.
    pub(super) fn look_at(&mut self, events: &[Event]) {
        for (number, event) in events.iter().enumerate() {
            let later = &events[number..];
            match event {
                Event::Put { at, letter, .. } if !is_directory(*letter) => {
                    let is_retyped = puts(later).any(|put| put.0 == at && is_directory(put.1));
                    let replaces_lower = events[..=number].iter().any(|event| match event {
                        Event::Put {
                            at: other, over, ..
                        } => *over && other == at,
                        _ => false,
                    });
                    self.find(Rule::Retyped, is_retyped && replaces_lower);
                    if detours(entry_around(events, number)) > 1 {
                        self.moved_twice.insert(at.clone());
                    }
                }
                Event::Follow { at, own } => {
                    self.find(Rule::LinkedSymlink, self.linked.contains(at));
                    self.find(Rule::MovedTwice, self.moved_twice.contains(at));
                    let replaces = |put| collide((at, Some('l')), put);
                    let goes_lower = !own || detours(entry_around(events, number)) > 0;
                    let is_replaced = puts(later).any(replaces);
                    self.find(Rule::FollowedThenReplaced, goes_lower && is_replaced);
                    self.find(Rule::HiddenOnTheWay, hides(events, at));
                    let entry = entry_around(events, number);
                    self.find(Rule::LowerThenOwn, *own && follows_lower_first(entry, at));
                    self.find(
                        Rule::WayBack,
                        *own && detours(entry) > 0 && leads_back(events, at),
                    );
                }
                Event::Circle => self.find(Rule::Circle, true),
                Event::Hide { at, moved: true } => {
                    let leads_there = |event: &Event| match event {
                        Event::Entry { item } => is_inside(&item.path, at),
                        _ => false,
                    };
                    self.find(Rule::MovedWhiteout, events.iter().any(leads_there));
                }
                Event::FollowTarget { at } => {
                    let own = entry_around(events, number);
                    let replaces = |put| collide((at, Some('l')), put);
                    let is_replaced = puts(own).chain(puts(later)).any(replaces);
                    self.find(Rule::FollowedThenReplaced, is_replaced);
                    self.find(Rule::LinkedSymlink, self.linked.contains(at));
                }
                Event::Link { to, own: true } => {
                    let follows = |event: &Event| matches!(event, Event::FollowTarget { .. });
                    let is_led = entry_around(events, number).iter().any(follows);
                    self.find(
                        Rule::LinkToLater,
                        is_led && puts(later).any(|put| put.0 == to),
                    );
                }
                Event::Link { to, own: false } => {
                    let mut own = puts(entry_around(events, number));
                    let replaces_way = own.any(|put| to == put.0 || is_inside(to, put.0));
                    self.find(Rule::FollowedThenReplaced, replaces_way);
                    self.find(Rule::LinkToLater, puts(later).any(|put| put.0 == to));
                    let (at, own) = (to.clone(), false);
                    let is_followed = events.contains(&Event::Follow { at, own });
                    self.find(Rule::LinkToFollowed, is_followed);
                    // The entry was put just before it was found out where it leads.
                    let put = puts(&events[..number]).last();
                    self.linked.extend(put.map(|(at, _)| at.to_owned()));
                }
                _ => {}
            }
        }
        self.find(Rule::MovedComesLast, moved_collides(events));
        self.find(Rule::WhiteoutThroughOwn, whiteout_follows_own(events));
    }

    fn find(&mut self, rule: Rule, is_there: bool) {
        if is_there {
            self.found.insert(rule);
        }
    }
}

/// A path and the letter of what is put there.
type Put<'a> = (&'a str, Option<char>);

fn puts(events: &[Event]) -> impl Iterator<Item = Put<'_>> {
    events.iter().filter_map(|event| match event {
        Event::Put { at, letter, .. } => Some((at.as_str(), *letter)),
        _ => None,
    })
}

fn whiteout_follows_own(events: &[Event]) -> bool {
    let mut is_whiteout = false;
    events.iter().any(|event| match event {
        Event::Entry { item } => {
            is_whiteout = hidden_by(item).is_some();
            false
        }
        Event::Follow { own: true, .. } => is_whiteout,
        _ => false,
    })
}

/// The events of one entry.
fn entry_around(events: &[Event], number: usize) -> &[Event] {
    let begins = |event: &Event| matches!(event, Event::Entry { .. });
    let start = events[..number].iter().rposition(begins).unwrap_or(0);
    let end = events[number..].iter().position(begins);
    &events[start..end.map_or(events.len(), |end| number + end)]
}

/// Through how many symlinks of lower layers an entry goes.
fn detours(entry: &[Event]) -> usize {
    let follows = |event: &&Event| matches!(event, Event::Follow { own: false, .. });
    entry.iter().filter(follows).count()
}

/// Whether the symlink that the layer puts there has a `..` in its target.
fn leads_back(events: &[Event], symlink: &str) -> bool {
    let puts_it = |number: usize| match &events[number] {
        Event::Put { at, .. } => at == symlink,
        _ => false,
    };
    let mut puts = (0..events.len()).filter(|number| puts_it(*number));
    puts.any(|number| match entry_around(events, number).first() {
        Some(Event::Entry { item }) => item.target.contains(".."),
        _ => false,
    })
}

fn follows_lower_first(entry: &[Event], own: &str) -> bool {
    let before = entry.iter().take_while(|event| match event {
        Event::Follow { at, .. } => at != own,
        _ => true,
    });
    before
        .into_iter()
        .any(|event| matches!(event, Event::Follow { own: false, .. }))
}

fn hides(events: &[Event], path: &str) -> bool {
    events.iter().any(|event| match event {
        Event::Hide { at, .. } => at == path || is_inside(path, at),
        _ => false,
    })
}

fn is_inside(path: &str, directory: &str) -> bool {
    let rest = path.strip_prefix(directory);
    directory.is_empty() || rest.is_some_and(|rest| rest.starts_with('/'))
}

/// Whether what an entry puts somewhere after it followed a symlink of a lower layer is in
/// the way of what another entry puts there, or follows one that was put so.
fn moved_collides(events: &[Event]) -> bool {
    let entries = events.split(|event| matches!(event, Event::Entry { .. }));
    let entries: Vec<&[Event]> = entries.collect();
    let is_moved = |number: &usize| detours(entries[*number]) > 0;
    (0..entries.len()).filter(is_moved).any(|number| {
        let moved: Vec<Put<'_>> = puts(entries[number]).collect();
        let follows = entries[number..].iter().flat_map(|entry| entry.iter());
        let mut others = (0..entries.len()).filter(|other| *other != number);
        others.any(|other| {
            puts(entries[other]).any(|put| moved.iter().any(|known| collide(*known, put)))
        }) || follows.into_iter().any(|event| match event {
            Event::Follow { at, own: true } => moved.iter().any(|known| known.0 == at),
            _ => false,
        })
    })
}

/// Whether the order of these two matters.
fn collide((first, one): Put<'_>, (second, other): Put<'_>) -> bool {
    (first == second && (one.is_some() || !is_directory(other)))
        || (is_inside(first, second) && !is_directory(other))
        || (is_inside(second, first) && !is_directory(one))
}

fn is_directory(letter: Option<char>) -> bool {
    matches!(letter, Some('d') | None)
}
