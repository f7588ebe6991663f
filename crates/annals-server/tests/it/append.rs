//! Events come in.

use std::sync::Arc;

use annals_core::{Append, EventStore as _, Expected, MemoryStore, NewEvent, StreamId};
use serde_json::json;

use crate::support::Running;

const OPENED: &str = r#"[{"type":"account.opened","data":{"owner":"kim"}}]"#;

#[test]
fn an_append_says_where_its_events_are() {
    let server = Running::start();
    server.post("/v1/streams/other", &[], OPENED);
    let answer = server.post(
        "/v1/streams/account-42",
        &[("expected-version", "none")],
        r#"[{"type":"account.opened","data":1},{"type":"account.closed","data":2}]"#,
    );
    assert_eq!(answer.status, 201);
    let json = answer.json();
    assert_eq!((&json["version"], &json["duplicate"]), (&json!(2), &json!(false)));
    assert_eq!((&json["first_position"], &json["last_position"]), (&json!(2), &json!(3)));
    let id = server.get("/v1/events?direction=backward&limit=1").json()["events"][0]["id"].clone();
    let witness = format!("2@{}", id.as_str().unwrap());
    assert_eq!(json["streams"], json!([{"stream": "account-42", "version": 2, "witness": witness}]));
    assert_eq!(answer.header("etag"), format!("\"{witness}\""));
    assert_eq!(json["witness"], format!("3@{}", id.as_str().unwrap()));
    let there = server.get(answer.header("location")).json();
    assert_eq!(there["events"].as_array().unwrap().len(), 2);
    assert_eq!(there["events"][0]["position"], 2);
}

#[test]
fn the_same_key_again_gets_the_first_answer() {
    let server = Running::start();
    let key = [("idempotency-key", "request-1"), ("expected-version", "0")];
    let first = server.post("/v1/streams/account-42", &key, OPENED);
    let again = server.post("/v1/streams/account-42", &key, OPENED);
    assert_eq!((first.status, again.status), (201, 200));
    let (mut first, again) = (first.json(), again.json());
    first["duplicate"] = json!(true);
    assert_eq!(again, first);
    assert_eq!(server.get("/v1/events").json()["head"], 1);
}

/// What the framework finds under these names it believes.
#[test]
fn names_that_are_kept_for_annals_are_refused() {
    let server = Running::start();
    let fact = r#"[{"type":"annals.command_refused","data":{}}]"#;
    let stream = server.post("/v1/streams/annals.answers-account-a1", &[], OPENED);
    assert_eq!(stream.problem(), (400, "invalid".into(), Some("events[0].stream".into())));
    assert!(stream.text.contains("reserved for Annals; choose another name"));
    let named = server.post("/v1/stream?name=annals.x", &[], OPENED);
    assert_eq!(named.problem(), (400, "invalid".into(), Some("events[0].stream".into())));
    let of_type = server.post("/v1/streams/account-a1", &[], fact);
    assert_eq!(of_type.problem(), (400, "invalid".into(), Some("events[0].type".into())));
    let several = r#"{"events":[{"stream":"a-1","type":"x","data":1},{"stream":"annals.answers-a","type":"x","data":1}]}"#;
    let several = server.post("/v1/append", &[], several);
    assert_eq!(several.problem(), (400, "invalid".into(), Some("events[1].stream".into())));
    assert_eq!(server.get("/v1/events").json()["head"], 0);
    assert_eq!(server.post("/v1/streams/annals-a1", &[], OPENED).status, 201);
    assert_eq!(
        server.get("/v1/streams/annals.answers-account-a1").status,
        200,
        "they are read as others are"
    );
}

