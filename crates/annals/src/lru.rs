//! A bounded map that forgets what was not used for longest.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// A map of at most so many entries.
pub(crate) struct Lru<K, V> {
    entries_max: usize,
    entries: HashMap<K, (V, u64)>,
    /// The keys by when they were last used.
    by_use: BTreeMap<u64, K>,
    uses: u64,
}

impl<K: Hash + Eq + Clone, V> Lru<K, V> {
    pub fn new(entries_max: usize) -> Self {
        Self { entries_max, entries: HashMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.uses += 1;
        let (value, used) = self.entries.get_mut(key)?;
        self.by_use.remove(used);
        self.by_use.insert(self.uses, key.clone());
        *used = self.uses;
        Some(value)
    }

    pub fn put(&mut self, key: K, value: V) {
        self.uses += 1;
        if let Some((_, used)) = self.entries.insert(key.clone(), (value, self.uses)) {
            self.by_use.remove(&used);
        }
        self.by_use.insert(self.uses, key);
        while self.entries.len() > self.entries_max {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.entries.remove(&oldest);
        }
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (value, used) = self.entries.remove(key)?;
        self.by_use.remove(&used);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_is_forgotten() {
        let mut lru = Lru::new(2);
        lru.put("a", 1);
        lru.put("b", 2);
        assert_eq!(lru.get_mut(&"a"), Some(&mut 1));
        lru.put("c", 3);
        assert_eq!(lru.get_mut(&"b"), None);
        assert_eq!((lru.remove(&"a"), lru.remove(&"c")), (Some(1), Some(3)));
    }
}
