//! `annals receipt`: writes a proof that an event is in the log, and checks one without a store.

use std::path::PathBuf;
use std::process::ExitCode;

use annals_core::{Position, StoreUrl, StreamId, Timestamp, Version};
use annals_engine::Receipt as Proof;
use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::address::store_parser;
use crate::begin::Place;
use crate::exit::{NotFound, Usage};
use crate::files;
use crate::head::{Published, digest, embedded, hex};
use crate::output::{Output, plain};
use crate::store::StoreOption;

/// Prove that an event is in the log to someone who has only a published head
#[derive(Args)]
#[command(after_help = "Examples:
  annals receipt account-42 3 --store file:./data > receipt.json
  annals receipt --check receipt.json --head head.json

A receipt leads from the event to the head of the log, which `annals head --json` prints. Checking one needs \
neither the store nor trust in its owner. With --to the receipt is up to an earlier head, by its \
position. The exit code of a check is 1 if the receipt proves nothing.")]
pub(crate) struct Receipt {
    /// The stream
    #[arg(required_unless_present = "check")]
    stream: Option<StreamId>,
    /// The event's version in it
    #[arg(required_unless_present = "check", value_name = "VERSION", id = "event-version")]
    version: Option<Version>,
    /// Up to the head at this position, or as 42@UUID at the event there; otherwise the newest
    #[arg(long, value_name = "POSITION")]
    to: Option<Place>,
    /// Check this receipt
    #[arg(long, value_name = "FILE", requires = "head", conflicts_with_all = ["stream", "event-version", "to"])]
    check: Option<PathBuf>,
    /// Against this published head
    #[arg(long, value_name = "FILE", requires = "check")]
    head: Option<PathBuf>,
    /// Print the result of a check in JSON
    #[arg(long, requires = "check")]
    json: bool,
    /// The store: `file:DIRECTORY`
    #[arg(long = "store", env = "ANNALS_STORE", hide_env_values = true, value_name = "URL", value_parser = store_parser())]
    store: Option<StoreUrl>,
}

impl Receipt {
    /// Writes a receipt, or checks one.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match (&self.check, &self.head) {
            (Some(receipt), Some(head)) => check(receipt, head, self.json),
            _ => self.write().await,
        }
    }

    async fn write(self) -> anyhow::Result<ExitCode> {
        let (Some(stream), Some(version)) = (self.stream, self.version) else {
            return Err(Usage("name a stream and a version".to_owned()).into());
        };
        let url =
            self.store.ok_or_else(|| Usage("name the store with --store or in ANNALS_STORE".to_owned()))?;
        let store = embedded(&StoreOption { url })?;
        let to = match self.to {
            Some(place) => Some(place.check(&store).await?),
            None => None,
        };
        let Some(receipt) = store.receipt(&stream, version, to)? else {
            let upto = to.map_or(String::new(), |to| format!(" up to a head at position {to}"));
            return Err(NotFound(format!("there is no event {version} of stream {stream}{upto}")).into());
        };
        let mut output = Output::standard();
        output.line(&serde_json::to_string(&Written::of(&receipt)?)?)?;
        output.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The maximum size of a file with a receipt in bytes: it has the event twice, and forty bytes per segment.
const RECEIPT_BYTES_MAX: u64 = 256 << 20;

fn check(file: &std::path::Path, head: &std::path::Path, json: bool) -> anyhow::Result<ExitCode> {
    let head = Published::read(head)?;
    let name = || format!("cannot use {} as a receipt", file.display());
    let written: Written = files::read_json(file, RECEIPT_BYTES_MAX).with_context(name)?;
    let receipt = written.receipt().with_context(name)?;
    let proved = receipt.check(&head);
    let mut output = Output::standard();
    if json {
        let why = proved.err().map(|why| why.to_string());
        let answer = serde_json::json!({"proved": proved.is_ok(), "why": why, "position": receipt.position.get(),
            "version": receipt.version.get(), "stream": written.stream, "type": written.event_type});
        output.line(&answer.to_string())?;
    } else {
        let event = receipt.event().context("its body is not that of an event").with_context(name)?;
        let what = format!(
            "{} version {}, {} at position {}, recorded {}",
            plain(event.stream()),
            receipt.version,
            plain(event.event_type()),
            receipt.position,
            receipt.recorded_at.fixed()
        );
        match proved {
            Ok(()) => output.line(&format!("proved: {what}"))?,
            Err(why) => output.line(&format!("not proved: {what}: {why}"))?,
        }
    }
    output.flush()?;
    Ok(if proved.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The JSON form of a receipt. The proof covers `body`; stream, type and data repeat its contents for
/// readers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: String,
    stream: String,
    #[serde(rename = "type")]
    event_type: String,
    data_base64: String,
    position: u64,
    version: u64,
    recorded_at: String,
    body: String,
    append: u64,
    events: Vec<String>,
    leaf: u64,
    leaves: u64,
    path: Vec<String>,
    before: String,
    after: Vec<(u64, String)>,
    head: Published,
}

/// The format of receipts.
const FORMAT: &str = "annals-receipt-1";

impl Written {
    fn of(receipt: &Proof) -> anyhow::Result<Self> {
        let event = receipt.event().context("the event cannot be read")?;
        Ok(Self {
            format: FORMAT.to_owned(),
            stream: event.stream().to_string(),
            event_type: event.event_type().to_string(),
            data_base64: BASE64_STANDARD.encode(event.data()),
            position: receipt.position.get(),
            version: receipt.version.get(),
            recorded_at: receipt.recorded_at.fixed(),
            body: BASE64_STANDARD.encode(&receipt.body),
            append: receipt.append.get(),
            events: receipt.events.iter().map(|digest| hex(digest)).collect(),
            leaf: receipt.leaf,
            leaves: receipt.leaves,
            path: receipt.path.iter().map(|digest| hex(digest)).collect(),
            before: hex(&receipt.before),
            after: receipt.after.iter().map(|(leaves, root)| (*leaves, hex(root))).collect(),
            head: Published::of(&receipt.head),
        })
    }

    fn receipt(&self) -> anyhow::Result<Proof> {
        if self.format != FORMAT {
            bail!("its format is `{}`, not {FORMAT}", self.format);
        }
        let digests =
            |texts: &[String]| texts.iter().map(|text| digest(text)).collect::<anyhow::Result<Vec<_>>>();
        let after = self.after.iter().map(|(leaves, root)| Ok((*leaves, digest(root)?)));
        let receipt = Proof {
            position: Position::new(self.position),
            version: Version::new(self.version),
            body: BASE64_STANDARD.decode(&self.body).context("`body` is not base64")?.into(),
            append: Position::new(self.append),
            recorded_at: self.recorded_at.parse::<Timestamp>()?,
            events: digests(&self.events)?,
            leaf: self.leaf,
            leaves: self.leaves,
            path: digests(&self.path)?,
            before: digest(&self.before)?,
            after: after.collect::<anyhow::Result<_>>()?,
            head: self.head.head()?,
        };
        // The members for readers must match the proved body.
        let event = receipt.event().context("its body is not that of an event")?;
        let same = event.stream() == self.stream
            && event.event_type() == self.event_type
            && BASE64_STANDARD.encode(event.data()) == self.data_base64;
        if !same {
            bail!("its stream, type or data is not that of its body");
        }
        Ok(receipt)
    }
}
