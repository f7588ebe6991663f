//! Tephra, embedded, as its documentation uses it: a stream is a tag, a condition asks that no event with the
//! tag came after the last one that the writer knows. Segments of 256 MiB, the writer's default
//! configuration.

use std::path::Path;

use anyhow::Result;
use async_trait::async_trait;
use tephra::{
    AppendCondition, AppendError, Event, EventType, Position, Query, QueryItem, SegmentConfig, SegmentSet,
    Tag, Tags, WriteCoordinator, WriteHandle, WriterConfig,
};

use crate::rival::{Answer, Drive, Request, Rival, See};

const SEGMENT_BYTES: usize = 256 << 20;

/// An embedded store of Tephra.
pub struct TephraStore {
    handle: WriteHandle,
    // Dropped last: waits for the writer's thread.
    _coordinator: WriteCoordinator,
}

impl TephraStore {
    /// Opens the store.
    ///
    /// # Errors
    /// As the store's.
    pub fn open(directory: &Path) -> Result<Self> {
        let segments = SegmentSet::open(directory, SegmentConfig::new(SEGMENT_BYTES))?;
        let (coordinator, handle) = WriteCoordinator::start(segments, WriterConfig::default())?;
        Ok(Self { handle, _coordinator: coordinator })
    }

    /// The events, encoded as the store wants them, and the condition.
    fn encode(&self, request: Request) -> Result<(Vec<Event>, Option<AppendCondition>)> {
        let mut events = Vec::with_capacity(request.parts.iter().map(|part| part.data.len()).sum());
        let mut items = Vec::with_capacity(request.parts.len());
        let mut after = 0;
        for part in request.parts {
            let stream = Tag::new(part.stream)?;
            let mut all = vec![stream.clone()];
            all.extend(part.tag.map(Tag::new).transpose()?);
            let (event_type, tags) = (EventType::new(part.event_type)?, Tags::new(all)?);
            for data in &part.data {
                events.push(Event::new(&event_type, &tags, data)?);
            }
            if request.conditional {
                after = after.max(part.seen.position);
                items.push(QueryItem::with_tags(Tags::new([stream])?));
            }
        }
        let condition = || AppendCondition::new(Query::items(items)).after(Position::new(after));
        Ok((events, request.conditional.then(condition)))
    }
}

#[async_trait]
impl Rival for TephraStore {
    fn drives(&self) -> &'static [Drive] {
        &[Drive::Threads, Drive::Tasks]
    }

    async fn append(&self, request: Request, _caller: usize, drive: Drive) -> Result<Answer> {
        let (events, condition) = self.encode(request)?;
        let appended = match drive {
            Drive::Threads => self.handle.append(events, condition),
            Drive::Tasks => self.handle.append_async(events, condition).await,
        };
        match appended {
            Ok(range) => Ok(Answer::Written(range.last.get())),
            Err(AppendError::Conflict { .. }) => Ok(Answer::Refused),
            Err(error) => Err(error.into()),
        }
    }

    async fn stream(&self, name: &str, _caller: usize, see: See<'_>) -> Result<()> {
        let query = Query::item(QueryItem::with_tags(Tags::new([Tag::new(name)?])?));
        let mut reads = self.handle.read(&query, Position::ZERO, None);
        while let Some(item) = reads.next() {
            see(item?.event.data());
        }
        Ok(())
    }

    async fn tag(&self, name: &str, caller: usize, see: See<'_>) -> Result<()> {
        self.stream(name, caller, see).await
    }

    async fn log(&self, see: See<'_>) -> Result<()> {
        let mut reads = self.handle.read(&Query::all(), Position::ZERO, None);
        while let Some(item) = reads.next() {
            see(item?.event.data());
        }
        Ok(())
    }

    async fn count(&self) -> Result<u64> {
        Ok(self.handle.head().get())
    }
}
