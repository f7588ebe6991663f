//! The one way to name a store, the same in the library, the command line, the server and the tests.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::Invalid;

/// The address of a store: `memory:` or `file:DIRECTORY`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreUrl {
    /// A store that ends with the process.
    Memory,
    /// The embedded store in this directory.
    File(PathBuf),
}

impl FromStr for StoreUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let known = "`memory:` or `file:DIRECTORY`";
        match text.split_once(':') {
            Some(("memory", "")) => Ok(Self::Memory),
            Some(("file", "")) => Err(Invalid::new(
                "store",
                "names no directory; write `file:DIRECTORY`, such as `file:./data`",
            )),
            Some(("file", path)) => Ok(Self::File(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))),
            Some((scheme, _)) => {
                Err(Invalid::new("store", format!("`{scheme}:` is not a kind of store; write {known}")))
            }
            None => Err(Invalid::new("store", format!("`{text}` is not a store; write {known}"))),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_written() {
        for (text, url) in [
            ("memory:", StoreUrl::Memory),
            ("file:./data", StoreUrl::File("./data".into())),
            ("file:/var/lib/annals", StoreUrl::File("/var/lib/annals".into())),
        ] {
            assert_eq!(text.parse::<StoreUrl>().unwrap(), url);
            assert_eq!(url.to_string(), text);
        }
        assert_eq!("file:///var".parse::<StoreUrl>().unwrap(), StoreUrl::File("/var".into()));
    }

    #[test]
    fn an_unknown_url_says_what_is_known() {
        for text in ["", "data", "memory:x", "redis://localhost", "file:"] {
            let refused = text.parse::<StoreUrl>().unwrap_err().to_string();
            assert!(refused.contains("file:DIRECTORY"), "{text}: {refused}");
        }
    }
}
