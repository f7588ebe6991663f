//! A shutdown loses nothing.

use std::io::{Read as _, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals_core::{EventStoreExt, Query};

use crate::support::{Faulty, HANG, Running};

fn append(id: &str) -> String {
    format!(r#"[{{"type":"x","data":{{}},"id":"{id}"}}]"#)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn an_append_under_way_is_finished_and_answered() {
    let store = Faulty::held();
    let server = Running::over(store.clone());
    std::thread::scope(|scope| {
        let client = &server;
        let request =
            ureq::http::Request::post(client.url("/v1/streams/a")).header("content-type", "application/json");
        let request = request.body(append("0f8fad5b-d9cb-469f-a165-70867728950e")).unwrap();
        let waiting = scope.spawn(move || client.send(request));
        block_on(store.begun.acquire()).unwrap().forget();
        // The store holds the append; only when the shutdown has begun may it go on.
        assert!(!waiting.is_finished());
        drop(scope.spawn(|| {
            while std::net::TcpStream::connect(client.address).is_ok() {
                std::thread::yield_now();
            }
            store.gate.add_permits(1);
        }));
        client.begin_to_stop();
        assert_eq!(waiting.join().unwrap().status, 201);
    });
    server.wait();
    assert_eq!(block_on(store.log_events(Query::all())).unwrap().len(), 1);
}

#[test]
fn everything_acknowledged_while_shutting_down_is_kept() {
    let server = Running::start();
    let store = server.store.clone();
    let (acknowledged, count) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for writer in 0..4_u64 {
            let (server, acknowledged, count) = (&server, &acknowledged, &count);
            scope.spawn(move || {
                for number in 0.. {
                    let id = format!("0f8fad5b-d9cb-469f-a165-{:012x}", writer * 1_000_000 + number);
                    let request = ureq::http::Request::post(server.url(&format!("/v1/streams/w-{writer}")));
                    let request =
                        request.header("content-type", "application/json").body(append(&id)).unwrap();
                    match server.try_send(request) {
                        Ok(answer) if answer.status == 201 => {
                            acknowledged.lock().unwrap().push(id);
                            count.fetch_add(1, Ordering::SeqCst);
                        }
                        // The server is gone, or is going.
                        Ok(answer) => panic!("{answer:?}"),
                        Err(_) => break,
                    }
                }
            });
        }
        while count.load(Ordering::SeqCst) < 50 {
            std::thread::yield_now();
        }
        server.begin_to_stop();
    });
    server.wait();
    let stored = block_on(store.log_events(Query::all())).unwrap();
    let stored: std::collections::HashSet<_> = stored.iter().map(|event| event.id().to_string()).collect();
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() >= 50);
    assert!(acknowledged.iter().all(|id| stored.contains(id)), "an acknowledged event is missing");
}

#[test]
fn live_streams_end_and_idle_connections_close() {
    let server = Running::start();
    let mut messages = server.follow("/v1/events/live", "");
    messages.next().unwrap();
    let mut untouched = server.connect();
    let mut used = server.connect();
    used.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut head = [0; 12];
    used.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    server.begin_to_stop();
    assert_eq!(messages.next(), None, "the stream ends as it should");
    for socket in [&mut untouched, &mut used] {
        socket.read_to_end(&mut Vec::new()).unwrap();
    }
    server.wait();
}

#[test]
fn a_client_that_never_ends_its_request_does_not_hold_the_server() {
    let server = Running::with(Faulty::new(), |server| server.grace(Duration::from_millis(1)));
    let mut slow = server.connect();
    slow.write_all(b"POST /v1/append HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{").unwrap();
    server.begin_to_stop();
    let started = std::time::Instant::now();
    server.wait();
    assert!(started.elapsed() < HANG);
}
