//! What the first version of the program began: imports, in which the rows of a file were known by its last
//! name alone, and demos, in which purchases were not told apart by their file.

use crate::support::Place;

const SALES: &str = "customer,cups,sku,at\nkim,1,,1969-12-31T23:59:59.1234567Z\nlee,2,a,-0.0000001\npark,\"a\rb\",b,0\nchoi,4,,1\n";
const OPTIONS: &str =
    "--format csv --stream customer-{customer} --type bought --tag sku:{sku} --time at --json";

/// A place with a store as the first version left it, and the file that it had brought in.
fn place(log: &str) -> Place {
    let place = Place::new();
    place.write("log.jsonl", log);
    place.ok("import log.jsonl");
    std::fs::create_dir(place.path("jan")).unwrap();
    place.write("jan/sales.csv", SALES);
    place
}

/// Runs an import, and returns how many events are new and how many were there, with what standard error
/// says.
fn import(place: &Place, line: &str, input: &str) -> ((u64, u64), String) {
    let answer = place.annals_with(line, input);
    assert_eq!(answer.code, 0, "{line}: {}", answer.err);
    let counts: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    let count = |name: &str| counts[name].as_u64().unwrap();
    ((count("new"), count("already_there")), answer.err)
}

#[test]
fn a_file_imported_by_the_first_version_is_kept_and_its_new_rows_are_added() {
    let place = place(include_str!("../../../../fixtures/first-version/file.jsonl"));
    let line = format!("import jan/sales.csv {OPTIONS}");
    let (counts, output) = import(&place, &line, "");
    assert_eq!(counts, (0, 4));
    assert!(
        output.contains("the first 4 rows of `sales.csv`") && output.contains("--source NAME"),
        "{output}"
    );
    place.write("jan/sales.csv", format!("{SALES}kim,1,,9\nkim,1,,9\n"));
    assert_eq!(import(&place, &line, "").0, (2, 4));
    assert_eq!(import(&place, &line, "").0, (0, 6));
    // Moved since, it is still that file.
    std::fs::rename(place.path("jan/sales.csv"), place.path("moved.csv")).unwrap();
    let moved = format!("import moved.csv --moved-from jan/sales.csv {OPTIONS}");
    assert_eq!(import(&place, &moved, "").0, (0, 6));
    assert_eq!(place.ok("read --all --json").lines().count(), 6);
}

#[test]
fn another_file_of_the_name_is_not_taken_for_the_one_that_the_first_version_brought_in() {
    let place = place(include_str!("../../../../fixtures/first-version/file.jsonl"));
    std::fs::create_dir(place.path("feb")).unwrap();
    place.write("feb/sales.csv", SALES.replace("kim,1", "kim,7"));
    let (feb, jan) = (format!("import feb/sales.csv {OPTIONS}"), format!("import jan/sales.csv {OPTIONS}"));
    assert_eq!(import(&place, &feb, ""), ((4, 0), String::new()));
    assert_eq!(import(&place, &jan, "").0, (0, 4), "what was there before it is still found");
    assert_eq!(import(&place, &feb, ""), ((0, 4), String::new()));
}

#[test]
fn standard_input_that_the_first_version_brought_in_is_named_by_its_dash() {
    let place = place(include_str!("../../../../fixtures/first-version/stdin.jsonl"));
    let refused = place.annals_with(&format!("import - {OPTIONS}"), SALES);
    assert!(refused.code == 2 && refused.err.contains("is named -"), "{}", refused.err);
    let line = format!("import - --source - {OPTIONS}");
    let more = format!("{SALES}kim,1,,9\n");
    assert_eq!(import(&place, &line, SALES), ((0, 4), String::new()));
    assert_eq!(import(&place, &line, &more), ((1, 4), String::new()));
}

#[test]
fn rows_with_an_id_that_the_first_version_made_are_the_same_rows_wherever_they_are() {
    let place = place(include_str!("../../../../fixtures/first-version/by-id.jsonl"));
    let line = format!("import jan/sales.csv --id customer {OPTIONS}");
    assert_eq!(import(&place, &line, ""), ((0, 4), String::new()));
    let rows: Vec<_> = SALES.split_inclusive('\n').collect();
    place.write("jan/sales.csv", [rows[0], rows[3], rows[1], rows[4], "new,1,,7\n", rows[2]].concat());
    assert_eq!(import(&place, &line, "").0, (1, 4));
    // The same id with another content is refused as before.
    place.write("jan/sales.csv", SALES.replace("kim,1,,", "kim,1,x,"));
    assert!(place.fails(1, &line).contains("line 2: its id is that of another event"));
}

