//! The view of the log for a token of some categories: an [`EventStore`] that shows only the events of these.
//!
//! - S1  It is a log with gaps: a hidden event is on no page, has no witness and is never the head. Positions
//!   and versions are those of the whole log.
//! - S2  A page ends next to a visible event, and the head is the newest visible event, so a position given
//!   to the client never names an event of another category.
//! - S3  The text of an error may quote hidden data. It is written to the server's log, and the caller gets
//!       only the kind.
//!
//! The rights of a token are checked before (`rights.rs`), so that a refusal has a reason; here a hidden
//! event is just not found.

use std::sync::Arc;

use annals_core::{
    Append, Appended, Category, Condition, Direction, Error, EventStore, IdempotencyKey, Invalid, Location,
    LogPage, LogRead, Position, Query, QueryItem, Result, Reused, StoreId, StreamInfo, StreamList,
    StreamPage, StreamRead, Version, Violated, Witness,
};
use async_trait::async_trait;

use super::rights::{Categories, Rights};

/// Most names of a query that lists each category. If there are more, the original query is used, and the
/// events are filtered afterwards.
const NAMES_MAX: usize = 256;
/// The cause of an error whose text is withheld.
const KEPT_BACK: &str = "the server's log has the cause";

/// A log that shows the events of some categories.
pub(crate) struct Scoped {
    store: Arc<dyn EventStore>,
    rights: Arc<Rights>,
}

impl Scoped {
    /// The view of the log for these rights.
    pub(crate) fn new(store: Arc<dyn EventStore>, rights: Arc<Rights>) -> Self {
        Self { store, rights }
    }

    /// The query, restricted to the visible categories. `None` if it matches no visible event.
    fn narrowed(&self, query: &Query) -> Option<Query> {
        let Categories::These(categories) = &self.rights.read else { return Some(query.clone()) };
        let all = [QueryItem::default()];
        let items = if query.items.is_empty() { &all[..] } else { &query.items };
        let mut narrowed = Vec::new();
        for item in items {
            match &item.category {
                Some(category) if self.rights.read.has(category.as_str()) => narrowed.push(item.clone()),
                Some(_) => {}
                None => narrowed.extend(categories.iter().map(|category| of_category(item, category))),
            }
        }
        let names = |item: &QueryItem| item.types.len() + item.tags.len() + 1;
        if narrowed.iter().map(names).sum::<usize>() > NAMES_MAX {
            return Some(query.clone());
        }
        // A query without items would match every event.
        (!narrowed.is_empty()).then_some(Query { items: narrowed })
    }

    /// The query for every visible event.
    fn shown(&self) -> Option<Query> {
        self.narrowed(&Query::all())
    }

    /// The position of the newest visible event up to this position; 0 if there is none.
    async fn newest(&self, up_to: Position) -> Result<Position> {
        Ok(self.first(LogRead::backward(up_to)).await?.unwrap_or(Position::ZERO))
    }

    /// The position of the oldest visible event from this position on.
    async fn oldest(&self, from: Position) -> Result<Option<Position>> {
        self.first(LogRead::forward(from)).await
    }

    /// The position of the first visible event of this read.
    async fn first(&self, read: LogRead) -> Result<Option<Position>> {
        let Some(query) = self.shown() else { return Ok(None) };
        let mut read = read.matching(query).limit(1);
        loop {
            let page = self.store.read_log(read.clone()).await.map_err(kept_back)?;
            let moves = match read.direction {
                Direction::Forward => page.next > read.from,
                Direction::Backward => page.next < read.from,
            };
            match page.events.first() {
                Some(event) => return Ok(Some(event.position())),
                None if page.end || !moves => return Ok(None),
                None => read.from = page.next,
            }
        }
    }

    /// The page of a read that matches no visible event.
    async fn empty(&self, read: &LogRead) -> Result<LogPage> {
        let head = self.newest(Position::MAX).await?;
        let next = match read.direction {
            Direction::Forward => read.from.max(head.min(read.to).next()),
            Direction::Backward => Position::ZERO,
        };
        Ok(LogPage { events: Vec::new(), next, end: true, head })
    }

    async fn read_forward(&self, mut read: LogRead) -> Result<LogPage> {
        let from = read.from.max(Position::FIRST);
        loop {
            let mut page = self.store.read_log(read.clone()).await.map_err(kept_back)?;
            page.events.retain(|event| self.rights.read.has(event.category()));
            let looked_at = page.next.previous();
            let reached = match page.events.last() {
                Some(last) if last.position() == looked_at => looked_at,
                _ => self.newest(looked_at).await?,
            };
            if reached < from && !page.end && page.next > read.from {
                // No event of this range is visible.
                read.from = page.next;
                continue;
            }
            page.next = from.max(reached.next());
            page.head = if reached == page.head { reached } else { self.newest(page.head).await? };
            return Ok(page);
        }
    }

    async fn read_backward(&self, mut read: LogRead) -> Result<LogPage> {
        let from = read.from;
        loop {
            let mut page = self.store.read_log(read.clone()).await.map_err(kept_back)?;
            page.events.retain(|event| self.rights.read.has(event.category()));
            let looked_at = page.next.next();
            let reached = match page.events.last() {
                Some(last) if last.position() == looked_at => Some(looked_at),
                _ => self.oldest(looked_at).await?,
            };
            let passed = reached.is_none_or(|reached| reached > from);
            if passed && !page.end && page.next < read.from {
                read.from = page.next;
                continue;
            }
            page.next = reached.map_or(Position::ZERO, Position::previous);
            page.head = self.newest(page.head).await?;
            return Ok(page);
        }
    }
}

