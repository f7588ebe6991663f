//! Files as other programs write them: read whole, or refused at a line.

use serde_json::{Value, json};

use crate::support::Place;

/// Imports a file that must come in, and returns the data of its events.
fn brought_in(place: &Place, line: &str) -> Vec<Value> {
    let answer = place.annals(line);
    assert_eq!(answer.code, 0, "{line}: {}", answer.err);
    let events = place.ok("read --all --json");
    events.lines().map(|event| serde_json::from_str::<Value>(event).unwrap()["data"].take()).collect()
}

#[test]
fn a_quote_that_is_never_closed_takes_no_rows_with_it() {
    let place = Place::new();
    place.write("two.csv", "id,note\n1,fine\n2,\"5 inch disk\n3,fine\n4,fine\n");
    let line = "import two.csv --format csv --stream sale-{id} --type sold";
    let output = place.fails(1, line);
    assert!(output.contains("line 3: the quote that begins here, in column 2, is never closed"), "{output}");
    place.write("two.csv", "id,note\n1,fine\n2,\"5 inch\" disk\n3,fine\n");
    assert!(place.fails(1, line).contains("line 3: text follows the closing quote of column 2"));
    assert_eq!(place.ok("read --all"), "no events\n");
    let long: String = (0..400).map(|row| format!("{row},x\n")).collect();
    place.write("two.csv", format!("id,note\n1,\"{long}\"\n"));
    let answer = place.annals(line);
    assert_eq!(answer.code, 0);
    assert!(answer.err.contains("line 2: the quoted value that begins here has 400 lines"), "{}", answer.err);
}

#[test]
fn csv_of_a_data_frame_comes_in_with_the_numbers_of_its_rows() {
    let place = Place::new();
    place.write("frame.csv", ",case,time\n0,3,2010-12-30 14:32:00+01:00\n1,3,2010-12-30 15:06:00+01:00\n");
    let answer = place.annals("import frame.csv --format csv --stream case-{case} --type seen --time time");
    assert_eq!(
        (answer.code, answer.err.as_str()),
        (0, "annals: column 1 has no name; it is kept as `column_1`\n")
    );
    let last = place.json("read case-3 --from 2 --json");
    assert_eq!(last["data"], json!({"column_1": 1, "case": "3", "time": "2010-12-30 15:06:00+01:00"}));
    assert_eq!(last["occurred_at"], "2010-12-30T14:06:00Z");
}

#[test]
fn a_comma_at_the_end_of_each_line_is_no_column_unless_something_is_there() {
    let place = Place::new();
    place.write("trailing.csv", "id,a,\n1,2,\n");
    let line = "import trailing.csv --format csv --stream x-{id} --type t";
    assert_eq!(brought_in(&place, line), [json!({"id": "1", "a": 2})]);
    place.write("trailing.csv", "id,a,\n1,2,\n2,3,4\n");
    assert!(place.fails(1, line).contains("line 3: has 3 columns, the header line has 2"));
}

#[test]
fn delimiters_and_decimal_commas_are_named_and_proposed() {
    let place = Place::new();
    place.write("semicolon.csv", "id;date;amount\n1;2017-04-15;1234,50\n2;2017-04-15;1.234,50\n");
    let line = "import semicolon.csv --format csv --stream x-{id} --type t";
    assert!(place.fails(1, line).ends_with("; for this file, --delimiter ';'"));
    let amounts = brought_in(&place, &format!("{line} --delimiter ; --decimal-comma"));
    assert_eq!([&amounts[0]["amount"], &amounts[1]["amount"]], [&json!(1234.5), &json!("1.234,50")]);
    for (name, text, more) in
        [("sep.csv", "sep=;\r\nid;a\r\n1;2\r\n", ""), ("tab.csv", "id\ta\n1\t2\n", " --delimiter tab")]
    {
        let place = Place::new();
        place.write(name, text);
        let line = format!("import {name} --format csv --stream x-{{id}} --type t{more}");
        assert_eq!(brought_in(&place, &line), [json!({"id": "1", "a": 2})], "{name}");
    }
}

