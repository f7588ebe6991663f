//! Restores a log from the lines of `annals export`: ids, recorded times, keys and the boundaries of appends.
//!
//! - R1  The lines of one append become one append, with its key and its recorded time. In an empty store,
//!   the result is the same log.
//! - R2  Each append expects the versions in the file, so its events are never added to a stream with other
//!       events.
//! - R3  While the store holds exactly the beginning of the file, many appends are in flight at once, so that
//!   the store can sync them together. Each has the conditions that the last event of the previous one is the
//!   newest of its stream and that the log ends there, so none can overtake: one that does is refused, and
//!   sent again in order. In any other store, appends are sent one by one.
//! - R4  A file that is truncated within an append, or lacks lines, is refused at that line: `appends`.
//! - R5  The store recognises the appends of an earlier run by their keys or ids, and they are compared: an
//!   event counts as stored only if the one in the log has the same stream, version, id and content. A key or
//!   an id of another event stops the import.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;

use annals_core::{Append, Appended, Error, EventStore, Expected, Limits, Position, Query};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;

use super::appends::{Appends, Piece};
use super::chunks::{events_of, read_from};
use super::{BadLine, Counts, Distinct, check_signal, stopped};
use crate::output::note;

/// The maximum number of appends in flight.
const UNDER_WAY: usize = 128;
/// The maximum number of bytes of data in flight, unless one append is larger.
const UNDER_WAY_BYTES: usize = 16 << 20;

/// Writes every append of the file.
pub(crate) async fn restore(
    store: &Arc<dyn EventStore>,
    reader: Box<dyn Read>,
    report: impl Fn(&Counts),
) -> anyhow::Result<Counts> {
    let mut appends = Appends::of(reader);
    let mut flight = Flight {
        store,
        under_way: FuturesOrdered::new(),
        sent: VecDeque::new(),
        bytes: 0,
        pace: Pace::Reaching,
    };
    let mut counts = Counts::default();
    let mut begun = false;
    let mut outcome = loop {
        let sent = match appends.next_append() {
            Ok(Some(piece)) => {
                if !std::mem::replace(&mut begun, true) {
                    note_gap(&**store, &piece).await?;
                }
                flight.send(piece, &mut counts).await
            }
            Ok(None) => break Ok(()),
            Err(error) => Err(error.into()),
        };
        report(&counts);
        let sent = sent.and_then(|()| check_signal());
        if sent.is_err() {
            break sent;
        }
    };
    // Wait for the appends in flight even if one has failed, so that each is known to be stored or not.
    while !flight.sent.is_empty() {
        let landed = flight.land(&mut counts).await;
        outcome = outcome.and(landed);
    }
    report(&counts);
    outcome.map_err(|error| stopped(error, &counts))?;
    Ok(counts)
}

/// Prints a note to standard error if events are missing between the end of the log and the beginning of the
/// file.
async fn note_gap(store: &dyn EventStore, piece: &Piece) -> anyhow::Result<()> {
    let (head, first) = (store.head().await?, piece.first);
    if piece.of_log && first > head.next() {
        note(&format!(
            "annals: the file begins at position {first} and the log ends at {head}: the events between them are in neither"
        ));
    }
    Ok(())
}

/// Checks all lines of a file; returns the number of events and of streams.
pub(crate) fn check_all(reader: Box<dyn Read>) -> anyhow::Result<(u64, u64)> {
    let mut appends = Appends::of(reader);
    let (mut events, mut streams) = (0, Distinct::default());
    while let Some(piece) = appends.next_append()? {
        check_signal()?;
        let checked = piece.append.validate(&Limits::default());
        checked.map_err(|invalid| BadLine::new(piece.line, invalid.to_string()))?;
        events += piece.append.writes.len() as u64;
        piece.append.writes.iter().for_each(|write| streams.add(&write.stream));
    }
    Ok((events, streams.count()))
}

/// The advice for a key that belongs to another append.
const WITHOUT_KEY: &str = "remove `idempotency_key` from the line to import its events without it";

impl Piece {
    /// The append with conditions that bind it to its place in the file: directly after the previous one, at
    /// the end of the log.
    fn chained(&self) -> Append {
        let append = self.append.clone().unless(Query::all(), self.first.previous());
        match &self.after {
            Some((stream, version)) => append.expecting(stream, Expected::Exact(*version)),
            None => append,
        }
    }

