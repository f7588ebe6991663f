//! Bugs that only an order of the threads shows: the model must find each of them.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{ORDERS, SEED, a_store, explore_from};
use crate::planted::{Bug, plant};

/// Seeds that are tried until a bug is caught: which orders catch it changes with every step that is added to
/// the code.
const SEEDS: u64 = 40;

fn is_caught(bug: Bug, orders: usize) {
    plant(Some(bug));
    let mut seeds = SEED..SEED + SEEDS;
    let caught =
        seeds.find_map(|seed| catch_unwind(AssertUnwindSafe(|| explore_from(seed, orders, a_store))).err());
    plant(None);
    let panic = caught.unwrap_or_else(|| panic!("{bug:?} was not caught"));
    let text = panic.downcast_ref::<String>().map_or("it panicked", String::as_str);
    let line = format!("caught {bug:?} in the model: {}\n", text.lines().next().unwrap_or_default());
    let _ = std::io::stdout().write_all(line.as_bytes());
}

#[test]
fn answers_before_publication_are_caught() {
    is_caught(Bug::PublishesAfterTheAnswers, ORDERS);
}

#[test]
fn a_view_that_takes_the_lists_first_is_caught() {
    is_caught(Bug::TakesTheListsFirst, ORDERS * 20);
}

#[test]
fn two_leaders_at_once_are_caught() {
    is_caught(Bug::HasTwoLeaders, ORDERS * 20);
}

#[test]
fn a_wake_up_that_is_lost_is_caught() {
    is_caught(Bug::ForgetsToWake, ORDERS);
}
