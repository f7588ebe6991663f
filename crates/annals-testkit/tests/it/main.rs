//! The suite itself on trial: a store that keeps the contract passes all of it, and each broken store is caught,
//! by the clauses that are named here.

#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod kept;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use annals_core::MemoryStore;
use annals_testkit::{Trial, clause, hold};

use self::kept::{Fault, Kept};

/// A store that outlives its closing keeps every clause; none is left out.
mod whole {
    use crate::kept::{Fault, Kept};
    annals_testkit::contract!(open: Kept::new(Fault::Nothing));
}

/// So does a store whose pages are shorter than was asked for, as the contract allows.
mod short_pages {
    use crate::kept::{Fault, Kept};
    annals_testkit::contract!(open: Kept::new(Fault::ReadsShortPages));
}

/// So does a store that lists fewer streams at once than was asked for.
mod short_lists {
    use crate::kept::{Fault, Kept};
    annals_testkit::contract!(open: Kept::new(Fault::ListsFewStreams));
}

/// Why a store does not keep a clause.
fn caught(
    name: &str,
    subject: impl AsyncFn() -> Kept + 'static,
    run: impl AsyncFnOnce(&mut Trial),
) -> String {
    let held = catch_unwind(AssertUnwindSafe(|| hold(name, subject, run)));
    let panic = held.expect_err(&format!("the clause `{name}` should not hold, and does"));
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    let text = text.expect("a clause fails with words");
    assert!(!text.contains("did not come to an end"), "`{name}` should find the fault, not hang: {text}");
    text
}

macro_rules! a_broken_store_is_caught {
    ($($test:ident: $fault:ident => [$($clause:ident),+ $(,)?];)*) => {
        $(
            #[test]
            fn $test() {
                $(caught(stringify!($clause), async || Kept::new(Fault::$fault), clause::$clause);)+
            }
        )*
    };
}

