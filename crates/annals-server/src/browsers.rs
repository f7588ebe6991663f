//! Problems as HTML pages for browsers.
//!
//! A browser, after a wrong link for example, prefers `text/html` in `Accept` and gets a page. Programs
//! accept JSON or any type, and get the problem document. Below `/v1` every client gets the document.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::access::{Access, Right};
use crate::app::App;
use crate::console;
use crate::problem::Problem;

/// Converts a problem to a page if the request prefers HTML.
pub(crate) async fn pages(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_api = path == "/v1" || path.starts_with("/v1/");
    let wants_page = !is_api && prefers_html(request.headers());
    let (method, uri, headers) = (request.method().clone(), request.uri().clone(), request.headers().clone());
    let mut response = next.run(request).await;
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    if wants_page {
        if problem.is_unauthenticated() && method == Method::GET {
            let here = uri.path_and_query().map_or("/", |here| here.as_str());
            return console::sign_in_first(here);
        }
        // An admitted request gets the navigation and the id of the log.
        let access = Access::of(&app, Right::Read, &method, &headers).ok();
        let mut page = console::problem(&app, access.as_ref(), &problem);
        for (name, value) in response.headers() {
            if name != header::CONTENT_LENGTH && !page.headers().contains_key(name) {
                page.headers_mut().append(name, value.clone());
            }
        }
        response = page;
    }
    if !is_api {
        response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    }
    response
}

/// Whether `Accept` names HTML and prefers it to JSON.
fn prefers_html(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let accepted: Vec<_> = values.flat_map(|value| value.split(',')).map(accepted).collect();
    let wanted = |types: &[&str]| {
        // The most specific name of a type counts.
        types.iter().find_map(|name| accepted.iter().find(|(of, _)| of.eq_ignore_ascii_case(name)))
    };
    let Some((_, html)) = wanted(&["text/html", "application/xhtml+xml"]) else { return false };
    let any = ["application/*", "*/*"];
    let of = |name| wanted(&[name, any[0], any[1]]).map_or(0.0, |(_, quality)| *quality);
    *html > of("application/problem+json").max(of("application/json"))
}

/// An accepted media type and its quality.
fn accepted(range: &str) -> (&str, f32) {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    (name, quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefers(accept: &'static str) -> bool {
        prefers_html(&[(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect())
    }

    #[test]
    fn browsers_are_recognized_by_what_they_accept() {
        for browser in [
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
            "text/html, application/json;q=0.9",
            "Text/HTML",
            "text/html;q=0.5, */*;q=0.1",
        ] {
            assert!(prefers(browser), "{browser}");
        }
        for program in [
            "",
            "*/*",
            "application/json",
            "application/json, text/html;q=0.9",
            "text/html, application/json",
            "text/html;q=0, */*",
            "text/html;q=0",
            "text/html;q=x",
            "text/*",
            "image/avif,image/webp,*/*;q=0.8",
        ] {
            assert!(!prefers(program), "{program}");
        }
        assert!(!prefers_html(&HeaderMap::new()));
    }
}
