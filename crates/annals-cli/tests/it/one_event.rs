//! `append`, `read` and `streams`.

use annals_core::{Append, EventStore as _, Expected, NewEvent, StreamId};
use annals_engine::{EngineStore, Options};
use serde_json::json;

use crate::support::Place;

#[test]
fn an_event_is_appended_and_read_again_by_another_process() {
    let place = Place::new();
    let output = place.ok(r#"append account-42 --type account.opened --data {"owner":"kim"} --expect none"#);
    assert_eq!(output, "account-42 version 1, position 1\n");
    let line = "append account-42 --type account.deposited --data - --expect 1 --tag big --process p --initiator user:7";
    assert_eq!(place.annals_with(line, "{\"amount\": 30}\n").out, "account-42 version 2, position 2\n");

    let lines = place.ok("read account-42 --json");
    let events: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2);
    assert_eq!((&events[0]["data"], &events[1]["version"]), (&json!({"owner": "kim"}), &json!(2)));
    assert_eq!(events[1]["metadata"], json!({"process": "p", "initiator": "user:7"}));
    assert_eq!(events[1]["tags"], json!(["big"]));
    assert!(
        lines.contains("\"data\":{\"amount\": 30},"),
        "the bytes are kept, but for blanks around them: {lines}"
    );
    assert_eq!(place.ok("streams"), "STREAM      VERSION  NEWEST EVENT\naccount-42        2             2\n");
}

#[test]
fn names_that_are_kept_for_annals_are_refused_and_restored() {
    let place = Place::new();
    for line in ["append annals.answers-a-1 --type opened", "append a-1 --type annals.command_refused"] {
        let output = place.fails(2, line);
        assert!(output.contains("begins with `annals.`, which is reserved for Annals"), "{output}");
        assert!(output.contains("nothing was written"), "{output}");
    }
    place.write("rows.csv", "stream,type\nannals.answers-a-1,opened\n");
    let import = "import rows.csv --format csv --stream {stream} --type {type}";
    let output = place.fails(1, import);
    assert!(output.contains("line 2") && output.contains("reserved for Annals"), "{output}");
    place.write("rows.csv", "stream,type\na-1,annals.command_refused\n");
    assert!(place.fails(1, import).contains("its type"), "also a type");

    // What the framework has written is exported and brought back as it is.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = EngineStore::open(place.path("data"), Options::default()).unwrap();
        let fact = NewEvent::new("annals.command_refused", r#"{"code":"late"}"#).unwrap();
        let stream = StreamId::new("annals.answers-a-1").unwrap();
        let append = Append::to(stream, Expected::Any, [fact]).once("a-1/k".parse().unwrap());
        store.append(append).await.unwrap();
    });
    let exported = place.ok("export");
    assert_eq!(exported.lines().count(), 1);
    place.write("exported.jsonl", &exported);
    place.ok("import exported.jsonl --store file:copy");
    assert_eq!(place.ok("export --store file:copy"), exported);
    place.ok("backup backups");
    place.ok("restore backups --store file:restored");
    assert_eq!(place.ok("export --store file:restored"), exported);
}

#[test]
fn events_are_found_by_id_and_by_what_caused_them() {
    let place = Place::new();
    let id = "0f8fad5b-d9cb-469f-a165-70867728950e";
    place.ok(&format!("append a-1 --type opened --id {id}"));
    place.ok(&format!("append b-1 --type opened --id {id}"));
    place.ok(&format!("append c-1 --type followed --predecessor {id}"));
    let positions = |line: &str| {
        let lines = place.ok(&format!("read --all --json {line}"));
        let position = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["position"].as_u64().unwrap()
        };
        lines.lines().map(position).collect::<Vec<_>>()
    };
    assert_eq!(positions(&format!("--id {id}")), [1, 2]);
    assert_eq!(positions(&format!("--id {id} --category b")), [2]);
    assert_eq!(positions(&format!("--predecessor {id} --backward --limit 1")), [3]);
    assert!(positions(&format!("--predecessor {id}x")).is_empty());
    assert!(place.fails(2, "read --all --id 7").contains("not a UUID"));
    assert!(place.fails(2, &format!("read a-1 --id {id}")).contains("--id"));
}

