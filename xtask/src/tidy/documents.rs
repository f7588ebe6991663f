//! Rules on pages that must agree with the code: errors, guarantees, decisions, architecture.

use crate::tree::Tree;

const GUARANTEES: &str = "docs/guarantees.md";
const CONTRACT: &str = "crates/annals-testkit/src/contract.rs";
const TESTKIT: &str = "crates/annals-testkit/src/";

/// Checks that every string returned by a function `code` of a public error has a page.
pub fn error_pages(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for file in tree.under("crates/", ".rs").filter(|file| file.path.contains("/src/")) {
        for code in error_codes(&file.text) {
            let page = format!("docs/errors/{code}.md");
            if tree.file(&page).is_none() {
                problems.push(format!("{}: the error code `{code}` has no page {page}", file.path));
            }
        }
    }
    problems
}

/// The strings in the bodies of `pub fn code(&self) -> &'static str`.
fn error_codes(source: &str) -> Vec<&str> {
    let mut codes = Vec::new();
    for part in source.split("pub fn code(&self) -> &'static str {").skip(1) {
        let body = part.split("\n    }\n").next().unwrap_or(part);
        codes.extend(body.split('"').skip(1).step_by(2));
    }
    codes
}

/// A test that the page of guarantees names under a guarantee, and its folder if one is given.
struct Named<'a> {
    guarantee: &'a str,
    folder: Option<&'a str>,
    test: &'a str,
}

/// The names in the lists of the page: `` - `clause` `` or `` - in `folder/`: `test`, `test` ``, on one line
/// or several.
fn named(page: &str) -> Vec<Named<'_>> {
    let (mut names, mut guarantee, mut folder, mut in_list) = (Vec::new(), "", None, false);
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            guarantee = title.split(' ').next().unwrap_or_default();
        }
        let mut quoted = line.split('`').skip(1).step_by(2);
        if line.starts_with("- in `") {
            folder = quoted.next();
        } else if line.starts_with("- `") {
            folder = None;
        } else if !in_list || !line.starts_with("  ") {
            in_list = false;
            continue;
        }
        in_list = true;
        names.extend(quoted.map(|test| Named { guarantee, folder, test }));
    }
    names
}

/// Checks that every named test exists, as a function or a module with its name.
pub fn named_tests(tree: &Tree) -> Vec<String> {
    let Some(page) = tree.file(GUARANTEES) else { return vec![format!("{GUARANTEES} is missing")] };
    let mut problems = Vec::new();
    for Named { folder, test, .. } in named(&page.text) {
        let folder = folder.unwrap_or(TESTKIT);
        let mut files = tree.under(folder, ".rs").peekable();
        let missing = files.peek().is_none();
        let defines = |text: &str| {
            [format!("fn {test}("), format!("fn {test}<"), format!("mod {test} "), format!("mod {test};")]
                .iter()
                .any(|d| text.contains(d))
        };
        if missing {
            problems.push(format!("{GUARANTEES}: names `{test}` in {folder}, where there is no test"));
        } else if !files.any(|file| defines(&file.text)) {
            problems.push(format!("{GUARANTEES}: names `{test}`, which {folder} does not have"));
        }
    }
    problems
}

/// Checks that every clause of the contract is on the page, under the guarantee with which its documentation
/// begins.
pub fn clauses(tree: &Tree) -> Vec<String> {
    let (Some(page), Some(contract)) = (tree.file(GUARANTEES), tree.file(CONTRACT)) else {
        return vec![format!("{GUARANTEES} or {CONTRACT} is missing")];
    };
    let names = named(&page.text);
    let mut problems = Vec::new();
    let listed = listed(&contract.text);
    if listed.is_empty() {
        problems.push(format!("{CONTRACT}: the list of clauses is not found"));
    }
    for clause in listed {
        let sources = tree.under(TESTKIT, ".rs");
        let Some(guarantee) = sources.filter_map(|file| guarantee_of(&file.text, clause)).next() else {
            problems
                .push(format!("{CONTRACT}: the documentation of `{clause}` does not begin with a guarantee"));
            continue;
        };
        if !names.iter().any(|named| named.test == clause && named.guarantee == guarantee) {
            problems.push(format!("{GUARANTEES}: `{clause}` is not listed under {guarantee}"));
        }
    }
    problems
}

/// The clauses in the list of the contract.
fn listed(contract: &str) -> Vec<&str> {
    let list = contract.split("macro_rules! __clauses {").nth(1).and_then(|rest| rest.split("\n}\n").next());
    let lines = list.unwrap_or_default().lines().map(str::trim);
    lines.filter_map(|line| line.strip_suffix(',')).filter(|name| !name.contains(' ')).collect()
}

