//! The expected version of a stream in an append: a word or a version, in a header or in a condition of the
//! body.
//!
//! - X1  An expectation is never ignored: an invalid header is refused.
//! - X2  `If-Match` and `If-None-Match: *` are the preconditions of RFC 9110, with its status 412 and its
//!   strong comparison. `Expected-Version` expresses the same in one word; if it does not hold,
//!   the status is 409.
//! - X3  The store compares versions when it decides on the append. It gets the tags of a list one at a time,
//!   so an append is written under a tag that holds at that moment; if all are refused, each did not hold at
//!   the time of its refusal.
//!
//! `etag.rs` parses the tags, and `token.rs` the text in them.

use std::str::FromStr;

use annals_core::{
    Append, Appended, Condition, Conflict, Error, EventId, EventStore, Expected, Invalid, StreamId, Version,
    Violated, Witness,
};
use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Deserializer, de};
use serde_json::json;

use crate::etag::{self, Tags};
use crate::params::text_header;
use crate::problem::Problem;
use crate::token::{self, Token};
use annals_json::whole;

/// Most tags that `If-Match` may list.
const TAGS_MAX: usize = 16;

/// An expected version: a number, alone or with the id of the event there, or a word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ExpectedVersion {
    Word(Expected),
    Version(Token),
}

impl ExpectedVersion {
    /// Converts this to a condition on the stream.
    pub(crate) fn into_condition(
        self,
        store: &dyn EventStore,
        stream: StreamId,
        field: &str,
    ) -> Result<Condition, Problem> {
        match self {
            Self::Word(expected) => Ok(Condition::Version { stream, expected }),
            Self::Version(token) => token.condition(store, stream, field),
        }
    }

    /// Merges two expected versions that agree: one may name the event of the version, and the other may not.
    /// `None` if they differ.
    fn and(self, other: Self) -> Option<Self> {
        match (self.as_token(), other.as_token()) {
            (Some(one), Some(other)) => one.and(other).map(Self::Version),
            (None, None) => (self == other).then_some(self),
            _ => None,
        }
    }

    /// The version, if this names one. A stream that does not exist has version 0.
    fn as_token(self) -> Option<Token> {
        match self {
            Self::Version(token) => Some(token),
            Self::Word(expected) => expected.version().map(Token::bare),
        }
    }
}

impl FromStr for ExpectedVersion {
    type Err = Invalid;

    /// Parses `none`, `exists`, `any`, a version, or a token as in an ETag.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "none" | "exists" | "any" => text.parse().map(Self::Word),
            _ => text.parse().map(Self::Version).map_err(|_| {
                let problem =
                    format!("`{text}` is not a version such as 2 or `2@UUID`, `none`, `exists` or `any`");
                Invalid::new("expected version", problem)
            }),
        }
    }
}

