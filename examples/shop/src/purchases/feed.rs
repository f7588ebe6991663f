//! Turns purchases into commands for the shop: a customer becomes a member at the first purchase, each
//! purchase an order with its day and amount. The stock is updated by the product service.
//!
//! - E1  Every command has a unique key. A command that was executed before is not executed again, wherever
//!   an earlier run was interrupted.
//! - E2  The purchases of one customer are executed in order, those of different customers concurrently,
//!   roughly by day.
//! - E3  The file does not contain the titles of the CDs. They are spread over a hundred titles, each with
//!   enough stock.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use annals::{Seen, ViewError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Purchase;
use crate::Shop;
use crate::http::{Caller, Done};
use crate::member::Register;
use crate::order::{Delivery, Line, OrderForm, PlaceError};
use crate::product::{CreateProduct, IncreaseStock};
use crate::values::{Address, Cents, Email, Name, ProductId, Quantity};

/// The number of titles.
const TITLES: u32 = 100;
/// The price of one CD in the catalogue.
const PRICE: Cents = Cents(1_499);
/// The stock of a title beyond the purchases.
const SPARE: u32 = 100;
/// Purchases that wait for a worker; few, so that the log is roughly in the order of days.
const AHEAD: usize = 4;

/// An interrupted feed has executed one of this many first purchases: workers take them in order, and there
/// are far fewer workers.
const FIRST: usize = 1_000;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Feeds purchases to the shop.
pub struct Feed {
    shop: Shop,
    purchases: Vec<Purchase>,
    workers: usize,
}

/// The result of a feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fed {
    /// The number of commands.
    pub commands: u64,
    /// The number of commands that had been executed before.
    pub duplicates: u64,
    /// The newest event of the commands.
    pub last: Seen,
}

/// The kind of an executed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// A title was put on sale or stocked.
    Title,
    /// A customer has become a member.
    Member,
    /// A purchase has become an order.
    Order,
}

impl Feed {
    /// A feed of these purchases to this shop, with `workers` customers at once.
    pub fn new(shop: &Shop, mut purchases: Vec<Purchase>, workers: usize) -> Self {
        // The sort keeps the order of one customer's purchases of one day.
        purchases.sort_by_key(|purchase| purchase.day);
        Self { shop: shop.clone(), purchases, workers: workers.max(1) }
    }

