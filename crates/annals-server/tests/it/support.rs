//! A running server, a client for it, and a store that fails on demand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use annals_core::{
    Append, Appended, Conflict, Error, EventId, EventStore, IdempotencyKey, Location, LogPage, LogRead,
    MemoryStore, Position, Result, StoreId, StreamInfo, StreamList, StreamPage, StreamRead, Violated,
    Violation, Witness,
};
use annals_server::Server;
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot};

/// Long enough for any machine; only a hang takes as long.
pub const HANG: Duration = Duration::from_secs(60);

/// A server on a port of its own.
pub struct Running {
    pub address: SocketAddr,
    pub store: Arc<dyn EventStore>,
    stop: Arc<Mutex<Option<oneshot::Sender<()>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Over an empty store in memory.
    pub fn start() -> Self {
        Self::over(Arc::new(MemoryStore::new()))
    }

    /// Over this store.
    pub fn over(store: Arc<dyn EventStore>) -> Self {
        Self::with(store, |server| server)
    }

    /// Over this store, furnished.
    pub fn with(store: Arc<dyn EventStore>, furnish: impl FnOnce(Server) -> Server) -> Self {
        let server = furnish(Server::new(Arc::clone(&store)));
        let (stop, stopped) = oneshot::channel::<()>();
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build();
            runtime.unwrap().block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                server.serve(listener, async { drop(stopped.await) }).await.unwrap();
            });
        });
        let address = receiver.recv_timeout(HANG).unwrap();
        Self { address, store, stop: Arc::new(Mutex::new(Some(stop))), thread: Some(thread) }
    }

    /// Tells the server to stop, and does not wait for it.
    pub fn begin_to_stop(&self) {
        drop(self.stop.lock().unwrap().take());
    }

    /// Waits until the server has stopped.
    pub fn wait(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send(ureq::http::Request::get(self.url(path)).body(String::new()).unwrap())
    }

    /// Gets a page as a browser does.
    pub fn browse(&self, path: &str) -> Answer {
        let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8";
        self.send(
            ureq::http::Request::get(self.url(path)).header("accept", accept).body(String::new()).unwrap(),
        )
    }

    /// Posts JSON.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request =
            ureq::http::Request::post(self.url(path)).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.to_owned()).unwrap())
    }

    pub fn send(&self, request: ureq::http::Request<String>) -> Answer {
        self.try_send(request).unwrap()
    }

    pub fn try_send(&self, request: ureq::http::Request<String>) -> std::result::Result<Answer, ureq::Error> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(HANG))
            .allow_non_standard_methods(true);
        let agent: ureq::Agent = config.build().into();
        let mut response = agent.run(request)?;
        let bytes = response.body_mut().with_config().limit(100 << 20).read_to_vec()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Answer { status: response.status().as_u16(), headers: response.headers().clone(), text })
    }

    /// Position of the newest event of the store, which not every token may see.
    pub fn store_head(&self) -> u64 {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.store.head()).unwrap().get()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends bytes as they are and returns all that comes back until the server closes.
    pub fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = self.connect();
        socket.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    pub fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(HANG)).unwrap();
        socket
    }

    /// Opens a live stream.
    pub fn follow(&self, path: &str, headers: &str) -> Messages {
        let mut socket = self.connect();
        write!(socket, "GET {path} HTTP/1.1\r\nhost: annals\r\n{headers}\r\n").unwrap();
        let mut reader = BufReader::new(socket);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        Messages { reader, text: String::new() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.begin_to_stop();
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap();
        }
    }
}

/// What the server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The problem document: its status, code and field.
    pub fn problem(&self) -> (u16, String, Option<String>) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status);
        for member in ["type", "title", "detail"] {
            assert!(json[member].is_string(), "{json}");
        }
        let text = |member: &str| json[member].as_str().map(str::to_owned);
        (self.status, text("code").unwrap(), text("field"))
    }
}

/// The messages of a live stream.
pub struct Messages {
    reader: BufReader<TcpStream>,
    text: String,
}

/// One message: its kind if it has one, the position in its id, and its event if it has one.
#[derive(Debug, PartialEq)]
pub struct Message {
    pub kind: Option<String>,
    pub id: Option<u64>,
    pub event: Option<Value>,
}

