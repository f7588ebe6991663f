//! Short constructors for valid values.

use annals_shop::member::{Password, Register};
use annals_shop::order::{Delivery, Item, Line, OrderForm};
use annals_shop::values::{Address, Cents, Email, Field, MemberId, Name, OrderId, ProductId, Quantity};
use serde_json::json;

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn email(text: &str) -> Email {
    Email::new(text).unwrap()
}

pub fn member(id: &str) -> MemberId {
    MemberId::new(id).unwrap()
}

pub fn password(text: &str) -> Password {
    Password::read(&json!(text)).unwrap()
}

pub fn quantity(quantity: u32) -> Quantity {
    Quantity::new(quantity).unwrap()
}

pub fn product(key: &str) -> ProductId {
    ProductId::of_key(key)
}

pub fn order(key: &str) -> OrderId {
    OrderId::of_key(key)
}

pub fn delivery() -> Delivery {
    Delivery { recipient: name("Kim"), address: Address::new("1 Main Street").unwrap() }
}

pub fn line(product: &ProductId, pieces: u32) -> Line {
    Line { product: product.clone(), quantity: quantity(pieces), agreed: None }
}

pub fn item(product: &ProductId, called: &str, pieces: u32, cents: u64) -> Item {
    Item { product: product.clone(), name: name(called), quantity: quantity(pieces), amount: Cents(cents) }
}

pub fn form(lines: Vec<Line>) -> OrderForm {
    OrderForm { delivery: delivery(), lines }
}

/// A registration without a password, because hashing is slow.
pub fn registration(id: &str, mail: &str) -> Register {
    Register { id: member(id), name: name("Kim"), email: email(mail), address: None, password: None }
}
