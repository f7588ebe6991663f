//! A bank: accounts with commands that can be refused, a table of blocked accounts, a subscriber, snapshots,
//! time travel, and given/when/then. `cargo run -p annals --example bank`

use std::time::Duration;

use annals::snapshot::{every, older_than};
use annals::testing::given;
use annals::{
    Aggregate, Annals, Context, Decide, Decision, Event, ExecuteError, HandlerError, Projection, Recorded,
    Snapshot, Tx, emit, no_events, reject,
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(prefix = "account")]
enum AccountEvent {
    Opened { owner: String },
    Deposited { amount: u64 },
    Withdrawn { amount: u64 },
    Blocked { reason: String },
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
struct Account {
    open: bool,
    balance: u64,
    blocked: bool,
}

enum Bank {
    Open(String),
    Deposit(u64),
    Withdraw(u64),
    Block(String),
}

#[derive(Debug, PartialEq, thiserror::Error)]
enum Refused {
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
        match command {
            Bank::Open(_) if self.open => reject(Refused::AlreadyOpen),
            Bank::Open(owner) => emit(AccountEvent::Opened { owner: owner.clone() }),
            _ if !self.open => reject(Refused::NotOpen),
            Bank::Withdraw(_) if self.blocked => reject(Refused::Blocked),
            Bank::Withdraw(amount) if *amount > self.balance => {
                reject(Refused::Insufficient { balance: self.balance })
            }
            Bank::Withdraw(amount) => emit(AccountEvent::Withdrawn { amount: *amount }),
            Bank::Deposit(amount) => emit(AccountEvent::Deposited { amount: *amount }),
            Bank::Block(_) if self.blocked => no_events(),
            Bank::Block(reason) => emit(AccountEvent::Blocked { reason: reason.clone() }),
        }
    }
}

/// Which accounts were blocked, when and why.
struct BlockedAccounts;

impl Projection for BlockedAccounts {
    const NAME: &'static str = "blocked-accounts";
    const SCHEMA: &'static str = "
        CREATE TABLE blocked (account TEXT PRIMARY KEY, reason TEXT NOT NULL, at INTEGER NOT NULL);
        CREATE INDEX blocked_at ON blocked (at);";
    type Event = AccountEvent;
    fn apply(&self, event: &Recorded<AccountEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        if let AccountEvent::Blocked { reason } = &event.event {
            let insert = "INSERT INTO blocked VALUES (?1, ?2, ?3)";
            tx.execute(insert, (event.aggregate_id(), reason, event.time()))?;
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let annals = Annals::open("memory:").await?;
    annals.project(BlockedAccounts).start().await?;
    // A deposit of more than a thousand blocks the account. The event is delivered at least once, the command
    // executed once.
    let watch = annals.subscribe("watch-large-deposits").on::<AccountEvent, _>(async |event, context| {
        if let AccountEvent::Deposited { amount: 1_001.. } = event.event {
            let block = Bank::Block("a large deposit".into());
            context.execute::<Account, _>(event.aggregate_id(), block).await?;
        }
        Ok(())
    });
    watch.start().await?;

    let policy = every(100).or(older_than(Duration::from_secs(3_600)));
    let accounts = annals.repository::<Account>().snapshots(policy).cache(1_000);
    accounts.create("a1", Bank::Open("kim".into())).by("user:7").await?;
    accounts.execute("a1", Bank::Deposit(100)).once("request-1").await?;
    let again = accounts.execute("a1", Bank::Deposit(100)).once("request-1").await?;
    assert!(again.duplicate && again.state.balance == 100);
    let done = accounts.execute("a1", Bank::Withdraw(30)).await?;
    assert_eq!((done.version.get(), done.state.balance), (3, 70));
    assert_eq!(accounts.at("a1", 2).await?.state.balance, 100); // time travel

    let refused = accounts.execute("a1", Bank::Withdraw(900)).await;
    assert!(matches!(refused, Err(ExecuteError::Rejected(Refused::Insufficient { balance: 70 }))));
    let stale = accounts.execute("a1", Bank::Deposit(1)).at_version(1).await;
    assert!(matches!(stale, Err(ExecuteError::Conflict { actual, .. }) if actual.get() == 3));

    // Eight tasks race on one account, and the sum is right.
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let accounts = accounts.clone();
            tokio::spawn(async move {
                for _ in 0..50 {
                    accounts.execute("a1", Bank::Deposit(1)).await?;
                }
                Ok::<_, ExecuteError<Refused>>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    assert_eq!(accounts.load("a1").await?.state.balance, 470);

    accounts.execute("a1", Bank::Deposit(5_000)).await?;
    annals.settle().await?;
    let view = annals.view::<BlockedAccounts>();
    let blocked: Vec<(String, String)> =
        view.query("SELECT account, reason FROM blocked", (), |row| row.read()).await?;
    assert_eq!(blocked, [("a1".to_owned(), "a large deposit".to_owned())]);

    let opened = || AccountEvent::Opened { owner: "kim".into() };
    given::<Account>([opened(), AccountEvent::Deposited { amount: 5 }])
        .when(Bank::Withdraw(3))
        .then([AccountEvent::Withdrawn { amount: 3 }]);
    given::<Account>([]).when(Bank::Deposit(1)).then_rejected(Refused::NotOpen);
    annals.shutdown().await;
    Ok(())
}
