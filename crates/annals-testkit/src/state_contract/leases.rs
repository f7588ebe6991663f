//! Clauses on leases: L1 to L4.

use std::time::Duration;

use annals_state::Acquired;

use super::{LENGTH, acquire, refused};
use crate::StateTrial;

const MOMENT: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// L1: the lease has the requested name and holder.
pub async fn a_free_lease_is_acquired(trial: &mut StateTrial) {
    let state = trial.state();
    assert_eq!(state.holder("mail").await.expect("it answers"), None);
    let lease = acquire(&**state, "mail", "a").await;
    assert_eq!((lease.name.as_str(), lease.holder.as_str()), ("mail", "a"));
    assert_eq!(state.holder("mail").await.expect("it answers").as_deref(), Some("a"));
    assert_eq!(state.holder("post").await.expect("it answers"), None, "no other one is held");
    acquire(&**state, "post", "b").await;
}

/// L1: a held lease is refused until it has ended.
pub async fn a_held_lease_is_refused_and_its_holder_named(trial: &mut StateTrial) {
    let state = trial.state();
    let lease = acquire(&**state, "mail", "a").await;
    trial.pass(LENGTH - MOMENT).await;
    assert_eq!(refused(&**state, "mail", "b").await, "a");
    assert!(state.renew(&lease, LENGTH).await.expect("it answers"), "the attempt has changed nothing");
}

/// L1: a released lease is free at once.
pub async fn a_released_lease_is_free(trial: &mut StateTrial) {
    let state = trial.state();
    let lease = acquire(&**state, "mail", "a").await;
    state.release(&lease).await.expect("it is released");
    assert_eq!(state.holder("mail").await.expect("it answers"), None);
    assert_eq!(acquire(&**state, "mail", "b").await.holder, "b");
    state.release(&lease).await.expect("a second time is no error");
    assert_eq!(state.holder("mail").await.expect("it answers").as_deref(), Some("b"));
}

/// L2: the token grows, whichever process acquires the lease and however the previous one ended.
pub async fn the_token_grows_with_each_acquisition(trial: &mut StateTrial) {
    let mut newest = 0;
    for round in 0..12 {
        let state = trial.state();
        let lease = acquire(&**state, "mail", ["a", "b", "a"][round % 3]).await;
        assert!(lease.token > newest, "{lease:?} after {newest}");
        newest = lease.token;
        match round % 4 {
            0 => state.release(&lease).await.expect("it is released"),
            1 => trial.pass(LENGTH + MOMENT).await,
            2 => {
                state.release(&lease).await.expect("it is released");
                trial.reopen().await;
            }
            _ => {
                trial.pass(LENGTH + MOMENT).await;
                trial.reopen().await;
            }
        }
    }
}

/// L2: a process with the name of an earlier holder is not that holder.
pub async fn a_holder_that_acquires_again_loses_its_former_lease(trial: &mut StateTrial) {
    let state = trial.state();
    let former = acquire(&**state, "mail", "a").await;
    let lease = acquire(&**state, "mail", "a").await;
    assert!(lease.token > former.token);
    assert!(!state.renew(&former, LENGTH).await.expect("it answers"));
    state.release(&former).await.expect("it answers");
    assert_eq!(refused(&**state, "mail", "b").await, "a", "the newer one is held");
    assert!(state.renew(&lease, LENGTH).await.expect("it answers"));
}

/// L1: a lease ends by the clock of the state.
pub async fn a_lease_that_is_over_is_taken_over(trial: &mut StateTrial) {
    let state = trial.state();
    let first = acquire(&**state, "mail", "a").await;
    trial.pass(LENGTH + MOMENT).await;
    assert_eq!(state.holder("mail").await.expect("it answers"), None, "its time is over");
    let second = acquire(&**state, "mail", "b").await;
    assert!(second.token > first.token);
    assert_eq!(refused(&**state, "mail", "a").await, "b", "the one before is one of the others");
}

/// L1: of several processes that see it end at once, one acquires it.
pub async fn of_many_that_take_over_a_lease_one_succeeds(trial: &mut StateTrial) {
    let first = acquire(&**trial.state(), "mail", "first").await;
    for round in 0..5 {
        trial.pass(LENGTH + MOMENT).await;
        let mut taking = Vec::new();
        for number in 0..8 {
            let state = trial.beside().await;
            taking.push(tokio::spawn(async move {
                state.acquire("mail", &format!("{round}-{number}"), LENGTH).await.expect("the state answers")
            }));
        }
        let (mut held, mut named) = (Vec::new(), Vec::new());
        for task in taking {
            match task.await.expect("it ends") {
                Acquired::Held(lease) => held.push(lease),
                Acquired::HeldBy(other) => named.push(other),
            }
        }
        assert_eq!(held.len(), 1, "one has it: {held:?}");
        assert!(held[0].token > first.token);
        assert!(named.iter().all(|other| *other == held[0].holder), "the others know who: {named:?}");
    }
}

