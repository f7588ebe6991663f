//! The address of a store, in one form for the library, the command line, the server and the tests.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::Invalid;
use crate::redaction::{is_scheme, redacted, unescaped, unknown_password};

/// The address of a store: a scheme, which names the backend, and the backend's part: `memory:`,
/// `file:DIRECTORY`, `postgres://…`. This type does not check the scheme: a list of backends
/// (`annals::backend::Backends`) does, and refuses unknown ones.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl {
    text: String,
    /// The index of the first `:`.
    colon: usize,
}

impl StoreUrl {
    /// The part before the first `:`.
    pub fn scheme(&self) -> &str {
        &self.text[..self.colon]
    }

    /// The part after the first `:`, including any password.
    pub fn rest(&self) -> &str {
        &self.text[self.colon + 1..]
    }

    /// The whole address, including any password.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The directory of a `file:DIRECTORY` address; `None` for others.
    pub fn directory(&self) -> Option<&Path> {
        (self.scheme() == FILE).then(|| Path::new(self.rest()))
    }

    /// Whether the store ends with the process: `memory:`.
    pub fn is_memory(&self) -> bool {
        self.scheme() == "memory"
    }
}

/// The scheme of a directory. Its addresses are paths, which may contain any character.
const FILE: &str = "file";

impl FromStr for StoreUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let scheme = text.split_once(':').map(|(scheme, _)| scheme);
        let Some(scheme) = scheme.filter(|scheme| is_scheme(scheme)) else {
            let problem =
                format!("`{}` is not a store; write SCHEME:PLACE, such as `file:DIRECTORY`", redacted(text));
            return Err(Invalid::new("store", problem));
        };
        let url = match text.strip_prefix("file://") {
            Some(path) => format!("{FILE}:{path}"),
            None => text.to_owned(),
        };
        if scheme != FILE {
            check_password(text)?;
        }
        Ok(Self { text: url, colon: scheme.len() })
    }
}

/// Refuses an address whose password would be parsed as something else.
fn check_password(text: &str) -> Result<(), Invalid> {
    if let Some((sign, escape)) = unescaped(text) {
        let problem = format!("has a `{sign}` in its user or password: write it as `{escape}`");
        return Err(Invalid::new("store", problem));
    }
    if let Some(name) = unknown_password(text) {
        let problem = format!("has a parameter `{name}`, which no driver reads; a password is `password`");
        return Err(Invalid::new("store", problem));
    }
    Ok(())
}

impl fmt::Display for StoreUrl {
    /// Without any password. Of an address that is neither a path nor has a `//`, only the scheme is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.directory() {
            Some(_) => f.write_str(&self.text),
            None => f.write_str(&redacted(&self.text)),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The address of a database. A password in it is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl FromStr for DatabaseUrl {
    type Err = std::convert::Infallible;

    /// Accepts any text: the database's driver reports errors in it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl DatabaseUrl {
    /// The whole address, with the password.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(&self.0))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_written() {
        for (text, scheme, directory) in [
            ("memory:", "memory", None),
            ("file:./data", "file", Some("./data")),
            ("file:/var/lib/annals", "file", Some("/var/lib/annals")),
            ("file:a:b@c?d=e", "file", Some("a:b@c?d=e")),
            ("somebodys+own://place", "somebodys+own", None),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!((url.scheme(), url.directory()), (scheme, directory.map(Path::new)), "{text}");
            assert_eq!(url.to_string(), text);
        }
        let absolute: StoreUrl = "file:///var".parse().unwrap();
        assert_eq!(absolute, "file:/var".parse().unwrap());
        assert_eq!(absolute.directory(), Some(Path::new("/var")));
    }

    #[test]
    fn a_password_is_not_shown() {
        for (text, shown) in [
            ("postgres://kim:s3:cr@t@db/shop?schema=a", "postgres://kim:***@db/shop?schema=a"),
            ("postgres://kim@db/shop", "postgres://kim@db/shop"),
            ("mysql://db/shop?password=secret&schema=x", "mysql://db/shop?password=***&schema=x"),
            ("somebodys://kim:s3:cr@t@db/shop", "somebodys://kim:***@db/shop"),
            ("kim:s3cr@t@db/shop", "kim:***@db/shop"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
            assert_eq!(url.expose(), text);
        }
    }

    #[test]
    fn a_mistake_does_not_show_a_password() {
        for text in [
            "s3cret@db/shop",
            "s3cret@db:5432/shop",
            "db/shop?password=s3cret",
            "kim@db/shop?password=s3cret",
            "host=db user=kim password=s3cret dbname=shop",
            "jdbc/postgresql:kim:s3cret@db/shop",
            "postgres://kim:s3cret?x@db/shop",
            "postgres://kim:12?passs3cret@db/shop",
            "postgres://kim:12?passs3cret=1@db/shop",
            "postgres://db/shop?password=a&s3cretpwd",
            "postgres://db/shop?PASSWORD=s3cret",
            "postgres://db/shop?sslpassword=s3cret",
        ] {
            let refused = text.parse::<StoreUrl>().unwrap_err().to_string();
            assert!(!refused.contains("s3cret"), "{refused}");
        }
        let refused = "postgres://kim:s3cr?et@db/shop".parse::<StoreUrl>().unwrap_err().to_string();
        assert!(refused.contains("write it as `%3F`"), "{refused}");
    }

    #[test]
    fn what_has_no_scheme_says_what_is_missing() {
        for text in ["", "data", ":data", "./a:b"] {
            let refused = text.parse::<StoreUrl>().unwrap_err().to_string();
            assert!(refused.contains("file:DIRECTORY"), "{text}: {refused}");
        }
    }

    #[test]
    fn a_file_has_no_password() {
        let url: DatabaseUrl = "sqlite:a:b@c.db?mode=rwc".parse().unwrap();
        assert_eq!(url.to_string(), "sqlite:a:b@c.db?mode=rwc");
    }
}
