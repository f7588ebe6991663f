//! Writes rows in chunks, so that a run that was killed can be started again.
//!
//! - K1  A chunk is one append. Rows without an id column are identified by their place: the key of a chunk
//!   is a digest of the recipe, the name of the source and the number of its first row. So the imported rows
//!   of a source can be looked up in the store: they are compared with the rows of the file before anything
//!   is written. An import of a file that has grown, or one that was killed, resumes after them; another file
//!   of the same name is refused.
//! - K2  Rows with an id column may be anywhere in the file, so the key of a chunk is a digest of its rows. A
//!   chunk of which the store has some events is split in halves until every part is either new or stored.
//! - K3  A row counts as stored only if the event in the store is the one that the row makes.
//! - K4  Events are in the order of the file: a chunk is sent after the previous one was committed. The next
//!   one is read meanwhile.
//! - K5  An import that the first version of the program began is continued with its keys: `content`.

mod content;

use std::collections::VecDeque;
use std::sync::Arc;

use annals_core::{
    Append, Appended, Error, EventStore, IdempotencyKey, Invalid, LogRead, Position, RecordedEvent, Write,
};
use anyhow::Context as _;
use tokio::task::JoinHandle;

use super::recipe::Recipe;
use super::rows::{Row, Rows};
use super::{BadLine, Counts, Distinct, check_signal, stopped};

/// The maximum number of rows in a chunk. Rows that an earlier version wrote in other chunks are still found.
const CHUNK_ROWS: usize = 1_000;
/// The maximum size of a chunk in bytes, unless one row is larger.
const CHUNK_BYTES: usize = 4 << 20;

/// Writes every row as an event.
pub(crate) async fn write_all(
    store: &Arc<dyn EventStore>,
    rows: Rows,
    recipe: Recipe,
    report: impl Fn(&Counts),
) -> anyhow::Result<Counts> {
    let mut reading = Reading::new(rows, recipe)?;
    let mut counts = Counts::default();
    match reading.write_all(store, &mut counts, report).await {
        Ok(()) => Ok(counts),
        Err(error) => Err(stopped(error, &counts)),
    }
}

/// Checks all rows of a file; returns the number of events and of streams that they would become.
pub(crate) fn check_all(rows: Rows, recipe: Recipe) -> anyhow::Result<(u64, u64)> {
    let mut reading = Reading::new(rows, recipe)?;
    let (mut events, mut streams) = (0, Distinct::default());
    while let Some(row) = reading.next_row()? {
        check_signal()?;
        streams.add(&reading.recipe.write(&row)?.stream);
        events += 1;
    }
    Ok((events, streams.count()))
}

/// How imported rows are recognised.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// By their place in the source (K1).
    Place,
    /// By an id column (K2).
    Column,
    /// As by the first version (K5).
    Content {
        /// Whether the end of its rows was already searched.
        end_looked_for: bool,
    },
}

/// The rows of a file and the recipe for their events.
struct Reading {
    rows: Rows,
    recipe: Arc<Recipe>,
    known: Known,
    /// Rows that were read and put back; they are the next ones.
    carried: VecDeque<Row>,
    /// The number of rows taken.
    taken: u64,
}

/// A chunk to write.
struct Chunk {
    key: Option<IdempotencyKey>,
    /// How its rows are recognised.
    known: Known,
    recipe: Arc<Recipe>,
    rows: Vec<Row>,
    /// The event of each row.
    writes: Vec<Write>,
}

impl Reading {
    fn new(rows: Rows, recipe: Recipe) -> anyhow::Result<Self> {
        if let Some(names) = rows.names() {
            for column in recipe.columns() {
                if !names.iter().any(|name| name == column) {
                    let hint = rows.likely_delimiter();
                    let hint =
                        hint.map_or_else(String::new, |sign| format!("; for this file, --delimiter {sign}"));
                    let names = names.join(", ");
                    anyhow::bail!("there is no column `{column}`; the columns are {names}{hint}");
                }
            }
        }
        let known = if recipe.id.is_some() { Known::Column } else { Known::Place };
        Ok(Self { rows, recipe: Arc::new(recipe), known, carried: VecDeque::new(), taken: 0 })
    }

