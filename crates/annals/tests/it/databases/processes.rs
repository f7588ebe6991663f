//! Several processes on one database: each name runs in one of them, all see the rows, and when one ends
//! another resumes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use annals::{Annals, Phase, Position, Recorded, Version};
use parking_lot::Mutex;

use crate::databases::counter::{CounterEvent, QUICKLY, Sums, increase, sum, until};
use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    all_read_what_one_of_them_fills,
    another_version_does_not_disturb_the_one_that_is_in_use,
    a_subscriber_is_active_in_one_process,
    a_subscriber_skips_nothing_when_connections_are_cut,
    no_event_has_its_effect_twice_when_connections_are_cut,
    what_another_process_has_taken_is_not_taken_again,
    a_group_shares_the_streams,
    a_group_skips_nothing_when_connections_are_cut,
    a_subscriber_with_another_number_of_partitions_resumes,
}

async fn all_read_what_one_of_them_fills(place: Place) {
    let systems = [Annals::open(&place.url).await.unwrap(), Annals::open(&place.url).await.unwrap()];
    let sums: Vec<Sums> = (0..2).map(|_| Sums::default()).collect();
    for (annals, sums) in systems.iter().zip(&sums) {
        annals.project(sums.clone()).start().await.unwrap();
    }
    let (one, two) = (&systems[0], &systems[1]);
    until(two, "sums", |status| status.phase == Phase::Standby).await;
    for round in 1..=10 {
        for writer in &systems {
            let position = increase(writer, "a", 1).await;
            for reader in &systems {
                let (amount, _) = sum::<1>(reader, "a", position).await.unwrap();
                assert!(amount >= 2 * round - 1, "{amount} in round {round}");
            }
        }
    }
    // The others advance past a skipped event as well.
    let other = annals::Append::to(
        annals::StreamId::new("other-1").unwrap(),
        annals::Expected::Any,
        [annals::NewEvent::new("other.happened", "{}").unwrap()],
    );
    let position = one.store().append(other).await.unwrap().last;
    assert_eq!(sum::<1>(two, "a", position).await, Some((20, 20)));
    let applied = |of: usize| sums[of].applied.load(Ordering::SeqCst);
    assert_eq!((applied(0), applied(1)), (20, 0), "one of them does the work");
    one.shutdown().await;
    let position = increase(two, "a", 5).await;
    assert_eq!(sum::<1>(two, "a", position).await, Some((25, 21)), "the other resumes");
    assert_eq!(applied(1), 1);
    two.settle().await.unwrap();
}

