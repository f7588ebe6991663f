//! Leases in a database that processes share: the process whose session has the lock of a name holds its
//! lease.
//!
//! - G1  Locks are those of a session of the server. One connection of a process has all of its locks, so
//!       they are released when the process ends in any way, and the other processes try to acquire them
//!       every second.
//! - G2  That connection is tested every second. When it is lost, so are the locks, and their users are
//!       notified. For a short time two processes may believe that they hold a lease: exclusion needs more
//!       than the lock.
//! - G3  With the lock comes a fencing token (`lease`): the number of the row of `leases`, which grows each
//!       time that a process takes the lock. A write under a lease compares it, so in the time of G2 the
//!       former holder writes nothing. A version of Annals without tokens takes the same locks, and its
//!       writes are excluded by those alone.
//! - G4  A write that was refused because of its token ends that lease here too, even if the lock is still
//!       held: the row was deleted, or restored to an earlier state. The lock is released and acquired again,
//!       with a new token.
//! - G5  An error of the row of one lease, such as a missing privilege, does not affect the other leases.
//! - G6  A process holds the lock of its own name, its instance, as long as it has that connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{EventId, StoreId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::lease_row::{seize, vacate};
use crate::{Dialect, Fault, Lease, Session, Sessions, Value};

/// How often the connection is tested, and locks of other processes are tried.
const PULSE: Duration = Duration::from_secs(1);
/// A connection that does not answer for this long is lost.
const SILENCE: Duration = Duration::from_secs(10);

/// The locks of this process.
pub struct Leases {
    asks: mpsc::UnboundedSender<Ask>,
    instance: String,
}

enum Ask {
    /// Acquire the lock of this name, waiting for it.
    Hold(String, oneshot::Sender<HeldLease>),
    /// Acquire it if it is free now.
    Try(String, oneshot::Sender<Option<HeldLease>>),
    /// Return its holder.
    Holder(String, oneshot::Sender<String>),
    /// Return how many of these locks are held, by any process.
    Count(Vec<String>, oneshot::Sender<Result<usize, Fault>>),
    /// Release it.
    Release(Lease),
    /// A write under it was refused, because the token in the database is another one.
    Refused(Lease),
    /// Report whether the connection works.
    Ready(oneshot::Sender<Result<(), Fault>>),
}

/// The lock of a name. Dropping this releases it.
pub struct HeldLease {
    lease: Lease,
    lost: watch::Receiver<bool>,
    asks: mpsc::WeakUnboundedSender<Ask>,
}

impl HeldLease {
    /// The lease with its token, for writes under it.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Whether the lock was lost.
    pub fn is_lost(&self) -> bool {
        *self.lost.borrow() || self.lost.has_changed().is_err()
    }

    /// Waits until the lock is lost.
    pub async fn lost(&mut self) {
        // An error means that the task has ended, and its connection with it.
        let _ = self.lost.wait_for(|lost| *lost).await;
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        if let Some(asks) = self.asks.upgrade() {
            let _ = asks.send(Ask::Release(self.lease.clone()));
        }
    }
}

impl Leases {
    /// Starts the task that holds them. Must be called on a runtime.
    pub fn start(sessions: Arc<dyn Sessions>, store: StoreId) -> Self {
        let (asks, mut asked) = mpsc::unbounded_channel();
        let instance = EventId::generate().to_string();
        let mut keeping = Keeping {
            prefix: prefix(&*sessions, store),
            sessions,
            instance: instance.clone(),
            session: None,
            held: HashMap::new(),
            faults: HashMap::new(),
            wanted: Vec::new(),
            asks: asks.downgrade(),
        };
        tokio::spawn(async move {
            loop {
                let Err(panic) = annals_core::caught(keeping.run(&mut asked)).await else { return };
                // Those who had a lock are notified, and those who want one are served again.
                keeping.lose_all(&Fault::unavailable(panic));
                tokio::time::sleep(PULSE).await;
            }
        });
        Self { asks, instance }
    }

    /// Waits until this process holds the lock of this name.
    pub async fn hold(&self, name: String) -> HeldLease {
        let (granted, held) = oneshot::channel();
        let sent = self.asks.send(Ask::Hold(name, granted));
        match (sent, held.await) {
            (Ok(()), Ok(held)) => held,
            // Only when the runtime ends.
            _ => std::future::pending().await,
        }
    }

    /// Acquires the lock of this name if it is free.
    pub async fn try_hold(&self, name: String) -> Option<HeldLease> {
        let (granted, held) = oneshot::channel();
        self.asks.send(Ask::Try(name, granted)).ok()?;
        held.await.ok()?
    }

    /// Ends this lease: a write under it was refused, because the token in the database is another one.
    pub fn refused(&self, lease: &Lease) {
        let _ = self.asks.send(Ask::Refused(lease.clone()));
    }

