//! The results of the demo: the read models, as tables for people or as one JSON object for programs.

use std::collections::BTreeMap;
use std::io;

use annals::{Seen, ViewError};
use annals_shop::sales::{Customer, Month, SalesReport, Totals};
use serde::Serialize;

use crate::output::{Column, Output, Style, thousands};

/// The number of best customers that are shown.
const BEST: u32 = 10;

/// The read models at one moment.
pub(super) struct Report {
    totals: Totals,
    months: Vec<Month>,
    best: Vec<Customer>,
}

/// The read models as JSON. Money is in dollars.
#[derive(Serialize)]
pub(super) struct Json<'a> {
    purchases: u64,
    customers: u64,
    cds: u64,
    revenue: f64,
    revenue_by_month: BTreeMap<&'a str, f64>,
    best_customers: Vec<JsonCustomer<'a>>,
}

#[derive(Serialize)]
struct JsonCustomer<'a> {
    customer: &'a str,
    purchases: u64,
    cds: u64,
    money: f64,
}

impl<'a> JsonCustomer<'a> {
    fn of(row: &'a Customer) -> Self {
        let Customer { customer, purchases, pieces, money } = row;
        Self { customer, purchases: *purchases, cds: *pieces, money: money.dollars() }
    }
}

impl Report {
    /// Queries the read models, at least as new as `at_least`.
    pub async fn of(sales: &SalesReport, at_least: Seen) -> Result<Self, ViewError> {
        Ok(Self {
            totals: sales.totals(at_least).await?,
            months: sales.months(at_least).await?,
            best: sales.best_customers(BEST, at_least).await?,
        })
    }

    /// The results for programs.
    pub fn json(&self) -> Json<'_> {
        Json {
            purchases: self.totals.purchases,
            customers: self.totals.customers,
            cds: self.totals.pieces,
            revenue: self.totals.revenue.dollars(),
            revenue_by_month: self
                .months
                .iter()
                .map(|row| (row.month.as_str(), row.revenue.dollars()))
                .collect(),
            best_customers: self.best.iter().map(JsonCustomer::of).collect(),
        }
    }

    /// Prints the results for people.
    pub fn print(&self, output: &mut Output) -> io::Result<()> {
        let heading = |output: &mut Output, text: &str| -> io::Result<()> {
            let text = output.styled(text, Style::Strong);
            output.line("")?;
            output.line(&text)
        };
        heading(output, "Revenue by month")?;
        let columns = [
            Column::text("Month", Style::Plain),
            Column::number("Purchases"),
            Column::number("Customers"),
            Column::number("CDs"),
            Column::number("Dollars"),
        ];
        let Totals { purchases, customers, pieces, revenue } = self.totals;
        let mut rows: Vec<_> = self
            .months
            .iter()
            .map(|row| numbers(&row.month, [row.purchases, row.customers, row.pieces], row.revenue))
            .collect();
        rows.push(numbers("In all", [purchases, customers, pieces], revenue));
        output.table(&columns, &rows)?;
        heading(output, "Best customers")?;
        let columns = [
            Column::text("Customer", Style::Plain),
            Column::number("Purchases"),
            Column::number("CDs"),
            Column::number("Dollars"),
        ];
        let rows = self.best.iter().map(|row| numbers(&row.customer, [row.purchases, row.pieces], row.money));
        output.table(&columns, &rows.collect::<Vec<_>>())
    }
}

fn numbers<const N: usize>(name: &str, counts: [u64; N], money: annals_shop::values::Cents) -> Vec<String> {
    let counts = counts.into_iter().map(thousands);
    std::iter::once(name.to_owned()).chain(counts).chain([money.to_string()]).collect()
}
