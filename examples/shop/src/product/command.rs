//! The commands of a product.

use crate::form::{Form, FromForm};
use crate::values::{Cents, Name, OrderId, Quantity};

/// Puts a new product on sale.
#[derive(Clone, Debug)]
pub struct CreateProduct {
    /// Its name.
    pub name: Name,
    /// The price of one.
    pub price: Cents,
    /// The initial stock, if any.
    pub stock: Option<Quantity>,
}

/// Changes its name.
#[derive(Clone, Debug)]
pub struct RenameProduct(pub Name);

/// Changes its price.
#[derive(Clone, Copy, Debug)]
pub struct ChangePrice(pub Cents);

/// Adds new stock.
#[derive(Clone, Copy, Debug)]
pub struct IncreaseStock(pub Quantity);

/// Removes stock that was not sold by an order.
#[derive(Clone, Copy, Debug)]
pub struct DecreaseStock(pub Quantity);

/// Sells it to an order.
#[derive(Clone, Debug)]
pub struct Sell {
    /// The order.
    pub order: OrderId,
    /// The ordered quantity.
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