    /// Refuses the append if the store has other events in its place (R5).
    async fn compare(&self, store: &dyn EventStore, there: &Appended) -> anyhow::Result<()> {
        let writes = &self.append.writes;
        let events = read_from(store, there.first, events_of(there).min(writes.len())).await?;
        let same = events_of(there) == writes.len()
            && writes.iter().zip(&self.versions).zip(&events).all(|((write, version), event)| {
                write.stream == event.stream() && *version == event.version() && write.event == event.to_new()
            });
        if same {
            return Ok(());
        }
        let place = events.first().map_or_else(String::new, |event| {
            format!("at position {}, version {} of `{}`", event.position(), event.version(), event.stream())
        });
        let problem = match &self.append.key {
            Some(key)
                if events.first().is_some_and(|event| event.idempotency_key().as_ref() == Some(key)) =>
            {
                format!(
                    "its key `{key}` is that of another append, {place}, so its events cannot be written; {WITHOUT_KEY}"
                )
            }
            _ => format!("its id is that of another event, {place}, which has other content"),
        };
        Err(BadLine::new(self.line, problem).into())
    }

    fn failed(&self, error: Error) -> anyhow::Error {
        match error {
            Error::Conflict(conflict) => {
                let problem = format!("{conflict}: the log holds other events than the file was made from");
                BadLine::new(self.line, problem).into()
            }
            Error::Invalid(invalid) => BadLine::new(self.line, invalid.to_string()).into(),
            Error::Reused(reused) => {
                let hint = self.append.key.as_ref().map_or_else(String::new, |_| format!("; {WITHOUT_KEY}"));
                BadLine::new(self.line, format!("{reused}{hint}")).into()
            }
            error => anyhow::Error::new(error).context(format!("line {}", self.line)),
        }
    }
}

/// The way in which appends are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// One by one: so far the store has the events of the file at the same positions.
    Reaching,
    /// Many at once: the store holds exactly the beginning of the file.
    Many,
    /// One by one: the store has other events too.
    One,
}

/// The appends in flight.
struct Flight<'s> {
    store: &'s Arc<dyn EventStore>,
    under_way: FuturesOrdered<BoxFuture<'s, annals_core::Result<Appended>>>,
    sent: VecDeque<Piece>,
    bytes: usize,
    pace: Pace,
}

