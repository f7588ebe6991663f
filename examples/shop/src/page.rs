//! The shop in a browser: one page without scripts, from the same read models as the REST responses.
//!
//! Values from events are escaped by the templates, and the content security policy allows only our own
//! resources.

use axum::Router;
use axum::extract::{NestedPath, State};
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use maud::{DOCTYPE, Markup, html};

use crate::Shop;
use crate::http::{AtLeast, Page, Problem, no_such_method};
use crate::order::{self, OrderRow};
use crate::product::{self, ProductRow};
use crate::sales::{Customer, Month, Totals};
use crate::values::thousands;

const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The rows of a table on the page.
const ROWS: Page = Page { limit: 12, offset: 0 };

impl Shop {
    /// Commands and queries of all services over HTTP, and a page for browsers; mount it at a path, such as
    /// `/shop`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/", get(page))
            .with_state(self.clone())
            .route("/shop.css", get(style))
            .merge(self.members.router())
            .merge(self.products.router())
            .merge(self.orders.router())
            .merge(self.sales.router())
            .method_not_allowed_fallback(no_such_method)
    }
}

async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    (headers, include_str!("page/shop.css")).into_response()
}

async fn page(
    State(shop): State<Shop>,
    base: NestedPath,
    AtLeast(position): AtLeast,
) -> Result<Response, Problem> {
    let totals = shop.sales.totals(position).await?;
    let months = shop.sales.months(position).await?;
    let best = shop.sales.best_customers(ROWS.limit, position).await?;
    let orders = order::newest(&shop.annals.view().at_least(position), None, ROWS).await?;
    let products = product::page(&shop.annals.view().at_least(position), ROWS).await?;
    let main = html! {
        h1 { "The shop" }
        (cards(&totals))
        div.columns {
            section { h2 { "Revenue by month" } (revenue(&months)) }
            section { h2 { "Best customers" } (customers(&best)) }
        }
        section { h2 { "Newest orders" } (newest(&orders)) }
        section { h2 { "Products" } (stock(&products)) }
    };
    let headers = [(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Html(document(base.as_str(), &main).into_string())).into_response())
}

fn document(base: &str, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Shop · Annals" }
                link rel="stylesheet" href={ (base) "/shop.css" };
                link rel="icon" href="data:,";
            }
            body {
                header {
                    a.brand href="/" { "Annals" }
                    nav aria-label="Console" {
                        a href="/" { "Events" }
                        a href="/streams" { "Streams" }
                        a href=(base) aria-current="page" { "Shop" }
                    }
                }
                main { (main) }
                footer {
                    span { "Made of events, answered from tables." }
                    nav aria-label="Machines" {
                        @for (name, path) in [
                            ("Orders", "/orders"), ("Products", "/products"), ("Members", "/members"),
                            ("Sales", "/sales/months"),
                        ] {
                            a href={ (base) (path) } { (name) " as JSON" }
                        }
                    }
                }
            }
        }
    }
}

fn cards(totals: &Totals) -> Markup {
    html! {
        dl.cards {
            @for (name, value) in [
                ("Revenue", format!("${}", totals.revenue)),
                ("Orders", thousands(totals.purchases)),
                ("Customers", thousands(totals.customers)),
                ("Pieces", thousands(totals.pieces)),
            ] {
                div { dt { (name) } dd { (value) } }
            }
        }
    }
}

fn revenue(months: &[Month]) -> Markup {
    let most = months.iter().map(|month| month.revenue.0).max().unwrap_or(0).max(1);
    table(
        &[("Month", ""), ("", "wide"), ("Revenue", "number"), ("Orders", "number"), ("Customers", "number")],
        months.is_empty(),
        &html! {
            @for month in months {
                tr {
                    td { (month.month) }
                    td.wide { (bar(month.revenue.0 * 100 / most)) }
                    td.number { (month.revenue) }
                    td.number { (thousands(month.purchases)) }
                    td.number { (thousands(month.customers)) }
                }
            }
        },
    )
}

/// A bar of `percent` percent. It is an image, because the policy also forbids inline styles.
fn bar(percent: u64) -> Markup {
    html! {
        svg.bar aria-hidden="true" height="10" width="100%" {
            rect height="10" rx="2" width={ (percent) "%" } {}
        }
    }
}

fn customers(best: &[Customer]) -> Markup {
    table(
        &[("Customer", ""), ("Orders", "number"), ("Pieces", "number"), ("Money", "number")],
        best.is_empty(),
        &html! {
            @for customer in best {
                tr {
                    td { a href={ "/streams/member-" (customer.customer) } { (customer.customer) } }
                    td.number { (thousands(customer.purchases)) }
                    td.number { (thousands(customer.pieces)) }
                    td.number { (customer.money) }
                }
            }
        },
    )
}

fn newest(orders: &[OrderRow]) -> Markup {
    table(
        &[("Placed", ""), ("Member", ""), ("Items", "wide"), ("Amount", "number"), ("", ""), ("Order", "")],
        orders.is_empty(),
        &html! {
            @for order in orders {
                tr {
                    td { (order.placed_at.get(..10).unwrap_or(&order.placed_at)) }
                    td { (order.member.name.as_deref().unwrap_or("no longer a member")) }
                    td.wide {
                        @for (index, item) in order.items.iter().enumerate() {
                            @if index > 0 { ", " }
                            (item.quantity) " × " (item.name)
                        }
                    }
                    td.number { (order.amount) }
                    td { @if order.waiting > 0 { span.waits { "waits for " (order.waiting) } } }
                    td.id { a href={ "/streams/order-" (order.id) } { (order.id) } }
                }
            }
        },
    )
}

fn stock(products: &[ProductRow]) -> Markup {
    let columns = [
        ("Product", ""),
        ("Price", "number"),
        ("In stock", "number"),
        ("Sold", "number"),
        ("Orders waiting", "number"),
        ("Id", "wide"),
    ];
    let rows = html! {
        @for product in products {
            tr {
                td { (product.name) }
                td.number { (product.price) }
                td.number { (thousands(product.stock)) }
                td.number { (thousands(product.sold)) }
                td.number { (thousands(product.waiting)) }
                td.id.wide { a href={ "/streams/product-" (product.id) } { (product.id) } }
            }
        }
    };
    table(&columns, products.is_empty(), &rows)
}

fn table(columns: &[(&str, &str)], empty: bool, rows: &Markup) -> Markup {
    html! {
        @if empty {
            p.empty { "Nothing yet." }
        } @else {
            div.scroll {
                table {
                    thead { tr { @for (name, class) in columns { th scope="col" class=(class) { (name) } } } }
                    tbody { (rows) }
                }
            }
        }
    }
}
