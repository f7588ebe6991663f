//! The product service over HTTP.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::{
    ChangePrice, CreateProduct, DecreaseStock, IncreaseStock, Product, ProductRefused, ProductRow,
    ProductService, RenameProduct, view,
};
use crate::form::FromForm;
use crate::http::{AtLeast, Caller, Checked, Done, Page, Problem, Refusals};
use crate::values::ProductId;

pub(super) fn router(service: ProductService) -> Router {
    Router::new()
        .route("/products", post(create).get(list))
        .route("/products/{id}", get(one))
        .route("/products/{id}/name", post(give::<RenameProduct>))
        .route("/products/{id}/price", post(give::<ChangePrice>))
        .route("/products/{id}/stock/increase", post(give::<IncreaseStock>))
        .route("/products/{id}/stock/decrease", post(give::<DecreaseStock>))
        .with_state(service)
}

impl Refusals for ProductRefused {
    fn status(code: &str) -> StatusCode {
        match code {
            "product-not-found" => StatusCode::NOT_FOUND,
            "product-exists" => StatusCode::CONFLICT,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

async fn create(
    State(service): State<ProductService>,
    caller: Caller,
    Checked(command): Checked<CreateProduct>,
) -> Result<Done, Problem> {
    Ok(service.create(command, &caller).await?)
}

async fn give<C>(
    State(service): State<ProductService>,
    Path(id): Path<String>,
    caller: Caller,
    Checked(command): Checked<C>,
) -> Result<Done, Problem>
where
    Product: annals::Decide<C, Error = ProductRefused>,
    C: FromForm + Send + Sync + 'static,
{
    let id = ProductId::new(&id).map_err(|_| ProductRefused::ProductNotFound)?;
    Ok(service.give(&id, command, &caller).await?)
}

async fn list(
    State(service): State<ProductService>,
    AtLeast(position): AtLeast,
    page: Page,
) -> Result<Json<Vec<ProductRow>>, Problem> {
    let view = service.annals.view().at_least(position);
    Ok(Json(view::page(&view, page).await?))
}

async fn one(
    State(service): State<ProductService>,
    Path(id): Path<String>,
    AtLeast(position): AtLeast,
) -> Result<Json<ProductRow>, Problem> {
    let row = view::one(&service.annals.view(), &id, position).await?;
    Ok(Json(row.ok_or(ProductRefused::ProductNotFound)?))
}
