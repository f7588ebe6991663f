//! A trial: tests one clause of the contract on one store.
//!
//! An implementer provides how the store is opened and closed ([`Subject`]); a clause gets a [`Trial`], which
//! has a fresh store open and can close and reopen it. The clauses are in `contract`.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{EventStore, Limits, TestClock, Timestamp};

/// A place for a store under test: a directory, a database, a server.
///
/// Each clause gets its own place. The first [`open`](Self::open) finds an empty place; a later one, after
/// [`close`](Self::close), must find what was written. A store in memory opens an empty store each time, and
/// skips the clauses on reopening with that reason.
pub trait Subject: 'static {
    /// The store.
    type Store: EventStore;

    /// Opens the store at this place.
    ///
    /// Recorded times come from `clock`. A store that cannot use another clock ignores it, and skips the
    /// clauses that need one.
    fn open(&self, clock: Arc<TestClock>) -> impl Future<Output = Self::Store>;

    /// Closes the store, so that it can be opened again. The default drops it.
    fn close(&self, store: Self::Store) -> impl Future<Output = ()> {
        drop(store);
        std::future::ready(())
    }

    /// Opens another handle on the open store, as a second process would.
    ///
    /// A store that allows only one handle skips the clause on two handles, with that reason.
    fn open_beside(&self, clock: Arc<TestClock>) -> impl Future<Output = Self::Store> {
        let _ = clock;
        async { panic!("this store has one handle: leave out the clause `two_handles_share_one_log`") }
    }

    /// The limits with which the store is opened.
    fn limits(&self) -> Limits {
        Limits::default()
    }
}

type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A place with an open store, of any type.
trait Place {
    fn store(&self) -> Arc<dyn EventStore>;
    fn limits(&self) -> Limits;
    fn beside(&self, clock: Arc<TestClock>) -> Local<'_, Arc<dyn EventStore>>;
    fn reopen(self: Box<Self>, clock: Arc<TestClock>) -> Local<'static, Box<dyn Place>>;
}

struct Opened<S: Subject> {
    subject: S,
    store: Arc<S::Store>,
}

impl<S: Subject> Opened<S> {
    async fn open(subject: S, clock: Arc<TestClock>) -> Box<dyn Place> {
        let store = Arc::new(subject.open(clock).await);
        Box::new(Self { subject, store })
    }
}

impl<S: Subject> Place for Opened<S> {
    fn store(&self) -> Arc<dyn EventStore> {
        Arc::clone(&self.store) as Arc<dyn EventStore>
    }

    fn limits(&self) -> Limits {
        self.subject.limits()
    }

    fn beside(&self, clock: Arc<TestClock>) -> Local<'_, Arc<dyn EventStore>> {
        Box::pin(async move { Arc::new(self.subject.open_beside(clock).await) as Arc<dyn EventStore> })
    }

    fn reopen(self: Box<Self>, clock: Arc<TestClock>) -> Local<'static, Box<dyn Place>> {
        let Self { subject, store } = *self;
        Box::pin(async move {
            let store = Arc::into_inner(store).expect("the clause lets go of the store before it is closed");
            subject.close(store).await;
            Self::open(subject, clock).await
        })
    }
}

/// The environment of one clause: a fresh store, its clock, and a way to open more stores.
pub struct Trial {
    clock: Arc<TestClock>,
    place: Option<Box<dyn Place>>,
    store: Option<Arc<dyn EventStore>>,
    fresh: Box<dyn Fn() -> Local<'static, Box<dyn Place>>>,
}

impl Trial {
    /// A fresh store, at a place created by `subject`.
    pub async fn start<S: Subject>(subject: impl AsyncFn() -> S + 'static) -> Self {
        let clock = Arc::new(TestClock::at(Timestamp::from_micros(START_MICROS)));
        let (subject, given) = (Rc::new(subject), Arc::clone(&clock));
        let fresh = Box::new(move || -> Local<'static, Box<dyn Place>> {
            let (subject, clock) = (Rc::clone(&subject), Arc::clone(&given));
            Box::pin(async move { Opened::open(subject().await, clock).await })
        });
        let place = fresh().await;
        let store = Some(place.store());
        Self { clock, place: Some(place), store, fresh }
    }

    /// The store under test.
    pub fn store(&self) -> &Arc<dyn EventStore> {
        self.store.as_ref().expect("a store is open between the methods of a trial")
    }

    /// The clock of the store. It does not advance by itself.
    pub fn clock(&self) -> &TestClock {
        &self.clock
    }

    /// The limits with which the store was opened.
    pub fn limits(&self) -> Limits {
        self.place.as_ref().expect("a place is there between the methods of a trial").limits()
    }

    /// Closes the store and opens it again. There must be no other reference to it.
    pub async fn reopen(&mut self) -> &Arc<dyn EventStore> {
        drop(self.store.take());
        let place = self.place.take().expect("a place is there between the methods of a trial");
        let place = place.reopen(Arc::clone(&self.clock)).await;
        self.store = Some(place.store());
        self.place = Some(place);
        self.store()
    }

    /// Another handle on the store under test.
    pub async fn beside(&self) -> Arc<dyn EventStore> {
        let place = self.place.as_ref().expect("a place is there between the methods of a trial");
        place.beside(Arc::clone(&self.clock)).await
    }

    /// Another trial, with a fresh store at another place and the same clock.
    pub async fn another(&self) -> Another {
        let place = (self.fresh)().await;
        Another { store: place.store(), _place: place }
    }
}

/// A second store beside the one under test.
pub struct Another {
    store: Arc<dyn EventStore>,
    _place: Box<dyn Place>,
}

impl Another {
    /// The store.
    pub fn store(&self) -> &Arc<dyn EventStore> {
        &self.store
    }
}

/// The initial time of the clock of a trial: 2017-04-15T13:00:00Z.
const START_MICROS: i64 = 1_492_261_200_000_000;

/// Ends a clause that hangs. It is not a requirement on speed.
const HANG: Duration = Duration::from_secs(300);

/// Tests one clause on a fresh store, on a runtime of several threads; [`contract!`](crate::contract) calls
/// this.
///
/// # Panics
/// If the store does not keep the clause, or the clause does not end within five minutes.
pub fn hold<S: Subject>(
    clause: &str,
    subject: impl AsyncFn() -> S + 'static,
    run: impl AsyncFnOnce(&mut Trial),
) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("the machine has threads for a runtime");
    runtime.block_on(async {
        let held = tokio::time::timeout(HANG, async {
            let mut trial = Trial::start(subject).await;
            run(&mut trial).await;
        });
        assert!(held.await.is_ok(), "the clause `{clause}` did not come to an end within {HANG:?}");
    });
}
