//! From the code of a projection, which is not async, to the connection that executes its statements.
//!
//! ```text
//! a thread for blocking work                      the task
//! apply -> Tx -> StatementChannel ---- statement, values ---> Session
//!                                   <--------- answer ---------
//!                queued statements ---- all of them ---------> Session
//!                                   <--------- done -----------
//! ```
//!
//! - L1  The task executes one statement after the other, and the thread waits for each. If the task is
//!       dropped, the thread gets an error and ends.
//! - L2  After a deadline no statement is executed: the work fails, even while it does something else.
//! - L3  A statement that fails rolls its transaction back: no further statement is executed.
//! - L4  Queued statements are executed in order, before any other statement: at the latest when
//!       [`QUEUE_COUNT`] or [`QUEUE_BYTES`] is reached. The thread continues meanwhile, and waits for them
//!       before it sends the next ones, so at most twice as many are in memory. An error of theirs is
//!       reported by the next call.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use annals_core::Cause;
use tokio::sync::{mpsc, oneshot};

use crate::{Allowed, Answer, Dialect, Fault, Queued, Session, SqlError, Translated, Value};

const TOO_LONG: &str = "the projection takes too long while others wait";
/// Most statements that are queued. All of them share the time limit of one statement.
const QUEUE_COUNT: usize = 512;
/// Most bytes of queued statements and their values, unless one alone has more.
const QUEUE_BYTES: usize = 1 << 20;

/// The end of the channel in the thread.
pub struct StatementChannel {
    dialect: Dialect,
    place: Arc<str>,
    asked: mpsc::UnboundedSender<Asked>,
    deadline: Option<Instant>,
    /// Why no further statement is executed.
    broken: RefCell<Option<String>>,
    /// Whether the cause is the database and not the statement.
    lost: Cell<bool>,
    queue: RefCell<Queue>,
}

/// Statements whose results are not needed.
#[derive(Default)]
struct Queue {
    statements: Vec<Queued>,
    bytes: usize,
    /// Those that the task has been given and has not reported yet.
    under_way: Option<oneshot::Receiver<Result<Answer, Fault>>>,
    /// Statements as the database wants them, by their text and how many values they were given.
    translated: HashMap<String, (usize, Arc<Translated>)>,
    /// Bytes of these texts, at most [`QUEUE_BYTES`].
    translated_bytes: usize,
}

struct Asked {
    what: What,
    answer: oneshot::Sender<Result<Answer, Fault>>,
}

enum What {
    One { sql: String, values: Vec<Value> },
    All(Vec<Queued>),
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

    /// Executes a statement on the session after those that are queued, and waits for its answer.
    ///
    /// # Errors
    /// As the database says, of this statement or of one that was queued.
    pub fn run(&self, sql: &str, values: Vec<Value>) -> Result<Answer, SqlError> {
        self.refuse(sql)?;
        self.flush()?;
        let answered = self.ask(What::One { sql: sql.to_owned(), values });
        self.answer(answered)
    }

    /// Executes a statement later, at the latest before the next one whose answer is asked for.
    ///
    /// # Errors
    /// If the statement is not for here, or one that was queued before has failed.
    pub fn queue(&self, sql: &str, values: Vec<Value>) -> Result<(), SqlError> {
        let statement = self.translated(sql, values.len())?;
        let is_full = {
            let mut queue = self.queue.borrow_mut();
            queue.bytes += statement.sql.len() + values.iter().map(Value::bytes).sum::<usize>();
            queue.statements.push(Queued { statement, values });
            queue.statements.len() >= QUEUE_COUNT || queue.bytes >= QUEUE_BYTES
        };
        if is_full { self.send_queued() } else { Ok(()) }
    }

    /// Executes what is queued, and waits until it is done.
    ///
    /// # Errors
    /// As the database says of one of the statements: none of them stays.
    pub fn flush(&self) -> Result<(), SqlError> {
        self.send_queued()?;
        self.settle()
    }

    /// Takes out what is queued and was not sent yet, for the task to execute it with something else.
    ///
    /// # Errors
    /// If a statement that was sent before has failed.
    pub fn take_queued(&self) -> Result<Vec<Queued>, SqlError> {
        self.settle()?;
        let mut queue = self.queue.borrow_mut();
        queue.bytes = 0;
        Ok(std::mem::take(&mut queue.statements))
    }

    /// Gives the task what is queued, once it is done with what it was given before.
    fn send_queued(&self) -> Result<(), SqlError> {
        let statements = self.take_queued()?;
        if !statements.is_empty() {
            let answered = self.ask(What::All(statements));
            self.queue.borrow_mut().under_way = Some(answered);
        }
        Ok(())
    }

