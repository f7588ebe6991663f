//! Tenants: a log for each, spread over databases, and moved from one to another while it is in use.
//!
//! Where a tenant's log is stands in a log of its own, the *directory*. Moving a log is four steps, each of which can be
//! repeated: the directory says that it moves; what is there is copied, while the old place takes appends; the old place is
//! fenced, and takes no more; the rest is copied, and the directory says that it has moved. Appends wait from the third step
//! to the fourth, and are then written at the new place.
//!
//! - V1  The fence is set under the lock under which appends commit. So nothing is appended to the old place behind what is
//!       copied, also by a process that still has it open. The new place is fenced until it has everything.
//! - V2  The copy has the identity of the log and every event as it was: positions, versions, times, keys. Checkpoints
//!       hold, and an append that is sent again is known.
//! - V3  A process that stops in the middle loses nothing: the move is begun again and continues where it was.
//! - V4  A move has a number, by the directory. A place heeds no move that is older than another that it has heard of, so
//!       one that was held up in the middle, and overtaken, opens and closes nothing.
//! - V5  A directory may lose its newest events (a restore, a failover). What was said since is heard all the same, and a log that
//!       is open is not led back to a place that lacks events that it had.
//! - V6  A place says itself whose it is (`annals_state::Claim`): no two tenants get one log, however its address is written and
//!       whichever directory gives it away.
//!
//! The files: `log_place` (an address, and the kind of store that it names), `route` (what the directory says), `routed` (a log that is followed), `copy` (the events).

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

/// When to try again to follow a log whose new place does not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// The tenants of a service, and where their logs are. A clone is the same. Keep it as long as the logs that it has handed out:
/// without it they follow no move.
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

/// How far a move has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveProgress {
    /// Events that are at the new place.
    pub copied: Position,
    /// Events that there are.
    pub head: Position,
    /// Whether appends wait.
    pub fenced: bool,
}

impl Tenants {
    /// Opens the directory with this address, which is a log like any other; creates it if need be.
    ///
    /// # Errors
    /// As [`Annals::open`].
    pub async fn open(url: &str) -> Result<Self> {
        Self::with_addresses(url, str::to_owned).await
    }

    /// The same with what makes an address of what the directory says: passwords do not belong into a log.
    ///
    /// # Errors
    /// As [`Annals::open`].
    pub async fn with_addresses(
        url: &str,
        addresses: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::with_backends(url, Backends::default(), addresses).await
    }

    /// The same with other kinds of store, such as one of your own: it needs a [`Relocation`](crate::backend::Relocation).
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
        // A tenant's log is no directory, and this place is no tenant's from now on. Where no tenant can be, none needs to know.
        if let Some(relocation) = place.backend.relocation() {
            let claim = Claim { directory: log.id(), tenant: "", known: true, moving: None };
            relocation.claim(&place.url, claim).await?;
        }
        // Before any log is opened: no move of one is missed.
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

    /// Makes a log for a new tenant in the database with this address. There must be none, or one without events that no
    /// tenant has.
    ///
    /// # Errors
    /// `Invalid` if there is such a tenant already, elsewhere, if the place is another tenant's, the directory's or has a log
    /// with events, or if the address is no database's or has a password in it; as [`Annals::open`].
    pub async fn add(&self, tenant: &str, url: &str) -> Result<()> {
        self.shared.check(url)?;
        // Claimed, and made, before it is known: the first who asks for it finds it. A tenant that is elsewhere is refused
        // below.
        let at = self.place(tenant).await?;
        if at.as_ref().is_none_or(|at| at == url) {
            self.shared.claim(url, tenant, at.is_some(), None).await?;
        }
        self.shared.say(tenant, Move::Place { at: url.to_owned() }).await
    }

    /// The log of a tenant. It stays the same wherever it is moved to. It is kept open, with its connections, as long as
    /// this.
    ///
    /// # Errors
    /// `Invalid` if there is no such tenant; as [`Annals::open`].
    pub async fn log(&self, tenant: &str) -> Result<Arc<dyn EventStore>> {
        if let Some(routed) = self.shared.open.lock().get(tenant) {
            return Ok(routed.clone());
        }
        let at = self.shared.place_of(tenant).await?;
        // An earlier version gave places away by their addresses alone.
        self.shared.claim(&at, tenant, true, None).await?;
        let here = self.shared.here(at).await?;
        let routed = Arc::new(RoutedStore::new(tenant, here, Arc::downgrade(&self.shared)));
        let routed = self.shared.open.lock().entry(tenant.to_owned()).or_insert(routed).clone();
        // It may have moved while it was opened, before there was anybody to follow.
        routed.follow().await?;
        Ok(routed)
    }

