//! The bytes of a frame: one append. Pure: bytes in, bytes out.
//!
//! ```text
//! frame            0        4        8     9      12       16         24          32        40      72
//!                  | crc u32| len u32| kind| zero | count  | position | recorded  | durable | chain | records
//!
//! record           0        4        8          16        24          32       34    36
//!                  | crc u32| len u32| position | version | recorded  | index  | zero| body
//! ```
//!
//! Numbers are little-endian. A frame begins at a multiple of 8 and is filled up with zeros; the file is zero
//! beyond the last one.
//!
//! - F1  A frame's `crc` covers all of it behind the field, so a frame is accepted whole or not at all (G2). It
//!       begins with the salt of the segment: bytes that were a frame elsewhere, and came here as the data of an
//!       event, are none here.
//! - F2  A record's `crc` covers all of it behind the field, so that one event can be read without its frame.
//! - F3  `durable` is the position up to which the log was durable when the frame was written: whoever finds a
//!       broken frame in front of one that says so has found damage, not the end of the log (G9).
//! - F4  `chain` is the digest of everything up to and with this frame (`digest` below).
//! - F5  Whatever is reserved is zero, and is checked: a newer format is refused, not misread.
//!
//! Knows nothing of files. The body, what the caller gave, is `body`'s. Next above: `segment`.

use annals_core::{Append, Position, RecordedEvent, Timestamp, Version};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::body;
use crate::encoding::{Malformed, get_time, get_u32, get_u64, put_u32, put_u64};

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 72;
/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: usize = 36;
/// Events that a frame can hold: a record's place in it has 16 bits.
pub const EVENTS_MAX: usize = 1 << 16;
/// Frames begin at multiples of this.
pub const ALIGN: usize = 8;

/// A frame that holds an append.
const KIND_APPEND: u8 = 1;
/// A frame without events, written when a store is closed: proof that everything before it was durable.
const KIND_CLOSE: u8 = 2;

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// What stands in a frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the frame without the filling.
    pub length: usize,
    /// Events; none in a frame that marks a close.
    pub count: u32,
    /// Position of the first event; in a frame that marks a close, of the next one.
    pub first: Position,
    /// Recorded time of the events.
    pub recorded_at: Timestamp,
    /// Position up to which the log was durable when the frame was written.
    pub durable: Position,
    /// Digest of the log up to and with this frame.
    pub chain: Digest,
}

impl Header {
    /// Bytes that the frame takes in the file.
    pub fn stride(&self) -> usize {
        self.length.next_multiple_of(ALIGN)
    }
}

/// An append as bytes, made on the caller's thread: all that the writer fills in is where it stands.
pub struct Encoded {
    records: Vec<u8>,
    /// Where each record ends.
    ends: Vec<usize>,
    digest: Digest,
}

/// What only the writer knows of an append.
pub struct Placement<'a> {
    /// Position of its first event.
    pub first: Position,
    /// Version of each of its events.
    pub versions: &'a [Version],
    /// Recorded time of its events.
    pub recorded_at: Timestamp,
    /// Position up to which the log is durable.
    pub durable: Position,
    /// Digest of the log before it.
    pub chain: Digest,
    /// Salt of the segment.
    pub salt: u32,
}

impl Encoded {
    /// Turns an append into bytes and hashes its content.
    pub fn new(append: &Append) -> Self {
        let bytes: usize = append.writes.iter().map(|write| write.event.data.len() + 160).sum();
        let mut records = Vec::with_capacity(bytes);
        let mut ends = Vec::with_capacity(append.writes.len());
        let mut digests = Sha256::new();
        for (index, write) in append.writes.iter().enumerate() {
            let start = records.len();
            records.resize(start + RECORD_HEADER_BYTES, 0);
            body::encode(
                &mut records,
                &write.stream,
                &write.event,
                append.key.as_ref().filter(|_| index == 0),
            );
            digests.update(Sha256::digest(&records[start + RECORD_HEADER_BYTES..]));
            let length = records.len() - start;
            put_u32(
                &mut records[start + 4..],
                u32::try_from(length).expect("limits keep a record below 4 GiB"),
            );
            let index = u16::try_from(index).expect("limits keep an append at 65,536 events");
            records[start + 32..start + 34].copy_from_slice(&index.to_le_bytes());
            ends.push(records.len());
        }
        Self { records, ends, digest: digests.finalize().into() }
    }

    /// Bytes that the frame will take in the file.
    pub fn stride(&self) -> usize {
        (HEADER_BYTES + self.records.len()).next_multiple_of(ALIGN)
    }

