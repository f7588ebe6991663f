//! Clauses on fidelity: an event is read as it was written, to the last byte.

use annals_core::{
    Append, ContentType, EventId, EventStore, EventType, Expected, LogRead, Metadata, NewEvent, Position,
    RecordedEvent, StreamId, StreamRead, Tag, Text, Timestamp, Version,
};

use crate::Trial;
use crate::given::{
    Store, at, event, events, events_of, key, log, new, read, refused, some, stream, tag, with_data,
};

/// Writes an event and checks that every way of reading returns it unchanged.
async fn check_kept(store: &Store, name: &str, written: NewEvent) -> RecordedEvent {
    let done = new(store.append(Append::to(stream(name), Expected::Any, [written.clone()])).await);
    let by_log = read(store.read_log(LogRead::forward(done.first).limit(1)).await).events;
    let [recorded] = &by_log[..] else { panic!("the event is read by its position") };
    assert_eq!(recorded.to_new(), written);
    assert_eq!(recorded.stream(), name);
    let back = LogRead::backward(done.first).limit(1);
    assert_eq!(read(store.read_log(back).await).events, by_log);
    let by_stream = StreamRead::forward(stream(name), done.version()).limit(1);
    assert_eq!(read(store.read_stream(by_stream).await).events, by_log);
    let by_stream = StreamRead::backward(stream(name), done.version()).limit(1);
    assert_eq!(read(store.read_stream(by_stream).await).events, by_log);
    recorded.clone()
}

/// G8: data is kept byte by byte: empty data, every byte, text of any script, a mebibyte.
pub async fn data_is_kept_byte_by_byte(trial: &mut Trial) {
    let store = trial.store();
    let every_byte: Vec<u8> = (0..=255).collect();
    let mebibyte: Vec<u8> = (0..1_usize << 20).map(|at| u8::try_from(at * 31 % 251).unwrap_or(0)).collect();
    for data in [Vec::new(), vec![0], every_byte, "{\"이름\":\"김\" }\r\n\0".into(), mebibyte] {
        let mut event = with_data(data);
        event.content_type = ContentType::Binary;
        check_kept(store, "blob-1", event).await;
    }
    check_kept(store, "blob-1", with_data("{ \"b\": 1, \"a\": 1.0, \"a\": 2e400 }")).await;
}

