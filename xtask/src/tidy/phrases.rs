//! The rule on phrases that the project does not use: each has a plainer word, which the rule suggests. A
//! phrase is found in comments, documents and messages, even if a line breaks within it.

use crate::tree::{File, Tree};

/// Each phrase, and its replacement.
const PHRASES: &[(&str, &str)] = &[
    ("whoever", "the caller, the reader, the holder"),
    ("anew", "again"),
    ("goes on", "resumes, continues"),
    ("is told", "gets, is notified, is reported"),
    ("nothing if", "`None` if"),
    ("nothing, if", "`None` if"),
    ("in front of", "before"),
    ("of no concern", "skipped"),
    ("has come to", "has reached"),
    ("so many", "this many, or the name of the number"),
    ("what is not there", "what is missing"),
    ("carried out", "executed, applied, committed"),
];

/// The exceptions: this file, and files of releases.
const EXCEPTIONS: [&str; 2] = ["xtask/src/tidy/phrases.rs", "fixtures/"];

/// Every occurrence of one of the phrases.
pub fn phrases(tree: &Tree) -> Vec<String> {
    let is_text =
        |file: &&File| [".rs", ".md", ".sql", ".toml", ".json"].iter().any(|end| file.path.ends_with(end));
    let is_checked = |file: &&File| !EXCEPTIONS.iter().any(|exception| file.path.starts_with(exception));
    tree.files.iter().filter(is_text).filter(is_checked).flat_map(found).collect()
}

fn found(file: &File) -> Vec<String> {
    let (text, starts) = joined(&file.text);
    let mut problems = Vec::new();
    for (phrase, instead) in PHRASES {
        let places = text.match_indices(phrase).map(|(at, _)| at);
        for at in places.filter(|at| is_bounded(&text, *at, at + phrase.len())) {
            let line = starts.partition_point(|start| *start <= at);
            problems.push((line, format!("{}:{line}: says `{phrase}`; write: {instead}", file.path)));
        }
    }
    problems.sort();
    problems.into_iter().map(|(_, problem)| problem).collect()
}

/// The lines joined into one, in lower case, without comment markers, and with the words of names apart; and
/// the offset of each line.
fn joined(text: &str) -> (String, Vec<usize>) {
    let (mut all, mut starts) = (String::with_capacity(text.len()), Vec::new());
    for line in text.lines() {
        starts.push(all.len());
        let line = line.trim_start();
        let line =
            ["///", "//!", "//", "-- ", "# "].iter().find_map(|mark| line.strip_prefix(mark)).unwrap_or(line);
        // A backslash continues a string on the next line.
        all.push_str(line.strip_suffix('\\').unwrap_or(line).trim());
        all.push(' ');
    }
    all.make_ascii_lowercase();
    (all.replace('_', " "), starts)
}

/// Whether this part begins and ends at word boundaries.
fn is_bounded(text: &str, start: usize, end: usize) -> bool {
    !text[..start].ends_with(char::is_alphanumeric) && !text[end..].starts_with(char::is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::super::tests::tree;
    use super::*;

    #[test]
    fn a_phrase_is_found_with_its_line() {
        let source =
            "//! A.\n\n/// Whoever asks is\n/// told. It goes\n    // on.\nlet x = \"goes \\\n    on\";\n";
        let found = phrases(&tree(&[("a.rs", source), ("b.md", "Said Anew, and\ncarried out.\n")]));
        assert_eq!(
            found,
            [
                "a.rs:3: says `is told`; write: gets, is notified, is reported",
                "a.rs:3: says `whoever`; write: the caller, the reader, the holder",
                "a.rs:4: says `goes on`; write: resumes, continues",
                "a.rs:6: says `goes on`; write: resumes, continues",
                "b.md:1: says `anew`; write: again",
                "b.md:2: says `carried out`; write: executed, applied, committed",
            ]
        );
    }

    #[test]
    fn each_phrase_is_found_and_longer_words_are_not() {
        for (phrase, _) in PHRASES {
            assert_eq!(phrases(&tree(&[("a.sql", &format!("-- ({phrase})\n"))])).len(), 1, "{phrase}");
            let name = format!("fn a_{}_b()", phrase.replace(' ', "_"));
            assert_eq!(phrases(&tree(&[("a.rs", &name)])).len(), 1, "{name}");
            for longer in [format!("x{phrase}"), format!("{phrase}x")] {
                assert_eq!(phrases(&tree(&[("a.rs", &longer)])), [""; 0], "{longer}");
            }
        }
    }

    #[test]
    fn what_was_released_is_an_exception() {
        assert_eq!(phrases(&tree(&[("fixtures/1/dump.sql", "-- anew"), ("a.csv", "anew")])), [""; 0]);
    }
}
