//! Golden files: the stored form of each type and version of an event, kept beside the tests that read it.
//!
//! ```text
//! tests/golden/account.opened.v1.json     the data, byte for byte: written once, and never changed
//! tests/golden/account.opened.v1.read     the events that the current program reads from it, for review
//! tests/golden/account.opened.v2.json
//! tests/golden/account.opened.v2-2.json   a second sample of the same type and version
//! tests/golden/account.sealed.v1.bin      data that is not JSON
//! ```
//!
//! - H1  A data file is never overwritten. If the bytes of an event change, its version must change too.
//! - H2  Every file in the directory is read through the codec, as a log is.
//! - H3  A change in how a file is read is visible in review: its `.read` file is rewritten on demand, and
//!       then differs. The current version has a `.read` file too, so that it exists when the version becomes
//!       a former one.
//! - H4  No file is left over: a file of the current version belongs to a sample, a `.read` file to a data
//!       file.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use annals_core::{ContentType, Event, NewEvent, RawEvent, Upcaster};

use super::{as_appended, check_upcasters};
use crate::codec::read_raw;

/// The environment variable that enables writing.
const WRITE: &str = "ANNALS_GOLDEN";

/// Compares an event type with the golden files of a directory, which belongs to this event type alone; a
/// relative path is relative to the folder of the crate under test. There must be at least one sample of each
/// type, in its current version.
///
/// A first run with `ANNALS_GOLDEN=write` writes a file for each sample that has none; commit them with the
/// code. From then on the test fails when
///
/// - the current program can no longer read a file, or reads it as other events than before;
/// - the bytes of a sample differ from its file, although the version is the same;
/// - a type or version has no file, or a file of the current version has no sample.
///
/// ```
/// # use annals::{Event, testing::golden};
/// # #[derive(Event, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq)]
/// # #[event(prefix = "account")]
/// # enum AccountEvent { Opened { owner: String }, Closed }
/// # let directory = std::env::temp_dir().join(format!("annals-golden-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory).unwrap();
/// # std::fs::write(directory.join("account.opened.v1.json"), r#"{"owner":"kim"}"#).unwrap();
/// # std::fs::write(directory.join("account.opened.v1.read"), "Opened { owner: \"kim\" }\n").unwrap();
/// # std::fs::write(directory.join("account.closed.v1.json"), "{}").unwrap();
/// # std::fs::write(directory.join("account.closed.v1.read"), "Closed\n").unwrap();
/// # let path = directory.clone();
/// // let path = "tests/golden/account";
/// golden(path, [AccountEvent::Opened { owner: "kim".into() }, AccountEvent::Closed]);
/// # std::fs::remove_dir_all(directory).unwrap();
/// ```
///
/// A sample must have the same bytes in each run: use an ordered map (`BTreeMap`) if a map has more than one
/// entry.
///
/// # Panics
/// If anything differs, with all differences and how to resolve them.
#[track_caller]
pub fn golden<E>(directory: impl AsRef<Path>, samples: impl IntoIterator<Item = E>)
where
    E: Event + Debug + PartialEq,
{
    check_upcasters::<E>();
    let is_written = std::env::var_os(WRITE).is_some_and(|value| value == "write");
    let samples: Vec<E> = samples.into_iter().collect();
    let differences =
        Golden { directory: directory.as_ref(), is_written, differences: Vec::new() }.compare(&samples);
    assert!(
        differences.is_empty(),
        "the events `{}` and their golden files in {} differ:\n- {}",
        std::any::type_name::<E>(),
        directory.as_ref().display(),
        differences.join("\n- ")
    );
}

struct Golden<'a> {
    directory: &'a Path,
    /// Whether missing files are written.
    is_written: bool,
    differences: Vec<String>,
}

/// The parts of a data file's name.
#[derive(Debug, PartialEq)]
struct Name {
    event_type: String,
    schema_version: u16,
    content_type: ContentType,
}

