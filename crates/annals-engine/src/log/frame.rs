//! The bytes of a frame: one append. Pure: bytes in, bytes out.
//!
//! ```text
//! frame            0        4        8     9
//!                  | crc u32| len u32| kind| count | place | behind | record, record, ...
//!
//! record           0        4
//!                  | crc u32| len | index | version | time | body
//! ```
//!
//! `crc` and the frame's `len` are little-endian; the other numbers are varints. `place` is the position of
//! the first event minus the segment's first position; `behind` is the number of positions before the frame
//! that were not yet durable when it was written; a record's `len` counts the bytes after it, and its `time`
//! is the recorded time minus the segment's creation time. The bytes after the last frame are zero.
//!
//! - F1  A record's `crc` covers, after the salt of the segment: the event's position, the fields after the
//!       `crc`, and the CRC32C of the body. So one event can be read and verified without its frame, and it
//!       is valid only at its own position.
//! - F2  A frame's `crc` covers, after the salt, its fields and the `crc` of each record: a frame is accepted
//!       whole or not at all (G2), and no byte of a body is checksummed twice.
//! - F3  `behind` records up to which position the log was durable when the frame was written: a broken frame
//!       up to there is damage, not the end of the log (G9).
//! - F4  A copy of a frame from elsewhere, stored here as the data of an event, is not a frame here: the salt
//!       differs.
//!
//! Does not use files. The body is encoded by `body`. Next above: `segment`.

use annals_core::body::{self, Body};
use annals_core::{Append, Metadata, Position, RecordedEvent, Timestamp, Version, Write};
use bytes::Bytes;

use super::encoding::{Malformed, Reader, get_u32, put_signed, put_u32, put_varint};
use super::terms::{hashes_of, id_hash};

/// The most events that a frame can hold.
pub const EVENTS_MAX: usize = 1 << 16;
/// Bytes of the fixed-size fields of a frame's header: its checksum, length and kind.
pub const FIXED_BYTES: usize = 9;
/// The most bytes that a frame's header has.
pub const HEADER_BYTES_MAX: usize = FIXED_BYTES + 3 + 5 + 10;
/// The most bytes that a record has before its body.
pub const RECORD_HEADER_BYTES_MAX: usize = 4 + 5 + 3 + 10 + 10;

/// A frame that holds an append.
const KIND_APPEND: u8 = 1;
/// A frame without events, written when a store is closed: proof that everything before it was durable.
const KIND_CLOSE: u8 = 2;
/// The last frame of a segment, without events, written when the next segment exists: proof that there is
/// one.
const KIND_END: u8 = 3;

/// The meaning of a frame without events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The store was closed: everything before is durable.
    Close,
    /// The segment ends, and another one follows.
    End,
}

/// The fields of a segment's header that its frames refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The initial value of every checksum.
    pub salt: u32,
    /// Position of the segment's first event.
    pub base: Position,
    /// When the segment was created.
    pub created_at: Timestamp,
}

/// The contents of a frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the frame.
    pub length: usize,
    /// Bytes of the frame before its records.
    pub records_at: usize,
    /// Number of events; zero in a mark.
    pub count: u32,
    /// Position of the first event; in a mark, of the next event.
    pub first: Position,
    /// The meaning of the frame, if it has no events.
    pub mark: Option<Mark>,
    /// Position up to which the log was durable when the frame was written.
    pub durable: Position,
    /// Checksum of the frame. The `link` is computed from it and those of all earlier frames.
    pub crc: u32,
}

/// A record, borrowed from its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Position in the log.
    pub position: Position,
    /// Version in the stream.
    pub version: Version,
    /// Position of the first event of its append.
    pub append: Position,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// The encoded event.
    pub body: &'a [u8],
    /// Bytes of the record before the body.
    pub body_at: usize,
}

impl Record<'_> {
    /// The event. It shares the bytes that the record was read from, which are part of `block`.
    pub fn event(&self, block: &Bytes) -> Result<RecordedEvent, Malformed> {
        let body = block.slice_ref(self.body);
        RecordedEvent::of_body(body, self.position, self.version, self.append, self.recorded_at)
    }
}

/// An append, encoded on the caller's thread. The writer adds the fields of [`Placement`].
pub struct Encoded {
    bodies: Vec<u8>,
    events: Vec<EncodedEvent>,
    hashes: Vec<u64>,
}

/// Where the body of an event and its hashes end, and the checksum of the body.
struct EncodedEvent {
    end: usize,
    hashes_end: usize,
    crc: u32,
    is_alike: bool,
}

