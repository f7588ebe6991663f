//! Addresses in a form that may be shown: without anything that could be a password.
//!
//! Only understood parts are shown. An address is parsed as `SCHEME://USER:PASSWORD@HOST/PATH?NAME=VALUE`; if
//! it has another shape, everything between its first `:` and its last `@` is left out, because a password is
//! there, with any character in it. A parameter's value is shown if the parameter is known to be harmless.

/// Parameters of the databases and of object storage whose values are not secret.
const HARMLESS: &[&str] = &[
    "application_name",
    "cache",
    "channel_binding",
    "charset",
    "collation",
    "connect_timeout",
    "dbname",
    "endpoint",
    "host",
    "hostaddr",
    "immutable",
    "mode",
    "port",
    "region",
    "schema",
    "socket",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "target_session_attrs",
    "timezone",
    "user",
];

/// The placeholder for omitted text.
const HIDDEN: &str = "***";

/// The address of a database, a store or a bucket in a form that may be printed, logged and stored: anything
/// that could be a password is replaced by `***`. An address that is returned unchanged contains none.
pub fn redacted(address: &str) -> String {
    let Some((scheme, rest)) = split_scheme(address) else { return without_scheme(address) };
    match understood(scheme, rest) {
        Some(shown) => shown,
        None => match rest.rsplit_once('@') {
            Some((_, end)) if is_place(end) => format!("{scheme}:{HIDDEN}@{end}"),
            _ => format!("{scheme}:{HIDDEN}"),
        },
    }
}

/// The scheme and the text after its `:`; `None` if the beginning is not a scheme and may contain a password.
fn split_scheme(address: &str) -> Option<(&str, &str)> {
    address.split_once(':').filter(|(scheme, _)| is_scheme(scheme))
}

/// Whether the text has the form of a scheme.
pub(crate) fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|sign| sign.is_ascii_alphanumeric() || "+-.".contains(sign))
}

/// A path, or an address without its beginning: `PASSWORD@HOST:PORT/PATH`, `HOST/PATH?password=PASSWORD`. The
/// text before the last `@` may be a password, and so may the text before a `:`.
fn without_scheme(address: &str) -> String {
    let (before, query) = parts(address);
    let (begin, place) = match before.rsplit_once('@') {
        Some((_, place)) => (format!("{HIDDEN}@"), place),
        None => (String::new(), before),
    };
    // For example, `host=db password=PASSWORD` has an `=`.
    let is_shown = if begin.is_empty() { !place.contains(['=', ':']) } else { is_place(place) };
    match shown_query(query) {
        Some(query) if is_shown => format!("{begin}{place}{query}"),
        _ => HIDDEN.to_owned(),
    }
}

/// A message in which this address, and everything that [`redacted`] omits from it, is replaced: drivers
/// quote what they cannot parse.
pub fn without_secrets(message: &str, address: &str) -> String {
    let mut shown = message.replace(address, &redacted(address));
    for secret in secrets(address) {
        shown = shown.replace(secret, HIDDEN);
    }
    shown
}

/// A character of the address that must be escaped, with its escape: a `/`, `?` or `#` in a password ends the
/// server's name, and the rest is read as something else.
pub(crate) fn unescaped(address: &str) -> Option<(char, &'static str)> {
    let (_, rest) = address.split_once("://")?;
    let end = rest.find(['/', '?', '#'])?;
    let (authority, after) = rest.split_at(end);
    let port = authority.rsplit_once(':').map_or("", |(_, port)| port);
    if authority.contains('@') || !after.contains('@') || port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match after.as_bytes()[0] {
        b'/' => Some(('/', "%2F")),
        b'?' => Some(('?', "%3F")),
        _ => Some(('#', "%23")),
    }
}

/// Other names for a password. Any other name is not shown: it may be the end of a password that contains a
/// `?` or `&`.
const PASSWORDS: &[&str] = &["pass", "passfile", "passphrase", "passwd", "password", "pwd", "sslpassword"];

/// A parameter that was intended as a password but is read by no driver, which would log it with its value:
/// its name, or the text to show instead.
pub(crate) fn unknown_password(address: &str) -> Option<&str> {
    let mut names = parts(address).1?.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    let found = names.find(|name| {
        let meant = name.to_ascii_lowercase();
        *name != "password" && (meant.contains("pass") || meant.contains("pwd"))
    })?;
    Some(if PASSWORDS.contains(&&*found.to_ascii_lowercase()) { found } else { HIDDEN })
}

