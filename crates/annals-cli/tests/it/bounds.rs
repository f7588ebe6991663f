//! What clients cost that do not read, read slowly, or do not send: the resident memory of `annals serve`.
//!
//! `ANNALS_CLIENTS=5000` tries as many; there are 500 otherwise.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::serve::Served;
use crate::support::Place;

/// Only a hang takes as long.
const HANG: Duration = Duration::from_secs(300);
const MIB: u64 = 1 << 20;
/// What a server may take, whatever its clients do.
const RESIDENT_MAX: u64 = 256 * MIB;

fn clients() -> usize {
    std::env::var("ANNALS_CLIENTS").map_or(500, |count| count.parse().unwrap())
}

/// A line of `/proc/PID/status`, in bytes.
fn memory(server: &Served, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    found.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[expect(clippy::print_stderr, reason = "the figures are shown with --nocapture")]
fn report(server: &Served, what: &str) -> u64 {
    let (now, most) = (memory(server, "VmRSS"), memory(server, "VmHWM"));
    eprintln!("{what}: {} MiB, at most {} MiB", now / MIB, most / MIB);
    most
}

/// Allows this process as many sockets as it needs.
fn allow_many() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

fn host(server: &Served) -> &str {
    server.url.strip_prefix("http://").unwrap()
}

/// A client that has sent a request, and reads nothing unless it is made to.
fn client(server: &Served, request: &str) -> TcpStream {
    let mut socket = TcpStream::connect(host(server)).unwrap();
    socket.set_read_timeout(Some(HANG)).unwrap();
    write!(socket, "{request} HTTP/1.1\r\nhost: {}\r\n\r\n", host(server)).unwrap();
    socket
}

fn append(server: &Served, events: usize, bytes: usize) {
    let event = format!(r#"{{"type":"t","data":"{}"}}"#, "z".repeat(bytes));
    let body = format!("[{}]", vec![event; events].join(","));
    let url = format!("{}/v1/streams/a-1", server.url);
    let started = Instant::now();
    loop {
        match ureq::post(&url).content_type("application/json").send(&body) {
            // A body of more than 16 KiB needs room, and is refused while others have it.
            Err(ureq::Error::StatusCode(503)) if body.len() > 16 << 10 => {
                assert!(started.elapsed() < HANG, "there is never room");
            }
            answer => return assert_eq!(answer.unwrap().status(), 201),
        }
    }
}

fn figure(server: &Served, name: &str) -> f64 {
    let text =
        ureq::get(format!("{}/metrics", server.url)).call().unwrap().body_mut().read_to_string().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < HANG, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Clients of live streams and of pages, at places of their own, that never read.
#[test]
fn clients_that_never_read_have_a_bound_and_hold_up_nobody() {
    allow_many();
    let place = Place::new();
    let server = Served::start(&place, &[]);
    for _ in 0..8 {
        append(&server, 5, 1 << 20);
    }
    append(&server, 2, 15 << 20);
    append(&server, 2_000, 100);
    report(&server, "at the start");
    let mut held = Vec::new();
    for number in 0..clients() {
        let request = match number % 10 {
            0 => format!("GET /v1/events?from={}&limit=1000", 1 + number % 40),
            1 => "GET /v1/streams/a-1?limit=1000".to_owned(),
            // Events of 15 MiB, and many small ones.
            2 => "GET /v1/events/live?after=40".to_owned(),
            3 => format!("GET /v1/events/live?after={}", 42 + number % 2_000),
            _ => format!("GET /v1/events/live?after={}", number % 40),
        };
        held.push(client(&server, &request));
    }
    // Others are served meanwhile: appends, live streams, pages.
    let mut live = client(&server, "GET /v1/events/live");
    let mut head = [0; 12];
    live.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    for _ in 0..10 {
        append(&server, 1, 1 << 20);
    }
    let page = ureq::get(format!("{}/v1/events?from=100&limit=10", server.url)).call().unwrap();
    assert_eq!(page.status(), 200);
    let most = report(&server, &format!("with {} clients that never read", held.len()));
    drop((held, live));
    wait_for("what the clients held is free", || {
        figure(&server, "annals_live_subscribers") == 0.0
            && figure(&server, "annals_http_sending_bytes") == 0.0
    });
    report(&server, "after they have left");
    // What the allocator holds of that is given back a moment later.
    wait_for("memory is given back", || memory(&server, "VmRSS") < most / 2 + 32 * MIB);
    report(&server, "a moment later");
    let after = memory(&server, "VmRSS");
    server.stop();
    assert!(most < RESIDENT_MAX, "{} MiB", most / MIB);
    assert!(after < most / 2 + 64 * MIB, "memory is given back: {} of {} MiB", after / MIB, most / MIB);
}

/// They get everything, each at its own pace.
#[test]
fn clients_that_read_slowly_get_everything() {
    allow_many();
    let place = Place::new();
    let server = Served::start(&place, &[]);
    append(&server, 4, 200_000);
    let mut slow: Vec<_> =
        (0..200).map(|_| (client(&server, "GET /v1/events/live?after=0"), Vec::new())).collect();
    let mut piece = [0; 16 << 10];
    let whole = |text: &[u8]| text.ends_with(b"\n\n\r\n") && text.len() > 800_000;
    wait_for("all have read all", || {
        for (socket, text) in slow.iter_mut().filter(|(_, text)| !whole(text)) {
            let count = socket.read(&mut piece).unwrap();
            assert!(count > 0, "a stream ended after {} bytes", text.len());
            text.extend_from_slice(&piece[..count]);
        }
        slow.iter().all(|(_, text)| whole(text))
    });
    let most = report(&server, "with 200 clients that read slowly");
    server.stop();
    assert!(most < RESIDENT_MAX, "{} MiB", most / MIB);
}

/// Uploads of 85 MB that stop in the middle.
#[test]
fn uploads_that_stall_have_a_bound_and_hold_up_nobody() {
    let place = Place::new();
    let server = Served::start(&place, &[]);
    let piece = vec![b' '; 1 << 20];
    let mut stalled = Vec::new();
    for _ in 0..30 {
        let mut socket = TcpStream::connect(host(&server)).unwrap();
        let head = format!(
            "POST /v1/streams/a-1 HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: 90000000\r\n\r\n[",
            host(&server)
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket.set_nonblocking(true).unwrap();
        stalled.push((socket, 0));
    }
    // All send until the server takes no more of any.
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_secs(3) {
        let mut progress = false;
        for (socket, sent) in stalled.iter_mut().filter(|(_, sent)| *sent < 85_000_000) {
            match socket.write(&piece) {
                Ok(count) => {
                    *sent += count;
                    progress = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // It was answered 503 or 408, and closed.
                Err(_) => *sent = usize::MAX,
            }
        }
        if progress {
            last = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    report(&server, "with 30 uploads that stall");
    append(&server, 1, 1 << 10);
    append(&server, 1, 1 << 20);
    let most = report(&server, "after an append beside them");
    server.stop();
    assert!(most < RESIDENT_MAX, "{} MiB", most / MIB);
}

/// Elements of a list that are two bytes in the body and over a hundred in memory.
#[test]
fn a_body_of_tiny_elements_takes_no_more_memory_than_a_large_append() {
    let place = Place::new();
    let server = Served::start(&place, &[]);
    let events = r#""events":[{"stream":"a","type":"t","data":{}}]"#;
    let list = |element: &str| vec![element; (40 << 20) / (element.len() + 1)].join(",");
    for body in [
        format!(r#"{{{events},"conditions":[{{"after":0,"query":[{}]}}]}}"#, list("{}")),
        format!(r#"{{{events},"conditions":[{}]}}"#, list(r#"{"after":0,"query":[]}"#)),
        format!(r#"{{"events":[{}]}}"#, list(r#"{"stream":"a","type":"t","data":0}"#)),
    ] {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let url = format!("{}/v1/append", server.url);
        let mut answer = agent.post(&url).content_type("application/json").send(&body).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        assert_eq!(answer.status(), 400, "{text}");
        assert!(text.contains("more elements than the largest append may have"), "{text}");
        let most = report(&server, &text[..40]);
        assert!(most < 3 * RESIDENT_MAX, "{} MiB", most / MIB);
    }
}
