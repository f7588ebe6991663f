//! Live streams over a database whose standby takes over without the newest events.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use annals_testservers::proxy::Proxy;
use annals_testservers::server::{self, Server};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _, Row as _};

use crate::serve::Served;
use crate::support::Place;

/// Ends a test that hangs.
const HANG: Duration = Duration::from_secs(180);

/// Does this on a server.
fn on<T>(server: &Server, work: impl AsyncFnOnce(&mut PgConnection) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { work(&mut PgConnection::connect(&server.url()).await.unwrap()).await })
}

/// Waits until a number is as wanted.
fn until(server: &Server, sql: &'static str, done: impl Fn(i64) -> bool) {
    on(server, async |connection| {
        while !done(connection.fetch_one(sql).await.unwrap().get::<i64, _>(0)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

/// Appends an event with this data, and asks again while the store is away.
fn append(served: &Served, data: &str) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let started = Instant::now();
    loop {
        let post = agent.post(format!("{}/v1/streams/a-1", served.url)).header("idempotency-key", data);
        let body = format!(r#"[{{"type":"t","data":"{data}"}}]"#);
        let mut answer = post.content_type("application/json").send(body).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        if answer.status() == 201 || answer.status() == 200 {
            return;
        }
        assert!(answer.status() == 503 && started.elapsed() < HANG, "{text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A client of a live stream that comes back with the last id when its stream ends, as browsers do.
struct Client<'a> {
    served: &'a Served,
    socket: Option<TcpStream>,
    last: String,
    text: String,
}

impl<'a> Client<'a> {
    fn after(served: &'a Served, id: &str) -> Self {
        Self { served, socket: None, last: id.to_owned(), text: String::new() }
    }

    /// Reads until this was sent. All that was sent since the client began, refusals too.
    fn until(&mut self, wanted: &str) -> &str {
        let started = Instant::now();
        while !self.text.contains(wanted) {
            assert!(started.elapsed() < HANG, "{wanted}: {}", self.text);
            let socket = self.socket.get_or_insert_with(|| {
                let host = self.served.url.strip_prefix("http://").unwrap();
                let mut socket = TcpStream::connect(host).unwrap();
                socket.set_read_timeout(Some(HANG)).unwrap();
                let last = &self.last;
                let request = format!(
                    "GET /v1/events/live HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nlast-event-id: {last}\r\n\r\n"
                );
                socket.write_all(request.as_bytes()).unwrap();
                socket
            });
            let mut some = [0; 4096];
            match socket.read(&mut some).unwrap() {
                0 => {
                    self.socket = None;
                    std::thread::sleep(Duration::from_millis(50));
                }
                count => self.text.push_str(std::str::from_utf8(&some[..count]).unwrap()),
            }
            if let Some(id) = self.text.lines().rfind(|line| line.starts_with("id: ")) {
                self.last = id["id: ".len()..].to_owned();
            }
        }
        &self.text
    }
}

#[test]
fn a_live_stream_over_a_failover_that_loses_events_passes_over_nothing() {
    let mut primary = server::newest_postgres(&["fsync=off", "synchronous_commit=local"]);
    let (standby, address) = (primary.standby(), Proxy::to(&primary.url()));
    let place = Place::new();
    let served = Served::start(&place, &["--store", address.url()]);
    for data in ["one", "two", "three"] {
        append(&served, data);
    }
    let mut client = Client::after(&served, "0");
    client.until("\"three\"");
    let common = client.last.clone();
    assert!(common.starts_with("3@"), "{common}");
    // The standby gets no more.
    let caught_up = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_insert_lsn()";
    until(&primary, caught_up, |count| count > 0);
    on(&standby, async |connection| {
        connection.execute("ALTER SYSTEM SET primary_conninfo TO ''").await.unwrap();
        connection.execute("SELECT pg_reload_conf()").await.unwrap();
    });
    until(&standby, "SELECT count(*) FROM pg_stat_wal_receiver", |count| count == 0);
    for data in ["lost 4", "lost 5"] {
        append(&served, data);
    }
    client.until("\"lost 5\"");
    primary.crash();
    on(&standby, async |connection| connection.execute("SELECT pg_promote()").await.map(drop).unwrap());
    address.lead_to(&standby.url());
    for data in ["new 4", "new 5", "new 6", "new 7"] {
        append(&served, data);
    }
    let heard = client.until("other-history");
    assert!(!heard.contains("\"new"), "what took the places of lost events follows nothing: {heard}");
    let mut client = Client::after(&served, &common);
    let heard = client.until("\"new 7\"");
    for data in ["\"new 4\"", "\"new 5\"", "\"new 6\""] {
        assert!(heard.contains(data), "{heard}");
    }
    assert!(!heard.contains("lost"), "{heard}");
}
