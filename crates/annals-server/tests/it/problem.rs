//! What fails, and what the client gets as the answer.

use std::sync::Arc;

use annals_core::{Limits, MemoryStore};
use serde_json::json;

use crate::support::{Fault, Faulty, Running};

fn invalid(field: &str) -> (u16, String, Option<String>) {
    (400, "invalid".into(), Some(field.into()))
}

#[test]
fn bad_events_are_refused_by_the_name_of_the_field() {
    let server = Running::start();
    let long = "x".repeat(300);
    for (event, field) in [
        (json!({"data": 1}), "type"),
        (json!({"type": "", "data": 1}), "type"),
        (json!({"type": long, "data": 1}), "type"),
        (json!({"type": 5, "data": 1}), "type"),
        (json!({"type": "x"}), "data"),
        (json!({"type": "x", "data": 1, "data_base64": "AA=="}), "data_base64"),
        (json!({"type": "x", "data_base64": "not base64"}), "data_base64"),
        (json!({"type": "x", "data": 1, "content_type": "text/plain"}), "data"),
        (json!({"type": "x", "data": 1, "id": "7"}), "id"),
        (json!({"type": "x", "data": 1, "tags": ["a", ""]}), "tags[1]"),
        (json!({"type": "x", "data": 1, "tags": "a"}), "tags"),
        (json!({"type": "x", "data": 1, "schema_version": 70_000}), "schema_version"),
        (json!({"type": "x", "data": 1, "occurred_at": "yesterday"}), "occurred_at"),
        (json!({"type": "x", "data": 1, "metadata": {"proces": "x"}}), "metadata.proces"),
        (json!({"type": "x", "data": 1, "metadata": {"process": ""}}), "metadata.process"),
        (json!({"type": "x", "data": 1, "metadata": {"own": {"a": 1}}}), "metadata.own.a"),
        (json!({"type": "x", "data": 1, "tpye": "x"}), "tpye"),
        (json!({"type": "x", "data": 1, "stream": "other"}), "stream"),
    ] {
        let body = json!([{"type": "x", "data": 1}, event]).to_string();
        let answer = server.post("/v1/streams/a", &[], &body);
        assert_eq!(answer.problem(), invalid(&format!("events[1].{field}")), "{body}: {}", answer.text);
    }
    assert_eq!(server.get("/v1/events").json()["head"], 0);
}

#[test]
fn bad_json_is_refused_with_its_place() {
    let server = Running::start();
    for (body, field, line, column) in [
        ("", "body", 1, 0),
        ("[{\"type\":\"x\",\n \"data\":nul}]", "events[0].data", 2, 12),
        ("{}", "events", 1, 0),
        ("[[null, null, \"x\", 1, null, 1]]", "events[0]", 1, 1),
        ("[{\"type\":\"x\",\"data\":1,\"metadata\":[\"kim\"]}]", "events[0].metadata", 1, 33),
        ("[{\"type\":\"x\"", "events[0]", 1, 12),
        ("[{\"type\":\"x\",\"data\":1}] x", "body", 1, 25),
        ("[{\"type\":\"x\",\"data\":1,\"type\":\"y\"}]", "events[0].type", 1, 28),
    ] {
        let answer = server.post("/v1/streams/a", &[], body);
        let json = answer.json();
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert_eq!(
            (&json["line"], &json["column"]),
            (&json!(line), &json!(column)),
            "{body}: {}",
            answer.text
        );
        if !body.is_empty() {
            assert_eq!(answer.problem(), invalid(field), "{body}: {}", answer.text);
        }
    }
}

#[test]
fn parts_that_contradict_each_other_are_refused_and_not_read_in_one_way() {
    let server = Running::start();
    let event = r#"[{"type":"t","data":1}]"#;
    assert_eq!(server.post("/v1/streams/a-1", &[], event).status, 201);
    for read in ["/v1/streams/a-1", "/v1/events", "/streams/a-1"] {
        for (query, field) in [
            ("from=1&after=1", "after"),
            ("from=1&before=1", "before"),
            ("after=1&before=1", "before"),
            ("from=1&after=1&before=1&direction=forward", "after"),
            ("direction=forward&before=1", "before"),
            ("direction=backward&after=1", "after"),
        ] {
            let answer = server.get(&format!("{read}?{query}"));
            assert_eq!(answer.status, 422, "{read}?{query}: {}", answer.text);
            if read.starts_with("/v1") {
                assert_eq!(answer.problem(), (422, "invalid".into(), Some(field.into())), "{read}?{query}");
            }
        }
    }
    assert_eq!(server.get("/?from=1&before=1").status, 422);
    let body = r#"{"key":"one","events":[{"stream":"a-1","type":"t","data":1}]}"#;
    assert_eq!(server.post("/v1/append", &[("idempotency-key", "other")], body).status, 422);
    assert_eq!(server.post("/v1/append", &[("idempotency-key", "one")], body).status, 201);
    assert_eq!(server.get("/v1/events").json()["head"], 2);
}

