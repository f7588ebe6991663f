//! Reads the imports of one source file from its own crate, without the compiler: a scanner for comments,
//! strings, trees of `use` and code for tests. It is sufficient for code without glob imports.

/// An import, by its path from the root of the crate.
#[derive(Clone, Debug, PartialEq)]
pub struct Use {
    /// The path, without `crate`.
    pub path: Vec<String>,
    /// The local name.
    pub name: String,
    /// The line.
    pub line: usize,
}

/// A file of a crate.
pub struct Source {
    /// Its module, from the root.
    pub module: Vec<String>,
    /// Its imports from its crate, by `use` or in a path that begins with `crate` or `super`.
    pub imports: Vec<Use>,
    /// All of its `use` statements, unresolved.
    pub uses: Vec<Use>,
    /// The macros that it defines.
    pub macros: Vec<String>,
    /// The modules in their own files that are only for tests.
    pub test_modules: Vec<Vec<String>>,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq)]
struct Token {
    text: String,
    line: usize,
}

impl Source {
    /// Reads the file of this module.
    pub fn read(module: &[&str], text: &str) -> Self {
        let module: Vec<String> = module.iter().map(|name| (*name).to_owned()).collect();
        let (tokens, tests) = without_tests(tokens(text));
        let within = |name| module.iter().cloned().chain([name]).collect();
        let mut source = Self {
            test_modules: tests.into_iter().map(within).collect(),
            imports: Vec::new(),
            uses: Vec::new(),
            macros: Vec::new(),
            module,
            tokens,
        };
        source.scan();
        source
    }

    fn scan(&mut self) {
        // The enclosing modules within the file, each with the depth of the braces at which it ends.
        let (mut inner, mut depth): (Vec<(String, usize)>, usize) = (Vec::new(), 0);
        for at in 0..self.tokens.len() {
            match self.text(at) {
                "{" => depth += 1,
                "}" => {
                    depth = depth.saturating_sub(1);
                    inner.pop_if(|(_, outside)| *outside == depth);
                }
                "mod" if self.text(at + 2) == "{" => inner.push((self.text(at + 1).to_owned(), depth)),
                "macro_rules" => self.macros.push(self.text(at + 2).to_owned()),
                "use" => {
                    let mut uses = Vec::new();
                    self.tree(at + 1, &[], &mut uses);
                    self.uses.extend(uses);
                }
                "crate" | "super" if self.text(at + 1) == "::" && !self.is_inside_a_path(at) => {
                    let mut base: Vec<String> = self.module.clone();
                    base.extend(inner.iter().map(|(name, _)| name.clone()));
                    let mut next = at;
                    if self.text(at) == "crate" {
                        base.clear();
                        next += 2;
                    }
                    while self.text(next) == "super" && self.text(next + 1) == "::" {
                        base.pop();
                        next += 2;
                    }
                    let mut uses = Vec::new();
                    self.tree(next, &base, &mut uses);
                    self.imports.extend(uses);
                }
                _ => {}
            }
        }
    }

    /// The paths that begin with a module of the root, without `crate`: they are possible only in the root. A
    /// `pub use` is not included.
    pub fn relative(&self, is_module: impl Fn(&str) -> bool) -> Vec<Use> {
        let (mut found, mut is_reexport) = (Vec::new(), false);
        for at in 0..self.tokens.len() {
            match self.text(at) {
                "use" => is_reexport = at > 0 && matches!(self.text(at - 1), "pub" | ")"),
                ";" => is_reexport = false,
                first => {
                    let is_path = is_module(first) && self.text(at + 1) == "::";
                    if is_path && !is_reexport && !self.is_inside_a_path(at) {
                        self.tree(at, &[], &mut found);
                    }
                }
            }
        }
        found
    }

