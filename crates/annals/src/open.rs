//! From a URL to a store: the only place that knows which stores there are.
//!
//! Everything else sees `Arc<dyn EventStore>`.

use std::sync::Arc;

#[cfg(any(feature = "postgres", feature = "mysql"))]
use annals_core::DatabaseUrl;
use annals_core::{Clock, EventStore, Limits, MemoryStore, Position, Result, StoreId, StoreUrl, SystemClock};
use annals_sql::{Claim, Inlines};
use annals_state::Sessions;

/// Opens the store with this address; creates it if need be.
///
/// # Errors
/// [`Invalid`](annals_core::Error::Invalid) if this build has no such store; else as the store says.
pub async fn open_store(url: &StoreUrl) -> Result<Arc<dyn EventStore>> {
    open_store_with(url, Arc::new(SystemClock)).await
}

/// The same with a clock, from which the store takes the times that it records.
///
/// # Errors
/// As [`open_store`].
pub async fn open_store_with(url: &StoreUrl, clock: Arc<dyn Clock>) -> Result<Arc<dyn EventStore>> {
    open(url, clock, false).await
}

/// Opens the store with this address to read it: one that is not there is not created, for its name is a mistake. A store
/// in files is opened also where nothing can be written.
///
/// # Errors
/// As [`open_store`]; [`NoStore`](annals_core::Error::NoStore) if there is none.
pub async fn open_store_to_read(url: &StoreUrl) -> Result<Arc<dyn EventStore>> {
    open(url, Arc::new(SystemClock), true).await
}

async fn open(url: &StoreUrl, clock: Arc<dyn Clock>, existing: bool) -> Result<Arc<dyn EventStore>> {
    match url {
        StoreUrl::Memory => Ok(Arc::new(MemoryStore::with(Limits::default(), clock))),
        #[cfg(feature = "embedded")]
        StoreUrl::File(directory) => {
            use annals_engine::{EngineStore, Options};
            let (directory, options) = (directory.clone(), Options { clock, ..Options::default() });
            let open = move || match existing {
                true => EngineStore::open_to_read(directory, options),
                false => EngineStore::open(directory, options),
            };
            match tokio::task::spawn_blocking(open).await {
                Ok(store) => Ok(Arc::new(store?)),
                Err(stopped) => Err(annals_core::Error::Internal(Box::new(stopped))),
            }
        }
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(url) => Ok(open_postgres(url, clock, existing).await?.0),
        #[cfg(feature = "mysql")]
        StoreUrl::MySql(url) => Ok(open_mysql(url, clock, existing).await?.0),
        #[allow(unreachable_patterns)] // Which kinds are left depends on the features.
        other => Err(unknown("store", other)),
    }
}

#[cfg(feature = "postgres")]
async fn open_postgres(
    url: &DatabaseUrl,
    clock: Arc<dyn Clock>,
    existing: bool,
) -> Result<(Arc<dyn EventStore>, Inlines)> {
    use annals_postgres::{Options, PostgresStore};
    let options = Options { clock, existing, ..Options::default() };
    let open = move |url: String, replica: bool| {
        let options = Options { replica, ..options.clone() };
        async move { PostgresStore::open(&url, options).await }
    };
    open_database(url, PostgresStore::inlines, open).await
}

#[cfg(feature = "mysql")]
async fn open_mysql(
    url: &DatabaseUrl,
    clock: Arc<dyn Clock>,
    existing: bool,
) -> Result<(Arc<dyn EventStore>, Inlines)> {
    use annals_mysql::{MySqlStore, Options};
    let options = Options { clock, existing, ..Options::default() };
    let open = move |url: String, replica: bool| {
        let options = Options { replica, ..options.clone() };
        async move { MySqlStore::open(&url, options).await }
    };
    open_database(url, MySqlStore::inlines, open).await
}

/// Opens a log in a database, read from a replica if the address names one, and says what takes events with an append.
#[cfg(any(feature = "postgres", feature = "mysql"))]
async fn open_database<S: EventStore, O: Future<Output = Result<S>> + Send + 'static>(
    url: &DatabaseUrl,
    inlines: fn(&S) -> &Inlines,
    open: impl Fn(String, bool) -> O + Send + Sync + 'static,
) -> Result<(Arc<dyn EventStore>, Inlines)> {
    let (primary, replica) = annals_sql::split_replica(url.expose())?;
    let store = open(primary, false).await?;
    let inlines = inlines(&store).clone();
    let store: Arc<dyn EventStore> = Arc::new(store);
    let Some(replica) = replica else { return Ok((store, inlines)) };
    let open: annals_sql::OpenReplica = Arc::new(move || {
        let opening = open(replica.clone(), true);
        Box::pin(async move { Ok(Arc::new(opening.await?) as Arc<dyn EventStore>) })
    });
    Ok((Arc::new(annals_sql::Replicated::open(store, open).await?), inlines))
}

