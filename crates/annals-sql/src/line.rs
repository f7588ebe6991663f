//! Connections to a database: what a driver does with one, and the pool of those that several calls share.
//!
//! - C1  No statement without a time limit on this side: [`answered`].
//! - C2  A connection that is dropped in the middle of a statement, because its caller has gone or the server
//!       is silent, is closed, and what the server still does for it is ended there ([`Driver::cancel`]).
//!       That takes one connection, however many are dropped, which is kept open for it: the server may have
//!       none left ([`Cancels`]). It ends no statement of another session: see [`Driver::Id`].
//! - C3  A connection on which anything is open or unknown is given up, never lent again. The others of its
//!       pool may be lost for the same reason, so each is tried before it is used.
//!
//! Knows no database. Next above: `writer` (the one connection that writes), and the reads of each store.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Step, Stopped};

/// A connection that was not used for this long is tried before it is used.
pub const IDLE: Duration = Duration::from_secs(1);
/// One that does not answer for this long when it is tried is given up.
const TRY: Duration = Duration::from_secs(2);

/// How connections of one kind are made and ended.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// A connection, set to what is relied on.
    type Connection: Send + 'static;
    /// What the library says when something fails.
    type Error: Send;
    /// By what a server finds the session of a connection, and by what another server, which the address
    /// leads to after a failover, sees that it is none of its own: numbers of sessions are given again.
    type Id: Send + Sync + 'static;

    /// Makes a connection, sets it, and checks where it leads.
    async fn connect(&self) -> Result<Self::Connection, Self::Error>;

    /// Whether the server still answers on this connection.
    async fn answers(&self, connection: &mut Self::Connection) -> bool;

    /// By what the server knows a connection.
    fn id(connection: &Self::Connection) -> Self::Id;

    /// The sessions in which something is to be ended.
    fn cancels(&self) -> &Cancels<Self>
    where
        Self: Sized;

    /// Ends what the server does in these sessions, by this connection. A statement that may be committing is
    /// ended only while it waits for a lock.
    async fn cancel(
        &self,
        connection: &mut Self::Connection,
        sessions: &[(Self::Id, Step)],
    ) -> Result<(), Self::Error>;

    /// The longest that it may take to end something.
    fn patience(&self) -> Duration;

    /// As an error of the library.
    fn stopped(stopped: Stopped) -> Self::Error;
}

/// What a statement answers, if it does so in time.
///
/// # Errors
/// As the statement, or [`Stopped::Silent`].
pub async fn answered<D: Driver, T>(
    limit: Duration,
    statement: impl Future<Output = Result<T, D::Error>>,
) -> Result<T, D::Error> {
    let answer = tokio::time::timeout(limit, statement).await;
    answer.unwrap_or_else(|_| Err(D::stopped(Stopped::Silent(limit))))
}

/// A connection. Dropped in the middle of a statement, it ends that on the server.
pub struct Line<D: Driver> {
    driver: Arc<D>,
    connection: Option<D::Connection>,
    under_way: Option<Step>,
}

impl<D: Driver> Line<D> {
    /// Makes a connection.
    ///
    /// # Errors
    /// As the driver.
    pub async fn open(driver: &Arc<D>) -> Result<Self, D::Error> {
        let connection = driver.connect().await?;
        Ok(Self { driver: driver.clone(), connection: Some(connection), under_way: None })
    }

    /// The connection, between statements.
    pub fn connection(&mut self) -> &mut D::Connection {
        self.connection.as_mut().expect("it is taken out when this is dropped")
    }

    /// The connection, for a statement that begins.
    pub fn begin(&mut self, step: Step) -> &mut D::Connection {
        self.under_way = Some(step);
        self.connection()
    }

    /// The statement has ended: the server has answered, or the connection is lost.
    pub fn end(&mut self) {
        self.under_way = None;
    }

    /// Runs work on the connection. `None` if it has not ended within the limit: then the line stays in the
    /// middle of it, so that it is ended on the server too when the line is dropped.
    pub async fn within<T>(
        &mut self,
        limit: Duration,
        step: Step,
        work: impl AsyncFnOnce(&mut D::Connection) -> T,
    ) -> Option<T> {
        let done = tokio::time::timeout(limit, work(self.begin(step))).await.ok()?;
        self.end();
        Some(done)
    }

