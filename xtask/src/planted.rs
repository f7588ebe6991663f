//! `cargo xtask planted`: the engine with planted bugs. It is a copy under `target/`, a workspace of its own,
//! with the patches of `crates/annals-engine/planted/` applied; the engine itself contains no trace of them.
//! All bugs are in the copy at once, so that it is compiled once; a test activates one of them at a time.
//!
//! Only changed files are written, so that cargo rebuilds the copy only if it has changed. Its dependencies,
//! profiles and target directory are those of the project. Next below: `planted/patches`.

mod edit;
mod patches;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::run::{self, Outcome};
use crate::tree::{Tree, walk};
pub use patches::problems;
use patches::{ENGINE, Files, Sources};

/// The copy that is tested.
const COPY: &str = "target/planted";
/// The copy in which bugs are written.
const EDITED: &str = "target/planted-edit";
/// The folder of the engine in a copy.
const PACKAGE: &str = "annals-engine";

/// Creates a copy to write bugs in, or writes the patches from there. `test` tests the copy.
pub fn run(arguments: &[String]) -> Outcome {
    match arguments {
        [what] if what == "--edit" => edit(),
        [what] if what == "--save" => save(),
        _ => Err(format!("`{}` is not `--edit` or `--save`", arguments.join(" "))),
    }
}

/// Creates or updates the copy. Returns the bugs in it.
pub fn make() -> Result<BTreeSet<String>, String> {
    let tree = Tree::read(&run::root());
    let sources = Sources::of(&tree);
    let (engine, problems) = sources.patched();
    if !problems.is_empty() {
        return Err(format!("the engine with planted bugs cannot be made\n{}", problems.join("\n")));
    }
    write_copy(&run::root().join(COPY), engine)?;
    Ok(sources.bugs().into_iter().map(str::to_owned).collect())
}

/// The bug that a test reports as caught in this line of its output, if any.
pub fn caught_in(line: &str) -> Option<&str> {
    // If tests run on one thread, the line begins with the name of the test, which may end with `caught` too.
    let mut names =
        line.split("caught ").skip(1).filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next());
    names.find(|name| !name.is_empty())
}

/// Checks that all bugs were caught. Returns the text with their number.
///
/// # Errors
/// The names of the bugs that were not caught.
pub fn check_caught(bugs: &BTreeSet<String>, caught: &BTreeSet<String>) -> Result<String, String> {
    let missed: Vec<&str> = bugs.difference(caught).map(String::as_str).collect();
    match missed.is_empty() {
        true => Ok(format!("all {} planted bugs were caught", bugs.len())),
        false => Err(format!(
            "{} of {} planted bugs were not caught: {}",
            missed.len(),
            bugs.len(),
            missed.join(", ")
        )),
    }
}

/// A cargo command in the copy, which `make` must have created.
pub fn cargo(subcommand: &str) -> Command {
    cargo_in(COPY, subcommand)
}

fn cargo_in(copy: &str, subcommand: &str) -> Command {
    let mut command = run::cargo(subcommand);
    command.current_dir(run::root().join(copy).join(PACKAGE));
    command
}

fn edit() -> Outcome {
    let folder = run::root().join(EDITED);
    if folder.exists() {
        return Err(format!(
            "{EDITED} has changes: `cargo xtask planted --save` saves them; to give them up, remove the folder"
        ));
    }
    let (engine, problems) = Sources::of(&Tree::read(&run::root())).patched();
    write_copy(&folder, engine)?;
    for problem in problems {
        println!("{problem}");
    }
    println!(
        "write the bugs into {EDITED}/{PACKAGE}, where each change names its `Bug::X`; try them there with\n  \
         cargo test --features shuttle --lib --test it -- model:: planted::\nthen `cargo xtask planted --save`"
    );
    Ok(())
}

fn save() -> Outcome {
    let folder = run::root().join(EDITED);
    if !folder.exists() {
        return Err("there is no copy with changes: `cargo xtask planted --edit` makes one".to_owned());
    }
    run::succeed(cargo_in(EDITED, "fmt").args(["-p", PACKAGE]))?;
    let package = folder.join(PACKAGE);
    let read = |path: String| {
        let text =
            std::fs::read_to_string(package.join(&path)).map_err(cannot("read", &package.join(&path)))?;
        Ok((path, text))
    };
    let copy: Files = walk(&package, "").into_iter().map(read).collect::<Result<_, String>>()?;
    let saved = Sources::of(&Tree::read(&run::root())).saved(&copy)?;
    let planted = format!("{ENGINE}planted");
    for path in write(&run::root().join(&planted), &saved)? {
        println!("changed {planted}/{path}");
    }
    std::fs::remove_dir_all(&folder).map_err(cannot("remove", &folder))
}

