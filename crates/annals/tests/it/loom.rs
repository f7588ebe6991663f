//! What Loom's snapshot, rehydrator and headspring mean, said in our words (LJ12 to LJ14).

use annals::{Append, EventStoreExt, ExecuteError, Expected, LoadError, NewEvent, StreamId, Version};

use crate::bank::{Account, Bank, bank, open_with};

/// LJ12: a snapshot is stream, version and state; the seed has version 0.
#[tokio::test]
async fn the_seed_has_version_zero() {
    let annals = bank().await;
    let seed = annals.repository::<Account>().load("nobody").await.unwrap();
    assert_eq!((seed.version, seed.state), (Version::ZERO, Account::default()));
}

/// LJ13: rehydration folds from version 1 on, in order.
#[tokio::test]
async fn rehydration_folds_every_event_from_the_first_on() {
    let annals = bank().await;
    open_with(&annals, "a1", 7).await;
    let loaded = annals.repository::<Account>().load("a1").await.unwrap();
    assert_eq!((loaded.version.get(), loaded.state.folded, loaded.state.balance), (2, 2, 7));
}

/// LJ13: an event of an unknown type is an error.
#[tokio::test]
async fn an_unknown_event_is_an_error() {
    let annals = bank().await;
    let stream = StreamId::new("account-a1").unwrap();
    let unknown = NewEvent::new("invoice.sent", "{}").unwrap();
    annals.store().append(Append::to(stream, Expected::Any, [unknown])).await.unwrap();
    let error = annals.repository::<Account>().load("a1").await.unwrap_err();
    assert!(matches!(error, LoadError::Unreadable { version, .. } if version == Version::FIRST), "{error}");
}

/// LJ14: state, then events from the command, then one append at the version after the state's. That an event
/// which the aggregate cannot take is never stored holds by type: `decide` answers with the events of
/// `evolve`.
#[tokio::test]
async fn a_command_appends_right_behind_the_state_that_it_was_decided_on() {
    let annals = bank().await;
    open_with(&annals, "a1", 7).await;
    let accounts = annals.repository::<Account>();
    let done = accounts.execute("a1", Bank::Withdraw(7)).by("user:7").process("p").await.unwrap();
    let events = annals.store().stream_events(&StreamId::new("account-a1").unwrap()).await.unwrap();
    let last = events.last().unwrap();
    assert_eq!((last.version(), last.position()), (done.version, done.position));
    assert_eq!(last.metadata().process.as_deref(), Some("p"));
    let refused = accounts.execute("a1", Bank::Withdraw(1)).await.unwrap_err();
    assert!(matches!(refused, ExecuteError::Rejected(_)), "{refused}");
}
