//! The outbox of a service, as the person on call sees it.

use std::time::Duration;

use annals_core::{Backoff, ContentType};
use annals_outbox::{Message, NewMessage, Options, Outbox, SinkError};
use serde_json::{Value, json};
use sqlx::SqlitePool;

use crate::support::Place;

/// An outbox whose message `order.bad` was refused until it was dead. Its publisher has stopped.
async fn with_a_dead_letter(place: &Place) -> Outbox {
    let url = format!("sqlite:{}?mode=rwc", place.path("shop.db").display());
    let pool = SqlitePool::connect(&url).await.unwrap();
    let outbox = Outbox::new(pool.clone());
    let write = async |event_type: &str| {
        let data = json!({"cents": 5});
        let message = NewMessage::json("order", "1", event_type, &data).unwrap().with_header("by", "kim");
        outbox.write(&mut *pool.acquire().await.unwrap(), &message).await.unwrap();
    };
    assert_eq!(place.ok("outbox migrate sqlite:shop.db"), "the outbox `outbox` in sqlite:shop.db is ready\n");
    write("order.bad").await;
    let refuse = |_: Message| async { Err(SinkError::refused("no such customer\u{1b}[31m")) };
    let options = Options {
        attempts_max: 2,
        backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(1)),
        poll: Duration::from_millis(5),
        ..Options::default()
    };
    let publisher = outbox.publisher(refuse).options(options).start().await.unwrap();
    while outbox.status().await.unwrap().dead_letters == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    publisher.stop().await;
    write("order.paid").await;
    outbox
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_seen_retried_and_dropped() {
    let place = Place::new();
    let outbox = with_a_dead_letter(&place).await;
    let letter: Value = serde_json::from_str(&place.ok("outbox list sqlite:shop.db --json")).unwrap();
    for (field, value) in [
        ("aggregate_id", json!("1")),
        ("event_type", json!("order.bad")),
        ("attempts", json!(2)),
        ("waiting", json!(1)),
        ("data", json!({"cents": 5})),
        ("headers", json!({"by": "kim"})),
        ("content_type", json!(ContentType::Json.as_str())),
    ] {
        assert_eq!(letter[field], value, "{field}");
    }
    let id = letter["id"].as_str().unwrap();
    let table = place.ok("outbox list sqlite:shop.db");
    assert!(table.contains(id) && table.contains("order/1") && table.contains("no such customer"), "{table}");
    assert!(!table.contains('\u{1b}'), "what a sink says does not steer a terminal");
    let status = place.json("outbox status sqlite:shop.db --json");
    assert_eq!(
        (&status["pending"], &status["held"], &status["dead_letters"]),
        (&json!(0), &json!(2), &json!(1))
    );
    let status = place.ok("outbox status sqlite:shop.db");
    assert!(status.starts_with("0 to be published, 2 held; the oldest has waited for "), "{status}");
    assert!(status.ends_with("\n1 dead letters\nno publisher is running\n"), "{status}");

    assert_eq!(place.ok("outbox retry sqlite:shop.db --all"), "1 dead letter will be tried again\n");
    assert_eq!(place.ok("outbox retry sqlite:shop.db --all"), "0 dead letters will be tried again\n");
    assert_eq!(place.ok("outbox list sqlite:shop.db"), "no dead letters\n");
    assert_eq!(place.json("outbox status sqlite:shop.db --json")["pending"], 2);
    for command in ["retry", "drop"] {
        let output = place.fails(3, &format!("outbox {command} sqlite:shop.db {id}"));
        assert_eq!(output, format!("there is no dead letter with the id {id}"));
    }

    let other = Place::new();
    drop(with_a_dead_letter(&other).await);
    let letter: Value = serde_json::from_str(&other.ok("outbox list sqlite:shop.db --json")).unwrap();
    let id = letter["id"].as_str().unwrap();
    let dropped = other.ok(&format!("outbox drop sqlite:shop.db {id}"));
    assert_eq!(dropped, format!("{id} is dropped; its aggregate is unblocked\n"));
    assert_eq!(other.json("outbox status sqlite:shop.db --json")["pending"], 1);
    drop(outbox);
}

#[test]
fn a_missing_outbox_is_named() {
    let place = Place::new();
    let output = place.fails(5, "outbox list sqlite:none.db");
    assert!(output.starts_with("cannot open sqlite:none.db: "), "{output}");
    let output = place.fails(5, "outbox list postgres://kim:secret@127.0.0.1:1/shop");
    assert!(output.starts_with("cannot open postgres://kim:***@127.0.0.1:1/shop: "), "{output}");
    let output = place.fails(3, "outbox status sqlite:empty.db?mode=rwc");
    assert!(output.starts_with("there are no tables of the outbox `outbox`"), "{output}");
    let output = place.fails(2, "outbox status redis://x");
    assert!(output.contains("must be `postgres://…`, `mysql://…` or `sqlite:FILE`"), "{output}");
    let output = place.fails(2, "outbox status sqlite:empty.db --name Shop");
    assert!(output.starts_with("name `Shop` must be 1 to 40 of a to z"), "{output}");
    place.fails(2, "outbox retry sqlite:empty.db");
    place.fails(2, "outbox drop sqlite:empty.db 7");
}
