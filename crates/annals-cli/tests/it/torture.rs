//! `annals torture`: a short one holds, and one that is tampered with fails.

use serde_json::Value;

use crate::support::{Answer, Place, stopped};

#[test]
fn a_short_torture_loses_nothing_and_leaves_nothing() {
    let place = Place::new();
    let answer = place.annals("torture --dir torture --minutes 0.06 --writers 6 --seed 1 --json");
    assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{}", answer.out);
    let json: Value = serde_json::from_str(&answer.out).unwrap();
    for kind in ["lost", "half", "wrong"] {
        assert_eq!(json[kind], 0, "{json}");
    }
    assert_eq!((&json["seed"], &json["finished"]), (&1.into(), &true.into()));
    let kills = &json["kills"];
    assert!(kills["load"].as_u64().unwrap() + kills["close"].as_u64().unwrap() > 0, "{json}");
    assert!(["held", "not tried"].contains(&json["full_file_system"].as_str().unwrap()), "{json}");
    assert!(!place.path("torture").exists());
}

#[test]
fn a_torture_says_in_words_what_it_did_and_what_it_does_not_show() {
    let answer = Place::new().annals("torture --dir torture --minutes 0.01");
    assert_eq!(answer.code, 0, "{}{}", answer.out, answer.err);
    for output in ["lost 0, half 0, wrong 0; seed ", "full file system: ", "A kill is not a power cut"] {
        assert!(answer.out.contains(output), "{}", answer.out);
    }
}

#[test]
fn a_lost_append_is_reported() {
    let output = broken("lose");
    assert!(output.contains("lost: append ") && output.contains("was acknowledged at positions"), "{output}");
}

#[test]
fn a_changed_byte_is_reported() {
    let output = broken("change");
    assert!(output.contains("wrong: ") && output.contains("00000000000000000001.seg"), "{output}");
}

#[test]
fn another_content_than_was_acknowledged_is_reported() {
    let output = broken("forge");
    assert!(output.contains("its content is not what was written"), "{output}");
}

/// Tortures a store that is tampered with; what is said of it.
fn broken(tamper: &str) -> String {
    let place = Place::new();
    let Answer { code, out, err } =
        place.annals(&format!("torture --dir torture --minutes 1 --seed 7 --writers 4 --tamper {tamper}"));
    assert_eq!((code, err.as_str()), (1, ""), "{out}");
    assert!(out.contains("; seed 7") && out.contains("torture is kept"), "{out}");
    assert!(place.path("torture/store-0").is_dir(), "what was found is kept");
    assert!(place.path("torture/witness-0").is_file());
    out
}

#[test]
fn a_directory_that_holds_something_is_not_touched() {
    let place = Place::new();
    place.write("mine", "");
    let output = place.fails(1, "torture --dir . --minutes 1");
    assert_eq!(output, ". is not empty");
    assert!(place.path("mine").exists());
}

#[cfg(unix)]
#[test]
fn a_torture_that_is_stopped_ends_with_its_answer_and_does_not_say_that_it_is_done() {
    for (signal, exit) in [("-INT", 130), ("-TERM", 143)] {
        let place = Place::new();
        let torture = ["torture", "--dir", "torture", "--minutes", "60", "--json"];
        let child = place.command(torture).spawn().unwrap();
        // It has begun as soon as a child has a witness.
        while !place.path("torture/witness-0").exists() {
            std::thread::yield_now();
        }
        let Answer { code, out, err } = stopped(child, signal);
        assert_eq!((code, err.as_str()), (exit, ""), "{out}");
        let json: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&json["finished"], &json["lost"]), (&false.into(), &0.into()));
        assert_eq!(json["full_file_system"], "not tried");
        assert!(!place.path("torture").exists());
    }
}
