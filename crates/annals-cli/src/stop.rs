//! Signals that ask a command to end: SIGINT (Ctrl-C) and SIGTERM.
//!
//! - S1  A command that was stopped before it was done exits with 128 and the number of the signal, as a shell reports a
//!   command that a signal has ended. What had been done by then is done; the message says how to resume.
//! - S2  A second signal ends the command at once. One that may wait for a pipe or a database that does not answer is also
//!   ended when it does not end by itself within ten seconds.
//!
//! A command that does not listen here is ended by the system, which shells report in the same way.

use std::future::Future;
use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

/// How long a command that may wait for others has to end what is under way when it was asked to stop.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The exit code of SIGINT without the number of the signal.
const SIGNALLED: u8 = 128;

/// The number of the signal that asked the process to stop; 0 if none did.
static ASKED: AtomicU8 = AtomicU8::new(0);

/// Why a command ended before it was done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Stopped(pub(crate) String);

/// Whether a signal has asked the process to stop.
pub(crate) fn is_asked() -> bool {
    ASKED.load(Ordering::SeqCst) != 0
}

/// Returns [`Stopped`] if a signal has asked the process to stop; `resume` says how to continue.
pub(crate) fn check(resume: &str) -> Result<(), Stopped> {
    if is_asked() { Err(stopped(resume)) } else { Ok(()) }
}

/// Why the command ended, and how to continue.
pub(crate) fn stopped(resume: &str) -> Stopped {
    Stopped(format!("asked to stop by {}; {resume}", name()))
}

fn name() -> &'static str {
    match ASKED.load(Ordering::SeqCst) {
        15 => "SIGTERM",
        _ => "SIGINT",
    }
}

/// The exit code of a command that was stopped (S1).
pub(crate) fn exit_code() -> ExitCode {
    ExitCode::from(code())
}

/// The same as a number.
pub(crate) fn code() -> u8 {
    SIGNALLED + ASKED.load(Ordering::SeqCst).max(2)
}

/// Listens for signals from here on; the future completes when the first one comes.
pub(crate) fn asked() -> io::Result<impl Future<Output = ()>> {
    let mut signals = Signals::listen()?;
    Ok(async move { signals.next().await })
}

/// Executes work on a thread of its own, which looks at [`check`]; ends without it when a second signal comes, or this time
/// has passed since the first (S2).
pub(crate) async fn stoppable<T: Send + 'static>(
    resume: &str,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let mut signals = Signals::listen()?;
    let mut working = tokio::task::spawn_blocking(work);
    tokio::select! {
        biased;
        done = &mut working => return Ok(done?),
        () = signals.next() => {}
    }
    tokio::select! {
        biased;
        done = &mut working => Ok(done?),
        () = signals.next() => Err(stopped(resume).into()),
        () = tokio::time::sleep(patience) => Err(stopped(resume).into()),
    }
}

/// The signals that come.
pub(crate) struct Signals(mpsc::UnboundedReceiver<()>);

impl Signals {
    /// Listens from here on: a signal no longer ends the process by itself.
    #[cfg(unix)]
    pub(crate) fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (sender, signals) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let number = tokio::select! {
                    _ = interrupt.recv() => 2,
                    _ = terminate.recv() => 15,
                };
                ASKED.store(number, Ordering::SeqCst);
                if sender.send(()).is_err() {
                    return;
                }
            }
        });
        Ok(Self(signals))
    }

    /// Listens from here on: a signal no longer ends the process by itself.
    #[cfg(not(unix))]
    pub(crate) fn listen() -> io::Result<Self> {
        let (sender, signals) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                ASKED.store(2, Ordering::SeqCst);
                if sender.send(()).is_err() {
                    return;
                }
            }
        });
        Ok(Self(signals))
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// From here on the next signal ends the process: for a command that was asked to stop and whose end may take long (S2).
    pub(crate) fn end_at_next(mut self) {
        tokio::spawn(async move {
            self.next().await;
            std::process::exit(code().into());
        });
    }
}
