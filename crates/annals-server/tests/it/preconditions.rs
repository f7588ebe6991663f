//! `If-Match` and `If-None-Match` of an append, as RFC 9110 means them.

use std::sync::Arc;

use annals_core::MemoryStore;
use serde_json::json;

use crate::support::{Answer, Running};

const EVENT: &str = r#"[{"type":"t","data":1}]"#;
const STREAM: &str = "/v1/streams/account-1";

/// A server whose stream is at this version.
fn at_version(version: usize) -> Running {
    let server = Running::over(Arc::new(MemoryStore::new()));
    for _ in 0..version {
        assert_eq!(server.post(STREAM, &[], EVENT).status, 201);
    }
    server
}

fn version(server: &Running) -> u64 {
    server.get(STREAM).json()["version"].as_u64().unwrap()
}

fn is_violated(refused: &Answer) {
    assert_eq!(refused.problem(), (412, "conflict".into(), None), "{}", refused.text);
    assert!(
        refused.json()["violations"].is_array() && refused.json()["stale"].is_boolean(),
        "{}",
        refused.text
    );
}

#[test]
fn an_append_may_expect_the_etag_that_a_read_gave() {
    let server = at_version(3);
    let tag = server.get(STREAM).header("etag").to_owned();
    let written = server.post(STREAM, &[("if-match", &tag)], EVENT);
    assert_eq!((written.status, &written.json()["version"]), (201, &json!(4)), "{}", written.text);
    let stale = server.post(STREAM, &[("if-match", &tag)], EVENT);
    is_violated(&stale);
    let json = stale.json();
    assert_eq!((&json["actual_version"], &json["stale"]), (&json!(4), &json!(true)));
    assert_eq!(json["violations"][0]["unseen"][0]["version"], 4, "what the client has not seen");
    let next = written.header("etag").to_owned();
    assert_eq!(server.post(STREAM, &[("if-match", &next)], EVENT).status, 201);
    let named = "/v1/stream?name=account-1";
    assert_eq!(server.post(named, &[("if-match", "\"5\"")], EVENT).status, 201);
    is_violated(&server.post(named, &[("if-match", "\"5\"")], EVENT));
}

#[test]
fn a_star_expects_a_stream_that_exists_or_one_that_does_not() {
    let server = at_version(0);
    is_violated(&server.post(STREAM, &[("if-match", "*")], EVENT));
    assert_eq!(server.post(STREAM, &[("if-none-match", "*")], EVENT).status, 201);
    is_violated(&server.post(STREAM, &[("if-none-match", "*")], EVENT));
    assert_eq!(server.post(STREAM, &[("if-match", "*")], EVENT).status, 201);
    assert_eq!(version(&server), 2);
}

#[test]
fn any_tag_of_a_list_may_match() {
    let server = at_version(3);
    let tag = server.get(STREAM).header("etag").to_owned();
    for list in ["\"1\", \"3\"".to_owned(), "\"9\",\"4\"".to_owned(), format!("\"5\", {tag} , \"7\"")] {
        assert_eq!(server.post(STREAM, &[("if-match", &list)], EVENT).status, 201, "{list}");
    }
    assert_eq!(version(&server), 6);
    let refused = server.post(STREAM, &[("if-match", "\"2\", \"5\", \"nothing of ours\"")], EVENT);
    is_violated(&refused);
    let unseen = refused.json()["violations"][0]["unseen"].clone();
    assert_eq!(unseen.as_array().unwrap().len(), 1, "only what came after the newest of the list: {unseen}");
    let many = vec!["\"1\""; 17].join(",");
    assert_eq!(server.post(STREAM, &[("if-match", &many)], EVENT).problem().2.unwrap(), "If-Match");
}

