//! What `--help` and `--version` say.

use std::process::Command;

use crate::support::{Answer, Place};

/// Columns of a small terminal.
const WIDTH: usize = 80;

/// The help of a command on a small terminal.
fn help(command: &[&str]) -> String {
    let place = Place::new();
    let mut run = place.command(command.iter().chain(&["--help"]));
    let Answer { code, out, err } = run.env("COLUMNS", WIDTH.to_string()).output().unwrap().into();
    assert_eq!((code, err.as_str()), (0, ""), "{command:?}");
    out
}

/// The names of the commands that a help lists.
fn commands(help: &str) -> Vec<String> {
    let list =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names =
        list.filter(|line| !line.starts_with("   ")).map(|line| line.split_whitespace().next().unwrap());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn help_fits_a_terminal_of_80_columns_and_breaks_no_line_early() {
    let names = commands(&help(&[]));
    assert!(names.len() > 15 && names.iter().any(|name| name == "import"), "{names:?}");
    for name in &names {
        let text = help(&[name]);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        let (_, after) = text.split_once("\nExample").unwrap_or_else(|| panic!("{name} has no example"));
        let lines: Vec<_> = after.lines().collect();
        for pair in lines.windows(2) {
            let [line, next] = pair else { unreachable!() };
            if line.starts_with(' ') {
                // An example is a command, or its continuation.
                let command = ["  annals ", "  export ", "  echo ", "  zcat ", "  RUST_LOG=", "      "];
                assert!(command.iter().any(|begin| line.starts_with(begin)), "{name}: {line}");
            } else if !line.is_empty() && !line.starts_with(['s', ':']) && !next.is_empty() {
                let first = next.split(' ').next().unwrap();
                let room = WIDTH - line.chars().count();
                assert!(first.chars().count() + 1 > room, "{name}: {line:?} has room for {first:?}");
            }
        }
    }
}

#[test]
fn help_lists_the_exit_codes_and_no_hidden_name() {
    let text = help(&[]);
    for code in [
        "  2  the command is invalid",
        "  4  a conflict",
        "  5  the store is unavailable",
        "  6  the store or",
        "  7  the store cannot be used or read until",
    ] {
        assert!(text.contains(code), "{code}: {text}");
    }
    assert!(!help(&["verify"]).contains("alias"));
}

#[test]
fn a_version_says_the_commit_and_the_features() {
    let place = Place::new();
    let output = place.ok("--version");
    let rest = output.strip_prefix(concat!("annals ", env!("CARGO_PKG_VERSION"), " (")).unwrap();
    let features = if cfg!(feature = "object-storage") { "object-storage" } else { "none" };
    assert!(rest.ends_with(&format!("features: {features})\n")), "{output}");
    let here = env!("CARGO_MANIFEST_DIR");
    let commit = Command::new("git").args(["-C", here, "rev-parse", "--short=12", "HEAD"]).output();
    if let Ok(commit) = commit
        && commit.status.success()
    {
        let commit = String::from_utf8(commit.stdout).unwrap();
        assert!(rest.starts_with(&format!("commit {}, ", commit.trim())), "{output}");
    }
}
