//! A log that is read from a replica: appends, and whatever must not be old, go to the primary.
//!
//! | what | where |
//! |---|---|
//! | appends, outcomes, the head, reads of one stream | the primary: a command is decided on what is newest |
//! | reads of the log, waiting, lists of streams | the replica: subscriptions, projections, exports |
//!
//! - R1  A replica shows the log up to some position, which a page says (`LogPage::head`). A reader that
//!       continues after what it does not have, or reads back from there, is answered by the primary. A list
//!       of streams may be older than the one before.
//! - R2  A replica that is away, or does not get what the primary has had for [`LAG_MAX`], holds nobody up:
//!       the primary answers until it is back.
//! - R3  A replica shows the history of the primary. It is one only as long as it follows another server (the
//!       store on it is opened so and checks it with each answer), and the event at the newest position that
//!       a page or a list of streams speaks of, whether it is meant or passed over, is compared with the
//!       primary's before the answer is handed out, unless a newer one was within the last [`BELIEVED`]. The
//!       primary may lose events too: the replica need not have more than the primary answered last.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use annals_core::{
    Append, Appended, Direction, Error, EventStore, IdempotencyKey, Invalid, LogPage, LogRead, Position,
    RecordedEvent, Result, StoreId, StreamInfo, StreamList, StreamPage, StreamRead, Witness,
};
use async_trait::async_trait;
use tokio::task::AbortHandle;

/// So long is waited for the replica to get what the primary has.
const LAG_MAX: Duration = Duration::from_secs(1);
/// A comparison of the replica with the primary counts for so long: one of them may be replaced by another
/// server.
const BELIEVED: Duration = Duration::from_secs(1);
/// One that has not answered for so long is away.
const SILENCE: Duration = Duration::from_secs(5);
/// One that is away is looked for in this interval.
const AGAIN: Duration = Duration::from_secs(5);

/// A log on a primary that is read from a replica.
pub struct Replicated {
    primary: Arc<dyn EventStore>,
    replica: Arc<OnceLock<Replica>>,
    /// What the replica must have to be asked.
    needed: AtomicU64,
    looking: Option<AbortHandle>,
}

struct Replica {
    store: Arc<dyn EventStore>,
    /// It has not answered, or not as a replica does, and is not asked until it does.
    away: AtomicBool,
    /// Up to here it had the events of the primary, and when that was compared.
    compared: Mutex<Option<(Position, Instant)>>,
}

impl Replica {
    fn is_compared(&self, position: Position) -> bool {
        let compared = *self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        compared.is_some_and(|(to, at)| position <= to && at.elapsed() < BELIEVED)
    }

    fn note_compared(&self, compared: Option<(Position, Instant)>) {
        *self.compared.lock().unwrap_or_else(PoisonError::into_inner) = compared;
    }
}

impl From<Arc<dyn EventStore>> for Replica {
    fn from(store: Arc<dyn EventStore>) -> Self {
        Self { store, away: AtomicBool::new(false), compared: Mutex::default() }
    }
}

/// Opens the store on a replica.
pub type OpenReplica = Arc<dyn Fn() -> Opening + Send + Sync>;

type Opening = Pin<Box<dyn Future<Output = Result<Arc<dyn EventStore>>> + Send>>;

impl Replicated {
    /// Reads this log from the replica that this opens. One that is away is looked for until it is there.
    ///
    /// # Errors
    /// `Invalid` if the replica has another log, or its address is none.
    pub async fn open(primary: Arc<dyn EventStore>, replica: OpenReplica) -> Result<Self> {
        let found = Arc::new(OnceLock::new());
        let mut looking = None;
        match replica().await {
            Ok(replica) => {
                same_log(primary.id(), &*replica)?;
                let _ = found.set(replica.into());
            }
            Err(Error::Invalid(invalid)) => return Err(invalid.into()),
            Err(error) => {
                tracing::warn!(
                    error = error.chain(),
                    "the replica is away; the primary is read until it is there"
                );
                looking = Some(tokio::spawn(look(primary.id(), replica, found.clone())).abort_handle());
            }
        }
        Ok(Self { primary, replica: found, needed: AtomicU64::new(0), looking })
    }

    /// The replica, if it is there.
    fn replica(&self) -> Option<&Replica> {
        self.replica.get().filter(|replica| !replica.away.load(Ordering::Relaxed))
    }

