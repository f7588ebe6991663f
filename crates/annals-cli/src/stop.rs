//! Signals that stop a command: SIGINT (Ctrl-C) and SIGTERM.
//!
//! - S1  A command that was stopped before its end exits with 128 plus the number of the signal, as a shell
//!   reports a command that was killed by a signal. Finished work is kept; the message describes how to
//!   resume.
//! - S2  A second signal ends the command at once. A command that may block on a pipe or an unresponsive
//!   database also ends ten seconds after the first signal.
//!
//! A command without these handlers is killed by the signal, which shells report in the same way.

use std::future::Future;
use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

/// How long a command that may block has to finish its running work after the first signal.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The exit code of a stopped command, before the number of the signal is added.
const SIGNALLED: u8 = 128;

/// The number of the last signal to stop the process; 0 if there was none.
static ASKED: AtomicU8 = AtomicU8::new(0);

/// The error of a command that was stopped by a signal.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Stopped(pub(crate) String);

/// Whether a signal to stop was received.
pub(crate) fn is_asked() -> bool {
    ASKED.load(Ordering::SeqCst) != 0
}

/// Returns [`Stopped`] if a signal to stop was received; `resume` is the hint how to continue.
pub(crate) fn check(resume: &str) -> Result<(), Stopped> {
    if is_asked() { Err(stopped(resume)) } else { Ok(()) }
}

/// The error of a stopped command, with the hint how to continue.
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

/// The exit code as a number.
pub(crate) fn code() -> u8 {
    SIGNALLED + ASKED.load(Ordering::SeqCst).max(2)
}

/// Installs the signal handlers; the future completes at the first signal.
pub(crate) fn asked() -> io::Result<impl Future<Output = ()>> {
    let mut signals = Signals::listen()?;
    Ok(async move { signals.next().await })
}

/// Runs work on a separate thread; the work calls [`check`]. Returns an error without waiting for it at a
/// second signal, or when `patience` has passed since the first (S2).
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

/// The received signals.
pub(crate) struct Signals(mpsc::UnboundedReceiver<()>);

impl Signals {
    /// Installs the handlers: from now on a signal does not kill the process.
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

    /// Installs the handler: from now on a signal does not kill the process.
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

    /// Makes the next signal exit the process: for a stopped command whose end may take long (S2).
    pub(crate) fn end_at_next(mut self) {
        tokio::spawn(async move {
            self.next().await;
            std::process::exit(code().into());
        });
    }
}
