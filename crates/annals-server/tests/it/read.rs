//! Events go out, a page at a time.

use serde_json::{Value, json};

use crate::support::Running;

/// Ten events: positions 1 to 10, in the streams a-0, a-1 and b-2 in turn, of types even and odd.
fn ten() -> Running {
    let server = Running::start();
    for number in 1..=10 {
        let stream = ["a-0", "a-1", "b-2"][number % 3];
        let kind = ["even", "odd"][number % 2];
        let tags = if number > 5 { json!(["high", "n"]) } else { json!(["n"]) };
        let metadata =
            json!({"process": format!("p{}", number % 4), "initiator": format!("i{}", number % 5)});
        let event = json!([{"type": kind, "data": number, "tags": tags, "metadata": metadata}]);
        assert_eq!(server.post(&format!("/v1/streams/{stream}"), &[], &event.to_string()).status, 201);
    }
    server
}

fn positions(page: &Value) -> Vec<u64> {
    page["events"].as_array().unwrap().iter().map(|event| event["position"].as_u64().unwrap()).collect()
}

#[test]
fn the_log_is_read_in_both_directions_page_after_page() {
    let server = ten();
    for (direction, expected) in
        [("forward", (1..=10).collect::<Vec<_>>()), ("backward", (1..=10).rev().collect())]
    {
        let (mut read, mut path) = (Vec::new(), format!("/v1/events?direction={direction}&limit=3"));
        loop {
            let page = server.get(&path).json();
            assert_eq!(page["head"], 10);
            read.extend(positions(&page));
            if page["end"] == true {
                break;
            }
            path = format!("/v1/events?direction={direction}&limit=3&from={}", page["next"]);
        }
        assert_eq!(read, expected);
    }
}

#[test]
fn pages_of_a_log_that_grows_end_where_the_first_one_says() {
    let server = ten();
    for direction in ["forward", "backward"] {
        let first = server.get(&format!("/v1/events?direction={direction}&limit=4")).json();
        let (head, mut read) = (first["head"].as_u64().unwrap(), positions(&first));
        let mut page = first;
        while page["end"] == false {
            let answer = server.post("/v1/streams/a-1", &[], r#"[{"type": "late", "data": {}}]"#);
            assert_eq!(answer.status, 201);
            let path = format!("/v1/events?direction={direction}&limit=4&from={}&to={head}", page["next"]);
            page = server.get(&path).json();
            read.extend(positions(&page));
        }
        read.sort_unstable();
        assert_eq!(read, (1..=head).collect::<Vec<_>>(), "{direction}");
    }
    let page = server.get("/v1/streams/b-2?direction=backward&to=2").json();
    assert_eq!((positions(&page), &page["version"]), (vec![5, 2], &json!(3)));
    let page = server.get("/v1/streams/b-2?from=3&to=2").json();
    assert_eq!((positions(&page), &page["end"]), (vec![], &json!(true)));
    let other = "2@6b1f3c52-7c0e-4d8e-9d7f-0a4f2f1f6b11";
    for path in ["/v1/events", "/v1/streams/b-2"] {
        let page = server.get(&format!("{path}?to=2")).json();
        let of_page = page["after"].as_str().unwrap();
        assert_eq!(server.get(&format!("{path}?to={of_page}")).json(), page);
        let answer = server.get(&format!("{path}?to={other}"));
        assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("other-history")));
        assert_eq!(server.get(&format!("{path}?to=x")).json()["field"], "to");
    }
}

#[test]
fn the_log_is_filtered_by_everything_that_is_indexed() {
    let server = ten();
    for (filter, expected) in [
        ("category=b", vec![2, 5, 8]),
        ("type=even&type=odd&category=b", vec![2, 5, 8]),
        ("type=even", vec![2, 4, 6, 8, 10]),
        ("tag=high&tag=n", vec![6, 7, 8, 9, 10]),
        ("tag=high&tag=none", vec![]),
        ("process=p1", vec![1, 5, 9]),
        ("initiator=i0", vec![5, 10]),
        ("process=p1&initiator=i0", vec![5]),
        ("type=even&from=6&limit=2", vec![6, 8]),
    ] {
        assert_eq!(positions(&server.get(&format!("/v1/events?{filter}")).json()), expected, "{filter}");
    }
}

