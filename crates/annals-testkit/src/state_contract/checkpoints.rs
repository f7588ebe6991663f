//! Clauses on one checkpoint: C1 and C2.

use annals_core::Position;
use annals_state::{Advanced, Checkpoint};

use super::{at, create, read};
use crate::StateTrial;

/// C1: a name has no checkpoint before one is written.
pub async fn a_name_without_a_checkpoint_has_none(trial: &mut StateTrial) {
    assert_eq!(read(&**trial.state(), "mail").await, None);
    create(&**trial.state(), "mail", &at(3)).await;
    assert_eq!(read(&**trial.state(), "post").await, None);
}

/// C1: position, event and every byte of the ladder are kept.
pub async fn a_checkpoint_is_read_as_it_was_written(trial: &mut StateTrial) {
    let state = trial.state();
    let bytes = Checkpoint { ladder: Some((0..=255).collect()), ..at(3) };
    create(&**state, "mail", &bytes).await;
    assert_eq!(read(&**state, "mail").await, Some(bytes));
    let empty = Checkpoint { ladder: Some(Vec::new()), ..at(4) };
    assert_eq!(state.advance("mail", &empty, None).await.expect("it advances"), Advanced::Moved);
    assert_eq!(read(&**state, "mail").await, Some(empty), "a ladder without a rung is none less");
}

/// C1: unknown fields of a checkpoint stay unknown.
pub async fn a_checkpoint_without_an_event_is_read_as_it_was_written(trial: &mut StateTrial) {
    let state = trial.state();
    let begin = Checkpoint { position: Position::ZERO, event: None, ladder: None };
    create(&**state, "mail", &begin).await;
    assert_eq!(read(&**state, "mail").await, Some(begin.clone()));
    let bare = Checkpoint { position: Position::new(7), ..begin };
    state.advance("mail", &at(5), None).await.expect("it advances");
    state.advance("mail", &bare, None).await.expect("it advances");
    assert_eq!(read(&**state, "mail").await, Some(bare), "nothing is left of the one before");
}

/// C1: the first checkpoint is kept, even if the second is further.
pub async fn an_existing_checkpoint_is_not_created_again(trial: &mut StateTrial) {
    let (state, first) = (trial.state(), at(5));
    create(&**state, "mail", &first).await;
    for other in [at(9), at(5), at(1)] {
        assert!(!state.create("mail", &other, None).await.expect("it answers"));
        assert_eq!(read(&**state, "mail").await, Some(first.clone()));
    }
}

/// C2: the checkpoint advances with its event and ladder, and no other checkpoint does.
pub async fn a_checkpoint_advances(trial: &mut StateTrial) {
    let (state, other) = (trial.state(), at(2));
    create(&**state, "mail", &at(1)).await;
    create(&**state, "post", &other).await;
    for position in [2, 3, 1_000] {
        let next = at(position);
        assert_eq!(state.advance("mail", &next, None).await.expect("it answers"), Advanced::Moved);
        assert_eq!(read(&**state, "mail").await, Some(next));
    }
    assert_eq!(read(&**state, "post").await, Some(other));
}

/// C2: a checkpoint moves neither back nor to another event at the same position.
pub async fn an_advance_never_moves_a_checkpoint_back(trial: &mut StateTrial) {
    let (state, there) = (trial.state(), at(10));
    create(&**state, "mail", &there).await;
    for position in [10, 9, 0] {
        let late = at(position);
        assert_eq!(state.advance("mail", &late, None).await.expect("it answers"), Advanced::Behind);
        assert_eq!(read(&**state, "mail").await, Some(there.clone()));
    }
}

/// C2: a removed checkpoint is not created again.
pub async fn an_advance_makes_no_checkpoint(trial: &mut StateTrial) {
    let state = trial.state();
    assert_eq!(state.advance("mail", &at(3), None).await.expect("it answers"), Advanced::Missing);
    assert_eq!(read(&**state, "mail").await, None);
}

/// C2: it can be moved back, forward, and to another event at the same position.
pub async fn a_checkpoint_is_replaced_where_it_was_seen(trial: &mut StateTrial) {
    let state = trial.state();
    create(&**state, "mail", &at(10)).await;
    for (seen, position) in [(10, 4), (4, 4), (4, 8)] {
        let instead = at(position);
        let seen = Position::new(seen);
        assert!(state.replace("mail", seen, &instead, None).await.expect("it answers"));
        assert_eq!(read(&**state, "mail").await, Some(instead));
    }
}

/// C2: a change by another process is kept.
pub async fn a_checkpoint_that_was_moved_meanwhile_is_not_replaced(trial: &mut StateTrial) {
    let (state, there) = (trial.state(), at(10));
    create(&**state, "mail", &there).await;
    for seen in [0, 9, 11] {
        let seen = Position::new(seen);
        assert!(!state.replace("mail", seen, &at(20), None).await.expect("it answers"));
        assert!(!state.replace("mail", seen, &at(1), None).await.expect("it answers"));
        assert_eq!(read(&**state, "mail").await, Some(there.clone()));
    }
    assert!(!state.replace("post", Position::new(10), &at(1), None).await.expect("it answers"));
    assert_eq!(read(&**state, "post").await, None, "and none is made");
}

/// C1: a division into many parts is recorded in one ladder.
pub async fn a_large_ladder_is_kept(trial: &mut StateTrial) {
    let large: Vec<u8> = (0..1_000_000_u32).map(|byte| (byte % 251) as u8).collect();
    let large = Checkpoint { ladder: Some(large), ..at(3) };
    create(&**trial.state(), "mail", &large).await;
    assert!(read(&**trial.state(), "mail").await == Some(large), "all of a megabyte");
}

/// C1: columns of databases end at the greatest signed number.
pub async fn the_greatest_position_is_kept_and_a_greater_one_refused(trial: &mut StateTrial) {
    let (state, greatest) = (trial.state(), at(i64::MAX.unsigned_abs()));
    create(&**state, "mail", &at(1)).await;
    assert_eq!(state.advance("mail", &greatest, None).await.expect("it answers"), Advanced::Moved);
    assert!(state.advance("mail", &at(u64::MAX), None).await.is_err());
    assert!(state.create("post", &at(u64::MAX), None).await.is_err());
    assert_eq!(read(&**state, "mail").await, Some(greatest));
    assert_eq!(read(&**state, "post").await, None);
}
