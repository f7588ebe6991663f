//! Two tenants, and two ways to write where one database is.

use annals::{Append, Error, EventStore, Expected, NewEvent, Result, StreamId, Tenants};

use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    a_place_is_one_tenants_however_it_is_written,
    a_place_is_one_directorys,
    a_place_that_has_a_log_already_is_nobodys,
    a_place_of_an_earlier_version_is_still_its_tenants,
    two_members_that_add_one_place_at_once_do_not_both_get_it,
    a_log_is_moved_to_no_place_of_others,
}

async fn a_place_is_one_tenants_however_it_is_written(place: Place) {
    let directory = place.another().await;
    let tenants = Tenants::open(&directory.url).await.unwrap();
    tenants.add("acme", &place.url).await.unwrap();
    let acme = tenants.log("acme").await.unwrap();
    let event = NewEvent::new("customer.registered", "{\"name\": \"of acme\"}").unwrap();
    let append = Append::to(StreamId::new("customer-1").unwrap(), Expected::Any, [event]);
    acme.append(append).await.unwrap();
    // The same server by another name.
    let again = place.url.replace("127.0.0.1", "localhost");
    assert_ne!(again, place.url);
    if tenants.add("beta", &again).await.is_ok() {
        let beta = tenants.log("beta").await.unwrap();
        let head = beta.head().await.unwrap();
        panic!("two tenants have the log {}; the new one reads {head} events of the other", beta.id());
    }
}

/// The same place at the same server, written in another way.
fn otherwise(place: &Place) -> String {
    place.url.replace("127.0.0.1", "localhost")
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T>, why: &str) {
    match answer {
        Err(Error::Invalid(invalid)) => assert!(invalid.to_string().contains(why), "{invalid}"),
        other => panic!("it should be refused because {why}, and is {other:?}"),
    }
}

fn something() -> Append {
    let event = NewEvent::new("thing.done", "{}").unwrap();
    Append::to(StreamId::new("thing-1").unwrap(), Expected::Any, [event])
}

async fn open(url: &str) -> std::sync::Arc<dyn EventStore> {
    annals::open_store(&url.parse().unwrap()).await.unwrap()
}

/// Two directories do not give away one place, and none its own or another's.
async fn a_place_is_one_directorys(place: Place) {
    let (one, two) = (place.another().await, place.another().await);
    let (first, second) = (Tenants::open(&one.url).await.unwrap(), Tenants::open(&two.url).await.unwrap());
    for own in [one.url.clone(), otherwise(&one)] {
        refused(first.add("acme", &own).await, "is a directory");
        refused(second.add("acme", &own).await, "is a directory");
    }
    first.add("acme", &place.url).await.unwrap();
    refused(second.add("acme", &place.url).await, "by the directory");
    refused(Tenants::open(&otherwise(&place)).await.map(drop), "is the tenant `acme`'s");
    // Both still take what is theirs.
    let third = place.another().await;
    second.add("acme", &third.url).await.unwrap();
    first.log("acme").await.unwrap().append(something()).await.unwrap();
    second.log("acme").await.unwrap().append(something()).await.unwrap();
    assert_eq!(Tenants::open(&one.url).await.unwrap().place("acme").await.unwrap(), Some(place.url));
}

async fn a_place_that_has_a_log_already_is_nobodys(place: Place) {
    let tenants = Tenants::open(&place.another().await.url).await.unwrap();
    let service = open(&place.url).await;
    service.append(something()).await.unwrap();
    refused(tenants.add("acme", &place.url).await, "already, with events in it");
    assert_eq!(tenants.place("acme").await.unwrap(), None);
    // One without events may have been made beforehand.
    let empty = place.another().await;
    let id = open(&empty.url).await.id();
    tenants.add("acme", &empty.url).await.unwrap();
    tenants.add("acme", &empty.url).await.unwrap();
    assert_eq!(tenants.log("acme").await.unwrap().id(), id);
}

