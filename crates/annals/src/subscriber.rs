//! Subscribers: code that is told what has happened, each event at least once.
//!
//! - U1  A subscriber is durable by its name: what is written while it is down is delivered when it starts.
//! - U2  The checkpoint moves after the handlers have succeeded. Whoever ends between the two is told again; a
//!   command that the event led to is carried out once all the same (`Handling::execute`).
//! - U3  The events of one stream come in order, one after the other. An event that fails is tried again until
//!   it works, and holds back what comes after it in its stream.
//! - U4  Of several processes on one database, one at a time is active under a name; when it ends, another goes on from
//!   the checkpoint. One that loses its connection drops what it is at. A group shares the streams among several.
//!
//! The files: `handling` (what a handler sees), `checkpoint` (how far it has come), `run` (the task), `group` (the work is
//! shared).

mod checkpoint;
mod group;
mod handling;
mod run;

use std::pin::Pin;
use std::sync::Arc;

use annals_core::{Backoff, Event, EventType, Invalid, RecordedEvent, Result};

use checkpoint::Checkpoints;
use group::{Group, Share};
pub use handling::Handling;
use run::Delivery;

use crate::progress::Progress;
use crate::shared::Shared;
use crate::state::{Opened, unavailable};
use crate::tasks::Tasks;
use crate::{Failure, Recorded};

/// How long the name of a subscriber may be, which is a key of a table.
const NAME_BYTES_MAX: usize = 1_000;
/// Most shares of a group.
const SHARES_MAX: usize = 1_000;

/// A subscriber that is to be started.
#[must_use = "a subscriber hears nothing until it is started"]
pub struct Subscribe {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
    name: String,
    handlers: Vec<Box<dyn Handler>>,
    concurrency: usize,
    backoff: Backoff,
    from_now: bool,
    shares: usize,
}

type Handled = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Code for one type of event.
trait Handler: Send + Sync {
    fn types(&self) -> &'static [&'static str];
    fn handle(&self, stored: RecordedEvent, handling: Handling) -> Handled;
}

struct TypedHandler<E, F> {
    handle: F,
    event: std::marker::PhantomData<fn(E)>,
}

impl<E, F, Fut> Handler for TypedHandler<E, F>
where
    E: Event,
    F: Fn(Recorded<E>, Handling) -> Fut + Send + Sync,
    Fut: Future<Output = Result<(), Failure>> + Send + 'static,
{
    fn types(&self) -> &'static [&'static str] {
        E::TYPES
    }

    fn handle(&self, stored: RecordedEvent, handling: Handling) -> Handled {
        match Recorded::read(stored) {
            Ok(event) => Box::pin((self.handle)(event, handling)),
            Err(unreadable) => Box::pin(std::future::ready(Err(unreadable.into()))),
        }
    }
}

impl Subscribe {
    pub(crate) fn new(shared: Arc<Shared>, tasks: Arc<Tasks>, name: String) -> Self {
        let backoff = crate::tasks::BACKOFF;
        Self {
            shared,
            tasks,
            name,
            handlers: Vec::new(),
            concurrency: 1,
            backoff,
            from_now: false,
            shares: 1,
        }
    }

    /// What to do with events of one type. With several of these, each is told of its own type; of an event that
    /// several take, all are told, also if one fails, and all again when it is delivered again.
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
    pub fn on<E, Fut>(mut self, handle: impl Fn(Recorded<E>, Handling) -> Fut + Send + Sync + 'static) -> Self
    where
        E: Event,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.handlers.push(Box::new(TypedHandler { handle, event: std::marker::PhantomData }));
        self
    }

    /// Handles events of up to this many streams at once; 1 by default.
    pub fn concurrency(mut self, streams_max: usize) -> Self {
        self.concurrency = streams_max.max(1);
        self
    }

    /// How long to wait before an event that failed is tried again; from 50 milliseconds up to 30 seconds by
    /// default.
    pub fn retry(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Shares the work among the processes on one database: the streams are divided into this many shares, and each process
    /// does as many of them as the others, in the order of each stream. When a process comes or goes, shares change hands
    /// within some seconds. At most as many processes take part as there are shares; 1 by default.
    ///
    /// Give all processes the same number. To change it, stop all of them: what the slowest share has not finished is told
    /// again. Over an embedded log, which has one process, this changes nothing.
    ///
    /// ```
    /// # use annals::{Annals, Event, Failure, Recorded};
    /// # #[derive(Event, serde::Serialize, serde::Deserialize, Clone)]
    /// # #[event(prefix = "order")]
    /// # enum OrderEvent { Placed { member: String } }
    /// # async fn send(event: Recorded<OrderEvent>) -> Result<(), Failure> { Ok(()) }
    /// # async fn start(annals: &Annals) -> annals::Result<()> {
    /// annals.subscribe("mail").group(16).on(|event, _| send(event)).start().await
    /// # }
    /// ```
    pub fn group(mut self, shares: usize) -> Self {
        self.shares = shares.clamp(1, SHARES_MAX);
        self
    }

    /// At its very first start, begins with what is written from then on. Without this, with the first event of
    /// all.
    pub fn from_now(mut self) -> Self {
        self.from_now = true;
        self
    }

    /// Starts it: where it left off, and then live, until the system stops.
    ///
    /// # Errors
    /// If it has no handler or no name, is started already, or its checkpoint cannot be read.
    pub async fn start(self) -> Result<()> {
        let Self { shared, tasks, name, handlers, concurrency, backoff, from_now, shares } = self;
        let types: Vec<&str> = handlers.iter().flat_map(|handler| handler.types()).copied().collect();
        if name.is_empty() || name.contains('/') || name.len() > NAME_BYTES_MAX {
            let problem =
                format!("`{name}` is empty, contains `/`, or is longer than {NAME_BYTES_MAX} bytes");
            return Err(Invalid::new("subscriber", problem).into());
        }
        if types.is_empty() {
            return Err(Invalid::new("subscriber", format!("`{name}` has no handler")).into());
        }
        for event_type in &types {
            EventType::new(*event_type)?;
        }
        let query = crate::projection::query_of(&types)?;
        let place = tasks.subscribers.reserve("subscriber", &name)?;
        let checkpoints = Checkpoints::new(&shared.state, &name);
        let handlers: Arc<[_]> = handlers.into();
        let delivery = |progress, checkpoints, share| Delivery {
            name: name.as_str().into(),
            handlers: handlers.clone(),
            shared: shared.clone(),
            progress,
            checkpoints,
            concurrency,
            backoff,
            query: query.clone(),
            share,
        };
        if let (Opened::Database(database), true) = (&shared.state, shares > 1) {
            let shares: Vec<_> = Share::all(shares).collect();
            checkpoints.divide(&shares).await.map_err(unavailable)?;
            let mut deliveries = Vec::with_capacity(shares.len());
            for share in shares {
                let own = checkpoints.of_share(share);
                let progress = Progress::from(own.begin(&*shared.store, from_now).await?);
                deliveries.push(Arc::new(delivery(Arc::new(progress), own, Some(share))));
            }
            let group = Group::new(&name, database.clone(), deliveries);
            place.fill(group.progress.clone());
            tasks.spawn(group.run(tasks.stop()));
            return Ok(());
        }
        checkpoints.divide(&[]).await.map_err(unavailable)?;
        let after = checkpoints.begin(&*shared.store, from_now).await?;
        let progress = Arc::new(Progress::from(after));
        place.fill(progress.clone());
        tasks.spawn(delivery(progress, checkpoints, None).run(after, tasks.stop()));
        Ok(())
    }
}