#[test]
fn encodings_are_named_and_what_is_not_in_them_is_refused() {
    let place = Place::new();
    place.write("korean.csv", b"id,name\n1,\xb1\xe8\xc3\xb6\xbc\xf6\n");
    let line = "import korean.csv --format csv --stream x-{id} --type t";
    let output = place.fails(1, line);
    assert!(output.contains("line 2: is not UTF-8") && output.contains("--encoding"), "{output}");
    assert_eq!(brought_in(&place, &format!("{line} --encoding cp949"))[0]["name"], "김철수");
    let place = Place::new();
    let excel: Vec<u8> =
        "\u{feff}id\tname\r\n1\t계좌\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    place.write("excel.txt", excel);
    let line = "import excel.txt --format csv --delimiter tab --stream x-{id} --type t";
    assert_eq!(brought_in(&place, line)[0]["name"], "계좌");
}

#[test]
fn json_comes_in_however_it_is_laid_out() {
    for (text, count) in [
        ("[{\"id\":1},{\"id\":2}]", 2),
        ("[\n  {\n    \"id\": 1\n  }\n]\n", 1),
        ("{\n  \"id\": 1\n}\n{\n  \"id\": 2\n}\n", 2),
        ("[{\"id\":1},{\"id\":1}]", 2),
        ("{\"id\":1} {\"id\":1}\n", 2),
        ("[]", 0),
    ] {
        let place = Place::new();
        place.write("rows.json", text);
        let line = "import rows.json --stream x-{id} --type t --json";
        assert_eq!(place.json(line)["new"], count, "{text}");
        assert_eq!(place.json(line)["already_there"], count, "{text}");
    }
    let place = Place::new();
    for (text, output) in [
        ("{\"id\":1}\n{\"id\":2\n{\"id\":3}\n", "line 2: is not JSON: the value that begins here never ends"),
        ("[{\"id\":1},\n1]", "line 2: is not a JSON object"),
        ("{\"id\":1}\n{\"id\":1,\"id\":2}\n", "line 2: is not a JSON object"),
        ("{\"id\":1,\"t\":\"\\ud83d\"}\n", "line 1: is not a JSON object"),
        ("{\n\"id\":1,\n\"x\":01}\n", "line 3: is not a JSON object"),
    ] {
        place.write("rows.json", text);
        let found = place.fails(1, "import rows.json --stream x-{id} --type t");
        assert!(found.contains(output), "{text}: {found}");
    }
    assert_eq!(place.ok("read --all"), "no events\n");
}

#[test]
fn a_field_within_a_field_is_named_by_its_path_and_data_by_its_column() {
    let place = Place::new();
    place.write(
        "nested.jsonl",
        "{\"id\":\"7\",\"type\":\"PushEvent\",\"repo\":{\"name\":\"org/repo\"},\"payload\":{\"n\": 1.50},\"at\":\"2015-01-01T15:00:00Z\"}\n",
    );
    place.ok("import nested.jsonl --stream repo-{repo.name} --type {type} --time at --id id --data payload");
    let event = place.ok("read --all --json");
    assert!(
        event.contains("\"data\":{\"n\": 1.50}") && event.contains("\"stream\":\"repo-org/repo\""),
        "{event}"
    );
    let place = Place::new();
    place.write("outbox.csv", "id,payload\n1,\"{\"\"a\"\":1}\"\n2,plain\n");
    let line = "import outbox.csv --format csv --stream x-{id} --type t --data payload";
    assert_eq!(brought_in(&place, line), [json!({"a": 1}), json!("plain")]);
    let output = place.fails(1, "import outbox.csv --format csv --stream x-{id} --type t --data none");
    assert!(output.contains("there is no column `none`"), "{output}");
}

#[test]
fn rows_that_lack_what_makes_their_stream_do_not_share_one() {
    let place = Place::new();
    place.write("sales.csv", "id,kind\n1,a\n,b\n");
    let line = "import sales.csv --format csv --stream sale-{id} --type sold";
    let output = place.fails(1, line);
    assert!(output.contains("line 3, column `id`: is empty, but makes the stream"), "{output}");
    place.write("sales.csv", "id,kind\n1,\n");
    let typed = "import sales.csv --format csv --stream sale-{id} --type {kind}";
    assert!(place.fails(1, typed).contains("column `kind`: is empty, but makes the type"));
    for name in [".", ".."] {
        place.write("sales.csv", format!("id\n{name}\n"));
        let output = place.fails(1, "import sales.csv --format csv --stream {id} --type t");
        assert!(output.contains("line 2: "), "{output}");
    }
    place.write("sales.csv", "id,kind\n1,a\n2,\n");
    place.ok(&format!("{line} --tag kind:{{kind}}"));
    let tags: Vec<_> = place.ok("read --all --json").lines().map(|line| line.contains("\"tags\"")).collect();
    assert_eq!(tags, [true, false]);
}

