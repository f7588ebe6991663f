//! Answers: a command with a key or a cause that leads to no event leaves one fact in the log, and that
//! stands.

use std::future::IntoFuture as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use annals::contract::{LogPage, LogRead, StreamPage, StreamRead};
use annals::{
    Aggregate, Annals, Answer, Append, Appended, Bytes, CodecError, Context, Decide, Decision, Error, Event,
    EventStore, EventStoreExt, ExecuteError, IdempotencyKey, MemoryStore, Position, Query, Recorded, Refusal,
    Result, State, StoreId, StreamId, StreamInfo, StreamList, emit, no_events, reject,
};
use serde::{Deserialize, Serialize};

use crate::bank::{Account, Bank, Refused, bank, open_with};
use crate::faulty::{Fault, FaultyStore};

const ANSWERS: &str = "annals.answers-account-a1";

async fn on(store: Arc<dyn EventStore>) -> Annals {
    Annals::with_store(store, State::memory()).await.unwrap()
}

async fn answers(annals: &Annals, stream: &str) -> Vec<Recorded<Answer>> {
    let stored = annals.store().stream_events(&StreamId::new(stream).unwrap()).await.unwrap();
    stored.into_iter().flat_map(|stored| Recorded::read(&stored).unwrap()).collect()
}

async fn head(annals: &Annals) -> u64 {
    annals.store().head().await.unwrap().get()
}

async fn balance(annals: &Annals) -> u64 {
    annals.repository::<Account>().load("a1").await.unwrap().state.balance
}

/// The text of the first answer, if that is what the command got.
#[track_caller]
fn refused_before<R: std::fmt::Debug, T: std::fmt::Debug>(answer: Result<T, ExecuteError<R>>) -> String {
    let Err(ExecuteError::RefusedBefore { refusal, .. }) = answer else { panic!("{answer:?}") };
    refusal.text
}

#[tokio::test]
async fn a_refusal_with_a_key_is_one_fact_and_holds_when_the_command_is_repeated() {
    let annals = bank().await;
    open_with(&annals, "a1", 100).await;
    let accounts = annals.repository::<Account>();
    let withdraw = || accounts.execute("a1", Bank::Withdraw(900)).once("k");
    let command = withdraw().by("user:7").process("p-1").trace("00-ab-cd-01").meta("ip", "10.0.0.1");
    let first = command.tag("vip").await.unwrap_err();
    assert_eq!(first.rejection(), Some(&Refused::Insufficient { balance: 100 }));
    accounts.execute("a1", Bank::Deposit(5_000)).await.unwrap();
    let again = withdraw().await.unwrap_err();
    assert!(again.rejection().is_none(), "the aggregate has not decided again");
    assert_eq!(again.to_string(), first.to_string());
    let [one, other] = [&first, &again].map(|error| error.refusal::<Account, Bank>().unwrap());
    assert_eq!(one, other, "both are handled alike");
    assert_eq!((one.code.as_str(), one.text.as_str()), ("insufficient", "only 100 left"));
    assert_eq!((balance(&annals).await, head(&annals).await), (5_100, 4));

    let stored = annals.store().stream_events(&StreamId::new(ANSWERS).unwrap()).await.unwrap().remove(0);
    assert_eq!(stored.idempotency_key().as_ref().unwrap().as_str(), "account-a1/k");
    assert_eq!(stored.event_type(), "annals.command_refused");
    assert_eq!(stored.tags().count(), 0, "it is not one of the events that are looked for by a tag");
    let answer = Recorded::<Answer>::read(&stored).unwrap().remove(0);
    let newest = annals.store().read_log(LogRead::forward(Position::new(2))).await.unwrap().events.remove(0);
    assert_eq!((answer.event.stream.as_str(), answer.event.version.get()), ("account-a1", 2));
    assert_eq!((answer.event.event, &answer.event.refusal), (Some(newest.id()), &Some(one)));
    assert_eq!(answer.metadata().initiator.as_deref(), Some("user:7"));
    assert_eq!(answer.metadata().process.as_deref(), Some("p-1"));
    assert_eq!(answer.metadata().trace.as_deref(), Some("00-ab-cd-01"));
    assert_eq!(answer.metadata().own.get("ip").map(|ip| ip.as_str()), Some("10.0.0.1"));

    accounts.execute("a1", Bank::Withdraw(900)).once("another").await.unwrap();
    assert_eq!(balance(&annals).await, 4_200);
}

