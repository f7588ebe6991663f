//! Subscribers: durable by name, at least once, in order per stream; and what they command is done once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals::{
    Annals, Append, Backoff, Error, Event, EventId, EventStore, EventStoreExt, Expected, HandlerError, Kind,
    MemoryStore, NewEvent, Phase, Recorded, State, StreamId,
};
use serde::{Deserialize, Serialize};

use crate::bank::{Account, AccountEvent, Bank, bank, bank_on, open_with, until};
use crate::faulty::FaultyStore;

const QUICKLY: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(2));

type Heard = Arc<Mutex<Vec<u64>>>;

/// Starts a subscriber that notes the positions of what it hears.
async fn hear(annals: &Annals, name: &str) -> Heard {
    let heard = Heard::default();
    let hearing = heard.clone();
    let subscriber = annals.subscribe(name).on::<AccountEvent, _>(move |event, _| {
        hearing.lock().unwrap().push(event.position().get());
        async { Ok(()) }
    });
    subscriber.start().await.unwrap();
    heard
}

fn taken(heard: &Heard) -> Vec<u64> {
    std::mem::take(&mut *heard.lock().unwrap())
}

#[tokio::test]
async fn what_is_written_while_a_subscriber_is_down_is_delivered_when_it_starts() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let annals = bank_on(&store, directory.path()).await;
    open_with(&annals, "a1", 1).await;
    let heard = hear(&annals, "hears").await;
    annals.settle().await.unwrap();
    assert_eq!(taken(&heard), [1, 2]);
    annals.shutdown().await;
    open_with(&annals, "a2", 1).await;
    drop(annals);
    let annals = bank_on(&store, directory.path()).await;
    let heard = hear(&annals, "hears").await;
    let another = hear(&annals, "another").await;
    annals.settle().await.unwrap();
    assert_eq!(taken(&heard), [3, 4], "what it had heard is not told again");
    assert_eq!(taken(&another), [1, 2, 3, 4], "another name has another checkpoint");
    open_with(&annals, "a3", 1).await;
    annals.settle().await.unwrap();
    assert_eq!(taken(&heard), [5, 6]);
}

#[tokio::test]
async fn from_now_means_from_its_very_first_start() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let annals = bank_on(&store, directory.path()).await;
    open_with(&annals, "a1", 1).await;
    let start = |annals: &Annals, heard: &Heard| {
        let hearing = heard.clone();
        let subscriber = annals.subscribe("news").from_now().on::<AccountEvent, _>(move |event, _| {
            hearing.lock().unwrap().push(event.position().get());
            async { Ok(()) }
        });
        subscriber.start()
    };
    let heard = Heard::default();
    start(&annals, &heard).await.unwrap();
    annals.settle().await.unwrap();
    annals.shutdown().await;
    open_with(&annals, "a2", 1).await;
    drop(annals);
    let annals = bank_on(&store, directory.path()).await;
    start(&annals, &heard).await.unwrap();
    annals.settle().await.unwrap();
    assert_eq!(taken(&heard), [3, 4]);
}

#[tokio::test]
async fn an_event_that_fails_is_tried_again_until_it_works() {
    let annals = bank().await;
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let trying = attempts.clone();
    let subscriber = annals.subscribe("tries").retry(QUICKLY).on::<AccountEvent, _>(move |event, context| {
        let trying = trying.clone();
        async move {
            trying.lock().unwrap().push((event.position().get(), context.attempt()));
            match (event.position().get(), context.attempt()) {
                (2, 1) => Err(HandlerError::new("once")),
                (2, 2) => panic!("and again"),
                (2, 3) => Err("x".parse::<u64>().unwrap_err())?,
                _ => Ok(()),
            }
        }
    });
    subscriber.start().await.unwrap();
    open_with(&annals, "a1", 1).await;
    open_with(&annals, "a2", 1).await;
    annals.settle().await.unwrap();
    assert_eq!(*attempts.lock().unwrap(), [(1, 1), (2, 1), (2, 2), (2, 3), (2, 4), (3, 1), (4, 1)]);
    let status = &annals.status().await.unwrap()[0];
    assert_eq!((status.phase, status.failing.clone(), status.lag()), (Phase::Live, None, 0));
}

