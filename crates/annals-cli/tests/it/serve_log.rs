//! `annals serve` whose log or standard output cannot be written.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::Place;

/// Only a hang takes as long.
const HANG: Duration = Duration::from_secs(60);
const BODY: &[u8] = br#"[{"type":"t","data":{}}]"#;

fn start(place: &Place, errors: Stdio, log: &str) -> (Child, String) {
    let mut command = place.command(["serve", "--listen", "127.0.0.1:0"]);
    let mut server = command.env("RUST_LOG", log).stderr(errors).spawn().unwrap();
    let mut output = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut output).unwrap();
    let address =
        output.trim_end().rsplit_once("http://").unwrap_or_else(|| panic!("{output:?}")).1.to_owned();
    (server, address)
}

/// Posts one event.
fn post(address: &str) -> TcpStream {
    let mut client = begin_post(address, BODY.len());
    client.write_all(BODY).unwrap();
    client
}

/// Sends the head of a request whose body has this many bytes.
fn begin_post(address: &str, length: usize) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(HANG)).unwrap();
    write!(
        client,
        "POST /v1/streams/a-1 HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
    .unwrap();
    client
}

fn status(client: &mut TcpStream) -> String {
    let mut head = [0; 12];
    client.read_exact(&mut head).unwrap();
    String::from_utf8(head.to_vec()).unwrap()
}

fn stop(server: &Child) {
    assert!(Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap().success());
}

fn dropped(address: &str) -> f64 {
    figure(address, "annals_log_lines_dropped_total")
}

fn figure(address: &str, name: &str) -> f64 {
    let mut answer = ureq::get(format!("http://{address}/metrics")).call().unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_on_a_full_disk_ends_nothing() {
    let place = Place::new();
    let full = std::fs::File::create("/dev/full").unwrap();
    let (mut server, address) = start(&place, full.into(), "info");
    assert_eq!(status(&mut post(&address)), "HTTP/1.1 201");
    while dropped(&address) == 0.0 {
        std::thread::yield_now();
    }
    stop(&server);
    assert!(server.wait().unwrap().success());
}

#[test]
fn a_log_whose_reader_has_ended_ends_nothing_and_what_is_under_way_is_finished() {
    let place = Place::new();
    let (reader, writer) = std::io::pipe().unwrap();
    let (mut server, address) = start(&place, writer.into(), "info");
    drop(reader);
    // Blanks before an event, so that it is seen when the server has begun to read the body.
    let blanks = vec![b' '; 1 << 20];
    let mut client = begin_post(&address, blanks.len() + BODY.len());
    client.write_all(&blanks).unwrap();
    while figure(&address, "annals_http_body_bytes") == 0.0 {
        std::thread::yield_now();
    }
    stop(&server);
    client.write_all(BODY).unwrap();
    assert_eq!(status(&mut client), "HTTP/1.1 201");
    assert!(server.wait().unwrap().success());
}

#[test]
fn a_log_without_readers_holds_nothing_up() {
    let place = Place::new();
    let (_reader, writer) = std::io::pipe().unwrap();
    // Each request is some hundred bytes of the log, and a pipe takes 64 KiB.
    let (mut server, address) = start(&place, writer.into(), "debug");
    while dropped(&address) == 0.0 {
        assert_eq!(status(&mut post(&address)), "HTTP/1.1 201");
    }
    stop(&server);
    assert!(server.wait().unwrap().success());
}

#[test]
fn an_unread_standard_output_does_not_stop_the_server() {
    let place = Place::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = place.command(["serve", "--listen", "127.0.0.1:0"]);
    let mut server = command.stdout(writer).spawn().unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = log.find(|line| line.contains("standard output cannot be written")).unwrap();
    let address = line.rsplit_once("http://").unwrap().1.trim().to_owned();
    assert_eq!(status(&mut post(&address)), "HTTP/1.1 201");
    stop(&server);
    assert!(log.any(|line| line.contains("stopped")));
    assert!(server.wait().unwrap().success());
}
