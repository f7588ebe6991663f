//! A kind of store of somebody else that is a database underneath: inline projections, state, tenants and
//! maintenance go through it as through a built-in one.

use std::sync::Arc;

use annals::backend::{Backend, Backends, Maintenance, OpenOptions, Opened, Relocation, StatePlace};
use annals::{
    Annals, Append, Clock, Error, EventStore, EventStoreExt as _, Expected, NewEvent, Phase, Position, Query,
    Result, State, StoreId, StoreUrl, StreamId, Tenants,
};
use annals_testservers::place::Place;
use async_trait::async_trait;

use crate::databases::counter::{QUICKLY, Sums, increase, sum, until};

annals_testservers::on_each_database! {
    rows_are_written_with_the_append_of_a_kind_of_ones_own,
    a_tenant_of_a_custom_backend_moves,
    a_log_of_a_custom_backend_is_migrated,
}

/// The built-in kind of store of an address, under another scheme: `own+postgres://…`.
struct Own(Arc<dyn Backend>);

/// The address that the built-in kind reads.
fn inner(url: &StoreUrl) -> StoreUrl {
    url.expose().strip_prefix("own+").unwrap().parse().unwrap()
}

#[async_trait]
impl Backend for Own {
    fn schemes(&self) -> &'static [&'static str] {
        &["own+postgres", "own+mysql"]
    }
    fn form(&self) -> &'static str {
        "own+postgres://USER@HOST/DATABASE"
    }
    async fn open(&self, url: &StoreUrl, options: OpenOptions) -> Result<Opened> {
        self.0.open(&inner(url), options).await
    }
    fn state(&self, url: &StoreUrl) -> StatePlace {
        self.0.state(&inner(url))
    }
    fn relocation(&self) -> Option<&dyn Relocation> {
        Some(self)
    }
    fn maintenance(&self) -> Option<&dyn Maintenance> {
        Some(self)
    }
}

#[async_trait]
impl Maintenance for Own {
    async fn migrate(&self, url: &StoreUrl) -> Result<usize> {
        self.0.maintenance().unwrap().migrate(&inner(url)).await
    }
}

#[async_trait]
impl Relocation for Own {
    async fn claim(&self, url: &StoreUrl, claim: annals::backend::Claim<'_>) -> Result<()> {
        self.0.relocation().unwrap().claim(&inner(url), claim).await
    }
    async fn adopt(&self, url: &StoreUrl, id: StoreId, number: u64) -> Result<()> {
        self.0.relocation().unwrap().adopt(&inner(url), id, number).await
    }
    async fn fence(&self, url: &StoreUrl, fenced: bool, number: u64) -> Result<Position> {
        self.0.relocation().unwrap().fence(&inner(url), fenced, number).await
    }
    async fn is_fenced(&self, url: &StoreUrl) -> Result<bool> {
        self.0.relocation().unwrap().is_fenced(&inner(url)).await
    }
    fn has_moved(&self, error: &Error) -> bool {
        self.0.relocation().unwrap().has_moved(error)
    }
    async fn open_moving(&self, url: &StoreUrl, clock: Arc<dyn Clock>) -> Result<Arc<dyn EventStore>> {
        self.0.relocation().unwrap().open_moving(&inner(url), clock).await
    }
}

/// Only this kind, and the address of the place in it.
fn own(place: &Place) -> (Backends, String) {
    let built_in = Backends::default().find(&place.url.parse().unwrap()).unwrap();
    (Backends::new([Arc::new(Own(built_in)) as Arc<dyn Backend>]), format!("own+{}", place.url))
}

async fn rows_are_written_with_the_append_of_a_kind_of_ones_own(place: Place) {
    let (backends, url) = own(&place);
    let annals = Annals::open_with(&url, &backends).await.unwrap();
    annals.project(Sums::<1>::default()).retry(QUICKLY).inline().start().await.unwrap();
    until(&annals, "sums", |status| status.phase == Phase::Live).await;
    let mut beside = place.beside().await;
    for number in 1..=10 {
        increase(&annals, "a", 1).await;
        let rows = beside.number(&format!("SELECT events FROM {}$sums_v1.sums", place.name)).await;
        assert_eq!(rows, number, "seen by others without waiting");
    }
    annals.settle().await.unwrap();
    assert_eq!(sum::<1>(&annals, "a", Position::new(10)).await, Some((10, 10)));
}

async fn a_tenant_of_a_custom_backend_moves(place: Place) {
    let (one, two) = (own(&place.another().await).1, own(&place.another().await).1);
    let state = own(&place.another().await).1;
    let (backends, directory) = own(&place);
    let tenants = Tenants::with_backends(&directory, backends.clone(), str::to_owned).await.unwrap();
    tenants.add("acme", &one).await.unwrap();
    let log = tenants.log("acme").await.unwrap();
    let state = State::database_with(&state, &backends).unwrap();
    let annals = Annals::with_store(log.clone(), state).await.unwrap();
    increase(&annals, "a", 1).await;
    tenants.move_to("acme", &two, |_| {}).await.unwrap();
    increase(&annals, "a", 2).await;
    assert_eq!(log.log_events(Query::all()).await.unwrap().len(), 2);
    let old = backends.open(&one.parse().unwrap(), OpenOptions::default()).await.unwrap();
    let event = NewEvent::new("thing.done", "{}").unwrap();
    let late = Append::to(StreamId::new("thing-1").unwrap(), Expected::Any, [event]);
    let refused = old.append(late).await.unwrap_err();
    assert!(refused.chain().contains("has moved"), "{}", refused.chain());
    // The built-in kinds are not in the list.
    let refused = tenants.move_to("acme", &place.url, |_| {}).await.unwrap_err().to_string();
    assert!(refused.contains("is not a kind of store; write `own+postgres://"), "{refused}");
}

async fn a_log_of_a_custom_backend_is_migrated(place: Place) {
    let (backends, url) = own(&place);
    let url = backends.parse(&url).unwrap();
    let backend = backends.find(&url).unwrap();
    backend.maintenance().unwrap().migrate(&url).await.unwrap();
    assert_eq!(backend.maintenance().unwrap().migrate(&url).await.unwrap(), 0);
}
