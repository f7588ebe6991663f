//! Clauses on two stores knowing nothing of each other.

use annals_core::{Append, EventStore, Expected, Position};

use crate::Trial;
use crate::given::{events_of, key, log, named, new, read, stream};

/// G10: two logs have two identities; one log keeps its own.
pub async fn two_logs_have_two_identities(trial: &mut Trial) {
    let (another, third) = (trial.another().await, trial.another().await);
    let ids = [trial.store().id(), another.store().id(), third.store().id()];
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
    new(trial.store().append(crate::given::some("a-1", Expected::Any, 1)).await);
    assert_eq!(trial.store().id(), ids[0]);
}

/// G10: nothing that is done in one log shows in another: streams, keys and ids are each log's own.
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
