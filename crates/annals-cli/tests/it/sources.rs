//! Two inputs are two inputs, also if their names and their lines are alike; and an event is one event.

use serde_json::{Value, json};

use crate::support::Place;

const OPTIONS: &str = "--format csv --stream customer-{customer} --type bought";

fn months(jan: &str, feb: &str) -> Place {
    let place = Place::new();
    for (month, rows) in [("jan", jan), ("feb", feb)] {
        std::fs::create_dir(place.path(month)).unwrap();
        place.write(&format!("{month}/sales.csv"), format!("customer,cups\n{rows}"));
    }
    place
}

fn events(place: &Place) -> usize {
    place.ok("read --all --json").lines().count()
}

#[test]
fn another_file_of_the_same_name_is_refused_before_anything_is_written() {
    for (jan, feb) in [
        ("kim,1\nlee,2\n", "kim,1\npark,3\n"),
        ("kim,1\nlee,2\n", "kim,1\nlee,2\n"),
        ("kim,1\nlee,2\n", "kim,1\n"),
        ("kim,1\n", "kim,1\nlee,2\n"),
        ("kim,1\nlee,2\n", "park,3\nlee,2\n"),
    ] {
        let place = months(jan, feb);
        place.ok(&format!("import jan/sales.csv {OPTIONS}"));
        let before = events(&place);
        let output = place.fails(1, &format!("import feb/sales.csv {OPTIONS}"));
        assert!(output.contains("line 2: ") && output.contains("--source NAME"), "{feb}: {output}");
        assert_eq!(events(&place), before, "{feb}");
        place.ok(&format!("import feb/sales.csv --source feb {OPTIONS}"));
        assert_eq!(events(&place), jan.lines().count() + feb.lines().count(), "{feb}");
        let again = place.json(&format!("import feb/sales.csv --source feb {OPTIONS} --json"));
        assert_eq!(again["new"], 0);
    }
}

#[test]
fn a_file_that_was_changed_in_place_is_refused_and_one_that_has_grown_is_not() {
    let place = Place::new();
    let rows = |count: u32| (0..count).map(|row| format!("c{row},{row}\n")).collect::<String>();
    let write = |rows: String| place.write("sales.csv", format!("customer,cups\n{rows}"));
    let import = format!("import sales.csv {OPTIONS} --json");
    for (count, new) in [(1_300, 1_300), (1_301, 1), (3_400, 2_099), (3_400, 0)] {
        write(rows(count));
        assert_eq!(place.json(&import)["new"], new);
    }
    write(rows(3_500).replace("c2500,2500", "c2500,7"));
    let output = place.fails(1, &import);
    assert!(output.contains("line 2502: the store has another row of this source here"), "{output}");
    assert_eq!(events(&place), 3_400);
    // As long as its rows are there, a shorter one is there too.
    write(rows(1_000));
    assert_eq!(place.json(&import)["already_there"], 1_000);
}

#[test]
fn a_file_that_was_moved_is_continued_under_its_former_path() {
    let place = months("kim,1\n", "");
    place.ok(&format!("import jan/sales.csv {OPTIONS}"));
    place.write("feb/sales.csv", "customer,cups\nkim,1\nlee,2\n");
    assert!(place.fails(1, &format!("import feb/sales.csv {OPTIONS}")).contains("give its former path"));
    let moved = place.json(&format!("import feb/sales.csv --moved-from jan/sales.csv {OPTIONS} --json"));
    assert_eq!((&moved["new"], &moved["already_there"]), (&json!(1), &json!(1)));
    assert_eq!(place.json(&format!("import ./jan/sales.csv {OPTIONS} --json"))["already_there"], 1);
}

#[test]
fn names_that_end_alike_are_names_of_two_sources() {
    let place = months("kim,1\n", "kim,1\n");
    for (month, source) in [("jan", "2024/sales"), ("feb", "2025/sales")] {
        let answer = place.json(&format!("import {month}/sales.csv --source {source} {OPTIONS} --json"));
        assert_eq!(answer["new"], 1, "{source}");
    }
}

