//! Writing: in the caller's transaction, one transaction for each aggregate at a time.

use annals_core::{ContentType, EventId};
use annals_outbox::{Error, NewMessage, Outbox};
use serde_json::json;

use crate::support::{Place, Taker, about, options};

/// O1: what a sink is given is what was written, byte for byte.
pub async fn a_message_comes_as_it_was_written(place: Place) {
    let json =
        NewMessage::json("주문", "사십이 ✓", "order.placed", &json!({"sum": 1.50, "note": "a\0b\u{1f600}"}))
            .unwrap()
            .with_header("initiator", "user:7")
            .with_header("own", "\0\"{}");
    let spaced = NewMessage::bytes(
        "order",
        "a",
        "order.kept",
        ContentType::Json,
        " {\"b\" : 1,\n\"a\":1.0} ".to_owned(),
    );
    let all: Vec<u8> = (0..=255).collect();
    let binary = NewMessage::bytes("order", "A", "order.drawn", ContentType::Binary, all);
    let other = NewMessage::bytes("order", "b", "order.noted", ContentType::new("text/plain"), "");
    let large = NewMessage::bytes("order", "c", "order.seen", ContentType::Binary, vec![7; 8 << 20]);
    let written = [json, spaced, binary, other, large];
    let mut transaction = place.begin().await;
    for message in &written {
        transaction.write(&place.outbox, message).await.unwrap();
    }
    transaction.commit().await;
    let taker = Taker::new();
    let publisher = place.outbox.publisher(taker.clone()).options(options()).start().await.unwrap();
    let mut taken = taker.count(written.len()).await;
    publisher.stop().await;
    taken.sort_by_key(|message| written.iter().position(|written| written.id == message.id));
    for (taken, written) in taken.into_iter().zip(written) {
        assert_eq!((taken.sequence, taken.attempt), (1, 1));
        let age =
            annals_core::Clock::now(&annals_core::SystemClock).as_micros() - taken.created_at.as_micros();
        assert!(age.abs() < 600_000_000, "{}", taken.created_at);
        let again = NewMessage {
            id: taken.id,
            aggregate_type: taken.aggregate_type,
            aggregate_id: taken.aggregate_id,
            event_type: taken.event_type,
            content_type: taken.content_type,
            data: taken.data,
            headers: taken.headers,
        };
        assert_eq!(again, written);
    }
}

/// O1: a message is committed with the state that it is about.
pub async fn what_is_rolled_back_is_not_published(place: Place) {
    for commits in [false, true] {
        let mut transaction = place.begin().await;
        transaction.run(&format!("INSERT INTO {}_orders VALUES ('7')", place.name)).await;
        transaction.write(&place.outbox, &about("7", &format!("order.{commits}"))).await.unwrap();
        if commits {
            transaction.commit().await;
        } else {
            transaction.rollback().await;
        }
        let (state, messages) = (
            place.number("SELECT COUNT(*) FROM outbox_orders").await,
            place.number("SELECT COUNT(*) FROM outbox").await,
        );
        assert_eq!((state, messages), (i64::from(commits), i64::from(commits)));
    }
    let taker = Taker::new();
    let publisher = place.outbox.publisher(taker.clone()).options(options()).start().await.unwrap();
    let taken = taker.count(1).await;
    publisher.stop().await;
    assert_eq!((taken[0].event_type.as_str(), taken[0].sequence), ("order.true", 1));
}

/// The transaction of the service is as it was, and can go on.
pub async fn what_is_not_acceptable_is_refused_before_anything_is_written(place: Place) {
    let mut transaction = place.begin().await;
    for wrong in [about("", "order.placed"), about("1", ""), about("1 ", "x"), about(&"1".repeat(256), "x")] {
        let refused = transaction.write(&place.outbox, &wrong).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    let good = about("1", "order.placed");
    transaction.write(&place.outbox, &good).await.unwrap();
    transaction.commit().await;
    assert_eq!(place.number("SELECT COUNT(*) FROM outbox").await, 1);
    assert_eq!(place.number("SELECT COUNT(*) FROM outbox_aggregates").await, 1);

    // A duplicate id is reported as such; after it PostgreSQL only lets the transaction end.
    let mut transaction = place.begin().await;
    let refused = transaction.write(&place.outbox, &about("2", "x").with_id(good.id)).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("id {} is in the outbox already", good.id));
    transaction.rollback().await;
}

/// W2: who comes second waits until the first has ended, and so gets the later place.
pub async fn one_aggregate_is_written_by_one_transaction_at_a_time(place: Place) {
    let mut first = place.begin().await;
    first.write(&place.outbox, &about("1", "order.first")).await.unwrap();
    // Another aggregate does not wait.
    place.write("2", "order.other").await;
    let second = tokio::spawn({
        let (mut transaction, outbox) = (place.begin().await, place.outbox.clone());
        async move {
            transaction.write(&outbox, &about("1", "order.second")).await.unwrap();
            transaction.commit().await;
        }
    });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(!second.is_finished(), "it must wait");
    first.write(&place.outbox, &about("1", "order.first_again")).await.unwrap();
    first.commit().await;
    second.await.unwrap();
    let taker = Taker::new();
    let publisher = place.outbox.publisher(taker.clone()).options(options()).start().await.unwrap();
    let taken = taker.count(4).await;
    publisher.stop().await;
    assert_eq!(crate::support::types(&taken, "1"), ["order.first", "order.first_again", "order.second"]);
    crate::support::assert_in_order(&taken);
}

/// Several may make the tables at once; tables that are missing, or newer, are reported as such.
pub async fn tables_are_made_once_and_known(place: Place) {
    let other = Outbox::named(place.pool.clone(), &format!("{}b", place.name)).unwrap();
    let mut transaction = place.begin().await;
    let missing = transaction.write(&other, &about("1", "x")).await.unwrap_err();
    assert!(matches!(missing, Error::NoTables(_)), "{missing}");
    transaction.rollback().await;
    let missing = other.publisher(Taker::new()).start().await.err().unwrap().to_string();
    assert_eq!(
        missing,
        format!(
            "there are no tables of the outbox `{}b`: call `Outbox::migrate`, or put its SQL into \
        your own migrations",
            place.name
        )
    );
    assert!(matches!(other.status().await, Err(Error::NoTables(_))));

    let made: Vec<_> = (0..4)
        .map(|_| {
            let other = other.clone();
            tokio::spawn(async move { other.migrate().await })
        })
        .collect();
    for made in made {
        made.await.unwrap().unwrap();
    }
    place.run("UPDATE outbox_publisher SET format = 2").await;
    for refused in
        [place.outbox.migrate().await, place.outbox.publisher(Taker::new()).start().await.map(drop)]
    {
        assert!(matches!(refused, Err(Error::NewerTables(2))), "{refused:?}");
    }
    for wrong in ["", "1x", "a-b", "Outbox", "x;", &"x".repeat(41)] {
        assert!(matches!(Outbox::named(place.pool.clone(), wrong), Err(Error::Invalid(_))), "{wrong}");
    }
    assert!(matches!(place.outbox.retry(EventId::generate()).await, Err(Error::NoDeadLetter(_))));
}
