//! Subscribers: handlers to which events are delivered. Their guarantees (U1 to U4) are documented at
//! [`SubscriberBuilder`].
//!
//! The files: `delivery` (the argument of a handler), `checkpoint` (the stored progress), `run` (the task),
//! `group` (shares the work among processes), `division` (changes the number of shares).

mod checkpoint;
mod delivery;
mod division;
mod group;
mod run;

use std::pin::Pin;
use std::sync::Arc;

use annals_core::{Backoff, Event, Invalid, RecordedEvent, Result};

use checkpoint::{CheckpointError, Checkpoints};
pub use delivery::Delivery;
use group::{Group, Share};
use run::SubscriberRunner;

use crate::codec::{self, Parts};
use crate::progress::{Kind, Progress};
use crate::shared::Shared;
use crate::tasks::{Known, Registry, Tasks};
use crate::{HandlerError, Recorded};

/// The longest name of a subscriber, which is a key of a table.
const NAME_BYTES_MAX: usize = 1_000;
/// Most shares of a group.
const SHARES_MAX: usize = 1_000;

/// A subscriber before its start: handlers to which each event is delivered at least once.
///
/// - U1  A subscriber is durable by its name: events that are written while it is down are delivered when it
///       starts.
/// - U2  The checkpoint moves after the handlers have succeeded. After a crash between the two the event is
///   delivered again; a command that it led to is still executed only once, and returns its first outcome
///   ([`Delivery::repository`]).
/// - U3  The events of one stream are delivered in order, one after the other. An event that fails is retried
///   until it succeeds, and blocks the later events of its stream. A handler that ends in the refusal of a
///   command has not failed: the refusal is a result, and the event is done.
/// - U4  Of several processes on one database, one at a time is active under a name; when it ends, another
///   continues at the checkpoint. A process that loses its connection cancels its running handlers.
///   [Partitions](Self::partitions) divide the streams among several.
#[doc(alias("event handler", "consumer", "persistent subscription", "catch-up subscription", "reactor"))]
#[must_use = "a subscriber handles no events until it is started"]
pub struct SubscriberBuilder {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
    started: Registry<Progress>,
    name: String,
    handlers: Vec<Box<dyn Handler>>,
    concurrency: usize,
    backoff: Backoff,
    from_now: bool,
    shares: usize,
    /// How many handlers hold a handle on the system.
    holders: usize,
}

impl Known for Progress {
    fn kind(&self) -> Kind {
        Kind::Subscriber
    }

    fn progress(&self) -> &Progress {
        self
    }

    fn shows_it(&self) -> bool {
        true
    }
}

/// The refusals in which a handler ended, or why it failed. A refusal may also be returned as the failure.
type Handled<'a> = Pin<Box<dyn Future<Output = Result<Vec<HandlerError>, HandlerError>> + Send + 'a>>;

/// Code for one type of event.
trait Handler: Send + Sync {
    /// The stored types of the events that it handles.
    fn types(&self) -> Vec<&'static str>;
    /// Whether it handles events of this stored type.
    fn takes(&self, event_type: &str) -> bool;
    /// Refuses a table of upcasters that cannot work.
    fn check(&self) -> Result<(), Invalid>;
    fn handle(&self, stored: &RecordedEvent, handling: Delivery) -> Handled<'_>;
}

struct TypedHandler<E, F> {
    handle: F,
    event: std::marker::PhantomData<fn(E)>,
}

impl<E, F, Fut> Handler for TypedHandler<E, F>
where
    E: Event,
    F: Fn(Recorded<E>, Delivery) -> Fut + Send + Sync,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    fn types(&self) -> Vec<&'static str> {
        codec::types::<E>()
    }

    fn takes(&self, event_type: &str) -> bool {
        codec::takes::<E>(event_type)
    }

    fn check(&self) -> Result<(), Invalid> {
        codec::check::<E>()
    }

    fn handle(&self, stored: &RecordedEvent, handling: Delivery) -> Handled<'_> {
        match codec::recorded(stored) {
            Ok(Parts::One(event)) => {
                let handled = (self.handle)(event, handling);
                Box::pin(async move { handled.await.map(|()| Vec::new()) })
            }
            Ok(Parts::Several(parts)) => Box::pin(self.handle_parts(parts, handling)),
            Err(unreadable) => Box::pin(std::future::ready(Err(unreadable.into()))),
        }
    }
}

impl<E, F, Fut> TypedHandler<E, F>
where
    E: Event,
    F: Fn(Recorded<E>, Delivery) -> Fut + Send + Sync,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    /// Handles the parts of one event in order. It stops at a part that fails, and all parts are handled when
    /// the event is retried. A part that ends in a refusal is done.
    async fn handle_parts(
        &self,
        parts: Vec<Recorded<E>>,
        handling: Delivery,
    ) -> Result<Vec<HandlerError>, HandlerError> {
        let mut refusals = Vec::new();
        for event in parts {
            let handling = handling.of_part(event.part);
            match (self.handle)(event, handling).await {
                Err(failure) if failure.is_refusal() => refusals.push(failure),
                handled => handled?,
            }
        }
        Ok(refusals)
    }
}

