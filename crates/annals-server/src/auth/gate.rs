//! The tokens in force, and the file that they are read from again when it changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::rights::Rights;
use super::tokens::{Entry, Tokens};

/// A file of tokens that was read, for [`Server::tokens`](crate::Server::tokens).
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
    /// Why it cannot be read, or which line is wrong and what is wrong there.
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

/// Lets in who has a token, or everybody if there are no tokens.
#[derive(Debug)]
pub(crate) enum Gate {
    /// There are no tokens.
    Open,
    /// Those of a file.
    Tokens(Box<Watched>),
}

#[derive(Debug)]
pub(crate) struct Watched {
    path: PathBuf,
    /// The text that was looked at last, and why it was not taken.
    looked_at: Mutex<Result<String, String>>,
    tokens: watch::Sender<Arc<Tokens>>,
}

/// A token that was known when it was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known(Arc<Entry>);

impl Known {
    /// The name of the token.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// What it may do.
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

    /// Whether everybody is let in.
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

    /// Waits until the token is gone or has other rights.
    pub(crate) async fn revoked(&self, known: Option<&Known>) {
        match (self, known) {
            (Self::Tokens(file), Some(known)) => {
                let mut tokens = file.tokens.subscribe();
                // The sender is this one, so it is not gone.
                let _ = tokens.wait_for(|tokens| !tokens.still_has(&known.0)).await;
            }
            _ => std::future::pending().await,
        }
    }

    /// Reads the file again, if it has changed. One that cannot be taken is reported once and changes nothing.
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
