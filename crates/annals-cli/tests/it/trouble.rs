//! Failures are one line and an exit code.

use crate::support::{Answer, Place};

#[test]
fn a_wrong_command_line_is_reported_in_one_line_with_code_2() {
    let place = Place::new();
    for (line, output) in [
        ("appnd", "unrecognized subcommand 'appnd'"),
        ("append", "required arguments were not provided"),
        ("append a --type x --store redis:", "`redis:` is not a kind of store"),
        ("append a --type x --expect one", "`one` is not a version"),
        ("append a --type x --expect -1", "`-1` is not a version"),
        ("append a --type x --tag=", "tag is empty"),
        ("read a --from -1", "is not a whole number from 0 up"),
        ("read a --limit many", "is not a whole number from 1 up"),
        ("read a --limit 0", "is not a whole number from 1 up"),
        ("outbox list sqlite:x.db --limit 0", "is not a whole number from 1 up"),
        ("streams --limit 0", "is not a whole number from 1 up"),
        ("export --from x", "is not a whole number from 0 up"),
        ("read", "required arguments were not provided"),
        ("read a --all", "cannot be used with"),
        ("import x --stream {", "braces must enclose the name of a column"),
        ("import x --format xml", "possible values: jsonl, csv, columns"),
    ] {
        let found = place.fails(2, line);
        assert!(found.contains(output) && found.ends_with("see --help"), "{line}: {found}");
    }
}

#[test]
fn a_store_that_is_not_there_is_not_created_by_reading() {
    let place = Place::new();
    for line in
        ["read --all", "streams", "export", "verify", "verify --last", "repair --to file:m", "backup b"]
    {
        assert_eq!(place.fails(3, line), "there is no store at file:data", "{line}");
        assert!(!place.path("data").exists());
    }
}

#[test]
fn a_refused_event_is_named_without_its_place_among_others() {
    let place = Place::new();
    let output = place.fails(2, "append $a --type x");
    assert_eq!(output, "nothing was written: stream `$a` starts with `$`, which is reserved for Annals");
    assert_eq!(place.ok("streams"), "no streams\n");
    assert_eq!(place.ok("streams --json"), "");
}

/// On Linux, for there `/proc` says what the limits of another process are.
#[cfg(target_os = "linux")]
#[test]
fn as_many_files_may_be_open_as_the_system_allows() {
    let place = Place::new();
    let server = crate::serve::Served::start(&place, &[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let limit = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let mut words = limit.split_whitespace().skip(3);
    assert_eq!(words.next(), words.next(), "{limit}");
    server.stop();
}

#[test]
fn a_store_that_another_process_has_open_is_reported() {
    let place = Place::new();
    place.ok("append a --type x");
    let server = crate::serve::Served::start(&place, &[]);
    let output = place.fails(5, "append a --type x");
    assert!(output.starts_with("cannot open file:data: the store is unavailable: "), "{output}");
    server.stop();
    place.ok("append a --type x");
}

#[test]
fn help_has_examples_and_names_the_variable_of_the_store() {
    let place = Place::new();
    for command in
        ["serve", "append", "read", "streams", "import", "export", "verify", "repair", "backup", "restore"]
    {
        let help = place.ok(&format!("{command} --help"));
        assert!(help.contains("Example"), "{command}");
        assert!(help.contains("ANNALS_STORE"), "{command}");
    }
}

#[test]
fn verify_says_what_it_checked_and_finds_what_is_damaged() {
    let place = Place::new();
    for _ in 0..3 {
        place.ok("append a-1 --type opened --data {\"word\":\"remarkable\"}");
    }
    let output = place.ok("verify");
    assert!(
        output.contains("1 segment, 3 appends, 3 events") && output.ends_with("no damage found\n"),
        "{output}"
    );
    assert_eq!(place.json("verify --json")["whole"], true);

    let segment = std::fs::read_dir(place.path("data/log")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(10).position(|window| window == b"remarkable").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let answer = place.annals("verify");
    assert_eq!(answer.code, 6);
    assert!(answer.out.contains("damage at ") && answer.out.contains("it is damaged"), "{}", answer.out);
    let answer = place.annals("verify --json");
    let json: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!((answer.code, &json["whole"]), (6, &serde_json::json!(false)));
    assert!(json["damage"][0]["offset"].is_u64(), "{json}");
}

#[test]
fn a_store_that_is_no_file_is_verified_by_reading_it() {
    assert_eq!(
        Place::new().ok("verify --store memory:"),
        "checked memory:: 0 events, 1 index\nno damage found\n"
    );
}

#[test]
fn a_limit_of_the_size_of_files_is_an_error_and_ends_no_process() {
    let place = Place::new();
    place.write("rows.jsonl", "{\"text\":\"some words that take room\"}\n".repeat(20_000));
    let limited = |line: &str| {
        let annals = env!("CARGO_BIN_EXE_annals");
        let script = format!("ulimit -f 1000 && exec {annals} {line}");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script]).current_dir(place.path("."));
        Answer::from(shell.output().unwrap())
    };
    let answer = limited("import rows.jsonl --stream s --type t --store file:data");
    assert_eq!(answer.code, 5, "{}", answer.err);
    assert!(answer.err.contains("File too large"), "{}", answer.err);
    place.ok("verify");
    let whole = place.json("import rows.jsonl --stream s --type t --json");
    assert_eq!(whole["new"].as_u64().unwrap() + whole["already_there"].as_u64().unwrap(), 20_000, "{whole}");
    let answer = limited("export --store file:data -o out.jsonl");
    assert!(answer.code == 5 && answer.err.contains("File too large"), "{}", answer.err);
    assert!(!place.path("out.jsonl").exists());
}

#[test]
fn a_store_that_cannot_be_where_it_should_be_is_unusable() {
    let place = Place::new();
    place.write("file", "");
    let output = place.fails(7, "append a --type x --store file:file/data");
    assert!(output.contains("the store cannot be used as it is"), "{output}");
    let answer = place.annals("append a --type x --json --store file:file/data");
    assert!(answer.code == 7 && answer.err.contains(r#""code":"unusable""#), "{}", answer.err);
    // What only reads makes no store.
    place.fails(3, "read a --store file:none");
    let answer = place.annals("read a --json --store file:none");
    assert!(answer.code == 3 && answer.err.contains(r#""code":"not-found""#), "{}", answer.err);
}
