//! The decoders of bytes on disk, each as a function of arbitrary bytes. For `fuzz/` and the tests only.
//!
//! None of them may panic, hang, or allocate more memory than the size of the input justifies. If a format
//! has checksums, the bytes are tried as they are and with corrected checksums.

use std::ops::ControlFlow;
use std::sync::Arc;

use annals_core::{
    Direction, EventId, LogRead, Position, Query, RecordedEvent, StoreId, StreamId, StreamList, StreamRead,
    Tag, Timestamp, Version,
};
use bytes::Bytes;

use crate::disk::Disk;
use crate::disk::faulty::FaultyDisk;
use crate::error::Fault;
use crate::index::{BlockCache, FileIndex, Index, MemoryIndex, compare, search};
use crate::log::encoding::{get_u32, get_u64, put_u32};
use crate::log::frame::{self, Origin};
use crate::log::identity;
use crate::log::segment::{End, HEADER_BYTES, Segment, SegmentHeader, base_of, file_name, index_name, walk};
use crate::log::terms::{IdentityHashes, Kind, hashes_of, terms_of};
use crate::proof::Proof;
use crate::read::scan;
use crate::read::view::Log;
use crate::recovery::{self, torn_tail_end};
use crate::{Options, read};
use annals_core::body::Body;

/// A target: its name, which is that of its folder in `fuzz/corpus`, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this crate.
pub const TARGETS: [Target; 8] = [
    ("body", body),
    ("digest", digest),
    ("frame", frame),
    ("identity", identity),
    ("index", index),
    ("recovery", recovery),
    ("segment", segment),
    ("segment_header", segment_header),
];

/// Bytes of a block of an index file.
const BLOCK_BYTES: usize = 4096;

/// The body of a record.
pub fn body(bytes: &[u8]) {
    let block = Bytes::copy_from_slice(bytes);
    let Ok(body) = Body::read(&block) else { return };
    let mut terms = 0;
    terms_of(&body, |_, _| terms += 1);
    let mut hashes = Vec::new();
    hashes_of(&body, &mut hashes);
    assert_eq!(hashes.len(), terms + 1, "each term has a hash, and so has the id");
    let (first, version, time) = (Position::FIRST, Version::new(1), Timestamp::MIN);
    let Ok(event) = RecordedEvent::of_body(block, first, version, first, time) else { return };
    let (new, stream, key) = (event.to_new(), event.stream_id(), event.idempotency_key());
    let again = RecordedEvent::record(&new, &stream, first, version, first, time, key.as_ref());
    assert_eq!(
        (again.to_new(), again.stream_id(), again.idempotency_key()),
        (new, stream, key),
        "what was read can be written and read again"
    );
}

/// A frame, preceded by the origin against which it is read.
pub fn frame(bytes: &[u8]) {
    let Some((fixed, rest)) = bytes.split_at_checked(20) else { return };
    let origin = Origin {
        salt: get_u32(fixed),
        base: Position::new(get_u64(&fixed[4..]).clamp(1, u64::MAX - (1 << 33))),
        created_at: Timestamp::from_micros(get_u64(&fixed[12..]).cast_signed()),
    };
    one_frame(rest, &origin);
    let mut repaired = rest.to_vec();
    if frame::repair_checksums(&mut repaired, &origin).is_some() {
        one_frame(&repaired, &origin);
    }
}

fn one_frame(bytes: &[u8], origin: &Origin) {
    let _ = frame::peek_length(bytes);
    let _ = frame::peek(bytes, origin);
    let _ = frame::record_length(bytes);
    let block = Bytes::copy_from_slice(bytes);
    let _ = frame::record(&block, origin.base, origin).and_then(|record| record.event(&block));
    let Ok(header) = frame::header(&block, origin) else { return };
    let _ = frame::records(&block, &header, origin, |at, record| {
        assert!(at < header.length && record.body.len() < header.length, "a record lies in its frame");
        let single = frame::record(&block[at..], record.position, origin)?;
        assert_eq!(single.body, record.body, "a record is the same with its frame and without");
        // An event that cannot be decoded is no reason to stop.
        let _ = record.event(&block);
        Ok(())
    });
}

/// The header of a segment.
pub fn segment_header(bytes: &[u8]) {
    let mut repaired = bytes.to_vec();
    if repaired.len() >= HEADER_BYTES as usize {
        repair_segment_header(&mut repaired);
    }
    for bytes in [bytes.to_vec(), repaired] {
        let base = bytes.get(32..40).map_or(Position::FIRST, |base| Position::new(get_u64(base)));
        let name = file_name(base);
        let disk = FaultyDisk::with_files([(name.clone(), bytes)]);
        let file = disk.open(&name).expect("the file is there");
        if let Ok(header) = SegmentHeader::read(&*file, base) {
            assert_eq!(header.base, base);
            header.origin();
        }
    }
}

