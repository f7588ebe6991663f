//! `annals serve`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command};

use crate::support::Place;

/// A server in a process of its own.
pub struct Served {
    child: Child,
    pub url: String,
}

impl Served {
    pub fn start(place: &Place, arguments: &[&str]) -> Self {
        Self::start_at(place, "127.0.0.1:0", arguments)
    }

    pub fn start_at(place: &Place, address: &str, arguments: &[&str]) -> Self {
        let line = ["serve", "--listen", address].into_iter().chain(arguments.iter().copied());
        let mut child = place.command(line).spawn().unwrap();
        let mut output = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut output).unwrap();
        let url = output.trim_end().split(" at ").nth(1).unwrap_or_else(|| panic!("{output:?}")).to_owned();
        Self { child, url }
    }

    #[cfg(target_os = "linux")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops it as a service manager does, and returns its log.
    pub fn stop(self) -> String {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(asked.success());
        let answer = self.child.wait_with_output().unwrap();
        let log = String::from_utf8(answer.stderr).unwrap();
        assert!(answer.status.success(), "{log}");
        log
    }
}

#[test]
fn appends_over_http_survive_a_stop() {
    let place = Place::new();
    let server = Served::start(&place, &[]);
    let event = r#"[{"type":"account.opened","data":{"owner":"kim"}}]"#;
    let posted = ureq::post(format!("{}/v1/streams/account-42", server.url))
        .content_type("application/json")
        .send(event);
    assert_eq!(posted.unwrap().status(), 201);
    let log = server.stop();
    assert!(log.contains("listening") && log.contains("stopped"), "{log}");
    assert_eq!(place.json("read account-42 --json")["data"]["owner"], "kim");

    let server = Served::start(&place, &[]);
    let page = ureq::get(format!("{}/streams/account-42", server.url))
        .call()
        .unwrap()
        .body_mut()
        .read_to_string()
        .unwrap();
    assert!(page.contains("account.opened"), "{page}");
    server.stop();
}

#[test]
fn a_server_that_is_killed_has_lost_nothing_that_it_acknowledged() {
    let place = Place::new();
    let mut acknowledged = 0;
    for _ in 0..3 {
        let mut server = Served::start(&place, &[]);
        let url = format!("{}/v1/streams/a", server.url);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut count = 0;
                while let Ok(answer) =
                    ureq::post(&url).content_type("application/json").send(r#"[{"type":"x","data":{}}]"#)
                {
                    assert_eq!(answer.status(), 201);
                    count += 1;
                    if count == 20 {
                        server.child.kill().unwrap();
                    }
                }
                count
            });
            acknowledged += writer.join().unwrap();
        });
        server.child.wait().unwrap();
    }
    let there = place.ok("read a --json").lines().count();
    assert!(there >= acknowledged, "{there} of {acknowledged}");
    assert!(there <= acknowledged + 3, "at most one append was under way at each kill");
}

#[test]
fn an_address_in_use_is_reported_in_one_line() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let output = place.fails(1, &format!("serve --store memory: --listen {address}"));
    assert!(output.starts_with(&format!("cannot listen on {address}: ")), "{output}");
    // What lacks a host or a port is not completed: without a host it could be every address of the machine.
    for line in ["serve --store memory: --listen :2113", "demo --listen 2113"] {
        let output = place.fails(2, line);
        assert!(output.contains("names no host: give HOST:PORT, such as 127.0.0.1:2113"), "{output}");
    }
    let output = place.fails(2, "serve --store memory: --listen 0.0.0.0");
    assert!(output.contains("names no port: give HOST:PORT, such as 0.0.0.0:2113"), "{output}");
}
