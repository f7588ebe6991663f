//! Purchases become orders, and the read models have the same sums as the file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use annals::Annals;
use annals_shop::Shop;
use annals_shop::purchases::{Fed, Feed, Given, SAMPLE, read};

use crate::system;

/// The sums, computed from the lines without code of the shop.
#[derive(Debug, Default, PartialEq)]
struct Sums {
    purchases: u64,
    customers: BTreeSet<String>,
    pieces: u64,
    cents: u64,
    months: BTreeMap<String, u64>,
}

fn sums(text: &str) -> Sums {
    let mut sums = Sums::default();
    for line in text.lines().skip(1) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let cents: u64 = columns[3].replace('.', "").parse().unwrap();
        sums.purchases += 1;
        sums.customers.insert(columns[0].to_owned());
        sums.pieces += columns[2].parse::<u64>().unwrap();
        sums.cents += cents;
        *sums.months.entry(format!("{}-{}", &columns[1][..4], &columns[1][4..6])).or_default() += cents;
    }
    sums
}

/// The first lines of the sample.
fn some(purchases: usize) -> String {
    SAMPLE.split_inclusive('\n').take(purchases + 1).collect()
}

async fn feed(shop: &Shop, text: &str) -> Fed {
    Feed::new(shop, read(text).unwrap(), 32).run(|_| {}).await.unwrap()
}

async fn assert_totals(annals: &Annals, shop: &Shop, text: &str) {
    annals.settle().await.unwrap();
    let expected = sums(text);
    let totals = shop.sales.totals(annals::Position::ZERO).await.unwrap();
    assert_eq!(
        (totals.purchases, totals.customers, totals.pieces, totals.revenue.0),
        (expected.purchases, expected.customers.len() as u64, expected.pieces, expected.cents)
    );
    let months = shop.sales.months(annals::Position::ZERO).await.unwrap();
    let months: BTreeMap<_, _> = months.into_iter().map(|month| (month.month, month.revenue.0)).collect();
    assert_eq!(months, expected.months);
    let sold = annals
        .view::<annals_shop::product::Products>()
        .one("SELECT sum(sold), sum(waiting) FROM products", (), |row| row.read::<(u64, u64)>())
        .await
        .unwrap();
    assert_eq!(sold, Some((expected.pieces, 0)), "the stock has followed every order");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_read_models_say_what_the_file_says() {
    let (annals, shop) = system::shop().await;
    let text = some(2_000);
    let fed = feed(&shop, &text).await;
    assert_eq!(fed.duplicates, 0);
    assert_totals(&annals, &shop, &text).await;
    let best = shop.sales.best_customers(3, fed.last).await.unwrap();
    assert!(best.windows(2).all(|pair| pair[0].money >= pair[1].money));
}

#[tokio::test(flavor = "multi_thread")]
async fn to_feed_again_adds_nothing_and_to_feed_more_adds_the_rest() {
    let (annals, shop) = system::shop().await;
    let (part, whole) = (some(300), some(500));
    feed(&shop, &part).await;
    assert_totals(&annals, &shop, &part).await;
    let head = annals.store().head().await.unwrap();

    let again = feed(&shop, &part).await;
    assert_eq!(again.duplicates, again.commands);
    annals.settle().await.unwrap();
    assert_eq!(annals.store().head().await.unwrap(), head);

    feed(&shop, &whole).await;
    assert_totals(&annals, &shop, &whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_cut_off_anywhere_resumes_where_it_was() {
    let (annals, shop) = system::shop().await;
    let text = some(400);
    for cut in [1, 40, 170, 333] {
        let orders = Arc::new(AtomicU64::new(0));
        let (enough, cut_off) = tokio::sync::oneshot::channel();
        let enough = std::sync::Mutex::new(Some(enough));
        let report = move |given| {
            if given == Given::Order && orders.fetch_add(1, Ordering::SeqCst) + 1 == cut {
                let _ = enough.lock().unwrap().take().unwrap().send(());
            }
        };
        let feed = Feed::new(&shop, read(&text).unwrap(), 16).run(report);
        tokio::select! {
            done = feed => drop(done.unwrap()),
            _ = cut_off => {}
        }
    }
    feed(&shop, &text).await;
    assert_totals(&annals, &shop, &text).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_orders_of_one_customer_keep_their_order() {
    let (annals, shop) = system::shop().await;
    feed(&shop, &some(300)).await;
    annals.settle().await.unwrap();
    let orders = annals
        .view::<annals_shop::order::Orders>()
        .query("SELECT member, placed_at FROM orders ORDER BY position", (), |row| {
            row.read::<(String, i64)>()
        })
        .await
        .unwrap();
    let mut last = BTreeMap::new();
    for (member, placed_at) in orders {
        let before = last.insert(member.clone(), placed_at);
        assert!(before.is_none_or(|before| before <= placed_at), "{member}");
    }
}
