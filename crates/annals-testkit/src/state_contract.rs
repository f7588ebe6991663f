//! The contract of state beside a log, clause by clause, in the form of `contract`: each clause is one
//! function, named as a sentence, whose documentation begins with the rule that it tests: C1 to C4 of
//! checkpoints, L1 to L4 of leases (each listed at the top of its file in `annals-state`), N1 and N2 of
//! snapshots, T1 of the whole.
//!
//! The list of clauses is defined once, below: [`state_contract!`](crate::state_contract!) generates tests
//! from it, `state_clause` makes the functions public, and [`STATE_CLAUSES`] makes the names available to
//! programs. The compiler reports a clause that is not listed as unused.

mod checkpoints;
mod crashes;
mod fences;
mod leases;
mod names;
mod parts;
mod several;
mod snapshots;

use std::time::Duration;

use annals_core::{EventId, Position};
use annals_state::{Acquired, Checkpoint, Lease, StateError, StateStore};

/// Passes the list of all clauses to a macro. For the macros of this crate only.
#[doc(hidden)]
#[macro_export]
macro_rules! __state_clauses {
    ($then:ident) => {
        $then! {
            checkpoints: {
                a_name_without_a_checkpoint_has_none,
                a_checkpoint_is_read_as_it_was_written,
                a_checkpoint_without_an_event_is_read_as_it_was_written,
                an_existing_checkpoint_is_not_created_again,
                a_checkpoint_advances,
                an_advance_never_moves_a_checkpoint_back,
                an_advance_makes_no_checkpoint,
                a_checkpoint_is_replaced_where_it_was_seen,
                a_checkpoint_that_was_moved_meanwhile_is_not_replaced,
                a_large_ladder_is_kept,
                the_greatest_position_is_kept_and_a_greater_one_refused,
            }
            names: {
                names_are_compared_byte_for_byte,
                names_of_the_greatest_length_are_distinguished,
                a_name_that_has_no_room_is_refused,
                names_of_leases_are_compared_byte_for_byte,
            }
            parts: {
                the_parts_of_a_name_are_found_and_no_others,
                parts_are_replaced_all_at_once,
                parts_that_were_moved_meanwhile_are_not_replaced,
                a_part_that_came_meanwhile_keeps_the_parts,
                of_many_that_divide_one_succeeds,
            }
            leases: {
                a_free_lease_is_acquired,
                a_held_lease_is_refused_and_its_holder_named,
                a_released_lease_is_free,
                the_token_grows_with_each_acquisition,
                a_holder_that_acquires_again_loses_its_former_lease,
                a_lease_that_is_over_is_taken_over,
                of_many_that_take_over_a_lease_one_succeeds,
                a_renewed_lease_lasts_from_then_on,
                a_lease_that_is_over_and_free_is_renewed,
                a_lost_lease_is_not_renewed,
                a_lost_lease_is_not_released,
                a_clock_that_jumps_ahead_ends_leases,
                a_clock_that_is_set_back_a_little_ends_no_lease,
                a_clock_that_is_set_back_far_keeps_no_lease_for_ever,
            }
            fences: {
                the_holder_of_a_lease_writes,
                a_lost_lease_moves_nothing,
                a_lost_lease_makes_nothing,
                a_lost_lease_replaces_nothing,
                a_released_lease_moves_nothing,
                a_lease_that_is_over_and_free_still_writes,
                a_holder_that_wakes_late_writes_nothing,
                a_lease_that_is_not_held_writes_nothing,
                a_fence_is_of_its_own_lease,
                a_write_that_is_fenced_leaves_the_lease_as_it_is,
            }
            snapshots: {
                the_newest_snapshot_is_the_nearest,
                the_nearest_is_not_beyond_what_was_asked_for,
                an_older_snapshot_never_hides_a_newer_one,
                a_snapshot_of_a_version_takes_the_place_of_the_one_before,
                only_the_newest_snapshots_are_kept,
                snapshots_of_another_schema_are_not_found,
                snapshots_of_another_stream_are_not_found,
                a_snapshot_is_read_as_it_was_put,
                a_large_snapshot_is_kept,
                forgotten_snapshots_are_gone,
            }
            crashes: {
                checkpoints_survive_a_crash,
                leases_survive_a_crash,
                snapshots_survive_a_crash,
                parts_survive_a_crash,
                a_crash_between_any_two_calls_loses_none_of_them,
                the_state_of_another_log_is_never_shown,
            }
            several: {
                two_handles_see_one_state,
                two_handles_have_one_lease,
                of_many_writers_the_furthest_wins,
                of_many_that_create_a_checkpoint_one_succeeds,
                lost_leases_write_nothing_while_others_take_over,
                random_calls_are_answered_as_by_the_reference,
            }
        }
    };
}

