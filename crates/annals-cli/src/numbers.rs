//! Numbers of the command line.

/// Reads a number of the command line; the message of the standard library speaks of digits and strings.
pub(crate) fn whole_number(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "is not a whole number from 0 up")
}

/// Reads how many of something there may be.
pub(crate) fn count(text: &str) -> Result<u64, &'static str> {
    text.parse().ok().filter(|count| *count > 0).ok_or("is not a whole number from 1 up")
}

/// Reads a rate: bytes a second, given in MiB.
pub(crate) fn rate(text: &str) -> Result<u64, &'static str> {
    let mebibytes = whole_number(text).ok().filter(|mebibytes| (1..=1 << 30).contains(mebibytes));
    mebibytes.map(|mebibytes| mebibytes << 20).ok_or("is not a whole number of MiB a second, from 1 up")
}
