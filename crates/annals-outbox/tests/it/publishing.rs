//! Publishing: in order, soon, and how long messages are kept afterwards.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{EventStoreExt, MemoryStore, Query};
use annals_outbox::{LogSink, Message, Options, Sink, SinkError};
use tokio::sync::Semaphore;

use crate::support::{Place, Taker, about, assert_in_order, options, until};

/// O2: many aggregates at once, each in its order; nothing twice while nothing fails.
pub async fn messages_of_an_aggregate_keep_their_order(place: Place) {
    const WRITERS: usize = 4;
    const EACH: usize = 40;
    let taker = Taker::new();
    let few = Options { batch: 7, concurrency: 3, ..options() };
    let publisher = place.outbox.publisher(taker.clone()).options(few).start().await.unwrap();
    let place = Arc::new(place);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (place, waker) = (place.clone(), publisher.waker());
            tokio::spawn(async move {
                for number in 0..EACH {
                    // Of its own, and one that all of them write.
                    let order = if number % 2 == 0 { "all".to_owned() } else { writer.to_string() };
                    place.write(&order, "order.changed").await;
                    waker.wake();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let taken = taker.count(WRITERS * EACH).await;
    publisher.stop().await;
    assert_in_order(&taken);
    assert_eq!(taker.taken().len(), WRITERS * EACH, "nothing comes twice");
    let status = place.outbox.status().await.unwrap();
    assert_eq!((status.pending, status.held, status.oldest, status.publishing), (0, 0, None, false));
}

/// A message that has got its place before others and is committed after them comes all the same.
pub async fn a_message_that_is_committed_late_is_not_skipped(place: Place) {
    let mut late = place.begin().await;
    late.write(&place.outbox, &about("late", "order.placed")).await.unwrap();
    let taker = Taker::new();
    let publisher = place.outbox.publisher(taker.clone()).options(options()).start().await.unwrap();
    for _ in 0..3 {
        place.write("early", "order.changed").await;
    }
    let taken = taker.count(3).await;
    assert!(taken.iter().all(|message| message.aggregate_id == "early"));
    late.commit().await;
    assert_eq!(taker.count(4).await[3].aggregate_id, "late");
    publisher.stop().await;
}

/// Who is woken does not wait for the next look.
pub async fn a_wake_is_heard_at_once(place: Place) {
    let taker = Taker::new();
    let seldom = Options { poll: Duration::from_secs(100_000), ..options() };
    let publisher = place.outbox.publisher(taker.clone()).options(seldom).start().await.unwrap();
    for number in 1..=3 {
        place.write("1", "order.changed").await;
        publisher.waker().wake();
        taker.count(number).await;
    }
    publisher.stop().await;
}

/// With the trigger of `sql/postgres_notify.sql`, also from another process.
pub async fn a_notification_is_heard_at_once(place: Place) {
    let trigger = include_str!("../../sql/postgres_notify.sql").replace("outbox", &place.name);
    let annals_outbox::Pool::Postgres(pool) = &place.pool else { panic!("it is not PostgreSQL") };
    sqlx::raw_sql(sqlx::AssertSqlSafe(trigger)).execute(pool).await.unwrap();
    let taker = Taker::new();
    let seldom = Options { poll: Duration::from_secs(100_000), ..options() };
    let publisher = place.outbox.publisher(taker.clone()).options(seldom).start().await.unwrap();
    let listens = format!("SELECT COUNT(*) FROM pg_stat_activity WHERE query = 'LISTEN \"{}\"'", place.name);
    until("it listens", async || place.number(&listens).await == 1).await;
    for number in 1..=3 {
        place.write("1", "order.changed").await;
        taker.count(number).await;
    }
    publisher.stop().await;
    until("it listens no more", async || place.number(&listens).await == 0).await;
}

/// Messages are kept as long as asked, and deleted some at a time.
pub async fn what_was_published_is_kept_for_a_while_and_then_deleted(place: Place) {
    let taker = Taker::new();
    let publisher = place.outbox.publisher(taker.clone()).options(options()).start().await.unwrap();
    place.write("1", "order.placed").await;
    taker.count(1).await;
    publisher.stop().await;
    assert_eq!(place.number("SELECT COUNT(*) FROM outbox WHERE processed_at IS NOT NULL").await, 1);

    let mut transaction = place.begin().await;
    for _ in 0..1_100 {
        transaction.write(&place.outbox, &about("2", "order.changed")).await.unwrap();
    }
    transaction.commit().await;
    let gone = Options { keep: Duration::ZERO, ..options() };
    let publisher = place.outbox.publisher(taker.clone()).options(gone).start().await.unwrap();
    until("all are deleted", async || place.number("SELECT COUNT(*) FROM outbox").await == 0).await;
    assert_eq!(taker.taken().len(), 1_101, "none was deleted before it was published");
    // Sequences go on where they were.
    place.write("2", "order.changed").await;
    assert_eq!(taker.count(1_102).await.last().unwrap().sequence, 1_101);
    publisher.stop().await;
}

/// A sink that takes a message when it is let.
struct Slow(Taker, Arc<Semaphore>);

#[async_trait::async_trait]
impl Sink for Slow {
    async fn publish(&self, message: &Message) -> Result<(), SinkError> {
        self.1.acquire().await?.forget();
        self.0.publish(message).await
    }
}

/// What is with the sink when a stop comes is finished and marked, and nothing new is begun.
pub async fn a_stop_finishes_what_is_under_way(place: Place) {
    place.write("1", "order.placed").await;
    place.write("1", "order.paid").await;
    let (taker, may) = (Taker::new(), Arc::new(Semaphore::new(0)));
    let publisher =
        place.outbox.publisher(Slow(taker.clone(), may.clone())).options(options()).start().await.unwrap();
    until("it is active", async || publisher.health().active).await;
    let health = publisher.health();
    assert_eq!((health.published, health.refused, health.problem), (0, 0, None));
    let stopping = tokio::spawn(publisher.stop());
    tokio::time::sleep(Duration::from_millis(100)).await;
    may.add_permits(10);
    stopping.await.unwrap();
    let taken = taker.taken();
    assert!(taken.len() <= 1, "{taken:?}");
    let marked = place.number("SELECT COUNT(*) FROM outbox WHERE processed = TRUE").await;
    assert_eq!(marked, i64::try_from(taken.len()).unwrap());
    let publisher = place.outbox.publisher(taker.clone()).options(options()).start().await.unwrap();
    taker.count(2).await;
    publisher.stop().await;
    assert_eq!(crate::support::types(&taker.taken(), "1"), ["order.placed", "order.paid"]);
}

/// A sink into a log whose answer is lost the first time, as if the process had ended just then.
struct Forgetful(LogSink, std::sync::Mutex<std::collections::HashSet<annals_core::EventId>>);

#[async_trait::async_trait]
impl Sink for Forgetful {
    async fn publish(&self, message: &Message) -> Result<(), SinkError> {
        self.0.publish(message).await?;
        if self.1.lock().unwrap().insert(message.id) {
            return Err(SinkError::refused("the answer is lost"));
        }
        Ok(())
    }
}

/// Events of services that store state come into a log of Annals, each once, in order, with what is known of
/// them.
pub async fn a_log_has_each_message_once(place: Place) {
    let store = Arc::new(MemoryStore::new());
    let mut written = Vec::new();
    for number in 0..6 {
        let message = about(&format!("{}", number % 2), "order.changed");
        let message = message.with_header("initiator", "user:7").with_header("shop", "east");
        let mut transaction = place.begin().await;
        transaction.write(&place.outbox, &message).await.unwrap();
        transaction.commit().await;
        written.push(message);
    }
    let sink = Forgetful(LogSink::new(store.clone()), Default::default());
    let publisher = place.outbox.publisher(sink).options(options()).start().await.unwrap();
    until("all is published", async || place.outbox.status().await.unwrap().pending == 0).await;
    publisher.stop().await;
    for order in 0..2 {
        let stream = annals_core::StreamId::of("order", &order.to_string()).unwrap();
        let events = store.stream_events(&stream).await.unwrap();
        let expected: Vec<_> = written.iter().skip(order).step_by(2).map(|message| message.id).collect();
        assert_eq!(events.iter().map(|event| event.id()).collect::<Vec<_>>(), expected);
        let event = &events[0];
        assert_eq!((event.event_type(), event.data()), ("order.changed", &*written[order].data));
        assert_eq!(event.metadata().initiator.as_deref(), Some("user:7"));
        assert_eq!(event.metadata().own.len(), 1);
        assert_eq!(
            event.idempotency_key().as_ref().map(|key| key.as_str().to_owned()),
            Some(event.id().to_string())
        );
        assert!(event.occurred_at().is_some());
    }
    assert_eq!(store.log_events(Query::all()).await.unwrap().len(), 6);
}
