//! What the runner promises, on each kind of source.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals_consume::{
    Applied, Effect, Observer, Options, Reached, Read, Runner, SoFar, Source, Stop, Stopped, WriteError,
};
use annals_core::Backoff;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::kinds::{Kept, Kind, Log, Partitions};

/// Ends a test that hangs.
const HANG: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// Whether the effect of this test blocks its thread.
    static IS_BLOCKING: bool;
}

fn options() -> Options {
    Options {
        lanes: 1,
        batch_max: 16,
        is_total: false,
        window_max: 64,
        bytes_max: 1 << 20,
        backoff: Backoff::new(Duration::from_millis(5), Duration::from_millis(20)),
        ..Options::default()
    }
}

/// What happens to an item instead of being applied.
#[derive(Clone, Copy)]
enum Fault {
    Fails,
    Panics,
    IsAway,
    Moved,
    /// Does not end.
    Hangs,
    /// Ends after the call of another lane has.
    Late,
    /// Waits until another lane applies something.
    Beside,
    /// As `Moved`, while another lane applies something.
    MovedBeside,
    /// Blocks its thread until the test lets it.
    Blocks,
}

/// An effect that records what it applies, and fails as planned at some items.
#[derive(Default)]
struct Recorder {
    applied: Mutex<Vec<(String, u64)>>,
    /// The attempt of each call that began with this item.
    attempts: Mutex<Vec<(String, u64, u32)>>,
    /// How often what happens at an item.
    faults: Mutex<HashMap<(String, u64), (Fault, usize)>>,
    /// Keys that are being applied at this moment.
    running: Mutex<Vec<String>>,
    most_running: Mutex<usize>,
    is_slow: bool,
    is_blocking: AtomicBool,
    changed: Notify,
}

impl Recorder {
    fn at(self, key: &str, number: u64, fault: Fault, times: usize) -> Self {
        self.faults.lock().insert((key.to_owned(), number), (fault, times));
        self
    }

    fn fault(&self, item: &(String, u64)) -> Option<Fault> {
        let mut faults = self.faults.lock();
        let (fault, times) = faults.get_mut(item)?;
        *times = times.checked_sub(1)?;
        Some(*fault)
    }

    fn of(&self, key: &str) -> Vec<u64> {
        let applied = self.applied.lock();
        applied.iter().filter(|(found, _)| found == key).map(|(_, number)| *number).collect()
    }

    async fn until_beside(&self) {
        while self.running.lock().len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if is_so(self) {
                    return;
                }
                changed.await;
            }
        };
        let ended = tokio::time::timeout(HANG, wait).await;
        assert!(ended.is_ok(), "{what} has not come; applied: {:?}", self.applied.lock());
    }
}

struct Recording<K> {
    recorder: Arc<Recorder>,
    kind: std::marker::PhantomData<fn(K)>,
}

impl<K: Kind> Effect<K::Source> for Recording<K> {
    async fn apply(
        &self,
        items: &Arc<Vec<<K::Source as Source>::Item>>,
        attempt: u32,
        so_far: &SoFar<'_>,
    ) -> Applied {
        let recorder = &*self.recorder;
        for (index, item) in items.iter().enumerate() {
            let (key, number) = K::read(item);
            if index == 0 {
                recorder.attempts.lock().push((key.clone(), number, attempt));
            }
            {
                let mut running = recorder.running.lock();
                assert!(!running.contains(&key), "two items of {key} at once");
                running.push(key.clone());
                let mut most = recorder.most_running.lock();
                *most = (*most).max(running.len());
            }
            let _running = Running(recorder, key.clone());
            if recorder.is_slow {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let item = (key, number);
            let stopped = match recorder.fault(&item) {
                None => {
                    recorder.applied.lock().push(item);
                    recorder.changed.notify_one();
                    continue;
                }
                Some(Fault::Panics) => panic!("at {item:?}"),
                Some(Fault::Hangs) => {
                    so_far.applied(index);
                    recorder.changed.notify_one();
                    std::future::pending().await
                }
                Some(Fault::Fails) => Stopped::Failed("it fails".to_owned()),
                Some(Fault::IsAway) => Stopped::Unavailable("it is away".to_owned()),
                Some(Fault::Late) => {
                    recorder.changed.notify_one();
                    while recorder.running.lock().len() > 1 || recorder.attempts.lock().len() < 2 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    // The other call has ended; what it said is heard.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    recorder.applied.lock().push(item);
                    recorder.changed.notify_one();
                    continue;
                }
                Some(Fault::Beside) => {
                    recorder.until_beside().await;
                    recorder.applied.lock().push(item);
                    recorder.changed.notify_one();
                    continue;
                }
                Some(Fault::MovedBeside) => {
                    recorder.until_beside().await;
                    Stopped::Moved("others were here".to_owned())
                }
                Some(Fault::Blocks) => {
                    recorder.is_blocking.store(true, Ordering::SeqCst);
                    recorder.changed.notify_one();
                    let begun = std::time::Instant::now();
                    while recorder.is_blocking.load(Ordering::SeqCst) && begun.elapsed() < 2 * HANG {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Stopped::Failed("it was blocked".to_owned())
                }
                Some(Fault::Moved) => Stopped::Moved("others were here".to_owned()),
            };
            return Applied::stopped(index, stopped);
        }
        Applied::all(items.len())
    }
}

struct Running<'a>(&'a Recorder, String);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.lock().retain(|key| *key != self.1);
        self.0.changed.notify_one();
    }
}

