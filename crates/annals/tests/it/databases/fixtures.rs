//! What released versions have written is opened, on every store: the log is complete, checkpoints, rows,
//! snapshots and keys are kept. Where one of these fails, the files of users are about to break:
//! `fixtures/README.md` says what to do.
//!
//! `bank` is the domain, `opened` opens a fixture, `write` writes them.

mod bank;
mod opened;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use annals::contract::{LogRead, QueryItem};
use annals::snapshot::every;
use annals::{
    Append, Delivery, EventStore, EventStoreExt, ExecuteError, Expected, HandlerError, NewEvent, Position,
    Query, Recorded, RecordedEvent, StreamId, Version,
};
use bank::{Account, AccountEvent, Balances, Order};
use opened::Fixture;
use parking_lot::Mutex;

/// The subscriber that executes a command for each large deposit.
const COMMANDED: &str = "bonus-für-alle";
/// The group of subscribers.
const MAILS: &str = "mails";

/// Tests for each fixture of each store.
macro_rules! on_each_store {
    ($($name:ident,)*) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                for fixture in super::Fixture::embedded() {
                    super::$name(fixture).await;
                }
            })*
        }
        mod in_a_database {
            annals_testservers::on_each_database! { $($name,)* }
            $(async fn $name(place: annals_testservers::place::Place) {
                for fixture in super::Fixture::on(place.kind()).await {
                    super::$name(fixture).await;
                }
            })*
        }
    };
}

on_each_store! {
    the_log_is_complete_and_equal_event_by_event,
    a_projection_resumes_at_its_checkpoint_and_keeps_its_rows,
    subscribers_get_what_comes_after_their_checkpoints,
    a_snapshot_is_used,
    a_key_that_was_used_gets_its_first_answer,
    a_command_that_an_event_led_to_is_not_executed_again,
}

/// Executes a command for each deposit of 100 or more, and one that is refused for a deposit of 500.
async fn command_of(event: Recorded<AccountEvent>, handling: Delivery) -> Result<(), HandlerError> {
    match event.event {
        AccountEvent::Deposited { amount: 500 } => {
            handling.execute::<Account, _>("bonus", Order::Withdraw(1_000)).await?;
        }
        AccountEvent::Deposited { amount: 100.. } => {
            handling.execute::<Account, _>("bonus", Order::Deposit(1)).await?;
        }
        _ => {}
    }
    Ok(())
}

/// The events of accounts among these.
fn of_accounts(events: &[RecordedEvent]) -> impl Iterator<Item = Recorded<AccountEvent>> {
    let of_accounts = events.iter().filter(|event| event.event_type().starts_with("account."));
    of_accounts.flat_map(|event| Recorded::read(event).unwrap())
}

