//! A plain table on PostgreSQL, as a good team would write it: one prepared statement that inserts all events
//! of an append, a unique index over stream and version, a connection for each caller over a socket of the
//! system.
//!
//! The server is an own cluster below the directory of the run, or whatever a URL names. Positions come from
//! a sequence: they can have gaps, and a reader may see a later one before an earlier. Annals promises more.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use tokio::sync::OnceCell;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, Statement};

use crate::events::ORDER;
use crate::rival::{Answer, Drive, Request, Rival, See};

/// How to get a server, for who has none.
pub const MISSING: &str =
    "postgres is skipped: no server found (apt-get install postgresql, or give --postgres URL)";
const CONNECTIONS: usize = 128;
const SETTINGS: &str =
    "-c listen_addresses='' -c max_connections=200 -c shared_buffers=512MB -c max_wal_size=4GB";

/// A server of PostgreSQL.
pub enum Server {
    /// Somebody else's.
    Given {
        /// Where.
        url: String,
    },
    /// Ours, ended when this is dropped.
    Own {
        /// The folder of its programs.
        programs: PathBuf,
        /// The cluster.
        directory: PathBuf,
    },
}

impl Server {
    /// Starts a server of our own below this directory; `None` if there is no PostgreSQL on this machine.
    ///
    /// # Errors
    /// If there is one and it does not start.
    pub fn start(directory: &Path) -> Result<Option<Self>> {
        let Some(programs) = programs() else { return Ok(None) };
        let directory = directory.join("postgres");
        std::fs::create_dir_all(&directory)?;
        if rustix::process::getuid().is_root() {
            run(Command::new("chown").arg("postgres").arg(&directory))?;
        }
        let server = Self::Own { programs, directory };
        server.program("initdb", &["--no-sync", "-A", "trust", "-U", "rivals", "-E", "UTF8"])?;
        server.start_again()?;
        Ok(Some(server))
    }

    /// Ends the server and starts it again, so that it holds nothing in memory.
    ///
    /// # Errors
    /// If it is not ours.
    pub fn restart(&mut self) -> Result<()> {
        self.program("pg_ctl", &["stop", "-w", "-m", "fast"])?;
        self.start_again()
    }

    fn start_again(&self) -> Result<()> {
        let Self::Own { directory, .. } = self else { bail!("the server is not ours to start") };
        let directory = directory.display();
        let options = format!("{SETTINGS} -c unix_socket_directories='{directory}'");
        self.program("pg_ctl", &["start", "-w", "-l", &format!("{directory}/log"), "-o", &options])
    }

    /// Runs one of the server's programs on the cluster, as a user that it accepts.
    fn program(&self, name: &str, arguments: &[&str]) -> Result<()> {
        let Self::Own { programs, directory } = self else { bail!("the server is not ours") };
        let mut command = Command::new(programs.join(name));
        if rustix::process::getuid().is_root() {
            command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(programs.join(name));
        }
        run(command.arg("-D").arg(directory.join("data")).args(arguments).current_dir(directory))
    }

