//! The columns of one row: the cells under a header line, or the fields of a JSON object.
//!
//! A nested field is named by its path, `repo.name`, and an element of an array by its index, `lines.0`. A
//! field whose own name contains dots takes precedence.

use std::borrow::Cow;
use std::collections::HashMap;

use annals_core::check_json;
use serde_json::value::RawValue;

use super::BadLine;
use super::rows::{Content, Row};
use super::value;

/// The texts that databases, data frames and spreadsheets write into a cell without a value, including error
/// values.
const NO_VALUE: [&str; 17] = [
    "NULL", "null", "\\N", "NaN", "nan", "NaT", "None", "NA", "<NA>", "N/A", "#N/A", "#REF!", "#VALUE!",
    "#DIV/0!", "#NAME?", "#NUM!", "#NULL!",
];

/// The columns of one row.
pub(crate) enum Columns<'r> {
    /// The line, the names and the cells.
    Cells(u64, &'r [String], &'r [String]),
    /// The line, the text of the object and its fields.
    Json(u64, &'r [u8], HashMap<String, &'r RawValue>),
}

impl<'r> Columns<'r> {
    /// The columns of a row.
    pub(crate) fn of(row: &'r Row) -> Result<Self, BadLine> {
        match &row.content {
            Content::Cells(names, cells) => Ok(Self::Cells(row.line, names, cells)),
            Content::Json(text) => {
                let wrong = |line: usize, column: usize, problem: &str| {
                    // The parser counts lines from 1 within the value.
                    let line = row.line + (line as u64).saturating_sub(1);
                    BadLine::new(line, format!("is not a JSON object: {problem}, at its column {column}"))
                };
                check_json(text).map_err(|error| wrong(error.line, error.column, &error.problem))?;
                let fields = serde_json::from_slice(text);
                Ok(Self::Json(row.line, text, fields.map_err(|_| wrong(1, 1, "it is another value"))?))
            }
        }
    }

    /// The line on which the row begins.
    pub(crate) fn line(&self) -> u64 {
        match self {
            Self::Cells(line, ..) | Self::Json(line, ..) => *line,
        }
    }

    /// Whether the text of a column means that there is no value: it is blank, or one of [`NO_VALUE`].
    pub(crate) fn is_no_value(&self, text: &str, null_is_value: bool) -> bool {
        let text = text.trim();
        // JSON has a `null` of its own.
        let may_be_null = matches!(self, Self::Cells(..)) && !null_is_value;
        text.is_empty() || may_be_null && NO_VALUE.contains(&text)
    }