    /// Offset of each record from the start of the frame.
    pub fn record_offsets(&self) -> impl Iterator<Item = usize> + '_ {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.take(self.ends.len()).map(|start| HEADER_BYTES + start)
    }

    /// Fills in where the append stands, writes the frame at the end of `out` and returns the digest of the log
    /// with it.
    pub fn place(&mut self, placement: &Placement<'_>, out: &mut Vec<u8>) -> Digest {
        assert_eq!(placement.versions.len(), self.ends.len(), "every event has its version");
        let mut start = 0;
        for (index, &end) in self.ends.iter().enumerate() {
            let record = &mut self.records[start..end];
            put_u64(&mut record[8..], placement.first.plus(index as u64).get());
            put_u64(&mut record[16..], placement.versions[index].get());
            put_u64(&mut record[24..], placement.recorded_at.as_micros().cast_unsigned());
            let crc = crc32c::crc32c(&record[4..]);
            put_u32(record, crc);
            start = end;
        }
        let chain =
            chain(&placement.chain, &self.digest, placement.first, self.ends.len(), placement.recorded_at);
        let header = Header {
            length: HEADER_BYTES + self.records.len(),
            count: u32::try_from(self.ends.len()).expect("limits keep an append at 65,536 events"),
            first: placement.first,
            recorded_at: placement.recorded_at,
            durable: placement.durable,
            chain,
        };
        put_frame(&header, KIND_APPEND, &self.records, placement.salt, out);
        chain
    }
}

/// The frame that marks a close, in which everything up to `durable` was durable.
pub fn close(durable: Position, recorded_at: Timestamp, chain: Digest, salt: u32) -> Vec<u8> {
    let header =
        Header { length: HEADER_BYTES, count: 0, first: durable.next(), recorded_at, durable, chain };
    let mut out = Vec::with_capacity(HEADER_BYTES);
    put_frame(&header, KIND_CLOSE, &[], salt, &mut out);
    out
}

fn put_frame(header: &Header, kind: u8, records: &[u8], salt: u32, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    out.extend_from_slice(records);
    let frame = &mut out[start..];
    put_u32(&mut frame[4..], u32::try_from(header.length).expect("limits keep a frame below 4 GiB"));
    frame[8] = kind;
    put_u32(&mut frame[12..], header.count);
    put_u64(&mut frame[16..], header.first.get());
    put_u64(&mut frame[24..], header.recorded_at.as_micros().cast_unsigned());
    put_u64(&mut frame[32..], header.durable.get());
    frame[40..72].copy_from_slice(&header.chain);
    let crc = crc32c::crc32c_append(salt, &frame[4..]);
    put_u32(frame, crc);
    out.resize(start + header.stride(), 0);
}

/// The digest of the log with an append: of the digest before it, of its content, and of where it stands.
fn chain(before: &Digest, content: &Digest, first: Position, count: usize, recorded_at: Timestamp) -> Digest {
    let mut digest = Sha256::new();
    digest.update(before);
    digest.update(content);
    digest.update(first.get().to_le_bytes());
    digest.update((count as u64).to_le_bytes());
    digest.update(recorded_at.as_micros().to_le_bytes());
    digest.finalize().into()
}

/// How many bytes the frame at the start of the bytes says it has.
pub fn peek_length(bytes: &[u8]) -> Result<usize, Malformed> {
    if bytes.len() < HEADER_BYTES {
        return Err(Malformed::Short("frame"));
    }
    let length = get_u32(&bytes[4..]) as usize;
    if length < HEADER_BYTES {
        return Err(Malformed::Short("frame"));
    }
    Ok(length)
}

/// Reads the frame at the start of the bytes: its header, checked, with nothing said of its records yet.
///
/// `Short` and `Checksum` mean that there is no whole frame here. Anything else means that there is one, written
/// so, and that it cannot be right.
pub fn header(bytes: &[u8], salt: u32) -> Result<Header, Malformed> {
    let length = peek_length(bytes)?;
    if bytes.len() < length {
        return Err(Malformed::Short("frame"));
    }
    if crc32c::crc32c_append(salt, &bytes[4..length]) != get_u32(bytes) {
        return Err(Malformed::Checksum("frame"));
    }
    peek(bytes)
}