    /// Why this process does not hold the lock of this name, for a status.
    pub async fn waits_for(&self, name: String) -> String {
        let (answer, answered) = oneshot::channel();
        let sent = self.asks.send(Ask::Holder(name, answer));
        match (sent, answered.await) {
            (Ok(()), Ok(text)) => text,
            _ => "the system is stopped".to_owned(),
        }
    }

    /// How many of these locks are held, by any process.
    ///
    /// # Errors
    /// If there is no connection.
    pub async fn count(&self, names: Vec<String>) -> Result<usize, Fault> {
        let (count, counted) = oneshot::channel();
        let stopped = || Fault::unavailable("the system is stopped");
        self.asks.send(Ask::Count(names, count)).map_err(|_| stopped())?;
        counted.await.map_err(|_| stopped())?
    }

    /// The name of this process, of which it holds the lock.
    ///
    /// # Errors
    /// If there is no connection.
    pub async fn instance(&self) -> Result<&str, Fault> {
        let (ready, is_ready) = oneshot::channel();
        let stopped = || Fault::unavailable("the system is stopped");
        self.asks.send(Ask::Ready(ready)).map_err(|_| stopped())?;
        is_ready.await.map_err(|_| stopped())??;
        Ok(&self.instance)
    }
}

/// The prefix of the names of all locks of this state.
pub fn prefix(sessions: &dyn Sessions, store: StoreId) -> String {
    format!("annals {store} {} ", sessions.home())
}

/// The task.
struct Keeping {
    sessions: Arc<dyn Sessions>,
    prefix: String,
    instance: String,
    session: Option<Box<dyn Session>>,
    /// The token of each lease, and the channel that is notified when it is lost.
    held: HashMap<String, (u64, watch::Sender<bool>)>,
    /// Why the row of a lease cannot be written, although its lock is free.
    faults: HashMap<String, String>,
    wanted: Vec<(String, oneshot::Sender<HeldLease>)>,
    asks: mpsc::WeakUnboundedSender<Ask>,
}