a_broken_store_is_caught! {
    one_that_loses_the_second_event: LosesTheSecondEvent => [
        the_exact_version_continues_the_stream, an_append_to_several_streams_is_one_run,
        a_large_append_is_one_run, transfers_keep_the_sum, random_histories_have_one_order,
    ];
    one_that_writes_event_by_event: WritesEventByEvent => [
        an_append_to_several_streams_is_one_run, readers_never_see_half_an_append,
        a_dropped_append_leaves_the_store_whole,
    ];
    one_that_answers_before_it_writes: AnswersBeforeItWrites => [
        an_acknowledged_append_can_be_read_at_once, of_many_creators_one_wins,
        later_appends_stand_behind_earlier_ones,
    ];
    one_that_checks_before_its_turn: ChecksBeforeItsTurn => [
        of_many_creators_one_wins, of_many_updaters_one_wins,
    ];
    one_that_takes_reserved_names: TakesReservedNames => [reserved_streams_cannot_be_written];
    one_that_takes_any_size: TakesAnySize => [
        an_event_beyond_the_limit_is_refused, an_append_beyond_the_limit_is_refused,
        too_many_events_or_conditions_are_refused, too_many_tags_or_too_much_metadata_are_refused,
        a_query_beyond_the_limits_is_refused,
    ];
    one_that_takes_empty_appends: TakesEmptyAppends => [an_append_without_events_is_refused];
    one_that_takes_empty_names: TakesEmptyNames => [
        bad_metadata_is_refused, one_wrong_event_refuses_the_whole_append,
    ];
    one_that_refuses_the_nil_id: RefusesTheNilId => [every_uuid_is_an_id];
    one_that_refuses_after_a_refusal: RefusesAfterARefusal => [
        after_a_refusal_the_right_version_is_let_through, random_histories_have_one_order,
    ];
    one_that_folds_case: FoldsCase => [
        similar_names_are_different_streams, the_same_id_in_another_stream_is_another_event,
        streams_are_listed_in_order_with_version_and_position,
    ];
    one_that_takes_no_stream_for_any: TakesNoStreamForAny => [
        no_stream_is_refused_where_there_is_one, a_refused_append_to_several_streams_writes_none,
        of_many_creators_one_wins,
    ];
    one_that_takes_exists_for_the_first: TakesExistsForTheFirst => [exists_and_any_take_whatever_version];
    one_that_looks_at_one_condition_a_stream: LooksAtOneConditionAStream => [
        conditions_that_contradict_each_other_refuse, every_violated_condition_is_named,
    ];
    one_that_judges_conditions_first: JudgesConditionsFirst => [
        a_reused_id_is_named_before_a_stale_version, a_used_key_is_answered_in_spite_of_stale_conditions,
        the_same_events_are_a_duplicate_in_spite_of_other_conditions, the_same_events_again_are_a_duplicate,
        random_histories_have_one_order,
    ];
    one_that_judges_ids_first: JudgesIdsFirst => [
        a_used_key_is_answered_before_ids_are_looked_at, the_same_key_gets_the_original_outcome,
        random_histories_have_one_order,
    ];
    one_that_counts_its_own_events: CountsItsOwnEvents => [an_append_does_not_violate_its_own_conditions];
    one_that_takes_exists_for_any: TakesExistsForAny => [
        exists_is_refused_where_there_is_no_stream, an_unwritten_stream_may_be_expected_to_exist_or_not,
    ];
    one_that_takes_zero_for_any: TakesZeroForAny => [exact_zero_expects_no_stream];
    one_that_looks_for_the_newest_event_behind_it: LooksForTheNewestBehindIt => [
        an_append_after_the_newest_event_continues_the_stream,
    ];
    one_that_looks_at_versions_only: LooksAtVersionsOnly => [
        an_append_after_another_event_than_the_newest_changes_nothing,
    ];
    one_that_ignores_the_newest_event: IgnoresTheNewest => [
        an_append_after_another_event_than_the_newest_changes_nothing, of_many_who_append_after_one_event_one_wins,
    ];
    one_that_takes_stale_versions: TakesStaleVersions => [
        a_stale_append_changes_nothing, of_many_updaters_one_wins, random_histories_have_one_order,
        a_version_ahead_of_the_stream_is_refused_and_not_stale,
    ];
    one_that_ignores_unwritten_streams: IgnoresUnwrittenStreams => [
        a_condition_on_an_unwritten_stream_guards_the_append, every_violated_condition_is_named,
        random_histories_have_one_order,
    ];
    one_that_ignores_queries: IgnoresQueries => [
        queries_at_the_limits_are_answered,
        no_match_by_type, no_match_by_tags_needs_all_of_them, no_match_by_category,
        no_match_by_process_and_initiator, items_are_or_ed_and_what_an_item_names_is_and_ed,
        no_match_of_every_event_means_that_the_head_was_seen, an_append_refused_by_a_query_changes_nothing,
        of_many_claims_one_wins, random_histories_have_one_order,
    ];
    one_that_looks_at_the_first_tag_only: LooksAtTheFirstTagOnly => [no_match_by_tags_needs_all_of_them];
    one_that_looks_at_the_first_item_only: LooksAtTheFirstItemOnly => [
        items_are_or_ed_and_what_an_item_names_is_and_ed,
    ];
    one_that_folds_case_in_queries: FoldsCaseInQueries => [names_in_queries_are_compared_byte_for_byte];
    one_that_ignores_blanks_in_queries: IgnoresBlanksInQueries => [
        names_in_queries_are_compared_byte_for_byte,
    ];
    one_that_composes_letters_in_queries: ComposesLettersInQueries => [
        names_in_queries_are_compared_byte_for_byte,
    ];
    one_that_cuts_names_in_queries: CutsNamesInQueries => [
        long_names_with_a_common_prefix_are_different_in_queries,
    ];
    one_that_finds_events_by_the_first_tags: FindsEventsByTheFirstTags => [each_of_many_tags_finds_its_event];
    one_that_looks_at_the_first_hundred_items: LooksAtTheFirstHundredItems => [
        many_items_and_types_are_looked_at_in_full,
    ];
    one_that_looks_at_the_first_hundred_types: LooksAtTheFirstHundredTypes => [
        many_items_and_types_are_looked_at_in_full,
    ];
    one_that_finds_one_event_of_an_id: FindsOneEventOfAnId => [an_id_finds_its_event_in_every_stream];
    one_that_cuts_ids_in_queries: CutsIdsInQueries => [ids_are_compared_whole];
    one_that_finds_predecessors_by_their_beginning: FindsPredecessorsByTheirBeginning => [
        a_predecessor_finds_what_it_caused,
    ];
    one_that_reads_all_that_an_event_caused: ReadsAllThatAnEventCaused => [
        what_one_event_caused_is_read_in_bounded_pages,
    ];
    one_that_ignores_ids_in_conditions: IgnoresIdsInConditions => [no_match_by_id_and_predecessor];
    one_that_takes_items_of_one_type_for_one: TakesItemsOfOneTypeForOne => [
        items_that_differ_in_their_tags_only_are_united,
    ];
    one_that_begins_at_the_beginning_beyond_the_head: BeginsAtTheBeginningBeyondTheHead => [
        a_condition_may_begin_beyond_the_head,
    ];
    one_that_counts_from_the_position_itself: CountsFromThePositionItself => [
        no_match_by_type, no_match_by_category, no_match_by_process_and_initiator,
        no_match_of_every_event_means_that_the_head_was_seen,
    ];
    one_that_takes_positions_only: TakesPositionsOnly => [
        what_was_seen_must_be_in_the_log, random_histories_have_one_order,
    ];
    one_that_names_the_first_violation_only: NamesTheFirstViolationOnly => [
        every_violated_condition_is_named, one_condition_that_reading_cannot_mend_makes_a_refusal_final,
    ];
    one_that_carries_nothing_unseen: CarriesNothingUnseen => [
        a_stale_version_carries_the_unseen_events, writers_who_decide_again_lose_no_update,
        a_long_list_of_unseen_events_says_that_it_is_cut, random_histories_have_one_order,
    ];
    one_that_cuts_unseen_events_and_does_not_say_so: CarriesTooLittleUnseen => [
        a_long_list_of_unseen_events_says_that_it_is_cut,
    ];
    one_that_explains_each_violation_whole: ExplainsEachViolationWhole => [
        a_conflict_of_many_conditions_is_bounded_as_a_whole,
    ];
    one_that_answers_any_reuse_of_a_key_or_an_id: AnswersAnyReuse => [
        a_used_key_with_other_events_writes_nothing, a_used_id_with_another_event_is_refused,
        a_used_key_with_another_time_or_metadata_is_refused, the_same_json_in_another_form_is_the_same_event,
        random_histories_have_one_order,
    ];
    one_that_forgets_keys: ForgetsKeys => [
        a_used_key_with_other_events_writes_nothing,
        a_used_key_is_answered_in_spite_of_stale_conditions, concurrent_retries_with_one_key_write_once,
        the_outcome_of_a_key_can_be_asked_for, the_key_is_recorded_on_the_first_event,
        random_histories_have_one_order,
    ];
    one_that_forgets_keys_now_and_then: ForgetsKeysNowAndThen => [random_histories_have_one_order];
    one_that_forgets_keys_when_closed: ForgetsKeysWhenClosed => [keys_survive_reopening];
    one_that_cuts_keys: CutsKeys => [keys_are_compared_whole];
    one_that_uses_the_key_of_a_refused_append: UsesTheKeyOfARefusedAppend => [
        a_refused_append_does_not_use_its_key, random_histories_have_one_order,
    ];
    one_that_does_not_mark_duplicates: DoesNotMarkDuplicates => [
        the_same_key_gets_the_original_outcome, the_same_events_again_are_a_duplicate,
        concurrent_retries_of_the_same_events_write_once, random_histories_have_one_order,
    ];
    one_that_answers_with_the_newest_version: AnswersWithTheNewestVersion => [
        the_original_outcome_does_not_move_on, random_histories_have_one_order,
    ];
    one_that_forgets_ids: ForgetsIds => [
        the_same_events_again_are_a_duplicate, the_same_events_of_several_streams_are_a_duplicate,
        a_partly_known_append_is_refused, one_id_twice_in_an_append_is_refused,
        concurrent_retries_of_the_same_events_write_once, the_same_events_wanted_elsewhere_are_refused,
        event_ids_survive_reopening, random_histories_have_one_order,
    ];
    one_that_hides_a_late_commit: HidesALateCommit => [
        positions_have_no_gaps_under_concurrent_writers, a_subscription_has_no_seam_between_stored_and_live,
        the_log_is_read_from_anywhere, every_query_reads_what_a_filter_would,
        a_subscription_resumes_from_its_checkpoint, subscriptions_do_not_disturb_each_other,
    ];
    one_whose_head_runs_ahead: HeadRunsAhead => [
        whoever_has_seen_the_head_finds_all_before_it, refused_appends_leave_no_gap,
        a_page_says_where_the_next_begins, an_empty_log_reads_as_empty,
        waiting_ends_at_once_if_the_head_is_beyond, an_empty_store_survives_reopening,
    ];
    one_that_follows_the_clock_back: FollowsTheClockBack => [
        recorded_time_is_held_when_the_clock_jumps_back, recorded_time_is_held_across_reopening,
    ];
    one_that_has_a_clock_of_its_own: HasAClockOfItsOwn => [
        recorded_time_is_the_clocks, a_time_names_a_position, recorded_time_is_held_when_the_clock_jumps_back,
    ];
    one_that_ignores_given_times: IgnoresGivenTimes => [
        a_given_recorded_time_is_held_between_last_and_now, a_log_can_be_brought_to_another_store,
    ];
    one_that_cuts_large_pages: CutsLargePages => [large_events_are_read_in_bounded_pages];
    one_that_stays_where_nothing_is_meant: StaysWhereNothingIsMeant => [a_page_without_events_still_gets_on];
    one_that_reads_streams_from_one_later: ReadsStreamsFromOneLater => [
        a_stream_is_read_from_anywhere, a_stream_page_says_where_the_next_begins,
        random_histories_have_one_order,
    ];
    one_that_numbers_versions_from_zero: NumbersVersionsFromZero => [
        the_first_event_has_version_and_position_one, an_event_is_the_same_by_every_way_of_reading,
        random_histories_have_one_order,
    ];
    one_that_lists_after_known_names_only: ListsAfterKnownNamesOnly => [a_list_goes_on_after_any_name];
    one_that_loses_the_oldest_event_backward: LosesTheOldestBackward => [
        the_log_is_read_from_anywhere, a_limit_is_kept, every_query_reads_what_a_filter_would,
        random_histories_have_one_order,
    ];
    one_that_says_the_end_too_early: SaysTheEndTooEarly => [
        a_limit_is_kept, a_page_says_where_the_next_begins, random_histories_have_one_order,
    ];
    one_that_loses_what_follows_in_a_later_page: StopsAtThePageLimitForEver => [
        the_log_is_read_from_anywhere, random_histories_have_one_order,
    ];
    one_that_ignores_upper_bounds: IgnoresUpperBounds => [
        a_read_ends_at_its_upper_bound, random_histories_have_one_order,
    ];
    one_that_ignores_limits: IgnoresLimits => [a_limit_is_kept];
    one_that_ignores_the_category: IgnoresTheCategory => [
        every_query_reads_what_a_filter_would, a_filtered_subscription_misses_nothing_while_writers_run,
    ];
    one_that_ignores_types: IgnoresTypes => [
        a_filtered_subscription_moves_its_checkpoint_on, every_query_reads_what_a_filter_would,
        a_page_without_events_still_gets_on, random_histories_have_one_order,
    ];
    one_that_steps_over_the_end: StepsOverTheEnd => [a_page_says_where_the_next_begins];
    one_that_believes_what_was_seen: BelievesWhatWasSeen => [a_page_is_read_after_an_event_of_the_log_only];
    one_that_forgets_what_comes_next: ForgetsWhatComesNext => [
        a_subscription_from_the_head_gives_what_comes_next,
    ];
    one_that_moves_times_with_the_clock: MovesTimesWithTheClock => [recorded_times_are_unchanged_after_reopening];
    one_that_shows_the_log_as_it_was_opened: ShowsTheLogAsItWasOpened => [two_handles_share_one_log];
    one_that_gives_missing_streams_a_version: GivesMissingStreamsAVersion => [
        a_stream_that_does_not_exist_reads_as_empty,
    ];
    one_that_lists_by_prefix: ListsByPrefix => [streams_are_listed_by_category];
    one_that_lists_old_positions: ListsOldPositions => [
        streams_are_listed_in_order_with_version_and_position, the_list_is_true_while_others_write,
    ];
    one_that_reads_streams_late: ReadsStreamsLate => [
        an_acknowledged_append_can_be_read_at_once, random_histories_have_one_order,
    ];
    one_that_wakes_too_early: WakesTooEarly => [
        waiting_goes_on_until_the_position_is_passed,
    ];
    one_that_reads_data_as_text: ReadsDataAsText => [data_is_kept_byte_by_byte];
    one_that_loses_own_keys: LosesOwnKeys => [metadata_is_kept];
    one_that_sorts_tags: SortsTags => [tags_are_kept_in_order];
    one_that_cuts_types: CutsTypes => [names_are_kept];
    one_that_loses_the_time_of_occurrence: LosesTheTimeOfOccurrence => [schema_content_type_and_times_are_kept];
    one_that_loses_all_when_closed: LosesAllWhenClosed => [
        acknowledged_events_survive_reopening, versions_and_positions_go_on_after_reopening,
        keys_survive_reopening, the_identity_survives_reopening, a_checkpoint_survives_reopening,
    ];
    one_that_loses_its_identity_when_closed: LosesTheIdentityWhenClosed => [the_identity_survives_reopening];
    one_that_has_the_identity_of_another: HasTheIdentityOfAnother => [two_logs_have_two_identities];
}

