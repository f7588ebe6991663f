//! Clauses on subscriptions and on waiting: stored events first, then live ones, without a seam.

use std::sync::Arc;

use annals_consume::{Ladder, Subscription};
use annals_core::{Append, Expected, Position, Query, RecordedEvent, Witness};

use crate::Trial;
use crate::given::{
    Store, category, event, event_type, events, joined, log, new, one, race, read, some, stream,
};

fn subscribe(store: &Store, after: impl Into<Ladder>, query: Query) -> Subscription {
    Subscription::new(Arc::clone(store), after, query)
}

/// The position up to which everything was returned.
fn reached(subscription: &Subscription) -> Position {
    subscription.checkpoint().newest().map_or(Position::ZERO, |newest| newest.position)
}

/// Returns at most this many events, and none beyond the end that a clause has set ([`end`]), so that a
/// clause detects a lost event and does not wait for it.
async fn take(subscription: &mut Subscription, count: usize) -> Vec<RecordedEvent> {
    let mut events = Vec::new();
    while events.len() < count && !events.last().is_some_and(is_end) {
        events.push(read(subscription.next().await));
    }
    events
}

/// Returns everything up to the end that a clause has set.
async fn take_all(mut subscription: Subscription) -> Vec<RecordedEvent> {
    take(&mut subscription, usize::MAX).await
}

