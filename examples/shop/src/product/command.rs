//! What can be asked of a product.

use crate::form::{Form, FromForm};
use crate::values::{Cents, Name, OrderId, Quantity};

/// Put a new product on sale.
#[derive(Clone, Debug)]
pub struct CreateProduct {
    /// What it is called.
    pub name: Name,
    /// What one costs.
    pub price: Cents,
    /// How many there are at first, if any.
    pub stock: Option<Quantity>,
}

/// Call it something else.
#[derive(Clone, Debug)]
pub struct RenameProduct(pub Name);

/// Ask another price from now on.
#[derive(Clone, Copy, Debug)]
pub struct ChangePrice(pub Cents);

/// More of it has come in.
#[derive(Clone, Copy, Debug)]
pub struct IncreaseStock(pub Quantity);

/// Some of it is gone otherwise than by an order.
#[derive(Clone, Copy, Debug)]
pub struct DecreaseStock(pub Quantity);

/// An order has been placed for it.
#[derive(Clone, Debug)]
pub struct Sell {
    /// The order.
    pub order: OrderId,
    /// How many it is for.
    pub quantity: Quantity,
}

impl FromForm for CreateProduct {
    fn from_form(form: &mut Form) -> Option<Self> {
        let (name, price) = (form.field("name"), form.field("price_cents"));
        let stock = form.optional("stock");
        Some(Self { name: name?, price: price?, stock: stock? })
    }
}

/// A form with one field.
macro_rules! one_field {
    ($($command:ident: $field:literal,)*) => {$(
        impl FromForm for $command {
            fn from_form(form: &mut Form) -> Option<Self> {
                form.field($field).map(Self)
            }
        }
    )*};
}
one_field! {
    RenameProduct: "name",
    ChangePrice: "price_cents",
    IncreaseStock: "quantity",
    DecreaseStock: "quantity",
}