#[test]
fn people_see_a_table() {
    let place = Place::new();
    place.ok("append a-1 --type opened --occurred-at 2017-04-15");
    place.ok("append account-22 --type closed.for.ever --occurred-at 2017-04-16T01:02:03Z");
    let table = "\
POSITION  STREAM      VERSION  TYPE             OCCURRED              DATA
       1  a-1               1  opened           2017-04-15T00:00:00Z  {}
       2  account-22        1  closed.for.ever  2017-04-16T01:02:03Z  {}
";
    assert_eq!(place.ok("read --all"), table);
}

#[test]
fn times_say_whether_they_are_when_it_happened_or_when_it_was_recorded() {
    let place = Place::new();
    place.ok("append a-1 --type opened --occurred-at 2017-04-15");
    place.ok("append b-1 --type opened");
    let (happened, recorded, both) = (place.ok("read a-1"), place.ok("read b-1"), place.ok("read --all"));
    assert!(happened.contains("  OCCURRED ") && happened.contains("  2017-04-15T00:00:00"), "{happened}");
    assert!(recorded.contains("  RECORDED ") && !recorded.contains("(recorded)"), "{recorded}");
    let marked: Vec<_> = both.lines().map(|line| line.contains("Z (recorded)  {}")).collect();
    assert!(both.contains("  OCCURRED ") && marked == [false, false, true], "{both}");
}

#[test]
fn a_stream_that_is_not_there_is_not_an_empty_page() {
    let place = Place::new();
    place.ok("append account-1 --type opened");
    for line in
        ["read acount-1", "read acount-1 --json", "export --stream acount-1", "export --stream acount-1 -o x"]
    {
        let output = place.fails(3, line);
        assert!(output.ends_with("there is no stream `acount-1` in file:data"), "{line}: {output}");
    }
    assert!(!place.path("x").exists());
    assert_eq!(place.ok("read account-1 --from 7"), "no events; account-1 ends at version 1\n");
    assert_eq!(place.ok("read account-1 --from 7 --json"), "");
    assert_eq!(place.ok("read --all --category order"), "no events; the log ends at position 1\n");
    assert_eq!(place.ok("export --stream account-1 --from 7"), "");
    assert_eq!(place.ok("streams --category order"), "no streams of the category `order`\n");
    assert_eq!(place.ok("read --all --store memory:"), "no events\n");
}

#[test]
fn an_error_is_json_where_the_answer_would_be() {
    let place = Place::new();
    place.ok("append a-1 --type opened --key k");
    let problem = |line: &str| -> serde_json::Value {
        let answer = place.annals(line);
        assert_eq!((answer.code == 0, answer.out.as_str()), (false, ""), "{line}");
        let problem: serde_json::Value = serde_json::from_str(&answer.err).unwrap();
        assert_eq!(problem["exit_code"], answer.code, "{line}");
        problem
    };
    let conflict = problem("append a-1 --type closed --expect none --json");
    assert_eq!(
        (&conflict["code"], &conflict["status"], &conflict["exit_code"]),
        (&"conflict".into(), &409.into(), &4.into())
    );
    assert_eq!(
        (&conflict["actual_version"], &conflict["violations"][0]["stream"]),
        (&1.into(), &"a-1".into())
    );
    assert_eq!(conflict["detail"], "nothing was written: stream `a-1` exists already, at version 1");
    let reused = problem("append b-1 --type opened --key k --json");
    assert_eq!((&reused["code"], &reused["first_position"]), (&"reused".into(), &1.into()));
    let invalid = problem("append $a --type opened --json");
    assert_eq!(
        (&invalid["code"], &invalid["field"], &invalid["exit_code"]),
        (&"invalid".into(), &"stream".into(), &2.into())
    );
    for (line, code, exit) in [
        ("append a-1 --type opened --data {half --json", "invalid", 2),
        ("read a-1 --json --limit many", "invalid", 2),
        ("read b-1 --json", "not-found", 3),
        ("read --all --json --store file:none", "not-found", 3),
        ("read --all --json --store postgres://127.0.0.1:1/none", "unavailable", 5),
        ("read a-1 --json --after 1@0f8fad5b-d9cb-469f-a165-70867728950e", "other-history", 4),
        ("import none.csv --stream a --type t --json", "not-found", 3),
        ("torture --dir . --minutes 1 --json", "failed", 1),
    ] {
        let problem = problem(line);
        assert_eq!(
            (&problem["code"], &problem["exit_code"]),
            (&code.into(), &exit.into()),
            "{line}: {problem}"
        );
        assert_eq!(problem["type"], format!("urn:annals:problem:{code}"));
    }
    place.write("bad.csv", "a,b\n1,2\n3\n");
    let bad = problem("import bad.csv --format csv --stream s-{a} --type t --json");
    assert_eq!((&bad["line"], &bad["exit_code"]), (&3.into(), &1.into()), "{bad}");
    // What an answer says of an event is in the order of events.
    let answer = place.ok("append a-1 --type closed --json");
    let places: Vec<_> = ["position", "stream", "version", "recorded_at", "id", "duplicate"]
        .iter()
        .map(|name| answer.find(&format!("\"{name}\":")).unwrap())
        .collect();
    assert!(places.is_sorted(), "{answer}");
}

