//! A log in a database is a store like any other: only the URL changes.

use annals_testservers::server::{self, Server};
use serde_json::Value;

use crate::demo::{expected, some};
use crate::support::Place;

/// What people do with a store, on this one.
fn a_store_like_any_other(server: &Server) {
    let (place, url) = (Place::new(), server.url());
    place.write("purchases.txt", some(300));
    let line = format!("demo --once --json --input purchases.txt --store {url}");
    let first = place.annals(&line);
    assert_eq!(first.code, 0, "{}", first.err);
    assert_eq!(serde_json::from_str::<Value>(&first.out).unwrap(), expected(&some(300)));
    let log = place.ok(&format!("read --all --json --store {url}"));
    let again = place.annals(&line);
    assert_eq!((again.code, again.out), (0, first.out), "{}", again.err);
    assert!(log == place.ok(&format!("read --all --json --store {url}")), "run again it adds nothing");

    let migrated = place.ok(&format!("migrate --store {url}"));
    assert!(migrated.trim_end().ends_with("is up to date"), "{migrated}");
    let append = format!("append account-42 --type account.opened --data {{}} --expect none --store {url}");
    place.ok(&append);
    let refused = place.fails(4, &append);
    assert!(refused.contains("exists already, at version 1"), "{refused}");
    assert!(place.ok(&format!("streams --category account --store {url}")).contains("account-42"));

    for end in ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"] {
        place.ok(&format!("append ends-1 --type t --occurred-at {end} --store {url}"));
        let last = place.json(&format!("read ends-1 --backward --limit 1 --json --store {url}"));
        assert_eq!(last["occurred_at"], end, "the whole range of times is kept");
    }

    // There and back: the same log comes out of a database and of a directory.
    place.ok(&format!("verify --store {url}"));
    let export = place.annals(&format!("export -o log.jsonl --store {url}"));
    assert_eq!(export.code, 0, "{}", export.err);
    let import = place.annals("import log.jsonl --store file:copy");
    assert_eq!(import.code, 0, "{}", import.err);
    let copied = place.ok("read --all --json --store file:copy");
    assert!(copied == place.ok(&format!("read --all --json --store {url}")));
}

#[test]
fn postgres_is_a_store_like_any_other() {
    a_store_like_any_other(&server::newest_postgres(&["fsync=off"]));
}

#[test]
fn mariadb_is_a_store_like_any_other() {
    a_store_like_any_other(&server::mariadb(&[]));
}

#[test]
fn a_database_that_is_not_there_is_named_without_its_password() {
    let place = Place::new();
    let output = place.fails(5, "streams --store postgres://kim:secret@127.0.0.1:1/shop");
    assert!(output.starts_with("cannot open postgres://kim:***@127.0.0.1:1/shop: "), "{output}");
    assert!(!output.contains("secret"), "{output}");
}

/// B2: a reader that has gone away is no failure. A database that has gone away is one.
#[test]
fn a_connection_that_breaks_is_a_failure() {
    let server = server::newest_postgres(&["fsync=off"]);
    let url = server.url();
    let (before, database) = url.split_once("127.0.0.1:").unwrap();
    let (port, database) = database.split_once('/').unwrap();
    let between = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let broken = format!("{before}127.0.0.1:{}/{database}", between.local_addr().unwrap().port());
    let port: u16 = port.parse().unwrap();
    std::thread::spawn(move || between.incoming().for_each(|client| break_off(client.unwrap(), port)));
    let place = Place::new();
    let data = format!("\"{}\"", "x".repeat(12_000_000));
    let answer = place.annals_with(&format!("append a-1 --type t --data - --store {broken}"), &data);
    let written = place.annals(&format!("streams --json --store {url}")).out;
    assert!(written.is_empty(), "it is not written: {written}");
    assert_eq!(answer.code, 1, "said: {:?} {:?}", answer.out, answer.err);
}

/// Carries a connection until a million bytes have come, and then ends it as one does who says goodbye.
fn break_off(mut client: std::net::TcpStream, port: u16) {
    let mut server = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut answers, mut responses) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut answers, &mut responses));
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut piece, mut carried) = ([0; 65_536], 0);
        while let Ok(length @ 1..) = client.read(&mut piece) {
            carried += length;
            if carried > 1_000_000 {
                client.shutdown(std::net::Shutdown::Write).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(300));
                return drop(server.shutdown(std::net::Shutdown::Both));
            }
            server.write_all(&piece[..length]).unwrap();
        }
    });
}
