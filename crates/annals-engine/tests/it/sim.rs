//! Simulated disasters: a store lives on a faulty disk by a schedule, and whatever happens, nothing that was
//! acknowledged is lost (G1), half there (G2), out of order (G4), applied twice (G5), skipped or repeated to
//! a consumer (G7), and what goes wrong is shown (G9).
//!
//! A schedule fixes what is asked, what goes wrong and when, and what survives. Only the moment at which the
//! thread that seals runs does its work is left to the machine. `docs/proof.md` says how to run more.

#![allow(dead_code, reason = "some of it is for the tests of planted bugs alone")]

mod life;
mod witness;

use std::fmt;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use annals_engine::disk::Disk;
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::{EngineStore, Options};

use self::life::Life;
pub use self::witness::Witness;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The machine stops at an operation.
    Stops,
    /// An operation fails.
    Failures,
    /// Every operation fails from one on.
    Breaks,
    /// A look fails, or finds a flipped bit.
    Looks,
    /// A bit flips at rest.
    Flips,
    /// The end of the last segment is gone.
    Cuts,
    /// The disk is full, and has room again.
    Full,
    /// The machine stops while groups of appends are written, on a slow disk, again and again.
    Groups,
    /// Any of it but that, again and again.
    Lives,
}

const FAMILIES: [Family; 9] = {
    use Family::*;
    [Stops, Failures, Breaks, Looks, Flips, Cuts, Full, Groups, Lives]
};

/// All that is left to chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// What goes wrong.
    pub family: Family,
    /// What is asked of the store, and how it was opened.
    pub seed: u64,
    /// At which operation or look.
    pub at: u64,
    /// What survives, or which bit it is.
    pub left: u64,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, seed, at, left } = self;
        write!(f, "{family:?}/{seed}/{at}/{left}")
    }
}

impl std::str::FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split('/').collect();
        let wrong = || format!("`{text}` is no schedule");
        let [family, seed, at, left] = parts[..] else { return Err(wrong()) };
        let family = FAMILIES.into_iter().find(|known| format!("{known:?}") == family).ok_or_else(wrong)?;
        let number = |text: &str| text.parse().map_err(|_| wrong());
        Ok(Self { family, seed: number(seed)?, at: number(at)?, left: number(left)? })
    }
}

/// How a store is opened.
pub struct Setting {
    /// With these options.
    pub options: Options,
    /// On a disk so slow that appends are handed to threads.
    pub slow: bool,
    /// With appends that are all of one size, so that what is left of one may stand just where the next
    /// would.
    pub uniform: bool,
}

/// What stands between a store and its disk: nothing, unless a bug is planted there.
pub type Wrapping = fn(&FaultyDisk) -> Arc<dyn Disk>;

thread_local!(static WRAPPING: std::cell::Cell<Wrapping> =
    const { std::cell::Cell::new(|disk| Arc::new(disk.clone())) });

/// Puts this between disks and stores that are opened on this thread.
pub fn wrap(wrapping: Wrapping) {
    WRAPPING.set(wrapping);
}

/// Opens a store as it is set.
pub fn open(disk: &FaultyDisk, setting: &Setting) -> annals_core::Result<EngineStore> {
    EngineStore::on(WRAPPING.get()(disk), setting.options.clone())
}

/// What came of many schedules.
#[derive(Clone, Copy, Default)]
pub struct Count {
    /// Schedules.
    pub schedules: u64,
    /// Times that the power failed.
    pub crashes: u64,
    /// Appends that were acknowledged and looked for.
    pub checked: u64,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schedules, crashes, checked } = self;
        write!(
            f,
            "{schedules} schedules, {crashes} crashes, {checked} acknowledged appends looked for, lost 0"
        )
    }
}

impl Count {
    fn add(&mut self, lived: &Witness) {
        self.schedules += 1;
        self.crashes += lived.crashes;
        self.checked += lived.checked;
    }
}

/// Lives by one schedule. The error says what is wrong.
pub fn run(schedule: &Schedule) -> Result<Witness, String> {
    alive(|| Life::live(schedule))
}

fn alive<T, F: Future<Output = T>>(life: impl FnOnce() -> F) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    catch_unwind(AssertUnwindSafe(|| runtime.block_on(life()))).map_err(|panic| {
        let text = panic.downcast::<String>().map(|text| *text);
        text.unwrap_or_else(|panic| panic.downcast_ref::<&str>().copied().unwrap_or("it panicked").to_owned())
    })
}

/// Lives by all of these, up to the first in which something is wrong.
pub fn first_failure(schedules: impl Iterator<Item = Schedule>) -> Result<Count, (Schedule, String, Count)> {
    let mut count = Count::default();
    for schedule in schedules {
        match run(&schedule) {
            Ok(lived) => count.add(&lived),
            Err(problem) => {
                count.schedules += 1;
                return Err((schedule, problem, count));
            }
        }
    }
    Ok(count)
}