#[test]
fn the_content_of_an_event_does_not_control_the_terminal() {
    let place = Place::new();
    let mut command =
        place.command(["append", "a\u{1b}[31m", "--type", "x\u{7}", "--content-type", "text/plain"]);
    assert!(command.args(["--data", "\u{1b}]0;title\u{7}\n"]).output().unwrap().status.success());
    let table = place.ok("read --all");
    assert!(!table.contains('\u{1b}') && !table.contains('\u{7}'), "{table:?}");
    assert_eq!(table.lines().count(), 2);
}

#[test]
fn a_key_that_was_used_gets_the_first_answer() {
    let place = Place::new();
    place.ok("append a --type x --key k");
    assert_eq!(place.ok("append a --type x --key k"), "a version 1, position 1 (already appended)\n");
    let json = place.json("append a --type x --key k --json");
    assert_eq!(
        (&json["duplicate"], &json["version"], &json["position"]),
        (&json!(true), &json!(1), &json!(1))
    );
}

#[test]
fn a_version_that_is_not_there_is_refused_with_the_one_that_is() {
    let place = Place::new();
    place.ok("append a --type x");
    assert_eq!(
        place.fails(4, "append a --type x --expect 7"),
        "nothing was written: stream `a` is at version 1, not 7"
    );
    assert_eq!(
        place.fails(4, "append a --type x --expect none"),
        "nothing was written: stream `a` exists already, at version 1"
    );
    assert_eq!(
        place.fails(4, "append b --type x --expect exists"),
        "nothing was written: stream `b` does not exist"
    );
}

#[test]
fn data_must_be_json_unless_another_content_type_is_given() {
    let place = Place::new();
    let output = place.fails(2, "append a --type x --data {half");
    assert!(output.starts_with("--data is not JSON: ") && output.contains("--content-type"), "{output}");
    place.ok("append a --type x --data {half --content-type text/plain");
    assert_eq!(place.json("read a --json")["data_base64"], "e2hhbGY=");
}

#[test]
fn a_read_pages_through_everything_and_stops_at_its_limit() {
    let place = Place::new();
    let rows: String = (0..1_700).map(|row| format!("{{\"s\":{},\"n\":{row}}}\n", row % 2)).collect();
    place.write("rows.jsonl", rows);
    place.ok("import rows.jsonl --stream s-{s} --type counted --tag half:{s}");
    let count = |line: &str| place.ok(line).lines().count();
    assert_eq!(count("read --all --json"), 1_700);
    assert_eq!(count("read --all"), 1_701 + 3, "each of four pages has its own line of names");
    assert_eq!(count("read s-1 --json"), 850);
    assert_eq!(count("read --all --json --tag half:0 --limit 601"), 601);
    assert_eq!(count("read --all --json --category s --type counted --from 1001"), 700);
    let newest = place.ok("read --all --json --backward --limit 2");
    assert!(newest.starts_with("{\"position\":1700,"), "{newest}");
    assert_eq!(place.json("read s-0 --from 850 --json")["data"]["n"], 1_698);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new();
    let rows: String = (0..20_000).map(|row| format!("{{\"n\":{row}}}\n")).collect();
    place.write("rows.jsonl", rows);
    place.ok("import rows.jsonl --stream s --type counted");
    for line in [&["read", "--all"][..], &["read", "--all", "--json"], &["export"]] {
        let mut child = place.command(line).spawn().unwrap();
        drop(child.stdout.take());
        let answer = child.wait_with_output().unwrap();
        assert!(
            answer.status.success() && answer.stderr.is_empty(),
            "{line:?}: {}",
            String::from_utf8_lossy(&answer.stderr)
        );
    }
}

