//! A kind of store, as what opens stores by their addresses sees it: one trait, which each kind implements,
//! and a list of them is all that knows which kinds there are (`annals::backend::Backends`).
//!
//! - K1  An address is read by the backend that has its scheme, and by nobody else.
//! - K2  What only some kinds can do is an `Option`: the caller finds out before anything is begun.
//!
//! What a kind can do beside that (the embedded store: backup, repair, receipts) is the crate of that kind.

use std::path::PathBuf;
use std::sync::Arc;

use annals_core::{Clock, Error, EventStore, Invalid, Position, Result, StoreId, StoreUrl, SystemClock};
use async_trait::async_trait;

use crate::{Claim, Inlines, Sessions};

/// A kind of store.
///
/// ```
/// use std::sync::Arc;
///
/// use annals_core::{Limits, MemoryStore, Result, StoreUrl};
/// use annals_state::{Backend, OpenOptions, Opened, StatePlace};
///
/// /// Every address is a new store in memory.
/// struct Scratch;
///
/// #[async_trait::async_trait]
/// impl Backend for Scratch {
///     fn schemes(&self) -> &'static [&'static str] {
///         &["scratch"]
///     }
///     fn form(&self) -> &'static str {
///         "scratch://NAME"
///     }
///     async fn open(&self, _: &StoreUrl, options: OpenOptions) -> Result<Opened> {
///         Ok(Opened::new(Arc::new(MemoryStore::with(Limits::default(), options.clock))))
///     }
///     fn state(&self, _: &StoreUrl) -> StatePlace {
///         StatePlace::Memory
///     }
/// }
/// ```
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The schemes of its addresses, the usual one first.
    fn schemes(&self) -> &'static [&'static str];

    /// How an address of it is written, for messages: `postgres://USER@HOST/DATABASE`.
    fn form(&self) -> &'static str;

    /// Checks an address without opening anything. Called before every other method with it.
    ///
    /// # Errors
    /// What is wrong with it, without a password that may be in it.
    fn check(&self, _url: &StoreUrl) -> Result<(), Invalid> {
        Ok(())
    }

    /// Opens the store with this address, on the runtime that it is used on; creates it if need be and
    /// [`OpenOptions::existing`] does not say otherwise.
    ///
    /// # Errors
    /// As the store says; [`NoStore`](annals_core::Error::NoStore) if it must be there and is not.
    async fn open(&self, url: &StoreUrl, options: OpenOptions) -> Result<Opened>;

    /// Where the state beside the store with this address is kept, unless the caller keeps it elsewhere.
    fn state(&self, url: &StoreUrl) -> StatePlace;

    /// How its logs move from one place to another, if they can.
    fn relocation(&self) -> Option<&dyn Relocation> {
        None
    }

    /// What keeps its logs in order, if that can be done by their addresses alone.
    fn maintenance(&self) -> Option<&dyn Maintenance> {
        None
    }
}

/// How a store is opened.
#[derive(Clone)]
pub struct OpenOptions {
    /// Where recorded times come from.
    pub clock: Arc<dyn Clock>,
    /// Only to read: one that is not there is not created, and nothing of it is brought up to date.
    pub existing: bool,
}

impl Default for OpenOptions {
    /// Times of the system's clock; creates what is missing.
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), existing: false }
    }
}

/// A store that is open.
#[non_exhaustive]
pub struct Opened {
    /// The store.
    pub store: Arc<dyn EventStore>,
    /// The projections that take events in the transaction of their append, if the store can do that.
    pub inlines: Option<Inlines>,
}

impl Opened {
    /// A store without inline projections.
    pub fn new(store: Arc<dyn EventStore>) -> Self {
        Self { store, inlines: None }
    }

    /// Its appends take these projections with them.
    #[must_use]
    pub fn with_inlines(self, inlines: Inlines) -> Self {
        Self { inlines: Some(inlines), ..self }
    }
}

/// Where the state beside a log is kept.
#[derive(Clone)]
pub enum StatePlace {
    /// In memory: it ends with the process.
    Memory,
    /// In SQLite files in this directory.
    Directory(PathBuf),
    /// In a database. Connects to nothing; called on the runtime that the state is used on.
    Database(OpenSessions),
}

/// Gives sessions of a database with state in it.
pub type OpenSessions = Arc<dyn Fn() -> Result<Arc<dyn Sessions>> + Send + Sync>;

/// How a log moves to another place of the same or of another kind, while it is in use. Moves of one log have
/// numbers that rise: a place ignores one that a newer one has overtaken.
#[async_trait]
pub trait Relocation: Send + Sync {
    /// Claims the place with this address for a tenant, or for a directory of tenants; makes the log there if
    /// need be. A claim that is there stays.
    ///
    /// # Errors
    /// [`Invalid`](annals_core::Error::Invalid) if the place is somebody else's ([`Claim::decide`]); as the
    /// store says.
    async fn claim(&self, url: &StoreUrl, claim: Claim<'_>) -> Result<()>;

    /// Makes the log with this address if need be, and gives it this identity if it has no event yet. Until
    /// its fence is gone it takes no appends but those of [`open_moving`](Self::open_moving).
    ///
    /// # Errors
    /// [`Invalid`](annals_core::Error::Invalid) if another log is there already, or a newer move has begun;
    /// as the store says.
    async fn adopt(&self, url: &StoreUrl, id: StoreId, number: u64) -> Result<()>;

    /// From now on the log with this address takes no appends, or takes them again. Returns its head. No
    /// append that was under way is committed behind it.
    ///
    /// # Errors
    /// [`Invalid`](annals_core::Error::Invalid) if a newer move has begun; as the store says.
    async fn fence(&self, url: &StoreUrl, fenced: bool, number: u64) -> Result<Position>;

    /// Whether the log with this address takes no appends, because it has moved or is at the last step of a
    /// move.
    ///
    /// # Errors
    /// As the store says.
    async fn is_fenced(&self, url: &StoreUrl) -> Result<bool>;

    /// Whether an append was refused, and not written, because its log is fenced.
    fn has_moved(&self, error: &Error) -> bool;

    /// Opens a log that moves, or the copy of it, which takes appends although it is fenced. It is not read
    /// from a replica.
    ///
    /// # Errors
    /// As [`Backend::open`].
    async fn open_moving(&self, url: &StoreUrl, clock: Arc<dyn Clock>) -> Result<Arc<dyn EventStore>>;
}

/// What keeps a log in order, given its address.
#[async_trait]
pub trait Maintenance: Send + Sync {
    /// Brings the log with this address, with its indexes over all events, to the newest form. Returns how
    /// many steps were missing.
    ///
    /// # Errors
    /// [`Invalid`](annals_core::Error::Invalid) if it is newer than this version; as the store says.
    async fn migrate(&self, url: &StoreUrl) -> Result<usize>;
}
