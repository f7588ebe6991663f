//! A kind of store of somebody else: named by an address, found in a list, used through the framework.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use annals::backend::{Backend, Backends, OpenOptions, Opened, StatePlace};
use annals::{Annals, Error, Invalid, MemoryStore, Result, StoreUrl};
use async_trait::async_trait;

use crate::bank::{Account, Bank};

/// Stores that stay on a shelf, under their names: `shelf://NAME`. A clone is the same shelf.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<HashMap<String, Arc<MemoryStore>>>>);

#[async_trait]
impl Backend for Shelf {
    fn schemes(&self) -> &'static [&'static str] {
        &["shelf", "board"]
    }

    fn form(&self) -> &'static str {
        "shelf://NAME"
    }

    fn check(&self, url: &StoreUrl) -> Result<(), Invalid> {
        match url.rest() {
            "" | "//" => Err(Invalid::new("store", "names nothing on the shelf")),
            _ => Ok(()),
        }
    }

    async fn open(&self, url: &StoreUrl, options: OpenOptions) -> Result<Opened> {
        let mut shelf = self.0.lock().unwrap();
        if options.existing && !shelf.contains_key(url.rest()) {
            return Err(Error::NoStore(format!("{url} is not on the shelf").into()));
        }
        Ok(Opened::new(shelf.entry(url.rest().to_owned()).or_default().clone()))
    }

    fn state(&self, _: &StoreUrl) -> StatePlace {
        StatePlace::Memory
    }
}

fn shelf() -> Backends {
    Backends::new([Arc::new(Shelf::default()) as Arc<dyn Backend>])
}

#[tokio::test]
async fn a_store_of_a_list_of_one_is_appended_to_and_read() {
    let backends = shelf();
    let annals = Annals::open_with("shelf://bank", &backends).await.unwrap();
    let accounts = annals.repository::<Account>();
    accounts.execute("a1", Bank::Open("kim")).await.unwrap();
    accounts.execute("a1", Bank::Deposit(70)).await.unwrap();
    annals.shutdown().await;

    // Under its other scheme, by another system.
    let annals = Annals::open_with("board://bank", &backends).await.unwrap();
    assert_eq!(annals.repository::<Account>().load("a1").await.unwrap().state.balance, 70);
    annals.shutdown().await;

    let to_read = OpenOptions { existing: true, ..OpenOptions::default() };
    let store = backends.open(&backends.parse("shelf://bank").unwrap(), to_read.clone()).await.unwrap();
    assert_eq!(store.head().await.unwrap().get(), 2);
    let none = backends.open(&backends.parse("shelf://none").unwrap(), to_read).await.err().unwrap();
    assert!(matches!(none, Error::NoStore(_)), "{none:?}");
}

#[tokio::test]
async fn an_address_of_no_kind_of_the_list_is_refused_with_the_list() {
    let refused = async |url: &str| Annals::open_with(url, &shelf()).await.err().unwrap().to_string();
    let listed = "`memory:` is not a kind of store; write `shelf://NAME`";
    assert!(refused("memory:").await.contains(listed), "{}", refused("memory:").await);
    assert!(refused("shelf://").await.contains("names nothing on the shelf"));
    let url: StoreUrl = "shelf://kim:s3cret@bank".parse().unwrap();
    let error = annals::open_store(&url).await.err().unwrap().to_string();
    assert!(error.contains("`shelf:` is not a kind of store; write `memory:`, `file:DIRECTORY`"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn a_kind_that_is_added_takes_a_scheme_over() {
    /// All that is in memory is on the shelf.
    struct Kept(Shelf);

    #[async_trait]
    impl Backend for Kept {
        fn schemes(&self) -> &'static [&'static str] {
            &["memory"]
        }
        fn form(&self) -> &'static str {
            "memory:NAME"
        }
        async fn open(&self, url: &StoreUrl, options: OpenOptions) -> Result<Opened> {
            self.0.open(url, options).await
        }
        fn state(&self, url: &StoreUrl) -> StatePlace {
            self.0.state(url)
        }
    }

    let backends = Backends::default().with(Arc::new(Kept(Shelf::default())));
    for deposits in 1..=2 {
        let annals = Annals::open_with("memory:kept", &backends).await.unwrap();
        let accounts = annals.repository::<Account>();
        if deposits == 1 {
            accounts.execute("a1", Bank::Open("kim")).await.unwrap();
        }
        accounts.execute("a1", Bank::Deposit(1)).await.unwrap();
        assert_eq!(accounts.load("a1").await.unwrap().state.balance, deposits);
        annals.shutdown().await;
    }
}

/// Counts nothing: for what a projection may be on such a store.
struct Idle;

impl annals::Projection for Idle {
    const NAME: &'static str = "idle";
    const SCHEMA: &'static str = "CREATE TABLE idle (a INTEGER)";
    type Event = crate::bank::AccountEvent;

    fn apply(
        &self,
        _: &annals::Recorded<Self::Event>,
        _: &annals::Tx<'_>,
    ) -> Result<(), annals::HandlerError> {
        Ok(())
    }
}

#[tokio::test]
async fn what_a_kind_of_store_cannot_do_is_refused_with_the_reason() {
    let backends = Backends::default().with(Arc::new(Shelf::default()));
    let annals = Annals::open_with("shelf://bank", &backends).await.unwrap();
    let refused = annals.project(Idle).inline().start().await.unwrap_err().to_string();
    assert!(refused.contains("`idle` cannot be inline") && refused.contains("start it without"), "{refused}");
    annals.project(Idle).start().await.unwrap();

    let refused = annals::State::database_with("shelf://bank", &backends).err().unwrap().to_string();
    assert!(refused.contains("`shelf://bank` is not a database"), "{refused}");

    let tenants = annals::Tenants::with_backends("shelf://directory", backends, str::to_owned).await.unwrap();
    let refused = tenants.add("acme", "shelf://acme").await.unwrap_err().to_string();
    assert!(refused.contains("cannot claim and move its logs"), "{refused}");
    annals.shutdown().await;
}
