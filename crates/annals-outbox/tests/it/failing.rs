//! Messages that are refused, dead letters, and sinks that are away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use annals_core::Backoff;
use annals_outbox::{Error, Options};

use crate::support::{Place, Taker, Verdict, about, assert_in_order, options, types, until};

/// O3: later messages of the same aggregate wait for a refused message, and no others do.
pub async fn only_the_aggregate_that_fails_waits(place: Place) {
    let refused = Arc::new(AtomicU32::new(0));
    let taker = Taker::judging({
        let refused = refused.clone();
        move |message| match message.event_type.as_str() {
            "order.bad" if refused.fetch_add(1, Ordering::SeqCst) < 4 => Verdict::Refuse,
            _ => Verdict::Take,
        }
    });
    for event_type in ["order.placed", "order.bad", "order.paid"] {
        place.write("1", event_type).await;
    }
    place.write("2", "order.placed").await;
    // It is refused once, and then waits forever, as it seems.
    let long = Options {
        backoff: Backoff::new(Duration::from_secs(9_000), Duration::from_secs(9_000)),
        ..options()
    };
    let publisher = place.outbox.publisher(taker.clone()).options(long).start().await.unwrap();
    taker.count(2).await;
    place.write("1", "order.sent").await;
    place.write("3", "order.placed").await;
    let taken = taker.count(3).await;
    assert_eq!(types(&taken, "1"), ["order.placed"]);
    let recorded = async || {
        let status = place.outbox.status().await.unwrap();
        (status.failing.len(), status.pending) == (1, 3)
    };
    until("it is recorded, and what was taken is marked", recorded).await;
    let status = place.outbox.status().await.unwrap();
    assert_eq!((status.pending, status.held, status.dead_letters), (3, 0, 0));
    assert!(status.publishing && status.oldest.is_some());
    let failing = &status.failing[0];
    assert_eq!((failing.aggregate_type.as_str(), failing.aggregate_id.as_str()), ("order", "1"));
    assert_eq!((failing.attempts, failing.error.as_str()), (1, "it is not liked"));
    assert_eq!(publisher.health().refused, 1);
    publisher.stop().await;

    // Attempts are counted on by the next publisher, which comes to it when it is due.
    place.run("UPDATE outbox_failures SET next_attempt_at = failed_at").await;
    let publisher = place.outbox.publisher(taker.clone()).options(options()).start().await.unwrap();
    let taken = taker.count(6).await;
    assert_eq!(types(&taken, "1"), ["order.placed", "order.bad", "order.paid", "order.sent"]);
    assert_eq!(taken.iter().find(|message| message.event_type == "order.bad").unwrap().attempt, 5);
    assert_in_order(&taken);
    publisher.stop().await;
    let status = place.outbox.status().await.unwrap();
    assert_eq!((status.pending, status.failing.len()), (0, 0));
}

/// What is bad until it is said to be good, and a publisher that gives up after three attempts.
async fn a_dead_letter(place: &Place) -> (Taker, Arc<AtomicBool>, annals_outbox::PublisherHandle) {
    let good = Arc::new(AtomicBool::new(false));
    let taker = Taker::judging({
        let good = good.clone();
        move |message| match message.event_type.as_str() {
            "order.bad" if !good.load(Ordering::SeqCst) => Verdict::Refuse,
            _ => Verdict::Take,
        }
    });
    for event_type in ["order.placed", "order.bad", "order.paid"] {
        place.write("1", event_type).await;
    }
    let few = Options { attempts_max: 3, ..options() };
    let publisher = place.outbox.publisher(taker.clone()).options(few).start().await.unwrap();
    until("it is dead", async || place.outbox.status().await.unwrap().dead_letters == 1).await;
    // What is written from now on waits as well; the others go on.
    place.write("1", "order.sent").await;
    place.write("2", "order.placed").await;
    let taken = taker.count(2).await;
    assert_eq!(types(&taken, "1"), ["order.placed"]);
    let status = place.outbox.status().await.unwrap();
    assert_eq!((status.held, status.dead_letters, status.failing.len()), (3, 1, 0));
    let letters = place.outbox.dead_letters(10).await.unwrap();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((letter.message.event_type.as_str(), letter.message.attempt), ("order.bad", 3));
    assert_eq!((letter.error.as_str(), letter.waiting), ("it is not liked", 2));
    assert_eq!(place.outbox.dead_letters(0).await.unwrap().len(), 0);
    (taker, good, publisher)
}