/// What the header at the start of the bytes says, if it can be one; its checksum is not looked at.
pub fn peek(bytes: &[u8]) -> Result<Header, Malformed> {
    let length = peek_length(bytes)?;
    if !matches!(bytes[8], KIND_APPEND | KIND_CLOSE) {
        return Err(Malformed::Field("kind"));
    }
    if bytes[9..12] != [0; 3] {
        return Err(Malformed::Field("reserved"));
    }
    let header = Header {
        length,
        count: get_u32(&bytes[12..]),
        first: Position::new(get_u64(&bytes[16..])),
        recorded_at: get_time(&bytes[24..])?,
        durable: Position::new(get_u64(&bytes[32..])),
        chain: bytes[40..72].try_into().expect("32 bytes"),
    };
    if (header.count == 0) != (bytes[8] == KIND_CLOSE) {
        return Err(Malformed::Field("count"));
    }
    Ok(header)
}

/// The salt with which the frame at the start of the bytes would be whole, if all of its bytes are there: what the
/// checksum began with, found by undoing it byte by byte. Whether it is the right one, the records tell.
pub fn salt_of(bytes: &[u8]) -> Option<u32> {
    let covered = bytes.get(4..peek_length(bytes).ok()?)?;
    // What a step of the checksum adds for each value of the byte that leaves it: `step(0, byte)`.
    let step = |byte: u8| {
        (0..8).fold(u32::from(byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    };
    let mut by_top = [(0_u8, 0_u32); 256];
    for byte in 0..=255 {
        let added = step(byte);
        by_top[(added >> 24) as usize] = (byte, added);
    }
    let mut state = !get_u32(bytes);
    for &byte in covered.iter().rev() {
        let (low, added) = by_top[(state >> 24) as usize];
        state = ((state ^ added) << 8) | u32::from(low ^ byte);
    }
    Some(!state)
}

/// The records of a frame that `header` has accepted, each with its offset from the start of the frame; and
/// whether the digest in the header is the one that follows from `before`.
pub fn records(
    frame: &Bytes,
    header: &Header,
    before: &Digest,
) -> Result<Vec<(usize, RecordedEvent)>, Malformed> {
    let (events, content) = events(frame, header)?;
    let expected = match events.len() {
        0 => *before,
        count => chain(before, &content, header.first, count, header.recorded_at),
    };
    if header.chain != expected {
        return Err(Malformed::Field("chain"));
    }
    Ok(events)
}

/// The same where the digest of the log before the frame is not known; with the digest of its content.
pub fn events(frame: &Bytes, header: &Header) -> Result<(Vec<(usize, RecordedEvent)>, Digest), Malformed> {
    let mut events = Vec::with_capacity((header.count as usize).min(header.length / RECORD_HEADER_BYTES));
    let mut digests = Sha256::new();
    let mut at = HEADER_BYTES;
    for index in 0..u64::from(header.count) {
        let length = record_length(&frame[at..header.length])?;
        let record = frame.slice(at..at + length);
        let event = record_event(&record)?;
        if event.position != header.first.plus(index) {
            return Err(Malformed::Field("position"));
        }
        if event.append != header.first {
            return Err(Malformed::Field("index"));
        }
        if event.recorded_at != header.recorded_at {
            return Err(Malformed::Field("recorded time"));
        }
        digests.update(Sha256::digest(&record[RECORD_HEADER_BYTES..]));
        events.push((at, event));
        at += length;
    }
    if at != header.length {
        return Err(Malformed::Field("length"));
    }
    Ok((events, digests.finalize().into()))
}

/// How many bytes the record at the start of the bytes has.
pub fn record_length(bytes: &[u8]) -> Result<usize, Malformed> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return Err(Malformed::Short("record"));
    }
    let length = get_u32(&bytes[4..]) as usize;
    if length < RECORD_HEADER_BYTES {
        return Err(Malformed::Field("length"));
    }
    Ok(length)
}

/// Reads one record, all of it and nothing else. The event shares the bytes.
pub fn record_event(record: &Bytes) -> Result<RecordedEvent, Malformed> {
    if record_length(record)? != record.len() {
        return Err(Malformed::Short("record"));
    }
    if crc32c::crc32c(&record[4..]) != get_u32(record) {
        return Err(Malformed::Checksum("record"));
    }
    if record[34..36] != [0; 2] {
        return Err(Malformed::Field("reserved"));
    }
    let position = Position::new(get_u64(&record[8..]));
    let version = Version::new(get_u64(&record[16..]));
    let recorded_at = get_time(&record[24..])?;
    let index = u64::from(u16::from_le_bytes([record[32], record[33]]));
    if position.get() <= index || version == Version::ZERO {
        return Err(Malformed::Field("position"));
    }
    let append = Position::new(position.get() - index);
    let (stream, key, event) = body::decode(record.slice(RECORD_HEADER_BYTES..))?;
    Ok(RecordedEvent::record(event, stream, position, version, append, recorded_at, key))
}
