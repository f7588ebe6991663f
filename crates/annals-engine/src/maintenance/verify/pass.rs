//! One pass over the log: the checks, segment by segment.
//!
//! The findings in a segment are added to the result when the segment is done, so a pass that is stopped
//! within a segment starts that segment again when it is resumed. Next below: `segment::walk`; `salvage`
//! after damage; `runs` compares the indexes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use annals_core::{Position, RecordedEvent, Result, StoreId, SystemClock, Timestamp, Witness};

use super::progress::{self, PassInProgress, Progress};
use super::runs::Runs;
use super::{Damage, LastPass, Lost, OnDamage, Verification, VerifyOptions};
use crate::disk::Disk;
use crate::error::Fault;
use crate::log::durable;
use crate::log::frame::{Header, Mark};
use crate::log::identity;
use crate::log::segment::{End, Segment, SegmentHeader, file_name, walk};
use crate::maintenance::headless::Headless;
use crate::maintenance::salvage::{self, Piece, Spot};
use crate::maintenance::work::{Watched, Work};
use crate::proof::digest::LogDigest;
use crate::proof::{self, Proof};
use crate::recovery::{Builder, check_next, check_runs, last_used, torn_tail_end};

/// The extent of the log.
pub struct Extent {
    /// First positions of its segments, in order.
    pub bases: Vec<Position>,
    /// Position of the newest event, if the store is open.
    pub head: Option<Position>,
}

/// Verifies the log on this disk; `extent` returns its current extent. Also returns the event up to which the
/// log is known to be durable, if that is after the recorded one and there is no damage.
pub fn run(
    disk: &dyn Disk,
    options: &VerifyOptions,
    remember: bool,
    extent: &mut dyn FnMut() -> Result<Extent, Fault>,
) -> Result<(Verification, Option<Witness>)> {
    let mut log = extent()?;
    let names = disk.list().map_err(Fault::io("list", "the log"))?;
    let mut pass = Pass::new(disk, options);
    let identity = match identity::read(disk, &names) {
        Ok(identity) => identity,
        Err(fault) => {
            pass.note(fault, Lost::Nothing)?;
            None
        }
    };
    pass.store = identity;
    match durable::read(disk, &names, identity) {
        Ok(durable) => pass.durable = durable,
        Err(fault) => pass.note(fault, Lost::Nothing)?,
    }
    pass.proof = identity.map(|store| Proof::read(disk, store, Position::MAX));
    let mut progress = Progress::default();
    if remember {
        // Unusable progress is ignored.
        progress = progress::read(disk, identity).ok().flatten().unwrap_or_default();
    }
    let mut index = 0;
    if let Some(current) = progress.current.take().filter(|_| options.resume)
        && let Some(at) = log.bases.iter().position(|&base| base == current.segment)
        && progress::mark(disk, current.segment).is_ok_and(|mark| mark == current.mark)
    {
        index = at;
        pass.resume(current);
    }
    let total = total(disk, &log.bases)?;
    pass.work.set_done(pass.found.bytes);
    pass.work.set_total(total);
    while index < log.bases.len() {
        if log.head.is_some() && index + 1 == log.bases.len() {
            log = extent()?;
        }
        let (base, next) = (log.bases[index], log.bases.get(index + 1).copied());
        match pass.segment(base, next, log.head) {
            Ok(()) => {}
            Err(Fault::Io { .. }) if options.work.is_stopped() => {
                pass.found.finished = false;
                pass.save(&mut progress, remember, base, true);
                return Ok((pass.found, None));
            }
            Err(fault) => return Err(fault.into()),
        }
        if let Some(next) = next {
            pass.save(&mut progress, remember, next, false);
        }
        index += 1;
    }
    if log.head.is_none() {
        pass.check_end(log.bases.len())?;
    }
    pass.found.store = pass.store;
    pass.found.finished = true;
    if let Some(digest) = pass.digest.as_ref().filter(|_| !log.bases.is_empty()) {
        pass.found.digest = digest.log().iter().map(|byte| format!("{byte:02x}")).collect();
    }
    if remember {
        pass.remember(&mut progress);
    }
    let known = pass.durable.map_or(Position::ZERO, |known| known.position);
    let durable = if log.head.is_some() { pass.last } else { pass.proven };
    let durable = durable.filter(|durable| durable.position > known && pass.found.damage.is_empty());
    Ok((pass.found, durable))
}

