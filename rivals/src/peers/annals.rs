//! Annals, embedded, with its default options.

use std::ops::ControlFlow;
use std::path::Path;

use annals_core::{
    Append, Error, EventStore, Expected, LogRead, NewEvent, Position, Query, StreamId, StreamRead, Tag,
    Version,
};
use annals_engine::{EngineStore, Options};
use anyhow::Result;
use async_trait::async_trait;

use crate::rival::{Answer, Drive, Request, Rival, See};

/// An embedded store of Annals.
pub struct AnnalsStore {
    /// The store itself, for what other stores do not have.
    pub store: EngineStore,
}

impl AnnalsStore {
    /// Opens the store.
    ///
    /// # Errors
    /// As the store's.
    pub fn open(directory: &Path) -> Result<Self> {
        Ok(Self { store: EngineStore::open(directory, Options::default())? })
    }

    async fn read(&self, mut read: LogRead, see: See<'_>) -> Result<()> {
        loop {
            let page = self.store.read_log(read.clone()).await?;
            page.events.iter().for_each(|event| see(event.data()));
            if page.end {
                return Ok(());
            }
            read.from = page.next;
        }
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
            let tag = part.tag.map(Tag::new).transpose()?;
            let event = |data| {
                let event = NewEvent::new(part.event_type, data)?;
                anyhow::Ok(match &tag {
                    Some(tag) => event.with_tag(tag.clone()),
                    None => event,
                })
            };
            let events = part.data.into_iter().map(event).collect::<Result<Vec<_>>>()?;
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

    async fn tag(&self, name: &str, _caller: usize, see: See<'_>) -> Result<()> {
        let query = Query::tags([Tag::new(name)?]);
        self.read(LogRead::forward(Position::FIRST).matching(query), see).await
    }

    async fn pages(&self, events: usize, see: See<'_>) -> Result<()> {
        self.read(LogRead::forward(Position::FIRST).limit(events), see).await
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
