//! The imports between the top-level modules of a crate. `source` reads the imports of one file; this module
//! resolves them to the modules that define the imported items.
//!
//! The root (`lib.rs` or `main.rs`) declares modules and re-exports their names, and neither counts as an
//! import. Its own items are imported from the module `crate`. Traits and methods that are used without an
//! import are not detected.

mod source;

use crate::run;
use crate::tree::{File, Tree};
use source::Source;
use std::collections::{BTreeMap, BTreeSet};

/// The name of the root among the modules.
const ROOT: &str = "crate";

/// An import of an item of another module.
#[derive(Clone, Debug, PartialEq)]
pub struct Import {
    /// The file.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// The path of the imported item, as `crate::a::B`.
    pub path: String,
}

/// A crate: for each of its modules the imported modules, with the first import of each.
pub struct Crate {
    /// The folder.
    pub folder: String,
    /// The modules.
    pub modules: BTreeMap<String, BTreeMap<String, Import>>,
}

/// Prints the modules of these crates, or of the whole workspace.
pub fn print(crates: &[String]) {
    let tree = Tree::read(&run::root());
    let is_named = |found: &Crate| {
        let name = found.folder.rsplit('/').next().unwrap_or_default();
        crates == ["--workspace"] || crates.iter().any(|named| named == name)
    };
    for found in self::crates(&tree).into_iter().filter(is_named) {
        println!("{}", found.folder);
        for module in found.groups().into_iter().flatten() {
            let imports: Vec<&str> = found.modules[module].keys().map(String::as_str).collect();
            println!("  {module}{}{}", if imports.is_empty() { "" } else { " -> " }, imports.join(", "));
        }
    }
}

/// All crates, in the order of their folders.
pub fn crates(tree: &Tree) -> Vec<Crate> {
    let roots = tree.files.iter().filter_map(|file| {
        let folder =
            file.path.strip_suffix("/src/lib.rs").or_else(|| file.path.strip_suffix("/src/main.rs"))?;
        Some(Crate::read(tree, folder, file))
    });
    roots.collect()
}

impl Crate {
    fn read(tree: &Tree, folder: &str, root: &File) -> Self {
        let source_folder = format!("{folder}/src/");
        let mut sources = Vec::new();
        for file in tree.under(&source_folder, ".rs").filter(|file| file.path != root.path) {
            let path = file.path[source_folder.len()..].trim_end_matches(".rs").trim_end_matches("/mod");
            let module: Vec<&str> = path.split('/').collect();
            sources.push((file, Source::read(&module, &file.text)));
        }
        let root_source = Source::read(&[], &root.text);
        let for_tests: BTreeSet<Vec<String>> = sources
            .iter()
            .map(|(_, source)| source)
            .chain([&root_source])
            .flat_map(|source| source.test_modules.iter().cloned())
            .collect();
        sources.retain(|(_, source)| !for_tests.iter().any(|module| source.module.starts_with(module)));

        let mut found = Self { folder: folder.to_owned(), modules: BTreeMap::new() };
        for (_, source) in &sources {
            found.modules.entry(source.module[0].clone()).or_default();
        }
        let names = found.names(&root_source, sources.iter().map(|(_, source)| source));
        for (file, source) in &sources {
            for import in &source.imports {
                let to = match import.path.first().map(String::as_str) {
                    None => continue,
                    Some(first) if found.modules.contains_key(first) => first,
                    Some(first) => match names.get(first) {
                        Some(Some(module)) => module,
                        Some(None) => continue,
                        None => ROOT,
                    },
                };
                found.add(&source.module[0], to, file, import.line, &import.path);
            }
        }
        for import in root_source.relative(|name| found.modules.contains_key(name)) {
            found.add(ROOT, &import.path[0], root, import.line, &import.path);
        }
        found
    }

