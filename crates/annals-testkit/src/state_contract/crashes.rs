//! Clauses on crashes, and on the log of a state: C1, L2 and T1.

use annals_core::{Position, StoreId};
use annals_state::Advanced;

use super::snapshots::{nearest, snapshot};
use super::{LENGTH, acquire, assert_lost, at, create, read, refused};
use crate::StateTrial;

/// C1: the last acknowledged checkpoint survives.
pub async fn checkpoints_survive_a_crash(trial: &mut StateTrial) {
    let (first, last, other) = (at(1), at(5), at(3));
    create(&**trial.state(), "mail", &first).await;
    create(&**trial.state(), "post", &other).await;
    assert_eq!(trial.state().advance("mail", &last, None).await.expect("it moves"), Advanced::Moved);
    let state = trial.reopen().await;
    assert_eq!(read(&**state, "mail").await, Some(last));
    assert_eq!(read(&**state, "post").await, Some(other));
}

/// L2: the holder and the tokens survive.
pub async fn leases_survive_a_crash(trial: &mut StateTrial) {
    create(&**trial.state(), "mail", &at(1)).await;
    let lost = acquire(&**trial.state(), "lease", "a").await;
    trial.pass(LENGTH * 2).await;
    let lease = acquire(&**trial.state(), "lease", "b").await;
    let state = trial.reopen().await;
    assert_eq!(refused(&**state, "lease", "c").await, "b");
    assert_lost(state.advance("mail", &at(5), Some(&lost)).await, &lost);
    assert_eq!(state.advance("mail", &at(6), Some(&lease)).await.expect("it moves"), Advanced::Moved);
    assert!(state.renew(&lease, LENGTH).await.expect("it answers"));
}

/// N1: durable state keeps its snapshots too.
pub async fn snapshots_survive_a_crash(trial: &mut StateTrial) {
    let kept = snapshot("account-1", 7, r#"{"balance":1}"#);
    trial.state().put(kept.clone()).await.expect("it is kept");
    assert_eq!(nearest(&**trial.reopen().await, "account-1", u64::MAX).await, Some(kept));
}

/// C1: all parts of a division survive, or none.
pub async fn parts_survive_a_crash(trial: &mut StateTrial) {
    create(&**trial.state(), "mail", &at(9)).await;
    let found = trial.state().parts("mail").await.expect("it answers");
    let instead: Vec<_> = (1..=3).map(|number| (format!("mail/{number} of 3"), at(number))).collect();
    assert!(trial.state().replace_parts("mail", &found, &instead).await.expect("it answers"));
    assert_eq!(trial.reopen().await.parts("mail").await.expect("it answers"), instead);
}

/// C1, L2: after each crash, all acknowledged writes are there, and the next call continues from them.
pub async fn a_crash_between_any_two_calls_loses_none_of_them(trial: &mut StateTrial) {
    for crash in 0..6 {
        let (mail, lease_name) = (format!("mail {crash}"), format!("lease {crash}"));
        let maybe = async |trial: &mut StateTrial, step: usize| {
            if step == crash {
                trial.reopen().await;
            }
        };
        let lease = acquire(&**trial.state(), &lease_name, "a").await;
        maybe(trial, 0).await;
        assert!(trial.state().create(&mail, &at(1), Some(&lease)).await.expect("it is made"));
        maybe(trial, 1).await;
        let second = at(2);
        assert_eq!(
            trial.state().advance(&mail, &second, Some(&lease)).await.expect("it moves"),
            Advanced::Moved
        );
        maybe(trial, 2).await;
        assert_eq!(read(&**trial.state(), &mail).await, Some(second));
        assert!(trial.state().renew(&lease, LENGTH).await.expect("it is renewed"));
        maybe(trial, 3).await;
        let replaced = at(1);
        let seen = Position::new(2);
        assert!(trial.state().replace(&mail, seen, &replaced, Some(&lease)).await.expect("it is replaced"));
        maybe(trial, 4).await;
        trial.state().release(&lease).await.expect("it is released");
        maybe(trial, 5).await;
        assert_lost(trial.state().advance(&mail, &at(9), Some(&lease)).await, &lease);
        assert_eq!(read(&**trial.state(), &mail).await, Some(replaced));
        assert!(acquire(&**trial.state(), &lease_name, "b").await.token > lease.token);
    }
}

/// T1: another log at the same place is refused, or finds no state.
pub async fn the_state_of_another_log_is_never_shown(trial: &mut StateTrial) {
    assert_eq!(trial.state().log(), trial.log());
    create(&**trial.state(), "mail", &at(5)).await;
    trial.state().put(snapshot("account-1", 7, "{}")).await.expect("it is kept");
    let lease = acquire(&**trial.state(), "lease", "a").await;
    let other = StoreId::generate();
    match trial.open_for(other).await {
        Err(refused) => {
            let text = refused.chain();
            assert!(text.contains(&other.to_string()) && text.contains(&trial.log().to_string()), "{text}");
            assert!(read(&**trial.reopen().await, "mail").await.is_some(), "it is left as it is");
        }
        Ok(state) => {
            assert_eq!(state.log(), other);
            assert_eq!(read(&*state, "mail").await, None);
            assert!(state.parts("mail").await.expect("it answers").is_empty());
            assert_eq!(nearest(&*state, "account-1", u64::MAX).await, None);
            create(&*state, "mail", &at(1)).await;
            acquire(&*state, "lease", "b").await;
            assert_lost(state.advance("mail", &at(9), Some(&lease)).await, &lease);
        }
    }
}