/// The address in a form that may be shown, if it has the usual shape; `None` otherwise.
fn understood(scheme: &str, rest: &str) -> Option<String> {
    let Some(rest) = rest.strip_prefix("//") else {
        // A file has neither user nor password, and its name may contain any character.
        let file = matches!(scheme, "file" | "sqlite" | "memory");
        let (path, query) = parts(rest);
        return file.then(|| Some(format!("{scheme}:{path}{}", shown_query(query)?)))?;
    };
    let (before, query) = parts(rest);
    let query = shown_query(query)?;
    let Some((user, place)) = before.rsplit_once('@') else {
        return is_place(before).then(|| format!("{scheme}://{before}{query}"));
    };
    if !is_place(place) {
        return None;
    }
    match user.split_once(':') {
        Some((user, _)) if is_user(user) => Some(format!("{scheme}://{user}:{HIDDEN}@{place}{query}")),
        None if is_user(user) => Some(format!("{scheme}://{user}@{place}{query}")),
        _ => None,
    }
}

/// The text before the query, and the query.
fn parts(text: &str) -> (&str, Option<&str>) {
    text.split_once('?').map_or((text, None), |(before, query)| (before, Some(query)))
}

/// The parameters, with the harmless values. `None` if the text does not have the form of parameters.
fn shown_query(query: Option<&str>) -> Option<String> {
    let mut shown = String::new();
    for pair in query.into_iter().flat_map(|query| query.split('&')) {
        let mark = if shown.is_empty() { '?' } else { '&' };
        if pair.is_empty() {
            shown.push(mark);
            continue;
        }
        let (name, value) = pair.split_once('=')?;
        let value = match name {
            "replica" => shown_replica(value)?,
            // In a value that is not an address, an `@` is the end of a password that contains a `?`.
            _ if value.contains('@') || !is_plain(name, "_-.%") => return None,
            _ if HARMLESS.contains(&name) && is_plain(value, "._-/%,:+~[]") => value.to_owned(),
            _ => HIDDEN.to_owned(),
        };
        shown.push_str(&format!("{mark}{name}={value}"));
    }
    Some(shown)
}

/// The address of a replica, which may be escaped as a whole.
fn shown_replica(value: &str) -> Option<String> {
    match value.split_once(':') {
        Some((scheme, rest)) => understood(scheme, rest),
        None => Some(if is_plain(value, "._-") { value.to_owned() } else { HIDDEN.to_owned() }),
    }
}

