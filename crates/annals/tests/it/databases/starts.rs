//! Starts: of many for the first time, on what a dump has left out, and behind what does not keep sessions.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use annals::{Annals, Append, Error, EventStore, EventStoreExt, Expected, NewEvent, Query, StreamId};
use annals_testservers::server;

use crate::databases::counter::{Sums, increase, sum};
use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    several_that_start_for_the_first_time_all_succeed,
    what_a_dump_omitted_is_created_again,
    rows_of_an_older_version_get_their_primary_key,
}

fn append(stream: &str) -> Append {
    let event = NewEvent::new("thing.done", "{}").unwrap();
    Append::to(StreamId::new(stream).unwrap(), Expected::NoStream, [event])
}

async fn several_that_start_for_the_first_time_all_succeed(place: Place) {
    let starting: Vec<_> = (0..8)
        .map(|number| {
            let url = place.url.clone();
            tokio::spawn(async move {
                let annals = Annals::open(&url).await.map_err(|error| error.to_string())?;
                annals.project(Sums::<1>::default()).start().await.map_err(|error| error.to_string())?;
                let appended = annals.store().append(append(&format!("thing-{number}"))).await;
                appended.map_err(|error| error.chain())?;
                Ok::<_, String>(annals.store().id())
            })
        })
        .collect();
    let mut ids = Vec::new();
    for one in starting {
        ids.push(one.await.unwrap().unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "they have made one log");
    let store = annals::open_store(&place.url.parse().unwrap()).await.unwrap();
    assert_eq!(store.log_events(Query::all()).await.unwrap().len(), 8);
}

/// As `mariadb-dump` without `--routines`, and `pg_dump` of tables alone.
async fn what_a_dump_omitted_is_created_again(place: Place) {
    let open = async || annals::open_store(&place.url.parse().unwrap()).await.unwrap();
    open().await.append(append("thing-1")).await.unwrap();
    let migrate = async || match place.is_postgres() {
        true => annals_postgres::migrate(&place.url).await.unwrap(),
        false => annals_mysql::migrate(&place.url).await.unwrap(),
    };
    migrate().await;
    let functions: &[&str] = match place.is_postgres() {
        true => &["FUNCTION %.append_group", "FUNCTION %.assert_log", "FUNCTION %.assumed_after"],
        false => &["PROCEDURE %.append_begin", "PROCEDURE %.assert_log"],
    };
    let mut owner = place.beside().await;
    for (number, function) in functions.iter().enumerate() {
        owner.run(&format!("DROP {}", function.replace('%', &place.name))).await;
        assert_eq!(migrate().await, 1, "it is made again, and counted");
        assert_eq!(migrate().await, 0);
        open().await.append(append(&format!("migrated-{number}"))).await.unwrap();
        owner.run(&format!("DROP {}", function.replace('%', &place.name))).await;
        open().await.append(append(&format!("opened-{number}"))).await.unwrap();
    }
    assert_eq!(open().await.log_events(Query::all()).await.unwrap().len(), 1 + 2 * functions.len());
}

/// A dump of the tables that the version before had, without its procedure.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_older_dump_without_its_procedures_is_brought_up_to_date() {
    let place = Place::mariadb().await;
    let open = async || annals::open_store(&place.url.parse().unwrap()).await.unwrap();
    open().await.append(append("thing-1")).await.unwrap();
    let mut owner = place.beside().await;
    let older = "DROP PROCEDURE %.append_begin; DROP PROCEDURE %.assert_log; DROP TABLE %.owner;
        DELETE FROM %.migrations WHERE step > 2";
    owner.run(&older.replace('%', &place.name)).await;
    open().await.append(append("thing-2")).await.unwrap();
    assert_eq!(open().await.log_events(Query::all()).await.unwrap().len(), 2);
}

/// A procedure of a user who is not on the server on which a dump is restored.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn procedures_do_not_depend_on_who_created_them() {
    let place = Place::mariadb().await;
    annals::open_store(&place.url.parse().unwrap()).await.unwrap();
    let mut owner = place.beside().await;
    let user = format!("reader_{}", place.name);
    owner
        .run(&format!(
            "CREATE USER {user}@'%'; GRANT SELECT, INSERT, UPDATE, EXECUTE ON `{0}`.* TO {user}@'%'; DROP USER {0}@'%'",
            place.name
        ))
        .await;
    let url = place.url.replace(&format!("{}@", place.name), &format!("{user}@"));
    let store = annals::open_store(&url.parse().unwrap()).await.unwrap();
    store.append(append("thing-1")).await.unwrap();
}

/// Tables without a primary key are refused by such a server, and by group replication.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_table_has_a_primary_key() {
    let server = server::mariadb(&["innodb-force-primary-key=1", "innodb-flush-log-at-trx-commit=2"]);
    rows_are_made(&server.url()).await;
}

