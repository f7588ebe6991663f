//! A connection that is watched for whether its client takes what it is sent.
//!
//! - F1  A client that takes less than [`RATE_MIN`] while something waits to be sent is cut off when the patience of
//!   the server is over, and earlier while others wait for the room that it holds. What it held is free then; a live
//!   stream resumes by `Last-Event-ID`.
//! - F2  A request of a connection is not answered before the answer to the one before it has left: who sends many
//!   requests and reads no answer holds one or two of them.

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

/// Bytes a second that a client must take at least.
const RATE_MIN: u64 = 1 << 10;
/// Bytes that the kernel keeps for a client. Left to itself it keeps megabytes for one that does not read, and frees
/// them in steps that take longer than our patience.
const KERNEL_BYTES: u32 = 128 << 10;
/// How many times within the patience it is looked whether others wait for room.
const LOOKS: u32 = 12;

/// The socket of a connection.
pub(crate) struct Watched {
    socket: TcpStream,
    room: Arc<Room>,
    patience: Duration,
    /// While something waits to be sent: since when, how much was taken since, and when to look next.
    blocked: Option<Blocked>,
    /// Becomes true when everything has left.
    sent: watch::Sender<bool>,
}

struct Blocked {
    since: Instant,
    taken: u64,
    /// Since it was looked last.
    recently: u64,
    look: Pin<Box<Sleep>>,
}

impl Watched {
    /// Watches a socket whose client takes what it is sent, or is cut off after `patience`.
    ///
    /// # Errors
    /// If the socket is broken already.
    pub(crate) fn new(socket: TcpStream, room: Arc<Room>, patience: Duration) -> io::Result<Self> {
        // Small answers go out at once rather than when more has gathered.
        socket.set_nodelay(true)?;
        let socket = socket.into_std()?;
        TcpSocket::from_std_stream(socket.try_clone()?).set_send_buffer_size(KERNEL_BYTES)?;
        let socket = TcpStream::from_std(socket)?;
        Ok(Self { socket, room, patience, blocked: None, sent: watch::Sender::new(true) })
    }

    /// Whether everything has left; becomes false when [`Answers::begin`] is called.
    pub(crate) fn answers(&self) -> Answers {
        Answers(self.sent.clone())
    }

    /// Counts what a write came to; a client that takes too little is an error.
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
                let why = "the client takes nothing of what it is sent";
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

/// Whether a client that took this many bytes in this time takes too little.
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

    /// Called when nothing is left to be written.
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

/// Whether the answers of a connection have left.
#[derive(Clone)]
pub(crate) struct Answers(watch::Sender<bool>);

impl Answers {
    /// Waits until the answer before has left.
    pub(crate) async fn sent(&self) {
        // The sender is this one, so it is not gone.
        let _ = self.0.subscribe().wait_for(|sent| *sent).await;
    }

    /// An answer is about to be written.
    pub(crate) fn begin(&self) {
        self.0.send_replace(false);
    }
}