#[test]
fn lines_that_end_with_a_carriage_return_alone_are_known_as_the_first_version_knew_them() {
    let place = place(include_str!("../../../../fixtures/first-version/carriage-returns.jsonl"));
    // Rows that are alike were refused then, and are two rows now.
    for (more, counts) in [("", (0, 2)), ("1,3\r1,3\r", (2, 2)), ("1,3\r1,3\r", (0, 4))] {
        place.write("mac.csv", format!("a,b\r1,2\r1,3\r{more}"));
        let line = "import mac.csv --format csv --stream x-{a} --type t --json";
        assert_eq!(import(&place, line, ""), (counts, String::new()));
    }
    place.write("bad.csv", "a,b\r1,2\r1\r");
    let output = place.fails(1, "import bad.csv --format csv --stream x-{a} --type t");
    assert!(output.contains("line 3: "), "lines are counted as people do: {output}");
}

#[test]
fn purchases_that_the_first_version_fed_are_not_fed_again() {
    let place = Place::new();
    place.write("log.jsonl", include_str!("../../../../fixtures/first-version/demo.jsonl"));
    place.ok("import log.jsonl");
    let orders = || place.ok("read --all --type order.placed --json").lines().count();
    let purchases = " 00001 19970101  1   11.77\n 00002 19970112  1   12.00\n";
    place.write("small.txt", purchases);
    for _ in 0..2 {
        let answer = place.annals("demo --once --input small.txt");
        assert_eq!(answer.code, 0, "{}", answer.err);
        assert!(answer.err.contains("small.txt from an earlier version"), "{}", answer.err);
        assert!(answer.out.contains("nothing was added"), "{}", answer.out);
    }
    assert_eq!(orders(), 2);
    // A file that has grown is continued, and another one is another one.
    place.write("small.txt", format!("{purchases} 00003 19970113  1   13.00\n"));
    place.annals("demo --once --input small.txt");
    assert_eq!(orders(), 3);
    place.write("third.txt", " 00004 19970113  1   13.00\n");
    let answer = place.annals("demo --once --input third.txt");
    assert_eq!((answer.code, answer.err.contains("earlier version")), (0, false), "{}", answer.err);
    assert_eq!(orders(), 4);
}

#[test]
fn an_export_without_numbers_of_events_is_imported_with_the_same_appends() {
    let place = Place::new();
    let lines = include_str!("../../../../fixtures/first-version/appends.jsonl");
    place.write("log.jsonl", lines);
    place.ok("import log.jsonl");
    let export = place.ok("export");
    let first: serde_json::Value = serde_json::from_str(export.lines().next().unwrap()).unwrap();
    assert_eq!((&first["append_event"], &first["append_events"]), (&1.into(), &3.into()));
    let mut without = String::new();
    for line in export.lines() {
        let (head, tail) = line.split_once(",\"append_event\":").unwrap();
        let (_, tail) = tail.split_once(",\"recorded_at\"").unwrap();
        without.push_str(&format!("{head},\"recorded_at\"{tail}\n"));
    }
    assert_eq!(without, lines);
    // What lacks its last lines cannot be noticed there; in a new export it is.
    place.write("cut.jsonl", export.lines().take(2).map(|line| format!("{line}\n")).collect::<String>());
    let output = place.fails(1, "import cut.jsonl --store file:copy");
    assert!(output.contains("cut.jsonl: line 2: the file ends within an append"), "{output}");
    place.write("late.jsonl", export.lines().skip(3).map(|line| format!("{line}\n")).collect::<String>());
    let output = place.annals("import late.jsonl --store file:late").err;
    assert!(output.contains("stream `x-1` is at version 0, not 1"), "{output}");
    assert!(output.contains("the file begins at position 4 and the log ends at 0"), "{output}");
}
