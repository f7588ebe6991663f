//! Tenants: a log for each, spread over databases, and moved from one to another while it is in use.
//!
//! The locations of the tenants' logs are recorded in a log of their own, the *directory*. A move has four
//! steps, each of which can be repeated: the directory records the beginning of the move; the log is copied,
//! while the old place takes appends; the old place is fenced, and takes no more appends; the rest is copied,
//! and the directory records the end of the move. Appends wait from the third step to the fourth, and are
//! then written at the new place.
//!
//! - V1  The fence is set under the lock under which appends commit. So no event is appended to the old place
//!       after the copied ones, not even by a process that still has it open. The new place is fenced until
//!       it has all events.
//! - V2  The copy has the identity of the log and every event unchanged: positions, versions, times, keys.
//!       Checkpoints remain valid, and a retried append is recognised.
//! - V3  A process that stops during a move loses nothing: the move can be begun again and continues from
//!       there.
//! - V4  A move has a number, assigned by the directory. A place ignores moves with a lower number than the
//!       highest that it has seen, so a move that was delayed and superseded neither sets nor removes a
//!       fence.
//! - V5  A directory may lose its newest events (a restore, a failover). Moves recorded after the loss are
//!       still noticed, and an open log does not return to a place that lacks events that it had.
//! - V6  A place records its owner (`annals_state::Claim`): no two tenants get one log, however its address
//!       is written and whichever directory assigns it.
//!
//! The files: `log_place` (an address, and the kind of store that it names), `route` (the aggregates of the
//! directory), `routed` (a log that follows its moves), `copy` (copies the events).

mod copy;
mod log_place;
mod route;
mod routed;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use annals_consume::{Subscription, newest};
use annals_core::{Error, EventStore, Invalid, Position, Query, Result, StoreId, redacted};
use annals_state::{Claim, OpenOptions};
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::backend::Backends;
use crate::{Aggregate, Annals, Committed, ExecuteError, LoadError, Loaded};
use copy::Unbounded;
use log_place::LogPlace;
use route::{Move, NoRoute, Place, Tenant};
use routed::{Here, RoutedStore};

/// Pause before retrying to follow a move to a place that cannot be reached.
const AGAIN: Duration = Duration::from_secs(1);

/// The tenants of a service, and the places of their logs. Clones share one state. Keep it as long as the
/// logs that it has returned: without it they follow no move.
///
/// ```no_run
/// # async fn run() -> annals::Result<()> {
/// use annals::{Annals, State, Tenants};
///
/// let tenants = Tenants::open("postgres://shop@one/directory").await?;
/// tenants.add("acme", "postgres://shop@one/shop?schema=acme").await?;
///
/// // It follows the tenant wherever it goes; the state beside it stays.
/// let log = tenants.log("acme").await?;
/// let state = State::database("postgres://shop@one/state?schema=acme")?;
/// let annals = Annals::with_store(log, state).await?;
///
/// tenants
///     .move_to("acme", "postgres://shop@two/shop?schema=acme", |moving| {
///         println!("{} of {}", moving.copied, moving.head);
///     })
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tenants {
    shared: Arc<Shared>,
}

struct Shared {
    directory: Annals,
    addresses: Box<dyn Fn(&str) -> String + Send + Sync>,
    backends: Backends,
    open: Mutex<HashMap<String, Arc<RoutedStore>>>,
    following: AbortHandle,
}

/// The progress of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveProgress {
    /// Events at the new place.
    pub copied: Position,
    /// Events in the log.
    pub head: Position,
    /// Whether appends wait.
    pub fenced: bool,
}

impl Tenants {
    /// Opens the directory at this address, which is a log like any other; creates it if necessary.
    ///
    /// # Errors
    /// As [`Annals::open`].
    pub async fn open(url: &str) -> Result<Self> {
        Self::with_addresses(url, str::to_owned).await
    }

    /// As [`open`](Self::open), with a function that turns the addresses of the directory into complete ones:
    /// passwords do not belong in a log.
    ///
    /// # Errors
    /// As [`Annals::open`].
    pub async fn with_addresses(
        url: &str,
        addresses: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::with_backends(url, Backends::default(), addresses).await
    }