impl Messages {
    /// The next message; nothing when the stream has ended as it should.
    pub fn next(&mut self) -> Option<Message> {
        while !self.text.contains("\n\n") {
            let mut line = String::new();
            self.reader.read_line(&mut line).unwrap();
            let length =
                usize::from_str_radix(line.trim(), 16).unwrap_or_else(|_| panic!("no chunk: {line:?}"));
            let mut chunk = vec![0; length + 2];
            self.reader.read_exact(&mut chunk).unwrap();
            if length == 0 {
                return None;
            }
            self.text.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
        }
        let (message, rest) = self.text.split_once("\n\n").unwrap();
        let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name));
        let id = field("id: ").map(|id| id.split_once('@').unwrap().0.parse().unwrap());
        let event = field("data: ").map(|data| serde_json::from_str(data).unwrap());
        let message = Message { kind: field("event: ").map(str::to_owned), id, event };
        self.text = rest.to_owned();
        Some(message)
    }

    /// The next event and the id of its message.
    pub fn event(&mut self) -> (u64, Value) {
        loop {
            let message = self.next().expect("the stream has ended");
            if let Some(event) = message.event {
                return (message.id.unwrap(), event);
            }
        }
    }
}

/// How a [`Faulty`] store fails.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Fault {
    None,
    Poisoned,
    Unavailable,
    Unusable,
    NoStore,
    Closed,
    Unreadable,
    Internal,
    Indeterminate,
    Damaged,
    Panic,
    /// The log lost an event since the append came in.
    Lost,
}

/// A store that fails on demand, and whose appends can be held.
pub struct Faulty {
    store: MemoryStore,
    fault: AtomicU8,
    /// An append takes a permit before it is executed.
    pub gate: Semaphore,
    /// Gets one permit from every append that has begun.
    pub begun: Semaphore,
}

impl Faulty {
    pub fn new() -> Arc<Self> {
        let (gate, begun) = (Semaphore::new(Semaphore::MAX_PERMITS / 2), Semaphore::new(0));
        Arc::new(Self { store: MemoryStore::new(), fault: AtomicU8::new(Fault::None as u8), gate, begun })
    }

    /// With appends that wait at the gate.
    pub fn held() -> Arc<Self> {
        let this = Self::new();
        this.gate.forget_permits(usize::MAX);
        this
    }

    pub fn set(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
    }

    /// Lets those who wait for an event read the log.
    pub fn wake(&self) -> Result<()> {
        let stream = annals_core::StreamId::new("a").unwrap();
        let event = annals_core::NewEvent::new("woken", "{}").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let append = Append::to(stream, annals_core::Expected::Any, [event]);
        runtime.block_on(self.store.append(append)).map(drop)
    }

