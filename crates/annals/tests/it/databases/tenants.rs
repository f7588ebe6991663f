//! Tenants: a log is moved to another database while it is written, read and followed; a move that stops in
//! the middle resumes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use annals::{
    Append, Error, EventStore, EventStoreExt, Expected, IdempotencyKey, Ladder, NewEvent, Position, Query,
    StreamId, Subscription, Tenants,
};

use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    a_tenant_moves_while_its_log_is_in_use,
    an_interrupted_move_resumes,
    a_move_interrupted_before_its_report_is_finished,
    a_tenant_moves_there_and_back,
    what_cannot_be_moved_is_refused,
    another_process_follows_a_move,
    a_place_that_is_away_for_a_moment_is_followed_later,
    a_move_that_was_overtaken_opens_nothing,
    a_move_that_was_overtaken_closes_nothing,
    a_move_that_was_overtaken_says_nothing,
    a_move_can_be_called_off,
    a_move_is_not_called_off_while_what_was_appended_since_cannot_be_seen,
    an_entry_that_cannot_be_read_stops_its_own_tenant,
    what_reads_the_log_at_the_old_place_is_not_decided_there,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tenant_moves_from_one_kind_of_database_to_the_other() {
    let (postgres, mariadb) = (Place::postgres().await, Place::mariadb().await);
    let tenants = Tenants::open(&Place::postgres().await.url).await.unwrap();
    tenants.add("acme", &postgres.url).await.unwrap();
    let log = tenants.log("acme").await.unwrap();
    for number in 0..100 {
        log.append(append("a-1", number)).await.unwrap();
    }
    let before = log.log_events(Query::all()).await.unwrap();
    tenants.move_to("acme", &mariadb.url, |_| {}).await.unwrap();
    assert_eq!(store(&mariadb.url).await.log_events(Query::all()).await.unwrap(), before);
    assert!(log.append(append("a-1", 0)).await.unwrap().duplicate);
}

/// A directory with one tenant, whose log is at the first place, and another place.
async fn tenants(place: &Place) -> (Tenants, String, String) {
    let (one, two) = (place.another().await.url, place.another().await.url);
    let tenants = Tenants::open(&place.url).await.unwrap();
    tenants.add("acme", &one).await.unwrap();
    (tenants, one, two)
}

async fn store(url: &str) -> Arc<dyn EventStore> {
    annals::open_store(&url.parse().unwrap()).await.unwrap()
}

fn append(stream: &str, number: u64) -> Append {
    let events = (0..=number % 3).map(|_| NewEvent::new("thing.done", format!("{number}")).unwrap());
    let mut append = Append::to(StreamId::new(stream).unwrap(), Expected::Any, events.collect::<Vec<_>>());
    append.key = Some(IdempotencyKey::new(format!("{stream}/{number}")).unwrap());
    append
}

