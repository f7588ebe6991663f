//! The life of a store: processes that open it one after the other, write, and end, each in its way.

use std::sync::Arc;

use annals_core::{Append, EventStoreExt, Expected, IdempotencyKey, TestClock};
use annals_engine::disk::faulty::{FaultyDisk, Plan};
use annals_engine::{EngineStore, Options};

use super::{Family, Schedule, Setting, Witness, open};
use crate::common::{Random, event, stream};

/// A store and its disk.
pub struct Life {
    /// What is known of it.
    pub witness: Witness,
    random: Random,
    seed: u64,
    setting: Setting,
    disk: FaultyDisk,
    appends: u64,
}

impl Life {
    /// One that has not begun, with options that depend on the seed.
    pub fn new(family: Family, seed: u64) -> Self {
        let random = Random::new(seed);
        let groups = family == Family::Groups;
        let segments =
            if groups { [3 << 10, 6 << 10, 16 << 10, 16 << 10] } else { [300, 700, 2 << 10, 16 << 10] };
        // Times have the same length whenever it is lived.
        let options = Options { clock: Arc::new(TestClock::default()), ..Options::default() };
        let setting = Setting { options, slow: groups, uniform: groups };
        let mut life =
            Self { witness: Witness::default(), random, seed, setting, disk: FaultyDisk::new(), appends: 0 };
        life.choose_sizes(segments);
        life
    }

    /// From now on segments have one of these sizes, and runs are as long as it happens.
    fn choose_sizes(&mut self, segments: [u64; 4]) {
        self.setting.options.segment_bytes = segments[self.random.below(4) as usize];
        self.setting.options.run_events = [2, 5, 20, 1 << 16][self.random.below(4) as usize];
    }

    /// Somebody removes a derived file: an index, which is made of the segments again, or what says how far
    /// the log is durable.
    fn lose_a_derived_file(&mut self) {
        let mut files = self.disk.files();
        let is_derived = |name: &&String| name.ends_with(".idx") || *name == "durable";
        let names: Vec<_> = files.keys().filter(is_derived).cloned().collect();
        if names.is_empty() {
            return;
        }
        files.remove(&names[self.random.below(names.len() as u64) as usize]);
        self.disk = FaultyDisk::with_files(files);
    }

    /// How many operations and looks a life of one process has in which nothing goes wrong.
    pub async fn unharmed(family: Family, seed: u64) -> (u64, u64) {
        let mut life = Self::new(family, seed);
        life.process(Plan::default()).await;
        (life.disk.operations(), life.disk.looks())
    }

    /// Lives it as the schedule says; what is known in the end.
    pub async fn live(schedule: &Schedule) -> Witness {
        let Schedule { family, seed, at, left } = *schedule;
        let mut life = Self::new(family, seed);
        match family {
            Family::Lives => {
                for _ in 0..8 {
                    let plan = life.any_plan();
                    life.process(plan).await;
                    let power_fails = life.random.below(3) > 0;
                    let survivors = life.random.next();
                    life.end(power_fails.then_some(survivors)).await;
                    if power_fails && life.random.below(4) == 0 {
                        life.lose_a_derived_file();
                    }
                    if life.random.below(3) == 0 {
                        life.choose_sizes([300, 700, 2 << 10, 16 << 10]);
                    }
                }
            }
            Family::Groups => {
                for _ in 0..6 {
                    life.burst().await;
                    let survivors = life.random.next();
                    life.end(Some(survivors)).await;
                }
            }
            Family::Flips => {
                life.process(Plan::default()).await;
                life.flip(left).await;
            }
            Family::Cuts => {
                life.process(Plan::default()).await;
                life.cut(left).await;
            }
            Family::Full => {
                for _ in 0..4 {
                    life.fill(at).await;
                }
                life.end(Some(left)).await;
            }
            _ => {
                life.process(plan(family, at, left)).await;
                if left % 3 == 2 {
                    // Another process opens it before the power fails: what it shows must stay too.
                    life.end(None).await;
                    life.process(Plan {
                        stop_at: Some(life.disk.operations() + 1 + left % 23),
                        ..Plan::default()
                    })
                    .await;
                }
                life.end(Some(left)).await;
                if left % 2 == 0 {
                    let stop_at = Some(life.disk.operations() + 1 + left % 41);
                    life.process(Plan { stop_at, ..Plan::default() }).await;
                    life.end(Some(left % 7)).await;
                }
            }
        }
        life.witness
    }

