//! The tenant that owns a database: see `annals_state::Claim`.

use annals_core::{Result, StoreId};
use annals_state::{Claim, Claimed};
use sqlx::{Executor, Row};

use crate::options::Address;
use crate::{Options, relocation, row, schema};

/// Claims the database at this address for a tenant, and creates the log there if it is missing. An existing
/// claim of the tenant is kept.
///
/// # Errors
/// `Invalid` if the database belongs to another owner; `Unavailable` if the server is not reached or refuses.
pub(crate) async fn claim(url: &str, claim: Claim<'_>) -> Result<()> {
    let address: Address = url.parse()?;
    schema::open(&address, &Options::default()).await?;
    let claimed = relocation::on(&address, async |connection| {
        connection.execute("START TRANSACTION").await?;
        let log = "SELECT store_id, position FROM log FOR UPDATE";
        let log = sqlx::query(log).fetch_one(&mut *connection).await?;
        let owner =
            sqlx::query("SELECT directory, tenant FROM owner").fetch_optional(&mut *connection).await?;
        let owner = match owner {
            Some(owner) => Some((StoreId::from_bytes(row::id(&owner, 0)?), row::text(&owner, 1)?)),
            None => None,
        };
        let is_empty = log.try_get::<i64, _>(1)? == 0;
        let log = StoreId::from_bytes(row::id(&log, 0)?);
        // If the claim is refused, the connection is dropped, which rolls back the transaction.
        let decided = claim.decide(&Claimed { log, is_empty, owner });
        if let Ok(true) = decided {
            let insert = sqlx::query("INSERT INTO owner (directory, tenant) VALUES (?, ?)");
            let insert = insert.bind(&claim.directory.as_bytes()[..]).bind(claim.tenant.as_bytes());
            insert.execute(&mut *connection).await?;
        }
        if decided.is_ok() {
            connection.execute("COMMIT").await?;
        }
        Ok(decided)
    });
    claimed.await??;
    Ok(())
}
