//! Each broken store, and exactly the clauses that it does not keep: all others hold for it.
//!
//! ```text
//! name_of_the_test: Fault => [clauses that fail];
//! ..., hangs [clauses that would never end, and are not tried];
//! ... and others;    the fault is a race: which other clauses fail depends on who comes first
//! ```
//!
//! What clauses of several tasks say of a fault may depend on who comes first, so they are judged only where
//! they are named: see [`OF_SEVERAL_TASKS`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use annals_testkit::{CLAUSES, Trial, clause, hold};

use crate::kept::{Fault, Kept};

/// The clauses in which several tasks do something at once.
const OF_SEVERAL_TASKS: &[&str] = &[
    "of_many_creators_one_wins",
    "of_many_updaters_one_wins",
    "writers_that_decide_again_lose_no_update",
    "of_many_that_append_after_one_event_one_wins",
    "of_many_claims_one_wins",
    "readers_never_see_half_an_append",
    "a_dropped_append_leaves_the_store_whole",
    "transfers_keep_the_sum",
    "concurrent_retries_with_one_key_write_once",
    "concurrent_retries_of_the_same_events_write_once",
    "positions_have_no_gaps_under_concurrent_writers",
    "a_reader_that_has_seen_the_head_finds_all_before_it",
    "pages_hold_while_others_write",
    "the_list_is_true_while_others_write",
    "a_subscription_has_no_seam_between_stored_and_live",
    "a_filtered_subscription_misses_nothing_while_writers_run",
    "subscriptions_do_not_disturb_each_other",
    "all_waiters_are_woken",
    "an_abandoned_wait_disturbs_no_other",
    "two_handles_share_one_log",
    "random_histories_have_one_order",
    "an_acknowledged_append_can_be_read_at_once",
    "later_appends_stand_behind_earlier_ones",
    "a_subscription_resumes_from_its_checkpoint",
    "acknowledged_events_survive_reopening",
    "keys_survive_reopening",
];

/// Ends the wait for a clause that neither ends nor lets its own time limit act.
const HANG: Duration = Duration::from_secs(60);

/// Most bytes that are shown of why a clause fails.
const SHOWN_BYTES: usize = 200;

/// A clause that is missing from the list is judged although its outcome depends on who comes first.
#[test]
fn all_clauses_of_several_tasks_are_listed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/contract");
    let mut found = vec!["random_histories_have_one_order"];
    for file in std::fs::read_dir(folder).expect("the clauses are there") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("it is read");
        for name in CLAUSES {
            let Some(start) = text.find(&format!("\npub async fn {name}(")) else { continue };
            let body = &text[start..start + text[start..].find("\n}\n").expect("a function ends")];
            // `write` of the subscriptions runs its writers at once; one writer alone has nobody to race
            // with.
            let writers = body.contains(" write(store, ") && !body.contains(" write(store, 1)");
            if writers || ["race(", "spawn(", "one_of_many_wins("].iter().any(|task| body.contains(task)) {
                found.push(name);
            }
        }
    }
    found.sort_unstable();
    let mut listed = OF_SEVERAL_TASKS.to_vec();
    listed.sort_unstable();
    assert_eq!(listed, found);
}

/// Why a store does not keep a clause, if it does not.
pub fn failure(
    name: &str,
    subject: impl AsyncFn() -> Kept + 'static,
    run: impl AsyncFnOnce(&mut Trial),
) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| hold(name, subject, run))).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Some(text.expect("a clause fails with words"))
}

/// The same by the name of the clause. A clause that hangs has failed; its thread is left behind.
fn failure_of(name: &'static str, fault: Fault) -> Option<String> {
    let (sender, tried) = mpsc::channel();
    std::thread::spawn(move || sender.send(try_clause(name, fault)));
    tried.recv_timeout(HANG).unwrap_or_else(|_| Some(format!("it did not come to an end within {HANG:?}")))
}

fn try_clause(name: &str, fault: Fault) -> Option<String> {
    macro_rules! by_name {
        ($($section:ident: { $($clause:ident,)* })*) => {
            match name {
                $($(stringify!($clause) => failure(name, async move || Kept::new(fault), clause::$clause),)*)*
                _ => panic!("`{name}` is no clause"),
            }
        };
    }
    annals_testkit::__clauses!(by_name)
}

/// What is said of a broken store.
struct Row {
    fails: &'static [&'static str],
    hangs: &'static [&'static str],
    others: bool,
}

impl Row {
    /// Tries every clause on the store that something is said of.
    fn check(&self, fault: Fault) {
        for name in [self.fails, self.hangs].concat() {
            assert!(CLAUSES.contains(&name), "`{name}` is no clause");
        }
        let mut wrong = Vec::new();
        for name in CLAUSES.iter().filter(|name| !self.hangs.contains(name)) {
            let fails = self.fails.contains(name);
            if !fails && (self.others || OF_SEVERAL_TASKS.contains(name)) {
                continue;
            }
            match failure_of(name, fault) {
                Some(text) if !fails || text.contains("did not come to an end") => {
                    let shown = &text[..text.floor_char_boundary(SHOWN_BYTES)];
                    wrong.push(format!(
                        "`{name}` should {}: {shown}",
                        if fails { "not hang" } else { "hold" }
                    ));
                }
                None if fails => wrong.push(format!("`{name}` should not hold, and does")),
                _ => {}
            }
        }
        assert!(wrong.is_empty(), "a store that {fault:?}:\n{}", wrong.join("\n"));
    }
}

macro_rules! a_broken_store_is_caught {
    (@others and others) => { true };
    (@others) => { false };
    ($(
        $test:ident: $fault:ident => [$($fails:ident),+ $(,)?]
        $(, hangs [$($hangs:ident),+ $(,)?])? $($and:ident $others:ident)?;
    )*) => {
        $(
            #[test]
            fn $test() {
                let row = Row {
                    fails: &[$(stringify!($fails)),+],
                    hangs: &[$($(stringify!($hangs)),+)?],
                    others: a_broken_store_is_caught!(@others $($and $others)?),
                };
                row.check(Fault::$fault);
            }
        )*

        /// The clauses that always catch a broken store, store by store.
        pub const CAUGHT_BY: &[&[&str]] = &[$(&[$(stringify!($fails)),+]),*];
    };
}

