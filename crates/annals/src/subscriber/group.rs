//! A group: the streams are divided into shares, and the processes on one database divide the shares.
//!
//! - S1  Each share is as a subscriber of its own: a checkpoint, and a lock without which nothing of it is handled. So the
//!       events of a stream come in order, whoever handles them.
//! - S2  Each process that takes part has a seat, which is a lock. Once a second it counts the seats that are taken, gives
//!       back shares that are more than its part, and takes free ones up to that. A share that is given back is finished
//!       first.
//!
//! Which share a stream belongs to never changes for the same number of shares.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_core::StreamId;
use annals_sql::Fault;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::run::Delivery;
use crate::progress::Progress;
use crate::state::{Held, StateDatabase};
use crate::tasks::Stop;

/// How often it is looked who takes part.
const PULSE: Duration = Duration::from_secs(1);

/// One part of the streams, of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    index: usize,
    of: usize,
}

impl Share {
    pub fn all(of: usize) -> impl Iterator<Item = Self> {
        (0..of).map(move |index| Self { index, of })
    }

    /// Whether this stream is of the share: by the FNV-1a hash of its name.
    pub fn has(self, stream: &StreamId) -> bool {
        let hash = stream.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // The low bits of this hash alone are not good enough to divide by.
        (hash ^ (hash >> 32)) % self.of as u64 == self.index as u64
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.index + 1, self.of)
    }
}

/// The part of one process in a group.
pub(super) struct Group {
    name: String,
    database: StateDatabase,
    shares: Vec<Arc<Delivery>>,
    /// Of all shares that this process has.
    pub progress: Arc<Progress>,
    seat: Option<Held>,
    active: BTreeMap<usize, Active>,
}

/// A share that is being handled.
struct Active {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Group {
    pub fn new(name: &str, database: StateDatabase, shares: Vec<Arc<Delivery>>) -> Self {
        let least = shares.iter().map(|share| share.progress.standing().position).min();
        let progress = Arc::new(Progress::from(least.unwrap_or_default()));
        Self { name: name.to_owned(), database, shares, progress, seat: None, active: BTreeMap::new() }
    }

    pub async fn run(mut self, mut stop: Stop) {
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.asked() => break,
                _ = pulse.tick() => {
                    if let Err(fault) = self.divide().await {
                        tracing::debug!(group = self.name, %fault, "it cannot be seen who takes part; it tries again");
                    }
                }
                () = self.moved() => {}
            }
            self.tell();
        }
        for active in self.active.values() {
            active.stop.send_replace(true);
        }
        while let Some((_, active)) = self.active.pop_first() {
            active.ended().await;
        }
        self.tell();
        self.progress.stopped();
    }

    /// Gives back or takes shares, so that this process has its part.
    async fn divide(&mut self) -> Result<(), Fault> {
        self.active.retain(|_, active| !active.task.is_finished());
        let names = |kind: &str| -> Vec<String> {
            (0..self.shares.len()).map(|index| format!("{kind} {index} of {}", self.name)).collect()
        };
        let (seats, locks, guard) = (names("seat"), names("share"), self.database.guard());
        if self.seat.as_ref().is_none_or(Held::is_lost) {
            self.seat = None;
            for seat in &seats {
                self.seat = guard.try_hold(seat.clone()).await;
                if self.seat.is_some() {
                    break;
                }
            }
        }
        let members = guard.count(seats).await?;
        let part = match (&self.seat, members) {
            (Some(_), 1..) => self.shares.len().div_ceil(members),
            _ => 0,
        };
        while self.active.len() > part
            && let Some((_, surplus)) = self.active.pop_last()
        {
            surplus.stop.send_replace(true);
            surplus.ended().await;
        }
        for (index, lock) in locks.into_iter().enumerate() {
            if self.active.len() >= part {
                break;
            }
            if !self.active.contains_key(&index)
                && let Some(held) = guard.try_hold(lock).await
            {
                self.active.insert(index, Active::start(self.shares[index].clone(), held));
            }
        }
        Ok(())
    }

    /// Waits until a share that this process has has come further.
    async fn moved(&self) {
        let watched = self.active.keys().map(|index| {
            let mut standing = self.shares[*index].progress.watch();
            Box::pin(async move { drop(standing.changed().await) })
        });
        let watched: Vec<_> = watched.collect();
        if watched.is_empty() {
            return std::future::pending().await;
        }
        first(watched).await;
    }

    /// Says how far the shares are that this process has.
    fn tell(&self) {
        let standings: Vec<_> =
            self.active.keys().map(|index| self.shares[*index].progress.standing()).collect();
        let Some(least) = standings.iter().map(|standing| standing.position).min() else {
            return self.progress.has_no_share();
        };
        self.progress.shares(least, standings);
    }
}

/// Waits for the first of these.
async fn first<F: Future<Output = ()> + Unpin>(mut futures: Vec<F>) {
    std::future::poll_fn(|context| {
        let ready = futures.iter_mut().any(|future| std::pin::Pin::new(future).poll(context).is_ready());
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

impl Active {
    fn start(share: Arc<Delivery>, mut held: Held) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut stop_asked = Stop::from(stopped);
        let task = tokio::spawn(async move {
            share.progress.takes_over();
            tokio::select! {
                () = async {
                    while !stop_asked.is_asked() {
                        share.deliver_held(&mut stop_asked).await;
                    }
                } => {}
                // Handlers that are at work are dropped.
                () = held.lost() => {
                    tracing::warn!(subscriber = %share.name, "another process may go on with this share");
                }
            }
        });
        Self { stop, task }
    }

    async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a share of a group ended badly");
        }
    }
}
