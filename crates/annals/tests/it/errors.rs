//! The text of an error says why, however it is printed, and says nothing twice.

use std::error::Error as _;
use std::time::Duration;

use annals::{Annals, Error, HandlerError, Phase, Projection, Recorded, Tenants, Tx};
use annals_core::{Append, Expected, NewEvent, StreamId};

use crate::bank::{Account, AccountEvent, Balances, bank};

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
async fn a_query_that_the_database_refuses_carries_its_message() {
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

struct Misspelt;

impl Projection for Misspelt {
    const NAME: &'static str = "misspelt";
    const SCHEMA: &'static str = "CREATE TABEL seen (position INTEGER PRIMARY KEY)";
    type Event = AccountEvent;
    fn apply(&self, _: &Recorded<AccountEvent>, _: &Tx<'_>) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_schema_that_the_database_refuses_is_invalid_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let in_files = Annals::open(&format!("file:{}", directory.path().display())).await.unwrap();
    for annals in [bank().await, in_files] {
        let refused = annals.project(Misspelt).start().await.err().unwrap();
        let message = refused.to_string();
        assert!(
            message.contains("projection has a SCHEMA that the database refuses")
                && message.contains("TABEL"),
            "{message}"
        );
        assert!(matches!(refused, Error::Invalid(_)), "{refused:?}");
        annals.shutdown().await;
    }
}

#[tokio::test]
async fn a_store_that_is_to_be_read_and_is_not_there_is_no_store() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().join("none").display());
    let none = annals::open_store_to_read(&url.parse().unwrap()).await.err().unwrap();
    assert!(matches!(none, Error::NoStore(_)), "{none:?}");
}

#[tokio::test]
async fn a_store_where_none_can_be_is_unusable() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let url = format!("file:{}", file.join("data").display());
    let refused = annals::open_store(&url.parse().unwrap()).await.err().unwrap();
    assert!(matches!(refused, Error::Unusable(_)), "{refused:?}");
}

#[tokio::test]
async fn an_entry_of_the_directory_of_tenants_that_is_no_entry_is_unreadable() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().display());
    let store = annals::open_store(&url.parse().unwrap()).await.unwrap();
    let event = NewEvent::new("tenant.placed", "{}").unwrap();
    store.append(Append::to(StreamId::new("tenant-acme").unwrap(), Expected::Any, [event])).await.unwrap();
    drop(store);
    let tenants = Tenants::open(&url).await.unwrap();
    let unreadable = tenants.place("acme").await.unwrap_err();
    assert!(matches!(unreadable, Error::Unreadable(_)), "{unreadable:?}");
}
