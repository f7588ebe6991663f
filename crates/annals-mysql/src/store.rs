//! A log in a MariaDB or MySQL database: the parts of the store, and the part that executes each call.

use std::sync::Arc;

use annals_core::{
    Append, Appended, EventStore, IdempotencyKey, Invalid, Limits, LogPage, LogRead, Position, Result,
    StoreId, StreamInfo, StreamList, StreamPage, StreamRead, Witness,
};
use annals_sql::{
    Committer, GROUP_BYTES_MAX, Lineage, Predecessors, Progress, conditions_name_predecessor,
    names_predecessor, of_opening, outcome_at, weight,
};
use annals_state::Inlines;
use async_trait::async_trait;

use crate::append::Link;
use crate::options::Address;
use crate::read::Reader;
use crate::session::Connector;
use crate::watch::Watch;
use crate::{Options, schema};

/// A log in a MariaDB or MySQL database. Any number of processes may open it.
pub struct MySqlStore {
    id: StoreId,
    limits: Limits,
    /// The largest weight of an append that the server accepts.
    weight_max: usize,
    reader: Arc<Reader>,
    committer: Committer,
    progress: Progress,
    inlines: Inlines,
    _watch: Watch,
}

impl MySqlStore {
    /// Opens the log with this address, `mysql://USER:PASSWORD@HOST:PORT/DATABASE`; creates its tables if
    /// they are missing. The database is for the log alone. Must be called on the runtime on which the store
    /// is used.
    ///
    /// # Errors
    /// `Invalid` if the address is not valid, leads to a proxy that does not keep sessions, or the tables are
    /// newer than this version; `Unavailable` if the server is not reached or refuses.
    pub async fn open(url: &str, options: Options) -> Result<Self> {
        let address: Address = url.parse()?;
        let (id, packet, opened) = schema::open(&address, &options).await.map_err(of_opening)?;
        let progress = Progress::at(Position::ZERO);
        let lineage = Arc::new(Lineage::of(id, progress.clone()));
        let reader = Arc::new(Reader {
            pool: Connector::reading(&address, &options).pool(),
            lineage: lineage.clone(),
            silence: options.silence(),
            replica: options.replica,
            predecessors: Predecessors::default(),
        });
        progress.passed(reader.head().await.map_err(of_opening)?);
        opened.check_same_log().await.map_err(of_opening)?;
        reader.pool.reserve();
        let watch = Watch::start(reader.clone(), options.poll, progress.clone());
        let (limits, clock) = (options.limits, options.clock.clone());
        // Two digits per byte, and some space for the rest of the statement.
        let weight_max = packet / 5 * 2;
        let connector = Arc::new(Connector::writing(&address, &options).ended_with(reader.pool.driver()));
        let (link, inlines) = (Link { connector, lineage, options }, Inlines::default());
        let committer =
            Committer::start(link, clock, progress.clone(), inlines.clone(), GROUP_BYTES_MAX.min(weight_max));
        Ok(Self { id, limits, weight_max, reader, committer, progress, inlines, _watch: watch })
    }

    /// The projections that process events in the transaction of their append.
    pub fn inlines(&self) -> &Inlines {
        &self.inlines
    }

    /// Finishes the appends in progress and closes the connections.
    pub async fn close(self) {
        self.committer.close().await;
        drop(self._watch);
        self.reader.pool.close();
    }
}

#[async_trait]
impl EventStore for MySqlStore {
    fn id(&self) -> StoreId {
        self.id
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        append.validate(&self.limits)?;
        self.reader.check_predecessors(conditions_name_predecessor(&append)).await?;
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
        read.validate(&self.limits)?;
        self.reader.check_predecessors(names_predecessor(&read.query)).await?;
        self.reader.log(&read).await
    }

    async fn read_log_after(&self, read: LogRead, seen: Witness) -> Result<Option<LogPage>> {
        read.validate(&self.limits)?;
        self.reader.check_predecessors(names_predecessor(&read.query)).await?;
        self.reader.log_after(&read, seen).await
    }

    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        self.reader.stream(&read).await
    }

    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        self.reader.streams(&list).await
    }

    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        match self.reader.keyed(key).await? {
            Some(first) => outcome_at(self, first, key).await,
            None => Ok(None),
        }
    }

    async fn head(&self) -> Result<Position> {
        self.reader.head().await
    }

    async fn wait(&self, after: Position) -> Result<Position> {
        self.progress.wait(after).await
    }
}