#[tokio::test]
async fn without_a_key_a_refusal_and_a_decision_for_nothing_leave_no_fact() {
    let annals = bank().await;
    open_with(&annals, "a1", 100).await;
    let accounts = annals.repository::<Account>();
    accounts.execute("a1", Bank::Withdraw(900)).await.unwrap_err();
    accounts.execute("a1", Bank::Block("fraud")).await.unwrap();
    assert!(accounts.execute("a1", Bank::Block("again")).await.unwrap().events.is_empty());
    assert_eq!(head(&annals).await, 3);
}

/// A lamp that can be switched, so that what has no effect now has one later.
#[derive(Clone, Debug, Default, PartialEq)]
struct Lamp {
    on: bool,
    switched: u32,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(prefix = "lamp")]
enum Switched {
    On,
    Off,
}

/// Whether it is to burn.
#[derive(Clone, Copy)]
struct Burn(bool);

impl Aggregate for Lamp {
    const NAME: &'static str = "lamp";
    type Event = Switched;
    fn initial(_: &str) -> Self {
        Self::default()
    }
    fn evolve(&mut self, event: &Switched) {
        (self.on, self.switched) = (*event == Switched::On, self.switched + 1);
    }
}

impl Decide<Burn> for Lamp {
    type Error = std::convert::Infallible;
    fn decide(&self, Burn(on): &Burn, _: &Context) -> Decision<Self, Self::Error> {
        match (on, self.on) {
            (true, false) => emit(Switched::On),
            (false, true) => emit(Switched::Off),
            _ => no_events(),
        }
    }
}

#[tokio::test]
async fn a_command_that_decided_nothing_decides_nothing_later() {
    let annals = bank().await;
    for cached in [false, true] {
        let lamps = annals.repository::<Lamp>();
        let lamps = if cached { lamps.cache(10) } else { lamps };
        let id = format!("{cached}");
        // Before anything has happened, and after.
        let first = lamps.execute(&id, Burn(false)).once("off").await.unwrap();
        assert_eq!((first.version.get(), first.event, first.duplicate), (0, None, false));
        let on = lamps.execute(&id, Burn(true)).await.unwrap();
        let second = lamps.execute(&id, Burn(true)).once("on").await.unwrap();
        assert_eq!((second.version, second.position, second.event), (on.version, on.position, on.event));
        lamps.execute(&id, Burn(false)).await.unwrap();
        for key in ["off", "on"] {
            let wanted = if key == "on" { &second } else { &first };
            let again = lamps.execute(&id, Burn(key == "on")).once(key).await.unwrap();
            assert!(again.duplicate && again.events.is_empty());
            assert_eq!(
                (again.version, again.position, again.event),
                (wanted.version, wanted.position, wanted.event)
            );
            assert_eq!(again.state, wanted.state, "the state as it was then");
        }
        let now = lamps.load(&id).await.unwrap();
        assert_eq!((now.state, now.version.get()), (Lamp { on: false, switched: 2 }, 2));
        let kept = answers(&annals, &format!("annals.answers-lamp-{id}")).await;
        assert_eq!(kept.iter().map(|kept| kept.event.version.get()).collect::<Vec<_>>(), [0, 1]);
        assert!(kept.iter().all(|kept| kept.event.refusal.is_none()));
    }
}

/// What panics or cannot be written.
#[derive(Clone, Debug)]
enum Odd {
    Panics,
    CodePanics,
    ErrorPanics,
    TooLarge,
    Fine,
}

#[derive(Debug, thiserror::Error)]
enum OddRefused {
    #[error("refused, but its code panics")]
    Code,
    #[error("{}", panics())]
    Text,
}

