//! Durable appends, each on the condition that the stream is at the version that its writer last saw.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{Append, Bytes, Error, EventStore, Expected, NewEvent, StreamId, Version};

use crate::{Figures, Load};

/// Appends from several writers at once, each to streams of its own, named after `round` so that rounds on
/// one store do not meet.
///
/// # Errors
/// As the store's.
pub async fn append(store: &Arc<dyn EventStore>, load: Load, round: usize) -> Result<Figures, Error> {
    let started = Instant::now();
    let writers: Vec<_> = (0..load.writers)
        .map(|writer| tokio::spawn(write(store.clone(), load, format!("bench-{round}-{writer}"))))
        .collect();
    let mut latencies = Vec::with_capacity(load.events / load.batch);
    let mut digest = 0;
    for writer in writers {
        let (waited, last) = writer.await.expect("a writer does not panic")?;
        latencies.extend(waited);
        digest += last.get();
    }
    let events = (latencies.len() * load.batch) as u64;
    Ok(Figures::new(events, started.elapsed(), latencies, digest))
}

async fn write(
    store: Arc<dyn EventStore>,
    load: Load,
    name: String,
) -> Result<(Vec<Duration>, Version), Error> {
    let stream = StreamId::new(name)?;
    let data = Bytes::from(vec![b'x'; load.data_bytes]);
    let mut version = Version::ZERO;
    let mut latencies = Vec::with_capacity(load.appends_each());
    for _ in 0..load.appends_each() {
        let events = (0..load.batch).map(|_| NewEvent::new("bench.happened", data.clone()));
        let append = Append::to(&stream, Expected::Exact(version), events.collect::<Result<Vec<_>, _>>()?);
        let asked = Instant::now();
        version = store.append(append).await?.version();
        latencies.push(asked.elapsed());
    }
    Ok((latencies, version))
}
