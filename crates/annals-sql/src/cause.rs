//! A cause that the callers of several appends share.

use std::fmt;
use std::sync::Arc;

use annals_core::Cause;

/// A cause that several callers share.
#[derive(Clone)]
pub struct SharedCause(Arc<dyn std::error::Error + Send + Sync>);

impl SharedCause {
    pub(crate) fn new(cause: impl Into<Cause>) -> Self {
        Self(cause.into().into())
    }

    pub(crate) fn is<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}

impl fmt::Display for SharedCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for SharedCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::error::Error for SharedCause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
