//! The server over real connections, as its clients see it.

mod append;
mod console;
mod event_json;
mod follow;
mod operation;
mod problem;
mod read;
mod shutdown;
mod support;