fn total(disk: &dyn Disk, bases: &[Position]) -> Result<u64, Fault> {
    let mut total = 0;
    for &base in bases {
        let name = file_name(base);
        let file = disk.open(&name).map_err(Fault::io("open", &name))?;
        total += file.length().map_err(Fault::io("read the length of", &name))?;
    }
    Ok(total)
}

struct Pass<'a> {
    disk: &'a dyn Disk,
    work: Arc<Work>,
    on_damage: Option<OnDamage>,
    found: Verification,
    /// Identity of the log, once it is known.
    store: Option<StoreId>,
    /// First position of the next segment.
    expected: Position,
    /// Digest of the checked part; `None` after damage.
    digest: Option<LogDigest>,
    /// The digest that the store has written.
    proof: Option<Proof>,
    /// The event that the store has recorded as durable.
    durable: Option<Witness>,
    /// The last event that was checked.
    last: Option<Witness>,
    /// The last event that a later frame proves to be durable.
    proven: Option<Witness>,
    runs: Runs,
    /// Whether the last segment has an end mark.
    continues: bool,
    /// Newest version of each stream, by the hash of its name.
    versions: HashMap<u64, u64>,
    started_at: Timestamp,
    /// Bytes that were verified when the progress was last written.
    saved: u64,
}

/// The findings in one segment.
#[derive(Default)]
pub struct Findings {
    appends: u64,
    events: u64,
    /// Number of indexes that were compared completely.
    pub indexes: u64,
    damage: Vec<Damage>,
    versions: HashMap<u64, u64>,
    /// Whether events were lost before, so that versions may have gaps.
    lossy: bool,
    /// Digest of the log up to here; `None` after damage.
    digest: Option<LogDigest>,
    /// Whether the segment has an end mark.
    continues: bool,
    /// The last event that was checked.
    last: Option<Witness>,
    /// Frames that no later frame proves to be durable: the first position of each, with the event before it.
    unproven: VecDeque<(Position, Option<Witness>)>,
}

impl Findings {
    /// Adds the next frame, which records up to which position the log was durable.
    fn follow_frame(&mut self, header: &Header) {
        while self.unproven.front().is_some_and(|(first, _)| *first <= header.durable) {
            self.unproven.pop_front();
        }
        self.unproven.push_back((header.first, self.last));
    }

    /// The last event that a later frame proves to be durable.
    fn proven(&self) -> Option<Witness> {
        self.unproven.front().map_or(self.last, |(_, before)| *before)
    }

    /// Checks the next event, which begins at this byte of the file.
    fn add_event(&mut self, before: &HashMap<u64, u64>, event: &RecordedEvent, byte: u64, name: &str) {
        let hash = xxhash_rust::xxh3::xxh3_64(event.stream().as_bytes());
        let known = self.versions.get(&hash).or_else(|| before.get(&hash)).copied().unwrap_or_default();
        let version = event.version().get();
        // A gap after lost events is expected: the loss is reported already.
        if version != known + 1 && !(self.lossy && version > known) {
            let problem = format!("stream `{}` goes from version {known} to {version}", event.stream());
            self.report(name, byte, Some(event.position()), problem, Lost::Nothing);
        }
        self.versions.insert(hash, version);
        self.events += 1;
        self.last = Some(Witness::of(event));
    }

    /// Compares an event with the one that is known to be durable.
    fn compare(&mut self, durable: Option<Witness>) -> Result<(), Fault> {
        match (durable, self.last) {
            (Some(known), Some(last)) => self.note(durable::check_event(known, last)),
            _ => Ok(()),
        }
    }

