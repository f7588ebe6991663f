//! What the tests of this project need of a machine: database servers, and the files of releases. Not published.
//!
//! ```text
//! server.rs    a server of a test's own: PostgreSQL, MariaDB, MySQL; where they are installed
//! kind.rs      on which kinds and versions of servers a suite runs
//! proxy.rs     an address before a server that falls silent or leads elsewhere
//! dump.rs      what is in a server, as SQL text
//! place.rs     a log of a test's own on one of these, with a role of its own; gate.rs: connections that are made to wait
//! fixtures.rs  the files that releases have written
//! ```
//!
//! It starts servers and finds files, and knows nothing of events. What a store must do is in `annals-testkit`, which
//! starts nothing. Read first: `server.rs`.
#![forbid(unsafe_code)]

#[cfg(unix)]
pub mod dump;
#[cfg(unix)]
pub mod kind;
#[cfg(unix)]
pub mod server;

pub mod fixtures;
#[cfg(feature = "place")]
pub mod gate;
#[cfg(all(unix, feature = "place"))]
pub mod place;
pub mod proxy;
