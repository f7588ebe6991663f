//! What a token may do and see: verbs, categories, and that no answer has a trace of the others.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{
    Append, EventId, EventStore, Expected, IdempotencyKey, MemoryStore, Metadata, NewEvent, StreamId, Tag,
    Write,
};
use annals_server::{Grant, Issued, Right, TokenFile};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Answer, HANG, Running};

/// In the name, the type, the tags, the data, the metadata and the key of every event that must not be seen.
const CANARY: &str = "CANARY7";
/// As long, and nowhere in the log.
const NOWHERE: &str = "NOWHERE";

/// A file of tokens.
pub struct Tokens {
    folder: TempDir,
    lines: String,
}

impl Tokens {
    pub fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), lines: String::new() }
    }

    pub fn add(&mut self, grant: &Grant) -> String {
        let Issued { token, line } = grant.issue().unwrap();
        self.lines.push_str(&line);
        self.write();
        token
    }

    pub fn write(&self) {
        std::fs::write(self.path(), &self.lines).unwrap();
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("tokens")
    }

    pub fn file(&self) -> TokenFile {
        TokenFile::read(self.path()).unwrap()
    }
}

pub fn grant(name: &str, read: &[&str], append: &[&str]) -> Grant {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Grant { name: name.to_owned(), read: names(read), append: names(append), ..Grant::default() }
}