/// Writes a workspace with the engine of these files.
fn write_copy(folder: &Path, engine: Files) -> Outcome {
    let root = |name: &str| {
        let path = run::root().join(name);
        std::fs::read_to_string(&path).map_err(cannot("read", &path))
    };
    let mut files: Files =
        engine.into_iter().map(|(path, text)| (format!("{PACKAGE}/{path}"), text)).collect();
    files.insert("Cargo.toml".to_owned(), workspace(&root("Cargo.toml")?));
    // Cargo removes the packages that the engine does not need from it.
    files.insert("Cargo.lock".to_owned(), root("Cargo.lock")?);
    files.insert(".cargo/config.toml".to_owned(), "[build]\ntarget-dir = \"..\"\n".to_owned());
    write(folder, &files).map(drop)
}

/// The manifest of a workspace with only the engine, in a copy.
fn workspace(manifest: &str) -> String {
    let mut copy = String::new();
    for line in manifest.lines().filter(|line| !line.starts_with("default-members = ")) {
        let line = match line.starts_with("members = ") {
            true => format!("members = [\"{PACKAGE}\"]"),
            false => line.replace("path = \"", "path = \"../../"),
        };
        copy.push_str(&line);
        copy.push('\n');
    }
    copy
}

/// Writes these files to the folder and removes all others. Returns the paths of the files that were written
/// or removed.
fn write(folder: &Path, files: &Files) -> Result<Vec<String>, String> {
    let mut changed = Vec::new();
    for path in walk(folder, "").into_iter().filter(|path| !files.contains_key(path)) {
        let file = folder.join(&path);
        std::fs::remove_file(&file).map_err(cannot("remove", &file))?;
        changed.push(path);
    }
    for (path, text) in files {
        let file = folder.join(path);
        if std::fs::read(&file).is_ok_and(|there| there == text.as_bytes()) {
            continue;
        }
        let parent = file.parent().expect("a file is in a folder");
        std::fs::create_dir_all(parent).map_err(cannot("create", parent))?;
        std::fs::write(&file, text).map_err(cannot("write", &file))?;
        changed.push(path.clone());
    }
    Ok(changed)
}

fn cannot<'a>(what: &'a str, path: &'a Path) -> impl Fn(std::io::Error) -> String + 'a {
    move |error| format!("cannot {what} {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_of_a_copy_has_the_engine_alone_and_finds_the_other_crates() {
        let manifest = "[workspace]\nmembers = [\"crates/*\", \"xtask\"]\ndefault-members = [\"crates/*\"]\n\
                        a = { path = \"crates/a\", version = \"1\" }\nb = \"2\"\n";
        let copy = "[workspace]\nmembers = [\"annals-engine\"]\n\
                    a = { path = \"../../crates/a\", version = \"1\" }\nb = \"2\"\n";
        assert_eq!(workspace(manifest), copy);
    }

    #[test]
    fn a_bug_that_no_test_reports_as_caught_is_named() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let lines = [
            "caught ForgetsToWake in the model: deadlock!",
            "test planted::a_torn_tail_that_is_left_is_caught ... caught LeavesTheTornTail: schedule 17",
            "test planted::frames_that_are_taken_unchecked_are_caught ... ok",
            "ShowsWhatIsStaged was not caught",
        ];
        let caught: BTreeSet<String> = lines.into_iter().filter_map(caught_in).map(str::to_owned).collect();
        assert_eq!(caught, set(&["ForgetsToWake", "LeavesTheTornTail"]));
        let bugs = set(&["ForgetsToWake", "LeavesTheTornTail", "ShowsWhatIsStaged"]);
        let problem = "1 of 3 planted bugs were not caught: ShowsWhatIsStaged";
        assert_eq!(check_caught(&bugs, &caught), Err(problem.to_owned()));
        assert_eq!(check_caught(&caught, &bugs), Ok("all 2 planted bugs were caught".to_owned()));
    }

    #[test]
    fn only_what_differs_is_written_and_what_is_gone_is_removed() {
        let folder = std::env::temp_dir().join(format!("annals-xtask-{}", std::process::id()));
        let files = |files: &[(&str, &str)]| -> Files {
            files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
        };
        let write = |of: &[(&str, &str)]| write(&folder, &files(of)).unwrap();
        assert_eq!(write(&[("a/b.rs", "b"), ("c.rs", "c"), ("d.rs", "d")]), ["a/b.rs", "c.rs", "d.rs"]);
        assert_eq!(write(&[("a/b.rs", "b"), ("c.rs", "C")]), ["d.rs", "c.rs"]);
        assert_eq!(write(&[("a/b.rs", "b"), ("c.rs", "C")]), [""; 0]);
        let mut there = walk(&folder, "");
        there.sort();
        assert_eq!(there, ["a/b.rs", "c.rs"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