#[test]
fn what_other_programs_write_for_no_value_names_no_stream_no_type_and_no_id() {
    for null in ["NULL", "\\N", "NaN", "nan", "None", "NA", "<NA>", "#N/A", " NULL "] {
        let place = Place::new();
        place.write("rows.csv", format!("id,v\n1,{null}\n{null},2\n{null},3\n"));
        for line in ["--stream x-{id} --type t", "--stream x --type {id}", "--stream x --type t --id id"] {
            let line = format!("import rows.csv --format csv {line}");
            let output = place.fails(1, &line);
            assert!(
                output.contains("line 3, column `id`: `") && output.contains("--null-is-value"),
                "{output}"
            );
        }
        assert_eq!(place.ok("read --all"), "no events\n");
        // As data it is text, and as a name where that is what it is.
        let line = "import rows.csv --format csv --stream x-{id} --type t --null-is-value";
        assert_eq!(brought_in(&place, line)[0]["v"], null);
    }
    let place = Place::new();
    place.write("rows.jsonl", "{\"id\":\"NA\"}\n{\"id\":null}\n");
    let output = place.fails(1, "import rows.jsonl --stream country-{id} --type t");
    assert!(output.contains("line 2, column `id`: `null` is not text"), "{output}");
}

#[test]
fn files_that_are_nearly_what_they_seem_are_read_whole_or_refused_at_a_line() {
    let utf16 = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let cut = |mut bytes: Vec<u8>| {
        bytes.pop();
        bytes
    };
    // `printf 'id,v\n1,2\n' | gzip -n`, and the same of `3,4`.
    let packed = [
        &b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcb\x4c\xd1\x29\xe3\x32\xd4\x31\xe2\x02\x00\xaa\xb5\xdb\xa9\x09\x00\x00\x00"[..],
        &b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x33\xd6\x31\xe1\x02\x00\x3e\x2d\x72\xa9\x04\x00\x00\x00"[..],
    ];
    let pair = |id: &str, v: Value| json!({"id": id, "v": v});
    for (bytes, expected) in [
        (utf16("\u{feff}sep=;\r\nid;v\r\n1;\"a\r\nb\"\r\n"), Ok(vec![pair("1", json!("a\r\nb"))])),
        (cut(utf16("\u{feff}id,v\r\n1,x\r\n")), Err("is not UTF-16LE, at byte")),
        (utf16("id,v\n1,x\n"), Err("--encoding utf-16le")),
        (b"\xef\xbb\xbf\"id\",\"v\"\r\n\"1\",\"2\"\r\n".to_vec(), Ok(vec![pair("1", json!(2))])),
        (packed.concat(), Ok(vec![pair("1", json!(2)), pair("3", json!(4))])),
        (cut(packed.concat()), Err("the gzip file cannot be unpacked beyond here")),
        ([packed[0], b"x"].concat(), Err("the gzip file cannot be unpacked beyond here")),
        ([packed[0], &packed[1][..12]].concat(), Err("the gzip file cannot be unpacked beyond here")),
        (b"id,v\n1,2\n3\n".to_vec(), Err("line 3: has 1 columns")),
        (b"id,v\n1,2\n3,4,5\n".to_vec(), Err("line 3: has 3 columns")),
        (b"id,v,id\n1,2,3\n".to_vec(), Err("line 1, column `id`: is the name of two columns")),
        (b"id,v\n1,2\n\x1a".to_vec(), Err("line 3: has 1 columns")),
        (b"id,v\n1,\"a\\\"b\"\n".to_vec(), Err("line 2: text follows the closing quote")),
        (b"id,v\r\n1,\"1,234.50\"\r\n".to_vec(), Ok(vec![pair("1", json!("1,234.50"))])),
        (b"id,v\n".to_vec(), Ok(vec![])),
        (b"".to_vec(), Err("the file is empty")),
    ] {
        let place = Place::new();
        place.write("rows.csv", &bytes);
        let line = "import rows.csv --format csv --stream x-{id} --type t";
        match expected {
            Ok(rows) if rows.is_empty() => assert!(place.ok(line).starts_with("0 events")),
            Ok(rows) => assert_eq!(brought_in(&place, line), rows, "{bytes:?}"),
            Err(problem) => {
                let output = place.fails(1, line);
                assert!(output.contains(problem) && output.ends_with("nothing was written"), "{output}");
            }
        }
    }
}

