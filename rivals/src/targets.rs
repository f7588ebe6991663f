//! The workloads, in the order in which they run, and what is to be reached in each.

use crate::peers::Peer;

/// Whether a larger figure is a better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Rates.
    More,
    /// Times and sizes.
    Less,
}

/// Something to be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// At least this many times the peer, more being better.
    Peer(Peer, f64),
    /// At least this share of what the bare device does in the same run.
    Device(f64),
    /// The cost in the large store is at most this many times that in the small one.
    Flat(f64),
    /// The latency that one request in a hundred exceeds is not above the peer's.
    Tail(Peer),
    /// Annals' own figure is at most this.
    AtMost(f64),
}

/// A workload.
#[derive(Debug)]
pub struct Workload {
    /// The name in options and lines.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// The unit of its figure.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
    /// What is to be reached.
    pub targets: &'static [Target],
}

impl Workload {
    /// What is to be reached; on a busy machine, to be no slower than the peer. What a store costs by itself,
    /// or beside the bare disk, says nothing there.
    pub fn targets_when(&self, busy: bool) -> impl Iterator<Item = Target> {
        self.targets.iter().filter_map(move |target| match (busy, *target) {
            (false, target) => Some(target),
            (true, Target::Peer(peer, _)) => Some(Target::Peer(peer, 1.0)),
            (true, Target::Device(_) | Target::Flat(_) | Target::Tail(_) | Target::AtMost(_)) => None,
        })
    }

    /// Whether somebody asked for it by this name, or by the beginning of it up to a dash.
    pub fn is_called(&self, asked: &str) -> bool {
        self.name == asked || self.name.strip_prefix(asked).is_some_and(|rest| rest.starts_with('-'))
    }
}

/// The workload with this name.
///
/// # Panics
/// If there is none.
pub fn workload(name: &str) -> &'static Workload {
    WORKLOADS.iter().find(|workload| workload.name == name).expect("the table has every workload")
}

const fn rate(
    name: &'static str,
    what: &'static str,
    unit: &'static str,
    targets: &'static [Target],
) -> Workload {
    Workload { name, what, unit, better: Better::More, targets }
}

const fn cost(
    name: &'static str,
    what: &'static str,
    unit: &'static str,
    targets: &'static [Target],
) -> Workload {
    Workload { name, what, unit, better: Better::Less, targets }
}

use Target::{AtMost, Device, Flat, Tail};
const fn tephra(times: f64) -> Target {
    Target::Peer(Peer::Tephra, times)
}

/// Every workload.
pub const WORKLOADS: &[Workload] = &[
    rate("ledger-fill", "4 writers, 1,000 entries a request", "events/s", &[tephra(2.0)]),
    rate("ledger-64", "64 writers, 1 entry a request", "events/s", &[tephra(2.0), Tail(Peer::Tephra)]),
    rate("ledger-16", "16 writers, 1 entry a request", "events/s", &[tephra(1.5)]),
    rate("ledger-scan", "1 reader, the whole log, by pages of 1,000", "events/s", &[tephra(1.5)]),
    rate("ledger-scan-large", "the same by pages of 10,000", "events/s", &[tephra(1.5)]),
    cost("ledger-stream", "1 reader, the stream of an account", "us", &[tephra(2.5)]),
    cost("ledger-stream-first", "the first 500 after opening", "us", &[tephra(1.0)]),
    cost("ledger-tag", "1 reader, the entries of a customer", "us", &[tephra(2.5)]),
    cost("ledger-tag-first", "the first 200 after opening", "us", &[tephra(1.0)]),
    cost("ledger-tag-none", "the first 200 of customers that are nowhere", "us", &[tephra(1.0)]),
    cost("ledger-size", "on disk after the fill", "bytes/event", &[tephra(1.0 / 0.7)]),
    cost(
        "ledger-size-written",
        "the same without what is allocated ahead",
        "bytes/event",
        &[tephra(1.0 / 0.7)],
    ),
    cost("ledger-memory", "most memory of a process that opens, reads and appends", "MB", &[AtMost(256.0)]),
    cost("ledger-open", "open and read one stream, after a close", "ms", &[AtMost(150.0)]),
    rate("append-1x1", "1 writer, 1 event a request", "events/s", &[tephra(1.0), Device(1.0 / 1.15)]),
    rate("append-64x1", "64 writers, 1 event a request", "events/s", &[tephra(2.0)]),
    rate("append-128x1", "128 writers, 1 event a request", "events/s", &[tephra(2.0)]),
    rate("append-64x64", "64 writers, 64 events a request", "events/s", &[tephra(1.5)]),
    rate("append-64x512", "64 writers, 512 events a request", "events/s", &[tephra(1.5)]),
    rate("bulk", "1 writer, 40 new streams of 25 events a request", "events/s", &[tephra(3.0)]),
    rate("scan", "1 reader, the whole log", "events/s", &[tephra(1.5)]),
    rate("stream-warm-1", "1 reader, random streams of 30 events", "streams/s", &[tephra(2.0)]),
    rate("stream-warm-16", "16 readers, random streams of 30 events", "streams/s", &[tephra(2.0)]),
    rate("stream-cold-1", "1 reader, nothing in memory", "streams/s", &[tephra(2.0)]),
    rate("stream-cold-16", "16 readers, nothing in memory", "streams/s", &[tephra(2.0)]),
    cost("size", "on disk after a load of 1,000 events a request", "bytes/event", &[tephra(1.0)]),
    cost("size-written", "the same without what is allocated ahead", "bytes/event", &[tephra(1.0)]),
    cost("size-single", "on disk after 64 writers, 1 event a request", "bytes/event", &[tephra(1.0)]),
    cost("size-single-written", "the same without what is allocated ahead", "bytes/event", &[tephra(1.0)]),
    cost("memory", "most memory of a process that loads", "MB", &[AtMost(256.0), Flat(1.25)]),
    cost("memory-open", "memory of a process that has opened the loaded store", "MB", &[AtMost(256.0)]),
    cost("open-killed", "open and read one stream, after a kill", "ms", &[AtMost(100.0)]),
    cost("open", "open and read one stream, after a close", "ms", &[AtMost(100.0)]),
    cost("open-cold", "the same with nothing in memory", "ms", &[AtMost(100.0)]),
    rate("refuse", "1 caller, stale appends, many streams", "appends/s", &[Flat(1.5)]),
    rate("exists", "1 caller, reads of streams that do not exist", "reads/s", &[Flat(1.5)]),
    rate("exists-append", "64 writers, each append makes a stream", "events/s", &[Flat(1.5)]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_called_by_its_name_or_its_beginning() {
        let append = workload("append-64x1");
        assert!(append.is_called("append-64x1"));
        assert!(append.is_called("append"));
        assert!(!append.is_called("app"));
        assert!(!workload("append-64x64").is_called("append-64x6"));
    }

    #[test]
    fn beside_other_work_the_peer_is_what_must_be_reached() {
        let targets = |busy| workload("append-1x1").targets_when(busy).collect::<Vec<_>>();
        assert_eq!(targets(false), [tephra(1.0), Device(1.0 / 1.15)]);
        assert_eq!(targets(true), [tephra(1.0)]);
        let mut spread = workload("append-64x64").targets_when(true);
        assert_eq!(spread.next(), Some(tephra(1.0)));
    }

    #[test]
    fn names_are_unique() {
        for (index, workload) in WORKLOADS.iter().enumerate() {
            assert!(WORKLOADS[..index].iter().all(|other| other.name != workload.name));
        }
    }
}
