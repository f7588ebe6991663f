//! The contract of state on trial: state that keeps it passes all of it, and each broken one is caught by
//! exactly the clauses that are named for it.
//!
//! Clauses of several tasks are judged only where they are named: what they say may depend on who comes
//! first.

use std::panic::{AssertUnwindSafe, catch_unwind};

use annals_testkit::{STATE_CLAUSES, hold_state, state_clause};

use crate::state_kept::{Fault, Place};

/// State that outlives its handles keeps every clause; none is left out.
mod whole {
    use crate::state_kept::{Fault, Place};
    annals_testkit::state_contract!(open: Place::new(Fault::Nothing));
}

/// The clauses in which several tasks do something at once, or calls are made at random.
const JUDGED_WHERE_NAMED: &[&str] = &[
    "of_many_that_divide_one_succeeds",
    "of_many_that_take_over_a_lease_one_succeeds",
    "of_many_writers_the_furthest_wins",
    "of_many_that_create_a_checkpoint_one_succeeds",
    "lost_leases_write_nothing_while_others_take_over",
    "random_calls_are_answered_as_by_the_reference",
];

/// Whether a clause fails for this state.
fn fails(name: &str, fault: Fault) -> bool {
    macro_rules! by_name {
        ($($section:ident: { $($clause:ident,)* })*) => {
            match name {
                $($(stringify!($clause) => catch_unwind(AssertUnwindSafe(|| {
                    hold_state(name, async move || Place::new(fault), state_clause::$clause);
                }))
                .is_err(),)*)*
                _ => panic!("`{name}` is no clause"),
            }
        };
    }
    annals_testkit::__state_clauses!(by_name)
}

fn check(fault: Fault, named: &[&str]) {
    for name in named {
        assert!(STATE_CLAUSES.contains(name), "`{name}` is no clause");
    }
    let judged = |name: &&&str| named.contains(*name) || !JUDGED_WHERE_NAMED.contains(*name);
    let failed: Vec<_> =
        STATE_CLAUSES.iter().filter(judged).filter(|name| fails(name, fault)).copied().collect();
    let wrong: Vec<_> = failed.iter().filter(|name| !named.contains(name)).collect();
    let held: Vec<_> = named.iter().filter(|name| !failed.contains(name)).collect();
    assert!(
        wrong.is_empty() && held.is_empty(),
        "state that {fault:?} fails {wrong:?}, which are not named, and holds {held:?}, which are; in all\n@{fault:?}: [{}]",
        failed.join(", ")
    );
}

macro_rules! broken_state_is_caught {
    ($($test:ident: $fault:ident => [$($clause:ident),+ $(,)?];)*) => {
        $(
            #[test]
            fn $test() {
                check(Fault::$fault, &[$(stringify!($clause)),+]);
            }
        )*

        /// The clauses that catch broken state, one list for each.
        const CAUGHT_BY: &[&[&str]] = &[$(&[$(stringify!($clause)),+]),*];
    };
}

#[test]
fn every_clause_of_state_is_shown_to_fail() {
    for name in STATE_CLAUSES {
        let shown = CAUGHT_BY.iter().any(|clauses| clauses.contains(name));
        assert!(shown, "`{name}` needs broken state that it catches");
    }
}

#[test]
fn no_clause_of_state_is_listed_twice() {
    let mut names = STATE_CLAUSES.to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), STATE_CLAUSES.len());
    assert!(names.len() >= 60, "{} clauses", names.len());
}