    /// Opens the store, works with it, and ends, by a kill or in good order.
    async fn process(&mut self, plan: Plan) {
        let sync_micros = if self.setting.slow { 600 } else { 0 };
        self.disk.plan(Plan { sync_micros, ..plan });
        let Ok(store) = open(&self.disk, &self.setting) else {
            assert!(plan != Plan::default(), "nothing went wrong, and it does not open");
            return;
        };
        self.witness.consume(&store).await;
        for _ in 0..3 + self.random.below(6) {
            self.work(&store).await;
        }
        match self.random.below(3) {
            // The process is killed: what it has written stays, in the memory of the system.
            0 => self.disk.plan(Plan { stop_at: Some(0), ..Plan::default() }),
            1 => drop(annals_core::EventStore::head(&store).await),
            _ => drop(store.close().await),
        }
        self.witness.consume(&store).await;
    }

    /// Appends a few at once, and the machine stops in the middle of it.
    async fn burst(&mut self) {
        // Now and then so long that a thread that steps back for all others gets its turn meanwhile.
        let sync_micros = if self.seed.is_multiple_of(8) { 20_000 } else { 2_000 };
        self.disk.plan(Plan { sync_micros, ..Plan::default() });
        let store = open(&self.disk, &self.setting).unwrap_or_else(|error| panic!("{}", error.chain()));
        let at = self.disk.operations() + 1 + self.random.below(18);
        let plan = Plan { sync_micros, ..Plan::default() };
        self.disk.plan(if self.random.below(2) == 0 {
            Plan { stop_at: Some(at), ..plan }
        } else {
            Plan { stop_at_sync: Some((at, ".seg")), ..plan }
        });
        for _ in 0..1 + self.random.below(3) {
            let group = (0..1 + self.random.below(5)).map(|_| self.any_append()).collect();
            self.witness.append(&store, group).await;
            self.witness.consume(&store).await;
        }
        // Whatever is still to be done is not.
        self.disk.plan(Plan { stop_at: Some(0), ..Plan::default() });
    }

    async fn work(&mut self, store: &EngineStore) {
        let mut group = Vec::new();
        for _ in 0..1 + self.random.below(4) {
            group.push(self.any_append());
        }
        if self.random.below(4) == 0 {
            // Somebody tries again.
            let sent: Vec<_> = self.witness.done.iter().map(|(append, _)| append).collect();
            let sent: Vec<_> = sent.into_iter().chain(&self.witness.unknown).cloned().collect();
            if !sent.is_empty() {
                group.push(sent[self.random.below(sent.len() as u64) as usize].clone());
            }
        }
        if self.random.below(4) == 0 {
            group.truncate(1);
            let write = &group[0].writes[0].stream;
            if let Ok(version) = store.stream_version(write).await
                && !self
                    .witness
                    .done
                    .iter()
                    .any(|(append, _)| append.writes[0].event.id == group[0].writes[0].event.id)
            {
                group[0] = group[0].clone().expecting(write.clone(), Expected::Exact(version));
            }
        }
        self.witness.append(store, group).await;
        self.witness.consume(store).await;
    }

    /// An append of any size, at times larger than a segment.
    fn any_append(&mut self) -> Append {
        self.appends += 1;
        let name = format!("{}", self.appends);
        let random = &mut self.random;
        if self.setting.uniform {
            let text = format!("{name:>4} {}", "x".repeat(880));
            let append =
                Append::to(stream(&format!("account-{}", random.below(3))), Expected::Any, [event(&text)]);
            return append.once(IdempotencyKey::new(format!("{name:>4}")).unwrap());
        }
        let count = if random.below(2) == 0 { 1 } else { 1 + random.below(4) as usize };
        let events = (0..count).map(|index| {
            let bytes = match random.below(12) {
                0 => random.below(6_000),
                1..4 => random.below(900),
                _ => 10,
            };
            event(&format!("{name:>4}.{index} {}", "x".repeat(bytes as usize)))
        });
        let events: Vec<_> = events.collect();
        let append = Append::to(stream(&format!("account-{}", random.below(3))), Expected::Any, events);
        if random.below(3) == 0 { append } else { append.once(IdempotencyKey::new(name).unwrap()) }
    }

