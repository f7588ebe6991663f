//! The events of the workloads: orders, 256 bytes of JSON each, made from the stream's number and the
//! version; and entries of a ledger, small and tagged, in streams at random, made from the entry's number.
//!
//! The same number and version give the same bytes in every store and every run, so that what is read can be
//! held against what was written. Most of an event is numbers and random hex: neither constant nor easy to
//! compress. Next, `rival`.

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use crate::rival::{Part, Seen};

/// Bytes of an event's data.
pub const EVENT_BYTES: usize = 256;
/// The type of an order.
pub const ORDER: &str = "order.placed";

const SHAPE: &[u8] =
    b"{\"order\":\"0000000000\",\"line\":00000000,\"customer\":\"c-000000\",\"sku\":\"sku-00000\",\
\"quantity\":00,\"price_cents\":00000,\"placed_at\":\"2026-05-00T00:00:00Z\",\"token\":\"";

/// The name of the stream with this number.
pub fn stream_name(number: u64) -> String {
    format!("order-{number:08}")
}

/// Orders for the stream with this number.
pub fn part(stream: u64, seen: Seen, data: Vec<Bytes>) -> Part {
    Part { stream: stream_name(stream), seen, event_type: ORDER, tag: None, data }
}

/// The data of consecutive events of one stream, from this version on.
pub fn orders(stream: u64, first_version: u64, count: usize) -> Vec<Bytes> {
    let mut block = BytesMut::zeroed(count * EVENT_BYTES);
    for (index, order) in block.chunks_exact_mut(EVENT_BYTES).enumerate() {
        write_order(stream, first_version + index as u64, order);
    }
    let block = block.freeze();
    (0..count).map(|index| block.slice(index * EVENT_BYTES..(index + 1) * EVENT_BYTES)).collect()
}

fn write_order(stream: u64, version: u64, order: &mut [u8]) {
    let mut random = Random::new(stream.wrapping_mul(0x1_0000_0001) ^ version.rotate_left(40));
    order[..SHAPE.len()].copy_from_slice(SHAPE);
    let mut digits = |after: usize, width: usize, number: u64| {
        let mut rest = number;
        for digit in order[after..after + width].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    };
    digits(10, 10, stream);
    // A number in JSON does not begin with a zero.
    digits(29, 8, 10_000_000 + version);
    digits(52, 6, random.next() % 1_000_000);
    digits(71, 5, random.next() % 100_000);
    digits(89, 2, 10 + random.next() % 90);
    digits(106, 5, 10_000 + random.next() % 90_000);
    digits(133, 2, 1 + random.next() % 28);
    digits(136, 2, random.next() % 24);
    digits(139, 2, random.next() % 60);
    digits(142, 2, random.next() % 60);
    let end = EVENT_BYTES - 2;
    for piece in order[SHAPE.len()..end].chunks_mut(16) {
        let mut bits = random.next();
        for byte in piece {
            *byte = b"0123456789abcdef"[(bits & 15) as usize];
            bits >>= 4;
        }
    }
    order[end..].copy_from_slice(b"\"}");
}

/// The types of the entries of a ledger.
const ENTRIES: [&str; 10] = [
    "account.opened",
    "money.deposited",
    "money.withdrawn",
    "transfer.sent",
    "transfer.received",
    "card.charged",
    "card.refunded",
    "fee.booked",
    "interest.booked",
    "limit.changed",
];

/// A ledger: entries in the streams of accounts at random, tagged with the customer that has the account.
#[derive(Clone, Copy, Debug)]
pub struct Ledger {
    /// Entries at the beginning.
    pub entries: u64,
    /// Accounts, a stream each.
    pub accounts: u64,
}

impl Ledger {
    /// Of this many entries: ten for an account, and at most a million accounts.
    pub fn of(entries: u64) -> Self {
        Self { entries, accounts: (entries / 10).clamp(1, 1_000_000) }
    }

    /// Customers: three for ten accounts.
    pub fn customers(self) -> u64 {
        (self.accounts * 3 / 10).max(1)
    }

    /// The stream of an account.
    pub fn stream(account: u64) -> String {
        format!("account-{account}")
    }

    /// The tag of a customer.
    pub fn tag(customer: u64) -> String {
        format!("customer:{customer}")
    }

