//! What is known of a log, whatever happens to its disk: what was acknowledged, what nobody was told of, what
//! was refused, and what a consumer has read, page by page from its checkpoint on.

use annals_core::{Append, Appended, Error, EventStore, LogRead, Position, RecordedEvent, Version};
use annals_engine::{EngineStore, verify_disk};

use super::{Setting, open};
use crate::common::{check, join};
use annals_engine::disk::faulty::FaultyDisk;

/// What is known of one log.
#[derive(Clone, Default)]
pub struct Witness {
    /// Appends that were acknowledged.
    pub done: Vec<(Append, Appended)>,
    /// Appends of which nobody knows whether they are there.
    pub unknown: Vec<Append>,
    /// Appends that were refused: they are not there.
    pub refused: Vec<Append>,
    /// What the consumer has read. Its checkpoint is the last of them.
    pub consumed: Vec<RecordedEvent>,
    /// Times that the power failed.
    pub crashes: u64,
    /// Acknowledged appends that were looked for and found.
    pub checked: u64,
}

impl Witness {
    /// Appends these, all at once, and takes down what becomes of each.
    pub async fn append(&mut self, store: &EngineStore, group: Vec<Append>) {
        let answers = group.iter().map(|append| store.append(append.clone()));
        for (append, answer) in group.iter().zip(join(answers).await) {
            match answer {
                Ok(outcome) => self.acknowledged(append, outcome),
                Err(Error::Indeterminate(_)) => self.unknown.push(append.clone()),
                // It was tried again and judged, so it is not there.
                Err(Error::Conflict(_)) if self.unknown.iter().any(|sent| same(sent, append)) => {
                    self.unknown.retain(|sent| !same(sent, append));
                    self.refused.push(append.clone());
                }
                // Damage: only if a read was flipped, and then nothing is written.
                Err(Error::Unavailable(_) | Error::Poisoned(_) | Error::Damaged { .. }) => {
                    let mut sent = self.done.iter().map(|(append, _)| append).chain(&self.unknown);
                    if !sent.any(|sent| same(sent, append)) {
                        self.refused.push(append.clone());
                    }
                }
                Err(other) => panic!("{}", other.chain()),
            }
        }
    }

    fn acknowledged(&mut self, append: &Append, outcome: Appended) {
        let same = |other: &Append| same(other, append);
        if let Some((_, original)) = self.done.iter().find(|(other, _)| same(other)) {
            assert!(outcome.duplicate, "an append was applied twice");
            assert_eq!(
                (outcome.first, outcome.last),
                (original.first, original.last),
                "the original is answered"
            );
            return;
        }
        let was_sent = self.unknown.iter().any(same);
        assert!(was_sent || !outcome.duplicate, "a new append is answered as a duplicate");
        self.unknown.retain(|other| !same(other));
        self.refused.retain(|other| !same(other));
        self.done.push((append.clone(), outcome));
    }

    /// Reads on from the checkpoint, to the head or to the first read that fails.
    pub async fn consume(&mut self, store: &EngineStore) {
        loop {
            let next = Position::new(self.consumed.len() as u64 + 1);
            let Ok(page) = store.read_log(LogRead::forward(next).limit(7)).await else { return };
            for event in page.events {
                let expected = Position::new(self.consumed.len() as u64 + 1);
                assert_eq!(event.position(), expected, "a subscription continues without gap and repetition");
                self.consumed.push(event);
            }
            if page.end {
                return;
            }
        }
    }

