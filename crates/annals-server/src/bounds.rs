//! What all connections together may take of the machine.

use std::time::Duration;

/// What all connections together may take. Whatever is beyond a bound is answered 503 `overloaded`, or its live
/// stream ends, and the client comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at once. 10,000 by default.
    pub connections: usize,
    /// Live streams at once. 8,000 by default.
    pub live_streams: usize,
    /// Bytes of answers that wait to be sent, over all connections. 64 MiB by default. A page of a live stream counts
    /// once for all who are sent it; answers of up to 16 KiB do not count.
    pub sending_bytes: usize,
    /// Bytes of bodies that are received or worked on, over all connections. 128 MiB by default; at least one body of
    /// the largest size has room.
    pub body_bytes: usize,
    /// How long a client may take nothing of what it is sent before it is cut off. 60 seconds by default. While there is
    /// no room for others, a client that takes nothing is cut off after a twelfth of it.
    pub patience: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 10_000,
            live_streams: 8_000,
            sending_bytes: 64 << 20,
            body_bytes: 128 << 20,
            patience: Duration::from_secs(60),
        }
    }
}
