//! A group as one text: all of its rows in one round trip.
//!
//! Values of the caller are written as numbers or hexadecimal digits, so they cannot be parsed as SQL. The
//! server executes the statements of a text in order and stops at the first error.

use std::collections::HashSet;
use std::fmt::Write as _;

use annals_core::{ContentType, EventId, IdempotencyKey, Timestamp};
use annals_sql::{How, Staged, StagedEvent, StagedStream, Stored, own_to_json, tags_to_json};
use serde_json::{Value as Json, json};

use crate::statement::write_hex;

/// Most bytes that an event adds to the text beside twice its data, if it has no metadata.
pub(crate) const EVENT_BYTES: usize = 512;

/// The statements that write this group, after `assertion`, which checks the log under its lock.
pub(crate) fn text(staged: &Staged<'_>, assertion: &str, how: How) -> String {
    let whole = how == How::Whole;
    let bytes: usize = staged.events.iter().map(|event| 2 * event.write.event.data.len() + EVENT_BYTES).sum();
    let mut text = Text(String::with_capacity(bytes));
    if whole {
        text.raw("START TRANSACTION;\n");
    }
    text.0.push_str(assertion);
    text.raw(";\n");
    begin(&mut text, &staged.streams);
    events(&mut text, staged);
    tags(&mut text, staged);
    streams(&mut text, staged);
    let last = staged.events.last().map_or(Timestamp::MIN, |event| event.recorded_at);
    text.raw("UPDATE log SET position = @annals_position + ").number(staged.events.len() as u64);
    text.raw(", recorded_at = GREATEST(@annals_recorded, ").number(last.as_micros()).raw(")");
    if whole {
        text.raw(";\nCOMMIT");
    }
    text.0
}

/// Locks the log and checks the assumptions about the streams.
fn begin(text: &mut Text, streams: &[StagedStream]) {
    let seen = newest(text, streams);
    text.raw("CALL append_begin(");
    if let [stream] = streams {
        text.bytes(stream.id.as_str());
        match seen {
            0 => text.raw(", ").maybe_number(assumed(stream)),
            _ => text.raw(", IF(@annals_seen = 1, ").maybe_number(assumed(stream)).raw(", -1)"),
        };
        text.raw(", NULL");
    } else {
        let all = streams.iter().map(|stream| json!([stream.id.as_str(), assumed(stream)]));
        let all = Json::from_iter(all).to_string();
        match seen {
            0 => text.raw("NULL, NULL, ").text(&all),
            // A version that no stream has.
            seen => {
                let none = json!([[streams[0].id.as_str(), -1]]).to_string();
                text.raw("NULL, NULL, IF(@annals_seen = ").number(seen).raw(", ");
                text.text(&all).raw(", ").text(&none).raw(")")
            }
        };
    }
    text.raw(");\n");
    // The version of a stream without an assumption.
    for (place, stream) in streams.iter().enumerate().filter(|(_, stream)| stream.assumed.is_none()) {
        text.raw("SET @annals_")
            .number(place as u64)
            .raw(" = COALESCE((SELECT entity_version FROM entities WHERE entity_id = ");
        text.bytes(stream.id.as_str()).raw("), 0);\n");
    }
}

/// Counts those of the events required to be the newest of their streams that exist, and returns the number
/// of required events. An existing event is never removed, so the lock of the log is not needed.
fn newest(text: &mut Text, streams: &[StagedStream]) -> u64 {
    let seen = streams.iter().filter_map(|stream| Some((stream, assumed(stream)?, stream.newest?)));
    let seen: Vec<_> = seen.collect();
    if let [(stream, version, event)] = &*seen {
        text.raw("SET @annals_seen = (SELECT COUNT(*) FROM events WHERE entity_id = ")
            .bytes(stream.id.as_str());
        text.raw(" AND entity_version = ").number(*version).raw(" AND event_id = ");
        text.bytes(event.as_bytes()).raw(");\n");
    } else if !seen.is_empty() {
        let hex =
            |event: &EventId| event.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let all =
            seen.iter().map(|(stream, version, event)| json!([stream.id.as_str(), version, hex(event)]));
        text.raw("SET @annals_seen = (SELECT COUNT(*) FROM JSON_TABLE(");
        text.text(&Json::from_iter(all).to_string()).raw(include_str!("../sql/seen.sql").trim_end());
        text.raw(";\n");
    }
    seen.len() as u64
}

/// The version that a stream must have, limited to the largest value of a column.
fn assumed(stream: &StagedStream) -> Option<i64> {
    stream.assumed.map(|version| i64::try_from(version.get()).unwrap_or(i64::MAX))
}

