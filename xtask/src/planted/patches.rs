//! The patches: applies the files in `planted/` to the engine, and writes them from an edited copy.
//!
//! Every change of a bug's patch names its bug, `Bug::X`, and no other. So each change in the copy can be
//! assigned to its patch without other records. Next below: `edit`.

use std::collections::{BTreeMap, BTreeSet};

use diffy::patch_set::{ParseOptions, PatchSet};

use super::edit::{self, Edit};
use crate::tree::Tree;

/// The folder of the engine.
pub const ENGINE: &str = "crates/annals-engine/";
/// The folder in it with the patches, and with files that only the engine with bugs has.
const PLANTED: &str = "planted/";
/// The patch that all others need: it names no bug.
const PLANTING: &str = "planting";
/// The list of the bugs, in the copy.
const BUGS: &str = "src/planted.rs";
/// How to repair a patch that does not apply.
const REMEDY: &str = "write the bug into the code as it is now: `cargo xtask planted --edit` makes a copy for it, and \
                      `cargo xtask planted --save` writes the patches from there";

/// Texts by their paths.
pub type Files = BTreeMap<String, String>;

/// The sources of the engine with bugs.
pub struct Sources {
    /// The files of the engine.
    engine: Files,
    /// Files that only the engine with bugs has.
    beside: Files,
    /// The patches, by their names.
    patches: Files,
}

/// The rule of `tidy`: all patches apply, and each bug has one and a test.
pub fn problems(tree: &Tree) -> Vec<String> {
    Sources::of(tree).patched().1
}

impl Sources {
    /// Selects them from the files of the project.
    pub fn of(tree: &Tree) -> Self {
        let (mut engine, mut beside, mut patches) = (Files::new(), Files::new(), Files::new());
        for file in tree.under(ENGINE, "") {
            let path = &file.path[ENGINE.len()..];
            let (of, path) = match path.strip_prefix(PLANTED) {
                None => (&mut engine, path),
                Some(path) => match path.strip_suffix(".patch") {
                    None => (&mut beside, path),
                    Some(name) => (&mut patches, name),
                },
            };
            of.insert(path.to_owned(), file.text.clone());
        }
        Self { engine, beside, patches }
    }

    /// The files of the engine with bugs, and the problems of the patches.
    pub fn patched(&self) -> (Files, Vec<String>) {
        let (mut edits, mut problems) = (BTreeMap::<&str, Vec<Edit>>::new(), self.missing());
        for name in self.patches.keys() {
            let (of_patch, wrong) = self.edits(name);
            for (path, more) in of_patch {
                edits.entry(path).or_default().extend(more);
            }
            problems.extend(wrong);
        }
        let mut files = self.engine.clone();
        for (path, mut edits) in edits {
            let conflicts = edit::conflicts(&mut edits);
            if conflicts.is_empty() {
                files.insert(path.to_owned(), edit::apply(&self.engine[path], &edits));
            }
            problems.extend(conflicts.iter().map(|problem| format!("{ENGINE}{path}: {problem}")));
        }
        for (path, text) in &self.beside {
            if files.insert(path.clone(), text.clone()).is_some() {
                problems.push(format!(
                    "{ENGINE}{PLANTED}{path}: the engine has a file of this name; it needs a patch"
                ));
            }
        }
        (files, problems)
    }

    /// The edits of one patch, by file, and its problems.
    fn edits(&self, name: &str) -> (BTreeMap<&str, Vec<Edit>>, Vec<String>) {
        let (mut edits, mut problems) = (BTreeMap::<&str, Vec<Edit>>::new(), Vec::new());
        let text = &self.patches[name];
        let at = format!("{ENGINE}{PLANTED}{name}.patch");
        for file in PatchSet::parse(text, ParseOptions::unidiff()) {
            let file = match file {
                Ok(file) => file.into_patch(),
                Err(error) => {
                    problems.push(format!("{at}: not a valid patch: {error}"));
                    break;
                }
            };
            let Some(patch) = file.as_text() else { continue };
            let path = patch.modified().and_then(|path| path.strip_prefix("b/")).unwrap_or_default();
            let Some((path, text)) = self.engine.get_key_value(path) else {
                problems.push(format!("{at}: it is of `{path}`, which the engine does not have; {REMEDY}"));
                continue;
            };
            let (more, wrong) = edit::of_patch(name, patch, text);
            problems.extend(wrong.iter().map(|wrong| format!("{at}: {path}: {wrong}\n  {REMEDY}")));
            edits.entry(path).or_default().extend(more);
        }
        for edit in edits.values().flatten() {
            match owner(edit) {
                Ok(owner) if owner == name => {}
                Ok(owner) => problems.push(format!("{at}: a change in it is of `{owner}`:\n{}", edit.added)),
                Err(problem) => problems.push(format!("{at}: {problem}")),
            }
        }
        if edits.is_empty() && problems.is_empty() {
            problems.push(format!("{at}: it changes nothing"));
        }
        (edits, problems)
    }

