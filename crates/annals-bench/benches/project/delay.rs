//! A proxy that makes each round trip a millisecond longer: what a client sends arrives that much later, in
//! order.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const LONGER: Duration = Duration::from_millis(1);

/// An address before a server. It ends with the process.
pub struct Delay(String);

impl Delay {
    /// One before the server of this URL.
    pub fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap().to_string();
        let after_user = url.rsplit_once('@').unwrap().1;
        let server = after_user.split(['/', '?']).next().unwrap().to_owned();
        let delayed = url.replacen(&server, &here, 1);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(&server).unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                pass(client.try_clone().unwrap(), server.try_clone().unwrap(), LONGER);
                pass(server, client, Duration::ZERO);
            }
        });
        Self(delayed)
    }

    pub fn url(&self) -> &str {
        &self.0
    }
}

/// Passes on what comes, that much later than it came.
fn pass(mut from: TcpStream, mut to: TcpStream, later: Duration) {
    let (sent, arrives) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        for (at, bytes) in arrives {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    std::thread::spawn(move || {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            if sent.send((Instant::now() + later, bytes[..read].to_vec())).is_err() {
                break;
            }
        }
    });
}
