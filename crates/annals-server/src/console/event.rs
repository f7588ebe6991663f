//! `/events/{position}`: one event in full, and the related events: those of its append and its process, its
//! predecessor and the events that it triggered.

use std::sync::Arc;

use annals_core::{
    EventId, EventStore, LogRead, Position, Query, QueryItem, RecordedEvent, Result, shortened,
};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use maud::{Markup, html};

use super::{Answer, Frame, answer, event_table, number, page, pretty, text_of, time};
use crate::access::Access;
use crate::app::App;
use crate::links::{self, encode};
use crate::params::Params;
use crate::problem::Problem;
use crate::token::Token;

/// The maximum number of related events in one table.
const NEIGHBOURS: usize = 50;
/// The maximum number of pages read to find them: a page may hold few events although more follow.
const PAGES_MAX: usize = 4;
/// The maximum number of bytes of data that are shown.
const DATA_BYTES: usize = 64 << 10;
/// The maximum number of custom metadata keys that are shown, and the maximum length of each in bytes.
const OWN_KEYS: usize = 50;
const OWN_BYTES: usize = 1 << 10;

/// One event.
pub(crate) async fn event(
    State(app): State<Arc<App>>,
    access: Access,
    Path(position): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    answer(app, access, async |app: &App, access: &Access| {
        Params::of(query.as_deref()).finish()?;
        let token = position.parse::<Token>();
        let token = token.map_err(|invalid| Problem::invalid("position", invalid.problem))?;
        let position = token.position(&*access.log, "the address").await?;
        let none = || {
            let detail = format!("there is no event at position {position}");
            Problem::new(StatusCode::NOT_FOUND, "not-found", detail)
        };
        if position == Position::ZERO {
            return Err(none());
        }
        let found = access.log.read_log(LogRead::forward(position).to(position)).await?;
        let event = found.events.first().ok_or_else(none)?;
        // Of those that may be seen: there are gaps between them.
        let beside = async |read: LogRead| access.log.read_log(read.limit(1)).await.map(|page| page.events.into_iter().next());
        let before = beside(LogRead::backward(position.previous())).await?.filter(|other| other.position() < position);
        let after = beside(LogRead::forward(position.next())).await?;
        let near = Neighbours::of(&*access.log, event).await?;
        let title = format!("Event {}", number(position.get()));
        let main = html! {
            h1 { (title) }
            p.facts {
                @if let Some(before) = before { a rel="prev" href=(links::position(before.position())) { "← before" } " · " }
                @if let Some(after) = after { a rel="next" href=(links::position(after.position())) { "after →" } " · " }
                a href=(links::api_event(event)) { "JSON" }
            }
            (card(event, true))
            (near.shown(event))
        };
        let frame = Frame { shown: Some((app, access)), title: &title, here: "/", head: Some(found.head) };
        Ok(page(StatusCode::OK, &frame, &main))
    })
    .await
}

/// An event in full.
pub(super) fn card(event: &RecordedEvent, with_stream: bool) -> Markup {
    html! {
        article.event aria-label={ "Event " (event.position()) } {
            h2 {
                span.type { (event.event_type()) }
                @if event.schema_version() != 1 { span.schema { "schema " (event.schema_version()) } }
            }
            p.facts {
                @if with_stream { a.name href=(links::stream(event.stream())) { (event.stream()) } " · " }
                "version " b { (number(event.version().get())) }
                " · position " a href=(links::event(event)) { (number(event.position().get())) }
                " · recorded " (time(event.recorded_at()))
                @if let Some(at) = event.occurred_at() { " · occurred " (time(at)) }
            }
            @if event.tags().next().is_some() {
                p.tags {
                    @for tag in event.tags() { a.tag href={ "/?tag=" (encode(tag)) } { (tag) } " " }
                }
            }
            (data(event))
            (metadata(event))
        }
    }
}

fn data(event: &RecordedEvent) -> Markup {
    let shown = &event.data()[..event.data().len().min(DATA_BYTES)];
    let is_json = event.content_type().is_json();
    let text = match text_of(event) {
        Some(_) if is_json => pretty::json(shown, 2 * DATA_BYTES),
        Some(_) => String::from_utf8_lossy(shown).into_owned(),
        None => pretty::bytes(shown),
    };
    html! {
        @if !is_json { p.facts { (number(event.data().len() as u64)) " bytes of " (event.content_type()) } }
        pre.data { code { (text) } }
        @if event.data().len() > DATA_BYTES {
            p { "These are the first " (number(DATA_BYTES as u64)) " of " (number(event.data().len() as u64)) " bytes; "
                a href=(links::api_event(event)) { "all of them" } "." }
        }
    }
}

