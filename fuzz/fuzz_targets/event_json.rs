//! A line of JSON is an event, and is the same event when it was written again; or it is refused.
#![no_main]

use annals_server::event_json::{line, parse_line};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(event) = parse_line(bytes) {
        assert_eq!(parse_line(&line(&event)).expect("what was written is read"), event);
    }
});
