//! A file of real purchases, which become orders of this shop.
//!
//! ```text
//!  customer_id  date number_of_cds  dollar_value
//!  00001 19970101  1   11.77
//! ```
//!
//! The CDNOW data set (Fader and Hardie): `data/README.md` describes its source and the sample. This
//! file reads it; `feed` turns it into commands for the shop.
//!
//! - U1  The whole file is read before any purchase is used: if one line is bad, no purchase is used.
//! - U2  A purchase is identified by its content: customer, day, CDs, money, and its ordinal number among
//!   equal purchases in the file. So it is the same purchase in the sample and in the whole file, and in a
//!   file in another order.

mod feed;

use std::collections::HashMap;

use annals::Timestamp;

pub use feed::{Fed, Feed, Given};

use crate::values::{Cents, MemberId, Quantity};

/// The purchases of every tenth customer, enough for a first demonstration.
pub const SAMPLE: &str = include_str!("../data/cdnow-sample.txt");

/// One purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purchase {
    /// The customer.
    pub customer: MemberId,
    /// The first instant of the day.
    pub day: Timestamp,
    /// The number of CDs.
    pub cds: Quantity,
    /// The amount.
    pub money: Cents,
    /// A unique key, under which the purchase is executed once.
    pub key: String,
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} {problem}")]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// The problem.
    pub problem: String,
}

/// Reads a whole file.
///
/// # Errors
/// The first bad line.
pub fn read(text: &str) -> Result<Vec<Purchase>, BadLine> {
    let mut purchases = Vec::new();
    let mut seen = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        let heading = index == 0 && line.trim_start().starts_with(|c: char| c.is_alphabetic());
        if heading || line.trim().is_empty() {
            continue;
        }
        let mut purchase = read_line(line).map_err(|problem| BadLine { line: index + 1, problem })?;
        let same = seen.entry(purchase.key.clone()).or_insert(0_u32);
        *same += 1;
        purchase.key = format!("{}/{same}", purchase.key);
        purchases.push(purchase);
    }
    if purchases.is_empty() {
        return Err(BadLine { line: 1, problem: "is the end: there is no purchase".into() });
    }
    Ok(purchases)
}

fn read_line(line: &str) -> Result<Purchase, String> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let &[customer, date, cds, money] = columns.as_slice() else {
        let columns = columns.len();
        return Err(format!("has {columns} columns, not customer, date, number of CDs and dollar value"));
    };
    Ok(Purchase {
        customer: MemberId::new(customer).map_err(|problem| format!("column 1, `{customer}`, {problem}"))?,
        day: day(date).ok_or_else(|| format!("column 2, `{date}`, is not a date like 19970131"))?,
        cds: cds
            .parse()
            .ok()
            .and_then(Quantity::new)
            .ok_or_else(|| format!("column 3, `{cds}`, is not a number from 1 to {}", Quantity::MOST))?,
        money: cents(money).ok_or_else(|| format!("column 4, `{money}`, is not dollars like 11.77"))?,
        key: format!("{customer}/{date}/{cds}/{money}"),
    })
}

fn day(date: &str) -> Option<Timestamp> {
    if date.len() != 8 || !date.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..]).parse().ok()
}

fn cents(money: &str) -> Option<Cents> {
    let (dollars, cents) = money.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(dollars) || !digits(cents) || cents.len() != 2 {
        return None;
    }
    let total = dollars.parse::<u64>().ok()?.checked_mul(100)? + cents.parse::<u64>().ok()?;
    (total <= Cents::MOST).then_some(Cents(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_a_purchase() {
        let text = " customer_id  date number_of_cds  dollar_value\r\n 00001 19970101  1   11.77\r\n";
        let [purchase] = read(text).unwrap().try_into().unwrap();
        assert_eq!(purchase.customer.as_str(), "00001");
        assert_eq!(purchase.day.to_string(), "1997-01-01T00:00:00Z");
        assert_eq!((purchase.cds.get(), purchase.money), (1, Cents(1177)));
    }

    #[test]
    fn the_same_purchase_twice_is_two() {
        let line = "00001 19970101 1 11.77\n";
        let purchases = read(&line.repeat(2)).unwrap();
        assert_ne!(purchases[0].key, purchases[1].key);
        assert_eq!(purchases[0], read(line).unwrap()[0]);
    }

    #[test]
    fn a_bad_line_is_named_with_what_is_wrong() {
        let good = "00001 19970101 1 11.77";
        for (bad, problem) in [
            ("00001 19970101 1", "has 3 columns"),
            ("00001 19970101 1 11.77 x", "has 5 columns"),
            ("Kim 19970101 1 11.77", "column 1, `Kim`"),
            ("00001 19971301 1 11.77", "column 2, `19971301`"),
            ("00001 1997-1-1 1 11.77", "column 2, `1997-1-1`"),
            ("00001 19970101 0 11.77", "column 3, `0`"),
            ("00001 19970101 1 11.7", "column 4, `11.7`"),
            ("00001 19970101 1 -1.00", "column 4, `-1.00`"),
            ("00001 19970101 1 99999999999999999999.00", "column 4"),
        ] {
            let refused = read(&format!("{good}\n{bad}\n{good}")).unwrap_err();
            assert_eq!(refused.line, 2);
            assert!(refused.problem.contains(problem), "{refused}");
        }
        assert!(read("").is_err() && read("customer_id date\n").is_err());
    }

    #[test]
    fn the_sample_is_every_tenth_customer() {
        let purchases = read(SAMPLE).unwrap();
        assert_eq!(purchases.len(), 6_787);
        assert!(purchases.iter().all(|purchase| purchase.customer.as_str().ends_with('0')));
    }
}