async fn a_tenant_moves_while_its_log_is_in_use(place: Place) {
    let (tenants, one, two) = tenants(&place).await;
    let log = tenants.log("acme").await.unwrap();
    let id = log.id();
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (log, stop, written) = (log.clone(), stop.clone(), written.clone());
            tokio::spawn(async move {
                let mut done = Vec::new();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // No writer knows of the move.
                    done.push((number, log.append(append(&format!("a-{writer}"), number)).await.unwrap()));
                    written.fetch_add(1, Ordering::Relaxed);
                }
                (writer, done)
            })
        })
        .collect();
    let following = tokio::spawn({
        let (log, stop) = (log.clone(), stop.clone());
        async move {
            let mut subscription = Subscription::new(log.clone(), Ladder::default(), Query::all());
            let mut seen = Vec::new();
            loop {
                let event = subscription.next().await.unwrap();
                seen.push(event.position());
                if stop.load(Ordering::Relaxed) && event.stream() == "end-1" {
                    return seen;
                }
            }
        }
    });
    let at_least = async |count: u64| {
        while written.load(Ordering::Relaxed) < count {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    at_least(200).await;
    let mut fenced = false;
    tenants.move_to("acme", &two, |moving| fenced |= moving.fenced).await.unwrap();
    assert!(fenced, "the last step was told");
    assert_eq!(tenants.place("acme").await.unwrap().as_deref(), Some(two.as_str()));
    at_least(written.load(Ordering::Relaxed) + 200).await;
    stop.store(true, Ordering::Relaxed);
    let mut done = Vec::new();
    for writer in writers {
        done.push(writer.await.unwrap());
    }
    log.append(append("end-1", 0)).await.unwrap();

    // Everything that was acknowledged is there once, where it was said to be, and the log is the same one.
    let seen = following.await.unwrap();
    let (old, new) = (store(&one).await, store(&two).await);
    assert_eq!((log.id(), new.id()), (id, id));
    let events = new.log_events(Query::all()).await.unwrap();
    assert_eq!(
        seen,
        events.iter().map(|event| event.position()).collect::<Vec<_>>(),
        "nobody missed anything"
    );
    let total: u64 = done.iter().flat_map(|(_, done)| done).map(|(_, appended)| appended.count()).sum();
    assert_eq!(events.len() as u64, total + 1);
    for (writer, done) in &done {
        for (number, appended) in done {
            let again = log.append(append(&format!("a-{writer}"), *number)).await.unwrap();
            assert!(again.duplicate);
            assert_eq!((again.first, again.last), (appended.first, appended.last), "{writer}/{number}");
        }
    }
    // What was at the old place is a beginning of it, as it was.
    let left = old.log_events(Query::all()).await.unwrap();
    assert!(!left.is_empty() && left.len() < events.len());
    assert_eq!(left, events[..left.len()]);
    let refused = old.append(append("a-1", 1_000_000)).await.unwrap_err();
    assert!(refused.chain().contains("has moved"), "{}", refused.chain());
}

/// Between any two steps: what is copied, fenced, or both stays so, and the same call resumes.
async fn an_interrupted_move_resumes(place: Place) {
    let (tenants, one, two) = tenants(&place).await;
    let log = tenants.log("acme").await.unwrap();
    for number in 0..2_500 {
        log.append(append("a-1", number)).await.unwrap();
    }
    // Broken off when it is first told of something copied.
    let moving = tokio::spawn({
        let (tenants, two) = (tenants.clone(), two.clone());
        async move {
            let stop =
                |moving: annals::MoveProgress| assert!(moving.copied == Position::ZERO, "that is far enough");
            tenants.move_to("acme", &two, stop).await
        }
    });
    assert!(moving.await.is_err(), "it was broken off");
    let copied = store(&two).await.head().await.unwrap();
    assert!(copied > Position::ZERO && copied < log.head().await.unwrap(), "{copied}");
    log.append(append("a-1", 10_000)).await.unwrap();
    let elsewhere = place.another().await.url;
    let refused = tenants.move_to("acme", &elsewhere, |_| {}).await.unwrap_err();
    assert!(matches!(&refused, Error::Invalid(_)), "{}", refused.chain());
    // Broken off behind the fence: appends wait, and go on when the move is done.
    let moving = tokio::spawn({
        let (tenants, two) = (tenants.clone(), two.clone());
        async move { tenants.move_to("acme", &two, |moving| assert!(!moving.fenced, "that is far enough")).await }
    });
    assert!(moving.await.is_err(), "it was broken off");
    let waiting = tokio::spawn({
        let log = log.clone();
        async move { log.append(append("a-1", 10_001)).await }
    });
    tenants.move_to("acme", &two, |_| {}).await.unwrap();
    let appended = waiting.await.unwrap().unwrap();
    let events = store(&two).await.log_events(Query::all()).await.unwrap();
    assert_eq!(events.last().unwrap().position(), appended.last);
    let left = store(&one).await.log_events(Query::all()).await.unwrap();
    assert_eq!(left, events[..left.len()]);
    tenants.move_to("acme", &two, |_| {}).await.unwrap();
}

/// The very last step: the new place takes appends already, and the directory does not say so yet.
async fn a_move_interrupted_before_its_report_is_finished(place: Place) {
    let (one, two) = (place.another().await, place.another().await);
    let tenants = Tenants::open(&place.url).await.unwrap();
    tenants.add("acme", &one.url).await.unwrap();
    let log = tenants.log("acme").await.unwrap();
    log.append(append("a-1", 0)).await.unwrap();
    let moving = tokio::spawn({
        let (tenants, two) = (tenants.clone(), two.url.clone());
        let stop = |moving: annals::MoveProgress| {
            assert!(!(moving.fenced && moving.copied == moving.head), "far enough")
        };
        async move { tenants.move_to("acme", &two, stop).await }
    });
    assert!(moving.await.is_err(), "it was broken off");
    let there = store(&two.url).await;
    let refused = there.append(append("a-2", 0)).await.unwrap_err();
    assert!(refused.chain().contains("has moved"), "the copy takes nothing yet: {}", refused.chain());
    place.beside().await.run(&format!("UPDATE {}.log SET moved = FALSE", two.name)).await;
    let appended = there.append(append("a-2", 0)).await.unwrap();
    tenants.move_to("acme", &two.url, |_| {}).await.unwrap();
    assert_eq!(log.append(append("a-2", 0)).await.unwrap().first, appended.first);
    assert_eq!(log.append(append("a-1", 1)).await.unwrap().first, appended.last.next());
}

async fn a_tenant_moves_there_and_back(place: Place) {
    let (tenants, one, two) = tenants(&place).await;
    let log = tenants.log("acme").await.unwrap();
    for (number, to) in [&two, &one, &two].into_iter().enumerate() {
        log.append(append("a-1", number as u64)).await.unwrap();
        tenants.move_to("acme", to, |_| {}).await.unwrap();
        log.append(append("a-2", number as u64)).await.unwrap();
        assert_eq!(store(to).await.head().await.unwrap(), log.head().await.unwrap());
    }
}

async fn what_cannot_be_moved_is_refused(place: Place) {
    let (tenants, one, two) = tenants(&place).await;
    let invalid = |answer: Result<(), Error>, why: &str| match answer {
        Err(Error::Invalid(invalid)) => assert!(invalid.to_string().contains(why), "{invalid}"),
        other => panic!("it should be invalid because {why}, and is {other:?}"),
    };
    invalid(tenants.add("acme", &two).await, "already");
    tenants.add("acme", &one).await.unwrap();
    invalid(tenants.add("other", &one).await, "is the tenant `acme`'s");
    let third = place.another().await.url;
    tenants.add("other", &third).await.unwrap();
    invalid(tenants.move_to("acme", &third, |_| {}).await, "is the tenant `other`'s");
    assert_eq!(tenants.place("acme").await.unwrap().as_deref(), Some(one.as_str()), "it does not move");
    invalid(tenants.move_to("nobody", &two, |_| {}).await, "not known");
    invalid(tenants.add("new", "file:./data").await, "is not a database");
    invalid(tenants.add("new", "postgres://kim:secret@localhost/shop").await, "password");
    assert!(tenants.log("nobody").await.is_err());
    // There is another log: it is left as it is.
    let there = store(&two).await;
    there.append(append("b-1", 0)).await.unwrap();
    let log = tenants.log("acme").await.unwrap();
    log.append(append("a-1", 0)).await.unwrap();
    invalid(tenants.move_to("acme", &two, |_| {}).await, "already, with events in it");
    assert_eq!(there.head().await.unwrap(), Position::FIRST);
    log.append(append("a-1", 1)).await.unwrap();
}

/// Who has the log open elsewhere goes where it is, also to read.
async fn another_process_follows_a_move(place: Place) {
    let (tenants, _, two) = tenants(&place).await;
    let other = Tenants::open(&place.url).await.unwrap();
    let log = other.log("acme").await.unwrap();
    log.append(append("a-1", 0)).await.unwrap();
    tenants.move_to("acme", &two, |_| {}).await.unwrap();
    let head = tenants.log("acme").await.unwrap().append(append("a-1", 1)).await.unwrap().last;
    assert_eq!(
        log.wait(head.previous()).await.unwrap(),
        head,
        "a waiting reader gets what comes at the new place"
    );
    assert_eq!(log.append(append("a-1", 2)).await.unwrap().first, head.next());
}

/// A new place that does not answer at once is followed when it does, also by who only reads.
async fn a_place_that_is_away_for_a_moment_is_followed_later(place: Place) {
    let (tenants, _, two) = tenants(&place).await;
    tenants.log("acme").await.unwrap().append(append("a-1", 0)).await.unwrap();
    let away = Arc::new(AtomicU64::new(2));
    let other = Tenants::with_addresses(&place.url, {
        let (two, away) = (two.clone(), away.clone());
        move |at| {
            let is_away = at == two && away.load(Ordering::SeqCst) > 0;
            if is_away {
                away.fetch_sub(1, Ordering::SeqCst);
            }
            if is_away { "postgres://kim@127.0.0.1:1/away".to_owned() } else { at.to_owned() }
        }
    });
    let other = other.await.unwrap();
    let log = other.log("acme").await.unwrap();
    tenants.move_to("acme", &two, |_| {}).await.unwrap();
    let head = tenants.log("acme").await.unwrap().append(append("a-1", 1)).await.unwrap().last;
    assert_eq!(log.wait(head.previous()).await.unwrap(), head, "not told of what is elsewhere either");
    assert_eq!(away.load(Ordering::SeqCst), 0, "it was away");
}

/// Does this in the middle of a move, the first time that it is there; the move waits for it.
fn meanwhile(
    is_there: impl Fn(&annals::MoveProgress) -> bool,
    work: impl Future<Output = ()>,
) -> impl FnMut(annals::MoveProgress) {
    let mut work = Some(work);
    move |moving| {
        if is_there(&moving)
            && let Some(work) = work.take()
        {
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work));
        }
    }
}