impl<'de> Deserialize<'de> for ExpectedVersion {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ExpectedVersion;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a version, \"none\", \"exists\", \"any\" or \"2@UUID\"")
            }

            fn visit_u64<E: de::Error>(self, version: u64) -> Result<ExpectedVersion, E> {
                token::check_number(version, &self)?;
                Ok(ExpectedVersion::Word(Expected::Exact(Version::new(version))))
            }

            fn visit_f64<E: de::Error>(self, version: f64) -> Result<ExpectedVersion, E> {
                whole(version, &self).and_then(|version| self.visit_u64(version))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ExpectedVersion, E> {
                // A bare version must be a JSON number; a version with an id is a string.
                let number = text.bytes().all(|byte| byte.is_ascii_digit());
                match text.parse() {
                    Ok(expected) if !number => Ok(expected),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        value.deserialize_any(Visitor)
    }
}

/// The expectation in the headers of an append to one stream.
#[derive(Debug)]
pub(crate) struct Expectation {
    /// One of these must hold.
    any_of: Vec<ExpectedVersion>,
    /// The header that states it.
    field: &'static str,
    /// Whether it is an HTTP precondition, which fails with 412.
    precondition: bool,
    /// Whether a weak tag was ignored.
    weak: bool,
}

impl Expectation {
    /// Parses the expectation in these headers.
    ///
    /// # Errors
    /// [`Problem`] if one is invalid, or if they contradict each other.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        refuse_others(headers)?;
        let given = [of_version(headers)?, of_match(headers)?, of_none_match(headers)?];
        let mut given = given.into_iter().flatten();
        let anything = vec![ExpectedVersion::Word(Expected::Any)];
        let nothing = Self { any_of: anything, field: "Expected-Version", precondition: false, weak: false };
        let Some(first) = given.next() else { return Ok(nothing) };
        given.try_fold(first, Self::and)
    }

    fn and(self, other: Self) -> Result<Self, Problem> {
        let both = match (self.any_of.as_slice(), other.any_of.as_slice()) {
            ([one], [another]) => one.and(*another),
            _ => None,
        };
        let Some(both) = both else {
            let problem = format!("does not say the same as {}; give one of them", self.field);
            return Err(Problem::contradiction(other.field, problem));
        };
        Ok(Self { any_of: vec![both], ..other })
    }

    /// The conditions of which one must hold; empty if every version is accepted.
    ///
    /// # Errors
    /// [`Problem`] if every expectation is certainly of another history.
    pub(crate) fn conditions(
        &self,
        store: &dyn EventStore,
        stream: &StreamId,
    ) -> Result<Vec<Condition>, Problem> {
        if self.any_of == [ExpectedVersion::Word(Expected::Any)] {
            return Ok(Vec::new());
        }
        let condition =
            |expected: &ExpectedVersion| expected.into_condition(store, stream.clone(), self.field);
        let (mut conditions, mut lost) = (Vec::new(), None);
        for made in self.any_of.iter().map(condition) {
            match made {
                Ok(condition) => conditions.push(condition),
                Err(problem) => lost = Some(problem),
            }
        }
        match lost {
            Some(problem) if conditions.is_empty() => return Err(self.answered(problem)),
            // No event has this new id, so the condition fails. The append still goes to the store, because
            // its key may have an outcome.
            None if conditions.is_empty() => conditions.push(Condition::Newest {
                stream: stream.clone(),
                version: Version::FIRST,
                event: EventId::generate(),
            }),
            _ => {}
        }
        Ok(conditions)
    }

    /// The problem of an append that was refused under one of the conditions.
    pub(crate) fn refused(&self, error: Error) -> Problem {
        match error {
            Error::Conflict(conflict) if self.any_of.is_empty() => self.matches_nothing(conflict),
            error => {
                let part = Part { field: self.field.to_owned(), seen: None };
                self.answered(refused(error, |_| &part))
            }
        }
    }

    fn answered(&self, problem: Problem) -> Problem {
        match problem.status() {
            StatusCode::CONFLICT if self.precondition => problem.with_status(StatusCode::PRECONDITION_FAILED),
            _ => problem,
        }
    }

    /// The conflict of an append whose `If-Match` has no usable tag, so that no version matches.
    fn matches_nothing(&self, conflict: Box<Conflict>) -> Problem {
        let Some((stream, actual)) = actual(&conflict) else {
            return self.answered(Error::Conflict(conflict).into());
        };
        let why = match self.weak {
            true => {
                "a weak tag (`W/\"…\"`) never matches. Proxies that compress responses make tags weak: send the version in \
                 Expected-Version instead"
            }
            false => "none of its tags is the tag of a stream, such as `\"3@UUID\"`",
        };
        let detail =
            format!("stream `{stream}` is at version {actual}, which does not match {}: {why}", self.field);
        let violation = json!({"condition": 0, "stream": stream.as_str(), "actual": actual.get(), "unseen": [],
                               "unseen_complete": false});
        Problem::new(StatusCode::PRECONDITION_FAILED, "conflict", detail)
            .with("stale", false)
            .with("actual_version", actual.get())
            .with("violations", json!([violation]))
    }
}

/// The part of a request from which a condition was made.
pub(crate) struct Part {
    field: String,
    /// The last event of the log that the client has seen, if it named one.
    seen: Option<Witness>,
}

impl Part {
    /// The part for a condition in the body.
    pub(crate) fn of_condition(index: usize, condition: &Condition) -> Self {
        let (name, seen) = match condition {
            Condition::NoMatch { after, .. } => ("after", after.witness()),
            _ => ("expected", None),
        };
        Self { field: format!("conditions[{index}].{name}"), seen }
    }
}