/// The file `identity`.
pub fn identity(bytes: &[u8]) {
    let mut repaired = bytes.to_vec();
    repair_identity(&mut repaired);
    for bytes in [bytes.to_vec(), repaired] {
        let disk = FaultyDisk::with_files([(identity::NAME.to_owned(), bytes.clone())]);
        if let Ok(Some(id)) = identity::read(&disk, &[identity::NAME.to_owned()]) {
            assert_eq!(id.as_bytes()[..], bytes[8..24]);
        }
    }
}

/// The file `digest`.
pub fn digest(bytes: &[u8]) {
    let mut repaired = bytes.to_vec();
    repair_end(&mut repaired);
    for bytes in [bytes.to_vec(), repaired] {
        let store = bytes.get(8..24).map_or([0; 16], |id| id.try_into().expect("16 bytes"));
        let disk = FaultyDisk::with_files([("digest".to_owned(), bytes)]);
        let proof = Proof::read(&disk, StoreId::from_bytes(store), Position::MAX);
        proof.digest().log();
        proof.write(&disk).expect("nothing is wrong with the disk");
    }
}

/// A whole segment file: the walk, its index, its torn tail and its digest.
pub fn segment(bytes: &[u8]) {
    let mut repaired = bytes.to_vec();
    repair_segment(&mut repaired);
    for bytes in [bytes.to_vec(), repaired] {
        let base = bytes.get(32..40).map_or(Position::FIRST, |base| Position::new(get_u64(base)));
        let name = file_name(base);
        let disk = FaultyDisk::with_files([(name.clone(), bytes)]);
        let file = disk.open(&name).expect("the file is there");
        let Ok(header) = SegmentHeader::read(&*file, base) else { continue };
        let segment = Segment::new(header, file);
        let mut builder = recovery::Builder::default();
        let start = End::start_of(&header);
        let end = walk(&*segment.file, &header, start, Position::MAX, |frame| builder.add(frame));
        let Ok(end) = end else { continue };
        assert!(end.next.get() == base.get().saturating_add(u64::from(builder.index.count())));
        let _ = torn_tail_end(&segment, &end);
        let mut proof = Proof::begin(header.store);
        if base == Position::FIRST {
            let _ = proof.extend(&segment, end.next);
        }
    }
}

/// An index file: opens it and makes all its look-ups.
pub fn index(bytes: &[u8]) {
    let mut repaired = bytes.to_vec();
    repair_index(&mut repaired);
    for bytes in [bytes.to_vec(), repaired] {
        let base = bytes.get(8..16).map_or(Position::FIRST, |base| Position::new(get_u64(base)));
        let Ok(index) = open_index(bytes, base) else { continue };
        // Each look-up may return damage.
        let _ = ask(&index);
    }
}

fn open_index(bytes: Vec<u8>, base: Position) -> Result<FileIndex, Fault> {
    let disk = FaultyDisk::with_files([("index".to_owned(), bytes)]);
    let file = disk.open("index").expect("the file is there");
    FileIndex::open("index", file, base, Arc::new(BlockCache::new(1 << 20)))
}

/// The most places of a look-up.
const PLACES: u32 = 3_000;

fn ask(index: &FileIndex) -> Result<(), Fault> {
    let _ = (index.last(), index.segments());
    let all = 0..index.count().min(PLACES);
    let mut offsets = Vec::new();
    let _ = index.offsets(all.clone(), &mut offsets);
    let _ = index.offsets(all.end - 1..all.end, &mut offsets);
    let _ = compare(index, index.base(), &MemoryIndex::default());
    let id = EventId::from_name(b"an event");
    let stream = b"account-1";
    let _ = index.with_id(stream, id, IdentityHashes::of(stream, id));
    let names = ["account-1", "account", "thing.happened", "blue", "", "\u{ff}"];
    let kinds = [
        Kind::Stream,
        Kind::Category,
        Kind::Type,
        Kind::Tag,
        Kind::Process,
        Kind::Initiator,
        Kind::Key,
        Kind::Predecessor,
    ];
    for kind in kinds {
        for name in names {
            let Ok(Some(postings)) = index.find(kind, name.as_bytes(), kind.hash(name.as_bytes())) else {
                continue;
            };
            index.count_below(&postings, all.end);
            for range in [all.clone(), 0..u32::MAX, 1..2] {
                let _ = index.places(&postings, range.clone());
                if kind != Kind::Predecessor {
                    let _ = index.ranked(&postings, range);
                }
            }
        }
    }
    let _ = index.of_id(id);
    let query = Query::tags([Tag::new("blue").expect("it is a name")]);
    for direction in [Direction::Forward, Direction::Backward] {
        let _ = search(index, &query, all.clone(), direction, 10);
    }
    for (_, postings) in index.streams_after(None, 100)? {
        let _ = index.places(&postings, all.clone());
        let _ = index.ranked(&postings, all.clone());
    }
    let _ = index.streams_after(Some("account"), 100);
    Ok(())
}