#[test]
fn bytes_that_are_not_utf8_are_not_recorded_as_json() {
    let place = Place::new();
    let korean = b"{\"name\":\"\xb1\xe8\xc3\xb6\xbc\xf6\"}";
    let output = place.annals_with("append p-1 --type t --data -", korean);
    assert_eq!((output.code, output.out.as_str()), (2, ""));
    assert!(output.err.starts_with("annals: --data is not UTF-8, from its byte 9 on"), "{}", output.err);
    assert!(!place.path("data").exists());
    assert_eq!(place.annals_with("append p-1 --type t --data - --content-type text/plain", korean).code, 0);
}

#[test]
fn half_a_character_is_not_taken_as_json() {
    let place = Place::new();
    let mut command = place.command(["append", "a-1", "--type", "t", "--data", r#"{"text":"bye \ud83d"}"#]);
    let answer: crate::support::Answer = command.output().unwrap().into();
    assert_eq!(answer.code, 2, "{}", answer.out);
    assert!(answer.err.starts_with("annals: --data is not JSON: "), "{}", answer.err);
    place.ok(r#"append a-1 --type t --data {"text":"\ud83d\ude00"}"#);
}

/// As much is read as an event may have: `/dev/zero` has no end.
#[cfg(unix)]
#[test]
fn standard_input_without_end_is_refused() {
    let place = Place::new();
    let mut command = place.command(["append", "a-1", "--type", "t", "--data", "-"]);
    command.stdin(std::fs::File::open("/dev/zero").unwrap());
    let answer: crate::support::Answer = command.output().unwrap().into();
    assert_eq!(answer.code, 2);
    assert!(answer.err.contains("more than the 16777216 bytes that an event may have"), "{}", answer.err);
}

/// On Linux, for `/dev/full` takes nothing.
#[cfg(target_os = "linux")]
#[test]
fn an_answer_that_cannot_be_written_is_a_failure_and_a_note_that_cannot_be_written_is_none() {
    let place = Place::new();
    place.ok("append a-1 --type t");
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for line in ["read --all", "streams", "export", "append a-1 --type t"] {
        let mut command = place.command(line.split_whitespace());
        let answer: crate::support::Answer = command.stdout(full()).output().unwrap().into();
        assert_eq!(answer.code, 1, "{line}");
        assert!(
            answer.err.contains("cannot write to standard output: No space left"),
            "{line}: {}",
            answer.err
        );
    }
    for (line, code) in [
        ("export -o whole.jsonl", 0),
        ("read --all", 0),
        ("read --from x", 2),
        ("verify --store file:none", 3),
    ] {
        let mut command = place.command(line.split_whitespace());
        assert_eq!(command.stderr(full()).output().unwrap().status.code(), Some(code), "{line}");
    }
    assert!(place.read("whole.jsonl").lines().count() == 2, "what was appended is there");
}

/// What a command was to do is done, and what it found is in its exit code, although nobody reads what it
/// prints.
#[test]
fn a_reader_that_goes_away_changes_neither_what_is_done_nor_the_exit_code() {
    let place = Place::new();
    place.write("purchases.txt", "00001 19970101 1 11.77\n00001 19970112 1 12.00\n");
    let without_reader = |line: &str| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = place.command(line.split_whitespace());
        command.stdout(writer).output().unwrap()
    };
    let answer = without_reader("demo --once --input purchases.txt --store file:shop");
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let again = place.annals("demo --once --json --input purchases.txt --store file:shop");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&again.out).unwrap()["purchases"], 2);
    assert!(place.ok("streams --category order --store file:shop --json").lines().count() == 2);
    assert!(without_reader("append a-1 --type t --store file:other").status.success());
    assert!(place.ok("read a-1 --store file:other").contains("a-1"));

    crate::care::filled(&place, 4);
    crate::care::damage(&place, 1);
    assert_eq!(without_reader("verify").status.code(), Some(6), "damage is damage");
    assert_eq!(without_reader("repair --to file:mended").status.code(), Some(6), "events are lost");
}

/// G5: a key stands for one append, also from the command line.
#[test]
fn a_key_that_comes_again_with_another_event_is_refused() {
    let place = Place::new();
    assert_eq!(place.annals("append a-1 --type t --data 1 --key k").code, 0);
    assert_eq!(place.annals("append a-1 --type t --data 1 --key k").code, 0, "the same append again");
    for other in ["append a-1 --type t --data 2 --key k", "append b-1 --type t --data 1 --key k"] {
        let refused = place.annals(other);
        assert_eq!(refused.code, 4, "{other}: {}", refused.out);
        assert!(refused.err.contains("position 1 (stream `a-1`)"), "{}", refused.err);
    }
    assert_eq!(place.annals("read --all --json").out.lines().count(), 1);
}
