//! Changes of lines: the place of a patch's hunk, and the changes of several patches in one file.
//!
//! A hunk is placed in the original file, not in the result of other patches: so each patch applies alone, in
//! any order, and the change of one may be within the context of another. A hunk has one place; the line
//! number in its header is ignored.

use diffy::{Hunk, HunkRange, Line, Patch};

/// A replacement of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The patch to which it belongs.
    pub patch: String,
    /// Index of the first replaced line, or of the line before which others are added.
    pub at: usize,
    /// The number of replaced lines.
    pub removed: usize,
    /// The new lines.
    pub added: String,
}

/// The edits that turn the old text into the new one, without a patch yet.
pub fn between(old: &str, new: &str) -> Vec<Edit> {
    let patch = diffy::create_patch(old, new);
    let first = |range: HunkRange| range.start() - usize::from(!range.is_empty());
    patch.hunks().iter().flat_map(|hunk| edits_of("", hunk, first(hunk.old_range()))).collect()
}

/// The edits of a patch in one file, and the problem of each hunk that has no place in it.
pub fn of_patch(name: &str, patch: &Patch<'_, str>, text: &str) -> (Vec<Edit>, Vec<String>) {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (mut edits, mut problems) = (Vec::new(), Vec::new());
    for (index, hunk) in patch.hunks().iter().enumerate() {
        match place(hunk, &lines) {
            Ok(at) => edits.extend(edits_of(name, hunk, at)),
            Err(problem) => problems.push(format!("hunk {} does not apply: {problem}", index + 1)),
        }
    }
    (edits, problems)
}

/// The lines that a hunk expects.
fn expected<'a>(hunk: &Hunk<'a, str>) -> Vec<&'a str> {
    let old = |line: &Line<'a, str>| match line {
        Line::Context(line) | Line::Delete(line) => Some(*line),
        Line::Insert(_) => None,
    };
    hunk.lines().iter().filter_map(old).collect()
}

/// Index of the line where the hunk begins.
fn place(hunk: &Hunk<'_, str>, lines: &[&str]) -> Result<usize, String> {
    let expected = expected(hunk);
    let places: Vec<usize> = (0..lines.len()).filter(|&at| lines[at..].starts_with(&expected)).collect();
    match places[..] {
        [at] => Ok(at),
        [] => Err(format!("the file does not have\n{}{}", quoted(&expected), nearest(&expected, lines))),
        _ => {
            let numbers: Vec<String> = places.iter().map(|at| (at + 1).to_string()).collect();
            let numbers = numbers.join(", ");
            Err(format!("it fits at lines {numbers}; more lines of context say which is meant"))
        }
    }
}

fn quoted(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("  |{}\n", line.trim_end())).collect()
}

/// Describes the place with most of the lines, and the first line that differs there.
fn nearest(expected: &[&str], lines: &[&str]) -> String {
    let alike = |at: usize| lines[at..].iter().zip(expected).filter(|(has, wanted)| has == wanted).count();
    let Some(at) = (0..lines.len()).rev().max_by_key(|&at| alike(at)).filter(|&at| alike(at) > 0) else {
        return "  no line of it is there".to_owned();
    };
    let differs = (0..expected.len()).find(|index| lines.get(at + index) != expected.get(*index));
    let index = differs.expect("a hunk that is not found differs");
    let has = lines.get(at + index).map_or("the end of the file", |line| line.trim());
    format!("  most of it is at line {}, where line {} is: {has}", at + 1, at + index + 1)
}

fn edits_of(name: &str, hunk: &Hunk<'_, str>, place: usize) -> Vec<Edit> {
    let (mut edits, mut at) = (Vec::<Edit>::new(), place);
    for line in hunk.lines() {
        if matches!(line, Line::Context(_)) {
            at += 1;
            continue;
        }
        let follows = edits.last().is_some_and(|edit| edit.at + edit.removed == at);
        if !follows {
            edits.push(Edit { patch: name.to_owned(), at, removed: 0, added: String::new() });
        }
        let edit = edits.last_mut().expect("there is one now");
        match line {
            Line::Insert(line) => edit.added.push_str(line),
            _ => {
                edit.removed += 1;
                at += 1;
            }
        }
    }
    edits
}

/// The problems of these edits of one file, which are sorted: between two of them there must be an unchanged
/// line, or the changes could not be assigned to their patches later.
pub fn conflicts(edits: &mut [Edit]) -> Vec<String> {
    edits.sort_by_key(|edit| edit.at);
    let meet = edits.windows(2).filter(|pair| pair[0].at + pair[0].removed >= pair[1].at);
    meet.map(|pair| {
        let (line, one, other) = (pair[1].at + 1, &pair[0].patch, &pair[1].patch);
        format!("line {line}: no unchanged line is between the changes of `{one}` and `{other}`")
    })
    .collect()
}