    /// The entry with this number: the same in every store and every run.
    pub fn entry(self, number: u64) -> Part {
        let mut random = Random::new(number.wrapping_mul(0x1_0000_0001));
        let account = random.below(self.accounts);
        let event_type = ENTRIES[random.below(ENTRIES.len() as u64) as usize];
        let (cents, hour) = (1_000 + random.below(9_999_000), random.below(1_000_000));
        let data = format!(r#"{{"cents":{cents},"by":"clerk-{:03}","hour":{hour}}}"#, random.below(1_000));
        Part {
            stream: Self::stream(account),
            seen: Seen::default(),
            event_type,
            tag: Some(Self::tag(account % self.customers())),
            data: vec![data.into()],
        }
    }
}

/// What was read: how much, and a hash that depends on every byte and on the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Events.
    pub events: u64,
    /// Bytes of their data.
    pub bytes: u64,
    /// The hash.
    pub hash: u64,
}

impl Digest {
    /// Of one event.
    pub fn of(data: &[u8]) -> Self {
        let mut digest = Self::default();
        digest.see(data);
        digest
    }

    /// Takes in the next event's data.
    pub fn see(&mut self, data: &[u8]) {
        self.events += 1;
        self.bytes += data.len() as u64;
        self.hash = self.hash.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(xxh3_64(data));
    }

    /// Takes in what somebody else has read; in any order, for readers run side by side.
    pub fn add(&mut self, other: Self) {
        self.events += other.events;
        self.bytes += other.bytes;
        self.hash = self.hash.wrapping_add(other.hash);
    }
}

/// Random numbers that a seed repeats (splitmix64).
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below this one.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_json_of_256_bytes_and_names_its_stream() {
        let orders = orders(1_234, 7, 2);
        assert_eq!(orders.len(), 2);
        let text = std::str::from_utf8(&orders[0]).unwrap();
        assert_eq!(text.len(), EVENT_BYTES);
        assert!(text.starts_with(r#"{"order":"0000001234","line":10000007,"customer":"c-"#), "{text}");
        assert!(text.ends_with("\"}"), "{text}");
        for (after, before) in [("\"sku-", "\","), ("\"quantity\":", ","), ("\"price_cents\":", ",")] {
            let number = text.split_once(after).unwrap().1.split_once(before).unwrap().0;
            assert!(number.parse::<u64>().is_ok(), "{text}");
        }
        assert!(text.contains("\"placed_at\":\"2026-05-"), "{text}");
        assert_eq!(text.matches('"').count(), 26, "{text}");
    }

    #[test]
    fn the_same_order_has_the_same_bytes_and_others_have_others() {
        assert_eq!(orders(5, 1, 3)[2], orders(5, 3, 1)[0]);
        assert_ne!(orders(5, 1, 1), orders(6, 1, 1));
        assert_ne!(orders(5, 1, 1), orders(5, 2, 1));
    }

    #[test]
    fn entries_of_a_ledger_are_small_and_everywhere() {
        let ledger = Ledger::of(100_000);
        let entries: Vec<_> = (0..ledger.entries).map(|number| ledger.entry(number)).collect();
        let bytes: usize = entries.iter().map(|entry| entry.data[0].len()).sum();
        assert_eq!(bytes / entries.len(), 47);
        let count = |names: Vec<String>| names.into_iter().collect::<std::collections::BTreeSet<_>>().len();
        let streams = count(entries.iter().map(|entry| entry.stream.clone()).collect());
        assert!((9_900..=10_000).contains(&streams), "{streams}");
        assert_eq!(count(entries.iter().filter_map(|entry| entry.tag.clone()).collect()), 3_000);
        assert_eq!(count(entries.iter().map(|entry| entry.event_type.to_owned()).collect()), 10);
    }

    #[test]
    fn a_digest_depends_on_the_order() {
        let of = |events: &[&[u8]]| {
            let mut digest = Digest::default();
            events.iter().for_each(|event| digest.see(event));
            digest
        };
        assert_ne!(of(&[b"a", b"b"]).hash, of(&[b"b", b"a"]).hash);
        assert_eq!(of(&[b"a", b"bc"]).bytes, 3);
    }
}
