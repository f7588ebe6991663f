//! Recipes: the conversion of rows to events.
//!
//! - I1  The same row of the same source always becomes the same event with the same id: a UUID derived from
//!   the source, the recipe, the line and the content; or, with an id column, from that column.
//! - I2  A column that the recipe names (for a stream, a type, a tag, an id or a time) is text in the data,
//!   in every row. In other columns, values that are exact numbers are numbers.
//! - I3  A column for a stream or a type must not be empty in any row: rows without a value would share one
//!   stream. A tag whose column is empty is omitted.
//! - I4  Ids never change, whichever version of the program makes them. The first version identified a file
//!   by the last component of its path; its rows are still recognised by that.

use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use annals_core::{
    Append, EventId, EventType, IdempotencyKey, Invalid, Limits, NewEvent, RecordedEvent, StreamId, Tag,
    Timestamp, UtcOffset, Write, check_json, refuse_reserved,
};
use sha2::{Digest as _, Sha256};

use super::columns::Columns;
use super::rows::Row;
use super::template::Template;
use super::value::{Times, Unit};
use super::{BadLine, Format};

/// The source of rows.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The path of a file as it was given, or the name that the user gave.
    whole: String,
    /// The part that similar sources have in common: the last component of a path, or the whole name.
    last: String,
}

impl Source {
    /// A file, identified by its path as it was given, without `./`. Bytes that are not UTF-8 are escaped, so
    /// that different paths stay different.
    pub(crate) fn path(file: &Path) -> Self {
        let plain: PathBuf = file.components().filter(|part| *part != Component::CurDir).collect();
        let whole = plain.to_str().map_or_else(|| format!("{plain:?}"), str::to_owned);
        let last = file.file_name().map_or("-".into(), |name| name.to_string_lossy().into_owned());
        Self { whole, last }
    }

    /// A source with a name given by the user.
    pub(crate) fn name(name: &str) -> Self {
        Self { whole: name.to_owned(), last: name.to_owned() }
    }
}

/// The conversion of rows to events.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// The source of the rows.
    pub(crate) source: Source,
    /// The format of the file.
    pub(crate) format: Format,
    /// The stream of each event.
    pub(crate) stream: Template,
    /// The type of each event.
    pub(crate) event_type: Template,
    /// The column with the time of occurrence.
    pub(crate) time: Option<String>,
    /// The form of times.
    pub(crate) times: Times,
    /// The tags of each event.
    pub(crate) tags: Vec<Template>,
    /// The column that identifies each event.
    pub(crate) id: Option<String>,
    /// The column that is the data of each event; `None` if the whole row is.
    pub(crate) data: Option<String>,
    /// Whether numbers have a decimal comma.
    pub(crate) decimal_comma: bool,
    /// Whether texts such as `NULL` are values.
    pub(crate) null_is_value: bool,
    /// Whether rows are identified only by the last component of their source, as by the first version (I4).
    pub(crate) by_last_name: bool,
}

