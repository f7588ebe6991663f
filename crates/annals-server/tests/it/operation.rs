//! For those who run the server: health, metrics, the description, what is mounted beside.

use std::collections::BTreeSet;
use std::sync::Arc;

use annals_core::MemoryStore;
use axum::Router;
use axum::routing::get;

use crate::support::{Fault, Faulty, Running};

#[test]
fn readiness_reports_whether_the_store_works() {
    let store = Faulty::new();
    let server = Running::over(store.clone());
    assert_eq!(server.get("/health/ready").json()["status"], "ready");
    for (fault, code) in [(Fault::Poisoned, "poisoned"), (Fault::Unavailable, "unavailable")] {
        store.set(fault);
        let answer = server.get("/health/ready");
        assert_eq!(answer.problem(), (503, code.into(), None));
        assert_eq!(server.get("/health/live").status, 200);
    }
    store.set(Fault::None);
    assert_eq!(server.get("/health/ready").status, 200);
    assert_eq!(server.get("/v1/events").json()["head"], 0, "asking writes nothing");
}

#[test]
fn what_happens_is_counted() {
    let server = Running::start();
    let two = r#"[{"type":"x","data":1},{"type":"x","data":2}]"#;
    server.post("/v1/streams/a", &[("idempotency-key", "k")], two);
    server.post("/v1/streams/a", &[("idempotency-key", "k")], two);
    server.post("/v1/streams/a", &[("expected-version", "none")], two);
    server.get("/v1/streams/a");
    server.get("/no/such/path");
    let text = server.get("/metrics").text;
    for line in [
        "annals_events_appended_total 2",
        "annals_append_duplicates_total 1",
        "annals_append_conflicts_total 1",
        "annals_live_subscribers 0",
        "annals_head_position 2",
        r#"annals_http_requests_total{method="POST",route="/v1/streams/{stream}",status="201"} 1"#,
        r#"annals_http_requests_total{method="POST",route="/v1/streams/{stream}",status="409"} 1"#,
        r#"annals_http_requests_total{method="GET",route="(none)",status="404"} 1"#,
        r#"annals_http_request_duration_seconds_count{method="POST",route="/v1/streams/{stream}"} 3"#,
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
    assert!(text.contains("process_start_time_seconds "));
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let server = Running::start();
    let description = server.get("/openapi.json").json();
    assert_eq!(description["openapi"], "3.1.0");
    let mut described = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            described.insert((method.to_uppercase(), path.clone()));
            let in_path =
                operation["parameters"].as_array().into_iter().flatten().filter(|one| one["in"] == "path");
            assert_eq!(in_path.count(), path.matches('{').count(), "{method} {path}");
        }
    }
    let served: BTreeSet<_> =
        annals_server::served().into_iter().map(|(method, path)| (method.into(), path.into())).collect();
    assert_eq!(described, served);
}

