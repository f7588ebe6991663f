//! Commands: what is written, what comes back, and what happens when others are faster or the store is away.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use annals::{
    Annals, Append, CodecError, Error, EventStore, EventStoreExt, ExecuteError, Expected, LoadError,
    MemoryStore, NewEvent, Recorded, State, StreamId, TestClock, Timestamp, Version,
};

use crate::bank::{Account, AccountEvent, Bank, Refused, bank, open_with};
use crate::faulty::{Fault, FaultyStore};

fn stream(name: &str) -> StreamId {
    StreamId::new(name).unwrap()
}

async fn on(store: Arc<FaultyStore>) -> Annals {
    Annals::with_store(store, State::memory()).await.unwrap()
}

async fn versions(annals: &Annals, name: &str) -> u64 {
    annals.store().stream_version(&stream(name)).await.unwrap().get()
}

#[tokio::test]
async fn a_command_answers_with_state_version_position_and_events() {
    let annals = bank().await;
    open_with(&annals, "other", 1).await;
    open_with(&annals, "a1", 100).await;
    let done = annals.repository::<Account>().execute("a1", Bank::Withdraw(30)).await.unwrap();
    assert_eq!((done.state.balance, done.version.get(), done.position.get()), (70, 3, 5));
    assert_eq!(done.events, [AccountEvent::Withdrawn { amount: 30 }]);
    assert!(!done.duplicate);
    assert_eq!(annals.store().head().await.unwrap(), done.position);
}