impl Recipe {
    /// The columns that it names.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &str> {
        let columns = [&self.time, &self.id, &self.data].into_iter().flatten().map(String::as_str);
        self.text_columns().chain(columns)
    }

    /// The columns of the templates.
    fn text_columns(&self) -> impl Iterator<Item = &str> {
        [&self.stream, &self.event_type].into_iter().chain(&self.tags).flat_map(Template::columns)
    }

    /// Whether a column is text in the data.
    fn is_text(&self, name: &str) -> bool {
        let others = [&self.time, &self.id].into_iter().flatten().map(String::as_str);
        self.text_columns().chain(others).any(|column| column == name)
    }

    /// A digest of the recipe and the source, to which rows are added.
    fn digest(&self, source: &str) -> Sha256 {
        let tags: Vec<_> = self.tags.iter().map(Template::as_str).collect();
        let parts = (
            "annals import 1",
            source,
            self.format.to_string(),
            (self.stream.as_str(), self.event_type.as_str(), tags),
            (&self.time, &self.id),
        );
        let mut digest = Sha256::new_with_prefix(serde_json::to_vec(&parts).expect("texts are JSON"));
        // Seconds are the default unit: rows that were imported without a unit are recognised when it is
        // named.
        let unit = self.times.unit.filter(|unit| *unit != Unit::S).map(|unit| format!("{unit:?}"));
        let more = (unit, self.times.offset.map(UtcOffset::seconds), &self.data, self.decimal_comma);
        // Rows of an earlier version without these options are still recognised.
        if more != (None, None, &None, false) {
            digest.update(serde_json::to_vec(&more).expect("texts are JSON"));
        }
        digest
    }

    /// The key of the append whose first row has this number in its source, from 0. The key contains only the
    /// last component of the source: a file of the same name elsewhere gets the same key, and the stored rows
    /// are compared.
    pub(crate) fn key_of_place(&self, row: u64) -> IdempotencyKey {
        key(self.digest(&self.source.last), &format!("@{row}"))
    }

    /// The key of an append of these rows, by their content.
    pub(crate) fn key_of_content(&self, rows: &[Row]) -> IdempotencyKey {
        let mut digest = self.digest(&self.source.last);
        rows.iter().for_each(|row| row.digest(&mut digest));
        key(digest, "")
    }

    /// The keys of appends of the first row, of the first two rows, and so on, by their content.
    pub(crate) fn keys_of_content(&self, rows: &[Row]) -> Vec<IdempotencyKey> {
        let mut digest = self.digest(&self.source.last);
        let keys = rows.iter().map(|row| {
            row.digest(&mut digest);
            key(digest.clone(), "")
        });
        keys.collect()
    }

    /// Whether the path of the source has more than one component.
    pub(crate) fn is_in_a_directory(&self) -> bool {
        self.source.whole != self.source.last
    }

    /// The last component of the source.
    pub(crate) fn last_name(&self) -> &str {
        &self.source.last
    }

    /// The id of the event that a row becomes.
    pub(crate) fn id(&self, row: &Row) -> Result<EventId, BadLine> {
        let Some(column) = &self.id else {
            let source = if self.by_last_name { &self.source.last } else { &self.source.whole };
            let mut digest = self.digest(source);
            row.digest(&mut digest);
            return Ok(EventId::from_name(&digest.finalize()));
        };
        let columns = Columns::of(row)?;
        let text = columns.text(column)?;
        self.check_value(&columns, column, &text, "identifies the event")?;
        Ok(text.parse().unwrap_or_else(|_| EventId::from_name(text.as_bytes())))
    }

    /// The event that a row becomes, and its stream.
    pub(crate) fn write(&self, row: &Row) -> Result<Write, BadLine> {
        let columns = Columns::of(row)?;
        let wrong =
            |what: &str, problem: Invalid| BadLine::new(row.line, format!("its {what} {}", problem.problem));
        let fill = |template: &Template, makes: &str| {
            template.fill(|name| {
                let text = columns.text(name)?;
                self.check_value(&columns, name, &text, makes)?;
                Ok(text.into_owned())
            })
        };
        let stream = fill(&self.stream, "makes the stream")?;
        if matches!(&*stream, "." | "..") {
            let problem = format!("its stream is `{stream}`, which no address over HTTP can name");
            return Err(BadLine::new(row.line, problem));
        }
        let stream = StreamId::new(stream).map_err(|problem| wrong("stream", problem))?;
        let event_type = EventType::new(fill(&self.event_type, "makes the type")?)
            .map_err(|problem| wrong("type", problem))?;
        refuse_reserved("stream", stream.as_str()).map_err(|problem| wrong("stream", problem))?;
        refuse_reserved("type", event_type.as_str()).map_err(|problem| wrong("type", problem))?;
        let mut event =
            NewEvent::new(event_type, self.data(&columns)?).map_err(|problem| wrong("type", problem))?;
        event.id = self.id(row)?;
        for template in &self.tags {
            let (tag, empty) = tag(&columns, template)?;
            if !empty {
                event = event.with_tag(Tag::new(tag).map_err(|problem| wrong("tag", problem))?);
            }
        }
        if let Some(column) = &self.time {
            let time = self.times.read(&columns.text(column)?);
            event.occurred_at = Some(time.map_err(|problem| BadLine::column(row.line, column, problem))?);
        }
        let write = Write { stream, event };
        let alone = Append { writes: vec![write], ..Append::new() };
        alone.validate(&Limits::default()).map_err(|invalid| {
            BadLine::new(
                row.line,
                format!("its {} {}", invalid.field.trim_start_matches("events[0]."), invalid.problem),
            )
        })?;
        Ok(alone.writes.into_iter().next().expect("it has one event"))
    }

    /// Whether a stored event is the one that this row makes, or the one that the first version made of it:
    /// that version kept tags whose column is empty, and rounded times before 1970 up.
    pub(crate) fn made(&self, row: &Row, write: &Write, event: &RecordedEvent) -> Result<bool, BadLine> {
        let (mut made, there) = (write.event.clone(), event.to_new());
        if write.stream != event.stream() || made == there {
            return Ok(write.stream == event.stream());
        }
        let columns = Columns::of(row)?;
        let mut all_tags = NewEvent { tags: Vec::new(), ..made.clone() };
        for template in &self.tags {
            if let Ok(tag) = Tag::new(tag(&columns, template)?.0) {
                all_tags = all_tags.with_tag(tag);
            }
        }
        if there.tags == all_tags.tags {
            made = all_tags;
        }
        let later = made.occurred_at.map(|time| time.plus(Duration::from_micros(1)));
        if there.occurred_at == later && later <= Some(Timestamp::default()) {
            made.occurred_at = later;
        }
        Ok(made == there)
    }

    /// Refuses a text without a value, because rows without it would be taken for one another (I3).
    fn check_value(&self, columns: &Columns<'_>, name: &str, text: &str, makes: &str) -> Result<(), BadLine> {
        if !columns.is_no_value(text, self.null_is_value) {
            return Ok(());
        }
        let problem = match text.trim() {
            "" => format!("is empty, but {makes}"),
            null => format!(
                "`{null}` stands for no value, but {makes}; if it is a value in this file, say so with --null-is-value"
            ),
        };
        Err(BadLine::column(columns.line(), name, problem))
    }

    fn data(&self, columns: &Columns<'_>) -> Result<Vec<u8>, BadLine> {
        let Some(column) = &self.data else {
            return Ok(columns.row(|name| self.is_text(name), self.decimal_comma));
        };
        let data = columns.value(column, self.decimal_comma)?;
        // JSON within a text was not checked with the row.
        check_json(&data)
            .map_err(|invalid| BadLine::column(columns.line(), column, format!("is not JSON: {invalid}")))?;
        Ok(data)
    }
}

/// The tag of a row, and whether one of its columns is empty.
fn tag(columns: &Columns<'_>, template: &Template) -> Result<(String, bool), BadLine> {
    let mut empty = false;
    let tag = template.fill(|name| {
        let text = columns.optional_text(name)?.unwrap_or(Cow::Borrowed(""));
        empty |= text.trim().is_empty();
        Ok(text.into_owned())
    })?;
    Ok((tag, empty))
}

fn key(digest: Sha256, place: &str) -> IdempotencyKey {
    let digits: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    IdempotencyKey::new(format!("import:{digits}{place}")).expect("the key is short and plain")
}
