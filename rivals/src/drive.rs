//! Runs several callers at once, each a thread or a task, and takes the time from the first start to the last
//! end.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use tokio::runtime::Handle;
use tokio::sync::Barrier;

use crate::rival::Drive;

/// What each caller came to, in the order of their numbers, and the time that all of them took.
pub struct Together<T> {
    /// One for each caller.
    pub each: Vec<T>,
    /// From the first start to the last end.
    pub elapsed: Duration,
}

/// Runs this many callers, all from the same moment on; each is given its number.
///
/// # Errors
/// The first caller's that failed.
pub fn together<T, F, W>(runtime: &Handle, drive: Drive, callers: usize, work: F) -> Result<Together<T>>
where
    T: Send + 'static,
    F: Fn(usize) -> W,
    W: Future<Output = Result<T>> + Send + 'static,
{
    let barrier = Arc::new(Barrier::new(callers));
    let timed = (0..callers).map(|caller| {
        let (barrier, work) = (barrier.clone(), work(caller));
        async move {
            barrier.wait().await;
            let started = Instant::now();
            let done = work.await;
            (done, started, Instant::now())
        }
    });
    let ended: Vec<_> = match drive {
        Drive::Tasks => {
            let tasks: Vec<_> = timed.map(|work| runtime.spawn(work)).collect();
            tasks.into_iter().map(|task| Ok(runtime.block_on(task)?)).collect::<Result<_>>()?
        }
        Drive::Threads => {
            let spawn = |work| {
                let runtime = runtime.clone();
                std::thread::spawn(move || runtime.block_on(work))
            };
            let threads: Vec<_> = timed.map(spawn).collect();
            let join =
                |thread: std::thread::JoinHandle<_>| thread.join().map_err(|_| anyhow!("a caller panicked"));
            threads.into_iter().map(join).collect::<Result<_>>()?
        }
    };
    let first = ended.iter().map(|(_, started, _)| *started).min();
    let last = ended.iter().map(|(_, _, ended)| *ended).max();
    let elapsed = first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first);
    let each = ended.into_iter().map(|(done, _, _)| done).collect::<Result<_>>()?;
    Ok(Together { each, elapsed })
}
