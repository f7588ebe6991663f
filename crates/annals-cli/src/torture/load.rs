//! The load of a torture: the appends and the store options, all derived from the seed and a name. So a
//! process that reads a name in the witness can make the same append again.

use std::fmt;
use std::str::FromStr;

use annals_core::{Append, EventId, Expected, IdempotencyKey, NewEvent, StreamId, Tag, Version};
use annals_engine::{Options, ScannedEvent};
use sha2::{Digest as _, Sha256};

/// The hash of the content of an append or of an event.
pub(super) type Hash = [u8; 32];

/// The name of an append: the number of the child, of its writer, and of the append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) cycle: u64,
    pub(super) writer: u64,
    pub(super) number: u64,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.cycle, self.writer, self.number)
    }
}

impl FromStr for Name {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let numbers: Vec<u64> =
            text.split('.').map(|part| part.parse().map_err(drop)).collect::<Result<_, _>>()?;
        match numbers[..] {
            [cycle, writer, number] => Ok(Self { cycle, writer, number }),
            _ => Err(()),
        }
    }
}

/// A deterministic random number generator (SplitMix64).
pub(super) struct Random(u64);

impl Random {
    /// A generator seeded with this seed and these other numbers.
    pub(super) fn new(seed: u64, others: &[u64]) -> Self {
        let mut random = Self(seed);
        for other in others {
            random.0 = random.next() ^ other.wrapping_mul(0x2545_f491_4f6c_dd1d);
        }
        random
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A random number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(super) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// The options of the store and the number of writers in a cycle.
pub(super) struct Shape {
    pub(super) options: Options,
    pub(super) writers: u64,
    /// The number of events with large data per thousand.
    large: u64,
}

impl Shape {
    pub(super) fn of(seed: u64, cycle: u64, writers_max: u64) -> Self {
        let mut random = Random::new(seed, &[cycle, 1]);
        let options = Options {
            segment_bytes: random.one_of(&[32 << 10, 128 << 10, 1 << 20, 4 << 20]),
            run_events: random.one_of(&[32, 256, 2_048]),
            run_bytes: random.one_of(&[16 << 10, 256 << 10, 16 << 20]),
            callers_may_wait: random.below(2) == 0,
            ..Options::default()
        };
        let writers = if random.below(4) == 0 { 1 } else { 1 + random.below(writers_max) };
        Self { options, writers, large: random.one_of(&[0, 1, 1, 20]) }
    }
}

/// The number of streams that all writers append to.
const SHARED_STREAMS: u64 = 40;
/// The approximate maximum size of an append in bytes.
const APPEND_BYTES: u64 = 4 << 20;

/// The stream that only this writer appends to.
pub(super) fn own_stream(writer: u64) -> StreamId {
    StreamId::new(format!("own-{writer}")).expect("the name is short and plain")
}

/// The append of this name; `own` is the version of the writer's own stream before it. Some appends have a
/// key; the others are recognised by the ids of their events.
pub(super) fn append(seed: u64, name: Name, own: Version) -> Append {
    let mut random = Random::new(seed, &[name.cycle, name.writer, name.number]);
    let shape = Shape::of(seed, name.cycle, 1);
    let count = match random.below(1_000) {
        0..700 => 1,
        700..960 => 2 + random.below(6),
        960..995 => 20 + random.below(100),
        _ => 200 + random.below(400),
    };
    let shared = |random: &mut Random| {
        StreamId::new(format!("shared-{}", random.below(SHARED_STREAMS)))
            .expect("the name is short and plain")
    };
    let kind = random.below(10);
    let one = if kind < 4 { own_stream(name.writer) } else { shared(&mut random) };
    let mut append = Append::new();
    let mut bytes = 0;
    for index in 0..count {
        let length = match random.below(1_000) {
            chance if chance < shape.large => (64 << 10) + random.below(2 << 20),
            chance if chance < 980 => random.below(400),
            _ => random.below(8 << 10),
        };
        let length = if bytes > APPEND_BYTES { 0 } else { length };
        bytes += length;
        let stream = if kind < 8 { one.clone() } else { shared(&mut random) };
        append = append.and_to(stream, Expected::Any, [event(&mut random, name, index, length)]);
    }
    if kind < 4 {
        append = append.expecting(one, Expected::Exact(own));
    }
    if random.below(3) > 0 { append.once(key(name)) } else { append }
}

/// The idempotency key of the append of this name, if it has one.
pub(super) fn key(name: Name) -> IdempotencyKey {
    IdempotencyKey::new(name.to_string()).expect("the name is short and plain")
}

/// The tag of the events of a writer.
pub(super) fn tag(writer: u64) -> Tag {
    Tag::new(format!("writer:{writer}")).expect("the name is short and plain")
}

fn event(random: &mut Random, name: Name, index: u64, length: u64) -> NewEvent {
    let mut data = format!("{{\"append\":\"{name}\",\"index\":{index},\"fill\":\"").into_bytes();
    let end = data.len() + length as usize;
    while data.len() < end {
        data.extend(random.next().to_le_bytes().map(|byte| b'a' + byte % 26));
    }
    data.truncate(end);
    data.extend_from_slice(b"\"}");
    let kind = random.one_of(&["thing.made", "thing.moved", "thing.sold"]);
    let event = NewEvent::new(kind, data).expect("the type is a name");
    event.with_id(EventId::from_name(format!("{name}/{index}").as_bytes())).with_tag(tag(name.writer))
}

/// The name of the append to which the event with this data belongs.
pub(super) fn name_in(data: &[u8]) -> Option<Name> {
    let rest = data.strip_prefix(b"{\"append\":\"")?;
    let end = rest.iter().position(|&byte| byte == b'"')?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

fn hash_event<'a>(
    stream: &str,
    event_type: &str,
    id: EventId,
    tags: impl Iterator<Item = &'a str>,
    data: &[u8],
) -> Hash {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(stream.as_bytes());
    part(event_type.as_bytes());
    part(id.as_bytes());
    part(data);
    tags.for_each(|tag| part(tag.as_bytes()));
    hash.finalize().into()
}

/// The hash of a scanned event.
pub(super) fn hash_of_scanned(event: &ScannedEvent<'_>) -> Hash {
    hash_event(event.stream(), event.event_type(), event.id(), event.tags(), event.data())
}

/// The hash of an event and its stream.
pub(super) fn hash_of(stream: &StreamId, event: &NewEvent) -> Hash {
    let tags = event.tags.iter().map(|tag| tag.as_str());
    hash_event(stream.as_str(), event.event_type.as_str(), event.id, tags, &event.data)
}

/// The hash of an append: the hash of the hashes of its events, in order.
pub(super) fn hash_of_append(append: &Append) -> Hash {
    hash_of_all(append.writes.iter().map(|write| hash_of(&write.stream, &write.event)))
}

/// The hash of hashes.
pub(super) fn hash_of_all(events: impl IntoIterator<Item = Hash>) -> Hash {
    let mut all = Sha256::new();
    events.into_iter().for_each(|event| all.update(event));
    all.finalize().into()
}
