//! The progress of the demo on standard error: a bar on a terminal, otherwise a line now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals::{Annals, Phase};
use annals_shop::purchases::Given;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::thousands;

/// The number of progress lines if there is no terminal.
const LINES: u64 = 10;

/// The number of purchases that are placed, and its display.
#[derive(Clone)]
pub(super) struct Progress {
    bar: ProgressBar,
    /// Placed purchases.
    placed: Arc<AtomicU64>,
    total: u64,
    terminal: bool,
}

impl Progress {
    pub fn new(purchases: usize) -> Self {
        let total = purchases as u64;
        let bar = crate::progress::purchases(total);
        let terminal = !bar.is_hidden();
        Self { bar, placed: Arc::default(), total, terminal }
    }

    /// Counts a finished command if it has placed an order.
    pub fn record(&self, given: Given) {
        if given != Given::Order {
            return;
        }
        let placed = self.placed.fetch_add(1, Ordering::Relaxed) + 1;
        self.bar.inc(1);
        let step = self.total.div_ceil(LINES);
        if !self.terminal && (placed.is_multiple_of(step) || placed == self.total) {
            line(&format!("{} of {} purchases", thousands(placed), thousands(self.total)));
        }
    }

    /// Waits until stock and read models have processed all purchases.
    pub async fn until_all_followed(&self, annals: &Annals) -> anyhow::Result<()> {
        if self.terminal {
            self.bar.set_style(ProgressStyle::with_template("{msg}").expect("the template is valid"));
            self.bar.set_message("waiting for stock and read models …");
        }
        while let Err(behind) = annals.settle_within(Duration::from_secs(10)).await {
            let standing = annals.status().await?;
            if standing.iter().any(|status| status.failing.is_some() || status.phase == Phase::Stopped) {
                return Err(behind.into());
            }
        }
        Ok(())
    }

    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn line(text: &str) {
    use std::io::Write as _;
    // If this fails, the failure cannot be reported either.
    let _ = writeln!(std::io::stderr(), "annals: {text}");
}
