//! Reads from a view of the log: pages of the log, pages of a stream, lists of streams.
//!
//! Every read finds the places of the events in the indexes of the runs and then fetches the events at these
//! places (`fetch`). The work per page is bounded. The other modules: `view` (the log as readers see it),
//! `scan` (all events in sequence).

pub mod fetch;
pub mod scan;
pub mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_core::{
    Appended, Direction, IdempotencyKey, LogPage, LogRead, Position, RecordedEvent, StreamId, StreamInfo,
    StreamList, StreamPage, StreamRead, Version,
};

use crate::error::Fault;
use crate::index::{Postings, is_by_hash, search};
use crate::log::terms::Kind;
use fetch::weight;
use view::{Run, View};

/// A page ends when its events have this [`weight`] or more.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// A page ends when this many runs were searched.
const PAGE_RUNS_MAX: usize = 64;

/// A page of the log.
pub fn log(view: &View, read: &LogRead) -> Result<LogPage, Fault> {
    let forward = read.direction == Direction::Forward;
    let (head, last) = (view.head, view.head.min(read.to));
    let limit = read.limit.max(1);
    let mut page = LogPage { events: Vec::new(), next: Position::ZERO, end: false, head };
    page.next = if forward { read.from.max(Position::FIRST) } else { read.from.min(last) };
    let (mut bytes, by_hash) = (0, is_by_hash(&read.query));
    view.bring_near(&read.query, page.next, read.direction);
    for _ in 0..PAGE_RUNS_MAX {
        page.end = if forward { page.next > last } else { page.next == Position::ZERO };
        if page.end || page.events.len() >= limit || bytes >= PAGE_BYTES_MAX {
            break;
        }
        let run = view.run_of(page.next);
        let place = (page.next.get() - run.base.get()) as u32;
        let range = match forward {
            true => place..view.visible(run).min(place_after(run, last)),
            false => 0..place + 1,
        };
        let (places, looked) = places(run, read, range, limit - page.events.len())?;
        let events = fetch::events(view, run, &places, PAGE_BYTES_MAX - bytes)?;
        bytes += events.iter().map(weight).sum::<usize>();
        page.next = match events.last() {
            // The page reached its maximum of bytes: resume after its last event.
            Some(last) if events.len() < places.len() && forward => last.position().next(),
            Some(last) if events.len() < places.len() => last.position().previous(),
            _ if forward => run.position(looked),
            _ => run.position(looked).previous(),
        };
        page.events.extend(events.into_iter().filter(|event| !by_hash || read.query.matches(event)));
    }
    page.end = if forward { page.next > last } else { page.next == Position::ZERO };
    Ok(page)
}

/// The place after that of this position, which may be outside the run.
fn place_after(run: &Run, position: Position) -> u32 {
    u32::try_from(position.next().get().saturating_sub(run.base.get())).unwrap_or(u32::MAX)
}

/// The places within the range that match the query, and the place where the search stopped.
fn places(
    run: &Run,
    read: &LogRead,
    range: std::ops::Range<u32>,
    limit: usize,
) -> Result<(Vec<u32>, u32), Fault> {
    if !read.query.is_all() {
        return search(run.index(), &read.query, range, read.direction, limit);
    }
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    Ok(match read.direction {
        Direction::Forward => {
            let end = range.end.min(range.start.saturating_add(limit));
            ((range.start..end).collect(), end)
        }
        Direction::Backward => {
            let start = range.start.max(range.end.saturating_sub(limit));
            ((start..range.end).rev().collect(), start)
        }
    })
}

/// The events of one stream in one run.
struct Part {
    run: Arc<Run>,
    postings: Postings,
    first: Version,
    last: Version,
}

/// The parts of a stream, newest first, back to the one that contains version `from`.
fn parts(view: &View, stream: &StreamId, from: Version) -> Result<Vec<Part>, Fault> {
    let mut parts = Vec::new();
    let name = stream.as_str().as_bytes();
    let hash = Kind::Stream.hash(name);
    for run in view.runs_back(hash) {
        let visible = view.visible(run);
        if visible == 0 {
            continue;
        }
        let Some(postings) = run.index().find(Kind::Stream, name, hash)? else { continue };
        let count = run.index().count_below(&postings, visible);
        if count == 0 {
            continue;
        }
        let first = Version::new(postings.first_version);
        let last = first.plus(u64::from(count) - 1);
        parts.push(Part { run: run.clone(), postings, first, last });
        if first <= from.max(Version::FIRST) {
            break;
        }
    }
    Ok(parts)
}

