//! From an address to a store, of the kinds that this build has.

use std::sync::Arc;

use annals_core::{Clock, EventStore, Result, StoreUrl};

use crate::backend::{Backends, OpenOptions};

/// Opens the store with this address; creates it if need be.
///
/// # Errors
/// [`Invalid`](annals_core::Error::Invalid) if this build has no such store; else as the store says.
pub async fn open_store(url: &StoreUrl) -> Result<Arc<dyn EventStore>> {
    Backends::default().open(url, OpenOptions::default()).await
}

/// The same with a clock, from which the store takes the times that it records.
///
/// # Errors
/// As [`open_store`].
pub async fn open_store_with(url: &StoreUrl, clock: Arc<dyn Clock>) -> Result<Arc<dyn EventStore>> {
    Backends::default().open(url, OpenOptions { clock, ..OpenOptions::default() }).await
}

/// Opens the store with this address to read it: one that is not there is not created, for its name is a mistake. A store
/// in files is opened also where nothing can be written.
///
/// # Errors
/// As [`open_store`]; [`NoStore`](annals_core::Error::NoStore) if there is none.
pub async fn open_store_to_read(url: &StoreUrl) -> Result<Arc<dyn EventStore>> {
    Backends::default().open(url, OpenOptions { existing: true, ..OpenOptions::default() }).await
}
