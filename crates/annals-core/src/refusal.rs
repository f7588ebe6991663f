//! The code of a refusal: a short name for programs, stored in the log with the refusal.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// The code of a refusal without a name.
const UNNAMED: &str = "refused";
/// Most bytes of an error that are searched for its name.
const NAME_BYTES_MAX: usize = 200;

/// The default code of a refusal: the name of its type or variant as `#[derive(Debug)]` writes it, with
/// dashes. `Insufficient { balance: 5 }` has the code `insufficient`, `Refused::NotOpen` has `not-open`. An
/// error whose `Debug` does not write a name has the code `refused`.
///
/// ```
/// #[derive(Debug)]
/// enum Refused {
///     NotOpen,
/// }
/// assert_eq!(annals_core::refusal_code(&Refused::NotOpen), "not-open");
/// ```
pub fn refusal_code(error: &dyn fmt::Debug) -> Cow<'static, str> {
    let mut head = Head(String::new());
    // `Head` fails once it has enough of the text for a name.
    let _ = write!(head, "{error:?}");
    let end = head.0.find(|char: char| !char.is_alphanumeric() && char != '_').unwrap_or(head.0.len());
    let (name, rest) = head.0.split_at(end);
    let is_derived = rest.is_empty() || rest.starts_with('(') || rest.starts_with(" {");
    if !is_derived || name.len() > NAME_BYTES_MAX || !name.starts_with(char::is_alphabetic) {
        return UNNAMED.into();
    }
    with_dashes(name).into()
}

/// Collects the beginning of the output.
struct Head(String);

impl fmt::Write for Head {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(&text[..text.floor_char_boundary(NAME_BYTES_MAX + 2)]);
        if self.0.len() > NAME_BYTES_MAX { Err(fmt::Error) } else { Ok(()) }
    }
}

/// `HttpFailed2` as `http-failed2`.
fn with_dashes(name: &str) -> String {
    let mut code = String::with_capacity(name.len() + 8);
    let mut before: Option<char> = None;
    let mut chars = name.chars().peekable();
    while let Some(char) = chars.next() {
        let begins_word = char.is_uppercase()
            && before.is_some_and(|before| {
                !before.is_uppercase() || chars.peek().is_some_and(|next| next.is_lowercase())
            });
        if char == '_' || (begins_word && before != Some('_')) {
            code.push('-');
        }
        if char != '_' {
            code.extend(char.to_lowercase());
        }
        before = Some(char);
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    #[allow(dead_code, non_camel_case_types)]
    enum Refused {
        NotOpen,
        Insufficient { balance: u64 },
        TooMany(u64),
        HTTPFailed,
        Level2Reached,
        snake_case,
        이미있음,
    }

    /// Its `Debug` writes text that is not a name.
    struct Speaks(&'static str);

    impl fmt::Debug for Speaks {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    #[test]
    fn the_code_of_a_refusal_is_the_name_of_its_variant() {
        for (refused, code) in [
            (Refused::NotOpen, "not-open"),
            (Refused::Insufficient { balance: 5 }, "insufficient"),
            (Refused::TooMany(5), "too-many"),
            (Refused::HTTPFailed, "http-failed"),
            (Refused::Level2Reached, "level2-reached"),
            (Refused::snake_case, "snake-case"),
            (Refused::이미있음, "이미있음"),
        ] {
            assert_eq!(refusal_code(&refused), code, "{refused:?}");
        }
    }

    #[test]
    fn what_is_no_name_has_a_code_all_the_same() {
        let long = Box::leak("é".repeat(1 << 20).into_boxed_str());
        for text in ["", "\"quoted\"", "the account is blocked", "Blocked: by kim", "7", long] {
            assert_eq!(refusal_code(&Speaks(text)), UNNAMED, "{text:.20}");
        }
    }
}