#[test]
fn standard_input_needs_a_name_for_its_rows() {
    let place = Place::new();
    let rows = "customer,cups\nkim,1\n";
    let refused = place.annals_with(&format!("import - {OPTIONS}"), rows);
    assert_eq!((refused.code, refused.out.as_str()), (2, ""));
    assert!(refused.err.contains("--source") && refused.err.contains("--id"), "{}", refused.err);
    for source in ["jan", "feb"] {
        let answer = place.annals_with(&format!("import - --source {source} {OPTIONS}"), rows);
        assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{source}");
    }
    assert_eq!(events(&place), 2);
    let exported = place.ok("export");
    let answer = place.annals_with("import - --store file:copy", &exported);
    assert_eq!(answer.code, 0, "lines of an export have names of their own: {}", answer.err);
}

#[test]
fn an_id_that_comes_again_with_another_row_is_refused() {
    let place = Place::new();
    let import =
        |file: &str| place.annals(&format!("import {file} --format csv --stream shop --type sold --id id"));
    place.write("jan.csv", "id,cups\n1,1\n2,2\n");
    assert_eq!(import("jan.csv").code, 0);
    // Moved and alike it is the same row.
    place.write("more.csv", "id,cups\n3,3\n2,2\n");
    let answer = import("more.csv");
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(answer.err.contains("1 of the rows were in the store already"), "{}", answer.err);
    assert_eq!(events(&place), 3);
    place.write("feb.csv", "id,cups\n1,7\n2,2\n");
    let answer = import("feb.csv");
    assert_eq!((answer.code, answer.out.as_str()), (1, ""));
    assert!(answer.err.contains("feb.csv: line 2: ") && answer.err.contains("position 1"), "{}", answer.err);
    place.write("twice.csv", "id,cups\n8,1\n8,2\n");
    let answer = import("twice.csv");
    assert_eq!(answer.code, 1);
    assert!(
        answer.err.contains("line 3: ") && answer.err.contains("stopped after 1 events"),
        "{}",
        answer.err
    );
    assert_eq!(events(&place), 4);
}

#[test]
fn two_logs_that_share_a_key_are_not_brought_together_by_dropping_an_event() {
    let place = Place::new();
    place.ok("append a-1 --type t --data \"A\" --key request-1 --store file:a");
    place.ok("append b-1 --type t --data \"B\" --key request-1 --store file:b");
    place.ok("append b-2 --type t --data 2 --store file:b");
    assert_eq!(place.annals("export --store file:a -o a.jsonl").code, 0);
    assert_eq!(place.annals("export --store file:b -o b.jsonl").code, 0);
    place.ok("import a.jsonl --store file:c");
    let output = place.fails(1, "import b.jsonl --store file:c");
    assert!(
        output.contains("line 1: ") && output.contains("`request-1`") && output.contains("a-1"),
        "{output}"
    );
    assert_eq!(place.ok("read --all --json --store file:c").lines().count(), 1);
    // Without the key it is an event like any other.
    place.write("b.jsonl", place.read("b.jsonl").replace(",\"idempotency_key\":\"request-1\"", ""));
    place.ok("import b.jsonl --store file:c");
    assert_eq!(place.ok("read --all --json --store file:c").lines().count(), 3);
}

#[test]
fn an_id_in_an_export_that_is_another_events_is_refused() {
    let place = Place::new();
    place.ok("append a-1 --type t --data 1 --store file:a --id 00000000-0000-7000-8000-000000000001");
    assert_eq!(place.annals("export --store file:a -o a.jsonl").code, 0);
    place.ok("import a.jsonl --store file:c");
    let other = place.read("a.jsonl").replace("\"data\":1", "\"data\":2");
    place.write("a.jsonl", other);
    let output = place.fails(1, "import a.jsonl --store file:c");
    assert!(output.contains("line 1: "), "{output}");
    assert_eq!(place.json("read a-1 --json --store file:c")["data"], json!(1));
}

#[test]
fn a_demo_takes_the_same_purchase_in_two_files_for_two() {
    let place = Place::new();
    let purchase = "00001 19970101 1 11.77\n";
    std::fs::create_dir(place.path("feb")).unwrap();
    place.write("jan.txt", purchase);
    place.write("feb/jan.txt", purchase);
    let revenue = |input: &str| -> Value {
        let answer = place.annals(&format!("demo --once --json --input {input}"));
        assert_eq!(answer.code, 0, "{}", answer.err);
        serde_json::from_str::<Value>(&answer.out).unwrap()["purchases"].clone()
    };
    assert_eq!(
        [revenue("jan.txt"), revenue("jan.txt"), revenue("feb/jan.txt")],
        [json!(1), json!(1), json!(2)]
    );
}
