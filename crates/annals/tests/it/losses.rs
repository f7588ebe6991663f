//! A log that loses its newest events, as after the failover to a standby that did not have them: while the
//! system is stopped, and while it runs.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals::{
    Annals, Append, EventStore, EventStoreExt, Expected, NewEvent, Position, Query, Seen, State, StreamId,
    View, ViewError,
};
use annals_testkit::failover::{Failover, Pages};
use tokio::sync::watch;

use crate::bank::{Account, AccountEvent, Balances, Bank, until};

/// A deposit for each of these accounts, and something that nobody takes for `-`.
fn deposits(accounts: &[&str]) -> Vec<Append> {
    let append = |account: &&str| {
        let (stream, event) = match *account {
            "-" => ("other-1".to_owned(), NewEvent::new("other.happened", "{}").unwrap()),
            account => {
                let event = NewEvent::new("account.deposited", r#"{"amount":1}"#).unwrap();
                (format!("account-{account}"), event)
            }
        };
        Append::to(StreamId::new(stream).unwrap(), Expected::Any, [event])
    };
    accounts.iter().map(append).collect()
}

async fn deposit(store: &dyn EventStore, accounts: &[&str]) {
    for append in deposits(accounts) {
        store.append(append).await.unwrap();
    }
}

/// The log has the events up to this position only, and then these.
async fn lose(store: &Failover, up_to: u64, then: &[&str]) {
    store.lose(Position::new(up_to), deposits(then)).await;
}

/// The same, once this many more pages of streams were read.
async fn lose_after(store: &Failover, pages: usize, up_to: u64, then: &[&str]) {
    store.lose_after(Pages::OfStreams, pages, Position::new(up_to), deposits(then)).await;
}

/// The accounts of the events that were delivered, in order.
type Heard = Arc<Mutex<Vec<String>>>;

async fn hear(annals: &Annals) -> Heard {
    let heard = Heard::default();
    let hearing = heard.clone();
    let subscriber = annals.subscribe("hears").on::<AccountEvent, _>(move |event, _| {
        hearing.lock().unwrap().push(event.aggregate_id().to_owned());
        async { Ok(()) }
    });
    subscriber.start().await.unwrap();
    heard
}

fn taken(heard: &Heard) -> Vec<String> {
    std::mem::take(&mut *heard.lock().unwrap())
}

async fn open(store: &Arc<Failover>, directory: &Path) -> Annals {
    let store: Arc<dyn EventStore> = store.clone();
    Annals::with_store(store, State::directory(directory)).await.unwrap()
}

/// Waits until this is delivered; what follows is not waited for.
async fn until_heard(heard: &Heard, wanted: &[&str]) {
    let all = async {
        while heard.lock().unwrap().len() < wanted.len() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.unwrap_or_else(|_| panic!("{heard:?}"));
    assert_eq!(taken(heard), wanted);
}

/// What happens to a log of ten events: those up to a position are left, these come after it, and those are
/// delivered again.
const LOSSES: [(u64, &[&str], &[&str]); 5] = [
    (7, &[], &[]),
    (7, &["x"], &["x"]),
    // As long as it was, and longer.
    (7, &["x", "-", "y"], &["x", "y"]),
    (9, &["-", "x", "y", "z", "z"], &["x", "y", "z", "z"]),
    (0, &["x", "y"], &["x", "y"]),
];

const TEN: [&str; 10] = ["a", "b", "-", "a", "b", "a", "-", "c", "-", "d"];

#[tokio::test]
async fn a_subscriber_steps_back_to_the_last_event_in_common_when_it_starts() {
    for (up_to, then, delivered) in LOSSES {
        let directory = tempfile::tempdir().unwrap();
        let store = Failover::new();
        deposit(&*store, &TEN).await;
        let annals = open(&store, directory.path()).await;
        let heard = hear(&annals).await;
        annals.settle().await.unwrap();
        assert_eq!(taken(&heard).len(), 7);
        annals.shutdown().await;
        lose(&store, up_to, then).await;
        let annals = open(&store, directory.path()).await;
        let heard = hear(&annals).await;
        annals.settle().await.unwrap();
        assert_eq!(taken(&heard), delivered, "{up_to} {then:?}");
        let status = &annals.status().await.unwrap()[0];
        let notice = status.notice.as_deref().unwrap_or_default();
        assert!(notice.contains("stepped back"), "{status:?}");
    }
}

#[tokio::test]
async fn a_subscriber_steps_back_to_the_last_event_in_common_while_it_runs() {
    for (up_to, then, delivered) in LOSSES {
        let directory = tempfile::tempdir().unwrap();
        let store = Failover::new();
        deposit(&*store, &TEN).await;
        let annals = open(&store, directory.path()).await;
        let heard = hear(&annals).await;
        annals.settle().await.unwrap();
        assert_eq!(taken(&heard).len(), 7);
        lose(&store, up_to, then).await;
        until(&annals, "hears", |status| status.notice.is_some()).await;
        until_heard(&heard, delivered).await;
        deposit(&*store, &["last"]).await;
        annals.settle().await.unwrap();
        assert_eq!(taken(&heard), ["last"], "{up_to} {then:?}");
        let status = &annals.status().await.unwrap()[0];
        assert_eq!((status.position, status.lag()), (store.head().await.unwrap(), 0));
    }
}

/// Nothing of the history is left in which the subscriber began; what is new was never seen.
#[tokio::test]
async fn a_subscriber_from_now_skips_nothing_of_another_history() {
    for while_it_runs in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let store = Failover::new();
        deposit(&*store, &["a", "b", "c"]).await;
        let start = async || {
            let annals = open(&store, directory.path()).await;
            let heard = Heard::default();
            let hearing = heard.clone();
            let subscriber = annals.subscribe("hears").from_now().on::<AccountEvent, _>(move |event, _| {
                hearing.lock().unwrap().push(event.aggregate_id().to_owned());
                async { Ok(()) }
            });
            subscriber.start().await.unwrap();
            (annals, heard)
        };
        let (annals, mut heard) = start().await;
        annals.settle().await.unwrap();
        assert!(taken(&heard).is_empty(), "what was there before");
        let restarted = if while_it_runs {
            lose(&store, 0, &["x", "y", "z", "z"]).await;
            annals
        } else {
            annals.shutdown().await;
            lose(&store, 0, &["x", "y", "z", "z"]).await;
            let (annals, since) = start().await;
            heard = since;
            annals
        };
        until_heard(&heard, &["x", "y", "z", "z"]).await;
        restarted.settle().await.unwrap();
        assert!(taken(&heard).is_empty());
    }
}

/// Many events after a loss of few: the ladder has rungs everywhere.
#[tokio::test]
async fn a_subscriber_does_not_begin_again_because_much_was_lost() {
    let directory = tempfile::tempdir().unwrap();
    let store = Failover::new();
    deposit(&*store, &["a"; 900]).await;
    let annals = open(&store, directory.path()).await;
    let heard = hear(&annals).await;
    annals.settle().await.unwrap();
    assert_eq!(taken(&heard).len(), 900);
    annals.shutdown().await;
    lose(&store, 800, &["x"; 200]).await;
    let annals = open(&store, directory.path()).await;
    let heard = hear(&annals).await;
    annals.settle().await.unwrap();
    let heard = taken(&heard);
    let again = heard.iter().filter(|account| *account == "a").count();
    assert_eq!(heard.iter().filter(|account| *account == "x").count(), 200, "all that is new");
    assert!(again <= 100, "{again} again: no more than were lost");
}

/// Versions of Annals before this one kept the newest event only.
#[tokio::test]
async fn a_checkpoint_without_a_ladder_is_read() {
    for (up_to, delivered) in [(4, vec!["a"; 4]), (10, vec![])] {
        let directory = tempfile::tempdir().unwrap();
        let store = Failover::new();
        deposit(&*store, &["a"; 10]).await;
        let annals = open(&store, directory.path()).await;
        let heard = hear(&annals).await;
        annals.settle().await.unwrap();
        annals.shutdown().await;
        drop((annals, heard));
        let state = rusqlite::Connection::open(directory.path().join("state.sqlite")).unwrap();
        state.execute_batch("ALTER TABLE checkpoints DROP COLUMN ladder").unwrap();
        drop(state);
        if up_to < 10 {
            lose(&store, up_to, &[]).await;
        }
        let annals = open(&store, directory.path()).await;
        let heard = hear(&annals).await;
        annals.settle().await.unwrap();
        assert_eq!(taken(&heard), delivered);
        annals.shutdown().await;
        // Whatever was lost, there is a ladder from now on.
        lose(&store, 3, &["x"]).await;
        let annals = open(&store, directory.path()).await;
        let heard = hear(&annals).await;
        annals.settle().await.unwrap();
        assert_eq!(taken(&heard), ["x"]);
    }
}

/// The rows: the sum of each account.
async fn balances(annals: &Annals) -> Vec<(String, u64)> {
    let sql = "SELECT account, amount FROM balances ORDER BY account";
    annals.view::<Balances>().query(sql, (), |row| row.read()).await.unwrap()
}

/// An account that can be deposited to.
async fn opened(store: &dyn EventStore, account: &str) {
    let event = NewEvent::new("account.opened", r#"{"owner":"kim"}"#).unwrap();
    let stream = StreamId::new(format!("account-{account}")).unwrap();
    store.append(Append::to(stream, Expected::Any, [event])).await.unwrap();
}

#[tokio::test]
async fn rows_of_lost_events_are_rebuilt_while_the_projection_runs() {
    for in_memory in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let store = Failover::new();
        for account in ["a", "b"] {
            opened(&*store, account).await;
        }
        deposit(&*store, &["a", "b", "-", "a"]).await;
        let annals = match in_memory {
            true => Annals::with_store(store.clone(), State::memory()).await.unwrap(),
            false => open(&store, directory.path()).await,
        };
        annals.project(Balances).start().await.unwrap();
        annals.settle().await.unwrap();
        assert_eq!(balances(&annals).await, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        lose(&store, 5, &["b", "b", "-"]).await;
        let status = until(&annals, "balances", |status| status.notice.is_some()).await;
        assert!(status.notice.as_ref().unwrap().contains("rebuilt"), "{status:?}");
        annals.settle().await.unwrap();
        assert_eq!(balances(&annals).await, [("a".to_owned(), 1), ("b".to_owned(), 3)]);
        let position = store.head().await.unwrap();
        assert_eq!(annals.status().await.unwrap()[0].position, position, "not what was there before");
    }
}

#[tokio::test]
async fn rows_that_no_lost_event_made_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = Failover::new();
    opened(&*store, "a").await;
    deposit(&*store, &["a", "-", "-", "-"]).await;
    let annals = open(&store, directory.path()).await;
    annals.project(Balances).start().await.unwrap();
    annals.settle().await.unwrap();
    // What is not made of events shows whether the rows are made again.
    let file = rusqlite::Connection::open(directory.path().join("views/balances.v1.sqlite")).unwrap();
    file.execute("INSERT INTO balances (account, owner, amount) VALUES ('mark', 'kim', 0)", ()).unwrap();
    lose(&store, 3, &["a", "-"]).await;
    let seen = annals.view::<Balances>().at_least(Position::new(4)).within(Duration::from_secs(60));
    let new = async {
        loop {
            let sql = "SELECT amount FROM balances WHERE account = 'a'";
            if seen.one(sql, (), |row| row.get::<u64>(0)).await.unwrap() == Some(2) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), new)
        .await
        .expect("the event that took a lost one's position");
    assert_eq!(balances(&annals).await.len(), 2, "the mark is there");
}

#[tokio::test]
async fn a_view_does_not_answer_for_an_event_that_was_lost() {
    let directory = tempfile::tempdir().unwrap();
    let store = Failover::new();
    opened(&*store, "a").await;
    let annals = open(&store, directory.path()).await;
    annals.project(Balances).start().await.unwrap();
    let done = annals.repository::<Account>().execute("a", Bank::Deposit(1)).await.unwrap();
    assert_eq!(done.event, store.log_events(Query::all()).await.unwrap().last().map(|event| event.id()));
    let view = annals.view::<Balances>().within(Duration::from_secs(60));
    let sql = "SELECT amount FROM balances WHERE account = 'a'";
    let amount = async |view: &View<Balances>| view.one(sql, (), |row| row.get::<u64>(0)).await;
    assert_eq!(amount(&view.clone().at_least(&done)).await.unwrap(), Some(1));
    lose(&store, 1, &["a", "a"]).await;
    until(&annals, "balances", |status| status.notice.is_some()).await;
    let lost = amount(&view.clone().at_least(&done)).await;
    let Err(ViewError::OtherHistory { seen, .. }) = &lost else { panic!("{lost:?}") };
    assert_eq!(Seen::from(*seen), Seen::from(&done));
    // While the log is shorter, it is not known yet.
    lose(&store, 1, &[]).await;
    until(&annals, "balances", |status| status.position == Position::FIRST).await;
    let behind = amount(&view.at_least(&done).within(Duration::ZERO)).await;
    assert!(matches!(behind, Err(ViewError::Behind { .. })), "{behind:?}");
}

#[tokio::test]
async fn rows_of_lost_events_do_not_answer_for_what_was_written_instead() {
    let directory = tempfile::tempdir().unwrap();
    let store = Failover::new();
    opened(&*store, "a").await;
    deposit(&*store, &["a", "a", "a"]).await;
    let annals = open(&store, directory.path()).await;
    annals.project(Balances).start().await.unwrap();
    annals.settle().await.unwrap();
    lose(&store, 1, &["-"]).await;
    opened(&*store, "b").await;
    let instead = store.log_events(Query::all()).await.unwrap().pop().unwrap();
    assert!(instead.position() < Position::new(4), "the rows are beyond it");
    let view = annals.view::<Balances>().at_least(&instead).within(Duration::from_secs(60));
    let rows = view.query("SELECT account FROM balances ORDER BY account", (), |row| row.get::<String>(0));
    assert_eq!(rows.await.unwrap(), ["a", "b"]);
}

/// Whenever the log loses events while all of a stream or of the log is read, what is read is of one history,
/// or it is an error.
#[tokio::test]
async fn all_events_are_of_one_history() {
    for pages in 0..8 {
        let store = Failover::new();
        deposit(&*store, &["a"; 10]).await;
        store.stream_page.store(3, Ordering::SeqCst);
        let stream = StreamId::new("account-a").unwrap();
        let before = store.stream_events(&stream).await.unwrap();
        store.lose_after(Pages::OfStreams, pages, Position::new(4), deposits(&["a", "a"])).await;
        let read = store.stream_events(&stream).await;
        let after = store.stream_events(&stream).await.unwrap();
        assert!(before.len() == 10 && after.len() == if pages < 7 { 6 } else { after.len() }, "{pages}");
        match read {
            Ok(events) => assert!(events == before || events == after, "after {pages} pages: {events:#?}"),
            Err(error) => assert!(error.to_string().contains("lost events"), "{error}"),
        }
    }
}

/// A view answers at once if its rows show what was asked for, whatever time it has to wait for them.
#[tokio::test]
async fn rows_that_are_there_answer_without_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let store = Failover::new();
    opened(&*store, "a").await;
    let annals = open(&store, directory.path()).await;
    annals.project(Balances).start().await.unwrap();
    let done = annals.repository::<Account>().execute("a", Bank::Deposit(1)).await.unwrap();
    deposit(&*store, &["a", "a"]).await;
    annals.settle().await.unwrap();
    let view = annals.view::<Balances>().at_least(&done).within(Duration::ZERO);
    assert_eq!(view.rows("SELECT account FROM balances", ()).await.unwrap().len(), 1);
}

