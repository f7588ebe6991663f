//! `annals outbox`: the status and the dead letters of a service's outbox, which is in the service's own
//! database.

use std::process::ExitCode;

use annals_core::{DatabaseUrl, EventId};
use annals_outbox::{DeadLetter, Outbox as Tables, Pool, Status};
use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::address::parser;
use crate::numbers::count;
use crate::output::{Column, Output, Style, plain, thousands};

/// Show the status of a service's outbox, and retry or drop its dead letters
#[derive(Args)]
#[command(after_help = "Examples:
  annals outbox status postgres://shop@localhost/shop
  annals outbox list sqlite:orders.db
  annals outbox retry sqlite:orders.db 019b0c5e-3f0a-7cc2-9d4e-0a4f9a2f6a11
  annals outbox retry postgres://shop@localhost/shop --all
  annals outbox drop sqlite:orders.db 019b0c5e-3f0a-7cc2-9d4e-0a4f9a2f6a11")]
pub(crate) struct Outbox {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show how many messages are waiting, how old they are, and which ones fail
    Status {
        #[command(flatten)]
        place: Place,
        /// One line of JSON
        #[arg(long)]
        json: bool,
    },
    /// List dead letters, oldest first
    List {
        #[command(flatten)]
        place: Place,
        /// At most this many
        #[arg(long, value_name = "N", default_value = "100", value_parser = count)]
        limit: u64,
        /// One line of JSON a dead letter, with all of the message
        #[arg(long)]
        json: bool,
    },
    /// Queue dead letters again, in their original order; the publisher of the service retries them
    Retry {
        #[command(flatten)]
        place: Place,
        /// The message
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<EventId>,
        /// All current dead letters
        #[arg(long)]
        all: bool,
    },
    /// Discard a dead letter: it will never be published, and its aggregate is unblocked
    Drop {
        #[command(flatten)]
        place: Place,
        /// The message
        id: EventId,
    },
    /// Create the tables if they do not exist
    Migrate {
        #[command(flatten)]
        place: Place,
    },
}

/// Where an outbox is.
#[derive(Args)]
struct Place {
    /// The database of the service: `postgres://…`, `mysql://…` or `sqlite:FILE`
    #[arg(value_name = "URL", value_parser = parser::<DatabaseUrl>())]
    database: DatabaseUrl,
    /// The name of the outbox's table
    #[arg(long, default_value = "outbox")]
    name: String,
}

impl Place {
    async fn open(&self) -> anyhow::Result<Tables> {
        let pool = Pool::connect(self.database.expose()).await;
        let pool = pool.with_context(|| format!("cannot open {}", self.database))?;
        Ok(Tables::named(pool, &self.name)?)
    }
}

impl Outbox {
    /// Executes the subcommand.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut output = Output::standard();
        match self.command {
            Command::Status { place, json } => show(&mut output, &place.open().await?.status().await?, json)?,
            Command::List { place, limit, json } => {
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                list(&mut output, &place.open().await?.dead_letters(limit).await?, json)?;
            }
            Command::Retry { place, id, .. } => {
                let outbox = place.open().await?;
                let count = match id {
                    Some(id) => outbox.retry(id).await.map(|()| 1)?,
                    None => outbox.retry_all().await?,
                };
                let letters = if count == 1 { "dead letter" } else { "dead letters" };
                output.line(&format!("{} {letters} will be tried again", thousands(count)))?;
            }
            Command::Drop { place, id } => {
                place.open().await?.discard(id).await?;
                output.line(&format!("{id} is dropped; its aggregate is unblocked"))?;
            }
            Command::Migrate { place } => {
                place.open().await?.migrate().await?;
                output.line(&format!("the outbox `{}` in {} is ready", place.name, place.database))?;
            }
        }
        output.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

fn show(output: &mut Output, status: &Status, json: bool) -> anyhow::Result<()> {
    let oldest = status.oldest.map(|age| age.as_secs_f64());
    if json {
        let failing = status.failing.iter().map(|failing| {
            json!({
                "aggregate_type": failing.aggregate_type, "aggregate_id": failing.aggregate_id,
                "id": failing.id.to_string(), "attempts": failing.attempts, "error": failing.error,
                "next_attempt_at": failing.next_attempt_at.fixed(),
            })
        });
        let failing: Vec<_> = failing.collect();
        let line = json!({
            "pending": status.pending, "held": status.held, "oldest_seconds": oldest,
            "dead_letters": status.dead_letters, "publishing": status.publishing, "failing": failing,
        });
        return Ok(output.line(&line.to_string())?);
    }
    let age = oldest.map_or_else(String::new, |age| format!("; the oldest has waited for {age:.1} s"));
    output.line(&format!(
        "{} to be published, {} held{age}",
        thousands(status.pending),
        thousands(status.held)
    ))?;
    output.line(&format!("{} dead letters", thousands(status.dead_letters)))?;
    output.line(if status.publishing { "a publisher is running" } else { "no publisher is running" })?;
    for failing in &status.failing {
        let aggregate = plain(&format!("{}/{}", failing.aggregate_type, failing.aggregate_id));
        let (id, attempts, error) = (failing.id, failing.attempts, plain(&failing.error));
        output.line(&format!("failing: {aggregate}, message {id}, {attempts} attempts: {error}"))?;
    }
    Ok(())
}

const COLUMNS: [Column; 6] = [
    Column::text("ID", Style::Plain),
    Column::text("AGGREGATE", Style::Plain),
    Column::text("TYPE", Style::Strong),
    Column::number("ATTEMPTS"),
    Column::number("WAITING"),
    Column::text("ERROR", Style::Plain),
];

fn list(output: &mut Output, letters: &[DeadLetter], json: bool) -> anyhow::Result<()> {
    if json {
        return letters.iter().try_for_each(|letter| Ok(output.line(&line(letter))?));
    }
    if letters.is_empty() {
        return Ok(output.line("no dead letters")?);
    }
    let rows: Vec<_> = letters.iter().map(row).collect();
    Ok(output.table(&COLUMNS, &rows)?)
}

fn line(letter: &DeadLetter) -> String {
    let message = &letter.message;
    let data = match serde_json::from_slice::<serde_json::Value>(&message.data) {
        Ok(data) if message.content_type == annals_core::ContentType::Json => json!({"data": data}),
        _ => json!({"data_base64": BASE64_STANDARD.encode(&message.data)}),
    };
    let mut line = json!({
        "id": message.id.to_string(), "aggregate_type": message.aggregate_type,
        "aggregate_id": message.aggregate_id, "sequence": message.sequence, "event_type": message.event_type,
        "content_type": message.content_type.as_str(), "headers": message.headers,
        "created_at": message.created_at.fixed(), "attempts": message.attempt, "error": letter.error,
        "failed_at": letter.failed_at.fixed(), "waiting": letter.waiting,
    });
    if let (Some(line), serde_json::Value::Object(data)) = (line.as_object_mut(), data) {
        line.extend(data);
    }
    line.to_string()
}

fn row(letter: &DeadLetter) -> Vec<String> {
    let message = &letter.message;
    let aggregate = plain(&format!("{}/{}", message.aggregate_type, message.aggregate_id));
    let numbers = [u64::from(message.attempt), letter.waiting].map(thousands);
    let [attempts, waiting] = numbers;
    vec![
        message.id.to_string(),
        aggregate,
        plain(&message.event_type),
        attempts,
        waiting,
        plain(&letter.error),
    ]
}
