//! The pages for people.

use std::io::{Read, Write};
use std::sync::Arc;

use annals_core::MemoryStore;
use serde_json::json;

use crate::support::Running;

#[test]
fn nothing_from_an_event_becomes_markup() {
    let server = Running::start();
    let script = "<script>alert('\"')</script>";
    let event = json!([{
        "type": script, "data": {script: script}, "tags": [script], "content_type": format!("text/{script}+json"),
        "metadata": {"process": script, "initiator": script, "predecessor": script, "trace": script, "own": {script: script}},
    }]);
    let stream = "/v1/streams/%3Cscript%3Ealert('%22')%3C%2Fscript%3E-1";
    let written = server.post(stream, &[("idempotency-key", script)], &event.to_string());
    assert_eq!(written.status, 201, "{}", written.text);
    let named = "%3Cscript%3Ealert('%22')%3C%2Fscript%3E";
    for path in [
        "/".to_owned(),
        format!("/?type={named}&tag={named}"),
        "/streams".to_owned(),
        format!("/streams?prefix={named}&category={named}"),
        format!("/streams/{named}-1"),
        "/events/1".to_owned(),
        format!("/streams/{named}none"),
        format!("/?{named}=1"),
        format!("/events/{named}"),
    ] {
        let page = server.get(&path);
        assert!(page.header("content-type").starts_with("text/html"), "{path}");
        assert!(!page.text.contains("<script>") && !page.text.contains("'\"'"), "{path}\n{}", page.text);
        assert!(page.text.contains("script"), "{path} shows the name");
        let policy = page.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
    }
}

