//! The address of a tenant's log, or of the directory, with the kind of store that it names.

use annals_core::{Invalid, StoreUrl};
use annals_state::{Backend, Relocation};

use crate::backend::Backends;

pub(super) struct LogPlace {
    pub url: StoreUrl,
    pub backend: &'static dyn Backend,
}

impl LogPlace {
    pub fn at(url: &str) -> Result<Self, Invalid> {
        let backends = Backends::default();
        let url = backends.parse(url)?;
        Ok(Self { backend: backends.find(&url)?, url })
    }

    /// How its log moves: what every place of a tenant can do.
    pub fn relocation(&self) -> Result<&'static dyn Relocation, Invalid> {
        self.backend.relocation().ok_or_else(|| {
            Invalid::new("store", format!("`{}` is no database; tenants are in databases", self.url))
        })
    }
}