/// The problem of a refused append. A token that does not hold is the problem `other-history`, as in all
/// requests. `part` returns the part of the request from which the condition with this index was made.
pub(crate) fn refused<'p>(error: Error, part: impl Fn(usize) -> &'p Part) -> Problem {
    if let Error::Conflict(conflict) = &error {
        let lost = conflict.violations.iter().find_map(|violation| {
            let Part { field, seen: named } = part(violation.condition);
            match &violation.violated {
                Violated::Newest { stream, version, .. } => {
                    Some(token::lost_version(field, stream, *version))
                }
                Violated::History { seen } if *named == Some(*seen) => Some(token::lost(field, *seen)),
                Violated::History { seen } => Some(token::lost_since(field, *seen)),
                _ => None,
            }
        });
        if let Some(problem) = lost {
            return problem;
        }
    }
    error.into()
}

/// Appends under the first of these conditions that holds, or unconditionally if there are none.
///
/// # Errors
/// As [`EventStore::append`]; if no condition holds, the conflict of the first one.
pub(crate) async fn append_under_one(
    store: &dyn EventStore,
    mut append: Append,
    mut conditions: Vec<Condition>,
) -> Result<Appended, Error> {
    if conditions.is_empty() {
        return store.append(append).await;
    }
    let mut condition = conditions.remove(0);
    let (mut first, mut unwanted) = (None, None);
    loop {
        let is_last = conditions.is_empty();
        let mut attempt = if is_last { std::mem::take(&mut append) } else { append.clone() };
        attempt.conditions.push(condition);
        let conflict = match store.append(attempt).await {
            Err(Error::Conflict(conflict)) => conflict,
            // The same append may already be stored under a later condition.
            Err(invalid @ Error::Invalid(_)) if !is_last => {
                unwanted.get_or_insert(invalid);
                condition = conditions.remove(0);
                continue;
            }
            outcome => return outcome,
        };
        let there = actual(&conflict).map(|(_, version)| version);
        let holds = |condition: &Condition| there.is_some() && version(condition) == there;
        let next = conditions.iter().position(holds);
        let first = first.get_or_insert(conflict);
        match next {
            Some(index) => condition = conditions.remove(index),
            None => return Err(unwanted.unwrap_or_else(|| Error::Conflict(first.clone()))),
        }
    }
}

/// The stream of a version conflict, and its actual version.
fn actual(conflict: &Conflict) -> Option<(&StreamId, Version)> {
    conflict.violations.iter().find_map(|violation| match &violation.violated {
        Violated::Version { stream, actual, .. } | Violated::Newest { stream, actual, .. } => {
            Some((stream, *actual))
        }
        _ => None,
    })
}

fn version(condition: &Condition) -> Option<Version> {
    match condition {
        Condition::Version { expected, .. } => expected.version(),
        Condition::Newest { version, .. } => Some(*version),
        _ => None,
    }
}

/// Refuses every expectation in the headers of an append to several streams.
pub(crate) fn refuse_all(headers: &HeaderMap) -> Result<(), Problem> {
    refuse_others(headers)?;
    for (name, field) in [
        (header::IF_MATCH.as_str(), "If-Match"),
        (header::IF_NONE_MATCH.as_str(), "If-None-Match"),
        ("expected-version", "Expected-Version"),
    ] {
        if headers.contains_key(name) {
            return Err(Problem::invalid(
                field,
                "belongs to one stream; here, give `conditions` in the body",
            ));
        }
    }
    Ok(())
}

/// Refuses preconditions that appends do not support.
fn refuse_others(headers: &HeaderMap) -> Result<(), Problem> {
    if !headers.contains_key(header::IF_UNMODIFIED_SINCE) {
        return Ok(());
    }
    let problem = "is not taken by appends: a time names no version. Give the version or the ETag of the stream as \
                   Expected-Version or If-Match";
    Err(Problem::invalid("If-Unmodified-Since", problem))
}

fn of_version(headers: &HeaderMap) -> Result<Option<Expectation>, Problem> {
    let field = "Expected-Version";
    let Some(text) = text_header(headers, "expected-version")? else { return Ok(None) };
    // A proxy that compresses responses changes an ETag to `W/"…"`.
    let expected = text.trim_start_matches("W/").trim_matches('"').parse();
    let expected = expected.map_err(|invalid: Invalid| Problem::invalid(field, invalid.problem))?;
    Ok(Some(Expectation { any_of: vec![expected], field, precondition: false, weak: false }))
}

