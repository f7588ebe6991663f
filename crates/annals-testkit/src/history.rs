//! Random concurrent histories: several tasks append and read at random, every request and its response is
//! recorded, and afterwards there must be one order that explains all of them.
//!
//! The log itself is the order of the committed appends. `request` generates the requests from a seed,
//! `model` computes the response of a store at one point of that order, and `check` looks for a point,
//! between a call and its return, at which the model's response is that of the store.

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

/// Concurrent tasks.
const TASKS: usize = 4;
/// Requests of each task.
const REQUESTS: usize = 60;
/// Histories of one run, each with a seed of its own, when no seed is given.
const HISTORIES: u64 = 6;

/// A request and its response.
#[derive(Debug)]
enum Asked {
    Append(Append, Result<Appended>),
    Outcome(IdempotencyKey, Option<Appended>),
    Log(LogRead, LogPage),
    Stream(StreamRead, StreamPage),
}

/// A request, its response, and the times of both on a clock that all tasks share.
#[derive(Debug)]
struct Step {
    asked: Asked,
    call: u64,
    answer: u64,
}

/// G3: for the requests of concurrent tasks there is one order of appends, that of the log, in which every
/// response was correct at some moment between its request and its return: versions, refusals, duplicates and
/// reads.
pub async fn random_histories_have_one_order(trial: &mut Trial) {
    for seed in seeds() {
        let place = trial.another().await;
        // The seed must be printed however the history fails, so a panic is caught and extended by it.
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

/// The seed in `ANNALS_SEED`, or seeds that differ from run to run.
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

/// The random requests of several concurrent tasks to a store, and its responses.
///
/// For tests of faults that are outside the contract, such as a failing disk. The clause
/// `random_histories_have_one_order` does the same with a store without faults.
#[derive(Debug)]
pub struct History {
    steps: Vec<Step>,
}

impl History {
    /// Sends the requests of this seed to this store. The store must be new. Reads must succeed; appends may
    /// fail.
    pub async fn of(store: &Arc<dyn EventStore>, seed: u64) -> Self {
        Self { steps: ask_all(store, seed).await }
    }

    /// The number of requests, and of appends whose outcome is unknown.
    pub fn count(&self) -> (usize, usize) {
        let unknown = |step: &&Step| matches!(step.asked, Asked::Append(_, Err(Error::Indeterminate(_))));
        (self.steps.len(), self.steps.iter().filter(unknown).count())
    }

    /// Checks that one order, that of this log, explains every response. The log is that of the store, or of
    /// the same store opened again. It may contain an append whose outcome is `Indeterminate`; it does not
    /// contain one that was refused because the store could not write.
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

/// The appends that were sent, so that other tasks can repeat them.
type Sent = Arc<Mutex<Vec<Append>>>;

/// The appends that were sent so far.
fn lock(sent: &Sent) -> std::sync::MutexGuard<'_, Vec<Append>> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}
