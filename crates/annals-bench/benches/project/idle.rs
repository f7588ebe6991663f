//! What twenty projections and the publisher of an outbox cost while nothing happens.

use std::time::Duration;

use annals::{Annals, HandlerError, Projection, Recorded, Tx};
use annals_bench::consume::{ConsumedEvent, fill};
use annals_outbox::{Message, Outbox};
use annals_testservers::kind::Kind;
use annals_testservers::place::{Beside, Place};

use crate::deposits::SCHEMA;

const NAMES: [&str; 20] =
    ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"];

struct Numbered<const N: usize>;

impl<const N: usize> Projection for Numbered<N> {
    const NAME: &'static str = NAMES[N];
    const SCHEMA: &'static str = SCHEMA;
    type Event = ConsumedEvent;

    fn apply(&self, event: &Recorded<ConsumedEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        let ConsumedEvent::Deposited { amount } = event.event;
        Ok(tx.queue("INSERT INTO deposits VALUES (?1, ?2)", (event.position(), amount))?)
    }
}

macro_rules! start {
    ($annals:ident, $($number:literal)*) => {
        $($annals.project(Numbered::<$number>).start().await.unwrap();)*
    };
}

/// Starts them on a log with a few events, lets them catch up, and looks at what is done afterwards.
pub async fn run(kind: Kind, time: Duration) {
    let place = Place::on(kind).await;
    let annals = Annals::open(&place.url).await.unwrap();
    fill(&**annals.store(), 100, 10).await.unwrap();
    start!(annals, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19);
    let outbox = match place.url.split_once("?schema=") {
        Some((address, schema)) => {
            let options: sqlx::postgres::PgConnectOptions = address.parse().unwrap();
            let pool = sqlx::PgPool::connect_with(options.options([("search_path", schema)])).await.unwrap();
            Outbox::new(pool)
        }
        None => Outbox::new(sqlx::MySqlPool::connect(&place.url).await.unwrap()),
    };
    outbox.migrate().await.unwrap();
    let publisher = outbox.publisher(|_: Message| async { Ok(()) }).start().await.unwrap();
    annals.settle().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut beside = place.beside().await;
    let (cpu, done) = (cpu_seconds(), statements(&mut beside).await);
    tokio::time::sleep(time).await;
    let (cpu, done) = (cpu_seconds() - cpu, statements(&mut beside).await - done);
    let what = if kind.is_postgres() { "transactions" } else { "statements" };
    println!("{kind:?}, 20 projections and a publisher that have nothing to do, {} s", time.as_secs());
    println!(
        "  of a core                             per cent         {:.2}",
        cpu / time.as_secs_f64() * 100.0
    );
    println!(
        "  {what:<12} of the server            per second       {:.1}",
        done as f64 / time.as_secs_f64()
    );
    publisher.stop().await;
    annals.shutdown().await;
}

/// Time of a processor that this process has used. Not counted in ticks of the kernel: a process that wakes
/// by timers is found running at a tick more often than between two.
fn cpu_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// What the server has done so far. PostgreSQL counts transactions, of which a statement alone is one.
async fn statements(beside: &mut Beside) -> i64 {
    let sql = match beside {
        Beside::Postgres(_) => "SELECT SUM(xact_commit + xact_rollback)::bigint FROM pg_stat_database",
        Beside::MySql(_) => {
            "SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status \
             WHERE variable_name = 'QUESTIONS'"
        }
    };
    beside.number(sql).await
}
