//! Clauses on writes under a lease: C3, L2 and L3.

use std::time::Duration;

use annals_core::Position;
use annals_state::{Advanced, Lease};

use super::{LENGTH, acquire, assert_lost, at, create, read};
use crate::StateTrial;

/// A lease that was taken over, and the lease that replaced it.
async fn lost(trial: &StateTrial) -> (Lease, Lease) {
    let lost = acquire(&**trial.state(), "lease", "a").await;
    trial.pass(LENGTH + Duration::from_secs(10)).await;
    (lost, acquire(&**trial.state(), "lease", "b").await)
}

/// C3: the holder creates, advances and replaces its checkpoint.
pub async fn the_holder_of_a_lease_writes(trial: &mut StateTrial) {
    let state = trial.state();
    let lease = acquire(&**state, "lease", "a").await;
    let (first, second, third) = (at(1), at(5), at(2));
    assert!(state.create("mail", &first, Some(&lease)).await.expect("it is made"));
    assert_eq!(state.advance("mail", &second, Some(&lease)).await.expect("it moves"), Advanced::Moved);
    assert_eq!(read(&**state, "mail").await, Some(second));
    assert!(state.replace("mail", Position::new(5), &third, Some(&lease)).await.expect("it is replaced"));
    assert_eq!(read(&**state, "mail").await, Some(third));
    assert!(!state.create("mail", &first, Some(&lease)).await.expect("it answers"), "there is one");
    assert_eq!(state.advance("post", &first, Some(&lease)).await.expect("it answers"), Advanced::Missing);
    assert_eq!(state.advance("mail", &first, Some(&lease)).await.expect("it answers"), Advanced::Behind);
}

/// C3: a lost lease is refused even before the new holder has written.
pub async fn a_lost_lease_moves_nothing(trial: &mut StateTrial) {
    let there = at(1);
    create(&**trial.state(), "mail", &there).await;
    let (lost, lease) = lost(trial).await;
    let state = trial.state();
    assert_lost(state.advance("mail", &at(5), Some(&lost)).await, &lost);
    assert_eq!(read(&**state, "mail").await, Some(there));
    assert_eq!(state.advance("mail", &at(5), Some(&lease)).await.expect("it moves"), Advanced::Moved);
}

/// C3: a lost lease creates no checkpoint either.
pub async fn a_lost_lease_makes_nothing(trial: &mut StateTrial) {
    let (lost, lease) = lost(trial).await;
    let state = trial.state();
    assert_lost(state.create("mail", &at(5), Some(&lost)).await, &lost);
    assert_eq!(read(&**state, "mail").await, None);
    assert!(state.create("mail", &at(5), Some(&lease)).await.expect("it is made"));
}

/// C3: a lost lease does not move a checkpoint back either.
pub async fn a_lost_lease_replaces_nothing(trial: &mut StateTrial) {
    let there = at(9);
    create(&**trial.state(), "mail", &there).await;
    let (lost, lease) = lost(trial).await;
    let state = trial.state();
    assert_lost(state.replace("mail", Position::new(9), &at(5), Some(&lost)).await, &lost);
    assert_eq!(read(&**state, "mail").await, Some(there));
    assert!(state.replace("mail", Position::new(9), &at(5), Some(&lease)).await.expect("it is replaced"));
}

/// C3: a released lease is lost, even while it has no other holder.
pub async fn a_released_lease_moves_nothing(trial: &mut StateTrial) {
    let (state, there) = (trial.state(), at(1));
    create(&**state, "mail", &there).await;
    let lease = acquire(&**state, "lease", "a").await;
    state.release(&lease).await.expect("it is released");
    assert_lost(state.advance("mail", &at(5), Some(&lease)).await, &lease);
    assert_eq!(read(&**state, "mail").await, Some(there));
}

/// L3: a pause alone does not lose a lease.
pub async fn a_lease_that_is_over_and_free_still_writes(trial: &mut StateTrial) {
    let state = trial.state();
    create(&**state, "mail", &at(1)).await;
    let lease = acquire(&**state, "lease", "a").await;
    trial.pass(LENGTH * 10).await;
    let next = at(5);
    assert_eq!(state.advance("mail", &next, Some(&lease)).await.expect("it moves"), Advanced::Moved);
    assert_eq!(read(&**state, "mail").await, Some(next));
}

/// C3: several others have held the lease in between, it is free again, and the state was reopened.
pub async fn a_holder_that_wakes_late_writes_nothing(trial: &mut StateTrial) {
    create(&**trial.state(), "mail", &at(1)).await;
    let late = acquire(&**trial.state(), "lease", "a").await;
    for holder in ["b", "c", "a", "b"] {
        trial.pass(LENGTH * 2).await;
        let state = trial.reopen().await;
        let lease = acquire(&**state, "lease", holder).await;
        assert_lost(state.advance("mail", &at(100), Some(&late)).await, &late);
        state.release(&lease).await.expect("it is released");
        assert_lost(state.advance("mail", &at(100), Some(&late)).await, &late);
        assert_lost(state.replace("mail", Position::new(1), &at(100), Some(&late)).await, &late);
        assert_lost(state.create("post", &at(100), Some(&late)).await, &late);
    }
    let there = read(&**trial.state(), "mail").await.expect("it is there");
    assert_eq!(there.position, Position::new(1));
    assert_eq!(read(&**trial.state(), "post").await, None);
}

/// C3: the token and the holder must both be those of the lease.
pub async fn a_lease_that_is_not_held_writes_nothing(trial: &mut StateTrial) {
    let (state, there) = (trial.state(), at(1));
    create(&**state, "mail", &there).await;
    let lease = acquire(&**state, "lease", "a").await;
    for wrong in [
        Lease { token: lease.token + 1, ..lease.clone() },
        Lease { token: 0, ..lease.clone() },
        Lease { holder: "b".to_owned(), ..lease.clone() },
        Lease { name: "Lease".to_owned(), ..lease.clone() },
        Lease { name: "other".to_owned(), token: 0, holder: String::new() },
    ] {
        assert_lost(state.advance("mail", &at(5), Some(&wrong)).await, &wrong);
    }
    assert_eq!(read(&**state, "mail").await, Some(there));
}

/// C3: losing one lease does not affect another.
pub async fn a_fence_is_of_its_own_lease(trial: &mut StateTrial) {
    let state = trial.state();
    create(&**state, "mail", &at(1)).await;
    let own = acquire(&**state, "lease of mail", "a").await;
    let other = acquire(&**state, "lease of post", "a").await;
    state.release(&other).await.expect("it is released");
    assert_eq!(state.advance("mail", &at(4), Some(&own)).await.expect("it moves"), Advanced::Moved);
    acquire(&**state, "lease of post", "b").await;
    assert_eq!(state.advance("mail", &at(5), Some(&own)).await.expect("it moves"), Advanced::Moved);
    assert_lost(state.advance("mail", &at(6), Some(&other)).await, &other);
}

/// L1: a refused write does not take the lease from its holder either.
pub async fn a_write_that_is_fenced_leaves_the_lease_as_it_is(trial: &mut StateTrial) {
    create(&**trial.state(), "mail", &at(1)).await;
    let (lost, lease) = lost(trial).await;
    let state = trial.state();
    for _ in 0..3 {
        assert_lost(state.advance("mail", &at(5), Some(&lost)).await, &lost);
    }
    assert_eq!(super::refused(&**state, "lease", "a").await, "b");
    assert!(state.renew(&lease, LENGTH).await.expect("it answers"));
    assert_eq!(state.advance("mail", &at(5), Some(&lease)).await.expect("it moves"), Advanced::Moved);
}