#[test]
fn every_error_names_its_line_and_how_many_rows_are_in_the_store() {
    for (bad, problem) in [
        ("$x,y".to_owned(), "its stream `$x` starts with `$`"),
        (format!("7,{}", "y".repeat(17_000_000)), "its data makes an event of 1700001"),
        (format!("{},y", "7".repeat(1_100)), "its stream is 1100 bytes long"),
        ("7,\"y".to_owned(), "the quote that begins here"),
    ] {
        let place = Place::new();
        let rows: String = (0..2_500)
            .map(|row| if row == 1_700 { format!("{bad}\n") } else { format!("{row},y\n") })
            .collect();
        place.write("rows.csv", format!("id,v\n{rows}"));
        let output = place.fails(1, "import rows.csv --format csv --stream {id} --type t");
        assert!(output.contains("line 1702: ") && output.contains(problem), "{problem}: {output}");
        assert!(
            output.contains("stopped after 1") && output.contains("events, which are in the store"),
            "{output}"
        );
    }
}

#[test]
fn a_packed_file_is_unpacked_and_half_of_one_is_refused() {
    let place = Place::new();
    // `printf '{"id":1}\n{"id":2}\n' | gzip -n`
    let packed = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\x56\xca\x4c\x51\xb2\x32\xac\xe5\xaa\x06\x33\x8c\x6a\xb9\x00\x06\x2c\xa5\x04\x12\x00\x00\x00";
    place.write("rows.jsonl.gz", packed);
    let line = "import rows.jsonl.gz --stream x-{id} --type t";
    place.write("half.gz", &packed[..packed.len() - 9]);
    let output = place.fails(1, "import half.gz --stream x-{id} --type t");
    assert!(output.contains("line ") && output.ends_with("nothing was written"), "{output}");
    assert_eq!(brought_in(&place, line), [json!({"id": 1}), json!({"id": 2})]);
}

#[test]
fn a_dry_run_reads_everything_and_writes_nothing() {
    let place = Place::new();
    place.write("rows.csv", "id,v\n1,2\n1,3\n2,4\n");
    let line = "import rows.csv --format csv --stream x-{id} --type t --dry-run";
    assert_eq!(place.ok(line), "3 events in 2 streams; nothing was written\n");
    let answer = place.json(&format!("{line} --json"));
    assert_eq!(answer, json!({"dry_run": true, "events": 3, "streams": 2}));
    place.write("rows.csv", "id,v\n1,2\n,3\n");
    assert!(place.fails(1, line).contains("line 3, column `id`"));
    assert!(!place.path("data").exists());
    place.ok("append a-1 --type t");
    assert_eq!(place.annals("export -o log.jsonl").code, 0);
    assert_eq!(
        place.ok("import log.jsonl --dry-run --store file:none"),
        "1 event in 1 stream; nothing was written\n"
    );
    assert!(!place.path("none").exists());
}

#[test]
fn options_that_cannot_be_are_refused() {
    let place = Place::new();
    place.write("a.csv", "a,b\n1,2\n");
    for (line, output) in [
        ("import a.csv --format csv --stream {a} --type t --delimiter ;;", "is not one sign"),
        ("import a.csv --format csv --stream {a} --type t --encoding ebcdic", "is not an encoding"),
        (
            "import a.csv --format csv --stream {a} --type t --time b --time-unit days",
            "possible values: s, ms, us, ns",
        ),
        ("import a.csv --format csv --stream {a} --type t --time b --time-offset Berlin", "is not an offset"),
        ("import a.csv --stream {a} --type t --delimiter ;", "--delimiter is for --format csv"),
    ] {
        let found = place.fails(2, line);
        assert!(found.contains(output), "{line}: {found}");
    }
}