    /// Opens a copy of the disk, on which nothing goes wrong, and looks whether everything is there. What
    /// nobody was told of is there for good if that is `decided`: if the disk holds nothing that was not
    /// synced.
    pub async fn examine(&mut self, disk: &FaultyDisk, setting: &Setting, decided: bool) {
        let disk = FaultyDisk::with_files(disk.files());
        undamaged(&disk, "before it is opened");
        let store =
            open(&disk, setting).unwrap_or_else(|error| panic!("it does not open: {}", error.chain()));
        check(&store, &self.done).await;
        let before = self.consumed.len();
        self.consume(&store).await;
        let log = read_all(&store).await;
        assert_eq!(self.consumed, log, "what was read once is read forever, and the rest follows");
        for refused in &self.refused {
            let id = refused.writes[0].event.id;
            assert!(!log.iter().any(|event| event.id() == id), "an append that was refused is there");
        }
        for (append, outcome) in &self.done {
            for append in [append.clone(), Append { key: None, ..append.clone() }] {
                let again = store.append(append).await.unwrap_or_else(|error| panic!("{}", error.chain()));
                assert!(
                    again.duplicate && again.first == outcome.first,
                    "a retry is answered with the original"
                );
            }
            if let Some(key) = &append.key {
                let known = store.outcome(key).await.unwrap();
                assert!(known.is_some_and(|known| known.first == outcome.first), "the key answers");
            }
        }
        self.checked += self.done.len() as u64;
        if decided {
            for append in std::mem::take(&mut self.unknown) {
                let id = append.writes[0].event.id;
                if let Some(event) = log.iter().find(|event| event.id() == id) {
                    let again = store.append(append.clone()).await.unwrap();
                    assert!(again.duplicate && again.first == event.append());
                    self.done.push((append, again));
                } else {
                    self.refused.push(append);
                }
            }
        } else {
            // The copy may hold more than the disk will after a power failure.
            self.consumed.truncate(before);
        }
        drop(store);
        undamaged(&disk, "after it was opened");
    }

    /// Looks at a disk with a bit flipped: what is read is right, or it is said to be damaged.
    pub async fn examine_flipped(&mut self, disk: &FaultyDisk, setting: &Setting) {
        let store = match open(disk, setting) {
            Ok(store) => store,
            Err(Error::Damaged { .. }) => return,
            Err(other) => panic!("{}", other.chain()),
        };
        let is_damage = |error: &Error| assert!(matches!(error, Error::Damaged { .. }), "{}", error.chain());
        let mut from = Position::FIRST;
        loop {
            match store.read_log(LogRead::forward(from).limit(5)).await {
                Ok(page) => {
                    let at = from.get() as usize - 1;
                    assert_eq!(
                        page.events,
                        self.consumed[at..at + page.events.len()],
                        "other events are read"
                    );
                    from = page.next;
                    if page.end {
                        assert_eq!(from.get() as usize, self.consumed.len() + 1, "events are gone");
                        break;
                    }
                }
                Err(error) => {
                    is_damage(&error);
                    break;
                }
            }
        }
        for (append, outcome) in &self.done {
            let stream = &append.writes[0].stream;
            let theirs: Vec<_> = self.consumed.iter().filter(|event| event.stream() == *stream).collect();
            let read = annals_core::StreamRead::backward(stream, Version::MAX).limit(theirs.len());
            match store.read_stream(read).await {
                Ok(page) => assert!(page.events.iter().rev().eq(theirs), "another stream is read"),
                Err(error) => is_damage(&error),
            }
            match store.append(append.clone()).await {
                Ok(again) => {
                    assert!(again.duplicate && again.first == outcome.first, "it is applied twice")
                }
                Err(error) => is_damage(&error),
            }
        }
        self.checked += self.done.len() as u64;
    }
}

fn same(one: &Append, other: &Append) -> bool {
    one.writes[0].event.id == other.writes[0].event.id
}

async fn read_all(store: &EngineStore) -> Vec<RecordedEvent> {
    crate::common::all(store).await
}

fn undamaged(disk: &FaultyDisk, when: &str) {
    let report = verify_disk(disk, &mut |_, _| {}).unwrap_or_else(|error| panic!("{}", error.chain()));
    assert!(report.damage.is_empty(), "damage {when}: {:?}", report.damage);
}