/// Two processes move the log to the same place. One is held up after the fence; the other finishes, and the
/// log has moved on when the first resumes: it does not let appends in at a place that the log has left.
async fn a_move_that_was_overtaken_opens_nothing(place: Place) {
    let (tenants, _, two) = tenants(&place).await;
    let three = place.another().await.url;
    let log = tenants.log("acme").await.unwrap();
    log.append(append("a-1", 0)).await.unwrap();
    let other = Tenants::open(&place.url).await.unwrap();
    let overtake = meanwhile(|moving| moving.fenced, async {
        other.move_to("acme", &two, |_| {}).await.unwrap();
        log.append(append("a-1", 1)).await.unwrap();
        other.move_to("acme", &three, |_| {}).await.unwrap();
    });
    // What became of it is its own affair.
    let _ = tenants.move_to("acme", &two, overtake).await;
    assert_eq!(tenants.place("acme").await.unwrap().as_deref(), Some(three.as_str()));
    let refused = store(&two).await.append(append("a-1", 2)).await.unwrap_err();
    assert!(refused.chain().contains("has moved"), "{}", refused.chain());
    let appended = log.append(append("a-1", 3)).await.unwrap();
    assert_eq!(store(&three).await.head().await.unwrap(), appended.last);
}

/// The same, held up before the fence, and the log is back where it was: it is not closed again.
async fn a_move_that_was_overtaken_closes_nothing(place: Place) {
    let (tenants, one, two) = tenants(&place).await;
    let log = tenants.log("acme").await.unwrap();
    log.append(append("a-1", 0)).await.unwrap();
    let other = Tenants::open(&place.url).await.unwrap();
    let overtake = meanwhile(|moving| moving.copied == moving.head, async {
        other.move_to("acme", &two, |_| {}).await.unwrap();
        log.append(append("a-1", 1)).await.unwrap();
        other.move_to("acme", &one, |_| {}).await.unwrap();
    });
    let _ = tenants.move_to("acme", &two, overtake).await;
    assert_eq!(tenants.place("acme").await.unwrap().as_deref(), Some(one.as_str()));
    store(&one).await.append(append("a-1", 2)).await.unwrap();
    let refused = store(&two).await.append(append("a-1", 3)).await.unwrap_err();
    assert!(refused.chain().contains("has moved"), "{}", refused.chain());
}

