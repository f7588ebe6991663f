//! The kinds and versions of servers on which suites run, and the selection for a run.
//!
//! A contract runs on all of them. Other suites run on one version of each kind, to limit the duration of a
//! run, and on all if [`ALL`] is set, as `cargo xtask test --full` does.

use crate::server::{self, Server};

/// The variable with which every suite runs on every version of a server.
pub const ALL: &str = "ANNALS_ALL_SERVERS";

/// A kind of server and its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The oldest installed PostgreSQL.
    Postgres,
    /// The newest installed PostgreSQL.
    NewestPostgres,
    /// MariaDB from the system's package.
    MariaDb,
    /// The newest installed MariaDB.
    NewestMariaDb,
    /// MySQL.
    MySql,
}

impl Kind {
    /// Whether it has the protocol and the SQL of PostgreSQL.
    pub fn is_postgres(self) -> bool {
        matches!(self, Self::Postgres | Self::NewestPostgres)
    }

    /// Whether it is one of the servers of this run; prints that the test is skipped if it is not.
    pub fn is_chosen(self) -> bool {
        let is_first = !matches!(self, Self::NewestPostgres | Self::NewestMariaDb);
        let is_chosen = is_first || std::env::var_os(ALL).is_some();
        if !is_chosen {
            #[allow(clippy::print_stdout, reason = "a test says why it shows nothing")]
            {
                println!("skipped on {self:?}: `cargo xtask test --full` runs it there");
            }
        }
        is_chosen
    }

    /// Settings with which no commit waits for the disk: crashes of the machine are not tested here.
    pub fn quick(self) -> &'static [&'static str] {
        if self.is_postgres() {
            &["fsync=off", "log_min_messages=warning"]
        } else {
            &["innodb-flush-log-at-trx-commit=2"]
        }
    }

    /// A server of this kind with these settings (`name=value`).
    pub fn start(self, settings: &[&str]) -> Server {
        match self {
            Self::Postgres => server::oldest_postgres(settings),
            Self::NewestPostgres => server::newest_postgres(settings),
            Self::MariaDb => server::mariadb(settings),
            Self::NewestMariaDb => server::newest_mariadb(settings),
            Self::MySql => server::mysql(settings),
        }
    }

    /// A server of this kind on which no commit waits for the disk, with these additional settings.
    pub fn start_quick(self, more: &[&str]) -> Server {
        self.start(&[self.quick(), more].concat())
    }
}
