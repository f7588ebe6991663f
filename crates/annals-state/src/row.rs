//! A row of the result of a query.

use std::sync::Arc;

use crate::{Answer, FromValue, SqlError, Value};

/// A row of the result of a query. It owns its values.
#[derive(Clone, Debug)]
pub struct Row {
    pub(crate) columns: Arc<[String]>,
    pub(crate) values: Vec<Value>,
}

impl Row {
    /// Returns the value of a column, by its name or its index from 0.
    ///
    /// ```
    /// # fn read(row: &annals_state::Row) -> Result<(), annals_state::SqlError> {
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

    /// Returns the whole row as a tuple: `row.read::<(String, u64)>()`.
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

/// A column, by its name or its index from 0.
pub trait Column {
    /// Its index among these.
    fn place(&self, columns: &[String]) -> Option<usize>;
    /// Its name in an error.
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

/// A type that a whole row can be read as.
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

/// The rows of a result.
pub fn read(answer: Answer) -> Vec<Row> {
    let Answer { columns, rows, .. } = answer;
    rows.into_iter().map(|values| Row { columns: columns.clone(), values }).collect()
}
