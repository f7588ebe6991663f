//! Maintenance of a store while it is served: verification in the background, backups on request, migration,
//! and metrics. It connects the server, which depends on no backend, with the engine, which does not depend
//! on the server.
//!
//! A pass verifies the whole log at its rate; the next one begins an hour after its end. A pass that was
//! stopped with the process resumes where it stopped. Damage is logged when its segment is done, and is
//! counted until a pass finds less.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Clock as _, Error, SystemClock, Timestamp};
use annals_engine::{BackupOptions, Damage, EngineStore, Verification, VerifyOptions, Work, backups};
use annals_server::{Maintenance, Metric};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::address::without_passwords;
use crate::backup_storage::{Destination, cause};

/// The pause between two passes.
const REST: Duration = Duration::from_secs(3600);
/// The interval of the checks during a pause.
const NAP: Duration = Duration::from_millis(200);

/// A time may be ahead of the clock by this, because time synchronization sets clocks back a little.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// The time since `at`. `None` for a time that is ahead of the clock: the clock was ahead when it was
/// written, so the age is unknown. Metrics show infinity then, so that an alert on old backups fires.
fn age(now: Timestamp, at: Timestamp) -> Option<Duration> {
    (at <= now.plus(AHEAD_MAX)).then(|| now.since(at))
}

/// The maintenance of one store.
pub(crate) struct StoreMaintenance {
    store: Arc<EngineStore>,
    destination: Option<Destination>,
    keep: Option<usize>,
    known: Mutex<Known>,
}

/// The results so far, and the running work.
#[derive(Default)]
struct Known {
    stopping: bool,
    /// Whether the store is verified continuously.
    verifies: bool,
    /// The running pass, which [`StoreMaintenance::stop`] stops. The next two are the running backup and
    /// migration.
    verifying: Option<Arc<Work>>,
    backing_up: Option<Arc<Work>>,
    migrating: Option<Arc<Work>>,
    /// The end of the last pass.
    verified_at: Option<Timestamp>,
    /// The number of damaged places that the last pass found.
    damage: u64,
    /// The number of damaged places that the running pass has found.
    damage_now: u64,
    passes: u64,
    /// The number of passes that ended with an error.
    verify_failures: u64,
    backed_up_at: Option<Timestamp>,
    backups: u64,
    backup_failures: u64,
}

impl StoreMaintenance {
    /// The maintenance of this store, with backups to this destination.
    pub(crate) fn new(
        store: Arc<EngineStore>,
        destination: Option<Destination>,
        keep: Option<usize>,
    ) -> Arc<Self> {
        let mut known = Known::default();
        if let Ok(Some(last)) = store.last_pass() {
            (known.verified_at, known.damage) = (Some(last.finished_at), last.damage);
        }
        Arc::new(Self { store, destination, keep, known: Mutex::new(known) })
    }

    /// Reads the time of the last backup, so that its age is known from the start. Call it on a thread that
    /// may block.
    pub(crate) fn look_at_backups(&self) {
        let Some(destination) = &self.destination else { return };
        // The first backup creates the directory.
        if destination.is_to_be_made() {
            return;
        }
        match destination.read().and_then(|storage| backups(&*storage).map_err(cause)) {
            Ok(found) => {
                let mut known = self.known.lock();
                let made = found.into_iter().filter_map(|backup| backup.manifest.ok());
                let now = SystemClock.now();
                // A time that is not ahead of the clock takes precedence over one that is.
                known.backed_up_at = made
                    .map(|backup| backup.created_at)
                    .chain(known.backed_up_at)
                    .max_by_key(|at| (age(now, *at).is_some(), *at));
            }
            Err(error) => {
                tracing::warn!("the backups in {destination} cannot be read: {}", shown(&error));
            }
        }
    }

    /// Verifies the store continuously on a separate thread, until [`stop`](Self::stop) is called.
    pub(crate) fn verify_for_ever(self: Arc<Self>, rate: u64) -> JoinHandle<()> {
        self.known.lock().verifies = true;
        tokio::task::spawn_blocking(move || {
            while let Some(work) = self.next_pass(rate) {
                let care = self.clone();
                let on_damage = move |damage: &Damage| {
                    care.known.lock().damage_now += 1;
                    tracing::error!(
                        file = damage.location.file,
                        offset = damage.location.offset,
                        position = damage.location.position.map(annals_core::Position::get),
                        "damage: {}; {}",
                        damage.problem,
                        damage.lost
                    );
                };
                let options = VerifyOptions { work, resume: true, on_damage: Some(Arc::new(on_damage)) };
                let found = caught(|| self.store.verify(&options));
                self.verified(found.unwrap_or_else(|panic| Err(Error::Internal(panic.into()))));
            }
        })
    }

