//! Orders over HTTP.

use annals_outbox::{Outbox, PublisherWaker};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use crate::order::Order;
use crate::orders::{Orders, Refused};

#[derive(Clone)]
struct App {
    orders: Orders,
    outbox: Outbox,
    wake: Option<PublisherWaker>,
}

pub fn routes(orders: Orders, outbox: Outbox, wake: Option<PublisherWaker>) -> Router {
    Router::new()
        .route("/orders", post(place))
        .route("/orders/{id}", get(find))
        .route("/orders/{id}/pay", post(pay))
        .route("/orders/{id}/cancel", post(cancel))
        .route("/outbox", get(status))
        .with_state(App { orders, outbox, wake })
}

impl App {
    /// The response to a change. Wakes the publisher after a commit, so that the message is published at
    /// once.
    fn answer(&self, changed: Result<(), Refused>) -> Response {
        let status = match &changed {
            Ok(()) => {
                self.wake.as_ref().inspect(|wake| wake.wake());
                return StatusCode::NO_CONTENT.into_response();
            }
            Err(Refused::Exists(_) | Refused::NotPlaced(_)) => StatusCode::CONFLICT,
            Err(Refused::Message(annals_outbox::Error::Invalid(_))) => StatusCode::BAD_REQUEST,
            Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, changed.err().map(|refused| format!("{refused}\n")).unwrap_or_default()).into_response()
    }
}

async fn place(State(app): State<App>, Json(order): Json<Order>) -> Response {
    app.answer(app.orders.place(&order).await)
}

async fn pay(State(app): State<App>, Path(id): Path<String>) -> Response {
    app.answer(app.orders.settle(&id, "paid").await)
}

async fn cancel(State(app): State<App>, Path(id): Path<String>) -> Response {
    app.answer(app.orders.settle(&id, "cancelled").await)
}

async fn find(State(app): State<App>, Path(id): Path<String>) -> Response {
    match app.orders.find(&id).await {
        Ok(Some(order)) => Json(order).into_response(),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

/// Metrics for a monitoring system.
async fn status(State(app): State<App>) -> Response {
    match app.outbox.status().await {
        Ok(status) => Json(json!({
            "pending": status.pending, "held": status.held, "dead_letters": status.dead_letters,
            "oldest_seconds": status.oldest.map(|age| age.as_secs_f64()),
        }))
        .into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}
