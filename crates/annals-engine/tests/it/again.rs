//! The machine stops again and again: a process is killed, or gives up after a failed sync, and the power
//! fails after another has opened the store; recovery itself is interrupted; and it all happens on one disk
//! for many rounds.

use annals_core::{Append, Appended, Error, EventStore, Expected, IdempotencyKey};
use annals_engine::disk::faulty::{FaultyDisk, Plan};
use annals_engine::{EngineStore, Options, verify_disk};

use crate::common::{Random, all, append, check, event, join, open, small_segments, stream};

/// Appends until the plan puts an end to it; which appends nobody knows of.
async fn run(disk: &FaultyDisk) -> Vec<Append> {
    let mut unknown = Vec::new();
    let Ok(store) = open(disk, small_segments()) else { return unknown };
    for number in 0..16 {
        let append = append("account-1", number, 2);
        if let Err(Error::Indeterminate(_)) = store.append(append.clone()).await {
            unknown.push(append);
        }
    }
    unknown
}

/// Opens the store on a disk whose machine is still up; everything that it shows and acknowledges must be
/// there when the power fails after that, between two appends and in the middle of one.
async fn open_and_cut_the_power(disk: &FaultyDisk, unknown: &[Append], plan: Plan) {
    let store = open(disk, small_segments()).unwrap();
    let shown = all(&store).await;
    let look = async |acknowledged: &[(Append, Appended)]| {
        for seed in 0..8 {
            let store = open(&disk.restart(seed), small_segments())
                .unwrap_or_else(|error| panic!("{plan:?}, seed {seed}: {}", error.chain()));
            let log = all(&store).await;
            assert!(log.starts_with(&shown), "{plan:?}, seed {seed}: events that were read are gone");
            check(&store, acknowledged).await;
        }
    };
    look(&[]).await;
    let mut acknowledged = Vec::new();
    for append in unknown {
        acknowledged.push((append.clone(), store.append(append.clone()).await.unwrap()));
    }
    look(&acknowledged).await;
    disk.plan(Plan { stop_at: Some(disk.operations() + 2), ..Plan::default() });
    let _ = store.append(append("account-2", 0, 3)).await;
    look(&acknowledged).await;
}

/// G1, G4, G9: a process is killed at any operation, another opens the store and answers from it, and then
/// the power fails: what the second one has shown or acknowledged is still there, and the store opens.
#[tokio::test]
async fn what_is_read_after_a_kill_survives_a_power_cut() {
    let disk = FaultyDisk::new();
    run(&disk).await;
    for operation in 1..=disk.operations() {
        for fails in [false, true] {
            let at = Some(operation);
            let plan = if fails {
                Plan { fail_at: at, ..Plan::default() }
            } else {
                Plan { stop_at: at, ..Plan::default() }
            };
            let disk = FaultyDisk::new();
            disk.plan(plan);
            let unknown = run(&disk).await;
            // What was written is in the system's cache, synced or not.
            disk.plan(Plan::default());
            open_and_cut_the_power(&disk, &unknown, plan).await;
        }
    }
}

/// An append of any size, often larger than what is left of a segment, at times larger than a segment.
fn any_append(random: &mut Random, name: &str) -> Append {
    let count = 1 + random.below(5) as usize;
    let events = (0..count).map(|index| {
        let bytes = match random.below(10) {
            0 => random.below(12_000),
            1..4 => random.below(2_000),
            _ => random.below(60),
        };
        event(&format!("{name}.{index} {}", "x".repeat(bytes as usize)))
    });
    let events: Vec<_> = events.collect();
    Append::to(stream(&format!("account-{}", random.below(4))), Expected::Any, events)
        .once(IdempotencyKey::new(name).unwrap())
}

/// What is known of a store that has been through a lot.
struct Life {
    random: Random,
    seed: u64,
    options: Options,
    done: Vec<(Append, Appended)>,
    unknown: Vec<Append>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let segment_bytes = [300, 1 << 10, 4 << 10, 64 << 10][random.below(4) as usize];
        let options = Options { segment_bytes, ..Options::default() };
        Self { random, seed, options, done: Vec::new(), unknown: Vec::new() }
    }

    /// Opens the store, appends to it and stops, somewhere in between or at the end.
    async fn round(&mut self, disk: &FaultyDisk, round: usize) {
        let stop_at = disk.operations() + 1 + self.random.below(60);
        disk.plan(Plan { stop_at: Some(stop_at), ..Plan::default() });
        let Ok(store) = open(disk, self.options.clone()) else { return };
        for number in 0..self.random.below(14) {
            let group = (0..1 + self.random.below(4))
                .map(|index| any_append(&mut self.random, &format!("{round}/{number}/{index}")))
                .collect();
            self.append_at_once(&store, group).await;
        }
        if self.random.below(3) == 0 {
            let _ = store.close().await;
        }
    }

    async fn append_at_once(&mut self, store: &EngineStore, group: Vec<Append>) {
        let answers = group.iter().map(|append| store.append(append.clone()));
        for (append, answer) in group.iter().zip(join(answers).await) {
            match answer {
                Ok(outcome) => self.done.push((append.clone(), outcome)),
                Err(Error::Indeterminate(_)) => self.unknown.push(append.clone()),
                Err(Error::Unavailable(_) | Error::Poisoned(_)) => {}
                Err(other) => panic!("seed {}: {}", self.seed, other.chain()),
            }
        }
    }

    /// Opens a copy of the disk and looks whether everything is there. What nobody was told of is there for
    /// good if that is `decided`: if the disk holds nothing that was not synced.
    async fn examine(&mut self, disk: &FaultyDisk, round: usize, decided: bool) {
        let disk = FaultyDisk::with_files(disk.files());
        let at = format!("seed {}, round {round}", self.seed);
        let report = verify_disk(&disk, &mut |_, _| {}).unwrap();
        assert_eq!(report.damage, [], "{at}");
        let store =
            open(&disk, self.options.clone()).unwrap_or_else(|error| panic!("{at}: {}", error.chain()));
        check(&store, &self.done).await;
        for (append, outcome) in &self.done {
            let again = store.append(append.clone()).await.unwrap();
            assert!(again.duplicate && again.first == outcome.first, "{at}");
        }
        if decided {
            for append in std::mem::take(&mut self.unknown) {
                if let Some(outcome) = store.outcome(append.key.as_ref().unwrap()).await.unwrap() {
                    self.done.push((append, outcome));
                }
            }
        }
        drop(store);
        let report = verify_disk(&disk, &mut |_, _| {}).unwrap();
        assert_eq!(report.damage, [], "{at}, opened again");
    }
}

/// G1, G2, G5, G9: many lives of ten rounds each: stops at any operation, of recovery too; after each the
/// process was killed or the power failed; and everything that was ever acknowledged or found there stays.
/// More seeds are tried with `ANNALS_CRASH_SEED`, the first, and `ANNALS_CRASH_SEEDS`, how many.
#[tokio::test]
async fn a_store_survives_stop_upon_stop() {
    let number = |name, otherwise| std::env::var(name).map_or(otherwise, |number| number.parse().unwrap());
    let first = number("ANNALS_CRASH_SEED", 0);
    for seed in first..first + number("ANNALS_CRASH_SEEDS", 40) {
        eprintln!("seed {seed}");
        let mut life = Life::new(seed);
        let mut disk = FaultyDisk::new();
        for round in 0..10 {
            life.round(&disk, round).await;
            let power_fails = life.random.below(3) > 0;
            if power_fails {
                disk = disk.restart(life.random.next());
            }
            disk.plan(Plan::default());
            life.examine(&disk, round, power_fails).await;
        }
    }
}