/// The fields of an append that only the writer can assign.
pub struct Placement<'a> {
    /// The segment.
    pub origin: Origin,
    /// Position of its first event.
    pub first: Position,
    /// Version of each of its events.
    pub versions: &'a [Version],
    /// Recorded time of its events.
    pub recorded_at: Timestamp,
    /// Position up to which the log is durable.
    pub durable: Position,
}

/// A record that was written into a frame.
pub struct Placed<'a> {
    /// Its offset from the start of the frame.
    pub at: usize,
    /// Its body.
    pub body: &'a [u8],
    /// Its hashes for the index, as returned by `hashes_of`; only that of its id if `is_alike`.
    pub hashes: &'a [u64],
    /// Whether it has the same terms as the record before it.
    pub is_alike: bool,
}

impl Encoded {
    /// Encodes an append, and computes all checksums and hashes that do not depend on the log.
    pub fn new(append: &Append) -> Self {
        let bytes: usize = append.writes.iter().map(|write| write.event.data.len() + 100).sum();
        let mut encoded = Self {
            bodies: Vec::with_capacity(bytes),
            events: Vec::with_capacity(append.writes.len()),
            hashes: Vec::with_capacity(append.writes.len() * 4),
        };
        for (index, write) in append.writes.iter().enumerate() {
            let start = encoded.bodies.len();
            let key = append.key.as_ref().filter(|_| index == 0);
            body::encode(&mut encoded.bodies, &write.stream, &write.event, key);
            let body = &encoded.bodies[start..];
            let is_alike = is_alike(append, index);
            if is_alike {
                encoded.hashes.push(id_hash(write.event.id));
            } else {
                hashes_of(&Body::read(body).expect("what was encoded is read"), &mut encoded.hashes);
            }
            encoded.events.push(EncodedEvent {
                crc: crc32c::crc32c(body),
                end: encoded.bodies.len(),
                hashes_end: encoded.hashes.len(),
                is_alike,
            });
        }
        encoded
    }

    /// An upper bound for the bytes of the frame.
    pub fn bytes_max(&self) -> usize {
        HEADER_BYTES_MAX + self.bodies.len() + self.events.len() * RECORD_HEADER_BYTES_MAX
    }

