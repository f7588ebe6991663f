//! See `annals_engine::fuzzing::identity`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_engine::fuzzing::identity(bytes));