    /// Runs work on the connection within the limit.
    ///
    /// # Errors
    /// As the work, or [`Stopped::Silent`].
    pub async fn answered<T>(
        &mut self,
        limit: Duration,
        step: Step,
        work: impl AsyncFnOnce(&mut D::Connection) -> Result<T, D::Error>,
    ) -> Result<T, D::Error> {
        self.within(limit, step, work).await.unwrap_or_else(|| Err(D::stopped(Stopped::Silent(limit))))
    }

    /// Whether a statement has begun and not ended.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    async fn answers(&mut self) -> bool {
        let driver = self.driver.clone();
        let answers = tokio::time::timeout(TRY, driver.answers(self.connection())).await;
        answers.unwrap_or(false)
    }
}

impl<D: Driver> Drop for Line<D> {
    fn drop(&mut self) {
        let (Some(step), Some(connection)) = (self.under_way, self.connection.take()) else { return };
        let id = D::id(&connection);
        drop(connection);
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && self.driver.cancels().queue().push(id, step)
        {
            runtime.spawn(cancel_all(self.driver.clone()));
        }
    }
}

/// Between two attempts to end what is done in sessions.
const AGAIN: Duration = Duration::from_millis(100);
/// How often the connection that is kept for it is tried.
const LOOK: Duration = Duration::from_secs(30);
/// Most sessions that wait to be ended. The oldest are left to the limits of the server.
const CANCELS_MAX: usize = 256;

/// Sessions in which something is to be ended, and the connection by which that is done.
///
/// The connection is made a second after a pool has lent the first one ([`Pool::lend`]), and kept: a server,
/// or a role, whose connections are all taken by statements that nobody waits for would else let nobody in to
/// end them.
pub struct Cancels<D: Driver> {
    queue: Mutex<Queue<D::Id>>,
    /// The connection, and when it was used.
    reserve: Mutex<Option<(D::Connection, Instant)>>,
    /// Whether a task keeps the connection.
    is_kept: AtomicBool,
}

struct Queue<I> {
    sessions: VecDeque<(I, Step)>,
    /// Whether a task ends them.
    is_served: bool,
}

impl<D: Driver> Default for Cancels<D> {
    fn default() -> Self {
        Self {
            queue: Mutex::new(Queue { sessions: VecDeque::new(), is_served: false }),
            reserve: Mutex::default(),
            is_kept: AtomicBool::new(false),
        }
    }
}

impl<I> Queue<I> {
    /// Adds a session. Returns whether a task must be started that ends what is in the queue.
    fn push(&mut self, id: I, step: Step) -> bool {
        if self.sessions.len() == CANCELS_MAX {
            self.sessions.pop_front();
        }
        self.sessions.push_back((id, step));
        !std::mem::replace(&mut self.is_served, true)
    }

    /// Takes what is in the queue. If it is empty, the task ends.
    fn take(&mut self) -> Vec<(I, Step)> {
        self.is_served = !self.sessions.is_empty();
        self.sessions.drain(..).collect()
    }
}

impl<D: Driver> Cancels<D> {
    fn queue(&self) -> MutexGuard<'_, Queue<D::Id>> {
        // What is under the lock is whole after a panic too.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(&self) -> MutexGuard<'_, Option<(D::Connection, Instant)>> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was kept, if it still answers.
    async fn kept(driver: &D) -> Option<D::Connection> {
        let kept = driver.cancels().reserve().take();
        let (mut connection, used) = kept?;
        let is_alive = used.elapsed() < IDLE
            || tokio::time::timeout(TRY, driver.answers(&mut connection)).await.unwrap_or(false);
        is_alive.then_some(connection)
    }

    fn keep(&self, connection: D::Connection) {
        *self.reserve() = Some((connection, Instant::now()));
    }
}

/// Ends what is in the queue, all that has come meanwhile at once.
async fn cancel_all<D: Driver>(driver: Arc<D>) {
    loop {
        let sessions = driver.cancels().queue().take();
        if sessions.is_empty() {
            return;
        }
        if tokio::time::timeout(driver.patience(), cancel(&*driver, &sessions)).await.is_err() {
            tracing::debug!(
                count = sessions.len(),
                "statements that nobody waits for could not be ended; the server's limits end them"
            );
        }
    }
}