    /// Appends the frame to `out`, calls `each` for each record, and returns the frame's checksum.
    pub fn place(
        &self,
        placement: &Placement<'_>,
        out: &mut Vec<u8>,
        mut each: impl FnMut(Placed<'_>),
    ) -> u32 {
        assert_eq!(placement.versions.len(), self.events.len(), "every event has its version");
        let Placement { origin, first, .. } = *placement;
        let start = out.len();
        out.reserve(self.bytes_max());
        let count = u32::try_from(self.events.len()).expect("limits keep an append at 65,536 events");
        let mut crc = put_header(origin, KIND_APPEND, count, first, placement.durable, out);
        let time = placement.recorded_at.as_micros().wrapping_sub(origin.created_at.as_micros());
        let (mut body_at, mut hashes_at) = (0, 0);
        for (index, (event, version)) in self.events.iter().zip(placement.versions).enumerate() {
            let at = out.len();
            let body = &self.bodies[body_at..event.end];
            out.extend_from_slice(&[0; 4]);
            let behind_length =
                varint_bytes(index as u64) + varint_bytes(version.get()) + signed_bytes(time) + body.len();
            put_varint(out, behind_length as u64);
            put_varint(out, index as u64);
            put_varint(out, version.get());
            put_signed(out, time);
            let fields = &out[at + 4..];
            let record_crc = record_crc(origin.salt, first.plus(index as u64), fields, event.crc);
            put_u32(&mut out[at..], record_crc);
            out.extend_from_slice(body);
            crc = crc32c::crc32c_append(crc, &record_crc.to_le_bytes());
            let hashes = &self.hashes[hashes_at..event.hashes_end];
            each(Placed { at: at - start, body, hashes, is_alike: event.is_alike });
            (body_at, hashes_at) = (event.end, event.hashes_end);
        }
        finish(&mut out[start..], crc)
    }
}

/// Whether this event of the append has exactly the terms of the one before it, as most have.
fn is_alike(append: &Append, index: usize) -> bool {
    let Some(before) = index.checked_sub(1).map(|before| &append.writes[before]) else { return false };
    let Write { stream, event } = &append.writes[index];
    let has_key = index == 1 && append.key.is_some();
    let same_cause = |one: &Metadata, other: &Metadata| {
        (&one.process, &one.initiator, &one.predecessor)
            == (&other.process, &other.initiator, &other.predecessor)
    };
    !has_key
        && before.stream == *stream
        && before.event.event_type == event.event_type
        && before.event.tags == event.tags
        && same_cause(&before.event.metadata, &event.metadata)
}

/// Returns a frame without events, and its checksum. It may be written when the whole log is durable:
/// `durable` is its end.
pub fn mark(mark: Mark, durable: Position, origin: Origin) -> (Vec<u8>, u32) {
    let kind = match mark {
        Mark::Close => KIND_CLOSE,
        Mark::End => KIND_END,
    };
    let mut out = Vec::with_capacity(HEADER_BYTES_MAX);
    let crc = put_header(origin, kind, 0, durable.next(), durable, &mut out);
    let crc = finish(&mut out, crc);
    (out, crc)
}

/// Appends a header to `out`, with length and checksum left zero; returns the checksum of the fields after
/// them.
fn put_header(
    origin: Origin,
    kind: u8,
    count: u32,
    first: Position,
    durable: Position,
    out: &mut Vec<u8>,
) -> u32 {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    out.push(kind);
    put_varint(out, u64::from(count));
    put_varint(out, first.get() - origin.base.get());
    put_varint(out, first.get() - 1 - durable.get());
    crc32c::crc32c_append(origin.salt, &out[start + 8..])
}

/// Fills in the length and the checksum of a frame that is otherwise complete.
fn finish(frame: &mut [u8], crc: u32) -> u32 {
    let length = u32::try_from(frame.len()).expect("limits keep a frame below 4 GiB").to_le_bytes();
    frame[4..8].copy_from_slice(&length);
    let crc = crc32c::crc32c_append(crc, &length);
    put_u32(frame, crc);
    crc
}

fn record_crc(salt: u32, position: Position, fields: &[u8], body_crc: u32) -> u32 {
    // Four varints of at most ten bytes each: when a file is read, they may have any value.
    let mut bytes = [0; 12 + 40];
    let end = 8 + fields.len();
    bytes[..8].copy_from_slice(&position.get().to_le_bytes());
    bytes[8..end].copy_from_slice(fields);
    bytes[end..end + 4].copy_from_slice(&body_crc.to_le_bytes());
    crc32c::crc32c_append(salt, &bytes[..end + 4])
}

fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn signed_bytes(value: i64) -> usize {
    varint_bytes(((value << 1) ^ (value >> 63)).cast_unsigned())
}

/// The length field of the frame at the start of the bytes.
pub fn peek_length(bytes: &[u8]) -> Result<usize, Malformed> {
    if bytes.len() < FIXED_BYTES {
        return Err(Malformed::Short("frame"));
    }
    let length = get_u32(&bytes[4..]) as usize;
    if length < FIXED_BYTES + 3 {
        return Err(Malformed::Short("frame"));
    }
    Ok(length)
}

/// Reads the header at the start of the bytes. Nothing is checked; the fields may have any value.
pub fn peek(bytes: &[u8], origin: &Origin) -> Result<Header, Malformed> {
    let length = peek_length(bytes)?;
    let mut reader = Reader::new(&bytes[FIXED_BYTES..]);
    let count = u32::try_from(reader.varint("frame")?).map_err(|_| Malformed::Short("frame"))?;
    let place = u32::try_from(reader.varint("frame")?).map_err(|_| Malformed::Short("frame"))?;
    let behind = reader.varint("frame")?;
    let first = origin.base.plus(u64::from(place));
    let durable = (first.get() - 1).checked_sub(behind).ok_or(Malformed::Short("frame"))?;
    Ok(Header {
        length,
        records_at: bytes.len() - reader.rest().len(),
        count,
        first,
        mark: None,
        durable: Position::new(durable),
        crc: get_u32(bytes),
    })
}

/// Offset of the kind in a frame.
pub const KIND_AT: usize = 8;

/// Whether this is the kind of a frame.
pub fn is_kind(byte: &u8) -> bool {
    (KIND_APPEND..=KIND_END).contains(byte)
}

/// Whether a frame may begin with these bytes: a cheap check that rules out most offsets. `left` is the
/// number of bytes up to the end of the file.
pub fn may_begin(bytes: &[u8], left: u64, origin: &Origin) -> bool {
    let Ok(header) = peek(bytes, origin) else { return false };
    if header.length as u64 > left {
        return false;
    }
    match bytes[KIND_AT] {
        KIND_APPEND if header.count > 0 => {
            // If the fields of the first record are not within these bytes, a frame cannot be ruled out.
            let first = bytes.get(header.records_at..).map(peek_record);
            let Some(Ok(first)) = first else { return true };
            let room = header.length.saturating_sub(header.records_at);
            first.index == 0 && if header.count == 1 { first.length == room } else { first.length < room }
        }
        KIND_CLOSE | KIND_END => header.count == 0,
        _ => false,
    }
}

/// The initial value with which the checksum of these bytes is `crc`: each step of a CRC can be undone, byte
/// by byte.
fn undone(crc: u32, covered: &[u8]) -> u32 {
    let state = covered.iter().rev().fold(!crc, |state, &byte| {
        let (low, added) = BY_TOP[(state >> 24) as usize];
        ((state ^ added) << 8) | u32::from(low ^ byte)
    });
    !state
}

/// The table of a CRC step inverted: for the top byte of each table entry, the index of the entry and the
/// entry.
const BY_TOP: [(u8, u32); 256] = {
    let mut by_top = [(0, 0); 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
            bit += 1;
        }
        by_top[(crc >> 24) as usize] = (byte as u8, crc);
        byte += 1;
    }
    by_top
};

