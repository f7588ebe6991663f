//! The order service over HTTP.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::{Catalogue, OrderForm, OrderRefused, OrderRow, OrderService, PlaceError, catalogue, view};
use crate::http::{AtLeast, Caller, Checked, Done, Page, Problem, Refusals};
use crate::session;

pub(super) fn router(service: OrderService) -> Router {
    Router::new().route("/orders", post(place).get(list)).route("/orders/{id}", get(one)).with_state(service)
}

impl Refusals for OrderRefused {
    fn status(code: &str) -> StatusCode {
        match code {
            "member-not-signed" => StatusCode::UNAUTHORIZED,
            "order-not-found" => StatusCode::NOT_FOUND,
            "order-exists" => StatusCode::CONFLICT,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

impl From<PlaceError> for Problem {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Command(error) => error.into(),
            PlaceError::Catalogue(error) => error.into(),
        }
    }
}

/// The order is placed for the member of the request's session, which is looked up in this service's own
/// copy.
async fn place(
    State(service): State<OrderService>,
    AtLeast(position): AtLeast,
    caller: Caller,
    Checked(form): Checked<OrderForm>,
) -> Result<Done, Problem> {
    let session = caller.session.as_deref().ok_or(OrderRefused::MemberNotSigned)?;
    let view = service.annals.view::<Catalogue>().at_least(position);
    let member = catalogue::signed_in(&view, &session::digest(session)).await?;
    let member = member.ok_or(OrderRefused::MemberNotSigned)?;
    let caller = Caller { by: Some(format!("member:{member}")), ..caller };
    Ok(service.place(member, form, position, &caller).await?)
}

#[derive(Deserialize)]
struct Of {
    member: Option<String>,
}

async fn list(
    State(service): State<OrderService>,
    AtLeast(position): AtLeast,
    Query(of): Query<Of>,
    page: Page,
) -> Result<Json<Vec<OrderRow>>, Problem> {
    let view = service.annals.view().at_least(position);
    Ok(Json(view::newest(&view, of.member.as_deref(), page).await?))
}

async fn one(
    State(service): State<OrderService>,
    Path(id): Path<String>,
    AtLeast(position): AtLeast,
) -> Result<Json<OrderRow>, Problem> {
    let row = view::one(&service.annals.view().at_least(position), &id).await?;
    Ok(Json(row.ok_or(OrderRefused::OrderNotFound)?))
}
