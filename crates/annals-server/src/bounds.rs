//! The limits over all connections together.

use std::time::Duration;

/// The limits over all connections together. A request beyond a limit gets 503 `overloaded`; a live stream
/// beyond one ends, and the client reconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Open connections. 10,000 by default.
    pub connections: usize,
    /// Open live streams. 8,000 by default.
    pub live_streams: usize,
    /// Bytes of responses that wait to be sent, over all connections. 64 MiB by default. A page of a live
    /// stream counts once for all its clients; responses of up to 16 KiB do not count.
    pub sending_bytes: usize,
    /// Bytes of request bodies that are being received or processed, over all connections. 128 MiB by
    /// default; always enough for one body of the maximum size.
    pub body_bytes: usize,
    /// How long a client may leave a response unread before it is disconnected. 60 seconds by default. While
    /// other requests wait for room, it is disconnected after a twelfth of this time.
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