/// G8: every field of the metadata and every custom key is kept.
pub async fn metadata_is_kept(trial: &mut Trial) {
    let store = trial.store();
    let text = |text: &str| Some(Text::from(text));
    let full = Metadata {
        process: text("checkout-1"),
        initiator: text("user:김"),
        predecessor: text("0190d7c2-7b1c-7e9c-8f6e-1d4b5e3a2c10"),
        trace: text("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        own: [("ip", "203.0.113.9"), ("사용자", "김"), ("", ""), ("empty", ""), ("long", &"v".repeat(5_000))]
            .into_iter()
            .map(|(name, value)| (Text::from(name), Text::from(value)))
            .collect(),
    };
    check_kept(store, "a-1", event("a.changed").with_metadata(full.clone())).await;
    check_kept(store, "a-1", event("a.changed")).await;
    for metadata in [
        Metadata { process: full.process.clone(), ..Metadata::default() },
        Metadata { initiator: full.initiator.clone(), ..Metadata::default() },
        Metadata { predecessor: full.predecessor.clone(), ..Metadata::default() },
        Metadata { trace: full.trace.clone(), ..Metadata::default() },
        Metadata { trace: text(""), ..Metadata::default() },
        Metadata { own: full.own.clone(), ..Metadata::default() },
    ] {
        check_kept(store, "a-1", event("a.changed").with_metadata(metadata)).await;
    }
}

/// G8: tags are kept, in the given order, as many as are allowed.
pub async fn tags_are_kept_in_order(trial: &mut Trial) {
    let store = trial.store();
    let mut many = event("a.changed");
    for number in (0..trial.limits().event_tags_max).rev() {
        many = many.with_tag(tag(&format!("tag:{number}")));
    }
    check_kept(store, "a-1", many).await;
    let long = "t".repeat(Tag::BYTES_MAX);
    let words = ["z", "a", "고객:1", "with space", "a=b&c=d", &long];
    check_kept(store, "a-1", words.iter().fold(event("a.changed"), |e, word| e.with_tag(tag(word)))).await;
}

/// G8: names of streams and types are kept in any script and up to their full length.
pub async fn names_are_kept(trial: &mut Trial) {
    let store = trial.store();
    let long_stream = "s".repeat(StreamId::BYTES_MAX);
    let long_script = format!("{}é", "김".repeat(340));
    assert!(long_script.len() <= StreamId::BYTES_MAX);
    let long_type = "t".repeat(EventType::BYTES_MAX);
    for name in
        ["계좌-사십이", "🦀", "a b/c?d=e&f#g%20", "tab\there", "\"quoted\"", &long_stream, &long_script]
    {
        for event_type in ["a.opened", "계좌.열림", "with space", &long_type] {
            check_kept(store, name, event(event_type)).await;
        }
    }
}

/// G8: schema version, content type and the time of occurrence are kept over their whole range.
pub async fn schema_content_type_and_times_are_kept(trial: &mut Trial) {
    let store = trial.store();
    for schema_version in [0, 1, 2, 255, 256, u16::MAX] {
        check_kept(store, "a-1", NewEvent { schema_version, ..event("a.changed") }).await;
    }
    for name in ["application/json", "application/octet-stream", "text/csv; charset=utf-8", "x"] {
        let content_type = ContentType::new(name);
        let kept = check_kept(store, "a-1", NewEvent { content_type, ..event("a.changed") }).await;
        assert_eq!(kept.content_type().as_str(), name);
    }
    let times = [Timestamp::MIN, Timestamp::from_micros(-1), Timestamp::from_micros(0), Timestamp::MAX];
    for occurred_at in times.map(Some).into_iter().chain([None]) {
        let kept = check_kept(store, "a-1", NewEvent { occurred_at, ..event("a.changed") }).await;
        assert_eq!(kept.time(), occurred_at.unwrap_or(kept.recorded_at()));
    }
}

/// An event with every field set.
fn full(number: u64) -> NewEvent {
    let mut event = with_data(format!("{{\"number\":{number}}}")).with_tag(tag("a")).with_tag(tag("b"));
    event.id = EventId::from_name(&number.to_be_bytes());
    event.schema_version = 3;
    event.occurred_at = Some(Timestamp::from_micros(-7));
    event.metadata.process = Some(Text::from("p"));
    event.metadata.own = [(Text::from("k"), Text::from("v"))].into();
    event
}

/// G8: an event is the same by every way of reading: from the log, from its stream, and among the unseen
/// events of a conflict.
pub async fn an_event_is_the_same_by_every_way_of_reading(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("x-1", Expected::NoStream, 3)).await);
    let append = Append::to(stream("a-1"), Expected::NoStream, (1..=3).map(full)).once(key("request-1"));
    new(store.append(append).await);
    let by_stream = events_of(store, "a-1").await;
    assert_eq!(by_stream, log(store).await[3..]);
    for (index, event) in by_stream.iter().enumerate() {
        assert_eq!(event.to_new(), full(index as u64 + 1));
        assert_eq!((event.version(), event.append()), (Version::new(index as u64 + 1), Position::new(4)));
    }
    let conflict = refused(store.append(some("a-1", Expected::NoStream, 1)).await);
    assert_eq!(conflict.violations[0].unseen, by_stream);
    let claim =
        some("b-1", Expected::NoStream, 1).unless(annals_core::Query::tags([tag("b")]), Position::new(1));
    assert_eq!(refused(store.append(claim).await).violations[0].unseen, by_stream);
}

/// G8: a log that is read and appended to another store, append by append, is the same there.
pub async fn a_log_can_be_brought_to_another_store(trial: &mut Trial) {
    let store = trial.store();
    let clock = trial.clock();
    for number in 0..6 {
        let append = Append::to(stream("a-1"), at(number * 2), [full(number * 2), full(number * 2 + 1)]);
        let append = append.and_to(stream(&format!("b-{number}")), Expected::NoStream, events(1));
        let append = if number % 2 == 0 { append.once(key(&format!("k-{number}"))) } else { append };
        new(store.append(append).await);
        clock.advance(std::time::Duration::from_millis(1_500));
    }
    let all = log(store).await;
    let another = trial.another().await;
    for run in all.chunk_by(|a, b| a.append() == b.append()) {
        let mut append = Append::new();
        for event in run {
            append = append.and_to(event.stream_id(), Expected::Any, [event.to_new()]);
        }
        append.key.clone_from(&run[0].idempotency_key());
        append.recorded_at = Some(run[0].recorded_at());
        new(another.store().append(append).await);
    }
    assert_eq!(log(another.store()).await, all);
}