/// A command that the framework refused under a key has no event in the stream of its aggregate.
#[test]
fn a_key_that_has_an_answer_of_the_framework_is_refused_with_its_place() {
    let store = Arc::new(MemoryStore::new());
    let answer = r#"{"stream":"account-a1","version":0,"code":"not-open","text":"there is no such account"}"#;
    let answer = NewEvent::new("annals.command_refused", answer).unwrap();
    let into = StreamId::new("annals.answers-account-a1").unwrap();
    let append = Append::to(into, Expected::Any, [answer]).once("account-a1/k".parse().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(store.append(append)).unwrap();
    let server = Running::over(store);
    let key = ("Idempotency-Key", "account-a1/k");
    let reused = server.post("/v1/streams/account-a1", &[key], OPENED);
    assert_eq!((reused.status, &reused.json()["code"]), (422, &json!("reused")), "{}", reused.text);
    assert!(
        reused.text.contains("the append at position 1 (stream `annals.answers-account-a1`)"),
        "{}",
        reused.text
    );
    assert_eq!(server.get("/v1/events").json()["head"], 1);
}

#[test]
fn a_key_that_comes_again_with_another_event_is_refused_and_names_the_first() {
    let server = Running::start();
    let key = [("idempotency-key", "K")];
    server.post("/v1/streams/order-1", &key, r#"[{"type":"order.placed","data":{"cents":100}}]"#);
    let other = r#"[{"type":"order.cancelled","data":{"why":"late"}}]"#;
    let refused = server.post("/v1/streams/order-2", &key, other);
    assert_eq!(refused.problem(), (422, "reused".into(), None));
    let json = refused.json();
    assert_eq!((&json["first_position"], &json["stream"]), (&json!(1), &json!("order-1")), "{json}");
    assert_eq!(server.get("/v1/events").json()["head"], 1, "nothing is written");
    let original = [("idempotency-key", "K"), ("idempotency-reuse", "original")];
    let again = server.post("/v1/streams/order-2", &original, other);
    assert_eq!((again.status, &again.json()["first_position"]), (200, &json!(1)), "{}", again.text);
    let unknown = [("idempotency-key", "K"), ("idempotency-reuse", "first")];
    assert_eq!(server.post("/v1/streams/order-2", &unknown, other).problem().2.unwrap(), "Idempotency-Reuse");

    let id = "0f8fad5b-d9cb-469f-a165-70867728950e";
    let event = |kind: &str, data: u8| format!(r#"[{{"type":"{kind}","data":{data},"id":"{id}"}}]"#);
    assert_eq!(server.post("/v1/streams/order-3", &[], &event("t", 1)).status, 201);
    let refused = server.post("/v1/streams/order-3", &[], &event("other", 2));
    assert_eq!((refused.status, &refused.json()["first_position"]), (422, &json!(2)), "{}", refused.text);
    assert_eq!(server.post("/v1/streams/order-3", &[], &event("t", 2)).status, 422);
    assert_eq!(server.post("/v1/streams/order-3", &[], &event("t", 1)).status, 200, "the same event again");
    assert_eq!(server.get("/v1/events").json()["head"], 2);
}

#[test]
fn a_conflict_of_many_conditions_has_a_bounded_answer() {
    let server = Running::start();
    let large = json!([{"type": "t", "data": "x".repeat(1_000_000)}]).to_string();
    for _ in 0..3 {
        server.post("/v1/streams/big-1", &[], &large);
    }
    let conditions: Vec<_> = (0..1_024).map(|number| json!({"query": [{}], "after": number % 3})).collect();
    let body = json!({"events": [{"stream": "s-1", "type": "t", "data": {}}], "conditions": conditions});
    let refused = server.post("/v1/append", &[], &body.to_string());
    assert_eq!(refused.problem().0, 409);
    assert!(refused.text.len() < 6_000_000, "{} bytes", refused.text.len());
    let json = refused.json();
    assert_eq!(json["violations"].as_array().unwrap().len(), 1_024, "every violated condition is named");
    assert!(json["detail"].as_str().unwrap().len() < 500, "{}", json["detail"]);
}

#[test]
fn a_refusal_carries_the_actual_version_and_the_events_that_were_not_seen() {
    let server = Running::start();
    server.post(
        "/v1/streams/account-42",
        &[],
        r#"[{"type":"a","data":1},{"type":"b","data":2},{"type":"c","data":3}]"#,
    );
    let refused = server.post("/v1/streams/account-42", &[("expected-version", "1")], OPENED);
    assert_eq!(refused.problem(), (409, "conflict".into(), None));
    let json = refused.json();
    assert_eq!((&json["stale"], &json["actual_version"]), (&json!(true), &json!(3)));
    let violation = &json["violations"][0];
    assert_eq!(
        (&violation["stream"], &violation["expected"], &violation["actual"]),
        (&json!("account-42"), &json!(1), &json!(3))
    );
    let unseen: Vec<_> =
        violation["unseen"].as_array().unwrap().iter().map(|event| event["type"].clone()).collect();
    assert_eq!(unseen, ["b", "c"]);
    assert_eq!(violation["unseen_complete"], true);
    assert_eq!(server.get("/v1/events").json()["head"], 3);
}

#[test]
fn several_streams_are_written_at_once_or_not_at_all() {
    let server = Running::start();
    let transfer = |expected: &str| {
        let body = json!({
            "events": [
                {"stream": "account-1", "type": "withdrawn", "data": 30},
                {"stream": "account-2", "type": "deposited", "data": 30},
            ],
            "conditions": [
                {"stream": "account-1", "expected": expected},
                {"query": [{"types": ["frozen"], "tags": ["bank"]}], "after": 0},
            ],
            "key": format!("transfer {expected}"),
        });
        server.post("/v1/append", &[], &body.to_string())
    };
    let written = transfer("none");
    assert_eq!(written.status, 201, "{}", written.text);
    let written = written.json();
    for (index, stream) in ["account-1", "account-2"].into_iter().enumerate() {
        let one = &written["streams"][index];
        assert_eq!((&one["stream"], &one["version"]), (&json!(stream), &json!(1)));
    }
    assert_eq!(transfer("none").json()["duplicate"], true);

    server.post("/v1/streams/bank", &[], r#"[{"type":"frozen","data":{},"tags":["bank","x"]}]"#);
    let refused = transfer("5");
    assert_eq!(refused.status, 400, "a version in a string is not one of the words: {}", refused.text);
    let refused = transfer("exists");
    assert_eq!(refused.status, 409);
    let json = refused.json();
    assert_eq!(json["violations"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&json["violations"][0]["condition"], &json["violations"][0]["position"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(json["violations"][0]["unseen"][0]["type"], "frozen");
    assert_eq!(server.get("/v1/events").json()["head"], 3);
}

#[test]
fn every_violated_condition_is_named() {
    let server = Running::start();
    let body = r#"{"events":[{"stream":"a","type":"x","data":1}],
        "conditions":[{"stream":"b","expected":3},{"stream":"c","expected":"any"},{"stream":"d","expected":"exists"}]}"#;
    let json = server.post("/v1/append", &[], body).json();
    let named: Vec<_> =
        json["violations"].as_array().unwrap().iter().map(|one| one["condition"].clone()).collect();
    assert_eq!(named, [0, 2]);
    assert_eq!(json["stale"], false);
    assert_eq!(json.get("actual_version"), None, "two streams have two versions");
}

#[test]
fn everything_an_event_can_have_is_kept() {
    let server = Running::start();
    let event = json!({
        "id": "0f8fad5b-d9cb-469f-a165-70867728950e", "type": "account.opened", "schema_version": 3,
        "data": {"z": 1, "a": null}, "tags": ["a:1", "b"], "occurred_at": "1997-01-01T00:00:00Z",
        "metadata": {"process": "p", "initiator": "user:7", "predecessor": "m", "trace": "00-a-b-01", "own": {"k": "v"}},
    });
    server.post("/v1/streams/계좌-1", &[], &json!([event]).to_string());
    let read = server.get("/v1/streams/%EA%B3%84%EC%A2%8C-1").json()["events"][0].clone();
    for (member, value) in event.as_object().unwrap() {
        assert_eq!(&read[member], value, "{member}");
    }
    assert_eq!(read["stream"], "계좌-1");
}

#[test]
fn a_whole_number_may_be_written_with_a_fraction_of_zero() {
    let server = Running::start();
    let body = r#"{"events":[{"stream":"a","type":"x","data":1,"schema_version":3.0}],
        "conditions":[{"stream":"b","expected":0.0},{"query":[{"types":["y"]}],"after":0.0}]}"#;
    assert_eq!(server.post("/v1/append", &[], body).status, 201);
    assert_eq!(server.get("/v1/streams/a").json()["events"][0]["schema_version"], 3);
    for (wrong, field) in [("3.5", "events[0].schema_version"), ("65536.0", "events[0].schema_version")] {
        let refused = server.post("/v1/append", &[], &body.replace("3.0", wrong));
        assert_eq!(refused.problem().2.unwrap(), field, "{}", refused.text);
    }
    for wrong in ["0.5", "-1.0", "1e300", "9007199254740993.0"] {
        let refused = server.post(
            "/v1/append",
            &[],
            &body.replace("\"expected\":0.0", &format!("\"expected\":{wrong}")),
        );
        assert_eq!(refused.problem().2.unwrap(), "conditions[0].expected", "{}", refused.text);
    }
}

#[test]
fn data_keeps_its_bytes() {
    let server = Running::start();
    let data = "{\"z\": 1.50,\n  \"a\":[1e5 , \"\\u00e9/\"]}";
    server.post("/v1/streams/a", &[], &format!("[{{\"type\":\"x\",\"data\":  {data} }}]"));
    let page = server.get("/v1/streams/a").text;
    assert!(page.contains(&format!("\"data\":{data}}}")), "{page}");
    let body = r#"[{"type":"x","content_type":"application/octet-stream","data_base64":"AP8K"}]"#;
    server.post("/v1/streams/b", &[], body);
    let read = server.get("/v1/streams/b").json()["events"][0].clone();
    assert_eq!(
        (&read["data_base64"], &read["content_type"]),
        (&json!("AP8K"), &json!("application/octet-stream"))
    );
    assert_eq!(read.get("data"), None);
}

#[test]
fn a_stream_may_have_any_name() {
    let server = Running::start();
    for (path, name) in [
        ("a%2Fb", "a/b"),
        ("a%20b%3Fc%23d", "a b?c#d"),
        ("..", ".."),
        ("%2e%2e%2fv1", "../v1"),
        ("a+b", "a+b"),
    ] {
        let answer = server.raw(
            format!("POST /v1/streams/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
                     content-length: {}\r\n\r\n{OPENED}", OPENED.len()).as_bytes(),
        );
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&json["streams"][0]["stream"], &json["version"]), (&json!(name), &json!(1)));
        let location = answer.lines().find_map(|line| line.strip_prefix("location: ")).unwrap();
        assert_eq!(server.get(location).json()["stream"], name, "the answer says where they are");
    }
}

#[test]
fn names_that_no_path_can_end_in_are_named_by_a_parameter() {
    let server = Running::start();
    for name in [".", ".."] {
        let path = format!("/v1/stream?name={name}");
        for version in 1..=30 {
            let answer = server.post(&path, &[], OPENED);
            assert_eq!((answer.status, &answer.json()["version"]), (201, &json!(version)), "{}", answer.text);
            let there = server.get(answer.header("location")).json();
            assert_eq!((&there["stream"], &there["events"][0]["version"]), (&json!(name), &json!(version)));
        }
        assert_eq!(
            server.get(&format!("{path}&direction=backward&limit=1")).json()["events"][0]["version"],
            30
        );
        for page in ["/".to_owned(), "/streams".to_owned()] {
            let link = format!("href=\"/stream?name={name}\"");
            assert!(server.get(&page).text.contains(&link), "{page}");
        }
        let shown = server.get(&format!("/stream?name={name}")).text;
        let next = shown.split("rel=\"next\" href=\"").nth(1).unwrap().split('"').next().unwrap();
        let next = server.get(&next.replace("&amp;", "&")).text;
        assert!(next.contains("version <b>10</b>") && !next.contains("version <b>11</b>"), "{next}");
    }
    assert_eq!(server.get("/v1/stream").problem().2.unwrap(), "name");
    assert_eq!(server.get("/stream").status, 400);
    assert_eq!(server.get("/v1/stream?name=a&name=b").status, 400);
    assert_eq!(server.get("/v1/stream?name=a&typ=b").problem().2.unwrap(), "typ");
}
