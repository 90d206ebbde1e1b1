//! The names in the drop box.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::drop::Drop;
use super::place::Place;
use super::refusal::ErrorFile;

/// How many refusals are kept in mind; then the oldest goes.
const MAX_REFUSALS: usize = 1_000;

/// What has a name, and what had one and was refused.
#[derive(Debug)]
pub(super) struct Table(Mutex<Names>);

#[derive(Debug)]
struct Names {
    drops: BTreeMap<Place, Arc<Drop>>,
    refusals: BTreeMap<Place, Arc<ErrorFile>>,
    /// The places of the refusals, the oldest first.
    order: VecDeque<Place>,
    changed: SystemTime,
}

impl Default for Table {
    fn default() -> Self {
        Self(Mutex::new(Names {
            drops: BTreeMap::new(),
            refusals: BTreeMap::new(),
            order: VecDeque::new(),
            changed: SystemTime::now(),
        }))
    }
}

impl Table {
    pub(super) fn find(&self, place: &Place) -> Option<Arc<Drop>> {
        self.0.lock().drops.get(place).cloned()
    }

    /// All drops and receipts, by name.
    pub(super) fn drops(&self) -> Vec<Arc<Drop>> {
        self.0.lock().drops.values().cloned().collect()
    }

    pub(super) fn insert(&self, place: Place, drop: Arc<Drop>) {
        self.change().drops.insert(place, drop);
    }

    /// Takes a drop out, if the name is still its own.
    pub(super) fn take_out(&self, place: &Place, drop: &Arc<Drop>) {
        let mut names = self.change();
        if names.drops.get(place).is_some_and(|d| Arc::ptr_eq(d, drop)) {
            names.drops.remove(place);
        }
    }

    pub(super) fn rename(&self, from: &Place, to: Place, drop: &Arc<Drop>) {
        let mut names = self.change();
        if names.drops.get(from).is_some_and(|d| Arc::ptr_eq(d, drop)) {
            names.drops.remove(from);
        }
        names.drops.insert(to, drop.clone());
    }

    pub(super) fn refuse(&self, place: Place, file: Arc<ErrorFile>) {
        let mut names = self.change();
        names.order.retain(|other| *other != place);
        names.order.push_back(place.clone());
        names.refusals.insert(place, file);
        if names.order.len() > MAX_REFUSALS
            && let Some(oldest) = names.order.pop_front()
        {
            names.refusals.remove(&oldest);
        }
    }

    /// Forgets a refusal.
    pub(super) fn dismiss(&self, place: &Place) {
        let mut names = self.change();
        if names.refusals.remove(place).is_some() {
            names.order.retain(|other| other != place);
        }
    }

    pub(super) fn find_refusal(&self, place: &Place) -> Option<(Place, Arc<ErrorFile>)> {
        let names = self.0.lock();
        let found = names.refusals.get_key_value(place);
        found.map(|(place, file)| (place.clone(), file.clone()))
    }

    /// All refusals, the oldest first.
    pub(super) fn refusals(&self) -> Vec<(Place, Arc<ErrorFile>)> {
        let names = self.0.lock();
        let order = names.order.iter();
        order
            .filter_map(|place| Some((place.clone(), names.refusals.get(place)?.clone())))
            .collect()
    }

    /// When a name last came or went.
    pub(super) fn changed(&self) -> SystemTime {
        self.0.lock().changed
    }

    fn change(&self) -> parking_lot::MutexGuard<'_, Names> {
        let mut names = self.0.lock();
        names.changed = SystemTime::now();
        names
    }
}