    fn url(&self) -> String {
        match self {
            Self::Given { url } => url.clone(),
            Self::Own { directory, .. } => {
                format!("host={} user=rivals dbname=postgres", directory.display())
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Self::Own { .. } = self {
            let _ = self.program("pg_ctl", &["stop", "-w", "-m", "immediate"]);
        }
    }
}

/// Stops a server that was started below this directory, if one was.
pub fn stop_below(directory: &Path) {
    let directory = directory.join("postgres");
    if let Some(programs) = programs().filter(|_| directory.exists()) {
        drop(Server::Own { programs, directory });
    }
}

fn run(command: &mut Command) -> Result<()> {
    // The server inherits what `pg_ctl` has open: pipes would never end.
    let status = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run {command:?}"))?;
    if status.success() { Ok(()) } else { bail!("{command:?} ended with {status}") }
}

fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH")?));
    folders.into_iter().rev().find(|folder| folder.join("initdb").exists() && folder.join("pg_ctl").exists())
}

/// A table of its own on a server.
pub struct PostgresStore {
    url: String,
    table: String,
    callers: Vec<OnceCell<Caller>>,
}

struct Caller {
    client: Client,
    insert: Statement,
    select: Statement,
}

impl PostgresStore {
    /// The table that is called as the directory is; creates it if need be.
    ///
    /// # Errors
    /// As the server's.
    pub async fn open(server: &Server, directory: &Path) -> Result<Self> {
        // Named after the run and the purpose: the server may be one that others use.
        let folders: Vec<_> =
            directory.iter().rev().skip(1).take(2).filter_map(|name| name.to_str()).collect();
        let table = format!("\"{}\"", folders.join("-"));
        let callers = (0..CONNECTIONS).map(|_| OnceCell::new()).collect();
        let store = Self { url: server.url(), table, callers };
        let (client, connection) = tokio_postgres::connect(&store.url, NoTls).await?;
        tokio::spawn(connection);
        let table = &store.table;
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {table} (position BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
             stream TEXT NOT NULL, version BIGINT NOT NULL, type TEXT NOT NULL, data BYTEA NOT NULL, \
             UNIQUE (stream, version))"
        );
        client.batch_execute(&sql).await?;
        Ok(store)
    }

    async fn caller(&self, number: usize) -> Result<&Caller> {
        self.callers[number % CONNECTIONS].get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Caller> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        tokio::spawn(connection);
        let table = &self.table;
        let insert = format!(
            "WITH written AS (INSERT INTO {table} (stream, version, type, data) \
             SELECT stream, version, '{ORDER}', data \
             FROM unnest($1::text[], $2::bigint[], $3::bytea[]) AS new (stream, version, data) \
             RETURNING position) SELECT max(position) FROM written"
        );
        let select = format!("SELECT data FROM {table} WHERE stream = $1 ORDER BY version");
        let (insert, select) = (client.prepare(&insert).await?, client.prepare(&select).await?);
        Ok(Caller { client, insert, select })
    }
}

#[async_trait]
impl Rival for PostgresStore {
    fn drives(&self) -> &'static [Drive] {
        &[Drive::Tasks]
    }

    async fn append(&self, request: Request, caller: usize, _drive: Drive) -> Result<Answer> {
        let caller = self.caller(caller).await?;
        let (mut streams, mut versions, mut datas) = (Vec::new(), Vec::new(), Vec::new());
        for part in &request.parts {
            for (index, data) in part.data.iter().enumerate() {
                streams.push(part.stream.as_str());
                versions.push((part.seen.version + 1) as i64 + index as i64);
                datas.push(&data[..]);
            }
        }
        match caller.client.query_one(&caller.insert, &[&streams, &versions, &datas]).await {
            Ok(row) => Ok(Answer::Written(row.get::<_, i64>(0) as u64)),
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => Ok(Answer::Refused),
            Err(error) => Err(error.into()),
        }
    }

    async fn stream(&self, name: &str, caller: usize, see: See<'_>) -> Result<()> {
        let caller = self.caller(caller).await?;
        for row in caller.client.query(&caller.select, &[&name]).await? {
            see(row.get(0));
        }
        Ok(())
    }

    async fn tag(&self, _name: &str, _caller: usize, _see: See<'_>) -> Result<()> {
        bail!("the table has no tags")
    }

    async fn log(&self, see: See<'_>) -> Result<()> {
        let caller = self.caller(0).await?;
        let sql = format!("SELECT data FROM {} ORDER BY position", self.table);
        for row in caller.client.query(&sql, &[]).await? {
            see(row.get(0));
        }
        Ok(())
    }

    async fn count(&self) -> Result<u64> {
        let caller = self.caller(0).await?;
        let row = caller.client.query_one(&format!("SELECT count(*) FROM {}", self.table), &[]).await?;
        Ok(row.get::<_, i64>(0) as u64)
    }
}