/// Checks several times that a future is not ready, so that tasks of the store run in between.
async fn not_yet<T: std::fmt::Debug>(waiting: &mut (impl Future<Output = T> + Unpin), why: &str) {
    for _ in 0..20 {
        tokio::select! {
            biased;
            early = &mut *waiting => panic!("{why}, and the answer is {early:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
}

/// Marks the end of what a clause writes.
async fn end(store: &Store) {
    new(store.append(one("b-1", event("end.reached"))).await);
}

fn is_end(event: &RecordedEvent) -> bool {
    event.event_type() == "end.reached"
}

/// Runs concurrent writers that write 20 events each.
async fn write(store: &Store, writers: usize) {
    race(writers, |writer| {
        let store = store.clone();
        async move {
            for _ in 0..10 {
                let append = some(&format!("a-{writer}"), Expected::Any, 1);
                let append = append.and_to(stream("b-1"), Expected::Any, [event("b.changed")]);
                new(store.append(append).await);
            }
        }
    })
    .await;
}

/// G7: a subscription returns the stored events first, then the new ones, every event once and in order,
/// while writers run.
pub async fn a_subscription_has_no_seam_between_stored_and_live(trial: &mut Trial) {
    let store = trial.store();
    write(store, 2).await;
    let follower = {
        let store = store.clone();
        tokio::spawn(take_all(subscribe(&store, Ladder::default(), Query::all()).page_limit(7)))
    };
    write(store, 4).await;
    end(store).await;
    assert_eq!(joined(follower).await, log(store).await);
}

/// G7: a subscriber that resumes from a checkpoint sees every event after it, exactly once.
pub async fn a_subscription_resumes_from_its_checkpoint(trial: &mut Trial) {
    let store = trial.store();
    write(store, 3).await;
    end(store).await;
    let all = log(store).await;
    for page_limit in [1, 4, 1_000] {
        let (mut checkpoint, mut seen) = (Vec::new(), Vec::new());
        while !seen.last().is_some_and(is_end) {
            let kept = Ladder::from_bytes(&checkpoint).expect("it is read as it was written");
            let mut subscription = subscribe(store, kept, Query::all()).page_limit(page_limit);
            let events = take(&mut subscription, 7).await;
            let last = events.last().expect("some were taken").position();
            assert_eq!(reached(&subscription), last, "the checkpoint is what was handed out");
            seen.extend(events);
            checkpoint = subscription.checkpoint().to_bytes();
        }
        assert_eq!(seen, all);
    }
}

/// G7: a subscription from the head returns only later events.
pub async fn a_subscription_from_the_head_gives_what_comes_next(trial: &mut Trial) {
    let store = trial.store();
    write(store, 1).await;
    let head = read(store.head().await);
    let mut subscription = read(Subscription::from_now(Arc::clone(store), Query::all()).await);
    assert_eq!(reached(&subscription), head);
    let (first, next) = {
        let mut first = std::pin::pin!(subscription.next());
        not_yet(&mut first, "nothing has come yet").await;
        let next = new(store.append(some("c-1", Expected::NoStream, 2)).await);
        (read(first.await), next)
    };
    assert_eq!(first.position(), next.first);
    assert_eq!(read(subscription.next().await).position(), next.last);
    assert_eq!(next.first, head.next());
}

/// G7: a filtered subscription returns the matching events, and its checkpoint advances past the others.
pub async fn a_filtered_subscription_moves_its_checkpoint_on(trial: &mut Trial) {
    let store = trial.store();
    let meant = || Query::types([event_type("order.paid")]);
    new(store.append(some("a-1", Expected::Any, 5)).await);
    new(store.append(one("order-1", event("order.paid"))).await);
    new(store.append(some("a-1", Expected::Any, 4)).await);
    let mut subscription = subscribe(store, Ladder::default(), meant());
    assert_eq!(read(subscription.next().await).position(), Position::new(6));
    assert_eq!(reached(&subscription), Position::new(6));

    let sixth = read(Witness::at(&**store, Position::new(6)).await).expect("it is there");
    let mut pages = subscribe(store, sixth, meant());
    while reached(&pages) < Position::new(10) {
        let before = reached(&pages);
        assert!(read(pages.next_page().await).is_empty());
        assert!(reached(&pages) > before, "each page gets on");
    }
    assert_eq!(reached(&pages), Position::new(10), "events that are not meant are passed, up to the head");
    new(store.append(one("order-1", event("order.paid"))).await);
    let page = read(pages.next_page().await);
    assert_eq!(page.iter().map(|e| e.position().get()).collect::<Vec<_>>(), [11]);
}

/// G7: a filtered subscription misses nothing while writers run.
pub async fn a_filtered_subscription_misses_nothing_while_writers_run(trial: &mut Trial) {
    let store = trial.store();
    let meant = || Query::category(category("b"));
    let follower = {
        let store = store.clone();
        tokio::spawn(take_all(subscribe(&store, Ladder::default(), meant()).page_limit(3)))
    };
    write(store, 4).await;
    end(store).await;
    let expected: Vec<_> = log(store).await.into_iter().filter(|event| meant().matches(event)).collect();
    assert_eq!(joined(follower).await, expected);
}

/// G7: several subscriptions get the same events, each at its own pace.
pub async fn subscriptions_do_not_disturb_each_other(trial: &mut Trial) {
    let store = trial.store();
    let followers: Vec<_> = [1, 3, 50, 1_000]
        .map(|limit| {
            tokio::spawn(take_all(subscribe(store, Ladder::default(), Query::all()).page_limit(limit)))
        })
        .into_iter()
        .collect();
    write(store, 4).await;
    end(store).await;
    let all = log(store).await;
    for follower in followers {
        assert_eq!(joined(follower).await, all);
    }
}

/// G7: waiting for a position that is already passed returns at once, with the head.
pub async fn waiting_ends_at_once_if_the_head_is_beyond(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("a-1", Expected::NoStream, 5)).await);
    for after in 0..5 {
        assert_eq!(read(store.wait(Position::new(after)).await), Position::new(5));
    }
}

/// G7: every caller that waits for the head to move is woken by the next append.
pub async fn all_waiters_are_woken(trial: &mut Trial) {
    let store = trial.store();
    for round in 0..10_u64 {
        let head = Position::new(round * 2);
        let waiters: Vec<_> = (0..10)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { read(store.wait(head).await) })
            })
            .collect();
        new(store.append(Append::to(stream("a-1"), Expected::Any, events(2))).await);
        for waiter in waiters {
            assert_eq!(joined(waiter).await, Position::new(round * 2 + 2));
        }
    }
}

/// G7: a caller that waits for a later position is not woken before it is passed.
pub async fn waiting_continues_until_the_position_is_passed(trial: &mut Trial) {
    let store = trial.store();
    let mut waiting = std::pin::pin!(store.wait(Position::new(7)));
    for number in 0..=7 {
        not_yet(&mut waiting, &format!("the log has {number} events")).await;
        new(store.append(some("a-1", Expected::Any, 1)).await);
    }
    assert_eq!(read(waiting.await), Position::new(8));
}

/// G7: a dropped wait does not affect others.
pub async fn an_abandoned_wait_disturbs_no_other(trial: &mut Trial) {
    let store = trial.store();
    for round in 0..10 {
        let (given_up, kept) = (store.clone(), store.clone());
        let given_up = tokio::spawn(async move { given_up.wait(Position::MAX.previous()).await });
        let kept = tokio::spawn(async move { read(kept.wait(Position::new(round)).await) });
        tokio::task::yield_now().await;
        given_up.abort();
        new(store.append(some("a-1", Expected::Any, 1)).await);
        assert_eq!(joined(kept).await, Position::new(round + 1));
    }
}
