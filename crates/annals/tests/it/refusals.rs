//! A refusal in a subscriber is an answer: the event is done, and what was answered stands.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals::{
    Annals, Answer, Backoff, EventStore, EventStoreExt, ExecuteError, HandlerError, MemoryStore, Phase,
    Recorded, Refused as IsRefused, Status, StreamId,
};

use crate::bank::{Account, AccountEvent, Bank, Refused, bank, bank_on, open_with, until};
use crate::faulty::{Fault, FaultyStore};

const QUICKLY: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(2));

/// Waits for all reactions, up to a time limit.
async fn settle(annals: &Annals) {
    let settled = annals.settle_within(Duration::from_secs(60)).await;
    assert!(settled.is_ok(), "{settled:?}: {:?}", annals.status().await);
}

async fn status(annals: &Annals, name: &str) -> Status {
    annals.status().await.unwrap().into_iter().find(|status| status.name == name).unwrap()
}

async fn balance(annals: &Annals, id: &str) -> u64 {
    annals.repository::<Account>().load(id).await.unwrap().state.balance
}

/// Takes a fee of 50 from `fees-of` for every deposit, and notes how often each event was delivered.
async fn charge(annals: &Annals) -> Arc<Mutex<Vec<u64>>> {
    let delivered = Arc::new(Mutex::new(Vec::new()));
    let noting = delivered.clone();
    let subscriber =
        annals.subscribe("charges").retry(QUICKLY).on(move |event: Recorded<AccountEvent>, delivery| {
            let noting = noting.clone();
            async move {
                if let AccountEvent::Deposited { .. } = event.event
                    && event.aggregate_id() == "a1"
                {
                    noting.lock().unwrap().push(event.position().get());
                    delivery.repository::<Account>().execute("fees", Bank::Withdraw(50)).await?;
                }
                Ok(())
            }
        });
    subscriber.start().await.unwrap();
    delivered
}

#[tokio::test]
async fn a_subscriber_whose_command_is_refused_is_done_with_the_event_and_takes_the_next() {
    let annals = bank().await;
    open_with(&annals, "fees", 60).await;
    let delivered = charge(&annals).await;
    for _ in 0..4 {
        annals.repository::<Account>().execute("a1", Bank::Open("kim")).await.ok();
        annals.repository::<Account>().execute("a1", Bank::Deposit(1)).await.unwrap();
    }
    settle(&annals).await;
    let delivered = delivered.lock().unwrap().clone();
    assert_eq!(delivered.len(), 4, "each event once: {delivered:?}");
    assert_eq!(balance(&annals, "fees").await, 10, "one was charged");
    let status = status(&annals, "charges").await;
    assert_eq!((status.refused, status.failing, status.phase), (3, None, Phase::Live));
    assert_eq!(status.position, status.head);
    // The facts say why each was asked for.
    let stream = StreamId::new("annals.answers-account-fees").unwrap();
    let facts = annals.store().stream_events(&stream).await.unwrap();
    let log = annals.store().log_events(annals::Query::all()).await.unwrap();
    let ids = delivered[1..].iter().map(|&position| log[position as usize - 1].id().to_string());
    let predecessors = facts.iter().map(|fact| fact.metadata().predecessor.as_ref().unwrap().to_string());
    assert!(ids.eq(predecessors));
}

