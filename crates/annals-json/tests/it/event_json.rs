//! The JSON form of an event, there and back.

use annals_core::{
    ContentType, IdempotencyKey, Metadata, NewEvent, Position, RecordedEvent, StreamId, Tag, Version,
};
use serde_json::{Value, json};

fn recorded(content_type: &str, data: &[u8]) -> RecordedEvent {
    let mut event = NewEvent::new("x", data.to_vec()).unwrap();
    event.content_type = ContentType::new(content_type);
    recorded_with(&event, None)
}

fn recorded_with(event: &NewEvent, key: Option<&IdempotencyKey>) -> RecordedEvent {
    let stream = StreamId::new("s").unwrap();
    let time = "2017-04-15T13:00:00.000001Z".parse().unwrap();
    RecordedEvent::record(event, &stream, Position::new(7), Version::new(3), Position::new(6), time, key)
}

fn line(event: &RecordedEvent) -> Value {
    serde_json::from_slice(&annals_json::line(event)).unwrap()
}

#[test]
fn recorded_times_have_one_length_and_sort_as_text() {
    let line = |time: &str| {
        let event = format!(
            r#"{{"position":7,"stream":"s","version":3,"append":6,"recorded_at":"{time}","occurred_at":"{time}",
                "id":"0f8fad5b-d9cb-469f-a165-70867728950e","type":"t","data":1}}"#
        );
        let event = annals_json::parse_line(event.as_bytes()).unwrap();
        let line: serde_json::Value = serde_json::from_slice(&annals_json::line(&event)).unwrap();
        assert_eq!(line["occurred_at"], time, "what a client named is given back");
        line["recorded_at"].as_str().unwrap().to_owned()
    };
    let times = ["2017-04-15T13:00:00Z", "2017-04-15T13:00:00.28Z", "2017-04-15T13:00:00.280001Z"].map(line);
    assert_eq!(times[1], "2017-04-15T13:00:00.280000Z");
    assert!(times.is_sorted() && times.iter().all(|time| time.len() == 27), "{times:?}");
}

#[test]
fn any_bytes_come_back_as_they_were() {
    for content_type in
        ["application/json", "application/octet-stream", "text/plain", "application/cloudevents+json"]
    {
        for data in [
            &b"{}"[..],
            b" {} ",
            b"{\n\"a\":\r1}",
            b"null",
            b"",
            b"nul",
            b"\"\xff\"",
            b"\x00",
            b"1 2",
            b"\"\\n\\ud800\"",
            b"123456789012345678901234567890.50",
            "\"\u{2028}계\"".as_bytes(),
        ] {
            let event = recorded(content_type, data);
            let text = annals_json::line(&event);
            assert!(!text.contains(&b'\n') && !text.contains(&b'\r'), "{text:?}");
            assert_eq!(annals_json::parse_line(&text).unwrap(), event, "{}", String::from_utf8_lossy(&text));
        }
    }
}

#[test]
fn everything_that_is_set_comes_back() {
    let mut event = NewEvent::new("x", "{}").unwrap();
    event.schema_version = 0;
    event.tags = vec![Tag::new("b").unwrap(), Tag::new("a").unwrap(), Tag::new("b").unwrap()];
    event.occurred_at = Some("0000-01-01".parse().unwrap());
    event.metadata =
        Metadata { own: [("".into(), "\u{1}".into())].into(), trace: Some("".into()), ..Metadata::default() }
            .into();
    let event = recorded_with(&event, Some(&IdempotencyKey::new("k\n\"").unwrap()));
    assert_eq!(annals_json::parse_line(&annals_json::line(&event)).unwrap(), event);
}

#[test]
fn defaults_are_not_listed() {
    let expected = json!({
        "position": 7, "stream": "s", "version": 3, "append": 6, "recorded_at": "2017-04-15T13:00:00.000001Z",
        "id": line(&recorded("application/json", b"{}"))["id"], "type": "x", "data": {},
    });
    let mut found = line(&recorded("application/json", b"{}"));
    found["id"] = expected["id"].clone();
    assert_eq!(found, expected);
}

#[test]
fn a_line_of_an_export_says_which_event_of_its_append_it_is() {
    let event = recorded("application/json", b"{}");
    for one_stream in [false, true] {
        let place = annals_json::InAppend { event: 2, events: 3, one_stream };
        let text = annals_json::export_line(&event, place);
        assert_eq!(annals_json::parse_export_line(&text).unwrap(), (event.clone(), Some(place)));
        assert_eq!(annals_json::parse_line(&text).unwrap(), event);
    }
    assert_eq!(annals_json::parse_export_line(&annals_json::line(&event)).unwrap(), (event.clone(), None));
    for (numbers, field) in [
        (json!({"append_event": 2}), "append_events"),
        (json!({"append_events": 2}), "append_event"),
        (json!({"one_stream": true}), "append_events"),
        (json!({"append_event": 4, "append_events": 3}), "append_event"),
        (json!({"append_event": 0, "append_events": 3}), "append_event"),
        // It is at position 7 of an append that begins at position 6.
        (json!({"append_event": 1, "append_events": 3}), "append_event"),
        (json!({"append_event": 2, "append_events": null}), "append_events"),
    ] {
        let mut bad = line(&event);
        bad.as_object_mut().unwrap().extend(numbers.as_object().unwrap().clone());
        assert_eq!(annals_json::parse_export_line(bad.to_string().as_bytes()).unwrap_err().field, field);
    }
}

#[test]
fn data_is_readable_wherever_it_is_json() {
    assert_eq!(line(&recorded("application/json", b"{\n\"a\": 1}"))["data"], json!({"a": 1}));
    assert_eq!(line(&recorded("application/json", b"[1"))["data_base64"], "WzE=");
    assert_eq!(line(&recorded("text/plain", b"1"))["data_base64"], "MQ==");
}

#[test]
fn a_bad_line_is_refused_by_the_name_of_the_field() {
    let good = line(&recorded("application/json", b"{}"));
    for (member, value) in [
        ("position", json!("7")),
        ("stream", json!("")),
        ("id", json!("x")),
        ("type", json!(null)),
        ("tags", json!([""])),
        ("recorded_at", json!("x")),
        ("metadata", json!(5)),
        ("data_base64", json!("?")),
        ("idempotency_key", json!("")),
    ] {
        let mut bad = good.clone();
        bad[member] = value;
        assert_eq!(annals_json::parse_line(bad.to_string().as_bytes()).unwrap_err().field, member);
        let mut missing = good.clone();
        missing.as_object_mut().unwrap().remove("version");
        assert_eq!(annals_json::parse_line(missing.to_string().as_bytes()).unwrap_err().field, "version");
    }
    for bad in ["", "{", "[]", "{} {}"] {
        assert!(annals_json::parse_line(bad.as_bytes()).is_err(), "{bad}");
    }
}

/// The seeds of the fuzzer, whole and cut anywhere: an event, or refused.
#[test]
fn every_seed_is_an_event_or_refused() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/event_json");
    let mut events = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for end in 0..=bytes.len() {
            if let Ok(event) = annals_json::parse_line(&bytes[..end]) {
                events += 1;
                assert_eq!(annals_json::parse_line(&annals_json::line(&event)), Ok(event));
            }
        }
    }
    assert!(events > 1, "the seeds hold events");
}