impl Flight<'_> {
    /// Sends an append; waits for earlier ones if too many are in flight.
    async fn send(&mut self, piece: Piece, counts: &mut Counts) -> anyhow::Result<()> {
        if piece.after.is_none() && piece.first != Position::FIRST {
            self.pace = Pace::One;
        }
        if self.pace != Pace::Many {
            return self.send_alone(&piece, counts).await;
        }
        let full = |this: &Self| this.sent.len() >= UNDER_WAY || this.bytes + piece.bytes > UNDER_WAY_BYTES;
        while full(self) && !self.sent.is_empty() {
            self.land(counts).await?;
        }
        if self.pace != Pace::Many {
            return self.send_alone(&piece, counts).await;
        }
        self.bytes += piece.bytes;
        // Unconstrained: otherwise Tokio's cooperative budget could run later appends first.
        let appending = tokio::task::unconstrained(self.store.append(piece.chained()));
        self.under_way.push_back(Box::pin(appending));
        self.sent.push_back(piece);
        Ok(())
    }

    /// Sends an append and waits for it.
    async fn send_alone(&mut self, piece: &Piece, counts: &mut Counts) -> anyhow::Result<()> {
        let appended = self.store.append(piece.append.clone()).await;
        self.count(piece, &appended.map_err(|error| piece.failed(error))?, counts).await
    }

    /// Waits for the oldest append in flight.
    async fn land(&mut self, counts: &mut Counts) -> anyhow::Result<()> {
        let Some((outcome, piece)) = self.next_outcome().await else { return Ok(()) };
        match outcome {
            Ok(appended) => self.count(&piece, &appended, counts).await,
            Err(Error::Conflict(_)) => self.one_by_one(piece, counts).await,
            Err(error) => Err(piece.failed(error)),
        }
    }

    /// Resends the appends that were refused after a conflict, one by one.
    async fn one_by_one(&mut self, first: Piece, counts: &mut Counts) -> anyhow::Result<()> {
        self.pace = Pace::Reaching;
        let mut held_up = vec![first];
        while let Some((outcome, piece)) = self.next_outcome().await {
            match outcome {
                Ok(appended) => self.count(&piece, &appended, counts).await?,
                Err(Error::Conflict(_)) => held_up.push(piece),
                Err(error) => return Err(piece.failed(error)),
            }
        }
        for piece in held_up {
            self.send_alone(&piece, counts).await?;
        }
        Ok(())
    }

    async fn next_outcome(&mut self) -> Option<(annals_core::Result<Appended>, Piece)> {
        let outcome = self.under_way.next().await?;
        let piece = self.sent.pop_front()?;
        self.bytes -= piece.bytes;
        Some((outcome, piece))
    }

    /// Counts an append that the store has accepted.
    async fn count(&mut self, piece: &Piece, appended: &Appended, counts: &mut Counts) -> anyhow::Result<()> {
        let events = piece.append.writes.len() as u64;
        if appended.duplicate {
            piece.compare(&**self.store, appended).await?;
            counts.there += events;
        } else {
            counts.new += events;
        }
        if appended.first != piece.first {
            counts.moved += events;
            self.pace = Pace::One;
        } else if self.pace == Pace::Reaching && !appended.duplicate {
            self.pace = Pace::Many;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use annals_core::{
        ContentType, EventStoreExt, IdempotencyKey, LogPage, LogRead, MemoryStore, Metadata, NewEvent,
        StoreId, StreamId, StreamInfo, StreamList, StreamPage, StreamRead, Tag, Version,
    };

    use super::*;

    fn event(data: &'static [u8]) -> NewEvent {
        NewEvent::new("opened", data).unwrap()
    }

    fn stream(name: &str) -> StreamId {
        StreamId::new(name).unwrap()
    }

    /// A log with all features that an export must preserve.
    async fn full_log() -> Arc<dyn EventStore> {
        let store = MemoryStore::new();
        let mut rich =
            event(br#"{"n": 1.50,   "text":"<b>\u00e9\n</b>"}"#).with_tag(Tag::new("a:1").unwrap());
        rich.schema_version = 3;
        rich.occurred_at = Some("1997-01-01".parse().unwrap());
        rich.metadata = Metadata {
            process: Some("p".into()),
            initiator: Some("user:7".into()),
            predecessor: Some("m-1".into()),
            trace: Some("00-ab-cd-01".into()),
            own: [("key".into(), "value \u{7} \"quoted\"".into())].into(),
        }
        .into();
        let mut bytes = event(b"\x00\xff\n");
        bytes.content_type = ContentType::Binary;
        let mut text = event(b"plain");
        text.content_type = ContentType::new("text/plain");
        let key = IdempotencyKey::new("request-1").unwrap();
        let (a, b) = (stream("a-1"), stream("계좌-1/x y"));
        let first =
            Append::to(&a, Expected::NoStream, [rich, event(b"null")]).and_to(&b, Expected::Any, [bytes]);
        store.append(first.once(key)).await.unwrap();
        for data in [&b"{\n  \"pretty\":\r\n true }"[..], b" {} ", b"{half", b"", b"[1e999,-0.0]", b"\"\""] {
            store.append(Append::to(&b, Expected::Any, [event(data)])).await.unwrap();
        }
        store.append(Append::to(&a, Expected::Any, [text])).await.unwrap();
        for number in 0..300 {
            let name = stream(&format!("many-{}", number % 5));
            store.append(Append::to(&name, Expected::Any, [event(b"1")])).await.unwrap();
        }
        Arc::new(store)
    }

    async fn exported(store: &Arc<dyn EventStore>, from: u64) -> Vec<u8> {
        let mut lines = Vec::new();
        crate::export::write(&**store, None, from, &mut lines).await.unwrap();
        lines
    }

    async fn import(store: &Arc<dyn EventStore>, lines: &[u8]) -> anyhow::Result<Counts> {
        restore(store, Box::new(std::io::Cursor::new(lines.to_vec())), |_| {}).await
    }

    fn first_lines(lines: &[u8], count: usize) -> Vec<u8> {
        lines.split_inclusive(|&byte| byte == b'\n').take(count).flatten().copied().collect()
    }

    fn memory() -> Arc<dyn EventStore> {
        Arc::new(MemoryStore::new())
    }

    #[tokio::test]
    async fn an_export_brings_back_the_same_log() {
        let (store, copy) = (full_log().await, memory());
        let lines = exported(&store, 1).await;
        let counts = import(&copy, &lines).await.unwrap();
        assert_eq!(counts, Counts { new: 310, there: 0, moved: 0, between: 0 });
        assert_eq!(exported(&copy, 1).await, lines);
        let (log, copied) = (store.log_events(Query::all()).await, copy.log_events(Query::all()).await);
        assert_eq!(copied.unwrap(), log.unwrap());
    }

    #[tokio::test]
    async fn a_killed_restore_resumes_without_a_duplicate() {
        let store = full_log().await;
        let lines = exported(&store, 1).await;
        for done in [3, 4, 9, 57, 310] {
            let copy = memory();
            import(&copy, &first_lines(&lines, done)).await.unwrap();
            let counts = import(&copy, &lines).await.unwrap();
            assert_eq!(counts, Counts { new: 310 - done as u64, there: done as u64, moved: 0, between: 0 });
            assert_eq!(exported(&copy, 1).await, lines);
        }
    }

    #[tokio::test]
    async fn the_rest_of_a_log_continues_the_existing_part() {
        let (store, copy) = (full_log().await, memory());
        import(&copy, &first_lines(&exported(&store, 1).await, 100)).await.unwrap();
        import(&copy, &exported(&store, 101).await).await.unwrap();
        assert_eq!(exported(&copy, 1).await, exported(&store, 1).await);
    }

    #[tokio::test]
    async fn a_log_with_other_events_is_not_mixed_up_with_the_export() {
        let (store, copy) = (full_log().await, memory());
        let other = Append::to(stream("many-2"), Expected::Any, [event(b"{}")]);
        copy.append(other).await.unwrap();
        let error = format!("{:#}", import(&copy, &exported(&store, 1).await).await.unwrap_err());
        assert!(error.contains("line 13: stream `many-2` is at version 1, not 0"), "{error}");
        assert_eq!(copy.stream_version(&stream("many-2")).await.unwrap(), Version::new(1));
        assert_eq!(copy.stream_version(&stream("many-3")).await.unwrap(), Version::ZERO);
    }

    #[tokio::test]
    async fn a_log_that_has_grown_elsewhere_takes_the_rest_at_other_positions() {
        let (store, copy) = (full_log().await, memory());
        let lines = exported(&store, 1).await;
        import(&copy, &first_lines(&lines, 100)).await.unwrap();
        let other = Append::to(stream("local"), Expected::Any, [event(b"{}")]);
        copy.append(other).await.unwrap();
        let counts = import(&copy, &lines).await.unwrap();
        assert_eq!(counts, Counts { new: 210, there: 100, moved: 210, between: 0 });
    }

    /// A store that executes appends in another order than they were sent.
    struct Shuffled(MemoryStore, AtomicU64);

    #[async_trait::async_trait]
    impl EventStore for Shuffled {
        fn id(&self) -> StoreId {
            self.0.id()
        }
        async fn append(&self, append: Append) -> annals_core::Result<Appended> {
            for _ in 0..self.1.fetch_add(7, Ordering::SeqCst) % 5 {
                tokio::task::yield_now().await;
            }
            self.0.append(append).await
        }
        async fn read_log(&self, read: LogRead) -> annals_core::Result<LogPage> {
            self.0.read_log(read).await
        }
        async fn read_stream(&self, read: StreamRead) -> annals_core::Result<StreamPage> {
            self.0.read_stream(read).await
        }
        async fn list_streams(&self, list: StreamList) -> annals_core::Result<Vec<StreamInfo>> {
            self.0.list_streams(list).await
        }
        async fn outcome(&self, key: &IdempotencyKey) -> annals_core::Result<Option<Appended>> {
            self.0.outcome(key).await
        }
        async fn head(&self) -> annals_core::Result<Position> {
            self.0.head().await
        }
        async fn wait(&self, after: Position) -> annals_core::Result<Position> {
            self.0.wait(after).await
        }
    }

    #[tokio::test]
    async fn the_order_is_kept_by_a_store_that_keeps_none_among_appends_at_once() {
        let (store, copy) = (full_log().await, Shuffled(MemoryStore::new(), AtomicU64::new(0)));
        let copy: Arc<dyn EventStore> = Arc::new(copy);
        let lines = exported(&store, 1).await;
        assert_eq!(import(&copy, &lines).await.unwrap(), Counts { new: 310, there: 0, moved: 0, between: 0 });
        assert_eq!(exported(&copy, 1).await, lines);
    }

    /// The lines of an export. The first three are one append; each of the others is a separate append.
    async fn lines_of_full_log() -> Vec<Vec<u8>> {
        let lines = exported(&full_log().await, 1).await;
        lines.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect()
    }

    async fn refused(lines: &[Vec<u8>], head: u64) -> String {
        let copy = memory();
        let error = format!("{:#}", import(&copy, &lines.concat()).await.unwrap_err());
        assert_eq!(copy.head().await.unwrap(), Position::new(head), "{error}");
        check_all(Box::new(std::io::Cursor::new(lines.concat()))).unwrap_err();
        error
    }

    #[tokio::test]
    async fn a_file_that_ends_within_an_append_is_refused_and_nothing_of_the_append_is_written() {
        let lines = lines_of_full_log().await;
        for cut in [1, 2] {
            let error = refused(&lines[..cut], 0).await;
            let message =
                format!("line {cut}: the file ends within an append: this is event {cut} of the 3 events");
            assert!(error.contains(&message) && error.ends_with("nothing was written"), "{error}");
        }
        let (source, copy) = (full_log().await, memory());
        let more = [b"1", b"2"].map(|data: &'static [u8; 1]| event(data));
        source.append(Append::to(stream("last"), Expected::Any, more)).await.unwrap();
        let whole = exported(&source, 1).await;
        let error = import(&copy, &first_lines(&whole, 311)).await.unwrap_err();
        assert!(format!("{error:#}").contains("line 311: the file ends within an append"), "{error:#}");
        assert_eq!(copy.head().await.unwrap(), Position::new(310));
        assert_eq!(import(&copy, &whole).await.unwrap().new, 2, "the whole file is still taken");
        assert_eq!(exported(&copy, 1).await, whole);
    }

    #[tokio::test]
    async fn a_file_that_lacks_a_line_in_the_middle_is_refused_at_the_line_after_it() {
        let lines = lines_of_full_log().await;
        // Within an append, its first line, its last, an append of its own.
        for (without, head, message) in [
            (1, 0, "line 2: event 3 of 3 of an append comes after event 1 of 3"),
            (0, 0, "line 1: the file begins with event 2 of an append"),
            (2, 0, "line 3: the append before it has 3 events, of which the last here is event 2"),
            (20, 19, "line 21: position 22 comes after position 20"),
        ] {
            let mut lines = lines.clone();
            lines.remove(without);
            let error = refused(&lines, head).await;
            assert!(
                error.contains(message) && error.contains("lines are missing before this one"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn lines_that_changed_places_and_lines_that_are_there_twice_are_refused() {
        let lines = lines_of_full_log().await;
        for (one, other) in [(0, 1), (2, 3), (20, 21)] {
            let mut lines = lines.clone();
            lines.swap(one, other);
            let error = refused(&lines, u64::from(one == 20) * 19).await;
            assert!(error.contains(&format!("line {}: ", one + 1)), "{error}");
        }
        let mut twice = lines.clone();
        twice.extend_from_slice(&lines[309..]);
        let error = refused(&twice, 309).await;
        assert!(error.contains("line 311: position 310 comes after position 310"), "{error}");
        let twice = [&lines[..3], &lines[..3]].concat();
        assert!(refused(&twice, 0).await.contains("line 4: position 1 comes after position 3"));
    }

    #[tokio::test]
    async fn an_export_of_one_stream_is_imported_and_misses_no_line_either() {
        let store = full_log().await;
        let export = async |from| {
            let mut lines = Vec::new();
            crate::export::write(&*store, Some(&stream("a-1")), from, &mut lines).await.unwrap();
            lines.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        let lines = export(1).await;
        let copy = memory();
        assert_eq!(import(&copy, &lines.concat()).await.unwrap().new, 3);
        for (lines, message) in [
            (lines[..1].to_vec(), "line 1: the file ends within an append"),
            (vec![lines[0].clone(), lines[2].clone()], "line 2: the append before it has 2 events"),
            (export(2).await, "line 1: the file begins with event 2 of an append"),
        ] {
            let error = refused(&lines, 0).await;
            assert!(error.contains(message), "{error}");
        }
        assert_eq!(export(3).await, lines[2..]);
    }

    #[tokio::test]
    async fn lines_that_were_left_out_on_purpose_are_not_missed_without_the_numbers() {
        let lines = lines_of_full_log().await;
        let chosen = lines.iter().map(|line| String::from_utf8_lossy(line));
        let chosen: String = chosen.filter(|line| line.contains("many-3")).collect();
        let error = format!("{:#}", import(&memory(), chosen.as_bytes()).await.unwrap_err());
        assert!(error.contains("are not missed if `append_event`"), "{error}");
        let chosen = chosen.replace(",\"append_event\":1,\"append_events\":1", "");
        assert_eq!(import(&memory(), chosen.as_bytes()).await.unwrap().new, 60);
    }

    #[tokio::test]
    async fn a_line_that_is_no_event_is_named() {
        let store = full_log().await;
        let mut lines = first_lines(&exported(&store, 1).await, 5);
        lines.extend_from_slice(b"{\"position\":6}\n");
        let copy = memory();
        let error = format!("{:#}", import(&copy, &lines).await.unwrap_err());
        assert!(error.contains("line 6: is not a line of `annals export`"), "{error}");
        assert_eq!(
            copy.head().await.unwrap(),
            Position::new(4),
            "the append that the bad line may belong to waits"
        );
    }
}