/// O3: a retried dead letter is published in its place, before the messages that waited. If it is refused
/// again, it is dead again.
pub async fn a_dead_letter_keeps_its_place(place: Place) {
    let (taker, good, publisher) = a_dead_letter(&place).await;
    let id = place.outbox.dead_letters(1).await.unwrap()[0].message.id;
    place.outbox.retry(id).await.unwrap();
    until("it is dead again", async || place.outbox.status().await.unwrap().dead_letters == 1).await;
    assert_eq!(place.outbox.dead_letters(1).await.unwrap()[0].message.attempt, 3);
    good.store(true, Ordering::SeqCst);
    place.outbox.retry(id).await.unwrap();
    let taken = taker.count(5).await;
    assert_eq!(types(&taken, "1"), ["order.placed", "order.bad", "order.paid", "order.sent"]);
    assert_in_order(&taken);
    place.write("1", "order.done").await;
    taker.count(6).await;
    publisher.stop().await;
    for again in [place.outbox.retry(id).await, place.outbox.discard(id).await] {
        assert!(matches!(again, Err(Error::NoDeadLetter(other)) if other == id), "{again:?}");
    }
    let status = place.outbox.status().await.unwrap();
    assert_eq!((status.pending, status.held, status.dead_letters), (0, 0, 0));
}

/// O3: discarded, it never comes, and its row says so.
pub async fn discarding_a_dead_letter_unblocks_its_aggregate(place: Place) {
    let (taker, _, publisher) = a_dead_letter(&place).await;
    let id = place.outbox.dead_letters(1).await.unwrap()[0].message.id;
    place.outbox.discard(id).await.unwrap();
    place.write("1", "order.done").await;
    let taken = taker.count(5).await;
    publisher.stop().await;
    assert_eq!(types(&taken, "1"), ["order.placed", "order.paid", "order.sent", "order.done"]);
    assert!(matches!(place.outbox.discard(id).await, Err(Error::NoDeadLetter(_))));
    assert_eq!(
        place.number("SELECT COUNT(*) FROM outbox WHERE dropped = TRUE AND processed = TRUE").await,
        1
    );
    assert_eq!(place.number("SELECT COUNT(*) FROM outbox WHERE processed = FALSE").await, 0);
    assert_eq!(place.number("SELECT COUNT(*) FROM outbox_failures").await, 0);
}

/// A sink that is away makes no dead letters, however long it is.
pub async fn a_sink_that_is_away_is_waited_for(place: Place) {
    let (asked, back) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let taker = Taker::judging({
        let (asked, back) = (asked.clone(), back.clone());
        move |_| {
            asked.fetch_add(1, Ordering::SeqCst);
            if back.load(Ordering::SeqCst) { Verdict::Take } else { Verdict::Away }
        }
    });
    for order in ["1", "2", "1"] {
        place.write(order, "order.changed").await;
    }
    let impatient = Options { attempts_max: 1, ..options() };
    let publisher = place.outbox.publisher(taker.clone()).options(impatient).start().await.unwrap();
    until("it was tried again", async || asked.load(Ordering::SeqCst) > 4).await;
    assert_eq!(publisher.health().problem.as_deref(), Some("the broker is away"));
    back.store(true, Ordering::SeqCst);
    let taken = taker.count(3).await;
    until("it is well again", async || publisher.health().problem.is_none()).await;
    publisher.stop().await;
    assert_in_order(&taken);
    assert!(taken.iter().all(|message| message.attempt == 1), "nothing was counted");
}