    /// As [`with_addresses`](Self::with_addresses), with other kinds of store, such as your own, which needs
    /// a [`Relocation`](crate::backend::Relocation).
    ///
    /// # Errors
    /// As [`Annals::open`].
    pub async fn with_backends(
        url: &str,
        backends: Backends,
        addresses: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Result<Self> {
        let place = LogPlace::at(url, &backends)?;
        let directory = Annals::open_among(&place.url, &backends).await?;
        let log = directory.store().clone();
        // Refuses a place that is a tenant's log, and from now on a tenant at this place. A kind of store
        // without relocation has no tenants, and needs no claim.
        if let Some(relocation) = place.backend.relocation() {
            let claim = Claim { directory: log.id(), tenant: "", known: true, moving: None };
            relocation.claim(&place.url, claim).await?;
        }
        // Subscribed before any log is opened, so that no move is missed.
        let moves = Subscription::from_now(log.clone(), Query::all()).await?;
        let shared = Arc::new_cyclic(|shared: &Weak<Shared>| Shared {
            following: tokio::spawn(follow(moves, shared.clone())).abort_handle(),
            directory,
            addresses: Box::new(addresses),
            backends,
            open: Mutex::default(),
        });
        Ok(Self { shared })
    }

    /// Creates a log for a new tenant in the database with this address. The database must have no log there,
    /// or an empty one that belongs to no tenant.
    ///
    /// # Errors
    /// `Invalid` if the tenant exists already at another place, if the place belongs to another tenant or the
    /// directory, or has a log with events, or if the address is not a database or contains a password; as
    /// [`Annals::open`].
    pub async fn add(&self, tenant: &str, url: &str) -> Result<()> {
        self.shared.check(url)?;
        // The log is claimed and created before the directory records it, so that the first caller that opens
        // it finds it. A tenant that is elsewhere is refused below.
        let at = self.place(tenant).await?;
        if at.as_ref().is_none_or(|at| at == url) {
            self.shared.claim(url, tenant, at.is_some(), None).await?;
        }
        self.shared.say(tenant, Move::Place { at: url.to_owned() }).await
    }

    /// The log of a tenant. The returned store remains valid when the log is moved. It is kept open, with its
    /// connections, as long as this `Tenants`.
    ///
    /// # Errors
    /// `Invalid` if there is no such tenant; as [`Annals::open`].
    pub async fn log(&self, tenant: &str) -> Result<Arc<dyn EventStore>> {
        if let Some(routed) = self.shared.open.lock().get(tenant) {
            return Ok(routed.clone());
        }
        let at = self.shared.place_of(tenant).await?;
        // An earlier version assigned places by their addresses only, without a claim.
        self.shared.claim(&at, tenant, true, None).await?;
        let here = self.shared.here(at).await?;
        let routed = Arc::new(RoutedStore::new(tenant, here, Arc::downgrade(&self.shared)));
        let routed = self.shared.open.lock().entry(tenant.to_owned()).or_insert(routed).clone();
        // It may have moved while it was opened, before it could be notified.
        routed.follow().await?;
        Ok(routed)
    }

    /// The address of a tenant's log; `None` if there is no such tenant.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub async fn place(&self, tenant: &str) -> Result<Option<String>> {
        Ok(self.shared.load(tenant).await?.state.at)
    }

    /// Moves the log of a tenant to the database with this address, which must have no log yet, or an older
    /// state of this one. Appends are accepted during the move, except for a short pause at the end. To
    /// resume an interrupted move, call it again; to cancel it, move the log to its current place.
    ///
    /// The old place keeps its events and takes no appends; it can be removed at any time. State beside the
    /// log does not move: keep the state of a log that may move in another database
    /// ([`State::database`](crate::State::database)).
    ///
    /// # Errors
    /// `Invalid` if there is no such tenant, if it is being moved to another place, if the database has
    /// another log, or if another move has begun meanwhile; `Unavailable` if a database cannot be reached.
    /// Nothing is lost: the move can be begun again.
    pub async fn move_to(
        &self,
        tenant: &str,
        url: &str,
        mut report: impl FnMut(MoveProgress) + Send,
    ) -> Result<()> {
        self.shared.check(url)?;
        let Tenant { at, to } = self.shared.load(tenant).await?.state;
        if let (Some(at), Some(to)) = (&at, &to)
            && at == url
            && to != url
        {
            self.shared.may_be_called_off(at, to).await?;
        }
        // If the place is refused, no move begins. If it cannot be reached, the move begins, because it may
        // be reached when the move is resumed.
        let mut claimed = None;
        if let Some(at) = at
            && to.is_none_or(|to| to == url)
        {
            match self.shared.claim_new(&at, url, tenant).await {
                Err(Error::Invalid(refused)) => return Err(refused.into()),
                source => claimed = source.ok().map(|source| (at, source)),
            }
        }
        self.shared.say(tenant, Move::Begin { to: url.to_owned() }).await?;
        // Loaded again because the recorded state decides, and its version is the number of the move.
        let Loaded { state: Tenant { at, to }, version, .. } = self.shared.load(tenant).await?;
        let at = at.ok_or_else(|| no_tenant(tenant))?;
        match to {
            None if at == url => return Ok(()),
            Some(to) if to == url => {}
            _ => return Err(Invalid::new("tenant", "was moved by another caller in the meantime").into()),
        }
        let number = version.get();
        let (old, new) = (self.shared.address(&at)?, self.shared.address(url)?);
        let (from, to) = (old.relocation()?, new.relocation()?);
        let source = match claimed {
            Some((claimed, source)) if claimed == at => source,
            _ => self.shared.claim_new(&at, url, tenant).await?,
        };
        to.adopt(&new.url, source.id(), number).await?;
        let target = to.open_moving(&new.url, Arc::new(Unbounded)).await?;
        let head = source.head().await?;
        copy::copy(&*source, &*target, head, |copied| report(MoveProgress { copied, head, fenced: false }))
            .await?;
        let head = from.fence(&old.url, true, number).await?;
        copy::copy(&*source, &*target, head, |copied| report(MoveProgress { copied, head, fenced: true }))
            .await?;
        // From now on the log is at the new place, although open logs have not followed yet.
        to.fence(&new.url, false, number).await?;
        self.shared.say(tenant, Move::Finish { from: at, to: url.to_owned() }).await
    }
}