/// The guarantee with which the documentation of this function begins.
fn guarantee_of<'a>(source: &'a str, clause: &str) -> Option<&'a str> {
    let before = source.split_once(&format!("\npub async fn {clause}("))?.0;
    let documentation = before.lines().rev().take_while(|line| line.starts_with("/// ")).last()?;
    let (guarantee, _) = documentation.strip_prefix("/// ")?.split_once(": ")?;
    let number = guarantee.strip_prefix('G')?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(guarantee)
}

/// Checks that the files in docs/decisions are numbered 001, 002, and so on.
pub fn decisions(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    let mut expected = 1;
    for file in tree.under("docs/decisions/", ".md") {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        if name == "README.md" {
            continue;
        }
        let number = name.get(..3).and_then(|digits| digits.parse::<u32>().ok());
        if number != Some(expected) {
            problems.push(format!("{}: the next decision is {expected:03}", file.path));
        }
        expected = number.unwrap_or(expected) + 1;
    }
    problems
}

/// Checks that every page in docs is in the reading order.
pub fn reading_order(tree: &Tree) -> Vec<String> {
    let Some(order) = tree.file("docs/README.md") else {
        return vec!["docs/README.md is missing".to_owned()];
    };
    let mut problems = Vec::new();
    for file in tree.under("docs/", ".md").filter(|file| file.path != order.path) {
        let name = &file.path["docs/".len()..];
        // A folder is listed as a whole.
        let name = name.split_inclusive('/').next().unwrap_or(name);
        if !order.text.contains(&format!("({name})")) {
            problems.push(format!("{}: is not in the reading order of docs/README.md", file.path));
        }
    }
    problems
}

/// Checks that every crate is named on the page of the architecture, if there is one.
pub fn architecture(tree: &Tree) -> Vec<String> {
    let Some(page) = tree.file("ARCHITECTURE.md") else { return Vec::new() };
    let words: Vec<&str> = page.text.split(|c: char| !c.is_alphanumeric() && !"-_".contains(c)).collect();
    let crates = tree.under("crates/", "/Cargo.toml").filter_map(|file| file.path.split('/').nth(1));
    let unnamed = crates.filter(|name| !words.contains(name));
    unnamed.map(|name| format!("ARCHITECTURE.md: does not name the crate `{name}`")).collect()
}

/// The most lines, without blank ones, for a first aggregate with a projection.
const FIRST_LINES_MAX: usize = 60;