async fn rows_of_an_older_version_get_their_primary_key(place: Place) {
    rows_are_made(&place.url).await;
    let mut owner = place.beside().await;
    let table = format!("{}$sums_v1", place.name);
    let quote = if place.is_postgres() { '"' } else { '`' };
    let drop = if place.is_postgres() { "CONSTRAINT annals_checkpoint_pkey" } else { "PRIMARY KEY" };
    owner.run(&format!("ALTER TABLE {quote}{table}{quote}.annals_checkpoint DROP {drop}")).await;
    let annals = Annals::open(&place.url).await.unwrap();
    annals.project(Sums::<1>::default()).start().await.unwrap();
    let position = increase(&annals, "a", 1).await;
    assert_eq!(sum::<1>(&annals, "a", position).await, Some((4, 3)), "the rows are kept");
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.table_constraints
        WHERE table_schema = '{table}' AND table_name = 'annals_checkpoint' AND constraint_type = 'PRIMARY KEY'"
    );
    assert_eq!(owner.number(&sql).await, 1);
}

/// A publication of all tables refuses changes of rows that nothing identifies.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_table_can_be_published() {
    let place = Place::postgres().await;
    place.beside().await.run(&format!("CREATE PUBLICATION {} FOR ALL TABLES", place.name)).await;
    rows_are_made(&place.url).await;
    place.beside().await.run(&format!("DROP PUBLICATION {}", place.name)).await;
}

async fn rows_are_made(url: &str) {
    let annals = Annals::open(url).await.unwrap();
    annals.project(Sums::<1>::default()).start().await.unwrap();
    increase(&annals, "a", 1).await;
    let position = increase(&annals, "a", 2).await;
    assert_eq!(sum::<1>(&annals, "a", position).await, Some((3, 2)));
    annals.shutdown().await;
}

/// The end of an answer of PostgreSQL: ready, outside of a transaction.
const READY: &[u8] = b"Z\0\0\0\x05I";

/// A pooler that gives its one server to whichever client sends something, between any two transactions.
struct Pooler {
    server: Mutex<TcpStream>,
    /// The answer of the server to the first client's greeting, for the later ones.
    greeting: Mutex<Vec<u8>>,
    /// The client whose transaction is running, and its number.
    served: Mutex<Option<(u16, TcpStream)>>,
    is_free: Condvar,
}

impl Pooler {
    fn start(place: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap().to_string();
        let server = TcpStream::connect(place).unwrap();
        let mut answers = server.try_clone().unwrap();
        let pooler = Arc::new(Self {
            server: Mutex::new(server),
            greeting: Mutex::default(),
            served: Mutex::default(),
            is_free: Condvar::new(),
        });
        let answering = pooler.clone();
        std::thread::spawn(move || {
            let mut bytes = vec![0; 64 << 10];
            while let Ok(read @ 1..) = answers.read(&mut bytes) {
                answering.answer(&bytes[..read]);
            }
        });
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let pooler = pooler.clone();
                std::thread::spawn(move || pooler.serve(client));
            }
        });
        here
    }

    fn answer(&self, bytes: &[u8]) {
        let mut served = self.served.lock().unwrap();
        if let Some((_, client)) = &mut *served {
            let _ = client.write_all(bytes);
            if bytes.ends_with(READY) {
                *served = None;
                self.is_free.notify_all();
            }
            return;
        }
        let mut greeting = self.greeting.lock().unwrap();
        // What comes later belongs to no transaction, such as a notification, and is for no client.
        if !greeting.ends_with(READY) {
            greeting.extend_from_slice(bytes);
        }
    }

    fn serve(&self, mut client: TcpStream) {
        let mut bytes = vec![0; 64 << 10];
        // No encryption, then the names of the user and the database.
        client.read_exact(&mut bytes[..8]).unwrap();
        client.write_all(b"N").unwrap();
        let read = client.read(&mut bytes).unwrap();
        if self.greeting.lock().unwrap().is_empty() {
            self.server.lock().unwrap().write_all(&bytes[..read]).unwrap();
        }
        while !self.greeting.lock().unwrap().ends_with(READY) {
            std::thread::yield_now();
        }
        client.write_all(&self.greeting.lock().unwrap()).unwrap();
        let own = client.peer_addr().unwrap().port();
        while let Ok(read @ 1..) = client.read(&mut bytes) {
            if bytes[..read].starts_with(b"X\0\0\0\x04") {
                break;
            }
            let is_of_another =
                |served: &mut Option<(u16, _)>| served.as_ref().is_some_and(|(of, _)| *of != own);
            let mut served = self.is_free.wait_while(self.served.lock().unwrap(), is_of_another).unwrap();
            *served = Some((own, client.try_clone().unwrap()));
            self.server.lock().unwrap().write_all(&bytes[..read]).unwrap();
        }
        // It may have gone amid a transaction.
        if self.served.lock().unwrap().take_if(|(of, _)| *of == own).is_some() {
            self.is_free.notify_all();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pooler_that_does_not_keep_sessions_is_refused_with_what_to_do() {
    let place = Place::postgres().await;
    annals::open_store(&place.url.parse().unwrap()).await.unwrap();
    let of_server = place.url.split_once('@').unwrap().1.split('/').next().unwrap();
    let url = place.url.replace(of_server, &Pooler::start(of_server));
    for _ in 0..2 {
        let refused = annals::open_store(&url.parse().unwrap()).await.err().expect("it is not noticed");
        assert!(matches!(refused, Error::Invalid(_)), "{}", refused.chain());
        assert!(refused.chain().contains("must keep sessions"), "{}", refused.chain());
    }
}
