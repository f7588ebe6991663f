//! Addresses as they may be shown: without what could be a password.
//!
//! Only what is understood is shown. An address is taken apart as `SCHEME://USER:PASSWORD@HOST/PATH?NAME=VALUE`; where
//! it has another shape, everything between its first `:` and its last `@` is left out, because that is where a password
//! is, with whatever sign in it. A parameter's value is shown if the parameter is known to be harmless.

/// Parameters whose values hold no secret, of the databases and of object storage.
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

/// The placeholder for what is left out.
const HIDDEN: &str = "***";

/// The address of a database, a store or a bucket as it may be printed, logged and kept: whatever could be a password is
/// `***`. An address that is returned as it was given has none in it.
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

/// The scheme and what is after its `:`; `None` if it begins with something else, in which a password may be.
fn split_scheme(address: &str) -> Option<(&str, &str)> {
    address.split_once(':').filter(|(scheme, _)| is_scheme(scheme))
}

/// Whether it may be the scheme of an address.
pub(crate) fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|sign| sign.is_ascii_alphanumeric() || "+-.".contains(sign))
}

/// A path, or an address whose beginning is missing: `PASSWORD@HOST:PORT/PATH`, `HOST/PATH?password=PASSWORD`. What is before
/// the last `@` may be a password, and so may be what is before a `:`.
fn without_scheme(address: &str) -> String {
    let (before, query) = parts(address);
    let (begin, place) = match before.rsplit_once('@') {
        Some((_, place)) => (format!("{HIDDEN}@"), place),
        None => (String::new(), before),
    };
    // An `=` is in `host=db password=PASSWORD`.
    let is_shown = if begin.is_empty() { !place.contains(['=', ':']) } else { is_place(place) };
    match shown_query(query) {
        Some(query) if is_shown => format!("{begin}{place}{query}"),
        _ => HIDDEN.to_owned(),
    }
}

/// A message with this address, and what [`redacted`] leaves out of it, replaced: drivers quote what they cannot read.
pub fn without_secrets(message: &str, address: &str) -> String {
    let mut shown = message.replace(address, &redacted(address));
    for secret in secrets(address) {
        shown = shown.replace(secret, HIDDEN);
    }
    shown
}

/// The sign that an address has where it must be escaped, with the way to write it: a `/`, `?` or `#` in a password ends the
/// server's name, and what follows is read as something else.
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

/// Names by which others call a password. No other is shown: it may be the end of a password with a `?` or `&` in it.
const PASSWORDS: &[&str] = &["pass", "passfile", "passphrase", "passwd", "password", "pwd", "sslpassword"];

/// A parameter that is meant as a password and is read by no driver, which would log it with its value: its name, or what may be
/// shown instead.
pub(crate) fn unknown_password(address: &str) -> Option<&str> {
    let mut names = parts(address).1?.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    let found = names.find(|name| {
        let meant = name.to_ascii_lowercase();
        *name != "password" && (meant.contains("pass") || meant.contains("pwd"))
    })?;
    Some(if PASSWORDS.contains(&&*found.to_ascii_lowercase()) { found } else { HIDDEN })
}

/// The address as it may be shown if it has the usual shape; `None` otherwise.
fn understood(scheme: &str, rest: &str) -> Option<String> {
    let Some(rest) = rest.strip_prefix("//") else {
        // A file has neither user nor password, and any sign may be in its name.
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

/// What is before the query, and the query.
fn parts(text: &str) -> (&str, Option<&str>) {
    text.split_once('?').map_or((text, None), |(before, query)| (before, Some(query)))
}

/// The parameters, with those values that are harmless. `None` if it does not look like parameters.
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
            // In a value that is not an address, an `@` is the end of a password that has a `?` in it.
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

/// A user's name, in which no `:` is hidden by its escape.
fn is_user(text: &str) -> bool {
    is_plain(text, "._-%~+") && !text.to_ascii_lowercase().contains("%3a")
}

fn is_plain(text: &str, signs: &str) -> bool {
    text.chars().all(|sign| sign.is_alphanumeric() || signs.contains(sign))
}

/// What is left out of an address, longest first.
fn secrets(address: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let rest = split_scheme(address).map_or(address, |(_, rest)| rest);
    if !rest.starts_with("//") {
        // There may be no user before the password.
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

    /// Wherever a mistake is, the password is not shown.
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