fn panics() -> &'static str {
    panic!("there are no words")
}

impl Decide<Odd> for Lamp {
    type Error = OddRefused;
    fn decide(&self, command: &Odd, _: &Context) -> Decision<Self, Self::Error> {
        match command {
            Odd::Panics => panic!("at the decision"),
            Odd::CodePanics => reject(OddRefused::Code),
            Odd::ErrorPanics => reject(OddRefused::Text),
            Odd::TooLarge | Odd::Fine => emit(Switched::On),
        }
    }
    fn code(refusal: &OddRefused) -> std::borrow::Cow<'static, str> {
        match refusal {
            OddRefused::Code => panic!("at the code"),
            OddRefused::Text => "of-our-own".into(),
        }
    }
}

#[tokio::test]
async fn what_is_no_answer_uses_no_key() {
    let annals = bank().await;
    let lamps = annals.repository::<Lamp>();
    let missing = lamps.update("l1", Burn(true)).once("k").await.unwrap_err();
    assert!(matches!(missing, ExecuteError::Missing { .. }), "{missing}");
    let ahead = lamps.execute("l1", Burn(true)).once("k").at_version(1).await.unwrap_err();
    assert!(matches!(ahead, ExecuteError::Conflict { .. }), "{ahead}");
    for odd in [Odd::Panics, Odd::CodePanics] {
        let panicked = lamps.execute("l1", odd).once("k").await.unwrap_err();
        assert!(matches!(panicked, ExecuteError::Panicked { .. }), "{panicked:?}");
    }
    let large =
        lamps.execute("l1", Odd::TooLarge).once("k").meta("x", "x".repeat(100_000)).await.unwrap_err();
    assert!(matches!(large, ExecuteError::Store(Error::Invalid(_))), "{large}");
    assert_eq!(head(&annals).await, 0);
    lamps.create("l1", Odd::Fine).once("k").await.unwrap();
    let exists = lamps.create("l1", Burn(true)).once("other").await.unwrap_err();
    assert!(matches!(exists, ExecuteError::Exists { .. }) && !exists.is_refusal(), "{exists}");
    assert_eq!(head(&annals).await, 1, "none of them left anything");
}

#[tokio::test]
async fn a_refusal_whose_text_panics_is_an_answer_with_its_own_code() {
    let annals = bank().await;
    let lamps = annals.repository::<Lamp>();
    for _ in 0..2 {
        let refused = lamps.execute("l1", Odd::ErrorPanics).once("k").await.unwrap_err();
        let Refusal { code, text, .. } = refused.refusal::<Lamp, Odd>().unwrap();
        assert_eq!(code, "of-our-own");
        assert!(text.contains("there are no words"), "{text}");
    }
    assert_eq!(answers(&annals, "annals.answers-lamp-l1").await.len(), 1);
}

#[tokio::test]
async fn a_key_of_another_aggregate_has_no_answer_here() {
    let annals = bank().await;
    let accounts = annals.repository::<Account>();
    for id in ["a1", "a2"] {
        let refused = accounts.execute(id, Bank::Withdraw(1)).once("k").await.unwrap_err();
        assert_eq!(refused.rejection(), Some(&Refused::NotOpen));
    }
    assert_eq!(answers(&annals, ANSWERS).await.len(), 1);
    assert_eq!(answers(&annals, "annals.answers-account-a2").await.len(), 1);
}

#[tokio::test]
async fn the_answers_of_a_name_that_leaves_no_room_are_found_too() {
    let annals = bank().await;
    let id = "x".repeat(1_016);
    let accounts = annals.repository::<Account>();
    accounts.execute(&id, Bank::Withdraw(1)).once("k").await.unwrap_err();
    accounts.execute(&id, Bank::Open("kim")).await.unwrap();
    accounts.execute(&id, Bank::Deposit(9)).await.unwrap();
    assert_eq!(
        refused_before(accounts.execute(&id, Bank::Withdraw(1)).once("k").await),
        "there is no such account"
    );
}

// A store that fails between the decision and its fact.

