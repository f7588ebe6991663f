//! How the backends on databases open a log: the primary, and the replica if the address names one.

use std::sync::Arc;

use annals_core::{EventStore, Result, StoreUrl};
use annals_state::{Inlines, Opened};

use crate::{OpenReplica, Replicated, split_replica};

/// Opens the log with this address, read from the replica if the address names one. `open` gets an address,
/// and whether it is the replica's.
///
/// # Errors
/// As `open`; `Invalid` if the replica has another log, or no address can be made of its name.
pub async fn open_replicated<S: EventStore, O: Future<Output = Result<S>> + Send + 'static>(
    url: &StoreUrl,
    inlines: fn(&S) -> &Inlines,
    open: impl Fn(String, bool) -> O + Send + Sync + 'static,
) -> Result<Opened> {
    let (primary, replica) = split_replica(url.expose())?;
    let store = open(primary, false).await?;
    let inlines = inlines(&store).clone();
    let mut store: Arc<dyn EventStore> = Arc::new(store);
    if let Some(replica) = replica {
        let open: OpenReplica = Arc::new(move || {
            let opening = open(replica.clone(), true);
            Box::pin(async move { Ok(Arc::new(opening.await?) as Arc<dyn EventStore>) })
        });
        store = Arc::new(Replicated::open(store, open).await?);
    }
    Ok(Opened::new(store).with_inlines(inlines))
}
