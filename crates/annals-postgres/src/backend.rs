//! The PostgreSQL backend of `annals`: stores with addresses `postgres://…`.

use std::sync::Arc;

use annals_core::{Clock, Error, EventStore, Position, Result, StoreId, StoreUrl};
use annals_sql::{has_moved, open_replicated};
use annals_state::{Backend, Claim, Maintenance, OpenOptions, Opened, Relocation, Sessions, StatePlace};
use async_trait::async_trait;

use crate::{Options, PostgresState, PostgresStore, owner, relocation, schema};

/// Logs in PostgreSQL databases: `postgres://USER:PASSWORD@HOST:PORT/DATABASE?schema=SCHEMA`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostgresBackend;

#[async_trait]
impl Backend for PostgresBackend {
    fn schemes(&self) -> &'static [&'static str] {
        &["postgres", "postgresql"]
    }

    fn form(&self) -> &'static str {
        "postgres://USER@HOST/DATABASE"
    }

    async fn open(&self, url: &StoreUrl, options: OpenOptions) -> Result<Opened> {
        let OpenOptions { clock, existing } = options;
        let options = Options { clock, existing, ..Options::default() };
        let open = move |url: String, replica: bool| {
            let options = Options { replica, ..options.clone() };
            async move { PostgresStore::open(&url, options).await }
        };
        open_replicated(url, PostgresStore::inlines, open).await
    }

    fn state(&self, url: &StoreUrl) -> StatePlace {
        let url = url.clone();
        StatePlace::Database(Arc::new(move || {
            let state = PostgresState::at(url.expose(), Options::default())?;
            Ok(Arc::new(state) as Arc<dyn Sessions>)
        }))
    }

    fn relocation(&self) -> Option<&dyn Relocation> {
        Some(self)
    }

    fn maintenance(&self) -> Option<&dyn Maintenance> {
        Some(self)
    }
}

#[async_trait]
impl Relocation for PostgresBackend {
    async fn claim(&self, url: &StoreUrl, claim: Claim<'_>) -> Result<()> {
        owner::claim(url.expose(), claim).await
    }

    async fn adopt(&self, url: &StoreUrl, id: StoreId, number: u64) -> Result<()> {
        relocation::adopt(url.expose(), id, number).await
    }

    async fn fence(&self, url: &StoreUrl, fenced: bool, number: u64) -> Result<Position> {
        relocation::fence(url.expose(), fenced, number).await
    }

    async fn is_fenced(&self, url: &StoreUrl) -> Result<bool> {
        relocation::is_fenced(url.expose()).await
    }

    fn has_moved(&self, error: &Error) -> bool {
        has_moved(error)
    }

    async fn open_moving(&self, url: &StoreUrl, clock: Arc<dyn Clock>) -> Result<Arc<dyn EventStore>> {
        let options = Options { clock, moving: true, ..Options::default() };
        Ok(Arc::new(PostgresStore::open(url.expose(), options).await?))
    }
}

#[async_trait]
impl Maintenance for PostgresBackend {
    async fn migrate(&self, url: &StoreUrl) -> Result<usize> {
        schema::migrate(url.expose()).await
    }
}
