//! `cargo xtask tidy`: the checks of style. Each rule is a function from the files of the project to their
//! problems; there is one list of rules. `documents` has the rules for pages that must agree with the code,
//! `phrases` the rule on wording.

mod cycles;
mod documents;
mod phrases;

use crate::planted;
use crate::run::{self, Outcome};
use crate::tree::{File, Tree};

type Rule = fn(&Tree) -> Vec<String>;

const RULES: &[(&str, Rule)] = &[
    ("a source file begins with a comment that says what it is", heads),
    ("a file is at most 800 lines long", lengths),
    ("comments and pages are as wide as code", widths),
    ("a page has no tabs and no blanks at the ends of lines", blanks),
    ("no file names a folder of a developer's machine", places),
    ("the words are plain", phrases::phrases),
    ("`cargo run` runs `annals`", one_program),
    ("the patches of planted bugs apply", planted::problems),
    ("top-level modules do not import each other in a cycle", cycles::cycles),
    ("every error code has its page", documents::error_pages),
    ("every test that the guarantees name exists", documents::named_tests),
    ("every clause is listed under its guarantee", documents::clauses),
    ("decisions are numbered without gaps", documents::decisions),
    ("every page is in the reading order", documents::reading_order),
    ("the architecture names every crate", documents::architecture),
    ("the README shows the first example as it is", documents::first_example),
];

/// Runs all rules.
pub fn run() -> Outcome {
    let tree = Tree::read(&run::root());
    let mut count = 0;
    for (name, rule) in RULES {
        for problem in rule(&tree) {
            eprintln!("tidy: {problem} ({name})");
            count += 1;
        }
    }
    println!("tidy: {} rules, {} files", RULES.len(), tree.files.len());
    if count == 0 { Ok(()) } else { Err(format!("{count} things are not tidy")) }
}

fn one_program(tree: &Tree) -> Vec<String> {
    let manifest = tree.file("Cargo.toml").map_or("", |file| file.text.as_str());
    let members =
        manifest.lines().find_map(|line| line.strip_prefix("default-members = ")).unwrap_or_default();
    let folders: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    let is_run = |path: &str| {
        let Some(package) = path.strip_suffix("/src/main.rs") else { return false };
        folders.iter().any(|folder| match folder.strip_suffix("/*") {
            Some(parent) => package.rsplit_once('/').is_some_and(|(above, _)| above == parent),
            None => package == *folder,
        })
    };
    let programs: Vec<&str> =
        tree.files.iter().map(|file| file.path.as_str()).filter(|path| is_run(path)).collect();
    if programs == ["crates/annals-cli/src/main.rs"] {
        return Vec::new();
    }
    vec![format!("Cargo.toml: the default members have the programs {programs:?}, and `cargo run` wants one")]
}

fn heads(tree: &Tree) -> Vec<String> {
    let without = tree.under("", ".rs").filter(|file| !file.text.starts_with("//!"));
    // The compiler's output for these is compared line by line, and their names describe them.
    let without = without.filter(|file| !file.path.contains("/tests/ui/"));
    without.map(|file| format!("{}: does not open with `//!`", file.path)).collect()
}

/// The most lines of a file; unit tests at its end do not count.
const LINES_MAX: usize = 800;

fn lengths(tree: &Tree) -> Vec<String> {
    let written =
        |file: &&File| [".rs", ".md", ".sql", ".css", ".js"].iter().any(|end| file.path.ends_with(end));
    let mut problems = Vec::new();
    for file in tree.files.iter().filter(written) {
        let code = file.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = code.lines().count();
        if lines > LINES_MAX {
            problems.push(format!("{}: {lines} lines, at most {LINES_MAX}", file.path));
        }
    }
    problems
}

/// The most characters of a line, as `max_width` of `rustfmt.toml`.
const WIDTH_MAX: usize = 110;

/// Lines of text that are too wide. What cannot be broken is left out: code, tables, links and diagrams,
/// whose columns are apart by two blanks, and lists of tests.
fn widths(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md") || file.path.ends_with(".rs")) {
        let mut is_code = false;
        for (index, line) in file.text.lines().enumerate() {
            let mut text = line.trim();
            if file.path.ends_with(".rs") {
                let Some(comment) = text.strip_prefix("//") else { continue };
                text = comment.trim_start_matches(['/', '!']).trim_start();
            }
            if text.starts_with("```") {
                is_code = !is_code;
            }
            let names_tests = text.split(' ').all(|word| word.starts_with('`'));
            let cannot_break =
                names_tests || is_code || text.starts_with(['|', '#', '[', '<']) || !text.contains(' ');
            let is_diagram = text.trim_start_matches("- ").split("  ").count() > 2 || text.contains("   ");
            if line.chars().count() > WIDTH_MAX && !cannot_break && !is_diagram {
                problems.push(format!("{}:{}: is wider than {WIDTH_MAX} characters", file.path, index + 1));
            }
        }
    }
    problems
}