/// The same, and the next move has only begun: it is not said to be done.
async fn a_move_that_was_overtaken_says_nothing(place: Place) {
    let (tenants, _, two) = tenants(&place).await;
    let three = place.another().await.url;
    let log = tenants.log("acme").await.unwrap();
    log.append(append("a-1", 0)).await.unwrap();
    let other = Tenants::open(&place.url).await.unwrap();
    let overtake = meanwhile(|moving| moving.fenced, async {
        other.move_to("acme", &two, |_| {}).await.unwrap();
        let (other, three) = (other.clone(), three.clone());
        let begun = async move { other.move_to("acme", &three, |_| panic!("that is far enough")).await };
        assert!(tokio::spawn(begun).await.is_err(), "it was broken off");
    });
    let _ = tenants.move_to("acme", &two, overtake).await;
    assert_eq!(tenants.place("acme").await.unwrap().as_deref(), Some(two.as_str()));
    let appended = log.append(append("a-1", 1)).await.unwrap();
    other.move_to("acme", &three, |_| {}).await.unwrap();
    assert_eq!(store(&three).await.head().await.unwrap(), appended.last);
}

/// A place that turns out to be wrong does not hold a log forever.
async fn a_move_can_be_called_off(place: Place) {
    let (tenants, one, two) = tenants(&place).await;
    let log = tenants.log("acme").await.unwrap();
    log.append(append("a-1", 0)).await.unwrap();
    let nowhere = "postgres://kim@127.0.0.1:1/nowhere";
    assert!(tenants.move_to("acme", nowhere, |_| {}).await.is_err());
    let refused = tenants.move_to("acme", &two, |_| {}).await.unwrap_err();
    assert!(refused.chain().contains(nowhere), "{}", refused.chain());
    tenants.move_to("acme", &one, |_| {}).await.unwrap();
    log.append(append("a-1", 1)).await.unwrap();
    // Also behind the fence.
    let moving = tokio::spawn({
        let (tenants, two) = (tenants.clone(), two.clone());
        async move { tenants.move_to("acme", &two, |moving| assert!(!moving.fenced, "that is far enough")).await }
    });
    assert!(moving.await.is_err(), "it was broken off");
    tenants.move_to("acme", &one, |_| {}).await.unwrap();
    assert_eq!(tenants.place("acme").await.unwrap().as_deref(), Some(one.as_str()));
    log.append(append("a-1", 2)).await.unwrap();
    tenants.move_to("acme", &two, |_| {}).await.unwrap();
    assert_eq!(store(&two).await.head().await.unwrap(), log.head().await.unwrap());
}