impl Golden<'_> {
    fn compare<E: Event + Debug + PartialEq>(mut self, samples: &[E]) -> Vec<String> {
        if self.is_written
            && let Err(error) = std::fs::create_dir_all(self.directory)
        {
            return vec![format!("the directory cannot be created: {error}")];
        }
        let mut counts = BTreeMap::<&str, u32>::new();
        let mut of_samples = Vec::new();
        for sample in samples {
            let count = counts.entry(sample.event_type()).or_default();
            *count += 1;
            of_samples.push(self.compare_sample(sample, *count));
        }
        for event_type in E::TYPES.iter().filter(|event_type| !counts.contains_key(*event_type)) {
            self.differs(format!("`{event_type}` has no sample: pass one to `golden`"));
        }
        let (read, data): (Vec<_>, Vec<_>) = self.files().into_iter().partition(|path| is_read(path));
        let mut found = Vec::new();
        for path in &data {
            match name_of(path) {
                Some(name) => {
                    self.compare_file::<E>(path, &name, &of_samples);
                    found.push(name);
                }
                None => self.differs(format!(
                    "{} is not a golden file: these have names such as `account.opened.v1.json`",
                    path.display()
                )),
            }
        }
        self.find_missing::<E>(&found);
        // If a data file is missing, that has been reported already.
        if self.differences.is_empty() {
            self.find_left_over(&read, &data);
        }
        self.differences
    }

    /// Reports `.read` files without a data file.
    fn find_left_over(&mut self, read: &[PathBuf], data: &[PathBuf]) {
        for path in read.iter().filter(|read| !data.iter().any(|data| data.with_extension("read") == **read))
        {
            self.differs(format!("{} has no data file: restore that, or delete this file", path.display()));
        }
    }

    fn differs(&mut self, difference: String) {
        self.differences.push(difference);
    }

    /// The files, in the order of their names.
    fn files(&mut self) -> Vec<PathBuf> {
        let entries = match std::fs::read_dir(self.directory) {
            Ok(entries) => entries,
            Err(error) => {
                self.differs(format!(
                    "the directory cannot be read: {error}; a run with {WRITE}=write creates it"
                ));
                return Vec::new();
            }
        };
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        // Hidden files, such as those of the operating system.
        paths.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
        paths.sort();
        paths
    }

    /// Compares the bytes of a sample, the `count`th of its type, with its file, and returns the path of the
    /// file.
    fn compare_sample<E: Event + Debug + PartialEq>(&mut self, sample: &E, count: u32) -> PathBuf {
        let new = as_appended(sample);
        let path = self.directory.join(file_name(&new, count));
        match std::fs::read(&path) {
            Ok(stored) if stored == new.data => {}
            Ok(_) => self.differs(changed(&path, &new)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.is_written => {
                if let Err(error) = std::fs::write(&path, &new.data) {
                    self.differs(format!("{} cannot be written: {error}", path.display()));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.differs(format!(
                "{} is missing: run the test with {WRITE}=write and commit the file",
                path.display()
            )),
            Err(error) => self.differs(format!("{} cannot be read: {error}", path.display())),
        }
        match read_raw::<E>(raw(&new)) {
            Ok(read) if read == [sample.clone()] => {}
            Ok(read) => self.differs(format!("{sample:?} is read back as {read:?}")),
            Err(error) => self.differs(format!("{sample:?} cannot be read back: {error}")),
        }
        path
    }

    /// Reads a file as a log is read.
    fn compare_file<E: Event + Debug + PartialEq>(
        &mut self,
        path: &Path,
        name: &Name,
        of_samples: &[PathBuf],
    ) {
        let data = match std::fs::read(path) {
            Ok(data) => data,
            Err(error) => return self.differs(format!("{} cannot be read: {error}", path.display())),
        };
        let raw = RawEvent::new(name.event_type.as_str(), name.schema_version, data)
            .with_content_type(name.content_type.clone());
        let read = match read_raw::<E>(raw) {
            Ok(read) => read,
            Err(error) => {
                return self.differs(format!(
                    "{}: {error}; logs contain such events: add an upcaster that converts or drops them",
                    path.display()
                ));
            }
        };
        let is_of_today = E::TYPES.contains(&name.event_type.as_str())
            && E::current_version(&name.event_type) == name.schema_version;
        if is_of_today && !of_samples.iter().any(|of_sample| of_sample == path) {
            self.differs(format!(
                "{} has no sample, although it has the current version: pass its event to `golden` again, at its former index \
                 among those of its type, or delete the file if no log has such an event",
                path.display()
            ));
        }
        self.compare_read(&path.with_extension("read"), &read);
    }

    /// Compares the events read from a file with those that were read from it before.
    fn compare_read<E: Debug>(&mut self, path: &Path, read: &[E]) {
        let text: String = read.iter().map(|event| format!("{event:?}\n")).collect();
        match std::fs::read_to_string(path) {
            Ok(before) if before.replace("\r\n", "\n") == text => {}
            _ if self.is_written => {
                if let Err(error) = std::fs::write(path, &text) {
                    self.differs(format!("{} cannot be written: {error}", path.display()));
                }
            }
            Ok(before) => self.differs(format!(
                "{}: the data was read as\n{before}  and is now read as\n{text}  \
                 If this is intended, run the test with {WRITE}=write and review the difference",
                path.display()
            )),
            Err(_) => self.differs(format!(
                "{} is missing; it lists the events that are read from the data: run the test with {WRITE}=write and review it",
                path.display()
            )),
        }
    }

    /// Reports every version of a type, and every input of an upcaster, that has no file.
    fn find_missing<E: Event>(&mut self, found: &[Name]) {
        let has = |event_type: &str, version: Option<u16>| {
            let of_type = |name: &&Name| name.event_type == event_type;
            found
                .iter()
                .filter(of_type)
                .any(|name| version.is_none_or(|version| name.schema_version == version))
        };
        let mut missing = Vec::new();
        for event_type in E::TYPES {
            // The current version has been compared with the samples.
            let former =
                (1..E::current_version(event_type)).filter(|version| !has(event_type, Some(*version)));
            missing.extend(former.map(|version| format!("`{event_type}` (schema version {version})")));
        }
        for upcaster in E::UPCASTERS {
            match upcaster {
                Upcaster::Converted { event_type, version, .. }
                    if !E::TYPES.contains(event_type) && !has(event_type, Some(*version)) =>
                {
                    missing.push(format!("`{event_type}` (schema version {version})"));
                }
                Upcaster::Renamed { former, .. } if !has(former, None) => missing.push(format!("`{former}`")),
                // The data of dropped events is not read.
                _ => {}
            }
        }
        for what in missing {
            self.differs(format!(
                "{what} has no golden file, and may be in logs: restore the file, or create it from the data of such an event"
            ));
        }
    }
}

fn is_read(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "read")
}

fn raw(new: &NewEvent) -> RawEvent {
    RawEvent::new(new.event_type.as_text(), new.schema_version, new.data.clone())
        .with_content_type(new.content_type.clone())
}

/// The message for an event whose bytes changed although its version is the same.
fn changed(path: &Path, new: &NewEvent) -> String {
    let NewEvent { event_type, schema_version, data, .. } = new;
    format!(
        "{}: the bytes of `{event_type}` have changed, but its version is still {schema_version}. Now:\n{}\n  Give the variant \
         `version = {}` and an upcaster of the former version: `upcast({schema_version} = …)`. If only the sample has changed, \
         restore it, or add another",
        path.display(),
        String::from_utf8_lossy(data),
        u32::from(*schema_version) + 1,
    )
}

/// `account.opened.v2.json`, `account.opened.v2-3.json`
fn file_name(new: &NewEvent, count: u32) -> String {
    let count = if count == 1 { String::new() } else { format!("-{count}") };
    let extension = match &new.content_type {
        ContentType::Json => "json".to_owned(),
        ContentType::Binary => "bin".to_owned(),
        other => escaped(other.as_str()).replace('.', "%2E"),
    };
    format!("{}.v{}{count}.{extension}", escaped(new.event_type.as_str()), new.schema_version)
}

fn name_of(path: &Path) -> Option<Name> {
    let (name, extension) = path.file_name()?.to_str()?.rsplit_once('.')?;
    let (event_type, version) = name.rsplit_once(".v")?;
    let version = version.split_once('-').map_or(version, |(version, _)| version);
    let content_type = match extension {
        "json" => ContentType::Json,
        "bin" => ContentType::Binary,
        other => ContentType::new(unescaped(other)?),
    };
    Some(Name { event_type: unescaped(event_type)?, schema_version: version.parse().ok()?, content_type })
}

/// Escapes characters that a file name may not have, as `%` and two hexadecimal digits for each byte.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if c.is_alphanumeric() || matches!(c, '.' | '-' | '_') {
            escaped.push(c);
        } else {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().for_each(|byte| escaped.push_str(&format!("%{byte:02X}")));
        }
    }
    escaped
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend(before.bytes());
        bytes.push(u8::from_str_radix(after.get(..2)?, 16).ok()?);
        rest = &after[2..];
    }
    bytes.extend(rest.bytes());
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_after_what_is_in_it() {
        for (event_type, version, content_type, count, expected) in [
            ("account.opened", 1, ContentType::Json, 1, "account.opened.v1.json"),
            ("account.v2.v3", 12, ContentType::Binary, 3, "account.v2.v3.v12-3.bin"),
            (
                "a/b%·고객",
                1,
                ContentType::new("application/x.y+z"),
                1,
                "a%2Fb%25%C2%B7고객.v1.application%2Fx%2Ey%2Bz",
            ),
        ] {
            let mut new = NewEvent::new(event_type, "").unwrap();
            (new.schema_version, new.content_type) = (version, content_type.clone());
            let name = file_name(&new, count);
            assert_eq!(name, expected);
            let read = Name { event_type: event_type.to_owned(), schema_version: version, content_type };
            assert_eq!(name_of(Path::new(&name)), Some(read));
        }
        for name in ["account.opened.json", "account.v1", "account.vx.json", "a%2.v1.json", "README.md"] {
            assert_eq!(name_of(Path::new(name)), None, "{name}");
        }
    }
}
