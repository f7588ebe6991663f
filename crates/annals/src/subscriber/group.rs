//! A group: the streams are divided into shares, and the processes on one database divide the shares among
//! them.
//!
//! - S1  Each share is like a subscriber of its own: it has a checkpoint, and a lease that is needed to
//!       handle its events. So the events of a stream are handled in order, by any process.
//! - S2  Each process of the group has a seat, which is a lease. Once a second it counts the taken seats,
//!       releases shares beyond its part, and acquires free ones up to it. The events in progress of a share
//!       are finished before it is released.
//!
//! For the same number of shares, a stream always belongs to the same share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_state::{Fault, HeldLease, SqlState};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::checkpoint::Checkpoints;
use super::run::SubscriberRunner;
use crate::HandlerError;
use crate::progress::Progress;
use crate::shared::Shared;
use crate::stop::Stop;
use crate::tasks::after_panic;

/// Interval at which the members are counted.
const PULSE: Duration = Duration::from_secs(1);

/// One part of the streams: `index`, of `of` parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    index: usize,
    of: usize,
}

impl Share {
    pub fn all(of: usize) -> impl Iterator<Item = Self> {
        (0..of).map(move |index| Self { index, of })
    }

    /// Whether this stream belongs to the share, by the FNV-1a hash of its name.
    pub fn has(self, stream: &str) -> bool {
        Self::index_of(stream, self.of) == self.index
    }

    /// The index of a stream's share among `of` shares.
    pub fn index_of(stream: &str, of: usize) -> usize {
        let hash = stream.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // The low bits of this hash alone are not good enough to divide by.
        ((hash ^ (hash >> 32)) % of.max(1) as u64) as usize
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.index + 1, self.of)
    }
}

/// A group as one process sees it.
pub(super) struct Group {
    name: String,
    database: SqlState,
    checkpoints: Checkpoints,
    /// Whether the work is known to be divided into these shares.
    is_divided: bool,
    shares: Vec<Arc<SubscriberRunner>>,
    shared: Arc<Shared>,
    /// The progress of all shares that this process has.
    pub progress: Arc<Progress>,
    seat: Option<HeldLease>,
    active: BTreeMap<usize, Active>,
}

/// A share that is being handled.
struct Active {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Group {
    pub fn new(
        database: SqlState,
        checkpoints: Checkpoints,
        is_divided: bool,
        shares: Vec<Arc<SubscriberRunner>>,
        shared: Arc<Shared>,
    ) -> Self {
        let name = checkpoints.subscriber.clone();
        let least = shares.iter().map(|share| share.progress.standing().position).min();
        let progress = Arc::new(Progress::from(least.unwrap_or_default()));
        let (seat, active) = (None, BTreeMap::new());
        Self { name, database, checkpoints, is_divided, shares, shared, progress, seat, active }
    }

    /// Runs until the system stops.
    pub async fn run(mut self, mut stop: Stop) {
        loop {
            let work = async {
                self.take_part(&mut stop).await;
                Ok(())
            };
            let Err(panic) = crate::failure::caught_later(work).await else { return };
            after_panic(&self.name, panic, &self.progress, &self.shared, &mut stop).await;
        }
    }

    async fn take_part(&mut self, stop: &mut Stop) {
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.asked() => break,
                _ = pulse.tick() => self.look().await,
                () = self.moved() => self.report(),
            }
        }
        for active in self.active.values() {
            active.stop.send_replace(true);
        }
        while let Some((_, active)) = self.active.pop_first() {
            active.ended().await;
        }
        self.report();
    }

    /// Determines how many shares this process should have, and acquires or releases them.
    async fn look(&mut self) {
        if !self.is_divided {
            let shares: Vec<_> = self.shares.iter().filter_map(|delivery| delivery.share).collect();
            if let Err(error) = self.checkpoints.divide(&*self.shared.store, &shares).await {
                let error = HandlerError::from(error).into_text();
                tracing::warn!(
                    group = self.name,
                    error,
                    "cannot divide the streams into partitions; retrying"
                );
                self.progress.failed(error, None, self.shared.now());
                return;
            }
            self.is_divided = true;
            self.progress.worked();
        }
        let notice = match self.divide().await {
            Err(fault) => {
                tracing::debug!(group = self.name, %fault, "cannot determine the members of the group; retrying");
                Some(format!("no partition: cannot determine the members of the group: {fault}"))
            }
            Ok(_) if self.seat.is_none() => Some(format!(
                "no partition: the group has as many members as partitions, {}",
                self.shares.len()
            )),
            Ok(part) => Some(format!("waiting for {part} partitions, which other processes hold")),
        };
        self.report();
        if self.active.is_empty() {
            self.progress.notes(notice);
        }
    }

    /// Releases or acquires shares, so that this process has its part. Returns the number of shares in the
    /// part.
    async fn divide(&mut self) -> Result<usize, Fault> {
        self.active.retain(|_, active| !active.task.is_finished());
        let names = |kind: &str| -> Vec<String> {
            (0..self.shares.len()).map(|index| format!("{kind} {index} of {}", self.name)).collect()
        };
        let (seats, locks, leases) = (names("seat"), names("share"), self.database.leases());
        if self.seat.as_ref().is_none_or(HeldLease::is_lost) {
            self.seat = None;
            for seat in &seats {
                self.seat = leases.try_hold(seat.clone()).await;
                if self.seat.is_some() {
                    break;
                }
            }
        }
        let members = leases.count(seats).await?;
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
                && let Some(held) = leases.try_hold(lock).await
            {
                self.active.insert(index, Active::start(self.shares[index].clone(), held));
            }
        }
        Ok(part)
    }

    /// Waits for progress of a share that this process has.
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

    /// Reports the progress of the shares that this process has.
    fn report(&self) {
        let standings: Vec<_> =
            self.active.keys().map(|index| self.shares[*index].progress.standing()).collect();
        // The refusals of a released share happened in this process too.
        let refused = self.shares.iter().map(|share| share.progress.standing().refused).sum();
        self.progress.refused_in_all(refused);
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
    fn start(share: Arc<SubscriberRunner>, mut held: HeldLease) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut stop_asked = Stop::from(stopped);
        let lease = held.lease().clone();
        let task = tokio::spawn(async move {
            share.progress.takes_over();
            while !stop_asked.is_asked() && !held.is_lost() {
                let work = async {
                    tokio::select! {
                        () = share.deliver_held(&mut stop_asked, Some(&lease)) => {}
                        // Running handlers are dropped.
                        () = held.lost() => {
                            tracing::warn!(subscriber = %share.name, "another process may have this share now");
                        }
                    }
                    Ok(())
                };
                if let Err(panic) = crate::failure::caught_later(work).await {
                    after_panic(&share.name, panic, &share.progress, &share.shared, &mut stop_asked).await;
                }
            }
        });
        Self { stop, task }
    }

    async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a share of a group panicked");
        }
    }
}
