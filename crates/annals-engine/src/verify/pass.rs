//! One pass over the log: the checks, segment by segment.
//!
//! What is found in a segment is added to the rest when the segment is done, so a pass that is stopped in the
//! middle of one is as if it had not begun with it. Next below: `segment::walk`; `salvage` behind damage.

use std::collections::HashMap;
use std::sync::Arc;

use annals_core::{Position, RecordedEvent, Result, SystemClock, Timestamp};

use super::standing::{self, Begun, Standing};
use super::{Damage, LastPass, Lost, OnDamage, Verification, VerifyOptions};
use crate::disk::{Disk, File};
use crate::error::Fault;
use crate::identity;
use crate::index::{MemoryIndex, Offset, build};
use crate::recovery::{Expected, check_last, remains};
use crate::salvage::{self, Piece, Spot};
use crate::segment::{End, Ending, SegmentHeader, file_name, index_name, walk};
use crate::work::{Watched, Work};

/// How far the log reaches.
pub struct Extent {
    /// Where its segments begin, in order.
    pub bases: Vec<Position>,
    /// Position of the newest event, if the store is open.
    pub head: Option<Position>,
}

/// Verifies the log on this disk; `extent` says how far it reaches now.
pub fn run(
    disk: &dyn Disk,
    options: &VerifyOptions,
    remember: bool,
    extent: &mut dyn FnMut() -> Result<Extent, Fault>,
) -> Result<Verification> {
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
    pass.expected.id = identity;
    let mut standing = Standing::default();
    if remember {
        // One that cannot be used is as none.
        standing = standing::read(disk, identity).ok().flatten().unwrap_or_default();
    }
    let mut index = 0;
    if let Some(begun) = standing.begun.take().filter(|_| options.resume)
        && let Some(at) = log.bases.iter().position(|&base| base == begun.segment)
        && standing::mark(disk, begun.segment).is_ok_and(|mark| mark == begun.mark)
    {
        index = at;
        pass.take_up(begun);
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
                pass.save(&mut standing, remember, base, true);
                return Ok(pass.found);
            }
            Err(fault) => return Err(fault.into()),
        }
        if let Some(next) = next {
            pass.save(&mut standing, remember, next, false);
        }
        index += 1;
    }
    if log.head.is_none() {
        pass.check_end(&names, &log.bases)?;
    }
    pass.found.store = pass.expected.id;
    pass.found.finished = true;
    if remember {
        pass.remember(&mut standing);
    }
    Ok(pass.found)
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
    /// What the next segment must be like.
    expected: Expected,
    /// Newest version of each stream, by the hash of its name.
    versions: HashMap<u64, u64>,
    started_at: Timestamp,
    /// Bytes that were verified when the standing was written last.
    saved: u64,
}

/// What was found in one segment.
#[derive(Default)]
struct Findings {
    appends: u64,
    events: u64,
    damage: Vec<Damage>,
    versions: HashMap<u64, u64>,
    /// Whether events were lost before, so that versions may jump.
    lossy: bool,
}

impl Findings {
    /// Looks at the next event, which begins at this byte of the file.
    fn follow(&mut self, before: &HashMap<u64, u64>, event: &RecordedEvent, at: Offset, name: &str) {
        let hash = xxhash_rust::xxh3::xxh3_64(event.stream.as_str().as_bytes());
        let known = self.versions.get(&hash).or_else(|| before.get(&hash)).copied().unwrap_or_default();
        let version = event.version.get();
        // Where events are lost, the versions of their streams are too: that is told already.
        if version != known + 1 && !(self.lossy && version > known) {
            let problem = format!("stream `{}` goes from version {known} to {version}", event.stream);
            self.tell(name, at.byte(), Some(event.position), problem, Lost::Nothing);
        }
        self.versions.insert(hash, version);
        self.events += 1;
    }

    fn tell(&mut self, file: &str, offset: u64, position: Option<Position>, problem: String, lost: Lost) {
        let place = annals_core::Place { file: file.to_owned(), offset, position };
        self.lossy |= lost != Lost::Nothing;
        self.damage.push(Damage { place, problem, lost });
    }
}

