//! `/login` and `/logout`: a person enters a token, and the browser keeps it in a cookie that no script can
//! read.
//!
//! Each form has a CSRF token: a hash of a cookie that other sites cannot read.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Answer, Frame, answer, page};
use crate::access::{Access, COOKIE, cookie};
use crate::app::App;
use crate::params::Params;
use crate::problem::Problem;

/// The cookie to which the sign-in form is bound.
const FORM_COOKIE: &str = "annals-form";
/// The maximum size of a form in bytes.
const FORM_BYTES_MAX: usize = 8 << 10;
/// How long a form may take to arrive.
const FORM_MAX: Duration = Duration::from_secs(10);

/// The sign-in form.
pub(crate) async fn sign_in_form(
    State(app): State<Arc<App>>,
    access: Access,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    answer(app, access, async |app: &App, access: &Access| {
        let mut params = Params::of(query.as_deref());
        let next = params.text("next")?.unwrap_or_default();
        params.finish()?;
        if app.gate.is_open() {
            let main =
                html! { h1 { "Sign in" } p { "This server has no tokens, so signing in is not needed." } };
            let frame = Frame { shown: Some((app, access)), title: "Sign in", here: "", head: None };
            return Ok(page(StatusCode::OK, &frame, &main));
        }
        form(app, access, &headers, &next, None)
    })
    .await
}

/// Signs in: the token becomes a cookie.
pub(crate) async fn sign_in(
    State(app): State<Arc<App>>,
    access: Access,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    answer(app, access, async |app: &App, access: &Access| {
        let mut fields = posted(app, query.as_deref(), &headers, body, FORM_COOKIE).await?;
        let token = fields.text("token")?.unwrap_or_default();
        let next = fields.text("next")?.unwrap_or_default();
        fields.finish()?;
        if app.gate.find(token.trim()).is_none() {
            return form(app, access, &headers, &next, Some("This token is not known."));
        }
        let kept = set_cookie(app, &headers, COOKIE, token.trim(), "Path=/; SameSite=Lax");
        Ok(([(header::SET_COOKIE, kept)], see_other(own_path(&next))).into_response())
    })
    .await
}

/// Signs out: the browser removes the cookie.
pub(crate) async fn sign_out(
    State(app): State<Arc<App>>,
    access: Access,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    answer(app, access, async |app: &App, _: &Access| {
        posted(app, query.as_deref(), &headers, body, COOKIE).await?.finish()?;
        let gone = set_cookie(app, &headers, COOKIE, "", "Path=/; SameSite=Lax; Max-Age=0");
        Ok(([(header::SET_COOKIE, gone)], see_other("/login")).into_response())
    })
    .await
}

/// The sign-out form, for a page that was admitted by the cookie.
pub(super) fn sign_out_form(name: &str, token: &str) -> Markup {
    html! {
        form.sign-out method="post" action="/logout" {
            input type="hidden" name="form" value=(secret_of(token));
            span { (name) " " }
            button type="submit" { "Sign out" }
        }
    }
}

/// A redirect to the sign-in form, which leads back to this URL.
pub(crate) fn sign_in_first(path_and_query: &str) -> Response {
    see_other(&format!("/login?next={}", crate::links::encode(path_and_query)))
}

fn form(
    app: &App,
    access: &Access,
    headers: &HeaderMap,
    next: &str,
    refused: Option<&str>,
) -> Result<Response, Problem> {
    let known = cookie(headers, FORM_COOKIE).filter(|value| value.len() == 32);
    let bound = match known {
        Some(value) => value.to_owned(),
        None => random()?,
    };
    let main = html! {
        h1 { "Sign in" }
        @if let Some(refused) = refused { p.problem role="alert" { (refused) } }
        form.sign-in method="post" action="/login" {
            input type="hidden" name="form" value=(secret_of(&bound));
            input type="hidden" name="next" value=(own_path(next));
            label { "Token " input name="token" type="password" autocomplete="current-password" required autofocus; }
            button type="submit" { "Sign in" }
        }
        p { "A token is made by " code { "annals token" } " on the server." }
    };
    let status = if refused.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
    let shown = access.token().map(|_| (app, access));
    let mut response = page(status, &Frame { shown, title: "Sign in", here: "", head: None }, &main);
    let kept = set_cookie(app, headers, FORM_COOKIE, &bound, "Path=/login; SameSite=Strict");
    let kept = kept.parse().expect("the text is ASCII without control characters");
    response.headers_mut().append(header::SET_COOKIE, kept);
    Ok(response)
}

