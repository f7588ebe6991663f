//! The contract, clause by clause. Each clause is one function, named as a sentence; its documentation begins
//! with the guarantee of `docs/guarantees.md` that it tests.
//!
//! The list of clauses is defined once, below: [`contract!`](crate::contract!) generates tests from it,
//! `clause` makes the functions public, and [`CLAUSES`] makes the names available to programs. The compiler
//! reports a clause that is not listed as unused.

mod atomic;
mod conditions;
mod fidelity;
mod ids;
mod isolation;
mod keys;
mod limits;
mod log_reads;
mod lookups;
mod order;
mod queries;
mod stream_reads;
mod subscriptions;
mod survival;
mod versions;

use crate::history;

/// Passes the list of all clauses to a macro. For the macros of this crate only.
#[doc(hidden)]
#[macro_export]
macro_rules! __clauses {
    ($then:ident) => {
        $then! {
            versions: {
                the_first_event_has_version_and_position_one,
                the_exact_version_continues_the_stream,
                a_stale_append_changes_nothing,
                a_version_ahead_of_the_stream_is_refused_and_not_stale,
                exact_zero_expects_no_stream,
                no_stream_is_refused_where_there_is_one,
                exists_is_refused_where_there_is_no_stream,
                exists_and_any_take_whatever_version,
                after_a_refusal_the_right_version_is_let_through,
                of_many_creators_one_wins,
                of_many_updaters_one_wins,
                writers_that_decide_again_lose_no_update,
                an_append_after_the_newest_event_continues_the_stream,
                an_append_after_another_event_than_the_newest_changes_nothing,
                of_many_that_append_after_one_event_one_wins,
            }
            conditions: {
                a_condition_on_an_unwritten_stream_guards_the_append,
                an_unwritten_stream_may_be_expected_to_exist_or_not,
                every_violated_condition_is_named,
                what_was_seen_must_be_in_the_log,
                one_condition_that_reading_cannot_mend_makes_a_refusal_final,
                conditions_that_contradict_each_other_refuse,
                a_stale_version_carries_the_unseen_events,
                a_long_list_of_unseen_events_says_that_it_is_cut,
                a_conflict_of_many_conditions_is_bounded_as_a_whole,
                an_append_does_not_violate_its_own_conditions,
            }
            queries: {
                no_match_by_type,
                no_match_by_tags_needs_all_of_them,
                no_match_by_category,
                no_match_by_process_and_initiator,
                items_are_or_ed_and_what_an_item_names_is_and_ed,
                no_match_of_every_event_means_that_the_head_was_seen,
                an_append_refused_by_a_query_changes_nothing,
                names_in_queries_are_compared_byte_for_byte,
                long_names_with_a_common_prefix_are_different_in_queries,
                each_of_many_tags_finds_its_event,
                many_items_and_types_are_looked_at_in_full,
                items_that_differ_in_their_tags_only_are_united,
                a_condition_may_begin_beyond_the_head,
                of_many_claims_one_wins,
            }
            lookups: {
                an_id_finds_its_event_in_every_stream,
                ids_are_compared_whole,
                a_predecessor_finds_what_it_caused,
                what_one_event_caused_is_read_in_bounded_pages,
                no_match_by_id_and_predecessor,
            }
            atomic: {
                an_append_to_several_streams_is_one_run,
                a_refused_append_to_several_streams_writes_none,
                a_large_append_is_one_run,
                readers_never_see_half_an_append,
                a_dropped_append_leaves_the_store_whole,
                transfers_keep_the_sum,
            }
            keys: {
                the_same_key_gets_the_original_outcome,
                the_original_outcome_does_not_move_on,
                a_used_key_with_other_events_writes_nothing,
                a_used_key_with_another_time_or_metadata_is_refused,
                the_same_json_in_another_form_is_the_same_event,
                a_used_id_with_another_event_is_refused,
                a_used_key_is_answered_in_spite_of_stale_conditions,
                concurrent_retries_with_one_key_write_once,
                the_outcome_of_a_key_can_be_asked_for,
                a_refused_append_does_not_use_its_key,
                keys_are_compared_whole,
                the_key_is_recorded_on_the_first_event,
            }
            ids: {
                the_same_events_again_are_a_duplicate,
                the_same_events_are_a_duplicate_in_spite_of_other_conditions,
                the_same_events_of_several_streams_are_a_duplicate,
                the_same_events_wanted_elsewhere_are_refused,
                a_partly_known_append_is_refused,
                the_same_id_in_another_stream_is_another_event,
                one_id_twice_in_an_append_is_refused,
                a_reused_id_is_named_before_a_stale_version,
                a_used_key_is_answered_before_ids_are_looked_at,
                concurrent_retries_of_the_same_events_write_once,
                every_uuid_is_an_id,
            }
            order: {
                positions_have_no_gaps_under_concurrent_writers,
                a_reader_that_has_seen_the_head_finds_all_before_it,
                an_acknowledged_append_can_be_read_at_once,
                later_appends_stand_behind_earlier_ones,
                refused_appends_leave_no_gap,
                recorded_time_is_the_clocks,
                recorded_time_is_held_when_the_clock_jumps_back,
                a_given_recorded_time_is_held_between_last_and_now,
                a_time_names_a_position,
            }
            log_reads: {
                an_empty_log_reads_as_empty,
                the_log_is_read_from_anywhere,
                a_page_says_where_the_next_begins,
                a_read_ends_at_its_upper_bound,
                a_page_without_events_still_gets_on,
                a_page_is_read_after_an_event_of_the_log_only,
                a_limit_is_kept,
                every_query_reads_what_a_filter_would,
                large_events_are_read_in_bounded_pages,
                pages_hold_while_others_write,
            }
            stream_reads: {
                a_stream_is_read_from_anywhere,
                a_stream_that_does_not_exist_reads_as_empty,
                a_stream_page_says_where_the_next_begins,
                similar_names_are_different_streams,
                streams_are_listed_in_order_with_version_and_position,
                streams_are_listed_by_category,
                a_list_resumes_after_any_name,
                the_list_is_true_while_others_write,
            }
            subscriptions: {
                a_subscription_has_no_seam_between_stored_and_live,
                a_subscription_resumes_from_its_checkpoint,
                a_subscription_from_the_head_gives_what_comes_next,
                a_filtered_subscription_moves_its_checkpoint_on,
                a_filtered_subscription_misses_nothing_while_writers_run,
                subscriptions_do_not_disturb_each_other,
                waiting_ends_at_once_if_the_head_is_beyond,
                all_waiters_are_woken,
                waiting_continues_until_the_position_is_passed,
                an_abandoned_wait_disturbs_no_other,
            }
            fidelity: {
                data_is_kept_byte_by_byte,
                metadata_is_kept,
                tags_are_kept_in_order,
                names_are_kept,
                schema_content_type_and_times_are_kept,
                an_event_is_the_same_by_every_way_of_reading,
                a_log_can_be_brought_to_another_store,
            }
            limits: {
                an_append_without_events_is_refused,
                reserved_streams_cannot_be_written,
                an_event_beyond_the_limit_is_refused,
                an_append_beyond_the_limit_is_refused,
                too_many_events_or_conditions_are_refused,
                too_many_tags_or_too_much_metadata_are_refused,
                a_query_beyond_the_limits_is_refused,
                queries_at_the_limits_are_answered,
                bad_metadata_is_refused,
                one_wrong_event_refuses_the_whole_append,
            }
            survival: {
                acknowledged_events_survive_reopening,
                an_empty_store_survives_reopening,
                versions_and_positions_continue_after_reopening,
                keys_survive_reopening,
                event_ids_survive_reopening,
                recorded_time_is_held_across_reopening,
                recorded_times_are_unchanged_after_reopening,
                a_checkpoint_survives_reopening,
                the_identity_survives_reopening,
            }
            isolation: {
                two_logs_have_two_identities,
                one_log_does_not_show_in_another,
                two_handles_share_one_log,
            }
            history: {
                random_histories_have_one_order,
            }
        }
    };
}

