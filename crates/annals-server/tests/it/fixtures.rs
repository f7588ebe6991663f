//! What released versions have answered: the requests of a client of then are answered now as they were, with
//! all fields that it knows. Where this fails, clients of users are about to break: `fixtures/README.md` says
//! what to do.
//!
//! `write` writes them.

mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_core::{Limits, MemoryStore, TestClock};
use annals_testservers::fixtures;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::support::Running;

/// What was said between a client and a server.
#[derive(Serialize, Deserialize, Debug)]
struct Conversation {
    /// In order, from an empty log on.
    exchanges: Vec<Exchange>,
    /// The ids and the events that come live then, from the first event on.
    live: Vec<(u64, Value)>,
}

#[derive(Serialize, Deserialize, Debug, Default)]
struct Exchange {
    method: String,
    path: String,
    /// Those of the request.
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
    status: u16,
    /// Those of the answer that mean something to a client: `content-type`, `etag`, `location`.
    answered: BTreeMap<String, String>,
    answer: Value,
}

impl Exchange {
    /// The same request, with what this server answers.
    fn again(&self, server: &Running) -> Self {
        let request = ureq::http::Request::builder().method(self.method.as_str()).uri(server.url(&self.path));
        let request = self.headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        let body = self.body.as_ref().map(Value::to_string).unwrap_or_default();
        let answer = server.send(request.body(body).unwrap());
        let named = ["content-type", "etag", "location"]
            .map(|name| (name.to_owned(), answer.header(name).to_owned()));
        Self {
            method: self.method.clone(),
            path: self.path.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            status: answer.status,
            answered: named.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
            answer: answer.json(),
        }
    }
}

/// A server on an empty log whose clock stands.
fn server() -> Running {
    let clock = Arc::new(TestClock::at("2026-12-01T12:00:00.000001Z".parse().unwrap()));
    Running::over(Arc::new(MemoryStore::with(Limits::default(), clock)))
}

/// The next `count` events of the live stream.
fn live(server: &Running, count: usize) -> Vec<(u64, Value)> {
    let mut messages = server.follow("/v1/events/live?after=0", "");
    // The place where it begins.
    messages.next();
    (0..count).map(|_| messages.event()).collect()
}

/// Panics if something of `then` is missing in `now` or has another value. There may be more.
#[track_caller]
fn is_kept(then: &Value, now: &Value, lost: &str) {
    match (then, now) {
        (Value::Object(then), Value::Object(fields)) => {
            for (name, value) in then {
                let kept = fields.get(name);
                is_kept(value, kept.unwrap_or_else(|| panic!("`{name}` is not in {now}: {lost}")), lost);
            }
        }
        (Value::Array(then), Value::Array(values)) => {
            assert_eq!(then.len(), values.len(), "{now}: {lost}");
            then.iter().zip(values).for_each(|(then, now)| is_kept(then, now, lost));
        }
        _ => assert_eq!(then, now, "{lost}"),
    }
}

#[test]
fn a_client_of_a_release_is_answered_as_then() {
    for folder in fixtures::of_releases("http") {
        let then = std::fs::read(folder.join("exchanges.json")).unwrap();
        let then: Conversation = serde_json::from_slice(&then).unwrap();
        let server = server();
        for then in &then.exchanges {
            let lost = fixtures::lost(&format!("the answer to {} {}", then.method, then.path), &folder);
            let now = then.again(&server);
            assert_eq!((now.status, &now.answered), (then.status, &then.answered), "{}: {lost}", now.answer);
            is_kept(&then.answer, &now.answer, &lost);
        }
        let lost = fixtures::lost("what comes live", &folder);
        for ((then_id, then), (now_id, now)) in then.live.iter().zip(live(&server, then.live.len())) {
            assert_eq!(*then_id, now_id, "{lost}");
            is_kept(then, &now, &lost);
        }
    }
}
