//! Guides: how to do what takes more than one item of this crate. Their examples are compiled and run by its tests.

pub mod evolving_events;