#[tokio::test]
async fn while_an_event_fails_the_status_says_so() {
    let annals = bank().await;
    let subscriber = annals.subscribe("fails").retry(QUICKLY).on::<AccountEvent, _>(|event, _| async move {
        if event.position().get() == 2 { Err(HandlerError::new("the mail server is away")) } else { Ok(()) }
    });
    subscriber.start().await.unwrap();
    open_with(&annals, "a1", 1).await;
    until(&annals, "fails", |status| status.phase == Phase::Retrying).await;
    let unsettled = annals.settle_within(Duration::from_millis(10)).await.unwrap_err().chain();
    assert!(unsettled.contains("`fails` at 1 of 2 (the mail server is away)"), "{unsettled}");
    let status = &annals.status().await.unwrap()[0];
    assert_eq!((status.kind, status.phase, status.position.get()), (Kind::Subscriber, Phase::Retrying, 1));
    annals.shutdown().await;
    assert_eq!(annals.status().await.unwrap()[0].phase, Phase::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn streams_go_side_by_side_and_each_keeps_its_order() {
    let annals = bank().await;
    let accounts = annals.repository::<Account>();
    for id in 0..10 {
        accounts.execute(id.to_string(), Bank::Open("kim")).await.unwrap();
    }
    for _ in 0..20 {
        for id in 0..10 {
            accounts.execute(id.to_string(), Bank::Deposit(1)).await.unwrap();
        }
    }
    let seen: Arc<Mutex<HashMap<StreamId, Vec<u64>>>> = Arc::default();
    let (busy, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (noting, working, peak) = (seen.clone(), busy.clone(), most.clone());
    let subscriber = annals.subscribe("many").concurrency(4).retry(QUICKLY);
    let subscriber = subscriber.on::<AccountEvent, _>(move |event, context| {
        let (noting, working, peak) = (noting.clone(), working.clone(), peak.clone());
        async move {
            let now = working.fetch_add(1, Ordering::SeqCst) + 1;
            peak.fetch_max(now, Ordering::SeqCst);
            for _ in 0..event.version().get() % 7 {
                tokio::task::yield_now().await;
            }
            working.fetch_sub(1, Ordering::SeqCst);
            if event.position().get() % 11 == 0 && context.attempt() == 1 {
                return Err(HandlerError::new("at first"));
            }
            noting.lock().unwrap().entry(event.stream_id()).or_default().push(event.version().get());
            Ok(())
        }
    });
    subscriber.start().await.unwrap();
    annals.settle().await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 10);
    for (stream, versions) in &*seen {
        assert_eq!(*versions, (1..=21).collect::<Vec<_>>(), "{stream}");
    }
    let most = most.load(Ordering::SeqCst);
    assert!((2..=4).contains(&most), "{most} at once");
}

/// Several events are handled in one go, and each is done when its handler has ended.
#[tokio::test]
async fn events_before_one_whose_handler_does_not_end_are_done() {
    let annals = bank().await;
    open_with(&annals, "a1", 1).await;
    open_with(&annals, "a2", 1).await;
    let subscriber = annals.subscribe("waits").on::<AccountEvent, _>(|event, _| async move {
        if event.position().get() == 4 {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    subscriber.start().await.unwrap();
    tokio::time::timeout(
        Duration::from_secs(60),
        until(&annals, "waits", |status| status.position.get() >= 3),
    )
    .await
    .expect("what was handled is done");
    let position = annals.status().await.unwrap()[0].position.get();
    assert_eq!(position, 3, "the last one is still being handled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_stuck_holds_the_checkpoint_but_not_the_other_streams() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let annals = bank_on(&store, directory.path()).await;
    for id in ["a1", "stuck", "a2"] {
        open_with(&annals, id, 1).await;
    }
    let stuck = Arc::new(AtomicBool::new(true));
    let start = |annals: &Annals, heard: &Heard| {
        let (hearing, stuck) = (heard.clone(), stuck.clone());
        let subscriber = annals.subscribe("partly").concurrency(4).retry(QUICKLY);
        let subscriber = subscriber.on::<AccountEvent, _>(move |event, _| {
            let (hearing, stuck) = (hearing.clone(), stuck.load(Ordering::SeqCst));
            async move {
                if stuck && event.aggregate_id() == "stuck" {
                    return Err(HandlerError::new("stuck"));
                }
                hearing.lock().unwrap().push(event.position().get());
                Ok(())
            }
        });
        subscriber.start()
    };
    let heard = Heard::default();
    start(&annals, &heard).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), async {
        while heard.lock().unwrap().len() < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the other streams are told");
    annals.shutdown().await;
    let mut first = taken(&heard);
    first.sort_unstable();
    assert_eq!(first, [1, 2, 5, 6]);
    assert_eq!(annals.status().await.unwrap()[0].position.get(), 2, "below the one that is stuck");
    drop(annals);
    stuck.store(false, Ordering::SeqCst);
    let annals = bank_on(&store, directory.path()).await;
    start(&annals, &heard).await.unwrap();
    annals.settle().await.unwrap();
    let mut second = taken(&heard);
    second.sort_unstable();
    assert_eq!(second, [3, 4, 5, 6], "at least once: nothing above the checkpoint is taken for told");
}

#[tokio::test]
async fn each_handler_gets_its_own_events_even_if_another_one_fails() {
    #[derive(Event, Serialize, Deserialize, Clone)]
    #[event(prefix = "other")]
    enum OtherEvent {
        Happened,
    }
    let annals = bank().await;
    let delivered = Arc::new(Mutex::new(Vec::new()));
    let (one, two, other) = (delivered.clone(), delivered.clone(), delivered.clone());
    let subscriber = annals.subscribe("composite").retry(QUICKLY);
    let subscriber = subscriber.on::<AccountEvent, _>(move |_, context| {
        one.lock().unwrap().push("first");
        async move { if context.attempt() == 1 { Err(HandlerError::new("the first fails")) } else { Ok(()) } }
    });
    let subscriber = subscriber.on::<AccountEvent, _>(move |_, _| {
        two.lock().unwrap().push("second");
        async { Ok(()) }
    });
    let subscriber = subscriber.on::<OtherEvent, _>(move |_, _| {
        other.lock().unwrap().push("other");
        async { Ok(()) }
    });
    subscriber.start().await.unwrap();
    annals.repository::<Account>().execute("a1", Bank::Open("kim")).await.unwrap();
    let happened = NewEvent::new("other.happened", "{}").unwrap();
    let stream = StreamId::new("other-1").unwrap();
    annals.store().append(Append::to(stream, Expected::Any, [happened])).await.unwrap();
    annals.settle().await.unwrap();
    assert_eq!(*delivered.lock().unwrap(), ["first", "second", "first", "second", "other"]);
}

// Commands that follow from events.

#[tokio::test]
async fn a_reaction_knows_its_cause_and_settling_waits_for_reactions_to_reactions() {
    let annals = bank().await;
    // An account that is opened gets ten; one that gets ten is blocked, for the sake of the test.
    let welcome = annals.subscribe("welcome").on::<AccountEvent, _>(async |event, context| {
        if let AccountEvent::Opened { .. } = event.event {
            context.execute::<Account, _>(event.aggregate_id(), Bank::Deposit(10)).await?;
        }
        Ok(())
    });
    welcome.start().await.unwrap();
    let block = annals.subscribe("block").on::<AccountEvent, _>(async |event, context| {
        if let AccountEvent::Deposited { amount: 10 } = event.event {
            context.execute::<Account, _>(event.aggregate_id(), Bank::Block("rich")).await?;
        }
        Ok(())
    });
    block.start().await.unwrap();
    let accounts = annals.repository::<Account>();
    accounts.execute("a1", Bank::Open("kim")).by("user:7").process("p-1").await.unwrap();
    annals.settle().await.unwrap();
    let events = annals.store().stream_events(&StreamId::new("account-a1").unwrap()).await.unwrap();
    let types: Vec<_> = events.iter().map(|event| event.event_type()).collect();
    assert_eq!(types, ["account.opened", "account.deposited", "account.blocked"]);
    for pair in events.windows(2) {
        assert_eq!(pair[1].metadata().predecessor.as_deref(), Some(pair[0].id().to_string().as_str()));
        assert_eq!(pair[1].metadata().process.as_deref(), Some("p-1"));
        assert_eq!(pair[1].metadata().initiator.as_deref(), Some("user:7"));
    }
}

#[tokio::test]
async fn two_subscribers_may_command_one_aggregate_because_of_one_event() {
    let annals = bank().await;
    for name in ["one", "two"] {
        let cached = annals.repository::<Account>().cache(10);
        let subscriber = annals.subscribe(name).on::<AccountEvent, _>(move |event, context| {
            let cached = cached.clone();
            async move {
                if let AccountEvent::Opened { .. } = event.event {
                    context.with(&cached).execute(event.aggregate_id(), Bank::Deposit(10)).await?;
                }
                Ok(())
            }
        });
        subscriber.start().await.unwrap();
    }
    annals.repository::<Account>().execute("a1", Bank::Open("kim")).await.unwrap();
    annals.settle().await.unwrap();
    assert_eq!(annals.repository::<Account>().load("a1").await.unwrap().state.balance, 20);
}

#[tokio::test]
async fn a_second_command_for_one_aggregate_needs_a_key_of_its_own() {
    let annals = bank().await;
    let refused = Arc::new(Mutex::new(None));
    let noting = refused.clone();
    let subscriber = annals.subscribe("twice").on::<AccountEvent, _>(move |event, context| {
        let noting = noting.clone();
        async move {
            if let AccountEvent::Opened { .. } = event.event {
                let id = event.aggregate_id();
                context.execute::<Account, _>(id, Bank::Deposit(1)).await?;
                let again = context.execute::<Account, _>(id, Bank::Deposit(10)).await;
                *noting.lock().unwrap() = Some(again.unwrap_err().to_string());
                context.execute::<Account, _>(id, Bank::Deposit(100)).once("third").await?;
            }
            Ok(())
        }
    });
    subscriber.start().await.unwrap();
    annals.repository::<Account>().execute("a1", Bank::Open("kim")).await.unwrap();
    annals.settle().await.unwrap();
    let refused = refused.lock().unwrap().clone().unwrap();
    assert!(refused.contains(".once(..)"), "{refused}");
    assert_eq!(annals.repository::<Account>().load("a1").await.unwrap().state.balance, 101);
}

/// The process ends after the effect and before the checkpoint: the event comes again, its effect does not.
#[test]
fn a_subscriber_that_dies_before_its_checkpoint_repeats_the_event_but_not_its_command() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let delivered = Arc::new(AtomicU32::new(0));
    for dies in [true, true, false] {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let annals = bank_on(&store, directory.path()).await;
            let (telling, effect) = (delivered.clone(), Arc::new(tokio::sync::Notify::new()));
            let effected = effect.clone();
            let subscriber = annals.subscribe("welcome").on::<AccountEvent, _>(move |event, context| {
                let (telling, effect) = (telling.clone(), effect.clone());
                async move {
                    if let AccountEvent::Opened { .. } = event.event {
                        telling.fetch_add(1, Ordering::SeqCst);
                        context.execute::<Account, _>(event.aggregate_id(), Bank::Deposit(10)).await?;
                        effect.notify_one();
                        if dies {
                            std::future::pending::<()>().await;
                        }
                    }
                    Ok(())
                }
            });
            subscriber.start().await.unwrap();
            if store.head().await.unwrap().get() == 0 {
                annals.repository::<Account>().execute("a1", Bank::Open("kim")).await.unwrap();
            }
            effected.notified().await;
            if !dies {
                annals.settle().await.unwrap();
                let account = annals.repository::<Account>().load("a1").await.unwrap();
                assert_eq!((account.state.balance, account.version.get()), (10, 2));
            }
        });
        runtime.shutdown_background();
    }
    assert_eq!(delivered.load(Ordering::SeqCst), 3);
}

// What ends badly, and what ends.

#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("there are no words")
    }
}

impl std::error::Error for Unspeakable {}

/// U3: an event that fails is tried again, whatever its error is like.
#[tokio::test]
async fn an_error_that_panics_while_it_is_displayed_is_a_failure() {
    let annals = bank().await;
    let tried = Arc::new(AtomicU32::new(0));
    let trying = tried.clone();
    let subscriber = annals.subscribe("tries").retry(QUICKLY).on::<AccountEvent, _>(move |_, _| {
        let first = trying.fetch_add(1, Ordering::SeqCst) == 0;
        async move { if first { Err(Unspeakable)? } else { Ok(()) } }
    });
    subscriber.start().await.unwrap();
    open_with(&annals, "a1", 1).await;
    let settled = tokio::time::timeout(Duration::from_secs(5), annals.settle()).await;
    assert!(settled.is_ok(), "told {} times; {:?}", tried.load(Ordering::SeqCst), annals.status().await);
}

/// A future whose destructor panics after it was done, once.
struct PanicsWhenDropped(Option<Arc<AtomicBool>>);

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        if self.0.take().is_some_and(|once| once.swap(false, Ordering::SeqCst)) {
            panic!("while it is dropped");
        }
    }
}

