//! Random concurrent histories: several tasks append and read at random, everything that was asked and answered
//! is kept, and afterwards there must be one order that explains all of it.
//!
//! The log itself is the order of the appends that were committed. `request` makes the requests from a seed,
//! `model` says what a store at one place of that order answers, and `check` looks for a place, between a
//! call and its return, where the model answers as the store did.

mod check;
mod model;
mod request;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::{
    Append, Appended, Error, EventStore, IdempotencyKey, LogPage, LogRead, RecordedEvent, Result, StreamPage,
    StreamRead,
};

pub(crate) use self::request::Random;
use self::request::Requests;
use crate::Trial;
use crate::given::{Store, log, race, read};

/// Tasks that ask at once.
const TASKS: usize = 4;
/// Requests of each.
const REQUESTS: usize = 60;
/// Histories of one run, each with a seed of its own, when no seed is given.
const HISTORIES: u64 = 6;

/// One request and its answer.
#[derive(Debug)]
enum Asked {
    Append(Append, Result<Appended>),
    Outcome(IdempotencyKey, Option<Appended>),
    Log(LogRead, LogPage),
    Stream(StreamRead, StreamPage),
}

/// One request, its answer, and when it was made and answered on a clock that all tasks share.
#[derive(Debug)]
struct Step {
    asked: Asked,
    call: u64,
    answer: u64,
}

/// G3: whatever many tasks ask at once, there is one order of appends, the log's, in which every answer was
/// right at some moment between its request and its return: versions, refusals, duplicates and reads.
pub async fn random_histories_have_one_order(trial: &mut Trial) {
    for seed in seeds() {
        let place = trial.another().await;
        // The seed must be known whichever way the history fails, so a panic is caught and named.
        let store = place.store().clone();
        let history = tokio::spawn(async move { run(&store, seed).await });
        if let Err(error) = history.await {
            panic!(
                "the history with seed {seed} has no order; ANNALS_SEED={seed} repeats its requests\n{}",
                panic_text(error)
            );
        }
    }
}

/// The seed that `ANNALS_SEED` gives, or some that differ from run to run.
pub(crate) fn seeds() -> Vec<u64> {
    if let Ok(seed) = std::env::var("ANNALS_SEED") {
        return vec![seed.parse().expect("ANNALS_SEED is a whole number")];
    }
    let now = annals_core::Clock::now(&annals_core::SystemClock).as_micros().unsigned_abs();
    (0..HISTORIES).map(|number| now * HISTORIES + number).collect()
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "its task was ended from outside".to_owned() };
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => {
            panic.downcast::<&str>().map_or_else(|_| "it panicked".to_owned(), |text| (*text).to_owned())
        }
    }
}

async fn run(store: &Store, seed: u64) {
    let history = History::of(store, seed).await;
    check::check(&log(store).await, &history.steps, false);
}

/// What was asked of a store at random by several tasks at once, and answered.
///
/// For tests of what the contract cannot bring about: a disk that fails in the middle of it. The clause
/// `random_histories_have_one_order` does the same with a store that is well.
#[derive(Debug)]
pub struct History {
    steps: Vec<Step>,
}

impl History {
    /// Asks this store, by this seed. The store must be new. Reads must succeed; appends may fail.
    pub async fn of(store: &Arc<dyn EventStore>, seed: u64) -> Self {
        Self { steps: ask_all(store, seed).await }
    }

    /// How many requests were answered, and of how many appends nobody was told what became of them.
    pub fn count(&self) -> (usize, usize) {
        let unknown = |step: &&Step| matches!(step.asked, Asked::Append(_, Err(Error::Indeterminate(_))));
        (self.steps.len(), self.steps.iter().filter(unknown).count())
    }

    /// Checks that one order, that of this log, explains every answer. The log is that of the store, or of the same one
    /// opened again. An append whose outcome is `Indeterminate` may be in it or not; one that was refused because the
    /// store could not write is not.
    ///
    /// # Panics
    /// If no order explains them.
    pub fn check(&self, log: &[RecordedEvent]) {
        check::check(log, &self.steps, true);
    }
}

async fn ask_all(store: &Store, seed: u64) -> Vec<Step> {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let clock = Arc::new(AtomicU64::new(0));
    let steps = race(TASKS, |task| {
        let (store, sent, clock) = (store.clone(), Arc::clone(&sent), Arc::clone(&clock));
        async move {
            let mut requests = Requests::new(Random::new(seed, task as u64), sent);
            let mut steps = Vec::with_capacity(REQUESTS);
            for _ in 0..REQUESTS {
                steps.push(ask(&store, &mut requests, &clock).await);
            }
            steps
        }
    })
    .await;
    let mut steps: Vec<Step> = steps.into_iter().flatten().collect();
    steps.sort_by_key(|step| step.call);
    steps
}

async fn ask(store: &Store, requests: &mut Requests, clock: &AtomicU64) -> Step {
    let tick = || clock.fetch_add(1, Ordering::SeqCst);
    match requests.random.below(10) {
        0..7 => {
            let append = requests.append();
            let call = tick();
            let answer = store.append(append.clone()).await;
            let returned = tick();
            requests.learn(&append, &answer);
            Step { asked: Asked::Append(append, answer), call, answer: returned }
        }
        7 => {
            let key = requests.key();
            let call = tick();
            let answer = read(store.outcome(&key).await);
            Step { asked: Asked::Outcome(key, answer), call, answer: tick() }
        }
        8 => {
            let request = requests.log_read();
            let call = tick();
            let page = read(store.read_log(request.clone()).await);
            Step { asked: Asked::Log(request, page), call, answer: tick() }
        }
        _ => {
            let request = requests.stream_read();
            let call = tick();
            let page = read(store.read_stream(request.clone()).await);
            Step { asked: Asked::Stream(request, page), call, answer: tick() }
        }
    }
}

/// Appends that were sent, so that others can send them again.
type Sent = Arc<Mutex<Vec<Append>>>;

/// The appends that were sent so far.
fn lock(sent: &Sent) -> std::sync::MutexGuard<'_, Vec<Append>> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}
