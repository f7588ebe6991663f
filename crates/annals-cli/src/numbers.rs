//! Parsers for numbers on the command line.

/// Parses a whole number, with a clearer message than that of the standard library.
pub(crate) fn whole_number(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "is not a whole number from 0 up")
}

/// Parses a count, at least 1.
pub(crate) fn count(text: &str) -> Result<u64, &'static str> {
    text.parse().ok().filter(|count| *count > 0).ok_or("is not a whole number from 1 up")
}

/// Parses a rate in MiB per second; returns bytes per second.
pub(crate) fn rate(text: &str) -> Result<u64, &'static str> {
    let mebibytes = whole_number(text).ok().filter(|mebibytes| (1..=1 << 30).contains(mebibytes));
    mebibytes.map(|mebibytes| mebibytes << 20).ok_or("is not a whole number of MiB a second, from 1 up")
}