fn blanks(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for file in tree.under("", ".md") {
        for (index, line) in file.text.lines().enumerate() {
            let place = format!("{}:{}", file.path, index + 1);
            if line.ends_with(' ') {
                problems.push(format!("{place}: a blank at the end of the line"));
            }
            if line.contains('\t') {
                problems.push(format!("{place}: a tab"));
            }
        }
    }
    problems
}

/// Folders that exist on one machine only. Written in two halves, so that this file does not contain them.
const PLACES: [&str; 2] = [concat!("/wo", "rk"), concat!("/tmp", "/wt")];

fn places(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for file in &tree.files {
        for (index, line) in file.text.lines().enumerate() {
            if let Some(place) = PLACES.iter().find(|place| names(line, place)) {
                problems.push(format!("{}:{}: names `{place}`", file.path, index + 1));
            }
        }
    }
    problems
}

/// Whether a line contains this folder as a path from the root, and not as a part of a longer one.
fn names(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + place.len()..].chars().next();
        let starts = before.is_none_or(|c| !c.is_alphanumeric() && !"._-/*}".contains(c));
        starts && after.is_none_or(|c| !c.is_alphanumeric() && !"_-".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of these files.
    pub(super) fn tree(files: &[(&str, &str)]) -> Tree {
        let file = |(path, text): &(&str, &str)| File { path: (*path).to_owned(), text: (*text).to_owned() };
        Tree { files: files.iter().map(file).collect() }
    }

    #[test]
    fn a_source_without_a_head_is_found() {
        let tree = tree(&[("a.rs", "//! A.\n"), ("b.rs", "fn b() {}\n"), ("c.md", "# C\n")]);
        assert_eq!(heads(&tree), ["b.rs: does not open with `//!`"]);
    }

    #[test]
    fn a_long_file_is_found() {
        let (long, just) = ("x\n".repeat(801), "x\n".repeat(800));
        let tested = format!("{just}#[cfg(test)]\nmod tests {{\n{long}}}\n");
        let tree =
            tree(&[("a.rs", &long), ("b.rs", &just), ("c.rs", &tested), ("d.csv", &long), ("e.md", &long)]);
        assert_eq!(lengths(&tree), ["a.rs: 801 lines, at most 800", "e.md: 801 lines, at most 800"]);
    }

    #[test]
    fn text_that_is_too_wide_is_found() {
        let wide = "word ".repeat(30);
        let page = format!("{wide}\n| {wide}|\n```\n{wide}\n```\na   {wide}\n{}\n", "`a_test`, ".repeat(20));
        let source = format!("//! {wide}\nlet text = \"{wide}\";\n    /// {wide}\n");
        let tree = tree(&[("a.md", &page), ("b.rs", &source), ("c.csv", &wide)]);
        let wider = "is wider than 110 characters";
        assert_eq!(
            widths(&tree),
            [format!("a.md:1: {wider}"), format!("b.rs:1: {wider}"), format!("b.rs:3: {wider}")]
        );
    }

    #[test]
    fn blanks_in_pages_are_found() {
        let tree = tree(&[("a.md", "fine\nends \n\ta tab\n"), ("b.rs", "//! x \n\t\n")]);
        assert_eq!(blanks(&tree), ["a.md:2: a blank at the end of the line", "a.md:3: a tab"]);
    }

    #[test]
    fn places_on_a_machine_are_found() {
        for place in PLACES {
            let path = format!("see `{place}/shared/x`");
            let found = places(&tree(&[("a.md", "fine"), ("b.toml", &format!("x\n{path}"))]));
            assert_eq!(found, [format!("b.toml:2: names `{place}`")]);
        }
        let fine = [
            concat!("/wo", "rkspace"),
            concat!("a/wo", "rk"),
            concat!("net/wo", "rk/b"),
            concat!("/tmp", "/wtf"),
        ];
        for text in fine {
            assert_eq!(places(&tree(&[("a.md", text)])), [""; 0], "{text}");
        }
    }

    #[test]
    fn the_project_is_read_whole() {
        let tree = Tree::read(&run::root());
        assert!(tree.file("Cargo.toml").is_some() && tree.file("docs/guarantees.md").is_some());
        assert!(heads(&tree).is_empty(), "{:?}", heads(&tree));
    }
}