#[tokio::test]
async fn what_the_caller_says_is_recorded_with_the_event() {
    let annals = bank().await;
    let time: Timestamp = "2001-02-03T04:05:06Z".parse().unwrap();
    let accounts = annals.repository::<Account>();
    let command = accounts.execute("a1", Bank::Open("kim")).by("user:7").process("p-1").trace("00-ab-cd-01");
    command.meta("ip", "10.0.0.1").occurred_at(time).tag("vip").tag("vip").await.unwrap();
    let recorded = &annals.store().stream_events(&stream("account-a1")).await.unwrap()[0];
    let metadata = &recorded.metadata();
    assert_eq!(metadata.initiator.as_deref(), Some("user:7"));
    assert_eq!(metadata.process.as_deref(), Some("p-1"));
    assert_eq!(metadata.trace.as_deref(), Some("00-ab-cd-01"));
    assert_eq!(metadata.own.get("ip").map(|ip| ip.as_str()), Some("10.0.0.1"));
    assert_eq!(recorded.occurred_at(), Some(time));
    assert_eq!(recorded.tags().collect::<Vec<_>>(), ["vip"]);
    assert_eq!((recorded.event_type(), recorded.data()), ("account.opened", &br#"{"owner":"kim"}"#[..]));
}

#[tokio::test]
async fn a_refusal_and_a_decision_for_nothing_write_nothing() {
    let annals = bank().await;
    open_with(&annals, "a1", 100).await;
    let accounts = annals.repository::<Account>();
    let refused = accounts.execute("a1", Bank::Withdraw(900)).await.unwrap_err();
    assert_eq!(refused.rejection(), Some(&Refused::Insufficient { balance: 100 }));
    accounts.execute("a1", Bank::Block("fraud")).await.unwrap();
    let nothing = accounts.execute("a1", Bank::Block("again")).once("k").await.unwrap();
    assert_eq!((nothing.events.len(), nothing.version.get(), nothing.position.get()), (0, 3, 3));
    assert!(nothing.state.blocked && !nothing.duplicate);
    assert_eq!(versions(&annals, "account-a1").await, 3);
}

#[tokio::test]
async fn create_and_update_say_whether_it_must_exist() {
    let annals = bank().await;
    let accounts = annals.repository::<Account>();
    let missing = accounts.update("a1", Bank::Open("kim")).await.unwrap_err();
    assert!(matches!(missing, ExecuteError::Missing { .. }), "{missing}");
    accounts.create("a1", Bank::Open("kim")).await.unwrap();
    let exists = accounts.create("a1", Bank::Deposit(1)).await.unwrap_err();
    assert!(matches!(exists, ExecuteError::Exists { actual, .. } if actual == Version::FIRST), "{exists}");
    accounts.update("a1", Bank::Deposit(1)).await.unwrap();
    assert!(!accounts.load("a2").await.unwrap().exists());
}

#[tokio::test]
async fn an_expected_version_that_is_stale_or_too_new_is_a_conflict() {
    let annals = bank().await;
    open_with(&annals, "a1", 100).await;
    let accounts = annals.repository::<Account>();
    for wrong in [0, 1, 3] {
        let conflict = accounts.execute("a1", Bank::Deposit(1)).at_version(wrong).await.unwrap_err();
        let ExecuteError::Conflict { expected, actual, .. } = conflict else { panic!("{conflict}") };
        assert_eq!((expected.get(), actual.get()), (wrong, 2));
    }
    assert_eq!(accounts.execute("a1", Bank::Deposit(1)).at_version(2).await.unwrap().version.get(), 3);
}

#[tokio::test]
async fn names_that_are_not_acceptable_are_refused() {
    let annals = bank().await;
    let accounts = annals.repository::<Account>();
    for refused in [
        accounts.execute("x".repeat(2_000), Bank::Open("kim")).await.unwrap_err(),
        accounts.execute("", Bank::Open("kim")).await.unwrap_err(),
        accounts.execute("a1", Bank::Open("kim")).once("").await.unwrap_err(),
        accounts.execute("a1", Bank::Open("kim")).tag("").await.unwrap_err(),
        accounts.execute("a1", Bank::Open("kim")).by("").await.unwrap_err(),
    ] {
        assert!(matches!(refused, ExecuteError::Store(Error::Invalid(_))), "{refused:?}");
    }
    assert_eq!(versions(&annals, "account-a1").await, 0);
}

// Idempotency.

#[tokio::test]
async fn a_withdrawal_that_is_sent_again_is_answered_as_before_although_it_would_be_refused_now() {
    let annals = bank().await;
    open_with(&annals, "a1", 100).await;
    let accounts = annals.repository::<Account>();
    let first = accounts.execute("a1", Bank::Withdraw(70)).once("request-1").await.unwrap();
    accounts.execute("a1", Bank::Deposit(5)).await.unwrap();
    let again = accounts.execute("a1", Bank::Withdraw(70)).once("request-1").await.unwrap();
    assert!(again.duplicate && !first.duplicate);
    assert_eq!((again.version, again.position), (first.version, first.position));
    assert_eq!((again.events, again.state), (first.events, first.state));
    let without_key = accounts.execute("a1", Bank::Withdraw(70)).await.unwrap_err();
    assert_eq!(without_key.rejection(), Some(&Refused::Insufficient { balance: 35 }));
}

#[tokio::test]
async fn a_key_is_remembered_by_the_log_and_not_by_the_process() {
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let before = Annals::with_store(store.clone(), State::memory()).await.unwrap();
    let accounts = before.repository::<Account>();
    accounts.create("a1", Bank::Open("kim")).once("r").await.unwrap();
    before.shutdown().await;
    let after = Annals::with_store(store, State::memory()).await.unwrap();
    let again = after.repository::<Account>().create("a1", Bank::Open("kim")).once("r").await.unwrap();
    assert!(again.duplicate);
    assert_eq!(again.version, Version::FIRST);
}

#[tokio::test]
async fn a_key_belongs_to_its_aggregate() {
    let annals = bank().await;
    let accounts = annals.repository::<Account>();
    for id in ["a", "b", "a/b"] {
        let done = accounts.execute(id, Bank::Open("kim")).once("same").await.unwrap();
        assert!(!done.duplicate, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_requests_with_one_key_one_has_an_effect() {
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let annals = Annals::with_store(store.clone(), State::memory()).await.unwrap();
        if tasks.is_empty() {
            open_with(&annals, "a1", 100).await;
        }
        let accounts = annals.repository::<Account>();
        tasks.push(tokio::spawn(async move { accounts.execute("a1", Bank::Withdraw(60)).once("r").await }));
    }
    let mut effects = 0;
    for task in tasks {
        let done = task.await.unwrap().unwrap();
        assert_eq!((done.version.get(), done.state.balance), (3, 40));
        effects += u32::from(!done.duplicate);
    }
    assert_eq!(effects, 1);
}

#[tokio::test]
async fn a_command_caused_by_an_event_is_executed_once_and_knows_its_cause() {
    let annals = bank().await;
    let accounts = annals.repository::<Account>();
    accounts.execute("a1", Bank::Open("kim")).by("user:7").process("p-1").await.unwrap();
    let opened = annals.store().stream_events(&stream("account-a1")).await.unwrap().remove(0);
    let opened = Recorded::<AccountEvent>::read(&opened).unwrap().remove(0);
    for round in 0..3 {
        let done = accounts.execute("a2", Bank::Open("lee")).caused_by(&opened).await.unwrap();
        assert_eq!((done.duplicate, done.version), (round > 0, Version::FIRST));
    }
    let effect = annals.store().stream_events(&stream("account-a2")).await.unwrap().remove(0);
    assert_eq!(effect.metadata().predecessor.as_deref(), Some(opened.id().to_string().as_str()));
    assert_eq!(effect.metadata().process.as_deref(), Some("p-1"));
    assert_eq!(effect.metadata().initiator.as_deref(), Some("user:7"));
    // Another command for the same aggregate, told apart.
    for round in 0..2 {
        let done = accounts.execute("a2", Bank::Deposit(1)).caused_by(&opened).once("gift").await.unwrap();
        assert_eq!((done.duplicate, done.version.get()), (round > 0, 2));
    }
}

// Others are faster.

#[tokio::test]
async fn a_retry_takes_the_missed_events_from_the_conflict() {
    let store = FaultyStore::new([]);
    let annals = on(store.clone()).await;
    open_with(&annals, "a1", 100).await;
    store.plan(Fault::Overtaken("account.withdrawn", r#"{"amount":80}"#));
    let reads = store.stream_reads.load(Ordering::SeqCst);
    let refused = annals.repository::<Account>().execute("a1", Bank::Withdraw(30)).await.unwrap_err();
    assert_eq!(refused.rejection(), Some(&Refused::Insufficient { balance: 20 }));
    assert_eq!(store.stream_reads.load(Ordering::SeqCst) - reads, 1, "the stream was read once, to load it");
    store.plan(Fault::Overtaken("account.deposited", r#"{"amount":1000}"#));
    let done = annals.repository::<Account>().execute("a1", Bank::Withdraw(20)).await.unwrap();
    assert_eq!((done.version.get(), done.state.balance, done.state.folded), (5, 1_000, 5));
}

#[tokio::test]
async fn after_its_retries_a_command_ends_in_a_conflict() {
    let overtaken = || Fault::Overtaken("account.deposited", r#"{"amount":1}"#);
    let store = FaultyStore::new([]);
    let annals = on(store.clone()).await;
    open_with(&annals, "a1", 100).await;
    for _ in 0..4 {
        store.plan(overtaken());
    }
    let accounts = annals.repository::<Account>().retries(3);
    let conflict = accounts.execute("a1", Bank::Deposit(1)).await.unwrap_err();
    assert!(matches!(conflict, ExecuteError::Conflict { actual, .. } if actual.get() == 6), "{conflict}");
    store.plan(overtaken());
    let before = store.appends.load(Ordering::SeqCst);
    let conflict = accounts.execute("a1", Bank::Deposit(1)).at_version(6).await.unwrap_err();
    assert!(matches!(conflict, ExecuteError::Conflict { .. }), "{conflict}");
    assert_eq!(
        store.appends.load(Ordering::SeqCst) - before,
        1,
        "with a version of its own it is not tried again"
    );
}

// The store is away, or does not answer.

#[tokio::test]
async fn while_the_store_is_away_a_command_is_tried_again() {
    let store = FaultyStore::new([Fault::Unavailable, Fault::Unavailable]);
    let annals = on(store.clone()).await;
    let done = annals.repository::<Account>().create("a1", Bank::Open("kim")).await.unwrap();
    assert_eq!(done.version, Version::FIRST);
    let store = FaultyStore::new([Fault::Unavailable, Fault::Unavailable]);
    let annals = on(store).await;
    let away = annals.repository::<Account>().retries(1).create("a1", Bank::Open("kim")).await.unwrap_err();
    assert!(matches!(away, ExecuteError::Store(Error::Unavailable(_))), "{away:?}");
}

#[tokio::test]
async fn what_cannot_succeed_later_is_not_tried_again() {
    let store = FaultyStore::new([Fault::Unusable]);
    let annals = on(store.clone()).await;
    let accounts = annals.repository::<Account>();
    let refused = accounts.create("a1", Bank::Open("kim")).await.unwrap_err();
    assert!(matches!(refused, ExecuteError::Store(Error::Unusable(_))), "{refused:?}");
    assert_eq!(store.appends.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_append_whose_answer_is_lost_is_written_once_and_is_no_duplicate() {
    for key in [None, Some("request-1")] {
        for fault in [
            Fault::AnswerLost,
            Fault::RequestLost,
            Fault::AnswerLostThenOvertaken("account.deposited", r#"{"amount":5}"#),
        ] {
            let store = FaultyStore::new([]);
            let annals = on(store.clone()).await;
            open_with(&annals, "a1", 100).await;
            store.plan(fault.clone());
            let accounts = annals.repository::<Account>();
            let withdraw = || {
                let command = accounts.execute("a1", Bank::Withdraw(60));
                if let Some(key) = key { command.once(key) } else { command }
            };
            let done = withdraw().await.unwrap();
            assert_eq!((done.version.get(), done.state.balance), (3, 40), "{fault:?}");
            assert!(!done.duplicate, "{fault:?}: it was this request that had the effect");
            if key.is_some() {
                assert!(withdraw().await.unwrap().duplicate);
            }
            let written = annals.store().stream_events(&stream("account-a1")).await.unwrap();
            let withdrawn = written.iter().filter(|event| event.event_type() == "account.withdrawn");
            assert_eq!(withdrawn.count(), 1, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn an_unknown_outcome_stays_unknown_whatever_fails_after_it() {
    for after in [Fault::Poisoned, Fault::Unavailable] {
        let store = FaultyStore::new([Fault::RequestLost, after]);
        let annals = on(store).await;
        let accounts = annals.repository::<Account>().retries(1);
        let unknown = accounts.create("a1", Bank::Open("kim")).await.unwrap_err();
        assert!(matches!(unknown, ExecuteError::Store(Error::Indeterminate(_))), "{unknown:?}");
    }
    let annals = on(FaultyStore::new([Fault::Poisoned])).await;
    let poisoned = annals.repository::<Account>().create("a1", Bank::Open("kim")).await.unwrap_err();
    assert!(matches!(poisoned, ExecuteError::Store(Error::Poisoned(_))), "{poisoned:?}");
}

/// "Nothing was written" would make the caller send it again under another key, or without one.
#[tokio::test]
async fn an_outcome_of_an_unknown_owner_stays_unknown() {
    let store = FaultyStore::new([Fault::AnswerLost]);
    let annals = on(store.clone()).await;
    // A state that is cached is not read again, so what fails is the look at what the key led to.
    let accounts = annals.repository::<Account>().retries(1).cache(10);
    accounts.load("a1").await.unwrap();
    accounts.load("a2").await.unwrap();
    store.stream_reads_to_fail.store(9, Ordering::SeqCst);
    let unknown = accounts.create("a1", Bank::Open("kim")).once("k").await.unwrap_err();
    assert!(matches!(unknown, ExecuteError::Store(Error::Indeterminate(_))), "{unknown:?}");
    store.stream_reads_to_fail.store(1, Ordering::SeqCst);
    store.plan(Fault::AnswerLost);
    let done = accounts.retries(2).create("a2", Bank::Open("kim")).once("k").await.unwrap();
    assert!(!done.duplicate, "it is tried again until it is known");
}

/// A key may come from outside: it must not be one that a reaction to an event will have.
#[tokio::test]
async fn the_key_of_a_caller_meets_none_that_a_cause_makes() {
    let annals = bank().await;
    open_with(&annals, "a1", 10).await;
    let accounts = annals.repository::<Account>();
    let stored = annals.store().stream_events(&stream("account-a1")).await.unwrap().remove(0);
    let event = Recorded::<AccountEvent>::read(&stored).unwrap().remove(0);
    let refused = accounts.execute("a1", Bank::Deposit(1)).once(format!("caused:{}", event.id())).await;
    assert!(matches!(refused, Err(ExecuteError::Store(Error::Invalid(_)))), "{refused:?}");
    let one = accounts.execute("a1", Bank::Deposit(1)).caused_by(&event).once("pays").await.unwrap();
    annals
        .subscribe("pays")
        .on::<AccountEvent, _>(|event, handling| async move {
            if matches!(event.event, AccountEvent::Opened { .. }) {
                handling.execute::<Account, _>("a1", Bank::Deposit(2)).await?;
            }
            Ok(())
        })
        .start()
        .await
        .unwrap();
    annals.settle().await.unwrap();
    assert_eq!((one.state.balance, accounts.load("a1").await.unwrap().state.balance), (11, 13));
}

// The cache.

#[tokio::test]
async fn a_cached_state_is_never_what_a_refusal_is_based_on() {
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let one = Annals::with_store(store.clone(), State::memory()).await.unwrap();
    let other = Annals::with_store(store, State::memory()).await.unwrap();
    open_with(&one, "a1", 10).await;
    let cached = one.repository::<Account>().cache(10);
    cached.execute("a1", Bank::Deposit(1)).await.unwrap();
    other.repository::<Account>().execute("a1", Bank::Deposit(1_000)).await.unwrap();
    let done = cached.execute("a1", Bank::Withdraw(500)).await.unwrap();
    assert_eq!((done.state.balance, done.state.folded), (511, 5));
    other.repository::<Account>().execute("a1", Bank::Block("fraud")).await.unwrap();
    let nothing = cached.execute("a1", Bank::Block("fraud")).await.unwrap();
    assert_eq!((nothing.events.len(), nothing.version.get()), (0, 6));
    assert_eq!(cached.load("a1").await.unwrap().version.get(), 6);
}

#[tokio::test]
async fn while_the_store_is_away_a_cached_state_is_looked_up_again() {
    let store = FaultyStore::new([]);
    let annals = on(store.clone()).await;
    let accounts = annals.repository::<Account>().cache(10);
    accounts.execute("a1", Bank::Open("kim")).await.unwrap();
    store.stream_reads_to_fail.store(2, Ordering::SeqCst);
    let refused = accounts.execute("a1", Bank::Withdraw(1)).await.unwrap_err();
    assert_eq!(refused.rejection(), Some(&Refused::Insufficient { balance: 0 }), "{refused:?}");
}

#[tokio::test]
async fn a_cached_state_spares_the_reads() {
    let store = FaultyStore::new([]);
    let annals = on(store.clone()).await;
    open_with(&annals, "a1", 10).await;
    let cached = annals.repository::<Account>().cache(10);
    cached.execute("a1", Bank::Deposit(1)).await.unwrap();
    let reads = store.stream_reads.load(Ordering::SeqCst);
    for _ in 0..10 {
        cached.execute("a1", Bank::Deposit(1)).await.unwrap();
    }
    assert_eq!(store.stream_reads.load(Ordering::SeqCst), reads);
}

/// A standby that is promoted may lack the newest events, and others have their versions then.
#[tokio::test]
async fn a_cached_state_whose_events_are_lost_is_never_decided_on() {
    let store = FaultyStore::new([]);
    let annals = on(store.clone()).await;
    open_with(&annals, "a1", 1_000).await;
    open_with(&annals, "a2", 1_000).await;
    let cached = annals.repository::<Account>().cache(10);
    let loaded = cached.load("a1").await.unwrap();
    cached.load("a2").await.unwrap();
    // The log as it was after the first event, and others have appended since.
    let promoted = FaultyStore::brought_back(&store.store, 1).await;
    store.lead_to(&promoted.store);
    let deposit = NewEvent::new("account.deposited", r#"{"amount":1}"#).unwrap();
    promoted.store.append(Append::to(stream("account-a1"), Expected::Any, [deposit])).await.unwrap();
    let held = cached.execute("a1", Bank::Deposit(1)).unchanged_since(&loaded).await.unwrap_err();
    assert!(matches!(held, ExecuteError::Conflict { .. }), "{held:?}");
    let done = cached.execute("a1", Bank::Deposit(1)).await.unwrap();
    assert_eq!((done.version.get(), done.state.balance), (3, 2));
    assert_eq!(done.state, annals.repository::<Account>().load("a1").await.unwrap().state);
    let refused = cached.execute("a2", Bank::Withdraw(1)).await.unwrap_err();
    assert_eq!(refused.rejection(), Some(&Refused::NotOpen), "nothing has happened to it in this history");
    let done =
        cached.execute("a1", Bank::Deposit(1)).unchanged_since(&cached.load("a1").await.unwrap()).await;
    assert_eq!(done.unwrap().state.balance, 3);
}

/// Conflicts carry events that follow on the version that was seen, not on the events.
#[tokio::test]
async fn unseen_events_are_not_taken_on_top_of_a_lost_state() {
    let store = FaultyStore::new([]);
    let annals = on(store.clone()).await;
    open_with(&annals, "a1", 1_000).await;
    let cached = annals.repository::<Account>().cache(10);
    cached.load("a1").await.unwrap();
    let promoted = FaultyStore::brought_back(&store.store, 1).await;
    store.lead_to(&promoted.store);
    for amount in ["1", "2", "3"] {
        let deposit = NewEvent::new("account.deposited", format!(r#"{{"amount":{amount}}}"#)).unwrap();
        promoted.store.append(Append::to(stream("account-a1"), Expected::Any, [deposit])).await.unwrap();
    }
    let done = cached.execute("a1", Bank::Deposit(1)).await.unwrap();
    assert_eq!((done.version.get(), done.state.balance), (5, 7));
}

#[tokio::test]
async fn a_history_does_not_go_over_into_another() {
    let store = FaultyStore::new([]);
    let annals = on(store.clone()).await;
    open_with(&annals, "a1", 1_000).await;
    let accounts = annals.repository::<Account>();
    let mut history = accounts.history("a1").unwrap();
    while history.next().await.unwrap().is_some() {}
    accounts.execute("a1", Bank::Deposit(1)).await.unwrap();
    assert_eq!(history.next().await.unwrap().unwrap().after.balance, 1_001);
    let promoted = FaultyStore::brought_back(&store.store, 1).await;
    store.lead_to(&promoted.store);
    for _ in 0..5 {
        let deposit = NewEvent::new("account.deposited", r#"{"amount":1}"#).unwrap();
        promoted.store.append(Append::to(stream("account-a1"), Expected::Any, [deposit])).await.unwrap();
    }
    let lost = history.next().await.unwrap_err();
    assert!(matches!(lost, LoadError::Store(Error::Unavailable(_))), "{lost:?}");
}

// Code of the aggregate that panics.

mod fragile {
    use annals::{Aggregate, Context, Decide, Decision, Event, emit};
    use serde::{Deserialize, Serialize};

    #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
    #[event(prefix = "vase")]
    pub enum VaseEvent {
        Filled { litres: u8 },
    }

    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct Vase(pub u8);

    impl Aggregate for Vase {
        const NAME: &'static str = "vase";
        type Event = VaseEvent;
        fn initial(_: &str) -> Self {
            Self::default()
        }
        fn evolve(&mut self, VaseEvent::Filled { litres }: &VaseEvent) {
            self.0 = self.0.checked_add(*litres).expect("it overflows");
        }
    }

    impl Decide<u8> for Vase {
        type Error = std::convert::Infallible;
        fn decide(&self, litres: &u8, _: &Context) -> Decision<Self, Self::Error> {
            assert!(*litres != 13, "superstition");
            emit(VaseEvent::Filled { litres: *litres })
        }
    }
}

/// What is in the log cannot be taken out of it: an aggregate with such an event could never be loaded again.
#[tokio::test]
async fn an_event_that_cannot_be_folded_is_not_written() {
    let annals = bank().await;
    annals.repository::<fragile::Vase>().execute("v", 100_u8).await.unwrap();
    for vases in [annals.repository::<fragile::Vase>(), annals.repository::<fragile::Vase>().cache(10)] {
        let unwritable = vases.execute("v", 200_u8).await.unwrap_err();
        assert!(
            matches!(&unwritable, ExecuteError::Unwritable { cause: CodecError::Fold { .. }, .. }),
            "{unwritable:?}"
        );
        let panicked = vases.execute("v", 13_u8).await.unwrap_err();
        assert!(panicked.to_string().contains("superstition"), "{panicked}");
        assert_eq!(versions(&annals, "vase-v").await, 1);
        assert_eq!(vases.load("v").await.unwrap().state, fragile::Vase(100));
    }
    let event = NewEvent::new("vase.filled", r#"{"litres":200}"#).unwrap();
    annals.store().append(Append::to(stream("vase-v"), Expected::Any, [event])).await.unwrap();
    let unreadable = annals.repository::<fragile::Vase>().load("v").await.unwrap_err();
    assert!(
        matches!(unreadable, LoadError::Unreadable { version, .. } if version.get() == 2),
        "{unreadable:?}"
    );
}

/// Every name that is allowed can be commanded, with and without a key.
#[tokio::test]
async fn a_key_fits_every_name() {
    let annals = bank().await;
    let id = "/".repeat(1_016);
    open_with(&annals, &id, 1).await;
    let accounts = annals.repository::<Account>();
    let done = accounts.execute(&*id, Bank::Deposit(1)).once("request-1").await;
    assert!(done.is_ok(), "{}", done.unwrap_err());
    assert!(accounts.execute(&*id, Bank::Deposit(1)).once("request-1").await.unwrap().duplicate);
    assert_eq!(accounts.execute(&*id, Bank::Deposit(1)).once("request-2").await.unwrap().state.balance, 3);
}

// What cannot be read.

#[tokio::test]
async fn an_event_that_cannot_be_read_is_an_error_and_never_passed_over() {
    let annals = bank().await;
    open_with(&annals, "a1", 10).await;
    for (event_type, data) in [("account.renamed", "{}"), ("account.deposited", r#"{"sum":5}"#)] {
        let id = format!("unreadable-{event_type}");
        open_with(&annals, &id, 10).await;
        let strange = NewEvent::new(event_type, data).unwrap();
        let of = StreamId::of("account", &id).unwrap();
        annals.store().append(Append::to(of, Expected::Any, [strange])).await.unwrap();
        let accounts = annals.repository::<Account>();
        let unreadable = accounts.load(&id).await.unwrap_err();
        assert!(matches!(unreadable, LoadError::Unreadable { version, .. } if version.get() == 3));
        let unreadable = accounts.execute(&id, Bank::Deposit(1)).await.unwrap_err();
        assert!(matches!(unreadable, ExecuteError::Unreadable { version, .. } if version.get() == 3));
        assert_eq!(accounts.at(&id, 2).await.unwrap().state.balance, 10, "before it all is well");
        let mut history = accounts.history(&id).unwrap();
        assert!(history.next().await.is_ok() && history.next().await.is_ok());
        for _ in 0..2 {
            assert!(history.next().await.is_err(), "nor when it is asked again");
        }
    }
    assert_eq!(annals.repository::<Account>().load("a1").await.unwrap().state.balance, 10);
}

mod measured {
    //! An event that JSON can write and cannot read.
    use annals::{Aggregate, Context, Decide, Decision, Event, emit};
    use serde::{Deserialize, Serialize};

    #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
    #[event(prefix = "probe")]
    pub enum ProbeEvent {
        Measured {
            celsius: f64,
        },
        Guessed {
            celsius: Option<f64>,
            #[serde(skip)]
            by: Option<String>,
        },
    }
    #[derive(Clone, Debug)]
    pub struct Probe(pub Vec<ProbeEvent>);
    pub struct Guess(pub f64);
    impl Aggregate for Probe {
        const NAME: &'static str = "probe";
        type Event = ProbeEvent;
        fn initial(_id: &str) -> Self {
            Self(Vec::new())
        }
        fn evolve(&mut self, event: &ProbeEvent) {
            self.0.push(event.clone());
        }
    }
    impl Decide<Guess> for Probe {
        type Error = std::convert::Infallible;
        fn decide(&self, Guess(celsius): &Guess, _: &Context) -> Decision<Self, Self::Error> {
            emit(ProbeEvent::Guessed { celsius: Some(*celsius), by: Some("kim".into()) })
        }
    }
    impl Decide<f64> for Probe {
        type Error = std::convert::Infallible;
        fn decide(&self, celsius: &f64, _: &Context) -> Decision<Self, Self::Error> {
            emit(ProbeEvent::Measured { celsius: *celsius })
        }
    }
}

#[tokio::test]
async fn what_could_not_be_read_back_is_not_written() {
    let annals = bank().await;
    let probes = annals.repository::<measured::Probe>();
    probes.execute("p", 36.6).await.unwrap();
    let unwritable = probes.execute("p", f64::NAN).await.unwrap_err();
    assert!(
        matches!(unwritable, ExecuteError::Unwritable { cause: CodecError::Decode { .. }, .. }),
        "{unwritable:?}"
    );
    assert_eq!(versions(&annals, "probe-p").await, 1);
}

#[tokio::test]
async fn a_state_is_what_a_replay_makes_of_the_log_also_where_a_codec_loses_something() {
    let annals = bank().await;
    let probes = annals.repository::<measured::Probe>();
    let done = probes.execute("p", measured::Guess(f64::NAN)).await.unwrap();
    assert_eq!(done.state.0, probes.load("p").await.unwrap().state.0);
    assert_eq!(done.events, done.state.0);
}

#[tokio::test]
async fn a_number_is_read_as_the_one_that_was_written_to_the_last_bit() {
    let annals = bank().await;
    let probes = annals.repository::<measured::Probe>();
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..2_000 {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let celsius = f64::from_bits(bits);
        if celsius.is_finite() {
            let done = probes.execute("p", celsius).await.unwrap();
            assert_eq!(done.events, [measured::ProbeEvent::Measured { celsius }]);
        }
    }
}

// Time travel.

#[tokio::test]
async fn an_aggregate_is_found_as_it_was_at_a_version_and_at_a_time() {
    let clock = Arc::new(TestClock::at("2024-01-01T00:00:00Z".parse().unwrap()));
    let store = MemoryStore::with(annals::contract::Limits::default(), clock.clone());
    let annals = Annals::with_store(Arc::new(store), State::memory()).await.unwrap();
    let accounts = annals.repository::<Account>();
    let hour = std::time::Duration::from_secs(3_600);
    accounts.execute("a1", Bank::Open("kim")).await.unwrap();
    for amount in 1..=9 {
        clock.advance(hour);
        accounts.execute("a1", Bank::Deposit(amount)).await.unwrap();
    }
    for version in 0..=10 {
        let at = accounts.at("a1", version).await.unwrap();
        assert_eq!((at.version.get(), at.state.folded), (version, version));
    }
    let ahead = accounts.at("a1", 11).await.unwrap_err();
    assert!(
        matches!(ahead, LoadError::NotReached { wanted, actual, .. } if (wanted.get(), actual.get()) == (11, 10))
    );
    for (time, version) in [
        ("2023-12-31T23:59:59Z", 0),
        ("2024-01-01T00:00:00Z", 1),
        ("2024-01-01T00:59:59Z", 1),
        ("2024-01-01T03:00:00Z", 4),
        ("2030-01-01T00:00:00Z", 10),
    ] {
        let then = accounts.as_of("a1", time.parse().unwrap()).await.unwrap();
        assert_eq!(then.version.get(), version, "{time}");
    }
}

#[tokio::test]
async fn history_shows_each_event_with_the_state_before_and_after() {
    let annals = bank().await;
    open_with(&annals, "a1", 100).await;
    let accounts = annals.repository::<Account>();
    accounts.execute("a1", Bank::Withdraw(30)).by("user:7").await.unwrap();
    let changes = accounts.history("a1").unwrap().all().await.unwrap();
    let seen: Vec<_> =
        changes.iter().map(|c| (c.event.version().get(), c.before.balance, c.after.balance)).collect();
    assert_eq!(seen, [(1, 0, 0), (2, 0, 100), (3, 100, 70)]);
    assert_eq!(changes[2].event.metadata().initiator.as_deref(), Some("user:7"));
    assert!(accounts.history("nobody").unwrap().all().await.unwrap().is_empty());
}

#[tokio::test]
async fn more_events_than_a_page_holds_are_all_folded() {
    let annals = bank().await;
    open_with(&annals, "a1", 0).await;
    let deposits = (0..2_500).map(|_| NewEvent::new("account.deposited", r#"{"amount":2}"#).unwrap());
    annals.store().append(Append::to(stream("account-a1"), Expected::Any, deposits)).await.unwrap();
    let account = annals.repository::<Account>().load("a1").await.unwrap();
    assert_eq!((account.version.get(), account.state.balance), (2_502, 5_000));
    assert_eq!(annals.repository::<Account>().history("a1").unwrap().all().await.unwrap().len(), 2_502);
}