fn of_match(headers: &HeaderMap) -> Result<Option<Expectation>, Problem> {
    let field = "If-Match";
    let (any_of, weak) = match etag::list(headers, header::IF_MATCH, field)? {
        None => return Ok(None),
        Some(Tags::Any) => (vec![ExpectedVersion::Word(Expected::Exists)], false),
        Some(Tags::These(tags)) if tags.len() > TAGS_MAX => {
            return Err(Problem::invalid(field, format!("has {} tags; at most {TAGS_MAX}", tags.len())));
        }
        Some(Tags::These(tags)) => {
            let mut tokens: Vec<Token> = Vec::new();
            for tag in tags.iter().filter(|tag| !tag.weak) {
                // Tags are compared byte by byte: `"03"` is not one of ours.
                let token = tag.text.parse().ok().filter(|token: &Token| token.to_string() == tag.text);
                tokens.extend(token.filter(|token| !tokens.contains(token)));
            }
            // The newest version first: the client has seen nothing after it.
            tokens.sort_by_key(|token| std::cmp::Reverse(token.number()));
            let weak = tags.iter().any(|tag| tag.weak);
            (tokens.into_iter().map(ExpectedVersion::Version).collect(), weak)
        }
    };
    Ok(Some(Expectation { any_of, field, precondition: true, weak }))
}

fn of_none_match(headers: &HeaderMap) -> Result<Option<Expectation>, Problem> {
    let field = "If-None-Match";
    match etag::list(headers, header::IF_NONE_MATCH, field)? {
        None => Ok(None),
        Some(Tags::Any) => {
            let any_of = vec![ExpectedVersion::Word(Expected::NoStream)];
            Ok(Some(Expectation { any_of, field, precondition: true, weak: false }))
        }
        Some(Tags::These(_)) => {
            let problem = "of an append can only be `*`, for a stream that does not exist; to name a version that the \
                           stream must have, give If-Match";
            Err(Problem::invalid(field, problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &'static str)]) -> Result<Expectation, Problem> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a header"));
        }
        Expectation::of(&map)
    }

    const VERSION: &str = "expected-version";
    const ID: &str = "\"3@0f8fad5b-d9cb-469f-a165-70867728950e\"";

    #[test]
    fn headers_that_say_the_same_are_one_expectation() {
        for headers in [
            [(VERSION, "3"), ("if-match", "\"3\"")],
            [(VERSION, "3"), ("if-match", ID)],
            [(VERSION, ID), ("if-match", "\"3\"")],
            [(VERSION, "exists"), ("if-match", "*")],
            [(VERSION, "none"), ("if-none-match", "*")],
            [(VERSION, "0"), ("if-none-match", "*")],
            [("if-match", "\"0\""), ("if-none-match", "*")],
        ] {
            assert!(of(&headers).is_ok_and(|expectation| expectation.precondition), "{headers:?}");
        }
        let with_id = of(&[(VERSION, "3"), ("if-match", ID)]).unwrap();
        let token = ID.trim_matches('"').parse().unwrap();
        assert_eq!(with_id.any_of, [ExpectedVersion::Version(token)], "the narrower one counts");
    }

    #[test]
    fn headers_that_contradict_each_other_are_refused() {
        for headers in [
            [(VERSION, "3"), ("if-match", "\"4\"")],
            [(VERSION, "3"), ("if-match", "\"3\", \"4\"")],
            [(VERSION, "3"), ("if-match", "W/\"3\"")],
            [(VERSION, "3"), ("if-match", "*")],
            [(VERSION, "any"), ("if-match", "\"3\"")],
            [(VERSION, "any"), ("if-none-match", "*")],
            [(VERSION, "exists"), ("if-none-match", "*")],
            [("if-match", "*"), ("if-none-match", "*")],
        ] {
            assert_eq!(of(&headers).unwrap_err().status(), 422, "{headers:?}");
        }
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for value in ["", "3", "\"3", "\"3\" x", "*, \"3\"", "w/\"3\"", "\"3\"; \"4\""] {
            assert_eq!(of(&[("if-match", value)]).unwrap_err().status(), 400, "{value}");
            assert_eq!(of(&[("if-none-match", value)]).unwrap_err().status(), 400, "{value}");
        }
        assert_eq!(of(&[("if-none-match", "\"3\"")]).unwrap_err().status(), 400);
    }

    #[test]
    fn only_strong_tags_of_a_stream_are_kept_the_newest_first() {
        let given = of(&[("if-match", "\"2\", W/\"5\" ,\"x\""), ("if-match", "\"4\",\"2\"")]).unwrap();
        let numbers: Vec<_> =
            given.any_of.iter().filter_map(|one| one.as_token()).map(Token::number).collect();
        assert_eq!((numbers, given.weak), (vec![4, 2], true));
    }
}
