//! `/events/{position}`: one event, whole, and what stands around it: its append, its process, what triggered it
//! and what it triggered.

use std::sync::Arc;

use annals_core::{
    EventStore, LogRead, Position, Query, QueryItem, RecordedEvent, Result, StreamRead, Version, shortened,
};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use maud::{Markup, html};

use super::{Answer, Frame, answer, event_table, number, page, pretty, text_of, time};
use crate::app::App;
use crate::event_json;
use crate::links::{self, encode};
use crate::params::Params;
use crate::problem::Problem;
use crate::token::Token;

/// Most events of a process or an append that are shown.
const NEIGHBOURS: usize = 50;
/// Most bytes of data that are shown.
const DATA_BYTES: usize = 64 << 10;
/// Most own keys of the metadata that are shown, and most bytes of each.
const OWN_KEYS: usize = 50;
const OWN_BYTES: usize = 1 << 10;

/// One event.
pub(crate) async fn event(
    State(app): State<Arc<App>>,
    Path(position): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    answer(app, async |app: &App| {
        Params::of(query.as_deref()).finish()?;
        let token = position.parse::<Token>();
        let token = token.map_err(|invalid| Problem::invalid("position", invalid.problem))?;
        let position = token.position(&*app.store, "the address").await?;
        let none = || {
            let detail = format!("there is no event at position {position}");
            Problem::new(StatusCode::NOT_FOUND, "not-found", detail)
        };
        if position == Position::ZERO {
            return Err(none());
        }
        let found = app.store.read_log(LogRead::forward(position).to(position)).await?;
        let event = found.events.first().ok_or_else(none)?;
        let near = Neighbours::of(&*app.store, event).await?;
        let title = format!("Event {}", number(position.get()));
        let main = html! {
            h1 { (title) }
            p.facts {
                @if position > Position::FIRST { a rel="prev" href=(links::position(position.previous())) { "← before" } " · " }
                @if position < found.head { a rel="next" href=(links::position(position.next())) { "after →" } " · " }
                a href=(links::api_event(event)) { "JSON" }
            }
            (card(event, true))
            (near.shown(event))
        };
        let frame = Frame { app: Some(app), title: &title, here: "/", head: Some(found.head) };
        Ok(page(StatusCode::OK, &frame, &main))
    })
    .await
}

/// An event in full.
pub(super) fn card(event: &RecordedEvent, with_stream: bool) -> Markup {
    html! {
        article.event aria-label={ "Event " (event.position) } {
            h2 {
                span.type { (event.event_type) }
                @if event.schema_version != 1 { span.schema { "schema " (event.schema_version) } }
            }
            p.facts {
                @if with_stream { a.name href=(links::stream(&event.stream)) { (event.stream) } " · " }
                "version " b { (number(event.version.get())) }
                " · position " a href=(links::event(event)) { (number(event.position.get())) }
                " · recorded " (time(event.recorded_at))
                @if let Some(at) = event.occurred_at { " · occurred " (time(at)) }
            }
            @if !event.tags.is_empty() {
                p.tags {
                    @for tag in &event.tags { a.tag href={ "/?tag=" (encode(tag.as_str())) } { (tag) } " " }
                }
            }
            (data(event))
            (metadata(event))
        }
    }
}

fn data(event: &RecordedEvent) -> Markup {
    let shown = &event.data[..event.data.len().min(DATA_BYTES)];
    let is_json = event_json::is_json(&event.content_type);
    let text = match text_of(event) {
        Some(_) if is_json => pretty::json(shown, 2 * DATA_BYTES),
        Some(_) => String::from_utf8_lossy(shown).into_owned(),
        None => pretty::bytes(shown),
    };
    html! {
        @if !is_json { p.facts { (number(event.data.len() as u64)) " bytes of " (event.content_type) } }
        pre.data { code { (text) } }
        @if event.data.len() > DATA_BYTES {
            p { "These are the first " (number(DATA_BYTES as u64)) " of " (number(event.data.len() as u64)) " bytes; "
                a href=(links::api_event(event)) { "all of them" } "." }
        }
    }
}

fn metadata(event: &RecordedEvent) -> Markup {
    let metadata = &event.metadata;
    let pairs = [
        ("Process", &metadata.process),
        ("Initiator", &metadata.initiator),
        ("Predecessor", &metadata.predecessor),
        ("Trace", &metadata.trace),
    ];
    html! {
        dl {
            dt { "Id" } dd { code { (event.id) } }
            @if let Some(key) = &event.idempotency_key { dt { "Idempotency key" } dd { (key) } }
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

/// What stands around an event.
struct Neighbours {
    append: Vec<RecordedEvent>,
    process: Vec<RecordedEvent>,
    process_end: bool,
}

impl Neighbours {
    async fn of(store: &dyn EventStore, event: &RecordedEvent) -> Result<Self> {
        let mut append = store.read_log(LogRead::forward(event.append).limit(NEIGHBOURS)).await?.events;
        append.retain(|other| other.append == event.append);
        let mut this = Self { append, process: Vec::new(), process_end: true };
        if let Some(process) = &event.metadata.process {
            let item = QueryItem { process: Some(process.clone()), ..QueryItem::default() };
            let read = LogRead::forward(Position::FIRST).matching(Query::item(item)).limit(NEIGHBOURS);
            let page = store.read_log(read).await?;
            (this.process, this.process_end) = (page.events, page.end);
        }
        // What is in the same stream is most often near, so a predecessor without a process is looked for there.
        if this.process.is_empty() && event.metadata.predecessor.is_some() && event.version > Version::FIRST {
            let read = StreamRead::backward(&event.stream, event.version).limit(NEIGHBOURS);
            this.process = store.read_stream(read).await?.events;
            this.process.retain(|other| is_cause(other, event));
        }
        Ok(this)
    }

    fn shown(&self, event: &RecordedEvent) -> Markup {
        let this = Some(event.position);
        let cause: Vec<_> = self.process.iter().filter(|other| is_cause(other, event)).cloned().collect();
        let effects: Vec<_> = self.process.iter().filter(|other| is_cause(event, other)).cloned().collect();
        html! {
            @if !cause.is_empty() { section { h2 { "Predecessor" } (event_table(&cause, this)) } }
            @if !effects.is_empty() { section { h2 { "Follows from it" } (event_table(&effects, this)) } }
            @if self.append.len() > 1 { section { h2 { "Same append" } (event_table(&self.append, this)) } }
            @if let Some(process) = &event.metadata.process {
                section {
                    h2 { "Process " span.name { (process) } }
                    (event_table(&self.process, this))
                    @if !self.process_end {
                        p { a href={ "/v1/events?process=" (encode(process)) } { "All of it" } " as JSON" }
                    }
                }
            }
        }
    }
}

/// Whether one event is what triggered the other.
fn is_cause(cause: &RecordedEvent, effect: &RecordedEvent) -> bool {
    effect.metadata.predecessor.as_ref().is_some_and(|id| *id == cause.id.to_string().as_str())
}
