//! Names: the stored name of a variant, and names that do not describe something that happened.

use proc_macro2::Ident;
use syn::{LitStr, Result};

/// Verbs with which a command begins. A word that is also a noun is harmless here: a name that contains a
/// past tense is not reported.
const IMPERATIVES: &[&str] = &[
    "accept",
    "activate",
    "add",
    "apply",
    "approve",
    "archive",
    "assign",
    "begin",
    "block",
    "book",
    "buy",
    "cancel",
    "change",
    "charge",
    "check",
    "checkout",
    "close",
    "complete",
    "confirm",
    "create",
    "deactivate",
    "decline",
    "decrease",
    "delete",
    "deliver",
    "deposit",
    "disable",
    "do",
    "enable",
    "enroll",
    "execute",
    "finish",
    "get",
    "handle",
    "increase",
    "insert",
    "issue",
    "login",
    "logout",
    "make",
    "mark",
    "modify",
    "move",
    "notify",
    "open",
    "pay",
    "place",
    "process",
    "publish",
    "purchase",
    "receive",
    "refund",
    "register",
    "reject",
    "release",
    "remove",
    "rename",
    "replace",
    "request",
    "reserve",
    "restore",
    "save",
    "schedule",
    "sell",
    "send",
    "set",
    "ship",
    "start",
    "stop",
    "submit",
    "subscribe",
    "transfer",
    "unblock",
    "unsubscribe",
    "update",
    "validate",
    "verify",
    "withdraw",
    "write",
];

/// Past tenses that do not end in `ed`.
const IRREGULAR: &[&str] = &[
    "begun",
    "bought",
    "broken",
    "brought",
    "built",
    "caught",
    "chosen",
    "cut",
    "done",
    "drawn",
    "driven",
    "fallen",
    "forgotten",
    "found",
    "frozen",
    "given",
    "gone",
    "grown",
    "held",
    "hidden",
    "hit",
    "kept",
    "known",
    "laid",
    "left",
    "lent",
    "lost",
    "made",
    "met",
    "overdrawn",
    "paid",
    "put",
    "read",
    "repaid",
    "reset",
    "run",
    "said",
    "seen",
    "sent",
    "set",
    "shown",
    "shut",
    "sold",
    "spent",
    "split",
    "sought",
    "taken",
    "thrown",
    "told",
    "undone",
    "withdrawn",
    "won",
    "written",
];

/// Checks a stored name, a prefix or the key of a tag.
pub fn check(name: &LitStr) -> Result<()> {
    let text = name.value();
    let problem = if text.is_empty() {
        "is empty"
    } else if text.len() > 128 {
        "is longer than 128 bytes"
    } else if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        "contains white space"
    } else {
        return Ok(());
    };
    Err(syn::Error::new(name.span(), format!("this name {problem}")))
}

/// `OrderPlaced` as `order_placed`.
pub fn snake_case(ident: &Ident) -> String {
    words(ident).join("_")
}

/// The problem of a variant whose name does not describe something that happened.
pub fn not_a_fact(ident: &Ident) -> Option<String> {
    let words = words(ident);
    let past = |word: &String| {
        (word.len() > 3 && word.ends_with("ed") && word != "need" && word != "speed" && word != "feed")
            || IRREGULAR.contains(&word.as_str())
    };
    // A single `Set` may be a past tense; `SetName` begins with a verb.
    let rest = if words.len() > 1 && words[0] == "set" { &words[1..] } else { &words[..] };
    if rest.iter().any(past) {
        return None;
    }
    let (first, last) = (words.first()?.as_str(), words.last()?.as_str());
    let looks = match last {
        "event" => "does not say what happened",
        "info" => "is a piece of information, not something that happened",
        _ if IMPERATIVES.contains(&first) => "reads like a command",
        _ => return None,
    };
    Some(format!(
        "`{ident}` {looks}; an event is a fact in the past tense, such as `OrderPlaced` \
         (`#[event(allow_name)]` keeps the name)"
    ))
}

fn words(ident: &Ident) -> Vec<String> {
    let name = ident.to_string();
    let chars: Vec<char> = name.trim_start_matches("r#").chars().collect();
    let mut words = vec![String::new()];
    for (index, &c) in chars.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| chars[before]);
        let after = chars.get(index + 1);
        // A word begins at a capital, except within a run of capitals (`HTTPSent` is `http`, `sent`).
        let begins = c.is_uppercase()
            && before.is_some_and(|before| {
                !before.is_uppercase() || after.is_some_and(|after| after.is_lowercase())
            });
        if c == '_' || begins {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().expect("there is always a word").extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ident(name: &str) -> Ident {
        Ident::new(name, proc_macro2::Span::call_site())
    }

    #[test]
    fn a_stored_name_is_the_variant_in_snake_case() {
        for (variant, stored) in [
            ("Opened", "opened"),
            ("NameChanged", "name_changed"),
            ("HTTPRequestSent", "http_request_sent"),
            ("Step2Done", "step2_done"),
        ] {
            assert_eq!(snake_case(&ident(variant)), stored);
        }
    }

    #[test]
    fn commands_and_empty_words_are_distinguished_from_facts() {
        for name in
            ["CreateOrder", "Create", "UpdateAddress", "SetName", "CustomerInfo", "Event", "OrderEvent"]
        {
            assert!(not_a_fact(&ident(name)).is_some(), "{name}");
        }
        for name in
            ["OrderCreated", "Withdrawn", "DepositMade", "NameSet", "OrderCreatedEvent", "Paid", "Overdraft"]
        {
            assert_eq!(not_a_fact(&ident(name)), None, "{name}");
        }
    }
}