impl<'a> Pass<'a> {
    fn new(disk: &'a dyn Disk, options: &VerifyOptions) -> Self {
        Self {
            disk,
            work: options.work.clone(),
            on_damage: options.on_damage.clone(),
            found: Verification::default(),
            expected: Expected { base: Position::FIRST, id: None },
            versions: HashMap::new(),
            started_at: now(),
            saved: 0,
        }
    }

    /// Goes on where an earlier pass had come to.
    fn take_up(&mut self, begun: Begun) {
        self.expected.base = begun.segment;
        self.started_at = begun.started_at;
        self.versions = begun.versions;
        self.found = begun.found;
        self.found.resumed = Some(begun.segment);
        self.saved = self.found.bytes;
        if let Some(on_damage) = &self.on_damage {
            self.found.damage.iter().for_each(|damage| on_damage(damage));
        }
    }

    /// Takes damage down; anything else ends the verification.
    fn note(&mut self, fault: Fault, lost: Lost) -> Result<(), Fault> {
        match fault {
            Fault::Damaged { place, problem } => {
                self.found.damage.push(Damage { place, problem, lost });
                Ok(())
            }
            fault @ Fault::Io { .. } => Err(fault),
        }
    }

    fn is_lossy(&self) -> bool {
        self.found.damage.iter().any(|damage| damage.lost != Lost::Nothing)
    }

    /// Checks one segment and its index.
    fn segment(
        &mut self,
        base: Position,
        next: Option<Position>,
        head: Option<Position>,
    ) -> Result<(), Fault> {
        let name = file_name(base);
        let mut findings = Findings { lossy: self.is_lossy(), ..Findings::default() };
        if base > self.expected.base {
            let problem =
                format!("the log has no segment with position {}; this one comes next", self.expected.base);
            let lost = Lost::between(self.expected.base, base);
            findings.tell(&name, 0, Some(self.expected.base), problem, lost);
        }
        let mut expected = Expected { base, id: self.expected.id };
        let opened = expected.open(self.disk, base);
        let file = self.disk.open(&name).map_err(Fault::io("open", &name))?;
        let length = file.length().map_err(Fault::io("read the length of", &name))?;
        let watched = Arc::new(Watched::whole(file, &self.work));
        let limit = Limit { base, next, head };
        let end = match opened {
            Ok((_, header)) => self.known(&watched, &header, limit, &mut findings)?,
            Err(Fault::Damaged { place, problem }) => {
                let foreign = SegmentHeader::read(&*watched, base).is_ok();
                let salt = if foreign { None } else { salvage::salt(&*watched, base)? };
                if let Some(salt) = salt {
                    findings.tell(&place.file, place.offset, place.position, problem, Lost::Nothing);
                    let from = Spot { byte: crate::segment::HEADER_BYTES, next: base };
                    self.rest(&*watched, salt, limit, from, None, &mut findings)?
                } else {
                    let lost = limit.lost_from(base);
                    findings.tell(&place.file, place.offset, place.position, problem, lost);
                    base
                }
            }
            Err(fault) => return Err(fault),
        };
        for byte in watched.unreadable() {
            let problem = "the disk does not read these 4,096 bytes".to_owned();
            findings.tell(&name, byte, None, problem, Lost::Nothing);
        }
        self.found.head = end.previous();
        self.expected = Expected { base: next.unwrap_or(end), id: expected.id };
        self.found.segments += 1;
        self.found.appends += findings.appends;
        self.found.events += findings.events;
        if let Some(on_damage) = &self.on_damage {
            findings.damage.iter().for_each(|damage| on_damage(damage));
        }
        self.found.damage.append(&mut findings.damage);
        self.versions.extend(findings.versions);
        self.found.bytes += length;
        self.work.set_done(self.found.bytes);
        Ok(())
    }

