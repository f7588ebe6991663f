//! `import` and `export`.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::support::Place;

const PURCHASES: &str = "import purchases.txt --format columns --stream customer-{customer_id} --type purchased --time date --json";

/// Purchases as old programs write them.
fn purchases(count: u32) -> String {
    let mut file = " customer_id  date number_of_cds  dollar_value\r\n".to_owned();
    for row in 0..count {
        write!(
            file,
            " {:05} 1997{:02}{:02}  {}   {}.77\r\n",
            row / 3,
            row % 12 + 1,
            row % 28 + 1,
            row % 9,
            row % 50
        )
        .unwrap();
    }
    file
}

#[test]
fn rows_become_events_once() {
    let place = Place::new();
    place.write("purchases.txt", purchases(3_500));
    let first = place.json(PURCHASES);
    assert_eq!((&first["new"], &first["already_there"]), (&json!(3_500), &json!(0)));
    let again = place.json(PURCHASES);
    assert_eq!((&again["new"], &again["already_there"]), (&json!(0), &json!(3_500)));
    place.write("purchases.txt", purchases(3_777));
    let grown = place.json(PURCHASES);
    assert_eq!((&grown["new"], &grown["already_there"]), (&json!(277), &json!(3_500)));

    let last = place.json("read --all --backward --limit 1 --json");
    assert_eq!(last["stream"], "customer-01258");
    assert_eq!(last["occurred_at"], "1997-09-25T00:00:00Z");
    let data = json!({"customer_id": "01258", "date": "19970925", "number_of_cds": 5, "dollar_value": 26.77});
    assert_eq!(last["data"], data);
    assert!(place.ok("verify").ends_with("no damage found\n"));
}