macro_rules! publish {
    ($($section:ident: { $($clause:ident,)* })*) => {
        /// Every clause of the contract under its name.
        pub mod clause {
            $(pub use super::$section::{$($clause,)*};)*
        }

        /// The names of all clauses, in the order of the list.
        pub const CLAUSES: &[&str] = &[$($(stringify!($clause),)*)*];
    };
}
__clauses!(publish);

/// Generates one named test for each clause of the contract, for one store.
///
/// `open` is an expression that creates a fresh [`Subject`](crate::Subject); it may await. A clause that
/// cannot hold is skipped by name, with the reason, and is listed as an ignored test. The name of an unknown
/// clause does not compile.
///
/// ```
/// # mod tests {
/// use std::sync::Arc;
/// use annals_core::{Limits, MemoryStore, TestClock};
/// use annals_testkit::Subject;
///
/// struct Memory;
///
/// impl Subject for Memory {
///     type Store = MemoryStore;
///     async fn open(&self, clock: Arc<TestClock>) -> MemoryStore {
///         MemoryStore::with(Limits::default(), clock)
///     }
/// }
///
/// annals_testkit::contract!(
///     open: Memory,
///     skip: {
///         keys_survive_reopening: "ends with the process",
///     },
/// );
/// # }
/// ```
///
/// An unknown clause:
///
/// ```compile_fail,E0432
/// # mod tests {
/// # struct Memory;
/// # impl annals_testkit::Subject for Memory {
/// #     type Store = annals_core::MemoryStore;
/// #     async fn open(&self, _: std::sync::Arc<annals_core::TestClock>) -> annals_core::MemoryStore {
/// #         annals_core::MemoryStore::new()
/// #     }
/// # }
/// annals_testkit::contract!(open: Memory, skip: { keys_survive_repoening: "ends with the process" });
/// # }
/// ```
///
/// An empty reason:
///
/// ```compile_fail,E0080
/// # mod tests {
/// # struct Memory;
/// # impl annals_testkit::Subject for Memory {
/// #     type Store = annals_core::MemoryStore;
/// #     async fn open(&self, _: std::sync::Arc<annals_core::TestClock>) -> annals_core::MemoryStore {
/// #         annals_core::MemoryStore::new()
/// #     }
/// # }
/// annals_testkit::contract!(open: Memory, skip: { keys_survive_reopening: "" });
/// # }
/// ```
#[macro_export]
macro_rules! contract {
    (open: $open:expr $(,)?) => {
        $crate::__contract!(($) $open, {});
    };
    (open: $open:expr, skip: { $($clause:ident: $reason:literal),* $(,)? } $(,)?) => {
        $crate::__contract!(($) $open, { $($clause: $reason,)* });
    };
}

/// The expansion of [`contract!`](crate::contract!). `$d` is a dollar sign for the macro that is defined in
/// it, which has one arm for each skipped clause and one for all others.
#[doc(hidden)]
#[macro_export]
macro_rules! __contract {
    (($d:tt) $open:expr, { $($skip:ident: $reason:literal,)* }) => {
        $(
            #[allow(unused_imports)]
            use $crate::clause::$skip as _;
            const _: () = assert!(!$reason.is_empty(), "leaving out a clause needs a reason");
        )*

        macro_rules! __annals_contract {
            ($d($d section:ident: { $d($d clause:ident,)* })*) => {
                $d($d(__annals_contract!($d clause);)*)*
            };
            $(
                ($skip) => {
                    #[test]
                    #[ignore = $reason]
                    fn $skip() {
                        $crate::hold(stringify!($skip), async || $open, $crate::clause::$skip);
                    }
                };
            )*
            ($d clause:ident) => {
                #[test]
                fn $d clause() {
                    $crate::hold(stringify!($d clause), async || $open, $crate::clause::$d clause);
                }
            };
        }

        $crate::__clauses!(__annals_contract);
    };
}
