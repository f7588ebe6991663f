//! The store on MariaDB, on a real server that the tests start themselves.

mod contract;
mod order;
mod outages;
mod plans;
mod support;
