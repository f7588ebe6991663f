//! Times that people write: understood whole, or refused.

use serde_json::json;

use crate::support::Place;

/// A date-time without an offset, and what is cut by those who read only the beginning of it.
const NOT_WHOLE: [&str; 7] = [
    "2017-04-15T13:00:00",
    "2017-04-15T13:00",
    "2017-04-15 13:00:00.5",
    "2026-03-29T02:30:00[Europe/Berlin]",
    "2026-03-29T02:30:00+01:00[Europe/Berlin]",
    "2016-12-31T23:59:60Z",
    "17-04-15T13:00:00Z",
];

#[test]
fn a_time_without_an_offset_is_never_recorded_as_midnight() {
    let place = Place::new();
    for time in NOT_WHOLE {
        let mut command = place.command(["append", "s-1", "--type", "t", "--occurred-at", time]);
        let answer: crate::support::Answer = command.output().unwrap().into();
        assert_eq!((answer.code, answer.out.as_str()), (2, ""), "{time}");
        assert!(answer.err.contains(time), "{}", answer.err);
    }
    let output = place.fails(2, "append s-1 --type t --occurred-at 2017-04-15T13:00:00");
    assert!(output.contains("no offset: end it with Z"), "{output}");
    assert!(!place.path("data").exists(), "nothing was written");
    for (time, recorded) in [
        ("2017-04-15", "2017-04-15T00:00:00Z"),
        ("2017-04-15t13:00:00.1234567+09:00", "2017-04-15T04:00:00.123456Z"),
        ("0000-01-01", "0000-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ] {
        place.ok(&format!("append s-1 --type t --occurred-at {time}"));
        assert_eq!(place.json("read s-1 --backward --limit 1 --json")["occurred_at"], recorded, "{time}");
    }
}

#[test]
fn a_restore_to_a_time_without_a_zone_does_not_go_back_to_midnight() {
    let place = Place::new();
    for event in 1..=3 {
        place.ok(&format!("append s-1 --type t --data {event}"));
    }
    place.ok("backup bk");
    for time in NOT_WHOLE {
        let mut command = place.command(["restore", "bk", "--store", "file:re", "--to", time]);
        let answer: crate::support::Answer = command.output().unwrap().into();
        assert_eq!((answer.code, answer.out.as_str()), (2, ""), "{time}");
        assert!(!place.path("re").exists(), "{time}");
    }
    let recorded =
        place.json("read s-1 --from 2 --limit 1 --json")["recorded_at"].as_str().unwrap().to_owned();
    assert!(
        place.ok(&format!("restore bk --store file:re --to {recorded}")).contains("position 2, recorded")
    );
    assert_eq!(place.json("streams --json --store file:re")["version"], 2);
}

#[test]
fn an_import_asks_for_the_offset_of_its_times() {
    let place = Place::new();
    place.write("sales.csv", "id,at\n1,2017-04-15 13:00:00\n2,2017-04-16\n");
    let line = "import sales.csv --format csv --stream sale-{id} --type sold --time at";
    let output = place.fails(1, line);
    assert!(output.contains("line 2, column `at`: ") && output.contains("--time-offset"), "{output}");
    place.ok(&format!("{line} --time-offset +09:00"));
    let times: Vec<_> = place
        .ok("read --all --json")
        .lines()
        .map(|event| serde_json::from_str::<serde_json::Value>(event).unwrap()["occurred_at"].clone())
        .collect();
    assert_eq!(times, [json!("2017-04-15T04:00:00Z"), json!("2017-04-15T15:00:00Z")]);
}

#[test]
fn an_import_asks_what_its_numbers_count() {
    let place = Place::new();
    place.write("rows.jsonl", "{\"id\":1,\"ts\":1492261200000}\n");
    let line = "import rows.jsonl --stream x-{id} --type t --time ts";
    let output = place.fails(1, line);
    assert!(output.contains("--time-unit ms makes it 2017-04-15T13:00:00Z"), "{output}");
    place.ok(&format!("{line} --time-unit ms"));
    assert_eq!(place.json("read x-1 --json")["occurred_at"], "2017-04-15T13:00:00Z");
}

#[test]
fn an_import_asks_what_a_short_number_is() {
    let place = Place::new();
    place.write("days.csv", "id,at\n1,2017-04-15\n2,42840\n");
    let line = "import days.csv --format csv --stream x-{id} --type t --time at";
    let output = place.fails(1, line);
    assert!(
        output.contains("line 3, column `at`: `42840` may be") && output.contains("--time-unit s"),
        "{output}"
    );
    assert!(place.ok("read --all --json").is_empty(), "nothing was written");
    // A file that was brought in without the unit is continued with it.
    place.write("days.csv", "id,at\n1,7\n");
    place.ok(line);
    place.write("days.csv", "id,at\n1,7\n2,86400\n");
    place.fails(1, line);
    place.ok(&format!("{line} --time-unit s"));
    assert_eq!(place.json("read x-2 --json")["occurred_at"], "1970-01-02T00:00:00Z");
    assert_eq!(place.ok("read --all --json").lines().count(), 2);
}
