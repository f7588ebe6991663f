//! Clauses on several handles, as in several processes: C1 to C3, L1 and L2.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use annals_core::{Position, TestClock, Timestamp};
use annals_state::{Acquired, Advanced, Checkpoint, Lease, MemoryState, StateError, StateStore};

use super::{LENGTH, acquire, assert_lost, at, create, read, refused};
use crate::StateTrial;
use crate::history::{Random, seeds};

/// C1: a write through one handle is read through the other at once.
pub async fn two_handles_see_one_state(trial: &mut StateTrial) {
    let (one, other) = (trial.state().clone(), trial.beside().await);
    create(&*one, "mail", &at(1)).await;
    for position in 2..20 {
        let (writer, reader) = if position % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let next = at(position);
        assert_eq!(writer.advance("mail", &next, None).await.expect("it moves"), Advanced::Moved);
        assert_eq!(read(&**reader, "mail").await, Some(next));
    }
}

/// L1: two handles also have one fence.
pub async fn two_handles_have_one_lease(trial: &mut StateTrial) {
    let (one, other) = (trial.state().clone(), trial.beside().await);
    create(&*one, "mail", &at(1)).await;
    let first = acquire(&*one, "lease", "a").await;
    assert_eq!(refused(&*other, "lease", "b").await, "a");
    trial.pass(LENGTH * 2).await;
    let second = acquire(&*other, "lease", "b").await;
    assert_lost(one.advance("mail", &at(5), Some(&first)).await, &first);
    assert_eq!(other.advance("mail", &at(6), Some(&second)).await.expect("it moves"), Advanced::Moved);
    other.release(&second).await.expect("it is released");
    assert!(acquire(&*one, "lease", "a").await.token > second.token);
}

/// C2: the furthest position wins, in any order of the writes.
pub async fn of_many_writers_the_furthest_wins(trial: &mut StateTrial) {
    create(&**trial.state(), "mail", &at(0)).await;
    let mut writing = Vec::new();
    for writer in 0..4 {
        let state = trial.beside().await;
        writing.push(tokio::spawn(async move {
            let mut seen = Position::ZERO;
            for round in 0..25 {
                for _ in 0..2 {
                    let there = read(&*state, "mail").await.expect("it is there").position;
                    assert!(there >= seen, "it went back from {seen} to {there}");
                    seen = there;
                    state.advance("mail", &at(1 + round * 4 + writer), None).await.expect("it answers");
                }
            }
        }));
    }
    for task in writing {
        task.await.expect("it ends");
    }
    let there = read(&**trial.state(), "mail").await.expect("it is there");
    assert_eq!(there.position, Position::new(100));
    assert_eq!(there.ladder, Some(100_u64.to_be_bytes().to_vec()), "all of one write");
}

/// C1: the others find its checkpoint.
pub async fn of_many_that_create_a_checkpoint_one_succeeds(trial: &mut StateTrial) {
    for round in 0..5 {
        let name = format!("mail {round}");
        let mut making = Vec::new();
        for number in 1..=6 {
            let (state, name) = (trial.beside().await, name.clone());
            making.push(tokio::spawn(async move {
                let own = at(number);
                let made = state.create(&name, &own, None).await.expect("it answers");
                (made, own, read(&*state, &name).await)
            }));
        }
        let there = {
            let mut made = Vec::new();
            let mut found = Vec::new();
            for task in making {
                let (is_made, own, seen) = task.await.expect("it ends");
                if is_made {
                    made.push(own);
                }
                found.push(seen.expect("it is there"));
            }
            assert_eq!(made.len(), 1, "one was made: {made:?}");
            assert!(found.iter().all(|found| *found == made[0]), "all see it");
            made.remove(0)
        };
        assert_eq!(read(&**trial.state(), &name).await, Some(there));
    }
}

