//! The rows of the read models: given these events, then these rows.

use annals::testing::given_view;
use annals_shop::member::MemberEvent;
use annals_shop::order::{Item, OrderEvent, Orders, Seen};
use annals_shop::product::{ProductEvent, Products};
use annals_shop::sales::Sales;
use annals_shop::values::{Cents, OrderId};

use crate::values::*;

fn placed(by: &str, items: Vec<Item>) -> OrderEvent {
    OrderEvent::Placed { member: member(by), delivery: delivery(), items }
}

fn blue(pieces: u32, cents: u64) -> Item {
    item(&product("blue"), "Blue", pieces, cents)
}

#[test]
fn the_sales_report_adds_up_months_and_customers() {
    let red = item(&product("red"), "Red", 2, 500);
    given_view(
        Sales,
        [
            ("order-1", placed("kim", vec![blue(1, 1_000), red])),
            ("order-2", placed("lee", vec![blue(3, 2_000)])),
            ("order-3", placed("kim", vec![blue(1, 0)])),
            ("order-3", OrderEvent::Backordered { product: product("blue") }),
        ],
    )
    .then_rows(
        "SELECT month, purchases, pieces, revenue, customers FROM months",
        [("2017-04", 3, 7, 3_500, 2)],
    )
    .then_rows("SELECT * FROM customers ORDER BY customer", [("kim", 2, 4, 1_500), ("lee", 1, 3, 2_000)]);
}

#[test]
fn the_list_of_products_follows_the_stock() {
    let order = OrderId::of_key("1");
    let pieces = quantity(2);
    given_view(
        Products,
        [
            ("product-a", ProductEvent::Created { name: name("Blue"), price: Cents(10) }),
            ("product-a", ProductEvent::StockIncreased { quantity: quantity(9) }),
            ("product-a", ProductEvent::StockDecreased { quantity: quantity(1) }),
            ("product-a", ProductEvent::Sold { order: order.clone(), quantity: pieces }),
            ("product-a", ProductEvent::Backordered { order: order.clone(), quantity: pieces }),
            ("product-a", ProductEvent::Backordered { order: OrderId::of_key("2"), quantity: pieces }),
            ("product-a", ProductEvent::BackorderFilled { order, quantity: pieces }),
            ("product-a", ProductEvent::Renamed { name: name("Red") }),
            ("product-a", ProductEvent::Repriced { price: Cents(11) }),
        ],
    )
    .then_rows("SELECT name, price, stock, sold, waiting FROM products", [("Red", 11, 4, 4, 1)]);
}

#[test]
fn an_order_is_shown_with_what_its_member_is_called_now() {
    let kim = MemberEvent::Registered {
        name: name("Kim"),
        email: email("a@b.example"),
        address: None,
        password: None,
    };
    let view = given_view(
        Orders,
        [
            ("member-kim", Seen::Member(kim)),
            ("order-1", Seen::Order(placed("kim", vec![blue(1, 1_000)]))),
            ("order-1", Seen::Order(OrderEvent::Backordered { product: product("blue") })),
            ("member-kim", Seen::Member(MemberEvent::Renamed { name: name("Kim Lee") })),
        ],
    );
    view.then_rows("SELECT name, email FROM members", [("Kim Lee", "a@b.example")]);
    view.then_rows("SELECT id, member, amount, waiting FROM orders", [("1", "kim", 1_000, 1)]);
}
