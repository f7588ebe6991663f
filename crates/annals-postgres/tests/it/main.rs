//! The store on PostgreSQL, on real servers that the tests start themselves.

mod contract;
mod order;
mod outages;
mod plans;
mod support;
