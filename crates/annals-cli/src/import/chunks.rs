//! Writes rows in chunks, so that a run that was killed can be started again.
//!
//! - K1  A chunk is one append. Its key is a digest of its rows and of how they become events, so the store itself
//!   knows which chunks it has: they are passed over without making events of them.
//! - K2  Where chunks begin depends on the rows before them alone, so in a file that has grown all chunks but the
//!   last are the same. The last one is refused, because some of its event ids are there already; it is halved
//!   until every piece is either new or there.
//! - K3  Events stand in the order of the file: a chunk is sent when the one before it is answered. Meanwhile the
//!   next one is read.

use std::sync::Arc;

use annals_core::{Append, Error, EventStore, IdempotencyKey, Write};
use anyhow::Context as _;
use sha2::Digest as _;
use tokio::task::JoinHandle;

use super::recipe::Recipe;
use super::rows::{Row, Rows};
use super::{BadLine, Counts, stopped};

/// Most rows of a chunk. Changing it makes chunks anew: an import under way goes on, only slower.
const CHUNK_ROWS: usize = 1_000;
/// Most bytes of rows of a chunk, unless one row is larger.
const CHUNK_BYTES: usize = 4 << 20;

/// Writes every row as an event.
pub(crate) async fn write_all(
    store: &Arc<dyn EventStore>,
    mut rows: Rows,
    recipe: Recipe,
    tell: impl Fn(&Counts),
) -> anyhow::Result<Counts> {
    if let Some(names) = rows.names() {
        recipe.check(names)?;
    }
    let mut counts = Counts::default();
    let mut under_way: Option<JoinHandle<annals_core::Result<Counts>>> = None;
    let mut carried = None;
    loop {
        let next = next_chunk(&mut rows, &recipe, &mut carried, &**store).await;
        // Also when the next chunk is bad, the one before it is brought to its end.
        if let Some(writing) = under_way.take() {
            let written = writing.await.context("the task that writes ended early")??;
            counts.new += written.new;
            counts.there += written.there;
            tell(&counts);
        }
        match next {
            Ok(Next::Write(key, writes)) => {
                let store = Arc::clone(store);
                under_way = Some(tokio::spawn(async move { write(&*store, key, writes).await }));
            }
            Ok(Next::There(rows)) => {
                counts.there += rows;
                tell(&counts);
            }
            Ok(Next::End) => return Ok(counts),
            Err(error) => return Err(stopped(error, &counts)),
        }
    }
}

/// What comes next in the file.
enum Next {
    /// A chunk that the store does not have.
    Write(IdempotencyKey, Vec<Write>),
    /// A chunk of so many rows that the store has.
    There(u64),
    /// Nothing.
    End,
}

async fn next_chunk(
    rows: &mut Rows,
    recipe: &Recipe,
    carried: &mut Option<Row>,
    store: &dyn EventStore,
) -> anyhow::Result<Next> {
    let chunk = take_chunk(rows, carried)?;
    if chunk.is_empty() {
        return Ok(Next::End);
    }
    let digest = recipe.digest();
    let mut whole = digest.clone();
    chunk.iter().for_each(|row| row.digest(&mut whole));
    let digits: String = whole.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let key = IdempotencyKey::new(format!("import:{digits}")).expect("the key is short and plain");
    if store.outcome(&key).await?.is_some() {
        return Ok(Next::There(chunk.len() as u64));
    }
    let writes = chunk.iter().map(|row| recipe.write(row, &digest)).collect::<Result<_, BadLine>>()?;
    Ok(Next::Write(key, writes))
}

/// The rows of the next chunk; the first row that no longer fits is carried over.
fn take_chunk(rows: &mut Rows, carried: &mut Option<Row>) -> Result<Vec<Row>, BadLine> {
    let mut chunk = Vec::new();
    let mut bytes = 0;
    while chunk.len() < CHUNK_ROWS {
        let row = match carried.take() {
            Some(row) => row,
            None => match rows.next_row()? {
                Some(row) => row,
                None => break,
            },
        };
        bytes += row.bytes();
        if bytes > CHUNK_BYTES && !chunk.is_empty() {
            *carried = Some(row);
            break;
        }
        chunk.push(row);
    }
    Ok(chunk)
}

