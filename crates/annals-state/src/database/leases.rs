//! Leases in the table `leases` of a database, by its clock.
//!
//! The lock of a row is held for the moment of one transaction.

use std::time::Duration;

use async_trait::async_trait;

use super::{SqlState, Transaction};
use crate::lease::{StoredLease, micros};
use crate::lease_row::{STORED, clock, stored_in};
use crate::name::check_name;
use crate::{Acquired, Fault, FromValue, Lease, LeaseStore, Params, StateError, Value};

/// A transaction that meets those of others is tried again this often.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

impl Transaction {
    /// Whether a lease is still the one that was acquired. Locks it until the end of the transaction, so that
    /// this stays true for what is committed.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn is_held(&mut self, lease: &Lease) -> Result<bool, Fault> {
        let name = Value::Text(lease.name.clone());
        let rows = self.run(&format!("{STORED} FOR UPDATE"), &[name]).await?.rows;
        Ok(stored_in(&rows)?.is_some_and(|stored| stored.is(lease)))
    }

    async fn lock_lease(&mut self, name: &str) -> Result<StoredLease, StateError> {
        let rows = self.run(&format!("{STORED} FOR UPDATE"), &(name,).values()?).await?.rows;
        Ok(stored_in(&rows)?.unwrap_or_default())
    }

    async fn write_lease(&mut self, name: &str, lease: &StoredLease) -> Result<(), StateError> {
        let StoredLease { token, holder, until, length } = lease;
        let sql = "UPDATE {state}.leases SET token = ?2, holder = ?3, lease_until = ?4, lease_length = ?5
            WHERE name = ?1";
        self.run(sql, &(name, *token, holder.as_ref(), *until, *length).values()?).await?;
        Ok(())
    }
}

impl SqlState {
    async fn time(&self, transaction: &mut Transaction) -> Result<i64, StateError> {
        let answer = transaction.run(&format!("SELECT {}", clock(self.dialect())), &[]).await?;
        let time = answer.rows.first().and_then(|row| i64::from_value(&row[0]));
        Ok(time.ok_or_else(|| Fault::unavailable("the database does not return the time"))?)
    }

    async fn try_acquire(&self, name: &str, holder: &str, length: Duration) -> Result<Acquired, StateError> {
        let mut transaction = self.begin().await?;
        if transaction.run(STORED, &(name,).values()?).await?.rows.is_empty() {
            let insert = self.insert_unless_there("{state}.leases (name, token) VALUES (?1, 0)", "name");
            transaction.run(&insert, &(name,).values()?).await?;
        }
        let stored = transaction.lock_lease(name).await?;
        // The time under the lock.
        let now = self.time(&mut transaction).await?;
        match stored.acquire(holder, now, length) {
            Ok(acquired) => {
                transaction.write_lease(name, &acquired).await?;
                transaction.commit().await?;
                Ok(Acquired::Held(acquired.to_lease(name)))
            }
            Err(other) => {
                transaction.rollback().await;
                Ok(Acquired::HeldBy(other))
            }
        }
    }
}

#[async_trait]
impl LeaseStore for SqlState {
    async fn acquire(&self, name: &str, holder: &str, length: Duration) -> Result<Acquired, StateError> {
        check_name(name)?;
        check_name(holder)?;
        for _ in 1..TRIES {
            match self.try_acquire(name, holder, length).await {
                // Another process inserts the row too, and the database rolled this transaction back. The
                // second of both has the greater token.
                Err(StateError::Failed(annals_core::Error::Unavailable(_))) => {}
                acquired => return acquired,
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.try_acquire(name, holder, length).await
    }

    async fn renew(&self, lease: &Lease, length: Duration) -> Result<bool, StateError> {
        let mut transaction = self.begin().await?;
        let stored = transaction.lock_lease(&lease.name).await?;
        if !stored.is(lease) {
            transaction.rollback().await;
            return Ok(false);
        }
        let (now, length) = (self.time(&mut transaction).await?, micros(length));
        let until = Some(now.saturating_add(length));
        transaction.write_lease(&lease.name, &StoredLease { until, length, ..stored }).await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn release(&self, lease: &Lease) -> Result<(), StateError> {
        let sql = "UPDATE {state}.leases SET holder = NULL WHERE name = ?1 AND token = ?2 AND holder = ?3";
        let values = (lease.name.as_str(), lease.token, lease.holder.as_str()).values()?;
        self.write(sql, &values).await?;
        Ok(())
    }

    async fn holder(&self, name: &str) -> Result<Option<String>, StateError> {
        check_name(name)?;
        let sql =
            STORED.replace("lease_length FROM", &format!("lease_length, {} FROM", clock(self.dialect())));
        let rows = self.read(&sql, &(name,).values()?).await?.rows;
        let now = rows.first().and_then(|row| i64::from_value(&row[4])).unwrap_or_default();
        Ok(stored_in(&rows)?.and_then(|stored| stored.holder_at(now).map(str::to_owned)))
    }
}