/// Ends what is done in these sessions, however often it has to be tried.
async fn cancel<D: Driver>(driver: &D, sessions: &[(D::Id, Step)]) {
    loop {
        let connection = match Cancels::kept(driver).await {
            Some(kept) => Some(kept),
            None => driver.connect().await.ok(),
        };
        if let Some(mut connection) = connection
            && driver.cancel(&mut connection, sessions).await.is_ok()
        {
            return driver.cancels().keep(connection);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Has a connection for what is to be ended, as long as the pool is there.
async fn keep_reserve<D: Driver>(pool: Weak<Parts<D>>) {
    // One that is used for a moment only, as by a command, does not need it.
    tokio::time::sleep(IDLE).await;
    loop {
        let Some(driver) =
            pool.upgrade().filter(|pool| !pool.room.is_closed()).map(|pool| pool.driver.clone())
        else {
            return;
        };
        let connection = match Cancels::kept(&*driver).await {
            Some(kept) => Ok(kept),
            None => driver.connect().await,
        };
        let pause = if connection.is_ok() { LOOK } else { IDLE };
        // It may have been closed meanwhile.
        if let Ok(connection) = connection
            && pool.upgrade().is_some_and(|pool| !pool.room.is_closed())
        {
            driver.cancels().keep(connection);
        }
        drop(driver);
        tokio::time::sleep(pause).await;
    }
}

/// A connection that may be used again, or a new one. `idle` takes one out and says whether it can be used as
/// it is; else it is tried first.
pub(crate) async fn usable<D: Driver>(
    driver: &Arc<D>,
    mut idle: impl FnMut() -> Option<(Line<D>, bool)>,
) -> Result<Line<D>, D::Error> {
    while let Some((mut line, is_fresh)) = idle() {
        if !line.is_under_way() && (is_fresh || line.answers().await) {
            return Ok(line);
        }
    }
    Line::open(driver).await
}

/// Connections that several calls share. A clone is the same.
pub struct Pool<D: Driver>(Arc<Parts<D>>);

struct Parts<D: Driver> {
    driver: Arc<D>,
    idle: Mutex<Idle<D>>,
    room: Arc<Semaphore>,
    patience: Duration,
    /// Whether a connection is kept for what is to be ended.
    reserves: AtomicBool,
}

/// Connections that nobody uses.
struct Idle<D: Driver> {
    /// Each with the time at which it was used, the last at the end.
    lines: VecDeque<(Line<D>, Instant)>,
    /// When a connection was given up: those that were used before may be lost too.
    doubted: Option<Instant>,
}

impl<D: Driver> Clone for Pool<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Driver> Pool<D> {
    /// At most this many connections, which are made when they are needed. A call waits for one for
    /// `patience`; one that nobody has used for `kept` is closed. Must be called on the runtime that they are
    /// used on.
    pub fn new(driver: D, connections_max: u32, patience: Duration, kept: Duration) -> Self {
        let room = Arc::new(Semaphore::new(connections_max.max(1) as usize));
        let idle = Mutex::new(Idle { lines: VecDeque::new(), doubted: None });
        let reserves = AtomicBool::new(false);
        let parts = Arc::new(Parts { driver: Arc::new(driver), idle, room, patience, reserves });
        tokio::spawn(close_old(Arc::downgrade(&parts), kept));
        Self(parts)
    }

    /// How its connections are made.
    pub fn driver(&self) -> &Arc<D> {
        &self.0.driver
    }

    /// From now on a connection is kept for what is to be ended, once one is lent.
    pub fn reserve(&self) {
        self.0.reserves.store(true, Ordering::Relaxed);
    }

    /// A connection of nobody else's.
    ///
    /// # Errors
    /// As the driver; [`Stopped::Busy`] if there is none in time.
    pub async fn lend(&self) -> Result<Lent<D>, D::Error> {
        let lent = tokio::time::timeout(self.0.patience, async {
            let permit = self.0.room.clone().acquire_owned().await;
            let permit = permit.map_err(|_| D::stopped(Stopped::Closed))?;
            let line = usable(&self.0.driver, || self.0.idle().take()).await?;
            if self.0.reserves.load(Ordering::Relaxed)
                && !self.0.driver.cancels().is_kept.swap(true, Ordering::Relaxed)
            {
                tokio::spawn(keep_reserve(Arc::downgrade(&self.0)));
            }
            Ok(Lent { line: Some(line), pool: self.0.clone(), done: false, _permit: permit })
        });
        lent.await.unwrap_or_else(|_| Err(D::stopped(Stopped::Busy)))
    }

    /// Closes those that nobody uses, and lends no more.
    pub fn close(&self) {
        self.0.room.close();
        self.0.idle().lines.clear();
        self.0.driver.cancels().reserve().take();
    }
}

impl<D: Driver> Idle<D> {
    /// The one that was used last, and whether it can be lent as it is.
    fn take(&mut self) -> Option<(Line<D>, bool)> {
        let (line, used) = self.lines.pop_back()?;
        let is_doubted = self.doubted.is_some_and(|doubted| used <= doubted);
        Some((line, used.elapsed() < IDLE && !is_doubted))
    }
}

impl<D: Driver> Parts<D> {
    fn idle(&self) -> std::sync::MutexGuard<'_, Idle<D>> {
        // What is under the lock is whole after a panic too.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes connections that nobody has used for this long.
async fn close_old<D: Driver>(pool: Weak<Parts<D>>, kept: Duration) {
    loop {
        tokio::time::sleep(kept).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle();
        let old = idle.lines.partition_point(|(_, used)| used.elapsed() > kept);
        let old: Vec<_> = idle.lines.drain(..old).collect();
        // Closed where the lock is not held.
        drop(idle);
        drop(old);
    }
}

/// A connection of a pool, which goes back to it if nothing is open on it, and else is closed.
pub struct Lent<D: Driver> {
    line: Option<Line<D>>,
    pool: Arc<Parts<D>>,
    done: bool,
    _permit: OwnedSemaphorePermit,
}

impl<D: Driver> Lent<D> {
    /// The connection.
    pub fn line(&mut self) -> &mut Line<D> {
        self.line.as_mut().expect("it is taken out when this is dropped")
    }

    /// Nothing is open on it: others may have it.
    pub fn done(&mut self) {
        self.done = true;
    }
}

impl<D: Driver> Drop for Lent<D> {
    fn drop(&mut self) {
        let Some(line) = self.line.take() else { return };
        if self.pool.room.is_closed() {
            return;
        }
        let mut idle = self.pool.idle();
        match self.done && !line.is_under_way() {
            true => idle.lines.push_back((line, Instant::now())),
            false => {
                idle.doubted = Some(Instant::now());
                // Closed where the lock is not held.
                drop(idle);
            }
        }
    }
}

/// A connection in the middle of somebody else's transaction, for statements that take part in it.
pub struct Borrowed<'a, C> {
    connection: &'a mut C,
    limit: Duration,
    /// Set in the middle of a statement: if it is given up there, the driver would take the rest of its
    /// answer to be that of the next.
    is_broken: bool,
}

impl<'a, C> Borrowed<'a, C> {
    /// This connection, on which nothing may take longer than the limit.
    pub fn new(connection: &'a mut C, limit: Duration) -> Self {
        Self { connection, limit, is_broken: false }
    }

    /// Runs work on the connection.
    ///
    /// # Errors
    /// [`Stopped::Silent`], also for all that comes after work that was given up.
    pub async fn within<T>(&mut self, work: impl AsyncFnOnce(&mut C) -> T) -> Result<T, Stopped> {
        if self.is_broken {
            return Err(Stopped::Silent(self.limit));
        }
        self.is_broken = true;
        let done = tokio::time::timeout(self.limit, work(self.connection)).await;
        let done = done.map_err(|_| Stopped::Silent(self.limit))?;
        self.is_broken = false;
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_connections_that_are_dropped_are_ended_by_one_task() {
        let mut queue = Queue { sessions: VecDeque::new(), is_served: false };
        assert!(queue.push(0, Step::Read), "a task is started");
        assert!(!(1..1_000).any(|number| queue.push(number, Step::Read)), "and one is enough");
        let taken: Vec<u32> = queue.take().into_iter().map(|(number, _)| number).collect();
        assert_eq!(taken, (1_000 - CANCELS_MAX as u32..1_000).collect::<Vec<_>>(), "the newest");
        assert!(!queue.push(1, Step::Commit), "the task goes round again");
        assert_eq!((queue.take().len(), queue.take().len()), (1, 0));
        assert!(queue.push(2, Step::Read), "the task has ended");
    }
}