/// Opens the store with this address, with what has projections take its events in the transaction of an append, if it can.
pub(crate) async fn open_with_inlines(url: &StoreUrl) -> Result<(Arc<dyn EventStore>, Option<Inlines>)> {
    match url {
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(address) => {
            let (store, inlines) = open_postgres(address, Arc::new(SystemClock), false).await?;
            Ok((store, Some(inlines)))
        }
        #[cfg(feature = "mysql")]
        StoreUrl::MySql(address) => {
            let (store, inlines) = open_mysql(address, Arc::new(SystemClock), false).await?;
            Ok((store, Some(inlines)))
        }
        _ => Ok((open_store(url).await?, None)),
    }
}

/// The database with this address, for state.
pub(crate) fn sessions(url: &StoreUrl) -> Result<Arc<dyn Sessions>> {
    match url {
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(url) => {
            Ok(Arc::new(annals_postgres::PostgresState::at(url.expose(), Default::default())?))
        }
        #[cfg(feature = "mysql")]
        StoreUrl::MySql(url) => Ok(Arc::new(annals_mysql::MySqlState::at(url.expose(), Default::default())?)),
        other => Err(unknown("state", other)),
    }
}

/// Claims the place with this address for a tenant of a directory, or for the directory; makes the log there, if need be. Only
/// databases have such records: a directory that is elsewhere needs none.
pub(crate) async fn claim(url: &StoreUrl, claim: Claim<'_>) -> Result<()> {
    match url {
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(url) => annals_postgres::claim(url.expose(), claim).await,
        #[cfg(feature = "mysql")]
        StoreUrl::MySql(url) => annals_mysql::claim(url.expose(), claim).await,
        StoreUrl::Memory | StoreUrl::File(_) if claim.tenant.is_empty() => Ok(()),
        other => Err(unknown("store", other)),
    }
}

/// Makes the log with this address, if need be, and gives it this identity, if it has no event yet; for the move with this
/// number.
pub(crate) async fn adopt(url: &StoreUrl, id: StoreId, number: u64) -> Result<()> {
    match url {
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(url) => annals_postgres::adopt(url.expose(), id, number).await,
        #[cfg(feature = "mysql")]
        StoreUrl::MySql(url) => annals_mysql::adopt(url.expose(), id, number).await,
        other => {
            let _ = (id, number);
            Err(unknown("store", other))
        }
    }
}

/// Opens a log that moves, or the copy of it, with a clock from which it takes the times. It is not read from a replica.
pub(crate) async fn open_moving(url: &StoreUrl, clock: Arc<dyn Clock>) -> Result<Arc<dyn EventStore>> {
    match url {
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(url) => {
            use annals_postgres::{Options, PostgresStore};
            let options = Options { clock, moving: true, ..Options::default() };
            Ok(Arc::new(PostgresStore::open(url.expose(), options).await?))
        }
        #[cfg(feature = "mysql")]
        StoreUrl::MySql(url) => {
            use annals_mysql::{MySqlStore, Options};
            let options = Options { clock, moving: true, ..Options::default() };
            Ok(Arc::new(MySqlStore::open(url.expose(), options).await?))
        }
        other => {
            let _ = clock;
            Err(unknown("store", other))
        }
    }
}

/// Whether the log with this address takes no appends, because it has moved or is about to.
pub(crate) async fn is_fenced(url: &StoreUrl) -> Result<bool> {
    match url {
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(url) => annals_postgres::is_fenced(url.expose()).await,
        #[cfg(feature = "mysql")]
        StoreUrl::MySql(url) => annals_mysql::is_fenced(url.expose()).await,
        other => Err(unknown("store", other)),
    }
}

/// The log with this address takes no appends any more, or takes them again, for the move with this number. Returns its head.
pub(crate) async fn fence(url: &StoreUrl, moved: bool, number: u64) -> Result<Position> {
    match url {
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(url) => annals_postgres::fence(url.expose(), moved, number).await,
        #[cfg(feature = "mysql")]
        StoreUrl::MySql(url) => annals_mysql::fence(url.expose(), moved, number).await,
        other => {
            let _ = (moved, number);
            Err(unknown("store", other))
        }
    }
}

fn unknown(what: &str, url: &StoreUrl) -> annals_core::Error {
    let problem = format!("`{url}` is of a kind that this build does not have; see the features of `annals`");
    annals_core::Invalid::new(what, problem).into()
}
