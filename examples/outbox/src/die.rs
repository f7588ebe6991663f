//! Aborts the process at the step in `ORDERS_DIE_AT`, to show that nothing is lost: `before-write`,
//! `after-write` (before the commit), `after-commit` (before it is published), `after-publish` (before it is
//! marked), `after-mark`.

use std::sync::atomic::{AtomicBool, Ordering};

static WRITTEN: AtomicBool = AtomicBool::new(false);

/// Aborts the process here, like a crash, if this is the step in `ORDERS_DIE_AT`.
pub fn at(step: &str) {
    WRITTEN.fetch_or(step == "after-commit", Ordering::SeqCst);
    if is_set(step) {
        std::process::abort();
    }
}

/// Whether this is the step in `ORDERS_DIE_AT`.
pub fn is_set(step: &str) -> bool {
    std::env::var_os("ORDERS_DIE_AT").is_some_and(|set| set == step)
}

/// Whether an order was committed.
pub fn has_written() -> bool {
    WRITTEN.load(Ordering::SeqCst)
}
