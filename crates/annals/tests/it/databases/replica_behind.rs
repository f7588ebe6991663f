//! A log that is read from a replica that is behind: nothing is missing from what has to be there.

use std::sync::Arc;

use annals::contract::{LogRead, MemoryStore};
use annals::{
    Annals, Append, EventStore, EventStoreExt as _, ExecuteError, Expected, Position, Query, State,
};

use crate::databases::answers::{TooLow, once};
use crate::databases::counter::{Counter, Increase};
use crate::databases::replica_after_a_loss::{Address, replicated};

/// The events of this log up to a position.
async fn copy(store: &MemoryStore, up_to: u64) -> Arc<MemoryStore> {
    let copy = Arc::new(MemoryStore::new());
    for event in store.log_events(Query::all()).await.unwrap() {
        if event.position().get() <= up_to {
            let append = Append::to(event.stream_id(), Expected::Any, [event.to_new()]);
            copy.append(append).await.unwrap();
        }
    }
    copy
}

#[tokio::test]
async fn a_command_that_comes_again_gets_its_first_answer_while_the_replica_is_behind() {
    let log = Arc::new(MemoryStore::new());
    let (primary, replica) =
        (Address::to(log.id(), &log), Address::to(log.id(), &Arc::new(MemoryStore::new())));
    let store = Arc::new(replicated(&primary, &replica).await);
    let annals = Annals::with_store(store, State::memory()).await.unwrap();
    let counters = annals.repository::<Counter>();
    let increase = || async { counters.execute("a", Increase(5)).once("increase").await.unwrap() };
    let first = increase().await;
    let again = increase().await;
    assert!(again.duplicate);
    assert_eq!((&again.events, again.position), (&first.events, first.position));

    let refused = once(&annals, "a", 10).await.unwrap_err();
    assert_eq!(refused.rejection(), Some(&TooLow(5)));
    replica.lead_to(&copy(&log, 1).await);
    let again = once(&annals, "a", 10).await.unwrap_err();
    assert!(matches!(again, ExecuteError::RefusedBefore { .. }), "{again:?}");
}

/// The bound is often the head that the primary had.
#[tokio::test]
async fn a_read_with_a_bound_reaches_it_although_the_replica_is_behind() {
    let log = Arc::new(MemoryStore::new());
    let annals = Annals::with_store(log.clone(), State::memory()).await.unwrap();
    for _ in 0..4 {
        annals.repository::<Counter>().execute("a", Increase(1)).await.unwrap();
    }
    let behind = copy(&log, 3).await;
    let store = replicated(&Address::to(log.id(), &log), &Address::to(log.id(), &behind)).await;
    let head = store.head().await.unwrap();
    for (from, limit) in [(1, 10), (3, 10), (4, 1), (3, 1)] {
        let read = LogRead::forward(Position::new(from)).to(head).limit(limit);
        let page = store.read_log(read).await.unwrap();
        let last = page.events.last().map(|event| event.position());
        assert!(!page.end || last == Some(head), "from {from}: it ends at {last:?}");
    }
    let page = store.read_log(LogRead::forward(Position::FIRST)).await.unwrap();
    assert_eq!(page.head, Position::new(3), "without a bound the replica is read");
}
