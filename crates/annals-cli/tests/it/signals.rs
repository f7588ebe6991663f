//! Commands that a signal ends before they are done: none of them says that it is done.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};

use serde_json::json;

use crate::support::{Answer, Place, signalled, stopped};

/// The signals that a command of `stop.rs` listens for: the numbers 2 and 15 as a mask.
const LISTENED: u64 = 1 << 1 | 1 << 14;

/// Waits until a command listens for signals, so that one does not end it by itself.
fn until_it_listens(child: &Child) {
    let status = format!("/proc/{}/status", child.id());
    loop {
        let status = std::fs::read_to_string(&status).expect("the command has ended already");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
        if u64::from_str_radix(caught.trim(), 16).unwrap() & LISTENED == LISTENED {
            return;
        }
        std::thread::yield_now();
    }
}

/// A row of a file that has one event a row.
fn row(number: u64) -> String {
    format!("{{\"id\":{number},\"text\":\"{:0>200}\"}}\n", number)
}

const IMPORT: &str = "import - --source rows --stream row-{id} --type written";

#[test]
fn an_import_that_is_stopped_says_what_is_in_the_store_and_resumes_after_it() {
    let place = Place::new();
    let mut child = place.command(IMPORT.split(' ')).stdin(Stdio::piped()).spawn().unwrap();
    let mut rows = child.stdin.take().unwrap();
    until_it_listens(&child);
    // It has read far more than a pipe holds, so some of it is written. Then it is fed until it takes no
    // more.
    let mut number = 0;
    while rows.write_all(row(number).as_bytes()).is_ok() {
        number += 1;
        if number == 5_000 {
            signalled(&child, "-INT");
        }
    }
    let Answer { code, out, err } = child.wait_with_output().unwrap().into();
    assert_eq!((code, out.as_str()), (130, ""), "{err}");
    let (_, output) = err.split_once("-: stopped after ").unwrap_or_else(|| panic!("{err}"));
    let (there, output) = output.split_once(' ').unwrap();
    let there: u64 = there.parse().unwrap();
    assert_eq!(
        output,
        "events, which are in the store: asked to stop by SIGINT; start the import again, and it resumes after what is \
         in the store\n"
    );
    assert!(there > 0 && there < number, "{there} of {number}");
    let all: String = (0..number).map(row).collect();
    let answer = place.annals_with(&format!("{IMPORT} --json"), all);
    let answer: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!((&answer["already_there"], &answer["new"]), (&json!(there), &json!(number - there)));
}

#[test]
fn a_command_that_waits_for_its_input_or_its_reader_ends_with_the_second_signal() {
    let place = Place::new();
    let mut child = place.command(IMPORT.split(' ')).stdin(Stdio::piped()).spawn().unwrap();
    let mut rows = child.stdin.take().unwrap();
    (0..2_000).for_each(|number| rows.write_all(row(number).as_bytes()).unwrap());
    until_it_listens(&child);
    signalled(&child, "-INT");
    let Answer { code, err, .. } = stopped(child, "-TERM");
    assert!([130, 143].contains(&code) && err.contains("start the import again"), "{code}: {err}");
    drop(rows);
    let rows: String = (0..5_000).map(row).collect();
    assert_eq!(place.annals_with(IMPORT, rows).code, 0);

    let mut child = place.command(["export"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    assert!(lines.read_line(&mut String::new()).unwrap() > 0);
    signalled(&child, "-INT");
    let Answer { code, err, .. } = stopped(child, "-TERM");
    assert!([130, 143].contains(&code) && err.contains("export again"), "{code}: {err}");
}

#[test]
fn a_verification_that_is_stopped_is_not_done() {
    let place = Place::new();
    let rows: String = (0..20_000).map(row).collect();
    assert_eq!(place.annals_with(IMPORT, rows).code, 0);
    let child = place.command(["verify", "--rate", "1"]).spawn().unwrap();
    until_it_listens(&child);
    let Answer { code, out, err } = stopped(child, "-TERM");
    assert_eq!((code, err.as_str()), (143, ""), "{out}");
    assert!(out.contains("it was stopped; with --resume"), "{out}");
    let child = place.command(["backup", "copies", "--rate", "1"]).spawn().unwrap();
    until_it_listens(&child);
    let Answer { code, out, err } = stopped(child, "-INT");
    assert_eq!((code, out.as_str()), (130, ""), "{err}");
    assert!(
        err.starts_with("annals: there is no new backup in copies: ") && err.contains("it was stopped"),
        "{err}"
    );
}

#[test]
fn measurements_that_are_stopped_leave_nothing() {
    let place = Place::new();
    let child = place.command(["bench", "--rounds", "60000"]).spawn().unwrap();
    until_it_listens(&child);
    let Answer { code, out, err } = stopped(child, "-INT");
    assert_eq!((code, out.as_str()), (130, ""), "{err}");
    assert_eq!(err, "annals: asked to stop by SIGINT; nothing was measured\n");
    assert_eq!(std::fs::read_dir(place.path(".")).unwrap().count(), 0);
}
