//! Dumps of databases as SQL text, and their restoration, with the tools of each database, as operators do
//! it.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// The scope of a dump.
#[derive(Clone, Copy, Debug)]
pub enum Of<'a> {
    /// These schemas of PostgreSQL, which are databases of MariaDB and MySQL.
    Schemas(&'a [String]),
    /// These tables of the database in the address.
    Tables(&'a [String]),
}

/// Dumps the database with this address: one statement for each row, without owners, privileges and time.
///
/// # Panics
/// If the program fails or is missing; its output is printed.
pub fn dump(url: &str, of: Of<'_>) -> String {
    let mut command = if is_postgres(url) { pg_dump(url, of) } else { mariadb_dump(url, of) };
    let output = command.output().expect("the program that dumps a database can be run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{url} cannot be dumped: {errors}");
    let text = String::from_utf8(output.stdout).expect("a dump is text");
    // Without commands for the client only, which older clients refuse, and without the versions of the
    // programs.
    let is_kept = |line: &&str| {
        let for_clients =
            ["\\restrict", "\\unrestrict", "/*M!999999", "-- Dumped", "-- MariaDB dump", "-- Host:"];
        !for_clients.iter().any(|begin| line.starts_with(begin)) && !line.starts_with("-- Server version")
    };
    let mut kept = String::new();
    let mut generated = None;
    for line in text.lines().filter(is_kept) {
        if line.contains(" GENERATED ALWAYS AS (") {
            generated = line.split('`').nth(1);
        }
        kept.push_str(&without_generated(line, generated));
        kept.push('\n');
    }
    kept
}

/// A row without the value of a generated column, which MySQL does not accept. MySQL's own program leaves it
/// out; MariaDB's does so only for MariaDB. It is the last column.
fn without_generated(line: &str, column: Option<&str>) -> String {
    let row = column.filter(|_| line.starts_with("INSERT INTO ")).and_then(|column| {
        let (columns, values) = line.split_once(&format!(", `{column}`) VALUES ("))?;
        let (values, _) = values.rsplit_once(',')?;
        Some(format!("{columns}) VALUES ({values});"))
    });
    row.unwrap_or_else(|| line.to_owned())
}

fn pg_dump(url: &str, of: Of<'_>) -> Command {
    let mut command = Command::new("pg_dump");
    command.args(["--inserts", "--no-owner", "--no-privileges", "--quote-all-identifiers", "--dbname"]);
    command.arg(without_schema(url));
    let (option, names) = match of {
        Of::Schemas(names) => ("--schema", names),
        Of::Tables(names) => ("--table", names),
    };
    for name in names {
        command.arg(format!("{option}=\"{name}\""));
    }
    command
}

fn mariadb_dump(url: &str, of: Of<'_>) -> Command {
    let (mut command, database) = mariadb("mariadb-dump", url);
    command.args(["--skip-dump-date", "--skip-extended-insert", "--hex-blob", "--no-tablespaces"]);
    command.args(["--skip-add-drop-table", "--single-transaction", "--routines", "--complete-insert"]);
    match of {
        Of::Schemas(names) => command.arg("--databases").args(names),
        Of::Tables(names) => command.arg(database).args(names),
    };
    command
}

/// Executes the statements of a dump in the database with this address.
///
/// # Panics
/// If one fails; the output of the program is printed.
pub fn load(url: &str, dump: &str) {
    let mut command = match is_postgres(url) {
        true => {
            let mut psql = Command::new("psql");
            psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname"])
                .arg(without_schema(url));
            psql
        }
        false => {
            let (mut client, database) = mariadb("mariadb", url);
            client.arg(database);
            client
        }
    };
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the client of a database can be run");
    // A client that fails at a statement stops reading, and reports the error.
    let _ = child.stdin.take().expect("it was asked for as a pipe").write_all(dump.as_bytes());
    let output = child.wait_with_output().expect("the client ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://")
}

/// The address in the form that PostgreSQL's own programs accept.
fn without_schema(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

/// A program of MariaDB for the server with this address, `mysql://USER@HOST:PORT/DATABASE`, and the
/// database.
fn mariadb<'a>(program: &str, url: &'a str) -> (Command, &'a str) {
    let parts =
        url.strip_prefix("mysql://").and_then(|rest| rest.split_once('@')).and_then(|(user, rest)| {
            let (server, database) = rest.split_once('/')?;
            Some((user, server.split_once(':')?, database))
        });
    let (user, (host, port), database) = parts.expect("the address of a server of the tests");
    let mut command = Command::new(program);
    command.args(["--no-defaults", "--protocol=tcp", "--default-character-set=utf8mb4"]);
    command.arg(format!("-u{user}")).arg(format!("-h{host}")).arg(format!("-P{port}"));
    (command, database)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_database_computes_is_left_out_of_rows() {
        let row = "INSERT INTO `a` (`b`, `c`) VALUES ('x, (`c`) VALUES (1, 2)',0x00);";
        assert_eq!(
            without_generated(row, Some("c")),
            "INSERT INTO `a` (`b`) VALUES ('x, (`c`) VALUES (1, 2)');"
        );
        for column in [None, Some("b")] {
            assert_eq!(without_generated(row, column), row);
        }
    }
}
