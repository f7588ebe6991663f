//! Clauses on snapshots: N1 and N2.

use annals_core::{Bytes, EventId, Position, StreamId, Timestamp, Version};
use annals_state::{SNAPSHOTS_KEPT, StateStore, StoredSnapshot};

use crate::StateTrial;

const SCHEMA: &str = "account/1";

fn stream(name: &str) -> StreamId {
    StreamId::new(name).expect("a name")
}

pub(super) fn snapshot(name: &str, version: u64, state: &str) -> StoredSnapshot {
    StoredSnapshot {
        stream: stream(name),
        schema: SCHEMA.to_owned(),
        version: Version::new(version),
        event_id: EventId::generate(),
        position: Position::new(version * 10),
        taken_at: Timestamp::from_micros(1_492_261_200_000_001),
        state: Bytes::from(state.to_owned()),
    }
}

async fn put(state: &dyn StateStore, snapshot: &StoredSnapshot) {
    state.put(snapshot.clone()).await.expect("it is kept");
}

pub(super) async fn nearest(state: &dyn StateStore, name: &str, up_to: u64) -> Option<StoredSnapshot> {
    state.nearest(&stream(name), SCHEMA, Version::new(up_to)).await.expect("it answers")
}

/// N1: the newest of several snapshots is the nearest.
pub async fn the_newest_snapshot_is_the_nearest(trial: &mut StateTrial) {
    let state = trial.state();
    assert_eq!(nearest(&**state, "account-1", u64::MAX).await, None);
    for version in [3, 5, 12] {
        let next = snapshot("account-1", version, "{}");
        put(&**state, &next).await;
        assert_eq!(nearest(&**state, "account-1", u64::MAX).await, Some(next));
    }
}

/// N1: a snapshot of the requested version itself is near enough.
pub async fn the_nearest_is_not_beyond_what_was_asked_for(trial: &mut StateTrial) {
    let state = trial.state();
    for version in [3, 5, 12] {
        put(&**state, &snapshot("account-1", version, "{}")).await;
    }
    for (up_to, version) in
        [(2, None), (3, Some(3)), (4, Some(3)), (11, Some(5)), (12, Some(12)), (13, Some(12))]
    {
        let found = nearest(&**state, "account-1", up_to).await;
        assert_eq!(found.map(|found| found.version.get()), version, "up to {up_to}");
    }
}

