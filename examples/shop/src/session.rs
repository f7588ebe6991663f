//! Sessions: the identification of the member who sends a request.
//!
//! A login returns a token that only the client keeps. Events and read models contain its digest, so a
//! reader of the log cannot take over a session. Each service looks up the digest in its own copy.

use serde::{Deserialize, Serialize};

/// The secret token of a session, which the client sends.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// Generates a token that cannot be guessed.
    pub fn generate() -> Self {
        // Version 4 is 122 bits from the operating system's generator.
        Self(format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple()))
    }

    /// Its digest, which is stored.
    pub fn digest(&self) -> SessionDigest {
        digest(&self.0)
    }

    /// The token, for the response to its owner.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The digest of a token that a client sends.
pub(crate) fn digest(token: &str) -> SessionDigest {
    SessionDigest(crate::digest::of(token))
}

/// The stored digest of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionDigest(String);

impl annals::ToValue for SessionDigest {
    fn to_value(&self) -> Result<annals::Value, annals::SqlError> {
        self.0.to_value()
    }
}