fn metadata(event: &RecordedEvent) -> Markup {
    let metadata = &event.metadata();
    let pairs = [
        ("Process", &metadata.process),
        ("Initiator", &metadata.initiator),
        ("Predecessor", &metadata.predecessor),
        ("Trace", &metadata.trace),
    ];
    html! {
        dl {
            dt { "Id" } dd { code { (event.id()) } }
            @if let Some(key) = &event.idempotency_key() { dt { "Idempotency key" } dd { (key) } }
            @for (name, value) in pairs {
                @if let Some(value) = value { dt { (name) } dd { (shortened(value.as_str().to_owned(), OWN_BYTES)) } }
            }
            @for (key, value) in metadata.own.iter().take(OWN_KEYS) {
                dt { (shortened(key.as_str().to_owned(), OWN_BYTES)) }
                dd { (shortened(value.as_str().to_owned(), OWN_BYTES)) }
            }
            @if metadata.own.len() > OWN_KEYS {
                dt { "…" } dd { "and " (metadata.own.len() - OWN_KEYS) " more keys" }
            }
        }
    }
}

/// The events related to an event.
struct Neighbours {
    append: Vec<RecordedEvent>,
    process: Found,
    cause: Found,
    effects: Found,
}

/// The result of a lookup of related events.
#[derive(Default)]
struct Found {
    events: Vec<RecordedEvent>,
    /// Whether there are more.
    is_cut: bool,
    /// Why the lookup failed.
    refused: Option<String>,
}

impl Found {
    /// The events that match this query, the oldest first, up to [`NEIGHBOURS`] or [`PAGES_MAX`] pages.
    async fn of(store: &dyn EventStore, query: Query) -> Self {
        let mut read = LogRead::forward(Position::FIRST).matching(query).limit(NEIGHBOURS);
        let mut found = Self::default();
        for _ in 0..PAGES_MAX {
            match store.read_log(read.clone()).await {
                Ok(page) => {
                    found.events.extend(page.events);
                    found.is_cut = !page.end;
                    if page.end || found.events.len() >= NEIGHBOURS {
                        break;
                    }
                    read.from = page.next;
                    read.limit = NEIGHBOURS - found.events.len();
                }
                // The rest of the page is still shown: an index of an earlier version may not support this
                // query.
                Err(error) => {
                    found.refused = Some(error.chain());
                    break;
                }
            }
        }
        found
    }

    /// The events under this heading, with a link to all of them.
    fn shown(&self, title: &Markup, all: &str, this: Option<Position>) -> Markup {
        html! {
            @if !self.events.is_empty() || self.is_cut || self.refused.is_some() {
                section {
                    h2 { (title) }
                    @if !self.events.is_empty() { (event_table(&self.events, this)) }
                    @if let Some(refused) = &self.refused { p { "The lookup was refused: " (refused) } }
                    @if self.is_cut { p { a href=(all) { "All events" } " as JSON" } }
                }
            }
        }
    }
}

impl Neighbours {
    async fn of(store: &dyn EventStore, event: &RecordedEvent) -> Result<Self> {
        let mut append = store.read_log(LogRead::forward(event.append()).limit(NEIGHBOURS)).await?.events;
        append.retain(|other| other.append() == event.append());
        let mut this = Self {
            append,
            process: Found::default(),
            cause: Found::default(),
            effects: Found::of(store, Query::predecessor(event.id().to_string())).await,
        };
        if let Some(process) = &event.metadata().process {
            let item = QueryItem { process: Some(process.clone()), ..QueryItem::default() };
            this.process = Found::of(store, Query::item(item)).await;
        }
        // A predecessor that is not an event id is a message of another system.
        if let Some(cause) = cause_of(event) {
            this.cause = Found::of(store, Query::id(cause)).await;
        }
        Ok(this)
    }

    fn shown(&self, event: &RecordedEvent) -> Markup {
        let this = Some(event.position());
        let metadata = event.metadata();
        let of_process = metadata.process.as_deref().unwrap_or_default();
        let of_cause = metadata.predecessor.as_deref().unwrap_or_default();
        html! {
            (self.cause.shown(&html! { "Predecessor" }, &format!("/v1/events?id={}", encode(of_cause)), this))
            (self.effects.shown(&html! { "Events it caused" }, &format!("/v1/events?predecessor={}", event.id()), this))
            @if self.append.len() > 1 { section { h2 { "Same append" } (event_table(&self.append, this)) } }
            (self.process.shown(
                &html! { "Process " span.name { (of_process) } },
                &format!("/v1/events?process={}", encode(of_process)),
                this,
            ))
        }
    }
}

/// The id of the event that triggered this one, if it has one.
fn cause_of(event: &RecordedEvent) -> Option<EventId> {
    event.metadata().predecessor.as_ref()?.parse().ok()
}
