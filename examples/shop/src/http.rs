//! The shared part of the REST routes of all services: requests and responses.
//!
//! ```text
//! POST /shop/products            Idempotency-Key: k1     {"name":"…","price_cents":1500}
//!   201   Position: 42@UUID      {"id":"…","version":1,"position":42,"witness":"42@UUID","duplicate":false}
//!   400   application/problem+json   all field errors        409/404/422   the refusal's own code
//! GET  /shop/products?at_least=42@UUID                      responds as soon as the rows show that event
//! ```
//!
//! The files: `command` (requests), `done` (results), `problem` (errors).

mod command;
mod done;
mod problem;

pub use command::{AtLeast, Caller, Checked, Page};
pub use done::Done;
pub use problem::Problem;
pub(crate) use problem::{Refusals, no_such_method};