/// Between the fact and the checkpoint the process ends; when the event comes again, the account has more
/// than enough.
#[test]
fn what_was_refused_before_a_crash_is_refused_when_the_event_comes_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    for dies in [true, true, false] {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let annals = bank_on(&store, directory.path()).await;
            if store.head().await.unwrap().get() == 0 {
                open_with(&annals, "fees", 10).await;
                annals.repository::<Account>().execute("a1", Bank::Open("kim")).await.unwrap();
            }
            let answered = Arc::new(Mutex::new(None));
            let (noting, noticed) = (answered.clone(), Arc::new(tokio::sync::Notify::new()));
            let notice = noticed.clone();
            let subscriber =
                annals.subscribe("charges").on(move |event: Recorded<AccountEvent>, delivery| {
                    let (noting, notice) = (noting.clone(), notice.clone());
                    async move {
                        if event.aggregate_id() != "a1" {
                            return Ok(());
                        }
                        let answer = delivery.execute::<Account, _>("fees", Bank::Withdraw(50)).await;
                        let refusal = answer.as_ref().unwrap_err().refusal::<Account, Bank>().unwrap();
                        *noting.lock().unwrap() =
                            Some((answer.as_ref().unwrap_err().rejection().is_some(), refusal));
                        notice.notify_one();
                        if dies {
                            std::future::pending::<()>().await;
                        }
                        answer?;
                        Ok(())
                    }
                });
            subscriber.start().await.unwrap();
            tokio::time::timeout(Duration::from_secs(60), noticed.notified()).await.expect("it is delivered");
            let (decided_now, refusal) = answered.lock().unwrap().take().unwrap();
            assert_eq!((refusal.code.as_str(), refusal.text.as_str()), ("insufficient", "only 10 left"));
            let version = annals.repository::<Account>().load("fees").await.unwrap().version.get();
            assert_eq!(decided_now, version == 2, "it is decided once");
            annals.repository::<Account>().execute("fees", Bank::Deposit(1_000)).await.unwrap();
            if !dies {
                settle(&annals).await;
                assert_eq!(status(&annals, "charges").await.refused, 1);
                assert_eq!(balance(&annals, "fees").await, 3_010, "nothing was charged later");
            }
        });
        runtime.shutdown_background();
    }
}

/// Before its fact is in the log a refusal is a failure: the event comes again.
#[tokio::test]
async fn a_delivery_whose_fact_cannot_be_written_is_tried_again() {
    let store = FaultyStore::new([]);
    let annals = Annals::with_store(store.clone(), annals::State::memory()).await.unwrap();
    open_with(&annals, "fees", 10).await;
    annals.repository::<Account>().execute("a1", Bank::Open("kim")).await.unwrap();
    annals.repository::<Account>().execute("a1", Bank::Deposit(1)).await.unwrap();
    for fault in [Fault::Poisoned, Fault::AnswerLost, Fault::Poisoned] {
        store.plan(fault);
    }
    let delivered = charge(&annals).await;
    settle(&annals).await;
    assert_eq!(delivered.lock().unwrap().len(), 3, "the third time the fact is found");
    assert_eq!((balance(&annals, "fees").await, status(&annals, "charges").await.refused), (10, 1));
    let stream = StreamId::new("annals.answers-account-fees").unwrap();
    assert_eq!(annals.store().stream_version(&stream).await.unwrap().get(), 1);
}

#[tokio::test]
async fn handlers_behind_a_refusal_are_called_and_a_failure_beside_it_is_tried_again() {
    let annals = bank().await;
    let called = Arc::new([AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0)]);
    let (one, two, three) = (called.clone(), called.clone(), called.clone());
    let subscriber = annals
        .subscribe("three")
        .retry(QUICKLY)
        .on(move |_: Recorded<AccountEvent>, delivery| {
            let one = one.clone();
            async move {
                one[0].fetch_add(1, Ordering::SeqCst);
                delivery.execute::<Account, _>("nobody", Bank::Withdraw(1)).await?;
                Ok(())
            }
        })
        .on(move |_: Recorded<AccountEvent>, _| {
            let first = two[1].fetch_add(1, Ordering::SeqCst) == 0;
            async move { if first { Err(HandlerError::new("not yet")) } else { Ok(()) } }
        })
        .on(move |_: Recorded<AccountEvent>, _| {
            three[2].fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        });
    subscriber.start().await.unwrap();
    annals.repository::<Account>().execute("a1", Bank::Open("kim")).await.unwrap();
    settle(&annals).await;
    let called: Vec<_> = called.iter().map(|count| count.load(Ordering::SeqCst)).collect();
    assert_eq!(called, [2, 2, 2]);
    assert_eq!(status(&annals, "three").await.refused, 1, "an event is counted when it is done");
}

