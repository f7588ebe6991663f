//! The workloads, a file for each family: `append`, `bulk`, `spread` (reads of one store that is loaded
//! once), `many` (what a large number of streams costs), `single` (the size of events that were appended one
//! by one).

pub mod append;
pub mod bulk;
pub mod many;
pub mod single;
pub mod spread;
