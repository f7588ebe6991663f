//! `If-None-Match`: whether a client has an answer already.

use axum::http::{HeaderMap, header};

/// Whether one of the tags in `If-None-Match` is this one, which is in quotation marks.
///
/// The header is a list, may be given more than once, and `*` is every tag. Tags are compared weakly (RFC 9110): caches
/// and proxies that pack answers make `W/"…"` of a tag.
pub(crate) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        let Ok(list) = value.to_str() else { return false };
        list.trim() == "*" || tags(list).any(|known| known == tag)
    })
}

/// The tags of a list, each in its quotation marks and without `W/`. What is no tag ends the list.
fn tags(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = list;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let strong = rest.strip_prefix("W/").unwrap_or(rest);
        let end = strong.strip_prefix('"')?.find('"')? + 2;
        let (tag, after) = strong.split_at(end);
        rest = after;
        Some(tag)
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
