//! The health of a publisher, for monitoring.

/// The health of a publisher.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Health {
    /// Whether this publisher holds the lease.
    pub active: bool,
    /// Messages that it has published since its start.
    pub published: u64,
    /// Refused attempts since its start.
    pub refused: u64,
    /// Why nothing can be published now: the error of the sink or the database that cannot be reached.
    pub problem: Option<String>,
    /// The holder of the lease and the lease's end, if this publisher has waited for longer than the length
    /// of a lease. This is normal while the other one publishes.
    pub waits_for: Option<String>,
}