macro_rules! publish {
    ($($section:ident: { $($clause:ident,)* })*) => {
        /// Every clause of the contract of state under its name.
        pub mod state_clause {
            $(pub use super::$section::{$($clause,)*};)*
        }

        /// The names of all clauses of the contract of state, in the order of the list.
        pub const STATE_CLAUSES: &[&str] = &[$($(stringify!($clause),)*)*];
    };
}
__state_clauses!(publish);

/// Generates one named test for each clause of the contract of state, for one implementation.
///
/// `open` is an expression that creates a fresh [`StateSubject`](crate::StateSubject); it may await. A clause
/// that cannot hold is skipped by name, with the reason, as with [`contract!`](crate::contract!); the name of
/// an unknown clause does not compile.
///
/// ```
/// # mod tests {
/// use std::sync::Arc;
/// use annals_core::{Result, StoreId, TestClock};
/// use annals_state::{MemoryState, StateStore};
/// use annals_testkit::StateSubject;
///
/// struct Memory;
///
/// impl StateSubject for Memory {
///     async fn open(&self, log: StoreId, clock: Arc<TestClock>) -> Result<Arc<dyn StateStore>> {
///         Ok(Arc::new(MemoryState::with_clock(log, clock)))
///     }
/// }
///
/// annals_testkit::state_contract!(
///     open: Memory,
///     skip: {
///         checkpoints_survive_a_crash: "ends with the process",
///     },
/// );
/// # }
/// ```
///
/// ```compile_fail,E0432
/// # mod tests {
/// annals_testkit::state_contract!(open: (), skip: { checkpoints_survive_a_crahs: "ends with the process" });
/// # }
/// ```
#[macro_export]
macro_rules! state_contract {
    (open: $open:expr $(,)?) => {
        $crate::__state_contract!(($) $open, {});
    };
    (open: $open:expr, skip: { $($clause:ident: $reason:literal),* $(,)? } $(,)?) => {
        $crate::__state_contract!(($) $open, { $($clause: $reason,)* });
    };
}

/// The expansion of [`state_contract!`](crate::state_contract!). `$d` is a dollar sign for the macro that is
/// defined in it.
#[doc(hidden)]
#[macro_export]
macro_rules! __state_contract {
    (($d:tt) $open:expr, { $($skip:ident: $reason:literal,)* }) => {
        $(
            #[allow(unused_imports)]
            use $crate::state_clause::$skip as _;
            const _: () = assert!(!$reason.is_empty(), "leaving out a clause needs a reason");
        )*

        macro_rules! __annals_state_contract {
            ($d($d section:ident: { $d($d clause:ident,)* })*) => {
                $d($d(__annals_state_contract!($d clause);)*)*
            };
            $(
                ($skip) => {
                    #[test]
                    #[ignore = $reason]
                    fn $skip() {
                        $crate::hold_state(stringify!($skip), async || $open, $crate::state_clause::$skip);
                    }
                };
            )*
            ($d clause:ident) => {
                #[test]
                fn $d clause() {
                    $crate::hold_state(stringify!($d clause), async || $open, $crate::state_clause::$d clause);
                }
            };
        }

        $crate::__state_clauses!(__annals_state_contract);
    };
}

/// The duration of leases in clauses.
const LENGTH: Duration = Duration::from_secs(60);

/// A checkpoint at this position, with an event and a ladder.
fn at(position: u64) -> Checkpoint {
    Checkpoint {
        position: Position::new(position),
        event: Some(EventId::generate()),
        ladder: Some(position.to_be_bytes().to_vec()),
    }
}

/// Acquires a free lease.
async fn acquire(state: &dyn StateStore, name: &str, holder: &str) -> Lease {
    match state.acquire(name, holder, LENGTH).await.expect("the state answers") {
        Acquired::Held(lease) => lease,
        Acquired::HeldBy(other) => panic!("`{holder}` does not get the lease `{name}`, which `{other}` has"),
    }
}

/// The holder of a lease that is refused.
async fn refused(state: &dyn StateStore, name: &str, holder: &str) -> String {
    match state.acquire(name, holder, LENGTH).await.expect("the state answers") {
        Acquired::Held(lease) => panic!("two have the lease `{name}`: {lease:?}"),
        Acquired::HeldBy(other) => other,
    }
}

/// The checkpoint of a name.
async fn read(state: &dyn StateStore, name: &str) -> Option<Checkpoint> {
    state.checkpoint(name).await.expect("the state answers")
}

/// Creates a checkpoint for a name without one.
async fn create(state: &dyn StateStore, name: &str, checkpoint: &Checkpoint) {
    assert!(state.create(name, checkpoint, None).await.expect("the state answers"), "`{name}` has none yet");
}

/// Asserts that a write was refused because its lease is lost.
fn assert_lost<T: std::fmt::Debug>(written: Result<T, StateError>, lease: &Lease) {
    match written {
        Err(StateError::LeaseLost(name)) => assert_eq!(name, lease.name),
        other => panic!("a write under {lease:?}, which is lost, is answered {other:?}"),
    }
}
