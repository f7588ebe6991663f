//! Passwords: only a salted Argon2id hash is stored, never the password.
//!
//! Hashing is slow and uses much memory on purpose, so it runs on a thread for blocking work and never in a
//! decision, and only a few run at once: the read models use the same threads, and a client that sends a
//! thousand passwords must not use a thousand times the memory.

use std::fmt;

use argon2::password_hash::phc;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::Field;

/// A password as typed by a member. It is never shown, not even in an error.
pub struct Password(String);

impl Password {
    /// The fewest accepted characters.
    pub const LEAST: usize = 8;

    /// The hash to store, with a new salt.
    pub async fn hash(self) -> PasswordHash {
        blocking(move || {
            let hash = Argon2::default().hash_password(self.0.as_bytes());
            PasswordHash(hash.expect("the defaults are valid and the system gives randomness").to_string())
        })
        .await
    }

    /// The proof that this is the password of this hash; `None` if it is not.
    pub async fn matches(self, hash: PasswordHash) -> Option<Matched> {
        blocking(move || {
            let parsed = phc::PasswordHash::new(&hash.0).ok()?;
            let verified = Argon2::default().verify_password(self.0.as_bytes(), &parsed);
            verified.is_ok().then_some(Matched(hash))
        })
        .await
    }
}

/// The number of passwords that are hashed at once; others wait.
const HASHED_AT_ONCE: usize = 4;

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    static TURNS: Semaphore = Semaphore::const_new(HASHED_AT_ONCE);
    let turn = TURNS.acquire().await.expect("it is never closed");
    // The work holds the permit, because it continues even if its caller is cancelled.
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

/// The hash of a password, with its salt and parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(String);

/// The proof that the caller knows the password of this hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched(PasswordHash);

impl Matched {
    /// Whether it is the proof for this hash.
    pub fn is(&self, hash: &PasswordHash) -> bool {
        self.0 == *hash
    }
}
