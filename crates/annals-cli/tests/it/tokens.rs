//! `annals token`, and `annals serve` with tokens and certificates.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::serve::Served;
use crate::support::Place;

/// Only a hang takes as long.
const HANG: Duration = Duration::from_secs(60);

fn run(place: &Place, arguments: &[&str]) -> (bool, String, String) {
    let output = place.command(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn token(place: &Place, arguments: &[&str]) -> String {
    let file = place.path("tokens").display().to_string();
    let line: Vec<_> = ["token", "--tokens", &file].into_iter().chain(arguments.iter().copied()).collect();
    let (made, token, output) = run(place, &line);
    assert!(made, "{output}");
    assert!(token.starts_with("annals_") && token.trim_end().len() == 50, "{token}");
    token.trim_end().to_owned()
}

fn status(url: &str, path: &str, token: &str) -> u16 {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut request = agent.get(format!("{url}{path}"));
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.call().unwrap().status().as_u16()
}

fn eventually(url: &str, token: &str, wanted: u16) {
    let begun = Instant::now();
    while status(url, "/v1/events", token) != wanted {
        assert!(begun.elapsed() < HANG, "never {wanted}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_token_is_printed_once_and_taken_by_a_server_that_runs() {
    let place = Place::new();
    let first = token(&place, &["shop", "--read", "order", "--append", "order"]);
    let text = std::fs::read_to_string(place.path("tokens")).unwrap();
    assert!(text.contains(r#""name":"shop""#) && !text.contains(&first), "the file has the hash: {text}");
    let file = place.path("tokens").display().to_string();
    let server = Served::start(&place, &["--tokens", &file]);
    assert_eq!(status(&server.url, "/v1/streams/order-1", &first), 200);
    assert_eq!(status(&server.url, "/v1/streams/cart-1", &first), 403);
    assert_eq!(status(&server.url, "/v1/events", ""), 401);
    assert_eq!(status(&server.url, "/metrics", &first), 403);
    let second = token(&place, &["all", "--read-all"]);
    eventually(&server.url, &second, 200);
    std::fs::write(place.path("tokens"), text.replace("shop", "store") + "{\n").unwrap();
    hang_up(&server);
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(status(&server.url, "/v1/events", &second), 200, "a bad file changes nothing");
    std::fs::write(place.path("tokens"), text).unwrap();
    hang_up(&server);
    eventually(&server.url, &second, 401);
    let log = server.stop();
    assert!(log.contains("tokens: line 2: ") && log.contains("stay in force"), "{log}");
}

#[cfg(target_os = "linux")]
fn hang_up(server: &Served) {
    assert!(Command::new("kill").args(["-HUP", &server.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_file_of_tokens_stays_right_or_as_it_was() {
    let place = Place::new();
    let file = place.path("tokens").display().to_string();
    token(&place, &["shop", "--read-all"]);
    let before = std::fs::read_to_string(&file).unwrap();
    for (arguments, problem) in [
        (&["shop", "--metrics"][..], "the name `shop` is on line 1 already"),
        (&["other"], "gives no right"),
        (&["other", "--read", "order-1"], "before the first `-`"),
        (&["", "--metrics"], "`name` must have"),
    ] {
        let line: Vec<_> =
            ["token", "--tokens", &file].into_iter().chain(arguments.iter().copied()).collect();
        let (made, token, output) = run(&place, &line);
        assert!(!made && token.is_empty() && output.contains(problem), "{arguments:?}: {output}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    let (_, _, output) = run(&place, &["serve", "--listen", "127.0.0.1:0", "--tokens", "/nowhere"]);
    assert!(output.contains("/nowhere: "), "{output}");
}

#[test]
fn an_address_that_others_reach_is_refused_before_a_store_is_made() {
    let place = Place::new();
    for command in
        [&["serve", "--listen", "0.0.0.0:0"][..], &["demo", "--listen", "0.0.0.0:0", "--store", "file:data"]]
    {
        let (served, _, output) = run(&place, command);
        assert!(
            !served && output.contains("there are no tokens") && output.contains("--insecure"),
            "{command:?}: {output}"
        );
    }
    assert!(!place.path("data").exists());
    let server = Served::start_at(&place, "0.0.0.0:0", &["--insecure"]);
    let log = server.stop();
    assert!(log.contains("all who reach this address may read and append"), "{log}");
}