/// An id is unique in a stream, so it may find several events; what an event caused is found by its id.
#[test]
fn events_are_found_by_id_and_by_what_caused_them() {
    let server = Running::start();
    let (shared, other) = ("0f8fad5b-d9cb-469f-a165-70867728950e", "7c9e6679-7425-40de-944b-e07fc1f90ae7");
    for (stream, id) in [("a-1", shared), ("b-1", shared), ("b-1", other)] {
        let event =
            json!([{"type": "placed", "id": id, "metadata": {"predecessor": "message 7"}, "data": 1}]);
        assert_eq!(server.post(&format!("/v1/streams/{stream}"), &[], &event.to_string()).status, 201);
    }
    let caused = json!([{"type": "paid", "metadata": {"predecessor": other}, "data": 1}]);
    assert_eq!(server.post("/v1/streams/c-1", &[], &caused.to_string()).status, 201);
    for (filter, expected) in [
        (format!("id={shared}"), vec![1, 2]),
        (format!("id={}", shared.to_uppercase()), vec![1, 2]),
        (format!("id={shared}&category=b"), vec![2]),
        (format!("id={shared}&direction=backward&limit=1"), vec![2]),
        ("id=00000000-0000-0000-0000-000000000000".to_owned(), vec![]),
        (format!("predecessor={other}"), vec![4]),
        ("predecessor=message%207".to_owned(), vec![1, 2, 3]),
        ("predecessor=message%207%20".to_owned(), vec![]),
        (format!("predecessor=message%207&id={other}"), vec![3]),
    ] {
        let page = server.get(&format!("/v1/events?{filter}"));
        assert_eq!(page.status, 200, "{}", page.text);
        assert_eq!(positions(&page.json()), expected, "{filter}");
    }
    for (wrong, field) in
        [("id=7", "id"), ("id=", "id"), ("predecessor=", "predecessor"), ("id=7&id=8", "id")]
    {
        let refused = server.get(&format!("/v1/events?{wrong}"));
        assert_eq!(refused.status, 400, "{}", refused.text);
        assert!(refused.json()["detail"].as_str().unwrap().contains(field), "{}", refused.text);
    }
    // As a condition: unless something was caused by it.
    let unless = |query: serde_json::Value| {
        let events = json!([{"stream": "d-1", "type": "paid", "data": 1}]);
        let append = json!({"events": events, "conditions": [{"query": [query], "after": 0}]});
        server.post("/v1/append", &[], &append.to_string()).status
    };
    assert_eq!(unless(json!({"predecessor": other})), 409);
    assert_eq!(unless(json!({"id": shared})), 409);
    assert_eq!(unless(json!({"predecessor": "message 8", "id": shared})), 201);
    assert_eq!(unless(json!({"id": "7"})), 400);
}

#[test]
fn a_stream_is_read_in_both_directions() {
    let server = ten();
    let page = server.get("/v1/streams/a-1?limit=2").json();
    assert_eq!(positions(&page), [1, 4]);
    assert_eq!((&page["version"], &page["next"], &page["end"]), (&json!(4), &json!(3), &json!(false)));
    let page = server.get("/v1/streams/a-1?from=3").json();
    assert_eq!((positions(&page), &page["end"]), (vec![7, 10], &json!(true)));
    let page = server.get("/v1/streams/a-1?direction=backward&limit=3").json();
    assert_eq!(positions(&page), [10, 7, 4]);
}

#[test]
fn a_stream_that_does_not_exist_is_empty_at_version_0() {
    let server = Running::start();
    let page = server.get("/v1/streams/none").json();
    let after = format!("0@{}", server.store.id());
    assert_eq!(
        page,
        json!({"stream": "none", "version": 0, "events": [], "next": 1, "after": after, "end": true})
    );
}

