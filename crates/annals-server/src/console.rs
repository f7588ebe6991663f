//! The console: the contents of the store as pages for a browser.
//!
//! - V1  Every page is complete without JavaScript; `console.js` only adds new rows to the newest events.
//! - V2  The templates escape everything that comes from events; the content security policy allows no
//!   scripts, styles or connections but our own.
//!
//! This file is the frame around each page. The pages: `newest`, `streams`, `stream`, `event`, `sign_in`.

mod event;
mod newest;
mod pretty;
mod sign_in;
mod stream;
mod streams;

use std::sync::Arc;

use annals_core::{Position, RecordedEvent, Timestamp};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use crate::access::Access;
use crate::app::App;
use crate::links;
use crate::problem::Problem;

pub(crate) use event::event;
pub(crate) use newest::newest;
pub(crate) use sign_in::{sign_in, sign_in_first, sign_in_form, sign_out};
pub(crate) use stream::{named_stream, stream};
pub(crate) use streams::streams;

/// The content security policy: a page loads resources from this server only.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The style sheet.
pub(crate) async fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("console/console.css"))
}

/// The script that shows new events as they are appended.
pub(crate) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("console/console.js"))
}

/// The icon that browsers show beside the title and request without a link.
pub(crate) async fn icon() -> Response {
    asset("image/x-icon", include_bytes!("console/favicon.ico").as_slice())
}

fn asset(media_type: &'static str, content: impl IntoResponse) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, content).into_response()
}

/// A page, or an error page.
type Answer = Result<Response, Failed>;

/// A failed request, which becomes an error page.
pub(crate) struct Failed(Arc<App>, Access, Problem);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        problem(&self.0, Some(&self.1), &self.2)
    }
}

/// The error page for a problem.
pub(crate) fn problem(app: &App, access: Option<&Access>, problem: &Problem) -> Response {
    // A page of another site may have sent this request and may be able to read the response.
    let shown = access.filter(|_| !problem.is_foreign()).map(|access| (app, access));
    let main = html! {
        h1 { (problem.title()) }
        p.problem { (problem.detail()) }
        @if shown.is_some() { p { a href="/" { "Newest events" } " · " a href="/streams" { "Streams" } } }
    };
    let frame = Frame { shown, title: problem.title(), here: "", head: None };
    page(problem.status(), &frame, &main)
}

/// The parts of the frame that differ between pages.
struct Frame<'a> {
    /// The server and the log that the page may show; `None` if the request is not admitted.
    shown: Option<(&'a App, &'a Access)>,
    title: &'a str,
    /// Path of the entry of the navigation that the page belongs to.
    here: &'a str,
    /// Position of the newest event, if it is known.
    head: Option<Position>,
}

/// Runs a closure that makes a page, and converts a failure to an error page.
async fn answer<M>(
    app: Arc<App>,
    access: Access,
    make: impl AsyncFnOnce(&App, &Access) -> Result<M, Problem>,
) -> Answer
where
    M: IntoResponse,
{
    match make(&app, &access).await {
        Ok(made) => Ok(made.into_response()),
        Err(problem) => Err(Failed(app, access, problem)),
    }
}

/// The document with this frame and this main part.
fn page(status: StatusCode, frame: &Frame<'_>, main: &Markup) -> Response {
    let own = [("Events", "/"), ("Streams", "/streams")];
    let own = own.into_iter().filter(|_| frame.shown.is_some());
    let links = frame.shown.iter().flat_map(|(app, _)| &app.links);
    let more = links.map(|(name, path)| (name.as_str(), path.as_str()));
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (frame.title) " · Annals" }
                link rel="stylesheet" href="/console.css";
                link rel="icon" href="/favicon.ico";
                script src="/console.js" defer {}
            }
            body {
                a.skip href="#main" { "Skip to content" }
                header {
                    a.brand href="/" { "Annals" }
                    nav aria-label="Console" {
                        @for (name, path) in own.chain(more) {
                            a href=(path) aria-current=[(path == frame.here).then_some("page")] { (name) }
                        }
                    }
                    @if let Some((name, cookie)) = frame.shown.and_then(|(_, access)| access.signed_in()) {
                        (sign_in::sign_out_form(name, cookie))
                    }
                    @if let Some(head) = frame.head {
                        span.head title="Position of the newest event" { "head " b #head { (number(head.get())) } }
                    }
                }
                main #main { (main) }
                @if let Some((_, access)) = frame.shown {
                    footer {
                        span { "Log " code { (access.log.id()) } }
                        nav aria-label="Machines" {
                            a href="/openapi.json" { "OpenAPI" }
                            a href="/metrics" { "Metrics" }
                            a href="/health/ready" { "Health" }
                        }
                    }
                }
            }
        }
    };
    let headers = [
        (HeaderName::from_static("content-security-policy"), HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, Html(document.into_string())).into_response()
}

/// A number with a comma before each group of three digits.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A point in time, in UTC, to the millisecond; a tooltip shows the full precision.
fn time(at: Timestamp) -> Markup {
    let whole = at.fixed();
    let (date, clock) = whole.split_once('T').unwrap_or((&whole, ""));
    let shown = clock.get(.."13:00:00.000".len()).unwrap_or(clock);
    html! { time datetime=(whole) title=(whole) { (date) " " (shown) } }
}

/// A table of events, one per row. The row of the page's own event is marked.
fn event_table(events: &[RecordedEvent], this: Option<Position>) -> Markup {
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        th.number scope="col" { "Position" }
                        th scope="col" { "Type" }
                        th scope="col" { "Stream" }
                        th.number scope="col" { "Version" }
                        th scope="col" { "Recorded (UTC)" }
                        th scope="col" { "Data" }
                    }
                }
                tbody {
                    @for event in events {
                        tr aria-current=[(Some(event.position()) == this).then_some("true")] {
                            td.number { a href=(links::event(event)) { (number(event.position().get())) } }
                            td.name { (event.event_type()) }
                            td.name { a href=(links::stream(event.stream())) { (event.stream()) } }
                            td.number { (number(event.version().get())) }
                            td.time { (time(event.recorded_at())) }
                            td.data { code { (glance(event)) } }
                        }
                    }
                }
            }
        }
    }
}

/// The maximum number of characters of an event's data in a row.
const GLANCE_CHARACTERS: usize = 160;

/// An event's data, if it is text.
fn text_of(event: &RecordedEvent) -> Option<&str> {
    let content_type = event.content_type();
    let type_of_text = content_type.as_str().trim_start().get(..5);
    let is_text = type_of_text.is_some_and(|named| named.eq_ignore_ascii_case("text/"));
    let is_text = is_text || content_type.is_json();
    if is_text { std::str::from_utf8(event.data()).ok() } else { None }
}

/// The beginning of an event's data, on one line.
fn glance(event: &RecordedEvent) -> String {
    let Some(text) = text_of(event) else {
        return format!("{} bytes of {}", number(event.data().len() as u64), event.content_type());
    };
    let mut glance: String =
        text.chars().take(GLANCE_CHARACTERS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if glance.len() < text.len() {
        glance.push('…');
    }
    glance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_comma_before_each_three_digits() {
        for (of, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (u64::MAX, "18,446,744,073,709,551,615")]
        {
            assert_eq!(number(of), text);
        }
    }
}
