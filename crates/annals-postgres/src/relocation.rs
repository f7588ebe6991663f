//! Moves a log to another database: the old log is fenced, the new one gets its identity.

use std::sync::Arc;

use annals_core::{Error, Invalid, Position, Result, StoreId};
use annals_sql::{Line, Step};
use sqlx::postgres::PgConnection;
use sqlx::{Executor, Row};
use uuid::Uuid;

use crate::error::failed;
use crate::options::Address;
use crate::session::Connector;
use crate::{Options, append, read, schema};

/// Executes `work` on a connection to a log, within the time limits.
pub(crate) async fn on<T>(
    address: &Address,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<T> {
    let options = Options::default();
    let mut line = Line::open(&Arc::new(Connector::writing(address, &options))).await.map_err(failed)?;
    let done = line.answered(options.silence(), Step::Read, async |connection| work(connection).await);
    done.await.map_err(failed)
}

/// Fences the log with this address, because it has moved, or removes its fence. Returns its head. Moves have
/// numbers: a move with a lower number than the log's changes nothing.
///
/// # Errors
/// `Invalid` if a newer move has begun; `Unavailable` if PostgreSQL is not reached or refuses.
pub(crate) async fn fence(url: &str, moved: bool, number: u64) -> Result<Position> {
    let address: Address = url.parse()?;
    let fenced = on(&address, async |connection| {
        // The holder of the lock commits before the fence is set; later holders see the fence.
        connection.execute(append::LOCK).await?;
        let fence = sqlx::query("UPDATE log SET moved = $1, move_number = $2 WHERE move_number <= $2");
        let fence = fence.bind(moved).bind(column(number)).execute(&mut *connection).await?;
        if fence.rows_affected() == 0 {
            return Ok(None);
        }
        let head = connection.fetch_one(read::HEAD).await?.try_get(0)?;
        connection.execute("COMMIT").await?;
        Ok(Some(Position::new(read::number(head))))
    });
    fenced.await?.ok_or_else(overtaken)
}

/// Whether the log with this address is fenced: it takes no appends, because it has moved or is in the last
/// step of a move.
///
/// # Errors
/// `Unavailable` if PostgreSQL is not reached or refuses.
pub(crate) async fn is_fenced(url: &str) -> Result<bool> {
    let address: Address = url.parse()?;
    on(&address, async |connection| connection.fetch_one("SELECT moved FROM log").await?.try_get(0)).await
}

/// Creates the log with this address if it is missing, and gives it this identity if it has no event yet.
/// Until its fence is removed, it takes appends only from a store that is opened with [`Options::moving`].
///
/// # Errors
/// `Invalid` if another log is there already, or a newer move has begun; `Unavailable` if PostgreSQL is not
/// reached or refuses.
pub(crate) async fn adopt(url: &str, id: StoreId, number: u64) -> Result<()> {
    let address: Address = url.parse()?;
    schema::open(&address, &Options::default()).await?;
    let adopted = on(&address, async |connection| {
        connection.execute(append::LOCK).await?;
        // A move that has begun already has done this, and may have ended.
        let adopt = sqlx::query(
            "UPDATE log SET store_id = $1, moved = true, move_number = $2
            WHERE move_number < $2 AND (store_id = $1 OR NOT EXISTS (SELECT FROM events))",
        );
        let adopt = adopt.bind(Uuid::from_bytes(*id.as_bytes())).bind(column(number));
        adopt.execute(&mut *connection).await?;
        connection.execute("COMMIT").await?;
        // Read after the commit, because another move may have been committed first.
        let row = connection.fetch_one("SELECT store_id, move_number FROM log").await?;
        Ok((row.try_get::<Uuid, _>(0)?, row.try_get::<i64, _>(1)?))
    });
    let (there, newest) = adopted.await?;
    let there = StoreId::from_bytes(there.into_bytes());
    match newest.cmp(&column(number)) {
        _ if there != id => {
            Err(Invalid::new("store", format!("has the log {there} already, with events in it")).into())
        }
        std::cmp::Ordering::Greater => Err(overtaken()),
        std::cmp::Ordering::Less => Err(Error::Internal("the log could not be given its identity".into())),
        std::cmp::Ordering::Equal => Ok(()),
    }
}

fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn overtaken() -> Error {
    Invalid::new("store", "is moved by another move that has begun later").into()
}
