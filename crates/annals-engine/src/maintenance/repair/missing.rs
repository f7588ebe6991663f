//! Reports the streams of lost events, as far as the indexes contain them.
//!
//! An index is searched once per segment with lost events, independent of their number. Events that it does
//! not contain, or all of them if it is damaged, are still reported as lost positions.

use std::ops::Range;
use std::sync::Arc;

use annals_core::{Position, Result, StreamId, Version};

use super::{Copy, Note};
use crate::error::Fault;
use crate::index::{BlockCache, FileIndex, Index, Postings};
use crate::log::segment::run_of;

/// Size of the block cache, in bytes.
const CACHE_BYTES: usize = 8 << 20;
/// Streams that are read from an index at a time.
const STREAMS: usize = 256;

/// Reports the streams of the lost events in `copy.lost`, and clears that list.
pub fn report(copy: &mut Copy<'_>) -> Result<()> {
    let lost = std::mem::take(&mut copy.lost);
    let (Some(first), Some(last)) =
        (lost.iter().map(|lost| lost.start).min(), lost.iter().map(|lost| lost.end).max())
    else {
        return Ok(());
    };
    let names = copy.source.list().map_err(Fault::io("list", "the log"))?;
    let runs = names.into_iter().filter_map(|name| Some((run_of(&name)?, name)));
    let mut runs: Vec<_> = runs.filter(|((from, to), _)| *from < last && *to >= first).collect();
    // Of runs that begin at the same position, the longest comes first.
    runs.sort_unstable_by_key(|((from, to), _)| (*from, std::cmp::Reverse(*to)));
    let cache = Arc::new(BlockCache::new(CACHE_BYTES));
    // Sort and merge the ranges, for binary search.
    let mut lost = lost;
    lost.sort_unstable_by_key(|lost| lost.start);
    lost.dedup_by(|next, before| {
        let touches = next.start <= before.end;
        before.end = if touches { before.end.max(next.end) } else { before.end };
        touches
    });
    let mut reported = first;
    for ((from, to), name) in runs.into_iter().filter(|((_, to), _)| *to >= first) {
        let Ok(file) = copy.source.open(&name) else { continue };
        let Ok(index) = FileIndex::open(&name, file, from, cache.clone()) else { continue };
        let is_ours = copy.done.source.is_none_or(|id| id == index.ending().store);
        if to < reported || index.last() != to || !is_ours {
            continue;
        }
        let from = from.max(reported);
        let parts = lost.iter().map(|lost| lost.start.max(from)..lost.end.min(to.next()));
        look_through(copy, &index, &parts.filter(|part| part.start < part.end).collect::<Vec<_>>())?;
        reported = to.next();
    }
    Ok(())
}

/// Reports the streams that an index has at these positions.
fn look_through(copy: &mut Copy<'_>, index: &FileIndex, parts: &[Range<Position>]) -> Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    let mut after = None;
    // A damaged index returns fewer streams; the positions are reported in any case.
    while let Ok(streams) = index.streams_after(after.as_deref(), STREAMS)
        && !streams.is_empty()
    {
        for (stream, postings) in &streams {
            of_stream(copy, index, parts, stream, postings)?;
        }
        after = streams.last().map(|(stream, _)| stream.clone());
    }
    Ok(())
}

fn of_stream(
    copy: &mut Copy<'_>,
    index: &FileIndex,
    parts: &[Range<Position>],
    stream: &str,
    postings: &Postings,
) -> Result<()> {
    let place = |position: Position| (position.get() - index.base().get()) as u32;
    let end = parts.iter().map(|part| place(part.end)).max().unwrap_or(0);
    let Ok(places) = index.places(postings, 0..end) else { return Ok(()) };
    // Places and parts are sorted, so the work grows with the events of the stream, not with the number of
    // parts.
    let mut from = 0;
    while from < places.len() {
        let part = &parts[parts.partition_point(|part| place(part.end) <= places[from])];
        if places[from] < place(part.start) {
            from += places[from..].partition_point(|&at| at < place(part.start));
            continue;
        }
        let to = from + places[from..].partition_point(|&at| at < place(part.end));
        let version = |rank: usize| Version::new(postings.first_version + rank as u64);
        if let Ok(id) = StreamId::new(stream) {
            copy.shifts.entry(id).or_default();
        }
        let position = index.base().plus(u64::from(places[from]));
        let (first, last) = (version(from), version(to - 1));
        copy.note(Note::Gone { stream: stream.to_owned(), first, last, position })?;
        from = to;
    }
    Ok(())
}
