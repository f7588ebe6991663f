//! What all connections together may take.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{EventStore, MemoryStore};
use annals_server::{Bounds, Server};
use serde_json::json;

use crate::support::{Fault, Faulty, HANG, Running};

fn bounded(bounds: Bounds) -> Running {
    Running::with(Arc::new(MemoryStore::new()), |server| server.bounds(bounds))
}

fn append(server: &Running, bytes: usize) {
    let event = json!([{"type": "t", "data": "x".repeat(bytes)}]).to_string();
    assert_eq!(server.post("/v1/streams/a", &[], &event).status, 201);
}

fn figure(server: &Running, name: &str) -> f64 {
    let text = server.get("/metrics").text;
    let sum = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    sum.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < HANG, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A client that has sent this, and reads nothing.
fn client(server: &Running, request: &str) -> TcpStream {
    let mut socket = server.connect();
    socket.write_all(request.as_bytes()).unwrap();
    socket
}

const LIVE: &str = "GET /v1/events/live?after=0 HTTP/1.1\r\nhost: x\r\n\r\n";
const PAGE: &str = "GET /v1/events?limit=1000 HTTP/1.1\r\nhost: x\r\n\r\n";

#[test]
fn a_client_that_takes_nothing_is_cut_off() {
    let server = bounded(Bounds { patience: Duration::from_millis(500), ..Bounds::default() });
    for _ in 0..8 {
        append(&server, 1_000_000);
    }
    let mut held = Vec::new();
    for request in [LIVE, PAGE] {
        for _ in 0..4 {
            held.push(client(&server, request));
        }
    }
    wait_for("they are given something", || figure(&server, "annals_http_sending_bytes") > 0.0);
    wait_for("they are cut off", || {
        figure(&server, "annals_http_sending_bytes") == 0.0
            && figure(&server, "annals_live_subscribers") == 0.0
    });
    // One that reads is not, however long it listens.
    let mut messages = server.follow("/v1/events/live?after=0", "");
    for position in 1..=8 {
        assert_eq!(messages.event().0, position);
    }
}

#[test]
fn clients_that_take_nothing_give_way_to_those_that_need_their_room() {
    let bounds = Bounds { sending_bytes: 4 << 20, patience: Duration::from_secs(12), ..Bounds::default() };
    let server = bounded(bounds);
    for _ in 0..4 {
        append(&server, 1_000_000);
    }
    let stalled = client(&server, PAGE);
    wait_for("the room is taken", || figure(&server, "annals_http_sending_bytes") > 3e6);
    assert_eq!(server.get("/v1/events?limit=2").status, 200);
    drop(stalled);
}

#[test]
fn what_is_beyond_the_room_is_answered_so() {
    let bounds = Bounds { sending_bytes: 4 << 20, ..Bounds::default() };
    let server = bounded(bounds);
    for _ in 0..3 {
        append(&server, 1_000_000);
    }
    // A page that is larger than all of the room takes all of it.
    assert_eq!(server.get("/v1/events").status, 200);
    let _stalled = client(&server, PAGE);
    wait_for("the room is taken", || figure(&server, "annals_http_sending_bytes") > 2e6);
    // A large answer that cannot be made again is replaced; a small one is given, and so is an append.
    let after_0 = r#"{"events":[{"stream":"b","type":"t","data":1}],"conditions":[{"query":[],"after":0}]}"#;
    let refused = server.post("/v1/append", &[], after_0);
    assert_eq!(refused.problem(), (503, "overloaded".into(), None), "{}", refused.text.len());
    assert_eq!(server.get("/health/ready").status, 200);
    append(&server, 10);
}

#[test]
fn the_number_of_connections_is_limited() {
    let server = bounded(Bounds { connections: 3, ..Bounds::default() });
    let held: Vec<_> = (0..3).map(|_| client(&server, LIVE)).collect();
    let mut held: Vec<_> = held
        .into_iter()
        .map(|mut socket| {
            let mut head = [0; 12];
            socket.read_exact(&mut head).unwrap();
            assert_eq!(&head, b"HTTP/1.1 200");
            socket
        })
        .collect();
    let mut answer = String::new();
    server.connect().read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("application/problem+json"), "{answer}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&json!("overloaded"), &json!(503)));
    drop(held.pop());
    let request = || ureq::http::Request::get(server.url("/health/live")).body(String::new()).unwrap();
    wait_for("a place is free", || server.try_send(request()).is_ok_and(|answer| answer.status == 200));
}

#[test]
fn the_number_of_live_streams_is_limited() {
    let server = bounded(Bounds { live_streams: 2, ..Bounds::default() });
    let first = server.follow("/v1/events/live", "");
    let _second = server.follow("/v1/events/live", "");
    assert_eq!(server.get("/v1/events/live").problem(), (503, "overloaded".into(), None));
    drop(first);
    wait_for("a place is free", || {
        let mut answer = [0; 12];
        client(&server, LIVE).read_exact(&mut answer).unwrap();
        &answer == b"HTTP/1.1 200"
    });
}

#[test]
fn a_client_that_reads_no_response_gets_no_more() {
    let server = Running::start();
    append(&server, 10_000);
    let count = 5_000;
    let mut socket = server.connect();
    let requests = "GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n".repeat(count);
    let mut writer = socket.try_clone().unwrap();
    let sending = std::thread::spawn(move || writer.write_all(requests.as_bytes()));
    let answered = || figure(&server, "annals_http_requests_total{method=\"GET\",route=\"/v1/events\"");
    let (mut before, mut now) = (-1.0, 0.0);
    while before != now {
        std::thread::sleep(Duration::from_millis(300));
        (before, now) = (now, answered());
    }
    assert!(now < 4_500.0, "{now} answers of 10 kB wait for somebody who reads none");
    // They all come when they are read.
    let (mut all, mut piece) = (0, vec![0; 1 << 20]);
    let mut text = Vec::new();
    while all < count {
        let read = socket.read(&mut piece).unwrap();
        assert!(read > 0, "{all} answers");
        text.extend_from_slice(&piece[..read]);
        all += text.windows(15).filter(|window| window == b"HTTP/1.1 200 OK").count();
        text.drain(..text.len().saturating_sub(14));
    }
    sending.join().unwrap().unwrap();
    assert_eq!(all, count);
}

#[test]
fn a_head_that_is_too_large_ends_its_own_connection_only() {
    let server = Running::start();
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(400_000));
    let mut socket = server.connect();
    // The server may close before all of it was sent.
    let _ = socket.write_all(long.as_bytes());
    let mut answer = Vec::new();
    // What is left unread resets the connection, which may overtake the answer.
    let _ = socket.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(server.get("/health/live").status, 200);
}