#[test]
fn every_operation_that_is_described_has_a_name_of_its_own_and_a_tag() {
    let description = Running::start().get("/openapi.json").json();
    assert!(description["servers"][0]["url"].is_string());
    let tags: Vec<_> = description["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    let mut names = BTreeSet::new();
    let operations = description["paths"].as_object().unwrap().iter();
    for (method, path, operation) in operations.flat_map(|(path, methods)| {
        methods.as_object().unwrap().iter().map(move |(method, operation)| (method, path, operation))
    }) {
        let name = operation["operationId"].as_str().unwrap_or_default();
        assert!(
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            "{method} {path}: {name}"
        );
        assert!(names.insert(name), "{method} {path}: `{name}` is the name of another one");
        let [tag] = operation["tags"].as_array().unwrap().as_slice() else {
            panic!("{method} {path}: one tag")
        };
        assert!(tags.contains(&tag), "{method} {path}: {tag}");
        assert!(
            operation["summary"].is_string() && operation["responses"]["default"].is_object(),
            "{method} {path}"
        );
    }
    assert_eq!(names.len(), annals_server::served().len());
}

#[test]
fn every_reference_of_the_description_leads_somewhere() {
    let text = Running::start().get("/openapi.json").text;
    let description: serde_json::Value = serde_json::from_str(&text).unwrap();
    let references = text.split("\"$ref\": \"#").skip(1).map(|rest| rest.split('"').next().unwrap());
    assert!(references.clone().count() > 10);
    for reference in references {
        assert!(description.pointer(reference).is_some(), "{reference}");
    }
}

#[test]
fn every_parameter_that_is_described_is_taken() {
    let server = Running::start();
    for stream in ["a", "1"] {
        server.post(&format!("/v1/streams/{stream}"), &[], r#"[{"type":"x","data":1}]"#);
    }
    let description = server.get("/openapi.json").json();
    for (path, methods) in description["paths"].as_object().unwrap() {
        if path == "/v1/events/live" {
            continue;
        }
        for parameter in methods["get"]["parameters"].as_array().into_iter().flatten() {
            if parameter["in"] == "query" {
                let value = match parameter["name"].as_str().unwrap() {
                    "direction" => "backward",
                    "id" => "0f8fad5b-d9cb-469f-a165-70867728950e",
                    _ => "1",
                };
                let path = path.replace("{stream}", "a").replace("{position}", "1");
                let name = parameter["name"].as_str().unwrap();
                let beside = if path.ends_with("/stream") && name != "name" { "name=a&" } else { "" };
                let path = format!("{path}?{beside}{name}={value}");
                assert_eq!(server.get(&path).status, 200, "{path}");
            }
        }
    }
}

#[test]
fn other_routes_are_served_beside_and_shown_in_the_navigation() {
    let shop = Router::new()
        .route("/hello", get(async || "hello"))
        .route("/panic", get(async || -> &'static str { panic!("planted") }));
    let server = Running::with(Arc::new(MemoryStore::new()), |server| {
        server.mount("/shop", shop).link("Shop", "/shop/hello")
    });
    assert_eq!(server.get("/shop/hello").text, "hello");
    assert_eq!(server.get("/shop/none").problem().0, 404);
    assert_eq!(server.get("/shop/panic").problem().1, "internal");
    assert!(server.get("/").text.contains(r#"<a href="/shop/hello">Shop</a>"#));
    assert!(server.get("/metrics").text.contains(r#"route="/shop/hello",status="200""#));
}

#[test]
fn a_figure_without_an_end_is_written_as_prometheus_reads_it() {
    let figures = || {
        let figure =
            |name, value| annals_server::Metric { name, help: "Of a clock ahead", value, counter: false };
        vec![figure("age_one_seconds", f64::INFINITY), figure("age_two_seconds", f64::NEG_INFINITY)]
    };
    let server = Running::with(Arc::new(MemoryStore::new()), |server| server.metrics(figures));
    let text = server.get("/metrics").text;
    assert!(text.contains("\nage_one_seconds +Inf\n"), "{text}");
    assert!(text.contains("\nage_two_seconds -Inf\n"), "{text}");
}

/// Care for a store that answers when it is let.
struct Upkeeping(std::sync::Mutex<std::sync::mpsc::Receiver<Result<u64, String>>>);

impl annals_server::Maintenance for Upkeeping {
    fn backup(&self) -> Result<serde_json::Value, String> {
        let made = self.0.lock().unwrap().recv().unwrap()?;
        Ok(serde_json::json!({"backup": made}))
    }

    fn backs_up(&self) -> bool {
        true
    }

    fn metrics(&self) -> Vec<annals_server::Metric> {
        let figure = |name, value, counter| annals_server::Metric { name, help: "A figure", value, counter };
        vec![figure("annals_verify_damage", 2.0, false), figure("annals_backup_failures", 1.0, true)]
    }
}

#[test]
fn a_backup_is_made_on_request_one_at_a_time() {
    assert_eq!(Running::start().post("/v1/backup", &[], "").status, 404);
    let (release, wait) = std::sync::mpsc::channel();
    let care = Arc::new(Upkeeping(std::sync::Mutex::new(wait)));
    let server = Running::with(Arc::new(MemoryStore::new()), |server| server.maintenance(care));
    std::thread::scope(|scope| {
        let (first, second) = (
            scope.spawn(|| server.post("/v1/backup", &[], "")),
            scope.spawn(|| server.post("/v1/backup", &[], "")),
        );
        // One of the two waits for this, the other is refused, whichever came first.
        while !first.is_finished() && !second.is_finished() {
            std::thread::yield_now();
        }
        release.send(Ok(7)).unwrap();
        let mut answers = [first.join().unwrap(), second.join().unwrap()];
        answers.sort_by_key(|answer| answer.status);
        assert_eq!((answers[0].status, answers[0].json()["backup"].as_u64()), (201, Some(7)));
        assert_eq!((answers[1].status, answers[1].json()["code"].as_str()), (409, Some("busy")));
    });
    release.send(Err("the bucket is gone".to_owned())).unwrap();
    let failed = server.post("/v1/backup", &[], "");
    assert_eq!((failed.status, failed.json()["code"].as_str()), (503, Some("backup-failed")));
    assert!(failed.text.contains("the bucket is gone"), "{}", failed.text);
    let text = server.get("/metrics").text;
    assert!(text.lines().any(|line| line == "annals_verify_damage 2.0"), "{text}");
    assert!(text.lines().any(|line| line == "annals_backup_failures_total 1.0"), "{text}");
}
