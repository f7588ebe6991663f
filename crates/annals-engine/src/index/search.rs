//! Runs a query on the places of its terms, within one run.
//!
//! The search proceeds window by window, so that its cost depends on the size of the page and not on the
//! length of the postings lists.

use std::ops::Range;

use annals_core::{Direction, Query, QueryItem};

use super::{Index, Postings};
use crate::error::Fault;
use crate::log::terms::Kind;

/// The smallest window, in places.
const WINDOW_MIN: u32 = 1_024;
/// The largest window, in places, if the terms have more places than this.
const WINDOW_MAX: u32 = 16_384;

/// Whether [`search`] uses hashes on disk for this query. If so, there may be false positives: check the
/// events.
pub fn is_by_hash(query: &Query) -> bool {
    query.items.iter().any(|item| item.id.is_some() || item.predecessor.is_some())
}

/// For each item of the query that has such a term: the hash of the first of its terms by which the filter of
/// a run may tell that nothing in it matches.
pub fn hashes_in_filters(query: &Query) -> impl Iterator<Item = u64> {
    query.items.iter().filter_map(|item| Some(rare_terms(item).next()?.hash()))
}

/// The terms of an item that are in the filters of runs.
fn rare_terms(item: &QueryItem) -> impl Iterator<Item = Term<'_>> {
    let tags = item.tags.iter().map(|tag| Term(Kind::Tag, tag.as_str()));
    let process = item.process.iter().map(|name| Term(Kind::Process, name));
    tags.chain(process).chain(item.initiator.iter().map(|name| Term(Kind::Initiator, name)))
}

/// A term of an item of a query.
struct Term<'a>(Kind, &'a str);

impl Term<'_> {
    fn hash(&self) -> u64 {
        self.0.hash(self.1.as_bytes())
    }

    fn find(&self, index: &dyn Index) -> Result<Option<Postings>, Fault> {
        index.find(self.0, self.1.as_bytes(), self.hash())
    }
}

/// Returns at most `limit` places within the range that match the query, in the given direction, with false
/// positives if it [is by hash](is_by_hash); and the place where the search stopped: everything before it
/// (backward: from it on) has been searched.
pub fn search(
    index: &dyn Index,
    query: &Query,
    range: Range<u32>,
    direction: Direction,
    limit: usize,
) -> Result<(Vec<u32>, u32), Fault> {
    let mut items = Vec::new();
    for item in &query.items {
        items.extend(Lists::find(index, item)?);
    }
    if items.is_empty() {
        return Ok((
            Vec::new(),
            if direction == Direction::Forward { range.end.max(range.start) } else { range.start },
        ));
    }
    let mut windows = Windows::new(items.iter().map(Lists::weight).sum(), index.count(), limit);
    let mut found = Vec::new();
    let Range { start: mut low, end: mut high } = range;
    while low < high && found.len() < limit {
        let window = windows.next();
        let part = match direction {
            Direction::Forward => low..high.min(low.saturating_add(window)),
            Direction::Backward => low.max(high.saturating_sub(window))..high,
        };
        let mut places = Vec::new();
        for item in &items {
            places = union(places, item.places(index, part.clone())?);
        }
        match direction {
            Direction::Forward => low = part.end,
            Direction::Backward => {
                high = part.start;
                places.reverse();
            }
        }
        let room = limit - found.len();
        if places.len() > room {
            match direction {
                Direction::Forward => low = places[room],
                Direction::Backward => high = places[room] + 1,
            }
            places.truncate(room);
        }
        found.extend(places);
    }
    Ok((found, if direction == Direction::Forward { low } else { high }))
}

/// The sizes of the windows: the first one contains about `limit` matches if the terms are spread evenly, the
/// next ones are larger.
struct Windows {
    next: u32,
    max: u32,
}