/// No answer is a refusal if others get one, and otherwise the sink is away.
pub async fn a_sink_that_hangs_holds_up_one_aggregate(place: Place) {
    let hangs = Arc::new(AtomicBool::new(true));
    let taker = Taker::judging({
        let hangs = hangs.clone();
        move |message| match message.aggregate_id.as_str() {
            "bad" => Verdict::Hang,
            _ if hangs.load(Ordering::SeqCst) => Verdict::Hang,
            _ => Verdict::Take,
        }
    });
    place.write("bad", "order.placed").await;
    place.write("1", "order.placed").await;
    let impatient = Options {
        timeout: Duration::from_millis(150),
        lease: Duration::from_secs(60),
        attempts_max: 2,
        ..options()
    };
    let publisher = place.outbox.publisher(taker.clone()).options(impatient).start().await.unwrap();
    until("nothing gets through", async || publisher.health().problem.is_some()).await;
    assert_eq!(publisher.health().problem.as_deref(), Some("the sink did not answer within 150ms"));
    let status = place.outbox.status().await.unwrap();
    assert_eq!((status.pending, status.failing.len(), status.dead_letters), (2, 0, 0));

    hangs.store(false, Ordering::SeqCst);
    let mut written = 1;
    until("the bad one is dead", async || {
        place.write(&written.to_string(), "order.placed").await;
        written += 1;
        place.outbox.status().await.unwrap().dead_letters == 1
    })
    .await;
    let all = |taken: &[annals_outbox::Message]| {
        (1..written).all(|order: usize| taken.iter().any(|message| message.aggregate_id == order.to_string()))
    };
    taker.until(all).await;
    publisher.stop().await;
    assert_eq!(place.outbox.dead_letters(9).await.unwrap()[0].message.aggregate_id, "bad");
}

/// A panic is an error like any other.
pub async fn a_sink_that_panics_has_refused(place: Place) {
    let taker = Taker::judging(|message| match message.attempt {
        1 => Verdict::Panic,
        _ => Verdict::Take,
    });
    place.write("1", "order.placed").await;
    let publisher = place.outbox.publisher(taker.clone()).options(options()).start().await.unwrap();
    assert_eq!(taker.count(1).await[0].attempt, 2);
    publisher.stop().await;
}

/// A transaction of the service that is open for long holds up its own aggregate, and nothing that a
/// publisher does.
pub async fn an_open_transaction_holds_up_nobody_else(place: Place) {
    let mut open = place.begin().await;
    for order in ["0", "5", "9"] {
        open.write(&place.outbox, &about(order, "order.open")).await.unwrap();
    }
    let good = Arc::new(AtomicBool::new(false));
    let taker = Taker::judging({
        let good = good.clone();
        move |message| match message.aggregate_id.as_str() {
            "6" if !good.load(Ordering::SeqCst) => Verdict::Refuse,
            _ => Verdict::Take,
        }
    });
    let options = Options { attempts_max: 2, keep: Duration::ZERO, ..options() };
    let publisher = place.outbox.publisher(taker.clone()).options(options).start().await.unwrap();
    for order in ["4", "6", "7"] {
        place.write(order, "order.placed").await;
    }
    taker.count(2).await;
    until("it is dead", async || place.outbox.status().await.unwrap().dead_letters == 1).await;
    good.store(true, Ordering::SeqCst);
    assert_eq!(place.outbox.retry_all().await.unwrap(), 1);
    taker.count(3).await;
    until("all is deleted", async || place.number("SELECT COUNT(*) FROM outbox").await == 0).await;
    open.commit().await;
    taker.count(6).await;
    publisher.stop().await;
}

