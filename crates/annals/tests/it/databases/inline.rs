//! Inline projections: rows that are there when the append is acknowledged, and an append that is refused
//! with them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use annals::EventStoreExt as _;
use annals::{Annals, Append, Error, Event, Expected, NewEvent, Phase, Position, Query, StreamId};

use crate::databases::counter::{CounterEvent, QUICKLY, Sums, increase, sum, until};
use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    rows_are_there_when_the_append_is,
    an_append_that_is_refused_by_a_projection_writes_nothing,
    what_others_append_is_caught_up,
    several_processes_append_with_it,
    nothing_is_half_there_when_connections_are_cut,
    an_older_event_that_fails_holds_up_no_append,
    rows_that_are_gone_hold_up_no_append,
    rows_of_events_that_the_log_has_lost_are_not_written_on,
}

async fn open(place: &Place, sums: &Sums) -> Annals {
    let annals = Annals::open(&place.url).await.unwrap();
    annals.project(sums.clone()).retry(QUICKLY).inline().start().await.unwrap();
    until(&annals, "sums", |status| status.phase == Phase::Live || status.phase == Phase::Standby).await;
    annals
}

fn event(by: u64) -> NewEvent {
    let event = CounterEvent::Increased { by };
    NewEvent::new(event.event_type(), event.encode().unwrap()).unwrap()
}

fn append(stream: &str, by: &[u64]) -> Append {
    Append::to(
        StreamId::new(format!("counter-{stream}")).unwrap(),
        Expected::Any,
        by.iter().map(|by| event(*by)),
    )
}

async fn rows_are_there_when_the_append_is(place: Place) {
    let annals = open(&place, &Sums::default()).await;
    let mut beside = place.beside().await;
    for round in 1..=20 {
        increase(&annals, "a", 2).await;
        let rows = beside.number(&format!("SELECT events FROM {0}$sums_v1.sums", place.name)).await;
        let checkpoint =
            beside.number(&format!("SELECT position FROM {0}$sums_v1.annals_checkpoint", place.name)).await;
        assert_eq!((rows, checkpoint), (round, round), "seen by others without waiting");
    }
    // A retry with a key, and an append that is refused, leave the rows.
    let keyed = append("a", &[1]).once("k".parse().unwrap());
    let first = annals.store().append(keyed.clone()).await.unwrap();
    assert!(annals.store().append(keyed).await.unwrap().duplicate);
    let stale = Append::to(StreamId::new("counter-a").unwrap(), Expected::NoStream, [event(1)]);
    assert!(matches!(annals.store().append(stale).await, Err(Error::Conflict(_))));
    assert_eq!(sum::<1>(&annals, "a", first.last).await, Some((41, 21)));
    annals.settle().await.unwrap();
}

async fn an_append_that_is_refused_by_a_projection_writes_nothing(place: Place) {
    let sums = Sums::default();
    sums.superstitious.store(true, Ordering::SeqCst);
    let annals = open(&place, &sums).await;
    // Together they are groups; each is answered for itself.
    let appends: Vec<_> = (0..40_u64)
        .map(|number| {
            let store = annals.store().clone();
            let by = if number % 4 == 0 { 13 } else { 1 };
            tokio::spawn(async move { (by, store.append(append(&format!("c{number}"), &[2, by])).await) })
        })
        .collect();
    let mut written = 0;
    for appended in appends {
        let (by, answer) = appended.await.unwrap();
        match answer {
            Ok(_) => {
                assert_eq!(by, 1);
                written += 2;
            }
            Err(Error::Invalid(invalid)) => {
                assert_eq!((by, invalid.field.as_str()), (13, "events[1]"));
                let message = invalid.to_string();
                assert!(
                    message.contains("`sums`")
                        && message.contains("bad luck")
                        && message.contains("counter.increased"),
                    "{message}"
                );
            }
            Err(error) => panic!("{}", error.chain()),
        }
    }
    assert_eq!(written, 60);
    let log = annals.store().log_events(Query::all()).await.unwrap();
    assert_eq!(log.len(), 60);
    assert!(log.iter().zip(1..).all(|(event, place)| event.position().get() == place), "without holes");
    let view = annals.view::<Sums>().at_least(Position::new(60));
    let rows =
        view.query("SELECT amount, events FROM sums", (), |row| row.read::<(u64, u64)>()).await.unwrap();
    assert_eq!(rows, vec![(3, 2); 30]);
    // A refusal is an answer; the next append is committed.
    sums.superstitious.store(false, Ordering::SeqCst);
    let position = increase(&annals, "c0", 13).await;
    assert_eq!((position.get(), sum::<1>(&annals, "c0", position).await), (61, Some((13, 1))));
}

async fn what_others_append_is_caught_up(place: Place) {
    let other = Annals::open(&place.url).await.unwrap();
    // Before it is started: more than an append would catch up.
    for _ in 0..12 {
        other.store().append(append("a", &[1; 100])).await.unwrap();
    }
    let annals = open(&place, &Sums::default()).await;
    assert_eq!(sum::<1>(&annals, "a", Position::new(1_200)).await, Some((1_200, 1_200)));
    let mut rows = 1_200;
    for _ in 0..10 {
        other.store().append(append("a", &[1; 30])).await.unwrap();
        let position = increase(&annals, "a", 1).await;
        rows += 31;
        assert_eq!(sum::<1>(&annals, "a", position).await, Some((rows, rows)));
    }
    other.store().append(append("a", &[1])).await.unwrap();
    until(&annals, "sums", |status| status.position.get() == rows + 1).await;
    annals.shutdown().await;
    // Stopped, it is left out.
    increase(&annals, "a", 1).await;
    let checkpoint = format!("SELECT position FROM {}$sums_v1.annals_checkpoint", place.name);
    assert_eq!(place.beside().await.number(&checkpoint).await.unsigned_abs(), rows + 1);
}

