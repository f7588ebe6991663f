//! Clauses on the isolation of two stores, and on two handles to one store.

use annals_core::{Append, EventStore, EventStoreExt, Expected, Position, Query};

use crate::Trial;
use crate::given::{at, done, events_of, joined, key, log, named, new, read, refused, some, stream, tag};

/// G10: two logs have two identities; one log keeps its own.
pub async fn two_logs_have_two_identities(trial: &mut Trial) {
    let (another, third) = (trial.another().await, trial.another().await);
    let ids = [trial.store().id(), another.store().id(), third.store().id()];
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
    new(trial.store().append(crate::given::some("a-1", Expected::Any, 1)).await);
    assert_eq!(trial.store().id(), ids[0]);
}

/// G10: an append to one log is not visible in another: each log has its own streams, keys and ids.
pub async fn one_log_does_not_show_in_another(trial: &mut Trial) {
    let another = trial.another().await;
    let append = Append::to(stream("order-7"), Expected::NoStream, [named("a")]).once(key("request-1"));
    new(trial.store().append(append.clone()).await);
    assert_eq!(read(another.store().head().await), Position::ZERO);
    assert_eq!(read(another.store().outcome(&key("request-1")).await), None);
    assert!(events_of(another.store(), "order-7").await.is_empty());
    let there = new(another.store().append(append).await);
    assert_eq!(there.first, Position::FIRST);
    assert_eq!((log(trial.store()).await.len(), log(another.store()).await.len()), (1, 1));
}

/// G4: two handles on one log, as in two processes, are one store: an append through one is read, causes
/// conflicts and wakes waiting readers through the other, even where that has read or cached before.
pub async fn two_handles_share_one_log(trial: &mut Trial) {
    let beside = trial.beside().await;
    let handles = [trial.store(), &beside];
    assert_eq!(handles[0].id(), handles[1].id());
    for round in 0..6_u64 {
        let (writes, reads) = (handles[round as usize % 2], handles[(round as usize + 1) % 2]);
        let head = read(reads.head().await);
        let waiting = tokio::spawn({
            let reads = reads.clone();
            async move { reads.wait(head).await }
        });
        let tagged = named(&format!("{round}")).with_tag(tag(&format!("round:{round}")));
        let append =
            Append::to(stream("order-7"), at(round), [tagged]).once(key(&format!("request-{round}")));
        let first = new(writes.append(append.clone()).await);
        assert_eq!(first.first, head.next(), "positions have no gap between handles");
        assert!(read(joined(waiting).await) >= first.last, "who waits at the other handle is woken");
        assert_eq!(events_of(reads, "order-7").await.len() as u64, round + 1);
        assert_eq!(read(reads.stream_version(&stream("order-7")).await).get(), round + 1);
        let query = Query::tags([tag(&format!("round:{round}"))]);
        assert_eq!(read(reads.log_events(query).await).len(), 1);
        refused(reads.append(some("order-7", at(round), 1)).await);
        let again = done(reads.append(append).await);
        assert!(again.duplicate && again.first == first.first, "a key is known to both");
        assert_eq!(log(handles[0]).await, log(handles[1]).await);
    }
}
