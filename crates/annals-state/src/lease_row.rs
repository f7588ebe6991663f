//! The row of a lease in a database, which the session that has the lock of its name updates.
//!
//! A locked row is not waited for: the server may not have noticed that the machine whose transaction locks
//! it is gone.

use crate::lease::StoredLease;
use crate::words::{insert_unless_there, quoted};
use crate::{Dialect, Fault, FromValue, Lease, Session, Value};

/// The statement that reads a lease.
pub(crate) const STORED: &str =
    "SELECT token, holder, lease_until, lease_length FROM {state}.leases WHERE name = ?1";

/// The clock of the database, in microseconds since 1970.
pub(crate) fn clock(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::MySql => "CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)",
        _ => "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    }
}

/// A lease in the columns of [`STORED`].
pub(crate) fn stored_in(rows: &[Vec<Value>]) -> Result<Option<StoredLease>, Fault> {
    let Some(row) = rows.first() else { return Ok(None) };
    let column = |column: &str| Fault::Column {
        column: format!("`{column}` of leases"),
        problem: "is of another kind".to_owned(),
    };
    let integer = |place: usize| row.get(place).and_then(Option::<i64>::from_value);
    let holder = match row.get(1) {
        Some(Value::Null) => None,
        Some(Value::Text(holder)) => Some(holder.clone()),
        Some(Value::Blob(holder)) => Some(String::from_utf8_lossy(holder).into_owned()),
        _ => return Err(column("holder")),
    };
    Ok(Some(StoredLease {
        token: integer(0).flatten().ok_or_else(|| column("token"))?,
        holder,
        until: integer(2).ok_or_else(|| column("lease_until"))?,
        length: integer(3).flatten().ok_or_else(|| column("lease_length"))?,
    }))
}

/// Acquires the lease of a name whose lock this session has, also from another holder, which has lost its
/// session. `None` if the row is locked at present.
pub(crate) async fn seize(
    session: &mut (dyn Session + '_),
    dialect: Dialect,
    home: &str,
    name: &str,
    holder: &str,
) -> Result<Option<Lease>, Fault> {
    let named = |sql: &str| sql.replace("{state}", &quoted(home));
    let value = |text: &str| Value::Text(text.to_owned());
    if crate::run(session, dialect, &named(STORED), &[value(name)]).await?.rows.is_empty() {
        let insert = insert_unless_there(dialect, "{state}.leases (name, token) VALUES (?1, 0)", "name");
        crate::run(session, dialect, &named(&insert), &[value(name)]).await?;
    }
    session.script("BEGIN").await?;
    let lock = named(&format!("{STORED} FOR UPDATE SKIP LOCKED"));
    let rows = crate::run(session, dialect, &lock, &[value(name)]).await?.rows;
    let Some(stored) = stored_in(&rows)? else {
        session.script("ROLLBACK").await?;
        return Ok(None);
    };
    let seized =
        StoredLease { token: stored.token + 1, holder: Some(holder.to_owned()), until: None, length: 0 };
    let sql = "UPDATE {state}.leases SET token = ?2, holder = ?3, lease_until = NULL, lease_length = 0 WHERE name = ?1";
    let values = [value(name), Value::Integer(seized.token), value(holder)];
    crate::run(session, dialect, &named(sql), &values).await?;
    session.script("COMMIT").await?;
    Ok(Some(seized.to_lease(name)))
}

/// Releases the lease of a name whose lock this session has. Later writes under it change nothing.
pub(crate) async fn vacate(
    session: &mut (dyn Session + '_),
    dialect: Dialect,
    home: &str,
    name: &str,
    holder: &str,
) -> Result<(), Fault> {
    let sql = "UPDATE {state}.leases SET holder = NULL WHERE name = ?1 AND holder = ?2";
    let values = [Value::Text(name.to_owned()), Value::Text(holder.to_owned())];
    crate::run(session, dialect, &sql.replace("{state}", &quoted(home)), &values).await.map(drop)
}
