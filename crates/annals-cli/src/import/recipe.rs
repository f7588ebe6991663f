//! How a row becomes an event.
//!
//! - I1  The same row of the same source always becomes the same event with the same id: a UUID of the source,
//!   the recipe, the line and the content; or, with an id column, of that column.
//! - I2  A column that the recipe names (it makes a stream, a type, a tag, an id or a time) is text in the data, in
//!   every row. Of the others, values that are exact numbers are numbers.

use std::borrow::Cow;
use std::collections::HashMap;

use annals_core::{EventId, EventType, Invalid, NewEvent, StreamId, Tag, Write};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::rows::{Content, Row};
use super::template::Template;
use super::{BadLine, Format, value};

/// How rows become events.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// What the rows come from.
    pub(crate) source: String,
    /// How the file is written.
    pub(crate) format: Format,
    /// The stream of each event.
    pub(crate) stream: Template,
    /// The type of each event.
    pub(crate) event_type: Template,
    /// The column that says when it happened.
    pub(crate) time: Option<String>,
    /// The tags of each event.
    pub(crate) tags: Vec<Template>,
    /// The column that identifies each event.
    pub(crate) id: Option<String>,
}

impl Recipe {
    /// Checks that every column that is named exists.
    pub(crate) fn check(&self, names: &[String]) -> anyhow::Result<()> {
        for column in self.columns() {
            if !names.iter().any(|name| name == column) {
                anyhow::bail!("there is no column `{column}`; the columns are {}", names.join(", "));
            }
        }
        Ok(())
    }

    /// The columns that it names.
    fn columns(&self) -> impl Iterator<Item = &str> {
        let templates = [&self.stream, &self.event_type].into_iter().chain(&self.tags);
        let columns = [&self.time, &self.id].into_iter().flatten().map(String::as_str);
        templates.flat_map(Template::columns).chain(columns)
    }

    /// A digest that begins with everything that makes the recipe what it is.
    pub(crate) fn digest(&self) -> Sha256 {
        let tags: Vec<_> = self.tags.iter().map(Template::as_str).collect();
        let parts = (
            "annals import 1",
            &self.source,
            self.format.to_string(),
            (self.stream.as_str(), self.event_type.as_str(), tags),
            (&self.time, &self.id),
        );
        let text = serde_json::to_vec(&parts).expect("texts are JSON");
        Sha256::new_with_prefix(text)
    }

    /// The event that a row becomes, and its stream.
    pub(crate) fn write(&self, row: &Row, digest: &Sha256) -> Result<Write, BadLine> {
        let columns = Columns::of(row)?;
        let wrong =
            |what: &str, problem: Invalid| BadLine::new(row.line, format!("its {what} {}", problem.problem));
        let fill = |template: &Template| template.fill(|name| columns.text(name).map(Cow::into_owned));

        let stream = StreamId::new(fill(&self.stream)?).map_err(|problem| wrong("stream", problem))?;
        let event_type = EventType::new(fill(&self.event_type)?).map_err(|problem| wrong("type", problem))?;
        let mut event =
            NewEvent::new(event_type, columns.data(|name| self.columns().any(|column| column == name)))
                .map_err(|problem| wrong("type", problem))?;
        event.id = match &self.id {
            Some(column) => {
                let text = columns.text(column)?;
                if text.is_empty() {
                    return Err(BadLine::column(row.line, column, "is empty, but identifies the event"));
                }
                text.parse().unwrap_or_else(|_| EventId::from_name(text.as_bytes()))
            }
            None => {
                let mut digest = digest.clone();
                row.digest(&mut digest);
                EventId::from_name(&digest.finalize())
            }
        };
        for template in &self.tags {
            let tag = Tag::new(fill(template)?).map_err(|problem| wrong("tag", problem))?;
            event = event.with_tag(tag);
        }
        if let Some(column) = &self.time {
            let time = value::time(&columns.text(column)?);
            event.occurred_at = Some(time.map_err(|problem| BadLine::column(row.line, column, problem))?);
        }
        Ok(Write { stream, event })
    }
}

/// The columns of one row.
enum Columns<'r> {
    Cells(u64, &'r [String], &'r [String]),
    Json(u64, &'r [u8], HashMap<String, &'r RawValue>),
}

impl<'r> Columns<'r> {
    fn of(row: &'r Row) -> Result<Self, BadLine> {
        match &row.content {
            Content::Cells(names, cells) => Ok(Self::Cells(row.line, names, cells)),
            Content::Json(line) => match serde_json::from_slice(line) {
                Ok(fields) => Ok(Self::Json(row.line, line, fields)),
                Err(error) => Err(BadLine::new(row.line, format!("is not a JSON object: {error}"))),
            },
        }
    }

    /// The text of a column.
    fn text(&self, name: &str) -> Result<Cow<'r, str>, BadLine> {
        match self {
            Self::Cells(line, names, cells) => {
                let index = names.iter().position(|other| other == name);
                let index = index.ok_or_else(|| BadLine::column(*line, name, "is not there"))?;
                Ok(Cow::Borrowed(&cells[index]))
            }
            Self::Json(line, _, fields) => {
                let field = fields.get(name).ok_or_else(|| BadLine::column(*line, name, "is not there"))?;
                match field.get().as_bytes() {
                    [b'"', ..] => Ok(Cow::Owned(
                        serde_json::from_str(field.get())
                            .map_err(|error| BadLine::column(*line, name, error.to_string()))?,
                    )),
                    [b'{' | b'[' | b'n', ..] => {
                        let problem = format!("`{}` is not text, a number or true or false", field.get());
                        Err(BadLine::column(*line, name, problem))
                    }
                    _ => Ok(Cow::Borrowed(field.get())),
                }
            }
        }
    }

    /// The data of the event: the row as a JSON object.
    fn data(&self, is_text: impl Fn(&str) -> bool) -> Vec<u8> {
        match self {
            Self::Json(_, line, _) => line.to_vec(),
            Self::Cells(_, names, cells) => {
                let pairs = names.iter().zip(*cells).map(|(name, cell)| {
                    let value = if is_text(name) { value::text(cell) } else { value::json(cell) };
                    format!("{}:{value}", value::text(name))
                });
                format!("{{{}}}", pairs.collect::<Vec<_>>().join(",")).into_bytes()
            }
        }
    }
}