    /// Waits until the next pass is due; `None` after [`stop`](Self::stop).
    fn next_pass(&self, rate: u64) -> Option<Arc<Work>> {
        loop {
            let mut known = self.known.lock();
            if known.stopping {
                return None;
            }
            if known.verified_at.and_then(|at| age(SystemClock.now(), at)).is_none_or(|age| age >= REST) {
                let work = Work::new(Some(rate));
                known.verifying = Some(work.clone());
                known.damage_now = 0;
                return Some(work);
            }
            drop(known);
            std::thread::sleep(NAP);
        }
    }

    fn verified(&self, found: Result<Verification, Error>) {
        let mut known = self.known.lock();
        known.verifying = None;
        match found {
            Ok(found) if found.finished => {
                known.verified_at = Some(SystemClock.now());
                known.damage = found.damage.len() as u64;
                known.passes += 1;
                let (events, head) = (found.events, found.head.get());
                if known.damage == 0 {
                    tracing::info!(events, head, "verified: no damage found");
                } else {
                    let places = known.damage;
                    tracing::error!(
                        events,
                        head,
                        places,
                        "verified: the store is damaged; see `annals verify`"
                    );
                }
            }
            Ok(found) => {
                tracing::info!(head = found.head.get(), "the verification resumes at the next start")
            }
            Err(error) => {
                tracing::error!(
                    error = error.chain(),
                    "the store cannot be verified; it is tried again in an hour"
                );
                known.verify_failures += 1;
                // The next pass begins after the same pause as after a completed one.
                drop(known);
                self.rest();
            }
        }
    }

    fn rest(&self) {
        let begun = std::time::Instant::now();
        while begun.elapsed() < REST && !self.known.lock().stopping {
            std::thread::sleep(NAP);
        }
    }

    /// Migrates the store on a separate thread if `asked`; otherwise logs a warning if the store has old
    /// indexes.
    pub(crate) fn migrate(self: Arc<Self>, asked: bool) -> Option<JoinHandle<()>> {
        let (indexes, events) = self.store.old_indexes();
        if indexes == 0 {
            return None;
        }
        if !asked {
            tracing::warn!(
                indexes,
                events,
                "indexes of an earlier version find no event by id or predecessor: run `annals migrate`, or serve with --migrate"
            );
            return None;
        }
        let work = Work::new(None);
        self.known.lock().migrating = Some(work.clone());
        Some(tokio::task::spawn_blocking(move || {
            let migrated = caught(|| self.store.migrate(&work));
            match migrated.unwrap_or_else(|panic| Err(Error::Internal(panic.into()))) {
                Ok(indexes) => {
                    tracing::info!(indexes, events, "migrated: all indexes are of the newest version")
                }
                Err(_) if work.is_stopped() => tracing::info!("the migration continues at the next start"),
                Err(error) => {
                    tracing::error!(
                        error = error.chain(),
                        "the store was not migrated; it is tried again at the next start"
                    );
                }
            }
        }))
    }

    /// Stops the running work: verification and migration continue at the next start, a running backup is
    /// abandoned.
    pub(crate) fn stop(&self) {
        let mut known = self.known.lock();
        known.stopping = true;
        let under_way = known.verifying.iter().chain(&known.backing_up).chain(&known.migrating);
        under_way.for_each(|work| work.stop());
    }

    fn make_backup(&self, work: Arc<Work>) -> anyhow::Result<annals_engine::Backup> {
        let destination = self.destination.as_ref().ok_or_else(|| anyhow::anyhow!("no place was named"))?;
        let storage = destination.open()?;
        let options = BackupOptions { work, verify: false, keep: self.keep };
        self.store.backup(&*storage, &options).map_err(cause)
    }
}

/// Runs work and converts a panic to an error, so that a panic does not end the thread.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        format!("it panicked: {}", text.unwrap_or_default())
    })
}

/// The text of an error for the log and for clients, without passwords: a client of object storage may quote
/// its whole address.
fn shown(error: &anyhow::Error) -> String {
    without_passwords(&format!("{error:#}"))
}

impl Maintenance for StoreMaintenance {
    fn backup(&self) -> Result<Value, String> {
        let work = Work::new(None);
        {
            let mut known = self.known.lock();
            if known.stopping {
                return Err("the server is shutting down".to_owned());
            }
            known.backing_up = Some(work.clone());
        }
        let made = caught(|| self.make_backup(work)).unwrap_or_else(|panic| Err(anyhow::anyhow!(panic)));
        let mut known = self.known.lock();
        known.backing_up = None;
        match made {
            Ok(made) => {
                known.backups += 1;
                known.backed_up_at = Some(made.manifest.created_at);
                let (number, head, bytes) =
                    (made.manifest.number, made.manifest.head.get(), made.copied_bytes);
                tracing::info!(number, head, bytes, "backed up");
                if let Some(up_to) = made.other_history {
                    tracing::warn!(
                        up_to,
                        "the backups up to this one are of another history of the log, and are kept"
                    );
                }
                Ok(crate::backup::in_json(&made))
            }
            Err(error) => {
                known.backup_failures += 1;
                let why = shown(&error);
                tracing::error!("there is no new backup: {why}");
                Err(why)
            }
        }
    }

