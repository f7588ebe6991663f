//! Leases: of several processes, the holder of the lease of a name runs the consumer with that name.
//!
//! - L1  A lease has at most one holder at a time, until it is released or expires by the clock of the state:
//!       that of the database, which is the same for all processes.
//! - L2  Each acquisition has a greater token than all before it of the same name, also after a release and a
//!       crash. That is the fencing token: a write under a lease compares it in its own transaction, so a
//!       holder that was paused and has lost its lease writes nothing, however late it resumes.
//! - L3  A lease that has expired and was not acquired by another holder may be renewed, and its holder may
//!       write.
//! - L4  A lease that ends later than now plus twice its length was taken by a clock that was ahead. It may
//!       be acquired, because otherwise nothing would run until that time.
//!
//! In a database, processes acquire leases by locks of their sessions (`leases`), which are released when a
//! process ends; the tokens are the same.

use std::time::Duration;

use async_trait::async_trait;

use crate::StateError;

/// A lease that was acquired. Every write under it contains it as a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The name of the lease.
    pub name: String,
    /// The holder that acquired it.
    pub holder: String,
    /// The fencing token: greater than that of every earlier lease of this name.
    pub token: u64,
}

/// The outcome of an acquisition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The caller acquired the lease.
    Held(Lease),
    /// Another holder has it.
    HeldBy(String),
}

/// Leases by name. Names of leases and of holders are as those of checkpoints.
#[async_trait]
pub trait LeaseStore: Send + Sync + 'static {
    /// Acquires the lease for this long, if it is free or has expired. A holder that acquires it again gets a
    /// new lease, and loses its former one. The name of a holder is unique to each start of a process.
    async fn acquire(&self, name: &str, holder: &str, length: Duration) -> Result<Acquired, StateError>;

    /// Renews a lease, so that it ends this long from now. Returns `false` if it is lost.
    async fn renew(&self, lease: &Lease, length: Duration) -> Result<bool, StateError>;

    /// Releases a lease. One that is lost is not changed.
    async fn release(&self, lease: &Lease) -> Result<(), StateError>;

    /// Returns the current holder of a lease.
    async fn holder(&self, name: &str) -> Result<Option<String>, StateError>;
}

/// A lease as it is stored. Times are microseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoredLease {
    pub token: i64,
    pub holder: Option<String>,
    /// When it ends. `None` if it ends with the session of its holder.
    pub until: Option<i64>,
    /// The time for which it was acquired or renewed.
    pub length: i64,
}

impl StoredLease {
    /// The holder at this time.
    pub fn holder_at(&self, now: i64) -> Option<&str> {
        let holder = self.holder.as_deref()?;
        let is_over = self.until.is_some_and(|until| {
            // Twice the length: a clock that is set back a little ends no lease.
            until <= now || until.saturating_sub(now) > self.length.saturating_mul(2)
        });
        (!is_over).then_some(holder)
    }

    /// The lease after this one, if it may be acquired.
    pub fn acquire(&self, holder: &str, now: i64, length: Duration) -> Result<Self, String> {
        match self.holder_at(now) {
            Some(other) if other != holder => Err(other.to_owned()),
            _ => {
                let length = micros(length);
                Ok(Self {
                    token: self.token + 1,
                    holder: Some(holder.to_owned()),
                    until: Some(now.saturating_add(length)),
                    length,
                })
            }
        }
    }

    /// Whether this is still that lease.
    pub fn is(&self, lease: &Lease) -> bool {
        u64::try_from(self.token) == Ok(lease.token) && self.holder.as_deref() == Some(lease.holder.as_str())
    }

    pub fn to_lease(&self, name: &str) -> Lease {
        Lease {
            name: name.to_owned(),
            holder: self.holder.clone().unwrap_or_default(),
            token: self.token.unsigned_abs(),
        }
    }
}

pub(crate) fn micros(length: Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_believed_for_as_long_as_it_can_be() {
        let minute = Duration::from_secs(60);
        let free = StoredLease::default();
        let held = free.acquire("a", 1_000, minute).unwrap();
        assert_eq!((held.token, held.holder_at(1_000)), (1, Some("a")));
        let end = 1_000 + micros(minute);
        assert_eq!(held.holder_at(end - 1), Some("a"));
        assert_eq!(held.holder_at(end), None, "its time is over");
        assert_eq!(held.holder_at(1_000 - micros(minute)), Some("a"), "the clock was set back a little");
        assert_eq!(held.holder_at(1_000 - micros(minute) - 1), None, "it was ahead");
        assert_eq!(held.acquire("b", end - 1, minute), Err("a".to_owned()));
        assert_eq!(held.acquire("b", end, minute).unwrap().token, 2);
        let of_session = StoredLease { until: None, ..held };
        assert_eq!(of_session.holder_at(i64::MAX), Some("a"));
    }
}