/// Such a command has no key, so nothing is known of it afterwards; its refusal is an answer all the same.
#[tokio::test]
async fn a_refusal_by_a_repository_from_outside_is_an_answer_too() {
    let annals = bank().await;
    let outside = annals.repository::<Account>();
    let subscriber = annals.subscribe("outside").on(move |_: Recorded<AccountEvent>, _| {
        let outside = outside.clone();
        async move {
            outside.execute("nobody", Bank::Withdraw(1)).await?;
            Ok(())
        }
    });
    subscriber.start().await.unwrap();
    open_with(&annals, "a1", 1).await;
    settle(&annals).await;
    assert_eq!(
        (status(&annals, "outside").await.refused, annals.store().head().await.unwrap().get()),
        (2, 2)
    );
}

#[tokio::test]
async fn conflicts_and_what_must_exist_are_failures_and_tried_again() {
    let annals = bank().await;
    open_with(&annals, "a1", 1).await;
    let subscriber =
        annals.subscribe("updates").retry(QUICKLY).on(|event: Recorded<AccountEvent>, delivery| async move {
            if event.version().get() == 1 && event.aggregate_id() == "a1" {
                delivery.repository::<Account>().update("later", Bank::Deposit(5)).await?;
            }
            Ok(())
        });
    subscriber.start().await.unwrap();
    let failing = until(&annals, "updates", |status| status.failing.is_some()).await.failing.unwrap();
    assert!(failing.error.contains("does not exist"), "{failing:?}");
    annals.repository::<Account>().execute("later", Bank::Open("kim")).await.unwrap();
    settle(&annals).await;
    assert_eq!((balance(&annals, "later").await, status(&annals, "updates").await.refused), (5, 0));
}

#[tokio::test]
async fn a_repository_of_the_delivery_gives_every_command_its_cause_and_a_key() {
    let annals = bank().await;
    let own = annals.repository::<Account>().cache(10);
    let refused = Arc::new(Mutex::new(None));
    let noting = refused.clone();
    let subscriber = annals.subscribe("reacts").on(move |event: Recorded<AccountEvent>, delivery| {
        let (own, noting) = (own.clone(), noting.clone());
        async move {
            if event.aggregate_id() != "a1" {
                return Ok(());
            }
            let accounts = delivery.repository::<Account>();
            accounts.create("b1", Bank::Open("lee")).await?;
            delivery.with(&own).create("b2", Bank::Open("lee")).await?;
            delivery.with(&own).update("b2", Bank::Deposit(7)).once("welcome").await?;
            // Whichever repository it was: one event and two commands for one aggregate.
            let again = delivery.with(&own).execute("b1", Bank::Deposit(7)).await;
            *noting.lock().unwrap() = Some(again.unwrap_err().to_string());
            assert_eq!(accounts.load("b2").await?.state.balance, 7);
            Ok(())
        }
    });
    subscriber.start().await.unwrap();
    let accounts = annals.repository::<Account>();
    accounts.execute("a1", Bank::Open("kim")).by("user:7").process("p-1").await.unwrap();
    settle(&annals).await;
    let log = annals.store().log_events(annals::Query::all()).await.unwrap();
    assert_eq!(log.len(), 4);
    for event in &log[1..] {
        assert_eq!(event.metadata().predecessor.as_deref(), Some(log[0].id().to_string().as_str()));
        assert_eq!(event.metadata().process.as_deref(), Some("p-1"));
        assert_eq!(event.metadata().initiator.as_deref(), Some("user:7"));
        assert!(event.idempotency_key().as_ref().unwrap().as_str().contains("/caused:"), "{event:?}");
    }
    assert!(refused.lock().unwrap().clone().unwrap().contains(".once(..)"));
}