    /// The text of a column.
    pub(crate) fn text(&self, name: &str) -> Result<Cow<'r, str>, BadLine> {
        let text = self.optional_text(name)?;
        text.ok_or_else(|| {
            BadLine::column(self.line(), name, "`null` is not text, a number or true or false")
        })
    }

    /// The text of a column; `None` if it is `null`.
    pub(crate) fn optional_text(&self, name: &str) -> Result<Option<Cow<'r, str>>, BadLine> {
        match self {
            Self::Cells(line, names, cells) => {
                cell(*line, names, cells, name).map(|cell| Some(Cow::Borrowed(cell)))
            }
            Self::Json(line, _, fields) => {
                let field = self.field(fields, name)?;
                match field.as_bytes() {
                    [b'"', ..] => {
                        let text: Result<String, _> = serde_json::from_str(field);
                        let text = text.map_err(|error| BadLine::column(*line, name, error.to_string()))?;
                        Ok(Some(Cow::Owned(text)))
                    }
                    [b'n', ..] => Ok(None),
                    [b'{' | b'[', ..] => {
                        let problem =
                            format!("`{}` is not text, a number or true or false", shortened(field));
                        Err(BadLine::column(*line, name, problem))
                    }
                    _ => Ok(Some(Cow::Borrowed(field))),
                }
            }
        }
    }

    /// A column as JSON. Text that contains a JSON object or array is converted to it, because envelopes
    /// often store data so.
    pub(crate) fn value(&self, name: &str, decimal_comma: bool) -> Result<Vec<u8>, BadLine> {
        let braced = |text: &str| {
            text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<&RawValue>(text).is_ok()
        };
        let value = match self {
            Self::Cells(line, names, cells) => {
                let cell = cell(*line, names, cells, name)?;
                if braced(cell) { cell.trim().to_owned() } else { value::json(cell, decimal_comma) }
            }
            Self::Json(_, _, fields) => {
                let field = self.field(fields, name)?;
                match serde_json::from_str::<String>(field) {
                    Ok(text) if braced(&text) => text.trim().to_owned(),
                    _ => field.to_owned(),
                }
            }
        };
        Ok(value.into_bytes())
    }

    /// The row as a JSON object.
    pub(crate) fn row(&self, is_text: impl Fn(&str) -> bool, decimal_comma: bool) -> Vec<u8> {
        match self {
            Self::Json(_, text, _) => text.to_vec(),
            Self::Cells(_, names, cells) => {
                let pairs = names.iter().zip(*cells).map(|(name, cell)| {
                    let value =
                        if is_text(name) { value::text(cell) } else { value::json(cell, decimal_comma) };
                    format!("{}:{value}", value::text(name))
                });
                format!("{{{}}}", pairs.collect::<Vec<_>>().join(",")).into_bytes()
            }
        }
    }

    /// The JSON text of a field, by its name or its path.
    fn field(&self, fields: &HashMap<String, &'r RawValue>, path: &str) -> Result<&'r str, BadLine> {
        let found = at_path(fields, path).map(RawValue::get);
        found.ok_or_else(|| BadLine::column(self.line(), path, "is not there"))
    }
}

fn cell<'r>(line: u64, names: &[String], cells: &'r [String], name: &str) -> Result<&'r str, BadLine> {
    let index = names.iter().position(|other| other == name);
    let index = index.ok_or_else(|| BadLine::column(line, name, "is not there"))?;
    Ok(&cells[index])
}

/// The field of this name, or else the one at this path.
fn at_path<'r>(fields: &HashMap<String, &'r RawValue>, path: &str) -> Option<&'r RawValue> {
    if let Some(field) = fields.get(path) {
        return Some(field);
    }
    // The longest matching name takes precedence: `a.b` may be a name too.
    path.rmatch_indices('.').find_map(|(dot, _)| {
        let (name, rest) = (&path[..dot], &path[dot + 1..]);
        within(fields.get(name)?, rest)
    })
}

/// The field or element at this path within a value.
fn within<'r>(value: &'r RawValue, path: &str) -> Option<&'r RawValue> {
    if value.get().starts_with('{') {
        return at_path(&serde_json::from_str(value.get()).ok()?, path);
    }
    let elements: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
    let (number, rest) = path.split_once('.').map_or((path, None), |(number, rest)| (number, Some(rest)));
    let element = *elements.get(number.parse::<usize>().ok()?)?;
    rest.map_or(Some(element), |rest| within(element, rest))
}

/// The beginning of a text for a message.
fn shortened(text: &str) -> Cow<'_, str> {
    const SHOWN: usize = 80;
    if text.chars().nth(SHOWN).is_none() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().take(SHOWN).chain(['…']).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_name_or_its_path() {
        let text = r#"{"a":{"b":1,"c.d":{"e":"x"}},"a.b":2,"list":[{"n":7},[8]],"none":null}"#;
        let fields: HashMap<String, &RawValue> = serde_json::from_str(text).unwrap();
        for (path, value) in [
            ("a.b", Some("2")),
            ("a.c.d.e", Some("\"x\"")),
            ("list.0.n", Some("7")),
            ("list.1.0", Some("8")),
            ("none", Some("null")),
            ("a.c", None),
            ("list.2", None),
            ("list.x", None),
            ("a.b.c", None),
            ("", None),
            (".", None),
        ] {
            assert_eq!(at_path(&fields, path).map(RawValue::get), value, "{path}");
        }
    }
}
