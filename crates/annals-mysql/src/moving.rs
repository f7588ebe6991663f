//! What it takes to move a log to another database: the old one takes no appends any more, the new one gets its identity.

use annals_core::{Invalid, Position, Result, StoreId};
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, Executor, Row};

use crate::error::failed;
use crate::options::Address;
use crate::{Options, read, row, schema, session};

async fn connect(url: &str) -> Result<(Address, MySqlConnection)> {
    let address: Address = url.parse()?;
    let connection = session::connect(&address, &Options::default()).await.map_err(failed)?;
    Ok((address, connection))
}

/// The log with this address takes no appends any more, because it has moved; or takes them again. Returns its head.
///
/// # Errors
/// `Unavailable` if the server is not reached or refuses.
pub async fn fence(url: &str, moved: bool) -> Result<Position> {
    let (_, mut connection) = connect(url).await?;
    let fenced = async {
        // Whoever has the lock is done before; whoever gets it later sees the fence.
        connection.execute("START TRANSACTION").await?;
        let head = sqlx::query("SELECT position FROM log FOR UPDATE").fetch_one(&mut connection).await?;
        sqlx::query("UPDATE log SET moved = ?").bind(moved).execute(&mut connection).await?;
        connection.execute("COMMIT").await?;
        Ok(Position::new(read::number(head.try_get(0)?)))
    };
    fenced.await.map_err(failed)
}

/// Makes the log with this address, if need be, and gives it this identity, if it has no event yet. It takes no appends but
/// those of a store that is opened as [`moving`](Options::moving), until its fence is gone.
///
/// # Errors
/// `Invalid` if another log is there already; `Unavailable` if the server is not reached or refuses.
pub async fn adopt(url: &str, id: StoreId) -> Result<()> {
    let (address, mut connection) = connect(url).await?;
    schema::open(&address, &Options::default()).await?;
    let adopt = sqlx::query("UPDATE log SET store_id = ?, moved = TRUE WHERE position = 0");
    adopt.bind(&id.as_bytes()[..]).execute(&mut connection).await.map_err(failed)?;
    let row = sqlx::query("SELECT store_id FROM log").fetch_one(&mut connection).await.map_err(failed)?;
    let there = StoreId::from_bytes(row::id(&row, 0).map_err(failed)?);
    if there != id {
        return Err(Invalid::new("store", format!("has the log {there} already, with events in it")).into());
    }
    connection.close().await.map_err(failed)
}