/// The checksum of a frame, computed from the checksums of its records, without their bodies.
pub struct Sum(u32);

impl Sum {
    /// Begins with the fields of the frame at the start of the bytes.
    pub fn begin(bytes: &[u8], header: &Header, salt: u32) -> Self {
        Self(crc32c::crc32c_append(salt, &bytes[KIND_AT..header.records_at]))
    }

    /// Adds the record at the start of the bytes.
    pub fn add(&mut self, record: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, &record[..4]);
    }

    /// Whether it matches the checksum in the frame's header.
    pub fn agrees(&self, header: &Header) -> bool {
        let length = u32::try_from(header.length).unwrap_or_default();
        crc32c::crc32c_append(self.0, &length.to_le_bytes()) == header.crc
    }
}

/// Reads the frame at the start of the bytes and checks all of it.
///
/// `Short` and `Checksum` mean that there is no whole frame here. `Field` means that there is a frame with
/// matching checksums that cannot be valid.
pub fn header(bytes: &[u8], origin: &Origin) -> Result<Header, Malformed> {
    let mut header = peek(bytes, origin)?;
    let Some(frame) = bytes.get(..header.length) else { return Err(Malformed::Short("frame")) };
    if header.records_at > header.length {
        return Err(Malformed::Short("frame"));
    }
    let mut crc = crc32c::crc32c_append(origin.salt, &frame[8..header.records_at]);
    let mut at = header.records_at;
    for index in 0..u64::from(header.count) {
        let record = peek_record(&frame[at..])?;
        let expected = record.crc(&frame[at..], header.first.plus(index), origin)?;
        if expected != get_u32(&frame[at..]) {
            return Err(Malformed::Checksum("record"));
        }
        crc = crc32c::crc32c_append(crc, &expected.to_le_bytes());
        at += record.length;
    }
    crc = crc32c::crc32c_append(crc, &frame[4..8]);
    if crc != header.crc || at != header.length {
        return Err(Malformed::Checksum("frame"));
    }
    header.mark = match frame[8] {
        KIND_APPEND => None,
        KIND_CLOSE => Some(Mark::Close),
        KIND_END => Some(Mark::End),
        _ => return Err(Malformed::Field("kind")),
    };
    if header.mark.is_some() == (header.count == 0) { Ok(header) } else { Err(Malformed::Field("count")) }
}

/// Calls `each` for the records of a frame that [`header`] has accepted, each with its offset from the start
/// of the frame.
pub fn records<'a>(
    frame: &'a [u8],
    header: &Header,
    origin: &Origin,
    mut each: impl FnMut(usize, Record<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut at = header.records_at;
    let mut recorded_at = None;
    for index in 0..u64::from(header.count) {
        let fields = peek_record(&frame[at..])?;
        let record = fields.record(&frame[at..], header.first.plus(index), origin)?;
        if fields.index != index {
            return Err(Malformed::Field("index"));
        }
        if *recorded_at.get_or_insert(record.recorded_at) != record.recorded_at {
            return Err(Malformed::Field("recorded time"));
        }
        each(at, record)?;
        at += fields.length;
    }
    Ok(())
}

/// The fields of a record before its body.
pub struct Fields {
    /// Bytes of the record.
    pub length: usize,
    index: u64,
    version: u64,
    time: i64,
    /// Bytes of the record before its body.
    pub body_at: usize,
}

