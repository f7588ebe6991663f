//! The sales report: the sales of each month, and the best customers. It is only a read model, without
//! commands.

mod rest;
mod view;

pub use view::{Customer, Month, Sales, Totals};

use annals::{Annals, Result, Seen, ViewError};
use axum::Router;

/// The sales report.
#[derive(Clone)]
pub struct SalesReport {
    annals: Annals,
}

impl SalesReport {
    /// Starts it.
    ///
    /// # Errors
    /// If it is started already, or its read model cannot be used.
    pub async fn start(annals: &Annals) -> Result<Self> {
        annals.project(Sales).start().await?;
        Ok(Self { annals: annals.clone() })
    }

    /// The totals of a report that includes at least this event.
    ///
    /// # Errors
    /// If the report does not include it in time.
    pub async fn totals(&self, at_least: impl Into<Seen>) -> Result<Totals, ViewError> {
        view::totals(&self.annals.view().at_least(at_least)).await
    }

    /// Month by month.
    ///
    /// # Errors
    /// As [`totals`](Self::totals).
    pub async fn months(&self, at_least: impl Into<Seen>) -> Result<Vec<Month>, ViewError> {
        view::months(&self.annals.view().at_least(at_least)).await
    }

    /// The customers who spent the most, the best first.
    ///
    /// # Errors
    /// As [`totals`](Self::totals).
    pub async fn best_customers(
        &self,
        limit: u32,
        at_least: impl Into<Seen>,
    ) -> Result<Vec<Customer>, ViewError> {
        view::best_customers(&self.annals.view().at_least(at_least), limit).await
    }

    /// Its HTTP routes.
    pub fn router(&self) -> Router {
        rest::router(self.clone())
    }
}
