//! Rights by verb and by category.

use std::sync::Arc;

use annals_core::{Append, Appended, Category, Condition, Query, StreamId};

/// The categories that a verb applies to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Categories {
    /// All categories, including future ones.
    All,
    /// These, sorted.
    These(Arc<[Category]>),
}

impl Categories {
    /// No category.
    pub(crate) fn none() -> Self {
        Self::These(Arc::from([]))
    }

    /// Whether there are none.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::These(these) if these.is_empty())
    }

    /// Whether they include this category.
    pub(crate) fn has(&self, category: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(these) => these.binary_search_by(|own| own.as_str().cmp(category)).is_ok(),
        }
    }

    /// Whether they include the stream's category.
    pub(crate) fn has_stream(&self, stream: &StreamId) -> bool {
        matches!(self, Self::All) || self.has(stream.category().as_str())
    }
}

/// The rights of a principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// Categories whose events it may read.
    pub(crate) read: Categories,
    /// Categories that it may append to.
    pub(crate) append: Categories,
    /// Whether it may read the server's metrics.
    pub(crate) metrics: bool,
    /// Whether it may request backups.
    pub(crate) backup: bool,
}

/// The part of a request for which the principal lacks the right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forbidden {
    /// The name of the part.
    pub(crate) field: String,
    /// Why it is refused.
    pub(crate) problem: String,
}

impl Rights {
    /// All rights, for a server without tokens.
    pub(crate) fn all() -> Self {
        Self { read: Categories::All, append: Categories::All, metrics: true, backup: true }
    }

    /// No rights, for a request without a token.
    pub(crate) fn none() -> Self {
        Self { read: Categories::none(), append: Categories::none(), metrics: false, backup: false }
    }

    /// Whether all categories may be read and appended to.
    pub(crate) fn is_whole(&self) -> bool {
        self.read == Categories::All && self.append == Categories::All
    }

    /// Checks that this stream may be read.
    pub(crate) fn read_stream(&self, stream: &StreamId) -> Result<(), Forbidden> {
        self.read_category("stream", &stream.category())
    }

    /// Checks that events of this category may be read.
    pub(crate) fn read_category(&self, field: &str, category: &Category) -> Result<(), Forbidden> {
        if self.read.has(category.as_str()) {
            return Ok(());
        }
        let problem = format!("is of the category `{category}`, which this token may not read");
        Err(Forbidden { field: field.to_owned(), problem })
    }

    /// Checks that a read may name these categories. An item that names none matches all categories that may
    /// be read.
    pub(crate) fn read_query(&self, query: &Query) -> Result<(), Forbidden> {
        let mut named = query.items.iter().filter_map(|item| item.category.as_ref());
        named.try_for_each(|category| self.read_category("category", category))
    }

    /// Checks the append: it may write only to categories that may be appended to, and its conditions may
    /// cover only categories that may be read. The result of a condition on all events would disclose events
    /// of every category.
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

    /// Whether the outcome of an earlier append may be disclosed as the outcome of this one.
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