    /// The origin of the names at the root: a module, or `None` for another crate.
    fn names<'a>(
        &self,
        root: &Source,
        sources: impl Iterator<Item = &'a Source>,
    ) -> BTreeMap<String, Option<String>> {
        let mut names = BTreeMap::new();
        for used in &root.uses {
            let module = used.path.first().filter(|first| self.modules.contains_key(*first));
            names.insert(used.name.clone(), module.cloned());
        }
        for source in sources {
            // A macro with `#[macro_export]` is at the root.
            names.extend(source.macros.iter().map(|name| (name.clone(), Some(source.module[0].clone()))));
        }
        names
    }

    fn add(&mut self, from: &str, to: &str, file: &File, line: usize, path: &[String]) {
        if from == to {
            return;
        }
        self.modules.entry(to.to_owned()).or_default();
        let imports = self.modules.entry(from.to_owned()).or_default();
        imports.entry(to.to_owned()).or_insert_with(|| Import {
            file: file.path.clone(),
            line,
            path: format!("crate::{}", path.join("::")),
        });
    }

    /// The modules, each after those that it imports; modules in an import cycle are in one group.
    pub fn groups(&self) -> Vec<Vec<&str>> {
        let mut groups: Vec<Vec<&str>> = Vec::new();
        let mut placed = BTreeSet::new();
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            self.modules.keys().map(|module| (module.as_str(), self.reached(module))).collect();
        while placed.len() < self.modules.len() {
            let is_next = |module: &&str| {
                let below = &reached[module];
                let ring = |other: &str| reached[other].contains(module);
                !placed.contains(module) && below.iter().all(|other| placed.contains(other) || ring(other))
            };
            let Some(first) = reached.keys().copied().find(is_next) else { break };
            let with = |other: &&str| {
                *other == first || reached[first].contains(other) && reached[other].contains(first)
            };
            let group: Vec<&str> = reached.keys().copied().filter(with).collect();
            placed.extend(group.iter().copied());
            groups.push(group);
        }
        groups
    }

    /// The modules that this one imports, and those that they import.
    fn reached(&self, module: &str) -> BTreeSet<&str> {
        let (mut reached, mut open) = (BTreeSet::new(), vec![module]);
        while let Some(module) = open.pop() {
            for next in self.modules[module].keys() {
                if reached.insert(next.as_str()) {
                    open.push(next);
                }
            }
        }
        reached
    }

    /// The shortest import cycle from this module back to it, if there is one.
    pub fn ring(&self, start: &str) -> Option<Vec<&Import>> {
        let mut ways: Vec<(&str, Vec<&Import>)> = vec![(start, Vec::new())];
        let mut seen = BTreeSet::new();
        while !ways.is_empty() {
            let mut longer = Vec::new();
            for (module, way) in ways {
                for (next, import) in &self.modules[module] {
                    let mut way = way.clone();
                    way.push(import);
                    if next == start {
                        return Some(way);
                    }
                    if seen.insert(next.as_str()) {
                        longer.push((next.as_str(), way));
                    }
                }
            }
            ways = longer;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The imports between the modules of a crate of these files, as `a -> b`.
    fn edges(files: &[(&str, &str)]) -> Vec<String> {
        let file =
            |(path, text): &(&str, &str)| File { path: format!("x/src/{path}"), text: (*text).to_owned() };
        let found = crates(&Tree { files: files.iter().map(file).collect() });
        let modules = found[0].modules.iter();
        modules.flat_map(|(from, to)| to.keys().map(move |to| format!("{from} -> {to}"))).collect()
    }

    #[test]
    fn imports_are_found_however_they_are_written() {
        let root = ("lib.rs", "mod a;\nmod b;\nmod c;\n");
        for text in [
            "use crate::b::X;",
            "use crate::b;",
            "use crate::{b::{self, X}};",
            "use super::b::X;",
            "fn f() {\n    crate::b::f()\n}",
            "mod inner {\n    use super::super::b;\n}",
            "impl<T: crate::b::X> Y<T> for &'static str {}",
        ] {
            assert_eq!(edges(&[root, ("a.rs", text), ("b.rs", "")]), ["a -> b"], "{text}");
        }
        let deep = [root, ("a.rs", ""), ("a/d.rs", "use super::super::b;\nuse super::e;"), ("b.rs", "")];
        assert_eq!(edges(&deep), ["a -> b"]);
        let several = [root, ("a.rs", "use crate::{b::X, c};"), ("b/mod.rs", ""), ("c.rs", "use crate::b;")];
        assert_eq!(edges(&several), ["a -> b", "a -> c", "c -> b"]);
    }

    #[test]
    fn what_is_not_compiled_into_the_crate_is_no_import() {
        let root = ("lib.rs", "mod a;\nmod b;\n#[cfg(test)]\nmod t;\n");
        for text in [
            "//! See `crate::b::X`.\n/* use crate::b; */",
            "const S: &str = \"crate::b::X\";\nconst R: &str = r#\"\"crate::b\"#;\nconst C: char = '\"';\n",
            "#[cfg(test)]\nmod tests {\n    use crate::b::X;\n}\n",
            "#[cfg(test)]\nuse crate::{b::X};\n",
            "#[cfg(all(test, feature = \"x\"))]\nfn f() { crate::b::f() }\n",
            "pub(in crate::b) struct A;",
            "use self::b::X;",
            "use super::a::b::X;",
        ] {
            assert_eq!(
                edges(&[root, ("a.rs", text), ("b.rs", ""), ("t.rs", "use crate::b;")]),
                [""; 0],
                "{text}"
            );
        }
    }

    #[test]
    fn a_name_of_the_root_is_imported_from_the_module_that_defines_it() {
        let root = "mod a;\nmod b;\npub use b::{X, c::Y as Z};\npub use other::W;\npub struct V;\n";
        for (text, edge) in [
            ("use crate::X;", &["a -> b"][..]),
            ("use crate::{Z};", &["a -> b"]),
            ("crate::shout!()", &["a -> b"]),
            ("use crate::W;", &[]),
            ("use crate::V;", &["a -> crate"]),
        ] {
            let files =
                [("lib.rs", root), ("a.rs", text), ("b.rs", "#[macro_export]\nmacro_rules! shout {}")];
            assert_eq!(edges(&files), edge, "{text}");
        }
    }

    #[test]
    fn the_root_imports_what_its_own_code_uses() {
        let modules = [("a.rs", ""), ("b.rs", "")];
        for (text, edge) in [
            ("pub use a::X;\nfn f() {}", &[][..]),
            ("use a::X;", &["crate -> a"]),
            ("pub use a::X;\nfn f() { b::f(other::a::g) }", &["crate -> b"]),
        ] {
            assert_eq!(edges(&[("lib.rs", text), modules[0], modules[1]]), edge, "{text}");
        }
    }

    #[test]
    fn modules_come_after_what_they_import() {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let files = vec![
            file("x/src/a.rs", "use crate::c;"),
            file("x/src/b.rs", "use crate::a;"),
            file("x/src/c.rs", "use crate::a;"),
            file("x/src/d.rs", ""),
            file("x/src/lib.rs", ""),
        ];
        let found = crates(&Tree { files });
        assert_eq!(found[0].groups(), [vec!["a", "c"], vec!["b"], vec!["d"]]);
        assert!(found[0].ring("b").is_none());
    }
}
