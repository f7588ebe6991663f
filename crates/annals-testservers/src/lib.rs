//! The environment of the tests of this project: database servers, and the files of releases. Not published.
//!
//! ```text
//! server.rs    a server for one test: PostgreSQL, MariaDB, MySQL; where they are installed
//! kind.rs      the kinds and versions of servers on which a suite runs
//! proxy.rs     an address for a server that can go silent or lead elsewhere
//! dump.rs      the content of a server, as SQL text
//! place.rs     a log for one test on one of these, with its own role; gate.rs: delayed connections
//! fixtures.rs  the files that releases have written
//! ```
//!
//! It starts servers and finds files, and is independent of events. The requirements on a store are in
//! `annals-testkit`, which starts no server. Read first: `server.rs`.
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