/// A directory of files with arbitrary contents. Each file is encoded as one byte for its kind, one for its
/// name, two for its length, and its bytes.
pub fn recovery(bytes: &[u8]) {
    let mut files = Vec::new();
    let mut rest = bytes;
    while let Some((&[kind, number, low, high], behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([low, high])).min(behind.len());
        let (content, behind) = behind.split_at(length);
        rest = behind;
        files.push(file(kind, number, content.to_vec()));
    }
    let verified = crate::verify_disk(&FaultyDisk::with_files(files.clone()), &mut |_, _| {});
    if let Err(error) = verified {
        must_be_reported(&error);
    }
    let disk = FaultyDisk::with_files(files);
    let options = Options { run_events: 16, segment_bytes: 1 << 12, ..Options::default() };
    let cache = Arc::new(BlockCache::new(1 << 20));
    match recovery::open(&disk, &cache, &options) {
        Ok(recovered) => {
            let head = recovered.tail.next.previous();
            let log = Log::new(recovered.id, Arc::new(disk), cache, recovered.lists, head);
            // Reads find damage that opening does not check for.
            let _ = read_all(&log);
        }
        Err(fault) => must_be_reported(&fault.into()),
    }
}

fn read_all(log: &Log) -> Result<(), Fault> {
    let view = log.view();
    let mut events = 0_u64;
    let _ = scan::scan(&view, Position::FIRST, |_| {
        events += 1;
        ControlFlow::Continue(())
    });
    let _ = read::log(&view, &LogRead::forward(Position::FIRST).limit(50));
    let _ = read::log(&view, &LogRead::backward(Position::MAX).limit(50));
    let tagged = Query::tags([Tag::new("blue").expect("it is a name")]);
    let _ = read::log(&view, &LogRead::forward(Position::FIRST).matching(tagged).limit(50));
    let name = StreamId::new("account-1").expect("it is a name");
    let _ = read::stream(&view, &StreamRead::forward(&name, Version::FIRST).limit(50));
    let proof = Proof::read(&*log.disk, log.id, view.head.next());
    let _ = crate::proof::receipt::head(&view, proof, None);
    for stream in read::streams(&view, &StreamList::default())?.into_iter().take(5) {
        let _ = read::stream(&view, &StreamRead::backward(&stream.stream, Version::MAX).limit(50));
    }
    Ok(())
}

fn must_be_reported(error: &annals_core::Error) {
    use annals_core::Error::{Damaged, Unavailable};
    assert!(matches!(error, Damaged { .. } | Unavailable(_)), "{}", error.chain());
}

/// The name of a file of this kind, and its contents, with corrected checksums if the top bit of `kind` is
/// set.
fn file(kind: u8, number: u8, mut content: Vec<u8>) -> (String, Vec<u8>) {
    let repairs = kind & 0x80 != 0;
    let (name, repair): (String, fn(&mut Vec<u8>)) = match kind & 7 {
        0 | 1 => (file_name(Position::new(1 + u64::from(number))), |bytes| repair_segment(bytes)),
        2 | 3 => {
            // Take the positions from its header, so that the index is not rejected at once.
            let first = content.get(8..16).map_or(1, get_u64);
            let count = content.get(16..20).map_or(0, get_u32);
            let last = first.saturating_add(u64::from(count.max(1)) - 1);
            (index_name(Position::new(first), Position::new(last)), repair_index)
        }
        4 => (identity::NAME.to_owned(), repair_identity),
        5 => ("digest".to_owned(), |bytes| repair_end(bytes)),
        6 => (format!("{}.tmp", file_name(Position::new(1 + u64::from(number)))), |_| {}),
        _ => (format!("{number}.seg"), |_| {}),
    };
    if repairs {
        repair(&mut content);
    }
    debug_assert!(base_of(&name).is_none() || name.ends_with(".seg"));
    (name, content)
}

fn repair_segment_header(bytes: &mut [u8]) {
    let crc = crc32c::crc32c(&bytes[..124]);
    put_u32(&mut bytes[124..], crc);
}