impl Windows {
    /// The windows for terms with `weight` places, in a run of `count` events.
    fn new(weight: u64, count: u32, limit: usize) -> Self {
        let max = if weight <= u64::from(WINDOW_MAX) { u32::MAX } else { WINDOW_MAX };
        let even = (limit as u64).saturating_mul(u64::from(count)) / weight.max(1);
        let next = u32::try_from(even.saturating_mul(5) / 4).unwrap_or(u32::MAX);
        Self { next: next.clamp(WINDOW_MIN, max), max }
    }

    fn next(&mut self) -> u32 {
        let next = self.next;
        self.next = next.saturating_mul(4).min(self.max);
        next
    }
}

/// The postings of one item of a query: a place matches if each outer list has an inner list that contains
/// it.
struct Lists(Vec<Vec<Postings>>);

impl Lists {
    /// Looks up the item's terms; `None` if it cannot match any event of the run.
    fn find(index: &dyn Index, item: &QueryItem) -> Result<Option<Self>, Fault> {
        let mut lists = Vec::new();
        let category = item.category.as_ref().map(|category| Term(Kind::Category, category.as_str()));
        let predecessor = item.predecessor.as_ref().map(|name| Term(Kind::Predecessor, name));
        // Those first that are in filters.
        for term in rare_terms(item).chain(category).chain(predecessor) {
            let Some(postings) = term.find(index)? else { return Ok(None) };
            lists.push(vec![postings]);
        }
        if let Some(id) = item.id {
            let Some(postings) = index.of_id(id)? else { return Ok(None) };
            lists.push(vec![postings]);
        }
        if !item.types.is_empty() {
            let mut any = Vec::new();
            for event_type in &item.types {
                any.extend(Term(Kind::Type, event_type.as_str()).find(index)?);
            }
            if any.is_empty() {
                return Ok(None);
            }
            lists.push(any);
        }
        Ok(Some(Self(lists)))
    }

    /// An upper bound for the number of places to read.
    fn weight(&self) -> u64 {
        self.0.iter().flatten().map(|postings| u64::from(postings.count)).sum()
    }

    fn places(&self, index: &dyn Index, range: Range<u32>) -> Result<Vec<u32>, Fault> {
        let mut all: Option<Vec<u32>> = None;
        for any in &self.0 {
            let mut places = Vec::new();
            for postings in any {
                places = union(places, index.places(postings, range.clone())?);
            }
            let both = match all {
                None => places,
                Some(before) => intersection(&before, &places),
            };
            if both.is_empty() {
                return Ok(both);
            }
            all = Some(both);
        }
        Ok(all.unwrap_or_else(|| range.collect()))
    }
}

/// All numbers that are in either ascending list, ascending.
fn union(left: Vec<u32>, right: Vec<u32>) -> Vec<u32> {
    if left.is_empty() {
        return right;
    }
    if right.is_empty() {
        return left;
    }
    let mut all = left;
    all.extend(right);
    all.sort_unstable();
    all.dedup();
    all
}

/// All numbers that are in both ascending lists, ascending.
fn intersection(left: &[u32], right: &[u32]) -> Vec<u32> {
    let (few, many) = if left.len() <= right.len() { (left, right) } else { (right, left) };
    few.iter().copied().filter(|number| many.binary_search(number).is_ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_an_event_type_that_all_have_looks_at_little_more_than_the_page() {
        let mut windows = Windows::new(1_000_000, 1_000_000, 1_000);
        assert_eq!(windows.next(), 1_250);
        assert_eq!(windows.next(), 5_000);
        assert_eq!(windows.next(), WINDOW_MAX.min(20_000));
        assert_eq!(windows.next(), WINDOW_MAX);
    }

    #[test]
    fn terms_that_few_events_have_are_looked_at_in_one_step() {
        assert_eq!(Windows::new(10, 1_000_000, 1_000).next(), 125_000_000);
        assert_eq!(Windows::new(0, 0, usize::MAX).next(), WINDOW_MIN);
        assert_eq!(Windows::new(1, u32::MAX, usize::MAX).next(), u32::MAX);
        assert_eq!(Windows::new(u64::MAX, u32::MAX, usize::MAX).next(), WINDOW_MIN);
    }
}
