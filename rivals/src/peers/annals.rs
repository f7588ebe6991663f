//! Annals, embedded, with its default options.

use std::ops::ControlFlow;
use std::path::Path;

use annals_core::{
    Append, Error, EventStore, EventType, Expected, NewEvent, Position, StreamId, StreamRead, Version,
};
use annals_engine::{EngineStore, Options};
use anyhow::Result;
use async_trait::async_trait;

use crate::events::EVENT_TYPE;
use crate::rival::{Answer, Drive, Request, Rival, See};

/// An embedded store of Annals.
pub struct AnnalsStore {
    store: EngineStore,
    event_type: EventType,
}

impl AnnalsStore {
    /// Opens the store.
    ///
    /// # Errors
    /// As the store's.
    pub fn open(directory: &Path) -> Result<Self> {
        let store = EngineStore::open(directory, Options::default())?;
        Ok(Self { store, event_type: EventType::new(EVENT_TYPE)? })
    }
}

#[async_trait]
impl Rival for AnnalsStore {
    fn drives(&self) -> &'static [Drive] {
        &[Drive::Threads, Drive::Tasks]
    }

    async fn append(&self, request: Request, _caller: usize, _drive: Drive) -> Result<Answer> {
        let mut append = Append::new();
        for part in request.parts {
            let expected = match request.conditional {
                true => Expected::Exact(Version::new(part.seen.version)),
                false => Expected::Any,
            };
            let events = part.data.into_iter().map(|data| NewEvent::new(self.event_type.clone(), data));
            let events = events.collect::<Result<Vec<_>, _>>()?;
            append = append.and_to(StreamId::new(part.stream)?, expected, events);
        }
        match self.store.append(append).await {
            Ok(appended) => Ok(Answer::Written(appended.last.get())),
            Err(Error::Conflict(_)) => Ok(Answer::Refused),
            Err(error) => Err(error.into()),
        }
    }

    async fn stream(&self, name: &str, _caller: usize, see: See<'_>) -> Result<()> {
        let mut read = StreamRead::forward(StreamId::new(name)?, Version::FIRST);
        loop {
            let page = self.store.read_stream(read.clone()).await?;
            page.events.iter().for_each(|event| see(event.data()));
            if page.end {
                return Ok(());
            }
            read.from = page.next;
        }
    }

    async fn log(&self, see: See<'_>) -> Result<()> {
        self.store.scan(Position::FIRST, |event| {
            see(event.data());
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    async fn count(&self) -> Result<u64> {
        Ok(self.store.head().await?.get())
    }
}