/// Reads the fields of a posted form, and checks that this server made it for the browser with this cookie.
async fn posted(
    app: &App,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Body,
    bound_to: &str,
) -> Result<Params, Problem> {
    Params::of(query).finish()?;
    if app.gate.is_open() {
        let detail = "this server has no tokens, so there is no sign-in";
        return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", detail));
    }
    let mut fields = fields(headers, body).await?;
    let given = fields.text("form")?.unwrap_or_default();
    let is_ours = cookie(headers, bound_to)
        .is_some_and(|bound| secret_of(bound).as_bytes().ct_eq(given.as_bytes()).into());
    if is_ours {
        return Ok(fields);
    }
    let detail = "the form is not one of this server, or too old; load the page again";
    Err(Problem::new(StatusCode::FORBIDDEN, "foreign-form", detail))
}

/// Reads the fields of a form.
async fn fields(headers: &HeaderMap, body: Body) -> Result<Params, Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let detail = format!("the content type is `{given}`; send application/x-www-form-urlencoded");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail));
    }
    let received = tokio::time::timeout(FORM_MAX, axum::body::to_bytes(body, FORM_BYTES_MAX)).await;
    let too_slow = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "the form did not come in time");
    let too_large = |_| {
        let detail = format!("the form is larger than {FORM_BYTES_MAX} bytes, or broke off");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    };
    let bytes = received.map_err(too_slow)?.map_err(too_large)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Problem::invalid("body", "is not UTF-8"))?;
    Ok(Params::of(Some(text)))
}

/// The CSRF token of a form that is bound to this cookie.
fn secret_of(cookie: &str) -> String {
    let hash = Sha256::new().chain_update(b"form of annals\n").chain_update(cookie.as_bytes()).finalize();
    hex(&hash)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random() -> Result<String, Problem> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| {
        let detail = format!("the system returned no random numbers: {error}");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    })?;
    Ok(hex(&random))
}

/// A cookie that no script can read. It is marked `Secure` if this request came over TLS.
fn set_cookie(app: &App, headers: &HeaderMap, name: &str, value: &str, more: &str) -> String {
    // Behind a proxy that terminates TLS, the browser's `Origin` is `https`.
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default();
    let secure = if app.has_tls || origin.starts_with("https://") { "; Secure" } else { "" };
    format!("{name}={value}; HttpOnly; {more}{secure}")
}

/// The path if it is on this server, `/` otherwise: a link to `/login` must not redirect to another site.
fn own_path(next: &str) -> &str {
    let is_plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if next.starts_with('/') && !next.starts_with("//") && is_plain { next } else { "/" }
}

fn see_other(path: &str) -> Response {
    let headers = [(header::LOCATION, path.to_owned()), (header::CACHE_CONTROL, "no-store".to_owned())];
    (StatusCode::SEE_OTHER, headers).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signing_in_leads_to_paths_of_this_server_only() {
        for path in ["/", "/streams/a-1?before=3", "/events/7"] {
            assert_eq!(own_path(path), path);
        }
        for elsewhere in [
            "",
            "https://elsewhere.example",
            "//elsewhere.example",
            "/\\elsewhere.example",
            "/a\nb",
            "streams",
        ] {
            assert_eq!(own_path(elsewhere), "/", "{elsewhere}");
        }
    }
}
