//! The stores on databases, on real servers that the tests start themselves. Every test runs on PostgreSQL,
//! MariaDB and MySQL (`annals_testservers::kind`), as a role that may do no more than `docs/sql-stores.md`
//! says. What the framework keeps on databases is tested in `crates/annals/tests/it/databases/`.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod another_log;
mod gone;
mod group_fate;
mod history;
mod predecessors;
mod prepared;
mod silence;
