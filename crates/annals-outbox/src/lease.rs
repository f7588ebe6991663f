//! The lease: of all publishers of an outbox, one publishes.
//!
//! - L1  The holder and the end of the lease are in the database, by the clock of the database.
//! - L2  The holder counts from before its request, by a monotonic clock, so its lease ends before the one in
//!       the database.
//! - L3  A message is given to the sink only if the rest of the lease is longer than the timeout of the sink.
//!       So when another publisher begins, no call of this one is in progress, unless the process was
//!       suspended at that moment. Such a call publishes again a message that the other one publishes too, in
//!       its place.
//! - L4  Messages that were chosen under one lease are not published under the next: another holder may have
//!       published since.
//! - L5  A lease that ends later than its length from now was taken by a clock that was ahead. The next
//!       publisher takes it over; otherwise nothing would be published until that time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use annals_core::{EventId, Timestamp};

use crate::database::Value;
use crate::pending::micros;
use crate::{Outbox, Result};

/// The assumed length of a lease whose holder does not state it: a publisher of an earlier version. At least
/// this long.
const LENGTH_UNKNOWN: Duration = Duration::from_secs(3_600);

/// The result of a request for the lease.
pub(crate) enum Kept {
    /// This publisher holds it, for this term.
    Held(u64),
    /// Another one holds it. `long` is whether this one has waited for longer than the length of a lease.
    Waits { other: LeaseHolder, long: bool },
}

/// The holder of the lease of an outbox, and until when it holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseHolder {
    /// The name of the publisher, which is generated when it starts.
    pub holder: String,
    /// When the lease ends, by the clock of the database; `None` if it never ends.
    pub until: Option<Timestamp>,
    /// Whether the end is plausible. A lease that ends later than twice its length from now was taken by a
    /// clock that was ahead, and the next publisher takes it over.
    pub believable: bool,
}

impl LeaseHolder {
    /// Makes a holder of a row. `own` is the length of the caller's lease: a lower bound for a holder that
    /// does not state its length.
    fn of(holder: String, until: Option<Timestamp>, now: Timestamp, own: Duration) -> Self {
        // A holder of an earlier version does not state its length, which may be longer than that of the
        // caller's lease.
        let stated = holder.split_once('/').and_then(|(_, length)| length.parse().ok());
        let length = stated.map_or(LENGTH_UNKNOWN.max(own), Duration::from_millis);
        // Twice the length, so that a clock that is set back a little ends no lease.
        let believable = until.is_none_or(|until| until.since(now) <= length.saturating_mul(2));
        Self { holder, until, believable }
    }
}

impl std::fmt::Display for LeaseHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.until {
            Some(until) => write!(f, "`{}` has the lease until {until}", self.holder),
            None => write!(f, "`{}` has a lease without an end", self.holder),
        }
    }
}