#[test]
fn a_stream_that_has_not_changed_is_not_sent_again() {
    let server = ten();
    let tag = server.get("/v1/streams/a-1").header("etag").to_owned();
    let request = ureq::http::Request::get(server.url("/v1/streams/a-1")).header("if-none-match", &tag);
    assert_eq!(server.send(request.body(String::new()).unwrap()).status, 304);
    server.post("/v1/streams/a-1", &[], r#"[{"type":"x","data":1}]"#);
    let request = ureq::http::Request::get(server.url("/v1/streams/a-1")).header("if-none-match", &tag);
    assert_eq!(server.send(request.body(String::new()).unwrap()).status, 200);
}

#[test]
fn streams_are_listed_in_the_order_of_their_names() {
    let server = ten();
    let page = server.get("/v1/streams?limit=2").json();
    let expected = json!([{"stream": "a-0", "version": 3, "position": 9}, {"stream": "a-1", "version": 4, "position": 10}]);
    assert_eq!((&page["streams"], &page["end"]), (&expected, &json!(false)));
    assert_eq!(page["after"], "a-1", "where the next page begins");
    let page = server.get("/v1/streams?limit=2&after=a-1").json();
    assert_eq!((&page["streams"][0]["stream"], &page["end"]), (&json!("b-2"), &json!(true)));
    assert_eq!(server.get("/v1/streams?category=b").json()["streams"].as_array().unwrap().len(), 1);
}

#[test]
fn no_answer_is_used_again_unasked() {
    let server = ten();
    for path in ["/v1/events", "/v1/streams/a-1", "/v1/streams", "/v1/none", "/health/ready", "/openapi.json"]
    {
        assert_eq!(server.get(path).header("cache-control"), "no-cache", "{path}");
    }
    assert_eq!(server.get("/").header("cache-control"), "no-store", "a page shows what is there now");
    let tag = server.get("/v1/events").header("etag").to_owned();
    let request = ureq::http::Request::get(server.url("/v1/events")).header("if-none-match", &tag);
    let unchanged = server.send(request.body(String::new()).unwrap());
    assert_eq!((unchanged.status, unchanged.header("cache-control")), (304, "no-cache"));
}

/// A bound may be below the place where the read begins, or beyond the end of the log.
#[test]
fn a_bound_fits_every_place_that_a_read_begins_at() {
    let server = ten();
    let place = |page: &Value| page["after"].as_str().unwrap().to_owned();
    let [two, nine] = [2, 9].map(|number| place(&server.get(&format!("/v1/events?to={number}")).json()));
    let page = |query: String| {
        let answer = server.get(&format!("/v1/events?{query}"));
        assert_eq!(answer.status, 200, "{query}: {}", answer.text);
        let page = answer.json();
        (positions(&page), page["end"] == true)
    };
    let nothing = (vec![], true);
    for filter in ["", "&type=even", "&tag=high"] {
        for (from, to) in
            [("from=9".to_owned(), &two), (format!("after={nine}"), &two), ("from=11".to_owned(), &nine)]
        {
            assert_eq!(page(format!("{from}&to={to}{filter}")), nothing);
        }
        assert_eq!(page(format!("to=0{filter}")), nothing);
        assert_eq!(page(format!("to=0&direction=backward{filter}")), nothing);
    }
    assert_eq!(page(format!("direction=backward&before={nine}&to={two}")), (vec![2, 1], true));
    assert_eq!(page(format!("direction=backward&before={two}&to={nine}")), (vec![1], true));
    assert_eq!(page(format!("after={two}&to=9223372036854775807&limit=3")), (vec![3, 4, 5], false));
    assert_eq!(page(format!("after={nine}&to={nine}")), nothing);
    // A page below a bound resumes after itself, and the same page is known by its tag.
    let path = format!("/v1/events?after={nine}&to={two}");
    let first = server.get(&path);
    let request = ureq::http::Request::get(server.url(&path)).header("If-None-Match", first.header("etag"));
    assert_eq!(server.send(request.body(String::new()).unwrap()).status, 304);
    assert_eq!(place(&first.json()), nine);
}