    fn any_plan(&mut self) -> Plan {
        let families = [Family::Stops, Family::Stops, Family::Failures, Family::Breaks, Family::Looks];
        let family = families[self.random.below(5) as usize];
        let begins = if family == Family::Looks { self.disk.looks() } else { self.disk.operations() };
        let at = begins + 1 + self.random.below(if family == Family::Looks { 200 } else { 60 });
        plan(family, at, self.random.next() >> 1)
    }

    /// The process is gone, and the power fails, if it does; then everything is looked for.
    async fn end(&mut self, power_fails: Option<u64>) {
        if let Some(survivors) = power_fails {
            self.disk = self.disk.restart(survivors);
            self.witness.crashes += 1;
        }
        self.disk.plan(Plan::default());
        self.witness.examine(&self.disk, &self.setting, power_fails.is_some()).await;
    }

    /// Flips a bit of what a process has left in good order.
    async fn flip(&mut self, which: u64) {
        self.disk.plan(Plan::default());
        self.witness.examine(&self.disk, &self.setting, true).await;
        {
            let store = open(&self.disk, &self.setting).unwrap();
            self.witness.consume(&store).await;
            store.close().await.unwrap();
        }
        let mut files = self.disk.files();
        if !which.is_multiple_of(8) {
            // The frames alone must tell where the log ended.
            files.remove("durable");
            self.disk = FaultyDisk::with_files(files.clone());
        }
        // What is only zeros up to its end has nothing to lose there.
        files.values_mut().for_each(|bytes| {
            let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
            bytes.truncate(used);
        });
        let mut random = Random::new(which);
        let (name, bytes) = files.iter().nth(random.below(files.len() as u64) as usize).unwrap();
        if !bytes.is_empty() {
            self.disk.flip(name, random.below(bytes.len() as u64) as usize, random.below(8) as u32);
        }
        self.witness.examine_flipped(&self.disk, &self.setting).await;
    }

    /// Cuts the last segment of what a process has left in good order.
    async fn cut(&mut self, which: u64) {
        self.disk.plan(Plan::default());
        self.witness.examine(&self.disk, &self.setting, true).await;
        {
            let store = open(&self.disk, &self.setting).unwrap();
            self.witness.consume(&store).await;
            store.close().await.unwrap();
        }
        let mut files = self.disk.files();
        let (_, bytes) = files.iter_mut().rfind(|(name, _)| name.ends_with(".seg")).unwrap();
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
        let end = Random::new(which).below(used as u64 + 1) as usize;
        bytes.truncate(end);
        // A copy that broke off, or space that was allocated and not written.
        bytes.resize(if which.is_multiple_of(2) { end } else { used }, 0);
        self.disk = FaultyDisk::with_files(files);
        self.witness.examine_flipped(&self.disk, &self.setting).await;
    }

    /// Works on a disk that is nearly full, and then has room again.
    async fn fill(&mut self, room: u64) {
        let store = open(&self.disk, &self.setting)
            .unwrap_or_else(|error| panic!("a full disk does not open: {}", error.chain()));
        for round in 0..6 {
            let used: usize = self.disk.files().values().map(Vec::len).sum();
            let capacity = (round % 3 > 0).then_some(used as u64 + room * round % 997);
            self.disk.plan(Plan { capacity, ..Plan::default() });
            self.work(&store).await;
        }
    }
}

/// What goes wrong at this operation or look.
fn plan(family: Family, at: u64, seed: u64) -> Plan {
    let none = Plan { seed, ..Plan::default() };
    match family {
        Family::Stops => Plan { stop_at: Some(at), ..none },
        Family::Failures => Plan { fail_at: Some(at), ..none },
        Family::Breaks => Plan { fail_at: Some(at), for_good: true, ..none },
        Family::Looks if seed.is_multiple_of(2) => Plan { look_fails_at: Some(at), ..none },
        Family::Looks => Plan { look_flips_at: Some(at), ..none },
        Family::Flips | Family::Cuts | Family::Full | Family::Groups | Family::Lives => none,
    }
}