/// A row that another program has written wrongly is a message that is refused: it holds up its aggregate,
/// and no other.
pub async fn an_unreadable_row_holds_up_its_own_aggregate(place: Place) {
    for order in ["1", "2"] {
        place.write(order, "order.placed").await;
        place.write(order, "order.paid").await;
    }
    place.run("UPDATE outbox SET headers = 'no JSON' WHERE aggregate_id = '1' AND sequence = 1").await;
    let taker = Taker::new();
    let few = Options { attempts_max: 2, ..options() };
    let publisher = place.outbox.publisher(taker.clone()).options(few).start().await.unwrap();
    taker.count(2).await;
    until("it is a dead letter", async || place.outbox.status().await.unwrap().dead_letters == 1).await;
    let letter = place.outbox.dead_letters(10).await.unwrap().remove(0);
    assert!(letter.error.contains("headers"), "{}", letter.error);
    assert_eq!(types(&taker.taken(), "2"), ["order.placed", "order.paid"]);
    // Mended and retried, it comes first.
    place.run("UPDATE outbox SET headers = NULL WHERE aggregate_id = '1'").await;
    place.outbox.retry(letter.message.id).await.unwrap();
    let taken = taker.count(4).await;
    publisher.stop().await;
    assert_eq!(types(&taken, "1"), ["order.placed", "order.paid"]);
}

/// Where the database takes any text for an id, and any value for a column.
pub async fn a_message_without_an_id_can_be_found_and_dropped(place: Place) {
    for order in ["1", "2", "3", "4"] {
        place.write(order, "order.placed").await;
    }
    place.run("UPDATE outbox SET id = 'order 1' WHERE aggregate_id = '1'").await;
    if matches!(place.pool, annals_outbox::Pool::Sqlite(_)) {
        place.run("UPDATE outbox SET event_data = x'ff' WHERE aggregate_id = '2'").await;
        place.run("UPDATE outbox SET created_at = 'today' WHERE aggregate_id = '4'").await;
    }
    let taker = Taker::new();
    let once = Options { attempts_max: 1, ..options() };
    let publisher = place.outbox.publisher(taker.clone()).options(once).start().await.unwrap();
    until("nothing is left but dead letters", async || place.outbox.status().await.unwrap().pending == 0)
        .await;
    let letters = place.outbox.dead_letters(10).await.unwrap();
    let first = letters.iter().find(|letter| letter.message.aggregate_id == "1").unwrap();
    assert!(first.error.contains("`id`"), "{}", first.error);
    for letter in &letters {
        place.outbox.discard(letter.message.id).await.unwrap();
    }
    assert_eq!(place.outbox.status().await.unwrap().dead_letters, 0);
    place.write("1", "order.paid").await;
    taker.until(|taken| types(taken, "1") == ["order.paid"]).await;
    publisher.stop().await;
}

/// The tables of SQLite as a service may have made them by itself, with columns that take NULL.
async fn lax() -> (Place, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/shop.db?mode=rwc", directory.path().display());
    let place = Place::at(&url, "lax").await;
    let script = include_str!("../../sql/sqlite.sql");
    let script = script.replacen("aggregate_type TEXT NOT NULL", "aggregate_type TEXT", 1);
    place.run(&script.replacen("aggregate_id TEXT NOT NULL", "aggregate_id TEXT", 1)).await;
    (place, directory)
}

/// T4: where a column takes any value, a name that cannot be read stops its own messages and no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_cannot_be_read_stops_no_other_aggregate() {
    let (place, _directory) = lax().await;
    let unreadable = ["x'ff'", "x'ff'", "CAST(x'ff' AS TEXT)", "NULL", "NULL"];
    for (number, value) in unreadable.iter().enumerate() {
        place.write("bad", "order.placed").await;
        let column = if number % 2 == 0 { "aggregate_id" } else { "aggregate_type" };
        place.run(&format!("UPDATE outbox SET {column} = {value} WHERE position = {}", number + 1)).await;
    }
    for _ in 0..5 {
        for order in ["1", "2"] {
            place.write(order, "order.changed").await;
        }
    }
    let taker = Taker::new();
    // One message at a time, so that each look finds one that cannot be read first.
    let narrow = Options { batch: 1, concurrency: 2, ..options() };
    let publisher = place.outbox.publisher(taker.clone()).options(narrow).start().await.unwrap();
    let taken = taker.count(10).await;
    assert_in_order(&taken);
    until("nothing is left but dead letters", async || place.outbox.status().await.unwrap().pending == 0)
        .await;
    let letters = place.outbox.dead_letters(10).await.unwrap();
    assert_eq!(letters.len(), unreadable.len(), "{letters:?}");
    for letter in &letters {
        assert!(letter.error.contains("aggregate_"), "{}", letter.error);
    }
    // Mended and retried, one comes; retried as it is, one is dead again; the others are discarded.
    place.run("UPDATE outbox SET aggregate_type = 'order', aggregate_id = '3' WHERE position = 1").await;
    assert_eq!(place.outbox.retry_all().await.unwrap(), 5);
    let taken = taker.count(11).await;
    assert_eq!(types(&taken, "3"), ["order.placed"]);
    until("the others are dead again", async || place.outbox.status().await.unwrap().dead_letters == 4).await;
    for letter in place.outbox.dead_letters(10).await.unwrap() {
        place.outbox.discard(letter.message.id).await.unwrap();
    }
    publisher.stop().await;
    let status = place.outbox.status().await.unwrap();
    assert_eq!((status.pending, status.held, status.dead_letters), (0, 0, 0));
    assert_eq!(taker.taken().len(), 11);
}

