//! If the product service is down or fails, orders are still placed, and the stock catches up.

use annals::{Annals, Append, Expected, NewEvent, StreamId};
use annals_shop::Shop;
use annals_shop::http::Caller;
use annals_shop::member::MemberService;
use annals_shop::order::{OrderService, Orders};
use annals_shop::product::{IncreaseStock, ProductService};
use annals_shop::sales::SalesReport;

use crate::system::{self, count, create, product_state, register};
use crate::values::*;

/// The number of waiting items of each order, by the read model.
async fn waiting(annals: &Annals) -> Vec<u64> {
    let view = annals.view::<Orders>();
    view.query("SELECT waiting FROM orders ORDER BY position", (), |row| row.get(0)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_taken_while_the_product_service_is_down() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().display());
    let (blue, known) = {
        let annals = Annals::open(&url).await.unwrap();
        let shop = Shop::start(&annals).await.unwrap();
        let (blue, known) = (create(&shop, "blue", 100).await, register(&shop, "kim").await);
        annals.settle().await.unwrap();
        annals.shutdown().await;
        (blue, known)
    };

    // All services run except the product service: no read model, no subscriber, no REST.
    let annals = Annals::open(&url).await.unwrap();
    let members = MemberService::start(&annals).await.unwrap();
    let orders = OrderService::start(&annals).await.unwrap();
    let sales = SalesReport::start(&annals).await.unwrap();
    for number in 0..10 {
        let caller = Caller::once(format!("order {number}"));
        orders.place(member("kim"), form(vec![line(&blue, 2)]), known, &caller).await.unwrap();
    }
    annals.settle().await.unwrap();
    assert_eq!(sales.totals(known).await.unwrap().purchases, 10);
    assert_eq!(product_state(&annals, &blue).await.stock, 100, "nobody has taken anything out of the stock");

    // It starts and gets all events that it has missed.
    let products = ProductService::start(&annals).await.unwrap();
    annals.settle().await.unwrap();
    assert_eq!(product_state(&annals, &blue).await.stock, 80);
    assert_eq!(waiting(&annals).await, [0; 10]);
    annals.shutdown().await;
    drop((members, orders, sales, products, annals));

    // After a restart nothing is sold twice.
    let annals = Annals::open(&url).await.unwrap();
    let _shop = Shop::start(&annals).await.unwrap();
    annals.settle().await.unwrap();
    assert_eq!(product_state(&annals, &blue).await.stock, 80);
    assert_eq!(count(&annals, "product.sold").await, 10);
    annals.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_orders_for_the_last_one_one_waits_until_more_comes_in() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().display());
    let (blue, known) = {
        let annals = Annals::open(&url).await.unwrap();
        let shop = Shop::start(&annals).await.unwrap();
        let (blue, known) = (create(&shop, "blue", 1).await, register(&shop, "kim").await);
        annals.shutdown().await;
        (blue, known)
    };

    // While the product service is down, one is left by the order service's copy.
    let annals = Annals::open(&url).await.unwrap();
    let orders = OrderService::start(&annals).await.unwrap();
    for key in ["first", "second"] {
        let form = form(vec![line(&blue, 1)]);
        orders.place(member("kim"), form, known, &Caller::once(key)).await.unwrap();
    }
    let products = ProductService::start(&annals).await.unwrap();
    annals.settle().await.unwrap();
    let blue_now = product_state(&annals, &blue).await;
    assert_eq!((blue_now.stock, blue_now.waiting.len()), (0, 1));
    // It is undefined which of them reaches the product first, but one is sold and one waits.
    assert_eq!(waiting(&annals).await.iter().sum::<u64>(), 1);

    products.give(&blue, IncreaseStock(quantity(5)), &Caller::default()).await.unwrap();
    annals.settle().await.unwrap();
    let blue_now = product_state(&annals, &blue).await;
    assert_eq!((blue_now.stock, blue_now.waiting.len()), (4, 0));
    assert_eq!(waiting(&annals).await, [0, 0]);
    annals.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_that_cannot_be_read_stops_neither_orders_nor_other_products() {
    let (annals, shop) = system::shop().await;
    let (broken, blue) = (create(&shop, "broken", 10).await, create(&shop, "blue", 10).await);
    let known = register(&shop, "kim").await;
    let stream = StreamId::of("product", broken.as_str()).unwrap();
    let unreadable = NewEvent::new("product.turned_into_a_frog", "{}").unwrap();
    annals.store().append(Append::to(&stream, Expected::Exists, [unreadable])).await.unwrap();

    for (key, product) in [("one", &broken), ("two", &blue), ("three", &blue)] {
        let form = form(vec![line(product, 2)]);
        let placed = shop.orders.place(member("kim"), form, known, &Caller::once(key)).await;
        assert!(placed.is_ok(), "{key}: {}", placed.unwrap_err());
    }
    // The subscriber blocks the one order and continues with the others.
    let sold = async {
        let mut head = annals::Position::ZERO;
        while product_state(&annals, &blue).await.stock != 6 {
            head = annals.store().wait(head).await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), sold).await.expect("the other product is sold");
    let status = annals.status().await.unwrap();
    let selling = status.iter().find(|status| status.name == "product-sells-orders").unwrap();
    assert!(selling.failing.is_some() && selling.lag() > 0, "{selling:?}");
}