/// Checks that the README shows the first example unchanged, and that it is short.
pub fn first_example(tree: &Tree) -> Vec<String> {
    const EXAMPLE: &str = "crates/annals/examples/first.rs";
    let Some(example) = tree.file(EXAMPLE) else { return vec![format!("{EXAMPLE} is missing")] };
    let about_the_file = |line: &&str| line.starts_with("//!") || line.starts_with("#![");
    let code: Vec<&str> = example.text.lines().skip_while(about_the_file).collect();
    let mut problems = Vec::new();
    let lines = code.iter().filter(|line| !line.trim().is_empty()).count();
    if lines > FIRST_LINES_MAX {
        problems.push(format!("{EXAMPLE}: {lines} lines that are not blank, at most {FIRST_LINES_MAX}"));
    }
    let readme = tree.file("README.md").map_or("", |page| &page.text);
    let shown = format!("```rust\n{}\n```", code.join("\n").trim());
    if !readme.contains(&shown) {
        problems.push(format!("README.md: does not show {EXAMPLE} as it is"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::tests::tree;
    use super::*;

    const ERROR: &str = "impl Error {\n    pub fn code(&self) -> &'static str {\n        match self {\n            \
                         Self::A => \"gone\",\n            Self::B => \"late\",\n        }\n    }\n    \"other\"\n}\n";

    #[test]
    fn an_error_code_without_a_page_is_found() {
        let tree = tree(&[("crates/a/src/error.rs", ERROR), ("docs/errors/gone.md", "")]);
        let problem = "crates/a/src/error.rs: the error code `late` has no page docs/errors/late.md";
        assert_eq!(error_pages(&tree), [problem]);
    }

    const LIST: &str = "macro_rules! __clauses {\n    x: {\n        one,\n        two,\n    }\n}\nother,\n";

    #[test]
    fn a_named_test_that_is_not_there_is_found() {
        let page = "## G1 A\n\n- `one`\n- `gone`\n- in `crates/b/tests/`: `two`,\n  `three`, `six`\n\
                    - in `crates/c/`: `four`\ntext with `five`\n  `six`\n- text with `seven`\n  `eight`\n";
        let tree = tree(&[
            (GUARANTEES, page),
            ("crates/annals-testkit/src/contract/x.rs", "pub async fn one(trial: &mut Trial) {}"),
            ("crates/b/tests/it/main.rs", "mod two;\nfn threes() {}\nasync fn six<K: Kind>() {}"),
        ]);
        assert_eq!(
            named_tests(&tree),
            [
                "docs/guarantees.md: names `gone`, which crates/annals-testkit/src/ does not have",
                "docs/guarantees.md: names `three`, which crates/b/tests/ does not have",
                "docs/guarantees.md: names `four` in crates/c/, where there is no test",
            ]
        );
        assert_eq!(named_tests(&super::super::tests::tree(&[])), ["docs/guarantees.md is missing"]);
    }

    #[test]
    fn a_clause_that_is_not_listed_is_found() {
        let source = "//! X.\n\n/// G1: one.\npub async fn one() {}\n\n/// G2: two,\n/// in lines.\npub async fn two() {}\n";
        let x = "crates/annals-testkit/src/contract/x.rs";
        let check =
            |page: &str, source: &str| clauses(&tree(&[(GUARANTEES, page), (CONTRACT, LIST), (x, source)]));
        assert_eq!(check("## G1 A\n- `one`\n## G2 B\n- `two`\n", source), [""; 0]);
        assert_eq!(
            check("## G1 A\n- `one`\n- `two`\n## G2 B\n", source),
            ["docs/guarantees.md: `two` is not listed under G2"]
        );
        assert_eq!(
            check("## G1 A\n- `one`\n## G2 B\n- `two`\n", &source.replace("G2: ", "")),
            [
                "crates/annals-testkit/src/contract.rs: the documentation of `two` does not begin with a guarantee"
            ]
        );
        assert_eq!(clauses(&tree(&[(GUARANTEES, ""), (CONTRACT, "")])).len(), 1);
    }

    #[test]
    fn a_gap_in_the_decisions_is_found() {
        let path = |name: &str| format!("docs/decisions/{name}");
        let check = |names: &[&str]| {
            let paths: Vec<String> = names.iter().map(|name| path(name)).collect();
            decisions(&tree(&paths.iter().map(|path| (path.as_str(), "")).collect::<Vec<_>>()))
        };
        assert_eq!(check(&["001-log.md", "002-frame.md", "README.md"]), [""; 0]);
        assert_eq!(
            check(&["001-log.md", "003-frame.md"]),
            ["docs/decisions/003-frame.md: the next decision is 002"]
        );
        assert_eq!(check(&["001-a.md", "003-b.md", "004-c.md"]).len(), 1, "a gap is reported once");
        assert_eq!(check(&["a.md"]), ["docs/decisions/a.md: the next decision is 001"]);
        assert_eq!(check(&["001-a.md", "001-b.md"]), ["docs/decisions/001-b.md: the next decision is 002"]);
    }

    #[test]
    fn a_page_outside_the_reading_order_is_found() {
        let tree = tree(&[
            ("docs/README.md", "[a](a.md), [errors](errors/)"),
            ("docs/a.md", ""),
            ("docs/b.md", ""),
            ("docs/decisions/001-c.md", ""),
            ("docs/errors/conflict.md", ""),
        ]);
        assert_eq!(
            reading_order(&tree),
            [
                "docs/b.md: is not in the reading order of docs/README.md",
                "docs/decisions/001-c.md: is not in the reading order of docs/README.md",
            ]
        );
        assert_eq!(reading_order(&super::super::tests::tree(&[])), ["docs/README.md is missing"]);
    }

    #[test]
    fn a_crate_that_the_architecture_does_not_name_is_found() {
        let check = |page: &str| {
            architecture(&tree(&[
                ("ARCHITECTURE.md", page),
                ("crates/annals/Cargo.toml", ""),
                ("crates/annals-core/Cargo.toml", ""),
            ]))
        };
        assert_eq!(check("`annals-core` below `annals`."), [""; 0]);
        assert_eq!(check("`annals-core`"), ["ARCHITECTURE.md: does not name the crate `annals`"]);
        assert_eq!(architecture(&tree(&[("crates/a/Cargo.toml", "")])), [""; 0]);
    }

    #[test]
    fn a_first_example_that_is_long_or_not_shown_is_found() {
        let check = |code: &str, readme: &str| {
            first_example(&tree(&[("README.md", readme), ("crates/annals/examples/first.rs", code)]))
        };
        assert_eq!(check("//! First.\n\nfn main() {}\n", "See:\n```rust\nfn main() {}\n```\n"), [""; 0]);
        assert_eq!(check("//! First.\n\nfn main() {}\n", "See it.").len(), 1);
        let long = "x\n".repeat(61);
        assert_eq!(check(&long, &format!("```rust\n{long}```")).len(), 1);
    }
}
