//! Queued statements, whose results are not needed: several are sent as one text, in one round trip.
//!
//! - U1  Each statement is prepared first, under a generated name, and the text executes it:
//!       `EXECUTE annals_1('5', E'text')`. So the server has checked that it is a single statement, and no
//!       value is part of the text that it parses as one.
//! - U2  A literal has the type that the server expects, and is exact for that type (`literal`). A statement
//!       with a value that has no such literal is sent separately.
//! - U3  After an error all of them are prepared again: a table may have been recreated with other columns.
//! - U4  No name is released while a text that contains it waits to be sent.

use std::fmt::Write as _;
use std::sync::Arc;

use annals_state::{Fault, Queued};
use sqlx::{AssertSqlSafe, Either, Executor, SqlSafeStr, Statement};

use super::{fault, run};
use crate::literal;
use crate::prepared::Named;
use crate::session::Connected;

/// Most bytes of one text.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Most prepared statements of a connection.
const PREPARED_MAX: usize = 64;
/// A longer statement is sent separately: it has many rows already, and the server would keep all of its
/// text.
const STATEMENT_BYTES_MAX: usize = 16 << 10;

/// Executes the statements in order.
pub(crate) async fn run_all(connection: &mut Connected, statements: &[Queued]) -> Result<(), Fault> {
    let done = try_run_all(connection, statements).await;
    if done.is_err() {
        connection.prepared.forget();
    }
    done
}

async fn try_run_all(connection: &mut Connected, statements: &[Queued]) -> Result<(), Fault> {
    let mut text = String::new();
    for queued in statements {
        let sql = queued.statement.sql.as_str();
        if sql.len() <= STATEMENT_BYTES_MAX {
            if connection.prepared.by_text.len() >= PREPARED_MAX
                && !connection.prepared.by_text.contains_key(sql)
            {
                send(connection, std::mem::take(&mut text)).await?;
                connection.prepared.forget();
            }
            let named = prepared(connection, sql).await?;
            let before = text.len();
            if write(&mut text, &named, queued) && text.len() - before < TEXT_BYTES_MAX {
                if text.len() >= TEXT_BYTES_MAX {
                    let last = text.split_off(before);
                    send(connection, std::mem::replace(&mut text, last)).await?;
                }
                continue;
            }
            text.truncate(before);
        }
        send(connection, std::mem::take(&mut text)).await?;
        run(connection, sql, &queued.marked()).await?;
    }
    send(connection, text).await
}

async fn send(connection: &mut Connected, text: String) -> Result<(), Fault> {
    match text.is_empty() {
        true => Ok(()),
        false => connection.execute(AssertSqlSafe(text)).await.map(drop).map_err(fault),
    }
}

/// Returns the statement, prepared in this session.
async fn prepared(connection: &mut Connected, sql: &str) -> Result<Arc<Named>, Fault> {
    if let Some(named) = connection.prepared.by_text.get(sql) {
        return Ok(named.clone());
    }
    // Prepared by the protocol as one statement: the server returns the parameter types, and refuses several
    // statements.
    let statement = connection.prepare(AssertSqlSafe(sql.to_owned()).into_sql_str()).await.map_err(fault)?;
    let types = match statement.parameters() {
        Some(Either::Left(types)) => types.to_vec(),
        _ => Vec::new(),
    };
    let prepared = &mut connection.prepared;
    prepared.next += 1;
    let number = prepared.next;
    let mut text = String::new();
    for stale in prepared.stale.drain(..) {
        write!(text, "DEALLOCATE annals_{stale}; ").expect("a text takes everything");
    }
    write!(text, "PREPARE annals_{number} AS {sql}").expect("a text takes everything");
    connection.execute(AssertSqlSafe(text)).await.map_err(fault)?;
    let named = Arc::new(Named { number, types });
    connection.prepared.by_text.insert(sql.to_owned(), named.clone());
    Ok(named)
}

/// Writes the execution of a statement. Returns `false` if a value has no literal, or if the number of values
/// differs from that of the parameters.
fn write(text: &mut String, named: &Named, queued: &Queued) -> bool {
    write!(text, "EXECUTE annals_{}", named.number).expect("a text takes everything");
    let places = &queued.statement.places;
    if places.len() != named.types.len() {
        return false;
    }
    let mut before = '(';
    for (place, info) in places.iter().zip(&named.types) {
        text.push(before);
        before = ',';
        if !literal::write(text, &queued.values[*place], info) {
            return false;
        }
    }
    text.push_str(if before == ',' { ");\n" } else { ";\n" });
    true
}
