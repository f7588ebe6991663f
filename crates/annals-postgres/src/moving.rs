//! What it takes to move a log to another database: the old one takes no appends any more, the new one gets its identity.

use annals_core::{Error, Invalid, Position, Result, StoreId};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, Row};
use uuid::Uuid;

use crate::error::failed;
use crate::options::Address;
use crate::{Options, append, read, schema, session};

async fn connect(url: &str) -> Result<(Address, PgConnection)> {
    let address: Address = url.parse()?;
    let connection = session::connect(&address, &Options::default()).await.map_err(failed)?;
    Ok((address, connection))
}

/// The log with this address takes no appends any more, because it has moved; or takes them again. Returns its head. Moves have
/// numbers: one that a newer one has overtaken changes nothing.
///
/// # Errors
/// `Invalid` if a newer move has begun; `Unavailable` if PostgreSQL is not reached or refuses.
pub async fn fence(url: &str, moved: bool, number: u64) -> Result<Position> {
    let (_, mut connection) = connect(url).await?;
    // Whoever has the lock is done before; whoever gets it later sees the fence.
    connection.execute(append::LOCK).await.map_err(failed)?;
    let fence = sqlx::query("UPDATE log SET moved = $1, move_number = $2 WHERE move_number <= $2");
    let fence = fence.bind(moved).bind(column(number)).execute(&mut connection).await.map_err(failed)?;
    if fence.rows_affected() == 0 {
        return Err(overtaken());
    }
    let head = read::head(&mut connection).await.map_err(failed)?;
    connection.execute("COMMIT").await.map_err(failed)?;
    Ok(head)
}

/// Makes the log with this address, if need be, and gives it this identity, if it has no event yet. It takes no appends but
/// those of a store that is opened as [`moving`](Options::moving), until its fence is gone.
///
/// # Errors
/// `Invalid` if another log is there already, or a newer move has begun; `Unavailable` if PostgreSQL is not reached or refuses.
pub async fn adopt(url: &str, id: StoreId, number: u64) -> Result<()> {
    let (address, mut connection) = connect(url).await?;
    schema::open(&address, &Options::default()).await?;
    connection.execute(append::LOCK).await.map_err(failed)?;
    // One that has begun already has done this, and may have ended.
    let adopt = sqlx::query(
        "UPDATE log SET store_id = $1, moved = true, move_number = $2
        WHERE move_number < $2 AND (store_id = $1 OR NOT EXISTS (SELECT FROM events))",
    );
    let adopt = adopt.bind(Uuid::from_bytes(*id.as_bytes())).bind(column(number));
    adopt.execute(&mut connection).await.map_err(failed)?;
    let row = sqlx::query("SELECT store_id, move_number FROM log").fetch_one(&mut connection).await;
    let row = row.map_err(failed)?;
    let there = StoreId::from_bytes(row.try_get::<Uuid, _>(0).map_err(failed)?.into_bytes());
    if there != id {
        return Err(Invalid::new("store", format!("has the log {there} already, with events in it")).into());
    }
    if row.try_get::<i64, _>(1).map_err(failed)? > column(number) {
        return Err(overtaken());
    }
    connection.execute("COMMIT").await.map_err(failed)?;
    connection.close().await.map_err(failed)
}

fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn overtaken() -> Error {
    Invalid::new("store", "is moved by another move that has begun later").into()
}
