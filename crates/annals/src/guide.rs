//! Guides to tasks that involve more than one item of this crate. Their examples are compiled and run by its
//! tests.

pub mod first_steps;
pub mod from_sql;

pub mod testing;

pub mod evolving_events;

pub mod failing_handlers;

pub mod unique_names;

pub mod embedding_the_server;