impl SubscriberBuilder {
    pub(crate) fn new(
        shared: Arc<Shared>,
        tasks: Arc<Tasks>,
        started: Registry<Progress>,
        name: String,
    ) -> Self {
        let backoff = crate::tasks::BACKOFF;
        Self {
            shared,
            tasks,
            started,
            name,
            handlers: Vec::new(),
            concurrency: 1,
            backoff,
            from_now: false,
            shares: 1,
            holders: 0,
        }
    }

    /// Adds a handler for events of one type. With several handlers, each gets the events of its own type; an
    /// event of several handlers is passed to all of them, even if one fails, and to all again when it is
    /// delivered again.
    ///
    /// An event that an [`Upcaster`](crate::Upcaster) turns into several is handled part by part, in order
    /// ([`Recorded::part`]). It is one event for the checkpoint: if the handler of a part fails, the later
    /// parts wait, and all parts are handled again, including those that succeeded; each part has its own
    /// commands, which are executed once.
    ///
    /// ```
    /// # use annals::{Annals, Event};
    /// # #[derive(Event, serde::Serialize, serde::Deserialize, Clone)]
    /// # #[event(prefix = "credit")]
    /// # enum CreditEvent { Reserved { order: String } }
    /// # async fn start(annals: &Annals) -> annals::Result<()> {
    /// annals
    ///     .subscribe("order-on-credit")
    ///     .on::<CreditEvent, _>(async |event, context| {
    ///         let CreditEvent::Reserved { order } = event.event;
    ///         println!("approve {order}, attempt {}", context.attempt());
    ///         Ok(())
    ///     })
    ///     .start()
    ///     .await
    /// # }
    /// ```
    ///
    /// Values that a handler uses are cloned for each event, because the future that it returns may outlive
    /// the call:
    ///
    /// ```
    /// # use annals::{Annals, Event, Recorded};
    /// # #[derive(Event, serde::Serialize, serde::Deserialize, Clone)]
    /// # #[event(prefix = "credit")]
    /// # enum CreditEvent { Reserved { order: String } }
    /// # #[derive(Clone)]
    /// # struct Mailer;
    /// # impl Mailer { async fn send(&self, _: &str) -> std::io::Result<()> { Ok(()) } }
    /// # async fn start(annals: &Annals, mailer: Mailer) -> annals::Result<()> {
    /// annals
    ///     .subscribe("mail")
    ///     .on(move |event: Recorded<CreditEvent>, _| {
    ///         let mailer = mailer.clone();
    ///         async move {
    ///             let CreditEvent::Reserved { order } = &event.event;
    ///             mailer.send(order).await?;
    ///             Ok(())
    ///         }
    ///     })
    ///     .start()
    ///     .await
    /// # }
    /// ```
    ///
    /// A handler that executes commands gets its repositories from [`Delivery`]. If it ends with the refusal
    /// of a command, by `?` or in an error of its own that has the refusal as a source
    /// ([`HandlerError::is_refusal`]), the event is done: the refusal is logged, counted in the
    /// [`Status`](crate::Status), and stored in the log as an [`Answer`](crate::Answer). Every other error is
    /// retried: a conflict, an outage, and an aggregate that does not exist yet. A handler that must wait for
    /// something first checks for it, with `load`, and fails until it exists: a command that was refused
    /// remains refused for this event.
    ///
    /// A handler may also hold a clone of [`Annals`](crate::Annals), directly or in a service: that does not
    /// keep the system alive, unless it is in an `Arc`. A command through it has no cause and no key: after a
    /// crash it is executed again.
    pub fn on<E, Fut>(mut self, handle: impl Fn(Recorded<E>, Delivery) -> Fut + Send + Sync + 'static) -> Self
    where
        E: Event,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.holders += usize::from(align_of_val(&handle) >= crate::handles::ALIGN);
        self.handlers.push(Box::new(TypedHandler { handle, event: std::marker::PhantomData }));
        self
    }

    /// Handles events of up to this many streams at once; 1 by default.
    pub fn concurrency(mut self, streams_max: usize) -> Self {
        self.concurrency = streams_max.max(1);
        self
    }

