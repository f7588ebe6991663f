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

    // A restore to an earlier time, after which other events were written.
    place.ok("restore backups --store file:restored");
    for event in [40, 50, 60] {
        place.ok(&format!("append s-1 --type t --data {event} --store file:restored"));
    }
    for line in [
        format!("read --all --after {position} --json"),
        format!("read --all --from {position}"),
        format!("read s-1 --after {version} --json"),
        format!("export --after {position}"),
    ] {
        let said = place.fails(1, &format!("{line} --store file:restored"));
        assert!(said.contains("the log has another history"), "{line}: {said}");
    }
    let common = place.json("read --all --from 3 --limit 1 --json --store file:restored");
    let line = format!("read --all --after {} --json --store file:restored", cursor(&common, "position"));
    assert_eq!(place.ok(&line).lines().count(), 3);
}

#[test]
fn the_beginning_of_a_log_is_a_place_too() {
    let place = Place::new();
    place.ok("append s-1 --type t");
    let log = place.json("head --json")["store"].as_str().unwrap().to_owned();
    assert_eq!(place.ok(&format!("read --all --after 0@{log} --json")).lines().count(), 1);
    place.ok("append s-1 --type t --store file:other");
    let said = place.fails(1, &format!("read --all --after 0@{log} --store file:other"));
    assert!(said.contains("another history"), "{said}");
    for wrong in ["1@", "@x", "1@x", "x"] {
        place.fails(2, &format!("read --all --after {wrong}"));
    }
}
