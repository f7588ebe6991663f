//! Opens a store by its address, of the kinds in this build.

use std::sync::Arc;

use annals_core::{Clock, EventStore, Result, StoreUrl};

use crate::backend::{Backends, OpenOptions};

/// Opens the store with this address; creates it if necessary.
///
/// # Errors
/// [`Invalid`](annals_core::Error::Invalid) if this build has no such kind of store; otherwise as the store
/// returns.
pub async fn open_store(url: &StoreUrl) -> Result<Arc<dyn EventStore>> {
    Backends::default().open(url, OpenOptions::default()).await
}

/// As [`open_store`], with the clock for recorded times.
///
/// # Errors
/// As [`open_store`].
pub async fn open_store_with(url: &StoreUrl, clock: Arc<dyn Clock>) -> Result<Arc<dyn EventStore>> {
    Backends::default().open(url, OpenOptions { clock, ..OpenOptions::default() }).await
}

/// Opens the store with this address to read it. A missing store is not created, because its address is
/// probably a mistake. A store in files can be opened on a read-only medium too.
///
/// # Errors
/// As [`open_store`]; [`NoStore`](annals_core::Error::NoStore) if there is none.
pub async fn open_store_to_read(url: &StoreUrl) -> Result<Arc<dyn EventStore>> {
    Backends::default().open(url, OpenOptions { existing: true, ..OpenOptions::default() }).await
}
