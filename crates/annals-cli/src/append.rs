//! `annals append`: appends one event to one stream.

use std::io::Read as _;
use std::process::ExitCode;

use annals_core::{
    Append as Request, ContentType, Error, EventId, EventType, Expected, IdempotencyKey, Invalid, Limits,
    Metadata, NewEvent, StreamId, Tag, Text, Timestamp, check_json, refuse_reserved,
};
use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use crate::output::{Output, plain};
use crate::store::StoreOption;

/// Append one event to a stream
#[derive(Args)]
#[command(after_help = "Examples:
  export ANNALS_STORE=file:./data
  annals append account-42 --type account.opened --data '{\"owner\":\"kim\"}'
  echo '{\"amount\":30}' | annals append account-42 --type account.paid --data -
  annals append account-42 --type account.closed --expect 2 --key request-123")]
pub(crate) struct Append {
    /// The stream, such as account-42
    stream: StreamId,
    /// The type of the event, in the past tense, such as account.opened
    #[arg(long = "type", value_name = "TYPE")]
    event_type: EventType,
    /// The data of the event: JSON, or `-` to read it from standard input; blanks and line breaks around it
    /// are removed
    #[arg(long, default_value = "{}", value_name = "JSON", allow_hyphen_values = true)]
    data: String,
    /// The expected version of the stream before the append: a number, `none`, `exists` or `any`
    #[arg(long, default_value = "any", value_name = "VERSION", allow_negative_numbers = true)]
    expect: Expected,
    /// Name of this append: the same append with the same key again writes nothing and gets the first answer
    #[arg(long)]
    key: Option<IdempotencyKey>,
    /// Word to find the event by, such as customer:7; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,
    /// Identity of the event, a UUID; otherwise a new one is made
    #[arg(long, value_name = "UUID")]
    id: Option<EventId>,
    /// Media type of the data; only JSON is checked
    #[arg(long, default_value = "application/json", value_name = "TYPE")]
    content_type: String,
    /// When it happened, if not now: 2017-04-15T13:00:00Z, or with another offset
    #[arg(long, value_name = "TIME", value_parser = time)]
    occurred_at: Option<Timestamp>,
    /// The business process that the event belongs to
    #[arg(long)]
    process: Option<String>,
    /// The user or system that started it, such as user:7
    #[arg(long)]
    initiator: Option<String>,
    /// The message or event that triggered it
    #[arg(long, value_name = "ID")]
    predecessor: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreOption,
}

/// The result as JSON. Members that an event also has are in the order of its JSON.
#[derive(Serialize)]
struct Answer<'a> {
    position: u64,
    stream: &'a str,
    version: u64,
    recorded_at: String,
    id: Option<String>,
    duplicate: bool,
}

/// The beginning of the message of a refusal.
const NOTHING: &str = "nothing was written";

impl Append {
    /// Appends the event and prints its version and position.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        if matches!(self.stream.as_str(), "." | "..") {
            let problem = format!("`{}` could not be named by an address over HTTP", self.stream);
            return Err(Invalid::new("stream", problem)).context(NOTHING);
        }
        refuse_reserved("stream", self.stream.as_str()).context(NOTHING)?;
        refuse_reserved("type", self.event_type.as_str()).context(NOTHING)?;
        let data = if self.data == "-" { from_stdin()? } else { self.data.into_bytes() };
        let content_type = ContentType::new(self.content_type);
        let data = if content_type.is_json() { json_of(&data)? } else { data };
        let text = |text: Option<String>| text.map(Text::from);
        let mut event = NewEvent::new(self.event_type, data)?.with_metadata(Metadata {
            process: text(self.process),
            initiator: text(self.initiator),
            predecessor: text(self.predecessor),
            ..Metadata::default()
        });
        event.content_type = content_type;
        event.occurred_at = self.occurred_at;
        event.id = self.id.unwrap_or(event.id);
        let event = self.tags.into_iter().fold(event, NewEvent::with_tag);
        let id = event.id;

        let store = self.store.open().await?;
        let request = Request { key: self.key, ..Request::to(&self.stream, self.expect, [event]) };
        let appended = match store.append(request).await {
            Err(Error::Invalid(Invalid { field, problem })) => {
                // There is only one event, so its index is omitted.
                let invalid = Invalid::new(field.trim_start_matches("events[0]."), problem);
                return Err(invalid).context(NOTHING);
            }
            Err(error @ Error::Conflict(_)) => return Err(error).context(NOTHING),
            appended => appended.context("the append failed")?,
        };
        let mut output = Output::standard();
        let (stream, version) = &appended.streams[0];
        if self.json {
            let answer = Answer {
                position: appended.last.get(),
                stream: stream.as_str(),
                version: version.get(),
                recorded_at: appended.recorded_at.fixed(),
                id: (!appended.duplicate).then(|| id.to_string()),
                duplicate: appended.duplicate,
            };
            output.line(&serde_json::to_string(&answer)?)?;
        } else {
            let note = if appended.duplicate { " (already appended)" } else { "" };
            let stream = plain(stream.as_str());
            output.line(&format!("{stream} version {version}, position {}{note}", appended.last))?;
        }
        output.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Parses a time. clap adds the name of the argument to the message.
fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|wrong: Invalid| wrong.problem)
}

/// Reads standard input, up to the maximum size of an event.
fn from_stdin() -> anyhow::Result<Vec<u8>> {
    let most = Limits::default().event_bytes_max;
    let mut data = Vec::new();
    let input = std::io::stdin().lock().take(most as u64 + 1);
    std::io::BufReader::new(input).read_to_end(&mut data).context("cannot read standard input")?;
    if data.len() > most {
        let problem = format!("has more than the {most} bytes that an event may have");
        return Err(Invalid::new("standard input", problem)).context(NOTHING);
    }
    Ok(data)
}

/// Checks that the bytes are JSON. Trims them: the line break at the end of standard input is not a part of
/// the value.
fn json_of(data: &[u8]) -> anyhow::Result<Vec<u8>> {
    if let Err(error) = std::str::from_utf8(data) {
        let byte = error.valid_up_to();
        let problem =
            format!("is not UTF-8, from its byte {byte} on; for other data there is --content-type");
        return Err(Invalid::new("--data", problem).into());
    }
    let data = data.trim_ascii();
    if let Err(error) = check_json(data) {
        let problem = format!("is not JSON: {error}; for other data there is --content-type");
        return Err(Invalid::new("--data", problem).into());
    }
    Ok(data.to_vec())
}
