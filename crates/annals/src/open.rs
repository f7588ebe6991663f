//! From a URL to a store: the only place that knows which stores there are.
//!
//! Everything else sees `Arc<dyn EventStore>`.

use std::sync::Arc;

use annals_core::{Clock, EventStore, Limits, MemoryStore, Result, StoreUrl, SystemClock};

use crate::State;

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
    match url {
        StoreUrl::Memory => Ok(Arc::new(MemoryStore::with(Limits::default(), clock))),
        #[cfg(feature = "embedded")]
        StoreUrl::File(directory) => {
            use annals_engine::{EngineStore, Options};
            let directory = directory.clone();
            let open = move || EngineStore::open(directory, Options { clock, ..Options::default() });
            match tokio::task::spawn_blocking(open).await {
                Ok(store) => Ok(Arc::new(store?)),
                Err(stopped) => Err(annals_core::Error::Unavailable(Box::new(stopped))),
            }
        }
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(url) => {
            use annals_postgres::{Options, PostgresStore};
            let options = Options { clock, ..Options::default() };
            Ok(Arc::new(PostgresStore::open(url.expose(), options).await?))
        }
        #[cfg(feature = "mysql")]
        StoreUrl::MySql(url) => {
            use annals_mysql::{MySqlStore, Options};
            let options = Options { clock, ..Options::default() };
            Ok(Arc::new(MySqlStore::open(url.expose(), options).await?))
        }
        #[allow(unreachable_patterns)] // Which kinds are left depends on the features.
        other => {
            let problem =
                format!("`{other}` is of a kind that this build does not have; see the features of `annals`");
            Err(annals_core::Invalid::new("store", problem).into())
        }
    }
}

/// Where the state beside the store with this address is kept.
pub(crate) fn state_of(url: &StoreUrl) -> State {
    match url {
        StoreUrl::File(directory) => State::directory(directory),
        StoreUrl::Memory => State::memory(),
        database => {
            // What it means to lose them is for the service to judge: subscribers begin anew.
            tracing::warn!(
                "snapshots, checkpoints and read models of {database} end with the process; \
                 give `Annals::with_store` a directory to keep them in"
            );
            State::memory()
        }
    }
}
