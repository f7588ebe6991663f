//! The framework on databases: what lies beside a log, on real servers that the tests start themselves. Every
//! test runs on PostgreSQL, MariaDB and MySQL (`annals_testservers::kind`), as a role that may do no more
//! than `docs/sql-stores.md` says.
//!
//! `counter` is the domain that they share.

mod counter;

mod answers;
mod autocommit;
mod cache_after_failover;
mod crash;
mod deferred_constraint;
mod divided_again;
mod fenced;
mod first_start;
mod fixtures;
mod group_first_start;
mod hot_wait;
mod inline;
mod inline_waits;
mod losses;
mod one_place;
mod own_kind;
mod password;
mod processes;
mod queue;
mod queue_limits;
mod queue_values;
mod replica_after_a_loss;
mod replica_behind;
mod replica_promoted;
mod replicas;
mod rows_after_a_pause;
mod select_limit;
mod settings;
mod standby;
mod starts;
mod state;
mod storage_engine;
mod tenants;
mod upcasters;
mod values;
