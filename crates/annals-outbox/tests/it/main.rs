//! An outbox on every database that it can be in: one suite, on real servers that the tests start themselves,
//! and on SQLite.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests may fail the test, and say what they saw"
)]

mod support;

mod clock;
mod failing;
mod fixtures;
mod kill;
mod outages;
mod publishing;
mod settings;
mod several;
mod writing;

/// Each of these, on each of these databases that this run takes, by its own name.
macro_rules! on {
    ($databases:tt, $($suite:ident::$test:ident,)*) => { $(on!(@each $databases $suite $test);)* };
    (@each [$($database:ident)*] $suite:ident $test:ident) => {
        mod $test {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $database() {
                    if let Some(place) = crate::support::Place::$database().await {
                        crate::$suite::$test(place).await;
                    }
                }
            )*
        }
    };
}

on! {
    [postgres newest_postgres mariadb newest_mariadb mysql sqlite],
    writing::a_message_comes_as_it_was_written,
    writing::what_is_rolled_back_is_not_published,
    writing::what_is_not_acceptable_is_refused_before_anything_is_written,
    writing::tables_are_made_once_and_known,
    publishing::messages_of_an_aggregate_keep_their_order,
    publishing::a_wake_is_heard_at_once,
    publishing::what_was_published_is_kept_for_a_while_and_then_deleted,
    publishing::a_stop_finishes_what_is_under_way,
    publishing::a_log_has_each_message_once,
    failing::only_the_aggregate_that_fails_waits,
    failing::a_dead_letter_keeps_its_place,
    failing::discarding_a_dead_letter_unblocks_its_aggregate,
    failing::a_sink_that_is_away_is_waited_for,
    failing::a_sink_that_hangs_holds_up_one_aggregate,
    failing::a_sink_that_panics_has_refused,
    failing::an_unreadable_row_holds_up_its_own_aggregate,
    failing::an_error_that_panics_is_a_refusal,
    failing::names_that_another_program_wrote_are_names,
    clock::a_time_that_cannot_be_is_not_waited_for,
    clock::a_publisher_that_waits_says_for_what,
    several::one_publishes_and_the_next_takes_over,
    several::a_lease_that_is_lost_ends_publishing,
    several::a_lease_that_is_lost_ends_a_worker,
    several::what_was_published_is_marked_though_another_has_the_lease,
    several::a_problem_is_over_when_the_database_answers_though_nothing_is_to_be_published,
    several::a_call_of_the_sink_is_gone_before_the_lease_is,
    fixtures::the_files_of_a_release_are_unchanged,
    fixtures::what_a_release_left_pending_is_published_in_order,
    fixtures::a_dead_letter_of_a_release_is_retried_and_published_with_what_waited,
    kill::nothing_is_lost_at_any_step,
    kill::nothing_is_lost_under_load,
}

on! {
    [postgres newest_postgres mariadb newest_mariadb mysql],
    writing::one_aggregate_is_written_by_one_transaction_at_a_time,
    publishing::a_message_that_is_committed_late_is_not_skipped,
    failing::an_open_transaction_holds_up_nobody_else,
}

on! {
    [mariadb newest_mariadb mysql sqlite],
    failing::a_message_without_an_id_can_be_found_and_dropped,
}

on! {
    [postgres newest_postgres mariadb newest_mariadb mysql],
    outages::an_outage_is_survived,
    outages::a_silent_database_is_noticed,
    outages::an_abandoned_query_leaves_no_transaction_open,
}

on! {
    [sqlite],
    clock::a_lease_from_a_clock_that_was_ahead_does_not_stop_publishing,
}

on! {
    [postgres newest_postgres],
    publishing::a_notification_is_heard_at_once,
    outages::a_silent_listener_is_replaced_and_holds_up_nothing,
}