    /// The pause before a failed event is retried; from 50 milliseconds up to 30 seconds by default.
    pub fn retry(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Divides the work among the processes on one database: the streams are divided into this many
    /// partitions, each process handles an equal number of them, and the events of a stream are handled in
    /// order. When a process joins or leaves, partitions are reassigned within some seconds. There are at
    /// most as many active processes as partitions; 1 by default.
    ///
    /// All processes must use the same number. To change it, stop all of them and start them with another
    /// number: finished events are not delivered again. On an embedded log, which has one process, this has
    /// no effect.
    ///
    /// ```
    /// # use annals::{Annals, Event, HandlerError, Recorded};
    /// # #[derive(Event, serde::Serialize, serde::Deserialize, Clone)]
    /// # #[event(prefix = "order")]
    /// # enum OrderEvent { Placed { member: String } }
    /// # async fn send(event: Recorded<OrderEvent>) -> Result<(), HandlerError> { Ok(()) }
    /// # async fn start(annals: &Annals) -> annals::Result<()> {
    /// annals.subscribe("mail").partitions(16).on(|event, _| send(event)).start().await
    /// # }
    /// ```
    pub fn partitions(mut self, partitions: usize) -> Self {
        self.shares = partitions.clamp(1, SHARES_MAX);
        self
    }

    /// At its very first start, begins with the events that are written from then on; without this, with the
    /// first event of the log. If the log later loses the event at which it started and more than 15 before
    /// it (a backup was restored), some older events may be delivered: at most about as many as were lost.
    pub fn from_now(mut self) -> Self {
        self.from_now = true;
        self
    }

    /// Starts it: it handles events from its checkpoint on, and then live ones, until the system stops.
    ///
    /// # Errors
    /// If it has no handler or no valid name, is started already, the system was shut down, or the state
    /// beside the log cannot be reached. A checkpoint that exists but is unreadable is not an error here: the
    /// subscriber does not run, and its status reports why.
    pub async fn start(self) -> Result<()> {
        let Self { shared, tasks, started, name, handlers, concurrency, backoff, from_now, shares, holders } =
            self;
        let mut types: Vec<&str> = handlers.iter().flat_map(|handler| handler.types()).collect();
        types.sort_unstable();
        types.dedup();
        if name.is_empty() || name.contains('/') || name.len() > NAME_BYTES_MAX {
            let problem =
                format!("`{name}` is empty, contains `/`, or is longer than {NAME_BYTES_MAX} bytes");
            return Err(Invalid::new("subscriber", problem).into());
        }
        if types.is_empty() {
            return Err(Invalid::new("subscriber", format!("`{name}` has no handler")).into());
        }
        let query = codec::query(&types)?;
        handlers.iter().try_for_each(|handler| handler.check())?;
        tasks.refuse_after_shutdown()?;
        let place = started.reserve("subscriber", &name)?;
        let checkpoints = Checkpoints::new(&shared.state, &name, from_now);
        let handlers: Arc<[_]> = handlers.into();
        let holders = Arc::new(tasks.handles.holders(holders));
        let delivery = |progress, checkpoints, share| SubscriberRunner {
            name: name.as_str().into(),
            handlers: handlers.clone(),
            _holders: holders.clone(),
            shared: shared.clone(),
            progress,
            checkpoints,
            concurrency,
            backoff,
            query: query.clone(),
            share,
        };
        let (database, shares) = match shared.state.database() {
            Some(database) if shares > 1 => (Some(database), Share::all(shares).collect()),
            _ => (None, Vec::new()),
        };
        let is_divided = readable(checkpoints.divide(&*shared.store, &shares).await)?.is_some();
        if let Some(database) = database {
            let mut deliveries = Vec::with_capacity(shares.len());
            for share in shares {
                let own = checkpoints.of_share(share);
                let position = readable(own.begin(&*shared.store).await)?.unwrap_or_default();
                deliveries.push(Arc::new(delivery(Arc::new(Progress::from(position)), own, Some(share))));
            }
            let group = Group::new(database.clone(), checkpoints, is_divided, deliveries, shared.clone());
            let progress = group.progress.clone();
            tasks.spawn(progress.clone(), group.run(tasks.stop()))?;
            place.fill(progress);
            return Ok(());
        }
        let position = readable(checkpoints.begin(&*shared.store).await)?.unwrap_or_default();
        let progress = Arc::new(Progress::from(position));
        let delivery = delivery(progress.clone(), checkpoints, None);
        tasks.spawn(progress.clone(), delivery.run(tasks.stop()))?;
        place.fill(progress);
        Ok(())
    }
}

/// `None` if a row of this subscriber cannot be read; its status reports that once it runs.
fn readable<T>(checkpoint: Result<T, CheckpointError>) -> Result<Option<T>> {
    match checkpoint {
        Ok(read) => Ok(Some(read)),
        Err(CheckpointError::Failed(error)) => Err(error),
        Err(
            CheckpointError::Unreadable { .. } | CheckpointError::Gone(_) | CheckpointError::LeaseLost(_),
        ) => Ok(None),
    }
}