fn events(text: &mut Text, staged: &Staged<'_>) {
    text.raw(include_str!("../sql/insert_events.sql").trim_end());
    for (index, event) in staged.events.iter().enumerate() {
        text.raw(if index == 0 { "\n" } else { ",\n" });
        row(text, index as u64 + 1, event, &staged.streams[event.stream]);
    }
    text.raw(";\n");
}

fn row(text: &mut Text, place: u64, of_group: &StagedEvent<'_>, stream: &StagedStream) {
    let event = &of_group.write.event;
    let data = Stored::of(&event.data);
    text.raw("(@annals_position + ")
        .number(place)
        .raw(", @annals_position + ")
        .number(of_group.append)
        .raw(", ");
    text.bytes(stream.id.category().as_str()).raw(", ").bytes(stream.id.as_str()).raw(", ");
    match stream.assumed {
        Some(assumed) => text.number(i128::from(assumed.get()) + i128::from(of_group.version)),
        None => text.raw("@annals_").number(of_group.stream as u64).raw(" + ").number(of_group.version),
    };
    text.raw(", ").bytes(event.id.as_bytes());
    text.raw(", ").bytes(event.event_type.as_str()).raw(", ").number(event.schema_version);
    let content = (event.content_type != ContentType::Json).then(|| event.content_type.as_str());
    text.raw(", ").maybe_text(content);
    text.raw(", ").maybe_text(data.text()).raw(", ").maybe_bytes(data.binary());
    text.raw(", ").number(event.data.len() as u64);
    text.raw(", ").maybe_text(tags_to_json(&event.tags).as_deref());
    text.raw(", ").maybe_text(event.metadata.predecessor.as_deref());
    text.raw(", ").maybe_bytes(event.metadata.process.as_deref().map(str::as_bytes));
    text.raw(", ").maybe_bytes(event.metadata.initiator.as_deref().map(str::as_bytes));
    text.raw(", ").maybe_text(event.metadata.trace.as_deref());
    text.raw(", ").maybe_text(own_to_json(&event.metadata.own).as_deref());
    text.raw(", ").maybe_number(event.occurred_at.map(Timestamp::as_micros));
    text.raw(", GREATEST(@annals_recorded, ").number(of_group.recorded_at.as_micros()).raw("), ");
    text.maybe_bytes(of_group.key.map(IdempotencyKey::as_str).map(str::as_bytes)).raw(")");
}

fn tags(text: &mut Text, staged: &Staged<'_>) {
    let mut separator = "INSERT INTO event_tags (tag, position) VALUES ";
    for (index, event) in staged.events.iter().enumerate() {
        let mut seen = HashSet::new();
        for tag in event.write.event.tags.iter().filter(|tag| seen.insert(tag.as_str())) {
            text.raw(separator).raw("(").bytes(tag.as_str());
            text.raw(", @annals_position + ").number(index as u64 + 1).raw(")");
            separator = ", ";
        }
    }
    if separator == ", " {
        text.raw(";\n");
    }
}

fn streams(text: &mut Text, staged: &Staged<'_>) {
    let mut separator = "INSERT INTO entities (entity_type, entity_id, entity_version, position) VALUES ";
    for stream in staged.streams.iter().filter(|stream| stream.count > 0) {
        text.raw(separator).raw("(").bytes(stream.id.category().as_str()).raw(", ").bytes(stream.id.as_str());
        text.raw(", ").number(stream.count).raw(", @annals_position + ").number(stream.last).raw(")");
        separator = ", ";
    }
    text.raw(
        " ON DUPLICATE KEY UPDATE entity_version = entity_version + VALUES(entity_version), position = VALUES(position);\n",
    );
}

/// A text under construction.
struct Text(String);

impl Text {
    /// Appends SQL of the program.
    fn raw(&mut self, sql: &'static str) -> &mut Self {
        self.0.push_str(sql);
        self
    }

    fn number(&mut self, number: impl Into<i128>) -> &mut Self {
        let number: i128 = number.into();
        write!(self.0, "{number}").expect("a text takes everything");
        self
    }

    fn bytes(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        write_hex(&mut self.0, bytes.as_ref());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.raw("_utf8mb4 ").bytes(text)
    }

    fn maybe_number(&mut self, number: Option<impl Into<i128>>) -> &mut Self {
        match number {
            Some(number) => self.number(number),
            None => self.raw("NULL"),
        }
    }

    fn maybe_text(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text(text),
            None => self.raw("NULL"),
        }
    }

    fn maybe_bytes(&mut self, bytes: Option<&[u8]>) -> &mut Self {
        match bytes {
            Some(bytes) => self.bytes(bytes),
            None => self.raw("NULL"),
        }
    }
}