#[tokio::test]
async fn a_refusal_that_is_not_in_the_log_is_never_given() {
    for (fault, code) in [
        (Fault::Poisoned, "poisoned"),
        (Fault::Unavailable, "unavailable"),
        (Fault::RequestLost, "indeterminate"),
    ] {
        let store = FaultyStore::new([]);
        let annals = on(store.clone()).await;
        open_with(&annals, "a1", 10).await;
        store.plan(fault);
        let accounts = annals.repository::<Account>().retries(0);
        let failed = accounts.execute("a1", Bank::Withdraw(50)).once("k").await.unwrap_err();
        let ExecuteError::Store(error) = &failed else { panic!("{failed:?}") };
        assert!(error.code() == code && !failed.is_refusal(), "{failed}");
        // Nobody was answered, so it may have an effect.
        accounts.execute("a1", Bank::Deposit(90)).await.unwrap();
        accounts.execute("a1", Bank::Withdraw(50)).once("k").await.unwrap();
        assert_eq!(balance(&annals).await, 50);
    }
}

#[tokio::test]
async fn a_fact_of_unknown_outcome_is_sent_again_and_stored_once() {
    for fault in [Fault::AnswerLost, Fault::RequestLost, Fault::Unavailable] {
        let store = FaultyStore::new([]);
        let annals = on(store.clone()).await;
        open_with(&annals, "a1", 10).await;
        store.plan(fault.clone());
        let accounts = annals.repository::<Account>();
        let refused = accounts.execute("a1", Bank::Withdraw(50)).once("k").await.unwrap_err();
        assert_eq!(refused.rejection(), Some(&Refused::Insufficient { balance: 10 }), "{fault:?}");
        assert_eq!(answers(&annals, ANSWERS).await.len(), 1, "{fault:?}");
    }
    // The answer is lost, and so is the process.
    let store = FaultyStore::new([]);
    let annals = on(store.clone()).await;
    open_with(&annals, "a1", 10).await;
    store.plan(Fault::AnswerLost);
    let once = annals.repository::<Account>().retries(0);
    let unknown = once.execute("a1", Bank::Withdraw(50)).once("k").await.unwrap_err();
    assert!(matches!(unknown, ExecuteError::Store(Error::Indeterminate(_))), "{unknown:?}");
    let restarted = on(store.store.clone()).await;
    restarted.repository::<Account>().execute("a1", Bank::Deposit(90)).await.unwrap();
    let again = restarted.repository::<Account>().execute("a1", Bank::Withdraw(50)).once("k").await;
    assert_eq!(refused_before(again), "only 10 left");
}

#[tokio::test]
async fn a_store_that_is_away_while_the_first_answer_is_read_is_asked_again() {
    let store = FaultyStore::new([]);
    let annals = on(store.clone()).await;
    open_with(&annals, "a1", 10).await;
    let accounts = annals.repository::<Account>();
    let withdraw = |amount, key| accounts.execute("a1", Bank::Withdraw(amount)).once(key).into_future();
    withdraw(50, "refused").await.unwrap_err();
    let first = withdraw(5, "done").await.unwrap();
    for key in ["refused", "done"] {
        store.stream_reads_to_fail.store(1, Ordering::SeqCst);
        let again = withdraw(50, key).await;
        if key == "refused" {
            assert_eq!(refused_before(again), "only 10 left");
        } else {
            assert_eq!(again.unwrap().events, first.events);
        }
    }
}

/// A store before whose next append something else is done.
struct Overtaken {
    store: Arc<dyn EventStore>,
    before: Mutex<Option<Work>>,
}

type Work = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Overtaken {
    fn by(store: Arc<dyn EventStore>, work: impl Future<Output = ()> + Send + 'static) -> Arc<Self> {
        Arc::new(Self { store, before: Mutex::new(Some(Box::pin(work))) })
    }
}

