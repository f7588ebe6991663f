//! What is brought back says which history it belongs to, so a restore is noticed.

use std::sync::Arc;

use annals_core::{Append, EventId, EventStore as _, Expected, MemoryStore, NewEvent, StreamId};
use serde_json::{Value, json};

use crate::support::{Answer, Lossy, Running};

/// A log with one event that all of these logs have, and then one with this name.
fn log(second: &str) -> Running {
    let store = Arc::new(MemoryStore::new());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for name in ["common", second] {
        let id = EventId::from_name(name.as_bytes());
        let event = NewEvent::new("t", format!("\"{name}\"")).unwrap().with_id(id);
        let append = Append::to(StreamId::new("a-1").unwrap(), Expected::Any, [event]);
        runtime.block_on(store.append(append)).unwrap();
    }
    Running::over(store)
}

fn id(name: &str) -> EventId {
    EventId::from_name(name.as_bytes())
}

fn with(server: &Running, path: &str, header: (&str, &str)) -> Answer {
    let request = ureq::http::Request::get(server.url(path)).header(header.0, header.1);
    server.send(request.body(String::new()).unwrap())
}

fn is_refused(answer: &Answer, field: &str) {
    assert_eq!(answer.problem(), (409, "other-history".into(), Some(field.into())), "{}", answer.text);
}

fn positions(page: &Value) -> Vec<u64> {
    page["events"].as_array().unwrap().iter().map(|event| event["position"].as_u64().unwrap()).collect()
}

#[test]
fn an_etag_names_the_history() {
    let (before, after) = (log("before the restore"), log("after the restore"));
    let tag = before.get("/v1/streams/a-1").header("etag").to_owned();
    assert_eq!(tag, format!("\"2@{}\"", id("before the restore")));
    assert_eq!(with(&before, "/v1/streams/a-1", ("if-none-match", &tag)).status, 304);
    let new = with(&after, "/v1/streams/a-1", ("if-none-match", &tag));
    assert_eq!((new.status, new.header("etag") == tag), (200, false));
    // Also of a page that does not hold the newest event, and of a stream that does not exist.
    for path in ["/v1/streams/a-1?limit=1", "/v1/streams/none"] {
        let tag = before.get(path).header("etag").to_owned();
        assert_eq!(with(&before, path, ("if-none-match", &tag)).status, 304, "{path}");
        assert_eq!(with(&after, path, ("if-none-match", &tag)).status, 200, "{path}");
    }
}

#[test]
fn an_etag_can_be_expected() {
    let (before, after) = (log("before the restore"), log("after the restore"));
    let tag = before.get("/v1/streams/a-1").header("etag").to_owned();
    let event = r#"[{"type":"t","data":3}]"#;
    is_refused(&after.post("/v1/streams/a-1", &[("expected-version", &tag)], event), "Expected-Version");
    let written = before.post("/v1/streams/a-1", &[("expected-version", &tag)], event);
    assert_eq!(written.status, 201, "{}", written.text);
    // It holds still, but the stream has moved on: a conflict, as with a number.
    let stale = before.post("/v1/streams/a-1", &[("expected-version", &tag)], event);
    assert_eq!(stale.problem().1, "conflict");
    let next = written.header("etag").to_owned();
    assert_eq!(before.post("/v1/streams/a-1", &[("expected-version", &next)], event).status, 201);
    let weak = format!("W/{}", before.get("/v1/streams/a-1").header("etag"));
    assert_eq!(before.post("/v1/streams/a-1", &[("expected-version", &weak)], event).status, 201);
    assert_eq!(before.post("/v1/streams/a-1", &[("expected-version", &weak)], event).problem().1, "conflict");
}