async fn the_log_is_complete_and_equal_event_by_event(fixture: Fixture) {
    let annals = fixture.open().await;
    let (store, log) = (annals.store(), &fixture.log);
    let found = store.log_events(Query::all()).await.unwrap();
    for (found, event) in found.iter().zip(log) {
        assert_eq!(found, event, "{}", fixture.lost(&format!("the event at position {}", event.position())));
    }
    assert_eq!(found.len(), log.len(), "{}", fixture.lost("the end of the log"));
    for event in log {
        let mut queries = vec![
            Query::id(event.id()),
            Query::types([event.event_type().try_into().unwrap()]),
            Query::category(event.stream_id().category()),
        ];
        queries.extend(event.tags().map(|tag| Query::tags([tag.try_into().unwrap()])));
        queries.extend(event.metadata().predecessor.clone().map(Query::predecessor));
        let process = event.metadata().process.clone();
        let initiator = event.metadata().initiator.clone();
        queries.push(Query::item(QueryItem { process, initiator, ..QueryItem::default() }));
        for query in queries {
            let matching: Vec<_> = log.iter().filter(|event| query.matches(event)).cloned().collect();
            let found = store.log_events(query.clone()).await.unwrap();
            assert_eq!(found, matching, "{}", fixture.lost(&format!("what {query:?} finds")));
        }
        let of_stream: Vec<_> =
            log.iter().filter(|other| other.stream() == event.stream()).cloned().collect();
        let found = store.stream_events(&event.stream_id()).await.unwrap();
        assert_eq!(found, of_stream, "{}", fixture.lost(&format!("the stream {}", event.stream())));
    }
    // It is written to as before.
    let (last, stream) = (log.last().unwrap(), StreamId::new("account-müller").unwrap());
    let version = store.stream_version(&stream).await.unwrap();
    let event = NewEvent::new("account.deposited", r#"{"amount":1}"#).unwrap();
    let appended = store.append(Append::to(stream, Expected::Exact(version), [event])).await.unwrap();
    assert_eq!(appended.first, last.position().next(), "{}", fixture.lost("the end of the log"));
    assert!(appended.recorded_at > last.recorded_at());
    let read = LogRead::forward(appended.first);
    assert_eq!(store.read_log(read).await.unwrap().events.len(), 1);
    annals.shutdown().await;
}

async fn a_projection_resumes_at_its_checkpoint_and_keeps_its_rows(fixture: Fixture) {
    let (annals, balances) = (fixture.open().await, Balances::default());
    annals.project(balances.clone()).start().await.unwrap();
    annals.settle().await.unwrap();
    let after = of_accounts(fixture.after_checkpoint()).count() as u64;
    let applied = balances.applied.load(Ordering::SeqCst);
    let lost = fixture.lost("the rows of its projections, which would be made again from the first event");
    assert!(
        after > 0 && applied == after,
        "{applied} events applied, of {after} after the checkpoint: {lost}"
    );
    let mut expected = BTreeMap::<String, (i64, i64)>::new();
    for event in of_accounts(&fixture.log) {
        let (amount, events) = expected.entry(event.aggregate_id().to_owned()).or_default();
        *events += 1;
        match event.event {
            AccountEvent::Opened { .. } => {}
            AccountEvent::Deposited { amount: more } => *amount += more as i64,
            AccountEvent::Withdrawn { amount: less } => *amount -= less as i64,
        }
    }
    let sql = "SELECT account, amount, events FROM balances";
    let rows =
        annals.view::<Balances>().query(sql, (), |row| row.read::<(String, i64, i64)>()).await.unwrap();
    let rows: BTreeMap<_, _> =
        rows.into_iter().map(|(account, amount, events)| (account, (amount, events))).collect();
    assert_eq!(rows, expected, "{}", fixture.lost("the rows of its projections"));
    annals.shutdown().await;
}

async fn subscribers_get_what_comes_after_their_checkpoints(fixture: Fixture) {
    let annals = fixture.open().await;
    let handled: [Arc<Mutex<Vec<u64>>>; 2] = Default::default();
    for (name, handled) in [COMMANDED, MAILS].into_iter().zip(&handled) {
        let handled = handled.clone();
        let subscriber = annals.subscribe(name).partitions(if name == MAILS { 4 } else { 1 });
        let subscriber = subscriber.on(move |event: Recorded<AccountEvent>, _| {
            handled.lock().push(event.position().get());
            std::future::ready(Ok(()))
        });
        subscriber.start().await.unwrap();
    }
    annals.settle().await.unwrap();
    let after: Vec<u64> =
        of_accounts(fixture.after_checkpoint()).map(|event| event.position().get()).collect();
    for handled in handled {
        let mut handled = std::mem::take(&mut *handled.lock());
        // The shares of a group run beside each other.
        handled.sort_unstable();
        let lost = fixture.lost("the checkpoints of its subscribers, which would handle old events again");
        assert_eq!(handled, after, "{lost}");
    }
    annals.shutdown().await;
}

async fn a_snapshot_is_used(fixture: Fixture) {
    let annals = fixture.open().await;
    let loaded = annals.repository::<Account>().snapshots(every(1_000)).load("müller").await.unwrap();
    let whole = annals.repository::<Account>().load("müller").await.unwrap();
    assert_eq!(loaded.version, whole.version);
    assert_eq!((&loaded.state.owner, loaded.state.balance), (&whole.state.owner, whole.state.balance));
    assert_eq!(whole.state.folded, whole.version.get());
    let after = whole.version.get() - fixture.stopped.snapshot;
    let lost = fixture.lost("its snapshots, and every long stream would be read from its first event");
    assert!(
        after < whole.version.get() && loaded.state.folded == after,
        "{} folded: {lost}",
        loaded.state.folded
    );
    annals.shutdown().await;
}

async fn a_key_that_was_used_gets_its_first_answer(fixture: Fixture) {
    let annals = fixture.open().await;
    let lost = fixture.lost("its keys, and commands that are sent again would be executed twice");
    let accounts = annals.repository::<Account>();
    let order = |order, key| accounts.execute("müller", order).once(key);
    let done = order(Order::Deposit(30), "deposit-3").await.unwrap();
    assert!(done.duplicate && done.events == [AccountEvent::Deposited { amount: 30 }], "{done:?}: {lost}");
    // It could be withdrawn now.
    let refused = order(Order::Withdraw(90_000), "refused").await;
    let Err(ExecuteError::RefusedBefore { refusal, .. }) = refused else { panic!("{refused:?}: {lost}") };
    assert_eq!(refusal.text, "nur 780 übrig", "{lost}");
    let nothing = order(Order::Leave(1_000_000), "nothing").await.unwrap();
    assert!(nothing.duplicate && nothing.events.is_empty(), "{nothing:?}: {lost}");
    // An append without the framework.
    let again = annals.store().append(write::first_append(&fixture.log)).await.unwrap();
    assert!(again.duplicate && again.first == fixture.log[0].append(), "{again:?}: {lost}");
    let outcome = annals.store().outcome(fixture.log[0].idempotency_key().as_ref().unwrap()).await.unwrap();
    assert!(outcome.is_some_and(|outcome| outcome.first == again.first), "{lost}");
    assert_eq!(annals.store().head().await.unwrap(), fixture.log.last().unwrap().position(), "{lost}");
    annals.shutdown().await;
}

async fn a_command_that_an_event_led_to_is_not_executed_again(fixture: Fixture) {
    fixture.forget_subscribers().await;
    let annals = fixture.open().await;
    annals.subscribe(COMMANDED).on(command_of).start().await.unwrap();
    annals.settle().await.unwrap();
    let large =
        |event: &Recorded<AccountEvent>| matches!(event.event, AccountEvent::Deposited { amount: 100.. });
    let new = of_accounts(fixture.after_checkpoint()).filter(large).count() as u64;
    let caused = of_accounts(&fixture.log).filter(large).count() as u64;
    assert!(new > 0 && caused > new + 1);
    let (before, after) = (fixture.log.last().unwrap().position(), annals.store().head().await.unwrap());
    let lost = fixture
        .lost("the keys of what events led to, and every command of a subscriber would be executed twice");
    assert_eq!(after, Position::new(before.get() + new), "{lost}");
    let bonus = annals.store().stream_version(&StreamId::new("account-bonus").unwrap()).await.unwrap();
    // One of them was refused.
    assert_eq!(bonus, Version::new(caused - 1), "{lost}");
    annals.shutdown().await;
}