#[tokio::test]
async fn a_destructor_that_panics_in_a_handler_is_a_failure() {
    let annals = bank().await;
    let once = Arc::new(AtomicBool::new(true));
    let tried = Arc::new(AtomicU32::new(0));
    let trying = tried.clone();
    let subscriber = annals.subscribe("tries").retry(QUICKLY).on::<AccountEvent, _>(move |_, _| {
        trying.fetch_add(1, Ordering::SeqCst);
        let captured = PanicsWhenDropped(Some(once.clone()));
        async move {
            let _captured = captured;
            Ok(())
        }
    });
    subscriber.start().await.unwrap();
    annals.repository::<Account>().execute("a1", Bank::Open("kim")).await.unwrap();
    annals.settle().await.unwrap();
    assert_eq!(tried.load(Ordering::SeqCst), 2);
}

/// A clock that panics when it is asked, as one of a user's may.
struct BrokenClock;

impl annals::Clock for BrokenClock {
    fn now(&self) -> annals::Timestamp {
        panic!("there is no time")
    }
}

#[tokio::test]
async fn a_clock_that_panics_ends_no_subscriber() {
    let annals = bank().await;
    let tried = Arc::new(AtomicU32::new(0));
    let trying = tried.clone();
    let broken = annals.clone().with_clock(Arc::new(BrokenClock));
    let subscriber = broken.subscribe("tries").retry(QUICKLY).on::<AccountEvent, _>(move |_, _| {
        let first = trying.fetch_add(1, Ordering::SeqCst) == 0;
        async move { if first { Err(HandlerError::new("at first")) } else { Ok(()) } }
    });
    subscriber.start().await.unwrap();
    annals.repository::<Account>().execute("a1", Bank::Open("kim")).await.unwrap();
    annals.settle().await.unwrap();
    assert_eq!(tried.load(Ordering::SeqCst), 2);
}

