//! From the code of a projection, which is not async, to the connection that carries out its statements.
//!
//! ```text
//! a thread for blocking work                      the task
//! apply -> Tx -> StatementChannel ---- statement, values ---> Session
//!                                   <--------- answer ---------
//! ```
//!
//! - L1  The task executes one statement after the other, and the thread waits for each. If the task is dropped, the
//!       thread gets an error and ends.
//! - L2  After a deadline nothing more is executed: the work fails, also while it is busy with something else.
//! - L3  A statement that failed has undone what came before it in its transaction: nothing more is executed.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use annals_core::Cause;
use tokio::sync::{mpsc, oneshot};

use crate::{Allowed, Answer, Dialect, Fault, Session, SqlError, Value};

const TOO_LONG: &str = "the projection takes too long while others wait";

/// The thread's end.
pub struct StatementChannel {
    dialect: Dialect,
    statements: mpsc::UnboundedSender<Statement>,
    deadline: Option<Instant>,
    /// Why nothing more is executed.
    broken: RefCell<Option<String>>,
    /// Whether that was the database's fault and not the statement's.
    lost: Cell<bool>,
}

struct Statement {
    sql: String,
    values: Vec<Value>,
    answer: oneshot::Sender<Result<Answer, Fault>>,
}

impl StatementChannel {
    /// The SQL that the database speaks.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether the database does not answer as it should, whatever was asked.
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

/// Does this work on a thread for blocking work, with its statements executed on this connection, for the rows of this
/// place, until the deadline at most.
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
            // A statement that is under way is waited for: the connection is of use afterwards.
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

/// Carries out a statement of a user's. Connections keep statements by their text, and the same text means other tables
/// in another place.
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