#[test]
fn a_store_that_panics_in_a_live_stream_ends_that_stream_only() {
    let store = Faulty::new();
    let server = Running::over(store.clone());
    append(&server, 1);
    let mut messages = server.follow("/v1/events/live?after=0", "");
    assert_eq!(messages.event().0, 1);
    append(&server, 1);
    assert_eq!(messages.event().0, 2);
    store.set(Fault::Panic);
    store.wake().unwrap();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| messages.event()));
    assert!(ended.is_err(), "the stream is cut off");
    store.set(Fault::None);
    append(&server, 1);
    wait_for("it is forgotten", || figure(&server, "annals_live_subscribers") == 0.0);
}

#[tokio::test]
async fn a_server_whose_future_is_dropped_leaves_nothing_behind() {
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = Box::pin(Server::new(Arc::clone(&store)).serve(listener, std::future::pending::<()>()));
    let talk = async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        socket.write_all(LIVE.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        socket.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        socket
    };
    let mut socket = tokio::select! {
        ended = &mut serving => panic!("it ended: {ended:?}"),
        socket = talk => socket,
    };
    drop(serving);
    let mut rest = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut rest).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens");
    // The connection's task may take a moment to be dropped.
    while Arc::strong_count(&store) > 1 {
        tokio::task::yield_now().await;
    }
}
