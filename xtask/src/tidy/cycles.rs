//! The rule that the top-level modules of a crate do not import each other in a ring: a module can be understood with
//! those that it imports, and a ring has to be understood all at once.

use crate::modules::{self, Crate};
use crate::tree::Tree;

/// Crates whose modules may import each other in a ring, and why. What is here without need is refused.
const EXCEPTIONS: &[(&str, &str)] = &[(
    "crates/annals-server",
    "handlers stand beside the types that `app` holds: in `guard`, `metrics` and `upkeep`",
)];

/// The crates without exception have no ring.
pub fn cycles(tree: &Tree) -> Vec<String> {
    cycles_but(tree, EXCEPTIONS)
}

fn cycles_but(tree: &Tree, exceptions: &[(&str, &str)]) -> Vec<String> {
    let mut problems = Vec::new();
    for found in modules::crates(tree) {
        let is_exception = exceptions.iter().any(|(folder, _)| *folder == found.folder);
        let rings = rings(&found);
        if !is_exception {
            problems.extend(rings);
        } else if rings.is_empty() {
            problems.push(format!("{}: is an exception, and has no ring of imports", found.folder));
        }
    }
    problems
}

fn rings(found: &Crate) -> Vec<String> {
    let mut problems = Vec::new();
    for group in found.groups() {
        let Some(ring) = found.ring(group[0]) else { continue };
        let mut problem = format!("{}: `{}` import each other in a ring:", found.folder, group.join("`, `"));
        for import in ring {
            problem.push_str(&format!("\n  {}:{} has `{}`", import.file, import.line, import.path));
        }
        problems.push(problem);
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::tests::tree;
    use super::*;

    const THREE: [(&str, &str); 5] = [
        ("x/src/a.rs", "//! A.\nuse crate::b::B;\n"),
        ("x/src/b/deep.rs", "use crate::C;\n"),
        ("x/src/c.rs", "\nuse super::{a::A, d::D};\n"),
        ("x/src/d.rs", ""),
        ("x/src/lib.rs", "mod a;\nmod b;\nmod c;\npub use c::C;\n"),
    ];

    #[test]
    fn a_ring_of_imports_is_named_file_by_file() {
        let ring = "x: `a`, `b`, `c` import each other in a ring:\
            \n  x/src/a.rs:2 has `crate::b::B`\
            \n  x/src/b/deep.rs:1 has `crate::C`\
            \n  x/src/c.rs:2 has `crate::a::A`";
        assert_eq!(cycles(&tree(&THREE)), [ring]);
    }

    #[test]
    fn without_one_of_its_imports_it_is_none() {
        for missing in [0, 1, 2] {
            let mut files = THREE;
            files[missing].1 = "";
            assert_eq!(cycles(&tree(&files)), [""; 0]);
        }
    }

    #[test]
    fn an_exception_is_kept_only_where_it_is_needed() {
        let exceptions = [("x", "")];
        assert_eq!(cycles_but(&tree(&THREE), &exceptions), [""; 0]);
        let found = cycles_but(&tree(&THREE[3..]), &exceptions);
        assert_eq!(found, ["x: is an exception, and has no ring of imports"]);
    }
}
