//! The commands of an order.

use std::collections::HashSet;

use super::{Delivery, Known};
use crate::form::{Form, FromForm};
use crate::values::{Cents, MemberId, ProductId, Quantity};

/// The form of an order.
#[derive(Clone, Debug)]
pub struct OrderForm {
    /// The delivery.
    pub delivery: Delivery,
    /// The ordered products, each once.
    pub lines: Vec<Line>,
}

/// A line of the form.
#[derive(Clone, Debug)]
pub struct Line {
    /// The product.
    pub product: ProductId,
    /// The quantity.
    pub quantity: Quantity,
    /// The agreed price of the line, if it differs from the catalogue; it cannot be set in a form.
    pub agreed: Option<Cents>,
}

/// Places an order.
#[derive(Clone, Debug)]
pub struct PlaceOrder {
    /// The member.
    pub member: MemberId,
    /// The delivery.
    pub delivery: Delivery,
    /// The ordered products.
    pub lines: Vec<Line>,
    /// The member and the products in this service's copy when the command was received.
    pub known: Known,
}

/// Records that an item waits.
#[derive(Clone, Debug)]
pub struct NoteBackorder(pub ProductId);

/// Records that an item no longer waits.
#[derive(Clone, Debug)]
pub struct NoteFilled(pub ProductId);

/// The most lines of an order.
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