    /// The bugs of the list.
    pub fn bugs(&self) -> BTreeSet<&str> {
        let listed = self.beside.get(BUGS).map_or("", String::as_str);
        let list = listed.split_once("pub enum Bug {\n").and_then(|(_, rest)| rest.split_once("\n}"));
        list.map_or("", |(list, _)| list).lines().filter_map(variant).collect()
    }

    /// Bugs without a patch or a test, and patches without a bug.
    fn missing(&self) -> Vec<String> {
        let bugs = self.bugs();
        let mut problems = Vec::new();
        if bugs.is_empty() {
            problems.push(format!("{ENGINE}{PLANTED}{BUGS}: the list of bugs is not found"));
        }
        let tests: BTreeSet<&str> =
            self.beside.iter().filter(|(path, _)| *path != BUGS).flat_map(|(_, text)| words(text)).collect();
        for bug in &bugs {
            let name = name_of(bug);
            if !self.patches.contains_key(&name) {
                problems
                    .push(format!("{ENGINE}{PLANTED}{name}.patch is missing: nothing plants `Bug::{bug}`"));
            }
            if !tests.contains(bug) {
                problems.push(format!("{ENGINE}{PLANTED}{BUGS}: no test beside it has `{bug}` caught"));
            }
        }
        let names: BTreeSet<String> = bugs.iter().map(|bug| name_of(bug)).collect();
        let without = self.patches.keys().filter(|name| *name != PLANTING && !names.contains(*name));
        problems
            .extend(without.map(|name| format!("{ENGINE}{PLANTED}{name}.patch: `{BUGS}` lists no such bug")));
        problems
    }

    /// The files of `planted/`, by their paths in it, that result in this copy.
    ///
    /// # Errors
    /// Changes that cannot be assigned to a patch, and bugs that the copy does not have.
    pub fn saved(&self, copy: &Files) -> Result<Files, String> {
        let (mut beside, mut patches, mut problems) = (Files::new(), Files::new(), Vec::new());
        for (path, text) in copy {
            let Some(original) = self.engine.get(path) else {
                beside.insert(path.clone(), text.clone());
                continue;
            };
            let edits = edit::between(original, text);
            let mut owners = BTreeMap::<String, Vec<&Edit>>::new();
            for edit in &edits {
                match owner(edit) {
                    Ok(owner) => owners.entry(owner).or_default().push(edit),
                    Err(problem) => problems.push(format!("{path}:{}: {problem}", edit.at + 1)),
                }
            }
            for (owner, edits) in owners {
                patches.entry(owner).or_default().push_str(&edit::patch_of(path, original, &edits));
            }
        }
        let gone = self.engine.keys().filter(|path| !copy.contains_key(*path));
        problems.extend(gone.map(|path| format!("{path}: it is missing in the copy")));
        let saved = Self { engine: self.engine.clone(), beside, patches };
        if problems.is_empty() {
            problems = saved.patched().1;
        }
        if !problems.is_empty() {
            return Err(format!("nothing is saved\n{}", problems.join("\n")));
        }
        let patches = saved.patches.into_iter().map(|(name, text)| (format!("{name}.patch"), text));
        Ok(saved.beside.into_iter().chain(patches).collect())
    }
}

/// The patch to which this change belongs, by the bug that it names.
fn owner(edit: &Edit) -> Result<String, String> {
    let named: BTreeSet<&str> =
        edit.added.split("Bug::").skip(1).filter_map(|rest| words(rest).next()).collect();
    let mut named = named.into_iter();
    let Edit { added, .. } = edit;
    match (named.next(), named.next()) {
        (Some(bug), None) => Ok(name_of(bug)),
        (None, _) if added.contains("planted") => Ok(PLANTING.to_owned()),
        (None, _) => Err(format!("a change names no bug, as in `has(Bug::X)`:\n{added}")),
        (Some(one), Some(other)) => Err(format!(
            "a change names both `{one}` and `{other}`; leave a line between them that neither changes:\n{added}"
        )),
    }
}

fn variant(line: &str) -> Option<&str> {
    line.trim().strip_suffix(',').filter(|name| !name.contains(' '))
}