/// A store whose reads of the log panic for a while.
#[tokio::test]
async fn a_subscriber_whose_task_panics_is_started_again_and_says_so() {
    let store = FaultyStore::new([]);
    let annals = Annals::with_store(store.clone(), State::memory()).await.unwrap();
    store.log_reads_to_panic.store(3, Ordering::SeqCst);
    let heard = hear(&annals, "hears").await;
    let status = until(&annals, "hears", |status| status.phase == Phase::Retrying).await;
    assert!(
        status.failing.as_ref().is_some_and(|failing| failing.error.contains("out of its mind")),
        "{status:?}"
    );
    open_with(&annals, "a1", 1).await;
    annals.settle().await.unwrap();
    assert_eq!(taken(&heard), [1, 2]);
    assert_eq!(annals.status().await.unwrap()[0].failing, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_caller_of_a_shutdown_waits_for_it() {
    let annals = bank().await;
    let (begun, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (beginning, ending) = (begun.clone(), ended.clone());
    let subscriber = annals.subscribe("slow").on::<AccountEvent, _>(move |_, _| {
        let (beginning, ending) = (beginning.clone(), ending.clone());
        async move {
            beginning.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(500)).await;
            ending.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    });
    subscriber.start().await.unwrap();
    open_with(&annals, "a1", 1).await;
    while begun.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let other = annals.clone();
    let first = tokio::spawn(async move { other.shutdown().await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    annals.shutdown().await;
    let (begun, ended) = (begun.load(Ordering::SeqCst), ended.load(Ordering::SeqCst));
    first.await.unwrap();
    assert_eq!(begun, ended, "a handler is at work");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_shutdown_is_awaited_by_the_next() {
    let annals = bank().await;
    let (release, ended) = (Arc::new(tokio::sync::Notify::new()), Arc::new(AtomicBool::new(false)));
    let (released, ending) = (release.clone(), ended.clone());
    let (begun, is_begun) = tokio::sync::watch::channel(false);
    let mut is_begun = is_begun;
    let subscriber = annals.subscribe("slow").on::<AccountEvent, _>(move |_, _| {
        begun.send_replace(true);
        let (released, ending) = (released.clone(), ending.clone());
        async move {
            released.notified().await;
            ending.store(true, Ordering::SeqCst);
            Ok(())
        }
    });
    subscriber.start().await.unwrap();
    annals.repository::<Account>().execute("a1", Bank::Open("kim")).await.unwrap();
    is_begun.wait_for(|begun| *begun).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(1), annals.shutdown()).await.is_err());
    assert!(!ended.load(Ordering::SeqCst));
    release.notify_one();
    annals.shutdown().await;
    assert!(ended.load(Ordering::SeqCst), "it returns after the handler");
}

#[tokio::test]
async fn nothing_is_started_after_a_shutdown() {
    let annals = bank().await;
    annals.shutdown().await;
    let subscriber = annals.subscribe("late").on::<AccountEvent, _>(async |_, _| Ok(()));
    let refused = subscriber.start().await.unwrap_err().to_string();
    assert!(refused.contains("shut down"), "{refused}");
    let refused = annals.project(crate::bank::Balances).start().await.unwrap_err().to_string();
    assert!(refused.contains("shut down"), "{refused}");
    assert!(annals.status().await.unwrap().is_empty());
}

// What must not be believed.

#[tokio::test]
async fn a_checkpoint_that_the_log_does_not_know_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let id = store.id();
    let annals = bank_on(&store, directory.path()).await;
    let heard = hear(&annals, "hears").await;
    open_with(&annals, "a1", 1).await;
    open_with(&annals, "a2", 1).await;
    annals.settle().await.unwrap();
    assert_eq!(taken(&heard), [1, 2, 3, 4]);
    annals.shutdown().await;
    // The same log, brought back shorter; then longer, with other events; then another log.
    let shorter = FaultyStore::over(Arc::new(MemoryStore::new()), id, []);
    let longer = FaultyStore::over(Arc::new(MemoryStore::new()), id, []);
    let another = FaultyStore::new([]);
    for (log, accounts) in [(shorter, 1), (longer, 3), (another, 2)] {
        let annals = Annals::with_store(log, State::directory(directory.path())).await.unwrap();
        for id in 0..accounts {
            open_with(&annals, &id.to_string(), 1).await;
        }
        let heard = hear(&annals, "hears").await;
        annals.settle().await.unwrap();
        assert_eq!(taken(&heard), (1..=accounts * 2).collect::<Vec<_>>());
        annals.shutdown().await;
    }
}

/// A backup holds the newest event that was handled, but not what came after it.
#[tokio::test]
async fn events_after_a_restore_are_delivered() {
    for (others, from_now) in [(8, false), (10_001, false), (8, true)] {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new());
        let annals = bank_on(&store, directory.path()).await;
        open_with(&annals, "a1", 5).await;
        let other = || {
            let events = (0..others).map(|_| NewEvent::new("invoice.sent", "{}").unwrap());
            Append::to(StreamId::new("invoice-1").unwrap(), Expected::Any, events)
        };
        store.append(other()).await.unwrap();
        if from_now {
            let subscriber = annals.subscribe("hears").from_now().on::<AccountEvent, _>(async |_, _| Ok(()));
            subscriber.start().await.unwrap();
        } else {
            hear(&annals, "hears").await;
        }
        annals.settle().await.unwrap();
        annals.shutdown().await;
        let restored = FaultyStore::brought_back(&store, 4).await;
        let annals = Annals::with_store(restored.clone(), State::directory(directory.path())).await.unwrap();
        open_with(&annals, "a2", 5).await;
        restored.append(other()).await.unwrap();
        let heard = hear(&annals, "hears").await;
        annals.settle().await.unwrap();
        assert!(taken(&heard).ends_with(&[5, 6]), "{others} {from_now}");
    }
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_read_stops_its_own_subscriber() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let annals = bank_on(&store, directory.path()).await;
    open_with(&annals, "a1", 1).await;
    for name in ["bad", "torn", "good"] {
        hear(&annals, name).await;
    }
    annals.settle().await.unwrap();
    annals.shutdown().await;
    drop(annals);
    let state = rusqlite::Connection::open(directory.path().join("state.sqlite")).unwrap();
    state.execute("UPDATE checkpoints SET position = 'x' WHERE subscriber = 'bad'", ()).unwrap();
    state.execute("UPDATE checkpoints SET ladder = x'00' WHERE subscriber = 'torn'", ()).unwrap();
    let annals = bank_on(&store, directory.path()).await;
    let mut heard = Vec::new();
    for name in ["bad", "torn", "good"] {
        heard.push(hear(&annals, name).await);
    }
    open_with(&annals, "a2", 1).await;
    until(&annals, "good", |status| status.position.get() == 4 && status.failing.is_none()).await;
    assert_eq!(taken(&heard[2]), [3, 4]);
    for name in ["bad", "torn"] {
        let status = until(&annals, name, |status| status.phase == Phase::Retrying).await;
        let error = &status.failing.as_ref().unwrap().error;
        assert!(error.contains(&format!("`{name}`")) && error.contains("`checkpoints`"), "{error}");
    }
    // What the message says helps, also while it runs.
    state.execute("DELETE FROM checkpoints WHERE subscriber = 'bad'", ()).unwrap();
    state.execute("UPDATE checkpoints SET ladder = NULL WHERE subscriber = 'torn'", ()).unwrap();
    annals.settle().await.unwrap();
    assert_eq!(taken(&heard[0]), [1, 2, 3, 4]);
    assert_eq!(taken(&heard[1]), [3, 4]);
}

#[tokio::test]
async fn a_state_file_that_is_no_database_is_named_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let annals = bank_on(&store, directory.path()).await;
    hear(&annals, "mail").await;
    open_with(&annals, "a1", 1).await;
    annals.settle().await.unwrap();
    annals.shutdown().await;
    drop(annals);
    let path = directory.path().join("state.sqlite");
    let open = async || {
        let store: Arc<dyn EventStore> = store.clone();
        Annals::with_store(store, State::directory(directory.path())).await
    };
    // Of a file that is broken in a part, the subscribers can be read.
    let pages = std::fs::read(&path).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'log'";
    let page: u32 = connection.query_row(root, (), |row| row.get(0)).unwrap();
    drop(connection);
    let mut broken = pages.clone();
    let page = page as usize * 4096;
    broken[page - 4096..page].fill(0xff);
    std::fs::write(&path, &broken).unwrap();
    let error = open().await.map(drop).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }) && error.chain().contains("(mail)"), "{}", error.chain());
    std::fs::write(&path, "garbage").unwrap();
    let error = open().await.map(drop).unwrap_err().chain();
    for part in [path.to_str().unwrap(), "subscriber", "remove it", "state.sqlite-wal", "docs/operations.md"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
    std::fs::remove_file(&path).unwrap();
    let annals = open().await.unwrap();
    let heard = hear(&annals, "mail").await;
    annals.settle().await.unwrap();
    assert_eq!(taken(&heard), [1, 2], "as the message says");
}

