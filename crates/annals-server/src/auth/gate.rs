//! The tokens in force, and the file from which they are reloaded when it changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::rights::Rights;
use super::tokens::{Entry, Tokens};

/// A parsed file of tokens, for [`Server::tokens`](crate::Server::tokens).
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    text: String,
    tokens: Tokens,
}

impl TokenFile {
    /// Reads a file of tokens.
    ///
    /// # Errors
    /// Why the file cannot be read, or the number of the first invalid line and why it is invalid.
    pub fn read(path: impl Into<PathBuf>) -> Result<Self, String> {
        let path = path.into();
        let text = text_of(&path)?;
        let tokens = Tokens::parse(&text).map_err(|problem| format!("{}: {problem}", path.display()))?;
        Ok(Self { path, text, tokens })
    }
}

fn text_of(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Decides which requests are admitted: those with a known token, or all if there are no tokens.
#[derive(Debug)]
pub(crate) enum Gate {
    /// There are no tokens.
    Open,
    /// The tokens of a file.
    Tokens(Box<Watched>),
}

#[derive(Debug)]
pub(crate) struct Watched {
    path: PathBuf,
    /// The text that was read last, or why the file could not be read.
    looked_at: Mutex<Result<String, String>>,
    tokens: watch::Sender<Arc<Tokens>>,
}

/// A token that was in the file when it was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known(Arc<Entry>);

impl Known {
    /// The name of the token.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// The rights of the token.
    pub(crate) fn rights(&self) -> &Rights {
        &self.0.rights
    }
}

impl Gate {
    /// The gate for the tokens of this file.
    pub(crate) fn of(file: TokenFile) -> Self {
        let tokens = watch::Sender::new(Arc::new(file.tokens));
        Self::Tokens(Box::new(Watched { path: file.path, looked_at: Ok(file.text).into(), tokens }))
    }

    /// Whether every request is admitted.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// The token with this text, if it is known.
    pub(crate) fn find(&self, token: &str) -> Option<Known> {
        match self {
            Self::Open => None,
            Self::Tokens(file) => file.tokens.borrow().find(token).cloned().map(Known),
        }
    }

    /// Waits until the token is removed or has other rights.
    pub(crate) async fn revoked(&self, known: Option<&Known>) {
        match (self, known) {
            (Self::Tokens(file), Some(known)) => {
                let mut tokens = file.tokens.subscribe();
                // `self` holds the sender, so this does not fail.
                let _ = tokens.wait_for(|tokens| !tokens.still_has(&known.0)).await;
            }
            _ => std::future::pending().await,
        }
    }

    /// Reloads the file if it has changed. An invalid or unreadable file is reported once and changes
    /// nothing.
    pub(crate) fn reload(&self) {
        let Self::Tokens(file) = self else { return };
        let text = text_of(&file.path);
        let mut before = file.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        if *before == text {
            return;
        }
        match text.as_ref().map_err(Clone::clone).and_then(|text| Tokens::parse(text)) {
            Ok(tokens) => {
                tracing::info!(
                    tokens = tokens.count(),
                    "the tokens were read again from {}",
                    file.path.display()
                );
                file.tokens.send_replace(Arc::new(tokens));
            }
            Err(problem) => {
                let path = file.path.display();
                tracing::error!("{path}: {problem}. The tokens read before stay in force");
            }
        }
        *before = text;
    }
}