impl Shared {
    async fn load(&self, tenant: &str) -> Result<Loaded<Tenant>> {
        self.directory.repository::<Tenant>().load(tenant).await.map_err(unloaded)
    }

    async fn place_of(&self, tenant: &str) -> Result<String> {
        self.load(tenant).await?.state.at.ok_or_else(|| no_tenant(tenant).into())
    }

    async fn say(&self, tenant: &str, command: Move) -> Result<()> {
        executed(self.directory.repository::<Tenant>().execute(tenant, command).await)
    }

    /// Claims the place for this tenant, permanently; creates the log there if necessary.
    async fn claim(&self, place: &str, tenant: &str, known: bool, moving: Option<StoreId>) -> Result<()> {
        // The owner that an earlier version recorded in the directory, and not at the place.
        let noted = self.directory.repository::<Place>().load(place).await;
        let noted = noted.map_err(unloaded)?.state.of;
        if let Some(other) = noted.filter(|noted| noted != tenant) {
            let problem = format!("cannot be there: that place is the tenant `{other}`'s");
            return Err(Invalid::new("tenant", problem).into());
        }
        let claim = Claim { directory: self.directory.store().id(), tenant, known, moving };
        let place = self.address(place)?;
        place.relocation()?.claim(&place.url, claim).await
    }

    /// Claims the target place of a move. Returns the log to copy.
    async fn claim_new(&self, at: &str, place: &str, tenant: &str) -> Result<Arc<dyn EventStore>> {
        self.claim(at, tenant, true, None).await?;
        let from = self.address(at)?;
        let source = from.relocation()?.open_moving(&from.url, Arc::new(Unbounded)).await?;
        self.claim(place, tenant, false, Some(source.id())).await?;
        Ok(source)
    }

    /// Refuses to cancel a move if events appended at the new place would be lost, because the move was
    /// finished and the directory has lost the record of that. If the new place cannot be reached, or has
    /// another log, the move can be cancelled as long as the old place is not fenced, because then no event
    /// was ever appended at the new place.
    async fn may_be_called_off(&self, at: &str, to: &str) -> Result<()> {
        let (place, old) = (self.address(at)?, self.store(at).await?);
        let new = match self.store(to).await {
            Ok(new) => new,
            Err(_) if !place.relocation()?.is_fenced(&place.url).await? => return Ok(()),
            Err(error) => {
                let problem = format!(
                    "the move to {to} cannot be called off before that place is reached, as its log may have taken appends: the \
                     log at {at} is fenced. If {to} is gone for good, set `moved` to false in the table `log` at {at}, and call \
                     the move off again: {}",
                    error.chain()
                );
                return Err(if error.is_transient() { Error::Unavailable } else { Error::Unusable }(
                    problem.into(),
                ));
            }
        };
        if new.id() != old.id() {
            return Ok(());
        }
        let newest = newest(&*new).await?;
        if newest.holds(&*old).await? {
            return Ok(());
        }
        let problem = format!(
            "cannot stay at {at}, which does not have all events of its log at {to}: the move was finished, and the directory \
             has lost the end of it. Move it to {to} again"
        );
        Err(Invalid::new("tenant", problem).into())
    }

