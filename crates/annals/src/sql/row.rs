//! One line of an answer, and the statements that a projection may run.

use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, params_from_iter};

use super::{FromValue, Params, SqlError, Value};

/// A row of an answer. It owns its values.
#[derive(Clone, Debug)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<Value>,
}

impl Row {
    /// What a column says, named or by its place from 0 on.
    ///
    /// ```
    /// # fn read(row: &annals::Row) -> Result<(), annals::SqlError> {
    /// let owner: String = row.get("owner")?;
    /// let balance = row.get::<u64>(1)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If there is no such column or it holds something else.
    pub fn get<T: FromValue>(&self, column: impl Column) -> Result<T, SqlError> {
        let place = column.place(&self.columns);
        let Some(value) = place.and_then(|place| self.values.get(place)) else {
            let problem = format!("is not among {}", self.columns.join(", "));
            return Err(SqlError::Column { column: column.name(), problem });
        };
        T::from_value(value).ok_or_else(|| SqlError::Column {
            column: column.name(),
            problem: format!("is {value:?}, which is no {}", std::any::type_name::<T>()),
        })
    }

    /// The whole row as a tuple: `row.read::<(String, u64)>()`.
    ///
    /// # Errors
    /// If a column is missing or holds something else.
    pub fn read<T: FromRow>(&self) -> Result<T, SqlError> {
        T::from_row(self)
    }

    /// The names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The values, in the order of the columns.
    pub fn values(&self) -> &[Value] {
        &self.values
    }
}

/// A column, by its name or by its place from 0 on.
pub trait Column {
    /// Its place among these.
    fn place(&self, columns: &[String]) -> Option<usize>;
    /// How to call it in an error.
    fn name(&self) -> String;
}

impl Column for &str {
    fn place(&self, columns: &[String]) -> Option<usize> {
        columns.iter().position(|column| column == self)
    }
    fn name(&self) -> String {
        format!("`{self}`")
    }
}

impl Column for usize {
    fn place(&self, _columns: &[String]) -> Option<usize> {
        Some(*self)
    }
    fn name(&self) -> String {
        self.to_string()
    }
}

/// What a whole row can be read as.
pub trait FromRow: Sized {
    /// Reads the columns in their order.
    ///
    /// # Errors
    /// If a column is missing or holds something else.
    fn from_row(row: &Row) -> Result<Self, SqlError>;
}

macro_rules! tuple {
    ($($place:tt $kind:ident),*) => {
        impl<$($kind: FromValue),*> FromRow for ($($kind,)*) {
            fn from_row(row: &Row) -> Result<Self, SqlError> {
                Ok(($(row.get::<$kind>($place)?,)*))
            }
        }
    };
}
tuple!(0 A);
tuple!(0 A, 1 B);
tuple!(0 A, 1 B, 2 C);
tuple!(0 A, 1 B, 2 C, 3 D);
tuple!(0 A, 1 B, 2 C, 3 D, 4 E);
tuple!(0 A, 1 B, 2 C, 3 D, 4 E, 5 F);
tuple!(0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G);
tuple!(0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H);
tuple!(0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H, 8 I);
tuple!(0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H, 8 I, 9 J);
tuple!(0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H, 8 I, 9 J, 10 K);
tuple!(0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H, 8 I, 9 J, 10 K, 11 L);

/// The rows of a projection while it takes an event: everything done here and the checkpoint are one
/// transaction.
pub struct Rows<'a> {
    connection: &'a Connection,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(connection: &'a Connection) -> Self {
        Self { connection }
    }

    /// Fails if SQLite has undone the transaction by itself, as it may after some errors. Whoever passed over such
    /// an error would write the rest without what came before.
    pub(crate) fn still_one_transaction(&self) -> Result<(), SqlError> {
        if self.connection.is_autocommit() {
            return Err(SqlError::Statement("a statement failed and has undone the transaction".into()));
        }
        Ok(())
    }

    /// Runs a statement and returns how many rows it changed.
    ///
    /// # Errors
    /// If SQLite refuses.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize, SqlError> {
        self.still_one_transaction()?;
        let mut statement = prepare(self.connection, sql)?;
        Ok(statement.execute(params_from_iter(params.values()?))?)
    }

    /// Runs a query and reads every row of the answer.
    ///
    /// # Errors
    /// If SQLite refuses or a row cannot be read.
    pub fn query<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row) -> Result<T, SqlError>,
    ) -> Result<Vec<T>, SqlError> {
        self.still_one_transaction()?;
        select(self.connection, sql, &params.values()?)?.iter().map(read).collect()
    }

    /// Runs a query and reads the first row of the answer, if there is one.
    ///
    /// # Errors
    /// If SQLite refuses or the row cannot be read.
    pub fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row) -> Result<T, SqlError>,
    ) -> Result<Option<T>, SqlError> {
        self.still_one_transaction()?;
        select(self.connection, sql, &params.values()?)?.first().map(read).transpose()
    }
}

/// Prepares a statement of a user's. Neither a projection nor a query begins or ends a transaction.
fn prepare<'a>(connection: &'a Connection, sql: &str) -> Result<CachedStatement<'a>, SqlError> {
    let statement = connection.prepare_cached(sql)?;
    // What changes nothing by itself and answers with nothing: `BEGIN`, `COMMIT`, `SAVEPOINT` and the like.
    if statement.readonly() && statement.column_count() == 0 {
        return Err(SqlError::Statement(
            format!("`{sql}` is not for here: transactions are the framework's").into(),
        ));
    }
    Ok(statement)
}

/// The rows of an answer.
pub(crate) fn select(connection: &Connection, sql: &str, params: &[Value]) -> Result<Vec<Row>, SqlError> {
    let mut statement = prepare(connection, sql)?;
    let columns: Arc<[String]> = statement.column_names().into_iter().map(String::from).collect();
    let mut answer = statement.query(params_from_iter(params))?;
    let mut rows = Vec::new();
    while let Some(row) = answer.next()? {
        let values = (0..columns.len()).map(|place| row.get_ref(place).map(Value::of));
        let values = values.collect::<Result<_, _>>()?;
        rows.push(Row { columns: columns.clone(), values });
    }
    Ok(rows)
}