/// A server, perhaps with a port, and a path.
fn is_place(text: &str) -> bool {
    let authority = text.split('/').next().unwrap_or_default();
    let port = match authority.rsplit_once(':') {
        Some((host, _)) if host.starts_with('[') && !host.ends_with(']') => "",
        Some((_, port)) => port,
        None => "",
    };
    is_plain(text, "._-:[]/,%~+") && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// A user's name without an escaped `:`.
fn is_user(text: &str) -> bool {
    is_plain(text, "._-%~+") && !text.to_ascii_lowercase().contains("%3a")
}

fn is_plain(text: &str, signs: &str) -> bool {
    text.chars().all(|sign| sign.is_alphanumeric() || signs.contains(sign))
}

/// The parts of an address that are omitted, longest first.
fn secrets(address: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let rest = split_scheme(address).map_or(address, |(_, rest)| rest);
    if !rest.starts_with("//") {
        // The user before the password may be missing.
        found.extend(rest.rsplit_once('@').map(|(user, _)| user));
    }
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let ends = [rest.rsplit_once('@'), parts(rest).0.rsplit_once('@'), rest.split_once('@')];
    found.extend(ends.into_iter().flatten().filter_map(|(user, _)| Some(user.split_once(':')?.1)));
    for pair in parts(rest).1.into_iter().flat_map(|query| query.split('&')) {
        match pair.split_once('=') {
            Some(("replica", value)) => found.extend(secrets(value)),
            Some((name, value)) if !HARMLESS.contains(&name) => found.push(value),
            _ => {}
        }
    }
    found.retain(|secret| !secret.is_empty());
    found.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_understood_is_shown() {
        for (address, shown) in [
            ("postgres://kim:s3:cr@t@db/shop?schema=a", "postgres://kim:***@db/shop?schema=a"),
            (
                "postgres://kim@[::1]:5432/shop?sslmode=require",
                "postgres://kim@[::1]:5432/shop?sslmode=require",
            ),
            ("postgres://kim:s3cr?et@db/shop", "postgres:***@db/shop"),
            ("postgres://kim:s3cr/et@db/shop", "postgres://kim:***@db/shop"),
            ("postgres://kim:s3cr#et@db/shop", "postgres://kim:***@db/shop"),
            ("postgres:kim:s3cret@db/shop", "postgres:***@db/shop"),
            ("POSTGRES://kim:s3cret@db/shop", "POSTGRES://kim:***@db/shop"),
            ("jdbc:postgresql://kim:s3cret@db/shop", "jdbc:***@db/shop"),
            ("mysql://db/shop?password=s3cret&x=s3cret", "mysql://db/shop?password=***&x=***"),
            ("mysql://db/shop?user=kim&PASSWORD=s3cret", "mysql://db/shop?user=kim&PASSWORD=***"),
            ("mysql://db/shop?pass%77ord=s3cret", "mysql://db/shop?pass%77ord=***"),
            (
                "postgres://kim:a@one/shop?replica=postgres://kim:s3cret@two/shop",
                "postgres://kim:***@one/shop?replica=postgres://kim:***@two/shop",
            ),
            ("s3://key:s3cret@bucket/x", "s3://key:***@bucket/x"),
            ("sqlite:a:b@c.db?mode=rwc", "sqlite:a:b@c.db?mode=rwc"),
            ("postgres://kim@db/shop?", "postgres://kim@db/shop?"),
            ("./data", "./data"),
            ("my data/of 2026", "my data/of 2026"),
            ("s3cret@db/shop", "***@db/shop"),
            ("s3cret@db:5432/shop", "***@db:5432/shop"),
            ("kim:s3:cr@t@db:5432/shop?schema=a", "kim:***"),
            ("s3cret@db/shop?schema=a&password=s3cret", "***@db/shop?schema=a&password=***"),
            ("db/shop?password=s3cret", "db/shop?password=***"),
        ] {
            assert_eq!(redacted(address), shown);
        }
    }

    /// No password is shown, wherever the mistake in the address is.
    #[test]
    fn what_is_not_understood_is_not_shown() {
        for address in [
            "postgres://kim:s3cret",
            "postgres://kim%3As3cret@db/shop",
            "postgres://kim:1?s3cret@db/shop",
            "postgres://kim:12?a=s3cret@db/shop",
            "postgres://kim:p@x?w=s3cret@db/shop",
            "postgres://kim:1&s3cret@db/shop",
            "postgres://db/shop#s3cret",
            "postgres://db/shop?s3cret",
            "postgres://db/shop?options=-c%20a=s3cret",
            "postgres://db/shop?replica=s3cret%40two",
            "postgres://db/shop?replica=postgres:kim:s3cret@two/shop",
            "postgres:kim:s3cret",
            "sqlite://kim:s3cret@db/shop",
            "sqlite:shop.db?key=s3cret",
            "postgres://kim@db:s3cret/shop",
            "postgres:kim@db:s3cret",
            "s3cret@db:5432/shop",
            "s3cret@db:5432/shop?password=s3cret",
            "a:b@s3cret@db:5432/shop",
            ":s3cret@db/shop",
            "//kim:s3cret@db/shop",
            "k m:s3cret@db/shop",
            "db/shop?password=s3cret",
            "db:5432/shop?password=s3cret",
            "kim@db/shop?password=s3cret",
            "kim@db/shop?s3cret",
            "host=db user=kim password=s3cret dbname=shop",
            "host=db user=kim password=s3cret:x dbname=shop",
            "password=s3cret",
            "s3cret?@db:5432/shop",
            "s3cret/x@db:5432/shop",
        ] {
            let shown = redacted(address);
            assert!(!shown.contains("s3cret"), "{address} is shown as {shown}");
        }
    }

    #[test]
    fn a_message_of_a_driver_loses_what_it_quotes() {
        let address = "postgres://kim:s3cr/et@db/shop?token=abc&replica=postgres://kim:other@two/shop";
        for message in [format!("cannot read {address}"), "bad: s3cr/et, abc, other".to_owned()] {
            let shown = without_secrets(&message, address);
            for secret in ["s3cr/et", "abc", "other"] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
        for address in ["s3cret@db:5432/shop", "kim:s3cret@db:5432/shop", "db/shop?password=s3cret"] {
            let shown = without_secrets("no server of the name s3cret", address);
            assert_eq!(shown, "no server of the name ***", "{address}");
        }
    }

    #[test]
    fn a_sign_that_must_be_escaped_is_named() {
        assert_eq!(unescaped("postgres://kim:s3cr?et@db/shop"), Some(('?', "%3F")));
        assert_eq!(unescaped("mysql://kim:s3cr/et@db/shop"), Some(('/', "%2F")));
        assert_eq!(unescaped("mysql://kim:s3cr#et@db/shop"), Some(('#', "%23")));
        for good in
            ["postgres://kim:s3cret@db/shop", "postgres://db:5432/shop?user=kim@corp", "postgres://db"]
        {
            assert_eq!(unescaped(good), None, "{good}");
        }
    }
}
