//! The tenant that owns a schema: see `annals_state::Claim`.

use annals_core::{Result, StoreId};
use annals_state::{Claim, Claimed};
use sqlx::{Executor, Row};
use uuid::Uuid;

use crate::options::Address;
use crate::{Options, append, relocation, schema};

/// Claims the schema at this address for a tenant, and creates the log there if it is missing. An existing
/// claim of the tenant is kept.
///
/// # Errors
/// `Invalid` if the schema belongs to another owner; `Unavailable` if PostgreSQL is not reached or refuses.
pub(crate) async fn claim(url: &str, claim: Claim<'_>) -> Result<()> {
    let address: Address = url.parse()?;
    schema::open(&address, &Options::default()).await?;
    let claimed = relocation::on(&address, async |connection| {
        connection.execute(append::LOCK).await?;
        let there = "SELECT l.store_id, NOT EXISTS (SELECT FROM events), o.directory, o.tenant
            FROM log AS l LEFT JOIN owner AS o ON true";
        let row = sqlx::query(there).fetch_one(&mut *connection).await?;
        let id = |id: Uuid| StoreId::from_bytes(id.into_bytes());
        let owner = match row.try_get::<Option<Uuid>, _>(2)? {
            Some(directory) => Some((id(directory), row.try_get(3)?)),
            None => None,
        };
        let (log, is_empty) = (id(row.try_get(0)?), row.try_get(1)?);
        // If the claim is refused, the connection is dropped, which rolls back the transaction.
        let decided = claim.decide(&Claimed { log, is_empty, owner });
        if let Ok(true) = decided {
            let insert = sqlx::query("INSERT INTO owner (directory, tenant) VALUES ($1, $2)");
            let insert = insert.bind(Uuid::from_bytes(*claim.directory.as_bytes())).bind(claim.tenant);
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
