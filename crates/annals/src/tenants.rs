//! Tenants: a log for each, spread over databases, and moved from one to another while it is in use.
//!
//! Where a tenant's log is stands in a log of its own, the *directory*. Moving a log is four steps, each of which can be
//! repeated: the directory says that it moves; what is there is copied, while the old place takes appends; the old place is
//! fenced, and takes no more; the rest is copied, and the directory says that it has moved. Appends wait from the third step
//! to the fourth, and go on at the new place.
//!
//! - V1  The fence is set under the lock under which appends commit. So nothing is appended to the old place behind what is
//!       copied, whoever may still have it open. The new place is fenced until it has everything.
//! - V2  The copy has the identity of the log and every event as it was: positions, versions, times, keys. Checkpoints
//!       hold, and an append that is sent again is known.
//! - V3  Whoever stops in the middle has lost nothing: the move is begun again and goes on where it was.
//! - V4  A move has a number, by the directory. A place heeds no move that is older than another that it has heard of, so
//!       whoever was held up in the middle, and overtaken, opens and closes nothing.
//!
//! The files: `route` (what the directory says), `routed` (a log that is followed), `copy` (the events).

mod copy;
mod route;
mod routed;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use annals_core::{Error, EventStore, Invalid, Position, Query, Result, StoreUrl, Subscription};
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::{Aggregate, Annals, Committed, ExecuteError, Loaded, open};
use copy::Unbounded;
use route::{Move, NoRoute, Place, Take, Tenant};
use routed::Routed;

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
    open: Mutex<HashMap<String, Arc<Routed>>>,
    following: AbortHandle,
}

/// How far a move has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moving {
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
        let directory = Annals::open(url).await?;
        let log = directory.store().clone();
        // Before any log is opened: no move of one is missed.
        let moves = Subscription::new(log.clone(), log.head().await?, Query::all());
        let shared = Arc::new_cyclic(|shared: &Weak<Shared>| Shared {
            following: tokio::spawn(follow(moves, shared.clone())).abort_handle(),
            directory,
            addresses: Box::new(addresses),
            open: Mutex::default(),
        });
        Ok(Self { shared })
    }

    /// Makes a log for a new tenant in the database with this address.
    ///
    /// # Errors
    /// `Invalid` if there is such a tenant already, elsewhere, if the place is another tenant's, or if the address is no
    /// database's or has a password in it; as [`Annals::open`].
    pub async fn add(&self, tenant: &str, url: &str) -> Result<()> {
        check(url)?;
        // Taken, and made, before it is known: whoever asks for it finds it. A tenant that is elsewhere is refused below.
        if self.place(tenant).await?.is_none_or(|at| at == url) {
            self.shared.take(url, tenant).await?;
            self.shared.store(url).await?;
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
        let store = self.shared.store(&at).await?;
        let routed = Arc::new(Routed::new(tenant, at, store, Arc::downgrade(&self.shared)));
        let routed = self.shared.open.lock().entry(tenant.to_owned()).or_insert(routed).clone();
        // It may have moved while it was opened, before there was anybody to follow.
        routed.follow().await?;
        Ok(routed)
    }

    /// Where the log of a tenant is; nothing if there is no such tenant.
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
    pub async fn move_to(&self, tenant: &str, url: &str, mut told: impl FnMut(Moving) + Send) -> Result<()> {
        check(url)?;
        let Tenant { at, to } = self.shared.load(tenant).await?.state;
        // What is refused takes nothing.
        if at.is_some() && to.is_none_or(|to| to == url) {
            self.shared.take(url, tenant).await?;
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
        let source = open::open_moving(&old, Arc::new(Unbounded)).await?;
        open::adopt(&new, source.id(), number).await?;
        let target = open::open_moving(&new, Arc::new(Unbounded)).await?;
        let head = source.head().await?;
        copy::copy(&*source, &*target, head, |copied| told(Moving { copied, head, fenced: false })).await?;
        let head = open::fence(&old, true, number).await?;
        copy::copy(&*source, &*target, head, |copied| told(Moving { copied, head, fenced: true })).await?;
        // From now on it is the log, although not everybody knows yet.
        open::fence(&new, false, number).await?;
        self.shared.say(tenant, Move::Finish { from: at, to: url.to_owned() }).await
    }
}

impl Shared {
    async fn load(&self, tenant: &str) -> Result<Loaded<Tenant>> {
        let loaded = self.directory.repository::<Tenant>().load(tenant).await;
        loaded.map_err(|error| Error::Unavailable(Box::new(error)))
    }

    async fn place_of(&self, tenant: &str) -> Result<String> {
        self.load(tenant).await?.state.at.ok_or_else(|| no_tenant(tenant).into())
    }

    async fn say(&self, tenant: &str, command: Move) -> Result<()> {
        said(self.directory.repository::<Tenant>().execute(tenant, command).await)
    }

    /// Takes the place for this tenant, whose it stays.
    async fn take(&self, place: &str, tenant: &str) -> Result<()> {
        said(self.directory.repository::<Place>().execute(place, Take(tenant.to_owned())).await)
    }

    fn address(&self, place: &str) -> Result<StoreUrl> {
        Ok((self.addresses)(place).parse()?)
    }

    async fn store(&self, place: &str) -> Result<Arc<dyn EventStore>> {
        open::open_store(&self.address(place)?).await
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
        let heard = moves.next().await;
        let Some(shared) = shared.upgrade() else { return };
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
async fn follow_one(tenant: String, routed: Weak<Routed>) {
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
        Err(error) => Err(Error::Unavailable(Box::new(error))),
    }
}

fn no_tenant(tenant: &str) -> Invalid {
    Invalid::new("tenant", format!("`{tenant}` is not known: add it first"))
}

/// An address that can stand in a log.
fn check(url: &str) -> Result<(), Invalid> {
    let authority = url.split_once("://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    if user.contains(':') {
        let problem = "has a password in it, and the directory keeps what it is told for ever: leave it out, and put it in \
                       with `Tenants::with_addresses`";
        return Err(Invalid::new("store", problem));
    }
    match url.parse()? {
        StoreUrl::Postgres(_) | StoreUrl::MySql(_) => Ok(()),
        _ => Err(Invalid::new("store", format!("`{url}` is no database; tenants are in databases"))),
    }
}