    fn check(&self, writing: bool) -> Result<()> {
        let fault = self.fault.load(Ordering::SeqCst);
        match fault {
            _ if fault == Fault::Poisoned as u8 && writing => Err(Error::Poisoned("sync failed".into())),
            _ if fault == Fault::Indeterminate as u8 && writing => {
                Err(Error::Indeterminate("cut off".into()))
            }
            _ if fault == Fault::Unavailable as u8 => Err(Error::Unavailable("disk is full".into())),
            _ if fault == Fault::Unusable as u8 => Err(Error::Unusable("the role may not do this".into())),
            _ if fault == Fault::NoStore as u8 => Err(Error::NoStore("there are no tables".into())),
            _ if fault == Fault::Closed as u8 => Err(Error::Closed),
            _ if fault == Fault::Unreadable as u8 => {
                Err(Error::Unreadable("a column of another type".into()))
            }
            _ if fault == Fault::Internal as u8 => {
                Err(Error::Internal("a page that ends where it begins".into()))
            }
            _ if fault == Fault::Damaged as u8 => {
                let location = Location { file: "1.log".into(), offset: 7, position: Some(Position::FIRST) };
                Err(Error::Damaged { location, cause: "checksum".into() })
            }
            _ if fault == Fault::Panic as u8 => panic!("planted"),
            _ if fault == Fault::Lost as u8 && writing => {
                let seen = Witness { position: Position::new(2), id: EventId::from_name(b"lost") };
                let violated = Violated::History { seen };
                let violation =
                    Violation { condition: 0, violated, unseen: Vec::new(), unseen_complete: false };
                Err(Error::Conflict(Box::new(Conflict { violations: vec![violation] })))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl EventStore for Faulty {
    fn id(&self) -> StoreId {
        self.store.id()
    }
    async fn append(&self, append: Append) -> Result<Appended> {
        self.check(true)?;
        self.begun.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        self.store.append(append).await
    }
    async fn read_log(&self, read: LogRead) -> Result<LogPage> {
        self.check(false)?;
        self.store.read_log(read).await
    }
    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        self.check(false)?;
        self.store.read_stream(read).await
    }
    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        self.check(false)?;
        self.store.list_streams(list).await
    }
    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        self.check(false)?;
        self.store.outcome(key).await
    }
    async fn head(&self) -> Result<Position> {
        self.check(false)?;
        self.store.head().await
    }
    async fn wait(&self, after: Position) -> Result<Position> {
        self.store.wait(after).await
    }
}

/// A store whose newest events can be lost, as by a failover to a standby that did not have them.
pub struct Lossy {
    id: StoreId,
    log: Mutex<Arc<MemoryStore>>,
    /// Where [`EventStore::wait`] believes the end of the log to be at least.
    believed: std::sync::atomic::AtomicU64,
    /// How often the log was read.
    pub reads: std::sync::atomic::AtomicU64,
    /// The number of reads after which the log is replaced, and by what.
    next: Mutex<Option<(u64, Arc<MemoryStore>)>>,
}

impl Lossy {
    /// With these events.
    pub fn with(names: &[&str]) -> Arc<Self> {
        let this = Self {
            id: StoreId::generate(),
            log: Mutex::new(Arc::new(log_of(names))),
            believed: Default::default(),
            reads: Default::default(),
            next: Mutex::default(),
        };
        Arc::new(this)
    }

    /// Replaces the log by one with these events. Events with the same names and the same before them are the
    /// same.
    pub fn replace(&self, names: &[&str]) {
        *self.log.lock().unwrap() = Arc::new(log_of(names));
    }

    /// Replaces the log after this many more reads of it.
    pub fn replace_after(&self, reads: u64, names: &[&str]) {
        *self.next.lock().unwrap() = Some((reads, Arc::new(log_of(names))));
    }

    /// Lets the store believe that the log reaches at least this position.
    pub fn believe(&self, position: u64) {
        self.believed.store(position, Ordering::SeqCst);
    }

    fn log(&self) -> Arc<MemoryStore> {
        self.log.lock().unwrap().clone()
    }

    fn log_of_this_read(&self) -> Arc<MemoryStore> {
        let mut next = self.next.lock().unwrap();
        if let Some((reads, log)) = next.take() {
            match reads.checked_sub(1) {
                Some(left) => *next = Some((left, log)),
                None => *self.log.lock().unwrap() = log,
            }
        }
        self.log()
    }
}

fn log_of(names: &[&str]) -> MemoryStore {
    let log = MemoryStore::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for name in names {
        let id = annals_core::EventId::from_name(name.as_bytes());
        let kind = if name.starts_with("meant") { "meant" } else { "t" };
        let event = annals_core::NewEvent::new(kind, format!("\"{name}\"")).unwrap().with_id(id);
        let stream = annals_core::StreamId::new("a-1").unwrap();
        runtime.block_on(log.append(Append::to(stream, annals_core::Expected::Any, [event]))).unwrap();
    }
    log
}

#[async_trait::async_trait]
impl EventStore for Lossy {
    fn id(&self) -> StoreId {
        self.id
    }
    async fn append(&self, append: Append) -> Result<Appended> {
        self.log().append(append).await
    }
    async fn read_log(&self, read: LogRead) -> Result<LogPage> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.log_of_this_read().read_log(read).await
    }
    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        self.log_of_this_read().read_stream(read).await
    }
    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        self.log().list_streams(list).await
    }
    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        self.log().outcome(key).await
    }
    async fn head(&self) -> Result<Position> {
        self.log().head().await
    }
    async fn wait(&self, after: Position) -> Result<Position> {
        let believed = Position::new(self.believed.load(Ordering::SeqCst));
        if believed > after {
            return Ok(believed);
        }
        loop {
            let log = self.log();
            // The log may be replaced meanwhile.
            if let Ok(head) = tokio::time::timeout(Duration::from_millis(20), log.wait(after)).await {
                return head;
            }
        }
    }
}