    /// Records damage that loses no event; any other error ends the verification.
    pub fn note(&mut self, checked: Result<(), Fault>) -> Result<(), Fault> {
        match checked {
            Err(Fault::Damaged { location, problem }) => {
                self.damage.push(Damage { location, problem, lost: Lost::Nothing });
                Ok(())
            }
            checked => checked,
        }
    }

    fn report(&mut self, file: &str, offset: u64, position: Option<Position>, problem: String, lost: Lost) {
        let location = annals_core::Location { file: file.to_owned(), offset, position };
        self.lossy |= lost != Lost::Nothing;
        self.damage.push(Damage { location, problem, lost });
    }
}

impl<'a> Pass<'a> {
    fn new(disk: &'a dyn Disk, options: &VerifyOptions) -> Self {
        Self {
            disk,
            work: options.work.clone(),
            on_damage: options.on_damage.clone(),
            found: Verification::default(),
            store: None,
            expected: Position::FIRST,
            digest: Some(LogDigest::default()),
            proof: None,
            durable: None,
            last: None,
            proven: None,
            runs: Runs::default(),
            continues: false,
            versions: HashMap::new(),
            started_at: now(),
            saved: 0,
        }
    }

    /// Resumes an earlier pass.
    fn resume(&mut self, current: PassInProgress) {
        self.expected = current.segment;
        self.started_at = current.started_at;
        self.digest = current.digest;
        self.versions = current.versions;
        self.found = current.found;
        self.found.resumed = Some(current.segment);
        self.saved = self.found.bytes;
        self.runs.pass_over(self.found.damage.iter().map(|damage| damage.location.file.as_str()));
        if let Some(on_damage) = &self.on_damage {
            self.found.damage.iter().for_each(|damage| on_damage(damage));
        }
    }

    /// Records damage; any other error ends the verification.
    fn note(&mut self, fault: Fault, lost: Lost) -> Result<(), Fault> {
        match fault {
            Fault::Damaged { location, problem } => {
                self.damaged(Damage { location, problem, lost });
                Ok(())
            }
            fault => Err(fault),
        }
    }

    fn damaged(&mut self, damage: Damage) {
        if let Some(on_damage) = &self.on_damage {
            on_damage(&damage);
        }
        self.found.damage.push(damage);
    }

    fn is_lossy(&self) -> bool {
        self.found.damage.iter().any(|damage| damage.lost != Lost::Nothing)
    }

    /// Checks one segment, and compares the indexes with it.
    fn segment(
        &mut self,
        base: Position,
        next: Option<Position>,
        head: Option<Position>,
    ) -> Result<(), Fault> {
        let name = file_name(base);
        let limit = Limit { base, next, head };
        let mut findings = Findings {
            lossy: self.is_lossy(),
            digest: self.digest.clone(),
            last: self.last,
            ..Findings::default()
        };
        if base > self.expected {
            let problem =
                format!("the log has no segment with position {}; this one comes next", self.expected);
            let lost = Lost::between(self.expected, base);
            findings.report(&name, 0, Some(self.expected), problem, lost);
        }
        let file = self.disk.open(&name).map_err(Fault::io("open", &name))?;
        let length = file.length().map_err(Fault::io("read the length of", &name))?;
        let watched = Arc::new(Watched::whole(file, &self.work));
        self.runs.open(self.disk, base, &self.work, &mut findings)?;
        let end = match SegmentHeader::read(&*watched, base) {
            Ok(header) if *self.store.get_or_insert(header.store) != header.store => {
                let problem = "the segment is of another log".to_owned();
                findings.report(&name, 16, Some(base), problem, limit.lost_from(base));
                base
            }
            Ok(header) => self.known(&Segment::new(header, watched.clone()), limit, &mut findings)?,
            Err(Fault::Damaged { location, problem }) => {
                let (disk, store, work) = (self.disk, self.store, &self.work);
                let before = Timestamp::MIN;
                let headless = Headless { disk, file: &*watched, base, next, store, before, work };
                let origin = headless.timeless_origin()?;
                let lost = if origin.is_some() { Lost::Nothing } else { limit.lost_from(base) };
                findings.report(&location.file, location.offset, location.position, problem, lost);
                findings.digest = None;
                match origin {
                    Some(origin) => {
                        let below = limit.below();
                        let segment = salvage::Segment { file: &*watched, name: &name, origin, below };
                        self.rest(segment, limit, Spot::start_of(base), None, &mut findings)?
                    }
                    None => base,
                }
            }
            Err(fault) => return Err(fault),
        };
        for byte in watched.unreadable() {
            let problem = "the disk does not read these 4,096 bytes".to_owned();
            findings.report(&name, byte, None, problem, Lost::Nothing);
        }
        self.found.bytes += length;
        self.work.set_done(self.found.bytes);
        self.take_in(findings, end, next);
        Ok(())
    }

