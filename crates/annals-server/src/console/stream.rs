//! `/streams/{stream}`: one stream's events with their data and metadata, newest first.

use std::sync::Arc;

use annals_core::{Direction, StreamRead, Version};
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use maud::html;

use super::event::card;
use super::{Answer, Failed, Frame, answer, number, page};
use crate::access::Access;
use crate::app::App;
use crate::links::{self, encode};
use crate::params::{self, Params, StreamInPath};
use crate::problem::Problem;
use crate::token;

/// The number of events on a page: each is shown in full.
const PAGE_EVENTS: usize = 20;

/// A page of the stream given by the parameter `name`.
pub(crate) async fn named_stream(app: State<Arc<App>>, access: Access, RawQuery(query): RawQuery) -> Answer {
    match params::named_stream(query.as_deref()) {
        Ok((name, query)) => stream(app, access, name, query).await,
        Err(problem) => Err(Failed(app.0, access, problem)),
    }
}

/// A page of one stream.
pub(crate) async fn stream(
    State(app): State<Arc<App>>,
    access: Access,
    StreamInPath(stream): StreamInPath,
    RawQuery(query): RawQuery,
) -> Answer {
    answer(app, access, async |app: &App, access: &Access| {
        let mut params = Params::of(query.as_deref());
        let direction = params.direction_or(Direction::Backward)?;
        let start = params.start(direction)?;
        params.finish()?;
        access.rights.read_stream(&stream)?;
        let first_page = !start.is_given();
        let from = start.version(&*access.log, &stream).await?;
        let read = StreamRead { direction, ..StreamRead::forward(&stream, from).limit(PAGE_EVENTS) };
        let found = access.log.read_stream(read).await?;
        if found.version == Version::ZERO {
            let detail = format!("there is no stream `{stream}`");
            return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", detail));
        }
        let (beside, reached) = match direction {
            Direction::Forward => ("after", found.next.previous().min(found.version)),
            Direction::Backward => ("before", found.next.next().min(found.version)),
        };
        let reached = token::of_stream(&*access.log, &stream, reached, &found.events).await?;
        let head = access.log.head().await?;
        let (here, category) = (links::stream(stream.as_str()), stream.category());
        let (way, other, other_name) = match direction {
            Direction::Forward => ("forward", "backward", "Newest first"),
            Direction::Backward => ("backward", "forward", "Oldest first"),
        };
        let main = html! {
            h1 { "Stream " span.name { (stream) } }
            p.facts {
                "Version " b { (number(found.version.get())) }
                " · category " a href={ "/streams?category=" (encode(category.as_str())) } { (category) }
                " · " a href=(links::with(&here, "direction", other)) { (other_name) }
                " · " a href=(links::api_stream(&stream)) { "JSON" }
            }
            @for event in &found.events { (card(event, false)) }
            nav.pages aria-label="Pages" {
                @if !first_page { a href=(links::with(&here, "direction", way)) { "First page" } }
                @if !found.end {
                    a rel="next" href=(links::with(&links::with(&here, "direction", way), beside, reached)) { "More" }
                }
            }
        };
        let frame = Frame { shown: Some((app, access)), title: stream.as_str(), here: "/streams", head: Some(head) };
        Ok(page(StatusCode::OK, &frame, &main))
    })
    .await
}