#[tokio::test]
async fn a_subscriber_hears_of_answers_as_of_other_events() {
    let annals = bank().await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = heard.clone();
    let audit = annals.subscribe("audit").on(move |answer: Recorded<Answer>, _| {
        let (initiator, refusal) = (answer.metadata().initiator.clone(), answer.event.refusal);
        hearing.lock().unwrap().push((initiator.unwrap().to_string(), refusal.map(|refusal| refusal.code)));
        async { Ok(()) }
    });
    audit.start().await.unwrap();
    open_with(&annals, "a1", 1).await;
    let accounts = annals.repository::<Account>();
    accounts.execute("a1", Bank::Withdraw(9)).by("user:7").once("1").await.unwrap_err();
    accounts.execute("a1", Bank::Block("fraud")).await.unwrap();
    accounts.execute("a1", Bank::Block("fraud")).by("user:8").once("2").await.unwrap();
    settle(&annals).await;
    let expected = [("user:7".to_owned(), Some("insufficient".to_owned())), ("user:8".to_owned(), None)];
    assert_eq!(*heard.lock().unwrap(), expected);
}

// How a refusal is found behind what a handler ends with.

#[derive(Debug, thiserror::Error)]
enum OfAService {
    #[error("the fee cannot be charged")]
    Charging(#[source] ExecuteError<Refused>),
    #[error(transparent)]
    Whatever(#[from] ExecuteError<Refused>),
    #[error("by words alone: {0}")]
    Words(String),
}

/// A refusal with something behind it.
#[derive(Debug, thiserror::Error)]
#[error("the card was declined")]
struct Declined(#[source] std::io::Error);

fn failure(ends: impl FnOnce() -> Result<(), HandlerError>) -> HandlerError {
    ends().unwrap_err()
}

#[test]
fn a_refusal_is_found_behind_every_error_that_was_made_of_it() {
    let refused = || ExecuteError::Rejected(Refused::Insufficient { balance: 7 });
    let boxed =
        || -> Result<(), Box<dyn std::error::Error + Send + Sync>> { Err(OfAService::Charging(refused()))? };
    for (found, text) in [
        (failure(|| Err(refused())?), "only 7 left: the command was refused"),
        (failure(|| Err(OfAService::from(refused()))?), "only 7 left: the command was refused"),
        (
            failure(|| Err(OfAService::Charging(refused()))?),
            "the fee cannot be charged: only 7 left: the command was refused",
        ),
        (failure(|| Ok(boxed()?)), "the fee cannot be charged: only 7 left: the command was refused"),
        (HandlerError::new(IsRefused), "the command was refused"),
        (
            failure(|| Err(ExecuteError::Rejected(Declined(std::io::Error::other("no funds"))))?),
            "the card was declined: no funds: the command was refused",
        ),
    ] {
        assert!(found.is_refusal(), "{found}");
        assert_eq!(found.to_string(), text);
    }
    let stream = StreamId::new("account-a1").unwrap();
    for failed in [
        HandlerError::new(OfAService::Words(refused().to_string())),
        HandlerError::new("refused"),
        failure(|| Err(ExecuteError::<Refused>::Missing { stream })?),
        failure(|| Err(ExecuteError::<Refused>::Store(annals::Error::Unavailable("away".into())))?),
    ] {
        assert!(!failed.is_refusal(), "{failed}");
    }
}

/// An error whose source panics.
#[derive(Debug)]
struct PanicsBehind;

impl std::fmt::Display for PanicsBehind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it panics when it is asked what is behind it")
    }
}

impl std::error::Error for PanicsBehind {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        panic!("there is nothing behind it")
    }
}

#[tokio::test]
async fn an_error_that_panics_when_it_is_looked_behind_is_a_failure() {
    let annals = bank().await;
    let tried = Arc::new(AtomicU32::new(0));
    let trying = tried.clone();
    let subscriber = annals.subscribe("tries").retry(QUICKLY).on(move |_: Recorded<AccountEvent>, _| {
        let first = trying.fetch_add(1, Ordering::SeqCst) == 0;
        async move { if first { Err(PanicsBehind)? } else { Ok(()) } }
    });
    subscriber.start().await.unwrap();
    annals.repository::<Account>().execute("a1", Bank::Open("kim")).await.unwrap();
    settle(&annals).await;
    assert_eq!((tried.load(Ordering::SeqCst), status(&annals, "tries").await.refused), (2, 0));
}
