//! A store whose indexes are of an earlier version: it answers, says what it cannot look up, and is migrated,
//! also while it is served.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use annals_testservers::fixtures;

use crate::serve::Served;
use crate::support::Place;

/// A place with a store as the version before left it: 132 events, 6 indexes.
fn place() -> Place {
    let place = Place::new();
    fixtures::copy(&fixtures::folder("index-3"), &place.path("data/log"));
    place
}

#[test]
fn a_store_of_the_version_before_is_migrated_by_its_command_only() {
    let place = place();
    let look_up = || {
        let line = ["read", "--all", "--json", "--predecessor", "message 3"];
        let output = place.command(line).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    for _ in 0..2 {
        assert_eq!(place.ok("read account-3 --json").lines().count(), 6);
        let (code, out, output) = look_up();
        assert_eq!((code, out.as_str()), (Some(7), ""), "{output}");
        assert!(output.contains("run `annals migrate`"), "{output}");
    }
    assert_eq!(place.ok("migrate"), "file:data is up to date: 6 indexes were of an earlier version\n");
    assert_eq!(place.ok("migrate"), "file:data is up to date\n");
    let (code, out, output) = look_up();
    assert_eq!((code, out.lines().count()), (Some(0), 15), "{output}");
    assert!(place.ok("verify").ends_with("no damage found\n"));
    assert!(place.fails(1, "migrate --store memory:").contains("nothing of it is of an earlier version"));
    assert!(place.fails(3, "migrate --store file:none").contains("none"));
}

/// The answer to a request, as it comes.
fn get(url: &str, path: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_store_is_migrated_while_it_is_served() {
    let place = place();
    let served = Served::start(&place, &[]);
    let path = "/v1/events?predecessor=message%203";
    let refused = get(&served.url, path);
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("annals migrate"), "{refused}");
    assert!(served.stop().contains("serve with --migrate"), "the log says what to do");
    let served = Served::start(&place, &["--migrate"]);
    // A time limit that ends a hang.
    for _ in 0..3_000 {
        if get(&served.url, path).starts_with("HTTP/1.1 200") {
            served.stop();
            assert_eq!(place.ok("migrate"), "file:data is up to date\n");
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{}", get(&served.url, path));
}