/// The last error since the last success, and how it is otherwise.
#[derive(Default)]
struct Status {
    /// Of items.
    item_failing: Mutex<Option<String>>,
    /// Of everything else.
    failing: Mutex<Option<String>>,
    ends: Mutex<usize>,
    resumed: Mutex<usize>,
}

impl<S: Source> Observer<S> for Status {
    fn resumed(&self, _: &S::Checkpoint, _: Option<String>) {
        *self.resumed.lock() += 1;
    }

    fn reached(&self, _: &Reached<S::Cursor>, is_all: bool, is_end: bool) {
        if is_all {
            *self.item_failing.lock() = None;
        }
        *self.ends.lock() += usize::from(is_end);
    }

    fn failed(&self, error: String, item: Option<&S::Item>) {
        *item.map_or(&self.failing, |_| &self.item_failing).lock() = Some(error);
    }

    fn recovered(&self, at: Option<S::Cursor>) {
        *at.map_or(&self.failing, |_| &self.item_failing).lock() = None;
    }
}

/// A runner that runs.
struct Started {
    recorder: Arc<Recorder>,
    status: Arc<Status>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Started {
    fn new<K: Kind>(kept: &Kept<K>, recorder: Recorder, options: Options) -> Self {
        let recorder = Arc::new(recorder);
        let effect = Recording::<K> { recorder: recorder.clone(), kind: std::marker::PhantomData };
        let status = Arc::new(Status::default());
        let options = Options { is_blocking: IS_BLOCKING.get(), ..options };
        let runner = Runner::new("test", Arc::new(effect), kept.clone(), status.clone(), options);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move { runner.run(&mut Stop::from(stopped)).await });
        Self { recorder, status, stop, task }
    }

    async fn stop(self) -> Arc<Recorder> {
        self.stop.send_replace(true);
        tokio::time::timeout(HANG, self.task).await.expect("it stops").expect("it does not panic");
        self.recorder
    }

    /// Ends it at once, as when a lease is lost.
    async fn cut(self) -> Arc<Recorder> {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
        // Its lanes end at their next await.
        self.recorder.until("the end of its lanes", |recorder| recorder.running.lock().is_empty()).await;
        self.recorder
    }
}

/// `count` items, of the keys a to e in turn.
fn items(count: u64) -> Vec<(&'static str, u64)> {
    (1..=count).map(|number| (["a", "b", "c", "d", "e"][(number % 5) as usize], number)).collect()
}

fn check_each_once_in_order(applied: &[(String, u64)], count: u64) {
    let mut keys: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (key, number) in applied {
        keys.entry(key).or_default().push(*number);
    }
    for (key, numbers) in &keys {
        assert!(numbers.is_sorted(), "the items of {key} came in another order: {numbers:?}");
    }
    let mut numbers: Vec<u64> = applied.iter().map(|(_, number)| *number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=count).collect::<Vec<_>>(), "each item once");
}

