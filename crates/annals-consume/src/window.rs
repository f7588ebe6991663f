//! The items that were read ahead of the checkpoint, and which of them may be applied next.
//!
//! ```text
//! checkpoint ──┐
//!              │ 41 applied · 42 running · 43 waits (same key as 42) · 44 applied · 45 waits
//! ```
//!
//! The checkpoint may move past 41. A pure data structure: locks, tasks and the clock are in the runner.
//!
//! - N1  Of the items of one key at most one batch is out. An item is handed out after all earlier items of
//!       its key are applied.
//! - N2  A key whose item failed waits for its next attempt, and only later items of the same key wait for
//!       it. In total order all items have one key.
//! - N3  Every batch that is handed out is returned by [`Window::settle`], with its result.
//!
//! Keys are compared by their hashes, with a random hasher for each window. Two keys with equal hashes are
//! treated as one key.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};

use tokio::time::Instant;

use crate::source::Source;

/// The items between the checkpoint and the last one that was read.
pub(crate) struct Window<S: Source> {
    is_total: bool,
    hasher: RandomState,
    slots: VecDeque<Slot<S>>,
    /// The number of the first slot. Slots are numbered in the order in which they were read.
    first: u64,
    /// Slots before this were handed out, or wait for another slot of their key.
    next: u64,
    /// The keys of which an item is out or failed.
    held: HashMap<u64, Held, BuildHasherDefault<IsHash>>,
    /// Slots whose keys are held, and that may be handed out.
    ready: BinaryHeap<Reverse<u64>>,
    /// Keys that wait for another attempt.
    retries: BinaryHeap<Reverse<(Instant, u64)>>,
    batches: u64,
    bytes: usize,
    /// Applied, and no longer in the window.
    applied: Vec<S::Cursor>,
    /// The place up to which the source was read, until that was reported.
    through: Option<S::Cursor>,
    is_end: bool,
}

struct Slot<S: Source> {
    key: u64,
    cursor: S::Cursor,
    bytes: usize,
    attempts: u32,
    item: Place<S::Item>,
}

enum Place<I> {
    Waiting(I),
    Out,
    Applied,
    /// Given back to the source.
    Released,
}

#[derive(Default)]
struct Held {
    /// The number of the batch with items of this key; 0 if there is none.
    batch: u64,
    /// The slots that wait for it.
    waiting: VecDeque<u64>,
}

/// Keys are hashes already.
#[derive(Default)]
struct IsHash(u64);

impl Hasher for IsHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is a number");
    }
}

/// Items to be applied one after the other.
pub(crate) struct Batch<I> {
    number: u64,
    slots: Vec<u64>,
    pub items: Vec<I>,
    /// The number of this attempt at the first item, from 1. The others were not tried before.
    pub attempt: u32,
}

/// How a batch ended.
pub(crate) enum Settled {
    Applied,
    /// The first item that was not applied is retried at this time.
    Failed(Instant),
    /// The first item that was not applied is given back to the source, with all later ones of its key.
    Released,
    /// The items that were not applied did not fail.
    GivenBack,
}

/// The place up to which everything is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached<C> {
    /// Everything before this item.
    Before(C),
    /// Everything that was read, up to this place. `None` if it is the place that was reported before.
    Through(Option<C>),
}

