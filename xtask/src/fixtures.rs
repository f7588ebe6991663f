//! `cargo xtask fixtures NAME`: writes files of the current formats to `fixtures/NAME`. `fixtures/README.md`
//! describes when to run it.

use crate::run::{self, Outcome};

/// The crates with ignored tests that write them, in order: later ones need the files of earlier ones.
const WRITERS: [&str; 4] = ["annals", "annals-outbox", "annals-server", "annals-cli"];

/// Writes them. An existing folder is not changed: a fixture is never written a second time.
pub fn run(arguments: &[String]) -> Outcome {
    let [name] = arguments else { return Err("into which folder? `cargo xtask fixtures NAME`".to_owned()) };
    if name.is_empty() || name.starts_with(['.', '-']) || name.contains('/') {
        return Err(format!("`{name}` is no name of a folder in fixtures/"));
    }
    let folder = run::root().join("fixtures").join(name);
    if folder.exists() {
        return Err(format!("{} exists: a fixture is never written a second time", folder.display()));
    }
    for writer in WRITERS {
        let mut test = run::cargo("test");
        test.args(["--locked", "-p", writer, "--test", "it", "--", "fixtures::write::", "--ignored"]);
        run::succeed(test.env("ANNALS_FIXTURES", &folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_path_or_one_without_a_parent_is_refused() {
        for wrong in [&[][..], &["0.1.0"], &["../x"], &[""], &["a", "b"]] {
            let wrong: Vec<String> = wrong.iter().map(|name| (*name).to_owned()).collect();
            assert!(run(&wrong).is_err(), "{wrong:?}");
        }
    }
}