async fn everything_is_applied_once_and_each_key_in_order<K: Kind>() {
    for lanes in [1, 4] {
        let kind = K::new();
        kind.add(&items(200)).await;
        let kept = Kept::new(&kind);
        let options = Options { lanes, batch_max: if lanes == 1 { 16 } else { 1 }, ..options() };
        let started = Started::new(&kept, Recorder { is_slow: lanes > 1, ..Recorder::default() }, options);
        started.recorder.until("200 items", |recorder| recorder.applied.lock().len() == 200).await;
        kind.add(&[("a", 201), ("b", 202)]).await;
        started.recorder.until("202 items", |recorder| recorder.applied.lock().len() == 202).await;
        let recorder = started.stop().await;
        check_each_once_in_order(&recorder.applied.lock(), 202);
        assert_eq!(*recorder.most_running.lock(), lanes, "as many at once as there are lanes");
    }
}

async fn an_item_that_fails_holds_back_its_key_alone<K: Kind>() {
    for lanes in [1, 3] {
        let kind = K::new();
        kind.add(&items(50)).await;
        let recorder = Recorder::default().at("b", 11, Fault::Fails, 4);
        let options = Options { lanes, ..options() };
        let started = Started::new(&Kept::new(&kind), recorder, options);
        started
            .recorder
            .until("a last attempt while others go ahead", |recorder| {
                recorder.faults.lock()[&("b".to_owned(), 11)].1 == 0
            })
            .await;
        started.recorder.until("50 items", |recorder| recorder.applied.lock().len() == 50).await;
        let recorder = started.stop().await;
        check_each_once_in_order(&recorder.applied.lock(), 50);
        let attempts = recorder.attempts.lock();
        let tried: Vec<u32> =
            attempts.iter().filter(|(_, number, _)| *number == 11).map(|(.., attempt)| *attempt).collect();
        assert!(tried.ends_with(&[2, 3, 4, 5]), "each attempt is counted: {tried:?}");
        let applied = recorder.applied.lock();
        let place = |item: (&str, u64)| applied.iter().position(|(k, n)| (k.as_str(), *n) == item).unwrap();
        assert!(place(("a", 50)) < place(("b", 16)), "other keys do not wait: {applied:?}");
    }
}

async fn in_total_order_everything_waits_for_an_item_that_fails<K: Kind>() {
    let kind = K::new();
    kind.add(&items(50)).await;
    let recorder = Recorder::default().at("b", 11, Fault::Fails, 3);
    let started = Started::new(&Kept::new(&kind), recorder, Options { is_total: true, ..options() });
    started.recorder.until("50 items", |recorder| recorder.applied.lock().len() == 50).await;
    let read_order = {
        let all =
            Started::new(&Kept::new(&kind), Recorder::default(), Options { is_total: true, ..options() });
        all.recorder.until("50 items", |recorder| recorder.applied.lock().len() == 50).await;
        all.stop().await.applied.lock().clone()
    };
    assert_eq!(*started.stop().await.applied.lock(), read_order);
}

async fn a_panic_is_a_failure_of_its_item<K: Kind>() {
    let kind = K::new();
    kind.add(&items(30)).await;
    let recorder = Recorder::default().at("a", 5, Fault::Panics, 2);
    // One at a time: what was applied in the same call before a panic is applied again.
    let started = Started::new(&Kept::new(&kind), recorder, Options { batch_max: 1, ..options() });
    started.recorder.until("30 items", |recorder| recorder.applied.lock().len() == 30).await;
    check_each_once_in_order(&started.stop().await.applied.lock(), 30);
}

async fn what_is_away_for_all_items_is_no_attempt_of_one<K: Kind>() {
    let kind = K::new();
    kind.add(&items(30)).await;
    let recorder = Recorder::default().at("a", 5, Fault::IsAway, 3);
    let started = Started::new(&Kept::new(&kind), recorder, Options { lanes: 2, ..options() });
    started.recorder.until("30 items", |recorder| recorder.applied.lock().len() == 30).await;
    let recorder = started.stop().await;
    check_each_once_in_order(&recorder.applied.lock(), 30);
    assert!(recorder.attempts.lock().iter().all(|(.., attempt)| *attempt == 1));
}