    /// Adds the findings in a segment to the result.
    fn take_in(&mut self, mut findings: Findings, end: Position, next: Option<Position>) {
        self.found.head = end.previous();
        self.expected = next.unwrap_or(end);
        self.continues = findings.continues;
        (self.last, self.proven) = (findings.last, findings.proven());
        self.digest = findings.digest.filter(|_| !findings.lossy);
        self.found.segments += 1;
        self.found.appends += findings.appends;
        self.found.events += findings.events;
        self.found.indexes += findings.indexes;
        findings.damage.drain(..).for_each(|damage| self.damaged(damage));
        self.versions.extend(findings.versions);
    }

    /// Checks a segment whose header is valid; returns the position after its last whole frame.
    fn known(&mut self, segment: &Segment, limit: Limit, findings: &mut Findings) -> Result<Position, Fault> {
        if limit.base == Position::FIRST {
            let first = End { next: Position::FIRST, recorded_at: Timestamp::MIN, ..End::default() };
            findings.note(check_next(segment, &first))?;
        } else if let Some(digest) = &mut findings.digest {
            digest.next_segment();
        }
        let (from, problem) = match self.frames(segment, limit, findings) {
            Ok(end) => match self.ended(segment, &end, limit)? {
                Ended::Well => {
                    findings.continues = end.finished;
                    if let Some(next) = limit.next {
                        self.next_header(&end, next, findings)?;
                    }
                    return Ok(end.next);
                }
                Ended::Broken(problem) => (Spot { byte: end.byte, next: end.next }, problem),
            },
            // A whole frame that cannot be valid.
            Err(Fault::Damaged { location, problem }) => {
                let next = location.position.unwrap_or(limit.base);
                (Spot { byte: location.offset, next }, Some(problem))
            }
            Err(fault) => return Err(fault),
        };
        findings.digest = None;
        let Segment { file, name, origin, .. } = segment;
        let segment = salvage::Segment { file: &**file, name, origin: *origin, below: limit.below() };
        self.rest(segment, limit, from, problem, findings)
    }

    /// Checks the frames of a segment up to the first that is not whole, part by part, and compares the
    /// indexes with them.
    fn frames(&self, segment: &Segment, limit: Limit, findings: &mut Findings) -> Result<End, Fault> {
        let mut end = End::start_of(&segment.header);
        let mut appends = 0;
        let head = limit.head.filter(|_| limit.next.is_none()).map_or(Position::MAX, Position::next);
        while end.next < head {
            let from = end.next;
            let proven = self.proof.as_ref().map(Proof::next).filter(|proven| *proven > from);
            let until = self.runs.part(from).min(head).min(proven.unwrap_or(Position::MAX));
            let is_indexed = self.runs.speak_of(from);
            let mut builder = Builder::default();
            let mut compared = Ok(());
            end = walk(&*segment.file, &segment.header, end, until, |frame| {
                findings.follow_frame(&frame.header);
                frame.records(|byte, record| {
                    let event = record.event(frame.bytes)?;
                    findings.add_event(&self.versions, &event, byte, &segment.name);
                    if compared.is_ok() {
                        compared = findings.compare(self.durable);
                    }
                    Ok(())
                })?;
                if let Some(digest) = &mut findings.digest {
                    proof::add(digest, frame)?;
                }
                if is_indexed { builder.add(frame) } else { Ok(()) }
            })?;
            compared?;
            appends += end.appends;
            findings.appends = appends;
            self.runs.check(segment, from, &end, &builder.index, findings)?;
            if proven == Some(end.next) {
                self.check_digest(findings)?;
            }
            if end.next < until {
                break;
            }
        }
        Ok(end)
    }