    /// Checks a segment whose header is right; returns the position behind its last whole frame.
    fn known(
        &mut self,
        file: &Arc<Watched>,
        header: &SegmentHeader,
        limit: Limit,
        findings: &mut Findings,
    ) -> Result<Position, Fault> {
        let name = file_name(limit.base);
        let mut index = MemoryIndex::default();
        let walked = walk(&**file, header, |event, offset| {
            findings.follow(&self.versions, &event, offset, &name);
            if limit.next.is_some() {
                index.insert(&event, offset);
            }
        });
        let (from, problem) = match walked {
            Ok(end) => {
                findings.appends += end.appends;
                self.found.chain = digest(&end);
                let spot = Spot { byte: end.byte, next: end.next };
                match self.ended(&**file, header, &end, limit)? {
                    Ended::Well => {
                        if let Some(next) = limit.next {
                            self.next_header(&end, next, findings)?;
                            self.index(limit.base, end.ending(), &index, findings)?;
                        }
                        return Ok(end.next);
                    }
                    Ended::Broken(problem) => (spot, problem),
                }
            }
            // A frame that is whole and cannot be right.
            Err(Fault::Damaged { place, problem }) => {
                let next = place.position.unwrap_or(limit.base);
                (Spot { byte: place.offset, next }, Some(problem))
            }
            Err(fault) => return Err(fault),
        };
        self.rest(&**file, header.salt(), limit, from, problem, findings)
    }

    /// Checks that the next segment goes on where this one ends. A header that is broken is told in its turn.
    fn next_header(&self, end: &End, next: Position, findings: &mut Findings) -> Result<(), Fault> {
        let name = file_name(next);
        let file = self.disk.open(&name).map_err(Fault::io("open", &name))?;
        if let Ok(header) = SegmentHeader::read(&*file, next)
            && let Some(problem) = breaks_off(end, &header)
        {
            findings.tell(&name, 48, Some(next), problem.to_owned(), Lost::Nothing);
        }
        Ok(())
    }

    /// Whether the frames of a segment end where they should.
    fn ended(
        &self,
        file: &dyn File,
        header: &SegmentHeader,
        end: &End,
        limit: Limit,
    ) -> Result<Ended, Fault> {
        Ok(match (limit.next, limit.head) {
            (Some(next), _) if end.next < next => Ended::Broken(None),
            (Some(next), _) if end.next > next => Ended::Broken(Some(format!(
                "the segment goes on to position {}, and the next one begins at {next}",
                end.next.previous()
            ))),
            (None, Some(head)) if end.next <= head => Ended::Broken(None),
            (None, None) => match remains(file, header, end) {
                Ok(_) => Ended::Well,
                Err(Fault::Damaged { problem, .. }) => Ended::Broken(Some(problem)),
                Err(fault) => return Err(fault),
            },
            _ => Ended::Well,
        })
    }

    /// Checks a segment from a broken frame on; returns the position behind its last whole frame.
    fn rest(
        &mut self,
        file: &dyn File,
        salt: u32,
        limit: Limit,
        from: Spot,
        mut problem: Option<String>,
        findings: &mut Findings,
    ) -> Result<Position, Fault> {
        let name = file_name(limit.base);
        let below = limit.next.or(limit.head.map(Position::next));
        let segment = salvage::Segment { file, base: limit.base, salt, below };
        let mut last_gap = None;
        let end = segment.pieces(from, |piece| {
            match piece {
                Piece::Gap(gap) => {
                    let known = problem.take().filter(|_| gap.byte == from.byte);
                    let lost = Lost::between(gap.first, gap.next);
                    findings.tell(&name, gap.byte, Some(gap.first), known.unwrap_or(gap.problem), lost);
                    last_gap = Some(gap.byte);
                }
                Piece::Whole(whole) => {
                    findings.appends += u64::from(!whole.events.is_empty());
                    for (event, offset) in &whole.events {
                        findings.follow(&self.versions, event, *offset, &name);
                    }
                }
            }
            Ok::<_, Fault>(())
        })?;
        let lost = limit.lost_from(end.next);
        let is_end = limit.next.is_none() && limit.head.is_none();
        let told = problem.is_some() && end.byte == from.byte;
        if let Some(problem) = problem {
            // The frames are whole, but not the right ones; or nothing is whole from there on.
            findings.tell(
                &name,
                from.byte,
                Some(from.next),
                problem,
                if told { lost } else { Lost::Nothing },
            );
        }
        if !told && !is_end && lost != Lost::Nothing {
            let problem = "a frame is broken, and no frame behind it is whole".to_owned();
            findings.tell(&name, end.byte, Some(end.next), problem, lost);
        }
        Ok(end.next)
    }