broken_state_is_caught! {
    state_that_invents_checkpoints: InventsCheckpoints => [
        a_name_without_a_checkpoint_has_none, an_advance_makes_no_checkpoint,
        a_checkpoint_that_was_moved_meanwhile_is_not_replaced,
        the_greatest_position_is_kept_and_a_greater_one_refused, names_are_compared_byte_for_byte,
        a_name_that_has_no_room_is_refused, a_lost_lease_makes_nothing,
        a_holder_that_wakes_late_writes_nothing, the_state_of_another_log_is_never_shown,
    ];
    state_that_loses_advances: LosesAdvances => [
        a_checkpoint_is_read_as_it_was_written, a_checkpoint_without_an_event_is_read_as_it_was_written,
        a_checkpoint_advances, the_greatest_position_is_kept_and_a_greater_one_refused,
        parts_that_were_moved_meanwhile_are_not_replaced, the_holder_of_a_lease_writes,
        a_lost_lease_moves_nothing, a_released_lease_moves_nothing,
        a_lease_that_is_over_and_free_still_writes, a_holder_that_wakes_late_writes_nothing,
        a_lease_that_is_not_held_writes_nothing, a_fence_is_of_its_own_lease,
        a_write_that_is_fenced_leaves_the_lease_as_it_is, checkpoints_survive_a_crash,
        leases_survive_a_crash, a_crash_between_any_two_calls_loses_none_of_them,
        the_state_of_another_log_is_never_shown, two_handles_see_one_state, two_handles_have_one_lease,
        random_calls_are_answered_as_by_the_reference,
    ];
    state_that_advances_back: AdvancesBack => [
        an_advance_never_moves_a_checkpoint_back, the_holder_of_a_lease_writes,
        random_calls_are_answered_as_by_the_reference,
    ];
    state_that_advances_to_the_same_position: AdvancesToTheSamePosition => [
        an_advance_never_moves_a_checkpoint_back,
    ];
    state_that_makes_by_advance: MakesByAdvance => [
        an_advance_makes_no_checkpoint, the_holder_of_a_lease_writes,
    ];
    state_that_makes_again: MakesAgain => [
        an_existing_checkpoint_is_not_created_again, the_holder_of_a_lease_writes,
    ];
    state_that_replaces_what_was_moved: ReplacesWhatWasMoved => [
        a_checkpoint_that_was_moved_meanwhile_is_not_replaced,
    ];
    state_that_makes_by_replace: MakesByReplace => [a_checkpoint_that_was_moved_meanwhile_is_not_replaced];
    state_that_replaces_forward_only: ReplacesForwardOnly => [
        a_checkpoint_is_replaced_where_it_was_seen, the_holder_of_a_lease_writes,
        a_lost_lease_replaces_nothing, a_crash_between_any_two_calls_loses_none_of_them,
    ];
    state_that_drops_ladders: DropsLadders => [
        a_checkpoint_is_read_as_it_was_written, an_existing_checkpoint_is_not_created_again,
        a_checkpoint_advances, an_advance_never_moves_a_checkpoint_back,
        a_checkpoint_is_replaced_where_it_was_seen, a_checkpoint_that_was_moved_meanwhile_is_not_replaced,
        a_large_ladder_is_kept, the_greatest_position_is_kept_and_a_greater_one_refused,
        names_are_compared_byte_for_byte, names_of_the_greatest_length_are_distinguished,
        the_parts_of_a_name_are_found_and_no_others, parts_are_replaced_all_at_once,
        a_part_that_came_meanwhile_keeps_the_parts, the_holder_of_a_lease_writes,
        a_lost_lease_moves_nothing, a_lost_lease_replaces_nothing, a_released_lease_moves_nothing,
        a_lease_that_is_over_and_free_still_writes, a_lease_that_is_not_held_writes_nothing,
        checkpoints_survive_a_crash, parts_survive_a_crash,
        a_crash_between_any_two_calls_loses_none_of_them, two_handles_see_one_state,
    ];
    state_that_drops_events: DropsEvents => [
        a_checkpoint_is_read_as_it_was_written, an_existing_checkpoint_is_not_created_again,
        a_checkpoint_advances, an_advance_never_moves_a_checkpoint_back,
        a_checkpoint_is_replaced_where_it_was_seen, a_checkpoint_that_was_moved_meanwhile_is_not_replaced,
        a_large_ladder_is_kept, the_greatest_position_is_kept_and_a_greater_one_refused,
        names_are_compared_byte_for_byte, names_of_the_greatest_length_are_distinguished,
        the_parts_of_a_name_are_found_and_no_others, parts_are_replaced_all_at_once,
        a_part_that_came_meanwhile_keeps_the_parts, the_holder_of_a_lease_writes,
        a_lost_lease_moves_nothing, a_lost_lease_replaces_nothing, a_released_lease_moves_nothing,
        a_lease_that_is_over_and_free_still_writes, a_lease_that_is_not_held_writes_nothing,
        checkpoints_survive_a_crash, parts_survive_a_crash,
        a_crash_between_any_two_calls_loses_none_of_them, two_handles_see_one_state,
    ];
    state_that_takes_an_empty_ladder_for_none: TakesAnEmptyLadderForNone => [
        a_checkpoint_is_read_as_it_was_written,
    ];
    state_that_keeps_the_event_before: KeepsTheEventBefore => [
        a_checkpoint_without_an_event_is_read_as_it_was_written,
    ];
    state_that_cuts_ladders: CutsLadders => [a_large_ladder_is_kept];
    state_that_cuts_positions: CutsPositions => [the_greatest_position_is_kept_and_a_greater_one_refused];
    state_that_folds_names: FoldsNames => [
        names_are_compared_byte_for_byte, the_parts_of_a_name_are_found_and_no_others,
    ];
    state_that_trims_names: TrimsNames => [names_are_compared_byte_for_byte];
    state_that_cuts_names: CutsNames => [
        names_of_the_greatest_length_are_distinguished, a_name_that_has_no_room_is_refused,
    ];
    state_that_takes_every_name: TakesEveryName => [a_name_that_has_no_room_is_refused];
    state_that_folds_leases: FoldsLeases => [
        names_of_leases_are_compared_byte_for_byte, a_lease_that_is_not_held_writes_nothing,
    ];
    state_that_folds_holders: FoldsHolders => [names_of_leases_are_compared_byte_for_byte];
    state_that_finds_parts_by_prefix: FindsPartsByPrefix => [
        the_parts_of_a_name_are_found_and_no_others, parts_are_replaced_all_at_once,
    ];
    state_that_finds_parts_backwards: FindsPartsBackwards => [
        the_parts_of_a_name_are_found_and_no_others, parts_are_replaced_all_at_once,
        a_part_that_came_meanwhile_keeps_the_parts, parts_survive_a_crash,
    ];
    state_that_replaces_parts_blindly: ReplacesPartsBlindly => [
        parts_that_were_moved_meanwhile_are_not_replaced, a_part_that_came_meanwhile_keeps_the_parts,
    ];
    state_that_replaces_parts_by_position: ReplacesPartsByPosition => [
        parts_that_were_moved_meanwhile_are_not_replaced,
    ];
    state_that_replaces_most_parts: ReplacesMostParts => [
        parts_are_replaced_all_at_once, parts_that_were_moved_meanwhile_are_not_replaced,
        a_part_that_came_meanwhile_keeps_the_parts, parts_survive_a_crash,
    ];
    state_that_keeps_parts_that_go: KeepsPartsThatGo => [
        parts_are_replaced_all_at_once, parts_survive_a_crash,
    ];
    state_that_gives_held_leases: GivesHeldLeases => [
        names_of_leases_are_compared_byte_for_byte, a_held_lease_is_refused_and_its_holder_named,
        a_holder_that_acquires_again_loses_its_former_lease, a_lease_that_is_over_is_taken_over,
        a_renewed_lease_lasts_from_then_on, a_lease_that_is_over_and_free_is_renewed,
        a_lost_lease_is_not_released, a_clock_that_jumps_ahead_ends_leases,
        a_clock_that_is_set_back_a_little_ends_no_lease,
        a_clock_that_is_set_back_far_keeps_no_lease_for_ever,
        a_write_that_is_fenced_leaves_the_lease_as_it_is, leases_survive_a_crash,
        two_handles_have_one_lease,
    ];
    state_that_leases_for_ever: LeasesForEver => [
        the_token_grows_with_each_acquisition, a_lease_that_is_over_is_taken_over,
        a_lost_lease_is_not_renewed, a_lost_lease_is_not_released, a_clock_that_jumps_ahead_ends_leases,
        a_clock_that_is_set_back_far_keeps_no_lease_for_ever, a_lost_lease_moves_nothing,
        a_lost_lease_makes_nothing, a_lost_lease_replaces_nothing, a_holder_that_wakes_late_writes_nothing,
        a_write_that_is_fenced_leaves_the_lease_as_it_is, leases_survive_a_crash,
        two_handles_have_one_lease,
    ];
    state_that_leases_for_no_time: LeasesForNoTime => [
        names_of_leases_are_compared_byte_for_byte, a_free_lease_is_acquired,
        a_held_lease_is_refused_and_its_holder_named, a_released_lease_is_free,
        a_holder_that_acquires_again_loses_its_former_lease, a_lease_that_is_over_is_taken_over,
        a_lost_lease_is_not_released, a_clock_that_is_set_back_a_little_ends_no_lease,
        a_clock_that_is_set_back_far_keeps_no_lease_for_ever,
        a_write_that_is_fenced_leaves_the_lease_as_it_is, leases_survive_a_crash,
        two_handles_have_one_lease,
    ];
    state_that_renews_from_the_beginning: RenewsFromTheBeginning => [a_renewed_lease_lasts_from_then_on];
    state_that_gives_one_token: GivesOneToken => [
        the_token_grows_with_each_acquisition, a_holder_that_acquires_again_loses_its_former_lease,
        a_lease_that_is_over_is_taken_over, a_clock_that_jumps_ahead_ends_leases,
        a_clock_that_is_set_back_far_keeps_no_lease_for_ever, a_holder_that_wakes_late_writes_nothing,
        a_lease_that_is_not_held_writes_nothing, a_crash_between_any_two_calls_loses_none_of_them,
        two_handles_have_one_lease,
    ];
    state_that_restarts_tokens_after_a_release: RestartsTokensAfterARelease => [
        the_token_grows_with_each_acquisition, a_holder_that_wakes_late_writes_nothing,
        a_crash_between_any_two_calls_loses_none_of_them, two_handles_have_one_lease,
    ];
    state_that_keeps_a_former_lease: KeepsAFormerLease => [
        a_holder_that_acquires_again_loses_its_former_lease,
    ];
    state_that_names_the_wrong_holder: NamesTheWrongHolder => [
        names_of_leases_are_compared_byte_for_byte, a_held_lease_is_refused_and_its_holder_named,
        a_holder_that_acquires_again_loses_its_former_lease, a_lease_that_is_over_is_taken_over,
        a_renewed_lease_lasts_from_then_on, a_lease_that_is_over_and_free_is_renewed,
        a_lost_lease_is_not_released, a_clock_that_jumps_ahead_ends_leases,
        a_clock_that_is_set_back_a_little_ends_no_lease,
        a_clock_that_is_set_back_far_keeps_no_lease_for_ever,
        a_write_that_is_fenced_leaves_the_lease_as_it_is, leases_survive_a_crash,
        two_handles_have_one_lease,
    ];
    state_that_tells_no_holder: TellsNoHolder => [
        names_of_leases_are_compared_byte_for_byte, a_free_lease_is_acquired, a_released_lease_is_free,
    ];
    state_that_renews_what_is_lost: RenewsWhatIsLost => [
        a_holder_that_acquires_again_loses_its_former_lease, a_lost_lease_is_not_renewed,
        a_clock_that_jumps_ahead_ends_leases, a_clock_that_is_set_back_far_keeps_no_lease_for_ever,
    ];
    state_that_renews_nothing: RenewsNothing => [
        a_renewed_lease_lasts_from_then_on, a_lease_that_is_over_and_free_is_renewed,
        a_clock_that_jumps_ahead_ends_leases,
    ];
    state_that_refuses_to_renew_what_is_over: RefusesToRenewWhatIsOver => [
        a_lease_that_is_over_and_free_is_renewed, a_clock_that_jumps_ahead_ends_leases,
    ];
    state_that_releases_for_others: ReleasesForOthers => [
        a_released_lease_is_free, a_holder_that_acquires_again_loses_its_former_lease,
        a_lost_lease_is_not_released,
    ];
    state_that_releases_nothing: ReleasesNothing => [
        a_released_lease_is_free, the_token_grows_with_each_acquisition, a_lost_lease_is_not_renewed,
        a_released_lease_moves_nothing, a_fence_is_of_its_own_lease,
        a_crash_between_any_two_calls_loses_none_of_them, two_handles_have_one_lease,
    ];
    state_that_fences_nothing: FencesNothing => [
        a_lost_lease_moves_nothing, a_lost_lease_makes_nothing, a_lost_lease_replaces_nothing,
        a_released_lease_moves_nothing, a_holder_that_wakes_late_writes_nothing,
        a_lease_that_is_not_held_writes_nothing, a_fence_is_of_its_own_lease,
        a_write_that_is_fenced_leaves_the_lease_as_it_is, leases_survive_a_crash,
        a_crash_between_any_two_calls_loses_none_of_them, the_state_of_another_log_is_never_shown,
        two_handles_have_one_lease,
    ];
    state_that_fences_advances_only: FencesAdvancesOnly => [
        a_lost_lease_makes_nothing, a_lost_lease_replaces_nothing, a_holder_that_wakes_late_writes_nothing,
    ];
    state_that_fences_by_holder: FencesByHolder => [
        a_holder_that_wakes_late_writes_nothing, a_lease_that_is_not_held_writes_nothing,
    ];
    state_that_fences_by_time: FencesByTime => [a_lease_that_is_over_and_free_still_writes];
    state_that_fences_by_any_greater_token: FencesByAnyGreaterToken => [
        a_lease_that_is_not_held_writes_nothing, the_state_of_another_log_is_never_shown,
    ];
    state_that_fences_until_released_only: FencesUntilReleasedOnly => [
        a_released_lease_moves_nothing, a_crash_between_any_two_calls_loses_none_of_them,
    ];
    state_that_releases_when_fenced: ReleasesWhenFenced => [
        a_lost_lease_moves_nothing, a_lost_lease_makes_nothing, a_lost_lease_replaces_nothing,
        a_write_that_is_fenced_leaves_the_lease_as_it_is, leases_survive_a_crash,
        two_handles_have_one_lease,
    ];
    state_that_fences_by_all: FencesByAll => [a_fence_is_of_its_own_lease];
    state_that_stops_its_clock: StopsItsClock => [
        the_token_grows_with_each_acquisition, a_lease_that_is_over_is_taken_over,
        a_renewed_lease_lasts_from_then_on, a_lost_lease_is_not_renewed, a_lost_lease_is_not_released,
        a_clock_that_jumps_ahead_ends_leases, a_clock_that_is_set_back_far_keeps_no_lease_for_ever,
        a_lost_lease_moves_nothing, a_lost_lease_makes_nothing, a_lost_lease_replaces_nothing,
        a_holder_that_wakes_late_writes_nothing, a_write_that_is_fenced_leaves_the_lease_as_it_is,
        leases_survive_a_crash, two_handles_have_one_lease,
    ];
    state_that_believes_the_clock: BelievesTheClock => [a_clock_that_is_set_back_far_keeps_no_lease_for_ever];
    state_that_ends_leases_when_set_back: EndsLeasesWhenSetBack => [
        a_clock_that_jumps_ahead_ends_leases, a_clock_that_is_set_back_a_little_ends_no_lease,
    ];
    state_that_shows_the_last_snapshot_put: ShowsTheLastSnapshotPut => [
        an_older_snapshot_never_hides_a_newer_one, only_the_newest_snapshots_are_kept,
        the_state_of_another_log_is_never_shown,
    ];
    state_that_shows_snapshots_beyond: ShowsSnapshotsBeyond => [
        the_nearest_is_not_beyond_what_was_asked_for,
        a_snapshot_of_a_version_takes_the_place_of_the_one_before, only_the_newest_snapshots_are_kept,
    ];
    state_that_keeps_the_first_of_a_version: KeepsTheFirstOfAVersion => [
        a_snapshot_of_a_version_takes_the_place_of_the_one_before,
    ];
    state_that_shows_other_schemas: ShowsOtherSchemas => [
        only_the_newest_snapshots_are_kept, snapshots_of_another_schema_are_not_found,
        the_state_of_another_log_is_never_shown,
    ];
    state_that_keeps_every_snapshot: KeepsEverySnapshot => [
        only_the_newest_snapshots_are_kept, the_state_of_another_log_is_never_shown,
    ];
    state_that_keeps_one_snapshot: KeepsOneSnapshot => [
        the_nearest_is_not_beyond_what_was_asked_for, only_the_newest_snapshots_are_kept,
        snapshots_of_another_stream_are_not_found,
    ];
    state_that_folds_streams: FoldsStreams => [snapshots_of_another_stream_are_not_found];
    state_that_cuts_snapshots: CutsSnapshots => [a_large_snapshot_is_kept];
    state_that_forgets_no_snapshot: ForgetsNoSnapshot => [forgotten_snapshots_are_gone];
    state_that_forgets_all_snapshots: ForgetsAllSnapshots => [forgotten_snapshots_are_gone];
    state_that_rounds_times: RoundsTimes => [
        the_newest_snapshot_is_the_nearest, an_older_snapshot_never_hides_a_newer_one,
        snapshots_of_another_schema_are_not_found, a_snapshot_is_read_as_it_was_put,
        a_large_snapshot_is_kept, forgotten_snapshots_are_gone, snapshots_survive_a_crash,
    ];
    state_that_loses_checkpoints_in_a_crash: LosesCheckpointsInACrash => [
        a_holder_that_wakes_late_writes_nothing, checkpoints_survive_a_crash, leases_survive_a_crash,
        parts_survive_a_crash, a_crash_between_any_two_calls_loses_none_of_them,
    ];
    state_that_loses_leases_in_a_crash: LosesLeasesInACrash => [
        the_token_grows_with_each_acquisition, a_holder_that_wakes_late_writes_nothing,
        leases_survive_a_crash, a_crash_between_any_two_calls_loses_none_of_them,
    ];
    state_that_loses_snapshots_in_a_crash: LosesSnapshotsInACrash => [snapshots_survive_a_crash];
    state_that_shows_another_log: ShowsAnotherLog => [the_state_of_another_log_is_never_shown];
    state_that_refuses_another_log_without_a_word: RefusesAnotherLogWithoutAWord => [
        the_state_of_another_log_is_never_shown,
    ];
    state_that_is_one_per_handle: IsOnePerHandle => [
        the_token_grows_with_each_acquisition, a_holder_that_wakes_late_writes_nothing,
        checkpoints_survive_a_crash, leases_survive_a_crash, snapshots_survive_a_crash,
        parts_survive_a_crash, a_crash_between_any_two_calls_loses_none_of_them, two_handles_see_one_state,
        two_handles_have_one_lease,
    ];
    state_that_advances_in_two_steps: AdvancesInTwoSteps => [of_many_writers_the_furthest_wins];
    state_that_makes_in_two_steps: MakesInTwoSteps => [of_many_that_create_a_checkpoint_one_succeeds];
    state_that_divides_in_two_steps: DividesInTwoSteps => [of_many_that_divide_one_succeeds];
    state_that_acquires_in_two_steps: AcquiresInTwoSteps => [of_many_that_take_over_a_lease_one_succeeds];
    state_that_fences_before_it_writes: FencesBeforeItWrites => [
        lost_leases_write_nothing_while_others_take_over,
    ];
}
