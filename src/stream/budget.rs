//! A table that forgets what was used longest ago when it grows too heavy.

use std::hash::Hash;

use lru::LruCache;

/// Values with weights, in the order of their last use, up to a total weight.
#[derive(Debug)]
pub(crate) struct Budget<K: Hash + Eq, V> {
    entries: LruCache<K, (V, u64)>,
    used: u64,
    limit: u64,
}

impl<K: Hash + Eq, V> Budget<K, V> {
    /// An empty table that holds values of `limit` together.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            entries: LruCache::unbounded(),
            used: 0,
            limit,
        }
    }

    /// The value of `key`, which counts as used now.
    pub(crate) fn get(&mut self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// Whether there is a value of `key`, which does not count as a use.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.entries.contains(key)
    }

    /// Puts a value in, and older ones out. One that is heavier than the limit alone is
    /// not kept.
    pub(crate) fn insert(&mut self, key: K, value: V, weight: u64) {
        self.remove(&key);
        if weight > self.limit {
            return;
        }
        self.used += weight;
        self.entries.put(key, (value, weight));
        while self.used > self.limit {
            let Some((_, (_, weight))) = self.entries.pop_lru() else {
                break;
            };
            self.used -= weight;
        }
    }

    /// Takes the value of `key` out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (value, weight) = self.entries.pop(key)?;
        self.used -= weight;
        Some(value)
    }

    /// The weight of all values.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut budget = Budget::new(10);
        budget.insert("a", 1, 4);
        budget.insert("b", 2, 4);
        assert_eq!(budget.get(&"a"), Some(&1));
        budget.insert("c", 3, 4);
        assert_eq!(budget.get(&"b"), None);
        assert_eq!(budget.get(&"a"), Some(&1));
        assert_eq!(budget.used(), 8);
        budget.insert("a", 9, 1);
        assert_eq!(budget.used(), 5, "a replaced value weighs no more");
        budget.insert("d", 4, 11);
        assert_eq!(budget.get(&"d"), None, "too heavy alone");
        assert_eq!(budget.remove(&"c"), Some(3));
        assert_eq!(budget.used(), 1);
    }
}
