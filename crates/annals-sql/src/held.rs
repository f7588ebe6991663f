//! A connection for the state beside a log, and whose it is: the same for every database. What a library does
//! with a statement is [`Speaks`].

use std::time::Duration;

use annals_state::{Answer, Fault, Queued, Session, Value};
use async_trait::async_trait;

use crate::{Borrowed, Driver, Lent, Line, Step, Stopped};

/// A server that has not answered a statement on rows for this long is given up.
const STATEMENT_MAX: Duration = Duration::from_secs(60);
/// The same for statements that make or remove tables.
const TABLES_MAX: Duration = Duration::from_secs(600);

/// How statements of the state are executed on the connections of a driver.
#[async_trait]
pub trait Speaks: Driver {
    /// The statement after which bare names of tables are those of this place; until the end of the
    /// transaction, if it is that of an append.
    fn enter(place: &str, in_append: bool) -> String;

    /// Executes statements without values and without an answer, several in one text.
    async fn script(connection: &mut Self::Connection, sql: &str) -> Result<(), Self::Error>;

    /// Executes one statement.
    async fn run(connection: &mut Self::Connection, sql: &str, values: &[&Value]) -> Result<Answer, Fault>;

    /// Executes statements whose answers nobody asks for, several in one text where that means the same.
    async fn run_all(connection: &mut Self::Connection, statements: &[Queued]) -> Result<(), Fault>;

    /// Executes statements without values, several in one text. Returns the whole number in the first column
    /// of the first row.
    async fn number(connection: &mut Self::Connection, sql: &str) -> Result<Option<i64>, Self::Error>;

    /// What an error means to the one who has sent a statement.
    fn fault(error: Self::Error) -> Fault;
}

/// A connection, and whose it is.
pub enum Held<'a, D: Driver> {
    /// A pool's, which it goes back to if it is said that nothing is open on it.
    Lent(Lent<D>),
    /// Nobody else's: it ends with this.
    Alone(Line<D>),
    /// The writer's, with the transaction of a group open.
    Open(Borrowed<'a, D::Connection>),
}

impl<D: Speaks> Held<'_, D> {
    /// What a statement answers, if it does so in time.
    async fn within<T>(
        &mut self,
        limit: Duration,
        step: Step,
        statement: impl AsyncFnOnce(&mut D::Connection) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let silent = |stopped| Err(D::fault(D::stopped(stopped)));
        let line = match self {
            Self::Lent(lent) => lent.line(),
            Self::Alone(line) => line,
            Self::Open(open) => return open.within(statement).await.unwrap_or_else(silent),
        };
        let done = line.within(limit, step, statement).await;
        done.unwrap_or_else(|| silent(Stopped::Silent(limit)))
    }
}

#[async_trait]
impl<D: Speaks> Session for Held<'_, D> {
    async fn enter(&mut self, place: &str) -> Result<(), Fault> {
        let enter = D::enter(place, matches!(self, Self::Open(_)));
        self.script(&enter).await
    }

    async fn script(&mut self, sql: &str) -> Result<(), Fault> {
        let step = if sql == "COMMIT" { Step::Commit } else { Step::Read };
        let limit = if matches!(self, Self::Alone(_)) { TABLES_MAX } else { STATEMENT_MAX };
        let script =
            async |connection: &mut D::Connection| D::script(connection, sql).await.map_err(D::fault);
        self.within(limit, step, script).await
    }

    async fn run(&mut self, sql: &str, values: &[&Value]) -> Result<Answer, Fault> {
        let run = async |connection: &mut D::Connection| D::run(connection, sql, values).await;
        self.within(STATEMENT_MAX, Step::Read, run).await
    }

    async fn run_all(&mut self, statements: &[Queued]) -> Result<(), Fault> {
        let run_all = async |connection: &mut D::Connection| D::run_all(connection, statements).await;
        self.within(STATEMENT_MAX, Step::Read, run_all).await
    }

    async fn begin(&mut self, place: &str, query: &str) -> Result<Option<i64>, Fault> {
        let sql = format!("BEGIN; {}; {query}", D::enter(place, matches!(self, Self::Open(_))));
        let number =
            async |connection: &mut D::Connection| D::number(connection, &sql).await.map_err(D::fault);
        self.within(STATEMENT_MAX, Step::Read, number).await
    }

    fn done(&mut self) {
        if let Self::Lent(lent) = self {
            lent.done();
        }
    }
}