#[test]
fn an_import_that_is_killed_again_and_again_ends_with_every_row_once() {
    let place = Place::new();
    let rows = 30_000;
    place.write("purchases.txt", purchases(rows));
    let mut kills = 0;
    // Each run gets a little further than the one before, so the kills fall everywhere.
    for life in 1.. {
        let mut child = place.command(PURCHASES.split_whitespace()).spawn().unwrap();
        let end = std::time::Instant::now() + Duration::from_millis(40 * life);
        while std::time::Instant::now() < end && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    let again = place.json(PURCHASES);
    assert_eq!((&again["new"], &again["already_there"]), (&json!(0), &json!(rows)), "after {kills} kills");
    let lines = place.ok("read --all --json");
    assert_eq!(lines.lines().count() as u32, rows);
    let whole = Place::new();
    whole.write("purchases.txt", purchases(rows));
    whole.ok(PURCHASES);
    let without_times = |lines: &str| -> Vec<String> {
        let cut = |line: &str| {
            let (before, rest) = line.split_once(",\"recorded_at\":").unwrap();
            format!("{before}{}", rest.split_once(",\"id\":").unwrap().1)
        };
        lines.lines().map(cut).collect()
    };
    let other = whole.ok("read --all --json");
    assert!(
        without_times(&lines) == without_times(&other),
        "the log is the one that an undisturbed import makes"
    );
}

#[test]
fn an_export_is_imported_to_the_same_log() {
    let place = Place::new();
    place.write("purchases.txt", purchases(2_345));
    place.ok(PURCHASES);
    place.annals_with(
        "append odd-1 --type x --data - --key k\"1 --tag t --content-type text/plain",
        "a\nb\u{7}",
    );
    place.annals_with("append odd-1 --type x --data -", "{\"pretty\":\n  [1.50, 1e300]\r\n}");
    let output = place.annals("export -o whole.jsonl");
    assert_eq!((output.code, output.err.as_str()), (0, "2,347 events in whole.jsonl\n"));
    assert!(!place.path("whole.jsonl.partial").exists());

    let output = place.json("import whole.jsonl --store file:copy --json");
    assert_eq!((&output["new"], &output["moved"]), (&json!(2_347), &json!(0)));
    assert!(
        place.ok("export --store file:copy") == place.read("whole.jsonl"),
        "the copy is the same, byte for byte"
    );
    let digest = |store: &str| place.json(&format!("verify --json --store {store}"))["events"].clone();
    assert_eq!(digest("file:copy"), digest("file:data"));

    let again = place.json("import whole.jsonl --store file:copy --json");
    assert_eq!((&again["new"], &again["already_there"]), (&json!(0), &json!(2_347)));
    assert!(place.ok("export --store file:copy") == place.read("whole.jsonl"));
    assert_eq!(place.ok("export --stream odd-1 --from 2").lines().count(), 1);
    assert_eq!(place.ok("export --from 2347").lines().count(), 1);
}

#[test]
fn a_killed_restore_resumes() {
    let place = Place::new();
    let mut lines = String::new();
    for position in 1..=4_000 {
        let event = json!({"position": position, "stream": format!("s-{}", position % 7), "version": (position + 6) / 7,
            "append": position, "recorded_at": "2017-04-15T13:00:00Z", "data": {"n": position}, "type": "counted",
            "id": format!("00000000-0000-7000-8000-{position:012x}")});
        writeln!(lines, "{event}").unwrap();
    }
    place.write("lines.jsonl", &lines);
    for life in 1..6 {
        let mut child = place.command(["import", "lines.jsonl"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(15 * life));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let output = place.json("import lines.jsonl --json");
    assert_eq!(
        (output["new"].as_u64().unwrap() + output["already_there"].as_u64().unwrap(), &output["moved"]),
        (4_000, &json!(0))
    );
    assert_eq!(place.ok("export").lines().count(), 4_000);
    let last = place.json("read --all --backward --limit 1 --json");
    assert_eq!(
        (&last["data"]["n"], &last["recorded_at"]),
        (&json!(4_000), &json!("2017-04-15T13:00:00.000000Z"))
    );
}

#[test]
fn csv_with_quotes_is_read_and_a_bad_row_is_named() {
    let place = Place::new();
    place.write(
        "sales.csv",
        "sku,what,when,price\r\nA1,\"a \"\"b\"\",\r\nc\",2017-04-15,5.00\r\nB2,x,2017-04-31,1\r\n",
    );
    let output = place.fails(1, "import sales.csv --format csv --stream sale-{sku} --type sold --time when");
    assert_eq!(
        output,
        "sales.csv: line 4, column `when`: `2017-04-31` is not a time: \
         RFC 3339, YYYY-MM-DD, YYYYMMDD or seconds since 1970; nothing was written"
    );
    assert_eq!(place.ok("read --all"), "no events\n");
    place.write("sales.csv", place.read("sales.csv").replace("04-31", "04-30"));
    place.ok("import sales.csv --format csv --stream sale-{sku} --type {what}-sold --time when --id sku");
    let event = place.json("read sale-A1 --json");
    assert_eq!(
        event["data"],
        json!({"sku": "A1", "what": "a \"b\",\r\nc", "when": "2017-04-15", "price": 5.0})
    );
}

#[test]
fn what_cannot_be_brought_in_says_why() {
    let place = Place::new();
    place.write("a.csv", "a,b\n1,2\n");
    for (code, line, output) in [
        (3, "import none.csv --format csv --stream {a} --type x", "cannot open none.csv: "),
        (1, "import . --format csv --stream {a} --type x", "cannot open .: it is a directory"),
        (2, "import a.csv --format csv", "--format csv needs --stream and --type"),
        (
            1,
            "import a.csv --format csv --stream {c} --type x",
            "a.csv: there is no column `c`; the columns are a, b",
        ),
        (1, "import a.csv", "a.csv: line 1: is not a line of `annals export`"),
        (1, "import a.csv --stream {a} --type x", "a.csv: line 1: is not a JSON object"),
        (
            1,
            "import a.csv --format csv --stream $-{a} --type x",
            "a.csv: line 2: its stream `$-1` starts with `$`",
        ),
    ] {
        let found = place.fails(code, line);
        assert!(found.starts_with(output), "{line}: {found}");
    }
}

#[test]
fn lines_of_one_append_without_end_are_refused() {
    let place = Place::new();
    let mut lines = String::new();
    for position in 1..=65_537 {
        writeln!(
            lines,
            "{{\"position\":{position},\"stream\":\"s\",\"version\":{position},\"append\":1,\
             \"recorded_at\":\"2017-04-15T13:00:00Z\",\"data\":1,\"type\":\"t\",\
             \"id\":\"00000000-0000-7000-8000-{position:012x}\"}}"
        )
        .unwrap();
    }
    place.write("lines.jsonl", &lines);
    let output = place.fails(1, "import lines.jsonl");
    assert!(output.contains("line 1: the append that begins here is larger than 65536 events"), "{output}");
}

/// What is in a log already can be taken out of it and brought back, also JSON that is refused where it
/// enters.
#[test]
fn what_was_recorded_before_it_was_refused_comes_back_as_it_is() {
    let place = Place::new();
    let line = json!({"position": 1, "stream": "a-1", "version": 1, "append": 1, "type": "t",
        "recorded_at": "2017-04-15T13:00:00Z", "id": "00000000-0000-7000-8000-000000000001", "data": "DATA"});
    let line = line.to_string().replace("\"DATA\"", r#"{"t":"\ud83d","t":1}"#);
    place.write("lines.jsonl", format!("{line}\n"));
    place.ok("import lines.jsonl");
    assert!(place.ok("export").contains(r#""data":{"t":"\ud83d","t":1}"#));
}
