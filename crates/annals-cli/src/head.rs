//! `annals head`: prints the digest of the whole log; also defines the form in which a head is published.

use std::path::Path;
use std::process::ExitCode;

use annals_core::{Position, StoreId};
use annals_engine::EngineStore;
use anyhow::{Context as _, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::begin::Place;
use crate::files;
use crate::output::Output;
use crate::store::{StoreOption, notice, options};

/// Print the digest of the log, to be published: nothing before it can be changed unseen
#[derive(Args)]
#[command(after_help = "Examples:
  annals head --store file:./data
  annals head --json --store file:./data > head.json

Keep the line of JSON where nobody can change it who can change the store. Later, `annals verify --head \
head.json` proves that the log still begins with the same events, and `annals receipt --check` that one event is \
among them.")]
pub(crate) struct Head {
    /// Up to this position, at which an append must end; otherwise of the whole log. As 42@UUID, with the id
    /// of the event there, the log must have that event there
    #[arg(long, value_name = "POSITION")]
    to: Option<Place>,
    /// One line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreOption,
}

impl Head {
    /// Prints the head.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let store = embedded(&self.store)?;
        let to = match self.to {
            Some(place) => Some(place.check(&store).await?),
            None => None,
        };
        let Some(head) = store.head_digest(to)? else {
            let position = to.unwrap_or_default();
            bail!("no append ends at position {position}: a head is of whole appends");
        };
        let published = Published::of(&head);
        let mut output = Output::standard();
        if self.json {
            output.line(&serde_json::to_string(&published)?)?;
        } else {
            output.line(&format!("log {} up to position {}", published.store, published.position))?;
            output.line(&format!("digest {}", published.digest))?;
        }
        output.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Opens an embedded store: only this kind makes digests.
pub(crate) fn embedded(store: &StoreOption) -> anyhow::Result<EngineStore> {
    store.must_exist()?;
    let Some(directory) = store.url.directory() else {
        bail!("{} is not an embedded store; name one as file:DIRECTORY", store.url);
    };
    let opened = EngineStore::open_to_read(directory, options()?);
    let opened = opened.with_context(|| format!("cannot open {}", store.url))?;
    notice(&opened);
    Ok(opened)
}

/// The maximum size of a file with a head in bytes.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// The published form of a head.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Published {
    store: StoreId,
    position: Position,
    digest: String,
}

impl Published {
    /// Converts a head to its published form.
    pub(crate) fn of(head: &annals_engine::Head) -> Self {
        Self { store: head.store, position: head.position, digest: hex(&head.digest) }
    }

    /// Converts the published form to a head.
    pub(crate) fn head(&self) -> anyhow::Result<annals_engine::Head> {
        Ok(annals_engine::Head {
            store: self.store,
            position: self.position,
            digest: digest(&self.digest).context("`digest` is not a digest")?,
        })
    }

    /// Reads a published head from a file.
    pub(crate) fn read(file: &Path) -> anyhow::Result<annals_engine::Head> {
        let name = || format!("cannot use {} as a head", file.display());
        let published: Self = files::read_json(file, HEAD_BYTES_MAX).with_context(name)?;
        published.head().with_context(name)
    }
}

/// Encodes bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decodes a digest from hexadecimal.
pub(crate) fn digest(text: &str) -> anyhow::Result<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        bail!("`{text}` has not 64 digits");
    }
    let mut digest = [0; 32];
    for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits)?;
        *byte = u8::from_str_radix(digits, 16).with_context(|| format!("`{text}` is not hexadecimal"))?;
    }
    Ok(digest)
}