/// Schedules of one family: of this many ways to work, at every operation or at `each` of them.
pub fn schedules(family: Family, seeds: std::ops::Range<u64>, each: u64) -> impl Iterator<Item = Schedule> {
    seeds.flat_map(move |seed| {
        // If it does not live at all, the first schedule will say so.
        let (operations, looks) = alive(|| Life::unharmed(family, seed)).unwrap_or((1, 1));
        let mut random = crate::common::Random::new(seed ^ 0x5eed);
        let ats: Vec<u64> = match family {
            Family::Stops | Family::Failures | Family::Breaks => (1..=operations + 1).collect(),
            Family::Looks => (0..each * 8).map(|_| 1 + random.below(looks)).collect(),
            Family::Flips | Family::Cuts => vec![0; each as usize * 8],
            Family::Full => (0..each).map(|_| random.below(3_000)).collect(),
            Family::Groups | Family::Lives => vec![0],
        };
        let lefts = match family {
            Family::Stops | Family::Failures => each,
            _ => 1,
        };
        let all = ats.into_iter().flat_map(move |at| {
            let mut random = random.clone();
            (0..lefts).map(move |left| {
                // Nothing survives, everything does, any part of it.
                let left = if left + at % 2 < 2 && lefts > 1 { left } else { (random.next() ^ at) >> 16 };
                Schedule { family, seed, at, left }
            })
        });
        all.collect::<Vec<_>>()
    })
}

/// Says something that is seen also if the test passes.
pub fn say(line: &str) {
    let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}

/// The schedules of a family that are lived by whenever the tests run: a number of ways to work, and of
/// schedules for each.
pub fn of(family: Family) -> impl Iterator<Item = Schedule> {
    let (seeds, each) = match family {
        Family::Stops | Family::Failures => (6, 3),
        Family::Breaks => (4, 1),
        Family::Looks => (16, 2),
        Family::Flips => (16, 6),
        Family::Cuts => (8, 2),
        Family::Full => (20, 3),
        Family::Groups => (150, 1),
        Family::Lives => (80, 1),
    };
    schedules(family, 0..seeds, each)
}

fn survives(family: Family) {
    let began = std::time::Instant::now();
    match first_failure(of(family)) {
        Ok(count) => say(&format!("simulated {family:?}: {count} ({:.1} s)", began.elapsed().as_secs_f64())),
        Err((schedule, problem, _)) => panic!("{}", again(&schedule, &problem)),
    }
}

fn again(schedule: &Schedule, problem: &str) -> String {
    format!(
        "{problem}\nthe schedule is {schedule}; again: \
         ANNALS_SCHEDULE={schedule} cargo test -p annals-engine --test it one_schedule -- --ignored --nocapture"
    )
}

/// G1, G2, G4, G5, G7: the machine stops at every operation.
#[test]
fn nothing_is_lost_wherever_the_machine_stops() {
    survives(Family::Stops);
}

/// G1, G4, G9: every operation fails once.
#[test]
fn nothing_is_lost_whatever_fails() {
    survives(Family::Failures);
}

/// G9: from every operation on, all of them fail.
#[test]
fn nothing_is_lost_when_the_disk_breaks() {
    survives(Family::Breaks);
}

/// G8, G9: reads fail, or find flipped bits.
#[test]
fn nothing_wrong_is_answered_when_reads_fail() {
    survives(Family::Looks);
}

/// G9: bits flip at rest: what is read is right, or shown to be damaged.
#[test]
fn flipped_bits_are_never_believed() {
    survives(Family::Flips);
}

/// G9: a log that was closed and has lost its end is not a shorter log.
#[test]
fn a_lost_end_is_never_taken_for_the_end() {
    survives(Family::Cuts);
}

/// G9: the disk fills, and has room again.
#[test]
fn a_full_disk_costs_nothing_but_what_it_refused() {
    survives(Family::Full);
}

/// G1, G2, G5: the machine stops in the middle of groups.
#[test]
fn groups_are_whole_or_gone() {
    survives(Family::Groups);
}

/// G1 to G9: all of it, again and again, on one disk.
#[test]
fn nothing_is_lost_in_long_lives() {
    survives(Family::Lives);
}

/// Lives by the schedule that `ANNALS_SCHEDULE` names.
#[test]
#[ignore = "repeats the schedule that ANNALS_SCHEDULE names"]
fn one_schedule() {
    let schedule: Schedule = std::env::var("ANNALS_SCHEDULE").unwrap().parse().unwrap();
    let lived = run(&schedule).unwrap_or_else(|problem| panic!("{}", again(&schedule, &problem)));
    say(&format!("{schedule}: {} acknowledged appends looked for, lost 0", lived.checked));
}

/// Lives by schedules of all families for as many seconds as `ANNALS_SIM_SECONDS` says, from
/// `ANNALS_SIM_SEED` on.
#[test]
#[ignore = "runs for as long as it is asked to: cargo xtask sim --hours N"]
fn as_long_as_asked() {
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (seconds, first) = (number("ANNALS_SIM_SECONDS"), number("ANNALS_SIM_SEED"));
    let (began, mut shown) = (std::time::Instant::now(), 0);
    let mut count = Count::default();
    for seed in first.. {
        for family in FAMILIES {
            let each = if matches!(family, Family::Stops | Family::Failures) { 2 } else { 1 };
            for schedule in schedules(family, seed..seed + 1, each) {
                let lived = run(&schedule).unwrap_or_else(|problem| panic!("{}", again(&schedule, &problem)));
                count.add(&lived);
                let elapsed = began.elapsed().as_secs();
                if elapsed >= shown + 10 || elapsed >= seconds {
                    shown = elapsed;
                    say(&format!("{elapsed} s, seed {seed}: {count}"));
                }
                if elapsed >= seconds {
                    return;
                }
            }
        }
    }
}
