//! `/`: the newest events, updated live.

use std::sync::Arc;

use annals_core::{Direction, LogRead, Position};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use maud::{Markup, html};

use super::{Answer, Frame, answer, event_table, page};
use crate::access::Access;
use crate::app::App;
use crate::links::encode;
use crate::params::Params;
use crate::problem::Problem;
use crate::token;

/// The number of events on a page.
const PAGE_EVENTS: usize = 50;

/// The values of the filter form.
struct Filter {
    category: String,
    event_type: String,
    tag: String,
    id: String,
    predecessor: String,
}

impl Filter {
    /// A URL that begins with `first` and has the filter as parameters.
    fn address(&self, first: &str) -> String {
        let named = [
            ("category", &self.category),
            ("type", &self.event_type),
            ("tag", &self.tag),
            ("id", &self.id),
            ("predecessor", &self.predecessor),
        ];
        let given = named.into_iter().filter(|(_, value)| !value.is_empty());
        given.fold(first.to_owned(), |address, (name, value)| format!("{address}&{name}={}", encode(value)))
    }
}

/// The newest events, or a page of older ones.
pub(crate) async fn newest(
    State(app): State<Arc<App>>,
    access: Access,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    answer(app, access, async |app: &App, access: &Access| {
        let mut params = Params::without_empty(query.as_deref());
        let again = Params::without_empty(query.as_deref());
        // Empty fields are ignored, but their number is limited.
        for (name, max) in [("type", app.limits.query_names_max), ("tag", app.limits.query_item_tags_max)] {
            let given = Params::of(query.as_deref()).many(name).len();
            if given > max {
                return Err(Problem::invalid(name, format!("is given {given} times; at most {max}")));
            }
        }
        let start = params.start(Direction::Backward)?;
        let query = params.query()?;
        params.finish()?;
        access.rights.read_query(&query)?;
        let filter = Filter {
            category: again.first("category"),
            event_type: again.first("type"),
            tag: again.first("tag"),
            id: again.first("id"),
            predecessor: again.first("predecessor"),
        };
        let newest = !start.is_given();
        let from = start.position(&*access.log).await?;
        let read = LogRead::backward(from).matching(query).limit(PAGE_EVENTS);
        let found = access.log.read_log(read).await?;
        let head = token::of_log(&*access.log, found.head, &found.events).await?;
        let live = newest.then(|| filter.address(&format!("/v1/events/live?after={head}")));
        let reached = access.place(found.next.next().min(found.head)).await?;
        let reached = token::of_log(&*access.log, reached, &found.events).await?;
        let main = html! {
            div.title {
                h1 { @if newest { "Newest events" } @else { "Events" } }
                @if live.is_some() { span #live.live hidden role="status" { "connecting" } }
            }
            (form(&filter))
            div #feed data-live=[live] data-rows=(PAGE_EVENTS) { (event_table(&found.events, None)) }
            div.empty #empty hidden[!found.events.is_empty()] {
                @if found.head == Position::ZERO {
                    "No events yet. To append the first one:"
                    pre { code { (first_append(app, &headers)) } }
                } @else if found.end { "No such events." } @else { "None here; there may be older ones." }
            }
            nav.pages aria-label="Pages" {
                @if !newest { a href=(filter.address("/?")) { "Newest" } }
                @if !found.end { a rel="next" href=(filter.address(&format!("/?before={reached}"))) { "Older" } }
            }
        };
        let frame = Frame { shown: Some((app, access)), title: "Newest events", here: "/", head: Some(found.head) };
        Ok(page(StatusCode::OK, &frame, &main))
    })
    .await
}

/// A command that appends an event through this server.
fn first_append(app: &App, headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1:2113");
    let scheme = if app.has_tls { "https" } else { "http" };
    let token = if app.gate.is_open() { "" } else { "  -H 'Authorization: Bearer TOKEN' \\\n" };
    format!(
        "curl {scheme}://{host}/v1/streams/account-1 \\\n{token}  -H 'Content-Type: application/json' \\\n  \
         -d '[{{\"type\":\"account.opened\",\"data\":{{\"owner\":\"kim\"}}}}]'"
    )
}

fn form(filter: &Filter) -> Markup {
    html! {
        form.filter method="get" action="/" {
            label { "Category " input name="category" value=(filter.category) autocomplete="off"; }
            label { "Type " input name="type" value=(filter.event_type) autocomplete="off"; }
            label { "Tag " input name="tag" value=(filter.tag) autocomplete="off"; }
            label { "Id " input name="id" value=(filter.id) autocomplete="off"; }
            label { "Caused by " input name="predecessor" value=(filter.predecessor) autocomplete="off"; }
            button type="submit" { "Filter" }
        }
    }
}