#[async_trait::async_trait]
impl EventStore for Overtaken {
    fn id(&self) -> StoreId {
        self.store.id()
    }
    async fn append(&self, append: Append) -> Result<Appended> {
        let before = self.before.lock().unwrap().take();
        if let Some(before) = before {
            before.await;
        }
        self.store.append(append).await
    }
    async fn read_log(&self, read: LogRead) -> Result<LogPage> {
        self.store.read_log(read).await
    }
    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        self.store.read_stream(read).await
    }
    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        self.store.list_streams(list).await
    }
    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        self.store.outcome(key).await
    }
    async fn head(&self) -> Result<Position> {
        self.store.head().await
    }
    async fn wait(&self, after: Position) -> Result<Position> {
        self.store.wait(after).await
    }
}

/// Two systems on one log, the second of which is overtaken by what the first is given to do.
async fn race<F: Future<Output = ()> + Send + 'static>(
    balance: u64,
    first: impl FnOnce(Annals) -> F,
) -> (Annals, Annals) {
    let store = Arc::new(MemoryStore::new());
    let fast = on(store.clone()).await;
    open_with(&fast, "a1", balance).await;
    let slow = on(Overtaken::by(store, first(fast.clone()))).await;
    (fast, slow)
}

#[tokio::test]
async fn a_refusal_that_comes_second_gets_the_events_of_the_first() {
    let (fast, slow) = race(10, async |fast: Annals| {
        let accounts = fast.repository::<Account>();
        accounts.execute("a1", Bank::Deposit(90)).await.unwrap();
        accounts.execute("a1", Bank::Withdraw(50)).once("k").await.unwrap();
    })
    .await;
    let done = slow.repository::<Account>().execute("a1", Bank::Withdraw(50)).once("k").await.unwrap();
    assert!(done.duplicate && done.state.balance == 50 && done.events.len() == 1);
    assert_eq!(balance(&fast).await, 50);
    assert!(answers(&fast, ANSWERS).await.is_empty(), "there is one outcome");
}

#[tokio::test]
async fn events_that_come_second_get_the_refusal_of_the_first() {
    let (fast, slow) = race(100, async |fast: Annals| {
        let accounts = fast.repository::<Account>();
        accounts.execute("a1", Bank::Withdraw(80)).await.unwrap();
        accounts.execute("a1", Bank::Withdraw(50)).once("k").await.unwrap_err();
    })
    .await;
    let second = slow.repository::<Account>().execute("a1", Bank::Withdraw(50)).once("k").await;
    assert_eq!(refused_before(second), "only 20 left");
    assert_eq!((balance(&fast).await, answers(&fast, ANSWERS).await.len()), (20, 1));
}

/// R2: the fact says what the aggregate said of the state that it had when the fact was written.
#[tokio::test]
async fn a_refusal_is_decided_again_if_the_aggregate_changes_before_it_is_written() {
    let (_, slow) = race(10, async |fast: Annals| {
        fast.repository::<Account>().execute("a1", Bank::Deposit(90)).await.unwrap();
    })
    .await;
    let done = slow.repository::<Account>().execute("a1", Bank::Withdraw(50)).once("k").await.unwrap();
    assert!(!done.duplicate && done.state.balance == 50);
    let (fast, slow) = race(10, async |fast: Annals| {
        fast.repository::<Account>().execute("a1", Bank::Deposit(20)).await.unwrap();
    })
    .await;
    let refused = slow.repository::<Account>().execute("a1", Bank::Withdraw(50)).once("k").await.unwrap_err();
    assert_eq!(refused.rejection(), Some(&Refused::Insufficient { balance: 30 }));
    assert_eq!(answers(&fast, ANSWERS).await[0].event.version.get(), 3);
}

