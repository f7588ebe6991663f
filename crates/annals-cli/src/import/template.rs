//! Templates: texts with the names of columns in braces, such as `customer-{customer_id}` or
//! `repo-{repo.name}`.

use std::str::FromStr;

/// A text that is completed with the values of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Column(String),
}

impl Template {
    /// The template as it was given.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The columns that it names.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Column(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The text with the names replaced by the values of the columns.
    pub(crate) fn fill<E>(&self, mut value: impl FnMut(&str) -> Result<String, E>) -> Result<String, E> {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Column(name) => filled.push_str(&value(name)?),
            }
        }
        Ok(filled)
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(brace) = rest.find(['{', '}']) {
            let (before, braced) = rest.split_at(brace);
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let inside = braced.strip_prefix('{').and_then(|inside| inside.split_once('}'));
            match inside {
                Some((name, after)) if !name.is_empty() && !name.contains('{') => {
                    parts.push(Part::Column(name.to_owned()));
                    rest = after;
                }
                _ => return Err("braces must enclose the name of a column, as in customer-{id}".to_owned()),
            }
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if parts.is_empty() {
            return Err("is empty".to_owned());
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_completes_a_template() {
        let template: Template = "{a}-x{b}{a}".parse().unwrap();
        let filled = template.fill(|name| Ok::<_, String>(name.to_uppercase()));
        assert_eq!(filled.unwrap(), "A-xBA");
        assert_eq!(template.columns().collect::<Vec<_>>(), ["a", "b", "a"]);
    }

    #[test]
    fn braces_that_name_no_column_are_refused() {
        for text in ["", "a{", "a}", "{}", "{a{b}}", "a{b"] {
            assert!(text.parse::<Template>().is_err(), "{text}");
        }
    }
}