/// Corrects the checksums of a segment, frame by frame, up to the first bytes that are not a frame.
fn repair_segment(bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES as usize {
        return;
    }
    repair_segment_header(bytes);
    let base = Position::new(get_u64(&bytes[32..]));
    let disk = FaultyDisk::with_files([(file_name(base), bytes.to_vec())]);
    let file = disk.open(&file_name(base)).expect("the file is there");
    let Ok(header) = SegmentHeader::read(&*file, base) else { return };
    let mut at = HEADER_BYTES as usize;
    while let Some(length) = frame::repair_checksums(&mut bytes[at..], &header.origin()) {
        at += length;
    }
}

fn repair_index(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    for block in bytes.chunks_mut(BLOCK_BYTES) {
        let crc = crc32c::crc32c(&block[..BLOCK_BYTES - 4]);
        put_u32(&mut block[BLOCK_BYTES - 4..], crc);
    }
}

fn repair_identity(bytes: &mut Vec<u8>) {
    bytes.truncate(28);
    repair_end(bytes);
}

/// Sets the last four bytes to the checksum of the others.
fn repair_end(bytes: &mut [u8]) {
    if let Some(end) = bytes.len().checked_sub(4) {
        let crc = crc32c::crc32c(&bytes[..end]);
        put_u32(&mut bytes[end..], crc);
    }
}

/// The most frames, and bodies, per segment that are kept as seeds.
const SEEDS: usize = 4;

/// The seeds from the files of a store: the name of the target, a number, and the bytes.
pub fn seeds(files: &std::collections::BTreeMap<String, Vec<u8>>) -> Vec<(&'static str, usize, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut directory = Vec::new();
    let mut indexes = 0;
    let mut put = |kind: u8, number: u64, content: &[u8]| {
        directory.extend_from_slice(&[kind, u8::try_from(number).expect("the store is small")]);
        directory
            .extend_from_slice(&u16::try_from(content.len()).expect("the files are small").to_le_bytes());
        directory.extend_from_slice(content);
    };
    for (index, (name, bytes)) in files.iter().enumerate() {
        let bytes = &bytes[..bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)];
        if let Some(base) = base_of(name) {
            put(0x80, base.get() - 1, bytes);
            seeds.push(("segment", index, bytes.to_vec()));
            seeds.push(("segment_header", index, bytes[..HEADER_BYTES as usize].to_vec()));
            seeds.extend(frames_in(name, bytes));
        } else if crate::log::segment::run_of(name).is_some() {
            let mut bytes = bytes.to_vec();
            repair_index(&mut bytes);
            if indexes < 2 {
                put(0x82, 0, &bytes);
                seeds.push(("index", index, bytes));
            }
            indexes += 1;
        } else if name == identity::NAME {
            put(0x84, 0, bytes);
            seeds.push(("identity", index, bytes.to_vec()));
        }
    }
    // The store may not have written its digest yet.
    let digest = digest_of(files);
    put(0x85, 0, &digest);
    seeds.push(("digest", 0, digest));
    seeds.push(("recovery", 0, directory));
    seeds
}

/// The contents of the file `digest` for the first of these segments.
fn digest_of(files: &std::collections::BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let disk = FaultyDisk::with_files(files.clone());
    let segment = recovery::open_segment(&disk, Position::FIRST, &mut None).expect("it is whole");
    let mut proof = Proof::begin(segment.header.store);
    proof.extend(&segment, Position::MAX).expect("it is whole");
    proof.write(&disk).expect("nothing is wrong with the disk");
    disk.files().remove("digest").expect("it was written")
}

fn frames_in(name: &str, bytes: &[u8]) -> Vec<(&'static str, usize, Vec<u8>)> {
    let mut seeds = Vec::new();
    let disk = FaultyDisk::with_files([(name.to_owned(), bytes.to_vec())]);
    let file = disk.open(name).expect("the file is there");
    let header = SegmentHeader::read(&*file, base_of(name).expect("it is a segment")).expect("it is whole");
    let origin = header.origin();
    let walked = walk(&*file, &header, End::start_of(&header), Position::MAX, |frame| {
        if seeds.len() / 2 < SEEDS {
            let index = usize::try_from(frame.header.first.get()).expect("the store is small");
            let mut seed = origin.salt.to_le_bytes().to_vec();
            seed.extend_from_slice(&origin.base.get().to_le_bytes());
            seed.extend_from_slice(&origin.created_at.as_micros().to_le_bytes());
            seed.extend_from_slice(&frame.bytes[..frame.header.length]);
            seeds.push(("frame", index, seed));
            let mut body = Vec::new();
            frame.records(|_, record| {
                body = record.body.to_vec();
                Ok(())
            })?;
            seeds.push(("body", index, body));
        }
        Ok(())
    });
    walked.expect("it is whole");
    seeds
}
