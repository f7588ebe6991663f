//! The commands of the task runner: their directory, their colours, and the message when one fails.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// The outcome of a task, with a message for the user if it failed.
pub type Outcome = Result<(), String>;

/// The root of the project.
pub fn root() -> PathBuf {
    let xtask = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("the folder of this crate lies in the project").to_path_buf()
}

/// A cargo command at the root of the project.
pub fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).arg(subcommand);
    if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
        command.env("CARGO_TERM_COLOR", "never");
    }
    command
}

/// The arguments that select crates: the named ones, or the whole workspace.
pub fn crates(arguments: &[String]) -> Result<Vec<String>, String> {
    if arguments.is_empty() {
        return Ok(vec!["--workspace".to_owned()]);
    }
    let pairs =
        arguments.chunks(2).all(|pair| pair.len() == 2 && pair[0] == "-p" && !pair[1].starts_with('-'));
    if !pairs {
        return Err(format!("`{}` is not `-p CRATE ...`", arguments.join(" ")));
    }
    Ok(arguments.to_vec())
}

/// Runs a command and waits for it.
pub fn succeed(command: &mut Command) -> Outcome {
    let message = spell(command);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{message}` failed ({status})")),
        Err(error) => Err(format!("`{message}` cannot be run: {error}")),
    }
}

/// The command line.
pub fn spell(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or_default();
    let words: Vec<_> =
        std::iter::once(program).chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

/// The time since then, as text.
pub fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn crates_are_named_or_all() {
        assert_eq!(crates(&[]).unwrap(), ["--workspace"]);
        assert_eq!(crates(&words("-p a -p b")).unwrap(), words("-p a -p b"));
        for wrong in ["-p", "a", "-p -p", "--all"] {
            assert!(crates(&words(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_command_that_fails_is_named() {
        let mut command = cargo("no-such-subcommand");
        command.stderr(std::process::Stdio::null());
        let problem = succeed(&mut command).unwrap_err();
        assert!(problem.contains("cargo no-such-subcommand"), "{problem}");
        let problem = succeed(&mut Command::new("no-such-program-anywhere")).unwrap_err();
        assert!(problem.contains("cannot be run"), "{problem}");
    }
}