/// What caused an event, and what it caused, is found wherever in the log it is, and an event by its id.
#[test]
fn causes_are_found_in_the_whole_log() {
    let server = Running::start();
    let cause = "0f8fad5b-d9cb-469f-a165-70867728950e";
    let body = format!(r#"[{{"type":"order.placed","id":"{cause}","data":{{}}}}]"#);
    server.post("/v1/streams/order-1", &[], &body);
    for number in 0..60 {
        let caused = json!([{"type": "stock.taken", "data": {}, "metadata": {"predecessor": cause}}]);
        server.post(&format!("/v1/streams/stock-{number}"), &[], &caused.to_string());
    }
    let event = server.get("/events/1").text;
    assert!(event.contains("Events it caused") && !event.contains("Predecessor"), "{event}");
    let shown = (0..60).filter(|number| event.contains(&format!("\"/streams/stock-{number}\""))).count();
    assert_eq!(shown, 50, "as many as are shown at once");
    assert!(event.contains(&format!("href=\"/v1/events?predecessor={cause}\"")), "and where all of them are");
    let effect = server.get("/events/61").text;
    assert!(effect.contains("Predecessor") && effect.contains(&format!("href=\"/events/1@{cause}\"")));
    let found = server.get(&format!("/?id={cause}&category=&type=&tag=&predecessor=")).text;
    assert!(found.contains("order.placed") && !found.contains("stock.taken"), "{found}");
    assert!(found.contains(&format!("name=\"id\" value=\"{cause}\"")), "the form shows what was asked");
    let found = server.get(&format!("/?predecessor={cause}")).text;
    assert!(found.contains("stock.taken") && !found.contains("order.placed"));
    assert!(found.contains(&format!("&amp;predecessor={cause}")), "so do the links to other pages");
    assert_eq!(server.get("/?id=7").status, 400);
}

#[test]
fn the_pages_lead_from_the_newest_event_to_what_caused_it() {
    let server = Running::start();
    let cause = "0f8fad5b-d9cb-469f-a165-70867728950e";
    let body = r#"[{"type":"order.placed","id":"ID","data":{"sum":12.50},"metadata":{"process":"p"}}]"#;
    server.post("/v1/streams/order-1", &[], &body.replace("ID", cause));
    let body =
        json!([{"type": "stock.taken", "data": {}, "metadata": {"process": "p", "predecessor": cause}}]);
    server.post("/v1/streams/stock-1", &[], &body.to_string());

    let newest = server.get("/").text;
    assert!(newest.find("stock.taken") < newest.find("order.placed"), "newest first");
    assert!(newest.contains("data-live=\"/v1/events/live?after=2@"), "{newest}");
    assert!(newest.contains("href=\"/streams/stock-1\"") && newest.contains("href=\"/events/2@"));
    let event = server.get("/events/2").text;
    assert!(
        event.contains("Predecessor") && event.contains(&format!("href=\"/events/1@{cause}\"")),
        "{event}"
    );
    assert!(server.get("/events/1").text.contains("Events it caused"));
    let stream = server.get("/streams/order-1").text;
    assert!(stream.contains("&quot;sum&quot;: 12.50"), "data is shown as it is, indented: {stream}");
}

#[test]
fn the_filter_of_the_page_is_the_filter_of_what_comes_live() {
    let server = Running::start();
    server.post("/v1/streams/a-1", &[], r#"[{"type":"x y","data":1}]"#);
    let page = server.get("/?category=a&type=x+y&tag=").text;
    assert!(page.contains("&amp;category=a&amp;type=x%20y\""), "{page}");
    assert!(page.contains("data-live=\"/v1/events/live?after=1@"), "{page}");
    assert!(page.contains("value=\"x y\""));
}

#[test]
fn pages_resume_where_the_last_one_ended() {
    let server = Running::start();
    for _ in 0..130 {
        server.post("/v1/streams/a", &[], r#"[{"type":"x","data":1}]"#);
    }
    let (mut path, mut seen) = ("/".to_owned(), Vec::new());
    loop {
        let page = server.get(&path).text;
        let rows = page.split("<td class=\"number\"><a href=\"/events/").skip(1);
        seen.extend(rows.map(|rest| rest.split('@').next().unwrap().parse::<u32>().unwrap()));
        match page.split("rel=\"next\" href=\"").nth(1) {
            Some(rest) => path = rest.split('"').next().unwrap().replace("&amp;", "&"),
            None => break,
        }
    }
    assert_eq!(seen, (1..=130).rev().collect::<Vec<_>>());
}

#[test]
fn a_missing_page_is_a_page_too() {
    let server = Running::start();
    for (path, status) in [
        ("/events/1", 404),
        ("/events/0", 404),
        ("/events/x", 400),
        ("/streams/none", 404),
        ("/?from=x", 400),
    ] {
        let page = server.get(path);
        assert_eq!(page.status, status, "{path}");
        assert!(page.text.contains("class=\"problem\""), "{path}");
    }
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.get("/console.css").header("content-type"), "text/css; charset=utf-8");
    assert_eq!(server.get("/console.js").header("content-type"), "text/javascript; charset=utf-8");
}

#[test]
fn a_wrong_path_is_a_page_in_a_browser_and_a_document_for_a_program() {
    let shop = axum::Router::new()
        .route("/panic", axum::routing::get(async || -> &'static str { panic!("planted") }));
    let server = Running::with(Arc::new(MemoryStore::new()), |server| {
        server.mount("/shop", shop).link("Shop", "/shop")
    });
    for (path, status) in [
        ("/foo", 404),
        ("/foo%3Cscript%3E", 404),
        ("/streams/", 404),
        ("/streams/%ff", 400),
        ("/events/1/2", 404),
        ("/health/live?x=1", 400),
        ("/v1x", 404),
        ("/shop/none", 404),
        ("/shop/panic", 500),
    ] {
        let page = server.browse(path);
        assert_eq!(
            (page.status, page.header("content-type")),
            (status, "text/html; charset=utf-8"),
            "{path}"
        );
        assert!(
            page.text.contains("class=\"problem\"") && page.text.contains(">Shop</a>"),
            "{path}: {}",
            page.text
        );
        assert!(page.header("content-security-policy").contains("default-src 'none'"), "{path}");
        assert!(!page.text.contains("<script>"), "{path}");
        assert_eq!(
            (page.header("vary"), page.header("x-content-type-options")),
            ("accept", "nosniff"),
            "{path}"
        );
        let document = server.get(path);
        assert_eq!((document.problem().0, document.header("vary")), (status, "accept"), "{path}");
    }
    for path in ["/v1", "/v1/", "/v1/events?x=1", "/v1/none"] {
        assert!(server.browse(path).problem().0 >= 400, "{path}: the API has documents for everybody");
    }
    let request = ureq::http::Request::put(server.url("/streams")).header("accept", "text/html");
    let refused = server.send(request.body(String::new()).unwrap());
    assert_eq!((refused.status, refused.header("content-type")), (405, "text/html; charset=utf-8"));
    assert!(refused.header("allow").contains("GET"), "what the answer says beside its body is kept");
}

#[test]
fn a_page_for_visitors_without_a_token_reveals_nothing_of_the_log() {
    let server = Running::start();
    let request = ureq::http::Request::get(server.url("/")).header("host", "elsewhere.example");
    let refused = server.send(request.header("accept", "text/html").body(String::new()).unwrap());
    assert_eq!((refused.status, refused.header("content-type")), (421, "text/html; charset=utf-8"));
    assert!(refused.text.contains("--host elsewhere.example"), "{}", refused.text);
    let log = server.store.id().to_string();
    assert!(server.browse("/none").text.contains(&log) && !refused.text.contains(&log), "{}", refused.text);
}

#[test]
fn the_icon_that_browsers_ask_for_exists() {
    let server = Running::start();
    let mut head = Vec::new();
    let mut socket = server.connect();
    socket.write_all(b"GET /favicon.ico HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    socket.read_to_end(&mut head).unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200"));
    let body = head.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(head[body..body + 4], [0, 0, 1, 0], "it is an icon");
    assert!(server.get("/").text.contains("<link rel=\"icon\" href=\"/favicon.ico\">"));
}

#[test]
fn a_page_has_a_bound_whatever_its_events_hold() {
    let server = Running::start();
    let own: serde_json::Map<_, _> =
        (0..5_000).map(|number| (format!("<{number}>"), json!("&".repeat(5)))).collect();
    let deep = "[".repeat(50) + &"1,".repeat(20_000) + "1" + &"]".repeat(50);
    for _ in 0..25 {
        let event = format!(
            r#"[{{"type":"t","data":{deep},"metadata":{{"process":"p","trace":"{}","own":{}}}}}]"#,
            "<".repeat(4_000),
            serde_json::Value::from(own.clone())
        );
        let written = server.post("/v1/streams/a", &[], &event);
        assert_eq!(written.status, 201, "{}", written.text);
    }
    for path in ["/", "/streams/a", "/events/3"] {
        let page = server.get(path);
        assert_eq!(page.status, 200);
        assert!(page.text.len() < 5_000_000, "{path}: {} bytes", page.text.len());
    }
}

#[test]
fn data_is_shown_as_what_it_is() {
    let server = Running::start();
    let large = format!("[{}1]", "12345678901234567890, ".repeat(5_000));
    let body = format!(
        r#"[{{"type":"note.taken","content_type":"text/plain; charset=utf-8","data_base64":"bGluZSBvbmUKbGluZSB0d28="}},
            {{"type":"image.made","content_type":"image/png","data_base64":"iVBORw0K"}},
            {{"type":"list.made","data":{large}}}]"#
    );
    assert_eq!(server.post("/v1/streams/a-1", &[], &body).status, 201);
    let text = server.get("/events/1").text;
    assert!(text.contains("<code>line one\nline two</code>"), "{text}");
    let bytes = server.get("/events/2").text;
    assert!(bytes.contains("000000  89 50 4e 47 0d 0a") && bytes.contains(".PNG.."), "{bytes}");
    let list = server.get("/events/3").text;
    assert!(
        list.contains("\n  12345678901234567890,\n  12345678901234567890,\n"),
        "the beginning is indented too"
    );
    let newest = server.get("/").text;
    for glance in ["<code>line one line two</code>", "<code>6 bytes of image/png</code>"] {
        assert!(newest.contains(glance), "{newest}");
    }
}

#[test]
fn an_empty_log_says_what_would_write_to_it() {
    let server = Running::start();
    let newest = server.get("/").text;
    assert!(newest.contains(&format!("curl http://{}/v1/streams/account-1", server.address)), "{newest}");
    assert!(server.get("/streams").text.contains("No streams yet."));
    server.post("/v1/streams/a-1", &[], r#"[{"type":"x","data":1}]"#);
    assert!(server.get("/streams?prefix=b").text.contains("No such stream."));
}