/// Reads the fields of the record at the start of the bytes. Nothing is checked; the fields may have any
/// value.
pub fn peek_record(bytes: &[u8]) -> Result<Fields, Malformed> {
    let mut reader = Reader::new(bytes);
    reader.take(4, "record")?;
    let behind = usize::try_from(reader.varint("record")?).map_err(|_| Malformed::Short("record"))?;
    let at = bytes.len() - reader.rest().len();
    let length = at.checked_add(behind).ok_or(Malformed::Short("record"))?;
    let (index, version, time) =
        (reader.varint("record")?, reader.varint("record")?, reader.signed("record")?);
    let body_at = bytes.len() - reader.rest().len();
    if body_at > length {
        return Err(Malformed::Short("record"));
    }
    Ok(Fields { length, index, version, time, body_at })
}

impl Fields {
    /// The checksum that the record must have if it is at this position.
    fn crc(&self, bytes: &[u8], position: Position, origin: &Origin) -> Result<u32, Malformed> {
        let body = bytes.get(self.body_at..self.length).ok_or(Malformed::Short("record"))?;
        Ok(record_crc(origin.salt, position, &bytes[4..self.body_at], crc32c::crc32c(body)))
    }

    /// Whether the checksum of the record at the start of the bytes matches, given the CRC32C of its body.
    pub fn are_right(&self, bytes: &[u8], position: Position, salt: u32, body_crc: u32) -> bool {
        record_crc(salt, position, &bytes[4..self.body_at], body_crc) == get_u32(bytes)
    }

    /// The salt with which the record's checksum would match.
    pub fn salt(&self, bytes: &[u8], position: Position, body_crc: u32) -> u32 {
        let covered = [&position.get().to_le_bytes()[..], &bytes[4..self.body_at], &body_crc.to_le_bytes()];
        undone(get_u32(bytes), &covered.concat())
    }

    fn record<'a>(
        &self,
        bytes: &'a [u8],
        position: Position,
        origin: &Origin,
    ) -> Result<Record<'a>, Malformed> {
        let body = bytes.get(self.body_at..self.length).ok_or(Malformed::Short("record"))?;
        let micros = self.time.wrapping_add(origin.created_at.as_micros());
        let recorded_at = Timestamp::from_micros(micros);
        if recorded_at.as_micros() != micros {
            return Err(Malformed::Field("recorded time"));
        }
        let append = position.get().checked_sub(self.index).filter(|append| *append > 0);
        let append = Position::new(append.ok_or(Malformed::Field("index"))?);
        if self.version == 0 {
            return Err(Malformed::Field("version"));
        }
        let version = Version::new(self.version);
        Ok(Record { position, version, append, recorded_at, body, body_at: self.body_at })
    }
}

/// The length of the record at the start of the bytes, from its length field.
pub fn record_length(bytes: &[u8]) -> Result<usize, Malformed> {
    Ok(peek_record(bytes)?.length)
}

/// Reads and checks the record at the start of the bytes, which must be that of the event at this position.
pub fn record<'a>(bytes: &'a [u8], position: Position, origin: &Origin) -> Result<Record<'a>, Malformed> {
    let fields = peek_record(bytes)?;
    if fields.crc(bytes, position, origin)? != get_u32(bytes) {
        return Err(Malformed::Checksum("record"));
    }
    fields.record(bytes, position, origin)
}

/// Corrects the checksums of the frame that these bytes look like, so that a fuzzer reaches the code after
/// the checksum checks; returns the length of the frame. For fuzzing only.
#[cfg(feature = "fuzzing")]
pub(crate) fn repair_checksums(bytes: &mut [u8], origin: &Origin) -> Option<usize> {
    let header = peek(bytes, origin).ok()?;
    let frame = bytes.get_mut(..header.length)?;
    let mut crc = crc32c::crc32c_append(origin.salt, frame.get(8..header.records_at)?);
    let mut at = header.records_at;
    for index in 0..u64::from(header.count) {
        let record = peek_record(frame.get(at..)?).ok()?;
        let expected = record.crc(&frame[at..], header.first.plus(index), origin).ok()?;
        put_u32(&mut frame[at..], expected);
        crc = crc32c::crc32c_append(crc, &expected.to_le_bytes());
        at += record.length;
    }
    crc = crc32c::crc32c_append(crc, &frame[4..8]);
    put_u32(frame, crc);
    Some(header.length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_varint_is_known_before_it_is_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(varint_bytes(value), bytes.len());
        }
    }
}