#[async_trait]
impl EventStore for Scoped {
    fn id(&self) -> StoreId {
        self.store.id()
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        if let Err(forbidden) = self.rights.append(&append) {
            return Err(Invalid::new(forbidden.field, forbidden.problem).into());
        }
        let outcome = self.store.append(append.clone()).await;
        match outcome {
            Ok(outcome) if outcome.duplicate && !self.rights.sees_outcome(&outcome, &append) => {
                Err(hidden(&append))
            }
            Err(Error::Reused(reused)) if !self.rights.read.has_stream(&reused.stream) => {
                Err(hidden(&append))
            }
            Err(Error::Conflict(mut conflict)) => {
                for violation in &mut conflict.violations {
                    // The lost event may be of any category.
                    if let Violated::History { seen } = &mut violation.violated
                        && !names(&append, violation.condition, *seen)
                    {
                        *seen = Witness::origin(self.id());
                    }
                }
                Err(Error::Conflict(conflict))
            }
            Err(Error::Invalid(invalid)) => {
                tracing::error!("an append is refused: {invalid}");
                Err(Invalid::new(invalid.field, format!("is refused by the store; {KEPT_BACK}")).into())
            }
            outcome => outcome.map_err(kept_back),
        }
    }

    async fn read_log(&self, read: LogRead) -> Result<LogPage> {
        if self.rights.read == Categories::All {
            return self.store.read_log(read).await.map_err(kept_back);
        }
        let Some(query) = self.narrowed(&read.query) else { return self.empty(&read).await };
        let read = LogRead { query, ..read };
        match read.direction {
            Direction::Forward => self.read_forward(read).await,
            Direction::Backward => self.read_backward(read).await,
        }
    }

    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        if self.rights.read.has_stream(&read.stream) {
            return self.store.read_stream(read).await.map_err(kept_back);
        }
        let next = if read.direction == Direction::Forward { read.from } else { Version::ZERO };
        Ok(StreamPage { events: Vec::new(), next, end: true, version: Version::ZERO })
    }

    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        let categories = match (&self.rights.read, &list.category) {
            (Categories::All, _) => return self.store.list_streams(list).await.map_err(kept_back),
            (read, Some(category)) if !read.has(category.as_str()) => return Ok(Vec::new()),
            (_, Some(category)) => std::slice::from_ref(category),
            (Categories::These(categories), None) => categories,
        };
        let mut found = Vec::new();
        for category in categories {
            let list = StreamList { category: Some(category.clone()), ..list.clone() };
            found.extend(self.store.list_streams(list).await.map_err(kept_back)?);
        }
        found.sort_unstable_by(|one, other| one.stream.as_str().cmp(other.stream.as_str()));
        found.truncate(list.limit.max(1));
        Ok(found)
    }

    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        let outcome = self.store.outcome(key).await.map_err(kept_back)?;
        Ok(outcome
            .filter(|outcome| outcome.streams.iter().all(|(stream, _)| self.rights.read.has_stream(stream))))
    }

    async fn head(&self) -> Result<Position> {
        self.newest(Position::MAX).await
    }

    async fn wait(&self, after: Position) -> Result<Position> {
        loop {
            let looked_at = self.store.head().await.map_err(kept_back)?;
            let head = self.newest(looked_at).await?;
            if head > after {
                return Ok(head);
            }
            self.store.wait(looked_at.max(after)).await.map_err(kept_back)?;
        }
    }
}

fn of_category(item: &QueryItem, category: &Category) -> QueryItem {
    QueryItem { category: Some(category.clone()), ..item.clone() }
}

/// Whether the condition names this event.
fn names(append: &Append, condition: usize, seen: Witness) -> bool {
    matches!(append.conditions.get(condition), Some(Condition::NoMatch { after, .. }) if after.witness() == Some(seen))
}

/// The error for a key or ids that belong to a hidden append.
fn hidden(append: &Append) -> Error {
    let stream = append.writes[0].stream.clone();
    let (key, field) = (append.key.clone(), String::new());
    Error::Reused(Box::new(Reused { key, first: Position::ZERO, stream, field }))
}

/// Whether the earlier append is hidden.
pub(crate) fn is_hidden(reused: &Reused) -> bool {
    // No event has position 0.
    reused.first == Position::ZERO
}

/// An error of the same kind, without its text.
fn kept_back(error: Error) -> Error {
    if !matches!(error, Error::Conflict(_) | Error::Invalid(_) | Error::Reused(_)) {
        tracing::error!(code = error.code(), "{}", error.chain());
    }
    match error {
        Error::Unavailable(_) => Error::Unavailable(KEPT_BACK.into()),
        Error::Unusable(_) => Error::Unusable(KEPT_BACK.into()),
        Error::NoStore(_) => Error::NoStore(KEPT_BACK.into()),
        Error::Unreadable(_) => Error::Unreadable(KEPT_BACK.into()),
        Error::Indeterminate(_) => Error::Indeterminate(KEPT_BACK.into()),
        Error::Poisoned(_) => Error::Poisoned(KEPT_BACK.into()),
        Error::Damaged { .. } => {
            let location = Location { file: "the log".to_owned(), offset: 0, position: None };
            Error::Damaged { location, cause: KEPT_BACK.into() }
        }
        error @ (Error::Conflict(_) | Error::Invalid(_) | Error::Reused(_) | Error::Closed) => error,
        _ => Error::Internal(KEPT_BACK.into()),
    }
}
