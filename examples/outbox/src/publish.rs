//! The publisher: appends each message once to an Annals log, and prints it.

use std::sync::Arc;
use std::time::Duration;

use annals::EventStore;
use annals_outbox::{LogSink, Message, Options, Outbox, PublisherHandle, Sink, SinkError};
use async_trait::async_trait;

use crate::die;

/// A log, and the console.
struct LogAndConsole(LogSink);

#[async_trait]
impl Sink for LogAndConsole {
    async fn publish(&self, message: &Message) -> Result<(), SinkError> {
        self.0.publish(message).await?;
        let data = String::from_utf8_lossy(&message.data);
        println!("{}/{} {} {data}", message.aggregate_type, message.aggregate_id, message.event_type);
        die::at("after-publish");
        Ok(())
    }
}

/// Starts the publisher; `None` if the process must abort before anything is published.
pub async fn start(
    outbox: &Outbox,
    log: Arc<dyn EventStore>,
) -> annals_outbox::Result<Option<PublisherHandle>> {
    if die::is_set("after-commit") {
        return Ok(None);
    }
    // A short lease, so that the next process takes over soon after this one was killed.
    let options =
        Options { timeout: Duration::from_secs(1), lease: Duration::from_secs(2), ..Options::default() };
    let publisher = outbox.publisher(LogAndConsole(LogSink::new(log))).options(options).start().await?;
    if die::is_set("after-mark") {
        let outbox = outbox.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                if publisher_has_marked(&outbox).await {
                    die::at("after-mark");
                }
            }
        });
    }
    Ok(Some(publisher))
}

/// Whether a message was written, and all messages are published and marked.
async fn publisher_has_marked(outbox: &Outbox) -> bool {
    // The order matters: otherwise a message may be written between the two checks.
    die::has_written() && outbox.status().await.is_ok_and(|status| status.pending == 0)
}
