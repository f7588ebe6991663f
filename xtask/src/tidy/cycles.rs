//! The rule that there are no import cycles between the top-level modules of a crate: a module can be
//! understood together with those that it imports, but a cycle can only be understood as a whole.

use crate::modules::{self, Crate};
use crate::tree::Tree;

/// The import cycles of all crates.
pub fn cycles(tree: &Tree) -> Vec<String> {
    modules::crates(tree).iter().flat_map(rings).collect()
}

fn rings(found: &Crate) -> Vec<String> {
    let mut problems = Vec::new();
    for group in found.groups() {
        let Some(ring) = found.ring(group[0]) else { continue };
        let mut problem = format!("{}: `{}` import each other in a cycle:", found.folder, group.join("`, `"));
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
        let ring = "x: `a`, `b`, `c` import each other in a cycle:\
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
}
