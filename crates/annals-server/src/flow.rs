//! A socket that disconnects a client which does not read its responses.
//!
//! - F1  A client that reads less than [`RATE_MIN`] while bytes wait to be sent is disconnected after the
//!   server's patience, and earlier while others wait for room. The room that it held is free then; a live
//!   stream resumes by `Last-Event-ID`.
//! - F2  The next request of a connection is handled after the previous response has been sent: a client that
//!   sends many requests and reads no response makes the server hold one or two responses.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use crate::room::Room;

/// The minimum rate at which a client must read, in bytes per second.
const RATE_MIN: u64 = 1 << 10;
/// The size of the kernel's send buffer. By default it grows to megabytes for a client that does not read,
/// and is drained in steps that take longer than our patience.
const KERNEL_BYTES: u32 = 128 << 10;
/// The number of checks within the patience whether others wait for room.
const LOOKS: u32 = 12;

/// The socket of a connection.
pub(crate) struct Watched {
    socket: TcpStream,
    room: Arc<Room>,
    patience: Duration,
    /// The progress of the client while bytes wait to be sent.
    blocked: Option<Blocked>,
    /// Becomes true when everything has been sent.
    sent: watch::Sender<bool>,
}

struct Blocked {
    since: Instant,
    taken: u64,
    /// Bytes taken since the last check.
    recently: u64,
    look: Pin<Box<Sleep>>,
}

impl Watched {
    /// Wraps a socket whose client is disconnected after `patience` if it does not read.
    ///
    /// # Errors
    /// If the socket is already broken.
    pub(crate) fn new(socket: TcpStream, room: Arc<Room>, patience: Duration) -> io::Result<Self> {
        // Small responses are sent immediately instead of being collected.
        socket.set_nodelay(true)?;
        let socket = socket.into_std()?;
        TcpSocket::from_std_stream(socket.try_clone()?).set_send_buffer_size(KERNEL_BYTES)?;
        let socket = TcpStream::from_std(socket)?;
        Ok(Self { socket, room, patience, blocked: None, sent: watch::Sender::new(true) })
    }

    /// The state of the responses on this connection.
    pub(crate) fn answers(&self) -> Answers {
        Answers(self.sent.clone())
    }

    /// Counts the bytes of a write. Fails if the client reads too slowly.
    fn wrote(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(count)) => {
                if let Some(blocked) = &mut self.blocked {
                    blocked.taken += count as u64;
                    blocked.recently += count as u64;
                }
                return Poll::Ready(Ok(count));
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {}
        }
        let pause = self.patience / LOOKS;
        let blocked = self.blocked.get_or_insert_with(|| Blocked {
            since: Instant::now(),
            taken: 0,
            recently: 0,
            look: Box::pin(tokio::time::sleep(pause)),
        });
        while blocked.look.as_mut().poll(context).is_ready() {
            let lasted = blocked.since.elapsed();
            let over = lasted >= self.patience;
            let too_little = over && is_slow(blocked.taken, lasted);
            if too_little || (self.room.is_short() && is_slow(blocked.recently, pause)) {
                let why = "the client reads the response too slowly";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
            if over {
                (blocked.since, blocked.taken) = (Instant::now(), 0);
            }
            blocked.recently = 0;
            blocked.look.as_mut().reset(Instant::now() + pause);
        }
        Poll::Pending
    }
}

/// Whether a client that took this many bytes in this time reads too slowly.
fn is_slow(taken: u64, time: Duration) -> bool {
    u128::from(taken) * 1_000 < u128::from(RATE_MIN) * time.as_millis()
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.wrote(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, bytes);
        self.wrote(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// hyper calls this when it has no more bytes to write.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(Pin::new(&mut self.socket).poll_flush(context))?;
        self.blocked = None;
        self.sent.send_if_modified(|sent| !std::mem::replace(sent, true));
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

/// Whether the responses of a connection have been sent.
#[derive(Clone)]
pub(crate) struct Answers(watch::Sender<bool>);

impl Answers {
    /// Waits until the previous response has been sent.
    pub(crate) async fn sent(&self) {
        // `self` is the sender, so this does not fail.
        let _ = self.0.subscribe().wait_for(|sent| *sent).await;
    }

    /// Marks that a response is about to be written.
    pub(crate) fn begin(&self) {
        self.0.send_replace(false);
    }
}
