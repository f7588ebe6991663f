//! Whose place this is: see `annals_sql::Claim`.

use annals_core::{Result, StoreId};
use annals_sql::{Claim, Claimed};
use sqlx::{Connection, Executor, Row};

use crate::error::failed;
use crate::options::Address;
use crate::{Options, row, schema, session};

/// Claims the place with this address for a tenant, and makes the log there, if need be. A claim that is there stays.
///
/// # Errors
/// `Invalid` if the place is somebody else's; `Unavailable` if the server is not reached or refuses.
pub async fn claim(url: &str, claim: Claim<'_>) -> Result<()> {
    let address: Address = url.parse()?;
    schema::open(&address, &Options::default()).await?;
    let mut connection = session::connect(&address, &Options::default()).await.map_err(failed)?;
    connection.execute("START TRANSACTION").await.map_err(failed)?;
    let log = "SELECT store_id, position FROM log FOR UPDATE";
    let log = sqlx::query(log).fetch_one(&mut connection).await.map_err(failed)?;
    let owner = sqlx::query("SELECT directory, tenant FROM owner").fetch_optional(&mut connection).await;
    let owner = match owner.map_err(failed)? {
        Some(owner) => {
            let directory = StoreId::from_bytes(row::id(&owner, 0).map_err(failed)?);
            Some((directory, row::text(&owner, 1).map_err(failed)?))
        }
        None => None,
    };
    let is_empty = log.try_get::<i64, _>(1).map_err(failed)? == 0;
    let log = StoreId::from_bytes(row::id(&log, 0).map_err(failed)?);
    // Refused, the connection is dropped, and with it the transaction.
    if claim.decide(&Claimed { log, is_empty, owner })? {
        let insert = sqlx::query("INSERT INTO owner (directory, tenant) VALUES (?, ?)");
        let insert = insert.bind(&claim.directory.as_bytes()[..]).bind(claim.tenant.as_bytes());
        insert.execute(&mut connection).await.map_err(failed)?;
    }
    connection.execute("COMMIT").await.map_err(failed)?;
    connection.close().await.map_err(failed)
}
