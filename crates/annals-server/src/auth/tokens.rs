//! The file of tokens: a line of JSON for each, with its name, its hash and its rights.
//!
//! ```text
//! {"name":"shop","sha256":"9f86d0…","read":["order","cart"],"append":["order"]}
//! {"name":"operations","sha256":"60303a…","read":"*","append":"*","metrics":true,"backup":true}
//! ```
//!
//! Empty lines and lines that begin with `#` are ignored. A token has 32 random bytes, which cannot be
//! guessed, so one round of SHA-256 is enough.

use std::collections::HashMap;
use std::sync::Arc;

use annals_core::Category;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::rights::{Categories, Rights};

/// The prefix of every token, by which secret scanners find a leaked one.
const PREFIX: &str = "annals_";
/// The number of random bytes in a token.
const RANDOM_BYTES: usize = 32;
/// The maximum length of a presented token in bytes.
const TOKEN_BYTES_MAX: usize = 256;
/// The maximum number of categories of one verb: a query gets an item for each.
const CATEGORIES_MAX: usize = 64;
/// The maximum length of a name in bytes.
const NAME_BYTES_MAX: usize = 128;

/// The name and the rights of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Its name, for people and logs.
    pub name: String,
    /// The categories that it may read; `*` alone for all.
    pub read: Vec<String>,
    /// The categories that it may append to; `*` alone for all.
    pub append: Vec<String>,
    /// Whether it may read `/metrics`.
    pub metrics: bool,
    /// Whether it may request backups.
    pub backup: bool,
}

/// A new token.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The token. It is shown once and never stored.
    pub token: String,
    /// Its line for the file, with the line break.
    pub line: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("line", &self.line).finish_non_exhaustive()
    }
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    sha256: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    read: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    append: Value,
    #[serde(default, skip_serializing_if = "is_false")]
    metrics: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    backup: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Grant {
    /// Creates a token with this name and these rights.
    ///
    /// # Errors
    /// Why the grant is invalid, or that the system has no random numbers.
    pub fn issue(&self) -> Result<Issued, String> {
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random)
            .map_err(|error| format!("the system returned no random numbers: {error}"))?;
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
        let categories = |names: &[String]| match names {
            [] => Value::Null,
            [star] if star == "*" => Value::from("*"),
            names => Value::from(names),
        };
        let line = Line {
            name: self.name.clone(),
            sha256: hash_of(&token).iter().map(|byte| format!("{byte:02x}")).collect(),
            read: categories(&self.read),
            append: categories(&self.append),
            metrics: self.metrics,
            backup: self.backup,
            tenant: None,
        };
        let line = serde_json::to_string(&line).expect("a line has only text for keys, so it is JSON");
        entry(&line)?;
        Ok(Issued { token, line: line + "\n" })
    }
}

/// Checks the text of a file of tokens.
///
/// # Errors
/// The number of the first invalid line, and why it is invalid.
pub fn check_tokens(text: &str) -> Result<(), String> {
    Tokens::parse(text).map(drop)
}

/// The tokens of a file.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    entries: Vec<Arc<Entry>>,
}

/// A token of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) rights: Rights,
    hash: [u8; 32],
}

impl Tokens {
    /// Parses the text of a file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        let (mut names, mut hashes) = (HashMap::new(), HashMap::new());
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let entry = entry(line).map_err(|problem| format!("line {number}: {problem}"))?;
            if let Some(before) = names.insert(entry.name.clone(), number) {
                return Err(format!("line {number}: the name `{}` is on line {before} already", entry.name));
            }
            if let Some(before) = hashes.insert(entry.hash, number) {
                return Err(format!("line {number}: the token is that of line {before}"));
            }
            entries.push(Arc::new(entry));
        }
        Ok(Self { entries })
    }

    /// The number of tokens.
    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }

    /// The token with this text. Compares every hash, each in constant time.
    pub(crate) fn find(&self, token: &str) -> Option<&Arc<Entry>> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let hash = hash_of(token);
        let mut found = None;
        for entry in &self.entries {
            if bool::from(entry.hash.ct_eq(&hash)) {
                found = Some(entry);
            }
        }
        found
    }

    /// Whether this token is still in the file, with the same rights.
    pub(crate) fn still_has(&self, entry: &Entry) -> bool {
        self.entries.iter().any(|other| **other == *entry)
    }
}

/// The hash of a token.
fn hash_of(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn entry(line: &str) -> Result<Entry, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| {
        let text = error.to_string();
        // The position is useless: the JSON has one line.
        text.split(" at line ").next().unwrap_or(&text).to_owned()
    })?;
    if line.name.is_empty() || line.name.len() > NAME_BYTES_MAX || line.name.chars().any(char::is_control) {
        return Err(format!("`name` must have 1 to {NAME_BYTES_MAX} bytes and no control characters"));
    }
    if line.tenant.is_some() {
        return Err(
            "`tenant` is kept for servers with tenants; this one serves one log. Leave it out".to_owned()
        );
    }
    let rights = Rights {
        read: categories("read", &line.read)?,
        append: categories("append", &line.append)?,
        metrics: line.metrics,
        backup: line.backup,
    };
    if rights == Rights::none() {
        return Err("gives no right: name `read`, `append`, `metrics` or `backup`".to_owned());
    }
    Ok(Entry { hash: hash(&line.sha256)?, name: line.name, rights })
}

fn hash(text: &str) -> Result<[u8; 32], String> {
    let mut hash = [0; 32];
    let pairs = text.as_bytes().chunks(2);
    let is_hash = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hash {
        return Err("`sha256` must be 64 digits of 0-9 and a-f".to_owned());
    }
    for (byte, pair) in hash.iter_mut().zip(pairs) {
        let pair = std::str::from_utf8(pair).expect("digits are ASCII");
        *byte = u8::from_str_radix(pair, 16).expect("these are hexadecimal digits");
    }
    Ok(hash)
}

fn categories(verb: &str, given: &Value) -> Result<Categories, String> {
    let names = match given {
        Value::Null => return Ok(Categories::none()),
        Value::String(star) if star == "*" => return Ok(Categories::All),
        Value::Array(names) => names,
        _ => return Err(format!("`{verb}` must be \"*\" or a list of categories")),
    };
    if names.len() > CATEGORIES_MAX {
        return Err(format!("`{verb}` has {} categories, at most {CATEGORIES_MAX}", names.len()));
    }
    let category = |name: &Value| {
        let name = name.as_str().ok_or_else(|| format!("`{verb}` must be \"*\" or a list of categories"))?;
        if name == "*" {
            return Err(format!("`{verb}` for all categories is \"*\", not a list"));
        }
        if name.find('-').is_some_and(|dash| dash > 0) {
            let problem = "a category is the part of a stream's name before the first `-`";
            return Err(format!("`{verb}` names `{name}`, and {problem}"));
        }
        Category::new(name).map_err(|invalid| format!("`{verb}` names a category that {}", invalid.problem))
    };
    let mut these = names.iter().map(category).collect::<Result<Vec<_>, _>>()?;
    these.sort_unstable();
    these.dedup();
    Ok(Categories::These(these.into()))
}
