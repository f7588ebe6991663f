//! The suite itself on trial: a store that keeps the contract passes all of it, and each broken store is
//! caught by exactly the clauses that are named for it (`caught`).

#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod caught;
mod changed;
mod kept;
mod state_caught;
mod state_kept;

use std::sync::Arc;

use annals_core::MemoryStore;
use annals_testkit::{CLAUSES, clause};

use self::caught::{CAUGHT_BY, failure};
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

#[test]
fn two_stores_on_one_log_are_caught() {
    let log = Arc::new(MemoryStore::new());
    let name = "one_log_does_not_show_in_another";
    let why = failure(name, async move || Kept::shared(&log), clause::one_log_does_not_show_in_another);
    assert!(why.is_some());
}

#[test]
fn a_failing_history_names_the_seed_that_repeats_it() {
    let text = failure(
        "random_histories_have_one_order",
        async || Kept::new(Fault::ForgetsKeys),
        clause::random_histories_have_one_order,
    );
    let text = text.expect("keys that are forgotten are found");
    let (_, seed) = text.split_once("ANNALS_SEED=").expect("the seed is named");
    let digits = seed.chars().take_while(char::is_ascii_digit).count();
    assert!(digits > 0 && seed[digits..].starts_with(" repeats"), "{text}");
}

#[test]
fn every_clause_is_shown_to_fail() {
    for name in CLAUSES {
        let shown = CAUGHT_BY.iter().any(|clauses| clauses.contains(name));
        assert!(shown, "`{name}` needs a broken store that it catches");
    }
}

#[test]
fn no_clause_is_listed_twice() {
    let mut names = CLAUSES.to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), CLAUSES.len());
    assert!(names.len() >= 100, "{} clauses", names.len());
}
