//! How a publisher is, for those who watch it.

/// How a publisher is.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Health {
    /// Whether this is the one that publishes.
    pub active: bool,
    /// Messages that it has published since it was started.
    pub published: u64,
    /// How often a message was refused since then.
    pub refused: u64,
    /// Why nothing can be published at the moment: the sink or the database is away.
    pub problem: Option<String>,
    /// Who has the lease, and until when, if this publisher has waited for longer than a lease. That is as it should be
    /// while the other one publishes.
    pub waits_for: Option<String>,
}
