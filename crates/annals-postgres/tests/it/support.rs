//! Servers that all tests of this binary share, and a schema on one of them for each test.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use annals_testkit::server::{self, Server};

/// Which server.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    Oldest,
    Newest,
}

/// Nothing that these tests show needs the disk.
const SETTINGS: [&str; 2] = ["fsync=off", "log_min_messages=warning"];

/// The address of a log that nobody else uses.
pub fn fresh_log(which: Which) -> String {
    static OLDEST: OnceLock<Server> = OnceLock::new();
    static NEWEST: OnceLock<Server> = OnceLock::new();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let url = std::env::var("ANNALS_POSTGRES_URL").unwrap_or_else(|_| match which {
        Which::Oldest => OLDEST.get_or_init(|| server::oldest_postgres(&SETTINGS)).url(),
        Which::Newest => NEWEST.get_or_init(|| server::newest_postgres(&SETTINGS)).url(),
    });
    let more = if url.contains('?') { '&' } else { '?' };
    format!("{url}{more}schema=test_{}_{number}", std::process::id())
}
