//! The address of a tenant's log, or of the directory, with the kind of store that it names.

use std::sync::Arc;

use annals_core::{Invalid, StoreUrl};
use annals_state::{Backend, Relocation};

use crate::backend::Backends;

pub(super) struct LogPlace {
    pub url: StoreUrl,
    pub backend: Arc<dyn Backend>,
}

impl LogPlace {
    pub fn at(url: &str, backends: &Backends) -> Result<Self, Invalid> {
        let url = backends.parse(url)?;
        Ok(Self { backend: backends.find(&url)?, url })
    }

    /// The interface to move its log, which every place of a tenant must support.
    pub fn relocation(&self) -> Result<&dyn Relocation, Invalid> {
        self.backend.relocation().ok_or_else(|| {
            let problem = format!(
                "`{}` is not a database, and its kind of store cannot claim and move its logs; put tenants in databases",
                self.url
            );
            Invalid::new("store", problem)
        })
    }
}