    /// Compares the digest with the one that the store has written.
    fn check_digest(&self, findings: &mut Findings) -> Result<(), Fault> {
        let (Some(digest), Some(proof)) = (&findings.digest, &self.proof) else { return Ok(()) };
        if digest == proof.digest() {
            return Ok(());
        }
        let problem = "it is not the digest of the log up to there: one of the two was changed";
        findings.note(Err(Fault::damaged(Proof::NAME, 0, Some(proof.next().previous()), problem)))
    }

    /// Checks that the next segment begins where this one ends. A broken header is reported when its segment
    /// is reached.
    fn next_header(&self, end: &End, next: Position, findings: &mut Findings) -> Result<(), Fault> {
        let name = file_name(next);
        let file = self.disk.open(&name).map_err(Fault::io("open", &name))?;
        match SegmentHeader::read(&*file, next) {
            Ok(header) if self.store == Some(header.store) => {
                findings.note(check_next(&Segment::new(header, file), end))
            }
            _ => Ok(()),
        }
    }

    /// Whether the frames of a segment end at the expected position.
    fn ended(&self, segment: &Segment, end: &End, limit: Limit) -> Result<Ended, Fault> {
        Ok(match (limit.next, limit.head) {
            (Some(next), _) if end.next < next => Ended::Broken(None),
            (Some(next), _) if end.next > next => Ended::Broken(Some(format!(
                "the segment continues to position {}, and the next one begins at {next}",
                end.next.previous()
            ))),
            (None, Some(head)) if end.next <= head => Ended::Broken(None),
            (None, None) => match torn_tail_end(segment, end) {
                Ok(_) => Ended::Well,
                Err(Fault::Damaged { problem, .. }) => Ended::Broken(Some(problem)),
                Err(fault) => return Err(fault),
            },
            _ => Ended::Well,
        })
    }

    /// Checks a segment from a broken frame on; returns the position after its last whole frame.
    fn rest(
        &mut self,
        segment: salvage::Segment<'_>,
        limit: Limit,
        from: Spot,
        mut problem: Option<String>,
        findings: &mut Findings,
    ) -> Result<Position, Fault> {
        let name = segment.name;
        let mut pieces = segment.pieces(from);
        while let Some(piece) = pieces.next()? {
            match piece {
                Piece::Gap(gap) => {
                    let known = problem.take().filter(|_| gap.byte == from.byte);
                    let lost = Lost::between(gap.first, gap.next);
                    findings.report(name, gap.byte, Some(gap.first), known.unwrap_or(gap.problem), lost);
                }
                Piece::Whole(whole) => {
                    findings.appends += u64::from(!whole.events.is_empty());
                    for (event, byte) in &whole.events {
                        findings.add_event(&self.versions, event, *byte, name);
                    }
                    findings.continues |= whole.mark == Some(Mark::End);
                }
            }
        }
        let end = pieces.at();
        let lost = limit.lost_from(end.next);
        let is_end = limit.next.is_none() && limit.head.is_none();
        let is_known = problem.is_some() && end.byte == from.byte;
        if let Some(problem) = problem {
            // Either the frames are whole but not the expected ones, or there is no whole frame from there
            // on.
            findings.report(
                name,
                from.byte,
                Some(from.next),
                problem,
                if is_known { lost } else { Lost::Nothing },
            );
        }
        if !is_known && !is_end && lost != Lost::Nothing {
            let problem = "a frame is broken, and there is no whole frame after it".to_owned();
            findings.report(name, end.byte, Some(end.next), problem, lost);
        }
        if !is_known && is_end && last_used(segment.file, name, segment.origin, end.byte)? > end.byte {
            let problem = "the bytes here are not a whole frame of this log".to_owned();
            findings.report(name, end.byte, Some(end.next), problem, lost);
        }
        Ok(end.next)
    }

