//! The names of the headers that the server uses, and a check for misspelt ones.
//!
//! If a misspelt `Expected-Version` were ignored, the append would be written without the check. The server
//! cannot refuse all unknown headers, because browsers and proxies add some. So it refuses a name that
//! differs from a known one by one letter or a plural ending, and every unknown name that begins with
//! `Annals-`.

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::links;
use crate::problem::Problem;

/// The request headers that change the effect or the response of a request and whose misspelling would not be
/// noticed.
const KNOWN: [&str; 7] = [
    "expected-version",
    "idempotency-key",
    "idempotency-reuse",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "last-event-id",
];
/// The prefix reserved for headers of this server. There are none yet.
const PREFIX: &str = "annals-";

/// Refuses a request with a misspelt header.
pub(crate) async fn known(request: Request, next: Next) -> Response {
    match check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(headers: &HeaderMap) -> Result<(), Problem> {
    for name in headers.keys().map(|name| name.as_str()) {
        if let Some(meant) = KNOWN.into_iter().find(|known| is_nearly(name, known)) {
            let problem = format!("is not a known header; did you mean {}?", links::header_name(meant));
            return Err(Problem::invalid(links::header_name(name), problem));
        }
        if let Some(rest) = name.strip_prefix(PREFIX) {
            let meant = KNOWN.into_iter().find(|known| rest == *known || is_nearly(rest, known));
            let meant = meant.map(links::header_name);
            let problem = match meant {
                Some(meant) => format!("is not a known header; did you mean {meant}?"),
                None => {
                    let known = KNOWN.map(links::header_name).join(", ");
                    format!(
                        "is not a known header; no header begins with `Annals-`. The known headers are {known}"
                    )
                }
            };
            return Err(Problem::invalid(links::header_name(name), problem));
        }
    }
    Ok(())
}

/// Whether the name differs from the known one by one edit, or is its plural.
fn is_nearly(name: &str, known: &str) -> bool {
    is_one_edit(name, known) || name.strip_suffix("es") == Some(known)
}

/// Whether one inserted, removed or replaced letter, or two swapped neighbours, turn one name into the other.
fn is_one_edit(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let same = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let (one, other) = (&one[same..], &other[same..]);
    match (one, other) {
        ([_, rest @ ..], _) if rest == other => true,
        (_, [_, rest @ ..]) if rest == one => true,
        ([_, rest @ ..], [_, others @ ..]) if rest == others => true,
        ([a, b, rest @ ..], [c, d, others @ ..]) => (a, b, rest) == (d, c, others),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers that browsers, proxies and clients send, from the IANA registry and from practice.
    const COMMON: &str = "accept accept-charset accept-encoding accept-language accept-ranges \
        access-control-request-headers access-control-request-method age alt-used authorization cache-control cdn-loop \
        cf-connecting-ip cf-ray cf-visitor client-ip connection content-digest content-encoding content-language content-length \
        content-md5 content-range content-type cookie date device-memory dnt downlink dpr early-data ect etag expect expires fly-client-ip \
        forwarded from front-end-https host http2-settings idempotency-key if-modified-since if-range keep-alive \
        last-modified link max-forwards origin pragma prefer priority proxy-authorization proxy-connection range referer rtt \
        save-data sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user sec-gpc \
        sec-websocket-key sec-websocket-version service-worker service-worker-navigation-preload te traceparent tracestate trailer transfer-encoding \
        true-client-ip upgrade upgrade-insecure-requests user-agent via viewport-width want-digest warning width x-amzn-trace-id x-api-key \
        x-b3-sampled x-b3-spanid x-b3-traceid x-client-ip x-cloud-trace-context x-correlation-id x-csrf-token \
        x-envoy-attempt-count x-envoy-expected-rq-timeout-ms x-envoy-external-address x-forwarded-for x-forwarded-host x-forwarded-port \
        x-forwarded-prefix x-forwarded-proto x-forwarded-server x-http-method-override x-idempotency-key x-original-url x-real-ip \
        x-request-id x-request-start x-requested-with x-scheme x-trace-id";

    fn meant(name: &str) -> Option<String> {
        let headers = [(name.parse().expect("a name"), "1".parse().expect("a value"))].into_iter().collect();
        check(&headers).err().map(|problem| problem.detail().to_owned())
    }

    #[test]
    fn a_header_that_is_known_but_for_a_letter_names_the_one_that_is_meant() {
        for (given, known) in [
            ("expected-versions", "Expected-Version"),
            ("expectedversion", "Expected-Version"),
            ("Expceted-Version", "Expected-Version"),
            ("idempotency-keys", "Idempotency-Key"),
            ("idempotency-ky", "Idempotency-Key"),
            ("idempotency_key", "Idempotency-Key"),
            ("idempotence-key", "Idempotency-Key"),
            ("idempotency-re-use", "Idempotency-Reuse"),
            ("if-matches", "If-Match"),
            ("if-mach", "If-Match"),
            ("if-non-match", "If-None-Match"),
            ("last-events-id", "Last-Event-ID"),
            ("annals-expected-version", "Expected-Version"),
            ("annals-idempotency-keys", "Idempotency-Key"),
        ] {
            let detail = meant(given);
            let names = |text: &String| text.contains(&format!("did you mean {known}?"));
            assert!(detail.as_ref().is_some_and(names), "{given}: {detail:?}");
        }
        let detail = meant("annals-experiment").expect("it begins as one of ours");
        assert!(
            detail.starts_with("Annals-Experiment is not a known header")
                && detail.contains("Expected-Version"),
            "{detail}"
        );
    }

    #[test]
    fn what_is_known_and_what_browsers_and_proxies_send_is_taken() {
        for name in COMMON.split_whitespace().chain(KNOWN) {
            assert_eq!(meant(name), None, "{name}");
        }
    }
}
