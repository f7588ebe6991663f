//! The text files of the project, for the checks of style.

use std::path::Path;
use std::process::Command;

/// A text file.
pub struct File {
    /// Its path from the root, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// All text files, in the order of their paths.
#[derive(Default)]
pub struct Tree {
    /// The files.
    pub files: Vec<File>,
}

impl Tree {
    /// Reads the files that git tracks or does not ignore; without git, all but those in `target`.
    pub fn read(root: &Path) -> Self {
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output();
        let mut paths = match listed {
            Ok(output) if output.status.success() => {
                let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
                names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
            }
            _ => walk(root, ""),
        };
        paths.sort();
        let read = |path: String| Some(File { text: std::fs::read_to_string(root.join(&path)).ok()?, path });
        Self { files: paths.into_iter().filter_map(read).collect() }
    }

    /// The file at this path.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The files under this folder (with a `/` at its end) whose names have this ending.
    pub fn under<'a>(&'a self, folder: &'a str, end: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| file.path.starts_with(folder) && file.path.ends_with(end))
    }
}

/// The paths of all files in this folder of the root, without `target` and `.git`.
pub fn walk(root: &Path, folder: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && name != "target" && name != ".git" => {
                paths.extend(walk(root, &path))
            }
            Ok(kind) if kind.is_file() => paths.push(path),
            _ => {}
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_read_with_and_without_git() {
        let root = crate::run::root();
        let tree = Tree::read(&root);
        assert!(tree.file("xtask/src/tree.rs").is_some_and(|file| file.text.starts_with("//!")));
        assert!(tree.under("xtask/src/", ".rs").count() > 3);
        let walked = walk(&root.join("xtask"), "");
        assert!(walked.contains(&"src/tree.rs".to_owned()), "{walked:?}");
    }
}