impl Keeping {
    async fn run(&mut self, asked: &mut mpsc::UnboundedReceiver<Ask>) {
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ask = asked.recv() => match ask {
                    Some(Ask::Hold(name, granted)) => {
                        self.wanted.push((name, granted));
                        drop(self.step().await);
                    }
                    Some(Ask::Try(name, granted)) => {
                        let held = self.within(async |keeping| keeping.take(&name).await).await;
                        drop(granted.send(held.ok().flatten()));
                    }
                    Some(Ask::Holder(name, answer)) => {
                        let text = self.within(async |keeping| keeping.holder(&name).await).await;
                        drop(answer.send(text.unwrap_or_else(|fault| {
                            format!("waiting for a connection that can hold the lease: {fault}")
                        })));
                    }
                    Some(Ask::Count(names, count)) => {
                        drop(count.send(self.within(async |keeping| keeping.count(&names).await).await));
                    }
                    Some(Ask::Release(lease)) => self.release(&lease, true).await,
                    Some(Ask::Refused(lease)) => {
                        tracing::warn!(lease = lease.name, "a write was refused: the lease is another's by its row");
                        self.release(&lease, false).await;
                    }
                    Some(Ask::Ready(ready)) => drop(ready.send(self.step().await)),
                    None => return,
                },
                _ = pulse.tick() => {
                    self.wanted.retain(|(_, granted)| !granted.is_closed());
                    if self.session.is_some() || !self.wanted.is_empty() {
                        drop(self.step().await);
                    }
                }
            }
        }
    }

    /// Tests the connection, and tries the locks that are requested.
    async fn step(&mut self) -> Result<(), Fault> {
        self.within(async |keeping| keeping.try_wanted().await).await
    }

    /// Runs this on the connection, which is opened if necessary, and closed on an error or a timeout.
    async fn within<T>(&mut self, work: impl AsyncFnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        let done = tokio::time::timeout(SILENCE, async {
            self.connect().await?;
            work(self).await
        });
        let done = done.await.unwrap_or_else(|_| Err(Fault::unavailable("the server does not answer")));
        if let Err(fault) = &done {
            self.lose_all(fault);
        }
        done
    }

    /// All locks are lost with the connection.
    fn lose_all(&mut self, fault: &Fault) {
        if self.session.take().is_some() {
            tracing::warn!(%fault, locks = self.held.len(), "the connection that holds locks is lost; another is made");
        } else {
            tracing::debug!(%fault, "there is no connection that could hold locks");
        }
        for (_, (_, lost)) in self.held.drain() {
            lost.send_replace(true);
        }
    }

    async fn connect(&mut self) -> Result<(), Fault> {
        if let Some(session) = &mut self.session {
            return session.run("SELECT 1", &[]).await.map(drop);
        }
        let mut session = self.sessions.alone().await?;
        let instance = instance_lock(&self.instance);
        if !try_lock(&mut *session, &self.prefix, self.sessions.dialect(), &instance).await? {
            // The server has not noticed yet that the connection before is lost.
            return Err(Fault::unavailable("the locks of this process are not free yet"));
        }
        self.session = Some(session);
        Ok(())
    }

    /// Requests that are not granted stay in the queue, also after an error or a timeout.
    async fn try_wanted(&mut self) -> Result<(), Fault> {
        let mut index = 0;
        while let Some((name, granted)) = self.wanted.get(index) {
            let name = name.clone();
            let held = if granted.is_closed() { None } else { self.take(&name).await? };
            match held {
                // If no caller waits for it any longer, it is released.
                Some(held) => drop(self.wanted.swap_remove(index).1.send(held)),
                None => index += 1,
            }
        }
        Ok(())
    }

    /// Acquires a lock if it is free.
    async fn take(&mut self, name: &str) -> Result<Option<HeldLease>, Fault> {
        let Some(session) = &mut self.session else { return Ok(None) };
        // The locks of a session are reentrant: one acquired twice would have to be released twice.
        if self.held.contains_key(name)
            || !try_lock(&mut **session, &self.prefix, self.sessions.dialect(), name).await?
        {
            return Ok(None);
        }
        let dialect = self.sessions.dialect();
        let seized = seize(&mut **session, dialect, self.sessions.home(), name, &self.instance).await;
        let lease = match seized {
            Ok(Some(lease)) => lease,
            Ok(None) => {
                unlock(&mut **session, &self.prefix, dialect, name).await?;
                return Ok(None);
            }
            Err(fault @ Fault::Unavailable(_)) => return Err(fault),
            // The connection and the other leases are not affected.
            Err(fault) => {
                session.script("ROLLBACK").await?;
                unlock(&mut **session, &self.prefix, dialect, name).await?;
                let fault = fault.to_string();
                if self.faults.insert(name.to_owned(), fault.clone()).as_ref() != Some(&fault) {
                    tracing::error!(
                        lease = name,
                        fault,
                        "the lease cannot be acquired until somebody changes something"
                    );
                }
                return Ok(None);
            }
        };
        self.faults.remove(name);
        let (sender, lost) = watch::channel(false);
        self.held.insert(name.to_owned(), (lease.token, sender));
        Ok(Some(HeldLease { lease, lost, asks: self.asks.clone() }))
    }

    /// The holder of a lock, as a status shows it.
    async fn holder(&mut self, name: &str) -> Result<String, Fault> {
        let Some(session) = &mut self.session else { return Err(Fault::unavailable("it is lost")) };
        if let Some(fault) = self.faults.get(name) {
            return Ok(format!("the lease cannot be acquired: {fault}"));
        }
        let dialect = self.sessions.dialect();
        let sql = match dialect {
            Dialect::MySql => {
                "SELECT CONCAT(l.id, COALESCE(CONCAT(' at ', p.host), ''))
                 FROM (SELECT IS_USED_LOCK(CONCAT('annals ', LEFT(SHA2(?1, 256), 40))) AS id) AS l
                 LEFT JOIN information_schema.processlist AS p ON p.id = l.id"
            }
            _ => {
                "SELECT l.pid::text || coalesce(' at ' || host(a.client_addr), '')
                 FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
                 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 AND ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended(?1, 0)"
            }
        };
        let lock = Value::Text(format!("{}{name}", self.prefix));
        let answer = crate::run(&mut **session, dialect, sql, &[lock]).await?;
        let holder = match answer.rows.into_iter().flatten().next() {
            Some(Value::Text(holder)) => holder,
            Some(Value::Blob(holder)) => String::from_utf8_lossy(&holder).into_owned(),
            _ => return Ok("waiting for the lease, which is free".to_owned()),
        };
        Ok(format!("waiting for the lease held by connection {holder} of the database"))
    }

    async fn count(&mut self, names: &[String]) -> Result<usize, Fault> {
        let Some(session) = &mut self.session else { return Ok(0) };
        let dialect = self.sessions.dialect();
        let sql = match dialect {
            Dialect::MySql => "SELECT IS_USED_LOCK(CONCAT('annals ', LEFT(SHA2(?1, 256), 40))) IS NOT NULL",
            _ => {
                "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 AND ((classid::bigint << 32) | objid::bigint) = hashtextextended(?1, 0))"
            }
        };
        let mut count = 0;
        for name in names {
            count += usize::from(lock_call(&mut **session, sql, dialect, &self.prefix, name).await?);
        }
        Ok(count)
    }

    /// Releases the lock of a lease, and first its row if that is this lease's.
    async fn release(&mut self, lease: &Lease, has_row: bool) {
        let name = &*lease.name;
        if self.held.get(name).is_none_or(|(token, _)| *token != lease.token) {
            return;
        }
        if let Some((_, lost)) = self.held.remove(name) {
            lost.send_replace(true);
        }
        let Some(session) = &mut self.session else { return };
        let dialect = self.sessions.dialect();
        let released = async {
            if has_row {
                vacate(&mut **session, dialect, self.sessions.home(), name, &self.instance).await?;
            }
            unlock(&mut **session, &self.prefix, dialect, name).await
        };
        let released = tokio::time::timeout(SILENCE, released).await;
        let released = released.unwrap_or_else(|_| Err(Fault::unavailable("the server does not answer")));
        if let Err(fault) = released {
            self.lose_all(&fault);
        }
    }
}