#[tokio::test]
async fn a_subscriber_needs_a_name_a_handler_and_a_name_that_is_free() {
    let annals = bank().await;
    hear(&annals, "hears").await;
    let nothing = |name| annals.subscribe(name).on::<AccountEvent, _>(async |_, _| Ok(()));
    for refused in [
        annals.subscribe("no-handler").start().await,
        nothing("").start().await,
        nothing("a/b").start().await,
        nothing("hears").start().await,
    ] {
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
}

/// An id belongs to an event within its stream: the same one elsewhere is another event, and another cause.
#[tokio::test]
async fn one_id_in_two_streams_is_two_causes() {
    let annals = bank().await;
    open_with(&annals, "total", 0).await;
    annals
        .subscribe("total")
        .on(|event: Recorded<AccountEvent>, handling| async move {
            if let AccountEvent::Deposited { amount } = event.event
                && event.aggregate_id() != "total"
            {
                handling.execute::<Account, _>("total", Bank::Deposit(amount)).await?;
            }
            Ok(())
        })
        .start()
        .await
        .unwrap();
    let mut append = Append::new();
    for (stream, amount) in [("account-a", 3), ("account-b", 4)] {
        let data = AccountEvent::Deposited { amount }.encode().unwrap();
        let mut event = NewEvent::new("account.deposited", data).unwrap();
        event.id = EventId::from_name(b"transfer 7");
        append = append.and_to(StreamId::new(stream).unwrap(), Expected::Any, [event]);
    }
    annals.store().append(append).await.unwrap();
    annals.settle().await.unwrap();
    let total = annals.repository::<Account>().load("total").await.unwrap();
    assert_eq!(total.state.balance, 7);
}

/// What an event led to before the stream was part of the key.
#[tokio::test]
async fn an_event_that_an_earlier_version_handled_is_not_handled_again() {
    let annals = bank().await;
    open_with(&annals, "total", 0).await;
    let deposit = |amount: u64| {
        let data = AccountEvent::Deposited { amount }.encode().unwrap();
        NewEvent::new("account.deposited", data).unwrap()
    };
    let cause = deposit(3);
    let id = cause.id;
    let stream = |name: &str| StreamId::new(name).unwrap();
    annals.store().append(Append::to(stream("account-a"), Expected::Any, [cause])).await.unwrap();
    let key = annals::IdempotencyKey::new(format!("account-total/caused:{id}/total")).unwrap();
    let led_to = Append::to(stream("account-total"), Expected::Any, [deposit(3)]).once(key);
    annals.store().append(led_to).await.unwrap();
    // The same id in another stream, and after it was handled: another event, which nobody has handled.
    let mut other = deposit(4);
    other.id = id;
    annals.store().append(Append::to(stream("account-b"), Expected::Any, [other])).await.unwrap();
    annals
        .subscribe("total")
        .on(|event: Recorded<AccountEvent>, handling| async move {
            if let AccountEvent::Deposited { amount } = event.event
                && event.aggregate_id() != "total"
            {
                handling.execute::<Account, _>("total", Bank::Deposit(amount)).await?;
            }
            Ok(())
        })
        .start()
        .await
        .unwrap();
    annals.settle().await.unwrap();
    let total = annals.repository::<Account>().load("total").await.unwrap();
    assert_eq!(total.state.balance, 7);
}