    fn backs_up(&self) -> bool {
        self.destination.is_some()
    }

    fn metrics(&self) -> Vec<Metric> {
        let known = self.known.lock();
        let mut figures = Vec::new();
        let mut add = |name, help, value, counter| figures.push(Metric { name, help, value, counter });
        let seconds = |time: Timestamp| time.as_micros() as f64 / 1e6;
        // The age of something that was never done is infinite too, so that an alert on old ages fires.
        let age = |time: Option<Timestamp>| {
            time.and_then(|time| age(SystemClock.now(), time)).map_or(f64::INFINITY, |age| age.as_secs_f64())
        };
        add(
            "annals_clock_behind_seconds",
            "By how much the clock is behind the newest event: until it has caught up, recorded time stands still",
            self.store.clock_behind().as_secs_f64(),
            false,
        );
        if known.verifies || known.verified_at.is_some() {
            let damage = known.damage.max(known.damage_now) as f64;
            add(
                "annals_verify_damage",
                "Places that are damaged, as the last pass found or this one has",
                damage,
                false,
            );
            add(
                "annals_verify_passes",
                "Passes over the whole log since the start",
                known.passes as f64,
                true,
            );
            add(
                "annals_verify_failures",
                "Passes that could not be made since the start",
                known.verify_failures as f64,
                true,
            );
            if let Some(at) = known.verified_at {
                add("annals_verify_last_timestamp_seconds", "When the last pass ended", seconds(at), false);
            }
            let last = age(known.verified_at);
            add("annals_verify_last_age_seconds", "Time since the last pass ended", last, false);
            let (done, total) = known.verifying.as_ref().map_or((0, 0), |work| work.progress());
            add("annals_verify_done_bytes", "Bytes that the pass under way has read", done as f64, false);
            add(
                "annals_verify_total_bytes",
                "Bytes that the pass under way has to read",
                total as f64,
                false,
            );
        }
        if self.destination.is_some() {
            add("annals_backups", "Backups since the start", known.backups as f64, true);
            add(
                "annals_backup_failures",
                "Backups that failed since the start",
                known.backup_failures as f64,
                true,
            );
            if let Some(at) = known.backed_up_at {
                add(
                    "annals_backup_last_timestamp_seconds",
                    "When the last backup was begun",
                    seconds(at),
                    false,
                );
            }
            let last = age(known.backed_up_at);
            add("annals_backup_last_age_seconds", "Time since the last backup was begun", last, false);
        }
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure_that_says_what_it_was() {
        assert_eq!(caught(|| 7), Ok(7));
        let number = 7;
        for panicked in [caught(|| panic!("at {number}")), caught(|| assert!(number == 8, "at 7"))] {
            assert_eq!(panicked, Err("it panicked: at 7".to_owned()));
        }
    }

    #[test]
    fn a_verification_that_fails_is_in_a_figure_and_is_tried_again() {
        let place = tempfile::tempdir().unwrap();
        let store = Arc::new(EngineStore::open(place.path(), annals_engine::Options::default()).unwrap());
        let care = StoreMaintenance::new(store, None, None);
        care.known.lock().verifies = true;
        // So that the pause of an hour is skipped.
        care.stop();
        care.verified(Err(Error::Unavailable("the disk is gone".into())));
        care.known.lock().stopping = false;
        let failures = |care: &StoreMaintenance| {
            let figures = care.metrics();
            figures.iter().find(|figure| figure.name == "annals_verify_failures").map(|figure| figure.value)
        };
        assert_eq!(failures(&care), Some(1.0));
        let never = care.metrics().into_iter().find(|figure| figure.name == "annals_verify_last_age_seconds");
        assert_eq!(never.map(|figure| figure.value), Some(f64::INFINITY));
        assert!(care.next_pass(1 << 20).is_some());
    }

    #[test]
    fn what_was_done_with_a_clock_ahead_is_not_taken_for_new() {
        let now: Timestamp = "2026-12-01T10:00:00Z".parse().expect("it is a time");
        let hour = Duration::from_secs(3600);
        assert_eq!(age(now.plus(hour), now), Some(hour));
        assert_eq!(age(now, now.plus(Duration::from_secs(1))), Some(Duration::ZERO));
        assert_eq!(age(now, now.plus(hour)), None);
    }
}