/// Names that this library would not write are names as others: their messages are published, and one whose
/// names are changed after it was refused is recorded under the new ones.
pub async fn names_that_another_program_wrote_are_names(place: Place) {
    place.write("1", "order.placed").await;
    place.run("UPDATE outbox SET aggregate_type = '', aggregate_id = ''").await;
    let taker = Taker::judging(|message| match message.event_type.as_str() {
        "order.bad" => Verdict::Refuse,
        _ => Verdict::Take,
    });
    let publisher = place.outbox.publisher(taker.clone()).options(options()).start().await.unwrap();
    taker.count(1).await;
    publisher.stop().await;

    place.write("2", "order.bad").await;
    let long = Backoff::new(Duration::from_secs(9_000), Duration::from_secs(9_000));
    let publisher = place
        .outbox
        .publisher(taker.clone())
        .options(Options { backoff: long, ..options() })
        .start()
        .await
        .unwrap();
    until("it is refused", async || place.outbox.status().await.unwrap().failing.len() == 1).await;
    place.run("UPDATE outbox SET aggregate_id = '3' WHERE aggregate_id = '2'").await;
    until("it is refused again", async || publisher.health().refused >= 2).await;
    place.write("4", "order.placed").await;
    taker.count(2).await;
    until("it is recorded", async || {
        let failing = place.outbox.status().await.unwrap().failing;
        failing.len() == 1 && failing[0].aggregate_id == "3"
    })
    .await;
    assert_eq!(publisher.health().problem, None);
    publisher.stop().await;
}

/// An error that panics when it is asked what it says.
#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("it cannot be said")
    }
}

impl std::error::Error for Unspeakable {}

/// An aggregate whose worker has panicked is tried again, and does not stay active.
pub async fn an_error_that_panics_is_a_refusal(place: Place) {
    place.write("1", "order.placed").await;
    place.write("2", "order.placed").await;
    let panics = Arc::new(AtomicU32::new(0));
    let (taken, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let sink = {
        let panics = panics.clone();
        move |message: annals_outbox::Message| {
            let (panics, taken) = (panics.clone(), taken.clone());
            async move {
                if message.aggregate_id == "1" && panics.fetch_add(1, Ordering::SeqCst) < 2 {
                    return Err(annals_outbox::SinkError::refused(Unspeakable));
                }
                Ok(taken.send(message.aggregate_id)?)
            }
        }
    };
    let publisher = place.outbox.publisher(sink).options(options()).start().await.unwrap();
    let mut orders = [receiver.recv().await.unwrap(), receiver.recv().await.unwrap()];
    orders.sort();
    assert_eq!(orders, ["1", "2"]);
    assert_eq!(publisher.health().refused, 2);
    tokio::join!(publisher.stop(), publisher.stop());
    publisher.stop().await;
    assert!(!place.outbox.status().await.unwrap().publishing, "every stop has waited for the end");
}
