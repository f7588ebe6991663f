//! All services of the shop, started together. Its routes are with its page.

use annals::{Annals, Result};

use crate::member::MemberService;
use crate::order::OrderService;
use crate::product::ProductService;
use crate::sales::SalesReport;

/// All services of the shop, running.
#[derive(Clone)]
pub struct Shop {
    /// Who is a member.
    pub members: MemberService,
    /// What is on sale.
    pub products: ProductService,
    /// Who ordered what.
    pub orders: OrderService,
    /// What was sold when.
    pub sales: SalesReport,
    pub(crate) annals: Annals,
}

impl Shop {
    /// Starts all services.
    ///
    /// # Errors
    /// If one of them cannot be started.
    pub async fn start(annals: &Annals) -> Result<Self> {
        Ok(Self {
            members: MemberService::start(annals).await?,
            products: ProductService::start(annals).await?,
            orders: OrderService::start(annals).await?,
            sales: SalesReport::start(annals).await?,
            annals: annals.clone(),
        })
    }
}