/// Applies these edits, which must be sorted, to the text.
pub fn apply<'a>(text: &str, edits: impl IntoIterator<Item = &'a Edit>) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (mut out, mut next) = (String::with_capacity(text.len()), 0);
    for edit in edits {
        out.extend(lines[next..edit.at].iter().copied());
        out.push_str(&edit.added);
        next = edit.at + edit.removed;
    }
    out.extend(lines[next..].iter().copied());
    out
}

/// The patch of these edits of one file, with enough context that each hunk has one place.
pub fn patch_of(path: &str, text: &str, edits: &[&Edit]) -> String {
    let changed = apply(text, edits.iter().copied());
    let with_context = |lines: usize| {
        let mut options = diffy::DiffOptions::new();
        options.set_context_len(lines);
        options.set_original_filename(format!("a/{path}")).set_modified_filename(format!("b/{path}"));
        options.create_patch(text, &changed)
    };
    let is_placed = |patch: &Patch<'_, str>| of_patch("", patch, text).1.is_empty();
    let lines = (3..text.lines().count()).find(|&lines| is_placed(&with_context(lines)));
    with_context(lines.unwrap_or(3)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\n";

    fn named(name: &str, new: &str) -> Vec<Edit> {
        let edits = between(TEXT, new).into_iter();
        edits.map(|edit| Edit { patch: name.to_owned(), ..edit }).collect()
    }

    #[test]
    fn patches_in_the_context_of_each_other_apply_together_and_alone() {
        let first = named("first", &TEXT.replace("two\n", "two\nBUG 1\n"));
        let second = named("second", &TEXT.replace("four\n", "IV\n").replace("eight\n", "eight\nend\n"));
        assert_eq!((first.len(), second.len()), (1, 2));
        let moved = format!("zero\n{TEXT}");
        let mut all = Vec::new();
        for edits in [&first, &second] {
            let edits: Vec<&Edit> = edits.iter().collect();
            let patch = patch_of("x.rs", TEXT, &edits);
            assert!(patch.starts_with("--- a/x.rs\n+++ b/x.rs\n@@ -"), "{patch}");
            let patch = Patch::from_str(&patch).unwrap();
            let (placed, problems) = of_patch(&edits[0].patch, &patch, &moved);
            assert_eq!(problems, [""; 0]);
            all.extend(placed);
        }
        assert_eq!(conflicts(&mut all), [""; 0]);
        let expected = "zero\none\ntwo\nBUG 1\nthree\nIV\nfive\nsix\nseven\neight\nend\n";
        assert_eq!(apply(&moved, &all), expected);
    }

    #[test]
    fn a_hunk_without_a_place_says_what_it_looked_for_and_where_most_of_it_is() {
        let edits = named("bug", &TEXT.replace("four\n", "IV\n"));
        let patch = patch_of("x.rs", TEXT, &edits.iter().collect::<Vec<_>>());
        let patch = Patch::from_str(&patch).unwrap();
        let looked_for = "hunk 1 does not apply: the file does not have\n  |one\n  |two\n  |three\n  |four\n  |five\n  |six\n  |seven\n";
        let (edits, problems) = of_patch("bug", &patch, &format!("zero\n{}", TEXT.replace("three", "3")));
        assert_eq!(edits, []);
        assert_eq!(problems, [format!("{looked_for}  most of it is at line 2, where line 4 is: 3")]);
        let (_, problems) = of_patch("bug", &patch, "nothing of it\n");
        assert_eq!(problems, [format!("{looked_for}  no line of it is there")]);
        let (_, problems) = of_patch("bug", &patch, "zero\none\ntwo\nthree\n");
        let end = format!("{looked_for}  most of it is at line 2, where line 5 is: the end of the file");
        assert_eq!(problems, [end]);
    }

    #[test]
    fn a_hunk_with_two_places_is_refused_and_a_patch_is_written_with_enough_context() {
        let text = format!("begin\n{TEXT}middle\n{TEXT}");
        let patch = "--- a/x\n+++ b/x\n@@ -1,2 +1,3 @@\n one\n+BUG\n two\n";
        let patch = Patch::from_str(patch).unwrap();
        let (_, problems) = of_patch("bug", &patch, &text);
        let twice = "hunk 1 does not apply: it fits at lines 2, 11; more lines of context say which is meant";
        assert_eq!(problems, [twice]);
        let edit = Edit { patch: "bug".to_owned(), at: 14, removed: 1, added: "BUG\n".to_owned() };
        let patch = patch_of("x", &text, &[&edit]);
        let (edits, problems) = of_patch("bug", &Patch::from_str(&patch).unwrap(), &text);
        assert_eq!((edits, problems), (vec![edit], vec![]), "{patch}");
    }

    #[test]
    fn changes_of_two_patches_without_a_line_between_them_are_refused() {
        let mut edits = named("first", &TEXT.replace("two\n", "two\nBUG 1\n"));
        edits.extend(named("second", &TEXT.replace("three\n", "III\n")));
        let problem = "line 3: no unchanged line is between the changes of `first` and `second`";
        assert_eq!(conflicts(&mut edits), [problem]);
    }
}