    /// Where the log of a tenant is; `None` if there is no such tenant.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub async fn place(&self, tenant: &str) -> Result<Option<String>> {
        Ok(self.shared.load(tenant).await?.state.at)
    }

    /// Moves the log of a tenant to the database with this address, which must have no log yet, or an older state of this
    /// one. Appends go on all the while but for a moment. To go on with a move that was broken off, call it again; to call it
    /// off, move the log to where it is.
    ///
    /// The old place keeps its events and takes no appends; remove it when you like. State beside the log does not move: keep
    /// that of a log that may move elsewhere ([`State::database`](crate::State::database)).
    ///
    /// # Errors
    /// `Invalid` if there is no such tenant, it is being moved to another place, there is another log, or another move has
    /// begun meanwhile; `Unavailable` if a database is away. Nothing is lost: the move can be begun again.
    pub async fn move_to(
        &self,
        tenant: &str,
        url: &str,
        mut told: impl FnMut(MoveProgress) + Send,
    ) -> Result<()> {
        self.shared.check(url)?;
        let Tenant { at, to } = self.shared.load(tenant).await?.state;
        if let (Some(at), Some(to)) = (&at, &to)
            && at == url
            && to != url
        {
            self.shared.may_be_called_off(at, to).await?;
        }
        // A place that is refused begins no move. One that is not reached does, as it may be reached when the move is resumed.
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
        // What stands there now is what counts, and its version is the number of the move.
        let Loaded { state: Tenant { at, to }, version, .. } = self.shared.load(tenant).await?;
        let at = at.ok_or_else(|| no_tenant(tenant))?;
        match to {
            None if at == url => return Ok(()),
            Some(to) if to == url => {}
            _ => return Err(Invalid::new("tenant", "was moved by somebody else meanwhile").into()),
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
        copy::copy(&*source, &*target, head, |copied| told(MoveProgress { copied, head, fenced: false }))
            .await?;
        let head = from.fence(&old.url, true, number).await?;
        copy::copy(&*source, &*target, head, |copied| told(MoveProgress { copied, head, fenced: true }))
            .await?;
        // From now on it is the log, although not everybody knows yet.
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
        said(self.directory.repository::<Tenant>().execute(tenant, command).await)
    }

    /// Claims the place for this tenant, whose it stays; makes the log there, if need be.
    async fn claim(&self, place: &str, tenant: &str, known: bool, moving: Option<StoreId>) -> Result<()> {
        // What an earlier version noted in the directory. It left nothing at the place.
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

    /// Claims the place that a log is to be moved to. Returns the log, to be copied.
    async fn claim_new(&self, at: &str, place: &str, tenant: &str) -> Result<Arc<dyn EventStore>> {
        self.claim(at, tenant, true, None).await?;
        let from = self.address(at)?;
        let source = from.relocation()?.open_moving(&from.url, Arc::new(Unbounded)).await?;
        self.claim(place, tenant, false, Some(source.id())).await?;
        Ok(source)
    }

    /// Refuses to call a move off if what was appended at the new place would be lost: the move was finished, and the directory
    /// has lost that. A place that is not reached, or has another log, may be the reason for calling it off, if the old place
    /// is not fenced: then nothing was ever appended there.
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
            "cannot stay at {at}: {to} has events of its log that are not there, so the move was finished, and the directory has \
             lost that. Move it to {to} again"
        );
        Err(Invalid::new("tenant", problem).into())
    }

    /// Refuses an address that the directory cannot keep: one that is not shown as it is written.
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

    /// The log at this place, for who follows it.
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

/// Hears of moves, and has the logs that are open follow.
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
                let tenant = event.stream.as_str().strip_prefix("tenant-").unwrap_or_default();
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

/// Has one log follow, also if the directory or the new place is away for a while; the others do not wait for it.
async fn follow_one(tenant: String, routed: Weak<RoutedStore>) {
    while let Some(routed) = routed.upgrade() {
        let Err(error) = routed.follow().await else { return };
        drop(routed);
        tracing::warn!(tenant, error = error.chain(), "a log that has moved is not followed yet");
        tokio::time::sleep(AGAIN).await;
    }
}

fn said<A: Aggregate>(answer: Result<Committed<A>, ExecuteError<NoRoute>>) -> Result<()> {
    match answer {
        Ok(_) => Ok(()),
        Err(ExecuteError::Rejected(NoRoute(problem))) => Err(Invalid::new("tenant", problem).into()),
        Err(ExecuteError::Store(error)) => Err(error),
        // What the directory decides on is not there, or is there already: it takes no such command.
        Err(error) => Err(Error::Internal(Box::new(error))),
    }
}

/// Why an entry of the directory is not there.
fn unloaded(error: LoadError) -> Error {
    match error {
        LoadError::Store(error) => error,
        unreadable => Error::Unreadable(Box::new(unreadable)),
    }
}

fn no_tenant(tenant: &str) -> Invalid {
    Invalid::new("tenant", format!("`{tenant}` is not known: add it first"))
}
