//! The first start of a group, by several processes at once.

use annals::{Annals, Recorded};

use crate::databases::counter::CounterEvent;
use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    a_group_is_started_by_several_processes_at_once,
}

async fn a_group_is_started_by_several_processes_at_once(place: Place) {
    let mut systems = Vec::new();
    for _ in 0..4 {
        systems.push(Annals::open(&place.url).await.unwrap());
    }
    for round in 0..20 {
        let starts = systems.iter().map(|annals| {
            let annals = annals.clone();
            tokio::spawn(async move {
                let subscriber = annals.subscribe(format!("mail-{round}")).partitions(16);
                subscriber.on(|_: Recorded<CounterEvent>, _| std::future::ready(Ok(()))).start().await
            })
        });
        for start in starts.collect::<Vec<_>>() {
            start.await.unwrap().unwrap_or_else(|error| panic!("round {round}: {}", error.chain()));
        }
    }
}
