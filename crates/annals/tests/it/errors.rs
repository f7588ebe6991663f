//! The text of an error says why, however it is printed, and says nothing twice.

use std::error::Error as _;
use std::time::Duration;

use annals::{Annals, Phase};
use annals_core::{Append, Expected, NewEvent, StreamId};

use crate::bank::{Account, Balances, bank};

/// The text of an error and of each of its sources, as loggers print them.
fn printed(error: &dyn std::error::Error) -> String {
    let (mut text, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn says_once(error: &(dyn std::error::Error + 'static), what: &str) {
    assert_eq!(error.to_string().matches(what).count(), 1, "its text alone: {error}");
    assert_eq!(printed(error).matches(what).count(), 1, "with its sources: {}", printed(error));
    assert_eq!(annals_core::chain(error), error.to_string());
}

#[tokio::test]
async fn a_directory_that_is_open_elsewhere_is_named_in_the_text_of_the_error() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().display());
    let open = Annals::open(&url).await.unwrap();
    let refused = Annals::open(&url).await.err().unwrap();
    says_once(&refused, "is open in another process");
    says_once(&refused, "the store is unavailable");
    assert!(refused.source().is_none() && refused.cause().is_some());
    assert!(format!("{refused:?}").contains("is open in another process"), "{refused:?}");
    open.shutdown().await;
}

#[tokio::test]
async fn a_projection_that_is_stuck_says_why_when_it_does_not_settle() {
    let annals = bank().await;
    annals.project(Balances).start().await.unwrap();
    append(&annals, r#"{"holder":"kim"}"#).await;
    while annals.status().await.unwrap().iter().all(|status| status.phase != Phase::Retrying) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let unsettled = annals.settle_within(Duration::ZERO).await.unwrap_err();
    says_once(&unsettled, "at 0 of 1");
    says_once(&unsettled, "missing field `owner`");
}

#[tokio::test]
async fn an_event_that_cannot_be_read_says_what_is_wrong_with_it() {
    let annals = bank().await;
    append(&annals, r#"{"holder":"kim"}"#).await;
    let unreadable = annals.repository::<Account>().load("a1").await.err().unwrap();
    says_once(&unreadable, "event 1 of stream `account-a1` (position 1) cannot be read");
    says_once(&unreadable, "missing field `owner`");
    let refused =
        annals.repository::<Account>().execute("a1", crate::bank::Bank::Block("x")).await.unwrap_err();
    says_once(&refused, "missing field `owner`");
}

#[tokio::test]
async fn a_query_that_the_database_refuses_says_what_it_said() {
    let annals = bank().await;
    annals.project(Balances).start().await.unwrap();
    let refused = annals.view::<Balances>().rows("SELECT x FROM nowhere", ()).await.unwrap_err();
    says_once(&refused, "no such table: nowhere");
}

/// Appends an opening with this data.
async fn append(annals: &Annals, data: &'static str) {
    let strange = NewEvent::new("account.opened", data).unwrap();
    let stream = StreamId::new("account-a1").unwrap();
    annals.store().append(Append::to(stream, Expected::Any, [strange])).await.unwrap();
}
