//! A group and the rows of inline projections in one transaction: `annals_sql::Transactional`.

use annals_sql::{Answer, Failure, Fault, Session, Staged, Tail, Transactional, Value};
use async_trait::async_trait;
use sqlx::Executor;
use sqlx::postgres::PgConnection;

use crate::append::{self, Writer};
use crate::error::{Step, failure};
use crate::state;

#[async_trait]
impl Transactional for Writer {
    async fn begin(&mut self, staged: &Staged<'_>) -> Result<Option<Tail>, Failure> {
        let mut connection = self.take().await?;
        connection.execute("BEGIN").await.map_err(|error| failure(error, Step::Read))?;
        let tail = append::append(&mut connection, staged).await;
        let tail = tail.map_err(|error| failure(error, Step::Read))?;
        if tail.is_none() {
            connection.execute("ROLLBACK").await.map_err(|error| failure(error, Step::Read))?;
        }
        self.put_back(connection);
        Ok(tail)
    }

    async fn stage(&mut self, staged: &Staged<'_>) -> Result<Tail, Failure> {
        let mut connection = self.locked()?;
        let written = append::append(&mut connection, staged).await;
        let written = written.map_err(|error| failure(error, Step::Read))?;
        self.put_back(connection);
        written.ok_or_else(append::changed)
    }

    fn session(&mut self) -> Option<Box<dyn Session + '_>> {
        self.open().map(|connection| Box::new(Open(connection)) as Box<dyn Session>)
    }

    async fn finish(&mut self, staged: &Staged<'_>, tail: &Tail) -> Result<(), Failure> {
        let mut connection = self.locked()?;
        connection.execute("COMMIT").await.map_err(|error| failure(error, Step::Commit))?;
        self.put_back(connection);
        self.told(tail, staged);
        Ok(())
    }

    async fn undo(&mut self) {
        // A connection on which that fails is given up, which undoes it as well.
        if let Ok(mut connection) = self.locked()
            && connection.execute("ROLLBACK").await.is_ok()
        {
            self.put_back(connection);
        }
    }
}

/// The transaction of a group.
struct Open<'a>(&'a mut PgConnection);

#[async_trait]
impl Session for Open<'_> {
    async fn enter(&mut self, place: &str) -> Result<(), Fault> {
        // The statements of users are planned as usual.
        let set = format!(
            "SET LOCAL search_path TO \"{place}\"; SET LOCAL enable_seqscan TO on; SET LOCAL enable_bitmapscan TO on; \
             SET LOCAL enable_hashjoin TO on; SET LOCAL enable_mergejoin TO on"
        );
        state::script(self.0, &set).await
    }

    async fn script(&mut self, sql: &str) -> Result<(), Fault> {
        state::script(self.0, sql).await
    }

    async fn run(&mut self, sql: &str, values: &[&Value]) -> Result<Answer, Fault> {
        state::run(self.0, sql, values).await
    }

    fn done(&mut self) {}
}
