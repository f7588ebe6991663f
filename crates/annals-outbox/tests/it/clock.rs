//! A clock that was ahead once.

use std::time::Duration;

use crate::support::{Place, Taker, options, until};

/// What a publisher leaves that was killed while the clock of the machine was a day ahead.
pub async fn a_lease_from_a_clock_that_was_ahead_does_not_stop_publishing(place: Place) {
    place.write("1", "order.placed").await;
    place
        .run("UPDATE outbox_publisher SET holder = 'killed', lease_until = (SELECT created_at FROM outbox) + 86460000000")
        .await;
    let taker = Taker::new();
    let publisher = place.outbox.publisher(taker.clone()).options(options()).start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (taken, health) = (taker.taken().len(), publisher.health());
    publisher.stop().await;
    assert_eq!(taken, 1, "{health:?}, {:?}", place.outbox.status().await);
}

/// What is a hundred years from now, as this database says it.
fn in_a_century(place: &Place) -> &'static str {
    match place.pool {
        annals_outbox::Pool::Postgres(_) => "now() + interval '100 years'",
        annals_outbox::Pool::MySql(_) => "TIMESTAMPADD(YEAR, 100, UTC_TIMESTAMP(6))",
        _ => "CAST(unixepoch('subsec') * 1000000 AS INTEGER) + 3155760000000000",
    }
}

/// A lease, a next attempt and a mark: each is from a clock that was ahead, and none is waited for.
pub async fn a_time_that_cannot_be_is_not_waited_for(place: Place) {
    let later = in_a_century(&place);
    for order in ["1", "2"] {
        place.write(order, "order.placed").await;
    }
    place.run(&format!("UPDATE outbox_publisher SET holder = 'killed', lease_until = {later}")).await;
    let status = place.outbox.status().await.unwrap();
    assert!(!status.publishing, "{status:?}");
    assert_eq!(
        status.lease.map(|lease| (lease.holder, lease.believable)),
        Some(("killed".to_owned(), false))
    );
    place
        .run(&format!(
            "INSERT INTO outbox_failures
                (aggregate_type, aggregate_id, position, attempts, failed_at, next_attempt_at, last_error, dead)
             SELECT aggregate_type, aggregate_id, position, 1, {later}, {later}, 'refused', FALSE FROM outbox
             WHERE aggregate_id = '2'"
        ))
        .await;
    place
        .run(&format!(
            "INSERT INTO outbox (id, aggregate_type, aggregate_id, sequence, event_type, event_data, processed, processed_at)
             VALUES ('00000000-0000-4000-8000-000000000001', 'order', '3', 1, 'order.placed', '1', TRUE, {later})"
        ))
        .await;
    let taker = Taker::new();
    let publisher = place.outbox.publisher(taker.clone()).options(options()).start().await.unwrap();
    taker.count(2).await;
    until("what was marked in the future counts as marked now", async || {
        place.number(&format!("SELECT COUNT(*) FROM outbox WHERE processed_at >= {later}")).await == 0
    })
    .await;
    publisher.stop().await;
    assert_eq!(place.number("SELECT COUNT(*) FROM outbox WHERE processed = TRUE").await, 3);
}

/// A lease that can be is waited for, and who waits long says for what.
pub async fn a_publisher_that_waits_says_for_what(place: Place) {
    let quick = annals_outbox::Options {
        timeout: Duration::from_millis(50),
        lease: Duration::from_millis(100),
        ..options()
    };
    let active = place.outbox.publisher(Taker::new()).options(options()).start().await.unwrap();
    until("it is active", async || active.health().active).await;
    let holder = place.outbox.status().await.unwrap().lease.unwrap();
    assert!(holder.believable, "{holder:?}");
    let waiting = place.outbox.publisher(Taker::new()).options(quick).start().await.unwrap();
    until("it says for what it waits", async || waiting.health().waits_for.is_some()).await;
    let message = waiting.health().waits_for.unwrap();
    assert!(message.contains(&holder.holder), "{message}");
    active.stop().await;
    until("it is active", async || waiting.health().active).await;
    assert_eq!(waiting.health().waits_for, None);
    waiting.stop().await;
}
