//! The witness: a file outside the store that records intended and acknowledged appends.
//!
//! ```text
//! intend NAME own-version events hash .
//! acknowledged NAME first last hash stream=version stream=version … .
//! ```
//!
//! - W1  An intention is written before the append begins, so the appends in flight are known.
//! - W2  An acknowledgement is written and synced after the store has returned it; its writer waits for the
//!       sync.
//! - W3  A line counts only if it ends with a dot. A kill may truncate the last one.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::mpsc;

use annals_core::{Appended, Position, Version};
use tokio::sync::oneshot;

use super::load::{Hash, Name};
use crate::head::{digest, hex};

/// Writes the witness.
pub(super) struct Witness {
    file: File,
    acknowledged: mpsc::Sender<(String, oneshot::Sender<io::Result<()>>)>,
}

impl Witness {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let mut synced = file.try_clone()?;
        let (acknowledged, lines) = mpsc::channel::<(String, oneshot::Sender<io::Result<()>>)>();
        std::thread::spawn(move || {
            while let Ok((mut text, answer)) = lines.recv() {
                // All waiting writers share one sync.
                let mut answers = vec![answer];
                for (line, answer) in lines.try_iter() {
                    text.push_str(&line);
                    answers.push(answer);
                }
                let written = synced.write_all(text.as_bytes()).and_then(|()| synced.sync_data());
                for answer in answers {
                    let written = written.as_ref().copied().map_err(|error| io::Error::from(error.kind()));
                    // A writer that was dropped needs no result.
                    let _ = answer.send(written);
                }
            }
        });
        Ok(Self { file, acknowledged })
    }

    /// Records that an append is about to begin.
    pub(super) fn intend(&self, name: Name, own: Version, events: usize, hash: &Hash) -> io::Result<()> {
        // One write: a kill leaves a complete line or the beginning of one.
        (&self.file).write_all(format!("\nintend {name} {own} {events} {} .\n", hex(hash)).as_bytes())
    }

    /// Records that an append was acknowledged.
    pub(super) async fn acknowledge(&self, name: Name, outcome: &Appended, hash: &Hash) -> io::Result<()> {
        let Appended { first, last, streams, .. } = outcome;
        let mut line = format!("\nacknowledged {name} {first} {last} {}", hex(hash));
        for (stream, version) in streams {
            line.push_str(&format!(" {stream}={version}"));
        }
        line.push_str(" .\n");
        let (answer, answered) = oneshot::channel();
        let gone = || io::Error::other("the witness has gone");
        self.acknowledged.send((line, answer)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// The record of one append in the witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) own: Version,
    pub(super) events: u64,
    pub(super) hash: Hash,
    pub(super) state: State,
}

/// The state of an append, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It was in flight at a kill: it may or may not be stored.
    InFlight,
    /// It was acknowledged: it must be stored at this place.
    Acknowledged(Acknowledged),
    /// It was not found after a kill: it must not appear later.
    Absent,
}

/// The place of an acknowledged append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub(super) first: Position,
    pub(super) last: Position,
    /// The version of each stream after the append, by its name.
    pub(super) streams: BTreeMap<String, Version>,
}

impl Acknowledged {
    pub(super) fn of(outcome: &Appended) -> Self {
        let streams = outcome.streams.iter().map(|(stream, version)| (stream.to_string(), *version));
        Self { first: outcome.first, last: outcome.last, streams: streams.collect() }
    }
}

/// The records of the witness that were read so far.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) appends: BTreeMap<Name, Known>,
    read: u64,
}

impl Ledger {
    /// Reads the new lines of the witness. No process may be writing to it.
    pub(super) fn read_on(&mut self, path: &Path) -> io::Result<()> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            // The child was killed before it created the file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.read))?;
        let mut text = Vec::new();
        self.read += file.read_to_end(&mut text)? as u64;
        for line in String::from_utf8_lossy(&text).lines() {
            if let Some(whole) = line.strip_suffix(" .") {
                self.take(whole).ok_or_else(|| io::Error::other(format!("the witness says `{whole}`")))?;
            }
        }
        Ok(())
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let (kind, name) = (words.next()?, words.next()?.parse().ok()?);
        match kind {
            "intend" => {
                let own = words.next()?.parse().ok()?;
                let events = words.next()?.parse().ok()?;
                let hash = digest(words.next()?).ok()?;
                self.appends.insert(name, Known { own, events, hash, state: State::InFlight });
            }
            "acknowledged" => {
                let (first, last) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                let known = self.appends.get_mut(&name)?;
                known.hash = digest(words.next()?).ok()?;
                let stream = |word: &str| {
                    let (stream, version) = word.split_once('=')?;
                    Some((stream.to_owned(), version.parse().ok()?))
                };
                let streams = words.map(stream).collect::<Option<_>>()?;
                known.state = State::Acknowledged(Acknowledged { first, last, streams });
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_does_not_count() {
        let directory = std::env::temp_dir().join(format!("annals-witness-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("witness");
        let name = Name { cycle: 1, writer: 2, number: 3 };
        Witness::open(&path).unwrap().intend(name, Version::new(7), 2, &[9; 32]).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"\nacknowledged 1.2.3 5 6 09").unwrap();
        let mut ledger = Ledger::default();
        ledger.read_on(&path).unwrap();
        let known = Known { own: Version::new(7), events: 2, hash: [9; 32], state: State::InFlight };
        assert_eq!(ledger.appends.get(&name), Some(&known));
        let line = format!("\nacknowledged 1.2.3 5 6 {} a=1 b-2=8 .\n", hex(&[9; 32]));
        file.write_all(line.as_bytes()).unwrap();
        ledger.read_on(&path).unwrap();
        let State::Acknowledged(found) = &ledger.appends[&name].state else {
            panic!("it is not acknowledged")
        };
        assert_eq!((found.first, found.last), (Position::new(5), Position::new(6)));
        assert_eq!(found.streams["b-2"], Version::new(8));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