/// A standby that is promoted between the decision and its answer does not have the event that the refusal is
/// about.
#[tokio::test]
async fn a_refusal_over_an_event_that_the_log_has_lost_is_never_written() {
    let store = FaultyStore::new([]);
    let fast = on(store.clone()).await;
    open_with(&fast, "a1", 100).await;
    fast.repository::<Account>().execute("a1", Bank::Block("fraud")).await.unwrap();
    let promoted = FaultyStore::brought_back(&store.store, 2).await;
    let (switching, to) = (store.clone(), promoted.store.clone());
    let slow = on(Overtaken::by(store, async move { switching.lead_to(&to) })).await;
    let done = slow.repository::<Account>().execute("a1", Bank::Withdraw(50)).once("k").await.unwrap();
    assert_eq!((done.state.balance, done.state.blocked, done.duplicate), (50, false, false));
    assert!(answers(&fast, ANSWERS).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_execute_one_command_at_once_all_get_one_answer() {
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let systems = futures_of(8, async || on(store.clone()).await).await;
    open_with(&systems[0], "a1", 60).await;
    // Deposits come in between, so that some of them would be refused and some not.
    let tasks: Vec<_> = systems
        .iter()
        .enumerate()
        .map(|(index, annals)| {
            let accounts = annals.repository::<Account>().retries(1_000);
            tokio::spawn(async move {
                if index % 2 == 0 {
                    accounts.execute("a1", Bank::Deposit(10)).await.unwrap();
                }
                let answer = accounts.execute("a1", Bank::Withdraw(80)).once("k").await;
                answer.map(|done| done.version).map_err(|refused| refused.to_string())
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.unwrap());
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
    let withdrawn = u64::from(all[0].is_ok());
    assert_eq!(answers(&systems[0], ANSWERS).await.len() as u64, 1 - withdrawn);
    assert_eq!(balance(&systems[0]).await, 100 - withdrawn * 80);
}

async fn futures_of<T>(count: usize, make: impl AsyncFn() -> T) -> Vec<T> {
    let mut made = Vec::new();
    for _ in 0..count {
        made.push(make().await);
    }
    made
}

// Names that are reserved for Annals.

/// An aggregate under a name that is kept.
#[derive(Clone, Debug, Default)]
struct Usurper;

/// An event under a type that is kept.
#[derive(Clone, Debug)]
struct Forged;

impl Event for Forged {
    const TYPES: &'static [&'static str] = &["annals.command_refused"];
    fn event_type(&self) -> &'static str {
        Self::TYPES[0]
    }
    fn encode(&self) -> Result<Bytes, CodecError> {
        Ok(Bytes::from_static(b"{}"))
    }
    fn decode(_: &str, _: u16, _: &[u8]) -> Result<Self, CodecError> {
        Ok(Self)
    }
}

impl Aggregate for Usurper {
    const NAME: &'static str = "annals.answers";
    type Event = Switched;
    fn initial(_: &str) -> Self {
        Self
    }
    fn evolve(&mut self, _: &Switched) {}
}

impl Decide<Burn> for Usurper {
    type Error = std::convert::Infallible;
    fn decide(&self, _: &Burn, _: &Context) -> Decision<Self, Self::Error> {
        emit(Switched::On)
    }
}

/// An aggregate with an acceptable name and that event.
#[derive(Clone, Debug, Default)]
struct Forger;

impl Aggregate for Forger {
    const NAME: &'static str = "forger";
    type Event = Forged;
    fn initial(_: &str) -> Self {
        Self
    }
    fn evolve(&mut self, _: &Forged) {}
}

impl Decide<Burn> for Forger {
    type Error = std::convert::Infallible;
    fn decide(&self, _: &Burn, _: &Context) -> Decision<Self, Self::Error> {
        emit(Forged)
    }
}

#[tokio::test]
async fn no_aggregate_writes_under_a_name_that_is_kept_for_annals() {
    let annals = bank().await;
    let usurped = annals.repository::<Usurper>().execute("account-a1", Burn(true)).await.unwrap_err();
    assert!(usurped.to_string().contains("which is reserved for"), "{usurped}");
    assert!(matches!(usurped, ExecuteError::Store(Error::Invalid(_))), "{usurped:?}");
    let forged = annals.repository::<Forger>().execute("f1", Burn(true)).await.unwrap_err();
    assert!(matches!(forged, ExecuteError::Unwritable { .. }), "{forged:?}");
    assert!(forged.to_string().contains("which is reserved for"), "{forged}");
    assert!(annals.store().log_events(Query::all()).await.unwrap().is_empty());
}
