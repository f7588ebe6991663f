//! What can be asked of an order.

use std::collections::HashSet;

use super::{Delivery, Known};
use crate::form::{Form, FromForm};
use crate::values::{Cents, MemberId, ProductId, Quantity};

/// What a member fills in.
#[derive(Clone, Debug)]
pub struct OrderForm {
    /// Where to deliver to.
    pub delivery: Delivery,
    /// What is wanted; each product once.
    pub lines: Vec<Line>,
}

/// One product that is wanted.
#[derive(Clone, Debug)]
pub struct Line {
    /// Which.
    pub product: ProductId,
    /// How many.
    pub quantity: Quantity,
    /// What the line costs if that was agreed otherwise than by the catalogue; no form can say this.
    pub agreed: Option<Cents>,
}

/// Place an order.
#[derive(Clone, Debug)]
pub struct PlaceOrder {
    /// Who orders.
    pub member: MemberId,
    /// Where to deliver to.
    pub delivery: Delivery,
    /// What is wanted.
    pub lines: Vec<Line>,
    /// What this service knew of the member and the products when the command came in.
    pub known: Known,
}

/// Note that an item has to wait.
#[derive(Clone, Debug)]
pub struct NoteBackorder(pub ProductId);

/// Note that an item does not have to wait any more.
#[derive(Clone, Debug)]
pub struct NoteFilled(pub ProductId);

/// The most lines that an order has.
const LINES_MOST: usize = 100;

impl FromForm for OrderForm {
    fn from_form(form: &mut Form) -> Option<Self> {
        let delivery = form.nested("delivery");
        let lines = form.list::<Line>("items", LINES_MOST);
        let mut seen = HashSet::new();
        for (index, line) in lines.iter().flatten().enumerate() {
            if !seen.insert(&line.product) {
                form.refuse::<()>(&format!("items[{index}].product"), "is in the order already");
            }
        }
        Some(Self { delivery: delivery?, lines: lines? })
    }
}

impl FromForm for Line {
    fn from_form(form: &mut Form) -> Option<Self> {
        let (product, quantity) = (form.field("product"), form.field("quantity"));
        Some(Self { product: product?, quantity: quantity?, agreed: None })
    }
}

impl FromForm for Delivery {
    fn from_form(form: &mut Form) -> Option<Self> {
        let (recipient, address) = (form.field("recipient"), form.field("address"));
        Some(Self { recipient: recipient?, address: address? })
    }
}
