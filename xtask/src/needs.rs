//! What the tests need beside Rust: found, or installed from the system's packages, or asked for.
//!
//! Today that is a C compiler, for the SQLite that is built in.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::run::{self, Outcome};

/// Finds or installs everything, and says what.
pub fn meet() -> Outcome {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    if let Some(path) = find(&compiler) {
        println!("needs a C compiler: {}", path.display());
        return Ok(());
    }
    println!("needs a C compiler: `{compiler}` is not there, installing");
    let how = "install a C compiler (Debian: apt-get install gcc libc6-dev; macOS: xcode-select --install)";
    if find("apt-get").is_none() {
        return Err(how.to_owned());
    }
    let prefix: &[&str] = if is_root() { &[] } else { &["sudo", "-n"] };
    apt(prefix, &["update"])
        .and_then(|()| apt(prefix, &["install", "-y", "--no-install-recommends", "gcc", "libc6-dev"]))
        .map_err(|problem| format!("{problem}; {how}"))
}

fn apt(prefix: &[&str], arguments: &[&str]) -> Outcome {
    let words: Vec<&str> = prefix.iter().chain(&["apt-get"]).chain(arguments).copied().collect();
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
