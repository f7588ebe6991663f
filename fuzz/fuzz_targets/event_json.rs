//! A line of JSON is an event, and is the same event when it was written again; or it is refused.
#![no_main]

use annals_json::{export_line, line, parse_export_line, parse_line};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(event) = parse_line(bytes) {
        assert_eq!(parse_line(&line(&event)).expect("what was written is read"), event);
    }
    if let Ok((event, Some(place))) = parse_export_line(bytes) {
        let again = parse_export_line(&export_line(&event, place));
        assert_eq!(again.expect("what was written is read"), (event, Some(place)));
    }
});
