//! Answers on databases: what was refused under a key stands in every process, in a group, and where a log is
//! moved to.

use std::time::Duration;

use annals::{
    Annals, Answer, Context, Decide, Decision, Event, ExecuteError, Query, QueryItem, Recorded, State,
    Tenants, emit, reject,
};
use annals::{EventStoreExt as _, EventType};

use crate::databases::counter::{Counter, CounterEvent, Increase, QUICKLY, Sums, increase, sum};
use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    a_refusal_holds_in_every_process,
    many_processes_give_one_answer_to_one_command,
    a_refusal_in_a_group_ends_the_delivery,
    a_refusal_moves_with_the_log_of_a_tenant,
}

/// Increases a counter by one, if it has this much.
#[derive(Clone, Copy)]
struct Once(u64);

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("it is at {0} only")]
pub struct TooLow(pub u64);

impl Decide<Once> for Counter {
    type Error = TooLow;
    fn decide(&self, &Once(at_least): &Once, _: &Context) -> Decision<Self, TooLow> {
        if self.sum < at_least { reject(TooLow(self.sum)) } else { emit(CounterEvent::Increased { by: 1 }) }
    }
}

pub async fn once(annals: &Annals, id: &str, at_least: u64) -> Result<u64, ExecuteError<TooLow>> {
    let counters = annals.repository::<Counter>().retries(1_000);
    Ok(counters.execute(id, Once(at_least)).once("k").await?.state.sum)
}

async fn answers(annals: &Annals) -> Vec<Recorded<Answer>> {
    let types = Answer::TYPES.iter().map(|name| EventType::new(*name).unwrap()).collect();
    let query = Query { items: vec![QueryItem { types, ..QueryItem::default() }] };
    let stored = annals.store().log_events(query).await.unwrap();
    stored.into_iter().flat_map(|stored| Recorded::read(&stored).unwrap()).collect()
}

async fn a_refusal_holds_in_every_process(place: Place) {
    let (one, two) = (Annals::open(&place.url).await.unwrap(), Annals::open(&place.url).await.unwrap());
    one.project(Sums::<1>::default()).inline().start().await.unwrap();
    increase(&one, "a", 5).await;
    let refused = once(&one, "a", 10).await.unwrap_err();
    assert_eq!(refused.rejection(), Some(&TooLow(5)));
    let position = increase(&two, "a", 100).await;
    for annals in [&two, &one, &Annals::open(&place.url).await.unwrap()] {
        let again = once(annals, "a", 10).await.unwrap_err();
        assert!(matches!(again, ExecuteError::RefusedBefore { .. }), "{again:?}");
        assert_eq!(again.refusal::<Counter, Once>(), refused.refusal::<Counter, Once>());
    }
    assert_eq!(sum::<1>(&one, "a", position).await, Some((105, 2)));
    assert_eq!(answers(&one).await.len(), 1);
    one.settle().await.unwrap();
}

async fn many_processes_give_one_answer_to_one_command(place: Place) {
    let mut systems = Vec::new();
    for _ in 0..4 {
        systems.push(Annals::open(&place.url).await.unwrap());
    }
    for round in 0..5 {
        let id = format!("r{round}");
        let tasks: Vec<_> = systems
            .iter()
            .enumerate()
            .map(|(index, annals)| {
                let (annals, id) = (annals.clone(), id.clone());
                tokio::spawn(async move {
                    let counters = annals.repository::<Counter>().retries(1_000);
                    counters.execute(&id, Increase(1)).await.unwrap();
                    if index % 2 == 0 {
                        counters.execute(&id, Increase(1)).await.unwrap();
                    }
                    once(&annals, &id, 4).await.map(drop).map_err(|refused| refused.to_string())
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.push(task.await.unwrap());
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
        let sum = systems[0].repository::<Counter>().load(&id).await.unwrap().state.sum;
        assert_eq!(sum, 6 + u64::from(all[0].is_ok()));
        let of = |answer: &&Recorded<Answer>| answer.event.stream.id() == Some(&id);
        assert_eq!(answers(&systems[0]).await.iter().filter(of).count(), usize::from(all[0].is_err()));
    }
}

async fn a_refusal_in_a_group_ends_the_delivery(place: Place) {
    const STREAMS: u64 = 16;
    let systems = [Annals::open(&place.url).await.unwrap(), Annals::open(&place.url).await.unwrap()];
    for annals in &systems {
        let subscriber = annals.subscribe("reacts").partitions(4).retry(QUICKLY);
        let subscriber = subscriber.on(async |event: Recorded<CounterEvent>, delivery| {
            if let Some(number) = event.aggregate_id().strip_prefix("in") {
                let at_least = number.parse::<u64>()? % 2;
                delivery.repository::<Counter>().execute(format!("out{number}"), Once(at_least)).await?;
            }
            Ok(())
        });
        subscriber.start().await.unwrap();
    }
    for _ in 0..2 {
        for number in 0..STREAMS {
            increase(&systems[0], &format!("in{number}"), 1).await;
        }
    }
    // A share that changes hands is nobody's for a moment, so that neither process waits for it.
    let counters = systems[0].repository::<Counter>();
    let reacted = async {
        for number in (0..STREAMS).step_by(2) {
            while counters.load(format!("out{number}")).await.unwrap().state.sum < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        while (answers(&systems[0]).await.len() as u64) < STREAMS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), reacted).await.expect("each event is delivered");
    for annals in &systems {
        annals.settle_within(Duration::from_secs(120)).await.unwrap();
    }
    assert_eq!(answers(&systems[0]).await.len() as u64, STREAMS, "each odd one is refused twice");
    for number in 0..STREAMS {
        let sum = counters.load(format!("out{number}")).await.unwrap().state.sum;
        assert_eq!(sum, if number % 2 == 0 { 2 } else { 0 }, "{number}");
    }
    let mut refused = 0;
    for annals in &systems {
        let status = annals.status().await.unwrap();
        refused += status.iter().find(|status| status.name == "reacts").unwrap().refused;
    }
    assert!(refused >= STREAMS, "{refused} were counted");
}

async fn a_refusal_moves_with_the_log_of_a_tenant(place: Place) {
    let (from, to) = (place.another().await.url, place.another().await.url);
    let tenants = Tenants::open(&place.url).await.unwrap();
    tenants.add("acme", &from).await.unwrap();
    let annals = Annals::with_store(tenants.log("acme").await.unwrap(), State::memory()).await.unwrap();
    once(&annals, "a", 10).await.unwrap_err();
    tenants.move_to("acme", &to, |_| {}).await.unwrap();
    increase(&annals, "a", 100).await;
    let again = once(&annals, "a", 10).await.unwrap_err();
    assert!(matches!(again, ExecuteError::RefusedBefore { .. }), "{again:?}");
    assert_eq!(annals.repository::<Counter>().load("a").await.unwrap().state.sum, 100);
}
