//! Guides, in the order in which they are best read. Their examples compile and run as tests.

#[doc = include_str!("guide/first_steps.md")]
pub mod first_steps {}

#[doc = include_str!("guide/from_sql.md")]
pub mod from_sql {}

#[doc = include_str!("guide/testing.md")]
pub mod testing {}

#[doc = include_str!("guide/failing_handlers.md")]
pub mod failing_handlers {}

#[doc = include_str!("guide/unique_names.md")]
pub mod unique_names {}

#[doc = include_str!("guide/embedding_the_server.md")]
pub mod embedding_the_server {}