/// N1: a snapshot that is put late becomes one of the older ones, or is not kept.
pub async fn an_older_snapshot_never_hides_a_newer_one(trial: &mut StateTrial) {
    let state = trial.state();
    let newest = snapshot("account-1", 100, r#"{"newest":true}"#);
    put(&**state, &newest).await;
    for version in [99, 50, 1, 98, 97, 96, 95] {
        put(&**state, &snapshot("account-1", version, "{}")).await;
        assert_eq!(nearest(&**state, "account-1", u64::MAX).await, Some(newest.clone()), "after {version}");
        assert_eq!(nearest(&**state, "account-1", 100).await, Some(newest.clone()), "after {version}");
    }
}

/// N1: the log may have another history since.
pub async fn a_snapshot_of_a_version_takes_the_place_of_the_one_before(trial: &mut StateTrial) {
    let state = trial.state();
    put(&**state, &snapshot("account-1", 7, r#"{"balance":1}"#)).await;
    let again = StoredSnapshot {
        position: Position::new(999),
        taken_at: Timestamp::from_micros(1_500_000_000_000_000),
        ..snapshot("account-1", 7, r#"{"balance":2}"#)
    };
    put(&**state, &again).await;
    assert_eq!(nearest(&**state, "account-1", u64::MAX).await, Some(again));
    assert_eq!(nearest(&**state, "account-1", 6).await, None);
}

/// N2: at most `SNAPSHOTS_KEPT` are kept.
pub async fn only_the_newest_snapshots_are_kept(trial: &mut StateTrial) {
    let state = trial.state();
    let kept = SNAPSHOTS_KEPT as u64;
    for version in 1..=20 {
        put(&**state, &snapshot("account-1", version, "{}")).await;
    }
    let oldest = 20 - kept + 1;
    assert_eq!(nearest(&**state, "account-1", oldest).await.map(|found| found.version.get()), Some(oldest));
    assert_eq!(nearest(&**state, "account-1", oldest - 1).await, None);
}

/// N1: snapshots of another schema have another shape.
pub async fn snapshots_of_another_schema_are_not_found(trial: &mut StateTrial) {
    let state = trial.state();
    put(&**state, &snapshot("account-1", 7, "{}")).await;
    for schema in ["account/2", "Account/1", "account/1 ", "account/"] {
        let found = state.nearest(&stream("account-1"), schema, Version::new(9)).await.expect("it answers");
        assert_eq!(found, None, "`{schema}`");
    }
    let newer = StoredSnapshot { schema: "account/2".to_owned(), ..snapshot("account-1", 5, "{}") };
    put(&**state, &newer).await;
    let found = state.nearest(&stream("account-1"), "account/2", Version::new(9)).await.expect("it answers");
    assert_eq!(found, Some(newer), "one of another schema that is further does not hide it");
}

/// N1: streams are compared byte by byte, and have their own number of snapshots.
pub async fn snapshots_of_another_stream_are_not_found(trial: &mut StateTrial) {
    let state = trial.state();
    let names = ["account-a", "account-A", "account-á", "account-a ", "account-%", "Account-a", "account-aa"];
    for name in names {
        assert_eq!(nearest(&**state, name, u64::MAX).await, None, "`{name}` has none yet");
        for version in 1..=SNAPSHOTS_KEPT as u64 {
            put(&**state, &snapshot(name, version, &format!("\"{name}\""))).await;
        }
    }
    for name in names {
        let found = nearest(&**state, name, 1).await.expect("each keeps its own");
        assert_eq!(found.state, Bytes::from(format!("\"{name}\"")));
    }
}

/// N1: every byte of the state and every column are kept.
pub async fn a_snapshot_is_read_as_it_was_put(trial: &mut StateTrial) {
    let state = trial.state();
    let text = r#"{"text":"\u0000 \\ ' \" ` é 한글 📧","number":1.0e-7,"null":null,"list":[ ]}"#;
    let put_in = snapshot("account-'\"`\\%é", i64::MAX.unsigned_abs() / 10, text);
    put(&**state, &put_in).await;
    assert_eq!(nearest(&**state, "account-'\"`\\%é", u64::MAX).await, Some(put_in));
}

/// N1: a large snapshot is kept completely.
pub async fn a_large_snapshot_is_kept(trial: &mut StateTrial) {
    let state = trial.state();
    let large = snapshot("account-1", 7, &format!("\"{}\"", "0123456789abcdé".repeat(300_000)));
    put(&**state, &large).await;
    assert!(nearest(&**state, "account-1", u64::MAX).await == Some(large), "all of its 4.8 megabytes");
}

/// N1: all snapshots of one stream are removed, and no others.
pub async fn forgotten_snapshots_are_gone(trial: &mut StateTrial) {
    let state = trial.state();
    let other = snapshot("account-12", 3, "{}");
    put(&**state, &other).await;
    for version in [3, 5] {
        put(&**state, &snapshot("account-1", version, "{}")).await;
    }
    state.forget(&stream("account-1")).await.expect("they are forgotten");
    assert_eq!(nearest(&**state, "account-1", u64::MAX).await, None);
    assert_eq!(nearest(&**state, "account-12", u64::MAX).await, Some(other));
    let again = snapshot("account-1", 2, "{}");
    put(&**state, &again).await;
    assert_eq!(nearest(&**state, "account-1", u64::MAX).await, Some(again));
}