#[test]
fn two_stores_on_one_log_are_caught() {
    let log = Arc::new(MemoryStore::new());
    caught(
        "one_log_does_not_show_in_another",
        async move || Kept::shared(&log),
        clause::one_log_does_not_show_in_another,
    );
}

#[test]
fn a_failing_history_names_the_seed_that_repeats_it() {
    let text = caught(
        "random_histories_have_one_order",
        async || Kept::new(Fault::ForgetsKeys),
        clause::random_histories_have_one_order,
    );
    let (_, seed) = text.split_once("ANNALS_SEED=").expect("the seed is named");
    let digits = seed.chars().take_while(char::is_ascii_digit).count();
    assert!(digits > 0 && seed[digits..].starts_with(" repeats"), "{text}");
}

/// Clauses that no broken store here is named for, each with the reason.
const NOT_SHOWN_TO_FAIL: &[(&str, &str)] = &[
    ("all_who_wait_are_woken", "who is not woken waits for ever, and the time limit ends the clause"),
    ("a_wait_that_is_given_up_disturbs_nobody", "as above"),
    ("pages_hold_while_others_write", "whether a page moves depends on who comes first"),
];

#[test]
fn every_clause_is_shown_to_fail() {
    let table = include_str!("main.rs").split_once("a_broken_store_is_caught! {").unwrap().1;
    let table = table.split_once("NOT_SHOWN_TO_FAIL").unwrap().0;
    for name in annals_testkit::CLAUSES {
        let is_word =
            |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == *name);
        let excused = NOT_SHOWN_TO_FAIL.iter().any(|(excused, reason)| excused == name && !reason.is_empty());
        assert!(is_word(table) != excused, "`{name}` needs a broken store or a reason, and not both");
    }
}

#[test]
fn no_clause_is_listed_twice() {
    let mut names = annals_testkit::CLAUSES.to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), annals_testkit::CLAUSES.len());
    assert!(names.len() >= 100, "{} clauses", names.len());
}
