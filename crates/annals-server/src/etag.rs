//! ETags in requests: `If-None-Match` of a read, which checks whether the client already has the response,
//! and lists of tags in general.

use axum::http::{HeaderMap, HeaderName, header};

use crate::problem::Problem;

/// One tag of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag<'a> {
    /// Whether it is `W/"…"`. Caches and proxies that compress responses make strong tags weak.
    pub(crate) weak: bool,
    /// The text between the quotation marks.
    pub(crate) text: &'a str,
}

/// The value of a header that takes tags.
#[derive(Debug)]
pub(crate) enum Tags<'a> {
    /// `*`: every tag.
    Any,
    /// These, at least one.
    These(Vec<Tag<'a>>),
}

/// Parses the tags of a header, which may be given more than once.
///
/// # Errors
/// [`Problem`] if it is not a list of tags.
pub(crate) fn list<'h>(
    headers: &'h HeaderMap,
    name: HeaderName,
    field: &str,
) -> Result<Option<Tags<'h>>, Problem> {
    if !headers.contains_key(&name) {
        return Ok(None);
    }
    let texts: Result<Vec<_>, _> = headers.get_all(&name).iter().map(|value| value.to_str()).collect();
    let texts = texts.unwrap_or_default();
    if let [text] = texts.as_slice()
        && text.trim() == "*"
    {
        return Ok(Some(Tags::Any));
    }
    let tags: Option<Vec<_>> = texts.iter().flat_map(|text| tags(text)).collect();
    match tags {
        Some(tags) if !tags.is_empty() => Ok(Some(Tags::These(tags))),
        _ => Err(Problem::invalid(
            field,
            "is not `*` or a list of ETags in quotation marks, such as `\"3@UUID\"`",
        )),
    }
}

/// Whether `If-None-Match` contains this tag, which is in quotation marks.
///
/// The header is a list and may be given more than once; `*` matches every tag. The comparison is weak (RFC
/// 9110). Anything that is not a tag ends the list.
pub(crate) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let tag = tag.trim_matches('"');
    headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        let Ok(list) = value.to_str() else { return false };
        list.trim() == "*" || tags(list).map_while(|known| known).any(|known| known.text == tag)
    })
}

/// The tags of a list. An item that is not a tag yields `None` and ends the iteration.
fn tags(list: &str) -> impl Iterator<Item = Option<Tag<'_>>> {
    let mut rest = list;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return None;
        }
        let strong = rest.strip_prefix("W/");
        let weak = strong.is_some();
        let tag = strong.unwrap_or(rest).strip_prefix('"').and_then(|opened| opened.split_once('"'));
        rest = tag.map_or("", |(_, after)| after);
        Some(tag.map(|(text, _)| Tag { weak, text }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(values: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_NONE_MATCH, value.parse().expect("a header"));
        }
        is_known(&headers, "\"2@x\"")
    }

    #[test]
    fn a_tag_is_found_in_every_form_of_the_header() {
        for values in [
            &["\"2@x\""][..],
            &["W/\"2@x\""],
            &["\"1@x\", \"2@x\""],
            &["\"1,@\",W/\"3@x\" ,\tW/\"2@x\""],
            &["\"1@x\"", "W/\"2@x\""],
            &["*"],
            &[" * "],
        ] {
            assert!(known(values), "{values:?}");
        }
    }

    #[test]
    fn another_tag_or_none_is_not_taken_for_it() {
        for values in [
            &[][..],
            &[""],
            &["\"2@y\""],
            &["2@x"],
            &["\"2@x"],
            &["w/\"2@x\""],
            &["\"*\""],
            &["\"1@x\" *"],
            &["\",\"2@x\",\""],
        ] {
            assert!(!known(values), "{values:?}");
        }
    }
}