/// A page of a stream.
pub fn stream(view: &View, read: &StreamRead) -> Result<StreamPage, Fault> {
    let forward = read.direction == Direction::Forward;
    let limit = u64::try_from(read.limit.max(1)).unwrap_or(u64::MAX);
    let newest = parts(view, &read.stream, Version::MAX)?;
    let version = newest.first().map_or(Version::ZERO, |part| part.last);
    let last = version.min(read.to);
    let (from, to) = if forward {
        let from = read.from.max(Version::FIRST);
        (from, last.min(from.plus(limit - 1)))
    } else {
        let to = read.from.min(last);
        (Version::new(to.get().saturating_sub(limit - 1)).max(Version::FIRST), to)
    };
    let mut events = Vec::new();
    if from <= to {
        let mut parts = if newest.last().is_some_and(|part| part.first <= from) {
            newest
        } else {
            parts(view, &read.stream, from)?
        };
        if forward {
            parts.reverse();
        }
        events = events_between(view, &parts, from, to, forward)?;
    }
    let next = match events.last() {
        Some(last) if forward => last.version().next(),
        Some(last) => last.version().previous(),
        None if forward => from.max(last.next()),
        None => Version::ZERO,
    };
    let end = if forward { next > last } else { next == Version::ZERO };
    Ok(StreamPage { events, next, end, version })
}

fn events_between(
    view: &View,
    parts: &[Part],
    from: Version,
    to: Version,
    forward: bool,
) -> Result<Vec<RecordedEvent>, Fault> {
    let mut events: Vec<RecordedEvent> = Vec::new();
    let mut bytes = 0;
    for part in parts.iter().filter(|part| part.first <= to && part.last >= from) {
        if bytes >= PAGE_BYTES_MAX {
            break;
        }
        let rank = |version: Version| (version.get() - part.first.get()) as u32;
        let ranks = rank(from.max(part.first))..rank(to.min(part.last)).saturating_add(1);
        let mut places = part.run.index().ranked(&part.postings, ranks)?;
        if !forward {
            places.reverse();
        }
        let found = fetch::events(view, &part.run, &places, PAGE_BYTES_MAX - bytes)?;
        bytes += found.iter().map(weight).sum::<usize>();
        let cut = found.len() < places.len();
        events.extend(found);
        if cut {
            break;
        }
    }
    Ok(events)
}

/// Version of a stream, and position of its last event.
pub fn stream_info(view: &View, stream: &StreamId) -> Result<Option<StreamInfo>, Fault> {
    let parts = parts(view, stream, Version::MAX)?;
    let Some(part) = parts.first() else { return Ok(None) };
    Ok(Some(StreamInfo { stream: stream.clone(), version: part.last, position: part.last_position()? }))
}

impl Part {
    fn last_position(&self) -> Result<Position, Fault> {
        let rank = (self.last.get() - self.first.get()) as u32;
        let places = self.run.index().ranked(&self.postings, rank..rank.saturating_add(1))?;
        let place = *places.first().ok_or_else(|| wrong(&self.run))?;
        Ok(self.run.position(place))
    }
}

/// The error for an index with an impossible entry for a stream.
fn wrong(run: &Run) -> Fault {
    let name = run.file_name().unwrap_or("the index in memory");
    Fault::damaged(name, 0, Some(run.base), "the index has an impossible entry for a stream")
}

