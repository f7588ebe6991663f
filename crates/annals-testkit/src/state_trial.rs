//! A trial of state: tests one clause of its contract on one implementation.
//!
//! An implementer provides how it is opened ([`StateSubject`]); a clause gets a [`StateTrial`]. Dropping all
//! handles is a crash: there is no other way to close state.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Clock as _, Result, StoreId, TestClock, Timestamp};
use annals_state::StateStore;

/// A place for state under test: a file, a database. Each clause gets its own place.
pub trait StateSubject: 'static {
    /// Opens the state at this place, for this log. The first time it is empty; later it must have what was
    /// written.
    ///
    /// Leases end by `clock`, unless the place has a clock of its own.
    fn open(&self, log: StoreId, clock: Arc<TestClock>) -> impl Future<Output = Result<Arc<dyn StateStore>>>;

    /// Moves the clock by which leases end by this many microseconds, which may be negative. If it is the
    /// clock of a server, which cannot be moved, the stored times are moved in the opposite direction.
    fn move_clock(&self, clock: &TestClock, micros: i64) -> impl Future<Output = ()> {
        let now = clock.now().as_micros();
        clock.set(Timestamp::from_micros(now + micros));
        std::future::ready(())
    }
}

type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A subject of any type.
trait Place {
    fn open(&self, log: StoreId, clock: Arc<TestClock>) -> Local<'_, Result<Arc<dyn StateStore>>>;
    fn move_clock<'a>(&'a self, clock: &'a TestClock, micros: i64) -> Local<'a, ()>;
}

impl<S: StateSubject> Place for S {
    fn open(&self, log: StoreId, clock: Arc<TestClock>) -> Local<'_, Result<Arc<dyn StateStore>>> {
        Box::pin(StateSubject::open(self, log, clock))
    }

    fn move_clock<'a>(&'a self, clock: &'a TestClock, micros: i64) -> Local<'a, ()> {
        Box::pin(StateSubject::move_clock(self, clock, micros))
    }
}

/// The environment of one clause: the empty state of a log, and a way to open more handles.
pub struct StateTrial {
    clock: Arc<TestClock>,
    log: StoreId,
    place: Box<dyn Place>,
    state: Option<Arc<dyn StateStore>>,
}

impl StateTrial {
    /// Empty state, at this place.
    pub async fn start(subject: impl StateSubject) -> Self {
        let clock = Arc::new(TestClock::at(Timestamp::from_micros(START_MICROS)));
        let (log, place) = (StoreId::generate(), Box::new(subject));
        let mut trial = Self { clock, log, place, state: None };
        trial.reopen().await;
        trial
    }

    /// The state under test.
    pub fn state(&self) -> &Arc<dyn StateStore> {
        self.state.as_ref().expect("state is open between the methods of a trial")
    }

    /// The log to which the state belongs.
    pub fn log(&self) -> StoreId {
        self.log
    }

    /// Drops the state and opens it again, as after a crash.
    pub async fn reopen(&mut self) -> &Arc<dyn StateStore> {
        drop(self.state.take());
        self.state = Some(self.open_for(self.log).await.expect("the state opens for its log"));
        self.state()
    }

    /// Another handle, as in another process.
    pub async fn beside(&self) -> Arc<dyn StateStore> {
        self.open_for(self.log).await.expect("the state opens a second time")
    }

    /// Opens the state at the place for a log.
    ///
    /// # Errors
    /// Those of the state.
    pub async fn open_for(&self, log: StoreId) -> Result<Arc<dyn StateStore>> {
        self.place.open(log, self.clock.clone()).await
    }

    /// Lets this much time pass.
    pub async fn pass(&self, time: Duration) {
        self.place.move_clock(&self.clock, micros(time)).await;
    }

    /// Sets the clock back by this much.
    pub async fn set_back(&self, time: Duration) {
        self.place.move_clock(&self.clock, -micros(time)).await;
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).expect("clauses move the clock by days at most")
}

/// The initial time of the clock of a trial: 2017-04-15T13:00:00Z.
const START_MICROS: i64 = 1_492_261_200_000_000;

/// Ends a clause that hangs.
const HANG: Duration = Duration::from_secs(300);

/// Tests one clause on empty state, on a runtime of several threads;
/// [`state_contract!`](crate::state_contract) calls this.
///
/// # Panics
/// If the state does not keep the clause, or the clause does not end within five minutes.
pub fn hold_state<S: StateSubject>(
    clause: &str,
    subject: impl AsyncFnOnce() -> S,
    run: impl AsyncFnOnce(&mut StateTrial),
) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("the machine has threads for a runtime");
    runtime.block_on(async {
        let held = tokio::time::timeout(HANG, async {
            let mut trial = StateTrial::start(subject().await).await;
            run(&mut trial).await;
        });
        assert!(held.await.is_ok(), "the clause `{clause}` did not come to an end within {HANG:?}");
    });
}
