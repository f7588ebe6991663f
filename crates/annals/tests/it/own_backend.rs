//! A kind of store of somebody else: named by an address, found in a list, used through the framework.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use annals::backend::{Backend, Backends, OpenOptions, Opened, StatePlace};
use annals::{Annals, Error, Invalid, MemoryStore, Result, StoreUrl};
use async_trait::async_trait;

use crate::bank::{Account, Bank};

/// Stores that stay on a shelf of this process, under their names: `shelf://NAME`.
#[derive(Default)]
struct Shelf(Mutex<Option<HashMap<String, Arc<MemoryStore>>>>);

/// The only one, which a list can hold.
static SHELF: Shelf = Shelf(Mutex::new(None));

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
        let shelf = shelf.get_or_insert_default();
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
    let only: &'static dyn Backend = &SHELF;
    Backends::new([only])
}

#[tokio::test]
async fn a_store_of_a_list_of_one_is_appended_to_and_read() {
    let annals = Annals::open_with("shelf://bank", &shelf()).await.unwrap();
    let accounts = annals.repository::<Account>();
    accounts.execute("a1", Bank::Open("kim")).await.unwrap();
    accounts.execute("a1", Bank::Deposit(70)).await.unwrap();
    annals.shutdown().await;

    // Under its other scheme, by another system.
    let annals = Annals::open_with("board://bank", &shelf()).await.unwrap();
    assert_eq!(annals.repository::<Account>().load("a1").await.unwrap().state.balance, 70);
    annals.shutdown().await;

    let backends = shelf();
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
    struct Kept;

    #[async_trait]
    impl Backend for Kept {
        fn schemes(&self) -> &'static [&'static str] {
            &["memory"]
        }
        fn form(&self) -> &'static str {
            "memory:NAME"
        }
        async fn open(&self, url: &StoreUrl, options: OpenOptions) -> Result<Opened> {
            SHELF.open(url, options).await
        }
        fn state(&self, url: &StoreUrl) -> StatePlace {
            SHELF.state(url)
        }
    }

    let backends = Backends::default().with(&Kept);
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