/// Streams in the order of their names.
pub fn streams(view: &View, list: &StreamList) -> Result<Vec<StreamInfo>, Fault> {
    let limit = list.limit.max(1);
    let mut found: Vec<StreamInfo> = Vec::new();
    let mut after: Option<String> = list.after.as_ref().map(|name| name.as_str().to_owned());
    if let Some(category) = &list.category {
        // The streams of a category have its name, or a name that begins with it and a dash. In between are
        // names of other categories, which are skipped.
        let own = category.as_str();
        if after.as_deref().is_none_or(|after| after < own)
            && let Ok(stream) = StreamId::new(own)
            && stream.category() == *category
        {
            found.extend(stream_info(view, &stream)?);
        }
        let before_others = format!("{own},\u{10ffff}");
        after = after.max(Some(before_others));
    }
    while found.len() < limit {
        let (page, complete_to) = merged(view, after.as_deref(), limit)?;
        for (name, part) in page {
            let stream = StreamId::new(name).map_err(|_| wrong(&part.run))?;
            match &list.category {
                Some(category) if stream.category() == *category => {}
                Some(category) if stream.as_str() > &*format!("{category}-\u{10ffff}") => return Ok(found),
                Some(_) => continue,
                None => {}
            }
            if found.len() == limit {
                return Ok(found);
            }
            let position = part.last_position()?;
            found.push(StreamInfo { stream, version: part.last, position });
        }
        match complete_to {
            Some(name) => after = Some(name),
            None => break,
        }
    }
    Ok(found)
}

/// Merges the streams after a name from all runs. If there may be more, also returns the name up to which the
/// list is complete.
fn merged(
    view: &View,
    after: Option<&str>,
    limit: usize,
) -> Result<(BTreeMap<String, Part>, Option<String>), Fault> {
    let mut streams: BTreeMap<String, Part> = BTreeMap::new();
    let mut complete_to: Option<String> = None;
    for run in view.runs() {
        let visible = view.visible(run);
        let page = run.index().streams_after(after, limit)?;
        if page.len() == limit
            && let Some((last, _)) = page.last()
            && complete_to.as_ref().is_none_or(|name| last < name)
        {
            complete_to = Some(last.clone());
        }
        for (name, postings) in page {
            let count = run.index().count_below(&postings, visible);
            if count > 0 {
                let first = Version::new(postings.first_version);
                let last = first.plus(u64::from(count) - 1);
                // Runs are in order, so the newest part of a stream replaces older ones.
                streams.insert(name, Part { run: run.clone(), postings, first, last });
            }
        }
    }
    if let Some(name) = &complete_to {
        streams.retain(|stream, _| stream <= name);
    }
    Ok((streams, complete_to))
}

/// The outcome of the append whose first event is at this position.
pub fn appended(view: &View, first: Position) -> Result<Appended, Fault> {
    let run = view.run_of(first);
    let place = (first.get() - run.base.get()) as u32;
    let end = append_end(run, place, view.visible(run))?;
    repeated(view, first, (end - place) as usize)
}

/// The place after the last event of the append that begins at this place. An append is within one run.
fn append_end(run: &Run, first: u32, visible: u32) -> Result<u32, Fault> {
    let mut from = first + 1;
    // Most appends have few events.
    let mut step = 8;
    let mut offsets = Vec::new();
    while from < visible {
        let to = visible.min(from.saturating_add(step));
        offsets.clear();
        run.index().offsets(from..to, &mut offsets)?;
        if let Some(next) = offsets.iter().position(|offset| offset.is_first_in_frame()) {
            return Ok(from + next as u32);
        }
        (from, step) = (to, step * 4);
    }
    Ok(visible)
}

/// Position of the first event of the append in this run that had this key.
pub fn keyed(run: &Run, key: &IdempotencyKey, hash: u64) -> Result<Option<Position>, Fault> {
    let Some(postings) = run.index().find(Kind::Key, key.as_str().as_bytes(), hash)? else { return Ok(None) };
    let place = run.index().ranked(&postings, 0..1)?;
    Ok(place.first().map(|&place| run.position(place)))
}

/// The outcome of the append that had this key.
pub fn outcome(view: &View, key: &IdempotencyKey) -> Result<Option<Appended>, Fault> {
    let hash = Kind::Key.hash(key.as_str().as_bytes());
    for run in view.runs_back(hash) {
        if let Some(first) = keyed(run, key, hash)?.filter(|first| *first <= view.head) {
            return Ok(Some(appended(view, first)?));
        }
    }
    Ok(None)
}

/// The outcome of an append of the `count` events from this position on, as a duplicate.
pub fn repeated(view: &View, first: Position, count: usize) -> Result<Appended, Fault> {
    let mut events: Vec<RecordedEvent> = Vec::new();
    while events.len() < count {
        let from = first.plus(events.len() as u64);
        let page = log(view, &LogRead::forward(from).limit(count - events.len()))?;
        assert!(!page.events.is_empty(), "events that were judged to be there are there");
        events.extend(page.events);
    }
    Ok(Appended::of(&events, true))
}