/// L1: the duration counts from the renewal, not from the beginning of the lease.
pub async fn a_renewed_lease_lasts_from_then_on(trial: &mut StateTrial) {
    let state = trial.state();
    let lease = acquire(&**state, "mail", "a").await;
    for _ in 0..3 {
        trial.pass(LENGTH - MOMENT).await;
        assert!(state.renew(&lease, LENGTH).await.expect("it answers"));
        assert_eq!(refused(&**state, "mail", "b").await, "a");
    }
    assert!(state.renew(&lease, LENGTH * 3).await.expect("it answers"), "for longer");
    trial.pass(LENGTH * 2).await;
    assert_eq!(refused(&**state, "mail", "b").await, "a");
    trial.pass(LENGTH + MOMENT).await;
    acquire(&**state, "mail", "b").await;
}

/// L3: an ended lease is renewed if it has had no other holder.
pub async fn a_lease_that_is_over_and_free_is_renewed(trial: &mut StateTrial) {
    let state = trial.state();
    let lease = acquire(&**state, "mail", "a").await;
    trial.pass(LENGTH * 10).await;
    assert!(state.renew(&lease, LENGTH).await.expect("it answers"));
    assert_eq!(refused(&**state, "mail", "b").await, "a");
}

/// L2: a lost lease is not renewed, however it was lost.
pub async fn a_lost_lease_is_not_renewed(trial: &mut StateTrial) {
    let state = trial.state();
    let taken = acquire(&**state, "mail", "a").await;
    trial.pass(LENGTH + MOMENT).await;
    let second = acquire(&**state, "mail", "b").await;
    assert!(!state.renew(&taken, LENGTH).await.expect("it answers"));
    state.release(&second).await.expect("it is released");
    assert!(!state.renew(&taken, LENGTH).await.expect("it answers"), "it does not come back");
    assert!(!state.renew(&second, LENGTH).await.expect("it answers"), "it was given back");
    acquire(&**state, "mail", "c").await;
}

/// L1: the lease has another holder by now.
pub async fn a_lost_lease_is_not_released(trial: &mut StateTrial) {
    let state = trial.state();
    let lost = acquire(&**state, "mail", "a").await;
    trial.pass(LENGTH + MOMENT).await;
    let lease = acquire(&**state, "mail", "b").await;
    state.release(&lost).await.expect("it answers");
    assert_eq!(refused(&**state, "mail", "c").await, "b");
    assert!(state.renew(&lease, LENGTH).await.expect("it answers"));
}

/// L1: other processes take the lease over, and the token identifies the holder.
pub async fn a_clock_that_jumps_ahead_ends_leases(trial: &mut StateTrial) {
    let state = trial.state();
    let first = acquire(&**state, "mail", "a").await;
    trial.pass(DAY).await;
    let second = acquire(&**state, "mail", "b").await;
    assert!(second.token > first.token);
    trial.set_back(DAY).await;
    assert!(
        !state.renew(&first, LENGTH).await.expect("it answers"),
        "the clock is right again, and it stays lost"
    );
    assert!(state.renew(&second, LENGTH).await.expect("it answers"));
    assert_eq!(refused(&**state, "mail", "a").await, "b");
}

/// L4: clocks are often set back by small amounts.
pub async fn a_clock_that_is_set_back_a_little_ends_no_lease(trial: &mut StateTrial) {
    let state = trial.state();
    let lease = acquire(&**state, "mail", "a").await;
    trial.set_back(MOMENT).await;
    assert_eq!(refused(&**state, "mail", "b").await, "a");
    assert!(state.renew(&lease, LENGTH).await.expect("it answers"));
}

/// L4: the holder may be gone, and no process should wait for a day.
pub async fn a_clock_that_is_set_back_far_keeps_no_lease_for_ever(trial: &mut StateTrial) {
    let state = trial.state();
    let first = acquire(&**state, "mail", "a").await;
    trial.set_back(DAY).await;
    assert_eq!(state.holder("mail").await.expect("it answers"), None);
    let second = acquire(&**state, "mail", "b").await;
    assert!(second.token > first.token);
    assert!(!state.renew(&first, LENGTH).await.expect("it answers"));
    assert_eq!(refused(&**state, "mail", "c").await, "b");
}
