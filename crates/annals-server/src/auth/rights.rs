//! Rights by verb and by category.

use std::sync::Arc;

use annals_core::{Append, Appended, Category, Condition, Query, StreamId};

/// The categories that a verb is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Categories {
    /// All of them, also those to come.
    All,
    /// These, sorted.
    These(Arc<[Category]>),
}

impl Categories {
    /// No category.
    pub(crate) fn none() -> Self {
        Self::These(Arc::from([]))
    }

    /// Whether there is none.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::These(these) if these.is_empty())
    }

    /// Whether this category is one of them.
    pub(crate) fn has(&self, category: &Category) -> bool {
        match self {
            Self::All => true,
            Self::These(these) => these.binary_search(category).is_ok(),
        }
    }

    /// Whether the stream's category is one of them.
    pub(crate) fn has_stream(&self, stream: &StreamId) -> bool {
        matches!(self, Self::All) || self.has(&stream.category())
    }
}

/// What a principal may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// Categories whose events it sees.
    pub(crate) read: Categories,
    /// Categories that it appends to.
    pub(crate) append: Categories,
    /// Whether it sees what the server counts.
    pub(crate) metrics: bool,
    /// Whether it may ask for backups.
    pub(crate) backup: bool,
}

/// What a principal asked for and may not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forbidden {
    /// The part of the request.
    pub(crate) field: String,
    /// Why.
    pub(crate) problem: String,
}

impl Rights {
    /// Everything: the server has no tokens.
    pub(crate) fn all() -> Self {
        Self { read: Categories::All, append: Categories::All, metrics: true, backup: true }
    }

    /// Nothing: no token was given.
    pub(crate) fn none() -> Self {
        Self { read: Categories::none(), append: Categories::none(), metrics: false, backup: false }
    }

    /// Whether all of the log may be read and appended to.
    pub(crate) fn is_whole(&self) -> bool {
        self.read == Categories::All && self.append == Categories::All
    }

    /// Whether this stream may be read.
    pub(crate) fn read_stream(&self, stream: &StreamId) -> Result<(), Forbidden> {
        self.read_category("stream", &stream.category())
    }

    /// Whether events of this category may be read.
    pub(crate) fn read_category(&self, field: &str, category: &Category) -> Result<(), Forbidden> {
        if self.read.has(category) {
            return Ok(());
        }
        let problem = format!("is of the category `{category}`, which this token may not read");
        Err(Forbidden { field: field.to_owned(), problem })
    }

    /// Whether a read may name these categories. An item that names none means those that may be read.
    pub(crate) fn read_query(&self, query: &Query) -> Result<(), Forbidden> {
        let mut named = query.items.iter().filter_map(|item| item.category.as_ref());
        named.try_for_each(|category| self.read_category("category", category))
    }

    /// Whether the append may be made: it writes to categories that may be appended to, and its conditions ask about
    /// categories that may be read. A condition on all events would tell of all.
    pub(crate) fn append(&self, append: &Append) -> Result<(), Forbidden> {
        for (index, write) in append.writes.iter().enumerate() {
            if !self.append.has_stream(&write.stream) {
                let category = write.stream.category();
                let problem = format!("is of the category `{category}`, which this token may not append to");
                return Err(Forbidden { field: format!("events[{index}].stream"), problem });
            }
        }
        let conditions = append.conditions.iter().enumerate();
        conditions.into_iter().try_for_each(|(index, condition)| self.condition(index, condition))
    }

    fn condition(&self, index: usize, condition: &Condition) -> Result<(), Forbidden> {
        let stream = match condition {
            Condition::Version { stream, .. } | Condition::Newest { stream, .. } => stream,
            Condition::NoMatch { .. } if self.read == Categories::All => return Ok(()),
            Condition::NoMatch { query, .. } => {
                let field = format!("conditions[{index}].query");
                if query.items.is_empty() || query.items.iter().any(|item| item.category.is_none()) {
                    let problem = "asks about events of every category, and this token may not read all of them: name a \
                                   `category` in each alternative";
                    return Err(Forbidden { field, problem: problem.to_owned() });
                }
                let mut named = query.items.iter().filter_map(|item| item.category.as_ref());
                return named.try_for_each(|category| self.read_category(&field, category));
            }
            _ if self.read == Categories::All => return Ok(()),
            _ => {
                let problem = "asks what this token may not read";
                return Err(Forbidden { field: format!("conditions[{index}]"), problem: problem.to_owned() });
            }
        };
        self.read_category(&format!("conditions[{index}].stream"), &stream.category())
    }

    /// Whether the outcome of an earlier append may be shown as that of this one.
    pub(crate) fn sees_outcome(&self, outcome: &Appended, append: &Append) -> bool {
        let is_own = |stream: &StreamId| append.writes.iter().any(|write| write.stream == *stream);
        outcome.streams.iter().all(|(stream, _)| self.read.has_stream(stream) || is_own(stream))
    }
}

impl std::fmt::Display for Forbidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.field, self.problem)
    }
}
