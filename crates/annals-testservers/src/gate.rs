//! An address at which connections can be delayed before they reach the server.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "it fails the test that uses it")]

use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// An address whose connections are forwarded to a server. It ends with the runtime of the test.
pub struct Gate {
    /// The URL of the server, through this gate.
    pub url: String,
    state: Arc<State>,
}

struct State {
    to: String,
    /// The number given to new connections; those with numbers up to `open_to` are forwarded.
    turn: Mutex<u64>,
    open_to: watch::Sender<u64>,
    /// The number of waiting connections.
    waiting: watch::Sender<usize>,
}

impl Gate {
    /// A gate for the server of this URL; it is open.
    pub async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap().to_string();
        let after_user = url.rsplit_once('@').unwrap().1;
        let place = after_user.split('/').next().unwrap().to_owned();
        let state = Arc::new(State {
            to: place.clone(),
            turn: Mutex::new(0),
            open_to: watch::Sender::new(0),
            waiting: watch::Sender::new(0),
        });
        let url = url.replacen(&place, &here, 1);
        let accepting = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().let_through(client));
            }
        });
        Self { url, state }
    }

    /// Delays new connections from now on.
    pub fn shut(&self) {
        *self.state.turn.lock().unwrap() += 1;
    }

    /// Waits until this many connections wait.
    pub async fn until_waiting(&self, count: usize) {
        self.state.waiting.subscribe().wait_for(|waiting| *waiting >= count).await.unwrap();
    }

    /// Forwards new connections from now on; those that wait continue to wait.
    pub fn open_for_new(&self) {
        *self.state.turn.lock().unwrap() = 0;
    }

    /// Forwards the waiting connections.
    pub fn open(&self) {
        self.state.open_to.send_replace(u64::MAX);
    }
}

impl State {
    async fn let_through(self: Arc<Self>, mut client: TcpStream) {
        let turn = *self.turn.lock().unwrap();
        let mut open_to = self.open_to.subscribe();
        if turn > *open_to.borrow() {
            self.waiting.send_modify(|waiting| *waiting += 1);
        }
        if open_to.wait_for(|open_to| *open_to >= turn).await.is_err() {
            return;
        }
        let Ok(mut server) = TcpStream::connect(&self.to).await else { return };
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}
