//! Commands with keys, given by several processes on a store with faults: each key has one outcome, and all
//! callers get it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use annals::{Annals, EventStoreExt as _, ExecuteError, Query, Repository, State};

use crate::bank::{Account, Bank, open_with};
use crate::faulty::{Fault, FaultyStore};

/// What each key withdraws.
const AMOUNTS: [u64; 6] = [5, 30, 10, 60, 15, 25];
const COMMANDS: u64 = 16;

/// The version after the withdrawal, or the text of the refusal.
type Outcome = Result<u64, String>;

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What the command with this key leads to; `None` if it fails.
async fn withdraw(accounts: &Repository<Account>, key: usize) -> Option<Outcome> {
    match accounts.execute("a1", Bank::Withdraw(AMOUNTS[key])).once(format!("k{key}")).await {
        Ok(done) => {
            assert_eq!(done.events.len(), 1, "a withdrawal is never answered with nothing");
            Some(Ok(done.version.get()))
        }
        Err(error) if error.is_refusal() => Some(Err(error.to_string())),
        Err(ExecuteError::Store(_) | ExecuteError::Conflict { .. }) => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// Gives commands at random while faults are planned. Returns what each key led to.
async fn process(store: Arc<FaultyStore>, accounts: Repository<Account>, seed: u64) -> Vec<(usize, Outcome)> {
    let mut dice = Dice(seed);
    let mut outcomes = Vec::new();
    for _ in 0..COMMANDS {
        match dice.below(8) {
            0 => store.plan(Fault::AnswerLost),
            1 => store.plan(Fault::RequestLost),
            2 => store.plan(Fault::Unavailable),
            3 => store.stream_reads_to_fail.store(1, Ordering::SeqCst),
            _ => {}
        }
        if dice.below(4) == 0 {
            // One that fails may have had its effect.
            accounts.execute("a1", Bank::Deposit(9)).await.ok();
            continue;
        }
        let key = dice.below(AMOUNTS.len() as u64) as usize;
        outcomes.extend(withdraw(&accounts, key).await.map(|outcome| (key, outcome)));
    }
    outcomes
}

async fn all_get_one_outcome(seed: u64) {
    let store = FaultyStore::new([]);
    let mut processes = Vec::new();
    for index in 0..4 {
        let annals = Annals::with_store(store.clone(), State::memory()).await.unwrap();
        if index == 0 {
            open_with(&annals, "a1", 20).await;
        }
        let accounts = annals.repository::<Account>().retries([0, 1, 8, 8][index]);
        let accounts = if index % 2 == 0 { accounts } else { accounts.cache(10) };
        processes.push(tokio::spawn(process(store.clone(), accounts, seed * 4 + index as u64 + 1)));
    }
    let mut outcomes: BTreeMap<usize, BTreeSet<Outcome>> = BTreeMap::new();
    for process in processes {
        for (key, outcome) in process.await.unwrap() {
            outcomes.entry(key).or_default().insert(outcome);
        }
    }
    // What is planned still is over.
    let annals = Annals::with_store(store.store.clone(), State::memory()).await.unwrap();
    let accounts = annals.repository::<Account>();
    accounts.execute("a1", Bank::Deposit(1_000)).await.unwrap();
    let log = annals.store().log_events(Query::all()).await.unwrap();
    let withdrawn = log.iter().filter(|event| event.event_type() == "account.withdrawn").count();
    let mut done = 0;
    for key in 0..AMOUNTS.len() {
        let under = format!("account-a1/k{key}");
        let of_key = |event: &&annals::RecordedEvent| {
            event.idempotency_key().as_ref().is_some_and(|key| key.as_str() == under)
        };
        let facts: Vec<_> = log.iter().filter(of_key).collect();
        assert!(facts.len() <= 1, "seed {seed}: key {key} has one fact at most");
        let has_effect = facts.iter().any(|fact| fact.stream() == "account-a1");
        done += usize::from(has_effect);
        // All others who gave the command got no outcome.
        let Some(all) = outcomes.get(&key) else { continue };
        let outcome = all.first().unwrap();
        assert!(all.len() == 1 && facts.len() == 1, "seed {seed}: key {key} led to {all:?}");
        assert_eq!(has_effect, outcome.is_ok(), "seed {seed}: key {key} led to {outcome:?}");
        assert_eq!(withdraw(&accounts, key).await.as_ref(), Some(outcome), "seed {seed}: key {key}, later");
    }
    assert_eq!(withdrawn, done, "seed {seed}: nothing was withdrawn twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_key_has_one_outcome_whatever_goes_wrong() {
    for seed in 1..=12 {
        all_get_one_outcome(seed).await;
    }
}
