//! The workloads, a file for each family: `append`, `bulk`, `spread` (reads of one store that is loaded
//! once), `many` (what a large number of streams costs), `single` (the size of events that were appended one
//! by one), `ledger` (all of it on the shape of the logs of services), `growth` (the ledger of Annals alone
//! as it grows).

pub mod append;
pub mod bulk;
pub mod growth;
pub mod ledger;
pub mod many;
pub mod single;
pub mod spread;