    /// Checks that nothing is missing at the end of a log that is not open.
    fn check_end(&mut self, segments: usize) -> Result<(), Fault> {
        let names = self.disk.list().map_err(Fault::io("list", "the log"))?;
        let head = self.expected.previous();
        let whole = if self.continues {
            let name = file_name(self.expected);
            Err(Fault::damaged(
                &name,
                0,
                Some(self.expected),
                "the segment is missing; the previous one has an end mark",
            ))
        } else {
            identity::check(self.store, segments).and_then(|()| check_runs(&names, head))
        };
        if let Err(fault) = whole {
            return self.note(fault, Lost::Rest { first: self.expected });
        }
        let Some(known) = self.durable.filter(|known| known.position > head) else { return Ok(()) };
        // The computed digest is not that of the complete log.
        self.digest = None;
        let problem =
            format!("the log ends at position {head}, and was durable up to this event: {}", durable::REMEDY);
        let lost = Lost::between(self.expected, known.position.next());
        self.note(Fault::damaged(durable::NAME, 24, Some(known.position), problem), lost)
    }

    /// Records that the pass has reached this segment; less often if there is much to write, unless `now` is
    /// set.
    fn save(&mut self, progress: &mut Progress, remember: bool, segment: Position, now: bool) {
        const STREAM_BYTES: u64 = 16;
        let due =
            self.found.bytes.saturating_sub(self.saved) >= 4 * STREAM_BYTES * self.versions.len() as u64;
        let Some(store) = self.store.filter(|_| remember && (now || due)) else { return };
        let Ok(mark) = progress::mark(self.disk, segment) else { return };
        let current = PassInProgress {
            started_at: self.started_at,
            segment,
            mark,
            found: self.found.clone(),
            digest: self.digest.clone(),
            versions: std::mem::take(&mut self.versions),
        };
        progress.current = Some(current);
        progress::write(self.disk, store, progress);
        self.versions = progress.current.take().map(|current| current.versions).unwrap_or_default();
        self.saved = self.found.bytes;
    }

    /// Records that the pass has reached the end.
    fn remember(&self, progress: &mut Progress) {
        let Some(store) = self.found.store else { return };
        let damage = self.found.damage.len() as u64;
        progress.last = Some(LastPass { finished_at: now(), head: self.found.head, damage });
        progress.current = None;
        progress::write(self.disk, store, progress);
    }
}

/// The end of the frames of a segment.
enum Ended {
    /// At the expected position.
    Well,
    /// At another position; with a description if there is one.
    Broken(Option<String>),
}

/// The expected positions of a segment.
#[derive(Clone, Copy)]
struct Limit {
    base: Position,
    /// First position of the next segment; `None` for the last one.
    next: Option<Position>,
    /// Position of the newest event, if the store is open.
    head: Option<Position>,
}

impl Limit {
    /// All positions in the segment are below this one, if it is known.
    fn below(self) -> Option<Position> {
        self.next.or(self.head.map(Position::next))
    }

    /// The loss if no frame is whole from this position on.
    fn lost_from(self, first: Position) -> Lost {
        match self.below() {
            Some(next) => Lost::between(first, next),
            None => Lost::Rest { first },
        }
    }
}

fn now() -> Timestamp {
    annals_core::Clock::now(&SystemClock)
}
