//! Runs the binary in a directory of its own.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A directory in which commands run; `file:data` is the store.
pub struct Place(TempDir);

/// What a command answered.
pub struct Answer {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// The command, to be run.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_annals"));
        command
            .args(arguments)
            .current_dir(self.0.path())
            .env("ANNALS_STORE", "file:data")
            .env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command line, split at blanks.
    pub fn annals(&self, line: &str) -> Answer {
        self.annals_with(line, "")
    }

    /// The same with something on standard input.
    pub fn annals_with(&self, line: &str, input: impl AsRef<[u8]>) -> Answer {
        let mut child = self.command(line.split_whitespace()).stdin(Stdio::piped()).spawn().unwrap();
        // A command that does not read closes its end.
        drop(child.stdin.take().unwrap().write_all(input.as_ref()));
        child.wait_with_output().unwrap().into()
    }

    /// Runs a command line that must succeed and returns what it prints.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let answer = self.annals(line);
        assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{line}: {}", answer.out);
        answer.out
    }

    /// The same, read as JSON.
    #[track_caller]
    pub fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(line)).unwrap()
    }

    /// Runs a command line that must fail with this code, and returns its one line without the name before
    /// it; with `--json`, the explanation in it.
    #[track_caller]
    pub fn fails(&self, code: i32, line: &str) -> String {
        let answer = self.annals(line);
        assert_eq!((answer.code, answer.out.as_str()), (code, ""), "{line}: {}", answer.err);
        assert_eq!(answer.err.lines().count(), 1, "{line}: {}", answer.err);
        if line.contains("--json") {
            let problem: Value = serde_json::from_str(&answer.err).unwrap();
            assert_eq!(problem["exit_code"], code, "{line}: {}", answer.err);
            return problem["detail"].as_str().unwrap().to_owned();
        }
        answer.err.trim_end().strip_prefix("annals: ").unwrap().to_owned()
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Sends a signal to a command, such as `-INT`, and waits for its end.
pub fn stopped(child: Child, signal: &str) -> Answer {
    signalled(&child, signal);
    child.wait_with_output().unwrap().into()
}

/// Sends a signal to a command.
pub fn signalled(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}