a_broken_store_is_caught! {
    one_that_loses_the_second_event: LosesTheSecondEvent => [
        the_exact_version_continues_the_stream, a_stale_append_changes_nothing,
        a_version_ahead_of_the_stream_is_refused_and_not_stale, no_stream_is_refused_where_there_is_one,
        exists_and_any_take_whatever_version, after_a_refusal_the_right_version_is_let_through,
        an_append_after_the_newest_event_continues_the_stream,
        an_append_after_another_event_than_the_newest_changes_nothing,
        a_condition_on_an_unwritten_stream_guards_the_append, every_violated_condition_is_named,
        what_was_seen_must_be_in_the_log, one_condition_that_reading_cannot_mend_makes_a_refusal_final,
        conditions_that_contradict_each_other_refuse, an_append_does_not_violate_its_own_conditions,
        ids_are_compared_whole, what_one_event_caused_is_read_in_bounded_pages,
        an_append_to_several_streams_is_one_run, a_large_append_is_one_run, transfers_keep_the_sum,
        the_original_outcome_does_not_move_on, a_used_id_with_another_event_is_refused,
        the_outcome_of_a_key_can_be_asked_for, the_key_is_recorded_on_the_first_event,
        the_same_events_again_are_a_duplicate, the_same_events_of_several_streams_are_a_duplicate,
        the_same_events_wanted_elsewhere_are_refused, a_partly_known_append_is_refused,
        the_same_id_in_another_stream_is_another_event, one_id_twice_in_an_append_is_refused,
        every_uuid_is_an_id, refused_appends_leave_no_gap, recorded_time_is_the_clocks,
        a_time_names_a_position, the_log_is_read_from_anywhere, a_page_says_where_the_next_begins,
        a_read_ends_at_its_upper_bound, a_page_without_events_still_gets_on,
        large_events_are_read_in_bounded_pages, a_stream_page_says_where_the_next_begins,
        similar_names_are_different_streams, a_filtered_subscription_moves_its_checkpoint_on,
        waiting_ends_at_once_if_the_head_is_beyond, an_event_is_the_same_by_every_way_of_reading,
        a_log_can_be_brought_to_another_store, reserved_streams_cannot_be_written,
        an_event_beyond_the_limit_is_refused, an_append_beyond_the_limit_is_refused,
        too_many_events_or_conditions_are_refused, too_many_tags_or_too_much_metadata_are_refused,
        one_wrong_event_refuses_the_whole_append, versions_and_positions_continue_after_reopening,
        keys_survive_reopening, event_ids_survive_reopening, recorded_times_are_unchanged_after_reopening,
        a_checkpoint_survives_reopening, random_histories_have_one_order,
    ], hangs [
        positions_have_no_gaps_under_concurrent_writers, a_subscription_from_the_head_gives_what_comes_next,
    ];
    one_that_writes_event_by_event: WritesEventByEvent => [
        an_append_to_several_streams_is_one_run, a_large_append_is_one_run,
        readers_never_see_half_an_append, a_dropped_append_leaves_the_store_whole,
        the_same_key_gets_the_original_outcome, the_original_outcome_does_not_move_on,
        a_used_key_with_other_events_writes_nothing, a_used_id_with_another_event_is_refused,
        the_outcome_of_a_key_can_be_asked_for, the_same_events_again_are_a_duplicate,
        the_same_events_of_several_streams_are_a_duplicate, the_same_events_wanted_elsewhere_are_refused,
        a_partly_known_append_is_refused, one_id_twice_in_an_append_is_refused,
        later_appends_stand_behind_earlier_ones, refused_appends_leave_no_gap,
        an_event_is_the_same_by_every_way_of_reading, reserved_streams_cannot_be_written,
        an_event_beyond_the_limit_is_refused, an_append_beyond_the_limit_is_refused,
        too_many_events_or_conditions_are_refused, one_wrong_event_refuses_the_whole_append,
        keys_survive_reopening,
    ];
    one_that_answers_before_it_writes: AnswersBeforeItWrites => [
        of_many_creators_one_wins, an_acknowledged_append_can_be_read_at_once,
        later_appends_stand_behind_earlier_ones,
    ] and others;
    one_that_checks_before_its_turn: ChecksBeforeItsTurn => [
        of_many_creators_one_wins, of_many_updaters_one_wins, the_same_events_wanted_elsewhere_are_refused,
        every_uuid_is_an_id, too_many_events_or_conditions_are_refused,
        a_query_beyond_the_limits_is_refused, event_ids_survive_reopening,
    ];
    one_that_takes_reserved_names: TakesReservedNames => [reserved_streams_cannot_be_written];
    one_that_takes_any_size: TakesAnySize => [
        an_event_beyond_the_limit_is_refused, an_append_beyond_the_limit_is_refused,
        too_many_events_or_conditions_are_refused, too_many_tags_or_too_much_metadata_are_refused,
        a_query_beyond_the_limits_is_refused,
    ];
    one_that_takes_empty_appends: TakesEmptyAppends => [
        a_refused_append_does_not_use_its_key, an_append_without_events_is_refused,
    ];
    one_that_takes_empty_names: TakesEmptyNames => [
        bad_metadata_is_refused, one_wrong_event_refuses_the_whole_append,
    ];
    one_that_refuses_the_nil_id: RefusesTheNilId => [every_uuid_is_an_id];
    one_that_refuses_after_a_refusal: RefusesAfterARefusal => [
        a_version_ahead_of_the_stream_is_refused_and_not_stale,
        after_a_refusal_the_right_version_is_let_through,
        an_append_after_another_event_than_the_newest_changes_nothing, what_was_seen_must_be_in_the_log,
        one_condition_that_reading_cannot_mend_makes_a_refusal_final,
        a_stale_version_carries_the_unseen_events, a_long_list_of_unseen_events_says_that_it_is_cut,
        a_conflict_of_many_conditions_is_bounded_as_a_whole, no_match_by_type,
        no_match_by_tags_needs_all_of_them, no_match_by_category, no_match_by_process_and_initiator,
        items_are_or_ed_and_what_an_item_names_is_and_ed,
        no_match_of_every_event_means_that_the_head_was_seen, names_in_queries_are_compared_byte_for_byte,
        long_names_with_a_common_prefix_are_different_in_queries, each_of_many_tags_finds_its_event,
        many_items_and_types_are_looked_at_in_full, items_that_differ_in_their_tags_only_are_united,
        a_condition_may_begin_beyond_the_head, an_id_finds_its_event_in_every_stream,
        ids_are_compared_whole, a_predecessor_finds_what_it_caused, no_match_by_id_and_predecessor,
        a_refused_append_to_several_streams_writes_none, a_used_key_with_other_events_writes_nothing,
        a_used_key_with_another_time_or_metadata_is_refused,
        the_same_json_in_another_form_is_the_same_event, a_used_id_with_another_event_is_refused,
        a_refused_append_does_not_use_its_key, the_same_events_wanted_elsewhere_are_refused,
        a_partly_known_append_is_refused, one_id_twice_in_an_append_is_refused,
        a_used_key_is_answered_before_ids_are_looked_at, every_uuid_is_an_id, refused_appends_leave_no_gap,
        reserved_streams_cannot_be_written, an_event_beyond_the_limit_is_refused,
        too_many_events_or_conditions_are_refused, too_many_tags_or_too_much_metadata_are_refused,
        a_query_beyond_the_limits_is_refused, queries_at_the_limits_are_answered, bad_metadata_is_refused,
        versions_and_positions_continue_after_reopening, random_histories_have_one_order,
    ];
    one_that_folds_case: FoldsCase => [
        names_in_queries_are_compared_byte_for_byte, the_same_id_in_another_stream_is_another_event,
        similar_names_are_different_streams, streams_are_listed_in_order_with_version_and_position,
    ];
    one_that_takes_no_stream_for_any: TakesNoStreamForAny => [
        no_stream_is_refused_where_there_is_one, after_a_refusal_the_right_version_is_let_through,
        of_many_creators_one_wins, an_unwritten_stream_may_be_expected_to_exist_or_not,
        every_violated_condition_is_named, what_was_seen_must_be_in_the_log,
        a_refused_append_to_several_streams_writes_none, a_refused_append_does_not_use_its_key,
        the_same_events_wanted_elsewhere_are_refused, refused_appends_leave_no_gap,
        an_event_is_the_same_by_every_way_of_reading,
    ];
    one_that_takes_exists_for_the_first: TakesExistsForTheFirst => [
        exists_is_refused_where_there_is_no_stream, exists_and_any_take_whatever_version,
        every_violated_condition_is_named, the_same_events_again_are_a_duplicate,
    ];
    one_that_looks_at_one_condition_a_stream: LooksAtOneConditionAStream => [
        every_violated_condition_is_named, conditions_that_contradict_each_other_refuse,
        a_conflict_of_many_conditions_is_bounded_as_a_whole,
    ];
    one_that_judges_conditions_first: JudgesConditionsFirst => [
        every_violated_condition_is_named, what_was_seen_must_be_in_the_log,
        a_conflict_of_many_conditions_is_bounded_as_a_whole, the_same_key_gets_the_original_outcome,
        the_original_outcome_does_not_move_on, a_used_key_with_other_events_writes_nothing,
        a_used_key_with_another_time_or_metadata_is_refused, a_used_id_with_another_event_is_refused,
        a_used_key_is_answered_in_spite_of_stale_conditions, the_same_events_again_are_a_duplicate,
        the_same_events_are_a_duplicate_in_spite_of_other_conditions,
        the_same_events_of_several_streams_are_a_duplicate, the_same_events_wanted_elsewhere_are_refused,
        a_partly_known_append_is_refused, a_reused_id_is_named_before_a_stale_version,
        a_used_key_is_answered_before_ids_are_looked_at, refused_appends_leave_no_gap,
        an_append_without_events_is_refused, keys_survive_reopening, event_ids_survive_reopening,
        random_histories_have_one_order,
    ];
    one_that_judges_ids_first: JudgesIdsFirst => [
        an_append_after_the_newest_event_continues_the_stream, the_same_key_gets_the_original_outcome,
        the_original_outcome_does_not_move_on, a_used_key_with_other_events_writes_nothing,
        a_used_key_with_another_time_or_metadata_is_refused, a_used_id_with_another_event_is_refused,
        the_same_events_again_are_a_duplicate, the_same_events_are_a_duplicate_in_spite_of_other_conditions,
        the_same_events_of_several_streams_are_a_duplicate, the_same_events_wanted_elsewhere_are_refused,
        a_partly_known_append_is_refused, a_reused_id_is_named_before_a_stale_version,
        a_used_key_is_answered_before_ids_are_looked_at, every_uuid_is_an_id, refused_appends_leave_no_gap,
        keys_survive_reopening, event_ids_survive_reopening, random_histories_have_one_order,
    ];
    one_that_counts_its_own_events: CountsItsOwnEvents => [
        an_append_does_not_violate_its_own_conditions
    ];
    one_that_takes_exists_for_any: TakesExistsForAny => [
        exists_is_refused_where_there_is_no_stream, an_unwritten_stream_may_be_expected_to_exist_or_not,
        every_violated_condition_is_named, one_condition_that_reading_cannot_mend_makes_a_refusal_final,
        the_same_events_wanted_elsewhere_are_refused,
    ];
    one_that_takes_zero_for_any: TakesZeroForAny => [
        exact_zero_expects_no_stream, a_stale_version_carries_the_unseen_events,
        a_long_list_of_unseen_events_says_that_it_is_cut,
        a_conflict_of_many_conditions_is_bounded_as_a_whole, versions_and_positions_continue_after_reopening,
    ];
    one_that_looks_for_the_newest_event_behind_it: LooksForTheNewestBehindIt => [
        an_append_after_the_newest_event_continues_the_stream,
        an_append_after_another_event_than_the_newest_changes_nothing,
    ];
    one_that_looks_at_versions_only: LooksAtVersionsOnly => [
        an_append_after_another_event_than_the_newest_changes_nothing
    ];
    one_that_ignores_the_newest_event: IgnoresTheNewest => [
        an_append_after_another_event_than_the_newest_changes_nothing,
        of_many_that_append_after_one_event_one_wins,
    ];
    one_that_takes_stale_versions: TakesStaleVersions => [
        a_stale_append_changes_nothing, a_version_ahead_of_the_stream_is_refused_and_not_stale,
        of_many_updaters_one_wins, a_condition_on_an_unwritten_stream_guards_the_append,
        every_violated_condition_is_named, one_condition_that_reading_cannot_mend_makes_a_refusal_final,
        conditions_that_contradict_each_other_refuse, a_stale_version_carries_the_unseen_events,
        a_long_list_of_unseen_events_says_that_it_is_cut,
        a_conflict_of_many_conditions_is_bounded_as_a_whole, the_same_events_wanted_elsewhere_are_refused,
        every_uuid_is_an_id, versions_and_positions_continue_after_reopening, event_ids_survive_reopening,
        random_histories_have_one_order,
    ];
    one_that_ignores_unwritten_streams: IgnoresUnwrittenStreams => [
        a_condition_on_an_unwritten_stream_guards_the_append,
        an_unwritten_stream_may_be_expected_to_exist_or_not, every_violated_condition_is_named,
        one_condition_that_reading_cannot_mend_makes_a_refusal_final,
        a_conflict_of_many_conditions_is_bounded_as_a_whole, random_histories_have_one_order,
    ];
    one_that_ignores_queries: IgnoresQueries => [
        every_violated_condition_is_named, what_was_seen_must_be_in_the_log,
        a_long_list_of_unseen_events_says_that_it_is_cut,
        a_conflict_of_many_conditions_is_bounded_as_a_whole, an_append_does_not_violate_its_own_conditions,
        no_match_by_type, no_match_by_tags_needs_all_of_them, no_match_by_category,
        no_match_by_process_and_initiator, items_are_or_ed_and_what_an_item_names_is_and_ed,
        no_match_of_every_event_means_that_the_head_was_seen, an_append_refused_by_a_query_changes_nothing,
        names_in_queries_are_compared_byte_for_byte,
        long_names_with_a_common_prefix_are_different_in_queries, each_of_many_tags_finds_its_event,
        many_items_and_types_are_looked_at_in_full, items_that_differ_in_their_tags_only_are_united,
        a_condition_may_begin_beyond_the_head, of_many_claims_one_wins,
        an_id_finds_its_event_in_every_stream, ids_are_compared_whole, a_predecessor_finds_what_it_caused,
        no_match_by_id_and_predecessor, an_event_is_the_same_by_every_way_of_reading,
        a_query_beyond_the_limits_is_refused, queries_at_the_limits_are_answered,
        versions_and_positions_continue_after_reopening, random_histories_have_one_order,
    ];
    one_that_looks_at_the_first_tag_only: LooksAtTheFirstTagOnly => [no_match_by_tags_needs_all_of_them];
    one_that_looks_at_the_first_item_only: LooksAtTheFirstItemOnly => [
        items_are_or_ed_and_what_an_item_names_is_and_ed, many_items_and_types_are_looked_at_in_full,
        items_that_differ_in_their_tags_only_are_united,
    ];
    one_that_folds_case_in_queries: FoldsCaseInQueries => [
        names_in_queries_are_compared_byte_for_byte, a_predecessor_finds_what_it_caused,
    ];
    one_that_ignores_blanks_in_queries: IgnoresBlanksInQueries => [
        names_in_queries_are_compared_byte_for_byte, a_predecessor_finds_what_it_caused,
    ];
    one_that_composes_letters_in_queries: ComposesLettersInQueries => [
        names_in_queries_are_compared_byte_for_byte
    ];
    one_that_cuts_names_in_queries: CutsNamesInQueries => [
        long_names_with_a_common_prefix_are_different_in_queries
    ];
    one_that_finds_events_by_the_first_tags: FindsEventsByTheFirstTags => [
        each_of_many_tags_finds_its_event
    ];
    one_that_looks_at_the_first_hundred_items: LooksAtTheFirstHundredItems => [
        many_items_and_types_are_looked_at_in_full
    ];
    one_that_looks_at_the_first_hundred_types: LooksAtTheFirstHundredTypes => [
        many_items_and_types_are_looked_at_in_full, a_query_beyond_the_limits_is_refused,
    ];
    one_that_finds_one_event_of_an_id: FindsOneEventOfAnId => [
        an_id_finds_its_event_in_every_stream, every_query_reads_what_a_filter_would,
    ];
    one_that_cuts_ids_in_queries: CutsIdsInQueries => [ids_are_compared_whole];
    one_that_finds_predecessors_by_their_beginning: FindsPredecessorsByTheirBeginning => [
        names_in_queries_are_compared_byte_for_byte,
        long_names_with_a_common_prefix_are_different_in_queries, a_predecessor_finds_what_it_caused,
    ];
    one_that_reads_all_that_an_event_caused: ReadsAllThatAnEventCaused => [
        what_one_event_caused_is_read_in_bounded_pages, every_query_reads_what_a_filter_would,
    ];
    one_that_ignores_ids_in_conditions: IgnoresIdsInConditions => [
        an_id_finds_its_event_in_every_stream, ids_are_compared_whole, no_match_by_id_and_predecessor,
    ];
    one_that_takes_items_of_one_type_for_one: TakesItemsOfOneTypeForOne => [
        items_that_differ_in_their_tags_only_are_united
    ];
    one_that_begins_at_the_beginning_beyond_the_head: BeginsAtTheBeginningBeyondTheHead => [
        a_condition_may_begin_beyond_the_head, a_query_beyond_the_limits_is_refused,
    ];
    one_that_counts_from_the_position_itself: CountsFromThePositionItself => [
        every_violated_condition_is_named, what_was_seen_must_be_in_the_log, no_match_by_type,
        no_match_by_tags_needs_all_of_them, no_match_by_category, no_match_by_process_and_initiator,
        items_are_or_ed_and_what_an_item_names_is_and_ed,
        no_match_of_every_event_means_that_the_head_was_seen, a_condition_may_begin_beyond_the_head,
        no_match_by_id_and_predecessor, a_query_beyond_the_limits_is_refused,
        queries_at_the_limits_are_answered,
    ];
    one_that_takes_positions_only: TakesPositionsOnly => [
        what_was_seen_must_be_in_the_log, a_query_beyond_the_limits_is_refused,
        random_histories_have_one_order,
    ];
    one_that_names_the_first_violation_only: NamesTheFirstViolationOnly => [
        every_violated_condition_is_named, what_was_seen_must_be_in_the_log,
        one_condition_that_reading_cannot_mend_makes_a_refusal_final,
        a_conflict_of_many_conditions_is_bounded_as_a_whole,
    ];
    one_that_carries_nothing_unseen: CarriesNothingUnseen => [
        no_stream_is_refused_where_there_is_one, writers_that_decide_again_lose_no_update,
        an_append_after_another_event_than_the_newest_changes_nothing,
        a_condition_on_an_unwritten_stream_guards_the_append, a_stale_version_carries_the_unseen_events,
        a_long_list_of_unseen_events_says_that_it_is_cut,
        a_conflict_of_many_conditions_is_bounded_as_a_whole, no_match_by_type,
        no_match_by_tags_needs_all_of_them, no_match_by_category, no_match_by_process_and_initiator,
        items_are_or_ed_and_what_an_item_names_is_and_ed,
        no_match_of_every_event_means_that_the_head_was_seen, names_in_queries_are_compared_byte_for_byte,
        long_names_with_a_common_prefix_are_different_in_queries, each_of_many_tags_finds_its_event,
        many_items_and_types_are_looked_at_in_full, items_that_differ_in_their_tags_only_are_united,
        a_condition_may_begin_beyond_the_head, an_id_finds_its_event_in_every_stream,
        ids_are_compared_whole, a_predecessor_finds_what_it_caused, no_match_by_id_and_predecessor,
        an_event_is_the_same_by_every_way_of_reading, versions_and_positions_continue_after_reopening,
        random_histories_have_one_order,
    ];
    one_that_cuts_unseen_events_and_does_not_say_so: CarriesTooLittleUnseen => [
        a_long_list_of_unseen_events_says_that_it_is_cut
    ];
    one_that_explains_each_violation_whole: ExplainsEachViolationWhole => [
        what_was_seen_must_be_in_the_log, a_conflict_of_many_conditions_is_bounded_as_a_whole,
    ];
    one_that_answers_any_reuse_of_a_key_or_an_id: AnswersAnyReuse => [
        a_used_key_with_other_events_writes_nothing, a_used_key_with_another_time_or_metadata_is_refused,
        the_same_json_in_another_form_is_the_same_event, a_used_id_with_another_event_is_refused,
        a_used_key_is_answered_before_ids_are_looked_at, random_histories_have_one_order,
    ];
    one_that_forgets_keys: ForgetsKeys => [
        a_large_append_is_one_run, a_used_key_with_other_events_writes_nothing,
        the_same_json_in_another_form_is_the_same_event,
        a_used_key_is_answered_in_spite_of_stale_conditions, concurrent_retries_with_one_key_write_once,
        the_outcome_of_a_key_can_be_asked_for, keys_are_compared_whole,
        the_key_is_recorded_on_the_first_event, a_used_key_is_answered_before_ids_are_looked_at,
        an_acknowledged_append_can_be_read_at_once, keys_survive_reopening, random_histories_have_one_order,
    ];
    one_that_forgets_keys_now_and_then: ForgetsKeysNowAndThen => [
        a_large_append_is_one_run, a_used_key_with_other_events_writes_nothing,
        the_outcome_of_a_key_can_be_asked_for, the_key_is_recorded_on_the_first_event,
        keys_survive_reopening, random_histories_have_one_order,
    ];
    one_that_forgets_keys_when_closed: ForgetsKeysWhenClosed => [keys_survive_reopening];
    one_that_cuts_keys: CutsKeys => [keys_are_compared_whole];
    one_that_uses_the_key_of_a_refused_append: UsesTheKeyOfARefusedAppend => [
        a_used_key_with_other_events_writes_nothing, a_used_key_with_another_time_or_metadata_is_refused,
        a_used_id_with_another_event_is_refused, a_refused_append_does_not_use_its_key,
        a_used_key_is_answered_before_ids_are_looked_at, random_histories_have_one_order,
    ];
    one_that_does_not_mark_duplicates: DoesNotMarkDuplicates => [
        an_append_after_the_newest_event_continues_the_stream, the_same_key_gets_the_original_outcome,
        the_original_outcome_does_not_move_on, a_used_key_with_other_events_writes_nothing,
        a_used_key_with_another_time_or_metadata_is_refused,
        the_same_json_in_another_form_is_the_same_event, a_used_id_with_another_event_is_refused,
        a_used_key_is_answered_in_spite_of_stale_conditions, the_same_events_again_are_a_duplicate,
        the_same_events_are_a_duplicate_in_spite_of_other_conditions,
        the_same_events_of_several_streams_are_a_duplicate, a_used_key_is_answered_before_ids_are_looked_at,
        concurrent_retries_of_the_same_events_write_once, refused_appends_leave_no_gap,
        keys_survive_reopening, event_ids_survive_reopening, random_histories_have_one_order,
    ];
    one_that_answers_with_the_newest_version: AnswersWithTheNewestVersion => [
        the_original_outcome_does_not_move_on, a_used_key_is_answered_in_spite_of_stale_conditions,
        the_same_events_again_are_a_duplicate, keys_survive_reopening, random_histories_have_one_order,
    ];
    one_that_forgets_ids: ForgetsIds => [
        no_stream_is_refused_where_there_is_one, an_append_after_the_newest_event_continues_the_stream,
        an_append_after_another_event_than_the_newest_changes_nothing,
        a_condition_on_an_unwritten_stream_guards_the_append, what_was_seen_must_be_in_the_log,
        a_stale_version_carries_the_unseen_events, a_long_list_of_unseen_events_says_that_it_is_cut,
        no_match_by_type, no_match_by_tags_needs_all_of_them, no_match_by_category,
        no_match_by_process_and_initiator, items_are_or_ed_and_what_an_item_names_is_and_ed,
        no_match_of_every_event_means_that_the_head_was_seen, names_in_queries_are_compared_byte_for_byte,
        long_names_with_a_common_prefix_are_different_in_queries, each_of_many_tags_finds_its_event,
        many_items_and_types_are_looked_at_in_full, items_that_differ_in_their_tags_only_are_united,
        a_condition_may_begin_beyond_the_head, an_id_finds_its_event_in_every_stream,
        ids_are_compared_whole, a_predecessor_finds_what_it_caused, no_match_by_id_and_predecessor,
        a_used_key_with_other_events_writes_nothing, a_used_id_with_another_event_is_refused,
        the_same_events_again_are_a_duplicate, the_same_events_are_a_duplicate_in_spite_of_other_conditions,
        the_same_events_of_several_streams_are_a_duplicate, the_same_events_wanted_elsewhere_are_refused,
        a_partly_known_append_is_refused, one_id_twice_in_an_append_is_refused,
        a_reused_id_is_named_before_a_stale_version, concurrent_retries_of_the_same_events_write_once,
        every_uuid_is_an_id, refused_appends_leave_no_gap, every_query_reads_what_a_filter_would,
        an_event_is_the_same_by_every_way_of_reading, acknowledged_events_survive_reopening,
        event_ids_survive_reopening, a_checkpoint_survives_reopening, random_histories_have_one_order,
    ];
    one_that_hides_a_late_commit: HidesALateCommit => [
        what_was_seen_must_be_in_the_log, what_one_event_caused_is_read_in_bounded_pages,
        an_append_to_several_streams_is_one_run, a_large_append_is_one_run,
        the_same_id_in_another_stream_is_another_event, positions_have_no_gaps_under_concurrent_writers,
        recorded_time_is_held_when_the_clock_jumps_back, the_log_is_read_from_anywhere,
        a_page_says_where_the_next_begins, a_read_ends_at_its_upper_bound, a_limit_is_kept,
        every_query_reads_what_a_filter_would, large_events_are_read_in_bounded_pages,
        a_stream_is_read_from_anywhere, a_subscription_has_no_seam_between_stored_and_live,
        a_subscription_resumes_from_its_checkpoint, subscriptions_do_not_disturb_each_other,
        an_event_is_the_same_by_every_way_of_reading, a_log_can_be_brought_to_another_store,
        acknowledged_events_survive_reopening, recorded_times_are_unchanged_after_reopening,
        a_checkpoint_survives_reopening,
    ];
    one_whose_head_runs_ahead: HeadRunsAhead => [
        no_match_of_every_event_means_that_the_head_was_seen, ids_are_compared_whole,
        a_reader_that_has_seen_the_head_finds_all_before_it, later_appends_stand_behind_earlier_ones,
        refused_appends_leave_no_gap, an_empty_log_reads_as_empty, the_log_is_read_from_anywhere,
        a_page_says_where_the_next_begins, a_read_ends_at_its_upper_bound,
        a_page_without_events_still_gets_on, a_limit_is_kept, every_query_reads_what_a_filter_would,
        large_events_are_read_in_bounded_pages, a_subscription_from_the_head_gives_what_comes_next,
        waiting_ends_at_once_if_the_head_is_beyond, all_waiters_are_woken,
        waiting_continues_until_the_position_is_passed, an_abandoned_wait_disturbs_no_other,
        an_empty_store_survives_reopening, a_checkpoint_survives_reopening,
        one_log_does_not_show_in_another,
    ];
    one_that_follows_the_clock_back: FollowsTheClockBack => [
        recorded_time_is_held_when_the_clock_jumps_back, a_given_recorded_time_is_held_between_last_and_now,
        a_log_can_be_brought_to_another_store, recorded_time_is_held_across_reopening,
    ];
    one_that_has_a_clock_of_its_own: HasAClockOfItsOwn => [
        recorded_time_is_the_clocks, recorded_time_is_held_when_the_clock_jumps_back,
        a_given_recorded_time_is_held_between_last_and_now, a_time_names_a_position,
        recorded_time_is_held_across_reopening,
    ];
    one_that_ignores_given_times: IgnoresGivenTimes => [
        a_given_recorded_time_is_held_between_last_and_now, a_log_can_be_brought_to_another_store,
    ];
    one_that_cuts_large_pages: CutsLargePages => [
        large_events_are_read_in_bounded_pages, an_event_beyond_the_limit_is_refused,
    ];
    one_that_stays_where_nothing_is_meant: StaysWhereNothingIsMeant => [
        each_of_many_tags_finds_its_event, an_id_finds_its_event_in_every_stream, ids_are_compared_whole,
        a_predecessor_finds_what_it_caused, an_empty_log_reads_as_empty, the_log_is_read_from_anywhere,
        a_page_says_where_the_next_begins, a_read_ends_at_its_upper_bound,
        a_page_without_events_still_gets_on, every_query_reads_what_a_filter_would,
    ], hangs [a_filtered_subscription_moves_its_checkpoint_on];
    one_that_reads_streams_from_one_later: ReadsStreamsFromOneLater => [
        an_acknowledged_append_can_be_read_at_once, a_read_ends_at_its_upper_bound,
        a_stream_is_read_from_anywhere, a_stream_page_says_where_the_next_begins, data_is_kept_byte_by_byte,
        metadata_is_kept, tags_are_kept_in_order, names_are_kept, schema_content_type_and_times_are_kept,
        random_histories_have_one_order,
    ];
    one_that_numbers_versions_from_zero: NumbersVersionsFromZero => [
        the_first_event_has_version_and_position_one, the_exact_version_continues_the_stream,
        no_stream_is_refused_where_there_is_one,
        an_append_after_another_event_than_the_newest_changes_nothing,
        a_condition_on_an_unwritten_stream_guards_the_append, a_stale_version_carries_the_unseen_events,
        a_long_list_of_unseen_events_says_that_it_is_cut, no_match_by_type,
        no_match_by_tags_needs_all_of_them, no_match_by_category, no_match_by_process_and_initiator,
        items_are_or_ed_and_what_an_item_names_is_and_ed,
        no_match_of_every_event_means_that_the_head_was_seen, names_in_queries_are_compared_byte_for_byte,
        long_names_with_a_common_prefix_are_different_in_queries, each_of_many_tags_finds_its_event,
        many_items_and_types_are_looked_at_in_full, items_that_differ_in_their_tags_only_are_united,
        a_condition_may_begin_beyond_the_head, an_id_finds_its_event_in_every_stream,
        ids_are_compared_whole, a_predecessor_finds_what_it_caused, no_match_by_id_and_predecessor,
        an_append_to_several_streams_is_one_run, a_read_ends_at_its_upper_bound,
        a_stream_is_read_from_anywhere, a_stream_page_says_where_the_next_begins,
        streams_are_listed_in_order_with_version_and_position, an_event_is_the_same_by_every_way_of_reading,
        random_histories_have_one_order,
    ];
    one_that_lists_after_known_names_only: ListsAfterKnownNamesOnly => [a_list_resumes_after_any_name];
    one_that_loses_the_oldest_event_backward: LosesTheOldestBackward => [
        what_one_event_caused_is_read_in_bounded_pages, the_log_is_read_from_anywhere,
        a_page_says_where_the_next_begins, a_read_ends_at_its_upper_bound,
        a_page_is_read_after_an_event_of_the_log_only, a_limit_is_kept,
        every_query_reads_what_a_filter_would, large_events_are_read_in_bounded_pages,
        pages_hold_while_others_write, data_is_kept_byte_by_byte, metadata_is_kept, tags_are_kept_in_order,
        names_are_kept, schema_content_type_and_times_are_kept, random_histories_have_one_order,
    ], hangs [a_subscription_resumes_from_its_checkpoint, subscriptions_do_not_disturb_each_other];
    one_that_says_the_end_too_early: SaysTheEndTooEarly => [
        an_id_finds_its_event_in_every_stream, what_one_event_caused_is_read_in_bounded_pages,
        a_large_append_is_one_run, a_page_says_where_the_next_begins, a_read_ends_at_its_upper_bound,
        a_limit_is_kept, every_query_reads_what_a_filter_would, pages_hold_while_others_write,
        random_histories_have_one_order,
    ];
    one_that_loses_what_follows_in_a_later_page: StopsAtThePageLimitForEver => [
        what_one_event_caused_is_read_in_bounded_pages, a_large_append_is_one_run,
        the_log_is_read_from_anywhere, a_page_says_where_the_next_begins, a_read_ends_at_its_upper_bound,
        a_limit_is_kept, every_query_reads_what_a_filter_would, large_events_are_read_in_bounded_pages,
        pages_hold_while_others_write, a_subscription_resumes_from_its_checkpoint,
        a_subscription_from_the_head_gives_what_comes_next, random_histories_have_one_order,
    ], hangs [positions_have_no_gaps_under_concurrent_writers];
    one_that_ignores_upper_bounds: IgnoresUpperBounds => [
        a_read_ends_at_its_upper_bound, random_histories_have_one_order,
    ];
    one_that_ignores_limits: IgnoresLimits => [
        an_id_finds_its_event_in_every_stream, what_one_event_caused_is_read_in_bounded_pages,
        a_page_says_where_the_next_begins, a_read_ends_at_its_upper_bound, a_limit_is_kept,
        every_query_reads_what_a_filter_would, pages_hold_while_others_write, data_is_kept_byte_by_byte,
        metadata_is_kept, tags_are_kept_in_order, names_are_kept, schema_content_type_and_times_are_kept,
    ];
    one_that_ignores_the_category: IgnoresTheCategory => [
        names_in_queries_are_compared_byte_for_byte,
        long_names_with_a_common_prefix_are_different_in_queries, an_id_finds_its_event_in_every_stream,
        a_read_ends_at_its_upper_bound, every_query_reads_what_a_filter_would,
        a_filtered_subscription_misses_nothing_while_writers_run, acknowledged_events_survive_reopening,
    ];
    one_that_ignores_types: IgnoresTypes => [
        names_in_queries_are_compared_byte_for_byte,
        long_names_with_a_common_prefix_are_different_in_queries,
        many_items_and_types_are_looked_at_in_full, a_page_without_events_still_gets_on,
        every_query_reads_what_a_filter_would, a_filtered_subscription_moves_its_checkpoint_on,
        queries_at_the_limits_are_answered, acknowledged_events_survive_reopening,
        random_histories_have_one_order,
    ];
    one_that_steps_over_the_end: StepsOverTheEnd => [
        what_one_event_caused_is_read_in_bounded_pages, a_page_says_where_the_next_begins,
        a_read_ends_at_its_upper_bound, a_page_without_events_still_gets_on,
        a_page_is_read_after_an_event_of_the_log_only, a_limit_is_kept,
        large_events_are_read_in_bounded_pages,
    ];
    one_that_believes_what_was_seen: BelievesWhatWasSeen => [
        a_page_is_read_after_an_event_of_the_log_only
    ];
    one_that_forgets_what_comes_next: ForgetsWhatComesNext => [
        a_stale_append_changes_nothing, a_version_ahead_of_the_stream_is_refused_and_not_stale,
        no_stream_is_refused_where_there_is_one,
        an_append_after_another_event_than_the_newest_changes_nothing,
        a_condition_on_an_unwritten_stream_guards_the_append, every_violated_condition_is_named,
        what_was_seen_must_be_in_the_log, an_append_refused_by_a_query_changes_nothing,
        names_in_queries_are_compared_byte_for_byte,
        long_names_with_a_common_prefix_are_different_in_queries,
        many_items_and_types_are_looked_at_in_full, items_that_differ_in_their_tags_only_are_united,
        a_filtered_subscription_moves_its_checkpoint_on,
        ids_are_compared_whole, a_refused_append_to_several_streams_writes_none, a_large_append_is_one_run,
        the_same_key_gets_the_original_outcome, a_used_key_with_other_events_writes_nothing,
        the_same_json_in_another_form_is_the_same_event, a_used_id_with_another_event_is_refused,
        a_used_key_is_answered_in_spite_of_stale_conditions, the_same_events_again_are_a_duplicate,
        the_same_events_are_a_duplicate_in_spite_of_other_conditions,
        the_same_events_of_several_streams_are_a_duplicate, the_same_events_wanted_elsewhere_are_refused,
        a_partly_known_append_is_refused, a_reused_id_is_named_before_a_stale_version, every_uuid_is_an_id,
        the_log_is_read_from_anywhere, a_read_ends_at_its_upper_bound,
        a_page_is_read_after_an_event_of_the_log_only, a_limit_is_kept,
        every_query_reads_what_a_filter_would, a_subscription_resumes_from_its_checkpoint,
        a_subscription_from_the_head_gives_what_comes_next, too_many_tags_or_too_much_metadata_are_refused,
        acknowledged_events_survive_reopening,
    ];
    one_that_moves_times_with_the_clock: MovesTimesWithTheClock => [
        recorded_times_are_unchanged_after_reopening
    ];
    one_that_shows_the_log_as_it_was_opened: ShowsTheLogAsItWasOpened => [two_handles_share_one_log];
    one_that_gives_missing_streams_a_version: GivesMissingStreamsAVersion => [
        a_stream_that_does_not_exist_reads_as_empty
    ];
    one_that_lists_by_prefix: ListsByPrefix => [streams_are_listed_by_category];
    one_that_lists_old_positions: ListsOldPositions => [
        streams_are_listed_in_order_with_version_and_position, the_list_is_true_while_others_write,
    ];
    one_that_reads_streams_late: ReadsStreamsLate => [
        the_exact_version_continues_the_stream, an_append_after_the_newest_event_continues_the_stream,
        an_append_after_another_event_than_the_newest_changes_nothing,
        a_condition_on_an_unwritten_stream_guards_the_append, conditions_that_contradict_each_other_refuse,
        a_stale_version_carries_the_unseen_events, an_append_to_several_streams_is_one_run,
        keys_are_compared_whole, every_uuid_is_an_id, an_acknowledged_append_can_be_read_at_once,
        a_read_ends_at_its_upper_bound, a_stream_is_read_from_anywhere,
        a_stream_page_says_where_the_next_begins, similar_names_are_different_streams,
        streams_are_listed_in_order_with_version_and_position, data_is_kept_byte_by_byte, metadata_is_kept,
        tags_are_kept_in_order, names_are_kept, schema_content_type_and_times_are_kept,
        an_event_is_the_same_by_every_way_of_reading, acknowledged_events_survive_reopening,
        random_histories_have_one_order,
    ];
    one_that_wakes_too_early: WakesTooEarly => [waiting_continues_until_the_position_is_passed];
    one_that_reads_data_as_text: ReadsDataAsText => [data_is_kept_byte_by_byte];
    one_that_loses_own_keys: LosesOwnKeys => [
        a_used_key_with_other_events_writes_nothing, a_used_key_with_another_time_or_metadata_is_refused,
        metadata_is_kept, an_event_is_the_same_by_every_way_of_reading,
        too_many_tags_or_too_much_metadata_are_refused, bad_metadata_is_refused,
    ];
    one_that_sorts_tags: SortsTags => [tags_are_kept_in_order];
    one_that_cuts_types: CutsTypes => [
        long_names_with_a_common_prefix_are_different_in_queries, names_are_kept,
    ];
    one_that_loses_the_time_of_occurrence: LosesTheTimeOfOccurrence => [
        a_used_key_with_other_events_writes_nothing, a_used_key_with_another_time_or_metadata_is_refused,
        schema_content_type_and_times_are_kept, an_event_is_the_same_by_every_way_of_reading,
    ];
    one_that_loses_all_when_closed: LosesAllWhenClosed => [
        acknowledged_events_survive_reopening, versions_and_positions_continue_after_reopening,
        keys_survive_reopening, event_ids_survive_reopening, recorded_time_is_held_across_reopening,
        recorded_times_are_unchanged_after_reopening, a_checkpoint_survives_reopening,
        the_identity_survives_reopening,
    ];
    one_that_loses_its_identity_when_closed: LosesTheIdentityWhenClosed => [
        what_was_seen_must_be_in_the_log, the_identity_survives_reopening, two_logs_have_two_identities,
    ];
    one_that_has_the_identity_of_another: HasTheIdentityOfAnother => [
        what_was_seen_must_be_in_the_log, two_logs_have_two_identities,
    ];
}