    /// Whether an earlier feed has executed any of the first purchases, under its key.
    ///
    /// # Errors
    /// If the orders cannot be read.
    pub async fn is_begun(&self) -> Result<bool, Failed> {
        for purchase in self.purchases.iter().take(FIRST) {
            if self.shop.orders.is_placed(&purchase.customer, &purchase.key).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Executes all purchases, and calls `done` after every command.
    ///
    /// # Errors
    /// The first refusal or failure. Earlier commands remain executed.
    pub async fn run(self, done: impl Fn(Given) + Send + Sync + 'static) -> Result<Fed, Failed> {
        let done: Report = Arc::new(done);
        let stocked = self.stock(&done).await?;
        let mut working = JoinSet::new();
        let mut desks = Vec::new();
        for _ in 0..self.workers {
            let (sender, receiver) = mpsc::channel(AHEAD);
            desks.push(sender);
            let worker = Worker { shop: self.shop.clone(), stocked: stocked.last, done: done.clone() };
            working.spawn(worker.run(receiver));
        }
        // A customer stays with one worker, so its purchases keep their order.
        let mut desk_of = HashMap::new();
        for purchase in self.purchases {
            let next = desk_of.len() % desks.len();
            let desk = *desk_of.entry(purchase.customer.clone()).or_insert(next);
            if desks[desk].send(purchase).await.is_err() {
                break; // The worker has failed; its error is returned below.
            }
        }
        drop(desks);
        let mut fed = stocked;
        while let Some(worked) = working.join_next().await {
            fed.add(worked??);
        }
        Ok(fed)
    }

    /// Puts the titles on sale, each with enough stock.
    async fn stock(&self, done: &Report) -> Result<Fed, Failed> {
        let mut needed = BTreeMap::<u32, u64>::new();
        let mut content = String::new();
        for purchase in &self.purchases {
            *needed.entry(title(purchase)).or_default() += u64::from(purchase.cds.get());
            content.push_str(&purchase.key);
        }
        let delivery = crate::digest::of(&content);
        let mut working = JoinSet::new();
        for (title, needed) in needed {
            let (products, delivery) = (self.shop.products.clone(), delivery.clone());
            working.spawn(async move {
                let name = Name::new(&format!("CD {title:03}")).expect("it is short");
                let create = CreateProduct { name, price: PRICE, stock: None };
                let created = products.create(create, &Caller::once(title_key(title))).await?;
                let quantity = u32::try_from(needed).unwrap_or(u32::MAX).saturating_add(SPARE);
                let quantity = Quantity::new(quantity.min(Quantity::MOST)).expect("it is at least the spare");
                let stocked = Caller::once(format!("delivery/{delivery}"));
                let stocked = products.give(&title_id(title), IncreaseStock(quantity), &stocked).await?;
                Ok::<_, Failed>([created, stocked])
            });
        }
        let mut fed = Fed::default();
        while let Some(stocked) = working.join_next().await {
            for stocked in stocked?? {
                fed.note(Given::Title, &stocked, done);
            }
        }
        Ok(fed)
    }
}

type Report = Arc<dyn Fn(Given) + Send + Sync>;

impl Fed {
    fn note(&mut self, given: Given, done: &Done, report: &Report) {
        self.add(Self { commands: 1, duplicates: u64::from(done.duplicate), last: done.at() });
        report(given);
    }

    fn add(&mut self, other: Self) {
        self.commands += other.commands;
        self.duplicates += other.duplicates;
        self.last = self.last.max(other.last);
    }
}

/// Executes the purchases of some customers, one after the other.
struct Worker {
    shop: Shop,
    stocked: Seen,
    done: Report,
}

impl Worker {
    async fn run(self, mut purchases: mpsc::Receiver<Purchase>) -> Result<Fed, Failed> {
        let mut fed = Fed::default();
        let mut registered = HashSet::new();
        // The copy of the order service must include the titles and the member.
        let mut known = self.stocked;
        while let Some(purchase) = purchases.recv().await {
            if registered.insert(purchase.customer.clone()) {
                let member = self.register(&purchase).await?;
                known = known.max(member.at());
                fed.note(Given::Member, &member, &self.done);
            }
            let order = self.order(&purchase, known).await?;
            fed.note(Given::Order, &order, &self.done);
        }
        Ok(fed)
    }

    async fn register(&self, purchase: &Purchase) -> Result<Done, Failed> {
        let customer = &purchase.customer;
        let command = Register {
            id: customer.clone(),
            name: name(purchase),
            email: Email::new(&format!("{customer}@cdnow.example"))?,
            address: None,
            password: None,
        };
        let caller = Caller::once("first purchase").at(purchase.day);
        Ok(self.shop.members.register(&command, &caller).await?)
    }

    async fn order(&self, purchase: &Purchase, known: Seen) -> Result<Done, Failed> {
        let line =
            Line { product: title_id(title(purchase)), quantity: purchase.cds, agreed: Some(purchase.money) };
        let address = Address::new("by post").expect("it is short");
        let form = OrderForm { delivery: Delivery { recipient: name(purchase), address }, lines: vec![line] };
        let caller = Caller::once(&purchase.key).at(purchase.day);
        loop {
            let member = purchase.customer.clone();
            match self.shop.orders.place(member, form.clone(), known, &caller).await {
                Ok(done) => return Ok(done),
                // The copy of products and members lags the purchases, but progresses.
                Err(PlaceError::Catalogue(ViewError::Behind { failing: None, .. })) => {}
                Err(error) => return Err(format!("purchase {}: {error}", purchase.key).into()),
            }
        }
    }
}

fn name(purchase: &Purchase) -> Name {
    Name::new(&format!("Customer {}", purchase.customer)).expect("an id is shorter than a name may be")
}

/// The title assigned to a purchase: always the same.
fn title(purchase: &Purchase) -> u32 {
    let digest = crate::digest::of(&purchase.key);
    u32::from_str_radix(&digest[..7], 16).expect("a digest is hexadecimal") % TITLES + 1
}

fn title_key(title: u32) -> String {
    format!("cd/{title}")
}

fn title_id(title: u32) -> ProductId {
    ProductId::of_key(&title_key(title))
}