    /// Compares an index file with what it should be. One that is missing is no damage: it is built at open.
    fn index(
        &mut self,
        base: Position,
        ending: Ending,
        index: &MemoryIndex,
        findings: &mut Findings,
    ) -> Result<(), Fault> {
        let name = index_name(base);
        let names = self.disk.list().map_err(Fault::io("list", "the log"))?;
        if !names.contains(&name) {
            return Ok(());
        }
        let file = self.disk.open(&name).map_err(Fault::io("open", &name))?;
        let right = build(base.get(), ending, index);
        let mut stored = vec![0; right.len()];
        let length = file.length().map_err(Fault::io("read the length of", &name))?;
        // What the disk does not read differs from what should stand there.
        let count =
            Watched::whole(file, &self.work).read_at(&mut stored, 0).map_err(Fault::io("read", &name))?;
        self.found.indexes += 1;
        let differs = stored.iter().zip(&right).position(|(stored, right)| stored != right);
        let differs = differs.or((length != right.len() as u64).then_some(count.min(right.len())));
        if let Some(byte) = differs {
            let problem = "the index is not that of its segment; remove it, and it is built again at open";
            findings.tell(&name, byte as u64, Some(base), problem.to_owned(), Lost::Nothing);
        }
        Ok(())
    }

    /// Checks that nothing is missing at the end of a log that nobody has open.
    fn check_end(&mut self, names: &[String], bases: &[Position]) -> Result<(), Fault> {
        let lost = Lost::Rest { first: self.expected.base };
        let whole = check_last(names, bases.last().copied())
            .and_then(|()| identity::check(self.expected.id, bases.len()));
        whole.or_else(|fault| self.note(fault, lost))
    }

    /// Writes down that the pass has come to this segment; not each time, if there is much to write.
    fn save(&mut self, standing: &mut Standing, remember: bool, segment: Position, now: bool) {
        const STREAM_BYTES: u64 = 16;
        let due =
            self.found.bytes.saturating_sub(self.saved) >= 4 * STREAM_BYTES * self.versions.len() as u64;
        let Some(store) = self.expected.id.filter(|_| remember && (now || due)) else { return };
        let Ok(mark) = standing::mark(self.disk, segment) else { return };
        let begun = Begun {
            started_at: self.started_at,
            segment,
            mark,
            found: self.found.clone(),
            versions: std::mem::take(&mut self.versions),
        };
        standing.begun = Some(begun);
        standing::write(self.disk, store, standing);
        self.versions = standing.begun.take().map(|begun| begun.versions).unwrap_or_default();
        self.saved = self.found.bytes;
    }

    /// Writes down that the pass has reached the end.
    fn remember(&self, standing: &mut Standing) {
        let Some(store) = self.found.store else { return };
        let damage = self.found.damage.len() as u64;
        standing.last = Some(LastPass { finished_at: now(), head: self.found.head, damage });
        standing.begun = None;
        standing::write(self.disk, store, standing);
    }
}

/// How the frames of a segment end.
enum Ended {
    /// Where they should.
    Well,
    /// Somewhere else; with what is known of it.
    Broken(Option<String>),
}

/// How far a segment reaches.
#[derive(Clone, Copy)]
struct Limit {
    base: Position,
    /// Where the next one begins; none for the last.
    next: Option<Position>,
    /// Position of the newest event, if the store is open.
    head: Option<Position>,
}

impl Limit {
    /// What is lost if nothing is whole from this position on.
    fn lost_from(self, first: Position) -> Lost {
        match self.next.or(self.head.map(Position::next)) {
            Some(next) => Lost::between(first, next),
            None => Lost::Rest { first },
        }
    }
}

/// What is wrong if this segment does not go on where that one ended.
fn breaks_off(end: &End, header: &SegmentHeader) -> Option<&'static str> {
    let differs = end.chain != header.chain || end.recorded_at != header.recorded_at;
    differs.then_some("the digest in the header is not that of the log before it")
}

fn digest(end: &End) -> String {
    end.chain.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> Timestamp {
    annals_core::Clock::now(&SystemClock)
}
