//! The list of members: one row each, without passwords.

use annals::{HandlerError, Projection, Recorded, Row, SqlError, Timestamp, Tx, View, ViewError};
use serde::Serialize;

use super::MemberEvent;
use crate::http::Page;

/// The list of members.
pub struct Members;

/// A member in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberRow {
    /// The id.
    pub id: String,
    /// The name.
    pub name: String,
    /// The e-mail address.
    pub email: String,
    /// The postal address, if it was given.
    pub address: Option<String>,
    /// The member's text about itself, if any.
    pub profile: Option<String>,
    /// The time of the registration.
    pub since: String,
    /// Whether the member has a session.
    pub signed_in: bool,
}

impl Projection for Members {
    const NAME: &'static str = "members";
    const SCHEMA: &'static str = "
        CREATE TABLE members (
            id VARCHAR(40) PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, address TEXT, profile TEXT,
            since BIGINT NOT NULL, signed_in INTEGER NOT NULL DEFAULT 0
        );";
    type Event = MemberEvent;

    fn apply(&self, event: &Recorded<MemberEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        let id = event.aggregate_id();
        match &event.event {
            MemberEvent::Registered { name, email, address, .. } => tx.execute(
                "INSERT INTO members (id, name, email, address, since) VALUES (?1, ?2, ?3, ?4, ?5)",
                (id, name, email, address, event.time()),
            )?,
            MemberEvent::Renamed { name } => {
                tx.execute("UPDATE members SET name = ?2 WHERE id = ?1", (id, name))?
            }
            MemberEvent::EmailChanged { email } => {
                tx.execute("UPDATE members SET email = ?2 WHERE id = ?1", (id, email))?
            }
            MemberEvent::AddressChanged { address } => {
                tx.execute("UPDATE members SET address = ?2 WHERE id = ?1", (id, address))?
            }
            MemberEvent::ProfileChanged { profile } => {
                tx.execute("UPDATE members SET profile = ?2 WHERE id = ?1", (id, profile))?
            }
            MemberEvent::LoggedIn { .. } => {
                tx.execute("UPDATE members SET signed_in = 1 WHERE id = ?1", (id,))?
            }
            MemberEvent::LoggedOut | MemberEvent::PasswordChanged { .. } => {
                tx.execute("UPDATE members SET signed_in = 0 WHERE id = ?1", (id,))?
            }
            MemberEvent::Withdrawn => tx.execute("DELETE FROM members WHERE id = ?1", (id,))?,
        };
        Ok(())
    }
}

const COLUMNS: &str = "SELECT id, name, email, address, profile, since, signed_in FROM members";

fn read(row: &Row) -> Result<MemberRow, SqlError> {
    let (id, name, email, address, profile, since, signed_in) = row.read()?;
    let since: Timestamp = since;
    Ok(MemberRow { id, name, email, address, profile, since: since.to_string(), signed_in })
}

/// A part of the list, by id.
pub(super) async fn page(view: &View<Members>, page: Page) -> Result<Vec<MemberRow>, ViewError> {
    let sql = format!("{COLUMNS} ORDER BY id LIMIT ?1 OFFSET ?2");
    view.query(&sql, (page.limit, page.offset), read).await
}

/// One member.
pub(super) async fn one(view: &View<Members>, id: &str) -> Result<Option<MemberRow>, ViewError> {
    view.one(&format!("{COLUMNS} WHERE id = ?1"), (id,), read).await
}