async fn after_a_stop_the_next_session_applies_nothing_again<K: Kind>() {
    for lanes in [1, 2] {
        let kind = K::new();
        kind.add(&items(100)).await;
        let kept = Kept::new(&kind);
        let options = Options { lanes, batch_max: 1, ..options() };
        let first = Started::new(&kept, Recorder { is_slow: true, ..Recorder::default() }, options);
        first.recorder.until("30 items", |recorder| recorder.applied.lock().len() >= 30).await;
        let mut all = first.stop().await.applied.lock().clone();
        let before = all.len();
        assert!(before < 100, "it was stopped on its way");
        let second = Started::new(&kept, Recorder::default(), options);
        let others = |recorder: &Recorder| {
            let applied = recorder.applied.lock();
            let numbers: BTreeSet<u64> = all.iter().chain(&*applied).map(|(_, number)| *number).collect();
            numbers.len() == 100
        };
        second.recorder.until("the others", others).await;
        all.extend(second.stop().await.applied.lock().iter().cloned());
        if lanes > 1 {
            // One lane may have passed an item that waited for another of its key. It comes again, alone.
            let again = all.len() - 100;
            assert!(again < lanes * 5, "{again} items again");
            let mut known = BTreeSet::new();
            all.retain(|item| known.insert(item.clone()));
        }
        check_each_once_in_order(&all, 100);
    }
}

async fn one_that_is_cut_off_writes_nothing_and_loses_nothing<K: Kind>() {
    let kind = K::new();
    kind.add(&items(40)).await;
    let kept = Kept::new(&kind);
    let first = Started::new(
        &kept,
        Recorder::default().at("c", 22, Fault::Hangs, 1),
        Options { lanes: 3, batch_max: 1, ..options() },
    );
    // Two later ones of its key wait for it, and all others are applied.
    first.recorder.until("all other keys", |recorder| recorder.applied.lock().len() == 36).await;
    let recorder = first.cut().await;
    let writes = *kept.writes.lock();
    assert_eq!(recorder.of("c"), [2, 7, 12, 17]);
    let second = Started::new(&kept, Recorder::default(), options());
    second.recorder.until("what was lost", |recorder| recorder.of("c").ends_with(&[37])).await;
    assert!(second.recorder.of("c").ends_with(&[22, 27, 32, 37]), "nothing was passed over");
    assert!(*kept.writes.lock() >= writes);
    second.stop().await;
}

async fn checkpoints_are_written_in_batches<K: Kind>() {
    let kind = K::new();
    kind.add(&items(2_000)).await;
    let kept = Kept::new(&kind);
    let begun = std::time::Instant::now();
    let started = Started::new(&kept, Recorder::default(), options());
    started.recorder.until("2,000 items", |recorder| recorder.applied.lock().len() == 2_000).await;
    started.stop().await;
    let (writes, tenths) = (*kept.writes.lock(), begun.elapsed().as_millis() as usize / 100);
    assert!(writes <= tenths + 3, "{writes} writes in {tenths} tenths of a second");
    let again = Started::new(&kept, Recorder::default(), options());
    kind.add(&[("z", 1)]).await;
    again.recorder.until("the new one", |recorder| !recorder.applied.lock().is_empty()).await;
    assert_eq!(*again.stop().await.applied.lock(), [("z".to_owned(), 1)]);
}

