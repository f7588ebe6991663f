//! Passwords: what is kept is a salted Argon2id hash, never the password.
//!
//! To hash takes long and much memory on purpose, so it is done on a thread for blocking work and never in a
//! decision, and only a few at once: the threads are also those of the read models, and a client that sends a
//! thousand passwords must not take a thousand times the memory.

use std::fmt;

use argon2::password_hash::phc;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::Field;

/// A password as a member types it. It is not shown, not even in an error.
pub struct Password(String);

impl Password {
    /// The fewest characters that are accepted.
    pub const LEAST: usize = 8;

    /// The hash to keep, with a new salt.
    pub async fn hash(self) -> PasswordHash {
        blocking(move || {
            let hash = Argon2::default().hash_password(self.0.as_bytes());
            PasswordHash(hash.expect("the defaults are valid and the system gives randomness").to_string())
        })
        .await
    }

    /// The proof that it is the password of this hash, if it is.
    pub async fn matches(self, hash: PasswordHash) -> Option<Matched> {
        blocking(move || {
            let parsed = phc::PasswordHash::new(&hash.0).ok()?;
            let verified = Argon2::default().verify_password(self.0.as_bytes(), &parsed);
            verified.is_ok().then_some(Matched(hash))
        })
        .await
    }
}

/// How many passwords are hashed at once; the others wait.
const HASHED_AT_ONCE: usize = 4;

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    static TURNS: Semaphore = Semaphore::const_new(HASHED_AT_ONCE);
    let turn = TURNS.acquire().await.expect("it is never closed");
    // The work keeps its turn, and runs on after its caller has gone away.
    let work = move || {
        let _turn = turn;
        work()
    };
    tokio::task::spawn_blocking(work).await.expect("hashing neither panics nor is it cancelled")
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Field for Password {
    fn read(value: &Value) -> Result<Self, String> {
        let password = value.as_str().ok_or("is not text")?;
        match password.chars().count() {
            count if count < Self::LEAST => Err(format!("is shorter than {} characters", Self::LEAST)),
            count if count > 200 => Err("is longer than 200 characters".into()),
            _ => Ok(Self(password.to_owned())),
        }
    }
}

/// The hash of a password, with its salt and the parameters that it was made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(String);

/// The proof that somebody knows the password of this hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched(PasswordHash);

impl Matched {
    /// Whether it is this hash.
    pub fn is(&self, hash: &PasswordHash) -> bool {
        self.0 == *hash
    }
}