async fn another_version_does_not_disturb_the_one_that_is_in_use(place: Place) {
    let prefix = format!("{}$", place.name);
    let schemas =
        |versions: &[u32]| versions.iter().map(|v| format!("{prefix}sums_v{v}")).collect::<Vec<_>>();
    let mut beside = place.beside().await;
    let old = Annals::open(&place.url).await.unwrap();
    old.project(Sums::<1>::default()).start().await.unwrap();
    let position = increase(&old, "a", 5).await;
    assert_eq!(sum::<1>(&old, "a", position).await, Some((5, 1)));

    // While the new rows cannot be made, the old ones answer.
    let new = Annals::open(&place.url).await.unwrap();
    let sums = Sums::<2>::default();
    let superstitious = sums.superstitious.clone();
    superstitious.store(true, Ordering::SeqCst);
    let position = increase(&old, "a", 13).await;
    assert_eq!(sum::<1>(&old, "a", position).await, Some((18, 2)));
    new.project(sums).retry(QUICKLY).start().await.unwrap();
    until(&new, "sums", |status| status.phase == Phase::Retrying).await;
    assert_eq!(sum::<2>(&new, "a", Position::ZERO).await, Some((18, 2)), "the old rows answer");
    superstitious.store(false, Ordering::SeqCst);
    assert_eq!(sum::<2>(&new, "a", position).await, Some((18, 2)));
    new.settle().await.unwrap();

    // Both go on, each with its own.
    assert_eq!(beside.schemas(&prefix).await, schemas(&[1, 2]));
    let position = increase(&new, "a", 1).await;
    assert_eq!(sum::<1>(&old, "a", position).await, Some((19, 3)));
    assert_eq!(sum::<2>(&new, "a", position).await, Some((19, 3)));

    // The old rows are removed by the process that starts when nobody uses them any more.
    old.shutdown().await;
    new.shutdown().await;
    drop((old, new));
    for _ in 0..600 {
        let newest = Annals::open(&place.url).await.unwrap();
        newest.project(Sums::<2>::default()).start().await.unwrap();
        newest.settle().await.unwrap();
        newest.shutdown().await;
        if beside.schemas(&prefix).await == schemas(&[2]) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{:?}", beside.schemas(&prefix).await);
}

/// What the handlers of several processes were told: which process, which event.
type Delivered = Arc<Mutex<Vec<(usize, String, Version)>>>;

async fn subscribe(annals: &Annals, process: usize, delivered: &Delivered) {
    subscribe_in_group(annals, process, delivered, 1).await;
}

async fn subscribe_in_group(annals: &Annals, process: usize, delivered: &Delivered, shares: usize) {
    let delivered = delivered.clone();
    let subscriber = annals.subscribe("told").concurrency(4).partitions(shares).retry(QUICKLY);
    let subscriber = subscriber.on(move |event: Recorded<CounterEvent>, _| {
        delivered.lock().push((process, event.stream().to_string(), event.version()));
        std::future::ready(Ok(()))
    });
    subscriber.start().await.unwrap();
}

async fn a_subscriber_is_active_in_one_process(place: Place) {
    let delivered = Delivered::default();
    let systems = [Annals::open(&place.url).await.unwrap(), Annals::open(&place.url).await.unwrap()];
    for (process, annals) in systems.iter().enumerate() {
        subscribe(annals, process, &delivered).await;
    }
    for number in 0..20 {
        increase(&systems[1], &format!("c{}", number % 3), 1).await;
    }
    systems[1].settle().await.unwrap();
    systems[0].settle().await.unwrap();
    assert_eq!(delivered.lock().len(), 20);
    assert!(delivered.lock().iter().all(|(process, ..)| *process == 0), "the first one gets all");
    systems[0].shutdown().await;
    increase(&systems[1], "c0", 1).await;
    systems[1].settle().await.unwrap();
    assert_eq!(delivered.lock().last().unwrap().0, 1, "then the second one");
    assert_eq!(delivered.lock().len(), 21);
}

/// In each stream every event is delivered, and none before those that precede it.
fn in_order(delivered: &Delivered, streams: usize, events: u64) {
    let mut newest: HashMap<String, u64> = HashMap::new();
    for (_, stream, version) in delivered.lock().iter() {
        let newest = newest.entry(stream.clone()).or_default();
        assert!(version.get() <= *newest + 1, "{stream}: {version} was told after {newest}");
        *newest = version.get().max(*newest);
    }
    assert_eq!(newest.len(), streams);
    assert!(newest.values().all(|newest| *newest == events), "{newest:?}");
}

/// Writes events in these streams while connections are cut; a command that fails is tried again.
async fn write_while_connections_are_cut(place: &Place, writer: &Annals, streams: usize, events: u64) {
    let cuts = AtomicUsize::new(0);
    let writing = async {
        for round in 1..=events {
            for stream in 0..streams {
                let key = format!("{stream}/{round}");
                let counters = writer.repository::<crate::databases::counter::Counter>();
                let once = || {
                    counters
                        .execute(format!("c{stream}"), crate::databases::counter::Increase(1))
                        .once(key.clone())
                };
                while once().await.is_err() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        }
    };
    let cutting = async {
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cuts.fetch_add(place.cut().await, Ordering::Relaxed);
        }
    };
    tokio::select! {
        () = async { tokio::join!(writing, async { while cuts.load(Ordering::Relaxed) < 20 { tokio::time::sleep(Duration::from_millis(5)).await } }); } => {}
        () = cutting => {}
    }
}

async fn a_subscriber_skips_nothing_when_connections_are_cut(place: Place) {
    let delivered = Delivered::default();
    let systems = [Annals::open(&place.url).await.unwrap(), Annals::open(&place.url).await.unwrap()];
    for (process, annals) in systems.iter().enumerate() {
        subscribe(annals, process, &delivered).await;
    }
    write_while_connections_are_cut(&place, &systems[0], 3, 60).await;
    for annals in &systems {
        until(annals, "told", |status| status.position.get() == 180).await;
    }
    in_order(&delivered, 3, 60);
}

async fn no_event_has_its_effect_twice_when_connections_are_cut(place: Place) {
    let systems = [Annals::open(&place.url).await.unwrap(), Annals::open(&place.url).await.unwrap()];
    for annals in &systems {
        annals.project(Sums::<1>::default()).batch(7).retry(QUICKLY).start().await.unwrap();
    }
    write_while_connections_are_cut(&place, &systems[0], 3, 60).await;
    for annals in &systems {
        until(annals, "sums", |status| status.position.get() == 180).await;
        for stream in ["c0", "c1", "c2"] {
            assert_eq!(sum::<1>(annals, stream, Position::new(180)).await, Some((60, 60)));
        }
    }
}

const STREAMS: u64 = 30;

/// Writes an event to each stream, and waits until all that were written are told.
async fn write_and_settle(systems: &[&Annals], delivered: &Delivered, from: usize) {
    for stream in 0..STREAMS {
        increase(systems[0], &format!("c{stream}"), 1).await;
    }
    while delivered.lock().len() < from + STREAMS as usize {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Which processes were told something since.
fn busy(delivered: &Delivered, from: usize) -> Vec<usize> {
    let mut busy: Vec<_> = delivered.lock()[from..].iter().map(|(process, ..)| *process).collect();
    busy.sort_unstable();
    busy.dedup();
    busy
}

/// Writes until these processes, and no others, are told what is written.
async fn until_busy(systems: &[&Annals], delivered: &Delivered, wanted: &[usize]) {
    let all = async {
        loop {
            let from = delivered.lock().len();
            write_and_settle(systems, delivered, from).await;
            if busy(delivered, from) == wanted {
                return;
            }
        }
    };
    let shown = || busy(delivered, 0);
    tokio::time::timeout(Duration::from_secs(120), all).await.unwrap_or_else(|_| panic!("{:?}", shown()));
}

async fn a_group_shares_the_streams(place: Place) {
    let delivered = Delivered::default();
    let one = Annals::open(&place.url).await.unwrap();
    subscribe_in_group(&one, 1, &delivered, 8).await;
    until_busy(&[&one], &delivered, &[1]).await;
    let two = Annals::open(&place.url).await.unwrap();
    subscribe_in_group(&two, 2, &delivered, 8).await;
    until_busy(&[&one], &delivered, &[1, 2]).await;
    // Once it is divided it stays so: each stream is one process's.
    let stays = async {
        loop {
            let from = delivered.lock().len();
            for round in 0..5 {
                write_and_settle(&[&one], &delivered, from + round * STREAMS as usize).await;
            }
            let mut of: HashMap<String, Vec<usize>> = HashMap::new();
            for (process, stream, _) in delivered.lock()[from..].iter() {
                of.entry(stream.clone()).or_default().push(*process);
            }
            if of.values().all(|processes| processes.iter().all(|process| *process == processes[0])) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), stays).await.expect("it stays so");
    one.settle().await.unwrap();
    two.settle().await.unwrap();
    one.shutdown().await;
    until_busy(&[&two], &delivered, &[2]).await;
    let events = delivered.lock().len() as u64 / STREAMS;
    assert_eq!(delivered.lock().len() as u64, events * STREAMS, "nothing came twice");
    in_order(&delivered, STREAMS as usize, events);
}

async fn a_group_skips_nothing_when_connections_are_cut(place: Place) {
    let delivered = Delivered::default();
    let systems = [Annals::open(&place.url).await.unwrap(), Annals::open(&place.url).await.unwrap()];
    for (process, annals) in systems.iter().enumerate() {
        subscribe_in_group(annals, process, &delivered, 3).await;
    }
    write_while_connections_are_cut(&place, &systems[0], 5, 40).await;
    let all = async {
        loop {
            let streams: HashMap<String, u64> =
                delivered.lock().iter().map(|(_, stream, version)| (stream.clone(), version.get())).collect();
            if streams.len() == 5 && streams.values().all(|newest| *newest == 40) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all).await.unwrap();
    in_order(&delivered, 5, 40);
}

async fn a_subscriber_with_another_number_of_partitions_resumes(place: Place) {
    let delivered = Delivered::default();
    let mut written = 0;
    for shares in [1, 4, 3, 1] {
        let annals = Annals::open(&place.url).await.unwrap();
        subscribe_in_group(&annals, shares, &delivered, shares).await;
        let from = delivered.lock().len();
        write_and_settle(&[&annals], &delivered, from).await;
        written += 1;
        annals.settle().await.unwrap();
        in_order(&delivered, STREAMS as usize, written);
        annals.shutdown().await;
    }
    let mut beside = place.beside().await;
    let rows = beside.number(&format!("SELECT count(*) FROM {}.checkpoints", place.name)).await;
    assert_eq!(rows, 1, "those of other divisions are gone");
    // A share without events of its own holds the others back, by what was written last.
    let again = delivered.lock().len() as u64 - written * STREAMS;
    assert!(again <= 2 * STREAMS, "{again}");
}

/// Two processes believe to have the lock: while one is about to take an event, the other has taken it.
async fn what_another_process_has_taken_is_not_taken_again(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    annals.project(Sums::<1>::default()).start().await.unwrap();
    until(&annals, "sums", |status| status.phase == Phase::Live).await;
    let (mut other, mut looking) = (place.beside().await, place.beside().await);
    let schema = format!("{}$sums_v1", place.name);
    other.run("BEGIN").await;
    other.run(&format!("SELECT position FROM {schema}.annals_checkpoint FOR UPDATE")).await;
    increase(&annals, "a", 5).await;
    let waiting = match place.is_postgres() {
        true => format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND wait_event_type = 'Lock'",
            place.name
        ),
        false => format!(
            "SELECT count(*) FROM information_schema.innodb_trx AS t, information_schema.processlist AS p
             WHERE t.trx_mysql_thread_id = p.id AND p.user = '{}' AND t.trx_state = 'LOCK WAIT'",
            place.name
        ),
    };
    while looking.number(&waiting).await == 0 {
        // MariaDB shows what it showed before if it is asked again within a tenth of a second.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    other.run(&format!("INSERT INTO {schema}.sums VALUES ('a', 5, 1)")).await;
    other.run(&format!("UPDATE {schema}.annals_checkpoint SET position = 1")).await;
    other.run("COMMIT").await;
    annals.settle().await.unwrap();
    assert_eq!(sum::<1>(&annals, "a", Position::FIRST).await, Some((5, 1)));
    let position = increase(&annals, "a", 1).await;
    assert_eq!(sum::<1>(&annals, "a", position).await, Some((6, 2)), "it resumes after that");
}