impl<S: Source> Window<S> {
    /// Makes an empty window. With a total order, an item is applied only after all earlier ones, whatever
    /// their keys.
    pub fn new(is_total: bool) -> Self {
        Self {
            is_total,
            hasher: RandomState::new(),
            slots: VecDeque::new(),
            first: 0,
            next: 0,
            held: HashMap::default(),
            ready: BinaryHeap::new(),
            retries: BinaryHeap::new(),
            batches: 0,
            bytes: 0,
            applied: Vec::new(),
            through: None,
            is_end: false,
        }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The approximate size of the items, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the newest page was the end of the source.
    pub fn is_end(&self) -> bool {
        self.is_end
    }

    /// Adds a page of the source.
    pub fn push(&mut self, items: Vec<S::Item>, through: Option<S::Cursor>, is_end: bool) {
        self.is_end = is_end;
        if let Some(through) = through.or_else(|| items.last().map(S::cursor)) {
            self.through = Some(through);
        }
        for item in items {
            let bytes = S::bytes(&item);
            self.bytes += bytes;
            let key = if self.is_total { 0 } else { self.hasher.hash_one(S::key(&item)) };
            let cursor = S::cursor(&item);
            self.slots.push_back(Slot { key, cursor, bytes, attempts: 0, item: Place::Waiting(item) });
        }
    }

    /// Hands out at most `items_max` items that may be applied now, the oldest first.
    pub fn take(&mut self, items_max: usize) -> Option<Batch<S::Item>> {
        let number = self.batches + 1;
        let most = items_max.min(self.slots.len());
        let (slots, items) = (Vec::with_capacity(most), Vec::with_capacity(most));
        let mut batch = Batch { number, slots, items, attempt: 1 };
        let mut last = None;
        while batch.items.len() < items_max {
            let Some((slot, key, is_again)) = self.next_for(number, last) else { break };
            if last != Some(key) {
                self.held.entry(key).or_default().batch = number;
                last = Some(key);
            }
            let index = self.index(slot);
            let Place::Waiting(item) = std::mem::replace(&mut self.slots[index].item, Place::Out) else {
                unreachable!("a slot that may be handed out has its item");
            };
            self.slots[index].attempts += 1;
            batch.attempt = batch.attempt.max(self.slots[index].attempts);
            batch.slots.push(slot);
            batch.items.push(item);
            if is_again {
                // It is retried alone: other items of the batch would fail with it.
                break;
            }
        }
        if batch.items.is_empty() {
            return None;
        }
        self.batches = number;
        Some(batch)
    }

    /// Returns the next slot for this batch, its key, and whether it was tried before. That is the next one
    /// of the key `last`, which the batch ends with, or else the oldest that may be applied. Moves `next`
    /// past slots that wait for others of their keys.
    fn next_for(&mut self, number: u64, last: Option<u64>) -> Option<(u64, u64, bool)> {
        let (slots, first) = (&self.slots, self.first);
        if let Some(key) = last
            && let Some(held) = self.held.get_mut(&key)
            && let Some(slot) =
                held.waiting.pop_front_if(|slot| slots[(*slot - first) as usize].attempts == 0)
        {
            return Some((slot, key, false));
        }
        loop {
            let fresh = (self.next < self.first + self.slots.len() as u64).then_some(self.next);
            if let Some(Reverse(slot)) = self.ready.peek().copied()
                && fresh.is_none_or(|fresh| slot < fresh)
            {
                let found = &self.slots[self.index(slot)];
                let (key, is_again) = (found.key, found.attempts > 0);
                if last.is_some() && is_again {
                    return None;
                }
                self.ready.pop();
                return Some((slot, key, is_again));
            }
            let slot = fresh?;
            self.next += 1;
            let Slot { key, item: Place::Waiting(_), .. } = self.slots[self.index(slot)] else { continue };
            match self.held.get_mut(&key) {
                None => return Some((slot, key, false)),
                Some(held) if held.batch == number && held.waiting.is_empty() => {
                    return Some((slot, key, false));
                }
                Some(held) => held.waiting.push_back(slot),
            }
        }
    }

    /// Records that the first `applied` items of a batch in progress are applied.
    pub fn settle_part(&mut self, batch: &mut Batch<()>, applied: usize) {
        let done: Vec<u64> = batch.slots.drain(..applied).collect();
        let mut keys = self.keys(&done);
        let out = self.keys(&batch.slots);
        keys.retain(|key| out.binary_search(key).is_err());
        self.are_applied(&done);
        for key in keys {
            self.free(key);
        }
        self.cut();
    }

    fn are_applied(&mut self, slots: &[u64]) {
        for slot in slots {
            let index = self.index(*slot);
            self.slots[index].item = Place::Applied;
            if !S::IS_ORDERED {
                self.applied.push(self.slots[index].cursor.clone());
            }
        }
    }

    /// The keys of these slots, each once and sorted.
    fn keys(&self, slots: &[u64]) -> Vec<u64> {
        let mut keys: Vec<u64> = slots.iter().map(|slot| self.slots[self.index(*slot)].key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Takes back a batch, of which the first `applied` items are applied and `rest` are not.
    pub fn settle(&mut self, batch: Batch<()>, applied: usize, rest: Vec<S::Item>, end: &Settled) {
        let (done, left) = batch.slots.split_at(applied);
        let keys = self.keys(&batch.slots);
        self.are_applied(done);
        let failed = left.first().map(|slot| self.slots[self.index(*slot)].key);
        for (place, (slot, item)) in left.iter().zip(rest).enumerate() {
            let index = self.index(*slot);
            if place > 0 || matches!(end, Settled::GivenBack) {
                self.slots[index].attempts -= 1;
            }
            self.slots[index].item = Place::Waiting(item);
        }
        // In reverse, so that the oldest slot of a key comes first.
        for slot in left.iter().rev() {
            let key = self.slots[self.index(*slot)].key;
            if let Some(held) = self.held.get_mut(&key) {
                held.waiting.push_front(*slot);
            }
        }
        for key in keys {
            let is_failed = failed == Some(key);
            match end {
                Settled::Failed(at) if is_failed => {
                    if let Some(held) = self.held.get_mut(&key) {
                        held.batch = 0;
                    }
                    self.retries.push(Reverse((*at, key)));
                }
                Settled::Released if is_failed => self.release(key),
                _ => self.free(key),
            }
        }
        self.cut();
    }

    /// Makes the next item of a key ready, after all that were handed out are settled.
    fn free(&mut self, key: u64) {
        let Some(held) = self.held.get_mut(&key) else { return };
        held.batch = 0;
        match held.waiting.pop_front() {
            Some(slot) => self.ready.push(Reverse(slot)),
            None => drop(self.held.remove(&key)),
        }
    }

    /// Gives the items of this key back to the source, which will read them again.
    fn release(&mut self, key: u64) {
        self.held.remove(&key);
        for slot in &mut self.slots {
            if slot.key == key && matches!(slot.item, Place::Waiting(_)) {
                slot.item = Place::Released;
            }
        }
    }

    /// Removes applied and released slots from the front.
    fn cut(&mut self) {
        while let Some(slot) = self.slots.front() {
            match slot.item {
                Place::Applied if S::IS_ORDERED => self.applied.push(slot.cursor.clone()),
                Place::Applied | Place::Released => {}
                Place::Waiting(_) | Place::Out => return,
            }
            self.bytes -= slot.bytes;
            self.slots.pop_front();
            self.first += 1;
            self.next = self.next.max(self.first);
        }
    }

    /// Makes the items ready whose next attempt is due. Returns the time of the next attempt.
    pub fn wake(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((at, key))) = self.retries.peek().copied() {
            if at > now {
                return Some(at);
            }
            self.retries.pop();
            self.free(key);
        }
        None
    }

    /// Returns the items that were applied since the last call, in the order of the source if it has one.
    pub fn drain_applied(&mut self) -> Vec<S::Cursor> {
        std::mem::take(&mut self.applied)
    }

    /// Returns the place up to which everything is applied.
    pub fn reached(&mut self) -> Reached<S::Cursor> {
        match self.slots.front() {
            Some(slot) => Reached::Before(slot.cursor.clone()),
            None => Reached::Through(self.through.take()),
        }
    }

    /// Whether [`take`](Self::take) may return a batch.
    pub fn has_more(&self) -> bool {
        !self.ready.is_empty() || self.next < self.first + self.slots.len() as u64
    }

    fn index(&self, slot: u64) -> usize {
        (slot - self.first) as usize
    }
}

impl<I> Batch<I> {
    /// Splits the batch from its items.
    pub fn into_parts(self) -> (Batch<()>, Vec<I>) {
        let Self { number, slots, items, attempt } = self;
        (Batch { number, slots, items: Vec::new(), attempt }, items)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use annals_core::Cause;

    use super::*;
    use crate::source::Read;

    /// Items are a key and a number; the number is the cursor.
    struct Items<const ORDERED: bool>;

    impl<const ORDERED: bool> Source for Items<ORDERED> {
        type Item = (u8, u64);
        type Cursor = u64;
        type Checkpoint = u64;
        const IS_ORDERED: bool = ORDERED;

        fn key((key, _): &(u8, u64)) -> impl std::hash::Hash {
            *key
        }
        fn name((key, number): &(u8, u64)) -> String {
            format!("{key}: {number}")
        }
        fn cursor((_, number): &(u8, u64)) -> u64 {
            *number
        }
        fn bytes(_: &(u8, u64)) -> usize {
            10
        }
        fn advance(checkpoint: &mut u64, applied: &[u64]) {
            *checkpoint = applied.last().copied().unwrap_or(*checkpoint);
        }
        async fn read(&mut self) -> Result<Read<Self>, Cause> {
            Ok(Read::Lost)
        }
        async fn wait(&mut self) -> Result<(), Cause> {
            Ok(())
        }
    }

    /// Numbers that look random, and are the same for one seed.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }
    }

    /// What is known of items that were pushed, beside the window.
    #[derive(Default)]
    struct Model {
        pushed: Vec<(u8, u64)>,
        applied: HashSet<u64>,
        released: HashSet<u64>,
        out: Vec<(u8, u64)>,
    }

    impl Model {
        /// Items that come before this one and are of its key, or of any if the order is total.
        fn check_may_be_out(&self, item: (u8, u64), with: &[(u8, u64)], is_total: bool) {
            for other in self.pushed.iter().filter(|other| other.1 < item.1) {
                let is_before = is_total || other.0 == item.0;
                let is_done = self.applied.contains(&other.1) || self.released.contains(&other.1);
                assert!(
                    !is_before || is_done || with.contains(other),
                    "{item:?} is out before {other:?}, which comes earlier"
                );
            }
        }
    }

    /// Takes, applies, fails and gives back items in a random order, until all are applied.
    fn run<const ORDERED: bool>(seed: u64, is_total: bool) {
        let mut random = Random(seed);
        let mut window = Window::<Items<ORDERED>>::new(is_total);
        let (mut model, mut out, mut marked) = (Model::default(), Vec::new(), Vec::new());
        let mut now = Instant::now();
        let count = 150;
        for step in 0.. {
            assert!(step < 100_000, "seed {seed}: it does not come to an end");
            if (model.pushed.len() as u64) < count && random.below(3) == 0 {
                let page: Vec<_> = (0..random.below(8))
                    .map(|_| {
                        let item = (random.below(5) as u8, model.pushed.len() as u64 + 1);
                        model.pushed.push(item);
                        item
                    })
                    .collect();
                window.push(page, None, false);
            }
            let lanes_max = if is_total { 1 } else { 4 };
            if out.len() < lanes_max
                && let Some(batch) = window.take(1 + random.below(6) as usize)
            {
                for (index, item) in batch.items.iter().enumerate() {
                    assert!(!model.applied.contains(&item.1), "{item:?} is out again");
                    assert!(!model.released.contains(&item.1), "{item:?} is out after it was released");
                    assert!(!model.out.contains(item), "{item:?} is out twice");
                    model.check_may_be_out(*item, &batch.items[..index], is_total);
                }
                assert!(batch.attempt == 1 || batch.items.len() == 1, "what is tried again comes alone");
                model.out.extend(&batch.items);
                out.push(batch);
            }
            if !out.is_empty() && random.below(2) == 0 {
                let batch = out.swap_remove(random.below(out.len() as u64) as usize);
                let (mut batch, mut items) = batch.into_parts();
                let part = random.below(items.len() as u64 + 1) as usize;
                if random.below(3) == 0 {
                    window.settle_part(&mut batch, part);
                    model.out.retain(|item| !items[..part].contains(item));
                    model.applied.extend(items.drain(..part).map(|item| item.1));
                }
                let applied = random.below(items.len() as u64 + 1) as usize;
                model.out.retain(|item| !items.contains(item));
                model.applied.extend(items[..applied].iter().map(|item| item.1));
                let end = match random.below(4) {
                    _ if applied == items.len() => Settled::Applied,
                    0 => Settled::GivenBack,
                    1 if !ORDERED => {
                        let key = items[applied].0;
                        let of_key = model.pushed.iter().filter(|item| is_total || item.0 == key);
                        let left = of_key.map(|item| item.1).filter(|item| !model.applied.contains(item));
                        model.released.extend(left.collect::<Vec<_>>());
                        Settled::Released
                    }
                    _ => Settled::Failed(now + Duration::from_millis(random.below(5))),
                };
                window.settle(batch, applied, items[applied..].to_vec(), &end);
            }
            now += Duration::from_millis(1);
            window.wake(now);
            marked.extend(window.drain_applied());
            // An ordered source's checkpoint may only pass what is applied with all before it.
            if ORDERED {
                assert_eq!(marked, (1..=marked.len() as u64).collect::<Vec<_>>(), "seed {seed}");
                assert!(marked.iter().all(|item| model.applied.contains(item)));
            }
            if model.pushed.len() as u64 >= count && out.is_empty() && window.len() == 0 {
                break;
            }
        }
        marked.sort_unstable();
        let mut applied: Vec<u64> = model.applied.iter().copied().collect();
        applied.sort_unstable();
        assert_eq!(marked, applied, "seed {seed}: each is marked once");
        let all = model.pushed.len();
        assert_eq!(model.applied.union(&model.released).count(), all, "seed {seed}: none is forgotten");
        assert_eq!((window.bytes(), window.held.len()), (0, 0), "seed {seed}");
    }

    #[test]
    fn items_go_out_in_order_and_none_is_forgotten() {
        for seed in 0..40 {
            run::<true>(seed, false);
            run::<true>(seed, true);
            run::<false>(seed, false);
        }
    }

    #[test]
    fn what_waited_for_an_item_that_failed_comes_in_one_batch() {
        for is_total in [true, false] {
            let mut window = Window::<Items<true>>::new(is_total);
            window.push((1..=6).map(|number| (1, number)).collect(), None, true);
            let (batch, items) = window.take(6).expect("all").into_parts();
            let now = Instant::now();
            window.settle(batch, 1, items[1..].to_vec(), &Settled::Failed(now));
            window.wake(now);
            let (batch, items) = window.take(6).expect("what failed").into_parts();
            assert_eq!(items, [(1, 2)], "it comes alone");
            window.settle(batch, 1, Vec::new(), &Settled::Applied);
            window.push(vec![(1, 7)], None, true);
            let (batch, items) = window.take(6).expect("the others").into_parts();
            assert_eq!(items, [(1, 3), (1, 4), (1, 5), (1, 6), (1, 7)]);
            window.settle(batch, 2, items[2..].to_vec(), &Settled::GivenBack);
            let (_, items) = window.take(6).expect("the others").into_parts();
            assert_eq!(items, [(1, 5), (1, 6), (1, 7)]);
        }
    }

    #[test]
    fn part_of_a_batch_is_applied_before_the_rest() {
        let mut window = Window::<Items<true>>::new(false);
        window.push(vec![(1, 1), (2, 2), (1, 3), (2, 4)], None, true);
        let (mut batch, items) = window.take(3).expect("three").into_parts();
        window.settle_part(&mut batch, 2);
        assert_eq!((window.drain_applied(), window.reached()), (vec![1, 2], Reached::Before(3)));
        let (other, next) = window.take(3).expect("another lane may have the next of its key").into_parts();
        assert_eq!(next, [(2, 4)]);
        window.settle(batch, 0, items[2..].to_vec(), &Settled::GivenBack);
        window.settle(other, 1, Vec::new(), &Settled::Applied);
        let (batch, items) = window.take(3).expect("what was given back").into_parts();
        assert_eq!(items, [(1, 3)]);
        window.settle(batch, 1, Vec::new(), &Settled::Applied);
        assert_eq!(window.drain_applied(), [3, 4]);
    }

    #[test]
    fn a_window_says_how_far_everything_is_applied() {
        let mut window = Window::<Items<true>>::new(false);
        assert_eq!(window.reached(), Reached::Through(None));
        window.push(vec![(1, 10), (2, 20)], Some(25), true);
        assert_eq!(window.reached(), Reached::Before(10));
        let (batch, items) = window.take(1).expect("the first").into_parts();
        window.settle(batch, 1, Vec::new(), &Settled::Applied);
        assert_eq!(items, [(1, 10)]);
        assert_eq!(window.reached(), Reached::Before(20));
        let (batch, _) = window.take(5).expect("the second").into_parts();
        window.settle(batch, 1, Vec::new(), &Settled::Applied);
        assert_eq!(window.reached(), Reached::Through(Some(25)));
        assert_eq!(window.reached(), Reached::Through(None), "it was reported");
        window.push(Vec::new(), Some(40), true);
        assert_eq!(window.reached(), Reached::Through(Some(40)));
        assert_eq!(window.drain_applied(), [10, 20]);
    }
}