async fn several_processes_append_with_it(place: Place) {
    let sums = [Sums::default(), Sums::default()];
    let systems = [open(&place, &sums[0]).await, open(&place, &sums[1]).await];
    let writing: Vec<_> = (0..8)
        .map(|writer| {
            let annals = systems[writer % 2].clone();
            tokio::spawn(async move {
                let mut last = Position::ZERO;
                for _ in 0..25 {
                    last = increase(&annals, &format!("c{writer}"), 1).await;
                }
                assert_eq!(sum::<1>(&annals, &format!("c{writer}"), last).await, Some((25, 25)));
            })
        })
        .collect();
    for writer in writing {
        writer.await.unwrap();
    }
    let both = [&systems[1], &systems[0]];
    for annals in both {
        assert_eq!(sum::<1>(annals, "c0", Position::new(200)).await, Some((25, 25)));
    }
    let applied: u64 = sums.iter().map(|sums| sums.applied.load(Ordering::SeqCst)).sum();
    assert!(applied >= 200, "{applied}");
}

async fn nothing_is_half_there_when_connections_are_cut(place: Place) {
    let annals = open(&place, &Sums::default()).await;
    let mut beside = place.beside().await;
    let cutting = tokio::spawn({
        let place = place.clone();
        async move {
            let mut cut = 0;
            while cut < 30 {
                tokio::time::sleep(Duration::from_millis(60)).await;
                cut += place.cut().await;
            }
        }
    });
    let mut number = 0;
    while !cutting.is_finished() || number < 50 {
        number += 1;
        let append = append("a", &[1, 1, 1]).once(format!("key-{number}").parse().unwrap());
        while annals.store().append(append.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let sql =
            format!("SELECT COUNT(*) - (SELECT events FROM {0}$sums_v1.sums) FROM {0}.events", place.name);
        assert_eq!(beside.number(&sql).await, 0, "log and rows are one, append {number}");
    }
    cutting.await.unwrap();
    let head = Position::new(3 * number);
    assert_eq!(sum::<1>(&annals, "a", head).await, Some((head.get(), head.get())));
}

async fn an_older_event_that_fails_holds_up_no_append(place: Place) {
    let other = Annals::open(&place.url).await.unwrap();
    let sums = Sums::default();
    sums.superstitious.store(true, Ordering::SeqCst);
    let annals = open(&place, &sums).await;
    increase(&other, "a", 13).await;
    let position = increase(&annals, "b", 1).await;
    assert_eq!(position.get(), 2, "it is written");
    until(&annals, "sums", |status| status.phase == Phase::Retrying).await;
    let behind = annals.view::<Sums>().at_least(position).within(Duration::ZERO).rows("SELECT 1", ()).await;
    assert!(behind.unwrap_err().to_string().contains("bad luck"));
    sums.superstitious.store(false, Ordering::SeqCst);
    let position = increase(&annals, "b", 1).await;
    assert_eq!(sum::<1>(&annals, "b", position).await, Some((2, 2)));
    assert_eq!(sum::<1>(&annals, "a", position).await, Some((13, 1)));
    // From here on it refuses again.
    sums.superstitious.store(true, Ordering::SeqCst);
    assert!(matches!(annals.store().append(append("a", &[13])).await, Err(Error::Invalid(_))));
}

async fn rows_that_are_gone_hold_up_no_append(place: Place) {
    let annals = open(&place, &Sums::default()).await;
    increase(&annals, "a", 1).await;
    let kind = if place.is_postgres() { ("SCHEMA", "CASCADE") } else { ("DATABASE", "") };
    place.beside().await.run(&format!("DROP {} {}$sums_v1 {}", kind.0, place.name, kind.1)).await;
    let position = increase(&annals, "a", 1).await;
    assert_eq!(position.get(), 2);
    // Its task makes them again, and then they are written with the append.
    until(&annals, "sums", |status| status.notice.is_some()).await;
    assert_eq!(sum::<1>(&annals, "a", position).await, Some((2, 2)));
}

/// The log is as long as it was before, and has other events.
async fn rows_of_events_that_the_log_has_lost_are_not_written_on(place: Place) {
    let annals = open(&place, &Sums::default()).await;
    for by in [1, 100, 100] {
        increase(&annals, "a", by).await;
    }
    place.lose(1).await;
    let other = Annals::open(&place.url).await.unwrap();
    for by in [2, 3] {
        other.store().append(append("a", &[by])).await.unwrap();
    }
    let last = annals.store().append(append("a", &[4])).await.unwrap().last;
    assert_eq!(last.get(), 4);
    let made = async {
        while sum::<1>(&annals, "a", last).await != Some((10, 4)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let made = tokio::time::timeout(Duration::from_secs(120), made).await;
    assert!(made.is_ok(), "{:?}, should be of what the log has", sum::<1>(&annals, "a", last).await);
}