    /// The token at this index; empty after the last.
    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text.as_str())
    }

    /// Whether this token does not begin a path, or begins one in a visibility, as in `pub(in crate::b)`.
    fn is_inside_a_path(&self, at: usize) -> bool {
        let before = |count| at.checked_sub(count).map_or("", |at| self.text(at));
        before(1) == "::" || (before(1) == "in" && before(2) == "(")
    }

    /// Reads a tree of `use`, or the path of an expression. Returns the index of the token after it.
    fn tree(&self, mut at: usize, base: &[String], found: &mut Vec<Use>) -> usize {
        let mut path = base.to_vec();
        let line = self.tokens.get(at).map_or(0, |token| token.line);
        loop {
            match self.text(at) {
                "{" => {
                    at += 1;
                    while !matches!(self.text(at), "}" | "") {
                        let next = self.tree(at, &path, found);
                        at = next + usize::from(self.text(next) == "," || next == at);
                    }
                    return at + 1;
                }
                name if is_name(name) => path.push(name.to_owned()),
                _ => break,
            }
            at += 1;
            if self.text(at) != "::" {
                break;
            }
            at += 1;
        }
        path.pop_if(|last| last == "self");
        let mut name = path.last().cloned().unwrap_or_default();
        if self.text(at) == "as" {
            name = self.text(at + 1).to_owned();
            at += 2;
        }
        found.push(Use { path, name, line });
        at
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Removes the items after `#[cfg(test)]` or `#[cfg(all(test, ...))]`. Also returns the removed modules that
/// are files.
fn without_tests(tokens: Vec<Token>) -> (Vec<Token>, Vec<String>) {
    let (mut kept, mut files, mut at) = (Vec::new(), Vec::new(), 0);
    let text = |at: usize| tokens.get(at).map_or("", |token: &Token| token.text.as_str());
    let opens =
        |at: usize, words: &[&str]| words.iter().enumerate().all(|(index, word)| text(at + index) == *word);
    while at < tokens.len() {
        let is_for_tests = opens(at, &["#", "[", "cfg", "(", "test", ")"])
            || opens(at, &["#", "[", "cfg", "(", "all", "(", "test", ","]);
        if !is_for_tests {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        while text(at) == "#" {
            at = closed(&text, at + 1);
        }
        let (mut is_use, start) = (false, at);
        // The item ends with its first block, or without one at a semicolon.
        loop {
            is_use |= text(at) == "use";
            match text(at) {
                "" => break,
                ";" => {
                    at += 1;
                    break;
                }
                "{" | "(" | "[" => {
                    let is_block = text(at) == "{" && !is_use;
                    at = closed(&text, at);
                    if is_block {
                        break;
                    }
                }
                _ => at += 1,
            }
        }
        let item: Vec<&str> = (start..at).map(text).collect();
        if let [.., "mod", name, ";"] = item.as_slice() {
            files.push((*name).to_owned());
        }
    }
    (kept, files)
}

/// The index after the bracket that closes the one at this index.
fn closed<'a>(text: &impl Fn(usize) -> &'a str, mut at: usize) -> usize {
    let mut depth = 0_usize;
    loop {
        match text(at) {
            "" => return at,
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return at;
        }
    }
}

/// The tokens of a source, without comments and literals.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let char_at = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let start = at;
        let (end, is_token) = match chars[at] {
            '/' if char_at(at + 1) == '/' => (until(&chars, at, |rest| rest[0] == '\n'), false),
            '/' if char_at(at + 1) == '*' => (comment(&chars, at), false),
            '"' => (string(&chars, at), false),
            '\'' if char_at(at + 1) == '\\' => (until(&chars, at + 3, |rest| rest[0] == '\'') + 1, false),
            '\'' if char_at(at + 2) == '\'' => (at + 3, false),
            'r' | 'b' | 'c' if raw(&chars, at).is_some() => (raw(&chars, at).unwrap_or(at + 1), false),
            ':' if char_at(at + 1) == ':' => (at + 2, true),
            c if c.is_alphanumeric() || c == '_' => {
                (until(&chars, at, |rest| !rest[0].is_alphanumeric() && rest[0] != '_'), true)
            }
            c => (at + 1, !c.is_whitespace()),
        };
        at = end.min(chars.len());
        if is_token {
            found.push(Token { text: chars[start..at].iter().collect(), line });
        }
        line += chars[start..at].iter().filter(|c| **c == '\n').count();
    }
    found
}

/// The first index from `from` on at which the predicate holds for the rest; otherwise the end.
fn until(chars: &[char], from: usize, holds: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len()).find(|at| holds(&chars[*at..])).unwrap_or(chars.len())
}

fn comment(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while at < chars.len() {
        match chars[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(chars: &[char], mut at: usize) -> usize {
    at += 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// The end of a raw string (`r"`, `br#"`), if one begins here.
fn raw(chars: &[char], at: usize) -> Option<usize> {
    let quote = at + chars[at..].iter().position(|c| !"rbc#".contains(*c))?;
    let prefix: String = chars[at..quote].iter().collect();
    let hashes = prefix.trim_start_matches(['b', 'c']).strip_prefix('r')?;
    if chars[quote] != '"' || hashes.contains(['r', 'b', 'c']) {
        return None;
    }
    let end: Vec<char> = format!("\"{hashes}").chars().collect();
    Some(until(chars, quote + 1, |rest| rest.starts_with(&end)) + end.len())
}