#[test]
fn an_etag_of_another_history_is_no_match() {
    let (before, after) = (log("before the restore"), log("after the restore"));
    let tag = before.get("/v1/streams/a-1").header("etag").to_owned();
    let event = r#"[{"type":"t","data":3}]"#;
    let refused = after.post("/v1/streams/a-1", &[("if-match", &tag)], event);
    assert_eq!(refused.problem(), (412, "other-history".into(), Some("If-Match".into())), "{}", refused.text);
    let both = format!("{tag}, {}", after.get("/v1/streams/a-1").header("etag"));
    assert_eq!(after.post("/v1/streams/a-1", &[("if-match", &both)], event).status, 201);
    // Of a stream that was empty in another log.
    let empty = before.get("/v1/streams/new").header("etag").to_owned();
    let refused = after.post("/v1/streams/new", &[("if-match", &empty)], event);
    assert_eq!((refused.status, refused.problem().1), (412, "other-history".into()));
    assert_eq!(before.post("/v1/streams/new", &[("if-match", &empty)], event).status, 201);
}

#[test]
fn conditions_may_name_their_history() {
    let (before, after) = (log("before the restore"), log("after the restore"));
    let token = format!("2@{}", id("before the restore"));
    for (condition, field) in [
        (json!({"query": [{"types": ["none"]}], "after": token}), "conditions[1].after"),
        (json!({"stream": "a-1", "expected": token}), "conditions[1].expected"),
    ] {
        let any = json!({"stream": "b", "expected": "any"});
        let body =
            json!({"events": [{"stream": "b", "type": "t", "data": 1}], "conditions": [any, condition]});
        is_refused(&after.post("/v1/append", &[], &body.to_string()), field);
        assert_eq!(before.post("/v1/append", &[], &body.to_string()).status, 201);
    }
    assert_eq!(after.get("/v1/events").json()["head"], 2);
}

