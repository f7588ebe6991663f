//! From the code of a projection, which is not async, to the connection that executes its statements.
//!
//! ```text
//! a thread for blocking work                      the task
//! apply -> Tx -> StatementChannel ---- statement, values ---> Session
//!                                   <--------- answer ---------
//! ```
//!
//! - L1  The task executes one statement after the other, and the thread waits for each. If the task is dropped, the
//!       thread gets an error and ends.
//! - L2  After a deadline no statement is executed: the work fails, even while it does something else.
//! - L3  A statement that fails rolls its transaction back: no further statement is executed.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use annals_core::Cause;
use tokio::sync::{mpsc, oneshot};

use crate::{Allowed, Answer, Dialect, Fault, Session, SqlError, Value};

const TOO_LONG: &str = "the projection takes too long while others wait";

/// The end of the channel in the thread.
pub struct StatementChannel {
    dialect: Dialect,
    statements: mpsc::UnboundedSender<Statement>,
    deadline: Option<Instant>,
    /// Why no further statement is executed.
    broken: RefCell<Option<String>>,
    /// Whether the cause is the database and not the statement.
    lost: Cell<bool>,
}

struct Statement {
    sql: String,
    values: Vec<Value>,
    answer: oneshot::Sender<Result<Answer, Fault>>,
}

impl StatementChannel {
    /// The SQL dialect of the database.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether the database fails, independently of the statement.
    pub fn is_lost(&self) -> bool {
        self.lost.get()
    }

    /// Fails if a statement has failed before, or the deadline has passed.
    ///
    /// # Errors
    /// With the reason.
    pub fn still_whole(&self) -> Result<(), SqlError> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.lost.set(true);
            return Err(SqlError::Unavailable(TOO_LONG.into()));
        }
        match &*self.broken.borrow() {
            None => Ok(()),
            Some(before) => {
                let problem = format!("a statement failed and has undone the transaction: {before}");
                Err(SqlError::Statement(problem.into()))
            }
        }
    }

    /// Executes a statement on the session, and waits for its answer.
    pub fn run(&self, sql: &str, values: Vec<Value>) -> Result<Answer, SqlError> {
        if let Some(problem) = self.dialect.refuses(sql, Allowed::Write) {
            return Err(SqlError::Statement(problem.into()));
        }
        let (answer, answered) = oneshot::channel();
        let statement = Statement { sql: sql.to_owned(), values, answer };
        let sent = self.statements.send(statement).ok();
        let done = sent.and_then(|()| answered.blocking_recv().ok());
        let done = done.unwrap_or_else(|| Err(Fault::unavailable("the work was given up")));
        done.map_err(|fault| {
            self.lost.set(matches!(fault, Fault::Unavailable(_) | Fault::Store(_)));
            *self.broken.borrow_mut() = Some(fault.to_string());
            fault.into()
        })
    }
}

/// Runs this work on a thread for blocking work, and executes its statements on this connection, for the rows of this schema,
/// until the deadline.
pub async fn run_blocking<T: Send + 'static>(
    session: &mut (dyn Session + '_),
    dialect: Dialect,
    place: &str,
    deadline: Option<Instant>,
    work: impl FnOnce(&StatementChannel) -> T + Send + 'static,
) -> Result<T, SqlError> {
    let (statements, mut asked) = mpsc::unbounded_channel();
    let working = tokio::task::spawn_blocking(move || {
        work(&StatementChannel {
            dialect,
            statements,
            deadline,
            broken: RefCell::default(),
            lost: Cell::default(),
        })
    });
    loop {
        let next = match deadline {
            // The current statement is waited for, so that the connection can be used again.
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), asked.recv()).await {
                Ok(next) => next,
                Err(_) => return Err(SqlError::Unavailable(TOO_LONG.into())),
            },
            None => asked.recv().await,
        };
        let Some(Statement { sql, values, answer }) = next else { break };
        // The thread may have ended meanwhile.
        let _ = answer.send(execute(session, dialect, place, &sql, &values).await);
    }
    working.await.map_err(|stopped| {
        SqlError::Stopped(match stopped.try_into_panic() {
            Ok(panic) => annals_core::panic_text(panic).into(),
            Err(cancelled) => Cause::from(cancelled),
        })
    })
}

/// Executes a statement of the user. Connections cache statements by their text, and the same text means other tables in another
/// schema.
pub async fn execute(
    session: &mut (dyn Session + '_),
    dialect: Dialect,
    place: &str,
    sql: &str,
    values: &[Value],
) -> Result<Answer, Fault> {
    let translated = dialect.translate(sql, values.len()).map_err(Fault::refused)?;
    let values: Vec<&Value> = translated.places.iter().map(|place| &values[*place]).collect();
    let sql = format!("/* {} */ {}", place.replace(['*', '/'], "_"), translated.sql);
    session.run(&sql, &values).await
}