/// The move was finished, the directory has lost that, and the new place does not answer for a while.
async fn a_move_is_not_called_off_while_what_was_appended_since_cannot_be_seen(place: Place) {
    let (one, two) = (place.another().await.url, place.another().await.url);
    let away = Arc::new(AtomicBool::new(false));
    let tenants = Tenants::with_addresses(&place.url, {
        let (two, away) = (two.clone(), away.clone());
        move |at| match at == two && away.load(Ordering::SeqCst) {
            true => "postgres://kim@127.0.0.1:1/away".to_owned(),
            false => at.to_owned(),
        }
    });
    let tenants = tenants.await.unwrap();
    tenants.add("acme", &one).await.unwrap();
    let log = tenants.log("acme").await.unwrap();
    log.append(append("a-1", 0)).await.unwrap();
    tenants.move_to("acme", &two, |_| {}).await.unwrap();
    log.append(append("a-1", 1)).await.unwrap();
    place.lose(2).await;
    away.store(true, Ordering::SeqCst);
    let refused = tenants.move_to("acme", &one, |_| {}).await.unwrap_err();
    assert!(refused.chain().contains(&two), "{}", refused.chain());
    let old = store(&one).await.append(append("a-1", 2)).await.unwrap_err();
    assert!(old.chain().contains("has moved"), "{}", old.chain());
    away.store(false, Ordering::SeqCst);
    tenants.move_to("acme", &two, |_| {}).await.unwrap();
    assert_eq!(tenants.log("acme").await.unwrap().log_events(Query::all()).await.unwrap().len(), 3);
}

/// What another program has written wrongly into the directory is of one tenant.
async fn an_entry_that_cannot_be_read_stops_its_own_tenant(place: Place) {
    let (tenants, one, two) = tenants(&place).await;
    let directory = store(&place.url).await;
    for (tenant, data) in [("broken", r#"{"at": 5}"#), ("lost", r#"{"at": "nonsense"}"#)] {
        let event = NewEvent::new("tenant.placed", data).unwrap();
        let stream = StreamId::new(format!("tenant-{tenant}")).unwrap();
        directory.append(Append::to(stream, Expected::Any, [event])).await.unwrap();
    }
    let log = tenants.log("acme").await.unwrap();
    for tenant in ["broken", "lost"] {
        assert!(tenants.log(tenant).await.is_err(), "{tenant}");
        assert!(tenants.add(tenant, &two).await.is_err(), "{tenant}");
    }
    log.append(append("a-1", 0)).await.unwrap();
    tenants.move_to("acme", &two, |_| {}).await.unwrap();
    log.append(append("a-1", 1)).await.unwrap();
    assert_eq!(store(&two).await.head().await.unwrap(), log.head().await.unwrap());
    assert_ne!(one, two);
}

/// A condition that must be looked up is not answered from a log that has moved.
async fn what_reads_the_log_at_the_old_place_is_not_decided_there(place: Place) {
    let (tenants, one, two) = tenants(&place).await;
    tenants.log("acme").await.unwrap().append(append("a-1", 0)).await.unwrap();
    let old = store(&one).await;
    tenants.move_to("acme", &two, |_| {}).await.unwrap();
    tenants.log("acme").await.unwrap().append(append("a-2", 0)).await.unwrap();
    let events = [NewEvent::new("thing.done", "{}").unwrap()];
    let refused = old.append(Append::to(StreamId::new("a-2").unwrap(), Expected::Exists, events)).await;
    let refused = refused.unwrap_err();
    assert!(refused.chain().contains("has moved"), "{}", refused.chain());
}
