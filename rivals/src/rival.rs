//! What a workload asks of any store. Each store answers in its own best way: see `peers`.

use anyhow::Result;
use async_trait::async_trait;
use bytes::Bytes;

/// How callers call a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Drive {
    /// Each caller is a thread of the system and waits in it.
    Threads,
    /// Each caller is a task of tokio.
    Tasks,
}

/// What a writer knows of a stream: where its last event stands. All zero for a new stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Events of the stream.
    pub version: u64,
    /// Position of the last of them in the log.
    pub position: u64,
}

/// Events for one stream.
#[derive(Clone, Debug)]
pub struct Part {
    /// The stream.
    pub stream: String,
    /// What the writer knows of it.
    pub seen: Seen,
    /// The type of the events.
    pub event_type: &'static str,
    /// A tag of the events, besides their stream.
    pub tag: Option<String>,
    /// The events' data.
    pub data: Vec<Bytes>,
}

/// One atomic append.
#[derive(Clone, Debug)]
pub struct Request {
    /// The events, in the order of the log.
    pub parts: Vec<Part>,
    /// Whether it may commit only if every stream is as the writer has seen it.
    pub conditional: bool,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is durable; its last event is at this position.
    Written(u64),
    /// A stream was not as the writer thought. Nothing was written.
    Refused,
}

impl Answer {
    /// The position of an append that nobody contests.
    ///
    /// # Errors
    /// If it was refused all the same.
    pub fn written(self) -> Result<u64> {
        match self {
            Self::Written(position) => Ok(position),
            Self::Refused => anyhow::bail!("an append that nobody contests was refused"),
        }
    }
}

/// Is shown the data of each event that is read, in order.
pub type See<'a> = &'a mut (dyn FnMut(&[u8]) + Send);

/// A store under measurement. `caller` numbers those who call at the same time, from 0.
#[async_trait]
pub trait Rival: Send + Sync {
    /// The ways in which the store can be called; the first is the one for reads.
    fn drives(&self) -> &'static [Drive];

    /// Carries out an append and answers when it is durable.
    async fn append(&self, request: Request, caller: usize, drive: Drive) -> Result<Answer>;

    /// Reads one stream from its first event to its last.
    async fn stream(&self, name: &str, caller: usize, see: See<'_>) -> Result<()>;

    /// Reads the events with this tag, in the order of the log.
    async fn tag(&self, name: &str, caller: usize, see: See<'_>) -> Result<()>;

    /// Reads the whole log.
    async fn log(&self, see: See<'_>) -> Result<()>;

    /// Reads the whole log by pages of this many events, where a store has pages.
    async fn pages(&self, _events: usize, see: See<'_>) -> Result<()> {
        self.log(see).await
    }

    /// How many events there are.
    async fn count(&self) -> Result<u64>;
}
