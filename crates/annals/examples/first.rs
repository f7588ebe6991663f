//! A first aggregate with a projection: accounts that cannot be overdrawn, and a table of their balances.
#![allow(clippy::print_stdout, reason = "a program that speaks to its user")]

use annals::{Aggregate, Annals, Context, Decide, Decision, Event, HandlerError, Projection, Recorded, Tx};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(prefix = "account")] // the stored name is account.booked
enum AccountEvent {
    Booked { amount: i64 },
}

#[derive(Clone, Default)]
struct Account(i64); // its balance

impl Aggregate for Account {
    const NAME: &'static str = "account";
    type Event = AccountEvent;
    fn initial(_id: &str) -> Self {
        Self::default()
    }
    fn evolve(&mut self, event: &AccountEvent) {
        let AccountEvent::Booked { amount } = event;
        self.0 += amount;
    }
}

struct Book(i64); // a command: pay in, or out if negative

#[derive(Debug, thiserror::Error)]
#[error("only {0} left")]
struct Insufficient(i64);

impl Decide<Book> for Account {
    type Error = Insufficient;
    fn decide(&self, &Book(amount): &Book, _: &Context) -> Decision<Self, Insufficient> {
        if self.0 + amount < 0 {
            return annals::reject(Insufficient(self.0));
        }
        annals::emit(AccountEvent::Booked { amount })
    }
}

struct Balances;

impl Projection for Balances {
    const NAME: &'static str = "balances";
    const SCHEMA: &'static str = "CREATE TABLE balances (account VARCHAR(200) PRIMARY KEY, amount BIGINT)";
    type Event = AccountEvent;
    fn apply(&self, event: &Recorded<AccountEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        let AccountEvent::Booked { amount } = event.event;
        let row = (event.aggregate_id(), amount);
        if tx.execute("UPDATE balances SET amount = amount + ?2 WHERE account = ?1", row)? == 0 {
            tx.execute("INSERT INTO balances VALUES (?1, ?2)", row)?;
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let annals = Annals::open("memory:").await?; // `file:./data` to keep it
    annals.project(Balances).start().await?;
    let accounts = annals.repository::<Account>();
    accounts.execute("kim", Book(100)).once("request-122").await?;
    let done = accounts.execute("kim", Book(-30)).by("user:7").once("request-123").await?;
    let view = annals.view::<Balances>().at_least(&done);
    let rows = view.query("SELECT * FROM balances", (), |row| row.read::<(String, i64)>()).await?;
    assert_eq!(rows, [("kim".to_owned(), 70)]);
    println!("{} has {}", rows[0].0, rows[0].1);
    Ok(())
}
