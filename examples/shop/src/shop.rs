//! All services of the shop, started together. The routes are in `page`.

use annals::{Annals, Result};

use crate::member::MemberService;
use crate::order::OrderService;
use crate::product::ProductService;
use crate::sales::SalesReport;

/// All services of the shop, running.
#[derive(Clone)]
pub struct Shop {
    /// The member service.
    pub members: MemberService,
    /// The product service.
    pub products: ProductService,
    /// The order service.
    pub orders: OrderService,
    /// The sales report.
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
