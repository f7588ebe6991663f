//! The domain of the tests: accounts that are opened, hold money, and can be blocked.

use std::sync::Arc;

use annals::{
    Aggregate, Annals, Context, Decide, Decision, Event, EventStore, HandlerError, MemoryStore, Projection,
    Recorded, Snapshot, State, Status, Tx, emit, no_events, reject,
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(prefix = "account")]
pub enum AccountEvent {
    Opened { owner: String },
    Deposited { amount: u64 },
    Withdrawn { amount: u64 },
    Blocked { reason: String },
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Account {
    pub open: bool,
    pub balance: u64,
    pub blocked: bool,
    /// How many events were folded, so that a test sees one that is applied twice or not at all.
    pub folded: u64,
}

#[derive(Clone, Debug)]
pub enum Bank {
    Open(&'static str),
    Deposit(u64),
    Withdraw(u64),
    Block(&'static str),
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    #[error("there is no such account")]
    NotOpen,
    #[error("the account exists already")]
    AlreadyOpen,
    #[error("the account is blocked")]
    Blocked,
    #[error("only {balance} left")]
    Insufficient { balance: u64 },
}

impl Aggregate for Account {
    const NAME: &'static str = "account";
    type Event = AccountEvent;
    fn initial(_id: &str) -> Self {
        Self::default()
    }
    fn evolve(&mut self, event: &AccountEvent) {
        self.folded += 1;
        match event {
            AccountEvent::Opened { .. } => self.open = true,
            AccountEvent::Deposited { amount } => self.balance += amount,
            AccountEvent::Withdrawn { amount } => self.balance -= amount,
            AccountEvent::Blocked { .. } => self.blocked = true,
        }
    }
}

impl Snapshot for Account {}

impl Decide<Bank> for Account {
    type Error = Refused;
    fn decide(&self, command: &Bank, _: &Context) -> Decision<Self, Refused> {
        match *command {
            Bank::Open(_) if self.open => reject(Refused::AlreadyOpen),
            Bank::Open(owner) => emit(AccountEvent::Opened { owner: owner.to_owned() }),
            _ if !self.open => reject(Refused::NotOpen),
            Bank::Withdraw(_) if self.blocked => reject(Refused::Blocked),
            Bank::Withdraw(amount) if amount > self.balance => {
                reject(Refused::Insufficient { balance: self.balance })
            }
            Bank::Withdraw(amount) => emit(AccountEvent::Withdrawn { amount }),
            Bank::Deposit(amount) => emit(AccountEvent::Deposited { amount }),
            Bank::Block(_) if self.blocked => no_events(),
            Bank::Block(reason) => emit(AccountEvent::Blocked { reason: reason.to_owned() }),
        }
    }
}

/// The balance of every account.
pub struct Balances;

impl Projection for Balances {
    const NAME: &'static str = "balances";
    const SCHEMA: &'static str =
        "CREATE TABLE balances (account TEXT PRIMARY KEY, owner TEXT, amount INTEGER NOT NULL DEFAULT 0)";
    type Event = AccountEvent;
    fn apply(&self, event: &Recorded<AccountEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        let account = event.aggregate_id();
        let add = "UPDATE balances SET amount = amount + ?2 WHERE account = ?1";
        match &event.event {
            AccountEvent::Opened { owner } => {
                rows.execute("INSERT INTO balances (account, owner) VALUES (?1, ?2)", (account, owner))?
            }
            AccountEvent::Deposited { amount } => rows.execute(add, (account, amount))?,
            AccountEvent::Withdrawn { amount } => rows.execute(add, (account, -i64::try_from(*amount)?))?,
            AccountEvent::Blocked { .. } => 0,
        };
        Ok(())
    }
}

/// A system in memory.
pub async fn bank() -> Annals {
    Annals::open("memory:").await.unwrap()
}

/// A system on this store with its state in this directory: what a restart finds again.
pub async fn bank_on(store: &Arc<MemoryStore>, directory: &std::path::Path) -> Annals {
    let store: Arc<dyn EventStore> = store.clone();
    Annals::with_store(store, State::directory(directory)).await.unwrap()
}

/// An account with this much in it, after two events.
pub async fn open_with(annals: &Annals, id: &str, amount: u64) {
    let accounts = annals.repository::<Account>();
    accounts.execute(id, Bank::Open("kim")).await.unwrap();
    accounts.execute(id, Bank::Deposit(amount)).await.unwrap();
}

/// Waits until a projection or subscriber stands as it should.
pub async fn until(annals: &Annals, name: &str, wanted: impl Fn(&Status) -> bool) -> Status {
    tokio::time::timeout(std::time::Duration::from_secs(60), async {
        loop {
            let all = annals.status().await.unwrap();
            if let Some(status) = all.into_iter().find(|status| status.name == name).filter(&wanted) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it comes to that")
}
