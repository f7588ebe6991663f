//! A proxy for a server: an address that can lead elsewhere, go silent, or lose its connections.
//!
//! It simulates a load balancer, a firewall or a broken network that affects connections without closing
//! them: a silent proxy keeps every connection open, reads what is sent, and forwards nothing. It is
//! independent of the protocol.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A proxy. It ends with the process.
pub struct Proxy {
    url: String,
    state: Arc<State>,
}

struct State {
    /// The target of new connections.
    to: Mutex<String>,
    /// Nothing that clients send is forwarded.
    swallows_requests: AtomicBool,
    /// Nothing that the server sends is forwarded.
    swallows_answers: AtomicBool,
    /// The number of accepted connections, and how many of them, the first ones, are silent.
    accepted: AtomicUsize,
    silent: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

/// `HOST:PORT` of a URL.
fn place_of(url: &str) -> &str {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let after_user = after_scheme.rsplit_once('@').map_or(after_scheme, |(_, rest)| rest);
    after_user.split(['/', '?']).next().unwrap_or(after_user)
}

impl Proxy {
    /// A proxy for the server of this URL.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let here = listener.local_addr().expect("it has an address").to_string();
        let state = Arc::new(State {
            to: Mutex::new(place_of(url).to_owned()),
            swallows_requests: AtomicBool::new(false),
            swallows_answers: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            silent: AtomicUsize::new(0),
            open: Mutex::default(),
        });
        let accepting = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accepting.accept(client);
            }
        });
        Self { url: url.replacen(place_of(url), &here, 1), state }
    }

    /// The URL of the server, through this proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Directs new connections to the server of this URL.
    pub fn lead_to(&self, url: &str) {
        *lock(&self.state.to) = place_of(url).to_owned();
    }

    /// Forwards nothing from now on, on open connections and on new ones, which are still accepted.
    pub fn fall_silent(&self) {
        self.state.swallows_requests.store(true, Ordering::SeqCst);
        self.lose_answers();
    }

    /// Forwards nothing from now on, on the open connections; new ones work.
    pub fn silence_open(&self) {
        self.state.silent.store(self.state.accepted.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Forwards only what clients send from now on; clients get no response.
    pub fn lose_answers(&self) {
        self.state.swallows_answers.store(true, Ordering::SeqCst);
    }

    /// New connections work again. Open connections, on which data may have been lost, are cut.
    pub fn recover(&self) {
        self.state.swallows_requests.store(false, Ordering::SeqCst);
        self.state.swallows_answers.store(false, Ordering::SeqCst);
        self.cut();
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        for stream in lock(&self.state.open).drain(..) {
            // The connection may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn accept(self: &Arc<Self>, client: TcpStream) {
        let number = self.accepted.fetch_add(1, Ordering::SeqCst);
        let to = lock(&self.to).clone();
        // If the server is not running, the client is dropped, as without a proxy.
        let Ok(server) = TcpStream::connect(to) else { return };
        let pair = client.try_clone().and_then(|client| Ok((client, server.try_clone()?)));
        let Ok((from_client, from_server)) = pair else { return };
        lock(&self.open).extend([client.try_clone(), server.try_clone()].into_iter().flatten());
        for (from, to, is_request) in [(from_client, server, true), (from_server, client, false)] {
            let state = self.clone();
            std::thread::spawn(move || state.pass(from, to, is_request, number));
        }
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream, is_request: bool, number: usize) {
        let mut bytes = vec![0; 64 << 10];
        let swallows = if is_request { &self.swallows_requests } else { &self.swallows_answers };
        loop {
            let read = match from.read(&mut bytes) {
                Ok(0) | Err(_) => break,
                Ok(read) => read,
            };
            let is_silent = swallows.load(Ordering::SeqCst) || number < self.silent.load(Ordering::SeqCst);
            if !is_silent && to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}