#[test]
fn pages_resume_in_their_own_history_only() {
    let (before, after) = (log("before the restore"), log("after the restore"));
    before.post("/v1/streams/a-1", &[], r#"[{"type":"t","data":3}]"#);
    for path in ["/v1/events?limit=2", "/v1/streams/a-1?limit=2", "/v1/events?limit=2&type=t"] {
        let token = before.get(path).json()["after"].as_str().unwrap().to_owned();
        assert_eq!(token, format!("2@{}", id("before the restore")));
        let rest = before.get(&format!("{path}&after={token}")).json();
        assert_eq!(positions(&rest), [3], "{path}");
        is_refused(&after.get(&format!("{path}&after={token}")), "after");
        is_refused(&after.get(&format!("{path}&from={token}")), "from");
        // At the end the same token comes again.
        let end = rest["after"].as_str().unwrap();
        let none = before.get(&format!("{path}&after={end}")).json();
        assert_eq!((positions(&none), none["after"].as_str().unwrap()), (vec![], end));
    }
    for path in ["/v1/events?limit=1&direction=backward", "/v1/streams/a-1?limit=1&direction=backward"] {
        let (mut seen, mut next) = (Vec::new(), path.to_owned());
        loop {
            let page = before.get(&next).json();
            seen.extend(positions(&page));
            if page["end"] == true {
                break;
            }
            next = format!("{path}&before={}", page["before"].as_str().unwrap());
        }
        assert_eq!(seen, [3, 2, 1]);
        let token = format!("2@{}", id("before the restore"));
        is_refused(&after.get(&format!("{path}&before={token}")), "before");
    }
    // What the filter passed over has a token as well.
    let page = before.get("/v1/events?type=none").json();
    assert!(page["after"].as_str().unwrap().starts_with("3@"), "{page}");
    // A number that is taken unchecked does not skip what comes, either.
    is_refused(&after.get("/v1/events?from=4"), "from");
    assert_eq!(positions(&after.get("/v1/events?from=3").json()), [0; 0]);
    assert_eq!(after.get("/v1/events?from=1&after=1").problem().2.unwrap(), "after");
}

#[test]
fn a_live_stream_resumes_in_its_own_history_only() {
    let (before, after) = (log("before the restore"), log("after the restore"));
    let token = format!("2@{}", id("before the restore"));
    is_refused(&with(&after, "/v1/events/live?after=0", ("last-event-id", &token)), "Last-Event-ID");
    is_refused(&after.get(&format!("/v1/events/live?after={token}")), "after");
    let origin = format!("0@{}", before.store.id());
    is_refused(&after.get(&format!("/v1/events/live?after={origin}")), "after");
    before.post("/v1/streams/a-1", &[], r#"[{"type":"t","data":3}]"#);
    let mut messages = before.follow("/v1/events/live?after=0", &format!("last-event-id: {token}\r\n"));
    assert_eq!(messages.event().0, 3);
    let mut messages = before.follow(&format!("/v1/events/live?after={origin}"), "");
    assert_eq!(messages.event().0, 1);
}

/// The message by which a live stream that has sent lost events ends.
fn ends_as_lost(messages: &mut crate::support::Messages) {
    loop {
        let message = messages.next().expect("the stream says why it ends");
        match message.kind.as_deref() {
            Some("other-history") => {
                assert_eq!(message.event.unwrap()["code"], "other-history");
                break;
            }
            _ => assert_eq!(message.event, None, "nothing of the other history is sent"),
        }
    }
    assert_eq!(messages.next(), None);
}

#[test]
fn an_open_live_stream_whose_events_are_lost_ends_and_passes_over_nothing() {
    // Shorter than before, as long, and longer: what took the places of the lost events is never taken for
    // what follows.
    let (shorter, as_long, longer) = (&["1", "x"][..], &["1", "x", "y"][..], &["1", "x", "y", "z"][..]);
    for (filter, afters) in
        [("", &[shorter, as_long, longer][..]), ("&type=t&category=a", &[longer]), ("&type=none", &[longer])]
    {
        for after in afters {
            let store = Lossy::with(&["1", "2", "3"]);
            let server = Running::over(store.clone());
            let mut messages = server.follow(&format!("/v1/events/live?after=0{filter}"), "");
            if filter != "&type=none" {
                assert_eq!([1, 2, 3], [messages.event().0, messages.event().0, messages.event().0]);
            } else {
                // It passes over them, and sends the position after a while without an event.
                while messages.next().unwrap().id != Some(3) {}
            }
            store.replace(after);
            ends_as_lost(&mut messages);
            let token = format!("3@{}", id("3"));
            is_refused(&with(&server, "/v1/events/live", ("last-event-id", &token)), "Last-Event-ID");
            // From the last event in common it reads what came.
            let token = format!("1@{}", id("1"));
            let mut messages = server.follow("/v1/events/live", &format!("last-event-id: {token}\r\n"));
            assert_eq!(messages.event().1["data"], "x");
        }
    }
}

/// A client that reads page after page, forward or backward, while the log loses events at any moment: it
/// gets all that the log has between the places that it resumes at, or an error.
#[test]
fn a_log_that_changes_while_a_page_is_read_hides_no_events() {
    let before = ["1", "2", "3", "4", "5"];
    let after = ["1", "meant 2", "x", "meant 4", "y", "z"];
    let meant = |name: &str, filter: &str| filter.is_empty() || name.starts_with("meant");
    for (way, start) in [("after", format!("1@{}", id("1"))), ("before", format!("5@{}", id("5")))] {
        for filter in ["", "&type=meant"] {
            for reads in 0..8 {
                let store = Lossy::with(&before);
                let server = Running::over(store.clone());
                store.replace_after(reads, &after);
                let path = format!(
                    "/v1/events?limit=2{filter}&direction={}",
                    if way == "after" { "forward" } else { "backward" }
                );
                let page = server.get(&format!("{path}&{way}={start}"));
                if page.status != 200 {
                    assert!(matches!(page.status, 409 | 503), "{}", page.text);
                    continue;
                }
                let page = page.json();
                let (position, reached) = page[way].as_str().unwrap().split_once('@').unwrap();
                let position = position.parse::<usize>().unwrap();
                if position == 0
                    || id(after[position - 1]).to_string() != reached
                    || before[position - 1] == after[position - 1]
                {
                    // It resumes in the history that it has read, or at its beginning.
                    continue;
                }
                let passed = if way == "after" { 1..position } else { position - 1..4 };
                let wanted = after[passed].iter().filter(|name| meant(name, filter)).count();
                let got = page["events"].as_array().unwrap().len();
                assert_eq!(got, wanted, "{way} {filter} {reads}: {page}");
            }
        }
    }
}

#[test]
fn a_log_that_changes_while_a_live_stream_begins_hides_no_events() {
    for reads in 0..5 {
        let store = Lossy::with(&["1", "2", "3"]);
        let server = Running::over(store.clone());
        store.replace_after(reads, &["1", "x", "y", "z"]);
        let last = format!("last-event-id: 3@{}\r\n", id("3"));
        let mut socket = server.connect();
        std::io::Write::write_all(
            &mut socket,
            format!("GET /v1/events/live HTTP/1.1\r\nhost: annals\r\n{last}\r\n").as_bytes(),
        )
        .unwrap();
        let mut answer = String::new();
        while !answer.contains("other-history") {
            let mut some = [0; 4096];
            let count = std::io::Read::read(&mut socket, &mut some).unwrap();
            assert_ne!(count, 0, "{reads}: {answer}");
            answer.push_str(std::str::from_utf8(&some[..count]).unwrap());
            assert!(
                !answer.contains("\"z\""),
                "{reads}: what took the places of lost events was passed over: {answer}"
            );
        }
    }
}

#[test]
fn an_append_that_came_in_before_a_loss_is_answered_with_the_loss() {
    use crate::support::{Fault, Faulty};
    let store = Faulty::new();
    store.set(Fault::Lost);
    let server = Running::over(store);
    let event = r#"[{"type":"t","data":3}]"#;
    is_refused(&server.post("/v1/streams/a-1", &[("expected-version", "2")], event), "Expected-Version");
    for (condition, field) in [
        (json!({"query": [{"types": ["none"]}], "after": 2}), "conditions[0].after"),
        (json!({"stream": "a-1", "expected": 2}), "conditions[0].expected"),
    ] {
        let body = json!({"events": [{"stream": "b", "type": "t", "data": 1}], "conditions": [condition]});
        is_refused(&server.post("/v1/append", &[], &body.to_string()), field);
    }
}

#[test]
fn an_end_of_the_log_that_is_gone_is_not_waited_for_without_a_pause() {
    let store = Lossy::with(&["1", "2"]);
    let server = Running::over(store.clone());
    store.believe(9);
    let mut messages = server.follow("/v1/events/live?after=2", "");
    assert_eq!(messages.next().unwrap().id, Some(2));
    let before = store.reads.load(std::sync::atomic::Ordering::SeqCst);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let reads = store.reads.load(std::sync::atomic::Ordering::SeqCst) - before;
    assert!(reads < 40, "{reads} reads in two seconds");
    server.post("/v1/streams/a-1", &[], r#"[{"type":"t","data":3}]"#);
    assert_eq!(messages.event().0, 3);
}

#[test]
fn a_token_that_is_expected_is_compared_when_the_append_is_judged() {
    let server = log("second");
    let tag = format!("\"2@{}\"", id("second"));
    let headers = [("expected-version", &*tag), ("idempotency-key", "K")];
    let event = r#"[{"type":"t","data":3}]"#;
    assert_eq!(server.post("/v1/streams/a-1", &headers, event).status, 201);
    // The key is looked at first, as with a number: a request that is repeated is answered although its token
    // is stale.
    assert_eq!(server.post("/v1/streams/a-1", &headers, event).status, 200);
    let body = json!({
        "events": [{"stream": "b", "type": "t", "data": 1}],
        "conditions": [{"stream": "a-1", "expected": format!("2@{}", id("second"))}],
    });
    let stale = server.post("/v1/append", &[], &body.to_string());
    assert_eq!((stale.problem().1.as_str(), &stale.json()["actual_version"]), ("conflict", &json!(3)));
    let origin = format!("0@{}", server.store.id());
    assert_eq!(server.post("/v1/streams/new", &[("expected-version", &origin)], event).status, 201);
    is_refused(
        &server.post("/v1/streams/newer", &[("expected-version", &format!("0@{}", id("x")))], event),
        "Expected-Version",
    );
}

#[test]
fn a_page_of_the_log_has_a_tag() {
    let (before, after) = (log("before the restore"), log("after the restore"));
    for path in [
        "/v1/events",
        "/v1/events?limit=2",
        "/v1/events?limit=1&from=2",
        "/v1/events?type=none",
        "/v1/events?after=2",
        "/v1/events?direction=backward",
        "/v1/events?direction=backward&limit=1",
    ] {
        let tag = before.get(path).header("etag").to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"'), "{path}: {tag}");
        for known in [tag.clone(), format!("W/{tag}"), format!("\"none\", W/{tag}"), "*".to_owned()] {
            let unchanged = with(&before, path, ("if-none-match", &known));
            assert_eq!((unchanged.status, unchanged.text.as_str()), (304, ""), "{path}: {known}");
            assert_eq!(unchanged.header("etag"), tag);
        }
        assert_eq!(with(&after, path, ("if-none-match", &tag)).status, 200, "{path}: of another history");
        assert_eq!(with(&before, path, ("if-none-match", "\"none\"")).status, 200, "{path}");
    }
    let tag = before.get("/v1/events?limit=1").header("etag").to_owned();
    before.post("/v1/streams/a-1", &[], r#"[{"type":"t","data":3}]"#);
    assert_eq!(
        with(&before, "/v1/events?limit=1", ("if-none-match", &tag)).status,
        200,
        "it has another head"
    );
    let tag = before.get("/v1/streams/a-1").header("etag").to_owned();
    assert_eq!(with(&before, "/v1/streams/a-1", ("if-none-match", &format!("\"1\", W/{tag}"))).status, 304);
}

#[test]
fn an_append_says_where_it_is_in_which_history() {
    let server = log("second");
    let body = json!({"key": "k", "events": [
        {"stream": "a-1", "type": "t", "data": 1},
        {"stream": "b-1", "type": "t", "data": 2},
        {"stream": "a-1", "type": "t", "data": 3},
    ]});
    let first = server.post("/v1/append", &[], &body.to_string());
    let again = server.post("/v1/append", &[], &body.to_string());
    assert_eq!((first.status, again.status), (201, 200), "{}", again.text);
    let (first, again) = (first.json(), again.json());
    for member in ["witness", "streams"] {
        assert_eq!(first[member], again[member], "a duplicate gets the same answer");
    }
    let log = server.get("/v1/events").json();
    let id = |index: usize| log["events"][index]["id"].as_str().unwrap().to_owned();
    assert_eq!(first["witness"], format!("5@{}", id(4)));
    assert_eq!(first["streams"][0]["witness"], format!("4@{}", id(4)));
    assert_eq!(first["streams"][1]["witness"], format!("1@{}", id(3)));
}

#[test]
fn links_of_the_console_lead_to_no_other_event() {
    let (before, after) = (log("before the restore"), log("after the restore"));
    let link = format!("/events/2@{}", id("before the restore"));
    assert!(before.get("/").text.contains(&format!("href=\"{link}\"")));
    assert_eq!(before.get(&link).status, 200);
    let refused = after.get(&link);
    assert!(
        refused.status == 409 && refused.text.contains("another event at position 2"),
        "{}",
        refused.text
    );
    let older = format!("/?before=2@{}", id("before the restore"));
    assert_eq!((before.get(&older).status, after.get(&older).status), (200, 409));
}

#[test]
fn what_is_no_token_is_refused_by_name() {
    let server = log("second");
    for text in ["2@", "@", "x", "-1", "2@x", "1.5"] {
        assert_eq!(server.get(&format!("/v1/events?after={text}")).problem().2.unwrap(), "after", "{text}");
    }
    let beyond = format!("9@{}", id("second"));
    is_refused(&server.get(&format!("/v1/events?after={beyond}")), "after");
    is_refused(&server.get(&format!("/v1/streams/a-1?after={beyond}")), "after");
    is_refused(&server.get(&format!("/v1/streams/none?after=1@{}", id("second"))), "after");
}
