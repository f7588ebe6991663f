//! See `annals_engine::fuzzing::index`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_engine::fuzzing::index(bytes));