    /// What the replica answers. One that does not is not asked again until it is there: to look for it takes
    /// long.
    async fn answer<T>(&self, answer: impl Future<Output = Result<T>>) -> Option<T> {
        let answer = tokio::time::timeout(SILENCE, answer).await;
        let error = match answer {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.chain(),
            Err(_) => "it is silent".to_owned(),
        };
        self.suspend(&error);
        None
    }

    /// Suspends reads from the replica until it answers as a replica again.
    fn suspend(&self, error: &str) {
        let Some(replica) = self.replica.get() else { return };
        if !replica.away.swap(true, Ordering::Relaxed) {
            replica.note_compared(None);
            tracing::warn!(error, "the replica cannot be read; the primary is read until it can");
            tokio::spawn(come_back(Arc::downgrade(&self.replica), self.primary.clone()));
        }
    }

    /// Whether the primary has what the replica says of the log up to `newest`, with these events.
    async fn is_of_primary(&self, replica: &Replica, events: &[RecordedEvent], newest: Position) -> bool {
        if newest == Position::ZERO || replica.is_compared(newest) {
            return true;
        }
        let began = Instant::now();
        let newest = match events.iter().find(|event| event.position() == newest) {
            Some(event) => Some(Witness::of(event)),
            // It was passed over.
            None => self.answer(Witness::at(&*replica.store, newest)).await.flatten(),
        };
        let Some(newest) = newest else { return false };
        match newest.holds(&*self.primary).await {
            Ok(true) => {
                replica.note_compared(Some((newest.position, began)));
                true
            }
            Ok(false) => {
                self.suspend(&format!(
                    "it has another history: the primary does not have its event {newest}"
                ));
                false
            }
            // The primary says so itself when it is asked.
            Err(_) => false,
        }
    }

    /// What the replica answers, if it is there and has what is needed.
    async fn of_replica(&self, read: &LogRead) -> Option<LogPage> {
        let seen = match read.direction {
            Direction::Forward => read.from.previous(),
            Direction::Backward => read.from,
        };
        // Which is the newest, only the primary knows.
        if seen == Position::MAX {
            return None;
        }
        let replica = self.replica()?;
        let page = self.answer(replica.store.read_log(read.clone())).await?;
        let needed = Position::new(self.needed.load(Ordering::Relaxed)).max(seen);
        let is_forward = read.direction == Direction::Forward;
        if is_forward && page.end && read.to < Position::MAX && page.head < read.to {
            return None;
        }
        let newest = match read.direction {
            Direction::Forward => page.next.previous(),
            Direction::Backward => read.from,
        };
        let is_enough = page.head >= needed && self.is_of_primary(replica, &page.events, newest).await;
        is_enough.then_some(page)
    }

    /// The primary has the log up to here: more is not needed of the replica, whatever the primary had
    /// before.
    fn primary_is_at(&self, head: Position) {
        self.needed.fetch_min(head.get(), Ordering::Relaxed);
    }

    /// Waits until the primary is beyond this position, and the replica has had its time to get there.
    async fn overdue(&self, after: Position) -> Result<Position> {
        let head = self.primary.wait(after).await?;
        tokio::time::sleep(LAG_MAX).await;
        self.needed.fetch_max(head.get(), Ordering::Relaxed);
        Ok(head)
    }
}

impl Drop for Replicated {
    fn drop(&mut self) {
        if let Some(looking) = &self.looking {
            looking.abort();
        }
    }
}

fn same_log(id: StoreId, replica: &dyn EventStore) -> Result<(), Invalid> {
    let problem = || format!("has the log {}, and the primary the log {id}", replica.id());
    if replica.id() == id { Ok(()) } else { Err(Invalid::new("replica", problem())) }
}

/// Waits until a replica that was given up answers, with the history of the primary.
async fn come_back(found: Weak<OnceLock<Replica>>, primary: Arc<dyn EventStore>) {
    loop {
        tokio::time::sleep(AGAIN).await;
        let Some(found) = found.upgrade() else { return };
        let Some(replica) = found.get() else { return };
        let newest = replica.store.read_log(LogRead::backward(Position::MAX).limit(1));
        let Ok(Ok(page)) = tokio::time::timeout(SILENCE, newest).await else { continue };
        let is_of_primary = match page.events.first() {
            Some(newest) => Witness::of(newest).holds(&*primary).await.unwrap_or(false),
            None => true,
        };
        if is_of_primary {
            tracing::info!("the replica answers again");
            return replica.away.store(false, Ordering::Relaxed);
        }
    }
}