/// Writes a chunk; if some of its events are there already, those that are not.
async fn write(
    store: &dyn EventStore,
    key: IdempotencyKey,
    writes: Vec<Write>,
) -> annals_core::Result<Counts> {
    let mut counts = Counts::default();
    let mut waiting = vec![(Some(key), writes)];
    while let Some((key, mut writes)) = waiting.pop() {
        let append = Append { writes: writes.clone(), key, ..Append::new() };
        match store.append(append).await {
            Ok(done) if done.duplicate => counts.there += writes.len() as u64,
            Ok(_) => counts.new += writes.len() as u64,
            Err(Error::Invalid(invalid)) if writes.len() > 1 && is_of_an_id(&invalid.field) => {
                let later = writes.split_off(writes.len() / 2);
                waiting.push((None, later));
                waiting.push((None, writes));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(counts)
}

/// Whether a refusal is about an event id: `events[3].id`.
fn is_of_an_id(field: &str) -> bool {
    field.starts_with("events[") && field.ends_with("].id")
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use annals_core::{EventStoreExt, MemoryStore, Query, RecordedEvent, StreamId, Version};

    use super::*;
    use crate::import::Format;

    fn recipe() -> Recipe {
        Recipe {
            source: "sales.csv".into(),
            format: Format::Csv,
            stream: "customer-{customer}".parse().unwrap(),
            event_type: "purchased".parse().unwrap(),
            time: Some("date".into()),
            tags: vec!["customer:{customer}".parse().unwrap()],
            id: None,
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
        write_all(store, Rows::open(recipe.format, reader)?, recipe, |_| {}).await
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
        assert_eq!(counts, Counts { new: 2_500, there: 0, moved: 0 });
        let events = all(&store).await;
        assert_eq!(events.len(), 2_500);
        let last = &events[2_499];
        assert_eq!(&last.data[..], br#"{"customer":"00000","date":"19970108","money":2499.50}"#);
        assert_eq!(last.stream.as_str(), "customer-00000");
        assert_eq!(last.occurred_at.unwrap().to_string(), "1997-01-08T00:00:00Z");
        assert_eq!(last.tags[0].as_str(), "customer:00000");
    }

    #[tokio::test]
    async fn the_same_file_again_adds_nothing() {
        let store = memory();
        import(&store, &file(0..2_500), recipe()).await.unwrap();
        let counts = import(&store, &file(0..2_500), recipe()).await.unwrap();
        assert_eq!(counts, Counts { new: 0, there: 2_500, moved: 0 });
        assert_eq!(all(&store).await.len(), 2_500);
    }

    #[tokio::test]
    async fn a_file_that_has_grown_adds_only_its_new_lines() {
        let store = memory();
        for (rows, new) in [(1_300, 1_300), (1_301, 1), (2_900, 1_599), (2_900, 0)] {
            let counts = import(&store, &file(0..rows), recipe()).await.unwrap();
            assert_eq!(counts, Counts { new, there: u64::from(rows) - new, moved: 0 });
            assert_eq!(all(&store).await.len() as u64, u64::from(rows));
        }
        let whole = memory();
        import(&whole, &file(0..2_900), recipe()).await.unwrap();
        let events =
            |events: Vec<RecordedEvent>| events.iter().map(RecordedEvent::to_new).collect::<Vec<_>>();
        assert_eq!(events(all(&store).await), events(all(&whole).await));
    }

    #[tokio::test]
    async fn an_import_goes_on_wherever_it_was_killed_even_with_other_events_between() {
        for done in [1, 2] {
            let store = memory();
            // What a killed run leaves behind: some of the chunks.
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
        // Mended, it goes on.
        import(&store, &file(0..1_500), recipe()).await.unwrap();
        assert_eq!(all(&store).await.len(), 1_500);
    }

    #[tokio::test]
    async fn an_id_column_knows_a_row_wherever_it_stands() {
        let store = memory();
        let by_id = Recipe { id: Some("money".into()), time: None, ..recipe() };
        import(&store, "customer,date,money\n1,x,a\n1,x,b\n", by_id.clone()).await.unwrap();
        let counts = import(&store, "customer,date,money\n1,x,c\n1,x,b\n1,x,a\n", by_id).await.unwrap();
        assert_eq!(counts, Counts { new: 1, there: 2, moved: 0 });
        let stream = StreamId::new("customer-1").unwrap();
        assert_eq!(store.stream_version(&stream).await.unwrap(), Version::new(3));
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
        assert_eq!(&events[1].data[..], br#"{"customer":"00002","date":"19970112","money":12.00}"#);
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
        assert_eq!(&events[0].data[..], &text.as_bytes()[..text.find('\n').unwrap()]);
        assert_eq!(events[0].stream.as_str(), "customer-7");
    }
}