impl Outbox {
    /// Returns the current holder of the lease, its end as it is stored, and the time of the database. `own`
    /// is the length of the caller's lease.
    async fn holder(&self, own: Duration) -> Result<Option<(LeaseHolder, i64, Timestamp)>> {
        let sql = "SELECT holder, @micros(lease_until), @micros(@now) FROM outbox_publisher
            WHERE holder IS NOT NULL AND (lease_until IS NULL OR lease_until >= @now) LIMIT 1";
        let rows = self.fetch(sql, &[]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        self.read(|| {
            let now = Timestamp::from_micros(row.int(2)?);
            let until = row.maybe_int(1)?;
            let holder = LeaseHolder::of(row.text(0)?, until.map(Timestamp::from_micros), now, own);
            Ok(Some((holder, until.unwrap_or_default(), now)))
        })
    }

    /// Returns the current holder of the lease.
    pub(crate) async fn lease_holder(&self) -> Result<Option<LeaseHolder>> {
        Ok(self.holder(Duration::ZERO).await?.map(|(holder, ..)| holder))
    }

    /// Acquires or renews the lease for `length`. Returns the holder if it is another publisher.
    async fn lease(&self, holder: &str, length: Duration) -> Result<Option<LeaseHolder>> {
        // By the key: a session may refuse to change rows that are named by something else.
        let sql = "UPDATE outbox_publisher SET holder = ?, lease_until = @later
            WHERE alone = TRUE AND (holder = ? OR holder IS NULL OR lease_until < @now)";
        let values = [Value::Text(holder), Value::Int(micros(length)), Value::Text(holder)];
        if self.execute(sql, &values).await? > 0 {
            return Ok(None);
        }
        let Some((other, until, now)) = self.holder(length).await? else {
            // It has just ended: the next request acquires it.
            return Ok(Some(LeaseHolder { holder: "another".to_owned(), until: None, believable: true }));
        };
        if other.believable {
            return Ok(Some(other));
        }
        tracing::warn!(
            holder = other.holder, until = other.until.map(tracing::field::display), %now,
            "the lease of the outbox `{}` ends later than it can: a clock was ahead; it is taken over", self.name
        );
        let sql = "UPDATE outbox_publisher SET holder = ?, lease_until = @later
            WHERE alone = TRUE AND holder = ? AND @micros(lease_until) = ?";
        let values =
            [Value::Text(holder), Value::Int(micros(length)), Value::Text(&other.holder), Value::Int(until)];
        Ok(if self.execute(sql, &values).await? > 0 { None } else { Some(other) })
    }

    /// Releases the lease.
    async fn release(&self, holder: &str) -> Result<()> {
        let sql =
            "UPDATE outbox_publisher SET holder = NULL, lease_until = NULL WHERE alone = TRUE AND holder = ?";
        self.execute(sql, &[Value::Text(holder)]).await.map(drop)
    }
}

pub(crate) struct Lease {
    /// The end of an id, and the length of the lease for the other publishers.
    holder: String,
    length: Duration,
    held: Mutex<Held>,
}

#[derive(Clone, Copy)]
struct Held {
    /// Grows each time that the lease is acquired after it was lost.
    term: u64,
    until: Option<Instant>,
    /// When another publisher was first seen to hold the lease.
    waiting: Option<Instant>,
}

impl Lease {
    pub(crate) fn new(length: Duration) -> Self {
        let held = Mutex::new(Held { term: 0, until: None, waiting: None });
        // No longer than the column in MariaDB: the random part of the id, and at most 13 digits.
        let id = EventId::generate().to_string();
        let millis = length.as_millis().min(9_999_999_999_999);
        Self { holder: format!("{}/{millis}", &id[14..]), length, held }
    }

    /// Acquires or renews the lease. Returns its term, or the holder if it is another publisher.
    pub(crate) async fn keep(&self, outbox: &Outbox) -> Result<Kept> {
        let now = Instant::now();
        let Held { term, until, .. } = self.held();
        let left = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        if left > self.length * 2 / 3 {
            return Ok(Kept::Held(term));
        }
        let other = outbox.lease(&self.holder, self.length).await?;
        let has_it = other.is_none();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = held.until.is_none_or(|until| until <= Instant::now());
        held.term += u64::from(lost || !has_it);
        held.until = has_it.then_some(now + self.length);
        let Some(other) = other else {
            held.waiting = None;
            return Ok(Kept::Held(held.term));
        };
        let waiting = *held.waiting.get_or_insert(now);
        Ok(Kept::Waits { other, long: waiting.elapsed() > self.length })
    }

    /// Whether the lease of this term lasts for at least `time` from now.
    pub(crate) fn allows(&self, term: u64, time: Duration) -> bool {
        let held = self.held();
        held.term == term && held.until.is_some_and(|until| Instant::now() + time <= until)
    }

    /// Releases the lease, if this publisher holds it.
    pub(crate) async fn release(&self, outbox: &Outbox) -> Result<()> {
        if self.held().until.is_none() {
            return Ok(());
        }
        outbox.release(&self.holder).await
    }

    fn held(&self) -> Held {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_believed_for_as_long_as_it_can_be() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let minute = Duration::from_secs(60);
        let believed = |holder: &str, left| {
            LeaseHolder::of(holder.to_owned(), Some(now.plus(left)), now, minute).believable
        };
        assert!(believed("7c1e-9d70-3f6f2a9b8c11/3600000", minute * 60), "its own length counts");
        assert!(!believed("7c1e-9d70-3f6f2a9b8c11/3600000", minute * 121));
        for earlier in ["of an earlier version", "of another/version"] {
            assert!(believed(earlier, minute * 119), "its lease may be longer than this one's");
            assert!(!believed(earlier, minute * 121));
        }
        assert!(LeaseHolder::of("x".to_owned(), None, now, minute).believable, "somebody has set it so");
        let lease = Lease::new(Duration::MAX);
        assert!(lease.holder.len() <= 36, "{}", lease.holder);
    }
}
