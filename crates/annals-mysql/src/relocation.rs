//! Moves a log to another database: the old log is fenced, the new one gets its identity.

use std::sync::Arc;

use annals_core::{Error, Invalid, Position, Result, StoreId};
use annals_sql::{Line, Step};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::error::failed;
use crate::options::Address;
use crate::session::Connector;
use crate::statement::{self, Value, rows};
use crate::{Options, read, row, schema};

/// Executes `work` on a connection to a log, within the time limits.
pub(crate) async fn on<T>(
    address: &Address,
    work: impl AsyncFnOnce(&mut MySqlConnection) -> Result<T, sqlx::Error>,
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
/// `Invalid` if a newer move has begun; `Unavailable` if the server is not reached or refuses.
pub(crate) async fn fence(url: &str, moved: bool, number: u64) -> Result<Position> {
    let address: Address = url.parse()?;
    let fenced = on(&address, async |connection| {
        // The holder of the lock commits before the fence is set; later holders see the fence.
        connection.execute("START TRANSACTION").await?;
        let row = connection.fetch_one("SELECT position, move_number FROM log FOR UPDATE").await?;
        if row.try_get::<i64, _>(1)? > column(number) {
            return Ok(None);
        }
        let fence = format!("UPDATE log SET moved = {moved}, move_number = {}; COMMIT", column(number));
        connection.execute(AssertSqlSafe(fence)).await?;
        Ok(Some(Position::new(read::number(row.try_get(0)?))))
    });
    fenced.await?.ok_or_else(overtaken)
}

/// Whether the log with this address is fenced: it takes no appends, because it has moved or is in the last
/// step of a move.
///
/// # Errors
/// `Unavailable` if the server is not reached or refuses.
pub(crate) async fn is_fenced(url: &str) -> Result<bool> {
    let address: Address = url.parse()?;
    on(&address, async |connection| connection.fetch_one("SELECT moved FROM log").await?.try_get(0)).await
}

/// Creates the log with this address if it is missing, and gives it this identity if it has no event yet.
/// Until its fence is removed, it takes appends only from a store that is opened with [`Options::moving`].
///
/// # Errors
/// `Invalid` if another log is there already, or a newer move has begun; `Unavailable` if the server is not
/// reached or refuses.
pub(crate) async fn adopt(url: &str, id: StoreId, number: u64) -> Result<()> {
    let address: Address = url.parse()?;
    schema::open(&address, &Options::default()).await?;
    let adopted = on(&address, async |connection| {
        // A move that has begun already has done this, and may have ended.
        let adopt = "START TRANSACTION;
            UPDATE log SET store_id = $1, moved = TRUE, move_number = $2
            WHERE move_number < $2 AND (store_id = $1 OR position = 0);
            COMMIT";
        let values = [Value::Bytes(id.as_bytes().to_vec()), Value::Number(column(number))];
        rows(connection, statement::text(adopt, &values)).await?;
        // Read after the commit, because another move may have been committed first.
        connection.execute("ROLLBACK").await?;
        let row = connection.fetch_one("SELECT store_id, move_number FROM log").await?;
        Ok((row::id(&row, 0)?, row.try_get::<i64, _>(1)?))
    });
    let (there, newest) = adopted.await?;
    let there = StoreId::from_bytes(there);
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