#[test]
fn the_same_append_again_under_a_list_of_tags_is_a_duplicate() {
    let server = at_version(2);
    let id = "0f8fad5b-d9cb-469f-a165-70867728950e";
    let event = format!(r#"[{{"type":"t","data":1,"id":"{id}"}}]"#);
    let list = format!("\"3@{id}\", {}", server.get(STREAM).header("etag"));
    for status in [201, 200, 200] {
        let answer = server.post(STREAM, &[("if-match", &list)], &event);
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    assert_eq!(version(&server), 3);
    let other = format!(r#"[{{"type":"t","data":2,"id":"{id}"}}]"#);
    assert_eq!(server.post(STREAM, &[("if-match", &list)], &other).status, 422);
}

#[test]
fn a_weak_tag_and_a_foreign_one_match_nothing() {
    let server = at_version(3);
    let weak = format!("W/{}", server.get(STREAM).header("etag"));
    for tag in ["W/\"3\"", &*weak, "\"abc\"", "\"\"", "\"3x\"", "\"03\"", "\"+3\"", "\" 3\""] {
        let refused = server.post(STREAM, &[("if-match", tag)], EVENT);
        is_violated(&refused);
        assert_eq!(refused.json()["actual_version"], 3, "{tag}");
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!(detail.contains("Expected-Version"), tag.starts_with('W'), "{detail}");
    }
    assert_eq!(server.post(STREAM, &[("if-match", "W/\"2\", \"3\"")], EVENT).status, 201);
    assert_eq!(version(&server), 4);
}

#[test]
fn preconditions_stand_beside_an_expected_version_that_says_the_same() {
    let server = at_version(3);
    let tag = server.get(STREAM).header("etag").to_owned();
    let same = [("expected-version", "3"), ("if-match", &*tag)];
    assert_eq!(server.post(STREAM, &same, EVENT).status, 201);
    is_violated(&server.post(STREAM, &same, EVENT));
    for (expected, header, value, field) in [
        ("4", "if-match", "\"3\"", "If-Match"),
        ("any", "if-match", "\"4\"", "If-Match"),
        ("exists", "if-none-match", "*", "If-None-Match"),
    ] {
        let refused = server.post(STREAM, &[("expected-version", expected), (header, value)], EVENT);
        assert_eq!(refused.problem(), (422, "invalid".into(), Some(field.into())), "{}", refused.text);
    }
    assert_eq!(server.post(STREAM, &[("if-match", "*"), ("if-none-match", "*")], EVENT).status, 422);
    assert_eq!(server.post(STREAM, &[("expected-version", "3")], EVENT).status, 409);
    assert_eq!(version(&server), 4);
}

#[test]
fn a_used_key_gets_its_answer_whatever_the_precondition_says_by_now() {
    let server = at_version(1);
    for (key, tag) in [("k1", "\"1\""), ("k2", "*"), ("k3", "\"1\", \"3\"")] {
        let headers = [("idempotency-key", key), ("if-match", tag)];
        let (first, again) = (server.post(STREAM, &headers, EVENT), server.post(STREAM, &headers, EVENT));
        assert_eq!((first.status, again.status), (201, 200), "{}", again.text);
        assert_eq!(first.json()["version"], again.json()["version"]);
    }
    let weak = [("idempotency-key", "k1"), ("if-match", "W/\"1\"")];
    assert_eq!(server.post(STREAM, &weak, EVENT).json()["duplicate"], true);
    assert_eq!(version(&server), 4);
}

#[test]
fn a_precondition_that_an_append_does_not_take_is_refused_and_not_left_out() {
    let server = at_version(1);
    let several = r#"{"events":[{"stream":"account-1","type":"t","data":3}]}"#;
    let date = ("if-unmodified-since", "Sat, 15 Apr 2017 13:00:00 GMT");
    for (path, body, (name, value), field) in [
        (STREAM, EVENT, date, "If-Unmodified-Since"),
        ("/v1/append", several, date, "If-Unmodified-Since"),
        ("/v1/append", several, ("if-match", "\"1\""), "If-Match"),
        ("/v1/append", several, ("if-none-match", "*"), "If-None-Match"),
        (STREAM, EVENT, ("if-none-match", "\"1\""), "If-None-Match"),
        (STREAM, EVENT, ("if-match", "1"), "If-Match"),
        (STREAM, EVENT, ("if-match", ""), "If-Match"),
    ] {
        let refused = server.post(path, &[(name, value)], body);
        assert_eq!(refused.problem(), (400, "invalid".into(), Some(field.into())), "{path}, {name}: {value}");
    }
    let detail = server.post("/v1/append", &[("if-match", "\"1\"")], several).json()["detail"].clone();
    assert!(detail.as_str().unwrap().contains("`conditions` in the body"), "{detail}");
    assert_eq!(version(&server), 1);
}
