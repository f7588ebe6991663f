//! The kinds of store, and how to add one.
//!
//! A kind of store is a [`Backend`]: it declares the schemes of its addresses, opens the stores that they
//! name, and provides the other operations on them. The kinds of this build are one list,
//! [`Backends::default`], which the functions of this crate and the command line use. A program adds its own
//! with [`Backends::with`] and opens it with [`Annals::open_with`](crate::Annals::open_with):
//!
//! ```
//! use std::sync::Arc;
//!
//! use annals::backend::{Backend, Backends, OpenOptions, Opened, StatePlace};
//! use annals::{Annals, MemoryStore, Result, StoreUrl};
//!
//! /// Every address is a new store in memory.
//! struct Scratch;
//!
//! #[async_trait::async_trait]
//! impl Backend for Scratch {
//!     fn schemes(&self) -> &'static [&'static str] {
//!         &["scratch"]
//!     }
//!     fn form(&self) -> &'static str {
//!         "scratch://NAME"
//!     }
//!     async fn open(&self, _: &StoreUrl, _: OpenOptions) -> Result<Opened> {
//!         Ok(Opened::new(Arc::new(MemoryStore::new())))
//!     }
//!     fn state(&self, _: &StoreUrl) -> StatePlace {
//!         StatePlace::Memory
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! let annals = Annals::open_with("scratch://orders", &Backends::default().with(Arc::new(Scratch))).await?;
//! # annals.shutdown().await;
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "embedded")]
mod embedded;
mod memory;

use std::fmt;
use std::sync::Arc;

use annals_core::{EventStore, Invalid, Result, StoreUrl};
pub use annals_state::{
    Backend, Claim, Claimed, Group, InlineProjection, Inlines, Maintenance, NotTaken, OpenOptions,
    OpenSessions, Opened, Registration, Relocation, Session, Sessions, StatePlace,
};

/// The kinds of store of this build. A new one is a line here, and a feature if it has dependencies.
fn built_in() -> Vec<Arc<dyn Backend>> {
    vec![
        Arc::new(memory::Memory),
        #[cfg(feature = "embedded")]
        Arc::new(embedded::Embedded),
        #[cfg(feature = "postgres")]
        Arc::new(annals_postgres::PostgresBackend),
        #[cfg(feature = "mysql")]
        Arc::new(annals_mysql::MySqlBackend),
    ]
}

/// The kinds of store that an address may name. A clone has the same backends.
#[derive(Clone)]
pub struct Backends(Vec<Arc<dyn Backend>>);

impl Default for Backends {
    /// The kinds of this build: `memory:`, and those of the features `embedded`, `postgres` and `mysql`.
    fn default() -> Self {
        Self(built_in())
    }
}

impl Backends {
    /// A list of only these kinds.
    pub fn new(backends: impl IntoIterator<Item = Arc<dyn Backend>>) -> Self {
        Self(backends.into_iter().collect())
    }

    /// Adds a kind, which overrides an earlier one with the same schemes.
    #[must_use]
    pub fn with(mut self, backend: Arc<dyn Backend>) -> Self {
        self.0.push(backend);
        self
    }

    /// Parses an address of one of these kinds.
    ///
    /// # Errors
    /// If it is invalid, with the problem or the known kinds, and without a password that the address may
    /// contain.
    pub fn parse(&self, text: &str) -> Result<StoreUrl, Invalid> {
        // An unknown kind is reported before any other problem.
        if let Some((scheme, _)) = text.split_once(':')
            && self.with_scheme(scheme).is_none()
        {
            return Err(self.unknown(text));
        }
        let url = text.parse()?;
        self.find(&url)?;
        Ok(url)
    }

    /// The kind of store of this address.
    ///
    /// # Errors
    /// If the kind is unknown, with the known kinds; as [`Backend::check`].
    pub fn find(&self, url: &StoreUrl) -> Result<Arc<dyn Backend>, Invalid> {
        let backend = self.with_scheme(url.scheme()).ok_or_else(|| self.unknown(url.expose()))?;
        backend.check(url)?;
        Ok(backend)
    }

