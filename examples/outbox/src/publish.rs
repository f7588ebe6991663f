//! What becomes of messages: they are appended to a log of Annals, each once, and printed.

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

/// Starts to publish; not at all, if this process is to die before there is something to be published.
pub async fn start(
    outbox: &Outbox,
    log: Arc<dyn EventStore>,
) -> annals_outbox::Result<Option<PublisherHandle>> {
    if die::is_set("after-commit") {
        return Ok(None);
    }
    // Short, so that nobody has to wait for long after the process was killed.
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

/// Whether something was written, and all of it is published and marked.
async fn publisher_has_marked(outbox: &Outbox) -> bool {
    // In this order: otherwise it may be written between the two.
    die::has_written() && outbox.status().await.is_ok_and(|status| status.pending == 0)
}