    /// Waits for the statements that the task was given.
    fn settle(&self) -> Result<(), SqlError> {
        let under_way = self.queue.borrow_mut().under_way.take();
        under_way.map_or(Ok(()), |answered| self.answer(answered).map(drop))
    }

    fn ask(&self, what: What) -> oneshot::Receiver<Result<Answer, Fault>> {
        let (answer, answered) = oneshot::channel();
        // If the task is gone, so is the sender of the answer.
        let _ = self.asked.send(Asked { what, answer });
        answered
    }

    fn answer(&self, answered: oneshot::Receiver<Result<Answer, Fault>>) -> Result<Answer, SqlError> {
        let done = answered.blocking_recv();
        let done = done.unwrap_or_else(|_| Err(Fault::unavailable("the work was given up")));
        done.map_err(|fault| {
            self.lost.set(matches!(fault, Fault::Unavailable(_) | Fault::Store(_)));
            *self.broken.borrow_mut() = Some(fault.to_string());
            fault.into()
        })
    }

    fn refuse(&self, sql: &str) -> Result<(), SqlError> {
        match self.dialect.refuses(sql, Allowed::Write) {
            Some(problem) => Err(SqlError::Statement(problem.into())),
            None => Ok(()),
        }
    }

    /// Returns the statement in the dialect of the database. Projections have few texts and use them often.
    fn translated(&self, sql: &str, values: usize) -> Result<Arc<Translated>, SqlError> {
        if let Some((count, translated)) = self.queue.borrow().translated.get(sql)
            && *count == values
        {
            return Ok(translated.clone());
        }
        self.refuse(sql)?;
        let translated = translate(self.dialect, &self.place, sql, values);
        let translated = Arc::new(translated.map_err(|problem| SqlError::Statement(problem.into()))?);
        let mut queue = self.queue.borrow_mut();
        queue.translated_bytes += sql.len() + translated.sql.len();
        if queue.translated.len() >= QUEUE_COUNT || queue.translated_bytes > QUEUE_BYTES {
            queue.translated.clear();
            queue.translated_bytes = sql.len() + translated.sql.len();
        }
        queue.translated.insert(sql.to_owned(), (values, translated.clone()));
        Ok(translated)
    }
}

/// Runs this work on a thread for blocking work, and executes its statements on this connection, for the rows
/// of this schema, until the deadline.
pub async fn run_blocking<T: Send + 'static>(
    session: &mut (dyn Session + '_),
    dialect: Dialect,
    place: &str,
    deadline: Option<Instant>,
    work: impl FnOnce(&StatementChannel) -> T + Send + 'static,
) -> Result<T, SqlError> {
    let (statements, mut asked) = mpsc::unbounded_channel();
    let of: Arc<str> = place.into();
    let working = tokio::task::spawn_blocking(move || {
        work(&StatementChannel {
            dialect,
            place: of,
            asked: statements,
            deadline,
            broken: RefCell::default(),
            lost: Cell::default(),
            queue: RefCell::default(),
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
        let Some(Asked { what, answer }) = next else { break };
        let done = match what {
            What::One { sql, values } => execute(session, dialect, place, &sql, &values).await,
            What::All(statements) => session.run_all(&statements).await.map(|()| Answer::default()),
        };
        // The thread may have ended meanwhile.
        let _ = answer.send(done);
    }
    working.await.map_err(|stopped| {
        SqlError::Stopped(match stopped.try_into_panic() {
            Ok(panic) => annals_core::panic_text(panic).into(),
            Err(cancelled) => Cause::from(cancelled),
        })
    })
}

/// Executes a statement of the user.
pub async fn execute(
    session: &mut (dyn Session + '_),
    dialect: Dialect,
    place: &str,
    sql: &str,
    values: &[Value],
) -> Result<Answer, Fault> {
    let translated = translate(dialect, place, sql, values.len()).map_err(Fault::refused)?;
    let values: Vec<&Value> = translated.places.iter().map(|place| &values[*place]).collect();
    session.run(&translated.sql, &values).await
}

/// A statement of a user's for the rows of this place. Connections keep statements by their text, and the
/// same text means other tables in another place.
pub fn translate(dialect: Dialect, place: &str, sql: &str, values: usize) -> Result<Translated, String> {
    let mut translated = dialect.translate(sql, values)?;
    let head = format!("/* {} */ ", place.replace(['*', '/'], "_"));
    for mark in &mut translated.marks {
        *mark += head.len();
    }
    translated.sql.insert_str(0, &head);
    Ok(translated)
}