    /// Opens the store with this address.
    ///
    /// # Errors
    /// [`Invalid`](annals_core::Error::Invalid) if there is no such kind of store; otherwise as the store
    /// returns.
    pub async fn open(&self, url: &StoreUrl, options: OpenOptions) -> Result<Arc<dyn EventStore>> {
        Ok(self.find(url)?.open(url, options).await?.store)
    }

    fn with_scheme(&self, scheme: &str) -> Option<Arc<dyn Backend>> {
        self.0.iter().rev().find(|backend| backend.schemes().contains(&scheme)).cloned()
    }

    /// The error for an address of an unknown kind, which shows at most its scheme. If there is an `@` and no
    /// `//`, the text before the first `:` may be a password, or the beginning of one.
    fn unknown(&self, address: &str) -> Invalid {
        let (scheme, rest) = address.split_once(':').unwrap_or_default();
        let is_scheme = format!("{scheme}:").parse::<StoreUrl>().is_ok();
        let problem = match is_scheme && (rest.starts_with("//") || !address.contains(['@', '='])) {
            true => format!("`{scheme}:` is not a kind of store"),
            false => "has no scheme that is a kind of store".to_owned(),
        };
        Invalid::new("store", format!("{problem}; write {}", self.forms()))
    }

    /// The forms of their addresses, with a note about other features if this build does not have all.
    fn forms(&self) -> String {
        let mut forms: Vec<String> = self.0.iter().map(|backend| format!("`{}`", backend.form())).collect();
        let last = forms.pop().unwrap_or_default();
        let all = match forms.is_empty() {
            true => last,
            false => format!("{} or {last}", forms.join(", ")),
        };
        match cfg!(all(feature = "embedded", feature = "postgres", feature = "mysql")) {
            true => all,
            false => format!("{all}; for others see the features of `annals`"),
        }
    }
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().flat_map(|backend| backend.schemes())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_url_says_what_is_known() {
        for text in ["", "data", "memory:x", "redis://localhost", "file:", "file://"] {
            let refused = Backends::default().parse(text).unwrap_err().to_string();
            assert!(refused.contains("file:DIRECTORY"), "{text}: {refused}");
        }
        assert_eq!(
            Backends::default().parse("redis:").unwrap_err().to_string(),
            "store `redis:` is not a kind of store; write `memory:`, `file:DIRECTORY`, `postgres://USER@HOST/DATABASE` or \
             `mysql://USER@HOST/DATABASE`"
        );
    }

    #[test]
    fn a_mistake_does_not_show_a_password() {
        for text in [
            "postgress://kim:s3cret@db/shop",
            "POSTGRES://kim:s3cret@db/shop",
            "jdbc:postgresql://kim:s3cret@db/shop",
            "kim:s3cret@db/shop",
            "s3cret@db/shop",
            "s3cret@db:5432/shop",
            "s3cret:x@db:5432/shop",
            "db/shop?password=s3cret",
            "db:5432/shop?password=s3cret",
            "host=db password=s3cret:x",
            "s3cret=:x",
            "postgres://kim:12?passs3cret@db/shop",
            "postgres://kim:s3cret?x@db/shop",
            "postgres://db/shop?PASSWORD=s3cret",
            "postgres://db/shop?sslpassword=s3cret",
        ] {
            let refused = Backends::default().parse(text).unwrap_err().to_string();
            assert!(!refused.contains("s3cret"), "{refused}");
            if let Ok(url) = text.parse() {
                let refused = Backends::new([]).find(&url).err().unwrap().to_string();
                assert!(!refused.contains("s3cret"), "{refused}");
            }
        }
    }

    #[test]
    fn every_kind_of_store_has_schemes_of_its_own_and_a_form_of_one() {
        let mut seen: Vec<&str> = Vec::new();
        for backend in Backends::default().0 {
            let form: StoreUrl = backend.form().parse().unwrap();
            assert_eq!(form.scheme(), backend.schemes()[0]);
            seen.extend(backend.schemes());
        }
        let all = ["memory", "file", "postgres", "postgresql", "mysql", "mariadb"];
        assert_eq!(seen, all);
    }
}
