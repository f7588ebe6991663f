//! Several publishers of one outbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals_outbox::{Message, Options, Sink, SinkError};

use crate::support::{Place, Taker, about, assert_in_order, options, until};

/// O4: one publishes; when it stops, the next does, at once.
pub async fn one_publishes_and_the_next_takes_over(place: Place) {
    let taker = Taker::new();
    let mut publishers = Vec::new();
    for _ in 0..3 {
        publishers.push(place.outbox.publisher(taker.clone()).options(options()).start().await.unwrap());
    }
    let mut written = 0;
    while !publishers.is_empty() {
        until("one is active", async || publishers.iter().any(|publisher| publisher.health().active)).await;
        for _ in 0..10 {
            place.write(&(written % 3).to_string(), "order.changed").await;
            written += 1;
        }
        taker.count(written).await;
        let active: Vec<_> =
            (0..publishers.len()).filter(|&index| publishers[index].health().active).collect();
        assert_eq!(active.len(), 1, "one publishes");
        assert!(place.outbox.status().await.unwrap().publishing);
        publishers.remove(active[0]).stop().await;
    }
    assert!(!place.outbox.status().await.unwrap().publishing);
    assert_in_order(&taker.taken());
    assert_eq!(taker.taken().len(), written, "nothing comes twice");
}

/// L3: who has lost the lease, because it was silent for too long, publishes nothing until it has it again.
pub async fn a_lease_that_is_lost_ends_publishing(place: Place) {
    let taker = Taker::new();
    let short =
        Options { timeout: Duration::from_millis(300), lease: Duration::from_millis(600), ..options() };
    let publisher = place.outbox.publisher(taker.clone()).options(short).start().await.unwrap();
    until("it is active", async || publisher.health().active).await;
    // Another has it, and will not give it up.
    place.run("UPDATE outbox_publisher SET holder = 'another', lease_until = NULL").await;
    until("it knows", async || !publisher.health().active).await;
    place.write("1", "order.placed").await;
    // Nothing can be waited for: what must not come would come within this time.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(taker.taken().len(), 0);
    place.run("UPDATE outbox_publisher SET lease_until = (SELECT created_at FROM outbox)").await;
    taker.count(1).await;
    publisher.stop().await;
}

/// L3: also one that is in the middle of an aggregate's messages.
pub async fn a_lease_that_is_lost_ends_a_worker(place: Place) {
    const MESSAGES: usize = 100;
    let mut transaction = place.begin().await;
    for _ in 0..MESSAGES {
        transaction.write(&place.outbox, &about("1", "order.changed")).await.unwrap();
    }
    transaction.commit().await;
    let taker = Taker::new();
    let sink = Slow(taker.clone());
    let short =
        Options { timeout: Duration::from_millis(300), lease: Duration::from_millis(600), ..options() };
    let publisher = place.outbox.publisher(sink).options(short).start().await.unwrap();
    taker.count(1).await;
    place.run("UPDATE outbox_publisher SET holder = 'another', lease_until = NULL").await;
    until("it knows", async || !publisher.health().active).await;
    // One may be under way. What must not come would come within this time.
    let taken = taker.taken().len();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let later = taker.taken().len();
    assert!(later <= taken + 1, "{later} were published, {taken} under the lease");
    place.run("UPDATE outbox_publisher SET holder = NULL").await;
    let taken = taker.count(MESSAGES).await;
    publisher.stop().await;
    assert_in_order(&taken);
}

/// R1: the next publisher would publish it again.
pub async fn what_was_published_is_marked_though_another_has_the_lease(place: Place) {
    place.write("1", "order.placed").await;
    let (taken, take) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let sink = {
        let (taken, take) = (taken.clone(), take.clone());
        move |_: annals_outbox::Message| {
            let (taken, take) = (taken.clone(), take.clone());
            async move {
                taken.notify_one();
                take.notified().await;
                Ok(())
            }
        }
    };
    let short = Options { timeout: Duration::from_secs(5), lease: Duration::from_secs(10), ..options() };
    let publisher = place.outbox.publisher(sink).options(short).start().await.unwrap();
    taken.notified().await;
    place.run("ALTER TABLE outbox RENAME TO outbox_away").await;
    take.notify_one();
    until("it cannot mark", async || {
        publisher.health().published == 1 && publisher.health().problem.is_some()
    })
    .await;
    place.run("UPDATE outbox_publisher SET holder = 'another', lease_until = NULL").await;
    until("it knows", async || !publisher.health().active).await;
    place.run("ALTER TABLE outbox_away RENAME TO outbox").await;
    until("it is marked", async || place.outbox.status().await.unwrap().pending == 0).await;
    publisher.stop().await;
}

/// The database does not respond when the lease is to be renewed, until the lease has ended.
pub async fn a_problem_is_over_when_the_database_answers_though_nothing_is_to_be_published(place: Place) {
    let short =
        Options { timeout: Duration::from_millis(300), lease: Duration::from_millis(600), ..options() };
    let publisher = place.outbox.publisher(Taker::new()).options(short).start().await.unwrap();
    until("it is active", async || publisher.health().active).await;
    place.run("ALTER TABLE outbox_publisher RENAME TO outbox_publisher_away").await;
    until("it is noticed", async || publisher.health().problem.is_some()).await;
    place.run("ALTER TABLE outbox_publisher_away RENAME TO outbox_publisher").await;
    until("it is over", async || publisher.health().problem.is_none()).await;
    publisher.stop().await;
}

/// Takes twenty milliseconds for a message.
struct Slow(Taker);

#[async_trait::async_trait]
impl Sink for Slow {
    async fn publish(&self, message: &Message) -> Result<(), SinkError> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.0.publish(message).await
    }
}

/// Is there as long as a call of the sink is.
struct UnderWay(Arc<AtomicBool>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// A publisher that is stopped while the sink hangs and its messages cannot be marked lets the next one begin
/// when nothing of it is under way any more.
pub async fn a_call_of_the_sink_is_gone_before_the_lease_is(place: Place) {
    for order in ["hangs", "1"] {
        place.write(order, "order.placed").await;
    }
    let (under_way, take) = (Arc::new(AtomicBool::new(false)), Arc::new(tokio::sync::Notify::new()));
    let sink = {
        let (under_way, take) = (under_way.clone(), take.clone());
        move |message: annals_outbox::Message| {
            let (under_way, take) = (under_way.clone(), take.clone());
            async move {
                if message.aggregate_id == "hangs" {
                    under_way.store(true, Ordering::SeqCst);
                    let _here = UnderWay(under_way);
                    std::future::pending::<()>().await;
                }
                take.notified().await;
                Ok(())
            }
        }
    };
    let publisher = place.outbox.publisher(sink).options(options()).start().await.unwrap();
    until("it hangs", async || under_way.load(Ordering::SeqCst)).await;
    place.run("ALTER TABLE outbox RENAME TO outbox_away").await;
    take.notify_one();
    until("it cannot mark", async || publisher.health().problem.is_some()).await;
    // The lease cannot be given back before this is committed.
    let mut open = place.begin().await;
    open.run(&format!("UPDATE {}_publisher SET format = format", place.name)).await;
    let stop = publisher.stop();
    until("the call is gone", async || !under_way.load(Ordering::SeqCst)).await;
    open.commit().await;
    stop.await;
    assert_eq!(place.number("SELECT COUNT(*) FROM outbox_publisher WHERE holder IS NULL").await, 1);
}
