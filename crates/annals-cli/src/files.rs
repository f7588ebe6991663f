//! Files: reading with a size limit, and the process limits on open files and on file size.

use std::io::{self, Read as _};
use std::path::Path;

use serde_json::error::Category;

/// Reads a text file of a bounded size: the path may name a device without an end.
///
/// # Errors
/// If it is larger or is not UTF-8; otherwise as the operating system's.
pub(crate) fn read_text(file: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(file)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if read as u64 > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {bytes_max} bytes"),
        ));
    }
    Ok(text)
}

/// Reads a JSON file of a bounded size.
///
/// # Errors
/// As [`read_text`]; or if it is not JSON of this type.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(file: &Path, bytes_max: u64) -> anyhow::Result<T> {
    let text = read_text(file, bytes_max)?;
    serde_json::from_str(&text).map_err(|error| anyhow::anyhow!("{}", in_words(&error)))
}

/// The message for an error in JSON. That of the library mentions maps and sequences.
fn in_words(error: &serde_json::Error) -> String {
    let place = format!("at line {} column {}", error.line(), error.column());
    let message = error.to_string();
    let named = |kind: &str| Some(message.strip_prefix(kind)?.split_once('`')?.0.to_owned());
    let (missing, unknown, twice) =
        (named("missing field `"), named("unknown field `"), named("duplicate field `"));
    match error.classify() {
        Category::Io | Category::Eof => format!("its JSON ends too early, {place}"),
        Category::Syntax => format!("it is not JSON {place}"),
        Category::Data => match (missing, unknown, twice) {
            (Some(name), ..) => format!("its `{name}` is missing"),
            (_, Some(name), _) => format!("it has `{name}`, which is not known"),
            (.., Some(name)) => format!("its `{name}` is there twice"),
            _ => format!("it has a value of another kind than expected {place}"),
        },
    }
}

/// Raises the soft limit of open files to the hard one.
///
/// A store keeps two files open per segment and a server one per connection, while the soft limit is often
/// 1,024. If the limit cannot be raised, it stays: opening a file beyond it fails with an error.
#[cfg(unix)]
pub(crate) fn allow_many() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // macOS refuses more than this, although it reports an unlimited hard limit.
    let current = maximum.or(cfg!(target_os = "macos").then_some(10_240));
    let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
}

/// Other systems have no such limit.
#[cfg(not(unix))]
pub(crate) fn allow_many() {}

/// Makes a write beyond the file size limit (`ulimit -f`) fail with an error, as on a full disk, instead of
/// ending the process. Must be called in a Tokio runtime.
#[cfg(unix)]
pub(crate) fn survive_limits() {
    use tokio::signal::unix::{SignalKind, signal};
    // The handler stays installed after the stream of signals is dropped.
    if let Err(error) = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())) {
        tracing::warn!(%error, "a file that reaches the limit of its size ends the process");
    }
}

/// Other systems have no such limit.
#[cfg(not(unix))]
pub(crate) fn survive_limits() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it can be read is asked")]
    struct Head {
        position: u64,
        leaves: Vec<u64>,
    }

    #[test]
    fn errors_in_json_are_reported_without_the_librarys_words() {
        for (text, message) in [
            (
                "{\"position\":1,\"leaves\":{}}",
                "it has a value of another kind than expected at line 1 column 23",
            ),
            ("[]", "it has a value of another kind than expected at line 1 column 2"),
            ("{\"position\":1}", "its `leaves` is missing"),
            ("{\"at\":1}", "it has `at`, which is not known"),
            ("{\"position\":1,\"position\":1}", "its `position` is there twice"),
            ("{\"position\":", "its JSON ends too early, at line 1 column 12"),
            ("{position}", "it is not JSON at line 1 column 2"),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(read_json::<Head>(file.path(), 100).unwrap_err().to_string(), message);
        }
    }
}