    async fn write_all(
        &mut self,
        store: &Arc<dyn EventStore>,
        counts: &mut Counts,
        report: impl Fn(&Counts),
    ) -> anyhow::Result<()> {
        if self.known == Known::Place && !self.continues_first_version(&**store).await? {
            self.pass_over(&**store, counts, &report).await?;
        }
        let mut under_way: Option<JoinHandle<(Counts, anyhow::Result<()>)>> = None;
        loop {
            let next = match check_signal() {
                Ok(()) => self.next_chunk(&**store, counts).await,
                stopped => stopped.map(|()| None),
            };
            // Finish the previous chunk even if the next one is invalid.
            if let Some(writing) = under_way.take() {
                let (written, outcome) = writing.await.context("the task that writes ended early")?;
                counts.add(written);
                report(counts);
                outcome?;
            }
            let Some(chunk) = next? else { return Ok(()) };
            let store = Arc::clone(store);
            under_way = Some(tokio::spawn(async move {
                let mut counts = Counts::default();
                let outcome = write(&*store, chunk, &mut counts).await;
                (counts, outcome)
            }));
        }
    }

    /// Skips the rows of this source that are already stored (K1).
    async fn pass_over(
        &mut self,
        store: &dyn EventStore,
        counts: &mut Counts,
        report: &impl Fn(&Counts),
    ) -> anyhow::Result<()> {
        while let Some(there) = store.outcome(&self.recipe.key_of_place(self.taken)).await? {
            check_signal()?;
            let rows = self.take(events_of(&there), usize::MAX, Row::event_bytes)?;
            let events = read_from(store, there.first, rows.len()).await?;
            for (row, event) in rows.iter().zip(&events) {
                if self.recipe.id(row)? != event.id() {
                    return Err(self.other_source(row, event).into());
                }
            }
            counts.there += rows.len() as u64;
            report(counts);
            if rows.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// The error if the stored rows of this source are not those of this file.
    fn other_source(&self, row: &Row, event: &RecordedEvent) -> BadLine {
        let same = self.recipe.write(row).is_ok_and(|write| {
            let made = write.event;
            write.stream == event.stream()
                && (made.event_type.as_str(), &*made.data, made.occurred_at)
                    == (event.event_type(), event.data(), event.occurred_at())
        });
        let name = "name it with --source NAME";
        let problem = if same {
            format!(
                "this row is in the store already, at position {}, from a file of this name in another place; if this is \
                 another file, {name}; if it is the same file and was moved, give its former path with --moved-from",
                event.position()
            )
        } else {
            format!(
                "the store has another row of this source here, at position {}; if this is another file of the same name, \
                 {name}",
                event.position()
            )
        };
        BadLine::new(row.line, problem)
    }

    /// The next chunk with rows that are not known to be stored.
    async fn next_chunk(
        &mut self,
        store: &dyn EventStore,
        counts: &mut Counts,
    ) -> anyhow::Result<Option<Chunk>> {
        loop {
            let (first, known) = (self.taken, self.known);
            let bytes = if known == Known::Place { Row::event_bytes } else { Row::content_bytes };
            let mut rows = self.take(CHUNK_ROWS, CHUNK_BYTES, bytes)?;
            if rows.is_empty() {
                return Ok(None);
            }
            let key = if known == Known::Place {
                Some(self.recipe.key_of_place(first))
            } else {
                let key = self.key_by_content(store, &mut rows, counts).await?;
                if rows.is_empty() {
                    continue;
                }
                key
            };
            let writes = rows.iter().map(|row| self.recipe.write(row)).collect::<Result<_, BadLine>>()?;
            return Ok(Some(Chunk { key, known, recipe: Arc::clone(&self.recipe), rows, writes }));
        }
    }

    /// Takes up to `rows_max` rows of up to `bytes_max` bytes together; a row that does not fit is put back.
    fn take(
        &mut self,
        rows_max: usize,
        bytes_max: usize,
        bytes_of: impl Fn(&Row) -> usize,
    ) -> Result<Vec<Row>, BadLine> {
        let (mut rows, mut bytes) = (Vec::new(), 0_usize);
        while rows.len() < rows_max {
            let Some(row) = self.next_row()? else { break };
            bytes = bytes.saturating_add(bytes_of(&row));
            if bytes > bytes_max && !rows.is_empty() {
                self.put_back(vec![row]);
                break;
            }
            rows.push(row);
        }
        Ok(rows)
    }

    /// Puts taken rows back, so that they are the next ones.
    fn put_back(&mut self, rows: Vec<Row>) {
        self.taken -= rows.len() as u64;
        rows.into_iter().rev().for_each(|row| self.carried.push_front(row));
    }

    fn next_row(&mut self) -> Result<Option<Row>, BadLine> {
        let row = match self.carried.pop_front() {
            Some(row) => Some(row),
            None => self.rows.next_row()?,
        };
        self.taken += u64::from(row.is_some());
        Ok(row)
    }
}

/// Writes a chunk; if some of its events are already stored, writes the others.
async fn write(store: &dyn EventStore, chunk: Chunk, counts: &mut Counts) -> anyhow::Result<()> {
    let mut waiting = vec![chunk];
    while let Some(mut chunk) = waiting.pop() {
        let append = Append { writes: chunk.writes.clone(), key: chunk.key.take(), ..Append::new() };
        match store.append(append).await {
            Ok(done) if !done.duplicate => {
                counts.add(Counts { new: chunk.writes.len() as u64, ..Counts::default() });
            }
            Ok(Appended { first, .. }) => {
                compare(store, &chunk, first).await?;
                counts.add(Counts { there: chunk.writes.len() as u64, ..Counts::default() });
            }
            // All its ids are stored, one after the other.
            Err(Error::Reused(reused)) if reused.key.is_none() => {
                compare(store, &chunk, reused.first).await?;
                counts.add(Counts { there: chunk.writes.len() as u64, ..Counts::default() });
            }
            Err(error) if chunk.writes.len() > 1 && is_of_some_events(&error) => {
                let half = chunk.writes.len() / 2;
                let (rows, writes) = (chunk.rows.split_off(half), chunk.writes.split_off(half));
                let (known, recipe) = (chunk.known, Arc::clone(&chunk.recipe));
                waiting.push(Chunk { key: None, known, recipe, rows, writes });
                waiting.push(chunk);
            }
            Err(error) => return Err(failed(&chunk.rows, error)),
        }
    }
    Ok(())
}

/// Refuses rows whose events differ from the stored ones at this position and after (K3).
async fn compare(store: &dyn EventStore, chunk: &Chunk, first: Position) -> anyhow::Result<()> {
    let events = read_from(store, first, chunk.writes.len()).await?;
    for ((row, write), event) in chunk.rows.iter().zip(&chunk.writes).zip(&events) {
        // Without an id column, the id is a digest of the row and the recipe.
        let same = match chunk.known {
            Known::Column => chunk.recipe.made(row, write, event)?,
            _ => write.stream == event.stream() && write.event.id == event.id(),
        };
        if !same {
            let problem = format!(
                "its id is that of another event, at position {} of the log: version {} of `{}`, which has other content",
                event.position(),
                event.version(),
                event.stream()
            );
            return Err(BadLine::new(row.line, problem).into());
        }
    }
    Ok(())
}

/// Reads `count` events of the log from a position on.
pub(crate) async fn read_from(
    store: &dyn EventStore,
    first: Position,
    count: usize,
) -> anyhow::Result<Vec<RecordedEvent>> {
    let mut events = Vec::with_capacity(count);
    let mut from = first;
    while events.len() < count {
        let page = store.read_log(LogRead::forward(from).limit(count - events.len())).await?;
        events.extend(page.events);
        from = page.next;
        if page.end && events.len() < count {
            anyhow::bail!("the log ends at position {}, before events that the store reported", page.head);
        }
    }
    Ok(events)
}

/// The number of events of an append.
pub(crate) fn events_of(appended: &Appended) -> usize {
    usize::try_from(appended.last.get() - appended.first.get() + 1).unwrap_or(usize::MAX)
}

/// Whether a smaller chunk may be accepted: the refusal is about the id of one event, `events[3].id`, or
/// about the total size.
fn is_of_some_events(error: &Error) -> bool {
    let Error::Invalid(Invalid { field, .. }) = error else { return false };
    field == "events" || field.starts_with("events[") && field.ends_with("].id")
}

/// The error for rows that were not written.
fn failed(rows: &[Row], error: Error) -> anyhow::Error {
    match error {
        // Rows that were stored at the start were skipped, so another import has written these since.
        Error::Reused(_) => {
            let problem = "another import of this source is under way; start this one again after it";
            BadLine::new(rows[0].line, problem).into()
        }
        Error::Invalid(Invalid { field, problem }) => {
            let event = field.strip_prefix("events[").and_then(|rest| rest.split_once(']'));
            let index = event.and_then(|(index, _)| index.parse::<usize>().ok());
            let line = rows[index.unwrap_or(0).min(rows.len() - 1)].line;
            let field = event.map_or(&*field, |(_, rest)| rest.trim_start_matches('.'));
            BadLine::new(line, format!("its {field} {problem}")).into()
        }
        error => {
            let place = match rows {
                [row] => format!("line {}", row.line),
                rows => format!("lines {} to {}", rows[0].line, rows[rows.len() - 1].line),
            };
            anyhow::Error::new(error).context(place)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use annals_core::{EventStoreExt, MemoryStore, Query, RecordedEvent, StreamId, Version};

    use super::*;
    use crate::import::Format;
    use crate::import::recipe::Source;
    use crate::import::value::Times;
    use std::path::Path;

    fn recipe() -> Recipe {
        Recipe {
            source: Source::path(Path::new("sales.csv")),
            format: Format::Csv,
            stream: "customer-{customer}".parse().unwrap(),
            event_type: "purchased".parse().unwrap(),
            time: Some("date".into()),
            times: Times::default(),
            tags: vec!["customer:{customer}".parse().unwrap()],
            id: None,
            data: None,
            decimal_comma: false,
            null_is_value: false,
            by_last_name: false,
        }
    }

    fn file(rows: std::ops::Range<u32>) -> String {
        let mut file = "customer,date,money\r\n".to_owned();
        for row in rows {
            write!(file, "{:05},199701{:02},{}.50\r\n", row % 7, row % 28 + 1, row).unwrap();
        }
        file
    }

    async fn import(store: &Arc<dyn EventStore>, file: &str, recipe: Recipe) -> anyhow::Result<Counts> {
        let reader: Box<dyn std::io::Read> = Box::new(std::io::Cursor::new(file.to_owned().into_bytes()));
        write_all(store, Rows::open(recipe.format, None, reader)?, recipe, |_| {}).await
    }

    async fn all(store: &Arc<dyn EventStore>) -> Vec<RecordedEvent> {
        store.log_events(Query::all()).await.unwrap()
    }

    fn memory() -> Arc<dyn EventStore> {
        Arc::new(MemoryStore::new())
    }

    #[tokio::test]
    async fn rows_become_events_in_the_order_of_the_file() {
        let store = memory();
        let counts = import(&store, &file(0..2_500), recipe()).await.unwrap();
        assert_eq!(counts, Counts { new: 2_500, there: 0, moved: 0, between: 0 });
        let events = all(&store).await;
        assert_eq!(events.len(), 2_500);
        let last = &events[2_499];
        assert_eq!(last.data(), br#"{"customer":"00000","date":"19970108","money":2499.50}"#);
        assert_eq!(last.stream(), "customer-00000");
        assert_eq!(last.occurred_at().unwrap().to_string(), "1997-01-08T00:00:00Z");
        assert_eq!(last.tags().next().unwrap(), "customer:00000");
    }

    #[tokio::test]
    async fn the_same_file_again_adds_nothing() {
        let store = memory();
        import(&store, &file(0..2_500), recipe()).await.unwrap();
        let counts = import(&store, &file(0..2_500), recipe()).await.unwrap();
        assert_eq!(counts, Counts { new: 0, there: 2_500, moved: 0, between: 0 });
        assert_eq!(all(&store).await.len(), 2_500);
    }

    #[tokio::test]
    async fn a_file_that_has_grown_adds_only_its_new_lines() {
        let store = memory();
        for (rows, new) in [(1_300, 1_300), (1_301, 1), (2_900, 1_599), (2_900, 0)] {
            let counts = import(&store, &file(0..rows), recipe()).await.unwrap();
            assert_eq!(counts, Counts { new, there: u64::from(rows) - new, moved: 0, between: 0 });
            assert_eq!(all(&store).await.len() as u64, u64::from(rows));
        }
        let whole = memory();
        import(&whole, &file(0..2_900), recipe()).await.unwrap();
        let events =
            |events: Vec<RecordedEvent>| events.iter().map(RecordedEvent::to_new).collect::<Vec<_>>();
        assert_eq!(events(all(&store).await), events(all(&whole).await));
    }

    #[tokio::test]
    async fn a_killed_import_resumes_even_with_other_events_between() {
        for done in [1, 2] {
            let store = memory();
            // A killed run leaves some of the chunks in the store.
            let part: String =
                file(0..2_500).lines().take(1 + done * 1_000).map(|line| format!("{line}\n")).collect();
            import(&store, &part, recipe()).await.unwrap();
            let other = annals_core::NewEvent::new("renamed", "{}").unwrap();
            let stream = StreamId::new("customer-00003").unwrap();
            store.append(Append::to(&stream, annals_core::Expected::Any, [other])).await.unwrap();
            let counts = import(&store, &file(0..2_500), recipe()).await.unwrap();
            assert_eq!(counts.there, done as u64 * 1_000);
            assert_eq!(all(&store).await.len(), 2_501);
        }
    }

    #[tokio::test]
    async fn a_bad_row_is_named_and_nothing_of_its_chunk_is_written() {
        let store = memory();
        let bad = file(0..1_500).replace("19970105,1320.50", "19971305,1320.50");
        let error = import(&store, &bad, recipe()).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("line 1322, column `date`: `19971305` is not a time"), "{text}");
        assert!(text.contains("stopped after 1000 events"), "{text}");
        assert_eq!(all(&store).await.len(), 1_000);
        // After the file is corrected, the import resumes.
        import(&store, &file(0..1_500), recipe()).await.unwrap();
        assert_eq!(all(&store).await.len(), 1_500);
    }

    #[tokio::test]
    async fn an_id_column_identifies_a_row_anywhere() {
        let store = memory();
        let by_id = Recipe { id: Some("money".into()), time: None, ..recipe() };
        import(&store, "customer,date,money\n1,x,a\n1,x,b\n", by_id.clone()).await.unwrap();
        let counts = import(&store, "customer,date,money\n1,x,c\n1,x,b\n1,x,a\n", by_id).await.unwrap();
        assert_eq!(counts, Counts { new: 1, there: 2, moved: 0, between: 2 });
        let stream = StreamId::new("customer-1").unwrap();
        assert_eq!(store.stream_version(&stream).await.unwrap(), Version::new(3));
    }

    #[tokio::test]
    async fn two_imports_of_one_file_at_once_write_every_row_once() {
        let store = memory();
        let rows = file(0..2_500);
        let both = tokio::join!(import(&store, &rows, recipe()), import(&store, &rows, recipe()));
        let (one, other) = (both.0.unwrap(), both.1.unwrap());
        assert_eq!((one.new + other.new, one.there + other.there), (2_500, 2_500));
        assert_eq!(all(&store).await.len(), 2_500);
    }

    #[tokio::test]
    async fn of_two_files_with_one_name_at_once_one_is_refused() {
        let store = memory();
        let (one, other) = (file(0..1_500), file(7..1_507));
        let both = tokio::join!(import(&store, &one, recipe()), import(&store, &other, recipe()));
        assert_eq!(usize::from(both.0.is_ok()) + usize::from(both.1.is_ok()), 1, "{both:?}");
        assert_eq!(all(&store).await.len(), 1_500);
    }

    /// Ids never change: stored rows are recognised by them, whichever version of the program wrote them.
    #[tokio::test]
    async fn rows_of_an_earlier_version_which_had_other_keys_are_known_by_their_ids() {
        let plain = Recipe { event_type: "bought".parse().unwrap(), time: None, ..recipe() };
        let plain = Recipe { tags: vec!["c:{customer}".parse().unwrap()], ..plain };
        let rows = "customer,cups\nkim,1\nlee,2\n";
        let store = memory();
        import(&store, rows, plain.clone()).await.unwrap();
        let ids: Vec<_> = all(&store).await.iter().map(|event| event.id().to_string()).collect();
        assert_eq!(ids, ["98c2da69-57ff-5786-ae8f-f8e7bf238de7", "d3e9ba9c-d658-55ac-82a9-e31f3158c3f7"]);

        let earlier = memory();
        let events = all(&store).await.into_iter().map(|event| (event.stream_id(), event.to_new()));
        let writes = events.map(|(stream, event)| Write { stream, event }).collect();
        let key = Some(IdempotencyKey::new("import:df876b93").unwrap());
        earlier.append(Append { writes, key, ..Append::new() }).await.unwrap();
        for (more, new, there) in [("", 0, 2), ("kim,1\n", 1, 2), ("kim,1\n", 0, 3)] {
            let counts = import(&earlier, &format!("{rows}{more}"), plain.clone()).await.unwrap();
            assert_eq!((counts.new, counts.there, counts.between), (new, there, 0), "{more}");
        }
    }

    /// Writes rows as the first version did. The rows before `from` are already stored.
    async fn write_as_the_first_version(store: &Arc<dyn EventStore>, file: &str, from: usize) {
        let recipe = Recipe { by_last_name: true, ..recipe() };
        let reader: Box<dyn std::io::Read> = Box::new(std::io::Cursor::new(file.to_owned().into_bytes()));
        let mut reading = Reading::new(Rows::open(recipe.format, None, reader).unwrap(), recipe).unwrap();
        let mut first = 0;
        loop {
            let rows = reading.take(CHUNK_ROWS, CHUNK_BYTES, Row::content_bytes).unwrap();
            let there = from.saturating_sub(first).min(rows.len());
            first += rows.len();
            if rows.is_empty() {
                return;
            }
            let writes: Vec<_> = rows[there..].iter().map(|row| reading.recipe.write(row).unwrap()).collect();
            // A chunk with some stored rows was refused, and then written in parts without a key.
            let key = reading.recipe.keys_of_content(&rows).pop().filter(|_| there == 0);
            if !writes.is_empty() {
                store.append(Append { writes, key, ..Append::new() }).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn an_import_of_the_first_version_is_continued_wherever_it_was_killed_and_however_the_file_grew() {
        let recipe = || Recipe { source: Source::path(Path::new("jan/sales.csv")), ..recipe() };
        for (first, second, now) in [
            (500, 700, 700),
            (500, 700, 1_000),
            (1_000, 1_500, 2_600),
            (1_300, 3_500, 3_501),
            (2_000, 2_000, 4_000),
        ] {
            let store = memory();
            write_as_the_first_version(&store, &file(0..first), 0).await;
            write_as_the_first_version(&store, &file(0..second), first as usize).await;
            assert_eq!(all(&store).await.len() as u32, second);
            for new in [now - second, 0] {
                let counts = import(&store, &file(0..now), recipe()).await.unwrap();
                assert_eq!(
                    (counts.new, counts.there),
                    (new.into(), (now - new).into()),
                    "{first} {second} {now}"
                );
            }
            let rows: std::collections::HashSet<_> =
                all(&store).await.into_iter().map(|event| event.data_bytes()).collect();
            assert_eq!(rows.len() as u32, now);
        }
    }

    #[tokio::test]
    async fn a_column_that_is_not_there_is_refused_before_anything_is_written() {
        let store = memory();
        let wrong = Recipe { time: Some("when".into()), ..recipe() };
        let error = import(&store, &file(0..3), wrong).await.unwrap_err().to_string();
        assert_eq!(error, "there is no column `when`; the columns are customer, date, money");
        assert!(all(&store).await.is_empty());
    }

    #[tokio::test]
    async fn columns_may_be_separated_by_any_blanks() {
        let store = memory();
        let columns = Recipe { format: Format::Columns, ..recipe() };
        let text = " customer  date money^M\n 00001 19970101  11.77\r\n\r\n\t00002\t19970112 12.00";
        import(&store, &text.replace("^M", "\r"), columns.clone()).await.unwrap();
        let events = all(&store).await;
        assert_eq!(events.len(), 2);
        assert_eq!(events[1].data(), br#"{"customer":"00002","date":"19970112","money":12.00}"#);
        let error = import(&store, "customer date money\n1 2\n", columns).await.unwrap_err();
        assert!(format!("{error:#}").contains("line 2: has 2 columns, the header line has 3"), "{error:#}");
    }

    #[tokio::test]
    async fn a_line_of_json_becomes_the_data_byte_for_byte() {
        let store = memory();
        let jsonl = Recipe { format: Format::Jsonl, ..recipe() };
        let text = "{\"customer\": 7,  \"date\":\"1997-01-01\", \"n\":1.50}\n{\"date\":\"1997-01-01\"}\n";
        let error = import(&store, text, jsonl.clone()).await.unwrap_err();
        assert!(format!("{error:#}").contains("line 2, column `customer`: is not there"), "{error:#}");
        import(&store, text.lines().next().unwrap(), jsonl).await.unwrap();
        let events = all(&store).await;
        assert_eq!(events[0].data(), &text.as_bytes()[..text.find('\n').unwrap()]);
        assert_eq!(events[0].stream(), "customer-7");
    }
}
