//! A log in a MariaDB or MySQL database: the parts of the store, and what each call goes to.

use annals_core::{
    Append, Appended, EventStore, IdempotencyKey, Invalid, Limits, LogPage, LogRead, Position, Result,
    StoreId, StreamInfo, StreamList, StreamPage, StreamRead,
};
use annals_sql::{Committer, GROUP_BYTES_MAX, Inlines, Progress, outcome_at, weight};
use async_trait::async_trait;
use sqlx::mysql::MySqlPool;

use crate::append::Link;
use crate::error::failed;
use crate::options::Address;
use crate::watch::Watch;
use crate::{Options, read, schema, session};

/// A log in a MariaDB or MySQL database. Any number of processes may have it open.
pub struct MySqlStore {
    id: StoreId,
    limits: Limits,
    /// What an append may weigh, so that the server lets it through.
    weight_max: usize,
    pool: MySqlPool,
    committer: Committer,
    progress: Progress,
    inlines: Inlines,
    _watch: Watch,
}

impl MySqlStore {
    /// Opens the log with this address, `mysql://USER:PASSWORD@HOST:PORT/DATABASE`; makes its tables if need be. The
    /// database is the log's alone. Must be called on the runtime that the store is used on.
    ///
    /// # Errors
    /// `Invalid` if the address is none or the tables are newer than this version; `Unavailable` if the server is not
    /// reached or refuses.
    pub async fn open(url: &str, options: Options) -> Result<Self> {
        let address: Address = url.parse()?;
        let (id, packet) = schema::open(&address, &options).await?;
        let pool = session::pool(&address, &options);
        let progress = Progress::at(read::head(&pool).await.map_err(failed)?);
        let watch = Watch::start(pool.clone(), options.poll, progress.clone());
        let clock = options.clock.clone();
        let limits = options.limits;
        // Two digits a byte, and some space for what stands around them.
        let weight_max = packet / 5 * 2;
        let (link, inlines) = (Link { address, options }, Inlines::default());
        let committer =
            Committer::start(link, clock, progress.clone(), inlines.clone(), GROUP_BYTES_MAX.min(weight_max));
        Ok(Self { id, limits, weight_max, pool, committer, progress, inlines, _watch: watch })
    }

    /// The projections that take events in the transaction of their append.
    pub fn inlines(&self) -> &Inlines {
        &self.inlines
    }

    /// Finishes the appends that are under way and gives the connections back.
    pub async fn close(self) {
        self.committer.close().await;
        drop(self._watch);
        self.pool.close().await;
    }
}

#[async_trait]
impl EventStore for MySqlStore {
    fn id(&self) -> StoreId {
        self.id
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        append.validate(&self.limits)?;
        let weight = weight(&append);
        if weight > self.weight_max {
            let problem = format!(
                "takes {weight} bytes of {} that the server's max_allowed_packet lets through: raise that, or append less at \
                 once",
                self.weight_max
            );
            return Err(Invalid::new("append", problem).into());
        }
        self.committer.append(self, append).await
    }

    async fn read_log(&self, read: LogRead) -> Result<LogPage> {
        read::log(&self.pool, &read).await
    }

    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        read::stream(&self.pool, &read).await
    }

    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        read::streams(&self.pool, &list).await
    }

    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        match read::keyed(&self.pool, key).await? {
            Some(first) => outcome_at(self, first).await.map(Some),
            None => Ok(None),
        }
    }

    async fn head(&self) -> Result<Position> {
        read::head(&self.pool).await.map_err(failed)
    }

    async fn wait(&self, after: Position) -> Result<Position> {
        Ok(self.progress.wait(after).await)
    }
}