/// The words of code.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The name of a bug's patch: `forgets_to_wake` of `ForgetsToWake`.
fn name_of(bug: &str) -> String {
    let mut name = String::new();
    for letter in bug.chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::File;

    const CODE: &str = "fn call() {\n    due();\n    wake();\n    log();\n    answer();\n}\n";
    const WAKE: &str = "--- a/src/a.rs\n+++ b/src/a.rs\n@@ -2,3 +2,3 @@\n     due();\n-    wake();\n+    if !has(Bug::ForgetsToWake) { wake() }\n     log();\n";
    const ANSWER: &str = "--- a/src/a.rs\n+++ b/src/a.rs\n@@ -3,3 +3,4 @@\n     wake();\n     log();\n+    if has(Bug::AnswersTwice) { answer() }\n     answer();\n";
    const LIST: &str =
        "//! Bugs.\npub enum Bug {\n    /// It sleeps.\n    ForgetsToWake,\n    AnswersTwice,\n}\n";
    const TESTS: &str = "planted! { it_wakes: ForgetsToWake by Stops; }\nis_caught(Bug::AnswersTwice);\n";

    fn files() -> Files {
        let files = [
            ("src/a.rs", CODE),
            ("src/b.rs", "fn b() {}\n"),
            ("planted/src/planted.rs", LIST),
            ("planted/tests/it/planted.rs", TESTS),
            ("planted/forgets_to_wake.patch", WAKE),
            ("planted/answers_twice.patch", ANSWER),
        ];
        files.map(|(path, text)| (format!("{ENGINE}{path}"), text.to_owned())).into()
    }

    fn tree(files: Files) -> Tree {
        Tree { files: files.into_iter().map(|(path, text)| File { path, text }).collect() }
    }

    /// The problems if this file has another text, or is missing.
    fn wrong_with(path: &str, text: Option<&str>) -> Vec<String> {
        let mut files = files();
        let path = format!("{ENGINE}{path}");
        match text {
            Some(text) => drop(files.insert(path, text.to_owned())),
            None => drop(files.remove(&path).expect("it is there")),
        }
        problems(&tree(files))
    }

    #[test]
    fn all_patches_apply_to_one_copy_and_are_saved_from_it_as_they_were() {
        let sources = Sources::of(&tree(files()));
        let (copy, problems) = sources.patched();
        assert_eq!(problems, [""; 0]);
        let both = "fn call() {\n    due();\n    if !has(Bug::ForgetsToWake) { wake() }\n    log();\n\
                    \u{20}   if has(Bug::AnswersTwice) { answer() }\n    answer();\n}\n";
        assert_eq!(copy["src/a.rs"], both);
        assert_eq!(copy["src/planted.rs"], LIST);
        assert!(copy.keys().all(|path| !path.ends_with(".patch")), "{:?}", copy.keys());
        let mut again = files();
        again.retain(|path, _| !path.contains("/planted/"));
        let saved = sources.saved(&copy).unwrap().into_iter();
        again.extend(saved.map(|(path, text)| (format!("{ENGINE}{PLANTED}{path}"), text)));
        assert_eq!(Sources::of(&tree(again)).patched(), (copy, vec![]));
    }

    #[test]
    fn the_patches_of_the_project_are_saved_from_their_copy_as_they_were() {
        let sources = Sources::of(&Tree::read(&crate::run::root()));
        let (copy, problems) = sources.patched();
        assert_eq!(problems, [""; 0]);
        let saved = sources.saved(&copy).unwrap();
        let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
        let patches: Files = saved
            .into_iter()
            .filter_map(|(path, text)| Some((path.strip_suffix(".patch")?.to_owned(), text)))
            .collect();
        assert_eq!(names(&patches), names(&sources.patches));
        assert_eq!(Sources { patches, ..sources }.patched(), (copy, vec![]));
    }

    #[test]
    fn a_patch_that_no_longer_applies_is_named_with_a_remedy() {
        let problems = wrong_with("src/a.rs", Some(&CODE.replace("wake();", "self.wake();")));
        let expected = "crates/annals-engine/planted/forgets_to_wake.patch: src/a.rs: hunk 1 does not apply: the file does not have\n  \
                        |    due();\n  |    wake();\n  |    log();\n  \
                        most of it is at line 2, where line 3 is: self.wake();\n  write the bug into the code as it is now: \
                        `cargo xtask planted --edit` makes a copy for it, and `cargo xtask planted --save` writes the patches from there";
        assert_eq!(problems.len(), 2, "both have the line: {problems:?}");
        assert_eq!(problems[1], expected);
        let problems = wrong_with("src/a.rs", None);
        assert!(problems[0].contains("it is of `src/a.rs`, which the engine does not have"), "{problems:?}");
        let problems =
            wrong_with("planted/answers_twice.patch", Some(&ANSWER.replace("@@ -3,3 +3,4", "@@ -3,3 +3,5")));
        assert!(problems[0].contains("answers_twice.patch: not a valid patch: "), "{problems:?}");
        assert_eq!(wrong_with("planted/answers_twice.patch", Some("\n")).len(), 1);
    }

    #[test]
    fn a_bug_without_a_patch_or_a_test_and_a_patch_without_a_bug_are_noticed() {
        let missing =
            "crates/annals-engine/planted/answers_twice.patch is missing: nothing plants `Bug::AnswersTwice`";
        assert_eq!(wrong_with("planted/answers_twice.patch", None), [missing]);
        let untested = wrong_with("planted/tests/it/planted.rs", Some("is_caught(Bug::AnswersTwice);\n"));
        assert_eq!(
            untested,
            ["crates/annals-engine/planted/src/planted.rs: no test beside it has `ForgetsToWake` caught"]
        );
        let unlisted = wrong_with("planted/src/planted.rs", Some(&LIST.replace("    ForgetsToWake,\n", "")));
        assert_eq!(
            unlisted,
            ["crates/annals-engine/planted/forgets_to_wake.patch: `src/planted.rs` lists no such bug"]
        );
        let all = wrong_with("planted/src/planted.rs", None);
        assert!(all[0].ends_with("the list of bugs is not found"), "{all:?}");
        let twice = wrong_with("planted/src/b.rs", Some("fn b() {}\n"));
        assert!(twice[0].contains("the engine has a file of this name"), "{twice:?}");
    }

    #[test]
    fn a_change_that_names_no_bug_or_the_bug_of_another_patch_is_refused() {
        let of_other = WAKE.replace("ForgetsToWake", "AnswersTwice");
        let problems = wrong_with("planted/forgets_to_wake.patch", Some(&of_other));
        assert!(
            problems[0].contains("forgets_to_wake.patch: a change in it is of `answers_twice`"),
            "{problems:?}"
        );
        let silent = WAKE.replace("has(Bug::ForgetsToWake)", "true");
        let problems = wrong_with("planted/forgets_to_wake.patch", Some(&silent));
        assert!(problems[0].contains("a change names no bug"), "{problems:?}");
    }

    #[test]
    fn what_is_written_into_the_copy_is_saved_to_the_patch_of_its_bug() {
        let sources = Sources::of(&tree(files()));
        let (copy, _) = sources.patched();
        let mut edited = copy.clone();
        let more = "fn b() {}\n// planted: Bug::AnswersTwice\n";
        edited.insert("src/b.rs".to_owned(), more.to_owned());
        let saved = sources.saved(&edited).unwrap();
        assert_eq!(saved["src/planted.rs"], LIST);
        assert!(
            saved["answers_twice.patch"]
                .ends_with("@@ -1 +1,2 @@\n fn b() {}\n+// planted: Bug::AnswersTwice\n")
        );
        assert_eq!(saved.len(), 4);
        let refused = |edited: &Files| sources.saved(edited).unwrap_err();
        for (text, problem) in [
            ("fn b() {}\nfn c() {}\n", "src/b.rs:2: a change names no bug"),
            ("fn b() {}\n// Bug::A, Bug::B\n", "src/b.rs:2: a change names both `A` and `B`"),
        ] {
            edited.insert("src/b.rs".to_owned(), text.to_owned());
            assert!(
                refused(&edited).starts_with(&format!("nothing is saved\n{problem}")),
                "{}",
                refused(&edited)
            );
        }
        edited.remove("src/b.rs");
        assert_eq!(refused(&edited), "nothing is saved\nsrc/b.rs: it is missing in the copy");
        edited = copy;
        edited.insert("src/a.rs".to_owned(), CODE.replace("    wake();\n", "    // Bug::ForgetsToWake\n"));
        assert!(refused(&edited).contains("answers_twice.patch is missing"), "{}", refused(&edited));
    }

    #[test]
    fn a_patch_has_the_name_of_its_bug() {
        assert_eq!(name_of("ContinuesAfterAFailedSync"), "continues_after_a_failed_sync");
        let edit = |added: &str| Edit { patch: String::new(), at: 0, removed: 0, added: added.to_owned() };
        assert_eq!(
            owner(&edit("if has(Bug::ForgetsToWake) {\n// Bug::ForgetsToWake\n")).unwrap(),
            "forgets_to_wake"
        );
        assert_eq!(owner(&edit("pub mod planted;\n")).unwrap(), PLANTING);
    }
}
