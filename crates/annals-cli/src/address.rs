//! Addresses on the command line: of stores, databases and backup storage. An address may contain a password.
//!
//! clap prints a value that it cannot parse. So the parser here makes its own error without the value: it
//! contains only the problem, which quotes nothing of the address but its scheme.

use std::ffi::OsStr;
use std::fmt::Display;
use std::str::FromStr;

use annals::backend::Backends;
use annals_core::{StoreUrl, redacted, without_secrets};
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};

/// A clap parser for an address.
pub(crate) fn parser<T: FromStr<Err: Display>>() -> AddressParser<T> {
    AddressParser(|text| text.parse().map_err(|error: T::Err| error.to_string()))
}

/// A clap parser for a store's address, of any supported kind.
pub(crate) fn store_parser() -> AddressParser<StoreUrl> {
    AddressParser(|text| Backends::default().parse(text).map_err(|invalid| invalid.to_string()))
}

/// Parses an address and never prints it.
pub(crate) struct AddressParser<T>(fn(&str) -> Result<T, String>);

impl<T> Clone for AddressParser<T> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for AddressParser<T> {
    type Value = T;

    fn parse_ref(&self, _: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, Error> {
        let name = arg.map_or_else(String::new, |arg| match arg.get_long() {
            Some(long) => format!("--{long}"),
            None => arg.get_id().to_string(),
        });
        let parsed = match value.to_str() {
            Some(text) => (self.0)(text),
            None => Err("is not UTF-8".to_owned()),
        };
        parsed.map_err(|problem| Error::raw(ErrorKind::ValueValidation, format!("{name}: {problem}\n")))
    }
}

/// Redacts the addresses in a message. It checks all arguments and the environment variable, because clap
/// quotes an address that is given in the wrong place.
pub(crate) fn without_passwords(message: &str) -> String {
    let arguments = std::env::args_os().skip(1).chain(std::env::var_os("ANNALS_STORE"));
    let mut message = message.to_owned();
    for argument in arguments {
        let Some(argument) = argument.to_str() else { continue };
        // As `--store=ADDRESS` too.
        let value =
            argument.strip_prefix("--").and_then(|option| option.split_once('=')).map(|(_, value)| value);
        for address in [Some(argument), value].into_iter().flatten().filter(|text| may_have_password(text)) {
            message = without_secrets(&message, address);
        }
    }
    message
}

/// Whether a text looks like an address with a secret.
fn may_have_password(text: &str) -> bool {
    let is_address = text.contains(':') && (text.contains('@') || text.contains("://"));
    (is_address || text.contains("password=")) && redacted(text) != text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_not_taken_for_one() {
        for text in ["customer:7", "2017-04-15T13:00:00Z", "file:./data", "kim@example.org"] {
            assert!(!may_have_password(text), "{text}");
        }
        for text in [
            "postgres://kim:secret@db/shop",
            "s3://key:secret@bucket/x",
            "postgres:kim:secret@db",
            "secret@db:5432/shop",
            "db/shop?password=secret",
        ] {
            assert!(may_have_password(text), "{text}");
        }
    }
}