/// Its places have no owner yet, and the directory knows them by their addresses.
async fn a_place_of_an_earlier_version_is_still_its_tenants(place: Place) {
    let directory = place.another().await;
    let tenants = Tenants::open(&directory.url).await.unwrap();
    tenants.add("acme", &place.url).await.unwrap();
    tenants.log("acme").await.unwrap().append(something()).await.unwrap();
    let mut beside = place.beside().await;
    beside.run(&format!("DELETE FROM {}.owner", place.name)).await;
    let tenants = Tenants::open(&directory.url).await.unwrap();
    refused(tenants.add("beta", &otherwise(&place)).await, "already, with events in it");
    assert_eq!(tenants.log("acme").await.unwrap().head().await.unwrap().get(), 1);
    refused(tenants.add("beta", &otherwise(&place)).await, "is the tenant `acme`'s");
    // What it noted of a place without events.
    let noted = place.another().await;
    let event = NewEvent::new("place.taken", r#"{"tenant":"acme"}"#).unwrap();
    let stream = StreamId::of("place", &noted.url).unwrap();
    open(&directory.url).await.append(Append::to(stream, Expected::Any, [event])).await.unwrap();
    refused(tenants.add("beta", &noted.url).await, "is the tenant `acme`'s");
}

async fn two_members_that_add_one_place_at_once_do_not_both_get_it(place: Place) {
    let directory = place.another().await;
    let tenants = Tenants::open(&directory.url).await.unwrap();
    let other = Tenants::open(&directory.url).await.unwrap();
    let again = otherwise(&place);
    open(&place.url).await;
    let (one, two) = tokio::join!(tenants.add("acme", &place.url), other.add("beta", &again));
    assert!(one.is_ok() != two.is_ok(), "{one:?}, {two:?}");
    refused(one.and(two), "'s");
}

async fn a_log_is_moved_to_no_place_of_others(place: Place) {
    let (one, two, directory) = (place.another().await, place.another().await, place.another().await);
    let tenants = Tenants::open(&directory.url).await.unwrap();
    tenants.add("acme", &one.url).await.unwrap();
    tenants.add("beta", &two.url).await.unwrap();
    let log = tenants.log("acme").await.unwrap();
    log.append(something()).await.unwrap();
    refused(tenants.move_to("acme", &otherwise(&two), |_| {}).await, "is the tenant `beta`'s");
    refused(tenants.move_to("acme", &otherwise(&directory), |_| {}).await, "is a directory");
    log.append(something()).await.unwrap();
    tenants.log("beta").await.unwrap().append(something()).await.unwrap();
    // The directory takes what is said to it, the place is where it was, and nothing is under way.
    tenants.move_to("acme", &place.url, |_| {}).await.unwrap();
    log.append(something()).await.unwrap();
    // To another way to write where it is: nothing is copied, and it takes appends again.
    tenants.move_to("acme", &otherwise(&place), |_| {}).await.unwrap();
    assert_eq!(log.append(something()).await.unwrap().first.get(), 4);
    assert_eq!(tenants.place("acme").await.unwrap(), Some(otherwise(&place)));
}

/// A server that does not care for the capitals in a database's name.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn capitals_make_no_second_place_where_the_server_does_not_care() {
    let server = annals_testservers::server::mariadb(&["lower-case-table-names=1"]);
    let (root, _) =
        server.url().rsplit_once('/').map(|(root, name)| (root.to_owned(), name.to_owned())).unwrap();
    let mut connection = <sqlx::MySqlConnection as sqlx::Connection>::connect(&server.url()).await.unwrap();
    for name in ["directory", "shop"] {
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::Executor::execute(&mut connection, create).await.unwrap();
    }
    let tenants = Tenants::open(&format!("{root}/directory")).await.unwrap();
    tenants.add("acme", &format!("{root}/shop")).await.unwrap();
    refused(tenants.add("beta", &format!("{root}/SHOP")).await, "is the tenant `acme`'s");
}
