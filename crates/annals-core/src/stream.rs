//! Streams and their categories.

use crate::name::name_type;
use crate::{Invalid, Text, refuse_reserved};

name_type! {
    /// The name of a stream, the events of one aggregate: any UTF-8 text of 1 to 1,024 bytes.
    ///
    /// By convention a name is a category and an id, `account-42`, split at the first `-`; a name without one
    /// is all category. Names that start with `$` are reserved for Annals, and only its framework writes
    /// those that begin with `annals.` ([`refuse_reserved`]).
    StreamId, "stream", 1024
}

name_type! {
    /// The kind of a stream: the part of its name before the first `-`.
    Category, "category", 1024
}

impl StreamId {
    /// The stream of one aggregate: `{category}-{id}`.
    ///
    /// # Errors
    /// [`Invalid`] if the category is empty, contains `-` (it could not be separated from the id) or begins
    /// with `annals.`, if the id is empty (all aggregates whose id was forgotten would share a stream), or if
    /// the whole name is too long.
    pub fn of(category: &str, id: &str) -> Result<Self, Invalid> {
        if category.is_empty() || category.contains('-') {
            let problem = format!("`{category}` must not be empty or contain `-`");
            return Err(Invalid::new("category", problem));
        }
        refuse_reserved("category", category)?;
        if id.is_empty() {
            return Err(Invalid::new("id", "is empty"));
        }
        Self::new(format!("{category}-{id}"))
    }

    /// The category: everything before the first `-`.
    ///
    /// A name that starts with `-` has the whole name as its category, so that a category is never empty.
    pub fn category(&self) -> Category {
        let end = category_of(self.as_str()).len();
        if end == self.as_str().len() {
            return Category(self.as_text().clone());
        }
        let shared = self.as_text().as_bytes().slice(..end);
        Category(Text::from_utf8(shared).expect("a slice that ends at an ASCII character is UTF-8"))
    }

    /// The id: everything after the first `-`; `None` if there is none.
    pub fn id(&self) -> Option<&str> {
        split(self.as_str()).map(|(_, id)| id)
    }

    /// Whether the name is reserved for Annals by a leading `$`.
    pub fn is_reserved(&self) -> bool {
        self.as_str().starts_with('$')
    }
}

/// The [category](StreamId::category) of the stream with this name.
pub(crate) fn category_of(stream: &str) -> &str {
    split(stream).map_or(stream, |(category, _)| category)
}

pub(crate) fn split(stream: &str) -> Option<(&str, &str)> {
    stream.split_once('-').filter(|(category, _)| !category.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_splits_at_its_first_dash() {
        for (name, category, id) in [
            ("account-42", "account", Some("42")),
            ("account-42-7", "account", Some("42-7")),
            ("account", "account", None),
            ("-42", "-42", None),
            ("계좌-사십이", "계좌", Some("사십이")),
        ] {
            let stream = StreamId::new(name).unwrap();
            assert_eq!((stream.category().as_str(), stream.id()), (category, id), "{name}");
        }
    }

    #[test]
    fn bad_names_are_refused_with_the_reason() {
        let long = "x".repeat(1025);
        for (name, problem) in [("", "is empty"), (long.as_str(), "1025 bytes"), ("a\0b", "NUL")] {
            let refused = StreamId::new(name).unwrap_err().to_string();
            assert!(refused.contains(problem), "{refused}");
        }
        assert!(StreamId::of("a-b", "1").is_err());
        assert!(StreamId::of("a", "").is_err());
        assert!(StreamId::of("annals.answers", "account-a1").is_err());
    }
}