/// C3, L2: the tokens of successful writes never decrease, in any interleaving of writes and takeovers.
pub async fn lost_leases_write_nothing_while_others_take_over(trial: &mut StateTrial) {
    create(&**trial.state(), "mail", &at(0)).await;
    let (newest, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut holding = Vec::new();
    for number in 0..3 {
        let (state, newest, ended) = (trial.beside().await, newest.clone(), ended.clone());
        holding.push(tokio::spawn(async move { hold_and_write(&*state, number, &newest, &ended).await }));
    }
    let state = trial.state().clone();
    while newest.load(Ordering::SeqCst) < 60 {
        // The lease holder writes, or pauses for too long.
        let before = newest.load(Ordering::SeqCst);
        for _ in 0..20 {
            read_newest(&*state, &newest).await;
            tokio::task::yield_now().await;
            if newest.load(Ordering::SeqCst) > before {
                break;
            }
        }
        trial.pass(LENGTH * 2).await;
    }
    ended.store(true, Ordering::SeqCst);
    for task in holding {
        task.await.expect("it ends");
    }
}

/// The token under which a checkpoint was written.
fn token_in(checkpoint: &Checkpoint) -> u64 {
    let ladder = checkpoint.ladder.clone().expect("with a token");
    u64::from_be_bytes(ladder.try_into().expect("8 bytes"))
}

/// The position of the checkpoint `mail`. After a write under a lease, no write under an earlier lease
/// succeeds.
async fn read_newest(state: &dyn StateStore, newest: &AtomicU64) -> u64 {
    let written = newest.load(Ordering::SeqCst);
    let there = read(state, "mail").await.expect("it is there");
    let token = token_in(&there);
    assert!(token >= written, "token {token} has written after {written}");
    newest.fetch_max(token, Ordering::SeqCst);
    there.position.get()
}

/// Repeatedly acquires the lease and writes under it until it is lost.
async fn hold_and_write(state: &dyn StateStore, number: u64, newest: &AtomicU64, ended: &AtomicBool) {
    while !ended.load(Ordering::SeqCst) {
        let acquired = state.acquire("lease", &format!("holder {number}"), LENGTH).await.expect("it answers");
        let Acquired::Held(lease) = acquired else {
            tokio::task::yield_now().await;
            continue;
        };
        for _ in 0..5 {
            // A late write of one holder is further than all writes of another under one lease.
            let position = read_newest(state, newest).await + 1 + number * 20;
            let next = Checkpoint { ladder: Some(lease.token.to_be_bytes().to_vec()), ..at(position) };
            match state.advance("mail", &next, Some(&lease)).await {
                Ok(Advanced::Moved) => _ = newest.fetch_max(lease.token, Ordering::SeqCst),
                Ok(_) => {}
                Err(StateError::LeaseLost(_)) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// C1 to C4, L1 to L4: random calls of one caller have the results of a model, which is the state in memory.
pub async fn random_calls_are_answered_as_by_the_reference(trial: &mut StateTrial) {
    let seed = seeds()[0];
    let mut random = Random::new(seed, 0);
    let clock = Arc::new(TestClock::at(Timestamp::from_micros(1_492_261_200_000_000)));
    let model: Arc<dyn StateStore> = Arc::new(MemoryState::with_clock(trial.log(), clock.clone()));
    let mut leases: Vec<Lease> = Vec::new();
    for step in 0..300 {
        let name = ["mail", "Mail", "mail/1 of 2", "mail/2 of 2"][random.index(4)];
        let (lease_name, holder) = (["one", "two"][random.index(2)], ["a", "b", "c"][random.index(3)]);
        // Old leases are lost.
        let newest = leases.len().saturating_sub(3);
        let lease = if random.below(3) == 0 { leases.get(newest + random.index(3)).cloned() } else { None };
        let (next, seen) = (at(random.below(12)), Position::new(random.below(12)));
        let call = random.index(9);
        let (mut answers, mut acquired) = (Vec::new(), None);
        for state in [trial.state(), &model] {
            answers.push(match call {
                0 => format!("{:?}", state.create(name, &next, lease.as_ref()).await),
                1 | 2 => format!("{:?}", state.advance(name, &next, lease.as_ref()).await),
                3 => format!("{:?}", state.replace(name, seen, &next, lease.as_ref()).await),
                4 | 5 => {
                    let answer = state.acquire(lease_name, holder, LENGTH).await.expect("it answers");
                    if let Acquired::Held(lease) = &answer {
                        acquired = Some(lease.clone());
                    }
                    format!("{answer:?}")
                }
                6 => match &lease {
                    Some(lease) => format!("{:?}", state.renew(lease, LENGTH).await),
                    None => format!("{:?}", state.holder(lease_name).await),
                },
                7 => match &lease {
                    Some(lease) => format!("{:?}", state.release(lease).await),
                    None => format!("{:?}", state.parts("mail").await),
                },
                _ => {
                    let found = state.parts("mail").await.expect("it answers");
                    let instead = [(name.to_ascii_lowercase(), next.clone())];
                    format!("{:?}", state.replace_parts("mail", &found, &instead).await)
                }
            });
        }
        leases.extend(acquired);
        assert_eq!(answers[0], answers[1], "call {call} of step {step}; ANNALS_SEED={seed} repeats it");
        let (one, other) = (read(&**trial.state(), name).await, read(&*model, name).await);
        assert_eq!(one, other, "step {step}; ANNALS_SEED={seed} repeats it");
        if random.below(10) == 0 {
            trial.pass(LENGTH * 2).await;
            clock.advance(LENGTH * 2);
        }
        if random.below(50) == 0 {
            trial.reopen().await;
        }
    }
}
