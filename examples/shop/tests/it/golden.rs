//! All stored versions of the shop's events can be read: a file for each type and version. A run with
//! `ANNALS_GOLDEN=write` writes the files of new events.

use annals::testing::golden;
use annals_shop::member::{AddressEvent, MemberEvent};
use annals_shop::order::OrderEvent;
use annals_shop::product::ProductEvent;
use annals_shop::values::{Address, Cents, Profile};
use serde::de::DeserializeOwned;

use crate::values::*;

/// A value that is derived from a secret elsewhere.
fn kept<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_value(text.into()).unwrap()
}

#[test]
fn what_was_ever_stored_of_members_is_read() {
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA";
    let address = Address::new("1 Main Street").unwrap();
    let samples = [
        MemberEvent::Registered {
            name: name("Kim"),
            email: email("kim@example.com"),
            address: Some(address.clone()),
            password: Some(kept(hash)),
        },
        MemberEvent::Registered {
            name: name("Kim"),
            email: email("kim@example.com"),
            address: None,
            password: None,
        },
        MemberEvent::Renamed { name: name("Kim Lee") },
        MemberEvent::EmailChanged { email: email("lee@example.com") },
        MemberEvent::AddressChanged { address },
        MemberEvent::ProfileChanged { profile: Profile::new("reads much").unwrap() },
        MemberEvent::PasswordChanged { password: kept(hash) },
        MemberEvent::LoggedIn { session: kept("9f86d081884c7d65") },
        MemberEvent::LoggedOut,
        MemberEvent::Withdrawn,
    ];
    golden("tests/golden/member", samples);
    golden("tests/golden/email", [AddressEvent::Claimed { member: member("kim") }, AddressEvent::Released]);
}

#[test]
fn what_was_ever_stored_of_products_is_read() {
    let samples = [
        ProductEvent::Created { name: name("Blue"), price: Cents(1_250) },
        ProductEvent::Renamed { name: name("Kind of Blue") },
        ProductEvent::Repriced { price: Cents(999) },
        ProductEvent::StockIncreased { quantity: quantity(5) },
        ProductEvent::StockDecreased { quantity: quantity(1) },
        ProductEvent::Sold { order: order("o1"), quantity: quantity(2) },
        ProductEvent::Backordered { order: order("o2"), quantity: quantity(3) },
        ProductEvent::BackorderFilled { order: order("o2"), quantity: quantity(3) },
    ];
    golden("tests/golden/product", samples);
}

#[test]
fn what_was_ever_stored_of_orders_is_read() {
    let blue = product("blue");
    let samples = [
        OrderEvent::Placed {
            member: member("kim"),
            delivery: delivery(),
            items: vec![item(&blue, "Blue", 2, 2_500)],
        },
        OrderEvent::Backordered { product: blue.clone() },
        OrderEvent::BackorderFilled { product: blue },
    ];
    golden("tests/golden/order", samples);
}