async fn a_checkpoint_that_cannot_be_written_is_written_later<K: Kind>() {
    let kind = K::new();
    kind.add(&items(20)).await;
    let kept = Kept::new(&kind);
    let away = || WriteError::Unavailable("the state is away".into());
    kept.failures.lock().extend([away(), away()]);
    let started = Started::new(&kept, Recorder::default(), options());
    let (stored, status) = (kept.stored.clone(), started.status.clone());
    let wait = async {
        while stored.lock().is_none() || status.failing.lock().is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(HANG, wait).await.expect("it is written, and the status says that all is well");
    check_each_once_in_order(&started.stop().await.applied.lock(), 20);
}

async fn one_that_finds_something_moved_resumes<K: Kind>() {
    let kind = K::new();
    kind.add(&items(40)).await;
    let kept = Kept::new(&kind);
    kept.failures.lock().push(WriteError::Moved("another process has it".into()));
    let recorder = Recorder::default().at("a", 15, Fault::Moved, 1);
    let started = Started::new(&kept, recorder, options());
    started.recorder.until("the last one", |recorder| recorder.of("a").contains(&40)).await;
    assert!(*started.status.resumed.lock() >= 2, "it resumed where the checkpoint was");
    let recorder = started.stop().await;
    for key in ["a", "b", "c", "d", "e"] {
        let mut numbers = recorder.of(key);
        numbers.dedup();
        let begins = numbers.iter().rposition(|number| *number <= 5).unwrap();
        assert!(numbers[begins..].is_sorted(), "{key} resumed in order: {numbers:?}");
        assert!(numbers.len() >= 8, "nothing is missing: {numbers:?}");
    }
}

async fn one_whose_checkpoint_is_moved_again_and_again_waits_in_between<K: Kind>() {
    let kind = K::new();
    kind.add(&items(4)).await;
    let kept = Kept::new(&kind);
    for _ in 0..10_000 {
        kept.failures.lock().push(WriteError::Moved("another process has it".into()));
    }
    let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let started = Started::new(&kept, Recorder::default(), Options { backoff, ..options() });
    tokio::time::sleep(SECOND).await;
    let resumed = *started.status.resumed.lock();
    assert!(resumed <= 12, "it resumed {resumed} times");
    kept.failures.lock().clear();
    started.cut().await;
}

async fn the_end_is_reported_when_all_is_applied<K: Kind>() {
    let kind = K::new();
    let started = Started::new(&Kept::new(&kind), Recorder::default(), options());
    let ends = |status: &Arc<Status>| *status.ends.lock();
    let wait = async {
        while ends(&started.status) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let before = ends(&started.status);
        kind.add(&items(10)).await;
        while started.recorder.applied.lock().len() < 10 || ends(&started.status) == before {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(HANG, wait).await.expect("the end is reported, also of an empty source");
    started.stop().await;
}

async fn while_a_checkpoint_cannot_be_written_the_status_says_so<K: Kind>() {
    let kind = K::new();
    kind.add(&items(10)).await;
    let kept = Kept::new(&kind);
    kept.failures.lock().extend((0..1_000).map(|_| WriteError::Unavailable("the state is away".into())));
    let options = Options { backoff: Backoff::new(SECOND, SECOND), ..options() };
    let started = Started::new(&kept, Recorder::default(), options);
    let status = started.status.clone();
    let until = async |is_so: &(dyn Fn() -> bool + Sync)| {
        let wait = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(HANG, wait).await.expect("it comes to that");
    };
    until(&|| status.failing.lock().is_some()).await;
    started.recorder.until("10 items", |recorder| recorder.applied.lock().len() == 10).await;
    let before = *status.ends.lock();
    kind.add(&[("a", 11)]).await;
    until(&|| *status.ends.lock() > before).await;
    assert!(status.failing.lock().is_some(), "the checkpoint is not written yet");
    started.stop().await;
}

async fn what_another_lane_has_begun_is_finished_before_a_consumer_resumes<K: Kind>() {
    let kind = K::new();
    kind.add(&[("a", 1), ("b", 1)]).await;
    let recorder = Recorder::default().at("a", 1, Fault::Late, 1).at("b", 1, Fault::MovedBeside, 1);
    let options = Options { lanes: 2, batch_max: 1, ..options() };
    let started = Started::new(&Kept::new(&kind), recorder, options);
    started.recorder.until("both", |recorder| recorder.applied.lock().len() == 2).await;
    let recorder = started.stop().await;
    let begun = recorder.attempts.lock().iter().filter(|(key, ..)| key == "a").count();
    assert_eq!((recorder.of("a"), begun), (vec![1], 1));
}

async fn what_was_applied_is_not_applied_again_after_a_consumer_resumes<K: Kind>() {
    let kind = K::new();
    kind.add(&items(40)).await;
    let recorder = Recorder::default().at("a", 15, Fault::Moved, 1);
    let options = Options { write_every: HANG, ..options() };
    let started = Started::new(&Kept::new(&kind), recorder, options);
    started.recorder.until("all", |recorder| recorder.applied.lock().len() >= 40).await;
    let status = started.status.clone();
    check_each_once_in_order(&started.stop().await.applied.lock(), 40);
    assert!(*status.resumed.lock() >= 2, "it resumed");
}

async fn a_call_that_blocks_its_thread_does_not_keep_a_consumer_from_stopping<K: Kind>() {
    let kind = K::new();
    kind.add(&[("b", 1)]).await;
    let kept = Kept::new(&kind);
    // Wakes the other thread of the runtime, which may sleep without a look at timers and tasks.
    let (runtime, is_over) = (tokio::runtime::Handle::current(), Arc::new(AtomicBool::new(false)));
    let is_over_too = is_over.clone();
    std::thread::spawn(move || {
        while !is_over_too.load(Ordering::SeqCst) {
            runtime.spawn(async {});
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    // One item: what a task has woken before it blocks its thread may wait for that thread.
    let recorder = Recorder::default().at("b", 1, Fault::Blocks, 1);
    let options = Options { grace: Duration::from_millis(10), batch_max: 1, ..options() };
    let started = Started::new(&kept, recorder, options);
    let recorder = started.recorder.clone();
    recorder.until("the call", |recorder| recorder.is_blocking.load(Ordering::SeqCst)).await;
    started.stop().await;
    assert!(recorder.is_blocking.load(Ordering::SeqCst), "it stopped before the call ended");
    recorder.is_blocking.store(false, Ordering::SeqCst);
    recorder.until("the end of the call", |recorder| recorder.running.lock().is_empty()).await;
    let again = Started::new(&kept, Recorder::default(), Options::default());
    again.recorder.until("what failed", |recorder| recorder.of("b") == [1]).await;
    again.stop().await;
    is_over.store(true, Ordering::SeqCst);
}

async fn a_checkpoint_that_is_never_written_does_not_keep_a_consumer_from_stopping<K: Kind>() {
    let kind = K::new();
    kind.add(&items(5)).await;
    let kept = Kept::new(&kind);
    kept.hangs.store(true, Ordering::Relaxed);
    let options = Options { grace: Duration::from_millis(10), ..options() };
    let started = Started::new(&kept, Recorder::default(), options);
    started.recorder.until("all", |recorder| recorder.applied.lock().len() == 5).await;
    started.stop().await;
    kept.hangs.store(false, Ordering::Relaxed);
    let again = Started::new(&kept, Recorder::default(), options);
    again.recorder.until("all, again", |recorder| recorder.applied.lock().len() == 5).await;
    again.stop().await;
}

async fn the_checkpoint_does_not_wait_for_the_rest_of_a_call<K: Kind>() {
    let kind = K::new();
    let one_key: Vec<_> = (1..=30).map(|number| ("a", number)).collect();
    kind.add(&one_key).await;
    let kept = Kept::new(&kind);
    let recorder = Recorder::default().at("a", 12, Fault::Hangs, 1);
    let started = Started::new(&kept, recorder, options());
    let wait = async {
        loop {
            let stored = kept.stored.lock().as_ref().map(K::copy);
            let mut source = kind.open(stored.as_ref()).await.source;
            // The first read of some sources fails.
            let page = match source.read().await {
                Ok(page) => page,
                Err(_) => source.read().await.unwrap(),
            };
            if let Read::Page { items, .. } = page
                && items.first().is_some_and(|item| K::read(item) == ("a".to_owned(), 12))
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(HANG, wait).await.expect("what came before the one that hangs is in the checkpoint");
    started.cut().await;
}

/// The window is more than half full of items of one key that wait for a slow one.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_slow_item_does_not_stop_the_reading_of_other_keys() {
    for is_blocking in [false, true] {
        IS_BLOCKING.scope(is_blocking, a_slow_item_in_a_log()).await;
    }
}

async fn a_slow_item_in_a_log() {
    let kind = Log::new();
    let of =
        |key: &'static str, numbers: std::ops::RangeInclusive<u64>| numbers.map(move |number| (key, number));
    let all: Vec<_> = of("x", 1..=8).chain(of("a", 9..=21)).chain(of("c", 22..=25)).collect();
    kind.add(&all).await;
    let recorder = Recorder { is_slow: true, ..Recorder::default() }.at("a", 9, Fault::Hangs, 1);
    let options = Options { lanes: 2, batch_max: 1, window_max: 20, ..options() };
    let started = Started::new(&Kept::new(&kind), recorder, options);
    started.recorder.until("the other keys", |recorder| recorder.of("c") == [22, 23, 24, 25]).await;
    started.cut().await;
}

/// A call that blocks its thread still runs after its lane is aborted.
async fn a_session_begins_after_the_calls_of_the_one_before<K: Kind>() {
    let kind = K::new();
    kind.add(&[("a", 1), ("b", 1)]).await;
    let kept = Kept::new(&kind);
    kept.failures.lock().push(WriteError::Moved("others".into()));
    let recorder = Recorder::default().at("a", 1, Fault::Beside, 1).at("b", 1, Fault::Blocks, 1);
    let started = Started::new(&kept, recorder, Options { lanes: 2, batch_max: 1, ..options() });
    let recorder = started.recorder.clone();
    recorder.until("the call", |recorder| recorder.is_blocking.load(Ordering::SeqCst)).await;
    let failed = async {
        while !kept.failures.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(HANG, failed).await.expect("the checkpoint of `a` is written");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(*started.status.resumed.lock(), 1, "no session begins meanwhile");
    recorder.is_blocking.store(false, Ordering::SeqCst);
    recorder.until("both", |recorder| recorder.of("b") == [1]).await;
    started.stop().await;
}

/// A program may end without stopping its consumers.
#[test]
fn a_runtime_can_be_dropped_while_a_call_waits_on_a_thread_of_its_own() {
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(IS_BLOCKING.scope(true, async {
            let kind = Log::new();
            kind.add(&[("a", 1)]).await;
            let recorder = Recorder::default().at("a", 1, Fault::Hangs, 1);
            let started = Started::new(&Kept::new(&kind), recorder, options());
            started.recorder.until("the call", |recorder| !recorder.running.lock().is_empty()).await;
        }));
        drop(runtime);
        ended.send(()).unwrap();
    });
    end.recv_timeout(HANG).expect("the runtime ends");
}

macro_rules! on_each_kind {
    ($($test:ident),* $(,)?) => {
        on_each_kind! { log, super::Log, false, $($test),* }
        on_each_kind! { partitions, super::Partitions, false, $($test),* }
        on_each_kind! { blocking_log, super::Log, true, $($test),* }
        on_each_kind! { blocking_partitions, super::Partitions, true, $($test),* }
    };
    ($module:ident, $kind:ty, $is_blocking:literal, $($test:ident),*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::IS_BLOCKING.scope($is_blocking, super::$test::<$kind>()).await;
            })*
        }
    };
}

on_each_kind! {
    everything_is_applied_once_and_each_key_in_order,
    an_item_that_fails_holds_back_its_key_alone,
    in_total_order_everything_waits_for_an_item_that_fails,
    a_panic_is_a_failure_of_its_item,
    what_is_away_for_all_items_is_no_attempt_of_one,
    after_a_stop_the_next_session_applies_nothing_again,
    one_that_is_cut_off_writes_nothing_and_loses_nothing,
    checkpoints_are_written_in_batches,
    a_checkpoint_that_cannot_be_written_is_written_later,
    one_that_finds_something_moved_resumes,
    one_whose_checkpoint_is_moved_again_and_again_waits_in_between,
    the_end_is_reported_when_all_is_applied,
    while_a_checkpoint_cannot_be_written_the_status_says_so,
    what_another_lane_has_begun_is_finished_before_a_consumer_resumes,
    what_was_applied_is_not_applied_again_after_a_consumer_resumes,
    a_call_that_blocks_its_thread_does_not_keep_a_consumer_from_stopping,
    a_checkpoint_that_is_never_written_does_not_keep_a_consumer_from_stopping,
    the_checkpoint_does_not_wait_for_the_rest_of_a_call,
}

// Only calls of an effect that blocks outlive their lane.
on_each_kind! { aborted_log, super::Log, true, a_session_begins_after_the_calls_of_the_one_before }
on_each_kind! { aborted_partitions, super::Partitions, true, a_session_begins_after_the_calls_of_the_one_before }