fn ask(
    server: &Running,
    token: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = ureq::http::Request::builder().method(method).uri(server.url(path));
    request = request.header("authorization", format!("Bearer {token}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    server.send(request.body(body.to_owned()).unwrap())
}

fn get(server: &Running, token: &str, path: &str) -> Answer {
    ask(server, token, "GET", path, &[], "")
}

fn post(server: &Running, token: &str, path: &str, body: &Value) -> Answer {
    let json = [("content-type", "application/json")];
    ask(server, token, "POST", path, &json, &body.to_string())
}

/// A log in which every second append is of a category that must not be seen, and the ids of its events.
async fn filled(store: &dyn EventStore) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..12 {
        let hidden = |name: &str| {
            let id = EventId::from_name(format!("{name}{number}").as_bytes());
            let mut event =
                NewEvent::new(format!("secret.{CANARY}"), format!("\"{CANARY}\"")).unwrap().with_id(id);
            event = event.with_tag(Tag::new(format!("tag:{CANARY}")).unwrap());
            event = event.with_tag(Tag::new("shared").unwrap());
            let mut metadata = Metadata { process: Some("shared".into()), ..Metadata::default() };
            metadata.initiator = Some(CANARY.into());
            metadata.predecessor = Some("shared".into());
            metadata.own.insert(CANARY.into(), CANARY.into());
            event.metadata = metadata.into();
            (id, event)
        };
        let (id, event) = hidden("hidden");
        ids.push(id.to_string());
        let stream = StreamId::new(format!("other-{CANARY}")).unwrap();
        let key = IdempotencyKey::new(format!("key-{CANARY}-{number}")).unwrap();
        let append = Append { key: Some(key), ..Append::to(&stream, Expected::Any, [event]) };
        store.append(append).await.unwrap();
        // An append of both categories.
        let (id, event) = hidden("beside");
        ids.push(id.to_string());
        let mine = StreamId::new(format!("mine-{}", number % 3)).unwrap();
        let mut shown = NewEvent::new("shown", format!("{{\"number\":{number}}}")).unwrap();
        shown = shown.with_tag(Tag::new("shared").unwrap());
        shown.metadata = Metadata { process: Some("shared".into()), ..Metadata::default() }.into();
        let mut append = Append::to(&mine, Expected::Any, [shown]);
        append.writes.push(Write { stream: StreamId::new(format!("another-{CANARY}")).unwrap(), event });
        append.key = Some(IdempotencyKey::new(format!("both-{number}")).unwrap());
        store.append(append).await.unwrap();
    }
    let (stream, event) =
        (StreamId::new(format!("other-{CANARY}")).unwrap(), NewEvent::new("secret", "1").unwrap());
    ids.push(event.id.to_string());
    store.append(Append::to(&stream, Expected::Any, [event])).await.unwrap();
    ids
}

struct Narrow {
    server: Running,
    token: String,
    hidden: Vec<String>,
    _tokens: Tokens,
}

impl Narrow {
    /// A server, and a token with every verb for one category.
    fn start() -> Self {
        let store = Arc::new(MemoryStore::new());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut hidden = runtime.block_on(filled(&*store));
        hidden.push(CANARY.to_owned());
        let mut tokens = Tokens::new();
        let mine = Grant { metrics: true, backup: true, ..grant("narrow", &["mine"], &["mine"]) };
        let token = tokens.add(&mine);
        let file = tokens.file();
        let server = Running::with(store, |server| server.tokens(file));
        Self { server, token, hidden, _tokens: tokens }
    }

    /// Whether nothing of the hidden events is there.
    fn is_clean(&self, text: &str, what: &str) {
        for hidden in &self.hidden {
            assert!(!text.contains(hidden.as_str()), "{what} shows `{hidden}`: {text}");
        }
    }

    fn probe(&self, method: &str, path: &str, body: &str) -> Answer {
        let kind = if path == "/login" || path == "/logout" {
            "application/x-www-form-urlencoded"
        } else {
            "application/json"
        };
        let answer = ask(&self.server, &self.token, method, path, &[("content-type", kind)], body);
        self.is_clean(&answer.text, &format!("{method} {path} {body}"));
        for (name, value) in &answer.headers {
            self.is_clean(value.to_str().unwrap_or_default(), &format!("{name} of {method} {path}"));
        }
        answer
    }
}

/// Ways to ask, for each route of the table.
const PROBES: &[(&str, &str, &[&str])] = &[
    ("POST", "/v1/append", &[""]),
    ("POST", "/v1/streams/{stream}", &[""]),
    ("GET", "/v1/streams/{stream}", &["", "?direction=backward", "?from=2", "?to=1"]),
    ("POST", "/v1/stream", &["?name=mine-1", "?name=other-1"]),
    ("GET", "/v1/stream", &["?name=mine-1", "?name=other-1"]),
    (
        "GET",
        "/v1/streams",
        &["", "?limit=1", "?category=mine", "?category=other", "?after=a", "?after=m", "?after=other"],
    ),
    (
        "GET",
        "/v1/events",
        &[
            "",
            "?limit=1",
            "?direction=backward",
            "?direction=backward&limit=1",
            "?from=2",
            "?from=3&limit=1",
            "?after=1",
            "?after=1&limit=1",
            "?before=5",
            "?before=3",
            "?before=2",
            "?before=1",
            "?to=1",
            "?to=4",
            "?from=4&to=4",
            "?tag=shared",
            "?tag=shared&limit=1",
            "?process=shared",
            "?predecessor=shared",
            "?category=mine",
            "?category=other",
            "?type=shown",
            "?from=37",
            "?from=1000",
            "?after=36",
            "?direction=backward&to=20",
            "?to=2&direction=backward",
        ],
    ),
    ("GET", "/v1/events/live", &["?after=100", "?category=other", "?after=x"]),
    ("POST", "/v1/backup", &[""]),
    ("GET", "/health/live", &[""]),
    ("GET", "/health/ready", &[""]),
    ("GET", "/metrics", &[""]),
    ("GET", "/openapi.json", &[""]),
    (
        "GET",
        "/",
        &[
            "",
            "?tag=shared",
            "?before=9",
            "?before=2",
            "?before=3",
            "?category=other",
            "?predecessor=shared",
            "?from=37",
        ],
    ),
    ("GET", "/streams", &["", "?prefix=o", "?prefix=other-", "?prefix=mine", "?category=other", "?after=m"]),
    ("GET", "/streams/{stream}", &["", "?direction=forward"]),
    ("GET", "/stream", &["?name=mine-1", "?name=other-1"]),
    ("GET", "/events/{position}", &[""]),
    ("GET", "/login", &["", "?next=/"]),
    ("POST", "/login", &[""]),
    ("POST", "/logout", &[""]),
    ("GET", "/console.css", &[""]),
    ("GET", "/console.js", &[""]),
    ("GET", "/favicon.ico", &[""]),
];

#[test]
fn a_token_of_one_category_finds_no_trace_of_the_others_on_any_route() {
    let narrow = Narrow::start();
    let routes: BTreeSet<_> = annals_server::served().into_iter().collect();
    let probed: BTreeSet<_> = PROBES.iter().map(|&(method, path, _)| (method, path)).collect();
    assert_eq!(routes, probed, "every route is probed");
    let event = json!({"stream": "mine-1", "type": "shown", "data": 1});
    let mut shown = 0;
    for &(method, path, queries) in PROBES {
        let paths: Vec<String> = match path {
            "/v1/streams/{stream}" | "/streams/{stream}" => {
                ["mine-1", "other-1"].iter().map(|stream| path.replace("{stream}", stream)).collect()
            }
            "/events/{position}" => (0..40).map(|position| format!("/events/{position}")).collect(),
            path => vec![path.to_owned()],
        };
        for (path, query) in paths.iter().flat_map(|path| queries.iter().map(move |query| (path, query))) {
            let body = match path.as_str() {
                "/v1/append" => json!({"events": [event]}).to_string(),
                "/v1/backup" => String::new(),
                _ if method == "POST" => json!([event]).to_string(),
                _ => String::new(),
            };
            let answer = narrow.probe(method, &format!("{path}{query}"), &body);
            assert!(answer.status < 500, "{method} {path}{query}: {}", answer.text);
            shown += u32::from(answer.text.contains("mine-1"));
        }
    }
    assert!(shown > 40, "its own events are shown: {shown}");
}

#[test]
fn what_may_not_be_seen_is_answered_as_what_does_not_exist() {
    let narrow = Narrow::start();
    let ask = |method: &str, path: &str, body: &str, name: &str| {
        let (path, body) = (path.replace('#', name), body.replace('#', name));
        let kind = [("content-type", "application/json"), ("idempotency-reuse", "refuse")];
        let answer = ask(&narrow.server, &narrow.token, method, &path, &kind, &body);
        let ids = |text: &str| text.replace(name, "#");
        (answer.status, ids(&answer.text))
    };
    let event = r#"{"stream":"mine-9","type":"t","data":1}"#;
    let condition = |condition: &str| format!(r#"{{"events":[{event}],"conditions":[{condition}]}}"#);
    for (method, path, body) in [
        ("GET", "/v1/streams/other-#", String::new()),
        ("GET", "/v1/stream?name=other-#", String::new()),
        ("GET", "/streams/other-#", String::new()),
        ("GET", "/v1/events?tag=tag:#", String::new()),
        ("GET", "/v1/events?type=secret.#", String::new()),
        ("GET", "/v1/events?initiator=#", String::new()),
        ("GET", "/?tag=tag:#", String::new()),
        ("GET", "/v1/events?category=other&tag=tag:#", String::new()),
        ("GET", "/streams?prefix=other-#", String::new()),
        ("POST", "/v1/streams/other-#", r#"[{"type":"t","data":1}]"#.to_owned()),
        ("POST", "/v1/append", r##"{"events":[{"stream":"other-#","type":"t","data":1}]}"##.to_owned()),
        ("POST", "/v1/append", condition(r##"{"stream":"other-#","expected":"none"}"##)),
        ("POST", "/v1/append", condition(r##"{"stream":"other-#","expected":"exists"}"##)),
        ("POST", "/v1/append", condition(r##"{"query":[{"tags":["tag:#"]}],"after":0}"##)),
        ("POST", "/v1/append", condition(r##"{"query":[],"after":0}"##)),
        ("POST", "/v1/append", condition(r##"{"query":[{"category":"other","tags":["tag:#"]}],"after":0}"##)),
        (
            "POST",
            "/v1/append",
            condition(r##"{"query":[{"category":"mine"},{"types":["secret.#"]}],"after":0}"##),
        ),
    ] {
        let (there, nowhere) = (ask(method, path, &body, CANARY), ask(method, path, &body, NOWHERE));
        assert_eq!(there, nowhere, "{method} {path} {body}");
    }
    let id = &narrow.hidden[0];
    for path in [format!("/v1/events?id={id}"), format!("/?id={id}")] {
        let none = path.replace(id, "11111111-2222-3333-4444-555555555555");
        let (there, nowhere) =
            (get(&narrow.server, &narrow.token, &path), get(&narrow.server, &narrow.token, &none));
        assert_eq!(
            there.text.replace(id, "#"),
            nowhere.text.replace("11111111-2222-3333-4444-555555555555", "#")
        );
    }
    // Places that name a hidden event are those of another history.
    for path in [
        "/v1/events?from=1@#",
        "/v1/events?after=1@#",
        "/v1/events/live?after=1@#",
        "/events/1@#",
        "/?from=1@#",
    ] {
        assert_eq!(get(&narrow.server, &narrow.token, &path.replace('#', id)).status, 409, "{path}");
    }
    assert_eq!(narrow.server.store_head(), 37, "nothing was written");
}

#[test]
fn a_used_key_reveals_nothing_of_a_hidden_append() {
    let narrow = Narrow::start();
    for key in [format!("key-{CANARY}-3"), "both-3".to_owned()] {
        for reuse in ["refuse", "original"] {
            let headers = [
                ("content-type", "application/json"),
                ("idempotency-key", &*key),
                ("idempotency-reuse", reuse),
            ];
            let event = r#"[{"type":"t","data":1}]"#;
            let answer = ask(&narrow.server, &narrow.token, "POST", "/v1/streams/mine-8", &headers, event);
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (422, &json!("reused")),
                "{key}: {}",
                answer.text
            );
            let text = answer.text.replace(&key, "");
            narrow.is_clean(&text, &key);
            if key.contains(CANARY) || reuse == "original" {
                for member in ["first_position", "stream", "differs"] {
                    assert_eq!(answer.json()[member], Value::Null, "{key}, {reuse}: {}", answer.text);
                }
            }
        }
    }
    let own = [("content-type", "application/json"), ("idempotency-key", "own")];
    for status in [201, 200] {
        let event = r#"[{"type":"t","data":1}]"#;
        let answer = ask(&narrow.server, &narrow.token, "POST", "/v1/streams/mine-8", &own, event);
        assert_eq!(answer.status, status, "{}", answer.text);
    }
}

#[test]
fn pages_of_a_log_with_gaps_show_every_event_once() {
    let narrow = Narrow::start();
    for filter in ["", "&tag=shared", "&type=shown", "&process=shared"] {
        for limit in [1, 2, 5, 100] {
            for direction in ["forward", "backward"] {
                let mut numbers = Vec::new();
                let mut place = String::new();
                loop {
                    let path = format!("/v1/events?direction={direction}&limit={limit}{filter}{place}");
                    let page = narrow.probe("GET", &path, "");
                    assert_eq!(page.status, 200, "{path}: {}", page.text);
                    let page = page.json();
                    assert_eq!(page["head"], 35, "{path}: {page}");
                    numbers.extend(
                        page["events"]
                            .as_array()
                            .unwrap()
                            .iter()
                            .map(|event| event["data"]["number"].clone()),
                    );
                    let (name, next) = if direction == "forward" {
                        ("after", &page["after"])
                    } else {
                        ("before", &page["before"])
                    };
                    place = format!("&{name}={}", next.as_str().unwrap());
                    if page["end"] == true {
                        break;
                    }
                }
                if direction == "backward" {
                    numbers.reverse();
                }
                let all: Vec<_> = (0..12).map(Value::from).collect();
                assert_eq!(numbers, all, "{direction}, {limit}, {filter}");
            }
        }
    }
}

#[test]
fn a_live_stream_shows_the_events_of_a_token_and_no_others() {
    let narrow = Narrow::start();
    let authorization = format!("authorization: Bearer {}\r\n", narrow.token);
    for filter in ["", "&tag=shared", "&process=shared"] {
        let mut messages = narrow.server.follow(&format!("/v1/events/live?after=0{filter}"), &authorization);
        for number in 0..12 {
            let (position, event) = messages.event();
            narrow.is_clean(&event.to_string(), "the live stream");
            assert_eq!((position, &event["data"]["number"]), (3 * number + 2, &json!(number)));
        }
        // A place between its events, as a number.
        let mut again = narrow.server.follow(&format!("/v1/events/live?after=30{filter}"), &authorization);
        assert_eq!(again.event().0, 32);
    }
    let mut live = narrow.server.follow("/v1/events/live?category=mine", &authorization);
    let hidden = json!([{"type": "t", "data": CANARY}]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let stream = StreamId::new("other-1").unwrap();
    let event = NewEvent::new("t", hidden.to_string()).unwrap();
    runtime.block_on(narrow.server.store.append(Append::to(stream, Expected::Any, [event]))).unwrap();
    assert_eq!(
        post(&narrow.server, &narrow.token, "/v1/streams/mine-1", &json!([{"type": "own", "data": 1}]))
            .status,
        201
    );
    let (_, event) = live.event();
    assert_eq!(event["type"], "own");
}

#[test]
fn a_conflict_shows_the_unseen_events_of_the_categories_of_the_token() {
    let narrow = Narrow::start();
    let event = json!({"stream": "mine-0", "type": "t", "data": 1});
    for condition in [
        json!({"stream": "mine-0", "expected": 1}),
        json!({"query": [{"category": "mine", "tags": ["shared"]}], "after": 3}),
        json!({"query": [{"category": "mine"}], "after": 3}),
    ] {
        let answer = post(
            &narrow.server,
            &narrow.token,
            "/v1/append",
            &json!({"events": [event], "conditions": [condition]}),
        );
        assert_eq!(answer.status, 409, "{}", answer.text);
        narrow.is_clean(&answer.text, "the conflict");
        assert!(!answer.json()["violations"][0]["unseen"].as_array().unwrap().is_empty());
    }
}

#[test]
fn every_route_wants_its_right_and_says_which() {
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let mut tokens = Tokens::new();
    let reader = tokens.add(&grant("reader", &["*"], &[]));
    let writer = tokens.add(&grant("writer", &[], &["*"]));
    let counter = tokens.add(&Grant { metrics: true, ..grant("counter", &[], &[]) });
    let keeper = tokens.add(&Grant { backup: true, ..grant("keeper", &[], &[]) });
    let file = tokens.file();
    let server = Running::with(store, |server| server.tokens(file));
    for (method, path, right) in annals_server::rights() {
        let path = path.replace("{stream}", "a-1").replace("{position}", "1");
        let plain =
            ureq::http::Request::builder().method(method).uri(server.url(&path)).body(String::new()).unwrap();
        let unknown = ask(&server, "annals_unknown", method, &path, &[], "");
        let without = server.send(plain);
        if right == Right::Open {
            assert!(![401].contains(&without.status), "{method} {path}: {}", without.text);
            continue;
        }
        for refused in [&without, &unknown] {
            assert_eq!(refused.problem().0, 401, "{method} {path}: {}", refused.text);
            assert_eq!(refused.header("www-authenticate"), "Bearer realm=\"annals\"");
        }
        for (token, of) in [
            (&reader, Right::Read),
            (&writer, Right::Append),
            (&counter, Right::Metrics),
            (&keeper, Right::Backup),
        ] {
            if path.ends_with("/live") && of == right {
                continue;
            }
            let answer = ask(&server, token, method, &path, &[("content-type", "application/json")], "");
            assert_eq!(answer.status == 403, of != right, "{method} {path} by {of:?}: {}", answer.text);
            assert_ne!(answer.status, 401);
        }
    }
    let written = post(&server, &writer, "/v1/streams/a-1", &json!([{"type": "t", "data": 1}]));
    assert_eq!(written.status, 201, "{}", written.text);
    let expected = [("content-type", "application/json"), ("expected-version", "1")];
    let asked = ask(&server, &writer, "POST", "/v1/streams/a-1", &expected, r#"[{"type":"t","data":1}]"#);
    assert_eq!(asked.status, 403, "a condition is a question: {}", asked.text);
}

#[test]
fn health_says_nothing_of_the_log_without_a_token() {
    let narrow = Narrow::start();
    let ready = narrow.server.get("/health/ready");
    assert_eq!((ready.status, ready.text.as_str()), (200, r#"{"status":"ready"}"#));
    for path in ["/health/live", "/login", "/none", "/openapi.json"] {
        for answer in [narrow.server.get(path), narrow.server.browse(path)] {
            narrow.is_clean(&answer.text, path);
            assert!(!answer.text.contains(&narrow.server.store.id().to_string()), "{path}: {}", answer.text);
        }
    }
}

#[test]
fn a_changed_file_is_taken_and_a_bad_one_changes_nothing() {
    let mut tokens = Tokens::new();
    let first = tokens.add(&grant("first", &["*"], &["*"]));
    let file = tokens.file();
    let server = Running::with(Arc::new(MemoryStore::new()), |server| server.tokens(file));
    post(&server, &first, "/v1/streams/a-1", &json!([{"type": "t", "data": 1}]));
    let mut live = server.follow("/v1/events/live?after=0", &format!("authorization: Bearer {first}\r\n"));
    assert_eq!(live.event().0, 1);
    let eventually = |token: &str, status: u16| {
        let begun = Instant::now();
        while get(&server, token, "/v1/events").status != status {
            assert!(begun.elapsed() < HANG);
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    std::fs::write(tokens.path(), format!("{}{{broken\n", tokens.lines)).unwrap();
    let second = tokens.add(&grant("second", &["*"], &[]));
    eventually(&second, 200);
    assert_eq!(get(&server, &first, "/v1/events").status, 200);
    std::fs::write(tokens.path(), "{broken\n").unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(get(&server, &second, "/v1/events").status, 200, "the tokens before stay in force");
    tokens.lines =
        tokens.lines.lines().filter(|line| !line.contains("first")).map(|line| format!("{line}\n")).collect();
    tokens.write();
    eventually(&first, 401);
    assert_eq!(live.next(), None, "a live stream ends with its token");
    assert_eq!(get(&server, &second, "/v1/events").status, 200);
}

#[test]
fn a_line_that_is_wrong_is_named() {
    let good = Grant { metrics: true, ..grant("good", &[], &[]) }.issue().unwrap().line;
    let other = |text: &str, by: &str| good.replacen(text, by, 1);
    for (line, problem) in [
        ("{".to_owned(), "line 3: EOF"),
        (other("\"metrics\"", "\"metrix\""), "unknown field `metrix`"),
        (other("\"sha256\":\"", "\"sha256\":\"0"), "`sha256` must be"),
        (other("\"metrics\":true", "\"metrics\":false"), "gives no right"),
        (other("\"metrics\":true", "\"read\":\"all\""), "`read` must be"),
        (other("\"metrics\":true", "\"read\":[\"*\"]"), "is \"*\", not a list"),
        (other("\"metrics\":true", "\"read\":[\"order-1\"]"), "before the first `-`"),
        (other("\"metrics\":true", "\"metrics\":true,\"tenant\":\"a\""), "`tenant` is kept"),
        (other("good", ""), "`name` must have"),
        (good.clone(), "is on line 2 already"),
        (other("good", "same"), "the token is that of line 2"),
    ] {
        let refused = annals_server::check_tokens(&format!("# tokens\n{good}{line}\n")).unwrap_err();
        assert!(refused.starts_with("line 3: ") && refused.contains(problem), "{line}: {refused}");
    }
    assert_eq!(annals_server::check_tokens(&format!("\n# tokens\n{good}")), Ok(()));
}

#[test]
fn the_console_keeps_a_token_in_a_cookie_and_its_forms_are_its_own() {
    let narrow = Narrow::start();
    let server = &narrow.server;
    let browse = |method: &str, path: &str, cookies: &str, body: &str| {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\naccept: text/html\r\nconnection: close\r\n"
        );
        if !cookies.is_empty() {
            request += &format!("cookie: {cookies}\r\n");
        }
        if method == "POST" {
            request += "origin: http://localhost:";
            request +=
                &format!("{}\r\ncontent-type: application/x-www-form-urlencoded\r\n", server.address.port());
            request = request
                .replace("host: localhost\r\n", &format!("host: localhost:{}\r\n", server.address.port()));
        }
        request += &format!("content-length: {}\r\n\r\n{body}", body.len());
        let mut socket = server.connect();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };
    let away = browse("GET", "/streams?prefix=m", "", "");
    assert!(
        away.starts_with("HTTP/1.1 303") && away.contains("location: /login?next=%2Fstreams%3Fprefix%3Dm"),
        "{away}"
    );
    let page = browse("GET", "/login?next=/streams", "", "");
    let between = |text: &str, before: &str, after: &str| {
        let rest = text.split_once(before).unwrap_or_else(|| panic!("no `{before}`: {text}")).1;
        rest.split_once(after).unwrap().0.to_owned()
    };
    let bound = between(&page, "set-cookie: ", ";");
    assert!(page.contains("HttpOnly") && page.contains("SameSite=Strict"), "{page}");
    let form = between(&page, "name=\"form\" value=\"", "\"");
    let body = format!("form={form}&next=/streams&token={}", narrow.token);
    let foreign = browse("POST", "/login", "", &body);
    assert!(foreign.starts_with("HTTP/1.1 403"), "a form without its cookie: {foreign}");
    let unknown = browse("POST", "/login", &bound, &format!("form={form}&next=/&token=annals_x"));
    assert!(unknown.starts_with("HTTP/1.1 401") && !unknown.contains("annals-token="), "{unknown}");
    let signed = browse("POST", "/login", &bound, &body);
    assert!(signed.starts_with("HTTP/1.1 303") && signed.contains("location: /streams\r\n"), "{signed}");
    let cookie = between(&signed, "set-cookie: ", ";");
    assert!(signed.contains("HttpOnly; Path=/; SameSite=Lax") && !signed.contains("Secure"), "{signed}");
    let streams = browse("GET", "/streams", &cookie, "");
    assert!(streams.contains("mine-1") && streams.contains("Sign out"), "{streams}");
    narrow.is_clean(&streams, "the page of streams");
    assert!(!streams.contains(&narrow.token), "the token is not on the page");
    let live = browse("GET", "/v1/events/live?after=x", &cookie, "");
    assert!(live.starts_with("HTTP/1.1 400"), "the cookie lets a live stream in: {live}");
    let append = format!(
        "POST /v1/streams/mine-1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncookie: {cookie}\r\n\
         content-type: application/json\r\ncontent-length: 23\r\n\r\n[{{\"type\":\"t\",\"data\":1}}]"
    );
    assert!(server.raw(append.as_bytes()).starts_with("HTTP/1.1 401"), "the cookie counts for reads only");
    let out = between(&streams, "name=\"form\" value=\"", "\"");
    assert!(browse("POST", "/logout", &cookie, "form=x").starts_with("HTTP/1.1 403"));
    let gone = browse("POST", "/logout", &cookie, &format!("form={out}"));
    assert!(
        gone.starts_with("HTTP/1.1 303") && gone.contains("annals-token=; ") && gone.contains("Max-Age=0"),
        "{gone}"
    );
}