    /// Refuses an address that must not be recorded in the directory: one that is redacted when it is
    /// displayed.
    fn check(&self, url: &str) -> Result<(), Invalid> {
        let shown = redacted(url);
        if shown != url {
            let problem = format!(
                "has a password in it, or what may be one, as {shown} shows: leave it out, because the directory is append only \
                 and would keep it, and put it in with `Tenants::with_addresses`"
            );
            return Err(Invalid::new("store", problem));
        }
        LogPlace::at(url, &self.backends)?.relocation().map(drop)
    }

    fn address(&self, place: &str) -> Result<LogPlace> {
        Ok(LogPlace::at(&(self.addresses)(place), &self.backends)?)
    }

    /// Opens the log at this place, for a [`RoutedStore`].
    async fn here(&self, at: String) -> Result<Here> {
        let place = self.address(&at)?;
        place.relocation()?;
        Ok(Here { store: self.store(&at).await?, at, backend: place.backend })
    }

    async fn store(&self, place: &str) -> Result<Arc<dyn EventStore>> {
        let LogPlace { url, backend } = self.address(place)?;
        Ok(backend.open(&url, OpenOptions::default()).await?.store)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// Reads moves from the directory, and makes the open logs follow them.
async fn follow(mut moves: Subscription, shared: Weak<Shared>) {
    loop {
        let losses = moves.losses();
        let heard = moves.next().await;
        let Some(shared) = shared.upgrade() else { return };
        if moves.losses() > losses {
            tracing::warn!("the directory of the tenants has lost events: moves may have to be repeated");
        }
        match heard {
            Ok(event) => {
                let tenant = event.stream().strip_prefix("tenant-").unwrap_or_default();
                if let Some(routed) = shared.open.lock().get(tenant) {
                    tokio::spawn(follow_one(tenant.to_owned(), Arc::downgrade(routed)));
                }
            }
            Err(error) => {
                tracing::debug!(error = error.chain(), "the directory cannot be read");
                drop(shared);
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Makes one log follow, with retries while the directory or the new place cannot be reached; other logs do
/// not wait for it.
async fn follow_one(tenant: String, routed: Weak<RoutedStore>) {
    while let Some(routed) = routed.upgrade() {
        let Err(error) = routed.follow().await else { return };
        drop(routed);
        tracing::warn!(tenant, error = error.chain(), "cannot follow a log that has moved; retrying");
        tokio::time::sleep(AGAIN).await;
    }
}

fn executed<A: Aggregate>(answer: Result<Committed<A>, ExecuteError<NoRoute>>) -> Result<()> {
    match answer {
        Ok(_) => Ok(()),
        Err(ExecuteError::Rejected(NoRoute(problem))) => Err(Invalid::new("tenant", problem).into()),
        Err(ExecuteError::Store(error)) => Err(error),
        // Every attempt conflicted with another process. A later call may succeed.
        Err(conflict @ ExecuteError::Conflict { .. }) => Err(Error::Unavailable(Box::new(conflict))),
        Err(unreadable @ ExecuteError::Unreadable { .. }) => Err(Error::Unreadable(Box::new(unreadable))),
        // The directory uses neither `create` nor `update`, whose errors these would be.
        Err(error) => Err(Error::Internal(Box::new(error))),
    }
}

/// Maps the error of loading an entry of the directory.
fn unloaded(error: LoadError) -> Error {
    match error {
        LoadError::Store(error) => error,
        unreadable => Error::Unreadable(Box::new(unreadable)),
    }
}

fn no_tenant(tenant: &str) -> Invalid {
    Invalid::new("tenant", format!("`{tenant}` is not known: add it first"))
}

#[cfg(test)]
mod tests {
    use annals_core::{CodecError, StreamId, Version};

    use super::*;

    #[test]
    fn an_error_of_the_directory_keeps_its_kind() {
        let stream = StreamId::of("tenant", "acme").unwrap();
        let (expected, actual) = (Version::new(1), Version::new(2));
        let conflict = ExecuteError::Conflict { stream: stream.clone(), expected, actual };
        assert!(matches!(executed::<Tenant>(Err(conflict)), Err(Error::Unavailable(_))));
        let cause = CodecError::UnknownType { event_type: "tenant.renamed".to_owned() };
        let unreadable =
            ExecuteError::Unreadable { stream, version: expected, position: Position::FIRST, cause };
        assert!(matches!(executed::<Tenant>(Err(unreadable)), Err(Error::Unreadable(_))));
    }
}
