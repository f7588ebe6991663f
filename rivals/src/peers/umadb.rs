//! UmaDB: its server and its asynchronous client in this process, gRPC over the loopback. A stream is a tag,
//! as with Tephra. The server's pipelined writer is on, which is its faster one.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use umadb_client::{AsyncUmaDbClient, UmaDbClient};
use umadb_core::mvcc::StorageOptions;
use umadb_dcb::{DcbAppendCondition, DcbError, DcbEvent, DcbEventStoreAsync, DcbQuery, DcbQueryItem};
use umadb_server::{ServerOptions, start_server_with_options};

use crate::rival::{Answer, Drive, Request, Rival, See};

/// Connections of the client; HTTP/2 carries many calls on each.
const CONNECTIONS: usize = 8;

/// A server of UmaDB and a client of it.
pub struct UmadbStore {
    clients: Vec<AsyncUmaDbClient>,
    stop: Option<oneshot::Sender<()>>,
    stopped: parking_lot::Mutex<mpsc::Receiver<()>>,
}

impl UmadbStore {
    /// Starts the server and connects to it.
    ///
    /// # Errors
    /// If the server does not start.
    pub fn open(directory: &Path, runtime: &Handle) -> Result<Self> {
        let address = {
            let free = std::net::TcpListener::bind("127.0.0.1:0")?;
            free.local_addr()?.to_string()
        };
        let options = ServerOptions {
            listen_addr: address.clone(),
            tls: None,
            api_key: None,
            storage: StorageOptions::default().db_path(directory).pipelined_writer(true),
        };
        let (stop, stopping) = oneshot::channel();
        let (ended, stopped) = mpsc::channel();
        runtime.spawn(async move {
            if let Err(error) = start_server_with_options(options, stopping).await {
                eprintln!("umadb: {error}");
            }
            let _ = ended.send(());
        });
        let clients = runtime.block_on(async {
            let mut clients = Vec::new();
            let mut tries = 0;
            while clients.len() < CONNECTIONS {
                match UmaDbClient::new(format!("http://{address}")).connect_async().await {
                    Ok(client) => clients.push(client),
                    Err(_) if tries < 200 => {
                        tries += 1;
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    Err(error) => return Err(error).context("UmaDB's server does not answer"),
                }
            }
            Ok(clients)
        })?;
        Ok(Self { clients, stop: Some(stop), stopped: parking_lot::Mutex::new(stopped) })
    }

    fn client(&self, caller: usize) -> &AsyncUmaDbClient {
        &self.clients[caller % CONNECTIONS]
    }

    async fn read(&self, query: Option<DcbQuery>, caller: usize, see: See<'_>) -> Result<()> {
        let mut response = self.client(caller).read(query, None, false, None).await?;
        loop {
            let batch = response.next_batch().await?;
            if batch.is_empty() {
                return Ok(());
            }
            batch.iter().for_each(|event| see(&event.event.data));
        }
    }
}

impl Drop for UmadbStore {
    fn drop(&mut self) {
        self.clients.clear();
        let _ = self.stop.take().map(|stop| stop.send(()));
        // A server that waits for its clients longer than this is left behind.
        let _ = self.stopped.lock().recv_timeout(Duration::from_secs(5));
    }
}

#[async_trait]
impl Rival for UmadbStore {
    fn drives(&self) -> &'static [Drive] {
        &[Drive::Tasks]
    }

    async fn append(&self, request: Request, caller: usize, _drive: Drive) -> Result<Answer> {
        let (mut events, mut query, mut after) = (Vec::new(), DcbQuery::new(), 0);
        for part in request.parts {
            for data in &part.data {
                let tags = std::iter::once(part.stream.as_str()).chain(part.tag.as_deref());
                events.push(DcbEvent::new().event_type(part.event_type).tags(tags).data(data.to_vec()));
            }
            after = after.max(part.seen.position);
            query = query.item(DcbQueryItem::new().tags([part.stream]));
        }
        let condition = DcbAppendCondition::new(query).after(Some(after));
        let condition = request.conditional.then_some(condition);
        match self.client(caller).append(events, condition, None).await {
            Ok(position) => Ok(Answer::Written(position)),
            Err(DcbError::IntegrityError(_)) => Ok(Answer::Refused),
            Err(error) => Err(error.into()),
        }
    }

    async fn stream(&self, name: &str, caller: usize, see: See<'_>) -> Result<()> {
        self.read(Some(DcbQuery::new().item(DcbQueryItem::new().tags([name]))), caller, see).await
    }

    async fn tag(&self, name: &str, caller: usize, see: See<'_>) -> Result<()> {
        self.stream(name, caller, see).await
    }

    async fn log(&self, see: See<'_>) -> Result<()> {
        self.read(None, 0, see).await
    }

    async fn count(&self) -> Result<u64> {
        Ok(self.client(0).head().await?.unwrap_or(0))
    }
}
