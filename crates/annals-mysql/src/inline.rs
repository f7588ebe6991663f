//! A group and the rows of inline projections in one transaction: `annals_sql::Transactional`.

use annals_sql::{Answer, Failure, Fault, Session, Staged, Tail, Transactional, Value};
use async_trait::async_trait;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor};

use crate::append::{self, Writer};
use crate::error::{Step, failure};
use crate::state;

#[async_trait]
impl Transactional for Writer {
    async fn begin(&mut self, staged: &Staged<'_>) -> Result<Option<Tail>, Failure> {
        let mut connection = self.take().await?;
        connection.execute("START TRANSACTION").await.map_err(|error| failure(error, Step::Read))?;
        let tail = append::append(&mut connection, staged, false).await;
        let tail = tail.map_err(|error| failure(error, Step::Read))?;
        // Without one, the procedure has rolled back.
        self.put_back(connection);
        Ok(tail)
    }

    async fn stage(&mut self, staged: &Staged<'_>) -> Result<Tail, Failure> {
        let mut connection = self.locked()?;
        let written = append::append(&mut connection, staged, false).await;
        let written = written.map_err(|error| failure(error, Step::Read))?;
        self.put_back(connection);
        written.ok_or_else(append::changed)
    }

    fn session(&mut self) -> Option<Box<dyn Session + '_>> {
        self.open().map(|connection| Box::new(Open(connection)) as Box<dyn Session>)
    }

    async fn finish(&mut self, _: &Staged<'_>, _: &Tail) -> Result<(), Failure> {
        let mut connection = self.locked()?;
        let home = AssertSqlSafe(state::enter(self.home()));
        connection.execute(home).await.map_err(|error| failure(error, Step::Read))?;
        connection.execute("COMMIT").await.map_err(|error| failure(error, Step::Commit))?;
        self.put_back(connection);
        Ok(())
    }

    async fn undo(&mut self) {
        // A connection on which that fails is given up, which undoes it as well.
        if let Ok(mut connection) = self.locked()
            && connection.execute("ROLLBACK").await.is_ok()
            && connection.execute(AssertSqlSafe(state::enter(self.home()))).await.is_ok()
        {
            self.put_back(connection);
        }
    }
}

/// The transaction of a group.
struct Open<'a>(&'a mut MySqlConnection);

#[async_trait]
impl Session for Open<'_> {
    async fn enter(&mut self, place: &str) -> Result<(), Fault> {
        // What the store itself does on this connection is the same in any mode.
        state::script(self.0, &format!("{}; {}", state::MODE, state::enter(place))).await
    }

    async fn script(&mut self, sql: &str) -> Result<(), Fault> {
        state::script(self.0, sql).await
    }

    async fn run(&mut self, sql: &str, values: &[&Value]) -> Result<Answer, Fault> {
        state::run(self.0, sql, values).await
    }

    fn done(&mut self) {}
}