pub fn instance_lock(instance: &str) -> String {
    format!("instance {instance}")
}

/// The name of a lock is a number in PostgreSQL, and has at most 64 characters in MariaDB and MySQL.
async fn lock_call(
    session: &mut (dyn Session + '_),
    sql: &str,
    dialect: Dialect,
    prefix: &str,
    name: &str,
) -> Result<bool, Fault> {
    let answer = crate::run(session, dialect, sql, &[Value::Text(format!("{prefix}{name}"))]).await?;
    match answer.rows.first().and_then(|row| row.first()) {
        Some(Value::Integer(1)) => Ok(true),
        Some(Value::Integer(0)) => Ok(false),
        // Neither acquired nor held by another session: the server failed, or terminated this one.
        _ => Err(Fault::unavailable("the server does not say who has a lock")),
    }
}

/// Acquires a lock if it is free.
pub async fn try_lock(
    session: &mut (dyn Session + '_),
    prefix: &str,
    dialect: Dialect,
    name: &str,
) -> Result<bool, Fault> {
    let sql = match dialect {
        Dialect::MySql => "SELECT GET_LOCK(CONCAT('annals ', LEFT(SHA2(?1, 256), 40)), 0)",
        _ => "SELECT pg_try_advisory_lock(hashtextextended(?1, 0))",
    };
    lock_call(session, sql, dialect, prefix, name).await
}

/// Releases a lock of this session.
///
/// # Errors
/// If the session does not have it, too: then two processes may have believed that they hold it.
pub async fn unlock(
    session: &mut (dyn Session + '_),
    prefix: &str,
    dialect: Dialect,
    name: &str,
) -> Result<(), Fault> {
    let sql = match dialect {
        Dialect::MySql => "SELECT RELEASE_LOCK(CONCAT('annals ', LEFT(SHA2(?1, 256), 40)))",
        _ => "SELECT pg_advisory_unlock(hashtextextended(?1, 0))",
    };
    match lock_call(session, sql, dialect, prefix, name).await? {
        true => Ok(()),
        false => Err(Fault::unavailable("the session did not have a lock that was taken on it")),
    }
}

#[cfg(test)]
mod tests {
    use crate::Answer;
    use async_trait::async_trait;

    use super::*;

    /// A server that answers every statement with this.
    struct Says(Value);

    #[async_trait]
    impl Session for Says {
        async fn enter(&mut self, _: &str) -> Result<(), Fault> {
            Ok(())
        }
        async fn script(&mut self, _: &str) -> Result<(), Fault> {
            Ok(())
        }
        async fn run(&mut self, _: &str, _: &[&Value]) -> Result<Answer, Fault> {
            Ok(Answer { rows: vec![vec![self.0.clone()]], ..Answer::default() })
        }
        async fn run_all(&mut self, _: &[crate::Queued]) -> Result<(), Fault> {
            Ok(())
        }
        async fn begin(&mut self, _: &str, _: &str) -> Result<Option<i64>, Fault> {
            Ok(None)
        }
        fn done(&mut self) {}
    }

    #[tokio::test]
    async fn a_lock_is_neither_taken_nor_released_by_a_server_that_does_not_say_so() {
        for dialect in [Dialect::MySql, Dialect::Postgres] {
            let taken = async |says| try_lock(&mut Says(says), "log/", dialect, "mail").await.ok();
            assert_eq!(taken(Value::Integer(1)).await, Some(true));
            assert_eq!(taken(Value::Integer(0)).await, Some(false));
            assert_eq!(taken(Value::Null).await, None);
            let released = async |says| unlock(&mut Says(says), "log/", dialect, "mail").await.is_ok();
            assert!(released(Value::Integer(1)).await);
            assert!(!released(Value::Integer(0)).await);
            assert!(!released(Value::Null).await);
        }
    }
}