#[test]
fn data_that_no_reader_could_read_is_refused_with_its_place() {
    let server = Running::start();
    let deep = "[".repeat(101) + &"]".repeat(101);
    for (event, field, column) in [
        (r#""data":{"text":"bye \ud83d"}"#, "data", 33),
        (r#""data":{"\udc00":1}"#, "data", 22),
        (r#""data":"\ud83d\ud83d\ude00""#, "data", 21),
        (r#""data":{"a":1,"a":2}"#, "data", 28),
        (r#""data":{"a":1,"\u0061":2}"#, "data", 28),
        (r#""data":[1e999]"#, "data", 21),
        (&format!(r#""data":{deep}"#), "data", 120),
        (r#""content_type":"application/cloudevents+json","data":"\udc00""#, "data", 67),
    ] {
        let answer = server.post("/v1/streams/a", &[], &format!("[\n{{\"type\":\"t\",{event}}}]"));
        assert_eq!(answer.problem(), invalid(&format!("events[0].{field}")), "{event}: {}", answer.text);
        let json = answer.json();
        assert_eq!((&json["line"], &json["column"]), (&json!(2), &json!(column)), "{event}: {}", answer.text);
        let body = format!("{{\"events\":[{{\"stream\":\"a\",\"type\":\"t\",{event}}}]}}");
        assert_eq!(server.post("/v1/append", &[], &body).problem(), answer.problem());
    }
    let base64 = |data: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, data);
    for (data, content_type) in
        [(&b"{\"a\":\"\xc7\xd1\"}"[..], ""), (b"{half", r#""content_type":"application/json","#), (b"", "")]
    {
        let event = format!(r#"[{{"type":"t",{content_type}"data_base64":"{}"}}]"#, base64(data));
        let answer = server.post("/v1/streams/a", &[], &event);
        assert_eq!(answer.problem(), invalid("events[0].data_base64"), "{event}: {}", answer.text);
    }
    for own in [r#"{"k":"1","k":"2"}"#, r#"{"k":"1","\u006b":"2"}"#] {
        let event = format!(r#"[{{"type":"t","data":1,"metadata":{{"own":{own}}}}}]"#);
        let answer = server.post("/v1/streams/a", &[], &event);
        assert_eq!((answer.status, answer.text.contains("twice")), (400, true), "{own}: {}", answer.text);
    }
    assert_eq!(server.get("/v1/events").json()["head"], 0);
    let whole =
        format!(r#"[{{"type":"t","data":"\ud83d\ude00"}},{{"type":"t","data_base64":"{}"}}]"#, base64(b"{}"));
    assert_eq!(server.post("/v1/streams/a", &[], &whole).status, 201);
    let bytes =
        format!(r#"[{{"type":"t","content_type":"text/plain","data_base64":"{}"}}]"#, base64(b"\xff"));
    assert_eq!(server.post("/v1/streams/a", &[], &bytes).status, 201);
}

#[test]
fn bad_appends_are_refused_by_the_name_of_the_field() {
    let server = Running::start();
    let event = json!({"stream": "a", "type": "x", "data": 1});
    for (body, field) in [
        (json!({}), "events"),
        (json!({"events": []}), "events"),
        (json!([[event], [], null]), "body"),
        (json!({"events": [event], "conditions": [["a", 1]]}), "conditions[0]"),
        (
            json!({"events": [event], "conditions": [{"query": [["bank"]], "after": 0}]}),
            "conditions[0].query[0]",
        ),
        (json!({"events": [{"type": "x", "data": 1}]}), "events[0].stream"),
        (json!({"events": [{"stream": "$a", "type": "x", "data": 1}]}), "events[0].stream"),
        (json!({"events": [event], "conditions": [{"stream": "a"}]}), "conditions[0].expected"),
        (
            json!({"events": [event], "conditions": [{"stream": "a", "expected": -1}]}),
            "conditions[0].expected",
        ),
        (json!({"events": [event], "conditions": [{"query": []}]}), "conditions[0].after"),
        (json!({"events": [event], "conditions": [{}]}), "conditions[0].stream"),
        (
            json!({"events": [event], "conditions": [{"query": [{"types": ["a", ""]}], "after": 0}]}),
            "conditions[0].query[0].types[1]",
        ),
        (
            json!({"events": [event], "conditions": [{"query": [{"type": "a"}], "after": 0}]}),
            "conditions[0].query[0].type",
        ),
        (json!({"events": [event], "key": ""}), "key"),
        (json!({"events": [event], "kee": ""}), "kee"),
    ] {
        let answer = server.post("/v1/append", &[], &body.to_string());
        assert_eq!(answer.problem(), invalid(field), "{body}: {}", answer.text);
    }
}

#[test]
fn bad_headers_and_parameters_are_refused_by_name() {
    let server = Running::start();
    let event = r#"[{"type":"x","data":1}]"#;
    for (name, value) in [
        ("Expected-Version", "x"),
        ("Expected-Version", "-1"),
        ("Expected-Version", "+1"),
        ("Idempotency-Key", ""),
        ("Idempotency-Key", "bücher"),
        ("Idempotency-Key", "a\tb"),
    ] {
        assert_eq!(server.post("/v1/streams/a", &[(name, value)], event).problem(), invalid(name));
    }
    let append = r#"{"events":[{"stream":"a","type":"x","data":1}],"key":"k"}"#;
    assert_eq!(
        server.post("/v1/append", &[("expected-version", "1")], append).problem(),
        invalid("Expected-Version")
    );
    let other = server.post("/v1/append", &[("idempotency-key", "other")], append);
    assert_eq!(other.problem(), (422, "invalid".into(), Some("key".into())));
    for (path, field) in [
        ("/v1/events?limit=0", "limit"),
        ("/v1/events?limit=1001", "limit"),
        ("/v1/events?from=x", "from"),
        ("/v1/events?from=%2B1", "from"),
        ("/v1/events?from=12345678901234567890", "from"),
        ("/v1/events?from=0@0f8fad5bd9cb469fa16570867728950e", "from"),
        ("/v1/events?direction=up", "direction"),
        ("/v1/events?type=", "type"),
        ("/v1/events?from=1&from=2", "from"),
        ("/v1/events?typ=x", "typ"),
        ("/v1/events?type=%FF", "query string"),
        ("/v1/events/live?limit=1", "limit"),
        ("/v1/streams?prefix=x", "prefix"),
        ("/v1/streams/a?category=x", "category"),
        ("/v1/streams/%FF", "stream"),
        ("/v1/streams/%00", "stream"),
        ("/health/live?x", "x"),
    ] {
        assert_eq!(server.get(path).problem(), invalid(field), "{path}");
    }
    let long = format!("/v1/streams/{}", "x".repeat(1025));
    assert_eq!(server.get(&long).problem(), invalid("stream"));
}

#[test]
fn a_body_of_another_shape_is_refused_in_the_words_of_json() {
    let server = Running::start();
    for (path, body, field, words) in [
        ("/v1/streams/a", "{}", "events", "events is an object; it must be an array"),
        ("/v1/append", "[]", "body", "body is an array; it must be an object"),
        ("/v1/append", r#"{"events":{}}"#, "events", "events is an object; it must be an array"),
        (
            "/v1/streams/a",
            r#"[{"type":1}]"#,
            "events[0].type",
            "events[0].type is the number 1; it must be a string",
        ),
        (
            "/v1/append",
            r#"{"events":[],"conditions":[{"query":[],"after":9223372036854775808}]}"#,
            "conditions[0].after",
            "conditions[0].after is the number 9223372036854775808; it must be a whole number from 0 up",
        ),
    ] {
        let refused = server.post(path, &[], body);
        assert_eq!(refused.problem(), invalid(field), "{body}");
        assert!(refused.json()["detail"].as_str().unwrap().starts_with(words), "{}", refused.text);
        assert_eq!(refused.json()["line"], 1, "{}", refused.text);
    }
}

#[test]
fn a_header_that_is_not_quite_one_of_ours_is_refused_on_every_route() {
    let server = Running::start();
    let routes = annals_server::served().into_iter().chain([("GET", "/none"), ("PUT", "/v1/events")]);
    for (method, path) in routes {
        let path = path.replace("{stream}", "a").replace("{position}", "1");
        for (given, meant) in [
            ("Expected-Versions", "Expected-Version"),
            ("Idempotency-Ky", "Idempotency-Key"),
            ("Idempotency-Keys", "Idempotency-Key"),
            ("Annals-Expected-Version", "Expected-Version"),
            ("Annals-Trace", "Idempotency-Key"),
        ] {
            let request =
                ureq::http::Request::builder().method(method).uri(server.url(&path)).header(given, "1");
            let request = request.header("content-type", "application/json");
            let refused = server.send(request.body(r#"[{"type":"t","data":1}]"#.to_owned()).unwrap());
            assert_eq!(refused.problem(), invalid(given), "{method} {path}: {}", refused.text);
            assert!(refused.json()["detail"].as_str().unwrap().contains(meant), "{}", refused.text);
        }
    }
    assert_eq!(server.get("/v1/events").json()["head"], 0);
}

#[test]
fn a_body_of_another_type_is_refused() {
    let server = Running::start();
    for given in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let request = ureq::http::Request::post(server.url("/v1/streams/a")).header("content-type", given);
        let answer = server.send(request.body("[]".to_owned()).unwrap());
        assert_eq!(answer.problem().1, "unsupported-media-type");
        assert_eq!(answer.status, 415);
    }
    let request = ureq::http::Request::post(server.url("/v1/streams/a"))
        .header("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(server.send(request.body(r#"[{"type":"x","data":1}]"#.to_owned()).unwrap()).status, 201);
}

#[test]
fn a_packed_body_is_refused_and_says_what_is_accepted() {
    let server = Running::start();
    for path in ["/v1/streams/a-1", "/v1/append"] {
        for coding in ["gzip", "identity, br", "x-snappy"] {
            let answer = server.post(path, &[("content-encoding", coding)], "[]");
            assert_eq!(
                answer.problem(),
                (415, "unsupported-media-type".into(), Some("Content-Encoding".into())),
                "{coding}"
            );
            assert_eq!(answer.header("accept-encoding"), "identity");
        }
    }
    let plain = [("content-encoding", "identity")];
    assert_eq!(server.post("/v1/streams/a-1", &plain, r#"[{"type":"t","data":1}]"#).status, 201);
    let answer = server.raw(
        b"POST /v1/append HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
                              transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 415"), "{answer}");
}

#[test]
fn a_problem_that_quotes_its_input_is_short() {
    let server = Running::start();
    let long = "x".repeat(20_000_000);
    for event in [
        json!({"type": "t", "data": 1, "id": long}),
        json!({"type": "t", "data": 1, long.as_str(): 1}),
        json!({"type": "t", "data": 1, "schema_version": long}),
        json!({"type": "t", "data": 1, "metadata": {"own": {long.as_str(): 1}}}),
        json!({"type": "t", "data": 1, "content_type": long}),
        json!({"type": "t", "data_base64": "", "content_type": long}),
        json!({"type": long, "data": 1}),
        json!({"type": "t", "data": 1, "occurred_at": long}),
    ] {
        let answer = server.post("/v1/streams/a", &[], &json!([event]).to_string());
        assert_eq!(answer.status, 400);
        assert!(answer.text.len() < 20_000, "{} bytes", answer.text.len());
    }
    let path = "y".repeat(30_000);
    assert!(server.get(&format!("/v2/{path}")).text.len() < 20_000);
    assert!(server.get(&format!("/v1/events?from={path}")).text.len() < 20_000);
}

#[test]
fn a_page_of_another_site_can_neither_read_nor_change_anything() {
    let server = Running::start();
    let send = |method: &str, path: &str, host: &str, origin: Option<&str>, body: &str| {
        let request =
            ureq::http::Request::builder().method(method).uri(server.url(path)).header("host", host);
        let request = request.header("content-type", "application/json");
        let request = origin.iter().fold(request, |request, origin| request.header("origin", *origin));
        server.send(request.body(body.to_owned()).unwrap())
    };
    let own = server.address.to_string();
    let event = r#"[{"type":"t","data":1}]"#;
    // By a name that was made to point here.
    for (method, path) in [
        ("GET", "/v1/events"),
        ("GET", "/"),
        ("GET", "/none"),
        ("POST", "/v1/streams/a"),
        ("POST", "/v1/backup"),
    ] {
        let refused = send(method, path, "elsewhere.example", None, event);
        assert_eq!(refused.problem(), (421, "foreign-host".into(), None), "{method} {path}");
        let refused = send(method, path, "elsewhere.example", Some("http://elsewhere.example"), event);
        assert_eq!(refused.status, 421);
    }
    // By a request that a browser sends to another site.
    for path in ["/v1/streams/a", "/v1/append", "/v1/backup"] {
        for origin in ["http://elsewhere.example", "null", "http://127.0.0.1:1"] {
            let refused = send("POST", path, &own, Some(origin), event);
            assert_eq!(refused.problem(), (403, "foreign-origin".into(), None), "{origin}");
        }
    }
    assert_eq!(server.get("/v1/events").json()["head"], 0);
    let page = send("GET", "/v1/events", &own, Some("http://elsewhere.example"), "");
    assert!(!page.headers.contains_key("access-control-allow-origin"), "a browser gives it to no other site");
    assert_eq!(page.header("cross-origin-resource-policy"), "same-origin");
    let origin = format!("http://{own}");
    assert_eq!(send("POST", "/v1/streams/a", &own, Some(&origin), event).status, 201);
    let port = server.address.port();
    assert_eq!(send("GET", "/v1/events", &format!("localhost:{port}"), None, "").status, 200);
}

#[test]
fn what_is_mounted_beside_the_server_is_not_guarded_by_it() {
    let shop = axum::Router::new().route("/buy", axum::routing::post(async || "bought"));
    let server = Running::with(Arc::new(MemoryStore::new()), |server| server.mount("/shop", shop));
    let send = |path: &str, host: &str, origin: &str| {
        let request =
            ureq::http::Request::post(server.url(path)).header("host", host).header("origin", origin);
        let request = request.header("content-type", "application/json");
        server.send(request.body(r#"[{"type":"t","data":1}]"#.to_owned()).unwrap())
    };
    let own = server.address.to_string();
    for (host, origin) in [("shop.example", "https://shop.example"), (&*own, "https://partner.example")] {
        let bought = send("/shop/buy", host, origin);
        assert_eq!((bought.status, bought.text.as_str()), (200, "bought"), "{host}, {origin}");
        assert!(matches!(send("/v1/streams/a", host, origin).status, 421 | 403), "{host}, {origin}");
    }
    assert_eq!(server.get("/shop/none").problem().1, "not-found");
    assert_eq!(server.get("/none").problem().1, "not-found");
}

#[test]
fn a_problem_is_short_however_long_the_name_is_that_is_wrong() {
    let server = Running::start();
    let long = "x".repeat(1 << 20);
    for body in [
        format!(r#"[{{"type":"t","data":{{}},"{long}":1}}]"#),
        format!(r#"[{{"type":"t","data":{{}},"metadata":{{"own":{{"{long}":1}}}}}}]"#),
        format!(r#"[{{"type":"t","data":{{}},"metadata":{{"own":{{"a":"{long}","a":"{long}"}}}}}}]"#),
        format!(r#"[{{"type":"{long}","data":{{}}}}]"#),
        format!(r#"[{{"type":"t","data":{{}},"occurred_at":"{long}"}}]"#),
        format!(r#"[{{"type":"t","data":{{}},"id":"{long}"}}]"#),
        format!(r#"[{{"type":"t","data":{{}},"tags":["{long}"]}}]"#),
        format!(r#"[{{"type":"t","data":{{"{long}":1,"{long}":1}}}}]"#),
    ] {
        let refused = server.post("/v1/streams/a", &[], &body);
        assert_eq!(refused.status, 400);
        assert!(refused.text.len() < 16 << 10, "{} bytes: {}", refused.text.len(), &refused.text[..300]);
    }
    let refused = server.get(&format!("/v1/events?{}=1", "x".repeat(60_000)));
    assert!(refused.status == 400 && refused.text.len() < 16 << 10, "{}", refused.text.len());
}

#[test]
fn what_is_mounted_to_be_checked_is_guarded_as_the_server_is() {
    let shop = axum::Router::new().route("/buy", axum::routing::post(async || "bought"));
    let server = Running::with(Arc::new(MemoryStore::new()), |server| server.mount_checked("/shop", shop));
    let send = |host: &str, origin: &str| {
        let request = ureq::http::Request::post(server.url("/shop/buy"));
        let request = request.header("host", host).header("origin", origin);
        server.send(request.body(String::new()).unwrap())
    };
    let own = server.address.to_string();
    assert_eq!(send(&own, &format!("http://{own}")).text, "bought");
    assert_eq!(send("shop.example", "https://shop.example").problem().1, "foreign-host");
    assert_eq!(send(&own, "https://partner.example").problem().1, "foreign-origin");
}

#[test]
fn what_is_too_large_is_refused_with_the_limit() {
    let limits = Limits { event_bytes_max: 100, ..Limits::default() };
    let server =
        Running::with(Arc::new(MemoryStore::new()), |server| server.limits(limits).body_bytes_max(1000));
    let event = |bytes: usize| json!([{"type": "x", "data": "x".repeat(bytes)}]).to_string();
    assert_eq!(server.post("/v1/streams/a", &[], &event(98)).status, 201);
    let refused = server.post("/v1/streams/a", &[], &event(99));
    assert_eq!(refused.problem(), invalid("events[0].data"));
    assert!(refused.json()["detail"].as_str().unwrap().contains("100"), "{}", refused.text);
    // By its announced length, before it is sent; and by what is sent.
    for body in [
        "content-length: 1001\r\n\r\n".to_owned(),
        format!("transfer-encoding: chunked\r\n\r\n7d0\r\n{}\r\n", "x".repeat(2000)),
    ] {
        let answer = server.raw(
            format!("POST /v1/append HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n{body}").as_bytes(),
        );
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(answer.contains("\"code\":\"too-large\"") && answer.contains("1000 bytes"), "{answer}");
    }
}

#[test]
fn unknown_paths_and_methods_are_reported_as_problems() {
    let server = Running::start();
    assert_eq!(server.get("/v2/events").problem(), (404, "not-found".into(), None));
    assert_eq!(server.get("/v1/streams/a/b").problem(), (404, "not-found".into(), None));
    for (method, path, allow) in
        [("DELETE", "/v1/streams/a", "POST"), ("PUT", "/v1/events", "GET"), ("GET", "/v1/append", "POST")]
    {
        let request = ureq::http::Request::builder().method(method).uri(server.url(path)).body(String::new());
        let answer = server.send(request.unwrap());
        assert_eq!(answer.problem(), (405, "method-not-allowed".into(), None));
        assert!(answer.header("allow").contains(allow), "{answer:?}");
    }
}

#[test]
fn each_failure_of_the_store_has_its_status_and_code() {
    let store = Faulty::new();
    let server = Running::over(store.clone());
    for (fault, status, code) in [
        (Fault::Unavailable, 503, "unavailable"),
        (Fault::Closed, 503, "closed"),
        (Fault::Unusable, 503, "unusable"),
        (Fault::NoStore, 503, "no-store"),
        (Fault::Unreadable, 500, "unreadable"),
        (Fault::Internal, 500, "internal"),
        (Fault::Indeterminate, 503, "indeterminate"),
        (Fault::Poisoned, 503, "poisoned"),
        (Fault::Damaged, 500, "damaged"),
        (Fault::Panic, 500, "internal"),
    ] {
        store.set(fault);
        let answer = server.post("/v1/streams/a", &[], r#"[{"type":"x","data":1}]"#);
        assert_eq!(answer.problem(), (status, code.into(), None), "{fault:?}");
        let may_pass = status == 503 && !matches!(fault, Fault::Unusable | Fault::NoStore);
        assert_eq!(answer.headers.contains_key("retry-after"), may_pass, "{fault:?}");
    }
    store.set(Fault::None);
    assert_eq!(
        server.post("/v1/streams/a", &[], r#"[{"type":"x","data":1}]"#).status,
        201,
        "the server keeps serving"
    );
}

#[test]
fn what_is_not_http_ends_its_own_connection_only() {
    let server = Running::start();
    assert!(server.raw(b"\x16\x03\x01\x02\x00\x01\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert_eq!(server.get("/health/live").status, 200);
}
