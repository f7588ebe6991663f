//! Values of read models, in the column types of MariaDB and MySQL.

use annals_state::{Fault, Value};
use sqlx::error::BoxDynError;
use sqlx::mysql::{MySqlArguments, MySqlColumn, MySqlRow, MySqlTypeInfo, MySqlValueRef};
use sqlx::{Arguments, Column, Decode, MySql, Row, Type, TypeInfo, ValueRef};

/// Adds a value to the arguments of a statement.
pub(crate) fn add(arguments: &mut MySqlArguments, value: &Value) -> Result<(), BoxDynError> {
    match value {
        Value::Null => arguments.add(None::<i64>),
        Value::Integer(number) => arguments.add(*number),
        Value::Real(number) => arguments.add(*number),
        Value::Text(words) => arguments.add(words.clone()),
        Value::Blob(bytes) => arguments.add(bytes.clone()),
    }
}

/// The values of a row.
///
/// # Errors
/// If the type of a column is not supported.
pub(crate) fn columns(row: &MySqlRow) -> Result<Vec<Value>, Fault> {
    let read = |column: &MySqlColumn| {
        let value = row.try_get_raw(column.ordinal()).map_err(crate::error::fault)?;
        if value.is_null() {
            return Ok(Value::Null);
        }
        read(value, column.type_info()).map_err(|problem| Fault::Column {
            column: format!("`{}`", column.name()),
            problem: problem.to_string(),
        })
    };
    row.columns().iter().map(read).collect()
}

fn read(value: MySqlValueRef<'_>, info: &MySqlTypeInfo) -> Result<Value, BoxDynError> {
    // By its type name, text with a binary collation would be bytes.
    if <str as Type<MySql>>::compatible(info) {
        return Ok(Value::Text(<&str as Decode<MySql>>::decode(value)?.to_owned()));
    }
    Ok(match info.name() {
        "NULL" => Value::Null,
        "BOOLEAN" | "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" => {
            Value::Integer(<i64 as Decode<MySql>>::decode(value)?)
        }
        unsigned if unsigned.ends_with("UNSIGNED") => {
            let number = <u64 as Decode<MySql>>::decode(value)?;
            Value::Integer(
                i64::try_from(number)
                    .map_err(|_| format!("is {number}, which is too large: cast it to text"))?,
            )
        }
        "FLOAT" => Value::Real(<f32 as Decode<MySql>>::decode(value)?.into()),
        "DOUBLE" => Value::Real(<f64 as Decode<MySql>>::decode(value)?),
        "DECIMAL" => {
            let words = <&str as Decode<MySql>>::decode(value)?;
            Value::of_decimal(words).ok_or("is no number")?
        }
        "JSON" => Value::Text(<&str as Decode<MySql>>::decode(value)?.to_owned()),
        "BINARY" | "VARBINARY" | "TINYBLOB" | "BLOB" | "MEDIUMBLOB" | "LONGBLOB" => {
            Value::Blob(<&[u8] as Decode<MySql>>::decode(value)?.to_owned())
        }
        other => return Err(format!("is of the type {other}: cast it to CHAR").into()),
    })
}