async fn look(id: StoreId, replica: OpenReplica, found: Arc<OnceLock<Replica>>) {
    loop {
        tokio::time::sleep(AGAIN).await;
        let opened = match replica().await {
            Ok(replica) => same_log(id, &*replica).map(|()| replica).map_err(Error::from),
            Err(error) => Err(error),
        };
        match opened {
            Ok(replica) => {
                tracing::info!("the replica is there");
                let _ = found.set(replica.into());
                return;
            }
            Err(error) => tracing::debug!(error = error.chain(), "the replica cannot be used"),
        }
    }
}

#[async_trait]
impl EventStore for Replicated {
    fn id(&self) -> StoreId {
        self.primary.id()
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        self.primary.append(append).await
    }

    async fn read_log(&self, read: LogRead) -> Result<LogPage> {
        match self.of_replica(&read).await {
            Some(page) => Ok(page),
            None => {
                let page = self.primary.read_log(read).await?;
                self.primary_is_at(page.head);
                Ok(page)
            }
        }
    }

    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        self.primary.read_stream(read).await
    }

    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        if let Some(replica) = self.replica()
            && let Some(listed) = self.answer(replica.store.list_streams(list.clone())).await
        {
            let newest = listed.iter().map(|stream| stream.position).max().unwrap_or(Position::ZERO);
            if self.is_of_primary(replica, &[], newest).await {
                return Ok(listed);
            }
        }
        self.primary.list_streams(list).await
    }

    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        self.primary.outcome(key).await
    }

    async fn head(&self) -> Result<Position> {
        let head = self.primary.head().await?;
        self.primary_is_at(head);
        Ok(head)
    }

    async fn wait(&self, after: Position) -> Result<Position> {
        let Some(replica) = self.replica() else { return self.primary.wait(after).await };
        let of_replica = async {
            match replica.store.wait(after).await {
                Ok(head) => head,
                // The primary knows when there is more.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            head = of_replica => Ok(head),
            head = self.overdue(after) => head,
        }
    }
}

/// The address of a log without `replica=HOST:PORT`, and that of the replica: the same but for the place.
///
/// # Errors
/// `Invalid` if the replica's place is empty or the address has none.
pub fn split_replica(url: &str) -> Result<(String, Option<String>), Invalid> {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let (own, theirs): (Vec<_>, Vec<_>) =
        query.split('&').filter(|pair| !pair.is_empty()).partition(|pair| pair.starts_with("replica="));
    let query = if theirs.is_empty() { String::new() } else { format!("?{}", theirs.join("&")) };
    let Some(replica) = own.last().map(|pair| &pair["replica=".len()..]) else {
        return Ok((url.to_owned(), None));
    };
    let parts = place.split_once("://").and_then(|(scheme, rest)| {
        let (authority, path) = rest.split_once('/')?;
        let user = authority.rfind('@').map_or("", |at| &authority[..=at]);
        Some((scheme, user, path))
    });
    match parts {
        Some((scheme, user, path)) if !replica.is_empty() && !replica.contains(['/', '@']) => {
            Ok((format!("{place}{query}"), Some(format!("{scheme}://{user}{replica}/{path}{query}"))))
        }
        // Not the value itself, which may have a password in it.
        _ => Err(Invalid::new("store", "has a `replica` that must be HOST or HOST:PORT, without a user")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_replica_is_the_same_log_at_another_place() {
        let split = |url: &str| split_replica(url).unwrap();
        let plain = "postgres://kim:secret@one/shop?schema=orders";
        assert_eq!(split(plain), (plain.to_owned(), None));
        assert_eq!(
            split("postgres://kim:secret@one/shop?replica=two:5433&schema=orders"),
            (plain.to_owned(), Some("postgres://kim:secret@two:5433/shop?schema=orders".to_owned()))
        );
        assert_eq!(
            split("mysql://one/shop?replica=two"),
            ("mysql://one/shop".to_owned(), Some("mysql://two/shop".to_owned()))
        );
        for wrong in
            ["postgres://one/shop?replica=", "postgres://one/shop?replica=x@two", "postgres:?replica=two"]
        {
            assert!(split_replica(wrong).is_err(), "{wrong}");
        }
    }
}
