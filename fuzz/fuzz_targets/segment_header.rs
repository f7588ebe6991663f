//! See `annals_engine::fuzzing::segment_header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_engine::fuzzing::segment_header(bytes));
