//! Places that a read ended at and that are brought back later.

use serde_json::Value;

use crate::support::Place;

fn cursor(event: &Value, number: &str) -> String {
    format!("{}@{}", event[number], event["id"].as_str().unwrap())
}

#[test]
fn a_read_resumes_after_the_last_event_and_notices_another_history() {
    let place = Place::new();
    for event in 1..=3 {
        place.ok(&format!("append s-1 --type t --data {event}"));
    }
    place.ok("backup backups");
    place.ok("append s-1 --type t --data 4");
    let last = place.json("read --all --backward --limit 1 --json");
    let (position, version) = (cursor(&last, "position"), cursor(&last, "version"));
    place.ok("append s-1 --type t --data 5");
    for line in [
        format!("read --all --after {position} --json"),
        format!("read s-1 --after {version} --json"),
        format!("export --after {position}"),
        "read --all --after 4 --json".to_owned(),
    ] {
        assert_eq!(place.json(&line)["data"], 5, "{line}");
    }
    assert_eq!(place.json(&format!("read --all --from {position} --limit 1 --json"))["data"], 4);
    assert_eq!(place.json(&format!("read --all --backward --limit 1 --after {position} --json"))["data"], 3);
    assert_eq!(place.ok("read --all --backward --after 1 --json"), "");
    let data = |line: &str| -> Vec<i64> {
        let lines = place.ok(&format!("{line} --json"));
        lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["data"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(data("read --all --from 2 --to 4"), [2, 3, 4]);
    assert_eq!(data(&format!("read --all --to {position} --backward --limit 2")), [4, 3]);
    assert_eq!(data(&format!("read s-1 --to {version} --after 2")), [3, 4]);
    assert_eq!(data("read s-1 --to 0"), [0; 0]);

    // A restore to an earlier time, after which other events were written.
    place.ok("restore backups --store file:restored");
    for event in [40, 50, 60] {
        place.ok(&format!("append s-1 --type t --data {event} --store file:restored"));
    }
    for line in [
        format!("read --all --after {position} --json"),
        format!("read --all --from {position}"),
        format!("read --all --to {position}"),
        format!("read s-1 --to {version}"),
        format!("read s-1 --after {version} --json"),
        format!("export --after {position}"),
    ] {
        let output = place.fails(4, &format!("{line} --store file:restored"));
        assert!(output.contains("the log has another history"), "{line}: {output}");
    }
    let common = place.json("read --all --from 3 --limit 1 --json --store file:restored");
    let line = format!("read --all --after {} --json --store file:restored", cursor(&common, "position"));
    assert_eq!(place.ok(&line).lines().count(), 3);
}

#[test]
fn a_place_that_was_handed_out_is_taken_wherever_a_place_is_named() {
    let place = Place::new();
    for (stream, event) in [("s-1", 1), ("s-2", 2), ("s-1", 3)] {
        place.ok(&format!("append {stream} --type t --data {event}"));
    }
    let log = place.json("head --json")["store"].as_str().unwrap().to_owned();
    let read = |line: &str| place.ok(&format!("{line} --json")).lines().count();
    assert_eq!(read(&format!("read s-1 --after 0@{log}")), 2);
    assert_eq!(read(&format!("read s-1 --from 0@{log}")), 2);
    assert_eq!(place.ok(&format!("export --stream s-1 --after 0@{log}")).lines().count(), 2);
    assert_eq!(read(&format!("read s-1 --backward --after 0@{log}")), 0);
    let event = |number| place.json(&format!("read --all --from {number} --limit 1 --json"));
    let at = |number| cursor(&event(number), "position");
    // A place of the log is one of the stream too, if it is an event of that.
    assert_eq!(read(&format!("read s-1 --after {}", at(1))), 1);
    assert_eq!(read(&format!("read s-1 --after {}", at(3))), 0);
    let output = place.fails(1, &format!("read s-1 --after {}", at(2)));
    assert!(output.contains("has an event of another stream than s-1"), "{output}");

    assert_eq!(place.json(&format!("head --json --to {}", at(2)))["position"], 2);
    assert_eq!(place.json(&format!("receipt s-1 1 --to {}", at(2)))["head"]["position"], 2);
    place.ok("backup backups");
    let two = place.json(&format!("restore backups --store file:two --json --to {}", at(2)));
    assert_eq!(two["head"], 2);
    place.ok(&format!("restore backups --store file:none --to 0@{log}"));
    let other = at(2).replace("2@", "1@");
    for line in [
        format!("head --to {other}"),
        format!("receipt s-1 1 --to {other}"),
        format!("restore backups --store file:x --to {other}"),
        format!("read s-1 --after {other}"),
        format!("read s-1 --after 0@{}", event(1)["id"].as_str().unwrap()),
    ] {
        let output = place.fails(4, &line);
        assert!(output.contains("the log has another history"), "{line}: {output}");
    }
    assert!(!place.path("x").exists() && !place.path("x.unfinished").exists());
}

#[test]
fn a_restore_up_to_an_event_within_an_append_is_refused() {
    let place = Place::new();
    let line = |position: u32, id: u32| {
        format!(
            "{{\"position\":{position},\"stream\":\"s-1\",\"version\":{position},\"append\":1,\"recorded_at\":\
             \"2017-04-15T13:00:00Z\",\"id\":\"00000000-0000-7000-8000-00000000000{id}\",\"type\":\"t\",\"data\":1}}\n"
        )
    };
    place.write("log.jsonl", line(1, 1) + &line(2, 2));
    place.ok("import log.jsonl");
    place.ok("backup backups");
    let within = "1@00000000-0000-7000-8000-000000000001";
    let output = place.fails(1, &format!("restore backups --store file:x --to {within}"));
    assert!(output.contains("position 1 is within an append"), "{output}");
    assert!(!place.path("x").exists());
    place.ok("restore backups --store file:x --to 2@00000000-0000-7000-8000-000000000002");
}

#[test]
fn the_beginning_of_a_log_is_a_place_too() {
    let place = Place::new();
    place.ok("append s-1 --type t");
    let log = place.json("head --json")["store"].as_str().unwrap().to_owned();
    assert_eq!(place.ok(&format!("read --all --after 0@{log} --json")).lines().count(), 1);
    place.ok("append s-1 --type t --store file:other");
    let output = place.fails(4, &format!("read --all --after 0@{log} --store file:other"));
    assert!(output.contains("another history"), "{output}");
    for wrong in ["1@", "@x", "1@x", "x"] {
        place.fails(2, &format!("read --all --after {wrong}"));
    }
}
