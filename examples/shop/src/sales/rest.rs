//! The sales report over HTTP.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};

use super::{Customer, Month, SalesReport, Totals};
use crate::http::{AtLeast, Page, Problem};

pub(super) fn router(report: SalesReport) -> Router {
    Router::new()
        .route("/sales", get(totals))
        .route("/sales/months", get(months))
        .route("/sales/customers", get(best_customers))
        .with_state(report)
}

async fn totals(
    State(report): State<SalesReport>,
    AtLeast(position): AtLeast,
) -> Result<Json<Totals>, Problem> {
    Ok(Json(report.totals(position).await?))
}

async fn months(
    State(report): State<SalesReport>,
    AtLeast(position): AtLeast,
) -> Result<Json<Vec<Month>>, Problem> {
    Ok(Json(report.months(position).await?))
}

async fn best_customers(
    State(report): State<SalesReport>,
    AtLeast(position): AtLeast,
    page: Page,
) -> Result<Json<Vec<Customer>>, Problem> {
    Ok(Json(report.best_customers(page.limit, position).await?))
}
