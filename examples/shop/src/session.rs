//! Sessions: how a service knows which member a request is from.
//!
//! Logging in answers with a token that only the client keeps. Events and read models hold its digest, so a
//! reader of the log cannot take over a session. Each service recognises the digest in a copy of its own.

use serde::{Deserialize, Serialize};

/// What a client shows to be recognised: a secret.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// A new one, which nobody can guess.
    pub fn generate() -> Self {
        // Version 4 is 122 bits from the operating system's generator.
        Self(format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple()))
    }

    /// What is remembered of it.
    pub fn digest(&self) -> SessionDigest {
        digest(&self.0)
    }

    /// The token, to be shown to its owner.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is remembered of a token that a client shows.
pub(crate) fn digest(token: &str) -> SessionDigest {
    SessionDigest(crate::digest::of(token))
}

/// What is remembered of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionDigest(String);

impl annals::ToValue for SessionDigest {
    fn to_value(&self) -> Result<annals::Value, annals::SqlError> {
        self.0.to_value()
    }
}