/// Between two pages of a long stream the log loses events: no state is folded of both histories.
#[tokio::test]
async fn a_long_stream_is_folded_from_one_history() {
    let store = Failover::new();
    opened(&*store, "a").await;
    deposit(&*store, &["a"; 1_500]).await;
    let annals = Annals::with_store(store.clone(), State::memory()).await.unwrap();
    let withdrawals = (0..600).map(|_| {
        let event = NewEvent::new("account.withdrawn", r#"{"amount":1}"#).unwrap();
        Append::to(StreamId::new("account-a").unwrap(), Expected::Any, [event])
    });
    store.lose_after(Pages::OfStreams, 1, Position::new(601), withdrawals.collect::<Vec<_>>()).await;
    let account = annals.repository::<Account>().load("a").await.unwrap();
    assert_eq!((account.version.get(), account.state.balance), (1_201, 0), "600 in, 600 out and no more");
}

/// The same between two pages of a history whose events are large.
#[tokio::test]
async fn a_history_is_of_one_log() {
    let store = Failover::new();
    opened(&*store, "a").await;
    deposit(&*store, &["a", "a"]).await;
    store.stream_page.store(1, Ordering::SeqCst);
    let annals = Annals::with_store(store.clone(), State::memory()).await.unwrap();
    let mut history = annals.repository::<Account>().history("a").unwrap();
    history.next().await.unwrap().unwrap();
    lose_after(&store, 1, 0, &["a", "a"]).await;
    let refused = history.next().await.map(|change| change.map(|change| change.after.balance));
    assert!(matches!(&refused, Err(annals::LoadError::Store(_))), "{refused:?}");
}

/// Nobody waits for an end of the log that is gone.
#[tokio::test]
async fn settling_does_not_wait_for_an_end_that_is_gone() {
    let store = Failover::new();
    deposit(&*store, &["a", "a", "a"]).await;
    let annals = Annals::with_store(store.clone(), State::memory()).await.unwrap();
    let (release, released) = watch::channel(false);
    let subscriber = annals.subscribe("waits").on::<AccountEvent, _>(move |_, _| {
        let mut released = released.clone();
        async move {
            let _ = released.wait_for(|released| *released).await;
            Ok(())
        }
    });
    subscriber.start().await.unwrap();
    let settling = tokio::spawn({
        let annals = annals.clone();
        async move { annals.settle().await }
    });
    // It waits for position 3.
    tokio::task::yield_now().await;
    lose(&store, 1, &[]).await;
    release.send_replace(true);
    settling.await.unwrap().unwrap();
    assert_eq!(annals.status().await.unwrap()[0].lag(), 0);
}

#[tokio::test]
async fn a_store_that_believes_in_an_end_that_is_gone_is_not_asked_without_a_pause() {
    let store = Failover::new();
    deposit(&*store, &TEN).await;
    let annals = Annals::with_store(store.clone(), State::memory()).await.unwrap();
    let heard = hear(&annals).await;
    annals.project(Balances).start().await.unwrap();
    annals.settle().await.unwrap();
    store.believed.store(10, Ordering::SeqCst);
    lose(&store, 7, &[]).await;
    until(&annals, "hears", |status| status.notice.is_some()).await;
    annals.settle().await.unwrap();
    taken(&heard);
    let before = store.log_reads.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let reads = store.log_reads.load(Ordering::SeqCst) - before;
    assert!(reads < 300, "{reads} reads while nothing happens");
    deposit(&*store, &["x"]).await;
    until_heard(&heard, &["x"]).await;
}
